"""Records what each step touches, for partial-order reduction.

A resource is named by the task that created it and a per-task counter, so its name is the same in
every schedule; an address would not be. What is made between two executions, such as the variables
of a module that is executed again, belongs to the main task. An object that is older than the
exploration is named by its index in a table that all executions share.

The primitives of asyncio, anyio and trio have no code for the lab, nor has a library that has
hooks. While the lab explores by ``dpor``, the attributes that hold their state are replaced by
descriptors that record each access: `_library_state.STATE` and the libraries' hooks list these
attributes. So a primitive declares exactly what it touches, before *and* after it has waited. A
program declares its own state with `Shared`.

Invariant: outside of `declaring` no class is changed and nothing is recorded.
"""

from __future__ import annotations

import copy
import sys
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from typing import Any, Generic, Self, TypeVar

from ._hooks import states
from ._library_state import NAMING, STATE
from ._steps import MAIN, Accesses, Name, Resource

__all__ = ["Recorder", "Shared", "declaring", "recorder"]

T = TypeVar("T")


class _Kept(weakref.ref[Any]):
    """A weak reference to an object that has a name, and its address."""

    __slots__ = ("key",)
    key: int


class Recorder:
    """Records the accesses of the current step, and names the resources."""

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
        """Objects that are older than the exploration, and their names, by address."""
        self.active = False
        self.task_name: Callable[[Any], Name | None] = lambda task: None
        """Returns the lab's name of a task, or None for a task that the lab does not steer. The
        backend sets it."""
        self.restart()

    def restart(self) -> None:
        """Forget all of the last execution, because another one begins. What is made before its
        first step, as by ``reset=`` and ``fresh=``, has the same name in each."""
        self.task: Name = MAIN
        self.accesses: Accesses = {}
        self._names: dict[int, Resource] = {}
        self._counts: defaultdict[tuple[Name, str], Iterator[int]] = defaultdict(count)
        self._kept: dict[int, object] = {}
        """For each object that has a name, by address: a weak reference to it, so that it lives no
        longer than without the recorder; or itself, if there can be none."""

    def made(self, thing: object, kind: str = "") -> Resource:
        """Name an object that the current task has just made, and return the name."""
        key = id(thing)
        name = self._names[key] = (self.task, kind, next(self._counts[self.task, kind]))
        try:
            kept = _Kept(thing, self._has_gone)
            kept.key = key
            self._kept[key] = kept
        except TypeError:  # it cannot be referred to weakly, and its address could be used again
            self._kept[key] = thing
        return name

    def _has_gone(self, kept: Any) -> None:
        """Forget the name of an object that is no more; its address may be used again."""
        key = kept.key
        if self._kept.get(key) is kept:
            del self._kept[key], self._names[key]

    def name(self, thing: object) -> Resource:
        """Return the name of an object; an object that has none is older than the exploration."""
        key = id(thing)
        name = self._names.get(key)
        if name is None:
            preexisting = self._preexisting.get(key)
            if preexisting is None:
                preexisting = thing, ("before", len(self._preexisting))
                self._preexisting[key] = preexisting
            name = preexisting[1]
        return name

    def forget(self) -> None:
        """Give later accesses to no step, because the program is being torn down."""
        self.accesses = {}

    def let_go(self) -> None:
        """Keep no object any longer, because the execution is over and its leaks are looked for."""
        self.accesses = {}
        self._kept = {}

    @contextmanager
    def elsewhere(self) -> Iterator[None]:
        """Keep accesses inside the ``with`` block out of the current step."""
        accesses, self.accesses = self.accesses, {}
        yield
        self.accesses = accesses

    def touch(self, resource: Resource, write: bool) -> None:
        """Record that the current step reads or writes a resource."""
        if write:
            self.accesses[resource] = True
        else:
            self.accesses.setdefault(resource, False)

    # Both are `touch` and `name`, without their calls.

    def read(self, thing: object) -> None:
        """Record that the current step reads an object."""
        self.accesses.setdefault(self._names.get(id(thing)) or self.name(thing), False)

    def write(self, thing: object) -> None:
        """Record that the current step writes an object."""
        self.accesses[self._names.get(id(thing)) or self.name(thing)] = True


recorder = Recorder()
"""The only recorder of the process. It records while `declaring` is entered."""


class Shared(Generic[T]):
    """A value that several tasks share, whose accesses the lab can see.

    ``shared.value`` reads, ``shared.value = x`` writes, and ``shared.update(f)`` does both in one
    step. ``repr(shared)`` and a copy of it read, too; the copy is a value of its own. None of them
    blocks or is a checkpoint. Outside of an exploration, `Shared` only holds the value.

    A change *in place*, such as ``shared.value.append(x)``, counts only as a read, so ``dpor`` can
    miss its effect. Use ``shared.update(lambda it: [*it, x])`` instead.

    Args:
        value: the first value.
    """

    __slots__ = ("__weakref__", "_value")

    def __new__(cls, *_args: Any, **_options: Any) -> Self:
        shared = super().__new__(cls)
        if recorder.active:
            recorder.made(shared)  # a copy, too, which is made without `__init__`
        return shared

    def __init__(self, value: T) -> None:
        self._value = value

    def __getstate__(self) -> object:
        """Return what a copy is made of; it is a read."""
        self._read()
        return super().__getstate__()

    def _read(self) -> None:
        if recorder.active:
            recorder.read(self)

    @property
    def value(self) -> T:
        """The current value. To get it is a read, to set it is a write."""
        if recorder.active:
            recorder.read(self)
        return self._value

    @value.setter
    def value(self, value: T) -> None:
        if recorder.active:
            recorder.write(self)
        self._value = value

    def update(self, function: Callable[[T], T]) -> T:
        """Replace the value by ``function(value)``, and return the new value.

        If the function raises, the value stays as it was and the exception is passed on.
        """
        if recorder.active:
            recorder.write(self)
        self._value = function(self._value)
        return self._value

    def __repr__(self) -> str:
        self._read()
        return f"Shared({self._value!r})"


