"""The lab's clocks: exact, from 0.0, without real waiting, and never hanging."""

from __future__ import annotations

import asyncio
import math
import socket
import sys
import threading
import time
from collections.abc import Iterable

import anyio
import anyio.to_thread
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mbufpools import lab
from mbufpools.lab import Stalled, VirtualTimeLoop

on_both = pytest.mark.parametrize("backend", ["asyncio", "trio"])


async def wait_for_ever() -> None:
    await anyio.Event().wait()


async def wake_times(deadlines: list[float]) -> list[tuple[float, float]]:
    """Sleep until every deadline at once; (deadline, the time on waking), in order of waking."""
    woken: list[tuple[float, float]] = []

    async def sleeper(deadline: float) -> None:
        with anyio.CancelScope(deadline=deadline):
            await wait_for_ever()
        woken.append((deadline, anyio.current_time()))

    async with anyio.create_task_group() as group:
        for deadline in deadlines:
            group.start_soon(sleeper, deadline)
    return woken


# --- the clock


@on_both
@given(st.lists(st.floats(0, 1e6), max_size=8))
@example([1.0, math.nextafter(1.0, 2), 1.0 + 1e-10])
@example([0.1 + 0.2, 0.3, 1e-12, 5e-324, 7200.1])
def test_a_timer_fires_at_exactly_its_deadline(
    backend: lab.BackendName, deadlines: list[float]
) -> None:
    woken = lab.run(wake_times, deadlines, backend=backend, patience=0)
    assert [now for _, now in woken] == [deadline for deadline, _ in woken] == sorted(deadlines)


@on_both
def test_every_run_starts_at_zero(backend: lab.BackendName) -> None:
    async def program() -> float:
        started = anyio.current_time()
        await anyio.sleep(1)
        return started

    name, options = lab.backend_options(backend)
    for _ in range(2):  # with one clock, too
        assert anyio.run(program, backend=name, backend_options=options) == 0.0
        assert lab.run(program, backend=backend) == 0.0


@on_both
def test_ten_hours_take_no_real_time(backend: lab.BackendName) -> None:
    async def program() -> float:
        for _ in range(10):
            await anyio.sleep(3600)
        return anyio.current_time()

    before = time.monotonic()
    assert lab.run(program, backend=backend) == 36_000.0
    assert time.monotonic() - before < 30


@on_both
def test_the_clock_stands_still_while_a_task_can_run(backend: lab.BackendName) -> None:
    async def program() -> tuple[float, bool]:
        with anyio.move_on_after(1e-9) as scope:
            for _ in range(1000):
                await anyio.lowlevel.checkpoint()
        return anyio.current_time(), scope.cancelled_caught

    assert lab.run(program, backend=backend) == (0.0, False)


@on_both
def test_a_deadline_moved_to_now_passes_at_once(backend: lab.BackendName) -> None:
    async def program() -> float:
        await anyio.sleep(5)
        with anyio.CancelScope() as scope:
            scope.deadline = 5.0
            await wait_for_ever()
        return anyio.current_time()

    assert lab.run(program, backend=backend, patience=0) == 5.0


def test_two_runs_on_asyncio_are_identical() -> None:
    deadlines = [float(n % 7) for n in range(100)]

    async def program() -> list[tuple[int, float]]:
        steps: list[tuple[int, float]] = []

        async def task(number: int) -> None:
            await anyio.sleep(deadlines[number])
            steps.append((number, anyio.current_time()))
            await anyio.lowlevel.checkpoint()
            steps.append((number, anyio.current_time()))

        async with anyio.create_task_group() as group:
            for number in range(100):
                group.start_soon(task, number)
        return steps

    assert lab.run(program) == lab.run(program)


def test_plain_asyncio_runs_in_virtual_time() -> None:
    async def program() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(60):
                await asyncio.Event().wait()
        return asyncio.get_running_loop().time()

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        assert runner.run(program()) == 60.0


async def test_this_suite_runs_in_virtual_time() -> None:
    assert anyio.current_time() == 0.0
    await anyio.sleep(86_400)
    assert anyio.current_time() == 86_400.0


# --- real I/O and threads


@on_both
def test_io_that_is_ready_comes_before_a_timer(backend: lab.BackendName) -> None:
    async def program() -> float:
        left, right = socket.socketpair()
        with left, right, anyio.fail_after(1):
            left.setblocking(False)
            right.setblocking(False)
            for _ in range(3):
                left.send(b"x")
                await anyio.wait_readable(right)
                right.recv(1)
        return anyio.current_time()

    assert lab.run(program, backend=backend) == 0.0


@on_both
def test_a_thread_is_waited_for_when_nothing_is_scheduled(backend: lab.BackendName) -> None:
    async def program() -> int:
        return await anyio.to_thread.run_sync(threading.get_ident)

    assert lab.run(program, backend=backend) != threading.get_ident()


