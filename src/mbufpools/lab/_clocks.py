"""The clocks of Python, in virtual time: `time` and `datetime` tell the time of the execution.

In an execution, `time.monotonic` and `time.perf_counter` return what the event loop's clock does,
which begins at 0.0 seconds, and `time.time` and `datetime.now` begin at `EPOCH`, in every process
and on every day, so that a token means the same everywhere. `time.sleep` takes no real time: it
moves the virtual clock.

A program may look at the clock again and again until it has moved. So after `SPINS` looks at one
moment, each further look moves the clock by `TICK`.

The methods of `datetime` belong to a type that no assignment can change. On CPython they are
replaced in the type's own dictionary; other implementations keep the real ones.
"""

from __future__ import annotations

import ctypes
import datetime
import gc
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ._running import inside, moment, now, pass_time

__all__ = ["CLOCKS", "EPOCH", "virtual_datetime"]

EPOCH = 1_700_000_000
"""The time at which every execution begins, in seconds since 1970: 2023-11-14 22:13:20 UTC."""
SPINS = 1000
"""Looks at the clock, at one moment, after which it is taken that the program waits for it."""
TICK = 0.001
"""Seconds of virtual time."""

_looked_at = (0, 0.0)
_looks = 0


def _look() -> float:
    """Return the virtual time; a program that only waits for it to move gets it moved."""
    global _looked_at, _looks
    here = moment()
    if here != _looked_at:
        _looked_at, _looks = here, 0
    _looks += 1
    if _looks > SPINS:
        pass_time(TICK)
        _looked_at = moment()
    return now()


def _in_ns(seconds: float) -> int:
    return round(seconds * 1_000_000_000)


def _virtual(real: Callable[..., Any], virtual: Callable[[], Any]) -> Callable[[], Any]:
    def clock() -> Any:
        return virtual() if inside() else real()

    clock.__name__ = clock.__qualname__ = real.__name__
    return clock


def _with_time(real: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of `time` that takes a time, and by default the present one."""

    def of_time(seconds: float | None = None) -> Any:
        return real(EPOCH + _look() if seconds is None and inside() else seconds)

    of_time.__name__ = of_time.__qualname__ = real.__name__
    return of_time


_asctime, _gmtime, _localtime = time.asctime, time.gmtime, time.localtime
_sleep, _strftime = time.sleep, time.strftime


def _virtual_sleep(seconds: float, /) -> None:
    if not inside():
        return _sleep(seconds)
    if seconds < 0:
        raise ValueError("sleep length must be non-negative")
    return pass_time(seconds)


def _virtual_asctime(*args: Any) -> str:
    return _asctime(*args) if args or not inside() else _asctime(_localtime(EPOCH + _look()))


def _virtual_strftime(format: str, *args: Any) -> str:
    virtual = () if args or not inside() else (_localtime(EPOCH + _look()),)
    return _strftime(format, *args, *virtual)


CLOCKS: list[tuple[Any, str, Any]] = [
    (time, "monotonic", _virtual(time.monotonic, _look)),
    (time, "monotonic_ns", _virtual(time.monotonic_ns, lambda: _in_ns(_look()))),
    (time, "perf_counter", _virtual(time.perf_counter, _look)),
    (time, "perf_counter_ns", _virtual(time.perf_counter_ns, lambda: _in_ns(_look()))),
    (time, "time", _virtual(time.time, lambda: EPOCH + _look())),
    (time, "time_ns", _virtual(time.time_ns, lambda: EPOCH * 1_000_000_000 + _in_ns(_look()))),
    (time, "ctime", _with_time(time.ctime)),
    (time, "gmtime", _with_time(_gmtime)),
    (time, "localtime", _with_time(_localtime)),
    (time, "asctime", _virtual_asctime),
    (time, "strftime", _virtual_strftime),
    (time, "sleep", _virtual_sleep),
]


"""What tells the time in `time`, and what is to stand in its place."""

# datetime


def _methods() -> dict[type, dict[str, Any]]:
    """Return the methods of `datetime` that read the clock, in virtual time, by class and name."""
    real = {
        name: vars(cls)[name]
        for cls, name in (
            (datetime.datetime, "now"),
            (datetime.datetime, "utcnow"),
            (datetime.date, "today"),
        )
    }

    def now_(cls: Any, tz: datetime.tzinfo | None = None) -> Any:
        if not inside():
            return real["now"].__get__(None, cls)(tz)
        return cls.fromtimestamp(EPOCH + _look(), tz)

    def utcnow(cls: Any) -> Any:
        there = real["utcnow"].__get__(None, cls)()  # it warns, from Python 3.12 on
        if not inside():
            return there
        return cls.fromtimestamp(EPOCH + _look(), datetime.UTC).replace(tzinfo=None)

    def today(cls: Any) -> Any:
        if not inside():
            return real["today"].__get__(None, cls)()
        return cls.fromtimestamp(EPOCH + _look())

    now_.__name__ = "now"
    return {
        datetime.datetime: {"now": classmethod(now_), "utcnow": classmethod(utcnow)},
        datetime.date: {"today": classmethod(today)},  # which datetime inherits
    }


@contextmanager
def virtual_datetime() -> Iterator[None]:
    """Make `datetime` tell the time of the execution, in the program alone."""
    if sys.implementation.name != "cpython":
        yield
        return
    before: list[tuple[type, dict[str, Any], dict[str, Any]]] = []
    for cls, methods in _methods().items():
        (namespace,) = gc.get_referents(vars(cls))
        before.append((cls, namespace, {name: namespace[name] for name in methods}))
        _update(cls, namespace, methods)
    try:
        yield
    finally:
        for cls, namespace, methods in before:
            _update(cls, namespace, methods)


def _update(cls: type, namespace: dict[str, Any], methods: dict[str, Any]) -> None:
    namespace.update(methods)
    ctypes.pythonapi.PyType_Modified(ctypes.py_object(cls))  # or a cache would keep the old ones
