"""Every private name of trio and of anyio that the lab uses, in one list each.

A release that lacks one of them cannot be controlled. `require` says so before an exploration
begins, instead of failing in the middle of it. When a new release of trio or anyio comes out, this
is the file to begin with: it lists the names, and `TESTED` says which releases were tested. The
shared state of their primitives, which `dpor` follows, is in `_library_state`: a name that is
missing there declares nothing.

A name that a release has renamed is written ``"old|new"``, and so is the last part of a class's
path; ``either(owner, "old|new")`` reads it.
"""

from __future__ import annotations

import importlib
from importlib.metadata import version
from typing import Any

from ._outcome import LabError

__all__ = ["TESTED", "either", "missing", "require"]

TESTED = {"trio": "0.32 to 0.35", "anyio": "4.14 to 4.16"}
"""The releases that the lab was tested with."""

TRIO: dict[str, tuple[str, ...]] = {
    "trio._core._run": (
        "GLOBAL_RUN_CONTEXT",
        "TheIOManager",
        "_ALLOW_DETERMINISTIC_SCHEDULING",
        "_r",
        "setup_runner",
    ),
    "trio._core._run.CancelStatus": ("_children", "_parent", "_scope", "_tasks"),
    "trio._core._run.Deadlines": ("_heap",),
    "trio._core._run.Nursery": (
        "_cancel_status",
        "_children",
        "_closed",
        "_nested_child_finished",
        "_pending_excs",
        "_pending_starts",
    ),
    "trio._core._run.Runner": (
        "_locals",
        "asyncgens",
        "deadlines",
        "entry_queue",
        "init_task",
        "instruments",
        "main_task",
        "runq",
        "spawn_impl",
        "system_context",
        "system_nursery",
        "tasks",
        "trio_token",
        "wait_all_tasks_blocked",
        "waiting_for_idle",
    ),
    "trio._core._run._TaskStatus": ("started",),
    "trio._core._run.TheIOManager": ("wait_readable", "wait_writable"),
    "trio._util": ("coroutine_or_error", "name_asyncgen"),
    "trio._core._asyncgens": ("ASYNCGEN_LOGGER",),
    "trio._core._asyncgens.AsyncGenerators": ("_finalize_one", "alive"),
    "trio._core._instrumentation.Instruments": ("add_instrument", "call"),
    "trio._core._thread_cache": ("IDLE_TIMEOUT", "THREAD_CACHE"),
    "trio._threads": ("_send_message_to_trio",),
    "trio.CancelScope": ("_cancel", "_cancel_status", "_close", "_registered_deadline"),
    "trio.lowlevel.Task": (
        "_abort_func",
        "_attempt_abort",
        "_cancel_status",
        "_eventual_parent_nursery",
        "_next_send",
        "custom_sleep_data",
    ),
}
ANYIO: dict[str, tuple[str, ...]] = {
    "anyio._backends._asyncio": ("_task_states",),
    "anyio._backends._asyncio.CancelScope": (
        "_child_scopes",
        "_host_task",
        "_parent_scope",
        "_tasks",
    ),
    "anyio._backends._asyncio.TaskGroup": ("_spawn", "_tasks"),
}


def missing(names: dict[str, tuple[str, ...]]) -> list[str]:
    """Return the names that the installed release does not have."""
    return [
        f"{path}.{name}"
        for path, attributes in names.items()
        for name in attributes
        if not any(_has(_owner(path), spelling) for spelling in name.split("|"))
    ]


def either(owner: object, name: str) -> Any:
    """Return the attribute of `owner` that has one of the spellings of `name`, the first there is.

    Raises:
        AttributeError: it has none of them.
    """
    for spelling in name.split("|"):
        if hasattr(owner, spelling):
            return getattr(owner, spelling)
    raise AttributeError(f"{owner!r} has no attribute {' or '.join(name.split('|'))}")


def _owner(path: str) -> Any:
    """Return a module, or a class of one; None if there is none."""
    try:
        return importlib.import_module(path)
    except ImportError:
        module, _, name = path.rpartition(".")
        try:
            return either(importlib.import_module(module), name)
        except AttributeError:
            return None


def _has(owner: Any, name: str) -> bool:
    """Return True if a module or class has an attribute, or if its instances get it when made."""
    if hasattr(owner, name):
        return True
    code = getattr(getattr(owner, "__init__", None), "__code__", None)
    return code is not None and not hasattr(owner, "__slots__") and name in code.co_names


def require(backend: str) -> None:
    """Check the private names of what a backend is built on.

    Raises:
        LabError: this release of trio or anyio lacks one; the error names the release and the name.
    """
    libraries = [("anyio", ANYIO)]
    if backend == "trio":
        libraries.append(("trio", TRIO))
    for library, names in libraries:
        lacking = missing(names)
        if lacking:
            raise LabError(
                f"the lab cannot control {library} {version(library)}: it has no "
                f"{', '.join(lacking)}; use a release that the lab was tested with "
                f"({TESTED[library]})"
            )
