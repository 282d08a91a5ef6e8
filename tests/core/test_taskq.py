"""The task queue: coalescing, order, later, discard, barrier, and every way in which it ends."""

from __future__ import annotations

import asyncio
import functools
import math
import threading
from collections.abc import Awaitable, Callable

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mbufpools import Event, EventKind, Task, TaskQueue, TaskQueueStatistics, UsageError

on_asyncio = pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)


def now() -> float:
    """Seconds of the loop's clock, without the noise of adding floats."""
    return round(anyio.current_time(), 6)


class RunLog:
    """What ran, and when; it makes tasks that write to it."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.times: list[tuple[str, float]] = []

    def note(self, name: str) -> None:
        self.ran.append(name)
        self.times.append((name, now()))

    def task(self, name: str) -> Task:
        return Task(functools.partial(self.note, name), name=name)

    def slow_task(self, name: str, seconds: float) -> Task:
        """A task that waits, and writes its name when it begins and again when it ends."""

        async def run() -> None:
            self.note(f"{name} begins")
            await anyio.sleep(seconds)
            self.note(f"{name} ends")

        return Task(run, name=name)


class Halt(BaseException):
    """Not an Exception, as KeyboardInterrupt is not one."""


def is_queued(task: Task) -> bool:
    """`task.queued`, as a call, so that mypy does not think it constant."""
    return task.queued


def both(sync: Callable[[], object]) -> list[Task]:
    """A plain and an async task that call `sync`."""

    async def run() -> None:
        await anyio.lowlevel.checkpoint()
        sync()

    return [Task(sync, name="plain"), Task(run, name="async")]


# Adding


async def test_tasks_run_in_the_order_in_which_they_were_added() -> None:
    log = RunLog()
    async with TaskQueue() as queue:
        for name in "abcde":
            assert queue.add(log.task(name))
        assert log.ran == [], "add only queues"
        await queue.barrier()
        assert log.ran == list("abcde")


async def test_adding_a_queued_task_again_does_nothing_and_returns_false() -> None:
    log = RunLog()
    first, second = log.task("first"), log.task("second")
    async with TaskQueue() as queue:
        assert queue.add(first)
        assert queue.add(second)
        assert not queue.add(first)
        await queue.barrier()
        assert log.ran == ["first", "second"], "it kept its place, and ran once"
        assert queue.add(first), "it has run, so it can be queued again"
        await queue.barrier()
    assert log.ran == ["first", "second", "first"]
    assert first.runs == 2


async def test_a_task_added_while_it_runs_is_queued_again() -> None:
    added: list[bool] = []

    def run() -> None:
        if len(added) < 2:
            added.append(queue.add(task))

    task = Task(run)
    async with TaskQueue() as queue:
        queue.add(task)
        for _ in range(3):
            await queue.barrier()
        assert added == [True, True]
        assert task.runs == 3


async def test_an_async_task_added_while_it_waits_is_queued_again_once() -> None:
    log = RunLog()
    task = log.slow_task("slow", 2)
    async with TaskQueue() as queue:
        queue.add(task)
        await anyio.sleep(1)
        assert task.runs == 1
        assert not is_queued(task)
        assert queue.add(task)
        assert not queue.add(task)
        assert is_queued(task)
        await queue.barrier()
    assert log.times == [
        ("slow begins", 0.0),
        ("slow ends", 2.0),
        ("slow begins", 2.0),
        ("slow ends", 4.0),
    ]


async def test_the_queued_mark_is_cleared_before_the_run() -> None:
    marks: list[bool] = []
    task = Task(lambda: marks.append(task.queued))
    async with TaskQueue() as queue:
        assert not is_queued(task)
        queue.add(task)
        assert is_queued(task)
        await queue.barrier()
    assert marks == [False]


async def test_tasks_added_before_the_queue_is_entered_run_after_it() -> None:
    log = RunLog()
    queue = TaskQueue()
    a, b = log.task("a"), log.task("b")
    assert queue.add(a)
    assert queue.add(b)
    assert not queue.add(a)
    async with queue:
        await queue.barrier()
        assert log.ran == ["a", "b"]


async def test_async_tasks_do_not_overlap() -> None:
    log = RunLog()
    async with TaskQueue() as queue:
        queue.add(log.slow_task("a", 2))
        queue.add(log.slow_task("b", 1))
        queue.add(log.task("c"))
        await queue.barrier()
    assert log.times == [
        ("a begins", 0.0),
        ("a ends", 2.0),
        ("b begins", 2.0),
        ("b ends", 3.0),
        ("c", 3.0),
    ]


async def test_whatever_awaitable_a_task_returns_is_awaited() -> None:
    class Answer:
        def __await__(self) -> object:
            yield from anyio.sleep(3).__await__()
            log.note("answered")

    log = RunLog()
    async with TaskQueue() as queue:
        queue.add(Task(Answer, name="answer"))
        await queue.barrier()
    assert log.times == [("answered", 3.0)]


async def test_a_task_that_adds_itself_again_does_not_starve_the_loop() -> None:
    log = RunLog()

    def run() -> None:
        if task.runs < 1000:  # so that a queue that never yields fails the test, not hangs it
            queue.add(task)

    task = Task(run)
    async with TaskQueue() as queue:
        queue.add(task)
        for _ in range(10):
            await anyio.lowlevel.checkpoint()
        queue.add(log.task("other"))
        await queue.barrier()
        assert log.ran == ["other"]
        assert 1 <= task.runs < 100


async def test_a_task_that_adds_itself_again_does_not_block_the_end() -> None:
    def run() -> None:
        if task.runs < 1000:
            queue.add(task)

    task = Task(run)
    async with TaskQueue() as queue:
        queue.add(task)
        await queue.barrier()
    assert 1 <= task.runs < 100
    assert not is_queued(task)
    assert queue.statistics().queued == 0


# One queue at a time


async def test_a_task_that_waits_on_another_queue_is_refused() -> None:
    log = RunLog()
    task = log.task("shared")
    async with TaskQueue("one") as one, TaskQueue("two") as two:
        one.add(task)
        with pytest.raises(UsageError, match=r"'shared', on 'one'.*cannot be added to 'two'"):
            two.add(task)
        assert two.statistics().queued == 0
        await two.barrier()
        await one.barrier()
        assert log.ran == ["shared"]
        assert two.add(task), "it has run, and may go anywhere"
    assert log.ran == ["shared", "shared"]


async def test_a_discarded_task_may_go_to_another_queue() -> None:
    log = RunLog()
    task = log.task("moved")
    async with TaskQueue("one") as one, TaskQueue("two") as two:
        one.add(task)
        assert not two.discard(task), "it is not two's"
        assert one.discard(task)
        two.add(task)
    assert log.ran == ["moved"]
    assert one.statistics().runs == 0
    assert two.statistics().runs == 1


async def test_a_task_that_waits_on_another_queue_cannot_be_scheduled_either() -> None:
    log = RunLog()
    task = log.task("shared")
    async with TaskQueue("one") as one, TaskQueue("two") as two:
        one.add(task)
        with pytest.raises(UsageError, match=r"'shared', on 'one'.*cannot be added to 'two'"):
            two.add_later(task, 0)
        assert two.statistics().scheduled == 0


@pytest.mark.parametrize("freed_by", ["its run", "discard", "the end"])
async def test_a_task_that_another_queue_will_add_later_is_refused_until_it_is_free(
    freed_by: str,
) -> None:
    log = RunLog()
    task = log.task("shared")
    async with TaskQueue("two") as two:
        async with TaskQueue("one") as one:
            one.add_later(task, 1)
            for call in (two.add, functools.partial(two.add_later, seconds=5)):
                with pytest.raises(UsageError, match=r"'shared', on 'one'.* discard it there"):
                    call(task)
            if freed_by == "its run":
                await anyio.sleep(2)
            elif freed_by == "discard":
                one.discard(task)
        assert two.add(task)
        await two.barrier()
        assert two.add_later(task, 1)
        await anyio.sleep(1.5)
    assert log.ran == ["shared"] * (3 if freed_by == "its run" else 2)


# Discarding


async def test_a_discarded_task_does_not_run() -> None:
    log = RunLog()
    a, b, c = (log.task(name) for name in "abc")
    async with TaskQueue() as queue:
        for task in (a, b, c):
            queue.add(task)
        assert queue.discard(b)
        assert not b.queued
        assert not queue.discard(b)
        await queue.barrier()
    assert log.ran == ["a", "c"]
    assert b.runs == 0


async def test_a_task_that_waits_for_nothing_cannot_be_discarded() -> None:
    task = RunLog().task("idle")
    async with TaskQueue() as queue:
        assert not queue.discard(task)
        queue.add(task)
        await queue.barrier()
        assert not queue.discard(task), "it has run"
        assert queue.statistics().discarded == 0


async def test_a_scheduled_task_that_is_discarded_is_never_added() -> None:
    log = RunLog()
    task, other = log.task("task"), log.task("other")
    async with TaskQueue() as queue:
        queue.add_later(task, 1)
        queue.add_later(other, 2)
        assert queue.discard(task)
        assert queue.statistics().scheduled == 1
        await anyio.sleep(3)
    assert log.times == [("other", 2.0)]


async def test_discarding_takes_a_task_off_the_queue_and_off_the_clock_at_once() -> None:
    log = RunLog()
    task = log.task("task")
    async with TaskQueue() as queue:
        queue.add(task)
        queue.add_later(task, 1)
        assert queue.discard(task)
        statistics = queue.statistics()
        assert (statistics.queued, statistics.scheduled, statistics.discarded) == (0, 0, 1)
        await anyio.sleep(2)
    assert log.ran == []


async def test_a_running_task_that_is_discarded_goes_on() -> None:
    log = RunLog()
    task = log.slow_task("slow", 2)
    async with TaskQueue() as queue:
        queue.add(task)
        await anyio.sleep(1)
        assert not queue.discard(task)
        await queue.barrier()
    assert log.times == [("slow begins", 0.0), ("slow ends", 2.0)]


async def test_a_running_task_that_was_added_again_loses_only_its_next_run() -> None:
    log = RunLog()
    task = log.slow_task("slow", 2)
    async with TaskQueue() as queue:
        queue.add(task)
        await anyio.sleep(1)
        queue.add(task)
        assert queue.discard(task)
        await queue.barrier()
    assert log.ran == ["slow begins", "slow ends"]


async def test_a_task_may_discard_the_one_behind_it() -> None:
    log = RunLog()
    second, third = log.task("second"), log.task("third")
    async with TaskQueue() as queue:
        queue.add(Task(lambda: queue.discard(second)))
        queue.add(second)
        queue.add(third)
        await queue.barrier()
    assert log.ran == ["third"]


# Later


async def test_a_task_added_later_runs_exactly_then() -> None:
    log = RunLog()
    await anyio.sleep(1.2)  # 2.2 - 1.2 > 1.0 in floats
    async with TaskQueue() as queue:
        assert queue.add_later(log.task("a"), 1.0)
        assert queue.add_later(log.task("b"), 0.1)
        assert queue.add_later(log.task("c"), 0.000_001)
        assert queue.add_later(log.task("d"), 3600.000_001)
        assert queue.add_later(log.task("e"), 8.2)  # 8199999.999999999 microseconds in floats
        assert log.ran == []
        await anyio.sleep(3601)
    assert log.times == [
        ("c", 1.200_001),
        ("b", 1.3),
        ("a", 2.2),
        ("e", 9.4),
        ("d", 3601.200_001),
    ]


async def test_a_task_added_later_by_nothing_runs_now() -> None:
    log = RunLog()
    async with TaskQueue() as queue:
        queue.add_later(log.task("now"), 0)
        await anyio.sleep(1)
    assert log.times == [("now", 0.0)]


async def test_several_due_at_one_time_run_in_the_order_of_their_arming() -> None:
    log = RunLog()
    a, b, c, d = (log.task(name) for name in "abcd")
    async with TaskQueue() as queue:
        queue.add_later(a, 1)
        queue.add_later(d, 1)
        queue.add_later(c, 1)
        queue.add_later(b, 0.5)
        queue.add_later(a, 1)  # set anew: now it is behind the others
        await anyio.sleep(0.25)
        queue.add_later(b, 0.75)
        await anyio.sleep(2)
    assert log.times == [("d", 1.0), ("c", 1.0), ("a", 1.0), ("b", 1.0)]


@pytest.mark.parametrize(("first", "second"), [(1.0, 3.0), (3.0, 1.0)])
async def test_a_second_add_later_sets_the_time_anew(first: float, second: float) -> None:
    log = RunLog()
    task = log.task("task")
    async with TaskQueue() as queue:
        assert queue.add_later(task, first)
        await anyio.lowlevel.checkpoint()
        assert not queue.add_later(task, second), "it was scheduled already"
        assert queue.statistics().scheduled == 1
        await anyio.sleep(10)
        assert queue.add_later(task, 1), "it is fresh again"
    assert log.times == [("task", second)]


async def test_a_time_that_was_set_anew_does_not_count_though_it_passes_unseen() -> None:
    log = RunLog()
    a, b = log.task("a"), log.task("b")
    async with TaskQueue() as queue:
        queue.add_later(b, 1)
        queue.add_later(a, 2)
        queue.add_later(a, 5)
        queue.add(log.slow_task("slow", 3))
        await anyio.sleep(10)
    assert log.times[1:] == [("slow ends", 3.0), ("b", 3.0), ("a", 5.0)]


async def test_a_runner_asleep_until_a_far_time_wakes_for_a_nearer_one() -> None:
    log = RunLog()
    async with TaskQueue() as queue:
        queue.add_later(log.task("far"), 100)
        await anyio.sleep(1)
        queue.add_later(log.task("near"), 1)
        await anyio.sleep(1.5)
        queue.add(log.task("now"))
        await anyio.sleep(200)
    assert log.times == [("near", 2.0), ("now", 2.5), ("far", 100.0)]


async def test_before_the_queue_is_entered_the_seconds_count_from_its_entry() -> None:
    log = RunLog()
    queue = TaskQueue()
    queue.add_later(log.task("later"), 5)
    queue.add_later(log.task("soon"), 0)
    await anyio.sleep(3)
    queue.add(log.task("added"))
    assert queue.statistics().scheduled == 2, "no clock runs yet"
    async with queue:
        await anyio.sleep(6)
    assert log.times == [("added", 3.0), ("soon", 3.0), ("later", 8.0)]


async def test_what_is_due_goes_ahead_of_what_is_added_now() -> None:
    log = RunLog()

    async def hold() -> None:
        await anyio.sleep(2)

    async with TaskQueue() as queue:
        queue.add_later(log.task("due"), 1)
        queue.add(Task(hold))
        await anyio.sleep(1.5)
        queue.add(log.task("added"))
        assert queue.statistics().queued == 2
        await queue.barrier()
    assert log.ran == ["due", "added"]


async def test_tasks_whose_time_has_come_count_as_queued() -> None:
    log = RunLog()
    async with TaskQueue() as queue:
        queue.add(log.slow_task("slow", 10))
        queue.add_later(log.task("due"), 1)
        await anyio.sleep(0.5)
        assert (queue.statistics().queued, queue.statistics().scheduled) == (0, 1)
        await anyio.sleep(1)
        assert (queue.statistics().queued, queue.statistics().scheduled) == (1, 0)


async def test_a_task_both_queued_and_scheduled_runs_for_each() -> None:
    log = RunLog()
    task = log.task("task")
    async with TaskQueue() as queue:
        queue.add_later(task, 1)
        queue.add(task)
        await anyio.sleep(2)
    assert log.times == [("task", 0.0), ("task", 1.0)]


async def test_a_scheduled_task_that_is_still_queued_when_it_is_due_coalesces() -> None:
    log = RunLog()
    task = log.task("task")
    async with TaskQueue() as queue:
        queue.add(log.slow_task("slow", 2))
        queue.add(task)
        queue.add_later(task, 1)
        await anyio.sleep(3)
        assert queue.statistics().coalesced == 1
    assert log.times[2:] == [("task", 2.0)]


async def test_a_task_that_adds_itself_later_runs_at_exactly_one_hertz() -> None:
    times: list[float] = []

    def gc() -> None:
        times.append(now())
        queue.add_later(task, 1.0)

    task = Task(gc)
    await anyio.sleep(0.1)
    async with TaskQueue() as queue:
        queue.add_later(task, 1.0)
        await anyio.sleep(1000.5)
    assert times == [round(0.1 + tick, 6) for tick in range(1, 1001)]


@pytest.mark.parametrize("seconds", [-1, -0.001, math.inf, -math.inf, math.nan])
async def test_an_impossible_time_is_refused(seconds: float) -> None:
    task = RunLog().task("tick")
    async with TaskQueue() as queue:
        with pytest.raises(
            ValueError,
            match=r"'tick'.* in \S+ seconds; expected a finite number of at least 0",
        ):
            queue.add_later(task, seconds)
        assert queue.statistics().scheduled == 0


async def test_thousands_of_timers_set_anew_or_discarded_do_not_grow_the_heap() -> None:
    log = RunLog()
    tasks = [log.task(str(number)) for number in range(10)]
    async with TaskQueue() as queue:
        for _ in range(2000):
            for number, task in enumerate(tasks):
                queue.add_later(task, 20 - number)
            assert queue.discard(tasks[0])
            assert len(queue._timers) < 50  # no public name tells how much a queue remembers
        await anyio.sleep(30)
        assert not queue._timers
    assert log.times == [(str(number), 20.0 - number) for number in range(9, 0, -1)]


@pytest.mark.parametrize("times", range(1, 6))
async def test_tasks_run_in_time_however_often_they_were_set_anew(times: int) -> None:
    log = RunLog()
    tasks = [log.task(str(number)) for number in range(17)]
    async with TaskQueue() as queue:
        for _ in range(times):
            for number, task in enumerate(tasks):
                queue.add_later(task, 20 - number)
        await anyio.sleep(30)
    assert log.times == [(str(number), 20.0 - number) for number in range(16, -1, -1)]


# The barrier


async def test_a_barrier_waits_for_all_that_is_queued_and_for_no_more() -> None:
    log = RunLog()
    async with TaskQueue() as queue:
        queue.add(log.slow_task("a", 1))
        queue.add(log.slow_task("b", 2))

        async def add_more() -> None:
            await anyio.sleep(0.5)
            queue.add(log.slow_task("c", 50))

        async with anyio.create_task_group() as group:
            group.start_soon(add_more)
            await queue.barrier()
            assert now() == 3.0
            assert log.ran[:4] == ["a begins", "a ends", "b begins", "b ends"]
            assert "c ends" not in log.ran


async def test_a_barrier_waits_for_a_task_that_is_running() -> None:
    async with TaskQueue() as queue:
        queue.add(RunLog().slow_task("slow", 5))
        await anyio.sleep(1)
        assert queue.statistics().queued == 0
        await queue.barrier()
        assert now() == 5.0


async def test_a_barrier_does_not_wait_for_what_is_scheduled() -> None:
    log = RunLog()
    async with TaskQueue() as queue:
        queue.add_later(log.task("later"), 5)
        await queue.barrier()
        assert now() == 0.0


async def test_many_barriers_may_wait_at_once() -> None:
    log = RunLog()

    async def wait_after(seconds: float) -> None:
        await anyio.sleep(seconds)
        await queue.barrier()
        log.note("passed")

    async with TaskQueue() as queue:
        queue.add(log.slow_task("a", 2))
        async with anyio.create_task_group() as group:
            for seconds in (0.5, 1, 1.5):
                group.start_soon(wait_after, seconds)
    assert log.times[2:] == [("passed", 2.0)] * 3


async def test_a_barrier_with_nothing_queued_is_a_checkpoint() -> None:
    async with TaskQueue() as queue:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await queue.barrier()
        assert scope.cancelled_caught
        assert queue.statistics().queued == 0


async def test_inside_a_task_a_barrier_returns_at_once_with_those_behind_it_unrun() -> None:
    log = RunLog()

    async def run() -> None:
        assert queue.in_task()
        with anyio.fail_after(5):
            await queue.barrier()
        log.note("async")

    def returns_an_awaitable() -> Awaitable[None]:
        log.note("plain")
        return queue.barrier()

    async with TaskQueue() as queue:
        assert not queue.in_task()
        queue.add(Task(run))
        queue.add(Task(returns_an_awaitable))
        queue.add(log.task("behind"))
        await queue.barrier()
        assert not queue.in_task()
    assert log.times == [("async", 0.0), ("plain", 0.0), ("behind", 0.0)]


async def test_inside_a_task_a_barrier_is_a_checkpoint() -> None:
    caught: list[bool] = []

    async def run() -> None:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await queue.barrier()
        caught.append(scope.cancelled_caught)

    async with TaskQueue() as queue:
        queue.add(Task(run))
    assert caught == [True]


async def test_a_task_of_another_queue_may_wait_at_the_barrier() -> None:
    log = RunLog()

    async def run() -> None:
        assert not one.in_task()
        await one.barrier()
        log.note("passed")

    async with TaskQueue("one") as one, TaskQueue("two") as two:
        one.add(log.slow_task("slow", 3))
        two.add(Task(run))
        await two.barrier()
    assert log.times == [("slow begins", 0.0), ("slow ends", 3.0), ("passed", 3.0)]


async def test_a_barrier_cancelled_by_a_scope_leaves_no_trace() -> None:
    log = RunLog()
    async with TaskQueue() as queue:
        queue.add(log.slow_task("slow", 5))
        await anyio.sleep(1)
        with anyio.move_on_after(2) as scope:
            await queue.barrier()
        assert scope.cancelled_caught
        assert now() == 3.0
        assert queue.statistics().queued == 0
        queue.add(log.task("next"))
        await queue.barrier()
        assert now() == 5.0
    assert log.ran == ["slow begins", "slow ends", "next"]
    assert queue.statistics().runs == 3, "the two tasks and the second barrier"


@on_asyncio
async def test_a_barrier_cancelled_natively_leaves_no_trace() -> None:
    log = RunLog()
    async with TaskQueue() as queue:
        queue.add(log.slow_task("slow", 5))
        waiter = asyncio.create_task(queue.barrier())
        await anyio.sleep(1)
        assert queue.statistics().queued == 1
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter
        assert queue.statistics().queued == 0
        await queue.barrier()
    assert log.ran == ["slow begins", "slow ends"]


@pytest.mark.parametrize("cancel_first", [False, True])
async def test_a_barrier_cancelled_as_it_is_reached_leaves_no_trace(cancel_first: bool) -> None:
    log = RunLog()
    scope = anyio.CancelScope()

    async def wait() -> None:
        with scope:
            await queue.barrier()

    async with TaskQueue() as queue:
        async with anyio.create_task_group() as group:
            queue.add(log.slow_task("slow", 1))
            if cancel_first:
                queue.add(Task(scope.cancel))
            group.start_soon(wait)
            await anyio.sleep(0.5)
            assert queue.statistics().queued == 1 + cancel_first
            if not cancel_first:
                queue.add(Task(scope.cancel))
        assert now() == 1.0
        assert queue.statistics().queued == 0
        queue.add(log.task("next"))
        await queue.barrier()
    assert log.ran[-1] == "next"


async def test_a_queue_that_a_task_ends_wakes_who_waits_at_its_barrier() -> None:
    refused: list[str] = []

    async def wait() -> None:
        with pytest.raises(KeyError, match="broken"):
            await queue.barrier()
        refused.append("failed")

    async def fail() -> None:
        await anyio.sleep(1)
        raise KeyError("broken")

    queue = TaskQueue("q")
    async with anyio.create_task_group() as outer:
        with pytest.raises(KeyError):
            async with queue:
                queue.add(Task(fail))
                outer.start_soon(wait)
                await anyio.sleep(2)
                assert refused == ["failed"]
                with pytest.raises(KeyError, match="broken"):
                    queue.add(Task(fail))
    with pytest.raises(anyio.ClosedResourceError):
        queue.add(Task(fail))


async def test_a_barrier_reached_while_the_queue_runs_its_last_tasks_is_passed() -> None:
    log = RunLog()

    async def wait() -> None:
        await anyio.sleep(2)
        await queue.barrier()
        log.note("passed")

    async with anyio.create_task_group() as outer, TaskQueue() as queue:
        queue.add(log.slow_task("slow", 5))
        outer.start_soon(wait)
        await anyio.sleep(1)
    assert log.times == [("slow begins", 0.0), ("slow ends", 5.0), ("passed", 5.0)]


async def test_a_barrier_needs_a_queue_that_runs() -> None:
    queue = TaskQueue("q")
    with pytest.raises(UsageError, match="task queue 'q' is not entered"):
        await queue.barrier()
    async with queue:
        pass
    with pytest.raises(anyio.ClosedResourceError, match="task queue 'q' is closed"):
        await queue.barrier()


# The end


async def test_what_is_queued_at_a_clean_end_is_run() -> None:
    log = RunLog()
    async with TaskQueue() as queue:
        queue.add(log.slow_task("slow", 2))
        queue.add(log.task("last"))
    assert log.times == [("slow begins", 0.0), ("slow ends", 2.0), ("last", 2.0)]


@pytest.mark.parametrize("already_running", [False, True])
async def test_what_was_to_be_added_later_is_dropped_at_the_end(already_running: bool) -> None:
    log = RunLog()
    async with TaskQueue() as queue:
        queue.add_later(log.task("later"), 1)
        queue.add(log.slow_task("slow", 5))
        if already_running:
            await anyio.sleep(0.5)
    await anyio.sleep(5)
    assert log.times == [("slow begins", 0.0), ("slow ends", 5.0)]
    assert queue.statistics().scheduled == 0


async def test_looking_at_a_queue_while_it_runs_its_last_tasks_adds_none() -> None:
    log = RunLog()

    async def look() -> None:
        await anyio.sleep(3)
        queue.statistics()

    async with anyio.create_task_group() as outer, TaskQueue() as queue:
        queue.add_later(log.task("later"), 2)
        queue.add(log.slow_task("slow", 5))
        outer.start_soon(look)
        await anyio.sleep(1)
    assert log.times == [("slow begins", 0.0), ("slow ends", 5.0)]


async def test_an_idle_queue_ends_at_once() -> None:
    async with TaskQueue() as queue:
        queue.add_later(RunLog().task("later"), 1000)
        await anyio.sleep(1)
    assert now() == 1.0


async def test_after_its_end_a_queue_takes_nothing() -> None:
    task = RunLog().task("late")
    async with TaskQueue("q") as queue:
        pass
    for call in (queue.add, functools.partial(queue.add_later, seconds=1)):
        with pytest.raises(anyio.ClosedResourceError, match="task queue 'q' is closed"):
            call(task)
    assert not queue.discard(task)
    assert not is_queued(task)


@pytest.mark.parametrize("inside", [True, False], ids=["inside", "after the end"])
async def test_a_queue_cannot_be_entered_twice(inside: bool) -> None:
    log = RunLog()
    async with TaskQueue("q") as queue:
        if inside:
            with pytest.raises(UsageError, match="task queue 'q' was entered before"):
                await queue.__aenter__()
        queue.add(log.task("a"))
        await queue.barrier()
        assert log.ran == ["a"], "the refusal changed nothing"
    with pytest.raises(UsageError, match=r"'q' was entered before; .*make a new one"):
        await queue.__aenter__()


@pytest.mark.real_time
async def test_a_barrier_on_another_loop_is_refused(anyio_backend_name: str) -> None:
    refusals: list[str] = []

    async def elsewhere() -> None:
        with pytest.raises(UsageError) as refusal, anyio.fail_after(5):
            await queue.barrier()
        refusals.append(str(refusal.value))

    def on_another_thread() -> None:
        anyio.run(elsewhere, backend=anyio_backend_name)

    async with TaskQueue("q") as queue:
        thread = threading.Thread(target=on_another_thread)
        thread.start()
        await anyio.to_thread.run_sync(thread.join)
    assert len(refusals) == 1
    assert "task queue 'q' belongs to another event loop" in refusals[0]


# A task that fails


@pytest.mark.parametrize("kind", [0, 1], ids=["plain", "async"])
@pytest.mark.parametrize(
    "error", [ValueError("broken"), Halt()], ids=["Exception", "BaseException"]
)
async def test_a_failing_task_is_told_at_once_and_leaves_unwrapped_at_the_end(
    kind: int, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    log = RunLog()
    behind = log.task("behind")

    def fail() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        async with TaskQueue("q") as queue:
            queue.add(both(fail)[kind])
            queue.add(behind)
            await anyio.sleep(60)
            (record,) = caplog.records
            assert record.getMessage() == "a task of 'q' failed, which ends the queue"
            assert record.exc_info is not None
            assert record.exc_info[1] is error
            log.note("body ends")
    assert caught.value is error
    assert log.times == [("body ends", 60.0)], "the body is not cancelled for it"
    assert not behind.queued
    assert queue.statistics().queued == 0


@pytest.mark.parametrize("kind", [0, 1], ids=["plain", "async"])
async def test_a_task_that_fails_while_the_queue_runs_its_last_leaves_unwrapped(kind: int) -> None:
    error = ValueError("broken")

    def fail() -> None:
        raise error

    with pytest.raises(ValueError, match="broken") as caught:
        async with TaskQueue() as queue:
            queue.add(both(fail)[kind])
    assert caught.value is error


async def test_a_failing_task_is_not_lost_on_a_body_that_swallows_its_cancellation() -> None:
    def fail() -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        async with TaskQueue() as queue:
            queue.add(Task(fail))
            with anyio.CancelScope(shield=True):
                await anyio.sleep(5)
    assert now() == 5.0


@pytest.mark.parametrize(
    "error",
    [KeyError("mine"), Halt(), ExceptionGroup("mine", [KeyError("inner")])],
    ids=["Exception", "BaseException", "ExceptionGroup"],
)
async def test_an_exception_of_the_body_passes_as_it_is(error: BaseException) -> None:
    log = RunLog()
    behind = log.task("behind")
    with pytest.raises(type(error)) as caught:
        async with TaskQueue() as queue:
            queue.add(log.slow_task("slow", 3600))
            queue.add(behind)
            await anyio.sleep(1)
            raise error
    assert caught.value is error
    assert now() == 1.0, "the running task was cancelled"
    assert log.ran == ["slow begins"], "and what was queued behind it is dropped"
    assert not behind.queued


async def test_an_exception_of_the_body_passes_though_an_outer_scope_is_cancelled_meanwhile() -> (
    None
):
    error = KeyError("mine")

    async def ends_slowly() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(5)

    with pytest.raises(KeyError) as caught, anyio.move_on_after(3):
        async with TaskQueue() as queue:
            queue.add(Task(ends_slowly))
            await anyio.sleep(1)
            raise error
    assert caught.value is error
    assert now() == 6.0


def both_fail(broken: ValueError, mine: KeyError) -> pytest.RaisesGroup[ValueError | KeyError]:
    """Expect a group of just these two, which names the queue ``q``."""
    return pytest.RaisesGroup(
        pytest.RaisesExc(ValueError, check=lambda error: error is broken),
        pytest.RaisesExc(KeyError, check=lambda error: error is mine),
        match="a task of 'q' and the body both failed",
    )


async def test_when_the_task_fails_and_then_the_body_both_leave_in_a_group() -> None:
    broken, mine = ValueError("broken"), KeyError("mine")

    def fail() -> None:
        raise broken

    with both_fail(broken, mine):
        async with TaskQueue("q") as queue:
            queue.add(Task(fail))
            await anyio.sleep(1)
            raise mine


async def test_when_the_body_fails_and_then_the_task_both_leave_in_a_group() -> None:
    broken, mine = ValueError("broken"), KeyError("mine")

    async def fail() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            raise broken

    with both_fail(broken, mine):
        async with TaskQueue("q") as queue:
            queue.add(Task(fail))
            await anyio.sleep(1)
            raise mine


async def test_when_both_fail_the_cancellation_between_them_does_not_leave() -> None:
    broken, mine = ValueError("broken"), KeyError("mine")

    def fail() -> None:
        raise broken

    async def fail_too() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            raise mine

    with pytest.RaisesGroup(
        pytest.RaisesExc(ValueError, check=lambda error: error is broken),
        pytest.RaisesGroup(pytest.RaisesExc(KeyError, check=lambda error: error is mine)),
    ):
        async with TaskQueue("q") as queue:
            queue.add(Task(fail))
            async with anyio.create_task_group() as group:
                group.start_soon(fail_too)
                await anyio.sleep(1)
                group.cancel_scope.cancel()


async def test_a_body_cancelled_by_an_outer_scope_ends_the_queue_without_an_error() -> None:
    log = RunLog()
    behind = log.task("behind")
    with anyio.move_on_after(2) as scope:
        async with TaskQueue() as queue:
            queue.add(log.slow_task("slow", 3600))
            queue.add(behind)
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert now() == 2.0
    assert log.ran == ["slow begins"]
    assert not behind.queued
    with pytest.raises(anyio.ClosedResourceError):
        queue.add(behind)


async def test_a_queue_cancelled_while_it_runs_its_last_tasks_ends_without_an_error() -> None:
    log = RunLog()
    with anyio.move_on_after(2) as scope:
        async with TaskQueue() as queue:
            queue.add(log.slow_task("slow", 3600))
    assert scope.cancelled_caught
    assert now() == 2.0
    assert log.ran == ["slow begins"]


@on_asyncio
@pytest.mark.parametrize("in_body", [True, False], ids=["in the body", "at the end"])
async def test_a_native_cancellation_leaves_the_queue(in_body: bool) -> None:
    log = RunLog()
    queue = TaskQueue()

    async def main() -> None:
        async with queue:
            queue.add(log.slow_task("slow", 3600))
            if in_body:
                await anyio.sleep_forever()

    task = asyncio.create_task(main())
    await anyio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()
    assert now() == 1.0
    assert log.ran == ["slow begins"]
    with pytest.raises(anyio.ClosedResourceError):
        queue.add(log.task("late"))


@pytest.mark.parametrize("in_body", [True, False], ids=["in the body", "at the end"])
async def test_a_task_that_fails_as_an_outer_scope_is_cancelled_is_not_lost(in_body: bool) -> None:
    error = ValueError("the clean-up broke")

    async def fail() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            raise error

    with pytest.raises(ValueError, match="the clean-up broke") as caught, anyio.move_on_after(2):
        async with TaskQueue() as queue:
            queue.add(Task(fail))
            if in_body:
                await anyio.sleep_forever()
    assert caught.value is error


async def test_a_task_that_failed_is_not_lost_on_an_outer_scope_cancelled_afterwards() -> None:
    error = ValueError("broken")

    def fail() -> None:
        raise error

    with pytest.raises(ValueError, match="broken") as caught, anyio.CancelScope() as scope:
        async with TaskQueue() as queue:
            queue.add(Task(fail))
            await anyio.sleep(1)
            scope.cancel()
            await anyio.sleep_forever()
    assert caught.value is error


@on_asyncio
async def test_a_task_that_ends_with_its_own_cancellation_does_not_end_the_runner_unseen() -> None:
    cancelled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    cancelled.cancel()

    with pytest.raises((asyncio.CancelledError, RuntimeError)):
        async with TaskQueue() as queue:
            queue.add(Task(lambda: cancelled, name="waits for another"))
            await anyio.sleep(1)
            with anyio.fail_after(10):
                await queue.barrier()


# The runner


async def test_a_queue_may_be_left_in_another_task_than_the_one_that_entered_it() -> None:
    log = RunLog()
    queue = TaskQueue()

    async def enter() -> None:
        await queue.__aenter__()
        queue.add(log.task("a"))

    async with anyio.create_task_group() as group:
        group.start_soon(enter)
    await queue.barrier()
    queue.add(log.slow_task("slow", 2))
    async with anyio.create_task_group() as group:
        group.start_soon(queue.__aexit__, None, None, None)
    assert log.ran == ["a", "slow begins", "slow ends"]


@on_asyncio
async def test_a_runner_that_is_cancelled_is_followed_by_a_new_one_when_there_is_work() -> None:
    log = RunLog()

    def cancel_all_others() -> None:
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            if task.get_name().startswith("mbufpools "):
                task.cancel()

    async with TaskQueue() as queue:
        queue.add_later(log.task("timer"), 5)
        await anyio.sleep(1)
        cancel_all_others()
        await anyio.sleep(1)
        queue.add(log.task("added"))
        await queue.barrier()
        cancel_all_others()
        await anyio.sleep(8)
    assert log.times == [("added", 2.0), ("timer", 5.0)]


@on_asyncio
@pytest.mark.parametrize("busy", [False, True])
async def test_a_runner_never_swallows_a_cancellation(busy: bool) -> None:
    queue = TaskQueue("q")
    await queue.__aenter__()
    queue.add(RunLog().slow_task("slow", 1000)) if busy else queue.add_later(
        RunLog().task("later"), 1000
    )
    await anyio.sleep(1)
    (runner,) = (task for task in asyncio.all_tasks() if task.get_name() == "mbufpools q")
    runner.cancel()
    with pytest.raises(asyncio.CancelledError):
        await runner
    await queue.__aexit__(None, None, None)


@pytest.mark.real_time
def test_asyncio_and_trio_end_with_a_queue_left_open() -> None:
    async def main() -> None:
        queue = TaskQueue()
        await queue.__aenter__()
        queue.add_later(Task(lambda: None), 1000)
        queue.add(Task(anyio.sleep_forever))
        await anyio.sleep(0.01)

    for backend in ("asyncio", "trio"):
        anyio.run(main, backend=backend)


# What can be seen


async def test_the_statistics_count_every_call() -> None:
    log = RunLog()
    a, b, c = (log.task(name) for name in "abc")
    queue = TaskQueue("counted")
    assert queue.statistics() == TaskQueueStatistics(
        name="counted", queued=0, scheduled=0, added=0, coalesced=0, discarded=0, runs=0
    )
    async with queue:
        queue.add(a)
        queue.add(a)
        queue.add(b)
        queue.add(c)
        queue.discard(b)
        queue.add_later(b, 1)
        before = queue.statistics()
        assert before == TaskQueueStatistics(
            name="counted", queued=2, scheduled=1, added=3, coalesced=1, discarded=1, runs=0
        )
        await anyio.sleep(0.5)
        assert queue.statistics() == TaskQueueStatistics(
            name="counted", queued=0, scheduled=1, added=3, coalesced=1, discarded=1, runs=2
        )
        assert before.runs == 0, "a snapshot does not change"
    assert (a.runs, b.runs, c.runs) == (1, 0, 1)


async def test_the_hook_is_told_of_each_task_queued_coalesced_and_run() -> None:
    events: list[Event] = []
    log = RunLog()
    a, b = log.task("a"), log.task("b")
    await anyio.sleep(7)
    async with TaskQueue(hook=events.append) as queue:
        queue.add(a)
        queue.add(a)
        queue.add_later(b, 2.5)
        queue.add_later(b, 2.5)
        await anyio.sleep(3)
    assert events == [
        Event(EventKind.QUEUED, 0.0, "a", 0, 0),
        Event(EventKind.COALESCED, 0.0, "a", 0, 0),
        Event(EventKind.RUN, 0.0, "a", 0, 0),
        Event(EventKind.QUEUED, 2.5, "b", 0, 0),
        Event(EventKind.RUN, 2.5, "b", 0, 0),
    ]


async def test_the_hook_is_told_of_a_run_just_before_the_call() -> None:
    story: list[str] = []
    async with TaskQueue(hook=lambda event: story.append(event.kind)) as queue:
        queue.add(Task(lambda: story.append("called")))
    assert story == ["queued", "run", "called"]


def test_outside_a_loop_nobody_is_in_a_task() -> None:
    queue = TaskQueue()
    queue.add(RunLog().task("waits"))
    assert not queue.in_task()


def test_names_are_in_every_repr() -> None:
    def reclaim() -> None: ...

    queue = TaskQueue("systq")
    task = Task(reclaim)
    assert repr(task) == "<Task 'reclaim', not queued>"
    queue.add(task)
    assert repr(task) == "<Task 'reclaim', on 'systq'>"
    assert repr(queue) == "<TaskQueue 'systq', 1 queued>"
    assert Task(reclaim, name="gc").name == "gc"
    nameless = functools.partial(reclaim)
    assert Task(nameless).name == repr(nameless)


def test_a_task_needs_a_function() -> None:
    with pytest.raises(TypeError, match=r"needs a function without arguments; got 'gc'"):
        Task("gc")  # type: ignore[arg-type]  # the mistake itself


# All of it at once

OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, 3), st.just(0)),
        st.tuples(st.just("discard"), st.integers(0, 3), st.just(0)),
        st.tuples(st.just("later"), st.integers(0, 3), st.integers(0, 4)),
        st.tuples(st.just("advance"), st.just(0), st.integers(1, 3)),
    ),
    max_size=40,
)


@given(OPERATIONS)
async def test_any_mix_of_calls_runs_what_a_simple_model_runs(
    operations: list[tuple[str, int, int]],
) -> None:
    """The body calls at whole seconds, and tasks are due half a second after one."""
    log = RunLog()
    tasks = [log.task(str(number)) for number in range(4)]
    queued: list[int] = []
    due: dict[int, tuple[int, int]] = {}
    expected: list[tuple[str, float]] = []
    second = 0
    async with TaskQueue() as queue:
        for step, (call, number, amount) in enumerate(operations):
            if call == "add":
                assert queue.add(tasks[number]) == (number not in queued)
                if number not in queued:
                    queued.append(number)
            elif call == "discard":
                assert queue.discard(tasks[number]) == (number in queued or number in due)
                due.pop(number, None)
                if number in queued:
                    queued.remove(number)
            elif call == "later":
                assert queue.add_later(tasks[number], amount + 0.5) == (number not in due)
                due[number] = (second + amount, step)
            else:
                await anyio.sleep(amount)
                expected += [(str(number), float(second)) for number in queued]
                queued.clear()
                second += amount
                for number, (when, _) in sorted(due.items(), key=lambda item: item[1]):
                    if when < second:
                        expected.append((str(number), when + 0.5))
                        del due[number]
            assert [task.queued for task in tasks] == [number in queued for number in range(4)]
            assert queue.statistics().queued == len(queued)
            assert queue.statistics().scheduled == len(due)
    expected += [(str(number), float(second)) for number in queued]
    assert log.times == expected
