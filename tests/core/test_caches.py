"""Per-CPU caches in `MbufPools`: what a put hides, what the gc gives back, and the cures."""

from __future__ import annotations

import asyncio
import gc
import threading
import warnings
from typing import Any

import anyio
import pytest

from mbufpools import (
    AccountedMemory,
    BufferInUse,
    BufferPools,
    CacheStatistics,
    ConfigurationError,
    CpuBuffer,
    DoubleRelease,
    Drain,
    ForeignBuffer,
    MbufPool,
    MbufPools,
    Order,
    PoolCorruption,
    RequestError,
    Task,
    UsageError,
    lab,
)
from mbufpools._cached_pool import CachedSupply
from mbufpools._supply import Supply
from mbufpools.cli._stat import netstat, vmstat
from tests.kit.getters import Scene, on_asyncio

CPUS = 4


def cached(nmbclust: int = 1024, **options: Any) -> MbufPools:
    return MbufPools(nmbclust, memory=AccountedMemory(), caches=CPUS, **options)


def caches_of(pools: MbufPools, pool: str = "mbufpl") -> CacheStatistics:
    caches = pools.statistics().pools[pool].caches
    assert caches is not None
    return caches


def counts(pools: MbufPools, pool: str = "mbufpl") -> tuple[int, int, int]:
    """The counters of the kernel, which know nothing of its caches."""
    it = pools.statistics().pools[pool]
    return it.nget, it.nput, it.nout


def fill(pools: MbufPools, items: int, *, get: int = 0, put: int = 0, pool: str = "mbufpl") -> None:
    """Get so many items on one CPU, and put them on another."""
    buffers = [pools.pools[pool].get_nowait(cpu=get) for _ in range(items)]
    for buffer in buffers:
        buffer.release(cpu=put)
    pools.check()


# Without caches


def test_pools_have_no_caches_by_default() -> None:
    pools = MbufPools()
    assert pools.caches == 0
    assert pools.mbpool.statistics().caches is None
    assert type(pools.mbpool) is MbufPool
    assert pools.drain_caches() == 0


def test_the_pools_of_an_application_are_not_made_for_caches() -> None:
    pools = BufferPools("1 MiB", [512])
    assert type(pools.pools["512"]._supply) is Supply
    assert not pools.pools["512"]._supply.watched
    assert not isinstance(pools.pools["512"], MbufPool)


async def test_without_caches_a_cpu_may_be_named_and_makes_no_difference() -> None:
    async with MbufPools(8) as pools:
        a = pools.mbpool.get_nowait(cpu=3)
        b = await pools.get(100, cpu=0)
        c = await pools.get(100)
        a.release(cpu=2)
        pools.mbpool.put(b, cpu=1)
        pools.mbpool.put(c, cpu=1)
        assert counts(pools) == (3, 3, 0)
        assert isinstance(a, CpuBuffer)
        with pytest.raises(RequestError, match="cpu is -1; expected the number of a CPU"):
            pools.mbpool.get_nowait(cpu=-1)
        with pytest.raises(TypeError, match="cpu is '1'; expected the number of a CPU"):
            await pools.get(100, cpu="1")  # type: ignore[call-overload]  # the mistake itself


# What is refused


@pytest.mark.parametrize("wrong", [-1, -8])
def test_a_negative_number_of_caches_is_refused(wrong: int) -> None:
    with pytest.raises(ConfigurationError, match=f"caches is {wrong}; expected at least 0 CPUs"):
        MbufPools(caches=wrong)


@pytest.mark.parametrize("wrong", [True, "8", 2.0, None])
def test_caches_that_are_no_number_are_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match=r"caches is .*; expected an integer number of CPUs"):
        MbufPools(caches=wrong)


def test_draining_caches_that_do_not_exist_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="drain is 'depots', but there are no caches; "):
        MbufPools(drain="depots")


