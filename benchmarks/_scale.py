"""Many pools, many items, many waiters, a large budget: each call costs what it changes.

Each row has the same calls on nine pools with little in them as its peer.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from mbufpools import AccountedMemory, BufferPools, PoolSpec

from ._crowd import crowd_of
from ._forms import Form
from ._rows import Show, compare
from ._timing import Run, clock, in_turn, repeat

__all__ = ["rows"]

POOLS = 9
SAME = 1.1
"""The goal of two figures that should be the same: the rest is noise."""


def _sizes(pools: int) -> list[PoolSpec]:
    return [PoolSpec(64 * number, items_per_page=64) for number in range(1, pools + 1)]


@asynccontextmanager
async def _set(pools: int, limit: str = "64 GiB") -> AsyncIterator[BufferPools]:
    """A set of so many pools, each with a page that is partly used."""
    memory = AccountedMemory()
    async with BufferPools(limit, _sizes(pools), memory=memory) as made:
        held = [pool.get_nowait() for pool in made.pools.values()]
        yield made
        for buffer in held:
            buffer.release()


async def rows(backend: str, form: Form, show: Show) -> None:
    """Measure gets and puts, the gc's tick, and the wakeup."""
    async with AsyncExitStack() as stack:
        nine = await stack.enter_async_context(_set(POOLS))
        many = await stack.enter_async_context(_set(form.pools))
        huge = await stack.enter_async_context(_set(POOLS, "1 TiB"))
        full = await stack.enter_async_context(_set(POOLS))
        held = [full.get_nowait(100) for _ in range(form.items)]
        times = await in_turn(
            {
                "nine": _pair(nine),
                "many": _pair(many),
                "huge": _pair(huge),
                "full": _pair(full),
            },
            form.calls,
            form.rounds,
        )
        ticks = await in_turn(
            {"nine": _tick(nine), "many": _tick(many)}, max(10, form.calls // 100), form.rounds
        )
        peer = f"{POOLS} pools"
        for name, key in (
            (f"get and put, {form.pools} pools", "many"),
            (f"get and put, {form.items} items out", "full"),
            ("get and put, budget of 1 TiB", "huge"),
        ):
            show(compare(name, backend, times[key], peer, times["nine"], SAME))
        show(
            compare(
                f"the gc's tick, {form.pools} pools",
                backend,
                ticks["many"],
                peer,
                ticks["nine"],
                SAME,
            )
        )
        for buffer in held:
            buffer.release()
    await _wakeups(show, backend, form)


def _pair(pools: BufferPools) -> Run:
    return repeat("p.get_nowait(100).release()", p=pools)


def _tick(pools: BufferPools) -> Run:
    return repeat("tick()", tick=pools._gc)


async def _wakeups(show: Show, backend: str, form: Form) -> None:
    """One item comes back while a few tasks wait in each pool, and while a crowd does."""
    few, many = 10 * POOLS, form.crowd
    times: dict[int, list[float]] = {few: [], many: []}
    for _ in range(form.crowd_rounds):
        for waiters in times:
            times[waiters].append(await _wake_some(backend, waiters) * 1e9)
    show(
        compare(
            f"wakeup of one of {many} waiters",
            backend,
            times[many],
            f"{few} waiters",
            times[few],
            1.3,
        )
    )


async def _wake_some(backend: str, waiters: int) -> float:
    """Let `waiters` tasks wait in nine pools; return the seconds to serve one of the first."""
    specs: Sequence[PoolSpec] = _sizes(POOLS)
    async with BufferPools("1 GiB", specs, memory=AccountedMemory()) as pools:
        each = list(pools.pools.values())
        held = [pool.get_nowait() for pool in each for _ in range(pool.items_per_page)]
        pools.resize(pools.budget.allocated)
        firsts = held[:: each[0].items_per_page]
        waits = [each[number % POOLS].get for number in range(waiters)]
        async with crowd_of(backend, waits) as crowd:
            start = clock()
            for buffer in firsts:
                buffer.release()
            took = clock() - start
            await crowd.until_ended(len(firsts))
            crowd.cancel_all()
        for buffer in [*crowd.results, *held]:
            buffer.end()
    return took / len(firsts)
