"""Cancellations declare whom they reach.

A cancellation is an access to every task inside the scope, and each step of a task looks whether it
is cancelled. To enter or leave a scope, to spawn into its group and to look at it are accesses to
the scope. So, under partial-order reduction, a cancellation comes before *and* after each step that
it could meet. Uses `_declare`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from ._declare import recorder

__all__ = ["declare_spawn", "declaring_cancellations"]

_CLASSES = {
    "anyio._backends._asyncio": {"cancel": ("cancel",), "look": ("__enter__", "__exit__")},
    "trio._core._run": {"cancel": ("_cancel",), "look": ("__enter__", "_close")},
}
_SETTERS = ("shield", "deadline")
_GETTERS = ("cancel_called",)

_declaring = False


def _parts(scope: Any) -> tuple[Any, Any]:
    """The tasks and the inner parts of a scope of either library."""
    status = getattr(scope, "_cancel_status", scope)  # trio keeps them in an object of their own
    if status is None:  # not entered yet
        return (), ()
    children = getattr(status, "_child_scopes", None)
    return status._tasks, status._children if children is None else children


def _reach(scope: Any) -> None:
    """Whoever is inside the scope is cancelled, or may be."""
    recorder.touch(recorder.name(scope), True)
    pending = [scope]
    while pending:
        tasks, inner = _parts(pending.pop())
        for task in tasks:
            name = recorder.task_name(task)
            if name is not None:
                recorder.touch((name, "cancel"), True)
        pending.extend(inner)


def declare_spawn(scope: Any) -> None:
    """A task is spawned into a scope, which may be cancelled already; or one around it."""
    while scope is not None:
        recorder.touch(recorder.name(getattr(scope, "_scope", scope)), False)
        scope = getattr(scope, "_parent_scope", None) or getattr(scope, "_parent", None)


@contextmanager
def declaring_cancellations() -> Iterator[None]:
    """Have the scopes of the libraries that are loaded declare what they do; inside another, no
    more."""
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

    _declaring = True
    try:
        for module, methods in _CLASSES.items():
            cls: Any = getattr(sys.modules.get(module), "CancelScope", None)
            if cls is None:
                continue
            put(cls, "__init__", _made)
            for name in methods["cancel"]:
                put(cls, name, lambda function: _first(function, _reach))
            for name in methods["look"]:
                put(cls, name, lambda function: _first(function, _look))
            for name in _SETTERS:
                put(cls, name, lambda it: property(it.fget, _first(it.fset, _reach)))
            for name in _GETTERS:
                put(cls, name, lambda it: property(_first(it.fget, _look)))
        group = getattr(sys.modules.get("anyio._backends._asyncio"), "TaskGroup", None)
        if group is not None:
            put(group, "_spawn", lambda it: _first(it, lambda tg: declare_spawn(tg.cancel_scope)))
        yield
    finally:
        _declaring = False
        for cls, name, original in reversed(before):
            setattr(cls, name, original)


def _look(scope: Any) -> None:
    recorder.touch(recorder.name(scope), False)


def _made(function: Any) -> Any:
    @wraps(function)
    def init(scope: Any, *args: Any, **options: Any) -> None:
        recorder.made(scope, "scope")
        function(scope, *args, **options)

    return init


def _first(function: Any, declare: Callable[[Any], None]) -> Any:
    @wraps(function)
    def declared(this: Any, *args: Any, **options: Any) -> Any:
        declare(this)
        return function(this, *args, **options)

    return declared
