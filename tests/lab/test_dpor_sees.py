"""What two tasks can do to each other, `dpor` sees: no order that matters is left out.

Each program here fails in one order of its tasks, and not in the order of the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
from asyncio import Future
from collections.abc import Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
import trio
import trio.testing
from anyio.lowlevel import checkpoint
from anyio.streams.buffered import BufferedByteReceiveStream

from mbufpools import lab
from mbufpools.lab._dpor import Dpor
from mbufpools.lab._execute import execute
from mbufpools.lab._options import Options
from mbufpools.lab._outcome import Outcome
from mbufpools.lab._schedule import Schedule
from mbufpools.lab._strategies import Exhaustive
from tests.kit import generated_callbacks
from tests.kit.state import imported

Program = Callable[[], Awaitable[None]]
BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])


async def a_callback_wakes_two_tasks() -> None:
    """One function is the callback of two futures; a task that it wakes waits for one of them."""
    loop, x = asyncio.get_running_loop(), lab.Shared(0)
    begun, first, second, one, other = (loop.create_future() for _ in range(5))
    wakes = {first: one, second: other}

    def wake(future: asyncio.Future[None]) -> None:
        wakes[future].set_result(None)

    first.add_done_callback(wake)
    second.add_done_callback(wake)

    async def write() -> None:
        x.value = 1
        first.set_result(None)

    async def resolve() -> None:
        second.set_result(None)

    async def read() -> None:
        begun.set_result(None)
        await other
        assert x.value == 1

    reader = asyncio.create_task(read())
    await begun
    tasks = [asyncio.create_task(it()) for it in (write, resolve)]
    for task in (*tasks, reader):
        await task


async def a_callback_calls_for_a_callback() -> None:
    loop, x = asyncio.get_running_loop(), lab.Shared(0)
    seen: list[int] = []

    def write() -> None:
        x.value = 1

    async def call() -> None:
        loop.call_soon(loop.call_soon, write)

    async def read() -> None:
        seen.append(x.value)

    async def nothing() -> None:
        pass

    tasks = [asyncio.create_task(it()) for it in (call, read, nothing)]
    for task in tasks:
        await task
    for _ in range(5):
        await asyncio.sleep(0)
    assert seen == [0]


async def callbacks_make_tasks() -> None:
    """Which task is made first depends on the order, and a task keeps its name."""
    loop, x, made = asyncio.get_running_loop(), lab.Shared(0), list[asyncio.Task[None]]()

    async def add(digit: int) -> None:
        await asyncio.sleep(0)
        x.update(lambda it: it * 10 + digit)

    async def make(digit: int) -> None:
        loop.call_soon(lambda: made.append(asyncio.create_task(add(digit))))

    await asyncio.gather(make(1), make(2), make(3))
    while len(made) < 3:
        await asyncio.sleep(0)
    await asyncio.gather(*made)
    assert x.value != 231


async def resolve_twice(future: asyncio.Future[int]) -> None:
    async def resolve(value: int) -> None:
        if not future.done():
            future.set_result(value)

    await asyncio.gather(resolve(1), resolve(2))
    assert await future == 1


async def a_future_of_a_class_that_was_imported() -> None:
    await resolve_twice(Future())


async def a_future_of_the_loop() -> None:
    await resolve_twice(asyncio.get_running_loop().create_future())


async def a_callback_is_removed() -> None:
    future, called = asyncio.get_running_loop().create_future(), list[Any]()
    future.add_done_callback(called.append)

    async def remove() -> None:
        future.remove_done_callback(called.append)

    async def resolve() -> None:
        future.set_result(None)

    await asyncio.gather(remove(), resolve())
    await asyncio.sleep(0)
    assert not called


async def a_timeout_is_set_twice() -> None:
    async with asyncio.timeout(100) as timeout:

        async def reschedule(delay: float) -> None:
            timeout.reschedule(asyncio.get_running_loop().time() + delay)

        await asyncio.gather(reschedule(5), reschedule(50))
        await asyncio.sleep(10)


async def two_tasks_feed_a_reader() -> None:
    reader = asyncio.StreamReader()

    async def feed(data: bytes) -> None:
        reader.feed_data(data)

    await asyncio.gather(feed(b"a"), feed(b"b"))
    assert await reader.read(2) == b"ab"


@pytest.mark.parametrize(
    "program",
    [
        a_callback_wakes_two_tasks,
        a_callback_calls_for_a_callback,
        callbacks_make_tasks,
        a_future_of_a_class_that_was_imported,
        a_future_of_the_loop,
        a_callback_is_removed,
        a_timeout_is_set_twice,
        two_tasks_feed_a_reader,
    ],
)
@pytest.mark.parametrize("strategy", ["exhaustive", "dpor"])
def test_an_order_that_only_matters_on_asyncio_is_explored(
    program: Program, strategy: lab.StrategyName
) -> None:
    (failure,) = lab.explore(program, strategy=strategy).failures
    assert failure.found_at > 1
    (again,) = lab.replay(program, failure.token).failures
    assert again.report == failure.report


async def a_sender_is_closed() -> None:
    sender, receiver = anyio.create_memory_object_stream[int](1)

    async def close() -> None:
        sender.close()

    async def send() -> None:
        with pytest.raises(anyio.ClosedResourceError):
            sender.send_nowait(1)

    with receiver:
        async with anyio.create_task_group() as group:
            group.start_soon(close)
            group.start_soon(send)


async def a_receiver_is_closed() -> None:
    sender, receiver = anyio.create_memory_object_stream[int](1)
    sender.send_nowait(1)

    async def close() -> None:
        receiver.close()

    async def receive() -> None:
        with pytest.raises(anyio.ClosedResourceError):
            receiver.receive_nowait()

    with sender:
        async with anyio.create_task_group() as group:
            group.start_soon(close)
            group.start_soon(receive)


async def two_tasks_receive_from_one_buffer() -> None:
    sender, receiver = anyio.create_memory_object_stream[bytes](1)
    buffered = BufferedByteReceiveStream(receiver)
    sender.send_nowait(b"abc")
    assert await buffered.receive(1) == b"a"
    got: dict[int, bytes] = {}

    async def receive(number: int) -> None:
        got[number] = await buffered.receive(1)

    with sender, receiver:
        async with anyio.create_task_group() as group:
            group.start_soon(receive, 0)
            group.start_soon(receive, 1)
    assert got[0] == b"b"


@BACKENDS
@pytest.mark.parametrize("strategy", ["exhaustive", "dpor"])
@pytest.mark.parametrize(
    "program", [a_sender_is_closed, a_receiver_is_closed, two_tasks_receive_from_one_buffer]
)
def test_an_order_that_only_matters_to_a_stream_is_explored(
    program: Program, strategy: lab.StrategyName, backend: lab.BackendName
) -> None:
    (failure,) = lab.explore(program, strategy=strategy, backend=backend).failures
    assert failure.found_at > 1


@pytest.mark.parametrize("strategy", ["exhaustive", "dpor"])
def test_an_order_that_only_matters_to_a_channel_of_trio_is_explored(
    strategy: lab.StrategyName,
) -> None:
    async def program() -> None:
        sender, receiver = trio.open_memory_channel[int](1)

        async def close() -> None:
            sender.close()

        async def send() -> None:
            with pytest.raises(trio.ClosedResourceError):
                sender.send_nowait(1)

        with receiver:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(close)
                nursery.start_soon(send)

    assert lab.explore(program, strategy=strategy, backend="trio").failures


@pytest.mark.parametrize("strategy", ["exhaustive", "dpor"])
def test_an_order_that_only_matters_to_a_stream_of_trio_in_memory_is_explored(
    strategy: lab.StrategyName,
) -> None:
    async def program() -> None:
        sender, receiver = trio.testing.memory_stream_pair()
        await sender.send_all(b"xy")
        got: dict[int, bytes] = {}

        async def receive(number: int) -> None:
            with contextlib.suppress(trio.BusyResourceError):
                got[number] = bytes(await receiver.receive_some(1))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive, 1)
            nursery.start_soon(receive, 2)
        assert got.get(1) == b"x"

    assert lab.explore(program, strategy=strategy, backend="trio").failures


@BACKENDS
def test_what_streams_do_when_they_are_closed_is_seen_in_every_order(
    backend: lab.BackendName,
) -> None:
    """A stream has one name in all executions, though it is closed in some before it is used."""
    seen: set[str] = set()

    async def program() -> None:
        sender, receiver = anyio.create_memory_object_stream[int](2)
        other = sender.clone()
        logs: dict[int, list[str]] = {}

        async def use(number: int, stream: Any) -> None:
            log = logs[number] = []
            try:
                stream.send_nowait(number)
                log.append("sent")
            except Exception as error:  # noqa: BLE001 - which one is what is compared
                log.append(type(error).__name__)
            await checkpoint()
            log.append(repr(receiver.statistics()))
            stream.close()

        async with anyio.create_task_group() as group:
            group.start_soon(use, 0, sender)
            group.start_soon(use, 1, sender)
            group.start_soon(use, 2, other)
        receiver.close()
        seen.add(repr(sorted(logs.items())))

    options: dict[str, Any] = {"backend": backend, "max_executions": 20_000}
    assert lab.explore(program, max_preemptions=None, **options).complete
    every = set(seen)
    seen.clear()
    assert lab.explore(program, strategy="dpor", **options).complete
    assert seen == every


# --- what is made anew before each execution

STATE = """
import anyio
from mbufpools import lab

