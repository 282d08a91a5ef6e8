"""Why am I waiting? What `explain()` says of each who waits, and when it speaks of a deadlock."""

from __future__ import annotations

import gc
import pickle
import weakref
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import anyio
import pytest
from anyio.abc import TaskGroup

from mbufpools import (
    AccountedMemory,
    BufferPools,
    Explanation,
    MbufPools,
    Order,
    PoolSpec,
    WaitingRequest,
    _debug,
    _request,
    _waits,
)
from mbufpools._waits import current_waits, name_of
from tests.kit.grants import ORDERED, entered, release_all, reserve, settle, small_and_large

PAGE = 4096


async def asking(
    tasks: TaskGroup, name: str, take: Callable[..., Awaitable[Any]], *args: Any
) -> None:
    """Start a task of that name that takes something and holds it, and see it parked."""

    async def ask() -> None:
        with await take(*args):
            await anyio.sleep_forever()

    tasks.start_soon(ask, name=name)
    await settle()


def by_task(pools: BufferPools) -> dict[str, WaitingRequest]:
    return {waiter.task: waiter for waiter in pools.explain().waiters}


async def deadlock(pools: BufferPools, tasks: TaskGroup, *names: str) -> None:
    """Have a task of each of these names hold the only item of a page, and ask for one more, so
    that nothing is left. (The pool is ``large``, an item of it is a page.)"""

    async def hold_one_ask_another() -> None:
        with await pools.get(4000):
            await anyio.sleep(1)
            with await pools.get(4000):
                await anyio.sleep(1)

    for name in names:
        tasks.start_soon(hold_one_ask_another, name=name)
    await anyio.sleep(2)


# Who, for what, how long


async def test_when_nobody_waits_it_says_so_and_what_is_allocated() -> None:
    pools = small_and_large(2)
    assert str(pools.explain()) == "no request waits; 0 of 8192 bytes are allocated"
    async with entered(pools):
        with await pools.get(4000), await pools.reserve(100):
            explained = pools.explain()
            assert explained.waiters == ()
            assert not explained.stuck
            assert str(explained) == (
                "no request waits; 4196 of 8192 bytes are allocated, 100 of them reserved"
            )


async def test_when_nobody_waits_it_names_the_holders_in_debug_mode() -> None:
    pools = small_and_large(8, debug=True)
    async with entered(pools):
        with await pools.get(4000):
            (holder,) = pools.explain().holders
            assert str(pools.explain()) == (
                f"no request waits; 4096 of 32768 bytes are allocated\n    held: {holder}"
            )
            many = [await pools.reserve(1) for _ in range(20)]
            assert len(pools.explain().holders) == 21
            assert str(pools.explain()).endswith("\n    and 1 more (`holders` has all)")
            release_all(many)
        assert pools.explain().holders == ()


async def test_it_tells_who_waits_for_what_for_how_long_and_how_many_bytes_are_missing() -> None:
    pools = small_and_large(2)
    async with entered(pools), anyio.create_task_group() as tasks:
        held = [await pools.get(4000), await pools.reserve(1000)]
        await asking(tasks, "the sleeper", pools.get, 3999)
        await anyio.sleep(2.5)
        (waiter,) = pools.explain().waiters
        assert (waiter.task, waiter.wants, waiter.nbytes) == ("the sleeper", "large", 3999)
        assert waiter.seconds == 2.5
        assert (waiter.limit, waiter.short, waiter.charge) == ("budget", 1000, 4096)
        assert waiter.behind is None
        assert str(pools.explain()) == (
            "1 request waits; 5096 of 8192 bytes are allocated, 1000 of them reserved\n"
            f"#{waiter.number} task 'the sleeper' has waited 2.5 s for 3999 bytes of pool "
            "'large'; the budget is short of 1000 bytes (the request needs whole "
            "pages: 4096 bytes)\n"
            "debug=True records which task holds what"
        )
        tasks.cancel_scope.cancel()
        release_all(held)


