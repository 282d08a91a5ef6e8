"""The tasks, futures, timers and handles of the asyncio backend.

A task knows its name in all schedules. While declarations are recorded (`_declare`), tasks, futures
and timers say which step looks at them or changes them. What the lab asks for its own use records
no access: the functions here whose docstrings say so.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import Context, copy_context
from types import BuiltinFunctionType, MethodType
from typing import Any, Protocol

from anyio._backends._asyncio import CancelScope

from ._cancelling import declare_cancel
from ._declare import recorder
from ._outcome import describe, first_line, refuse
from ._steps import MAIN, OVER, RAISED, Name, Resource, spell
from ._virtual_time import OrderedTimer

__all__ = [
    "DeclaringTask",
    "Driven",
    "LabFuture",
    "LabHandle",
    "LabTask",
    "LabTimer",
    "cancel_for_good",
    "check_future",
    "close_if_not_begun",
    "coroutine_of",
    "declaring_futures",
    "default_name",
    "end_of",
    "is_over",
    "is_step",
    "name_of",
    "plain_future",
    "plain_task",
    "steppers",
    "task_name",
    "task_title",
    "title_of",
]


class Loop(Protocol):
    """What a task tells its event loop."""

    def named(self, task: LabTask) -> None:
        """Note that the task was given a name."""

    def join_end(self, name: Name) -> None:
        """Note that the running step learns that a task is over."""


class LabHandle(asyncio.Handle):
    """A handle that does not ask whether the loop debugs."""

    __slots__ = ()

    def __init__(self, callback: Any, args: Any, loop: Any, context: Context | None = None) -> None:
        self._context = copy_context() if context is None else context
        self._loop = loop
        self._callback = callback
        self._args = args
        self._cancelled = False
        self._repr = None
        self._source_traceback = None


LabHandle.__name__ = "Handle"  # its text says it


_CALLERS: Any = object()
"""Stands for the context of the caller."""


class LabTask(asyncio.Task[Any]):
    """A task that knows its name in all schedules."""

    __slots__ = ("lab_body", "lab_children", "lab_hash", "lab_loop", "lab_name", "lab_scope")
    lab_loop: Loop
    lab_name: Name
    lab_hash: int
    """Of the name. asyncio and anyio look at it again and again."""
    lab_children: int
    lab_scope: CancelScope | None
    lab_body: Any
    """The program's coroutine, if that of the task is the lab's around it."""

    if "_coro" in vars(asyncio.Task):  # it is written in C

        @property
        def _coro(self) -> Any:
            """What the text of the task and `get_stack` tell of."""
            return self.get_coro()

    def get_coro(self) -> Any:
        """Return the program's coroutine, not the lab's around it."""
        return super().get_coro() if self.lab_body is None else self.lab_body

    def set_name(self, value: object, /) -> None:
        """Set the name; before Python 3.12 `asyncio.create_task` gives it only now."""
        super().set_name(value)
        self.lab_loop.named(self)

    def __hash__(self) -> int:
        """Make a set of tasks that the program fills come out in the same order every time."""
        return self.lab_hash

    def failed(self) -> bool:
        """Return True if it was cancelled or raised. For the lab's own use: records no access."""
        return plain_future.cancelled(self) or self._exception is not None

    # What awaits the task goes on after the end in every schedule. Any other callback is called at
    # the end, or, if the task is over already, by the step that adds it.

    def add_done_callback(self, function: Any, /, *, context: Any = _CALLERS) -> None:
        if is_over(self):
            self.lab_loop.join_end(self.lab_name)
        # Given no context, it takes the caller's; given None, that of whatever ends the task.
        if context is _CALLERS:
            super().add_done_callback(function)
        else:
            super().add_done_callback(function, context=context)

    def __await__(self) -> Any:
        if is_over(self):
            self.lab_loop.join_end(self.lab_name)
        return super().__await__()

    __iter__ = __await__


