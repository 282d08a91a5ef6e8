"""The lab knows all shared state, which partial-order reduction needs to be sound."""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import anyio
import anyio.streams.memory
import pytest
import trio

import mbufpools
from mbufpools import _lab_hooks, lab
from mbufpools.lab._declare import declaring, recorder
from mbufpools.lab._hooks import states
from mbufpools.lab._library_state import STATE as PRIMITIVES

CORE = Path(mbufpools.__file__).parent
NOT_SHARED = {
    "MappedBlock": {"_mapping", "view"},  # set when its page has left the lists
    "Observer": {"hook"},  # taken off when it fails
    # Set by the task that parks; a task that grants sets what the request holds first.
    "Request": {"_sleeper", "_waits"},
    "_TrioSleeper": {"_task", "_woken"},  # as what the request holds
    "OwnerLoop": {
        *("_clock", "_closer", "_current", "_loop", "_run_soon", "_start", "_token", "waits")
    },  # with `_state`
    "TaskQueue": {"_runner_id"},  # set with `_running`
    "Window": {"_anchor", "_exports", "_memory", "_stale", "_view", "item"},  # of one lease
    "CachedSupply": {"watched"},  # declared where it is made, by `Supply`
    "Supply": {"nput"},  # declared where it is made, by `PageLists`
    "Item": {"page"},  # set when the token has died
    "Reserving": {"_coroutine"},  # of one task
}
"""Attributes that are set outside of ``__init__`` and need no declaration."""


def attributes_set_later() -> Iterator[tuple[str, str, str]]:
    """Module, class and attribute, for each that a method of the core sets after ``__init__``."""
    for path in sorted(CORE.glob("_*.py")):
        for cls in ast.parse(path.read_text("utf-8")).body:
            if not isinstance(cls, ast.ClassDef):
                continue
            for function in cls.body:
                if isinstance(
                    function, ast.FunctionDef | ast.AsyncFunctionDef
                ) and function.name not in ("__init__", "_wire"):
                    for node in ast.walk(function):
                        if (
                            isinstance(node, ast.Attribute)
                            and not isinstance(node.ctx, ast.Load)
                            and isinstance(node.value, ast.Name)
                            and node.value.id == "self"
                        ):
                            yield f"mbufpools.{path.stem}", cls.name, node.attr


def test_all_state_of_the_core_that_changes_is_declared() -> None:
    undeclared = {
        f"{cls}.{attribute}, of {module}"
        for module, cls, attribute in attributes_set_later()
        if attribute not in _lab_hooks.STATE.get(module, {}).get(cls, {})
        and attribute not in NOT_SHARED.get(cls, set())
    }
    assert not undeclared, (
        "declare each of these in src/mbufpools/_lab_hooks.py, or in NOT_SHARED of this file if no "
        f"other task can see it change: {'; '.join(sorted(undeclared))}"
    )


def test_each_declared_attribute_exists() -> None:
    """A name that no installed class has declares nothing, so the reduction would be unsound."""
    declared = [*PRIMITIVES.items(), *(item for state in states() for item in state.items())]
    assert "mbufpools._budget" in dict(declared), "the hooks of this library are found"
    for module, classes in declared:
        importlib.import_module(module)
        for name, attributes in classes.items():
            cls = getattr(sys.modules[module], name)
            source = Path(sys.modules[module].__file__ or "").read_text("utf-8")
            for attribute in attributes:
                if attribute == "_is_shutdown" and sys.version_info < (3, 13):
                    continue
                assert attribute in source, f"{module}.{name}.{attribute}"
                assert cls is not None


def test_declarations_are_removed_after_an_exploration() -> None:
    before = dict(vars(anyio.Condition)), dict(vars(mbufpools.Budget)), dict(vars(trio.Event))
    with declaring():
        assert dict(vars(mbufpools.Budget)) != before[1]
    after = dict(vars(anyio.Condition)), dict(vars(mbufpools.Budget)), dict(vars(trio.Event))
    assert after == before


def test_an_object_has_the_same_name_in_every_execution() -> None:
    class Thing:
        pass

    elder = Thing()
    names = []
    recorder.restart()
    for _ in range(2):
        recorder.restart()
        first, second = Thing(), Thing()
        names.append([recorder.made(first), recorder.made(second), recorder.name(elder)])
    assert names[0] == names[1]
    assert len(set(names[0])) == 3


def test_a_shared_value_is_a_plain_value_outside_of_an_exploration() -> None:
    shared = lab.Shared(1)
    shared.value += 1
    assert shared.update(lambda value: value * 10) == 20
    assert shared.value == 20
    assert repr(shared) == "Shared(20)"


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_plain_attribute_fools_dpor_and_a_shared_value_does_not(backend: lab.BackendName) -> None:
    """docs/lab.md says so. The stock order, which dpor executes too, does not fail."""

    class Plain:
        value = 0

    async def program(shared: Plain | lab.Shared[int]) -> None:
        async def add(checkpoints: int) -> None:
            for _ in range(checkpoints):
                await anyio.lowlevel.checkpoint()
            value = shared.value
            await anyio.lowlevel.checkpoint()
            shared.value = value + 1

        async with anyio.create_task_group() as group:
            group.start_soon(add, 0)
            group.start_soon(add, 1)
        assert shared.value == 2

    async def undeclared() -> None:
        await program(Plain())

    async def declared() -> None:
        await program(lab.Shared(0))

    fooled = lab.explore(undeclared, strategy="dpor", backend=backend)
    assert fooled.complete
    assert not fooled.failures
    assert fooled.executions == 2, "the stock order, and one of dpor's own"
    for exploration in (
        lab.explore(undeclared, backend=backend),
        lab.explore(declared, strategy="dpor", backend=backend),
    ):
        assert [failure.kind for failure in exploration.failures] == ["exception"]
