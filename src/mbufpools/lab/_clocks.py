"""The clocks of Python, in virtual time: `time` and `datetime` tell the time of the execution.

In an execution, `time.monotonic` and `time.perf_counter` return what the event loop's clock does,
which begins at `BEGIN`, and `time.time` and `datetime.now` begin at `EPOCH`, in every process
and on every day, so that a token means the same everywhere. `time.sleep` takes no real time: it
moves the virtual clock.

A look takes a time, nearly two nanoseconds, so a program that divides by what has passed between
two looks can do so. Under dpor steps that look depend on each other.

A program may look at the clock again and again until it has moved. So after `LOOKS` looks in one
step, each further look moves the clock by `TICK`; and when `TURNS` steps have looked at one moment,
each further step that looks moves it once. (That is for callbacks. A task that only gives way gets
the clock moved by its backend, whether it looks or not.) A program that only notes the time, as for
each line of a log, stays below both.

`redirected` makes the functions of `time` do so, and with them every copy that a program holds.

The methods of `datetime` belong to a type that no assignment can change; `methods_replaced` does.
A program may hold a method that is bound already, as in ``field(default_factory=datetime.now)``:
these are looked for, once in an exploration, among all objects that refer to the types, and
redirected.

The clocks that measure the work of a process or a thread, such as `time.process_time`, stay real.
"""

from __future__ import annotations

import datetime
import gc
import logging
import sys
import time
import types
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from ._declare import recorder
from ._instants import BEGIN, TICK
from ._redirected import calls_same, methods_replaced, real, redirect, redirected
from ._replaced import replaced
from ._running import inside, looked, moment, now, pass_time, sleep, tells_time, turn
from ._time_travel import beside_time_machine, travels

__all__ = ["BEGINS", "CLOCKS", "EPOCH", "virtual_clocks"]

EPOCH = 1_700_000_000
"""The time at which every execution begins, in seconds since 1970: 2023-11-14 22:13:20 UTC."""
LOOKS = 100_000
"""Looks at the clock in one step, after which it is taken that the program waits for it."""
TURNS = 1000
"""Steps that looked at one moment, after which it is taken that the program waits for the next."""

LOOKS_AT_CLOCK = ("clock", "looks")
"""What a look changes, as dpor's declarations name it."""
_looked_at = (0, 0.0)
_turn = 0
_turns = 0
_looks = 0


def _look() -> float:
    """Return the virtual time; a program that only waits for it to move gets it moved."""
    global _looked_at, _looks, _turn, _turns
    looked()
    if recorder.active:  # which of two looks is later depends on their order
        recorder.touch(LOOKS_AT_CLOCK, True)
    here, now_turn = moment(), turn()
    if here != _looked_at:  # the clock has moved by itself, or another execution has begun
        _looked_at, _turns, _turn, _looks = here, 1, now_turn, 0
    elif now_turn != _turn:
        _turns, _turn, _looks = _turns + 1, now_turn, 0
    _looks += 1
    if _looks > LOOKS or (_turns > TURNS and _looks == 1):
        pass_time(TICK)
        _looked_at = moment()
    return now()


def _wall() -> float:
    """Return the virtual time in seconds since 1970."""
    return EPOCH + (_look() - BEGIN)


def _wall_in_ns() -> int:
    return EPOCH * 1_000_000_000 + _in_ns(_look() - BEGIN)


def _in_ns(seconds: float) -> int:
    return round(seconds * 1_000_000_000)


def _tells_day() -> bool:
    """Return True if the clocks tell the calling thread the virtual time of day."""
    return tells_time() and not travels()


def _virtual(
    function: Callable[..., Any], virtual: Callable[[], Any], tells: Callable[[], bool] = tells_time
) -> Callable[[], Any]:
    really = real(function)

    def clock() -> Any:
        return virtual() if tells() else really()

    clock.__name__ = clock.__qualname__ = function.__name__
    return clock


def _with_time(
    function: Callable[..., Any], tells: Callable[[], bool] = tells_time
) -> Callable[..., Any]:
    """Return a function of `time` that takes a time, and by default the present one."""
    really = real(function)

    def of_time(seconds: float | None = None, /) -> Any:
        return really(_wall() if seconds is None and tells() else seconds)

    of_time.__name__ = of_time.__qualname__ = function.__name__
    return of_time


_asctime, _localtime = real(time.asctime), real(time.localtime)
_sleep, _strftime = real(time.sleep), real(time.strftime)


def _virtual_sleep(seconds: float, /) -> Any:
    if not inside():
        return _sleep(seconds)
    if seconds < 0:
        raise ValueError("sleep length must be non-negative")
    return sleep(seconds)


def _virtual_asctime(*args: Any) -> Any:
    return _asctime(*args) if args or not tells_time() else _asctime(_localtime(_wall()))


def _virtual_strftime(format: str, /, *args: Any) -> Any:
    virtual = () if args or not _tells_day() else (_localtime(_wall()),)
    return _strftime(format, *args, *virtual)


_WALL = {"CLOCK_REALTIME", "CLOCK_TAI"}
_STEADY = {
    "CLOCK_BOOTTIME",
    "CLOCK_HIGHRES",
    "CLOCK_MONOTONIC",
    "CLOCK_MONOTONIC_RAW",
    "CLOCK_UPTIME",
    "CLOCK_UPTIME_RAW",
}
_IS_WALL = {
    getattr(time, name): names is _WALL
    for names in (_WALL, _STEADY)
    for name in names
    if hasattr(time, name)
}
"""The clocks of `time.clock_gettime` that are virtual, and whether they tell the time of day."""


