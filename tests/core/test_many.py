"""`get_many`: several buffers at once, all or nothing, and nothing held while it waits."""

from __future__ import annotations

import pickle
from typing import Any

import anyio
import pytest

from mbufpools import (
    AccountedMemory,
    BufferInUse,
    BufferPools,
    Buffers,
    DoubleRelease,
    EventKind,
    ImpossibleRequest,
    Order,
    OversizeRequest,
    PoolSpec,
    RequestError,
    Task,
    UsageError,
)
from tests.kit.grants import (
    KIB,
    ORDERED,
    Counted,
    GrantLog,
    entered,
    release_all,
    reserve,
    settle,
    small_and_large,
    taking,
)

PAGE = 4 * KIB


async def test_the_buffers_come_in_the_order_in_which_they_were_asked_for() -> None:
    async with entered(small_and_large(8)) as pools:
        sizes = [4000, 10, 1000, 4096, 1, 10]
        with await pools.get_many(sizes) as buffers:
            assert [buffer.nbytes for buffer in buffers] == sizes
            assert [buffer.pool.name for buffer in buffers] == [
                "small" if nbytes <= KIB else "large" for nbytes in sizes
            ]
            assert isinstance(buffers, Buffers)
            assert isinstance(buffers, tuple)


async def test_the_buffers_have_memory_of_their_own() -> None:
    async with BufferPools("1 MiB", [512]) as pools:
        with await pools.get_many([512] * 20) as buffers:
            for number, buffer in enumerate(buffers):
                buffer.view[:] = bytes([number]) * 512
            for number, buffer in enumerate(buffers):
                assert bytes(buffer.view) == bytes([number]) * 512


async def test_the_sizes_may_be_any_iterable() -> None:
    async with entered(small_and_large(8)) as pools:
        with await pools.get_many(nbytes for nbytes in (1, 2, 3)) as buffers:
            assert len(buffers) == 3


@pytest.mark.parametrize("order", list(Order))
async def test_nothing_is_held_while_it_waits(order: Order) -> None:
    log = GrantLog()
    pools = small_and_large(2, order=order, hook=log)
    async with entered(pools), anyio.create_task_group() as tasks:
        large = await pools.get(4000)
        many = await taking(tasks, pools.get_many, [4000, 4000])
        assert many.waits
        assert pools.statistics().nout == 1
        assert pools.budget.allocated == PAGE
        assert pools.pools["small"].statistics().npages == 0
        large.release()
        await settle()
        assert pools.pools["large"]._supply.nout == 2
        many.release()


@pytest.mark.parametrize("order", list(Order))
@pytest.mark.parametrize("missing", ["an item", "a page"])
async def test_it_is_all_or_nothing(missing: str, order: Order) -> None:
    log = GrantLog()
    pools = small_and_large(3, order=order, hook=log)
    async with entered(pools), anyio.create_task_group() as tasks:
        held: list[Any] = [await pools.get(1000) for _ in range(4)]
        held += [await pools.get(4000)]
        wants = [1000, 4000] if missing == "an item" else [4000, 4000]
        if missing == "an item":
            held += [await pools.get(4000)]
        many = await taking(tasks, pools.get_many, wants)
        assert many.waits
        out = pools.statistics().nout
        held.pop().release()  # the one is there, the other is not
        await settle()
        if missing == "an item":
            assert many.waits
            assert pools.statistics().nout == out - 1
            held.pop(0).release()
        await settle()
        assert len(many.lease) == 2
        many.release()
        release_all(held)


@pytest.mark.parametrize("order", ORDERED)
async def test_it_waits_in_the_same_order_as_everybody(order: Order) -> None:
    log = GrantLog()
    pools = small_and_large(2, order=order, max_passes=0, hook=log)
    async with entered(pools), anyio.create_task_group() as tasks:
        rest = await pools.reserve(2 * PAGE)
        waiting = [
            await taking(tasks, pools.get, 1001),
            await taking(tasks, pools.get_many, [1002, 4002]),
            await taking(tasks, pools.get, 4003),
            await taking(tasks, pools.get_many, [1004]),
            await taking(tasks, reserve, pools, 5),
        ]
        rest.release()
        for one in waiting:
            await settle()
            assert one.lease is not None
            one.release()
        assert log.granted == [1001, 1002 + 4002, 4003, 1004, 5]


async def test_requests_for_the_same_pools_are_served_in_their_order_even_when_barging() -> None:
    log = GrantLog()
    pools = small_and_large(2, order="barging", hook=log)
    async with entered(pools), anyio.create_task_group() as tasks:
        rest = await pools.reserve(2 * PAGE)
        wants = [[4001, 1], [2, 4002], [4003, 3], [4, 4004]]
        waiting = [await taking(tasks, pools.get_many, sizes) for sizes in wants]
        rest.release()
        for one in waiting:
            await settle()
            one.release()
        assert log.granted == [sum(sizes) for sizes in wants]


async def test_several_of_one_pool_may_be_asked_for_beyond_a_page() -> None:
    async with entered(small_and_large(8)) as pools:
        with await pools.get(1), await pools.get_many([1] * 9):
            statistics = pools.pools["small"].statistics()
            assert (statistics.nout, statistics.npages) == (10, 3)


async def test_what_lies_free_in_partly_used_pages_is_taken_first() -> None:
    async with entered(small_and_large(3)) as pools:
        held = [await pools.get(1) for _ in range(12)]
        release_all(held[::4])
        with await pools.get_many([1, 1, 1]):
            assert pools.pools["small"].statistics().npages == 3
        release_all(held)


