"""What a question is: its cells, its tables, and the verdict that is computed from their figures.

A verdict is one sentence of at most `LONGEST` characters, made of the figures of the runs; each
question can come out the other way, and then its sentence says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from mbufpools.demokit import Table

from .._intervals import median, spread
from .._kernels import KERNELS, Kernel
from .._results import Cell, Results

__all__ = ["LONGEST", "Question", "kernel", "mean", "never", "percent", "seconds"]

LONGEST = 200
"""Characters of a verdict, at most."""


@dataclass(frozen=True, slots=True)
class Question:
    """A question of the thread, and how it is answered."""

    letter: str
    name: str
    """As in ``mbufpools compare NAME``."""
    asked: str
    """The question, in one sentence."""
    cells: tuple[Cell, ...]
    tables: Callable[[Results], list[Table]]
    verdict: Callable[[Results], str]
    how: str
    """What is simulated, and how the table is read, for the reader of the report."""
    notes: tuple[str, ...] = field(default=())
    """What the answer leaves out."""


def kernel(name: str, caches: int = 0) -> Kernel:
    """Return a kernel by its name, with the caches of so many CPUs."""
    return KERNELS[name].on(caches)


def mean(results: Results, cell: Cell, name: str) -> float:
    """Return the mean of a figure over the seeds; None counts as 0."""
    values = [value or 0.0 for value in results.values(cell, name)]
    return sum(values) / len(values)


def percent(values: Sequence[float]) -> str:
    """Return the mean of shares as a percentage, with its interval: "53 (51-55)"."""
    return spread([100 * value for value in values], "{:.0f}")


def never(values: Sequence[Any]) -> int:
    """How many of `values` are None, which stands for "never"."""
    return sum(value is None for value in values)


def seconds(values: Sequence[float | None]) -> str:
    """Return the median of times as text. A time that never came counts as longer than any; if
    there are some, it is said how many."""
    found, missing = median(values), never(values)
    text = "never" if found is None else f"{found:.1f}"
    if missing in (0, len(values)):
        return text
    return f"{text} (never: {missing} of {len(values)})"
