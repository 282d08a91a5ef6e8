"""What tells the library from one that is a step off: mutation testing asked for each of these."""

from __future__ import annotations

import logging
import pickle
import re
import sys
import threading
import warnings
from collections.abc import Callable
from functools import reduce
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from mbufpools import (
    AccountedMemory,
    Block,
    Buffer,
    BufferPools,
    ConfigurationError,
    DoubleRelease,
    EventKind,
    ImpossibleRequest,
    MbufPools,
    Order,
    PoolCorruption,
    PoolSpec,
    Task,
    UseAfterRelease,
    Wakeup,
)
from mbufpools._buffer import hold, hold_by_connection, hold_by_task
from mbufpools._debug import advice
from mbufpools._memory import AccountedBlock
from mbufpools._order import turn
from mbufpools._page import Item, Page, _Nowhere
from mbufpools._policies import KERNEL
from mbufpools._request import Request, RequestQueue
from mbufpools._set_state import SetState
from mbufpools._supply import Supply, stack_is_full
from mbufpools._waiters import _without_frames
from mbufpools._waits import _TrioSleeper, has_ended, name_of
from tests.kit.grants import (
    KIB,
    ORDERED,
    Counted,
    GrantLog,
    break_silently,
    entered,
    release_all,
    reserve,
    settle,
    small_and_large,
    taking,
)
from tests.kit.memory import memory_of

PAGE = 4 * KIB
A, B, C, D = (PAGE - 64 * step for step in (3, 2, 1, 0))


def one_item_pages(limit_pages: int, **options: Any) -> BufferPools:
    """Pools ``a`` to ``d``, with one item to a page of 4 KiB; two of ``a`` and of ``c`` may be
    out."""
    return BufferPools(
        limit_pages * PAGE,
        [
            PoolSpec(A, name="a", items_per_page=1, max_items=2),
            PoolSpec(B, name="b", items_per_page=1),
            PoolSpec(C, name="c", items_per_page=1, max_items=2),
            PoolSpec(D, name="d", items_per_page=1),
        ],
        memory=AccountedMemory(),
        **options,
    )


class Refuses(AccountedMemory):
    """A memory without the page of that number, counted from 1."""

    def __init__(self, refused: int) -> None:
        self.refused = refused
        self.asked = 0

    def allocate(self, nbytes: int) -> Block:
        self.asked += 1
        if self.asked == self.refused:
            raise MemoryError("no page")
        return super().allocate(nbytes)


# Getting and putting


@pytest.mark.parametrize("free", ["nothing", "an idle page of another pool"])
async def test_a_buffer_taken_without_waiting_is_as_long_as_was_asked(free: str) -> None:
    log = GrantLog()
    async with entered(small_and_large(1, hook=log)) as pools:
        if free != "nothing":
            pools.get_nowait(KIB).release()
        log.clear()
        with pools.get_nowait(3000) as buffer:
            assert (buffer.nbytes, log.taken) == (3000, [3000])


async def test_a_buffer_that_was_dropped_is_told_as_put_with_the_bytes_of_its_item() -> None:
    log = GrantLog()
    async with entered(small_and_large(1, hook=log)) as pools:
        buffer = await pools.get(700)
        with pytest.warns(ResourceWarning, match="dropped without a release"):
            del buffer
        await settle()
        (drop,), (put,) = log.of(EventKind.DROP), log.of(EventKind.PUT)
        assert (drop.name, drop.nbytes) == (put.name, put.nbytes) == ("small", KIB)


async def test_a_release_from_another_thread_is_told_as_put_with_its_bytes() -> None:
    log = GrantLog()
    async with entered(small_and_large(1, hook=log)) as pools:
        thread = threading.Thread(target=(await pools.get(700)).release)
        thread.start()
        thread.join()
        await settle()
        (put,) = log.of(EventKind.PUT)
        assert (put.name, put.nbytes) == ("small", 700)


# The end


async def test_a_body_that_raises_does_not_wait_for_a_task_of_the_queue() -> None:
    start = anyio.current_time()

    async def slow() -> None:
        await anyio.sleep(100)

    with pytest.raises(LookupError):
        async with small_and_large(1) as pools:
            pools.taskq.add(Task(slow, name="slow"))
            await settle()
            raise LookupError
    assert anyio.current_time() < start + 100


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("count", [1, 2, 3])
async def test_the_report_of_leaks_counts_reservations_and_says_who_took_them(
    count: int, debug: bool
) -> None:
    pools = small_and_large(1, debug=debug)
    leases: list[Any] = []

    async def leak() -> None:
        async with pools:
            leases.extend(pools.reserve_nowait(7) for _ in range(count))

    with pytest.warns(ResourceWarning) as reports:
        await leak()
    (report,) = reports
    assert report.source is pools
    out, *holders = str(report.message).splitlines()
    reservations = "1 reservation" if count == 1 else f"{count} reservations"
    assert out == (
        f"BufferPools was closed with buffers still out: {reservations}; their memory comes back "
        f"when they are released"
        + ("" if debug else " (debug=True records which task took them, and where)")
    )
    assert len(holders) == (count if debug else 0)
    assert all(
        re.fullmatch(r"  7 bytes, reserved by task .* at .*:\d+", holder) for holder in holders
    )
    release_all(leases)


# In debug mode


async def test_a_damage_names_the_pool_when_the_item_goes_out_again() -> None:
    async with BufferPools("64 KiB", [PoolSpec(512, name="frames")], debug=True) as pools:
        buffer = await pools.get(100)
        kept = memory_of(buffer)
        buffer.release()
        kept[0] = 1
        for look in (pools.check, pools.pools["frames"].check):
            with pytest.raises(PoolCorruption, match=r"^an item of pool 'frames' was written to"):
                look()
        (await pools.get(1)).release()
        assert pools._state.tracker is not None
        (damage,) = pools._state.tracker.damages
        assert damage.startswith("an item of pool 'frames' was written to")
        kept.release()


