"""Programs that stay correct whichever task is cancelled: the lab must find nothing.

No task in them waits for another without a time limit, keeps what it must release, or asserts what
a cancellation may change.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager, suppress
from functools import partial
from typing import Any

import anyio
import trio
from anyio.lowlevel import checkpoint
from anyio.streams.memory import MemoryObjectSendStream

__all__ = ["CORRECT", "ONLY_BY_SCOPE", "Program"]

Program = Callable[[], Coroutine[Any, Any, None]]


async def together(*tasks: Program) -> None:
    async with anyio.create_task_group() as group:
        for task in tasks:
            group.start_soon(task)


# On both backends


async def a_group_is_cancelled_when_one_is_done() -> None:
    done: list[int] = []

    async def work(number: int) -> None:
        await anyio.sleep(number)
        done.append(number)
        group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        for number in (1, 2, 3):
            group.start_soon(work, number)
    assert len(done) <= 3
    assert len(set(done)) == len(done)


async def a_wait_is_given_up() -> None:
    event = anyio.Event()
    with anyio.move_on_after(1) as scope:
        await event.wait()
    assert scope.cancelled_caught or not scope.cancel_called


async def a_timeout_is_caught() -> None:
    async def slow() -> None:
        with suppress(TimeoutError), anyio.fail_after(1):
            await anyio.sleep(2)

    await together(slow, slow)


async def the_clean_up_is_shielded() -> None:
    opened = closed = 0

    async def use() -> None:
        nonlocal opened, closed
        opened += 1
        try:
            await anyio.sleep(2)
        finally:
            closed += 1
            with anyio.CancelScope(shield=True):
                await checkpoint()

    with anyio.move_on_after(1):
        await together(use, use)
    assert opened == closed


async def scopes_are_nested() -> None:
    with anyio.move_on_after(3) as outer, anyio.move_on_after(2) as middle:
        with anyio.move_on_after(1) as inner:
            await anyio.sleep_forever()
        assert inner.cancelled_caught
        await anyio.sleep_forever()
    assert not (outer.cancelled_caught and middle.cancelled_caught)


async def an_outer_scope_is_cancelled_from_inside() -> None:
    with anyio.CancelScope() as outer:
        with anyio.CancelScope():
            outer.cancel()
            await checkpoint()
            raise AssertionError("goes on after it was cancelled")


async def a_scope_is_cancelled_before_it_is_entered() -> None:
    scope = anyio.CancelScope()
    scope.cancel()
    with scope:
        await anyio.sleep(1)
        raise AssertionError("goes on after it was cancelled")


async def a_deadline_is_moved() -> None:
    with anyio.move_on_after(1) as scope:
        scope.deadline = anyio.current_time() + 2
        await anyio.sleep(1.5)
        scope.deadline = -math.inf
        await anyio.sleep(1)


async def a_stream_ends_when_its_senders_do() -> None:
    send, receive = anyio.create_memory_object_stream[int](1)
    received: list[int] = []

    async def produce(first: int, sender: MemoryObjectSendStream[int]) -> None:
        with sender, suppress(anyio.BrokenResourceError):
            for item in range(first, first + 2):
                await sender.send(item)

    async def consume() -> None:
        with receive:
            received.extend([item async for item in receive])

    with receive:
        async with anyio.create_task_group() as group:
            with send:
                group.start_soon(produce, 0, send.clone())
                group.start_soon(produce, 10, send.clone())
                group.start_soon(consume)
    assert len(set(received)) == len(received)


async def an_item_is_waited_for_with_a_timeout() -> None:
    send, receive = anyio.create_memory_object_stream[int](0)

    async def produce() -> None:
        with anyio.move_on_after(3):
            await anyio.sleep(1)
            await send.send(1)

    async def consume() -> None:
        with anyio.move_on_after(1):
            await receive.receive()

    with send, receive:
        await together(produce, consume)


async def a_condition_with_a_timeout() -> None:
    condition = anyio.Condition()
    there = 0

    async def take() -> None:
        nonlocal there
        with anyio.move_on_after(1):
            async with condition:
                while not there:
                    await condition.wait()
                there -= 1

    async def give() -> None:
        nonlocal there
        async with condition:
            there += 1
            condition.notify()

    await together(take, take, give)
    assert there in (0, 1)


async def exclusion(make: Callable[[], Any], limit: int) -> None:
    primitive = make()
    inside = 0

    async def use() -> None:
        nonlocal inside
        with anyio.move_on_after(1):
            async with primitive:
                inside += 1
                try:
                    assert inside <= limit
                    await anyio.sleep(0.6)
                finally:
                    inside -= 1

    await together(use, use, use)
    assert inside == 0


async def a_child_says_that_it_has_started() -> None:
    async def serve(*, task_status: anyio.abc.TaskStatus[str]) -> None:
        with anyio.CancelScope() as scope:
            await checkpoint()
            task_status.started("ready")
            await anyio.sleep_forever()
        assert not scope.cancelled_caught

    async with anyio.create_task_group() as group:
        with suppress(RuntimeError):  # cancelled before it had started
            assert await group.start(serve) == "ready"
        group.cancel_scope.cancel()


async def a_started_child_outlives_who_started_it() -> None:
    async def serve(*, task_status: anyio.abc.TaskStatus[None]) -> None:
        task_status.started()
        await anyio.sleep(3)

    async with anyio.create_task_group() as group:
        with anyio.move_on_after(1), suppress(RuntimeError):
            await group.start(serve)
            await anyio.sleep(2)


async def a_generator_is_left_in_the_middle() -> None:
    opened = 0

    async def numbers() -> AsyncGenerator[int, None]:
        nonlocal opened
        opened += 1
        try:
            for number in range(3):
                await checkpoint()
                yield number
        finally:
            opened -= 1

    async def use() -> None:
        async with aclosing(numbers()) as generator:
            async for number in generator:
                if number == 1:
                    break

    await together(use, use)
    assert opened == 0


async def a_context_manager_closes_what_it_opened() -> None:
    log: list[str] = []

    @asynccontextmanager
    async def resource(name: str) -> AsyncIterator[str]:
        log.append(f"+{name}")
        try:
            yield name
        finally:
            log.append(f"-{name}")

    async def use(name: str) -> None:
        async with resource(name):
            await anyio.sleep(1)

    with anyio.move_on_after(0.5):
        await together(partial(use, "a"), partial(use, "b"))
    assert sorted(it[0] for it in log) == ["+"] * (len(log) // 2) + ["-"] * (len(log) // 2)


async def the_first_of_two_wins() -> None:
    winner: list[str] = []

    async def race(name: str, scope: anyio.CancelScope) -> None:
        await checkpoint()
        winner.append(name)
        scope.cancel()
        await checkpoint()
        raise AssertionError("goes on after it was cancelled")

    async with anyio.create_task_group() as group:
        group.start_soon(race, "a", group.cancel_scope)
        group.start_soon(race, "b", group.cancel_scope)
    assert len(winner) <= 1


async def an_error_cancels_the_siblings() -> None:
    async def fail() -> None:
        await checkpoint()
        raise LookupError

    async def wait() -> None:
        await anyio.sleep(5)

    with suppress(BaseExceptionGroup):
        await together(fail, wait)


async def an_error_goes_through_two_groups() -> None:
    async def fail() -> None:
        await checkpoint()
        raise LookupError

    async def inner() -> None:
        await together(fail, checkpoint)

    with suppress(BaseExceptionGroup):
        await together(inner, inner)


async def a_shield_waits_for_its_end() -> None:
    ended = started = 0

    async def work() -> None:
        nonlocal ended, started
        with anyio.CancelScope(shield=True):
            started += 1
            try:
                await anyio.sleep(2)
            finally:
                ended += 1

    with anyio.move_on_after(1):
        await together(work, work)
    assert ended == started


async def tasks_start_tasks() -> None:
    async def grow(depth: int) -> None:
        await checkpoint()
        if depth:
            group.start_soon(grow, depth - 1)

    async with anyio.create_task_group() as group:
        group.start_soon(grow, 2)
        group.start_soon(grow, 1)


BOTH: tuple[Program, ...] = (
    a_group_is_cancelled_when_one_is_done,
    a_wait_is_given_up,
    a_timeout_is_caught,
    the_clean_up_is_shielded,
    scopes_are_nested,
    an_outer_scope_is_cancelled_from_inside,
    a_scope_is_cancelled_before_it_is_entered,
    a_deadline_is_moved,
    a_stream_ends_when_its_senders_do,
    an_item_is_waited_for_with_a_timeout,
    a_condition_with_a_timeout,
    partial(exclusion, anyio.Lock, 1),
    partial(exclusion, partial(anyio.Lock, fast_acquire=True), 1),
    partial(exclusion, partial(anyio.Semaphore, 2), 2),
    partial(exclusion, partial(anyio.CapacityLimiter, 2), 2),
    a_child_says_that_it_has_started,
    a_started_child_outlives_who_started_it,
    a_generator_is_left_in_the_middle,
    a_context_manager_closes_what_it_opened,
    the_first_of_two_wins,
    an_error_cancels_the_siblings,
    an_error_goes_through_two_groups,
    a_shield_waits_for_its_end,
    tasks_start_tasks,
)


# On asyncio


async def naps() -> None:
    await asyncio.sleep(1)


async def fails() -> None:
    await asyncio.sleep(0)
    raise LookupError


async def gather_results() -> None:
    await asyncio.gather(naps(), naps(), fails(), return_exceptions=True)


async def gather_is_cancelled() -> None:
    future = asyncio.gather(naps(), naps())
    await asyncio.sleep(0)
    future.cancel()
    with suppress(asyncio.CancelledError):
        await future


async def wait_for_the_first() -> None:
    tasks = {asyncio.create_task(asyncio.sleep(delay)) for delay in (1, 2)}
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


async def group_of_asyncio() -> None:
    with suppress(BaseExceptionGroup):
        async with asyncio.TaskGroup() as group:
            group.create_task(naps())
            group.create_task(fails())


async def groups_of_asyncio() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(group_of_asyncio())
        group.create_task(naps())


async def timeout_of_asyncio() -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(1), asyncio.timeout(2) as inner:
            inner.reschedule(None)
            await asyncio.sleep(3)


async def wait_for_of_asyncio() -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(asyncio.sleep(2), 1)
    await asyncio.wait_for(asyncio.sleep(1), 2)


async def shield_of_asyncio() -> None:
    task = asyncio.create_task(naps())
    try:
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(task), 0.5)
    finally:
        task.cancel()


async def queue_of_asyncio() -> None:
    queue = asyncio.Queue[int](1)

    async def produce() -> None:
        with anyio.move_on_after(1):
            for item in range(2):
                await queue.put(item)

    async def consume() -> None:
        with anyio.move_on_after(1):
            while await queue.get() != 1:
                queue.task_done()

    async with asyncio.TaskGroup() as group:
        group.create_task(produce())
        group.create_task(consume())


async def condition_of_asyncio() -> None:
    condition = asyncio.Condition()

    async def take() -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(1), condition:
                await condition.wait()

    async def give() -> None:
        async with condition:
            condition.notify_all()

    async with asyncio.TaskGroup() as group:
        group.create_task(take())
        group.create_task(take())
        group.create_task(give())


async def a_future_is_waited_for() -> None:
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def answer() -> None:
        await asyncio.sleep(0)
        if not future.done():
            future.set_result(1)

    async with asyncio.TaskGroup() as group:
        group.create_task(answer())
        with suppress(TimeoutError):
            await asyncio.wait_for(future, 1)


ON_ASYNCIO: tuple[Program, ...] = (
    gather_results,
    gather_is_cancelled,
    wait_for_the_first,
    group_of_asyncio,
    groups_of_asyncio,
    timeout_of_asyncio,
    wait_for_of_asyncio,
    shield_of_asyncio,
    queue_of_asyncio,
    condition_of_asyncio,
    a_future_is_waited_for,
    partial(exclusion, asyncio.Lock, 1),
    partial(exclusion, partial(asyncio.Semaphore, 2), 2),
    partial(exclusion, partial(asyncio.BoundedSemaphore, 2), 2),
)


# On trio


async def nurseries() -> None:
    async with trio.open_nursery() as outer, trio.open_nursery() as inner:
        outer.start_soon(trio.sleep, 2)
        inner.start_soon(trio.sleep, 1)
        await trio.lowlevel.checkpoint()
        inner.cancel_scope.cancel()


async def a_child_starts_in_a_nursery() -> None:
    async def serve(*, task_status: trio.TaskStatus[int]) -> None:
        await trio.lowlevel.checkpoint()
        task_status.started(1)
        await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        with suppress(RuntimeError):
            assert await nursery.start(serve) == 1


async def parking_lot() -> None:
    lot = trio.lowlevel.ParkingLot()

    async def park() -> None:
        with trio.move_on_after(1):
            await lot.park()

    async def unpark() -> None:
        await trio.lowlevel.checkpoint()
        lot.unpark(count=1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(park)
        nursery.start_soon(park)
        nursery.start_soon(unpark)
    assert not lot


async def channel_of_trio() -> None:
    send, receive = trio.open_memory_channel[int](0)

    async def produce() -> None:
        async with send:
            with suppress(trio.BrokenResourceError):
                await send.send(1)

    async def consume() -> None:
        async with receive:
            async for _ in receive:
                pass

    async with trio.open_nursery() as nursery:
        nursery.start_soon(produce)
        nursery.start_soon(consume)
    send.close()
    receive.close()


async def an_error_in_a_nursery() -> None:
    async def fail() -> None:
        await trio.lowlevel.checkpoint()
        raise LookupError

    with suppress(BaseExceptionGroup):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail)
            nursery.start_soon(trio.sleep, 5)


ON_TRIO: tuple[Program, ...] = (
    nurseries,
    a_child_starts_in_a_nursery,
    parking_lot,
    channel_of_trio,
    an_error_in_a_nursery,
    partial(exclusion, trio.Lock, 1),
    partial(exclusion, trio.StrictFIFOLock, 1),
    partial(exclusion, partial(trio.Semaphore, 2), 2),
    partial(exclusion, partial(trio.CapacityLimiter, 2), 2),
)

CORRECT: dict[str, tuple[Program, ...]] = {
    "asyncio": (*BOTH, *ON_ASYNCIO),
    "trio": (*BOTH, *ON_TRIO),
}
"""The programs of each backend."""

ONLY_BY_SCOPE: tuple[Program, ...] = (a_condition_with_a_timeout,)
"""What is not correct if it is cancelled natively, for `anyio.Condition` is not."""
