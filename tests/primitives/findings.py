"""What was found: each with a program that shows it on the library's own loop, and its report.

The programs need no lab: run one with `asyncio.run` or `trio.run`. They fail, or wait for ever.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial

import anyio
from anyio.functools import lru_cache
from anyio.lowlevel import checkpoint

from mbufpools import lab

from ._subject import Program
from .stopping import (
    cancelled_as_it_ends,
    task_group_of_anyio,
    task_group_of_asyncio,
    wait_for_in_time,
)

__all__ = ["FINDINGS", "Finding"]


@dataclass(frozen=True)
class Finding:
    """A promise that a primitive does not keep."""

    title: str
    subjects: tuple[str, ...]
    """The subjects whose exploration shows it."""
    shows: Program
    """The program, which shows it on the library's own loop, without the lab."""
    backends: tuple[lab.BackendName, ...]
    because: str
    known: str
    """Where it is reported, as far as we could find."""
    message: str = ""
    """What its exploration raises, if the subject has more than one finding."""


async def two_waiters_for_one_borrower() -> None:
    """One of the two is forgotten."""
    limiter = anyio.CapacityLimiter(1)
    limiter.acquire_on_behalf_of_nowait("somebody else")

    async def use() -> None:
        await limiter.acquire_on_behalf_of("borrower")
        limiter.release_on_behalf_of("borrower")

    async with anyio.create_task_group() as group:
        group.start_soon(use)
        group.start_soon(use)
        await anyio.wait_all_tasks_blocked()
        limiter.release_on_behalf_of("somebody else")


async def two_tasks_with_one_token() -> None:
    """Both are let in, and one token is lent."""
    limiter = anyio.CapacityLimiter(0)
    inside = 0

    async def use() -> None:
        nonlocal inside
        await limiter.acquire_on_behalf_of("borrower")
        inside += 1

    async with anyio.create_task_group() as group:
        group.start_soon(use)
        group.start_soon(use)
        await anyio.wait_all_tasks_blocked()
        limiter.total_tokens = 2
        await anyio.wait_all_tasks_blocked()
        assert inside == limiter.borrowed_tokens, f"{inside} inside with one token"


async def item_lost() -> None:
    """The item goes to a task that is cancelled natively before it runs."""
    send, receive = anyio.create_memory_object_stream[int](1)
    with send, receive:
        receiver = asyncio.create_task(receive.receive())
        await asyncio.sleep(0.1)
        send.send_nowait(1)
        receiver.cancel()
        await asyncio.wait([receiver])
        received = [] if receiver.cancelled() else [receiver.result()]
        assert received or receive.statistics().current_buffer_used, "the item is lost"


async def received_though_cancelled() -> None:
    """A send that is cancelled, and has not run yet, still offers its item."""
    send, receive = anyio.create_memory_object_stream[int](0)
    sent = False

    async def produce() -> None:
        nonlocal sent
        await send.send(1)
        sent = True

    with send, receive:
        async with anyio.create_task_group() as group:
            group.start_soon(produce)
            await anyio.wait_all_tasks_blocked()
            group.cancel_scope.cancel()
            try:
                receive.receive_nowait()
                received = True
            except anyio.WouldBlock:
                received = False
        assert sent == received, "received, and its send was cancelled"


async def condition_without_its_lock() -> None:
    """The task is cancelled natively while its wait takes the lock again."""
    condition = anyio.Condition()

    async def wait() -> None:
        async with condition:
            await condition.wait()

    waiter = asyncio.create_task(wait())
    await asyncio.sleep(0.1)
    async with condition:
        condition.notify()
        await asyncio.sleep(0.1)
        waiter.cancel()
        await asyncio.sleep(0.1)
    await asyncio.wait([waiter])
    assert waiter.cancelled(), f"{waiter.exception()!r}"


async def notification_lost() -> None:
    """The task is notified and cancelled, and the other task is not notified."""
    condition = asyncio.Condition()

    async def wait() -> None:
        async with condition:
            await condition.wait()

    first, second = asyncio.create_task(wait()), asyncio.create_task(wait())
    await asyncio.sleep(0.1)
    async with condition:
        condition.notify()
    first.cancel()
    await asyncio.wait([first, second])


