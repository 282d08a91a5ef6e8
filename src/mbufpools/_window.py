"""The exporter of one lease's memory: it makes the view, and it knows what was made from the view.

A slice of a `memoryview`, a cast, an array of NumPy or ctypes, and what a transport keeps all hold
on to the object that the view was made from, the *exporter*. Each lease whose view is asked for
has an exporter of its own, so the release can ask whether something made from the view is alive.

- On Python 3.12 and later the `Window` itself exports (PEP 688); `__release_buffer__` counts down.
- On 3.11 the exporter is a ctypes array over the whole item, which is an element of one over the
  page. Its types are those of the pool, because ctypes keeps each type for ever. What was made from
  the view refers to it, so its references tell whether something was. A weak reference tells of the
  end of a window that keeps an item; before that, it would be memory for nothing.

A window in which an item is kept gives it up when nothing exports any more. It may do so twice,
when the gc's tick and another thread finish the end of the same lease; then the item comes home
once, because the quarantine knows for which window it waits there.
"""

from __future__ import annotations

import sys
import weakref
from functools import cache
from typing import Any, Protocol

__all__ = ["Window", "share"]


class Kept(Protocol):
    """What a window keeps until nothing exports its memory any more."""

    def export_ended(self, window: Window) -> None:
        """Come home, unless it has come home from this window before."""


if sys.version_info >= (3, 12):

    def share(view: memoryview | None, stride: int, items: int) -> Any:
        """Return what the windows of a page are made from. The page has this `view`, and so many
        `items`, each of `stride` bytes. None if the page has no memory."""
        return view

else:

    def share(view: memoryview | None, stride: int, items: int) -> Any:
        """As above."""
        return None if view is None else _array_type(stride, items).from_buffer(view)

    @cache
    def _array_type(stride: int, items: int) -> Any:
        import ctypes  # here, because only 3.11 needs it

        return ctypes.c_char * stride * items


class Window:
    """Shows the first `nbytes` bytes of the item number `index` of a page. `memory` is what `share`
    has returned for the page; if it is None, there is nothing to show."""

    __slots__ = ("_ended", "_exports", "_memory", "_nbytes", "_stale", "_view", "item")

    def __init__(self, memory: Any, index: int, nbytes: int, stride: int) -> None:
        self._view: memoryview | None = None
        self._stale: weakref.ref[memoryview] | None = None
        """The view of a lease that has ended, if the view could not be revoked."""
        self.item: Kept | None = None
        """An item that was released while something exported it."""
        self._nbytes = nbytes
        self._exports = 0
        self._ended: weakref.ref[Any] | None = None
        """On 3.11, once an item is kept: tells when the exporter dies."""
        if memory is None:
            self._memory: Any = None
        elif sys.version_info >= (3, 12):
            self._memory = memory[index * stride : index * stride + nbytes]
        else:
            self._memory = memory[index]

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
        self._expect_the_end()
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

    def close(self) -> None:
        """Nothing is exported from now on, not even by this object itself."""
        self._memory = None

    if sys.version_info >= (3, 12):

        @property
        def exported(self) -> bool:
            """True while something exports the memory."""
            return self._exports > 0

        def export(self) -> memoryview:
            """Return a new view."""
            return memoryview(self)

        def _expect_the_end(self) -> None:
            """There is nothing to do: `__release_buffer__` will be called."""

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
            if self._memory is not None:
                return sys.getrefcount(self._memory) > 2  # this window's, and the argument
            return self._ended is not None and self._ended() is not None

        def export(self) -> memoryview:
            """Return a new view."""
            return memoryview(self._memory).cast("B")[: self._nbytes]

        def _expect_the_end(self) -> None:
            """Let only what exports the memory keep the exporter alive from now on."""
            if self._memory is not None:
                self._ended = weakref.ref(self._memory, self._exporter_died)
                self._memory = None

        def _exporter_died(self, exporter: object) -> None:
            if exporter is self._ended:
                self.give_up()
