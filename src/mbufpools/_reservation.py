"""The lease on bytes of the budget, without a buffer. Uses `_state` and `_errors`."""

from __future__ import annotations

import warnings
from threading import get_ident
from types import TracebackType
from typing import Any, Self

from ._errors import DoubleRelease
from ._request import Request
from ._set_state import SetState

__all__ = ["Reservation"]


class Reservation:
    """Bytes of the budget, held until they are released. Made by `BufferPools.reserve`.

    A context manager that releases at the end. One that is dropped without a release is
    reported with a `ResourceWarning`, and its bytes go back within a second of the loop's clock.
    """

    __slots__ = ("__weakref__", "_nbytes", "_released", "_state")

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
        """Give the bytes back to the budget; who waits for them is woken by the wakeup policy.

        A plain function that never blocks; from any thread, and after the pools were closed.

        Raises:
            DoubleRelease: it was released before.
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
            _bring(self._state, self._nbytes)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self._released:
            self.release()

    def __del__(self) -> None:
        if not getattr(self, "_released", True):
            self._released = True  # who keeps the warning keeps its source
            if self._state.tracker is not None:
                self._state.tracker.released(self)
            _bring(self._state, self._nbytes)
            warnings.warn(
                f"a reservation of {self._nbytes} bytes was dropped without a release",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )

    def __repr__(self) -> str:
        return f"<Reservation of {self._nbytes} bytes, {'released' if self._released else 'held'}>"


def _bring(state: SetState, nbytes: int) -> None:
    def bring_home() -> bool:
        state.unreserve(nbytes)
        return True

    state.owner_loop.run_on_owner(bring_home)
