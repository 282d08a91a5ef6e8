"""A condition is checked, and is no longer true when the program acts on it."""

from __future__ import annotations

from functools import partial

import anyio
from anyio.lowlevel import checkpoint

from mbufpools.lab import Shared

from ._specimen import Specimen, together

__all__ = ["SPECIMENS"]


class Shop:
    """The stock is looked at before the payment, and taken after it."""

    def __init__(self) -> None:
        self.stock = Shared(1)

    async def buy(self) -> None:
        if self.stock.value > 0:
            await checkpoint()
            self.stock.value -= 1
            assert self.stock.value >= 0, "sold what is not there"  # exception: check then act


class ShopThatTakesFirst(Shop):
    """The stock is taken in the step that looks."""

    async def buy(self) -> None:
        if self.stock.value > 0:
            self.stock.value -= 1
            await checkpoint()


async def two_customers(shop_class: type[Shop]) -> None:
    shop = shop_class()
    await together(shop.buy, shop.buy)


class Counter:
    """Reads, waits, writes: what the other task wrote during the wait is overwritten."""

    def __init__(self) -> None:
        self.lock = anyio.Lock()
        self.count = Shared(0)

    async def increment(self) -> None:
        count = self.count.value
        await checkpoint()
        self.count.value = count + 1


class CounterWithLock(Counter):
    """One task reads and writes at a time."""

    async def increment(self) -> None:
        async with self.lock:
            await super().increment()


async def two_increments(counter_class: type[Counter]) -> None:
    counter = counter_class()
    await together(counter.increment, counter.increment)
    assert counter.count.value == 2, "an increment is lost"  # exception: lost update


class Service:
    """Says that it is ready too early, so a task that looks without the lock finds half of it."""

    def __init__(self) -> None:
        self.lock = anyio.Lock()
        self.exists = Shared(False)
        self.connection: Shared[str | None] = Shared(None)

    async def use(self) -> None:
        if not self.exists.value:
            async with self.lock:
                if not self.exists.value:
                    await self.connect()
        assert self.connection.value, "not connected"  # exception: double-checked start

    async def connect(self) -> None:
        self.exists.value = True
        await checkpoint()
        self.connection.value = "connected"


class ServiceThatWaits(Service):
    """Says that it is ready at the end."""

    async def connect(self) -> None:
        await checkpoint()
        self.connection.value = "connected"
        self.exists.value = True


async def two_users(service_class: type[Service]) -> None:
    service = service_class()
    await together(service.use, service.use)


class Slot:
    """It is free as soon as it is released: a newcomer may take what the woken task takes too."""

    def __init__(self) -> None:
        self.free = Shared(True)
        self.users = Shared(0)
        self.waiters: Shared[tuple[anyio.Event, ...]] = Shared(())

    async def use(self) -> None:
        await self.acquire()
        self.users.value += 1
        assert self.users.value == 1, "used by two"  # exception: double grant
        await checkpoint()
        self.users.value -= 1
        self.release()

    async def acquire(self) -> None:
        await checkpoint()
        if not self.free.value:
            event = anyio.Event()
            self.waiters.value = (*self.waiters.value, event)
            await event.wait()
        self.free.value = False

    def release(self) -> None:
        self.free.value = True
        if self.waiters.value:
            event, *others = self.waiters.value
            self.waiters.value = tuple(others)
            event.set()


class SlotHandedOver(Slot):
    """A release to a waiter hands it over, and it is not free in between."""

    def release(self) -> None:
        waits = bool(self.waiters.value)
        super().release()
        self.free.value = not waits


async def three_users(slot_class: type[Slot]) -> None:
    slot = slot_class()
    await together(slot.use, slot.use, slot.use)


class Channel:
    """Walks over the subscribers while they leave."""

    def __init__(self) -> None:
        self.subscribers: Shared[tuple[str, ...]] = Shared(("first", "second"))

    async def publish(self) -> None:
        for number in range(len(self.subscribers.value)):
            await self.send(self.subscribers.value[number])  # exception: walked while it changes

    async def send(self, name: str) -> None:
        await checkpoint()

    async def leave(self) -> None:
        await checkpoint()
        self.subscribers.value = ("first",)


class ChannelThatCopies(Channel):
    """Walks over a copy of the subscribers."""

    async def publish(self) -> None:
        for name in self.subscribers.value:
            await self.send(name)


async def publish_and_leave(channel_class: type[Channel]) -> None:
    channel = channel_class()
    await together(channel.publish, channel.leave)


class Batch:
    """Stops the worker when the queue is empty: the last item is in the worker's hands."""

    def __init__(self) -> None:
        self.queue_is_empty = anyio.Event()
        self.worker_is_idle = anyio.Event()
        self.done = Shared(False)

    async def work(self) -> None:
        self.queue_is_empty.set()
        await checkpoint()
        self.done.value = True
        self.worker_is_idle.set()

    async def finished(self) -> None:
        await self.queue_is_empty.wait()


class BatchThatIsDone(Batch):
    """It is over when no worker has an item in hand."""

    async def finished(self) -> None:
        await self.worker_is_idle.wait()


async def stop_when_finished(batch_class: type[Batch]) -> None:
    batch = batch_class()
    async with anyio.create_task_group() as group:
        group.start_soon(batch.work)
        await batch.finished()
        group.cancel_scope.cancel()
    assert batch.done.value, "an item is lost"  # exception: group left too early


SPECIMENS = (
    Specimen(
        "check then act",
        partial(two_customers, Shop),
        partial(two_customers, ShopThatTakesFirst),
        kind="exception",
        told="AssertionError: sold what is not there",
        found=1,
        proved=8,
    ),
    Specimen(
        "lost update",
        partial(two_increments, Counter),
        partial(two_increments, CounterWithLock),
        kind="exception",
        told="AssertionError: an increment is lost",
        found=1,
        proved=11,
    ),
    Specimen(
        "double-checked start",
        partial(two_users, Service),
        partial(two_users, ServiceThatWaits),
        kind="exception",
        told="AssertionError: not connected",
        found=3,
        proved=11,
    ),
    Specimen(
        "double grant",
        partial(three_users, Slot),
        partial(three_users, SlotHandedOver),
        kind="exception",
        told="AssertionError: used by two",
        found=12,
        proved=265,
    ),
    Specimen(
        "walked while it changes",
        partial(publish_and_leave, Channel),
        partial(publish_and_leave, ChannelThatCopies),
        kind="exception",
        told="IndexError: tuple index out of range",
        found=4,
        proved=18,
    ),
    Specimen(
        "group left too early",
        partial(stop_when_finished, Batch),
        partial(stop_when_finished, BatchThatIsDone),
        kind="exception",
        told="AssertionError: an item is lost",
        found=1,
        proved=2,
    ),
)
