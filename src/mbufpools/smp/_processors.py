"""Several CPUs: the threads of a small kernel, each on a CPU of its own, run step by step.

A thread is a generator. Each ``yield`` is a preemption point, where another CPU may act:

- ``yield mutex`` enters a mutex, and what follows is done under it;
- ``yield LEAVE`` comes before a mutex is left;
- ``yield ATOMIC`` comes before an atomic operation;
- ``yield channel`` sleeps.

What a thread does between one ``yield`` and the next is one step. `Processors.run` asks a
`Schedule` for every step, as the lab's backends for asyncio and trio do, so every strategy of the
lab can drive it.

There are two grains. When the mutexes are *split*, each ``yield`` is a choice, and a thread that
wants a held mutex is not ready. When they are *joined*, a thread runs on until it has left its
mutex, so everything it does under the mutex is one step. Joining loses no outcome: no other thread
can touch what the mutex guards, and each word that is read without the mutex changes at most once
in such a step. Partial-order reduction needs the joined grain, because there a step never keeps
another thread from running. All other exploration uses the split grain, and tests compare the two.

On *one CPU* (`Processors.one_cpu`) a thread runs until it sleeps or ends. Only an interrupt comes
between two of its steps, and only while the thread is in no mutex, because a mutex of the pools
raises the interrupt level. The interrupt runs to its end before the thread goes on. It keeps the
thread from running meanwhile, so one CPU is explored in the split grain without reduction.

Every access is declared, in both grains. Time passes only when no thread can run: then `run` calls
the `timer`.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Generator
from typing import Final, TypeVar

from mbufpools.lab.engine import (
    Accesses,
    Choice,
    Livelock,
    Name,
    Outcome,
    Ready,
    Resource,
    Schedule,
    Stop,
)

__all__ = [
    "ATOMIC",
    "LEAVE",
    "Channel",
    "Code",
    "Corrupted",
    "Data",
    "Mutex",
    "Processors",
    "Thread",
    "Told",
    "Wanted",
    "Word",
]

T = TypeVar("T")

ENDLESS = 10_000
"""`Processors.settle` expects fewer steps than this."""


class Corrupted(Exception):
    """A structure of the kernel is broken. The real kernel would panic sooner or later."""


class _Place(enum.Enum):
    LEAVE = enum.auto()
    ATOMIC = enum.auto()


LEAVE: Final = _Place.LEAVE
"""Yielded before a mutex is left."""
ATOMIC: Final = _Place.ATOMIC
"""Yielded before an atomic operation, or a read without a mutex."""


class Mutex:
    """A spinning lock: a thread that wants it does not run until the holder leaves it."""

    __slots__ = ("_processors", "holder")

    def __init__(self, processors: Processors) -> None:
        self._processors = processors
        self.holder: Thread | None = None

    def enter_try(self) -> bool:
        """Enter the mutex if it is free (``mtx_enter_try``). In the joined grain it always is."""
        if self.holder is not None:
            return False
        self.enter(self._processors.running)
        return True

    def enter(self, thread: Thread | None) -> None:
        """Make `thread` the holder. Only `enter_try` and `Processors` call it."""
        self.holder = thread
        if thread is not None:
            thread.holds += 1

    def leave(self) -> None:
        """Leave the mutex, so that another thread can enter it (``mtx_leave``)."""
        if self.holder is not None:
            self.holder.holds -= 1
        self.holder = None
        processors = self._processors
        for thread in processors.threads:
            if thread.wants is self:
                thread.since = processors.count


class Data:
    """The data that one mutex guards, or that one CPU owns. Declares which steps touch it."""

    __slots__ = ("_key", "_processors")

    def __init__(self, processors: Processors, name: str) -> None:
        self._processors = processors
        self._key: Resource = (name,)

    def reads(self) -> None:
        """The running step reads this data."""
        self._processors.accesses.setdefault(self._key, False)

    def writes(self) -> None:
        """The running step writes this data."""
        self._processors.accesses[self._key] = True


class Channel:
    """What a thread sleeps on. The thread leaves its mutex in the same step, so no wakeup is lost
    between the two."""

    __slots__ = ("_data", "_processors", "sleepers")

    def __init__(self, processors: Processors, name: str) -> None:
        self._processors = processors
        self._data = Data(processors, f"{name} channel")
        self.sleepers: list[Thread] = []

    def slept(self, thread: Thread) -> None:
        """Add a thread that has yielded the channel. Only `Processors` calls it."""
        self.sleepers.append(thread)
        self._data.writes()

    def wakeup_one(self) -> None:
        """Wake the thread that has slept the longest, if there is one (``wakeup_one``)."""
        processors = self._processors
        self._data.writes()
        if self.sleepers:
            thread = self.sleepers.pop(0)
            thread.wants = ATOMIC
            thread.since = processors.count
            thread.causes |= processors.now


class Word:
    """An integer in memory that is read without a mutex, or changed by atomic operations."""

    __slots__ = ("_data", "value")

    def __init__(self, processors: Processors, name: str, value: int = 0) -> None:
        self._data = Data(processors, name)
        self.value = value

    def load(self) -> int:
        """Read the word."""
        self._data.reads()
        return self.value

    def store(self, value: int) -> None:
        """Write the word. A write of the value that it has counts as a read: no reader can tell."""
        if value != self.value:
            self._data.writes()
            self.value = value
        else:
            self._data.reads()

    def add(self, number: int) -> int:
        """Add to the word, and return the sum (``atomic_add_long_nv``)."""
        self._data.writes()
        self.value += number
        return self.value


Wanted = Mutex | Channel | _Place
Code = Generator[Wanted, None, T]
"""What a thread executes; T is the type of the result."""
Told = list[tuple[str, str]]
"""The actions of an execution: the thread's label, and what it did, in words."""