@pytest.mark.parametrize("cpu", [CPUS, -1, 1000])
async def test_a_cpu_that_does_not_exist_is_refused_and_nothing_changes(cpu: int) -> None:
    async with cached() as pools:
        with pytest.raises(RequestError, match=f"cpu is {cpu}; "):
            pools.mbpool.get_nowait(cpu=cpu)
        with pytest.raises(RequestError, match=f"cpu is {cpu}; "):
            await pools.get(100, cpu=cpu)
        buffer = pools.mbpool.get_nowait(cpu=0)
        with pytest.raises(RequestError, match=f"cpu is {cpu}; "):
            buffer.release(cpu=cpu)
        with pytest.raises(RequestError, match=f"cpu is {cpu}; "):
            pools.mbpool.put(buffer, cpu=cpu)
        assert not buffer.released
        buffer.release()


async def test_leases_are_guarded_as_without_caches() -> None:
    async with MbufPools(1024, caches=CPUS) as pools:
        buffer = pools.mbpool.get_nowait(cpu=1)
        with pytest.raises(ForeignBuffer):
            pools.m_clpool(2048).put(buffer, cpu=1)
        with pytest.raises(TypeError, match="expected a Buffer"):
            pools.mbpool.put("a buffer", cpu=1)  # type: ignore[arg-type]  # the mistake itself
        kept = buffer.view[:4]
        with pytest.raises(BufferInUse):
            buffer.release(cpu=2)
        kept.release()
        buffer.release(cpu=2)
        with pytest.raises(DoubleRelease):
            buffer.release(cpu=2)
        with pytest.raises(DoubleRelease):
            pools.mbpool.put(buffer, cpu=2)
        assert caches_of(pools).cpus == (0, 0, 1, 0)


def test_a_cached_item_cannot_be_taken_outside_of_the_async_with() -> None:
    with pytest.raises(UsageError, match="is not entered"):
        cached().mbpool.get_nowait(cpu=0)


# Get and put


async def test_a_put_goes_to_the_cache_of_its_cpu_and_a_get_on_that_cpu_finds_it() -> None:
    async with cached() as pools:
        fill(pools, 1, get=0, put=2)
        assert caches_of(pools) == CacheStatistics(8, 0, (0, 0, 1, 0), nget=0, nput=1)
        assert counts(pools) == (1, 0, 1), "the kernel counts the item as out"
        assert pools.statistics().pools["mbufpl"].in_use == 0
        with pools.mbpool.get_nowait(cpu=1):
            assert counts(pools) == (2, 0, 2), "another CPU does not see it"
        with await pools.mbpool.get(cpu=2):
            assert counts(pools) == (2, 0, 2)
            assert caches_of(pools).cpus == (0, 1, 0, 0)
            assert pools.statistics().pools["mbufpl"].in_use == 1


async def test_an_item_comes_back_on_the_cpu_that_took_it_unless_another_is_named() -> None:
    async with cached() as pools:
        with await pools.get(100, cpu=3):
            pass
        with pools.get_nowait(100, cpu=2):
            pass
        with pools.get_nowait(100):
            pass
        pools.mbpool.get_nowait(cpu=1).release()
        assert caches_of(pools).cpus == (1, 1, 1, 1)
        pools.mbpool.put(pools.mbpool.get_nowait(cpu=1), cpu=2)
        assert caches_of(pools).cpus == (1, 0, 2, 1)


async def test_full_lists_go_to_the_depot_and_any_cpu_takes_them_from_there() -> None:
    async with cached() as pools:
        fill(pools, 40, get=0, put=0)
        assert caches_of(pools) == CacheStatistics(8, 24, (16, 0, 0, 0), nget=0, nput=40)
        with pools.mbpool.get_nowait(cpu=3):
            assert caches_of(pools) == CacheStatistics(8, 16, (16, 0, 0, 7), nget=1, nput=40)
            assert pools.statistics().pools["mbufpl"].npages == 3, "no page was needed"
        pools.check()


async def test_a_cached_item_goes_to_a_newcomer_past_those_who_wait_under_barging_alone() -> None:
    """The kernel looks into the cache before it looks at the requests."""
    for order in Order:
        async with Scene(MbufPools, 8, caches=2, order=order) as scene:
            pool = scene.pools.m_clpool(2048)
            pool.get_nowait(cpu=0).release()
            holders = [pool.get_nowait(cpu=1) for _ in range(7)]
            await scene.get("sleeper", "mcl2k", cpu=1)
            assert scene.waiting() == ["sleeper"]
            if order is Order.BARGING:
                pool.get_nowait(cpu=0).release(cpu=0)
            else:
                with pytest.raises(anyio.WouldBlock):
                    pool.get_nowait(cpu=0)
                holders.pop().release()
            scene.check()
            assert scene.granted == ["sleeper"], "the put found a request"
            for holder in holders:
                holder.release()


