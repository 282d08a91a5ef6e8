"""Makes asyncio walk its sets of tasks in the order in which they were filled.

`asyncio.as_completed` and `asyncio.wait` put the tasks that they get into a set. A set is walked in
an order that depends on addresses, so two runs of the same schedule could differ. While the lab
executes, `asyncio.tasks` makes sets that remember their order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

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

    def __iter__(self) -> Iterator[Any]:
        yield from [item for item in self._order if item in self]
        yield from [item for item in super().__iter__() if item not in self._order]

    def pop(self) -> Any:
        for item in self:
            self.remove(item)
            return item
        raise KeyError("pop from an empty set")


@contextmanager
def sets_in_order() -> Iterator[None]:
    """Make `asyncio.tasks` use ordered sets; a nested call changes nothing."""
    tasks: Any = asyncio.tasks
    if hasattr(tasks, "set"):
        yield
        return
    tasks.set = _InOrder
    try:
        yield
    finally:
        del tasks.set
