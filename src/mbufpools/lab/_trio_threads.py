"""trio's cache of threads, in lock-step: an idle thread gets the next job, as in reality.

Each job is a task of the schedule, named after its function (`_lockstep`). A thread that has done
its job is idle before the result is delivered, and the thread that became idle last gets the next
job. So what a job leaves in `threading.local` is there for the next one. A thread that has been
idle for 10 seconds of virtual time gets no job any more.

Invariants:

- A thread belongs to one execution, which begins without an idle one, as a new process does.
- A thread that waits for its next job waits for a real lock, and does not run the program.
"""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

import outcome
from trio._core import _thread_cache

from . import _lockstep
from ._lockstep import LabThread, program_line
from ._real_locks import give_back_really, make_lock, take_really
from ._running import inside, now
from ._threads import join_really, refuse_under_dpor, start_really, thread_title

__all__ = ["ThreadCache"]

FAREWELL = 1.0
"""Real seconds that an idle thread has to end when the execution is over."""

Job = tuple[Callable[[], Any], Callable[[Any], object], str | None]
"""What a thread calls, what takes the outcome, and what the thread is called meanwhile."""


class ThreadCache(_thread_cache.ThreadCache):
    """The threads of one execution. For callers outside of the program it is trio's own cache."""

    __slots__ = ("_idle", "_real", "_workers")

    def __init__(self) -> None:
        super().__init__()
        self._real = _thread_cache.THREAD_CACHE
        self._workers: list[_Worker] = []
        self._idle: dict[_Worker, float] = {}
        """When each idle thread became idle, the last one at the end."""

    def start_thread_soon(
        self,
        fn: Callable[[], Any],
        deliver: Callable[[Any], object],
        name: str | None = None,
    ) -> None:
        """Run a job in an idle thread, or in a new one."""
        if not inside():
            self._real.start_thread_soon(fn, deliver, name)
            return
        refuse_under_dpor()
        worker, since = self._idle.popitem() if self._idle else (None, 0.0)
        if worker is None or now() - since >= _thread_cache.IDLE_TIMEOUT:
            self._idle.clear()  # the others are idle for longer
            worker = _Worker(self, len(self._workers))
            self._workers.append(worker)
        worker.begin((fn, deliver, name))

    def is_idle(self, worker: _Worker) -> None:
        """Note that a thread can take another job."""
        self._idle[worker] = now()

    def end(self) -> None:
        """End the threads, because the execution is over."""
        for worker in self._workers:
            worker.end()
        self._workers.clear()
        self._idle.clear()


class _Worker:
    """A thread of the cache."""

    def __init__(self, cache: ThreadCache, number: int) -> None:
        self._cache = cache
        self._name = f"Trio thread {number}"
        self._job: Job | None = None
        self._next: LabThread | None = None
        """The job that was given to the thread and not taken, as a task."""
        self._last: LabThread | None = None
        self._lost = False
        """Whether a job does not end."""
        self._given = make_lock()
        """Is released once for each job."""
        take_really(self._given)
        self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
        start_really(self._thread)

    # In the thread of who has the job

    def begin(self, job: Job) -> None:
        """Make a job a task of the schedule; the thread runs it as soon as it is chosen."""
        function, _, name = job
        before = self._last
        # trio calls it "function from task", if the program does not say what it is called.
        title = thread_title(function if name is None else name.partition(" from ")[0])
        thread = LabThread(title, _nothing, self._lose, program_line())
        self._thread.lab_thread = thread  # type: ignore[attr-defined]  # `Thread.join` waits for it
        if before is not None and not before.over:  # it is idle, and still delivers a result
            thread.ready, thread.condition = False, lambda: before.over
        self._job = job
        self._last = self._next = thread
        give_back_really(self._given)
        _lockstep.start(thread)

    def end(self) -> None:
        """End the thread, whose job is over or lost, and wait for it in real time, if it ends."""
        self._job = None  # it may not have begun
        give_back_really(self._given)
        if not self._lost:
            join_really(self._thread, FAREWELL)

    def _lose(self) -> None:
        self._lost = True

    # In the thread itself

    def _work(self) -> None:
        while True:
            take_really(self._given)
            thread, self._next = self._next, None
            if thread is None:
                return
            thread.run(self._do)

    def _do(self) -> None:
        """Do a job, in the order in which trio does it."""
        assert self._job is not None
        (function, deliver, name), self._job = self._job, None
        if name is not None:
            self._thread.name = name
        result = outcome.capture(function)
        if name is not None:
            self._thread.name = self._name
        del function  # what it refers to is not kept for longer than the job takes
        self._cache.is_idle(self)
        try:
            deliver(result)
        except BaseException as error:  # noqa: BLE001, ASYNC103 - as trio does
            print("Exception while delivering result of thread", file=sys.stderr)
            traceback.print_exception(type(error), error, error.__traceback__)


def _nothing() -> None:
    """Wait for no end of the thread, which takes another job."""
