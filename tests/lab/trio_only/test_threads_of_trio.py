"""The threads of trio are those of its cache: an idle one gets the next job.

Each program here is also executed by trio itself, and does the same there.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.to_thread
import pytest
import trio

from mbufpools import lab
from tests.lab.test_leaves_no_trace import fails_as_in_reality, holds_as_in_reality

Program = Callable[[], Awaitable[Any]]
Run = Callable[..., Awaitable[Any]]


class Counter(threading.local):
    """Counts the jobs of each thread."""

    jobs = 0

    def count(self) -> int:
        self.jobs += 1
        return self.jobs


async def two_jobs(run: Run) -> tuple[int, int]:
    counter = Counter()
    return await run(counter.count), await run(counter.count)


@pytest.mark.parametrize(
    "run", [trio.to_thread.run_sync, anyio.to_thread.run_sync], ids=["trio", "anyio"]
)
def test_an_idle_thread_gets_the_next_job(run: Run) -> None:
    async def reused() -> None:
        assert await two_jobs(run) == (1, 2)

    async def new() -> None:
        assert await two_jobs(run) == (1, 1)

    holds_as_in_reality(reused, "trio")
    fails_as_in_reality(new, AssertionError, "trio")


async def two_at_once_have_two_threads() -> None:
    counter, seen = Counter(), list[int]()

    def work() -> None:
        time.sleep(0.01)
        seen.append(counter.count())

    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(trio.to_thread.run_sync, work)
    assert seen == [1, 1]


async def a_thread_is_named_after_its_job_and_a_daemon() -> None:
    def look() -> tuple[str, bool]:
        thread = threading.current_thread()
        return thread.name, thread.daemon

    name, daemon = await trio.to_thread.run_sync(look, thread_name="looker")
    assert (name, daemon) == ("looker", True)
    name, _ = await trio.to_thread.run_sync(look)
    assert name.startswith("look from ")


async def a_job_is_started_directly() -> None:
    token, done = trio.lowlevel.current_trio_token(), trio.Event()
    got: list[int] = []

    def deliver(result: Any) -> None:
        got.append(result.unwrap())
        token.run_sync_soon(done.set)

    trio.lowlevel.start_thread_soon(lambda: 3, deliver)
    await done.wait()
    assert got == [3]


async def a_job_is_given_to_a_thread_that_still_delivers() -> None:
    token, done = trio.lowlevel.current_trio_token(), trio.Event()
    counter, got = Counter(), list[int]()

    def deliver(result: Any) -> None:
        got.append(result.unwrap())
        token.run_sync_soon(done.set)

    def deliver_late(result: Any) -> None:
        trio.lowlevel.start_thread_soon(counter.count, deliver)
        time.sleep(0.01)
        got.append(result.unwrap())

    trio.lowlevel.start_thread_soon(counter.count, deliver_late)
    await done.wait()
    assert got == [1, 2]


async def a_job_begins_before_the_next_line() -> None:
    seen: list[int] = []
    trio.lowlevel.start_thread_soon(lambda: seen.append(1), lambda _: None)
    before = list(seen)
    await trio.sleep(0.01)
    assert seen == [1]
    assert before in ([], [1])


@pytest.mark.parametrize(
    "program",
    [
        two_at_once_have_two_threads,
        a_thread_is_named_after_its_job_and_a_daemon,
        a_job_is_started_directly,
        a_job_is_given_to_a_thread_that_still_delivers,
        a_job_begins_before_the_next_line,
    ],
)
def test_a_job_is_done_as_by_the_cache_of_trio(program: Program) -> None:
    holds_as_in_reality(program, "trio")


def test_a_thread_that_starts_may_run_before_the_next_line() -> None:
    async def program() -> None:
        seen: list[int] = []
        trio.lowlevel.start_thread_soon(lambda: seen.append(1), lambda _: None)
        assert not seen

    assert lab.explore(program, backend="trio").verdict == "found"


def test_a_thread_that_was_idle_for_too_long_gets_no_job() -> None:
    async def program() -> None:
        counter = Counter()
        assert await trio.to_thread.run_sync(counter.count) == 1
        await trio.sleep(9.9)
        assert await trio.to_thread.run_sync(counter.count) == 2
        await trio.sleep(10)
        assert await trio.to_thread.run_sync(counter.count) == 1

    lab.explore(program, backend="trio", max_executions=60).assert_holds()


def test_an_execution_begins_without_an_idle_thread() -> None:
    counter = Counter()

    async def program() -> None:
        assert await trio.to_thread.run_sync(counter.count) == 1

    before = set(threading.enumerate())  # those of trio's own cache may end meanwhile
    lab.explore(program, backend="trio", max_executions=60).assert_holds()
    assert set(threading.enumerate()) <= before


def test_a_thread_that_is_abandoned_is_no_remark_since_python_does_not_wait_for_it() -> None:
    async def program() -> None:
        with trio.move_on_after(0.1):
            await trio.to_thread.run_sync(time.sleep, 60, abandon_on_cancel=True)

    found = lab.explore(program, backend="trio", max_executions=60)
    assert not found.failures
    assert not any("main task" in remark for remark in found.remarks)
