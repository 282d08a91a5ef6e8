"""What the lab replaces so that the program's threads run in lock-step (`_lockstep`).

A thread begins by `threading.Thread.start`, also in a `ThreadPoolExecutor`, `asyncio.to_thread`,
`anyio.to_thread.run_sync` and the worker threads of libraries. A thread waits by a
`threading.Condition`, of which Python's other primitives are made: `Event`, `Semaphore`, `Barrier`,
`queue.Queue` and `concurrent.futures.Future`. The exceptions are `queue.SimpleQueue`, of which
there is a version in Python, and plain locks (`_locks`).

An executor that is older than the execution has threads of its own by now, or of an execution
before. A new one with the same options stands in for it.
"""

from __future__ import annotations

import _thread as _plain_threads
import asyncio
import concurrent.futures.thread
import queue
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

from . import _lockstep
from ._declare import recorder
from ._locks import LOCKS, released
from ._lockstep import LabThread, is_starting, program_line, starting
from ._outcome import refuse
from ._real_locks import give_back_really, make_lock, take_really
from ._redirected import real
from ._running import inside, now
from ._wrong_backend import is_asked_for_a_loop, refuse_asyncio

__all__ = [
    "THREADS",
    "TIMEOUTS",
    "forget_executors",
    "join_really",
    "refuse_under_dpor",
    "start_really",
    "thread_title",
]

_monotonic = real(time.monotonic)
_thread: Any = threading.Thread
_start, _join = _thread.start, _thread.join
_condition: Any = threading.Condition
_wait, _notify = _condition.wait, _condition.notify
_work: Any = concurrent.futures.thread._WorkItem
_run_work = _work.run
_worker: Any = concurrent.futures.thread._worker
_executor: Any = ThreadPoolExecutor
_init, _submit, _shutdown = _executor.__init__, _executor.submit, _executor.shutdown
_workers_at_exit: Any = concurrent.futures.thread._threads_queues
"""The workers of all executors, for which Python waits at its exit."""
_process_executor: Any = ProcessPoolExecutor
_submit_to_process: Any = _process_executor.submit
_loop: Any = asyncio.BaseEventLoop
_init_loop, _run_forever, _run_until = (
    _loop.__init__,
    _loop.run_forever,
    _loop.run_until_complete,
)
_called: list[str] = []
"""What the thread that is started next will run, if the lab knows."""


def _start_in_lockstep(thread: Any) -> None:
    if not inside():
        _start(thread)
        return
    refuse_under_dpor()
    lab_thread = LabThread(
        _title(thread), partial(join_really, thread), partial(_let_go, thread), program_line()
    )
    lab_thread.keeps_python = not thread.daemon and not _is_worker(thread)
    run = thread.run

    def in_lockstep() -> None:
        try:
            lab_thread.run(run)
        finally:
            vars(thread).pop("run", None)

    thread.run = in_lockstep
    daemonic = thread._daemonic
    thread._daemonic = True  # if it does not end, Python does all the same, see `_let_go`
    try:
        start_really(thread)
    finally:
        thread._daemonic = daemonic
    thread.lab_thread = lab_thread
    _lockstep.start(lab_thread)


def refuse_under_dpor() -> None:
    """Refuse a thread if the strategy is dpor."""
    if recorder.active:
        raise refuse(
            f"the program starts a thread at {program_line()}, and dpor cannot see what threads "
            f"share; use another strategy"
        )


def start_really(thread: threading.Thread) -> None:
    """Start a thread that does not run the program, or not yet; wait until it is there."""
    with starting():
        _start(thread)


def join_really(thread: threading.Thread, timeout: float = -1) -> None:
    """Wait in real time until a thread has ended, for so many seconds at most."""
    ends = getattr(thread, "_tstate_lock", None)  # by which Python 3.12 and older wait
    if ends is not None and take_really(ends, True, timeout):
        give_back_really(ends)
    _join(thread, None if timeout < 0 else timeout)


def _is_worker(thread: Any) -> bool:
    """Return True for a thread of an executor, or of anyio, which ends when there is no work."""
    return getattr(thread, "_target", None) is _worker or type(thread).__module__.startswith(
        "anyio."
    )


