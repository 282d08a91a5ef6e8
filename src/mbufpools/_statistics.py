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
    """A `Budget` at one moment.

    Attributes:
        limit: The most bytes that may be charged.
        allocated: Bytes charged now.
        peak: The most bytes ever charged at once.
        drops: Charges that were refused.
        used_percent: `allocated` as a whole percentage of `limit`, rounded down.
        low_memory: True from above 80 % used until below 60 % used.
    """

    limit: int
    allocated: int
    peak: int
    drops: int
    used_percent: int
    low_memory: bool


@dataclass(frozen=True, slots=True)
class CacheStatistics:
    """The per-CPU caches of a pool of `MbufPools` at one moment.

    Attributes:
        list_items: Items of a full list.
        depot: Items in the lists of the depot.
        cpus: Items in the two lists of each CPU.
        nget: Gets that the caches served; `PoolStatistics.nget` does not count them.
        nput: Puts that ended in the caches; `PoolStatistics.nput` does not count them.
    """

    list_items: int
    depot: int
    cpus: tuple[int, ...]
    nget: int
    nput: int

    @property
    def items(self) -> int:
        """Items in all caches."""
        return self.depot + sum(self.cpus)


@dataclass(frozen=True, slots=True)
class PoolStatistics:
    """A `Pool` at one moment.

    Attributes:
        name: The name of the pool.
        item_size: Bytes of an item.
        page_size: Bytes of a page.
        items_per_page: Items that a page holds.
        nget: Items handed out since the pool was made, but for those that caches handed out.
        nput: Items that came back, but for those that came back to caches.
        nfail: Calls of `get_nowait` that were refused.
        nwait: Calls of `get` that had to park. The kernel has a counter for them, ``mbs_wait``,
            which ``netstat -m`` prints as "requests for memory delayed"; but nothing increments it
            there.
        nout: Items out now: `nget` less `nput`. With caches, see `in_use`.
        npages: Pages that the pool has now.
        nidle: Pages with no item out.
        npagealloc: Pages that came since the pool was made.
        npagefree: Pages that left since the pool was made.
        hiwat: The most pages that the pool ever had. (Not its high water, which is
            `max_idle_items`.)
        min_items: Items whose pages the pool keeps (the kernel's low water).
        max_items: Items that may be out at once; None is no limit (the kernel's hard limit).
        max_idle_items: Items in idle pages above which a put frees the oldest idle page, once it
            has been idle for more than a second (the kernel's high water).
        waiting: Requests that are parked now.
        quarantined: Items, of those out, whose lease has ended, and whose memory something still
            exports.
        caches: The caches of the CPUs; None if the pool has none.
    """

    name: str
    item_size: int
    page_size: int
    items_per_page: int
    nget: int
    nput: int
    nfail: int
    nwait: int
    nout: int
    npages: int
    nidle: int
    npagealloc: int
    npagefree: int
    hiwat: int
    min_items: int
    max_items: int | None
    max_idle_items: int
    waiting: int
    quarantined: int = 0
    caches: CacheStatistics | None = None

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
    """All requests that wait in one pool set, at one moment.

    Attributes:
        waiting: Requests that wait now.
        peak_waiting: The most requests that ever waited at once.
        waits: Requests that had to park.
        grants: Parked requests that were served.
        cancellations: Parked requests that were cancelled.
        passes: Requests served past an older claim.
        histogram: How long the served requests had waited. One pair for each bucket that is not
            empty: its upper bound, in seconds of the loop's clock (a power of two microseconds),
            and the number of requests in it.
    """

    waiting: int
    peak_waiting: int
    waits: int
    grants: int
    cancellations: int
    passes: int
    histogram: tuple[tuple[float, int], ...]


@dataclass(frozen=True, slots=True)
class TaskQueueStatistics:
    """A `TaskQueue` at one moment.

    Attributes:
        name: The name of the task queue.
        queued: Tasks that wait for their turn.
        scheduled: Tasks that will be added later.
        added: Calls of `add` that queued a task.
        coalesced: Calls of `add` that found the task queued already.
        discarded: Tasks that were taken off the queue before they ran.
        runs: Tasks that were run.
    """

    name: str
    queued: int
    scheduled: int
    added: int
    coalesced: int
    discarded: int
    runs: int


@dataclass(frozen=True, slots=True)
class PoolsStatistics:
    """A `BufferPools` or `MbufPools` at one moment.

    Attributes:
        limit: The most bytes that may be allocated.
        allocated: Bytes of all pages and reservations.
        peak: The most bytes ever allocated at once.
        drops: Page requests that the budget refused.
        wakeup_runs: How often freed pages woke all pools: the runs of the wakeup task, or, under
            ``direct``, the freed pages. A new limit is counted only where the task does the waking.
        reserved: Bytes held by reservations, which have no page.
        debt: Bytes allocated beyond the limit, after it was lowered.
        waits: The statistics of the requests that wait, of all pools together.
        taskq: The statistics of the task queue that wakes them.
        pools: The statistics of each pool by its name, in the order of the sizes.
        dropped: Leases that were dropped without a release, and found.
        drains: How often the caches were drained because a request waited; see `Drain`.
        cpu_visits: CPUs that were visited for that, each for the caches of all pools.
    """

    limit: int
    allocated: int
    peak: int
    drops: int
    wakeup_runs: int
    reserved: int
    debt: int
    waits: WaitStatistics
    taskq: TaskQueueStatistics
    pools: Mapping[str, PoolStatistics]
    dropped: int = 0
    drains: int = 0
    cpu_visits: int = 0

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
