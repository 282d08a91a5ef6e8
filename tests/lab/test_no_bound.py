"""Without a bound on preemptions there is none on delays either, where places make a difference."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from anyio.lowlevel import checkpoint

from mbufpools import lab

from .test_parallel import AtOnce


async def a_job_of_three_stretches() -> None:
    """The job ends before the main task's step, and the callback that says so comes after it."""
    done, lock = list[int](), threading.Lock()

    def job() -> None:
        for _ in range(3):
            with lock:
                pass
        done.append(1)

    future = asyncio.get_running_loop().run_in_executor(None, job)
    await asyncio.sleep(0)
    if future.cancel():
        assert not done, "it was cancelled, but it is done"


async def two_jobs_of_one_worker() -> None:
    log, lock, loop = list[int](), threading.Lock(), asyncio.get_running_loop()

    def job(number: int) -> None:
        with lock:
            log.append(number)

    pool = ThreadPoolExecutor(1)
    first, second = (loop.run_in_executor(pool, job, number) for number in (1, 2))
    await asyncio.sleep(0)
    if second.cancel():
        assert 2 not in log, "it was cancelled, but it is done"
    await first
    pool.shutdown(wait=False)


async def a_callback_behind_four_tasks() -> None:
    """No thread: the callback keeps its place behind four steps, which come in another order."""
    seen: list[str] = []

    async def task(letter: str) -> None:
        seen.append(letter)

    tasks = [asyncio.create_task(task(letter)) for letter in "abcd"]
    asyncio.get_running_loop().call_soon(seen.append, "called")
    await asyncio.wait(tasks)
    assert seen != ["d", "c", "b", "a", "called"]


@pytest.mark.parametrize("workers", [False, True], ids=["alone", "in parts"])
@pytest.mark.parametrize("strategy", ["mixed", "exhaustive"])
@pytest.mark.parametrize(
    "program", [a_job_of_three_stretches, two_jobs_of_one_worker, a_callback_behind_four_tasks]
)
def test_no_bound_finds_what_needs_more_than_two_delays(
    program: Callable[[], Coroutine[Any, Any, None]], strategy: lab.StrategyName, workers: bool
) -> None:
    options: dict[str, Any] = {"strategy": strategy, "executor": AtOnce() if workers else None}
    if strategy == "exhaustive":
        assert lab.explore(program, **options).verdict == "proved"
    exploration = lab.explore(program, max_preemptions=None, **options)
    assert exploration.verdict == "found"
    (again,) = lab.replay(program, exploration.failures[0].token).failures
    assert again.token == exploration.failures[0].token


def test_no_bound_is_told_in_one_word() -> None:
    async def program() -> None:
        await asyncio.wait([asyncio.create_task(checkpoint()) for _ in range(3)])

    exploration = lab.explore(program, max_preemptions=None)
    assert exploration.verdict == "proved"
    assert exploration.bound == "the schedules"


def test_a_task_that_waits_in_a_loop_has_an_end_without_a_bound() -> None:
    async def program() -> None:
        flag = list[int]()

        async def sets() -> None:
            asyncio.get_running_loop().call_soon(flag.append, 1)
            await checkpoint()

        async def spins() -> None:
            while not flag:
                await checkpoint()

        await asyncio.wait([asyncio.create_task(it) for it in (sets(), spins())])

    exploration = lab.explore(program, max_preemptions=None)
    assert exploration.verdict == "proved"
    assert "in which no task takes more than 20 steps in a row" in exploration.bound
