"""`explain().stuck` against what really becomes of random crowds: no false alarm, none missed."""

from __future__ import annotations

import random
import warnings
from typing import Any

import anyio
import pytest

from mbufpools import AccountedMemory, BufferPools, Order, PoolSpec, lab

KIB = 1024


def of_few_pages(
    dice: random.Random, small: PoolSpec, large: PoolSpec, order: Order
) -> BufferPools:
    """Return pools under a limit of three to five pages, for which the tasks of a crowd compete."""
    limit = dice.randint(3, 5) * 4 * KIB
    return BufferPools(limit, [small, large], order=order, debug=True, memory=AccountedMemory())


async def crowd(seed: int, order: Order, told: list[bool]) -> bool:
    """Let some tasks take several things one after the other, and release all at their end. Note
    in `told` what `explain` says in between; return whether they all came to their end."""
    dice = random.Random(seed)
    small = PoolSpec(2 * KIB, max_items=dice.choice([None, 1, 2]), items_per_page=2)
    large = PoolSpec(4 * KIB, items_per_page=1, min_items=dice.choice([0, 0, 1]))
    pools = of_few_pages(dice, small, large, order)
    ended = 0

    async def one(number: int) -> None:
        nonlocal ended
        mine = random.Random(f"{seed} {number}")
        held: list[Any] = []
        try:
            for _ in range(mine.randint(1, 3)):
                await anyio.sleep(mine.random())
                if mine.random() < 0.2:
                    held.append(await pools.reserve(4 * KIB))
                else:
                    held.append(await pools.get(mine.choice([2 * KIB, 4 * KIB])))
            await anyio.sleep(mine.random())
            ended += 1
        finally:
            for lease in held:
                lease.release()

    count = dice.randint(2, 6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        async with pools, anyio.create_task_group() as group:
            for number in range(count):
                group.start_soon(one, number)
            for _ in range(30):
                await anyio.sleep(0.15)
                stuck = pools.explain().stuck
                assert stuck is not None
                told.append(stuck)
            await anyio.sleep(100)
            told.append(bool(pools.explain().stuck))
            group.cancel_scope.cancel()
    return ended == count


@pytest.mark.parametrize("order", list(Order))
def test_a_deadlock_is_told_of_just_those_crowds_that_never_end(order: Order) -> None:
    deadlocks = 0
    for seed in range(50):
        told: list[bool] = []
        all_ended = lab.run(crowd, seed, order, told, backend="asyncio")
        assert told[-1] is not all_ended, f"seed {seed}: at the end"
        assert not (all_ended and any(told)), f"seed {seed}: a false alarm"
        deadlocks += not all_ended
    assert 0 < deadlocks < 50


async def crowd_with_a_shelf(
    seed: int, order: Order, told: list[bool | None]
) -> tuple[int, int, int]:
    """Let some tasks put what they take on a shelf and end, and others hold it as those of `crowd`.
    Note in `told` what `explain` says until nothing happens any more. Return how many tasks wait
    then, how many of their requests are served once the shelf is emptied, and how many tasks wait
    after that."""
    dice = random.Random(seed)
    large = PoolSpec(4 * KIB, items_per_page=1)
    small = PoolSpec(2 * KIB, max_items=dice.choice([None, 2]), items_per_page=2)
    pools = of_few_pages(dice, small, large, order)
    shelf: list[Any] = []
    left = served = 0

    async def one(number: int) -> None:
        nonlocal left, served
        mine = random.Random(f"{seed} {number}")
        held: list[Any] = []
        shelves = mine.random() < 0.4
        try:
            for _ in range(mine.randint(1, 3)):
                await anyio.sleep(mine.random())
                if mine.random() < 0.2:
                    held.append(await pools.reserve(4 * KIB))
                else:
                    held.append(await pools.get(mine.choice([2 * KIB, 4 * KIB])))
                served += 1
            if not shelves:
                await anyio.sleep(mine.random())
            left -= 1
        finally:
            if shelves:
                shelf.extend(held)
            else:
                for lease in held:
                    lease.release()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        async with pools, anyio.create_task_group() as group:
            left = dice.randint(2, 6)
            for number in range(left):
                group.start_soon(one, number)
            for _ in range(30):
                await anyio.sleep(0.15)
                told.append(pools.explain().stuck)
            await anyio.sleep(100)
            told.append(pools.explain().stuck)
            waiting, before = left, served
            while shelf:
                shelf.pop().release()
                await anyio.sleep(10)
            by_the_shelf, after = served - before, left
            group.cancel_scope.cancel()
        for lease in shelf:
            lease.release()
    return waiting, by_the_shelf, after


@pytest.mark.parametrize("order", list(Order))
def test_with_what_ended_tasks_took_it_is_a_deadlock_only_if_no_release_of_that_helps(
    order: Order,
) -> None:
    said = set()
    for seed in range(40):
        told: list[bool | None] = []
        waiting, served, after = lab.run(crowd_with_a_shelf, seed, order, told, backend="asyncio")
        assert after or True not in told, f"seed {seed}: a false alarm"
        if told[-1] is None:
            assert served, f"seed {seed}: the release of what ended tasks took helps nobody"
        else:
            assert told[-1] == bool(waiting), f"seed {seed}: at the end"
        said.add(told[-1])
    assert said == {True, False, None}
