"""The schedule of one execution: which task runs next, asked of a strategy at every step.

What is not chosen on purpose follows one rule, the same on every backend: the task that runs goes
on, up to `SLICE` steps in a row so that one that spins cannot keep out the others; else the task
that has been ready for the longest, and of those that became ready in one step the one spawned
first. So a schedule is given by its *deviations* from that rule, and each is anchored to a step of
a task, not to a place in the schedule: leave one out, and the others still mean the same. That is
what a token spells. Uses `_outcome` and `_trace`.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from ._outcome import LabError
from ._steps import CLOCK, MAIN, Name, Step, spell

__all__ = [
    "SLICE",
    "Anchor",
    "Cancel",
    "Choice",
    "Deviations",
    "Livelock",
    "Point",
    "Ready",
    "Schedule",
    "Stop",
    "Strategy",
    "parse_token",
    "spell_token",
    "default",
]

SLICE = 20
"""Steps in a row after which a task that is still ready stands back for the others."""


TICK_LIMIT_FACTOR = 100
"""So many times the limit of steps is the limit for those of the clock and the pools' gc, too."""


class Stop(Exception):
    """No error: raised by a strategy to end an execution that can show nothing new."""


class Livelock(Exception):
    """The execution took more steps than the limit."""


class Anchor(NamedTuple):
    """A place in a schedule: after a task's step of that number, and how many cancellations the
    lab has injected there already."""

    task: Name
    number: int
    cancelled: int


class Cancel(NamedTuple):
    """Cancel a task that waits or is ready to go on."""

    task: Name
    by: str
    """``"scope"`` or ``"native"``."""


Choice = Name | Cancel
Deviations = dict[Anchor, Choice]


class Ready(NamedTuple):
    """A task that can run: since which step, and the steps that it had to wait for."""

    since: int
    causes: int


@dataclass(slots=True)
class Point:
    """Where the schedule has to choose."""

    anchor: Anchor
    ready: Mapping[Name, Ready]
    current: Name | None
    """The task that ran last, if it can go on."""
    slice_used: bool
    """True if `current` has run for so long that another takes over by the rule."""
    default: Name
    """What the rule would choose."""
    cancellable: tuple[Cancel, ...]
    """What the lab may cancel here."""
    steps: list[Step]
    """What has happened."""

    def preempts(self, choice: Choice) -> bool:
        """True if the choice keeps a task from going on whose turn it is: the one that runs, or,
        if that has run for so long, the others."""
        if self.current is None:
            return False
        return choice == self.current if self.slice_used else choice != self.current


class Strategy(Protocol):
    """Chooses the schedules of an exploration, one execution after another."""

    complete: bool
    """True once every schedule within its bound has been executed."""

    def begin(self) -> bool:
        """Get ready for another execution; False if there is none left."""

    def choose(self, point: Point) -> Choice:
        """Choose at one point. May raise `Stop`."""

    def end(self, schedule: Schedule, failed: bool) -> None:
        """The execution is over."""


def default(ready: Mapping[Name, Ready], current: Name | None, slice_used: bool) -> Name:
    """What the rule chooses; if nobody can run, that the clock goes on."""
    if not ready:
        return CLOCK
    if current is not None:
        if not slice_used:
            return current
        others = [name for name in ready if name != current]
        return min(others, key=lambda name: (ready[name].since, name))
    if len(ready) == 1:
        return next(iter(ready))
    return min(ready, key=lambda name: (ready[name].since, name))


