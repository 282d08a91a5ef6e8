"""The pages of one pool: which items are out, and where the next one comes from.

Models ``struct pool_page_header``, the three page lists of ``struct pool`` and
subr_pool.c:pool_do_get, pool_do_put, pool_p_insert, pool_p_remove, pool_update_curpage. A plain
data structure: it charges no budget, allocates no memory and wakes no task.

An item is represented by a token, an `Item`, which has one owner at each moment: the free list of
its page while it is at home, else a lease. A token that is lost, because its lease was dropped or
an exception ended the function that had it in hand, reports itself when it dies.

A get pops a token from the free list of the current page, and a put appends it. Both do no more
than that unless the get took the last token (`PageLists.ran_dry`) or the put reaches the page's
`alarm` (`PageLists.settle`). So the current page may still be on the empty list while its items are
out; every other function first brings it to its place.

Invariants (`PageLists.check`), apart from that: a page is on the empty list when none of its items
is out, on the full list when all are out, and else on the partial list. A token is free only once.
``nout`` is the sum of the missing items. ``curpage``, if it is set, has a free item; under the
refreshed rule it is set whenever any item is free.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any, NoReturn

from ._errors import DoubleRelease, PoolCorruption, UseAfterRelease
from ._memory import Block
from ._policies import CurPage
from ._window import Window

__all__ = ["Item", "Page", "PageLists"]

FIRST_TOKENS = 4
"""Tokens that a new page has. More are made when they are needed, as many again each time."""


class Item:
    """The token of one item of a page: it stands for the right to use the item's memory."""

    __slots__ = ("index", "page", "window")

    page: Page
    index: int
    """Its place in the page; of a token in `PageLists.lost`, the complement of that."""
    window: Window | None
    """What exports the item's memory, if its lease asked for a view."""

    def __init__(self, page: Page, index: int, window: Window | None = None) -> None:
        self.window = window
        self.index = index
        self.page = page

    def __del__(self) -> None:
        """Report the loss of an item that is out. Works with calls into C as far as it can: the
        interpreter may be at its recursion limit."""
        try:
            page = self.page
        except AttributeError:  # an exception ended `__init__`
            return
        if page.left or not 0 <= self.index < page.made or self in page.free:
            return  # the page's own end, or the token was never counted, or the loss was reported
        self.page = NOWHERE  # a lease in the same garbage may still be released
        # The new token is marked by its index. It dies in silence if the whole set dies with it;
        # else it would bring the set back to life at each run of the garbage collector.
        page.lists.lost.append(Item(page, ~self.index, self.window))
        page.lists.item_lost()

    def export_ended(self, window: Window) -> None:
        """Nothing that was made from `window` exports the memory of this item any more."""
        self.page.lists.leave_quarantine(self, window)


class Page:
    """The items of one block of memory."""

    __slots__ = (
        "alarm",
        "block",
        "empty_since",
        "free",
        "items",
        "last_holders",
        "left",
        "lists",
        "made",
        "on",
        "shared",
    )

    empty_since: int
    """Microseconds of the loop's clock when the page came, or when its last item came back
    (``ph_timestamp``)."""
    last_holders: dict[int, Any]
    """In debug mode, which sets it: who held an item last, by the number of the item."""

    def __init__(self, block: Block, lists: PageLists) -> None:
        self.block: Block = block
        self.lists: PageLists = lists
        self.items: int = lists.items_per_page
        self.free: list[Item] = []
        """The tokens that are at home; the last one is handed out next."""
        self.made: int = 0
        """Tokens that were made. The items above are free and have no token yet."""
        self.alarm: int = 1
        """The number of tokens at home from which a put must settle the page."""
        self.left: bool = True
        """True unless the page is on a list: before it comes, and once it leaves. A token of it is
        worth nothing then."""
        self.on: OrderedDict[Page, None] = lists.none
        """The list that the page is on."""
        self.shared: Any = None
        """What the windows of its items are made from, as `share` returns it. It is made for the
        first window, and given up while the page is idle, because it takes memory itself."""

    @property
    def missing(self) -> int:
        """The number of items that are out (``ph_nmissing``)."""
        return self.made - len(self.free)

    @property
    def idle(self) -> bool:
        """True if no item is out."""
        return len(self.free) == self.made

    def make_tokens(self) -> None:
        """Make as many tokens as there are, or the first ones. Each step may be the last one: a
        token that dies before it is counted is not missed, and one that is counted reports itself.
        """
        for index in range(self.made, min(self.items, max(FIRST_TOKENS, 2 * self.made))):
            item = Item(self, index)
            self.made = index + 1
            self.free.append(item)
        self.free.reverse()  # so that the items go out in the order of their memory
        self.alarm = self.made


