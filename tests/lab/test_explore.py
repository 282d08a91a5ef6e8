"""The lab explores all schedules that it claims, and each failure that it finds can be repeated."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import re
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.to_thread
import pytest
import trio
from anyio.lowlevel import checkpoint
from trio._core import _run as trio_run

from mbufpools import BufferPools, PoolSpec, lab
from mbufpools.lab._execute import execute
from mbufpools.lab._instants import BEGIN
from mbufpools.lab._options import Options
from mbufpools.lab._schedule import Anchor, Cancel, Schedule
from mbufpools.lab._strategies import Exhaustive, Random
from mbufpools.lab._strategy import Strategy
from mbufpools.lab._token import parse_token, spell_token

BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])
Program = Callable[[], Awaitable[Any]]


def letters(orders: list[str], *words: str) -> Program:
    """Tasks that each write the letters of a word, with a checkpoint in between."""

    async def program() -> None:
        written: list[str] = []

        async def write(word: str) -> None:
            for letter in word[:-1]:
                written.append(letter)
                await checkpoint()
            written.append(word[-1])

        async with anyio.create_task_group() as group:
            for word in words:
                group.start_soon(write, word)
        orders.append("".join(written))

    return program


async def lost_update() -> None:
    """Two tasks add one, and both may read before either writes. In the order that the backend
    itself takes, the second one comes too late for that."""
    shared = lab.Shared(0)

    async def add(checkpoints: int) -> None:
        for _ in range(checkpoints):
            await checkpoint()
        value = shared.value
        await checkpoint()
        shared.value = value + 1

    async with anyio.create_task_group() as group:
        group.start_soon(add, 0)
        group.start_soon(add, 1)
    assert shared.value == 2


async def never_set_event() -> None:
    """Waits for an event that is never set."""
    await anyio.Event().wait()


async def nothing() -> None:
    """Does nothing."""


# What is covered


def orders_of(
    strategy: Strategy, backend: lab.BackendName, *words: str
) -> tuple[list[str], list[Schedule]]:
    """Execute all schedules of a strategy; return the order of the letters in each."""
    orders: list[str] = []
    schedules: list[Schedule] = []
    executed = execute(
        letters(orders, *words),
        strategy,
        Options(backend=backend, max_executions=10_000),
        on_execution=lambda schedule, outcome: schedules.append(schedule),
    )
    assert strategy.complete
    assert not executed.failures
    # At the end some of them are executed again, to compare them.
    return orders[: executed.executions], schedules


WORDS = pytest.mark.parametrize(("words", "count"), [(("aaa", "bbb"), 20), (tuple("abcd"), 24)])


@BACKENDS
@WORDS
def test_under_the_run_on_rule_every_order_is_reached_just_once(
    backend: lab.BackendName, words: tuple[str, ...], count: int
) -> None:
    orders, _ = orders_of(Exhaustive(None), backend, *words)
    assert len(orders) == len(set(orders)) == count


@BACKENDS
@WORDS
def test_an_exploration_reaches_every_order_at_most_once_under_each_rule(
    backend: lab.BackendName, words: tuple[str, ...], count: int
) -> None:
    orders: list[str] = []
    exploration = lab.explore(
        letters(orders, *words), strategy="exhaustive", backend=backend, max_preemptions=None
    )
    assert exploration.complete
    assert not exploration.failures
    executed = Counter(orders[: exploration.executions])
    assert len(executed) == len(set(orders)) == count
    assert max(executed.values()) == 2


@BACKENDS
@pytest.mark.parametrize(("bound", "expected"), [(0, 2), (1, 6), (2, 14), (4, 20)])
def test_the_bound_counts_preemptions(backend: lab.BackendName, bound: int, expected: int) -> None:
    """An order of aaa and bbb needs one preemption each time that it leaves a word unfinished."""
    orders, schedules = orders_of(Exhaustive(bound), backend, "aaa", "bbb")

    def preemptions(order: str) -> int:
        return sum(
            first != second and order[: place + 1].count(first) < 3
            for place, (first, second) in enumerate(itertools.pairwise(order))
        )

    assert list(map(preemptions, orders)) == [schedule.preemptions for schedule in schedules]
    assert max(map(preemptions, orders)) <= bound
    assert len(orders) == len(set(orders)) == expected


@BACKENDS
@pytest.mark.parametrize("bound", [0, 1, 2, 3])
def test_the_bound_counts_delays(backend: lab.BackendName, bound: int) -> None:
    """An order of aaa and bbb has one delay for each letter that is not the one whose task became
    ready first."""
    orders, _ = orders_of(Exhaustive(0, bound, [("stock", ())]), backend, "aaa", "bbb")

    def delays(order: str) -> int:
        ready, left, number = ["a", "b"], {"a": 3, "b": 3}, 0
        for letter in order:
            number += ready[0] != letter
            ready.remove(letter)
            left[letter] -= 1
            if left[letter]:
                ready.append(letter)
        return number

    every = {"".join(order) for order in itertools.permutations("aaabbb")}
    assert len(orders) == len(set(orders))
    assert set(orders) == {order for order in every if delays(order) <= bound}


@BACKENDS
@pytest.mark.parametrize("bound", [0, 1, 2])
def test_an_exploration_covers_the_schedules_of_both_bounds(
    backend: lab.BackendName, bound: int
) -> None:
    run_on, _ = orders_of(Exhaustive(bound), backend, "aaa", "bbb")
    stock, _ = orders_of(Exhaustive(0, bound, [("stock", ())]), backend, "aaa", "bbb")
    orders: list[str] = []
    exploration = lab.explore(
        letters(orders, "aaa", "bbb"), strategy="exhaustive", backend=backend, max_preemptions=bound
    )
    assert exploration.complete
    assert Counter(orders[: exploration.executions]) == Counter(run_on + stock)


@BACKENDS
def test_independent_tasks_cost_dpor_no_execution_besides_the_stock_order(
    backend: lab.BackendName,
) -> None:
    exploration = lab.explore(letters([], "aaa", "bbb", "ccc"), strategy="dpor", backend=backend)
    assert (exploration.executions, exploration.complete) == (2, True)


@BACKENDS
def test_fifo_is_the_order_of_becoming_ready(backend: lab.BackendName) -> None:
    orders: list[str] = []
    exploration = lab.explore(letters(orders, "aaa", "bbb"), strategy="fifo", backend=backend)
    assert set(orders) == {"ababab"}
    assert exploration.executions == 1
    assert exploration.complete


def test_random_and_pct_are_determined_by_their_seed() -> None:
    for strategy in ("random", "pct"):
        runs: list[list[str]] = []
        for backend in ("asyncio", "trio") * 2:
            orders: list[str] = []
            lab.explore(
                letters(orders, "aaa", "bbb"),
                strategy=strategy,
                backend=backend,
                max_executions=30,
                seed=7,
            )
            runs.append(orders[:30])
        assert all(run == runs[0] for run in runs), "the backends or the runs differ"
        assert runs[0][0] == "ababab", "the stock order comes first"
        assert len(set(runs[0])) > 3


def test_an_exploration_that_was_cut_short_says_so() -> None:
    exploration = lab.explore(letters([], "aaa", "bbb"), max_executions=5)
    assert exploration.executions == 5
    assert not exploration.complete
    assert "not all of the schedules of at most 2 preemptions" in str(exploration)


def test_a_task_that_spins_does_not_keep_out_the_others() -> None:
    async def program() -> None:
        done = False

        async def spin() -> None:
            while not done:
                await checkpoint()

        async with anyio.create_task_group() as group:
            group.start_soon(spin)
            await checkpoint()
            done = True

    for backend in ("asyncio", "trio"):
        for strategy in ("exhaustive", "fifo", "random", "pct"):
            exploration = lab.explore(
                program, strategy=strategy, backend=backend, max_preemptions=1, max_executions=300
            )
            assert not exploration.failures, exploration.failures[0]


# What is found


@BACKENDS
@pytest.mark.parametrize("strategy", ["exhaustive", "dpor", "random", "pct"])
def test_a_lost_update_is_found_and_replayed(
    strategy: lab.StrategyName, backend: lab.BackendName
) -> None:
    exploration = lab.explore(lost_update, strategy=strategy, backend=backend)
    (failure,) = exploration.failures
    assert failure.kind == "exception"
    again = lab.replay(lost_update, failure.token)
    assert [it.kind for it in again.failures] == ["exception"]
    assert again.failures[0].token == failure.token
    with pytest.raises(lab.ExplorationFailed, match=r"assert shared\.value == 2") as caught:
        exploration.assert_holds()
    assert caught.value.errors == (failure.error,)


@BACKENDS
def test_a_stall_says_where_each_task_stands_and_which_call_is_missing(
    backend: lab.BackendName,
) -> None:
    exploration = lab.explore(never_set_event, backend=backend)
    (failure,) = exploration.failures
    assert failure.kind == "stall"
    assert "task 0 'main' waits at " in failure.report
    assert "in never_set_event" in failure.report
    assert "Event: set() was not called after that" in failure.report
    assert f"lab.replay(program, {failure.token!r})" in failure.report


@BACKENDS
def test_a_stall_shows_the_calls_that_led_there(backend: lab.BackendName) -> None:
    async def inner() -> None:
        await anyio.Event().wait()

    async def outer() -> None:
        await inner()

    (failure,) = lab.explore(outer, backend=backend).failures
    stands, called, story, *_ = failure.report.splitlines()[1:]
    assert re.search(r"task 0 'main' waits at .*:\d+, in .*\.inner, for anyio's Event: ", stands)
    assert re.fullmatch(r"    by way of .*:\d+, in .*\.outer", called)
    assert story.startswith("schedule (")


def test_the_report_is_the_same_on_both_backends() -> None:
    stories = set()
    for backend in ("asyncio", "trio"):
        (failure,) = lab.explore(lost_update, backend=backend).failures
        story = failure.report.split("\nTraceback")[0]
        assert "it is over: it raised AssertionError" in story.splitlines()[-1]
        stories.add(story)
    assert len(stories) == 1


@BACKENDS
def test_a_stall_of_pools_says_what_each_task_waits_for(backend: lab.BackendName) -> None:
    async def program() -> None:
        pools = BufferPools(4096, [PoolSpec(4096, items_per_page=1)])
        async with pools:
            pools.taskq.discard(pools._gc_task)  # it would tick for ever
            first = await pools.get(4096)
            await pools.get(4096)
            first.release()

    (failure,) = lab.explore(program, backend=backend, max_executions=10).failures
    assert failure.kind == "stall"
    assert "for pool '4096': nothing has served it" in failure.report


@BACKENDS
def test_a_program_that_never_ends_is_a_livelock_not_a_stall(backend: lab.BackendName) -> None:
    async def program() -> None:
        while True:
            await checkpoint()

    exploration = lab.explore(program, backend=backend, step_limit=100)
    (failure,) = exploration.failures
    assert failure.kind == "livelock"
    assert "100 steps, and no end" in failure.report


@BACKENDS
def test_a_buffer_that_is_dropped_is_a_leak(backend: lab.BackendName) -> None:
    async def program() -> None:
        async with BufferPools(4096, [PoolSpec(4096, items_per_page=1)]) as pools:
            await pools.get(4096)

    (failure,) = lab.explore(program, backend=backend).failures
    assert failure.kind == "leak"
    assert "was dropped without a release" in failure.report


def test_an_exception_that_no_task_retrieves_is_a_failure() -> None:
    async def program() -> None:
        async def fail() -> None:
            raise RuntimeError("never retrieved")

        asyncio.get_running_loop().create_task(fail())
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    (failure,) = lab.explore(program).failures
    assert failure.kind == "exception"
    assert "never retrieved" in failure.report


@BACKENDS
def test_a_group_that_is_nested_deep_is_a_failure_as_any_other(backend: lab.BackendName) -> None:
    async def program() -> None:
        error: Exception = ValueError("innermost")
        for _ in range(2 * sys.getrecursionlimit()):
            error = ExceptionGroup("nested", [error])
        raise error

    (failure,) = lab.explore(program, backend=backend).failures
    assert failure.kind == "exception"
    assert "nested (1 sub-exception)" in failure.report


@BACKENDS
def test_equal_failures_are_reported_once_and_different_ones_each(backend: lab.BackendName) -> None:
    async def program() -> None:
        order: list[str] = []

        async def write(letter: str) -> None:
            order.append(letter)

        async with anyio.create_task_group() as group:
            for letter in "abc":
                group.start_soon(write, letter)
        if order[0] != "a":
            raise ValueError(f"{order[0]} came first")

    exploration = lab.explore(program, strategy="exhaustive", backend=backend, max_failures=None)
    assert exploration.complete
    assert exploration.executions == 6 * 2, "each order under each rule"
    said = {str(failure.error) for failure in exploration.failures}
    assert said == {"b came first", "c came first"}
    assert len(exploration.failures) == 2


# Time


@BACKENDS
def test_time_is_virtual_and_begins_anew_in_each_execution(backend: lab.BackendName) -> None:
    seen = []

    async def program() -> None:
        begin = anyio.current_time()
        await anyio.sleep(1e6)
        with anyio.move_on_after(5) as scope:
            await anyio.Event().wait()
        seen.append((begin, anyio.current_time(), scope.cancelled_caught))

    async def two() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(program)
            group.start_soon(program)

    exploration = lab.explore(two, backend=backend)
    assert exploration.complete
    assert exploration.executions > 1
    assert set(seen) == {(BEGIN, BEGIN + 1_000_005, True)}


@BACKENDS
def test_timers_with_the_same_deadline_fire_in_every_order(backend: lab.BackendName) -> None:
    orders = set()

    async def program() -> None:
        order: list[int] = []

        async def sleep(number: int) -> None:
            await anyio.sleep(1)
            order.append(number)

        async with anyio.create_task_group() as group:
            for number in range(3):
                group.start_soon(sleep, number)
        orders.add(tuple(order))

    assert lab.explore(program, backend=backend, max_preemptions=0).complete
    assert len(orders) == 6


# Cancellation


@BACKENDS
def test_every_await_point_of_every_task_is_cancelled(backend: lab.BackendName) -> None:
    """Two tasks with two await points each, and the main task at its own."""
    cancelled = set()

    async def work(name: str) -> None:
        for point in range(2):
            try:
                await checkpoint()
            except anyio.get_cancelled_exc_class():
                cancelled.add((name, point))
                raise

    async def program() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(work, "a")
            group.start_soon(work, "b")

    for strategy in ("fifo", "exhaustive"):
        cancelled.clear()
        exploration = lab.explore(program, backend=backend, cancel=True, strategy=strategy)
        assert not exploration.failures, exploration.failures[0]
        assert exploration.complete
        assert cancelled == {(name, point) for name in "ab" for point in range(2)}


@BACKENDS
def test_a_task_is_cancelled_before_and_after_it_was_woken(backend: lab.BackendName) -> None:
    seen = set()

    async def program() -> None:
        event = anyio.Event()

        async def wait() -> None:
            try:
                await event.wait()
            except anyio.get_cancelled_exc_class():
                seen.add(("cancelled", event.is_set()))
                raise
            seen.add(("woken", event.is_set()))

        async def wake() -> None:
            event.set()
            await checkpoint()

        async with anyio.create_task_group() as group:
            group.start_soon(wait)
            group.start_soon(wake)

    exploration = lab.explore(program, backend=backend, cancel=True)
    assert exploration.complete
    assert ("cancelled", False) in seen
    assert ("woken", True) in seen
    if backend == "asyncio":  # asyncio cancels a task that was woken; trio does not
        assert ("cancelled", True) in seen


def test_the_lab_cancels_in_the_way_that_is_asked_for() -> None:
    """Only a native cancellation goes through a shield, and ``Task.cancelling()`` counts it."""
    asked: list[int] = []

    async def program() -> None:
        with anyio.CancelScope(shield=True):
            task = asyncio.create_task(asyncio.sleep(1))
            try:
                await asyncio.sleep(0)
                await task
            finally:
                asked.append(task.cancelling())

    ways: dict[bool | str, set[int]] = {}
    for cancel in (False, "scope", "native", True):
        asked.clear()
        exploration = lab.explore(program, cancel=cancel)
        assert exploration.complete
        assert not exploration.failures, exploration.failures[0]
        ways[cancel] = set(asked)
    assert ways == {False: {0}, "scope": {0}, "native": {0, 1}, True: {0, 1}}


@BACKENDS
def test_a_leak_at_the_grant_is_found_by_cancellation_alone(backend: lab.BackendName) -> None:
    async def program() -> None:
        tokens = 1
        waiting: list[anyio.Event] = []

        async def use() -> None:
            nonlocal tokens
            if not tokens:
                event = anyio.Event()
                waiting.append(event)
                await event.wait()  # cancelled here, the token it was given is lost
            else:
                tokens -= 1
            try:
                await checkpoint()
            finally:
                if waiting:
                    waiting.pop(0).set()
                else:
                    tokens += 1

        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(use)
        assert tokens == 1, "a token was lost"

    assert not lab.explore(program, backend=backend).failures
    exploration = lab.explore(program, backend=backend, cancel=True)
    (failure,) = exploration.failures
    assert failure.kind in ("stall", "exception")
    assert "the lab cancels" in failure.report
    assert lab.replay(program, failure.token).failures[0].kind == failure.kind


# Tokens


@pytest.mark.parametrize(
    "token",
    [
        "asyncio:",
        "trio:0.1@2>0.2",
        "trio/run-on:0.1@2>0.2",
        "asyncio:clock@0>0.1,0@1!0.0/scope,0@1'>0.1,0.1@2!0/native",
        "asyncio/run-on:clock@0>0.1,0@1!0.0/scope",
    ],
)
def test_a_token_is_read_as_it_was_written(token: str) -> None:
    backend, deviations, rule = parse_token(token)
    assert (backend in ("asyncio", "trio"), rule == "run-on") == (True, "/run-on:" in token)
    assert spell_token(backend, deviations, rule) == token


def test_a_token_names_task_and_step() -> None:
    _, deviations, _ = parse_token("asyncio:0.1@2>0.2,0.2@1!0.1/scope")
    assert deviations == {
        Anchor((0, 1), 2, 0): (0, 2),
        Anchor((0, 2), 1, 0): Cancel((0, 1), "scope"),
    }


@pytest.mark.parametrize(
    "token",
    [
        *("", "asyncio", "asyncio:x", "asyncio:1@1>0", "asyncio:0@1!0.1/force", "trio:0>1"),
        *("asyncio:0@1>0.1,0@1>0.1", "asyncio:0@1>0.1,0@1>0.2", "asyncio:0@1?=1,0@1?=2"),
    ],
)
def test_an_invalid_token_is_refused(token: str) -> None:
    with pytest.raises(ValueError, match="is no token; expected what a failure's `token` says"):
        lab.replay(nothing, token)


def test_a_token_of_another_program_is_refused() -> None:
    (failure,) = lab.explore(lost_update).failures
    assert parse_token(failure.token)[1], "it is not the stock order, which fits any program"
    with pytest.raises(lab.LabError, match="does not fit the program"):
        lab.replay(nothing, failure.token)


def test_a_replay_of_a_fixed_bug_does_not_fail() -> None:
    token = lab.explore(lost_update).failures[0].token

    async def fixed() -> None:
        shared, lock = lab.Shared(0), anyio.Lock(fast_acquire=True)

        async def add(checkpoints: int) -> None:
            for _ in range(checkpoints):
                await checkpoint()
            async with lock:
                value = shared.value
                await checkpoint()
                shared.value = value + 1

        async with anyio.create_task_group() as group:
            group.start_soon(add, 0)
            group.start_soon(add, 1)
        assert shared.value == 2

    assert not lab.replay(fixed, token).failures


async def race() -> None:
    """A task checks whether the resource is free, passes a checkpoint, and then waits. The holder
    may check for waiting tasks in between."""
    free, waiting = lab.Shared(True), lab.Shared[tuple[anyio.Event, ...]](())

    async def use() -> None:
        if free.value:
            free.value = False
        else:
            await checkpoint()
            event = anyio.Event()
            waiting.update(lambda others: (*others, event))
            await event.wait()
        await checkpoint()
        if waiting.value:
            first, *others = waiting.value
            waiting.value = tuple(others)
            first.set()
        else:
            free.value = True

    async with anyio.create_task_group() as group:
        group.start_soon(use)
        group.start_soon(use)


@BACKENDS
@pytest.mark.parametrize("strategy", ["exhaustive", "dpor", "random", "pct"])
def test_a_failure_is_shrunk_to_two_deviations_in_few_replays(
    strategy: lab.StrategyName, backend: lab.BackendName
) -> None:
    (failure,) = lab.explore(race, strategy=strategy, backend=backend).failures
    _, deviations, _ = parse_token(failure.token)
    assert len(deviations) <= 2
    assert failure.replays <= 15


@BACKENDS
def test_a_failure_is_not_shrunk_to_another_one_and_equal_results_are_reported_once(
    backend: lab.BackendName,
) -> None:
    async def program() -> None:
        order: list[str] = []

        async def write(letter: str) -> None:
            order.append(letter)
            await checkpoint()
            order.append(letter)

        async with anyio.create_task_group() as group:
            group.start_soon(write, "a")
            group.start_soon(write, "b")
        raise KeyError(order) if order[0] == "b" else ValueError(order)

    exploration = lab.explore(program, strategy="exhaustive", backend=backend, max_failures=None)
    assert exploration.complete
    # There are six different failures. One of each kind is left, under each rule where it has
    # deviations.
    assert [(type(failure.error), failure.token) for failure in exploration.failures] == [
        (ValueError, f"{backend}:"),
        (KeyError, f"{backend}/run-on:0@1>0.1"),
        (KeyError, f"{backend}:0@1>0.1"),
    ]


@BACKENDS
@pytest.mark.parametrize("strategy", ["random", "pct"])
def test_deviations_that_do_not_matter_are_shrunk_away(
    strategy: lab.StrategyName, backend: lab.BackendName
) -> None:
    """A random schedule of four tasks has many deviations."""

    async def program() -> None:
        shared = lab.Shared(0)

        async def add() -> None:
            for _ in range(3):
                await checkpoint()
            value = shared.value
            await checkpoint()
            shared.value = value + 1
            for _ in range(3):
                await checkpoint()

        async with anyio.create_task_group() as group:
            for _ in range(4):
                group.start_soon(add)
        assert shared.value == 4

    (failure,) = lab.explore(program, strategy=strategy, backend=backend).failures
    _, deviations, _ = parse_token(failure.token)
    assert len(deviations) <= 3


PERTURBED = """
import random, sys
import anyio
from anyio.lowlevel import checkpoint
from mbufpools import lab