async def test_at_the_end_of_with_those_still_held_are_released() -> None:
    async with entered(small_and_large(8)) as pools:
        with await pools.get_many([1, 4000, 2]) as buffers:
            buffers[1].release()
            assert pools.statistics().nout == 2
        assert all(buffer.released for buffer in buffers)
        with pytest.raises(DoubleRelease):
            buffers[0].release()
        buffers.release()  # those still held: none


async def test_a_body_that_raises_releases_all() -> None:
    async with entered(small_and_large(8)) as pools:
        with pytest.raises(KeyError), await pools.get_many([1, 4000]):
            raise KeyError
        assert pools.statistics().nout == 0


async def test_one_that_cannot_be_released_does_not_keep_the_others() -> None:
    async with BufferPools("1 MiB", [512]) as pools:
        buffers = await pools.get_many([512] * 3)
        export = pickle.PickleBuffer(buffers[1].view)
        with pytest.raises(BufferInUse):
            buffers.release()
        assert [buffer.released for buffer in buffers] == [True, False, True]
        export.release()
        buffers.release()
        assert pools.statistics().nout == 0


async def test_a_request_for_one_buffer_is_a_request_for_many() -> None:
    async with entered(small_and_large(8)) as pools:
        (buffer,) = await pools.get_many([7])
        assert buffer.nbytes == 7
        buffer.release()


async def test_a_request_for_none_is_refused() -> None:
    async with entered(small_and_large(8)) as pools:
        with pytest.raises(RequestError, match="no buffers; give at least one size"):
            await pools.get_many([])


@pytest.mark.parametrize(
    ("sizes", "error", "message"),
    [
        ([1, 5000], OversizeRequest, "no buffers of 5000 bytes; the largest are of 4096"),
        ([1, 0], RequestError, "at least 1"),
        ([1, 1.5], TypeError, "integer of bytes"),
        ([4000] * 9, ImpossibleRequest, "takes 36864 bytes, and the limit is 32768"),
        ([1] * 33, ImpossibleRequest, "takes 36864 bytes"),
    ],
)
async def test_what_can_never_be_had_is_refused_at_once_and_takes_nothing(
    sizes: list[Any], error: type[Exception], message: str
) -> None:
    async with entered(small_and_large(8)) as pools:
        with pytest.raises(error, match=message):
            await pools.get_many(sizes)
        assert pools.budget.allocated == 0
        with await pools.get_many([4000] * 8):
            pass


async def test_more_than_the_maximum_of_a_pool_is_refused_at_once() -> None:
    pools = BufferPools("1 MiB", [PoolSpec(1024, max_items=3)], memory=AccountedMemory())
    async with entered(pools):
        with pytest.raises(ImpossibleRequest, match="at most 3 may be out"):
            await pools.get_many([1] * 4)
        with await pools.get_many([1] * 3):
            pass


async def test_it_waits_at_the_maximum_of_a_pool() -> None:
    pools = BufferPools("1 MiB", [PoolSpec(1024, max_items=3), 4096], memory=AccountedMemory())
    async with entered(pools), anyio.create_task_group() as tasks:
        held = [await pools.get(1) for _ in range(2)]
        many = await taking(tasks, pools.get_many, [1, 4096, 1])
        assert many.waits
        assert pools.statistics().pools["4096"].nout == 0
        held.pop().release()
        await settle()
        assert many.lease is not None
        many.release()
        release_all(held)


@pytest.mark.parametrize("order", list(Order))
async def test_a_get_many_cancelled_while_it_waits_leaves_nothing(order: Order) -> None:
    log = GrantLog()
    pools = small_and_large(2, order=order, hook=log)
    async with entered(pools), anyio.create_task_group() as tasks:
        rest = await pools.reserve(2 * PAGE)
        many = await taking(tasks, pools.get_many, [1, 4000])
        other = await taking(tasks, pools.get_many, [1, 4000])
        many.cancel()
        await settle()
        assert many.cancelled
        assert pools.statistics().waiting == 1
        rest.release()
        await settle()
        other.release()
        assert [event.kind for event in log.of(EventKind.CANCEL)] == [EventKind.CANCEL]


async def test_in_a_cancelled_scope_it_takes_nothing_even_what_is_free() -> None:
    async with entered(small_and_large(2)) as pools:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await pools.get_many([1])
        assert scope.cancelled_caught
        assert pools.budget.allocated == 0


@pytest.mark.parametrize("fast_acquire", [False, True])
async def test_it_is_a_checkpoint_when_it_succeeds_at_once(fast_acquire: bool) -> None:
    pools = small_and_large(2, fast_acquire=fast_acquire)  # which is about single buffers
    async with entered(pools):
        counted = Counted(pools.get_many([1, 2]))
        with await counted:
            assert counted.checkpoints > 0


async def test_a_task_of_the_pools_own_queue_is_refused() -> None:
    errors: list[Exception] = []

    async def run() -> None:
        for take in (pools.get_many([1]), reserve(pools, 1)):
            try:
                await take
            except UsageError as error:
                errors.append(error)

    async with entered(small_and_large(2)) as pools:
        pools.taskq.add(Task(run))
        await pools.taskq.barrier()
    assert len(errors) == 2


async def test_flink_two_that_take_both_at_once_cannot_stop_each_other() -> None:
    # One item of each kind; one task wants a then b, the other b then a.
    async with entered(small_and_large(2)) as pools:
        rounds: list[str] = []

        async def run(name: str, sizes: list[int]) -> None:
            for _ in range(50):
                with await pools.get_many(sizes):
                    await anyio.sleep(0.001)
                rounds.append(name)

        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(run, "a", [4000, 1000])
                tasks.start_soon(run, "b", [1000, 4000])
        assert len(rounds) == 100
