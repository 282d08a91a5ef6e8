"""Which tasks the lab cancels: by default those that the program's own code has made.

A library keeps tasks for itself, such as the worker of a connection pool, and no other code can
cancel them. Nor can any code cancel the task that `asyncio.shield` makes of a coroutine. A failure
after such a cancellation would be a false alarm. So by default the lab cancels a task if the code
that made it belongs to the *project* of the program, and if the object whose method made it does
not keep it as an attribute. The main task is always one of them.

The project is the nearest directory around the program's file that has a ``pyproject.toml``,
``setup.py``, ``setup.cfg`` or ``.git``, else the directory of that file; without what is installed
in it. The code that made a task is the innermost frame outside of asyncio, anyio, trio, the
standard library and the lab. A task that a module of trio or anyio makes to run a function of the
same module was made by nobody else, such as the one that feeds the channel of
`trio.as_safe_channel`.
"""

from __future__ import annotations

import asyncio
import fnmatch
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import FrameType, FunctionType, ModuleType
from typing import Any, NamedTuple, cast
from weakref import ref  # a test may patch the name in `weakref`

from ._frames import is_installed, is_plumbing, own_frame
from ._leaks import weakly
from ._options import CancelWay
from ._program import function_of
from ._steps import MAIN, Name, spell

__all__ = [
    "Cancel",
    "Cancellable",
    "Origin",
    "Policy",
    "TaskInfo",
    "cancellable",
    "cancelling",
    "origin_of",
    "uses_anyio",
]

ROOT_FILES = ("pyproject.toml", "setup.py", "setup.cfg", ".git")
"""A directory that holds one of these is a project."""
_LIBRARIES = ("trio.", "anyio.")
_SPAWNERS = ("trio._core.", "anyio._backends.", f"{__package__}.")
"""The modules, by the beginning of their names, that make tasks for others."""


_completed = getattr(asyncio.tasks, "_AsCompletedIterator", None)  # before Python 3.13 a function
_KEEP_A_TASK = frozenset(
    function.__code__
    for function in (
        asyncio.shield,
        asyncio.wait_for,
        asyncio.as_completed if _completed is None else _completed.__init__,
    )
)
"""What makes a task of a coroutine and gives it to nobody. `asyncio.gather` does so, too, but it
cancels what it has made."""


class TaskInfo(NamedTuple):
    """A task, as a predicate of `cancellable` sees it.

    Attributes:
        title: the name that the program or a library gave it, else that of its function.
        name: the lab's name of it, such as ``0.1``; the main task is ``0``.
        function: the qualified name of the coroutine function that it runs.
        file: the file with the code that made it; empty for the main task.
        line: the line of that code.
    """

    title: str
    name: str
    function: str
    file: str
    line: int


@dataclass(frozen=True, slots=True)
class Cancellable:
    """Which tasks the lab cancels, how, and when; made by `cancellable`."""

    names: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    predicate: Callable[[TaskInfo], bool] | None = None
    by: CancelWay | None = None
    times: int = 1
    mid_wait: bool = False


def cancellable(
    *names: str,
    files: Iterable[str | os.PathLike[str]] = (),
    predicate: Callable[[TaskInfo], bool] | None = None,
    by: CancelWay | None = None,
    times: int = 1,
    mid_wait: bool = False,
) -> Cancellable:
    """Say which tasks `explore` cancels, how often, and when: ``explore(cancel=cancellable(...))``.

    Does not block. Without names and predicate the lab cancels the tasks that the program's own
    code has made: that of its project and of `files`. A task that an object keeps as an attribute
    (also in a list or a dict there) is a worker of that object, and is not cancelled.

    Args:
        names: cancel the tasks of these names instead, the program's and others: the names that
            they were given, of their functions, or of the lab (``"0.1"``). ``*`` and ``?`` are
            wildcards.
        files: files and directories whose code counts as the program's own, too. A relative path
            is relative to the current directory.
        predicate: cancel the tasks for which it returns True instead; called with a `TaskInfo`.
        by: ``"scope"`` or ``"native"``; by default every way in which a task of the program can be
            cancelled: on asyncio by a scope only if the program, or a library that it has imported,
            uses anyio.
        times: cancellations in one execution, at most.
        mid_wait: also cancel a task in the middle of a wait, after other tasks have run, and long
            after it has been woken; and not only as soon as it waits, and when it has been woken
            until one other step has run. This takes many more executions.

    Raises:
        ValueError: a way or a number that cannot be, or a file that does not exist.
    """
    if by not in (None, "scope", "native"):
        raise ValueError(f"by is {by!r}; expected 'scope', 'native' or None")
    if times < 1:
        raise ValueError(f"times is {times}; expected an integer of at least 1")
    places = tuple(os.path.abspath(os.fspath(it)) for it in files)
    for place in places:
        if not os.path.exists(place):
            raise ValueError(f"files has {place!r}, which does not exist; expected files that do")
    return Cancellable(names, places, predicate, by, times, mid_wait)


