"""Shares an exploration out to the workers of an executor: processes on this computer or others.

The strategy is split into parts. A worker executes at most `PART` schedules of its part and returns
what is left, which is merged into the strategy and split again, so the work stays even.

Two runs that are complete execute the same schedules, and so find the same failures. If several
schedules fail in the same way, the one that is reported may differ from run to run.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, replace

from ._covered import Covered
from ._execute import Executed, Signature, execute
from ._options import Options, Program
from ._pickled import PickledProgram, pack, pack_reset
from ._redirected import real
from ._result import Failure
from ._strategy import Strategy

__all__ = ["LEAST_SECONDS", "execute_in_parallel", "kill_workers", "workers"]

PART = 200
"""The number of schedules that a worker executes before it returns its part."""
PARTS_AHEAD = 2 * (os.cpu_count() or 4)
"""The number of parts that are submitted at a time: two for each CPU of this computer, so that no
worker of it has to wait for its next part."""

_perf_counter, _sleep = real(time.perf_counter), real(time.sleep)

LEAST_SECONDS = 0.01
"""Real seconds that a part may take, at least."""
PATIENCE = 5.0
"""Real seconds to wait, at most, for an executor that is ended."""


@dataclass(frozen=True, slots=True)
class _Part:
    """What a worker gets. It can be pickled if the program can be."""

    program: Program | PickledProgram
    strategy: Strategy
    options: Options
    known: frozenset[Signature]
    """The failures that other workers have found; a worker does not shrink them again."""


@dataclass(frozen=True, slots=True)
class _Done:
    """What a worker returns."""

    executions: int
    failures: tuple[tuple[Signature, Failure], ...]
    strategy: Strategy
    """What is left of its part."""
    covered: Covered
    cancelled_one: bool
    ignored: Counter[str]
    uses_anyio: bool


def workers(jobs: int) -> ProcessPoolExecutor:
    """Make an executor for explorations: processes that leave Ctrl-C to the process that explores.

    They are not forked, since the process that explores may have threads. They start at once.
    """
    executor = ProcessPoolExecutor(
        jobs, multiprocessing.get_context("spawn"), initializer=_ignore_interrupts
    )
    # A process inherits what is blocked, so no Ctrl-C reaches it before it ignores them.
    block = getattr(signal, "pthread_sigmask", None)
    before = block(signal.SIG_BLOCK, {signal.SIGINT}) if block is not None else None
    try:
        for _ in range(jobs):  # each starts a process, since none of them is idle yet
            executor.submit(int)
    finally:
        if block is not None:
            block(signal.SIG_SETMASK, before)
    return executor


def _ignore_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def kill_workers(executor: ProcessPoolExecutor) -> None:
    """End the processes of an executor at once, in the middle of what they do.

    Returns when they are gone, and what the executor shared with them.
    """
    processes = list((getattr(executor, "_processes", None) or {}).values())
    manager: threading.Thread | None = getattr(executor, "_executor_manager_thread", None)
    executor.shutdown(wait=False, cancel_futures=True)
    if manager is None:
        return
    # The executor is broken when a worker is gone, and some releases of Python cannot break one
    # that still holds cancelled parts (InvalidStateError in its thread), so it drops them first.
    latest = _perf_counter() + PATIENCE
    while manager.is_alive() and getattr(executor, "_cancel_pending_futures", False):
        if _perf_counter() > latest:
            break
        _sleep(0.001)
    for process in processes:
        process.kill()
    manager.join(PATIENCE)


def _work(part: _Part) -> _Done:
    """Execute a part; this runs in the worker."""
    options = part.options
    program = part.program.load() if isinstance(part.program, PickledProgram) else part.program
    if isinstance(options.reset, PickledProgram):
        options = replace(options, reset=options.reset.load())
    result = execute(program, part.strategy, options, known=part.known, whole=False)
    # An exception may hold objects that cannot be pickled; its traceback is in the report.
    failures = [replace(failure, error=None) for failure in result.failures]
    return _Done(
        result.executions,
        tuple(zip(result.signatures, failures, strict=True)),
        part.strategy,
        result.covered,
        result.cancelled_one,
        result.ignored,
        result.uses_anyio,
    )


def execute_in_parallel(
    program: Program,
    strategy: Strategy,
    executor: Executor,
    options: Options,
    on_progress: Callable[[int], None] | None,
) -> Executed:
    """Do what `execute` does, with the workers of an executor.

    Blocks the calling thread. At the end, also if it raises, it cancels the parts that have not
    begun.

    Raises:
        ValueError: the program cannot be pickled by name, so no other process could load it.
        LabError: a worker cannot load the program, or the program cannot be explored.
    """
    begin = _perf_counter()
    result = Executed()
    found: dict[Signature, Failure] = {}
    running: dict[Future[_Done], int] = {}
    max_failures = options.max_failures
    # Executors of other packages, such as Dask and Ray, transport functions in their own way.
    portable: Program | PickledProgram = program
    if isinstance(executor, ProcessPoolExecutor):
        portable = pack(program)
        try:
            pickle.dumps(options.cancelling)
        except Exception as error:
            raise ValueError(
                f"the function of cancel= cannot be given to other processes ({error}); make it a "
                f"function of a module, or use no executor"
            ) from error
        if options.reset is not None:
            options = replace(options, reset=pack_reset(options.reset))

    def enough() -> bool:
        return max_failures is not None and len(found) >= max_failures

    def is_late() -> bool:
        return options.max_seconds is not None and seconds_left() <= 0 < result.executions

    def seconds_left() -> float:
        return float((options.max_seconds or 0) - (_perf_counter() - begin))

    def submit_parts() -> None:
        left = options.max_executions - result.executions - sum(running.values())
        while left > 0 and len(running) < PARTS_AHEAD:
            count = min(PART, left)
            part = strategy.split(count)
            if part is None:
                break
            missing = None if max_failures is None else max_failures - len(found)
            own = replace(options, max_executions=count, max_failures=missing)
            if options.max_seconds is not None:
                own = replace(own, max_seconds=max(seconds_left(), LEAST_SECONDS))
            work = _Part(portable, part, own, frozenset(found))
            running[executor.submit(_work, work)] = count
            left -= count

    def take(done: _Done) -> None:
        for signature, failure in done.failures:
            number = result.executions + failure.found_at
            found.setdefault(signature, replace(failure, found_at=number))
        result.executions += done.executions
        result.covered.add(done.covered)
        result.cancelled_one = result.cancelled_one or done.cancelled_one
        result.ignored += done.ignored
        result.uses_anyio = result.uses_anyio or done.uses_anyio
        strategy.merge(done.strategy)

    try:
        while not enough() and not is_late() and not result.uses_anyio:
            submit_parts()
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                del running[future]
                take(future.result())
            if on_progress is not None:
                on_progress(result.executions)
    finally:
        for future in running:
            future.cancel()
    result.failures = list(found.values())[:max_failures]
    strategy.complete = strategy.complete and not running
    result.seconds = _perf_counter() - begin
    return result
