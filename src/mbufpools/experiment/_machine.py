"""A simulated machine: the pools of one kernel, the processes that use them, and what is measured.

Nothing of the kernel is modelled here: an item comes from the library, a sleeper sleeps in the
library's ``get``, and a page leaves when the library lets it go. This module only asks, and notes.

A ledger tells which request takes a freed page: freed bytes are used again in the order in which
they were freed. A page that comes while a new request tries is taken by a *newcomer*; one that
comes while the requests are run is taken by a *sleeper*.
"""

from __future__ import annotations

import math
import random
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, NamedTuple, Self, cast

import anyio

from mbufpools import AccountedMemory, Block, Buffer, CpuBuffer, Hook, MbufPool

from ._clock import Simulation
from ._kernels import CountingPools, Kernel

__all__ = ["Machine", "PageLedger", "Sleep", "percentile"]


class PageLedger(AccountedMemory):
    """Pages without memory, and the account of what took the bytes of each freed page."""

    def __init__(self) -> None:
        self.newcomer = False
        """True while a new request tries."""
        self.page_in = self.page_out = 0
        self.taken_by_sleeper = self.taken_by_newcomer = 0
        """Freed pages, by what took the last of their bytes."""
        self._freed: deque[int] = deque()
        self.on_out: Callable[[int], None] = lambda nbytes: None
        """Called with the bytes of a page that leaves, before the budget is credited."""
        self.on_in: Callable[[int], None] = lambda nbytes: None

    def allocate(self, nbytes: int) -> Block:
        """Return a page, and note what took it."""
        self.page_in += 1
        wanted, freed = nbytes, self._freed
        while wanted and freed:
            if freed[0] <= wanted:
                wanted -= freed.popleft()
                if self.newcomer:
                    self.taken_by_newcomer += 1
                else:
                    self.taken_by_sleeper += 1
            else:
                freed[0] -= wanted
                wanted = 0
        self.on_in(nbytes)
        return _Page(self, nbytes)

    def give_to_sleepers(self, before: int) -> None:
        """The new request got nothing after all: the pages that it seemed to take, above `before`,
        were taken for sleepers that stood before it."""
        self.taken_by_sleeper += self.taken_by_newcomer - before
        self.taken_by_newcomer = before

    def left(self, nbytes: int) -> None:
        """Note that a page leaves."""
        self.page_out += 1
        self._freed.append(nbytes)
        self.on_out(nbytes)

    @property
    def unused(self) -> int:
        """Freed pages whose bytes nothing has taken yet."""
        return len(self._freed)


class _Page:
    __slots__ = ("_ledger", "_nbytes")

    def __init__(self, ledger: PageLedger, nbytes: int) -> None:
        self._ledger, self._nbytes = ledger, nbytes

    @property
    def view(self) -> None:
        return None

    def unmap(self) -> bool:
        self._ledger.left(self._nbytes)
        return True


class Sleep(NamedTuple):
    """A get that had to sleep."""

    pool: str
    began: float
    """Seconds of virtual time."""
    seconds: float
    """How long it slept."""


