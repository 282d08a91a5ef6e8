"""The asyncio backend: an event loop that asks a schedule which task runs next.

The clock is virtual, and I/O is refused. A thread of the program has a task that runs it step by
step. The schedule chooses among the steps of tasks; it does not choose among plain callbacks. Under
the run-on rule the callbacks that are ready run before each choice, in their order, and then those
that they have added, and so on. Only what adds itself again and again, as anyio's cancellation
does, waits for the next choice. Under the stock rule callbacks and steps keep the order in which
they were called for, as on asyncio's own loop; only a step that is delayed changes its place.

A step makes a task ready, directly or through callbacks. Each handle records which steps it was.
"""

from __future__ import annotations

import asyncio
import heapq
import inspect
import math
import sys
import threading
from collections import deque
from collections.abc import Callable, Container, Iterator, Set
from concurrent.futures import CancelledError as FutureCancelled
from contextlib import ExitStack, contextmanager, suppress
from contextvars import Context
from functools import partial
from typing import Any, NamedTuple
from weakref import ref  # a test may patch the name in `weakref`

from anyio._backends._asyncio import (  # scopes are made outside of a task, too
    CancelScope,
    _task_states,
)
from anyio._backends._asyncio import (
    TaskGroup as _TaskGroup,
)

from . import _interrupts, _lockstep, _running
from ._asyncio_tasks import (
    DeclaringTask,
    Driven,
    LabFuture,
    LabHandle,
    LabTask,
    LabTimer,
    cancel_for_good,
    check_future,
    close_if_not_begun,
    coroutine_of,
    declaring_futures,
    default_name,
    end_of,
    is_over,
    is_step,
    name_of,
    plain_future,
    plain_task,
    steppers,
    task_name,
    task_title,
    title_of,
)
from ._background import TICKS, is_service, only_ticks_on_asyncio
from ._cancellable import origin_of
from ._cancelling import declare_join, declare_member, declare_spawn
from ._declare import recorder
from ._instants import BEGIN, TOGETHER, cells, not_before, since_begin
from ._joins import declaring_joins
from ._leaks import Leaks, keep_for_good, weakly
from ._lockstep import LabThread, program_line
from ._nested_trio import is_trio_loaded, refuse_inside_trio, refusing_trio_runs
from ._options import Program
from ._oracles import Violated, oracles
from ._ordered_sets import OpenGenerators
from ._outcome import IO_REFUSED, LabError, Outcome, describe, only, refuse, type_name
from ._outsiders import THREAD_REFUSED, refuse_timer
from ._program import awaitable_of
from ._schedule import Cancel, Livelock, Ready, Schedule, Stop, new_ready
from ._signals import SignalHandlers
from ._steps import CLOCK, EVERYTHING, MAIN, Name, spell
from ._stillness import check_that_time_may_pass
from ._task_dump import location, task_dump
from ._virtual_time import OrderedTimer

__all__ = ["explore_on_asyncio"]


PASSES = 100
"""Passes of callbacks after a step, at most; callbacks that call for each other need one each."""
CAUSES = 5
"""Errors that are told as causes of a later failure, at most."""
CLOSER = "async_generator_athrow"
"""The type of what `aclose()` of an async generator returns."""
IDLE_PASSES = 16
"""Passes of callbacks, with no task ready, after which they are taken to only queue each other."""


def explore_on_asyncio(
    program: Program,
    next_schedule: Callable[[], Schedule | None],
    done: Callable[[Schedule, Outcome], None],
    leaks: Leaks,
) -> None:
    """Execute `program` once for each schedule.

    Raises:
        LabError: the caller is inside an event loop, or a run of trio.
    """
    refuse_inside_trio()
    try:
        running = asyncio.get_running_loop()
    except RuntimeError:
        running = None
    if running is not None:
        raise LabError(
            "the lab runs event loops of its own, so it cannot be called inside one; call it from "
            "a plain function or test"
        )
    hooks = sys.get_asyncgen_hooks()
    stack = ExitStack()
    try:
        if recorder.active:
            stack.enter_context(declaring_futures())
            stack.enter_context(declaring_joins(is_step))
        _group_class._spawn = _spawn_ours
        if _reparent is not None:
            _scope_class._reparent = _reparent_ours
        set_loop = stack.enter_context(_loop_of_policy())
        refuses_trio = False
        while (schedule := next_schedule()) is not None:
            if not refuses_trio and is_trio_loaded():  # perhaps only now, by the program
                refuses_trio = True
                stack.enter_context(refusing_trio_runs())
            loop = _Loop(schedule)
            oracles.begin(schedule, loop.time)
            leaks.begin()
            asyncio._set_running_loop(loop)
            set_loop(loop)
            sys.set_asyncgen_hooks(
                firstiter=loop._asyncgen_firstiter_hook,
                finalizer=loop._asyncgen_finalizer_hook,
            )
            try:
                outcome = loop.execute(program, leaks)
            finally:
                asyncio._set_running_loop(None)
                set_loop(None)
            outcome = leaks.judge(outcome)
            if outcome.kind is None and not outcome.stopped and loop.complaint is not None:
                outcome = loop.complaint  # of what was collected only now
            done(schedule, outcome)
            del outcome  # and what its error holds
    finally:
        sys.set_asyncgen_hooks(*hooks)
        stack.close()
        _group_class._spawn = _spawn
        if _reparent is not None:
            _scope_class._reparent = _reparent


@contextmanager
def _loop_of_policy() -> Iterator[Callable[[asyncio.AbstractEventLoop | None], None]]:
    """Yield what sets the event loop that the policy returns, as `asyncio.run` does. At the end it
    is the one that it was."""
    events: Any = asyncio.events
    # From Python 3.14 on the public function warns.
    policy = getattr(events, "_get_event_loop_policy", events.get_event_loop_policy)()
    local = getattr(policy, "_local", None)
    if local is None:  # a policy of another library
        yield lambda loop: None
        return

    def set_loop(loop: asyncio.AbstractEventLoop | None) -> None:
        local._loop, local._set_called = loop, True

    before = dict(vars(local))
    try:
        yield set_loop
    finally:
        vars(local).clear()
        vars(local).update(before)


