"""What a program sees under the lab is what it sees on the event loop itself.

Each program here runs on asyncio without the lab in the same way, or the lab refuses it.
"""

from __future__ import annotations

import asyncio
import gc
import heapq
import inspect
import sys
import time
import warnings
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextvars import ContextVar, copy_context
from dataclasses import dataclass
from functools import partial
from typing import Any

import anyio
import pytest
import trio
from anyio.lowlevel import checkpoint

from mbufpools import lab

Program = Callable[[], Awaitable[None]]
REQUEST = ContextVar("REQUEST", default="")
both_backends = pytest.mark.parametrize("backend", ["asyncio", "trio"])


# --- it is no failure


async def timers_of_one_time_fire_in_their_order() -> None:
    loop, log = asyncio.get_running_loop(), list[int]()
    for number in range(6):
        loop.call_later(0.01, log.append, number)
    await asyncio.sleep(0.05)
    assert log == list(range(6))


async def timers_of_one_deadline_fire_as_the_heap_has_them() -> None:
    loop, log = asyncio.get_running_loop(), list[int]()
    deadline = loop.time() + 0.01
    heap: list[Tie] = []
    for number in range(6):
        loop.call_at(deadline, log.append, number)
        heapq.heappush(heap, Tie(deadline, number))
    heapq.heappush(heap, Tie(deadline + 0.04, 6))  # of the sleep
    await asyncio.sleep(0.05)
    assert log == [heapq.heappop(heap).number for _ in range(6)]


@dataclass
class Tie:
    """Is compared by its time alone, as asyncio's timers are."""

    when: float
    number: int

    def __lt__(self, other: Tie) -> bool:
        return self.when < other.when


async def a_handler_is_called_with_what_the_program_tells() -> None:
    called: list[str] = []
    loop = asyncio.get_running_loop()

    def handler(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        called.append(context["message"])

    loop.set_exception_handler(handler)
    loop.call_exception_handler({"message": "it is told"})
    assert called == ["it is told"]


async def a_long_chain_of_callbacks_ends() -> None:
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def call(number: int) -> None:
        if number:
            loop.call_soon(call, number - 1)
        else:
            done.set_result(None)

    call(50)
    async with asyncio.timeout(5):
        await done


async def a_timer_that_is_due_fires_between_steps() -> None:
    fired: list[int] = []
    asyncio.get_running_loop().call_later(0, fired.append, 1)
    while not fired:
        await asyncio.sleep(0)


async def a_method_of_a_task_is_no_step_of_it() -> None:
    task = asyncio.create_task(asyncio.sleep(1))
    asyncio.get_running_loop().call_soon(task.set_name, "renamed")
    await task
    assert task.get_name() == "renamed"


async def a_handler_of_the_program_is_called() -> None:
    told: list[Any] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: told.append(context["exception"]))
    loop.call_soon(lambda: 1 / 0)
    await asyncio.sleep(1)
    assert [type(error) for error in told] == [ZeroDivisionError]


async def the_handler_has_the_context_of_the_callback_that_failed() -> None:
    """From Python 3.12 on."""
    told: list[str] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: told.append(REQUEST.get()))
    REQUEST.set("7")
    loop.call_soon(lambda: 1 / 0)
    REQUEST.set("8")
    await asyncio.sleep(1)
    assert told == ["7" if sys.version_info >= (3, 12) else ""]


async def the_handler_has_the_context_of_the_task_that_was_lost() -> None:
    """From Python 3.12 on."""
    told: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, _: told.append(REQUEST.get()))

    async def serve() -> None:
        REQUEST.set("7")
        raise ValueError

    task = asyncio.create_task(serve())
    await asyncio.wait([task])
    del task
    await asyncio.sleep(1)
    if sys.version_info >= (3, 12):
        assert told == ["7"]


async def a_handler_that_fails_is_told_to_the_default_one() -> None:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: 1 / 0)
    default, told = loop.default_exception_handler, list[Any]()
    loop.default_exception_handler = lambda context: told.append(context["exception"])  # type: ignore[method-assign]
    loop.call_soon(lambda: int("x"))
    await asyncio.sleep(1)
    loop.default_exception_handler = default  # type: ignore[method-assign]
    assert [type(error) for error in told] == [ZeroDivisionError]


