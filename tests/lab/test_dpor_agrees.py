"""`dpor` sees what a task asks of tasks, groups, scopes and copies: under it a program ends in each
way in which it ends under some schedule.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import pickle
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import anyio
import pytest
import trio
import trio.testing
from anyio.lowlevel import checkpoint

from mbufpools import lab

Program = Callable[[], Awaitable[Any]]
BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])


def ends(program: Program, strategy: lab.StrategyName, backend: lab.BackendName) -> set[str]:
    """Return the results of all executions."""
    seen: set[str] = set()

    async def noted() -> None:
        seen.add(repr(await program()))

    found = lab.explore(
        noted, strategy=strategy, backend=backend, max_preemptions=None, max_executions=20_000
    )
    assert found.complete
    return seen


def assert_agrees(program: Program, backend: lab.BackendName = "asyncio") -> set[str]:
    """Assert that `dpor` shows all results of a program, and return them."""
    every = ends(program, "exhaustive", backend)
    assert ends(program, "dpor", backend) == every
    return every


async def in_tasks(*coroutines: Coroutine[Any, Any, Any]) -> None:
    """Run each coroutine in a task of its own; the tasks are made in this order."""
    tasks = [asyncio.create_task(it) for it in coroutines]
    for task in tasks:
        await task


async def nothing() -> None:
    pass


async def fail() -> None:
    raise OSError


# --- the end of a task


async def a_callback_is_added_to_a_task() -> bool:
    event = asyncio.Event()

    async def watch() -> None:
        task.add_done_callback(lambda _: event.set())

    task = asyncio.create_task(nothing())
    await in_tasks(watch())
    return event.is_set()


async def a_queue_is_filled_by_a_callback_of_a_task() -> int:
    queue: asyncio.Queue[Any] = asyncio.Queue()

    async def watch() -> None:
        task.add_done_callback(queue.put_nowait)

    task = asyncio.create_task(nothing())
    await in_tasks(watch())
    return queue.qsize()


async def a_callback_is_removed_from_a_task() -> list[Any]:
    called: list[Any] = []

    def note(_: Any) -> None:
        called.append(1)

    async def unwatch() -> None:
        task.remove_done_callback(note)

    task = asyncio.create_task(nothing())
    task.add_done_callback(note)
    await in_tasks(unwatch())
    await task
    return called


async def tasks_are_taken_in_the_order_of_their_ends() -> list[str]:
    order: list[str] = []

    async def take() -> None:
        order.extend([await it for it in asyncio.as_completed([first, second])])

    async def name(it: str) -> str:
        return it

    first, second = (asyncio.create_task(name(it)) for it in "ab")
    await in_tasks(take())
    return order


@pytest.mark.parametrize(
    "program",
    [
        a_callback_is_added_to_a_task,
        a_queue_is_filled_by_a_callback_of_a_task,
        a_callback_is_removed_from_a_task,
        tasks_are_taken_in_the_order_of_their_ends,
    ],
)
def test_a_callback_comes_before_and_after_the_end_of_its_task(program: Program) -> None:
    assert len(assert_agrees(program)) == 2


# --- what asyncio.gather returns


async def the_first_of_two_gathers_is_waited_for() -> int:
    gathers = [asyncio.gather(nothing()), asyncio.gather(nothing())]
    done, _ = await asyncio.wait(gathers, return_when=asyncio.FIRST_COMPLETED)
    await asyncio.sleep(1)
    return len(done)


async def a_gather_is_asked_whether_it_is_done() -> list[Any]:
    seen: list[Any] = []

    async def look() -> None:
        seen.append((gather.done(), gather.cancelled()))

    gather = asyncio.gather(nothing(), nothing())
    await in_tasks(look())
    await gather
    return seen


async def a_callback_is_added_to_a_gather() -> list[Any]:
    event, seen = asyncio.Event(), list[bool]()

    async def watch() -> None:
        gather.add_done_callback(lambda _: event.set())

    gather = asyncio.gather(nothing(), nothing())
    await in_tasks(watch())
    seen.append(event.is_set())
    await gather
    return seen


async def a_gather_of_tasks_that_fail() -> str:
    """The gathered tasks were made by different tasks."""
    made: list[asyncio.Task[None]] = []

    async def make(error: type[Exception]) -> None:
        async def fail() -> None:
            raise error

        made.append(asyncio.create_task(fail()))

    await make(OSError)
    await in_tasks(make(ValueError))
    try:
        await asyncio.gather(*made)
    except Exception as error:  # noqa: BLE001 - which one is what is compared
        await asyncio.wait(made)
        return type(error).__name__
    return ""


async def a_gather_of_gathers_is_cancelled() -> Any:
    log: dict[Any, Any] = {}

    async def work(number: int) -> None:
        log[number] = "begun"
        await asyncio.sleep(0)
        log[number] = "over"

    async def cancel() -> None:
        log["cancel"] = gather.cancel()

    async def look() -> None:
        log["look"] = gather.done()

    gather = asyncio.gather(asyncio.gather(work(1)), work(2))
    others = [asyncio.create_task(cancel()), asyncio.create_task(look())]
    try:
        await gather
    except asyncio.CancelledError:
        log["gather"] = "cancelled"
    await asyncio.wait(others)
    return sorted(map(str, log.items()))


@pytest.mark.parametrize(
    "program",
    [
        the_first_of_two_gathers_is_waited_for,
        a_gather_is_asked_whether_it_is_done,
        a_callback_is_added_to_a_gather,
        a_gather_of_tasks_that_fail,
        a_gather_of_gathers_is_cancelled,
    ],
)
def test_who_looks_at_a_gather_comes_before_and_after_the_ends_of_its_tasks(
    program: Program,
) -> None:
    assert len(assert_agrees(program)) > 1


def test_the_tasks_of_a_gather_that_nobody_looks_at_are_executed_in_one_order() -> None:
    async def program() -> None:
        await asyncio.gather(nothing(), nothing(), nothing())

    found = lab.explore(program, strategy="dpor")
    # The order of the event loop comes first, and dpor begins after it.
    assert found.executions - found.redundant == 2


# --- copies


async def two_tasks_share(event: Any, look: Callable[[], Any], change: Callable[[], Any]) -> Any:
    seen: list[Any] = []

    async def write() -> None:
        change()

    async def read() -> None:
        seen.append(look())

    await in_tasks(write(), read())
    return seen, event


async def a_deep_copy_of_a_shared_value() -> Any:
    shared = copy.deepcopy({"n": lab.Shared(0)})["n"]
    return await two_tasks_share(1, lambda: shared.value, lambda: setattr(shared, "value", 1))


async def a_copy_of_a_shared_value() -> Any:
    shared, log = copy.copy(lab.Shared(0)), list[Any]()

    async def change(digit: int) -> None:
        for _ in range(2):
            shared.update(lambda it: it * 10 + digit)
            await asyncio.sleep(0)
        log.append((digit, shared.value))

    await asyncio.gather(change(1), change(2))
    return sorted(log)


async def an_unpickled_shared_value() -> Any:
    shared = pickle.loads(pickle.dumps(lab.Shared(0)))
    return await two_tasks_share(1, lambda: shared.value, lambda: setattr(shared, "value", 1))


async def a_shared_value_is_copied() -> Any:
    shared = lab.Shared(0)
    return await two_tasks_share(
        1, lambda: copy.copy(shared).value, lambda: setattr(shared, "value", 1)
    )


async def a_shared_value_is_printed() -> Any:
    shared = lab.Shared(0)
    return await two_tasks_share(1, lambda: f"{shared}", lambda: setattr(shared, "value", 1))


async def a_copy_of_an_event() -> Any:
    event = copy.deepcopy([asyncio.Event()])[0]
    return await two_tasks_share(1, event.is_set, event.set)


@pytest.mark.parametrize(
    "program",
    [
        a_deep_copy_of_a_shared_value,
        a_copy_of_a_shared_value,
        an_unpickled_shared_value,
        a_shared_value_is_copied,
        a_shared_value_is_printed,
        a_copy_of_an_event,
    ],
)
def test_a_copy_has_the_same_name_in_each_execution_and_is_a_read(program: Program) -> None:
    assert len(assert_agrees(program)) > 1


# --- correct programs that are not refused


async def a_task_of_a_group_fails_and_another_is_made_after_it() -> None:
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())
            group.create_task(nothing())
    except* OSError:
        pass
    await in_tasks(nothing())


async def a_group_is_aborted_while_its_tasks_wait() -> list[int]:
    order: list[int] = []

    async def waits(number: int) -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            order.append(number)

    try:
        async with asyncio.TaskGroup() as group:
            for number in range(4):
                group.create_task(waits(number))
            group.create_task(fail())
    except* OSError:
        pass
    return order


def test_a_group_of_asyncio_that_is_aborted_does_the_same_in_the_same_schedule() -> None:
    """Also without the declarations, as when a failure is repeated."""
    orders: dict[str, set[tuple[int, ...]]] = {}
    for strategy in ("dpor", "fifo"):
        seen = orders[strategy] = set()

        async def program(seen: set[tuple[int, ...]] = seen) -> None:
            seen.add(tuple(await a_group_is_aborted_while_its_tasks_wait()))

        lab.explore(program, strategy=strategy, max_executions=1)
    assert orders == {"dpor": {(0, 1, 2, 3)}, "fifo": {(0, 1, 2, 3)}}


async def awaits_one_after_the_other(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        await task


async def waits_for_each(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        await asyncio.wait([task])


async def gathers_each(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        await asyncio.gather(task)


async def two_one_after_the_other() -> None:
    await awaits_one_after_the_other([asyncio.create_task(nothing()) for _ in range(2)][::-1])


async def two_by_gathers() -> None:
    await gathers_each([asyncio.create_task(nothing()) for _ in range(2)][::-1])


async def two_groups() -> None:
    async with asyncio.TaskGroup() as group, asyncio.TaskGroup() as inner:
        group.create_task(nothing())
        inner.create_task(nothing())


async def two_groups_of_anyio() -> None:
    async with anyio.create_task_group() as group, anyio.create_task_group() as inner:
        group.start_soon(nothing)
        inner.start_soon(nothing)


@pytest.mark.parametrize(
    ("join", "two"),
    [
        pytest.param(join, two, marks=[] if (turn + at) % 2 else [pytest.mark.prove])
        for turn, join in enumerate([awaits_one_after_the_other, waits_for_each, gathers_each])
        for at, two in enumerate(
            [two_one_after_the_other, two_by_gathers, two_groups, two_groups_of_anyio]
        )
    ],
)
def test_a_task_joins_others_that_are_over_or_are_not(
    join: Callable[[list[asyncio.Task[None]]], Awaitable[None]],
    two: Callable[[], Coroutine[Any, Any, None]],
) -> None:
    async def program() -> None:
        tasks = [asyncio.create_task(it()) for it in (nothing, two, nothing)]
        for task in tasks:
            if not task.done():
                await join([task])

    assert_agrees(program)


def test_a_group_of_asyncio_that_is_aborted_is_left_in_every_order() -> None:
    assert_agrees(a_task_of_a_group_fails_and_another_is_made_after_it)


@BACKENDS
def test_a_group_of_anyio_that_is_cancelled_is_left_in_every_order(
    backend: lab.BackendName,
) -> None:
    async def program() -> None:
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(fail)
                group.start_soon(nothing)
                await anyio.sleep(1)
        except* OSError:
            pass
        async with anyio.create_task_group() as group:
            group.start_soon(nothing)

    assert_agrees(program, backend)


@BACKENDS
def test_a_group_whose_only_task_was_started_is_left_in_every_order(
    backend: lab.BackendName,
) -> None:
    async def serve(*, task_status: Any) -> None:
        task_status.started()
        await checkpoint()

    async def program() -> None:
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:
                await group.start(serve)
            scope.cancel()
            await checkpoint()

    assert_agrees(program, backend)


async def a_task_sets_an_event_when_all_others_wait() -> str:
    event, x = trio.Event(), lab.Shared("")

    async def write(digit: str) -> None:
        x.update(lambda it: it + digit)
        await event.wait()
        x.update(lambda it: it + digit)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write, "1")
        nursery.start_soon(write, "2")
        await trio.testing.wait_all_tasks_blocked()
        x.update(lambda it: it + "-")
        event.set()
    return x.value


async def a_task_that_waits_for_the_others_to_wait_is_cancelled() -> str:
    x = lab.Shared("")

    async def wait() -> None:
        with scope:
            await trio.testing.wait_all_tasks_blocked()
        x.update(lambda it: it + "w")

    async def cancel() -> None:
        scope.cancel()
        await trio.lowlevel.checkpoint()
        x.update(lambda it: it + "c")

    scope = trio.CancelScope()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        nursery.start_soon(cancel)
    return x.value


@pytest.mark.parametrize(
    ("program", "results"),
    [
        (a_task_sets_an_event_when_all_others_wait, 4),
        (a_task_that_waits_for_the_others_to_wait_is_cancelled, 2),
    ],
)
def test_a_task_waits_until_all_others_wait(program: Program, results: int) -> None:
    assert len(assert_agrees(program, "trio")) == results


# --- cancel scopes, from the outside


async def look_and_change(scope: anyio.CancelScope, look: Any, change: Any) -> list[Any]:
    """Have one task wait in a scope, one look at the scope, and one change it."""
    begun, seen = anyio.Event(), list[Any]()

    async def wait() -> None:
        with scope:
            begun.set()
            await anyio.sleep(1)

    async def call(function: Callable[[], Any]) -> None:
        await begun.wait()
        function()

    async with anyio.create_task_group() as group:
        group.start_soon(wait)
        group.start_soon(call, lambda: seen.append(look(scope)))
        group.start_soon(call, lambda: change(scope))
    return seen


def set_deadline(scope: anyio.CancelScope) -> None:
    scope.deadline = 99


def set_shield(scope: anyio.CancelScope) -> None:
    scope.shield = True


@BACKENDS
@pytest.mark.parametrize(
    ("attribute", "change"),
    [
        ("deadline", set_deadline),
        ("shield", set_shield),
        ("cancel_called", anyio.CancelScope.cancel),
        ("cancelled_caught", anyio.CancelScope.cancel),
    ],
)
def test_another_task_looks_at_a_scope_before_and_after_it_changes(
    attribute: str, change: Callable[[Any], None], backend: lab.BackendName
) -> None:
    async def program() -> list[Any]:
        change_it = change if attribute in ("deadline", "shield") else lambda it: it.cancel()
        scope = anyio.CancelScope()
        return await look_and_change(scope, lambda it: getattr(it, attribute), change_it)

    assert len(assert_agrees(program, backend)) == 2


@BACKENDS
def test_a_task_asks_whether_another_one_is_to_be_cancelled_before_and_after_it_is(
    backend: lab.BackendName,
) -> None:
    async def program() -> list[Any]:
        seen: list[Any] = []
        ready = anyio.Event()

        async def wait(*, task_status: Any) -> None:
            task_status.started((anyio.get_current_task(), scope))
            with scope:
                await ready.wait()

        async def look() -> None:
            with contextlib.suppress(AttributeError):  # on trio, if the task is over
                seen.append(info.has_pending_cancellation())
            ready.set()

        async def cancel() -> None:
            scope.cancel()

        scope = anyio.CancelScope()
        async with anyio.create_task_group() as group:
            info, _ = await group.start(wait)
            group.start_soon(look)
            group.start_soon(cancel)
        return seen

    assert len(assert_agrees(program, backend)) > 1


# --- nurseries and lots of trio


async def a_task_spawns_into_a_nursery_that_may_be_closed() -> list[str]:
    seen: list[str] = []

    async def own(task_status: Any) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.lowlevel.checkpoint)
            task_status.started(nursery)

    async def spawn(nursery: trio.Nursery) -> None:
        try:
            nursery.start_soon(trio.lowlevel.checkpoint)
        except RuntimeError:
            seen.append("closed")

    async with trio.open_nursery() as outer:
        outer.start_soon(spawn, await outer.start(own))
    return seen


@BACKENDS
def test_a_task_spawns_into_a_group_of_another_before_and_after_it_is_left(
    backend: lab.BackendName,
) -> None:
    async def program() -> list[str]:
        seen: list[str] = []

        async def own(*, task_status: Any) -> None:
            async with anyio.create_task_group() as group:
                group.start_soon(nothing)
                task_status.started(group)

        async def spawn(group: Any) -> None:
            coroutine = nothing()
            try:
                group.create_task(coroutine)
            except RuntimeError:
                coroutine.close()
                seen.append("left")

        async with anyio.create_task_group() as outer:
            group = await outer.start(own)
            outer.start_soon(spawn, group)
            outer.start_soon(nothing)
        return seen

    assert len(assert_agrees(program, backend)) == 2


async def a_task_counts_those_of_its_nursery() -> list[int]:
    seen: list[int] = []

    async def count() -> None:
        seen.append(len(nursery.child_tasks))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(count)
        nursery.start_soon(nothing)
        nursery.start_soon(trio.lowlevel.checkpoint)
    return seen


async def a_lot_is_broken() -> list[Any]:
    lot, seen = trio.lowlevel.ParkingLot(), list[Any]()

    async def look() -> None:
        seen.append((len(lot.broken_by), lot.statistics().tasks_waiting))

    async def break_it() -> None:
        lot.break_lot()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(look)
        nursery.start_soon(break_it)
    return seen


@pytest.mark.parametrize(
    "program",
    [
        a_task_spawns_into_a_nursery_that_may_be_closed,
        a_task_counts_those_of_its_nursery,
        a_lot_is_broken,
    ],
)
def test_a_task_looks_at_a_nursery_or_a_lot_before_and_after_it_changes(program: Program) -> None:
    assert len(assert_agrees(program, "trio")) > 1


def test_tasks_that_come_and_go_in_a_nursery_do_not_conflict() -> None:
    async def program() -> None:
        async def spawn() -> None:
            nursery.start_soon(nothing)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(spawn)
            nursery.start_soon(spawn)

    assert lab.explore(program, strategy="dpor", backend="trio").executions == 2


# --- scopes, groups and starts, which a task may use once


async def at_once(*functions: Callable[[], Awaitable[None]]) -> None:
    """Call each function in a task of its own, in any order."""

    async def after_a_checkpoint(function: Callable[[], Awaitable[None]]) -> None:
        await checkpoint()
        await function()

    async with anyio.create_task_group() as tasks:
        for function in functions:
            tasks.start_soon(after_a_checkpoint, function)


def entering_twice(make: Callable[[], Any]) -> Program:
    """Two tasks enter one thing, which refuses the second; the program tells which one."""

    async def program() -> list[str]:
        thing, seen = make(), list[str]()

        def enter(task: str) -> Callable[[], Awaitable[None]]:
            async def entered() -> None:
                try:
                    if hasattr(thing, "__aenter__"):
                        async with thing:
                            pass
                    else:
                        with thing:
                            pass
                except RuntimeError:
                    seen.append(task)

            return entered

        await at_once(enter("first"), enter("second"))
        return seen

    return program


@pytest.mark.parametrize(
    ("make", "backend"),
    [
        (trio.CancelScope, "trio"),
        (anyio.CancelScope, "trio"),
        (anyio.create_task_group, "trio"),
        (anyio.create_task_group, "asyncio"),
        (asyncio.TaskGroup, "asyncio"),
        (lambda: asyncio.timeout(5), "asyncio"),
    ],
    ids=["trio scope", "anyio scope", "group on trio", "group", "TaskGroup", "timeout"],
)
def test_either_of_two_tasks_enters_a_scope_or_a_group_first(
    make: Callable[[], Any], backend: lab.BackendName
) -> None:
    assert assert_agrees(entering_twice(make), backend) == {"['first']", "['second']"}


def test_a_task_spawns_into_a_group_of_asyncio_before_and_after_it_is_entered() -> None:
    async def program() -> list[str]:
        group, seen = asyncio.TaskGroup(), list[str]()

        async def enter() -> None:
            async with group:
                await asyncio.sleep(0)

        async def spawn() -> None:
            coroutine = nothing()
            try:
                group.create_task(coroutine)
            except RuntimeError as error:
                coroutine.close()
                seen.append("finished" if "finished" in str(error) else "not entered")

        await at_once(enter, spawn)
        return seen

    assert assert_agrees(program) == {"[]", "['finished']", "['not entered']"}


@BACKENDS
def test_either_of_two_tasks_says_first_that_a_task_has_started(
    backend: lab.BackendName,
) -> None:
    async def program() -> list[str]:
        seen: list[str] = []

        async def say(task: str, status: Any) -> None:
            await checkpoint()
            try:
                status.started()
            except RuntimeError:
                seen.append(task)

        async def server(*, task_status: Any) -> None:
            tasks.start_soon(say, "helper", task_status)
            await checkpoint()
            await say("server", task_status)

        async with anyio.create_task_group() as tasks:
            await tasks.start(server)
        return seen

    assert assert_agrees(program, backend) == {"['helper']", "['server']"}


@pytest.mark.parametrize(
    ("look", "change", "results"),
    [
        (lambda it: it.is_relative, None, {"[True]", "[None]"}),
        (lambda it: it.relative_deadline, 7, {"[5]", "[7]"}),
    ],
)
def test_a_task_looks_at_the_relative_deadline_of_a_scope_before_and_after_it_changes(
    look: Callable[[Any], Any], change: int | None, results: set[str]
) -> None:
    async def program() -> list[Any]:
        scope, seen = trio.CancelScope(relative_deadline=5), list[Any]()

        async def looks() -> None:
            seen.append(look(scope))

        async def changes() -> None:
            if change is None:
                with scope:
                    pass
            else:
                scope.relative_deadline = change

        await at_once(looks, changes)
        return seen

    assert assert_agrees(program, "trio") == results


def test_either_of_two_tasks_claims_a_point_of_a_sequencer_first() -> None:
    async def program() -> list[str]:
        sequencer, seen = trio.testing.Sequencer(), list[str]()

        def claim(task: str) -> Callable[[], Awaitable[None]]:
            async def claimed() -> None:
                try:
                    async with sequencer(0):
                        pass
                except RuntimeError:
                    seen.append(task)

            return claimed

        await at_once(claim("first"), claim("second"))
        return seen

    assert assert_agrees(program, "trio") == {"['first']", "['second']"}


# --- names, timers and texts of asyncio


async def a_timer_is_cancelled() -> list[bool]:
    timer, seen = asyncio.get_running_loop().call_later(5, print), list[bool]()

    async def cancel() -> None:
        timer.cancel()

    async def look() -> None:
        seen.append(timer.cancelled())

    await in_tasks(cancel(), look())
    return seen


async def a_task_is_renamed() -> list[str]:
    seen: list[str] = []

    async def rename() -> None:
        task.set_name("renamed")

    async def look() -> None:
        seen.append(task.get_name())

    task = asyncio.create_task(nothing(), name="first")
    await in_tasks(rename(), look())
    await task
    return seen


async def a_task_and_a_future_are_printed() -> list[str]:
    seen: list[str] = []

    async def work() -> None:
        await asyncio.sleep(0)
        future.set_result(None)

    async def look() -> None:
        seen.extend(str(it).partition(" name")[0].partition(">")[0] for it in (task, future))

    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(work())
    await in_tasks(look())
    await task
    return seen


@pytest.mark.parametrize(
    "program", [a_timer_is_cancelled, a_task_is_renamed, a_task_and_a_future_are_printed]
)
def test_a_task_looks_at_a_name_a_timer_or_a_text_before_and_after_it_changes(
    program: Program,
) -> None:
    assert len(assert_agrees(program)) > 1
