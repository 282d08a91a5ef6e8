"""Limits that change while tasks wait: bugs that happened in other projects."""

from __future__ import annotations

from functools import partial

from anyio.lowlevel import checkpoint

from mbufpools.lab import Shared

from ._specimen import Specimen, together

__all__ = ["SPECIMENS"]


class Closable:
    """tokio 8020: closed is a number of free permits, and a late release adds to it."""

    closed = -1

    def __init__(self) -> None:
        self.free = Shared(0)

    async def hold_a_while(self) -> None:
        await checkpoint()
        self.release()

    def release(self) -> None:
        self.free.value += 1

    async def close(self) -> None:
        await checkpoint()
        self.free.value = self.closed

    def is_closed(self) -> bool:
        return self.free.value == self.closed


class ClosableForGood(Closable):
    """Whether it is closed is looked at first."""

    def release(self) -> None:
        if not self.is_closed():
            super().release()


async def close_and_release(closable_class: type[Closable]) -> None:
    closable = closable_class()
    await together(closable.hold_a_while, closable.close)
    assert closable.is_closed(), "open again"  # exception: reopened by a late release


class Limiter:
    """anyio 1223: when the limit grows, as many are let in as it has grown by, though it may still
    be below what is out."""

    def __init__(self) -> None:
        self.limit = Shared(3)
        self.out = Shared(3)
        self.waiting = Shared(2)

    async def set_limit(self, limit: int) -> None:
        await checkpoint()
        room = self.room(limit)
        self.limit.value = limit
        for _ in range(min(room, self.waiting.value)):
            self.let_in()

    def room(self, limit: int) -> int:
        return limit - self.limit.value

    def let_in(self) -> None:
        self.waiting.value -= 1
        self.out.value += 1
        assert self.out.value <= self.limit.value, "too many"  # exception: grown past what is out

    async def shrink_and_grow(self) -> None:
        await self.set_limit(1)
        await self.set_limit(2)

    async def leave(self) -> None:
        await checkpoint()
        self.out.value -= 1
        if self.out.value < self.limit.value and self.waiting.value:
            self.let_in()


class LimiterThatCounts(Limiter):
    """There is room for what the limit allows, less what is out."""

    def room(self, limit: int) -> int:
        return limit - self.out.value


async def resize_while_some_leave(limiter_class: type[Limiter]) -> None:
    limiter = limiter_class()
    await together(limiter.leave, limiter.shrink_and_grow)


class Forgetful:
    """tokio, `forget_permits`: a shrink takes what is free, and nothing is while a task waits."""

    def __init__(self) -> None:
        self.free = Shared(0)
        self.out = Shared(2)
        self.waiting = Shared(1)
        self.debt = Shared(0)

    async def forget(self) -> None:
        await checkpoint()
        if self.free.value:
            self.free.value -= 1

    async def release(self) -> None:
        await checkpoint()
        self.out.value -= 1
        if self.debt.value:
            self.debt.value -= 1
        elif self.waiting.value:
            self.waiting.value -= 1
            self.out.value += 1
        else:
            self.free.value += 1


class Indebted(Forgetful):
    """What is not free is owed, and the next that comes back pays."""

    async def forget(self) -> None:
        await checkpoint()
        if self.free.value:
            self.free.value -= 1
        else:
            self.debt.value += 1


async def shrink_under_load(permits_class: type[Forgetful]) -> None:
    permits = permits_class()
    await together(permits.release, permits.forget, permits.release)
    assert permits.free.value + permits.out.value == 1, "not smaller"  # exception: shrink forgotten


SPECIMENS = (
    Specimen(
        "reopened by a late release",
        partial(close_and_release, Closable),
        partial(close_and_release, ClosableForGood),
        kind="exception",
        told="AssertionError: open again",
        found=3,
        proved=12,
    ),
    Specimen(
        "grown past what is out",
        partial(resize_while_some_leave, Limiter),
        partial(resize_while_some_leave, LimiterThatCounts),
        kind="exception",
        told="AssertionError: too many",
        found=1,
        proved=17,
    ),
    Specimen(
        "shrink forgotten",
        partial(shrink_under_load, Forgetful),
        partial(shrink_under_load, Indebted),
        kind="exception",
        told="AssertionError: not smaller",
        found=1,
        proved=98,
    ),
)