class _Scope(CancelScope):
    """The scope that the lab puts around what a task runs, to cancel it."""

    lab_in_group = False
    """True if the task belongs to an anyio task group, which does not read the task's result."""

    def __exit__(self, *error: Any) -> bool:
        """Leave the scope, also if what ran in it has left a scope open or, as anyio's own
        `from_thread.run` does, has begun as if no scope were around it. Without the lab none is.
        """
        task: Any = self._host_task
        state = None if task is None else _task_states.get(task)
        if state is not None and state.cancel_scope is not self:
            state.cancel_scope = self
            self._tasks.add(task)
        return super().__exit__(*error)


_scope_class: Any = CancelScope
_group_class: Any = _TaskGroup
_reparent: Any = getattr(CancelScope, "_reparent", None)
"""Of anyio 4.14 and later."""


def _reparent_ours(scope: CancelScope, parent: CancelScope) -> None:
    """Move the lab's scope along with the task's: `TaskGroup.start` moves the scope of a task that
    has started into the group, and the lab's is around it."""
    outer = scope._parent_scope
    _reparent(outer if isinstance(outer, _Scope) else scope, parent)


_spawn: Any = _TaskGroup._spawn
_status_at: int = [*inspect.signature(_spawn).parameters, "task_status"].index("task_status")
"""Which argument it is, for a call without keywords: `Signature.bind` takes long."""


def _spawn_ours(*args: Any, **options: Any) -> Any:
    """Tell the loop that an anyio task group makes a task, and what waits for its start."""
    loop: Any = asyncio.get_running_loop()
    if not isinstance(loop, _Loop):
        return _spawn(*args, **options)
    status = args[_status_at] if len(args) > _status_at else options.get("task_status")
    loop.spawning = True, getattr(status, "_future", None)
    try:
        return _spawn(*args, **options)
    finally:
        loop.spawning = False, None


class _Called(NamedTuple):
    """A callback that was called for, and has not run yet."""

    handle: Any
    origin: int
    """The steps that caused it, as a mask."""
    order: int
    """Its place among all that was called for."""
    since: int
    """The number of steps up to the one that called for it, or for what called for it."""


_new_called: Callable[[tuple[Any, int, int, int]], _Called] = partial(tuple.__new__, _Called)
"""Make one, without the function of Python that a named tuple has for it."""


_NOBODY: Set[Name] = frozenset()
_BaseEventLoop: Any = asyncio.BaseEventLoop
"""Typed as Any, because `_Loop` overrides private methods of asyncio."""


