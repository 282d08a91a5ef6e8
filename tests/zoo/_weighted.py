"""The correct program: a semaphore that serves requests of several sizes, first in, first out."""

from __future__ import annotations

import anyio
from anyio.lowlevel import checkpoint

from mbufpools.lab import Shared

__all__ = ["Request", "Weighted"]


class Request:
    """A task that waits for so many units."""

    def __init__(self, units: int) -> None:
        self.units = units
        self.event = anyio.Event()
        self.granted = Shared(False)


class Weighted:
    """A semaphore of several units."""

    def __init__(self, units: int) -> None:
        self.units = units
        self.free = Shared(units)
        self.queue: Shared[tuple[Request, ...]] = Shared(())

    async def acquire(self, units: int) -> None:
        self.refuse_the_impossible(units)
        await checkpoint()
        if self.may_pass(units):
            self.free.value -= units
        else:
            await self.wait(Request(units))

    def may_pass(self, units: int) -> bool:
        return not self.queue.value and units <= self.free.value

    async def wait(self, request: Request) -> None:
        self.queue.value = (*self.queue.value, request)
        try:
            await request.event.wait()  # stall: all of semaphores.py
        except BaseException:
            self.leave(request)
            raise

    def refuse_the_impossible(self, units: int) -> None:
        if units > self.units:
            raise ValueError(f"{units} units will never be free")

    def leave(self, request: Request) -> None:
        if request.granted.value:
            self.free.value += request.units
        else:
            self.queue.update(lambda queue: tuple(it for it in queue if it is not request))
        self.serve()

    def release(self, units: int) -> None:
        self.free.value += units
        self.serve()

    def serve(self) -> None:
        while self.queue.value and self.queue.value[0].units <= self.free.value:
            self.grant()

    def grant(self) -> None:
        request, *others = self.queue.value
        self.queue.value = tuple(others)
        self.free.value -= request.units
        request.granted.value = True
        request.event.set()

    async def use(self, units: int, seconds: float = 0.0) -> None:
        await self.acquire(units)
        try:
            await anyio.sleep(seconds)  # livelock: large request starves
        finally:
            self.release(units)
