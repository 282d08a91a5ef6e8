"""`BufferPools`: sizes, real memory, who is woken when a page leaves, and the limit."""

from __future__ import annotations

import re
from typing import Any

import anyio
import pytest

from mbufpools import (
    AccountedMemory,
    Block,
    BufferPools,
    ConfigurationError,
    CurPage,
    EventKind,
    ImpossibleRequest,
    OversizeRequest,
    PoolCorruption,
    PoolSpec,
    RequestError,
    UsageError,
    Wakeup,
)
from tests.kit.getters import EVERY_ORDER, Scene, on_asyncio, one_item_a_page, until
from tests.kit.grants import WAKING
from tests.kit.memory import ExportedMemory

waking = pytest.mark.parametrize("wakeup", WAKING, ids=str)
every_order = pytest.mark.parametrize("rules", EVERY_ORDER)
every_wakeup = pytest.mark.parametrize("wakeup", list(Wakeup), ids=str)

KIB = 1024


# Sizes


def test_the_pool_for_a_size_has_the_smallest_items_that_hold_it() -> None:
    pools = BufferPools("1 MiB", [4096, 256, PoolSpec(2048, name="middle")])
    assert list(pools.pools) == ["256", "middle", "4096"], "in the order of their sizes"
    for nbytes, name in (
        (1, "256"),
        (255, "256"),
        (256, "256"),
        (257, "middle"),
        (2048, "middle"),
        (2049, "4096"),
        (4096, "4096"),
    ):
        assert pools.pool_for(nbytes).name == name


def test_a_size_that_no_pool_holds_is_refused_and_the_largest_is_named() -> None:
    pools = BufferPools("1 MiB", [256, 4096], name="tested")
    with pytest.raises(OversizeRequest) as caught:
        pools.pool_for(4097)
    assert str(caught.value) == (
        "tested has no buffers of 4097 bytes; the largest are of 4096 (pool '4096'); "
        "take several, or add a larger size"
    )


async def test_get_refuses_the_sizes_that_pool_for_refuses() -> None:
    async with Scene(BufferPools, "1 MiB", [256]) as scene:
        for nbytes in (257, 0, -1):
            with pytest.raises(RequestError):
                await scene.pools.get(nbytes)
            with pytest.raises(RequestError):
                scene.pools.get_nowait(nbytes)
        scene.check()
        assert scene.of("256").nfail == 0
        assert scene.events == []


@pytest.mark.parametrize("nbytes", [1, 100, 256, 257, 1000])
async def test_a_buffer_is_as_long_as_was_asked_for_and_its_memory_is_real(nbytes: int) -> None:
    async with Scene(BufferPools, "1 MiB", [256, 1000]) as scene:
        with await scene.pools.get(nbytes) as waited, scene.pools.get_nowait(nbytes) as tried:
            for buffer, byte in ((waited, b"\x11"), (tried, b"\x22")):
                assert (buffer.nbytes, len(buffer.view), buffer.view.readonly) == (
                    nbytes,
                    nbytes,
                    False,
                )
                buffer.view[:] = byte * nbytes
            assert bytes(waited.view) == b"\x11" * nbytes
            assert bytes(tried.view) == b"\x22" * nbytes


async def test_no_two_buffers_share_a_byte() -> None:
    async with Scene(BufferPools, "128 KiB", [100, 3000]) as scene:
        for pool, items in (("100", 2 * 64), ("3000", 2 * 10)):
            assert all(scene.try_get(f"{n} of {pool}", pool) for n in range(items))
        buffers = [getter.lease for getter in scene.getters.values() if getter.lease]
        assert len(buffers) == 2 * 64 + 2 * 10
        for number, buffer in enumerate(buffers):
            buffer.view[:] = bytes([number]) * buffer.nbytes
        for number, buffer in enumerate(buffers):
            assert bytes(buffer.view) == bytes([number]) * buffer.nbytes
        scene.check()


