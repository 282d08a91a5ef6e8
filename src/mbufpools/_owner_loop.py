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

import asyncio
import os
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

import anyio
from anyio.lowlevel import current_token

from ._errors import UsageError

__all__ = ["OwnerLoop"]


class OwnerLoop:
    """The event loop and the thread of one pool set; they are known from `enter` on."""

    __slots__ = (
        "__weakref__",
        "_clock",
        "_current",
        "_lock",
        "_run_soon",
        "_start",
        "_state",
        "_token",
        "deferred",
        "name",
        "thread",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        """The name of the pool set, for messages."""
        self.thread = 0
        """The number of the owner's thread while the set is open, else 0."""
        self.deferred: deque[Callable[[], bool]] = deque()
        """What is to be run on the owner's thread; see `run_on_owner`."""
        self._state = "new"
        self._clock: Callable[[], float] = lambda: 0.0
        self._start = 0.0
        self._token: object = None
        self._current: Callable[[], object] = current_token
        """Returns the running loop; if that is of another kind, None, or a RuntimeError."""
        self._run_soon: Callable[..., Any] | None = None
        self._lock = threading.Lock()

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
        self._token = token = current_token().native_token
        if isinstance(token, asyncio.AbstractEventLoop):
            self._clock = token.time
            self._current = asyncio._get_running_loop
            self._run_soon = token.call_soon_threadsafe
        else:
            self._clock = sys.modules["trio"].current_time
            self._current = sys.modules["trio"].lowlevel.current_trio_token
            self._run_soon = token.run_sync_soon  # type: ignore[attr-defined]  # a TrioToken
        self._start = self._clock()
        self._state = "open"
        self.thread = threading.get_ident()
        _open.add(self)

    def close(self) -> None:
        """Let go of the loop. An item that comes back later is taken back at once, by the thread
        that brings it."""
        _open.discard(self)
        end = self._clock()
        self._clock = lambda: end
        self._leave("closed")

    def _leave(self, state: str) -> None:
        self._state = state
        self.thread = 0
        self._run_soon = None

    def now(self) -> int:
        """Return the microseconds of the loop's clock since `enter`. They are an integer, because
        in floats ``2.2 - 1.2 > 1`` is true."""
        return round((self._clock() - self._start) * 1_000_000)

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
            f"{self.name} belongs to the event loop of another thread; have it call this, by "
            f"anyio.from_thread.run_sync (only the release of a buffer works from any thread)"
        )

    def check_thread(self) -> None:
        """Raise UsageError if the set is open on a thread that is not the caller's."""
        if self.thread not in (0, threading.get_ident()):
            self.raise_misuse()

    def check_loop(self) -> None:
        """Raise UsageError unless the running loop is the one that was entered."""
        try:
            if self._current() is self._token:
                return
        except RuntimeError:
            pass
        raise UsageError(
            f"{self.name} belongs to another event loop; make a pool set for each loop"
        )

    def being_cancelled(self) -> bool:
        """Return True if the cancellation that was just caught was meant for this task. On asyncio
        it may also come out of something that the task awaits; then return False."""
        if isinstance(self._token, asyncio.AbstractEventLoop):
            task = asyncio.current_task()
            return task is not None and task.cancelling() > 0
        return True

    def run_on_owner(self, call: Callable[[], bool]) -> None:
        """Have `call` called on the owner's thread, soon, and again until it returns True.

        May be called from any thread, and from ``__del__``. Never blocks. After the close, `call`
        is called at once, on the caller's thread.
        """
        self.deferred.append(call)
        run_soon = self._run_soon
        if run_soon is not None:
            try:
                run_soon(self.run_deferred)
            except RuntimeError:  # the loop has stopped; the close of the set runs what is deferred
                pass
        if self.closed:
            self.run_deferred()

    def run_deferred(self) -> None:
        """Run what is deferred, on the owner's thread or after the close; elsewhere do nothing."""
        if threading.get_ident() == self.thread:
            self._deliver()
            return
        # No loop serializes the callers any more. If the lock is taken (perhaps by this same
        # thread, inside a `__del__`), leave the item queued: the lock's owner will process it.
        while self.closed and self.deferred and self._lock.acquire(blocking=False):
            try:
                left = len(self.deferred)
                left -= self._deliver()
            finally:
                self._lock.release()
            if len(self.deferred) <= left:  # nothing new came, and the rest cannot be taken now
                break

    def _deliver(self) -> int:
        """Try each deferred call once; keep those that return False, and return the number of the
        others."""
        deferred = self.deferred
        delivered = 0
        for _ in range(len(deferred)):
            call = deferred.popleft()
            if call():
                delivered += 1
            else:
                deferred.append(call)
        return delivered


_open: weakref.WeakSet[OwnerLoop] = weakref.WeakSet()


def _after_fork() -> None:
    for owner_loop in list(_open):
        owner_loop._clock = lambda: 0.0
        owner_loop._start = 0.0
        owner_loop._leave("forked")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
