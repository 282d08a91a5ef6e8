"""The event hook, which feeds the demos, traces, plots and tests.

A hook is a function of one `Event`. It is called right after the step that the event describes,
while the operation that the step is part of is still running, so `check()` may fail there. The hook
may read statistics and must not call anything else of the pools. If no hook is set, each step
costs one test for None.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import NamedTuple

from ._log import logger

__all__ = ["Event", "EventKind", "Hook", "Observer"]


class EventKind(enum.StrEnum):
    """The kind of a step.

    Attributes:
        GET: An item went out to a get that did not have to wait.
        PUT: An item came back.
        WAIT: A request parked.
        GRANT: A parked request was handed what it asked for.
        CANCEL: A parked request was cancelled.
        DROP: A lease was found that was dropped without a release; its item or bytes come back.
            `PoolsStatistics.dropped` counts it; ``drops`` counts what the budget refused.
        PAGE_IN: A pool took a page from the budget.
        PAGE_OUT: A page went back to the budget.
        QUEUED: A task was put on the task queue.
        COALESCED: A task was added that was already on the queue, so nothing was done.
        RUN: The task queue runs a task; the event comes just before its function is called.
    """

    GET = "get"
    PUT = "put"
    WAIT = "wait"
    GRANT = "grant"
    CANCEL = "cancel"
    DROP = "drop"
    PAGE_IN = "page in"
    PAGE_OUT = "page out"
    QUEUED = "queued"
    COALESCED = "coalesced"
    RUN = "run"


class Event(NamedTuple):
    """One step of a pool set or of its task queue.

    Attributes:
        kind: What happened.
        time: Seconds of the loop's clock since the pools were entered.
        name: The name of the pool, of several pools (``2 x small + 1 x large``) or of the task;
            ``bytes`` for a reservation.
        nbytes: The bytes that were asked for (get, put, wait, grant, cancel), the bytes of the page
            (page in, page out), or 0. An item whose lease was dropped, or that something exported
            after its lease had ended, counts with the bytes of a whole item.
        request: The number of the request (wait, grant, cancel), counted from 1 in a pool set, or
            0.
    """

    kind: EventKind
    time: float
    name: str
    nbytes: int
    request: int


Hook = Callable[[Event], None]


class Observer:
    """Holds the hook and calls it.

    A hook that raises is logged and removed, as trio does with its instruments, because an
    observer must not break what it observes.
    """

    __slots__ = ("_now", "hook", "on_removal")

    def __init__(self, now: Callable[[], int], hook: Hook | None) -> None:
        if hook is not None and not callable(hook):
            raise TypeError(f"the event hook is {hook!r}; expected a function of one Event")
        self._now = now
        self.hook = hook
        self.on_removal: Callable[[], None] = lambda: None
        """Called when the hook was removed. `BufferPools._wire` sets it."""

    def tell(self, kind: EventKind, name: str, nbytes: int = 0, request: int = 0) -> None:
        """Call the hook, if there is one."""
        if self.hook is not None:
            try:
                self.hook(Event(kind, self._now() / 1_000_000, name, nbytes, request))
            except Exception:  # noqa: BLE001 - it is logged
                logger().exception("the event hook %r raised and has been removed", self.hook)
                self.hook = None
                self.on_removal()
