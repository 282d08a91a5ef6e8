"""Which task holds a lock that others wait for.

anyio and trio know the owner of a lock, and the borrowers of a limiter. asyncio does not know which
task has acquired a lock, so while an execution is noted in full the lab notes it: `noting_holders`
puts a method around ``asyncio.Lock.acquire`` that changes nothing else.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from ._declare import recorder
from ._frames import caller
from ._steps import spell

__all__ = ["held_by", "noting_holders"]

WRAPPED = ("_lock", "_limiter", "_Lock__original", "_CapacityLimiter__original")
"""Where anyio's adapters and its primitives on trio keep the primitive that they are made of."""

_holders: weakref.WeakKeyDictionary[Any, tuple[Any, str]] = weakref.WeakKeyDictionary()
"""By lock: the task that acquired it last, and the line where it did."""


@contextmanager
def noting_holders() -> Iterator[None]:
    """Note which task acquires each lock of asyncio inside the ``with`` block."""
    acquire: Callable[[asyncio.Lock], Any] = asyncio.Lock.acquire

    @wraps(acquire)
    async def noted(lock: asyncio.Lock) -> Any:
        result = await acquire(lock)
        _holders[lock] = asyncio.current_task(), caller()
        return result

    lock_class: Any = asyncio.Lock
    lock_class.acquire = noted
    try:
        yield
    finally:
        lock_class.acquire = acquire
        _holders.clear()


def held_by(primitive: Any) -> str:
    """Return which task holds a primitive, such as "task 0.1 has it since x.py:5, in f"; "" if none
    knows."""
    for wrapped in WRAPPED:
        primitive = getattr(primitive, wrapped, None) or primitive
    task, line = getattr(primitive, "_owner_task", None) or getattr(primitive, "_owner", None), ""
    if task is None and isinstance(primitive, asyncio.Lock) and primitive._locked:  # type: ignore[attr-defined]  # asyncio's own
        task, line = _holders.get(primitive, (None, ""))
    if task is not None:
        name = _name(task)
        return f"{name} has it" + (f" since {line}" if line else "") if name else ""
    borrowers = getattr(primitive, "_borrowers", None)
    if not isinstance(borrowers, set | dict):
        return ""
    names = sorted(filter(None, map(_name, borrowers)))
    return f"{' and '.join(names)} {'has it' if len(names) == 1 else 'have it'}" if names else ""


def _name(task: Any) -> str:
    try:
        name = recorder.task_name(task)
    except TypeError:  # a borrower that is no task
        return ""
    return "" if name is None else f"task {spell(name)}"