class Schedule:
    """One execution: asked by a machine for every step, answers by its strategy, and notes it."""

    __slots__ = (
        "_cancelled",
        "_current",
        "_exempt",
        "_in_a_row",
        "_known",
        "_numbers",
        "_step_limit",
        "_strategy",
        "_ticks_taken",
        "cancel_by",
        "deviations",
        "injected",
        "left",
        "locations",
        "preemptions",
        "steps",
    )

    def __init__(
        self, strategy: Strategy, *, step_limit: int = 10_000, cancel_by: tuple[str, ...] = ()
    ) -> None:
        self._strategy = strategy
        self._step_limit = step_limit
        self.cancel_by = cancel_by
        self._numbers: dict[Name, int] = {}
        self._current: Name | None = None
        self._in_a_row = 0
        self._cancelled = 0
        self._known: set[Name] = set()
        self._exempt: set[Name] = set()
        self._ticks_taken = 0
        self.injected: Cancel | None = None
        self.steps: list[Step] = []
        self.deviations: Deviations = {}
        self.preemptions = 0
        self.left: Mapping[Name, Ready] = {}
        """Tasks that could still have run when the main task was over."""
        self.locations: list[str] | None = None
        """For each step, where the task stood after it; only if somebody asks, by a list."""

    def choose(self, ready: Mapping[Name, Ready], starting: Set[Name] = frozenset()) -> Choice:
        """Choose among the tasks that can run, or a cancellation; `CLOCK` if there is neither.

        A task that is `starting` is cancelled by way of who waits for that.

        Raises:
            LabError: the strategy's choice cannot run: the program is not the same any more.
        """
        current = self._current if self._current in ready else None
        slice_used = self._in_a_row >= SLICE and len(ready) > 1
        anchor = Anchor(
            self._current or CLOCK, self._numbers.get(self._current or CLOCK, 0), self._cancelled
        )
        by_rule = default(ready, current, slice_used)
        cancellable = self._cancellable(ready, starting) if self.cancel_by else ()
        point = Point(anchor, ready, current, slice_used, by_rule, cancellable, self.steps)
        choice = self._strategy.choose(point)
        if not isinstance(choice, Cancel) and choice not in (ready or (CLOCK,)):
            raise LabError(
                f"task {spell(choice)} cannot run where it could before; the program does not do "
                f"the same in the same schedule: does it depend on real time, on addresses, on "
                f"what an earlier execution left, or, under dpor, on state that it does not "
                f"declare?"
            )
        if choice != by_rule:
            self.deviations[anchor] = choice
        if isinstance(choice, Cancel):
            self.injected = choice
            self._cancelled += 1
        elif point.preempts(choice):
            self.preemptions += 1
            if slice_used:
                self._in_a_row = 0  # it goes on for as long again
        return choice

    def _cancellable(self, ready: Mapping[Name, Ready], starting: Set[Name]) -> tuple[Cancel, ...]:
        """A task may be cancelled once in an execution: as soon as it waits, and when it has been
        woken and has not run yet. One that has not begun waits nowhere yet."""
        if self.injected is not None:
            return ()
        latest = len(self.steps)
        tasks = {name for name, it in ready.items() if it.since >= latest - 1}
        if self._current is not None and self._current in self._known:
            tasks.add(self._current)
        begun = sorted(tasks & self._numbers.keys() - self._exempt - starting)
        return tuple(Cancel(task, by) for task in begun for by in self.cancel_by)

    @property
    def may_cancel(self) -> bool:
        """True if the lab may still cancel a task in this execution."""
        return bool(self.cancel_by) and self.injected is None

    def spawned(self, task: Name, *, exempt: bool) -> None:
        """A task is there; if it is spared, the lab does not cancel it."""
        self._known.add(task)
        if exempt:
            self._exempt.add(task)

    def ended(self, task: Name) -> None:
        """A task is over."""
        self._known.discard(task)

    def begin(self, task: Name, causes: int) -> Step:
        """A task runs. Raises `Livelock` at the limit."""
        if task in self._exempt and self._current == CLOCK:
            self._ticks_taken += 2  # the gc of pools ticks for as long as somebody sleeps
        taken = len(self.steps)
        if (
            taken - self._ticks_taken >= self._step_limit
            or taken >= self._step_limit * TICK_LIMIT_FACTOR
        ):
            raise Livelock
        number = self._numbers.get(task, 0) + 1
        self._numbers[task] = number
        step = Step(task, number, causes)
        self.steps.append(step)
        self._in_a_row = self._in_a_row + 1 if task == self._current else 1
        self._current = task
        self._cancelled = 0
        return step

    def stopped_at(self, location: str) -> None:
        """Note where the task stands after its step."""
        if self.locations is not None:
            self.locations.append(location)

    def jumped(self) -> int:
        """The clock has moved, for nothing could run; return the mask of what came before."""
        self.begin(CLOCK, 0)
        self.stopped_at("nothing else can run, so the clock moves on")
        return (1 << len(self.steps)) - 1


def spell_token(backend: str, deviations: Deviations) -> str:
    """One line that says how to do it again."""
    parts = []
    for anchor, choice in sorted(deviations.items()):
        where = f"{spell(anchor.task)}@{anchor.number}" + "'" * anchor.cancelled
        if isinstance(choice, Cancel):
            parts.append(f"{where}!{spell(choice.task)}/{choice.by}")
        else:
            parts.append(f"{where}>{spell(choice)}")
    return f"{backend}:{','.join(parts)}"


def parse_token(token: str) -> tuple[str, Deviations]:
    """The backend and the deviations of a token. Raises ValueError if it is none."""
    backend, colon, rest = token.partition(":")
    deviations: Deviations = {}
    try:
        if not colon or not backend:
            raise ValueError
        for part in filter(None, rest.split(",")):
            mark = "!" if "!" in part else ">"
            where, what = part.split(mark)
            bare = where.rstrip("'")
            task, number = bare.split("@")
            anchor = Anchor(_parse(task), int(number), len(where) - len(bare))
            if mark == ">":
                deviations[anchor] = _parse(what)
            else:
                target, by = what.split("/")
                if by not in ("scope", "native"):
                    raise ValueError
                deviations[anchor] = Cancel(_parse(target), by)
    except ValueError:
        raise ValueError(
            f"{token!r} is no token; expected what a failure's `token` says, such as "
            f"'asyncio:0.1@2>0.2'"
        ) from None
    return backend, deviations


def _parse(name: str) -> Name:
    if name == "clock":
        return CLOCK
    parsed = tuple(int(number) for number in name.split("."))
    if parsed[0] != MAIN[0]:
        raise ValueError
    return parsed
