"""Wakeups that come too early, too seldom, or to the wrong one."""

from __future__ import annotations

import asyncio
from functools import partial

import anyio
from anyio.abc import TaskGroup, TaskStatus
from anyio.lowlevel import checkpoint

from mbufpools.lab import Shared

from ._specimen import TIES, Specimen, together

__all__ = ["SPECIMENS"]


class Gate:
    """Looks, then does something else, then waits: the gate may open in between."""

    def __init__(self) -> None:
        self.is_open = Shared(False)
        self.waiter: Shared[anyio.Event | None] = Shared(None)

    async def wait(self) -> None:
        if not self.is_open.value:
            await checkpoint()
            self.waiter.value = event = anyio.Event()
            await event.wait()  # stall: lost wakeup

    async def open(self) -> None:
        await checkpoint()
        self.is_open.value = True
        if self.waiter.value is not None:
            self.waiter.value.set()


class GateThatEnqueuesAtOnce(Gate):
    """Nothing can come between the look and the wait."""

    async def wait(self) -> None:
        await checkpoint()
        if not self.is_open.value:
            self.waiter.value = event = anyio.Event()
            await event.wait()


async def pass_the_gate(gate_class: type[Gate]) -> None:
    gate = gate_class()
    await together(gate.wait, gate.open)


class Mailbox:
    """Waits for a notification, not for what it tells: one that came before is missed."""

    def __init__(self) -> None:
        self.condition = anyio.Condition()
        self.mail = Shared(False)

    async def post(self) -> None:
        async with self.condition:
            self.mail.value = True
            self.condition.notify()

    async def fetch(self) -> None:
        async with self.condition:
            await self.condition.wait()  # stall: notify before wait
            self.mail.value = False


class MailboxThatLooks(Mailbox):
    """Waits until the mail is there, whether or not it was notified."""

    async def fetch(self) -> None:
        async with self.condition:
            while not self.mail.value:
                await self.condition.wait()
            self.mail.value = False


async def one_letter(mailbox_class: type[Mailbox]) -> None:
    mailbox = mailbox_class()
    await together(mailbox.fetch, mailbox.post)


class Shelf:
    """A slot for one item. Producers and consumers wait on the same condition, and a single
    notification may go to a task of the same side."""

    def __init__(self) -> None:
        self.lock = anyio.Lock(fast_acquire=True)
        self.full = self.empty = anyio.Condition(self.lock)
        self.taken = Shared(False)

    async def bring(self) -> None:
        async with self.lock:
            while self.taken.value:
                await self.empty.wait()  # stall: notify of the wrong side
            self.taken.value = True
            self.full.notify()

    async def take(self) -> None:
        async with self.lock:
            while not self.taken.value:
                await self.full.wait()  # stall: notify of the wrong side
            self.taken.value = False
            self.empty.notify()


class ShelfWithTwoConditions(Shelf):
    """One condition for each side, and one lock for both."""

    def __init__(self) -> None:
        super().__init__()
        self.empty = anyio.Condition(self.lock)


async def two_of_each_side(shelf_class: type[Shelf]) -> None:
    shelf = shelf_class()
    await together(shelf.take, shelf.take, shelf.bring, shelf.bring)


class Alarm:
    """Clears the signal after the work, and loses the signals that came during it."""

    def __init__(self) -> None:
        self.signal = asyncio.Event()
        self.todo = Shared(0)
        self.done = Shared(0)

    async def ring_twice(self) -> None:
        for _ in range(2):
            self.todo.value += 1
            self.signal.set()
            await asyncio.sleep(0)

    async def work(self) -> None:
        while self.done.value < 2:
            await self.signal.wait()  # stall: event cleared too late
            self.done.value += await self.take_all()
            self.signal.clear()

    async def take_all(self) -> int:
        taken, self.todo.value = self.todo.value, 0
        await asyncio.sleep(0)
        return taken


