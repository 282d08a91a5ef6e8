"""The pools of `MbufPools`: each call may say on which CPU it runs, and the CPUs may have caches.

Models subr_pool.c:pool_cache_init, pool_cache_get, pool_cache_put, pool_cache_list_put and
pool_cache_gc, and the places where pool_get and pool_put ask the caches. One event loop is one CPU,
so a caller says which of the model's CPUs it plays; no lock is contended here, and what CPUs do at
the same time is the business of `mbufpools.smp`.

The kernel's rules, as they are:

- A get takes an item from the lists of its CPU, or else a list from the depot, before it looks at
  the pages, the limits or the requests that wait. So it overtakes every one of them.
- A put goes to the lists of its CPU if the pool has no request. A request that comes a moment later
  does not see that item.
- The gc gives one list of a pool's depot back to the pages if the depot's one time stamp is more
  than eight seconds old, then sets the stamp anew. In the kernel that serves no request. Here it
  does, which makes no difference to a get: before it sleeps, it takes a list of the depot, and
  while it sleeps no list comes. (On several CPUs one may; `get_many` does not look into the depot.)
- An item in a cache keeps its page from becoming idle. It counts as out: for the counters `nget`,
  `nput` and `nout`, and for the hard limit. *An item that returns to its page in a list is never
  counted as put*, so `nout` only grows by it, and a pool with a hard limit reaches it in the end
  with no item in use.

The pools of an application are not made from these classes and pay nothing for them: a put reaches
the cache because `CachedSupply` has each put reported, by the flag that every put reads anyway.

Invariant (`CachedSupply.check_supply`): an item in a list is in one list only, is not free in its
page, and its token is marked as one that may die in silence. It holds between calls; that a
KeyboardInterrupt in the middle of a call cannot lose a list is not promised, as it is for pools
without caches.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from itertools import chain
from threading import get_ident
from typing import TYPE_CHECKING, Any, cast, overload

import anyio

from ._buffer import Buffer, TrackedBuffer, hold, move
from ._errors import ConfigurationError, PoolCorruption, RequestError
from ._events import EventKind
from ._page import Item, Page
from ._pool import Pool
from ._pool_cache import CpuLists, Depot, in_order_of_return
from ._set_state import SetState
from ._sizes import require_count
from ._spec import PoolSpec
from ._supply import AT_LIMIT, WAIT_GC, Supply
from ._waiters import Waiters

if TYPE_CHECKING:
    from ._statistics import CacheStatistics, PoolStatistics

__all__ = ["CachedPool", "CachedSupply", "CpuBuffer", "MbufPool"]


class CpuBuffer(TrackedBuffer):
    """A buffer that was taken on a CPU of the model, and can be released on another one."""

    __slots__ = ()

    def release(self, cpu: int | None = None) -> None:
        """Give the item back on the CPU `cpu`, by default on the one that took it. As
        `Buffer.release` in all else.

        Raises:
            RequestError: there is no such CPU; the buffer is still held.
        """
        if cpu is not None:
            cast(MbufPool, self._pool)._note_cpu(self, cpu)
        super().release()


def _on_cpu(buffer: Buffer) -> CpuBuffer:
    """Move the item of `buffer`, which has just been taken, into a lease that can name a CPU."""
    moved = move(buffer, CpuBuffer)
    assert moved is not None
    return moved


class MbufPool(Pool):
    """A pool of `MbufPools`. Each call may say on which CPU it runs.

    Without caches (``MbufPools(caches=0)``, the default) that makes no difference.
    """

    __slots__ = ()

    def check_cpu(self, cpu: int) -> None:
        """Raise RequestError if there is no CPU `cpu`, and TypeError if it is no integer. Without
        caches every number from 0 up is a CPU."""
        if isinstance(cpu, bool) or not isinstance(cpu, int):
            raise TypeError(f"cpu is {cpu!r}; expected the number of a CPU, counted from 0")
        if cpu < 0:
            raise RequestError(f"cpu is {cpu}; expected the number of a CPU, counted from 0")

    def _note_cpu(self, buffer: Buffer, cpu: int) -> None:
        """The next release of `buffer` is on `cpu`."""
        self.check_cpu(cpu)

    @overload
    def get(self, _nbytes: int = 0, /, *, cpu: None = None) -> Coroutine[Any, Any, Buffer]: ...
    @overload
    def get(self, _nbytes: int = 0, /, *, cpu: int) -> Coroutine[Any, Any, CpuBuffer]: ...
    def get(self, _nbytes: int = 0, /, *, cpu: int | None = None) -> Coroutine[Any, Any, Buffer]:
        """Take a buffer of `item_size` bytes on the CPU `cpu`, by default on 0 (``pool_get``).

        With caches, it comes from the lists of that CPU or from the depot, if they have one; such a
        get overtakes all requests that wait (under ``order="barging"``). Else, and in all else, as
        `Pool.get`.

        Raises:
            RequestError: there is no such CPU.
        """
        # `MbufPools.get` says how many bytes are wanted. A plain function: one frame less.
        return self._get_on(_nbytes or self.item_size, cpu)

    @overload
    def get_nowait(self, _nbytes: int = 0, /, *, cpu: None = None) -> Buffer: ...
    @overload
    def get_nowait(self, _nbytes: int = 0, /, *, cpu: int) -> CpuBuffer: ...
    def get_nowait(self, _nbytes: int = 0, /, *, cpu: int | None = None) -> Buffer:
        """Take a buffer of `item_size` bytes on the CPU `cpu` at once or not at all
        (``PR_NOWAIT``). As `get`, and as `Pool.get_nowait`."""
        return self._get_nowait_on(_nbytes or self.item_size, cpu)

    def put(self, buffer: Buffer, cpu: int | None = None) -> None:
        """Take `buffer` back on the CPU `cpu`, by default on the one that took it (``pool_put``).

        With caches, the item goes to the lists of that CPU if no request waits for this pool, and
        no page becomes idle. Else, and in all else, as `Pool.put`.

        Raises:
            RequestError: there is no such CPU; the buffer is still held.
        """
        if cpu is not None and getattr(buffer, "pool", None) is self:
            self._note_cpu(buffer, cpu)
        super().put(buffer)

    def _get_on(self, nbytes: int, cpu: int | None) -> Coroutine[Any, Any, Buffer]:
        return super().get(nbytes) if cpu is None else self._get_on_cpu(nbytes, cpu)

    def _get_nowait_on(self, nbytes: int, cpu: int | None) -> Buffer:
        if cpu is None:
            return super().get_nowait(nbytes)
        self.check_cpu(cpu)
        return _on_cpu(super().get_nowait(nbytes))

    async def _get_on_cpu(self, nbytes: int, cpu: int) -> CpuBuffer:
        self.check_cpu(cpu)
        return _on_cpu(await super().get(nbytes))


class CachedPool(MbufPool):
    """A pool whose CPUs have caches in front of it."""

    __slots__ = ("_before_sleep",)

    def __init__(
        self,
        spec: PoolSpec,
        state: SetState,
        waiters: Waiters,
        *,
        cpus: int,
        before_sleep: Callable[[], None] | None,
    ) -> None:
        super().__init__(spec, state, waiters, CachedSupply(spec, state, cpus))
        self._before_sleep = before_sleep
        """Called before a get has to sleep; None under the kernel's rule."""

    @property
    def _cached(self) -> CachedSupply:
        return cast(CachedSupply, self._supply)

    def check_cpu(self, cpu: int) -> None:
        super().check_cpu(cpu)
        cpus = len(self._cached.cpus)
        if cpu >= cpus:
            raise RequestError(
                f"cpu is {cpu}; pool {self.name!r} has the CPUs 0 to {cpus - 1} (caches={cpus})"
            )

    def _note_cpu(self, buffer: Buffer, cpu: int) -> None:
        self.check_cpu(cpu)
        if buffer._item is not None:
            self._cached.note_cpu(buffer._item, cpu)

    def _get_on(self, nbytes: int, cpu: int | None) -> Coroutine[Any, Any, Buffer]:
        return self._get_on_cpu(nbytes, cpu or 0)

    async def _get_on_cpu(self, nbytes: int, cpu: int) -> CpuBuffer:
        state, waiters = self._state, self._waiters
        self.check_cpu(cpu)
        waiters.check_caller(self._queue)
        if not state.fast_acquire:
            await anyio.lowlevel.checkpoint_if_cancelled()
        buffer = self._take_at_once(nbytes, cpu)
        if buffer is None:
            taken: Buffer = await waiters.acquire(self._queue, nbytes, yielded=state.fast_acquire)
            return self._keep(taken, cpu)
        if not state.fast_acquire:
            try:
                await anyio.lowlevel.cancel_shielded_checkpoint()
            except BaseException:
                buffer.end()
                raise
        return buffer

    def _take_at_once(self, nbytes: int, cpu: int) -> CpuBuffer | None:
        """Take a cached item. If there is none, and caches are drained for a sleeper: take an item
        of a page, or drain the caches, because the get will sleep unless that helps."""
        buffer = self._take_cached(nbytes, cpu)
        if buffer is None and self._before_sleep is not None:
            taken = self._waiters.take_at_once(self._queue, nbytes)
            if taken is not None:
                return self._keep(taken, cpu)
            self._before_sleep()
        return buffer

    def _get_nowait_on(self, nbytes: int, cpu: int | None) -> CpuBuffer:
        self.check_cpu(cpu := cpu or 0)
        if get_ident() != self._owner_loop.thread:
            self._owner_loop.raise_misuse()
        buffer = self._take_cached(nbytes, cpu)
        return self._keep(self._get_nowait_slowly(nbytes), cpu) if buffer is None else buffer

    def _take_cached(self, nbytes: int, cpu: int) -> CpuBuffer | None:
        """Take an item of the caches, if there is one (``pool_cache_get``)."""
        state, supply = self._state, self._cached
        if state.failure is not None:
            raise state.failure
        if self._waiters.must_queue:
            return None
        with state.changing:
            item = supply.take_cached(cpu)
            if item is None:
                return None
            buffer = hold(CpuBuffer, supply, nbytes, item)
            supply.note_cpu(item, cpu)
            state.observer.tell(EventKind.GET, self.name, nbytes)
        return buffer

    def _keep(self, buffer: Buffer, cpu: int) -> CpuBuffer:
        """Note that `buffer`, which came from a page, was taken on `cpu`."""
        moved = _on_cpu(buffer)
        self._note_cpu(moved, cpu)
        return moved

    def set_max_items(self, items: int | None) -> None:
        """As `Pool.set_max_items`. Items in the caches count as out, and so do those that went back
        to their pages in a list, because the kernel counts no put of them (``pr_nout``)."""
        counted = self.statistics().nout
        if items is not None and require_count(items, f"max_items of pool {self.name!r}") < counted:
            raise ConfigurationError(
                f"max_items of pool {self.name!r} cannot be {items} while {counted} items count as "
                f"out, those in caches included; the kernel's count does not fall when a list "
                f"returns from the caches to the pages"
            )
        super().set_max_items(items)

    def __repr__(self) -> str:
        it = self.statistics()
        assert it.caches is not None
        return (
            f"<Pool {self.name!r}: {it.in_use} of {self.item_size} bytes out, {it.caches.items} in "
            f"the caches of {len(it.caches.cpus)} CPUs, {it.npages} pages, {it.waiting} waiting>"
        )


