"""The counters of those who wait: histogram, peak, grants, cancellations, passes, failures."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from mbufpools import BufferPools, Order, WaitStatistics
from tests.kit.grants import (
    KIB,
    entered,
    release_all,
    reserve,
    settle,
    small_and_large,
    taking,
)

PAGE = 4 * KIB


def waits(pools: BufferPools) -> WaitStatistics:
    return pools.statistics().waits


@pytest.mark.parametrize(
    ("seconds", "bound"),
    [
        (0, 1),
        (0.000001, 2),
        (0.000002, 4),
        (0.000003, 4),
        (0.000004, 8),
        (0.001, 1024),
        (1, 2**20),
        (1.048576, 2**21),
        (3600, 2**32),
    ],
)
async def test_each_wait_falls_into_the_bucket_below_its_bound(seconds: float, bound: int) -> None:
    async with entered(small_and_large(1)) as pools, anyio.create_task_group() as tasks:
        held = await pools.reserve(PAGE)
        await anyio.sleep(5)
        waiter = await taking(tasks, pools.get, 1)
        await anyio.sleep(seconds)
        held.release()
        await settle()
        assert waits(pools).histogram == ((bound / 1_000_000, 1),)
        waiter.release()


async def test_the_histogram_adds_up_to_the_grants() -> None:
    async with entered(small_and_large(1)) as pools:

        async def user(number: int) -> None:
            with await pools.get(4000):
                await anyio.sleep(0.001 * number)

        async with anyio.create_task_group() as tasks:
            for number in range(40):
                tasks.start_soon(user, number)
        statistics = waits(pools)
        assert statistics.waits == statistics.grants == 39
        assert statistics.peak_waiting == 39
        assert statistics.waiting == 0
        bounds = [bound for bound, _ in statistics.histogram]
        assert bounds == sorted(bounds)
        assert sum(count for _, count in statistics.histogram) == 39


@pytest.mark.parametrize("order", list(Order))
async def test_only_who_parks_counts_as_waiting(order: Order) -> None:
    async with entered(small_and_large(2, order=order)) as pools:
        held: list[Any] = [
            await pools.get(1),
            await pools.get_many([1, 1]),
            await pools.reserve(1),
            pools.get_nowait(1),
        ]
        for take in (lambda: pools.get_nowait(4000), lambda: pools.reserve_nowait(PAGE)):
            with pytest.raises(anyio.WouldBlock):
                take()
        assert waits(pools) == WaitStatistics(
            waiting=0,
            peak_waiting=0,
            waits=0,
            grants=0,
            cancellations=0,
            passes=0,
            histogram=(),
        )
        release_all(held)


@pytest.mark.parametrize("order", list(Order))
async def test_grants_cancellations_and_waits_of_every_kind_are_counted(order: Order) -> None:
    pools = small_and_large(2, order=order)
    async with entered(pools), anyio.create_task_group() as tasks:
        held = await pools.reserve(2 * PAGE)
        waiting = [
            await taking(tasks, pools.get, 1),
            await taking(tasks, pools.get_many, [1, 4000]),
            await taking(tasks, reserve, pools, 1),
            await taking(tasks, pools.get, 2),
        ]
        waiting[3].cancel()
        await settle()
        statistics = waits(pools)
        assert (statistics.waiting, statistics.peak_waiting, statistics.waits) == (3, 4, 4)
        assert (statistics.grants, statistics.cancellations) == (0, 1)
        held.release()
        for one in waiting[:3]:
            await settle()
            one.release()
        statistics = waits(pools)
        assert (statistics.waiting, statistics.peak_waiting, statistics.waits) == (0, 4, 4)
        assert (statistics.grants, statistics.cancellations) == (3, 1)
        per_pool = pools.statistics().pools
        assert (per_pool["small"].nwait, per_pool["large"].nwait) == (2, 0), "gets of that pool"


async def test_one_that_fails_for_a_new_limit_is_neither_granted_nor_cancelled() -> None:
    async with entered(small_and_large(2)) as pools, anyio.create_task_group() as tasks:
        held = await pools.reserve(2 * PAGE)
        await taking(tasks, reserve, pools, 2 * PAGE)
        pools.resize(PAGE)
        await settle()
        statistics = waits(pools)
        assert (statistics.waits, statistics.grants, statistics.cancellations) == (1, 0, 0)
        held.release()


async def test_the_failures_of_get_nowait_are_counted_in_its_pool() -> None:
    async with entered(small_and_large(1)) as pools:
        with pools.get_nowait(4000):
            for nbytes in (1, 1, 4000):
                with pytest.raises(anyio.WouldBlock):
                    pools.get_nowait(nbytes)
        per_pool = pools.statistics().pools
        assert (per_pool["small"].nfail, per_pool["large"].nfail) == (2, 1)


async def test_a_request_that_the_budget_refuses_counts_its_drops() -> None:
    async with entered(small_and_large(1)) as pools, anyio.create_task_group() as tasks:
        held = await pools.reserve(PAGE)
        assert pools.statistics().drops == 0
        waiter = await taking(tasks, pools.get, 1)
        assert pools.statistics().drops == 2, "it tried twice"
        held.release()
        await settle()
        assert pools.statistics().drops == 2
        waiter.release()


async def test_passes_are_counted_over_all_claims() -> None:
    pools = small_and_large(2, max_passes=2)
    async with entered(pools), anyio.create_task_group() as tasks:
        held: list[Any] = [await pools.get(1)]
        for total in (2, 4):
            claim = await taking(tasks, reserve, pools, 2 * PAGE)
            for _ in range(2):
                held.append(pools.get_nowait(1))
                held.pop(0).release()
            assert waits(pools).passes == total
            claim.cancel()
            await settle()
        release_all(held)
