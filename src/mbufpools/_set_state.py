"""What the pools of one set share: their loop, budget, memory, rules, observer, and the numbers
of their requests; and the way of a page in and out.

Models ``m_pool_allocator`` (uipc_mbuf.c:m_pool_alloc, m_pool_free). Invariant: every byte charged
to the budget belongs to a page of a pool, to a reservation, or to a page in `quarantine`, whose
memory something still exports, so that it cannot really leave. Uses `_budget`, `_events`,
`_owner_loop`, `_ledger`, `_memory` and `_policies`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

from ._budget import Budget
from ._debug import LeaseTracker
from ._events import EventKind, Observer
from ._memory import Block, Memory
from ._owner_loop import OwnerLoop
from ._policies import CurPage, Rules

__all__ = ["SetState"]


class SetState:
    """Shared by the pools of one set; private to them."""

    __slots__ = (
        "budget",
        "curpage",
        "fast_acquire",
        "in_task",
        "memory",
        "numbers",
        "observer",
        "owner_loop",
        "quarantine",
        "reservations",
        "reserved",
        "reserved_min_bytes",
        "rules",
        "tracker",
    )

    def __init__(
        self,
        owner_loop: OwnerLoop,
        budget: Budget,
        memory: Memory,
        observer: Observer,
        rules: Rules,
        curpage: CurPage,
        fast_acquire: bool,
        tracker: LeaseTracker | None,
    ) -> None:
        self.owner_loop = owner_loop
        self.budget = budget
        self.memory = memory
        self.observer = observer
        self.rules = rules
        self.curpage = curpage
        self.fast_acquire = fast_acquire
        self.tracker = tracker
        """Who holds what; None unless in debug mode."""
        self.numbers = itertools.count(1)
        self.reservations = 0
        self.reserved = 0
        """Bytes charged without a page."""
        self.quarantine: list[tuple[Block, int, str]] = []
        self.in_task: Callable[[], bool] = lambda: False
        """Whether the caller is a task of the set's own queue, which must not wait for it."""
        self.reserved_min_bytes = 0
        """Bytes of the pages that the pools keep as their minimum."""

    def page_out(self, block: Block, nbytes: int, name: str) -> None:
        """Give a page of the pool `name` back: first to the system, then to the budget."""
        if block.unmap():
            self.budget.credit(
                nbytes, first=lambda: self.observer.tell(EventKind.PAGE_OUT, name, nbytes)
            )
        else:
            self.quarantine.append((block, nbytes, name))

    def unreserve(self, nbytes: int) -> None:
        """Give bytes back that were charged without a page."""
        self.reservations -= 1
        self.reserved -= nbytes
        self.budget.credit(nbytes)
        if self.owner_loop.closed:
            self.empty_quarantine()  # no gc looks after it any more

    def empty_quarantine(self) -> None:
        """Give back the pages that nothing exports any more."""
        held, self.quarantine = self.quarantine, []
        for block, nbytes, name in held:
            self.page_out(block, nbytes, name)
