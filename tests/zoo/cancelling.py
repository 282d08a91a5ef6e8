"""What is left undone when a task is cancelled; found by cancelling each task once at each of its
await points."""

from __future__ import annotations

import warnings
from functools import partial

import anyio
from anyio.lowlevel import checkpoint

from mbufpools.lab import Shared

from ._specimen import Specimen, together

__all__ = ["SPECIMENS"]


class Register:
    """Gives the semaphore back after the work, if the work comes to its end."""

    def __init__(self) -> None:
        self.lock = anyio.Semaphore(1)

    async def write(self) -> None:
        await self.lock.acquire()  # stall: lock held across a cancel
        await checkpoint()
        self.lock.release()


class RegisterWithWith(Register):
    """Gives it back in any case."""

    async def write(self) -> None:
        async with self.lock:
            await checkpoint()


async def two_writers(register_class: type[Register]) -> None:
    register = register_class()
    await together(register.write, register.write)


class Permits:
    """Hands a permit to the task that waits, which may be cancelled when the permit comes."""

    def __init__(self) -> None:
        self.free = Shared(1)
        self.users = Shared(0)
        self.waiters: Shared[tuple[anyio.Event, ...]] = Shared(())

    async def use(self) -> None:
        await self.acquire()
        self.users.value += 1
        assert self.users.value == 1, "more users than permits"  # exception: permit given twice
        try:
            await checkpoint()
        finally:
            self.users.value -= 1
            self.release()

    async def acquire(self) -> None:
        if self.free.value:
            self.free.value -= 1
            return
        event = anyio.Event()
        self.waiters.value = (*self.waiters.value, event)
        try:
            await event.wait()  # stall: permit lost on cancel
        except BaseException:
            self.forsake(event)
            raise

    def forsake(self, event: anyio.Event) -> None:
        self.waiters.update(lambda waiters: tuple(it for it in waiters if it is not event))

    def release(self) -> None:
        if self.waiters.value:
            event, *others = self.waiters.value
            self.waiters.value = tuple(others)
            event.set()
        else:
            self.free.value += 1


class PermitsPassedOn(Permits):
    """A permit that a cancelled task was granted goes to the next task."""

    def forsake(self, event: anyio.Event) -> None:
        if event in self.waiters.value:
            super().forsake(event)
        else:
            self.release()


class PermitsGivenAnyway(Permits):
    """A task that is cancelled gives back a permit that it may not have."""

    def forsake(self, event: anyio.Event) -> None:
        super().forsake(event)
        self.release()


async def three_permits(permits_class: type[Permits]) -> None:
    permits = permits_class()
    await together(permits.use, permits.use, permits.use)


class Turnstile:
    """Frees the slot and wakes one task to try again: if that task is cancelled, no task tries."""

    def __init__(self) -> None:
        self.free = Shared(1)
        self.waiters: Shared[tuple[anyio.Event, ...]] = Shared(())

    async def use(self) -> None:
        while not self.free.value:
            event = anyio.Event()
            self.waiters.value = (*self.waiters.value, event)
            try:
                await event.wait()  # stall: signal lost on cancel
            except BaseException:
                self.forsake(event)
                raise
        self.free.value -= 1
        try:
            await checkpoint()
        finally:
            self.free.value += 1
            self.wake()

    def forsake(self, event: anyio.Event) -> None:
        self.waiters.update(lambda waiters: tuple(it for it in waiters if it is not event))

    def wake(self) -> None:
        if self.waiters.value:
            event, *others = self.waiters.value
            self.waiters.value = tuple(others)
            event.set()


class TurnstileThatWakesAnother(Turnstile):
    """A task that was woken and is cancelled wakes the next."""

    def forsake(self, event: anyio.Event) -> None:
        super().forsake(event)
        if event.is_set():
            self.wake()


async def three_at_the_turnstile(turnstile_class: type[Turnstile]) -> None:
    turnstile = turnstile_class()
    await together(turnstile.use, turnstile.use, turnstile.use)


class Connection:
    """A connection, which must be closed."""

    closed = False

    def close(self) -> None:
        self.closed = True

    def __del__(self) -> None:
        if not self.closed:
            warnings.warn("a connection was never closed", ResourceWarning, stacklevel=1)


class Connections:
    """Opens a connection for the task that waits, which may be cancelled when it comes."""

    def __init__(self) -> None:
        self.ready = anyio.Event()
        self.connection: Shared[Connection | None] = Shared(None)

    async def open(self) -> None:
        if not self.ready.is_set():
            self.connection.value = Connection()
            self.ready.set()

    async def use(self) -> None:
        try:
            await self.ready.wait()
        except BaseException:
            self.forsake()
            raise
        self.close()

    def forsake(self) -> None:
        """A task that no longer waits needs no connection."""

    def close(self) -> None:
        if self.connection.value is not None:
            self.connection.value.close()


class ConnectionsThatAreClosed(Connections):
    """A task that no longer waits closes the connection that came for it, and takes no other."""

    def forsake(self) -> None:
        self.close()
        self.ready.set()


async def open_and_use(connections_class: type[Connections]) -> None:
    connections = connections_class()
    await together(connections.use, connections.open)


SPECIMENS = (
    Specimen(
        "lock held across a cancel",
        partial(two_writers, Register),
        partial(two_writers, RegisterWithWith),
        kind="stall",
        told="for anyio's Semaphore: release() was not called after that",
        found=11,
        proved=317,
        cancel=True,
    ),
    Specimen(
        "permit lost on cancel",
        partial(three_permits, Permits),
        partial(three_permits, PermitsPassedOn),
        kind="stall",
        told="for anyio's Event: set() was not called after that",
        found=33,
        proved=2344,
        cancel=True,
    ),
    Specimen(
        "permit given twice",
        partial(three_permits, PermitsGivenAnyway),
        partial(three_permits, PermitsPassedOn),
        kind="exception",
        told="AssertionError: more users than permits",
        found=157,
        proved=2344,
        cancel=True,
    ),
    Specimen(
        "signal lost on cancel",
        partial(three_at_the_turnstile, Turnstile),
        partial(three_at_the_turnstile, TurnstileThatWakesAnother),
        kind="stall",
        told="for anyio's Event: set() was not called after that",
        found=33,
        proved=2421,
        cancel=True,
    ),
    Specimen(
        "leak at the grant",
        partial(open_and_use, Connections),
        partial(open_and_use, ConnectionsThatAreClosed),
        kind="leak",
        told="a connection was never closed",
        found=5,
        proved=69,
        cancel=True,
    ),
)
