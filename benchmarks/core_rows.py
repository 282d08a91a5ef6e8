"""What the core costs beside its peers: each row is run in turn with its peer in one process.

    python -m benchmarks.core_rows [asyncio|uvloop|trio]

A row prints our nanoseconds, the peer's, the median of the ratios of all rounds, and the goal.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import sys
import time
import tracemalloc
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import anyio
from anyio.lowlevel import checkpoint

from mbufpools import AccountedMemory, BufferPools, PoolSpec

ROUNDS = 24
"""How often each row and its peer are run, in turn."""
CALLS = 20_000
"""Calls of a row that does not await, in one round; awaits and hand-offs are a quarter of it."""
PARKED = 5_000
"""Tasks whose memory is measured."""
clock = time.perf_counter


def _loop(statement: str, **names: Any) -> Callable[[int], float]:
    """Make a function that runs `statement` n times, and returns the seconds that it took."""
    lines = "".join(f"        {statement}\n" for _ in range(10))
    source = (
        "def run(n):\n    t = clock()\n    for _ in range(n // 10):\n"
        f"{lines}    return clock() - t\n"
    )
    run: Callable[[int], float] = _compiled(source, names)
    return run


def _aloop(statement: str, **names: Any) -> Callable[[int], Awaitable[float]]:
    """As `_loop`, for a statement that awaits."""
    source = (
        f"async def run(n):\n    t = clock()\n    for _ in range(n):\n        {statement}\n"
        "    return clock() - t\n"
    )
    run: Callable[[int], Awaitable[float]] = _compiled(source, names)
    return run


def _compiled(source: str, names: dict[str, Any]) -> Any:
    names["clock"] = clock
    exec(source, names)
    return names["run"]


class Table:
    """Prints the rows."""

    def __init__(self, backend: str) -> None:
        self.backend = backend
        self.held = True

    def row(self, name: str, ours: list[float], peers: list[float], peer: str, goal: float) -> None:
        ratio = statistics.median(a / b for a, b in zip(ours, peers, strict=True))
        holds = ratio <= goal
        self.held &= holds
        print(
            f"{name:44s} {statistics.median(ours):10.1f} {statistics.median(peers):10.1f} ns of "
            f"{peer:30s} {ratio:6.2f}  goal {goal:4.2f} {'holds' if holds else 'NOT HELD'}",
            flush=True,
        )


async def in_turn(runs: dict[str, Callable[[int], Any]], n: int) -> dict[str, list[float]]:
    """Run all in turn; nanoseconds of each."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    gc.collect()
    gc.disable()
    try:
        for _ in range(ROUNDS):
            for name, run in runs.items():
                took = run(n)
                if not isinstance(took, float):
                    took = await took
                times[name].append(took / n * 1e9)
    finally:
        gc.enable()
    return times