async def test_more_is_never_allocated_than_the_limit() -> None:
    async with Scene(BufferPools, 40 * KIB, [1000, 4096]) as scene:
        for turn in range(100):
            await scene.get(f"{turn}", (1000, 4096)[turn % 2])
            scene.check()
        statistics = scene.pools.statistics()
        assert statistics.peak == statistics.allocated == 40 * KIB
        assert statistics.waiting == 100 - statistics.nout


async def test_a_hidden_item_is_impossible_in_buffer_pools() -> None:
    """They have the cured rule."""
    async with Scene(BufferPools, 16 * KIB, [2048]) as scene:
        holders = [await scene.get(f"holder {n}", 2048) for n in range(8)]
        await scene.get("sleeper", 2048)
        holders[3].release()
        assert scene.granted[-1] == "sleeper"
        assert scene.pools._state.curpage is CurPage.REFRESHED


# Wakeup: who hears of a page that has left


async def sleeper_of_another_pool(scene: Scene[BufferPools]) -> None:
    """One pool has the whole budget, idle; somebody sleeps in the other."""
    holder = await scene.get("holder", 2 * KIB)
    await scene.get("sleeper", 4 * KIB)
    holder.release()
    scene.check()
    assert scene.waiting() == ["sleeper"]


PAGE_OF_16K = (PoolSpec(2 * KIB), PoolSpec(4 * KIB, items_per_page=4))


@waking
async def test_a_page_that_leaves_wakes_the_sleepers_of_the_other_pools(wakeup: Wakeup) -> None:
    async with Scene(BufferPools, 16 * KIB, PAGE_OF_16K, wakeup=wakeup) as scene:
        await sleeper_of_another_pool(scene)
        await anyio.sleep_until(20)
        scene.check()
        assert scene.granted == ["holder", "sleeper"]
        assert scene.getters["sleeper"].served_at == 9.0


async def test_without_a_wakeup_the_sleepers_of_the_other_pools_sleep_beside_free_memory() -> None:
    async with Scene(BufferPools, 16 * KIB, PAGE_OF_16K, wakeup="none") as scene:
        await sleeper_of_another_pool(scene)
        await anyio.sleep(3600)
        scene.check()
        assert scene.waiting() == ["sleeper"]
        assert scene.pools.budget.allocated == 0
        assert scene.pools.statistics().wakeup_runs == 0


@every_wakeup
async def test_a_put_wakes_the_sleepers_of_its_own_pool_under_every_policy(
    wakeup: Wakeup,
) -> None:
    async with Scene(BufferPools, 4 * KIB, [one_item_a_page()], wakeup=wakeup) as scene:
        holder = await scene.get("holder", 4096)
        await scene.get("sleeper", 4096)
        holder.release()
        scene.check()
        assert scene.granted == ["holder", "sleeper"]
        assert scene.pools.statistics().wakeup_runs == 0, "no page has left"


@every_wakeup
async def test_a_raised_limit_wakes_every_pool_under_every_policy(wakeup: Wakeup) -> None:
    specs = [one_item_a_page(), one_item_a_page(8 * KIB)]
    async with Scene(BufferPools, 8 * KIB, specs, wakeup=wakeup, near_limit_margin=0) as scene:
        await scene.get("holder", 8 * KIB)
        for name in ("a", "b"):
            await scene.get(name, 8 * KIB)
            await scene.get(f"small {name}", 4 * KIB)
        scene.pools.resize(20 * KIB)
        await scene.settle()
        scene.check()
        assert scene.granted == ["holder", "small a", "small b"], "the smallest items first"
        scene.pools.resize("24 KiB")
        await scene.settle()
        assert scene.granted == ["holder", "small a", "small b", "a"]
        by_task = wakeup in (Wakeup.DEFERRED, Wakeup.NEAR_LIMIT)
        assert scene.pools.statistics().wakeup_runs == (2 if by_task else 0)


async def pages_that_leave_at_once(scene: Scene[BufferPools], pages: int) -> None:
    pool = scene.pools.pools["4096"]
    pool.prime(pages)
    assert pool.reclaim() == pages
    scene.check()


