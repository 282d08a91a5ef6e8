"""The threads of a program in lock-step: each runs only while a task of the lab's waits for it.

Each thread that the program starts has a task of its own in the event loop, which a schedule
chooses as it chooses any other. A step of that task lets the thread run until it waits or ends;
meanwhile the task, and so the whole event loop, stands still. So never do two threads run at the
same time, and a thread's code from one wait to the next is one step.

What a thread waits for is a *condition*, a function that is called again whenever something has
changed (`recheck`), with a deadline of the virtual clock. When the condition holds, the thread can
go on, and the schedule chooses when it does.

If the thread of the event loop itself waits, as `Thread.join` and `Future.result` do, no task can
run. Then the other threads run in the order in which they were started, until the wait is over.

Invariants: a thread that is not over is parked, or it is the one that a task has let run. What a
thread wakes or starts is told to the event loop by the loop's own thread, after the thread's step.
"""

from __future__ import annotations

import logging
import math
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import FrameType
from typing import Any, Protocol

import anyio
from anyio.lowlevel import checkpoint

from . import _interrupts, _running
from ._instants import TOGETHER
from ._outcome import Unsupported, refuse
from ._real_locks import give_back_really, make_lock, take_really
from .hooks import short_path

__all__ = [
    "Host",
    "LabThread",
    "any_thread",
    "begin",
    "called_by_program",
    "can_others_run",
    "count_late",
    "current",
    "end",
    "execution",
    "frames_of",
    "give_way",
    "is_starting",
    "left",
    "program_line",
    "recheck",
    "runs_beside_the_loop",
    "start",
    "starting",
    "wait",
]

PATIENCE = 10.0
"""Real seconds that a step of a thread may take. One that takes longer waits for something that the
lab does not see, such as a socket or another process."""
SLICE = 0.1
"""Real seconds after which the lab looks for a Ctrl-C."""
FAREWELL = 1.0
"""Real seconds that a thread has to end when the execution is over."""

_STDLIB = sys.stdlib_module_names
_LIBRARIES = {"anyio", "trio", "outcome", "sniffio"}


class Host(Protocol):
    """What a backend does for threads."""

    def start_thread(self, thread: LabThread) -> None:
        """Make a task that serves the thread."""

    def runs_at_once(self, thread: LabThread) -> bool:
        """Choose whether a thread that can run does so before the event loop goes on."""

    def thread_failed(self, thread: LabThread, error: BaseException) -> None:
        """Note that an exception has ended the thread."""

    def between_tasks(self, thread: LabThread) -> AbstractContextManager[object]:
        """Hide the task that serves a thread, if it is the present one, while the thread runs."""


class ThreadEnded(SystemExit):
    """Raised in a thread that waits when the execution is over."""


_host: Host | None = None
_excepthook: Any = None
"""`threading.excepthook` as it was when the execution began."""
_execution: object = None
_threads: list[LabThread] = []
_by_ident: dict[int, LabThread] = {}
_to_start: list[LabThread] = []
_to_wake: list[LabThread] = []
_starting: set[int] = set()
"""Threads that start another one: they wait in real time until it is there."""
_loop_waits = False
"""Whether the thread of the event loop waits for others, in the middle of a step."""


def begin(host: Host) -> None:
    """Note that an execution begins."""
    global _excepthook, _host, _execution
    _host, _execution, _excepthook = host, object(), threading.excepthook
    _running.sleep_by(_sleep_in_the_loop)


def execution() -> object:
    """Return an object that stands for the present execution."""
    return _execution


def left() -> set[str]:
    """Return what the threads are called that Python would wait for at its exit, and which have not
    ended."""
    waited_for = (thread for thread in _threads if thread.keeps_python and not thread.over)
    return {thread.title for thread in waited_for}


def end() -> None:
    """End all threads of the execution. Takes real time only if one does not end."""
    global _execution, _host
    _execution = None
    executors = logging.getLogger("concurrent.futures")
    before = executors.disabled
    executors.disabled = before or bool(_threads)  # a worker reports how it ended
    try:
        for thread in _threads:
            thread.kill()
    finally:
        executors.disabled = before
        for table in (_threads, _by_ident, _to_start, _to_wake):
            table.clear()
        _host = None


def start(thread: LabThread) -> None:
    """Take over a thread whose `run` has been called, or is about to be."""
    _threads.append(thread)
    _to_start.append(thread)
    starter = current()
    if starter is not None:
        starter.give_way()
        return
    _tell_the_loop()
    while _runs_at_once(thread):
        pass


