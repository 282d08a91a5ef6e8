"""An item is taken and comes back; there is always one, and no task waits."""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import anyio

from mbufpools import BufferPools, Pool

from ._forms import Form
from ._rows import Show, compare
from ._timing import Run, in_turn, repeat, repeat_awaiting

try:
    from resource_semaphore import AsyncResourceSemaphore
except ImportError:  # the row is left out
    AsyncResourceSemaphore = None  # type: ignore[assignment,misc]

__all__ = ["rows"]

FREE = 64
"""Items that each peer has."""


class Sets(NamedTuple):
    """Two pool sets, each with a page that is partly used."""

    pools: BufferPools
    fast: BufferPools
    """With `fast_acquire`."""

    @property
    def pool(self) -> Pool:
        return self.pools.pools["2048"]

    @property
    def fast_pool(self) -> Pool:
        return self.fast.pools["2048"]


@asynccontextmanager
async def _sets() -> AsyncIterator[Sets]:
    async with (
        BufferPools("64 MiB", [2048, 65536]) as pools,
        BufferPools("64 MiB", [2048, 65536], fast_acquire=True) as fast,
    ):
        sets = Sets(pools, fast)
        with sets.pool.get_nowait(), sets.fast_pool.get_nowait():
            yield sets


async def rows(backend: str, form: Form, show: Show) -> None:
    """Measure calls that do not await, and those that do."""
    async with _sets() as sets:
        await _at_once(show, sets, backend, form)
        await _awaited(show, sets, backend, form)


async def _at_once(show: Show, sets: Sets, backend: str, form: Form) -> None:
    newer = sys.version_info >= (3, 12)
    queue: asyncio.Queue[object] = asyncio.Queue()
    send, receive = anyio.create_memory_object_stream[object](FREE)
    for _ in range(FREE):
        queue.put_nowait(object())
        send.send_nowait(object())
    semaphore = anyio.Semaphore(FREE)
    times = await in_turn(
        {
            "queue": repeat("q.put_nowait(q.get_nowait())", q=queue),
            "pool": repeat("p.get_nowait().release()", p=sets.pool),
            "pools": repeat("p.get_nowait(2000).release()", p=sets.pools),
            "with": repeat("\n            with p.get_nowait(2000): pass", p=sets.pools),
            "item": repeat("s.put_back(s.take())", s=sets.pool._supply),
            "view": repeat("b = p.get_nowait(); b.view; b.release()", p=sets.pool),
            "large": repeat("b = p.get_nowait(65536); b.view; b.release()", p=sets.pools),
            "semaphore": repeat("s.acquire_nowait(); s.release()", s=semaphore),
            "stream": repeat("s.send_nowait(r.receive_nowait())", s=send, r=receive),
            "bytearray": repeat("bytearray(2048)"),
            "large bytearray": repeat("bytearray(65536)"),
        },
        form.calls,
        form.rounds,
    )
    send.close()
    receive.close()
    for name, ours, peer, theirs, goal in (
        (
            "Pool.get_nowait, release",
            "pool",
            "asyncio.Queue, nowait",
            "queue",
            1.15 if newer else 1.0,
        ),
        (
            "BufferPools.get_nowait, release",
            "pools",
            "asyncio.Queue, nowait",
            "queue",
            1.3 if newer else 1.15,
        ),
        ("with BufferPools.get_nowait", "with", "asyncio.Queue, nowait", "queue", None),
        ("an item beneath the lease", "item", "asyncio.Queue, nowait", "queue", 0.5),
        ("Pool.get_nowait, release", "pool", "anyio.Semaphore, nowait", "semaphore", None),
        ("Pool.get_nowait, release", "pool", "memory object stream, nowait", "stream", None),
        ("get_nowait(2048), its view, release", "view", "bytearray(2048)", "bytearray", None),
        (
            "get_nowait(65536), its view, release",
            "large",
            "bytearray(65536)",
            "large bytearray",
            None,
        ),
    ):
        show(compare(name, backend, times[ours], peer, times[theirs], goal))


async def _awaited(show: Show, sets: Sets, backend: str, form: Form) -> None:
    free = [object() for _ in range(FREE)]
    with_list = "await s.acquire(); x = f.pop(); f.append(x); s.release()"
    runs: dict[str, Run] = {
        "fast": repeat_awaiting("(await p.get()).release()", p=sets.fast_pool),
        "get": repeat_awaiting("(await p.get()).release()", p=sets.pool),
        "reserve": repeat_awaiting("(await p.reserve(100)).release()", p=sets.fast),
        "semaphore": repeat_awaiting("await s.acquire(); s.release()", s=anyio.Semaphore(FREE)),
        "fast semaphore": repeat_awaiting(
            with_list, s=anyio.Semaphore(FREE, fast_acquire=True), f=free
        ),
        "limiter": repeat_awaiting("await s.acquire(); s.release()", s=anyio.CapacityLimiter(FREE)),
    }
    send, receive = anyio.create_memory_object_stream[object](math.inf)
    send.send_nowait(object())
    runs["stream"] = repeat_awaiting("s.send_nowait(await r.receive())", s=send, r=receive)
    if backend == "trio":
        import trio

        runs["native"] = repeat_awaiting(
            "await s.acquire(); s.release()", s=trio.CapacityLimiter(FREE)
        )
    else:
        queue: asyncio.Queue[object] = asyncio.Queue()
        queue.put_nowait(object())
        runs["queue"] = repeat_awaiting("q.put_nowait(await q.get())", q=queue)
        runs["native"] = repeat_awaiting(with_list, s=asyncio.Semaphore(FREE), f=free)
        if AsyncResourceSemaphore is not None:
            runs["weighted"] = repeat_awaiting(
                'await s.release(await s.acquire({"bytes": 100}))',
                s=AsyncResourceSemaphore({"bytes": 1 << 26}),
            )
    times = await in_turn(runs, form.calls // 4, form.rounds)
    send.close()
    receive.close()
    fast, get, reserve = "await get, fast_acquire", "await get, with its checkpoint", "reserve"
    on_trio = backend == "trio"
    native = "trio.CapacityLimiter" if on_trio else "asyncio.Semaphore and a list"
    for name, ours, peer, theirs, goal in (
        (fast, "fast", "asyncio.Queue, awaited", "queue", 1.0),
        (fast, "fast", "anyio.Semaphore, fast, and a list", "fast semaphore", 0.6),
        (get, "get", "anyio.Semaphore", "semaphore", 1.05 if on_trio else 0.75),
        (get, "get", "anyio.CapacityLimiter", "limiter", None),
        (get, "get", "memory object stream", "stream", None),
        (get if on_trio else fast, "get" if on_trio else "fast", native, "native", None),
        (reserve, "reserve", "await get, fast_acquire", "fast", 4.0),
        (reserve, "reserve", "resource-semaphore", "weighted", None),
    ):
        if theirs in times:
            show(compare(name, backend, times[ours], peer, times[theirs], goal))
