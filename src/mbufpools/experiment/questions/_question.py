"""What a question is: its cells, its tables, and the verdict that is computed from their figures.

A verdict is one sentence of at most `LONGEST` characters, made of the figures of the runs; each
question can come out the other way, and then its sentence says so.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from mbufpools.demokit import Table
from mbufpools.mbufs import MCLBYTES

from .._intervals import median, spread
from .._kernels import KERNELS, Kernel
from .._parameters import PARAMETERS
from .._results import Cell, Results

__all__ = [
    "LONGEST",
    "Question",
    "as_percent",
    "given",
    "kernel",
    "mean",
    "memory",
    "never",
    "percent",
    "seconds",
    "typical",
]

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
    how: Callable[[Results], str]
    """What is simulated, with the parameters of these results, and how the table is read, for the
    reader of the report."""
    notes: Callable[[Results], Sequence[str]] = field(default=lambda results: ())
    """What the answer leaves out."""
    fixed: Collection[str] = ()
    """Parameters, as ``workload.name``, that the words of the tables or of the verdict stand for,
    although all cells have the same value."""
    relabelled: Collection[str] = ()
    """Parameters that differ between the cells, and whose rows say so if they were changed."""

    @property
    def stated(self) -> list[str]:
        """The parameters, as ``workload.name``, that this question states: its cells differ in
        them, or its words stand for them. If one were changed in every cell, the rows and columns
        would say what was not run."""
        values: dict[str, list[Any]] = {}
        for cell in self.cells:
            for name, value in (PARAMETERS[cell.workload] | cell.parameters).items():
                found = values.setdefault(f"{cell.workload}.{name}", [])
                if value not in found:
                    found.append(value)
        return [
            name
            for name, found in values.items()
            if name in self.fixed or (len(found) > 1 and name not in self.relabelled)
        ]


def kernel(name: str, caches: int = 0) -> Kernel:
    """Return a kernel by its name, with the caches of so many CPUs."""
    return KERNELS[name].on(caches)


def given(results: Results, cell: Cell) -> dict[str, Any]:
    """Return all parameters with which a cell was run."""
    return PARAMETERS[cell.workload] | results.measured(cell).parameters


def memory(nmbclust: int) -> str:
    """Return the limit as text: "16 MiB", "272 KiB"."""
    kibibytes = nmbclust * MCLBYTES / 1024
    if kibibytes < 1024:
        return f"{kibibytes:g} KiB"
    mebibytes = kibibytes / 1024
    return f"{mebibytes:,.0f} MiB" if mebibytes >= 100 else f"{mebibytes:.3g} MiB"


def mean(results: Results, cell: Cell, name: str) -> float:
    """Return the mean of a figure over the seeds; None counts as 0."""
    values = [value or 0.0 for value in results.values(cell, name)]
    return sum(values) / len(values)


def typical(results: Results, cell: Cell, name: str) -> float:
    """Return the median of a figure over the seeds, which is one that was measured; None counts as
    0. Unlike the mean, it does not mix runs that hang with others."""
    return float(statistics.median_low([value or 0.0 for value in results.values(cell, name)]))


def as_percent(share: float) -> str:
    """Return a share in percent, without digits that twenty runs do not allow: "50", "0.05"."""
    return f"{100 * share:.0f}" if share == 0 or share >= 0.01 else f"{100 * share:.1g}"


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
