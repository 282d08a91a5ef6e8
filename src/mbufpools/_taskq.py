"""Tasks, and the queue whose one runner calls them in the order in which they were added.

Models kern_task.c and its ``systqmp``. Two rules make it safe to wake others by a task:

- A task that is on the queue is not put there again. That is the coalescing: however many pages
  leave before the wakeup runs, it runs once.
- Its queued mark is cleared *before* its function is called, so an add made while it runs queues
  it again, and no wakeup is lost. Cleared afterwards, an add made in between would be swallowed.

The runner is a task of the event loop on asyncio, and a system task on trio, so a queue may be
entered in one task and left in another. It is started when there is work or a time to wait for, and
at most one is alive. If something cancels it, it ends, and the next add, or the next time that
comes, starts a new one. It never swallows a cancellation. On trio no exception leaves it.

Time is kept in whole microseconds.
"""

from __future__ import annotations

import heapq
import inspect
import math
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from threading import get_ident
from types import TracebackType
from typing import TYPE_CHECKING

import anyio

from ._errors import ConfigurationError, UsageError
from ._events import EventKind, Hook, Observer
from ._log import logger
from ._owner_loop import OwnerLoop

if TYPE_CHECKING:
    from ._statistics import TaskQueueStatistics

__all__ = ["Task", "TaskQueue"]


class Task:
    """A function to be called by a task queue, and whether it waits there.

    Args:
        function: a plain or an async function without arguments. An async one keeps the queue
            busy until it returns: the tasks behind it wait.
        name: for messages, events and statistics; by default the function's name.
    """

    __slots__ = ("_clock", "_queue", "_runs", "function", "name")

    def __init__(
        self,
        function: Callable[[], Awaitable[object] | object],
        *,
        name: str | None = None,
    ) -> None:
        if not callable(function):
            raise TypeError(f"a Task needs a function without arguments; got {function!r}")
        self.function: Callable[[], Awaitable[object] | object] = function
        self.name: str = name or getattr(function, "__name__", None) or repr(function)
        self._queue: TaskQueue | None = None
        self._clock: TaskQueue | None = None
        """The queue that will add it later."""
        self._runs = 0

    @property
    def queued(self) -> bool:
        """True while it is on a queue and has not begun to run (``TASK_ONQUEUE``)."""
        return self._queue is not None

    @property
    def runs(self) -> int:
        """How often it has been run."""
        return self._runs

    def __repr__(self) -> str:
        queue = self._queue or self._clock
        where = "not queued" if queue is None else f"on {queue.name!r}"
        return f"<Task {self.name!r}, {where}>"


class _Barrier(Task):
    """Marks a place in the queue. A task that waits at it goes on when the place is reached."""

    __slots__ = ("passed",)

    def __init__(self) -> None:
        self.passed = anyio.Event()
        super().__init__(self.passed.set, name="barrier")


