"""Frozen snapshots of the counters, named as the kernel's without their prefix.

Models ``struct kinfo_pool`` and what ``netstat -m`` and ``vmstat -m`` print. Uses no other room.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = [
    "BudgetStatistics",
    "PoolStatistics",
    "PoolsStatistics",
    "TaskQueueStatistics",
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
    """Charges refused."""
    used_percent: int
    low_memory: bool


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
    """Items handed out since the pool was made."""
    nput: int
    """Items that came back."""
    nfail: int
    """Calls of `get_nowait` refused."""
    nwait: int
    """Calls of `get` that had to park (the kernel's "requests for memory delayed")."""
    nout: int
    """Items out now."""
    npages: int
    nidle: int
    """Pages with no item out."""
    npagealloc: int
    npagefree: int
    hiwat: int
    """The most pages the pool ever had."""
    min_pages: int
    max_idle_pages: int
    """Idle pages above which a put frees the oldest, once it was idle for a second."""
    hard_limit: int | None
    """Items that may be out at once; None is no limit."""
    waiting: int
    """Requests parked now."""


@dataclass(frozen=True, slots=True)
class WaitStatistics:
    """Everybody who waits in one pool set, at one moment."""

    waiting: int
    """Requests that wait now."""
    peak_waiting: int
    """The most that ever waited at once."""
    waits: int
    """Requests that had to park."""
    grants: int
    """Parked requests that were served."""
    cancellations: int
    """Parked requests that were cancelled."""
    passes: int
    """Requests served past an older claim."""
    histogram: tuple[tuple[float, int], ...]
    """How long those who were served had waited: for each bucket that is not empty its upper
    bound, in seconds of the loop's clock (a power of two microseconds), and their number."""


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
    """Tasks taken off before they ran."""
    runs: int
    """Tasks run."""


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
    """How often page frees had all pools woken: runs of the wakeup task, or under ``direct`` page
    frees. A new limit counts only where it is the task that wakes."""
    reserved: int
    """Bytes held by reservations, which have no page."""
    debt: int
    """Bytes allocated beyond the limit, after it was lowered."""
    waits: WaitStatistics
    taskq: TaskQueueStatistics
    pools: Mapping[str, PoolStatistics]
    """By name, in the order of the sizes."""

    @property
    def waiting(self) -> int:
        """Requests parked, of every kind."""
        return self.waits.waiting

    @property
    def nout(self) -> int:
        """Items out of all pools."""
        return sum(pool.nout for pool in self.pools.values())
