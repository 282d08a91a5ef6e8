"""Budget, pools, task queue and gc wired together: an application's entry point.

The life of a page: a pool charges the budget, then maps the page. When the page leaves, it is
unmapped, then the budget is credited, and its callback runs the wakeup policy (`_page_left`). Under
the patch's policy that adds one task to the task queue, and the task wakes every pool. The gc is a
task of the same queue. So the gc, the wakeup after freed pages and the wakeup after a new limit
never run at the same time, and several wakeups coalesce into one run.

Invariant (`check`): every charged byte is in a page of a pool, in a page that something still
exports, or in a reservation.
"""

from __future__ import annotations

import gc
import warnings
from bisect import bisect_left
from collections.abc import Coroutine, Iterable, Mapping
from threading import get_ident
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

import anyio

from ._budget import Budget
from ._buffer import Buffer, Buffers
from ._debug import LeaseTracker
from ._errors import ConfigurationError, OversizeRequest, PoolCorruption, RequestError
from ._events import Hook, Observer
from ._log import logger
from ._memory import MappedMemory, Memory
from ._owner_loop import OwnerLoop
from ._policies import (
    APPLICATION,
    CurPage,
    Order,
    OrderName,
    Reclaim,
    ReclaimName,
    Rules,
    Wakeup,
    WakeupName,
    choose,
)
from ._pool import Pool
from ._request import Request
from ._reservation import Reservation, Reserving
from ._set_state import SetState
from ._sizes import require_count
from ._spec import ALIGNMENT, PoolSpec
from ._supply import Supply
from ._taskq import Task, TaskQueue
from ._waiters import Waiters

if TYPE_CHECKING:
    from ._explain import Explanation
    from ._statistics import PoolsStatistics

__all__ = ["BufferPools"]

LARGEST_LOOKED_UP = 1024
"""Cache lines of the largest request whose pool is found by a table; others are searched for."""
COLLECT_PERIOD = 30_000_000
"""Microseconds of the loop's clock between two runs of Python's garbage collector, at least."""
GC_PERIOD = 1.0
"""Seconds of the loop's clock between two runs of the gc (``pool_gc_tick``)."""


