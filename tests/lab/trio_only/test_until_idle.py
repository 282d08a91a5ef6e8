"""`wait_all_tasks_blocked` with a cushion, which is one of virtual time under the lab."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from mbufpools import lab


async def sleeps_that_are_shorter_come_first(begun: float) -> None:
    done: list[float] = []

    async def worker() -> None:
        for seconds in (0.01, 0.02, 60):
            await trio.sleep(seconds)
            done.append(seconds)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker)
        await wait_all_tasks_blocked(0.1)
        assert done == [0.01, 0.02]
        assert 0.13 <= trio.current_time() - begun < 60
        nursery.cancel_scope.cancel()


async def time_passes(begun: float) -> None:
    await wait_all_tasks_blocked(0.1)
    assert trio.current_time() - begun >= 0.1


async def a_shorter_deadline_ends_it(_begun: float) -> None:
    with trio.move_on_after(0.02) as scope:
        await wait_all_tasks_blocked(0.1)
    assert scope.cancelled_caught


async def the_shorter_cushion_is_first_and_the_longer_begins_again(begun: float) -> None:
    order: list[tuple[float, float]] = []

    async def wait(cushion: float) -> None:
        await wait_all_tasks_blocked(cushion)
        order.append((cushion, trio.current_time() - begun))

    async with trio.open_nursery() as nursery:
        for cushion in (0.3, 0.1):
            nursery.start_soon(wait, cushion)
    (first, first_at), (second, second_at) = order
    assert (first, second) == (0.1, 0.3)
    assert second_at - first_at >= 0.3


async def two_of_one_cushion_come_at_one_time(begun: float) -> None:
    times: list[float] = []

    async def wait() -> None:
        await wait_all_tasks_blocked(0.1)
        times.append(trio.current_time() - begun)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        nursery.start_soon(wait)
    assert 0.1 <= max(times) < min(times) + 0.1


async def without_a_cushion_no_time_passes(begun: float) -> None:
    await wait_all_tasks_blocked()
    assert trio.current_time() - begun < 5


@pytest.mark.parametrize(
    "program",
    [
        sleeps_that_are_shorter_come_first,
        time_passes,
        a_shorter_deadline_ends_it,
        the_shorter_cushion_is_first_and_the_longer_begins_again,
        two_of_one_cushion_come_at_one_time,
        without_a_cushion_no_time_passes,
    ],
)
@pytest.mark.parametrize("where", ["lab", "trio"])
def test_a_wait_until_all_are_blocked_lasts_for_its_cushion(
    program: Callable[[float], Awaitable[None]], where: str
) -> None:
    async def run() -> None:
        await program(trio.current_time())

    if where == "lab":
        lab.explore(run, backend="trio").assert_holds()
    else:
        trio.run(run)
