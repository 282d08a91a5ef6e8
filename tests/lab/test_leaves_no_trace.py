"""A program finds no trace of the lab: no task that is not its own, and nothing kept alive.

Each program here is also executed by the event loop itself, and does the same there.
"""

from __future__ import annotations

import asyncio
import copy
import functools
import operator
import pickle
import random
import sys
import threading
import time
import weakref
from collections.abc import Awaitable, Callable
from typing import Any
from unittest import mock

import anyio
import anyio.to_thread
import pytest
import trio
from anyio.lowlevel import checkpoint

from mbufpools import lab
from mbufpools.lab._ordered_sets import sets_in_order

Program = Callable[[], Awaitable[Any]]


def really(program: Program, backend: lab.BackendName = "asyncio") -> None:
    """Execute a program without the lab."""
    anyio.run(program, backend=backend)


def holds_as_in_reality(program: Program, backend: lab.BackendName = "asyncio") -> None:
    really(program, backend)
    assert lab.explore(program, backend=backend, max_executions=100).verdict != "found"


def fails_as_in_reality(
    program: Program, error: type[BaseException], backend: lab.BackendName = "asyncio"
) -> None:
    with pytest.raises(error):
        really(program, backend)
    (failure,) = lab.explore(program, backend=backend, max_executions=100).failures
    assert isinstance(failure.error, error)


# --- the tasks that serve threads


def write() -> None:
    time.sleep(0.01)


async def there_is_no_other_task_after_a_thread() -> None:
    await asyncio.to_thread(int)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def there_is_no_other_task_beside_a_thread() -> None:
    written = asyncio.get_running_loop().run_in_executor(None, write)
    for _ in range(2):
        assert asyncio.all_tasks() == {asyncio.current_task()}
        await asyncio.sleep(0)
    await written


async def all_other_tasks_are_cancelled_beside_a_thread() -> None:
    written = asyncio.get_running_loop().run_in_executor(None, write)
    await asyncio.sleep(0)
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    await written


async def all_other_tasks_are_awaited_after_a_thread() -> None:
    background = asyncio.create_task(asyncio.sleep(0.01))
    await asyncio.to_thread(int)
    await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}))
    assert background.done()


async def a_thread_goes_on_when_all_tasks_are_cancelled() -> None:
    written = list[int]()

    def write_and_note() -> None:
        write()
        written.append(1)

    task = asyncio.create_task(asyncio.to_thread(write_and_note))
    await asyncio.sleep(0.001)
    others = asyncio.all_tasks() - {asyncio.current_task()}
    assert others == {task}
    for other in others:
        other.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await asyncio.sleep(0.1)
    assert written


async def no_task_is_present_in_a_thread() -> None:
    loop = asyncio.get_running_loop()
    seen: list[Any] = []

    def look() -> None:
        time.sleep(0.01)  # meanwhile the task waits
        seen.append(asyncio.current_task(loop))

    await asyncio.to_thread(look)
    assert seen == [None]


@pytest.mark.parametrize(
    "program",
    [
        there_is_no_other_task_after_a_thread,
        there_is_no_other_task_beside_a_thread,
        all_other_tasks_are_cancelled_beside_a_thread,
        all_other_tasks_are_awaited_after_a_thread,
        a_thread_goes_on_when_all_tasks_are_cancelled,
        no_task_is_present_in_a_thread,
    ],
)
def test_a_thread_is_no_task_of_asyncio(program: Program) -> None:
    holds_as_in_reality(program)


def test_a_wait_for_the_task_of_a_thread_fails_since_there_is_none() -> None:
    async def program() -> None:
        await asyncio.to_thread(int)
        await asyncio.wait(asyncio.all_tasks() - {asyncio.current_task()}, timeout=1)

    fails_as_in_reality(program, ValueError)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_thread_is_no_running_task_of_anyio(backend: lab.BackendName) -> None:
    async def program() -> None:
        count, seen = len(anyio.get_running_tasks()), list[int]()

        async def look() -> None:
            await anyio.sleep(0.005)
            seen.append(len(anyio.get_running_tasks()))

        async with anyio.create_task_group() as group:
            group.start_soon(look)
            await anyio.to_thread.run_sync(write)
        assert seen == [count + 1]
        assert len(anyio.get_running_tasks()) == count

    holds_as_in_reality(program, backend)


