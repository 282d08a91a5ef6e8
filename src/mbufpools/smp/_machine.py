"""The machine: threads of a small kernel, each on a CPU of its own, run step by step.

A thread is a generator. Each ``yield`` is a place where another CPU may do something: ``yield
mutex`` enters a mutex, and what follows is done under it; ``yield LEAVE`` stands before it is left,
``yield ATOMIC`` before an atomic operation; ``yield channel`` sleeps. What a thread does from one
``yield`` to the next is one step.

The machine asks a `Schedule` for every step, as those of asyncio and trio do, so every strategy of
the lab drives it. There are two grains. *Split*, each ``yield`` is a choice, and who wants a mutex
that is held is not ready. *Joined*, a thread goes on to where it has left its mutex: what it does
under it is one step. That loses nothing: nobody else can touch what the mutex guards meanwhile, and
of the words that are looked at without it each is changed once. So joined is for partial-order
reduction, which needs steps that do not keep others from running; split is for the rest, and to
check the one by the other.

Every access declares itself, in both. Time goes on only when nobody can run: then the machine asks
its `timer`. Uses `_outcome`, `_schedule` and `_trace`.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Generator
from typing import Final, TypeVar

from ..lab._outcome import Outcome
from ..lab._schedule import Choice, Livelock, Ready, Schedule, Stop
from ..lab._steps import Accesses, Name, Resource

__all__ = [
    "LEAVE",
    "Channel",
    "Code",
    "Corrupted",
    "Data",
    "Machine",
    "Mutex",
    "Thread",
    "Told",
    "Wanted",
    "Word",
]

T = TypeVar("T")


class Corrupted(Exception):
    """A structure of the kernel is broken; where the real one would panic, sooner or later."""


class _Place(enum.Enum):
    LEAVE = enum.auto()
    ATOMIC = enum.auto()


LEAVE: Final = _Place.LEAVE
"""Yielded before a mutex is left."""
ATOMIC: Final = _Place.ATOMIC
"""Yielded before an atomic operation, or a look without a mutex."""


class Mutex:
    """A lock that spins: who wants it does not run until it is left."""

    __slots__ = ("_machine", "holder")

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self.holder: Thread | None = None

    def enter_try(self) -> bool:
        """Enter if it is free (``mtx_enter_try``). Joined, it always is."""
        if self.holder is not None:
            return False
        self.holder = self._machine.running
        return True

    def leave(self) -> None:
        """Let the next one in (``mtx_leave``)."""
        self.holder = None
        machine = self._machine
        for thread in machine.threads:
            if thread.wants is self:
                thread.since = machine.count


class Data:
    """What one mutex guards, or one CPU; and the record that a step has touched it."""

    __slots__ = ("_key", "_machine")

    def __init__(self, machine: Machine, name: str) -> None:
        self._machine = machine
        self._key: Resource = (name,)

    def reads(self) -> None:
        self._machine.accesses.setdefault(self._key, False)

    def writes(self) -> None:
        self._machine.accesses[self._key] = True


class Channel:
    """What a thread sleeps on. It leaves its mutex in the same step, so no wakeup is lost here."""

    __slots__ = ("_data", "_machine", "sleepers")

    def __init__(self, machine: Machine, name: str) -> None:
        self._machine = machine
        self._data = Data(machine, f"{name} channel")
        self.sleepers: list[Thread] = []

    def slept(self, thread: Thread) -> None:
        """Called by the machine for who yields the channel."""
        self.sleepers.append(thread)
        self._data.writes()

    def wakeup_one(self) -> None:
        """Wake who has slept for the longest, if anybody sleeps (``wakeup_one``)."""
        machine = self._machine
        self._data.writes()
        if self.sleepers:
            thread = self.sleepers.pop(0)
            thread.wants = ATOMIC
            thread.since = machine.count
            thread.causes |= machine.now


class Word:
    """An integer in memory, with atomic operations; or one that is looked at without its mutex."""

    __slots__ = ("_data", "value")

    def __init__(self, machine: Machine, name: str, value: int = 0) -> None:
        self._data = Data(machine, name)
        self.value = value

    def load(self) -> int:
        """Read it."""
        self._data.reads()
        return self.value

    def store(self, value: int) -> None:
        """Write it. Those who look at it do not see that a value was written over by itself."""
        if value != self.value:
            self._data.writes()
            self.value = value
        else:
            self._data.reads()

    def add(self, number: int) -> int:
        """Add to it, and return the sum (``atomic_add_long_nv``)."""
        self._data.writes()
        self.value += number
        return self.value


Wanted = Mutex | Channel | _Place
Code = Generator[Wanted, None, T]
"""What a thread does; T is what it comes to."""
Told = list[tuple[str, str]]
"""Who did what, in words."""


class Thread:
    """A thread, and the CPU that it runs on."""

    __slots__ = ("causes", "code", "done", "label", "name", "since", "wants")

    def __init__(self, name: Name, label: str, code: Code[None]) -> None:
        self.name = name
        self.label = label
        self.code = code
        self.wants: Wanted = ATOMIC
        self.since = 0
        """The step since which it could run."""
        self.causes = 0
        """The steps that woke it, as a mask."""
        self.done = False

    @property
    def ready(self) -> bool:
        """It can take a step."""
        wants = self.wants
        if type(wants) is Mutex:
            return wants.holder is None
        return type(wants) is not Channel and not self.done

    def __repr__(self) -> str:
        return f"<Thread {self.label}>"


class Machine:
    """The threads, and the step that is being taken."""

    def __init__(self) -> None:
        self.threads: list[Thread] = []
        self.joined = True
        self.accesses: Accesses = {}
        """What the step touches."""
        self.running: Thread | None = None
        self.now = 0
        """The step, as a mask."""
        self.count = 0
        """Steps so far."""
        self.told: Told | None = None
        """Who did what, if anybody wants to hear it."""
        self.timer: Callable[[], bool] = lambda: False
        """Lets the clock go on to where somebody can run; False if there is no such time."""

    def spawn(self, label: str, code: Code[None]) -> Thread:
        """Add a thread."""
        thread = Thread((0, len(self.threads)), label, code)
        self.threads.append(thread)
        return thread

    def say(self, text: str, *arguments: object) -> None:
        """Tell what the thread that runs does; no cost to speak of if nobody listens."""
        if self.told is not None:
            who = "the clock" if self.running is None else self.running.label
            self.told.append((who, text % arguments if arguments else text))

    def _advance(self, thread: Thread) -> None:
        """Take one step of a thread."""
        self.running = thread
        wants = thread.wants
        if type(wants) is Mutex:
            wants.holder = thread
        try:
            wants = thread.code.send(None)
            if wants is LEAVE and self.joined:
                wants = thread.code.send(None)
        except StopIteration:
            thread.done = True
            wants = ATOMIC
        thread.wants = wants
        thread.since = self.count
        if type(wants) is Channel:
            wants.slept(thread)
        self.running = None

    def settle(self) -> None:
        """Run what can run, each thread for as long as it can, without letting time go on."""
        while (thread := next((it for it in self.threads if it.ready), None)) is not None:
            while thread.ready:
                self._advance(thread)

    def begin(self, threads: list[Thread], *, joined: bool) -> None:
        """Forget how it came to be as it is: the next step is the first."""
        self.threads = threads
        self.joined = joined
        self.accesses = {}
        self.now = self.count = 0
        for number, thread in enumerate(threads):
            thread.name = (0, number)
            thread.since = thread.causes = 0

    def run(self, schedule: Schedule, judge: Callable[[], Outcome]) -> Outcome:
        """Take steps as `schedule` says until nobody can run any more, and judge what is then."""
        threads: dict[Choice, Thread] = {thread.name: thread for thread in self.threads}
        try:
            while True:
                ready = {
                    thread.name: Ready(thread.since, thread.causes)
                    for thread in self.threads
                    if thread.ready
                }
                if ready:
                    choice = schedule.choose(ready)
                    assert threads[choice].ready, "a step has touched what it does not declare"
                    self._step(schedule, threads[choice])
                    continue
                self.accesses = {}
                if not self.timer():
                    return judge()
                mask = schedule.jumped()
                self.count = len(schedule.steps)
                for thread in self.threads:
                    if thread.ready:
                        thread.since, thread.causes = self.count, mask
        except Livelock:
            return Outcome("livelock", f"{len(schedule.steps)} steps, and no end")
        except Stop:
            return Outcome(stopped=True)
        except Corrupted as error:
            return Outcome("corruption", str(error), error=error)

    def _step(self, schedule: Schedule, thread: Thread) -> None:
        step = schedule.begin(thread.name, thread.causes)
        thread.causes = 0
        self.count = len(schedule.steps)
        self.now = 1 << self.count - 1
        self.accesses = step.accesses
        self._advance(thread)
