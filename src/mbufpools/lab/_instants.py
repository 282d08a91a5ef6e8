"""The instants of an execution's clock: where it begins, and when a deadline has come.

A program may compare the clock with 0 (``last = 0.0``, and then ``monotonic() - last > 60``), and
may test a time for truth. On a real machine, which has been up for a while, it then takes the path
that its author has seen. So the clock begins at `BEGIN`, and reports tell seconds since then.

A real timer is never early and a little late, so a program that slept for 0.2 seconds finds that at
least 0.2 have passed. Numbers as large as `BEGIN` are rounded, which could make it less. So the
clock stands only at multiples of `GRAIN`, and moves to the first of them that is not before the
deadline. The difference of two such instants is exact, also in `time.time`.

Two waits of 0.1 seconds and one of 0.2 may end at different instants then, though they mean the
same. So deadlines that are at most `TOGETHER` apart come at one instant: that of the last one.
"""

from __future__ import annotations

import math

__all__ = ["BEGIN", "TICK", "TOGETHER", "cells", "not_before", "since_begin"]

BEGIN = 2.0**20
"""Where the clock begins, in seconds: twelve days. A power of two, so that sums with it are exact
for halves, quarters and so on."""
GRAIN = 2.0**-20
"""Seconds, nearly a microsecond. `time.time` has no digits for much less."""
EXACT = 2.0**53 * GRAIN
"""Seconds, 272 years. Numbers beyond it are multiples of a grain anyway."""
TOGETHER = 8 * GRAIN
"""Seconds. Each wait ends late by less than a grain, so this is the sum of eight waits at least."""
TICK = 0.001
"""Seconds by which the clock is moved for a program that waits for it to move."""
DIGITS = 5
"""Decimal places of the times in reports, so that what `GRAIN` adds is not seen."""


def not_before(deadline: float) -> float:
    """Return the first instant of the clock that is not before a deadline."""
    return math.ceil(deadline / GRAIN) * GRAIN if deadline < EXACT else deadline


def since_begin(now: float) -> float:
    """Return the seconds since the begin of the execution, as reports tell them."""
    return round(now - BEGIN, DIGITS)


def cells(deadline: float) -> tuple[int, int]:
    """Return two numbers; two deadlines that may come at one instant have one of them in common."""
    cell = math.floor(min(deadline, EXACT) / TOGETHER)
    return cell, cell + 1
