"""Services of libraries, which may tick for ever: a program that waits while only they run has
stalled.

A library says by its hooks which tasks are its services, and which of these only tick, such as a
runner that wakes each second to look for idle memory.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Mapping
from typing import Any

from ._hooks import is_service, only_ticks

__all__ = ["TICKS", "is_service", "only_ticks_on_asyncio", "only_ticks_on_trio"]

TICKS = 1000
"""Jumps of the clock after which ticks are taken to change nothing any more."""


def only_ticks_on_asyncio(loop: Any, timers: Iterable[Any]) -> bool:
    """Return True if every timer of a loop belongs to a service that only ticks."""
    waiting = {task._fut_waiter: task for task in asyncio.all_tasks(loop)}  # type: ignore[attr-defined]  # asyncio's own
    hosts = [
        _host(timer, waiting)
        for timer in timers
        if not timer._cancelled and timer._when != math.inf
    ]
    return bool(hosts) and all(
        host is not None and only_ticks(host.get_name(), host.get_coro()) for host in hosts
    )


def _host(timer: Any, waiting: Mapping[Any, Any]) -> Any:
    """Return the task for which a timer was set, or None if the timer does not tell.

    It is a deadline of anyio's or asyncio's, or it completes the future that a task waits for.
    """
    owner = getattr(timer._callback, "__self__", None)
    for attribute in ("_host_task", "_task"):
        task = getattr(owner, attribute, None)
        if isinstance(task, asyncio.Task):
            return task
    futures = [it for it in (owner, *timer._args) if isinstance(it, asyncio.Future)]
    return next((waiting[it] for it in futures if it in waiting), None)


def only_ticks_on_trio(deadlines: Any) -> bool:
    """Return True if every deadline of a run belongs to a service that only ticks."""
    hosts = [
        list(scope._cancel_status._tasks) if scope._cancel_status is not None else []
        for when, _, scope in deadlines._heap
        if scope._registered_deadline == when < math.inf
    ]
    # A scope without tasks of its own surrounds other scopes; a service's scope has its task.
    return bool(hosts) and all(
        tasks and all(only_ticks(task.name, task.coro) for task in tasks) for tasks in hosts
    )