class DeclaringTask(LabTask):
    """A task that declares that it is cancelled, looked at or joined; made while declarations are
    recorded, because these methods are slower than asyncio's own."""

    __slots__ = ()

    def get_name(self) -> str:
        recorder.touch((self.lab_name, "name"), False)
        return super().get_name()

    def set_name(self, value: object, /) -> None:
        recorder.touch((self.lab_name, "name"), True)
        super().set_name(value)

    def __repr__(self) -> str:
        # It says where the task stands, which each of its steps changes: as `cancel` would.
        recorder.touch(self.lab_name, True)
        return super().__repr__()

    def cancel(self, msg: Any = None) -> bool:
        declare_cancel(self, self.lab_name)
        return super().cancel(msg)

    def cancelling(self) -> int:
        recorder.touch(self.lab_name, False)
        return super().cancelling()

    def uncancel(self) -> int:
        recorder.touch(self.lab_name, True)
        return super().uncancel()

    # Each of these looks whether the task is over, or at its result.

    def done(self) -> bool:
        recorder.touch((self.lab_name, "end"), False)
        return super().done()

    def cancelled(self) -> bool:
        recorder.touch((self.lab_name, "end"), False)
        return super().cancelled()

    def result(self) -> Any:
        recorder.touch((self.lab_name, "end"), False)
        return super().result()

    def exception(self) -> BaseException | None:
        recorder.touch((self.lab_name, "end"), False)
        return super().exception()

    # If the task is over, the step that awaits it goes on; else the step ends here, and the rest of
    # it is another step. So the order matters to the steps, though not to the state.

    def __await__(self) -> Any:
        if is_over(self):
            recorder.touch((self.lab_name, "end"), False)
        return super().__await__()

    __iter__ = __await__

    def add_done_callback(self, function: Any, /, *, context: Any = _CALLERS) -> None:
        recorder.touch((self.lab_name, "callbacks"), True)
        if is_over(self) or not is_step(function):
            recorder.touch((self.lab_name, "end"), False)
        super().add_done_callback(function, context=context)

    def remove_done_callback(self, function: Any, /) -> int:
        recorder.touch((self.lab_name, "callbacks"), True)
        recorder.touch((self.lab_name, "end"), False)
        return super().remove_done_callback(function)


# asyncio says it in a message: "Task exception was never retrieved"
LabTask.__name__ = DeclaringTask.__name__ = "Task"


class LabFuture(asyncio.Future[Any]):
    """A future that declares its accesses; made by ``loop.create_future()``."""

    def __init__(self, *, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        recorder.made(self, "future")

    def set_result(self, result: Any, /) -> None:
        recorder.write(self)
        super().set_result(result)

    def set_exception(self, exception: Any, /) -> None:
        recorder.write(self)
        super().set_exception(exception)

    def cancel(self, msg: Any = None) -> bool:
        recorder.write(self)
        return super().cancel(msg)

    def done(self) -> bool:
        recorder.read(self)
        return super().done()

    def cancelled(self) -> bool:
        recorder.read(self)
        return super().cancelled()

    def result(self) -> Any:
        recorder.read(self)
        return super().result()

    def exception(self) -> BaseException | None:
        recorder.read(self)
        return super().exception()

    def add_done_callback(self, function: Any, /, **context: Any) -> None:
        recorder.write(self)  # callbacks are called in the order of their coming
        super().add_done_callback(function, **context)

    def remove_done_callback(self, function: Any, /) -> int:
        recorder.write(self)
        return super().remove_done_callback(function)

    def __repr__(self) -> str:
        recorder.read(self)
        return super().__repr__()

    def __await__(self) -> Any:
        recorder.read(self)
        return super().__await__()

    __iter__ = __await__


class LabTimer(OrderedTimer):
    """A timer that declares that it is cancelled, or that a step asks for it."""

    __slots__ = ("lab_resource",)
    lab_resource: Resource

    def cancel(self) -> None:
        recorder.touch(self.lab_resource, True)
        super().cancel()

    def cancelled(self) -> bool:
        recorder.touch(self.lab_resource, False)
        return super().cancelled()


class _AnyFuture(type):
    """Makes `isinstance(x, asyncio.Future)` true of all futures, as before."""

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, plain_future)


class _OwnFuture(LabFuture, metaclass=_AnyFuture):
    """The class that ``asyncio.Future`` names while declarations are recorded."""

    def __init__(self, *, loop: asyncio.AbstractEventLoop | None = None) -> None:
        super().__init__(loop=loop or asyncio.get_running_loop())


LabFuture.__name__ = _OwnFuture.__name__ = "Future"  # asyncio says it in its texts
plain_future = asyncio.Future
plain_task = asyncio.Task


@contextmanager
def declaring_futures() -> Iterator[None]:
    """Let ``asyncio.Future`` make futures that declare their accesses, also where a module has
    imported the class; asyncio's own modules excepted."""
    modules = [
        module
        for name, module in list(sys.modules.items())
        if getattr(module, "__dict__", {}).get("Future") is plain_future
        and not name.startswith(("asyncio.", "_asyncio", __name__))
    ]
    try:
        for module in modules:
            vars(module)["Future"] = _OwnFuture
        yield
    finally:
        for module in modules:
            vars(module)["Future"] = plain_future


