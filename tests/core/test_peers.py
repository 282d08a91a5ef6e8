"""Bugs that other bounded allocators had, each with a test that bears its name."""

from __future__ import annotations

import pickle
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from mbufpools import (
    AccountedMemory,
    Block,
    BufferInUse,
    BufferPools,
    EventKind,
    ImpossibleRequest,
    MbufPools,
    Order,
    PoolSpec,
    Wakeup,
)
from tests.kit.getters import EVERY_ORDER, Scene, on_asyncio, one_item_a_page
from tests.kit.grants import ORDERED, WAKING

KIB = 1024

every_order = pytest.mark.parametrize("rules", EVERY_ORDER)


def pages(count: int, **options: object) -> Scene[BufferPools]:
    """A pool of that many items, of a page each."""
    return Scene(BufferPools, count * 4096, [one_item_a_page()], **options)


# OpenBSD


async def test_openbsd_m_pool_free_wakes_the_other_pools() -> None:
    """A page back in the budget woke only its own pool."""
    for wakeup in Wakeup:
        async with Scene(MbufPools, 8, wakeup=wakeup) as scene:
            holder = await scene.get("holder", "mcl2k")
            await scene.get("sleeper", "mbufpl")
            holder.release()
            assert holder.lease.pool.reclaim() == 1
            await scene.settle()
            scene.check()
            assert scene.pools.budget.available >= 4096
            assert ("sleeper" in scene.granted) is (wakeup is not Wakeup.NONE)


async def test_openbsd_pool_do_put_shows_the_item_of_a_full_page() -> None:
    """A full page turned partial was invisible until it was empty. Here it can be chosen, to show
    the kernel as it is, and is never so in an application."""
    for make, options, puts in (
        (MbufPools, {"curpage": "stale"}, 8),
        (MbufPools, {"curpage": "refreshed"}, 1),
        (BufferPools, {}, 1),
    ):
        arguments = (8,) if make is MbufPools else (16 * KIB, [PoolSpec(2048, name="mcl2k")])
        async with Scene(make, *arguments, **options) as scene:
            for n in range(8):
                await scene.get(f"{n}", "mcl2k")
            await scene.get("sleeper", "mcl2k")
            needed = 0
            while "sleeper" not in scene.granted:
                scene.getters[f"{needed}"].release()
                scene.check()
                needed += 1
            assert needed == puts


class SeesNoExcess(AccountedMemory):
    """A memory that looks at the budget each time it is asked for a page."""

    pools: BufferPools

    def allocate(self, nbytes: int) -> Block:
        assert self.pools.budget.allocated <= self.pools.budget.limit
        return super().allocate(nbytes)


@every_order
async def test_openbsd_m_pool_alloc_a_large_request_that_fails_does_not_fail_a_small_one(
    rules: dict[str, Any],
) -> None:
    """Add, then check, then take back: meanwhile the sum is too high for everybody, and nobody
    was woken when it was taken back."""
    memory = SeesNoExcess()
    specs = [one_item_a_page(), one_item_a_page(32 * KIB)]
    async with Scene(BufferPools, 32 * KIB, specs, memory=memory, **rules) as scene:
        memory.pools = scene.pools
        await scene.get("holder", 4 * KIB)
        sums: list[int] = []
        scene.pools.budget.on_credit = sums.append
        with pytest.raises(anyio.WouldBlock):
            scene.pools.get_nowait(32 * KIB)
        assert sums == [], "nothing is taken back, for nothing was added"
        assert scene.pools.budget.drops >= 1
        assert scene.pools.budget.peak == 4 * KIB
        for n in range(7):
            assert scene.try_get(f"{n}", "4096")
            scene.check()
        assert scene.pools.budget.peak == scene.pools.budget.limit


async def test_openbsd_nfsm_reqhead_two_callers_deadlock_under_the_kernels_rules() -> None:
    """Each holds mbufs and waits for a cluster, as the kernel's nfsm_reqhead does. The limit has
    room for one of them, a page of mbufs and one of clusters. Both wait until one gives up and the
    gc lets its page go."""
    async with Scene(MbufPools, 10) as scene:
        for caller in ("first", "second"):
            for n in range(16):
                assert scene.try_get(f"mbuf {n} of the {caller}", "mbufpl")
        for caller in ("first", "second"):
            await scene.get(f"cluster of the {caller}", "mcl2k")
        await anyio.sleep_until(3600.5)
        scene.check()
        assert scene.waiting() == ["cluster of the first", "cluster of the second"]
        scene.getters["cluster of the second"].cancel()
        for n in range(16):
            scene.getters[f"mbuf {n} of the second"].release()
        await scene.getters["cluster of the first"].ended.wait()
        scene.check()
        assert scene.getters["cluster of the first"].served_at == 3609.0


