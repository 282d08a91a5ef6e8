"""The clocks of Python move with the virtual clock, and chance is the same in every execution."""

from __future__ import annotations

import _random
import asyncio
import collections
import contextlib
import dataclasses
import datetime
import email.utils
import functools
import gc
import logging
import os
import pickle
import random
import sched
import secrets
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
import timeit
import types
import uuid
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

import anyio
import pytest
from anyio.lowlevel import checkpoint

from mbufpools import lab
from mbufpools.lab import _redirected
from mbufpools.lab._chance import CHANCE, SYSTEM_CHANCE, restart_chance
from mbufpools.lab._clocks import EPOCH, LOOKS, TURNS
from mbufpools.lab._instants import BEGIN, TICK, TOGETHER
from mbufpools.lab._options import STEP_LIMIT
from mbufpools.lab._running import LOOK
from mbufpools.lab._stillness import ROUNDS, STILL

try:
    import ssl
except ImportError:  # of a Python that was built without it
    ssl = None  # type: ignore[assignment]

BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])


def begins(timer: Any = time.monotonic) -> float:
    """Copies a clock by a default argument."""
    return float(timer())


# Clocks


def nearly(seconds: float) -> Any:
    """The same time, but for what a few looks at the clock take."""
    return pytest.approx(seconds, rel=0, abs=1e-6)


@BACKENDS
@pytest.mark.parametrize("strategy", ["mixed", "exhaustive", "random", "pct", "fifo", "dpor"])
def test_a_look_at_the_clock_is_later_than_the_one_before(
    backend: lab.BackendName, strategy: lab.StrategyName
) -> None:
    """As it is on a real machine, where the clock has nanoseconds: a rate can be computed."""

    async def program() -> None:
        begin, begin_in_ns = time.perf_counter(), time.monotonic_ns()
        await checkpoint()
        assert 1 / (time.perf_counter() - begin) > 0
        assert time.monotonic_ns() > begin_in_ns
        looks = [time.perf_counter() for _ in range(100)]
        assert sorted(set(looks)) == looks
        assert anyio.current_time() >= looks[-1]
        last = time.time()
        await anyio.sleep(0.2)
        assert time.time() - last >= 0.2
        assert time.perf_counter() - looks[-1] >= 0.2

    assert (
        lab.explore(program, backend=backend, strategy=strategy, max_executions=10).failures == ()
    )


def test_a_line_of_the_log_tells_the_time_since_the_begin_of_the_execution() -> None:
    async def program() -> None:
        await anyio.sleep(2)
        record = logging.LogRecord("name", logging.INFO, "path", 1, "text", None, None)
        assert record.created == nearly(EPOCH + 2)
        assert record.relativeCreated == pytest.approx(2000, abs=0.01)

    assert not lab.explore(program).failures


def test_datetime_is_not_later_than_a_later_look_at_the_clock() -> None:
    """As CPython does it: what is less than a microsecond is cut off."""

    async def program() -> None:
        for _ in range(50):
            now = datetime.datetime.now()
            utc = datetime.datetime.now(datetime.UTC)
            assert time.time() >= utc.timestamp()
            assert time.time() >= now.timestamp()
            await anyio.sleep(0.000_001_3)

    assert not lab.explore(program).failures


@BACKENDS
def test_dpor_sees_which_of_two_looks_is_later(backend: lab.BackendName) -> None:
    async def program() -> None:
        looks: dict[str, int] = {}

        async def look(name: str) -> None:
            await checkpoint()
            looks[name] = time.monotonic_ns()

        async with anyio.create_task_group() as group:
            group.start_soon(look, "first")
            group.start_soon(look, "second")
        assert looks["first"] < looks["second"]

    assert lab.explore(program, backend=backend, strategy="dpor").verdict == "found"


@BACKENDS
def test_dpor_refuses_a_program_that_polls_while_a_timer_is_set(
    backend: lab.BackendName,
) -> None:
    async def there_is_a_timeout() -> None:
        with anyio.move_on_after(30):
            while True:
                await checkpoint()

    with pytest.raises(lab.Unsupported, match=r"asks again and again .* which dpor cannot follow"):
        lab.explore(there_is_a_timeout, backend=backend, strategy="dpor")

    async def nothing_will_happen() -> None:
        while True:
            await checkpoint()

    found = lab.explore(nothing_will_happen, backend=backend, strategy="dpor")
    assert found.failures[0].kind == "livelock"


