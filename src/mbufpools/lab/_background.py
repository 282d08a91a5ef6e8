"""The gc of open pools, which ticks for ever: who waits while only it runs has stalled.

The lab does not cancel the task that runs it either: that is the library's own. Uses no other room.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

__all__ = ["TICKS", "is_service", "only_gc_of_asyncio", "only_gc_of_trio"]

TICKS = 1000
"""Jumps of the clock after which nothing comes of the gc any more: it has let go what it could."""


def is_service(title: str) -> bool:
    """True if a task of this name runs a task queue of this library."""
    return title.startswith("mbufpools ")


def only_gc_of_asyncio(timers: Iterable[Any]) -> bool:
    """True if every timer of a loop is the gc's."""
    hosts = [
        getattr(getattr(timer._callback, "__self__", None), "_host_task", None)
        for timer in timers
        if not timer._cancelled and timer._when != math.inf
    ]
    return bool(hosts) and all(
        host is not None and _waits_for_gc(host.get_name(), host.get_coro()) for host in hosts
    )


def only_gc_of_trio(deadlines: Any) -> bool:
    """True if every deadline of a run is the gc's."""
    hosts = [
        list(scope._cancel_status._tasks) if scope._cancel_status is not None else []
        for when, _, scope in deadlines._heap
        if scope._registered_deadline == when < math.inf
    ]
    # A scope without tasks of its own has some further inside: the gc's has its own.
    return bool(hosts) and all(
        tasks and all(_waits_for_gc(task.name, task.coro) for task in tasks) for tasks in hosts
    )


def _waits_for_gc(title: str, coroutine: Any) -> bool:
    """True if a task runs a task queue on which nothing but the gc is due."""
    while is_service(title) and coroutine is not None:
        frame = getattr(coroutine, "cr_frame", None)
        if frame is None:
            return False
        queue = frame.f_locals.get("self")
        if type(queue).__module__ == "mbufpools._taskq" and hasattr(queue, "_due"):
            names = (getattr(task.function, "__qualname__", "") for task in queue._due)
            return not queue._queue and all(name == "BufferPools._gc" for name in names)
        coroutine = coroutine.cr_await
    return False