async def test_at_the_maximum_of_a_pool_it_names_the_pool_and_counts_items() -> None:
    pools = BufferPools(
        "64 KiB",
        [PoolSpec(1024, name="few", max_items=2), PoolSpec(2048, name="many")],
        memory=AccountedMemory(),
    )
    async with entered(pools), anyio.create_task_group() as tasks:
        held = [await pools.get(1024) for _ in range(2)]
        await asking(tasks, "one", pools.get, 1)
        await asking(tasks, "two", pools.get_many, [1, 1, 2000])
        one, two = pools.explain().waiters
        assert (one.limit, one.short, one.behind) == ("few", 1, None)
        assert (two.limit, two.short, two.behind) == ("few", 2, one.number)
        assert "; pool 'few' is short of 1 item of its maximum" in str(one)
        assert "for 2002 bytes of 2 x few + 1 x many, behind #" in str(two)
        assert "; pool 'few' is short of 2 items of its maximum" in str(two)
        tasks.cancel_scope.cancel()
        release_all(held)


# Behind whom


@pytest.mark.parametrize("order", ORDERED)
async def test_those_who_came_after_a_claim_are_behind_it_in_every_pool(order: Order) -> None:
    pools = small_and_large(4, order=order, max_passes=0)
    async with entered(pools), anyio.create_task_group() as tasks:
        held = [await pools.get(4000)]
        await asking(tasks, "the claim", reserve, pools, 4 * PAGE)
        await asking(tasks, "small", pools.get, 1000)
        await asking(tasks, "large", pools.get, 4000)
        claim, small, large = pools.explain().waiters
        assert claim.behind is None
        assert small.behind == large.behind == claim.number
        assert small.limit is large.limit is None, "there is room, but it is not their turn"
        assert str(small).endswith(f"of pool 'small', behind #{claim.number}")
        tasks.cancel_scope.cancel()
        release_all(held)


async def test_where_newcomers_barge_one_is_behind_those_of_his_own_pool_only() -> None:
    pools = small_and_large(2, order="barging")
    async with entered(pools), anyio.create_task_group() as tasks:
        held = [await pools.reserve(2 * PAGE)]
        for name, nbytes in (("first large", 4000), ("second large", 3999), ("small", 1)):
            await asking(tasks, name, pools.get, nbytes)
        told = by_task(pools)
        assert told["first large"].behind is None
        assert told["second large"].behind == told["first large"].number
        assert told["small"].behind is None
        tasks.cancel_scope.cancel()
        release_all(held)


@pytest.mark.parametrize("order", ORDERED)
async def test_a_debt_goes_before_everybody(order: Order) -> None:
    pools = small_and_large(4, order=order, max_passes=0)
    async with entered(pools), anyio.create_task_group() as tasks:
        held = [await pools.get(4000) for _ in range(4)]
        pools.resize(2 * PAGE)
        await asking(tasks, "large", pools.get, 4000)
        (waiter,) = pools.explain().waiters
        assert waiter.behind == 0
        assert (waiter.limit, waiter.short) == ("budget", PAGE), "beside what the debt takes"
        assert ", behind the debt; the budget is short of 4096 bytes" in str(waiter)
        tasks.cancel_scope.cancel()
        release_all(held)


# Who will wake it


async def test_one_who_can_be_served_is_told_that_his_wakeup_is_on_the_way() -> None:
    pools = small_and_large(1, wakeup="deferred")
    async with entered(pools), anyio.create_task_group() as tasks:
        held = await pools.get(4000)
        await asking(tasks, "sleeper", pools.get, 1)
        held.release()
        (waiter,) = pools.explain().waiters
        assert waiter.wakeup
        assert "; it can be served, and its wakeup is on the way" in str(waiter)
        await settle()
        assert pools.explain().waiters == ()
        tasks.cancel_scope.cancel()


async def test_the_stall_of_the_kernel_is_told_as_what_it_is() -> None:
    """The budget is entirely free, and nobody wakes the sleeper."""
    async with (
        entered(MbufPools(8, wakeup="none", memory=AccountedMemory(), debug=True)) as pools,
        anyio.create_task_group() as tasks,
    ):
        held = await pools.get(2048)
        await asking(tasks, "process 2", pools.get, 256)
        assert "; the budget is short of 4096 bytes" in str(pools.explain())
        held.release()
        await anyio.sleep(60)
        (waiter,) = pools.explain().waiters
        assert (waiter.limit, waiter.behind, waiter.wakeup) == (None, None, False)
        assert str(pools.explain()).startswith("1 request waits; 0 of 16384 bytes are allocated\n")
        assert str(waiter).endswith("of pool 'mbufpl'; it can be served, but nothing wakes it")
        assert not waiter.stuck, "nobody holds anything"
        tasks.cancel_scope.cancel()