class AlarmClearedFirst(Alarm):
    """A signal during the work is for the next round."""

    async def work(self) -> None:
        while self.done.value < 2:
            await self.signal.wait()
            self.signal.clear()
            self.done.value += await self.take_all()


async def two_alarms(alarm_class: type[Alarm]) -> None:
    alarm = alarm_class()
    await asyncio.gather(alarm.ring_twice(), alarm.work())


class Bell:
    """Rings when no task listens yet, because a task of `start_soon` has not begun."""

    def __init__(self) -> None:
        self.listener: Shared[anyio.Event | None] = Shared(None)

    async def listen(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        self.listener.value = event = anyio.Event()
        task_status.started()
        await event.wait()  # stall: rung before anybody listens

    async def answer(self, group: TaskGroup) -> None:
        group.start_soon(self.listen)
        await checkpoint()

    def ring(self) -> None:
        if self.listener.value is not None:
            self.listener.value.set()


class BellThatWaitsForItsListener(Bell):
    """`start` returns once the task has said that it listens."""

    async def answer(self, group: TaskGroup) -> None:
        await group.start(self.listen)


async def ring(bell_class: type[Bell]) -> None:
    bell = bell_class()
    async with anyio.create_task_group() as group:
        await bell.answer(group)
        bell.ring()


class Pipe:
    """A close between the look and the wait wakes the tasks that wait by then, so not this one."""

    def __init__(self) -> None:
        self.closed = Shared(False)
        self.getters: Shared[tuple[anyio.Event, ...]] = Shared(())

    async def get(self) -> None:
        if self.closed.value:
            return
        await checkpoint()
        await self.park()

    async def park(self) -> None:
        event = anyio.Event()
        self.getters.value = (*self.getters.value, event)
        await event.wait()  # stall: closed before the wait

    async def close(self) -> None:
        await checkpoint()
        self.closed.value = True
        for event in self.getters.value:
            event.set()


class PipeThatLooksLast(Pipe):
    """The look comes right before the wait."""

    async def get(self) -> None:
        await checkpoint()
        if not self.closed.value:
            await self.park()


async def close_a_pipe(pipe_class: type[Pipe]) -> None:
    pipe = pipe_class()
    await together(pipe.get, pipe.close)


SPECIMENS = (
    Specimen(
        "lost wakeup",
        partial(pass_the_gate, Gate),
        partial(pass_the_gate, GateThatEnqueuesAtOnce),
        kind="stall",
        told="for anyio's Event: set() was not called after that",
        found=3,
        proved=12,
    ),
    Specimen(
        "notify before wait",
        partial(one_letter, Mailbox),
        partial(one_letter, MailboxThatLooks),
        kind="stall",
        told="for anyio's Condition: notify() was not called after that",
        found=4,
        proved=8,
    ),
    Specimen(
        "notify of the wrong side",
        partial(two_of_each_side, Shelf),
        partial(two_of_each_side, ShelfWithTwoConditions),
        kind="stall",
        told="for anyio's Condition: notify() was not called after that",
        found=1,
        proved=81,
    ),
    Specimen(
        "event cleared too late",
        partial(two_alarms, Alarm),
        partial(two_alarms, AlarmClearedFirst),
        kind="stall",
        told="for asyncio's Event: set() was not called after that",
        found=1,
        proved=26,
        backends=("asyncio",),
    ),
    Specimen(
        "rung before anybody listens",
        partial(ring, Bell),
        partial(ring, BellThatWaitsForItsListener),
        kind="stall",
        told="for anyio's Event: set() was not called after that",
        found=2,
        proved=2,
        differs=TIES,
    ),
    Specimen(
        "closed before the wait",
        partial(close_a_pipe, Pipe),
        partial(close_a_pipe, PipeThatLooksLast),
        kind="stall",
        told="for anyio's Event: set() was not called after that",
        found=3,
        proved=12,
    ),
)
