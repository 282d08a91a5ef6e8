"""The lease on bytes of the budget, without a buffer.

The bytes are charged before a `Reservation` is made; `SetState` counts them as reserved, and its
release credits them. A release from another thread, and the end of a reservation that was dropped,
are carried out by the owner loop.
"""

from __future__ import annotations

from threading import get_ident
from typing import Any

from ._errors import DoubleRelease
from ._lease import Lease
from ._request import Request
from ._set_state import SetState

__all__ = ["Reservation"]


class Reservation(Lease):
    """Bytes of the budget, held until they are released. Made by `BufferPools.reserve`.

    A context manager that releases at its end. A reservation that is dropped without a release is
    reported with a `ResourceWarning`, and its bytes go back within a second of the loop's clock.
    """

    __slots__ = ("_nbytes", "_released", "_state")

    def __init__(self, state: SetState, nbytes: int, request: Request[Any] | None) -> None:
        self._state = state
        self._nbytes = nbytes
        self._released = False
        state.reserved += nbytes
        state.reservations += 1
        if state.tracker is not None:
            state.tracker.acquired(self, "bytes", nbytes, request)

    @property
    def nbytes(self) -> int:
        """Bytes that are held."""
        return self._nbytes

    @property
    def released(self) -> bool:
        """True once the bytes are no longer held."""
        return self._released

    def release(self) -> None:
        """Give the bytes back to the budget; the wakeup policy wakes the requests that wait.

        A plain function that never blocks. It may be called from any thread, inside a cancelled
        scope, and after the pools were closed.

        Raises:
            DoubleRelease: the reservation was released before.
        """
        if self._released:
            raise DoubleRelease(
                f"this reservation of {self._nbytes} bytes was released before; "
                f"release each once, best by `with`"
            )
        self._released = True
        if self._state.tracker is not None:
            self._state.tracker.released(self)
        if get_ident() == self._state.owner_loop.thread:
            self._state.unreserve(self._nbytes)
        else:
            _unreserve_on_owner(self._state, self._nbytes)

    def _drop(self) -> str:
        self._released = True
        if self._state.tracker is not None:
            self._state.tracker.released(self)
        _unreserve_on_owner(self._state, self._nbytes)
        return f"a reservation of {self._nbytes} bytes"

    def __repr__(self) -> str:
        return f"<Reservation of {self._nbytes} bytes, {'released' if self._released else 'held'}>"


def _unreserve_on_owner(state: SetState, nbytes: int) -> None:
    """Have the owner loop give `nbytes` bytes back, soon."""

    def unreserve() -> bool:
        state.unreserve(nbytes)
        return True

    state.owner_loop.run_on_owner(unreserve)
