"""The default strategy: a few hundred schedules by chance, and then all of them.

Exhaustive exploration begins with what differs least from its two rules. A bug that needs four
unusual choices in a long program comes late there, but chance finds it soon: many schedules show
it, and only few of them are close to a rule. So the stock schedule is followed by schedules of
`Random` and of `Pct` in turn, and then by `Exhaustive`. They also look beyond the bound of
preemptions, where `Exhaustive` does not.

Chance ends early if it repeats itself: in a small program it soon finds nothing but orders of
steps that were executed already.
"""

from __future__ import annotations

from copy import copy

from ._options import Options
from ._schedule import Anchor, Cancel, Choice, Pick, Point, Rule, Schedule
from ._strategies import Exhaustive, Pct, Random
from ._strategy import Strategy

__all__ = ["Mixed"]

PROBES = 300
"""Schedules by chance, at most: a tenth of a second on asyncio, and three of trio."""
SHARE = 4
"""Schedules by chance are at most one in so many of all that the exploration may execute."""
REPEATED = 50
"""After so many schedules by chance in a row that were executed before, chance ends."""


class Mixed(Strategy):
    """Executes the stock schedule, then schedules by chance, then every schedule within a bound.

    The stock schedule is the first of those within the bound.
    """

    name = "mixed"
    can_split = True

    def __init__(self, options: Options) -> None:
        super().__init__()
        self._exhaustive = Exhaustive.of(options)
        probes = min(PROBES, options.max_executions // SHARE)
        pct = probes // 2
        self._chance: list[Strategy] = [
            Pct(pct, options.seed, options.depth),
            Random(probes - pct, options.seed),
        ]
        """The strategies that take turns; the next one is first. Empty once chance has ended, and
        while a worker executes these schedules."""
        self._begun = False
        """True once the stock schedule was begun."""
        self._current: Strategy = self._exhaustive
        self._seen: set[int] = set()
        """The orders of steps that were executed, as hashes."""
        self._repeated = 0
        """Schedules by chance in a row that were executed before."""

    @classmethod
    def of(cls, options: Options) -> Mixed:
        return cls(options)

    @property
    def rule(self) -> Rule:
        return self._current.rule

    @property
    def by_chance(self) -> bool:  # type: ignore[override]  # it changes
        return self._current.by_chance

    @property
    def bound(self) -> str:
        return self._exhaustive.bound

    @property
    def truncated(self) -> bool:  # type: ignore[override]  # it changes
        return self._exhaustive.truncated

    @property
    def left(self) -> int | None:
        return self._exhaustive.left

    def begin_own(self) -> bool:
        while self._begun and self._chance and self._repeated < REPEATED:
            self._current = self._chance.pop(0)
            if self._current.begin():
                self._chance.append(self._current)
                return True
        if self._begun:
            self._chance.clear()
        self._begun = True
        self._current = self._exhaustive
        more = self._exhaustive.begin()
        self.complete = self._exhaustive.complete
        return more

    @property
    def only_choices(self) -> bool:  # type: ignore[override]
        """True if the strategy whose turn it is need not be asked everywhere."""
        return self._current.only_choices

    def choose_own(self, point: Point) -> Choice:
        return self._current.choose(point)

    def pick_own(self, anchor: Anchor, count: int, *, costs: bool) -> int:
        return self._current.pick(anchor, count, costs=costs)

    def end_own(self, schedule: Schedule, failed: bool) -> None:
        if self._current is self._exhaustive:
            self._exhaustive.end(schedule, failed)
            self.complete = self._exhaustive.complete
        if self._chance:
            for strategy in self._chance:  # each learns how long an execution is
                strategy.end(schedule, failed)
            order = _order(schedule)
            self._repeated = self._repeated + 1 if order in self._seen else 0
            self._seen.add(order)
            if not schedule.chose and len(self._seen) == 1:
                self._chance.clear()  # there is nothing to choose by chance

    def survey(self) -> None:
        self._chance.clear()
        self._exhaustive.survey()

    def split(self, executions: int) -> Strategy | None:
        if self._begun and not self._chance:
            return self._exhaustive.split(executions)
        # One worker executes the stock schedule and those by chance, so that they end where they
        # would here. If it does not get to the end, what it returns is split again.
        part = copy(self)
        first = None if self._begun else self._exhaustive.split(1)
        part._exhaustive = first or Exhaustive(0, prefixes=())
        part._current = part._exhaustive
        self._begun, self._chance = True, []
        return part

    def merge(self, part: Strategy) -> None:
        exhaustive = part
        if isinstance(part, Mixed):
            exhaustive = part._exhaustive
            self._chance, self._seen, self._repeated = part._chance, part._seen, part._repeated
            if self._repeated >= REPEATED:
                self._chance = []
        self._exhaustive.merge(exhaustive)
        self.complete = self._exhaustive.complete


def _order(schedule: Schedule) -> int:
    """Return what tells two executions apart: the order of their steps, what was cancelled, and
    which values were chosen."""
    others = [it for it in schedule.deviations.items() if isinstance(it[1], Cancel | Pick)]
    return hash((tuple([step.task for step in schedule.steps]), *others))
