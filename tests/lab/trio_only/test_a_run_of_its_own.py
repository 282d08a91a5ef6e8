"""Each execution has what a run of trio of its own has, although many share one run.

Each program here is also executed by trio itself, and does the same there.
"""

from __future__ import annotations

import contextvars
import gc
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import anyio
import pytest
import trio
from anyio.lowlevel import RunVar, checkpoint

from mbufpools import lab
from tests.lab.test_leaves_no_trace import Connection, fails_as_in_reality, holds_as_in_reality

Program = Callable[[], Awaitable[Any]]

# --- what is kept by the run

of_trio = trio.lowlevel.RunVar[int]("of_trio", default=0)
of_anyio = RunVar[int]("of_anyio", default=0)
of_a_context = contextvars.ContextVar("of_a_context", default=0)
by_token = weakref.WeakKeyDictionary[Any, int]()
scopes = weakref.WeakSet[trio.CancelScope]()
kept: list[Any] = []


@pytest.fixture(autouse=True)
def nothing_is_kept() -> Any:
    yield
    kept.clear()
    by_token.clear()


async def variables_of_trio_are_new() -> None:
    assert of_trio.get() == 0
    of_trio.set(1)


async def variables_of_anyio_are_new() -> None:
    assert of_anyio.get() == 0
    of_anyio.set(1)
    await checkpoint()
    assert of_anyio.get() == 1


async def the_token_is_new() -> None:
    token = trio.lowlevel.current_trio_token()
    assert token not in by_token
    by_token[token] = 1
    assert trio.lowlevel.current_trio_token() is token


async def a_token_of_an_earlier_run_is_refused() -> None:
    for token in kept:
        with pytest.raises(trio.RunFinishedError):
            token.run_sync_soon(int)
    kept[:] = [trio.lowlevel.current_trio_token()]
    kept[0].run_sync_soon(int)


async def what_run_sync_soon_calls_has_a_new_context() -> None:
    called, seen = trio.Event(), list[int]()

    def call() -> None:
        seen.append(of_a_context.get())
        of_a_context.set(1)
        called.set()

    trio.lowlevel.current_trio_token().run_sync_soon(call)
    await called.wait()
    assert seen == [0]


async def a_scope_of_an_earlier_run_is_freed() -> None:
    assert not scopes
    with trio.move_on_after(60) as scope:
        scopes.add(scope)
        await checkpoint()


async def what_run_sync_soon_calls_once_is_called_before_the_end() -> None:
    called = kept[0] if kept else [1]
    assert called == [1]
    kept[:] = [[]]
    trio.lowlevel.current_trio_token().run_sync_soon(call_once, idempotent=True)


def call_once() -> None:
    kept[0].append(1)


class Notes(trio.abc.Instrument):
    def __init__(self) -> None:
        self.spawned: list[str] = []
        self.runs = 0

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        self.spawned.append(task.name)

    def after_run(self) -> None:
        self.runs += 1


async def an_instrument_is_told_of_its_own_run() -> None:
    for earlier in kept:
        assert (earlier.spawned, earlier.runs) == (["trio.sleep"], 1)
    notes = Notes()
    trio.lowlevel.add_instrument(notes)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep, 0)
    assert notes.spawned == ["trio.sleep"]
    kept.append(notes)


async def the_coroutine_of_the_main_task_is_called_as_the_program() -> None:
    function = the_coroutine_of_the_main_task_is_called_as_the_program
    assert trio.lowlevel.current_task().coro.__name__ == function.__name__


async def the_main_task_is_alone_below_the_root() -> None:
    root, task = trio.lowlevel.current_root_task(), trio.lowlevel.current_task()
    assert root is not None
    assert task.parent_nursery in root.child_nurseries
    assert task.parent_nursery.child_tasks == {task}
    assert len(anyio.get_running_tasks()) == 3  # the root, the main task and that of the token
    assert trio.lowlevel.current_statistics().tasks_living == 3


async def an_instrument_is_told_of_no_task_that_serves_a_thread() -> None:
    notes = Notes()
    trio.lowlevel.add_instrument(notes)
    await trio.to_thread.run_sync(int)
    assert notes.spawned == []


async def a_task_beside_the_main_task_goes_on_after_it() -> None:
    over = kept[0] if kept else [1]
    assert over == [1]
    kept[:] = [[]]

    async def beside() -> None:
        await trio.sleep(0.001)
        kept[0].append(1)

    main = trio.lowlevel.current_task().parent_nursery
    assert main is not None
    main.start_soon(beside)


