"""Threads are steps: what the program runs in threads is explored as its tasks are."""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import re
import sqlite3
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import FunctionType
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest
import trio
from anyio.lowlevel import checkpoint

from mbufpools import lab
from mbufpools.lab import _lockstep
from mbufpools.lab._instants import BEGIN

BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])


async def in_two_threads(function: Callable[[], Any]) -> None:
    async with anyio.create_task_group() as tasks:
        for _ in range(2):
            tasks.start_soon(anyio.to_thread.run_sync, function)


def twice(number: int) -> int:
    return 2 * number


def nap(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


# The ways to run a function in a thread


async def to_thread_of_asyncio() -> None:
    assert await asyncio.gather(*(asyncio.to_thread(twice, n) for n in range(2))) == [0, 2]


async def executor_of_the_loop() -> None:
    loop = asyncio.get_running_loop()
    assert await asyncio.gather(*(loop.run_in_executor(None, twice, n) for n in range(2))) == [0, 2]


async def executor_of_the_program() -> None:
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(2) as executor:
        assert await loop.run_in_executor(executor, twice, 2) == 4
        assert list(executor.map(twice, range(3))) == [0, 2, 4]


async def to_thread_of_anyio() -> None:
    assert await anyio.to_thread.run_sync(twice, 2) == 4


async def from_thread() -> None:
    def function() -> int:
        anyio.from_thread.run(anyio.sleep, 1)
        return anyio.from_thread.run_sync(twice, 3)

    before = anyio.current_time()
    assert await anyio.to_thread.run_sync(function) == 6
    assert anyio.current_time() == before + 1


async def coroutine_from_a_thread() -> None:
    loop = asyncio.get_running_loop()

    def function() -> float:
        future: Future[float] = asyncio.run_coroutine_threadsafe(asyncio.sleep(1, 3.0), loop)
        return future.result()

    assert await asyncio.to_thread(function) == 3.0


async def worker_with_a_queue() -> None:
    jobs: queue.SimpleQueue[int | None] = queue.SimpleQueue()
    loop, done, doubled = asyncio.get_running_loop(), asyncio.Event(), []

    def work() -> None:
        while (job := jobs.get()) is not None:
            doubled.append(twice(job))
        loop.call_soon_threadsafe(done.set)

    thread = threading.Thread(target=work)
    thread.start()
    for job in (1, 2, None):
        jobs.put(job)
        await asyncio.sleep(0)
    await done.wait()
    thread.join()
    assert doubled == [2, 4]
    assert not thread.is_alive()


async def timer() -> None:
    done = threading.Event()
    threading.Timer(5, done.set).start()
    assert not await asyncio.to_thread(done.wait, 4)
    assert await asyncio.to_thread(done.wait, 2)
    assert asyncio.get_running_loop().time() == BEGIN + 5


async def database() -> None:
    """As aiosqlite has it: one thread for a connection, for which tasks wait."""
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(1) as executor:
        connection = await loop.run_in_executor(executor, sqlite3.connect, ":memory:")
        cursor = await loop.run_in_executor(executor, connection.execute, "select 42")
        assert await loop.run_in_executor(executor, cursor.fetchone) == (42,)
        await loop.run_in_executor(executor, connection.close)


ON_ASYNCIO = [
    to_thread_of_asyncio,
    executor_of_the_loop,
    executor_of_the_program,
    coroutine_from_a_thread,
    worker_with_a_queue,
    timer,
    database,
]


@pytest.mark.parametrize("program", [*ON_ASYNCIO, to_thread_of_anyio, from_thread])
def test_threads_are_explored_on_asyncio(program: Any) -> None:
    found = lab.explore(program, max_executions=150)
    assert not found.failures, found.failures[0].report
    assert found.complete or found.executions == 150


@pytest.mark.parametrize("program", [to_thread_of_anyio, from_thread])
def test_threads_are_explored_on_trio(program: Any) -> None:
    found = lab.explore(program, backend="trio", max_executions=300)
    assert found.complete
    assert not found.failures


def test_after_an_exploration_no_thread_is_left_and_threads_are_as_before() -> None:
    before = [threading.Thread.start, threading.Condition.wait, threading.Lock, queue.SimpleQueue]
    threads = set(threading.enumerate())

    async def program() -> None:
        threading.Thread(target=queue.Queue[int]().get).start()
        await asyncio.to_thread(twice, 1)

    assert not lab.explore(program, max_executions=20).failures
    assert set(threading.enumerate()) == threads
    now = [threading.Thread.start, threading.Condition.wait, threading.Lock, queue.SimpleQueue]
    assert now == before
    with ThreadPoolExecutor(1) as executor:
        assert executor.submit(twice, 1).result() == 2


# What is found in them


@BACKENDS
def test_a_lost_update_between_threads_is_found_and_replayed(backend: lab.BackendName) -> None:
    async def program() -> None:
        count = 0

        def add() -> None:
            nonlocal count
            value = count
            time.sleep(0)
            count = value + 1

        await in_two_threads(add)
        assert count == 2

    found = lab.explore(program, backend=backend)
    assert [failure.kind for failure in found.failures] == ["exception"]
    assert "in test_a_lost_update_between_threads" in found.failures[0].report
    assert lab.replay(program, found.failures[0].token).failures


@BACKENDS
def test_a_function_in_a_thread_comes_at_any_moment_between_the_steps_of_tasks(
    backend: lab.BackendName,
) -> None:
    seen = set()

    async def program() -> None:
        steps = []

        async def task() -> None:
            for _ in range(2):
                steps.append("task")
                await anyio.lowlevel.checkpoint()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(task)
            tasks.start_soon(anyio.to_thread.run_sync, steps.append, "thread")
        seen.add(tuple(steps))

    assert lab.explore(program, backend=backend).complete
    assert len(seen) == 3


@BACKENDS
def test_a_lock_keeps_threads_apart(backend: lab.BackendName) -> None:
    async def program() -> None:
        count, lock = 0, threading.Lock()

        def add() -> None:
            nonlocal count
            with lock:
                value = count
                time.sleep(1)
                count = value + 1

        await in_two_threads(add)
        assert count == 2
        assert anyio.current_time() == BEGIN + 2

    found = lab.explore(program, backend=backend, max_executions=200)
    assert not found.failures


@BACKENDS
@pytest.mark.parametrize("make", ["Lock", "RLock", "Condition"])
def test_a_thread_may_be_late_where_it_takes_a_lock_that_is_free(
    make: str, backend: lab.BackendName
) -> None:
    async def program() -> None:
        lock, count = getattr(threading, make)(), [0]

        def add() -> None:
            with lock:
                value = count[0]
            with lock:
                count[0] = value + 1

        await in_two_threads(add)
        assert count == [2]

    (failure,) = lab.explore(program, backend=backend).failures
    (again,) = lab.replay(program, failure.token).failures
    assert again.report == failure.report


MADE: defaultdict[str, Any] = defaultdict(threading.Lock)


@dataclass
class Account:
    value: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


class Makes:
    lock_type = threading.Lock


@pytest.mark.parametrize(
    "make",
    [lambda: MADE["a"], lambda: Account().lock, lambda: Makes.lock_type()],
    ids=["defaultdict", "dataclass", "class"],
)
def test_a_lock_of_a_default_factory_or_of_a_class_is_the_labs(make: Callable[[], Any]) -> None:
    async def program() -> None:
        MADE.clear()
        lock, count = make(), [0]

        def add() -> None:
            with lock:
                value = count[0]
                time.sleep(0.1)
                count[0] = value + 1

        await in_two_threads(add)
        assert count == [2]

    found = lab.explore(program, strategy="exhaustive", max_preemptions=1)
    found.assert_holds()
    assert found.complete
    MADE.clear()
    assert MADE.default_factory is threading.Lock
    assert type(MADE["a"]) is type(Account().lock) is type(Makes.lock_type()) is type(_real_lock)


_real_lock = threading.Lock()


def test_a_deadlock_of_threads_is_a_stall_that_names_their_lines() -> None:
    async def program() -> None:
        one, other = threading.Lock(), threading.Lock()

        def both(first: threading.Lock, second: threading.Lock) -> None:
            with first:
                time.sleep(0)
                with second:
                    pass

        await asyncio.gather(
            asyncio.to_thread(both, one, other), asyncio.to_thread(both, other, one)
        )

    (failure,) = lab.explore(program).failures
    assert failure.kind == "stall"
    assert failure.report.count("both' waits at") == 2


def test_an_exception_that_ends_a_thread_is_a_failure() -> None:
    async def program() -> None:
        threading.Thread(target=lambda: 1 / 0).start()
        await asyncio.sleep(1)

    (failure,) = lab.explore(program).failures
    assert "ZeroDivisionError" in failure.report
    assert isinstance(failure.error, ZeroDivisionError)


def test_a_function_of_the_loops_executor_that_never_ends_is_found_as_the_loop_ends() -> None:
    async def program() -> None:
        asyncio.get_running_loop().run_in_executor(None, threading.Event().wait)
        await asyncio.sleep(1)

    (failure,) = lab.explore(program).failures
    assert failure.kind == "stall"
    assert "it waits for the threads of the loop's executor" in failure.report


def test_a_function_goes_on_in_its_thread_when_the_task_that_awaits_it_is_cancelled() -> None:
    ended = []

    async def program() -> None:
        done = False

        def function() -> None:
            nonlocal done
            time.sleep(5)
            done = True

        try:
            async with asyncio.timeout(1):
                await asyncio.to_thread(function)
        except TimeoutError:
            finished = [done]
            await asyncio.sleep(10)
            assert [*finished, done] == [False, True]
            ended.append(asyncio.get_running_loop().time())

    assert not lab.explore(program, cancel=True, max_executions=200).failures
    assert set(ended) == {BEGIN + 11}


@BACKENDS
def test_a_thread_that_is_abandoned_ends_with_its_execution(backend: lab.BackendName) -> None:
    async def program() -> None:
        with anyio.move_on_after(1):
            await anyio.to_thread.run_sync(nap, 5, abandon_on_cancel=True)
        assert anyio.current_time() <= BEGIN + 1

    found = lab.explore(program, backend=backend, cancel=True)
    assert found.complete
    assert not found.failures


@BACKENDS
def test_a_thread_whose_coroutine_the_lab_cancels_may_end_with_that(
    backend: lab.BackendName,
) -> None:
    async def program() -> None:
        async with anyio.from_thread.BlockingPortal() as portal:

            def call() -> None:
                with contextlib.suppress(RuntimeError):  # the portal may have closed by then
                    portal.call(anyio.sleep, 1)

            thread = threading.Thread(target=call)
            thread.start()
            await anyio.sleep(3)
            thread.join()

    found = lab.explore(program, backend=backend, cancel=True, max_executions=50)
    assert not found.failures


def test_an_executor_with_one_worker_runs_one_function_at_a_time_in_one_thread() -> None:
    async def program() -> None:
        loop, threads, running = asyncio.get_running_loop(), set(), 0

        def function() -> None:
            nonlocal running
            running += 1
            assert running == 1
            threads.add(threading.get_ident())
            time.sleep(1)
            running -= 1

        await asyncio.gather(*(loop.run_in_executor(OLDER, function) for _ in range(3)))
        assert len(threads) == 1
        assert loop.time() == BEGIN + 3

    assert not lab.explore(program, max_executions=100).failures


OLDER = ThreadPoolExecutor(1)
"""An executor that is older than any exploration."""


def test_threads_have_the_same_names_in_every_execution() -> None:
    async def program() -> None:
        await asyncio.to_thread(twice, 1)

    found = lab.explore(program, step_limit=2)
    assert "thread twice" in found.failures[0].report


def test_a_thread_has_no_event_loop() -> None:
    async def program() -> None:
        with pytest.raises(RuntimeError, match="no running event loop"):
            await asyncio.to_thread(asyncio.get_running_loop)

    assert not lab.explore(program).failures


# What blocks the event loop


def test_a_wait_in_the_event_loop_lets_only_threads_go_on() -> None:
    async def program() -> None:
        loop = asyncio.get_running_loop()
        steps: list[str] = []
        loop.call_later(1, steps.append, "timer")
        thread = threading.Thread(target=nap, args=(3,))
        thread.start()
        thread.join()
        assert loop.time() == BEGIN + 3
        assert steps == []
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert steps == ["timer"]

    found = lab.explore(program)
    assert found.complete
    assert not found.failures


def test_a_wait_in_the_event_loop_that_nothing_ends_is_refused_with_its_line() -> None:
    async def program() -> None:
        loop = asyncio.get_running_loop()
        future: Future[None] = asyncio.run_coroutine_threadsafe(asyncio.sleep(1), loop)
        future.result()

    with pytest.raises(
        lab.Unsupported, match=r"blocks the event loop at .*test_threads.py:\d+, in"
    ):
        lab.explore(program)


# What is refused


def test_dpor_refuses_threads_with_their_line() -> None:
    async def program() -> None:
        threading.Thread(target=print).start()

    with pytest.raises(lab.Unsupported, match=r"at .*test_threads.py:\d+, in .*use another strat"):
        lab.explore(program, strategy="dpor")


def test_another_process_is_refused_with_its_line() -> None:
    async def program() -> None:
        loop = asyncio.get_running_loop()
        with ProcessPoolExecutor(1) as executor:
            await loop.run_in_executor(executor, twice, 1)

    with pytest.raises(lab.Unsupported, match=r"twice in another process, at .*test_threads.py:"):
        lab.explore(program)


def test_an_event_loop_in_a_thread_is_refused_with_its_line() -> None:
    async def program() -> None:
        await asyncio.to_thread(lambda: asyncio.run(asyncio.sleep(0)))

    with pytest.raises(lab.Unsupported, match=r"an event loop of its own, at .*test_threads.py:"):
        lab.explore(program)


def test_an_event_loop_in_a_thread_is_refused_when_it_runs() -> None:
    async def program() -> None:
        def run() -> None:
            loop = asyncio.new_event_loop()
            loop.call_soon(loop.stop)
            try:
                loop.run_forever()
            finally:
                loop.close()

        await asyncio.to_thread(run)

    with pytest.raises(lab.Unsupported, match=r"an event loop of its own, at .*test_threads.py:"):
        lab.explore(program)


@pytest.mark.parametrize("in_thread", [False, True])
def test_an_event_loop_that_is_made_and_does_not_run_is_not_refused(in_thread: bool) -> None:
    def make() -> None:
        asyncio.new_event_loop().close()

    async def program() -> None:
        if in_thread:
            await asyncio.to_thread(make)
        else:
            make()

    lab.explore(program).assert_holds()


def test_an_event_loop_inside_of_the_event_loop_is_an_error_as_in_reality() -> None:
    async def program() -> None:
        loop = asyncio.new_event_loop()
        try:
            with pytest.raises(RuntimeError, match="while another loop is running"):
                loop.run_forever()
        finally:
            loop.close()

    asyncio.run(program())
    lab.explore(program).assert_holds()


def test_a_thread_that_waits_for_what_the_lab_does_not_see_is_refused_with_its_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_lockstep, "PATIENCE", 0.2)
    pipe, other_end = os.pipe()

    async def program() -> None:
        await asyncio.to_thread(os.read, pipe, 1)

    with pytest.raises(lab.Unsupported, match="it waits for what the lab does not see"):
        lab.explore(program)
    os.close(other_end)  # which ends the thread


