"""The actors of a scenario."""

from __future__ import annotations

import anyio
import pytest

from mbufpools import AccountedMemory, MbufPools, WakeupName
from mbufpools.demokit import Processes, left_asleep


def one_page(wakeup: WakeupName = "deferred") -> MbufPools:
    return MbufPools(8, wakeup=wakeup, memory=AccountedMemory())


async def test_a_get_returns_once_the_process_holds_its_item() -> None:
    async with one_page() as pools, Processes() as processes:
        await anyio.sleep(3)
        process = await processes.get(pools.mbpool)
        assert process.buffer is not None
        assert process.asked_at == process.served_at == 3.0
        assert anyio.current_time() == 3.0


async def test_a_get_returns_once_the_process_sleeps() -> None:
    async with one_page() as pools, Processes() as processes:
        first = await processes.get(pools.m_clpool(2048))
        second = await processes.get(pools.mbpool)
        assert second.buffer is None
        assert second.served_at is None
        assert pools.mbpool.statistics().waiting == 1
        assert anyio.current_time() == 0.0
        first.put()
        await anyio.sleep(20)
        assert second.served_at == 9.0


async def test_a_process_puts_only_what_it_holds() -> None:
    async with one_page() as pools, Processes() as processes:
        process = await processes.get(pools.mbpool)
        process.put()
        assert pools.mbpool.statistics().nout == 0
        with pytest.raises(ValueError, match="holds no item of pool 'mbufpl'"):
            process.put()


async def test_at_the_end_sleepers_are_cancelled_and_items_are_put() -> None:
    async with one_page() as pools:
        async with Processes() as processes:
            await processes.get(pools.m_clpool(2048))
            await processes.get(pools.mbpool)
        statistics = pools.statistics()
        assert (statistics.waiting, statistics.nout) == (0, 0)


async def test_an_exception_of_the_body_passes_as_it_is() -> None:
    async with one_page() as pools:
        with pytest.raises(KeyError, match="mine"):
            async with Processes() as processes:
                await processes.get(pools.m_clpool(2048))
                await processes.get(pools.mbpool)
                raise KeyError("mine")
        assert pools.statistics().nout == 0


async def test_a_cancelled_body_leaves_nothing_behind() -> None:
    async with one_page() as pools:
        with anyio.move_on_after(1) as scope:
            async with Processes() as processes:
                await processes.get(pools.m_clpool(2048))
                await processes.get(pools.mbpool)
                await anyio.sleep_forever()
        assert scope.cancelled_caught
        assert anyio.current_time() == 1.0
        assert pools.statistics().nout == pools.statistics().waiting == 0


async def test_processes_must_be_entered() -> None:
    async with one_page() as pools:
        with pytest.raises(RuntimeError, match="not entered"):
            await Processes().get(pools.mbpool)


async def test_a_sleeper_is_lost_when_nothing_is_left_to_wake_it() -> None:
    async with one_page(wakeup="none") as pools, Processes() as processes:
        assert not left_asleep(pools.statistics())  # no process sleeps
        first = await processes.get(pools.m_clpool(2048))
        await processes.get(pools.mbpool)
        assert not left_asleep(pools.statistics())  # an item is out
        first.put()
        await anyio.sleep(8.5)
        assert not left_asleep(pools.statistics())  # a page will leave
        await anyio.sleep(1)
        assert left_asleep(pools.statistics())
        pools.nmbclust_update(9)  # and yet a new limit came
        assert not left_asleep(pools.statistics())
