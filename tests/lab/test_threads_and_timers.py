"""A thread whose wait ends at the moment of a timer may come before the timer, and after it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import anyio
import pytest
import trio

from mbufpools import lab

Program = Callable[[list[object]], Any]
"""A program that appends whether the thread was first."""

D = 0.02


async def of_call_later(seen: list[object]) -> None:
    loop = asyncio.get_running_loop()
    reply: asyncio.Future[bool] = loop.create_future()

    def answer(first: bool) -> None:
        if not reply.done():
            reply.set_result(first)

    def work() -> None:
        time.sleep(D)
        loop.call_soon_threadsafe(answer, True)

    thread = threading.Thread(target=work)
    thread.start()
    watch = loop.call_later(D, answer, False)
    seen.append(await reply)
    watch.cancel()
    await asyncio.to_thread(thread.join)


async def of_a_callback_of_a_job(seen: list[object]) -> None:
    """Two callbacks come between the end of the thread and what is seen of it."""
    loop, called = asyncio.get_running_loop(), list[int]()
    late: asyncio.Future[bool] = loop.create_future()
    job = loop.run_in_executor(None, time.sleep, D)
    job.add_done_callback(lambda _: called.append(1))
    loop.call_later(D, lambda: late.set_result(bool(called)))
    seen.append(await late)
    await job


async def of_a_scope_of_anyio(seen: list[object]) -> None:
    with anyio.move_on_after(D) as scope:
        await anyio.to_thread.run_sync(time.sleep, D, abandon_on_cancel=True)
    seen.append(not scope.cancelled_caught)


async def of_a_timeout_of_asyncio(seen: list[object]) -> None:
    try:
        async with asyncio.timeout(D):
            await asyncio.to_thread(time.sleep, D)
    except TimeoutError:
        seen.append(False)
    else:
        seen.append(True)


async def of_an_event_and_a_timeout(seen: list[object]) -> None:
    loop, event = asyncio.get_running_loop(), asyncio.Event()

    def work() -> None:
        time.sleep(D)
        loop.call_soon_threadsafe(event.set)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        async with asyncio.timeout(D):
            await event.wait()
    except TimeoutError:
        seen.append(False)
    else:
        seen.append(True)
    await asyncio.to_thread(thread.join)


async def of_a_sleep_that_blocks_the_loop(seen: list[object]) -> None:
    thread = threading.Thread(target=time.sleep, args=(D,))
    thread.start()
    time.sleep(D)
    seen.append(not thread.is_alive())
    await asyncio.to_thread(thread.join)


async def of_a_sleep_that_began_later(seen: list[object]) -> None:
    done: list[int] = []

    def work() -> None:
        time.sleep(D)
        done.append(1)

    job = asyncio.create_task(asyncio.to_thread(work))
    await asyncio.sleep(D / 4)
    time.sleep(D - D / 4)
    seen.append(bool(done))
    await job


async def of_a_join_with_a_timeout(seen: list[object]) -> None:
    thread = threading.Thread(target=time.sleep, args=(D,))
    thread.start()
    thread.join(D)
    seen.append(not thread.is_alive())
    await asyncio.to_thread(thread.join)


async def of_a_wait_for_an_event(seen: list[object]) -> None:
    over = threading.Event()

    def work() -> None:
        time.sleep(D)
        over.set()

    thread = threading.Thread(target=work)
    thread.start()
    seen.append(over.wait(D))
    await asyncio.to_thread(thread.join)


async def of_a_wait_in_the_thread(seen: list[object]) -> None:
    """It is the thread that has a timeout, and the timer sets what it waits for."""
    event = threading.Event()
    job = asyncio.create_task(asyncio.to_thread(event.wait, D))
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_later(D, event.set)
    seen.append(not await job)


async def of_a_deadline_of_trio(seen: list[object]) -> None:
    event, token = trio.Event(), trio.lowlevel.current_trio_token()

    def work() -> None:
        time.sleep(D)
        token.run_sync_soon(event.set)

    thread = threading.Thread(target=work)
    thread.start()
    with trio.move_on_after(D) as scope:
        await event.wait()
    seen.append(not scope.cancelled_caught)
    await trio.to_thread.run_sync(thread.join)


async def of_a_call_into_trio(seen: list[object]) -> None:
    """The call is made by a task of trio's, which is woken first."""
    event = trio.Event()

    def work() -> None:
        time.sleep(D)
        trio.from_thread.run_sync(event.set)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, work)
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(D) as scope:
            await event.wait()
        seen.append(not scope.cancelled_caught)