def test_trio_keeps_its_own_threads_outside_of_an_exploration() -> None:
    assert not lab.explore(lambda: anyio.to_thread.run_sync(twice, 1), backend="trio").failures
    assert trio.run(trio.to_thread.run_sync, lambda: 3) == 3


BLOCKED = """
import asyncio, os, sys
from concurrent.futures import ThreadPoolExecutor
import anyio.to_thread
from mbufpools import lab
from mbufpools.lab import _lockstep

_lockstep.PATIENCE = 0.2
pipe, other_end = os.pipe()
executor = ThreadPoolExecutor(1)

async def to_thread():
    await asyncio.to_thread(os.read, pipe, 1)

async def in_an_older_executor():
    await asyncio.get_running_loop().run_in_executor(executor, os.read, pipe, 1)

async def in_its_own_executor():
    with ThreadPoolExecutor(1) as own:
        own.submit(os.read, pipe, 1)
        await asyncio.sleep(1)

async def to_thread_of_anyio():
    await anyio.to_thread.run_sync(os.read, pipe, 1)

for program, backend in (
    (to_thread, "asyncio"),
    (in_an_older_executor, "asyncio"),
    (in_its_own_executor, "asyncio"),
    (to_thread_of_anyio, "asyncio"),
    (to_thread_of_anyio, "trio"),
):
    try:
        lab.explore(program, backend=backend)
    except lab.Unsupported as error:
        print(error)
sys.exit(7)
"""