class Machine:
    """The pools of one kernel, and the account of what their users went through.

    Args:
        simulation: the run.
        kernel: the rules.
        nmbclust: the limit, in clusters of 2048 bytes.
        seed: for the random numbers. Each actor has a stream of its own (`random`), so what one
            actor goes through does not change what another one asks for.
    """

    def __init__(
        self,
        simulation: Simulation,
        kernel: Kernel,
        nmbclust: int,
        seed: int,
        hook: Hook | None = None,
    ) -> None:
        self.simulation = simulation
        self.kernel = kernel
        self.memory = PageLedger()
        self.pools: CountingPools = kernel.pools(nmbclust, self.memory, hook)
        self.seed = seed
        self.asked = 0
        """Gets that may sleep."""
        self.sleeps: list[Sleep] = []
        """Of each get that slept and was served."""
        self.sleeping: dict[int, Sleep] = {}
        """Of each get that sleeps now, by its number; its `seconds` are not known yet."""
        self.tries = self.refused = 0
        """Gets that may not sleep (M_DONTWAIT), and those of them that got nothing."""
        self.tries_by_pool: Counter[str] = Counter()
        self.refused_by_pool: Counter[str] = Counter()
        """The same by the name of the pool."""
        self.puts = 0
        self._held: set[Buffer] = set()
        self._cpus = kernel.caches
        self._any_cpu = self.random("cpus").random
        self.asleep_by_second: list[int] = []
        """How many slept at the end of each second."""
        self.refused_by_second: list[int] = []
        """How many gets without waiting were refused in each second."""

    def random(self, *actor: object) -> random.Random:
        """The random numbers of one actor. They are the same on every machine and in every
        process."""
        return random.Random(f"{self.seed} {actor}")

    def cpu(self) -> int:
        """Return the number of a CPU, at random; 0 without caches."""
        return int(self._any_cpu() * self._cpus)

    def try_get(self, pool: MbufPool, cpu: int | None = None) -> Buffer | None:
        """Get without waiting (M_DONTWAIT), on a CPU or any; None if it was refused."""
        self.tries += 1
        self.tries_by_pool[pool.name] += 1
        memory, taken = self.memory, self.memory.taken_by_newcomer
        memory.newcomer = True
        try:
            if self._cpus:
                buffer: Buffer = pool.get_nowait(cpu=self.cpu() if cpu is None else cpu)
            else:
                buffer = pool.get_nowait()
        except anyio.WouldBlock:
            self.refused += 1
            self.refused_by_pool[pool.name] += 1
            memory.give_to_sleepers(taken)
            return None
        finally:
            memory.newcomer = False
        self._held.add(buffer)
        return buffer

    def wait_get(
        self, pool: MbufPool, then: Callable[[Buffer], None], cpu: int | None = None
    ) -> None:
        """Get (M_WAIT), on a CPU or any, and call ``then(buffer)``: at once, or when the sleeper
        was served."""
        self.asked += 1
        number = self.asked
        memory, taken = self.memory, self.memory.taken_by_newcomer

        def served(buffer: Buffer) -> None:
            memory.newcomer = False
            slept = self.sleeping.pop(number, None)
            if slept is not None:
                self.sleeps.append(slept._replace(seconds=self.simulation.now - slept.began))
            self._held.add(buffer)
            then(buffer)

        get: Coroutine[Any, Any, Buffer]
        get = pool.get(cpu=self.cpu() if cpu is None else cpu) if self._cpus else pool.get()
        memory.newcomer = True
        if self.simulation.wait(get, served):
            memory.newcomer = False
            memory.give_to_sleepers(taken)
            self.sleeping[number] = Sleep(pool.name, self.simulation.now, 0.0)

    def put(self, *buffers: Buffer) -> None:
        """Put items back, on any CPU, the same for all."""
        self.puts += len(buffers)
        self._held.difference_update(buffers)
        if self._cpus:
            cpu = self.cpu()
            for buffer in buffers:
                cast(CpuBuffer, buffer).release(cpu=cpu)
        else:
            for buffer in buffers:
                buffer.release()

    def take(self, pool: MbufPool) -> Buffer:
        """Get an item for a workload's beginning; it is not counted. Raises `anyio.WouldBlock`."""
        buffer = pool.get_nowait(cpu=self.cpu()) if self._cpus else pool.get_nowait()
        self._held.add(buffer)
        return buffer

    def note_each_second(self) -> None:
        """From now on, note each second how many sleep and how many were refused in it."""
        before = self.refused

        def note() -> None:
            nonlocal before
            self.asleep_by_second.append(len(self.sleeping))
            self.refused_by_second.append(self.refused - before)
            before = self.refused

        self.simulation.every(1.0, note)

    def account(self) -> dict[str, Any]:
        """Return what was measured up to now, as JSON values. Times are in seconds."""
        now, runs = self.simulation.now, self.pools.runs
        statistics = self.pools.statistics()
        waits = sorted(sleep.seconds for sleep in self.sleeps)
        ages = [now - sleep.began for sleep in self.sleeping.values()]
        return {
            "seconds": now,
            "asked": self.asked,
            "slept": len(waits) + len(self.sleeping),
            "wait_mean": sum(waits) / len(waits) if waits else None,
            "wait_p50": percentile(waits, 50),
            "wait_p95": percentile(waits, 95),
            "wait_p99": percentile(waits, 99),
            "wait_max": waits[-1] if waits else None,
            "never": len(self.sleeping),
            "oldest": max(ages, default=0.0),
            "sleeper_seconds": sum(waits) + sum(ages),
            "tries": self.tries,
            "refused": self.refused,
            "puts": self.puts,
            "drops": statistics.drops,
            "pages_in": self.memory.page_in,
            "pages_freed": self.memory.page_out,
            "taken_by_sleeper": self.memory.taken_by_sleeper,
            "taken_by_newcomer": self.memory.taken_by_newcomer,
            "unused": self.memory.unused,
            "runs": len(runs),
            "runs_idle": sum(not run.asleep for run in runs),
            "runs_in_vain": sum(not run.served for run in runs),
            "served_by_runs": sum(run.served for run in runs),
            "coalesced": statistics.taskq.coalesced,
            "drains": statistics.drains,
            "cpu_visits": statistics.cpu_visits,
        }

    async def __aenter__(self) -> Self:
        if self.pools.own_queue is not None:
            await self.pools.own_queue.__aenter__()
        await self.pools.__aenter__()
        return self

    async def __aexit__(self, *exc: Any) -> None:
        self.simulation.close()
        self.memory.on_out = self.memory.on_in = lambda nbytes: None
        # A run ends with memory in use and with processes asleep, and that is no leak. So what they
        # hold is put back before the pools are closed, which report what is out then.
        while self._held:
            self._held.pop().release()
        await self.pools.__aexit__(*exc)  # noqa: ASYNC102 - it shields itself
        if self.pools.own_queue is not None:
            await self.pools.own_queue.__aexit__(*exc)  # noqa: ASYNC102 - likewise


def percentile(values: Sequence[float], percent: float) -> float | None:
    """Return the smallest of the sorted `values` that at least `percent` % do not exceed; None if
    there are none."""
    if not values:
        return None
    return values[max(0, math.ceil(len(values) * percent / 100) - 1)]
