"""One pool set under random use: opened, driven, closed, and looked at.

One task, the driver, draws the next operation and does it without a pause. Between two operations
it sometimes lets other tasks run, or time pass. So operations meet in every order, before the tasks
that they wake have run: for example a release and the cancellation of the request it serves, or a
resize and a grant. A get or a reservation that may wait runs in a task of its own (`Getters`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from functools import partial
from itertools import accumulate
from random import Random
from typing import Any

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from mbufpools import (
    AccountedMemory,
    BufferPools,
    ConfigurationError,
    CurPage,
    Event,
    EventKind,
    ImpossibleRequest,
    MappedMemory,
    MbufPools,
    Memory,
    Order,
    OversizeRequest,
    Pool,
    PoolCorruption,
    PoolSpec,
    Reclaim,
    Task,
    UsageError,
    Wakeup,
)

from ._counters import Counters
from ._getters import EndOfBody, Getters
from ._held import HeldLeases, Lease

__all__ = ["Driver"]

SIZES = (200, 700, 1500, 2048, 4000, 9000)
"""Bytes of an item: mostly small, because faults depend on the number of items."""
ENDS = ("drained", "abrupt", "raised", "cancelled", "failed")
"""How the body of a set ends: after all requests were served, while some wait, by an exception, by
a cancellation, or by an exception of a queued task."""
PATIENCE = 10_000
"""Seconds of virtual time in which every request must be served once all is released. The kernel's
gc frees one idle page of each pool a second, after eight seconds, and so on for each waiter."""


class _FailingMemory:
    """A source of pages that fails now and then."""

    def __init__(self, memory: Memory, random: Random) -> None:
        self._memory = memory
        self._random = random
        self.refusals = 0.0
        """The probability of a failure."""

    def allocate(self, nbytes: int) -> Any:
        if self._random.random() < self.refusals:
            raise MemoryError(f"no page of {nbytes} bytes, by chance")
        return self._memory.allocate(nbytes)


class Driver:
    """One pool set with random settings, and the tasks that use it.

    Args:
        number: of the set, for messages.
        random: the only source of chance.
        counters: where everything is counted.
        thread: another thread, for one call at a time.
    """

    def __init__(self, number: int, random: Random, counters: Counters, thread: Executor) -> None:
        self._random = random
        self._counters = counters
        self._name = f"set {number}"
        mapped = random.random() < 0.75
        self._memory = _FailingMemory(MappedMemory() if mapped else AccountedMemory(), random)
        self._end = random.choice(ENDS)
        self._parked: dict[int, bool] = {}
        """Whether each request that parked was granted; cancelled requests are removed."""
        self._parks = self._grants = 0
        policies = {
            "wakeup": random.choice(list(Wakeup)),
            "order": random.choice(list(Order)),
            "reclaim": random.choice(list(Reclaim)),
        }
        self._what = f"{self._name} ({', '.join([*policies.values(), self._end])})"
        self._pools = self._make(
            {
                **policies,
                "name": self._name,
                "fast_acquire": random.random() < 0.3,
                "debug": random.random() < 0.3,
                "memory": self._memory,
                "hook": self._observe,
            }
        )
        self._every = list(self._pools.pools.values())
        self._largest = self._every[-1].item_size
        self._held = HeldLeases(random, counters, self._report, mapped=mapped, thread=thread)
        self._getters = Getters(
            random, counters, self._held, self._report, most=random.randint(4, 40)
        )
        self._job = Task(self._run_job, name="job")
        self._group: TaskGroup | None = None
        operations: dict[str, tuple[float, Callable[[], bool]]] = {
            "get": (12, self._get),
            "get, held in a with": (5, self._get_and_hold),
            "get_nowait": (10, self._get_nowait),
            "get_many": (6, self._get_many),
            "reserve": (5, self._reserve),
            "reserve_nowait": (2, self._reserve_nowait),
            "release": (24, self._held.release),
            "release in a thread": (1.5, self._held.release_in_thread),
            "release in a __del__": (0.5, self._held.release_in_finalizer),
            "release refused": (0.5, self._held.release_exported),
            "release, slice kept": (0.5, self._held.keep_slice),
            "release twice": (0.5, self._held.release_twice),
            "drop": (1.5, self._held.drop),
            "drop in a cycle": (0.5, self._held.drop_in_cycle),
            "drop while exported": (0.3, self._held.drop_exported),
            "end of exports": (0.3, self._held.end_exports),
            "garbage collection": (0.2, self._held.collect),
            "cancel by scope": (5, self._getters.cancel),
            "cancel natively": (4, self._getters.cancel_natively),
            "resize": (1, self._resize),
            "hard limit": (1, self._set_hard_limit),
            "low water": (0.7, self._set_low_water),
            "high water": (0.3, self._set_high_water),
            "prime": (0.5, self._prime),
            "reclaim": (0.5, self._reclaim),
            "wakeup": (0.5, self._wake),
            "task": (1, self._add_task),
            "mistake": (0.5, self._err),
            "explain": (0.3, self._explain),
            "check": (1.5, self._check),
            "drain": (0.1, lambda: True),  # for the driver to do
        }
        self._operations = [(name, do) for name, (_, do) in operations.items()]
        self._weights = list(accumulate(weight for weight, _ in operations.values()))

    def _make(self, options: dict[str, Any]) -> BufferPools:
        random = self._random
        self._specs: list[PoolSpec] = []
        if random.random() < 0.15:
            self._promises = False  # under the kernel's rules what can never be served sleeps
            return MbufPools(random.randint(8, 64), curpage=random.choice(list(CurPage)), **options)
        for size in random.sample(SIZES, random.randint(1, 4)):
            least = random.choice((0, 0, 0, 1, 3))
            per_page = random.choice((1, 2, 4, 8))
            self._specs.append(
                PoolSpec(
                    size,
                    items_per_page=per_page,
                    min_items=least,
                    max_items=random.choice((None, None, None, least + 1, least + 5)),
                    max_idle_items=random.randint(0, 4) * per_page,
                )
            )
        self._promises = options["wakeup"] is not Wakeup.NONE
        return BufferPools(
            self._limit(1),
            self._specs,
            max_passes=random.choice((None, None, 0, 3)),
            **options,
        )

    def _limit(self, least: float) -> int:
        """Draw a tight limit: beside the minimum of all, a few of the largest pages."""
        kept = sum(spec.min_pages * spec.page_size for spec in self._specs)
        largest = max(spec.page_size for spec in self._specs)
        return kept + int(largest * self._random.uniform(least, 5))

    def _report(self, what: str) -> None:
        self._counters.fault(f"{self._what}: {what}")

    # Its life

    async def live(self, operations: int) -> None:
        """Open the set, do so many operations on it, close it, and see that nothing is left."""
        async with anyio.create_task_group() as self._group:
            try:
                await self._open_and_close(operations)
            except EndOfBody:
                expected = self._end in ("raised", "failed")
            else:
                expected = self._end not in ("raised", "failed")
            if not expected:
                self._report(f"an `async with` that should end as {self._end} did not")
            self._counters.closed += 1
        self._look_at_the_end()

    async def _open_and_close(self, operations: int) -> None:
        with anyio.CancelScope() as scope:
            try:
                async with self._pools:
                    self._counters.opened += 1
                    self._memory.refusals = self._random.choice((0, 0, 0.02))
                    await self._drive(operations)
                    if self._end == "drained" and not self._counters.faults:
                        await self._drain()
                    if not self._held.leases:
                        # After these exports no release would follow that takes their buffers back.
                        self._held.end_exports()
                    self._getters.closing = True
                    if self._end == "raised":
                        raise EndOfBody
                    if self._end == "cancelled":
                        scope.cancel()
                        await checkpoint()
                    if self._end == "failed":
                        self._pools.taskq.add(Task(self._fail))
                        await anyio.sleep(1)  # the body goes on, and the end raises the error
            finally:
                self._getters.closing = True
                reported = self._name in self._counters.reported
                self._counters.reported.discard(self._name)
                if self._held.leases and not reported:
                    self._report("what was out at the close was not reported")

    @staticmethod
    def _fail() -> None:
        raise EndOfBody

    async def _drive(self, operations: int) -> None:
        random = self._random
        done = 0
        while done < operations and self._counters.goes_on:
            ((name, do),) = random.choices(self._operations, cum_weights=self._weights)
            try:
                if not do():
                    continue
            except PoolCorruption as error:
                self._report(f"{name}: {error}")
            except Exception as error:  # noqa: BLE001 - whatever it is, it is a fault
                self._report(f"{name} raised {error!r}")
            done += 1
            self._counters.did(name)
            if name == "check" and random.random() < 0.3:
                await self._count_out()
            elif name == "drain":
                await self._drain()
            pause = random.random()
            if pause < 0.4:
                await checkpoint()
            elif pause < 0.45:
                await anyio.sleep(random.expovariate(100))
            elif pause < 0.452:
                await anyio.sleep(random.uniform(0.5, 12))

    async def _drain(self) -> None:
        """Release all that is held, again and again: in the end no request may wait."""
        refusals, self._memory.refusals = self._memory.refusals, 0
        self._held.end_exports()
        for _ in range(PATIENCE):
            self._held.end_pending()
            while self._held.release():
                pass
            if not self._getters and not self._held.leases:
                self._memory.refusals = refusals
                return
            if not self._promises:
                self._getters.cancel_all()
            await anyio.sleep(1)
        self._report(f"all was released, and yet a request waits\n{self._pools.explain()}")

    async def _count_out(self) -> None:
        """Compare what the set thinks is out with what is held."""
        if self._held.unpinned:
            await anyio.sleep(1.1)  # until the gc has looked for them
            self._held.unpinned = False
        for _ in range(50):
            statistics = self._pools.statistics()
            expected = self._held.out(self._getters.holdings())
            if (statistics.nout, statistics.reserved) == expected:
                return
            await checkpoint()
        self._report(
            f"{statistics.nout} buffers and {statistics.reserved} reserved bytes are out, "
            f"but {expected[0]} and {expected[1]} are held"
        )

    def _look_at_the_end(self) -> None:
        """Everything is released after the close, and nothing may be left."""
        self._held.end_exports()
        self._held.end()
        try:
            self._pools.check()
        except PoolCorruption as error:
            self._report(str(error))
        statistics = self._pools.statistics()
        waits = statistics.waits
        left = {
            "buffers out": statistics.nout,
            "bytes charged": statistics.allocated,
            "bytes reserved": statistics.reserved,
            "requests waiting": statistics.waiting,
            "requests parked and never heard of again": list(self._parked.values()).count(False),
            "waits not told": waits.waits - self._parks,
            "grants not told": waits.grants - self._grants,
        }
        for what, count in left.items():
            if count:
                self._report(f"at the end there are {count} {what}")
        counters = self._counters
        counters.waits += waits.waits
        counters.grants += waits.grants
        counters.cancellations += waits.cancellations
        counters.passes += waits.passes
        counters.refused += statistics.drops
        counters.peak_waiting = max(counters.peak_waiting, waits.peak_waiting)

    def _observe(self, event: Event) -> None:
        """The event hook: the bound holds, and each request that parks has one fate."""
        kind = event.kind
        if kind is EventKind.WAIT:
            self._parks += 1
            self._parked[event.request] = False
        elif kind is EventKind.GRANT:
            self._grants += 1
            if self._parked.get(event.request, True):
                self._report(f"request {event.request} was granted, but did not wait")
            self._parked[event.request] = True
        elif kind is EventKind.CANCEL:
            granted = self._parked.pop(event.request, None)
            if granted is None:
                self._report(f"request {event.request} was cancelled, but had not parked")
            self._counters.handed_back += bool(granted)
        elif kind is EventKind.PAGE_IN:
            budget = self._pools.budget
            if budget.allocated > budget.limit:
                self._report("a page came in beyond the limit")
        self._held.something_happened()

    # Asking

    def _size(self) -> int:
        """Draw a number of bytes that some pool serves."""
        if self._random.random() < 0.5:
            return self._random.choice(self._every).item_size
        return self._random.randint(1, self._largest)

    def _some_pool(self) -> Pool:
        return self._random.choice(self._every)

    def _ask(self, ask: Callable[[], Awaitable[Lease]], seconds: float | None = None) -> bool:
        """Start a task that asks, as `Getters.start`."""
        assert self._group is not None
        return self._getters.start(self._group, ask, seconds)

    def _get(self) -> bool:
        nbytes = self._size()
        if self._random.random() < 0.5:
            return self._ask(self._pools.pool_for(nbytes).get)
        return self._ask(partial(self._pools.get, nbytes))

    def _get_and_hold(self) -> bool:
        seconds = self._random.choice((0, self._random.expovariate(50)))
        return self._ask(partial(self._pools.get, self._size()), seconds)

    def _get_nowait(self) -> bool:
        try:
            self._held.add(self._pools.get_nowait(self._size()))
        except (anyio.WouldBlock, ImpossibleRequest, MemoryError):
            pass
        return True

    def _get_many(self) -> bool:
        sizes = [self._size() for _ in range(self._random.randint(1, 4))]
        seconds = self._random.choice((None, 0.001))
        return self._ask(partial(self._pools.get_many, sizes), seconds)

    def _nbytes(self) -> int:
        """Draw a number of bytes to reserve, mostly fewer than the limit."""
        return 1 + int(self._pools.budget.limit * self._random.random() ** 2 * 1.05)

    def _reserve(self) -> bool:
        nbytes = self._nbytes()
        pools = self._pools

        async def reserve() -> Lease:
            return await pools.reserve(nbytes)

        return self._ask(reserve, self._random.choice((None, 0.002)))

    def _reserve_nowait(self) -> bool:
        try:
            self._held.add(self._pools.reserve_nowait(self._nbytes()))
        except (anyio.WouldBlock, ImpossibleRequest):
            pass
        return True

    # Settings

    def _resize(self) -> bool:
        pools = self._pools
        if isinstance(pools, MbufPools):
            pools.nmbclust_update(self._random.randint(4, 64))
            return True
        try:
            pools.resize(self._limit(0.5))
        except ConfigurationError:  # below the low waters that were set before
            pass
        return True

    def _set_hard_limit(self) -> bool:
        pool = self._some_pool()
        try:
            pool.set_hard_limit(self._random.choice((None, None, self._random.randint(1, 12))))
        except ConfigurationError:  # below what is out
            pass
        return True

    def _set_low_water(self) -> bool:
        try:
            self._some_pool().set_low_water(self._random.choice((0, 0, self._random.randint(1, 6))))
        except (ConfigurationError, MemoryError):
            pass
        return True

    def _set_high_water(self) -> bool:
        self._some_pool().set_high_water(self._random.randint(0, 16))
        return True

    def _prime(self) -> bool:
        try:
            self._some_pool().prime(self._random.randint(0, 6))
        except MemoryError:
            pass
        return True

    def _reclaim(self) -> bool:
        self._some_pool().reclaim()
        return True

    def _wake(self) -> bool:
        self._some_pool().wakeup()
        return True

    # The rest

    def _add_task(self) -> bool:
        self._pools.taskq.add(self._job)
        return True

    async def _run_job(self) -> None:
        """A task of the set's own queue: it may try, and must not wait."""
        try:
            await self._pools.get(1)
        except UsageError:
            self._get_nowait()
        except (anyio.ClosedResourceError, EndOfBody):
            if not self._getters.closing:
                raise
        else:
            self._report("a task of the set's own queue could wait for it")

    def _err(self) -> bool:
        """Ask for what cannot be."""
        try:
            self._pools.get_nowait(self._largest + 1)
        except OversizeRequest:
            return True
        self._report("more than the largest size was served")
        return True

    def _explain(self) -> bool:
        explanation = self._pools.explain()
        if len(explanation.waiters) != self._pools.statistics().waiting or not str(explanation):
            self._report("explain() does not list every request that waits")
        return True

    def _check(self) -> bool:
        self._pools.check()
        return True