class TaskQueue:
    """One runner, one FIFO, and tasks that are added later.

    An async context manager. A task that raises ends the queue: the error is logged at once, and
    later calls of `add`, `add_later` and `barrier` fail with it. It leaves through the end of the
    ``async with``, in a group with the body's own exception if both failed; an exception of the
    body alone passes as it is. At the end of a body that did not raise, what is still queued is
    run, and what was to be added later is not. The queue may be left in another task than the one
    that entered it.

    `add`, `add_later` and `discard` are plain functions that never block. They work before the
    queue is entered, too; after that on the thread of its event loop alone.

    Args:
        name: for messages and statistics.
        hook: called with an `Event` for each task queued, coalesced or run.
    """

    def __init__(self, name: str = "taskq", *, hook: Hook | None = None) -> None:
        self.name: str = name
        self._owner_loop = OwnerLoop(f"task queue {name!r}")
        self._observer = Observer(self._owner_loop.now, hook)
        self._queue: OrderedDict[Task, None] = OrderedDict()
        self._timers: list[tuple[int, int, Task]] = []
        self._due: dict[Task, tuple[int, int]] = {}
        self._added = 0
        self._armed = 0
        self._coalesced = 0
        self._discarded = 0
        self._runs = 0
        self._running: Task | None = None
        self._runner_id = 0
        self._runner: object = None
        self._scope: anyio.CancelScope | None = None
        """Ends the runner; there is one while the runner is alive."""
        self._ended: anyio.Event | None = None
        """Set when the runner has ended; there is one while the runner is alive."""
        self._work: anyio.Event | None = None
        self._draining = False
        self.error: BaseException | None = None
        """What ended the queue."""
        self.on_failure: Callable[[BaseException], None] = lambda error: None
        """Called when a task has failed. `BufferPools._wire` sets it."""

    def add(self, task: Task) -> bool:
        """Put `task` at the end of the queue; False if it waits there already (``task_add``).

        Raises:
            UsageError: it is another queue's now, or this one runs on another thread.
            anyio.ClosedResourceError: the queue has ended.
        """
        self._refuse(task)
        self._add_due()
        return self._add(task)

    def add_later(self, task: Task, seconds: float) -> bool:
        """Have `task` added in `seconds` of the loop's clock (``timeout_add`` and ``task_add``).

        A task is scheduled once: a second call sets another time and returns False. Before the
        queue is entered, the seconds count from the moment when it is.

        Raises:
            ConfigurationError: a negative or infinite time.
            UsageError: it is another queue's now, or this one runs on another thread.
            anyio.ClosedResourceError: the queue has ended.
        """
        self._refuse(task)
        if not 0 <= seconds < math.inf:
            raise ConfigurationError(
                f"task {task.name!r} was to be added in {seconds!r} seconds; "
                f"expected a finite number of at least 0"
            )
        fresh = task not in self._due
        task._clock = self
        self._armed += 1
        due = (self._owner_loop.now() + round(seconds * 1_000_000), self._armed)
        self._due[task] = due
        heapq.heappush(self._timers, (*due, task))
        if len(self._timers) > 2 * len(self._due) + 16:  # most were set again, or discarded
            self._timers = sorted((*due, task) for task, due in self._due.items())
        self._signal()
        return fresh

    def discard(self, task: Task) -> bool:
        """Take `task` off the queue and off the clock; False if it was on neither (``task_del``).

        A task that is running goes on.

        Raises:
            UsageError: the queue runs on another thread.
        """
        self._owner_loop.check_thread()
        scheduled = self._due.pop(task, None) is not None
        if scheduled:
            task._clock = None
        queued = task._queue is self
        if queued:
            del self._queue[task]
            task._queue = None
        self._discarded += scheduled or queued
        return scheduled or queued

    async def barrier(self) -> None:
        """Wait until all that is queued now has run (``taskq_barrier``).

        From inside a task of this queue it returns at once, with the tasks behind it unrun, as
        the kernel's does: it would wait for itself. Cancelled, it leaves no trace. It waits as
        long as the tasks take.

        Raises:
            UsageError: the queue is not running, so nothing would run the tasks.
            anyio.ClosedResourceError: the queue has ended, or ends meanwhile.
        """
        if not self._owner_loop.open:
            self._owner_loop.raise_misuse()
        self._owner_loop.check_loop()
        if self.in_task():
            await anyio.lowlevel.checkpoint()
            return
        await anyio.lowlevel.checkpoint_if_cancelled()
        marker = _Barrier()
        self.add(marker)
        try:
            await marker.passed.wait()
        except BaseException:
            self.discard(marker)
            raise
        if not marker.runs:
            self._refuse_ended()

    def in_task(self) -> bool:
        """True if the calling task is the queue's own runner, inside a task function."""
        return self._running is not None and anyio.get_current_task().id == self._runner_id

    def statistics(self) -> TaskQueueStatistics:
        """Return a snapshot. Tasks whose time has come count as queued. May be called from any
        thread; called from another thread, it may miss tasks that became due just now."""
        from ._statistics import TaskQueueStatistics

        if self._owner_loop.thread == get_ident():
            self._add_due()
        return TaskQueueStatistics(
            name=self.name,
            queued=len(self._queue),
            scheduled=len(self._due),
            added=self._added,
            coalesced=self._coalesced,
            discarded=self._discarded,
            runs=self._runs,
        )

    async def __aenter__(self) -> TaskQueue:
        self._owner_loop.enter()
        self._signal()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._draining = True
        cancellation: BaseException | None = None
        if exc is None:
            self._signal()
        else:
            self._cancel_runner()
        try:
            with anyio.CancelScope(shield=exc is not None):
                await self._runner_ended()  # noqa: ASYNC102 - shielded where it must be
        except anyio.get_cancelled_exc_class() as cancelled:  # noqa: ASYNC103 - raised below
            cancellation = cancelled
            self._cancel_runner()
            with anyio.CancelScope(shield=True):
                await self._runner_ended()
        finally:
            self._end()
        if self.error is not None:
            if exc is not None and not isinstance(exc, anyio.get_cancelled_exc_class()):
                raise BaseExceptionGroup(
                    f"a task of {self.name!r} and the body both failed", [self.error, exc]
                )
            raise self.error
        if cancellation is not None and exc is None:
            raise cancellation

    async def _runner_ended(self) -> None:
        while self._ended is not None:
            await self._ended.wait()

    def _cancel_runner(self) -> None:
        if self._scope is not None:
            self._scope.cancel()
        elif self._runner is None:
            for task in list(self._queue):
                self.discard(task)

    def _end(self) -> None:
        """No task is run any more: forget them, and wake the tasks that wait at a barrier."""
        for task in list(self._queue):
            self.discard(task)
            if isinstance(task, _Barrier):
                task.passed.set()
        for task in list(self._due):
            self.discard(task)
        self._timers.clear()
        self._owner_loop.close()

    def _refuse(self, task: Task) -> None:
        if not isinstance(task, Task):
            raise TypeError(f"{task!r} is no Task; make one of a function, Task(function)")
        self._refuse_ended()
        self._owner_loop.check_thread()
        if task._queue not in (None, self) or task._clock not in (None, self):
            raise UsageError(
                f"{task!r} cannot be added to {self.name!r}; a task belongs to one queue at a "
                f"time, so discard it there first"
            )

    def _refuse_ended(self) -> None:
        if self.error is not None and not self._owner_loop.closed:
            raise self.error
        if self._owner_loop.closed:
            self._owner_loop.raise_misuse()

    def _add(self, task: Task) -> bool:
        if task._queue is self:
            self._coalesced += 1
            self._observer.tell(EventKind.COALESCED, task.name)
            return False
        self._queue[task] = None  # before the mark: an exception in between loses no wakeup
        task._queue = self
        self._added += 1
        self._signal()
        self._observer.tell(EventKind.QUEUED, task.name)
        return True

    def _add_due(self) -> None:
        """Add the tasks whose time has come, ahead of what is added from now on."""
        timers = self._timers
        if not timers or self._draining or not self._owner_loop.open:
            return
        now = self._owner_loop.now()
        while timers and timers[0][0] <= now:
            due, armed, task = heapq.heappop(timers)
            if self._due.get(task) == (due, armed):
                del self._due[task]
                task._clock = None
                self._add(task)

    async def _run(self) -> None:
        """Run the tasks until there is nothing to wait for, or the queue ends."""
        self._runner_id = anyio.get_current_task().id
        assert self._scope is not None
        try:
            with self._scope:
                while not self._draining and self.error is None:
                    self._add_due()
                    await self._run_round()
                    if self._queue:
                        await anyio.lowlevel.checkpoint()
                    elif not self._draining:
                        if not self._due:
                            self._timers.clear()
                            return
                        await self._wait_for_work()
                await self._run_round()
        except anyio.get_cancelled_exc_class() as cancelled:  # noqa: ASYNC103 - not the runner's
            if self._owner_loop.being_cancelled():
                raise
            self._fail(cancelled)
        except BaseException as error:
            self._fail(error)
            if self._owner_loop.on_asyncio and isinstance(error, KeyboardInterrupt | SystemExit):
                raise  # it ends the loop; on trio it would be an internal error, and the exit tells
        finally:
            self._runner_has_ended()

    def _runner_has_ended(self) -> None:
        self._runner = self._scope = self._work = None
        ended, self._ended = self._ended, None
        if ended is not None:
            ended.set()
        if self._owner_loop.open and not self._draining and self.error is None:
            if self._queue:
                self._owner_loop.call_later(0, self._signal)
            elif self._due:
                wait = min(self._due.values())[0] - self._owner_loop.now()
                self._owner_loop.call_later(max(0, wait), self._signal)

    def _fail(self, error: BaseException) -> None:
        """End the queue with the exception of a task, and tell it at once."""
        self.error = error
        logger().error("a task of %r failed, which ends the queue", self.name, exc_info=error)
        for task in list(self._queue):
            self.discard(task)
            if isinstance(task, _Barrier):
                task.passed.set()
        self.on_failure(error)

    async def _run_round(self) -> None:
        # Bounded: a task that adds itself again waits for the next round, so that the other
        # tasks of the loop get their turn, and the end comes.
        for _ in range(len(self._queue)):
            self._add_due()  # before the mark of the next is cleared, so that the two coalesce
            if self._queue:
                await self._run_one(self._queue.popitem(last=False)[0])

    async def _run_one(self, task: Task) -> None:
        task._queue = None  # before the call: an add from now on must queue it again
        task._runs += 1
        self._runs += 1
        self._observer.tell(EventKind.RUN, task.name)
        self._running = task
        try:
            result = task.function()
            if inspect.isawaitable(result):
                await result
        finally:
            self._running = None

    async def _wait_for_work(self) -> None:
        timers = self._timers
        while timers and self._due.get(timers[0][2]) != timers[0][:2]:
            heapq.heappop(timers)  # discarded, or set again
        deadline = self._owner_loop.loop_time(timers[0][0]) if timers else math.inf
        self._work = anyio.Event()
        with anyio.CancelScope(deadline=deadline):
            await self._work.wait()
        self._work = None

    def _signal(self) -> None:
        """Wake the runner; start one if there is none and there is something to do or wait for."""
        if self._work is not None:
            self._work.set()
        elif (
            self._runner is None
            and self._owner_loop.open
            and self.error is None
            and (self._queue or (self._due and not self._draining))
        ):
            self._scope, self._ended = anyio.CancelScope(), anyio.Event()
            self._runner = self._owner_loop.spawn(self._run, f"mbufpools {self.name}")

    def __repr__(self) -> str:
        return f"<TaskQueue {self.name!r}, {len(self._queue)} queued>"
