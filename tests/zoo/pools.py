"""Bugs that the memory pools of OpenBSD had or have."""

from __future__ import annotations

from functools import partial

import anyio
from anyio.lowlevel import checkpoint

from mbufpools.lab import Shared

from ._specimen import Specimen, together

__all__ = ["SPECIMENS"]


class Pools:
    """OpenBSD, `m_pool_free`: two pools draw pages from one budget, and a page that goes back
    wakes only the tasks that wait at its own pool."""

    def __init__(self) -> None:
        self.free = Shared(1)
        self.waiters: dict[str, Shared[tuple[anyio.Event, ...]]] = {
            "small": Shared(()),
            "large": Shared(()),
        }

    async def use(self, pool: str) -> None:
        while not self.free.value:
            event = anyio.Event()
            self.waiters[pool].value = (*self.waiters[pool].value, event)
            await event.wait()  # stall: only the own pool is woken
        self.free.value -= 1
        await checkpoint()
        self.free.value += 1
        self.wake(pool)

    def wake(self, pool: str) -> None:
        for event in self.waiters[pool].value:
            event.set()
        self.waiters[pool].value = ()


class PoolsThatWakeEachOther(Pools):
    """A page that goes back wakes the tasks of all pools."""

    def wake(self, pool: str) -> None:
        for name in self.waiters:
            super().wake(name)


async def two_pools(pools_class: type[Pools]) -> None:
    pools = pools_class()
    await together(partial(pools.use, "small"), partial(pools.use, "large"))


class AddThenCheck:
    """OpenBSD, `m_pool_alloc`: adds to the sum, then looks whether it is too much, and if so takes
    it back. A small request that came in between has seen the sum, and is not woken."""

    limit = 4

    def __init__(self) -> None:
        self.used = Shared(0)
        self.event = anyio.Event()

    async def allocate(self, units: int) -> bool:
        self.used.value += units
        await checkpoint()
        if self.used.value <= self.limit:
            return True
        self.used.value -= units
        return False

    async def small(self) -> None:
        while not await self.allocate(1):
            await self.event.wait()  # stall: add then check

    async def large(self) -> None:
        await self.allocate(8)


class CheckThenAdd(AddThenCheck):
    """Looks and adds in one step."""

    async def allocate(self, units: int) -> bool:
        await checkpoint()
        if self.used.value + units > self.limit:
            return False
        self.used.value += units
        return True


async def small_and_large(budget_class: type[AddThenCheck]) -> None:
    budget = budget_class()
    await together(budget.small, budget.large)


class StalePages:
    """OpenBSD, `pool_do_put`: a page that was full and has an item again is not looked at until it
    is empty."""

    def __init__(self) -> None:
        self.free_items = Shared(0)
        self.missing = Shared(2)
        self.current = Shared(False)
        self.waiter: Shared[anyio.Event | None] = Shared(None)

    async def get(self) -> None:
        while not self.current.value:
            self.waiter.value = event = anyio.Event()
            await event.wait()  # stall: stale current page
        self.free_items.value -= 1

    async def put(self) -> None:
        await checkpoint()
        self.free_items.value += 1
        self.missing.value -= 1
        self.refresh()
        if self.waiter.value is not None:
            self.waiter.value.set()

    def refresh(self) -> None:
        self.current.value = self.missing.value == 0


class RefreshedPages(StalePages):
    """A page with an item is looked at."""

    def refresh(self) -> None:
        self.current.value = self.free_items.value > 0


async def one_item_comes_back(page_class: type[StalePages]) -> None:
    page = page_class()
    await together(page.get, page.put)


SPECIMENS = (
    Specimen(
        "only the own pool is woken",
        partial(two_pools, Pools),
        partial(two_pools, PoolsThatWakeEachOther),
        kind="stall",
        told="for anyio's Event: set() was not called after that",
        found=1,
        proved=8,
    ),
    Specimen(
        "add then check",
        partial(small_and_large, AddThenCheck),
        partial(small_and_large, CheckThenAdd),
        kind="stall",
        told="for anyio's Event: set() was not called after that",
        found=1,
        proved=12,
    ),
    Specimen(
        "stale current page",
        partial(one_item_comes_back, StalePages),
        partial(one_item_comes_back, RefreshedPages),
        kind="stall",
        told="for anyio's Event: set() was not called after that",
        found=1,
        proved=6,
    ),
)
