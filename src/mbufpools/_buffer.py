"""The lease on one item.

Every get makes a fresh `Buffer`; none is ever used again, so a stale one can never release the
next owner's item. The pool is known by its methods only.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from ._errors import BufferInUse, DoubleRelease, UsageError, UseAfterRelease
from ._lease import Lease, Releasable

if TYPE_CHECKING:
    from ._page import Page
    from ._pool import Pool

__all__ = ["Buffer", "Buffers"]


class Buffer(Lease):
    """One item of a pool, held until it is released. Made by the pools' ``get``.

    A context manager that yields itself and releases at the end::

        with await pools.get(1500) as buffer:
            buffer.view[:5] = b"hello"

    A buffer that is dropped without a release is reported with a `ResourceWarning`, and its
    memory is taken back within a second of the loop's clock.
    """

    __slots__ = ("_index", "_nbytes", "_page", "_pool", "_view")

    _page: Page | None
    _pool: Pool
    _index: int
    _nbytes: int
    _view: memoryview | None

    def __init__(self, pool: Pool, page: Page, index: int, nbytes: int) -> None:
        self._pool = pool
        self._page = page
        self._index = index
        self._nbytes = nbytes
        self._view = None

    @property
    def pool(self) -> Pool:
        """The pool that the item belongs to."""
        return self._pool

    @property
    def nbytes(self) -> int:
        """Bytes that were asked for, which is the length of `view`."""
        return self._nbytes

    @property
    def released(self) -> bool:
        """True once the item is no longer held."""
        return self._page is None

    @property
    def view(self) -> memoryview:
        """A writable view of the item's first `nbytes` bytes.

        The release revokes it: its use then raises CPython's ValueError. A slice of it, and an
        array of NumPy or ctypes over it, is a view of its own, which no release can see or
        revoke: do not keep one. (On Python 3.12 and later, make it from the buffer itself.)

        The bytes are what the last owner left.

        Raises:
            UseAfterRelease: the buffer was released.
            UsageError: the pools are a simulation without memory.
        """
        page = self._page
        if page is None:
            raise UseAfterRelease(
                f"this buffer of pool {self._pool.name!r} was released; get a new one"
            )
        view = self._view
        if view is None:
            if page.block.view is None:
                raise UsageError(
                    f"pool {self._pool.name!r} only accounts for memory and has none to show; "
                    f"make its pools with memory=MappedMemory()"
                )
            start = self._index * self._pool.stride
            view = self._view = page.block.view[start : start + self._nbytes]
        return view

    def release(self) -> None:
        """Give the item back to its pool; the requests that wait for it are served at once.

        A plain function that never blocks, so it works inside a cancelled scope; and from any
        thread: from another than the loop's the item is carried over to the loop. It works after
        the pools were closed, too. Models subr_pool.c:pool_put.

        Raises:
            DoubleRelease: it was released before.
            BufferInUse: something still exports the view. Nothing has changed; release again
                when that is over.
        """
        page = self._page
        if page is None:
            raise DoubleRelease(
                f"this buffer of pool {self._pool.name!r} was released before; "
                f"release each buffer once, best by `with`"
            )
        if self._view is not None:
            self._revoke(self._view)
        self._page = None
        tracker = self._pool.tracker
        if tracker is not None:
            tracker.poison(page, self._index, self._pool.stride, tracker.released(self))
        self._pool._take_back(page, self._index, self._nbytes)

    def _revoke(self, view: memoryview) -> None:
        try:
            view.release()
        except BufferError as error:
            raise BufferInUse(
                f"a buffer of pool {self._pool.name!r} cannot be released while something still "
                f"exports its view (a read into it, a memoryview of it); end that first"
            ) from error

    if sys.version_info >= (3, 12):

        def __buffer__(self, flags: int) -> memoryview:
            """Export `view`, so that the buffer itself can be given to ``recv_into`` and others.

            What is made from the buffer in this way, slices and arrays included, is seen by the
            release, which is refused while it lives.
            """
            return self.view

        def __release_buffer__(self, view: memoryview) -> None:
            """An export has ended. There is nothing to do, but NumPy lets go at once of what
            comes from a type without this method, and would not be seen."""

    def _drop(self) -> str:
        page, self._page = self._page, None
        assert page is not None
        tracker = self._pool.tracker
        holder = None if tracker is None else tracker.released(self)
        self._pool._take_dropped(page, self._index, self._nbytes, self._view, holder)
        return f"a buffer of {self._nbytes} bytes of pool {self._pool.name!r}"

    def __repr__(self) -> str:
        state = "released" if self._page is None else "held"
        return f"<Buffer of {self._nbytes} bytes from pool {self._pool.name!r}, {state}>"


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