async def entry_evicted() -> None:
    """One task computes a value and one waits for it. When it is there, a third task, with another
    key, runs before the waiting task and evicts the value."""

    @lru_cache(maxsize=1)
    async def double(number: int) -> int:
        await anyio.sleep(1)
        return 2 * number

    async def evict() -> None:
        await anyio.sleep(1)
        await double(2)

    async with anyio.create_task_group() as group:
        group.start_soon(double, 1)
        await checkpoint()
        group.start_soon(double, 1)
        group.start_soon(evict)


NATIVE = "asyncio's native cancellation comes after the wakeup and takes its place"

FINDINGS = (
    Finding(
        "anyio.CapacityLimiter forgets one of two waiters for the same borrower",
        (
            "anyio.CapacityLimiter, two waiters for one borrower, 1 free at a time",
            "anyio.CapacityLimiter, two waiters for one borrower, 2 free at a time",
        ),
        two_waiters_for_one_borrower,
        ("asyncio",),
        "the queue is a dictionary by borrower, and the second entry replaces the first",
        "not found; near it anyio 947, 1170, 1223, all closed and not seen here",
    ),
    Finding(
        "CapacityLimiter of trio, and so anyio's on trio, lends a borrower one token for two tasks",
        (
            "anyio.CapacityLimiter, two waiters for one borrower, 2 free at a time",
            "trio.CapacityLimiter, two waiters for one borrower, 2 free at a time",
        ),
        two_tasks_with_one_token,
        ("trio",),
        "the borrower that is woken is added to a set, without a check whether it is in it already",
        "not found",
    ),
    Finding(
        "anyio's memory stream loses an item whose receiver is cancelled natively",
        ("anyio.create_memory_object_stream(0)", "anyio.create_memory_object_stream(1)"),
        item_lost,
        ("asyncio",),
        NATIVE,
        "anyio 146, closed; pull request 595, open",
        "sent, and lost",
    ),
    Finding(
        "anyio's memory stream delivers an item whose send is cancelled",
        ("anyio.create_memory_object_stream(0)", "anyio.create_memory_object_stream(1)"),
        received_though_cancelled,
        ("asyncio", "trio"),
        "until the cancelled sender runs, its item is still offered; the stream checks whether "
        "a receiver is cancelled, but not a sender",
        "anyio 536; pull request 729, closed",
        "received, though its send was cancelled",
    ),
    Finding(
        "anyio.Condition.wait() returns without its lock when it is cancelled natively",
        ("anyio.Condition",),
        condition_without_its_lock,
        ("asyncio",),
        "the lock is taken again in a shielded scope, which a native cancellation does not see",
        "not found; the same in asyncio's own, long fixed: python/asyncio 346",
    ),
    Finding(
        "asyncio.Condition loses a notification to a task that is cancelled",
        ("asyncio.Condition",),
        notification_lost,
        ("asyncio",),
        "fixed in Python 3.13, and not in 3.11 and 3.12",
        "cpython 112202",
    ),
    Finding(
        "asyncio.wait_for swallows a cancellation that comes as it returns",
        ("asyncio.wait_for, in time, cancelled as it ends",),
        partial(cancelled_as_it_ends, wait_for_in_time),
        ("asyncio",),
        "fixed in Python 3.12, and not in 3.11",
        "cpython 86296, 107547",
    ),
    Finding(
        "asyncio.TaskGroup swallows a cancellation that comes as a child fails",
        (
            "asyncio.TaskGroup, cancelled as it ends",
            "asyncio.TaskGroup, nested, cancelled as it ends",
        ),
        partial(cancelled_as_it_ends, task_group_of_asyncio),
        ("asyncio",),
        "fixed in Python 3.13",
        "cpython 116720",
    ),
    Finding(
        "anyio's task group swallows a native cancellation that comes as a child fails",
        ("anyio.create_task_group, cancelled as it ends",),
        partial(cancelled_as_it_ends, task_group_of_anyio),
        ("asyncio",),
        "the group of exceptions takes the place of the cancellation, which is not requested again",
        "not found; near it anyio 1214, closed, of the cancel scope",
    ),
    Finding(
        "anyio.functools.lru_cache raises KeyError in a task that waits for an evicted entry",
        ("anyio.functools.lru_cache(maxsize=1)",),
        entry_evicted,
        ("asyncio", "trio"),
        "after the wait for the entry's lock it is not checked whether the entry is still there",
        "not found",
    ),
)
