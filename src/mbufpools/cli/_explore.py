"""``mbufpools explore``: does a program hold in every schedule?"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import inspect
import json
import multiprocessing
import os
import shlex
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from mbufpools import lab

__all__ = ["explore"]

Program = Callable[[], Any]

BACKENDS = {"asyncio": ("asyncio",), "trio": ("trio",), "both": ("asyncio", "trio")}
BAR = 20
"""Characters of the progress bar."""
PAUSE = 0.1
"""Seconds between two looks at the progress."""


class _Mistake(Exception):
    """The caller's, in one line."""


@dataclass(frozen=True, slots=True)
class _Order:
    """What the command line asks for."""

    target: str
    program: Program
    backends: tuple[str, ...]
    options: dict[str, Any]
    jobs: int
    token: str | None
    json: bool


def explore(arguments: argparse.Namespace) -> int:
    """Explore a program, and print what was found and how to see it again.

    Returns the exit status: 1 if a schedule fails; 2 after a mistake on the command line, or for
    a program that cannot be explored.
    """
    try:
        order = _order(arguments)
        if order.token is not None:
            return _replay(order, order.token)
        return max(_explore(order, backend) for backend in order.backends)
    except (_Mistake, ImportError, ValueError, lab.LabError, BrokenExecutor) as error:
        message = " ".join(str(error).split("\n"))
        sys.stderr.write(f"mbufpools explore: {message}\n")
        return 2


def _explore(order: _Order, backend: str) -> int:
    with _workers(order.jobs) as executor, _progress(order.options["max_executions"]) as progress:
        found = lab.explore(
            order.program,
            backend=backend,
            executor=executor,
            on_progress=progress,
            **order.options,
        )
    _tell(order, found, str(found))
    return 1 if found.failures else 0


def _replay(order: _Order, token: str) -> int:
    found = lab.replay(order.program, token)
    _tell(order, found, "" if found.failures else "the schedule of the token does not fail")
    return 1 if found.failures else 0


def _tell(order: _Order, found: lab.Exploration, summary: str) -> None:
    if order.json:
        sys.stdout.write(json.dumps(_as_json(order.target, found)) + "\n")
        return
    for failure in found.failures:
        sys.stdout.write(f"{_report(order.target, failure)}\n")
        if summary:
            sys.stdout.write("\n")
    if summary:
        sys.stdout.write(f"{summary}\n")


def _report(target: str, failure: lab.Failure) -> str:
    command = ["mbufpools", "explore", target, "--token", failure.token]
    return failure.report_with(shlex.join(command))


def _as_json(target: str, found: lab.Exploration) -> dict[str, Any]:
    names = ("strategy", "backend", "executions", "complete", "bound", "redundant", "seconds")
    failures = [
        {
            **{name: getattr(failure, name) for name in ("kind", "token", "found_at", "replays")},
            "report": _report(target, failure),
        }
        for failure in found.failures
    ]
    return {
        "program": target,
        **{name: getattr(found, name) for name in names},
        "failures": failures,
    }


# --- the command line


def _order(arguments: argparse.Namespace) -> _Order:
    if arguments.backend not in BACKENDS:
        raise _Mistake(
            f"argument --backend: {arguments.backend!r}; expected one of {', '.join(BACKENDS)}"
        )
    backends = BACKENDS[arguments.backend]
    if arguments.cancel not in (False, True, "scope", "native"):
        raise _Mistake(f"argument --cancel-by: {arguments.cancel!r}; expected scope or native")
    if arguments.cancel == "native" and "trio" in backends:
        raise _Mistake("argument --cancel-by: native is asyncio's; on trio there is only scope")
    options = {
        "strategy": arguments.strategy,
        "max_preemptions": None
        if arguments.max_preemptions == "none"
        else _number("--max-preemptions", arguments.max_preemptions, 0, " or none"),
        "max_executions": _number("--max-executions", arguments.max_executions, 1),
        "seed": _number("--seed", arguments.seed, 0),
        "depth": _number("--depth", arguments.depth, 1),
        "cancel": arguments.cancel,
    }
    jobs = _number("--jobs", arguments.jobs, 1)
    if jobs > 1 and arguments.strategy == "dpor":
        raise _Mistake("argument --jobs: dpor goes from one schedule to the next, in one process")
    return _Order(
        arguments.program,
        _load(arguments.program),
        backends,
        options,
        jobs,
        arguments.token,
        arguments.json,
    )


