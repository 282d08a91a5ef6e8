"""The strategies that need no declarations: fifo, random, PCT, exhaustive; and the replay of one
schedule.

A cancellation, where it is asked for, is a choice like any other, at most one in an execution.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable

from ._options import Options
from ._schedule import SLICE, Anchor, Cancel, Choice, Deviations, Point, Rule, Schedule
from ._steps import Name
from ._strategy import Strategy

__all__ = ["Exhaustive", "Fifo", "Pct", "Prefix", "Random", "Replay"]

Prefix = tuple[Rule, tuple[tuple[Anchor, Choice], ...]]
"""The rule and the deviations that lead to a part of the schedules not executed yet."""

UNBOUNDED_DELAYS = 2
"""The bound on delays where there is none on preemptions."""

PREFIXES = 16
"""Prefixes that make a worker's part, at most."""
FIRST_LENGTH = 20
"""Steps that an execution is taken to have until one has been seen."""


class Replay(Strategy):
    """Executes one given schedule.

    A deviation that does not fit, because the program has changed or other deviations were left
    out, is passed over and noted in `misfits`.
    """

    name = "replay"
    bound = "the one schedule of the token"

    def __init__(self, deviations: Deviations, rule: Rule) -> None:
        super().__init__()
        self.own_rule = rule
        self._deviations = deviations
        self._begun = False
        self.misfits: list[Anchor] = []
        self._used: set[Anchor] = set()

    def begin_own(self) -> bool:
        first, self._begun = not self._begun, True
        return first

    def choose_own(self, point: Point) -> Choice:
        choice = self._deviations.get(point.anchor)
        if choice is None:
            return point.default
        self._used.add(point.anchor)
        fits = choice in (point.cancellable if isinstance(choice, Cancel) else point.ready)
        if not fits:
            self.misfits.append(point.anchor)
            return point.default
        return choice

    def end_own(self, schedule: Schedule, failed: bool) -> None:
        self.misfits += [anchor for anchor in self._deviations if anchor not in self._used]


class Fifo(Strategy):
    """Runs the stock schedule; with cancellation, that one again with each cancellation."""

    name = "fifo"
    bound = "the one schedule that is first in, first out"
    own_rule = "stock"

    def __init__(self) -> None:
        super().__init__()
        self._pending: deque[tuple[Anchor, Cancel] | None] = deque([None])
        self._cancel: tuple[Anchor, Cancel] | None = None

    @classmethod
    def of(cls, options: Options) -> Fifo:
        return cls()

    def begin_own(self) -> bool:
        if not self._pending:
            self.complete = True
            return False
        self._cancel = self._pending.popleft()
        return True

    def choose_own(self, point: Point) -> Choice:
        if self._cancel is None:
            self._pending += [(point.anchor, cancel) for cancel in point.cancellable]
        elif self._cancel[0] == point.anchor and self._cancel[1] in point.cancellable:
            return self._cancel[1]
        return point.default

    def end_own(self, schedule: Schedule, failed: bool) -> None:
        self.complete = not self._pending


class _Seeded(Strategy):
    """A strategy of which each execution has a seed of its own, so that its seeds can be shared out
    to workers.

    Args:
        executions: how many schedules to choose.
        seed: of the first execution; the next has the next seed.
        stock_first: whether the stock schedule comes before them.
    """

    can_split = True

    def __init__(self, executions: int, seed: int, *, stock_first: bool = False) -> None:
        super().__init__(stock_first=stock_first)
        self._seeds = range(seed, seed + executions)
        self._random = random.Random()
        self._length = 0
        """The steps of the longest execution so far."""
        self._cancel_at = 0
        """The step from which a cancellation is injected as soon as one is possible."""

    def _next_seed(self) -> bool:
        if not self._seeds:
            return False
        seed, self._seeds = self._seeds[0], self._seeds[1:]
        self._random.seed(seed)
        return True

    def end_own(self, schedule: Schedule, failed: bool) -> None:
        self._length = max(self._length, len(schedule.steps))

    def _part(self, executions: int, seed: int) -> _Seeded:
        """Make a strategy of the same kind with other seeds."""
        raise NotImplementedError

    def split(self, executions: int) -> _Seeded | None:
        stock_first, self._stock_first = self._stock_first, False
        count = executions - stock_first
        seeds, self._seeds = self._seeds[:count], self._seeds[count:]
        if not seeds and not stock_first:
            return None
        part = self._part(len(seeds), seeds.start)
        part._length = self._length
        part._stock_first = stock_first
        return part

    def merge(self, part: Strategy) -> None:
        assert isinstance(part, _Seeded)
        self._length = max(self._length, part._length)


