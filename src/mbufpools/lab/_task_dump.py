"""Where every task stands: its line, and the primitive that it waits for; and who holds the memory
of the pools that somebody waits for.

A primitive is known by the frames that the libraries have on the way from the program's own line
to the event loop. Uses `_trace` and, of the pools, `_explain`, `_line`, `_request` and `_waiters`;
it reads them, and changes nothing.
"""

from __future__ import annotations

import gc
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from .._explain import explain
from .._request import Request
from .._wait_queues import WaitQueue
from .._waiters import Waiters
from ._steps import Name, spell

__all__ = ["location", "task_dump"]

_LIBRARIES = {"anyio", "asyncio", "trio", "mbufpools"}
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
"""Who waits for a primitive, or in that function of it, is woken by this."""
_UNFINISHED = "a future or task that is not done"
_GROUP = "the tasks of its group"
_STARTING = "a task that it starts: started() was never called since"
_OTHERS = {
    "TaskGroup.__aexit__": _GROUP,
    "NurseryManager.__aexit__": _GROUP,
    "TaskGroup.start": _STARTING,
    "Nursery.start": _STARTING,
    "TaskHandle.wait": _UNFINISHED,
    "TaskHandle.__await__": _UNFINISHED,
}
"""Who waits in these functions waits for this."""
_KINDS = {"coroutine": "cr", "generator": "gi", "async_generator": "ag"}
_WRAPPERS = {"coroutine_wrapper", "async_generator_asend", "async_generator_athrow"}
"""What ``__await__`` of a coroutine returns, and ``__anext__`` and its like of a generator."""


def task_dump(tasks: Iterable[tuple[Name, str, Any, bool]]) -> tuple[str, ...]:
    """For each task its names, whether it could run, where it stands, and what for; and a line for
    each call that led there. Then, for the pools that they wait for, who holds their memory."""
    lines = []
    waiting: dict[Waiters, dict[int, Name]] = {}
    for name, title, coroutine, ready in sorted(tasks, key=lambda task: task[0]):
        calls, frames, innermost = _where(coroutine)
        state, waits_for = "could run", ""
        if not ready:
            state, waits_for = "waits", _waits_for(frames, innermost)
            for waiters, _, request in _pool_waits(frames):
                if not request.settled:
                    waiting.setdefault(waiters, {})[request.task_id] = name
        at = f" at {calls.pop()}" if calls else ""
        lines.append(f"task {spell(name)} {title!r} {state}{at}{waits_for}")
        lines += [f"  called at {call}" for call in reversed(calls)]
    for waiters, names in waiting.items():
        first, *others = _who_holds(waiters, names)
        lines.append(first)
        lines += [f"  {other}" for other in others]
    return tuple(lines)


def location(coroutine: Any) -> str:
    """Where a task stands, for a story."""
    calls, _, _ = _where(coroutine)
    return calls[-1] if calls else ""


def _where(coroutine: Any) -> tuple[list[str], list[Any], Any]:
    """The lines of the program's own functions, the innermost last; below them the frames of the
    libraries; and below those what has no frame, or None."""
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
        if module.partition(".")[0] not in _LIBRARIES or module.startswith("mbufpools.lab"):
            if not module.startswith("mbufpools.lab._"):
                calls.append(f"{_short(code.co_filename)}:{frame.f_lineno}, in {code.co_qualname}")
                frames.clear()
        else:
            frames.append(frame)
        coroutine = getattr(coroutine, "gi_yieldfrom" if kind == "gi" else f"{kind}_await")
    return calls, frames, coroutine


def _unwrapped(wrapper: Any) -> Any:
    """What it wraps, which no attribute of it tells."""
    inside = (it for it in gc.get_referents(wrapper) if type(it).__name__ in _KINDS)
    return next(inside, wrapper)


def _short(path: str) -> str:
    """A path from where we are, if it is below."""
    here = os.path.join(os.getcwd(), "")
    return path.removeprefix(here)


# What a task waits for


