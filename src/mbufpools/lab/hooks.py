"""What a library may tell the lab about itself.

The lab imports no library that it explores, and looks into none. A library whose tasks, waits and
shared state the lab should know says so in a module of its own, its *hooks*, and names that module
in its top-level package::

    # mylibrary/__init__.py
    __lab_hooks__ = "mylibrary._lab_hooks"

    # mylibrary/_lab_hooks.py
    from mbufpools.lab.hooks import CHANGED, VALUE, Wait

    STATE = {"mylibrary.cache": {"Cache": {"_entries": CHANGED, "_size": VALUE}}}

    def is_service(name):
        return name == "mylibrary worker"

Only the lab imports this module, and only while it explores, so a library pays nothing for it. The
module may define any of the names of `Hooks`, and leaves out the rest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import FrameType
from typing import Any, NamedTuple, Protocol

from ._frames import short_path

__all__ = ["CHANGED", "VALUE", "Hooks", "State", "Wait", "short_path"]

VALUE, CHANGED = False, True
"""How an attribute holds state. `VALUE`: it is read and set. `CHANGED`: it holds an object that is
changed in place, such as a list, so every read of the attribute counts as a write."""

State = Mapping[str, Mapping[str, Mapping[str, bool]]]
"""By module and class, each attribute that tasks share: `VALUE` or `CHANGED`."""


class Wait(NamedTuple):
    """What a parked task waits for."""

    what: str
    """Completes the sentence "the task waits, for ..."."""
    resource: Any = None
    """What is passed to `Hooks.holders`, once for all tasks that wait for it; it must be hashable.
    None if the library has nothing to say of holders."""
    task_id: int = 0
    """How the library knows the waiting task: `Hooks.holders` finds the task's name by it."""


class Hooks(Protocol):
    """The names that a hooks module may define. Each is optional."""

    STATE: State
    """The shared state of the library's classes. Under ``dpor`` each access to one of these
    attributes is recorded. State that is missing here makes ``dpor`` unsound."""

    def is_service(self, name: str) -> bool:
        """Return True if a task of this name is a service of the library, such as a runner that
        lives as long as a pool. The lab chooses when it runs, but never cancels it."""

    def only_ticks(self, coroutine: Any) -> bool:
        """Return True if this service, by its coroutine, has nothing to do but a periodic timer
        that serves no task. A program in which every other task waits has then stalled, although
        the clock could go on for ever."""

    def waits_for(self, frame: FrameType) -> Wait | None:
        """Say what a suspended frame of the library waits for; None if it does not tell."""

    def holders(self, resource: Any, names: Mapping[int, str]) -> Iterable[str]:
        """Say, in one line each, which task holds the resource of a `Wait`. The first line is a
        heading.

        `names` has the lab's names of the tasks that wait for the resource, by `Wait.task_id`. Two
        executions that fail in the same way must give the same lines: leave out addresses, times
        and counters.
        """
