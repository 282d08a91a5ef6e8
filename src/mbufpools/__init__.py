"""A bounded, multi-pool memory allocator for async Python, modelled on OpenBSD's mbuf pools.

Several pools of fixed-size buffers draw pages from one budget; a task that finds no memory waits;
when pages come back, one serialized background task wakes the pools that can use them.

The modules of the core. Each imports only those above it:

==================  ====================================================================
``_errors``         the classes of the errors, sorted by what can be done about them
``_sizes``          sizes in bytes, as integers or as ``"64 MiB"``
``_log``            the logger, which is imported when a pool set is entered
``_statistics``     frozen snapshots of the counters
``_events``         the event hook
``_waits``          parks and wakes tasks, on asyncio and on trio
``_memory``         `Memory` and `Block`: where pages come from
``_budget``         `Budget`: limit, allocated bytes, drops, and its callbacks
``_policies``       the names of the policies: wakeup, order, reclaim, curpage
``_window``         the exporter of one lease: its view, and what was made from it
``_page``           the pages of one pool, and the tokens of their items
``_request``        a parked request, and the queue of them
``_owner_loop``     the event loop and the thread that own a pool set
``_taskq``          `Task` and `TaskQueue`: coalescing, one runner, barrier
``_debug``          debug mode: which task holds which lease; writes after a release
``_set_state``      the state that the pools of one set share; a page in and out
``_lease``          what every lease does: enter, exit, end
``_reservation``    `Reservation`: the lease on bytes of the budget
``_spec``           `PoolSpec`, and the geometry of pages
``_supply``         the pages and items of one pool, with its limits
``_buffer``         `Buffer` and `Buffers`: the lease on one item, and on several
``_wait_queues``    the queues of requests that want the same items, or bytes
``_order``          which request may be tried next
``_reclaim``        how room is made for a request
``_waiters``        all waiting requests: they join, leave, and are served
``_pool``           `Pool`: get, put, wakeup, reclaim, limits
``_pool_cache``     the lists of each CPU, and the depot of full lists
``_cached_pool``    `MbufPool`: a pool whose calls say on which CPU they run
``_explain``        the answer to "why am I waiting?"
``_bufferpools``    `BufferPools`: all of it wired together; an application's entry point
``mbufs``           `MbufPools`: OpenBSD's nine pools under the kernel's rules
==================  ====================================================================

No module knows another that is below it, not even for the type checker. ``docs/design.md`` says who
owns what at each moment.

On top of the core, and imported by none of its modules:

==================  ====================================================================
``lab``             runs a program in virtual time and explores its schedules
``_lab_hooks``      what the pools tell the lab about themselves; only the lab loads it
``smp``             a model of the kernel's protocol on several CPUs, explored by the lab
``net``             sockets, transports and streams whose memory the pools bound
``traces``          recordings of the kernel's own code, and their replay on the pools
``examples``        the programs of the tutorials: where they are, and a copy
``demokit``         what the demos share: arguments, processes, reports
``experiment``      the experiment: workloads, kernels, questions, verdicts, the report
``cli``             the command ``mbufpools``
==================  ====================================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._budget import Budget
from ._buffer import Buffer, Buffers
from ._bufferpools import BufferPools
from ._debug import Holder
from ._errors import (
    BufferInUse,
    ConfigurationError,
    DoubleRelease,
    ForeignBuffer,
    ImpossibleRequest,
    LeaseError,
    LimitRangeError,
    OversizeRequest,
    PoolCorruption,
    RequestError,
    UsageError,
    UseAfterRelease,
)
from ._events import Event, EventKind, Hook
from ._memory import AccountedMemory, Block, MappedMemory, Memory
from ._policies import (
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
)
from ._pool import Pool
from ._reservation import Reservation
from ._spec import PoolSpec
from ._taskq import Task, TaskQueue

if TYPE_CHECKING:
    from ._cached_pool import CpuBuffer, MbufPool
    from ._explain import Explanation, WaitingRequest
    from ._statistics import (
        BudgetStatistics,
        CacheStatistics,
        PoolsStatistics,
        PoolStatistics,
        TaskQueueStatistics,
        WaitStatistics,
    )
    from .mbufs import MbufPools

__all__ = [
    "AccountedMemory",
    "Block",
    "Budget",
    "BudgetStatistics",
    "Buffer",
    "BufferInUse",
    "BufferPools",
    "Buffers",
    "CacheStatistics",
    "ConfigurationError",
    "CpuBuffer",
    "CurPage",
    "CurPageName",
    "DoubleRelease",
    "Drain",
    "DrainName",
    "Event",
    "EventKind",
    "Explanation",
    "ForeignBuffer",
    "Holder",
    "Hook",
    "ImpossibleRequest",
    "LeaseError",
    "LimitRangeError",
    "MappedMemory",
    "MbufPool",
    "MbufPools",
    "Memory",
    "Order",
    "OrderName",
    "OversizeRequest",
    "Pool",
    "PoolCorruption",
    "PoolSpec",
    "PoolStatistics",
    "PoolsStatistics",
    "Reclaim",
    "ReclaimName",
    "RequestError",
    "Reservation",
    "Task",
    "TaskQueue",
    "TaskQueueStatistics",
    "UsageError",
    "UseAfterRelease",
    "WaitStatistics",
    "WaitingRequest",
    "Wakeup",
    "WakeupName",
]

__version__ = "0.1.0"
__lab_hooks__ = "mbufpools._lab_hooks"

_LATER = {
    "_cached_pool": ("CpuBuffer", "MbufPool"),
    "_explain": ("Explanation", "WaitingRequest"),
    "_statistics": (
        "BudgetStatistics",
        "CacheStatistics",
        "PoolStatistics",
        "PoolsStatistics",
        "TaskQueueStatistics",
        "WaitStatistics",
    ),
    "mbufs": ("MbufPools",),
}
"""Names by the module that is imported when one of them is first used. Most programs
need none of them, and the import of the package is faster without; the benchmarks have a row for
it."""

if not TYPE_CHECKING:  # the type checker knows the names from above, and that there are no others

    def __getattr__(name: str) -> Any:
        """Import what is imported late (PEP 562)."""
        from importlib import import_module

        for module, names in _LATER.items():
            if name in names:
                return getattr(import_module(f"{__name__}.{module}"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        """Return all names, also those that are imported late."""
        return sorted({*globals(), *__all__})
