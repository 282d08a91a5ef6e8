"""A wait queue: requests that want the same, in the order of their arrival.

Every pool has a queue of its own, which is its condition variable. `BufferPools.get_many` has a
queue for each combination of pools, and `BufferPools.reserve` one for plain bytes. All requests of
one queue want the same items. If the first cannot be served, none can; so only heads are tried.

What it takes to serve a head is one question, `quote`, with one number as its answer.
"""

from __future__ import annotations

from typing import Any

from ._buffer import Buffer, Buffers, take
from ._request import Request, RequestQueue
from ._reservation import Reservation
from ._set_state import SetState
from ._supply import AT_LIMIT, RESERVED, Supply

__all__ = ["BytesQueue", "ManyQueue", "ManyRequest", "Needs", "PoolQueue", "WaitQueue", "reserve"]

Needs = tuple[tuple[Supply, int], ...]


class WaitQueue:
    """The requests for a number of items of certain pools."""

    __slots__ = ("name", "needs", "requests", "supplies")

    def __init__(self, name: str, needs: Needs) -> None:
        self.name: str = name
        """For events and messages."""
        self.needs: Needs = needs
        """The supplies of the pools, and how many items of each."""
        self.supplies: frozenset[Supply] = frozenset(supply for supply, _ in needs)
        self.requests: RequestQueue[Any] = RequestQueue()

    @property
    def what(self) -> str:
        """What is wanted, for messages."""
        return self.name

    @property
    def head(self) -> Request[Any]:
        """The oldest request, which there must be."""
        head = self.requests.head
        assert head is not None
        return head

    def quote(self, request: Request[Any]) -> int:
        """What it takes to serve `request` now: bytes to be charged for new pages, 0 if free items
        will do, `RESERVED` if they also are within the minimum, or `AT_LIMIT`."""
        total, reserved = 0, bool(self.needs)
        for supply, count in self.needs:
            quote = supply.quote(count)
            if quote == AT_LIMIT:
                return AT_LIMIT
            if quote != RESERVED:
                reserved = False
                total += quote
        return RESERVED if reserved else total

    def limiting(self) -> Supply | None:
        """The first supply whose maximum stands against the next request, or None."""
        for supply, count in self.needs:
            if supply.quote(count) == AT_LIMIT:
                return supply
        return None

    def least_bytes(self, request: Request[Any]) -> int:
        """Bytes that must fit into the limit for `request` to be served ever, beside the pages
        that the pools keep as their minimum."""
        return sum(
            max(0, -(-count // supply.items_per_page) - supply.min_pages) * supply.page_size
            for supply, count in self.needs
        )

    def why_too_large(self, request: Request[Any], limit: int, kept: int) -> str | None:
        """Return why `request` can never be served under `limit`, of which the pools keep `kept`
        bytes as their minimum; or None."""
        least = self.least_bytes(request)
        if not least or kept + least <= limit:
            return None
        return self._too_large(least, f"the limit is {limit} bytes{_minimum(kept)}")

    def _too_large(self, least: int, limit: str) -> str:
        return (
            f"a request for {self.what} can never be served: it takes {least} bytes, and {limit}; "
            f"raise the limit, or ask for less (smaller pages: items_per_page)"
        )

    def take(self, request: Request[Any]) -> Any:
        """Take what `request` wants; its pages are there."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"<{type(self).__name__} for {self.name}, {len(self.requests)} waiting>"


class PoolQueue(WaitQueue):
    """The gets of one pool."""

    __slots__ = ("supply",)

    def __init__(self, supply: Supply) -> None:
        super().__init__(supply.name, ((supply, 1),))
        self.supply: Supply = supply

    @property
    def what(self) -> str:
        return f"pool {self.name!r}"

    def quote(self, request: Request[Any]) -> int:
        return self.supply.quote(1)

    def take(self, request: Request[Any]) -> Buffer:
        return take(self.supply, request.nbytes, request)


class ManyRequest(Request[Buffers]):
    """A request for several buffers at once."""

    __slots__ = ("wants",)

    def __init__(self, wants: tuple[tuple[Supply, int], ...], number: int, since: float) -> None:
        super().__init__(number, sum(nbytes for _, nbytes in wants), since)
        self.wants = wants
        """For each buffer the supply of its pool, and bytes."""


class ManyQueue(WaitQueue):
    """The requests for the same number of buffers of the same pools, all or nothing."""

    __slots__ = ()

    def __init__(self, needs: Needs) -> None:
        super().__init__(" + ".join(f"{count} x {supply.name}" for supply, count in needs), needs)

    def take(self, request: Request[Any]) -> Buffers:
        assert isinstance(request, ManyRequest)
        return Buffers(take(supply, nbytes, request) for supply, nbytes in request.wants)


class BytesQueue(WaitQueue):
    """The requests for bytes of the budget, and no buffer."""

    __slots__ = ("_state",)

    def __init__(self, state: SetState) -> None:
        super().__init__("bytes", ())
        self._state = state

    def quote(self, request: Request[Any]) -> int:
        return request.nbytes

    def least_bytes(self, request: Request[Any]) -> int:
        return request.nbytes

    def _too_large(self, least: int, limit: str) -> str:
        return (
            f"a reservation of {least} bytes can never be served: {limit}; raise the limit, or "
            f"reserve less at a time"
        )

    def take(self, request: Request[Any]) -> Reservation:
        return reserve(self._state, request.nbytes, request)


def _minimum(kept: int) -> str:
    return f", of which the pools keep {kept} as their minimum" if kept else ""


def reserve(state: SetState, nbytes: int, request: Request[Any] | None = None) -> Reservation:
    """Make the lease of `nbytes` bytes, which are charged, for `request` or a newcomer."""
    reservation = Reservation(state, nbytes)
    if state.tracker is not None:
        state.tracker.acquired(reservation.number, "bytes", nbytes, request)
    return reservation