@BACKENDS
def test_the_clock_goes_on_for_a_program_that_asks_again_and_again(
    backend: lab.BackendName,
) -> None:
    """It asks whether something has happened, and each time gives way to others."""

    async def a_timer_is_set() -> None:
        over = anyio.Event()

        async def late() -> None:
            await anyio.sleep(30)
            over.set()

        async with anyio.create_task_group() as group:
            group.start_soon(late)
            while not over.is_set():
                await checkpoint()

    async def there_is_a_timeout() -> None:
        with anyio.move_on_after(30) as scope:
            while True:
                await checkpoint()
        assert scope.cancelled_caught

    async def the_clock_of_the_event_loop_is_asked() -> None:
        end = anyio.current_time() + 3600
        while anyio.current_time() < end:
            await checkpoint()

    async def a_thread_sleeps() -> None:
        thread = threading.Thread(target=time.sleep, args=(30,))
        thread.start()
        while thread.is_alive():
            await checkpoint()

    for program in (
        a_timer_is_set,
        there_is_a_timeout,
        the_clock_of_the_event_loop_is_asked,
        a_thread_sleeps,
    ):
        found = lab.explore(program, backend=backend, strategy="fifo")
        assert found.failures == (), program

    async def nothing_will_happen() -> None:
        while True:
            await checkpoint()

    found = lab.explore(nothing_will_happen, backend=backend, strategy="fifo")
    assert found.failures[0].kind == "livelock"


