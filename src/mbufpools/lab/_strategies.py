"""The strategies that need no declarations: fifo, random, PCT, exhaustive; and a replay.

Each chooses a task by its name, never by its place in a queue, and is deterministic given its
seed. Cancellations, where they are asked for, are choices as any other, at most one in an
execution. Uses `_schedule`.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable

from ._schedule import Anchor, Cancel, Choice, Deviations, Point, Schedule
from ._steps import Name

__all__ = ["Exhaustive", "Fifo", "Pct", "Prefix", "Random", "Replay"]

Prefix = tuple[tuple[Anchor, Choice], ...]
"""The deviations that lead to a part of the schedules not yet executed."""

PREFIXES = 16
"""Prefixes that make a worker's part, at most."""


class Replay:
    """One given schedule.

    A deviation that does not fit, because the program is another one or others were left out, is
    passed over, and noted in `misfits`.
    """

    def __init__(self, deviations: Deviations) -> None:
        self._deviations = deviations
        self._done = False
        self.complete = False
        self.misfits: list[Anchor] = []
        self._used: set[Anchor] = set()

    def begin(self) -> bool:
        """Once."""
        fresh, self._done = not self._done, True
        return fresh

    def choose(self, point: Point) -> Choice:
        """As the deviations say, else by the rule."""
        choice = self._deviations.get(point.anchor)
        if choice is None:
            return point.default
        self._used.add(point.anchor)
        fits = choice in (point.cancellable if isinstance(choice, Cancel) else point.ready)
        if not fits:
            self.misfits.append(point.anchor)
            return point.default
        return choice

    def end(self, schedule: Schedule, failed: bool) -> None:
        """Note the deviations that never came up."""
        self.misfits += [anchor for anchor in self._deviations if anchor not in self._used]


class Fifo:
    """What has been ready for the longest runs next: one schedule; with cancellation, that one
    with each cancellation."""

    def __init__(self) -> None:
        self.complete = False
        self._pending: deque[tuple[Anchor, Cancel] | None] = deque([None])
        self._cancel: tuple[Anchor, Cancel] | None = None

    def begin(self) -> bool:
        """As long as a cancellation is left."""
        if not self._pending:
            self.complete = True
            return False
        self._cancel = self._pending.popleft()
        return True

    def choose(self, point: Point) -> Choice:
        """The oldest."""
        if self._cancel is None:
            self._pending += [(point.anchor, cancel) for cancel in point.cancellable]
        elif self._cancel[0] == point.anchor and self._cancel[1] in point.cancellable:
            return self._cancel[1]
        if not point.ready:
            return point.default
        return min(point.ready, key=lambda name: (point.ready[name].since, name))

    def end(self, schedule: Schedule, failed: bool) -> None:
        """Nothing to learn."""
        self.complete = not self._pending


class Random:
    """Every task that can run is as likely as the others.

    Args:
        executions: how many.
        seed: the first execution's; the next has the next.
    """

    def __init__(self, executions: int, seed: int) -> None:
        self.complete = False
        self._left = range(seed, seed + executions)
        self._random = random.Random()
        self._cancel_at = 0
        self._length = 20

    def begin(self) -> bool:
        """With the next seed."""
        if not self._left:
            return False
        seed, self._left = self._left[0], self._left[1:]
        self._random.seed(seed)
        self._cancel_at = self._random.randrange(self._length)
        return True

    def choose(self, point: Point) -> Choice:
        """Any."""
        if point.cancellable and len(point.steps) >= self._cancel_at:
            return self._random.choice(point.cancellable)
        if len(point.ready) <= 1:
            return point.default
        return self._random.choice(sorted(point.ready))

    def end(self, schedule: Schedule, failed: bool) -> None:
        """Learn how long an execution is."""
        self._length = max(self._length, len(schedule.steps))

    def split(self, executions: int) -> Random | None:
        """Take the next seeds away, for a worker that executes so many; None if none is left."""
        seeds, self._left = self._left[:executions], self._left[executions:]
        if not seeds:
            return None
        part = Random(len(seeds), seeds.start)
        part._length = self._length
        return part

    def merge(self, part: object) -> None:
        """Learn what a worker has learned from its part."""
        assert isinstance(part, Random)
        self._length = max(self._length, part._length)


