"""Where every task stands: its line, and the primitive that it waits for.

Uses `_trace` and `_virtual_time`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from ._trace import Name, spell

__all__ = ["picture", "place"]

_LIBRARIES = {"anyio", "asyncio", "trio", "mbufpools"}
_NOTIFIERS = {
    "Event": "set()",
    "EventAdapter": "set()",
    "Condition": "notify()",
    "Lock": "release()",
    "LockAdapter": "release()",
    "Semaphore": "release()",
    "SemaphoreAdapter": "release()",
    "CapacityLimiter": "release()",
    "Queue": "put() or get()",
    "MemoryObjectReceiveStream": "send(), or the close of the senders",
    "MemoryObjectSendStream": "receive(), or the close of the receivers",
    "MemoryReceiveChannel": "send(), or the close of the senders",
    "MemorySendChannel": "receive(), or the close of the receivers",
    "Barrier": "wait()",
}
"""Who waits for a primitive is woken by this."""


def picture(tasks: Iterable[tuple[Name, str, Any, bool]]) -> tuple[str, ...]:
    """For each task its names, whether it could run, where it stands, and what for; and a line for
    each call that led there."""
    lines = []
    for name, title, coroutine, ready in sorted(tasks, key=lambda task: task[0]):
        calls, waits_for = _where(coroutine)
        state = "could run" if ready else "waits"
        at = f" at {calls.pop()}" if calls else ""
        lines.append(f"task {spell(name)} {title!r} {state}{at}{'' if ready else waits_for}")
        lines += [f"  called at {call}" for call in reversed(calls)]
    return tuple(lines)


def place(coroutine: Any) -> str:
    """Where a task stands, for a story."""
    calls, _ = _where(coroutine)
    return calls[-1] if calls else ""


def _where(coroutine: Any) -> tuple[list[str], str]:
    """The lines of the program's own functions, the innermost last; and what it waits for."""
    calls: list[str] = []
    waits_for = ""
    while coroutine is not None:
        kind = {"coroutine": "cr", "generator": "gi", "async_generator": "ag"}.get(
            type(coroutine).__name__
        )
        frame = getattr(coroutine, f"{kind}_frame", None)
        if frame is None:
            break
        code = frame.f_code
        module = frame.f_globals.get("__name__", "")
        if module.partition(".")[0] not in _LIBRARIES or module.startswith("mbufpools.lab"):
            if not module.startswith("mbufpools.lab._"):
                calls.append(f"{_short(code.co_filename)}:{frame.f_lineno}, in {code.co_qualname}")
                waits_for = ""
        elif not waits_for:
            waits_for = _primitive(frame)
        coroutine = getattr(coroutine, "gi_yieldfrom" if kind == "gi" else f"{kind}_await")
    return calls, waits_for


def _short(path: str) -> str:
    """A path from where we are, if it is below."""
    here = os.path.join(os.getcwd(), "")
    return path.removeprefix(here)


def _primitive(frame: Any) -> str:
    """What a frame of a library waits for, if it can be told."""
    line, request = frame.f_locals.get("line"), frame.f_locals.get("request")
    if line is not None and request is not None and hasattr(line, "what"):
        return (
            f", for {line.what}: nobody has served it (a release, a page that leaves, a raised "
            f"limit and the wakeup task would)"
        )
    this = frame.f_locals.get("self")
    notifier = _NOTIFIERS.get(type(this).__name__)
    if notifier is not None:
        kind = type(this).__name__.removesuffix("Adapter")
        library = type(this).__module__.partition(".")[0]
        return f", for {library}'s {kind}: {notifier} was never called since"
    return ""
