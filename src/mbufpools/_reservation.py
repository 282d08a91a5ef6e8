"""The lease on bytes of the budget, without a buffer.

The bytes are charged before a `Reservation` is made, and `SetState.claims` has an entry for them
until they are given back. A reservation that is lost while it has an entry reports itself when it
dies.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Coroutine, Generator
from functools import partial
from threading import get_ident
from typing import Any, Self

from ._debug import advice, who_held
from ._errors import DoubleRelease
from ._events import EventKind
from ._lease import Releasable
from ._log import logger
from ._set_state import SetState

__all__ = ["Reservation", "Reserving"]


def _take_back_dropped(state: SetState, number: int) -> None:
    """Report a lost reservation and give its bytes back. An error of the report comes afterwards,
    because it must not lose the bytes again."""
    try:
        nbytes = state.claims[number]
        state.dropped += 1
        holder = None if state.tracker is None else state.tracker.released(number)
        logger().warning(
            "a reservation of %d bytes was dropped without a release%s",
            nbytes,
            who_held(state.tracker, holder),
        )
        state.observer.tell(EventKind.DROP, "bytes", nbytes)
    finally:
        state.unreserve(number)


class Reservation(Releasable):
    """Bytes of the budget, held until they are released. Made by `BufferPools.reserve`.

    A context manager that releases at its end. A reservation that is dropped without a release is
    reported with a `ResourceWarning` and in the log, and its bytes go back within a second of the
    loop's clock.
    """

    __slots__ = ("__weakref__", "_held", "_nbytes", "_state", "number")

    number: int
    """Counted from 1 in a pool set; the key of its entry."""

    def __init__(self, state: SetState, nbytes: int) -> None:
        self._state = state
        self._nbytes = nbytes
        self._held = True
        self.number = number = next(state.claim_numbers)
        state.claims[number] = nbytes

    @property
    def nbytes(self) -> int:
        """Bytes that are held."""
        return self._nbytes

    @property
    def released(self) -> bool:
        """True once the bytes are no longer held."""
        return not self._held

    def release(self) -> None:
        """Give the bytes back to the budget; the wakeup policy wakes the requests that wait.

        A plain function that never blocks. It may be called from any thread, inside a cancelled
        scope, and after the pools were closed.

        Raises:
            DoubleRelease: the reservation was released before.
        """
        state = self._state
        held = False
        try:
            held, self._held = self._held, False  # one step, as in Buffer.release
            if not held:
                raise DoubleRelease(
                    f"this reservation of {self._nbytes} bytes was released before; "
                    f"release each once, best by `with`"
                )
            if state.tracker is not None:
                state.tracker.released(self.number)
            if get_ident() == state.owner_loop.thread:
                state.unreserve(self.number)
            else:
                state.owner_loop.run_on_owner(self._settle)
        except BaseException:
            if held:
                self._held = self.number in state.claims
            raise

    def _settle(self) -> None:
        """Give the bytes back, on the owner's thread or after the close."""
        self._state.unreserve(self.number)

    def __enter__(self) -> Self:
        if self._held and self._state.tracker is not None:
            self._state.tracker.entered(self.number)
        return self

    def end(self) -> None:
        """Give the bytes back if they are still held."""
        if self._held:
            self.release()

    def __del__(self) -> None:
        try:
            state, number = self._state, self.number
        except AttributeError:  # an exception ended `__init__`
            return
        nbytes = state.claims.get(number)
        if nbytes:
            state.owner_loop.run_on_owner(partial(_take_back_dropped, state, number))
            warnings.warn(
                f"a reservation of {nbytes} bytes was dropped without a release; "
                f"{advice(state.tracker)}",
                ResourceWarning,
                stacklevel=2,
                source=state,
            )

    def __repr__(self) -> str:
        state = "held" if self._held else "released"
        return f"<Reservation of {self._nbytes} bytes, {state}>"


class Reserving(Coroutine[Any, Any, Reservation]):
    """What `BufferPools.reserve` returns: to be awaited, made a task of, or entered by ``async
    with``. Each await and each entry makes a reservation of its own."""

    __slots__ = ("_coroutine", "_held", "_nbytes", "_reserve")

    def __init__(
        self, reserve: Callable[[int], Coroutine[Any, Any, Reservation]], nbytes: int
    ) -> None:
        self._reserve = reserve
        self._nbytes = nbytes
        self._coroutine: Coroutine[Any, Any, Reservation] | None = None
        """What runs if this object itself is run, as asyncio's tasks do."""
        self._held: list[Reservation] | None = None

    def __await__(self) -> Generator[Any, Any, Reservation]:
        return self._reserve(self._nbytes).__await__()

    def send(self, value: Any) -> Any:
        """As a coroutine's."""
        if self._coroutine is None:
            self._coroutine = self._reserve(self._nbytes)
        return self._coroutine.send(value)

    def throw(self, *error: Any) -> Any:
        """As a coroutine's."""
        if self._coroutine is None:
            self._coroutine = self._reserve(self._nbytes)
        return self._coroutine.throw(*error)

    def close(self) -> None:
        """As a coroutine's."""
        if self._coroutine is not None:
            self._coroutine.close()

    async def __aenter__(self) -> Reservation:
        reservation = await self._reserve(self._nbytes)
        if self._held is None:
            self._held = []
        self._held.append(reservation)
        return reservation

    async def __aexit__(self, *exc_info: object) -> None:
        assert self._held
        self._held.pop().end()