@BACKENDS
def test_looks_at_a_clock_that_stands_still_are_counted_anew_in_each_execution(
    backend: lab.BackendName,
) -> None:
    """A program that waits for the clock to move gets it moved by a millisecond, but not for the
    looks of others."""

    async def program() -> None:
        begin = time.monotonic()
        for _ in range(TURNS // 4):
            assert time.monotonic() - begin < TICK
            await checkpoint()

    found = lab.explore(program, backend=backend, strategy="random", max_executions=6)
    assert not found.failures


@BACKENDS
def test_a_program_that_notes_the_time_again_and_again_does_not_wait_for_it(
    backend: lab.BackendName,
) -> None:
    """As logging does for each line."""

    async def program() -> None:
        with anyio.fail_after(1):
            begin = time.perf_counter()
            for _ in range(LOOKS // 10):
                assert time.perf_counter() - begin < TICK
            await anyio.sleep(0.01)

    assert not lab.explore(program, backend=backend).failures


@BACKENDS
def test_steps_that_look_at_the_clock_until_it_has_moved_come_to_an_end(
    backend: lab.BackendName,
) -> None:
    async def program() -> None:
        begin = time.monotonic()
        while time.monotonic() < begin + 0.01:
            await checkpoint()

    assert lab.explore(program, backend=backend, strategy="fifo").verdict != "found"


def test_callbacks_that_look_at_the_clock_until_it_has_moved_come_to_an_end() -> None:
    async def program() -> None:
        loop, over = asyncio.get_running_loop(), asyncio.Event()
        end = time.monotonic() + 0.01

        def look() -> None:
            if time.monotonic() < end:
                loop.call_soon(look)
            else:
                over.set()

        look()
        await over.wait()

    assert lab.explore(program, strategy="fifo").verdict != "found"


@BACKENDS
def test_the_clocks_move_with_the_event_loops(backend: lab.BackendName) -> None:
    async def program() -> None:
        for passed in (0, 1.5):
            await anyio.sleep(passed)
            now = anyio.current_time() - BEGIN
            assert now == nearly(passed)
            for clock in (time.monotonic, time.perf_counter, monotonic, begins):
                assert clock() == nearly(BEGIN + now)
            for in_ns in (time.monotonic_ns, time.perf_counter_ns):
                assert in_ns() / 1_000_000_000 == nearly(BEGIN + now)
            assert time.time() == nearly(EPOCH + now)
            assert time.time_ns() / 1_000_000_000 == nearly(EPOCH + now)
            assert datetime.datetime.now(datetime.UTC).timestamp() == nearly(EPOCH + now)
            assert datetime.datetime.now().timestamp() == nearly(EPOCH + now)
            assert datetime.datetime.today().timestamp() == nearly(EPOCH + now)
            assert datetime.date.today() == datetime.datetime.now().date()
            assert time.gmtime() == time.gmtime(EPOCH + now)
            assert time.localtime() == time.localtime(EPOCH + now)
            assert time.ctime() == time.ctime(EPOCH + now) == time.asctime()
            assert time.strftime("%H:%M") == time.strftime("%H:%M", time.localtime(EPOCH))

    found = lab.explore(program, backend=backend)
    assert found.complete
    assert not found.failures


def test_a_class_derived_from_datetime_reads_the_virtual_clock_as_an_instance_of_its_own() -> None:
    class Stamp(datetime.datetime):
        pass

    async def program() -> None:
        assert type(Stamp.now()) is Stamp
        assert Stamp.now() == datetime.datetime.now()

    assert not lab.explore(program).failures


def test_clocks_are_real_again_after_an_exploration_and_in_other_threads() -> None:
    before = (time.time, time.monotonic, time.sleep, datetime.datetime.__dict__["now"], monotonic)
    go, done = threading.Lock(), threading.Lock()
    go.acquire()
    done.acquire()
    seen = []

    def elsewhere() -> None:
        go.acquire()
        seen.append(time.time())
        seen.append(datetime.datetime.now().timestamp())
        done.release()

    thread = threading.Thread(target=elsewhere)
    thread.start()

    async def program() -> None:
        if not seen:  # the lab executes it again
            go.release()
            done.acquire()

    lab.explore(program, strategy="fifo")
    thread.join()
    seen += [time.time(), datetime.datetime.now().timestamp()]
    assert min(seen) > EPOCH + 1_000_000
    after = (time.time, time.monotonic, time.sleep, datetime.datetime.__dict__["now"], monotonic)
    assert after == before
    assert begins.__defaults__ == (time.monotonic,)


def test_a_module_that_is_imported_in_an_execution_has_the_real_clock_afterwards() -> None:
    async def program() -> None:
        module = types.ModuleType("imported_in_an_execution")
        exec("from time import monotonic", vars(module))
        sys.modules["imported_in_an_execution"] = module

    try:
        lab.explore(program, strategy="fifo")
        module: Any = sys.modules["imported_in_an_execution"]
        assert module.monotonic is time.monotonic
    finally:
        sys.modules.pop("imported_in_an_execution", None)


@BACKENDS
def test_sleep_takes_no_real_time_and_fires_the_timers_whose_time_has_come(
    backend: lab.BackendName,
) -> None:
    async def program() -> None:
        begin = anyio.current_time()
        with anyio.move_on_after(1) as scope:
            time.sleep(3600)
            await checkpoint()
            await checkpoint()
        assert scope.cancelled_caught
        assert anyio.current_time() == begin + 3600

    real = time.perf_counter()
    assert not lab.explore(program, backend=backend).failures
    assert time.perf_counter() - real < 60


@BACKENDS
def test_a_program_that_waits_for_the_clock_to_move_goes_on(backend: lab.BackendName) -> None:
    async def program() -> None:
        begin = time.monotonic()
        while time.monotonic() < begin + 0.01:
            pass

    assert lab.explore(program, backend=backend).complete


def test_dpor_refuses_time_that_passes_in_the_middle_of_a_step() -> None:
    async def program() -> None:
        time.sleep(1)

    with pytest.raises(lab.Unsupported, match="dpor cannot follow"):
        lab.explore(program, strategy="dpor")


def test_a_negative_sleep_is_refused_as_pythons_own_is() -> None:
    async def program() -> None:
        with pytest.raises(ValueError, match="non-negative"):
            time.sleep(-1)

    assert not lab.explore(program).failures


def test_clocks_can_be_left_real() -> None:
    async def program() -> None:
        await asyncio.sleep(3600)
        assert time.time() > EPOCH + 1_000_000
        assert time.monotonic() - begin < 3000
        assert monotonic() - begin < 3000

    begin = time.monotonic()
    assert not lab.explore(program, clocks=False).failures


def test_a_timer_that_looks_at_the_clock_and_comes_again_ends() -> None:
    """As aiohttp's connector has it."""

    async def program() -> None:
        loop, idle, since = asyncio.get_running_loop(), asyncio.Event(), time.monotonic()

        def look() -> None:
            if time.monotonic() - since >= 15:
                idle.set()
            else:
                loop.call_later(15, look)

        look()
        await idle.wait()

    found = lab.explore(program)
    assert found.complete
    assert not found.failures


# Where the clock begins, and when a deadline has come

CLOCKS: dict[str, Callable[[], float]] = {
    "monotonic": time.monotonic,
    "perf_counter": time.perf_counter,
    "nanoseconds": lambda: time.monotonic_ns() / 1e9,
    "time": time.time,
    "datetime": lambda: datetime.datetime.now().timestamp(),
    "the event loop": anyio.current_time,
}
EACH_CLOCK = pytest.mark.parametrize("clock", CLOCKS.values(), ids=CLOCKS)


@BACKENDS
@EACH_CLOCK
def test_a_clock_is_far_from_zero_at_the_begin_as_on_a_machine_that_is_up_for_days(
    backend: lab.BackendName, clock: Callable[[], float]
) -> None:
    async def raises() -> None:
        last = 0.0
        if clock() - last > 60:
            raise RuntimeError("the path that every real run takes")

    async def caches() -> None:
        refreshed, value = 0.0, None
        if clock() - refreshed > 86_400:
            refreshed, value = clock(), 1
        assert refreshed
        assert value

    assert lab.explore(raises, backend=backend).failures
    assert lab.explore(caches, backend=backend).complete


@BACKENDS
@EACH_CLOCK
def test_at_least_as_much_time_has_passed_as_a_program_has_waited(
    backend: lab.BackendName, clock: Callable[[], float]
) -> None:
    """A program that measures a wait would fail, or wait again for nothing, if it were less."""
    delays = [0.1, 0.2, 0.3, 0.7, 0.05, 0.01, 0.001, 0.0123, 3.3, 1 / 3, 86_400.1]

    async def program() -> None:
        for delay in delays:
            for number in range(3):
                begin = clock()
                if number == 0:
                    await anyio.sleep(delay)
                elif number == 1:
                    time.sleep(delay)
                else:
                    with anyio.move_on_after(delay):
                        await anyio.sleep_forever()
                passed = round(clock() - begin, 6) if clock is CLOCKS["datetime"] else None
                passed = clock() - begin if passed is None else passed
                assert delay - 1e-6 < passed < delay + 1e-5, (delay, passed)
                if clock not in (CLOCKS["datetime"], CLOCKS["nanoseconds"]):
                    assert passed >= delay

    assert not lab.explore(program, backend=backend, strategy="fifo").failures


@BACKENDS
def test_a_program_that_waits_for_what_is_left_comes_to_an_end(backend: lab.BackendName) -> None:
    """As a limiter of rates does, whose waits are the smaller the nearer it is."""

    async def program() -> None:
        tokens, at = 0.0, time.monotonic()
        for _ in range(20):
            while tokens < 1:
                await anyio.sleep((1 - tokens) / 7)
                tokens, at = tokens + (time.monotonic() - at) * 7, time.monotonic()
            tokens -= 1

    found = lab.explore(program, backend=backend, strategy="fifo", step_limit=100)
    assert not found.failures


@pytest.mark.parametrize("strategy", ["exhaustive", "dpor"])
@pytest.mark.parametrize("parts", [2, 3, 5])
@BACKENDS
def test_waits_that_mean_the_same_moment_end_in_either_order(
    backend: lab.BackendName, parts: int, strategy: lab.StrategyName
) -> None:
    orders = set()

    async def program() -> None:
        order: lab.Shared[tuple[str, ...]] = lab.Shared(())

        async def sleep(name: str, number: int, seconds: float) -> None:
            for _ in range(number):
                await anyio.sleep(seconds)
            order.value = (*order.value, name)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(sleep, "parts", parts, 0.1)
            tasks.start_soon(sleep, "whole", 1, parts / 10)
        orders.add(order.value)

    assert lab.explore(program, backend=backend, strategy=strategy).complete
    assert orders == {("parts", "whole"), ("whole", "parts")}


@BACKENDS
def test_a_report_tells_seconds_since_the_begin_of_the_execution(backend: lab.BackendName) -> None:
    async def program() -> None:
        await anyio.sleep(0.2)
        await anyio.sleep(0.2)
        raise RuntimeError

    (failure,) = lab.explore(program, backend=backend).failures
    assert [step.time for step in failure.schedule] == [0.0, 0.2, 0.2, 0.4, 0.4]


def test_the_page_of_the_lab_has_the_numbers_of_the_clock() -> None:
    page = (Path(__file__).parents[2] / "docs" / "lab.md").read_text(encoding="utf-8")
    days = int(BEGIN / 86_400)
    micro = round(TOGETHER * 1e6)
    for said in (
        f"It begins at {int(BEGIN):,} seconds",
        {12: "twelve days"}[days],
        f"less than {micro} microseconds apart",
        f"moved by {TICK * 1000:g} ms for each look after {LOOKS:,}",
        f"After {STILL:,} steps in a row that only gave way, and {ROUNDS} for each task",
        f"half of `step_limit` ({STEP_LIMIT // 2:,})",
        {2: "takes time: nearly two nanoseconds"}[round(LOOK * 1e9)],
        f"{datetime.datetime.fromtimestamp(EPOCH, datetime.UTC):%Y-%m-%d %H:%M:%S} UTC",
    ):
        assert said in page.replace("\n", " ")


# Copies of a clock: wherever a program holds it, it moves with the virtual clock


class Pace:
    clock: Any = time.monotonic
    static = staticmethod(time.perf_counter)

    def __init__(self) -> None:
        self.own = time.time


@dataclasses.dataclass(frozen=True, slots=True)
class Job:
    made: float = dataclasses.field(default_factory=time.time)
    at: datetime.datetime = dataclasses.field(default_factory=datetime.datetime.now)


class Ticks(NamedTuple):
    source: Callable[[], float] = time.monotonic


class Stamp(datetime.datetime):
    pass


def in_a_closure() -> Callable[[], float]:
    clock = time.monotonic
    return lambda: clock()


def in_a_default(*, timer: Any = time.perf_counter) -> float:
    return float(timer())


PACE = Pace()
BY_NAME = {"clock": time.monotonic}
NOW, TODAY = datetime.datetime.now, Stamp.today
CLOSURE = in_a_closure()
TICKS = Ticks()
COPIES: dict[str, Callable[[], Any]] = {
    "a class": lambda: Pace.clock(),
    "an instance of the class": lambda: PACE.clock(),
    "a static method": lambda: PACE.static(),
    "an instance": lambda: PACE.own(),
    "a dict": lambda: BY_NAME["clock"](),
    "a partial function": functools.partial(time.monotonic),
    "a list": [time.monotonic][0],
    "a deque": collections.deque([time.time])[0],
    "a named tuple": TICKS.source,
    "an iterator in C": lambda: next(iter(time.perf_counter, None)),
    "a closure": CLOSURE,
    "a default by keyword": in_a_default,
    "a dataclass": lambda: Job().made,
    "a dataclass of datetime": lambda: Job().at.timestamp(),
    "a bound method": lambda: NOW().timestamp(),
    "a bound method with a time zone": lambda: NOW(datetime.UTC).timestamp(),
    "a bound method of a derived class": lambda: TODAY().timestamp(),
    "timeit": lambda: timeit.default_timer(),
    "sched": lambda: sched.scheduler().timefunc(),
    "the clock by number": lambda: time.clock_gettime(time.CLOCK_MONOTONIC),
    "the wall clock by number": lambda: time.clock_gettime(time.CLOCK_REALTIME),
    "nanoseconds by number": lambda: time.clock_gettime_ns(time.CLOCK_REALTIME) / 1e9,
}


@pytest.fixture
def nothing_is_frozen() -> Iterator[None]:
    """The lab looks for bound methods among the objects that the garbage collector shows, which
    are not those that were frozen."""
    gc.unfreeze()
    yield
    gc.freeze()


@pytest.mark.usefixtures("nothing_is_frozen")
@pytest.mark.parametrize("where", COPIES)
def test_a_copy_of_a_clock_moves_with_the_virtual_clock(where: str) -> None:
    clock = COPIES[where]
    passed = []

    async def program() -> None:
        begin = clock()
        await asyncio.sleep(1000)
        passed.append(clock() - begin)

    assert not lab.explore(program, strategy="fifo").failures
    assert passed == [nearly(1000)] * len(passed)
    assert passed
    begin = clock()
    assert 0 <= clock() - begin < 100  # seconds of real time again


def test_a_copy_that_a_program_makes_in_an_execution_is_a_clock_like_any_other() -> None:
    class Late:
        clock: Any = time.monotonic

    async def program() -> None:
        class Local:
            clock: Any = time.monotonic  # which is no method: it takes no self

        assert Local().clock() == nearly(time.monotonic()) == nearly(Late().clock())
        kept.append(Local())

    kept: list[Any] = []
    assert not lab.explore(program).failures
    assert abs(kept[0].clock() - time.monotonic()) < 100


def test_a_clock_keeps_its_identity_and_its_name_while_the_lab_explores() -> None:
    async def program() -> None:
        assert repr(time.monotonic) == "<built-in function monotonic>"
        assert time.monotonic.__qualname__ == "monotonic"
        assert time.monotonic.__doc__
        assert pickle.loads(pickle.dumps(time.monotonic)) is monotonic
        with pytest.raises(TypeError, match="argument"):
            time.monotonic(1)  # type: ignore[call-arg]  # what is tested

    assert not lab.explore(program).failures


def test_other_threads_read_the_clock_while_it_is_redirected_and_put_back() -> None:
    over = threading.Event()
    errors = []

    def read() -> None:
        while not over.is_set():
            try:
                if not time.time() > EPOCH + 1_000_000:
                    errors.append("it is virtual")
                time.sleep(0)
                NOW()
            except Exception as error:  # noqa: BLE001 - it is what the test looks for
                errors.append(repr(error))

    async def program() -> None:
        time.time()

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for _ in range(10):
            lab.explore(program, strategy="fifo")
    finally:
        sys.setswitchinterval(interval)
        over.set()
        for thread in threads:
            thread.join()
    assert not errors


def test_where_c_functions_are_unknown_the_copies_of_modules_are_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_redirected, "_CAN", False)

    async def program() -> None:
        begin = (time.monotonic(), monotonic(), begins())
        await asyncio.sleep(1000)
        now = (time.monotonic(), monotonic(), begins())
        assert [it - 1000 for it in now] == [nearly(it) for it in begin]

    before = time.monotonic
    assert not lab.explore(program).failures
    assert time.monotonic is before is monotonic


# Chance


def own_generator() -> float:
    return random.Random().random()


SOURCES: dict[str, Callable[[], Any]] = {
    "random": random.random,
    "random.Random()": own_generator,
    "random.SystemRandom()": lambda: random.SystemRandom().random(),
    "secrets": lambda: secrets.token_hex(8),
    "uuid1": lambda: uuid.uuid1().hex,
    "uuid4": lambda: uuid.uuid4().hex,
    "urandom": lambda: os.urandom(8),
    "make_msgid": lambda: email.utils.make_msgid(domain="of.the.test"),
    "NormalDist": lambda: statistics.NormalDist().samples(1)[0],
}
"""Whatever draws by chance through Python's own functions."""
for _name in ("uuid6", "uuid7", "uuid8"):  # since Python 3.14
    if hasattr(uuid, _name):
        SOURCES[_name] = getattr(uuid, _name)
C_SOURCES: dict[str, tuple[Callable[..., Any], type[Exception]]] = {
    "urandom": (os.urandom, ValueError)
}
"""The functions of C that return so many bytes, and how they refuse a negative number."""
if hasattr(os, "getrandom"):
    C_SOURCES["getrandom"] = (os.getrandom, OSError)
if ssl is not None:
    C_SOURCES["RAND_bytes"] = (ssl.RAND_bytes, ValueError)
SOURCES.update({name: functools.partial(source, 8) for name, (source, _) in C_SOURCES.items()})
if hasattr(ssl, "RAND_pseudo_bytes"):  # until Python 3.11

    def _pseudo_bytes() -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            return ssl.RAND_pseudo_bytes(8)

    SOURCES["RAND_pseudo_bytes"] = _pseudo_bytes


def drawn_in_executions(source: Callable[[], Any], executions: int = 3) -> list[Any]:
    """What a source gives twice in each execution."""
    drawn = []

    async def program() -> None:
        drawn.append((source(), source()))

    found = lab.explore(program, strategy="random", max_executions=executions)
    assert not found.failures
    return drawn


@pytest.mark.parametrize("name", SOURCES)
def test_a_source_of_chance_gives_the_same_in_every_execution(name: str) -> None:
    """Each by itself, because one that draws from another may hide that it keeps something."""
    drawn = drawn_in_executions(SOURCES[name])
    assert len(drawn) > 1
    assert drawn[0][0] != drawn[0][1]
    assert all(it == drawn[0] for it in drawn)
    assert SOURCES[name]() not in drawn[0], "it is left to chance outside"


@pytest.mark.parametrize("draws", [0, 1, 623, 624, 1248])
def test_random_is_put_back_however_often_it_was_drawn_from(draws: int) -> None:
    """Every 624 draws the generator stands at the same place of its state, which is another one."""
    before = random.getstate()
    try:
        restart_chance()
        first = random.getstate()
        for _ in range(draws):
            random.getrandbits(32)
        restart_chance()
        assert random.getstate() == first
        random.gauss(0, 1)  # it keeps a second number
        restart_chance()
        assert random.getstate() == first
    finally:
        random.setstate(before)


def test_a_generator_of_numpy_that_the_program_makes_gives_the_same_in_every_execution() -> None:
    numpy_random = pytest.importorskip("numpy.random")
    drawn = drawn_in_executions(lambda: numpy_random.default_rng().random())
    assert drawn[0][0] != drawn[0][1]
    assert all(it == drawn[0] for it in drawn)


@pytest.mark.parametrize("name", C_SOURCES)
def test_a_copy_of_a_source_that_is_a_function_of_c_gives_the_same_in_every_execution(
    name: str,
) -> None:
    """A partial function holds it, which no change of a name reaches."""
    copy = functools.partial(C_SOURCES[name][0], 8)
    assert len(set(drawn_in_executions(copy))) == 1
    assert copy() != copy()


def test_no_source_that_is_a_function_of_c_is_replaced_by_its_name() -> None:
    """Its copies would be left to chance: it belongs to `SYSTEM_CHANCE`."""
    for owner, name, target in CHANCE:
        assert target is None or not _redirected._can_redirect(getattr(owner, name)), name


@pytest.mark.parametrize("name", C_SOURCES)
def test_a_seeded_source_refuses_what_the_real_one_refuses(name: str) -> None:
    source, error = C_SOURCES[name]

    async def program() -> None:
        for wrong, kind in ((-1, error), ("8", TypeError)):
            with pytest.raises(kind):
                source(wrong)
        assert source(0) == b""

    assert not lab.explore(program, strategy="fifo").failures


def test_the_first_name_of_a_temporary_file_does_not_change_what_is_drawn_later(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Python makes the generator of these names, and looks for the folder, once in a process."""
    monkeypatch.setattr(tempfile, "_name_sequence", None)
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("TMPDIR", str(tmp_path))

    def draw_after_a_name() -> bytes:
        tempfile.mkdtemp()
        return os.urandom(8)

    drawn = drawn_in_executions(draw_after_a_name)
    assert all(it == drawn[0] for it in drawn)
    assert len([*tmp_path.iterdir()]) == 2 * len(drawn)


def test_the_first_uuid_that_needs_the_node_of_the_computer_does_not_change_what_is_drawn_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where no address of a network is found, Python draws a number, and keeps it."""
    monkeypatch.setattr(uuid, "_node", None)
    monkeypatch.setattr(uuid, "_GETTERS", [])
    drawn = drawn_in_executions(lambda: (uuid.uuid1().node, random.random()))
    assert all(it == drawn[0] for it in drawn)
    assert drawn[0][0][0] == drawn[0][1][0], "the node stays"


elder = random.Random()


def _greeting_of_tls() -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    sent = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), sent).do_handshake()
    return sent.read()