class Thread:
    """A thread and the CPU that it runs on."""

    __slots__ = ("causes", "code", "done", "holds", "interrupt", "label", "name", "since", "wants")

    def __init__(self, name: Name, label: str, code: Code[None]) -> None:
        self.name = name
        self.label = label
        self.code = code
        self.wants: Wanted = ATOMIC
        self.since = 0
        """The number of the step since which the thread can run."""
        self.causes = 0
        """The bit mask of the steps that woke the thread."""
        self.done = False
        self.holds = 0
        """The number of mutexes that the thread is in."""
        self.interrupt = False
        """True if the thread is an interrupt, which the CPU runs between two steps of another."""

    @property
    def ready(self) -> bool:
        """True if the thread can take a step."""
        wants = self.wants
        if type(wants) is Mutex:
            return wants.holder is None
        return type(wants) is not Channel and not self.done

    def __repr__(self) -> str:
        return f"<Thread {self.label}>"


class Processors:
    """All threads, and the step that one of them is taking."""

    def __init__(self) -> None:
        self.threads: list[Thread] = []
        self.joined = True
        self.one_cpu = False
        """True if one CPU runs all threads."""
        self.on_cpu: Thread | None = None
        """The thread that took the last step; after an interrupt, the thread that it stopped."""
        self._stopped: Thread | None = None
        self.accesses: Accesses = {}
        """What the running step touches."""
        self.running: Thread | None = None
        self.now = 0
        """The bit mask of the running step."""
        self.count = 0
        """The number of steps so far."""
        self.told: Told | None = None
        """The actions so far; None if no story will be told."""
        self.timer: Callable[[], bool] = lambda: False
        """Moves the clock to the next time at which a thread can run; False if there is none."""

    def spawn(self, label: str, code: Code[None]) -> Thread:
        """Add a thread that executes `code`."""
        thread = Thread((0, len(self.threads)), label, code)
        self.threads.append(thread)
        return thread

    def say(self, text: str, *arguments: object) -> None:
        """Record in `told` what the running thread does. Costs almost nothing if `told` is None."""
        if self.told is not None:
            label = "the clock" if self.running is None else self.running.label
            self.told.append((label, text % arguments if arguments else text))

    def _advance(self, thread: Thread) -> None:
        """Let a thread take one step."""
        self.running = thread
        wants = thread.wants
        if type(wants) is Mutex:
            wants.enter(thread)
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
        """Run every thread for as long as it can run, one after another. No time passes.

        Raises RuntimeError if the threads go on without an end.
        """
        steps = 0
        while (thread := next((it for it in self.threads if it.ready), None)) is not None:
            while thread.ready:
                self._advance(thread)
                steps += 1
                if steps > ENDLESS:
                    raise RuntimeError(f"{thread.label} has no end")

    def begin(self, threads: list[Thread], *, joined: bool) -> None:
        """Start counting steps: the next one is the first of the execution."""
        self.threads = threads
        self.joined = joined
        self.accesses = {}
        self.now = self.count = 0
        for number, thread in enumerate(threads):
            thread.name = (0, number)
            thread.since = thread.causes = 0

    def run(self, schedule: Schedule, judge: Callable[[], Outcome]) -> Outcome:
        """Take steps in the order of `schedule` until no thread can run; then return what `judge`
        says about that state."""
        threads: dict[Choice, Thread] = {thread.name: thread for thread in self.threads}
        try:
            while True:
                ready = {
                    thread.name: Ready(thread.since, thread.causes) for thread in self._can_run()
                }
                if ready:
                    choice = schedule.choose(ready)
                    assert threads[choice].ready, (
                        "a step has touched something that it does not declare"
                    )
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
            return Outcome("livelock", f"no end after {len(schedule.steps)} steps")
        except Stop:
            return Outcome(stopped=True)
        except Corrupted as error:
            return Outcome("corruption", str(error), error=error)

    def _can_run(self) -> list[Thread]:
        """The threads of which one can take the next step."""
        ready = [thread for thread in self.threads if thread.ready]
        current = self.on_cpu
        if not self.one_cpu or current is None or not current.ready:
            return ready
        if current.interrupt or current.holds:
            return [current]
        return [current, *(thread for thread in ready if thread.interrupt)]

    def _step(self, schedule: Schedule, thread: Thread) -> None:
        step = schedule.begin(thread.name, thread.causes)
        thread.causes = 0
        self.count = len(schedule.steps)
        self.now = 1 << self.count - 1
        self.accesses = step.accesses
        self._advance(thread)
        if thread.interrupt and thread.done:
            self.on_cpu = self._stopped
        elif thread is not self.on_cpu:
            self.on_cpu, self._stopped = thread, self.on_cpu