class Pct:
    """Probabilistic concurrency testing (Burckhardt and others, 2010): random priorities, and
    `depth` - 1 places, chosen at random, where the running task is demoted below all others.

    A bug that needs `depth` ordering constraints is found in one execution with a probability
    of at least 1 / (n k^(depth - 1)), n tasks and k steps.

    Args:
        executions: how many, the first of which measures the length and demotes nobody.
        seed: the first execution's; the next has the next.
        depth: ordering constraints of the bug looked for.
    """

    def __init__(self, executions: int, seed: int, depth: int) -> None:
        self.complete = False
        self._left = range(seed, seed + executions)
        self._depth = depth
        self._horizon = 0
        self._random = random.Random()
        self._priorities: dict[Name, float] = {}
        self._changes: list[int] = []
        self._lowest = 0.0
        self._cancel_at = 0

    def begin(self) -> bool:
        """With the next seed."""
        if not self._left:
            return False
        seed, self._left = self._left[0], self._left[1:]
        self._random.seed(seed)
        self._priorities.clear()
        self._lowest = 0.0
        count = min(self._depth - 1, self._horizon)
        self._changes = sorted(self._random.sample(range(1, self._horizon + 1), count))
        self._cancel_at = self._random.randrange(max(self._horizon, 1))
        return True

    def choose(self, point: Point) -> Choice:
        """The highest priority."""
        if point.cancellable and len(point.steps) >= self._cancel_at:
            return self._random.choice(point.cancellable)
        if not point.ready:
            return point.default
        for name in sorted(point.ready.keys() - self._priorities.keys()):
            self._priorities[name] = 1.0 + self._random.random()
        best = max(point.ready, key=self._priorities.__getitem__)
        if self._changes and len(point.steps) >= self._changes[0]:
            self._changes.pop(0)
            self._demote(best)
            best = max(point.ready, key=self._priorities.__getitem__)
        elif point.slice_used and best == point.current:
            self._demote(best)  # it spins, and by its priority it would for ever
            best = max(point.ready, key=self._priorities.__getitem__)
        return best

    def _demote(self, name: Name) -> None:
        self._lowest -= 1.0  # each below the one before, or two demotions would undo each other
        self._priorities[name] = self._lowest

    def end(self, schedule: Schedule, failed: bool) -> None:
        """Learn how long an execution is."""
        self._horizon = max(self._horizon, len(schedule.steps))

    def split(self, executions: int) -> Pct | None:
        """Take the next seeds away, for a worker that executes so many; None if none is left."""
        seeds, self._left = self._left[:executions], self._left[executions:]
        if not seeds:
            return None
        part = Pct(len(seeds), seeds.start, self._depth)
        part._horizon = self._horizon
        return part

    def merge(self, part: object) -> None:
        """Learn what a worker has learned from its part."""
        assert isinstance(part, Pct)
        self._horizon = max(self._horizon, part._horizon)


class Exhaustive:
    """Every schedule with at most so many preemptions, those with the fewest deviations from the
    rule first, each once.

    To preempt is to run another task while the one that ran could go on, or to let one go on that
    has run for `SLICE` steps while others wait. The latter is not done without a bound, for a task
    that spins could go on for ever: `truncated` is then True.

    Where the one that ran cannot go on, each task that can run is tried. With cancellation: each
    of these schedules, and each of them again with one cancellation at every place for it, which
    is a deviation, too.

    Args:
        max_preemptions: the bound; None is none.
        prefixes: the parts of the schedules to execute; by default all.
    """

    def __init__(self, max_preemptions: int | None, prefixes: Iterable[Prefix] = ((),)) -> None:
        self.complete = False
        self._bound = max_preemptions
        self._pending: list[list[Prefix]] = []
        """By the number of their deviations."""
        for prefix in prefixes:
            self._push(prefix)
        self._deviations: Deviations = {}
        self._prefix: Prefix = ()
        self._left = 0
        self._preemptions = 0
        self.truncated = False
        """Some schedules were left out, in which a task takes more steps in a row."""

    def _push(self, prefix: Prefix) -> None:
        while len(self._pending) <= len(prefix):
            self._pending.append([])
        self._pending[len(prefix)].append(prefix)

    def begin(self) -> bool:
        """The next of those with the fewest deviations."""
        for prefixes in self._pending:
            if prefixes:
                self._prefix = prefixes.pop()
                self._deviations = dict(self._prefix)
                self._left = len(self._prefix)
                self._preemptions = 0
                return True
        self.complete = True
        return False

    def choose(self, point: Point) -> Choice:
        """As the prefix says, then by the rule; and note what else could be done."""
        choice: Choice = self._deviations.get(point.anchor, point.default)
        if self._left:
            self._left -= choice != point.default
        elif len(point.ready) > 1 or point.cancellable:
            self._branch(point)
        if not isinstance(choice, Cancel):
            self._preemptions += point.preempts(choice)
        return choice

    def _branch(self, point: Point) -> None:
        choices: list[Choice] = [*point.cancellable, *sorted(point.ready, reverse=True)]
        for choice in choices:
            if choice == point.default:
                continue
            if self._bound is None and point.slice_used and choice == point.current:
                self.truncated = True
            else:
                cost = not isinstance(choice, Cancel) and point.preempts(choice)
                if self._bound is None or self._preemptions + cost <= self._bound:
                    self._push((*self._prefix, (point.anchor, choice)))

    def end(self, schedule: Schedule, failed: bool) -> None:
        """Nothing to learn."""
        self.complete = not any(self._pending)

    def split(self, executions: int) -> Exhaustive | None:
        """Take a part away, for a worker that executes so many; None if nothing is left."""
        part: list[Prefix] = []
        for prefixes in self._pending:
            while prefixes and len(part) < min(executions, PREFIXES):
                part.append(prefixes.pop())
        return Exhaustive(self._bound, part) if part else None

    def merge(self, part: object) -> None:
        """Take back what a worker has left of a part."""
        assert isinstance(part, Exhaustive)
        for prefixes in part._pending:
            for prefix in prefixes:
                self._push(prefix)
        self.truncated = self.truncated or part.truncated
        self.complete = not any(self._pending)