async def test_while_a_request_waits_a_put_goes_to_the_page_and_to_the_request() -> None:
    async with Scene(MbufPools, 8, caches=2) as scene:
        pool = scene.pools.m_clpool(2048)
        holders = [pool.get_nowait(cpu=0) for _ in range(8)]
        await scene.get("sleeper", "mcl2k", cpu=1)
        holders[0].release(cpu=0)
        scene.check()
        assert scene.granted == ["sleeper"]
        assert caches_of(scene.pools, "mcl2k").items == 0
        for holder in holders[1:]:
            holder.release()


async def test_a_request_that_comes_a_moment_later_does_not_see_the_cached_item() -> None:
    """The stall of the caches: a free item, a sleeper that could have it, and nothing brings them
    together; the next put into the pool does."""
    async with Scene(MbufPools, 8, caches=2) as scene:
        pool = scene.pools.m_clpool(2048)
        holders = [pool.get_nowait(cpu=0) for _ in range(8)]
        holders[0].release(cpu=0)
        await scene.get("sleeper", "mcl2k", cpu=1)
        await anyio.sleep(3600)
        assert scene.waiting() == ["sleeper"]
        assert "1 free item of pool 'mcl2k' is in the caches of CPUs" in str(scene.pools.explain())
        holders[1].release(cpu=1)
        assert scene.granted == ["sleeper"]
        for holder in holders[2:]:
            holder.release()


async def test_an_item_put_from_another_thread_goes_to_the_cache_on_the_loop() -> None:
    async with cached() as pools:
        buffer = pools.mbpool.get_nowait(cpu=1)
        thread = threading.Thread(target=buffer.release, args=(3,))
        thread.start()
        thread.join()
        await anyio.sleep(1)
        assert caches_of(pools).cpus == (0, 0, 0, 1)
        pools.check()


async def test_a_dropped_buffer_is_found_and_its_item_goes_to_the_cache() -> None:
    async with cached() as pools:
        with pytest.warns(ResourceWarning, match="was dropped without a release"):
            pools.mbpool.get_nowait(cpu=2)
        await anyio.sleep(1)
        assert pools.statistics().dropped == 1
        assert caches_of(pools).cpus == (0, 0, 1, 0)
        pools.check()


async def test_items_of_get_many_come_back_on_cpu_0() -> None:
    async with cached() as pools:
        with await pools.get_many([100, 2048]):
            pass
        assert caches_of(pools).cpus == (1, 0, 0, 0)
        assert caches_of(pools, "mcl2k").cpus == (1, 0, 0, 0)


async def test_debug_mode_knows_the_holder_of_a_cached_item_and_finds_a_write_after_release() -> (
    None
):
    async with MbufPools(1024, caches=2, debug=True) as pools:
        fill(pools, 1)
        with await pools.mbpool.get(cpu=0) as buffer:
            tracker = pools._state.tracker
            assert tracker is not None
            assert [holder.pool for holder in tracker.holders()] == ["mbufpl"]
            item = buffer._item
            assert item is not None
        assert tracker.holders() == []
        assert item.page.block.view is not None
        item.page.block.view[0] = 1
        pools.mbpool.get_nowait(cpu=0).release()
        assert "was written to after its release" in tracker.damages[0]


@pytest.mark.parametrize("fast", [True, False])
async def test_a_get_from_a_cache_is_a_checkpoint_unless_the_set_passes_none(fast: bool) -> None:
    async with cached(fast_acquire=fast) as pools:
        fill(pools, 1)
        with anyio.CancelScope() as scope:
            scope.cancel()
            (await pools.mbpool.get(cpu=0)).release()
        assert scope.cancelled_caught is not fast
        assert caches_of(pools).cpus == (1, 0, 0, 0)
        assert caches_of(pools).nget == fast


