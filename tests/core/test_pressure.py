"""Reclaim under pressure: which idle pages leave for whom, and when."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from mbufpools import (
    AccountedMemory,
    BufferPools,
    EventKind,
    Order,
    PoolSpec,
    Reclaim,
    Wakeup,
)
from tests.kit.grants import (
    KIB,
    ORDERED,
    WAKING,
    GrantLog,
    entered,
    release_all,
    reserve,
    settle,
    small_and_large,
    taking,
)
from tests.kit.memory import ExportedMemory

PAGE = 4 * KIB
IN, OUT = "page in", "page out"


def three_pools(limit_pages: int, **options: Any) -> BufferPools:
    """Pools ``a``, ``b`` and ``c``, each with one item to a page of 4 KiB, and ``wide``, whose
    page takes two of these."""
    options.setdefault("memory", AccountedMemory())
    min_b = options.pop("min_b", 0)
    return BufferPools(
        limit_pages * PAGE,
        [
            PoolSpec(PAGE - 128, name="a", items_per_page=1),
            PoolSpec(PAGE - 64, name="b", items_per_page=1, min_items=min_b),
            PoolSpec(PAGE, name="c", items_per_page=1),
            PoolSpec(2 * PAGE, name="wide", items_per_page=1),
        ],
        **options,
    )


A, B, C, WIDE = PAGE - 128, PAGE - 64, PAGE, 2 * PAGE


async def leave_idle(pools: BufferPools, *sizes: int) -> None:
    """Take a page for each of `sizes`, and leave them idle in this order, a second apart."""
    held = [await pools.get(size) for size in sizes]
    for buffer in held:
        await anyio.sleep(1)
        buffer.release()


@pytest.mark.parametrize("order", list(Order))
@pytest.mark.parametrize("how", ["get", "get_nowait", "get_many", "reserve", "reserve_nowait"])
async def test_before_anybody_waits_idle_pages_of_other_pools_leave_the_longest_idle_first(
    how: str, order: Order
) -> None:
    log = GrantLog()
    pools = three_pools(4, order=order, hook=log)
    async with entered(pools):
        await leave_idle(pools, C, A, B, A)
        log.clear()
        leases: list[Any] = []
        if how == "get":
            leases.append(await pools.get(WIDE))
        elif how == "get_nowait":
            leases.append(pools.get_nowait(WIDE))
        elif how == "get_many":
            leases.append(await pools.get_many([WIDE]))
        elif how == "reserve":
            leases.append(await pools.reserve(WIDE))
        else:
            leases.append(pools.reserve_nowait(WIDE))
        assert log.pages[:2] == [(OUT, "c"), (OUT, "a")]
        assert log.pages[2:] == ([] if "reserve" in how else [(IN, "wide")])
        assert log.of(EventKind.WAIT) == []
        assert pools.statistics().waits.waits == 0
        release_all(leases)


async def test_only_as_many_pages_leave_as_are_needed() -> None:
    log = GrantLog()
    pools = three_pools(5, hook=log)
    async with entered(pools):
        await leave_idle(pools, A, B, C)
        assert pools.budget.available == 2 * PAGE
        with pools.get_nowait(WIDE):
            assert pools.pools["a"]._supply.nidle == 1, "it fitted"
            log.clear()
            with await pools.get(B):
                assert log.pages == [], "an idle page of one's own needs no room"
                with await pools.get(B):
                    assert log.pages == [(OUT, "a"), (IN, "b")]


@pytest.mark.parametrize("order", ORDERED)
async def test_no_page_stays_idle_when_one_who_will_not_wait_shows_that_another_is_a_claim(
    order: Order,
) -> None:
    pools = three_pools(4, order=order, min_b=1)
    async with entered(pools), anyio.create_task_group() as tasks:
        held = [await pools.get(C) for _ in range(3)]
        pools.resize(3 * PAGE)
        waiter = await taking(tasks, pools.get, WIDE)
        pools.resize(4 * PAGE)  # the debt before the waiter is gone, and his wakeup on its way
        pools.pools["b"].set_low_water(0)
        assert pools.pools["b"].statistics().nidle == 1
        with pytest.raises(anyio.WouldBlock):
            pools.get_nowait(WIDE)
        pools.check()
        assert pools.pools["b"].statistics().nidle == 0
        await settle()
        assert waiter.waits
        held.pop().release()
        await settle()
        assert waiter.holds()
        release_all([*held, waiter.lease])


@pytest.mark.parametrize("order", list(Order))
@pytest.mark.parametrize("how", ["get", "get_nowait", "reserve"])
async def test_where_something_exports_an_idle_page_the_next_one_leaves_instead(
    how: str, order: Order
) -> None:
    log = GrantLog()
    memory = ExportedMemory()
    pools = three_pools(3, order=order, hook=log, memory=memory)
    async with entered(pools):
        (await pools.get(A)).release()  # the longest idle, and it cannot really leave
        await anyio.sleep(1)
        await leave_idle(pools, B, B)
        del memory.parts[1:]
        log.clear()
        lease: Any
        if how == "get":
            lease = await pools.get(C)
        elif how == "get_nowait":
            lease = pools.get_nowait(C)
        else:
            lease = await pools.reserve(PAGE)
        assert log.pages == [(OUT, "b")] + ([] if how == "reserve" else [(IN, "c")])
        assert pools.statistics().waits.waits == 0
        assert pools.statistics().pools["b"].npages == 1, "only as many left as were needed"
        pools.check()
        lease.release()
        memory.parts.clear()


async def test_a_pool_keeps_its_minimum() -> None:
    log = GrantLog()
    pools = three_pools(4, min_b=2, hook=log)
    async with entered(pools), anyio.create_task_group() as tasks:
        held = [await pools.get(B) for _ in range(4)]
        release_all(held)
        assert pools.pools["b"]._supply.nidle == 4
        log.clear()
        wide = await pools.get(WIDE)
        assert log.pages == [(OUT, "b"), (OUT, "b"), (IN, "wide")]
        assert pools.pools["b"]._supply.nidle == 2, "the minimum"
        log.clear()
        for nbytes in (A, C, WIDE):
            with pytest.raises(anyio.WouldBlock):
                pools.get_nowait(nbytes)
        waiter = await taking(tasks, pools.get, A)
        assert log.pages == []
        wide.release()
        await settle()
        waiter.release()


@pytest.mark.parametrize("order", list(Order))
async def test_none_leave_for_one_who_will_not_wait_if_they_do_not_suffice(order: Order) -> None:
    log = GrantLog()
    pools = three_pools(4, order=order, hook=log)
    async with entered(pools), anyio.create_task_group() as tasks:
        busy = [await pools.get(A) for _ in range(3)]
        await leave_idle(pools, C)
        log.clear()
        with pytest.raises(anyio.WouldBlock):
            pools.get_nowait(WIDE)
        with pytest.raises(anyio.WouldBlock):
            pools.reserve_nowait(PAGE + 1)
        assert log.pages == []
        assert pools.pools["c"]._supply.nidle == 1
        assert pools.pools["wide"].statistics().nfail == 1
        waiter = await taking(tasks, pools.get, WIDE)
        assert log.pages == [(OUT, "c")], "but one who waits lets all of them go"
        release_all(busy)
        await settle()
        waiter.release()


async def test_none_leaves_that_the_claim_itself_needs() -> None:
    log = GrantLog()
    pools = three_pools(4, hook=log)
    async with entered(pools):
        with await pools.get(B):
            await leave_idle(pools, A, C, A)  # a page of the very pool is the longest idle
            log.clear()
            with await pools.get_many([A, A, B]):
                assert log.pages == [(OUT, "c"), (IN, "b")]


async def test_spare_pages_of_a_pool_that_the_claim_draws_on_do_leave() -> None:
    log = GrantLog()
    pools = three_pools(3, hook=log)
    async with entered(pools):
        await leave_idle(pools, A, A, A)
        log.clear()
        with await pools.get_many([A, WIDE]):
            assert log.pages == [(OUT, "a"), (OUT, "a"), (IN, "wide")], "it needs one of three"


@pytest.mark.parametrize("order", list(Order))
@pytest.mark.parametrize("wakeup", WAKING)
async def test_while_a_claim_waits_a_page_that_becomes_idle_leaves_at_once(
    wakeup: Wakeup, order: Order
) -> None:
    log = GrantLog()
    pools = three_pools(4, order=order, wakeup=wakeup, hook=log)
    async with entered(pools), anyio.create_task_group() as tasks:
        a, b, c = await pools.get(A), await pools.get(B), await pools.get(C)
        claim = await taking(tasks, reserve, pools, 4 * PAGE)
        for buffer, name in ((b, "b"), (a, "a"), (c, "c")):
            log.clear()
            buffer.release()
            assert log.pages == [(OUT, name)]
            assert pools.pools[name]._supply.nidle == 0
        await settle()
        assert claim.lease is not None
        claim.release()
        with await pools.get(A):
            pass
        assert pools.pools["a"]._supply.nidle == 1, "and when nobody waits it stays"


@pytest.mark.parametrize("order", list(Order))
async def test_while_a_claim_waits_a_page_left_idle_by_somebody_cancelled_leaves_too(
    order: Order,
) -> None:
    log = GrantLog()
    pools = three_pools(2, order=order, hook=log)
    async with entered(pools), anyio.create_task_group() as tasks:
        a = await pools.get(A)
        first = await taking(tasks, pools.get, WIDE)
        second = await taking(tasks, pools.get, B)
        assert first.waits
        assert second.waits == (order is not Order.BARGING)
        if second.waits:
            first.cancel()
            await settle()
        third = await taking(tasks, pools.get, WIDE)
        log.clear()
        second.release()
        assert log.pages == [(OUT, "b")]
        a.release()
        await settle()
        if first.waits:
            first.cancel()
        if first.lease is not None:
            first.release()
        await settle()
        third.release()


@pytest.mark.parametrize("order", list(Order))
@pytest.mark.parametrize("occasion", ["its maximum is raised", "an item comes back"])
async def test_no_page_stays_idle_when_one_who_waited_at_a_maximum_becomes_a_claim(
    occasion: str, order: Order
) -> None:
    log = GrantLog()
    pools = BufferPools(
        5 * PAGE,
        [
            PoolSpec(KIB, name="small", items_per_page=4),
            PoolSpec(2 * PAGE, name="wide", items_per_page=1, max_items=1),
        ],
        order=order,
        memory=AccountedMemory(),
        hook=log,
    )
    async with entered(pools), anyio.create_task_group() as tasks:
        wide = await pools.get(WIDE)
        small = [await pools.get(KIB) for _ in range(12)]
        wants = [WIDE] if occasion == "its maximum is raised" else [WIDE, *[KIB] * 9]
        at_maximum = await taking(tasks, pools.get_many, wants)
        release_all(small[8:])
        assert pools.pools["small"]._supply.nidle == 1, "it is not short of bytes"
        log.clear()
        if occasion == "its maximum is raised":
            pools.pools["wide"].set_hard_limit(2)
        else:
            wide.release()
        assert at_maximum.waits
        assert (OUT, "small") in log.pages
        pools.check()
        release_all([wide, *small])
        await settle()
        at_maximum.release()


@pytest.mark.parametrize("order", list(Order))
async def test_under_direct_a_claim_is_charged_before_anybody_hears_of_the_pages(
    order: Order,
) -> None:
    log = GrantLog()
    pools = three_pools(4, order=order, wakeup="direct", hook=log)
    async with entered(pools), anyio.create_task_group() as tasks:
        pools.pools["a"].set_hard_limit(1)
        a = await pools.get(A)
        await leave_idle(pools, B, C, B)
        # Somebody who would take the first page that leaves, if he were asked before the claim.
        eager = await taking(tasks, pools.get, A)
        log.clear()
        wide = await pools.get(WIDE)
        assert log.pages == [(OUT, "b"), (OUT, "c"), (IN, "wide")]
        assert eager.waits
        a.release()
        await settle()
        release_all([wide, eager.lease])


async def test_under_direct_what_is_left_over_is_offered_after_the_claim_was_charged() -> None:
    log = GrantLog()
    pools = three_pools(5, order="fifo", wakeup="direct", hook=log)
    async with entered(pools), anyio.create_task_group() as tasks:
        rest = await pools.reserve(PAGE)
        wide = [await pools.get(WIDE) for _ in range(2)]
        claim = await taking(tasks, pools.get_many, [A, B, C])
        behind = await taking(tasks, pools.get, C)
        log.clear()
        wide[0].release()
        assert log.pages == [(OUT, "wide")]
        wide[1].release()
        assert log.pages[1:] == [(OUT, "wide"), (IN, "a"), (IN, "b"), (IN, "c"), (IN, "c")]
        await settle()
        release_all([claim.lease, behind.lease, rest])


async def test_get_nowait_reclaims_under_pressure_and_not_under_gc() -> None:
    for reclaim, served in ((Reclaim.PRESSURE, True), (Reclaim.GC, False)):
        pools = small_and_large(1, reclaim=reclaim)
        async with entered(pools):
            pools.get_nowait(1000).release()
            assert pools.pools["small"]._supply.nidle == 1
            if served:
                pools.get_nowait(4000).release()
            else:
                with pytest.raises(anyio.WouldBlock):
                    pools.get_nowait(4000)


@pytest.mark.parametrize("order", list(Order))
async def test_under_gc_a_waiter_is_served_when_the_gc_has_let_the_page_go(order: Order) -> None:
    pools = small_and_large(1, reclaim="gc", order=order)
    async with entered(pools):
        pools.get_nowait(1000).release()
        with await pools.get(4000):
            assert 8 < anyio.current_time() <= 10


async def test_the_gc_does_not_search_the_pools_for_idle_pages_if_there_are_none() -> None:
    """A dictionary that many pools have left is as large as before, so a look at it takes time."""

    class Unsearched(dict[Any, None]):
        def __iter__(self) -> Any:
            raise AssertionError("it was searched")

    async with entered(three_pools(2)) as pools:
        state = pools._state
        state.supplies_with_idle = Unsearched()
        assert pools._waiters.reclaimer.with_idle() == []
        pools._gc()
