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

__all__ = ["Leaks", "listening"]


class Leaks:
    """The warnings of one execution."""

    def __init__(self) -> None:
        self._heard: list[str] = []
        self.torn_down = False
        """Some execution did not come to its own end."""

    def judge(self, outcome: Outcome) -> Outcome:
        """The outcome, which is a leak if nothing else failed and something was leaked."""
        if outcome.kind is not None or outcome.stopped:
            # What a torn-down program drops in reference cycles must not be heard later on. It is
            # young; to look at the old as well, each time, costs more than the execution.
            gc.collect(1)
            self.torn_down = True
        elif self._heard:
            outcome = Outcome("leak", "\n".join(self._heard))
        self._heard.clear()
        return outcome


@contextmanager
def listening() -> Iterator[Leaks]:
    """Hear the warnings of leaked resources and of coroutines that were never awaited."""
    leaks = Leaks()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("always", category=ResourceWarning)
        warnings.filterwarnings("always", message=".*was never awaited", category=RuntimeWarning)

        def hear(message: Warning | str, *_where: Any, **_options: Any) -> None:
            leaks._heard.append(str(message))

        warnings.showwarning = hear  # put back by `catch_warnings`
        yield leaks
        if leaks.torn_down:
            gc.collect()