async def a_name_is_made_a_string() -> None:
    async def name() -> str:
        task = asyncio.current_task()
        assert task is not None
        return task.get_name()

    loop = asyncio.get_running_loop()
    for given in (7, "", "seven", Tie(7, 7)):
        assert await loop.create_task(name(), name=given) == str(given)  # type: ignore[arg-type]
    async with asyncio.TaskGroup() as group:
        task = group.create_task(name(), name=7)  # type: ignore[arg-type]
    assert task.result() == "7"


class Connection:
    """Gives its place back when nobody refers to it any more."""

    def __init__(self, places: asyncio.Semaphore) -> None:
        weakref.finalize(self, places.release)


async def what_a_task_that_failed_held_is_let_go() -> None:
    places = asyncio.Semaphore(1)

    async def request() -> None:
        await places.acquire()
        connection = Connection(places)
        await asyncio.sleep(0)
        raise ValueError(type(connection))

    for _ in range(2):
        results = await asyncio.gather(request(), return_exceptions=True)
        assert isinstance(results[0], ValueError)
        del results


async def what_a_thread_that_failed_held_is_let_go() -> None:
    held = weakref.WeakSet[Connection]()

    def work() -> None:
        connection = Connection(asyncio.Semaphore())
        held.add(connection)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await asyncio.to_thread(work)
    await asyncio.sleep(0.01)
    assert not held


async def a_task_that_a_callback_makes_after_the_end_takes_no_step() -> None:
    """asyncio.run cancels it before its first step."""
    journal, tasks = ["open"], list[asyncio.Future[None]]()
    saved = asyncio.get_running_loop().create_future()

    async def flush() -> None:
        assert journal == ["open"]

    saved.add_done_callback(lambda _: tasks.append(asyncio.ensure_future(flush())))
    saved.set_result(None)
    journal[:] = ["closed"]


async def a_generator_that_is_dropped_at_the_end_is_not_closed_by_itself() -> None:
    async def rows() -> AsyncIterator[int]:
        try:
            yield 1
        except GeneratorExit:
            raise AssertionError("closed too late") from None

    async for _ in rows():
        break


async def the_owner_of_a_callback_that_ran_is_let_go() -> None:
    class Owner:
        def method(self) -> None:
            pass

    owner = Owner()
    asyncio.get_running_loop().call_soon(owner.method)
    seen = weakref.ref(owner)
    del owner
    await asyncio.sleep(1)
    assert seen() is None


async def a_done_callback_has_the_context_of_who_adds_it() -> None:
    request: ContextVar[str] = ContextVar("request")
    request.set("main")
    seen: list[str] = []

    async def job() -> None:
        request.set("job")
        await asyncio.sleep(0)
        future.set_result(None)

    def note(_: Any) -> None:
        seen.append(request.get())

    other = copy_context()
    other.run(request.set, "other")
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(job())
    gathering = asyncio.gather(task)
    for awaited in (task, future, gathering):
        awaited.add_done_callback(note)
        awaited.add_done_callback(note, context=other)
    await gathering
    await asyncio.sleep(0)
    assert sorted(seen) == ["main"] * 3 + ["other"] * 3


NOT_FOR_DPOR = [
    the_owner_of_a_callback_that_ran_is_let_go,
    what_a_thread_that_failed_held_is_let_go,
]