# Who holds it


@pytest.mark.caller
async def test_in_debug_mode_it_tells_who_holds_what_and_where_he_took_it() -> None:
    pools = small_and_large(2, debug=True)
    async with entered(pools), anyio.create_task_group() as tasks:
        await asking(tasks, "has a buffer", pools.get, 4000)
        await asking(tasks, "has bytes", reserve, pools, PAGE)
        await asking(tasks, "sleeper", pools.get, 4000)
        (waiter,) = pools.explain().waiters
        assert [(holder.task, holder.pool, holder.nbytes) for holder in waiter.holders] == [
            ("has a buffer", "large", 4000),
            ("has bytes", "bytes", PAGE),
        ]
        assert waiter.holders[0].where.startswith(f"{__file__}:")
        assert not waiter.stuck, "they may release at any time"
        text = str(pools.explain())
        assert "held: 4000 bytes of pool 'large' by task 'has a buffer' at " in text
        assert f"held: {PAGE} bytes, reserved by task 'has bytes' at " in text
        assert "waits itself" not in text
        tasks.cancel_scope.cancel()


async def test_who_had_to_wait_holds_what_he_was_handed_and_not_he_who_released_it() -> None:
    pools = small_and_large(1, debug=True)
    async with entered(pools), anyio.create_task_group() as tasks:
        mine = await pools.get(4000)
        await asking(tasks, "first", pools.get, 4000)
        await asking(tasks, "second", pools.get, 4000)
        mine.release()
        await settle()
        (waiter,) = pools.explain().waiters
        assert (waiter.task, [holder.task for holder in waiter.holders]) == ("second", ["first"])
        tasks.cancel_scope.cancel()


async def test_at_a_maximum_the_holders_are_those_of_that_pool() -> None:
    sizes = [PoolSpec(1024, name="few", max_items=1), PoolSpec(2048, name="many")]
    pools = BufferPools("64 KiB", sizes, debug=True, memory=AccountedMemory())
    async with entered(pools), anyio.create_task_group() as tasks:
        await asking(tasks, "of few", pools.get, 1)
        await asking(tasks, "of many", pools.get, 2000)
        await asking(tasks, "sleeper", pools.get, 1)
        (waiter,) = pools.explain().waiters
        assert [holder.task for holder in waiter.holders] == ["of few"]
        tasks.cancel_scope.cancel()


async def test_pages_that_something_exports_are_told_for_nobody_holds_them() -> None:
    pools = BufferPools(PAGE, [PoolSpec(PAGE, items_per_page=1), 64])
    async with entered(pools), anyio.create_task_group() as tasks:
        buffer = await pools.get(PAGE)
        with buffer:
            kept = buffer.view[:10]
            await asking(tasks, "sleeper", pools.get, 64)
        explained = pools.explain()
        assert explained.exported == PAGE
        assert "4096 bytes are in released items or pages that something still exports" in str(
            explained
        )
        kept.release()
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize(("items_per_page", "kept"), [(8, 1 << 20), (1, 8 * 16384)])
async def test_one_buffer_in_each_page_keeps_the_limit_if_pages_are_a_large_part_of_it(
    items_per_page: int, kept: int
) -> None:
    size = PoolSpec(16384, items_per_page=items_per_page)
    async with BufferPools("1 MiB", [size, 2048], memory=AccountedMemory()) as pools:
        buffers = [await pools.get(16384) for _ in range(64)]
        for number, buffer in enumerate(buffers):
            if number % 8:
                buffer.release()
        await anyio.sleep(120)  # idle pages leave, one a second
        assert (pools.statistics().nout, pools.statistics().allocated) == (8, kept)
        release_all(buffers[::8])


