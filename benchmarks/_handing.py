"""An item goes from one task to another: four tasks share one item, and each passes a checkpoint
while it has the item."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
from anyio.lowlevel import checkpoint

from mbufpools import AccountedMemory, BufferPools, Pool, PoolSpec

from ._forms import Form
from ._rows import Show, compare
from ._timing import clock, in_turn

__all__ = ["by_event", "by_pool", "rows"]

TASKS = 4


async def rows(backend: str, form: Form, show: Show) -> None:
    """Measure the hand-off of an item, of an event each time, and of a condition."""
    spec = PoolSpec(4096, items_per_page=1)
    async with BufferPools(4096, [spec], memory=AccountedMemory(), fast_acquire=True) as pools:
        pool = pools.pools["4096"]
        times = await in_turn(
            {
                "pool": lambda n: by_pool(pool, n),
                "event": by_event,
                "condition": by_condition,
            },
            max(TASKS, form.calls // 4),
            form.rounds,
        )
    on_trio = backend == "trio"
    name = f"hand-off between {TASKS} tasks"
    event, condition = "an anyio.Event each time", "anyio.Condition"
    show(compare(name, backend, times["pool"], event, times["event"], 1.0 if on_trio else 0.9))
    show(compare(name, backend, times["pool"], condition, times["condition"], 0.25))


async def _all(worker: Callable[[int], Coroutine[Any, Any, None]], n: int) -> float:
    start = clock()
    async with anyio.create_task_group() as group:
        for _ in range(TASKS):
            group.start_soon(worker, n // TASKS)
    return clock() - start


async def by_pool(pool: Pool, n: int) -> float:
    async def worker(times: int) -> None:
        for _ in range(times):
            buffer = await pool.get()
            await checkpoint()
            buffer.release()

    return await _all(worker, n)


async def by_event(n: int) -> float:
    waiting: deque[anyio.Event] = deque()
    free = True

    async def worker(times: int) -> None:
        nonlocal free
        for _ in range(times):
            if free:
                free = False
            else:
                event = anyio.Event()
                waiting.append(event)
                await event.wait()
            await checkpoint()
            if waiting:
                waiting.popleft().set()
            else:
                free = True

    return await _all(worker, n)


async def by_condition(n: int) -> float:
    condition = anyio.Condition()
    free = True

    async def worker(times: int) -> None:
        nonlocal free
        for _ in range(times):
            async with condition:
                while not free:
                    await condition.wait()
                free = False
            await checkpoint()
            async with condition:
                free = True
                condition.notify()

    return await _all(worker, n)
