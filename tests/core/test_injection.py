"""An exception at any line of the core, inside any public call, loses no item and no waiter.

A tracer raises at the n-th line event inside the modules of the core, for each n in turn, until the
call ends before its n-th line. So does a Ctrl-C, or a stack or a heap that is full. Afterwards
every item is held or at home, every request that can be served is served within one second of the
loop's clock, every invariant holds, and the set can be closed.

``python -m tests.proofs.places`` tries every place. This quick form tries each line of the core
that any of the calls runs, once on each backend: the first time that it runs, in the first call
that runs it.
"""

from __future__ import annotations

import functools
import gc
import itertools
import linecache
import signal
import sys
import warnings
import zlib
from collections.abc import Awaitable, Callable, Generator
from pathlib import Path
from types import FrameType
from typing import Any

import anyio
import pytest

import mbufpools
from mbufpools import AccountedMemory, BufferPools, PoolSpec, lab
from mbufpools._waits import _TrioSleeper
from tests.kit.grants import settle

FOLDER = Path(mbufpools.__file__).parent
# Not the map of the package, and not what only the lab calls.
CORE = {str(path) for path in FOLDER.glob("_*.py")} - {
    str(FOLDER / name) for name in ("__init__.py", "__main__.py", "_lab_hooks.py")
}
ERRORS: list[type[BaseException]] = [KeyboardInterrupt, RecursionError, MemoryError]
KIB = 1024


class Injector:
    """Raises `error` at the line event number `place`, counted from 1 inside the core; or, if a
    `line` is given, at the line event number `place` of that line."""

    def __init__(self, error: type[BaseException], place: int, line: str = "") -> None:
        self._error = error
        self.place = place
        self._line_wanted = line
        self.seen = 0
        self.lines: dict[str, None] = {}
        """The lines that have run so far, in the order in which they ran first."""
        self.where = "nowhere"
        self._before: Any = None
        """The tracer that was there, such as that of coverage."""

    @property
    def raised(self) -> bool:
        return self.seen >= self.place

    def __enter__(self) -> None:
        self._before = sys.gettrace()
        if not self.raised:
            sys.settrace(self._trace)

    def __exit__(self, *exc_info: object) -> None:
        sys.settrace(self._before)

    def _trace(self, frame: FrameType, event: str, arg: object) -> Any:
        if frame.f_code.co_filename not in CORE or frame.f_code.co_name == "__del__":
            return None  # what `__del__` raises goes nowhere
        return self._line

    def _line(self, frame: FrameType, event: str, arg: object) -> Any:
        if event == "line":
            here = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
            self.lines[here] = None
            self.seen += self._line_wanted in ("", here)
            if self.seen == self.place and not self._goes_nowhere(frame):
                self.where = here
                raise self._error("injected")
        return self._line

    def _goes_nowhere(self, frame: FrameType | None) -> bool:
        """True inside a finalizer or a callback, whose exceptions the interpreter drops; on a line
        that is only ``try:``, where only a tracer can raise, and which CPython leaves out of the
        handlers around it; and on a line that enters or leaves a cancel scope, which anyio cannot
        end after an exception that comes just before it. Then the next line is tried."""
        assert frame is not None
        line = linecache.getline(frame.f_code.co_filename, frame.f_lineno)
        if line.strip() == "try:" or "with anyio.CancelScope" in line or "with self._scope" in line:
            self.place += 1
            return True
        while frame is not None:
            if frame.f_code.co_name in ("__del__", "_anchor_died", "__release_buffer__"):
                self.place += 1
                return True
            frame = frame.f_back
        return False


class Steps:
    """Awaits a coroutine, each step of it under the injector."""

    def __init__(self, coroutine: Any, injector: Injector) -> None:
        self._coroutine = coroutine
        self._injector = injector

    def __await__(self) -> Generator[Any, Any, Any]:
        steps = self._coroutine.__await__()
        value: Any = None
        error: BaseException | None = None
        while True:
            try:
                with self._injector:
                    trap = steps.send(value) if error is None else steps.throw(error)
            except StopIteration as end:
                return end.value
            value = error = None
            try:
                value = yield trap
            except BaseException as thrown:  # noqa: ASYNC103, BLE001 - thrown on
                error = thrown


