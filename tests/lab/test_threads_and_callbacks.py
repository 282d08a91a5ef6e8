"""A thread may come before a plain callback that the event loop has still to run, and after it."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import trio

from mbufpools import lab

Program = Callable[[list[int]], Any]
"""A program that appends what its thread has seen of what a callback does."""


async def after_a_sleep(seen: list[int]) -> None:
    await _called_from_a_thread(seen, lambda: time.sleep(0.001), lambda: None)


async def after_an_event(seen: list[int]) -> None:
    begin = threading.Event()
    await _called_from_a_thread(seen, begin.wait, begin.set)


async def after_a_queue(seen: list[int]) -> None:
    jobs: queue.Queue[int] = queue.Queue()
    await _called_from_a_thread(seen, jobs.get, lambda: jobs.put(1))


async def _called_from_a_thread(
    seen: list[int], wait: Callable[[], Any], begin: Callable[[], Any]
) -> None:
    loop, lock, results = asyncio.get_running_loop(), threading.Lock(), list[int]()

    def work() -> None:
        wait()
        loop.call_soon_threadsafe(results.append, 1)
        with lock:
            seen.append(len(results))

    task = asyncio.create_task(asyncio.to_thread(work))
    await asyncio.sleep(0)
    begin()
    await task
    await asyncio.sleep(0)


async def of_asyncios_own_method(seen: list[int]) -> None:
    loop, lock, event = asyncio.get_running_loop(), threading.Lock(), asyncio.Event()

    def work() -> None:
        time.sleep(0.001)
        loop.call_soon_threadsafe(event.set)
        with lock:
            seen.append(int(event.is_set()))

    await asyncio.to_thread(work)
    await event.wait()


async def when_a_job_is_done(seen: list[int]) -> None:
    """The callback of the first job fills what the second job of the same worker reads."""
    loop, lock, cache = asyncio.get_running_loop(), threading.Lock(), list[int]()

    def second() -> None:
        with lock:
            seen.append(len(cache))

    with ThreadPoolExecutor(1) as pool:
        job = loop.run_in_executor(pool, time.sleep, 0.001)
        job.add_done_callback(lambda _: cache.append(1))
        other = loop.run_in_executor(pool, second)
        await job
        await other


async def of_a_timer_of_the_same_time(seen: list[int]) -> None:
    loop, lock, calls = asyncio.get_running_loop(), threading.Lock(), list[int]()

    def work() -> None:
        time.sleep(0.01)
        with lock:
            seen.append(len(calls))

    task = asyncio.create_task(asyncio.to_thread(work))
    await asyncio.sleep(0)
    loop.call_later(0.01, calls.append, 1)
    await task
    await asyncio.sleep(0.01)


async def of_a_run_of_trio(seen: list[int]) -> None:
    token, lock, calls = trio.lowlevel.current_trio_token(), threading.Lock(), list[int]()

    def work() -> None:
        time.sleep(0.001)
        token.run_sync_soon(calls.append, 1)
        with lock:
            seen.append(len(calls))

    await trio.to_thread.run_sync(work)
    await trio.sleep(0.01)


PROGRAMS: list[tuple[lab.BackendName, Program]] = [
    ("asyncio", after_a_sleep),
    ("asyncio", after_an_event),
    ("asyncio", after_a_queue),
    ("asyncio", of_asyncios_own_method),
    ("asyncio", when_a_job_is_done),
    ("asyncio", of_a_timer_of_the_same_time),
    ("trio", of_a_run_of_trio),
]


@pytest.mark.parametrize("strategy", ["mixed", "exhaustive"])
@pytest.mark.parametrize(
    ("backend", "program"), PROGRAMS, ids=[program.__name__ for _, program in PROGRAMS]
)
def test_a_thread_may_come_before_a_callback_and_after_it(
    backend: lab.BackendName, program: Program, strategy: lab.StrategyName
) -> None:
    outcomes: set[int] = set()

    async def run() -> None:
        seen: list[int] = []
        await program(seen)
        outcomes.update(seen)

    exploration = lab.explore(run, backend=backend, strategy=strategy)
    assert exploration.verdict == "proved"
    assert outcomes == {0, 1}


def test_a_token_of_a_thread_before_a_callback_replays_and_says_so() -> None:
    async def program() -> None:
        seen: list[int] = []
        await when_a_job_is_done(seen)
        assert seen == [1]

    failure = lab.explore(program).failures[0]
    assert "before a callback that comes after this step" in str(failure)
    (again,) = lab.replay(program, failure.token).failures
    assert again.token == failure.token
