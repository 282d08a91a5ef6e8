"""A test may use packages that patch clocks, locks or files for the whole process, in a fixture or
in the program. A test of such a package is skipped where it is not installed; beside it is one that
plants the same kind of patch."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import importlib
import os
import sys
import threading
import time
import types
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pytest

from mbufpools import lab
from mbufpools.lab import _lockstep
from mbufpools.lab._clocks import EPOCH
from mbufpools.lab._instants import BEGIN
from mbufpools.lab._redirected import _HEAD, _Function, methods_replaced, real
from tests.kit.suites import INI, dedent, run

on_cpython = pytest.mark.skipif(
    sys.implementation.name != "cpython", reason="the methods of C are replaced on CPython alone"
)


# Packages that raise an error where the event loop would block: blockbuster


START = threading.Thread.start.__code__


class WouldBlock(Exception):
    pass


def is_in_event_loop() -> bool:
    return asyncio._get_running_loop() is not None


def starts_a_thread() -> bool:
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_code is not START:
        frame = frame.f_back
    return frame is not None


@contextlib.contextmanager
def nothing_blocks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Raise an error where the thread of an event loop waits for a lock, or asks for a file."""
    cls = type(threading.Lock())
    acquire, stat = vars(cls)["acquire"], os.stat

    def checked(lock: Any, blocking: bool = True, timeout: float = -1) -> Any:
        waits = blocking and timeout != 0 and lock.locked()
        if waits and is_in_event_loop() and not starts_a_thread():
            raise WouldBlock("acquire")
        return acquire(lock, blocking, timeout)

    def checked_stat(*args: Any, **options: Any) -> Any:
        if is_in_event_loop():
            raise WouldBlock("stat")
        return stat(*args, **options)

    with methods_replaced({cls: {"acquire": checked}}), monkeypatch.context() as patch:
        patch.setattr(os, "stat", checked_stat)
        yield


async def asks_threads() -> None:
    ready = threading.Event()
    lock = threading.Lock()

    def wait() -> None:
        ready.wait()
        with lock:
            pass

    def tell() -> None:
        lock.acquire()
        lock.release()
        ready.set()

    await asyncio.gather(asyncio.to_thread(wait), asyncio.to_thread(tell))


async def joins_a_thread() -> None:
    thread = threading.Thread(target=time.sleep, args=(1,))
    thread.start()
    thread.join()


async def asks_no_thread() -> None:
    await asyncio.gather(asyncio.sleep(0), asyncio.sleep(0))


PROGRAMS = [asks_threads, joins_a_thread, asks_no_thread]


