"""Pools, seen with trio's own tools: checkpoints, instruments, and its mock clock."""

from __future__ import annotations

from collections import Counter

import pytest
import trio
from trio.testing import (
    MockClock,
    assert_checkpoints,
    assert_no_checkpoints,
    wait_all_tasks_blocked,
)

from mbufpools import Buffer, BufferPools, MbufPools, PoolSpec

ONE_PAGE = PoolSpec(4096, items_per_page=1)


class Steps(trio.abc.Instrument):
    """Counts the steps of each task, by its name."""

    def __init__(self) -> None:
        self.steps: Counter[str] = Counter()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.steps[task.name] += 1


async def test_every_get_is_a_checkpoint_and_nothing_else_is(autojump_clock: MockClock) -> None:
    async with BufferPools("1 MiB", [1024]) as pools:
        pool = pools.pools["1024"]
        with assert_checkpoints():
            first = await pool.get()
        with assert_checkpoints():
            second = await pools.get(1)
        with assert_no_checkpoints():
            third = pools.get_nowait(1)
            first.release()
            second.release()
            third.release()
            pool.prime(1)
            pool.wakeup()
            pool.reclaim()
            pool.set_low_water(1)
            pools.resize("2 MiB")
            pools.check()


async def test_a_get_that_fails_is_a_checkpoint_too(autojump_clock: MockClock) -> None:
    async with BufferPools(4096, [ONE_PAGE]) as pools:
        with (
            pools.get_nowait(1),
            pytest.raises(trio.TooSlowError),
            assert_checkpoints(),
            trio.fail_after(1),
        ):
            await pools.get(1)


async def test_freebsd_uma_a_sleeper_that_is_not_served_takes_no_step(
    autojump_clock: MockClock,
) -> None:
    """Nobody is woken to try again: of twelve sleepers, the put of an item wakes one."""
    async with MbufPools(8) as pools, trio.open_nursery() as nursery:
        pool = pools.m_clpool(2048)
        held = [pool.get_nowait() for _ in range(8)]

        async def sleep() -> None:
            held.append(await pool.get())

        for number in range(12):
            nursery.start_soon(sleep, name=f"sleeper {number}")
            await wait_all_tasks_blocked()
        steps = Steps()
        trio.lowlevel.add_instrument(steps)
        for served in range(3):
            held.pop(0).release()
            await wait_all_tasks_blocked()
            woken = {
                name: count for name, count in steps.steps.items() if name.startswith("sleeper ")
            }
            assert woken == {f"sleeper {number}": 1 for number in range(served + 1)}
        for _ in range(9):
            held.pop(0).release()
            await wait_all_tasks_blocked()
        for buffer in held:
            buffer.release()
        pools.check()
        assert pools.statistics().nout == 0


async def test_a_set_that_is_idle_takes_at_most_two_steps_a_second(
    autojump_clock: MockClock,
) -> None:
    async with MbufPools() as pools:
        steps = Steps()
        trio.lowlevel.add_instrument(steps)
        await trio.sleep(1000.5)
        assert pools.taskq.statistics().runs == 1000
        assert steps.steps[f"mbufpools {pools.taskq.name}"] <= 2 * 1001


async def test_whoever_is_served_first_the_ledger_is_the_order_of_arrival(
    autojump_clock: MockClock,
) -> None:
    """trio shuffles the tasks that are ready at one moment; the grants are not shuffled."""
    async with BufferPools(8 * 4096, [ONE_PAGE]) as pools:
        resumed: list[int] = []
        holds: dict[int, Buffer] = {}

        async def sleeper(number: int) -> None:
            holds[number] = await pools.get(number + 1)
            resumed.append(number)

        orders = set()
        for _ in range(8):
            buffers = [pools.get_nowait(1) for _ in range(8)]
            async with trio.open_nursery() as nursery:
                for number in range(8):
                    nursery.start_soon(sleeper, number)
                    await wait_all_tasks_blocked()
                for buffer in buffers[:4]:
                    buffer.release()
                await wait_all_tasks_blocked()
                assert set(resumed) == {0, 1, 2, 3}
                orders.add(tuple(resumed))
                for buffer in buffers[4:]:
                    buffer.release()
            for buffer in holds.values():
                buffer.release()
            resumed.clear()
            pools.check()
        assert len(orders) > 1, "they resume in any order"


async def test_a_cancelled_nursery_of_getters_leaves_nothing_behind(
    autojump_clock: MockClock,
) -> None:
    async with BufferPools(3 * 4096, [ONE_PAGE]) as pools:

        async def use() -> None:
            while True:
                with await pools.get(1):
                    await trio.sleep(1)

        for patience in (0, 0.5, 1, 2.5, 10):
            with trio.move_on_after(patience):
                async with trio.open_nursery() as nursery:
                    for _ in range(10):
                        nursery.start_soon(use)
            pools.check()
            statistics = pools.statistics()
            assert (statistics.nout, statistics.waiting) == (0, 0)
