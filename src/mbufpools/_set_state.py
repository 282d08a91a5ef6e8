"""The state that the pools of one set share, and the way of a page in and out.

It holds their owner loop, budget, memory, event observer and rules, the numbers of their requests,
and what is charged to the budget beside their pages.

Models ``m_pool_allocator`` (uipc_mbuf.c:m_pool_alloc, m_pool_free).

`changing` is entered around every step that changes more than one thing. If an exception leaves it,
the set is *broken*: the gate of every get is closed, and the next call that enters `changing`, or
the gc's tick, repairs the set first.

Invariant: unless the set is broken, every byte that is charged to the budget belongs to a page of a
pool, to a reservation, or to a page in `quarantine`. A page is in quarantine while it leaves, and
stays there while something still exports its memory.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

from ._budget import Budget
from ._debug import LeaseTracker
from ._events import EventKind, Observer
from ._log import logger
from ._memory import Block, Memory, allocate_page
from ._owner_loop import OwnerLoop
from ._page import Page, PageLists
from ._policies import CurPage, Rules

__all__ = ["SetState"]


class Changing:
    """Guards the steps that change more than one thing."""

    __slots__ = ("_state",)

    def __init__(self, state: SetState) -> None:
        self._state = state

    def __enter__(self) -> None:
        if self._state.broken:
            self._state.repair()

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        if kind is not None and error is not self._state.of_memory:
            self._state.breaks()


class SetState:
    """The shared state of the pools of one set; no user sees it."""

    __slots__ = (
        "_unmap_error",
        "broken",
        "budget",
        "changing",
        "claim_numbers",
        "claims",
        "curpage",
        "dropped",
        "exporting",
        "failure",
        "fast_acquire",
        "in_task",
        "memory",
        "numbers",
        "observer",
        "of_memory",
        "owner_loop",
        "quarantine",
        "repair",
        "reserved_min_bytes",
        "rules",
        "supplies_with_idle",
        "tracker",
        "waiting",
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
        self.owner_loop: OwnerLoop = owner_loop
        self.budget: Budget = budget
        self.memory: Memory = memory
        self.observer: Observer = observer
        self.rules: Rules = rules
        self.curpage: CurPage = curpage
        self.fast_acquire: bool = fast_acquire
        self.tracker: LeaseTracker | None = tracker
        """Which task holds which lease; None unless in debug mode."""
        self.numbers: itertools.count[int] = itertools.count(1)
        """The numbers of the requests, in the order in which they were made."""
        self.broken: bool = False
        """True if an exception ended a step in its middle."""
        self.of_memory: Exception | None = None
        """The last error of the source of memory, which breaks nothing: each caller undoes its
        own steps."""
        self._unmap_error = ""
        """The last error of `Block.unmap`, so that it is logged once."""
        self.changing: Changing = Changing(self)
        self.repair: Callable[[], None] = lambda: None
        """Mends a broken set. `BufferPools._wire` sets it."""
        self.claims: dict[int, int] = {}
        """Bytes that are charged without a page, by the number of their claim."""
        self.claim_numbers: itertools.count[int] = itertools.count(1)
        self.failure: BaseException | None = None
        """The error of a queued task, with which each get fails."""
        self.dropped: int = 0
        """Leases that were dropped without a release."""
        self.quarantine: dict[Page, tuple[int, str]] = {}
        """Pages that leave: their bytes, and the name of their pool."""
        self.in_task: Callable[[], bool] = lambda: False
        """Whether the caller is a task of the set's own queue, which must not wait for the set.
        `BufferPools._wire` sets it once the queue is made."""
        self.waiting: int = 0
        """Requests that wait."""
        self.supplies_with_idle: dict[PageLists, None] = {}
        """The supplies that may have an idle page. The others have none."""
        self.exporting: dict[PageLists, None] = {}
        """The supplies that may have an item in quarantine. The others have none."""
        self.reserved_min_bytes: int = 0
        """Bytes of the pages that the pools keep as their minimum."""

    @property
    def watched(self) -> bool:
        """True if each get and put must be told, or fail: there is a hook, the debug mode, or a
        queued task has failed."""
        return (
            self.tracker is not None or self.observer.hook is not None or self.failure is not None
        )

    @property
    def reserved(self) -> int:
        """Bytes that reservations hold; they are charged without a page."""
        return sum(self.claims.values())

    def breaks(self) -> None:
        """An exception ended a step in its middle: the next step repairs the set first. The loop
        takes one soon; if there is no stack left to ask for that, the gc's tick does."""
        self.broken = True
        self.owner_loop.open_to = 0
        self.owner_loop.soon(self.mend)

    def mend(self) -> None:
        """Repair the set if it is broken."""
        with self.changing:
            pass

    def refund(self, nbytes: int, error: BaseException) -> bool:
        """Give charged bytes back that became no page, if the source of memory raised `error`. If
        anything else did, it is not known how far the step had come, and the set is mended."""
        if error is not self.of_memory:
            self.breaks()
            return False
        self.budget.credit(nbytes)
        return True

    def page_in(self, nbytes: int, name: str) -> Block:
        """Take a page of `nbytes` bytes, which are charged, for the pool `name`.

        Raises:
            MemoryError, TypeError, ConfigurationError: as `allocate_page`; the charge is the
                caller's to refund.
        """
        try:
            return allocate_page(self.memory, nbytes, name)
        except Exception as error:
            self.of_memory = error
            raise

    def page_out(self, page: Page) -> None:
        """Give a page in quarantine back: first to the system, then to the budget. If its source
        raises, the page stays, as if something exported it."""
        nbytes, name = self.quarantine[page]
        page.shared = None
        try:
            gone = page.block.unmap()
        except (MemoryError, RecursionError):  # the interpreter's own: the next call tries again
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, what came home is at home
            gone = False
            if repr(error) != self._unmap_error:  # once, and not at each tick
                self._unmap_error = repr(error)
                # Without its traceback, which could not be made while the interpreter shuts down.
                logger().error(
                    "%s: a page of pool %r cannot be unmapped and stays charged: %r; its source of "
                    "memory should return False as long as it cannot, and raise nothing",
                    self.owner_loop.name,
                    name,
                    error,
                )
        if gone:
            del self.quarantine[page]
            self.budget.uncharge(nbytes)
            self.observer.tell(EventKind.PAGE_OUT, name, nbytes)  # before it wakes a request
            self.budget.on_credit(nbytes)

    def unreserve(self, number: int) -> None:
        """Give bytes back that were charged without a page. The wakeup policy is not asked if no
        request waits: unlike a page, a reservation is nothing of the kernel's, and a wakeup for
        each would cost more than the reservation."""
        if self.broken:
            self.repair()
        try:  # as `changing`, without its calls
            nbytes = self.claims.pop(number, 0)
            if nbytes and (self.budget.uncharge(nbytes) or self.waiting):
                self.budget.on_credit(nbytes)
            if self.owner_loop.thread == 0:
                self.empty_quarantine()  # after the close no gc does it
        except BaseException as error:
            if error is not self.of_memory:
                self.breaks()
            raise

    def empty_quarantine(self) -> None:
        """Give back the pages that nothing exports any more."""
        for page in list(self.quarantine):
            self.page_out(page)
