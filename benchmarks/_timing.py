"""Functions that are run in turn, and the nanoseconds that they take.

A statement is compiled into the function that runs it, as `timeit` does: so nothing but the
statement and a loop is measured.
"""

from __future__ import annotations

import gc
import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

__all__ = ["Run", "clock", "in_turn", "repeat", "repeat_awaiting", "without_gc"]

clock = time.process_time
"""CPU seconds: another process that takes the processor meanwhile does not count."""

Run = Callable[[int], float | Awaitable[float]]
"""Does something so many times, and returns the seconds that all took."""

UNROLLED = 10
"""Statements in one turn of the loop, so that the loop itself hardly counts."""


def repeat(statement: str, **names: Any) -> Run:
    """Make a function that runs `statement`, which may use `names`."""
    lines = f"        {statement}\n" * UNROLLED
    head = f"def run(n):\n    start = clock()\n    for _ in range(n // {UNROLLED}):\n"
    return _compiled(head + lines, names)


def repeat_awaiting(statement: str, **names: Any) -> Run:
    """As `repeat`, for a statement that awaits."""
    head = "async def run(n):\n    start = clock()\n    for _ in range(n):\n"
    return _compiled(f"{head}        {statement}\n", names)


def _compiled(source: str, names: dict[str, Any]) -> Run:
    names = {**names, "clock": clock}
    exec(f"{source}    return clock() - start\n", names)
    run: Run = names["run"]
    return run


@asynccontextmanager
async def without_gc() -> AsyncIterator[None]:
    """Collect the garbage now, and none inside of the block."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


async def in_turn(runs: Mapping[str, Run], n: int, rounds: int) -> dict[str, list[float]]:
    """Run all in turn, `rounds` times; return the nanoseconds for one time of each, by round."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    async with without_gc():
        for _ in range(rounds):
            for name, run in runs.items():
                took = run(n)
                seconds = await took if inspect.isawaitable(took) else took
                times[name].append(seconds / n * 1e9)
    return times
