"""The lab's list of the private names of trio and anyio is complete and true."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from mbufpools import lab
from mbufpools.lab import _private_names
from mbufpools.lab._private_names import ANYIO, TRIO, either, missing

LAB = Path(lab.__file__).parent

OF_PYTHON = {
    # of asyncio's loops, handles, futures, tasks and groups of tasks
    "_parent_task",
    "_abort", "_args", "_asyncgens", "_asyncgen_finalizer_hook", "_asyncgen_firstiter_hook",
    "_base", "_callback", "_GatheringFuture", "_locked",
    "_cancelled", "_exception", "_fut_waiter", "_get_running_loop", "_log_destroy_pending",
    "_log_traceback", "_must_cancel", "_run", "_scheduled", "_set_running_loop", "_task",
    "_unregister_task", "_replace", "_when", "_LoopBoundMixin", "_get_loop",
    # of threads, executors and chance
    "_block", "_current_frames", "_daemonic", "_getframe", "_acquire_restore", "_is_owned",
    "_release_save", "_waiters", "_PySimpleQueue", "_RLock", "_at_fork_reinit", "_max_workers",
    "_shutdown", "_thread_name_prefix", "_threads", "_inst", "_last_timestamp", "_closed",
    "_threads_queues", "_urandom", "_WorkItem", "_startTime",
    "_RandomNameSequence", "_local", "_loop", "_set_called", "_enter_task", "_leave_task", "_node",
    # of warnings
    "_showwarning_orig", "_showwarnmsg", "_showwarnmsg_impl",
    # of pytest
    "_fixtureinfo", "_fixturemanager", "_genfunctions", "_fillfixtures", "_initrequest", "_request",
    "_setupstate", "_storage",
    # of Hypothesis
    "_hypothesis_internal_use_settings",
}  # fmt: skip
"""Private names of CPython and pytest, whose releases are tested by running the suite on them."""


def private_attributes(tree: ast.Module) -> Iterator[str]:
    """The private attributes that a module reads of objects other than `self`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr.startswith("_"):
            own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls", "super")
            if not own and not node.attr.startswith("__"):
                yield node.attr


def defined(tree: ast.Module) -> Iterator[str]:
    """The names that the lab itself defines: functions, classes, and attributes of `self`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            if isinstance(node.value, ast.Name) and node.value.id == "self":
                yield node.attr
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id
        elif isinstance(node, ast.ImportFrom):
            yield from (alias.name for alias in node.names)


def test_every_private_name_that_the_lab_uses_is_in_the_list() -> None:
    trees = [ast.parse(path.read_text("utf-8")) for path in LAB.glob("*.py")]
    used = {name for tree in trees for name in private_attributes(tree)}
    ours = {name for tree in trees for name in defined(tree)}
    listed = set()
    for table in (TRIO, ANYIO):
        for path, names in table.items():
            for name in (*path.split("."), *names):
                listed.update(name.split("|"))
    assert used - ours - OF_PYTHON <= listed


@pytest.mark.parametrize("table", [TRIO, ANYIO], ids=["trio", "anyio"])
def test_every_listed_name_exists_and_is_used(table: dict[str, tuple[str, ...]]) -> None:
    assert missing(table) == []
    sources = "".join(
        path.read_text("utf-8") for path in LAB.glob("*.py") if path.name != "_private_names.py"
    )
    assert [name for names in table.values() for name in names if name not in sources] == []


def test_a_renamed_name_is_found_by_both_of_its_spellings() -> None:
    table: dict[str, tuple[str, ...]] = {
        "trio._core._run.Nursery|Kindergarten": ("_closed|_shut",),
        "trio._core._run.Kindergarten|Nursery": ("_shut|_closed",),
    }
    assert missing(table) == []
    assert missing({"trio._core._run.Nursery": ("_shut|_locked",)}) == [
        "trio._core._run.Nursery._shut|_locked"
    ]
    assert either(trio, "sleep_for|sleep") is trio.sleep
    with pytest.raises(AttributeError, match="no attribute nap or doze"):
        either(trio, "nap|doze")


def test_a_release_that_lacks_a_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async def program() -> None:
        pass

    monkeypatch.setitem(_private_names.ANYIO, "anyio._backends._asyncio.TaskGroup", ("_gone",))
    with pytest.raises(lab.LabError, match=r"anyio [\d.]+: it has no .*TaskGroup\._gone; use a"):
        lab.explore(program)
    monkeypatch.undo()
    monkeypatch.setitem(_private_names.TRIO, "trio._threads", ("start_thread_later",))
    with pytest.raises(lab.LabError, match=rf"trio {trio.__version__}: .* \(0\.32 to 0\.35\)"):
        lab.explore(program, backend="trio")
