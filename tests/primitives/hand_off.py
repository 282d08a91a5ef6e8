"""Channels, queues and conditions: what is handed over arrives once, or was never handed over."""

from __future__ import annotations

import asyncio
import math
from functools import partial
from typing import Any

import anyio
import trio

from mbufpools.lab import Shared

from ._subject import BOTH, Program, Subject, together

__all__ = ["SUBJECTS"]

CONSERVED = (
    "what was sent is received once, or still there; a send or receive that is cancelled has not "
    "happened"
)
PASSED_ON = "a notification to a cancelled task goes to another; the lock is held after a wait"


class ItemLog:
    """What became of each item."""

    def __init__(self) -> None:
        self.sent = Shared[tuple[int, ...]](())
        self.refused = Shared[tuple[int, ...]](())
        self.received = Shared[tuple[int, ...]](())

    async def send(self, item: int, how: Any) -> None:
        try:
            await how(item)
        except BaseException:
            self.refused.value = (*self.refused.value, item)
            raise
        self.sent.value = (*self.sent.value, item)

    def receive(self, item: int) -> None:
        self.received.value = (*self.received.value, item)

    def check(self, left: list[int]) -> None:
        there = sorted([*self.received.value, *left])
        assert len(set(there)) == len(there), f"twice: {there}"
        lost = set(self.sent.value) - set(there)
        assert not lost, "sent, and lost: its receiver was cancelled"
        both = set(self.refused.value) & set(there)
        assert not both, "received, though its send was cancelled"


async def memory_channel(opened: Any, closed: type[Exception]) -> None:
    """Two tasks send an item each, and two receive until the end."""
    send, receive = opened()
    log = ItemLog()

    async def produce(item: int, sender: Any) -> None:
        with sender:
            await log.send(item, sender.send)

    async def consume() -> None:
        while True:
            try:
                item = await receive.receive()
            except closed:
                return
            log.receive(item)

    try:
        async with anyio.create_task_group() as group:
            with send:
                group.start_soon(consume)
                group.start_soon(consume)
                group.start_soon(produce, 1, send.clone())
                group.start_soon(produce, 2, send.clone())
    finally:
        left = []
        try:
            while True:
                left.append(receive.receive_nowait())
        except (closed, anyio.WouldBlock, trio.WouldBlock):
            pass
        receive.close()
        log.check(left)


async def queue_of_asyncio(queue_class: Any) -> None:
    """Two tasks put an item each, and two get until all items are received."""
    queue = queue_class(1)
    log = ItemLog()

    async def consume() -> None:
        while True:
            log.receive(await queue.get())
            queue.task_done()

    try:
        async with anyio.create_task_group() as group:
            group.start_soon(consume)
            group.start_soon(consume)
            await together(partial(log.send, 1, queue.put), partial(log.send, 2, queue.put))
            await queue.join()
            group.cancel_scope.cancel()
    finally:
        left = []
        while not queue.empty():
            left.append(queue.get_nowait())
        log.check(left)


async def certainly(function: Program) -> None:
    """Do it, even if cancelled during it; once, because the lab cancels each task at most once."""
    with anyio.CancelScope(shield=True):
        try:
            await function()
        except anyio.get_cancelled_exc_class():
            await function()
            raise


async def notification(condition_class: Any) -> None:
    """One task gives, and waits until one of two has taken."""
    condition = condition_class()
    there = Shared(0)
    over = Shared(False)
    taken = anyio.Event()

    async def take() -> None:
        async with condition:
            while not there.value and not over.value:
                await condition.wait()
            if there.value:
                there.value -= 1
                taken.set()

    async def finish() -> None:
        async with condition:
            over.value = True
            condition.notify_all()

    async def give() -> None:
        try:
            async with condition:
                there.value += 1
                condition.notify()
            await taken.wait()
        finally:
            await certainly(finish)

    await together(take, take, give)


async def until_it_is_there(how: Any) -> None:
    """An item comes in the moment in which the time is up."""
    queue = asyncio.Queue[int]()
    log = ItemLog()

    async def produce() -> None:
        await asyncio.sleep(1)
        await log.send(1, queue.put)

    async def consume() -> None:
        try:
            item = await how(queue.get())
        except TimeoutError:
            return
        log.receive(item)

    await together(consume, produce)
    log.check([] if queue.empty() else [queue.get_nowait()])


async def until_it_is_free(how: Any) -> None:
    """A lock is released in the moment in which the time is up."""
    lock = asyncio.Lock()
    await lock.acquire()

    async def release() -> None:
        await asyncio.sleep(1)
        lock.release()

    async def use() -> None:
        try:
            await how(lock.acquire())
        except TimeoutError:
            return
        lock.release()

    await together(use, release)
    assert not lock.locked(), "no task has acquired it"


async def by_timeout(awaitable: Any) -> Any:
    async with asyncio.timeout(1):
        return await awaitable


async def by_wait_for(awaitable: Any) -> Any:
    return await asyncio.wait_for(awaitable, 1)


async def by_fail_after(awaitable: Any) -> Any:
    with anyio.fail_after(1):
        return await awaitable


async def dropped_by_a_timeout_as_it_comes() -> None:
    """A memory stream: an item comes in the moment in which the time is up."""
    send, receive = anyio.create_memory_object_stream[int](math.inf)
    log = ItemLog()

    async def produce() -> None:
        await anyio.sleep(1)
        await log.send(1, send.send)

    async def consume() -> None:
        with anyio.move_on_after(1):
            log.receive(await receive.receive())

    with send, receive:
        await together(consume, produce)
        log.check([receive.receive_nowait()] if receive.statistics().current_buffer_used else [])


SUBJECTS = (
    *(
        Subject(
            f"anyio.create_memory_object_stream({size})",
            partial(
                memory_channel,
                partial(anyio.create_memory_object_stream[int], size),
                anyio.EndOfStream,
            ),
            CONSERVED,
            BOTH,
        )
        for size in (0, 1)
    ),
    *(
        Subject(
            f"trio.open_memory_channel({size})",
            partial(
                memory_channel, partial(trio.open_memory_channel[int], size), trio.EndOfChannel
            ),
            CONSERVED,
            ("trio",),
        )
        for size in (0, 1)
    ),
    Subject("asyncio.Queue(1)", partial(queue_of_asyncio, asyncio.Queue), CONSERVED, ("asyncio",)),
    Subject("anyio.Condition", partial(notification, anyio.Condition), PASSED_ON, BOTH),
    Subject("asyncio.Condition", partial(notification, asyncio.Condition), PASSED_ON, ("asyncio",)),
    Subject("trio.Condition", partial(notification, trio.Condition), PASSED_ON, ("trio",)),
    *(
        Subject(
            f"asyncio.{what}, {name} as it comes",
            partial(program, how),
            "what comes in time is had, or is still there",
            ("asyncio",),
            cancel=False,
        )
        for name, how in (
            ("asyncio.timeout", by_timeout),
            ("asyncio.wait_for", by_wait_for),
            ("anyio.fail_after", by_fail_after),
        )
        for what, program in (("Queue", until_it_is_there), ("Lock", until_it_is_free))
    ),
    Subject(
        "anyio.create_memory_object_stream, anyio.move_on_after as it comes",
        dropped_by_a_timeout_as_it_comes,
        "what comes in time is had, or is still there",
        BOTH,
        cancel=False,
    ),
)
