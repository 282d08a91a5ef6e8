"""Why am I waiting? The answer of `BufferPools.explain`.

Who waits, for what, behind whom, and which limit is short by how much; in debug mode also who
holds what is waited for, and whether he waits himself. A knot is told of only where nothing that
the pools know of can undo it: nobody can be served, no page is idle, and none on its way home.
Uses `_state`, `_ledger`, `_queue`, `_request` and `_waiters`, and changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ._debug import Holder
from ._request import Request
from ._set_state import SetState
from ._wait_queues import WaitQueue
from ._waiters import Waiters

if TYPE_CHECKING:
    from ._pool import Pool

__all__ = ["Explanation", "WaitingRequest", "explain"]


@dataclass(frozen=True, slots=True)
class WaitingRequest:
    """One request that waits, and why."""

    number: int
    """Counted from 1 in a pool set: who came first."""
    wants: str
    """The pool's name, those of several (``2 x small + 1 x large``), or ``bytes``."""
    nbytes: int
    """Bytes asked for."""
    task: str
    """The name of the task that waits."""
    task_id: int
    """As `anyio.get_current_task` tells it, for several may have one name."""
    seconds: float
    """How long it has waited, by the loop's clock."""
    behind: int | None
    """The number of the request that goes first; 0 is the debt of a lowered limit."""
    limit: str | None
    """The limit in the way: ``budget``, or a pool's name; None if it only has to wait its turn."""
    short: int
    """How far beyond that limit it would go: bytes of the budget, or items of the pool."""
    wakeup: bool
    """Whether a wakeup of everybody who can be served is on its way."""
    holders: tuple[Holder, ...]
    """In debug mode: who holds what it waits for."""
    stuck: bool
    """In debug mode: every one of these holders waits himself, so none of them will release. (The
    holder is the task that took it. If it has handed it on to another, that is not known here.)"""

    def __str__(self) -> str:
        text = (
            f"#{self.number} task {self.task!r} has waited {self.seconds:.6g} s "
            f"for {self.nbytes} bytes{'' if self.wants == 'bytes' else f' of {self.wants}'}"
        )
        if self.behind is not None:
            text += f", behind {f'#{self.behind}' if self.behind else 'the debt'}"
        if self.limit == "budget":
            text += f"; the budget is short of {self.short} bytes"
        elif self.limit is not None:
            items = "1 item" if self.short == 1 else f"{self.short} items"
            text += f"; pool {self.limit!r} is short of {items} of its maximum"
        elif self.behind is None:
            on_the_way = "and its wakeup is on the way" if self.wakeup else "but nobody wakes it"
            text += f"; it can be served, {on_the_way}"
        return text


@dataclass(frozen=True, slots=True)
class Explanation:
    """Everybody who waits, the oldest first; as text, the wait-for graph."""

    limit: int
    """Bytes."""
    allocated: int
    """Bytes."""
    reserved: int
    """Bytes, of those allocated, that reservations hold."""
    exported: int
    """Bytes, of those allocated, of pages that nobody holds, but that cannot leave as long as
    something exports them, such as a slice of a view."""
    debug: bool
    waiters: tuple[WaitingRequest, ...]

    @property
    def stuck(self) -> bool:
        """In debug mode: somebody waits for what was taken by waiting tasks only."""
        return any(waiter.stuck for waiter in self.waiters)

    def __str__(self) -> str:
        bytes_ = f"{self.allocated} of {self.limit} bytes are allocated"
        if self.reserved:
            bytes_ += f", {self.reserved} of them reserved"
        if not self.waiters:
            return f"nobody waits; {bytes_}"
        waiting_tasks = {waiter.task_id: waiter.number for waiter in self.waiters}
        count = len(self.waiters)
        queues = [f"{count} {'waits' if count == 1 else 'wait'}; {bytes_}"]
        if self.exported:
            queues.append(
                f"{self.exported} bytes are of pages that nobody holds, and something still "
                f"exports (a slice of a view that was kept)"
            )
        told: tuple[Holder, ...] = ()
        for waiter in self.waiters:
            queues.append(str(waiter))
            if waiter.holders and waiter.holders == told:
                queues.append("    held: the same")
                continue
            told = waiter.holders
            for holder in waiter.holders:
                number = waiting_tasks.get(holder.task_id)
                waits = f", which waits itself (#{number})" if number is not None else ""
                queues.append(f"    held: {holder}{waits}")
        if self.stuck:
            queues.append(
                "every holder waits itself: unless one has handed on what it took, nothing moves "
                "until one of them is cancelled; take all that a task needs at once, with get_many"
            )
        elif not self.debug:
            queues.append("who holds what is known with debug=True")
        return "\n".join(queues)


def explain(state: SetState, waiters: Waiters, *, wakeup: bool) -> Explanation:
    """Explain everybody who waits; `wakeup` says whether a wakeup of all is on its way."""
    budget = state.budget
    in_order = waiters.in_order()
    waiting = {request.task_id for _, request in in_order}
    exported = sum(nbytes for _, nbytes, _ in state.quarantine)
    held: set[Pool] = set()
    goes_first: int | None = 0 if waiters.ordered and budget.debt else None
    explained = []
    firsts: dict[WaitQueue, int] = {}
    for queue, request in in_order:
        at_limit = queue.pool_at_limit()
        lacking = queue.cost(request) - max(0, budget.limit - budget.allocated)
        behind = goes_first if waiters.ordered else firsts.get(queue)
        if behind is None and not held.isdisjoint(queue.pools):
            behind = _first_with(in_order, queue)
        firsts.setdefault(queue, request.number)
        limit, short = None, 0
        if at_limit is not None:
            limit, short = at_limit.name, _over(at_limit, queue)
            held |= queue.pools
        elif lacking > 0:
            limit, short = "budget", lacking
            if goes_first is None:
                goes_first = request.number
        holders = _holders(state, at_limit)
        explained.append(
            WaitingRequest(
                number=request.number,
                wants=queue.name,
                nbytes=request.nbytes,
                task=request.task,
                task_id=request.task_id,
                seconds=(state.owner_loop.now() - request.since) / 1_000_000,
                behind=behind,
                limit=limit,
                short=short,
                wakeup=wakeup,
                holders=holders,
                stuck=bool(holders) and all(holder.task_id in waiting for holder in holders),
            )
        )
    if (
        exported
        or state.owner_loop.deferred
        or not waiters.nothing_idle()
        or any(waiter.limit is None and waiter.behind is None for waiter in explained)
    ):
        explained = [replace(waiter, stuck=False) for waiter in explained]
    return Explanation(
        limit=budget.limit,
        allocated=budget.allocated,
        reserved=state.reserved,
        exported=exported,
        debug=state.tracker is not None,
        waiters=tuple(explained),
    )


def _first_with(in_order: list[tuple[WaitQueue, Request[Any]]], queue: WaitQueue) -> int | None:
    """The oldest request that waits for one of the pools of `queue`."""
    numbers = (
        request.number for other, request in in_order if not other.pools.isdisjoint(queue.pools)
    )
    return next(numbers, None)


def _over(pool: Pool, queue: WaitQueue) -> int:
    count = dict(queue.needs)[pool]
    return pool.nout + count - (pool.hard_limit or 0)


def _holders(state: SetState, at_limit: Pool | None) -> tuple[Holder, ...]:
    """Who holds items of the pool that is at its limit, or any of the budget."""
    if state.tracker is None:
        return ()
    return tuple(
        holder
        for holder in state.tracker.holders()
        if at_limit is None or holder.pool == at_limit.name
    )
