"""The task dump: where every task stands, what it waits for, and which task holds that.

A primitive of asyncio, anyio or trio is recognised by the frames that the library has between the
program's own line and the event loop. What a task waits for in another library, and which task
holds it, is told by that library's hooks. The dump reads the tasks and changes nothing.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable
from typing import Any

from . import _hooks
from ._lock_holders import held_by
from ._lockstep import LabThread, frames_of
from ._steps import Name, spell
from .hooks import short_path

__all__ = ["location", "task_dump"]

_LIBRARIES = {"anyio", "asyncio", "trio"}
_LAB = __name__.rpartition(".")[0]
_NOTIFIERS = {
    "Event": "set()",
    "Condition": "notify()",
    "Lock": "release()",
    "StrictFIFOLock": "release()",
    "Semaphore": "release()",
    "CapacityLimiter": "release()",
    "Queue.get": "put()",
    "Queue.put": "get()",
    "MemoryObjectReceiveStream": "send(), or the close of the senders",
    "MemoryObjectSendStream": "receive(), or the close of the receivers",
    "MemoryReceiveChannel": "send(), or the close of the senders",
    "MemorySendChannel": "receive(), or the close of the receivers",
}
"""What wakes a task that waits for a primitive, or in that function of the primitive."""
_UNFINISHED = "a future or task that is not done"
_GROUP = "the tasks of its group"
_STARTING = "a task that it starts: started() was not called after that"
_OTHERS = {
    "TaskGroup.__aexit__": _GROUP,
    "NurseryManager.__aexit__": _GROUP,
    "TaskGroup.start": _STARTING,
    "Nursery.start": _STARTING,
    "TaskHandle.wait": _UNFINISHED,
    "TaskHandle.__await__": _UNFINISHED,
}
"""What a task that waits in one of these functions waits for."""
_KINDS = {"coroutine": "cr", "generator": "gi", "async_generator": "ag"}
_WRAPPERS = {"coroutine_wrapper", "async_generator_asend", "async_generator_athrow", "Driven"}
"""The types of what a coroutine's ``__await__`` and a generator's ``__anext__`` return, and of what
the lab has around a generator that a task runs."""


def task_dump(tasks: Iterable[tuple[Name, str, Any, bool]]) -> tuple[str, ...]:
    """Describe tasks, each given by its name, its title, its coroutine, and whether it could run.

    Each task takes a line that says where it stands and what it waits for, and a line for each call
    that led there. Then come the holders of what the tasks wait for, if a library's hooks know.
    """
    lines = []
    resources: dict[tuple[Any, Any], dict[int, str]] = {}
    for name, title, coroutine, ready in sorted(tasks, key=lambda task: task[0]):
        calls, frames, innermost = _where(coroutine)
        state, waits_for = "could run", ""
        if not ready:
            state, waits_for = "waits", _waits_for(frames, innermost)
            for hooks, wait in filter(None, map(_hooks.waits_for, frames)):
                if wait.resource is not None:
                    waiting = resources.setdefault((hooks, wait.resource), {})
                    waiting[wait.task_id] = spell(name)
        at = f" at {calls.pop()}" if calls else ""
        lines.append(f"task {spell(name)} {title!r} {state}{at}{waits_for}")
        lines += [f"  by way of {call}" for call in reversed(calls)]
    for (hooks, resource), names in resources.items():
        heading, *others = _hooks.holders(hooks, resource, names) or [""]
        lines += [heading, *(f"  {other}" for other in others)] if heading else []
    return tuple(lines)


def location(coroutine: Any) -> str:
    """Return the program's own line at which a task stands, for the story of a schedule."""
    calls, _, _ = _where(coroutine)
    return calls[-1] if calls else ""