def current() -> LabThread | None:
    """Return the thread that calls, or None if it is that of the event loop."""
    return _by_ident.get(threading.get_ident())


@contextmanager
def starting() -> Iterator[None]:
    """Note that the calling thread starts another one, and waits in real time until it is there."""
    ident = threading.get_ident()
    _starting.add(ident)
    try:
        yield
    finally:
        _starting.discard(ident)


def is_starting() -> bool:
    """Return True in a thread that starts another one."""
    return threading.get_ident() in _starting


def runs_beside_the_loop() -> bool:
    """Return True if the calling thread is not that of the event loop, which meanwhile may sleep,
    and not only wait for threads in the middle of a step."""
    return current() is not None and not _loop_waits


def recheck() -> None:
    """Look again which threads can go on, because something has changed."""
    for thread in _threads:
        if thread.condition is not None and thread.condition():
            thread.wake()
    if current() is None:
        _tell_the_loop()


def wait(condition: Callable[[], bool], timeout: float | None = None) -> bool:
    """Wait, in a thread of the program, until a condition holds. Returns False if the timeout, in
    seconds of virtual time, comes first.

    Raises:
        Unsupported: the thread is that of the event loop, and no thread can end the wait.
    """
    if condition():
        return True
    if timeout is not None and timeout <= 0:
        return False
    thread = current()
    if thread is not None:
        return thread.park(condition, timeout)
    with _waiting():
        return _wait_in_the_loop(condition, timeout)


def _sleep_in_the_loop(seconds: float) -> None:
    """Let time pass in the thread of the event loop; the other threads go on meanwhile."""
    if seconds > 0 and _threads:
        with _waiting():
            _wait_in_the_loop(_never, seconds)
    else:
        _running.pass_time(seconds)


def any_thread() -> bool:
    """Return True if the program has started a thread in this execution."""
    return bool(_threads)


def can_others_run(thread: LabThread) -> bool:
    """Return True if another thread of the program can run."""
    return any(it.ready for it in _threads if it is not thread)


def count_late() -> int:
    """Return how many threads wait whose deadline has come."""
    return sum(thread.late for thread in _threads)


def give_way() -> bool:
    """Let another thread come first, before the program takes a lock, or before the event loop runs
    a callback of the program or calls for timers. Return True if the caller is the event loop's
    thread, and another one ran."""
    thread = current()
    if thread is not None:
        thread.give_way()
        return False
    ran = False
    while any(map(_runs_at_once, list(_threads))):
        ran = True
    return ran


def _runs_at_once(thread: LabThread) -> bool:
    """Let a thread run up to where another one may come first, if that is chosen, before the event
    loop goes on. Return False if it does not run."""
    late = thread.late
    if not (thread.ready or late) or _host is None or not _host.runs_at_once(thread):
        return False
    if late:  # its own task would tell it only after the callbacks
        thread.wake(timed_out=True)
    with _waiting():
        thread.step()
    return True


@contextmanager
def _waiting() -> Iterator[None]:
    """Note that the thread of the event loop waits for others in the middle of a step."""
    global _loop_waits
    before, _loop_waits = _loop_waits, True
    try:
        yield
    finally:
        _loop_waits = before


def _wait_in_the_loop(condition: Callable[[], bool], timeout: float | None) -> bool:
    """Run the other threads until a condition holds."""
    latest = math.inf if timeout is None else _running.now() + timeout
    while not condition():
        ready = next((thread for thread in _threads if thread.ready), None)
        if ready is not None:
            ready.step()
            continue
        first = min((it.deadline for it in _threads if it.condition is not None), default=math.inf)
        together = abs(first - latest) <= TOGETHER
        first = max(first, latest) if together else min(first, latest)
        if first == math.inf:
            raise refuse(
                f"the program blocks the event loop at {program_line()}: it waits there for "
                f"another thread, and no other thread can go on without the event loop. Await the "
                f"result instead"
            )
        if first > _running.now():
            _running.pass_time(first - _running.now())
        if together or first == latest:
            give_way()  # the wait of a thread may have ended just before
            return condition()
        for thread in _threads:
            if thread.condition is not None and thread.deadline <= first:
                thread.wake(timed_out=True)
        _tell_the_loop()
    return True


