"""What ends a stall: after the schedule that led to it, one thing more happens.

The gc is none of these things. It has run until it finds nothing to do; only then is it a stall.
"""

from __future__ import annotations

import enum
from collections.abc import Callable

from ._kernel import Pool
from ._model import Model, Scenario
from ._rules import Rules
from ._search import replay

__all__ = ["Ending", "endings"]


class Ending(enum.StrEnum):
    """One thing that happens after a stall."""

    PUT = "the next put into the pool"
    """Another process takes an item of the pool and puts it; or a holder puts one."""
    EMPTY = "a put that empties a page of the pool"
    """The holders put all items of the pool."""
    PAGE = "the next page that leaves"
    """Another page of the budget leaves, which is as large as the largest."""

    def ends(self, found: tuple[Ending, ...]) -> bool:
        """True if this ends the stall that `found` ends: what one put does, all puts do, too."""
        return self in found or (self is Ending.EMPTY and Ending.PUT in found)


def _page_leaves(model: Model, _: Pool) -> None:
    model.page_leaves()


HAPPENS: dict[Ending, Callable[[Model, Pool], None]] = {
    Ending.PUT: Model.use,
    Ending.EMPTY: Model.empty,
    Ending.PAGE: _page_leaves,
}


def endings(scenario: Scenario, rules: Rules, token: str) -> tuple[Ending, ...]:
    """Return what ends the stall of a token's schedule, each thing tried alone.

    A stall has ended when a process that could be served is served. `Ending.EMPTY` is tried only if
    one put does not end the stall.
    """
    found: list[Ending] = []
    for ending, happens in HAPPENS.items():
        if ending is Ending.EMPTY and Ending.PUT in found:
            continue
        model = replay({scenario.name: scenario}, rules, token).model
        stalled = model.stalled()
        happens(model, stalled[0][1])
        if any(process.waits_for is None for process, _ in stalled):
            found.append(ending)
    return tuple(found)