async def pairs(table: Table, backend: str) -> None:
    newer = sys.version_info >= (3, 12)
    async with (
        BufferPools("64 MiB", [2048, 65536]) as pools,
        BufferPools("64 MiB", [2048, 65536], fast_acquire=True) as fast,
    ):
        pool, fast_pool = pools.pools["2048"], fast.pools["2048"]
        keep = pool.get_nowait(), fast_pool.get_nowait()
        queue: asyncio.Queue[object] = asyncio.Queue()
        for _ in range(64):
            queue.put_nowait(object())
        semaphore = anyio.Semaphore(64)
        fast_semaphore = anyio.Semaphore(64, fast_acquire=True)
        free = [object() for _ in range(64)]
        times = await in_turn(
            {
                "R": _loop("free.append(free.pop())", free=free),
                "queue": _loop("q.put_nowait(q.get_nowait())", q=queue),
                "pool": _loop("p.get_nowait().release()", p=pool),
                "pools": _loop("p.get_nowait(2000).release()", p=pools),
                "with": _loop("\n        with p.get_nowait(2000): pass", p=pools),
                "item": _loop("p.put_back(p.take())", p=pool._supply),
            },
            CALLS,
        )
        print(f"R is {statistics.median(times['R']):.1f} ns")
        peer = "asyncio.Queue, nowait"
        q = times["queue"]
        table.row("Pool.get_nowait, release", times["pool"], q, peer, 1.15 if newer else 1.0)
        table.row(
            "BufferPools.get_nowait, release", times["pools"], q, peer, 1.3 if newer else 1.15
        )
        table.row("with BufferPools.get_nowait", times["with"], q, peer, 1.6)
        table.row("the item in and out, beneath the lease", times["item"], q, peer, 0.5)
        awaited: dict[str, Callable[[int], Any]] = {
            "fast": _aloop("(await p.get()).release()", p=fast_pool),
            "fast pools": _aloop("(await p.get(2000)).release()", p=fast),
            "get": _aloop("(await p.get()).release()", p=pool),
            "semaphore": _aloop("await s.acquire(); s.release()", s=semaphore),
            "fast semaphore": _aloop(
                "await s.acquire(); x = f.pop(); f.append(x); s.release()",
                s=fast_semaphore,
                f=free,
            ),
            "view": _loop("b = p.get_nowait(); b.view; b.release()", p=pool),
            "reserve": _aloop("(await p.reserve(100)).release()", p=fast),
        }
        if backend != "trio":
            awaited["queue"] = _aloop("q.put_nowait(await q.get())", q=queue)
        times = await in_turn(awaited, CALLS // 4)
        if backend != "trio":
            peer = "asyncio.Queue, awaited"
            table.row("await get, fast_acquire", times["fast"], times["queue"], peer, 1.0)
            table.row("await BufferPools.get, fast", times["fast pools"], times["queue"], peer, 1.3)
        peer = "anyio.Semaphore, fast, a list"
        table.row("await get, fast_acquire", times["fast"], times["fast semaphore"], peer, 0.6)
        peer, goal = "anyio.Semaphore", 1.05 if backend == "trio" else 0.75
        table.row("await get, with its checkpoint", times["get"], times["semaphore"], peer, goal)
        table.row("reserve, fast_acquire", times["reserve"], times["fast"], "await get, fast", 4.0)
        table.row("a view asked for", times["view"], times["fast"], "await get, fast", 9.9)
        for buffer in keep:
            buffer.release()


async def hand_off(table: Table) -> None:
    spec = PoolSpec(4096, items_per_page=1)
    async with BufferPools(4096, [spec], memory=AccountedMemory(), fast_acquire=True) as pools:
        pool = pools.pools["4096"]

        async def by_pool(n: int) -> float:
            async def worker() -> None:
                for _ in range(n // 4):
                    buffer = await pool.get()
                    await checkpoint()
                    buffer.release()

            return await four(worker)

        async def four(worker: Callable[[], Coroutine[Any, Any, None]]) -> float:
            start = clock()
            async with anyio.create_task_group() as group:
                for _ in range(4):
                    group.start_soon(worker)
            return clock() - start

        async def by_event(n: int) -> float:
            waiting: list[anyio.Event] = []
            free = [True]

            async def worker() -> None:
                for _ in range(n // 4):
                    if free[0]:
                        free[0] = False
                    else:
                        event = anyio.Event()
                        waiting.append(event)
                        await event.wait()
                    await checkpoint()
                    if waiting:
                        waiting.pop(0).set()
                    else:
                        free[0] = True

            return await four(worker)

        async def by_condition(n: int) -> float:
            condition = anyio.Condition()
            free = [True]

            async def worker() -> None:
                for _ in range(n // 4):
                    async with condition:
                        while not free[0]:
                            await condition.wait()
                        free[0] = False
                    await checkpoint()
                    async with condition:
                        free[0] = True
                        condition.notify()

            return await four(worker)

        times = await in_turn(
            {"pool": by_pool, "event": by_event, "condition": by_condition}, CALLS // 4
        )
        goal = 1.0 if table.backend == "trio" else 0.9
        table.row(
            "hand-off of four tasks", times["pool"], times["event"], "an anyio.Event each", goal
        )
        table.row(
            "hand-off of four tasks", times["pool"], times["condition"], "anyio.Condition", 0.25
        )


async def memory(table: Table) -> None:
    spec = PoolSpec(4096, items_per_page=1)

    async def parked(wait: Callable[[], Awaitable[object]]) -> float:
        async def one() -> None:
            await wait()

        gc.collect()
        async with anyio.create_task_group() as group:
            tracemalloc.start()
            for _ in range(PARKED):
                group.start_soon(one)
            await anyio.sleep(0.5)
            gc.collect()
            size = tracemalloc.get_traced_memory()[0]
            tracemalloc.stop()
            group.cancel_scope.cancel()
        return size / PARKED

    event = anyio.Event()
    async with BufferPools(4096, [spec], memory=AccountedMemory()) as pools:
        with pools.get_nowait(1):
            base = await parked(event.wait)
            ours = await parked(pools.pools["4096"].get)
    goal = 350 if table.backend == "trio" else 250
    print(
        f"a parked waiter: {ours:.0f} bytes, a task that waits for an event {base:.0f}: "
        f"{ours - base:.0f} more, goal {goal}"
    )


async def waiters(table: Table) -> None:
    spec = PoolSpec(64, items_per_page=100_000)
    for count in (10_000, 100_000):
        async with BufferPools("1 GiB", [spec], memory=AccountedMemory()) as pools:
            pool = pools.pools["64"]
            held = [pool.get_nowait() for _ in range(pool.items_per_page)]
            pools.resize(pool.page_size)
            done = 0

            async def one() -> None:
                nonlocal done
                await pool.get()  # noqa: B023 - run within the same turn of the outer loop
                done += 1

            async with anyio.create_task_group() as group:
                for _ in range(count):
                    group.start_soon(one)
                await anyio.sleep(0.2)
                start = clock()
                for buffer in held[:count]:
                    buffer.release()
                while done < count:
                    await checkpoint()
                print(f"wake {count}: {clock() - start:.2f} s")
            del held
            gc.collect()


async def main(backend: str) -> None:
    table = Table(backend)
    if "--hand-off" not in sys.argv:
        await pairs(table, backend)
    await hand_off(table)
    await memory(table)
    if "--long" in sys.argv:
        await waiters(table)
    print("every goal holds" if table.held else "some goals are not held")


if __name__ == "__main__":
    name = sys.argv[1] if len(sys.argv) > 1 else "asyncio"
    options = {"use_uvloop": True} if name == "uvloop" else {}
    anyio.run(main, name, backend="trio" if name == "trio" else "asyncio", backend_options=options)
