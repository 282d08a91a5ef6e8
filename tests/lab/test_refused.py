"""What the lab cannot schedule is refused on both backends, and is no stall."""

from __future__ import annotations

import _thread
import asyncio
import contextlib
import gc
import math
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import trio

from mbufpools import lab

both_backends = pytest.mark.parametrize("backend", ["asyncio", "trio"])


async def waits_for_a_socket() -> None:
    one, other = socket.socketpair()
    with one, other:
        one.setblocking(False)
        await anyio.wait_readable(one)


async def connects_beside_a_task_that_waits() -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(anyio.sleep_forever)
        group.start_soon(waits_for_a_socket)


@both_backends
@pytest.mark.parametrize("program", [waits_for_a_socket, connects_beside_a_task_that_waits])
def test_a_program_that_waits_for_a_socket_is_refused(
    program: Callable[[], Awaitable[None]], backend: lab.BackendName
) -> None:
    with pytest.raises(lab.Unsupported, match="the program does I/O"):
        lab.explore(program, backend=backend)


@both_backends
@pytest.mark.parametrize("strategy", ["mixed", "dpor"])
def test_a_thread_of_the_module_thread_is_refused_with_its_line(
    strategy: lab.StrategyName, backend: lab.BackendName
) -> None:
    async def program() -> None:
        _thread.start_new_thread(print, ())

    with pytest.raises(lab.Unsupported, match=r"test_refused\.py:\d+.* start it by threading"):
        lab.explore(program, backend=backend, strategy=strategy)
    began = threading.Event()
    _thread.start_new_thread(began.set, ())
    assert began.wait(5)


@both_backends
def test_a_replay_refuses_what_an_exploration_does(backend: lab.BackendName) -> None:
    with pytest.raises(lab.Unsupported, match="the program does I/O"):
        lab.replay(waits_for_a_socket, f"{backend}:")


@both_backends
def test_after_a_refusal_trio_and_asyncio_do_io_again(backend: lab.BackendName) -> None:
    with pytest.raises(lab.Unsupported):
        lab.explore(waits_for_a_socket, backend=backend)

    async def program() -> bytes:
        one, other = socket.socketpair()
        with one, other:
            one.setblocking(False)
            other.send(b"x")
            await anyio.wait_readable(one)
            return one.recv(1)

    assert anyio.run(program, backend=backend) == b"x"


# --- threads that are older than the exploration, and timers of the operating system


@pytest.fixture
def server() -> Iterator[Callable[[Callable[[], object]], None]]:
    """A thread that calls what it is given, 10 ms later."""
    calls: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()

    def serve() -> None:
        while (call := calls.get()) is not None:
            time.sleep(0.01)
            with contextlib.suppress(lab.LabError):
                call()

    thread = threading.Thread(target=serve)
    thread.start()
    yield calls.put
    calls.put(None)
    thread.join()


@pytest.mark.parametrize("seconds", [math.inf, 5])
def test_an_older_thread_that_answers_late_is_refused_on_asyncio(
    seconds: float, server: Callable[[Callable[[], object]], None]
) -> None:
    async def program() -> None:
        loop, answered = asyncio.get_running_loop(), asyncio.Event()
        server(lambda: loop.call_soon_threadsafe(answered.set))
        await asyncio.wait_for(answered.wait(), None if seconds == math.inf else seconds)

    with pytest.raises(lab.Unsupported, match="a thread that the program has not started calls"):
        lab.explore(program)
    with pytest.raises(lab.Unsupported, match="a thread that the program has not started calls"):
        lab.replay(program, "asyncio:")


@pytest.mark.parametrize("seconds", [math.inf, 5])
def test_an_older_thread_that_answers_late_is_refused_on_trio(
    seconds: float, server: Callable[[Callable[[], object]], None]
) -> None:
    async def program() -> None:
        answered = anyio.Event()
        token: Any = anyio.lowlevel.current_token()
        server(lambda: token.native_token.run_sync_soon(answered.set))
        with anyio.fail_after(seconds):
            await answered.wait()

    with pytest.raises(lab.Unsupported, match="a thread that the program has not started calls"):
        lab.explore(program, backend="trio")


@both_backends
def test_a_stall_stays_a_stall_beside_an_older_thread(
    backend: lab.BackendName, server: Callable[[Callable[[], object]], None]
) -> None:
    async def program() -> None:
        await anyio.Event().wait()

    (failure,) = lab.explore(program, backend=backend).failures
    assert failure.kind == "stall"


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="the system has no interval timer")
@both_backends
def test_a_program_that_waits_for_an_interval_timer_is_refused(backend: lab.BackendName) -> None:
    async def program() -> None:
        before = signal.signal(signal.SIGALRM, lambda *_: None)
        signal.setitimer(signal.ITIMER_REAL, 60)
        try:
            await anyio.Event().wait()
        finally:
            signal.signal(signal.SIGALRM, before)

    with timer_of_pytest(0), pytest.raises(lab.Unsupported, match="a timer of the operating sys"):
        lab.explore(program, backend=backend)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="the system has no interval timer")
