"""A library tells the lab about its shared state, its services, its waits and their holders."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import anyio
import anyio.lowlevel
import pytest

from mbufpools import lab
from tests.kit.hooked_library import forget, install

both_backends = pytest.mark.parametrize("backend", ["asyncio", "trio"])


def two_increments(library: SimpleNamespace) -> Callable[[], Awaitable[None]]:
    """In the stock order the second comes too late for the race."""

    async def program() -> None:
        counter = library.Counter()

        async def increment_later() -> None:
            await anyio.lowlevel.checkpoint()
            await counter.increment()

        async with anyio.create_task_group() as group:
            group.start_soon(counter.increment)
            group.start_soon(increment_later)
        assert counter.value == 2

    return program


@both_backends
def test_dpor_finds_a_race_on_state_that_the_hooks_declare(
    backend: lab.BackendName, monkeypatch: pytest.MonkeyPatch
) -> None:
    with install(monkeypatch) as library:
        found = lab.explore(two_increments(library), strategy="dpor", backend=backend)
    assert [failure.kind for failure in found.failures] == ["exception"]


@both_backends
def test_without_hooks_the_state_is_unknown_to_dpor(
    backend: lab.BackendName, monkeypatch: pytest.MonkeyPatch
) -> None:
    with install(monkeypatch, hooked=False) as library:
        found = lab.explore(two_increments(library), strategy="dpor", backend=backend)
    assert not found.failures
    assert found.executions == 2, "the stock order, and one of dpor's own"


@both_backends
def test_a_stall_names_what_the_library_says_and_who_holds_it(
    backend: lab.BackendName, monkeypatch: pytest.MonkeyPatch
) -> None:
    with install(monkeypatch) as library:

        async def program() -> None:
            desk = library.Desk()
            await desk.borrow("the first reader")
            await desk.borrow("the second reader")

        (failure,) = lab.explore(program, backend=backend).failures
    assert failure.kind == "stall"
    assert "program, for the book of a desk\n" in failure.report
    assert "\n  desk:\n    the first reader has the book; 0 waits\n" in failure.report


@both_backends
def test_a_program_whose_service_only_ticks_has_stalled(
    backend: lab.BackendName, monkeypatch: pytest.MonkeyPatch
) -> None:
    with install(monkeypatch) as library:

        async def program() -> None:
            async with anyio.create_task_group() as group:
                group.start_soon(library.tick, name="desks ticker")
                await anyio.Event().wait()

        found = lab.explore(program, backend=backend)
        assert [failure.kind for failure in found.failures] == ["stall"]
        stalled = pytest.RaisesGroup(lab.Stalled, allow_unwrapped=True, flatten_subgroups=True)
        with stalled:  # trio's nurseries wrap it
            lab.run(program, backend=backend, patience=0)


@both_backends
def test_a_service_is_never_cancelled(
    backend: lab.BackendName, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[str] = []

    with install(monkeypatch):

        async def service() -> None:
            try:
                await anyio.lowlevel.checkpoint()
                await anyio.lowlevel.checkpoint()
            except BaseException:
                ended.append("cancelled")
                raise
            ended.append("well")

        async def program() -> None:
            async with anyio.create_task_group() as group:
                group.start_soon(service, name="desks ticker")

        found = lab.explore(program, backend=backend, cancel="scope")
    assert found.complete
    # Only the main task is cancelled; its group then cancels what is in it.
    assert "well" in ended


EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"


@pytest.fixture
def reading(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The programs of docs/lab.md that use the library of its example."""
    monkeypatch.syspath_prepend(EXAMPLES)
    yield importlib.import_module("reading")
    for name in ("reading", "shelves", "shelves._lab_hooks"):
        sys.modules.pop(name, None)
    forget("shelves")


@both_backends
def test_the_lab_hears_the_hooks_of_the_example_in_the_document(
    backend: lab.BackendName, reading: ModuleType
) -> None:
    (failure,) = lab.explore(reading.reads_twice, backend=backend).failures
    assert failure.kind == "stall", "its service only ticks"
    assert "in reads_twice, for the book of a shelf\n" in failure.report
    assert "\n  shelf:\n    Ada has the book\n" in failure.report
    found = lab.explore(reading.two_readers, strategy="dpor", backend=backend)
    found.assert_holds()
    assert found.complete
    assert found.executions > 1, "dpor knows that the readers share the shelf"


def test_the_document_shows_the_example_as_it_is() -> None:
    document = (EXAMPLES.parent / "lab.md").read_text(encoding="utf-8")
    shown = re.findall(r"```python\n# (shelves/\w+\.py)\n(.*?)```", document, re.DOTALL)
    assert len(shown) == 2
    for name, source in shown:
        assert (EXAMPLES / name).read_text(encoding="utf-8").endswith("\n\n" + source)