class CachedSupply(Supply):
    """The supply of one pool, behind the caches of `cpus` CPUs."""

    __slots__ = ("_cpu_of", "cpus", "depot", "uncounted")

    def __init__(self, spec: PoolSpec, state: SetState, cpus: int) -> None:
        self.cpus = [CpuLists[Item]() for _ in range(cpus)]
        self.depot = Depot[Item]()
        self.uncounted = 0
        """Items that went back to their pages in a list, which the kernel counts as no put."""
        self._cpu_of: dict[tuple[Page, int], int] = {}
        """The CPU on which an item that is out comes back, by its page and number; 0 if unknown."""
        super().__init__(spec, state)

    def watch(self) -> None:
        """Have each put reported."""
        self.watched = True

    # The caches

    def take_cached(self, cpu: int) -> Item | None:
        """Take an item from the lists of `cpu`, or else from the depot (``pool_cache_get``)."""
        lists = self.cpus[cpu]
        item = lists.take()
        if item is None:
            items = self.depot.take()  # pool_cache_list_alloc
            if not items:
                return None
            lists.refill(items)
            item = lists.take()
            assert item is not None
        _mark(item, cached=False)
        return item

    def note_cpu(self, item: Item, cpu: int) -> None:
        """The item, which is out, comes back on `cpu`, unless another CPU is noted later."""
        self._cpu_of[item.page, item.index] = cpu

    def put_watched(self, item: Item, nbytes: int) -> None:
        """Put an item into the lists of its CPU if no request waits for the pool, else into its
        page (``pool_put``). From another thread the loop does it."""
        owner_loop = self.state.owner_loop
        if not owner_loop.closed:
            if get_ident() != owner_loop.thread:
                owner_loop.run_on_owner(partial(self.put_watched, item, nbytes))
                return
            if not self.wanted:
                with self.state.changing:
                    self._put_cached(item)
                    self.state.observer.tell(EventKind.PUT, self.name, nbytes or self.item_size)
                return
        self._cpu_of.pop((item.page, item.index), None)
        super().put_watched(item, nbytes)

    def _put_cached(self, item: Item) -> None:
        """Put an item into the lists of its CPU (``pool_cache_put``)."""
        if self.state.tracker is not None:
            self.state.tracker.poison(item, self.stride)
        lists = self.cpus[self._cpu_of.pop((item.page, item.index), 0)]
        full = lists.put(item, self.depot.list_items)
        _mark(item, cached=True)
        if full:
            self.depot.add(full, self._now())

    def _return(self, items: list[Item]) -> None:
        """Put the items of a list back into their pages (``pool_cache_list_put``)."""
        for item in in_order_of_return(items):
            _mark(item, cached=False)
            self.put_back(item)
            self.uncounted += 1

    def drain(self, cpus: bool) -> int:
        """Return the lists of the depot to the pages and, with `cpus`, those of every CPU. Returns
        how many items came; the caller serves the requests."""
        before = self.uncounted
        while self.depot:
            self._return(self.depot.take())
        if cpus:
            for lists in self.cpus:
                for items in lists.empty():
                    self._return(items)
        return self.uncounted - before

    # What a supply does, with caches

    def quote(self, count: int) -> int:
        if self.max_items is not None and self.nout + self.uncounted + count > self.max_items:
            return AT_LIMIT
        return super().quote(count)

    def gc(self) -> None:
        """Return one list to the pages, if the depot's time says so, then let one page go that has
        been idle for long (``pool_cache_gc``, and ``pool_gc_pages`` for one pool). The lock of the
        depot is never contended here, because one event loop runs everything."""
        items = self.depot.take_for_gc(self._now(), WAIT_GC)
        self._return(items)
        self.depot.adjust(contended=0, cpus=len(self.cpus))
        if items:
            self.on_return(self)
        super().gc()

    def close(self) -> None:
        self.drain(cpus=True)
        super().close()

    def statistics(
        self, waiting: int, *, uncounted: int = 0, caches: CacheStatistics | None = None
    ) -> PoolStatistics:
        from ._statistics import CacheStatistics

        nget = nput = 0
        cpus = []
        for lists in self.cpus:
            nget += lists.nget
            nput += lists.nput
            cpus.append(len(lists))
        depot = self.depot
        return super().statistics(
            waiting,
            uncounted=self.uncounted,
            caches=CacheStatistics(depot.list_items, depot.nitems, tuple(cpus), nget, nput),
        )

    def check_supply(self) -> None:
        super().check_supply()
        items = list(self._cached_items())
        if len({(item.page, item.index) for item in items}) != len(items):
            raise PoolCorruption(f"pool {self.name!r} has an item in two lists of its caches")
        for item in items:
            if item.index >= 0 or item.page.lists is not self or item in item.page.free:
                raise PoolCorruption(
                    f"pool {self.name!r} has an item in its caches that is not out"
                )
        if sum(map(len, self.depot)) != self.depot.nitems:
            raise PoolCorruption(f"pool {self.name!r} does not count the items of its depot")

    def _cached_items(self) -> Iterator[Item]:
        return chain.from_iterable((*self.cpus, *self.depot))


def _mark(item: Item, *, cached: bool) -> None:
    """Mark the token of an item that is cached, or no more, by the sign of its index: a cached
    token that dies with the whole set has no loss to report."""
    if (item.index < 0) is not cached:
        item.index = ~item.index