task_name: Any = asyncio.Task.get_name
"""Returns the name of a task. For the lab's own use: records no access."""
coroutine_of: Any = asyncio.Task.get_coro
"""Returns what a task runs, which may be the lab's coroutine around the program's."""


is_over: Callable[[asyncio.Future[Any]], bool] = asyncio.Future.done
"""Return True if a task is over. For the lab's own use: records no access."""


def end_of(task: Any) -> str:
    """Say how a task has ended."""
    if task is None or not task.failed():
        return OVER
    if plain_future.cancelled(task):
        return f"{OVER}: it was cancelled"
    return f"{OVER}{RAISED}{first_line(describe(task._exception))}"


steppers: set[type] = set()
"""The class of the callbacks by which a task in C takes its steps, once there was one."""


def is_step(callback: Any) -> bool:
    """Return True if a callback of a task is a step of it, and not a method such as set_name."""
    kind = type(callback)
    if kind is BuiltinFunctionType:
        return bool(callback.__name__ == "task_wakeup")
    if kind is MethodType:  # of a task that is written in Python
        return str(callback.__name__).endswith(("__step", "__wakeup"))
    if kind.__name__ == "TaskStepMethWrapper":
        steppers.add(kind)
        return True
    return getattr(callback, "__name__", "") == "task_wakeup"


def check_future(future: Any) -> None:
    """Refuse to wake a task by a future that does not declare its accesses."""
    kind = type(future)
    if kind in (LabFuture, DeclaringTask) or issubclass(kind, LabFuture):
        return
    if not kind.__module__.startswith("asyncio.") or kind is plain_future:
        raise refuse(
            f"a task waits for a {kind.__module__}.{kind.__qualname__}, whose accesses dpor cannot "
            f"see; make the future by loop.create_future(), or use another strategy"
        )


def name_of(task: Any) -> Name | None:
    return task.lab_name if isinstance(task, LabTask) else None


def close_if_not_begun(task: LabTask) -> None:
    """Close the coroutine of a task that is cancelled before it begins. asyncio closes the lab's
    coroutine around it, which does not close the inner one."""
    if (
        task.lab_body is not None
        and inspect.getcoroutinestate(coroutine_of(task)) == inspect.CORO_CREATED
    ):
        task.lab_body.close()


def cancel_for_good(task: LabTask) -> None:
    """Cancel a task of an execution that is over. Tasks that await each other in a circle pass a
    cancellation on and on, which ends with a RecursionError. Such a task is woken instead, as if
    what it awaits had been cancelled."""
    close_if_not_begun(task)
    try:
        super(LabTask, task).cancel()
    except RecursionError:
        awaited: Any = task._fut_waiter  # type: ignore[attr-defined]  # asyncio's own
        cancelled: asyncio.Future[Any] = plain_future(loop=task.get_loop())
        cancelled.cancel()
        for callback, _ in list(awaited._callbacks or ()):
            if is_step(callback) and callback.__self__ is task:
                plain_future.remove_done_callback(awaited, callback)
                callback(cancelled)


class Driven:
    """Lets the lab's coroutine await what a task runs that is no coroutine of Python's own: an
    object that has the methods of one, or a generator. Like asyncio, it calls nothing else of it.
    """

    __slots__ = ("_coroutine", "close", "send", "throw")

    def __init__(self, coroutine: Any) -> None:
        self._coroutine = coroutine
        self.send = coroutine.send
        self.throw = coroutine.throw
        self.close = coroutine.close

    def __await__(self) -> Driven:
        return self

    def __next__(self) -> Any:
        return self.send(None)


def task_title(task: LabTask) -> str:
    """Return a name for people: the given one, or that of the task's function."""
    path = task.lab_name
    return title_of(task_name(task), default_name(path), path, task.get_coro())


def title_of(name: str, default: str, path: Name, coroutine: Any) -> str:
    """Return a name for people of a task with a name and with a default one."""
    if name not in (default, ""):
        return name
    if path == MAIN:
        return "main"
    return str(getattr(coroutine, "__qualname__", name))


def default_name(path: Name) -> str:
    """Return what a task is called that is given no name; the main one as in `asyncio.run`."""
    if path == MAIN:
        return "Task-1"
    return f"Task-{spell(path)}"
