"""The one module that parks and wakes tasks: futures on asyncio, `wait_task_rescheduled` on trio.

It is not `anyio.Event`, which is built on the same two and makes more objects for each waiter, and
not `anyio.Condition`, which needs its lock held to notify, so that a put could not be a plain
function, and which wakes a task to try again.

A *sleeper* is awaited once, by one task, and woken by a plain function. A sleeper that was woken
before, or whose task was cancelled, is not woken again. On asyncio a sleeper may be woken and its
task cancelled before the task runs, so a wait is judged by what the request holds.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Awaitable, Callable, Generator
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio

if TYPE_CHECKING:
    import asyncio

__all__ = ["Waits", "current_waits", "has_ended", "loop_of_asyncio", "name_of", "turn"]


def loop_of_asyncio(token: object) -> asyncio.AbstractEventLoop | None:
    """Return `token`, the native token of anyio, if it is an event loop of asyncio's kind.

    The library imports asyncio only where such a loop runs, so that it has been imported before.
    On trio it need not be."""
    if "asyncio" in sys.modules:
        import asyncio

        if isinstance(token, asyncio.AbstractEventLoop):
            return token
    return None


@types.coroutine
def turn() -> Generator[None, None, None]:
    """Let the other tasks of asyncio run once: a checkpoint, as ``asyncio.sleep(0)`` is, with one
    frame less."""
    yield


class Waits:
    """Parks and wakes the tasks of one event loop."""

    __slots__ = ("checkpoint", "native_task", "sleeper")

    checkpoint: Callable[[], Awaitable[None]]
    """A plain checkpoint of the backend: it can be cancelled, and yields to the loop."""
    sleeper: Callable[[], Any]
    """Makes a sleeper. It is awaitable, and has `done` and `set_result` as a future has."""
    native_task: Callable[[], Any]
    """Returns the running task of the loop. On asyncio None if none runs."""

    def __init__(self, token: object) -> None:
        loop = loop_of_asyncio(token)
        if loop is not None:
            self.checkpoint = turn
            self.sleeper = loop.create_future
            # With its loop it need not ask which one runs, a call of the system on Python 3.11.
            self.native_task = partial(sys.modules["asyncio"].current_task, loop)
        else:
            self.checkpoint = sys.modules["trio"].lowlevel.checkpoint
            self.sleeper = _TrioSleeper
            self.native_task = sys.modules["trio"].lowlevel.current_task

    def current_task(self) -> Any:
        """Return the running task of the backend, or None if no task runs."""
        try:
            return self.native_task()
        except RuntimeError:  # trio, and asyncio if the loop does not run
            return None


def name_of(task: Any) -> str:
    """Return the name of a backend's task."""
    name: str = task.get_name() if hasattr(task, "get_name") else task.name
    return name or f"task {id(task)}"


def has_ended(task: Any) -> bool:
    """Return True if a backend's task has come to its end."""
    if hasattr(task, "done"):
        return bool(task.done())
    if hasattr(task.coro, "cr_frame"):
        return task.coro.cr_frame is None
    return task not in task.parent_nursery.child_tasks  # its coroutine is one by its methods


class _TrioSleeper:
    """A task of trio that waits to be rescheduled."""

    __slots__ = ("_task", "_woken")

    def __init__(self) -> None:
        self._task: Any = None
        self._woken = False

    def __await__(self) -> Generator[Any, Any, None]:
        lowlevel = sys.modules["trio"].lowlevel
        if self._woken:
            yield from lowlevel.checkpoint().__await__()
            return
        self._task = lowlevel.current_task()
        yield from lowlevel.wait_task_rescheduled(self._abort).__await__()

    def _abort(self, _: object) -> Any:
        self._task = None
        return sys.modules["trio"].lowlevel.Abort.SUCCEEDED

    def done(self) -> bool:
        """Return True if it was woken. It was not if an exception has ended `set_result` in its
        middle: then `set_result` is called again."""
        return self._woken and self._task is None

    def set_result(self, _: None) -> None:
        """Wake the task that sleeps here, if it still does."""
        self._woken = True
        if self._task is not None:
            sys.modules["trio"].lowlevel.reschedule(self._task); self._task = None  # noqa: E702 - one step  # fmt: skip


def current_waits() -> Waits:
    """Return the waits of the running event loop."""
    return Waits(anyio.lowlevel.current_token().native_token)