@on_asyncio
async def test_a_native_cancellation_at_the_checkpoint_of_a_cached_get_gives_the_item_back() -> (
    None
):
    async with cached() as pools:
        fill(pools, 1)
        task = asyncio.create_task(pools.mbpool.get(cpu=0))
        while caches_of(pools).nget == 0:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert caches_of(pools).cpus == (1, 0, 0, 0)
        pools.check()


async def test_a_get_fails_with_the_error_of_a_queued_task_also_if_the_cache_has_an_item() -> None:
    def fails() -> None:
        raise LookupError("planted")

    with pytest.raises(LookupError, match="planted"):
        async with cached() as pools:
            fill(pools, 1)
            pools.taskq.add(Task(fails, name="fails"))
            await anyio.sleep(1)
            with pytest.raises(LookupError, match="planted"):
                pools.mbpool.get_nowait(cpu=0)


async def test_with_draining_a_get_that_a_page_serves_drains_nothing() -> None:
    async with cached(drain="caches") as pools:
        fill(pools, 1, put=1)
        with await pools.mbpool.get(cpu=0):
            assert pools.statistics().drains == 0
            assert caches_of(pools).cpus == (0, 1, 0, 0)


# The gc


async def test_the_gc_gives_one_list_of_a_pool_back_in_nine_seconds() -> None:
    async with cached() as pools:
        fill(pools, 8 * 8)
        await anyio.sleep(0.5)
        depots = []
        for _ in range(30):
            depots.append(caches_of(pools).depot)
            await anyio.sleep(1)
        pools.check()
    assert depots == [48] * 9 + [40] * 9 + [32] * 9 + [24] * 3


async def test_an_item_that_goes_back_in_a_list_is_never_counted_as_put() -> None:
    async with cached() as pools:
        fill(pools, 24)
        await anyio.sleep(9.5)
        assert caches_of(pools).items == 16
        it = pools.statistics().pools["mbufpl"]
        assert (it.nget, it.nput, it.nout, it.in_use) == (24, 0, 24, 0)


async def test_a_pool_with_a_hard_limit_reaches_it_with_no_item_in_use() -> None:
    """Because the kernel's count of items that are out does not fall when a list goes back."""
    async with cached(drain="caches") as pools:
        pools.mbpool.set_hard_limit(20)
        for round_ in range(2):
            fill(pools, 10)
            assert pools.drain_caches() == 10
            assert counts(pools) == (10 * (round_ + 1), 0, 10 * (round_ + 1))
        assert pools.mbpool.statistics().in_use == 0
        with pytest.raises(anyio.WouldBlock):
            pools.mbpool.get_nowait(cpu=0)
        with pytest.raises(ConfigurationError, match="cannot be 19 while 20 items count as out"):
            pools.mbpool.set_hard_limit(19)
        pools.mbpool.set_hard_limit(21)
        pools.mbpool.get_nowait(cpu=0).release()


async def test_the_items_of_a_list_go_back_from_the_one_on_that_was_put_last() -> None:
    async with cached(curpage="stale") as pools:
        pool = pools.m_clpool(2048)
        buffers = [pool.get_nowait(cpu=0) for _ in range(16)]
        pages = [buffer._item.page for buffer in buffers if buffer._item is not None]
        assert pages[0] is not pages[8]
        for buffer in (buffers[0], buffers[8], *buffers[1:8], *buffers[9:]):
            buffer.release()
        assert pools.drain_caches() == 16
        assert list(pool._supply.idle_pages()) == [pages[8], pages[0]]


async def test_a_list_that_goes_back_serves_a_get_many_which_does_not_look_into_the_depot() -> None:
    async with MbufPools(8, memory=AccountedMemory(), caches=2) as pools:
        pool = pools.m_clpool(2048)
        supply = pool._supply
        assert isinstance(supply, CachedSupply)
        supply.depot.list_items = 1
        fill(pools, 4, pool="mcl2k")
        assert caches_of(pools, "mcl2k").depot == 2
        holders = [pool.get_nowait(cpu=1) for _ in range(6)]
        got: list[float] = []

        async def many() -> None:
            with await pools.get_many([2048, 2048]):
                got.append(anyio.current_time())

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(many)
            await anyio.sleep(20)
            assert got == []
            for holder in holders:
                holder.release()
        assert got


