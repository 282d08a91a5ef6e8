"""Python's garbage collector is run for leases in cycles that a request waits for."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import anyio
import pytest

from mbufpools import Buffer, BufferPools, PoolSpec
from mbufpools._owner_loop import OwnerLoop
from tests.kit.grants import taking

PAGE = 4096
ONE_ITEM = PoolSpec(PAGE, name="one", items_per_page=1)


class Collections(list[float]):
    """The times, on the loop's clock, at which a set has run the garbage collector."""

    def __init__(self) -> None:
        self.begin = anyio.current_time()

    def __call__(self) -> int:
        self.append(round(anyio.current_time() - self.begin, 6))
        return self.collect()

    collect = staticmethod(gc.collect)


@pytest.fixture
async def collections(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Nothing else runs the garbage collector; and the clock counts as a real one, so that the
    tests need not wait."""
    told = Collections()
    monkeypatch.setattr("gc.collect", told)
    monkeypatch.setattr(OwnerLoop, "simulated", False)
    return told


@pytest.fixture(autouse=True)
def no_other_collection() -> Iterator[None]:
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class Connection:
    """Holds a buffer, and itself."""

    def __init__(self, buffer: Buffer) -> None:
        self.buffer = buffer
        self.itself = self


@pytest.mark.filterwarnings("ignore::ResourceWarning")
async def test_a_request_that_has_waited_for_a_second_is_served_by_a_lease_in_a_cycle(
    collections: Collections,
) -> None:
    async with BufferPools(PAGE, [ONE_ITEM]) as pools:
        Connection(await pools.get(1))
        with await pools.get(1):
            assert anyio.current_time() - collections.begin == pytest.approx(1)
        assert collections == [1]


@pytest.mark.filterwarnings("ignore::ResourceWarning")
async def test_a_request_is_served_by_a_reservation_in_a_cycle(collections: Collections) -> None:
    async with BufferPools(PAGE, [ONE_ITEM]) as pools:
        cycle: list[Any] = [await pools.reserve(PAGE)]
        cycle.append(cycle)
        del cycle
        (await pools.get(1)).release()
        assert collections == [1]


async def test_it_is_run_again_after_30_seconds_and_not_before(collections: Collections) -> None:
    async with BufferPools(PAGE, [ONE_ITEM]) as pools, anyio.create_task_group() as tasks:
        held = await pools.get(1)
        getter = await taking(tasks, pools.get, 1)
        await anyio.sleep(65.5)
        assert collections == [1, 31, 61]
        getter.cancel()
        held.release()


async def test_the_oldest_request_decides_whether_a_second_has_passed(
    collections: Collections,
) -> None:
    async with BufferPools(PAGE, [ONE_ITEM]) as pools, anyio.create_task_group() as tasks:
        held = await pools.get(1)
        await anyio.sleep(0.25)
        oldest = await taking(tasks, pools.get, 1)
        await anyio.sleep(1.5)
        newest = await taking(tasks, pools.get, 1)
        assert collections == []
        await anyio.sleep(0.5)
        assert collections == [2]
        oldest.cancel()
        newest.cancel()
        held.release()


async def test_it_is_not_run_while_requests_are_served(collections: Collections) -> None:
    async with BufferPools(PAGE, [ONE_ITEM]) as pools, anyio.create_task_group() as tasks:
        held = await pools.get(1)
        getters = [await taking(tasks, pools.get, 1) for _ in range(12)]
        for getter in getters:  # the last one waits for six seconds
            await anyio.sleep(0.5)
            held.release()
            await getter.ended.wait()
            held = getter.lease
        assert collections == []
        held.release()


async def test_it_is_not_run_while_no_request_waits(collections: Collections) -> None:
    async with BufferPools(PAGE, [ONE_ITEM]) as pools:
        with await pools.get(1):
            await anyio.sleep(5)
    assert collections == []


@pytest.mark.parametrize("how", ["by option", "by the lab"])
async def test_it_can_be_left_out(
    how: str, collections: Collections, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OwnerLoop, "simulated", how == "by the lab")
    pools = BufferPools(PAGE, [ONE_ITEM], collect_garbage=how != "by option")
    async with pools, anyio.create_task_group() as tasks:
        held = await pools.get(1)
        getter = await taking(tasks, pools.get, 1)
        await anyio.sleep(5)
        assert collections == []
        getter.cancel()
        held.release()