_reconstruct: Any = vars(copy)["_reconstruct"]


def _reconstruct_named(
    original: Any, memo: Any, make: Any, args: Any, *rest: Any, **by: Any
) -> Any:
    """Copy an object as `copy` does. Name the copy of an object whose state is declared, since no
    constructor does; to copy it is a read."""

    def make_named(*args: Any) -> Any:
        thing = make(*args)
        if any(
            isinstance(it, _Declared) for cls in type(thing).__mro__ for it in vars(cls).values()
        ):
            recorder.made(thing, "copy")
            recorder.read(original)
        return thing

    return _reconstruct(original, memo, make_named, args, *rest, **by)


_ABSENT = object()


class _Declared:
    """A data descriptor that replaces an attribute of a class and records each access."""

    def __init__(self, attribute: str, changed: bool, slot: Any) -> None:
        self._attribute = attribute
        self._changed = changed
        self._slot = slot
        """What it replaces: the descriptor of a slot, or the class's own value, or `_ABSENT`."""
        self._has_slot = hasattr(slot, "__set__")
        if self._has_slot:
            self._get: Any = slot.__get__
            self._set: Any = slot.__set__

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self._slot
        # `recorder.read` and `recorder.write`, without their calls
        name = recorder._names.get(id(instance)) or recorder.name(instance)
        if self._changed:
            recorder.accesses[name] = True
        else:
            recorder.accesses.setdefault(name, False)
        if self._has_slot:
            return self._get(instance, owner)
        try:
            return instance.__dict__[self._attribute]
        except KeyError:
            if self._slot is not _ABSENT:
                return self._slot
            raise AttributeError(self._attribute) from None

    def __set__(self, instance: Any, value: Any) -> None:
        name = recorder._names.get(id(instance)) or self._name_if_new(instance)
        recorder.accesses[name] = True
        if self._has_slot:
            self._set(instance, value)
        else:
            instance.__dict__[self._attribute] = value

    def __delete__(self, instance: Any) -> None:
        recorder.write(instance)
        if self._has_slot:
            self._slot.__delete__(instance)
        else:
            instance.__dict__.pop(self._attribute, None)

    def _name_if_new(self, instance: Any) -> Resource:
        """Name an object whose attribute is set, as one that the current task makes if that is the
        first time."""
        if self._has_slot:
            try:
                self._get(instance, type(instance))
            except AttributeError:
                return recorder.made(instance)
        elif self._attribute not in instance.__dict__:
            return recorder.made(instance)
        return recorder.name(instance)


class _Naming:
    """A descriptor for an attribute that is set once, when an object is made, and names the object.

    It has no ``__get__``, so that to read the attribute costs nothing.
    """

    def __init__(self, attribute: str) -> None:
        self._attribute = attribute

    def __set__(self, instance: Any, value: Any) -> None:
        if self._attribute not in instance.__dict__:
            recorder.made(instance)
        instance.__dict__[self._attribute] = value

    def __delete__(self, instance: Any) -> None:
        del instance.__dict__[self._attribute]


def _naming() -> Iterator[tuple[Any, str]]:
    """Yield each loaded class with the attribute that names its objects."""
    for module, attributes in NAMING.items():
        for class_name, attribute in attributes.items():
            cls = getattr(sys.modules.get(module), class_name, None)
            if cls is not None and attribute not in cls.__dict__ and "__dict__" in dir(cls):
                yield cls, attribute


def _all_state() -> Iterator[tuple[str, Mapping[str, Mapping[str, bool]]]]:
    """Yield each module with its classes, of the primitives and of every library with hooks."""
    for state in (STATE, *states()):
        yield from state.items()


@contextmanager
def declaring() -> Iterator[None]:
    """Make the loaded primitives declare what they touch; a nested call changes nothing."""
    if recorder.active:
        yield
        return
    replaced: list[tuple[Any, str, Any]] = []
    try:
        for module, classes in _all_state():
            if module not in sys.modules:
                continue
            for class_name, attributes in classes.items():
                cls: Any = getattr(sys.modules[module], class_name, None)
                for attribute, changed in attributes.items() if cls is not None else ():
                    slot = cls.__dict__.get(attribute, _ABSENT)
                    if slot is _ABSENT and "__dict__" not in dir(cls):
                        continue  # this release keeps its state elsewhere
                    setattr(cls, attribute, _Declared(attribute, changed, slot))
                    replaced.append((cls, attribute, slot))
        for cls, attribute in _naming():
            setattr(cls, attribute, _Naming(attribute))
            replaced.append((cls, attribute, _ABSENT))
        vars(copy)["_reconstruct"] = _reconstruct_named
        recorder.active = True
        yield
    finally:
        recorder.active = False
        vars(copy)["_reconstruct"] = _reconstruct
        recorder.restart()
        recorder._preexisting.clear()
        for cls, attribute, slot in replaced:
            if slot is _ABSENT:
                delattr(cls, attribute)
            else:
                setattr(cls, attribute, slot)