@pytest.mark.parametrize(
    "program",
    [
        a_done_callback_has_the_context_of_who_adds_it,
        timers_of_one_time_fire_in_their_order,
        timers_of_one_deadline_fire_as_the_heap_has_them,
        a_handler_is_called_with_what_the_program_tells,
        a_long_chain_of_callbacks_ends,
        a_timer_that_is_due_fires_between_steps,
        a_method_of_a_task_is_no_step_of_it,
        a_handler_of_the_program_is_called,
        the_handler_has_the_context_of_the_callback_that_failed,
        the_handler_has_the_context_of_the_task_that_was_lost,
        a_handler_that_fails_is_told_to_the_default_one,
        a_name_is_made_a_string,
        a_task_that_a_callback_makes_after_the_end_takes_no_step,
        a_generator_that_is_dropped_at_the_end_is_not_closed_by_itself,
        what_a_task_that_failed_held_is_let_go,
        what_a_thread_that_failed_held_is_let_go,
        the_owner_of_a_callback_that_ran_is_let_go,
    ],
)
@pytest.mark.parametrize("strategy", ["exhaustive", "dpor", "random", "fifo"])
def test_a_correct_program_has_no_failure(program: Program, strategy: lab.StrategyName) -> None:
    if program not in NOT_FOR_DPOR or strategy != "dpor":
        lab.explore(program, strategy=strategy, max_executions=20).assert_holds()


def test_timers_of_one_time_fire_in_their_order_in_a_run_too() -> None:
    lab.run(timers_of_one_time_fire_in_their_order)


# --- it is a failure


async def passes_on_to_the_handler_of_the_loop() -> None:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: loop.default_exception_handler(context))
    loop.call_soon(int, "none")
    await asyncio.sleep(0)


async def exits_in_a_callback_of_the_shutdown() -> None:
    task = asyncio.create_task(asyncio.sleep(3600))
    task.add_done_callback(lambda _: sys.exit(3))
    await asyncio.sleep(0)


async def a_callback_calls_for_one_that_raises() -> None:
    loop = asyncio.get_running_loop()
    loop.call_soon(loop.call_soon, int, "none")


async def changes_a_set_while_it_is_walked() -> None:
    done, _ = await asyncio.wait([asyncio.create_task(asyncio.sleep(0)) for _ in range(3)])
    for task in done:
        done.remove(task)


async def a_timer_of_no_time_has_not_fired() -> None:
    fired: list[int] = []
    asyncio.get_running_loop().call_later(0, fired.append, 1)
    for _ in range(5):
        await asyncio.sleep(0)
    assert not fired


async def exits_in_a_clean_up() -> None:
    async def background() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            sys.exit(3)

    tasks.append(asyncio.create_task(background()))
    await asyncio.sleep(0)


async def a_background_task_fails_after_the_main_task() -> None:
    async def background() -> None:
        raise ValueError("in the background")

    tasks.append(asyncio.create_task(background()))


async def an_error_of_a_future_in_a_cycle_is_lost() -> None:
    future: Any = asyncio.get_running_loop().create_future()
    future.set_exception(ValueError("in a cycle"))
    future.itself = future


tasks: list[asyncio.Task[Any]] = []


@pytest.mark.parametrize(
    ("program", "said"),
    [
        (changes_a_set_while_it_is_walked, "Set changed size during iteration"),
        (a_timer_of_no_time_has_not_fired, "AssertionError"),
        (exits_in_a_clean_up, "SystemExit: 3"),
        (exits_in_a_callback_of_the_shutdown, "SystemExit: 3"),
        (passes_on_to_the_handler_of_the_loop, "Exception in callback int("),
        (
            a_callback_calls_for_one_that_raises,
            "Exception in callback int(",
        ),
        (a_background_task_fails_after_the_main_task, "ValueError"),
        (an_error_of_a_future_in_a_cycle_is_lost, "Future exception was never retrieved: ValueE"),
    ],
)
def test_a_failure_of_the_event_loop_itself_is_found_in_execution_1(
    program: Program, said: str
) -> None:
    (failure,) = lab.explore(program).failures
    tasks.clear()
    assert failure.found_at == 1
    assert failure.token == "asyncio:"
    assert said in failure.report


# --- what asyncio.run does when the main task is over

kept: list[Any] = []


async def left(background: Callable[[], Coroutine[Any, Any, None]]) -> None:
    kept.append(asyncio.create_task(background()))
    await asyncio.sleep(0)


async def a_clean_up_raises() -> None:
    async def background() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            raise ValueError("in the clean-up")

    await left(background)


async def a_done_callback_looks_at_a_cancelled_task() -> None:
    task = asyncio.create_task(asyncio.sleep(3600))
    task.add_done_callback(lambda it: it.exception())
    await asyncio.sleep(0)


