"""How room is made for a request: idle pages of all pools leave, the longest idle first.

Under pressure, idle pages are reclaimed for a request: planned first, and given back only if they
suffice. The request is charged before any other request hears of the pages, or a direct wakeup
would give them to another one. While a claim waits, no page stays idle.

Invariant: no page leaves that its pool's minimum, or the request itself, needs.
"""

from __future__ import annotations

import heapq
from typing import cast

from ._page import Page
from ._set_state import SetState
from ._supply import Supply
from ._wait_queues import Needs

__all__ = ["Reclaimer"]


class Reclaimer:
    """Makes room in one pool set. Under the gc's rule it does nothing: the gc does."""

    __slots__ = ("_state", "pressure", "supplies")

    def __init__(self, state: SetState, pressure: bool) -> None:
        self._state = state
        self.pressure: bool = pressure
        """True if idle pages leave for a request."""
        self.supplies: list[Supply] = []
        """The supplies of all pools, in the order of their sizes."""

    @property
    def may_make_room(self) -> bool:
        """True if there may be an idle page that leaves for a request."""
        return self.pressure and bool(self._state.supplies_with_idle)

    def with_idle(self) -> list[Supply]:
        """Return the supplies that may have an idle page, in the order of their sizes."""
        supplies = cast(dict[Supply, None], self._state.supplies_with_idle)
        if not supplies:  # `sorted` would walk over the places of all entries that there were
            return []
        return sorted(supplies, key=lambda supply: supply.rank)

    def charge(self, nbytes: int, needs: Needs) -> bool:
        """Charge `nbytes` for a request that `needs` items; make room for it if need be."""
        budget = self._state.budget
        while self.may_make_room and (lacking := nbytes + budget.allocated - budget.limit) > 0:
            if not self._make_room(lacking, dict(needs)):
                break  # else once more: of those let go, what something exports stays charged
        return budget.charge(nbytes)

    def _make_room(self, lacking: int, needs: dict[Supply, int]) -> bool:
        """Let idle pages go if they make up for the `lacking` bytes, and if not, none."""
        idle = heapq.merge(
            *(supply.spare_pages(needs.get(supply, 0)) for supply in self.with_idle()),
            key=lambda spare: spare[1].empty_since,
        )
        plan: list[tuple[Supply, Page]] = []
        for supply, page in idle:
            plan.append((supply, page))
            lacking -= supply.page_size
            if lacking <= 0:
                break
        else:
            return False
        for supply, page in plan:
            supply.let_go(page)
        return True

    def let_go_idle_pages(self, claimed: bool) -> None:
        """Under pressure: let no page stay idle while a claim waits."""
        if self.may_make_room and (claimed or self._state.budget.debt):
            for supply in self.with_idle():
                if supply.nidle:
                    supply.reclaim()

    def any_idle(self) -> bool:
        """Return True if an idle page might leave for a request, as far as can be said quickly."""
        return self.may_make_room and any(supply.nidle for supply in self.with_idle())

    def nothing_idle(self) -> bool:
        """Return True if no pool has an idle page that it can do without."""
        return all(next(supply.spare_pages(0), None) is None for supply in self.with_idle())
