"""What the executions of an exploration have covered, of which its claim is made."""

from __future__ import annotations

from dataclasses import dataclass, field

from . import _running
from ._outcome import Outcome
from ._schedule import Schedule
from ._steps import Name

__all__ = ["Covered"]


@dataclass(slots=True)
class Covered:
    """What has happened in any of some executions."""

    chose: bool = False
    """Whether there was ever more than one possibility."""
    ran: set[Name] = field(default_factory=set)
    """The tasks that ran."""
    titles: dict[Name, str] = field(default_factory=dict)
    """The tasks that were made, and what they are called."""
    spared: set[Name] = field(default_factory=set)
    """The tasks that were never cancelled, because they are not the program's own."""
    cancelled: bool = False
    """Whether the lab has cancelled a task."""
    ended_though_cancelled: bool = False
    """Whether the main task came to an end of its own after the lab had cancelled a task."""
    picked: bool = False
    """Whether the program was given values by `choose`."""
    timed: bool = False
    """Whether the clock moved to one deadline while a later one was set."""
    signals: bool = False
    """Whether the program has set a handler of a signal."""
    looked: bool = False
    """Whether the program looked at a clock."""
    polled: set[str] = field(default_factory=set)
    """Why the clock moved although something could run."""
    outlived: set[str] = field(default_factory=set)
    """The threads that had not ended when the program had."""
    unscheduled: set[str] = field(default_factory=set)
    """What the program has called for that no schedule chooses, in words."""

    def note(self, schedule: Schedule, outcome: Outcome) -> None:
        """Add what one execution has covered."""
        self.chose = self.chose or schedule.chose
        self.ran |= schedule.ran
        self.titles |= schedule.titles
        self.spared |= schedule.spared
        if schedule.injected:
            self.cancelled = True
            ended = not (outcome.cancelled or outcome.stopped)
            self.ended_though_cancelled = self.ended_though_cancelled or ended
        self.picked = self.picked or bool(schedule.picks)
        self.timed = self.timed or schedule.timed
        self.signals = self.signals or schedule.signals
        self.looked = self.looked or _running.looks > 0
        if schedule.stillness.first:
            self.polled.add(schedule.stillness.first)
        self.outlived |= schedule.outlived
        self.unscheduled |= schedule.unscheduled

    def add(self, other: Covered) -> None:
        """Add what other executions have covered."""
        self.chose = self.chose or other.chose
        self.ran |= other.ran
        self.titles |= other.titles
        self.spared |= other.spared
        self.cancelled = self.cancelled or other.cancelled
        self.ended_though_cancelled = self.ended_though_cancelled or other.ended_though_cancelled
        self.picked = self.picked or other.picked
        self.timed = self.timed or other.timed
        self.signals = self.signals or other.signals
        self.looked = self.looked or other.looked
        self.polled |= other.polled
        self.outlived |= other.outlived
        self.unscheduled |= other.unscheduled
