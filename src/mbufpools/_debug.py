"""Debug mode: which task holds which lease and where it took it, and the detection of writes after
a release.

The holder is noted when the lease is made. For a parked request the holder is the task that
parked, not the task that grants. If another task enters the ``with`` of the lease, such as a worker
that got it from a queue, that task is the holder from then on. A connection of `mbufpools.net`
notes what it has read ahead, and what it sends: no task has to release that.

The id of a task is unique only until the task has ended: a later task may get the same one. So the
tracker keeps a weak reference to the task that holds a lease. A holder whose task has ended is
returned without its id.

Free items are filled with a pattern, which is checked when they are handed out again (the kernel's
``pool_debug`` and its poison).
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Hashable
from functools import cache
from typing import Any, NamedTuple

from ._log import logger
from ._owner_loop import OwnerLoop
from ._page import Item, Page
from ._request import Request
from ._waits import has_ended, name_of

__all__ = ["Holder", "LeaseTracker", "advice", "caller", "who_held"]

POISON = 0xDF
"""The byte that free items are filled with."""


class Holder(NamedTuple):
    """Who holds, or held, a lease: a task, or a connection.

    Attributes:
        pool: The pool's name, or ``bytes``.
        nbytes: Bytes that were asked for.
        task: The name of the task that took the lease, or of the last one that has entered its
            ``with``; empty if no task took it.
        task_id: The task's number, as `anyio.get_current_task` tells it; 0 if no task took the
            lease, none has to release it, or the task has ended: a later task may have the same
            number.
        where: File and line of the call, or of that ``with``, outside of this library; empty if a
            connection has read ahead.
        connection: What a connection does with the buffer, such as ``being sent to
            127.0.0.1:5123``. It releases the buffer, and no task does. Empty for every other lease.
        ended: True if that task had ended when this was told, while the lease was still out. Who
            has it now is not known.
    """

    pool: str
    nbytes: int
    task: str
    task_id: int
    where: str
    connection: str = ""
    ended: bool = False

    def __str__(self) -> str:
        what = f" of pool {self.pool!r}" if self.pool != "bytes" else ", reserved"
        by = f" by task {self.task!r}" if self.task else " by a callback outside of any task"
        at = f"{by} at {self.where}" if self.where else ""
        connection = f", {self.connection}" if self.connection else ""
        ended = ", which has ended" if self.ended else ""
        return f"{self.nbytes} bytes{what}{at}{connection}{ended}"


class _Noted:
    """The holder of one lease. It is changed in place, so that a change brings back no lease that
    another thread has released meanwhile."""

    __slots__ = ("holder", "task")

    def __init__(self, holder: Holder, task: Any) -> None:
        self.set(holder, task)

    def set(self, holder: Holder, task: Any) -> None:
        """Note the holder, and its task; None if no task has to release the lease."""
        self.holder: Holder = holder
        self.task: weakref.ref[Any] | None = None if task is None else weakref.ref(task)

    def is_held_by(self, task: Any) -> bool:
        """Return True if it is this task that has to release the lease."""
        return self.task is not None and self.task() is task

    def now(self) -> Holder:
        """Return the holder, without its id if its task has ended."""
        if self.task is None:
            return self.holder
        task = self.task()
        if task is not None and not has_ended(task):
            return self.holder
        return self.holder._replace(task_id=0, ended=True)


class LeaseTracker:
    """The holders of all leases of one pool set, and the pattern in its free items. `owner_loop`
    is that of the set."""

    def __init__(self, owner_loop: OwnerLoop) -> None:
        self._owner_loop = owner_loop
        self._noted: dict[Hashable, _Noted] = {}
        """By what is held: the page and the number of an item, or the number of a claim. Leases
        come back from other threads and from ``__del__``, so this is a plain dictionary, each call
        of which is atomic."""
        self.damages: list[str] = []
        """Descriptions of the items that were written to while they were free."""

    def acquired(
        self, held: Hashable, pool: str, nbytes: int, request: Request[Any] | None
    ) -> None:
        """Note which task took `held`: the task of `request`, or the current one."""
        if request is not None and request.task is not None:
            task, where = request.task, request.where
        else:
            task, where = self._owner_loop.waits.current_task(), caller()
        self._noted[held] = _Noted(_holder(task, pool, nbytes, where), task)

    def entered(self, held: Hashable) -> None:
        """Note that the running task has entered the ``with`` of `held`: it is the holder."""
        noted = self._noted.get(held)
        task = self._owner_loop.waits.current_task()
        if noted is None or task is None or noted.is_held_by(task) or noted.holder.connection:
            return
        noted.set(_holder(task, noted.holder.pool, noted.holder.nbytes, caller()), task)

    def passed_on(self, held: Hashable, connection: str, *, read_ahead: bool = False) -> None:
        """Note that a connection holds `held` from now on, and what it does with it. It has
        `read_ahead` for no task; else the task that took the lease has given it to be sent."""
        noted = self._noted.get(held)
        if noted is not None:
            holder = noted.holder._replace(task_id=0, connection=connection)
            if read_ahead:
                holder = holder._replace(task="", where="")
            noted.set(holder, None)

    def released(self, held: Hashable) -> Holder | None:
        """Forget the holder of `held`, and return it as it was when it took the lease."""
        noted = self._noted.pop(held, None)
        return None if noted is None else noted.holder

    def holder_of(self, item: Item) -> Holder | None:
        """The holder of `item`, as it was when it took the lease."""
        noted = self._noted.get((item.page, item.index))
        return None if noted is None else noted.holder

    def holders(self) -> list[Holder]:
        """The holders of all leases that are out."""
        return [noted.now() for noted in list(self._noted.values())]

    def held(self) -> list[tuple[Any, Holder]]:
        """What is held, and by which task: the page and the number of an item, or the number of a
        claim."""
        return [(held, noted.now()) for held, noted in list(self._noted.items())]

    def poison(self, item: Item, stride: int) -> None:
        """Fill an item that comes home with the pattern, and note who held it last."""
        page, index = item.page, item.index
        holder = self.released((page, index))
        view = page.block.view
        if view is not None:
            view[index * stride : (index + 1) * stride] = _pattern(stride)
            if holder is not None:  # else the item was lost before its lease was made
                page.last_holders[index] = holder

    def poison_page(self, page: Page, stride: int) -> None:
        """Fill all items of a new page."""
        page.last_holders = {}
        if page.block.view is not None:
            page.block.view[: page.items * stride] = _pattern(stride) * page.items

    def examine(self, item: Item, stride: int, pool: str) -> None:
        """Note and log the damage if a free item does not have the pattern."""
        damage = self.damage(item, stride, pool)
        if damage is not None:
            self.damages.append(damage)
            logger().error("%s", damage)

    def damage(self, item: Item, stride: int, pool: str) -> str | None:
        """Return a description of what was written to a free item, or None if nothing was."""
        view = item.page.block.view
        if view is None:
            return None
        found = view[item.index * stride : (item.index + 1) * stride]
        if _pattern(stride).startswith(found):  # compares in C, and makes no copy, as `==` would
            return None
        start = stride - len(bytes(found).lstrip(bytes([POISON])))
        last = item.page.last_holders.get(item.index)
        return (
            f"an item of pool {pool!r} was written to after its release, from its byte "
            f"{start} on; it was last held as {last or 'something unknown'}"
        )


def _holder(task: Any, pool: str, nbytes: int, where: str) -> Holder:
    if task is None:
        return Holder(pool, nbytes, "", 0, where)
    return Holder(pool, nbytes, name_of(task), id(task), where)


@cache
def _pattern(stride: int) -> bytes:
    """The bytes of a free item. One copy is kept for each pool's stride, so that filling and
    checking an item is a copy and a comparison of memory."""
    return bytes([POISON]) * stride


def advice(tracker: LeaseTracker | None) -> str:
    """Return what the report of a dropped lease says about what to do. The holder is in the log
    alone, because the warning may come in the middle of another call."""
    if tracker is not None:
        return "release each by `with`; the log says which task took it, and where"
    return "release each by `with`; debug=True records which task took it, and where"


def who_held(tracker: LeaseTracker | None, holder: Holder | None) -> str:
    """Return the end of what the log says of a dropped lease: its `holder`, if that is known."""
    if holder is not None:
        return f": {holder}"
    if tracker is not None:
        return "; its holder is not known (an exception may have ended the call that took it)"
    return f"; {advice(None)}"


def caller() -> str:
    """Return the file and the line of the innermost call outside of this library."""
    frame = sys._getframe(1)
    while frame.f_back is not None and _is_passed_over(frame.f_globals.get("__name__", "")):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


@cache
def _is_passed_over(module: str) -> bool:
    """Return True if `caller` goes on to the caller of a function of `module`."""
    package = __name__.partition(".")[0]
    return module == package or module.startswith(
        (f"{package}._", f"{package}.mbufs", f"{package}.net.")
    )