async def test_deferred_coalesces_the_pages_that_leave_before_it_runs_into_one_run() -> None:
    async with Scene(BufferPools, "1 MiB", [one_item_a_page()], wakeup="deferred") as scene:
        await pages_that_leave_at_once(scene, 5)
        assert scene.pools.statistics().wakeup_runs == 0, "not in the free itself"
        await scene.settle()
        assert scene.pools.statistics().wakeup_runs == 1
        assert scene.told(EventKind.COALESCED) == ["wakeup"] * 4
        await pages_that_leave_at_once(scene, 1)
        await scene.settle()
        assert scene.pools.statistics().wakeup_runs == 2


async def test_direct_wakes_for_each_page_in_the_free_itself() -> None:
    async with Scene(BufferPools, "1 MiB", [one_item_a_page()], wakeup="direct") as scene:
        await pages_that_leave_at_once(scene, 5)
        assert scene.pools.statistics().wakeup_runs == 5
        assert scene.told(EventKind.QUEUED) == []


async def test_direct_serves_the_sleepers_before_the_free_returns() -> None:
    async with Scene(BufferPools, 16 * KIB, PAGE_OF_16K, wakeup="direct") as scene:
        await sleeper_of_another_pool(scene)
        scene.pools.pools["2048"].reclaim()
        scene.check()
        assert scene.granted == ["holder", "sleeper"]


async def test_none_runs_nothing_when_pages_leave() -> None:
    async with Scene(BufferPools, "1 MiB", [one_item_a_page()], wakeup="none") as scene:
        await pages_that_leave_at_once(scene, 5)
        await scene.settle()
        assert scene.pools.statistics().wakeup_runs == 0
        assert scene.told(EventKind.QUEUED) == []


