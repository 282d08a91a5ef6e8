"""Sets of tasks, threads and generators, walked in the order in which they were filled.

`asyncio.as_completed` and `asyncio.wait` put the tasks that they are given into a set, and anyio's
scopes keep theirs in one. So do an executor with its threads, `concurrent.futures.as_completed`
with what it is given, and an event loop with the async generators that are open. A set is walked by
address, so a program would not do the same in two executions of one schedule.
"""

from __future__ import annotations

import asyncio
import concurrent.futures.thread
from collections.abc import Iterable, Iterator, MutableSet
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import anyio._backends._asyncio

from ._outcome import refuse
from ._running import inside

__all__ = ["WITHOUT_ORDER", "Members", "OpenGenerators", "sets_in_order"]


_END: Any = object()
_NOT_TAKEN: Any = NotImplemented


class _InOrder(set[Any]):
    """A set that is walked in the order in which it was filled; else it does what a set does.

    An item that has left it is kept alive no longer. Its copies, and what its operators make, are
    walked in order, too: the items of the left operand come first.
    """

    # Invariant: between two calls `_order` holds the items of the set, and no others. Each method
    # calls that of `set`, which also says what is wrong with an argument.

    def __init__(self, items: Iterable[Any] = ()) -> None:
        super().__init__()
        self._order: dict[Any, None] = {}
        self.update(items)

    def __iter__(self) -> Iterator[Any]:
        size = len(self)
        for item in [*self._order, _END]:
            if len(self) != size:  # a set says so after its last item, too
                raise RuntimeError("Set changed size during iteration")
            if item is not _END:
                yield item

    def __repr__(self) -> str:
        return f"{{{', '.join(map(repr, self))}}}" if self else "set()"

    def __reduce__(self) -> tuple[Any, ...]:
        return set, (list(self),)

    def add(self, item: Any) -> None:
        super().add(item)
        self._order[item] = None

    def update(self, *others: Iterable[Any]) -> None:
        for other in others:
            for item in list(other):
                self.add(item)

    def discard(self, item: Any) -> None:
        super().discard(item)
        self._drop_one(item)

    def remove(self, item: Any) -> None:
        super().remove(item)
        self._drop_one(item)

    def pop(self) -> Any:
        for item in self._order:
            self.remove(item)
            return item
        raise KeyError("pop from an empty set")

    def clear(self) -> None:
        super().clear()
        self._order.clear()

    def difference_update(self, *others: Iterable[Any]) -> None:
        super().difference_update(*others)
        self._drop()

    def intersection_update(self, *others: Iterable[Any]) -> None:
        super().intersection_update(*others)
        self._drop()

    def symmetric_difference_update(self, other: Iterable[Any]) -> None:
        other = list(other)
        super().symmetric_difference_update(other)
        self._drop()
        self._order.update((item, None) for item in other if item in self)

    def _drop_one(self, item: Any) -> None:
        try:
            self._order.pop(item, None)
        except TypeError:  # a set, which stands for a frozenset that is equal
            self._drop()

    def _drop(self) -> None:
        """Forget the items that have left the set."""
        for item in [item for item in self._order if item not in self]:
            del self._order[item]

    def copy(self) -> _InOrder:
        return _InOrder(self)

    __copy__ = copy

    def union(self, *others: Iterable[Any]) -> _InOrder:
        made = self.copy()
        made.update(*others)
        return made

    def difference(self, *others: Iterable[Any]) -> _InOrder:
        made = self.copy()
        made.difference_update(*others)
        return made

    def intersection(self, *others: Iterable[Any]) -> _InOrder:
        made = self.copy()
        made.intersection_update(*others)
        return made

    def symmetric_difference(self, other: Iterable[Any]) -> _InOrder:
        made = self.copy()
        made.symmetric_difference_update(other)
        return made


def _operators(method: str) -> tuple[Any, Any, Any]:
    """Return the operator, the one with the operands in the opposite order, and the one in place
    that do what a method does; they take sets alone."""

    def operator(left: Any, right: Any) -> Any:
        return getattr(left, method)(right) if isinstance(right, (set, frozenset)) else _NOT_TAKEN

    def opposite(right: Any, left: Any) -> Any:
        return getattr(_InOrder(left), method)(right) if isinstance(left, set) else _NOT_TAKEN

    def in_place(left: Any, right: Any) -> Any:
        if not isinstance(right, (set, frozenset)):
            return _NOT_TAKEN
        getattr(left, "update" if method == "union" else f"{method}_update")(right)
        return left

    return operator, opposite, in_place


for _name, _method in (
    ("or", "union"),
    ("sub", "difference"),
    ("and", "intersection"),
    ("xor", "symmetric_difference"),
):
    for _prefix, _function in zip(("", "r", "i"), _operators(_method), strict=True):
        setattr(_InOrder, f"__{_prefix}{_name}__", _function)


class Members(MutableSet[Any], dict[Any, None]):  # type: ignore[misc]  # a dict is no Set
    """The same for the sets that scopes and task groups keep for themselves.

    No program is given one, so it need not be a `set`. The keys of a dict are in order, and its
    methods are written in C. That saves time: every scope makes two of these sets.
    """

    __slots__ = ()

    def __init__(self, items: Iterable[Any] = ()) -> None:
        if items:
            self.update(dict.fromkeys(items))

    __contains__ = dict.__contains__
    __iter__ = dict.__iter__
    __len__ = dict.__len__
    add = dict.setdefault  # its default is None
    remove = dict.__delitem__
    clear = dict.clear

    def discard(self, item: Any) -> None:
        dict.pop(self, item, None)


class OpenGenerators(WeakKeyDictionary[Any, None]):
    """The async generators that are open, in the order in which they were begun.

    It stands for a `WeakSet` of asyncio or trio, which is walked by address.
    """

    def add(self, generator: Any) -> None:
        """Note that a generator was begun."""
        self[generator] = None

    def discard(self, generator: Any) -> None:
        """Note that a generator is over."""
        self.pop(generator, None)


_as_completed: Any = asyncio.as_completed
_task: Any = asyncio.Task


def _as_completed_in_order(fs: Any, **options: Any) -> Any:
    """Refuse what `asyncio.as_completed` would give in the order of addresses: several futures that
    are done already, and that are no tasks, which have an order under the lab."""
    if inside() and not asyncio.isfuture(fs) and not asyncio.iscoroutine(fs):
        fs = list(fs)
        done = {
            id(it) for it in fs if asyncio.isfuture(it) and it.done() and not isinstance(it, _task)
        }
        if len(done) > 1:
            raise refuse(
                f"asyncio.as_completed is given {len(done)} futures that are done already. It puts "
                f"them into a set, whose order differs from run to run; give it tasks, or await "
                f"the futures one by one"
            )
    return _as_completed(fs, **options)


WITHOUT_ORDER: list[tuple[Any, str, Any]] = [
    (asyncio, "as_completed", _as_completed_in_order),
    (asyncio.tasks, "as_completed", _as_completed_in_order),
]
"""What is replaced because it walks a set that cannot be put in order."""


@contextmanager
def sets_in_order() -> Iterator[None]:
    """Make asyncio, anyio and executors use ordered sets; a nested call changes nothing."""
    kinds: dict[Any, type] = {
        asyncio.tasks: _InOrder,
        asyncio.taskgroups: Members,
        anyio._backends._asyncio: Members,
        concurrent.futures.thread: Members,
        concurrent.futures._base: _InOrder,
    }
    if any(hasattr(module, "set") for module in kinds):
        yield
        return
    for module, kind in kinds.items():
        module.set = kind
    try:
        yield
    finally:
        for module in kinds:
            del module.set
