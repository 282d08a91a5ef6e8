"""The lease on bytes of the budget, without a buffer.

The bytes are charged before a `Reservation` is made, and `SetState.claims` has an entry for them.
The entry is represented by a token, a `Claim`, which has one owner at each moment: the reservation,
or the call that gives the bytes back. A claim that is lost reports itself when it dies.
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

__all__ = ["Claim", "Reservation", "Reserving"]


class Claim:
    """The token of some bytes that are charged without a page."""

    __slots__ = ("_state", "number")

    def __init__(self, state: SetState, nbytes: int) -> None:
        self.number = next(state.claim_numbers)
        self._state = state
        state.claims[self.number] = nbytes

    def settle(self) -> None:
        """Give the bytes back, on the owner's thread or after the close."""
        self._state.unreserve(self.number)

    def give_back(self) -> None:
        """Give the bytes back, on any thread."""
        if get_ident() == self._state.owner_loop.thread:
            self.settle()
        else:
            self._state.owner_loop.run_on_owner(self.settle)

    def __del__(self) -> None:
        try:
            state = self._state
        except AttributeError:  # an exception ended `__init__`
            return
        nbytes = state.claims.get(self.number)
        if nbytes:
            state.owner_loop.run_on_owner(partial(_take_back_dropped, state, self.number))
            warnings.warn(
                f"a reservation of {nbytes} bytes was dropped without a release; "
                f"{advice(state.tracker)}",
                ResourceWarning,
                stacklevel=2,
                source=state,
            )


def _take_back_dropped(state: SetState, number: int) -> None:
    """Report a lost claim and give its bytes back. An error of the report comes afterwards, because
    it must not lose the bytes again."""
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

    __slots__ = ("__weakref__", "_claim", "_nbytes", "_state")

    def __init__(self, state: SetState, nbytes: int) -> None:
        self._state = state
        self._nbytes = nbytes
        self._claim: Claim | None = Claim(state, nbytes)

    @property
    def nbytes(self) -> int:
        """Bytes that are held."""
        return self._nbytes

    @property
    def released(self) -> bool:
        """True once the bytes are no longer held."""
        return self._claim is None

    @property
    def number(self) -> int:
        """The number of the claim that is held."""
        assert self._claim is not None
        return self._claim.number

    def release(self) -> None:
        """Give the bytes back to the budget; the wakeup policy wakes the requests that wait.

        A plain function that never blocks. It may be called from any thread, inside a cancelled
        scope, and after the pools were closed.

        Raises:
            DoubleRelease: the reservation was released before.
        """
        claim, self._claim = self._claim, None  # one step, as in Buffer.release
        if claim is None:
            raise DoubleRelease(
                f"this reservation of {self._nbytes} bytes was released before; "
                f"release each once, best by `with`"
            )
        if self._state.tracker is not None:
            self._state.tracker.released(claim.number)
        claim.give_back()

    def __enter__(self) -> Self:
        if self._claim is not None and self._state.tracker is not None:
            self._state.tracker.entered(self._claim.number)
        return self

    def end(self) -> None:
        """Give the bytes back if they are still held."""
        if self._claim is not None:
            self.release()

    def __repr__(self) -> str:
        state = "held" if self._claim is not None else "released"
        return f"<Reservation of {self._nbytes} bytes, {state}>"


class Reserving(Coroutine[Any, Any, Reservation]):
    """What `BufferPools.reserve` returns: to be awaited, made a task of, or entered by ``async
    with``. Each await and each entry makes a reservation of its own."""

    __slots__ = ("_coroutine", "_held", "_reserve")

    def __init__(self, reserve: Callable[[], Coroutine[Any, Any, Reservation]]) -> None:
        self._reserve = reserve
        self._coroutine: Coroutine[Any, Any, Reservation] | None = None
        """What runs if this object itself is run, as asyncio's tasks do."""
        self._held: list[Reservation] = []

    def __await__(self) -> Generator[Any, Any, Reservation]:
        return self._reserve().__await__()

    def send(self, value: Any) -> Any:
        """As a coroutine's."""
        if self._coroutine is None:
            self._coroutine = self._reserve()
        return self._coroutine.send(value)

    def throw(self, *error: Any) -> Any:
        """As a coroutine's."""
        if self._coroutine is None:
            self._coroutine = self._reserve()
        return self._coroutine.throw(*error)

    def close(self) -> None:
        """As a coroutine's."""
        if self._coroutine is not None:
            self._coroutine.close()

    async def __aenter__(self) -> Reservation:
        reservation = await self._reserve()
        self._held.append(reservation)
        return reservation

    async def __aexit__(self, *exc_info: object) -> None:
        self._held.pop().end()
