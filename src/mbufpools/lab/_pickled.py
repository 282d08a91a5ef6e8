"""A program on its way to a worker process: pickled by name, with what it takes to find the name.

A function is pickled as its module and its name. Whether a worker can import the module depends on
where it looks: so its search path goes along, and the module's file, for those that are known by
a path alone (scripts, and tests under pytest's importlib mode). Uses `_outcome`.
"""

from __future__ import annotations

import importlib
import importlib.util
import pickle
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import Any

from ._outcome import LabError

__all__ = ["PickledProgram", "pack"]

Program = Callable[[], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class PickledProgram:
    """A program that another process can load."""

    title: str
    pickled: bytes
    module: str
    file: str | None
    path: tuple[str, ...]

    def load(self) -> Program:
        """Return the program. Raises LabError if it cannot be loaded here."""
        try:
            sys.path[:] = dict.fromkeys([*self.path, *sys.path])
            _import(self.module, self.file)
            program: Program = pickle.loads(self.pickled)
        except Exception as error:
            raise LabError(
                f"a worker cannot load {self.title} from module {self.module!r} "
                f"({self.file or 'no file'}): {type(error).__name__}: {error}"
            ) from error
        return program


def pack(program: Program) -> PickledProgram:
    """Make a parcel. Raises ValueError if no other process could load the program."""
    title = _title(program)
    try:
        pickled = pickle.dumps(program)
    except Exception as error:
        raise ValueError(
            f"{title} cannot be given to other processes ({type(error).__name__}: {error}); make "
            f"it a function of a module, with arguments that can be pickled, or use no executor"
        ) from error
    name: str = _function(program).__module__
    module = sys.modules.get(name)
    return PickledProgram(title, pickled, name, getattr(module, "__file__", None), tuple(sys.path))


def _function(program: Any) -> Any:
    while isinstance(program, partial):
        program = program.func
    return program


def _title(program: Program) -> str:
    function = _function(program)
    return str(getattr(function, "__qualname__", repr(function)))


def _import(name: str, file: str | None) -> None:
    """Import a module, and see to it that it is the one of that file."""
    if name == "__main__":  # multiprocessing has seen to it
        return
    try:
        module: ModuleType | None = importlib.import_module(name)
    except ImportError:
        if file is None:
            raise
        module = None
    if file is None or getattr(module, "__file__", None) == file:
        return
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is no Python module")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
