"""The lease on one item.

Every get makes a fresh `Buffer`; none is ever used again, so a stale one can never release the
next owner's item. The lease owns the token of its item. The call that takes the token out of
it, in one step, has released the lease; so two threads cannot both do it.

The pool is known by a protocol, because it imports this module.
"""

from __future__ import annotations

import sys
from typing import Any, NoReturn, Protocol, Self, TypeVar, cast

from ._errors import BufferInUse, DoubleRelease, UsageError, UseAfterRelease
from ._lease import Releasable
from ._page import Item
from ._request import Request
from ._supply import Supply, stack_is_full

__all__ = [
    "Buffer",
    "BufferOwner",
    "Buffers",
    "TrackedBuffer",
    "hold",
    "hold_by_connection",
    "hold_by_task",
    "move",
    "take",
]


A_SEND = "perhaps by a send, which takes its buffers also if it fails"
"""What the errors say of a buffer whose owner may not know that it was released."""


class BufferOwner(Protocol):
    """The pool that a buffer belongs to, which is a `Pool`."""

    name: str
    item_size: int
    page_size: int
    items_per_page: int

    def put(self, buffer: Buffer) -> None:
        """Take `buffer` back."""


class Buffer(Releasable):
    """One item of a pool, held until it is released. Made by the pools' ``get``.

    A context manager that yields itself and releases at the end::

        with await pools.get(1500) as buffer:
            buffer.view[:5] = b"hello"

    If something still exports the view at the end of the block, the item waits in quarantine, and
    comes home by itself when the last export ends. So it is with a buffer that is dropped without
    a release, which is reported with a `ResourceWarning` and in the log.
    """

    __slots__ = ("__weakref__", "_item", "_nbytes", "_pool")

    # The code that makes a buffer sets these attributes: an `__init__` would cost a call for each
    # get.
    _item: Item | None
    _pool: BufferOwner
    _nbytes: int
    """Bytes asked for; 0 stands for the whole item."""

    @property
    def pool(self) -> BufferOwner:
        """The pool that the item belongs to."""
        return self._pool

    @property
    def nbytes(self) -> int:
        """Bytes that were asked for, which is the length of `view`."""
        return self._nbytes or self._pool.item_size

    @property
    def released(self) -> bool:
        """True once the item is no longer held."""
        return self._item is None

    @property
    def view(self) -> memoryview:
        """A writable view of the item's first `nbytes` bytes.

        The release revokes it: its use then raises CPython's ValueError. What was made from it (a
        slice, a cast, an array of NumPy or ctypes, what a transport keeps) exports the item's
        memory: while it lives, no other owner gets the item. ``with buffer.view as view:`` may end
        the view; the next use of this property makes a new one.

        The bytes are what the last owner left.

        Raises:
            UseAfterRelease: the buffer was released.
            UsageError: the pools are a simulation without memory.
        """
        item = self._item
        if item is None:
            raise UseAfterRelease(
                f"this buffer of pool {self._pool.name!r} was released, {A_SEND}; get a new one"
            )
        window = item.window
        if window is None:
            window = _supply(item).window(item, self.nbytes)
        if item.page.shared is None:
            raise UsageError(
                f"pool {self._pool.name!r} only accounts for memory and has none to show; "
                f"make its pools with memory=MappedMemory()"
            )
        return window.view

    def release(self) -> None:
        """Give the item back to its pool; the requests that wait for it are served at once.

        A plain function that never blocks, so it works inside a cancelled scope; and from any
        thread: from another than the loop's, the loop serves the requests. It works after
        the pools were closed, too. Models subr_pool.c:pool_put.

        Raises:
            DoubleRelease: it was released before.
            BufferInUse: something still exports the view. The buffer is still held, and `view`
                makes a new view; release again when the export has ended.
        """
        item, self._item = self._item, None  # one step: the thread that gets the item releases it
        if item is None:
            raise DoubleRelease(
                f"this buffer of pool {self._pool.name!r} was released before, {A_SEND}; "
                f"release each buffer once, best by `with`"
            )
        page = item.page
        supply: Supply = page.lists  # type: ignore[assignment]  # as in _supply
        if item.window is not None:
            if not item.window.revoke():
                self._item = item
                raise BufferInUse(
                    f"a buffer of pool {self._pool.name!r} cannot be released while something "
                    f"still exports its view (a slice, an array, a read into it); end that first"
                )
            supply.clear(item)
        try:  # as Supply.put_home, without its call
            if supply.watched:
                if stack_is_full():
                    self._item = item  # to serve a request takes more calls than are left
                    raise RecursionError("no stack is left to release a buffer; it is still held")
                supply.put_watched(item, self._nbytes)
                return
            free = page.free
            supply.nput += 1; free.append(item)  # noqa: E702 - one step  # fmt: skip
            if len(free) >= page.alarm or supply.watched:
                supply.returned(page, self._nbytes)
        except BaseException:
            supply.state.breaks()
            raise

    def end(self, *exc_info: object) -> None:
        """Give the item back if it is still held; or leave it in quarantine while something
        exports it. The end of a ``with`` block. Never raises because of an export."""
        item, self._item = self._item, None
        if item is not None:
            supply: Supply = item.page.lists  # type: ignore[assignment]  # as in _supply
            if item.window is None:
                supply.put_home(item, self._nbytes)  # one call less for each `with`
            else:
                supply.end_lease(item, self._nbytes)

    __exit__ = end  # a method of its own would be one call more for each `with`

    if sys.version_info >= (3, 12):

        def __buffer__(self, flags: int) -> memoryview:
            """Export the memory, so that the buffer itself can be given to ``recv_into``, `bytes`,
            NumPy and others. What is made in this way counts as made from `view`."""
            return self.view

        def __release_buffer__(self, view: memoryview) -> None:
            """An export has ended. There is nothing to do, but NumPy lets go at once of what
            comes from a type without this method, and would not be seen."""

    else:

        def __bytes__(self) -> bytes:
            """Return a copy of the bytes."""
            return bytes(self.view)

        @property
        def __array_interface__(self) -> NoReturn:
            # NumPy asks for it when it is given an object that exports no buffer. It is a property
            # and no __getattr__, which would make each use of any attribute slower.
            raise TypeError(
                "on Python 3.11 a buffer of mbufpools exports its bytes by its view only; "
                "write buffer.view instead of the buffer"
            )

        __array_struct__ = __array_interface__
        __buffer__: Any = __array_interface__

    def __repr__(self) -> str:
        state = "released" if self._item is None else "held"
        return f"<Buffer of {self.nbytes} bytes from pool {self._pool.name!r}, {state}>"