def test_a_thread_is_no_task_of_trio() -> None:
    def tasks() -> tuple[int, int]:
        (system, *_) = trio.lowlevel.current_root_task().child_nurseries  # type: ignore[union-attr]
        return trio.lowlevel.current_statistics().tasks_living, len(system.child_tasks)

    async def program() -> None:
        living, system = tasks()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(functools.partial(trio.to_thread.run_sync, write))
            await trio.sleep(0.005)
            assert tasks() == (living + 1, system)
        assert tasks() == (living, system)

    holds_as_in_reality(program, "trio")


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_thread_that_has_ended_is_kept_alive_by_nothing(backend: lab.BackendName) -> None:
    async def program() -> None:
        thread = threading.Thread(target=int)
        seen = weakref.ref(thread)
        thread.start()
        thread.join()
        del thread
        await anyio.sleep(0.01)
        assert seen() is None

    holds_as_in_reality(program, backend)


# --- the sets of asyncio.wait


class Connection:
    """May be referred to weakly."""


async def connect() -> Connection:
    return Connection()


LEAVE = {
    "clear": lambda done: done.clear(),
    "pop": lambda done: done.pop(),
    "discard": lambda done: done.discard(next(iter(done))),
    "remove": lambda done: done.remove(next(iter(done))),
    "difference_update": lambda done: done.difference_update(list(done)),
    "intersection_update": lambda done: done.intersection_update([]),
    "symmetric_difference_update": lambda done: done.symmetric_difference_update(set(done)),
    "-=": lambda done: done.__isub__(set(done)),
    "&=": lambda done: done.__iand__(set()),
    "^=": lambda done: done.__ixor__(frozenset(done)),
}


@pytest.mark.parametrize("how", LEAVE)
def test_a_task_that_has_left_a_set_of_asyncio_is_kept_alive_by_nothing(how: str) -> None:
    async def program() -> None:
        done, _ = await asyncio.wait([asyncio.create_task(connect())])
        seen = weakref.ref(next(iter(done)).result())
        LEAVE[how](done)
        assert not done
        assert seen() is None

    holds_as_in_reality(program)


def test_a_connection_that_was_dropped_with_its_set_is_not_found_in_a_cache() -> None:
    async def program() -> None:
        cache = weakref.WeakValueDictionary[str, Connection]()

        async def load() -> Connection:
            cache["key"] = connection = Connection()
            return connection

        done, _ = await asyncio.wait([asyncio.create_task(load())])
        done.clear()
        cache["key"]

    fails_as_in_reality(program, KeyError)


OTHERS: list[Any] = [{2, 3, 9}, frozenset({2, 9}), [2, 3, 9, 2], (), {1: 0}, 5, [[]]]
METHODS = [
    *("update", "difference_update", "intersection_update", "symmetric_difference_update"),
    *("union", "difference", "intersection", "symmetric_difference"),
    *("issubset", "issuperset", "isdisjoint"),
    *("add", "discard", "remove", "clear", "pop", "copy", "__contains__"),
    *(f"__{prefix}{name}__" for name in ("or", "sub", "and", "xor") for prefix in ("", "i")),
    *(f"right {name}" for name in ("or_", "sub", "and_", "xor")),
    *("__eq__", "__ne__", "__le__", "__lt__", "__ge__", "__gt__", "__len__", "__repr__"),
]


def called(items: set[int], method: str, *args: Any) -> Any:
    """Return what a method gives, or how it fails, and the set afterwards."""
    try:
        if method.startswith("right "):
            value = getattr(operator, method.removeprefix("right "))(*args, items)
        else:
            value = getattr(items, method)(*args)
    except Exception as error:  # noqa: BLE001 - it is compared
        return type(error), error.args if type(error) is KeyError else (), set(items)
    return isinstance(value, frozenset), repr(value) if type(value) is str else value, set(items)


@pytest.mark.parametrize("method", METHODS)
def test_a_set_of_asyncio_does_what_a_set_does(method: str) -> None:
    with sets_in_order():
        make: Any = vars(asyncio.tasks)["set"]
    for args in [(other,) for other in OTHERS] + [(), ([2], {4})]:
        # `pop` takes any item of a set, so there is only one.
        items = [1] if method == "pop" else [1, 2, 4]
        mine = make(items)
        assert called(mine, method, *copy.copy(args)) == called(set(items), method, *args)
        assert {*mine} == {*mine._order} == mine, "it is walked from end to end"


