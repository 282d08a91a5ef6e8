"""What a strategy is: it chooses the schedules of an exploration, one execution after another.

A strategy is driven like this:

1. ``begin()`` is called before each execution. It returns False when no schedule is left.
2. ``choose(point)`` is called at every step of the execution, in the order of the steps, also where
   only one task can run. It returns a task of ``point.ready``, or `CLOCK` if none is ready, or a
   cancellation of ``point.cancellable``. It may raise `Stop` to give the execution up.
3. ``end(schedule, failed)`` is called once the execution is over, also after `Stop`.
4. ``complete`` then says whether every schedule within the bound has been executed.

A strategy must be deterministic, given its seed, and must choose a task by its name, never by its
place in a queue: a replay happens in another process. All that the rest of the lab needs to know
about a strategy is an attribute here, so a new strategy is one class, and one line in
`_explore.STRATEGIES`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from ._options import Options
from ._schedule import Choice, Point, Schedule

__all__ = ["Strategy"]


class Strategy(ABC):
    """Chooses the schedules of an exploration, as the module's docstring says."""

    name: ClassVar[str]
    can_cancel: ClassVar[bool] = True
    """Whether it chooses among cancellations, too."""
    needs_declarations: ClassVar[bool] = False
    """Whether it must know what each step touches (see `_declare`)."""
    can_split: ClassVar[bool] = False
    """Whether parts of it can be executed elsewhere, by `split` and `merge`."""

    complete: bool = False
    """True once every schedule within its bound has been executed."""
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

    @abstractmethod
    def begin(self) -> bool:
        """Get ready for another execution; return False if none is left."""

    @abstractmethod
    def choose(self, point: Point) -> Choice:
        """Choose at one point. May raise `Stop`."""

    @abstractmethod
    def end(self, schedule: Schedule, failed: bool) -> None:
        """Take note that the execution is over."""

    def split(self, executions: int) -> Strategy | None:
        """Take a part away, for a worker that executes so many schedules; None if none is left."""
        raise NotImplementedError(f"{self.name} goes from one schedule to the next")

    def merge(self, part: Strategy) -> None:
        """Take back what a worker has left of a part, and what it has learned."""
        raise NotImplementedError(f"{self.name} goes from one schedule to the next")