@pytest.mark.parametrize(
    "program",
    [
        an_instrument_is_told_of_no_task_that_serves_a_thread,
        a_task_beside_the_main_task_goes_on_after_it,
        variables_of_trio_are_new,
        variables_of_anyio_are_new,
        the_token_is_new,
        a_token_of_an_earlier_run_is_refused,
        what_run_sync_soon_calls_has_a_new_context,
        what_run_sync_soon_calls_once_is_called_before_the_end,
        a_scope_of_an_earlier_run_is_freed,
        an_instrument_is_told_of_its_own_run,
        the_coroutine_of_the_main_task_is_called_as_the_program,
        the_main_task_is_alone_below_the_root,
    ],
)
def test_each_execution_has_a_run_of_its_own(program: Program) -> None:
    trio.run(program)
    holds_as_in_reality(program, "trio")
    trio.run(program)


def test_a_race_is_found_that_a_variable_of_an_earlier_run_would_hide() -> None:
    order = RunVar[tuple[int, ...]]("order", default=())

    async def program() -> None:
        async def join(number: int) -> None:
            await checkpoint()
            if len(order.get()) < 3:
                order.set((*order.get(), number))

        async with anyio.create_task_group() as group:
            for number in range(3):
                group.start_soon(join, number)
        assert order.get() != (2, 1, 0)

    assert lab.explore(program, backend="trio").verdict == "found"


def test_a_task_beside_the_main_task_that_fails_is_a_failure() -> None:
    async def program() -> None:
        async def fails() -> None:
            raise ValueError("beside")

        main = trio.lowlevel.current_task().parent_nursery
        assert main is not None
        main.start_soon(fails)

    with pytest.raises(trio.TrioInternalError):
        trio.run(program)
    (failure,) = lab.explore(program, backend="trio").failures
    assert "a task beside the main task failed, and trio with it: ValueError: bes" in failure.report


def test_a_program_that_cancels_the_nursery_of_its_main_task_is_cancelled() -> None:
    async def program() -> None:
        main = trio.lowlevel.current_task().parent_nursery
        assert main is not None
        main.cancel_scope.cancel()
        await checkpoint()

    fails_as_in_reality(program, trio.Cancelled, "trio")


# --- what is not kept


async def what_the_context_of_a_task_held_is_freed() -> None:
    seen = list[Any]()
    held = contextvars.ContextVar[Connection]("held")

    async def child() -> None:
        held.set(Connection())
        seen.append(weakref.ref(held.get()))
        await checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(child)
    await checkpoint()
    assert seen[0]() is None


async def a_task_that_is_over_is_freed() -> None:
    tasks = weakref.WeakSet[Any]()

    async def child() -> None:
        tasks.add(trio.lowlevel.current_task())
        await checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(child)
    await checkpoint()
    assert not tasks


async def what_the_error_of_a_task_held_is_freed() -> None:
    seen = list[Any]()

    async def child() -> None:
        connection = Connection()
        seen.append(weakref.ref(connection))
        await checkpoint()
        raise ValueError

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(child)
            nursery.start_soon(checkpoint)
    except* ValueError:
        pass
    await checkpoint()
    gc.collect()
    assert seen[0]() is None


async def an_argument_that_a_task_drops_is_freed() -> None:
    async def child(connections: list[Connection]) -> None:
        seen = weakref.ref(connections.pop())
        await checkpoint()
        assert seen() is None

    async def dropping(connection: Connection | None) -> None:
        assert connection is not None
        seen = weakref.ref(connection)
        connection = None
        await checkpoint()
        assert seen() is None

    async with trio.open_nursery() as nursery:
        nursery.start_soon(child, [Connection()])
        nursery.start_soon(dropping, Connection())


async def an_object_that_has_made_a_task_is_freed() -> None:
    class Maker:
        def make(self, nursery: trio.Nursery) -> None:
            nursery.start_soon(checkpoint)

    async with trio.open_nursery() as nursery:
        maker = Maker()
        maker.make(nursery)
        seen = weakref.ref(maker)
        del maker
        await checkpoint()
        assert seen() is None


@pytest.mark.parametrize(
    "program",
    [
        what_the_context_of_a_task_held_is_freed,
        a_task_that_is_over_is_freed,
        what_the_error_of_a_task_held_is_freed,
        an_argument_that_a_task_drops_is_freed,
        an_object_that_has_made_a_task_is_freed,
    ],
)
@pytest.mark.parametrize("cancel", [False, True])
def test_what_trio_lets_go_is_let_go(program: Program, cancel: bool) -> None:
    trio.run(program)
    found = lab.explore(program, backend="trio", cancel=cancel, max_executions=20)
    assert not found.failures, found.failures[0].report


def test_what_is_freed_with_a_task_is_not_found_in_a_cache() -> None:
    async def program() -> None:
        cache = weakref.WeakValueDictionary[str, Connection]()
        held = contextvars.ContextVar[Connection]("held")

        async def child() -> None:
            held.set(Connection())
            cache["it"] = held.get()
            await checkpoint()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(child)
        await checkpoint()
        assert "it" in cache

    fails_as_in_reality(program, AssertionError, "trio")