async def test_who_dropped_a_buffer_is_named_as_the_last_who_held_its_item() -> None:
    async with BufferPools("64 KiB", [PoolSpec(512, name="frames")], debug=True) as pools:
        buffer = await pools.get(100)
        kept = memory_of(buffer)
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
            kept = memory_of(buffer)
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
            (holder,) = explained.holders
            assert (holder.task, holder.task_id) == (waiter.name, 0)  # its task has ended
            assert re.search(r"\.py:\d+$", holder.where)
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


def test_a_request_leaves_its_queue_once_wherever_it_stands() -> None:
    queue: RequestQueue[str] = RequestQueue()
    first, second, third = (Request[str](number, 1, 0) for number in (1, 2, 3))
    for request in (first, second, third):
        queue.append(request)
    assert queue.remove(second)
    assert not queue.remove(second)
    assert list(queue) == [first, third]
    assert queue.head is first


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


async def test_a_put_serves_those_who_want_its_pool_and_leaves_the_rest_to_the_wakeup() -> None:
    pools = one_item_pages(3, order="fifo", wakeup=Wakeup.NONE)
    async with entered(pools), anyio.create_task_group() as tasks:
        held = [await pools.get(A), await pools.get(C), await pools.get(C)]
        claim = await taking(tasks, pools.get, B)
        behind = await taking(tasks, pools.get, C)
        held[0].release()
        held[1].release()
        await settle()
        assert (pools.budget.available, claim.waits, behind.waits) == (2 * PAGE, True, True)
        pools.resize(4 * PAGE)  # which always wakes
        await settle()
        release_all([held[2], claim.lease, behind.lease])


async def test_a_put_that_serves_somebody_leaves_those_of_other_pools_to_the_wakeup() -> None:
    pools = one_item_pages(3, order="fifo", wakeup=Wakeup.NONE)
    async with entered(pools), anyio.create_task_group() as tasks:
        held = [await pools.get(A), await pools.get(C), await pools.get(C)]
        first = await taking(tasks, pools.get, C)
        claim = await taking(tasks, pools.get, B)
        held[0].release()
        held[1].release()
        await settle()
        assert (pools.budget.available, first.waits, claim.waits) == (PAGE, False, True)
        pools.resize(4 * PAGE)  # which always wakes
        await settle()
        release_all([held[2], first.lease, claim.lease])


async def test_who_passes_a_claim_leaves_it_to_the_wakeup() -> None:
    pools = small_and_large(2, order="bounded", wakeup=Wakeup.NONE, max_passes=1)
    async with entered(pools), anyio.create_task_group() as tasks:
        held = [await pools.get(KIB), await pools.get(PAGE)]
        claim = await taking(tasks, reserve, pools, PAGE)
        held[1].release()
        await settle()
        held.append(await pools.get(KIB))
        assert (pools.statistics().waits.passes, pools.budget.available) == (1, PAGE)
        assert claim.waits
        pools.resize(3 * PAGE)  # which always wakes
        await settle()
        claim.release()
        release_all(held)


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


async def test_a_page_stays_idle_when_the_claim_was_served_and_the_next_is_not_tried() -> None:
    """The get of `b` behind it waits, and the budget has not refused it: nobody is short."""
    pools = one_item_pages(3, order="fifo")
    async with entered(pools), anyio.create_task_group() as tasks:
        held = [await pools.get(A), await pools.get(C), await pools.get(C)]
        claim = await taking(tasks, pools.get, B)
        at_maximum = await taking(tasks, pools.get_many, [A, A, B])
        behind = await taking(tasks, pools.get, B)
        held[1].release()
        await settle()
        assert (claim.waits, at_maximum.waits, behind.waits) == (False, True, True)
        held[2].release()
        await settle()
        assert pools.pools["c"]._supply.nidle == 1
        pools.check()
        at_maximum.cancel()
        await settle()
        release_all([held[0], claim.lease, behind.lease])


async def test_pages_are_primed_behind_those_who_wait_at_a_maximum_or_are_held_up_there() -> None:
    pools = one_item_pages(100, order="fifo")
    async with entered(pools), anyio.create_task_group() as tasks:
        held = [await pools.get(A), await pools.get(C), await pools.get(C)]
        waiting = [
            await taking(tasks, pools.get_many, [A, A, B]),
            await taking(tasks, pools.get, C),
            await taking(tasks, pools.get, B),
        ]
        assert all(one.waits for one in waiting)
        assert pools.pools["d"].prime(1) == 1
        release_all(held)
        await settle()
        release_all([one.lease for one in waiting])
        await settle()


@pytest.mark.parametrize("order", Order)
async def test_no_page_is_primed_while_the_budget_is_short_for_somebody(order: Order) -> None:
    pools = small_and_large(2, order=order)
    async with entered(pools), anyio.create_task_group() as tasks:
        with await pools.get(PAGE):
            claim = await taking(tasks, reserve, pools, 2 * PAGE)
            assert pools.budget.available == PAGE
            assert pools.pools["small"].prime(1) == 0
        await settle()
        claim.release()


async def test_an_idle_page_leaves_for_the_want_of_a_single_byte() -> None:
    async with entered(small_and_large(2)) as pools, pools.reserve(1):
        pools.get_nowait(KIB).release()
        assert pools.pools["small"]._supply.nidle == 1
        with pools.get_nowait(PAGE):
            assert pools.pools["small"]._supply.nidle == 0


async def test_each_cancelled_wait_is_counted() -> None:
    async with entered(small_and_large(1)) as pools, anyio.create_task_group() as tasks:
        with await pools.get(PAGE):
            for count in (1, 2, 3):
                (await taking(tasks, pools.get, PAGE)).cancel()
                await settle()
                assert pools.statistics().waits.cancellations == count


@pytest.mark.parametrize("refused", [1, 2, 3])
async def test_what_was_charged_for_pages_that_did_not_come_is_credited(refused: int) -> None:
    pools = BufferPools(3 * PAGE, [PoolSpec(PAGE, items_per_page=1)], memory=Refuses(refused))
    async with entered(pools):
        with pytest.raises(MemoryError):
            await pools.get_many([PAGE] * 3)
        assert pools.budget.allocated == 0
        pools.check()