def test_a_set_of_asyncio_and_its_copies_are_walked_in_the_order_in_which_they_were_filled() -> (
    None
):
    with sets_in_order():
        make: Any = vars(asyncio.tasks)["set"]
    items = make([64, 8, 1])
    assert list(items) == list(items.copy()) == list(copy.copy(items)) == [64, 8, 1]
    assert list(items | {0}) == [64, 8, 1, 0]
    assert list({0} | items) == [0, 64, 8, 1]
    assert list(items - {8}) == list(items & {1, 64}) == [64, 1]
    assert list(items ^ {8, 3}) == [64, 1, 3]
    items |= {4}
    items -= {8}
    assert list(items) == [64, 1, 4]
    assert repr(items) == "{64, 1, 4}"
    assert type(pickle.loads(pickle.dumps(items))) is set


# --- under dpor, which names the objects whose accesses it records

PARTS: dict[str, Callable[[], Any]] = {
    "asyncio.Event": asyncio.Event,
    "asyncio.Lock": asyncio.Lock,
    "asyncio.Queue": asyncio.Queue,
    "asyncio.Future": lambda: asyncio.get_running_loop().create_future(),
    "anyio.Event": anyio.Event,
    "anyio.Lock": anyio.Lock,
    "lab.Shared": lambda: lab.Shared(0),
    "random.Random": lambda: random.Random(1),
}


@pytest.mark.parametrize("strategy", ["dpor", "exhaustive"])
@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_is_dropped_lives_no_longer_under_the_lab(
    part: str, strategy: lab.StrategyName
) -> None:
    async def program() -> None:
        cache = weakref.WeakValueDictionary({"key": PARTS[part]()})
        assert "key" not in cache

    really(program)
    assert lab.explore(program, strategy=strategy).complete


@pytest.mark.parametrize("strategy", ["dpor", "exhaustive"])
def test_what_has_waited_for_tasks_lives_no_longer_under_the_lab(
    strategy: lab.StrategyName,
) -> None:
    async def program() -> None:
        group = asyncio.TaskGroup()
        async with group:
            group.create_task(asyncio.sleep(0))
        connections = await asyncio.gather(connect(), connect())
        seen = [weakref.ref(it) for it in (group, *connections)]
        del group, connections
        await asyncio.sleep(0)
        assert [it() for it in seen] == [None] * 3

    really(program)
    assert lab.explore(program, strategy=strategy).complete


def test_the_address_of_a_part_that_is_gone_is_used_again_without_its_name() -> None:
    """Two tasks that make and drop locks share nothing."""

    async def make_a_lock() -> None:
        async with asyncio.Lock():
            pass

    async def make_nothing() -> None:
        pass

    def executions(make: Callable[[], Awaitable[None]]) -> int:
        async def make_often() -> None:
            for _ in range(3):
                await make()
                await asyncio.sleep(0)

        async def program() -> None:
            await asyncio.gather(make_often(), make_often())

        return lab.explore(program, strategy="dpor").executions

    assert executions(make_a_lock) == executions(make_nothing)


# --- the loop and the main task are those of asyncio.run


async def the_main_task_has_its_name_and_coroutine() -> None:
    task = asyncio.current_task()
    assert task is not None
    coroutine: Any = task.get_coro()
    assert coroutine.__name__ == "the_main_task_has_its_name_and_coroutine"
    assert "the_main_task_has_its_name_and_coroutine() running at" in repr(task)
    assert task.get_stack()[-1].f_code is coroutine.cr_code
    assert task.get_name().startswith("Task-")


async def a_task_in_a_scope_of_the_lab_has_the_text_of_its_own() -> None:
    async def work() -> None:
        await asyncio.sleep(0)

    task = asyncio.create_task(work(), name="worker")
    await asyncio.sleep(0)
    assert ".<locals>.work() " in repr(task)
    await task


