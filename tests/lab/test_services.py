"""A library's own service task is a choice point, however the library starts it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
import trio
from anyio.lowlevel import checkpoint

from mbufpools import lab
from tests.kit.hooked_library import install

both_backends = pytest.mark.parametrize("backend", ["asyncio", "trio"])
Program = Callable[[], Awaitable[None]]
SERVICE = "desks ticker"


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Any:
    with install(monkeypatch) as library:
        yield library


def start_outside(service: Callable[[], Any], backend: lab.BackendName) -> None:
    """Start a service in no group of the program, as a library does that owns its runner."""
    if backend == "trio":
        trio.lowlevel.spawn_system_task(service, name=SERVICE)
    else:
        tasks.add(asyncio.get_running_loop().create_task(service(), name=SERVICE))


tasks: set[asyncio.Task[Any]] = set()
"""asyncio keeps only weak references."""


def waker(outside: bool, backend: lab.BackendName, seen: set[tuple[str, ...]]) -> Program:
    """A program whose service writes into a log, between the writes of another task."""

    async def program() -> None:
        log: list[str] = []
        asked, answered = anyio.Event(), anyio.Event()

        async def service() -> None:
            await asked.wait()
            log.append("service 1")
            await checkpoint()
            log.append("service 2")
            answered.set()

        async def other() -> None:
            asked.set()
            await checkpoint()
            log.append("other 1")
            await checkpoint()
            log.append("other 2")

        async with anyio.create_task_group() as group:
            if outside:
                start_outside(service, backend)
            else:
                group.start_soon(service, name=SERVICE)
            group.start_soon(other)
            await answered.wait()
        tasks.clear()
        seen.add(tuple(log))

    return program


@both_backends
def test_a_service_outside_of_all_groups_runs_in_the_same_orders_as_one_inside(
    backend: lab.BackendName, library: SimpleNamespace
) -> None:
    orders: list[set[tuple[str, ...]]] = [set(), set()]
    for outside in (False, True):
        program = waker(outside, backend, orders[outside])
        found = lab.explore(program, backend=backend, max_preemptions=None)
        assert found.complete, str(found)
        assert not found.failures, str(found.failures[0])
    assert orders[0] == orders[1]
    assert len(orders[0]) == 6, "all orders of two pairs"


@both_backends
@pytest.mark.parametrize("strategy", ["exhaustive", "random"])
def test_a_wakeup_that_a_service_loses_is_found(
    strategy: lab.StrategyName, backend: lab.BackendName, library: SimpleNamespace
) -> None:
    """The service looks whether anything waits, and forgets the request that came in between."""

    async def program() -> None:
        waiting: list[anyio.Event] = []
        ask = anyio.Event()

        async def service() -> None:
            await ask.wait()
            found = list(waiting)
            await checkpoint()
            for event in found:
                event.set()
            waiting.clear()

        async def getter() -> None:
            ask.set()
            event = anyio.Event()
            waiting.append(event)
            await event.wait()

        start_outside(service, backend)
        async with anyio.create_task_group() as group:
            group.start_soon(getter)
            group.start_soon(getter)
        tasks.clear()

    found = lab.explore(program, backend=backend, strategy=strategy)
    assert [failure.kind for failure in found.failures] == ["stall"]


@both_backends
def test_a_service_that_outlives_the_program_is_a_leak(
    backend: lab.BackendName, library: SimpleNamespace
) -> None:
    ended: list[str] = []

    async def program() -> None:
        async def service() -> None:
            try:
                await anyio.sleep_forever()
            finally:
                ended.append("ended")

        start_outside(service, backend)
        await checkpoint()

    found = lab.explore(program, backend=backend)
    assert [failure.kind for failure in found.failures] == ["leak"]
    assert f"the service {SERVICE!r} has outlived the program" in found.failures[0].report
    assert ended
    tasks.clear()


@both_backends
def test_a_service_that_ends_with_the_program_is_no_leak(
    backend: lab.BackendName, library: SimpleNamespace
) -> None:
    async def program() -> None:
        stop, stopped = anyio.Event(), anyio.Event()

        async def service() -> None:
            await stop.wait()
            stopped.set()

        start_outside(service, backend)
        await checkpoint()
        stop.set()
        await stopped.wait()
        tasks.clear()

    lab.explore(program, backend=backend).assert_holds()


@both_backends
def test_a_service_outside_of_all_groups_is_never_cancelled_by_the_lab(
    backend: lab.BackendName, library: SimpleNamespace
) -> None:
    cancelled: list[str] = []

    async def program() -> None:
        stop, stopped = anyio.Event(), anyio.Event()

        async def service() -> None:
            try:
                await stop.wait()
            except anyio.get_cancelled_exc_class():
                cancelled.append("the service")
                raise
            stopped.set()

        start_outside(service, backend)
        try:
            await checkpoint()
            await checkpoint()
        finally:
            stop.set()
            with anyio.CancelScope(shield=True):
                await stopped.wait()
        tasks.clear()

    lab.explore(program, backend=backend, cancel="scope").assert_holds()
    assert not cancelled


def test_a_system_task_of_trio_that_no_library_owns_is_no_choice() -> None:
    async def program() -> None:
        async def system() -> None:
            for _ in range(3):
                await trio.lowlevel.checkpoint()

        trio.lowlevel.spawn_system_task(system)
        await trio.lowlevel.checkpoint()

    found = lab.explore(program, backend="trio")
    assert found.complete
    assert found.remarks, "there was never a choice"
