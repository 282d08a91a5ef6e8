"""The rules of the protocol, each with a switch for its alternatives.

`Rules()` is the patch on a kernel with a cure for every fault that the lab found. `KERNEL` is the
patch on the kernel as it is.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

__all__ = ["KERNEL", "Caches", "Charge", "Look", "Mark", "Rules", "Wakeup"]


class Wakeup(enum.StrEnum):
    """What wakes the other pools when a page goes back to the budget.

    The strings are those of `mbufpools.Wakeup`; its ``near-limit`` is a `Rules.margin` here.
    """

    NONE = "none"
    """Nothing wakes them: the kernel before the patch."""
    DEFERRED = "deferred"
    """A task on systqmp wakes them: the patch."""
    DIRECT = "direct"
    """The page free itself wakes them: the reviewer's alternative."""
    WANTED = "wanted"
    """The page free itself wakes them if the flag is set that a sleeper sets when the budget
    refuses it: what a comment of 2007 in the kernel describes."""


class Mark(enum.StrEnum):
    """How the mark of a queued task is read and cleared (``TASK_ONQUEUE``)."""

    KERNEL = "kernel"
    """The mark is read without the mutex, then tested under it, and cleared before the run."""
    LOCKED = "locked"
    """The mark is only tested under the mutex."""
    UNLOCKED = "unlocked"
    """The mark is only tested without the mutex."""
    LATE = "late"
    """The mark is cleared after the run."""
    EARLY = "early"
    """The mark is read before the budget is credited, as a CPU that reorders reads may do."""


class Look(enum.StrEnum):
    """How a wakeup finds out whether a pool has requests."""

    LIST = "list"
    """The wakeup reads the list without its mutex, as the kernel does."""
    COUNT = "count"
    """The wakeup reads, without a mutex, the count of requests that are not served yet."""
    LOCKED = "locked"
    """The wakeup enters the mutex first."""
    REQUESTING = "requesting"
    """The wakeup reads, without a mutex, whether a CPU runs the queue (``pr_requesting``), then
    the list; and a run puts the requests back on the list before it clears ``pr_requesting``."""
    LIST_FIRST = "list-first"
    """The same two reads in the other order. A reader between the two stores of the kernel's
    ``pool_runqueue``, which clears ``pr_requesting`` first, sees the same as this one."""


class Charge(enum.StrEnum):
    """How a page is charged to the budget."""

    ADD = "add"
    """The page is added, the sum compared, and the page taken back if the sum is too large, as the
    kernel does."""
    COMPARE = "compare"
    """The sum is compared before the page is added, in one operation (a compare-and-swap)."""
    RETRY = "retry"
    """As ``add``; taking the page back queues the wakeup, as a page free does."""


class Caches(enum.StrEnum):
    """The per-CPU caches in front of a pool (``pool_cache``)."""

    NONE = "none"
    """There are no caches."""
    KERNEL = "kernel"
    """A put goes to the cache if it sees no request; it looks without their mutex."""
    LOCKED = "locked"
    """A put looks under their mutex, and leaves the mutex once the item is in the cache."""
    DRAINED = "drained"
    """As ``kernel``; but while any request waits, the gc moves all cached items to the pages."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules of one kernel. The defaults are the patch with all cures."""

    wakeup: Wakeup = Wakeup.DEFERRED
    margin: int | None = None
    """The wakeup is added only if fewer bytes than this are free after the page has left; None:
    always."""
    credit_first: bool = True
    """The budget is credited before the task is added."""
    second_try: bool = True
    """A process that has enqueued a request runs the queue once more before it sleeps."""
    bump: bool = True
    """A CPU that finds the queue being run makes the runner go round again (``pr_requesting``)."""
    page_serves: bool = True
    """A get that has added a page serves the requests that wait for its other items."""
    recheck_curpage: bool = False
    """A run that leaves requests on their list looks at the pool's current page again, and starts
    anew if there is one. At a hard limit it does not: it would never end."""
    mark: Mark = Mark.KERNEL
    look: Look = Look.COUNT
    charge: Charge = Charge.COMPARE
    stale: bool = False
    """A put into a full page does not show the item to a pool that has no other free item, as in
    the kernel."""
    caches: Caches = Caches.NONE
    lists_serve: bool = True
    """A list that goes from the caches back to the pages serves the requests that wait."""
    list_items: int = 1
    """The number of items in a full list of a cache; the kernel has 8 or more."""
    flag_rechecks: bool = True
    """Under ``wanted``: a sleeper that has set the flag looks at the budget again."""
    page_refused: bool = False
    """While the system is short of memory (`Scenario.short`), it has no page."""
    header_refused: bool = False
    """While the system is short of memory, ``phpool`` has no header for a page."""
    given_back_wakes: bool = True
    """A page without a header is given back by ``m_pool_free``, which causes the wakeup."""
    gc_retries: bool = False
    """The gc runs the requests of every pool that has one."""


KERNEL = Rules(look=Look.LIST, charge=Charge.ADD, stale=True, page_serves=False, lists_serve=False)
"""The patch on the kernel as it is, without its caches."""