def test_python_exits_although_a_refused_thread_does_not_end(tmp_path: Path) -> None:
    (tmp_path / "blocked.py").write_text(BLOCKED, "utf-8")
    done = subprocess.run(
        [sys.executable, "blocked.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 7, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 5
    # A function in C has no line of its own; that which has given it to the thread is told.
    for line, program in zip(lines, ("to_thread", "in_an_older", "in_its_own"), strict=False):
        assert re.search(rf"in C, which was submitted at blocked\.py:\d+, in {program}", line)
    for line in lines[3:]:
        assert re.search(r"the thread was started at blocked\.py:\d+, in to_thread_of_anyio", line)


# --- what a thread may not do, and when it runs


def later(function: Callable[..., Any], *args: Any) -> None:
    time.sleep(0.1)
    function(*args)


async def sets_an_event() -> None:
    event = asyncio.Event()
    thread = threading.Thread(target=partial(later, event.set))
    thread.start()
    await event.wait()


async def sets_a_result() -> None:
    future = asyncio.get_running_loop().create_future()
    threading.Thread(target=partial(later, future.set_result, 1)).start()
    await future


async def puts_into_a_queue() -> None:
    queue = asyncio.Queue[int]()
    threading.Thread(target=partial(later, queue.put_nowait, 1)).start()
    await queue.get()


async def cancels_a_task() -> None:
    task = asyncio.create_task(asyncio.Event().wait())
    await asyncio.to_thread(later, task.cancel)
    await asyncio.wait([task])


async def sets_a_timer() -> None:
    loop = asyncio.get_running_loop()
    await asyncio.to_thread(lambda: loop.call_later(1, print))


async def sets_an_event_of_anyio() -> None:
    event = anyio.Event()
    threading.Thread(target=partial(later, event.set)).start()
    await event.wait()


@pytest.mark.parametrize(
    "program",
    [
        sets_an_event,
        sets_a_result,
        puts_into_a_queue,
        cancels_a_task,
        sets_a_timer,
        sets_an_event_of_anyio,
    ],
)
@pytest.mark.parametrize("strategy", ["mixed", "exhaustive"])
def test_a_thread_may_not_call_the_event_loop_but_by_its_thread_safe_methods(
    program: Callable[[], Any], strategy: lab.StrategyName
) -> None:
    (failure,) = lab.explore(program, strategy=strategy).failures
    assert failure.found_at == 1
    assert re.search(
        r"a thread calls call_\w+ of the event loop, at .*test_threads.py:\d+, .*"
        r"Call loop.call_soon_threadsafe",
        failure.report,
    )


def test_a_thread_for_which_the_event_loop_waits_may_wake_a_task() -> None:
    """The loop does not sleep meanwhile, so the task is run afterwards."""

    async def program() -> None:
        event = asyncio.Event()
        waiting = asyncio.create_task(event.wait())
        await asyncio.sleep(0)
        thread = threading.Thread(target=event.set)
        thread.start()
        thread.join()
        await waiting

    assert not lab.explore(program).failures


async def sets_what_the_thread_needs_after_its_start() -> None:
    needs: dict[str, int] = {}
    thread = threading.Thread(target=lambda: needs["it"])
    thread.start()
    needs["it"] = 1
    await asyncio.to_thread(thread.join)


async def keeps_the_future_after_the_work_was_submitted() -> None:
    jobs: dict[str, Any] = {}
    future = asyncio.get_running_loop().run_in_executor(None, lambda: jobs["it"])
    jobs["it"] = future
    await future


async def cancels_what_was_submitted() -> None:
    with ThreadPoolExecutor(1) as executor:
        cancelled = executor.submit(int).cancel()
        assert cancelled


async def a_thread_starts_another_and_then_sets_what_it_needs() -> None:
    needs: dict[str, int] = {}

    def first() -> None:
        second = threading.Thread(target=lambda: needs["it"])
        second.start()
        needs["it"] = 1
        second.join()

    await asyncio.to_thread(first)


@pytest.mark.parametrize(
    "program",
    [
        sets_what_the_thread_needs_after_its_start,
        keeps_the_future_after_the_work_was_submitted,
        cancels_what_was_submitted,
        a_thread_starts_another_and_then_sets_what_it_needs,
    ],
)
@pytest.mark.parametrize("strategy", ["mixed", "exhaustive", "random", "pct"])
def test_a_thread_may_begin_before_the_call_that_starts_it_returns(
    program: Callable[[], Any], strategy: lab.StrategyName
) -> None:
    (failure,) = lab.explore(program, strategy=strategy, max_executions=100).failures
    (again,) = lab.replay(program, failure.token).failures
    assert again.report == failure.report
    if program is keeps_the_future_after_the_work_was_submitted:
        assert "<lambda> runs in the middle of this step" in failure.report


@BACKENDS
def test_a_thread_may_begin_in_the_middle_of_a_step_on_both_backends(
    backend: lab.BackendName,
) -> None:
    async def program() -> None:
        needs: dict[str, int] = {}
        thread = threading.Thread(target=lambda: needs["it"])
        thread.start()
        needs["it"] = 1
        await anyio.to_thread.run_sync(thread.join)

    assert lab.explore(program, backend=backend).verdict == "found"
    within = lab.explore(program, backend=backend, strategy="exhaustive", max_preemptions=0)
    assert within.verdict == "proved", "it costs a preemption"


OF_THE_MODULE = threading.Lock()


class Guarded:
    of_the_class = threading.RLock()

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.condition = threading.Condition()
        self.semaphore = threading.Semaphore()


GUARDED = Guarded()
OLDER_LOCKS: dict[str, Callable[[], Any]] = {
    "a lock of the module": lambda: OF_THE_MODULE,
    "a lock of a class": lambda: Guarded.of_the_class,
    "a lock of an object": lambda: GUARDED.lock,
    "a condition": lambda: GUARDED.condition,
    "a semaphore": lambda: GUARDED.semaphore,
}


@contextlib.contextmanager
def by_an_exit_stack(lock: Any) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        stack.enter_context(lock)
        yield


@BACKENDS
@pytest.mark.parametrize("around", [contextlib.nullcontext, by_an_exit_stack])
@pytest.mark.parametrize("which", OLDER_LOCKS)
def test_a_lock_that_is_older_than_the_execution_is_a_place_to_be_late(
    which: str, around: Callable[[Any], Any], backend: lab.BackendName
) -> None:
    async def program() -> None:
        count = [0]

        def guard() -> Any:
            lock = OLDER_LOCKS[which]()
            return lock if around is contextlib.nullcontext else around(lock)

        def add() -> None:
            with guard():
                value = count[0]
            with guard():
                count[0] = value + 1

        await in_two_threads(add)
        assert count == [2]

    assert lab.explore(program, backend=backend).verdict == "found"
    methods = vars(type(OF_THE_MODULE))
    assert not any(isinstance(methods[name], FunctionType) for name in ("acquire", "__enter__")), (
        "they are those of C again"
    )


def test_a_thread_waits_in_lock_step_for_a_lock_that_is_older() -> None:
    async def program() -> None:
        order: list[str] = []

        def slow() -> None:
            with OF_THE_MODULE:
                order.append("begin")
                time.sleep(1)
                order.append("end")

        await in_two_threads(slow)
        assert order == ["begin", "end"] * 2

    found = lab.explore(program, max_preemptions=1)
    assert found.verdict == "proved"
    assert found.executions > 2


def test_a_deadlock_of_older_locks_is_a_stall() -> None:
    async def program() -> None:
        def one() -> None:
            with OF_THE_MODULE, GUARDED.lock:
                pass

        def other() -> None:
            with GUARDED.lock, OF_THE_MODULE:
                pass

        await asyncio.gather(asyncio.to_thread(one), asyncio.to_thread(other))

    (failure,) = lab.explore(program).failures
    assert failure.kind == "stall"


def test_an_older_lock_that_is_held_across_an_await_is_refused() -> None:
    async def user() -> None:
        with OF_THE_MODULE:
            await asyncio.sleep(0)

    async def program() -> None:
        await asyncio.gather(user(), user())

    with pytest.raises(lab.Unsupported, match=r"blocks the event loop at .*test_threads.py"):
        lab.explore(program)


@BACKENDS
def test_the_programs_own_hook_hears_the_error_that_ends_a_thread(backend: lab.BackendName) -> None:
    async def program() -> None:
        told: list[Any] = []
        before, threading.excepthook = threading.excepthook, told.append
        try:
            thread = threading.Thread(target=int, args=("none",))
            thread.start()
            thread.join()
        finally:
            threading.excepthook = before
        assert told[0].exc_type is ValueError
        assert told[0].thread is thread

    assert not lab.explore(program, backend=backend).failures


@BACKENDS
@pytest.mark.parametrize("daemon", [False, True])
def test_a_thread_that_outlives_the_main_task_is_named(
    daemon: bool, backend: lab.BackendName
) -> None:
    def works_on() -> None:
        time.sleep(1)

    async def program() -> None:
        threading.Thread(target=works_on, daemon=daemon).start()
        await checkpoint()

    remarks = [it for it in lab.explore(program, backend=backend).remarks if "thread" in it]
    assert len(remarks) == (0 if daemon else 1)
    assert all("after the main task has ended" in it and "works_on" in it for it in remarks)


def test_a_lock_that_is_held_outside_of_the_program_is_waited_for_in_real_time() -> None:
    held = threading.Lock()
    held.acquire()
    releaser = threading.Timer(0.2, held.release)
    releaser.start()

    async def program() -> None:
        with held:
            pass
        await asyncio.to_thread(held.acquire)
        held.release()

    assert lab.explore(program).verdict == "proved"
    releaser.join()


@BACKENDS
@pytest.mark.parametrize("nested", [False, True])
def test_a_condition_that_is_older_is_waited_for_in_lock_step(
    nested: bool, backend: lab.BackendName
) -> None:
    condition = threading.Condition()

    async def program() -> None:
        items: list[int] = []

        def get() -> None:
            with condition, condition if nested else contextlib.nullcontext():
                assert condition.wait_for(lambda: items, timeout=60)
                items.pop()

        def put() -> None:
            with condition:
                items.append(1)
                condition.notify()

        async with anyio.create_task_group() as group:
            for function in (get, put, get, put):
                group.start_soon(anyio.to_thread.run_sync, function)
        assert not items

    found = lab.explore(program, backend=backend, max_executions=80)
    assert not found.failures


def test_a_recursive_lock_that_is_older_is_free_after_the_last_release() -> None:
    lock = threading.RLock()

    async def program() -> None:
        inside: list[int] = []

        def user() -> None:
            with lock:
                with lock:
                    inside.append(1)
                    time.sleep(1)
                time.sleep(1)
                assert len(inside) == 1
                inside.pop()

        await in_two_threads(user)

    found = lab.explore(program, max_preemptions=1)
    assert found.verdict == "proved"


@pytest.mark.parametrize("make", [threading.Lock, threading.RLock])
def test_a_wait_for_an_older_lock_ends_after_its_timeout(make: Callable[[], Any]) -> None:
    lock = make()

    async def program() -> None:
        def holds() -> None:
            with lock:
                time.sleep(2)

        def gives_up() -> None:
            time.sleep(0.5)
            begin = time.monotonic()
            assert not lock.acquire(timeout=1)
            assert 1 <= time.monotonic() - begin < 1.001
            assert not lock.acquire(blocking=False)

        await asyncio.gather(asyncio.to_thread(holds), asyncio.to_thread(gives_up))

    assert lab.explore(program, max_preemptions=1).verdict == "proved"


def test_a_thread_that_waits_for_a_lock_held_outside_of_the_program_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_lockstep, "PATIENCE", 0.2)
    held = threading.Lock()
    held.acquire()

    async def program() -> None:
        await asyncio.to_thread(held.acquire)

    with pytest.raises(lab.Unsupported, match="a lock that is held outside of the program"):
        lab.explore(program)
    held.release()


@BACKENDS
def test_threads_go_on_while_the_event_loop_sleeps_in_a_step(backend: lab.BackendName) -> None:
    async def program() -> None:
        log: list[str] = []

        def early() -> None:
            time.sleep(0.1)
            log.append("early")
            time.sleep(1)
            log.append("late")

        thread = threading.Thread(target=early)
        thread.start()
        begin = time.monotonic()
        time.sleep(0.5)
        assert log == ["early"]
        assert 0.5 <= time.monotonic() - begin < 0.501
        await anyio.to_thread.run_sync(thread.join)
        assert log == ["early", "late"]

    assert lab.explore(program, backend=backend).verdict == "proved"


@BACKENDS
@pytest.mark.parametrize("make", [threading.Lock, lambda: OF_THE_MODULE])
def test_a_thread_may_come_first_where_the_event_loop_takes_a_lock(
    make: Callable[[], Any], backend: lab.BackendName
) -> None:
    async def program() -> None:
        lock, count = make(), [0]

        def add() -> None:
            with lock:
                count[0] += 1

        thread = threading.Thread(target=add)
        thread.start()
        with lock:
            seen = count[0]
        with lock:
            count[0] = seen + 1
        await anyio.to_thread.run_sync(thread.join)
        assert count == [2]

    (failure,) = lab.explore(program, backend=backend).failures
    (again,) = lab.replay(program, failure.token).failures
    assert again.report == failure.report
    assert "runs in the middle of this step" in failure.report


def test_a_thread_says_whether_it_is_a_daemon() -> None:
    async def program() -> None:
        said: list[bool] = []

        def child() -> None:
            said.append(threading.current_thread().daemon)

        def parent() -> None:
            said.append(threading.current_thread().daemon)
            inner = threading.Thread(target=child)
            inner.start()
            inner.join()

        for daemon in (False, True):
            thread = threading.Thread(target=parent, daemon=daemon)
            thread.start()
            assert thread.daemon is daemon
            await asyncio.to_thread(thread.join)
        assert said == [False, False, True, True]

    assert lab.explore(program, max_executions=100).failures == ()


@BACKENDS
def test_two_workers_may_run_their_work_in_either_order(backend: lab.BackendName) -> None:
    async def program() -> None:
        order: list[int] = []
        async with anyio.create_task_group() as group:
            for number in (1, 2):
                group.start_soon(anyio.to_thread.run_sync, order.append, number)
        assert order == [1, 2]

    assert lab.explore(program, backend=backend).verdict == "found"


def test_two_workers_of_an_executor_may_run_their_work_in_either_order() -> None:
    async def program() -> None:
        order: list[int] = []
        with ThreadPoolExecutor(2) as executor:
            for number in (1, 2):
                executor.submit(order.append, number)
        assert order == [1, 2]

    assert lab.explore(program).verdict == "found"


def test_a_program_that_polls_a_thread_by_sleeps_of_the_event_loop_ends() -> None:
    async def program() -> None:
        thread = threading.Thread(target=time.sleep, args=(0.1,))
        thread.start()
        while thread.is_alive():
            time.sleep(0.01)

    assert lab.explore(program, max_executions=50).failures == ()


@pytest.mark.parametrize("make", [threading.Lock, threading.RLock, lambda: OF_THE_MODULE])
@BACKENDS
def test_a_lock_that_is_released_is_given_to_nobody(
    make: Callable[[], Any], backend: lab.BackendName
) -> None:
    async def the_holder_takes_it_again() -> None:
        lock, got = make(), []

        def holds() -> None:
            for _ in range(2):
                with lock:
                    time.sleep(0.09)

        def waits() -> None:
            time.sleep(0.01)
            got.append(lock.acquire(timeout=0.1))
            if got[0]:
                lock.release()

        async with anyio.create_task_group() as group:
            for function in (holds, waits):
                group.start_soon(anyio.to_thread.run_sync, function)
        assert got == [True]

    async def the_later_one_gets_it() -> None:
        lock, order = make(), list[int]()

        def waits(number: int) -> None:
            time.sleep(0.1 * number)
            with lock:
                order.append(number)

        async with anyio.create_task_group() as group:
            group.start_soon(anyio.to_thread.run_sync, waits, 2)
            group.start_soon(anyio.to_thread.run_sync, waits, 1)
            with lock:
                time.sleep(1)
        assert order == [2, 1]

    assert lab.explore(the_holder_takes_it_again, backend=backend).verdict == "found"
    assert lab.explore(the_later_one_gets_it, backend=backend).verdict == "found"


def test_the_event_loop_may_come_between_two_items_of_a_worker() -> None:
    async def program() -> None:
        state = ["a"]
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1) as executor:
            first = loop.run_in_executor(executor, time.sleep, 0.1)
            second = loop.run_in_executor(executor, lambda: state[0])
            await first
            state[0] = "b"
            assert await second == "a"

    assert lab.explore(program).verdict == "found"