@pytest.mark.parametrize(("cpus", "gone"), [(0, [11, 136, 239, 264]), (8, [83, 2316, 4187, None])])
@on_asyncio
async def test_idle_pages_stay_as_long_as_was_measured_on_the_kernels_own_code(
    cpus: int, gone: list[int | None]
) -> None:
    """4,096 mbufs are put by the CPUs in turn, then nothing happens. The seconds until 1, 50, 90
    and 100 per cent of their pages have left; with caches the last ones never do."""
    async with MbufPools(caches=cpus, memory=AccountedMemory()) as pools:
        buffers = [pools.mbpool.get_nowait(cpu=0) for _ in range(4096)]
        for number, buffer in enumerate(buffers):
            buffer.release(cpu=number % max(1, cpus))
        pages = pools.mbpool.statistics().npages
        left: list[int | None] = [None] * 4
        await anyio.sleep(0.5)
        for second in range(5000):
            share = 1 - pools.mbpool.statistics().npages / pages
            for n, wanted in enumerate((0.01, 0.5, 0.9, 1)):
                if left[n] is None and share >= wanted:
                    left[n] = second
            await anyio.sleep(1)
    assert left == gone


async def test_cached_items_keep_their_pages_for_ever() -> None:
    async with cached() as pools:
        fill(pools, 16)
        await anyio.sleep(3600)
        assert pools.mbpool.reclaim() == 0
        assert pools.statistics().pools["mbufpl"].npages == 1
        assert pools.drain_caches() == 16
        assert pools.mbpool.reclaim() == 1


# The cures


SERVED_BY = {Drain.NEVER: (-1.0, 0), Drain.DEPOTS: (-1.0, 0), Drain.CACHES: (0.0, 2)}
"""When a get is served whose one item is in the list of the other CPU (-1 is: not), and the
CPUs that were visited."""


@pytest.mark.parametrize("drain", list(Drain))
async def test_a_get_that_would_sleep_drains_what_the_rule_says_and_tries_again(
    drain: Drain,
) -> None:
    served, visits = SERVED_BY[drain]
    async with Scene(MbufPools, 8, caches=2, drain=drain) as scene:
        pool = scene.pools.m_clpool(2048)
        holders = [pool.get_nowait(cpu=0) for _ in range(8)]
        holders[0].release(cpu=0)
        sleeper = await scene.get("sleeper", "mcl2k", cpu=1)
        assert sleeper.served_at == served
        statistics = scene.pools.statistics()
        assert (statistics.drains, statistics.cpu_visits) == (drain is not Drain.NEVER, visits)
        holders[1].release(cpu=0)
        await sleeper.ended.wait()
        for holder in holders[2:]:
            holder.release()


@pytest.mark.parametrize(("drain", "items"), [("depots", 40 - 16), ("caches", 40)])
async def test_drained_items_are_those_of_the_depots_or_of_the_cpus_too(
    drain: str, items: int
) -> None:
    async with cached(8, drain=drain) as pools:
        pools.nmbclust_update(1024)
        fill(pools, 40)
        assert pools.drain_caches(cpus=drain == "caches") == items
        pools.check()
        assert caches_of(pools).items == 40 - items


async def test_the_gc_drains_while_a_request_waits_in_any_pool() -> None:
    """A 64k cluster wants 512 KiB. What the caches hold keeps its pages."""
    async with cached(256, drain="caches", reclaim="pressure") as pools:
        buffers = [pools.mbpool.get_nowait(cpu=0) for _ in range(100)]
        got: list[float] = []

        async def sleeper() -> None:
            with await pools.get(65536, cpu=1):
                got.append(anyio.current_time())

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(sleeper)
            await anyio.sleep(4.5)
            for buffer in buffers:
                buffer.release()
        assert got == [5.0]
        assert pools.statistics().drains == 1 + 5
        assert pools.statistics().cpu_visits == (1 + 5) * CPUS


