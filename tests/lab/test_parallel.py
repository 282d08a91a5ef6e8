"""An exploration that is shared out to workers has the same schedules and the same failures."""

from __future__ import annotations

import asyncio
import functools
import multiprocessing
import pickle
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from mbufpools import lab
from mbufpools.lab import _execute, _explore, _parallel
from mbufpools.lab._outcome import Outcome
from mbufpools.lab._pickled import PickledProgram, pack
from mbufpools.lab._schedule import Schedule
from mbufpools.lab._shrink import shrink
from mbufpools.lab._steps import spell


class AtOnce(Executor):
    """An executor that does its work at once, in this process, on copies that pickle makes."""

    def __init__(self, *, by_reference: bool = False) -> None:
        self.parts = 0
        self._by_reference = by_reference

    def submit(self, function: Callable[..., Any], /, *args: Any, **options: Any) -> Future[Any]:
        self.parts += 1
        future: Future[Any] = Future()
        try:
            if not self._by_reference:
                function, args = pickle.loads(pickle.dumps((function, args)))
            result = function(*args, **options)
            future.set_result(result if self._by_reference else pickle.loads(pickle.dumps(result)))
        except Exception as error:  # noqa: BLE001 - it is the future's
            future.set_exception(error)
        return future


async def race(*, users: int = 3, passes: int = 1) -> None:
    async def user() -> None:
        for _ in range(passes):
            await checkpoint()

    async with anyio.create_task_group() as tasks:
        for _ in range(users):
            tasks.start_soon(user)


async def wrong_in_three_ways() -> None:
    """The failure depends on the task that comes first."""
    first = asyncio.get_running_loop().create_future()
    order: list[int] = []

    async def user(number: int) -> None:
        await checkpoint()
        order.append(number)
        if number == 2 and order[0] == 2:
            await first  # no task sets it
        if number == 1 and order[0] == 1:
            raise ValueError("one is first")
        await checkpoint()
        if order == [0, 2, 1]:
            raise KeyError("two is before one")

    await asyncio.gather(*(user(number) for number in range(3)))


async def raises_what_cannot_be_pickled() -> None:
    error = RuntimeError("it holds a function")
    error.args = (*error.args, lambda: None)
    raise error


async def opens_a_connection() -> None:
    await asyncio.open_connection("localhost", 1)


async def spins() -> None:
    for _ in range(10**6):
        await checkpoint()


Executed = tuple[str, tuple[tuple[str, int], ...]]
"""The rule of an execution, and its steps: for each its task and its number."""


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> list[Executed]:
    """What is executed in this process, without what is repeated to compare it."""
    executed: list[Executed] = []

    def note(schedule: Schedule, outcome: Outcome) -> None:
        steps = tuple((spell(step.task), step.number) for step in schedule.steps)
        executed.append((schedule.rule, steps))

    def noting(*args: Any, **options: Any) -> Any:
        return _execute.execute(*args, on_execution=note, **options)

    monkeypatch.setattr(_explore, "execute", noting)
    monkeypatch.setattr(_parallel, "execute", noting)
    return executed


@pytest.fixture(scope="module")
def processes() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as executor:
        yield executor


def what(exploration: lab.Exploration) -> set[str]:
    """Return each failure, without its schedule."""
    return {failure.report.partition("\nschedule")[0] for failure in exploration.failures}


BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])


# --- the same schedules


@BACKENDS
@pytest.mark.parametrize("part", [1, 7, 200])
@pytest.mark.parametrize("max_preemptions", [1, None])
def test_exhaustive_covers_each_schedule_once_in_parts_of_any_size(
    backend: lab.BackendName,
    part: int,
    max_preemptions: int | None,
    executed: list[Executed],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_parallel, "PART", part)
    options: dict[str, Any] = {
        "strategy": "exhaustive",
        "backend": backend,
        "max_preemptions": max_preemptions,
    }
    # Without a bound `race` has so many schedules that parts of one would be too many.
    program = race if max_preemptions or part == 200 else functools.partial(race, users=2, passes=2)
    alone = lab.explore(program, **options)
    schedules = list(executed)
    executed.clear()
    executor = AtOnce()
    shared = lab.explore(program, executor=executor, **options)
    assert shared == alone
    assert shared.complete
    assert executed[0] == schedules[0]
    assert executed[0][0] == "stock"
    assert len(executed) == len(set(executed)) == shared.executions
    assert set(executed) == set(schedules)
    assert executor.parts >= shared.executions / part