PROGRAMS: list[tuple[lab.BackendName, Program]] = [
    ("asyncio", of_call_later),
    ("asyncio", of_a_callback_of_a_job),
    ("asyncio", of_a_scope_of_anyio),
    ("trio", of_a_scope_of_anyio),
    ("asyncio", of_a_timeout_of_asyncio),
    ("asyncio", of_an_event_and_a_timeout),
    ("asyncio", of_a_sleep_that_blocks_the_loop),
    ("asyncio", of_a_sleep_that_began_later),
    ("asyncio", of_a_join_with_a_timeout),
    ("asyncio", of_a_wait_for_an_event),
    ("asyncio", of_a_wait_in_the_thread),
    ("trio", of_a_deadline_of_trio),
    ("trio", of_a_call_into_trio),
]


@pytest.mark.parametrize(
    ("backend", "program"),
    PROGRAMS,
    ids=[f"{program.__name__}-{backend}" for backend, program in PROGRAMS],
)
def test_a_thread_may_come_before_a_timer_of_its_moment_and_after_it(
    backend: lab.BackendName, program: Program
) -> None:
    outcomes: set[object] = set()

    async def run() -> None:
        seen: list[object] = []
        await program(seen)
        outcomes.update(seen)

    exploration = lab.explore(run, backend=backend, strategy="exhaustive")
    assert exploration.verdict == "proved"
    assert outcomes == {False, True}


@pytest.mark.parametrize("thread_first", [False, True])
@pytest.mark.parametrize(
    ("backend", "program", "deviations"),
    [
        ("asyncio", of_call_later, "runs before the timers of this moment"),
        ("asyncio", of_a_callback_of_a_job, "fire when nothing else can run"),
        ("trio", of_a_call_into_trio, "fire when nothing else can run"),
    ],
)
def test_a_token_of_a_thread_and_a_timer_replays_and_says_so(
    backend: lab.BackendName, program: Program, deviations: str, thread_first: bool
) -> None:
    async def run() -> None:
        seen: list[object] = []
        await program(seen)
        assert seen == [thread_first]

    failure = lab.explore(run, backend=backend).failures[0]
    assert (deviations in str(failure)) != thread_first
    (again,) = lab.replay(run, failure.token).failures
    assert again.token == failure.token


def test_timers_that_wait_for_a_thread_come_in_the_order_of_their_deadlines() -> None:
    """A timer that is set meanwhile and is due at once is no reason to overtake them."""
    orders: set[tuple[str, ...]] = set()

    async def program() -> None:
        loop, order = asyncio.get_running_loop(), list[str]()

        def work() -> None:
            time.sleep(D)
            loop.call_soon_threadsafe(loop.call_later, 0, order.append, "new")

        job = asyncio.create_task(asyncio.to_thread(work))
        await asyncio.sleep(0)
        for name in ("first", "second"):
            loop.call_later(D, order.append, name)
        await job
        await asyncio.sleep(D)
        orders.add(tuple(order))

    assert lab.explore(program).verdict == "proved"
    assert orders == {("first", "second", "new")}


def test_a_thread_that_ends_earlier_or_later_has_one_order() -> None:
    seen: set[tuple[float, bool]] = set()

    async def program() -> None:
        for seconds in (D / 2, 2 * D):
            thread = threading.Thread(target=time.sleep, args=(seconds,))
            thread.start()
            thread.join(D)
            seen.add((seconds, thread.is_alive()))
            await asyncio.to_thread(thread.join)

    assert lab.explore(program).verdict == "proved"
    assert seen == {(D / 2, False), (2 * D, True)}


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_thread_that_polls_for_long_is_a_livelock_after_the_steps_of_the_limit(
    backend: lab.BackendName,
) -> None:
    async def program(polls: int) -> None:
        stop: list[int] = []

        def poll() -> None:
            while not stop:
                time.sleep(0.01)

        async with anyio.create_task_group() as group:
            group.start_soon(anyio.to_thread.run_sync, poll)
            await anyio.sleep(polls * 0.01)
            stop.append(1)

    limited: dict[str, Any] = {"backend": backend, "strategy": "fifo", "step_limit": 200}
    assert lab.explore(lambda: program(100), **limited).verdict == "proved"
    (failure,) = lab.explore(lambda: program(10**9), **limited).failures
    assert failure.kind == "livelock"
    assert len(failure.schedule) < 500
