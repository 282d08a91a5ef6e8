"""The names of the policies, and the two sets of rules.

A policy is a choice between a few behaviours: which requests are woken when a page leaves, which
request is served first, when idle pages leave, and which page the next item comes from. This module
only names them. Each member says where its behaviour is implemented.

Each policy is a string enum, so ``wakeup="deferred"`` works wherever ``Wakeup.DEFERRED`` does.
The types `WakeupName`, `OrderName`, `ReclaimName`, `CurPageName` and `DrainName` list the strings,
so that a type checker refuses ``order="fifoo"``; at run time `choose` refuses it. The other
differences between the kernel's pools and an application's are two rows of one table (`Rules`).
"""

from __future__ import annotations

import enum
from typing import Literal, NamedTuple, TypeVar

from ._errors import ConfigurationError

__all__ = [
    "APPLICATION",
    "KERNEL",
    "CurPage",
    "CurPageName",
    "Drain",
    "DrainName",
    "Order",
    "OrderName",
    "Reclaim",
    "ReclaimName",
    "Rules",
    "Wakeup",
    "WakeupName",
    "choose",
]

WakeupName = Literal["none", "deferred", "direct", "near-limit", "wanted"]
"""The names of the members of `Wakeup`."""
OrderName = Literal["fifo", "bounded", "barging"]
"""The names of the members of `Order`."""
ReclaimName = Literal["pressure", "gc"]
"""The names of the members of `Reclaim`."""
CurPageName = Literal["refreshed", "stale"]
"""The names of the members of `CurPage`."""
DrainName = Literal["never", "depots", "caches"]
"""The names of the members of `Drain`."""


class Wakeup(enum.StrEnum):
    """What wakes the requests of the other pools when a page goes back to the budget.

    Attributes:
        NONE: Nothing: the kernel before the patch. Implemented in `BufferPools._page_left`, which
            does nothing then; a new limit wakes all requests at once, in
            `BufferPools._limit_changed`.
        DEFERRED: One task on the task queue, however many pages leave before it runs: the patch.
            Implemented in `BufferPools._page_left`; the task is `BufferPools._run_wakeup`.
        DIRECT: The freeing of the page itself, once for each page: the reviewer's alternative.
            Implemented in `BufferPools._page_left`, which calls `BufferPools._run_wakeup`.
        NEAR_LIMIT: The task, but only when the allocated bytes are within a margin of the limit:
            the author's alternative. Implemented in `BufferPools._page_left` and
            `BufferPools._is_near_limit`.
        WANTED: The freeing of the page itself, but only if a request sleeps because the budget
            refused it: a comment in subr_pool.c 1.53 (2007) describes it. Such a request sets one
            flag of the set. A page that leaves and finds the flag set clears it and runs the
            requests of all pools; one that is refused again sets it again. A refused `get_nowait`,
            and a request that waits at the maximum of its pool, do not set it. Implemented in
            `BufferPools._page_left`; `Waiters._park` and `Waiters._serve` set the flag.
    """

    NONE = "none"
    DEFERRED = "deferred"
    DIRECT = "direct"
    NEAR_LIMIT = "near-limit"
    WANTED = "wanted"


class Order(enum.StrEnum):
    """Which request is served first.

    Attributes:
        FIFO: The oldest. No request overtakes an older one, in any pool, and `get_nowait` does not
            either; freed bytes gather for the oldest. Implemented in `Precedence.serve_in_order`.
        BOUNDED: As FIFO, but a get that free items of its own pool can serve may pass a waiting
            claim, a bounded number of times. Implemented in `Precedence.serve_in_order` and
            `Precedence._may_pass`.
        BARGING: A new request tries before it looks at the waiting ones; the waiters of one pool
            are served first in, first out. The kernel's order. Implemented in
            `Waiters.take_at_once` (the new request) and `Waiters._round` (each queue by itself).
    """

    FIFO = "fifo"
    BOUNDED = "bounded"
    BARGING = "barging"


