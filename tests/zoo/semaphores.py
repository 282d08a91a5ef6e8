"""Bugs that semaphores had, in other projects: each of them happened.

`Weighted` is correct; each specimen gets one of its rules wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any

import anyio
from anyio.lowlevel import checkpoint

from mbufpools.lab import Shared

from ._specimen import TIES, Specimen, together
from ._weighted import Request, Weighted

__all__ = ["SPECIMENS"]


class WithoutRescan(Weighted):
    """golang.org/x/sync 43a5402: when a large head gave up, the requests behind it slept on. The
    same in Velox, `removeGlobalArbitrationWaiter`."""

    def leave(self, request: Request) -> None:
        if request.granted.value:
            self.release(request.units)
        else:
            self.queue.update(lambda queue: tuple(it for it in queue if it is not request))


async def head_gives_up(semaphore_class: type[Weighted]) -> None:
    semaphore = semaphore_class(2)
    served = anyio.Event()

    async def holder() -> None:
        await semaphore.acquire(1)
        await served.wait()
        semaphore.release(1)

    async def large() -> None:
        await anyio.sleep(1)
        with anyio.move_on_after(2):
            await semaphore.use(2)

    async def small() -> None:
        await anyio.sleep(2)
        await semaphore.use(1)
        served.set()

    await together(holder, large, small)


class Gullible(Weighted):
    """golang.org/x/sync: a request larger than the whole waits for ever, and all behind it."""

    def refuse_the_impossible(self, units: int) -> None:
        pass


async def larger_than_the_whole(semaphore_class: type[Weighted]) -> None:
    semaphore = semaphore_class(2)

    async def large() -> None:
        with suppress(ValueError):
            await semaphore.use(3)

    await together(large, partial(semaphore.use, 1))


class WithDeadWaiters(Weighted):
    """KAFKA-3651: a waiter that timed out stayed in the queue, and what was granted to it was
    lost."""

    def leave(self, request: Request) -> None:
        pass


async def waiter_times_out(semaphore_class: type[Weighted]) -> None:
    semaphore = semaphore_class(1)

    async def impatient() -> None:
        await anyio.sleep(1)
        with anyio.move_on_after(1):
            await semaphore.use(1)

    async def patient() -> None:
        await anyio.sleep(2)
        await semaphore.use(1)

    await together(partial(semaphore.use, 1, 3), impatient, patient)


class OneWakeup(Weighted):
    """FreeBSD UMA, r343026: what was freed was enough for several, and one was woken."""

    def serve(self) -> None:
        if self.queue.value and self.queue.value[0].units <= self.free.value:
            self.grant()


async def one_release_for_two(semaphore_class: type[Weighted]) -> None:
    semaphore = semaphore_class(2)
    await semaphore.acquire(2)

    async def take() -> None:
        await semaphore.acquire(1)

    async def release() -> None:
        await checkpoint()
        semaphore.release(2)

    await together(take, take, release)


class Barging(Weighted):
    """Kafka's `BufferPool` says that it is fair, and its fast path does not look at the waiters."""

    def may_pass(self, units: int) -> bool:
        return units <= self.free.value


async def in_order(semaphore_class: type[Weighted]) -> None:
    semaphore = semaphore_class(2)
    order: Shared[tuple[str, ...]] = Shared(())

    async def use(name: str, second: int, units: int) -> None:
        await anyio.sleep(second)
        await semaphore.acquire(units)
        order.value = (*order.value, name)
        semaphore.release(units)

    await together(
        partial(semaphore.use, 1, 3), partial(use, "large", 1, 2), partial(use, "small", 2, 1)
    )
    assert order.value[0] == "large", "overtaken"  # exception: the fast path does not look


async def small_ones_until_the_large_is_served(semaphore_class: type[Weighted]) -> None:
    semaphore = semaphore_class(2)
    served = anyio.Event()

    async def small(second: float) -> None:
        await anyio.sleep(second)
        while not served.is_set():
            await semaphore.use(1, 1)

    async def large() -> None:
        await anyio.sleep(0.75)
        await semaphore.use(2)
        served.set()

    await together(partial(small, 0), partial(small, 0.5), large)


class WithPasses(Weighted):
    """Lets a few requests pass the head, so that a holder that asks for more can go on."""

    def __init__(self, units: int) -> None:
        super().__init__(units)
        self.passes = Shared(2)

    def may_pass(self, units: int) -> bool:
        if units > self.free.value:
            return False
        if self.queue.value:
            self.passes.value -= 1
        return self.passes.value >= 0


async def holder_asks_behind_a_large_one(semaphore_class: type[Weighted]) -> None:
    semaphore = semaphore_class(3)

    async def holder() -> None:
        await semaphore.acquire(1)
        await anyio.sleep(2)
        await semaphore.use(1)
        semaphore.release(1)

    async def large() -> None:
        await anyio.sleep(1)
        await semaphore.use(3)

    await together(holder, large)


async def one_by_one(semaphore: Weighted) -> None:
    await semaphore.acquire(1)
    await checkpoint()
    await semaphore.acquire(1)
    semaphore.release(2)


async def both_at_once(semaphore: Weighted) -> None:
    await semaphore.acquire(2)
    semaphore.release(2)


async def two_units_each(acquire_both: Callable[[Weighted], Coroutine[Any, Any, None]]) -> None:
    semaphore = Weighted(2)
    await together(partial(acquire_both, semaphore), partial(acquire_both, semaphore))


SPECIMENS = (
    Specimen(
        "head leaves without a rescan",
        partial(head_gives_up, WithoutRescan),
        partial(head_gives_up, Weighted),
        kind="stall",
        told="for anyio's Event: set() was not called after that",
        found=1,
        proved=24,
    ),
    Specimen(
        "larger than the whole",
        partial(larger_than_the_whole, Gullible),
        partial(larger_than_the_whole, Weighted),
        kind="stall",
        told="for anyio's Event: set() was not called after that",
        found=1,
        proved=7,
    ),
    Specimen(
        "timed-out waiter stays",
        partial(waiter_times_out, WithDeadWaiters),
        partial(waiter_times_out, Weighted),
        kind="stall",
        told="for anyio's Event: set() was not called after that",
        found=1,
        proved=60,
        differs=TIES,
    ),
    Specimen(
        "one wakeup for two",
        partial(one_release_for_two, OneWakeup),
        partial(one_release_for_two, Weighted),
        kind="stall",
        told="for anyio's Event: set() was not called after that",
        found=1,
        proved=150,
    ),
    Specimen(
        "the fast path does not look",
        partial(in_order, Barging),
        partial(in_order, Weighted),
        kind="exception",
        told="AssertionError: overtaken",
        found=1,
        proved=24,
    ),
    Specimen(
        "large request starves",
        partial(small_ones_until_the_large_is_served, Barging),
        partial(small_ones_until_the_large_is_served, Weighted),
        kind="livelock",
        told="300 steps, and no end",
        found=1,
        proved=220,
        step_limit=300,
        differs=TIES,
    ),
    Specimen(
        "stuck head",
        partial(holder_asks_behind_a_large_one, Weighted),
        partial(holder_asks_behind_a_large_one, WithPasses),
        kind="stall",
        told="for anyio's Event: set() was not called after that",
        found=1,
        proved=6,
    ),
    Specimen(
        "hold and wait",
        partial(two_units_each, one_by_one),
        partial(two_units_each, both_at_once),
        kind="stall",
        told="for anyio's Event: set() was not called after that",
        found=1,
        proved=12,
    ),
)
