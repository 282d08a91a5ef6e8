"""Sets of tasks of asyncio and anyio, walked in the order in which they were filled.

`asyncio.as_completed` and `asyncio.wait` put the tasks that they are given into a set, and anyio's
scopes keep theirs in one. A set is walked by address, so a program would not do the same in two
executions of one schedule.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, MutableSet
from contextlib import contextmanager
from typing import Any

import anyio._backends._asyncio

__all__ = ["sets_in_order"]


class _InOrder(set[Any]):
    """A set that is walked in the order of its `add` calls.

    An item that came by another way, such as ``|=``, comes last.
    """

    def __init__(self, items: Iterable[Any] = ()) -> None:
        super().__init__()
        self._order: dict[Any, None] = {}
        for item in items:
            self.add(item)

    def add(self, item: Any) -> None:
        super().add(item)
        self._order[item] = None

    def discard(self, item: Any) -> None:
        super().discard(item)
        self._order.pop(item, None)

    def remove(self, item: Any) -> None:
        super().remove(item)
        self._order.pop(item, None)

    def __iter__(self) -> Iterator[Any]:
        size = len(self)
        items = [item for item in self._order if item in self]
        items += [item for item in super().__iter__() if item not in self._order]
        for item in items:
            if len(self) != size:
                raise RuntimeError("Set changed size during iteration")
            yield item

    def pop(self) -> Any:
        for item in self:
            self.remove(item)
            return item
        raise KeyError("pop from an empty set")


class _Members(MutableSet[Any], dict[Any, None]):  # type: ignore[misc]  # a dict is no Set
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


@contextmanager
def sets_in_order() -> Iterator[None]:
    """Make asyncio and anyio use ordered sets; a nested call changes nothing."""
    kinds: dict[Any, type] = {
        asyncio.tasks: _InOrder,
        asyncio.taskgroups: _Members,
        anyio._backends._asyncio: _Members,
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
