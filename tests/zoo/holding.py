"""Tasks that hold what others wait for: deadlocks, circles, starvation."""

from __future__ import annotations

import asyncio
from functools import partial

import anyio
from anyio.lowlevel import checkpoint

from mbufpools.lab import Shared

from ._specimen import Specimen, together

__all__ = ["SPECIMENS"]


class Accounts:
    """Each transfer takes its own account first, then the other's."""

    def __init__(self, count: int) -> None:
        self.locks = [anyio.Lock(fast_acquire=True) for _ in range(count)]

    async def transfer(self, source: int, target: int) -> None:
        async with self.locks[source]:
            await checkpoint()
            async with self.locks[target]:  # stall: deadlock of two locks
                pass


class AccountsInOrder(Accounts):
    """All take the lower number first."""

    async def transfer(self, source: int, target: int) -> None:
        await super().transfer(*sorted((source, target)))


async def two_transfers(accounts_class: type[Accounts]) -> None:
    accounts = accounts_class(2)
    await together(partial(accounts.transfer, 0, 1), partial(accounts.transfer, 1, 0))


class Table:
    """Each philosopher takes the left fork, then waits for the right."""

    def __init__(self) -> None:
        self.forks = [anyio.Lock(fast_acquire=True) for _ in range(3)]

    async def dine(self, seat: int) -> None:
        left, right = self.forks[seat], self.forks[(seat + 1) % 3]
        async with left:
            await checkpoint()
            async with right:  # stall: dining philosophers
                pass


class TableWithOneLeftHander(Table):
    """The last one takes the right fork first, so the circle is not closed."""

    async def dine(self, seat: int) -> None:
        if seat < 2:
            await super().dine(seat)
            return
        async with self.forks[0]:
            await checkpoint()
            async with self.forks[2]:
                pass


async def three_philosophers(table_class: type[Table]) -> None:
    table = table_class()
    await together(*(partial(table.dine, seat) for seat in range(3)))


class Document:
    """A reader that becomes the writer waits for the other readers to leave; so does the other."""

    def __init__(self) -> None:
        self.condition = anyio.Condition()
        self.upgrading = anyio.Lock()
        self.readers = Shared(0)

    async def edit(self) -> None:
        self.readers.value += 1
        await checkpoint()
        async with self.condition:
            while self.readers.value > 1:
                await self.condition.wait()  # stall: upgrade of a read lock
            self.readers.value -= 1
            self.condition.notify_all()


class DocumentWithOneEditor(Document):
    """Of all readers, only one may intend to write."""

    async def edit(self) -> None:
        async with self.upgrading:
            await super().edit()


async def two_editors(document_class: type[Document]) -> None:
    document = document_class()
    await together(document.edit, document.edit)


class Door:
    """Each says that it wants to go through, and lets the other one go first."""

    def __init__(self) -> None:
        self.lock = anyio.Lock()
        self.wants = (Shared(False), Shared(False))

    async def enter(self, me: int) -> None:
        self.wants[me].value = True
        await checkpoint()
        while self.wants[1 - me].value:
            await checkpoint()  # livelock: after you
        self.wants[me].value = False


class DoorWithLock(Door):
    """The first task goes through."""

    async def enter(self, me: int) -> None:
        async with self.lock:
            await super().enter(me)


async def two_at_the_door(door_class: type[Door]) -> None:
    door = door_class()
    await together(partial(door.enter, 0), partial(door.enter, 1))


class Page:
    """Readers share it. One that comes back in the step in which it leaves keeps out a writer,
    which finds a reader whenever it looks."""

    def __init__(self) -> None:
        self.readers = Shared(0)
        self.writer = anyio.Event()
        self.written = anyio.Event()
        self.left: Shared[anyio.Event | None] = Shared(None)

    async def write(self) -> None:
        self.writer.set()
        while self.readers.value:
            self.left.value = event = anyio.Event()
            await event.wait()
        self.written.set()

    async def read_until_written(self) -> None:
        await self.enter()
        await self.writer.wait()
        while not self.written.is_set():
            await checkpoint()  # livelock: the writer starves
            self.leave()
            await self.enter()
        self.leave()

    async def enter(self) -> None:
        self.readers.value += 1

    def leave(self) -> None:
        self.readers.value -= 1
        if self.readers.value == 0 and self.left.value is not None:
            self.left.value.set()


class PageThatLetsTheWriterIn(Page):
    """A reader that comes when a writer waits, waits for it."""

    async def enter(self) -> None:
        if self.writer.is_set():
            await self.written.wait()
        await super().enter()


async def reader_and_writer(page_class: type[Page]) -> None:
    page = page_class()
    await together(page.read_until_written, page.write)


class Journal:
    """Takes its lock in a method that another method calls with the lock held."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.lines = Shared(0)

    async def append(self) -> None:
        async with self.lock:  # stall: lock taken twice
            await self.append_locked()

    async def append_locked(self) -> None:
        self.lines.value += 1

    async def append_two(self) -> None:
        async with self.lock:
            await self.append()
            await self.append()


class JournalThatKnowsWhoHoldsTheLock(Journal):
    """What needs the lock held does not take it."""

    async def append_two(self) -> None:
        async with self.lock:
            await self.append_locked()
            await self.append_locked()


async def two_lines(journal_class: type[Journal]) -> None:
    journal = journal_class()
    await asyncio.gather(journal.append_two(), journal.append())


SPECIMENS = (
    Specimen(
        "deadlock of two locks",
        partial(two_transfers, Accounts),
        partial(two_transfers, AccountsInOrder),
        kind="stall",
        told="for anyio's Lock: release() was not called after that",
        found=1,
        proved=8,
    ),
    Specimen(
        "dining philosophers",
        partial(three_philosophers, Table),
        partial(three_philosophers, TableWithOneLeftHander),
        kind="stall",
        told="for anyio's Lock: release() was not called after that",
        found=1,
        proved=83,
    ),
    Specimen(
        "upgrade of a read lock",
        partial(two_editors, Document),
        partial(two_editors, DocumentWithOneEditor),
        kind="stall",
        told="for anyio's Condition: notify() was not called after that",
        found=1,
        proved=13,
    ),
    Specimen(
        "lock taken twice",
        partial(two_lines, Journal),
        partial(two_lines, JournalThatKnowsWhoHoldsTheLock),
        kind="stall",
        told="for asyncio's Lock: release() was not called after that",
        found=1,
        proved=4,
        backends=("asyncio",),
    ),
    Specimen(
        "after you",
        partial(two_at_the_door, Door),
        partial(two_at_the_door, DoorWithLock),
        kind="livelock",
        told="300 steps, and no end",
        found=1,
        proved=11,
        step_limit=300,
    ),
    Specimen(
        "the writer starves",
        partial(reader_and_writer, Page),
        partial(reader_and_writer, PageThatLetsTheWriterIn),
        kind="livelock",
        told="300 steps, and no end",
        found=1,
        proved=4,
        step_limit=300,
    ),
)
