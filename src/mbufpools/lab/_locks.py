"""The locks of threads, for which the program's threads wait in lock-step (`_lockstep`).

A lock that the program makes is a `_Lock`. One that is older, such as a variable of a module
(``_lock = threading.Lock()``), stays what it is; instead the methods of its class, which is written
in C, are replaced in the dictionary of the class, as those of `datetime` are. Outside of the
program they do what they did.

Where the program's own code takes a lock, another thread or task may come first, also if the lock
is free. Where other code does, such as `queue` and `logging`, none comes first; but if the lock is
taken, the thread waits for it in lock-step.

If an older lock is held outside of the program, the thread waits for it in real time. So it does
for every older lock on other implementations than CPython, whose methods are not replaced.
"""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from . import _lockstep
from ._lockstep import called_by_program, is_starting
from ._real_locks import give_back_really, make_lock, take_really
from ._redirected import methods_replaced
from ._running import inside, now

__all__ = ["LOCKS", "older_locks", "released"]

_real_rlock: Any = threading.RLock
_python_rlock: Any = threading._RLock  # the version in Python
_TAKING = frozenset({"_take", "_take_older", "acquire", "enter", "__enter__", "enter_context"})
"""The functions by which a lock is taken, of the lab, of `threading`'s classes around it, and of
`contextlib.ExitStack`."""


def _take(
    take: Callable[..., Any], is_taken: Callable[[], bool], blocking: bool, timeout: float
) -> bool:
    """Take a lock in the program.

    Args:
        take: takes it, with the arguments of `threading.Lock.acquire`.
        is_taken: returns True if the program holds it.
        blocking, timeout: as for `threading.Lock.acquire`.
    """
    if not blocking and timeout != -1:
        raise ValueError("can't specify a timeout for a non-blocking call")
    if timeout < 0 and timeout != -1:
        raise ValueError("timeout value must be a non-negative number")
    if _lockstep.any_thread() and called_by_program(_TAKING):
        _lockstep.give_way()
    end = math.inf if timeout == -1 else now() + timeout
    while not take(False):
        if not blocking or end <= now():
            return False
        if not is_taken():
            return bool(take(True, timeout))  # it is held outside of the program
        _wait_until_free(is_taken, end)
    return True


def _wait_until_free(is_taken: Callable[[], bool], end: float = math.inf) -> None:
    """Wait in lock-step until the program has released a lock, or until a time has come.

    The lock is given to nobody: all that wait compete for it. And no thread takes it in the name of
    another one, since an RLock has an owner.
    """
    _lockstep.wait(lambda: not is_taken(), None if end == math.inf else end - now())


class _LockKind(type):
    """Makes ``threading.Lock()`` a real lock outside of the program; both kinds are instances."""

    def __call__(cls) -> Any:
        return super().__call__() if inside() else make_lock()

    def __instancecheck__(cls, instance: object) -> bool:
        return type(instance) in (cls, _LOCK_TYPE)


_LOCK_TYPE = type(make_lock())


class _Lock(metaclass=_LockKind):
    """A lock that the program has made, for which its threads wait in lock-step."""

    __slots__ = ("__weakref__", "_lock")

    def __init__(self) -> None:
        self._lock = make_lock()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        if not inside() or is_starting():
            return bool(take_really(self._lock, blocking, timeout))
        return _take(partial(take_really, self._lock), self._lock.locked, blocking, timeout)

    def release(self) -> None:
        give_back_really(self._lock)
        if inside():
            _lockstep.recheck()

    def locked(self) -> bool:
        return bool(self._lock.locked())

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *error: object) -> None:
        self.release()

    def _at_fork_reinit(self) -> None:
        self._lock._at_fork_reinit()

    def __repr__(self) -> str:
        return repr(self._lock)


def _make_rlock(*args: Any, **options: Any) -> Any:
    if not inside():
        return _real_rlock(*args, **options)
    lock = _python_rlock(*args, **options)
    lock._block = _Lock()
    return lock


LOCKS: list[tuple[Any, str, Any]] = [
    (threading, "Lock", _Lock),
    (threading, "RLock", _make_rlock),
]
"""What makes locks, and what is to stand in its place."""


# Locks that are older than the execution


def _is_real() -> bool:
    """Return True if a lock is used outside of the program, or by the lab itself."""
    if not inside() or is_starting():
        return True
    module = str(sys._getframe(2).f_globals.get("__name__", ""))
    return module.startswith(f"{__package__}.")


_taken: dict[int, list[Any]] = {}
"""The older locks that the program has taken, by identity: each lock once for each time. Another
lock that is not free is held outside of the program."""


def _take_older(take: Callable[..., Any], lock: Any, blocking: bool, timeout: float) -> bool:
    """Take an older lock in the program, and note that."""
    got = _take(partial(take, lock), lambda: id(lock) in _taken, blocking, timeout)
    if got:
        _taken.setdefault(id(lock), []).append(lock)
    return got


def _forget(lock: Any) -> list[Any]:
    """Note that the program has released a lock as often as it had taken it."""
    times = _taken.pop(id(lock), [])
    if times:
        _lockstep.recheck()
    return times


@contextmanager
def released(condition: Any) -> Iterator[None]:
    """Release the lock of a condition inside of the ``with`` block, however often the calling
    thread has taken it. A condition has kept the methods of an `RLock` that do so, so they cannot
    be replaced."""
    lock = condition._lock
    is_older = type(lock) is _OLDER_RLOCK
    saved = condition._release_save()
    times = _forget(lock) if is_older else []
    try:
        yield
    finally:
        while is_older and id(lock) in _taken:
            _wait_until_free(lambda: id(lock) in _taken)
        condition._acquire_restore(saved)
        if times:
            _taken[id(lock)] = times


def _in_lockstep(cls: type) -> dict[str, Any]:
    """Return what is to stand in the place of the methods of a class of locks."""
    take, give_back = vars(cls)["acquire"], vars(cls)["release"]

    def acquire(lock: Any, blocking: bool = True, timeout: float = -1) -> bool:
        if _is_real():
            return bool(take(lock, blocking, timeout))
        return _take_older(take, lock, blocking, timeout)

    def enter(lock: Any) -> bool:
        if _is_real():
            return bool(take(lock))
        return _take_older(take, lock, True, -1)

    def release(lock: Any, *error: object) -> None:
        give_back(lock)
        times = _taken.get(id(lock))
        if times is not None:
            times.pop()
            if not times:
                del _taken[id(lock)]
            if inside():
                _lockstep.recheck()

    for function, name in ((acquire, "acquire"), (enter, "__enter__"), (release, "release")):
        function.__name__ = name
    return {"acquire": acquire, "__enter__": enter, "release": release, "__exit__": release}


_OLDER_RLOCK = type(_real_rlock())
_CLASSES = [type(make_lock()), _OLDER_RLOCK]


@contextmanager
def older_locks() -> Iterator[None]:
    """Let the program's threads wait in lock-step for locks that are older than the execution."""
    with methods_replaced({cls: _in_lockstep(cls) for cls in _CLASSES}):
        try:
            yield
        finally:
            _taken.clear()
