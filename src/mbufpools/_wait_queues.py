"""A wait queue: requests that want the same, in the order of their arrival.

Every pool has a queue of its own, which is its condition variable. `BufferPools.get_many` has a
queue for each combination of pools, and `BufferPools.reserve` one for plain bytes. All requests of
one queue want the same items. If the first cannot be served, none can; so only heads are tried.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._buffer import Buffer, Buffers
from ._request import Request, RequestQueue
from ._reservation import Reservation
from ._set_state import SetState

if TYPE_CHECKING:
    from ._pool import Pool

__all__ = ["BytesQueue", "WaitQueue", "ManyQueue", "ManyRequest", "PoolQueue"]


class WaitQueue:
    """The requests for a number of items of certain pools."""

    __slots__ = ("name", "needs", "pools", "requests", "waits")

    def __init__(self, name: str, needs: tuple[tuple[Pool, int], ...]) -> None:
        self.name = name
        """For events and messages."""
        self.needs = needs
        """The pools, and how many items of each."""
        self.pools = frozenset(pool for pool, _ in needs)
        self.requests: RequestQueue[Any] = RequestQueue()
        self.waits = 0
        """Requests that had to park."""

    @property
    def what(self) -> str:
        """What is wanted, for messages."""
        return self.name

    def pool_at_limit(self) -> Pool | None:
        """The first pool whose hard limit stands against the next request, or None."""
        for pool, count in self.needs:
            if not pool.has_room(count):
                return pool
        return None

    def within_minimum(self) -> bool:
        """True if items that the pools reserve as their minimum cover the next request."""
        return bool(self.needs) and all(pool.minimum_covers(count) for pool, count in self.needs)

    def cost(self, request: Request[Any]) -> int:
        """Bytes that must be charged to serve `request` now: those of new pages."""
        return sum(pool.pages_lacking(count) * pool.page_size for pool, count in self.needs)

    def least_bytes(self, request: Request[Any]) -> int:
        """Bytes that must fit into the limit for `request` to be served ever, beside the pages
        that the pools keep as their minimum."""
        return sum(
            max(0, -(-count // pool.items_per_page) - pool.min_pages) * pool.page_size
            for pool, count in self.needs
        )

    def take(self, request: Request[Any]) -> Any:
        """Take what `request` wants; its pages are there."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"<{type(self).__name__} for {self.name}, {len(self.requests)} waiting>"


class PoolQueue(WaitQueue):
    """The gets of one pool."""

    __slots__ = ()

    def __init__(self, pool: Pool) -> None:
        super().__init__(pool.name, ((pool, 1),))

    @property
    def what(self) -> str:
        return f"pool {self.name!r}"

    def take(self, request: Request[Any]) -> Buffer:
        return self.needs[0][0]._lease(request.nbytes, request)


class ManyRequest(Request[Buffers]):
    """A request for several buffers at once."""

    __slots__ = ("wants",)

    def __init__(self, wants: tuple[tuple[Pool, int], ...], number: int, since: int) -> None:
        super().__init__(number, sum(nbytes for _, nbytes in wants), since)
        self.wants = wants
        """For each buffer its pool, and bytes."""


class ManyQueue(WaitQueue):
    """Those who want the same number of buffers of the same pools, all or nothing."""

    __slots__ = ()

    def __init__(self, needs: tuple[tuple[Pool, int], ...]) -> None:
        super().__init__(" + ".join(f"{count} x {pool.name}" for pool, count in needs), needs)

    def take(self, request: Request[Any]) -> Buffers:
        assert isinstance(request, ManyRequest)
        return Buffers(pool._lease(nbytes, request) for pool, nbytes in request.wants)


class BytesQueue(WaitQueue):
    """Those who want bytes of the budget, and no buffer."""

    __slots__ = ("_state",)

    def __init__(self, state: SetState) -> None:
        super().__init__("bytes", ())
        self._state = state

    def cost(self, request: Request[Any]) -> int:
        return request.nbytes

    def least_bytes(self, request: Request[Any]) -> int:
        return request.nbytes

    def take(self, request: Request[Any]) -> Reservation:
        return Reservation(self._state, request.nbytes, request)
