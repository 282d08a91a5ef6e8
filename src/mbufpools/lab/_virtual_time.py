"""Virtual time on asyncio: a loop whose clock jumps to the next timer when nothing can run.

The loop's selector polls real I/O without waiting. If no I/O is ready either, the clock jumps.

Invariants:

- The clock moves only while no callback and no I/O is ready.
- It moves to a timer's own deadline, never by adding intervals, so rounding errors do not add up.
- A timer fires when the clock equals its deadline, not before.

Sockets and threads work, but they take no virtual time. So a timer fires before a thread that is
still at work has ended, and a program that loops until the clock has moved loops for ever.
"""

from __future__ import annotations

import asyncio
import heapq
import math
import selectors
from collections.abc import Iterable
from contextvars import Context
from typing import Any

from ._background import TICKS, is_service, only_ticks_on_asyncio

__all__ = ["OrderedTimer", "Stalled", "VirtualTimeLoop", "where_it_waits"]

_LIBRARIES = {"anyio", "asyncio", "trio"}


class Stalled(RuntimeError):
    """Every task waits, and no timer, I/O or thread is left that could wake one.

    The timers of a background service that only ticks, such as the garbage collection of open
    pools, do not count.

    Attributes:
        seconds: the time of the stall, in seconds of virtual time.
        waiting: one line for each waiting task: its name, and where it waits.
    """

    def __init__(self, seconds: float, waiting: Iterable[str]) -> None:
        self.seconds: float = seconds
        self.waiting: tuple[str, ...] = tuple(sorted(waiting))
        lines = "".join(f"\n  {line}" for line in self.waiting)
        super().__init__(
            f"every task waits and nothing is scheduled, after {seconds:.10g} s of virtual time"
            f"{lines}"
        )


def where_it_waits(name: str, coroutine: Any) -> str:
    """Return a line that says where a suspended task waits.

    It is the innermost line of code that is not in anyio, asyncio or trio.
    """
    location = ""
    while coroutine is not None:
        kind = {"coroutine": "cr", "generator": "gi", "async_generator": "ag"}.get(
            type(coroutine).__name__
        )
        frame = getattr(coroutine, f"{kind}_frame", None)
        if frame is None:  # a future, or an internal object of a library
            break
        code = frame.f_code
        if frame.f_globals.get("__name__", "").partition(".")[0] not in _LIBRARIES:
            location = f" at {code.co_filename}:{frame.f_lineno}, in {code.co_name}"
        coroutine = getattr(coroutine, "gi_yieldfrom" if kind == "gi" else f"{kind}_await")
    return f"{name} waits{location}"


class OrderedTimer(asyncio.TimerHandle):
    """A timer that fires after those with the same deadline that were set before it.

    asyncio's own heap does not keep their order. On a real clock no two deadlines are the same; in
    virtual time many are.
    """

    __slots__ = ("number",)

    def __init__(self, number: int, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.number = number

    def __lt__(self, other: object) -> bool:
        if isinstance(other, OrderedTimer):
            return (self.when(), self.number) < (other.when(), other.number)
        return NotImplemented


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An asyncio event loop in virtual time: `time()` starts at 0.0 seconds and jumps.

    When nothing is ready, the loop polls real I/O without waiting. If no I/O is ready either, the
    clock jumps to the next timer. With no timer left the loop waits for I/O or for another thread,
    for at most `patience`, and then stops the run with `Stalled` instead of hanging. A timer at
    infinity is ignored. Two runs of a program without I/O and threads are identical.

    Args:
        patience: seconds of real time. Use 0 for programs without I/O and threads.
    """

    def __init__(self, patience: float = 1.0) -> None:
        self._now = 0.0
        self._patience = patience
        self._jumps = 0
        self._timers_set = 0
        self._waits: list[tuple[asyncio.Task[Any], Any]] = []
        super().__init__(_JumpingSelector(self))
        self._be_exact()

    def time(self) -> float:
        """Return the time, in seconds of virtual time."""
        return self._now

    def call_at(  # type: ignore[override]  # asyncio's has no arguments of its own types
        self, when: float, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Call `callback` at a time of the virtual clock; timers of one time in the order of
        their calls."""
        self._check_closed()  # type: ignore[attr-defined]  # asyncio's own
        self._timers_set += 1
        timer: Any = OrderedTimer(self._timers_set, when, callback, args, self, context)
        heapq.heappush(self._scheduled, timer)  # type: ignore[attr-defined]  # asyncio's own heap
        timer._scheduled = True
        return timer  # type: ignore[no-any-return]

    async def shutdown_default_executor(
        self,
        timeout: float | None = None,  # noqa: ASYNC109  # asyncio's signature
    ) -> None:
        """Wait for the threads of the default executor, without a limit.

        `timeout` is ignored: it would be in virtual time, so it would always pass before a thread
        has ended.
        """
        await super().shutdown_default_executor()

    def _jump(self) -> bool:
        """Move the clock to the next deadline. Return False if there is none."""
        timers = self._scheduled  # type: ignore[attr-defined]  # asyncio's own heap
        if not timers or timers[0]._when == math.inf or self._is_quiet():
            return False
        self._now = timers[0]._when
        self._be_exact()
        return True

    def _is_quiet(self) -> bool:
        """Return True if only services that tick will ever run from now on.

        It looks only at every `TICKS`-th jump, and compares with the jump before: if every other
        task still waits for the same future, only services have run since then.
        """
        self._jumps += 1
        if self._jumps % TICKS:
            return False
        before = dict(self._waits)
        self._waits = [
            (task, task._fut_waiter)  # type: ignore[attr-defined]  # a different future if the task has run
            for task in asyncio.all_tasks(self)
            if not is_service(task.get_name())
        ]
        if any(before.get(task) is not waits for task, waits in self._waits):
            return False
        timers = self._scheduled  # type: ignore[attr-defined]  # asyncio's own heap
        return only_ticks_on_asyncio(self, timers)

    def _be_exact(self) -> None:
        """Make asyncio fire exactly the timers whose deadline is now or earlier."""
        # asyncio fires all timers whose deadline is below `time() + _clock_resolution`.
        self._clock_resolution = math.ulp(self._now)

    def _stalled(self) -> Stalled:
        """Return the error that names every waiting task."""
        return Stalled(
            self._now,
            (where_it_waits(task.get_name(), task.get_coro()) for task in asyncio.all_tasks(self)),
        )


class _JumpingSelector(selectors.DefaultSelector):
    """The loop's selector: instead of sleeping, it lets the clock jump."""

    def __init__(self, loop: VirtualTimeLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(0)
        if events or (timeout is not None and timeout <= 0):
            return events
        if self._loop._jump():
            return []
        events = super().select(self._loop._patience)
        if not events:
            raise self._loop._stalled()
        return events