class Reclaim(enum.StrEnum):
    """When idle pages leave.

    Attributes:
        PRESSURE: Before a request has to wait, idle pages of the other pools leave, the longest
            idle first, but never below a pool's minimum. While a claim waits, a page that becomes
            idle leaves at once. Otherwise as ``gc``. Implemented in `Reclaimer.charge` and
            `Reclaimer.let_go_idle_pages`. *What it would cost the kernel*: a get that is refused
            takes the lock of every pool to look for idle pages, and frees them on the path of the
            get; only gets that would fail or sleep pay. Items in the caches of CPUs keep their
            pages from being idle.
        GC: After eight seconds, one page a pool a second. The kernel's rule. Implemented in
            `BufferPools._gc` and `Supply.gc`; under both rules a put lets a page go if there are
            too many idle ones (`Supply.returned`).
    """

    PRESSURE = "pressure"
    GC = "gc"


class CurPage(enum.StrEnum):
    """Whether a put that turns a full page into a partial one shows its item to a pool that sees
    no other free item.

    Attributes:
        REFRESHED: Yes: the cure. Implemented in `PageLists.settle`. *What it would cost the
            kernel*: two lines, an assignment and its condition, under a lock that the put holds
            anyway.
        STALE: No: the kernel as it is. The items stay hidden until the page is empty. Implemented
            in `PageLists.settle`, which leaves ``curpage`` as it is.
    """

    REFRESHED = "refreshed"
    STALE = "stale"


class Drain(enum.StrEnum):
    """What the caches of the CPUs give back to the pages while a request waits, in `MbufPools`.

    It happens at two moments: when a get is about to sleep, which then tries again, and at each run
    of the gc while a request waits. Afterwards the requests of all pools are run.

    Attributes:
        NEVER: Nothing: the kernel as it is. The gc alone returns lists, one of each pool in nine
            seconds. Implemented in `CachedSupply.gc`.
        DEPOTS: The full lists of the depots; what is in the lists of each CPU stays there. *What it
            would cost the kernel*: the lock of each pool's depot, once a sleep; no CPU is
            disturbed. Implemented in `MbufPools.drain_caches` and `CachedSupply.drain`.
        CACHES: The depots, and the lists of every CPU. *What it would cost the kernel*: no CPU may
            touch the cache of another one (``pool_cache_enter`` takes no lock), so each CPU must be
            visited (``sched_peg_curproc``, or a cross call), once a sleep, for all pools together.
            The statistics count these visits. Implemented in `MbufPools.drain_caches` and
            `CachedSupply.drain`.
    """

    NEVER = "never"
    DEPOTS = "depots"
    CACHES = "caches"


_Choice = TypeVar("_Choice", Wakeup, Order, Reclaim, CurPage, Drain)


def choose(kind: type[_Choice], value: _Choice | str) -> _Choice:
    """Return `value` as a member of `kind`. Raises ConfigurationError, which lists the members."""
    try:
        return kind(value)
    except ValueError:
        names = ", ".join(repr(str(member)) for member in kind)
        raise ConfigurationError(
            f"{kind.__name__.lower()} is {value!r}; expected one of {names}"
        ) from None


class Rules(NamedTuple):
    """The rules in which the kernel and an application differ."""

    refuse_impossible: bool
    """A request that can never be served fails at once, instead of sleeping for ever."""
    hard_limit_wakes: bool
    """Raising a pool's maximum serves the requests that waited at it."""
    put_keeps_minimum: bool
    """A put lets no page go that the pool's minimum needs. (The kernel's put does not look.)"""


KERNEL = Rules(refuse_impossible=False, hard_limit_wakes=False, put_keeps_minimum=False)
APPLICATION = Rules(refuse_impossible=True, hard_limit_wakes=True, put_keeps_minimum=True)
