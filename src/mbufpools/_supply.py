"""The supply of one pool: its pages and items, and the limits that they are under.

Models the part of subr_pool.c that works on pages: pool_p_alloc, pool_p_free, pool_gc_pages,
pool_reclaim, and the hard limit of pool_do_get. A supply charges and credits the budget through
`SetState`; it wakes no task. What comes back is reported through `on_return`, which
`BufferPools._wire` sets.

Invariant: `quote` is the only place that says what it takes to hand items out.
"""

from __future__ import annotations

import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from threading import get_ident
from typing import TYPE_CHECKING, Any

from ._debug import advice, who_held
from ._errors import PoolCorruption
from ._events import EventKind
from ._log import logger
from ._page import Item, Page, PageLists
from ._set_state import SetState
from ._spec import PoolSpec, stride_of
from ._window import Window, share

if TYPE_CHECKING:
    from ._statistics import CacheStatistics, PoolStatistics

__all__ = ["AT_LIMIT", "RESERVED", "WAIT_GC", "Supply", "stack_is_full"]

AT_LIMIT = -2
"""A quote: the pool's maximum forbids it."""
RESERVED = -1
"""A quote: the items are here, and within what the pool reserves as its minimum."""
WAIT_FREE = 1_000_000
"""Microseconds that a page must have been idle before a put lets it go (``POOL_WAIT_FREE``)."""
WAIT_GC = 8_000_000
"""Microseconds that a page must have been idle before the gc lets it go (``POOL_WAIT_GC``)."""


CALLS = 60
"""Nested calls that serving a request may take, those of the event loop included."""


if sys.version_info >= (3, 12):

    def stack_is_full() -> bool:
        """Return True if there may be no room for the calls that serve a request."""
        return sys._getframemodulename(sys.getrecursionlimit() - CALLS) is not None

else:

    def stack_is_full() -> bool:
        """Return True if there may be no room for the calls that serve a request."""
        try:
            sys._getframe(sys.getrecursionlimit() - CALLS)
        except ValueError:  # the stack is not as deep as that
            return False
        except RecursionError:
            pass
        return True


