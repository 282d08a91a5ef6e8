"""Run a recording of the kernel through `MbufPools`, and compare every field of every line.

Each process of the recording is a separate task that really waits in ``Pool.get``. Nothing is
modelled a second time here: the state is read from the library's statistics, and the grants with
their times from its event hook.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import Any

import anyio

from mbufpools import (
    AccountedMemory,
    Buffer,
    CacheStatistics,
    ConfigurationError,
    Event,
    EventKind,
    LimitRangeError,
    MbufPool,
    MbufPools,
    PoolsStatistics,
)
from mbufpools._pool_cache import LIST_ITEMS

from ._recording import Step, Trace, TraceError

__all__ = ["Disagreement", "replay"]

UNLIMITED = 0xFFFFFFFF
"""The kernel's ``UINT_MAX``: no hard limit."""
COUNTERS = (
    "nget", "nput", "nfail", "nout", "npages", "nidle",
    "npagealloc", "npagefree", "hiwat", "waiting",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Disagreement:
    """The first field in which the library differs from the kernel."""

    trace: str
    line: int
    operation: str
    field: str
    expected: Any
    got: Any

    def __str__(self) -> str:
        return (
            f"{self.trace}, line {self.line}: after {self.operation}, {self.field} differs\n"
            f"  expected {self.expected!r}\n"
            f"  got      {self.got!r}"
        )


async def replay(trace: Trace) -> Disagreement | None:
    """Replay `trace`; return the first disagreement, or None if every field agrees.

    Runs on the current event loop, which should keep virtual time (`mbufpools.lab.run`), because
    the recordings span minutes. A cancelled replay leaves no task and no buffer behind.

    Raises:
        TraceError: the recording has an impossible operation, such as a put by a process that
            holds nothing.
    """
    return await _Replay(trace).run()


class _Replay:
    def __init__(self, trace: Trace) -> None:
        self._trace = trace
        self._pools = MbufPools(
            wakeup=trace.wakeup,
            curpage=trace.curpage,
            caches=trace.caches,
            memory=AccountedMemory(),
            hook=self._observe,
        )
        self._processes = anyio.create_task_group()
        self._start = 0.0
        self._held: dict[int, Buffer] = {}
        self._arrived: dict[int, anyio.Event] = {}
        """For each process whose get has not returned: the event that is set when it returns."""
        self._getting = 0
        """The process that has just started a get, until it holds an item or parks; else 0."""
        self._parked: dict[int, int] = {}
        """The process of each parked request, by the number of the request."""
        self._granted: list[list[float]] = []
        """The grants of this step, pairs of a process and a time, in the order of the decisions."""
        self._served: set[int] = set()
        """Processes that were granted an item and have not put it."""
        self._counters = {name: dict.fromkeys(COUNTERS, 0) for name in self._pools.pools}
        self._caches: dict[str, dict[str, Any]] = {}
        """What the recording has said of the caches; a pool of which it has said nothing has none
        that changed."""
        if trace.caches:
            empty = CacheStatistics(LIST_ITEMS, 0, (0,) * trace.caches, 0, 0)
            self._caches = {name: _cache_fields(empty) for name in self._pools.pools}

    async def run(self) -> Disagreement | None:
        self._start = anyio.current_time()
        disagreement: Disagreement | None = None
        impossible: TraceError | None = None
        async with self._pools:
            try:
                async with self._processes:
                    try:
                        disagreement = await self._follow()
                    except TraceError as error:
                        impossible = (
                            error  # raised after the task group, which would wrap it in a group
                        )
                    self._processes.cancel_scope.cancel()
            finally:  # no process is left that could still get a buffer
                for buffer in self._held.values():
                    buffer.release()
        if impossible is not None:
            raise impossible
        return disagreement

    async def _follow(self) -> Disagreement | None:
        for step in self._trace.steps:
            rv = await self._perform(step)
            while self._pools.taskq.statistics().queued:
                await self._pools.taskq.barrier()
            disagreement = self._compare(step, rv)
            if disagreement is not None:
                return disagreement
        return None

    def _observe(self, event: Event) -> None:
        pid = self._getting
        if event.kind is EventKind.WAIT:
            self._parked[event.request] = pid
        elif event.kind is EventKind.GRANT:
            pid = self._parked.pop(event.request, pid)  # not parked yet: granted at the second try
            self._granted.append([pid, event.time])
        elif event.kind is EventKind.GET and pid:
            self._granted.append([pid, event.time])

    # The operations

    async def _perform(self, step: Step) -> int:
        self._granted = []
        try:
            match step.operation, step.arguments:
                case "get", (pid, pool, *cpu):
                    await self._get(pid, self._pool(pool), _one(cpu))
                case "try", (pid, pool, *cpu):
                    return self._try(pid, self._pool(pool), _one(cpu))
                case "put", (pid, *cpu):
                    await self._put(pid, _one(cpu))
                case "advance", (seconds,):
                    await anyio.sleep(seconds)
                case "nmbclust", (clusters,):
                    self._pools.nmbclust_update(clusters)
                case "hardlimit", (pool, items):
                    self._pool(pool).set_hard_limit(None if items == UNLIMITED else items)
                case "hiwat", (pool, items):
                    self._pool(pool).set_high_water(items)
                case "reclaim", (pool,):
                    return int(self._pool(pool).reclaim() > 0)
        except LimitRangeError:
            return errno.ERANGE
        except ConfigurationError:
            return errno.EINVAL
        except _ImpossibleStep as error:
            raise TraceError(f"{self._trace.name}, line {step.line}: {error}") from None
        return 0

    async def _get(self, pid: int, pool: MbufPool, cpu: int | None) -> None:
        self._refuse_busy(pid)
        started = anyio.Event()

        async def process() -> None:
            started.set()
            self._getting = pid  # until the get parks or returns; no other task runs before that
            self._held[pid] = await pool.get(cpu=cpu)
            self._arrived.pop(pid).set()

        self._arrived[pid] = anyio.Event()
        self._processes.start_soon(process, name=f"process {pid}")
        await started.wait()
        self._getting = 0

    def _try(self, pid: int, pool: MbufPool, cpu: int | None) -> int:
        self._refuse_busy(pid)
        try:
            self._held[pid] = pool.get_nowait(cpu=cpu)
        except anyio.WouldBlock:
            return 0
        self._served.add(pid)
        return 1

    async def _put(self, pid: int, cpu: int | None) -> None:
        if pid not in self._served:
            raise _ImpossibleStep(f"process {pid} puts, but was never granted a buffer")
        if pid in self._arrived:
            await self._arrived[pid].wait()
        self._served.remove(pid)
        buffer = self._held.pop(pid)
        self._pools.pools[buffer.pool.name].put(buffer, cpu)

    def _refuse_busy(self, pid: int) -> None:
        if pid in self._served or pid in self._arrived:
            raise _ImpossibleStep(f"process {pid} holds or waits for a buffer already")

    def _pool(self, name: str) -> MbufPool:
        try:
            return self._pools.pools[name]
        except KeyError:
            raise _ImpossibleStep(
                f"there is no pool {name!r}; expected one of {', '.join(self._pools.pools)}"
            ) from None

    # The comparison

    def _compare(self, step: Step, rv: int) -> Disagreement | None:
        statistics = self._pools.statistics()
        self._served.update(int(pid) for pid, _ in self._granted)
        got: dict[str, Any] = {
            "rv": rv,
            "t": anyio.current_time() - self._start,
            "granted": self._granted,
            "mem_limit": statistics.limit,
            "mem_alloc": statistics.allocated,
            "drops": statistics.drops,
            "wakeup_runs": statistics.wakeup_runs,
        }
        for field, value in got.items():
            if step.state[field] != value:
                return self._disagreement(step, field, step.state[field], value)
        for name, counters in step.state["pools"].items():
            self._counters.setdefault(name, {}).update(counters)
        for name, expected in self._counters.items():
            pool = statistics.pools.get(name)
            for counter, value in expected.items():
                if pool is None or getattr(pool, counter, None) != value:
                    now = None if pool is None else getattr(pool, counter, None)
                    return self._disagreement(step, f"{name}.{counter}", value, now)
        return self._compare_caches(step, statistics) if self._trace.caches else None

    def _compare_caches(self, step: Step, statistics: PoolsStatistics) -> Disagreement | None:
        for name, fields in step.state["caches"].items():
            self._caches.setdefault(name, {}).update(fields)
        for name, expected in self._caches.items():
            pool = statistics.pools.get(name)
            got = {} if pool is None or pool.caches is None else _cache_fields(pool.caches)
            for field, value in expected.items():
                if field not in got or got[field] != value:
                    now = got.get(field)
                    return self._disagreement(step, f"{name}.caches.{field}", value, now)
        return None

    def _disagreement(self, step: Step, field: str, expected: Any, got: Any) -> Disagreement:
        operation = " ".join(map(str, (step.operation, *step.arguments)))
        return Disagreement(self._trace.name, step.line, operation, field, expected, got)


class _ImpossibleStep(Exception):
    """The recording has an operation that no kernel could have done."""


def _one(cpu: list[int]) -> int | None:
    """The CPU that an operation names, if the recording has CPUs."""
    return cpu[0] if cpu else None


def _cache_fields(caches: CacheStatistics) -> dict[str, Any]:
    """The caches of a pool as a recording shows them."""
    return {"list": caches.list_items, "depot": caches.depot, "cpus": list(caches.cpus)}