def _random_of_sqlite() -> Any:
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        return connection.execute("SELECT random()").fetchone()


LEFT_TO_CHANCE: dict[str, Callable[[], Any]] = {
    "a generator that is older than the execution": elder.random,
    "the generator that random.Random is made of": lambda: _random.Random().random(),
    "SQLite": _random_of_sqlite,
    "TLS": _greeting_of_tls,
    "the name of a temporary file": lambda: next(tempfile._get_candidate_names()),  # type: ignore[attr-defined]  # its own
}


@pytest.mark.parametrize("what", LEFT_TO_CHANCE)
def test_what_the_page_of_the_lab_says_is_left_to_chance_is(what: str) -> None:
    if what == "TLS" and ssl is None:
        pytest.skip("this Python has no ssl")
    drawn = drawn_in_executions(LEFT_TO_CHANCE[what])
    assert len({it for pair in drawn for it in pair}) == 2 * len(drawn)


def draw() -> list[Any]:
    return [
        random.random(),
        random.Random().random(),
        random.SystemRandom().random(),
        secrets.token_hex(8),
        uuid.uuid4(),
        uuid.uuid1().time,
        os.urandom(4),
        random.sample(range(100), 3),
    ]


@BACKENDS
def test_chance_is_the_same_in_every_execution_and_differs_within_one(
    backend: lab.BackendName,
) -> None:
    drawn = []

    async def program() -> None:
        first, second = draw(), draw()
        assert not any(map(lambda one, other: one == other, first, second))
        random.seed()
        drawn.append((first, second, random.random()))

        async def task() -> None:
            for _ in range(random.randrange(1, 4)):
                await checkpoint()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(task)
            tasks.start_soon(task)

    found = lab.explore(program, backend=backend)
    assert found.complete
    assert not found.failures
    assert len(drawn) > found.executions  # the repeated ones, too
    assert all(it == drawn[0] for it in drawn)


