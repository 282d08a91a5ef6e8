"""The trio backend: trio's own scheduler, which asks a schedule which task runs next.

trio takes all tasks that can run as a batch, sorts it (`_ALLOW_DETERMINISTIC_SCHEDULING`) and has
its random source shuffle it. The lab's random source leaves the one chosen task in the batch and
puts the others back. Tasks of trio and of the lab run at once and are no choice; the service of a
library is one, also if it is a system task. trio asks the clock how long to sleep only when nothing
can run: then the clock jumps, or, without a deadline, the program has stalled.

Many executions share one `trio.run`, which takes longer to start than most of them take. The hooks
are private to trio; they are checked before use (`_private_names`) and removed at the end.
"""

from __future__ import annotations

import math
import queue
import random
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator, Set
from concurrent.futures import CancelledError as FutureCancelled
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from types import FrameType
from typing import Any, NoReturn
from weakref import ref  # a test may patch the name in `weakref`

import outcome
import trio
from trio._core import _asyncgens, _instrumentation, _run, _thread_cache
from trio._util import coroutine_or_error

from . import _interrupts, _lockstep, _running
from ._background import TICKS, is_service, only_ticks_on_trio
from ._cancellable import origin_of
from ._cancelling import declare_member, declare_spawn_on_trio, declare_wake
from ._declare import recorder
from ._instants import since_begin
from ._leaks import Leaks, keep_for_good
from ._lockstep import LabThread
from ._nested_trio import refuse_inside_trio, refusing_trio_runs
from ._options import Program
from ._oracles import Violated, oracles
from ._outcome import IO_REFUSED, LabError, Outcome, describe, first_line, only, refuse
from ._outsiders import THREAD_REFUSED, refuse_timer
from ._program import awaitable_of
from ._schedule import Cancel, Livelock, Ready, Schedule, Stop, new_ready
from ._steps import CLOCK, MAIN, OVER, RAISED, Name
from ._task_dump import location, task_dump
from ._trio_clock import Clock, is_called_soon
from ._trio_run import (
    CLOSES_GENERATOR,
    add_instruments,
    begin_run,
    close_generators,
    end_run,
    hide,
    logger_of_generators,
    unhide,
)
from ._trio_threads import ThreadCache
from ._virtual_clock import lift_shields
from ._wrong_backend import refuse_if_of_asyncio

__all__ = ["explore_on_trio"]


_instruments: Any = _instrumentation.Instruments
_io_manager: Any = vars(_run).get("TheIOManager")

_NOBODY: Set[Name] = frozenset()

EXECUTIONS = 500
"""Executions that share one run of trio."""
BATCHES = 100
"""Batches of trio's own tasks that may run in a row while a task of the program can run."""
TEARDOWN_BATCHES = 2000
"""Batches of tasks that trio may run after an execution, until its tasks have ended. A task that
goes on after it was cancelled takes more; then the run of trio is given up."""
ROUNDS_WITHOUT_TIME = 20
"""How often the lab looks whether the tasks are over that were left, before the clock may move."""
TEARDOWN_ROUNDS = 100
"""How often the clock lets a program that is torn down go on, before its shields are lifted."""


def explore_on_trio(
    program: Program,
    next_schedule: Callable[[], Schedule | None],
    done: Callable[[Schedule, Outcome], None],
    leaks: Leaks,
) -> None:
    """Execute `program` once for each schedule.

    Raises:
        LabError: the caller is inside a run of trio.
    """
    refuse_inside_trio()
    more = True
    with refusing_trio_runs():
        while more:
            backend = _Backend(program, next_schedule, done, leaks)
            with backend.hooked():
                more = backend.run()


class _GivenUp(BaseException):
    """Raised through trio's scheduler to end a run whose tasks do not end."""


