"""A bounded, multi-pool memory allocator for async Python, modelled on OpenBSD's mbuf pools.

Several pools of fixed-size buffers draw pages from one budget; a task that finds no memory waits;
when pages come back, one serialized background task wakes the pools that can use them.

The rooms, each using only those before it:

==================  ====================================================================
``_errors``         the errors, sorted by whose move it is
``_sizes``          bytes as integers or ``"64 MiB"``
``_statistics``     frozen snapshots of the counters
``_events``         the event hook
``_memory``         where pages come from: real memory, or accounting only
``_budget``         `Budget`: limit, allocated, drops, and a callback when pages come back
``_policies``       wakeup, order, reclaim, curpage: the choices
``_page``           the pages of a pool, and where its next item comes from
``_request``        a pool's condition variable: the FIFO of parked getters
``_owner_loop``           the event loop that a set lives on: clock, thread, the way home
``_taskq``          `Task` and `TaskQueue`: coalescing, one runner, barrier
``_ledger``         debug mode: who holds what, and who writes to what he released
``_state``        what the pools of one set share
``_buffer``         `Buffer`: the lease on one item
``_reservation``    `Reservation`: the lease on bytes of the budget
``_spec``           `PoolSpec`, and the geometry of pages
``_queue``           those who wait for the same
``_waiters``        everybody who waits, and in which order they are served
``_pool``           `Pool`: get, put, wakeup, reclaim, limits
``_explain``        why am I waiting?
``_bufferpools``    `BufferPools`: all of it wired together; an application's door
``mbufs``           `MbufPools`: OpenBSD's nine pools under the kernel's rules
==================  ====================================================================

On top, imported by none of these: ``net`` (sockets and streams), ``lab`` (virtual time),
``experiment`` (kernel traces), ``cli``.
"""

from __future__ import annotations

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
from ._explain import Explanation, WaitingRequest
from ._memory import AccountedMemory, MappedMemory, Memory
from ._policies import CurPage, Order, Reclaim, Wakeup
from ._pool import Pool
from ._reservation import Reservation
from ._spec import PoolSpec
from ._statistics import (
    BudgetStatistics,
    PoolsStatistics,
    PoolStatistics,
    TaskQueueStatistics,
    WaitStatistics,
)
from ._taskq import Task, TaskQueue
from .mbufs import MbufPools

__all__ = [
    "AccountedMemory",
    "Budget",
    "BudgetStatistics",
    "Buffer",
    "BufferInUse",
    "BufferPools",
    "Buffers",
    "ConfigurationError",
    "CurPage",
    "DoubleRelease",
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
    "MbufPools",
    "Memory",
    "Order",
    "OversizeRequest",
    "Pool",
    "PoolCorruption",
    "PoolSpec",
    "PoolStatistics",
    "PoolsStatistics",
    "Reclaim",
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
]

__version__ = "0.1.0"
__lab_hooks__ = "mbufpools._lab_hooks"