async def test_near_limit_wakes_only_if_little_is_available() -> None:
    """By default less than twice the largest page, after the page has left."""
    async with Scene(BufferPools, 5 * 4 * KIB, [one_item_a_page()], wakeup="near-limit") as scene:
        pool = scene.pools.pools["4096"]
        pool.prime(5)
        left = []
        for items in (4, 3, 2, 1, 0):
            pool.set_low_water(items)
            assert pool.reclaim() == 1
            await scene.settle()
            left.append((scene.pools.budget.available // (4 * KIB), scene.of("4096").npages))
        assert left == [(1, 4), (2, 3), (3, 2), (4, 1), (5, 0)]
        assert scene.pools.statistics().wakeup_runs == 1, "two pages available are enough"


@pytest.mark.parametrize(
    ("margin", "wakes"),
    [(0, False), (27 * KIB, False), (28 * KIB, False), (28 * KIB + 1, True), (None, True)],
)
async def test_near_limit_is_safe_at_the_default_margin_and_stalls_with_a_smaller_one(
    margin: int | None, wakes: bool
) -> None:
    """A limit of 28 KiB. A page of 16 KiB is out, so 12 are available, and the sleeper needs a
    page of 16. When that page leaves, 28 are available. A margin of both pages, 32 KiB, always
    wakes whoever sleeps for want of a page."""
    async with Scene(
        BufferPools, 28 * KIB, PAGE_OF_16K, wakeup="near-limit", near_limit_margin=margin
    ) as scene:
        await sleeper_of_another_pool(scene)
        await anyio.sleep_until(600)
        scene.check()
        assert scene.granted == (["holder", "sleeper"] if wakes else ["holder"])
        assert (scene.pools.budget.available >= 16 * KIB) is not wakes


async def test_the_gc_and_the_wakeup_after_it_are_serialized() -> None:
    async with Scene(BufferPools, 16 * KIB, PAGE_OF_16K) as scene:
        await sleeper_of_another_pool(scene)
        await anyio.sleep_until(9.5)
        last = [(event.kind, event.name) for event in scene.events if event.time == 9.0]
        assert last == [
            (EventKind.QUEUED, "gc"),
            (EventKind.RUN, "gc"),
            (EventKind.PAGE_OUT, "2048"),
            (EventKind.QUEUED, "wakeup"),
            (EventKind.RUN, "wakeup"),
            (EventKind.PAGE_IN, "4096"),
            (EventKind.GRANT, "4096"),
        ]


async def test_sleepers_of_several_pools_are_woken_the_smallest_items_first() -> None:
    specs = [one_item_a_page(n * 4 * KIB) for n in (1, 2, 4, 8)]
    async with Scene(BufferPools, 32 * KIB, specs) as scene:
        holder = await scene.get("holder", 32 * KIB)
        for name, size in (("c", 16), ("a", 4), ("b", 8), ("a2", 4)):
            await scene.get(name, size * KIB)
        holder.release()
        holder.lease.pool.reclaim()
        await scene.settle()
        scene.check()
        assert scene.granted == ["holder", "a", "a2", "b", "c"]


# The limit


async def test_a_raised_limit_serves_as_many_as_it_holds() -> None:
    async with Scene(BufferPools, 4 * KIB, [one_item_a_page()]) as scene:
        for name in "abcde":
            await scene.get(name, 4096)
        assert scene.granted == ["a"]
        scene.pools.resize(3 * 4 * KIB)
        await scene.settle()
        scene.check()
        assert scene.granted == ["a", "b", "c"]
        assert scene.pools.statistics().limit == 12 * KIB


async def test_a_limit_lowered_within_what_is_free_makes_no_debt() -> None:
    async with Scene(BufferPools, 5 * 4 * KIB, [one_item_a_page()]) as scene:
        for name in "ab":
            await scene.get(name, 4096)
        scene.pools.resize(2 * 4 * KIB)
        await scene.get("c", 4096)
        scene.check()
        assert scene.granted == ["a", "b"]
        assert scene.pools.budget.debt == 0
        scene.getters["a"].release()
        assert scene.granted == ["a", "b", "c"]


async def test_no_page_is_granted_until_the_debt_is_paid() -> None:
    """Four pages out, the limit lowered to two: two pages that leave pay the debt, and only the
    third is granted anew."""
    specs = [one_item_a_page(), one_item_a_page(4096 - 64)]
    async with Scene(BufferPools, 4 * 4 * KIB, specs) as scene:
        holders = [await scene.get(f"holder {n}", 4096) for n in range(4)]
        await scene.get("sleeper", "4032")
        scene.pools.resize(2 * 4 * KIB)
        await scene.settle()
        assert scene.pools.budget.debt == 2 * 4 * KIB
        for debt, waiting in ((1, ["sleeper"]), (0, ["sleeper"]), (0, [])):
            holders.pop().release()
            assert scene.pools.pools["4096"].reclaim() == 1
            await scene.settle()
            scene.check()
            assert scene.pools.budget.debt == debt * 4 * KIB
            for name in ["sleeper"] if not waiting else []:
                await scene.getters[name].ended.wait()
            assert scene.waiting() == waiting
        assert scene.pools.budget.allocated == 2 * 4 * KIB


async def test_a_newcomer_cannot_take_what_pays_a_debt() -> None:
    async with Scene(BufferPools, 3 * 4 * KIB, [one_item_a_page()]) as scene:
        pool = scene.pools.pools["4096"]
        buffers = [pool.get_nowait() for _ in range(3)]
        scene.pools.resize(4 * KIB)
        buffers.pop().release()
        pool.reclaim()
        with pytest.raises(anyio.WouldBlock):
            pool.get_nowait()
        buffers.pop().release()
        pool.reclaim()
        with pytest.raises(anyio.WouldBlock):
            pool.get_nowait()
        scene.check()
        buffers.pop().release()
        pool.reclaim()
        with pool.get_nowait():
            assert scene.pools.budget.allocated == 4 * KIB


async def test_a_debt_that_a_raised_limit_forgives_is_paid() -> None:
    async with Scene(BufferPools, 2 * 4 * KIB, [one_item_a_page()]) as scene:
        for name in "abc":
            await scene.get(name, 4096)
        scene.pools.resize(4 * KIB)
        await scene.settle()
        assert scene.pools.budget.debt == 4 * KIB
        scene.pools.resize(3 * 4 * KIB)
        await scene.settle()
        scene.check()
        assert scene.granted == ["a", "b", "c"]


@pytest.mark.parametrize("limit", [0, -1])
async def test_a_limit_below_one_byte_is_refused_and_changes_nothing(limit: int) -> None:
    async with Scene(BufferPools, 4 * KIB, [one_item_a_page()]) as scene:
        with pytest.raises(ConfigurationError, match="the limit of a Budget is"):
            scene.pools.resize(limit)
        assert scene.pools.budget.limit == 4 * KIB


async def test_resizing_the_budget_is_the_same() -> None:
    async with Scene(BufferPools, 4 * KIB, [one_item_a_page()]) as scene:
        for name in "ab":
            await scene.get(name, 4096)
        scene.pools.budget.resize("8 KiB")
        await scene.settle()
        assert scene.granted == ["a", "b"]


# What can never be served


@pytest.mark.parametrize(
    ("limit", "specs", "needed", "name"),
    [
        (4095, [one_item_a_page()], 4096, "4096"),
        (16 * KIB - 1, [256, 2048], 16 * KIB, "2048"),
        (8 * KIB - 1, [one_item_a_page(4032, min_items=1), one_item_a_page()], 8 * KIB, "4096"),
        (8 * KIB - 1, [one_item_a_page(min_items=2)], 8 * KIB, "4096"),
    ],
)
def test_a_limit_that_cannot_hold_a_page_beside_the_minima_is_refused(
    limit: int, specs: list[int | PoolSpec], needed: int, name: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        BufferPools(limit, specs, name="tested")
    assert str(caught.value) == (
        f"tested has a limit of {limit} bytes, too small for pool {name!r}: one page of it and "
        f"the minimum of every pool make {needed}; raise the limit, or lower items_per_page or "
        f"min_items"
    )
    BufferPools(limit + 1, specs)


@every_order
async def test_a_request_that_can_never_be_served_fails_at_once(rules: dict[str, Any]) -> None:
    async with Scene(BufferPools, 16 * KIB, PAGE_OF_16K, **rules) as scene:
        scene.pools.resize(16 * KIB - 1)
        await scene.settle()
        getter = await scene.get("impossible", 2048)
        assert isinstance(getter.error, ImpossibleRequest)
        assert re.search(
            "2048'? can never be served: it takes 16384 bytes, and the limit is 16383 bytes; "
            "raise the limit, or ask for less",
            str(getter.error),
        )
        with pytest.raises(ImpossibleRequest):  # WouldBlock would say: wait
            scene.pools.get_nowait(2048)
        scene.check()
        assert (scene.of("2048").waiting, scene.of("2048").nwait) == (0, 0)


@every_order
async def test_a_get_from_a_pool_whose_maximum_is_zero_fails_at_once(rules: dict[str, Any]) -> None:
    async with Scene(BufferPools, 16 * KIB, PAGE_OF_16K, **rules) as scene:
        scene.pools.pools["2048"].set_hard_limit(1)
        with scene.pools.get_nowait(1):
            sleeper = await scene.get("sleeper", 1)
        await sleeper.ended.wait()
        sleeper.release()
        scene.pools.pools["2048"].set_hard_limit(0)
        getter = await scene.get("impossible", 1)
        assert isinstance(getter.error, ImpossibleRequest)
        assert str(getter.error) == (
            "1 items of pool '2048' can never be had at once: at most 0 may be out; ask for "
            "fewer, or raise the pool's maximum"
        )
        scene.check()


async def test_queued_requests_fail_when_a_new_limit_makes_them_impossible() -> None:
    specs = [one_item_a_page(), one_item_a_page(8 * KIB)]
    async with Scene(BufferPools, 8 * KIB, specs) as scene:
        await scene.get("holder", 4 * KIB)
        sleepers = [await scene.get(name, 8 * KIB) for name in ("large", "large too")]
        small = [await scene.get(name, 4 * KIB) for name in ("small", "small too")]
        assert [getter.has_ended() for getter in small] == [True, False]
        scene.pools.resize(8 * KIB - 1)
        scene.check()
        assert scene.of("8192").waiting == 0
        for sleeper in sleepers:
            await sleeper.ended.wait()
            assert isinstance(sleeper.error, ImpossibleRequest)
        assert scene.waiting() == ["small too"], "what is possible still waits"
        scene.getters["holder"].release()
        assert scene.granted == ["holder", "small", "small too"]


@on_asyncio
@every_order
async def test_those_who_fail_are_woken_in_the_order_of_their_arrival(
    rules: dict[str, Any],
) -> None:
    """Else two runs of one program would differ on asyncio, too, and no schedule could be
    replayed."""
    specs = [one_item_a_page(64 * KIB - 64 * n) for n in range(8)] + [one_item_a_page(8 * KIB)]
    async with Scene(BufferPools, 64 * KIB, specs, **rules) as scene:
        await scene.get("holder", 8 * KIB)
        woken: list[int] = []

        async def get(n: int) -> None:
            try:
                await scene.pools.get(64 * KIB - 64 * n)
            except ImpossibleRequest:
                woken.append(n)

        arrivals = [5, 2, 7, 0, 3, 6, 1, 4]
        async with anyio.create_task_group() as group:
            for n in arrivals:
                group.start_soon(get, n)
            await until(lambda: scene.pools.statistics().waiting == 8)
            scene.pools.resize(60 * KIB)
        assert woken == arrivals


@every_order
async def test_a_request_fails_that_fits_the_limit_but_not_beside_the_minimum_of_another(
    rules: dict[str, Any],
) -> None:
    specs = [one_item_a_page(min_items=2), one_item_a_page(8 * KIB)]
    async with Scene(BufferPools, 16 * KIB, specs, **rules) as scene:
        scene.pools.resize(16 * KIB - 1)
        await scene.settle()
        with pytest.raises(ImpossibleRequest, match="of which the pools keep 8192"):
            scene.pools.get_nowait(8 * KIB)
        with scene.pools.get_nowait(4 * KIB):
            scene.check()


# The minimum


async def test_the_minimum_is_there_from_the_entry_on() -> None:
    specs = [one_item_a_page(min_items=3), one_item_a_page(8 * KIB)]
    async with Scene(BufferPools, 20 * KIB, specs) as scene:
        scene.check()
        assert scene.of("4096").npages == 3
        assert scene.pools.budget.allocated == 12 * KIB
        with scene.pools.get_nowait(8 * KIB):
            with pytest.raises(anyio.WouldBlock):
                scene.pools.get_nowait(8 * KIB)
            buffers = [scene.pools.get_nowait(4 * KIB) for _ in range(3)]
            scene.check()
            for buffer in buffers:
                buffer.release()


@pytest.mark.parametrize("max_idle_items", [0, 1, 8])
async def test_the_minimum_is_kept_whatever_lets_pages_go(max_idle_items: int) -> None:
    """By a put, by the gc, by reclaim; and no limit can be set that is below it."""
    spec = one_item_a_page(min_items=10, max_idle_items=max_idle_items)
    async with Scene(BufferPools, 20 * 4 * KIB, [spec]) as scene:
        pool = scene.pools.pools["4096"]
        for turn in range(20):
            with pool.get_nowait():
                await anyio.sleep(1.5)
            scene.check()
            assert pool.statistics().npages == 10, f"after {turn + 1} puts"
        pool.prime(3)
        assert pool.reclaim() == 3
        assert pool.statistics().npages == 10
        await anyio.sleep(60)
        assert pool.statistics().npages == 10
        with pytest.raises(ConfigurationError, match="the pools keep 40960 as their minimum"):
            scene.pools.resize(10 * 4 * KIB - 1)
        assert scene.pools.budget.limit == 20 * 4 * KIB
        scene.pools.resize(10 * 4 * KIB)


async def test_an_item_of_the_minimum_is_served_at_once_after_a_pause() -> None:
    """What a minimum is for: the others have taken all that they could meanwhile."""
    specs = [one_item_a_page(min_items=10, max_idle_items=0), one_item_a_page(8 * KIB)]
    async with Scene(BufferPools, 12 * 4 * KIB, specs) as scene:
        await anyio.sleep(2)
        for _ in range(10):
            scene.pools.get_nowait(4 * KIB).release()
        others = [scene.try_get(f"other {n}", "8192") for n in range(10)]
        assert others == [True] + [False] * 9
        for n in range(10):
            assert scene.try_get(f"reserved {n}", "4096"), f"item {n} of the minimum"
            scene.check()


# The set as a whole


async def test_statistics_are_those_of_the_budget_the_queue_and_every_pool() -> None:
    async with Scene(BufferPools, 20 * KIB, [one_item_a_page(), one_item_a_page(8 * KIB)]) as scene:
        await scene.get("holder", 8 * KIB)
        await scene.get("other holder", 4 * KIB)
        for name in "ab":
            await scene.get(name, 8 * KIB)
        statistics = scene.pools.statistics()
        budget = scene.pools.budget
        assert list(statistics.pools) == ["4096", "8192"]
        assert statistics.pools["8192"] == scene.pools.pools["8192"].statistics()
        assert (statistics.limit, statistics.allocated, statistics.drops) == (
            20 * KIB,
            budget.allocated,
            budget.drops,
        )
        assert statistics.taskq == scene.pools.taskq.statistics()
        assert (statistics.waiting, statistics.nout) == (1, 3)


async def test_check_finds_a_byte_that_is_charged_and_in_no_page() -> None:
    async with Scene(BufferPools, 8 * KIB, [one_item_a_page()], name="tested") as scene:
        with scene.pools.get_nowait(1):
            scene.pools.budget.charge(1)
            with pytest.raises(PoolCorruption) as caught:
                scene.pools.check()
            assert str(caught.value) == (
                "tested: 4097 bytes are charged, but the pages take 4096, 0 are in quarantine and "
                "0 are reserved"
            )
            scene.pools.budget.credit(1)


async def test_a_page_whose_memory_is_still_exported_stays_charged_until_it_is_not() -> None:
    memory = ExportedMemory()
    async with Scene(BufferPools, 4 * KIB, [one_item_a_page()], memory=memory) as scene:
        scene.pools.get_nowait(4096).release()
        assert scene.pools.pools["4096"].reclaim() == 1
        scene.check()
        assert scene.of("4096").npages == 0
        assert scene.pools.budget.allocated == 4 * KIB, "so the bound holds"
        sleeper = await scene.get("sleeper", 4096)
        await anyio.sleep(5.5)
        assert scene.waiting() == ["sleeper"]
        memory.parts.clear()
        await sleeper.ended.wait()
        scene.check()
        assert sleeper.served_at == 6.0, "by the next run of the gc"
        memory.parts.clear()


async def test_a_set_that_is_entered_twice_is_refused() -> None:
    async with Scene(BufferPools, 4 * KIB, [one_item_a_page()], name="tested") as scene:
        with pytest.raises(UsageError, match="tested was entered before"):
            await scene.pools.__aenter__()
        scene.check()
        with await scene.pools.get(1):
            pass


async def test_an_entry_that_the_system_refuses_leaves_nothing_behind() -> None:
    class Small(AccountedMemory):
        pages = 2

        def allocate(self, nbytes: int) -> Block:
            if not self.pages:
                raise MemoryError("no page")
            self.pages -= 1
            return super().allocate(nbytes)

    pools = BufferPools("1 MiB", [one_item_a_page(min_items=3)], memory=Small())
    with pytest.raises(MemoryError, match="no page"):
        await pools.__aenter__()
    pools.check()
    assert pools.budget.allocated == 0
    with pytest.raises(anyio.ClosedResourceError):
        await pools.get(1)


async def test_the_repr_names_the_set_and_its_budget() -> None:
    async with Scene(BufferPools, 8 * KIB, [one_item_a_page()], name="tested") as scene:
        with scene.pools.get_nowait(1):
            assert repr(scene.pools) == "<BufferPools 'tested': <Budget 4 KiB of 8 KiB>>"
