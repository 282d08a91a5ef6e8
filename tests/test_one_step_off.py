"""What tells the library from one that is a step off: mutation testing asked for each of these."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from mbufpools import (
    AccountedMemory,
    BufferPools,
    EventKind,
    MbufPools,
    PoolCorruption,
    PoolSpec,
    Wakeup,
)

from .ledger import (
    KIB,
    ORDERED,
    Ledger,
    entered,
    release_all,
    reserve,
    settle,
    small_and_large,
    taking,
)

PAGE = 4 * KIB


# Getting and putting


@pytest.mark.parametrize("free", ["nothing", "an idle page of another pool"])
async def test_a_buffer_taken_without_waiting_is_as_long_as_was_asked(free: str) -> None:
    ledger = Ledger()
    async with entered(small_and_large(1, hook=ledger)) as pools:
        if free != "nothing":
            pools.get_nowait(KIB).release()
        ledger.clear()
        with pools.get_nowait(3000) as buffer:
            assert (buffer.nbytes, ledger.taken) == (3000, [3000])


async def test_a_buffer_that_was_dropped_is_told_as_put_with_its_bytes() -> None:
    ledger = Ledger()
    async with entered(small_and_large(1, hook=ledger)) as pools:
        buffer = await pools.get(700)
        with pytest.warns(ResourceWarning, match="dropped without a release"):
            del buffer
        await settle()
        (put,) = ledger.of(EventKind.PUT)
        assert (put.name, put.nbytes) == ("small", 700)


# In debug mode


async def test_who_dropped_a_buffer_is_named_as_the_last_who_held_its_item() -> None:
    async with BufferPools("64 KiB", [PoolSpec(512, name="frames")], debug=True) as pools:
        buffer = await pools.get(100)
        kept = buffer.view[:]
        with pytest.warns(ResourceWarning, match="dropped without a release"):
            del buffer
        await settle()
        kept[0] = 1
        with pytest.raises(PoolCorruption, match="last held as 100 bytes of pool 'frames' by task"):
            pools.check()
        kept.release()


async def test_a_late_write_is_found_in_a_page_whose_other_items_are_out() -> None:
    async with BufferPools("64 KiB", [PoolSpec(512, name="frames")], debug=True) as pools:
        with await pools.get(1):
            buffer = await pools.get(100)
            kept = buffer.view[:]
            buffer.release()
            kept[99] = 1
            with pytest.raises(PoolCorruption, match="from its byte 99 on"):
                pools.check()
            kept[99] = 0xDF
            kept.release()
            pools.check()


async def test_a_grant_by_somebody_elses_release_is_noted_for_the_one_who_waited() -> None:
    pools = BufferPools(2 * PAGE, [PoolSpec(PAGE, items_per_page=1)], debug=True)
    async with entered(pools), anyio.create_task_group() as tasks:
        for take in (pools.get, many(pools), reserving(pools)):
            everything = await pools.get_many([PAGE, PAGE])
            waiter = await taking(tasks, take, PAGE)
            everything.release()
            await settle()
            last = await taking(tasks, reserve, pools, 2 * PAGE)
            (explained,) = pools.explain().waiters
            assert [holder.task_id for holder in explained.holders] == [waiter.task_id]
            waiter.release()
            await settle()
            last.release()


def many(pools: BufferPools) -> Any:
    async def take(nbytes: int) -> Any:
        return await pools.get_many([nbytes])

    return take


def reserving(pools: BufferPools) -> Any:
    async def take(nbytes: int) -> Any:
        return await pools.reserve(nbytes)

    return take


# Who is served


async def test_without_a_wakeup_a_cancelled_get_wakes_nobody_in_another_pool() -> None:
    """Under barging only those behind him look again; the others sleep beside free memory, which
    is what ``wakeup="none"`` shows."""
    pools = small_and_large(1, order="barging", reclaim="gc", wakeup=Wakeup.NONE)
    async with entered(pools), anyio.create_task_group() as tasks:
        held = await pools.get(PAGE)
        head = await taking(tasks, reserve, pools, PAGE)
        asleep = await taking(tasks, pools.get, KIB)
        held.release()
        pools.pools["large"].reclaim()
        head.cancel()
        await settle()
        assert asleep.waits
        assert pools.budget.available == PAGE
        asleep.cancel()


async def test_of_two_who_wait_at_a_maximum_the_first_says_how_many_may_pass() -> None:
    pools = BufferPools(
        100 * PAGE,
        [
            PoolSpec(KIB, name="small", items_per_page=4),
            PoolSpec(PAGE, name="large", items_per_page=1, max_items=2),
        ],
        order="bounded",
        max_passes=2,
        memory=AccountedMemory(),
    )
    async with entered(pools), anyio.create_task_group() as tasks:
        held: list[Any] = [await pools.get_many([PAGE, PAGE])]
        first = await taking(tasks, pools.get_many, [KIB, PAGE])
        held.append(pools.get_nowait(KIB))
        second = await taking(tasks, pools.get_many, [KIB, PAGE, PAGE])
        held.append(pools.get_nowait(KIB))
        with pytest.raises(anyio.WouldBlock):
            pools.get_nowait(KIB)
        release_all(held)
        await settle()
        first.release()
        await settle()
        second.release()


@pytest.mark.parametrize("max_passes", [0, 2])
async def test_a_debt_lets_just_so_many_gets_of_free_items_pass(max_passes: int) -> None:
    pools = small_and_large(3, order="bounded", max_passes=max_passes)
    async with entered(pools):
        held: list[Any] = [await pools.get(PAGE), await pools.get(PAGE), await pools.get(KIB)]
        pools.resize(2 * PAGE)
        assert pools.budget.debt == PAGE
        held += [pools.get_nowait(KIB) for _ in range(max_passes)]
        with pytest.raises(anyio.WouldBlock):
            pools.get_nowait(KIB)
        release_all(held)


# The limit


@pytest.mark.parametrize("make", [BufferPools, MbufPools])
async def test_a_limit_of_one_byte_can_be_set_where_no_pool_keeps_a_minimum(make: Any) -> None:
    pools = make(64 * KIB, [512]) if make is BufferPools else make(64)
    async with entered(pools):
        pools.budget.resize(1)
        assert pools.budget.limit == 1


async def test_in_the_kernel_the_limit_can_be_set_below_what_pools_keep() -> None:
    async with entered(MbufPools(64, memory=AccountedMemory())) as pools:
        assert pools.pools["mbufpl"].set_low_water(16)
        assert pools.budget.allocated == PAGE
        pools.budget.resize(PAGE - 1)
        assert pools.budget.debt == 1


# What check() finds


@pytest.mark.parametrize("order", ORDERED)
async def test_check_finds_an_idle_page_kept_while_a_claim_waits(order: str) -> None:
    pools = small_and_large(2, order=order, reclaim="gc")
    async with entered(pools), anyio.create_task_group() as tasks:
        pools.get_nowait(KIB).release()
        claim = await taking(tasks, reserve, pools, 2 * PAGE)
        pools.check()
        pools._waiters._pressure = True
        with pytest.raises(PoolCorruption, match="idle page to spare"):
            pools.check()
        pools._waiters._pressure = False
        claim.cancel()
        await settle()
