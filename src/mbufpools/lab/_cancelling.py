"""Records a cancellation as a write to every task that it can reach.

Each step of a task reads whether the task is cancelled (see `_races`). Cancelling a scope is a
write to the scope, and to every task inside it. Entering or leaving a scope is a write to it, too;
spawning a task into its group and looking at it are reads. So partial-order reduction tries a
cancellation before *and* after each step that it can affect. On trio a step that wakes another task
reads that task, too: a cancellation that comes after the wakeup finds no wait to end, and so leaves
no other trace.

A step that asks which tasks a nursery has is taken to *write* to the nursery, and a step that
starts a task there, or ends one, to read. So the starts and the ends do not conflict with each
other, but each of them conflicts with the step that asks.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from anyio._backends._asyncio import _task_states

from ._declare import recorder
from ._steps import Name, Step

__all__ = [
    "declare_cancel",
    "declare_join",
    "declare_member",
    "declare_spawn",
    "declare_spawn_on_trio",
    "declare_wake",
    "declaring_cancellations",
]

_SCOPES = {
    "anyio._backends._asyncio": {"cancel": ("cancel",), "change": ("__enter__", "__exit__")},
    "trio._core._run": {
        "cancel": ("_cancel",),
        "change": ("__enter__", "_close"),
        "look": ("__repr__",),
    },
}
"""The methods of the scopes, by what they do. A step that enters or leaves a scope changes it."""
_SETTERS = ("shield", "deadline", "relative_deadline")
_GETTERS = ("cancel_called", "cancelled_caught", "is_relative")

_TASK_INFOS = {
    "anyio._backends._asyncio": "AsyncIOTaskInfo",
    "anyio._backends._trio": "TrioTaskInfo",
}

_WAIT: Any = getattr(getattr(asyncio.tasks, "_wait", None), "__code__", None)
"""The code by which `asyncio.wait` waits."""

_declaring = False


def _parts(scope: Any) -> tuple[Any, Any]:
    """Return the tasks and the inner scopes of a scope, of anyio on asyncio or of trio."""
    status = getattr(scope, "_cancel_status", scope)  # trio keeps both in a separate object
    if status is None:  # not entered yet
        return (), ()
    children = getattr(status, "_child_scopes", None)
    return status._tasks, status._children if children is None else children


def _reach(scope: Any) -> None:
    """Record that every task inside a scope is cancelled, or may be."""
    recorder.write(scope)
    pending = [scope]
    while pending:
        tasks, inner = _parts(pending.pop())
        for task in tasks:
            name = recorder.task_name(task)
            if name is not None:
                declare_cancel(task, name)
        pending.extend(inner)


def declare_cancel(task: Any, name: Name) -> None:
    """Record that a step cancels a task. The task may wait until several others have ended, so the
    step conflicts with each of these ends: a cancellation that comes after all of them finds no
    wait. The ends do not conflict with each other."""
    recorder.touch(name, True)
    recorder.touch((name, "children"), True)
    # A task of trio has no such attribute; its nurseries are scopes, see `_reach`.
    coroutine: Any = getattr(task, "_coro", None)
    # Of one that runs, Python 3.11 cannot say what it awaits, and may crash.
    while coroutine is not None and getattr(coroutine, "cr_suspended", False):
        if coroutine.cr_code is _WAIT:
            for other in coroutine.cr_frame.f_locals.get("fs", ()):
                ending = recorder.task_name(other)
                if ending is not None:
                    recorder.touch((ending, "end"), False)
        coroutine = coroutine.cr_await


def declare_join(task: Any, failed: bool) -> None:
    """Record that one of the tasks ends that a task of asyncio waits for, as its group does."""
    name = recorder.task_name(task)
    if name is not None:
        recorder.touch((name, "children"), failed)


def declare_spawn(scope: Any) -> None:
    """Record that a task is spawned into a scope of anyio on asyncio.

    The scope, or one around it, may be cancelled already, so all of them are read.
    """
    while scope is not None:
        recorder.read(scope)
        scope = scope._parent_scope


def declare_spawn_on_trio(status: Any) -> None:
    """Record the same of a scope of trio, which has this status."""
    names, accesses = recorder._names, recorder.accesses
    while status is not None:  # there are many, so this is `recorder.read` without the call
        scope = status._scope
        accesses.setdefault(names.get(id(scope)) or recorder.name(scope), False)
        status = status._parent


def declare_wake(step: Step, woken: Iterable[Name]) -> None:
    """Record that a step on trio has woken these tasks."""
    for name in woken:
        if name != step.task:
            step.accesses.setdefault(name, False)


@contextmanager
def declaring_cancellations() -> Iterator[None]:
    """Make the cancel scopes of the libraries that are loaded declare what they do; a nested call
    changes nothing."""
    global _declaring
    if _declaring:
        yield
        return
    before: list[tuple[Any, str, Any]] = []

    def put(cls: Any, name: str, wrap: Callable[[Any], Any]) -> None:
        original = cls.__dict__.get(name)
        if original is not None:
            before.append((cls, name, original))
            setattr(cls, name, wrap(original))

    look = recorder.read
    _declaring = True
    try:
        for module, methods in _SCOPES.items():
            cls: Any = getattr(sys.modules.get(module), "CancelScope", None)
            if cls is None:
                continue
            put(cls, "__init__", _made)
            for name in methods["cancel"]:
                put(cls, name, lambda function: _first(function, _reach))
            for name in methods["change"]:
                put(cls, name, lambda function: _first(function, recorder.write))
            for name in methods.get("look", ()):
                put(cls, name, lambda function: _first(function, look))
            for name in _SETTERS:
                put(
                    cls,
                    name,
                    lambda it: property(_first(it.fget, look), _first(it.fset, _reach)),
                )
            for name in _GETTERS:
                put(cls, name, lambda it: _looked(it, look))
        group = getattr(sys.modules.get("anyio._backends._asyncio"), "TaskGroup", None)
        if group is not None:
            put(group, "_spawn", lambda it: _first(it, lambda tg: declare_spawn(tg.cancel_scope)))
            put(group, "__aexit__", lambda it: _first(it, _leave))
            for name in ("create_task", "start_soon", "start"):
                put(group, name, lambda it: _first(it, _look_if_left))
        put(
            asyncio.TaskGroup,
            "_on_task_done",
            lambda it: _first(it, lambda tg: declare_join(tg._parent_task, False)),
        )
        for module, name in _TASK_INFOS.items():
            info = getattr(sys.modules.get(module), name, None)
            if info is not None:
                put(info, "__init__", _informed)
                put(info, "has_pending_cancellation", lambda it: _first(it, _look_at_pending))
        run = sys.modules.get("trio._core._run")
        if run is not None:
            nursery, status = vars(run)["Nursery"], vars(run)["_TaskStatus"]
            put(nursery, "_nested_child_finished", lambda it: _first(it, _leave))
            put(nursery, "start_soon", lambda it: _first(it, _look_if_closed))
            put(nursery, "start", lambda it: _first(it, _look_if_closed))
            put(nursery, "child_tasks", lambda it: property(_first(it.fget, _look_at_members)))
            put(status, "started", lambda it: _first(it, _declare_move))
        yield
    finally:
        _declaring = False
        for cls, name, original in reversed(before):
            setattr(cls, name, original)


# Nurseries of trio, and groups of anyio on asyncio


def declare_member(scope: Any) -> None:
    """Record that a task comes into the nursery or the group that has this scope, or leaves it."""
    recorder.touch((*recorder.name(scope), "tasks"), False)


def _declare_move(status: Any) -> None:
    declare_member(vars(status)["_new_nursery"].cancel_scope)


def _leave(group: Any) -> None:
    """Record that the task whose group it is leaves it."""
    declare_member(group.cancel_scope)


def _look_at_members(group: Any) -> None:
    """Record that a step depends on which tasks there are in a group."""
    recorder.touch((*recorder.name(group.cancel_scope), "tasks"), True)


def _look_if_closed(nursery: Any) -> None:
    """Record that a task spawns, for which the nursery may be closed: neither its own task, nor one
    in it. If it is not, the new task keeps it open."""
    run = sys.modules["trio._core._run"]
    task = run.current_task()
    while task is not None and task is not nursery.parent_task:
        if task.parent_nursery is nursery:
            return
        task = None if task.parent_nursery is None else task.parent_nursery.parent_task
    if task is None:
        _look_at_members(nursery)


def _look_if_left(group: Any) -> None:
    """Record the same of a group of anyio on asyncio, and that the task looks at its scope."""
    recorder.read(group.cancel_scope)
    task = asyncio.current_task()
    state = _task_states.get(task) if task is not None else None
    scope = None if state is None else state.cancel_scope
    while scope is not None and scope is not group.cancel_scope:
        scope = scope._parent_scope
    if scope is None:
        _look_at_members(group)


# What anyio tells of tasks


def _informed(function: Any) -> Any:
    """Wrap the constructor of what anyio tells of a task, to remember which task it is."""

    @wraps(function)
    def init(info: Any, task: Any) -> None:
        function(info, task)
        info.lab_name = recorder.task_name(task)

    return init


def _look_at_pending(info: Any) -> None:
    """Record that a step asks whether a task is to be cancelled, which each step of the task may
    change: as if it cancelled the task."""
    if info.lab_name is not None:
        recorder.touch(info.lab_name, True)


# How methods are wrapped


def _made(function: Any) -> Any:
    """Wrap the constructor of a scope, to give each new scope a name."""

    @wraps(function)
    def init(scope: Any, *args: Any, **options: Any) -> None:
        recorder.made(scope, "scope")
        function(scope, *args, **options)

    return init


def _looked(original: Any, look: Callable[[Any], None]) -> Any:
    """Return what replaces a property, or the slot of an attribute: it calls ``look(self)`` before
    each read. To set the attribute stays the same, and costs no call of a function in Python."""
    get = original.__get__

    def look_and_get(_: Any, scope: Any, owner: type | None = None) -> Any:
        if scope is not None:
            look(scope)
        return get(scope, owner)

    return type("Looked", (), {"__get__": look_and_get, "__set__": original.__set__})()


def _first(function: Any, declare: Callable[[Any], None]) -> Any:
    """Wrap a method, so that it first calls ``declare(self)``."""

    @wraps(function)
    def declared(this: Any, *args: Any, **options: Any) -> Any:
        declare(this)
        return function(this, *args, **options)

    return declared
