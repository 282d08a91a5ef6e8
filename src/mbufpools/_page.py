"""The pages of one pool: which items are out, and where the next one comes from.

Models ``struct pool_page_header``, the three page lists of ``struct pool`` and
subr_pool.c:pool_do_get, pool_do_put, pool_p_insert, pool_p_remove, pool_update_curpage. A plain
data structure: it charges no budget, allocates no memory and wakes no task.

Invariants (`PageLists.check`): a page is on the empty list when none of its items is out, on the
full list when all are out, and else on the partial list. The free items and the missing items of a
page make the whole page. ``nout`` is the sum of the missing items. ``curpage``, if it is set, has a
free item; under the refreshed rule it is set whenever any item is free.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from itertools import chain

from ._errors import PoolCorruption
from ._memory import Block
from ._policies import CurPage

__all__ = ["Page", "PageLists"]


class Page:
    """The items of one block of memory."""

    __slots__ = ("__weakref__", "block", "empty_since", "free", "missing")

    empty_since: int
    """Microseconds of the loop's clock when the page came, or when its last item came back
    (``ph_timestamp``)."""

    def __init__(self, block: Block, items: int) -> None:
        self.block = block
        self.free = list(range(items - 1, -1, -1))
        """The numbers of the free items; the last one is handed out next."""
        self.missing = 0
        """The number of items that are out (``ph_nmissing``)."""


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
        "nout",
        "npagealloc",
        "npagefree",
        "npages",
    )

    def __init__(self, items_per_page: int, curpage: CurPage, now: Callable[[], int]) -> None:
        self.items_per_page = items_per_page
        self._now = now
        self._refresh = curpage is CurPage.REFRESHED
        self._empty: OrderedDict[Page, None] = OrderedDict()
        self._partial: OrderedDict[Page, None] = OrderedDict()
        self._full: OrderedDict[Page, None] = OrderedDict()
        self.curpage: Page | None = None
        """The page that the next item comes from; None if the pool sees no free item."""
        self.nout = 0
        """Items that are out."""
        self.npages = 0
        self.npagealloc = 0
        self.npagefree = 0
        self.hiwat = 0

    @property
    def nidle(self) -> int:
        """Pages with no item out."""
        return len(self._empty)

    @property
    def nfree(self) -> int:
        """Free items, whether the pool sees them or not (a stale ``curpage`` hides some)."""
        return self.npages * self.items_per_page - self.nout

    @property
    def oldest_idle(self) -> Page | None:
        """The page that has been idle for the longest."""
        return next(iter(self._empty), None)

    def idle_pages(self) -> Iterator[Page]:
        """The idle pages, the longest idle first."""
        return iter(self._empty)

    def pages_with_free_items(self) -> Iterator[Page]:
        """All pages that are not on the full list."""
        return chain(self._empty, self._partial)

    def take(self) -> tuple[Page, int]:
        """Take an item of the current page, which must exist (``pool_do_get``)."""
        page = self.curpage
        assert page is not None
        index = page.free.pop()
        self.nout += 1
        page.missing += 1
        if page.missing == 1:
            del self._empty[page]
            self._partial[page] = None
        if not page.free:
            del self._partial[page]
            self._full[page] = None
            self._choose_curpage()
        return page, index

    def put_back(self, page: Page, index: int) -> None:
        """Take an item back (``pool_do_put``)."""
        self.nout -= 1
        was_full = not page.free
        page.free.append(index)
        page.missing -= 1
        if was_full:
            del self._full[page]
            self._partial[page] = None
            if self.curpage is None and self._refresh:
                self.curpage = page  # the one line that the kernel lost in 2014
        if page.missing == 0:
            page.empty_since = self._now()
            del self._partial[page]
            self._empty[page] = None
            self._choose_curpage()

    def insert(self, page: Page) -> None:
        """Add a fresh page (``pool_p_insert``)."""
        if self.curpage is None:
            self.curpage = page
        page.empty_since = self._now()
        self._empty[page] = None
        self.npagealloc += 1
        self.npages += 1
        self.hiwat = max(self.hiwat, self.npages)

    def remove(self, page: Page) -> None:
        """Let an idle page go (``pool_p_remove``)."""
        del self._empty[page]
        self.npagefree += 1
        self.npages -= 1
        self._choose_curpage()

    def _choose_curpage(self) -> None:
        """Set ``curpage`` to the last partial page, else to the last empty one, else to None
        (``pool_update_curpage``)."""
        self.curpage = next(reversed(self._partial), None) or next(reversed(self._empty), None)

    def check(self, name: str) -> None:
        """Raise PoolCorruption unless every invariant holds; `name` is the pool's."""

        def require(truth: bool, invariant: str) -> None:
            if not truth:
                raise PoolCorruption(f"pool {name!r}: {invariant} does not hold")

        lists = (
            (self._empty, "empty"),
            (self._partial, "partial"),
            (self._full, "full"),
        )
        missing = 0
        for pages, kind in lists:
            for page in pages:
                require(
                    kind
                    == (
                        "empty"
                        if page.missing == 0
                        else "full"
                        if page.missing == self.items_per_page
                        else "partial"
                    ),
                    f"that a page with {page.missing} of {self.items_per_page} items out is not "
                    f"on the {kind} list",
                )
                require(
                    len(page.free) + page.missing == self.items_per_page,
                    "that free and missing items make the page",
                )
                require(
                    len(set(page.free)) == len(page.free),
                    "that an item is free only once",
                )
                missing += page.missing
        require(
            missing == self.nout,
            f"that nout ({self.nout}) is the number of missing items ({missing})",
        )
        require(
            self.npages == sum(len(pages) for pages, _ in lists),
            "that npages counts the pages on the lists",
        )
        require(
            self.npages == self.npagealloc - self.npagefree,
            "that npages is the number of pages that came less those that left",
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