@BACKENDS
@pytest.mark.parametrize("strategy", ["random", "pct"])
def test_random_strategies_execute_the_seeds_that_they_would_alone(
    backend: lab.BackendName,
    strategy: lab.StrategyName,
    executed: list[Executed],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_parallel, "PART", 8)
    # Parts that go out before one has come back measure anew how long the program is.
    monkeypatch.setattr(_parallel, "PARTS_AHEAD", 1)
    options: dict[str, Any] = {
        "backend": backend,
        "strategy": strategy,
        "max_executions": 100,
        "seed": 5,
        "depth": 2,
    }
    alone = lab.explore(race, **options)
    schedules = list(executed)
    executed.clear()
    executor = AtOnce()
    shared = lab.explore(race, executor=executor, **options)
    assert shared == alone
    assert executed == schedules
    assert [rule for rule, _ in executed] == ["stock"] + ["run-on"] * 99
    assert len(set(schedules)) > 5
    assert executor.parts == 13


def test_every_cancellation_is_covered_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_parallel, "PART", 10)
    program = functools.partial(race, users=2)
    alone = lab.explore(program, cancel=True, max_preemptions=0)
    shared = lab.explore(program, cancel=True, max_preemptions=0, executor=AtOnce())
    assert shared == alone
    assert shared.complete


def test_parts_end_at_the_limit_of_executions() -> None:
    shared = lab.explore(race, max_executions=33, executor=AtOnce())
    assert shared.executions == 33
    assert not shared.complete


# --- the same failures


@pytest.mark.parametrize("part", [20, 200])
def test_all_failures_are_found_and_each_is_reported_once(
    part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_parallel, "PART", part)
    options: dict[str, Any] = {"max_failures": None, "max_preemptions": 1}
    alone = lab.explore(wrong_in_three_ways, **options)
    shared = lab.explore(wrong_in_three_ways, executor=AtOnce(), **options)
    assert what(shared) == what(alone)
    assert len(alone.failures) == len(shared.failures) == 3
    (stall,) = (failure for failure in shared.failures if failure.kind == "stall")
    assert "'wrong_in_three_ways.<locals>.user' waits" in stall.report  # not 'Task-1234'
    assert shared.executions == alone.executions
    for failure in shared.failures:
        assert 1 <= failure.found_at <= shared.executions
        (again,) = lab.replay(wrong_in_three_ways, failure.token).failures
        assert again.report == failure.report


def test_a_failure_that_one_worker_has_found_is_not_shrunk_by_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_parallel, "PART", 20)
    monkeypatch.setattr(_parallel, "PARTS_AHEAD", 1)
    shrunk: list[object] = []

    def noted(*args: Any) -> Any:
        shrunk.append(args)
        return shrink(*args)

    monkeypatch.setattr(_execute, "shrink", noted)
    executor = AtOnce()
    options: dict[str, Any] = {"strategy": "exhaustive", "max_failures": None, "max_preemptions": 1}
    lab.explore(wrong_in_three_ways, executor=executor, **options)
    assert executor.parts > 1
    assert len(shrunk) == 3


def test_no_more_failures_than_asked_for() -> None:
    shared = lab.explore(wrong_in_three_ways, max_failures=2, max_preemptions=1, executor=AtOnce())
    assert len(shared.failures) == 2
    assert not shared.complete


def test_an_exception_that_cannot_be_pickled_is_in_the_report() -> None:
    (failure,) = lab.explore(raises_what_cannot_be_pickled, executor=AtOnce()).failures
    assert failure.error is None
    assert "RuntimeError: ('it holds a function'" in failure.report


# --- processes


@BACKENDS
def test_processes_find_as_many_schedules_as_one(
    backend: lab.BackendName, processes: ProcessPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_parallel, "PART", 50)
    progress: list[int] = []
    options: dict[str, Any] = {"backend": backend, "on_progress": progress.append}
    shared = lab.explore(race, max_preemptions=None, executor=processes, **options)
    assert shared == lab.explore(race, max_preemptions=None, backend=backend)
    assert shared.executions > 2 * _parallel.PART
    assert progress == sorted(progress)
    assert progress[-1] == shared.executions
    assert shared.seconds > 0