class BufferPools:
    """Pools of buffers of several sizes that share one limit.

    An async context manager, entered once, which binds it to the running event loop::

        async with BufferPools("64 MiB", [2048, 65536]) as pools:
            with await pools.get(1500) as buffer:
                ...

    At the end each request that still waits fails with `anyio.ClosedResourceError`. Buffers that
    are out stay usable, and their release still gives the memory back. A `ResourceWarning` and a
    line of the logger ``mbufpools`` count them. An exception of the body is raised as it is, not in
    an exception group.

    Args:
        limit: bytes that the pages of all pools may take.
        sizes: the size classes, each an item size in bytes or a `PoolSpec`.
        name: the name of the set, for messages.
        wakeup: what wakes the requests of the other pools when a page leaves; see `Wakeup`.
        order: which request is served first; see `Order`.
        reclaim: when idle pages leave; see `Reclaim`.
        max_passes: for ``order="bounded"``: how many requests may be served past a waiting
            claim. By default as many as there are leases out when the request becomes the claim;
            while it stood behind another claim, it may have been passed as often as that one
            allowed, in addition.
        near_limit_margin: bytes, for ``wakeup="near-limit"``: a page that leaves wakes the
            waiting requests only if fewer bytes than this are then available. The default is
            twice the largest page, which is safe. With less than the freed page and the page
            that a request waits for together, that request may never be woken.
        fast_acquire: True makes a get or a `reserve` that does not have to wait no checkpoint.
        debug: True records which task took which lease, and where, for `explain` and for the
            report of leaks. It also fills free items with a pattern and checks the pattern, to
            find writes to released items. A get and its release cost several times as much then,
            and many times as much for a large item, so it is for tests and for the search of a
            fault.
        collect_garbage: True runs Python's garbage collector when a request has waited for a
            second while leases are out and no grants are made: it finds leases that were dropped
            in reference cycles, which an idle process does not. At most once in 30 seconds, and
            never in the lab.
        memory: where pages come from; by default private anonymous mappings.
            `AccountedMemory()` only counts, for simulations.
        hook: called with an `Event` at each step.

    Raises:
        ConfigurationError: a size, a limit or a policy is not valid.
        TypeError: a number is not an integer, or another value has the wrong type.
    """

    _rules: Rules = APPLICATION

    def __init__(
        self,
        limit: int | str,
        sizes: Iterable[int | str | PoolSpec],
        *,
        name: str = "BufferPools",
        wakeup: Wakeup | WakeupName = Wakeup.DEFERRED,
        order: Order | OrderName = Order.BOUNDED,
        reclaim: Reclaim | ReclaimName = Reclaim.PRESSURE,
        max_passes: int | None = None,
        near_limit_margin: int | None = None,
        fast_acquire: bool = False,
        debug: bool = False,
        collect_garbage: bool = True,
        memory: Memory | None = None,
        hook: Hook | None = None,
    ) -> None:
        self._wire(
            limit,
            sizes,
            name=name,
            wakeup=wakeup,
            order=order,
            reclaim=reclaim,
            max_passes=max_passes,
            near_limit_margin=near_limit_margin,
            fast_acquire=fast_acquire,
            debug=debug,
            collect_garbage=collect_garbage,
            memory=memory,
            hook=hook,
        )

    def _wire(
        self,
        limit: int | str,
        sizes: Iterable[int | str | PoolSpec],
        *,
        name: str,
        wakeup: Wakeup | str,
        order: Order | str,
        reclaim: Reclaim | str,
        near_limit_margin: int | None,
        fast_acquire: bool,
        debug: bool,
        collect_garbage: bool,
        memory: Memory | None,
        hook: Hook | None,
        max_passes: int | None = None,
        curpage: CurPage | str = CurPage.REFRESHED,
    ) -> None:
        """Make the parts and connect them; the constructors of both kinds of set end here. This
        method checks the options. Only `BufferPools` has `max_passes`, and only `MbufPools` has
        `curpage`."""
        self.name: str = name
        self._wakeup = choose(Wakeup, wakeup)
        if max_passes is not None:
            require_count(max_passes, "max_passes", unit="passes")
        source: object = MappedMemory() if memory is None else memory
        if isinstance(source, type) or not isinstance(source, Memory):
            raise TypeError(f"memory is {source!r}; expected an instance, as AccountedMemory()")
        self._owner_loop = OwnerLoop(name)
        self._budget = Budget(limit)
        self._state = SetState(
            owner_loop=self._owner_loop,
            budget=self._budget,
            memory=source,
            observer=Observer(self._owner_loop.now, hook),
            rules=self._rules,
            curpage=choose(CurPage, curpage),
            fast_acquire=fast_acquire,
            tracker=LeaseTracker(self._owner_loop) if debug else None,
        )
        self._waiters = Waiters(
            self._state,
            choose(Order, order),
            choose(Reclaim, reclaim),
            max_passes,
        )
        if isinstance(sizes, str | PoolSpec) or not isinstance(sizes, Iterable):
            raise TypeError(
                f"{name} was given the sizes {sizes!r}; expected several in a list, each an "
                f"integer of bytes or a PoolSpec"
            )
        specs = sorted(
            (size if isinstance(size, PoolSpec) else PoolSpec(size) for size in sizes),
            key=lambda spec: spec.item_size,
        )
        self._pools = {spec.name: self._make_pool(spec) for spec in specs}
        self._check_specs(specs)
        self._by_size = list(self._pools.values())
        self._item_sizes = [spec.item_size for spec in specs]
        self._pool_of: dict[int, Pool] = {}
        """The pool of a request by the number of cache lines that it fills, as far as it is known.
        It saves the search in the sizes."""
        self._largest_page = max(spec.page_size for spec in specs)
        margin = near_limit_margin
        if margin is None:
            margin = 2 * self._largest_page
        self._margin = require_count(margin, "near_limit_margin", unit="bytes")
        self._taskq = TaskQueue(f"{name}.taskq")
        # The observer is shared, so that a hook that raised is removed everywhere at once.
        self._taskq._observer = self._state.observer
        self._wakeup_runs = 0
        self._collects = collect_garbage
        self._collected = -COLLECT_PERIOD
        self._grants_at_tick = 0
        self._wakeup_task = Task(self._run_wakeup, name="wakeup")
        self._gc_task = Task(self._gc, name="gc")
        self._taskq.on_failure = self._taskq_failed
        self._state.in_task = self._taskq.in_task
        self._state.repair = self._repair
        self._state.observer.on_removal = self._waiters.update_gate
        self._waiters.update_gate()
        self._budget.min_limit = self._min_limit
        self._budget.on_credit = self._page_left
        self._budget.on_resize = self._limit_changed

    def _make_pool(self, spec: PoolSpec) -> Pool:
        return Pool(spec, self._state, self._waiters)

    def _check_specs(self, specs: list[PoolSpec]) -> None:
        if not specs:
            raise ConfigurationError(f"{self.name} has no sizes; give at least one item size")
        names = [spec.name for spec in specs]
        for name in names:
            if names.count(name) > 1:
                raise ConfigurationError(
                    f"{self.name} has {names.count(name)} pools named {name!r}; "
                    f"give each a name of its own by PoolSpec(..., name=...)"
                )
        if not self._rules.refuse_impossible:
            return
        limit, kept = self._budget.limit, self._state.reserved_min_bytes
        for pool in self._pools.values():
            needed = kept + (0 if pool._supply.min_pages else pool.page_size)
            if needed > limit:
                raise ConfigurationError(
                    f"{self.name} has a limit of {limit} bytes, too small for pool "
                    f"{pool.name!r}: one page of it and the minimum of every pool make {needed}; "
                    f"raise the limit, or lower items_per_page or min_items"
                )

    # What is in it

    @property
    def pools(self) -> Mapping[str, Pool]:
        """The pools by name, in the order of their sizes."""
        return MappingProxyType(self._pools)

    @property
    def budget(self) -> Budget:
        """The limit, and what is charged against it."""
        return self._budget

    @property
    def taskq(self) -> TaskQueue:
        """The queue that runs the wakeup and the gc (``systqmp``); it runs other tasks, too."""
        return self._taskq

    def pool_for(self, nbytes: int) -> Pool:
        """Return the pool with the smallest items that hold `nbytes` bytes.

        Raises:
            OversizeRequest: `nbytes` is more than the largest class holds.
            RequestError: `nbytes` is less than one.
            TypeError: `nbytes` is not an integer.
        """
        self._check_request(nbytes)
        at = bisect_left(self._item_sizes, nbytes)
        if at == len(self._item_sizes):
            raise OversizeRequest(
                f"{self.name} has no buffers of {nbytes} bytes; the largest are of "
                f"{self._item_sizes[-1]} (pool {self._by_size[-1].name!r}); take several, or "
                f"add a larger size"
            )
        return self._by_size[at]

    def _search(self, nbytes: int) -> Pool:
        """Return `pool_for` of `nbytes`, and remember it if it is that of all requests that fill
        as many cache lines."""
        pool = self.pool_for(nbytes)
        lines = -(-nbytes // ALIGNMENT)
        if (
            lines <= LARGEST_LOOKED_UP
            and ALIGNMENT * lines <= pool.item_size
            and self.pool_for(ALIGNMENT * (lines - 1) + 1) is pool
        ):
            self._pool_of[lines] = pool
        return pool

    def _check_request(self, nbytes: int) -> None:
        if isinstance(nbytes, bool) or not hasattr(nbytes, "__index__"):
            raise TypeError(f"{self.name} was asked for {nbytes!r}; expected an integer of bytes")
        if nbytes < 1:
            raise RequestError(f"{self.name} was asked for {nbytes} bytes; expected at least 1")

    # Getting

    def get(self, nbytes: int) -> Coroutine[Any, Any, Buffer]:
        """Take a buffer of `nbytes` bytes from the smallest class that holds them.

        It blocks, can be cancelled, is fair and fails as `Pool.get` does. The call itself, before
        it is awaited, raises what `pool_for` raises.
        """
        pool = self._pool_of.get(nbytes + 63 >> 6) if type(nbytes) is int else None
        return (pool or self._search(nbytes)).get(nbytes)

    def get_nowait(self, nbytes: int) -> Buffer:
        """Take a buffer of `nbytes` bytes at once, or raise `anyio.WouldBlock`.

        Never blocks. It fails as `Pool.get_nowait` does; it also raises what `pool_for` raises.
        """
        pool = self._pool_of.get(nbytes + 63 >> 6) if type(nbytes) is int else None
        if pool is None:
            pool = self._search(nbytes)
        # What follows is as in `Pool.get_nowait`, without its call.
        supply = pool._supply
        stock = supply.stock
        if stock is None or self._owner_loop.open_to != get_ident():
            return pool._get_nowait_slowly(nbytes)
        buffer = Buffer()
        buffer._pool = pool
        buffer._nbytes = nbytes
        try:
            buffer._item = stock.pop()
            supply.nget += 1
            if not stock:
                supply.ran_dry()
        except BaseException:
            supply.state.breaks()
            raise
        return buffer

    async def get_many(self, sizes: Iterable[int]) -> Buffers:
        """Take a buffer for each of `sizes`, in bytes: all at once, or wait for all.

        The caller holds nothing while it waits, so two callers cannot block each other by holding
        a part. (The kernel's ``nfsm_reqhead`` holds an mbuf while it waits for a cluster.) Blocks,
        and can be cancelled, as `get`.
        The request waits in the same order as all others: a get of a single buffer may pass it,
        and it passes no request::

            with await pools.get_many([256, 2048]) as (header, cluster):
                ...

        Raises:
            ImpossibleRequest: the request exceeds a pool's maximum, or needs more pages than the
                limit holds.
            RequestError: `sizes` is empty; and as `get`.
        """
        if not isinstance(sizes, Iterable):
            raise TypeError(
                f"{self.name} was asked for {sizes!r}; expected several sizes in a list, each an "
                f"integer of bytes"
            )
        wants = tuple((self.pool_for(nbytes), nbytes) for nbytes in sizes)
        if not wants:
            raise RequestError(f"{self.name} was asked for no buffers; give at least one size")
        supplies = tuple((pool._supply, nbytes) for pool, nbytes in wants)
        queue = self._waiters.queue_for(supply for supply, _ in supplies)
        buffers: Buffers = await self._waiters.acquire(queue, 0, wants=supplies)
        return buffers

    def reserve(self, nbytes: int) -> Reserving:
        """Take `nbytes` bytes of the budget, without a buffer.

        For memory that is allocated elsewhere and shall count against the limit::

            async with pools.reserve(100_000):
                ...

        or ``reservation = await pools.reserve(n)`` and, later, ``reservation.release()``. The
        call itself takes nothing and does not block; to await or to enter what it returns blocks,
        can be cancelled and fails as `get`. The request waits in the same order as all others.

        Raises:
            ImpossibleRequest: `nbytes` is more than the limit less what the pools keep.
            RequestError: `nbytes` is less than one.
            TypeError: `nbytes` is not an integer.
        """
        if type(nbytes) is not int or nbytes < 1:
            self._check_request(nbytes)
        return Reserving(self._reserve, nbytes)

    def reserve_nowait(self, nbytes: int) -> Reservation:
        """Take `nbytes` bytes of the budget at once, or raise `anyio.WouldBlock`. Never blocks.

        Raises:
            anyio.WouldBlock: the bytes are not free, or an older request waits.
            ImpossibleRequest, RequestError, TypeError: as `reserve`.
        """
        self._check_request(nbytes)
        if get_ident() != self._owner_loop.thread:
            self._owner_loop.raise_misuse()
        self._owner_loop.run_deferred()
        request: Request[Reservation] = self._waiters.request(nbytes)
        reservation = self._waiters.try_acquire(self._waiters.bytes_queue, request)
        if reservation is None:
            raise anyio.WouldBlock(
                f"{self.name} cannot reserve {nbytes} bytes now (they are not free, or older "
                f"requests wait); `await reserve` waits for them"
            )
        return reservation

    async def _reserve(self, nbytes: int) -> Reservation:
        waiters, owner_loop = self._waiters, self._owner_loop
        yielded = self._state.fast_acquire
        if yielded and owner_loop.open_to == get_ident():  # the gate, as in `Pool.get`
            owner_loop.running_task()
            at_once = waiters.reserve_at_once(nbytes)
            if at_once is not None:
                return at_once
        reservation: Reservation = await waiters.acquire(
            waiters.bytes_queue, nbytes, yielded=yielded
        )
        return reservation

    # The limit

    def resize(self, limit: int | str) -> None:
        """Set a new limit in bytes; the same as ``budget.resize``.

        The wakeup policy wakes the requests that can now be served; a raised limit always wakes
        them. A limit below what is allocated makes a debt. The debt is the oldest claim of all:
        pages that leave pay it before any new page is granted. A request that can no longer be
        served fails with `ImpossibleRequest`. Never blocks.

        Raises:
            ConfigurationError: the limit is below one byte, or below what the pools keep as
                their minimum; nothing has changed.
            UsageError: the pools are open on another thread.
        """
        self._owner_loop.check_thread()
        with self._state.changing:
            self._budget.resize(limit)

    def _min_limit(self) -> int:
        """Return the bytes below which the limit cannot be set; the budget asks in `resize`."""
        self._owner_loop.check_thread()
        return max(1, self._state.reserved_min_bytes) if self._rules.refuse_impossible else 1

    # Waking

    def _page_left(self, nbytes: int) -> None:
        """Run the wakeup policy after a credit (uipc_mbuf.c:m_pool_free, at its end)."""
        self._waiters.budget_credited()
        if self._owner_loop.closed or self._state.failure is not None:
            return
        if self._wakeup is Wakeup.DIRECT:
            self._run_wakeup()
        elif self._wakeup is Wakeup.WANTED:
            if self._waiters.page_wanted:
                self._waiters.page_wanted = False  # before the run, in which it may be set again
                self._run_wakeup()
        elif self._wakeup is Wakeup.DEFERRED or (
            self._wakeup is Wakeup.NEAR_LIMIT and self._is_near_limit(nbytes)
        ):
            self._taskq.add(self._wakeup_task)

    def _is_near_limit(self, nbytes: int) -> bool:
        """Return True if a request may wait for the `nbytes` bytes that were credited. The margin
        is meant for pages, but a reservation may give back more than any page, and a request may
        want more than a page."""
        available = self._budget.limit - self._budget.allocated
        return (
            available < self._margin + max(0, nbytes - self._largest_page)
            or self._waiters.wants_more_than_a_page
        )

    def _limit_changed(self) -> None:
        """Wake the requests after a new limit was set (uipc_mbuf.c:nmbclust_update, at its end)."""
        self._waiters.budget_resized()
        if self._owner_loop.closed or self._state.failure is not None:
            return
        if self._wakeup in (Wakeup.NONE, Wakeup.DIRECT, Wakeup.WANTED):
            self._wake_all()
        else:
            self._taskq.add(self._wakeup_task)

    def _run_wakeup(self) -> None:
        self._wakeup_runs += 1
        self._wake_all()

    def _wake_all(self) -> None:
        """Serve all requests that can be served (``m_pool_wakeup``)."""
        with self._state.changing:
            self._waiters.run()

    def _gc(self) -> None:
        """Run the gc once, over the pools from the newest on (subr_pool.c:pool_gc_pages)."""
        self._taskq.add_later(self._gc_task, GC_PERIOD)
        self._revoke_stale_views()
        self._owner_loop.run_deferred()
        with self._state.changing:
            self._state.empty_quarantine()
            self._before_gc()
            for supply in reversed(self._for_gc()):
                supply.gc()
        self._collect_garbage()

    def _revoke_stale_views(self) -> None:
        """Try again to end the views of leases that have ended."""
        exporting = cast(dict[Supply, None], self._state.exporting)
        for supply in list(exporting):
            del exporting[supply]  # before the look: another thread may add an item meanwhile
            supply.revoke_stale_views()
            if supply.quarantined:
                exporting[supply] = None

    def _for_gc(self) -> list[Supply]:
        """The supplies that the gc may find something in, in the order of their sizes."""
        return self._waiters.reclaimer.with_idle()

    def _before_gc(self) -> None:
        """Do what must come before the gc looks at the pages: nothing here."""

    def _collect_garbage(self) -> None:
        """Run Python's garbage collector once if leases in cycles may be what requests wait for."""
        waiters, now = self._waiters, self._owner_loop.now()
        grants, self._grants_at_tick = self._grants_at_tick, waiters.grants
        if (
            self._collects
            and self._state.waiting
            and grants == waiters.grants
            and now - self._collected >= COLLECT_PERIOD
            and not self._owner_loop.simulated
            and (self._state.claims or any(pool._supply.nout for pool in self._by_size))
            and self._owner_loop.microseconds_since(waiters.in_order()[0][1].since) >= 1_000_000
        ):
            self._collected = now
            gc.collect()
            self._owner_loop.run_deferred()

    def _repair(self) -> None:
        """Mend the set after an exception that ended a step in its middle: from the free lists,
        the reservations and the queues, compute all the rest again; finish what was begun."""
        state = self._state
        state.broken = False
        try:
            for supply in self._waiters.reclaimer.supplies:
                for page in supply.rebuild():
                    state.quarantine.setdefault(page, (supply.page_size, supply.name))
                    page.free.clear()
            self._budget.recount(
                sum(s.npages * s.page_size for s in self._waiters.reclaimer.supplies)
                + sum(nbytes for nbytes, _ in state.quarantine.values())
                + state.reserved
            )
            state.empty_quarantine()
            self._waiters.rebuild()
        except BaseException:
            state.breaks()
            raise
        self._page_left(0)

    # Life

    async def __aenter__(self) -> Self:
        self._owner_loop.enter()
        self._waiters.update_gate()
        try:
            for pool in self._by_size:
                pool.set_min_items(pool._supply.min_items)
            await self._taskq.__aenter__()
        except BaseException:
            self._close()
            raise
        self._taskq.add_later(self._gc_task, GC_PERIOD)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._owner_loop.closed:
            return
        try:
            self._close()
        except BaseException:
            self._close()  # an exception in the middle of it: finish what was begun
            raise
        try:
            await self._taskq.__aexit__(exc_type, exc, traceback)  # noqa: ASYNC102 - it shields itself
        finally:
            self._report_leaks()

    async def aclose(self) -> None:
        """Leave the set, as the end of its ``async with`` does. It may be called in another task
        than the one that entered the set; a second call does nothing. Blocks until the tasks that
        are queued have run."""
        await self.__aexit__(None, None, None)

    def _taskq_failed(self, error: BaseException) -> None:
        """A queued task failed, so nothing wakes a request any more: fail the requests with it."""
        self._state.failure = error
        self._waiters.update_gate()
        self._waiters.fail_all(lambda queue: error)

    def _close(self) -> None:
        self._owner_loop.begin_close()
        with self._state.changing:
            supplies = self._waiters.reclaimer.supplies
            for supply in supplies:
                supply.watch()
            self._state.empty_quarantine()
            self._waiters.fail_all(
                lambda queue: anyio.ClosedResourceError(
                    f"{self.name} was closed while a request for {queue.name} waited"
                )
            )
            for supply in supplies:
                supply.close()
        self._owner_loop.end_close()

    def _report_leaks(self) -> None:
        supplies = self._waiters.reclaimer.supplies
        out = {supply.name: supply.nout for supply in supplies if supply.nout}
        counts = [f"{count} of pool {name!r}" for name, count in out.items()]
        reservations = len(self._state.claims)
        if reservations:
            counts.append(f"{reservations} reservation{'s' if reservations > 1 else ''}")
        if counts:
            tracker = self._state.tracker
            holders = "".join(f"\n  {holder}" for holder in tracker.holders()) if tracker else ""
            report = (
                f"{self.name} was closed with buffers still out: {', '.join(counts)}; "
                f"their memory comes back when they are released"
                f"{holders or ' (debug=True records which task took them, and where)'}"
            )
            # The log first: Python hides a ResourceWarning by default, and a filter may raise it.
            logger().warning("%s", report)
            warnings.warn(
                report,
                ResourceWarning,
                stacklevel=3,
                source=self,
            )

    # Looking

    def explain(self) -> Explanation:
        """Explain each waiting request: its pool, its task, how long it has waited, which request
        goes before it, and which limit is short by how much. In debug mode also the holders of
        what it waits for, and whether every one of them waits itself. ``str()`` of the result is
        the wait-for graph as text, with at most 20 requests and 20 holders of each. Never blocks.

        Raises:
            UsageError: the pools are open on another thread.
        """
        from ._explain import explain

        self._owner_loop.check_thread()
        return explain(self._state, self._waiters, wakeup=self._wakeup_task.queued)

    def statistics(self) -> PoolsStatistics:
        """Return a snapshot of all counters. May be called from any thread; never blocks."""
        from ._statistics import PoolsStatistics

        budget = self._budget
        if self._owner_loop.closed:
            self._state.empty_quarantine()  # no gc does it any more
        return PoolsStatistics(
            limit=budget.limit,
            allocated=budget.allocated,
            peak=budget.peak,
            drops=budget.drops,
            wakeup_runs=self._wakeup_runs,
            reserved=self._state.reserved,
            debt=budget.debt,
            waits=self._waiters.statistics(),
            taskq=self._taskq.statistics(),
            pools={pool.name: pool.statistics() for pool in self._by_size},
            dropped=self._state.dropped,
        )

    def check(self) -> None:
        """Raise PoolCorruption if any invariant is broken: of a pool, of the waiting requests, or
        that every charged byte is in a page or in a reservation."""
        self._state.mend()
        for pool in self._by_size:
            pool.check()
        self._waiters.check()
        pages = sum(pool._supply.npages * pool.page_size for pool in self._by_size)
        quarantined = sum(nbytes for nbytes, _ in self._state.quarantine.values())
        reserved = self._state.reserved
        if pages + quarantined + reserved != self._budget.allocated:
            raise PoolCorruption(
                f"{self.name}: {self._budget.allocated} bytes are charged, but the pages take "
                f"{pages}, {quarantined} are in quarantine and {reserved} are reserved"
            )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}: {self._budget!r}>"
