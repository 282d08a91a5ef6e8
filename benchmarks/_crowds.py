"""Many tasks wait: the memory of each, and the time to wake or to cancel all of them.

The peer is a task that waits for nothing but to be woken: a future on asyncio, and
`wait_task_rescheduled` on trio. The tasks of both are the backend's own, without a task group of
anyio around them.
"""

from __future__ import annotations

import gc
import random
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial

import anyio

from mbufpools import AccountedMemory, Buffer, BufferPools, PoolSpec

from ._crowd import Bare, Crowd, Wait, crowd_of, settle
from ._forms import Form
from ._rows import Row, Show, compare, difference
from ._timing import clock, without_gc

__all__ = ["FIRST_TO_LAST", "bare_of", "cancel", "rows", "wake"]

LINEAR = 13.0
"""Ten times as many tasks may take so many times as long, because of the processor's caches."""
FIRST_TO_LAST = "first to last"
ORDERS = (FIRST_TO_LAST, "last to first", "random order", "one scope")


def bare_of(backend: str) -> str:
    """Return what the peer is called."""
    return "bare parked tasks" if backend == "trio" else "bare futures"


@asynccontextmanager
async def _dry_pool(waiters: int) -> AsyncIterator[tuple[BufferPools, list[Buffer]]]:
    """A pool of so many items, all of them out, whose set grants no more pages."""
    spec = PoolSpec(64, items_per_page=max(2, waiters))
    async with BufferPools("1 GiB", [spec], memory=AccountedMemory()) as pools:
        pool = pools.pools["64"]
        held = [pool.get_nowait() for _ in range(pool.items_per_page)]
        pools.resize(pool.page_size)
        yield pools, held
        for buffer in held:
            buffer.end()


async def rows(backend: str, form: Form, show: Show) -> None:
    """Measure the memory of a waiter, the wakeup of all, and the cancellation in several orders."""
    show(await _memory(backend, form))
    many, few = form.crowd, form.crowd // 10
    bare, waking = bare_of(backend), partial(wake, backend)
    await _measure(show, "wake", many, few, bare, waking, backend, form)
    for order in ORDERS:
        name, cancelling = f"cancel, {order},", partial(cancel, backend, order)
        await _measure(show, name, many, few, bare, cancelling, backend, form)


async def _measure(
    show: Show,
    what: str,
    many: int,
    few: int,
    bare: str,
    run: Callable[[bool, int], Awaitable[float]],
    backend: str,
    form: Form,
) -> None:
    ours, fewer, theirs = [], [], []
    async with without_gc():
        for _ in range(form.crowd_rounds):
            ours.append(await run(True, many) * 1e3)
            theirs.append(await run(False, many) * 1e3)
            fewer.append(await run(True, few) * 1e3)
            gc.collect()
    show(compare(f"{what} {many} waiters", backend, ours, bare, theirs, 1.3, unit="ms"))
    show(
        compare(f"{what} {many} waiters", backend, ours, f"{few} waiters", fewer, LINEAR, unit="ms")
    )


async def wake(backend: str, ours: bool, count: int) -> float:
    """Wake `count` tasks that wait for a pool, or bare ones; return the CPU seconds."""
    if not ours:
        bare = Bare(backend)
        async with crowd_of(backend, [bare.wait] * count) as crowd:
            start = clock()
            bare.wake_all()
            await crowd.until_ended(count)
            return clock() - start
    async with _dry_pool(count) as (pools, held):
        async with crowd_of(backend, [pools.pools["64"].get] * count) as crowd:
            start = clock()
            for buffer in held[:count]:
                buffer.release()
            await crowd.until_ended(count)
            took = clock() - start
        for buffer in crowd.results:
            buffer.release()
        return took


async def cancel(backend: str, order: str, ours: bool, count: int) -> float:
    """As `wake`, but cancel the tasks, in one of the `ORDERS`."""
    if not ours:
        return await _cancel_all(backend, Bare(backend).wait, order, count)
    async with _dry_pool(2) as (pools, _):
        return await _cancel_all(backend, pools.pools["64"].get, order, count)


async def _cancel_all(backend: str, wait: Wait, order: str, count: int) -> float:
    if order == "one scope":
        crowd = Crowd()
        async with anyio.create_task_group() as group:
            for _ in range(count):
                group.start_soon(crowd.waits, wait)
            await settle()
            start = clock()
            group.cancel_scope.cancel()
        return clock() - start
    async with crowd_of(backend, [wait] * count) as crowd:
        cancels: Iterable[Callable[[], object]] = crowd.cancels
        if order == "last to first":
            cancels = reversed(crowd.cancels)
        elif order == "random order":
            cancels = random.Random(1).sample(crowd.cancels, count)
        start = clock()
        for cancel in cancels:
            cancel()
        await crowd.until_ended(count)
        took = clock() - start
    return took


async def _memory(backend: str, form: Form) -> Row:
    async def parked(wait: Wait) -> float:
        gc.collect()
        async with anyio.create_task_group() as group:
            tracemalloc.start()
            for _ in range(form.parked):
                group.start_soon(wait)
            await settle()
            gc.collect()
            size = tracemalloc.get_traced_memory()[0]
            tracemalloc.stop()
            group.cancel_scope.cancel()
        return size / form.parked

    event = anyio.Event()
    async with _dry_pool(2) as (pools, _):
        await parked(event.wait)  # what is made once is made now
        await parked(pools.pools["64"].get)
        theirs = await parked(event.wait)
        ours = await parked(pools.pools["64"].get)
    return difference(
        "memory of a waiter",
        backend,
        [ours],
        "a task that waits for one anyio.Event",
        [theirs],
        350 if backend == "trio" else 250,
        unit="bytes",
    )
