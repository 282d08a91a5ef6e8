"""The rules of the protocol that might be otherwise, each a switch.

`Rules()` is the patch on a kernel that is cured of all that the lab found; `KERNEL` is the patch on
the kernel as it is. Uses no other room.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

__all__ = ["KERNEL", "Caches", "Charge", "Look", "Mark", "Rules", "Wakeup"]


class Wakeup(enum.StrEnum):
    """Who wakes the other pools when a page goes back to the budget."""

    NONE = "none"
    """Nobody: the kernel before the patch."""
    TASK = "task"
    """A task on systqmp: the patch."""
    DIRECT = "direct"
    """The page free itself: the reviewer's alternative."""


class Mark(enum.StrEnum):
    """How the mark that says that a task is queued is kept (``TASK_ONQUEUE``)."""

    KERNEL = "kernel"
    """Looked at without the mutex, then tested under it; cleared before the task runs."""
    LOCKED = "locked"
    """Only tested under the mutex."""
    UNLOCKED = "unlocked"
    """Only tested without the mutex."""
    LATE = "late"
    """Cleared after the task has run."""
    EARLY = "early"
    """Looked at before the budget is credited, as a CPU that reorders may do it."""


class Look(enum.StrEnum):
    """How a wakeup finds out whether a pool has requests."""

    LIST = "list"
    """Looks at the list without its mutex: the kernel's."""
    COUNT = "count"
    """Looks without a mutex at a count of those who were enqueued and not served yet."""
    LOCKED = "locked"
    """Enters the mutex first."""


class Charge(enum.StrEnum):
    """How a page is charged to the budget."""

    ADD = "add"
    """Added, compared, and taken back if it was too much: the kernel's."""
    COMPARE = "compare"
    """Compared and added in one (a compare-and-swap)."""
    RETRY = "retry"
    """As ``add``, and to take it back queues the wakeup, as a page free does."""


class Caches(enum.StrEnum):
    """The per-CPU caches in front of a pool (``pool_cache``)."""

    NONE = "none"
    KERNEL = "kernel"
    """A put goes to the cache if there are no requests, and looks without their mutex."""
    LOCKED = "locked"
    """It looks under their mutex, and leaves it once the item is in the cache."""
    DRAINED = "drained"
    """As the kernel's; but the gc empties all caches into the pages while anybody waits."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What may be otherwise. The defaults are the patch, and the cures."""

    wakeup: Wakeup = Wakeup.TASK
    margin: int | None = None
    """The wakeup only if less than so many bytes are free then; None is always."""
    credit_first: bool = True
    """The budget is credited before the task is added."""
    second_try: bool = True
    """Who has enqueued a request runs the queue once more before he sleeps."""
    bump: bool = True
    """Who finds the queue being run makes the runner go round again (``pr_requesting``)."""
    page_serves: bool = True
    """A get that has brought a page serves those who wait for the other items of it."""
    mark: Mark = Mark.KERNEL
    look: Look = Look.COUNT
    charge: Charge = Charge.COMPARE
    stale: bool = False
    """A put shows no item of a full page to a pool that has no other (the kernel's)."""
    caches: Caches = Caches.NONE
    lists_serve: bool = True
    """A list that goes from the caches back to the pages serves those who wait."""
    list_items: int = 1
    """Items of a list of a cache; the kernel's are 8 and more."""


KERNEL = Rules(look=Look.LIST, charge=Charge.ADD, stale=True, page_serves=False, lists_serve=False)
"""The patch, on the kernel as it is, without its caches."""
