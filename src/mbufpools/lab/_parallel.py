"""An exploration shared out to the workers of an executor: processes, or a cluster's.

A worker executes a part, at most so many schedules of it, and gives back what is left; so the
parts stay even. Which failure is found first, and what stands in for those that are the same, may
differ from one time to the next; the schedules, and so what there is to find, do not.

Uses `_execute`, `_parcel`, `_result` and `_strategies`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, replace

from ._execute import Executed, Program, Signature, execute
from ._pickled import PickledProgram, pack
from ._result import Failure
from ._strategies import Exhaustive, Pct, Random

__all__ = ["Shareable", "execute_in_parallel"]

Shareable = Exhaustive | Random | Pct

PART = 200
"""Schedules that a worker executes before it comes back."""
PARTS_AHEAD = 2 * (os.cpu_count() or 4)
"""Parts that are given out at one time, so that no worker of this machine waits for one."""


@dataclass(frozen=True, slots=True)
class _Part:
    """What a worker gets; it can be pickled if the program can."""

    program: Program | PickledProgram
    backend: str
    strategy: Shareable
    cancel_by: tuple[str, ...]
    step_limit: int
    max_failures: int | None
    executions: int
    known: frozenset[Signature]
    """Failures that others have found."""


@dataclass(frozen=True, slots=True)
class _Done:
    """What a worker gives back."""

    executions: int
    failures: tuple[tuple[Signature, Failure], ...]
    strategy: Shareable
    """With what is left of its part."""


def _work(part: _Part) -> _Done:
    program = part.program.load() if isinstance(part.program, PickledProgram) else part.program
    result = execute(
        program,
        part.strategy,
        backend=part.backend,
        max_executions=part.executions,
        max_failures=part.max_failures,
        step_limit=part.step_limit,
        cancel_by=part.cancel_by,
        known=part.known,
    )
    # An exception may hold what cannot be pickled; its traceback is in the report.
    failures = [replace(failure, error=None) for failure in result.failures]
    return _Done(
        result.executions, tuple(zip(result.signatures, failures, strict=True)), part.strategy
    )


def execute_in_parallel(
    program: Program,
    strategy: Shareable,
    executor: Executor,
    *,
    backend: str,
    max_executions: int,
    max_failures: int | None,
    step_limit: int,
    cancel_by: tuple[str, ...],
    on_progress: Callable[[int], None] | None,
) -> Executed:
    """As `execute`, by the workers of an executor.

    Raises:
        ValueError: the executor's processes could not load the program.
        LabError: they cannot, or the program cannot be explored.
    """
    begin = time.perf_counter()
    result = Executed()
    found: dict[Signature, Failure] = {}
    running: dict[Future[_Done], int] = {}
    # Those of others, Dask's and Ray's, have their own ways with functions.
    load = pack(program) if isinstance(executor, ProcessPoolExecutor) else program

    def enough() -> bool:
        return max_failures is not None and len(found) >= max_failures

    def give_out() -> None:
        left = max_executions - result.executions - sum(running.values())
        while left > 0 and len(running) < PARTS_AHEAD:
            count = min(PART, left)
            part = strategy.split(count)
            if part is None:
                break
            missing = None if max_failures is None else max_failures - len(found)
            work = _Part(
                load, backend, part, cancel_by, step_limit, missing, count, frozenset(found)
            )
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