POOLS: list[ThreadPoolExecutor] = []


@pytest.mark.parametrize("how", ["shutdown", "with", "in a thread"])
def test_the_shutdown_of_an_older_executor_waits_for_its_work(how: str) -> None:
    async def program() -> None:
        (pool,) = POOLS
        future = pool.submit(time.sleep, 1)
        if how == "shutdown":
            pool.shutdown()
        elif how == "with":
            with pool:
                pass
        else:
            await asyncio.to_thread(pool.shutdown)
        assert future.done()
        with pytest.raises(RuntimeError, match="after shutdown"):
            pool.submit(int)

    def reset() -> None:
        POOLS[:] = [ThreadPoolExecutor(1)]

    reset()
    assert lab.explore(program, reset=reset, max_executions=50).failures == ()


@pytest.mark.parametrize("make", [threading.Lock, threading.RLock, lambda: OF_THE_MODULE])
def test_a_lock_refuses_what_it_refuses_without_the_lab(make: Callable[[], Any]) -> None:
    async def program() -> None:
        lock = make()
        with pytest.raises(ValueError, match="can't specify a timeout for a non-blocking call"):
            lock.acquire(False, 1)
        with pytest.raises(ValueError, match="timeout value must be a non-negative number"):
            lock.acquire(timeout=-2)
        with pytest.raises(RuntimeError, match="release un"):
            lock.release()
        assert lock.acquire(timeout=0)
        lock.release()

    assert not lab.explore(program).failures


