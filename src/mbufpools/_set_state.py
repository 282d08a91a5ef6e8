"""The state that the pools of one set share, and the way of a page in and out.

It holds their owner loop, budget, memory, event observer and rules, the numbers of their requests,
and what is charged to the budget beside their pages.

Models ``m_pool_allocator`` (uipc_mbuf.c:m_pool_alloc, m_pool_free).

Invariant: every byte that is charged to the budget belongs to a page of a pool, to a reservation,
or to a page in `quarantine`. A page is in quarantine while something still exports its memory, so
that it cannot leave.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

from ._budget import Budget
from ._debug import LeaseTracker
from ._events import EventKind, Observer
from ._memory import Block, Memory, allocate_page
from ._owner_loop import OwnerLoop
from ._policies import CurPage, Rules

__all__ = ["SetState"]


class SetState:
    """The shared state of the pools of one set; no user sees it."""

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
        """Which task holds which lease; None unless in debug mode."""
        self.numbers = itertools.count(1)
        """The numbers of the requests, in the order in which they were made."""
        self.reservations = 0
        """Reservations that are held."""
        self.reserved = 0
        """Bytes that reservations hold; they are charged without a page."""
        self.quarantine: list[tuple[Block, int, str]] = []
        """Pages that cannot leave yet: the block, its bytes, and the name of its pool."""
        self.in_task: Callable[[], bool] = lambda: False
        """Whether the caller is a task of the set's own queue, which must not wait for the set.
        `BufferPools._wire` sets it once the queue is made."""
        self.reserved_min_bytes = 0
        """Bytes of the pages that the pools keep as their minimum."""

    def page_in(self, nbytes: int, name: str) -> Block:
        """Take a page of `nbytes` bytes, which are charged, for the pool `name`.

        Raises:
            MemoryError, TypeError, ConfigurationError: as `allocate_page`; the charge is the
                caller's to refund.
        """
        return allocate_page(self.memory, nbytes, name)

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
            self.empty_quarantine()  # after the close no gc does it

    def empty_quarantine(self) -> None:
        """Give back the pages that nothing exports any more."""
        held, self.quarantine = self.quarantine, []
        for block, nbytes, name in held:
            self.page_out(block, nbytes, name)
