"""What may wake a program from outside of the lab: threads that it has not started, and a timer of
the operating system.

A thread that is older than the exploration may answer a few milliseconds later, in real time. By
then virtual time has passed, and the execution has failed by a stall or a timeout. So after the
first failure of an exploration the lab waits a little if there are such threads. If one calls the
event loop, the program is refused. An interval timer (`signal.setitimer`, `signal.alarm`) that the
program has set is refused at a stall.
"""

from __future__ import annotations

import _thread  # its locks wait in real time, whatever the lab replaces
import signal
import threading
from typing import Any

from ._outcome import refuse, was_anything_refused

__all__ = ["THREAD_REFUSED", "forget_outsiders", "refuse_timer", "wait_for_threads"]

THREAD_REFUSED = (
    "a thread that the program has not started calls the event loop; start it in the program, so "
    "that the lab can run it in lock-step"
)
TURNS = 50
"""How often the lab looks whether a thread has called, at most."""
TURN = 0.001
"""Seconds of real time between two looks."""

_waited = False
"""Whether the exploration has waited for such threads already."""
_timer: tuple[bool, Any] = False, None
"""Whether an interval timer was set at the beginning of the exploration, and its handler."""


def _alarm() -> tuple[bool, Any]:
    """Return whether an interval timer is set, and the handler of its signal."""
    if not hasattr(signal, "SIGALRM"):
        return False, None
    return signal.getitimer(signal.ITIMER_REAL)[0] > 0, signal.getsignal(signal.SIGALRM)


def forget_outsiders() -> None:
    """Note that an exploration or a replay begins."""
    global _waited, _timer
    _waited, _timer = False, _alarm()


def refuse_timer() -> None:
    """Refuse the program if a timer of the operating system can wake it; called at a stall."""
    is_set, handler = _alarm()
    if is_set and (not _timer[0] or handler is not _timer[1]):
        signal.setitimer(signal.ITIMER_REAL, 0)  # it would fire when its handler is gone
        refuse(
            "the program waits for a timer of the operating system (signal.setitimer, "
            "signal.alarm), which fires in real time; the lab's time is virtual, so use a timer of "
            "the event loop"
        )


def wait_for_threads() -> None:
    """Give threads that the program has not started some time to call the event loop, which refuses
    the program then; called after an execution that has failed.

    Blocks the calling thread for at most 50 ms of real time, once in an exploration, and only if
    there are such threads.
    """
    global _waited
    if _waited or not any(map(_is_outsider, threading.enumerate())):
        return
    _waited = True
    turn = _thread.allocate_lock()
    turn.acquire()
    for _ in range(TURNS):
        if was_anything_refused():
            return
        turn.acquire(timeout=TURN)


def _is_outsider(thread: threading.Thread) -> bool:
    """Return True for a thread that neither explores nor was started by the program."""
    return thread is not threading.current_thread() and not hasattr(thread, "lab_thread")
