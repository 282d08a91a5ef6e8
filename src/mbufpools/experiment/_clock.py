"""A simulation in virtual time: events in the order of their times, beside the library's own tasks.

A workload has hundreds of thousands of small events, such as a packet that arrives or an item that
is put back. A task of the event loop for each would cost more than the pools do. So an event is a
plain function in a heap, and one task of the loop calls them. The pools' own tasks, such as the gc
and the wakeup, run on the loop as always.

A process that has to sleep really waits in the library's ``get``: its coroutine is resumed by the
grant, in the task that calls the events.

Invariants: an event runs at its exact time; whatever is ready on the loop runs before the clock
moves on; events of one time run in the order in which they were scheduled. So two runs with the
same seed are identical. Only asyncio is supported, because trio shuffles its tasks.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from mbufpools import lab

__all__ = ["Simulation", "simulate"]

Result = TypeVar("Result")


class _Loop(lab.VirtualTimeLoop):
    """A loop in virtual time. The simulation moves its clock while only its own events are due."""

    def __init__(self) -> None:
        super().__init__(patience=0)

    def busy(self) -> bool:
        """Return True if a callback is ready to run."""
        return bool(self._ready)  # type: ignore[attr-defined]  # asyncio's own

    def move_to(self, when: float) -> bool:
        """Move the clock to `when`; False, and nothing is done, if the loop has something to run
        first."""
        timers = self._scheduled  # type: ignore[attr-defined]  # asyncio's own heap
        if self._ready or (timers and timers[0]._when <= when):  # type: ignore[attr-defined]
            return False
        self._now = when
        return True


class Simulation:
    """The events of one run. Made by `simulate`; belongs to its event loop."""

    def __init__(self, loop: _Loop) -> None:
        self._loop = loop
        self._events: list[tuple[float, int, Callable[..., object], tuple[Any, ...]]] = []
        self._scheduled = 0
        self._wake: asyncio.Future[None] | None = None
        self.asleep: set[Coroutine[Any, Any, Any]] = set()
        """The gets that sleep now. They are closed at the end of the run."""

    @property
    def now(self) -> float:
        """Seconds of virtual time since the run began."""
        return self._loop._now

    def after(self, seconds: float, call: Callable[..., object], *arguments: Any) -> None:
        """Have ``call(*arguments)`` called in `seconds` of virtual time."""
        self._scheduled += 1
        event = (self._loop._now + seconds, self._scheduled, call, arguments)
        heapq.heappush(self._events, event)

    def every(self, seconds: float, call: Callable[[], None]) -> None:
        """Have `call` called each `seconds`, for the first time in `seconds`. No rounding errors
        add up."""
        start, count = self._loop._now, 0

        def tick() -> None:
            nonlocal count
            count += 1
            self.after(start + (count + 1) * seconds - self.now, tick)
            call()

        self.after(seconds, tick)

    def wait(self, get: Coroutine[Any, Any, Result], then: Callable[[Result], None]) -> bool:
        """Start `get`, and call ``then(result)`` when it has ended: at once, or after a sleep.
        Return True if it sleeps. Never blocks. An exception of `get` leaves `run`."""
        try:
            sleeper = get.send(None)
        except StopIteration as done:
            then(done.value)
            return False
        self.asleep.add(get)
        sleeper._asyncio_future_blocking = False
        sleeper.add_done_callback(lambda _: self._resume_soon(get, then))
        return True

    def _resume_soon(self, get: Coroutine[Any, Any, Any], then: Callable[[Any], None]) -> None:
        self.after(0.0, self._resume, get, then)
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def _resume(self, get: Coroutine[Any, Any, Any], then: Callable[[Any], None]) -> None:
        if get not in self.asleep:
            return  # the run has ended
        self.asleep.remove(get)
        try:
            get.send(None)
        except StopIteration as done:
            then(done.value)
        else:
            raise RuntimeError("a get of the library waited twice; expected one sleep at most")

    async def run(self, until: float, stop: Callable[[], bool] | None = None) -> None:
        """Call the events up to the time `until`, and leave the clock there; or stop earlier, once
        `stop` returns True after an event."""
        events, loop = self._events, self._loop
        while True:
            when = events[0][0] if events and events[0][0] <= until else until
            if (when > loop._now or loop.busy()) and not loop.move_to(when):
                await self._pause(when)
                if stop is not None and stop():
                    return
                continue
            if not events or events[0][0] > until:
                return
            _, _, call, arguments = heapq.heappop(events)
            call(*arguments)
            if stop is not None and stop():
                return

    async def _pause(self, when: float) -> None:
        """Let the loop run until `when`, or until a sleeper was granted something."""
        self._wake = self._loop.create_future()
        timer = self._loop.call_at(max(when, self._loop._now), self._end_pause)
        try:
            await self._wake
        finally:
            timer.cancel()
            self._wake = None

    def _end_pause(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def close(self) -> None:
        """End the gets that sleep."""
        while self.asleep:
            self.asleep.pop().close()


def simulate(program: Callable[[Simulation], Coroutine[Any, Any, Result]]) -> Result:
    """Run ``program(simulation)`` once in virtual time on asyncio; return its result.

    Blocks the calling thread until the program has ended. Raises what the program raises;
    RuntimeError inside an event loop.
    """

    async def main() -> Result:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, _Loop)
        simulation = Simulation(loop)
        try:
            return await program(simulation)
        finally:
            simulation.close()

    with asyncio.Runner(loop_factory=_Loop) as runner:
        return runner.run(main())