class Random(_Seeded):
    """Chooses every task that can run with the same probability."""

    name = "random"
    bound = "the schedules, chosen at random"

    @classmethod
    def of(cls, options: Options) -> Random:
        return cls(options.max_executions, options.seed, stock_first=True)

    def begin_own(self) -> bool:
        if not self._next_seed():
            return False
        self._cancel_at = self._random.randrange(max(self._length, FIRST_LENGTH))
        return True

    def choose_own(self, point: Point) -> Choice:
        if point.cancellable and len(point.steps) >= self._cancel_at:
            return self._random.choice(point.cancellable)
        if len(point.ready) <= 1:
            return point.default
        return self._random.choice(sorted(point.ready))

    def _part(self, executions: int, seed: int) -> Random:
        return Random(executions, seed)


class Pct(_Seeded):
    """Probabilistic concurrency testing (Burckhardt and others, 2010): random priorities, and
    `depth` - 1 places, chosen at random, where the running task is demoted below all others.

    A bug that needs `depth` ordering constraints is found in one execution with a probability of at
    least 1 / (n k^(depth - 1)), for n tasks and k steps. The stock schedule measures k; without it
    the first execution does, and demotes no task.

    Args:
        executions: how many schedules to choose.
        seed: of the first execution; the next has the next seed.
        depth: the number of ordering constraints of the bugs that are looked for.
        stock_first: whether the stock schedule comes before them.
    """

    name = "pct"

    def __init__(
        self, executions: int, seed: int, depth: int, *, stock_first: bool = False
    ) -> None:
        super().__init__(executions, seed, stock_first=stock_first)
        self._depth = depth
        self._priorities: dict[Name, float] = {}
        self._changes: list[int] = []
        """The steps at which the running task is still to be demoted."""
        self._lowest = 0.0

    @classmethod
    def of(cls, options: Options) -> Pct:
        return cls(options.max_executions, options.seed, options.depth, stock_first=True)

    @property
    def bound(self) -> str:
        return f"the schedules, by PCT to {self._depth}"

    def begin_own(self) -> bool:
        if not self._next_seed():
            return False
        self._priorities.clear()
        self._lowest = 0.0
        count = min(self._depth - 1, self._length)
        self._changes = sorted(self._random.sample(range(1, self._length + 1), count))
        self._cancel_at = self._random.randrange(max(self._length, 1))
        return True

    def choose_own(self, point: Point) -> Choice:
        if point.cancellable and len(point.steps) >= self._cancel_at:
            return self._random.choice(point.cancellable)
        if not point.ready:
            return point.default
        for name in sorted(point.ready.keys() - self._priorities.keys()):
            self._priorities[name] = 1.0 + self._random.random()
        best = max(point.ready, key=self._priorities.__getitem__)
        if self._changes and len(point.steps) >= self._changes[0]:
            self._changes.pop(0)
            best = self._demote(best, point)
        elif point.slice_used and best == point.current:
            best = self._demote(best, point)  # it spins, and by its priority it would for ever
        return best

    def _demote(self, name: Name, point: Point) -> Name:
        """Put a task below all others; return the task that has the highest priority then."""
        self._lowest -= 1.0  # each below the one before, or two demotions would undo each other
        self._priorities[name] = self._lowest
        return max(point.ready, key=self._priorities.__getitem__)

    def _part(self, executions: int, seed: int) -> Pct:
        return Pct(executions, seed, self._depth)


