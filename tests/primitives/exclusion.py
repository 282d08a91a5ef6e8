"""Locks, semaphores and limiters: never more inside than allowed, and nothing lost on the way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any

import anyio
import trio
from anyio.lowlevel import checkpoint

from mbufpools import lab
from mbufpools.lab import Shared

from ._subject import BOTH, TRIO, Subject, together

__all__ = ["SUBJECTS"]

ONE_INSIDE = "one inside at a time; no task waits for what is free; at the end it is free"


async def one_inside(
    make: Callable[[], AbstractAsyncContextManager[Any]], is_free: Callable[[Any], bool]
) -> None:
    """Three tasks use it, so that any of them, when cancelled, may leave another waiting."""
    primitive = make()
    inside = Shared(0)

    async def use() -> None:
        async with primitive:
            inside.value += 1
            assert inside.value == 1, "more than one inside"
            try:
                await checkpoint()
            finally:
                inside.value -= 1

    try:
        await together(use, use, use)
    finally:
        assert is_free(primitive), "not free at the end"


def not_locked(lock: Any) -> bool:
    return not lock.locked()


def none_borrowed(limiter: Any) -> bool:
    return bool(limiter.borrowed_tokens == 0 and limiter.statistics().tasks_waiting == 0)


def one_left(semaphore: Any) -> bool:
    return bool(semaphore.value == 1 and semaphore.statistics().tasks_waiting == 0)


def _of(
    name: str, make: Any, is_free: Callable[[Any], bool], *backends: lab.BackendName
) -> Subject:
    return Subject(name, partial(one_inside, make, is_free), ONE_INSIDE, backends or BOTH)


async def resized_limiter(limiter_class: Any) -> None:
    """The limit is lowered below what is out and raised again, while others wait."""
    limiter = limiter_class(3)
    for borrower in "abc":
        limiter.acquire_on_behalf_of_nowait(borrower)
    last = Shared(3)
    steps = [partial(setattr, limiter, "total_tokens", total) for total in (1, 2)]
    steps += [partial(limiter.release_on_behalf_of, borrower) for borrower in "abc"]

    def take_a_step() -> None:
        steps.pop(0)()
        now = limiter.borrowed_tokens
        assert now <= max(last.value, limiter.total_tokens), "lent more than there is"
        last.value = now

    def take_the_rest() -> None:
        while steps:
            take_a_step()

    async def resize() -> None:
        try:
            while steps:
                take_a_step()
                await checkpoint()
        finally:
            take_the_rest()

    async def use() -> None:
        async with limiter:
            last.value = limiter.borrowed_tokens
        last.value = limiter.borrowed_tokens

    try:
        await together(use, use, resize)
    finally:
        take_the_rest()  # if it was cancelled before it began
        assert none_borrowed(limiter), "not free at the end"


async def two_waiters_for_one_borrower(limiter_class: Any, tokens: int) -> None:
    """Two tasks want a token on behalf of one borrower, which holds at most one; so many tokens
    come free at one time."""
    limiter = limiter_class(1)
    limiter.acquire_on_behalf_of_nowait("somebody else")
    holders = Shared(0)

    async def use() -> None:
        try:
            await limiter.acquire_on_behalf_of("borrower")
        except RuntimeError:
            return  # it holds one already
        holders.value += 1
        assert holders.value == 1, "one token lent to two tasks"
        try:
            await checkpoint()
        finally:
            holders.value -= 1
            limiter.release_on_behalf_of("borrower")

    async def release() -> None:
        try:
            await checkpoint()
        finally:
            limiter.total_tokens = tokens
            limiter.release_on_behalf_of("somebody else")

    await together(use, use, release)


SUBJECTS = (
    _of("anyio.Lock", anyio.Lock, not_locked),
    _of("anyio.Lock(fast_acquire=True)", partial(anyio.Lock, fast_acquire=True), not_locked),
    _of("anyio.Semaphore(1)", partial(anyio.Semaphore, 1), one_left),
    _of(
        "anyio.Semaphore(1, max_value=1, fast_acquire=True)",
        partial(anyio.Semaphore, 1, max_value=1, fast_acquire=True),
        one_left,
    ),
    _of("anyio.CapacityLimiter(1)", partial(anyio.CapacityLimiter, 1), none_borrowed),
    _of("asyncio.Lock", asyncio.Lock, not_locked, "asyncio"),
    _of("asyncio.Semaphore(1)", partial(asyncio.Semaphore, 1), not_locked, "asyncio"),
    _of("asyncio.BoundedSemaphore(1)", partial(asyncio.BoundedSemaphore, 1), not_locked, "asyncio"),
    _of("trio.Lock", trio.Lock, not_locked, "trio"),
    _of("trio.StrictFIFOLock", trio.StrictFIFOLock, not_locked, "trio"),
    _of("trio.Semaphore(1)", partial(trio.Semaphore, 1, max_value=1), one_left, "trio"),
    _of("trio.CapacityLimiter(1)", partial(trio.CapacityLimiter, 1), none_borrowed, "trio"),
    *(
        Subject(
            f"{library}.CapacityLimiter, resized",
            partial(resized_limiter, limiter_class),
            "never lends while more is out than the limit; all is free at the end",
            backends,
        )
        for library, limiter_class, backends in (
            ("anyio", anyio.CapacityLimiter, BOTH),
            ("trio", trio.CapacityLimiter, TRIO),
        )
    ),
    *(
        Subject(
            f"{library}.CapacityLimiter, two waiters for one borrower, {tokens} free at a time",
            partial(two_waiters_for_one_borrower, limiter_class, tokens),
            "a borrower has one token at a time; no task waits for what is free",
            backends,
        )
        for library, limiter_class, backends in (
            ("anyio", anyio.CapacityLimiter, BOTH),
            ("trio", trio.CapacityLimiter, TRIO),
        )
        for tokens in (1, 2)
    ),
)