def _waits_for(frames: list[Any], innermost: Any) -> str:
    """What a task waits for, if the libraries' frames tell: the outermost one that does, for a
    primitive is often made of others."""
    for _, line, _ in _pool_waits(frames):
        return (
            f", for {line.what}: nobody has served it (a release, a page that leaves, a raised "
            f"limit and the wakeup task would)"
        )
    for at, frame in enumerate(frames):
        primitive = _primitive(frame, frames[at + 1 :])
        if primitive:
            return f", for {primitive}"
    asleep = any(frame.f_code.co_name.startswith("sleep") for frame in frames)
    if type(innermost).__name__ == "FutureIter" and not asleep:
        return f", for {_UNFINISHED}"
    return ""


def _pool_waits(frames: list[Any]) -> Iterator[tuple[Waiters, WaitQueue, Request[Any]]]:
    """The wait for pools of this library, if it is one."""
    for frame in frames:
        this, line, request = map(frame.f_locals.get, ("self", "queue", "request"))
        if (
            isinstance(this, Waiters)
            and isinstance(line, WaitQueue)
            and isinstance(request, Request)
        ):
            yield this, line, request


def _primitive(frame: Any, inner: list[Any]) -> str:
    """What a frame of a library waits for, if it can be told; `inner` are those below it."""
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
            return f"{library}'s Lock: release() was never called since"
        if name == "Barrier":
            return f"{library}'s Barrier: {this.n_waiting} of {this.parties} have called wait()"
        if f"{name}.{function}" == "Queue.join":
            return f"{library}'s {kind}: task_done() was not called for every item"
        if f"{name}.{function}" in _OTHERS:
            return _OTHERS[f"{name}.{function}"]
        notifier = _NOTIFIERS.get(f"{name}.{function}") or _NOTIFIERS.get(name)
        if notifier is not None:
            return f"{library}'s {kind}: {notifier} was never called since"
    return ""


def _is_told_below(function: str, inner: list[Any]) -> bool:
    """True if the lock of a condition is being acquired, at first or again at the end of a wait; or
    a barrier lets no one in until those have left whom it let through."""
    functions = [function, *(frame.f_code.co_name for frame in inner)]
    return not {"acquire", "__aenter__", "_block"}.isdisjoint(functions)


def _has_moved_to_the_lock(inner: list[Any]) -> bool:
    """True if it sleeps in a lot that it was moved away from: trio's notify() puts it among those
    who wait for the lock, and no frame tells."""
    for frame in inner:
        lot, task = frame.f_locals.get("self"), frame.f_locals.get("task")
        if type(lot).__name__ == "ParkingLot" and task is not None:
            return task.custom_sleep_data is not lot
    return False


# Who holds the memory


def _who_holds(waiters: Waiters, names: dict[int, Name]) -> Iterator[str]:
    """What is allocated, in which pools, and in debug mode by whom; `names` are those of the tasks
    that wait, by their ids.

    It leaves out what `explain` says of each who waits. For how long, and as which number, would
    make one failure look like several.
    """
    state = waiters._state
    explained = explain(state, waiters, wakeup=False)
    text = str(explained).splitlines()
    _, _, allocated = text[0].partition("; ")
    yield f"{state.owner_loop.name}: {allocated}"
    for pool in waiters._pools:
        it = pool.statistics()
        if it.npages:
            most = "" if it.hard_limit is None else f" of at most {it.hard_limit}"
            yield (
                f"pool {it.name!r}: {it.npages * it.page_size} bytes of pages, "
                f"{it.nout} items out{most}, {it.npages * it.items_per_page - it.nout} free"
            )
    if explained.exported:
        yield text[1]
    holders = state.tracker.holders() if state.tracker is not None else []
    for holder, count in Counter(
        sorted(
            (replace(holder, where=_short(holder.where)) for holder in holders),
            key=lambda it: (it.task, names.get(it.task_id, ()), it.pool, it.nbytes, it.where),
        )
    ).items():
        name = names.get(holder.task_id)
        waits = f", which waits itself (task {spell(name)})" if name is not None else ""
        yield f"held: {f'{count} x ' if count > 1 else ''}{holder}{waits}"
    if explained.stuck or (explained.allocated and not explained.debug):
        yield text[-1]