@pytest.mark.parametrize("cancel", [False, True])
def test_a_task_that_is_called_in_a_wrong_way_fails_where_it_is_started(cancel: bool) -> None:
    async def child(number: int) -> None:
        pass

    async def program() -> None:
        async with trio.open_nursery() as nursery:
            with pytest.raises(TypeError):
                nursery.start_soon(child)  # type: ignore[arg-type]  # it lacks an argument
            with pytest.raises(TypeError):
                nursery.start_soon(int)  # type: ignore[arg-type]  # it is no coroutine function

    trio.run(program)
    lab.explore(program, backend="trio", cancel=cancel).assert_holds()


# --- async generators that are open at the end


async def numbers(at_the_end: Callable[[], Awaitable[Any]]) -> AsyncIterator[int]:
    try:
        yield 1
    finally:
        await at_the_end()


async def leave_open(at_the_end: Callable[[], Awaitable[Any]]) -> None:
    generator = numbers(at_the_end)
    await anext(generator)
    kept.append(generator)


async def an_open_generator_is_closed() -> None:
    closed = kept[0] if kept else [1]
    assert closed == [1]  # in the run before
    kept[:] = [[]]

    async def close() -> None:
        kept[0].append(1)

    await leave_open(close)


async def a_generator_that_the_clean_up_begins_is_closed_too() -> None:
    closed = kept[0] if kept else [1, 2]
    assert closed == [1, 2]
    kept[:] = [[]]

    async def close() -> None:
        kept[0].append(2)

    async def begin_another() -> None:
        kept[0].append(1)
        await leave_open(close)

    await leave_open(begin_another)


async def the_clean_up_takes_its_time() -> None:
    took = kept[0] if kept else [1]
    assert [round(it) for it in took] == [1]
    kept[:] = [[]]

    async def close() -> None:
        began = trio.current_time()
        with trio.CancelScope(shield=True):
            await trio.sleep(1)
        kept[0].append(trio.current_time() - began)

    await leave_open(close)


async def the_clean_up_runs_a_thread() -> None:
    ran = kept[0] if kept else [1, 2]
    assert ran == [1, 2]
    kept[:] = [[]]

    async def close() -> None:
        with trio.CancelScope(shield=True):
            kept[0].append(await trio.to_thread.run_sync(lambda: len(kept[0]) + 1))

    async def stays() -> None:
        try:
            await trio.sleep_forever()
        finally:
            await close()

    trio.lowlevel.spawn_system_task(stays)
    await leave_open(close)
    await checkpoint()
    await trio.sleep(0.001)


async def the_clean_up_makes_no_system_task() -> None:
    kept[:] = [it for it in kept if isinstance(it, str)]
    assert not kept

    async def close() -> None:
        try:
            trio.lowlevel.spawn_system_task(checkpoint)
        except RuntimeError:
            return
        kept.append("it was made")

    await leave_open(close)


async def the_clean_up_has_a_context_of_its_own() -> None:
    assert of_a_context.get() == 0

    async def close() -> None:
        of_a_context.set(1)

    await leave_open(close)


@pytest.mark.parametrize(
    "program",
    [
        an_open_generator_is_closed,
        a_generator_that_the_clean_up_begins_is_closed_too,
        the_clean_up_makes_no_system_task,
        the_clean_up_runs_a_thread,
        the_clean_up_has_a_context_of_its_own,
        the_clean_up_takes_its_time,
    ],
)
def test_an_open_generator_is_closed_at_the_end_of_the_execution(program: Program) -> None:
    if program is not the_clean_up_takes_its_time:  # a second of real time
        trio.run(program)
    holds_as_in_reality(program, "trio")


def test_an_invariant_that_the_clean_up_of_a_generator_breaks_is_found() -> None:
    async def program() -> None:
        committed: list[int] = []
        lab.invariant(lambda: not committed)

        async def close() -> None:
            committed.append(1)

        await leave_open(close)

    (failure,) = lab.explore(program, backend="trio").failures
    assert failure.report.startswith("exception: Violated: invariant")


def test_a_clean_up_of_a_generator_that_fails_or_does_not_end_is_a_failure() -> None:
    async def fails() -> None:
        raise ValueError("in the generator")

    async def goes_on() -> None:
        while True:
            try:
                await checkpoint()
            except trio.Cancelled:
                pass

    async def waits() -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep_forever()

    name = "tests.lab.trio_only.test_a_run_of_its_own.numbers"
    for at_the_end, said in (
        (fails, f"exception: the async generator {name} failed where trio closed it: ValueError"),
        (goes_on, f"livelock: the async generator {name} does not end"),
        (waits, f"livelock: the async generator {name} does not end"),
    ):
        (failure,) = lab.explore(partial(leave_open, at_the_end), backend="trio").failures
        assert failure.report.startswith(said)