def test_a_file_that_outlives_an_execution_is_told_and_a_reset_removes_it(tmp_path: Path) -> None:
    async def program() -> None:
        (tmp_path / str(uuid.uuid4())).mkdir()

    def empty() -> None:
        for path in tmp_path.iterdir():
            path.rmdir()

    assert lab.explore(program, reset=empty).complete
    (failure,) = lab.explore(program).failures  # after an earlier exploration, or process
    assert failure.report.startswith("exception: FileExistsError")
    assert "a file outlives an execution" in failure.report


def test_chance_goes_on_after_an_exploration_as_if_there_had_been_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def program() -> None:
        random.random()
        random.seed(7)
        uuid.uuid1()

    def replaceable() -> list[Any]:
        rows: list[tuple[Any, str, Any]] = [*CHANCE, *SYSTEM_CHANCE]
        return [vars(owner)[name] for owner, name, _ in rows]

    before = replaceable()
    monkeypatch.setattr(uuid, "_last_timestamp", 7)
    random.seed(3)
    expected = [random.random() for _ in range(3)]
    random.seed(3)
    lab.explore(program)
    assert [random.random() for _ in range(3)] == expected
    assert replaceable() == before
    assert uuid._last_timestamp == 7  # type: ignore[attr-defined]  # its own
    assert os.urandom(16) != os.urandom(16)