class _Loop(_BaseEventLoop):  # type: ignore[misc]  # as it says
    """An event loop for one execution."""

    # In slots, since Python 3.11 is slow to set more attributes than 30 of an object without them.
    __slots__ = (
        "_aside",
        "_before",
        "_between",
        "_callbacks",
        "_cancelled_at_the_end",
        "_cause",
        "_chains",
        "_deadlines",
        "_due",
        "_eager",
        "_ends",
        "_happened",
        "_injecting",
        "_is_threadsafe",
        "_iteration_end",
        "_joined",
        "_last",
        "_made_in_callbacks",
        "_main",
        "_main_ended",
        "_makes",
        "_now",
        "_order",
        "_origin",
        "_quiet_since",
        "_ready",
        "_rounds",
        "_running",
        "_schedule",
        "_services",
        "_signals",
        "_since",
        "_starting",
        "_steps",
        "_stock",
        "_tasks",
        "_thread_id",
        "_threads",
        "_ticks",
        "_time_passed",
        "_timers_wait",
        "complaint",
        "spawning",
    )

    _closed = True
    """Until it is made: what is interrupted before has nothing to close."""

    def __init__(self, schedule: Schedule) -> None:
        super().__init__()
        self._asyncgens = OpenGenerators()  # type: ignore[misc]  # it is a slot of asyncio's loop
        self._now = BEGIN
        self._schedule = schedule
        self._steps: dict[Name, asyncio.Handle] = {}
        """The steps of the tasks that can run."""
        self._ready: dict[Name, Ready] = {}
        """Since when each of them can, and why."""
        self._callbacks: deque[_Called] = deque()
        """Each with the steps because of which it was called for, and its place in the order."""
        self._makes = False
        """Whether a future or a task is being made."""
        self._rounds = 0
        """Of callbacks, while no task could run."""
        self._order = 0
        """How many callbacks and steps of tasks were called for so far."""
        self._aside = 0
        """How many of them tell nothing about what the program does."""
        self._happened = 0
        """How many others there were up to the end of the last step."""
        self._stock = schedule.rule == "stock"
        self._eager = schedule.rule == "eager"
        self._due: list[tuple[OrderedTimer, int, int]] = []
        """Timers that are due and were not called for yet, what caused them, and since when."""
        self._deadlines: dict[int, tuple[float, int]] = {}
        """For each object that is the deadline of a timer, by identity: the object, and the place
        in the order of the first timer."""
        self._iteration_end = 0
        """The place in the order where the iteration of the loop ends."""
        self._main_ended = False
        self._last: int | None = None
        """Once the iteration has begun in which asyncio.run stops its loop: where it ends."""
        self._origin = 0
        """The steps that caused what runs now, as a mask."""
        self._since = 0
        """The number of steps up to the one that called for what runs now."""
        self._cause = 0
        """The steps that caused the callback that runs now, as a mask."""
        self._made_in_callbacks: dict[Name, int] = {}
        """How many tasks were made by the callbacks of each task."""
        self._chains: dict[int, tuple[Callable[[], object], int]] = {}
        """For the owner of each callback of asyncio or anyio that ran, by address: what returns it,
        if it is still alive, and all steps that caused its callbacks so far. An owner that counts
        callbacks, as `asyncio.gather` and task groups do, wakes its task only after all of these
        steps."""
        self._ends: dict[Name, int] = {}
        """The last step of each task that is over."""
        self._joined: dict[Name, int] = {}
        """For each task that learned that others are over: their last steps, which come before its
        next one."""
        self._tasks: dict[Name, ref[LabTask]] = {}
        self._running: Name | None = None
        self._injecting = bool(schedule.cancel_by)
        self.spawning: tuple[bool, Any] = False, None
        """Whether an anyio group is making a task, and the future of its start."""
        self._starting: dict[Name, asyncio.Future[Any]] = {}
        """Tasks whose start `TaskGroup.start` waits for, and the futures of their start."""
        self._services: set[Name] = set()
        """The services of libraries."""
        self._threads: dict[LabThread, LabTask] = {}
        """The threads of the program, each with the task that serves it."""
        self._between = False
        """Whether the next callback has still to begin, so that a thread may come before it."""
        self._signals = SignalHandlers(self._look, self.call_soon)
        self._is_threadsafe = False
        """Whether what runs has been called by `call_soon_threadsafe`."""
        self._time_passed = False
        """Whether the clock has moved in the middle of a step."""
        self._timers_wait = False
        """Whether timers that are due wait until nothing else can run."""
        self._ticks = 0
        self._quiet_since = 0
        self._cancelled_at_the_end: tuple[Name, ...] = ()
        self.complaint: Outcome | None = None
        """What asyncio, or a clean-up, has complained of first."""
        self._before: list[BaseException] = []
        """The errors that asyncio has complained of, as the causes of what failed later."""
        self._thread_id: int | None = threading.get_ident()
        self._main: LabTask | None = None

    # What asyncio asks of a loop

    def time(self) -> float:
        return self._now + _running.looks

    def get_debug(self) -> bool:
        """Return what a loop would return, but False while a future or a task is made, so that
        no traceback of where it was made is taken, which is slow."""
        return self._debug and not self._makes

    def create_future(self) -> asyncio.Future[Any]:
        self._makes = True
        try:
            return LabFuture(loop=self) if recorder.active else asyncio.Future(loop=self)
        finally:
            self._makes = False

    def create_task(
        self,
        coro: Any,
        *,
        name: object = None,
        context: Context | None = None,
        thread: LabThread | None = None,
        **options: Any,
    ) -> LabTask:
        if options:
            _check_options(options)
        parent = None if self._running is None else self._task(self._running)
        if self._main is None:
            path = MAIN
        elif parent is None:
            path = self._name_in_callback()
        else:
            path = (*parent.lab_name, parent.lab_children)
            parent.lab_children += 1
        scope = body = None
        if name is not None:
            name = str(name)  # as asyncio does
        service = name is not None and is_service(name)
        if service:
            self._services.add(path)
        is_plain = inspect.iscoroutine(coro)
        # The hook of asyncio makes a task that closes a generator which the program has dropped.
        closes = not is_plain and parent is None and type(coro).__name__ == CLOSER
        if (
            self._injecting
            and thread is None
            and not closes
            and (is_plain or asyncio.iscoroutine(coro))  # else it is refused below, as in reality
        ):
            scope = _Scope()
            scope.lab_in_group, started = self.spawning
            if started is not None:
                self._starting[path] = started
            # Python lets nobody await a coroutine that has begun; a task only goes on with it.
            is_new = is_plain and inspect.getcoroutinestate(coro) == inspect.CORO_CREATED
            body, coro = coro, _in_scope(coro if is_new else Driven(coro), scope)
        kind = DeclaringTask if recorder.active else LabTask
        task = kind.__new__(kind)
        task.lab_loop = self
        task.lab_name = path  # before the first step is called for
        task.lab_hash = hash(path)
        task.lab_children = 0
        task.lab_scope = scope
        task.lab_body = body
        self._tasks[path] = ref(task)
        # asyncio's own default counts the tasks of all executions.
        default = default_name(path)
        name = default if name is None else name
        self._makes = True
        try:
            task.__init__(coro, loop=self, name=name, context=context, **options)  # type: ignore[misc]  # as it is made
        finally:
            self._makes = False
        origin = None
        if self._injecting and path != MAIN and self._schedule.policy is not None:
            function = getattr(coro if body is None else body, "__qualname__", "")
            origin = origin_of(task, function, self._schedule.policy)
        title = title_of(name, default, path, coro if body is None else body)
        self._schedule.spawned(
            path,
            title,
            exempt=service or closes,
            serves_thread=thread is not None,
            origin=origin,
        )
        return task

    def start_thread(self, thread: LabThread) -> None:
        """Make the task that serves a thread of the program. The lab does not cancel it, and the
        program does not find it in `asyncio.all_tasks()`: in reality there is none. Its context is
        empty, so it keeps alive no value of a context variable."""
        task = self.create_task(thread.serve(), name=thread.title, context=Context(), thread=thread)
        asyncio._unregister_task(task)
        self._threads[thread] = task
        self._schedule.threaded = self._schedule.has_places = True

    @contextmanager
    def between_tasks(self, thread: LabThread) -> Iterator[None]:
        """Let `asyncio.current_task(loop)` be None while a thread runs in the step of its task."""
        task = self._threads.get(thread)
        if task is None or asyncio.current_task(self) is not task:  # a step of the program waits
            yield
            return
        asyncio._leave_task(self, task)
        try:
            yield
        finally:
            asyncio._enter_task(self, task)

    def runs_at_once(self, thread: LabThread) -> bool:
        """Choose whether a thread that can run does so in the middle of the step that runs, or
        before the next callback; not in the middle of a callback."""
        return (self._running is not None or self._between) and self._schedule.runs_at_once(
            thread.title, between=self._between
        )

    def thread_failed(self, thread: LabThread, error: BaseException) -> None:
        """Complain of an exception that has ended a thread, but not if the lab has cancelled what
        the thread waited for."""
        cancelled = bool(self._schedule.injected) and only(FutureCancelled, error)
        if self.complaint is None and not cancelled:
            message = f"an exception has ended {thread.title}: {_shown(error)}"
            self.complaint = Outcome("exception", message, error=error)

    def _name_in_callback(self) -> Name:
        """Return the name for a task that a callback makes: a child of the task whose step has
        called for the callback."""
        steps = self._schedule.steps
        cause = steps[self._cause.bit_length() - 1].task if self._cause else MAIN
        parent = MAIN if cause == CLOCK else cause
        count = self._made_in_callbacks.get(parent, 0)
        self._made_in_callbacks[parent] = count + 1
        return (*parent, -1 - count)

    def named(self, task: LabTask) -> None:
        self._schedule.renamed(task.lab_name, task_title(task))
        if is_service(task_name(task)):
            self._services.add(task.lab_name)
            self._schedule.exempt(task.lab_name)

    def call_soon(self, callback: Any, *args: Any, context: Context | None = None) -> Any:
        if self._threads and not self._is_threadsafe:
            self._note_unsafe("call_soon")
        handle = LabHandle(callback, args, self, context)
        self._order = order = self._order + 1
        task: Any = getattr(callback, "__self__", None)
        if type(callback) in steppers or (isinstance(task, plain_task) and is_step(callback)):
            if args and recorder.active:
                check_future(args[0])
            if not isinstance(task, LabTask):
                raise refuse(
                    "the program makes a task by asyncio.Task(...), whose steps the lab cannot "
                    "choose; make it by asyncio.create_task or a task group"
                )
            name = task.lab_name
            self._steps[name] = handle
            self._ready[name] = new_ready((len(self._schedule.steps), self._origin, order))
        else:
            self._callbacks.append(_new_called((handle, self._origin, order, self._since)))
            if isinstance(task, CancelScope):  # as `_is_retry` says
                self._aside += 1
        return handle

    def call_soon_threadsafe(
        self, callback: Any, *args: Any, context: Context | None = None
    ) -> Any:
        if threading.get_ident() != self._thread_id and _lockstep.current() is None:
            raise refuse(THREAD_REFUSED)
        self._is_threadsafe = True
        try:
            return self.call_soon(callback, *args, context=context)
        finally:
            self._is_threadsafe = False

    def _note_unsafe(self, method: str) -> None:
        """Complain if a thread of the program calls the loop while the loop may be asleep."""
        if self.complaint is None and _lockstep.runs_beside_the_loop():
            error = RuntimeError(
                f"a thread calls {method} of the event loop, at {program_line()}, which only the "
                f"loop's own thread may: a loop that sleeps is not woken by it. Call "
                f"loop.call_soon_threadsafe or asyncio.run_coroutine_threadsafe in the thread"
            )
            self.complaint = Outcome("exception", describe(error), error=error)

    def call_at(
        self, when: float, callback: Any, *args: Any, context: Context | None = None
    ) -> Any:
        if self._threads:
            self._note_unsafe("call_at")
        self._order += 1
        self._aside += 1
        kind = LabTimer if recorder.active else OrderedTimer
        # Timers of one deadline, such as those of `asyncio.timeout_at(deadline)`, come out of
        # asyncio's heap in an order of the heap's own. Of two deadlines that are only equal, since
        # virtual time has stood still, the one that was computed later would be later.
        _, number = self._deadlines.setdefault(id(when), (when, self._order))
        timer: Any = kind(number, when, callback, args, self, context)
        if recorder.active:
            timer.lab_resource = recorder.made(timer, "timer")
            for cell in cells(when):  # which of two is first can matter
                recorder.touch(("timer", cell), True)
        if when <= self.time():  # asyncio looks at timers once in an iteration
            self._due.append((timer, self._origin, self._since))
            self._time_passed |= self._timers_wait  # the loop looks at all timers that are due
        else:
            heapq.heappush(self._scheduled, timer)
            timer._scheduled = True
        return timer

    def _timer_handle_cancelled(self, handle: Any) -> None:
        pass

    def stop(self) -> None:
        raise refuse("the program stops the event loop; the lab runs it until the program ends")

    def set_task_factory(self, factory: Any) -> None:
        if factory is not None:
            raise refuse("the program sets a task factory; the lab makes the tasks itself")

    def _refuse_io(self, *_args: Any, **_options: Any) -> Any:
        raise refuse(IO_REFUSED)

    add_reader = add_writer = remove_reader = remove_writer = _refuse_io
    sock_recv = sock_recv_into = sock_sendall = sock_connect = sock_accept = _refuse_io
    sock_recvfrom = sock_recvfrom_into = sock_sendto = sock_sendfile = sendfile = _refuse_io
    start_tls = connect_accepted_socket = _refuse_io
    create_connection = create_server = create_datagram_endpoint = _refuse_io
    create_unix_connection = create_unix_server = getaddrinfo = getnameinfo = _refuse_io
    subprocess_exec = subprocess_shell = connect_read_pipe = connect_write_pipe = _refuse_io

    def add_signal_handler(self, sig: int, callback: Any, *args: Any) -> None:
        self._schedule.signals = True
        self._signals.add(sig, callback, args)

    def remove_signal_handler(self, sig: int) -> bool:
        return self._signals.remove(sig)

    def _look(self, callback: Callable[[int], None], signum: int) -> None:
        """Call `callback` where asyncio's loop sees that a signal has come. It is behind what is
        ready when the next iteration begins, as are the timers that are due, but before them."""
        self._order += 1
        event = OrderedTimer(self._order, -math.inf, callback, (signum,), self, None)
        self._due.append((event, self._origin, self._since))

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        """Complain, instead of a line in the log. A handler of the program may call this; asyncio
        does so if there is none, or if it fails."""
        error = context.get("exception")
        if isinstance(error, Exception) and len(self._before) < CAUSES:
            self._before.append(error)
        is_end = isinstance(error, asyncio.CancelledError) and "handle" not in context
        if self.complaint is None and not is_end:
            self.complaint = Outcome(
                "exception",
                f"{context.get('message', 'a callback failed')}"
                f"{'' if error is None else f': {_shown(error)}'}{_of_task(context)}",
                error=error,
            )

    # One execution

    def execute(self, program: Program, leaks: Leaks) -> Outcome:
        """Run `program` until it ends, stalls, or reaches the step limit."""
        recorder.task_name = name_of
        _running.begin(lambda: self._now, self._pass_time, self._turn)
        _lockstep.begin(self)
        try:
            self._main = main = self.create_task(_call(program))
            outcome = self._drive(main)
            if oracles.active and outcome.kind is None and not outcome.stopped:
                violated = oracles.over(cancelled=outcome.cancelled)
                if violated is not None:
                    outcome = self._violated(violated)
            if not outcome.stopped:  # else a task that would have looked did not get to it
                self._look_for_services(leaks)
                if outcome.kind is None:
                    try:
                        outcome = self._shut_down(outcome)
                    except SystemExit as error:  # of a callback
                        self._note_exit(error)
                self._look_for_lost_errors()
        finally:
            try:
                self._tear_down()
            finally:
                self._forget()
        if outcome.kind is not None:
            outcome.causes = tuple(it for it in self._before if it is not outcome.error)
        if outcome.kind is None and not outcome.stopped and self.complaint is not None:
            outcome = self.complaint
        outcome.cancelled_at_the_end = self._cancelled_at_the_end
        return outcome

    def _drive(self, main: asyncio.Task[Any]) -> Outcome:
        steps, callbacks, schedule, stock = (
            self._steps,
            self._callbacks,
            self._schedule,
            self._stock,
        )
        taken, stillness = schedule.steps, schedule.stillness
        idle = spins = passes = 0
        try:
            while True:
                _interrupts.check()
                if self._time_passed:
                    self._call_for_due_timers()
                if self._due and not steps and not callbacks:
                    self._begin_iteration()
                if stock:
                    if callbacks:
                        first = min((it.order for it in self._ready.values()), default=math.inf)
                        self._run_callbacks(first)
                        schedule.has_places |= bool(callbacks)
                elif callbacks or self._due:
                    schedule.has_places |= bool(steps)
                    self._begin_iteration()
                    passes += self._run_chains()
                ready = self._ready.copy()
                if is_over(main):
                    # asyncio.run still runs what is called for in the iteration in which its main
                    # task ends, but no step that this calls for in the next iteration, the last.
                    last = math.inf if self._last is None else self._last
                    schedule.has_places |= bool(ready)
                    ready = {name: it for name, it in ready.items() if stock and it.order <= last}
                    if not ready:
                        schedule.left = self._ready.copy()
                        return self._result(main)
                if not steps:
                    late = bool(self._due) or self._time_passed
                    if late or (callbacks and idle < IDLE_PASSES):
                        idle += not late and all(map(_is_retry, callbacks))
                        spins += 1
                        passes += 1
                        self._rounds += 1
                        if spins > schedule.step_limit:
                            raise Livelock
                        if stillness.polls_in_callbacks(passes) and self._let_time_pass():
                            passes = 0
                        continue
                idle = spins = passes = 0
                if (
                    len(taken) >= stillness.look_at
                    and steps
                    and stillness.lasts(len(taken), len(ready))
                    and self._let_time_pass()
                ):
                    continue
                if steps or schedule.may_cancel:
                    starting = self._starting_now() if self._starting else _NOBODY
                    choice = schedule.choose(ready, starting)
                    if isinstance(choice, Cancel):
                        self._inject(choice)
                        continue
                    if choice != CLOCK:
                        self._step(choice)
                        continue
                if not self._jump():
                    refuse_timer()
                    return Outcome(
                        "stall",
                        "every task waits, and nothing can wake one",
                        self._task_dump(),
                        quiet_since=self._quiet_since if self._ticks >= TICKS else None,
                    )
        except Livelock:
            return Outcome("livelock", schedule.no_end(spins), self._task_dump())
        except Stop:
            return Outcome(stopped=True)
        except Violated as error:
            return self._violated(error)
        except SystemExit as error:
            return Outcome("exception", describe(error), error=error)

    def _starting_now(self) -> Set[Name]:
        """Return the tasks that have been called for, and have not started yet."""
        return {name for name, started in self._starting.items() if not is_over(started)}

    def _violated(self, error: Violated) -> Outcome:
        return Outcome("exception", describe(error), self._task_dump(), error=error)

    def _ask_oracles(self) -> None:
        """Raise Violated if an oracle does not hold."""
        violated = oracles.broken()
        if violated is not None:
            raise violated

    def _look_for_lost_errors(self) -> None:
        """Complain of exceptions that no task has looked at. asyncio does so when the task that
        raised is collected, which may be never."""
        for reference in self._tasks.values():
            task: Any = reference()
            if (
                task is not None
                and task is not self._main
                and is_over(task)
                and task._log_traceback
            ):
                self.call_exception_handler(
                    {
                        # asyncio's own words for a task that is collected
                        "message": "Task exception was never retrieved",
                        "exception": task.exception(),
                        "future": task,
                    }
                )

    def _look_for_services(self, leaks: Leaks) -> None:
        for name in sorted(self._services):
            task = self._task(name)
            if task is not None and not is_over(task):
                leaks.hear(f"the service {task_name(task)!r} has outlived the program")

    def _step(self, name: Name) -> None:
        handle, ready = self._steps[name], self._ready[name]
        if self._stock:
            # A callback that was called for before this step may not be overtaken by it: anyio's
            # cancellation, for one, depends on that.
            if self._callbacks:
                self._run_callbacks(ready.order)
            if ready.order > self._iteration_end:
                self._begin_iteration()
        schedule, causes = self._schedule, ready.causes
        if name in self._joined:
            causes |= self._joined.pop(name)
        step = schedule.begin(name, causes)  # at the limit it raises
        del self._steps[name], self._ready[name]
        taken = len(schedule.steps)
        if name not in self._services:
            self._ticks, self._quiet_since = 0, taken
        if recorder.active:
            recorder.task = name
            recorder.accesses = step.accesses
        self._origin = 1 << taken - 1
        self._since = taken
        self._running = name
        task = self._tasks[name]()
        if step.number == 1 and task is not None and task._must_cancel:  # type: ignore[attr-defined]  # asyncio's own
            schedule.never_entered(name)
            close_if_not_begun(task)
        if not handle._cancelled:
            handle._run()
        self._running = None
        happened = self._order - self._aside
        gave_way = happened == self._happened + 1 and name in self._steps
        self._happened = happened
        if not gave_way or (self._threads and self._serves(task)):
            schedule.stillness.works(taken)
        if task is None or is_over(task):
            self._main_ended = self._main_ended or name == MAIN
            self._ends[name] = self._origin
            schedule.ended(name)
            if recorder.active:
                self._declare_end(name, task)
        if schedule.locations is not None:
            over = task is None or is_over(task)
            coroutine = None if task is None else coroutine_of(task)
            where = end_of(task) if over else location(coroutine)
            schedule.stopped_at(where, since_begin(self._now))
        del handle, task  # an exception of the task may keep this frame, and so would keep the task
        if oracles.active:
            self._ask_oracles()

    def _serves(self, task: LabTask | None) -> bool:
        """Return True if a task serves a thread of the program."""
        return any(task is serving for serving in self._threads.values())

    def _declare_end(self, name: Name, task: LabTask | None) -> None:
        recorder.touch((name, "end"), True)
        if name == MAIN:
            recorder.touch(EVERYTHING, True)  # after it no task runs
        # Of siblings that end well the order does not matter; `asyncio.gather` and task groups act
        # on the first that fails.
        failed = task is not None and task.failed()
        recorder.touch((name[:-1], "children"), failed)
        state = None if task is None else _task_states.get(task)
        if state is not None and state.cancel_scope is not None:
            declare_spawn(state.cancel_scope)  # a cancellation no longer reaches it
            declare_join(state.cancel_scope._host_task, failed)
            declare_member(state.cancel_scope)

    def _is_held(self, called: _Called) -> bool:
        """Return True if a callback must wait for a step that was called for before it: for the
        only one that can run. If several can run, the task may be late."""
        if len(self._steps) != 1 or self._eager:
            return False
        ((name, handle),) = self._steps.items()
        return _holds(handle, self._ready[name], called)

    def _run_chains(self) -> int:
        """Run all callbacks, those that they call for in turn, and so on; but not those that wait
        for a step. Return how many passes that took."""
        passes = 0
        while passes < PASSES:
            self._run_callbacks()
            passes += 1
            if all(_is_retry(entry) or self._is_held(entry) for entry in self._callbacks):
                break
        return passes

    def _run_callbacks(self, before: float = math.inf) -> None:
        """Run the callbacks that were called for before a place in the order; one pass of them."""
        held: list[_Called] = []
        try:
            self._run_those_not_held(before, held)
        finally:
            if held:
                self._callbacks.extendleft(reversed(held))

    def _run_those_not_held(self, before: float, held: list[_Called]) -> None:
        for _ in range(len(self._callbacks)):
            handle: Any
            order = self._callbacks[0].order
            if order > before:
                break
            if order > self._iteration_end:
                self._begin_iteration()
            called = self._callbacks.popleft()
            handle, origin = called.handle, called.origin
            self._since = len(self._schedule.steps)  # it may have been held while one was taken
            if handle._cancelled:
                continue
            if self._is_held(called):
                held.append(called)
                continue
            function = handle._callback
            if self._threads and _lockstep.is_of_program(function):
                self._let_threads_come_first()
                if handle._cancelled:
                    continue
            self._cause = origin
            if recorder.active and _is_of_library(function):
                owner = _owner(function)
                chain = self._chains.get(id(owner))
                if chain is not None and chain[0]() is owner:
                    origin |= chain[1]
                self._chains[id(owner)] = (weakly(owner), origin)
            self._origin = origin
            if recorder.active and isinstance(getattr(function, "__self__", None), CancelScope):
                # The cancellation has recorded which tasks it reaches; here it tries again.
                with recorder.elsewhere():
                    handle._run()
            else:
                handle._run()

    def _let_threads_come_first(self) -> bool:
        """Let threads run before the next callback, if that is chosen; return True if one ran."""
        since = self._since
        self._since = len(self._schedule.steps)
        self._between = True
        try:
            return _lockstep.give_way()
        finally:
            self._between, self._since = False, since

    def _let_threads_come_before_timers(self, timers: int) -> bool:
        """Let the threads whose wait is over run before the loop calls for so many timers, if that
        is chosen; return True if one ran. Each of these threads has set one of the timers."""
        comes_with_others = bool(self._threads) and 0 < _lockstep.count_late() < timers
        return comes_with_others and self._let_threads_come_first()

    def _begin_iteration(self) -> None:
        """Put the timers that are due behind all that is ready, as asyncio does at the beginning of
        each iteration."""
        if self._time_passed:
            self._call_for_due_timers()
        if self._due:
            self._let_threads_come_before_timers(len(self._due))
            self._due.sort(key=lambda entry: entry[0])
            for timer, origin, since in self._due:
                self._order += 1
                self._callbacks.append(_Called(timer, origin, self._order, since))
            self._due.clear()
        self._iteration_end = self._order
        if self._main_ended and self._last is None:
            self._last = self._order

    def _can_jump(self) -> bool:
        """Return True if a timer is set, and not only those of services that tick."""
        if not self._is_timer_set():
            return False
        return self._ticks < TICKS or not only_ticks_on_asyncio(self, self._scheduled)

    def _let_time_pass(self) -> bool:
        """Move the clock of a program that polls: to the next timer, and return True; or, if there
        is none, a little."""
        stillness = self._schedule.stillness
        if recorder.active and self._can_jump():
            raise stillness.refuse()
        if self._jump():
            return True
        self._move_clock(stillness.patience())
        return False

    def _jump(self) -> bool:
        if not self._can_jump():
            return False
        if oracles.active:
            self._ask_oracles()  # a callback may have kept a promise since the last step
        self._ticks += 1
        self._origin = self._schedule.jumped()
        self._since = len(self._schedule.steps)
        if recorder.active:
            recorder.task = CLOCK
            recorder.accesses = self._schedule.steps[-1].accesses
        self._fire()
        self._schedule.moved_to(since_begin(self._now))
        if oracles.active:
            self._ask_oracles()
        return True

    def _is_timer_set(self) -> bool:
        timers = self._scheduled
        while timers and timers[0]._cancelled:
            heapq.heappop(timers)
        return bool(timers) and timers[0]._when < math.inf

    def _fire(self) -> None:
        """Move the clock to the first timer, and call for all timers of that time, in the order in
        which they were set; those that have the same object as their deadline as the heap has them.
        Those whose time has passed already come before them, in the order of their deadlines."""
        timers = self._scheduled
        now = self.time()
        until = max(now, timers[0]._when + TOGETHER)
        due: list[Any] = []
        while timers and timers[0]._when <= until:
            timer = heapq.heappop(timers)
            if not timer._cancelled:
                due.append(timer)
        self._now = max(self._now, not_before(due[-1]._when - _running.looks))
        if self._let_threads_come_before_timers(len(due)) and self._schedule.timers_wait():
            self._timers_wait = True
            for timer in due:
                heapq.heappush(timers, timer)
            return
        self._timers_wait = False
        for timer in sorted(
            due, key=lambda it: (it._when if it._when <= now else math.inf, it.number)
        ):
            self._order += 1
            self._callbacks.append(_Called(timer, self._origin, self._order, self._since))
        self._schedule.timed = self._schedule.timed or self._is_timer_set()

    def _pass_time(self, seconds: float) -> None:
        check_that_time_may_pass()
        self._move_clock(seconds)

    def _move_clock(self, seconds: float) -> None:
        self._now = not_before(self._now + seconds)
        self._time_passed = True

    def _turn(self) -> int:
        return len(self._schedule.steps) + self._rounds

    def _call_for_due_timers(self) -> None:
        """Call for the timers whose time has passed in the middle of a step."""
        self._time_passed = False
        timers = self._scheduled
        while timers and timers[0]._when <= self.time():
            timer = heapq.heappop(timers)
            if timer._cancelled:
                continue
            self._due.append((timer, self._origin, len(self._schedule.steps)))

    def _inject(self, choice: Cancel) -> None:
        task = self._task(choice.task)
        if task is None or is_over(task):
            return
        # Tasks that await each other in a circle cannot be cancelled: who tries gets this error.
        with suppress(RecursionError):
            if choice.by == "native":
                task.cancel()
            elif task.lab_scope is not None:
                task.lab_scope.cancel()

    def join_end(self, name: Name) -> None:
        """Note that the running step learns that a task is over.

        What the step schedules from now on, and its next step, come after all steps of that task.
        """
        self.join_steps(self._ends.get(name, 0))

    @property
    def running(self) -> Name | None:
        """The task whose step runs, or None in a callback."""
        return self._running

    @property
    def steps_taken(self) -> int:
        """How many steps there were so far, with the one that runs."""
        return len(self._schedule.steps)

    @property
    def origin(self) -> int:
        """The steps that caused what runs now, as a mask."""
        return self._origin

    def join_steps(self, steps: int) -> None:
        """Note that the running step learns that these steps were taken."""
        self._origin |= steps
        if self._running is not None:
            self._joined[self._running] = self._joined.get(self._running, 0) | steps

    def _task(self, name: Name) -> LabTask | None:
        reference = self._tasks.get(name)
        return None if reference is None else reference()

    def _result(self, main: asyncio.Task[Any]) -> Outcome:
        try:
            return Outcome(value=main.result())
        except asyncio.CancelledError as error:  # noqa: ASYNC103 - of another task
            if self._schedule.injected:  # the lab cancelled a task, and the program ended
                return Outcome(cancelled=True)  # noqa: ASYNC104 - as it says
            return Outcome(  # noqa: ASYNC104 - as above
                "exception", "the program was cancelled, but not by the lab", error=error
            )
        except LabError:
            raise
        except BaseException as error:  # noqa: BLE001 - it is what was found
            if only(asyncio.CancelledError, error) and self._schedule.injected:
                return Outcome(cancelled=True)
            return Outcome("exception", describe(error), error=error)

    # The end

    def _task_dump(self) -> tuple[str, ...]:
        tasks = [task for reference in self._tasks.values() if (task := reference()) is not None]
        return task_dump(
            [
                (task.lab_name, task_title(task), coroutine_of(task), task.lab_name in self._steps)
                for task in tasks
                if not is_over(task)
            ]
        )

    def _shut_down(self, outcome: Outcome) -> Outcome:
        """Do what `asyncio.run` does when its main task is over: cancel the tasks that are left,
        wait until they are over, and close the async generators. This happens in one order. The
        oracles are asked after each step, and `choose` offers its values, as before."""
        self._schedule.close()
        self._injecting = False
        recorder.forget()
        serving = set(self._threads.values())
        left = [
            task
            for reference in self._tasks.values()
            if (task := reference()) is not None and not is_over(task) and task not in serving
        ]
        self._cancelled_at_the_end = tuple(sorted(task.lab_name for task in left))
        for task in left:
            close_if_not_begun(task)
            try:
                super(LabTask, task).cancel()
            except RecursionError as error:
                return Outcome(
                    "exception",
                    f"the main task has ended, but asyncio.run would not: it cancels the tasks "
                    f"that are left, and some of them await each other ({describe(error)})",
                    self._task_dump(),
                    error,
                )
        failed = self._finish(left)
        for task in left if failed is None else ():
            if isinstance(task._exception, LabError):
                raise task._exception
            if task.failed() and not plain_future.cancelled(task):
                self.call_exception_handler(
                    {
                        # asyncio's own words
                        "message": "unhandled exception during asyncio.run() shutdown",
                        "exception": task.exception(),
                        "task": task,
                    }
                )
        if failed is None and self._asyncgens:
            failed = self._finish([self.create_task(self.shutdown_asyncgens())])
        if failed is None and self._default_executor is not None:
            failed = self._shut_down_executor()
        if failed is None:
            failed = self._run_out(2 * (3 if left else 2))
        if failed is None:
            self._look_for_dropped_tasks(serving)
        if failed is None and oracles.active:
            violated = oracles.over()
            failed = None if violated is None else self._violated(violated)
        return outcome if failed is None else failed

    def _look_for_dropped_tasks(self, serving: Container[LabTask]) -> None:
        """Report the tasks that were made in the shutdown, and that `asyncio.run` drops before they
        are over."""
        for reference in list(self._tasks.values()):
            task = reference()
            if task is not None and not is_over(task) and task not in serving:
                self.call_exception_handler(
                    # asyncio's own words
                    {"message": "Task was destroyed but it is pending!", "task": task}
                )

    def _shut_down_executor(self) -> Outcome | None:
        """Wait until the threads of the loop's own executor are over, as `asyncio.run` does."""
        executor = self._default_executor
        executor.shutdown(wait=False)
        threads = {getattr(thread, "lab_thread", None) for thread in executor._threads}
        return self._finish(
            [task for thread, task in self._threads.items() if thread in threads],
            "it waits for the threads of the loop's executor, and one of them",
        )

    def _run_out(self, iterations: int) -> Outcome | None:
        """Run what is still called for, as `asyncio.run` does: it runs the loop until the tasks are
        over that are left, again for the async generators, and again for the executor, each time
        for two iterations at least. Return what fails."""
        for _ in range(iterations):
            if not self._steps and not self._due and all(map(_is_retry, self._callbacks)):
                break
            self._begin_iteration()
            end = self._order
            while self._steps:
                name = self._first_ready()
                if self._ready[name].order > end:
                    break
                self._run_step_at_the_end(name)
            self._run_callbacks(end)
            violated = oracles.broken() if oracles.active else None
            if violated is not None:
                return self._violated(violated)
        return None

    def _finish(
        self,
        tasks: list[LabTask],
        what: str = "it cancels the tasks that are left, and one of them",
    ) -> Outcome | None:
        """Run what is ready, in its order, until these tasks are over; return what prevents it."""
        taken = idle = still = 0
        kind, how = "livelock", "goes on for ever"
        stillness = self._schedule.stillness
        while taken < self._schedule.step_limit:
            _interrupts.check()
            violated = oracles.broken() if oracles.active and taken else None
            if violated is not None:
                return self._violated(violated)
            if all(map(is_over, tasks)):
                return None
            taken += 1
            if self._time_passed or self._due:
                self._begin_iteration()
            ready = len(self._steps)
            if stillness.polls(still, ready) if ready else stillness.polls_in_callbacks(still):
                if self._is_timer_set():
                    self._fire()
                    still = 0
                else:
                    self._move_clock(stillness.patience())
            if ready:
                name = self._first_ready()
                happened = self._order - self._aside
                self._run_step_at_the_end(name)
                gave_way = self._order - self._aside == happened + 1 and name in self._steps
                idle, still = 0, still + 1 if gave_way else 0
            elif self._callbacks and idle < IDLE_PASSES:
                idle += all(map(_is_retry, self._callbacks))
                still += 1
                self._run_callbacks()
            elif self._is_timer_set():
                self._fire()
                still = 0
            else:
                refuse_timer()
                kind, how = "stall", "waits, and nothing can wake it"
                break
        return Outcome(
            kind,
            f"the main task has ended, but asyncio.run would not: {what} {how}",
            self._task_dump(),
        )

    def _first_ready(self) -> Name:
        """Return the task that became ready first."""
        return min(self._ready, key=lambda name: self._ready[name].order)

    def _run_step_at_the_end(self, name: Name) -> None:
        """Let a task take its step, after the callbacks that were called for before it."""
        handle = self._steps[name]
        self._run_callbacks(self._ready[name].order)
        if self._steps.get(name) is handle:
            del self._steps[name], self._ready[name]
            self._run_at_the_end(handle)

    def _run_at_the_end(self, handle: Any) -> None:
        try:
            handle._run()
        except SystemExit as error:
            self._note_exit(error)

    def _note_exit(self, error: SystemExit) -> None:
        """Note that a clean-up ends the process: that is a failure of the program."""
        if self.complaint is None:
            self.complaint = Outcome("exception", describe(error), error=error)

    def _tear_down(self) -> None:
        """Cancel the tasks that are left, so that their clean-up runs, and drop them."""
        self._schedule.note_left(_lockstep.left())
        _lockstep.end()
        oracles.end()
        left = [
            task
            for reference in self._tasks.values()
            if (task := reference()) is not None and not is_over(task)
        ]
        recorder.forget()
        for _ in range(3):
            if not left:
                break
            for task in left:
                cancel_for_good(task)
            for _ in range(1000):
                while self._callbacks:
                    try:
                        self._run_callbacks()
                    except SystemExit as error:
                        self._note_exit(error)
                    else:
                        break
                if not self._steps and (not self._callbacks or all(is_over(task) for task in left)):
                    break
                for name in list(self._steps):
                    del self._ready[name]
                    self._run_at_the_end(self._steps.pop(name))
            left = [task for task in left if not is_over(task)]
        for task in left:  # it goes on after its cancellation, and would when it is collected
            keep_for_good(task)
            task._log_destroy_pending = False  # type: ignore[attr-defined]  # asyncio's own
        if self._asyncgens:
            for generator in list(self._asyncgens):
                closing = generator.aclose()
                try:
                    closing.send(None)
                except BaseException:  # noqa: BLE001, ASYNC103 - the execution is over
                    pass

    def _forget(self) -> None:
        """Leave nothing of the execution in the tables of others."""
        # The tasks of one name have the same hash in each execution. Tasks that are still in the
        # tables of asyncio and anyio, because a cycle keeps them, would make each access slower.
        for reference in self._tasks.values():
            over = reference()
            if over is not None and is_over(over):
                asyncio._unregister_task(over)
                _task_states.pop(over, None)
        self._scheduled.clear()
        self._callbacks.clear()
        self._steps.clear()
        self._ready.clear()
        self._set_coroutine_origin_tracking(False)  # that `set_debug` has set
        self._thread_id = None
        self._signals.close()
        self.close()
        _running.end()