async def a_clean_up_adds_a_callback_that_raises() -> None:
    async def background() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            asyncio.get_running_loop().call_soon(int, "none")

    await left(background)


async def a_clean_up_makes_a_task_that_raises() -> None:
    async def fails() -> None:
        raise ValueError

    async def background() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            kept.append(asyncio.create_task(fails()))

    await left(background)


async def a_clean_up_raises_after_a_sleep() -> None:
    async def background() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(1)
            raise ValueError("in the clean-up")

    await left(background)


async def a_clean_up_waits_for_ever() -> None:
    async def background() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.Event().wait()

    await left(background)


async def a_task_swallows_its_cancellation() -> None:
    async def background() -> None:
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                pass

    await left(background)


async def numbers() -> AsyncIterator[int]:
    try:
        yield 1
    finally:
        await asyncio.sleep(0)
        raise ValueError("in the generator")


async def a_generator_that_is_left_open_raises() -> None:
    kept.append(numbers())
    await anext(kept[-1])


async def a_clean_up_makes_a_task_that_is_dropped() -> None:
    async def background() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            kept.append(asyncio.create_task(asyncio.sleep(1)))

    await left(background)


async def two_that_await_each_other() -> asyncio.Task[None]:
    other: asyncio.Task[None]

    async def one() -> None:
        await asyncio.sleep(0)
        await asyncio.gather(other)

    async def two() -> None:
        await first

    first = asyncio.create_task(one())
    other = asyncio.create_task(two())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return first


async def two_that_await_each_other_are_left() -> None:
    kept.append(await two_that_await_each_other())


@pytest.mark.parametrize(
    ("program", "kind", "said"),
    [
        (a_clean_up_raises, "exception", "unhandled exception during asyncio.run() shutdown: "),
        (a_done_callback_looks_at_a_cancelled_task, "exception", "Exception in callback"),
        (a_clean_up_adds_a_callback_that_raises, "exception", "Exception in callback int("),
        (a_clean_up_makes_a_task_that_raises, "exception", "never retrieved: ValueError()"),
        (a_clean_up_raises_after_a_sleep, "exception", "ValueError('in the clean-up')"),
        (a_clean_up_waits_for_ever, "stall", "one of them waits, and nothing can wake it"),
        (a_task_swallows_its_cancellation, "livelock", "one of them goes on for ever"),
        (a_generator_that_is_left_open_raises, "exception", "ValueError('in the generator')"),
        (
            a_clean_up_makes_a_task_that_is_dropped,
            "exception",
            "destroyed but it is pending! (task",
        ),
        (two_that_await_each_other_are_left, "exception", "some of them await each other"),
    ],
)
@pytest.mark.parametrize("strategy", ["exhaustive", "dpor"])
def test_a_failure_of_the_shutdown_of_asyncio_run_is_found(
    program: Program, kind: str, said: str, strategy: lab.StrategyName
) -> None:
    (failure,) = lab.explore(program, strategy=strategy).failures
    kept.clear()
    assert failure.kind == kind
    assert failure.token == "asyncio:"
    assert said in failure.report


@pytest.mark.parametrize("cancel", [False, True, "native"])
@pytest.mark.parametrize("strategy", ["mixed", "exhaustive", "random", "dpor"])
def test_tasks_that_await_each_other_are_a_stall(strategy: lab.StrategyName, cancel: Any) -> None:
    cleaned: list[int] = []

    async def program() -> None:
        try:
            await (await two_that_await_each_other())
        finally:
            cleaned.append(1)

    if strategy == "dpor" and cancel:
        return
    (failure,) = lab.explore(program, strategy=strategy, cancel=cancel).failures
    assert failure.kind == "stall"
    assert failure.token == "asyncio:"
    assert cleaned
    assert not lab.explore(a_timer_is_due_behind_a_callback).failures  # nothing is left of it


