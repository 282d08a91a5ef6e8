"""Everybody who waits in one pool set, and in which order they are served.

Models subr_pool.c:pool_runqueue and pool_wakeup, which know the waiters of one pool, and goes on
where they end. The words:

- A request is *short* if the limits of its pools would allow it, but the budget refuses its
  pages. The oldest such request is the *claim*. (One that waits at the hard limit of its pool
  is none, or it would freeze every other pool; it only holds back who wants the same pool.) A
  debt, after the limit was lowered below what is allocated, is the oldest claim of all.
- *Barging*: every line is served by itself, as far as it goes.
- *FIFO*: all lines are served in the order of arrival; behind a claim nobody is served.
- *Bounded*: as FIFO, but a get that a free item of its own pool can serve may *pass* the claim,
  an *allowance* of times in all.
- What a pool reserves as its minimum is served past any claim, or somebody who holds what the
  claim needs could be stopped for want of one reserved item.

When the head of a queue leaves, no page is freed, so the budget's callback does not fire; the
queues must be run explicitly.

Idle pages are reclaimed for a request, under pressure: planned first, and given back only if they
suffice; the request is charged before anybody hears of the pages, or a direct
wakeup would give them to somebody else. While a claim waits, no page stays idle.

One function waits, `acquire`; all others are plain.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from anyio.lowlevel import cancel_shielded_checkpoint

from ._debug import caller, current_task
from ._errors import ImpossibleRequest, PoolCorruption
from ._events import EventKind
from ._page import Page
from ._policies import Order, Reclaim
from ._request import Request
from ._set_state import SetState
from ._statistics import WaitStatistics
from ._wait_queues import BytesQueue, ManyQueue, PoolQueue, WaitQueue

if TYPE_CHECKING:
    from ._pool import Pool

__all__ = ["Waiters"]

Needs = tuple[tuple["Pool", int], ...]
T = TypeVar("T")


class Waiters:
    """The lines of one pool set, and the order across them.

    Args:
        state: what the set shares.
        order: who is served first.
        reclaim: when idle pages leave.
        allowance: how many may pass a claim; None is as many as there are leases out when it
            comes to the head.
    """

    def __init__(
        self, state: SetState, order: Order, reclaim: Reclaim, allowance: int | None
    ) -> None:
        self._state = state
        self._budget = state.budget
        self._order = order
        self._ordered = order is not Order.BARGING
        self._pressure = reclaim is Reclaim.PRESSURE
        self._allowance = allowance
        self._pools: list[Pool] = []
        self._pool_queues: list[PoolQueue] = []
        """In the order of the pools' sizes, which is the kernel's order of waking."""
        self._bytes_queue = BytesQueue(state)
        self._many_queues: dict[Needs, ManyQueue] = {}
        """Only those that somebody waits in."""
        self._active: set[WaitQueue] = set()
        """Lines that somebody waits in."""
        self._short: set[WaitQueue] = set()
        """Lines whose head the budget refused when it was last tried."""
        self._debt_pass_limit: float | None = None
        """While there is a debt: the number of passes from which nobody passes it."""
        self._running = False
        self._again = False
        self._waiting = 0
        self._peak = 0
        self._passes = 0
        self._waits = 0
        self._grants = 0
        self._cancellations = 0
        self._histogram = [0] * 64
        """Grants by the bits of their wait in microseconds, which are fewer for 292,000 years."""
        self.must_queue = False
        """True if a new request must join the queue instead of taking a free item."""

    def add_pool(self, pool: Pool) -> PoolQueue:
        """Make the line of a new pool."""
        queue = PoolQueue(pool)
        self._pools.append(pool)
        self._pool_queues.append(queue)
        return queue

    def queue_for(self, pools: Iterable[Pool]) -> WaitQueue:
        """The line of those who want just these pools' items at once."""
        counts: dict[Pool, int] = {}
        for pool in pools:
            counts[pool] = counts.get(pool, 0) + 1
        needs = tuple((pool, counts[pool]) for pool in self._pools if pool in counts)
        return self._many_queues.get(needs) or ManyQueue(needs)

    @property
    def bytes_queue(self) -> BytesQueue:
        """The line of those who want bytes."""
        return self._bytes_queue

    # Coming and going

    async def acquire(self, queue: WaitQueue, request: Request[T]) -> T:
        """Wait in `queue` until `request` is served; return what it was granted.

        Always a checkpoint. An exception out of the wait gives back what was granted meanwhile.
        """
        self.refuse_impossible(queue, request)
        self._join(queue, request)
        if request.settled:
            granted = request.result()
            try:
                await cancel_shielded_checkpoint()
            except BaseException:
                _release(granted)
                raise
            return granted
        self._waits += 1
        self._peak = max(self._peak, self._waiting)
        queue.waits += 1
        request.parked = True
        request.task, request.task_id = current_task()
        if self._state.tracker is not None:
            request.where = caller()
        self._state.observer.tell(EventKind.WAIT, queue.name, request.nbytes, request.number)
        self._let_go_idle_pages()  # because it waits, so this is told afterwards
        try:
            return await request.park()
        except BaseException:
            self._cancellations += request.error is None
            self._withdraw(queue, request)
            raise

    def try_acquire(self, queue: WaitQueue, request: Request[T]) -> T | None:
        """Serve `request` now, in its turn, or not at all."""
        self.refuse_impossible(queue, request)
        self._join(queue, request)
        if request.settled:
            return request.result()
        self._leave(queue, request)
        # It was a claim for a moment only, and no page has to leave for it; but it may have shown
        # that somebody who waits in its line is one.
        self._let_go_idle_pages()
        return None

    def _join(self, queue: WaitQueue, request: Request[Any]) -> None:
        """Append `request`, then run its line: a page that came back since the first try would
        otherwise be lost on it."""
        request.passes_before = self._passes
        if isinstance(queue, ManyQueue):
            queue = self._many_queues.setdefault(queue.needs, queue)
        queue.requests.append(request)
        self._active.add(queue)
        self._waiting += 1
        self.must_queue = self._ordered
        try:
            self.run((queue,), joining=True)
        except BaseException:
            if request in queue.requests:
                self._leave(queue, request)
            raise

    def _leave(self, queue: WaitQueue, request: Request[Any]) -> None:
        queue.requests.remove(request)
        self._waiting -= 1
        if not queue.requests:
            self._active.discard(queue)
            self._short.discard(queue)
            if isinstance(queue, ManyQueue):
                del self._many_queues[queue.needs]
        self._update_must_queue()

    def _withdraw(self, queue: WaitQueue, request: Request[Any]) -> None:
        """The wait ended with an exception: give back what was granted, or leave the line."""
        if request.granted is not None:
            _release(request.granted)
        elif request in queue.requests:
            was_head = queue.requests.head is request
            self._leave(queue, request)
            if was_head:  # no page was freed, so nobody else would look
                self.run(None if self._ordered else (queue,))
        self._state.observer.tell(EventKind.CANCEL, queue.name, request.nbytes, request.number)

    def fail_all(self, error: Callable[[WaitQueue], Exception]) -> None:
        """Wake everybody with an error, in the order of arrival."""
        for queue, request in self.in_order():
            self._leave(queue, request)
            request.fail(error(queue))

    def _queues(self) -> Iterator[WaitQueue]:
        yield from self._pool_queues
        yield from self._many_queues.values()
        yield self._bytes_queue

    def _queues_with(self, pool: Pool) -> list[WaitQueue]:
        queues: list[WaitQueue] = [pool.queue] if pool.queue.requests else []
        queues += [queue for queue in self._many_queues.values() if pool in queue.pools]
        return queues

    def _update_must_queue(self) -> None:
        self.must_queue = self._ordered and (self._waiting > 0 or self._debt_pass_limit is not None)

    # Who can never be served

    def refuse_impossible(self, queue: WaitQueue, request: Request[Any]) -> None:
        """Raise ImpossibleRequest if no release by anybody could serve `request`; but not under
        the kernel's rules, where it sleeps."""
        why = self._why_impossible(queue, request)
        if why is not None:
            raise ImpossibleRequest(why)

    def _why_impossible(self, queue: WaitQueue, request: Request[Any]) -> str | None:
        if not self._state.rules.refuse_impossible:
            return None
        for pool, count in queue.needs:
            if pool.hard_limit is not None and count > pool.hard_limit:
                return (
                    f"{count} items of pool {pool.name!r} can never be had at once: at most "
                    f"{pool.hard_limit} may be out; ask for fewer, or raise the pool's maximum"
                )
        kept = self._state.reserved_min_bytes
        least = queue.least_bytes(request)
        if least and kept + least > self._budget.limit:
            return (
                f"a request for {queue.what} can never be served: it takes {least} bytes, and "
                f"the limit is {self._budget.limit}, of which the pools keep {kept} as their "
                f"minimum; raise the limit, or ask for less (smaller pages: items_per_page)"
            )
        return None

    def fail_impossible(self) -> None:
        """Fail the requests that a new limit has made impossible, in the order of arrival; whom
        they held up goes on."""
        if not self._state.rules.refuse_impossible:
            return
        failed = False
        for queue, request in self.in_order():
            why = self._why_impossible(queue, request)
            if why is not None:
                self._leave(queue, request)
                # Not raised here: its traceback would lead to this frame, and so to the buffers
                # of others, for as long as somebody keeps the error.
                request.fail(ImpossibleRequest(why))
                failed = True
        if failed:
            self.run()

    # Serving

    def run(self, among: Sequence[WaitQueue] | None = None, *, joining: bool = False) -> None:
        """Serve those who can be served: of the lines `among`, or of all.

        Not re-entrant: a call from within (a page reclaimed for a request was credited) asks for
        another round, over all lines. Somebody who is `joining` is not a claim yet.
        """
        if self._running:
            self._again = True
            return
        if not self._waiting:
            return
        self._running = True
        try:
            self._round(among)
            while self._again:
                self._again = False
                self._round(None)
        finally:
            self._running = self._again = False
        if not joining:
            self._let_go_idle_pages()

    @property
    def slow_path_may_serve(self) -> bool:
        """True if `try_acquire` may serve what a newcomer's own try could not."""
        return self._ordered or self._pressure

    @property
    def claims_pages(self) -> bool:
        """True if somebody waits who has a better right to new pages than a pool that would
        keep them for later; not under the kernel's rules."""
        if not self.slow_path_may_serve:
            return False
        return bool(self._short or self._debt_pass_limit is not None) or (
            self._ordered and self._next_is_no_claim_yet()
        )

    def _next_is_no_claim_yet(self) -> bool:
        """True if somebody is next to be tried, when the wakeup that is on its way comes."""
        held: set[Pool] = set()
        for queue in sorted(self._active, key=_number):
            if held.isdisjoint(queue.pools) and queue.pool_at_limit() is None:
                return True
            held |= queue.pools
        return False

    @property
    def wants_more_than_a_page(self) -> bool:
        """True if the budget has refused somebody who wants more than one page."""
        return any(not isinstance(queue, PoolQueue) for queue in self._short)

    def wakeup(self, pool: Pool) -> None:
        """Serve who waits for `pool`."""
        if self._waiting:
            queues = self._queues_with(pool)
            if queues:
                self.run(queues)

    def item_returned(self, pool: Pool) -> None:
        """An item of `pool` came home: serve who waits for it; under pressure, let the page go
        if it is idle all the same."""
        self.wakeup(pool)
        if self._pressure and pool.nidle and (self._short or self._budget.debt):
            pool.reclaim()

    def _round(self, among: Sequence[WaitQueue] | None) -> None:
        if self._ordered:
            self._serve_in_order(among)
            return
        for queue in list(self._queues()) if among is None else among:
            while self._serve(queue):
                pass

    def _serve_in_order(self, among: Sequence[WaitQueue] | None) -> None:
        heads = [(_number(queue), queue) for queue in self._active]
        heapq.heapify(heads)
        claimed = self._debt_pass_limit is not None
        pass_limit: float = math.inf if self._debt_pass_limit is None else self._debt_pass_limit
        # For each pool that an older request is blocked on without being a claim: the number of
        # passes after which that request may not be overtaken there.
        held: dict[Pool, float] = {}
        while heads:
            queue = heads[0][1]
            request = queue.requests.head
            assert request is not None
            mine = among is None or queue in among
            passing = False
            if mine and queue.within_minimum():
                pass
            elif not claimed and held.keys().isdisjoint(queue.pools):
                if not mine:
                    # The budget's callback will see to it. Until then it has its place.
                    heapq.heappop(heads)
                    if queue.pool_at_limit() is None:
                        claimed, pass_limit = True, self._pass_limit(request)
                    else:
                        self._hold(held, queue, request)
                    continue
            elif mine and self._may_pass(queue, claimed, pass_limit, held):
                passing = True
            else:
                self._hold(held, queue, request)
                heapq.heappop(heads)
                continue
            was_claim = queue in self._short
            if self._serve(queue):
                self._passes += passing
                if among is not None and (was_claim or isinstance(queue, ManyQueue)):
                    self._again = True  # lines that this round does not look at may gain
                if claimed and self._wanted_by_a_claim(queue):
                    self._again = True  # the claim may wait at a limit now, and hold up nobody
                if queue.requests:
                    heapq.heapreplace(heads, (_number(queue), queue))
                else:
                    heapq.heappop(heads)
                continue
            heapq.heappop(heads)
            if queue in self._short:
                claimed, pass_limit = True, min(pass_limit, self._pass_limit(request))
            else:
                self._hold(held, queue, request)

    def _wanted_by_a_claim(self, queue: WaitQueue) -> bool:
        """True if a claim wants an item of the pools of `queue`, perhaps together with others."""
        return any(not claim.pools.isdisjoint(queue.pools) for claim in self._short)

    def _hold(self, held: dict[Pool, float], queue: WaitQueue, request: Request[Any]) -> None:
        pass_limit = self._pass_limit(request)
        for pool in queue.pools:
            held[pool] = min(held.get(pool, math.inf), pass_limit)

    def _may_pass(
        self, queue: WaitQueue, claimed: bool, pass_limit: float, held: dict[Pool, float]
    ) -> bool:
        if self._order is not Order.BOUNDED or not isinstance(queue, PoolQueue):
            return False
        pool = queue.needs[0][0]
        return self._passes < min(pass_limit, held.get(pool, math.inf)) and not (
            claimed and pool.pages_lacking(1)
        )

    def _pass_limit(self, claim: Request[Any]) -> int:
        """The number of passes from which nobody passes `claim`."""
        if claim.pass_limit is None:
            claim.pass_limit = claim.passes_before + self._allowance_now()
        return claim.pass_limit

    def _allowance_now(self) -> int:
        if self._allowance is not None:
            return self._allowance
        return sum(pool.nout for pool in self._pools) + self._state.reservations

    def _serve(self, queue: WaitQueue) -> bool:
        """Serve the head of `queue`, or fail it for want of memory; False if it must wait."""
        request = queue.requests.head
        if request is None:
            return False
        if queue.pool_at_limit() is not None:
            self._short.discard(queue)
            return False
        cost = queue.cost(request)
        if cost and not self._charge(cost, queue):
            self._short.add(queue)
            return False
        try:
            self._add_pages(queue, cost)
        except MemoryError as error:
            self._depart(queue, request)
            request.fail(_without_frames(error))
            return True
        self._depart(queue, request)
        request.grant(queue.take(request))
        if request.parked:
            self._grants += 1
            waited = self._state.owner_loop.now() - request.since
            self._histogram[waited.bit_length()] += 1
            self._state.observer.tell(EventKind.GRANT, queue.name, request.nbytes, request.number)
        else:
            self._state.observer.tell(EventKind.GET, queue.name, request.nbytes)
        return True

    def _add_pages(self, queue: WaitQueue, charged: int) -> None:
        """Map the pages that `queue` lacks, whose bytes are `charged`; or take it all back."""
        try:
            for pool, count in queue.needs:
                for _ in range(pool.pages_lacking(count)):
                    pool._add_page()
                    charged -= pool.page_size
        except BaseException:
            self._budget.credit(charged)
            for pool in queue.pools:
                pool.reclaim()
            raise

    def _depart(self, queue: WaitQueue, request: Request[Any]) -> None:
        self._short.discard(queue)
        self._leave(queue, request)

    # Room

    def _charge(self, nbytes: int, queue: WaitQueue) -> bool:
        budget = self._budget
        while self._pressure and (lacking := nbytes + budget.allocated - budget.limit) > 0:
            if not self._make_room(lacking, queue):
                break  # else once more: of those let go, what something exports stays charged
        return budget.charge(nbytes)

    def _make_room(self, lacking: int, queue: WaitQueue) -> bool:
        """Let idle pages go, the longest idle first, if they make up for the `lacking` bytes;
        none that `queue` itself needs. False if there are not so many."""
        needs = dict(queue.needs)
        idle = heapq.merge(
            *(pool.spare_pages(needs.get(pool, 0)) for pool in self._pools),
            key=lambda spare: spare[1].empty_since,
        )
        plan: list[tuple[Pool, Page]] = []
        for pool, page in idle:
            plan.append((pool, page))
            lacking -= pool.page_size
            if lacking <= 0:
                break
        else:
            return False
        for pool, page in plan:
            pool._let_go(page)
        return True

    def _let_go_idle_pages(self) -> None:
        """Under pressure: let no page stay idle while a claim waits."""
        if self._pressure and (self._short or self._budget.debt):
            for pool in self._pools:
                if pool.nidle:
                    pool.reclaim()

    def minimum_changed(self, pool: Pool) -> None:
        """What `pool` keeps has changed: some can no longer be served, some are within the
        minimum, and idle pages may be spare now."""
        self.fail_impossible()
        self.wakeup(pool)
        self._let_go_idle_pages()

    def hard_limit_changed(self) -> None:
        """The hard limit of a pool is new: some can be served, or can be never again."""
        self.fail_impossible()
        if self._state.rules.hard_limit_wakes:
            self.run()  # a claim that waits at its limit now holds up nobody any more

    def budget_resized(self) -> None:
        """The limit is new: note or forget the debt, and fail who can no longer be served."""
        self.budget_credited()
        if self._debt_pass_limit is None and self._ordered and self._budget.debt:
            claims = (queue.requests.head for queue in self._short)
            self._debt_pass_limit = min(
                self._passes + self._allowance_now(),
                *(self._pass_limit(claim) for claim in claims if claim is not None),
                math.inf,
            )
        self._update_must_queue()
        self.fail_impossible()
        self._let_go_idle_pages()

    def budget_credited(self) -> None:
        """Bytes came back: the debt may be paid."""
        if self._debt_pass_limit is not None and not self._budget.debt:
            self._debt_pass_limit = None
            self._update_must_queue()

    # Looking

    @property
    def waiting(self) -> int:
        """Requests that wait."""
        return self._waiting

    def statistics(self) -> WaitStatistics:
        """Return a snapshot."""
        return WaitStatistics(
            waiting=self._waiting,
            peak_waiting=self._peak,
            waits=self._waits,
            grants=self._grants,
            cancellations=self._cancellations,
            passes=self._passes,
            histogram=tuple(
                (2**power / 1_000_000, count)
                for power, count in enumerate(self._histogram)
                if count
            ),
        )

    def in_order(self) -> list[tuple[WaitQueue, Request[Any]]]:
        """Everybody who waits, the oldest first."""
        everybody = [(queue, request) for queue in self._active for request in queue.requests]
        return sorted(everybody, key=lambda waiter: waiter[1].number)

    @property
    def ordered(self) -> bool:
        """True unless newcomers barge."""
        return self._ordered

    def nothing_idle(self) -> bool:
        """True if no pool has an idle page that it can do without."""
        return all(next(pool.spare_pages(0), None) is None for pool in self._pools)

    def check(self) -> None:
        """Raise PoolCorruption if an invariant of the lines is broken."""
        requests = [request for queue in self._queues() for request in queue.requests]
        if len(requests) != self._waiting:
            raise PoolCorruption(
                f"{len(requests)} requests stand in the lines, but {self._waiting} are counted"
            )
        if any(request.settled for request in requests):
            raise PoolCorruption("a settled request stands in a line")
        if self._active != {queue for queue in self._queues() if queue.requests}:
            raise PoolCorruption("the lines that somebody waits in are not those noted")
        if not self._short <= self._active:
            raise PoolCorruption("a line without requests is noted as short")
        if self._running or self._again:
            raise PoolCorruption("the lines were left in the middle of a run")
        if self.must_queue != (
            self._ordered and bool(requests or self._debt_pass_limit is not None)
        ):
            raise PoolCorruption("newcomers are not sent where they should go")
        if self._debt_pass_limit is not None and not self._budget.debt:
            raise PoolCorruption("a debt is noted that was paid")
        if self._pressure and (self._short or self._budget.debt) and not self.nothing_idle():
            raise PoolCorruption("a claim waits while a pool has an idle page to spare")


def _number(queue: WaitQueue) -> int:
    """The number of the line's head, which there is."""
    head = queue.requests.head
    assert head is not None
    return head.number


def _without_frames(error: MemoryError) -> MemoryError:
    """Forget where `error` came from, and amid what. Its frames are those of whoever served the
    request, and lead to others and what they hold, for as long as somebody keeps the error."""
    link: BaseException | None = error
    while link is not None:
        link.__traceback__ = None
        link.__context__ = None  # perhaps another's: it is left as it is
        link = link.__cause__
    return error


def _release(granted: Any) -> None:
    """Give back a buffer, several, or a reservation."""
    granted.release()
