"""What a step touches: declared by primitives and by `Shared`, noted while somebody looks.

Resources are named by who made them, and the how-manieth of his it was: the same in every
schedule, which an address is not. What was made before the exploration is named by its place in
a table that lives as long as the exploration.

The primitives of asyncio, anyio and trio, and this library's own state, do not know of the lab.
While it explores by partial-order reduction, the attributes that hold their state are replaced by
descriptors that declare each access: `STATE` says which. So a primitive declares just what it
touches, before *and* after it has waited. Uses `_trace`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from ._hooks import states
from ._library_state import STATE
from ._steps import MAIN, Accesses, Name, Resource

__all__ = ["Recorder", "Shared", "declaring", "recorder"]

T = TypeVar("T")


class Recorder:
    """Takes down the accesses of the current step."""

    __slots__ = (
        "_counts",
        "_kept",
        "_names",
        "_preexisting",
        "accesses",
        "active",
        "task",
        "task_name",
    )

    def __init__(self) -> None:
        self._preexisting: dict[int, tuple[object, Resource]] = {}
        """Things that were there before the exploration."""
        self.active = False
        self.task_name: Callable[[Any], Name | None] = lambda task: None
        """The machine's, to tell the name of a task."""
        self.restart()

    def restart(self) -> None:
        """Another execution begins."""
        self.task: Name = MAIN
        self.accesses: Accesses = {}
        self._names: dict[int, Resource] = {}
        self._counts: dict[tuple[Name, str], int] = {}
        self._kept: list[object] = []

    def made(self, thing: object, kind: str = "") -> Resource:
        """Name a thing that the current task has just made."""
        count = self._counts.get((self.task, kind), 0)
        self._counts[self.task, kind] = count + 1
        name = self._names[id(thing)] = (self.task, kind, count)
        self._kept.append(thing)  # or its address would serve again
        return name

    def name(self, thing: object) -> Resource:
        """The name of a thing."""
        name = self._names.get(id(thing))
        if name is None:
            preexisting = self._preexisting.get(id(thing))
            if preexisting is None:
                preexisting = thing, ("before", len(self._preexisting))
                self._preexisting[id(thing)] = preexisting
            name = preexisting[1]
        return name

    def forget(self) -> None:
        """What is touched from now on belongs to no step: the program is torn down."""
        self.accesses = {}

    @contextmanager
    def elsewhere(self) -> Iterator[None]:
        """What is touched meanwhile does not belong to the current step."""
        accesses, self.accesses = self.accesses, {}
        yield
        self.accesses = accesses

    def touch(self, resource: Resource, write: bool) -> None:
        """The current step reads or writes a resource."""
        if write:
            self.accesses[resource] = True
        else:
            self.accesses.setdefault(resource, False)


recorder = Recorder()
"""The one that notes, while it is active."""


class Shared(Generic[T]):
    """A value that several tasks share, whose accesses the lab can see.

    ``shared.value`` reads, ``shared.value = x`` writes, and ``shared.update(f)`` does both in one
    step. Outside of an exploration it is a plain value. To change a value *in place*, a list say,
    is no access that can be seen: use ``update(lambda it: [*it, x])``.

    Args:
        value: what it holds first.
    """

    __slots__ = ("__weakref__", "_value")

    def __init__(self, value: T) -> None:
        self._value = value
        if recorder.active:
            recorder.made(self)

    @property
    def value(self) -> T:
        """What it holds."""
        if recorder.active:
            recorder.touch(recorder.name(self), False)
        return self._value

    @value.setter
    def value(self, value: T) -> None:
        if recorder.active:
            recorder.touch(recorder.name(self), True)
        self._value = value

    def update(self, function: Callable[[T], T]) -> T:
        """Replace the value by ``function(value)``, and return it."""
        if recorder.active:
            recorder.touch(recorder.name(self), True)
        self._value = function(self._value)
        return self._value

    def __repr__(self) -> str:
        return f"Shared({self._value!r})"


_ABSENT = object()


class _Declared:
    """A data descriptor in the place of an attribute."""

    def __init__(self, attribute: str, changed: bool, slot: Any) -> None:
        self._attribute = attribute
        self._changed = changed
        self._slot = slot
        """The descriptor that was there, of a class with slots; or the class's own value."""
        self._has_slot = hasattr(slot, "__set__")

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self._slot
        recorder.touch(recorder.name(instance), self._changed)
        if self._has_slot:
            return self._slot.__get__(instance, owner)
        try:
            return instance.__dict__[self._attribute]
        except KeyError:
            if self._slot is not _ABSENT:
                return self._slot
            raise AttributeError(self._attribute) from None

    def __set__(self, instance: Any, value: Any) -> None:
        if id(instance) not in recorder._names:
            self._name_if_new(instance)
        recorder.touch(recorder.name(instance), True)
        if self._has_slot:
            self._slot.__set__(instance, value)
        else:
            instance.__dict__[self._attribute] = value

    def __delete__(self, instance: Any) -> None:
        recorder.touch(recorder.name(instance), True)
        if self._has_slot:
            self._slot.__delete__(instance)
        else:
            instance.__dict__.pop(self._attribute, None)

    def _name_if_new(self, instance: Any) -> None:
        if self._has_slot:
            try:
                self._slot.__get__(instance, type(instance))
            except AttributeError:
                recorder.made(instance)
        elif self._attribute not in instance.__dict__:
            recorder.made(instance)


def _all_state() -> Iterator[tuple[str, Mapping[str, Mapping[str, bool]]]]:
    """Yield module and classes, of the primitives and of every library that has hooks."""
    for state in (STATE, *states()):
        yield from state.items()


@contextmanager
def declaring() -> Iterator[None]:
    """Have the primitives that are loaded declare what they touch; inside another, no more."""
    if recorder.active:
        yield
        return
    put: list[tuple[Any, str, Any]] = []
    try:
        for module, classes in _all_state():
            if module not in sys.modules:
                continue
            for class_name, attributes in classes.items():
                cls: Any = getattr(sys.modules[module], class_name, None)
                for attribute, changed in attributes.items() if cls is not None else ():
                    slot = cls.__dict__.get(attribute, _ABSENT)
                    if slot is _ABSENT and "__dict__" not in dir(cls):
                        continue  # this version keeps its state elsewhere
                    setattr(cls, attribute, _Declared(attribute, changed, slot))
                    put.append((cls, attribute, slot))
        recorder.active = True
        yield
    finally:
        recorder.active = False
        recorder.restart()
        for cls, attribute, slot in put:
            if slot is _ABSENT:
                delattr(cls, attribute)
            else:
                setattr(cls, attribute, slot)