Do = Callable[[Callable[[Any], Any]], Any]


class Trial:
    """One pool set, what is held of it, and who waits."""

    def __init__(self, limit: int, **options: Any) -> None:
        self.pools = BufferPools(
            limit * 4 * KIB,
            [
                PoolSpec(KIB, name="small", items_per_page=4),
                PoolSpec(4 * KIB, name="large", items_per_page=1),
            ],
            memory=options.pop("memory", None) or AccountedMemory(),
            **options,
        )
        self.held: list[Any] = []
        self.waiting: list[str] = []

    def wait(self, group: Any, name: str, take: Callable[[], Awaitable[Any]]) -> None:
        async def waiter() -> None:
            self.waiting.append(name)
            try:
                lease = await take()
            except (anyio.ClosedResourceError, MemoryError):
                pass  # a page that cannot be had fails the request
            else:
                lease.release()
            self.waiting.remove(name)

        group.start_soon(waiter)

    def take_nowait(self, pool: str, count: int) -> None:
        self.held += [self.pools.pools[pool].get_nowait() for _ in range(count)]


async def release_with_a_waiter(trial: Trial, group: Any, do: Any) -> None:
    trial.take_nowait("small", 8)
    trial.wait(group, "small", trial.pools.pools["small"].get)
    await settle()
    await do(trial.held[3].release)


async def release_of_a_view(trial: Trial, group: Any, do: Any) -> None:
    trial.take_nowait("small", 8)
    trial.wait(group, "small", trial.pools.pools["small"].get)
    await settle()
    bytes(trial.held[3].view[:3])
    await do(trial.held[3].release)


async def release_that_makes_room(trial: Trial, group: Any, do: Any) -> None:
    trial.take_nowait("small", 1)
    trial.take_nowait("large", 1)
    trial.wait(group, "large", trial.pools.pools["large"].get)
    await settle()
    await do(trial.held[0].release)


async def release_of_several(trial: Trial, group: Any, do: Any) -> None:
    trial.held.append(await trial.pools.get_many([KIB, 4 * KIB]))
    trial.wait(group, "large", trial.pools.pools["large"].get)
    trial.wait(group, "bytes", lambda: _reserve(trial.pools, 4 * KIB))
    await settle()
    await do(trial.held[0].release)


async def release_of_a_reservation(trial: Trial, group: Any, do: Any) -> None:
    trial.held.append(await trial.pools.reserve(8 * KIB))
    trial.wait(group, "small", trial.pools.pools["small"].get)
    await settle()
    await do(trial.held[0].release)


async def end_of_a_with(trial: Trial, group: Any, do: Any) -> None:
    trial.take_nowait("small", 8)
    trial.wait(group, "small", trial.pools.pools["small"].get)
    await settle()
    part = trial.held[3].view[:3]
    await do(lambda: trial.held[3].__exit__(None, None, None))
    del part


async def get_of_a_free_item(trial: Trial, group: Any, do: Any) -> None:
    trial.take_nowait("small", 1)
    trial.held.append(await do(trial.pools.get, KIB))


async def get_that_takes_a_page(trial: Trial, group: Any, do: Any) -> None:
    trial.pools.pools["small"].get_nowait().release()
    trial.held.append(await do(trial.pools.get, 4 * KIB))


async def get_that_waits(trial: Trial, group: Any, do: Any) -> None:
    trial.take_nowait("large", 2)

    async def later() -> None:
        await anyio.sleep(0.1)
        trial.held.pop(0).end()

    group.start_soon(later)
    trial.held.append(await do(trial.pools.get, KIB))


async def get_nowait_of_the_last_item(trial: Trial, group: Any, do: Any) -> None:
    trial.take_nowait("small", 3)
    trial.held.append(await do(lambda: trial.pools.get_nowait(KIB)))


async def get_nowait_that_reclaims(trial: Trial, group: Any, do: Any) -> None:
    trial.take_nowait("large", 1)
    trial.pools.pools["small"].get_nowait().release()
    trial.held.append(await do(lambda: trial.pools.get_nowait(4 * KIB)))


async def get_many(trial: Trial, group: Any, do: Any) -> None:
    trial.pools.pools["small"].get_nowait().release()
    trial.held.append(await do(trial.pools.get_many, [KIB, KIB, 4 * KIB]))


