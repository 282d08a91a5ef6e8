"""Finds the hooks of the libraries that are imported, and asks them all.

`hooks` says what a library may tell. A library is found by the attribute `ATTRIBUTE` of its
top-level package, so the lab needs to import no library by name.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from types import FrameType
from typing import Any

from .hooks import State, Wait

__all__ = ["hooked_packages", "holders", "is_service", "only_ticks", "states", "waits_for"]

ATTRIBUTE = "__lab_hooks__"
"""Holds the name of the hooks module."""

_found: dict[str, Any] = {}
"""The hooks modules, by the package that names them."""
_modules_seen = 0


def _hooks() -> Iterable[Any]:
    """Return the hooks of every library that is imported now."""
    global _modules_seen
    if len(sys.modules) != _modules_seen:
        for name, package in list(sys.modules.items()):
            if "." not in name and name not in _found:
                module = getattr(package, "__dict__", {}).get(ATTRIBUTE)
                if module is not None:
                    _found[name] = importlib.import_module(module)
        _modules_seen = len(sys.modules)
    return _found.values()


def hooked_packages() -> Iterable[str]:
    """Return the packages that have hooks: their frames are a library's, not the program's."""
    _hooks()
    return _found.keys()


def states() -> Iterator[State]:
    """Yield the shared state that each library declares."""
    for hooks in _hooks():
        yield getattr(hooks, "STATE", {})


def is_service(name: str) -> bool:
    """Return True if a library says that a task of this name is a service of it."""
    for hooks in _hooks():
        asked = getattr(hooks, "is_service", None)
        if asked is not None and asked(name):
            return True
    return False


def only_ticks(name: str, coroutine: Any) -> bool:
    """Return True if the library of a service says that it has nothing to do but tick."""
    return any(
        _ask(hooks, "is_service", name) and _ask(hooks, "only_ticks", coroutine)
        for hooks in _hooks()
    )


def waits_for(frame: FrameType) -> tuple[Any, Wait] | None:
    """Return the hooks that know what a frame waits for, and what it is; None if none knows."""
    for hooks in _hooks():
        wait = _ask(hooks, "waits_for", frame)
        if wait is not None:
            return hooks, wait
    return None


def holders(hooks: Any, resource: Any, names: Mapping[int, str]) -> list[str]:
    """Return what a library says of the holders of a resource."""
    return list(_ask(hooks, "holders", resource, names) or ())


def _ask(hooks: Any, name: str, *arguments: Any) -> Any:
    """Call one of the hooks; return None where the library has none of that name."""
    hook = getattr(hooks, name, None)
    return None if hook is None else hook(*arguments)
