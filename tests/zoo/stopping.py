"""What comes to its end too early, too late, or never: producers, timeouts, groups, clean-up."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial

import anyio
from anyio.lowlevel import checkpoint

from mbufpools.lab import Shared

from ._specimen import Specimen, together

__all__ = ["SPECIMENS"]


class Source:
    """Says that it is over when it has come to its end."""

    def __init__(self) -> None:
        self.send, self.receive = anyio.create_memory_object_stream[str](2)

    async def produce(self) -> None:
        with self.send.clone() as send:
            await send.send("item")
            await send.send("end")

    async def consume(self) -> None:
        while await self.receive.receive() != "end":  # stall: producer cancelled
            pass


class SourceThatCloses(Source):
    """When it is closed it is over, however it came to its end."""

    async def produce(self) -> None:
        with self.send:
            await self.send.send("item")

    async def consume(self) -> None:
        async for _ in self.receive:
            pass


async def produce_and_consume(source_class: type[Source]) -> None:
    source = source_class()
    with source.send, source.receive:
        await together(source.produce, source.consume)


class Inbox:
    """Hands a letter to the task that waits, which may time out at the same moment."""

    def __init__(self) -> None:
        self.letters = Shared(0)
        self.reader: Shared[anyio.Event | None] = Shared(None)
        self.read = Shared(0)

    async def deliver(self) -> None:
        await anyio.sleep(1)
        if self.reader.value is None:
            self.letters.value += 1
        else:
            self.reader.value.set()

    async def fetch(self) -> None:
        with anyio.move_on_after(1):
            self.reader.value = event = anyio.Event()
            try:
                await event.wait()
            except BaseException:
                self.forsake(event)
                raise
            self.read.value += 1

    def forsake(self, event: anyio.Event) -> None:
        self.reader.value = None


class InboxThatPutsBack(Inbox):
    """A letter for a task that timed out goes back into the box."""

    def forsake(self, event: anyio.Event) -> None:
        super().forsake(event)
        self.letters.value += event.is_set()


async def timeout_as_it_comes(inbox_class: type[Inbox]) -> None:
    inbox = inbox_class()
    await together(inbox.fetch, inbox.deliver)
    assert inbox.letters.value + inbox.read.value == 1, "lost"  # exception: timeout as it comes


class Poller:
    """Goes on after any exception, also after a cancellation."""

    survives: type[BaseException] = BaseException

    async def poll(self) -> None:
        for _ in range(1000):
            try:
                await anyio.sleep(1)  # livelock: cancellation swallowed
            except self.survives:
                pass


class PollerThatStops(Poller):
    """Goes on after an error; a cancellation is not an error."""

    survives = Exception


async def poll_and_stop(poller_class: type[Poller]) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(poller_class().poll)
        await anyio.sleep(2.5)
        group.cancel_scope.cancel()


class Room:
    """Waits in its clean-up, where a cancelled task cannot wait."""

    def __init__(self) -> None:
        self.taken = Shared(False)
        self.free = anyio.Event()

    async def stay(self) -> None:
        self.taken.value = True
        try:
            await checkpoint()
        finally:
            await self.leave()

    async def leave(self) -> None:
        await checkpoint()
        self.taken.value = False
        self.free.set()

    async def come_after(self) -> None:
        if self.taken.value:
            await self.free.wait()  # stall: clean-up without a shield


class RoomLeftInAnyCase(Room):
    """The clean-up is shielded."""

    async def leave(self) -> None:
        with anyio.CancelScope(shield=True):
            await super().leave()


async def one_after_the_other(room_class: type[Room]) -> None:
    room = room_class()
    await together(room.stay, room.come_after)


class Session:
    """Is closed when one of its requests fails, while the others go on."""

    def __init__(self) -> None:
        self.closed = Shared(False)
        self.misused = Shared(False)

    async def fail(self) -> None:
        raise OSError("no such page")

    async def fetch(self) -> None:
        for _ in range(2):
            await asyncio.sleep(1)
            self.misused.value |= self.closed.value

    async def request(self) -> None:
        await asyncio.gather(self.fail(), self.fetch())


class SessionWithGroup(Session):
    """A group cancels the others, and waits for them."""

    async def request(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self.fail())
            group.create_task(self.fetch())


async def one_fails(session_class: type[Session]) -> None:
    session = session_class()
    with suppress(OSError, BaseExceptionGroup):
        await session.request()
    session.closed.value = True
    await asyncio.sleep(5)
    assert not session.misused.value, "used after close"  # exception: siblings go on


SPECIMENS = (
    Specimen(
        "producer cancelled",
        partial(produce_and_consume, Source),
        partial(produce_and_consume, SourceThatCloses),
        kind="stall",
        told="for anyio's MemoryObjectReceiveStream: send(), or the close of the senders",
        found=11,
        proved=280,
        cancel=True,
    ),
    Specimen(
        "timeout as it comes",
        partial(timeout_as_it_comes, Inbox),
        partial(timeout_as_it_comes, InboxThatPutsBack),
        kind="exception",
        told="AssertionError: lost",
        differs="on asyncio dpor also tries in which order two timers of one moment are set",
        found=3,
        proved=8,
    ),
    Specimen(
        "cancellation swallowed",
        partial(poll_and_stop, Poller),
        partial(poll_and_stop, PollerThatStops),
        kind="livelock",
        told="300 steps, and no end",
        found=1,
        proved=3,
        step_limit=300,
        differs="on asyncio anyio wakes the task that waits for its group, too",
    ),
    Specimen(
        "clean-up without a shield",
        partial(one_after_the_other, Room),
        partial(one_after_the_other, RoomLeftInAnyCase),
        kind="stall",
        told="for anyio's Event: set() was not called after that",
        found=7,
        proved=195,
        cancel=True,
    ),
    Specimen(
        "siblings go on",
        partial(one_fails, Session),
        partial(one_fails, SessionWithGroup),
        kind="exception",
        told="AssertionError: used after close",
        found=1,
        proved=8,
        backends=("asyncio",),
    ),
)