def test_the_generators_that_are_left_open_are_closed_in_the_order_of_their_begin() -> None:
    async def program() -> None:
        closed: list[int] = []

        async def opens(number: int) -> AsyncIterator[int]:
            try:
                yield number
            finally:
                closed.append(number)
                assert closed == list(range(number + 1))

        generators = [opens(number) for number in range(4)]
        kept.append(generators)
        for generator in generators:
            await anext(generator)

    for number in range(3):  # so that the addresses of the generators differ
        kept.append([object() for _ in range(7 * number)])
        assert not lab.explore(program).failures
    kept.clear()


# asyncio drops these tasks while they wait.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_run_in_virtual_time_tells_that_tasks_await_each_other() -> None:
    async def program() -> None:
        await (await two_that_await_each_other())

    with pytest.raises(lab.Stalled, match=r"program waits at .*in program"):
        lab.run(program)
    gc.collect()


def test_an_interrupt_in_a_group_of_tasks_leaves_nothing_behind() -> None:
    async def interrupts() -> None:
        raise KeyboardInterrupt

    async def program() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(interrupts())
            await asyncio.sleep(1)

    with pytest.raises(KeyboardInterrupt):
        lab.explore(program)
    assert not lab.explore(a_timer_is_due_behind_a_callback).failures


async def a_timer_is_due_behind_a_callback() -> None:
    loop, done = asyncio.get_running_loop(), asyncio.Event()
    loop.call_soon(int)
    loop.call_later(0, done.set)
    await done.wait()


async def a_timer_is_due_behind_another() -> None:
    loop, done = asyncio.get_running_loop(), asyncio.Event()
    loop.call_later(0, int)
    await asyncio.sleep(0)
    loop.call_later(0, done.set)
    await done.wait()


async def a_timer_sets_the_next_that_is_due() -> None:
    loop, done = asyncio.get_running_loop(), asyncio.Event()

    def tick(left: int) -> None:
        if left:
            loop.call_later(0, tick, left - 1)
        else:
            done.set()

    async with asyncio.timeout(3600):
        tick(3)
        await done.wait()


async def a_timer_is_due_before_another() -> None:
    loop = asyncio.get_running_loop()
    log: list[str] = []
    loop.call_later(0.01, log.append, "soon")
    loop.call_later(3600, log.append, "late")
    loop.call_soon(time.sleep, 0.02)
    await asyncio.sleep(7200)
    assert log == ["soon", "late"]


async def timers_are_late_because_a_callback_takes_long() -> None:
    loop = asyncio.get_running_loop()
    log: list[int] = []
    loop.call_later(0.02, log.append, 2)
    loop.call_later(0.01, log.append, 1)
    loop.call_soon(time.sleep, 0.03)
    await asyncio.sleep(1)
    assert log == [1, 2]


@pytest.mark.parametrize(
    "program",
    [
        a_timer_is_due_behind_a_callback,
        a_timer_is_due_behind_another,
        a_timer_sets_the_next_that_is_due,
        a_timer_is_due_before_another,
        timers_are_late_because_a_callback_takes_long,
    ],
)
@pytest.mark.parametrize("strategy", ["fifo", "mixed", "random", "dpor"])
def test_a_timer_that_is_due_fires_though_no_task_can_run(
    program: Program, strategy: lab.StrategyName
) -> None:
    if "time" in program.__code__.co_names and strategy == "dpor":
        return  # a callback takes time
    lab.explore(program, strategy=strategy, max_executions=50).assert_holds()


async def a_clean_up_that_sleeps_ends() -> None:
    ended: list[int] = []

    async def background() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(1)
            helper = asyncio.create_task(asyncio.sleep(1))
            await helper
            ended.append(1)

    await left(background)
    kept.append(asyncio.create_task(asyncio.sleep(60)))  # which may not have begun by then
    kept.append(ended)


@pytest.mark.parametrize("strategy", ["exhaustive", "dpor", "random", "fifo"])
@pytest.mark.parametrize("cancel", [False, True])
def test_a_clean_up_in_the_shutdown_of_asyncio_run_is_run_to_its_end(
    strategy: lab.StrategyName, cancel: bool
) -> None:
    if strategy == "dpor" and cancel:
        return
    found = lab.explore(
        a_clean_up_that_sleeps_ends, strategy=strategy, max_executions=20, cancel=cancel
    )
    ends = [it for it in kept if isinstance(it, list)]
    kept.clear()
    assert not found.failures
    assert cancel or [1] in ends
    assert all("0.-" not in remark for remark in found.remarks)  # of what the shutdown has made