Cancel = bool | str | Iterable[str] | Callable[[TaskInfo], bool] | Cancellable
"""What ``cancel=`` of `explore` may be."""


def cancelling(cancel: Cancel) -> Cancellable | None:
    """Return what ``cancel=`` asks for; None if nothing is cancelled.

    Raises:
        ValueError: it cannot be.
    """
    if isinstance(cancel, Cancellable):
        return cancel
    if isinstance(cancel, bool):
        return Cancellable() if cancel else None
    if cancel in ("scope", "native"):
        return Cancellable(by=cast("CancelWay", cancel))
    if isinstance(cancel, str):
        return Cancellable((cancel,))
    if callable(cancel):
        return Cancellable(predicate=cancel)
    given: object = cancel
    names = tuple(given) if isinstance(given, Iterable) else ()
    if not names or not all(isinstance(name, str) for name in names):
        raise ValueError(
            f"cancel is {cancel!r}; expected True, False, 'scope', 'native', names of tasks, a "
            f"function of a TaskInfo, or lab.cancellable(...)"
        )
    return Cancellable(names)


def uses_anyio(program: Any) -> bool:
    """Return True if the program's module, or a module that it has imported from, and so on, has
    imported anyio.

    Only anyio cancels by a scope on asyncio, and it cancels again at each await of the clean-up. A
    library of asyncio's own cannot clean up then, and it need not.
    """
    pending = [getattr(function_of(program), "__module__", None)]
    seen = set(pending)
    if pending[0] not in sys.modules:
        return True
    while pending:
        for value in list(vars(sys.modules[str(pending.pop())]).values()):
            if isinstance(value, ModuleType):
                name = value.__name__
            elif isinstance(value, type | FunctionType):
                name = value.__module__
            else:
                continue
            top = str(name).partition(".")[0]
            if top == "anyio":
                return True
            if (
                name not in seen
                and name in sys.modules
                and top not in sys.stdlib_module_names
                and not name.startswith(__package__)
            ):
                seen.add(name)
                pending.append(name)
    return False


class Origin:
    """What made a task.

    Args:
        file, line: the code that made it.
        function: what it runs.
        maker: the object whose method made it, or None.
        task: the task.
    """

    __slots__ = ("_maker", "_task", "file", "function", "line")

    def __init__(self, file: str, line: int, function: str, maker: Any, task: Any) -> None:
        self.file: str = file
        self.line: int = line
        self.function: str = function
        self._maker = weakly(maker)
        self._task = ref(task)

    @property
    def is_kept(self) -> bool:
        """True if the object whose method made the task has it as an attribute, or in one."""
        task, maker = self._task(), self._maker()
        if maker is None or task is None:
            return False
        for value in _values(maker):
            if value is task:
                return True
            if type(value) is dict:
                value = value.values()
            elif type(value) not in (list, tuple, deque):
                continue
            if any(it is task for it in value):
                return True
        return False


