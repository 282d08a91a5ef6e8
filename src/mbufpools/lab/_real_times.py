"""Variables of the program that hold a time of the real clock.

A module notes the time when it is imported (``STARTED = time.time()``), and so does an object that
a module makes. That is before the exploration, so it is real time, while the clocks of the program
begin in another year. The program then finds that less than no time has passed, or that what has
expired is still valid. So a proof or a failure of a program that looks at the clock names such
variables. A number is taken for a time if it is close to the present, and has as many digits as
only a clock gives.
"""

from __future__ import annotations

import datetime
import time
import types
import warnings
from collections.abc import Iterator
from itertools import islice
from typing import Any

from . import _running
from ._clocks import EPOCH
from ._options import Options
from ._repetition import LOOKED_AT, attributes_of, variables
from ._time_travel import travels

__all__ = ["noted_times", "real_times"]

DAY = 86_400
YEAR = 366 * DAY
"""Seconds in the future at which something may expire, at most."""
NAMED = 5
"""Variables that are named, at most."""
_imported = time.monotonic()
"""When the lab was imported, on the steady clock. The program may have been imported before."""


def real_times(program: Any, options: Options) -> str | None:
    """Say which variables hold a time of the real clock; None if there are none."""
    if not options.clocks or travels():
        return None
    now = time.time(), time.monotonic()
    names: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an attribute may warn when it is read
        for name, value in variables(program):
            if any(name.startswith(f"{module}.") for module in options.fresh):
                continue
            try:
                names += [spelt for spelt, it in _values(name, value) if _is_time(it, *now)]
            except Exception:  # noqa: BLE001 - an object that cannot be looked at
                continue
    if not names:
        return None
    year = datetime.datetime.fromtimestamp(EPOCH, datetime.UTC).year
    return (
        f"the program looks at clocks that begin in {year}, and a time of the real clock was noted "
        f"before ({', '.join(sorted(set(names))[:NAMED])}): fresh= executes the module again, in "
        f"virtual time"
    )


def noted_times(program: Any, options: Options) -> tuple[str, ...]:
    """Return the line of it in the report of a failure, if the last execution looked at a clock."""
    told = real_times(program, options) if _running.looks else None
    return () if told is None else (f"note: {told}",)


def _values(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield a variable, and what it holds, by name."""
    yield name, value
    if isinstance(value, dict):
        for key, it in islice(value.items(), LOOKED_AT):
            yield f"{name}[{key!r}]", it
    elif isinstance(value, types.FunctionType):
        for it in (*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()):
            yield f"{name}()", it
    elif not isinstance(value, types.ModuleType):
        for attribute, it in attributes_of(value):
            yield f"{name}.{attribute}", it


def _is_time(value: Any, now: float, steady: float) -> bool:
    """Return True for a time of the real clock, which is `now` and `steady` at present."""
    if isinstance(value, datetime.datetime):
        near = now - DAY <= value.timestamp() <= now + YEAR
        return near and value.microsecond % 100_000 != 0
    if type(value) is int:
        in_ns = (now - DAY) * 1e9 <= value <= (now + YEAR) * 1e9
        return now - DAY <= value <= now + DAY or (in_ns and value % 100_000_000 != 0)
    if type(value) is not float:
        return False
    if now - DAY <= value <= now + YEAR:
        return round(value, 1) != value
    return max(_imported - DAY, 60) <= value <= steady and round(value, 6) != value