@both_backends
def test_a_timer_that_is_older_than_the_exploration_is_not_the_programs(
    backend: lab.BackendName,
) -> None:
    async def program() -> None:
        await anyio.Event().wait()

    with timer_of_pytest(60):
        (failure,) = lab.explore(program, backend=backend).failures
    assert failure.kind == "stall"


@contextlib.contextmanager
def timer_of_pytest(seconds: float) -> Iterator[None]:
    """Set the interval timer, as pytest-timeout does, and at the end put back what was set."""
    handler = signal.signal(signal.SIGALRM, lambda *_: None)
    left, _ = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, left)
        signal.signal(signal.SIGALRM, handler)


USES_ASYNCIO: dict[str, str] = {
    "gather": "asyncio.gather(other(), other())",
    "sleep": "asyncio.sleep(1)",
    "a queue": "asyncio.Queue().get()",
    "an event": "asyncio.Event().wait()",
    "a task": "asyncio.create_task(other())",
    "the loop": "asyncio.get_running_loop().create_future()",
}


@pytest.mark.parametrize("with_a_loop", [False, True])
@pytest.mark.parametrize("use", USES_ASYNCIO)
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
def test_a_program_of_asyncio_is_refused_on_trio(use: str, with_a_loop: bool) -> None:
    """Also if the thread has a loop, which does not run: `asyncio.get_event_loop` returns it."""
    namespace: dict[str, Any] = {}
    source = f"""
import asyncio
async def other(): pass
async def program(): await {USES_ASYNCIO[use]}
"""
    exec(compile(source, "program.py", "exec"), namespace)
    loop = asyncio.new_event_loop() if with_a_loop else None
    asyncio.set_event_loop(loop)
    try:
        with pytest.raises(
            lab.Unsupported, match=r"uses asyncio, at program.py:4.* on trio; explore it on asyncio"
        ):
            lab.explore(namespace["program"], backend="trio")
    finally:
        asyncio.set_event_loop(None)
        if loop is not None:
            loop.close()
    namespace.clear()
    gc.collect()  # coroutines that were never awaited


def test_a_lock_of_asyncio_is_refused_on_trio() -> None:
    async def program() -> None:
        lock = asyncio.Lock()

        async def user() -> None:
            async with lock:
                await anyio.lowlevel.checkpoint()

        async with anyio.create_task_group() as group:
            group.start_soon(user)
            group.start_soon(user)

    with pytest.raises(lab.Unsupported, match=r"uses asyncio, at .*test_refused.py:"):
        lab.explore(program, backend="trio")


def test_an_error_of_asyncio_that_needs_no_loop_is_a_failure_on_trio() -> None:
    async def program() -> None:
        asyncio.Queue[int]().get_nowait()

    (failure,) = lab.explore(program, backend="trio").failures
    assert isinstance(failure.error, asyncio.QueueEmpty)


# A run of trio inside of the program


def runs_trio() -> None:
    trio.run(trio.lowlevel.checkpoint)


def runs_trio_by_anyio() -> None:
    anyio.run(anyio.lowlevel.checkpoint, backend="trio")


RUNS_OF_TRIO = pytest.mark.parametrize("run", [runs_trio, runs_trio_by_anyio])


@RUNS_OF_TRIO
def test_a_program_on_asyncio_that_runs_trio_in_a_step_is_refused(run: Callable[[], None]) -> None:
    async def program() -> None:
        await asyncio.sleep(0)
        with contextlib.suppress(RuntimeError):  # of anyio, which sees that asyncio runs
            run()

    if run is runs_trio:
        with pytest.raises(lab.Unsupported, match=r"runs trio itself, at .*test_refused.py:"):
            lab.explore(program)
    else:
        assert lab.explore(program).verdict == "proved"


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@RUNS_OF_TRIO
def test_a_program_that_runs_trio_in_a_thread_is_refused(
    backend: lab.BackendName, run: Callable[[], None]
) -> None:
    async def program() -> None:
        await anyio.to_thread.run_sync(run)

    with pytest.raises(lab.Unsupported, match=r"runs trio itself, at .*test_refused.py:"):
        lab.explore(program, backend=backend)
    runs_trio()


def test_of_a_program_that_loads_trio_as_it_runs_it_the_second_execution_is_refused() -> None:
    source = """
from mbufpools import lab

async def program():
    import trio
    trio.run(trio.sleep, 0)

try:
    print(*lab.explore(program).failures)
except lab.LabError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, check=True, timeout=60
    )
    assert "the program runs trio itself, at " in done.stdout, done.stdout


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_an_exploration_inside_of_a_run_of_trio_is_refused_and_the_run_goes_on(
    backend: lab.BackendName,
) -> None:
    async def outer() -> str:
        with pytest.raises(lab.LabError, match="cannot be called inside a run of trio; call it"):
            lab.explore(anyio.lowlevel.checkpoint, backend=backend)
        await trio.lowlevel.checkpoint()
        return "went on"

    assert trio.run(outer) == "went on"
