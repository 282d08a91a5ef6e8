"""A leak is reported for the execution that leaked."""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import Awaitable, Callable

import anyio
import pytest
from anyio._backends._asyncio import _task_states
from anyio.lowlevel import checkpoint

from mbufpools import BufferPools, PoolSpec, lab
from tests.zoo._specimen import together

BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])


class Resource:
    """Must be closed. It refers to itself, so only the garbage collector frees it."""

    def __init__(self) -> None:
        self.me = self

    def __del__(self) -> None:
        warnings.warn("a resource was never closed", ResourceWarning, stacklevel=1)


async def dropped_if_the_second_comes_first() -> None:
    order = lab.Shared("")

    async def first() -> None:
        order.value += "1"
        await checkpoint()

    async def second() -> None:
        await checkpoint()
        if order.value == "":
            Resource()

    await together(first, second)


@BACKENDS
@pytest.mark.parametrize("strategy", ["exhaustive", "dpor", "random", "pct"])
def test_a_leak_in_a_cycle_is_reported_for_the_execution_that_leaked(
    backend: lab.BackendName, strategy: lab.StrategyName
) -> None:
    exploration = lab.explore(dropped_if_the_second_comes_first, backend=backend, strategy=strategy)
    (failure,) = exploration.failures
    assert failure.kind == "leak"
    assert "a resource was never closed" in failure.report
    (again,) = lab.replay(dropped_if_the_second_comes_first, failure.token).failures
    assert (again.kind, again.token) == ("leak", failure.token)


class Warns:
    """Must be closed. Nothing refers to it but the program."""

    def __del__(self) -> None:
        warnings.warn("never closed", ResourceWarning, stacklevel=1)


async def an_open_stream() -> None:
    anyio.create_memory_object_stream[int](1)
    await checkpoint()


async def what_a_primitive_holds() -> None:
    send, receive = anyio.create_memory_object_stream[Warns](1)
    with send, receive:
        send.send_nowait(Warns())
        await checkpoint()


async def what_a_shared_value_holds() -> None:
    lab.Shared(Warns())
    await checkpoint()


async def what_a_shared_value_held() -> None:
    shared: lab.Shared[Warns | None] = lab.Shared(Warns())
    await checkpoint()
    shared.value = None


@BACKENDS
@pytest.mark.parametrize(
    "program",
    [an_open_stream, what_a_primitive_holds, what_a_shared_value_holds, what_a_shared_value_held],
)
def test_what_a_strategy_notes_keeps_no_leak_from_being_found(
    program: Callable[[], Awaitable[None]], backend: lab.BackendName
) -> None:
    """`dpor` keeps each object that it has named until the execution is over."""
    for strategy in ("exhaustive", "dpor", "random", "pct", "mixed"):
        (failure,) = lab.explore(program, backend=backend, strategy=strategy).failures
        assert (failure.kind, failure.found_at) == ("leak", 1), strategy


async def fails_if_the_second_comes_first() -> None:
    order = lab.Shared("")

    async def first() -> None:
        order.value += "1"
        await checkpoint()

    async def second() -> None:
        await checkpoint()
        if order.value == "":
            resource = Resource()
            raise RuntimeError(f"its traceback holds {type(resource).__name__}")

    await together(first, second)


