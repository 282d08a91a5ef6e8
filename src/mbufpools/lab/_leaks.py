"""What a program leaks: heard from the warnings that Python and this library give.

Uses `_outcome`.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ._outcome import Outcome

__all__ = ["Leaks", "collect_unheard", "listening"]


EXECUTIONS = 100
"""After so many what has outlived its own execution is collected."""


class Leaks:
    """The warnings of one execution.

    What a program drops in a reference cycle is heard when the cycle is collected. It must be heard
    in the execution that dropped it: so nothing is collected by itself meanwhile, and what an
    execution has made is still young at its end. To look at the old as well, each time, would cost
    more than the execution.
    """

    def __init__(self) -> None:
        self._heard: list[str] = []
        self._executions = 0

    def begin(self) -> None:
        """An execution begins: what is heard from now on is its own."""
        if self._executions % EXECUTIONS == 0:
            gc.collect(1)  # at first, what was dropped before
        self._executions += 1
        self._heard.clear()

    def judge(self, outcome: Outcome) -> Outcome:
        """The outcome, which is a leak if nothing else failed and something was leaked."""
        gc.collect(0)
        if self._heard and outcome.kind is None and not outcome.stopped:
            outcome = Outcome("leak", "\n".join(self._heard))
        return outcome


@contextmanager
def listening() -> Iterator[Leaks]:
    """Hear the warnings of leaked resources and of coroutines that were never awaited."""
    leaks = Leaks()
    collected_by_itself = gc.isenabled()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("always", category=ResourceWarning)
        warnings.filterwarnings("always", message=".*was never awaited", category=RuntimeWarning)

        def hear(message: Warning | str, *_where: Any, **_options: Any) -> None:
            leaks._heard.append(str(message))

        warnings.showwarning = hear  # put back by `catch_warnings`
        gc.disable()
        try:
            yield leaks
        finally:
            if collected_by_itself:
                gc.enable()
        gc.collect(1)  # what is left of it must not be heard by others


def collect_unheard() -> None:
    """Let go of what failed executions have left, old or young: their leaks are nobody else's."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()