@every_order
async def test_openbsd_nfsm_reqhead_with_get_many_nobody_holds_while_it_waits(
    rules: dict[str, Any],
) -> None:
    """The same two callers, who ask for all at once: one after the other is served."""
    specs = [PoolSpec(256, name="mbufpl"), PoolSpec(2048, name="mcl2k")]
    done: list[float] = []
    async with BufferPools(20 * KIB, specs, **rules) as pools:

        async def caller() -> None:
            with await pools.get_many([256] * 16 + [2048]):
                pools.check()
                await anyio.sleep(1)
                done.append(anyio.current_time())

        async with anyio.create_task_group() as group:
            group.start_soon(caller)
            group.start_soon(caller)
        pools.check()
    assert done == [1.0, 2.0]


# FreeBSD


@every_order
async def test_freebsd_uma_a_wakeup_serves_all_it_can_and_wakes_no_herd(
    rules: dict[str, Any],
) -> None:
    """r343026: one wakeup left the other sleepers asleep, and the next try woke them all. Here a
    page of eight items serves eight sleepers at once, and the others are not even woken."""
    specs = [1024, PoolSpec(2048, items_per_page=4)]
    async with Scene(BufferPools, 8 * KIB, specs, **rules) as scene:
        holder = await scene.get("holder", "2048")
        names = [f"{n}" for n in range(12)]
        for name in names:
            await scene.get(name, "1024")
        holder.release()
        holder.lease.pool.reclaim()
        await scene.settle()
        scene.check()
        assert scene.granted == ["holder", *names[:8]]
        assert scene.waiting() == names[8:]
        for name in names[:8]:
            await scene.getters[name].ended.wait()
        assert not any(scene.getters[name].has_ended() for name in names[8:])


# Kafka


@every_order
async def test_kafka_3651_a_waiter_that_timed_out_is_not_in_the_queue(
    rules: dict[str, Any],
) -> None:
    """It stayed there, and memory granted to it leaked (also KAFKA-4840)."""
    async with pages(1, **rules) as scene:
        holder = await scene.get("holder", 4096)
        for _ in range(5):
            with pytest.raises(TimeoutError), anyio.fail_after(1):
                await scene.pools.get(1)
            scene.check()
            assert scene.of("4096").waiting == 0
        await scene.get("patient", 4096)
        holder.release()
        scene.check()
        assert scene.granted == ["holder", "patient"]
        assert scene.of("4096").nout == 1


@every_order
async def test_kafka_4840_memory_that_comes_as_a_waiter_times_out_is_not_lost(
    rules: dict[str, Any],
) -> None:
    """It was granted to the one who had given up, and leaked. Here it comes at the very moment of
    the timeout, before it or after: he has it, or the next does."""
    async with pages(1, **rules) as scene:
        for n in range(4):
            holder = await scene.get(f"holder {n}", 4096)
            impatient = await scene.get(f"impatient {n}", 4096)
            patient = await scene.get(f"patient {n}", 4096)
            impatient.scope.deadline = anyio.current_time() + 1
            if n % 2:
                await anyio.sleep(1)
                holder.release()
            else:
                holder.release()
                await anyio.sleep(1)
            await impatient.ended.wait()
            scene.check()
            if impatient.holds():
                impatient.release()
            await patient.ended.wait()
            assert patient.holds()
            assert scene.of("4096").nout == 1
            patient.release()


@every_order
async def test_kafka_19012_a_buffer_that_is_still_being_sent_is_not_handed_out(
    rules: dict[str, Any],
) -> None:
    """It was freed while its send was in flight, and handed out again: corrupt records."""
    async with pages(1, **rules) as scene:
        holder = await scene.get("sender", 4096)
        await scene.get("sleeper", 4096)
        assert holder.lease is not None
        in_flight = pickle.PickleBuffer(holder.lease.view)
        with pytest.raises(BufferInUse, match="still exports its view"):
            holder.release()
        scene.check()
        assert scene.granted == ["sender"]
        in_flight.release()
        holder.release()
        assert scene.granted == ["sender", "sleeper"]


