"""The virtual clock of explorations on trio, which moves when no task can run."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Protocol

import trio
from trio._core import _run

from . import _running
from ._instants import BEGIN, TOGETHER, not_before
from ._stillness import check_that_time_may_pass

__all__ = ["Clock", "is_called_soon"]


class Backend(Protocol):
    """What the clock asks and tells."""

    def nothing_can_run(self, deadline: float) -> bool:
        """Return True if the clock may move to a deadline."""

    def nothing_else_can_run(self) -> None:
        """Note that only the deadlines that have come are left."""

    def clock_moved(self, come: int, later_ones: bool) -> None:
        """Note that the clock has moved to a deadline: so many have come, and perhaps later ones
        are set."""


class Clock(trio.abc.Clock):
    """The virtual clock of executions; it moves when no task can run."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._now = BEGIN
        self.teardown_rounds = 0

    def restart(self) -> None:
        """Another execution begins."""
        self._now = BEGIN
        self.teardown_rounds = 0

    def pass_time(self, seconds: float) -> None:
        """Let time pass in the middle of a step."""
        check_that_time_may_pass()
        self.move(seconds)

    def move(self, seconds: float) -> None:
        """Move by so many seconds, though tasks can run."""
        self._now = not_before(self._now + seconds)

    def start_clock(self) -> None:
        """Called by trio when a run begins."""

    def current_time(self) -> float:
        """Seconds of virtual time."""
        return self._now + _running.looks

    def moment(self) -> float:
        """Seconds of virtual time, but for what the looks at the clock have taken."""
        return self._now

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """Called by trio when no task can run."""
        if deadline <= self.current_time():
            if not is_called_soon():
                self._backend.nothing_else_can_run()
            return 0
        if _run.GLOBAL_RUN_CONTEXT.runner.waiting_for_idle:
            return math.inf
        if is_called_soon():
            return 0
        if self._backend.nothing_can_run(deadline) and deadline < math.inf:
            self.jump(deadline)
        return 0

    def jump(self, deadline: float) -> None:
        """Move to a deadline that has not come yet, and to those that come together with it."""
        deadlines = _run.GLOBAL_RUN_CONTEXT.runner.deadlines
        last = _last_of_time(deadlines, deadline)
        self._now = not_before(last - _running.looks)
        self._backend.clock_moved(
            come=sum(when <= last for when in _set_in(deadlines)),
            later_ones=any(last < when < math.inf for when in _set_in(deadlines)),
        )


def is_called_soon() -> bool:
    """Return True if `run_sync_soon` has called for something that has not run."""
    entries = _run.GLOBAL_RUN_CONTEXT.runner.entry_queue
    return bool(entries.queue or entries.idempotent_queue)


def _last_of_time(deadlines: _run.Deadlines, first: float) -> float:
    """Return the last of the deadlines that come together with the first one."""
    return max((it for it in _set_in(deadlines) if it <= first + TOGETHER), default=first)


def _set_in(deadlines: _run.Deadlines) -> Iterator[float]:
    """Yield the deadlines that are set, and not what the heap still has of others."""
    return (when for when, _, scope in deadlines._heap if scope._registered_deadline == when)