async def get_many_that_waits(trial: Trial, group: Any, do: Any) -> None:
    trial.take_nowait("large", 2)

    async def later() -> None:
        await anyio.sleep(0.1)
        for _ in range(2):
            trial.held.pop(0).end()

    group.start_soon(later)
    trial.held.append(await do(trial.pools.get_many, [KIB, KIB, 4 * KIB]))


async def reserve(trial: Trial, group: Any, do: Any) -> None:
    trial.pools.pools["small"].get_nowait().release()
    trial.held.append(await do(_reserve, trial.pools, 8 * KIB))


async def reserve_that_waits(trial: Trial, group: Any, do: Any) -> None:
    trial.take_nowait("large", 1)

    async def later() -> None:
        await anyio.sleep(0.1)
        trial.held.pop(0).end()

    group.start_soon(later)
    trial.held.append(await do(_reserve, trial.pools, 8 * KIB))


async def reclaim(trial: Trial, group: Any, do: Any) -> None:
    trial.take_nowait("small", 8)
    while trial.held:
        trial.held.pop().release()
    await do(trial.pools.pools["small"].reclaim)


async def resize_up(trial: Trial, group: Any, do: Any) -> None:
    trial.take_nowait("large", 2)
    trial.wait(group, "small", trial.pools.pools["small"].get)
    trial.wait(group, "large", trial.pools.pools["large"].get)
    await settle()
    await do(lambda: trial.pools.resize(16 * KIB))


async def resize_down(trial: Trial, group: Any, do: Any) -> None:
    trial.take_nowait("large", 2)
    trial.wait(group, "large", trial.pools.pools["large"].get)
    await settle()
    await do(lambda: trial.pools.resize(4 * KIB))


async def close(trial: Trial, group: Any, do: Any) -> None:
    trial.take_nowait("small", 5)
    trial.held.pop().release()
    trial.wait(group, "large", trial.pools.pools["large"].get)
    await settle()
    await do(trial.pools.__aexit__, None, None, None)


async def _reserve(pools: BufferPools, nbytes: int) -> Any:
    return await pools.reserve(nbytes)


CALLS: list[Callable[[Trial, Any, Any], Awaitable[None]]] = [
    release_with_a_waiter,
    release_of_a_view,
    release_that_makes_room,
    release_of_several,
    release_of_a_reservation,
    end_of_a_with,
    get_of_a_free_item,
    get_that_takes_a_page,
    get_that_waits,
    get_nowait_of_the_last_item,
    get_nowait_that_reclaims,
    get_many,
    get_many_that_waits,
    reserve,
    reserve_that_waits,
    reclaim,
    resize_up,
    resize_down,
    close,
]


async def attempt(call: Any, injector: Injector, options: dict[str, Any]) -> list[str]:
    """Make one call with an injection; return what is wrong afterwards."""
    wrong: list[str] = []
    if call in (release_of_a_view, end_of_a_with):
        options = {**options, "memory": mbufpools.MappedMemory()}
    trial = Trial(2, **options)
    pools = trial.pools

    async def do(function: Callable[..., Any], *args: Any) -> Any:
        if args or call is close:
            return await Steps(function(*args), injector)
        with injector:
            return function()

    async with anyio.create_task_group() as group:
        await pools.__aenter__()
        try:
            await call(trial, group, do)
        except BaseException as error:  # noqa: ASYNC103 - the injected one
            if "injected" not in str(error) and "no stack is left" not in str(error):
                raise
        gc.collect()
        for lease in trial.held:  # what its release left held can be released again
            parts = lease if isinstance(lease, tuple) else (lease,)
            for part in parts:
                if not part.released and "waits" not in call.__name__:
                    part.release()
        await anyio.sleep(1.2)
        for lease in trial.held:
            for part in lease if isinstance(lease, tuple) else (lease,):
                if not part.released:
                    part.release()
        await anyio.sleep(0.2)
        if call is close and not pools._owner_loop.closed:
            await pools.aclose()
            await anyio.sleep(0.2)
        if trial.waiting:
            wrong.append(f"{trial.waiting} wait for ever")
            group.cancel_scope.cancel()
        try:
            pools.check()
        except mbufpools.PoolCorruption as error:
            wrong.append(str(error))
        statistics = pools.statistics()
        closed = pools._owner_loop.closed
        if statistics.nout or statistics.reserved:
            wrong.append(f"{statistics.nout} items and {statistics.reserved} bytes are lost")
        if closed and pools.budget.allocated:
            wrong.append(f"{pools.budget.allocated} bytes stay charged after the close")
        if not closed:
            await pools.__aexit__(None, None, None)
        if pools.budget.allocated:
            wrong.append(f"{pools.budget.allocated} bytes stay charged")
    return wrong


