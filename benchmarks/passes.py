"""How many requests should pass a waiting claim? A measurement for the default of `max_passes`.

Tasks hold small buffers for random times and ask again at once, for ever. One claim wants the whole
budget. For several numbers of holders and several allowances, this measures how long the claim
waits and how many small buffers are released in that time, and compares with FIFO and with barging.
It runs in virtual time, so the figures are the same on every machine::

    python benchmarks/passes.py
"""

from __future__ import annotations

import random
import statistics
from dataclasses import dataclass

import anyio

from mbufpools import AccountedMemory, BufferPools, Order, PoolSpec, lab

ITEM = 1024
HOLDERS = (4, 16, 64)
SEEDS = range(5)
HOLD = 0.010
"""Seconds that a buffer is held on average."""
PATIENCE = 1.0
"""Seconds after which a claim counts as starved."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result for one claim."""

    waited: float
    """Seconds of virtual time."""
    releases: int
    """Small buffers released while it waited."""


async def claim_the_whole(order: Order, allowance: int | None, holders: int, seed: int) -> Outcome:
    """Run `holders` tasks of small traffic, and measure one claim on the whole budget."""
    dice = random.Random(seed)
    limit = holders * ITEM * 2
    pools = BufferPools(
        limit,
        [PoolSpec(ITEM, items_per_page=4)],
        order=order,
        max_passes=allowance,
        memory=AccountedMemory(),
    )
    releases = 0
    outcome = Outcome(float("inf"), 0)

    async def churn() -> None:
        nonlocal releases
        while True:
            with await pools.get(ITEM):
                await anyio.sleep(dice.expovariate(1 / HOLD))
            releases += 1

    async with pools, anyio.create_task_group() as tasks:
        for _ in range(holders):
            tasks.start_soon(churn)
        await anyio.sleep(20 * HOLD)
        since, before = anyio.current_time(), releases
        with anyio.move_on_after(PATIENCE):
            async with pools.reserve(limit):
                outcome = Outcome(anyio.current_time() - since, releases - before)
        tasks.cancel_scope.cancel()
    return outcome


def measure(order: Order, allowance: int | None, holders: int) -> tuple[float, float]:
    """Return the median wait and the median number of releases over the seeds."""
    outcomes = [lab.run(claim_the_whole, order, allowance, holders, seed) for seed in SEEDS]
    return (
        statistics.median(outcome.waited for outcome in outcomes),
        statistics.median(outcome.releases for outcome in outcomes),
    )


def main() -> None:
    """Print the table."""
    print(f"{'holders':>7}  {'order':<22}  {'claim waits':>11}  {'of FIFO':>7}  {'releases':>8}")
    for holders in HOLDERS:
        fifo, _ = measure(Order.FIFO, None, holders)
        rows: list[tuple[str, Order, int | None]] = [
            ("fifo", Order.FIFO, None),
            ("bounded, 16", Order.BOUNDED, 16),
            ("bounded, 64", Order.BOUNDED, 64),
            ("bounded, leases out", Order.BOUNDED, None),
            ("bounded, 4 x leases", Order.BOUNDED, 4 * holders),
            ("barging", Order.BARGING, None),
        ]
        for name, order, allowance in rows:
            waited, releases = measure(order, allowance, holders)
            starved = waited == float("inf")
            print(
                f"{holders:>7}  {name:<22}  "
                + (
                    f"{'starves':>11}  {'':>7}  {'':>8}"
                    if starved
                    else f"{waited * 1000:>8.1f} ms  {waited / fifo:>7.2f}  {releases:>8.0f}"
                )
            )


if __name__ == "__main__":
    main()
