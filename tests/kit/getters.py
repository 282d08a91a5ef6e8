"""A scene: a pool set, tasks that get, and a log of which task was granted an item.

A test says in which order things happen at one moment; tasks that are ready at one moment run in
any order, on trio truly so. So a get is started here and followed until it holds a buffer, waits
or has failed, and only then does the test go on. A test asserts the log, which the event hook
writes when a grant is decided, not when its task resumes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, ClassVar, Generic, Self, TypeVar

import anyio
import pytest
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from mbufpools import Buffer, BufferPools, Event, EventKind, Order, PoolSpec, PoolStatistics
from tests.kit.getter import Getter

__all__ = ["EVERY_ORDER", "Scene", "on_asyncio", "one_item_a_page", "until"]

on_asyncio = pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
"""For what only asyncio has: the cancellation of a task, natively."""

KERNELS = {"order": "barging", "reclaim": "gc"}
"""The kernel's order: what other orders add has tests of its own."""
EVERY_ORDER = [
    pytest.param({"order": str(order), "reclaim": reclaim}, id=f"{order}-{reclaim}")
    for order in Order
    for reclaim in ("gc" if order is Order.BARGING else "pressure",)
]
"""Each order, with the rule of reclaim that goes with it: the kernel's with the kernel's."""
PATIENCE = 10_000.0
"""Seconds of virtual time."""

Pools = TypeVar("Pools", bound=BufferPools)


def one_item_a_page(item_size: int = 4096, **options: Any) -> PoolSpec:
    """The spec of a pool whose page is one item, so that a limit counts items."""
    spec = PoolSpec(item_size, items_per_page=1, **options)
    assert spec.items_per_page == 1, "an item of this size shares its page"
    return spec


async def until(condition: Callable[[], object]) -> None:
    """Let the other tasks run until `condition()` is true. Takes no virtual time."""
    for _ in range(1000):
        if condition():
            return
        await checkpoint()
    raise AssertionError("it never came to that")


class Scene(Generic[Pools]):
    """An entered pool set with its getters and its log.

    An async context manager: ``async with Scene(BufferPools, 4096, [4096]) as scene``. At the end
    all waits are cancelled, what is held is released, the pools are closed, and then nothing
    may be out and nothing charged. A test that waits for what never comes would wait for ever in
    virtual time, for the gc has a timer: so after `PATIENCE` seconds of it, it fails.
    """

    rules: ClassVar[dict[str, Any]] = KERNELS
    """The order and reclaim of `BufferPools`, unless a test says otherwise."""

    def __init__(self, make: Callable[..., Pools], *args: Any, **options: Any) -> None:
        if make is BufferPools:
            options = {**self.rules, **options}
        self.pools = make(*args, hook=self._observe, **options)
        self.granted: list[str] = []
        """The names of the getters that were granted an item, in the order of the decisions."""
        self.events: list[Event] = []
        self._kinds: Counter[EventKind] = Counter()
        self.getters: dict[str, Getter] = {}
        self._asking = ""
        self._names: dict[int, str] = {}
        self._group: TaskGroup | None = None
        self._life = self._live()

    def _observe(self, event: Event) -> None:
        self.events.append(event)
        self._kinds[event.kind] += 1
        if event.kind is EventKind.WAIT:
            self._names[event.request] = self._asking
        elif event.kind is EventKind.GRANT:
            self.granted.append(self._names.get(event.request, self._asking))
        elif event.kind is EventKind.GET and self._asking:
            self.granted.append(self._asking)

    async def get(self, name: str, what: int | str, **options: int) -> Getter:
        """Start a task that gets `what`, a number of bytes or an item of the pool of that name;
        the `options` are those of the pool's ``get``.

        Returns once it holds its buffer, waits, or has failed. Takes no virtual time.
        """
        assert self._group is not None
        assert name not in self.getters, f"there is a getter {name!r} already"
        getter = self.getters[name] = Getter(name)
        started = False

        async def get() -> Buffer:
            nonlocal started
            started = True
            self._asking = name  # until the get parks or takes, which is without a pause
            if isinstance(what, int):
                return await self.pools.get(what, **options)
            return await self.pools.pools[what].get(**options)

        self._group.start_soon(getter.run, get, name=name)
        await until(lambda: started)
        self._asking = ""
        await until(lambda: name in self._names.values() or getter.has_ended())
        return getter

    def try_get(self, name: str, pool: str) -> bool:
        """Get an item of `pool` without waiting, as a getter of that name; False if there is
        none. It is not in `granted`."""
        getter = Getter.without_waiting(name, self.pools.pools[pool].get_nowait)
        if isinstance(getter.error, anyio.WouldBlock):
            return False
        if getter.error is not None:
            raise getter.error
        self.getters[name] = getter
        return True

    async def settle(self) -> None:
        """Return once the task queue has nothing to do now. Takes no virtual time."""
        while self.pools.taskq.statistics().queued:
            await self.pools.taskq.barrier()

    def of(self, pool: str) -> PoolStatistics:
        """The counters of one pool."""
        return self.pools.statistics().pools[pool]

    def waiting(self) -> list[str]:
        """The names of the getters that wait: neither granted nor ended."""
        return [
            name
            for name in self._names.values()
            if name not in self.granted and not self.getters[name].has_ended()
        ]

    def told(self, kind: EventKind) -> list[str]:
        """The pools or tasks of the events of this kind, in their order."""
        return [event.name for event in self.events if event.kind is kind]

    def check(self) -> None:
        """Every invariant holds, the sums of the counters agree, and the events tell of each item
        that went out and that came back just once."""
        self.pools.check()
        statistics = self.pools.statistics()
        pages = 0
        kinds = self._kinds
        every = statistics.pools.values()
        caches = [pool.caches for pool in every if pool.caches is not None]
        gets = sum(pool.nget for pool in every) + sum(cache.nget for cache in caches)
        assert gets == kinds[EventKind.GET] + kinds[EventKind.GRANT]
        puts = sum(pool.nput for pool in every) + sum(cache.nput for cache in caches)
        assert puts == kinds[EventKind.PUT]
        assert sum(pool.npagefree for pool in every) >= kinds[EventKind.PAGE_OUT]
        for pool in statistics.pools.values():
            assert pool.nout == pool.nget - pool.nput
            assert pool.npages == pool.npagealloc - pool.npagefree
            assert 0 <= pool.in_use <= pool.npages * pool.items_per_page
            assert 0 <= pool.nidle <= pool.npages <= pool.hiwat
            pages += pool.npages * pool.page_size
        assert pages <= statistics.allocated <= statistics.peak

    @asynccontextmanager
    async def _live(self) -> AsyncIterator[Self]:
        error: Exception | None = None
        with anyio.fail_after(PATIENCE):
            async with self.pools:
                try:
                    async with anyio.create_task_group() as self._group:
                        try:
                            yield self
                        except Exception as failure:  # noqa: BLE001 - raised below, as it is
                            error = failure
                        self._group.cancel_scope.cancel()
                finally:
                    for getter in self.getters.values():
                        if getter.holds():
                            getter.release()
                if error is not None:
                    raise error
        self.check()
        statistics = self.pools.statistics()
        assert statistics.waiting == 0
        assert all(pool.in_use == 0 for pool in statistics.pools.values()), "something leaked"
        assert statistics.allocated == 0, "a page leaked"

    async def __aenter__(self) -> Self:
        self._life = self._live()
        return await self._life.__aenter__()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._life.__aexit__(exc_type, exc, traceback)  # noqa: ASYNC102 - it has a deadline