class Policy:
    """Decides which tasks of one program the lab cancels.

    Args:
        rules: what the caller of `explore` asked for.
        program: what is explored.
    """

    def __init__(self, rules: Cancellable, program: Any) -> None:
        self._rules = rules
        self._code = getattr(function_of(program), "__code__", None)
        file = getattr(self._code, "co_filename", "")
        own = os.path.isfile(file) and not is_installed(file)
        self._root = _root(file) if own else ""
        self.matched: bool = False
        """True once a task was permitted."""

    @property
    def asks_for_names(self) -> bool:
        """True if the caller says which tasks are cancelled, by names or a predicate."""
        return bool(self._rules.names) or self._rules.predicate is not None

    def permits(self, task: Name, title: str, origin: Origin | None) -> bool:
        """Return True if the lab may cancel a task."""
        permitted = self._permits(task, title, origin)
        self.matched = self.matched or permitted
        return permitted

    def _permits(self, task: Name, title: str, origin: Origin | None) -> bool:
        rules = self._rules
        function, file, line = "", "", 0
        if origin is not None:
            function, file, line = origin.function, origin.file, origin.line
        if self.asks_for_names:
            called = {spell(task)}
            called.update(*((it, it.rpartition(".")[2]) for it in (title, function)))
            if any(fnmatch.fnmatchcase(it, name) for name in rules.names for it in called):
                return True
            return rules.predicate is not None and bool(
                rules.predicate(TaskInfo(title, spell(task), function, file, line))
            )
        if task == MAIN or origin is None:
            return task == MAIN
        if any(file == it or file.startswith(it.rstrip(os.sep) + os.sep) for it in rules.files):
            return True
        if not self._root:
            return not is_installed(file)
        return file.startswith(self._root) and not is_installed(file)

    def spares(self, origin: Origin | None) -> bool:
        """Return True if a task that is permitted is not cancelled, since an object keeps it."""
        return not self.asks_for_names and origin is not None and origin.is_kept

    def is_program(self, frame: FrameType) -> bool:
        """Return True for a frame of the program's own function: its object is a test's."""
        return frame.f_code is self._code


def origin_of(task: Any, function: str, policy: Policy, module: str = "") -> Origin | None:
    """Return what makes a task; called while it is made. None if only libraries took part.

    Args:
        task: the task.
        function: what it runs.
        policy: which tasks of the program are cancelled.
        module: the module of the function, if a library may run functions of its own in tasks.
    """
    frame = own_frame(sys._getframe(1))
    if frame is None or _is_kept_by(module) or _is_nobodys(frame):
        return None
    code = frame.f_code
    maker = None
    if code.co_argcount and code.co_varnames[0] == "self" and not policy.is_program(frame):
        maker = frame.f_locals.get("self")
    return Origin(code.co_filename, frame.f_lineno, function, maker, task)


def _is_kept_by(module: str) -> bool:
    """Return True if a module of trio or anyio makes the task, to run a function of its own."""
    if not module.startswith(_LIBRARIES):
        return False
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        name = str(frame.f_globals.get("__name__", ""))
        if not name.startswith(_SPAWNERS):
            return name == module and is_plumbing(frame.f_code.co_filename)
        frame = frame.f_back
    return False


def _is_nobodys(own: FrameType) -> bool:
    """Return True if a function of asyncio that `own` has called makes the task of a coroutine and
    keeps it to itself, so that no other code can cancel it."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and frame is not own:
        if frame.f_code in _KEEP_A_TASK:
            return True
        frame = frame.f_back
    return False


def _values(maker: Any) -> list[Any]:
    values = list(getattr(maker, "__dict__", {}).values())
    for cls in type(maker).__mro__:
        slots = cls.__dict__.get("__slots__", ())
        names = (slots,) if isinstance(slots, str) else slots
        values += [getattr(maker, name, None) for name in names]
    return values


@cache
def _root(file: str) -> str:
    """Return the directory of the project that a file belongs to, with a separator at its end."""
    own = Path(file).resolve().parent
    for directory in (own, *own.parents):
        if any((directory / name).exists() for name in ROOT_FILES):
            return os.path.join(directory, "")
    return os.path.join(own, "")
