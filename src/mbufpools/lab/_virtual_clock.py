"""Virtual time on trio: a clock that jumps to the next deadline when nothing can run.

trio asks a clock how long it may sleep only when no task can run. The first time, the clock answers
0 seconds, so that trio polls real I/O. If trio asks again and no task has run in between, the clock
jumps. The clock is also an instrument of the run, which tells it when a task has run.
`wait_all_tasks_blocked` comes before a jump, as with `trio.testing.MockClock`.

`MockClock` is similar, but it adds intervals, so rounding errors shift its deadlines, and it sleeps
for ever when nothing is scheduled.

The clock needs private names of trio, to see the tasks in `wait_all_tasks_blocked` and to end a
stalled run. `_private_names` lists them, and they are checked before use.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import NoReturn

import trio
from trio._core import _run

from ._background import TICKS, is_service, only_ticks_on_trio
from ._private_names import require
from ._virtual_time import Stalled, where_it_waits

__all__ = ["VirtualClock", "lift_shields"]


class VirtualClock(trio.abc.Clock, trio.abc.Instrument):
    """A trio clock in virtual time: it starts at 0.0 seconds in every run, and jumps.

    When nothing can run, it moves exactly to the next deadline. With no deadline left it waits for
    I/O or for another thread, for at most `patience`, and then stops the run: `Stalled` is raised
    where the main task waits, in the way in which trio raises `KeyboardInterrupt` there. If the
    program stalls again during its clean-up, all shields are lifted and the main task is cancelled.

    Args:
        patience: seconds of real time. Use 0 for programs without I/O and threads.

    Raises:
        LabError: this release of trio lacks a private name that the clock needs.

    Attributes:
        stalled: the error by which the last run was stopped, or None.
    """

    def __init__(self, patience: float = 1.0) -> None:
        require("trio")
        self._patience = patience
        self._restart()

    def _restart(self) -> None:
        self._now = 0.0
        self._something_ran = True
        self._ticks = 0
        """The number of jumps since a task other than a service has run."""
        self._idle_since = 0.0  # in real time
        self.stalled: Stalled | None = None

    def __repr__(self) -> str:
        return f"<VirtualClock at {self._now!r} s>"

    def start_clock(self) -> None:
        """Called by trio when a run begins."""
        self._restart()
        trio.lowlevel.add_instrument(self)

    def current_time(self) -> float:
        """Return the time, in seconds of virtual time."""
        return self._now

    def task_scheduled(self, task: trio.lowlevel.Task) -> None:
        """Called by trio when a task becomes ready."""
        self._something_ran = True
        if not is_service(task.name):
            self._ticks = 0

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """Called by trio when no task can run: how long to wait for I/O, in real seconds."""
        if deadline <= self._now:
            return 0
        if self._something_ran:
            self._something_ran = False
            self._idle_since = time.monotonic()
            return 0
        if _run.GLOBAL_RUN_CONTEXT.runner.waiting_for_idle:
            return math.inf  # those tasks wake first, and trio knows when
        if deadline < math.inf and not (
            self._ticks >= TICKS and only_ticks_on_trio(_run.GLOBAL_RUN_CONTEXT.runner.deadlines)
        ):
            self._ticks += 1
            self._now = deadline
            return 0
        patience_left = self._idle_since + self._patience - time.monotonic()
        if patience_left > 0:
            return patience_left
        return self._stop_the_run()

    def _stop_the_run(self) -> float:
        """Raise `Stalled` in the main task; the second time, cancel it. Return how long to wait
        for I/O, in real seconds."""
        runner = _run.GLOBAL_RUN_CONTEXT.runner
        main = runner.main_task
        again = self.stalled is not None
        if main in runner.tasks and not again:
            waiting = [where_it_waits(task.name, task.coro) for task in _and_below(main)]
            self.stalled = Stalled(self._now, waiting)
            if main._abort_func is not None:  # else the task is being cancelled already
                main._attempt_abort(self._raise_stalled)
        if not self._something_ran:
            for task in runner.tasks:
                lift_shields(task)
        if main in runner.tasks and again and not self._something_ran:
            assert main.parent_nursery is not None
            main.parent_nursery.cancel_scope.cancel(reason=str(self.stalled))
        # trio waits for what cannot be cancelled, such as a thread.
        return 0 if self._something_ran else math.inf

    def _raise_stalled(self) -> NoReturn:
        assert self.stalled is not None
        raise self.stalled


def _and_below(task: trio.lowlevel.Task) -> Iterator[trio.lowlevel.Task]:
    """Yield a task and all its descendants."""
    yield task
    for nursery in task.child_nurseries:
        for child in nursery.child_tasks:
            yield from _and_below(child)


def lift_shields(task: trio.lowlevel.Task) -> None:
    """Remove the shield of every cancel scope around a task."""
    status: _run.CancelStatus | None = task._cancel_status
    while status is not None:
        status._scope.shield = False
        status = status._parent
