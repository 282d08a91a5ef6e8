"""Means and medians over the seeds, with intervals by bootstrap or with their range.

A mean describes runs of one kind only. Where some runs hang and others do not, or one of twenty is
ten times as slow, it is a figure that no run has; there `middle` gives the median and the range.
The intervals by bootstrap need NumPy, which is in the extra ``report``; without it there are none.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

__all__ = ["BRACKETS", "interval", "median", "middle", "reach", "spread"]

RESAMPLES = 2000
"""How often the seeds are drawn anew."""
LEVEL = 95
"""Percent of the resampled means that lie in the interval."""


BRACKETS = (
    "In the tables a (b..c) is the median of the runs, with the least and the most; a (b-c) is "
    f"their mean, with {LEVEL} % of the bootstrapped means."
)
"""What stands in brackets in the tables."""


def interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Return the interval in which the mean lies, by percentile bootstrap. The same values give the
    same interval. None for fewer than two values, and without NumPy."""
    if len(values) < 2 or find_spec("numpy") is None:
        return None
    import numpy

    drawn: Any = numpy.random.default_rng(0).choice(values, size=(RESAMPLES, len(values)))
    low, high = numpy.percentile(drawn.mean(axis=1), [50 - LEVEL / 2, 50 + LEVEL / 2])
    return float(low), float(high)


def median(values: Sequence[float | None]) -> float | None:
    """Return the median; None stands for "never", which is more than any number. The lower one of
    the two in the middle, so that it is a value that was measured."""
    found = statistics.median_low([math.inf if value is None else value for value in values])
    return None if found == math.inf else found


def spread(values: Sequence[float], form: str = "{:.1f}") -> str:
    """Return the mean as text, with its interval behind it if there is one: "3.1 (2.9-3.3)"."""
    mean = form.format(statistics.fmean(values))
    found = interval(values)
    if found is None:
        return mean
    low, high = (form.format(end) for end in found)
    return mean if low == high else f"{mean} ({low}-{high})"


def middle(values: Sequence[float], form: str = "{:,.0f}") -> str:
    """Return the median as text, with the least and the most behind it if they differ:
    "26,706 (128..27,650)"."""
    found = form.format(statistics.median_low(values))
    ends = reach(values, form, to="..")
    return found if ends == found else f"{found} ({ends})"


def reach(values: Sequence[float], form: str = "{:,.0f}", to: str = " to ") -> str:
    """Return the least and the most as text, "128 to 184"; one of them if they look the same."""
    return to.join(dict.fromkeys(form.format(end) for end in (min(values), max(values))))