def _shown(error: BaseException | None) -> str:
    try:
        return repr(error)
    except Exception:  # noqa: BLE001 - the program's own `__repr__`
        return f"{type_name(error)} (repr() of it raises)"


def _holds(handle: Any, ready: Ready, called: _Called) -> bool:
    """Return True if a step must come before a callback.

    The next step of a task that has yielded, or the first one of a new task, comes before what the
    same step has called for after it, as in asyncio. A task that was woken may be late, so
    callbacks may overtake it.
    """
    return (
        ready.order < called.order
        and ready.since == called.since
        and _has_yielded(handle._callback)
    )


def _has_yielded(callback: Any) -> bool:
    """Return True if a step is that of a task which has yielded, or has not begun; and False if it
    is that of a task which was woken."""
    if type(callback).__name__ == "method":
        return str(callback.__name__).endswith("__step")
    return type(callback).__name__ == "TaskStepMethWrapper"


def _is_retry(called: _Called) -> bool:
    """Return True for anyio's cancellation, which tries again in every pass, without an end."""
    function = getattr(called.handle, "_callback", None)
    return isinstance(getattr(function, "__self__", None), CancelScope)


def _is_of_library(callback: Any) -> bool:
    """Return True if asyncio or anyio wrote a callback, and not the program."""
    module = getattr(callback, "__module__", None) or ""
    return module.startswith(("asyncio.", "anyio."))