x = lab.Shared(0)
y = lab.Shared(0)
"""


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    with imported(STATE, tmp_path, monkeypatch) as module:
        yield module


@BACKENDS
@pytest.mark.parametrize("way", ["fresh", "reset"])
def test_dpor_knows_what_is_made_anew_before_each_execution(
    way: str, backend: lab.BackendName, state: Any
) -> None:
    """A value has one name in all executions, also if it is another object in each of them."""
    seen: set[Any] = set()

    async def program() -> None:
        log: list[tuple[int, int]] = []

        async def write(number: int) -> None:
            for shared in (state.x, state.y, state.x):
                log.append((number, shared.value))
                shared.value = number
                await checkpoint()

        async with anyio.create_task_group() as group:
            for number in (1, 2):
                group.start_soon(write, number)
        seen.add(tuple(sorted(log)))

    def reset() -> None:
        state.x, state.y = lab.Shared(0), lab.Shared(0)

    made_anew: dict[str, Any] = {"fresh": [state]} if way == "fresh" else {"reset": reset}
    options: dict[str, Any] = {"backend": backend, "max_executions": 20_000, **made_anew}
    assert lab.explore(program, max_preemptions=None, **options).complete
    every = set(seen)
    seen.clear()
    found = lab.explore(program, strategy="dpor", **options)
    assert found.complete
    assert seen == every
    assert len(every) > 5


# --- it refuses no correct program


async def a_task_of_the_group_ends_before_the_group_is_left() -> None:
    x, event = lab.Shared(0), anyio.Event()

    async def write() -> None:
        x.value = 1
        event.set()
        await checkpoint()
        x.value = 2

    async with anyio.create_task_group() as group:
        group.start_soon(write)
        await event.wait()


async def a_task_that_was_started_ends_before_the_group_is_left() -> None:
    x = lab.Shared(0)

    async def write(*, task_status: Any) -> None:
        await checkpoint()
        task_status.started()
        await checkpoint()
        x.value = 2

    async def read() -> None:
        assert x.value in (0, 2)

    async with anyio.create_task_group() as group:
        group.start_soon(read)
        await group.start(write)


@BACKENDS
@pytest.mark.parametrize(
    "program",
    [
        a_task_of_the_group_ends_before_the_group_is_left,
        a_task_that_was_started_ends_before_the_group_is_left,
    ],
)
def test_a_group_whose_tasks_are_over_is_left_in_every_order(
    program: Program, backend: lab.BackendName
) -> None:
    found = lab.explore(program, strategy="dpor", backend=backend)
    assert found.complete
    assert not found.failures


class Own(asyncio.Future[None]):
    """A class that was made before the exploration."""


def test_dpor_refuses_to_wait_for_a_future_that_it_cannot_see() -> None:
    async def program() -> None:
        future = Own(loop=asyncio.get_running_loop())
        asyncio.get_running_loop().call_soon(future.set_result, None)
        await future

    with pytest.raises(lab.Unsupported, match=r"waits for a .*\.Own, whose accesses dpor cannot"):
        lab.explore(program, strategy="dpor")
    lab.explore(program).assert_holds()


# --- generated programs


@pytest.mark.parametrize(
    "seeds",
    [
        range(4),
        pytest.param(range(4, 8), marks=pytest.mark.prove),
        *(pytest.param(range(at, at + 16), marks=pytest.mark.prove) for at in range(8, 120, 16)),
    ],
)
def test_dpor_sees_what_every_order_of_generated_callbacks_shows(seeds: range) -> None:
    compared = 0
    for seed in seeds:
        callbacks = generated_callbacks.generate(seed)
        results: list[set[str]] = []
        for strategy in (Exhaustive(None, prefixes=[("eager", ())]), Dpor()):
            seen: set[str] = set()

            def note(schedule: Schedule, outcome: Outcome, seen: set[str] = seen) -> None:
                if not outcome.stopped:
                    seen.add(callbacks.seen)  # noqa: B023 - it is called in this iteration

            options = Options(max_executions=1500, max_failures=None)
            execute(callbacks.program, strategy, options, on_execution=note)
            if not strategy.complete:
                break
            results.append(seen)
        else:
            compared += 1
            every, reduced = results
            assert reduced == every, (seed, callbacks.tasks)
    assert compared > len(seeds) / 2


def test_a_cancelled_group_cancels_its_tasks_in_every_order() -> None:
    """Which tasks a group of asyncio cancels depends on which of them are over."""
    seen: set[int] = set()

    async def program() -> None:
        x = lab.Shared(0)

        async def write(digit: int) -> None:
            x.update(lambda it: it * 10 + digit)

        async def group() -> None:
            with contextlib.suppress(asyncio.CancelledError):
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(write(1))
                    tasks.create_task(write(2))

        async def cancel() -> None:
            task.cancel()

        task = asyncio.create_task(group())
        await asyncio.wait([task, asyncio.create_task(cancel())])
        seen.add(x.value)

    assert lab.explore(program, strategy="dpor").complete
    assert seen == {0, 1, 2, 12, 21}


def test_a_gather_is_cancelled_in_every_order() -> None:
    seen: set[int] = set()

    async def program() -> None:
        x = lab.Shared(0)

        async def write(digit: int) -> None:
            x.update(lambda it: it * 10 + digit)

        async def gather() -> None:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.gather(write(1), write(2))

        async def cancel() -> None:
            await asyncio.shield(nothing())
            task.cancel()

        async def nothing() -> None:
            pass

        task = asyncio.create_task(gather())
        await asyncio.wait([task, asyncio.create_task(cancel())])
        seen.add(x.value)

    assert lab.explore(program, strategy="dpor").complete
    assert seen == {0, 1, 2, 12, 21}


# --- a wakeup and a cancellation


def _opened(open_: contextlib.ExitStack, both: Iterable[Any]) -> list[Any]:
    return [open_.enter_context(each) for each in both]


def an_event(open_: contextlib.ExitStack) -> tuple[Any, Any]:
    event = anyio.Event()
    return event.wait, event.set


def the_close_of_a_sender(open_: contextlib.ExitStack) -> tuple[Any, Any]:
    sender, receiver = _opened(open_, anyio.create_memory_object_stream[int](0))
    return receiver.receive, sender.close


def the_close_of_a_receiver(open_: contextlib.ExitStack) -> tuple[Any, Any]:
    sender, receiver = _opened(open_, anyio.create_memory_object_stream[int](0))

    async def send() -> None:
        await sender.send(1)

    return send, receiver.close


def a_receive(open_: contextlib.ExitStack) -> tuple[Any, Any]:
    sender, receiver = _opened(open_, anyio.create_memory_object_stream[int](0))

    async def send() -> None:
        await sender.send(1)

    def receive() -> None:
        with contextlib.suppress(anyio.WouldBlock):
            receiver.receive_nowait()

    return send, receive


def a_permit(open_: contextlib.ExitStack) -> tuple[Any, Any]:
    permits = anyio.Semaphore(0)
    return permits.acquire, permits.release


def a_channel_of_trio(open_: contextlib.ExitStack) -> tuple[Any, Any]:
    sender, receiver = _opened(open_, trio.open_memory_channel[int](0))
    return receiver.receive, sender.close


def a_parking_lot(open_: contextlib.ExitStack) -> tuple[Any, Any]:
    lot = trio.lowlevel.ParkingLot()
    return lot.park, lot.unpark_all


def a_task_that_is_rescheduled(open_: contextlib.ExitStack) -> tuple[Any, Any]:
    waiting = lab.Shared[Any](None)

    async def wait() -> None:
        def abort(_: Any) -> Any:
            waiting.value = None
            return trio.lowlevel.Abort.SUCCEEDED

        waiting.value = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(abort)

    def wake() -> None:
        if waiting.value is not None:
            trio.lowlevel.reschedule(waiting.value)
            waiting.value = None

    return wait, wake


def a_future(open_: contextlib.ExitStack) -> tuple[Any, Any]:
    future = asyncio.get_running_loop().create_future()

    async def wait() -> None:
        await future

    def wake() -> None:
        if not future.done():
            future.set_result(None)

    return wait, wake


@pytest.mark.parametrize(
    ("make", "backends"),
    [
        (an_event, "both"),
        (the_close_of_a_sender, "both"),
        (the_close_of_a_receiver, "both"),
        (a_receive, "both"),
        (a_permit, "both"),
        (a_channel_of_trio, "trio"),
        (a_parking_lot, "trio"),
        (a_task_that_is_rescheduled, "trio"),
        (a_future, "asyncio"),
    ],
)
@BACKENDS
def test_a_task_is_woken_before_and_after_its_cancellation(
    make: Callable[[contextlib.ExitStack], tuple[Any, Any]], backends: str, backend: lab.BackendName
) -> None:
    if backends not in ("both", backend):
        pytest.skip(f"this is of {backends}")
    seen: set[str] = set()

    async def program() -> None:
        opened = contextlib.ExitStack()
        wait, wake = make(opened)
        log: list[str] = []
        scope = anyio.CancelScope()

        async def waiter() -> None:
            with scope:
                await checkpoint()
                try:
                    await wait()
                    log.append("woken")
                except anyio.get_cancelled_exc_class():
                    log.append("cancelled")
                    raise
                except Exception as error:  # noqa: BLE001 - which one is what is compared
                    log.append(type(error).__name__)

        async def waker() -> None:
            wake()

        async def canceller() -> None:
            scope.cancel()

        with opened:
            async with anyio.create_task_group() as group:
                for function in (waker, canceller, waiter):
                    group.start_soon(function)
        seen.add(repr(log))

    options: dict[str, Any] = {"backend": backend, "max_executions": 20_000}
    assert lab.explore(program, max_preemptions=None, strategy="exhaustive", **options).complete
    every = set(seen)
    assert "['cancelled']" in every
    assert len(every) > 1
    seen.clear()
    assert lab.explore(program, strategy="dpor", **options).complete
    assert seen == every
