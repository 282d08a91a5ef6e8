"""The clock moves although tasks can run for programs that poll, and not for those that work."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import anyio
import anyio.to_thread
import pytest
import trio
from anyio.lowlevel import checkpoint

from mbufpools import lab
from mbufpools.lab._clocks import LOOKS
from mbufpools.lab._dpor import SLICES
from mbufpools.lab._options import SLICE_STEPS, STEP_LIMIT
from mbufpools.lab._stillness import ROUNDS, STILL
from mbufpools.lab._trio_backend import BATCHES

Program = Callable[[], Awaitable[None]]
BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])


# Programs that work


async def many_items_pass_through_a_stream() -> None:
    send, receive = anyio.create_memory_object_stream[int](1)

    async def produce() -> None:
        async with send:
            for number in range(STILL // 2):
                await send.send(number)

    with anyio.fail_after(60):
        async with anyio.create_task_group() as group, receive:
            group.start_soon(produce)
            async for _ in receive:
                pass


async def many_tasks_give_way_at_once() -> None:
    async def work() -> None:
        for _ in range(6):
            await checkpoint()

    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            for _ in range(STILL // 5):
                group.start_soon(work)


async def many_tasks_are_made() -> None:
    with anyio.fail_after(60):
        for _ in range(STILL // 2):
            async with anyio.create_task_group() as group:
                group.start_soon(checkpoint)


async def a_thread_takes_a_lock_again_and_again() -> None:
    lock = threading.Lock()

    def work() -> None:
        for _ in range(STILL + 100):
            with lock:
                pass

    with anyio.fail_after(60):
        await anyio.to_thread.run_sync(work)


@BACKENDS
@pytest.mark.parametrize(
    "program",
    [
        many_items_pass_through_a_stream,
        many_tasks_give_way_at_once,
        many_tasks_are_made,
        a_thread_takes_a_lock_again_and_again,
    ],
)
def test_no_timeout_fires_while_a_program_works(program: Program, backend: lab.BackendName) -> None:
    found = lab.explore(program, backend=backend, strategy="fifo")
    assert not found.failures
    assert not any("although something could run" in it for it in found.remarks)


def test_no_timeout_fires_while_items_pass_through_a_queue_of_asyncio() -> None:
    async def program() -> None:
        queue: asyncio.Queue[int] = asyncio.Queue(1)

        async def produce() -> None:
            for number in range(STILL // 2 + 100):
                await queue.put(number)

        async def work() -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(produce())
                for _ in range(STILL // 2 + 100):
                    await queue.get()

        await asyncio.wait_for(work(), 3600)

    assert not lab.explore(program, strategy="fifo").failures


# Programs that poll


async def one_task_asks() -> None:
    while True:
        await checkpoint()


async def several_tasks_ask() -> None:
    async with anyio.create_task_group() as group:
        for _ in range(STILL // ROUNDS + 10):
            group.start_soon(one_task_asks)


async def it_asks_under_a_lock() -> None:
    lock = anyio.Lock()
    while True:
        async with lock:
            await checkpoint()


async def two_tasks_wake_each_other() -> None:
    limits = [anyio.Semaphore(1), anyio.Semaphore(0)]

    async def take_turns(mine: int) -> None:
        while True:
            await limits[mine].acquire()
            limits[not mine].release()

    async with anyio.create_task_group() as group:
        group.start_soon(take_turns, 0)
        group.start_soon(take_turns, 1)


@BACKENDS
@pytest.mark.parametrize(
    "ask", [one_task_asks, several_tasks_ask, it_asks_under_a_lock, two_tasks_wake_each_other]
)
def test_a_timer_ends_a_program_that_asks_again_and_again(
    ask: Program, backend: lab.BackendName
) -> None:
    async def program() -> None:
        with anyio.move_on_after(30) as scope:
            await ask()
        assert scope.cancelled_caught

    found = lab.explore(program, backend=backend, strategy="fifo")
    assert not found.failures
    (remark,) = [it for it in found.remarks if "although something could run" in it]
    by_limit = ask is two_tasks_wake_each_other
    assert ("steps at one moment, half of step_limit" in remark) is by_limit
    assert ("tasks only gave way to each other for 1," in remark) is not by_limit


@BACKENDS
def test_a_service_that_ticks_does_not_keep_the_clock_of_tasks_that_wake_each_other(
    backend: lab.BackendName,
) -> None:
    """After the first time a thousand steps are enough, or the limit would be reached."""

    async def program() -> None:
        async def tick() -> None:
            while True:
                await anyio.sleep(10)

        with anyio.move_on_after(30) as scope:
            async with anyio.create_task_group() as group:
                group.start_soon(tick)
                await two_tasks_wake_each_other()
        assert scope.cancelled_caught

    assert not lab.explore(program, backend=backend, strategy="fifo").failures


# Callbacks that ask


def call_soon() -> Callable[[Callable[[], object]], object]:
    """Return what has the event loop call a function, of either backend."""
    try:
        return asyncio.get_running_loop().call_soon
    except RuntimeError:
        return trio.lowlevel.current_trio_token().run_sync_soon


def ask_until(done: Callable[[], bool]) -> None:
    """Have a callback call for itself until something is done."""
    if not done():
        call_soon()(lambda: ask_until(done))


async def a_callback_asks_until_a_task_has_slept() -> None:
    done = list[int]()
    ask_until(lambda: bool(done))
    await anyio.sleep(0.1)
    done.append(1)


async def a_callback_asks_until_a_task_has_taken_some_steps() -> None:
    done = list[int]()
    ask_until(lambda: bool(done))
    for _ in range(3):
        await checkpoint()
    done.append(1)


async def a_callback_asks_for_the_time() -> None:
    soon, event = call_soon(), anyio.Event()
    in_asyncio = asyncio._get_running_loop()
    now = trio.current_time if in_asyncio is None else in_asyncio.time
    begin = now()

    def ask() -> None:
        if now() - begin > 0.1:
            event.set()
        else:
            soon(ask)

    ask()
    await event.wait()


async def a_callback_asks_while_tasks_sleep_in_turn() -> None:
    done = list[int]()

    async def sleeps() -> None:
        for _ in range(5):
            await anyio.sleep(0.02)
        done.append(1)

    ask_until(lambda: len(done) == 2)
    async with anyio.create_task_group() as group:
        group.start_soon(sleeps)
        group.start_soon(sleeps)


CALLBACKS_ASK = pytest.mark.parametrize(
    "program",
    [
        a_callback_asks_until_a_task_has_slept,
        a_callback_asks_until_a_task_has_taken_some_steps,
        a_callback_asks_for_the_time,
        a_callback_asks_while_tasks_sleep_in_turn,
    ],
)


@BACKENDS
@CALLBACKS_ASK
@pytest.mark.parametrize("strategy", ["mixed", "fifo", "random"])
def test_a_program_ends_whose_callback_asks_again_and_again(
    program: Program, backend: lab.BackendName, strategy: lab.StrategyName
) -> None:
    anyio.run(program, backend=backend)
    found = lab.explore(program, backend=backend, strategy=strategy, max_executions=3)
    assert not found.failures


async def a_task_asks_in_its_clean_up() -> None:
    loop, done = asyncio.get_running_loop(), list[int]()

    async def asks() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            loop.call_later(0.05, done.append, 1)
            while not done:
                await asyncio.sleep(0)

    background.append(asyncio.create_task(asks()))
    await asyncio.sleep(0)


async def a_task_asks_for_the_time_in_its_clean_up() -> None:
    loop = asyncio.get_running_loop()

    async def asks() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            end = loop.time() + 0.05
            while loop.time() < end:
                await asyncio.sleep(0)

    background.append(asyncio.create_task(asks()))
    await asyncio.sleep(0)


async def a_callback_asks_in_a_clean_up() -> None:
    loop = asyncio.get_running_loop()

    async def waits() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            future, end = loop.create_future(), loop.time() + 0.05

            def ask() -> None:
                if loop.time() < end:
                    loop.call_soon(ask)
                else:
                    future.set_result(None)

            ask()
            await future

    background.append(asyncio.create_task(waits()))
    await asyncio.sleep(0)


async def a_generator_asks_for_the_time_as_it_is_closed() -> None:
    async def generate() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            with anyio.CancelScope(shield=True):
                end = anyio.current_time() + 0.05
                while anyio.current_time() < end:
                    await checkpoint()

    generator = generate()
    background.append(generator)
    await anext(generator)


async def a_system_task_of_trio_asks() -> None:
    done = list[int]()
    event = trio.Event()

    async def asks() -> None:
        while not done:
            await checkpoint()
        event.set()

    trio.lowlevel.spawn_system_task(asks)
    await trio.sleep(0.01)
    done.append(1)
    await event.wait()


background: list[object] = []
"""What a program leaves for its end."""


@pytest.mark.parametrize("strategy", ["mixed", "fifo", "dpor"])
@pytest.mark.parametrize(
    ("program", "backend"),
    [
        (a_task_asks_in_its_clean_up, "asyncio"),
        (a_task_asks_for_the_time_in_its_clean_up, "asyncio"),
        (a_callback_asks_in_a_clean_up, "asyncio"),
        (a_generator_asks_for_the_time_as_it_is_closed, "asyncio"),
        (a_generator_asks_for_the_time_as_it_is_closed, "trio"),
    ],
)
def test_a_program_ends_that_asks_again_and_again_in_its_clean_up(
    program: Program, backend: lab.BackendName, strategy: lab.StrategyName
) -> None:
    anyio.run(program, backend=backend)
    found = lab.explore(program, backend=backend, strategy=strategy, reset=background.clear)
    assert found.verdict == "proved"
    background.clear()


def test_a_system_task_of_trio_that_asks_does_not_stop_the_clock() -> None:
    trio.run(a_system_task_of_trio_asks)
    assert lab.explore(a_system_task_of_trio_asks, backend="trio").verdict == "proved"


@BACKENDS
def test_no_timeout_fires_while_callbacks_work(backend: lab.BackendName) -> None:
    async def program() -> None:
        soon, event = call_soon(), anyio.Event()
        left = STILL - 100

        def work() -> None:
            nonlocal left
            left -= 1
            if left:
                soon(work)
            else:
                event.set()

        work()
        with anyio.fail_after(1):
            await event.wait()

    assert lab.explore(program, backend=backend).verdict == "proved"


async def a_system_task_of_trio_ticks() -> None:
    event = trio.Event()

    async def ticks() -> None:
        for _ in range(STILL + 100):
            await trio.sleep(0.01)
        event.set()

    trio.lowlevel.spawn_system_task(ticks)
    with trio.fail_after(60):
        await event.wait()


@pytest.mark.parametrize("strategy", ["mixed", "fifo", "dpor"])
def test_no_timeout_fires_while_a_system_task_of_trio_ticks(strategy: lab.StrategyName) -> None:
    lab.explore(a_system_task_of_trio_ticks, backend="trio", strategy=strategy).assert_holds()


def test_no_timeout_fires_while_many_tasks_give_way_in_their_clean_up() -> None:
    async def program() -> None:
        left, over = STILL // 5, asyncio.Event()

        async def gives_way() -> None:
            nonlocal left
            try:
                await asyncio.sleep(100)
            finally:
                for _ in range(8):
                    await asyncio.sleep(0)
                left -= 1
                if not left:
                    over.set()

        async def waits() -> None:
            try:
                await asyncio.sleep(100)
            finally:
                await asyncio.wait_for(over.wait(), 10)

        background.extend(asyncio.create_task(gives_way()) for _ in range(left))
        background.append(asyncio.create_task(waits()))
        await asyncio.sleep(0)

    lab.explore(program, strategy="fifo", reset=background.clear).assert_holds()
    background.clear()


@BACKENDS
def test_a_callback_that_asks_for_ever_is_a_livelock(backend: lab.BackendName) -> None:
    async def program() -> None:
        ask_until(lambda: False)
        await anyio.sleep_forever()

    (failure,) = lab.explore(program, backend=backend).failures
    assert failure.kind == "livelock"
    assert "no task" in str(failure)
    assert "the clock moved although something could run: callbacks, or tasks" in str(failure)


@BACKENDS
def test_a_report_says_that_the_clock_moved_although_something_could_run(
    backend: lab.BackendName,
) -> None:
    async def program() -> None:
        with anyio.fail_after(30):
            await one_task_asks()

    (failure,) = lab.explore(program, backend=backend).failures
    assert "TimeoutError" in failure.report
    assert (
        f"the clock moved although something could run: tasks only gave way to each other for "
        f"{STILL:,} steps, as in a program that asks again and again"
    ) in failure.report
    assert "the program asks again and again, so the clock moves on" in failure.report


@BACKENDS
def test_a_work_of_more_steps_is_told_what_to_do(backend: lab.BackendName) -> None:
    async def program() -> None:
        with anyio.fail_after(30):
            for _ in range(STILL // 2):
                async with anyio.create_task_group() as group:
                    group.start_soon(checkpoint)

    (failure,) = lab.explore(program, backend=backend, step_limit=2 * STILL).failures
    assert (
        "if it works in them, and does not wait for the clock, raise step_limit" in failure.report
    )
    found = lab.explore(program, backend=backend, strategy="fifo", step_limit=4 * STILL)
    assert not found.failures


@pytest.mark.parametrize("ask", [one_task_asks, two_tasks_wake_each_other])
def test_dpor_refuses_a_program_that_asks_while_a_timer_is_set(ask: Program) -> None:
    async def program() -> None:
        with anyio.move_on_after(30):
            await ask()

    with pytest.raises(lab.Unsupported, match="which dpor cannot follow"):
        lab.explore(program, strategy="dpor")


def test_the_page_of_the_lab_has_these_numbers() -> None:
    page = (Path(__file__).parents[2] / "docs" / "lab.md").read_text("utf-8")
    text = " ".join(page.split())
    for told in (
        f"After {STILL:,} steps in a row that only gave way, and {ROUNDS} for each task",
        f"after half of `step_limit` ({STEP_LIMIT // 2:,}) at one moment, and then after {STILL:,}",
        f"1 ms for each look after {LOOKS:,}",
        f"works and gives way**, {STILL:,} times in a row",
        f"calls for itself (`call_soon`, `run_sync_soon`) {STILL:,} times",
        f"a step of the program comes after {BATCHES} batches of them at the latest",
        f"under `dpor` not for more than {SLICES * SLICE_STEPS} steps",
    ):
        assert told in text
