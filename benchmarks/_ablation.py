"""Why a goal is not held: what is left of the cost when one promise after another is taken away.

What is left in the last row of a get and a release is a fresh object that takes an item and gives
it back. `_cuts` says what the rows lose.
"""

from __future__ import annotations

import asyncio
import inspect
from functools import partial

from mbufpools import AccountedMemory, BufferPools, PoolSpec

from ._crowds import FIRST_TO_LAST, bare_of, cancel, wake
from ._cuts import (
    CUTS_OF_A_CANCELLATION,
    CUTS_OF_A_HAND_OFF,
    CUTS_OF_A_PAGE,
    CUTS_OF_A_PAIR,
    CUTS_OF_A_RESERVATION,
    CUTS_OF_A_WAKEUP,
    Cut,
    without,
)
from ._footprint import PEER_OF_A_PAGE, eager_page, page_in_and_out, pool_of_pages
from ._forms import Form
from ._handing import by_event, by_pool
from ._rows import LESS, WHOLE, Show, compare
from ._timing import Run, in_turn, repeat, repeat_awaiting

__all__ = ["rows"]


async def rows(backend: str, form: Form, show: Show) -> None:
    """Measure each with fewer and fewer promises."""
    table = Table(backend, show)
    for measure in (_pair, _hand_off, _reservation, _wakeup, _cancellation, _page):
        await measure(table, form)


class Table:
    """Shows the rows of one ablation after another."""

    def __init__(self, backend: str, show: Show) -> None:
        self.backend = backend
        self._show = show

    async def rows(
        self,
        name: str,
        run: Run,
        cuts: tuple[Cut, ...],
        peer_name: str,
        peer: Run,
        calls: int,
        rounds: int,
    ) -> None:
        """Show a row of `run` for each number of cuts, beside the same peer."""
        runs = {f"{name}{WHOLE}": _cut_run(run, ())}
        for number, cut in enumerate(cuts, 1):
            runs[f"{LESS}{cut.what}"] = _cut_run(run, cuts[:number])
        times = await in_turn({**runs, "peer": peer}, calls, rounds)
        for row in runs:
            self._show(compare(row, self.backend, times[row], peer_name, times["peer"]))


def _cut_run(run: Run, cuts: tuple[Cut, ...]) -> Run:
    async def measured(n: int) -> float:
        with without(cuts):
            result = run(max(1, n // 4))  # so that the interpreter has adapted to the functions
            if inspect.isawaitable(result):
                await result
            result = run(n)
            return await result if inspect.isawaitable(result) else result

    return measured


async def _pair(table: Table, form: Form) -> None:
    queue: asyncio.Queue[object] = asyncio.Queue()
    for _ in range(64):
        queue.put_nowait(object())
    async with BufferPools("64 MiB", [2048]) as pools:
        pool = pools.pools["2048"]
        with pool.get_nowait():
            await table.rows(
                "get and release",
                repeat("p.get_nowait().release()", p=pool),
                CUTS_OF_A_PAIR,
                "asyncio.Queue, nowait",
                repeat("q.put_nowait(q.get_nowait())", q=queue),
                form.calls,
                form.rounds,
            )


async def _hand_off(table: Table, form: Form) -> None:
    spec = PoolSpec(4096, items_per_page=1)
    async with BufferPools(4096, [spec], memory=AccountedMemory(), fast_acquire=True) as pools:
        await table.rows(
            "hand-off",
            partial(by_pool, pools.pools["4096"]),
            CUTS_OF_A_HAND_OFF,
            "an anyio.Event each time",
            by_event,
            form.calls // 4,
            form.rounds,
        )


async def _reservation(table: Table, form: Form) -> None:
    async with BufferPools("64 MiB", [2048], fast_acquire=True) as pools:
        pool = pools.pools["2048"]
        with pool.get_nowait():
            await table.rows(
                "reserve",
                repeat_awaiting("(await p.reserve(100)).release()", p=pools),
                CUTS_OF_A_RESERVATION,
                "await get, fast_acquire",
                repeat_awaiting("(await p.get()).release()", p=pool),
                form.calls // 4,
                form.rounds,
            )


async def _wakeup(table: Table, form: Form) -> None:
    await table.rows(
        f"wake {form.crowd // 10} waiters",
        partial(wake, table.backend, True),
        CUTS_OF_A_WAKEUP,
        bare_of(table.backend),
        partial(wake, table.backend, False),
        form.crowd // 10,
        max(1, form.rounds // 4),
    )


async def _cancellation(table: Table, form: Form) -> None:
    await table.rows(
        f"cancel {form.crowd // 10} waiters, {FIRST_TO_LAST}",
        partial(cancel, table.backend, FIRST_TO_LAST, True),
        CUTS_OF_A_CANCELLATION,
        bare_of(table.backend),
        partial(cancel, table.backend, FIRST_TO_LAST, False),
        form.crowd // 10,
        max(1, form.rounds // 4),
    )


async def _page(table: Table, form: Form) -> None:
    async with pool_of_pages() as pool:
        await table.rows(
            "a page in and out",
            partial(page_in_and_out, pool),
            CUTS_OF_A_PAGE,
            PEER_OF_A_PAGE,
            eager_page,
            max(4, form.calls // 20),
            form.rounds,
        )
