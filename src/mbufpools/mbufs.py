"""OpenBSD's nine mbuf pools: a table, the kernel's rules, and its names.

Models uipc_mbuf.c: mbinit, m_clpool, nmbclust_update, m_pool_used.

`MbufPools` is `BufferPools` with other sizes, defaults and rules. It keeps the kernel's rules even
where an application suffers from them: a new request barges, a request that can never be served
sleeps, a raised hard limit wakes no request, and idle pages leave by the gc. A limit that is
smaller than a page of some pool is legal.

With ``caches=N`` each of N CPUs has the caches of a multiprocessor kernel in front of every pool
(`_cached_pool`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, cast, overload

from ._buffer import Buffer
from ._bufferpools import BufferPools
from ._cached_pool import CachedPool, CachedSupply, CpuBuffer, MbufPool
from ._errors import ConfigurationError, LimitRangeError, OversizeRequest
from ._events import Hook
from ._memory import Memory
from ._policies import (
    KERNEL,
    CurPage,
    CurPageName,
    Drain,
    DrainName,
    Order,
    OrderName,
    Reclaim,
    ReclaimName,
    Wakeup,
    WakeupName,
    choose,
)
from ._sizes import require_count
from ._spec import PoolSpec, stride_of
from ._supply import Supply

if TYPE_CHECKING:
    from ._statistics import PoolsStatistics

__all__ = ["LONG_MAX", "MCLBYTES", "MSIZE", "NMBCLUSTERS", "MbufPools"]

MSIZE = 256
"""Bytes of an mbuf."""
MCLBYTES = 2048
"""Bytes of a cluster; ``nmbclust`` counts these."""
NMBCLUSTERS = 256 * 1024
"""The default of ``nmbclust`` (amd64): a limit of 512 MiB."""
LONG_MAX = (1 << 63) - 1
"""The largest limit in bytes, as in the kernel."""

CLUSTERS = (
    (2048, "mcl2k"),
    (2050, "mcl2k2"),
    (4096, "mcl4k"),
    (8192, "mcl8k"),
    (9216, "mcl9k"),
    (12288, "mcl12k"),
    (16384, "mcl16k"),
    (65536, "mcl64k"),
)
"""``mclsizes`` in bytes, and the names of their pools."""
CLUSTER_9K128 = (9344, "mcl9k128")
"""The 9k class since uipc_mbuf.c 1.305."""


class MbufPools(BufferPools):
    """The kernel's mbuf pools, with the interface of `BufferPools`.

    Args:
        nmbclust: the limit, in clusters of 2048 bytes.
        wakeup: as `BufferPools`; ``"deferred"`` is the patch, ``"none"`` the kernel before it.
        order: as `BufferPools`.
        reclaim: as `BufferPools`.
        curpage: ``"stale"`` is the kernel as it is; ``"refreshed"`` cures its hidden items.
        caches: how many CPUs have per-CPU caches in front of the pools (``mbcpuinit``), as every
            multiprocessor kernel has; 0 for none. `MbufPool.get`, `get_nowait` and `put`, and the
            release of a buffer, then say on which CPU they run.
        drain: what the caches give back while a request waits; see `Drain`.
        near_limit_margin: as `BufferPools`.
        mcl9k128: True for the 9k class as it is since uipc_mbuf.c 1.305.
        name, fast_acquire, debug, collect_garbage, memory, hook: as `BufferPools`.

    Raises:
        LimitRangeError: `nmbclust` is out of range.
        ConfigurationError: an unknown policy, a negative number of caches, or caches that are
            drained although there are none.
    """

    _rules = KERNEL

    def __init__(
        self,
        nmbclust: int = NMBCLUSTERS,
        *,
        wakeup: Wakeup | WakeupName = Wakeup.DEFERRED,
        order: Order | OrderName = Order.BARGING,
        reclaim: Reclaim | ReclaimName = Reclaim.GC,
        curpage: CurPage | CurPageName = CurPage.REFRESHED,
        caches: int = 0,
        drain: Drain | DrainName = Drain.NEVER,
        near_limit_margin: int | None = None,
        mcl9k128: bool = False,
        name: str = "MbufPools",
        fast_acquire: bool = False,
        debug: bool = False,
        collect_garbage: bool = True,
        memory: Memory | None = None,
        hook: Hook | None = None,
    ) -> None:
        self._nmbclust = _check_nmbclust(nmbclust)
        self._caches = require_count(caches, "caches", unit="CPUs")
        self._drain_rule = choose(Drain, drain)
        if self._drain_rule is not Drain.NEVER and not caches:
            raise ConfigurationError(
                f"drain is {str(self._drain_rule)!r}, but there are no caches; give caches=N, the "
                f"number of CPUs"
            )
        self._drains = 0
        clusters = [
            CLUSTER_9K128 if mcl9k128 and cluster[1] == "mcl9k" else cluster for cluster in CLUSTERS
        ]
        self._clusters = clusters
        self._wire(
            nmbclust * MCLBYTES,
            [PoolSpec(MSIZE, name="mbufpl")]
            + [PoolSpec(stride_of(size), name=pool) for size, pool in clusters],
            name=name,
            wakeup=wakeup,
            order=order,
            reclaim=reclaim,
            curpage=curpage,
            near_limit_margin=near_limit_margin,
            fast_acquire=fast_acquire,
            debug=debug,
            collect_garbage=collect_garbage,
            memory=memory,
            hook=hook,
        )

    def _make_pool(self, spec: PoolSpec) -> MbufPool:
        if not self._caches:
            return MbufPool(spec, self._state, self._waiters)
        return CachedPool(
            spec,
            self._state,
            self._waiters,
            cpus=self._caches,
            before_sleep=None if self._drain_rule is Drain.NEVER else self._drain,
        )

    @property
    def pools(self) -> Mapping[str, MbufPool]:
        """The pools by the kernel's names, in the order of their sizes."""
        return cast(Mapping[str, MbufPool], super().pools)

    @property
    def mbpool(self) -> MbufPool:
        """The pool of mbufs, ``mbufpl``."""
        return self.pools["mbufpl"]

    @property
    def mclpools(self) -> tuple[MbufPool, ...]:
        """The cluster pools, the smallest first."""
        return tuple(self.pools[name] for _, name in self._clusters)

    @property
    def caches(self) -> int:
        """The number of CPUs that have caches in front of the pools; 0 if there are none."""
        return self._caches

    def m_clpool(self, nbytes: int) -> MbufPool:
        """Return the smallest cluster pool for `nbytes` bytes (``m_clpool``).

        Raises:
            OversizeRequest: `nbytes` is more than 65536 (the kernel returns NULL).
            RequestError, TypeError: as `pool_for`.
        """
        self._check_request(nbytes)
        for size, name in self._clusters:
            if nbytes <= size:
                return self.pools[name]
        size, name = self._clusters[-1]
        raise OversizeRequest(
            f"there is no cluster of {nbytes} bytes; the largest are of {size} (pool {name!r})"
        )

    def pool_for(self, nbytes: int) -> MbufPool:
        """Return ``mbufpl`` if an mbuf holds `nbytes` bytes, else the pool that `m_clpool` returns.

        Raises as `m_clpool`.
        """
        self._check_request(nbytes)
        return self.mbpool if nbytes <= MSIZE else self.m_clpool(nbytes)

    @overload
    async def get(self, nbytes: int, *, cpu: None = None) -> Buffer: ...
    @overload
    async def get(self, nbytes: int, *, cpu: int) -> CpuBuffer: ...
    async def get(self, nbytes: int, *, cpu: int | None = None) -> Buffer:
        """Take a buffer of `nbytes` bytes from the pool that `pool_for` returns, on the CPU `cpu`.

        It blocks, can be cancelled, is fair and fails as `MbufPool.get` does; it also raises what
        `pool_for` raises.
        """
        return await self._pool_of_request(nbytes)._get_on(nbytes, cpu)

    @overload
    def get_nowait(self, nbytes: int, *, cpu: None = None) -> Buffer: ...
    @overload
    def get_nowait(self, nbytes: int, *, cpu: int) -> CpuBuffer: ...
    def get_nowait(self, nbytes: int, *, cpu: int | None = None) -> Buffer:
        """Take a buffer of `nbytes` bytes at once, or raise `anyio.WouldBlock`, on the CPU `cpu`.

        Never blocks. It fails as `MbufPool.get_nowait` does; it also raises what `pool_for` raises.
        """
        return self._pool_of_request(nbytes)._get_nowait_on(nbytes, cpu)

    def _pool_of_request(self, nbytes: int) -> MbufPool:
        pool = self._pool_of.get(nbytes + 63 >> 6) if type(nbytes) is int else None
        return cast(MbufPool, pool or self._search(nbytes))

    # The caches of the CPUs

    def drain_caches(self, *, cpus: bool = True) -> int:
        """Return the items in the depots and, with `cpus`, those in the lists of every CPU, to
        their pages, then serve the requests that can be served.

        Returns how many items went back; 0 without caches. Never blocks. The kernel has no such
        call: it would have to visit each CPU.

        Raises:
            UsageError: the pools are open on another thread.
        """
        self._owner_loop.check_thread()
        if not self._caches:
            return 0
        with self._state.changing:
            items = sum(
                cast(CachedSupply, pool._supply).drain(cpus) for pool in self.pools.values()
            )
            self._waiters.run()
        return items

    def _drain(self) -> None:
        """Drain what the rule says, because a request waits, and count it."""
        self._drains += 1
        self.drain_caches(cpus=self._drain_rule is Drain.CACHES)

    def _for_gc(self) -> list[Supply]:
        """All supplies if they have caches, whose lists the gc takes home, too."""
        return self._waiters.reclaimer.supplies if self._caches else super()._for_gc()

    def _before_gc(self) -> None:
        """While a request waits, drain the caches before the gc looks at the pages."""
        if self._drain_rule is not Drain.NEVER and self._state.waiting:
            self._drain()

    def statistics(self) -> PoolsStatistics:
        """Return a snapshot of all counters. May be called from any thread; never blocks."""
        from dataclasses import replace

        statistics = super().statistics()
        if not self._drains:
            return statistics
        visited = self._caches if self._drain_rule is Drain.CACHES else 0
        return replace(statistics, drains=self._drains, cpu_visits=self._drains * visited)

    @property
    def nmbclust(self) -> int:
        """The limit as it was last set, in clusters of 2048 bytes."""
        return self._nmbclust

    def nmbclust_update(self, nmbclust: int) -> None:
        """Set the limit to `nmbclust` clusters, and wake every pool (``nmbclust_update``).

        Never blocks. Before the patch (``wakeup="none"``, and ``"direct"``) this call wakes the
        pools; with the patch the wakeup task does, and coalesces with the wakeups of page frees.
        A limit below what is allocated is accepted.

        Raises:
            LimitRangeError: `nmbclust` is not in 1 ... LONG_MAX / 2048 (the kernel's ``ERANGE``);
                nothing has changed.
            TypeError: `nmbclust` is not an integer.
            UsageError: the pools are open on another thread.
        """
        self._owner_loop.check_thread()
        self._nmbclust = _check_nmbclust(nmbclust)
        self._budget.resize(nmbclust * MCLBYTES)

    def m_pool_used(self) -> int:
        """Return the allocated bytes as a whole percentage of the limit (``m_pool_used``)."""
        return self._budget.used_percent


def _check_nmbclust(nmbclust: int) -> int:
    if isinstance(nmbclust, bool) or not isinstance(nmbclust, int):
        raise TypeError(f"nmbclust is {nmbclust!r}; expected an integer of clusters")
    if not 0 < nmbclust <= LONG_MAX // MCLBYTES:
        raise LimitRangeError(
            f"nmbclust is {nmbclust}; expected 1 to {LONG_MAX // MCLBYTES} clusters of "
            f"{MCLBYTES} bytes"
        )
    return nmbclust
