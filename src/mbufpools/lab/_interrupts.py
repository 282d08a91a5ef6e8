"""Ctrl-C and alarms while the lab explores: the exploration stops at once, and the program is not
blamed.

Python raises KeyboardInterrupt wherever the main thread happens to be, and so does a handler of
SIGALRM raise its own exception, as that of pytest-timeout does. That may be inside a task of the
program, which may catch it, or a task group, which wraps it; it would then look like a failure of
the program. So while the lab explores, handlers of its own note what stops the exploration, and
raise it only where the program's own code runs. Backends ask `check` at every step.

The handlers are installed in the main thread alone. That of Ctrl-C is only installed in the place
of Python's own, and that of SIGALRM only if there is one, which it calls.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from ._leaks import collect_unheard
from ._outcome import leaves
from ._redirected import real
from ._running import inside

__all__ = ["check", "drop_if_interrupted", "interrupt", "interruptible", "pending", "raised_by"]

PATIENCE = 1.0
"""Real seconds after the first Ctrl-C in which further ones are ignored, since a terminal or an
impatient hand sends several. Later ones are raised, wherever the thread is."""

_NOT_OURS = frozenset(
    {"_weakrefset", "anyio", "asyncio", "mbufpools", "outcome", "trio", "weakref"}
)
"""Packages in whose code nothing is raised: it would break their state, or, in a callback of a weak
reference, be printed and lost."""

_monotonic = real(time.monotonic)
_active = False
_stop: BaseException | None = None
"""What stops the exploration."""
_first: float | None = None
"""When the first Ctrl-C came, by the clock of the machine."""


def pending() -> bool:
    """Return True if the exploration was interrupted."""
    return _stop is not None


def check() -> None:
    """Raise what stops the exploration, if it was interrupted."""
    if _stop is not None:
        raise _stop


def interrupt() -> BaseException:
    """Return what stops the exploration: by default a KeyboardInterrupt."""
    return _stop or KeyboardInterrupt()


def raised_by(error: BaseException | None) -> bool:
    """Return True if an error is what stops the exploration or a KeyboardInterrupt, or a group
    that holds one."""
    if error is not None and error is _stop:
        return True
    return any(isinstance(it, KeyboardInterrupt) or it is _stop for it in leaves(error))


def _is_ours(handler: object) -> bool:
    return handler is signal.default_int_handler or handler is _handle


@contextmanager
def interruptible() -> Iterator[None]:
    """Note each Ctrl-C and alarm, and raise what they raise at the end if there was one."""
    global _active, _first, _stop
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    keyboard = _is_ours(signal.getsignal(signal.SIGINT))
    _active, _first, _stop = keyboard, None, None
    if keyboard:
        signal.signal(signal.SIGINT, _handle)
    alarm = _listen_to_alarms()
    try:
        yield
    except BaseException as error:
        drop_if_interrupted(error)
        raise
    finally:
        stop, _stop, _active = _stop, None, False
        if alarm is not None:
            signal.signal(signal.SIGALRM, alarm)
        if stop is not None:
            # The handler of Ctrl-C stays, so that no further one of the same moment interrupts
            # those who clean up now; a later one puts Python's own back.
            raise stop
        if keyboard:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def drop_if_interrupted(error: BaseException) -> None:
    """Drop in silence what an interrupted execution has left, and not when Python ends."""
    if raised_by(error):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _let_go(error)
        collect_unheard()


def _let_go(error: BaseException) -> None:
    """Drop what the frames of an interrupted execution hold, also those that the handler of the
    signal has interrupted, which are in no traceback."""
    seen: BaseException | None = error
    while seen is not None:
        for entry, _ in traceback.walk_tb(seen.__traceback__):
            frame: FrameType | None = entry
            while frame is not None:
                try:
                    frame.clear()
                except RuntimeError:
                    break  # it runs, and so do those that have called it
                frame = frame.f_back
        seen = seen.__context__
    error.__context__ = None


def _listen_to_alarms() -> Any:
    """Put the lab's handler around that of SIGALRM, and return it; None if there is none."""
    if not hasattr(signal, "SIGALRM"):
        return None
    handler = signal.getsignal(signal.SIGALRM)
    if not callable(handler):
        return None

    def ring(signum: int, frame: FrameType | None) -> None:
        global _stop
        try:
            handler(signum, frame)
        except BaseException as error:  # noqa: ASYNC103 - it is to stop the exploration
            if _stop is None:
                _stop = error
            if _in_program(frame):
                raise
            error.__traceback__ = None  # it leads to all that was interrupted

    signal.signal(signal.SIGALRM, ring)
    return handler


def _in_program(frame: FrameType | None) -> bool:
    """Return True if an exception may be raised in the middle of what runs: in the program, or in a
    module of Python that the program has called."""
    while frame is not None:
        package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if package in _NOT_OURS:
            return False
        if package not in sys.stdlib_module_names or not inside():
            return True  # outside of an execution the lab waits for its workers
        frame = frame.f_back
    return True


def _handle(signum: int, frame: FrameType | None) -> None:
    global _first, _stop
    if not _active:
        if _first is None or _monotonic() - _first > PATIENCE:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            raise KeyboardInterrupt
    elif _first is None:
        _first = _monotonic()
        _stop = KeyboardInterrupt()
        if _in_program(frame):
            raise _stop
    elif _monotonic() - _first > PATIENCE:
        raise KeyboardInterrupt