def test_chance_can_be_left_to_chance() -> None:
    drawn = set()

    async def program() -> None:
        drawn.add(secrets.token_hex(8))

    lab.explore(program, chance=False)
    assert len(drawn) > 1


def test_a_failure_by_chance_is_replayed() -> None:
    async def program() -> None:
        delays = [random.random(), random.random()]

        async def client(name: int) -> None:
            await asyncio.sleep(delays[name])
            order.append(name)

        order: list[int] = []
        await asyncio.gather(client(0), client(1))
        assert order == [1, 0]

    (failure,) = lab.explore(program).failures
    assert lab.replay(program, failure.token).failures
    assert not lab.replay(program, failure.token, chance=True, clocks=True).complete


# Under dpor two draws from one generator depend on each other

SHARED: dict[str, Callable[[], Callable[[], Any]]] = {
    **{name: lambda source=source: source for name, source in SOURCES.items()},  # type: ignore[misc]
    "random.gauss": lambda: functools.partial(random.gauss, 0, 1),
    "random.getrandbits": lambda: functools.partial(random.getrandbits, 32),
    "random.randint": lambda: functools.partial(random.randint, 0, 1 << 30),
    "one generator": lambda: random.Random(1).random,
    "gauss of one generator": lambda: functools.partial(random.Random(1).gauss, 0, 1),
    "sample of one generator": lambda: functools.partial(random.Random(1).sample, range(100), 8),
}


@pytest.mark.parametrize("name", SHARED)
def test_dpor_sees_which_of_two_draws_is_the_first(name: str) -> None:
    drawn = set()

    async def program() -> None:
        source, draws = SHARED[name](), dict[str, Any]()

        async def draw(task: str) -> None:
            await checkpoint()
            draws[task] = str(source())

        async with anyio.create_task_group() as group:
            group.start_soon(draw, "first")
            group.start_soon(draw, "second")
        drawn.add((draws["first"], draws["second"]))

    before = {name: vars(random.Random).get(name) for name in ("random", "seed", "__init__")}
    assert lab.explore(program, strategy="dpor").complete
    assert len(drawn) == 2
    assert before == {name: vars(random.Random).get(name) for name in before}


def test_draws_from_two_generators_do_not_depend_on_each_other() -> None:
    def executions(draw: Callable[[], Any]) -> int:
        async def work() -> None:
            await checkpoint()
            draw()

        async def program() -> None:
            async with anyio.create_task_group() as group:
                group.start_soon(work)
                group.start_soon(work)

        return lab.explore(program, strategy="dpor").executions

    assert executions(lambda: random.Random(1).random()) == executions(int)
    assert executions(random.random) > executions(int)