# --- filters and errors


def test_a_warning_that_a_filter_makes_an_error_is_raised() -> None:
    async def program() -> None:
        warnings.warn("old", DeprecationWarning, stacklevel=1)

    lab_default = lab.explore
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (failure,) = lab_default(program).failures
    assert "DeprecationWarning: old" in failure.report
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lab.explore(program).assert_holds()


def test_an_error_whose_class_is_made_anew_each_time_is_the_same_failure() -> None:
    async def program() -> None:
        class Odd(Exception):
            pass

        await asyncio.sleep(0)
        raise Odd("each time")

    (failure,) = lab.explore(program).failures
    assert "Odd: each time" in failure.report


def test_a_task_is_preempted_after_its_slice_only_if_another_waited() -> None:
    """Steps that it took alone do not count."""

    async def program() -> None:
        ran: list[int] = []

        async def child() -> None:
            ran.append(1)

        for _ in range(25):
            await asyncio.sleep(0)
        task = asyncio.create_task(child())
        for _ in range(3):
            await asyncio.sleep(0)
        assert ran
        await task

    (failure,) = lab.explore(program, max_preemptions=0).failures
    assert failure.token.startswith("asyncio/run-on:")


# --- dpor sees it


async def the_first_callback_of_a_future_is_of_the_first_task() -> None:
    future, order = asyncio.get_running_loop().create_future(), list[str]()

    async def add(name: str) -> None:
        future.add_done_callback(lambda _: order.append(name))

    await asyncio.gather(add("a"), add("b"))
    future.set_result(None)
    await asyncio.sleep(0)
    assert order == ["a", "b"]


async def the_first_timer_is_of_the_first_task() -> None:
    order = list[str]()

    async def add(name: str) -> None:
        asyncio.get_running_loop().call_later(1, order.append, name)

    await asyncio.gather(add("a"), add("b"))
    await asyncio.sleep(2)
    assert order == ["a", "b"]


@pytest.mark.parametrize(
    "program",
    [
        the_first_callback_of_a_future_is_of_the_first_task,
        the_first_timer_is_of_the_first_task,
    ],
)
@pytest.mark.parametrize("strategy", ["exhaustive", "dpor"])
def test_an_order_of_callbacks_that_two_tasks_decide_is_explored(
    program: Program, strategy: lab.StrategyName
) -> None:
    assert lab.explore(program, strategy=strategy).failures


# --- it is refused


async def stops_the_loop() -> None:
    asyncio.get_running_loop().stop()
    await asyncio.sleep(0)


async def sets_a_task_factory() -> None:
    loop = asyncio.get_running_loop()
    loop.set_task_factory(lambda loop, coro, **options: asyncio.Task(coro, loop=loop, **options))


async def makes_a_task_by_hand() -> None:
    await asyncio.Task(asyncio.sleep(1))


async def walks_a_set_of_futures() -> None:
    futures = [asyncio.get_running_loop().create_future() for _ in range(3)]
    for future in futures:
        future.set_result(None)
    for each in asyncio.as_completed(futures):
        await each


async def walks_tasks_and_a_future() -> None:
    tasks = [asyncio.create_task(asyncio.sleep(0)) for _ in range(3)]
    future: Any = asyncio.gather(asyncio.sleep(0))
    await asyncio.sleep(1)
    for each in asyncio.as_completed(iter([future, *tasks])):
        await each


def test_as_completed_takes_tasks_that_are_done_and_one_future() -> None:
    assert not lab.explore(walks_tasks_and_a_future).failures


async def goes_on_with_a_coroutine_that_has_begun() -> None:
    async def waits() -> int:
        await asyncio.sleep(0)
        return 5

    coroutine = waits()
    coroutine.send(None)
    assert await asyncio.create_task(coroutine) == 5


def any_loop() -> Any:
    """Return the running loop; the checker of types knows the options of one Python alone."""
    return asyncio.get_running_loop()