class TrackedBuffer(Buffer):
    """A buffer of debug mode: the task that enters its ``with`` holds it from then on."""

    __slots__ = ()

    def __enter__(self) -> Self:
        item = self._item
        if item is not None and (tracker := _supply(item).state.tracker) is not None:
            tracker.entered((item.page, item.index))
        return self


def _supply(item: Item) -> Supply:
    return cast(Supply, item.page.lists)  # the lists of a pool are a supply


AnyBuffer = TypeVar("AnyBuffer", bound=Buffer)


def hold(
    kind: type[AnyBuffer],
    supply: Supply,
    nbytes: int,
    item: Item,
    request: Request[Any] | None = None,
) -> AnyBuffer:
    """Make the lease of `nbytes` bytes on `item`, which has been taken, for `request` or a
    newcomer."""
    tracker = supply.state.tracker
    if tracker is not None and kind is Buffer:
        kind = cast(type[AnyBuffer], TrackedBuffer)
    buffer = kind()
    buffer._pool = supply.owner
    buffer._nbytes = nbytes
    buffer._item = item
    if tracker is not None:
        tracker.examine(item, supply.stride, supply.name)
        tracker.acquired((item.page, item.index), supply.name, nbytes, request)
    return buffer


def take(supply: Supply, nbytes: int, request: Request[Any] | None = None) -> Buffer:
    """Take an item of the current page, which must exist, for `request` or a newcomer. (The fast
    path of a get does the same in line.)"""
    return hold(Buffer, supply, nbytes, supply.take(), request)


def move(buffer: Buffer, kind: type[AnyBuffer]) -> AnyBuffer | None:
    """Move the item of `buffer` into a new lease, which only the caller knows; return that lease,
    or None if `buffer` was released. From then on `buffer` is released."""
    lease = kind()
    lease._pool, lease._nbytes = buffer._pool, buffer._nbytes
    lease._item, buffer._item = buffer._item, None  # one step, as in Buffer.release
    return None if lease._item is None else lease


def hold_by_connection(buffer: Buffer, doing: str, *, read_ahead: bool = False) -> None:
    """Note in debug mode that a connection holds `buffer`, as `LeaseTracker.passed_on` has it."""
    item = buffer._item
    if item is not None and (tracker := _supply(item).state.tracker) is not None:
        tracker.passed_on((item.page, item.index), doing, read_ahead=read_ahead)


def hold_by_task(buffer: Buffer) -> None:
    """Note in debug mode that the running task holds `buffer`, which a connection has held."""
    item = buffer._item
    if item is not None and (tracker := _supply(item).state.tracker) is not None:
        tracker.acquired((item.page, item.index), buffer._pool.name, buffer.nbytes, None)


class Buffers(Releasable, tuple[Buffer, ...]):
    """The buffers of one `BufferPools.get_many`, in the order in which they were asked for.

    A tuple, and a context manager that yields itself and releases at the end what is still held.
    """

    __slots__ = ()

    @property
    def released(self) -> bool:
        """True once none of them is held any more."""
        return all(buffer.released for buffer in self)

    def release(self) -> None:
        """Release those that are still held. As `Buffer.release`; the first error is raised
        after all others were released."""
        error: Exception | None = None
        for buffer in self:
            if not buffer.released:
                try:
                    buffer.release()
                except BufferInUse as refused:
                    error = error or refused
        if error is not None:
            raise error

    def __enter__(self) -> Self:
        for buffer in self:
            buffer.__enter__()
        return self

    def end(self) -> None:
        """Give all back that are still held, as `Buffer.end`."""
        for buffer in self:
            buffer.end()
