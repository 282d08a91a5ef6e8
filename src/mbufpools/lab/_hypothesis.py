"""An exploration for one example of Hypothesis: the program is a part of a test under ``@given``.

Each schedule of the example gets the same values. Hypothesis has one store of choices for an
example, and what is drawn from it moves on, so a program that draws is refused.

If an assumption does not hold in the stock schedule, the example is discarded, as without the lab.
In a later schedule it is a failure: the example has been tested by then, and to discard it would
hide what other schedules do.

The lab does not import Hypothesis. If nobody else has, no example is being tested.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from ._outcome import leaves, only, refuse

__all__ = ["LATE", "in_example", "rejection", "same_values"]

LATE = (
    "note: hypothesis.assume() did not hold in this schedule, and it did in the first one. By then "
    "the example has been tested, so it cannot be discarded: call assume() before the tasks begin. "
    "To let a schedule pass, return from the test."
)
DRAWN = (
    "the program draws from Hypothesis while it is explored, as st.data(), st.randoms() and "
    "st.functions() do, and each schedule would get other values; draw them before: take all of "
    "them as arguments of @given, or draw them in a plain test before it calls the fixture "
    "`explore`"
)


class _Latest(dict[str, Any]):
    """What `hypothesis.target` was given, which takes a label again in each execution."""

    def __contains__(self, label: object) -> bool:
        return False


def in_example() -> bool:
    """Return True if the calling thread tests an example."""
    control: Any = sys.modules.get("hypothesis.control")
    return control is not None and bool(control.currently_in_test_context())


def rejection(error: BaseException | None) -> BaseException | None:
    """Return the error by which `hypothesis.assume` or `reject` discards the example, also if it is
    in a group that holds nothing else, as Hypothesis does; return None if there is none."""
    if error is None or not in_example():
        return None
    kind = sys.modules["hypothesis.errors"].UnsatisfiedAssumption
    return next(leaves(error)) if only(kind, error) else None


@contextmanager
def same_values() -> Iterator[None]:
    """Refuse a program that draws from the example that is being tested."""
    if not in_example():
        yield
        return
    data: Any = sys.modules["hypothesis.control"].current_build_context().data
    draws = [name for name in dir(type(data)) if name == "draw" or name.startswith("draw_")]
    data.target_observations = _Latest(data.target_observations)
    for name in draws:
        setattr(data, name, _refuse_draw)
    try:
        yield
    finally:
        for name in draws:
            delattr(data, name)
        data.target_observations = dict(data.target_observations)


def _refuse_draw(*_: Any, **__: Any) -> NoReturn:
    raise refuse(DRAWN)