def _owner(callback: Any) -> Any:
    """Return the object that a callback works for, or else the function itself."""
    owner = getattr(callback, "__self__", None)
    if owner is not None:
        return owner
    code = getattr(callback, "__code__", None)
    if code is not None and "self" in code.co_freevars:
        return callback.__closure__[code.co_freevars.index("self")].cell_contents
    return callback


def _of_task(context: dict[str, Any]) -> str:
    """Return which task the context of an exception handler is about, if it is about one."""
    task = context.get("task", context.get("future"))
    return (
        f" (task {spell(task.lab_name)} {task_title(task)!r})" if isinstance(task, LabTask) else ""
    )


def _check_options(options: dict[str, Any]) -> None:
    """Refuse to start a task eagerly; raise a TypeError for what is no option of asyncio's."""
    inspect.signature(_BaseEventLoop.create_task).bind(None, None, **options)
    if options.get("eager_start"):
        raise refuse(
            "the program starts a task eagerly (eager_start=True), and the lab chooses when a task "
            "takes its first step; leave the option out"
        )


async def _call(program: Program) -> Any:
    awaitable = awaitable_of(program)
    task = asyncio.current_task()
    if inspect.iscoroutine(awaitable) and isinstance(task, LabTask):
        task.lab_body = awaitable
    return await awaitable


async def _in_scope(coroutine: Any, scope: _Scope) -> Any:
    with scope:
        return await coroutine
    # The lab has cancelled the task. An anyio group only needs the task to end. A task that awaits
    # the result gets CancelledError, as if one scope were around both tasks.
    if not scope.lab_in_group:
        raise asyncio.CancelledError
