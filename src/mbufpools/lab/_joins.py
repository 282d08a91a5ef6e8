"""Declares that a step looks whether several tasks of asyncio are over: at a group, or at what
`asyncio.gather` returns.

A group drops each task that is over, and the future of a gather is set by the callbacks of its
tasks. Of tasks that end well the order does not matter to either, so their ends do not touch it.
Instead, a step that looks reads the ends of all tasks, which each end writes. So does a step that
has to wait for none, because all are over. A step that ends with a wait for them reads nothing: its
task goes on after the ends in every schedule, and `_Loop.join_steps` notes that.

Invariant: outside of `declaring_joins` no class is changed.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any
from weakref import ref  # a test may patch the name in `weakref`

from anyio._backends._asyncio import TaskGroup as _AnyioGroup

from ._cancelling import declare_member
from ._declare import recorder
from ._ordered_sets import Members
from ._steps import Name

__all__ = ["declaring_joins"]

_own_group: Any = asyncio.TaskGroup
_own_init: Any = _own_group.__init__
_own_abort: Any = _own_group._abort
_anyio_group: Any = _AnyioGroup
_anyio_init: Any = _anyio_group.__init__
_gathering: Any = asyncio.tasks._GatheringFuture  # type: ignore[attr-defined]  # asyncio's own
_future: Any = asyncio.Future
_ABSENT = object()


@contextmanager
def declaring_joins(is_step: Callable[[Any], bool]) -> Iterator[None]:
    """Make groups and gathers declare that a step looks at them. `is_step` returns True for a
    callback that wakes a task."""
    put: list[tuple[Any, str, Any]] = [
        (_own_group, "__init__", _init_of(_own_init)),
        (_own_group, "_abort", _abort_ours),
        (_anyio_group, "__init__", _init_of(_anyio_init)),
        (_gathering, "__init__", _gathering_init),
        (_gathering, "cancel", _gathering_cancel),
        (_gathering, "add_done_callback", _adding_callback(is_step)),
        (_gathering, "__await__", _gathering_await),
        (_gathering, "__iter__", _gathering_await),
        *((_gathering, name, _looking(name)) for name in _LOOKS),
        *((_gathering, name, _setting(name)) for name in ("set_result", "set_exception")),
    ]
    before = [(owner, name, vars(owner).get(name, _ABSENT)) for owner, name, _ in put]
    try:
        for owner, name, value in put:
            setattr(owner, name, value)
        yield
    finally:
        for owner, name, value in before:
            if value is not _ABSENT:
                setattr(owner, name, value)
            elif name in vars(owner):
                delattr(owner, name)


# Groups


class _GroupTasks(Members):
    """The tasks of a group that are not over. It declares that a step asks whether there are any.

    The parent goes on after the ends of all tasks. But if it was cancelled meanwhile, it waits
    again if one is left; and another task may ask, too.
    """

    def __init__(self, loop: Any, scope: Any) -> None:
        super().__init__()
        self._scope = scope
        """The scope of a group of anyio, or None."""
        self.names: list[Name] = []
        """Of all tasks that the group has made."""
        self._loop = ref(loop)
        self._maker: Name | None = loop.running
        self._asked_first: int | None = None
        """How many steps there were when the parent asked first."""
        self._causes = 0
        """The steps because of which tasks were dropped, as a mask."""

    def add(self, task: Any) -> None:  # type: ignore[override]  # as a set's
        super().add(task)
        self.names.append(task.lab_name)

    def discard(self, task: Any) -> None:
        super().discard(task)
        # By a callback, which is called for by the last step of the task. If the callback has to
        # wait for the first step of a task that was made there, it runs after that one.
        recorder.touch((task.lab_name, "end"), True)
        loop = self._loop()
        if loop is not None:
            self._causes |= loop.origin

    def remove(self, task: Any) -> None:
        self.discard(task)

    def __bool__(self) -> bool:
        loop = self._loop()
        if loop is not None and loop.running is not None:
            if self._scope is not None:
                declare_member(self._scope)
            if self._asked_first is None and loop.running == self._maker:
                self._asked_first = loop.steps_taken
            if self._asked_first != loop.steps_taken or not len(self):
                self.look()
            if not len(self):
                loop.join_steps(self._causes)
        return len(self) > 0

    def look(self) -> None:
        """Record a read of the end of each task."""
        for name in self.names:
            recorder.touch((name, "end"), False)


def _init_of(init: Any) -> Any:
    @wraps(init)
    def init_ours(group: Any, *args: Any, **options: Any) -> None:
        init(group, *args, **options)
        loop = asyncio._get_running_loop()
        if loop is not None:
            group._tasks = _GroupTasks(loop, getattr(group, "cancel_scope", None))

    return init_ours


def _abort_ours(group: Any) -> None:
    """Declare which tasks of the group are over, and so are not cancelled: the group has dropped
    them."""
    if isinstance(group._tasks, _GroupTasks):
        group._tasks.look()
    _own_abort(group)


# What `asyncio.gather` returns

_LOOKS = ("done", "cancelled", "result", "exception", "remove_done_callback", "__repr__")


def _look(gathering: Any) -> None:
    """Record a read of the end of each task that is gathered."""
    for child in gathering._children:
        if isinstance(child, _gathering):
            _look(child)
        elif (name := getattr(child, "lab_name", None)) is not None:
            recorder.touch((name, "end"), False)
        else:
            recorder.read(child)


def _looking(name: str) -> Any:
    method = getattr(_gathering, name)

    @wraps(method)
    def look(gathering: Any, *args: Any) -> Any:
        caller = sys._getframe(1)
        if caller.f_code.co_name != "_done_callback" or caller.f_globals is not vars(asyncio.tasks):
            _look(gathering)
        elif name == "done":
            # The gather itself asks, when one of its tasks is over: the first that fails ends it.
            variables = caller.f_locals
            fut = variables["fut"]
            failed = _future.cancelled(fut) or fut._exception is not None
            fails = failed and not variables["return_exceptions"]
            recorder.touch((*recorder.name(gathering), "first"), fails)
            if (task := getattr(fut, "lab_name", None)) is not None:
                recorder.touch((task, "end"), True)  # see `_GroupTasks.discard`
        return method(gathering, *args)

    return look


_init: Any = _gathering.__init__


def _gathering_init(gathering: Any, *args: Any, **options: Any) -> None:
    _init(gathering, *args, **options)
    gathering.lab_causes = 0
    recorder.made(gathering, "gathering")


_cancel: Any = _gathering.cancel


def _gathering_cancel(gathering: Any, msg: Any = None) -> bool:
    """Declare that each child of a gather is cancelled, also if all of them are over by now."""
    for child in gathering._children:
        if (name := getattr(child, "lab_name", None)) is not None:
            recorder.touch(name, True)
        elif not isinstance(child, _gathering):
            recorder.write(child)
    return bool(_cancel(gathering, msg))


def _setting(name: str) -> Any:
    method = getattr(_gathering, name)

    @wraps(method)
    def set_(gathering: Any, value: Any, /) -> None:
        gathering.lab_causes = asyncio.get_running_loop().origin  # type: ignore[attr-defined]  # the lab's
        method(gathering, value)

    return set_


def _join(gathering: Any) -> None:
    """Note that the running step learns that a gather is over."""
    if _future.done(gathering):
        _look(gathering)
        asyncio.get_running_loop().join_steps(gathering.lab_causes)  # type: ignore[attr-defined]  # the lab's


def _adding_callback(is_step: Callable[[Any], bool]) -> Any:
    method = _gathering.add_done_callback

    def add_done_callback(gathering: Any, function: Any, /, **options: Any) -> None:
        recorder.touch((*recorder.name(gathering), "callbacks"), True)
        if not is_step(function):
            _look(gathering)
        _join(gathering)
        method(gathering, function, **options)

    return add_done_callback


_await: Any = _gathering.__await__


def _gathering_await(gathering: Any) -> Any:
    _join(gathering)
    return _await(gathering)
