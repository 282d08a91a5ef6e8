"""Whether the calling thread runs the program, and what time it is there.

While the lab explores, functions such as `time.monotonic` and `threading.Thread.start` are replaced
for the whole process. A replacement acts only for the program: in the thread that executes it and
in the threads that the program has started, from the beginning of an execution to its end. For all
others it does what the function has always done.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ._instants import BEGIN

__all__ = [
    "add_thread",
    "at_begin",
    "begin",
    "end",
    "inside",
    "looked",
    "looks",
    "moment",
    "now",
    "pass_time",
    "remove_thread",
    "sleep",
    "sleep_by",
    "tells_time",
    "turn",
]

LOOK = 2.0**-29
"""Seconds that a look at the clock takes, nearly two nanoseconds: so two looks differ also where
the clock is read in whole nanoseconds."""

_threads: dict[int, Callable[[float], None]] = {}
"""For each thread that runs the program: how it lets time pass. Empty between executions."""
_now: Callable[[], float] = float
_turn: Callable[[], int] = int
looks = 0.0
"""Seconds that the looks at the clock have taken in this execution."""
_loop_thread: int | None = None
_sleep: Callable[[float], None] | None = None
"""What the thread of the event loop does in a sleep; None lets only time pass."""
_number = 0
"""The number of the execution."""
_preparing: int | None = None
"""The thread that makes something anew for the next execution."""
_looked_before = 0.0
"""Seconds that its looks at the clock have taken."""


def begin(
    now: Callable[[], float], pass_time: Callable[[float], None], turn: Callable[[], int]
) -> None:
    """Note that the calling thread begins an execution.

    Args:
        now: returns the time of the execution, in seconds of its virtual clock, but for what the
            looks at it have taken.
        pass_time: lets so many seconds pass in the middle of a step.
        turn: returns a number that differs in each step of a task, and in each round of callbacks.
    """
    global looks, _looked_before, _loop_thread, _now, _number, _turn
    _now, _turn, looks = now, turn, _looked_before
    _looked_before = 0.0
    _loop_thread = threading.get_ident()
    _number += 1
    add_thread(pass_time)


def end() -> None:
    """Note that the execution is over."""
    global _loop_thread, _now, _sleep, _turn
    _threads.clear()
    _now, _turn = float, int  # and with them goes what they belong to
    _loop_thread = _sleep = None


def inside() -> bool:
    """Return True if the calling thread runs the program."""
    return threading.get_ident() in _threads


@contextmanager
def at_begin() -> Iterator[None]:
    """Let the clocks tell the calling thread the time at which the next execution begins, since it
    makes something anew for that. Otherwise it is outside of any execution."""
    global looks, _looked_before, _now, _preparing
    before = _now, _preparing, looks
    _now, _preparing, looks = _time_of_begin, threading.get_ident(), _looked_before
    try:
        yield
    finally:
        _looked_before = looks
        _now, _preparing, looks = before


def _time_of_begin() -> float:
    return BEGIN


def tells_time() -> bool:
    """Return True if the clocks tell the calling thread virtual time."""
    thread = threading.get_ident()
    return thread in _threads or thread == _preparing


def add_thread(pass_time: Callable[[float], None]) -> None:
    """Note that the calling thread is one of the program, and how it lets time pass."""
    _threads[threading.get_ident()] = pass_time


def remove_thread() -> None:
    """Note that the calling thread does not run the program any more."""
    _threads.pop(threading.get_ident(), None)


def now() -> float:
    """Return the time of the execution, in seconds of its virtual clock."""
    return _now() + looks


def looked() -> None:
    """Note that the program looks at the clock. That takes time, so the next look is later."""
    global looks
    looks += LOOK


def moment() -> tuple[int, float]:
    """Return which execution it is, and its time, but for what the looks at it have taken."""
    return _number, _now()


def turn() -> int:
    """Return a number that differs in each step of a task, and in each round of callbacks."""
    return _turn()


def sleep_by(function: Callable[[float], None]) -> None:
    """Say what the thread of the event loop does in a sleep of so many seconds."""
    global _sleep
    _sleep = function


def sleep(seconds: float) -> None:
    """Sleep, as `time.sleep` does in the calling thread."""
    if _sleep is not None and threading.get_ident() == _loop_thread:
        _sleep(seconds)
    else:
        pass_time(seconds)


def pass_time(seconds: float) -> None:
    """Let time pass, as a blocking call of the calling thread does."""
    global looks
    lets_pass = _threads.get(threading.get_ident())
    if lets_pass is None:  # before the execution
        looks += seconds
    else:
        lets_pass(seconds)
