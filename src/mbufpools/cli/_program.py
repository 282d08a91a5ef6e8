"""The program that a command line names as ``module:function`` or ``file.py:function``.

A file is imported as a script would be: its directory comes first on the path. If the file has the
name of a module that exists already, the file gets another name, and the module stays what it was.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from mbufpools.demokit import Mistake, closest, closest_path

__all__ = ["Program", "load_program", "load_reset", "missing"]

Program = Callable[[], Any]

FORM = "expected module:function or file.py:function"
EXPECTED = "expected an `async def` without arguments"


def load_program(target: str) -> Program:
    """Import the `async def` without arguments that `target` names.

    Raises Mistake if there is none; the message lists those of the module.
    """
    from mbufpools.lab.engine import needed_arguments

    found, module, place, name = _find(target, is_program)
    others = _others(module, is_program)
    if not inspect.iscoroutinefunction(found):
        raise Mistake(f"{name} in {place} is no `async def`; {EXPECTED}{others}")
    needs = needed_arguments(found)
    if needs:
        raise Mistake(
            f"{name} in {place} takes arguments ({', '.join(needs)}); {EXPECTED}: write one that "
            f"calls it{others}"
        )
    program: Program = found
    return program


def load_reset(target: str, program: Program) -> Callable[[], Any]:
    """Import the plain function that ``--reset`` names; it may be in the file of `program`.

    Raises Mistake if there is none.
    """
    try:
        found, module, place, name = _find(target, is_plain, sys.modules[program.__module__])
    except Mistake as error:
        raise Mistake(f"argument --reset: {error}") from error
    if not callable(found) or inspect.iscoroutinefunction(found):
        others = _others(module, is_plain)
        raise Mistake(f"argument --reset: {name} in {place} is no plain function{others}")
    reset: Callable[[], Any] = found
    return reset


def missing(path: Path, pattern: str = "*") -> str:
    """Return what an error says of a path that does not exist."""
    meant = closest_path(path, pattern)
    return f"there is no file {path}" + (f"; did you mean {meant}?" if meant else "")


def is_program(value: Any) -> bool:
    """True for an `async def` that can be called without arguments."""
    from mbufpools.lab.engine import needed_arguments

    return inspect.iscoroutinefunction(value) and not needed_arguments(value)


def is_plain(value: Any) -> bool:
    """True for a plain function without arguments."""
    return (
        inspect.isfunction(value)
        and not inspect.iscoroutinefunction(value)
        and not inspect.signature(value).parameters
    )


def _find(
    target: str, wanted: Callable[[Any], bool], loaded: ModuleType | None = None
) -> tuple[Any, ModuleType, str, str]:
    """Return what a target names, its module, and the two parts of the target.

    If the module is `loaded` already, its file is not imported a second time. `wanted` tells which
    functions of the module an error lists.
    """
    place, colon, name = target.rpartition(":")
    if not colon or not place or not name or place.endswith(":"):
        raise Mistake(f"{target!r}: {FORM}{_meant(target)}")
    is_file = place.endswith(".py") or os.sep in place
    if loaded is not None and is_file and str(Path(place).resolve()) == loaded.__file__:
        module = loaded
    else:
        module = _import_file(Path(place)) if is_file else _import_module(place)
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is None:
        raise Mistake(f"{place} has no function {name!r}{_others(module, wanted, name)}")
    return found, module, place, name


def _meant(target: str) -> str:
    """What a target without a function could have been: ``file.py::function``, or a file."""
    place, _, name = target.partition("::")
    if place and name:
        return f"; did you mean {place}:{name}?"
    if Path(place).is_file():
        return f", as in {place}:main"
    return ""


def _others(module: ModuleType, wanted: Callable[[Any], bool], name: str = "") -> str:
    """List the functions of a module that could be meant, and the one that `name` resembles."""
    names = [
        each
        for each, value in vars(module).items()
        if wanted(value) and value.__module__ == module.__name__
    ]
    if not names:
        return ""
    meant = closest(name, names) if name else None
    if meant and len(names) == 1:
        return f"; did you mean {meant!r}?"
    there = "is only" if len(names) == 1 else "are"
    begin = f"did you mean {meant!r}? There" if meant else "there"
    return f"; {begin} {there} {', '.join(names)}"


def _import_module(name: str) -> ModuleType:
    if name.startswith("."):
        raise Mistake(f"{name!r} is relative; {FORM}")
    if "" not in sys.path:
        sys.path.insert(0, "")  # as for `python -m`
    with _importing(name):
        return importlib.import_module(name)


def _import_file(path: Path) -> ModuleType:
    if path.is_dir():
        raise Mistake(f"{path} is a directory; {FORM}")
    if not path.is_file():
        raise Mistake(missing(path, "*.py"))
    sys.path.insert(0, str(path.resolve().parent))  # as for a script
    name = path.stem
    other = getattr(sys.modules.get(name), "__file__", None)
    if name in sys.stdlib_module_names or other not in (None, str(path.resolve())):
        name = f"explored_{name}"  # that name must still import what it did before
    with _importing(str(path)):
        spec = importlib.util.spec_from_file_location(name, path.resolve())
        if spec is None or spec.loader is None:
            raise Mistake(f"{path} is no Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        return module


@contextmanager
def _importing(what: str) -> Iterator[None]:
    try:
        yield
    except Mistake:
        raise
    except ModuleNotFoundError as error:
        if error.name is None or not f"{what}.".startswith(f"{error.name}."):
            raise Mistake(_told(what, error)) from error
        meant = closest(what, [path.stem for path in Path.cwd().glob("*.py")])
        hint = f"did you mean {meant!r}?" if meant else f"{FORM}, with the path of the file"
        raise Mistake(
            f"there is no module {error.name!r} in this directory or on sys.path; {hint}"
        ) from error
    except Exception as error:
        raise Mistake(_told(what, error)) from error


def _told(what: str, error: Exception) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    where = "" if frame.filename.startswith("<") else f" ({frame.filename}:{frame.lineno})"
    return f"cannot import {what}: {type(error).__name__}: {error}{where}"
