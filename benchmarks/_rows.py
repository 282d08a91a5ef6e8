"""A row: what was measured of the library and of its peer, and the goal."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ["LESS", "WHOLE", "Row", "Show", "compare", "difference"]

WHOLE, LESS = ", whole", "  less "
"""How the names of an ablation's rows end and begin: of its first row, and of each that follows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of the table."""

    name: str
    """What is measured."""
    backend: str
    """``asyncio``, ``uvloop`` or ``trio``; ``python`` if no loop runs."""
    ours: float
    """The median, in `unit`."""
    peer: str
    """What stands beside it."""
    theirs: float
    """The peer's median, in `unit`."""
    unit: str
    """``ns``, ``us``, ``ms``, ``bytes`` or ``pages``."""
    compared: Literal["ratio", "more"]
    """What the goal is about: ours divided by the peer's, or ours less the peer's."""
    value: float
    """The median of that over all rounds."""
    low: float
    high: float
    """The quartiles of that over all rounds."""
    goal: float | None
    """The most that `value` may be; None if the row is only for comparison."""

    @property
    def holds(self) -> bool | None:
        """True if the goal is met; None if there is none."""
        return None if self.goal is None else self.value <= self.goal


Show = Callable[[Row], None]
"""Called with each row as soon as it is measured."""


def compare(
    name: str,
    backend: str,
    ours: Sequence[float],
    peer: str,
    theirs: Sequence[float],
    goal: float | None = None,
    *,
    unit: str = "ns",
) -> Row:
    """Make the row of a ratio. The lists have one figure for each round."""
    values = [a / b for a, b in zip(ours, theirs, strict=True)]
    return _row(name, backend, ours, peer, theirs, goal, unit, "ratio", values)


def difference(
    name: str,
    backend: str,
    ours: Sequence[float],
    peer: str,
    theirs: Sequence[float],
    goal: float | None = None,
    *,
    unit: str,
) -> Row:
    """Make the row of a difference. The lists have one figure for each round."""
    values = [a - b for a, b in zip(ours, theirs, strict=True)]
    return _row(name, backend, ours, peer, theirs, goal, unit, "more", values)


def _row(
    name: str,
    backend: str,
    ours: Sequence[float],
    peer: str,
    theirs: Sequence[float],
    goal: float | None,
    unit: str,
    compared: Literal["ratio", "more"],
    values: list[float],
) -> Row:
    low, median, high = _quartiles(values)
    return Row(
        name=name,
        backend=backend,
        ours=statistics.median(ours),
        peer=peer,
        theirs=statistics.median(theirs),
        unit=unit,
        compared=compared,
        value=median,
        low=low,
        high=high,
        goal=goal,
    )


def _quartiles(values: list[float]) -> tuple[float, float, float]:
    if len(values) < 2:
        return values[0], values[0], values[0]
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, median, high
