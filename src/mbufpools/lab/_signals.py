"""The signal handlers that a program gives to the event loop of asyncio.

A signal from outside has no place in a schedule, so none is taken to come. One that the program
sends to its own process, as by `signal.raise_signal`, is seen as by asyncio's own loop: in the next
iteration, behind what is ready and before the timers that are due, the loop looks which handler the
signal has by then, and calls for that one's callback. Ctrl-C and alarms are left to those who
listen to them: they end an exploration.
"""

from __future__ import annotations

import asyncio
import errno
import inspect
import signal
import threading
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from typing import Any

from ._declare import recorder

__all__ = ["SignalHandlers"]

_NOT_OURS = {getattr(signal, name, None) for name in ("SIGINT", "SIGALRM")}


class SignalHandlers:
    """The handlers of one execution.

    Args:
        look: has its event loop call a function, with a signal, where it looks for signals.
        call_soon: that of its event loop.
    """

    def __init__(
        self, look: Callable[[Callable[[int], None], int], None], call_soon: Callable[..., object]
    ) -> None:
        self._look = look
        self._call_soon = call_soon
        self._calls: dict[int, Callable[[], object]] = {}
        self._before: dict[int, Any] = {}
        """What the process did at these signals before."""

    def add(self, signum: int, callback: Any, args: tuple[Any, ...]) -> None:
        """Have `callback` called soon whenever the signal comes.

        Raises:
            TypeError: the signal is no integer, or the callback a coroutine or what makes one.
            ValueError: there is no such signal.
            RuntimeError: it cannot be caught, or the thread is not the main one.
        """
        if asyncio.iscoroutine(callback) or inspect.iscoroutinefunction(callback):
            raise TypeError(
                f"the handler of a signal is the coroutine {callback!r}; expected a plain function"
            )
        _check(signum)
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("a signal can be handled only in the main thread of the process")
        if signum not in _NOT_OURS:
            try:
                before = signal.signal(signum, self._came)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                raise RuntimeError(f"signal {signum} cannot be caught") from None
            self._before.setdefault(signum, before)
        recorder.touch(("signal", signum), True)
        self._calls[signum] = partial(self._call_soon, callback, *args, context=copy_context())

    def remove(self, signum: int) -> bool:
        """Handle a signal no more; return False if it had no handler. Raises as `add`."""
        _check(signum)
        recorder.touch(("signal", signum), True)
        if self._calls.pop(signum, None) is None:
            return False
        if signum in self._before:
            signal.signal(signum, signal.SIG_DFL)  # as asyncio does, whatever it was before
        return True

    def close(self) -> None:
        """Handle no signal any more."""
        self._calls.clear()
        while self._before:
            signum, before = self._before.popitem()
            signal.signal(signum, before or signal.SIG_DFL)

    def _came(self, signum: int, _frame: object) -> None:
        self._look(self._seen, signum)

    def _seen(self, signum: int) -> None:
        recorder.touch(("signal", signum), False)
        call = self._calls.get(signum)
        if call is not None:
            call()


def _check(signum: int) -> None:
    """Raise an error unless there is such a signal."""
    if not isinstance(signum, int):
        raise TypeError(f"a signal is {signum!r}; expected an integer, such as signal.SIGTERM")
    if signum not in signal.valid_signals():
        raise ValueError(f"there is no signal {signum}; signal.valid_signals() has those there are")