def _where(coroutine: Any) -> tuple[list[str], list[Any], Any]:
    """Return the lines of the program's own functions, the innermost last; then the frames of
    libraries that the innermost one called; then what those await, if it has no frame."""
    libraries = _LIBRARIES.union(_hooks.hooked_packages())
    calls: list[str] = []
    frames: list[Any] = []
    while coroutine is not None:
        if type(coroutine).__name__ in _WRAPPERS:
            coroutine = _unwrapped(coroutine)
        kind = _KINDS.get(type(coroutine).__name__)
        frame = getattr(coroutine, f"{kind}_frame", None)
        if frame is None:
            break
        code = frame.f_code
        module = frame.f_globals.get("__name__", "")
        if module.partition(".")[0] in libraries and not module.startswith(_LAB):
            frames.append(frame)
        elif module == LabThread.__module__:  # the task of a thread
            return frames_of(frame.f_locals["self"]), [], None
        elif not module.startswith(f"{_LAB}._"):
            calls.append(f"{short_path(code.co_filename)}:{frame.f_lineno}, in {code.co_qualname}")
            frames.clear()
        coroutine = getattr(coroutine, "gi_yieldfrom" if kind == "gi" else f"{kind}_await")
    return calls, frames, coroutine


def _unwrapped(wrapper: Any) -> Any:
    """Return what a wrapper wraps; no attribute of it tells."""
    inside = (it for it in gc.get_referents(wrapper) if type(it).__name__ in _KINDS)
    return next(inside, wrapper)


# What a task waits for


def _waits_for(frames: list[Any], innermost: Any) -> str:
    """Return what a task waits for, as far as the libraries' frames tell.

    The outermost frame that tells is the one that counts, since a primitive is often made of
    others.
    """
    for _, wait in filter(None, map(_hooks.waits_for, frames)):
        return f", for {wait.what}"
    for at, frame in enumerate(frames):
        primitive = _primitive(frame, frames[at + 1 :])
        if primitive:
            holder = held_by(frame.f_locals.get("self"))
            return f", for {primitive}" + (f"; {holder}" if holder else "")
    asleep = any(frame.f_code.co_name.startswith("sleep") for frame in frames)
    if type(innermost).__name__ == "FutureIter" and not asleep:
        return f", for {_UNFINISHED}"
    return ""


def _primitive(frame: Any, inner: list[Any]) -> str:
    """Return what a frame of a library waits for, or ""; `inner` are the frames below it."""
    this = frame.f_locals.get("self")
    function = frame.f_code.co_name
    theirs = [cls for cls in type(this).__mro__ if cls.__module__.partition(".")[0] in _LIBRARIES]
    if not theirs:
        return ""
    kind = theirs[0].__name__.removesuffix("Adapter")
    library = theirs[0].__module__.partition(".")[0]
    for name in (cls.__name__.removesuffix("Adapter") for cls in theirs):
        if name in ("Condition", "Barrier") and _is_told_below(function, inner):
            return ""
        if name == "Condition" and _has_moved_to_the_lock(inner):
            return f"{library}'s Lock: release() was not called after that"
        if name == "Barrier":
            return f"{library}'s Barrier: {this.n_waiting} of {this.parties} have called wait()"
        if f"{name}.{function}" == "Queue.join":
            return f"{library}'s {kind}: task_done() was not called for every item"
        if f"{name}.{function}" in _OTHERS:
            return _OTHERS[f"{name}.{function}"]
        notifier = _NOTIFIERS.get(f"{name}.{function}") or _NOTIFIERS.get(name)
        if notifier is not None:
            return f"{library}'s {kind}: {notifier} was not called after that"
    return ""


def _is_told_below(function: str, inner: list[Any]) -> bool:
    """Return True if a frame below tells more.

    A condition's lock is being acquired, before or after a wait; or a barrier admits no task until
    the tasks that it let through have left.
    """
    functions = [function, *(frame.f_code.co_name for frame in inner)]
    return not {"acquire", "__aenter__", "_block"}.isdisjoint(functions)


def _has_moved_to_the_lock(inner: list[Any]) -> bool:
    """Return True if trio's ``Condition.notify()`` has re-parked the task: it waits for the lock
    now, but its frames still show the condition's lot."""
    for frame in inner:
        lot, task = frame.f_locals.get("self"), frame.f_locals.get("task")
        if type(lot).__name__ == "ParkingLot" and task is not None:
            return task.custom_sleep_data is not lot
    return False
