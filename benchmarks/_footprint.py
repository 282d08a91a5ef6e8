"""The memory of items beside their own bytes, and the price of a page that comes and goes."""

from __future__ import annotations

import gc
import mmap
import sys
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from mbufpools import BufferPools, Pool, PoolSpec

from ._forms import Form
from ._rows import Row, Show, compare, difference
from ._timing import clock, in_turn

__all__ = ["PEER_OF_A_PAGE", "eager_page", "page_in_and_out", "pool_of_pages", "rows"]

ITEMS = 64
"""Items of a page of 128 KiB."""
PAGE = PoolSpec(2048, items_per_page=ITEMS)
MEASURED = 4_096
"""Items whose memory is measured."""
PEER_OF_A_PAGE = f"a mapping and {ITEMS} objects"
STEADY = 10_000
"""Pairs after which no page must have left."""


class Token:
    """Stands for an item, in the peer of a page."""

    __slots__ = ("index", "page", "window")

    def __init__(self, page: object, index: int) -> None:
        self.window = None
        self.index = index
        self.page = page


@asynccontextmanager
async def pool_of_pages() -> AsyncIterator[Pool]:
    """Open a pool whose idle pages stay until somebody reclaims them."""
    async with BufferPools("64 MiB", [PAGE], reclaim="gc") as pools:
        yield pools.pools["2048"]


def page_in_and_out(pool: Pool, n: int) -> float:
    """Let a page of `pool` come and go, `n` times."""
    start = clock()
    for _ in range(n):
        pool.prime(ITEMS)
        pool.reclaim()
    return clock() - start


def eager_page(n: int) -> float:
    """Make a page and an object for each item of it, and drop all, `n` times: the peer."""
    start = clock()
    for _ in range(n):
        memory = mmap.mmap(-1, 131072, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        view = memoryview(memory)
        items = [Token(memory, index) for index in range(ITEMS)]
        del items
        view.release()
        memory.close()
    return clock() - start


async def rows(backend: str, form: Form, show: Show) -> None:
    """Measure items and pages; both are the same on each backend."""
    for row in await _items(backend):
        show(row)
    async with pool_of_pages() as pool:
        times = await in_turn(
            {"ours": partial(page_in_and_out, pool), "theirs": eager_page},
            max(1, form.calls // 20),
            form.rounds,
        )
        show(
            compare(
                "a page in and out, 128 KiB",
                backend,
                times["ours"],
                PEER_OF_A_PAGE,
                times["theirs"],
                0.5,
            )
        )
        left = pool.statistics().npagefree
        for _ in range(STEADY):
            pool.get_nowait().release()
        left = pool.statistics().npagefree - left
    show(
        difference(
            f"pages given back in {STEADY} pairs", backend, [left], "none", [0], 0, unit="pages"
        )
    )


async def _items(backend: str) -> list[Row]:
    async with BufferPools("1 GiB", [PAGE]) as pools:
        pool = pools.pools["2048"]
        warm = pool.get_nowait()
        warm.view.nbytes  # noqa: B018 - what is made once is made now
        warm.release()
        gc.collect()
        tracemalloc.start()

        def traced() -> int:
            gc.collect()
            return tracemalloc.get_traced_memory()[0]

        before = traced()
        held = [pool.get_nowait() for _ in range(MEASURED)]
        out = traced() - before - sys.getsizeof(held)
        views = [buffer.view for buffer in held]
        shown = traced() - before - sys.getsizeof(held) - sys.getsizeof(views)
        del views
        for buffer in held:
            buffer.release()
        del held, buffer
        free = traced() - before
        tracemalloc.stop()
    return [
        difference(
            f"memory of an item that is {state}",
            backend,
            [size / MEASURED],
            "the item's own bytes",
            [0],
            goal,
            unit="bytes",
        )
        for state, size, goal in (("free", free, 72), ("out", out, 160), ("shown", shown, 400))
    ]
