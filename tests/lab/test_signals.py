"""Programs that handle signals, such as a server that shuts down at SIGTERM."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextvars import ContextVar
from typing import Any

import anyio
import pytest

from mbufpools import lab

BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])
NAME = ContextVar("NAME", default="")


@pytest.fixture(autouse=True)
def the_process_handles_signals_as_before() -> Iterator[None]:
    signums = [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGUSR1]
    before = [signal.getsignal(it) for it in signums]
    yield
    assert [signal.getsignal(it) for it in signums] == before


def test_a_server_stops_at_the_signal_that_it_sends_itself() -> None:
    order: set[tuple[str, ...]] = set()

    async def program() -> None:
        loop, stop, done = asyncio.get_running_loop(), asyncio.Event(), list[str]()

        def handle(name: str) -> None:
            done.append(name)
            stop.set()

        loop.add_signal_handler(signal.SIGTERM, handle, "signal")

        async def job() -> None:
            await asyncio.sleep(0)
            done.append("job")

        async def operator() -> None:
            signal.raise_signal(signal.SIGTERM)
            assert done in ([], ["job"]), "the callback comes later"

        async with asyncio.TaskGroup() as group:
            group.create_task(job())
            group.create_task(operator())
            await stop.wait()
        assert loop.remove_signal_handler(signal.SIGTERM) is True
        assert loop.remove_signal_handler(signal.SIGTERM) is False
        order.add(tuple(done))

    exploration = lab.explore(program)
    assert exploration.verdict == "proved"
    assert "signals from outside" in str(exploration)
    assert order == {("signal", "job"), ("job", "signal")}


@BACKENDS
def test_a_receiver_of_signals_of_anyio_gets_them(backend: lab.BackendName) -> None:
    async def program() -> None:
        with anyio.open_signal_receiver(signal.SIGUSR1) as signals:
            signal.raise_signal(signal.SIGUSR1)
            async for signum in signals:
                assert signum == signal.SIGUSR1
                return

    assert lab.explore(program, backend=backend).verdict == "proved"


@BACKENDS
def test_no_signal_comes_from_outside(backend: lab.BackendName) -> None:
    async def program() -> None:
        with anyio.open_signal_receiver(signal.SIGTERM) as signals:
            async for _ in signals:
                pass

    (failure,) = lab.explore(program, backend=backend).failures
    assert failure.kind == "stall"


def test_a_handler_that_the_program_leaves_is_gone_after_the_execution() -> None:
    async def program() -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, print)
        loop.add_signal_handler(signal.SIGHUP, print, "another in its place")
        loop.add_signal_handler(signal.SIGINT, print, "never called, as Ctrl-C is the lab's")

    assert lab.explore(program).verdict == "proved"


def test_the_callback_of_a_signal_has_the_context_of_the_call_that_set_it() -> None:
    async def program() -> None:
        loop, seen = asyncio.get_running_loop(), list[str]()
        NAME.set("of the call")
        loop.add_signal_handler(signal.SIGTERM, lambda: seen.append(NAME.get()))
        NAME.set("later")
        signal.raise_signal(signal.SIGTERM)
        await asyncio.sleep(1)
        assert seen == ["of the call"]

    assert lab.explore(program).verdict == "proved"


async def take_turns(log: list[str]) -> None:
    for turn in range(4):
        await asyncio.sleep(0)
        log.append(f"turn {turn}")


async def is_seen_in_the_next_iteration(log: list[str]) -> None:
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, log.append, "signal")
    loop.call_later(0, log.append, "timer")
    signal.raise_signal(signal.SIGTERM)
    loop.call_soon(log.append, "callback")
    await take_turns(log)


async def is_removed_before_the_loop_looks(log: list[str]) -> None:
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, log.append, "signal")
    signal.raise_signal(signal.SIGTERM)
    await asyncio.sleep(0)
    loop.remove_signal_handler(signal.SIGTERM)
    await take_turns(log)


async def is_removed_after_the_loop_has_looked(log: list[str]) -> None:
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, log.append, "signal")
    signal.raise_signal(signal.SIGTERM)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    loop.remove_signal_handler(signal.SIGTERM)
    await take_turns(log)


async def is_handled_by_the_one_that_came_later(log: list[str]) -> None:
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, log.append, "first")
    signal.raise_signal(signal.SIGTERM)
    loop.add_signal_handler(signal.SIGTERM, log.append, "second")
    await take_turns(log)


async def two_come_in_one_step(log: list[str]) -> None:
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, log.append, "usr1")
    loop.add_signal_handler(signal.SIGUSR2, log.append, "usr2")
    signal.raise_signal(signal.SIGUSR1)
    signal.raise_signal(signal.SIGUSR2)
    await take_turns(log)


@pytest.mark.parametrize(
    "program",
    [
        is_seen_in_the_next_iteration,
        is_removed_before_the_loop_looks,
        is_removed_after_the_loop_has_looked,
        is_handled_by_the_one_that_came_later,
        two_come_in_one_step,
    ],
)
def test_a_signal_is_handled_when_and_by_whom_asyncio_handles_it(
    program: Callable[[list[str]], Coroutine[Any, Any, None]],
) -> None:
    in_reality: list[str] = []
    asyncio.run(program(in_reality))
    orders: set[tuple[str, ...]] = set()

    async def explored() -> None:
        log: list[str] = []
        await program(log)
        orders.add(tuple(log))

    assert lab.explore(explored).verdict == "proved"
    assert orders == {tuple(in_reality)}


def test_dpor_sees_that_a_handler_may_be_removed_before_its_signal_is_seen() -> None:
    called: set[bool] = set()

    async def program() -> None:
        loop, log = asyncio.get_running_loop(), list[str]()
        loop.add_signal_handler(signal.SIGUSR1, log.append, "signal")

        async def send() -> None:
            signal.raise_signal(signal.SIGUSR1)

        async def remove() -> None:
            loop.remove_signal_handler(signal.SIGUSR1)
            signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # by default it ends the process

        async with asyncio.TaskGroup() as group:
            group.create_task(send())
            group.create_task(remove())
        called.add(bool(log))

    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # what it does without a handler
    try:
        assert lab.explore(program, strategy="dpor").verdict == "proved"
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert called == {False, True}


def test_a_handler_that_is_removed_leaves_the_default_one_and_the_process_its_own() -> None:
    async def program() -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR1, print)
        assert loop.remove_signal_handler(signal.SIGUSR1)
        assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL

    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        assert lab.explore(program).verdict == "proved"
        assert signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN
        asyncio.run(program())
    finally:
        signal.signal(signal.SIGUSR1, before)


async def coroutine() -> None:
    """What cannot handle a signal."""


@pytest.mark.parametrize(
    ("signum", "callback", "error"),
    [
        (signal.SIGTERM, coroutine, TypeError),
        ("SIGTERM", print, TypeError),
        (10_000, print, ValueError),
        (signal.SIGKILL, print, RuntimeError),
    ],
)
def test_a_wrong_handler_is_refused_as_asyncio_refuses_it(
    signum: Any, callback: Any, error: type[Exception]
) -> None:
    async def program() -> None:
        with pytest.raises(error):
            asyncio.get_running_loop().add_signal_handler(signum, callback)

    asyncio.run(program())
    assert lab.explore(program).verdict == "proved"


def test_outside_of_the_main_thread_a_handler_is_refused_as_asyncio_refuses_it() -> None:
    async def program() -> None:
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, print)

    verdicts: list[str] = []
    thread = threading.Thread(target=lambda: verdicts.append(lab.explore(program).verdict))
    thread.start()
    thread.join()
    assert verdicts == ["proved"]