class Exhaustive(Strategy):
    """Executes every schedule within a bound, those with the fewest deviations first.

    Two kinds of schedules are within the bound:

    - Under the run-on rule, those with at most `max_preemptions` preemptions. To preempt is to run
      another task while the one that ran could go on, or to let a task go on that has run for
      `SLICE` steps while others wait. Where the task that ran cannot go on, each task that can run
      is tried, which costs nothing.
    - Under the stock rule, if `max_delays` is given, those with at most so many delays. To delay is
      to run another task than the one that became ready first.

    Each kind has schedules that are far away from the other, so both are needed. With cancellation,
    each of these schedules is executed, and each again with one cancellation at every place for it,
    which is a deviation, too.

    Without a bound on preemptions a task is not let go on beyond its slice, since a task that spins
    could go on for ever: `truncated` is then True.

    Args:
        max_preemptions: the bound under the run-on rule; None is no bound.
        max_delays: the bound under the stock rule; None leaves these schedules out.
        prefixes: the parts of the schedules to execute; by default all.
    """

    name = "exhaustive"
    can_split = True

    def __init__(
        self,
        max_preemptions: int | None,
        max_delays: int | None = None,
        prefixes: Iterable[Prefix] | None = None,
    ) -> None:
        super().__init__()
        self._max_preemptions = max_preemptions
        self._max_delays = max_delays
        self._pending: list[deque[Prefix]] = []
        """By the number of their deviations."""
        if prefixes is None:
            roots: tuple[Prefix, ...] = (("run-on", ()),)
            prefixes = roots if max_delays is None else (*roots, ("stock", ()))
        for prefix in prefixes:
            self._push(prefix)
        self._deviations: Deviations = {}
        self._prefix: Prefix = ("run-on", ())
        self._left = 0
        """Deviations of the prefix that are still to come."""
        self._cost = 0
        """Preemptions or delays of the execution so far."""
        self.truncated = False
        """True if schedules were left out in which a task takes more steps in a row."""

    @classmethod
    def of(cls, options: Options) -> Exhaustive:
        most = options.max_preemptions
        return cls(most, UNBOUNDED_DELAYS if most is None else most)

    @property
    def rule(self) -> Rule:
        return self._prefix[0]

    @property
    def bound(self) -> str:
        bound = "the schedules"
        most = self._max_preemptions
        if most is not None:
            bound += f" of at most {plural(most, 'preemption')}"
            if self._max_delays is not None:
                bound += f", and those of at most {plural(self._max_delays, 'delay')}"
        if self.truncated:
            bound += (
                f" in which no task that others wait for takes more than {SLICE} steps in a row"
            )
        return bound

    def _push(self, prefix: Prefix) -> None:
        deviations = len(prefix[1])
        while len(self._pending) <= deviations:
            self._pending.append(deque())
        self._pending[deviations].append(prefix)

    def begin_own(self) -> bool:
        for prefixes in self._pending:
            if prefixes:
                self._prefix = prefixes.pop()
                self._deviations = dict(self._prefix[1])
                self._left = len(self._deviations)
                self._cost = 0
                return True
        self.complete = True
        return False

    def choose_own(self, point: Point) -> Choice:
        choice: Choice = self._deviations.get(point.anchor, point.default)
        if self._left:
            self._left -= choice != point.default
        elif len(point.ready) > 1 or point.cancellable:
            self._branch(point)
        self._cost += self._cost_of(point, choice)
        return choice

    def _cost_of(self, point: Point, choice: Choice) -> bool:
        if isinstance(choice, Cancel):
            return False
        return choice != point.default if point.rule == "stock" else point.preempts(choice)

    def _branch(self, point: Point) -> None:
        """Note what else can be chosen here, as far as the bound allows."""
        rule, deviations = self._prefix
        most = self._max_delays if rule == "stock" else self._max_preemptions
        choices: list[Choice] = [*point.cancellable, *sorted(point.ready, reverse=True)]
        for choice in choices:
            if choice == point.default:
                continue
            if most is None and point.slice_used and choice == point.current:
                self.truncated = True
            elif most is None or self._cost + self._cost_of(point, choice) <= most:
                self._push((rule, (*deviations, (point.anchor, choice))))

    def end_own(self, schedule: Schedule, failed: bool) -> None:
        self.complete = not any(self._pending)

    def split(self, executions: int) -> Exhaustive | None:
        part: list[Prefix] = []
        for prefixes in self._pending:
            while prefixes and len(part) < min(executions, PREFIXES):
                part.append(prefixes.pop())
        if not part:
            return None
        part.reverse()  # so that it is executed in the order in which it would have been here
        return Exhaustive(self._max_preemptions, self._max_delays, part)

    def merge(self, part: Strategy) -> None:
        assert isinstance(part, Exhaustive)
        for prefixes in part._pending:
            for prefix in prefixes:
                self._push(prefix)
        self.truncated = self.truncated or part.truncated
        self.complete = not any(self._pending)


def plural(number: int, noun: str) -> str:
    """Return a number with its noun: "1 delay", "2 delays"."""
    return f"{number} {noun}{'s' * (number != 1)}"