def test_the_default_executor_shuts_down_without_a_virtual_timeout() -> None:
    """asyncio's limit is 300 seconds, which in virtual time would pass before a thread can end."""
    may_end = threading.Event()

    async def program() -> None:
        loop = asyncio.get_running_loop()
        loop.run_in_executor(None, may_end.wait)
        loop.call_soon(lambda: threading.Timer(0.02, may_end.set).start())

    lab.run(program)


# --- a stall


@on_both
def test_a_stall_names_each_waiting_task_and_where_it_waits(backend: lab.BackendName) -> None:
    async def program() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(wait_for_ever, name="a reader of nothing")
            await anyio.sleep(2.5)

    with pytest.raises(Stalled, match=r"nothing is scheduled, after 2\.5 s") as caught:
        lab.run(program, backend=backend, patience=0)
    assert caught.value.seconds == 2.5
    reader, main = caught.value.waiting  # in alphabetical order
    assert reader.startswith("a reader of nothing waits at ")
    assert reader.endswith(", in wait_for_ever")
    assert "program waits at " in main
    assert f"{__file__}:" in main
    assert main in str(caught.value)


@on_both
def test_a_timer_at_infinity_counts_as_none(backend: lab.BackendName) -> None:
    with pytest.raises(Stalled):
        lab.run(anyio.sleep_forever, backend=backend, patience=0)


@on_both
@pytest.mark.parametrize("shield", [False, True])
def test_clean_up_runs_when_a_program_stalls(backend: lab.BackendName, shield: bool) -> None:
    done: list[float] = []

    async def task() -> None:
        with anyio.CancelScope(shield=shield):
            try:
                await wait_for_ever()
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(10)
                done.append(anyio.current_time())

    async def program() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(task)
            group.start_soon(task)

    with pytest.raises(Stalled) as caught:
        lab.run(program, backend=backend, patience=0)
    assert done == [10.0, 10.0]
    assert caught.value.seconds == 0.0


@on_both
def test_a_clean_up_that_stalls_too_does_not_hang(backend: lab.BackendName) -> None:
    async def stubborn() -> None:
        try:
            await wait_for_ever()
        finally:
            with anyio.CancelScope(shield=True):
                await wait_for_ever()

    async def program() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(stubborn)
            await stubborn()

    with pytest.raises(Stalled):
        lab.run(program, backend=backend, patience=0)


@on_both
def test_a_shielded_task_cannot_stall_a_cancellation_for_ever(backend: lab.BackendName) -> None:
    async def shielded() -> None:
        with anyio.CancelScope(shield=True):
            await wait_for_ever()

    async def program() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(shielded)
            await anyio.sleep(1)
            group.cancel_scope.cancel()

    with pytest.raises(Stalled, match="after 1 s"):
        lab.run(program, backend=backend, patience=0)


@on_both
def test_a_stall_is_raised_even_if_the_program_swallows_it(backend: lab.BackendName) -> None:
    async def program() -> str:
        try:
            await wait_for_ever()
        except BaseException:  # noqa: BLE001  # what a bad program does
            return "fine"
        return "woken"

    with pytest.raises(Stalled):
        lab.run(program, backend=backend, patience=0)


@on_both
def test_a_thread_that_outlasts_the_patience_is_a_stall(
    backend: lab.BackendName, monkeypatch: pytest.MonkeyPatch
) -> None:
    """asyncio leaves the thread behind; trio cannot, and waits for it."""
    stalled = threading.Event()
    tell = Stalled.__init__

    def tell_the_thread(self: Stalled, seconds: float, waiting: Iterable[str]) -> None:
        tell(self, seconds, waiting)
        stalled.set()

    async def program() -> None:
        await anyio.to_thread.run_sync(stalled.wait)

    monkeypatch.setattr(Stalled, "__init__", tell_the_thread)
    with pytest.raises(Stalled):
        lab.run(program, backend=backend, patience=0)


# --- run and backend_options


@on_both
def test_run_passes_arguments_and_the_result(backend: lab.BackendName) -> None:
    async def program(first: int, second: str) -> str:
        return first * second

    assert lab.run(program, 3, "ab", backend=backend) == "ababab"


@on_both
def test_run_raises_what_the_program_raised(backend: lab.BackendName) -> None:
    async def program() -> None:
        raise KeyError("key")

    with pytest.raises(KeyError, match="key"):
        lab.run(program, backend=backend)


def test_an_unknown_backend_names_the_right_ones() -> None:
    with pytest.raises(ValueError, match="'curio': expected 'asyncio' or 'trio'"):
        lab.run(wait_for_ever, backend="curio")


def test_without_trio_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trio", None)
    with pytest.raises(ImportError, match=r"pip install 'mbufpools\[trio\]'"):
        lab.run(wait_for_ever, backend="trio")


def test_a_release_of_trio_without_a_private_name_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr("trio._core._run.Runner.waiting_for_idle")
    with pytest.raises(
        RuntimeError, match=r"the lab cannot control trio .*Runner\.waiting_for_idle"
    ):
        lab.backend_options("trio")
