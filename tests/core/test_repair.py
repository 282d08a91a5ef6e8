"""The repair of a set after an exception that ended a step in its middle, one result at a time."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from mbufpools import AccountedMemory, BufferPools, PoolSpec
from mbufpools._debug import advice
from tests.kit.getters import until
from tests.kit.grants import break_silently, entered

ONE_ITEM = PoolSpec(4096, items_per_page=1)


async def test_the_gate_of_the_gets_is_open_again_after_the_repair() -> None:
    async with entered(BufferPools(4096, [ONE_ITEM])) as pools:
        (await pools.get(1)).release()
        break_silently(pools)
        pools._state.mend()
        assert pools._state.broken is False
        assert pools._owner_loop.open_to == pools._owner_loop.thread


async def test_a_page_that_had_begun_to_leave_leaves() -> None:
    memory = AccountedMemory()
    async with entered(BufferPools(3 * 4096, [ONE_ITEM], memory=memory)) as pools:
        pool = pools.pools["4096"]
        held = await pools.get(1)
        pool.prime(2)
        (leaving, *_) = list(pool._supply.idle_pages())
        leaving.left = True
        break_silently(pools)
        pools._state.mend()
        assert leaving not in pools._state.quarantine
        assert (pool._supply.npages, pools.budget.allocated) == (2, 2 * 4096)
        pools.check()
        held.release()


async def test_a_page_that_had_begun_to_leave_and_is_exported_stays_charged_until_it_can() -> None:
    async with entered(BufferPools(2 * 4096, [ONE_ITEM])) as pools:
        pool = pools.pools["4096"]
        pool.prime(2)
        (leaving, *_) = list(pool._supply.idle_pages())
        exported = memoryview(leaving.block.view)[:1]  # type: ignore[arg-type]
        leaving.left = True
        break_silently(pools)
        pools._state.mend()
        assert pools._state.quarantine == {leaving: (4096, "4096")}
        assert pools.budget.allocated == 2 * 4096
        pools.check()
        exported.release()
        pools._state.empty_quarantine()
        assert pools.budget.allocated == 4096


async def test_a_page_whose_last_put_was_interrupted_is_given_back_although_it_was_shown() -> None:
    async with entered(BufferPools(2 * 4096, [ONE_ITEM])) as pools:
        pool = pools.pools["4096"]
        buffer = await pools.get(1)
        with buffer.view as view:
            assert len(view) == 1
        item, buffer._item = buffer._item, None
        assert item is not None
        assert item.window is not None
        assert item.window.revoke()
        pool._supply.clear(item)
        item.page.free.append(item)
        break_silently(pools)
        pools._state.mend()
        assert pool.reclaim() == 1
        assert pools.budget.allocated == 0
        pools.check()


async def test_what_is_reserved_stays_charged() -> None:
    async with entered(BufferPools(4 * 4096, [ONE_ITEM])) as pools:
        held, reserved = await pools.get(1), await pools.reserve(100)
        pools._budget._allocated = 1
        break_silently(pools)
        pools._state.mend()
        assert pools.budget.allocated == 4096 + 100
        held.release()
        reserved.release()


async def test_a_request_that_was_granted_but_not_woken_is_woken_and_leaves_its_queue() -> None:
    async with entered(BufferPools(4096, [ONE_ITEM])) as pools, anyio.create_task_group() as tasks:
        held = await pools.get(1)
        got: list[Any] = []

        async def getter() -> None:
            got.append(await pools.get(2))

        tasks.start_soon(getter)
        await until(lambda: pools.statistics().waiting == 1)
        queue = pools._waiters._pool_queues[0]
        request = queue.head
        # The step ended after the item was given, and before anything else.
        request.granted, given = held, held
        break_silently(pools)
        pools._state.mend()
        assert not queue.requests
        assert pools._state.waiting == 0
        await until(lambda: bool(got))
        assert got == [given]
        pools.check()
        held.release()


@pytest.mark.parametrize("debug", [False, True])
async def test_a_lost_item_is_logged_with_its_holder_if_that_is_known(
    debug: bool, caplog: pytest.LogCaptureFixture
) -> None:
    spec = PoolSpec(4096, name="frames", items_per_page=1)
    async with entered(BufferPools(4096, [spec], debug=debug)) as pools:
        buffer = await pools.get(1)
        with pytest.warns(ResourceWarning):
            del buffer
        await anyio.sleep(1)
        assert pools.statistics().nout == 0
    (record,) = caplog.records
    text, _, holder = record.getMessage().partition("release")
    assert text == "a buffer of pool 'frames' was dropped without a "
    if debug:
        assert holder.startswith(": 1 bytes")
    else:
        assert holder == f"; {advice(None)}"


async def test_views_of_leases_that_have_ended_are_revoked_at_a_tick() -> None:
    async with entered(BufferPools(2 * 4096, [ONE_ITEM])) as pools:
        kept: list[tuple[memoryview, memoryview]] = []
        for _ in range(2):
            with await pools.get(100) as buffer:
                kept.append((buffer.view, buffer.view[:5]))
        assert pools.statistics().quarantined == 2
        for _, part in kept:
            part.release()  # what was made from the view has gone; the view itself is still there
        await anyio.sleep(2)
        assert pools.statistics().nout == 0
        for view, _ in kept:
            with pytest.raises(ValueError, match="released"):
                view[0]
        pools.check()


async def test_a_lease_whose_end_was_interrupted_is_finished_at_a_tick() -> None:
    async with entered(BufferPools(2 * 4096, [ONE_ITEM])) as pools:
        buffers = [await pools.get(100) for _ in range(2)]
        parts = [buffer.view[:5] for buffer in buffers]
        supply = pools.pools["4096"]._supply
        for buffer in buffers:  # the first of the two steps of Supply.end_lease, and no more
            item, buffer._item = buffer._item, None
            assert item is not None
            assert item.window is not None
            supply.quarantined[item] = item.window
            supply.state.exporting[supply] = None
        await anyio.sleep(2)
        assert pools.statistics().quarantined == 2
        for part in parts:
            part.release()
        del part, buffer, buffers, item
        await anyio.sleep(2)
        assert pools.statistics().nout == 0
        pools.check()
