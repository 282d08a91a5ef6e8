"""The owner loop of a pool set: the event loop and the thread that the set belongs to.

It has the clock, it refuses calls from other loops and threads, and it runs what must happen on
its own thread.

A set is *new*, then *open* between ``__aenter__`` and ``__aexit__``, then *closed*. In a forked
child a set that was open is *forked*, because its loop runs in the parent. While the set is open,
`thread` is the number of its thread; at all other times it is 0. So one comparison on the hot path
decides whether a call is allowed. If it is not, `raise_misuse` finds out why.

An item may come back from another thread, or from a buffer that was dropped without a release;
``__del__`` may run in the middle of a get or a put. Such an item is only appended to `deferred`,
and the loop takes it back soon afterwards. After the close, the thread that brings an item back
takes it back at once.

Invariant: items are taken back by one thread at a time, and never inside another operation.
"""

from __future__ import annotations

import os
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Coroutine
from functools import cache, partial
from inspect import iscoroutinefunction
from types import FrameType, FunctionType
from typing import TYPE_CHECKING, Any

import anyio

from ._errors import UsageError
from ._log import logger
from ._page import Item
from ._waits import Waits, loop_of_asyncio

if TYPE_CHECKING:
    import asyncio

__all__ = ["OwnerLoop"]


class OwnerLoop:
    """The event loop and the thread of one pool set; they are known from `enter` on."""

    __slots__ = (
        "__weakref__",
        "_closer",
        "_current",
        "_lock",
        "_loop",
        "_run_soon",
        "_start",
        "_state",
        "_token",
        "clock",
        "deferred",
        "lost",
        "name",
        "open_to",
        "thread",
        "waits",
    )

    def __init__(self, name: str) -> None:
        self.name: str = name
        """The name of the pool set, for messages."""
        self.thread: int = 0
        """The number of the owner's thread while the set is open, else 0."""
        self.open_to: int = 0
        """The gate: the number of the thread whose gets may simply take a free item. 0 while an
        older request has a better right, the set is broken, or it is not open."""
        self.deferred: deque[Callable[[], None]] = deque()
        """What is to be run on the owner's thread; see `run_on_owner`."""
        self.lost: deque[Item] = deque()
        """New tokens of items whose token died; see `Item`."""
        self._state = "new"
        self.clock: Callable[[], float] = lambda: 0.0
        """Returns the seconds of the loop's clock; after the close those of the close."""
        self._start = 0.0
        self._token: object = None
        self._loop: asyncio.AbstractEventLoop | None = None
        """The loop, if it is of asyncio's kind."""
        self._current: Callable[[], object] = lambda: None
        """Returns the running loop; if that is of another kind, None, or a RuntimeError."""
        self._run_soon: Callable[..., Any] | None = None
        self._lock = threading.Lock()
        self._closer = 0
        """The number of the thread that holds `_lock` for the close."""
        self.waits: Waits
        """How the tasks of the loop are parked and woken; known from `enter` on."""

    @property
    def open(self) -> bool:
        """True between the entry and the close."""
        return self._state == "open"

    @property
    def closed(self) -> bool:
        """True after the close, and in a forked child. No loop takes care of the set any more."""
        return self._state in ("closed", "forked")

    def enter(self) -> None:
        """Bind to the running event loop. Raises UsageError if the set was entered before."""
        if self._state != "new":
            raise UsageError(
                f"{self.name} was entered before; a pool set lives once, so make a new one"
            )
        logger()  # which imports what it needs now; at the shutdown it could not
        self._token = token = anyio.lowlevel.current_token().native_token
        self._loop = loop = loop_of_asyncio(token)
        if loop is not None:
            self.clock = loop.time
            self._current = sys.modules["asyncio"]._get_running_loop
            from contextvars import copy_context  # here, as the loop has imported it

            # A call from another thread would run without the context of anyio, which then takes
            # the loop for none.
            self._run_soon = partial(loop.call_soon_threadsafe, context=copy_context())
        else:
            for module in list(sys.modules):  # at each entry: some are imported late
                if module.startswith(_CORE):
                    _protect_from_interrupts(module)
            self.clock = sys.modules["trio"].lowlevel.current_clock().current_time
            self._current = sys.modules["trio"].lowlevel.current_trio_token
            self._run_soon = token.run_sync_soon  # type: ignore[attr-defined]  # a TrioToken
        self.waits = Waits(token)
        self._start = self.clock()
        self._state = "open"
        self.thread = threading.get_ident()
        _open.add(self)

    def close(self) -> None:
        """Let go of the loop. An item that comes back later is taken back at once, by the thread
        that brings it."""
        _open.discard(self)
        end = self.clock()
        self.clock = lambda: end
        self._leave("closed")

    def _leave(self, state: str) -> None:
        self._state = state
        self.thread = self.open_to = 0
        self._run_soon = None

    def now(self) -> int:
        """Return the microseconds of the loop's clock since `enter`. They are an integer, because
        in floats ``2.2 - 1.2 > 1`` is true."""
        return round((self.clock() - self._start) * 1_000_000)

    def microseconds_since(self, time: float) -> int:
        """Return the microseconds since a time that `clock` has returned."""
        return round((self.clock() - time) * 1_000_000)

    def loop_time(self, microseconds: int) -> float:
        """Return the time of the loop's clock, in seconds, `microseconds` after `enter`."""
        return self._start + microseconds / 1_000_000

    def raise_misuse(self) -> None:
        """Raise the error for a call from a thread that is not `thread`.

        Raises:
            anyio.ClosedResourceError: the set is closed.
            UsageError: the set is not entered yet, belongs to another thread, or was entered
                before a fork.
        """
        if self._state == "closed":
            raise anyio.ClosedResourceError(
                f"{self.name} is closed; nothing can be taken from it any more"
            )
        if self._state == "forked":
            raise UsageError(
                f"{self.name} was entered before this process was forked; make a new pool set here"
            )
        if self._state == "new":
            raise UsageError(f"{self.name} is not entered; use it inside of its `async with`")
        raise UsageError(
            f"{self.name} belongs to the event loop of another thread; call this in that loop, by "
            "loop.call_soon_threadsafe or asyncio.run_coroutine_threadsafe (in a thread of "
            "anyio.to_thread, by anyio.from_thread.run or run_sync); only the release of a buffer "
            "works from any thread"
        )

    def check_thread(self) -> None:
        """Raise UsageError if the set is open on a thread that is not the caller's."""
        if self.thread not in (0, threading.get_ident()):
            self.raise_misuse()

    def running_task(self) -> Any:
        """Return the running task of the loop that was entered, or None if no task runs. Raises
        UsageError as `check_loop` does. The caller must be on the owner's thread: there a task of
        an asyncio loop runs only if the loop runs, and to ask for the task takes less time."""
        task = None if self._loop is None else self.waits.native_task()
        if task is None:
            self.check_loop()
            task = self.waits.current_task()
        return task

    def check_loop(self) -> None:
        """Raise UsageError unless the running loop is the one that was entered."""
        try:
            if self._current() is self._token:
                return
        except RecursionError:  # a RuntimeError, too, but it tells nothing of the loop
            raise
        except RuntimeError:
            pass
        raise UsageError(
            f"{self.name} belongs to another event loop; make a pool set for each loop"
        )

    @property
    def simulated(self) -> bool:
        """True if the loop, or its clock, is one of the lab's."""
        clock: object = self._token
        if not self.on_asyncio:
            clock = sys.modules["trio"].lowlevel.current_clock()
        return type(clock).__module__.startswith(f"{__package__}.lab")

    @property
    def on_asyncio(self) -> bool:
        """True if the loop is one of asyncio's kind."""
        return self._loop is not None

    def spawn(self, function: Callable[[], Coroutine[Any, Any, None]], name: str) -> object:
        """Start a task of the loop's own, which no task group surrounds: a task on asyncio, a
        system task on trio."""
        if self._loop is not None:
            return self._loop.create_task(function(), name=name)
        return sys.modules["trio"].lowlevel.spawn_system_task(function, name=name)

    def call_later(self, microseconds: int, call: Callable[[], None]) -> None:
        """Have `call` called after some time, if the loop is of asyncio's kind. (On trio the one
        caller of this needs it only when the run has ended.)"""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_later(microseconds / 1_000_000, call)

    def being_cancelled(self) -> bool:
        """Return True if the cancellation that was just caught was meant for this task. On asyncio
        it may also come out of something that the task awaits; then return False."""
        if self._loop is not None:
            task: asyncio.Task[object] | None = self.waits.native_task()
            return task is not None and task.cancelling() > 0
        return True

    def wake(self) -> None:
        """Have `lost` and `deferred` emptied soon on the owner's thread; after the close at once,
        on the caller's. May be called from any thread, and from ``__del__``."""
        self.soon(self.run_deferred)
        if self.closed:
            self.run_deferred()

    def soon(self, call: Callable[[], None]) -> None:
        """Have the loop make a call, if it can be asked to."""
        run_soon = self._run_soon
        if run_soon is not None:
            try:
                run_soon(call)
            except RuntimeError:
                pass  # the loop has stopped, and the close sees to it; or no stack is left

    def run_on_owner(self, call: Callable[[], None]) -> None:
        """Have `call` called on the owner's thread, soon. May be called from any thread, and from
        ``__del__``. Never blocks. After the close, `call` is called at once, on the caller's
        thread."""
        self.deferred.append(call)
        self.wake()

    def run_deferred(self) -> None:
        """Run what is deferred, on the owner's thread or after the close; elsewhere do nothing."""
        if threading.get_ident() == self.thread:
            self._deliver()
            return
        # No loop serializes the callers any more. If the lock is taken (perhaps by this same
        # thread, inside a `__del__`), leave the item queued: the lock's owner will process it.
        while self.closed and (self.lost or self.deferred) and self._lock.acquire(blocking=False):
            try:
                self._deliver()
            finally:
                self._lock.release()

    def run_deferred_if_idle(self) -> None:
        """Run what is deferred, unless the garbage collector, or the end of an export, interrupts
        a call of this library: then the loop does it soon.

        The callers of this function are found by their modules, which costs the calls of the
        library nothing.
        """
        if threading.get_ident() != self.thread:
            return
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and frame.f_globals.get("__name__") != _CALLBACK:
            frame = frame.f_back
        while frame is not None and frame.f_globals.get("__name__") == _CALLBACK:
            frame = frame.f_back
        while frame is not None:
            if str(frame.f_globals.get("__name__")).startswith(_CORE):
                return
            frame = frame.f_back
        self._deliver()

    def _deliver(self) -> None:
        """Take each lost item home, and make each deferred call."""
        while self.lost:
            item = self.lost.popleft(); item.index = ~item.index  # noqa: E702 - one step  # fmt: skip
            item.page.lists.recover(item)
        while self.deferred:
            self.deferred.popleft()()

    def begin_close(self) -> None:
        """Close for the calls of all threads. What comes home from now on waits until `end_close`.
        After an exception in the middle of a close, the same thread calls it again."""
        if self._closer != threading.get_ident():
            self._lock.acquire(); self._closer = threading.get_ident()  # noqa: E702 - one step  # fmt: skip
        if not self.closed:
            self.close()
        self._deliver()

    def end_close(self) -> None:
        """Take home what came meanwhile; from now on each thread does it for what it brings."""
        if self._lock.locked():
            self._lock.release(); self._closer = 0  # noqa: E702 - one step  # fmt: skip
        self.run_deferred()


_CORE = f"{__name__.partition('.')[0]}._"
_CALLBACK = f"{_CORE}window"


@cache
def _protect_from_interrupts(name: str) -> None:
    """Mark the plain functions of a module of the core, so that trio raises no KeyboardInterrupt
    inside them: it comes out of the next checkpoint instead. It costs nothing a call. Done once,
    when a set is entered on trio, because the core imports no trio."""
    enable = sys.modules["trio"].lowlevel.enable_ki_protection
    module = sys.modules[name]
    things = [thing for thing in vars(module).values() if getattr(thing, "__module__", 0) == name]
    for thing in things:
        for member in vars(thing).values() if isinstance(thing, type) else (thing,):
            function = getattr(member, "fget", None) or getattr(member, "__func__", member)
            if isinstance(function, FunctionType) and not iscoroutinefunction(function):
                enable(function)


_open: weakref.WeakSet[OwnerLoop] = weakref.WeakSet()


def _after_fork() -> None:
    for owner_loop in list(_open):
        owner_loop.clock = lambda: 0.0
        owner_loop._start = 0.0
        owner_loop._leave("forked")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
