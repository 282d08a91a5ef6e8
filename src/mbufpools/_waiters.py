"""All requests that wait in one pool set: they join a queue, leave it, and are served.

Models subr_pool.c:pool_runqueue and pool_wakeup, which know the waiters of one pool, and goes on
where they end. `_order` says which head is tried next, and `_reclaim` makes room for it.

A request is in its queue until it is settled and its task is woken. It joins before the queue is
run for the last time, so an item that comes back in between is seen. When the head of a queue
leaves, no page is freed, so the budget's callback does not fire; the queues are run explicitly.

One function waits, `acquire`; all others are plain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from threading import get_ident
from typing import TYPE_CHECKING, Any, TypeVar

import anyio

from ._buffer import Buffer, take
from ._debug import caller
from ._errors import ImpossibleRequest, PoolCorruption, UsageError
from ._events import EventKind
from ._order import Precedence, in_order, turn
from ._page import Item
from ._policies import Order, Reclaim
from ._reclaim import Reclaimer
from ._request import Request
from ._reservation import Reservation
from ._set_state import SetState
from ._supply import AT_LIMIT, RESERVED, Supply
from ._wait_queues import (
    BytesQueue,
    ManyQueue,
    ManyRequest,
    Needs,
    PoolQueue,
    WaitQueue,
    reserve,
)

if TYPE_CHECKING:
    from ._statistics import WaitStatistics

__all__ = ["Waiters"]

T = TypeVar("T")


class Waiters:
    """The wait queues of one pool set.

    Args:
        state: what the set shares.
        order: which request is served first.
        reclaim: when idle pages leave.
        allowance: how many may pass a claim; None is as many as there are leases out when it
            is first tried at the head.
    """

    def __init__(
        self, state: SetState, order: Order, reclaim: Reclaim, allowance: int | None
    ) -> None:
        self._state = state
        self._budget = state.budget
        self.order: Precedence = Precedence(order, allowance, self._leases)
        self.reclaimer: Reclaimer = Reclaimer(state, reclaim is Reclaim.PRESSURE)
        self._pool_queues: list[PoolQueue] = []
        """In the order of the pools' sizes, which is the kernel's order of waking."""
        self._queue_of: dict[Supply, PoolQueue] = {}
        self.bytes_queue: BytesQueue = BytesQueue(state)
        """The queue of the requests for bytes."""
        self._many_queues: dict[Needs, ManyQueue] = {}
        """Those that a request waits in."""
        self.active: dict[WaitQueue, None] = {}
        """The queues that a request waits in."""
        self.must_queue: bool = False
        """True if a new request must join the queue instead of taking a free item."""
        self._running = False
        self._again = False
        self.page_wanted: bool = False
        """True if the budget has refused a request that then went to sleep, or slept already, since
        `Wakeup.WANTED` last ran the requests. A debt that has an order counts as such a request."""
        self._peak = 0
        self._waits = 0
        self.grants: int = 0
        """Parked requests that were served."""
        self._cancellations = 0
        self._histogram = [0] * 64
        """Grants by the bits of their wait in microseconds, which are fewer for 292,000 years."""

    def add_pool(self, supply: Supply) -> PoolQueue:
        """Make the queue of a new pool."""
        queue = PoolQueue(supply)
        supply.rank = len(self.reclaimer.supplies)
        self.reclaimer.supplies.append(supply)
        self._pool_queues.append(queue)
        self._queue_of[supply] = queue
        supply.on_return = self.item_returned
        supply.hand_over = partial(self._hand_over, queue)
        return queue

    def queue_for(self, supplies: Iterable[Supply]) -> WaitQueue:
        """Return the queue of the requests that want just these pools' items at once."""
        counts: dict[Supply, int] = {}
        for supply in supplies:
            counts[supply] = counts.get(supply, 0) + 1
        needs = tuple(
            (supply, counts[supply]) for supply in self.reclaimer.supplies if supply in counts
        )
        return self._many_queues.get(needs) or ManyQueue(needs)

    def _leases(self) -> int:
        out = len(self._state.claims)
        for supply in self.reclaimer.supplies:
            out += supply.nget - supply.nput
        return out

    # Coming and going

    async def acquire(
        self,
        queue: WaitQueue,
        nbytes: int,
        *,
        wants: tuple[tuple[Supply, int], ...] = (),
        yielded: bool = False,
    ) -> Any:
        """Wait in `queue` until `nbytes` bytes, or the items `wants`, are there; return the lease.

        A checkpoint, unless the caller has `yielded` or passes no checkpoints. An exception out of
        the wait gives back what was granted.
        """
        state, owner_loop = self._state, self._state.owner_loop
        task = self.check_caller(queue)
        if state.failure is not None:
            raise state.failure
        if not yielded:
            await anyio.lowlevel.checkpoint_if_cancelled()
        granted: Any = None
        if not self.must_queue or state.broken:
            granted = self.take_at_once(queue, nbytes)
        if granted is None:
            if owner_loop.lost or owner_loop.deferred:
                owner_loop.run_deferred()
            request = self.request(nbytes, wants)
            self.refuse_impossible(queue, request)
            try:
                try:
                    self._join(queue, request, task, parks=True)
                    if request.parked:
                        await request.sleeper(owner_loop.waits)
                        return request.result()
                    granted = request.result()
                except BaseException:
                    self._withdraw(queue, request)
                    raise
            except BaseException:
                if request.after is not None or request.granted is not None:
                    self._give_back(queue, request)  # a Ctrl-C may have ended `_withdraw`
                raise
        if not yielded:
            try:
                await anyio.lowlevel.cancel_shielded_checkpoint()
            except BaseException:
                _release(granted)
                raise
        return granted

    def check_caller(self, queue: WaitQueue) -> Any:
        """Raise UsageError unless the caller may wait in `queue`; return its task."""
        owner_loop = self._state.owner_loop
        if get_ident() != owner_loop.thread:
            owner_loop.raise_misuse()
        task = owner_loop.running_task()
        if self._state.in_task():
            raise UsageError(
                f"a task of the pools' own queue cannot wait for {queue.what}: the wakeup "
                f"that would serve it is queued behind this very task; use get_nowait, or do the "
                f"work in a task of your own"
            )
        return task

    def request(self, nbytes: int, wants: tuple[tuple[Supply, int], ...] = ()) -> Request[Any]:
        """Make a request that arrives now."""
        number, now = next(self._state.numbers), self._state.owner_loop.clock()
        return ManyRequest(wants, number, now) if wants else Request(number, nbytes, now)

    def take_at_once(self, queue: WaitQueue, nbytes: int) -> Any:
        """Take an item, or bytes, for a request that has just come, if no request has a better
        right and the limits allow (``pool_do_get``). Several items are never taken so."""
        state, budget = self._state, self._budget
        if state.failure is not None:
            raise state.failure
        if isinstance(queue, ManyQueue) or (self.must_queue and not state.broken):
            return None
        with state.changing:
            if self.must_queue:  # perhaps only since the repair
                return None
            if isinstance(queue, PoolQueue):
                supply = queue.supply
                quote = supply.quote(1)
                if quote == AT_LIMIT:
                    return None
                if quote > 0:
                    if not budget.charge(quote):
                        return None
                    try:
                        supply.add_page()
                    except BaseException as error:
                        state.refund(quote, error)
                        raise
                granted: Any = take(supply, nbytes)
            elif queue.requests.count or budget.lacks(nbytes):
                return None
            else:
                budget.charge(nbytes)
                granted = reserve(state, nbytes)
            state.observer.tell(EventKind.GET, queue.name, nbytes)
            return granted

    def reserve_at_once(self, nbytes: int) -> Reservation | None:
        """Take bytes behind an open gate, where no request has a better right, no hook is told
        and no holder is noted; or return None if they are not free."""
        if self.bytes_queue.requests.count or self._budget.lacks(nbytes):
            return None
        try:
            self._budget.charge(nbytes)
            return Reservation(self._state, nbytes)
        except BaseException:
            self._state.breaks()
            raise

    def try_acquire(self, queue: WaitQueue, request: Request[T]) -> T | None:
        """Serve `request` now, in its turn, or not at all."""
        if self._state.failure is not None:
            raise self._state.failure
        self.refuse_impossible(queue, request)
        try:
            self._join(queue, request)
            if not request.settled:
                with self._state.changing:  # which may repair the set, and so serve this request
                    self._leave(queue, request)
                    # It was a claim for a moment only, and no page has to leave for it; but it may
                    # have shown that a request that waits in its queue is one.
                    self._let_go_idle_pages()
            return request.result() if request.settled else None
        except BaseException:
            self._give_back(queue, request)
            raise

    def _join(
        self, queue: WaitQueue, request: Request[Any], task: Any = None, *, parks: bool = False
    ) -> None:
        """Append `request`, then run its queue: an item that came back since the first try would
        otherwise be lost on it. If it is not served, it is to wait: its `task` `parks`."""
        state, requests = self._state, queue.requests
        if state.broken:
            state.repair()
        try:  # as `changing`, without its calls
            request.passes_before = self.order.passes
            first = not requests.count
            if first and isinstance(queue, ManyQueue):
                self._many_queues[queue.needs] = queue
            requests.append(request)
            state.waiting += 1
            for supply in queue.supplies:
                supply.wanted += 1
                supply.watched = True
            if first:
                self.active[queue] = None
                self.update_gate()
            if first or self._may_serve_head(queue):
                self.run((queue,), joining=True)
            if parks and request.granted is None and request.error is None:
                request.task = task
                self._park(queue, request)
        except BaseException as error:
            if error is not state.of_memory:
                state.breaks()
            raise

    def _may_serve_head(self, queue: WaitQueue) -> bool:
        """Return False if a newcomer behind the head of `queue` need not run the queue, because
        the head clearly must wait on. Most newcomers park for that reason."""
        if not self.order.ordered:
            return True
        if isinstance(queue, PoolQueue) and self._dry(queue.supply):
            return False
        if self.reclaimer.may_make_room:
            return True
        quote = queue.quote(queue.requests.after)
        return quote == RESERVED or 0 <= quote <= self._budget.available

    def _park(self, queue: WaitQueue, request: Request[Any]) -> None:
        """Note that `request` has to wait."""
        state = self._state
        request.parked = True
        if queue in self.order.short:
            self.page_wanted = True
        self._waits += 1
        if state.waiting > self._peak:
            self._peak = state.waiting
        if isinstance(queue, PoolQueue):
            queue.supply.nwait += 1
        if state.tracker is not None:
            request.where = caller()
        if state.observer.hook is not None:
            state.observer.tell(EventKind.WAIT, queue.name, request.nbytes, request.number)
        if self.reclaimer.pressure and state.supplies_with_idle:
            self._let_go_idle_pages()  # because it waits, so this is told afterwards

    def _leave(self, queue: WaitQueue, request: Request[Any]) -> None:
        """Take `request` out of its queue, if it is still there."""
        if not queue.requests.remove(request):
            return
        self._state.waiting -= 1
        if not queue.requests.count:
            del self.active[queue]
            self.order.short.discard(queue)
            if isinstance(queue, ManyQueue):
                del self._many_queues[queue.needs]
            self.update_gate()
        for supply in queue.supplies:
            supply.wanted -= 1
            if not supply.wanted:
                supply.watch()

    def _withdraw(self, queue: WaitQueue, request: Request[Any]) -> None:
        """The wait ended with an exception: give back what was granted, or leave the queue."""
        if request.parked:
            self._cancellations += request.error is None
        self._give_back(queue, request)
        if request.parked and self._state.observer.hook is not None:
            self._state.observer.tell(EventKind.CANCEL, queue.name, request.nbytes, request.number)

    def _give_back(self, queue: WaitQueue, request: Request[Any]) -> None:
        state = self._state
        try:
            if state.broken:
                state.repair()  # which may serve this request
            try:  # as `changing`, without its calls
                if request.after is not None:
                    was_head = queue.requests.after is request
                    self._leave(queue, request)
                    if was_head:  # no page was freed, so no other call would look
                        self._head_has_left(queue)
            except BaseException as error:
                if error is not state.of_memory:
                    state.breaks()
                raise
        finally:
            if request.granted is not None:
                _release(request.granted)

    def _head_has_left(self, queue: WaitQueue) -> None:
        """Serve the requests that the head of `queue` held up, unless all of them wait in that
        queue and the new head clearly must wait on."""
        if len(self.active) == 1 and queue.requests.count and not self._may_serve_head(queue):
            self.order.pass_limit(queue.requests.after)  # as if it had been tried
        else:
            self.run(None if self.order.ordered else (queue,))

    def fail_all(self, error: Callable[[WaitQueue], BaseException]) -> None:
        """Wake all requests with an error, in the order of arrival."""
        for queue, request in self.in_order():
            if not request.settled:
                request.fail(error(queue))
            self._leave(queue, request)

    def in_order(self) -> list[tuple[WaitQueue, Request[Any]]]:
        """Return all requests that wait, the oldest first."""
        return in_order(self.active)

    def update_gate(self) -> None:
        """Close or open the gate of the gets."""
        state, owner_loop, order = self._state, self._state.owner_loop, self.order
        self.must_queue = order.ordered and (bool(self.active) or order.debt_pass_limit is not None)
        closed = state.broken or state.watched or self.must_queue
        owner_loop.open_to = 0 if closed else owner_loop.thread

    # Requests that can never be served

    def refuse_impossible(self, queue: WaitQueue, request: Request[Any]) -> None:
        """Raise ImpossibleRequest if no release could serve `request`; but not under the kernel's
        rules, where it sleeps."""
        if queue.requests.count and isinstance(queue, PoolQueue):
            return  # then so would be the requests that wait for the same
        why = self._why_impossible(queue, request)
        if why is not None:
            raise ImpossibleRequest(why)

    def _why_impossible(self, queue: WaitQueue, request: Request[Any]) -> str | None:
        if not self._state.rules.refuse_impossible:
            return None
        for supply, count in queue.needs:
            if supply.max_items is not None and count > supply.max_items:
                return (
                    f"{count} items of pool {supply.name!r} can never be had at once: at most "
                    f"{supply.max_items} may be out; ask for fewer, or raise the pool's maximum"
                )
        return queue.why_too_large(request, self._budget.limit, self._state.reserved_min_bytes)

    def fail_impossible(self) -> None:
        """Fail the requests that a new limit has made impossible, in the order of arrival; those
        that they held up go on."""
        if not self._state.rules.refuse_impossible:
            return
        failed = False
        for queue, request in self.in_order():
            why = self._why_impossible(queue, request)
            if why is not None:
                # Not raised here: its traceback would lead to this frame, and so to the buffers
                # of others, for as long as the error is kept.
                request.fail(ImpossibleRequest(why))
                self._leave(queue, request)
                failed = True
        if failed:
            self.run()

    # Serving

    def run(self, among: Sequence[WaitQueue] | None = None, *, joining: bool = False) -> None:
        """Serve the requests that can be served: of the queues `among`, or of all.

        Not re-entrant: a call from within (a page reclaimed for a request was credited) asks for
        another round, over all queues. A request that is `joining` is not a claim yet.
        """
        if self._running:
            self._again = True
            return
        if not self._state.waiting:
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

    def _round(self, among: Sequence[WaitQueue] | None) -> None:
        if self.order.ordered:
            gains = self.order.serve_in_order(self.active, among, self._serve)
            if gains and among is not None and any(queue not in among for queue in self.active):
                self._again = True
            return
        for queue in among or sorted(self.active, key=turn):
            while queue.requests.count and self._serve(queue, queue.quote(queue.head)):
                pass

    @property
    def slow_path_may_serve(self) -> bool:
        """True if `try_acquire` may serve what a newcomer's own try could not."""
        return self.order.ordered or self.reclaimer.pressure

    def cannot_serve_now(self, queue: PoolQueue) -> bool:
        """Return True if a newcomer to `queue` certainly cannot be served, nor can the requests
        before it: the pool has no item, the budget has no room for a page, and no page is idle. A
        try would find the same with more calls."""
        page_size = queue.supply.page_size
        return (
            self._dry(queue.supply)
            and self._budget.limit >= self._state.reserved_min_bytes + page_size  # not impossible
        )

    def _dry(self, supply: Supply) -> bool:
        """Return True if `supply` has no item, the budget no room for its page, and no pool an idle
        page; and it has no maximum, which may make a request impossible."""
        return (
            supply.curpage is None
            and supply.max_items is None
            and self._budget.lacks(supply.page_size)
            and not (self._state.supplies_with_idle and self.reclaimer.any_idle())
        )

    @property
    def claims_pages(self) -> bool:
        """True if a request waits that has a better right to new pages than a pool that would
        keep them for later; not under the kernel's rules."""
        order = self.order
        if order.debt_pass_limit is not None:
            return True
        if not (self.active and self.slow_path_may_serve):
            return False
        return bool(order.short) or (order.ordered and order.next_is_no_claim_yet(self.active))

    @property
    def wants_more_than_a_page(self) -> bool:
        """True if the budget has refused a request that wants more than one page."""
        return any(not isinstance(queue, PoolQueue) for queue in self.order.short)

    def wakeup(self, supply: Supply) -> None:
        """Serve the requests that wait for items of `supply`."""
        if supply.wanted:
            queue = self._queue_of[supply]
            queues: list[WaitQueue] = [queue] if queue.requests.count else []
            self.run(
                queues + [many for many in self._many_queues.values() if supply in many.supplies]
            )

    def _hand_over(self, queue: PoolQueue, item: Item) -> bool:
        """Give `item`, which came back to a pool without free items, to the head of the pool's
        queue, if no other queue has a request. Does what a put and a run of the queues would do,
        with fewer calls. Return False if that is not so simple."""
        state, order, requests = self._state, self.order, queue.requests
        if (
            len(self.active) != 1
            or not requests.count
            or self._running
            or state.tracker is not None  # as in `state.watched`, without its call
            or state.observer.hook is not None
            or state.failure is not None
            or state.broken
            or not order.ordered
            or order.debt_pass_limit is not None
        ):
            return False
        request: Request[Any] = requests.after
        supply = queue.supply
        try:
            buffer = Buffer()
            buffer._pool = supply.owner
            buffer._nbytes = request.nbytes
            buffer._item = item
            supply.nput += 1
            supply.nget += 1
            request.granted = buffer
            request.wake()
            self._leave(queue, request)
            self._count_grant(request)
        except BaseException:
            state.breaks()
            raise
        return True

    def item_returned(self, supply: Supply) -> None:
        """An item came home: serve the requests that wait for it; under pressure, let the page go
        if it is idle all the same."""
        self.wakeup(supply)
        if (
            self.reclaimer.may_make_room
            and supply.nidle
            and (self.order.short or self._budget.debt)
        ):
            supply.reclaim()

    def _serve(self, queue: WaitQueue, quote: int) -> bool:
        """Serve the head of `queue`, or fail it if the system has no memory. Return False if it
        must wait."""
        request = queue.head
        if quote == AT_LIMIT:
            self.order.short.discard(queue)
            return False
        if quote > 0:
            if not self.reclaimer.charge(quote, queue.needs):
                self.order.short.add(queue)
                if request.parked:
                    self.page_wanted = True
                return False
            try:
                self._add_pages(queue, quote)
            except MemoryError as error:
                if error is not self._state.of_memory:
                    self._state.breaks()
                request.fail(_without_frames(error))
                self.order.short.discard(queue)
                self._leave(queue, request)
                return True
        request.granted = queue.take(request)  # from here on the request is settled
        request.wake()
        self.order.short.discard(queue)
        self._leave(queue, request)
        if request.parked:
            self._count_grant(request)
            self._state.observer.tell(EventKind.GRANT, queue.name, request.nbytes, request.number)
        else:
            self._state.observer.tell(EventKind.GET, queue.name, request.nbytes)
        return True

    def _count_grant(self, request: Request[Any]) -> None:
        self.grants += 1
        # as `OwnerLoop.microseconds_since`, without its call
        waited = round((self._state.owner_loop.clock() - request.since) * 1_000_000)
        self._histogram[waited.bit_length()] += 1

    def _add_pages(self, queue: WaitQueue, charged: int) -> None:
        """Map the pages that `queue` lacks, whose bytes are `charged`; or take it all back."""
        try:
            for supply, count in queue.needs:
                for _ in range(supply.pages_lacking(count)):
                    supply.add_page()
                    charged -= supply.page_size
        except BaseException as error:
            if self._state.refund(charged, error):
                for supply in queue.supplies:
                    supply.reclaim()
            raise

    # Room

    def _let_go_idle_pages(self) -> None:
        self.reclaimer.let_go_idle_pages(bool(self.order.short))

    def minimum_changed(self, supply: Supply) -> None:
        """What `supply` keeps has changed: some requests can no longer be served, some are within
        the minimum, and idle pages may be spare now."""
        self.fail_impossible()
        self.wakeup(supply)
        self._let_go_idle_pages()

    def hard_limit_changed(self) -> None:
        """The hard limit of a pool is new: some requests can be served, or can be never again."""
        self.fail_impossible()
        if self._state.rules.hard_limit_wakes:
            self.run()  # a claim that waits at its limit now holds up no request any more

    def budget_resized(self) -> None:
        """The limit is new: note or forget the debt, and fail what can no longer be served."""
        self.order.note_debt(self._budget.debt)
        self.update_gate()
        self.fail_impossible()
        self._let_go_idle_pages()

    def budget_credited(self) -> None:
        """Bytes came back: the debt may be paid."""
        if self.order.debt_pass_limit is not None:
            self.page_wanted = True  # the debt, which is the oldest claim, wanted the bytes
            self.order.forget_paid_debt(self._budget.debt)
            self.update_gate()

    # Looking

    def statistics(self) -> WaitStatistics:
        """Return a snapshot."""
        from ._statistics import WaitStatistics

        return WaitStatistics(
            waiting=self._state.waiting,
            peak_waiting=self._peak,
            waits=self._waits,
            grants=self.grants,
            cancellations=self._cancellations,
            passes=self.order.passes,
            histogram=tuple(
                (2**power / 1_000_000, count)
                for power, count in enumerate(self._histogram)
                if count
            ),
        )

    def rebuild(self) -> None:
        """Compute all that follows from the queues again, after an exception in the middle of a
        step; finish the requests that are settled, and serve those that can be served."""
        self._running = self._again = False
        queues = dict.fromkeys((*self._pool_queues, *self._many_queues.values(), self.bytes_queue))
        queues.update(self.active)
        for queue in queues:
            for request in list(queue.requests):
                if request.settled:
                    request.wake()
                    queue.requests.remove(request)
        self.active = {queue: None for queue in queues if queue.requests.count}
        self._many_queues = {
            queue.needs: queue for queue in self.active if isinstance(queue, ManyQueue)
        }
        self._state.waiting = sum(len(queue.requests) for queue in self.active)
        self.order.short.intersection_update(self.active)
        for supply in self.reclaimer.supplies:
            supply.wanted = sum(
                len(queue.requests) for queue in self.active if supply in queue.supplies
            )
            supply.watch()
        self.budget_credited()
        self.budget_resized()  # a limit may be new, too
        self.run()

    def check(self) -> None:
        """Raise PoolCorruption if an invariant of the queues is broken."""
        queues = (*self._pool_queues, *self._many_queues.values(), self.bytes_queue)
        requests = [request for queue in queues for request in queue.requests]
        order = self.order
        if len(requests) != self._state.waiting:
            raise PoolCorruption(
                f"{len(requests)} requests stand in the queues, "
                f"but {self._state.waiting} are counted"
            )
        if any(request.settled for request in requests):
            raise PoolCorruption("a settled request stands in a queue")
        if self.active.keys() != {queue for queue in queues if queue.requests.count}:
            raise PoolCorruption("the queues that a request waits in are not those noted")
        if not order.short <= self.active.keys():
            raise PoolCorruption("a queue without requests is noted as short")
        if self._running or self._again:
            raise PoolCorruption("the queues were left in the middle of a run")
        state = self._state
        must_queue = order.ordered and bool(self.active or order.debt_pass_limit is not None)
        closed = state.broken or state.watched or must_queue
        if must_queue != self.must_queue or state.owner_loop.open_to != (
            0 if closed else state.owner_loop.thread
        ):
            raise PoolCorruption("newcomers are not sent where they should go")
        for supply in self.reclaimer.supplies:
            wanted = sum(len(queue.requests) for queue in queues if supply in queue.supplies)
            if wanted != supply.wanted or (wanted and not supply.watched):
                raise PoolCorruption(f"pool {supply.name!r} does not report each put")
        if order.debt_pass_limit is not None and not self._budget.debt:
            raise PoolCorruption("a debt is noted that was paid")
        if (
            self.reclaimer.pressure
            and (order.short or self._budget.debt)
            and not self.reclaimer.nothing_idle()
        ):
            raise PoolCorruption("a claim waits while a pool has an idle page to spare")


def _without_frames(error: MemoryError) -> MemoryError:
    """Forget where `error` came from, and amid what. Its frames are those of the call that served
    the request, and lead to other tasks and what they hold, for as long as the error is kept."""
    link: BaseException | None = error
    while link is not None:
        link.__traceback__ = None
        link.__context__ = None  # perhaps another's: it is left as it is
        link = link.__cause__
    return error


def _release(granted: Any) -> None:
    """Give back a buffer, several, or a reservation."""
    granted.end()
