"""The snapshots: the kernel's counters, frozen, and what they add up to."""

from __future__ import annotations

import dataclasses
import pickle
from typing import Any

import anyio
import pytest

from mbufpools import (
    AccountedMemory,
    BudgetStatistics,
    Buffer,
    BufferPools,
    MbufPools,
    PoolSpec,
    PoolsStatistics,
    PoolStatistics,
    TaskQueueStatistics,
)

FRAMES = PoolSpec(
    512, name="frames", items_per_page=8, min_items=3, max_items=20, max_idle_items=32
)


async def test_every_counter_of_a_pool_counts_what_it_says() -> None:
    async with BufferPools("1 MiB", [FRAMES], memory=AccountedMemory()) as pools:
        pool = pools.pools["frames"]
        assert pool.statistics() == PoolStatistics(
            name="frames",
            item_size=512,
            page_size=4096,
            items_per_page=8,
            nget=0,
            nput=0,
            nfail=0,
            nwait=0,
            nout=0,
            npages=1,
            nidle=1,
            npagealloc=1,
            npagefree=0,
            hiwat=1,
            min_items=3,
            max_items=20,
            max_idle_items=32,
            waiting=0,
        )
        buffers = [await pools.get(1) for _ in range(20)]
        for _ in range(3):
            with pytest.raises(anyio.WouldBlock):
                pools.get_nowait(1)
        async with anyio.create_task_group() as group:
            group.start_soon(pools.get, 1)
            group.start_soon(pools.get, 1)
            await anyio.sleep(0.5)
            assert pool.statistics().waiting == 2
            group.cancel_scope.cancel()
        for buffer in buffers[:13]:
            buffer.release()
        pool.reclaim()
        assert pool.statistics() == PoolStatistics(
            name="frames",
            item_size=512,
            page_size=4096,
            items_per_page=8,
            nget=20,
            nput=13,
            nfail=3,
            nwait=2,
            nout=7,
            npages=2,
            nidle=0,
            npagealloc=3,
            npagefree=1,
            hiwat=3,
            min_items=3,
            max_items=20,
            max_idle_items=32,
            waiting=0,
        )
        for buffer in buffers[13:]:
            buffer.release()


async def test_a_set_tells_its_budget_its_queue_and_its_pools() -> None:
    sizes = [PoolSpec(8192, items_per_page=1), PoolSpec(4096, items_per_page=1)]
    async with BufferPools(12288, sizes, memory=AccountedMemory(), wakeup="deferred") as pools:
        small, large = await pools.get(1), await pools.get(5000)
        async with anyio.create_task_group() as group:
            group.start_soon(pools.get, 1)
            group.start_soon(pools.get, 5000)
            await anyio.sleep(0.5)
            waiting = pools.statistics()
            group.cancel_scope.cancel()
        large.release()
        pools.pools["8192"].reclaim()
        await pools.taskq.barrier()
        after = pools.statistics()
        small.release()
    assert (waiting.waiting, waiting.nout) == (2, 2)
    assert waiting.drops >= 2, "each that had to wait was refused at least once"
    assert (waiting.limit, waiting.allocated, waiting.peak) == (12288, 12288, 12288)
    assert waiting.wakeup_runs == 0
    assert list(waiting.pools) == ["4096", "8192"], "in the order of the sizes"
    assert (after.waiting, after.nout) == (0, 1)
    assert (after.allocated, after.peak) == (4096, 12288)
    assert after.wakeup_runs == 1
    assert after.taskq.name == "BufferPools.taskq"
    assert (after.taskq.runs, after.taskq.scheduled) == (2, 1), "wakeup and barrier; the gc"


async def test_the_budget_of_a_set_and_the_set_tell_the_same() -> None:
    async with MbufPools(64, memory=AccountedMemory()) as pools:
        with await pools.get(2048):
            budget, whole = pools.budget.statistics(), pools.statistics()
    assert budget == BudgetStatistics(
        limit=131072, allocated=16384, peak=16384, drops=0, used_percent=12, low_memory=False
    )
    assert (whole.limit, whole.allocated, whole.peak, whole.drops) == (131072, 16384, 16384, 0)


async def test_a_snapshot_does_not_change_and_cannot_be_changed() -> None:
    buffers: list[Buffer] = []
    async with BufferPools("1 MiB", [512]) as pools:
        before = pools.statistics()
        buffers.append(await pools.get(1))
        assert before.nout == before.pools["512"].nget == before.allocated == 0
        assert pools.statistics() != before
        snapshots: list[Any] = [
            before,
            before.pools["512"],
            before.taskq,
            pools.budget.statistics(),
        ]
        for snapshot in snapshots:
            field = dataclasses.fields(snapshot)[0].name
            with pytest.raises(dataclasses.FrozenInstanceError):
                setattr(snapshot, field, 1)
        assert pickle.loads(pickle.dumps(before)) == before
        buffers.pop().release()


@pytest.mark.parametrize(
    ("items", "pages"), [((0, 0), (0, 0)), ((1, 8), (1, 1)), ((8, 9), (1, 2)), ((17, 16), (3, 2))]
)
async def test_the_kernels_names_of_the_settings_can_be_read(
    items: tuple[int, int], pages: tuple[int, int]
) -> None:
    spec = PoolSpec(512, min_items=items[0], max_items=30, max_idle_items=items[1])
    async with BufferPools("1 MiB", [spec], memory=AccountedMemory()) as pools:
        statistics = pools.pools["512"].statistics()
    assert (statistics.min_items, statistics.max_idle_items) == items
    assert (statistics.min_pages, statistics.max_idle_pages) == pages
    assert statistics.hard_limit == statistics.max_items == 30


async def test_a_setting_has_one_name_in_the_spec_the_setter_and_the_statistics() -> None:
    async with BufferPools("1 MiB", [512], memory=AccountedMemory()) as pools:
        pool = pools.pools["512"]
        settings = ("min_items", "max_items", "max_idle_items")
        kernel_names = ("set_low_water", "set_hard_limit", "set_high_water")
        for setting, kernel_name in zip(settings, kernel_names, strict=True):
            arguments: dict[str, Any] = {setting: 3}
            assert getattr(PoolSpec(512, **arguments), setting) == 3
            for items, setter in ((5, f"set_{setting}"), (7, kernel_name)):
                getattr(pool, setter)(items)
                assert getattr(pool.statistics(), setting) == items


def test_the_kernels_counters_keep_their_names_without_the_prefix() -> None:
    def names(kind: Any) -> set[str]:
        return {field.name for field in dataclasses.fields(kind)}

    assert names(PoolStatistics) >= {
        *("nget", "nput", "nfail", "nout", "npages", "nidle"),
        *("npagealloc", "npagefree", "hiwat", "waiting"),
    }
    assert names(PoolsStatistics) >= {"allocated", "limit", "drops", "wakeup_runs", "pools"}
    assert names(TaskQueueStatistics) >= {"queued", "scheduled", "added", "coalesced", "runs"}


async def test_the_reprs_tell_what_is_out_and_who_waits() -> None:
    async with BufferPools("64 KiB", [FRAMES], name="relay") as pools:
        with await pools.get(1):
            assert repr(pools) == "<BufferPools 'relay': <Budget 4 KiB of 64 KiB>>"
            assert repr(pools.pools["frames"]) == (
                "<Pool 'frames': 1 of 512 bytes out, 1 pages, 0 waiting>"
            )
