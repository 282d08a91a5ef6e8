"""The lab knows all shared state, which partial-order reduction needs to be sound."""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Collection
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
from mbufpools.lab.hooks import State
from tests.kit import core_state

NOT_SHARED = {
    "The constructor of the set sets it, before a task can know the set.": {
        "Budget": {"min_limit", "on_credit", "on_resize"},
        "Observer": {"on_removal"},
        "SetState": {"in_task", "repair"},
        "Supply": {"hand_over", "on_return", "owner", "rank"},
        "TaskQueue": {"_observer", "on_failure"},
    },
    "The constructor of the set fills it, and nothing changes it later.": {
        "BufferPools": {"_by_size", "_item_sizes", "_pools"},
        "CachedSupply": {"cpus"},
        "Reclaimer": {"supplies"},
        "Waiters": {"_pool_queues", "_queue_of"},
    },
    "Only an attribute of another class is set later, which has the same name.": {
        "Pool": {"_queue"},
        "PoolSpec": {"max_idle_items", "max_items", "min_items"},
        "Reservation": {"_nbytes"},
        "Window": {"_nbytes"},
    },
    "The function that makes the lease sets it.": {"Buffer": {"_nbytes", "_pool"}},
    "It belongs to one lease, which is declared.": {
        "Window": {"_ended", "_exports", "_memory", "_stale", "_view", "item"}
    },
    "It belongs to one task.": {"Reserving": {"_coroutine", "_held", "_nbytes"}},
    "The task that makes the request sets it, with the queue, which is declared. The task that "
    "grants sets what the request holds first, which is declared, too.": {
        "Request": {"_sleeper", "parked", "passes_before", "task", "where"},
        "_TrioSleeper": {"_task", "_woken"},
    },
    "It links the requests of a queue, which is declared; no step comes to it but by the queue.": {
        "Request": {"after", "before"},
        "RequestQueue": {"after", "before", "count"},
    },
    "It is set and read by steps that have looked at the queue of the claim, which is declared.": {
        "Request": {"pass_limit"}
    },
    "It is set with `_state`, which is declared.": {
        "OwnerLoop": {
            *("_closer", "_current", "_loop", "_run_soon", "_start", "_token", "clock", "waits")
        },
    },
    "It is set with `_running`, which is declared.": {"TaskQueue": {"_runner_id"}},
    "The page has left the lists, which are declared.": {"MappedBlock": {"_mapping"}},
    "It saves to make the same again.": {"Page": {"shared"}},
    "The token has died.": {"Item": {"page"}},
    "It marks where the token is: in a cache, or lost. These lists are declared.": {
        "Item": {"index"}
    },
    "It is the same object as `OwnerLoop.lost` and `SetState.supplies_with_idle`, and changes in "
    "steps that look at those.": {"PageLists": {"lost", "with_idle"}},
    "It is a list on which no page ever is.": {"PageLists": {"none"}},
    "The hook is taken off when it fails.": {"Observer": {"hook"}},
    "Only reports tell of it, in debug mode.": {
        "LeaseTracker": {"_noted", "damages"},
        "Page": {"last_holders"},
        "_Noted": {"holder", "task"},
    },
}
"""Attributes that change after their object was made, or hold what may change, and need no
declaration."""
LISTED_ELSEWHERE = {"Page.on"}
"""It holds one of the lists of `PageLists`, each of which is declared as `CHANGED` there."""


def rows(state: State = _lab_hooks.STATE) -> dict[core_state.Attribute, bool]:
    """The declared attributes, each with how it holds state."""
    return {
        core_state.Attribute(module, cls, name): how
        for module, classes in state.items()
        for cls, names in classes.items()
        for name, how in names.items()
    }


def exempt(attribute: core_state.Attribute) -> bool:
    return any(attribute.name in classes.get(attribute.cls, ()) for classes in NOT_SHARED.values())


SET_LATER, CHANGED_IN_PLACE = core_state.set_later(), core_state.changed_in_place()
CHANGING = SET_LATER | CHANGED_IN_PLACE


def undeclared(declared: Collection[core_state.Attribute]) -> list[str]:
    return sorted(str(it) for it in CHANGING if it not in declared and not exempt(it))


def test_all_state_of_the_core_that_changes_is_declared() -> None:
    missing = undeclared(rows())
    assert not missing, (
        "declare each of these in src/mbufpools/_lab_hooks.py, or say in NOT_SHARED of this file "
        f"why no other task can see it change: {'; '.join(missing)}"
    )


def test_without_any_of_its_rows_the_state_of_the_core_is_not_declared() -> None:
    for row in rows():
        assert undeclared(rows().keys() - {row}) == [str(row)], "its row could be forgotten"


def test_what_is_changed_in_place_is_declared_so() -> None:
    """Else to read a list, and append to it, would be no write."""
    declared = rows()
    values = {
        f"{it.cls}.{it.name}" for it in CHANGED_IN_PLACE & declared.keys() if not declared[it]
    }
    assert values == LISTED_ELSEWHERE


def test_no_attribute_is_both_declared_and_said_to_need_no_declaration() -> None:
    assert not [str(it) for it in rows() if exempt(it)]
    listed = {
        f"{cls}.{name}"
        for classes in NOT_SHARED.values()
        for cls, names in classes.items()
        for name in names
    }
    changing = {f"{it.cls}.{it.name}" for it in CHANGING}
    assert listed <= changing, "remove from NOT_SHARED what does not change any more"


def test_an_attribute_is_seen_whatever_expression_sets_it() -> None:
    source = """
class Pool:
    def __init__(self):
        self.made = 0
        other.wired = self
        def later():
            self.by_callback = 1

    def get(self):
        queue.supply.nwait += 1
        self.first, (self.second, *self.rest) = found
        del self.gone
        for self.each in found: pass
        with opened() as self.opened: pass
        self.annotated: int = 1
        self.read.written = self.only_read

def function(pool):
    pool.by_function = 1
"""
    found = [*core_state.stores(ast.parse(source))]
    assert [it.attribute for it in found if it.constructs] == ["made"]
    assert {it.attribute for it in found if it.cls == "Pool" and not it.constructs} == {
        *("by_callback", "first", "second", "rest", "gone", "each", "opened", "annotated")
    }
    assert {it.attribute for it in found if it.cls is None} == {
        *("wired", "nwait", "written", "by_function")
    }


def test_the_core_sets_no_attribute_by_a_computed_name() -> None:
    """No such assignment can be compared with the declarations."""
    assert core_state.computed_names() == []
    assert core_state.computed_names([ast.parse("object.__setattr__(pool, name, 1)")])


@pytest.mark.parametrize("question", ["queued", "runs", "__repr__"])
def test_dpor_asks_a_task_of_a_queue_before_and_after_it_is_added_and_run(question: str) -> None:
    ends: dict[lab.StrategyName, set[object]] = {"exhaustive": set(), "dpor": set()}
    for strategy, seen in ends.items():

        async def program(seen: set[object] = seen) -> None:
            async with mbufpools.TaskQueue("of the test") as queue:
                task = mbufpools.Task(lambda: None, name="asked")

                async def add() -> None:
                    queue.add(task)

                async def ask() -> None:
                    answer = getattr(task, question)
                    seen.add(answer() if callable(answer) else answer)

                async with anyio.create_task_group() as group:
                    group.start_soon(add)
                    group.start_soon(ask)

        assert lab.explore(program, strategy=strategy, max_preemptions=None).complete
    assert ends["dpor"] == ends["exhaustive"]
    assert len(ends["dpor"]) == 2


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
