"""The schedule of one execution: which task runs next, asked of a strategy at every step.

Where a strategy has no reason to choose otherwise, a *rule* decides. There are three:

- ``stock`` is the order that the backend itself takes: the task runs that became ready first. On
  asyncio that is what `asyncio.run` does. trio runs the tasks that are ready at one time in a
  random order; this is one of its orders.
- ``run-on`` lets the task that runs go on for as long as it can, up to `SLICE` steps in a row, so
  that a task that spins cannot keep out the others. If it cannot go on, the task runs that has been
  ready for the longest, and of those that became ready in the same step the one that was spawned
  first.
- ``eager`` is the same, but callbacks of asyncio never wait for the step of a task. `Dpor` needs
  that, because what a callback comes after must not depend on which other tasks can run.

A schedule is given by its rule and by its *deviations* from the rule. Each deviation is anchored to
a step of a task, not to a position in the schedule, so that the others keep their meaning when one
is left out. This is what a token spells.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from functools import partial
from typing import Literal, NamedTuple, Protocol

from ._cancellable import Origin, Policy
from ._options import SLICE_STEPS, STEP_LIMIT, CancelWay
from ._outcome import NotTheSame
from ._steps import CLOCK, MAIN, Name, Step, spell
from ._stillness import Stillness

__all__ = [
    "SLICE",
    "Anchor",
    "Cancel",
    "Choice",
    "Deviations",
    "Livelock",
    "Pick",
    "Point",
    "Ready",
    "Rule",
    "Schedule",
    "Stop",
    "default_choice",
    "new_ready",
    "stock_choice",
]

Rule = Literal["stock", "run-on", "eager"]
"""What decides where a strategy does not."""

SLICE = SLICE_STEPS
"""Steps in a row after which a task that is still ready stands back for the others."""

TICK_LIMIT_FACTOR = 100
"""Steps of the clock and of services have a limit of their own: this many times the step limit. A
service that ticks takes steps for as long as another task sleeps."""


class Stop(Exception):
    """Raised by a strategy to end an execution that can show nothing new; it is no error."""


class Livelock(Exception):
    """The execution took more steps than the limit."""


class Anchor(NamedTuple):
    """A place in a schedule: after a task's step of that number, and after so many cancellations
    that the lab has injected there already; or a call of `choose` inside of that step."""

    task: Name
    number: int
    cancelled: int
    """The cancellations before it; -1 for the first call of `choose` in the step, and so on."""


class Cancel(NamedTuple):
    """The choice to cancel a task that waits, or that is ready to go on."""

    task: Name
    by: CancelWay


class Pick(NamedTuple):
    """The choice of one of the values that the program offers by `choose`."""

    which: int
    """The index of the value; 0 is what the stock schedule takes."""


Choice = Name | Cancel | Pick
Deviations = dict[Anchor, Choice]


class Ready(NamedTuple):
    """A task that can run."""

    since: int
    """The number of steps taken when it became ready."""
    causes: int
    """The steps that it had to wait for, as a mask."""
    order: int = 0
    """Its place among all that became ready in this execution, for the stock rule. Tasks of the
    same place run in the order of their names."""


class Point(NamedTuple):
    """A place where the schedule has to choose."""

    anchor: Anchor
    ready: Mapping[Name, Ready]
    current: Name | None
    """The task that ran last, if it can go on."""
    slice_used: bool
    """True if `current` has run for `SLICE` steps, so that under the run-on rule another task takes
    over by default."""
    default: Name
    """What the rule chooses."""
    cancellable: tuple[Cancel, ...]
    """The cancellations that the lab may inject here."""
    steps: list[Step]
    """The steps taken so far."""
    rule: Rule = "run-on"
    slices: int = 0
    """How many slices in a row `current` has used up, if `slice_used`."""

    def preempts(self, choice: Choice) -> bool:
        """Return True if the choice keeps a task from going on whose turn it is: the task that
        runs, or, once that has used up its slice, the others."""
        if self.current is None:
            return False
        return choice == self.current if self.slice_used else choice != self.current


# A named tuple's own `__new__` is a function of Python that calls this one.
new_ready: Callable[[tuple[int, int, int]], Ready] = partial(tuple.__new__, Ready)
"""Make a `Ready` of all of its fields."""
_new_anchor: Callable[[tuple[Name, int, int]], Anchor] = partial(tuple.__new__, Anchor)
_new_point: Callable[[tuple[object, ...]], Point] = partial(tuple.__new__, Point)


class Chooser(Protocol):
    """The part of a strategy that a schedule asks."""

    @property
    def rule(self) -> Rule:
        """What decides, in this execution, where the strategy does not."""

    @property
    def only_choices(self) -> bool:
        """True if it need not be asked, in this execution, where there is only one possibility."""

    def choose(self, point: Point) -> Choice:
        """Choose at one point. May raise `Stop`."""

    def pick(self, anchor: Anchor, count: int, *, costs: bool = False) -> int:
        """Choose one of `count` values; return its index. The program offers them, or the lab
        does; then each but the first may cost a preemption, or a delay."""


def stock_choice(ready: Mapping[Name, Ready]) -> Name:
    """Return what the stock rule chooses; `CLOCK` if no task can run."""
    if len(ready) == 1:
        return next(iter(ready))
    first, order = CLOCK, math.inf
    for name, it in ready.items():
        if it.order < order or (it.order == order and name < first):
            first, order = name, it.order
    return first


def default_choice(ready: Mapping[Name, Ready], current: Name | None, slice_used: bool) -> Name:
    """Return what the run-on rule chooses; `CLOCK` if no task can run."""
    if not ready:
        return CLOCK
    if current is not None and not slice_used:
        return current
    first, since = CLOCK, math.inf
    for name, it in ready.items():
        at = it.since
        # Names are slow to compare, so this is asked last.
        if (at < since or (at == since and name < first)) and name != current:
            first, since = name, at
    return first


class Schedule:
    """One execution: a backend asks it at every step; it asks its strategy, and notes the answer.

    Args:
        strategy: chooses.
        step_limit: the number of steps from which the execution is a livelock.
        cancel_by: the ways in which the lab may cancel a task.
        cancel_times: how often it may in one execution.
        mid_wait: whether it may cancel a task in the middle of a wait.
        policy: which tasks it may cancel; None is all.
    """

    __slots__ = (
        "_cancelled",
        "_closed",
        "_could_run",
        "_current",
        "_exempt",
        "_in_a_row",
        "_known",
        "_mid_wait",
        "_not_entered",
        "_numbers",
        "_only_choices",
        "_origins",
        "_permitted",
        "_picked",
        "_serving",
        "_slices",
        "_strategy",
        "_ticks_taken",
        "cancel_by",
        "cancel_times",
        "chose",
        "defaults",
        "deviations",
        "has_places",
        "injected",
        "left",
        "locations",
        "outlived",
        "picks",
        "policy",
        "preemptions",
        "ready_sets",
        "rule",
        "signals",
        "spared",
        "starts",
        "step_limit",
        "steps",
        "stillness",
        "threaded",
        "timed",
        "times",
        "titles",
        "unscheduled",
    )

    def __init__(
        self,
        strategy: Chooser,
        *,
        step_limit: int = STEP_LIMIT,
        cancel_by: tuple[CancelWay, ...] = (),
        cancel_times: int = 1,
        mid_wait: bool = False,
        policy: Policy | None = None,
    ) -> None:
        self._strategy = strategy
        self._only_choices = strategy.only_choices
        self.rule: Rule = strategy.rule
        self.step_limit: int = step_limit
        self.cancel_by: tuple[CancelWay, ...] = cancel_by
        self._numbers: dict[Name, int] = {}
        self._current: Name | None = None
        self._in_a_row = 0
        self._slices = 0
        """Slices that the task that runs has used up in a row, and then gone on."""
        self._cancelled = 0
        self._known: set[Name] = set()
        self._exempt: set[Name] = set()
        self._serving: set[Name] = set()
        """The tasks that serve threads."""
        self._ticks_taken = 0
        self._not_entered: set[Name] = set()
        self._closed = False
        self._picked = 0
        """Calls of `choose` in the step that runs."""
        self._mid_wait = mid_wait
        self._origins: dict[Name, Origin | None] = {}
        self._permitted: dict[Name, bool] = {}
        self.cancel_times: int = cancel_times
        self.policy: Policy | None = policy
        self.injected: list[Cancel] = []
        """The cancellations so far."""
        self.spared: set[Name] = set()
        """The tasks that could have been cancelled, but not under the policy."""
        self.picks: dict[Anchor, str] = {}
        """The values that the program was given by `choose`."""
        self.stillness: Stillness = Stillness(step_limit)
        """The steps at one moment, which tell when the program waits for the clock to move."""
        self.starts: dict[Anchor, str] = {}
        """The threads that ran in the middle of a step of the event loop, in words."""
        self.steps: list[Step] = []
        self.deviations: Deviations = {}
        self.defaults: dict[Anchor, Name] = {}
        """For each deviation, what the rule would have chosen."""
        self.preemptions: int = 0
        self.left: Mapping[Name, Ready] = {}
        """The tasks that could still have run when the main task was over."""
        self.locations: list[str] | None = None
        """For each step, where the task stood after it; only if `record` was called."""
        self.times: list[float] = []
        """For each step, the virtual time after it in seconds; only if `record` was called."""
        self.ready_sets: list[tuple[Name, ...]] | None = None
        """For each step, the tasks that could run before it; only if `record` was called."""
        self._could_run: tuple[Name, ...] = ()
        """The same at the last choice."""
        self.chose: bool = False
        """True once there was more than one possibility."""
        self.titles: dict[Name, str] = {}
        """What each task of the program is called."""
        self.threaded: bool = False
        """True once the program has started a thread, which runs as a task."""
        self.has_places: bool = False
        """True once something else than a step stood among the steps that could run: a plain
        callback, a thread, or the end of the program. The stock rule keeps its place there; the
        run-on rule does not."""
        self.timed: bool = False
        """True once the clock moved to one deadline while a later one was set."""
        self.outlived: set[str] = set()
        """The threads that had not ended when the program had."""
        self.signals: bool = False
        """True once the program has set a handler of a signal."""
        self.unscheduled: set[str] = set()
        """What the program has called for that the schedule cannot choose, in words."""

    def record(self) -> None:
        """Note, for each step, where its task stands after it, and what could run before it."""
        self.locations, self.ready_sets = [], []

    def choose(self, ready: Mapping[Name, Ready], starting: Set[Name] = frozenset()) -> Choice:
        """Choose among the tasks that can run, or a cancellation; `CLOCK` if there is neither.

        A task that is `starting` is not cancelled by itself: the task that waits for its start is.

        Raises:
            NotTheSame: the strategy's choice cannot run, so the program is not the same any more.
        """
        cancellable = self._cancellable(ready, starting) if self.cancel_by else ()
        if self.ready_sets is not None:
            self._could_run = tuple(sorted(ready))
        if len(ready) > 1 or cancellable:
            self.chose = True
        elif self._only_choices:
            self._in_a_row = self._slices = 0
            return next(iter(ready)) if ready else CLOCK
        current = self._current if self._current in ready else None
        last = self._current or CLOCK
        anchor = _new_anchor((last, self._numbers.get(last, 0), self._cancelled))
        slice_used = self._in_a_row >= SLICE and len(ready) > 1
        if self.rule == "stock":
            default = stock_choice(ready)
        else:
            default = default_choice(ready, current, slice_used)
        if len(ready) <= 1:
            self._in_a_row = self._slices = 0  # no other task is kept waiting
        point = _new_point(
            (
                anchor,
                ready,
                current,
                slice_used,
                default,
                cancellable,
                self.steps,
                self.rule,
                self._slices + 1,
            )
        )
        choice = self._strategy.choose(point)
        if choice != default:
            self._deviates(point, choice)
        if current is not None and type(choice) is not Cancel and point.preempts(choice):
            self.preemptions += 1
            if slice_used:
                self._in_a_row = 0  # the task goes on for another slice
                self._slices += 1
        return choice

    def _deviates(self, point: Point, choice: Choice) -> None:
        """Note that the strategy does not choose as the rule."""
        assert not isinstance(choice, Pick)
        if isinstance(choice, Cancel):
            self.injected.append(choice)
            self._cancelled += 1
        elif choice not in (point.ready or (CLOCK,)):
            raise NotTheSame(
                f"task {spell(choice)} cannot run where it could before; the program does not do "
                f"the same in the same schedule: does it depend on real time, on addresses, on "
                f"what an earlier execution left, or, under dpor, on state that it does not "
                f"declare, such as which tasks there are (docs/lab.md has the list)?"
            )
        self.deviations[point.anchor] = choice
        self.defaults[point.anchor] = point.default

    def _cancellable(self, ready: Mapping[Name, Ready], starting: Set[Name]) -> tuple[Cancel, ...]:
        """Return the cancellations that are possible here.

        The lab cancels a task as soon as it waits, or when it has been woken and has not run yet,
        until one other step has run; or anywhere in between if it was asked to. A task that has not
        begun waits nowhere yet.
        """
        if len(self.injected) >= self.cancel_times:
            return ()
        if self._mid_wait:
            tasks = set(self._known)
        else:
            latest = len(self.steps)
            tasks = {name for name, it in ready.items() if it.since >= latest - 1}
            if self._current is not None and self._current in self._known:
                tasks.add(self._current)
        begun = sorted(tasks & self._numbers.keys() - self._exempt - starting)
        if self.policy is not None:
            begun = [task for task in begun if self._permits(self.policy, task)]
        return tuple(
            cancel
            for task in begun
            for by in self.cancel_by
            if (cancel := Cancel(task, by)) not in self.injected or by == "native"
        )

    def _permits(self, policy: Policy, task: Name) -> bool:
        permitted = self._permitted.get(task)
        if permitted is None:
            permitted = policy.permits(task, self.titles[task], self._origins[task])
            self._permitted[task] = permitted
        if permitted and policy.spares(self._origins[task]):
            permitted = self._permitted[task] = False
        if not permitted:
            self.spared.add(task)
        return permitted

    def pick(self, values: Sequence[str]) -> int:
        """Choose one of the values that the program offers in the step that runs.

        Returns its index. The texts of the values are for the report.
        """
        anchor, index = self._pick(len(values), costs=False)
        self.picks[anchor] = values[index]
        return index

    def runs_at_once(self, thread: str, *, between: bool = False) -> bool:
        """Choose whether a thread that can run does so in the middle of the step that runs, or
        before a callback or the timers that come after it."""
        if self._closed:
            return False
        anchor, runs = self._pick(2, costs=True)
        if runs:
            where = "in the middle of this step"
            if between:
                where = "before a callback that comes after this step"
                if anchor.task == CLOCK:
                    where = "before the timers of this moment"
            self.starts[anchor] = f"{thread} runs {where}"
        return bool(runs)

    def timers_wait(self) -> bool:
        """Choose whether the timers of this moment fire only when nothing else can run, because a
        thread that ran before them was that much earlier."""
        if self._closed:
            return False
        anchor, waits = self._pick(2, costs=True)
        if waits:
            self.starts[anchor] = "the timers of this moment fire when nothing else can run"
        return bool(waits)

    def _pick(self, count: int, *, costs: bool) -> tuple[Anchor, int]:
        """Choose one of `count` possibilities in the middle of the step that runs."""
        task = self._current or MAIN
        self._picked += 1
        anchor = Anchor(task, self._numbers.get(task, 0), -self._picked)
        index = self._strategy.pick(anchor, count, costs=costs)
        self.chose = self.chose or count > 1
        if index:
            self.deviations[anchor] = Pick(index)
        return anchor, index

    @property
    def is_stock(self) -> bool:
        """True if it is, up to here, the one that the backend itself takes."""
        return self.rule == "stock" and not self.deviations

    @property
    def may_cancel(self) -> bool:
        """True if the lab may still cancel a task in this execution."""
        return bool(self.cancel_by) and len(self.injected) < self.cancel_times

    @property
    def ran(self) -> Set[Name]:
        """The tasks that have taken a step in which their code ran."""
        return self._numbers.keys() - self._not_entered

    @property
    def this_step(self) -> int:
        """The last step that was begun, as a mask."""
        return 1 << len(self.steps) - 1

    def never_entered(self, task: Name) -> None:
        """Note that a task was cancelled before its first step, so that its code never runs."""
        self._not_entered.add(task)

    def close(self) -> None:
        """Note that the program has ended: tasks that are made from now on are not its own."""
        self._closed = True

    def spawned(
        self,
        task: Name,
        title: str,
        *,
        exempt: bool,
        serves_thread: bool = False,
        origin: Origin | None = None,
    ) -> None:
        """Note that a task was made, and by which one; the lab does not cancel it if it is exempt,
        or if it serves a thread."""
        if self._closed:
            return
        self._known.add(task)
        self.titles[task] = title
        self._origins[task] = origin
        if exempt or serves_thread:
            self._exempt.add(task)
        if serves_thread:
            self._serving.add(task)

    def renamed(self, task: Name, title: str) -> None:
        """Note that a task was given another name."""
        if task in self.titles:
            self.titles[task] = title

    def exempt(self, task: Name) -> None:
        """Note that the lab does not cancel a task."""
        self._exempt.add(task)

    def no_end(self, rounds: int = 0) -> str:
        """Return what a livelock is told by; of callbacks there were so many rounds since a task
        could run."""
        what = f"{len(self.steps)} steps"
        if rounds > self.step_limit:
            what = f"callbacks called for each other {rounds:,} times, while no task could run"
        return (
            f"{what}, and no end; if the program needs more of them, raise "
            f"step_limit ({self.step_limit})"
        )

    def note_left(self, threads: Iterable[str]) -> None:
        """Note which threads had not ended when the program had."""
        self.outlived.update(threads)

    def ended(self, task: Name) -> None:
        """Note that a task is over."""
        self._known.discard(task)

    def begin(self, task: Name, causes: int) -> Step:
        """Note that a task takes a step, which had to wait for the steps of a mask.

        Raises:
            Livelock: the execution has reached its limit of steps.
        """
        if task in self._exempt and self._current == CLOCK:
            # The jump of the clock, and the step of a service; but that of a thread is one of the
            # program's own.
            self._ticks_taken += 1 if task in self._serving else 2
        taken = len(self.steps)
        if taken >= self.step_limit and (
            taken - self._ticks_taken >= self.step_limit
            or taken >= self.step_limit * TICK_LIMIT_FACTOR
        ):
            raise Livelock
        number = self._numbers.get(task, 0) + 1
        self._numbers[task] = number
        step = Step(task, number, causes)
        self.steps.append(step)
        if task == self._current:
            self._in_a_row += 1
        else:
            self._in_a_row, self._slices = 1, 0
        self._current = task
        self._cancelled = self._picked = 0
        return step

    def stopped_at(self, location: str, now: float = 0.0) -> None:
        """Note where the task stands after its step, and the virtual time."""
        if self.locations is not None and self.ready_sets is not None:
            self.locations.append(location)
            # The clock moves when no task can run; it is not always asked then.
            self.ready_sets.append(() if self._current == CLOCK else self._could_run)
            self.times.append(now)

    def jumped(self) -> int:
        """Note that the clock moves to a timer; return the mask of all steps so far, which come
        before whatever the jump makes ready."""
        self.begin(CLOCK, 0)
        polls = self.stillness.ends(len(self.steps))
        why = "the program asks again and again" if polls else "nothing else can run"
        self.stopped_at(f"{why}, so the clock moves on")
        return (1 << len(self.steps)) - 1

    def moved_to(self, now: float) -> None:
        """Note the virtual time after the step in which the clock moved."""
        if self.times:
            self.times[-1] = now