def inject(
    call: Any, error: type[BaseException], place: int, backend: Any, line: str = "", **options: Any
) -> Injector:
    """Try one place of `call`, which is none if the call ends before it."""
    injector = Injector(error, place, line)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        wrong = lab.run(lambda: attempt(call, injector, options), backend=backend)
    assert not wrong, f"{error.__name__} at {injector.where}, place {place}: {wrong}"
    return injector


def inject_everywhere(call: Any, error: type[BaseException], backend: Any) -> int:
    """Try every place of `call`; return how many there are."""
    for place in itertools.count(1):
        if not inject(call, error, place, backend).raised:
            return place - 1
    raise AssertionError("not reached")


@functools.cache
def lines_of(call: Any, backend: str) -> dict[str, None]:
    """The lines of the core that `call` runs."""
    return inject(call, KeyboardInterrupt, sys.maxsize, backend).lines


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("call", CALLS)
def test_an_exception_at_any_line_loses_nothing(call: Any, backend: str) -> None:
    before = {line for it in CALLS[: CALLS.index(call)] for line in lines_of(it, backend)}
    for line in lines_of(call, backend):
        if line not in before:
            error = ERRORS[zlib.crc32(line.encode()) % len(ERRORS)]
            inject(call, error, 1, backend, line)


def test_the_lines_that_are_tried_are_most_of_the_core() -> None:
    """Of the modules that serve requests, and of what wakes a task on trio."""
    tried = {line for call in CALLS for line in lines_of(call, "trio")}
    for module, least in (("_waiters.py", 200), ("_supply.py", 60), ("_waits.py", 10)):
        assert sum(line.startswith(f"{module}:") for line in tried) >= least


def test_a_wake_that_an_exception_has_ended_in_its_middle_is_made_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    call = release_with_a_waiter
    wakes = [line for line in lines_of(call, "trio") if line.startswith("_waits.py")]
    for line in wakes:
        inject(call, KeyboardInterrupt, 1, "trio", line)
    monkeypatch.setattr(_TrioSleeper, "done", lambda self: self._woken)
    with pytest.raises(AssertionError, match=r"\['small'\] wait for ever"):
        for line in wakes:
            inject(call, KeyboardInterrupt, 1, "trio", line)


@pytest.mark.parametrize("line", [1, 4, 9, 15, 25, 40])
def test_on_trio_a_ctrl_c_waits_for_the_next_checkpoint(line: int) -> None:
    """The injector raises a real signal here, in a release that serves a waiter."""
    came: list[str] = []

    class Interrupting(Injector):
        def _line(self, frame: FrameType, event: str, arg: object) -> Any:
            if event == "line":
                self.seen += 1
                if self.seen == self.place:
                    signal.raise_signal(signal.SIGINT)
            return self._line

    async def main() -> None:
        trial = Trial(2)
        async with anyio.create_task_group() as group:
            await trial.pools.__aenter__()
            trial.take_nowait("small", 8)
            trial.wait(group, "small", trial.pools.pools["small"].get)
            await settle()
            injector = Interrupting(KeyboardInterrupt, line)
            with injector:
                trial.held[3].release()
            assert injector.raised
            came.append("released")
            try:
                await settle()
            finally:
                assert trial.held[3].released
                for buffer in trial.held:
                    buffer.end()
                trial.pools.check()
                with anyio.CancelScope(shield=True):
                    await trial.pools.aclose()
                came.append("closed")

    with pytest.raises(BaseException) as caught:  # noqa: PT011 - in a group, or not
        anyio.run(main, backend="trio")
    assert came == ["released", "closed"]
    assert "KeyboardInterrupt" in repr(caught.value)
