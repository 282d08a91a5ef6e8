"""A pool of items of one size.

Models ``struct pool`` and subr_pool.c: pool_get, pool_put, pool_runqueue, pool_wakeup,
pool_reclaim, pool_gc_pages, pool_prime, pool_setlowat, pool_sethiwat, pool_sethardlimit.

A request that finds nothing is appended to the pool's queue, and the queue is run once more
*before* the task sleeps: a page that came back between the first try and the append would
otherwise be lost on it. Whoever brings something back runs the queue and hands items over; a
sleeper is never woken to try again.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import islice
from threading import get_ident
from typing import Any

import anyio
from anyio.lowlevel import cancel_shielded_checkpoint, checkpoint_if_cancelled

from ._buffer import Buffer
from ._debug import Holder, LeaseTracker
from ._errors import (
    ConfigurationError,
    ForeignBuffer,
    PoolCorruption,
    UsageError,
)
from ._events import EventKind
from ._page import Page, PageLists
from ._request import Request
from ._set_state import SetState
from ._sizes import require_count
from ._spec import PoolSpec, stride_of
from ._statistics import PoolStatistics
from ._waiters import Waiters

__all__ = ["Pool"]

WAIT_FREE = 1_000_000
"""Microseconds that a page must have been idle before a put lets it go (``POOL_WAIT_FREE``)."""
WAIT_GC = 8_000_000
"""Microseconds that a page must have been idle before the gc lets it go (``POOL_WAIT_GC``)."""


class Pool:
    """Buffers of one size. Made by `BufferPools` and `MbufPools`, found in their `pools`.

    Its calls belong to the event loop that entered the set; only the release of a buffer may
    come from another thread.
    """

    def __init__(self, spec: PoolSpec, state: SetState, waiters: Waiters) -> None:
        self._state = state
        self._waiters = waiters
        self._owner_loop = state.owner_loop
        self._observer = state.observer
        self.name = spec.name
        """Names the pool in its set, in messages and in statistics."""
        self.item_size = spec.item_size
        """Bytes of an item."""
        self.stride = stride_of(spec.item_size)
        """Bytes from one item of a page to the next."""
        self.page_size = spec.page_size
        """Bytes of a page."""
        self.items_per_page = spec.items_per_page
        self._lists = PageLists(spec.items_per_page, state.curpage, state.owner_loop.now)
        self.queue = waiters.add_pool(self)
        """The pool's condition variable: those who wait for an item of it."""
        self._hard_limit = spec.max_items
        self._max_idle_items = spec.max_idle_items
        self._min_items = spec.min_items
        state.reserved_min_bytes += spec.min_pages * spec.page_size
        self._nget = 0
        self._nfail = 0

    # Getting

    async def get(self) -> Buffer:
        """Take a buffer of `item_size` bytes, waiting for one if there is none (``pool_get``).

        Blocks until an item of this pool is free or the budget grants a page. A checkpoint even
        when it does not have to wait, unless the set was made with ``fast_acquire=True``.

        A cancelled get did not happen: an item granted at that moment goes to the next in line.

        Waiters of a pool are served in the order of their arrival. Whether a newcomer may find
        an item before they do, and who goes first in other pools, is the set's `Order`.

        Raises:
            anyio.ClosedResourceError: the pools are closed, now or while waiting.
            ImpossibleRequest: it could never be served (not under the kernel's rules).
            UsageError: outside ``async with``, on another loop, or inside a task of the set's
                own queue, which would wait for itself.
            MemoryError: the operating system has no page left.
        """
        return await self._get(self.item_size)

    def get_nowait(self) -> Buffer:
        """Take a buffer of `item_size` bytes, at once or not at all (``PR_NOWAIT``).

        Never blocks. Counts a failure in `nfail`.

        Raises:
            anyio.WouldBlock: nothing is free now.
            anyio.ClosedResourceError, UsageError, MemoryError: as `get`.
        """
        return self._get_nowait(self.item_size)

    async def _get(self, nbytes: int) -> Buffer:
        self._check_caller()
        await checkpoint_if_cancelled()
        buffer = self._try(nbytes)
        if buffer is None:
            self._owner_loop.run_deferred()
            return await self._waiters.acquire(self.queue, self._request(nbytes))
        self._observer.tell(EventKind.GET, self.name, nbytes)
        if not self._state.fast_acquire:
            try:
                await cancel_shielded_checkpoint()
            except BaseException:
                buffer.release()
                raise
        return buffer

    def _check_caller(self) -> None:
        if get_ident() != self._owner_loop.thread:
            self._owner_loop.raise_misuse()
        self._owner_loop.check_loop()
        if self._state.in_task():
            raise UsageError(
                f"a task of the pools' own queue cannot wait for pool {self.name!r}: the wakeup "
                f"that would serve it is queued behind this very task; use get_nowait, or do the "
                f"work in a task of your own"
            )

    def _get_nowait(self, nbytes: int) -> Buffer:
        if get_ident() != self._owner_loop.thread:
            self._owner_loop.raise_misuse()
        buffer = self._try(nbytes)
        if buffer is not None:
            self._observer.tell(EventKind.GET, self.name, nbytes)
        elif self._waiters.slow_path_may_serve:
            self._owner_loop.run_deferred()
            buffer = self._waiters.try_acquire(self.queue, self._request(nbytes))
        else:
            self._waiters.refuse_impossible(self.queue, self._request(nbytes))
        if buffer is None:
            self._nfail += 1
            raise anyio.WouldBlock
        return buffer

    def _request(self, nbytes: int) -> Request[Buffer]:
        return Request(next(self._state.numbers), nbytes, self._owner_loop.now())

    def _try(self, nbytes: int) -> Buffer | None:
        """Take an item if nobody has a better right and the limits allow (``pool_do_get``)."""
        lists = self._lists
        if self._waiters.must_queue:
            return None
        if self._hard_limit is not None and lists.nout >= self._hard_limit:
            return None
        if lists.curpage is None:
            if not self._state.budget.charge(self.page_size):
                return None
            try:
                self._add_page()
            except BaseException:
                self._state.budget.credit(self.page_size)
                raise
        return self._lease(nbytes)

    def _lease(self, nbytes: int, request: Request[Any] | None = None) -> Buffer:
        """Take an item of the current page, which must exist, for `request` or a newcomer."""
        page, index = self._lists.take()
        self._nget += 1
        buffer = Buffer(self, page, index, nbytes)
        tracker = self._state.tracker
        if tracker is not None:
            tracker.examine(page, index, self.stride, self.name)
            tracker.acquired(buffer, self.name, nbytes, request)
        return buffer

    # Putting

    def put(self, buffer: Buffer) -> None:
        """Take `buffer` back, the same as its `release` (``pool_put``).

        Raises:
            TypeError: not a buffer.
            ForeignBuffer: it belongs to another pool. Nothing has changed.
            LeaseError: as `Buffer.release`.
        """
        if not isinstance(buffer, Buffer):
            raise TypeError(f"cannot put {buffer!r} into pool {self.name!r}; expected a Buffer")
        if buffer.pool is not self:
            raise ForeignBuffer(
                f"a buffer of pool {buffer.pool.name!r} cannot be put into pool {self.name!r}; "
                f"call its release()"
            )
        buffer.release()

    def _take_back(self, page: Page, index: int, nbytes: int) -> None:
        if get_ident() == self._owner_loop.thread:
            self._put(page, index, nbytes)
        else:
            self._owner_loop.run_on_owner(partial(self._put, page, index, nbytes))

    def _take_dropped(
        self, page: Page, index: int, nbytes: int, view: memoryview | None, holder: Holder | None
    ) -> None:
        """Called from ``__del__``, so it may only enqueue."""

        def bring_home() -> bool:
            if view is not None:
                try:
                    view.release()
                except BufferError:
                    return False
            if self._state.tracker is not None:
                self._state.tracker.poison(page, index, self.stride, holder)
            return self._put(page, index, nbytes)

        self._owner_loop.run_on_owner(bring_home)

    def _put(self, page: Page, index: int, nbytes: int) -> bool:
        lists = self._lists
        lists.put_back(page, index)
        self._observer.tell(EventKind.PUT, self.name, nbytes)
        if self._owner_loop.closed:
            self._let_go_all()
            self._state.empty_quarantine()
            return True
        # Are there too many, even without the one that would leave?
        if (lists.nidle - 1) * self.items_per_page >= self._max_idle_items and (
            lists.npages > self.min_pages or not self._state.rules.put_keeps_minimum
        ):
            self._let_go_idle_for(WAIT_FREE)
        self._waiters.item_returned(self)
        return True

    def wakeup(self) -> None:
        """Serve the requests that wait for this pool, oldest first, as far as items, budget and
        order go.

        Never blocks. Models ``pool_wakeup``: it allocates on behalf of the sleepers.

        Raises:
            UsageError: the pools are open on another thread.
        """
        self._owner_loop.check_thread()
        self._waiters.wakeup(self)

    # Pages

    def _add_page(self) -> None:
        """Add a page that was charged before. Raises MemoryError; the charge is the caller's."""
        page = Page(self._state.page_in(self.page_size, self.name), self.items_per_page)
        if self._state.tracker is not None:
            self._state.tracker.poison_page(page, self.items_per_page, self.stride)
        self._lists.insert(page)
        self._observer.tell(EventKind.PAGE_IN, self.name, self.page_size)

    def _let_go(self, page: Page) -> None:
        """Give an idle page back."""
        self._lists.remove(page)
        self._state.page_out(page.block, self.page_size, self.name)

    def _let_go_all(self) -> None:
        while (page := self._lists.oldest_idle) is not None:
            self._let_go(page)

    def _let_go_idle_for(self, microseconds: int) -> None:
        page = self._lists.oldest_idle
        if page is not None and self._owner_loop.now() - page.empty_since > microseconds:
            self._let_go(page)

    def _gc(self) -> None:
        """Let one page go that has been idle for long (``pool_gc_pages``, for one pool)."""
        if self._lists.nidle > self.min_pages:
            self._let_go_idle_for(WAIT_GC)

    def reclaim(self) -> int:
        """Let every idle page go at once, the longest idle first, down to the low water.

        Returns how many pages left. Never blocks; who is woken is the wakeup policy's affair.
        Models ``pool_reclaim``.

        Raises:
            UsageError: the pools are open on another thread.
        """
        self._owner_loop.check_thread()
        pages = [page for _, page in self.spare_pages(0)]
        for page in pages:
            self._lists.remove(page)
        for page in pages:
            self._state.page_out(page.block, self.page_size, self.name)
        return len(pages)

    def spare_pages(self, needed: int) -> Iterator[tuple[Pool, Page]]:
        """The idle pages that the pool can do without, the longest idle first, if `needed` of
        its items are to be taken next."""
        lists = self._lists
        spare = min(lists.npages - self.min_pages, (lists.nfree - needed) // self.items_per_page)
        return ((self, page) for page in islice(lists.idle_pages(), max(0, spare)))

    @property
    def min_pages(self) -> int:
        """Pages that the pool keeps."""
        return -(-self._min_items // self.items_per_page)

    # What those who serve the waiters ask

    @property
    def tracker(self) -> LeaseTracker | None:
        """Who holds what, in debug mode."""
        return self._state.tracker

    @property
    def hard_limit(self) -> int | None:
        """Items that may be out at once; None is no limit."""
        return self._hard_limit

    @property
    def nout(self) -> int:
        """Items out."""
        return self._lists.nout

    @property
    def nidle(self) -> int:
        """Pages with no item out."""
        return self._lists.nidle

    def has_room(self, count: int) -> bool:
        """True if the hard limit lets `count` more items out."""
        return self._hard_limit is None or self._lists.nout + count <= self._hard_limit

    def minimum_covers(self, count: int) -> bool:
        """True if `count` more items are within the reserved minimum, and here."""
        return self._lists.nout + count <= self._min_items and self.pages_lacking(count) == 0

    def pages_lacking(self, count: int) -> int:
        """Pages that must come before `count` items can be taken."""
        lists = self._lists
        lacking = max(0, -(-(count - lists.nfree) // self.items_per_page))
        return max(lacking, 1) if lists.curpage is None else lacking

    def prime(self, items: int) -> int:
        """Add pages for `items` more items now (``pool_prime``).

        Returns how many items were added: whole pages, so perhaps more than were asked for;
        fewer if the budget refuses, and none while somebody waits for pages and has a better
        right to them. Never blocks; the waiters are served.

        Raises:
            ConfigurationError: a negative number.
            UsageError, MemoryError: as `get`.
        """
        require_count(items, f"the items to prime pool {self.name!r} with")
        if get_ident() != self._owner_loop.thread:
            self._owner_loop.raise_misuse()
        before = self._lists.npages
        if not self._waiters.claims_pages:
            for _ in range(-(-items // self.items_per_page)):
                if not self._state.budget.charge(self.page_size):
                    break
                try:
                    self._add_page()
                except BaseException:
                    self._state.budget.credit(self.page_size)
                    raise
            self.wakeup()
        return (self._lists.npages - before) * self.items_per_page

    # Settings

    def set_min_items(self, items: int) -> bool:
        """Keep at least the pages of `items` items, and get them now (``pool_setlowat``).

        Returns whether the pool has that many; False if the budget refused some. Then they come
        as gets need them, and stay. Never blocks; who is within the minimum now is served.

        Raises:
            ConfigurationError: a negative number, or more than the limit holds; nothing has
                changed.
            UsageError, MemoryError: as `get`.
        """
        require_count(items, f"min_items of pool {self.name!r}")
        self._owner_loop.check_thread()
        if self._lacking(items) > 0 and get_ident() != self._owner_loop.thread:
            self._owner_loop.raise_misuse()
        limit = self._state.budget.limit
        pages = -(-items // self.items_per_page)
        least = self._state.reserved_min_bytes + (pages - self.min_pages) * self.page_size
        if self._state.rules.refuse_impossible and least > limit:
            raise ConfigurationError(
                f"min_items of pool {self.name!r} cannot be {items}: the minimum of all pools "
                f"would take {least} bytes, and the limit is {limit}; raise the limit first"
            )
        self._min_items, self._state.reserved_min_bytes = items, least
        self._waiters.minimum_changed(self)
        lacking = self._lacking(items)  # pages may have come for those who waited
        return lacking <= 0 or self.prime(lacking) >= lacking

    def _lacking(self, items: int) -> int:
        """How many items the pages of the pool fall short of `items`."""
        return items - self._lists.npages * self.items_per_page

    def set_max_idle_items(self, items: int) -> None:
        """Let a put free idle pages above those of `items` items (``pool_sethiwat``).

        A page leaves only once it has been idle for more than a second of the loop's clock. Never
        blocks.

        Raises:
            ConfigurationError: a negative number.
            UsageError: the pools are open on another thread.
        """
        require_count(items, f"max_idle_items of pool {self.name!r}")
        self._owner_loop.check_thread()
        self._max_idle_items = items

    def set_max_items(self, items: int | None) -> None:
        """Let at most `items` items be out at once; None is no limit (``pool_sethardlimit``).

        Raising it serves those who waited at it. (Under the kernel's rules it wakes nobody: they
        are served at the next put or wakeup.) Never blocks.

        Raises:
            ConfigurationError: fewer than are out now (the kernel's ``EINVAL``), or negative;
                nothing has changed.
            UsageError: the pools are open on another thread.
        """
        self._owner_loop.check_thread()
        if items is not None:
            require_count(items, f"max_items of pool {self.name!r}")
            if items < self._lists.nout:
                raise ConfigurationError(
                    f"max_items of pool {self.name!r} cannot be {items} while "
                    f"{self._lists.nout} items are out; wait until enough are released"
                )
        self._hard_limit = items
        self._waiters.hard_limit_changed()

    def set_low_water(self, items: int) -> bool:
        """The kernel's name of `set_min_items`."""
        return self.set_min_items(items)

    def set_high_water(self, items: int) -> None:
        """The kernel's name of `set_max_idle_items`."""
        self.set_max_idle_items(items)

    def set_hard_limit(self, items: int | None) -> None:
        """The kernel's name of `set_max_items`."""
        self.set_max_items(items)

    # Looking

    def statistics(self) -> PoolStatistics:
        """Return a snapshot of the counters."""
        lists = self._lists
        return PoolStatistics(
            name=self.name,
            item_size=self.item_size,
            page_size=self.page_size,
            items_per_page=self.items_per_page,
            nget=self._nget,
            nput=self._nget - lists.nout,
            nfail=self._nfail,
            nwait=self.queue.waits,
            nout=lists.nout,
            npages=lists.npages,
            nidle=lists.nidle,
            npagealloc=lists.npagealloc,
            npagefree=lists.npagefree,
            hiwat=lists.hiwat,
            min_items=self._min_items,
            max_items=self._hard_limit,
            max_idle_items=self._max_idle_items,
            waiting=len(self.queue.requests),
        )

    def check(self) -> None:
        """Raise PoolCorruption if an invariant of this pool is broken."""
        self._lists.check(self.name)
        if self._hard_limit is not None and self._lists.nout > self._hard_limit:
            raise PoolCorruption(f"pool {self.name!r} has more items out than its hard limit")
        tracker = self._state.tracker
        if tracker is not None:
            for page in self._lists.pages_with_free_items():
                for index in page.free:
                    damage = tracker.damage(page, index, self.stride, self.name)
                    if damage is not None:
                        raise PoolCorruption(damage)

    def __repr__(self) -> str:
        lists = self._lists
        return (
            f"<Pool {self.name!r}: {lists.nout} of {self.item_size} bytes out, "
            f"{lists.npages} pages, {len(self.queue.requests)} waiting>"
        )
