"""The lists of free items that each CPU keeps in front of a pool, and the depot of full lists.

Models ``struct pool_cache``, the cache's part of ``struct pool``, and the part of
subr_pool.c:pool_cache_get, pool_cache_put, pool_cache_list_alloc, pool_cache_list_free and
pool_cache_gc that moves items. These are plain data structures: they know no pool, lock or clock.
`_cached_pool` puts them in front of a pool.

A CPU has two lists, the active and the previous one. A put into an active list that is full makes
it the previous list; a previous list that was there goes to the depot. A get that finds both lists
empty takes the oldest list of the depot. So a CPU that puts and gets by turns does not touch the
depot, which all CPUs share.

Invariant: an item is in one list, and a list is in one place.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

__all__ = ["LIST_ITEMS", "CpuLists", "Depot", "in_order_of_return"]

T = TypeVar("T")

LIST_ITEMS = 8
"""Items of a full list at first, and at least; also what a longer list grows by."""
CONTENDED = 8
"""A depot whose lock was contended more often than this between two runs of the gc is a reason for
longer lists."""


class CpuLists(Generic[T]):
    """The two lists of one CPU (``struct pool_cache``). The last item of a list is the next to be
    taken."""

    __slots__ = ("active", "nget", "nput", "previous")

    def __init__(self) -> None:
        self.active: list[T] = []
        self.previous: list[T] = []
        self.nget = 0
        """Gets that were served here."""
        self.nput = 0
        """Puts that ended here."""

    def __len__(self) -> int:
        return len(self.active) + len(self.previous)

    def __iter__(self) -> Iterator[T]:
        yield from self.active
        yield from self.previous

    def take(self) -> T | None:
        """Take the item that was put last, or return None if both lists are empty."""
        if not self.active:
            if not self.previous:
                return None
            self.active, self.previous = self.previous, self.active
        self.nget += 1
        return self.active.pop()

    def refill(self, items: list[T]) -> None:
        """Make a list from the depot the active one. Both lists must be empty."""
        self.active = items

    def put(self, item: T, list_items: int) -> list[T]:
        """Put an item into the active list, which is full with `list_items`. Return the list that
        must go to the depot, or an empty one."""
        full: list[T] = []
        if len(self.active) >= list_items:
            full, self.previous, self.active = self.previous, self.active, []
        self.active.append(item)
        self.nput += 1
        return full

    def empty(self) -> list[list[T]]:
        """Take both lists away; return those that have items."""
        lists = [items for items in (self.active, self.previous) if items]
        self.active, self.previous = [], []
        return lists


class Depot(Generic[T]):
    """The full lists that any CPU may take (``pr_cache_lists``)."""

    __slots__ = ("_lists", "list_items", "nitems", "since")

    def __init__(self) -> None:
        self._lists: deque[list[T]] = deque()
        self.nitems = 0
        """Items in all lists (``pr_cache_nitems``)."""
        self.since = 0
        """When the first list came, or the gc took one, in microseconds (``pr_cache_timestamp``).
        One time for all lists."""
        self.list_items = LIST_ITEMS
        """Items of a full list from now on (``pr_cache_items``)."""

    def __len__(self) -> int:
        return len(self._lists)

    def __iter__(self) -> Iterator[list[T]]:
        return iter(self._lists)

    def add(self, items: list[T], now: int) -> None:
        """Add a list (``pool_cache_list_free``)."""
        if not self._lists:
            self.since = now
        self._lists.append(items)
        self.nitems += len(items)

    def take(self) -> list[T]:
        """Take the list that came first, or return an empty one (``pool_cache_list_alloc``)."""
        if not self._lists:
            return []
        items = self._lists.popleft()
        self.nitems -= len(items)
        return items

    def take_for_gc(self, now: int, wait: int) -> list[T]:
        """Take one list for the gc if the depot's time is more than `wait` microseconds ago, and
        begin to measure anew; else return an empty one. The first part of ``pool_cache_gc``."""
        if not self._lists or now - self.since <= wait:
            return []
        self.since = now
        return self.take()

    def adjust(self, contended: int, cpus: int) -> None:
        """Make the lists longer if the depot's lock was `contended` often since the last run of
        the gc, and two lists of the smallest length a CPU are here; make them shorter if it was not
        contended at all. The second part of ``pool_cache_gc``."""
        if contended > CONTENDED:
            if self.nitems >= 2 * LIST_ITEMS * cpus:
                self.list_items += LIST_ITEMS
        elif not contended and self.list_items > LIST_ITEMS:
            self.list_items -= 1


def in_order_of_return(items: list[T]) -> Iterator[T]:
    """The items of a list in the order in which they go back to their pages: the item that was put
    last goes first, because the kernel's list begins with it (``pool_cache_list_put``)."""
    return reversed(items)
