"""Bugs that the memory of Flink, Spark and Kafka had: each of them happened."""

from __future__ import annotations

from functools import partial

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from mbufpools.lab import Shared

from ._specimen import Specimen, together

__all__ = ["SPECIMENS"]


class LocalPool:
    """FLINK-24035: the global pool tells the local one that there is a segment, and the local one
    takes it and wakes no task."""

    def __init__(self) -> None:
        self.segments = Shared(0)
        self.waiter: Shared[anyio.Event | None] = Shared(None)

    async def request(self) -> None:
        while not self.segments.value:
            self.waiter.value = event = anyio.Event()
            await event.wait()  # stall: wakeup lost between layers
        self.segments.value -= 1

    async def global_pool(self) -> None:
        await checkpoint()
        self.on_available()

    def on_available(self) -> None:
        self.segments.value += 1


class LocalPoolThatTells(LocalPool):
    """Each layer passes the wakeup on."""

    def on_available(self) -> None:
        super().on_available()
        if self.waiter.value is not None:
            self.waiter.value.set()


async def two_layers(pool_class: type[LocalPool]) -> None:
    pool = pool_class()
    await together(pool.request, pool.global_pool)


class TaskMemory:
    """Spark, pull request 58747: a task that holds nothing is struck off, though another thread of
    it waits: holding nothing is not the same as asking for nothing."""

    def __init__(self) -> None:
        self.held: Shared[dict[str, int]] = Shared({"task": 1, "other": 1})
        self.asking = Shared(0)
        self.event = anyio.Event()

    async def acquire(self, task: str) -> None:
        self.asking.value += 1
        if task not in self.held.value:
            self.hold(task, 0)
        while sum(self.held.value.values()) >= 2:
            await self.event.wait()
        self.hold(task, self.held.value[task] + 1)  # exception: entry dropped
        self.asking.value -= 1

    async def release(self, task: str) -> None:
        await checkpoint()
        self.hold(task, self.held.value[task] - 1)
        if not self.held.value[task] and self.may_be_dropped():
            self.held.update(lambda held: {it: n for it, n in held.items() if it != task})
        self.event.set()

    def hold(self, task: str, units: int) -> None:
        self.held.update(lambda held: {**held, task: units})

    def may_be_dropped(self) -> bool:
        return True


class TaskMemoryThatCountsWhoAsks(TaskMemory):
    """The task is kept while one of its threads asks."""

    def may_be_dropped(self) -> bool:
        return not self.asking.value


async def release_while_a_sibling_waits(memory_class: type[TaskMemory]) -> None:
    memory = memory_class()
    await together(partial(memory.acquire, "task"), partial(memory.release, "task"))


class Sender:
    """KAFKA-19012: the buffer of a request that timed out is used again, while the network still
    reads from it."""

    def __init__(self) -> None:
        self.buffer = Shared("")
        self.in_flight: Shared[anyio.Event | None] = Shared(None)
        self.arrived: Shared[tuple[str, ...]] = Shared(())

    async def network(self, delivered: anyio.Event) -> None:
        await anyio.sleep(2)
        self.arrived.value = (*self.arrived.value, self.buffer.value)
        delivered.set()

    async def send(self, group: TaskGroup, record: str) -> None:
        await self.wait_for_the_buffer()
        self.buffer.value = record
        self.in_flight.value = delivered = anyio.Event()
        group.start_soon(self.network, delivered)
        with anyio.move_on_after(1):
            await delivered.wait()

    async def wait_for_the_buffer(self) -> None:
        """It is free as soon as no task waits for the answer."""


class SenderThatKeepsTheBuffer(Sender):
    """It is free when the network has read it."""

    async def wait_for_the_buffer(self) -> None:
        if self.in_flight.value is not None:
            await self.in_flight.value.wait()


async def two_records(sender_class: type[Sender]) -> None:
    sender = sender_class()
    async with anyio.create_task_group() as group:
        await sender.send(group, "first")
        await sender.send(group, "second")
    assert sender.arrived.value == ("first", "second"), "corrupt"  # exception: used in flight


SPECIMENS = (
    Specimen(
        "wakeup lost between layers",
        partial(two_layers, LocalPool),
        partial(two_layers, LocalPoolThatTells),
        kind="stall",
        told="for anyio's Event: set() was not called after that",
        found=1,
        proved=6,
    ),
    Specimen(
        "entry dropped",
        partial(release_while_a_sibling_waits, TaskMemory),
        partial(release_while_a_sibling_waits, TaskMemoryThatCountsWhoAsks),
        kind="exception",
        told="KeyError: 'task'",
        found=1,
        proved=6,
    ),
    Specimen(
        "used in flight",
        partial(two_records, Sender),
        partial(two_records, SenderThatKeepsTheBuffer),
        kind="exception",
        told="AssertionError: corrupt",
        found=1,
        proved=2,
    ),
)