# The limit


async def test_what_the_minimum_of_a_pool_covers_is_never_impossible() -> None:
    pools = BufferPools(
        PAGE, [PoolSpec(PAGE, items_per_page=1, min_items=1)], memory=AccountedMemory()
    )
    async with entered(pools), anyio.create_task_group() as tasks:
        with await pools.get(PAGE):
            waiter = await taking(tasks, pools.get, PAGE)
            assert waiter.waits
        await settle()
        waiter.release()


@pytest.mark.parametrize("make", [BufferPools, MbufPools])
async def test_a_limit_of_one_byte_can_be_set_where_no_pool_keeps_a_minimum(make: Any) -> None:
    pools = make(64 * KIB, [512]) if make is BufferPools else make(64)
    async with entered(pools):
        pools.budget.resize(1)
        assert pools.budget.limit == 1


async def test_whom_a_new_limit_makes_impossible_is_told_why() -> None:
    async with entered(small_and_large(2)) as pools, anyio.create_task_group() as tasks:
        held = await pools.get(PAGE)
        waiter = await taking(tasks, reserve, pools, 2 * PAGE)
        pools.resize(PAGE)
        await settle()
        assert isinstance(waiter.error, ImpossibleRequest)
        assert str(waiter.error).startswith(
            "a reservation of 8192 bytes can never be served: the limit is 4096 bytes;"
        )
        held.release()


def test_a_low_water_of_nothing_can_be_set_outside_of_a_loop() -> None:
    pools = small_and_large(1)
    assert pools.pools["small"].set_low_water(0)


def test_passes_are_counted_in_passes() -> None:
    with pytest.raises(ConfigurationError, match="expected at least 0 passes"):
        small_and_large(1, max_passes=-1)


async def test_in_the_kernel_the_limit_can_be_set_below_what_pools_keep() -> None:
    async with entered(MbufPools(64, memory=AccountedMemory())) as pools:
        assert pools.pools["mbufpl"].set_low_water(16)
        assert pools.budget.allocated == PAGE
        pools.budget.resize(PAGE - 1)
        assert pools.budget.debt == 1


# What check() finds


async def test_check_names_the_pool_whose_pages_are_broken() -> None:
    async with entered(small_and_large(1)) as pools:
        supply = pools.pools["large"]._supply
        supply.nget += 1
        with pytest.raises(PoolCorruption, match=r"^pool 'large': "):
            pools.check()
        supply.nget -= 1


def set_to(name: str, value: Any) -> Callable[[Any], None]:
    *parts, last = name.split(".")
    return lambda waiters: setattr(reduce(getattr, parts, waiters), last, value)


@pytest.mark.parametrize(
    ("breaks", "says"),
    [
        (set_to("_state.waiting", 3), "2 requests stand in the queues, but 3 are counted"),
        (
            lambda waiters: setattr(waiters.bytes_queue.requests.head, "error", ValueError()),
            "a settled request stands in a queue",
        ),
        (
            lambda waiters: waiters.active.clear(),
            "the queues that a request waits in are not those noted",
        ),
        (
            lambda waiters: waiters.order.short.add(waiters._pool_queues[1]),
            "a queue without requests is noted as short",
        ),
        (set_to("_running", True), "the queues were left in the middle of a run"),
        (set_to("_again", True), "the queues were left in the middle of a run"),
        (set_to("_state.owner_loop.open_to", 1), "newcomers are not sent where they should go"),
        (set_to("order.debt_pass_limit", 1), "a debt is noted that was paid"),
        (
            lambda waiters: setattr(waiters._pool_queues[0].supply, "watched", False),
            "pool 'small' does not report each put",
        ),
        (
            lambda waiters: setattr(waiters._pool_queues[0].supply, "wanted", 2),
            "pool 'small' does not report each put",
        ),
    ],
    ids=[
        "count",
        "settled",
        "active",
        "short",
        "running",
        "again",
        "busy",
        "debt",
        "watch",
        "wanted",
    ],
)
async def test_check_finds_what_is_broken_in_the_lines(
    breaks: Callable[[Any], None], says: str
) -> None:
    pools = small_and_large(2)
    async with entered(pools), anyio.create_task_group() as tasks:
        held = await pools.get(PAGE)
        waiting = [
            await taking(tasks, reserve, pools, 2 * PAGE),
            await taking(tasks, pools.get, KIB),
        ]
        pools.check()
        waiters = pools._waiters
        head = waiters.bytes_queue.requests.head
        assert head is not None
        waiting_before, active, short = (
            pools._state.waiting,
            dict(waiters.active),
            set(waiters.order.short),
        )
        supply = waiters._pool_queues[0].supply
        breaks(waiters)
        with pytest.raises(PoolCorruption) as caught:
            pools.check()
        assert str(caught.value) == says
        pools._state.waiting, waiters.active, waiters.order.short = waiting_before, active, short
        waiters._running = waiters._again = False
        pools._owner_loop.open_to = 0
        waiters.order.debt_pass_limit = None
        supply.watched, supply.wanted = True, 1
        head.error = None
        pools.check()
        for one in waiting:
            one.cancel()
        await settle()
        held.release()


async def test_check_finds_that_newcomers_queue_though_nobody_waits() -> None:
    async with entered(small_and_large(1)) as pools:
        pools._owner_loop.open_to = 0
        with pytest.raises(PoolCorruption, match="newcomers are not sent"):
            pools.check()
        pools._owner_loop.open_to = pools._owner_loop.thread


@pytest.mark.parametrize("order", ORDERED)
async def test_check_finds_an_idle_page_kept_while_a_claim_waits(order: str) -> None:
    pools = small_and_large(2, order=order, reclaim="gc")
    async with entered(pools), anyio.create_task_group() as tasks:
        pools.get_nowait(KIB).release()
        claim = await taking(tasks, reserve, pools, 2 * PAGE)
        pools.check()
        pools._waiters.reclaimer.pressure = True
        with pytest.raises(
            PoolCorruption, match=r"^a claim waits while a pool has an idle page to spare$"
        ):
            pools.check()
        pools._waiters.reclaimer.pressure = False
        claim.cancel()
        await settle()


