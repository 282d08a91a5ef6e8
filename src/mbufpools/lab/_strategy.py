"""What a strategy is: it chooses the schedules of an exploration, one execution after another.

A strategy is driven like this:

1. ``begin()`` is called before each execution. It returns False when no schedule is left. Then
   ``rule`` is read.
2. ``choose(point)`` is called at every step of the execution, in the order of the steps, also where
   only one task can run. It returns a task of ``point.ready``, or `CLOCK` if none is ready, or a
   cancellation of ``point.cancellable``. It may raise `Stop` to give the execution up.
3. ``end(schedule, failed)`` is called once the execution is over, also after `Stop`.
4. ``complete`` then says whether every schedule within the bound has been executed.

A subclass has ``begin_own()``, ``choose_own()`` and ``end_own()``. The strategies of `explore`
begin with the stock schedule, and the base class sees to that.

A strategy must be deterministic, given its seed, and must choose a task by its name, never by its
place in a queue: a replay happens in another process. All that the rest of the lab needs to know
about a strategy is an attribute here. A new strategy is one class in `_strategies`, one line in
`_explore.STRATEGIES`, and its name in `_options.StrategyName`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from ._options import Options
from ._outcome import refuse
from ._schedule import SLICE, Anchor, Choice, Point, Rule, Schedule

__all__ = ["Strategy", "in_slices"]


class Strategy(ABC):
    """Chooses the schedules of an exploration, as the module's docstring says."""

    name: ClassVar[str]
    can_cancel: ClassVar[bool] = True
    """Whether it chooses among cancellations, too."""
    can_pick: ClassVar[bool] = True
    """Whether the program may call `choose`."""
    needs_declarations: ClassVar[bool] = False
    """Whether it must know what each step touches (see `_declare`)."""
    own_rule: Rule = "run-on"
    """What decides, after the first execution, where the strategy does not."""
    can_split: ClassVar[bool] = False
    """Whether parts of it can be executed elsewhere, by `split` and `merge`."""

    only_choices: bool = False
    """True if it need not be asked where there is only one possibility."""
    by_chance: bool = False
    """True while it chooses by chance, so that a simpler schedule may fail, too."""
    complete: bool = False
    """True once every schedule within its bound has been executed."""
    truncated: bool = False
    """True if schedules were left out in which a task takes more steps in a row."""
    redundant: int = 0
    """Executions that were given up because they could show nothing new."""

    @classmethod
    def of(cls, options: Options) -> Strategy:
        """Make the strategy that these options ask for, if `explore` offers it by name."""
        raise NotImplementedError(f"{cls.name} is not offered by name")

    @property
    @abstractmethod
    def bound(self) -> str:
        """The schedules that it stands for, in words that complete "no failure, all of ..."."""

    def __init__(self, *, stock_first: bool = False) -> None:
        self._stock_first = stock_first
        """True until the stock schedule has been begun."""
        self._in_stock = False
        """True while the stock schedule is being executed."""

    @property
    def rule(self) -> Rule:
        """The rule of the execution that was begun."""
        return "stock" if self._in_stock else self.own_rule

    def begin(self) -> bool:
        """Get ready for another execution; return False if none is left.

        The first execution takes the order of the backend itself, under every strategy.
        """
        self._in_stock, self._stock_first = self._stock_first, False
        return self._in_stock or self.begin_own()

    def choose(self, point: Point) -> Choice:
        """Choose at one point. May raise `Stop`."""
        return point.default if self._in_stock else self.choose_own(point)

    def pick(self, anchor: Anchor, count: int, *, costs: bool = False) -> int:
        """Choose one of `count` values; return its index. The program offers them, or the lab
        does; then each but the first may cost a preemption. The first value belongs to the stock
        schedule."""
        if not self.can_pick:
            raise refuse(
                f"the program calls lab.choose, and strategy {self.name!r} cannot choose values; "
                f"use 'exhaustive' or the default"
            )
        return 0 if self._in_stock else self.pick_own(anchor, count, costs=costs)

    def pick_own(self, anchor: Anchor, count: int, *, costs: bool) -> int:
        """Choose one of `count` values in an execution after the stock one; by default the
        first."""
        return 0

    def end(self, schedule: Schedule, failed: bool) -> None:
        """Take note that the execution is over."""
        self.end_own(schedule, failed)

    @abstractmethod
    def begin_own(self) -> bool:
        """Get ready for an execution after the stock one; return False if none is left."""

    @abstractmethod
    def choose_own(self, point: Point) -> Choice:
        """Choose at one point of an execution after the stock one. May raise `Stop`."""

    @abstractmethod
    def end_own(self, schedule: Schedule, failed: bool) -> None:
        """Take note that an execution is over, the stock one included."""

    def survey(self) -> None:  # noqa: B027 - most strategies cannot estimate
        """Estimate from now on how many schedules are left, because few more are executed."""

    @property
    def left(self) -> int | None:
        """The number of schedules that are left within the bound, estimated; None if unknown."""
        return None

    def split(self, executions: int) -> Strategy | None:
        """Take a part away, for a worker that executes so many schedules; None if none is left."""
        raise NotImplementedError(f"{self.name} goes from one schedule to the next")

    def merge(self, part: Strategy) -> None:
        """Take back what a worker has left of a part, and what it has learned."""
        raise NotImplementedError(f"{self.name} goes from one schedule to the next")


def in_slices(slices: int) -> str:
    """Return what the bound says once a task had to stand back after so many slices."""
    return (
        f"in which no task takes more than {slices * SLICE} steps in a row while another could run"
    )