@pytest.mark.parametrize("order", ORDERED)
async def test_kafka_buffer_pool_the_fast_path_looks_at_those_who_wait(order: Order) -> None:
    """It said fair, but its fast path never looked."""
    specs = [one_item_a_page(), one_item_a_page(8 * KIB)]
    async with Scene(BufferPools, 12 * KIB, specs, order=order, reclaim="pressure") as scene:
        await scene.get("holder", 8 * KIB)
        await scene.get("first", 8 * KIB)
        assert scene.waiting() == ["first"]
        assert not scene.try_get("a page is free, but not for a newcomer", "4096")
        await scene.get("newcomer", 4 * KIB)
        scene.check()
        assert scene.waiting() == ["first", "newcomer"]
        scene.getters["holder"].release()
        await scene.settle()
        scene.check()
        assert scene.granted == ["holder", "first", "newcomer"]


# Velox and Go


async def test_velox_15637_a_large_request_does_not_stop_everybody_behind_it() -> None:
    """The head wanted 8 MB, 7.98 were free, and everybody behind it was stuck. In the default
    order gets that free items can serve go on."""
    specs = [1024, one_item_a_page(16 * KIB)]
    async with Scene(BufferPools, 24 * KIB, specs, order="bounded", reclaim="pressure") as scene:
        held = [await scene.get(f"small {n}", 1024) for n in range(7)]
        await scene.get("large", 16 * KIB)
        await scene.get("second large", 16 * KIB)
        assert scene.waiting() == ["second large"]
        for n in range(3):
            newcomer = await scene.get(f"newcomer {n}", 1024)
            scene.check()
            assert newcomer.holds()
            newcomer.release()
        assert scene.waiting() == ["second large"]
        assert len(held) == 7


@every_order
async def test_go_43a5402_when_the_head_leaves_those_behind_it_are_looked_at_again(
    rules: dict[str, Any],
) -> None:
    """A large head that was cancelled left capacity stranded, for nobody looked again."""
    specs = [one_item_a_page(), one_item_a_page(16 * KIB)]
    async with Scene(BufferPools, 20 * KIB, specs, **rules) as scene:
        for n in range(2):
            await scene.get(f"holder {n}", 4 * KIB)
        large = await scene.get("large", 16 * KIB)
        small = [await scene.get(f"small {n}", 4 * KIB) for n in range(4)]
        large.cancel()
        await large.ended.wait()
        await scene.settle()
        scene.check()
        assert [name for name in scene.granted if name.startswith("small")] == [
            f"small {n}" for n in range(3)
        ]
        assert scene.pools.budget.available == 0
        assert not small[3].has_ended()


@every_order
async def test_velox_remove_global_arbitration_waiter_a_head_that_times_out_strands_nothing(
    rules: dict[str, Any],
) -> None:
    """What it had waited for stayed unused beside those who could have had it."""
    specs = [one_item_a_page(), one_item_a_page(16 * KIB)]
    async with Scene(BufferPools, 20 * KIB, specs, **rules) as scene:
        await scene.get("holder", 8 * KIB)
        large = await scene.get("large", 16 * KIB)
        assert scene.waiting() == ["large"]
        small = await scene.get("small", 4 * KIB)
        large.scope.deadline = anyio.current_time() + 5
        with anyio.fail_after(6):
            await large.ended.wait()
            await small.ended.wait()
        scene.check()
        assert large.cancelled
        assert small.holds()


@every_order
async def test_go_semaphore_weighted_a_request_larger_than_the_whole_does_not_wait_for_ever(
    rules: dict[str, Any],
) -> None:
    async with pages(1, **rules) as scene:
        scene.pools.resize(4095)
        getter = await scene.get("too large", 4096)
        assert isinstance(getter.error, ImpossibleRequest)
        assert anyio.current_time() == 0.0
        scene.check()


# Flink