class _Backend(trio.abc.Instrument):
    """Trio's random source, instrument and clock for the executions of one run."""

    def __init__(
        self,
        program: Program,
        next_schedule: Callable[[], Schedule | None],
        done: Callable[[Schedule, Outcome], None],
        leaks: Leaks,
    ) -> None:
        self._program = program
        self._next_schedule = next_schedule
        self._done = done
        self._leaks = leaks
        self.clock = Clock(self)
        self._schedule: Schedule | None = None
        self._scope: trio.CancelScope | None = None
        """The scope of the main task."""
        self._main_over: trio.Event | None = None
        self._broken: BaseException | None = None
        self._names: dict[trio.lowlevel.Task, Name] = {}
        """The tasks of the program that have not ended."""
        self._tasks: dict[Name, trio.lowlevel.Task] = {}
        """The same tasks, by name."""
        self._over: dict[int, tuple[ref[trio.lowlevel.Task], Name]] = {}
        """The tasks that have ended, by identity; the lab keeps none of them alive."""
        self._spawned = 0
        """The tasks of the program so far."""
        self._children: dict[Name, int] = {}
        self._ready: dict[Name, Ready] = {}
        """Since when each task can run that can, and why."""
        self._ends: dict[_run.Nursery, int] = {}
        self._nurseries: dict[Name, list[_run.Nursery]] = {}
        self._scopes: dict[Name, trio.CancelScope] = {}
        self._services: dict[Name, trio.CancelScope | None] = {}
        """The services of libraries; with a scope of its own if it is a system task."""
        self._system: dict[trio.lowlevel.Task, trio.CancelScope] = {}
        """The system tasks of the program, each with its scope. Only trio chooses when they run."""
        self._serving: dict[Name, trio.CancelScope] = {}
        """The scopes of the tasks that serve the program's threads."""
        self._threads = ThreadCache()
        self._spawning = ""
        """The module of what the task runs that is being made."""
        self._closes: str | None = None
        """The async generator that is closed because the program has ended."""
        self._until_idle: set[trio.lowlevel.Task] = set()
        """The tasks that wait until no other task can run."""
        self._busy_at = self._freed_at = 0.0
        """When a task has run last that does not, and when one of them has gone on."""
        self._starting_thread = False
        self._thread_error: Outcome | None = None
        self._how_over: dict[Name, str] = {}
        """How tasks have ended, in words; only while the schedule is noted in full."""
        self._foreign = self._asks_again = 0
        """Batches with tasks of trio's own since a task of the program ran, or the clock moved; and
        how many of them in a row were of the same tasks."""
        self._foreign_tasks: set[trio.lowlevel.Task] = set()
        """Those of the last one."""
        self._others_ran = False
        """Whether a task of trio has run since the last step."""
        self._batches = 0
        """Batches that trio has run since the last step of the execution."""
        self._ticks = 0
        self._quiet_since = 0
        self._origin = 0
        self._running: Name | None = None
        self._between = False
        """Whether what `run_sync_soon` has called for has still to begin, or a deadline to expire,
        so that a thread may come before it."""
        self._threads_come_first = False
        """Whether the deadlines that have come wait until what threads called for has begun."""
        self._timers_wait = False
        """Whether they wait until nothing else can run."""
        self._outcome = Outcome()
        self._ending = False
        self._executed: Schedule | None = None
        """The schedule of the execution that has begun and whose end was not told yet."""
        self._abandoned = False
        self._runner: _run.Runner | None = None

    @contextmanager
    def hooked(self) -> Iterator[None]:
        """Replace trio's own parts by the lab's, and put them back at the end."""
        spawn = _run.Runner.spawn_impl
        idle = _run.Runner.wait_all_tasks_blocked
        token: Any = trio.lowlevel.TrioToken
        put: list[tuple[Any, str, Any]] = [
            (token, "run_sync_soon", self._refuse_other_threads(token.run_sync_soon)),
            (_run, "_r", _Chooser(self)),
            (_run, "_ALLOW_DETERMINISTIC_SCHEDULING", True),
            (_thread_cache, "THREAD_CACHE", self._threads),
            (_instruments, "add_instrument", self._add_instruments()),
            (_asyncgens, "ASYNCGEN_LOGGER", logger_of_generators(self._generator_failed)),
            (trio._threads, "_send_message_to_trio", _send_message_to_trio),
            (_run.Deadlines, "expire", self._expiring(_run.Deadlines.expire)),
            (_run.Runner, "spawn_impl", self._spawn_in_scope(spawn)),
            (_run.Runner, "wait_all_tasks_blocked", self._noting_idle(idle)),
            *(
                (_io_manager, name, self._refuse_io(getattr(_io_manager, name)))
                for name in ("wait_readable", "wait_writable")
            ),
        ]
        before = [(owner, name, getattr(owner, name)) for owner, name, _ in put]
        for owner, name, value in put:
            setattr(owner, name, value)
        try:
            yield
        finally:
            for owner, name, value in before:
                setattr(owner, name, value)
            recorder.task_name = _unnamed  # else it would keep all

    def _spawn_in_scope(self, spawn: Any) -> Any:
        """Make each task run in a scope of its own, by which the lab can cancel it."""

        def spawn_impl(
            runner: _run.Runner, async_fn: Any, args: Any, nursery: Any, name: Any, **options: Any
        ) -> trio.lowlevel.Task:
            schedule = self._schedule
            title = str(name or getattr(async_fn, "__name__", ""))
            system = bool(options.get("system_task"))
            service = system and is_service(title)
            thread = self._starting_thread
            if (
                schedule is None
                or not (system or thread or schedule.cancel_by)
                or title.startswith(CLOSES_GENERATOR)
            ):
                return spawn(runner, async_fn, args, nursery, name, **options)  # type: ignore[no-any-return]
            scope = trio.CancelScope()

            def entered(*arguments: Any) -> Coroutine[Any, Any, None]:
                # Here, so that an error is that of the caller, and that the arguments are not kept.
                coroutine = coroutine_or_error(async_fn, *arguments)
                if thread:
                    return _in_hiding(scope, coroutine)
                if system:
                    return self._in_system_scope(scope, coroutine, title)
                return _in_scope(scope, coroutine)

            self._spawning = _module_of(async_fn)
            task: trio.lowlevel.Task = spawn(
                runner, entered, args, nursery, name or async_fn, **options
            )
            _name_coroutine(task.coro, async_fn)
            path = self._names.get(task)
            if system and not thread and path is None:
                self._system[task] = scope
                if not async_fn.__module__.startswith("trio."):
                    schedule.unscheduled.add(f"system task {title!r}")
            elif thread and path is not None:
                self._serving[path] = scope
                hide(task)
            elif path is not None:
                self._scopes[path] = scope
            if path in self._services:
                self._services[path] = scope if service else None
            return task

        return spawn_impl

    async def _in_system_scope(
        self, scope: trio.CancelScope, coroutine: Coroutine[Any, Any, Any], title: str
    ) -> None:
        """Run a system task in a scope of its own, and note its error, which would end trio."""
        try:
            await _in_scope(scope, coroutine)
        except BaseException as error:  # noqa: BLE001, ASYNC103 - it would end trio itself
            self._system_task_failed(title, error)

    def _system_task_failed(self, title: str, error: BaseException) -> None:
        """Note the error of a system task, with which `trio.run` would fail, and end the execution.

        A function that was called by `run_sync_soon` and raises is one of them.
        """
        if isinstance(error, LabError):
            self._broken = self._broken or error
        elif self._is_clean():
            what = (
                "a function that run_sync_soon has called"
                if title == "kill_everything"
                else f"the system task {title!r}"
            )
            self._outcome = Outcome(
                "exception",
                f"{what} failed, and trio with it: {describe(error)}",
                self._task_dump(),
                error=error,
            )
        if self._ending:
            oracles.end()
        else:
            self._end()

    def _refuse_other_threads(self, run_sync_soon: Any) -> Any:
        """Refuse calls of trio by threads that the program has not started, and note others."""
        explores = threading.get_ident()

        def refuse_other_threads(token: Any, *args: Any, **options: Any) -> None:
            explorer = threading.get_ident() == explores
            if not explorer and _lockstep.current() is None:
                raise refuse(THREAD_REFUSED)
            if self._runner is not None and token is not self._runner.trio_token:
                raise trio.RunFinishedError("run() has exited")  # that of an execution before
            if explorer and self._schedule is not None and _running.inside():
                self._schedule.unscheduled.add("run_sync_soon")
            run_sync_soon(token, *args, **options)

        return refuse_other_threads

    def _refuse_io(self, wait: Callable[..., Any]) -> Callable[..., Any]:
        """Refuse to wait for I/O in a task of the program; trio's own tasks do."""

        async def refuse_io(manager: Any, fd: Any) -> None:
            if trio.lowlevel.current_task() in self._names:
                raise refuse(IO_REFUSED)
            await wait(manager, fd)

        return refuse_io

    def run(self) -> bool:
        """Execute schedules in one run of trio; return whether there may be more."""
        try:
            more = trio.run(
                self.main, clock=self.clock, restrict_keyboard_interrupt_to_checkpoints=True
            )
        except trio.TrioInternalError as error:
            if not isinstance(error.__cause__, _GivenUp):
                self._note_broken_trio(error)
            more = True
        except BaseExceptionGroup as group:
            if _interrupts.raised_by(group):
                raise _interrupts.interrupt() from None
            raise
        finally:  # of a run that was given up, nothing else is run
            _lockstep.end()
            self._threads.end()
            _running.end()
        if self._abandoned:
            self._abandoned = False
            self._schedule = None
            self._finish_execution()
        return more

    def _note_broken_trio(self, error: trio.TrioInternalError) -> None:
        """Note that the program broke trio itself, as an error does whose ``str()`` raises."""
        if self._schedule is None or isinstance(error.__cause__, LabError):
            raise error.__cause__ if isinstance(error.__cause__, LabError) else error
        cause = error.__cause__ or error
        self._outcome = Outcome("exception", f"trio itself failed: {describe(cause)}", error=error)
        self._abandoned = True
        keep_for_good(self._runner)

    async def main(self) -> bool:
        """Execute one schedule after another; return whether there may be more."""
        self._runner = _run.GLOBAL_RUN_CONTEXT.runner
        trio.lowlevel.add_instrument(self)
        begin_run()
        nursery = trio.lowlevel.current_task().parent_nursery
        assert nursery is not None
        hide(trio.lowlevel.current_task())
        nursery._pending_starts += 1  # it stays open between two main tasks of the program
        try:
            with trio.CancelScope(shield=True):
                for _ in range(EXECUTIONS):
                    schedule = self._next_schedule()
                    if schedule is None:
                        return False
                    await self._execute(schedule, nursery)
                    self._finish_execution()
                    if nursery.cancel_scope.cancel_called:
                        break  # another run has a nursery that is not cancelled
            return True
        finally:
            nursery._pending_starts -= 1
            unhide()

    def _finish_execution(self) -> None:
        schedule, self._executed = self._executed, None
        if self._broken is not None:
            broken, self._broken = self._broken, None
            raise broken
        assert schedule is not None
        failed, self._thread_error = self._thread_error, None
        if failed is not None and self._outcome.kind is None and not self._outcome.stopped:
            self._outcome = failed
        refuse_if_of_asyncio(self._outcome.error)
        self._done(schedule, self._leaks.judge(self._outcome))

    async def _execute(self, schedule: Schedule, nursery: trio.Nursery) -> None:
        """Execute a schedule.

        The main task is in the `nursery` of trio's own for it, as in a run of its own.
        """
        recorder.task_name = self._name_of
        for table in (
            self._names,
            self._tasks,
            self._over,
            self._children,
            self._ready,
            self._ends,
            self._nurseries,
            self._scopes,
            self._services,
            self._how_over,
            self._serving,
            self._system,
        ):
            table.clear()
        self._batches = self._foreign = self._asks_again = self._spawned = 0
        self._foreign_tasks.clear()
        self._executed = schedule
        self._ticks = self._quiet_since = 0
        self._outcome = Outcome()
        self._origin, self._running, self._ending = 0, None, False
        self.clock.restart()
        oracles.begin(schedule, self.clock.current_time)
        self._leaks.begin()
        _running.begin(self.clock.moment, self.clock.pass_time, lambda: len(schedule.steps))
        _lockstep.begin(self)
        try:
            self._scope, self._main_over = trio.CancelScope(), trio.Event()
            self._schedule = schedule
            runner = _run.GLOBAL_RUN_CONTEXT.runner
            main = runner.spawn_impl(self._run_program, (), nursery, "main")
            _name_coroutine(main.coro, self._program)
            await self._main_over.wait()
            if not self._is_clean() and len(nursery.child_tasks) > 0:
                nursery.cancel_scope.cancel()
            await self._until_others_are_over()
            self._note_beside_main(nursery)
            if runner.asyncgens.alive:
                self._batches = 0
                name = f"{CLOSES_GENERATOR}s that are left"
                runner.spawn_system_task(close_generators, self._note_closed, name=name)
                await self._until_others_are_over()
                self._closes = None
            end_run(self)
            if oracles.active and self._is_clean():
                self._note_violated(oracles.over())
        finally:
            oracles.end()
            _lockstep.end()
            self._threads.end()
            _running.end()
            self._schedule = self._scope = self._main_over = None

    async def _until_others_are_over(self) -> None:
        """Wait for the tasks that are left; after a while, let the clock move."""
        rounds = 0
        while self._others_are_left():  # noqa: ASYNC110 - trio tells of no end of a system task
            rounds += 1
            if rounds <= ROUNDS_WITHOUT_TIME:
                await trio.lowlevel.checkpoint()
            else:
                await trio.sleep(min(2.0 ** (rounds - ROUNDS_WITHOUT_TIME - 10), 3600))

    def _add_instruments(self) -> Callable[..., None]:
        return add_instruments(self, _instruments.add_instrument, self._is_hiding)

    def _is_hiding(self) -> bool:
        """Return True while a task is made that serves a thread."""
        return self._starting_thread

    def _note_beside_main(self, nursery: trio.Nursery) -> None:
        """Note the errors of tasks that the program has started beside its main task, which end
        trio."""
        errors = list(nursery._pending_excs)
        nursery._pending_excs.clear()
        if errors and self._is_clean():
            self._outcome = Outcome(
                "exception",
                f"a task beside the main task failed, and trio with it: {describe(errors[0])}",
                error=errors[0],
            )
            oracles.end()

    def _note_closed(self, generator: str) -> None:
        self._closes = generator

    def _generator_failed(self, name: str) -> None:
        """Note that an error was raised where trio closed an async generator. trio logs it."""
        error = sys.exception()
        if isinstance(error, LabError):
            self._broken = self._broken or error
        elif error is not None and self._schedule is not None and self._is_clean():
            said = f"the async generator {name} failed where trio closed it: {describe(error)}"
            self._outcome = Outcome("exception", said, self._task_dump(), error=error)
            if self._ending:
                oracles.end()
            else:
                self._end()

    def _others_are_left(self) -> bool:
        """Return True if tasks are left that are in no nursery of the program's: system tasks, and
        those in which trio closes the async generators that the program has dropped."""
        runner = _run.GLOBAL_RUN_CONTEXT.runner
        assert runner.system_nursery is not None
        return (
            bool(self._tasks or self._system)
            or runner.entry_queue.size() > 0
            or any(map(_closes_generator, runner.system_nursery.child_tasks))
        )

    async def _run_program(self) -> None:
        assert self._scope is not None
        assert self._main_over is not None
        try:
            with self._scope:
                self._outcome.value = await awaitable_of(self._program)
        except BaseException as error:  # noqa: BLE001, ASYNC103 - it is what was found
            if not self._ending:
                self._note_error(error)
        finally:
            if not self._ending and self._schedule is not None:
                how = OVER
                if self._outcome.error is not None:
                    how += f": it raised {first_line(describe(self._outcome.error))}"
                self._schedule.stopped_at(how, since_begin(self.clock.current_time()))
                if oracles.active and self._is_clean():
                    self._note_violated(oracles.over(cancelled=self._outcome.cancelled))
            self._end()
            self._main_over.set()

    def _is_clean(self) -> bool:
        """Return True if nothing has failed in the execution, and it was not given up."""
        return self._outcome.kind is None and not self._outcome.stopped and self._broken is None

    def _note_violated(self, error: Violated | None) -> bool:
        """Note that an oracle does not hold, if it does not; return True then."""
        if error is not None:
            self._outcome = Outcome("exception", describe(error), self._task_dump(), error=error)
        return error is not None

    def _note_error(self, error: BaseException) -> None:
        schedule = self._schedule
        if isinstance(error, LabError):
            self._broken = error
        elif schedule is not None and schedule.injected and only(trio.Cancelled, error):
            self._outcome.cancelled = True
        else:
            self._outcome = Outcome("exception", describe(error), error=error)

    def _end(self) -> None:
        """End the execution: cancel the tasks that are left, in any order.

        If nothing has failed, this is the shutdown of the program, as at the end of `trio.run`:
        the oracles are asked after each batch of tasks, and `choose` offers its values.
        """
        if self._ending:
            return
        self._ending = True
        self._batches = 0
        if not self._is_clean():
            oracles.end()
        recorder.forget()
        assert self._scope is not None
        self._scope.cancel()
        if self._schedule is not None:
            self._schedule.note_left(_lockstep.left())
        _lockstep.end()
        if self._is_clean():
            _lockstep.begin(self)  # the clean-up of a system task or a generator may need a thread
        for serving in self._serving.values():
            serving.cancel()
        for path, scope in self._services.items():
            task = self._tasks.get(path)
            if scope is not None and task is not None:
                self._leaks.hear(f"the service {task.name!r} has outlived the program")
                scope.cancel()
        for scope in self._system.values():
            scope.cancel()

    def _give_up(self) -> NoReturn:
        """Leave the run of trio, since a task goes on after it was cancelled.

        What such a task does when its coroutine is collected is not in anyone's hands: a loop that
        catches everything would never end. So nothing of the run is ever collected.
        """
        self._abandoned = True
        if self._closes is not None and self._is_clean():
            self._outcome = Outcome(
                "livelock",
                f"the async generator {self._closes} does not end, which trio closes at the end of "
                f"its run",
            )
        keep_for_good(_run.GLOBAL_RUN_CONTEXT.runner)
        raise _GivenUp

    # What trio tells

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        """Called by trio, in the step of the task that spawns."""
        schedule = self._schedule
        nursery = task.parent_nursery
        service = is_service(task.name)
        if schedule is None or nursery is None:
            return
        system = nursery is _run.GLOBAL_RUN_CONTEXT.runner.system_nursery
        if system and not service and not self._starting_thread:
            return
        if self._running is None:
            path = MAIN if not self._spawned else (*MAIN, -1 - self._spawned)
        else:
            count = self._children.get(self._running, 0)
            self._children[self._running] = count + 1
            path = (*self._running, count)
        self._spawned += 1
        self._names[task] = path
        self._tasks[path] = task
        if service:
            self._services[path] = None
        origin = None
        if schedule.cancel_by and path != MAIN and schedule.policy is not None:
            origin = origin_of(task, task.name, schedule.policy, self._spawning)
        schedule.spawned(
            path,
            task.name,
            exempt=service,
            serves_thread=self._starting_thread,
            origin=origin,
        )
        if recorder.active:
            declare_spawn_on_trio(nursery._cancel_status)
            declare_member(nursery.cancel_scope)

    def task_exited(self, task: trio.lowlevel.Task) -> None:
        """Called by trio in the last step of a task.

        Like trio, the lab lets go of the task, of its context and of its error.
        """
        self._system.pop(task, None)
        path = self._names.pop(task, None)
        if path is None:
            return
        del self._tasks[path]
        self._over[id(task)] = ref(task), path
        self._scopes.pop(path, None)
        if self._schedule is None:
            return
        self._schedule.ended(path)
        if self._schedule.locations is not None:
            self._how_over[path] = _how_it_ended(_error_of_exit())
        nursery = task.parent_nursery
        if recorder.active and nursery is not None:
            declare_spawn_on_trio(nursery._cancel_status)  # a cancellation no longer reaches it
            declare_member(nursery.cancel_scope)
        for left in self._nurseries.pop(path, ()):
            del self._ends[left]
        # `Nursery.start` may have moved the task here from another nursery.
        parent = None if nursery is None else self._names.get(nursery.parent_task)
        if nursery is not None and parent is not None:
            self._ends[nursery] = self._ends.get(nursery, 0) | self._origin
            nurseries = self._nurseries.setdefault(parent, [])
            if nursery not in nurseries:
                nurseries.append(nursery)

    def _name_of(self, task: Any) -> Name | None:
        """Return the name of a task of the program, also of one that has ended."""
        name = self._names.get(task)
        if name is None and id(task) in self._over:
            over, name = self._over[id(task)]
            return name if over() is task else None
        return name

    # Threads of the program

    def start_thread(self, thread: LabThread) -> None:
        """Make the task that serves a thread of the program. The lab does not cancel it."""
        nursery = _run.GLOBAL_RUN_CONTEXT.runner.system_nursery
        assert nursery is not None
        closed, nursery._closed = nursery._closed, False  # to the program, at its end
        self._starting_thread = True
        try:
            trio.lowlevel.spawn_system_task(thread.serve, name=thread.title)
        finally:
            self._starting_thread = False
            nursery._closed = closed
        if self._schedule is not None:
            self._schedule.threaded = self._schedule.has_places = True

    def between_tasks(self, thread: LabThread) -> AbstractContextManager[object]:
        """Hide nothing: in a thread, trio has no present task."""
        return nullcontext()

    def runs_at_once(self, thread: LabThread) -> bool:
        """Choose whether a thread that can run does so in the middle of the step that runs, or
        before what trio does next."""
        schedule = self._schedule
        if schedule is None or self._ending or (self._running is None and not self._between):
            return False
        return schedule.runs_at_once(thread.title, between=self._between)

    def thread_failed(self, thread: LabThread, error: BaseException) -> None:
        """Note an exception that ended a thread, unless the lab cancelled what it waited for."""
        schedule = self._schedule
        injected = schedule is not None and schedule.injected
        cancelled = injected and (only(FutureCancelled, error) or only(trio.Cancelled, error))
        if self._thread_error is None and not cancelled:
            message = f"an exception has ended {thread.title}: {describe(error)}"
            self._thread_error = Outcome("exception", message, error=error)

    # What trio asks

    def choose(self, batch: list[trio.lowlevel.Task]) -> None:
        """Leave in the batch the task that runs next, and put the others back."""
        schedule = self._schedule
        if schedule is None:
            return
        if not self._ending and _interrupts.pending():
            self._broken = _interrupts.interrupt()
            self._end()
        if self._ending:
            if oracles.active and self._is_clean() and self._note_violated(oracles.broken()):
                oracles.end()
            self._batches += 1
            if self._batches > TEARDOWN_BATCHES:
                self._give_up()
            if schedule.stillness.polls_in_callbacks(self._batches):
                self.clock.move(schedule.stillness.patience())
            return
        if not all(map(self._names.__contains__, batch)) and not self._others_are_put_off(batch):
            self._let_others_run(schedule, batch)
            return
        self._foreign = self._asks_again = 0
        self._foreign_tasks.clear()
        if self._step_is_over(schedule):
            self._end()
            return
        tasks = batch.copy()
        batch.clear()
        chosen = self._choose(schedule, tasks)
        if chosen is None:
            return
        batch.append(chosen)

    def _let_threads_come_first(self) -> bool:
        """Let threads run before what trio does next, if that is chosen; return True if one ran."""
        self._between = True
        try:
            return _lockstep.give_way()
        finally:
            self._between = False

    def _expiring(self, expire: Any) -> Any:
        """Return `Deadlines.expire`, but for the deadlines at whose moment threads come first: what
        these have called for by `run_sync_soon` begins before them."""

        def expire_after_threads(deadlines: _run.Deadlines, now: float) -> bool:
            if self._timers_wait or (self._threads_come_first and is_called_soon()):
                return False
            self._threads_come_first = False
            return bool(expire(deadlines, now))

        return expire_after_threads

    def _others_are_put_off(self, batch: list[trio.lowlevel.Task]) -> bool:
        """Put trio's own tasks back, if they have run for long while tasks of the program can run,
        and return True. A function may ask `run_sync_soon` again and again to call it."""
        ours = [task for task in batch if task in self._names]
        if not ours or self._foreign < BATCHES:
            return False
        others = [task for task in batch if task not in self._names]
        _run.GLOBAL_RUN_CONTEXT.runner.runq.extend(others)
        batch[:] = ours
        return True

    def _let_others_run(self, schedule: Schedule, batch: list[trio.lowlevel.Task]) -> None:
        """Put the tasks of the program back, because trio's own are in the batch."""
        runq = _run.GLOBAL_RUN_CONTEXT.runner.runq
        if any(map(_lockstep.is_of_program, _called_soon())):
            self._let_threads_come_first()
        ours = [task for task in batch if task in self._names]
        self._foreign += 1
        self._others_ran = True
        if self._foreign > schedule.step_limit:
            self._outcome = Outcome(
                "livelock", "trio's own tasks go on, and no task of the program can run"
            )
            runq.extend(ours)
            self._end()
            return
        foreign = {task for task in batch if task not in self._names}
        self._asks_again = self._asks_again + 1 if foreign == self._foreign_tasks else 0
        self._foreign_tasks = foreign
        if not ours and self._is_still(schedule):
            try:
                self._move_clock(schedule)
            except (Livelock, LabError) as error:
                self._note_end(schedule, error)
                return
        self._batches += 1
        if self._batches > TEARDOWN_BATCHES and any(map(_closes_generator, batch)):
            self._outcome = Outcome(
                "livelock",
                "an async generator that was dropped goes on after it was cancelled",
                self._task_dump(),
            )
            self._end()
        others = [task for task in batch if task not in self._names]
        runq.extend(ours)
        batch[:] = others

    def _choose(
        self, schedule: Schedule, tasks: list[trio.lowlevel.Task]
    ) -> trio.lowlevel.Task | None:
        runq = _run.GLOBAL_RUN_CONTEXT.runner.runq
        ready, stillness = self._ready, schedule.stillness
        self._note_step(schedule, self._note_woken(schedule, tasks))
        try:
            while True:
                taken = len(schedule.steps)
                if taken >= stillness.look_at and stillness.lasts(taken, len(ready)):
                    self._move_clock(schedule)
                starting = self._starting() if schedule.may_cancel else _NOBODY
                choice = schedule.choose(ready.copy(), starting)
                if isinstance(choice, Cancel):
                    self._inject(choice)
                    tasks = [task for task in runq if task in self._names]
                    for task in tasks:
                        runq.remove(task)
                    self._note_woken(schedule, tasks)
                    continue
                break
            self._begin(schedule, choice, ready[choice])  # raises at the limit; all are put back
            del ready[choice]
            runq.extend(map(self._tasks.__getitem__, ready))
            return self._tasks[choice]
        except BaseException as error:  # noqa: BLE001, ASYNC103 - raised outside of trio's scheduler
            runq.extend(map(self._tasks.__getitem__, ready))
            ready.clear()
            self._note_end(schedule, error)
        return None

    def _note_end(self, schedule: Schedule, error: BaseException) -> None:
        """End the execution, because a choice or a move of the clock has raised `error`."""
        if isinstance(error, Stop):
            self._outcome.stopped = True
        elif isinstance(error, Livelock):
            self._outcome = Outcome("livelock", schedule.no_end(), self._task_dump())
        else:
            self._broken = error
        self._end()

    def _note_woken(self, schedule: Schedule, tasks: list[trio.lowlevel.Task]) -> list[Name]:
        """Note which of these tasks, all of which can run, could not run before; return their
        names."""
        ready, woken = self._ready, []
        for task in tasks:
            path = self._names[task]
            if path not in ready:
                woken.append(path)
                # trio keeps many of its tasks in sets, so of those that became ready in
                # one step no order is known; the schedule takes that of their names.
                taken = len(schedule.steps)
                causes = self._origin
                if task in self._until_idle and isinstance(task._next_send, outcome.Value):
                    causes = (1 << taken) - 1
                ready[path] = new_ready((taken, causes, taken))
        if recorder.active and schedule.steps:
            declare_wake(schedule.steps[-1], woken)
        return woken

    def _note_step(self, schedule: Schedule, woken: list[Name]) -> None:
        """Note whether the last step did no more than to give way, so that its task alone is ready
        again."""
        if schedule.steps:
            last = schedule.steps[-1].task
            if woken != [last] or self._others_ran or last in self._serving:
                schedule.stillness.works(len(schedule.steps))
        self._others_ran = False

    def _is_still(self, schedule: Schedule) -> bool:
        """Return True if the clock is to move although trio's own tasks can run: the same ones run
        again and again, or others wake each other so often that it would end as a livelock."""
        busy = self._foreign if self._foreign >= schedule.step_limit // 2 else 0
        return schedule.stillness.polls_in_callbacks(max(self._asks_again, busy))

    def _move_clock(self, schedule: Schedule) -> None:
        """Move the clock of a program that polls: to the next deadline, if it is not only that of a
        service that ticks, or else by a little."""
        deadlines = _run.GLOBAL_RUN_CONTEXT.runner.deadlines
        deadline = deadlines.next_deadline()
        ticks = self._ticks >= TICKS and only_ticks_on_trio(deadlines)
        if self.clock.current_time() < deadline < math.inf and not ticks:
            if recorder.active:
                raise schedule.stillness.refuse()
            self._ticks += 1
            self._origin = schedule.jumped()
            self.clock.jump(deadline)
        else:
            self.clock.move(schedule.stillness.patience())

    def _noting_idle(self, wait: Callable[..., Any]) -> Callable[..., Any]:
        """Note which tasks wait until no other can run."""

        async def wait_all_tasks_blocked(runner: _run.Runner, cushion: float = 0.0) -> None:
            task = trio.lowlevel.current_task()
            self._until_idle.add(task)
            try:
                await wait(runner, 0.0)
                # The cushion, which in trio is one of real time, is one of virtual time.
                self._busy_at = self.clock.moment()
                while (left := self._worked_at() + cushion - self.clock.moment()) > 0:
                    await trio.sleep(left)
                    await wait(runner, 0.0)
            finally:
                self._until_idle.discard(task)
                self._freed_at = self.clock.moment()

        return wait_all_tasks_blocked

    def _worked_at(self) -> float:
        """Return when a task has worked last. One that has waited until idle, too, and goes on at
        this moment, has not done so before others of its cushion."""
        freed = self._freed_at if self._freed_at < self.clock.moment() else 0.0
        return max(self._busy_at, freed)

    def _starting(self) -> Set[Name]:
        """Return the tasks whose start `Nursery.start` waits for."""
        return {
            path for path, task in self._tasks.items() if task._eventual_parent_nursery is not None
        }

    def _begin(self, schedule: Schedule, path: Name, ready: Ready) -> None:
        causes = ready.causes
        if path not in self._services:
            self._ticks, self._quiet_since = 0, len(schedule.steps) + 1
        nurseries = self._nurseries.get(path)
        if nurseries:
            for nursery in [it for it in nurseries if it._closed]:
                # The nursery has closed, so this step comes after every step of its tasks.
                nurseries.remove(nursery)
                causes |= self._ends.pop(nursery, 0)
        step = schedule.begin(path, causes)
        if self._tasks[path] not in self._until_idle:
            self._busy_at = self.clock.moment()
        self._running = path
        self._batches = 0
        self._origin = 1 << len(schedule.steps) - 1
        if recorder.active:
            recorder.task = path
            recorder.accesses = step.accesses

    def _step_is_over(self, schedule: Schedule) -> bool:
        """Note where the task stands that took the last step, and ask the oracles; return True if
        one does not hold."""
        if self._running is not None and schedule.locations is not None:
            task = self._tasks.get(self._running)
            where = self._how_over[self._running] if task is None else location(task.coro)
            schedule.stopped_at(where, since_begin(self.clock.current_time()))
        self._running = None
        return oracles.active and self._note_violated(oracles.broken())

    def _inject(self, choice: Cancel) -> None:
        scope = self._scopes.get(choice.task)
        if scope is not None:
            scope.cancel()

    def nothing_can_run(self, deadline: float) -> bool:
        """Called by the clock when no task can run. Return True if it may jump to `deadline`, which
        may be infinite."""
        schedule = self._schedule
        if schedule is None:
            return True
        if not self._ending and _interrupts.pending():
            self._broken = _interrupts.interrupt()
            self._end()
            return False
        if self._ending:
            self.clock.teardown_rounds += 1
            if self.clock.teardown_rounds > 10 * TEARDOWN_ROUNDS:
                self._give_up()  # a task waits in what cannot be cancelled
            if self.clock.teardown_rounds > TEARDOWN_ROUNDS:
                for task in list(self._names):
                    lift_shields(task)
            return True
        if self._step_is_over(schedule):
            self._end()
            return False
        if schedule.may_cancel:
            try:
                choice = schedule.choose({}, self._starting())
            except Stop:
                self._outcome.stopped = True
                self._end()
                return False
            if isinstance(choice, Cancel):
                self._inject(choice)
                return False
        deadlines = _run.GLOBAL_RUN_CONTEXT.runner.deadlines
        quiet = self._ticks >= TICKS and only_ticks_on_trio(deadlines)
        if deadline == math.inf or quiet:
            refuse_timer()
            self._outcome = Outcome(
                "stall",
                "every task waits, and nothing can wake one",
                self._task_dump(),
                quiet_since=self._quiet_since if self._ticks >= TICKS else None,
            )
            self._end()
            return False
        self._ticks += 1
        try:
            self._origin = schedule.jumped()
        except Livelock:
            self._outcome = Outcome("livelock", schedule.no_end(), self._task_dump())
            self._end()
            return False
        if recorder.active:
            recorder.task = CLOCK
            recorder.accesses = schedule.steps[-1].accesses
        return True

    def nothing_else_can_run(self) -> None:
        """Called by the clock when only the deadlines that have come are left."""
        self._timers_wait = False

    def clock_moved(self, come: int, later_ones: bool) -> None:
        """Called by the clock after it has moved to a deadline: so many have come, and perhaps
        later ones are set. Each thread that has slept has set one of those that have come."""
        self._foreign = self._asks_again = 0
        if self._schedule is not None:
            self._schedule.moved_to(since_begin(self.clock.current_time()))
            self._schedule.timed = self._schedule.timed or (later_ones and not self._ending)
            if not self._ending and 0 < _lockstep.count_late() < come:
                self._threads_come_first = self._let_threads_come_first()
                self._timers_wait = self._threads_come_first and self._schedule.timers_wait()

    def _task_dump(self) -> tuple[str, ...]:
        return task_dump(
            [
                (path, task.name, task.coro, path in self._ready)
                for task, path in self._names.items()
            ]
        )


