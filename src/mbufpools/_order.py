"""Which request may be tried next: the order across all wait queues of one pool set.

The words:

- A queue is *short* if the maximums of its pools would allow its head, but the budget refuses the
  pages. The oldest head of a short queue is the *claim*. (A head that waits at the maximum of its
  pool is no claim, or it would stop every other pool; it only holds back the requests that want
  the same pool.) A debt, after the limit was lowered below what is allocated, is the oldest claim.
- *Barging*: every queue is served by itself, as far as it goes.
- *FIFO*: all queues are served in the order of arrival; no request behind a claim is served.
- *Bounded*: as FIFO, but a get that a free item of its own pool can serve may *pass* the claim, an
  *allowance* of times in all.
- What a pool reserves as its minimum is served past any claim. Otherwise a task that holds what the
  claim needs could have to wait for one reserved item.

Invariant: this module decides and counts; it serves nothing itself.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Collection
from typing import Any

from ._policies import Order
from ._request import Request
from ._supply import AT_LIMIT, RESERVED, Supply
from ._wait_queues import ManyQueue, PoolQueue, WaitQueue

__all__ = ["Precedence", "arrival", "in_order", "turn"]


class Precedence:
    """The order of one pool set.

    Args:
        order: which request is served first.
        allowance: how many may pass a claim; None is as many as there are leases out when the
            claim is first tried at the head.
        leases: returns the number of leases that are out.
    """

    __slots__ = (
        "_allowance",
        "_bounded",
        "_leases",
        "debt_pass_limit",
        "ordered",
        "passes",
        "short",
    )

    def __init__(self, order: Order, allowance: int | None, leases: Callable[[], int]) -> None:
        self.ordered: bool = order is not Order.BARGING
        """False if a new request may take what it finds."""
        self._bounded = order is Order.BOUNDED
        self._allowance = allowance
        self._leases = leases
        self.passes: int = 0
        """Requests that were served past an older claim."""
        self.short: set[WaitQueue] = set()
        """Queues whose head the budget refused when it was last tried."""
        self.debt_pass_limit: float | None = None
        """While there is a debt: the number of passes from which no request passes it."""

    def serve_in_order(
        self,
        active: Collection[WaitQueue],
        among: Collection[WaitQueue] | None,
        serve: Callable[[WaitQueue, int], bool],
    ) -> bool:
        """Try the heads of the `active` queues in the order of their arrival: those of the queues
        `among`, or all. ``serve(queue, quote)`` returns False if the head must wait.

        Return True if queues that this round did not look at may have gained.
        """
        if len(active) == 1 and self.debt_pass_limit is None:
            (queue,) = active
            if among is None or queue in among:
                self._serve_the_only_queue(queue, serve)
                return False
        heads = [(arrival(queue), queue) for queue in active]
        heapq.heapify(heads)
        again = False
        claimed = self.debt_pass_limit is not None
        pass_limit: float = math.inf if self.debt_pass_limit is None else self.debt_pass_limit
        # For each pool that an older request is blocked on without being a claim: the number of
        # passes after which that request may not be overtaken there.
        held: dict[Supply, float] = {}
        while heads:
            queue = heads[0][1]
            request = queue.head
            mine = among is None or queue in among
            quote = queue.quote(request)
            passing = False
            if mine and quote == RESERVED:
                pass
            elif not claimed and held.keys().isdisjoint(queue.supplies):
                if not mine:
                    # The budget's callback will see to it. Until then it has its place.
                    heapq.heappop(heads)
                    if quote != AT_LIMIT:
                        claimed, pass_limit = True, self.pass_limit(request)
                    else:
                        self._hold(held, queue, request)
                    continue
            elif mine and self._may_pass(queue, claimed, pass_limit, held):
                passing = True
            else:
                if quote != AT_LIMIT and held.keys().isdisjoint(queue.supplies):
                    # Behind a debt it is a claim as well, perhaps with a lower limit.
                    pass_limit = min(pass_limit, self.pass_limit(request))
                self._hold(held, queue, request)
                heapq.heappop(heads)
                continue
            was_claim = queue in self.short
            if serve(queue, quote):
                self.passes += passing
                if among is not None and (was_claim or isinstance(queue, ManyQueue)):
                    again = True
                if claimed and self._wanted_by_a_claim(queue):
                    again = True  # the claim may wait at a limit now, and hold up no request
                if queue.requests.count:
                    heapq.heapreplace(heads, (arrival(queue), queue))
                else:
                    heapq.heappop(heads)
                continue
            heapq.heappop(heads)
            if queue in self.short:
                claimed, pass_limit = True, min(pass_limit, self.pass_limit(request))
            else:
                self._hold(held, queue, request)
        return again

    def _serve_the_only_queue(
        self, queue: WaitQueue, serve: Callable[[WaitQueue, int], bool]
    ) -> None:
        """Do what `serve_in_order` does, in the common case, without its lists."""
        while (request := queue.requests.head) is not None:
            if not serve(queue, queue.quote(request)):
                self.pass_limit(request)
                return

    def _wanted_by_a_claim(self, queue: WaitQueue) -> bool:
        """Return True if a claim wants an item of the pools of `queue`, perhaps with others."""
        return any(not claim.supplies.isdisjoint(queue.supplies) for claim in self.short)

    def _hold(self, held: dict[Supply, float], queue: WaitQueue, request: Request[Any]) -> None:
        pass_limit = self.pass_limit(request)
        for supply in queue.supplies:
            held[supply] = min(held.get(supply, math.inf), pass_limit)

    def _may_pass(
        self,
        queue: WaitQueue,
        claimed: bool,
        pass_limit: float,
        held: dict[Supply, float],
    ) -> bool:
        if not self._bounded or not isinstance(queue, PoolQueue):
            return False
        return self.passes < min(pass_limit, held.get(queue.supply, math.inf)) and not (
            claimed and queue.supply.pages_lacking(1)
        )

    def may_still_pass(self, queue: WaitQueue) -> bool:
        """Return True if a get in `queue` may perhaps pass a claim."""
        limits = [self._limit_if_tried(short.head) for short in self.short]
        return (
            self._bounded
            and isinstance(queue, PoolQueue)
            and self.passes < min(limits, default=math.inf)
        )

    def pass_limit(self, claim: Request[Any]) -> int:
        """Return the number of passes from which no request passes `claim`."""
        if claim.pass_limit is None:
            claim.pass_limit = self._limit_if_tried(claim)
        return claim.pass_limit

    def _limit_if_tried(self, claim: Request[Any]) -> int:
        """Return what `pass_limit` returns, and change nothing."""
        limit = claim.pass_limit
        return claim.passes_before + self.allowance_now() if limit is None else limit

    def allowance_now(self) -> int:
        """Return how many may pass a claim that is at the head from now on."""
        return self._leases() if self._allowance is None else self._allowance

    def note_debt(self, debt: int) -> None:
        """The limit is new: note the debt, or forget it."""
        self.forget_paid_debt(debt)
        if self.debt_pass_limit is None and self.ordered and debt:
            self.debt_pass_limit = min(
                self.passes + self.allowance_now(),
                *(self.pass_limit(queue.head) for queue in self.short),
                math.inf,
            )

    def forget_paid_debt(self, debt: int) -> None:
        """Bytes came back: the debt may be paid."""
        if not debt:
            self.debt_pass_limit = None

    def next_is_no_claim_yet(self, active: Collection[WaitQueue]) -> bool:
        """Return True if the wakeup that is on its way will try a request that is no claim yet."""
        held: set[Supply] = set()
        for queue in sorted(active, key=arrival):
            if held.isdisjoint(queue.supplies) and queue.limiting() is None:
                return True
            held |= queue.supplies
        return False


def arrival(queue: WaitQueue) -> int:
    """Return the number of the head of `queue`, which tells when it came."""
    return queue.head.number


def turn(queue: WaitQueue) -> float:
    """Return the place of the queue when each queue is served by itself: the pools in the order of
    their sizes, then the requests for several items, then those for bytes."""
    if isinstance(queue, PoolQueue):
        return queue.supply.rank
    return math.inf if not queue.needs else 1 << 62


def in_order(active: Collection[WaitQueue]) -> list[tuple[WaitQueue, Request[Any]]]:
    """Return all requests that wait, the oldest first."""
    waiting = [(queue, request) for queue in active for request in queue.requests]
    return sorted(waiting, key=lambda waiter: waiter[1].number)