source = random.Random(int(sys.argv[1]))
junk = [bytearray(source.randrange(5000)) for _ in range(source.randrange(3000))]
del junk[:: 1 + source.randrange(3)]
trace = []

async def program():
    streams = anyio.create_memory_object_stream[int](1)
    limiter = anyio.CapacityLimiter(1)

    async def work(number):
        with anyio.move_on_after(number % 2 + 1):
            async with limiter:
                trace.append(number)
                await checkpoint()
            await anyio.Event().wait()

    with streams[0], streams[1]:
        async with anyio.create_task_group() as group:
            for number in range(4):
                group.start_soon(work, number)

for token in sys.argv[2:]:
    lab.replay(program, token)
    trace.append("|")
print(*trace)
"""


def traces_of_processes(count: int) -> set[str]:
    tokens = ["asyncio:0@1>0.2,0.2@1>0.3", "trio:0@1>0.2,0.2@1>0.3", "asyncio:", "trio:"]
    return {
        subprocess.run(
            [sys.executable, "-c", PERTURBED, str(seed), *tokens],
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in range(count)
    }


@pytest.mark.real_time
def test_one_token_is_one_trace_whatever_the_heap_looks_like() -> None:
    (trace,) = traces_of_processes(3)
    assert trace.count("|") == 4


@pytest.mark.prove
def test_one_token_is_one_trace_in_a_hundred_processes() -> None:
    assert len(traces_of_processes(100)) == 1


# What the lab refuses


def test_io_is_refused_on_asyncio() -> None:
    async def program() -> None:
        await asyncio.open_connection("127.0.0.1", 9)

    with pytest.raises(lab.Unsupported, match="the program does I/O"):
        lab.explore(program)


def test_a_call_from_a_thread_that_the_program_has_not_started_is_refused() -> None:
    go, done = threading.Lock(), threading.Lock()  # older than the program, so real
    go.acquire()
    done.acquire()
    loops: list[asyncio.AbstractEventLoop] = []

    def elsewhere() -> None:
        go.acquire()
        with contextlib.suppress(lab.Unsupported):
            loops[0].call_soon_threadsafe(print)
        done.release()

    async def program() -> None:
        if not loops:
            loops.append(asyncio.get_running_loop())
            go.release()
            done.acquire()

    thread = threading.Thread(target=elsewhere)
    thread.start()
    with pytest.raises(lab.Unsupported, match="a thread that the program has not started calls"):
        lab.explore(program)
    thread.join()


def test_a_refusal_ends_the_exploration_even_if_the_program_catches_it() -> None:
    async def program() -> None:
        with contextlib.suppress(Exception):
            await asyncio.open_connection("127.0.0.1", 9)

    with pytest.raises(lab.Unsupported, match="the program does I/O"):
        lab.explore(program)
    assert not lab.explore(nothing).failures


@BACKENDS
def test_the_lab_cannot_be_called_inside_an_event_loop(backend: lab.BackendName) -> None:
    async def inside() -> None:
        with pytest.raises(lab.LabError, match="call it from a plain function"):
            lab.explore(nothing, backend=backend)

    anyio.run(inside, backend=backend)


@BACKENDS
def test_a_task_that_is_missing_in_a_later_execution_is_reported(backend: lab.BackendName) -> None:
    """dpor cannot make its next choice; strategies that replay skip a choice that is missing."""
    calls = 0

    async def program() -> None:
        nonlocal calls
        calls += 1
        shared = lab.Shared(0)

        async def add() -> None:
            shared.value += 1

        async with anyio.create_task_group() as group:
            for _ in range(3 if calls <= 2 else 1):
                group.start_soon(add)

    with pytest.raises(
        lab.LabError, match=r"the tasks that could run were at first 0\.0, 0\.1, 0\.2"
    ):
        lab.explore(program, strategy="dpor", backend=backend)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"strategy": "dfs"},
            "no strategy 'dfs': expected one of mixed, exhaustive, dpor, random, pct",
        ),
        ({"backend": "curio"}, "no backend 'curio': expected 'asyncio' or 'trio'"),
        ({"max_executions": 0}, "max_executions is 0; expected an integer of at least 1"),
        ({"max_preemptions": -1}, "max_preemptions is -1; expected an integer of at least 0"),
        ({"max_failures": 0}, "max_failures is 0; expected an integer of at least 1"),
        ({"depth": 0}, "depth is 0"),
        ({"step_limit": 0}, "step_limit is 0"),
        ({"strategy": "dpor", "cancel": True}, "dpor cannot cancel"),
        ({"cancel": "scoop"}, "cancel is 'scoop': no way to cancel .*'scope', 'native'"),
        ({"cancel": ()}, "cancel is .*expected True, False, 'scope', 'native', names of tasks"),
        (
            {"cancel": "native", "backend": "trio"},
            "trio cannot cancel by 'native'; it can by scope",
        ),
        ({"ignore": 3}, "ignore has 3; expected some of 'stall', 'livelock', "),
        ({"ignore": ["leek"]}, "ignore has 'leek'; expected some of 'stall', 'livelock', "),
    ],
)
def test_invalid_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lab.explore(nothing, **options)


def test_a_release_of_trio_that_the_lab_cannot_control_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(trio_run, "_ALLOW_DETERMINISTIC_SCHEDULING")
    with pytest.raises(lab.LabError, match=f"cannot control trio {trio.__version__}.*_ALLOW"):
        lab.explore(nothing, backend="trio")


def test_trio_is_restored_after_an_exploration() -> None:
    def hooks() -> tuple[Any, ...]:
        return (
            trio_run._r,
            trio_run._ALLOW_DETERMINISTIC_SCHEDULING,
            trio_run.Runner.spawn_impl,
            trio._threads.start_thread_soon,  # type: ignore[attr-defined]  # not exported
        )

    before = hooks()
    lab.explore(lost_update, backend="trio", strategy="dpor")
    with pytest.raises(lab.Unsupported):
        lab.explore(lambda: anyio.connect_tcp("127.0.0.1", 9), backend="trio")
    assert hooks() == before
    assert trio.run(trio.to_thread.run_sync, lambda: 3) == 3


# The engine


def all_schedules(backend: lab.BackendName, cancel: bool) -> list[Schedule]:
    """The schedules of two tasks with at most two preemptions, in the order of their execution."""
    schedules: list[Schedule] = []
    strategy = Exhaustive(2)
    execute(
        letters([], "aaa", "bb"),
        strategy,
        Options(
            backend=backend,
            max_executions=10_000,
            max_failures=None,
            step_limit=100,
            cancel_by=("scope",) if cancel else (),
        ),
        on_execution=lambda schedule, outcome: schedules.append(schedule),
    )
    assert strategy.complete
    return schedules


@BACKENDS
@pytest.mark.parametrize("cancel", [False, True])
def test_the_schedules_that_deviate_least_come_first(
    cancel: bool, backend: lab.BackendName
) -> None:
    deviations = [len(schedule.deviations) for schedule in all_schedules(backend, cancel)]
    assert deviations == sorted(deviations)
    assert deviations[0] == 0
    assert deviations[-1] > 2


@BACKENDS
@pytest.mark.parametrize("cancel", [False, True])
def test_no_schedule_is_executed_twice(cancel: bool, backend: lab.BackendName) -> None:
    schedules = all_schedules(backend, cancel)
    deviations = [tuple(schedule.deviations.items()) for schedule in schedules]
    assert len(deviations) == len(set(deviations)) > 5
    assert all(schedule.preemptions <= 2 for schedule in schedules)
    if not cancel:
        orders = [tuple((it.task, it.number) for it in each.steps) for each in schedules]
        assert len(orders) == len(set(orders))


def test_random_splits_its_seeds() -> None:
    strategy = Random(10, 100)
    parts = [strategy.split(4), strategy.split(4), strategy.split(4), strategy.split(4)]
    assert [part and part._seeds for part in parts] == [
        range(100, 104),
        range(104, 108),
        range(108, 110),
        None,
    ]


def test_progress_is_reported() -> None:
    told: list[int] = []
    exploration = lab.explore(
        letters([], "aa", "bb"), max_preemptions=None, on_progress=told.append
    )
    assert told == list(range(1, exploration.executions + 1))
    assert len(told) > 6


async def with_arguments(n: int, of: int) -> None:
    raise AssertionError(n, of)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: with_arguments,
            r"the program with_arguments takes arguments \(n, of\); expected an `async def` "
            r"without arguments: wrap it, as in `functools.partial\(with_arguments, ...\)`",
        ),
        (
            lambda: functools.partial(with_arguments, 1),
            r"the program with_arguments takes arguments \(of\)",
        ),
        (
            lambda: with_arguments(1, 2),
            "the program is a coroutine, which can run only once; expected an `async def` without "
            r"arguments, because each execution calls it: pass `with_arguments`, not `with_arg.*\(",
        ),
        (lambda: 3, "the program is 3; expected an `async def` without arguments"),
    ],
)
def test_what_is_no_program_is_a_mistake_of_the_caller(
    make: Callable[[], Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        lab.explore(make())
    with pytest.raises(ValueError, match=message):
        lab.replay(make(), "asyncio:")


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_program_that_returns_no_awaitable_is_a_mistake_of_the_caller(
    backend: lab.BackendName,
) -> None:
    program: Any = lambda: 3  # noqa: E731 - a lambda is what is tested
    message = (
        "^the program <lambda> returned a value that cannot be awaited, of the type int; expected "
        "an `async def` without arguments$"
    )
    with pytest.raises(lab.LabError, match=message):
        lab.explore(program, backend=backend)
    with pytest.raises(lab.LabError, match=message):
        lab.replay(program, f"{backend}:")
