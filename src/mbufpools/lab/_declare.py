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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

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


VALUE, CHANGED = False, True
"""An attribute whose value is read and set; one that holds something that is changed in place,
so that who reads it may write."""

STATE: dict[str, dict[str, dict[str, bool]]] = {
    "asyncio.locks": {
        "Event": {"_value": VALUE},
        "Lock": {"_locked": VALUE, "_waiters": CHANGED},
        "Condition": {"_waiters": CHANGED},
        "Semaphore": {"_value": VALUE, "_waiters": CHANGED},
        "Barrier": {"_state": VALUE, "_count": VALUE},
    },
    "asyncio.queues": {
        "Queue": {
            "_queue": CHANGED,
            "_getters": CHANGED,
            "_putters": CHANGED,
            "_unfinished_tasks": VALUE,
            "_is_shutdown": VALUE,
        },
    },
    "asyncio.taskgroups": {"TaskGroup": {"_aborting": VALUE, "_exiting": VALUE}},
    "anyio._backends._asyncio": {
        "Lock": {"_owner_task": VALUE, "_waiters": CHANGED},
        "Semaphore": {"_value": VALUE, "_waiters": CHANGED},
        "CapacityLimiter": {
            "_total_tokens": VALUE,
            "_borrowers": CHANGED,
            "_wait_queue": CHANGED,
        },
    },
    "anyio._core._synchronization": {
        "Condition": {"_waiters": CHANGED},
        "ResourceGuard": {"_guarded": VALUE},
        # Made outside of an event loop, they make what they stand for when they are first used.
        "EventAdapter": {"_internal_event": CHANGED, "_is_set": VALUE},
        "LockAdapter": {"_internal_lock": CHANGED},
        "SemaphoreAdapter": {"_internal_semaphore": CHANGED},
        "CapacityLimiterAdapter": {"_internal_limiter": CHANGED},
    },
    "anyio.streams.memory": {
        "_MemoryObjectStreamState": {
            "buffer": CHANGED,
            "open_send_channels": VALUE,
            "open_receive_channels": VALUE,
            "waiting_receivers": CHANGED,
            "waiting_senders": CHANGED,
        },
    },
    "trio._sync": {
        "Event": {"_flag": VALUE},
        "CapacityLimiter": {
            "_total_tokens": VALUE,
            "_borrowers": CHANGED,
            "_pending_borrowers": CHANGED,
        },
        "Semaphore": {"_value": VALUE},
        "_LockImpl": {"_owner": VALUE},
    },
    "trio._core._parking_lot": {"ParkingLot": {"_parked": CHANGED}},
    "trio._channel": {
        "MemoryChannelState": {
            "data": CHANGED,
            "open_send_channels": VALUE,
            "open_receive_channels": VALUE,
            "send_tasks": CHANGED,
            "receive_tasks": CHANGED,
        },
    },
    "mbufpools._budget": {
        "Budget": {
            "_allocated": VALUE,
            "_drops": VALUE,
            "_limit": VALUE,
            "_low_memory": VALUE,
            "_peak": VALUE,
        },
    },
    "mbufpools._buffer": {"Buffer": {"_page": VALUE, "_view": VALUE}},
    "mbufpools._bufferpools": {"BufferPools": {"_wakeup_runs": VALUE}},
    "mbufpools._set_state": {
        "SetState": {
            "reserved_min_bytes": VALUE,
            "numbers": CHANGED,
            "quarantine": CHANGED,
            "reservations": VALUE,
            "reserved": VALUE,
        },
    },
    "mbufpools._owner_loop": {"OwnerLoop": {"_state": VALUE, "deferred": CHANGED, "thread": VALUE}},
    "mbufpools._page": {
        "PageLists": {
            "_empty": CHANGED,
            "_full": CHANGED,
            "_partial": CHANGED,
            "curpage": CHANGED,
            "hiwat": VALUE,
            "nout": VALUE,
            "npagealloc": VALUE,
            "npagefree": VALUE,
            "npages": VALUE,
        },
    },
    "mbufpools._pool": {
        "Pool": {
            "_hard_limit": VALUE,
            "_max_idle_pages": VALUE,
            "_min_items": VALUE,
            "_nfail": VALUE,
            "_nget": VALUE,
        },
    },
    "mbufpools._request": {
        "Request": {"error": VALUE, "granted": VALUE},
        "RequestQueue": {"_requests": CHANGED},
    },
    "mbufpools._reservation": {"Reservation": {"_released": VALUE}},
    "mbufpools._taskq": {
        "TaskQueue": {
            "_added": VALUE,
            "_armed": VALUE,
            "_coalesced": VALUE,
            "_discarded": VALUE,
            "_draining": VALUE,
            "_due": CHANGED,
            "_error": VALUE,
            "_queue": CHANGED,
            "_running": VALUE,
            "_runs": VALUE,
            "_timers": CHANGED,
            "_work": VALUE,
        },
    },
    "mbufpools._waiters": {
        "Waiters": {
            "_active": CHANGED,
            "_again": VALUE,
            "_cancellations": VALUE,
            "_debt_pass_limit": VALUE,
            "_grants": VALUE,
            "_histogram": CHANGED,
            "_many_queues": CHANGED,
            "_passes": VALUE,
            "_peak": VALUE,
            "_running": VALUE,
            "_short": CHANGED,
            "_waiting": VALUE,
            "_waits": VALUE,
            "must_queue": VALUE,
        },
    },
}
"""By module and class, the attributes that hold shared state."""


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


@contextmanager
def declaring() -> Iterator[None]:
    """Have the primitives that are loaded declare what they touch; inside another, no more."""
    if recorder.active:
        yield
        return
    put: list[tuple[Any, str, Any]] = []
    try:
        for module, classes in STATE.items():
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