def _number(option: str, value: str, least: int, otherwise: str = "") -> int:
    if not value.isascii() or not value.isdigit() or int(value) < least:
        raise _Mistake(
            f"argument {option}: {value!r}; expected a whole number from {least} up{otherwise}"
        )
    return int(value)


# --- the program


def _load(target: str) -> Program:
    place, colon, name = target.rpartition(":")
    if not colon or not place or not name:
        raise _Mistake(f"{target!r}: expected module:function or file.py:function")
    is_file = place.endswith(".py") or os.sep in place
    module = _import_file(Path(place)) if is_file else _import_module(place)
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is None:
        raise _Mistake(f"{place} has no function {name!r}{_others(module)}")
    if not inspect.iscoroutinefunction(found):
        raise _Mistake(f"{name} in {place} is no `async def`{_others(module)}")
    needs = [
        parameter.name
        for parameter in inspect.signature(found).parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    if needs:
        raise _Mistake(f"{name} in {place} takes arguments ({', '.join(needs)}){_others(module)}")
    program: Program = found
    return program


def _others(module: ModuleType) -> str:
    names = [
        name
        for name, value in vars(module).items()
        if inspect.iscoroutinefunction(value)
        and value.__module__ == module.__name__
        and not inspect.signature(value).parameters
    ]
    return f"; there are {', '.join(names)}" if names else ""


def _import_module(name: str) -> ModuleType:
    if "" not in sys.path:
        sys.path.insert(0, "")  # as for `python -m`
    with _importing(name):
        return importlib.import_module(name)


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise _Mistake(f"there is no file {path}")
    sys.path.insert(0, str(path.resolve().parent))  # as for a script
    name = path.stem
    other = getattr(sys.modules.get(name), "__file__", None)
    if name in sys.stdlib_module_names or other not in (None, str(path.resolve())):
        name = f"explored_{name}"  # what others import by that name must stay what it is
    with _importing(str(path)):
        spec = importlib.util.spec_from_file_location(name, path.resolve())
        if spec is None or spec.loader is None:
            raise _Mistake(f"{path} is no Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        return module


@contextmanager
def _importing(what: str) -> Iterator[None]:
    try:
        yield
    except _Mistake:
        raise
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        where = "" if frame.filename.startswith("<") else f" ({frame.filename}:{frame.lineno})"
        raise _Mistake(f"cannot import {what}: {type(error).__name__}: {error}{where}") from error


# --- processes, and progress


@contextmanager
def _workers(jobs: int) -> Iterator[ProcessPoolExecutor | None]:
    if jobs == 1:
        yield None
        return
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as executor:
        yield executor


@contextmanager
def _progress(limit: int) -> Iterator[Callable[[int], None] | None]:
    """Tell on stderr how far it is, on a line that is written over; a terminal's alone."""
    if not sys.stderr.isatty():
        yield None
        return
    began = last = time.monotonic()

    def tell(executions: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last < PAUSE:
            return
        last = now
        bar = ("#" * (BAR * executions // limit)).ljust(BAR, ".")
        rate = executions / (now - began)
        sys.stderr.write(
            f"\r\033[K[{bar}] {executions} of at most {limit} executions, {rate:.0f} a second"
        )
        sys.stderr.flush()

    try:
        yield tell
    finally:
        sys.stderr.write("\r\033[K")