# The short ways

ONE = PoolSpec(PAGE, name="one", items_per_page=1)


@pytest.mark.parametrize("how", ["get", "get_nowait"])
async def test_the_pool_of_a_size_that_was_asked_for_before_is_looked_up_in_a_table(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def get(nbytes: int) -> Buffer:
        return await pools.get(nbytes) if how == "get" else pools.get_nowait(nbytes)

    async with entered(BufferPools("1 MiB", [512, 2048])) as pools:
        for nbytes in (64, 449, 512, 513, 2048):
            (await get(nbytes)).release()
        monkeypatch.setattr(BufferPools, "pool_for", None)
        for nbytes, name in ((1, "512"), (64, "512"), (512, "512"), (576, "2048"), (2048, "2048")):
            buffer = await get(nbytes)
            assert (buffer.pool.name, buffer.nbytes) == (name, nbytes)
            buffer.release()


async def test_only_sizes_of_which_all_belong_to_one_pool_are_kept_in_the_table() -> None:
    pools = BufferPools("8 MiB", [96, 512, 1024 * 64, 2**20])
    async with entered(pools):
        for nbytes in (64, 96, 128, 512, 1024 * 64, 1024 * 64 + 1):
            pools.get_nowait(nbytes).release()
        names = {lines: pool.name for lines, pool in pools._pool_of.items()}
        # A second cache line has bytes of the pools of 96 and of 512 bytes.
        assert names == {1: "96", 8: "512", 1024: "65536"}


async def test_a_get_of_a_pool_with_free_items_does_not_take_the_slow_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with entered(BufferPools("1 MiB", [512])) as pools:
        pool = pools.pools["512"]
        pool.get_nowait().release()
        monkeypatch.setattr(type(pool), "_get_nowait_slowly", None)
        buffer = pool.get_nowait()
        assert buffer.pool is pool
        buffer.release()


@pytest.mark.parametrize("fast", [True, False])
async def test_a_reserve_that_is_served_at_once_lets_other_tasks_run_unless_it_need_not(
    fast: bool,
) -> None:
    async with entered(BufferPools("1 MiB", [512], fast_acquire=fast)) as pools:
        reserving = Counted(pools.reserve(100))
        (await reserving).release()
        assert bool(reserving.checkpoints) is not fast


async def test_a_get_is_served_that_finds_exactly_the_room_of_a_page_while_others_wait() -> None:
    async with entered(one_item_pages(3)) as pools, anyio.create_task_group() as tasks:
        a, b = pools.pools["a"], pools.pools["b"]
        held = [await a.get() for _ in range(2)]
        waits = await taking(tasks, a.get)  # at the maximum of its pool
        held.append(b.get_nowait())
        waits.cancel()
        release_all(held)


async def test_an_item_that_is_handed_over_has_the_size_that_the_request_asked_for() -> None:
    async with entered(BufferPools(PAGE, [ONE])) as pools, anyio.create_task_group() as tasks:
        held = await pools.get(PAGE)
        getter = await taking(tasks, pools.get, 100)
        held.release()
        await settle()
        assert (getter.lease.nbytes, len(getter.lease.view)) == (100, 100)
        getter.lease.release()


# Leases


async def test_a_view_whose_export_kept_it_from_its_revocation_is_revoked_at_a_tick() -> None:
    async with entered(BufferPools(PAGE, [ONE])) as pools:
        with await pools.get(100) as buffer:
            view = buffer.view
            export = pickle.PickleBuffer(view)
        assert pools.statistics().quarantined == 1
        assert view[0] == 0, "it could not be revoked"
        export.release()
        await anyio.sleep(3)
        assert pools.statistics().nout == 0
        with pytest.raises(ValueError, match="released"):
            view[0]
        assert not pools._state.exporting, "no tick looks for more"


@pytest.mark.skipif(sys.version_info < (3, 12), reason="on 3.11 the exporter is an array")
async def test_the_exporter_of_a_lease_that_has_ended_exports_nothing_more() -> None:
    async with entered(BufferPools(PAGE, [ONE])) as pools:
        buffer = await pools.get(100)
        assert len(buffer.view) == 100
        assert buffer._item is not None
        exporter: Any = buffer._item.window
        buffer.release()
        with pytest.raises(BufferError, match="the lease of this memory has ended"):
            memoryview(exporter)


async def test_debug_overwrites_the_bytes_of_a_lease_even_if_no_view_was_asked_for() -> None:
    async with entered(BufferPools(PAGE, [ONE], debug=True)) as pools:
        (await pools.get(100)).release()
        with await pools.get(100) as buffer:
            assert set(buffer.view) != {0}


@pytest.mark.parametrize("how", ["released", "left", "exported"])
async def test_the_event_of_a_put_tells_the_bytes_that_were_asked_for(how: str) -> None:
    """Of an item that comes home from quarantine it tells the size of the item."""
    told: list[tuple[str, int]] = []
    async with entered(
        BufferPools(PAGE, [ONE], hook=lambda event: told.append((event.kind.name, event.nbytes)))
    ) as pools:
        buffer = await pools.get(100)
        part = buffer.view[:5] if how == "exported" else None
        if how == "released":
            buffer.release()
        else:
            buffer.end()
        if part is not None:
            part.release()
        await settle()
        assert ("PUT", PAGE if how == "exported" else 100) in told


# Order


async def test_each_queue_by_itself_the_pools_come_first_then_several_items_then_bytes() -> None:
    async with entered(one_item_pages(4)) as pools, anyio.create_task_group() as tasks:
        held = [await pools.pools["b"].get() for _ in range(4)]
        several = await taking(tasks, pools.get_many, [D, D])
        nbytes = await taking(tasks, reserve, pools, PAGE)
        one = await taking(tasks, pools.pools["d"].get)
        queues = sorted(pools._waiters.active, key=turn, reverse=True)
        assert [type(queue).__name__ for queue in queues] == [
            "BytesQueue",
            "ManyQueue",
            "PoolQueue",
        ]
        assert len({turn(queue) for queue in queues}) == 3
        for getter in (several, nbytes, one):
            getter.cancel()
        release_all(held)


async def test_a_debt_keeps_its_place_when_the_limit_is_lowered_again() -> None:
    async with entered(BufferPools(4 * PAGE, [ONE])) as pools:
        held = [await pools.get(1) for _ in range(4)]
        order = pools._waiters.order
        limits: list[float | None] = []
        for npages in (3, 2, 4):
            pools.resize(npages * PAGE)
            limits.append(order.debt_pass_limit)
            order.passes += 1
        assert limits[0] is not None
        assert limits[1:] == [limits[0], None]
        release_all(held)


async def test_a_debt_may_not_be_passed_more_often_than_the_claims_before_it() -> None:
    pools = BufferPools(4 * PAGE, [ONE], max_passes=2)
    async with entered(pools), anyio.create_task_group() as tasks:
        held = [await pools.get(1) for _ in range(4)]
        claim = await taking(tasks, reserve, pools, 2 * PAGE)
        order = pools._waiters.order
        limit = min(order.pass_limit(queue.head) for queue in order.short)
        order.passes += 1
        pools.resize(3 * PAGE)
        assert order.debt_pass_limit == limit
        claim.cancel()
        release_all(held)


# The rest


async def test_an_applications_pool_that_has_its_minimum_lets_an_idle_page_go() -> None:
    spec = PoolSpec(PAGE, items_per_page=1, min_items=1, name="one")
    async with entered(BufferPools("1 MiB", [spec])) as pools:
        held = [await pools.get(1) for _ in range(3)]
        held.pop().release()
        await anyio.sleep(30)
        assert pools.pools["one"].statistics().npages == 2
        release_all(held)


async def test_a_repair_makes_no_more_items_where_some_are_free() -> None:
    async with entered(BufferPools("1 MiB", [PoolSpec(64, items_per_page=64, name="x")])) as pools:
        held = await pools.get(1)
        page = pools.pools["x"]._supply.curpage
        assert page is not None
        made = page.made
        assert 1 < made < 64
        pools._state.breaks()
        pools._state.mend()
        assert page.made == made
        held.release()


def test_a_full_stack_is_noticed_before_it_overflows() -> None:
    def depth(calls: int) -> int:
        return calls if stack_is_full() else depth(calls + 1)

    assert not stack_is_full()
    assert depth(0) > 10


def test_the_causes_of_a_memory_error_lose_their_frames_too() -> None:
    def failing(cause: BaseException | None) -> MemoryError:
        try:
            raise MemoryError from cause
        except MemoryError as error:
            return error

    first = failing(None)
    second = failing(first)
    third = _without_frames(failing(second))
    assert [error.__traceback__ for error in (first, second, third)] == [None] * 3


def test_a_task_without_a_name_is_told_by_its_id() -> None:
    task = SimpleNamespace(name="")
    assert name_of(task) == f"task {id(task)}"


async def test_a_queue_is_shown_with_its_kind_and_how_many_wait() -> None:
    async with entered(BufferPools(PAGE, [ONE])) as pools, anyio.create_task_group() as tasks:
        held = await pools.get(1)
        getter = await taking(tasks, pools.get, 1)
        assert repr(pools.pools["one"]._queue) == "<PoolQueue for one, 1 waiting>"
        getter.cancel()
        held.release()


# Leases that are dropped


@pytest.mark.parametrize("debug", [False, True])
async def test_the_warning_of_a_dropped_lease_leads_to_what_it_belongs_to(debug: bool) -> None:
    async with entered(small_and_large(2, debug=debug)) as pools:
        said = advice(pools._state.tracker)
        buffer, reservation = await pools.get(KIB), await pools.reserve(100)
        with pytest.warns(ResourceWarning) as told:
            del buffer
        with pytest.warns(ResourceWarning) as told_too:
            del reservation
        await settle()
        assert told[0].source is pools.pools["small"]
        assert told_too[0].source is pools._state
        for warning in (told[0], told_too[0]):
            assert str(warning.message).endswith(f"was dropped without a release; {said}")


@pytest.mark.caller
async def test_a_dropped_reservation_is_reported_at_the_line_that_drops_it() -> None:
    async with entered(small_and_large(1)) as pools:
        reservation = await pools.reserve(100)
        with pytest.warns(ResourceWarning) as told:
            del reservation
        await settle()
        assert told[0].filename == __file__


@pytest.mark.parametrize("kind", ["buffer", "reservation"])
async def test_a_dropped_lease_is_logged_with_its_holder_unless_nobody_noted_it(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with entered(small_and_large(1, debug=True)) as pools:
        tracker = pools._state.tracker
        assert tracker is not None
        for known in (True, False):
            lease: Any = await (pools.get(100) if kind == "buffer" else pools.reserve(100))
            if not known:
                for held, _ in tracker.held():
                    tracker.released(held)
            with pytest.warns(ResourceWarning):
                del lease
            await settle()
    first, second = (record.getMessage() for record in caplog.records)
    assert re.search("dropped without a release: 100 bytes.* by task ", first)
    assert second.endswith(
        "dropped without a release; its holder is not known "
        "(an exception may have ended the call that took it)"
    )


class Unwritable(logging.Handler):
    """A log that nothing can be written to."""

    def emit(self, record: logging.LogRecord) -> None:
        raise LookupError("no log")


@pytest.mark.parametrize("kind", ["buffer", "reservation"])
async def test_a_dropped_lease_comes_back_even_if_it_cannot_be_logged(kind: str) -> None:
    logger, handler = logging.getLogger("mbufpools"), Unwritable()
    async with entered(small_and_large(1)) as pools:
        lease: Any = await (pools.get(PAGE) if kind == "buffer" else pools.reserve(PAGE))
        with pytest.warns(ResourceWarning):
            del lease
        logger.addHandler(handler)
        try:
            with pytest.raises(LookupError, match="no log"):
                pools._owner_loop.run_deferred()
        finally:
            logger.removeHandler(handler)
        assert (pools.statistics().nout, pools.statistics().reserved) == (0, 0)


async def test_an_item_that_is_lost_before_its_lease_was_made_keeps_its_last_holder() -> None:
    async with BufferPools(PAGE, [ONE], debug=True) as pools:
        supply = pools.pools["one"]._supply
        buffer = await pools.get(100)
        kept = memory_of(buffer)
        buffer.release()
        item = supply.take()
        with pytest.warns(ResourceWarning):
            del item
        await settle()
        assert supply.nout == 0
        kept[0] = 1
        with pytest.raises(PoolCorruption, match="last held as 100 bytes of pool 'one' by task"):
            pools.check()
        kept.release()


async def test_a_buffer_whose_item_was_taken_back_can_neither_be_used_nor_released() -> None:
    async with entered(BufferPools(PAGE, [ONE])) as pools:
        nowhere: Any = _Nowhere()
        assert nowhere.lists is nowhere.state is nowhere
        item = object.__new__(Item)
        item.page, item.index, item.window = nowhere, 0, None
        buffer = hold(Buffer, pools.pools["one"]._supply, 100, item)
        with pytest.raises(UseAfterRelease, match="its item taken back"):
            _ = buffer.view
        with pytest.raises(DoubleRelease, match="its item taken back"):
            buffer.release()


# Who is served, once more


async def test_only_the_queues_that_are_asked_for_are_served_even_if_one_alone_waits() -> None:
    async with entered(BufferPools(PAGE, [ONE])) as pools, anyio.create_task_group() as tasks:
        held = await pools.get(1)
        getter = await taking(tasks, pools.get, 1)
        order, active = pools._waiters.order, pools._waiters.active
        tried: list[Any] = []

        def serve(queue: Any, quote: int) -> bool:
            tried.append(queue)
            return False

        assert order.serve_in_order(active, (), serve) is False
        assert tried == []
        assert order.serve_in_order(active, tuple(active), serve) is False
        assert tried == list(active)
        getter.cancel()
        held.release()


@pytest.mark.parametrize("blocked", ["at its maximum", "as a claim"])
async def test_behind_a_debt_only_claims_say_how_many_may_pass_in_other_pools(blocked: str) -> None:
    """The request came before one was passed and the debt after it. So the request may be passed
    once less; but if it waits at the maximum of a pool, that holds in its own pools alone."""
    pools = BufferPools(
        100 * PAGE,
        [
            PoolSpec(KIB, name="small", items_per_page=4),
            PoolSpec(2 * KIB, name="other", items_per_page=8),
            PoolSpec(PAGE, name="large", items_per_page=1, max_items=2),
        ],
        order="bounded",
        max_passes=2,
        memory=AccountedMemory(),
    )
    async with entered(pools), anyio.create_task_group() as tasks:
        held: list[Any] = [await pools.get_many([PAGE, PAGE]), pools.get_nowait(2 * KIB)]
        first = await taking(tasks, pools.get_many, [KIB, PAGE])
        held.append(pools.get_nowait(KIB))
        held.append(pools.get_nowait(KIB))
        order = pools._waiters.order
        assert order.passes == 2
        order.passes = 1
        pools.resize(pools.budget.allocated - PAGE)
        assert (pools.budget.debt, order.debt_pass_limit) == (PAGE, 3)
        if blocked == "as a claim":
            pools.pools["large"]._supply.max_items = None
        held.append(pools.get_nowait(2 * KIB))
        if blocked == "at its maximum":
            held.append(pools.get_nowait(2 * KIB))
        with pytest.raises(anyio.WouldBlock):
            pools.get_nowait(2 * KIB)
        release_all(held)
        await settle()
        first.release()


async def test_a_get_is_no_deadlock_if_it_may_pass_a_debt_and_no_claim_waits() -> None:
    pools = BufferPools(
        8 * PAGE,
        [ONE, PoolSpec(KIB, name="small", items_per_page=4, max_items=2)],
        memory=AccountedMemory(),
        order="bounded",
        debug=True,
    )

    async def hold_and_wait() -> None:
        with await pools.get_many([KIB, *[PAGE] * 4]), await pools.get(KIB):
            pass

    async with entered(pools), anyio.create_task_group() as tasks:
        held = await pools.get(KIB)
        tasks.start_soon(hold_and_wait)
        await settle()
        pools.resize(2 * PAGE)
        assert not pools._waiters.order.short
        (waiter,) = pools.explain().waiters
        assert waiter.stuck is False
        held.release()


async def test_a_newcomer_behind_a_head_that_has_room_by_now_serves_it() -> None:
    """Without a wakeup, the head is not served when the page leaves."""
    pools = small_and_large(1, order="fifo", wakeup=Wakeup.NONE)
    async with entered(pools), anyio.create_task_group() as tasks:
        held = await pools.reserve(PAGE)
        head = await taking(tasks, pools.get, PAGE)
        held.release()
        assert head.waits
        newcomer = await taking(tasks, pools.get, PAGE)
        assert (head.waits, newcomer.waits) == (False, True)
        head.release()
        await settle()
        newcomer.release()


async def test_a_newcomer_behind_a_head_that_clearly_must_wait_asks_the_budget_for_nothing() -> (
    None
):
    async with entered(small_and_large(1)) as pools, anyio.create_task_group() as tasks:
        held = await pools.get(PAGE)
        head = await taking(tasks, pools.get, PAGE)
        drops = pools.budget.drops
        newcomer = await taking(tasks, pools.get, PAGE)
        assert pools.budget.drops == drops
        held.release()
        await settle()
        head.release()
        await settle()
        newcomer.release()


class UnderTheKernelsRules(BufferPools):
    """Pools in which a maximum that is raised wakes nobody, and the gc counts idle pages alone."""

    _rules = KERNEL


@pytest.mark.parametrize("min_items", [0, 2])
async def test_a_newcomer_behind_a_head_for_whom_items_are_free_by_now_serves_it(
    min_items: int,
) -> None:
    spec = PoolSpec(KIB, items_per_page=4, max_items=2, min_items=min_items, name="small")
    async with (
        entered(UnderTheKernelsRules(PAGE, [spec], order="fifo", reclaim="gc")) as pools,
        anyio.create_task_group() as tasks,
    ):
        pool = pools.pools["small"]
        held = [await pool.get(), await pool.get()]
        head = await taking(tasks, pool.get)
        pool.set_max_items(3)
        if min_items:
            pool._supply.min_items = 3  # so that it is within the minimum
        assert head.waits
        newcomer = await taking(tasks, pool.get)
        assert (head.waits, newcomer.waits) == (False, True)
        release_all(held)
        await settle()
        head.release()
        newcomer.release()


async def test_under_the_kernels_rules_the_gc_leaves_as_many_idle_pages_as_the_minimum_has() -> (
    None
):
    spec = PoolSpec(PAGE, items_per_page=1, min_items=1, name="one")
    async with entered(UnderTheKernelsRules("1 MiB", [spec])) as pools:
        held = [await pools.get(1) for _ in range(2)]
        held.pop().release()
        await anyio.sleep(30)
        assert pools.pools["one"].statistics().npages == 2
        held.pop().release()
        await anyio.sleep(30)
        assert pools.pools["one"].statistics().npages == 1


async def test_idle_pages_that_are_too_few_stay_and_the_budget_counts_the_refusal() -> None:
    pools = small_and_large(2, wakeup=Wakeup.NONE)
    async with entered(pools), anyio.create_task_group() as tasks:
        held = await pools.get(PAGE)
        pools.get_nowait(KIB).release()
        assert pools._waiters.reclaimer.any_idle()
        drops = pools.budget.drops
        several = await taking(tasks, pools.get_many, [PAGE, PAGE])
        assert pools.budget.drops == drops + 1
        several.cancel()
        held.release()


async def test_an_item_that_a_request_waits_for_goes_straight_to_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with entered(BufferPools(PAGE, [ONE])) as pools, anyio.create_task_group() as tasks:
        held = await pools.get(1)
        getter = await taking(tasks, pools.get, 1)
        with monkeypatch.context() as patch:
            patch.setattr(Supply, "_put_watched", None)
            held.release()
        await settle()
        getter.release()


async def test_an_item_that_comes_back_under_a_debt_passes_it_only_as_often_as_it_may() -> None:
    pools = BufferPools(2 * PAGE, [ONE], order="bounded", max_passes=0, memory=AccountedMemory())
    async with entered(pools), anyio.create_task_group() as tasks:
        held = [await pools.get(1), await pools.get(1)]
        getter = await taking(tasks, pools.get, 1)
        pools.resize(PAGE)
        held.pop().release()
        await settle()
        assert (getter.waits, pools.budget.debt, pools.budget.allocated) == (True, 0, PAGE)
        held.pop().release()
        await settle()
        getter.release()


async def test_a_broken_set_is_repaired_before_an_item_goes_to_a_request() -> None:
    """An exception may have ended a step in which the request was served already."""
    async with entered(BufferPools(2 * PAGE, [ONE])) as pools, anyio.create_task_group() as tasks:
        held = [await pools.get(1), await pools.get(1)]
        getter = await taking(tasks, pools.get, 1)
        request = pools.pools["one"]._queue.head
        request.granted = granted = held.pop()
        break_silently(pools)
        held.pop().release()
        await settle()
        assert getter.lease is granted
        assert pools.statistics().nout == 1
        getter.release()


async def test_a_repair_runs_the_wakeup_policy_that_asks_how_near_the_limit_is() -> None:
    pools = small_and_large(1, wakeup=Wakeup.NEAR_LIMIT)
    async with entered(pools):
        break_silently(pools)
        pools._state.mend()
        assert not pools._state.broken


async def test_only_a_size_whose_first_byte_is_in_the_same_pool_is_kept_in_the_table() -> None:
    async with entered(BufferPools("1 MiB", [65, 128])) as pools:
        pools.get_nowait(100).release()
        with pools.get_nowait(65) as buffer:
            assert buffer.pool.name == "65"


def test_a_sleeper_of_the_other_backend_reschedules_its_task_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is driven by hand, so that mutation testing runs it."""
    woken: list[object] = []

    class Parked:
        def __await__(self) -> Any:
            yield

    lowlevel = SimpleNamespace(
        current_task=lambda: "task",
        wait_task_rescheduled=lambda abort: Parked(),
        reschedule=woken.append,
    )
    monkeypatch.setitem(sys.modules, "trio", SimpleNamespace(lowlevel=lowlevel))
    sleeper = _TrioSleeper()
    assert sleeper.done() is False
    sleeper.__await__().send(None)
    sleeper.set_result(None)
    sleeper.set_result(None)
    assert sleeper.done() is True
    assert woken == ["task"]


# What is held and noted after a failure, and what `check` finds


async def test_a_buffer_that_no_stack_is_left_to_release_is_still_held(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with entered(small_and_large(1)) as pools, anyio.create_task_group() as tasks:
        buffer = await pools.get(PAGE)
        waiter = await taking(tasks, pools.get, PAGE)  # so each put is watched
        with monkeypatch.context() as full:
            full.setattr("mbufpools._buffer.stack_is_full", lambda: True)
            with pytest.raises(RecursionError) as raised:
                buffer.release()
        assert str(raised.value) == "no stack is left to release a buffer; it is still held"
        assert not buffer.released
        buffer.release()
        await settle()
        waiter.release()


async def test_a_buffer_that_a_task_got_from_a_connection_is_noted_with_its_pool() -> None:
    async with entered(small_and_large(2, debug=True)) as pools:
        with await pools.get(PAGE) as buffer:
            hold_by_connection(buffer, "read ahead", read_ahead=True)
            hold_by_task(buffer)
            (holder,) = pools.explain().holders
            assert (holder.pool, holder.nbytes, holder.connection) == ("large", PAGE, "")


async def test_a_get_that_finds_nothing_after_its_checkpoint_passes_no_other_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with entered(small_and_large(2)) as pools:
        large = pools.pools["large"]
        (await large.get()).release()  # its page is idle now
        taken: list[Buffer] = []
        waits = pools._owner_loop.waits
        own = waits.checkpoint

        async def take_the_last_item() -> None:
            taken.append(large.get_nowait())
            await own()

        monkeypatch.setattr(waits, "checkpoint", take_the_last_item)
        passed: list[bool] = []

        async def noted() -> None:
            passed.append(True)

        monkeypatch.setattr("anyio.lowlevel.cancel_shielded_checkpoint", noted)
        monkeypatch.setattr("anyio.lowlevel.checkpoint_if_cancelled", noted)
        with await large.get():
            assert len(taken) == 1
            assert not passed
        release_all(taken)


async def test_a_pool_that_nobody_waits_for_any_more_reports_no_puts() -> None:
    async with entered(small_and_large(1)) as pools, anyio.create_task_group() as tasks:
        held = await pools.get(PAGE)
        waiter = await taking(tasks, pools.get_many, [PAGE])
        supply = pools.pools["large"]._supply
        before = supply.watched
        held.release()
        await settle()
        assert (before, supply.watched) == (True, False)
        assert not pools._waiters._many_queues
        waiter.release()


@pytest.mark.parametrize("of_memory", [True, False], ids=["of the memory", "of the heap"])
async def test_only_a_memory_error_that_is_not_the_memorys_own_is_taken_to_break_the_set(
    of_memory: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pools = small_and_large(2, memory=Refuses(2) if of_memory else AccountedMemory())
    broken: list[bool] = []
    breaks = SetState.breaks

    def breaks_and_is_noted(state: SetState) -> None:
        broken.append(True)
        breaks(state)

    monkeypatch.setattr(SetState, "breaks", breaks_and_is_noted)

    def no_heap(supply: Supply) -> None:
        raise MemoryError

    async with entered(pools), anyio.create_task_group() as tasks:
        one = await pools.get(PAGE)
        held = await pools.reserve(PAGE)
        waiter = await taking(tasks, pools.get, PAGE)
        with monkeypatch.context() as short:
            if not of_memory:
                short.setattr(Supply, "add_page", no_heap)
            held.release()
            await settle()
        assert isinstance(waiter.error, MemoryError)
        assert bool(broken) is not of_memory
        pools.check()
        one.release()


async def test_check_finds_a_free_item_that_its_page_has_not_made() -> None:
    async with entered(small_and_large(1)) as pools:
        (await pools.get(1)).release()
        supply = pools.pools["small"]._supply
        page = supply.curpage
        assert page is not None
        item = page.free[-1]
        number, item.index = item.index, page.made
        with pytest.raises(PoolCorruption, match="that a free item is one of its page does not"):
            pools.check()
        item.index = number
        pools.check()


async def test_check_finds_a_pool_with_an_idle_page_that_is_not_noted() -> None:
    async with entered(small_and_large(1)) as pools:
        (await pools.get(1)).release()
        with_idle = dict(pools._state.supplies_with_idle)
        assert with_idle
        pools._state.supplies_with_idle.clear()
        with pytest.raises(PoolCorruption) as raised:
            pools.check()
        assert str(raised.value) == (
            "pool 'small': that a pool with pages on the empty list is noted as one that may have "
            "an idle page does not hold"
        )
        pools._state.supplies_with_idle.update(with_idle)
        pools.check()


@pytest.mark.parametrize("ended", [True, False])
def test_a_task_of_the_other_backend_has_ended_if_nothing_of_it_can_go_on(ended: bool) -> None:
    """It is made by hand, so that mutation testing runs it."""
    frame = None if ended else object()
    assert has_ended(SimpleNamespace(coro=SimpleNamespace(cr_frame=frame))) is ended
    nursery = SimpleNamespace(child_tasks=set[Any]())
    by_its_methods = SimpleNamespace(coro=object(), parent_nursery=nursery)
    nursery.child_tasks = [] if ended else [by_its_methods]
    assert has_ended(by_its_methods) is ended


@pytest.mark.parametrize("inserted", [False, True], ids=["before it is on a list", "after"])
async def test_a_page_that_could_not_be_added_is_unmapped_unless_it_is_on_a_list(
    inserted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    unmapped: list[Block] = []

    class Noted(AccountedBlock):
        def unmap(self) -> bool:
            unmapped.append(self)
            return super().unmap()

    class Noting(AccountedMemory):
        def allocate(self, nbytes: int) -> Block:
            return Noted()

    insert = Supply.insert

    def fails(supply: Supply, page: Page) -> None:
        if inserted:
            insert(supply, page)
        raise KeyboardInterrupt

    async with entered(small_and_large(2, memory=Noting())) as pools:
        with monkeypatch.context() as broken:
            broken.setattr(Supply, "insert", fails)
            with pytest.raises(KeyboardInterrupt):
                pools.get_nowait(PAGE)
        assert len(unmapped) == (not inserted)
        pools.check()


async def test_a_page_whose_item_was_taken_again_at_once_stays_on_the_full_list() -> None:
    async with entered(small_and_large(1)) as pools:
        with await pools.get(PAGE) as buffer:
            supply = pools.pools["large"]._supply
            item = buffer._item
            assert item is not None
            supply.settle(item.page)  # as for a put, whose item another thread has taken
            pools.check()


async def test_a_token_that_its_page_has_not_counted_dies_without_a_report() -> None:
    async with entered(small_and_large(1)) as pools:
        with await pools.get(1) as buffer:
            item = buffer._item
            assert item is not None
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                Item(item.page, item.page.made)  # an exception has ended `make_tokens`
            assert not caught
            assert not pools.pools["small"]._supply.lost


async def test_only_in_debug_mode_a_buffer_is_of_the_class_that_notes_its_with() -> None:
    for debug in (False, True):
        pools = small_and_large(1, debug=debug)
        async with entered(pools), anyio.create_task_group() as tasks:
            held = await pools.get(PAGE)
            assert (type(held) is Buffer) is not debug
            waiter = await taking(tasks, pools.get, PAGE)
            held.release()
            await settle()
            assert (type(waiter.lease) is Buffer) is not debug
            waiter.release()
