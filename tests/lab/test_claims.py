"""The lab does not claim that a correct program fails, nor that it covered what it did not."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import pytest
from anyio.abc import TaskStatus
from anyio.lowlevel import checkpoint

from mbufpools import BufferPools, MbufPools, lab
from mbufpools.cli import main
from mbufpools.lab._instants import BEGIN

Program = Callable[[], Coroutine[Any, Any, None]]

BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])
STRATEGIES = pytest.mark.parametrize("strategy", ["fifo", "random", "pct", "exhaustive"])


async def give_one() -> int:
    await asyncio.sleep(0)
    return 1


# Which tasks the lab cancels


async def a_task_that_returns() -> None:
    task = asyncio.create_task(give_one())
    assert await task == 1


async def several_that_return() -> None:
    assert sum(await asyncio.gather(give_one(), give_one())) == 2


async def a_group_of_some_that_return() -> None:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(give_one()) for _ in range(2)]
    for task in tasks:
        assert task.cancelled() or task.result() == 1


async def a_generator_is_left() -> None:
    async def numbers() -> Any:
        try:
            for number in range(3):
                await asyncio.sleep(0)
                yield number
        finally:
            await asyncio.sleep(0)

    async for _ in numbers():
        break


@pytest.mark.parametrize(
    "program",
    [
        a_task_that_returns,
        several_that_return,
        a_group_of_some_that_return,
        a_generator_is_left,
    ],
)
@STRATEGIES
def test_a_task_that_the_lab_cancels_may_have_no_result(
    program: Program, strategy: lab.StrategyName
) -> None:
    exploration = lab.explore(program, cancel=True, strategy=strategy, max_executions=200)
    exploration.assert_holds()
    assert exploration.executions > 1


@BACKENDS
def test_a_task_that_has_not_started_is_not_cancelled_alone(backend: lab.BackendName) -> None:
    cancelled = set()

    async def service(*, task_status: TaskStatus[int]) -> None:
        started = False
        try:
            await checkpoint()
            task_status.started(5)
            started = True
            await checkpoint()
        except anyio.get_cancelled_exc_class():
            cancelled.add(started)
            raise

    async def program() -> None:
        async with anyio.create_task_group() as group:
            assert await group.start(service) == 5

    exploration = lab.explore(program, backend=backend, cancel=True)
    exploration.assert_holds()
    assert exploration.complete
    assert cancelled == {False, True}, (
        "before its start it is cancelled through the task that waits for the start"
    )


@BACKENDS
def test_the_task_queue_of_open_pools_is_not_cancelled(backend: lab.BackendName) -> None:
    async def program() -> None:
        async with BufferPools(8192, [256, 1024]) as pools:

            async def use(nbytes: int) -> None:
                with await pools.get(nbytes):
                    await checkpoint()

            async with anyio.create_task_group() as group:
                group.start_soon(use, 256)
                group.start_soon(use, 1024)

    exploration = lab.explore(program, backend=backend, cancel=True, max_preemptions=0)
    exploration.assert_holds()
    assert exploration.complete


# The garbage collection of open pools sets timers for ever


async def waits_with_buffer_pools_open() -> None:
    async with BufferPools("64 KiB", [4096]):
        await anyio.Event().wait()


async def waits_with_mbuf_pools_open() -> None:
    async with MbufPools():
        await anyio.Event().wait()


STALLS = pytest.mark.parametrize(
    "program", [waits_with_buffer_pools_open, waits_with_mbuf_pools_open]
)


@BACKENDS
@STALLS
@pytest.mark.parametrize("strategy", ["exhaustive", "dpor"])
def test_a_stall_with_open_pools_is_a_stall(
    program: Program, strategy: lab.StrategyName, backend: lab.BackendName
) -> None:
    (failure,) = lab.explore(program, backend=backend, strategy=strategy).failures
    assert failure.kind == "stall"
    assert failure.token == f"{backend}:"
    begin = failure.report.index("schedule (task: ")
    end = failure.report.index("replay: ")
    story = failure.report[begin:end].splitlines()
    assert story[-1] == "  from here on only background services run, and nothing comes of it"
    assert len(story) == 3, "one step of the main task"
    (again,) = lab.replay(program, failure.token).failures
    assert again.report == failure.report


@BACKENDS
@STALLS
def test_a_run_with_open_pools_ends_when_it_stalls(
    program: Program, backend: lab.BackendName
) -> None:
    with pytest.raises(lab.Stalled, match="every task waits and nothing is scheduled"):
        lab.run(program, backend=backend, patience=0)


@BACKENDS
def test_a_long_sleep_with_open_pools_is_not_a_stall(backend: lab.BackendName) -> None:
    async def program() -> None:
        async with BufferPools("64 KiB", [4096]):
            await anyio.sleep(80)

    lab.explore(program, backend=backend, max_preemptions=0, step_limit=60).assert_holds()
    lab.run(program, backend=backend, patience=0)


@BACKENDS
def test_a_timeout_around_an_inner_scope_is_waited_for_with_open_pools(
    backend: lab.BackendName,
) -> None:
    """On trio the task is not listed at the outer scope, whose deadline still wakes it."""
    ends = []

    async def program() -> None:
        async with BufferPools("64 KiB", [4096]):
            with anyio.move_on_after(1500), anyio.CancelScope():
                await anyio.Event().wait()
            ends.append(anyio.current_time())

    lab.explore(program, backend=backend, strategy="fifo").assert_holds()
    assert set(ends) == {BEGIN + 1500}
    ends.clear()
    lab.run(program, backend=backend, patience=0)
    assert ends == [1500]


# What the lab has covered


@BACKENDS
def test_a_task_can_run_for_longer_than_its_slice(backend: lab.BackendName) -> None:
    async def program() -> None:
        done = lab.Shared(False)

        async def long() -> None:
            for _ in range(25):
                await checkpoint()
            done.value = True

        async def short() -> None:
            assert not done.value, "the other was first"

        async with anyio.create_task_group() as group:
            group.start_soon(long)
            group.start_soon(short)

    for strategy in ("exhaustive", "dpor"):
        (failure,) = lab.explore(program, backend=backend, strategy=strategy).failures
        rule = "eager" if (strategy, backend) == ("dpor", "asyncio") else "run-on"
        assert failure.token == f"{backend}/{rule}:0.0@20>0.0"

    unbounded = lab.explore(program, backend=backend, max_preemptions=None)
    assert not unbounded.failures
    assert unbounded.complete
    assert unbounded.bound == (
        "the schedules in which no task takes more than 20 steps in a row while another could run"
    )
    (failure,) = lab.explore(program, backend=backend, max_preemptions=0, slice_steps=40).failures
    assert failure.token == f"{backend}/run-on:0.0@20>0.0"
    assert lab.replay(program, failure.token).failures


def test_a_task_that_another_has_made_is_awaited_in_every_order() -> None:
    async def program() -> None:
        async def child() -> None:
            pass

        async def make() -> asyncio.Task[None]:
            return asyncio.create_task(child())

        maker, other = asyncio.create_task(make()), asyncio.create_task(child())
        made = await maker
        await other
        await made

    exploration = lab.explore(program, strategy="dpor")
    exploration.assert_holds()
    assert exploration.complete


def test_dpor_sees_a_future_that_the_program_makes() -> None:
    async def program() -> None:
        future: asyncio.Future[None] = asyncio.Future()
        assert isinstance(future, asyncio.Future)

        async def finish() -> None:
            if not future.done():
                await asyncio.sleep(0)
                future.set_result(None)

        async with asyncio.TaskGroup() as group:
            assert isinstance(group.create_task(finish()), asyncio.Future)
            group.create_task(finish())

    before = asyncio.Future
    (failure,) = lab.explore(program, strategy="dpor").failures
    assert "InvalidStateError" in failure.report
    assert asyncio.Future is before


def test_dpor_sees_how_often_a_task_was_cancelled() -> None:
    async def program() -> None:
        asked = []

        async def cancel(task: asyncio.Task[None]) -> None:
            task.cancel()

        async def look(task: asyncio.Task[None]) -> None:
            asked.append(task.cancelling())

        async with asyncio.TaskGroup() as group:
            sleeper = group.create_task(asyncio.sleep(0))
            group.create_task(look(sleeper))
            group.create_task(cancel(sleeper))
        assert asked == [0]

    (failure,) = lab.explore(program, strategy="dpor").failures
    assert failure.report.startswith("exception: AssertionError")


def test_the_sets_of_asyncio_are_walked_in_order() -> None:
    async def program() -> None:
        order = []

        async def note(number: int) -> None:
            await asyncio.sleep(0)
            order.append(number)

        for each in asyncio.as_completed([note(number) for number in range(20)]):
            await each
        tasks = [asyncio.create_task(note(number)) for number in range(20)]
        done, pending = await asyncio.wait(tasks)
        assert list(done) == tasks
        assert not pending
        assert done == set(tasks)
        assert done.pop() is tasks[0]
        assert order == [*range(20), *range(20)]

    lab.explore(program, strategy="fifo").assert_holds()
    assert not hasattr(asyncio.tasks, "set")


@BACKENDS
def test_a_program_that_exits_fails(backend: lab.BackendName) -> None:
    async def program() -> None:
        sys.exit(0)

    (failure,) = lab.explore(program, backend=backend).failures
    assert failure.report.startswith("exception: SystemExit: 0\n")


def test_the_command_does_not_take_an_exit_for_success(
    tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "leaves.py").write_text("import sys\nasync def program():\n    sys.exit(0)\n")
    assert main(["explore", f"{tmp_path / 'leaves.py'}:program"]) == 1
    assert "exception: SystemExit: 0" in capsys.readouterr().out