def test_processes_find_the_same_failures(processes: ProcessPoolExecutor) -> None:
    options: dict[str, Any] = {"max_failures": None, "max_preemptions": 1}
    alone = lab.explore(wrong_in_three_ways, **options)
    shared = lab.explore(wrong_in_three_ways, executor=processes, **options)
    assert what(shared) == what(alone)
    assert shared.executions == alone.executions


def test_workers_report_livelocks(processes: ProcessPoolExecutor) -> None:
    (failure,) = lab.explore(spins, executor=processes, step_limit=50).failures
    assert failure.kind == "livelock"


def test_a_worker_s_exception_comes_through(processes: ProcessPoolExecutor) -> None:
    with pytest.raises(lab.Unsupported, match="the program does I/O"):
        lab.explore(opens_a_connection, executor=processes)
    assert lab.explore(race, strategy="fifo").executions == 1  # the lab still works


def test_parts_that_have_not_begun_are_cancelled_after_an_exception() -> None:
    given: list[Future[Any]] = []

    class Late(AtOnce):
        """Only the first part is done."""

        def submit(self, function: Callable[..., Any], /, *args: Any, **_: Any) -> Future[Any]:
            given.append(super().submit(function, *args) if not given else Future())
            return given[-1]

    with pytest.raises(lab.Unsupported):
        lab.explore(opens_a_connection, strategy="random", executor=Late())
    assert len(given) > 1
    assert all(future.cancelled() for future in given[1:])


# --- what cannot be shared


def test_a_program_that_cannot_be_pickled_is_refused_before_it_is_sent(
    processes: ProcessPoolExecutor,
) -> None:
    async def local() -> None:
        pass

    with pytest.raises(ValueError, match=r"local cannot be given to other processes \(.*\); make"):
        lab.explore(local, executor=processes)


def test_an_executor_may_transport_functions_in_its_own_way() -> None:
    async def local() -> None:
        await checkpoint()

    assert lab.explore(local, executor=AtOnce(by_reference=True)).complete


def test_threads_are_refused() -> None:
    with ThreadPoolExecutor() as threads, pytest.raises(ValueError, match="use an executor of pro"):
        lab.explore(race, executor=threads)


def test_dpor_cannot_be_shared() -> None:
    with pytest.raises(
        ValueError, match="cannot be shared out; use one of mixed, exhaustive, random"
    ):
        lab.explore(race, strategy="dpor", executor=AtOnce())


# --- how a program is loaded


def test_a_program_is_loaded_by_its_name() -> None:
    packed = pack(functools.partial(race, users=2))
    assert packed.title == "race"
    assert packed.module == __name__
    assert packed.file == __file__
    program = pickle.loads(pickle.dumps(packed)).load()
    assert program.func is race


def test_a_module_that_cannot_be_imported_by_name_is_loaded_from_its_file(tmp_path: Path) -> None:
    file = tmp_path / "nowhere.py"
    file.write_text("async def program(): pass")
    packed = PickledProgram(
        "program", b"cnowhere_to_be_seen\nprogram\n.", "nowhere_to_be_seen", str(file), ()
    )
    try:
        program = packed.load()
        assert program.__module__ == "nowhere_to_be_seen"
        assert program.__code__.co_filename == str(file)
    finally:
        sys.modules.pop("nowhere_to_be_seen", None)


def test_another_module_of_the_same_name_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    for place, number in (("one", 1), (".", 2)):
        (tmp_path / place / "twice.py").write_text(f"async def program(): return {number}")
    before = list(sys.path)
    sys.path.insert(0, str(tmp_path / "one"))
    packed = PickledProgram(
        "program", b"ctwice\nprogram\n.", "twice", str(tmp_path / "twice.py"), ()
    )
    try:
        assert lab.run(packed.load()) == 2
    finally:
        sys.path[:] = before
        sys.modules.pop("twice", None)


@pytest.mark.parametrize("file", [None, "/nowhere/at_all.py", "/nowhere/at_all.txt"])
def test_a_program_that_a_worker_cannot_load_is_reported(file: str | None) -> None:
    packed = PickledProgram("program", b"cat_all\nprogram\n.", "at_all", file, tuple(sys.path))
    with pytest.raises(lab.LabError, match="a worker cannot load program from module 'at_all'"):
        packed.load()
    sys.modules.pop("at_all", None)