# The deadlock


@pytest.mark.caller
async def test_a_deadlock_is_told_with_every_holder_that_waits_itself_and_the_way_out() -> None:
    pools = small_and_large(2, debug=True)
    async with entered(pools), anyio.create_task_group() as tasks:
        await deadlock(pools, tasks, "one", "other")
        explained = pools.explain()
        assert explained.stuck
        first, second = explained.waiters
        assert first.stuck
        assert second.stuck
        text = str(explained)
        for waiter in (first, second):
            where = f"{__file__}:"
            (line,) = [
                line
                for line in text.splitlines()
                if line.startswith(f"    held: 4000 bytes of pool 'large' by task '{waiter.task}'")
            ]
            assert where in line
            assert line.endswith(f", which waits itself (#{waiter.number})")
        assert text.splitlines()[-1] == (
            "deadlock: every holder waits itself, so no request is served until one of them is "
            "cancelled (unless a holder has passed what it took on to another task); take all "
            "that a task needs at once, with get_many"
        )
        tasks.cancel_scope.cancel()


MIN_ITEMS = (
    "reservations hold what buffers need; give the pools of these buffers a min_items, whose "
    "memory no reservation can take"
)


async def reserve_and_get(pools: BufferPools, nbytes: int, take: str = "get") -> None:
    """Reserve a page, and after a second take what else is asked for."""
    async with pools.reserve(PAGE):
        await anyio.sleep(1)
        with await getattr(pools, take)(nbytes):
            await anyio.sleep(1)


@pytest.mark.parametrize("min_items", [0, 1])
async def test_reservations_that_hold_the_memory_of_buffers_are_told_and_min_items_cures_it(
    min_items: int,
) -> None:
    size = PoolSpec(PAGE, items_per_page=1, name="large", min_items=min_items)
    pools = BufferPools(2 * PAGE, [size], debug=True, memory=AccountedMemory())
    async with entered(pools), anyio.create_task_group() as tasks:
        for name in ("one", "other"):
            tasks.start_soon(reserve_and_get, pools, PAGE, name=name)
        await anyio.sleep(20)
        explained = pools.explain()
        assert explained.stuck == (not min_items)
        assert str(explained).endswith(MIN_ITEMS) == (not min_items)
        assert pools.statistics().waiting == (0 if min_items else 2)
        tasks.cancel_scope.cancel()


async def test_a_deadlock_of_reservations_alone_is_not_one_of_min_items() -> None:
    pools = BufferPools(
        2 * PAGE, [PoolSpec(PAGE, items_per_page=1)], debug=True, memory=AccountedMemory()
    )
    async with entered(pools), anyio.create_task_group() as tasks:
        for name in ("one", "other"):
            tasks.start_soon(reserve_and_get, pools, PAGE, "reserve", name=name)
        await anyio.sleep(20)
        assert pools.explain().stuck
        assert "min_items" not in str(pools.explain())
        tasks.cancel_scope.cancel()


async def test_without_debug_a_deadlock_cannot_be_seen_and_it_says_how() -> None:
    pools = small_and_large(2)
    async with entered(pools), anyio.create_task_group() as tasks:
        await deadlock(pools, tasks, "one", "other")
        explained = pools.explain()
        assert not explained.debug
        assert not explained.stuck
        assert [waiter.holders for waiter in explained.waiters] == [(), ()]
        assert str(explained).endswith("debug=True records which task holds what")
        tasks.cancel_scope.cancel()


async def test_it_is_no_deadlock_while_one_holder_can_go_on() -> None:
    pools = small_and_large(3, debug=True)
    async with entered(pools), anyio.create_task_group() as tasks:
        await asking(tasks, "at work", pools.get, 4000)
        await deadlock(pools, tasks, "one", "other")
        explained = pools.explain()
        assert len(explained.waiters) == 2
        assert not explained.stuck
        tasks.cancel_scope.cancel()