def _let_go(thread: Any) -> None:
    """Let Python exit although the thread does not end. At its exit Python waits for the workers of
    every executor, also if they are daemons."""
    _workers_at_exit.pop(thread, None)


def _title(thread: Any) -> str:
    """Return what a thread is called in reports: the function that it runs, which is the same in
    every execution, while Python counts its threads."""
    if _called:
        return f"thread {_called[-1]}"
    return thread_title(getattr(thread, "_target", None) or type(thread))


def thread_title(function: Any) -> str:
    """Return what a thread that runs a function is called in reports; the function, or its name."""
    return f"thread {function if isinstance(function, str) else _name(function)}"


def _name(function: Any) -> str:
    while isinstance(function, partial):
        # `asyncio.to_thread` runs `context.run(function, ...)`
        in_context = type(getattr(function.func, "__self__", None)).__name__ == "Context"
        function = function.args[0] if in_context and function.args else function.func
    return getattr(function, "__qualname__", type(function).__qualname__)


@contextmanager
def _what_runs(function: Any) -> Iterator[None]:
    """Name the thread that is started inside of the ``with`` block after a function."""
    _called.append(_name(function))
    try:
        yield
    finally:
        _called.pop()


def _join_in_lockstep(thread: Any, timeout: float | None = None) -> None:
    lab_thread: LabThread | None = getattr(thread, "lab_thread", None)
    if lab_thread is None or not inside() or lab_thread is _lockstep.current():
        _join(thread, timeout)
        return
    _lockstep.wait(lambda: lab_thread.over, timeout)


def _wait_in_lockstep(condition: Any, timeout: float | None = None) -> bool:
    if not inside() or is_starting():
        return bool(_wait(condition, timeout))
    if not condition._is_owned():
        raise RuntimeError("cannot wait on un-acquired lock")
    # As `threading` does it: a lock that is taken, and that `notify` releases.
    waiter = make_lock()
    take_really(waiter)
    condition._waiters.append(waiter)
    woken = False
    try:
        with released(condition):
            woken = _lockstep.wait(lambda: take_really(waiter, False), timeout)
        return woken
    finally:
        if not woken and waiter in condition._waiters:
            condition._waiters.remove(waiter)


def _notify_in_lockstep(condition: Any, n: int = 1) -> None:
    _notify(condition, n)
    if inside():
        _lockstep.recheck()


def _now_in_lockstep() -> float:
    """Return the time that timeouts of `threading` and `queue` are measured by."""
    return now() if inside() and not is_starting() else _monotonic()


_RAW = ("start_new_thread", "start_new", "start_joinable_thread")
"""What begins a thread without `threading`, in one release of Python or another."""


def _refusing(begin: Any) -> Any:
    def begin_outside(*args: Any, **options: Any) -> Any:
        if not inside():
            return begin(*args, **options)
        raise refuse(
            f"the program starts a thread by the module _thread, at {program_line()}, which the "
            f"lab cannot run in lock-step; start it by threading.Thread or asyncio.to_thread"
        )

    return begin_outside


# Executors


def _init_in_lockstep(executor: Any, *args: Any, **options: Any) -> None:
    _init(executor, *args, **options)
    executor.lab_execution = _lockstep.execution() if inside() else None


_stand_ins: dict[int, tuple[object, Any, Any]] = {}
"""For each older executor, by identity: the present execution, what stands in for it there, and
the executor itself."""


def _submit_in_lockstep(executor: Any, fn: Any, /, *args: Any, **options: Any) -> Any:
    if not inside():
        return _submit(executor, fn, *args, **options)
    present = _lockstep.execution()
    if getattr(executor, "lab_execution", None) is not present and not executor._shutdown:
        execution, stand_in, _ = _stand_ins.get(id(executor), (None, None, None))
        if execution is not present:
            stand_in = ThreadPoolExecutor(
                executor._max_workers,
                executor._thread_name_prefix,
                getattr(executor, "_initializer", None),
                getattr(executor, "_initargs", ()),
            )
            _stand_ins[id(executor)] = present, stand_in, executor
        executor = stand_in
    line = program_line()
    with _what_runs(fn):
        future = _submit(executor, fn, *args, **options)
    future.lab_submitted_at = line  # `LabThread.line` says it of a function in C
    return future