@every_order
@pytest.mark.parametrize("wakeup", WAKING)
async def test_flink_24035_what_the_budget_hears_every_pool_and_every_task_hears(
    rules: dict[str, Any], wakeup: Wakeup
) -> None:
    """The global pool told the local one, and the local one told nobody."""
    specs = [one_item_a_page(n * 4 * KIB) for n in (1, 2, 4)]
    async with Scene(BufferPools, 28 * KIB, specs, wakeup=wakeup, **rules) as scene:
        assert scene.try_get("all 0", "16384")
        assert scene.try_get("all 1", "8192")
        assert scene.try_get("all 2", "4096")
        for size in (4, 8, 16):
            for n in range(2):
                await scene.get(f"{size}-{n}", size * KIB)
        scene.pools.resize(2 * 28 * KIB)
        await scene.settle()
        scene.check()
        first = sorted(scene.granted)
        assert len(first) >= 3
        scene.pools.resize(3 * 28 * KIB)
        await scene.settle()
        scene.check()
        for size in (4, 8, 16):
            for n in range(2):
                getter = scene.getters[f"{size}-{n}"]
                await getter.ended.wait()
                assert getter.holds()


@every_order
async def test_flink_12852_callers_that_ask_for_all_at_once_need_no_timeout_to_go_on(
    rules: dict[str, Any],
) -> None:
    """Each held some and waited for more, which a timeout of 30 s "cured" (also FLINK-31386)."""
    done: list[float] = []
    async with BufferPools(6 * 4096, [one_item_a_page()], **rules) as pools:

        async def caller() -> None:
            with await pools.get_many([4096] * 4):
                pools.check()
                await anyio.sleep(1)
                done.append(anyio.current_time())

        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(caller)
        pools.check()
    assert done == [1.0, 2.0, 3.0]


# Spark


@every_order
async def test_spark_58747_who_holds_nothing_still_asks(rules: dict[str, Any]) -> None:
    """A release while a sibling waited dropped the entry of both: holding nothing is not the same
    as asking for nothing. Here all that is left of a pool is somebody who waits."""
    specs = [one_item_a_page(), one_item_a_page(8 * KIB)]
    async with Scene(BufferPools, 8 * KIB, specs, **rules) as scene:
        first = await scene.get("first", 4 * KIB)
        other = await scene.get("other", 4 * KIB)
        await scene.get("sibling", 8 * KIB)
        for getter in (first, other):
            getter.release()
            scene.check()
        scene.pools.pools["4096"].reclaim()
        await scene.settle()
        scene.check()
        assert scene.granted == ["first", "other", "sibling"]
        await scene.getters["sibling"].ended.wait()
        scene.getters["sibling"].release()
        await scene.get("third", 4 * KIB)
        scene.pools.pools["8192"].reclaim()
        await scene.settle()
        assert scene.granted[-1] == "third"


# tokio and anyio


@every_order
async def test_tokio_forget_permits_a_limit_shrinks_also_while_others_wait(
    rules: dict[str, Any],
) -> None:
    """It took only free permits: with waiters queued none ever is."""
    async with pages(3, **rules) as scene:
        holders = [await scene.get(f"holder {n}", 4096) for n in range(3)]
        for n in range(3):
            await scene.get(f"sleeper {n}", 4096)
        scene.pools.resize(4096)
        for holder in holders:
            holder.release()
            scene.check()
        # The items of a page that is there are handed on, so nothing is freed as long as somebody
        # waits for them; no new page comes, though, and when one leaves it pays the debt.
        for n in range(3):
            if f"sleeper {n}" in scene.granted:
                await scene.getters[f"sleeper {n}"].ended.wait()
                scene.getters[f"sleeper {n}"].release()
                scene.check()
        await anyio.sleep(60)
        scene.check()
        assert scene.pools.budget.debt == 0
        assert scene.pools.budget.allocated <= 4096
        assert scene.of("4096").npagealloc <= 4


@every_order
async def test_tokio_8020_a_late_release_does_not_reopen_a_closed_set(
    rules: dict[str, Any],
) -> None:
    pools = BufferPools(4096, [one_item_a_page()], **rules)
    with pytest.warns(ResourceWarning):
        async with pools:
            buffer = pools.get_nowait(1)
    buffer.release()
    pools.check()
    with pytest.raises(anyio.ClosedResourceError):
        pools.get_nowait(1)
    with pytest.raises(anyio.ClosedResourceError):
        await pools.get(1)
    assert pools.budget.allocated == 0