async def test_it_is_no_deadlock_any_more_once_a_wakeup_is_on_the_way() -> None:
    pools = small_and_large(3, debug=True)
    async with entered(pools), anyio.create_task_group() as tasks:
        mine = await pools.get(1)
        await deadlock(pools, tasks, "one", "other")
        mine.release()
        explained = pools.explain()
        assert len(explained.waiters) == 2
        assert all(waiter.task in ("one", "other") for waiter in explained.waiters)
        assert not explained.stuck, "both will be served, one after the other"
        await anyio.sleep(10)
        assert pools.explain().waiters == ()


async def test_it_is_no_deadlock_while_an_idle_page_may_leave() -> None:
    pools = small_and_large(3, debug=True, order="barging", reclaim="gc")
    async with entered(pools), anyio.create_task_group() as tasks:
        pools.get_nowait(1).release()
        await deadlock(pools, tasks, "one", "other")
        assert len(pools.explain().waiters) == 2
        assert not pools.explain().stuck
        await anyio.sleep(20)
        assert pools.explain().waiters == ()


@pytest.mark.caller
async def test_it_is_no_deadlock_while_something_that_may_come_back_is_exported() -> None:
    sizes = [PoolSpec(PAGE, name="large", items_per_page=1), PoolSpec(64, name="small")]
    pools = BufferPools(3 * PAGE, sizes, debug=True)
    async with entered(pools), anyio.create_task_group() as tasks:
        buffer = await pools.get(1)
        kept = buffer.view[:1]
        await deadlock(pools, tasks, "one", "other")
        buffer.end()
        assert pools.explain().exported == 64
        assert not pools.explain().stuck
        kept.release()
        await anyio.sleep(10)
        assert pools.explain().waiters == ()


async def test_it_is_no_deadlock_while_a_buffer_is_on_its_way_home() -> None:
    sizes = [PoolSpec(PAGE, name="large", items_per_page=1), PoolSpec(64, name="small")]
    pools = BufferPools(3 * PAGE, sizes, debug=True)
    async with entered(pools), anyio.create_task_group() as tasks:
        buffer = await pools.get(1)
        in_flight = pickle.PickleBuffer(buffer.view)
        await deadlock(pools, tasks, "one", "other")
        with pytest.warns(ResourceWarning, match="dropped without a release"):
            del buffer
        assert len(pools.explain().waiters) == 2
        assert not pools.explain().stuck, "it cannot come home yet, and its holder is no task"
        in_flight.release()
        await anyio.sleep(10)
        assert pools.explain().waiters == ()


async def test_tasks_of_one_name_are_told_apart() -> None:
    pools = small_and_large(2, debug=True)
    async with entered(pools), anyio.create_task_group() as tasks:
        await asking(tasks, "worker", pools.get, 4000)  # works, and will release
        await asking(tasks, "worker", pools.get, 3999)
        await asking(tasks, "worker", pools.get, 3998)
        explained = pools.explain()
        assert [waiter.task for waiter in explained.waiters] == ["worker"]
        assert "waits itself" not in str(explained)
        assert not explained.stuck
        tasks.cancel_scope.cancel()


async def test_a_task_that_hands_on_what_it_takes_looks_deadlocked_and_the_text_says_so() -> None:
    """The pools know who took a buffer, not who has it now."""
    pools = small_and_large(2, debug=True)
    async with entered(pools), anyio.create_task_group() as tasks:
        send, receive = anyio.create_memory_object_stream[Any](10)

        async def read() -> None:
            with send:
                for _ in range(4):
                    send.send_nowait(await pools.get(4000))

        async def write() -> None:
            with receive:
                async for buffer in receive:
                    await anyio.sleep(1)
                    buffer.release()

        tasks.start_soon(read, name="reader")
        tasks.start_soon(write, name="writer")
        await anyio.sleep(0.5)
        explained = pools.explain()
        assert explained.stuck
        assert "unless a holder has passed what it took on to another" in str(explained)


# What an ended task took


