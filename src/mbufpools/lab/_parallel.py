"""An exploration shared out to the workers of an executor: processes, or a cluster's.

A worker executes a part, at most so many schedules of it, and gives back what is left; so the
parts stay even. Uses `_execute`, `_result` and `_strategies`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass, replace

from ._execute import Executed, Program, execute
from ._result import Failure
from ._strategies import Exhaustive, Pct, Random

__all__ = ["Shareable", "execute_in_parallel"]

Shareable = Exhaustive | Random | Pct

PART = 200
"""Schedules that a worker executes before it comes back."""
PARTS_AHEAD = 8
"""Parts that are given out at one time; enough for the workers of one machine."""


@dataclass(frozen=True, slots=True)
class _Part:
    """What a worker gets and gives back; it can be pickled if the program can."""

    program: Program
    backend: str
    strategy: Shareable
    cancel: bool
    step_limit: int
    max_failures: int | None
    executions: int


@dataclass(frozen=True, slots=True)
class _Done:
    executions: int
    failures: tuple[Failure, ...]
    strategy: Shareable
    """With what is left of its part."""


def _work(part: _Part) -> _Done:
    result = execute(
        part.program,
        part.strategy,
        backend=part.backend,
        max_executions=part.executions,
        max_failures=part.max_failures,
        step_limit=part.step_limit,
        cancel=part.cancel,
    )
    # An exception may hold what cannot be pickled; its traceback is in the report.
    failures = tuple(replace(failure, error=None) for failure in result.failures)
    return _Done(result.executions, failures, part.strategy)


def execute_in_parallel(
    program: Program,
    strategy: Shareable,
    executor: Executor,
    *,
    backend: str,
    max_executions: int,
    max_failures: int | None,
    step_limit: int,
    cancel: bool,
    on_progress: Callable[[int], None] | None,
) -> Executed:
    """As `execute`, by the workers of an executor."""
    begin = time.perf_counter()
    result = Executed()
    running: dict[Future[_Done], int] = {}

    def enough() -> bool:
        return max_failures is not None and len(result.failures) >= max_failures

    while not enough():
        left = max_executions - result.executions - sum(running.values())
        while left > 0 and len(running) < PARTS_AHEAD:
            count = min(PART, left)
            part = strategy.split(count)
            if part is None:
                break
            work = _Part(program, backend, part, cancel, step_limit, max_failures, count)
            running[executor.submit(_work, work)] = count
            left -= count
        if not running:
            break
        finished, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in finished:
            done = future.result()
            del running[future]
            result.failures += [
                replace(failure, found_at=result.executions + failure.found_at)
                for failure in done.failures
            ]
            result.executions += done.executions
            strategy.merge(done.strategy)
        if on_progress is not None:
            on_progress(result.executions)
    for future in running:
        future.cancel()
    if max_failures is not None:
        del result.failures[max_failures:]
    strategy.complete = strategy.complete and not running
    result.seconds = time.perf_counter() - begin
    return result
