"""Virtual time on asyncio: a loop whose clock jumps to the next timer when nothing can run.

Invariants: the clock only moves while nothing is ready and no I/O is; it moves to a timer's own
deadline, never by adding intervals, so no rounding error gathers; a timer fires when the clock
equals its deadline, not before.

Real time still passes outside: sockets and threads work, but take no virtual time. So a timer
beats a thread that is still at work, and a program that spins until the clock has moved spins
for ever. Uses `_housekeeping`.
"""

from __future__ import annotations

import asyncio
import math
import selectors
from collections.abc import Iterable
from typing import Any

from ._background import TICKS, is_service, only_ticks_on_asyncio

__all__ = ["Stalled", "VirtualTimeLoop", "where_it_waits"]

_LIBRARIES = {"anyio", "asyncio", "trio"}


class Stalled(RuntimeError):
    """Every task waits, and no timer, I/O or thread is left that could wake one. (The gc of open
    pools ticks for ever, and does not count.)

    Attributes:
        seconds: when, in seconds of virtual time.
        waiting: one line for each task that waits: its name, and where.
    """

    def __init__(self, seconds: float, waiting: Iterable[str]) -> None:
        self.seconds = seconds
        self.waiting = tuple(sorted(waiting))
        lines = "".join(f"\n  {line}" for line in self.waiting)
        super().__init__(
            f"every task waits and nothing is scheduled, after {seconds:.10g} s of virtual time"
            f"{lines}"
        )


def where_it_waits(name: str, coroutine: Any) -> str:
    """Say that a suspended task waits, and on which line: the last that is not a library's."""
    location = ""
    while coroutine is not None:
        kind = {"coroutine": "cr", "generator": "gi", "async_generator": "ag"}.get(
            type(coroutine).__name__
        )
        frame = getattr(coroutine, f"{kind}_frame", None)
        if frame is None:  # a future, or the internals of a library
            break
        code = frame.f_code
        if frame.f_globals.get("__name__", "").partition(".")[0] not in _LIBRARIES:
            location = f" at {code.co_filename}:{frame.f_lineno}, in {code.co_name}"
        coroutine = getattr(coroutine, "gi_yieldfrom" if kind == "gi" else f"{kind}_await")
    return f"{name} waits{location}"


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An asyncio event loop in virtual time: `time()` starts at 0.0 and jumps.

    When nothing is ready it polls real I/O without waiting; when that is idle too the clock
    jumps to the next timer. With no timer left it waits for I/O or for another thread, at most
    `patience`, and then stops the run with `Stalled` instead of hanging. A timer at infinity
    counts as none. Two runs of a program without I/O and threads are identical.

    Args:
        patience: seconds of real time. 0 suits programs without I/O and threads.
    """

    def __init__(self, patience: float = 1.0) -> None:
        self._now = 0.0
        self._patience = patience
        self._jumps = 0
        self._waits: list[tuple[asyncio.Task[Any], Any]] = []
        super().__init__(_JumpingSelector(self))
        self._be_exact()

    def time(self) -> float:
        """The clock, in seconds of virtual time."""
        return self._now

    async def shutdown_default_executor(
        self,
        timeout: float | None = None,  # noqa: ASYNC109  # asyncio's signature
    ) -> None:
        """Wait for the threads of the default executor; `timeout` is ignored.

        It would be virtual, and so would always pass before a thread is done.
        """
        await super().shutdown_default_executor()

    def _jump(self) -> bool:
        """Move to the next deadline, or return False when there is none."""
        timers = self._scheduled  # type: ignore[attr-defined]  # asyncio's own heap
        if not timers or timers[0]._when == math.inf or self._is_quiet():
            return False
        self._now = timers[0]._when
        self._be_exact()
        return True

    def _is_quiet(self) -> bool:
        """Return True if only services that tick have run for long, and nothing else ever will."""
        self._jumps += 1
        if self._jumps % TICKS:
            return False
        before = dict(self._waits)
        self._waits = [
            (task, task._fut_waiter)  # type: ignore[attr-defined]  # another one if it has run
            for task in asyncio.all_tasks(self)
            if not is_service(task.get_name())
        ]
        if any(before.get(task) is not waits for task, waits in self._waits):
            return False
        timers = self._scheduled  # type: ignore[attr-defined]  # asyncio's own heap
        return only_ticks_on_asyncio(self, timers)

    def _be_exact(self) -> None:
        # asyncio fires all timers below `time() + _clock_resolution`: here, those up to `time()`.
        self._clock_resolution = math.ulp(self._now)

    def _stalled(self) -> Stalled:
        return Stalled(
            self._now,
            (where_it_waits(task.get_name(), task.get_coro()) for task in asyncio.all_tasks(self)),
        )


class _JumpingSelector(selectors.DefaultSelector):
    """The loop's selector: before it would sleep, the clock jumps."""

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