@pytest.mark.parametrize("cancel", [False, True])
@pytest.mark.parametrize(
    "program",
    [
        the_main_task_has_its_name_and_coroutine,
        a_task_in_a_scope_of_the_lab_has_the_text_of_its_own,
    ],
)
def test_a_task_is_called_as_in_asyncio_run(program: Program, cancel: bool) -> None:
    asyncio.run(program())  # type: ignore[arg-type]  # it is a coroutine function
    lab.explore(program, cancel=cancel).assert_holds()


def test_the_main_task_is_called_main_in_reports() -> None:
    async def program() -> None:
        assert asyncio.current_task() is None

    (failure,) = lab.explore(program).failures
    assert failure.schedule[0].title == "main"


def test_the_policy_returns_the_loop_of_the_execution_and_afterwards_what_it_did_before() -> None:
    async def program() -> None:
        loop = asyncio.get_running_loop()
        assert asyncio.get_event_loop_policy().get_event_loop() is loop

    asyncio.run(program())
    own = asyncio.new_event_loop()
    try:
        asyncio.set_event_loop(own)
        lab.explore(program).assert_holds()
        assert asyncio.get_event_loop_policy().get_event_loop() is own
    finally:
        asyncio.set_event_loop(None)
        own.close()


def test_a_program_on_asyncio_is_not_told_that_it_is_explored_on_trio() -> None:
    class Policy(asyncio.DefaultEventLoopPolicy):
        """Has another name for what it keeps, so the lab cannot set it."""

        _local: Any = property(lambda policy: None)

        def __init__(self) -> None:
            pass

        def get_event_loop(self) -> asyncio.AbstractEventLoop:
            return self.new_event_loop()

    async def program() -> None:
        asyncio.get_event_loop_policy().get_event_loop().close()

    before = asyncio.get_event_loop_policy()
    asyncio.set_event_loop_policy(Policy())
    try:
        lab.explore(program).assert_holds()
    finally:
        asyncio.set_event_loop_policy(before)


@pytest.mark.parametrize("strategy", ["exhaustive", "dpor"])
def test_a_loop_debugs_if_it_is_told_to(
    strategy: lab.StrategyName, monkeypatch: pytest.MonkeyPatch
) -> None:
    depth = sys.get_coroutine_origin_tracking_depth()

    async def program() -> None:
        loop = asyncio.get_running_loop()
        assert loop.get_debug() is bool(debug)
        loop.set_debug(True)
        task = asyncio.create_task(asyncio.sleep(0))
        await task
        assert sys.get_coroutine_origin_tracking_depth() > 0
        assert loop.get_debug()
        future = loop.create_future()
        loop.call_later(1, future.set_result, None)
        await future
        loop.set_debug(False)
        assert not loop.get_debug()
        loop.set_debug(True)

    for debug in ("", "1"):
        monkeypatch.setenv("PYTHONASYNCIODEBUG", debug)
        asyncio.run(program())
        assert lab.explore(program, strategy=strategy).complete
        assert sys.get_coroutine_origin_tracking_depth() == depth


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("strategy", ["mixed", "pct", "dpor"])
@pytest.mark.parametrize("name", ["random.Random", "os.getcwd"])
def test_what_the_lab_itself_uses_may_be_a_mock_around_an_exploration(
    name: str, strategy: lab.StrategyName, backend: lab.BackendName
) -> None:
    async def program() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(checkpoint)
            group.start_soon(checkpoint)

    async def fails() -> None:
        await program()
        raise ValueError("on purpose")

    lab.explore(program, backend=backend)  # what is imported meanwhile would keep the mock
    options: Any = {"strategy": strategy, "backend": backend, "max_executions": 100}
    with mock.patch(name, mock.Mock(return_value=77)):
        assert lab.explore(program, **options).verdict != "found"
        assert lab.explore(fails, **options).verdict == "found"
    assert lab.explore(program, **options).verdict != "found"


def test_weak_references_may_be_mocks_around_an_exploration() -> None:
    """Of asyncio; anyio and trio cannot do without them."""

    async def program() -> None:
        await asyncio.gather(asyncio.sleep(0), asyncio.sleep(0))

    lab.explore(program)
    with mock.patch("weakref.ref", mock.Mock(return_value=77)):
        assert lab.explore(program, cancel="native").verdict == "proved"
    assert lab.explore(program).verdict == "proved"