def _unnamed(task: object) -> None:
    """Know no name of a task, because no execution runs."""


async def _in_scope(scope: trio.CancelScope, coroutine: Coroutine[Any, Any, Any]) -> None:
    """Run what a task runs in a scope of its own."""
    with scope:
        await coroutine


async def _in_hiding(scope: trio.CancelScope, coroutine: Coroutine[Any, Any, Any]) -> None:
    """Run what serves a thread in a scope of its own; the program does not see the task."""
    try:
        await _in_scope(scope, coroutine)
    finally:
        unhide()


def _module_of(function: Any) -> str:
    """Return the module of what a task runs."""
    while isinstance(function, partial):
        function = function.func
    return str(getattr(function, "__module__", ""))


def _name_coroutine(coroutine: Any, function: Any) -> None:
    """Call the coroutine around what a task runs as what it runs, for a program that looks."""
    while isinstance(function, partial):
        function = function.func
    name = getattr(function, "__name__", None)
    if isinstance(name, str):
        coroutine.__name__ = name
        coroutine.__qualname__ = getattr(function, "__qualname__", name)


def _error_of_exit() -> BaseException | None:
    """Return what the task has raised that exits now; trio tells its instruments of the task only,
    so it is looked for in the frame that calls them."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and frame.f_code.co_name != "task_exited":
        frame = frame.f_back
    ended = None if frame is None else frame.f_locals.get("outcome")
    return getattr(ended, "error", None)


def _how_it_ended(error: BaseException | None) -> str:
    """Say how a task has ended, which has raised an error or not."""
    if error is None:
        return OVER
    if only(trio.Cancelled, error):
        return f"{OVER}: it was cancelled"
    return f"{OVER}{RAISED}{first_line(describe(error))}"


def _called_soon() -> Iterator[Any]:
    """Yield the functions that `run_sync_soon` has called for, and that have not run."""
    entries = _run.GLOBAL_RUN_CONTEXT.runner.entry_queue
    for function, _ in (*entries.queue, *entries.idempotent_queue):
        yield function


def _closes_generator(task: trio.lowlevel.Task) -> bool:
    """Return True for a task in which trio closes an async generator that was dropped."""
    return task.name.startswith(CLOSES_GENERATOR)


class _Chooser(random.Random):
    """Replaces trio's random source."""

    def __init__(self, backend: _Backend) -> None:
        super().__init__(0)
        self._backend = backend

    def shuffle(self, batch: list[trio.lowlevel.Task]) -> None:  # type: ignore[override]
        """Called by trio with all tasks that can run."""
        if batch:
            self._backend.choose(batch)


_send: Any = trio._threads._send_message_to_trio


def _send_message_to_trio(token: Any, message: Any) -> Any:
    """Send trio a message as its own function does, but wait for the answer in lock-step."""
    if _lockstep.current() is not None:
        vars(message)["queue"] = (
            queue.SimpleQueue()
        )  # the class that is there while the lab explores
    return _send(token, message)
