"""The event loop that a pool set lives on: its clock, its thread, and the way home for items
that come back from elsewhere.

A set is *new*, then *open* between ``__aenter__`` and ``__aexit__``, then *closed*; in a forked
child one that was open is *forked*, for its loop runs in the parent. While it is open, `thread`
is the number of its thread, and else 0, so that one comparison on the hot path tells whether a
call is in its place; `raise_misuse` then finds out what is wrong.

Items that come home from another thread, or from a buffer that was dropped without a release,
are only put into the mailbox: ``__del__`` may run in the middle of a get or a put. The loop
empties it. Uses `_errors`.
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
    """The event loop of one pool set, known from `enter` on."""

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
        """Of the pool set, for messages."""
        self.thread = 0
        self.deferred: deque[Callable[[], bool]] = deque()
        self._state = "new"
        self._clock: Callable[[], float] = lambda: 0.0
        self._start = 0.0
        self._token: object = None
        self._current: Callable[[], object] = current_token
        """The running loop; None, or a RuntimeError, if it is of the other kind."""
        self._run_soon: Callable[..., Any] | None = None
        self._lock = threading.Lock()

    @property
    def open(self) -> bool:
        """Entered, and not closed yet."""
        return self._state == "open"

    @property
    def closed(self) -> bool:
        """Entered once, and left; or forked. No loop takes care of the set any more."""
        return self._state in ("closed", "forked")

    def enter(self) -> None:
        """Bind to the running event loop. Raises UsageError if it was entered before."""
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
        """Let go of the loop. What still comes home is taken at once, by whoever brings it."""
        _open.discard(self)
        end = self._clock()
        self._clock = lambda: end
        self._leave("closed")

    def _leave(self, state: str) -> None:
        self._state = state
        self.thread = 0
        self._run_soon = None

    def now(self) -> int:
        """Microseconds of the loop's clock since `enter`; an integer, for in floats
        ``2.2 - 1.2 > 1``."""
        return round((self._clock() - self._start) * 1_000_000)

    def loop_time(self, microseconds: int) -> float:
        """The loop's clock, in seconds, at that many microseconds after `enter`."""
        return self._start + microseconds / 1_000_000

    def raise_misuse(self) -> None:
        """Raise the error that fits a call made while `thread` is not the caller's.

        Raises:
            anyio.ClosedResourceError: the set is closed.
            UsageError: not entered yet, or another thread's, or entered before a fork.
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
        """Raise UsageError if the set is open on another thread than the caller's."""
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
        """True if the cancellation that was just caught was meant for this task; False if it
        came out of something that the task awaits, which asyncio alone allows."""
        if isinstance(self._token, asyncio.AbstractEventLoop):
            task = asyncio.current_task()
            return task is not None and task.cancelling() > 0
        return True

    def run_on_owner(self, bring_home: Callable[[], bool]) -> None:
        """Have `bring_home` called on the loop's thread, soon, and again until it returns True.

        From any thread, and from ``__del__``; never blocks.
        """
        self.deferred.append(bring_home)
        run_soon = self._run_soon
        if run_soon is not None:
            try:
                run_soon(self.run_deferred)
            except RuntimeError:  # the loop has stopped; `close` empties the mailbox
                pass
        if self.closed:
            self.run_deferred()

    def run_deferred(self) -> None:
        """Take home what lies in the mailbox, on the loop's thread or after the close."""
        if threading.get_ident() == self.thread:
            self._deliver()
            return
        # No loop serializes the callers any more. Whoever finds the lock taken, be it by his own
        # thread in the middle of a ``__del__``, leaves his item to the one who has it.
        while self.closed and self.deferred and self._lock.acquire(blocking=False):
            try:
                left = len(self.deferred)
                left -= self._deliver()
            finally:
                self._lock.release()
            if len(self.deferred) <= left:  # nothing came meanwhile; what is left cannot be taken
                break

    def _deliver(self) -> int:
        """Take home what can be; return how many."""
        deferred = self.deferred
        delivered = 0
        for _ in range(len(deferred)):
            bring_home = deferred.popleft()
            if bring_home():
                delivered += 1
            else:
                deferred.append(bring_home)
        return delivered


_open: weakref.WeakSet[OwnerLoop] = weakref.WeakSet()


def _after_fork() -> None:
    for owner_loop in list(_open):
        owner_loop._clock = lambda: 0.0
        owner_loop._start = 0.0
        owner_loop._leave("forked")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