async def asks_for_an_option_of_tasks_that_there_is_not() -> None:
    coroutine = asyncio.sleep(0)
    with pytest.raises(TypeError, match="no_such_option"):
        any_loop().create_task(coroutine, no_such_option=True)
    await coroutine


@pytest.mark.parametrize("cancel", [False, True])
@pytest.mark.parametrize(
    "program",
    [
        goes_on_with_a_coroutine_that_has_begun,
        asks_for_an_option_of_tasks_that_there_is_not,
    ],
)
def test_a_task_is_made_as_by_asyncio(program: Program, cancel: bool) -> None:
    anyio.run(program)
    lab.explore(program, cancel=cancel).assert_holds()


def test_a_task_that_is_to_start_eagerly_is_refused_or_a_type_error_as_by_asyncio() -> None:
    async def program() -> None:
        coroutine = asyncio.sleep(0)
        try:
            any_loop().create_task(coroutine, eager_start=True)
        finally:
            coroutine.close()

    has_options = "kwargs" in inspect.signature(asyncio.BaseEventLoop.create_task).parameters
    if has_options:
        with pytest.raises(lab.Unsupported, match="starts a task eagerly"):
            lab.explore(program)
    else:
        (failure,) = lab.explore(program).failures
        assert isinstance(failure.error, TypeError)


@pytest.mark.parametrize(
    ("program", "said"),
    [
        (walks_a_set_of_futures, "3 futures that are done already"),
        (stops_the_loop, "stops the event loop"),
        (sets_a_task_factory, "sets a task factory"),
        (makes_a_task_by_hand, r"makes a task by asyncio\.Task"),
    ],
)
@pytest.mark.filterwarnings("ignore:coroutine 'sleep' was never awaited:RuntimeWarning")
def test_what_the_lab_cannot_schedule_is_refused(program: Program, said: str) -> None:
    with pytest.raises(lab.Unsupported, match=said):
        lab.explore(program)
    gc.collect()


@both_backends
def test_a_reset_that_is_async_is_refused(backend: lab.BackendName) -> None:
    async def reset() -> None:
        pass

    with pytest.raises(ValueError, match="reset is an `async def`"):
        lab.explore(checkpoint, backend=backend, reset=reset)


# --- trio


def test_a_run_variable_of_trio_is_new_in_each_execution() -> None:
    variable: trio.lowlevel.RunVar[int] = trio.lowlevel.RunVar("variable")

    async def program() -> None:
        with pytest.raises(LookupError):
            variable.get()
        variable.set(1)
        async with anyio.create_task_group() as group:
            group.start_soon(checkpoint)
            group.start_soon(checkpoint)

    lab.explore(program, backend="trio").assert_holds()


def test_a_system_task_that_spins_is_a_livelock() -> None:
    async def program() -> None:
        async def spin() -> None:
            while True:
                await trio.lowlevel.checkpoint()

        trio.lowlevel.spawn_system_task(spin)
        await trio.sleep(1)

    (failure,) = lab.explore(program, backend="trio", step_limit=200).failures
    assert failure.kind == "livelock"


# --- what a task is called, and what it runs


@pytest.mark.parametrize("cancel", [False, True])
def test_a_task_of_asyncio_runs_the_coroutine_of_the_program(cancel: bool) -> None:
    async def worker() -> None:
        await asyncio.sleep(0)

    async def program() -> None:
        coroutine = worker()
        task = asyncio.create_task(coroutine)
        assert task.get_coro() is coroutine
        await task

    lab.explore(program, cancel=cancel).assert_holds()


@pytest.mark.parametrize("cancel", [False, True])
def test_the_coroutine_of_a_task_of_trio_has_the_name_of_its_function(cancel: bool) -> None:
    async def worker(_number: int) -> None:
        coroutine: Any = trio.lowlevel.current_task().coro
        assert coroutine.__name__ == "worker"
        assert coroutine.__qualname__.endswith("<locals>.worker")

    async def program() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(worker, 1)
            nursery.start_soon(partial(worker, 2))

    lab.explore(program, backend="trio", cancel=cancel).assert_holds()