class _Nowhere:
    """The page, the lists and the state of a token that has died and was replaced. It refuses what
    a lease may still ask for."""

    left = watched = True

    def __init__(self) -> None:
        self.lists = self.state = self

    @property
    def shared(self) -> NoReturn:
        """Refuse to show the memory."""
        raise UseAfterRelease("this buffer was dropped and its item taken back; get a new one")

    def put_watched(self, item: object, nbytes: int) -> None:
        """Refuse the release."""
        raise DoubleRelease("this buffer was dropped and its item taken back; release it in time")

    def breaks(self) -> None:
        """Nothing is broken by that."""

    def end_lease(self, item: Item, nbytes: int) -> None:
        """The item has gone home already."""

    put_home = end_lease

    def window(self, item: Item, nbytes: int) -> _Nowhere:
        """Return what refuses to show the item."""
        return self


NOWHERE: Any = _Nowhere()


class PageLists:
    """All pages of a pool, on three lists; a list keeps the order in which its pages were added."""

    __slots__ = (
        "_empty",
        "_full",
        "_now",
        "_partial",
        "_refresh",
        "curpage",
        "hiwat",
        "items_per_page",
        "lost",
        "nget",
        "none",
        "npagefree",
        "nput",
        "stock",
        "with_idle",
    )

    def __init__(self, items_per_page: int, curpage: CurPage, now: Callable[[], int]) -> None:
        self.items_per_page: int = items_per_page
        self._now = now
        self._refresh = curpage is CurPage.REFRESHED
        self._empty: OrderedDict[Page, None] = OrderedDict()
        self._partial: OrderedDict[Page, None] = OrderedDict()
        self._full: OrderedDict[Page, None] = OrderedDict()
        self.none: OrderedDict[Page, None] = OrderedDict()
        """Stands for no list."""
        self.curpage: Page | None = None
        """The page that the next item comes from; None if the pool sees no free item."""
        self.stock: list[Item] | None = None
        """The free list of the current page, if a get may take from it without another look."""
        self.nget: int = 0
        """Items that were handed out."""
        self.nput: int = 0
        """Items that came back."""
        self.npagefree: int = 0
        """Pages that left."""
        self.hiwat: int = 0
        """The most pages that there ever were."""
        self.with_idle: dict[PageLists, None] = {}
        """The lists that may have an idle page. The pool set puts its own dictionary here."""
        self.lost: list[Item] | deque[Item] = []
        """New tokens of items whose token died. The pool set puts its own queue here."""

    @property
    def nout(self) -> int:
        """Items that are out."""
        return self.nget - self.nput

    @property
    def npages(self) -> int:
        """Pages of all kinds."""
        return len(self._empty) + len(self._partial) + len(self._full)

    @property
    def npagealloc(self) -> int:
        """Pages that came."""
        return self.npages + self.npagefree

    @property
    def nidle(self) -> int:
        """Pages with no item out."""
        return len(self._empty) - self._taken_from_idle()

    @property
    def nfree(self) -> int:
        """Free items, whether the pool sees them or not (a stale ``curpage`` hides some)."""
        return self.npages * self.items_per_page - self.nout

    @property
    def oldest_idle(self) -> Page | None:
        """The page that has been idle for the longest."""
        return next(self.idle_pages(), None)

    def idle_pages(self) -> Iterator[Page]:
        """The idle pages, the longest idle first."""
        self._place_current()
        return iter(self._empty)

    def pages_with_free_items(self) -> Iterator[Page]:
        """All pages that are not on the full list."""
        return chain(self._empty, self._partial)

    def take(self) -> Item:
        """Take an item of the current page, which must exist (``pool_do_get``)."""
        page = self.curpage
        assert page is not None
        item = page.free.pop()
        self.nget += 1
        if not page.free:
            self.ran_dry()
        return item

    def put_back(self, item: Item) -> None:
        """Take an item back (``pool_do_put``)."""
        page = item.page
        self.nput += 1
        page.free.append(item)
        if len(page.free) >= page.alarm:
            self.settle(page)

    def ran_dry(self) -> None:
        """The last token of the current page was taken: make more, or choose another page."""
        page = self.curpage
        assert page is not None
        if page.made < page.items:
            page.make_tokens()
            return
        page.alarm = 1  # before the look at the list: a put from another thread sees it, or is seen
        self._move(page, self._full)
        self._choose_curpage()
        if page.free:
            self.settle(page)

    def settle(self, page: Page) -> None:
        """Bring a page that an item came back to to the list where it belongs (``pool_do_put``)."""
        self._place_current()
        if page.left or not page.free:
            return
        if page.on is self._full:
            page.alarm = page.made
            self._move(page, self._partial)
            if self.curpage is None and self._refresh:
                self._set_curpage(page)  # which a refactoring of 2014 left out in the kernel
        if page.idle:
            page.shared = None
            page.empty_since = self._now()
            self._move(page, self._empty)
            self._choose_curpage()

    def insert(self, page: Page) -> None:
        """Add a fresh page (``pool_p_insert``)."""
        page.make_tokens()
        page.empty_since = self._now()
        page.left = False
        self._move(page, self._empty)
        if self.curpage is None:
            self._set_curpage(page)
        self.hiwat = max(self.hiwat, self.npages)

    def remove(self, page: Page) -> None:
        """Let an idle page go (``pool_p_remove``), and disarm its tokens."""
        page.left = True
        self._empty.pop(page, None)
        self._note_idle()
        self.npagefree += 1
        page.free.clear()
        self._choose_curpage()

    def _move(self, page: Page, to: OrderedDict[Page, None]) -> None:
        """Put `page` at the end of the list `to`. It is on a list at each moment."""
        if page.on is to:
            to.move_to_end(page)
            return
        to[page] = None
        page.on.pop(page, None)
        page.on = to
        self._note_idle()

    def _note_idle(self) -> None:
        if self._empty:
            self.with_idle[self] = None
        else:
            self.with_idle.pop(self, None)

    def _taken_from_idle(self) -> bool:
        """True if the current page is on the empty list though an item of it is out."""
        page = self.curpage
        return page is not None and page.on is self._empty and not page.idle

    def _place_current(self) -> None:
        """Bring the current page to the partial list if an item of it is out."""
        if self._taken_from_idle():
            assert self.curpage is not None
            self._move(self.curpage, self._partial)

    def _choose_curpage(self) -> None:
        """Set ``curpage`` to the last partial page, else to the last empty one, else to None
        (``pool_update_curpage``)."""
        self._set_curpage(next(reversed(self._partial), None) or next(reversed(self._empty), None))

    def _set_curpage(self, page: Page | None) -> None:
        self.curpage = page
        self.stock = None if page is None or self.guarded else page.free

    def show_stock(self) -> None:
        """Compute `stock` again."""
        self._set_curpage(self.curpage)

    @property
    def guarded(self) -> bool:
        """True if each get must look at a maximum."""
        return False

    def item_lost(self) -> None:
        """Something was added to `lost`, by a ``__del__``."""

    def recover(self, item: Item) -> None:
        """Take a lost item home; `item` is its new token."""
        self.put_back(item)

    def leave_quarantine(self, item: Item, window: Window) -> None:
        """Nothing that was made from `window` exports the memory of `item` any more."""

    def rebuild(self) -> list[Page]:
        """Compute all that follows from the free lists again, after an exception in the middle of
        a step. Return the pages that had begun to leave."""
        pages = dict.fromkeys(chain(self._empty, self._partial, self._full))
        leaving = [page for page in pages if page.left]
        staying = [page for page in pages if not page.left]
        for pages_of_kind in (self._empty, self._partial, self._full):
            pages_of_kind.clear()
        for page in sorted(staying, key=lambda page: page.empty_since):
            if not page.free:
                page.make_tokens()  # if there are items without one
            page.alarm = page.made if page.free else 1
            page.on = self._full if not page.free else self._empty if page.idle else self._partial
            page.on[page] = None
        self._note_idle()
        self.nput = self.nget - sum(page.missing for page in staying)
        self.hiwat = max(self.hiwat, self.npages)
        if self.curpage is None or self._refresh or not self.curpage.free or self.curpage.left:
            self._choose_curpage()
        return leaving

    def check(self, name: str) -> None:
        """Raise PoolCorruption unless every invariant holds; `name` is the pool's."""

        def require(truth: bool, invariant: str) -> None:
            if not truth:
                raise PoolCorruption(f"pool {name!r}: {invariant} does not hold")

        self._place_current()
        lists = ((self._empty, "empty"), (self._partial, "partial"), (self._full, "full"))
        missing = 0
        for pages, kind in lists:
            for page in pages:
                belongs = (
                    "empty"
                    if page.missing == 0
                    else "full"
                    if page.missing == self.items_per_page
                    else "partial"
                )
                require(
                    kind == belongs and page.on is pages,
                    f"that a page with {page.missing} of {self.items_per_page} items out is not "
                    f"on the {kind} list",
                )
                require(
                    all(item.page is page and item.index < page.made for item in page.free)
                    and page.made <= self.items_per_page,
                    "that a free item is one of its page",
                )
                require(
                    len({item.index for item in page.free}) == len(page.free),
                    "that an item is free only once",
                )
                require(
                    page.alarm == (page.made if page.free else 1),
                    "that the next put that changes the state of a page raises its alarm",
                )
                require(not page.left, "that a page that left is on no list")
                missing += page.missing
        require(
            missing == self.nout,
            f"that nout ({self.nout}) is the number of missing items ({missing})",
        )
        require(
            (self in self.with_idle) == bool(self._empty),
            "that a pool with pages on the empty list is noted as one that may have an idle page",
        )
        require(self.hiwat >= self.npages, "that hiwat is the most pages there ever were")
        since = [page.empty_since for page in self._empty]
        require(
            since == sorted(since),
            "that the idle pages are in the order in which they became idle",
        )
        if self.curpage is not None:
            require(bool(self.curpage.free), "that the current page has a free item")
            require(
                self.curpage in self._empty or self.curpage in self._partial,
                "that the current page is on a list",
            )
        elif self._refresh:
            require(self.nfree == 0, "that a pool with free items has a current page")
        else:
            require(not self._empty, "that a pool with an idle page has a current page")
