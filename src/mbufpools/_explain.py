"""Why am I waiting? The answer of `BufferPools.explain`.

For each waiting request it tells what the request wants, which request goes before it, and which
limit is short by how much. In debug mode it also tells which tasks hold what the request wants, and
whether they wait themselves. A deadlock is reported only if nothing known to the pools can resolve
it: no request can be served, no page is idle, no item is on its way back from another thread, and
no page is kept by an export.

Invariant: an explanation changes no state.
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
    """One request that waits, and the reason."""

    number: int
    """The number of the request, counted from 1 in a pool set; an older request has a lower one."""
    wants: str
    """The name of the pool or pools (``2 x small + 1 x large``); ``bytes`` for a reservation."""
    nbytes: int
    """Bytes that were asked for."""
    task: str
    """The name of the task that waits."""
    task_id: int
    """The task's id, as `anyio.get_current_task` tells it; several tasks may have the same name."""
    seconds: float
    """How long the request has waited, in seconds of the loop's clock."""
    behind: int | None
    """The number of the request that must be served first; 0 is the debt of a lowered limit. None
    if there is none."""
    limit: str | None
    """The limit that the request exceeds: ``budget``, or a pool's name. None if the request only
    has to wait for its turn."""
    short: int
    """How far the request exceeds that limit: bytes of the budget, or items of the pool."""
    wakeup: bool
    """True if a wakeup of all requests that can be served is on its way."""
    holders: tuple[Holder, ...]
    """In debug mode: the holders of what the request waits for."""
    stuck: bool
    """In debug mode: True if every one of these holders waits itself, so none of them will
    release. (A holder is the task that took the lease. If it has passed the lease on to another
    task, that is not known here.)"""

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
            on_the_way = "and its wakeup is on the way" if self.wakeup else "but nothing wakes it"
            text += f"; it can be served, {on_the_way}"
        return text


@dataclass(frozen=True, slots=True)
class Explanation:
    """All waiting requests, the oldest first; as text, the wait-for graph."""

    limit: int
    """The limit of the budget, in bytes."""
    allocated: int
    """Bytes that are charged now."""
    reserved: int
    """Bytes, of those allocated, that reservations hold."""
    exported: int
    """Bytes, of those allocated, of released pages that cannot leave because something still
    exports them, such as a slice of a view."""
    debug: bool
    """True in debug mode."""
    waiters: tuple[WaitingRequest, ...]
    """The waiting requests, the oldest first."""

    @property
    def stuck(self) -> bool:
        """In debug mode: True if a request waits for what only waiting tasks hold: a deadlock."""
        return any(waiter.stuck for waiter in self.waiters)

    def __str__(self) -> str:
        bytes_ = f"{self.allocated} of {self.limit} bytes are allocated"
        if self.reserved:
            bytes_ += f", {self.reserved} of them reserved"
        if not self.waiters:
            return f"no request waits; {bytes_}"
        waiting_tasks = {waiter.task_id: waiter.number for waiter in self.waiters}
        count = len(self.waiters)
        queues = [f"{count} {'waits' if count == 1 else 'wait'}; {bytes_}"]
        if self.exported:
            queues.append(
                f"{self.exported} bytes are in released pages that something still exports "
                f"(a slice of a view that was kept)"
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
                "deadlock: every holder waits itself, so no request is served until one of them is "
                "cancelled (unless a holder has passed what it took on to another task); take all "
                "that a task needs at once, with get_many"
            )
        elif not self.debug:
            queues.append("debug=True records which task holds what")
        return "\n".join(queues)


def explain(state: SetState, waiters: Waiters, *, wakeup: bool) -> Explanation:
    """Explain all waiting requests; `wakeup` says whether a wakeup of all is on its way."""
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
    """Return the number of the oldest request that waits for one of the pools of `queue`."""
    numbers = (
        request.number for other, request in in_order if not other.pools.isdisjoint(queue.pools)
    )
    return next(numbers, None)


def _over(pool: Pool, queue: WaitQueue) -> int:
    """Return by how many items a request of `queue` would exceed the maximum of `pool`."""
    count = dict(queue.needs)[pool]
    return pool.nout + count - (pool.hard_limit or 0)


def _holders(state: SetState, at_limit: Pool | None) -> tuple[Holder, ...]:
    """Return the holders of items of the pool that is at its limit; without such a pool, all."""
    if state.tracker is None:
        return ()
    return tuple(
        holder
        for holder in state.tracker.holders()
        if at_limit is None or holder.pool == at_limit.name
    )