def _run_work_in_lockstep(item: Any) -> None:
    """Run what was submitted to an executor.

    A worker may be late between taking the work from the queue and running it, so another one may
    run a later item first; and when the result is there, and the worker is not idle yet, so the
    next item may get another worker.
    """
    thread = _lockstep.current()
    if thread is None or not inside():
        _run_work(item)
        return
    if _lockstep.can_others_run(thread):
        thread.give_way()
    _run_work(item)
    del item  # its exception may keep this frame, and so would keep itself
    thread.give_way()


def _shutdown_in_lockstep(executor: Any, wait: bool = True, **options: Any) -> None:
    if inside():
        execution, stand_in, _ = _stand_ins.get(id(executor), (None, None, None))
        if stand_in is not None and execution is _lockstep.execution():
            _shutdown(stand_in, wait, **options)
    _shutdown(executor, wait, **options)


def _refuse_process(executor: Any, fn: Any, /, *args: Any, **options: Any) -> Any:
    if not inside():
        return _submit_to_process(executor, fn, *args, **options)
    raise refuse(
        f"the program runs {_name(fn)} in another process, at {program_line()}; the lab explores "
        f"one process, so give it a ThreadPoolExecutor instead"
    )


def _init_loop_on_asyncio(loop: Any, *args: Any, **options: Any) -> None:
    """Make an event loop, which is harmless as long as it does not run: a program may only ask for
    its class. asyncio makes one where it finds none, as on trio."""
    lacks_one = inside() and asyncio._get_running_loop() is None
    if lacks_one and _lockstep.current() is None and is_asked_for_a_loop():
        loop._closed = True  # for its finalizer
        raise refuse_asyncio(program_line())
    _init_loop(loop, *args, **options)


def _refuse_to_run(loop: Any) -> None:
    """Refuse an event loop that the program runs, if asyncio does not do so: a thread, or a program
    on trio, runs none yet."""
    if inside() and asyncio._get_running_loop() is None:
        raise refuse(
            f"the program runs an event loop of its own, at {program_line()}; the lab explores "
            f"one event loop, so call the coroutine from a thread by anyio.from_thread.run or "
            f"asyncio.run_coroutine_threadsafe"
        )


def _run_forever_outside(loop: Any) -> None:
    _refuse_to_run(loop)
    _run_forever(loop)


def _run_until_outside(loop: Any, future: Any) -> Any:
    try:
        _refuse_to_run(loop)
    except BaseException:
        if asyncio.iscoroutine(future):
            future.close()  # or Python would warn that it was never awaited
        raise
    return _run_until(loop, future)


THREADS: list[tuple[Any, str, Any]] = [
    (_thread, "start", _start_in_lockstep),
    (_thread, "join", _join_in_lockstep),
    (_condition, "wait", _wait_in_lockstep),
    (_condition, "notify", _notify_in_lockstep),
    *LOCKS,
    (_executor, "__init__", _init_in_lockstep),
    (_executor, "submit", _submit_in_lockstep),
    (_executor, "shutdown", _shutdown_in_lockstep),
    (_work, "run", _run_work_in_lockstep),
    (_process_executor, "submit", _refuse_process),
    (_loop, "__init__", _init_loop_on_asyncio),
    (_loop, "run_forever", _run_forever_outside),
    (_loop, "run_until_complete", _run_until_outside),
    *(
        (_plain_threads, name, _refusing(getattr(_plain_threads, name)))
        for name in _RAW
        if hasattr(_plain_threads, name)
    ),
]
"""How threads begin and wait, and what is to stand in its place."""
TIMEOUTS: list[tuple[Any, str, Any]] = [
    (threading, "_time", _now_in_lockstep),
    (queue, "time", _now_in_lockstep),
]
"""The clocks by which waits of threads end, and what is to stand in their place. They are copies of
`time.monotonic`, of which others may have to stay real."""
if hasattr(queue, "_PySimpleQueue"):
    THREADS.append((queue, "SimpleQueue", queue._PySimpleQueue))


def forget_executors() -> None:
    """Drop what stands in for older executors, because the exploration is over."""
    _stand_ins.clear()