def _clock_gettime(function: Callable[[int], Any], in_ns: bool) -> Callable[[int], Any]:
    really = real(function)

    def gettime(clock: int, /) -> Any:
        is_wall = _IS_WALL.get(clock)
        if is_wall is None or not (_tells_day() if is_wall else tells_time()):
            return really(clock)
        if is_wall:
            return _wall_in_ns() if in_ns else _wall()
        return _in_ns(_look()) if in_ns else _look()

    return gettime


CLOCKS: list[tuple[Any, str, Any]] = [
    (time, "monotonic", _virtual(time.monotonic, _look)),
    (time, "monotonic_ns", _virtual(time.monotonic_ns, lambda: _in_ns(_look()))),
    (time, "perf_counter", _virtual(time.perf_counter, _look)),
    (time, "perf_counter_ns", _virtual(time.perf_counter_ns, lambda: _in_ns(_look()))),
    (time, "time", _virtual(time.time, _wall, _tells_day)),
    (time, "time_ns", _virtual(time.time_ns, _wall_in_ns, _tells_day)),
    (time, "ctime", _with_time(time.ctime)),
    (time, "gmtime", _with_time(time.gmtime, _tells_day)),
    (time, "localtime", _with_time(time.localtime, _tells_day)),
    (time, "asctime", _virtual_asctime),
    (time, "strftime", _virtual_strftime),
    (time, "sleep", _virtual_sleep),
]
"""What tells the time in `time`, and what is to stand in its place."""
_is_in_ns = isinstance(logging._startTime, int)  # type: ignore[attr-defined]  # from Python 3.13 on
BEGINS: list[tuple[Any, str, Any]] = [
    (logging, "_startTime", EPOCH * 1_000_000_000 if _is_in_ns else float(EPOCH)),
]
"""The begin of the time that `logging` tells as ``relativeCreated``."""
if hasattr(time, "clock_gettime"):
    CLOCKS.append((time, "clock_gettime", _clock_gettime(time.clock_gettime, False)))
    CLOCKS.append((time, "clock_gettime_ns", _clock_gettime(time.clock_gettime_ns, True)))

# datetime


_real_methods: dict[str, Any] = {
    "now": vars(datetime.datetime)["now"],
    "utcnow": vars(datetime.datetime)["utcnow"],
    "today": vars(datetime.date)["today"],
}


def _now(cls: Any, /, tz: datetime.tzinfo | None = None) -> Any:
    if not _tells_day():
        return _real_methods["now"].__get__(None, cls)(tz)
    return cls.fromtimestamp(_wall_of_datetime(), tz)


def _wall_of_datetime() -> float:
    """Return the virtual time in seconds since 1970, cut off after the microseconds."""
    return _wall_in_ns() // 1000 / 1_000_000


def _utcnow(cls: Any, /) -> Any:
    there = _real_methods["utcnow"].__get__(None, cls)()  # it warns, from Python 3.12 on
    if not _tells_day():
        return there
    return cls.fromtimestamp(_wall_of_datetime(), datetime.UTC).replace(tzinfo=None)


def _today(cls: Any, /) -> Any:
    if not _tells_day():
        return _real_methods["today"].__get__(None, cls)()
    return cls.fromtimestamp(_wall_of_datetime())


_VIRTUAL: dict[str, Callable[..., Any]] = {"now": _now, "utcnow": _utcnow, "today": _today}
_METHODS: dict[type, dict[str, Any]] = {
    datetime.datetime: {"now": classmethod(_now), "utcnow": classmethod(_utcnow)},
    datetime.date: {"today": classmethod(_today)},  # which datetime inherits
}
"""The methods of `datetime` that read the clock, in virtual time, by class and name."""
for _name, _function in _VIRTUAL.items():
    _function.__name__ = _name


@contextmanager
def virtual_clocks() -> Iterator[None]:
    """Make `time` and `datetime` tell the time of the execution, in the program alone. It looks
    among all objects for bound methods of `datetime`, which takes some milliseconds."""
    copies = list(_bound_methods()) if sys.implementation.name == "cpython" else []
    with (
        beside_time_machine(lambda: _replaced_clocks(copies), _passed),
        replaced(BEGINS, copies=False),
    ):
        yield


@contextmanager
def _replaced_clocks(copies: list[Any]) -> Iterator[None]:
    with ExitStack() as stack:
        for copy in copies:
            target = types.MethodType(_VIRTUAL[copy.__name__], copy.__self__)
            stack.callback(redirect(copy, target))
        stack.enter_context(methods_replaced(_METHODS))
        stack.enter_context(redirected(CLOCKS))
        yield


def _passed() -> int:
    """Return the nanoseconds since the begin of the execution, 0 outside of the program."""
    return _in_ns(_look() - BEGIN) if tells_time() else 0


def _bound_methods() -> Iterator[Any]:
    """Yield the bound methods that read the clock, of `datetime` and of classes derived from it."""
    classes: list[type] = [datetime.date]
    for cls in classes:
        classes += cls.__subclasses__()
    for it in gc.get_referrers(*classes):
        if type(it) is types.BuiltinFunctionType and it.__name__ in _VIRTUAL:
            owner: Any = it.__self__
            if isinstance(owner, type) and calls_same(
                it, _real_methods[it.__name__].__get__(None, owner)
            ):
                yield it
