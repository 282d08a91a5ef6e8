"""Ctrl-C while the lab explores: the exploration stops at once, and the program is not blamed.

Python raises KeyboardInterrupt wherever the main thread happens to be. That may be inside a task of
the program, which may catch it, or a task group, which wraps it; it would then look like a failure
of the program. So while the lab explores, its own handler notes the interrupt, and raises only
where the program's own code runs. Backends ask `check` at every step.

The handler is installed in the main thread alone, and only in the place of Python's own.
"""

from __future__ import annotations

import signal
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic  # the real one
from types import FrameType

from ._leaks import collect_unheard

__all__ = ["check", "interruptible", "pending", "raised_by"]

PATIENCE = 1.0
"""Real seconds after the first Ctrl-C in which further ones are ignored, since a terminal or an
impatient hand sends several. Later ones are raised, wherever the thread is."""

_NOT_OURS = frozenset(
    {"_weakrefset", "anyio", "asyncio", "mbufpools", "outcome", "trio", "weakref"}
)
"""Packages in whose code nothing is raised: it would break their state, or, in a callback of a weak
reference, be printed and lost."""

_active = False
_first: float | None = None
"""When the first Ctrl-C came, by the clock of the machine."""


def pending() -> bool:
    """Return True if the exploration was interrupted."""
    return _active and _first is not None


def check() -> None:
    """Raise KeyboardInterrupt if the exploration was interrupted."""
    if _active and _first is not None:
        raise KeyboardInterrupt


def raised_by(error: BaseException | None) -> bool:
    """Return True if an error is a KeyboardInterrupt, or a group that holds one."""
    if isinstance(error, BaseExceptionGroup):
        return any(map(raised_by, error.exceptions))
    return isinstance(error, KeyboardInterrupt)


def _is_ours(handler: object) -> bool:
    return handler is signal.default_int_handler or handler is _handle


@contextmanager
def interruptible() -> Iterator[None]:
    """Note each Ctrl-C, and raise KeyboardInterrupt at the end if there was one."""
    global _active, _first
    if threading.current_thread() is not threading.main_thread() or not _is_ours(
        signal.getsignal(signal.SIGINT)
    ):
        yield
        return
    _active, _first = True, None
    signal.signal(signal.SIGINT, _handle)
    try:
        yield
    except KeyboardInterrupt as error:
        # What the interrupted execution has left is dropped in silence now, not when Python ends.
        traceback.clear_frames(error.__traceback__)
        collect_unheard()
        raise
    finally:
        _active = False
        if _first is not None:
            # The handler stays, so that no further Ctrl-C of the same moment interrupts those who
            # clean up now; a later one puts Python's own back.
            raise KeyboardInterrupt
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _handle(signum: int, frame: FrameType | None) -> None:
    global _first
    if not _active:
        if _first is None or monotonic() - _first > PATIENCE:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            raise KeyboardInterrupt
    elif _first is None:
        _first = monotonic()
        name = "" if frame is None else str(frame.f_globals.get("__name__", ""))
        if name.partition(".")[0] not in _NOT_OURS:
            raise KeyboardInterrupt
    elif monotonic() - _first > PATIENCE:
        raise KeyboardInterrupt
