"""The kernel's pools once more, as plainly as can be: lists, and no loop, no task, no callback.

Written from the facts of subr_pool.c and uipc_mbuf.c alone, and from nothing of the library, to
be compared with it after every step. Who waits is a name in a list; a page is an object with a
count. Nothing here is fast.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["COUNTERS", "NaiveKernel"]

GEOMETRY = {
    "mbufpl": (4096, 16),
    "mcl2k": (16384, 8),
    "mcl2k2": (32768, 15),
    "mcl4k": (32768, 8),
    "mcl8k": (65536, 8),
    "mcl9k": (131072, 14),
    "mcl12k": (131072, 10),
    "mcl16k": (131072, 8),
    "mcl64k": (524288, 8),
}
"""Bytes of a page, and items in it; in the order in which the pools are woken."""
COUNTERS = (
    "nget", "nput", "nfail", "nout", "npages", "nidle",
    "npagealloc", "npagefree", "hiwat", "waiting",
)  # fmt: skip
"""Those of a pool."""


@dataclass(eq=False)
class Page:
    """A page, and how many of its items are out."""

    out: int = 0
    idle_since: float = 0.0


@dataclass(eq=False)
class NaivePool:
    """``struct pool``."""

    page_size: int
    per_page: int
    empty: list[Page] = field(default_factory=list)
    partial: list[Page] = field(default_factory=list)
    full: list[Page] = field(default_factory=list)
    current: Page | None = None
    queue: list[str] = field(default_factory=list)
    """Who sleeps."""
    max_idle: int = 8
    min_pages: int = 0
    hard_limit: int | None = None
    nget: int = 0
    nput: int = 0
    nfail: int = 0
    npagealloc: int = 0
    npagefree: int = 0
    hiwat: int = 0

    @property
    def pages(self) -> list[Page]:
        return self.empty + self.partial + self.full

    @property
    def nout(self) -> int:
        return sum(page.out for page in self.pages)

    def choose_current(self) -> None:
        """The last partial page, else the last empty one, else none."""
        seen = self.empty + self.partial
        self.current = seen[-1] if seen else None

    @property
    def npages(self) -> int:
        return len(self.pages)

    @property
    def nidle(self) -> int:
        return len(self.empty)

    @property
    def waiting(self) -> int:
        return len(self.queue)


class NaiveKernel:
    """The nine pools and their budget.

    What the task queue will do, `settle` does: it is to be called when a step is over.

    Args:
        limit: bytes.
        wakeup: ``none``, ``deferred``, ``direct``, ``near-limit`` or ``wanted``.
        refreshed: whether a put shows the item of a full page to a pool that has no other.
        margin: bytes, for ``near-limit``.
    """

    def __init__(self, limit: int, wakeup: str, refreshed: bool, margin: int) -> None:
        self.limit = limit
        self.wakeup = wakeup
        self.refreshed = refreshed
        self.margin = margin
        self.pools = {name: NaivePool(*geometry) for name, geometry in GEOMETRY.items()}
        self.now = 0.0
        self.allocated = 0
        self.drops = 0
        self.wakeup_runs = 0
        self.wakeup_queued = False
        self.page_wanted = False
        """The flag of ``wanted``: the budget refused somebody who sleeps."""
        self.granted: list[str] = []
        """Who was handed an item, in that order."""
        self.held: dict[str, tuple[NaivePool, Page]] = {}
        self.system_refuses = False
        """The system has no page to give."""

    # Items

    def get(self, who: str, name: str) -> None:
        """``pool_get`` with PR_WAITOK."""
        pool = self.pools[name]
        if not self.take(who, pool):
            pool.queue.append(who)
            self.serve(pool)

    def attempt(self, who: str, name: str) -> bool:
        """``pool_get`` with PR_NOWAIT."""
        pool = self.pools[name]
        taken = self.take(who, pool)
        pool.nfail += not taken
        return taken

    def take(self, who: str, pool: NaivePool) -> bool:
        """``pool_do_get``."""
        if pool.hard_limit is not None and pool.nout >= pool.hard_limit:
            return False
        if pool.current is None and not self.add_page(pool):
            return False
        page = pool.current
        assert page is not None
        page.out += 1
        if page.out == 1:
            pool.empty.remove(page)
            pool.partial.append(page)
        if page.out == pool.per_page:
            pool.partial.remove(page)
            pool.full.append(page)
            pool.choose_current()
        pool.nget += 1
        self.held[who] = (pool, page)
        self.granted.append(who)
        return True

    def put(self, who: str) -> None:
        """``pool_put``."""
        pool, page = self.held.pop(who)
        page.out -= 1
        if page in pool.full:
            pool.full.remove(page)
            pool.partial.append(page)
            if pool.current is None and self.refreshed:
                pool.current = page
        if page.out == 0:
            page.idle_since = self.now
            pool.partial.remove(page)
            pool.empty.append(page)
            pool.choose_current()
        pool.nput += 1
        if len(pool.empty) > pool.max_idle and self.now - pool.empty[0].idle_since > 1:
            self.free_page(pool)
        self.serve(pool)

    def give_up(self, who: str) -> None:
        """The get of `who` is cancelled: it did not happen."""
        if who in self.held:
            self.put(who)
            return
        for pool in self.pools.values():
            if who in pool.queue:
                was_first = pool.queue[0] == who
                pool.queue.remove(who)
                if was_first:
                    self.serve(pool)

    def serve(self, pool: NaivePool) -> None:
        """``pool_runqueue``."""
        drops = self.drops
        while pool.queue and self.take(pool.queue[0], pool):
            del pool.queue[0]
        if self.drops > drops:
            self.page_wanted = True

    # Pages

    def add_page(self, pool: NaivePool) -> bool:
        """``m_pool_alloc``, and ``pool_p_insert``."""
        if self.allocated + pool.page_size > self.limit:
            self.drops += 1
            return False
        page = Page(idle_since=self.now)
        self.allocated += pool.page_size
        if self.system_refuses:
            self.credit(pool.page_size)
            raise MemoryError
        pool.empty.append(page)
        if pool.current is None:
            pool.current = page
        pool.npagealloc += 1
        pool.hiwat = max(pool.hiwat, len(pool.pages))
        return True

    def remove_page(self, pool: NaivePool) -> None:
        """``pool_p_remove`` of the page that has been idle for the longest."""
        del pool.empty[0]
        pool.npagefree += 1
        pool.choose_current()

    def free_page(self, pool: NaivePool) -> None:
        """``pool_p_free`` of that page."""
        self.remove_page(pool)
        self.credit(pool.page_size)

    def credit(self, nbytes: int) -> None:
        """``m_pool_free``."""
        self.allocated -= nbytes
        match self.wakeup:
            case "none":
                pass
            case "deferred":
                self.wakeup_queued = True
            case "direct":
                self.wake_all()
            case "near-limit":
                if self.limit - self.allocated < self.margin:
                    self.wakeup_queued = True
            case "wanted":
                if self.page_wanted:
                    self.page_wanted = False
                    self.wake_all()
            case unknown:
                raise NotImplementedError(f"say here what a page that leaves does: {unknown!r}")

    def wake_all(self, counted: bool = True) -> None:
        """``m_pool_wakeup``."""
        self.wakeup_runs += counted
        for pool in self.pools.values():
            self.serve(pool)

    def settle(self) -> None:
        """Run the task queue."""
        if self.wakeup_queued:
            self.wakeup_queued = False
            self.wake_all()

    def advance(self, seconds: float) -> None:
        """Let time pass; the gc runs at every full second."""
        end = self.now + seconds
        while int(self.now) + 1 <= end:
            self.now = int(self.now) + 1.0
            for pool in reversed(self.pools.values()):
                if len(pool.empty) > pool.min_pages and self.now - pool.empty[0].idle_since > 8:
                    self.free_page(pool)
            self.settle()
        self.now = end

    def reclaim(self, name: str) -> int:
        """``pool_reclaim``: the pages come off the list first."""
        pool = self.pools[name]
        spare = min(len(pool.empty), max(0, len(pool.pages) - pool.min_pages))
        for _ in range(spare):
            self.remove_page(pool)
        for _ in range(spare):
            self.credit(pool.page_size)
        return spare

    def prime(self, name: str, items: int) -> int:
        """``pool_prime``: pages for so many items, as far as the budget goes."""
        pool = self.pools[name]
        before = len(pool.pages)
        while items > (len(pool.pages) - before) * pool.per_page and self.add_page(pool):
            pass
        self.serve(pool)
        return (len(pool.pages) - before) * pool.per_page

    # Limits

    def set_limit(self, nbytes: int) -> None:
        """``nmbclust_update``."""
        self.limit = nbytes
        match self.wakeup:
            case "none" | "direct" | "wanted":
                self.wake_all(counted=False)
            case "deferred" | "near-limit":
                self.wakeup_queued = True
            case unknown:
                raise NotImplementedError(f"say here what a new limit does: {unknown!r}")

    def set_hard_limit(self, name: str, items: int | None) -> bool:
        """``pool_sethardlimit``; False is EINVAL. It wakes no waiter."""
        pool = self.pools[name]
        if items is not None and items < pool.nout:
            return False
        pool.hard_limit = items
        return True

    def set_high_water(self, name: str, items: int) -> None:
        """``pool_sethiwat``."""
        pool = self.pools[name]
        pool.max_idle = -(-items // pool.per_page)

    def set_low_water(self, name: str, items: int) -> bool:
        """``pool_setlowat``; True if the pool has so many items now."""
        pool = self.pools[name]
        pool.min_pages = -(-items // pool.per_page)
        self.serve(pool)
        if items > len(pool.pages) * pool.per_page:
            self.prime(name, items - len(pool.pages) * pool.per_page)
        return len(pool.pages) * pool.per_page >= items

    # Looking

    def state(self) -> dict[str, Any]:
        """All that can be seen from outside."""
        return {
            "granted": self.granted,
            "held": sorted(self.held),
            "waiting": {name: pool.queue for name, pool in self.pools.items() if pool.queue},
            "limit": self.limit,
            "allocated": self.allocated,
            "drops": self.drops,
            "wakeup_runs": self.wakeup_runs,
            "pools": {
                name: {counter: getattr(pool, counter) for counter in COUNTERS}
                for name, pool in self.pools.items()
            },
        }
