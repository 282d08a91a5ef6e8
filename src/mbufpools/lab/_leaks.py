"""Finds what a program leaks, by the warnings that Python and libraries give.

A resource warns when it is dropped without being closed. A resource in a reference cycle warns only
when the cycle is collected, and that must happen in the execution that dropped it. So automatic
collection is off while the lab executes, and `Leaks.judge` collects the youngest generation, which
holds what this execution has made. To collect all generations each time would take longer than the
execution itself.
"""

from __future__ import annotations

import ctypes
import gc
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ._declare import recorder
from ._outcome import Outcome

__all__ = ["Leaks", "collect_unheard", "keep_for_good", "listening"]

EXECUTIONS = 100
"""After this many executions the middle generation is collected too: it holds what has outlived its
own execution."""


class Leaks:
    """The warnings of one execution."""

    def __init__(self) -> None:
        self._heard: list[str] = []
        self._executions = 0

    def begin(self) -> None:
        """Attribute all warnings from now on to the execution that begins."""
        if self._executions % EXECUTIONS == 0:
            gc.collect(1)  # the first time, what was dropped before the exploration
        self._executions += 1
        self._heard.clear()

    def hear(self, leak: str) -> None:
        """Note a leak of this execution that the backend has seen."""
        self._heard.append(leak)

    def judge(self, outcome: Outcome) -> Outcome:
        """Return the outcome: a leak, if something was leaked and nothing else failed."""
        recorder.let_go()
        gc.collect(0)
        if self._heard and outcome.kind is None and not outcome.stopped:
            outcome = Outcome("leak", "\n".join(self._heard))
        return outcome


def keep_for_good(thing: object) -> None:
    """Keep a thing, and all that it holds, until the process ends, and do not finalize it then."""
    _kept.append(thing)
    if sys.implementation.name == "cpython":
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


_kept: list[object] = []


@contextmanager
def listening() -> Iterator[Leaks]:
    """Collect the warnings of leaked resources and of coroutines that were never awaited.

    All other warnings are dropped, unless a filter makes them errors: then they are raised, as they
    are without the lab. At the end, warnings and the garbage collector are as they were.
    """
    leaks = Leaks()
    was_enabled = gc.isenabled()
    with warnings.catch_warnings():
        warnings.filterwarnings("always", category=ResourceWarning)
        warnings.filterwarnings("always", message=".*was never awaited", category=RuntimeWarning)

        def hear(
            message: Warning | str, category: type[Warning], *_where: Any, **_options: Any
        ) -> None:
            if issubclass(category, ResourceWarning) or "was never awaited" in str(message):
                leaks._heard.append(str(message))

        warnings.showwarning = hear  # `catch_warnings` restores it
        gc.disable()
        try:
            yield leaks
        finally:
            if was_enabled:
                gc.enable()
        gc.collect(1)  # else its leftovers would warn in code that runs later


def collect_unheard() -> None:
    """Collect in silence all that failed executions have left, so that it does not warn later."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()
