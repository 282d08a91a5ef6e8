"""A program of a user, which a checker of types reads with the installed package: it must find no
fault in it, in its strictest mode. It runs on asyncio and on trio."""

from __future__ import annotations

from collections.abc import Sequence

import anyio
from anyio.lowlevel import checkpoint

from mbufpools import (
    Buffer,
    BufferPools,
    ConfigurationError,
    Event,
    Explanation,
    Hook,
    MbufPools,
    Order,
    OrderName,
    Pool,
    PoolSpec,
    PoolsStatistics,
    Task,
    TaskQueue,
    Wakeup,
    WakeupName,
    lab,
    net,
    smp,
    traces,
)
from mbufpools.lab import BackendName, Cancel, Exploration, Program, Shared, StrategyName
from mbufpools.lab.pytest_plugin import Explore


class Cache:
    """Keeps some buffers of a set."""

    def __init__(self, pools: BufferPools) -> None:
        self.pools = pools
        self.kept: list[Buffer] = []

    async def fill(self, sizes: Sequence[int]) -> int:
        self.kept += await self.pools.get_many(sizes)
        return sum(buffer.nbytes for buffer in self.kept)

    def empty(self) -> None:
        while self.kept:
            self.kept.pop().release()


def listen(events: list[str]) -> Hook:
    def hook(event: Event) -> None:
        events.append(str(event.kind))

    return hook


def settings(order: OrderName, wakeup: WakeupName) -> tuple[Order, Wakeup]:
    return Order(order), Wakeup(wakeup)


async def main() -> None:
    """Use what an application uses."""
    events: list[str] = []
    specs: list[int | str | PoolSpec] = [PoolSpec(2048, name="small", max_items=64), "16 KiB"]
    order, wakeup = settings("bounded", "deferred")
    pools = BufferPools("1 MiB", specs, order=order, wakeup=wakeup, hook=listen(events))
    async with pools:
        with await pools.get(1500) as buffer:
            buffer.view[:5] = b"hello"
            pool: str = buffer.pool.name
        async with pools.reserve(4096) as reservation:
            length: int = reservation.nbytes
        cache = Cache(pools)
        assert await cache.fill([100, 3000]) == 3100
        cache.empty()
        small: Pool = pools.pools["small"]
        small.set_max_items(None)
        statistics: PoolsStatistics = pools.statistics()
        explanation: Explanation = pools.explain()
        queue: TaskQueue = pools.taskq
        queue.add(Task(lambda: None, name="nothing"))
        await queue.barrier()
    assert (pool, length, statistics.waiting, explanation.waiters) == ("small", 4096, 0, ())
    assert events
    try:
        BufferPools("much", [2048])
    except ConfigurationError as error:
        message: str = str(error)
        assert message
    async with MbufPools(64, caches=2) as kernel:
        (await kernel.m_clpool(2048).get(cpu=1)).release(cpu=0)


async def copy(receive: net.ByteBoundReceiveStream[Buffer], into: bytearray) -> None:
    """Receive buffers until the stream ends."""
    async for buffer in receive:
        with buffer:
            into += buffer.view


async def race() -> None:
    """Increase a number in two tasks, which lose one increase in some schedules."""
    number: Shared[int] = Shared(0)

    async def increase() -> None:
        value = number.value
        await checkpoint()
        number.value = value + 1

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(increase)
        tasks.start_soon(increase)
    assert number.value == 2


def find(program: Program, strategy: StrategyName, backend: BackendName, cancel: Cancel) -> str:
    """Explore a program, and return the token of what fails."""
    found: Exploration = lab.explore(
        program, strategy=strategy, backend=backend, cancel=cancel, max_executions=100
    )
    return found.failures[0].token if found.failures else found.verdict


def test_race(explore: Explore) -> None:
    """Use the fixture of the pytest plugin."""
    explore(race)


def rules() -> smp.Rules:
    """Name a rule of the model of the kernel."""
    return smp.Rules(look=smp.Look.LOCKED, mark=smp.Mark.LOCKED)


def disagreement(trace: traces.Trace) -> traces.Disagreement | None:
    """Replay a recording."""
    return lab.run(traces.replay, trace)
