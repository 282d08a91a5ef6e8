"""One pool: get, put, those who wait, and when pages come and go."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from typing import Any, cast

import anyio
import pytest

from mbufpools import (
    AccountedMemory,
    Block,
    Buffer,
    BufferPools,
    ConfigurationError,
    Event,
    EventKind,
    ForeignBuffer,
    ImpossibleRequest,
    MbufPools,
    Order,
    PoolCorruption,
    PoolSpec,
    Task,
    UsageError,
    lab,
)
from tests.kit.getters import Scene, one_item_a_page, until


class Refusing(AccountedMemory):
    """A system that refuses the pages whose numbers, counted from 1, are listed."""

    def __init__(self, *refused: int) -> None:
        self.asked = 0
        self.refused = refused

    def allocate(self, nbytes: int) -> Block:
        self.asked += 1
        if self.asked in self.refused:
            raise MemoryError("no page")
        return super().allocate(nbytes)


class CallsBack(AccountedMemory):
    """A memory that calls a function before it gives a page."""

    def __init__(self) -> None:
        self.call: Callable[[], object] = lambda: None
        self.depth = 0
        self.deepest = 0

    def allocate(self, nbytes: int) -> Block:
        self.depth += 1
        self.deepest = max(self.deepest, self.depth)
        assert self.depth < 10, "endless recursion"
        self.call()
        self.depth -= 1
        return super().allocate(nbytes)


# Who is served


async def test_waiters_are_served_in_the_order_of_their_arrival() -> None:
    async with Scene(BufferPools, 4096, [one_item_a_page()]) as scene:
        served = [await scene.get("holder", 4096)]
        for name in ("first", "second", "third"):
            await scene.get(name, 4096)
            scene.check()
        assert scene.waiting() == ["first", "second", "third"]
        for name in ("first", "second", "third"):
            served[-1].release()
            scene.check()
            assert scene.granted[-1] == name
            served.append(scene.getters[name])
            await served[-1].ended.wait()
        assert scene.granted == ["holder", "first", "second", "third"]
        assert scene.of("4096").nwait == 3


async def test_a_page_that_comes_serves_as_many_waiters_as_it_has_items_and_no_more() -> None:
    async with Scene(
        BufferPools, 8192, [PoolSpec(4096, items_per_page=2), one_item_a_page(8192)]
    ) as scene:
        holder = await scene.get("holder", "8192")
        for name in "abc":
            await scene.get(name, "4096")
        holder.release()
        holder.lease.pool.reclaim()
        await scene.settle()
        scene.check()
        assert scene.granted == ["holder", "a", "b"]
        assert scene.of("4096").waiting == 1


async def test_a_newcomer_takes_what_lies_there_before_those_who_wait() -> None:
    """Barging, the kernel's rule: a get tries before it looks at the queue. A raised hard limit
    wakes nobody in the kernel, so here an item is free while somebody waits."""
    async with Scene(MbufPools, 100) as scene:
        pool = scene.pools.mbpool
        pool.set_hard_limit(1)
        await scene.get("holder", "mbufpl")
        await scene.get("sleeper", "mbufpl")
        pool.set_hard_limit(2)
        assert scene.waiting() == ["sleeper"]
        await scene.get("newcomer", "mbufpl")
        scene.check()
        assert scene.granted == ["holder", "newcomer"]
        assert scene.waiting() == ["sleeper"]
        scene.getters["holder"].release()
        assert scene.granted == ["holder", "newcomer", "sleeper"]


async def test_a_newcomer_may_take_a_page_before_the_deferred_wakeup_runs() -> None:
    async with Scene(BufferPools, 4096, [one_item_a_page(), one_item_a_page(2048 + 64)]) as scene:
        small, large = (scene.pools.pools[name] for name in ("2112", "4096"))
        holder = await scene.get("holder", "2112")
        await scene.get("sleeper", "4096")
        holder.release()
        assert small.reclaim() == 1
        assert scene.pools.taskq.statistics().queued == 1
        with small.get_nowait():
            await scene.settle()
            scene.check()
            assert scene.waiting() == ["sleeper"], "the wakeup came too late for it"
        assert small.reclaim() == 1
        await scene.settle()
        assert scene.granted == ["holder", "sleeper"]
        assert large.statistics().nout == 1


async def test_what_comes_home_between_the_first_try_and_the_append_is_found_by_the_second() -> (
    None
):
    """The lost-wakeup window: an item that came back after the first try, before the request
    stood in the queue, wakes nobody. So the queue is run once more before the task sleeps."""
    async with Scene(BufferPools, 4096, [one_item_a_page()]) as scene:
        pool = scene.pools.pools["4096"]
        buffer = pool.get_nowait()
        with pytest.warns(ResourceWarning, match="dropped without a release"):
            del buffer  # it is deferred now, and the loop would take it back later
        assert pool.statistics().nout == 1
        with await scene.pools.get(4096):
            scene.check()
            statistics = pool.statistics()
            assert (statistics.nout, statistics.nget, statistics.nput) == (1, 2, 1)
            assert scene.pools.budget.drops == 1, "the first try was refused"
            assert EventKind.WAIT not in [event.kind for event in scene.events]
            assert scene.told(EventKind.GET) == ["4096", "4096"]


async def test_requests_beyond_the_budget_wait_and_count_two_drops_each() -> None:
    async with Scene(BufferPools, 3 * 4096, [one_item_a_page()]) as scene:
        for n in range(3):
            await scene.get(f"holder {n}", 4096)
        assert scene.pools.budget.drops == 0
        for n in range(4):
            await scene.get(f"sleeper {n}", 4096)
            scene.check()
            assert scene.pools.budget.drops == 2 * (n + 1)
        assert scene.pools.budget.allocated == 3 * 4096
        assert scene.of("4096").waiting == 4


async def test_a_get_that_waits_at_the_hard_limit_counts_no_drop() -> None:
    async with Scene(BufferPools, 10 * 4096, [one_item_a_page(max_items=1)]) as scene:
        await scene.get("holder", 4096)
        await scene.get("sleeper", 4096)
        assert scene.waiting() == ["sleeper"]
        assert scene.pools.budget.drops == 0


async def test_get_nowait_counts_its_failures_and_a_waiting_get_does_not() -> None:
    async with Scene(BufferPools, 4096, [one_item_a_page()]) as scene:
        pool = scene.pools.pools["4096"]
        with pool.get_nowait():
            for failures in (1, 2):
                with pytest.raises(anyio.WouldBlock, match="pool '4096' has no buffer to give"):
                    pool.get_nowait()
                scene.check()
                assert pool.statistics().nfail == failures
            await scene.get("sleeper", 4096)
            statistics = pool.statistics()
            assert (statistics.nfail, statistics.nwait, statistics.nget) == (2, 1, 1)
            assert scene.pools.budget.drops == 4


async def test_each_get_makes_a_fresh_buffer_of_the_size_of_the_item() -> None:
    async with Scene(BufferPools, "64 KiB", [1000]) as scene:
        pool = scene.pools.pools["1000"]
        with await pool.get() as first:
            assert (first.nbytes, len(first.view), first.pool) == (1000, 1000, pool)
        with pool.get_nowait() as second:
            assert second is not first
            assert first.released
            assert not second.released


async def test_put_is_the_same_as_release_and_refuses_the_buffer_of_another_pool() -> None:
    async with Scene(BufferPools, "64 KiB", [100, 200]) as scene:
        small, large = scene.pools.pools.values()
        buffer = small.get_nowait()
        with pytest.raises(ForeignBuffer, match="of pool '100' cannot be put into pool '200'"):
            large.put(buffer)
        scene.check()
        assert small.statistics().nout == 1
        small.put(buffer)
        assert buffer.released
        assert small.statistics().nout == 0


# Waking


async def test_wakeup_serves_what_it_can_and_nobody_else_is_woken() -> None:
    async with Scene(MbufPools, 100) as scene:
        pool = scene.pools.mbpool
        pool.set_hard_limit(1)
        await scene.get("holder", "mbufpl")
        for name in "abc":
            await scene.get(name, "mbufpl")
        pool.wakeup()
        assert scene.granted == ["holder"]
        pool.set_hard_limit(3)
        pool.wakeup()
        scene.check()
        assert scene.granted == ["holder", "a", "b"]
        assert [scene.getters[name].has_ended() for name in "abc"] == [False, False, False]
        assert scene.waiting() == ["c"]


async def test_wakeup_without_waiters_asks_the_budget_for_nothing() -> None:
    async with Scene(BufferPools, 4096, [one_item_a_page()]) as scene:
        scene.pools.pools["4096"].wakeup()
        assert scene.pools.budget.allocated == 0


async def test_a_wakeup_from_within_a_wakeup_only_asks_for_another_round() -> None:
    """Not re-entrant, as pool_runqueue: else the request that is being served would be served
    again from within."""
    memory = CallsBack()
    async with Scene(MbufPools, 1, memory=memory) as scene:
        pool = scene.pools.mbpool
        for name in "abc":
            await scene.get(name, "mbufpl")
        memory.call = pool.wakeup
        scene.pools.nmbclust_update(2)
        await scene.settle()
        scene.check()
        assert scene.granted == ["a", "b", "c"]
        assert memory.deepest == 1
        assert scene.of("mbufpl").nget == 3


async def test_another_round_finds_what_came_during_the_first() -> None:
    """Whoever waits for mbufs was looked at and found at the hard limit; then, while a cluster is
    got for somebody else, that limit is raised. The call from within asked for another round."""
    memory = CallsBack()
    async with Scene(MbufPools, 1, memory=memory) as scene:
        pool = scene.pools.mbpool
        pool.set_hard_limit(0)
        await scene.get("mbuf", "mbufpl")
        await scene.get("cluster", "mcl2k")

        def raise_the_limit() -> None:
            pool.set_hard_limit(None)
            pool.wakeup()

        memory.call = raise_the_limit
        scene.pools.nmbclust_update(100)
        await scene.settle()
        scene.check()
        assert scene.granted == ["cluster", "mbuf"]


class Breaks(CallsBack):
    """A memory that raises what its protocol does not name."""

    def breaks(self) -> None:
        self.depth = 0
        raise RuntimeError("the memory is broken")


async def test_a_memory_that_breaks_while_a_sleeper_is_served_does_not_break_the_pool() -> None:
    memory = Breaks()
    async with Scene(MbufPools, 1, wakeup="none", memory=memory) as scene:
        await scene.get("sleeper", "mbufpl")
        memory.call = memory.breaks
        with pytest.raises(RuntimeError, match="the memory is broken"):
            scene.pools.nmbclust_update(2)
        scene.check()
        assert scene.pools.budget.allocated == 0, "the charge was taken back"
        memory.call = lambda: None
        scene.pools.mbpool.wakeup()
        assert scene.granted == ["sleeper"]


@pytest.mark.parametrize("waiting", [True, False])
async def test_a_memory_that_breaks_in_the_second_try_leaves_no_request_behind(
    waiting: bool,
) -> None:
    """The first try finds no budget, and the second, which lets an idle page of another pool go,
    a broken memory."""
    memory = Breaks()
    specs = [one_item_a_page(), one_item_a_page(8192)]
    async with Scene(BufferPools, 8192, specs, memory=memory, reclaim="pressure") as scene:
        scene.pools.get_nowait(8192).release()
        memory.call = memory.breaks
        if waiting:
            assert isinstance((await scene.get("unlucky", 4096)).error, RuntimeError)
        else:
            with pytest.raises(RuntimeError, match="the memory is broken"):
                scene.pools.get_nowait(4096)
        memory.call = lambda: None
        scene.check()
        assert scene.of("4096").waiting == 0
        assert scene.pools.budget.allocated == 0
        assert (await scene.get("lucky", 4096)).holds()


async def test_a_page_that_the_system_refuses_is_a_memory_error_and_not_charged() -> None:
    async with Scene(BufferPools, "64 KiB", [4096], memory=Refusing(1, 3)) as scene:
        getter = await scene.get("unlucky", 4096)
        assert isinstance(getter.error, MemoryError)
        scene.check()
        assert scene.pools.budget.allocated == 0
        assert scene.of("4096").nget == 0
        getter = await scene.get("lucky", 4096)
        assert getter.holds()
        pool = scene.pools.pools["4096"]
        rest = [pool.get_nowait() for _ in range(7)]
        with pytest.raises(MemoryError):
            pool.get_nowait()
        scene.check()
        assert pool.statistics().nfail == 0, "a failure is one of the budget's"
        for buffer in rest:
            buffer.release()


async def test_a_sleeper_whose_page_the_system_refuses_gets_the_error_and_the_next_is_tried() -> (
    None
):
    async with Scene(
        BufferPools,
        2 * 4096,
        [one_item_a_page(), PoolSpec(2048, items_per_page=4)],
        memory=Refusing(2),
    ) as scene:
        holder = await scene.get("holder", "2048")  # a page of 8192: the whole budget
        for name in "abc":
            await scene.get(name, "4096")
        holder.release()
        assert holder.lease.pool.reclaim() == 1
        await scene.settle()
        scene.check()
        for name in "abc":
            await scene.getters[name].ended.wait()
        assert isinstance(scene.getters["a"].error, MemoryError)
        assert scene.granted == ["holder", "b", "c"]


async def test_an_error_that_somebody_keeps_does_not_keep_the_buffers_of_others() -> None:
    """Its traceback led to those who were looked at when it was made, and to what they hold."""
    sizes = [4096 - 64 * n for n in range(8)]
    specs = [one_item_a_page(size) for size in sizes]
    async with Scene(BufferPools, 16384, [*specs, one_item_a_page(16384)]) as scene:
        for n in range(4):
            await scene.get(f"holder {n}", "4096")
        impossible = await scene.get("impossible", "16384")
        sleepers = [await scene.get(str(size), size) for size in sizes]
        scene.pools.resize(16383)
        await impossible.ended.wait()
        scene.pools.resize("1 MiB")
        assert isinstance(impossible.error, ImpossibleRequest)
        for sleeper in sleepers:
            await sleeper.ended.wait()
            with pytest.warns(ResourceWarning, match="dropped without a release"):
                sleeper.lease = None
        await until(lambda: scene.pools.statistics().nout == 4)


class RefusingWithCause(AccountedMemory):
    """A system that refuses one page, and says why."""

    refuses = True

    def allocate(self, nbytes: int) -> Block:
        if self.refuses:
            self.refuses = False
            try:
                raise OSError(12, "why")
            except OSError as error:
                raise MemoryError("no page") from error
        return super().allocate(nbytes)


@pytest.mark.parametrize("order", list(Order))
async def test_an_error_of_the_system_that_somebody_keeps_does_not_keep_the_buffers_of_others(
    order: Order,
) -> None:
    """Nor does it keep, or change, what the one who released was handling."""
    memory = RefusingWithCause()
    memory.refuses = False
    specs = [one_item_a_page(), one_item_a_page(8192)]
    async with Scene(
        BufferPools, 8192, specs, memory=memory, order=order, wakeup="direct"
    ) as scene:
        holder = await scene.get("holder", 8192)
        sleepers = [await scene.get(name, 4096) for name in "abc"]
        memory.refuses = True
        handled = LookupError("of the one who releases")
        try:
            raise handled
        except LookupError:
            holder.release()
            holder.lease.pool.reclaim()
        assert handled.__traceback__ is not None
        for sleeper in sleepers:
            await sleeper.ended.wait()
        error = sleepers[0].error
        assert isinstance(error, MemoryError)
        assert str(error.__cause__) == "[Errno 12] why"
        assert error.__context__ is None
        for sleeper in sleepers[1:]:
            with pytest.warns(ResourceWarning, match="dropped without a release"):
                sleeper.lease = None
        await until(lambda: scene.pools.statistics().nout == 0)


async def test_errors_of_several_sleepers_are_not_one_object() -> None:
    """Each task adds its own traceback to what it raises."""
    async with Scene(BufferPools, 4096, [one_item_a_page()]) as scene:
        await scene.get("holder", 4096)
        sleepers = [await scene.get(name, 4096) for name in "ab"]
        scene.pools.resize(4095)
        errors = []
        for sleeper in sleepers:
            await sleeper.ended.wait()
            assert isinstance(sleeper.error, ImpossibleRequest)
            errors.append(sleeper.error)
        assert errors[0] is not errors[1]


# Pages that leave by a put


async def leave_idle(scene: Scene[Any], pool: str, pages: int, apart: float = 0.1) -> None:
    """Leave that many pages of one item idle, each `apart` seconds after the one before."""
    buffers = [scene.pools.pools[pool].get_nowait() for _ in range(pages)]
    for buffer in buffers:
        buffer.release()
        scene.check()
        await anyio.sleep(apart)


@pytest.mark.parametrize(
    ("seconds", "leaves"),
    [(0.999_999, False), (1.0, False), (1.000_001, True), (2.0, True)],
)
async def test_a_put_lets_the_oldest_idle_page_go_after_more_than_a_second(
    seconds: float, leaves: bool
) -> None:
    async with Scene(BufferPools, "1 MiB", [one_item_a_page(max_idle_items=2)]) as scene:
        pool = scene.pools.pools["4096"]
        last = pool.get_nowait()
        await leave_idle(scene, "4096", 2, apart=0)
        await anyio.sleep(seconds)
        last.release()
        scene.check()
        statistics = pool.statistics()
        assert statistics.npagefree == int(leaves)
        assert statistics.nidle == (2 if leaves else 3)


async def test_a_second_is_exact_where_floats_would_make_it_longer() -> None:
    """2.2 - 1.2 > 1 in floats."""
    async with Scene(BufferPools, "1 MiB", [one_item_a_page(max_idle_items=0)]) as scene:
        pool = scene.pools.pools["4096"]
        first, second = pool.get_nowait(), pool.get_nowait()
        await anyio.sleep_until(1.2)
        first.release()
        await anyio.sleep_until(2.2)
        second.release()
        assert pool.statistics().npagefree == 0


async def test_a_put_lets_nothing_go_up_to_the_high_water() -> None:
    async with Scene(BufferPools, "1 MiB", [one_item_a_page(max_idle_items=2)]) as scene:
        pool = scene.pools.pools["4096"]
        last = pool.get_nowait()
        await leave_idle(scene, "4096", 1)
        await anyio.sleep(5)
        last.release()
        assert pool.statistics().nidle == 2
        assert pool.statistics().npagefree == 0


async def test_a_put_lets_one_page_go_and_that_is_the_oldest() -> None:
    async with Scene(BufferPools, "1 MiB", [one_item_a_page(max_idle_items=1)]) as scene:
        pool = scene.pools.pools["4096"]
        last = pool.get_nowait()
        await leave_idle(scene, "4096", 3, apart=0.5)
        oldest, *others = (page.empty_since for page in pool._supply.idle_pages())
        assert [oldest, *others] == [0, 500_000, 1_000_000]
        await anyio.sleep_until(5)
        last.release()
        scene.check()
        assert pool.statistics().npagefree == 1
        assert [page.empty_since for page in pool._supply.idle_pages()] == [*others, 5_000_000]


async def test_the_high_water_is_in_items_and_rounded_up_to_pages() -> None:
    async with Scene(BufferPools, "1 MiB", [1024]) as scene:
        pool = scene.pools.pools["1024"]
        assert pool.statistics().max_idle_pages == 8
        for items, pages in ((0, 0), (1, 1), (8, 1), (9, 2), (16, 2)):
            pool.set_high_water(items)
            assert pool.statistics().max_idle_pages == pages
        with pytest.raises(ConfigurationError, match="max_idle_items of pool '1024' is -1"):
            pool.set_high_water(-1)
        assert pool.statistics().max_idle_pages == 2


# Pages that leave by the gc


@pytest.mark.parametrize(
    ("idle_since", "leaves_at"),
    [(0.0, 9.0), (0.5, 9.0), (0.999_999, 9.0), (1.0, 10.0), (1.000_001, 10.0), (3.5, 12.0)],
)
async def test_the_gc_lets_a_page_go_after_more_than_eight_seconds(
    idle_since: float, leaves_at: float
) -> None:
    """It runs at every full second."""
    async with Scene(BufferPools, "1 MiB", [one_item_a_page()]) as scene:
        pool = scene.pools.pools["4096"]
        with pool.get_nowait():
            await anyio.sleep_until(idle_since)
        await anyio.sleep_until(leaves_at - 0.001)
        assert pool.statistics().npages == 1
        await anyio.sleep_until(leaves_at)
        await scene.settle()
        scene.check()
        assert pool.statistics().npages == 0
        (event,) = [event for event in scene.events if event.kind is EventKind.PAGE_OUT]
        assert event.time == leaves_at


async def test_the_gc_takes_one_page_of_a_pool_a_run_and_the_newest_pool_first() -> None:
    async with Scene(
        BufferPools, "1 MiB", [one_item_a_page(size) for size in (4096, 8192)]
    ) as scene:
        for pool in ("4096", "8192"):
            await leave_idle(scene, pool, 3, apart=0)
        await anyio.sleep_until(20)
        left = [
            (event.time, event.name) for event in scene.events if event.kind is EventKind.PAGE_OUT
        ]
        assert left == [(at, pool) for at in (9.0, 10.0, 11.0) for pool in ("8192", "4096")]
        assert scene.pools.budget.allocated == 0


async def test_the_gc_runs_every_second_and_wakes_once_a_run() -> None:
    async with Scene(
        BufferPools, "1 MiB", [one_item_a_page(size) for size in (4096, 8192)]
    ) as scene:
        for pool in ("4096", "8192"):
            await leave_idle(scene, pool, 3, apart=0)
        await anyio.sleep_until(20.5)
        assert scene.told(EventKind.RUN).count("gc") == 20
        assert scene.pools.statistics().wakeup_runs == 3, "two pages left in each of three runs"
        runs = scene.told(EventKind.RUN)
        assert runs[8:14] == ["gc", "wakeup"] * 3


async def test_the_gc_leaves_the_pages_of_the_low_water() -> None:
    async with Scene(BufferPools, "1 MiB", [one_item_a_page()]) as scene:
        pool = scene.pools.pools["4096"]
        assert pool.set_low_water(2)
        assert pool.prime(3) == 3
        await anyio.sleep_until(60)
        scene.check()
        assert pool.statistics().npages == 2


# Reclaim


async def test_reclaim_lets_every_idle_page_go_the_oldest_first() -> None:
    order: list[int] = []

    class Numbered:
        view = None

        def __init__(self, number: int) -> None:
            self.number = number

        def unmap(self) -> bool:
            order.append(self.number)
            return True

    class Numbers(AccountedMemory):
        made = 0

        def allocate(self, nbytes: int) -> Block:
            self.made += 1
            return Numbered(self.made)

    async with Scene(BufferPools, "1 MiB", [one_item_a_page()], memory=Numbers()) as scene:
        pool = scene.pools.pools["4096"]
        buffers = [pool.get_nowait() for _ in range(5)]
        for at in (2, 0, 4):
            buffers[at].release()
        assert pool.reclaim() == 3
        scene.check()
        assert order == [3, 1, 5]
        assert pool.statistics().npages == 2
        assert pool.reclaim() == 0
        for at in (1, 3):
            buffers[at].release()


async def test_reclaim_keeps_the_low_water_and_counts_pages_in_use_for_it() -> None:
    async with Scene(BufferPools, "1 MiB", [PoolSpec(2048, items_per_page=2)]) as scene:
        pool = scene.pools.pools["2048"]
        pool.set_low_water(5)  # three pages
        pool.prime(4)
        assert pool.statistics().npages == 5
        with pool.get_nowait():
            assert pool.reclaim() == 2
            scene.check()
            assert (pool.statistics().npages, pool.statistics().nidle) == (3, 2)
        pool.set_low_water(0)
        assert pool.reclaim() == 3
        assert pool.statistics().npages == 0


async def test_reclaim_leaves_partial_pages_alone() -> None:
    async with Scene(BufferPools, "1 MiB", [PoolSpec(2048, items_per_page=2)]) as scene:
        pool = scene.pools.pools["2048"]
        with pool.get_nowait():
            assert pool.reclaim() == 0
            assert pool.statistics().npages == 1


# Priming and the low water


async def test_prime_adds_whole_pages_and_says_how_many_items() -> None:
    async with Scene(BufferPools, "1 MiB", [1024]) as scene:
        pool = scene.pools.pools["1024"]
        assert pool.prime(0) == 0
        assert pool.prime(1) == 8
        assert pool.prime(9) == 16
        scene.check()
        statistics = pool.statistics()
        assert (statistics.npages, statistics.nidle, statistics.nget) == (3, 3, 0)
        with pytest.raises(ConfigurationError, match="the items to prime pool '1024' with is -1"):
            pool.prime(-1)


async def test_prime_stops_where_the_budget_does() -> None:
    async with Scene(BufferPools, 3 * 4096, [one_item_a_page()]) as scene:
        pool = scene.pools.pools["4096"]
        assert pool.prime(5) == 3
        scene.check()
        assert pool.statistics().npages == 3
        assert scene.pools.budget.drops == 1
        assert pool.prime(1) == 0


async def test_prime_serves_those_who_wait() -> None:
    async with Scene(MbufPools, 1) as scene:
        pool = scene.pools.mbpool
        for name in "ab":
            await scene.get(name, "mbufpl")
        scene.pools.budget.on_resize = lambda: None  # so that the new limit wakes nobody
        scene.pools.nmbclust_update(2)
        assert scene.granted == []
        assert pool.prime(1) == 16
        scene.check()
        assert scene.granted == ["a", "b"]


async def test_the_low_water_is_there_at_once_and_says_if_it_is_not() -> None:
    async with Scene(BufferPools, 3 * 4096, [one_item_a_page()]) as scene:
        pool = scene.pools.pools["4096"]
        assert pool.set_low_water(2)
        assert pool.statistics().npages == 2
        assert pool.statistics().min_pages == 2
        assert pool.set_low_water(1), "it has that many"
        assert pool.statistics().npages == 2
        assert pool.set_low_water(3)
        with pytest.raises(ConfigurationError, match="min_items of pool '4096' is -1"):
            pool.set_low_water(-1)
        scene.check()
        assert pool.statistics().min_pages == 3
        assert pool.set_low_water(0)


async def test_a_low_water_counts_the_pages_that_come_for_those_it_wakes() -> None:
    async with Scene(MbufPools, 16, wakeup="none") as scene:
        large, pool = scene.pools.pools["mcl4k"], scene.pools.mbpool
        large.get_nowait().release()
        getter = await scene.get("a", "mbufpl")
        large.reclaim()
        assert not getter.has_ended(), "nobody woke it"
        assert pool.set_low_water(17)
        scene.check()
        assert scene.granted == ["a"]
        assert pool.statistics().npages == pool.statistics().min_pages == 2


async def test_a_low_water_beyond_the_budget_gets_what_there_is_under_the_kernels_rules() -> None:
    async with Scene(MbufPools, 4) as scene:
        pool = scene.pools.mbpool
        assert not pool.set_low_water(48)
        scene.check()
        assert pool.statistics().npages == 2
        assert pool.statistics().min_pages == 3
        scene.pools.nmbclust_update(100)
        await scene.settle()
        assert pool.statistics().npages == 2, "they come as gets need them"
        buffers = [pool.get_nowait() for _ in range(33)]
        for buffer in buffers:
            buffer.release()
        await anyio.sleep(60)
        assert pool.statistics().npages == 3, "and stay"


async def test_the_low_water_is_rounded_up_to_pages() -> None:
    async with Scene(BufferPools, "1 MiB", [1024]) as scene:
        pool = scene.pools.pools["1024"]
        for items, pages in ((1, 1), (8, 1), (9, 2)):
            pool.set_low_water(items)
            assert pool.statistics().min_pages == pages
            assert pool.statistics().npages == pages


# The hard limit


async def test_no_more_items_are_out_than_the_hard_limit() -> None:
    async with Scene(BufferPools, "1 MiB", [1024]) as scene:
        pool = scene.pools.pools["1024"]
        pool.set_hard_limit(2)
        for name in "abcd":
            await scene.get(name, 1024)
            scene.check()
        assert scene.granted == ["a", "b"]
        with pytest.raises(anyio.WouldBlock):
            pool.get_nowait()
        scene.getters["a"].release()
        scene.check()
        assert scene.granted == ["a", "b", "c"]
        assert pool.statistics().hard_limit == 2


async def test_raising_the_hard_limit_serves_the_waiters_of_an_application() -> None:
    async with Scene(BufferPools, "1 MiB", [PoolSpec(1024, max_items=1)]) as scene:
        pool = scene.pools.pools["1024"]
        for name in "abcd":
            await scene.get(name, 1024)
        assert scene.granted == ["a"]
        pool.set_hard_limit(3)
        scene.check()
        assert scene.granted == ["a", "b", "c"]
        pool.set_hard_limit(None)
        assert scene.granted == ["a", "b", "c", "d"]


async def test_raising_the_hard_limit_wakes_nobody_in_the_kernel_until_the_next_put() -> None:
    async with Scene(MbufPools, 100) as scene:
        pool = scene.pools.mbpool
        pool.set_hard_limit(1)
        for name in "abcd":
            await scene.get(name, "mbufpl")
        pool.set_hard_limit(3)
        await anyio.sleep(100)
        assert scene.granted == ["a"]
        scene.getters["a"].release()
        scene.check()
        assert scene.granted == ["a", "b", "c", "d"]


@pytest.mark.parametrize("make", [BufferPools, MbufPools])
async def test_a_hard_limit_below_what_is_out_is_refused_and_changes_nothing(make: Any) -> None:
    arguments = (100,) if make is MbufPools else ("1 MiB", [PoolSpec(256, name="mbufpl")])
    async with Scene(make, *arguments) as scene:
        pool = scene.pools.pools["mbufpl"]
        with pool.get_nowait(), pool.get_nowait():
            pool.set_hard_limit(3)
            with pytest.raises(ConfigurationError, match="cannot be 1 while 2 items are out"):
                pool.set_hard_limit(1)
            assert pool.statistics().hard_limit == 3
            pool.set_hard_limit(2)
            with pytest.raises(ConfigurationError, match="is -1; expected at least 0"):
                pool.set_hard_limit(-1)
            scene.check()
        assert pool.statistics().hard_limit == 2


# Checkpoints, tasks of the queue, and where a pool may be used


class Pauses:
    """Awaits something, and counts how often the task is suspended meanwhile."""

    def __init__(self, coroutine: Coroutine[Any, Any, Buffer]) -> None:
        self.coroutine = coroutine
        self.count = 0

    def __await__(self) -> Generator[Any, Any, Buffer]:
        sent: Any = None
        while True:
            try:
                awaited = self.coroutine.send(sent)
            except StopIteration as stop:
                return cast(Buffer, stop.value)
            self.count += 1
            sent = yield awaited


async def pauses_of(coroutine: Coroutine[Any, Any, Buffer]) -> int:
    """How often the get suspends its task; its buffer is released."""
    pauses = Pauses(coroutine)
    with await pauses:
        return pauses.count


async def test_a_get_that_does_not_wait_is_a_checkpoint() -> None:
    async with Scene(BufferPools, "1 MiB", [1024]) as scene:
        assert await pauses_of(scene.pools.pools["1024"].get()) == 1
        assert await pauses_of(scene.pools.get(1)) == 1


@pytest.mark.parametrize("fast_acquire", [False, True])
async def test_a_get_that_the_second_try_serves_is_a_checkpoint(fast_acquire: bool) -> None:
    async with Scene(BufferPools, 4096, [one_item_a_page()], fast_acquire=fast_acquire) as scene:
        buffer = scene.pools.get_nowait(1)
        with pytest.warns(ResourceWarning):
            del buffer
        assert await pauses_of(scene.pools.get(1)) == (0 if fast_acquire else 1)
        assert scene.told(EventKind.GET) == ["4096", "4096"]


async def test_fast_acquire_makes_a_get_that_does_not_wait_no_checkpoint() -> None:
    async with Scene(BufferPools, "1 MiB", [1024], fast_acquire=True) as scene:
        assert await pauses_of(scene.pools.pools["1024"].get()) == 0
        assert await pauses_of(scene.pools.get(1)) == 0


async def test_a_get_in_a_cancelled_scope_takes_nothing() -> None:
    async with Scene(BufferPools, "1 MiB", [1024]) as scene:
        pool = scene.pools.pools["1024"]
        with anyio.CancelScope() as scope:
            scope.cancel()
            await pool.get()
        assert scope.cancelled_caught
        scene.check()
        assert pool.statistics().nget == 0
        assert scene.events == []


async def test_a_task_of_the_pools_own_queue_that_gets_is_refused() -> None:
    """It would wait for a wakeup that is queued behind it."""
    async with Scene(BufferPools, 4096, [one_item_a_page()]) as scene:
        errors: list[UsageError] = []
        taken: list[Buffer] = []

        async def task() -> None:
            for getting in (scene.pools.pools["4096"].get(), scene.pools.get(10)):
                try:
                    await getting
                except UsageError as error:
                    errors.append(error)
            taken.append(scene.pools.get_nowait(4096))

        scene.pools.taskq.add(Task(task))
        await scene.settle()
        scene.check()
        assert len(errors) == 2
        assert "a task of the pools' own queue cannot wait for pool '4096'" in str(errors[0])
        assert "get_nowait" in str(errors[0])
        (buffer,) = taken
        buffer.release()


async def test_a_task_of_another_queue_may_wait() -> None:
    async with (
        Scene(BufferPools, 4096, [one_item_a_page()]) as scene,
        BufferPools(4096, [one_item_a_page()], name="other") as other,
    ):
        served: list[int] = []

        async def task() -> None:
            with await scene.pools.get(4096) as buffer:
                served.append(buffer.nbytes)

        with scene.pools.get_nowait(4096):
            other.taskq.add(Task(task))
            await until(lambda: scene.of("4096").waiting)
            assert served == []
        await other.taskq.barrier()
        assert served == [4096]


def test_pools_can_be_made_set_up_and_read_outside_of_a_loop() -> None:
    pools = BufferPools("1 MiB", [PoolSpec(1024, min_items=1, max_items=20), 4096])
    pool = pools.pools["1024"]
    assert pool.statistics().min_pages == 1
    assert pool.statistics().npages == 0
    pool.set_hard_limit(10)
    pool.set_high_water(0)
    pools.resize("2 MiB")
    pools.check()
    assert repr(pool) == "<Pool '1024': 0 of 1024 bytes out, 0 pages, 0 waiting>"
    assert pools.statistics().limit == 2 << 20


def test_a_get_outside_of_async_with_is_refused_on_both_backends() -> None:
    async def main(pools: BufferPools) -> None:
        for call in (pools.get_nowait, pools.pools["1024"].prime):
            with pytest.raises(UsageError, match="BufferPools is not entered"):
                call(1)
        with pytest.raises(UsageError, match="BufferPools is not entered"):
            await pools.get(1)
        pools.check()

    for backend in ("asyncio", "trio"):
        lab.run(main, BufferPools("1 MiB", [1024]), backend=backend)


def test_sets_made_outside_work_on_one_backend_after_the_other() -> None:
    async def main(pools: BufferPools) -> int:
        async with pools:
            with await pools.get(1):
                await anyio.sleep(10.5)
                pools.check()
        return pools.statistics().taskq.runs

    backends = ("asyncio", "trio", "asyncio")
    sets = [BufferPools("1 MiB", [1024]) for _ in backends]
    runs = [
        lab.run(main, pools, backend=backend) for pools, backend in zip(sets, backends, strict=True)
    ]
    assert runs == [10, 10, 10]


# Looking


async def test_the_repr_names_the_pool_and_its_state() -> None:
    async with Scene(BufferPools, 4096, [one_item_a_page()]) as scene:
        await scene.get("holder", 4096)
        await scene.get("sleeper", 4096)
        assert repr(scene.pools.pools["4096"]) == (
            "<Pool '4096': 1 of 4096 bytes out, 1 pages, 1 waiting>"
        )


async def test_the_events_tell_of_every_step() -> None:
    async with Scene(BufferPools, 4096, [one_item_a_page()]) as scene:
        holder = await scene.get("holder", 4000)
        sleeper = await scene.get("sleeper", 3000)
        other = await scene.get("other", 2000)
        await anyio.sleep(0.5)
        other.cancel()
        await other.ended.wait()
        holder.release()
        await sleeper.ended.wait()
        sleeper.release()
        assert scene.events == [
            Event(EventKind.PAGE_IN, 0.0, "4096", 4096, 0),
            Event(EventKind.GET, 0.0, "4096", 4000, 0),
            Event(EventKind.WAIT, 0.0, "4096", 3000, 1),
            Event(EventKind.WAIT, 0.0, "4096", 2000, 2),
            Event(EventKind.CANCEL, 0.5, "4096", 2000, 2),
            Event(EventKind.PUT, 0.5, "4096", 4000, 0),
            Event(EventKind.GRANT, 0.5, "4096", 3000, 1),
            Event(EventKind.PUT, 0.5, "4096", 3000, 0),
        ]


async def test_check_finds_more_items_out_than_the_hard_limit() -> None:
    async with Scene(BufferPools, 4096, [1024 // 2]) as scene:
        pool = scene.pools.pools["512"]
        with pool.get_nowait():
            pool._supply.max_items = 0
            with pytest.raises(PoolCorruption, match="'512' has more items out than its hard"):
                pool.check()
            pool._supply.max_items = None
