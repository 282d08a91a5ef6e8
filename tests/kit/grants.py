"""What the tests of the waiting order share: a log of what the pools did, and pools to watch.

A test judges the order by the log, never by the order in which tasks resume, which trio shuffles.
Each request asks for a number of bytes of its own, so that the log shows which it was.
"""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from mbufpools import (
    AccountedMemory,
    BufferPools,
    Buffers,
    Event,
    EventKind,
    Order,
    PoolSpec,
    Wakeup,
)
from tests.kit.getter import Getter

KIB = 1024
PATIENCE = 10_000.0
"""Seconds of virtual time."""
ORDERED = [order for order in Order if order is not Order.BARGING]
"""The orders that hold across the pools. Barging promises an order in each pool alone."""
WAKING = [wakeup for wakeup in Wakeup if wakeup is not Wakeup.NONE]
"""The wakeup policies that promise that a request wakes if a page that left can serve it. The
kernel before the patch does not."""


class GrantLog:
    """An event hook that keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.parked: set[int] = set()
        """The numbers of the requests that ever parked."""

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        if event.kind is EventKind.WAIT:
            self.parked.add(event.request)

    def of(self, *kinds: EventKind) -> list[Event]:
        """The events of these kinds."""
        return [event for event in self.events if event.kind in kinds]

    @property
    def granted(self) -> list[int]:
        """The bytes of every request that had parked and was served, in that order."""
        return [event.nbytes for event in self.of(EventKind.GRANT) if event.request in self.parked]

    @property
    def taken(self) -> list[int]:
        """The bytes of every request that was served, parked or not, in that order."""
        return [event.nbytes for event in self.of(EventKind.GET, EventKind.GRANT)]

    @property
    def pages(self) -> list[tuple[str, str]]:
        """Pages in and out: the kind and the pool, in that order."""
        pages = self.of(EventKind.PAGE_IN, EventKind.PAGE_OUT)
        return [(str(event.kind), event.name) for event in pages]

    def clear(self) -> None:
        """Forget everything."""
        self.events.clear()


async def taking(tasks: TaskGroup, take: Callable[..., Awaitable[Any]], *args: Any) -> Getter:
    """Start a task that takes. Returns once it is served, has failed, or waits."""
    one = Getter.started(tasks, take, *args)
    await settle()
    return one


class Counted:
    """Awaits `awaitable`, and counts how often that lets other tasks run. (Whether another task
    really has run says little: on trio it may have its turn behind the one that asks.)"""

    def __init__(self, awaitable: Awaitable[Any]) -> None:
        self._awaitable = awaitable
        self.checkpoints = 0

    def __await__(self) -> Generator[Any, Any, Any]:
        steps = self._awaitable.__await__()
        value: Any = None
        error: BaseException | None = None
        while True:
            try:
                trap = steps.send(value) if error is None else steps.throw(error)
            except StopIteration as end:
                return end.value
            self.checkpoints += 1
            value = error = None
            try:
                value = yield trap
            except BaseException as thrown:  # noqa: ASYNC103, BLE001 - thrown on
                error = thrown


async def settle() -> None:
    """Let all other tasks run as far as they can without time passing."""
    for _ in range(12):
        await checkpoint()


async def reserve(pools: BufferPools, nbytes: int) -> Any:
    """`BufferPools.reserve` as a coroutine function."""
    return await pools.reserve(nbytes)


def small_and_large(limit_pages: int, **options: Any) -> BufferPools:
    """A budget of `limit_pages` pages of 4 KiB for pools ``small`` (four items of 1 KiB to a
    page) and ``large`` (one item of 4 KiB, the page)."""
    options.setdefault("memory", AccountedMemory())
    return BufferPools(
        limit_pages * 4 * KIB,
        [
            PoolSpec(KIB, name="small", items_per_page=4),
            PoolSpec(4 * KIB, name="large", items_per_page=1),
        ],
        **options,
    )


@asynccontextmanager
async def entered(pools: BufferPools) -> AsyncIterator[BufferPools]:
    """Enter `pools`; at the end no invariant is broken, nothing is out and nothing charged.

    What waits for what never comes would wait for ever, for the gc has a timer: so all must be
    over after `PATIENCE` seconds of virtual time.
    """
    with warnings.catch_warnings(), anyio.fail_after(PATIENCE):
        async with pools:
            try:
                yield pools
            except BaseException:
                # What a test that failed leaves behind says nothing, and would hide the failure.
                warnings.simplefilter("ignore", ResourceWarning)
                raise
            pools.check()
    pools.check()
    statistics = pools.statistics()
    assert (statistics.nout, statistics.reserved, statistics.waiting) == (0, 0, 0)
    assert statistics.allocated == 0


def break_silently(pools: BufferPools) -> None:
    """Mark the set as broken, as an exception in the middle of a step does; but do not ask the loop
    to repair it, so that the next call does."""
    pools._state.broken = True
    pools._owner_loop.open_to = 0


def release_all(leases: Iterable[Any]) -> None:
    """Give back all of `leases` that are still held."""
    for lease in leases:
        if isinstance(lease, Buffers) or not lease.released:
            lease.release()