class Supply(PageLists):
    """The pages and items of one pool of a set."""

    __slots__ = (
        "hand_over",
        "item_size",
        "max_idle_items",
        "max_items",
        "min_items",
        "name",
        "nfail",
        "nwait",
        "on_return",
        "owner",
        "page_size",
        "quarantined",
        "rank",
        "state",
        "stride",
        "wanted",
        "watched",
    )
    nput: int  # declared again, as checkers of types would else infer it from what adds to it

    def __init__(self, spec: PoolSpec, state: SetState) -> None:
        super().__init__(spec.items_per_page, state.curpage, state.owner_loop.now)
        self.lost: list[Item] | deque[Item] = state.owner_loop.lost
        self.with_idle: dict[PageLists, None] = state.supplies_with_idle
        self.state: SetState = state
        self.rank: int = 0
        """The place of the pool in the order of sizes."""
        self.name: str = spec.name
        self.item_size: int = spec.item_size
        self.page_size: int = spec.page_size
        self.stride: int = stride_of(spec.item_size)
        """Bytes from one item of a page to the next."""
        self.min_items: int = spec.min_items
        self.max_items: int | None = spec.max_items
        self.max_idle_items: int = spec.max_idle_items
        self.nfail: int = 0
        self.nwait: int = 0
        """Requests of the pool's own queue that had to park."""
        self.owner: Any = None
        """The pool, which the leases name."""
        self.wanted: int = 0
        """Requests that wait for items of this pool, of it alone or together with others."""
        self.watched: bool = False
        """True if each put must be reported: a request waits for an item, a hook or the debug mode
        is there, an idle page should leave, or the set is closed."""
        self.quarantined: dict[Item, Window] = {}
        """The items whose lease has ended and whose memory something still exports, each with the
        window that it waits for."""
        self.hand_over: Callable[[Item], bool] = lambda item: False
        """Called on the owner's thread when an item comes back while a request waits for one and
        none is free. Returns True if the item went to that request."""
        self.on_return: Callable[[Supply], None] = lambda supply: None
        """Called after an item has come back."""
        self.watch()
        state.reserved_min_bytes += spec.min_pages * spec.page_size

    @property
    def min_pages(self) -> int:
        """Pages that the pool keeps."""
        return -(-self.min_items // self.items_per_page)

    def quote(self, count: int) -> int:
        """What it takes to hand out `count` more items now: bytes of new pages, 0 if free items
        will do, `RESERVED` if they also are within the minimum, or `AT_LIMIT`."""
        nout = self.nget - self.nput
        if self.max_items is not None and nout + count > self.max_items:
            return AT_LIMIT
        lacking = self.pages_lacking(count)
        if lacking:
            return lacking * self.page_size
        return RESERVED if nout + count <= self.min_items else 0

    def pages_lacking(self, count: int) -> int:
        """Pages that must come before `count` items can be taken."""
        if count == 1:
            return int(self.curpage is None)
        lacking = -(-(count - self.nfree) // self.items_per_page)
        return max(lacking, 1 if self.curpage is None else 0)

    @property
    def guarded(self) -> bool:
        return self.max_items is not None

    def watch(self) -> None:
        """Compute `watched` again."""
        state = self.state
        self.watched = bool(
            self.wanted
            or state.tracker is not None
            or state.observer.hook is not None
            or state.owner_loop.closed
            or self.too_many_idle
        )

    @property
    def too_many_idle(self) -> bool:
        """True if a put should let an idle page go: there are too many, even without that page."""
        return (self.nidle - 1) * self.items_per_page >= self.max_idle_items and (
            self.npages > self.min_pages or not self.state.rules.put_keeps_minimum
        )

    # Items

    def window(self, item: Item, nbytes: int) -> Window:
        """Make the window of a lease of `nbytes` bytes on `item`."""
        page = item.page
        if page.shared is None:
            page.shared = share(page.block.view, self.stride, page.items)
        window = item.window = Window(page.shared, item.index, nbytes, self.stride)
        return window

    def clear(self, item: Item) -> None:
        """Make `item`, which nothing exports, fit for its next owner."""
        window, item.window = item.window, None
        if window is not None:
            window.close()

    def put_watched(self, item: Item, nbytes: int) -> None:
        """Put an item back while each put is reported. From another thread the loop does it, so
        that no request is served before the put is told. `nbytes` are those of the lease; 0 stands
        for the whole item."""
        state, page = self.state, item.page
        owner_loop = state.owner_loop
        if state.tracker is not None:
            state.tracker.poison(item, self.stride)
        if get_ident() != owner_loop.thread:
            owner_loop.run_on_owner(partial(self._put_watched, item, nbytes))
        elif (
            # Pages are idle, and none for long enough; no request waits, and the gate is open. So
            # this put need do no more than an unwatched one, which takes far fewer calls.
            owner_loop.open_to
            and not (state.waiting or state.budget.debt)
            and self._empty
            and self._now() - next(iter(self._empty)).empty_since <= WAIT_FREE
        ):
            self.nput += 1; page.free.append(item)  # noqa: E702 - one step  # fmt: skip
            if len(page.free) >= page.alarm:  # after the append: another thread may add one, too
                self._returned(page, nbytes)
        elif not (self.wanted and self.curpage is None and self.hand_over(item)):
            self._put_watched(item, nbytes)

    def _put_watched(self, item: Item, nbytes: int) -> None:
        page = item.page
        with self.state.changing:
            self.nput += 1; page.free.append(item)  # noqa: E702 - one step  # fmt: skip
            self._returned(page, nbytes)

    def returned(self, page: Page, nbytes: int) -> None:
        """An item of `page` came back, and the put must see to more. On any thread."""
        owner_loop = self.state.owner_loop
        if get_ident() == owner_loop.thread:
            self._returned(page, nbytes)
        else:
            owner_loop.run_on_owner(partial(self._returned, page, nbytes))

    def _returned(self, page: Page, nbytes: int) -> None:
        with self.state.changing:
            if len(page.free) >= page.alarm:
                self.settle(page)
            self.state.observer.tell(EventKind.PUT, self.name, nbytes or self.item_size)
            if self.state.owner_loop.closed:
                self._let_go_all()
                self.state.empty_quarantine()
                return
            if self.too_many_idle:
                self.let_go_idle_for(WAIT_FREE)
            self.watch()
            self.on_return(self)

    def end_lease(self, item: Item, nbytes: int) -> None:
        """Take `item` back, whose lease has ended in any case: bring it home, or keep it in
        quarantine while something exports it. On any thread."""
        window = item.window
        if window is not None:
            if not window.revoke():
                self.quarantined[item] = window; self.state.exporting[self] = None  # noqa: E702 - one step  # fmt: skip
                window.keep(item)  # from here on the window owns it
                return
            self.clear(item)
        self.put_home(item, nbytes)

    def put_home(self, item: Item, nbytes: int) -> None:
        """Put an item back that is fit for its next owner. On any thread."""
        page = item.page
        try:
            if self.watched:
                self.put_watched(item, nbytes)
                return
            self.nput += 1; page.free.append(item)  # noqa: E702 - one step  # fmt: skip
            if len(page.free) >= page.alarm or self.watched:
                self.returned(page, nbytes)
        except BaseException:
            self.state.breaks()
            raise

    def leave_quarantine(self, item: Item, window: Window) -> None:
        """The last export of `item` has ended. On any thread, and perhaps inside another call of
        this library, which the garbage collector has interrupted."""
        owner_loop = self.state.owner_loop
        owner_loop.run_on_owner(partial(self._leave_quarantine, item, window))
        owner_loop.run_deferred_if_idle()

    def revoke_stale_views(self) -> None:
        """Try again to revoke the views of leases that have ended; and finish what an exception
        has interrupted between the two steps of `end_lease`."""
        for item, window in list(self.quarantined.items()):
            window.revoke_stale()
            if window.item is None:
                window.keep(item)
            elif not window.exported:
                window.give_up()

    def _leave_quarantine(self, item: Item, window: Window) -> None:
        if self.quarantined.get(item) is not window:
            return  # it has come home before: a tick had found its window empty
        del self.quarantined[item]
        self.clear(item)
        self.put_home(item, self.item_size)

    def item_lost(self) -> None:
        """A lease was dropped, or an exception ended a call that had an item in hand. Called from
        ``__del__``."""
        self.state.owner_loop.wake()
        warnings.warn(
            f"a buffer of pool {self.name!r} was dropped without a release; "
            f"{advice(self.state.tracker)}",
            ResourceWarning,
            stacklevel=3,
            source=self.owner,
        )

    def recover(self, item: Item) -> None:
        """Take a lost item home; `item` is its new token. An error of the report comes afterwards,
        because it must not lose the item again."""
        try:
            self.state.dropped += 1
            tracker = self.state.tracker
            holder = None if tracker is None else tracker.holder_of(item)
            logger().warning(
                "a buffer of pool %r was dropped without a release%s",
                self.name,
                who_held(tracker, holder),
            )
            self.state.observer.tell(EventKind.DROP, self.name, self.item_size)
        finally:
            self.end_lease(item, self.item_size)

    # Pages

    def add_page(self) -> None:
        """Add a page that was charged before. Raises MemoryError; the charge is the caller's."""
        block = self.state.page_in(self.page_size, self.name)
        try:
            page = Page(block, self)
            if self.state.tracker is not None:
                self.state.tracker.poison_page(page, self.stride)
            self.insert(page)
        except BaseException:
            if all(page.block is not block for page in self._empty):
                block.unmap()
            raise
        self.watch()
        self.state.observer.tell(EventKind.PAGE_IN, self.name, self.page_size)

    def let_go(self, page: Page) -> None:
        """Give an idle page back."""
        self._begin_to_leave(page)
        self.state.page_out(page)

    def _begin_to_leave(self, page: Page) -> None:
        page.left = True
        self.state.quarantine[page] = (self.page_size, self.name)
        self.remove(page)

    def close(self) -> None:
        """Give every idle page back. A page that becomes idle later leaves at once."""
        self._let_go_all()

    def _let_go_all(self) -> None:
        while (page := self.oldest_idle) is not None:
            self.let_go(page)

    def let_go_idle_for(self, microseconds: int) -> None:
        """Give the page back that has been idle for the longest, if that is long enough."""
        page = self.oldest_idle
        if page is not None and self._now() - page.empty_since > microseconds:
            self.let_go(page)

    def spare_pages(self, needed: int) -> Iterator[tuple[Supply, Page]]:
        """The idle pages that the pool can do without, the longest idle first, if `needed` of
        its items are to be taken next."""
        idle = self.idle_pages()
        spare = min(self.npages - self.min_pages, (self.nfree - needed) // self.items_per_page)
        return ((self, page) for page in islice(idle, max(0, spare)))

    def reclaim(self) -> int:
        """Let every spare page go; return how many left (``pool_reclaim``)."""
        pages = [page for _, page in self.spare_pages(0)]
        for page in pages:
            self._begin_to_leave(page)
        for page in pages:
            self.state.page_out(page)
        return len(pages)

    def gc(self) -> None:
        """Let one page go that has been idle for long (``pool_gc_pages``, for one pool)."""
        kept = self.npages if self.state.rules.put_keeps_minimum else self.nidle
        if kept > self.min_pages:
            self.let_go_idle_for(WAIT_GC)

    def statistics(
        self, waiting: int, *, uncounted: int = 0, caches: CacheStatistics | None = None
    ) -> PoolStatistics:
        """Return a snapshot of the counters; `waiting` requests wait in the pool's own queue. Of
        the items that came back, `uncounted` are not shown as put; `CachedSupply` says why."""
        from ._statistics import PoolStatistics

        nput, nget = self.nput - uncounted, self.nget
        return PoolStatistics(
            name=self.name,
            item_size=self.item_size,
            page_size=self.page_size,
            items_per_page=self.items_per_page,
            nget=nget,
            nput=nput,
            nfail=self.nfail,
            nwait=self.nwait,
            nout=nget - nput,
            npages=self.npages,
            nidle=self.nidle,
            npagealloc=self.npagealloc,
            npagefree=self.npagefree,
            hiwat=self.hiwat,
            min_items=self.min_items,
            max_items=self.max_items,
            max_idle_items=self.max_idle_items,
            waiting=waiting,
            quarantined=len(self.quarantined),
            caches=caches,
        )

    def check_supply(self) -> None:
        """Raise PoolCorruption if an invariant is broken."""
        self.check(self.name)
        if self.max_items is not None and self.nout > self.max_items:
            raise PoolCorruption(f"pool {self.name!r} has more items out than its hard limit")
        tracker = self.state.tracker
        if tracker is not None:
            for page in self.pages_with_free_items():
                for item in page.free:
                    damage = tracker.damage(item, self.stride, self.name)
                    if damage is not None:
                        raise PoolCorruption(damage)