def same_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a task's id be the length of its name, so that a test says which tasks have the same id.
    In CPython a task gets the id of one that has ended and is freed, but not at will."""

    def length_of_name(task: Any) -> int:
        return len(name_of(task))

    for module in (_debug, _request, _waits):
        monkeypatch.setattr(module, "id", length_of_name, raising=False)


UNKNOWN = (
    "it is not known whether this is a deadlock: a task that has ended took what the requests "
    "need, and the pools do not know whether another task will release it"
)


async def keeping(
    tasks: TaskGroup, name: str, take: Callable[[int], Awaitable[Any]], nbytes: int
) -> list[Any]:
    """Let a task of that name take so many bytes and end; return what it took."""
    kept: list[Any] = []

    async def keep() -> None:
        kept.append(await take(nbytes))

    tasks.start_soon(keep, name=name)
    await settle()
    assert kept
    return kept


async def test_an_ended_holder_is_told_as_ended_and_not_as_the_task_that_has_its_id_now(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    same_ids(monkeypatch)
    pools = small_and_large(1, debug=True)
    async with entered(pools), anyio.create_task_group() as tasks:
        kept = await keeping(tasks, "the keeper", pools.get, 4000)
        await asking(tasks, "the waiter", pools.get, 4000)
        explained = pools.explain()
        (waiter,) = explained.waiters
        (holder,) = waiter.holders
        assert (waiter.task_id, holder.task_id) == (len("the keeper"), 0)
        assert (holder.task, holder.ended) == ("the keeper", True)
        held, last = str(explained).splitlines()[2:]
        assert held.startswith("    held: 4000 bytes of pool 'large' by task 'the keeper' at ")
        assert held.endswith(", which has ended")
        assert (explained.stuck, last) == (None, UNKNOWN)
        kept.pop().release()
        assert pools.explain().stuck is False
        tasks.cancel_scope.cancel()


async def test_a_holder_that_is_over_has_ended_also_while_something_keeps_its_task() -> None:
    pools = small_and_large(1, debug=True)
    kept: list[Any] = []
    async with entered(pools), anyio.create_task_group() as tasks:

        async def keep() -> None:
            kept.extend([await pools.get(4000), current_waits().native_task()])

        tasks.start_soon(keep)
        await settle()
        await asking(tasks, "the waiter", pools.get, 4000)
        assert pools.explain().stuck is None
        tasks.cancel_scope.cancel()
        kept[0].release()


async def test_the_holders_keep_no_task_alive() -> None:
    async with small_and_large(2, debug=True) as pools, anyio.create_task_group() as tasks:
        kept: list[Any] = []

        async def keep() -> None:
            at_once, granted_later = await pools.get(4000), await pools.get(4000)
            kept.extend([at_once, granted_later, weakref.ref(current_waits().native_task())])

        first = await pools.get(4000)
        tasks.start_soon(keep)
        await settle()
        first.release()
        await settle()
        *buffers, task = kept
        gc.collect()
        assert task() is None
        release_all(buffers)


async def test_a_deadlock_of_others_is_one_whatever_becomes_of_what_an_ended_task_took() -> None:
    few = PoolSpec(1000, name="few", items_per_page=4, min_items=1, max_items=1)
    large = PoolSpec(PAGE, name="large", items_per_page=1)
    pools = BufferPools(3 * PAGE, [few, large], memory=AccountedMemory(), debug=True)
    async with entered(pools), anyio.create_task_group() as tasks:
        kept = await keeping(tasks, "the keeper", pools.get, 1000)
        await asking(tasks, "sleeper", pools.get, 1000)
        assert pools.explain().stuck is None
        await deadlock(pools, tasks, "one", "other")
        stuck = {name: waiter.stuck for name, waiter in by_task(pools).items()}
        assert stuck == {"sleeper": None, "one": True, "other": True}
        assert pools.explain().stuck is True
        assert "deadlock: every holder waits itself" in str(pools.explain())
        assert "not known" not in str(pools.explain())
        tasks.cancel_scope.cancel()
        release_all(kept)


async def test_it_is_known_that_a_request_is_served_if_others_hold_enough_for_it() -> None:
    pools = small_and_large(2, debug=True)
    async with entered(pools), anyio.create_task_group() as tasks:
        kept = await keeping(tasks, "the keeper", pools.get, 4000)
        await asking(tasks, "at work", pools.get, 4000)
        await asking(tasks, "the waiter", pools.get, 4000)
        explained = pools.explain()
        assert explained.stuck is False
        assert [holder.ended for holder in explained.waiters[0].holders] == [True, False]
        assert "not known" not in str(explained)
        tasks.cancel_scope.cancel()
        release_all(kept)


async def test_what_an_ended_task_reserved_is_not_known_to_be_released_either() -> None:
    pools = small_and_large(1, debug=True)
    async with entered(pools), anyio.create_task_group() as tasks:
        kept = await keeping(tasks, "the keeper", pools.reserve, PAGE)
        await asking(tasks, "the waiter", pools.get, 4000)
        assert pools.explain().stuck is None
        tasks.cancel_scope.cancel()
        release_all(kept)


# How much the text says


async def test_the_text_tells_of_twenty_requests_and_counts_the_others() -> None:
    pools = small_and_large(2)
    async with entered(pools), anyio.create_task_group() as tasks:
        held = [await pools.reserve(2 * PAGE)]
        for number in range(58):
            await asking(tasks, f"sleeper {number}", pools.get, 1000)
        explained = pools.explain()
        first, *lines, last, _ = str(explained).splitlines()
        assert first.startswith("58 requests wait; ")
        assert [line.split("'")[1] for line in lines] == [f"sleeper {n}" for n in range(20)]
        assert last == "and 38 more requests wait (`waiters` has all)"
        assert len(explained.waiters) == 58
        tasks.cancel_scope.cancel()
        release_all(held)


async def test_those_in_a_deadlock_are_among_the_requests_that_the_text_tells_of() -> None:
    few = PoolSpec(1000, name="few", items_per_page=4, min_items=1, max_items=1)
    large = PoolSpec(4096, name="large", items_per_page=1)
    pools = BufferPools(3 * PAGE, [few, large], memory=AccountedMemory(), debug=True)
    async with entered(pools), anyio.create_task_group() as tasks:
        held = [await pools.get(1000)]
        for number in range(30):
            await asking(tasks, f"sleeper {number}", pools.get, 1000)
        await deadlock(pools, tasks, "one", "other")
        explained = pools.explain()
        stuck = [waiter.task for waiter in explained.waiters if waiter.stuck]
        assert sorted(stuck) == ["one", "other"]
        names = [line.split("'")[1] for line in str(explained).splitlines() if line[0] == "#"]
        assert names == [*stuck, *(f"sleeper {number}" for number in range(18))]
        tasks.cancel_scope.cancel()
        release_all(held)


async def test_the_text_names_twenty_holders_and_counts_the_others() -> None:
    pools = small_and_large(8, debug=True)
    async with entered(pools), anyio.create_task_group() as tasks:
        held = [await pools.get(1000) for _ in range(32)]
        await asking(tasks, "one", pools.get, 1000)
        await asking(tasks, "other", pools.get, 1000)
        text = str(pools.explain())
        assert text.count("    held: 1000 bytes") == 20
        assert text.count("    and 12 more (`holders` has all)\n") == 1
        assert text.count("    held: the same") == 1
        assert len(pools.explain().waiters[0].holders) == 32
        tasks.cancel_scope.cancel()
        release_all(held)


@pytest.mark.parametrize(
    ("seconds", "says"), [(3.2419, "3.24"), (0.5, "0.5"), (60.06, "60.1"), (86400.4, "86400")]
)
async def test_a_time_has_three_digits_or_those_of_the_whole_seconds(
    seconds: float, says: str
) -> None:
    pools = small_and_large(1)
    async with entered(pools), anyio.create_task_group() as tasks:
        held = [await pools.reserve(PAGE)]
        await asking(tasks, "sleeper", pools.get, 1000)
        (waiter,) = pools.explain().waiters
        assert f"has waited {says} s for" in str(replace(waiter, seconds=seconds))
        tasks.cancel_scope.cancel()
        release_all(held)


async def test_looking_changes_nothing() -> None:
    pools = small_and_large(2, debug=True)
    async with entered(pools), anyio.create_task_group() as tasks:
        await deadlock(pools, tasks, "one", "other")
        before = pools.statistics()
        first = pools.explain()
        assert isinstance(first, Explanation)
        assert pools.explain() == first
        assert pools.statistics() == before
        pools.check()
        tasks.cancel_scope.cancel()
