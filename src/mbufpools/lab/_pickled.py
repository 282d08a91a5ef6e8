"""A program that is sent to a worker process: pickled by name, with what it takes to find the name.

A function is pickled as the names of its module and of itself. The worker can import the module
only if it searches the same directories, so `sys.path` is sent too. A script, or a test under
pytest's importlib mode, is not on that path, so the module's file is sent as well.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import pickle
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from ._options import Program
from ._outcome import LabError
from ._program import function_of

__all__ = ["PickledProgram", "pack", "pack_reset"]


@dataclass(frozen=True, slots=True)
class PickledProgram:
    """A program that another process can load."""

    title: str
    pickled: bytes
    module: str
    file: str | None
    path: tuple[str, ...]

    def load(self) -> Program:
        """Return the program, in the process that calls this. It also sets ``sys.path`` there.

        Raises:
            LabError: the module or the program cannot be loaded here.
        """
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
    """Pickle a program by name.

    Raises:
        ValueError: the program cannot be pickled, so no other process could load it.
    """
    title = _title(program)
    try:
        pickled = pickle.dumps(program)
    except Exception as error:
        raise ValueError(
            f"{title} cannot be given to other processes ({type(error).__name__}: {error}); make "
            f"it a function of a module, with arguments that can be pickled, or use no executor"
        ) from error
    name: str = function_of(program).__module__
    module = sys.modules.get(name)
    return PickledProgram(title, pickled, name, getattr(module, "__file__", None), tuple(sys.path))


def pack_reset(reset: Callable[[], Any]) -> PickledProgram:
    """Pickle a function that is called before each execution.

    Raises:
        ValueError: it cannot be pickled, or would put back a copy of what the program uses.
    """
    owner = getattr(function_of(reset), "__self__", None)
    if owner is not None and not isinstance(owner, type | ModuleType):
        raise ValueError(
            f"reset is {_title(reset)}, a method of an object of which other processes get a copy; "
            f"make it a function of a module, or use no executor"
        )
    return pack(reset)


def _title(program: Program) -> str:
    """Return the program's name for error messages."""
    function = function_of(program)
    return str(getattr(function, "__qualname__", repr(function)))


def _import(name: str, file: str | None) -> None:
    """Import a module, and make sure that it comes from this file."""
    if name == "__main__":  # multiprocessing has loaded it
        return
    try:
        module: ModuleType | None = importlib.import_module(name)
    except ImportError:
        if file is None:
            raise
        module = None
    if file is None or getattr(module, "__file__", None) == file:
        return
    _load(name, file)


def _load(name: str, file: str) -> None:
    """Import a module of a file, whatever `sys.path` says, after the packages that it is in."""
    _load_parent(name, file)
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is not a Python module")
    module = importlib.util.module_from_spec(spec)
    _keep(name, module)
    spec.loader.exec_module(module)


def _load_parent(name: str, file: str) -> None:
    """Import the package of a module, which unpickling looks for, too. A directory without an
    `__init__.py` becomes an empty one, as it does in pytest."""
    parent = name.rpartition(".")[0]
    directory = os.path.dirname(file)
    if os.path.basename(file) == "__init__.py":
        directory = os.path.dirname(directory)
    if not parent or directory in getattr(sys.modules.get(parent), "__path__", ()):
        return
    init = os.path.join(directory, "__init__.py")
    if os.path.isfile(init):
        _load(parent, init)
        return
    _load_parent(parent, directory)
    package = ModuleType(parent)
    package.__path__ = [directory]
    _keep(parent, package)


def _keep(name: str, module: ModuleType) -> None:
    sys.modules[name] = module
    parent, _, child = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], child, module)
