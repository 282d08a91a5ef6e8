"""OpenBSD's nine mbuf pools: a table, the kernel's rules, and its names.

Models uipc_mbuf.c: mbinit, m_clpool, nmbclust_update, m_pool_used.

`MbufPools` is `BufferPools` with other sizes, defaults and rules. It keeps the kernel's rules even
where an application suffers from them: a new request barges, a request that can never be served
sleeps, a raised hard limit wakes no request, and idle pages leave by the gc. A limit that is
smaller than a page of some pool is legal.
"""

from __future__ import annotations

from ._bufferpools import BufferPools
from ._errors import LimitRangeError, OversizeRequest
from ._events import Hook
from ._memory import Memory
from ._options import SetOptions
from ._policies import (
    KERNEL,
    CurPage,
    CurPageName,
    Order,
    OrderName,
    Reclaim,
    ReclaimName,
    Wakeup,
    WakeupName,
)
from ._pool import Pool
from ._spec import PoolSpec, stride_of

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
        near_limit_margin: as `BufferPools`.
        mcl9k128: True for the 9k class as it is since uipc_mbuf.c 1.305.
        name, fast_acquire, debug, collect_garbage, memory, hook: as `BufferPools`.

    Raises:
        LimitRangeError: `nmbclust` is out of range.
        ConfigurationError: an unknown policy.
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
        clusters = [
            CLUSTER_9K128 if mcl9k128 and cluster[1] == "mcl9k" else cluster for cluster in CLUSTERS
        ]
        self._clusters = clusters
        self._wire(
            nmbclust * MCLBYTES,
            [PoolSpec(MSIZE, name="mbufpl")]
            + [PoolSpec(stride_of(size), name=pool) for size, pool in clusters],
            SetOptions(
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
            ),
        )

    @property
    def mbpool(self) -> Pool:
        """The pool of mbufs, ``mbufpl``."""
        return self._pools["mbufpl"]

    @property
    def mclpools(self) -> tuple[Pool, ...]:
        """The cluster pools, the smallest first."""
        return tuple(self._pools[name] for _, name in self._clusters)

    def m_clpool(self, nbytes: int) -> Pool:
        """Return the smallest cluster pool for `nbytes` bytes (``m_clpool``).

        Raises:
            OversizeRequest: `nbytes` is more than 65536 (the kernel returns NULL).
            RequestError, TypeError: as `pool_for`.
        """
        self._check_request(nbytes)
        for size, name in self._clusters:
            if nbytes <= size:
                return self._pools[name]
        size, name = self._clusters[-1]
        raise OversizeRequest(
            f"there is no cluster of {nbytes} bytes; the largest are of {size} (pool {name!r})"
        )

    def pool_for(self, nbytes: int) -> Pool:
        """Return ``mbufpl`` if an mbuf holds `nbytes` bytes, else the pool that `m_clpool` returns.

        Raises as `m_clpool`.
        """
        self._check_request(nbytes)
        return self.mbpool if nbytes <= MSIZE else self.m_clpool(nbytes)

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