@every_order
async def test_anyio_1223_a_shrunk_and_grown_limit_is_never_exceeded(
    rules: dict[str, Any],
) -> None:
    """Shrunk from 3 to 1 and grown to 2 with waiters, 4 were borrowed of 2."""
    async with pages(3, **rules) as scene:
        holders = [await scene.get(f"holder {n}", 4096) for n in range(3)]
        for n in range(3):
            await scene.get(f"sleeper {n}", 4096)
        scene.pools.resize(1 * 4096)
        await scene.settle()
        scene.pools.resize(2 * 4096)
        await scene.settle()
        scene.check()
        assert scene.of("4096").nout == 3, "nobody was granted a page"
        for holder in holders:
            holder.release()
            await scene.settle()
            scene.check()
            assert scene.of("4096").nout <= 3
        assert scene.of("4096").npagealloc == 3


@pytest.mark.parametrize("natively", [pytest.param(True, id="natively"), False])
@pytest.mark.parametrize("cancelled_first", [True, False])
@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_anyio_947_cancelled_at_the_moment_of_the_grant_nothing_is_lost_or_granted_twice(
    natively: bool, cancelled_first: bool
) -> None:
    """Also anyio 1145 and 1170. (On trio: the tests of cancellation.)"""
    for rules in EVERY_ORDER:
        async with pages(1, **rules.values[0]) as scene:  # type: ignore[arg-type]
            holder = await scene.get("holder", 4096)
            unlucky = await scene.get("unlucky", 4096)
            lucky = await scene.get("lucky", 4096)
            if not cancelled_first:
                holder.release()
            if natively:
                unlucky.cancel_natively()
            else:
                unlucky.cancel()
            if cancelled_first:
                holder.release()
            await unlucky.ended.wait()
            scene.check()
            if unlucky.holds():
                unlucky.release()
            await lucky.ended.wait()
            assert scene.granted == ["holder", "unlucky", "lucky"]
            assert scene.of("4096").nout == 1


# aio-fairshare and credit-semaphore


@every_order
async def test_aio_fairshare_cancelled_after_the_signal_no_item_lies_beside_a_waiter(
    rules: dict[str, Any],
) -> None:
    """One slot was free, and a waiter stuck."""
    async with pages(2, **rules) as scene:
        holders = [await scene.get(f"holder {n}", 4096) for n in range(2)]
        waiters = [await scene.get(f"waiter {n}", 4096) for n in range(4)]
        for holder, waiter in zip(holders, waiters, strict=False):
            waiter.cancel()
            holder.release()
        for waiter in waiters[:2]:
            await waiter.ended.wait()
        scene.check()
        assert scene.of("4096").nout == 2
        assert scene.of("4096").waiting == 0
        for waiter in waiters[2:]:
            await waiter.ended.wait()
            assert waiter.holds()


@on_asyncio
@every_order
async def test_credit_semaphore_cancelled_after_the_grant_no_credit_leaks(
    rules: dict[str, Any],
) -> None:
    async with pages(1, **rules) as scene:
        for n in range(5):
            holder = await scene.get(f"holder {n}", 4096)
            waiter = await scene.get(f"waiter {n}", 4096)
            holder.release()
            assert scene.granted[-1] == f"waiter {n}"
            waiter.cancel_natively()
            await waiter.ended.wait()
            scene.check()
            assert waiter.cancelled
            assert scene.of("4096").nout == 0
        assert scene.told(EventKind.PUT) == ["4096"] * 10


# resource-semaphore


@pytest.mark.parametrize("order", ORDERED)
async def test_resource_semaphore_a_large_request_does_not_starve_behind_small_ones(
    order: Order,
) -> None:
    specs = [1024, one_item_a_page(16 * KIB)]
    async with Scene(BufferPools, 24 * KIB, specs, order=order, reclaim="pressure") as scene:
        large_served = anyio.Event()

        async def small() -> None:
            while not large_served.is_set():
                with await scene.pools.get(1024):
                    await anyio.sleep(1)

        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(small)
                await anyio.sleep(0.05)
            with await scene.pools.get(16 * KIB):
                scene.check()
                large_served.set()
                await checkpoint()
        assert anyio.current_time() < 60
