"""pytest's fixture `subtests` in a program that is explored.

The fixture reports what fails in a subtest, and lets the test go on. In an exploration no execution
would fail then. So while one runs, a subtest that fails ends its execution, and is the failure of
that schedule. A subtest that is skipped or is expected to fail ends as without the lab.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import pytest

from ._pytest_outcomes import ends_the_test

__all__ = ["failing_subtests"]


class _Subtest:
    """What is done in one subtest."""

    def __init__(self, msg: str | None, arguments: dict[str, Any]) -> None:
        self._msg = msg
        self._arguments = arguments

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(
        self, kind: object, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        """Name the subtest in the report of the error, which goes on; a skip does not."""
        if ends_the_test(error) and not isinstance(error, BaseExceptionGroup):
            return True
        if isinstance(error, Exception):
            named = [] if self._msg is None else [f"[{self._msg}]"]
            if self._arguments:
                values = ", ".join(f"{name}={it!r}" for name, it in self._arguments.items())
                named.append(f"({values})")
            error.add_note(" ".join(["in a subtest", *named]))
        return False


def _test(_: object, msg: str | None = None, **arguments: Any) -> _Subtest:
    return _Subtest(msg, arguments)


@contextmanager
def failing_subtests() -> Iterator[None]:
    """Let an error out of its subtest."""
    fixture: Any = getattr(pytest, "Subtests", None)  # since pytest 9
    if fixture is None:
        yield
        return
    test = fixture.test
    fixture.test = _test
    try:
        yield
    finally:
        fixture.test = test
