"""The exporter of one lease's memory: it makes the view, and it knows what was made from the view.

A slice of a `memoryview`, a cast, an array of NumPy or ctypes, and what a transport keeps all hold
on to the object that the view was made from, the *exporter*. Each lease whose view is asked for
has an exporter of its own, so the release can ask whether something made from the view is alive.

- On Python 3.12 and later the `Window` itself exports (PEP 688); `__release_buffer__` counts down.
- On 3.11 the exporter is a ctypes array over the whole item, of one type for each pool, because
  ctypes keeps each type for ever. A weak reference tells whether it is alive, and when it dies.

A window in which an item is kept gives it up when nothing exports any more. It may do so twice,
when the gc's tick and another thread finish the end of the same lease; then the item comes home
once, because the quarantine knows for which window it waits there.
"""

from __future__ import annotations

import sys
import weakref
from functools import cache
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import ctypes

__all__ = ["Window"]


class Kept(Protocol):
    """What a window keeps until nothing exports its memory any more."""

    def export_ended(self, window: Window) -> None:
        """Come home, unless it has come home from this window before."""


@cache
def _array_type(nbytes: int) -> type[ctypes.Array[ctypes.c_char]]:
    import ctypes  # here, because only 3.11 needs it

    return ctypes.c_char * nbytes


class Window:
    """Shows `nbytes` bytes of the memory of a page, from `start` on, `stride` bytes of which are
    the item's. `memory` is None if the page has no memory; then there is nothing to show."""

    __slots__ = (
        "__weakref__",
        "_anchor",
        "_exports",
        "_memory",
        "_nbytes",
        "_stale",
        "_start",
        "_stride",
        "_view",
        "item",
    )

    def __init__(self, memory: memoryview | None, start: int, nbytes: int, stride: int) -> None:
        self._view: memoryview | None = None
        self._stale: weakref.ref[memoryview] | None = None
        """The view of a lease that has ended, if the view could not be revoked."""
        self.item: Kept | None = None
        """An item that was released while something exported it."""
        self._start = start
        self._nbytes = nbytes
        self._stride = stride
        self._anchor: weakref.ref[ctypes.Array[ctypes.c_char]] | None = None
        self._exports = 0
        self._memory = memory
        if sys.version_info >= (3, 12) and memory is not None:
            self._memory = memory[start : start + nbytes]

    @property
    def view(self) -> memoryview:
        """The view, or a new one if the last was ended."""
        view = self._view
        if view is not None:
            try:
                view.nbytes  # noqa: B018 - raises if the view was ended
            except ValueError:
                pass
            else:
                return view
        view = self._view = self.export()
        return view

    def revoke(self) -> bool:
        """End the view. Return True if nothing exports the memory any more."""
        view, self._view = self._view, None
        if view is not None:
            try:
                view.release()
            except BufferError:
                self._view = view
                return False
        return not self.exported

    def keep(self, item: Kept) -> None:
        """Keep `item` until nothing exports the memory any more."""
        view, self._view = self._view, None
        self._stale = None if view is None else weakref.ref(view)
        del view  # else this call itself would keep the memory exported
        self.item = item
        if not self.exported:  # the last export ended just before
            self.give_up()

    def revoke_stale(self) -> None:
        """Try again to revoke the view of a lease that has ended. Its owner may still have it, and
        no call tells that an array over it has gone."""
        view = None if self._stale is None else self._stale()
        if view is not None:
            try:
                view.release()
            except BufferError:
                pass

    def give_up(self) -> None:
        """Bring the item home that is kept here, if there is one."""
        item, self.item = self.item, None
        if item is not None:
            item.export_ended(self)

    if sys.version_info >= (3, 12):

        @property
        def exported(self) -> bool:
            """True while something exports the memory."""
            return self._exports > 0

        def export(self) -> memoryview:
            """Return a new view."""
            return memoryview(self)

        def close(self) -> None:
            """Nothing is exported from now on, not even by this object itself."""
            self._memory = None

        def __buffer__(self, flags: int) -> memoryview:
            if self._memory is None:
                raise BufferError("the lease of this memory has ended")
            self._exports += 1; return self._memory  # noqa: E702 - one step  # fmt: skip

        def __release_buffer__(self, view: memoryview) -> None:
            self._exports -= 1
            if not self._exports:
                self.give_up()

    else:

        @property
        def exported(self) -> bool:
            """True while something exports the memory."""
            return self._anchor is not None and self._anchor() is not None

        def export(self) -> memoryview:
            """Return a new view."""
            anchor = None if self._anchor is None else self._anchor()
            if anchor is None:
                assert self._memory is not None
                anchor = _array_type(self._stride).from_buffer(self._memory, self._start)
                self._anchor = weakref.ref(anchor, self._anchor_died)
            return memoryview(anchor).cast("B")[: self._nbytes]

        def close(self) -> None:
            """Nothing is exported from now on."""
            self._memory = None

        def _anchor_died(self, anchor: object) -> None:
            if anchor is self._anchor:
                self.give_up()
