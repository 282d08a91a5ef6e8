"""Frozen snapshots of the counters.

Models ``struct kinfo_pool`` and what ``netstat -m`` and ``vmstat -m`` print. A counter that the
kernel has, too, bears the kernel's name without its prefix; a setting bears the name that it has
in `PoolSpec` and in the setters of `Pool`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = [
    "BudgetStatistics",
    "CacheStatistics",
    "PoolStatistics",
    "PoolsStatistics",
    "TaskQueueStatistics",
    "WaitStatistics",
]


@dataclass(frozen=True, slots=True)
class BudgetStatistics:
    """A `Budget` at one moment."""

    limit: int
    """Bytes."""
    allocated: int
    """Bytes charged now."""
    peak: int
    """Bytes: the most ever charged at once."""
    drops: int
    """Charges that were refused."""
    used_percent: int
    """`allocated` as a whole percentage of `limit`, rounded down."""
    low_memory: bool
    """True from above 80 % used until below 60 % used."""


@dataclass(frozen=True, slots=True)
class CacheStatistics:
    """The per-CPU caches of a pool of `MbufPools` at one moment."""

    list_items: int
    """Items of a full list."""
    depot: int
    """Items in the lists of the depot."""
    cpus: tuple[int, ...]
    """Items in the two lists of each CPU."""
    nget: int
    """Gets that the caches served; `PoolStatistics.nget` does not count them."""
    nput: int
    """Puts that ended in the caches; `PoolStatistics.nput` does not count them."""

    @property
    def items(self) -> int:
        """Items in all caches."""
        return self.depot + sum(self.cpus)


@dataclass(frozen=True, slots=True)
class PoolStatistics:
    """A `Pool` at one moment."""

    name: str
    item_size: int
    """Bytes."""
    page_size: int
    """Bytes."""
    items_per_page: int
    nget: int
    """Items handed out since the pool was made, but for those that caches handed out."""
    nput: int
    """Items that came back, but for those that came back to caches."""
    nfail: int
    """Calls of `get_nowait` that were refused."""
    nwait: int
    """Calls of `get` that had to park. The kernel has a counter for them, ``mbs_wait``, which
    ``netstat -m`` prints as "requests for memory delayed"; but nothing increments it there."""
    nout: int
    """Items out now: `nget` less `nput`. With caches, see `in_use`."""
    npages: int
    """Pages that the pool has now."""
    nidle: int
    """Pages with no item out."""
    npagealloc: int
    """Pages that came since the pool was made."""
    npagefree: int
    """Pages that left since the pool was made."""
    hiwat: int
    """The most pages that the pool ever had. (Not its high water, which is `max_idle_items`.)"""
    min_items: int
    """Items whose pages the pool keeps (the kernel's low water)."""
    max_items: int | None
    """Items that may be out at once; None is no limit (the kernel's hard limit)."""
    max_idle_items: int
    """Items in idle pages above which a put frees the oldest idle page, once it has been idle for
    more than a second (the kernel's high water)."""
    waiting: int
    """Requests that are parked now."""
    quarantined: int = 0
    """Items, of those out, whose lease has ended, and whose memory something still exports."""
    caches: CacheStatistics | None = None
    """The caches of the CPUs; None if the pool has none."""

    @property
    def gets(self) -> int:
        """Items handed out since the pool was made, by its pages and by its caches."""
        return self.nget if self.caches is None else self.nget + self.caches.nget

    @property
    def in_use(self) -> int:
        """Items that callers hold. Without caches that is `nout`. With caches `nout` is as the
        kernel's ``pr_nout``: it counts the items in caches, too, and those that went back to the
        pages in a list."""
        if self.caches is None:
            return self.nout
        return self.nout + self.caches.nget - self.caches.nput

    @property
    def min_pages(self) -> int:
        """The pages that hold `min_items`: the kernel's ``minpages``."""
        return -(-self.min_items // self.items_per_page)

    @property
    def hard_limit(self) -> int | None:
        """The kernel's name of `max_items`."""
        return self.max_items

    @property
    def max_idle_pages(self) -> int:
        """The pages that hold `max_idle_items`: the kernel's ``maxpages``."""
        return -(-self.max_idle_items // self.items_per_page)


@dataclass(frozen=True, slots=True)
class WaitStatistics:
    """All requests that wait in one pool set, at one moment."""

    waiting: int
    """Requests that wait now."""
    peak_waiting: int
    """The most requests that ever waited at once."""
    waits: int
    """Requests that had to park."""
    grants: int
    """Parked requests that were served."""
    cancellations: int
    """Parked requests that were cancelled."""
    passes: int
    """Requests served past an older claim."""
    histogram: tuple[tuple[float, int], ...]
    """How long the served requests had waited. One pair for each bucket that is not empty: its
    upper bound, in seconds of the loop's clock (a power of two microseconds), and the number of
    requests in it."""


@dataclass(frozen=True, slots=True)
class TaskQueueStatistics:
    """A `TaskQueue` at one moment."""

    name: str
    queued: int
    """Tasks that wait for their turn."""
    scheduled: int
    """Tasks that will be added later."""
    added: int
    """Calls of `add` that queued a task."""
    coalesced: int
    """Calls of `add` that found the task queued already."""
    discarded: int
    """Tasks that were taken off the queue before they ran."""
    runs: int
    """Tasks that were run."""


@dataclass(frozen=True, slots=True)
class PoolsStatistics:
    """A `BufferPools` or `MbufPools` at one moment."""

    limit: int
    """Bytes."""
    allocated: int
    """Bytes of all pages."""
    peak: int
    """Bytes: the most ever allocated at once."""
    drops: int
    """Page requests that the budget refused."""
    wakeup_runs: int
    """How often freed pages woke all pools: the runs of the wakeup task, or, under ``direct``, the
    freed pages. A new limit is counted only where the task does the waking."""
    reserved: int
    """Bytes held by reservations, which have no page."""
    debt: int
    """Bytes allocated beyond the limit, after it was lowered."""
    waits: WaitStatistics
    taskq: TaskQueueStatistics
    pools: Mapping[str, PoolStatistics]
    """The statistics of each pool by its name, in the order of the sizes."""
    dropped: int = 0
    """Leases that were dropped without a release, and found."""
    drains: int = 0
    """How often the caches were drained because a request waited; see `Drain`."""
    cpu_visits: int = 0
    """CPUs that were visited for that, each for the caches of all pools."""

    @property
    def waiting(self) -> int:
        """Requests that are parked, of every kind."""
        return self.waits.waiting

    @property
    def quarantined(self) -> int:
        """Items whose lease has ended, and whose memory something still exports."""
        return sum(pool.quarantined for pool in self.pools.values())

    @property
    def nout(self) -> int:
        """Items that are out, of all pools together."""
        return sum(pool.nout for pool in self.pools.values())
