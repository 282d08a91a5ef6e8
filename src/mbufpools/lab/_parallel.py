"""An exploration that is shared out to the workers of an executor: processes, or a cluster's.

A worker executes a part, at most so many schedules of it, and gives back what is left, so that the
parts stay even. Which of several equal failures is found first may differ from one run to the next;
the schedules, and so what there is to find, do not.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, replace

from ._execute import Executed, Program, Signature, execute
from ._options import Options
from ._pickled import PickledProgram, pack
from ._result import Failure
from ._strategy import Strategy

__all__ = ["execute_in_parallel"]

PART = 200
"""Schedules that a worker executes before it comes back."""
PARTS_AHEAD = 2 * (os.cpu_count() or 4)
"""Parts that are given out at one time, so that no worker of this machine waits for one."""


@dataclass(frozen=True, slots=True)
class _Part:
    """What a worker gets; it can be pickled if the program can."""

    program: Program | PickledProgram
    strategy: Strategy
    options: Options
    known: frozenset[Signature]
    """The failures that other workers have found."""


@dataclass(frozen=True, slots=True)
class _Done:
    """What a worker gives back."""

    executions: int
    failures: tuple[tuple[Signature, Failure], ...]
    strategy: Strategy
    """With what is left of its part."""


def _work(part: _Part) -> _Done:
    program = part.program.load() if isinstance(part.program, PickledProgram) else part.program
    result = execute(program, part.strategy, part.options, known=part.known)
    # An exception may hold what cannot be pickled; its traceback is in the report.
    failures = [replace(failure, error=None) for failure in result.failures]
    return _Done(
        result.executions, tuple(zip(result.signatures, failures, strict=True)), part.strategy
    )


def execute_in_parallel(
    program: Program,
    strategy: Strategy,
    executor: Executor,
    options: Options,
    on_progress: Callable[[int], None] | None,
) -> Executed:
    """Do what `execute` does, by the workers of an executor.

    Raises:
        ValueError: the executor's processes could not load the program.
        LabError: they cannot, or the program cannot be explored.
    """
    begin = time.perf_counter()
    result = Executed()
    found: dict[Signature, Failure] = {}
    running: dict[Future[_Done], int] = {}
    max_failures = options.max_failures
    # Executors of other packages, such as Dask and Ray, have their own ways with functions.
    load = pack(program) if isinstance(executor, ProcessPoolExecutor) else program

    def enough() -> bool:
        return max_failures is not None and len(found) >= max_failures

    def give_out() -> None:
        left = options.max_executions - result.executions - sum(running.values())
        while left > 0 and len(running) < PARTS_AHEAD:
            count = min(PART, left)
            part = strategy.split(count)
            if part is None:
                break
            missing = None if max_failures is None else max_failures - len(found)
            own = replace(options, max_executions=count, max_failures=missing)
            work = _Part(load, part, own, frozenset(found))
            running[executor.submit(_work, work)] = count
            left -= count

    def take(done: _Done) -> None:
        for signature, failure in done.failures:
            number = result.executions + failure.found_at
            found.setdefault(signature, replace(failure, found_at=number))
        result.executions += done.executions
        strategy.merge(done.strategy)

    try:
        while not enough():
            give_out()
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
    result.seconds = time.perf_counter() - begin
    return result