def _tell_the_loop() -> None:
    """Tell the event loop which threads were started and woken; called in the loop's thread."""
    while _to_start and _host is not None:
        _host.start_thread(_to_start.pop(0))
    while _to_wake:
        _to_wake.pop(0).tell()


class LabThread:
    """A thread of the program.

    Attributes:
        title: what it is called, in reports.
        ready: True if it could go on.
        over: True if it has ended.
        condition: what it waits for, or None.
        deadline: when its wait ends, in seconds of virtual time.
        keeps_python: True if Python does not exit before the thread has ended, because it is no
            daemon.

    Args:
        title: as above.
        join: waits in real time until the thread has ended; called when it is about to.
        let_go: called if the thread does not end, so that Python can exit without it.
        began: the program's line that started it.
    """

    def __init__(
        self, title: str, join: Callable[[], None], let_go: Callable[[], None], began: str
    ) -> None:
        self.title = title
        self.ready = True
        self.over = False
        self.condition: Callable[[], bool] | None = None
        self.deadline = math.inf
        self.keeps_python = False
        self._join, self._let_go, self._began = join, let_go, began
        self._go, self._back = make_lock(), make_lock()
        take_really(self._go)
        take_really(self._back)
        self._timed_out = False
        self._killed = False
        self._error: BaseException | None = None
        self._event: anyio.Event | None = None
        self._ident: int | None = None

    # In the thread itself

    def run(self, function: Callable[[], Any]) -> None:
        """Call `function` in the calling thread, in lock-step."""
        self._ident = threading.get_ident()
        _by_ident[self._ident] = self
        _running.add_thread(self._sleep)
        take_really(self._go)
        try:
            if not self._killed:
                function()
        except SystemExit:
            pass
        except BaseException as error:  # noqa: BLE001, ASYNC103 - the host tells it
            if threading.excepthook is _excepthook:
                self._error = error
            else:  # the program handles it
                told = (type(error), error, error.__traceback__, threading.current_thread())
                threading.excepthook(threading.ExceptHookArgs(told))
        finally:
            _running.remove_thread()
            _by_ident.pop(self._ident, None)
            self.over = True
            give_back_really(self._back)

    def park(self, condition: Callable[[], bool] | None, timeout: float | None) -> bool:
        """Let the event loop go on until a condition holds. Return False if the timeout came
        first."""
        if self._killed:
            raise ThreadEnded
        self.condition = condition
        self.deadline = math.inf if timeout is None else _running.now() + timeout
        give_back_really(self._back)
        take_really(self._go)
        if self._killed:
            raise ThreadEnded
        return not self._timed_out

    def give_way(self) -> None:
        """Let the event loop choose whether the thread goes on, before it takes a lock."""
        if self._killed:
            raise ThreadEnded
        self.ready = True
        give_back_really(self._back)
        take_really(self._go)
        if self._killed:
            raise ThreadEnded

    def _sleep(self, seconds: float) -> None:
        self.park(_never, seconds)

    # In the thread of the event loop

    @property
    def late(self) -> bool:
        """True if it waits, and its deadline has come."""
        return self.condition is not None and self.deadline <= _running.now()

    async def serve(self) -> None:
        """Let the thread run, step by step, until it has ended."""
        while True:
            try:
                self.step()
            except Unsupported:
                return  # which is remembered, and raised after the execution
            if self.over:
                return
            if self.ready:
                await checkpoint()
                continue
            self._event = anyio.Event()
            with anyio.CancelScope(deadline=self.deadline):
                await self._event.wait()
            self._event = None
            self._look_at_the_clock()

    def _look_at_the_clock(self) -> None:
        """Wake the thread if its wait is over because of its deadline."""
        if self.late:
            self.wake(timed_out=True)
            _tell_the_loop()

    def step(self) -> None:
        """Let the thread run until it waits or ends, if it can go on.

        Raises:
            Unsupported: it does neither.
        """
        if not self.ready:
            return
        self.ready = False
        with nullcontext() if _host is None else _host.between_tasks(self):
            if not self._run_on():
                return
        if self.over:
            self._await_end()
            error, self._error = self._error, None
            if error is not None and not self._killed and _host is not None:
                _host.thread_failed(self, error)
            recheck()
        if self._event is not None:
            self._event.set()  # its task looks again what it waits for
        _tell_the_loop()

    def _run_on(self) -> bool:
        """Let the thread run until it waits or ends; return False if Ctrl-C was pressed."""
        give_back_really(self._go)
        waited = 0.0
        while not take_really(self._back, timeout=SLICE):
            waited += SLICE
            if _interrupts.pending():
                self._lose()
                return False  # the backend sees it, too
            if waited >= PATIENCE:
                self._lose()
                raise refuse(
                    f"{self.title} has run for {PATIENCE:g} seconds of real time, and is at "
                    f"{self.line()}: it waits for what the lab does not see, such as I/O or a lock "
                    f"that is held outside of the program; or it takes too long. Give it a fake"
                )
        return True

    def wake(self, *, timed_out: bool = False) -> None:
        """Note that the thread can go on."""
        self.condition, self.deadline = None, math.inf
        self.ready, self._timed_out = True, timed_out
        _to_wake.append(self)

    def tell(self) -> None:
        """Make the task of the thread ready."""
        if self._event is not None:
            self._event.set()

    def kill(self) -> None:
        """End the thread: where it waits, `ThreadEnded` is raised."""
        if self.over:
            return
        self._killed = True
        self.ready, self.condition = False, None
        give_back_really(self._go)
        if take_really(self._back, timeout=FAREWELL):
            self._await_end()
            self._forget()
        else:
            self._lose()

    def _lose(self) -> None:
        """Note that nothing waits for the thread any more, although it goes on."""
        self._forget()
        self._let_go()

    def _await_end(self) -> None:
        """Wait in real time until the thread has ended, and keep it alive no longer."""
        self._join()
        self._join = self._let_go = _nothing

    def _forget(self) -> None:
        self._killed = True
        self.ready, self.condition, self.over = False, None, True

    # For reports

    def line(self) -> str:
        """Return the program's line at which the thread stands. A function in C, such as
        ``lock.acquire``, has none; then it is the line that has given it to the thread."""
        frame = sys._current_frames().get(self._ident or 0)
        own = next(map(_spell, reversed(list(_of_program(frame)))), None)
        if own is not None:
            return own
        submitted = next(filter(None, map(_submitted_at, _outwards(frame))), None)
        if submitted is not None:
            return f"a function in C, which was submitted at {submitted}"
        return f"a function in C; the thread was started at {self._began}"