async def test_as_it_is_no_page_leaves_under_caches_and_the_patch_has_nothing_to_wake_for() -> None:
    """The 64k cluster of the test before, in the kernel as it is, with the patch."""
    async with Scene(MbufPools, 256, caches=CPUS, wakeup="deferred") as scene:
        pools = scene.pools
        buffers = [pools.mbpool.get_nowait(cpu=0) for _ in range(15)]
        await scene.get("sleeper", 65536, cpu=1)
        for buffer in buffers:
            buffer.release()
        await anyio.sleep(3600)
        assert scene.waiting() == ["sleeper"]
        assert pools.statistics().wakeup_runs == 0
        pools.drain_caches()
        await anyio.sleep(9.5)
        assert scene.granted == ["sleeper"]


async def test_reclaim_under_pressure_takes_the_page_that_the_last_list_makes_idle() -> None:
    """Three lists with an item each go back at 9, 18 and 27 s. They are of one page, and with it
    the whole budget is there."""
    async with Scene(MbufPools, 256, caches=2, reclaim="pressure") as scene:
        supply = scene.pools.mbpool._supply
        assert isinstance(supply, CachedSupply)
        supply.depot.list_items = 1
        fill(scene.pools, 3)
        for items in supply.cpus[0].empty():
            supply.depot.add(items, 0)
        assert caches_of(scene.pools).depot == 3
        sleeper = await scene.get("sleeper", 65536, cpu=1)
        await sleeper.ended.wait()
        assert sleeper.served_at == 27.0


# What others show of it


async def test_the_kernels_tools_count_what_callers_hold_and_all_their_gets() -> None:
    async with cached() as pools:
        fill(pools, 20)
        with pools.mbpool.get_nowait(cpu=0):
            statistics = pools.statistics()
            assert next(netstat(statistics)) == "1 mbuf in use"
            row = next(line for line in vmstat(statistics) if line.startswith("mbufpl"))
            assert row.split()[:5] == ["mbufpl", "256", "21", "0", "1"]
            assert repr(pools.mbpool) == (
                "<Pool 'mbufpl': 1 of 256 bytes out, 19 in the caches of 4 CPUs, 2 pages, "
                "0 waiting>"
            )


def test_a_stall_in_the_lab_says_how_many_items_are_in_caches() -> None:
    async def program() -> None:
        async with cached(8) as pools:
            fill(pools, 8, pool="mcl2k")
            await pools.get(2048, cpu=1)

    found = lab.explore(program, max_executions=1)
    report = found.failures[0].report
    assert "0 items out, 0 free, 8 in caches" in report


# The end


async def test_cached_items_are_no_leak_at_the_close_and_their_pages_go_back() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        async with cached() as pools:
            fill(pools, 40)
            held = pools.mbpool.get_nowait(cpu=3)
            late = pools.mbpool.get_nowait(cpu=3)
            held.release()
            late.release()
    assert pools.budget.allocated == 0


async def test_a_buffer_that_is_out_at_the_close_is_the_only_leak() -> None:
    pools = cached()
    await pools.__aenter__()
    fill(pools, 40)
    buffer = pools.mbpool.get_nowait(cpu=3)
    with pytest.warns(ResourceWarning, match=r"out: 1 of pool 'mbufpl';"):
        await pools.aclose()
    assert pools.budget.allocated == 4096
    buffer.release(cpu=1)
    assert pools.budget.allocated == 0


async def test_a_set_that_is_never_left_does_not_report_its_cached_items_as_dropped() -> None:
    pools: MbufPools | None = cached()
    assert pools is not None
    await pools.__aenter__()
    fill(pools, 40)
    await pools.taskq.__aexit__(None, None, None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pools = None
        gc.collect()
        await anyio.sleep(1)


async def test_check_finds_an_item_that_is_cached_twice_or_not_out() -> None:
    async with cached() as pools:
        fill(pools, 2)
        supply = pools.mbpool._supply
        assert isinstance(supply, CachedSupply)
        active = supply.cpus[0].active
        active.append(active[0])
        with pytest.raises(PoolCorruption, match="has an item in two lists of its caches"):
            pools.check()
        active.pop()
        active[0].index = ~active[0].index
        with pytest.raises(PoolCorruption, match="has an item in its caches that is not out"):
            pools.check()
        active[0].index = ~active[0].index
        supply.depot.nitems = 3
        with pytest.raises(PoolCorruption, match="does not count the items of its depot"):
            pools.check()
        supply.depot.nitems = 0
