"""The strategies that need no declarations: fifo, random, PCT, exhaustive; and the replay of one
schedule.

A cancellation, where it is asked for, is a choice like any other, at most one in an execution.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from random import Random as Generator  # a test may patch the name in `random`

from ._options import Options
from ._outcome import NotTheSame
from ._schedule import SLICE, Anchor, Cancel, Choice, Deviations, Pick, Point, Rule, Schedule
from ._steps import Name, spell
from ._strategy import Strategy, in_slices

__all__ = ["Exhaustive", "Fifo", "Follow", "Pct", "Prefix", "Random", "Replay"]

Prefix = tuple[Rule, tuple[tuple[Anchor, Choice], ...]]
"""The rule and the deviations that lead to a part of the schedules not executed yet."""

UNBOUNDED_DELAYS = 2
"""Without a bound: schedules of more delays than these are executed only once `Schedule.has_places`
says that they can show something new."""

STARVES = 100
"""Steps after which a task that could run starves under the priorities of `Pct`. No event loop
passes a task over for so long."""
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
        self.own_rule: Rule = rule
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
        able = point.cancellable if isinstance(choice, Cancel) else point.ready
        fits = not isinstance(choice, Pick) and choice in able
        if not fits:
            self.misfits.append(point.anchor)
            return point.default
        return choice

    def pick_own(self, anchor: Anchor, count: int, *, costs: bool) -> int:
        choice = self._deviations.get(anchor)
        if not isinstance(choice, Pick):
            return 0
        self._used.add(anchor)
        if choice.which >= count:
            self.misfits.append(anchor)
            return 0
        return choice.which

    def end_own(self, schedule: Schedule, failed: bool) -> None:
        self.misfits += [anchor for anchor in self._deviations if anchor not in self._used]


class Follow(Strategy):
    """Executes the tasks in a given order, under another rule than that of the execution it was
    taken from. So the same order is told by other deviations, perhaps by fewer.

    Args:
        order: the tasks of all steps.
        deviations: those of that execution; the cancellations among them are injected again.
        rule: from which the deviations are counted now.
    """

    name = "follow"
    bound = "the one schedule of that order"

    def __init__(self, order: Sequence[Name], deviations: Deviations, rule: Rule) -> None:
        super().__init__()
        self.own_rule: Rule = rule
        self._order = order
        self._deviations = deviations
        self._begun = False

    def begin_own(self) -> bool:
        first, self._begun = not self._begun, True
        return first

    def choose_own(self, point: Point) -> Choice:
        choice = self._deviations.get(point.anchor)
        if isinstance(choice, Cancel) and choice in point.cancellable:
            return choice
        step = len(point.steps)
        task = self._order[step] if step < len(self._order) else point.default
        return task if task in point.ready else point.default

    def pick_own(self, anchor: Anchor, count: int, *, costs: bool) -> int:
        choice = self._deviations.get(anchor)
        return choice.which if isinstance(choice, Pick) and choice.which < count else 0

    def end_own(self, schedule: Schedule, failed: bool) -> None:
        pass


class Fifo(Strategy):
    """Runs the stock schedule; with cancellation, that one again with each cancellation."""

    name = "fifo"
    only_choices = True
    bound = "the one schedule that is first in, first out"
    own_rule: Rule = "stock"

    def __init__(self) -> None:
        super().__init__()
        self._pending: deque[tuple[tuple[Anchor, Cancel], ...]] = deque([()])
        """The cancellations of the executions to come."""
        self._cancels: tuple[tuple[Anchor, Cancel], ...] = ()
        self._done = 0
        """How many of them this execution has had."""

    @classmethod
    def of(cls, options: Options) -> Fifo:
        return cls()

    def begin_own(self) -> bool:
        if not self._pending:
            self.complete = True
            return False
        self._cancels = self._pending.popleft()
        self._done = 0
        return True

    def choose_own(self, point: Point) -> Choice:
        if self._done == len(self._cancels):
            self._pending += [
                (*self._cancels, (point.anchor, cancel)) for cancel in point.cancellable
            ]
        else:
            anchor, cancel = self._cancels[self._done]
            if anchor == point.anchor and cancel in point.cancellable:
                self._done += 1
                return cancel
        return point.default

    def end_own(self, schedule: Schedule, failed: bool) -> None:
        self.complete: bool = not self._pending


class _Seeded(Strategy):
    """A strategy of which each execution has a seed of its own, so that its seeds can be shared out
    to workers.

    Args:
        executions: how many schedules to choose.
        seed: of the first execution; the next has the next seed.
        stock_first: whether the stock schedule comes before them.
    """

    can_split = True
    by_chance = True

    def __init__(self, executions: int, seed: int, *, stock_first: bool = False) -> None:
        super().__init__(stock_first=stock_first)
        self._seeds = range(seed, seed + executions)
        self._random = Generator()
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

    def _cancel(self, point: Point) -> Cancel | None:
        """Choose a cancellation if it is time for one; then choose when the next one comes."""
        taken = len(point.steps)
        if taken < self._cancel_at:
            return None
        self._cancel_at = taken + self._random.randrange(max(self._length, FIRST_LENGTH))
        return self._random.choice(point.cancellable)

    def pick_own(self, anchor: Anchor, count: int, *, costs: bool) -> int:
        return self._random.randrange(count)

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
    only_choices = True
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
        if point.cancellable:
            cancel = self._cancel(point)
            if cancel is not None:
                return cancel
            if len(point.ready) <= 1:
                return point.default
        return self._random.choice(sorted(point.ready))

    def _part(self, executions: int, seed: int) -> Random:
        return Random(executions, seed)


class Pct(_Seeded):
    """Probabilistic concurrency testing (Burckhardt and others, 2010): random priorities, and
    `depth` - 1 places, chosen at random, where the running task is demoted below all others.

    A bug that needs `depth` ordering constraints is found in one execution with a probability of at
    least 1 / (n k^(depth - 1)), for n tasks and k steps, unless a task that could run has to be
    passed over for more than `STARVES` steps. The stock schedule measures k; without it
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
        if point.cancellable:
            cancel = self._cancel(point)
            if cancel is not None:
                return cancel
        if not point.ready:
            return point.default
        if not point.ready.keys() <= self._priorities.keys():
            for name in sorted(point.ready.keys() - self._priorities.keys()):
                self._priorities[name] = 1.0 + self._random.random()
        best = max(point.ready, key=self._priorities.__getitem__)
        if self._changes and len(point.steps) >= self._changes[0]:
            self._changes.pop(0)
            best = self._demote(best, point)
        elif point.slice_used and best == point.current:
            best = self._demote(best, point)  # it spins, and by its priority it would for ever
        elif len(point.steps) % STARVES == 0:
            # Tasks that wake each other in turn may keep another one from running for ever.
            oldest = min(point.ready, key=lambda name: point.ready[name].since)
            if best != oldest and point.ready[oldest].since <= len(point.steps) - STARVES:
                best = self._demote(best, point)
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

    Each kind has schedules that are far away from the other, so both are needed. Without a bound on
    preemptions, the first kind has every order of steps. Then there is none on delays either, once
    something else than a step has been seen to have a place among the steps
    (`Schedule.has_places`); before that, more than `UNBOUNDED_DELAYS` would show nothing new.

    With cancellation, each of these schedules is executed, and each again with one cancellation at
    every place for it, which is a deviation, too.

    Without a bound on preemptions a task is not let go on beyond that, since a task that spins
    could go on for ever. `truncated` is True once a task had to stand back: schedules may be left
    out then in which it takes more steps in a row.

    Args:
        max_preemptions: the bound under the run-on rule; None is no bound.
        max_delays: the bound under the stock rule; None leaves these schedules out.
        prefixes: the parts of the schedules to execute; by default all.
        slice_steps: rounded up to whole slices.
    """

    name = "exhaustive"
    only_choices = True
    can_split = True

    def __init__(
        self,
        max_preemptions: int | None,
        max_delays: int | None = None,
        prefixes: Iterable[Prefix] | None = None,
        *,
        slice_steps: int = SLICE,
    ) -> None:
        super().__init__()
        self._slices = -(-slice_steps // SLICE)
        """Slices after which a task stands back."""
        self._max_preemptions = max_preemptions
        self._max_delays = max_delays
        self._pending: list[deque[Prefix]] = []
        """By the number of their deviations."""
        self._far: list[Prefix] = []
        """Where there is no bound: what needs more delays, as long as no places were seen."""
        self._has_places = False
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
        self._survey: _Survey | None = None

    @classmethod
    def of(cls, options: Options) -> Exhaustive:
        most = options.max_preemptions
        delays = UNBOUNDED_DELAYS if most is None else most
        return cls(most, delays, slice_steps=options.slice_steps)

    @property
    def rule(self) -> Rule:
        return self._prefix[0]

    @property
    def bound(self) -> str:
        bound = "the schedules"
        most = self._max_preemptions
        if most is not None:
            bound += f" of at most {plural(most, 'preemption')}"
        if self.truncated:
            bound += f" {in_slices(self._slices)}"
        if most is not None and self._max_delays is not None:
            bound += f", and those of at most {plural(self._max_delays, 'delay')}"
        return bound

    def _push(self, prefix: Prefix) -> None:
        deviations = len(prefix[1])
        while len(self._pending) <= deviations:
            self._pending.append(deque())
        self._pending[deviations].append(prefix)

    def begin_own(self) -> bool:
        prefix = self._next_prefix() if self._survey is None else self._survey.next(self._pending)
        if prefix is None:
            self.complete = True
            return False
        self._prefix = prefix
        self._deviations = dict(prefix[1])
        self._left = len(self._deviations)
        self._cost = 0
        return True

    def _next_prefix(self) -> Prefix | None:
        return next((prefixes.pop() for prefixes in self._pending if prefixes), None)

    def survey(self) -> None:
        if self._survey is None:
            self._survey = _Survey(sum(map(len, self._pending)))

    @property
    def left(self) -> int | None:
        if self._survey is None or self._survey.left is None:
            return None
        return max(self._survey.left, sum(map(len, self._pending)))

    def choose_own(self, point: Point) -> Choice:
        default = self._default(point)
        choice: Choice = self._deviations.get(point.anchor, default)
        if self._left:
            self._left -= choice != default
        elif len(point.ready) > 1 or point.cancellable:
            self._branch(point, default)
        self._cost += self._costs(point, choice, default)
        return choice

    def _default(self, point: Point) -> Name:
        """Return what the rule chooses; but a task may go on for several slices."""
        if point.slice_used and point.current is not None and point.rule != "stock":
            if point.slices < self._slices:
                return point.current
            self.truncated = True
        return point.default

    def pick_own(self, anchor: Anchor, count: int, *, costs: bool) -> int:
        choice = self._deviations.get(anchor)
        if isinstance(choice, Pick):
            self._left -= 1
            self._cost += costs
            if choice.which >= count:
                raise NotTheSame(
                    f"task {spell(anchor.task)} offers {plural(count, 'value')} to lab.choose, and "
                    f"in the same schedule it offered more before"
                )
            return choice.which
        if not self._left:
            for index in range(count - 1, 0, -1):
                self._note(anchor, Pick(index), self._cost + costs)
        return 0

    def _most(self) -> int | None:
        """Return how many preemptions are allowed, or under the stock rule delays; None is no
        bound."""
        if self.rule == "stock" and not (self._max_preemptions is None and self._has_places):
            return self._max_delays
        return self._max_preemptions

    def _note(self, anchor: Anchor, choice: Choice, cost: int) -> None:
        """Note that something else can be chosen, if the schedules that begin so are within the
        bound."""
        rule, deviations = self._prefix
        prefix = (rule, (*deviations, (anchor, choice)))
        most = self._most()
        if most is None or cost <= most:
            self._push(prefix)
        elif self._max_preemptions is None:
            self._far.append(prefix)

    def _costs(self, point: Point, choice: Choice, default: Name) -> bool:
        """Return True if the choice is a preemption, or under the stock rule a delay."""
        if isinstance(choice, Cancel):
            return False
        if point.rule == "stock":
            return choice != default
        if point.current is None:
            return False
        return (choice == point.current) != (default == point.current)

    def _branch(self, point: Point, default: Name) -> None:
        """Note what else can be chosen here, as far as the bound allows."""
        spins = self._max_preemptions is None and point.slice_used and point.slices >= self._slices
        choices: list[Choice] = [*point.cancellable, *sorted(point.ready, reverse=True)]
        for choice in choices:
            if choice == default:
                continue
            if spins and choice == point.current:
                self.truncated = True
                continue
            self._note(point.anchor, choice, self._cost + self._costs(point, choice, default))

    def end_own(self, schedule: Schedule, failed: bool) -> None:
        if schedule.has_places:
            self._see_places()
        self.complete: bool = not any(self._pending)

    def _see_places(self) -> None:
        self._has_places = True
        while self._far:
            self._push(self._far.pop())

    def split(self, executions: int) -> Exhaustive | None:
        part: list[Prefix] = []
        for prefixes in self._pending:
            while prefixes and len(part) < min(executions, PREFIXES):
                part.append(prefixes.pop())
        if not part:
            return None
        part.reverse()  # so that it is executed in the order in which it would have been here
        steps = self._slices * SLICE
        share = Exhaustive(self._max_preemptions, self._max_delays, part, slice_steps=steps)
        share._has_places = self._has_places
        return share

    def merge(self, part: Strategy) -> None:
        assert isinstance(part, Exhaustive)
        for prefixes in part._pending:
            for prefix in prefixes:
                self._push(prefix)
        self._far += part._far
        if self._has_places or part._has_places:
            self._see_places()
        self.truncated = self.truncated or part.truncated
        self.complete = not any(self._pending)


WALKS = 10
"""Walks without which there is no estimate."""


class _Survey:
    """Estimates how many schedules of a tree are left, from walks into the tree at random.

    A walk executes one of the pending prefixes, one of those that this execution has added, and so
    on down to a schedule that adds none. The product of the numbers it could choose among is, on
    average, the size of what is below (Knuth 1975). What is executed in a walk is done, as in any
    other order.
    """

    def __init__(self, pending: int) -> None:
        self._pending = pending
        """The prefixes that were pending when it began."""
        self._executed = 0
        self._random = Generator(0)
        self._walks = 0
        self._sum = 0.0
        """The sizes below one pending prefix, of all walks that have ended."""
        self._level = 0
        """The level of `pending` to which the last execution has added prefixes."""
        self._before = 0
        """The prefixes of that level before it did."""
        self._weight = 0.0
        self._size = 0.0
        """Of the walk that goes on: the size below its first prefix so far."""

    def next(self, pending: list[deque[Prefix]]) -> Prefix | None:
        """Take the next prefix of a walk; None if none is left."""
        level = pending[self._level] if self._level < len(pending) else deque()
        added = len(level) - self._before
        if self._weight and added > 0:
            at = self._before + self._random.randrange(added)
            self._weight *= added
        else:
            if self._weight:
                self._walks += 1
                self._sum += self._size
            total = sum(map(len, pending))
            if not total:
                return None
            at = self._random.randrange(total)
            for level in pending:
                if at < len(level):
                    break
                at -= len(level)
            self._weight, self._size = 1.0, 0.0
        prefix = level[at]
        del level[at]
        self._size += self._weight
        self._executed += 1
        self._level = len(prefix[1]) + 1
        self._before = len(pending[self._level]) if self._level < len(pending) else 0
        return prefix

    @property
    def left(self) -> int | None:
        """The number of schedules that are left; None before `WALKS` walks have ended: the sizes of
        single walks differ by orders of magnitude, and most are too small."""
        if self._walks < WALKS:
            return None
        return max(0, round(self._pending * self._sum / self._walks) - self._executed)


def plural(number: int, noun: str) -> str:
    """Return a number with its noun: "1 delay", "2 delays"."""
    return f"{number} {noun}{'s' * (number != 1)}"
