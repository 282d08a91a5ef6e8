"""The wakeup policy ``wanted``: one flag of the set, set by a request that sleeps for a page."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from mbufpools import BufferPools, MbufPools, Order
from tests.kit.getters import EVERY_ORDER, Scene, one_item_a_page
from tests.kit.grants import ORDERED

KIB = 1024
every_order = pytest.mark.parametrize("rules", EVERY_ORDER)


def scene_of(pages: int, *, sizes: tuple[int, ...] = (4, 8), **options: Any) -> Scene[BufferPools]:
    """A set with one pool for each of `sizes` in KiB, an item a page, and a limit of so many pages
    of 4 KiB."""
    specs = [one_item_a_page(size * KIB) for size in sizes]
    return Scene(BufferPools, pages * 4 * KIB, specs, wakeup="wanted", **options)


def runs(scene: Scene[Any]) -> int:
    found: int = scene.pools.statistics().wakeup_runs
    return found


@every_order
async def test_pages_that_leave_run_nothing_while_nobody_sleeps(rules: dict[str, Any]) -> None:
    async with scene_of(5, **rules) as scene:
        pool = scene.pools.pools["4096"]
        pool.prime(5)
        assert pool.reclaim() == 5
        await scene.settle()
        assert runs(scene) == 0


async def test_the_page_that_a_sleeper_wants_wakes_it_in_the_free_itself_and_no_other_does() -> (
    None
):
    async with scene_of(5) as scene:
        for n in range(5):
            await scene.get(f"{n}", 4 * KIB)
        await scene.get("sleeper", 8 * KIB)
        for n in range(5):
            scene.getters[f"{n}"].release()
        assert scene.waiting() == ["sleeper"]
        assert scene.pools.pools["4096"].reclaim() == 5
        assert scene.granted[5:] == ["sleeper"], "before the call returned"
        assert runs(scene) == 2, "refused, so the flag was set again; then served"


async def test_a_refused_try_does_not_set_the_flag() -> None:
    async with scene_of(2) as scene:
        holder = await scene.get("holder", 4 * KIB)
        for _ in range(3):
            assert not scene.try_get("nobody", "8192")
        holder.release()
        assert scene.pools.pools["4096"].reclaim() == 1
        assert runs(scene) == 0


@pytest.mark.parametrize("order", ORDERED)
async def test_a_refused_try_does_not_set_the_flag_where_it_joins_the_queue(order: Order) -> None:
    async with scene_of(4, order=order, reclaim="pressure") as scene:
        holders = [await scene.get(f"{n}", 4 * KIB) for n in range(4)]
        assert not scene.try_get("nobody", "8192")
        for holder in holders:
            holder.release()
        scene.pools.pools["4096"].reclaim()
        assert runs(scene) == 0


async def test_a_sleeper_at_the_maximum_of_its_pool_does_not_set_the_flag() -> None:
    async with scene_of(3) as scene:
        scene.pools.pools["8192"].set_max_items(1)
        await scene.get("holder", 8 * KIB)
        page = await scene.get("page", 4 * KIB)
        await scene.get("sleeper", 8 * KIB)
        page.release()
        assert scene.pools.pools["4096"].reclaim() == 1
        assert runs(scene) == 0
        assert scene.waiting() == ["sleeper"]


async def test_a_sleeper_that_the_budget_refuses_after_its_maximum_was_raised_sets_the_flag() -> (
    None
):
    async with scene_of(3) as scene:
        pool = scene.pools.pools["8192"]
        pool.set_max_items(1)
        await scene.get("holder", 8 * KIB)
        page = await scene.get("page", 4 * KIB)
        await scene.get("sleeper", 8 * KIB)
        pool.set_max_items(None)
        pool.wakeup()
        scene.pools.resize(4 * 4 * KIB)
        assert scene.waiting() == ["sleeper"]
        page.release()
        assert scene.pools.pools["4096"].reclaim() == 1
        assert scene.granted[-1] == "sleeper"
        assert runs(scene) == 1


async def test_a_sleeper_that_a_put_has_served_costs_one_run_that_serves_nobody() -> None:
    """The flag is of the set, so it does not know that its request was served."""
    async with scene_of(3) as scene:
        large = await scene.get("large", 8 * KIB)
        small = await scene.get("small", 4 * KIB)
        await scene.get("sleeper", 8 * KIB)
        large.release()
        assert scene.granted[-1] == "sleeper"
        assert runs(scene) == 0
        small.release()
        assert scene.pools.pools["4096"].reclaim() == 1
        assert runs(scene) == 1
        await scene.getters["sleeper"].ended.wait()
        scene.getters["sleeper"].release()
        assert scene.pools.pools["8192"].reclaim() == 1
        assert runs(scene) == 1, "the flag was cleared"


@every_order
async def test_a_new_limit_wakes_whether_the_flag_is_set_or_not(rules: dict[str, Any]) -> None:
    async with scene_of(3, **rules) as scene:
        scene.pools.pools["8192"].set_max_items(1)
        await scene.get("holder", 8 * KIB)
        await scene.get("page", 4 * KIB)
        await scene.get("sleeper", 4 * KIB)
        scene.pools.resize(4 * 4 * KIB)
        assert scene.granted == ["holder", "page", "sleeper"]
        assert runs(scene) == 0, "it is not a page that left"


@pytest.mark.parametrize("order", ORDERED)
async def test_a_debt_counts_as_a_sleeper_whom_the_budget_refused(order: Order) -> None:
    """The request behind the debt was never tried, so it was never refused."""
    async with scene_of(4, order=order, reclaim="pressure") as scene:
        holders = [await scene.get(f"{n}", 8 * KIB) for n in range(2)]
        scene.pools.resize(8 * KIB)
        await scene.get("sleeper", 4 * KIB)
        holders[0].release()
        assert scene.waiting() == ["sleeper"]
        holders[1].release()
        assert scene.granted == ["0", "1", "sleeper"]


async def test_the_sleepers_of_all_pools_are_run_the_smallest_items_first() -> None:
    async with scene_of(8, sizes=(4, 8, 32)) as scene:
        holder = await scene.get("holder", 32 * KIB)
        for name, size in (("c", 8), ("a", 4), ("b", 8)):
            await scene.get(name, size * KIB)
        holder.release()
        assert scene.pools.pools["32768"].reclaim() == 1
        assert scene.granted == ["holder", "a", "c", "b"]
        assert runs(scene) == 1


async def test_a_sleeping_reservation_sets_the_flag_too() -> None:
    async with BufferPools(8 * KIB, [one_item_a_page()], wakeup="wanted", reclaim="gc") as pools:
        holder = await pools.get(4 * KIB)
        reserved: list[float] = []

        async def reserve() -> None:
            async with pools.reserve(8 * KIB):
                reserved.append(anyio.current_time())

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(reserve)
            await anyio.sleep(1)
            holder.release()
            assert pools.pools["4096"].reclaim() == 1
        assert reserved == [1.0]
        assert pools.statistics().wakeup_runs == 1


async def test_the_stall_of_the_thread_ends_as_with_the_patch() -> None:
    async with Scene(MbufPools, 8, wakeup="wanted") as scene:
        first = await scene.get("first", "mcl2k")
        second = await scene.get("second", "mbufpl")
        first.release()
        await second.ended.wait()
        assert second.served_at == 9.0
        assert runs(scene) == 1


async def test_a_newcomer_sets_the_flag_for_a_sleeper_whose_maximum_was_taken_away() -> None:
    """Under the kernel's rules a new maximum runs no requests. The next request that joins does,
    and the budget, not the maximum, refuses the sleeper from then on."""
    async with Scene(MbufPools, 8, wakeup="wanted") as scene:
        first = await scene.get("first", "mcl2k")
        scene.pools.pools["mbufpl"].set_hard_limit(0)
        second = await scene.get("second", "mbufpl")
        scene.pools.pools["mbufpl"].set_hard_limit(None)
        third = await scene.get("third", "mbufpl")
        first.release()
        await third.ended.wait()
        assert (second.served_at, third.served_at) == (9.0, 9.0)