@BACKENDS
def test_leftovers_of_a_failed_execution_are_not_reported_for_a_later_one(
    backend: lab.BackendName,
) -> None:
    exploration = lab.explore(
        fails_if_the_second_comes_first,
        strategy="random",
        max_executions=300,
        max_failures=None,
        backend=backend,
    )
    assert [failure.kind for failure in exploration.failures] == ["exception"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        del exploration  # the traceback of the failure holds a resource
        gc.collect()


@BACKENDS
def test_a_resource_that_was_dropped_before_an_exploration_is_not_reported(
    backend: lab.BackendName,
) -> None:
    gc.disable()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            Resource()
            exploration = lab.explore(checkpoint, backend=backend)
            gc.collect()
    finally:
        gc.enable()
    exploration.assert_holds()


class WithSource(Resource):
    """Says in its warning what was dropped, as Python's own resources do."""

    def __del__(self) -> None:
        warnings.warn("a resource was never closed", ResourceWarning, stacklevel=1, source=self)


async def collects_all() -> None:
    async def collects() -> None:
        await checkpoint()
        gc.collect()

    await together(collects, checkpoint)


@BACKENDS
@pytest.mark.parametrize("kind", [Resource, WithSource])
@pytest.mark.parametrize("strategy", ["mixed", "dpor", "fifo"])
def test_what_somebody_has_dropped_before_is_no_leak_of_a_program_that_collects_all(
    backend: lab.BackendName, kind: type[Resource], strategy: lab.StrategyName
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        resource = [kind()]
        gc.collect()  # it is among the oldest now
        resource.clear()
        found = lab.explore(collects_all, backend=backend, strategy=strategy)
    found.assert_holds()


@BACKENDS
@pytest.mark.parametrize("kind", [Resource, WithSource])
@pytest.mark.parametrize("when", ["while", "before"])
def test_what_a_program_that_collects_all_has_dropped_is_its_leak(
    backend: lab.BackendName, kind: type[Resource], when: str
) -> None:
    async def program() -> None:
        resource = [kind()]
        if when == "while":
            resource.clear()
        await collects_all()

    (failure,) = lab.explore(program, backend=backend, strategy="fifo").failures
    assert (failure.kind, failure.repeated) == ("leak", True)
    assert failure.report.count("a resource was never closed") == 1


@BACKENDS
def test_the_garbage_collector_is_restored_after_an_exploration(backend: lab.BackendName) -> None:
    lab.explore(checkpoint, backend=backend)
    assert gc.isenabled()
    gc.disable()
    try:
        lab.explore(checkpoint, backend=backend)
        assert not gc.isenabled()
    finally:
        gc.enable()


@BACKENDS
def test_leftovers_of_a_failed_execution_do_not_warn_later(
    backend: lab.BackendName,
) -> None:
    async def program() -> None:
        pools = BufferPools(4096, [PoolSpec(4096, items_per_page=1)])
        async with pools:
            pools.taskq.discard(pools._gc_task)  # its timer would come again for ever
            first = await pools.get(4096)
            await pools.get(4096)
            first.release()

    (failure,) = lab.explore(program, backend=backend, max_executions=10).failures
    assert _heard_when_all_is_collected() == []
    assert lab.replay(program, failure.token).failures
    assert _heard_when_all_is_collected() == []


def _heard_when_all_is_collected() -> list[str]:
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        gc.collect()
    return [str(each.message) for each in heard]


def test_tasks_that_a_cycle_keeps_leave_the_tables_of_the_tasks() -> None:
    """All tasks of one name have the same hash, so each that stays makes the next look slower."""
    kept: list[asyncio.Task[None]] = []

    async def program() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(checkpoint)
        task = asyncio.create_task(asyncio.sleep(0))
        await task
        kept.append(task)

    lab.explore(program, strategy="random", max_executions=5)
    assert len(kept) > 5
    tables = [*_task_states, *getattr(asyncio.tasks, "_all_tasks", ())]
    tables += getattr(asyncio.tasks, "_scheduled_tasks", ())
    assert not set(map(id, kept)) & set(map(id, tables))


@BACKENDS
def test_what_a_task_that_has_failed_dropped_leaks_also_if_the_execution_is_noted_in_full(
    backend: lab.BackendName,
) -> None:
    """The report says what the task has raised, but the lab must not keep the error for that: its
    traceback would keep what the task has dropped."""

    async def program() -> None:
        async def job() -> None:
            resource = Resource()
            await checkpoint()
            raise ValueError(type(resource).__name__)

        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(job)
        except* ValueError:
            pass

    (failure,) = lab.explore(program, backend=backend).failures
    assert (failure.kind, failure.found_at) == ("leak", 1)
    assert failure.repeated
    assert "it is over: it raised ValueError: Resource" in failure.report
    (again,) = lab.replay(program, failure.token).failures
    assert again.report == failure.report