@on_cpython
@pytest.mark.parametrize("program", PROGRAMS)
def test_locks_of_the_lab_are_immune_to_a_patch_that_forbids_to_block(
    program: lab.Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    with nothing_blocks(monkeypatch):
        lab.explore(program, max_executions=20).assert_holds()
        lab.explore(program, max_executions=20, cancel=True).assert_holds()
    lab.explore(program, max_executions=20).assert_holds()


@pytest.mark.parametrize("program", PROGRAMS)
def test_blockbuster_gives_no_alarm(program: lab.Program) -> None:
    blockbuster = pytest.importorskip("blockbuster")
    with blockbuster.blockbuster_ctx():
        lab.explore(program, max_executions=20).assert_holds()
        lab.explore(program, max_executions=20, cancel=True).assert_holds()
    lab.explore(program, max_executions=20).assert_holds()


def test_blockbuster_finds_what_blocks_the_event_loop() -> None:
    blockbuster = pytest.importorskip("blockbuster")

    async def program() -> None:
        time.sleep(1)

    with blockbuster.blockbuster_ctx():
        (failure,) = lab.explore(program).failures
    assert "BlockingError: Blocking call to time.sleep" in str(failure)


def test_a_thread_that_cannot_be_ended_leaves_nothing_to_the_next_execution(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kill = _lockstep.LabThread.kill

    def kill_and_fail(thread: _lockstep.LabThread) -> None:
        kill(thread)
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(_lockstep.LabThread, "kill", kill_and_fail)
        with pytest.raises(ZeroDivisionError):
            lab.explore(asks_threads)
    assert not _lockstep.any_thread()
    lab.explore(asks_threads, max_executions=20).assert_holds()


# Packages that patch the clocks in C: time-machine


def definition_of(function: Any) -> Any:
    assert type(function) is types.BuiltinFunctionType
    return _Function.from_address(id(function) + _HEAD).definition.contents


class TravelInC:
    """Does what time-machine does, for `time.time` alone: it becomes `time.monotonic` in C."""

    def __init__(self) -> None:
        self.functions = [time.time, datetime.datetime.now, datetime.datetime.utcnow]
        self.real = [definition_of(it).function for it in self.functions]
        self.travels = False

    def check(self) -> None:
        """What is patched must be what it was, also where it was found before."""
        found = [time.time, datetime.datetime.now, datetime.datetime.utcnow]
        for functions in (found, self.functions):
            assert [definition_of(it).function for it in functions] == self.real

    def patch(self) -> None:
        self.check()
        definition_of(time.time).function = definition_of(real(time.monotonic)).function

    def unpatch(self) -> None:
        definition_of(time.time).function = self.real[0]
        self.check()

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        sys.modules["_time_machine"].patch()
        self.travels = True
        try:
            yield
        finally:
            self.travels = False
            sys.modules["_time_machine"].unpatch()


@pytest.fixture
def travel(monkeypatch: pytest.MonkeyPatch) -> TravelInC:
    it = TravelInC()
    inner = types.SimpleNamespace(patch=it.patch, unpatch=it.unpatch, original_time_ns=time.time_ns)
    hatch = types.SimpleNamespace(is_travelling=lambda: it.travels)
    monkeypatch.setitem(sys.modules, "_time_machine", inner)
    monkeypatch.setitem(sys.modules, "time_machine", types.SimpleNamespace(escape_hatch=hatch))
    return it


def is_virtual(moment: float) -> bool:
    return EPOCH <= moment < EPOCH + 1000


@on_cpython
def test_a_travel_in_c_is_right_in_the_program_and_ends_there(travel: TravelInC) -> None:
    uptime = time.monotonic()

    async def travels() -> None:
        assert is_virtual(time.time())
        with travel():
            await asyncio.sleep(1)
            assert uptime <= time.time() < uptime + 1000
            assert time.monotonic() < BEGIN + 1000
        assert is_virtual(time.time())

    async def program() -> None:
        await asyncio.gather(travels(), asyncio.sleep(2))

    lab.explore(program).assert_holds()
    assert time.time() > EPOCH + 1000


@on_cpython
def test_a_travel_in_c_around_the_exploration_holds_in_the_program(travel: TravelInC) -> None:
    uptime = time.monotonic()

    async def program() -> None:
        assert uptime <= time.time() < uptime + 1000
        begin = time.monotonic()
        await asyncio.gather(asyncio.sleep(0), asyncio.sleep(5))
        assert 5 <= time.monotonic() - begin < 6

    with travel():
        lab.explore(program).assert_holds()
    assert time.time() > EPOCH + 1000


async def travels_twice() -> None:
    time_machine = importlib.import_module("time_machine")
    for tick in (True, False):
        with time_machine.travel(1000, tick=tick):
            begin = time.time()
            assert begin == 1000
            await asyncio.sleep(5)
            passed = 5 if tick else 0
            assert passed <= time.time() - begin < passed + 0.001
            now = datetime.datetime.now(datetime.UTC)
            assert begin + passed <= now.timestamp() < begin + passed + 0.001
            assert time.gmtime().tm_year == 1970
    assert is_virtual(time.time())
    assert is_virtual(datetime.datetime.now().timestamp())


@pytest.mark.parametrize("cancel", [False, True])
def test_time_machine_travels_in_the_program(cancel: bool) -> None:
    pytest.importorskip("time_machine")

    async def program() -> None:
        await asyncio.gather(travels_twice(), asyncio.sleep(3))

    lab.explore(program, cancel=cancel, max_executions=100).assert_holds()
    assert time.time() > EPOCH + 1000
    assert datetime.datetime.now().timestamp() > EPOCH + 1000


@pytest.mark.parametrize("strategy", ["mixed", "dpor"])
@pytest.mark.parametrize("tick", [True, False])
def test_a_travel_of_time_machine_holds_in_each_execution(
    tick: bool, strategy: lab.StrategyName
) -> None:
    time_machine = pytest.importorskip("time_machine")
    begins: set[float] = set()

    async def program() -> None:
        begins.add(begin := time.time())
        await asyncio.gather(asyncio.sleep(0), asyncio.sleep(5))
        passed = 5 if tick else 0
        assert passed <= time.time() - begin < passed + 0.001

    with time_machine.travel(1000, tick=tick):
        lab.explore(program, strategy=strategy).assert_holds()
        (begin,) = begins
        assert 1000 <= begin < 1100
        assert 1000 <= time.time() < 1100
    assert time.time() > EPOCH + 1000


def test_fixtures_of_time_machine_hold_in_each_execution(pytester: pytest.Pytester) -> None:
    pytest.importorskip("time_machine")
    pytester.makeini(INI)
    source = """
    import datetime
    import time
    import time_machine as package

    @pytest.fixture
    def travel():
        with package.travel(0, tick=False) as it:
            yield it

    @pytest.mark.explore
    @pytest.mark.time_machine("2022-01-01T00:00:00+00:00", tick=False)
    async def test_marker():
        await two(checkpoint)
        assert datetime.date.today().year == 2022
        assert time.gmtime().tm_year == 2022

    @pytest.mark.explore
    async def test_fixture(travel):
        await two(checkpoint)
        assert time.time() == 0
        travel.shift(10)
        assert time.time() == 10

    @pytest.mark.explore
    async def test_begun_in_the_test(time_machine):
        time_machine.move_to(datetime.datetime(2022, 1, 1))
        await two(checkpoint)
        assert datetime.datetime.now().year == 2022

    def test_after():
        assert datetime.datetime.now().year > 2023 and time.time() > 1.75e9
    """
    result = run(pytester, dedent(source))
    result.assert_outcomes(passed=7)


# Packages that patch the names of clocks: freezegun


async def chooses_among_many() -> None:
    await asyncio.gather(*(asyncio.sleep(0) for _ in range(6)))


def test_the_lab_knows_the_real_time_where_all_names_of_clocks_are_patched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stopped = time.perf_counter()
    for module in list(sys.modules.values()):
        for name, value in list(vars(module).items()):
            if value is time.perf_counter and module is not time:
                monkeypatch.setattr(module, name, lambda: stopped)
    monkeypatch.setattr(time, "perf_counter", lambda: stopped)
    exploration = lab.explore(chooses_among_many, max_preemptions=None, max_seconds=0.2)
    assert not exploration.complete
    assert exploration.executions < 10_000
    assert exploration.seconds > 0


async def sleeps_in_frozen_time() -> None:
    freezegun = importlib.import_module("freezegun")
    with freezegun.freeze_time("2020-01-01", real_asyncio=True) as frozen:
        await asyncio.gather(asyncio.sleep(0), asyncio.sleep(5))
        assert datetime.datetime.now().year == 2020
        frozen.tick(5)
        assert datetime.datetime.now().second == 5
    assert is_virtual(time.time())
    assert is_virtual(datetime.datetime.now().timestamp())


def test_freezegun_freezes_the_clocks_of_the_program() -> None:
    pytest.importorskip("freezegun")
    lab.explore(sleeps_in_frozen_time).assert_holds()
    assert time.time() > EPOCH + 1000
    assert datetime.datetime.now().timestamp() > EPOCH + 1000


@pytest.mark.parametrize("real_asyncio", [False, True])
def test_freezegun_around_the_exploration_holds_in_each_execution(real_asyncio: bool) -> None:
    freezegun = pytest.importorskip("freezegun")

    async def program() -> None:
        loop = asyncio.get_running_loop()
        begin = loop.time()
        await asyncio.gather(asyncio.sleep(0), asyncio.sleep(5))
        assert 5 <= loop.time() - begin < 6
        assert datetime.datetime.now().year == time.gmtime().tm_year == 2020

    with freezegun.freeze_time("2020-01-01", real_asyncio=real_asyncio):
        lab.explore(program, max_seconds=60).assert_holds()
    assert time.time() > EPOCH + 1000


def test_decorators_and_fixtures_of_freezegun_hold_in_each_execution(
    pytester: pytest.Pytester,
) -> None:
    pytest.importorskip("pytest_freezer")
    pytester.makeini(INI)
    source = """
    import datetime
    import time
    import freezegun

    @pytest.mark.explore(backend="asyncio")
    @freezegun.freeze_time("2020-01-01", real_asyncio=True)
    async def test_decorator():
        await asyncio.gather(asyncio.sleep(1), asyncio.sleep(2))
        assert datetime.datetime.now().year == 2020

    @pytest.mark.explore(backend="asyncio")
    @pytest.mark.freeze_time("2021-01-01")
    async def test_mark():
        await two(checkpoint)
        assert datetime.datetime.now().year == 2021

    @pytest.mark.explore(backend="asyncio")
    async def test_fixture(freezer):
        freezer.move_to("2022-01-01")
        await two(checkpoint)
        assert datetime.date.today().year == time.gmtime().tm_year == 2022

    def test_after():
        assert datetime.datetime.now().year > 2023 and time.time() > 1.75e9
    """
    result = run(pytester, dedent(source))
    result.assert_outcomes(passed=4)