def frames_of(thread: LabThread) -> list[str]:
    """Return the lines of the program's functions in a thread, the innermost last."""
    return list(map(_spell, _of_program(sys._current_frames().get(thread._ident or 0))))


def called_by_program(inner: frozenset[str]) -> bool:
    """Return True if the program's own code has called what asks, directly or by functions of these
    names."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_name in inner:
        frame = frame.f_back
    return frame is not None and _is_of_program(frame)


def is_of_program(callback: Any) -> bool:
    """Return True if the program has called for a callback of the event loop: for a function of its
    own, or for a public one of a library, such as `Event.set`."""
    name = str(getattr(callback, "__qualname__", ""))
    private = "<locals>" in name or name.rpartition(".")[2].startswith("_")
    module = str(getattr(callback, "__module__", None) or "")
    return not (private and module.startswith(("asyncio.", "anyio.", "trio.")))


def program_line() -> str:
    """Return the program's innermost line in the calling thread."""
    return next(map(_spell, reversed(list(_of_program(sys._getframe(1))))), "an unknown line")


def _spell(frame: FrameType) -> str:
    code = frame.f_code
    return f"{short_path(code.co_filename)}:{frame.f_lineno}, in {code.co_qualname}"


def _outwards(frame: FrameType | None) -> Iterator[FrameType]:
    """Yield a frame and those that have called it, the innermost first."""
    while frame is not None:
        yield frame
        frame = frame.f_back


def _submitted_at(frame: FrameType) -> str | None:
    """Return the line that has submitted what an executor's frame runs; None for other frames."""
    item = frame.f_locals.get("self") if frame.f_code.co_name == "run" else None
    line: str | None = getattr(getattr(item, "future", None), "lab_submitted_at", None)
    return line


def _of_program(innermost: FrameType | None) -> Iterator[FrameType]:
    """Yield the frames that are neither of Python nor of the lab, the outermost first."""
    yield from reversed(list(filter(_is_of_program, _outwards(innermost))))


def _is_of_program(frame: FrameType) -> bool:
    module = str(frame.f_globals.get("__name__", ""))
    top = module.partition(".")[0]
    ours = module.startswith(f"{__package__}.")
    return not (ours or top in _LIBRARIES or (top in _STDLIB and top != "__main__"))


def _never() -> bool:
    return False


def _nothing() -> None:
    pass
