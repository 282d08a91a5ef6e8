"""Why am I waiting? The answer of `BufferPools.explain`.

For each waiting request it tells what the request wants, which request goes before it, and which
limit is short by how much. In debug mode it also tells which tasks hold what the request wants, and
whether they wait themselves. A deadlock is reported only if nothing known to the pools can resolve
it: no request can be served, no page is idle, no item is on its way back from another thread, and
no page is kept by an export. If only the release of what an ended task took would resolve it, it is
not known whether it is a deadlock: the pools do not know if another task has that now.

Invariant: an explanation changes no state.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ._debug import Holder
from ._page import Page, PageLists
from ._set_state import SetState
from ._supply import Supply
from ._wait_queues import WaitQueue
from ._waiters import Waiters

__all__ = ["Explanation", "WaitingRequest", "explain"]


SHOWN = 20
"""The most requests that the text of an explanation tells of, and the most holders of each."""


@dataclass(frozen=True, slots=True)
class WaitingRequest:
    """One request that waits, and the reason.

    Attributes:
        number: The number of the request, counted from 1 in a pool set; an older request has a
            lower one.
        wants: The name of the pool or pools (``2 x small + 1 x large``); ``bytes`` for a
            reservation.
        what: The same as a part of a sentence, such as ``pool 'small'``.
        nbytes: Bytes that were asked for.
        charge: Bytes that the budget must have for it: those of a reservation, or of the whole
            pages that are lacking.
        task: The name of the task that waits.
        task_id: The task's id, as `anyio.get_current_task` tells it; several tasks may have the
            same name.
        seconds: How long the request has waited, in seconds of the loop's clock.
        behind: The number of the request that must be served first; 0 is the debt of a lowered
            limit. None if there is none.
        limit: The limit that the request exceeds: ``budget``, or a pool's name. None if the request
            only has to wait for its turn.
        short: How far the request exceeds that limit: bytes of the budget, or items of the pool.
        wakeup: True if a wakeup of all requests that can be served is on its way.
        holders: In debug mode: the holders of what the request waits for.
        stuck: In debug mode: True if it stays unserved though every task that does not wait
            releases all that it holds, and every task that is served then does so, too. None if
            that depends on what an ended task took, because it is not known who has that now.
            None without debug mode, because it is not known which task holds what. (A holder is
            the task that took the lease, or that has entered its ``with`` since. A lease that was
            passed on, and lies in a queue, still counts as that task's; one that was given to a
            `PooledBufferedProtocol` does not.)
    """

    number: int
    wants: str
    what: str
    nbytes: int
    charge: int
    task: str
    task_id: int
    seconds: float
    behind: int | None
    limit: str | None
    short: int
    wakeup: bool
    holders: tuple[Holder, ...]
    stuck: bool | None

    def __str__(self) -> str:
        text = (
            f"#{self.number} task {self.task!r} has waited {_short(self.seconds)} s "
            f"for {self.nbytes} bytes{'' if self.what == 'bytes' else f' of {self.what}'}"
        )
        if self.behind is not None:
            text += f", behind {f'#{self.behind}' if self.behind else 'the debt'}"
        if self.limit == "budget":
            text += f"; the budget is short of {self.short} bytes"
            if self.charge != self.nbytes:
                text += f" (the request needs whole pages: {self.charge} bytes)"
        elif self.limit is not None:
            items = "1 item" if self.short == 1 else f"{self.short} items"
            text += f"; pool {self.limit!r} is short of {items} of its maximum"
        elif self.behind is None:
            on_the_way = "and its wakeup is on the way" if self.wakeup else "but nothing wakes it"
            text += f"; it can be served, {on_the_way}"
        return text


@dataclass(frozen=True, slots=True)
class Explanation:
    """All waiting requests, the oldest first; as text, the wait-for graph, with at most 20 requests
    and 20 holders of each.

    Attributes:
        limit: The limit of the budget, in bytes.
        allocated: Bytes that are charged now.
        reserved: Bytes, of those allocated, that reservations hold.
        exported: Bytes, of those allocated, of released items and pages that something still
            exports, such as a slice of a view.
        pinned: Bytes, of those allocated, that are free in pages whose other items are out: only
            requests of the same pool can have them.
        debug: True in debug mode.
        waiters: The waiting requests, the oldest first.
        cached: For each pool whose CPUs have free items in their caches: its name, and how many. No
            request that waits sees them.
        holders: In debug mode: the holders of all leases that are out.
    """

    limit: int
    allocated: int
    reserved: int
    exported: int
    pinned: int
    debug: bool
    waiters: tuple[WaitingRequest, ...]
    cached: tuple[tuple[str, int], ...] = ()
    holders: tuple[Holder, ...] = ()

    @property
    def stuck(self) -> bool | None:
        """In debug mode: True if a request waits for what only waiting tasks hold: a deadlock. (A
        full queue of buffers between tasks looks the same, because a buffer in the queue counts as
        that of the task which took it. So take it for a deadlock only if it stays so.)
        None if requests wait and the pools do not know which task holds what they need: debug mode
        is off, or the task that took it has ended."""
        if any(waiter.stuck for waiter in self.waiters):
            return True
        return None if any(waiter.stuck is None for waiter in self.waiters) else False

    def __str__(self) -> str:
        bytes_ = f"{self.allocated} of {self.limit} bytes are allocated"
        if self.reserved:
            bytes_ += f", {self.reserved} of them reserved"
        if not self.waiters:
            return "\n".join([f"no request waits; {bytes_}", *_held(self.holders, {})])
        waiting_tasks = {waiter.task_id: waiter.number for waiter in self.waiters}
        count = len(self.waiters)
        lines = [f"{count} {'request waits' if count == 1 else 'requests wait'}; {bytes_}"]
        if self.exported:
            lines.append(
                f"{self.exported} bytes are in released items or pages that something still "
                f"exports (a slice of a view that was kept)"
            )
        if self.pinned:
            lines.append(
                f"{self.pinned} bytes are free in pages that are partly in use, so only the same "
                f"pools can have them (smaller pages: items_per_page)"
            )
        for pool, items in self.cached:
            are = (
                "1 free item of pool {} is"
                if items == 1
                else f"{items} free items of pool {{}} are"
            )
            lines.append(f"{are.format(repr(pool))} in the caches of CPUs, where no request looks")
        told: tuple[Holder, ...] = ()
        shown = self._shown()
        for waiter in shown:
            lines.append(str(waiter))
            if waiter.holders and waiter.holders == told:
                lines.append("    held: the same")
                continue
            told = waiter.holders
            lines += _held(told, waiting_tasks)
        if len(shown) < count:
            lines.append(f"and {count - len(shown)} more requests wait (`waiters` has all)")
        if self.stuck:
            lines.append(
                "deadlock: every holder waits itself, so no request is served until one of them is "
                "cancelled (unless a holder has passed what it took on to another task); take all "
                "that a task needs at once, with get_many"
            )
            if self._buffers_lack_what_is_reserved():
                lines.append(
                    "reservations hold what buffers need; give the pools of these buffers a "
                    "min_items, whose memory no reservation can take"
                )
        elif not self.debug:
            lines.append("debug=True records which task holds what")
        elif self.stuck is None:
            lines.append(
                "it is not known whether this is a deadlock: a task that has ended took what the "
                "requests need, and the pools do not know whether another task will release it"
            )
        return "\n".join(lines)

    def _buffers_lack_what_is_reserved(self) -> bool:
        """True if a task in the deadlock holds a reservation, and one waits for a buffer."""
        stuck = [waiter for waiter in self.waiters if waiter.stuck]
        tasks = {waiter.task_id for waiter in stuck}
        return any(waiter.what != "bytes" for waiter in stuck) and any(
            holder.pool == "bytes" and holder.task_id in tasks
            for waiter in stuck
            for holder in waiter.holders
        )

    def _shown(self) -> Sequence[WaitingRequest]:
        """The requests that the text tells of. Of too many, those in a deadlock come first."""
        if len(self.waiters) <= SHOWN:
            return self.waiters
        return sorted(self.waiters, key=lambda waiter: not waiter.stuck)[:SHOWN]


def _held(holders: Sequence[Holder], waiting_tasks: Mapping[int, int]) -> Iterator[str]:
    """Yield the lines of some holders; `waiting_tasks` has the requests of the tasks that wait."""
    for holder in holders[:SHOWN]:
        number = waiting_tasks.get(holder.task_id)
        waits = f", which waits itself (#{number})" if number is not None else ""
        yield f"    held: {holder}{waits}"
    if len(holders) > SHOWN:
        yield f"    and {len(holders) - SHOWN} more (`holders` has all)"


def _short(seconds: float) -> str:
    """`seconds` with three digits, or as many as the whole seconds have."""
    return f"{seconds:.0f}" if seconds >= 1000 else f"{seconds:.3g}"


def explain(state: SetState, waiters: Waiters, *, wakeup: bool) -> Explanation:
    """Explain all waiting requests; `wakeup` says whether a wakeup of all is on its way."""
    budget = state.budget
    in_order = waiters.in_order()
    held_now = [] if state.tracker is None else state.tracker.held()
    deadlocked = _deadlocked(state, waiters, held_now)
    exported = sum(nbytes for nbytes, _ in state.quarantine.values()) + sum(
        supply.stride * len(supply.quarantined) for supply in waiters.reclaimer.supplies
    )
    held: set[Supply] = set()
    goes_first: int | None = 0 if waiters.order.ordered and budget.debt else None
    explained = []
    firsts: dict[WaitQueue, int] = {}
    firsts_of_pool: dict[Supply, int] = {}
    for queue, request in in_order:
        for supply in queue.supplies:
            firsts_of_pool.setdefault(supply, request.number)
    holders: dict[Supply | None, tuple[Holder, ...]] = {}
    for queue, request in in_order:
        at_limit = queue.limiting()
        charge = max(0, queue.quote(request))
        lacking = charge - max(0, budget.limit - budget.allocated)
        behind = goes_first if waiters.order.ordered else firsts.get(queue)
        if behind is None and not held.isdisjoint(queue.supplies):
            behind = min(firsts_of_pool[supply] for supply in queue.supplies)
        firsts.setdefault(queue, request.number)
        limit, short = None, 0
        if at_limit is not None:
            limit, short = at_limit.name, _over(at_limit, queue)
            held |= queue.supplies
        elif lacking > 0:
            limit, short = "budget", lacking
            if goes_first is None:
                goes_first = request.number
        if at_limit not in holders:
            holders[at_limit] = tuple(
                holder for _, holder in held_now if at_limit is None or holder.pool == at_limit.name
            )
        explained.append(
            WaitingRequest(
                number=request.number,
                wants=queue.name,
                what=queue.what,
                nbytes=request.nbytes,
                charge=charge,
                task=request.task_name,
                task_id=request.task_id,
                seconds=state.owner_loop.microseconds_since(request.since) / 1_000_000,
                behind=behind,
                limit=limit,
                short=short,
                wakeup=wakeup,
                holders=holders[at_limit],
                stuck=None if state.tracker is None else deadlocked.get(request.number, False),
            )
        )
    if state.tracker is not None and (
        exported
        or state.owner_loop.deferred
        or state.owner_loop.lost
        or not waiters.reclaimer.nothing_idle()
        or any(waiter.limit is None and waiter.behind is None for waiter in explained)
    ):
        explained = [replace(waiter, stuck=False) for waiter in explained]
    return Explanation(
        limit=budget.limit,
        allocated=budget.allocated,
        reserved=state.reserved,
        exported=exported,
        pinned=sum(
            (supply.nfree - supply.nidle * supply.items_per_page) * supply.item_size
            for supply in waiters.reclaimer.supplies
        ),
        debug=state.tracker is not None,
        waiters=tuple(explained),
        cached=tuple(
            (supply.name, caches.items)
            for supply in waiters.reclaimer.supplies
            if (caches := supply.statistics(0).caches) is not None and caches.items
        ),
        holders=tuple(holder for _, holder in held_now),
    )


def _deadlocked(
    state: SetState, waiters: Waiters, held: Sequence[tuple[Any, Holder]]
) -> dict[int, bool | None]:
    """Return, for the numbers of requests: True if no release of what is `held` can serve it; None
    if only the release of what ended tasks took can. All other requests can be served."""
    if state.tracker is None:
        return {}
    stuck: dict[int, bool | None] = {}
    if any(holder.ended for _, holder in held):
        stuck = dict.fromkeys(_unserved(state, waiters, held, ended_release=False), None)
    return stuck | dict.fromkeys(_unserved(state, waiters, held, ended_release=True), True)


def _unserved(
    state: SetState,
    waiters: Waiters,
    held: Sequence[tuple[Any, Holder]],
    *,
    ended_release: bool,
) -> set[int]:
    """Return the numbers of the requests that no release can serve.

    A task that does not wait may release all that it holds. If a request can be served with that,
    its task may go on, and release what it holds as well; and so on. What is left is a deadlock.
    What an ended task took is released, too, if `ended_release`.
    """
    in_order = waiters.in_order()
    supplies = waiters.reclaimer.supplies
    waiting = {request.task_id: request.number for _, request in in_order}
    stuck = {request.number for _, request in in_order}
    order = waiters.order
    while True:
        held_on = {task for task, number in waiting.items() if number in stuck}
        kept = [
            what
            for what, holder in held
            if (not ended_release if holder.ended else holder.task_id in held_on)
        ]
        free, available = _when_only(state, supplies, kept)
        blocked = order.ordered and available < 0
        served = set()
        for queue, request in in_order:
            if request.number not in stuck:
                continue
            here = bool(queue.needs) and all(free[s][0] >= n for s, n in queue.needs)
            fits = all(s.max_items is None or free[s][1] + n <= s.max_items for s, n in queue.needs)
            reserved = all(free[s][1] + n <= s.min_items for s, n in queue.needs)
            cost = sum(
                max(0, -(-(n - free[s][0]) // s.items_per_page)) * s.page_size
                for s, n in queue.needs
            )
            if not queue.needs:
                cost = request.nbytes
            may_pass = here and (reserved or order.may_still_pass(queue))
            if fits and cost <= max(0, available) and (not blocked or may_pass):
                served.add(request.number)
            elif fits and order.ordered:
                blocked = True
        if not served:
            return stuck
        stuck -= served


def _when_only(
    state: SetState, supplies: list[Supply], kept: Iterable[Any]
) -> tuple[dict[Supply, tuple[int, int]], int]:
    """Return the items of each supply that are free, and that are out, and the bytes that may be
    charged, once only what is `kept` is out: pages with the number of an item, and claims."""
    held: dict[Page, int] = {}
    reserved = 0
    for what in kept:
        if isinstance(what, tuple):
            held[what[0]] = held.get(what[0], 0) + 1
        else:
            reserved += state.claims.get(what, 0)
    pages: dict[PageLists, list[int]] = {}
    for page, count in held.items():
        pages.setdefault(page.lists, []).append(count)
    available = state.budget.limit - reserved
    free: dict[Supply, tuple[int, int]] = {}
    for supply in supplies:
        used = pages.get(supply, [])
        npages = max(len(used), supply.min_pages)
        available -= npages * supply.page_size
        free[supply] = (npages * supply.items_per_page - sum(used), sum(used))
    return free, available


def _over(pool: Supply, queue: WaitQueue) -> int:
    """Return by how many items a request of `queue` would exceed the maximum of `pool`."""
    count = dict(queue.needs)[pool]
    return pool.statistics(0).nout + count - (pool.max_items or 0)
