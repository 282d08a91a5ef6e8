"""A pool of items of one size.

Models ``struct pool`` and subr_pool.c: pool_get, pool_put, pool_runqueue, pool_wakeup,
pool_reclaim, pool_gc_pages, pool_prime, pool_setlowat, pool_sethiwat, pool_sethardlimit.

A request that finds nothing is appended to the pool's queue, and the queue is run once more
*before* the task sleeps: a page that came back between the first try and the append would
otherwise be lost on it. The call that brings something back runs the queue and hands items over; a
sleeper is never woken to try again.
"""

from __future__ import annotations

from collections.abc import Coroutine
from threading import get_ident
from typing import TYPE_CHECKING, Any

import anyio

from ._buffer import Buffer
from ._errors import ConfigurationError, ForeignBuffer
from ._set_state import SetState
from ._sizes import require_count
from ._spec import PoolSpec
from ._supply import Supply
from ._waiters import Waiters

if TYPE_CHECKING:
    from ._statistics import PoolStatistics

__all__ = ["Pool"]


class Pool:
    """Buffers of one size. Made by `BufferPools` and `MbufPools`, found in their `pools`.

    Its calls belong to the event loop that entered the set; only the release of a buffer may
    come from another thread.
    """

    __slots__ = (
        "__weakref__",
        "_owner_loop",
        "_queue",
        "_state",
        "_supply",
        "_waiters",
        "item_size",
        "items_per_page",
        "name",
        "page_size",
    )

    def __init__(
        self, spec: PoolSpec, state: SetState, waiters: Waiters, supply: Supply | None = None
    ) -> None:
        self._state = state
        self._waiters = waiters
        self._owner_loop = state.owner_loop
        self.name: str = spec.name
        """Names the pool in its set, in messages and in statistics."""
        self.item_size: int = spec.item_size
        """Bytes of an item."""
        self.page_size: int = spec.page_size
        """Bytes of a page."""
        self.items_per_page: int = spec.items_per_page
        self._supply = Supply(spec, state) if supply is None else supply
        self._supply.owner = self
        self._queue = waiters.add_pool(self._supply)

    # Getting

    def get(self, _nbytes: int = 0, /) -> Coroutine[Any, Any, Buffer]:
        """Take a buffer of `item_size` bytes, waiting for one if there is none (``pool_get``).

        Blocks until an item of this pool is free or the budget grants a page. A checkpoint even
        when it does not have to wait, unless the set was made with ``fast_acquire=True``. It is
        passed before an item is taken, so nothing is in hand when it is cancelled.

        A cancelled get did not happen: an item granted at that moment goes to the next in line.

        Waiters of a pool are served in the order of their arrival. Whether a newcomer may
        take an item before they do, and which request goes first across the pools, is the set's
        `Order`.

        Raises:
            anyio.ClosedResourceError: the pools are closed, now or while waiting.
            ImpossibleRequest: it could never be served (not under the kernel's rules).
            UsageError: outside ``async with``, on another loop, or inside a task of the set's
                own queue, which would wait for itself.
            MemoryError: the operating system has no page left.
        """
        # A plain function, so that a task that waits has one coroutine less, with its memory.
        # `BufferPools.get` says how many bytes are wanted.
        if self._supply.stock is None:
            return self._waiters.acquire(
                self._queue, _nbytes or self.item_size, yielded=self._state.fast_acquire
            )
        return self._get(_nbytes)

    async def _get(self, _nbytes: int) -> Buffer:
        # Written for speed, as `get_nowait`.
        supply, owner_loop = self._supply, self._owner_loop
        yielded = self._state.fast_acquire
        if not (yielded or supply.stock is None or owner_loop.open_to != get_ident()):
            await owner_loop.waits.checkpoint()
            yielded = True
        stock = supply.stock
        if stock is None or owner_loop.open_to != get_ident():
            granted: Buffer = await self._waiters.acquire(
                self._queue, _nbytes or self.item_size, yielded=yielded
            )
            return granted
        buffer = Buffer()
        buffer._pool = self
        buffer._nbytes = _nbytes
        try:
            buffer._item = stock.pop()
            supply.nget += 1
            if not stock:
                supply.ran_dry()
        except BaseException:
            supply.state.breaks()
            raise
        return buffer

    def get_nowait(self, _nbytes: int = 0, /) -> Buffer:
        """Take a buffer of `item_size` bytes, at once or not at all (``PR_NOWAIT``).

        Never blocks. Counts a failure in `nfail`.

        Raises:
            anyio.WouldBlock: nothing is free now.
            anyio.ClosedResourceError, UsageError, MemoryError: as `get`.
        """
        # Written for speed: one gate, which is the check of the thread, too; and the attributes of
        # the lease are set here, which saves the call of `Buffer.__init__`. `BufferPools` says how
        # many bytes are wanted: a function of its own would be one call more for each get. For the
        # same reason `get` and `BufferPools.get_nowait` have a copy of what follows the gate.
        supply = self._supply
        stock = supply.stock
        if stock is None or self._owner_loop.open_to != get_ident():
            return self._get_nowait_slowly(_nbytes or self.item_size)
        buffer = Buffer()
        buffer._pool = self
        buffer._nbytes = _nbytes
        try:
            buffer._item = stock.pop()
            supply.nget += 1
            if not stock:
                supply.ran_dry()
        except BaseException:
            supply.state.breaks()
            raise
        return buffer

    def _get_nowait_slowly(self, nbytes: int) -> Buffer:
        """Take a buffer behind a closed gate, or raise `anyio.WouldBlock`."""
        if get_ident() != self._owner_loop.thread:
            self._owner_loop.raise_misuse()
        waiters, queue = self._waiters, self._queue
        buffer: Buffer | None = waiters.take_at_once(queue, nbytes)
        if buffer is None:
            if waiters.slow_path_may_serve:
                self._owner_loop.run_deferred()
                if not waiters.cannot_serve_now(queue):
                    buffer = waiters.try_acquire(queue, waiters.request(nbytes))
            else:
                waiters.refuse_impossible(queue, waiters.request(nbytes))
        if buffer is None:
            self._supply.nfail += 1
            raise anyio.WouldBlock(
                f"pool {self.name!r} has no buffer to give now (none is free, or older requests "
                f"wait); `await get` waits for one"
            )
        return buffer

    # Putting

    def put(self, buffer: Buffer) -> None:
        """Take `buffer` back, the same as its `release` (``pool_put``).

        Raises:
            TypeError: not a buffer.
            ForeignBuffer: it belongs to another pool. Nothing has changed.
            LeaseError: as `Buffer.release`.
        """
        if not isinstance(buffer, Buffer):
            raise TypeError(f"cannot put {buffer!r} into pool {self.name!r}; expected a Buffer")
        if buffer.pool is not self:
            raise ForeignBuffer(
                f"a buffer of pool {buffer.pool.name!r} cannot be put into pool {self.name!r}; "
                f"call its release()"
            )
        buffer.release()

    def wakeup(self) -> None:
        """Serve the requests that wait for this pool, oldest first, as far as items, budget and
        order go.

        Never blocks. Models ``pool_wakeup``: it allocates on behalf of the sleepers.

        Raises:
            UsageError: the pools are open on another thread.
        """
        self._owner_loop.check_thread()
        with self._state.changing:
            self._waiters.wakeup(self._supply)

    # Pages

    def reclaim(self) -> int:
        """Let every idle page go at once, the longest idle first, down to the low water.

        Returns how many pages left. Never blocks; the wakeup policy says which
        requests are woken.
        Models ``pool_reclaim``.

        Raises:
            UsageError: the pools are open on another thread.
        """
        self._owner_loop.check_thread()
        with self._state.changing:
            return self._supply.reclaim()

    def prime(self, items: int) -> int:
        """Add pages for `items` more items now (``pool_prime``).

        Returns how many items were added: whole pages, so perhaps more than were asked for;
        fewer if the budget refuses, and none while a request waits that has a better
        right to pages. Never blocks; the waiters are served, and the pages count as idle from
        now on. (In the kernel ``pool_prime`` serves no request, and the gc takes the pages at its
        next run, because they have no time stamp.)

        Raises:
            ConfigurationError: a negative number.
            UsageError, MemoryError: as `get`.
        """
        require_count(items, f"the items to prime pool {self.name!r} with")
        if get_ident() != self._owner_loop.thread:
            self._owner_loop.raise_misuse()
        supply, budget = self._supply, self._state.budget
        with self._state.changing:
            before = supply.npages
            if not self._waiters.claims_pages:
                for _ in range(-(-items // self.items_per_page)):
                    if not budget.charge(self.page_size):
                        break
                    try:
                        supply.add_page()
                    except BaseException as error:
                        self._state.refund(self.page_size, error)
                        raise
                self._waiters.wakeup(supply)
            return (supply.npages - before) * self.items_per_page

    # Settings

    def set_min_items(self, items: int) -> bool:
        """Keep at least the pages of `items` items, and get them now (``pool_setlowat``).

        Returns whether the pool has that many; False if the budget refused some. Then they come
        as gets need them, and stay. Never blocks; requests that the new minimum
        covers are served.

        Raises:
            ConfigurationError: a negative number, or more than the limit holds; nothing has
                changed.
            UsageError, MemoryError: as `get`.
        """
        require_count(items, f"min_items of pool {self.name!r}")
        self._owner_loop.check_thread()
        if self._lacking(items) > 0 and get_ident() != self._owner_loop.thread:
            self._owner_loop.raise_misuse()
        supply = self._supply
        limit = self._state.budget.limit
        pages = -(-items // self.items_per_page)
        least = self._state.reserved_min_bytes + (pages - supply.min_pages) * self.page_size
        if self._state.rules.refuse_impossible and least > limit:
            raise ConfigurationError(
                f"min_items of pool {self.name!r} cannot be {items}: the minimum of all pools "
                f"would take {least} bytes, and the limit is {limit}; raise the limit first"
            )
        with self._state.changing:
            supply.min_items, self._state.reserved_min_bytes = items, least
            self._waiters.minimum_changed(supply)
        lacking = self._lacking(items)  # pages may have come for requests that waited
        return lacking <= 0 or self.prime(lacking) >= lacking

    def _lacking(self, items: int) -> int:
        """How many items the pages of the pool fall short of `items`."""
        return items - self._supply.npages * self.items_per_page

    def set_max_idle_items(self, items: int) -> None:
        """Let a put free idle pages above those of `items` items (``pool_sethiwat``).

        A page leaves only once it has been idle for more than a second of the loop's clock. Never
        blocks.

        Raises:
            ConfigurationError: a negative number.
            UsageError: the pools are open on another thread.
        """
        require_count(items, f"max_idle_items of pool {self.name!r}")
        self._owner_loop.check_thread()
        self._supply.max_idle_items = items
        self._supply.watch()

    def set_max_items(self, items: int | None) -> None:
        """Let at most `items` items be out at once; None is no limit (``pool_sethardlimit``).

        Raising it serves the requests that waited at it. (Under the kernel's rules it wakes no
        request: they are served at the next put or wakeup.) Never blocks.

        Raises:
            ConfigurationError: fewer than are out now (the kernel's ``EINVAL``), or negative;
                nothing has changed.
            UsageError: the pools are open on another thread.
        """
        self._owner_loop.check_thread()
        if items is not None:
            require_count(items, f"max_items of pool {self.name!r}")
            if items < self._supply.nout:
                raise ConfigurationError(
                    f"max_items of pool {self.name!r} cannot be {items} while "
                    f"{self._supply.nout} items are out; wait until enough are released"
                )
        with self._state.changing:
            self._supply.max_items = items
            self._supply.show_stock()
            self._waiters.hard_limit_changed()

    def set_low_water(self, items: int) -> bool:
        """The kernel's name of `set_min_items`."""
        return self.set_min_items(items)

    def set_high_water(self, items: int) -> None:
        """The kernel's name of `set_max_idle_items`."""
        self.set_max_idle_items(items)

    def set_hard_limit(self, items: int | None) -> None:
        """The kernel's name of `set_max_items`."""
        self.set_max_items(items)

    # Looking

    def statistics(self) -> PoolStatistics:
        """Return a snapshot of the counters."""
        return self._supply.statistics(len(self._queue.requests))

    def check(self) -> None:
        """Raise PoolCorruption if an invariant of this pool is broken."""
        self._supply.check_supply()

    def __repr__(self) -> str:
        supply = self._supply
        return (
            f"<Pool {self.name!r}: {supply.nout} of {self.item_size} bytes out, "
            f"{supply.npages} pages, {len(self._queue.requests)} waiting>"
        )