def test_the_next_work_may_get_another_worker_though_the_first_one_has_its_result() -> None:
    async def program() -> None:
        first = await asyncio.to_thread(threading.get_ident)
        second = await asyncio.to_thread(threading.get_ident)
        assert first == second

    assert lab.explore(program).verdict == "found"


@BACKENDS
def test_a_wait_of_a_thread_ends_while_the_event_loop_sleeps_in_a_step(
    backend: lab.BackendName,
) -> None:
    async def program() -> None:
        event, got = threading.Event(), list[bool]()

        def waits() -> None:
            got.append(event.wait(0.05))

        thread = threading.Thread(target=waits)
        thread.start()
        await anyio.sleep(0.01)
        time.sleep(0.1)
        event.set()
        await anyio.to_thread.run_sync(thread.join)
        assert got == [False]

    assert not lab.explore(program, backend=backend, strategy="fifo").failures


@BACKENDS
def test_a_thread_may_take_a_lock_twice_before_the_event_loop_takes_it(
    backend: lab.BackendName,
) -> None:
    async def program() -> None:
        lock, done = threading.Lock(), list[int]()

        def work() -> None:
            for number in range(2):
                with lock:
                    done.append(number)

        thread = threading.Thread(target=work)
        thread.start()
        with lock:
            seen = len(done)
        await anyio.to_thread.run_sync(thread.join)
        assert seen < 2

    found = lab.explore(program, backend=backend, strategy="exhaustive", max_preemptions=3)
    assert found.verdict == "found"


async def the_default_executor_is_shut_down() -> None:
    loop = asyncio.get_running_loop()
    await asyncio.gather(asyncio.to_thread(int), asyncio.to_thread(int))
    await loop.shutdown_default_executor()


async def an_executor_is_shut_down() -> None:
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(2) as pool:
        await asyncio.gather(*(loop.run_in_executor(pool, int) for _ in range(2)))


async def a_thread_waits_for_three_futures() -> None:
    def total() -> int:
        with ThreadPoolExecutor(2) as pool:
            futures = [pool.submit(int, number) for number in range(3)]
            return sum(future.result() for future in as_completed(futures))

    assert await asyncio.to_thread(total) == 3


@pytest.mark.parametrize(
    "program",
    [
        the_default_executor_is_shut_down,
        an_executor_is_shut_down,
        a_thread_waits_for_three_futures,
    ],
)
def test_a_set_of_threads_or_of_their_futures_is_walked_in_one_order(program: Any) -> None:
    kept = []  # so that the addresses of what is in the sets differ
    for number in range(3):
        kept.append([object() for _ in range(7 * number)])
        assert not lab.explore(program, max_executions=60).failures
