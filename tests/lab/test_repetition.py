"""A failure is executed again before it is reported; and what survives an execution is told."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from mbufpools import lab
from mbufpools.lab._explore import STRATEGIES
from mbufpools.lab._options import Options, Program
from mbufpools.lab._outcome import NotRepeated
from mbufpools.lab._repetition import survival
from mbufpools.lab._story import same_course
from mbufpools.lab.engine import workers
from tests.kit.state import imported

BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])

COLD = """
import asyncio
import anyio
from anyio.lowlevel import checkpoint

cache = {}
log = []
lock = asyncio.Lock()

class Source:
    calls = 0

    async def fetch(self):
        self.calls += 1
        await checkpoint()
        return 1

async def get(source):
    if "key" not in cache:
        cache["key"] = await source.fetch()
    return cache["key"]

async def two(function, *args):
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(function, *args)
        tasks.start_soon(function, *args)

async def race():
    source = Source()
    await two(get, source)
    assert source.calls == 1, source.calls

async def right_if_cold():
    source = Source()
    await get(source)
    assert source.calls == 1, source.calls

async def grows():
    log.append(1)
    await checkpoint()
    assert len(log) == 0, len(log)

async def locked():
    async def use():
        async with lock:
            await checkpoint()
    await two(use)
    raise ValueError("as always")

async def in_another_way():
    try:
        await race()
    except AssertionError as error:
        if error.args != (2,):
            raise ValueError from None
        raise
    raise ValueError

async def fails_where_two_meet():
    # In few schedules, and the first time in another way than later.
    inside = []
    async def use(turns):
        for _ in range(turns):
            await checkpoint()
        inside.append(1)
        if len(inside) == 2:
            if "met" not in cache:
                cache["met"] = True
                await checkpoint()
                raise ValueError("cold")
            raise ValueError("warm")
        await checkpoint()
        inside.clear()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(use, 0)
        tasks.start_soon(use, 3)
"""


@pytest.fixture
def cold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A module whose variables survive an execution."""
    with imported(COLD, tmp_path, monkeypatch) as module:
        yield module


def note_of(failure: lab.Failure) -> str:
    """Return the note in a report; "" if there is none."""
    return next((it for it in failure.report.splitlines() if it.startswith("note: ")), "")


def without_note(failure: lab.Failure) -> str:
    lines = failure.report.splitlines()
    return "\n".join(it for it in lines if not it.startswith("note: "))


# --- the first execution fails, and the repetition does something else


@BACKENDS
@pytest.mark.parametrize("strategy", list(STRATEGIES))
def test_the_report_is_of_the_execution_that_failed_and_says_what_survived(
    strategy: lab.StrategyName, backend: lab.BackendName, cold: ModuleType
) -> None:
    options: dict[str, Any] = {"backend": backend, "strategy": strategy, "max_executions": 50}
    (failure,) = lab.explore(cold.race, **options).failures
    assert failure.report.startswith("exception: AssertionError: 2\n")
    assert failure.error is not None
    assert failure.error.args == (2,)
    assert [it.stopped_at.rpartition(" in ")[2] for it in failure.schedule[1:3]] == [
        "Source.fetch",
        "Source.fetch",
    ]
    assert not failure.repeated
    note = note_of(failure)
    assert "the schedule was executed again, and the program did not do the same" in note
    assert "step 1 of task 0.0 ended at first at " in note
    assert f"state that changed since the first execution: {cold.__name__}.cache. " in note
    assert "reset=" in note
    assert "fresh=" in note
    cured = lab.explore(cold.race, fresh=[cold], **options).failures[0]
    assert cured.repeated
    assert not note_of(cured)
    assert cured.report == without_note(failure)
    assert same_course(cured.schedule, failure.schedule)


@pytest.mark.parametrize("cancel", [True, "scope", "native", "get"])
def test_the_report_is_of_the_execution_that_failed_also_with_cancellations(
    cancel: lab.Cancel, cold: ModuleType
) -> None:
    (failure,) = lab.explore(cold.race, cancel=cancel).failures
    assert failure.report.startswith("exception: AssertionError: 2\n")
    assert not failure.repeated


@BACKENDS
def test_nothing_is_said_of_the_failures_that_began_from_what_the_first_one_left(
    backend: lab.BackendName, cold: ModuleType
) -> None:
    found = lab.explore(cold.in_another_way, backend=backend, max_failures=None)
    assert [it.report.partition("\n")[0] for it in found.failures] == [
        "exception: AssertionError: 2"
    ]
    assert not found.failures[0].repeated


@BACKENDS
def test_a_failure_that_the_repetition_does_not_show_is_reported(
    backend: lab.BackendName,
) -> None:
    """It fails from a cold start. The state is in a closure, so the lab cannot name it."""
    calls = 0

    async def program() -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise ValueError("cold")

    (failure,) = lab.explore(program, backend=backend).failures
    assert failure.report.startswith("exception: ValueError: cold\n")
    assert "it ended at first in exception (ValueError), and then in success" in note_of(failure)
    assert "state that survives an execution (a module's variable, a cache" in note_of(failure)


@pytest.mark.parametrize("max_failures", [1, None])
def test_a_lock_that_belongs_to_the_first_execution_does_not_hide_its_failure(
    max_failures: int | None, cold: ModuleType
) -> None:
    (failure,) = lab.explore(cold.locked, max_failures=max_failures).failures
    assert failure.report.startswith("exception: ValueError: as always\n")
    note = note_of(failure)
    assert "the program uses an asyncio Lock that is bound to the event loop" in note
    assert f"{cold.__name__}.lock" in note


def test_a_message_that_differs_is_that_of_the_first_time_if_a_variable_has_changed(
    cold: ModuleType,
) -> None:
    (failure,) = lab.explore(cold.grows).failures
    assert failure.report.startswith("exception: AssertionError: 1\n")
    assert failure.error is not None
    assert failure.error.args == (1,)
    note = note_of(failure)
    assert "with another message: first AssertionError: 1, and then AssertionError: 2. " in note
    assert f"{cold.__name__}.log" in note
    assert failure.repeated, "the steps are the same"


def test_a_message_that_differs_without_a_variable_that_has_changed_has_no_note() -> None:
    """It may hold the name of a temporary directory, which is another one each time."""
    names = itertools.count()

    async def program() -> None:
        raise ValueError(f"/tmp/{next(names)}")

    (failure,) = lab.explore(program).failures
    assert not note_of(failure)
    assert failure.report.startswith("exception: ValueError: /tmp/")


@BACKENDS
def test_a_later_failure_that_the_repetition_shows_in_another_way_is_refused(
    backend: lab.BackendName, cold: ModuleType
) -> None:
    """Both fail with an error of the same class, and the report would have been of the second."""
    with pytest.raises(lab.LabError, match="it failed at first with 'exception'") as said:
        lab.explore(cold.fails_where_two_meet, backend=backend)
    assert f"{cold.__name__}.cache" in str(said.value)
    (failure,) = lab.explore(cold.fails_where_two_meet, backend=backend, fresh=[cold]).failures
    assert "ValueError: cold" in failure.report
    assert failure.repeated


def test_a_failure_that_is_found_in_a_worker_is_of_the_execution_that_failed(
    cold: ModuleType,
) -> None:
    with workers(1) as executor:
        (failure,) = lab.explore(cold.race, executor=executor).failures
        assert failure.report.startswith("exception: AssertionError: 2\n")
        assert not failure.repeated
        assert f"{cold.__name__}.cache" in note_of(failure)
        (warm,) = lab.explore(cold.race, executor=executor).failures
        assert "this process has explored the program before, and state survived" in note_of(warm)
        (cured,) = lab.explore(cold.race, executor=executor, fresh=[cold]).failures
        assert cured.report == without_note(failure)


def test_a_reset_that_other_processes_would_call_on_a_copy_is_refused(cold: ModuleType) -> None:
    said = r"reset is dict\.clear, a method of an object of which other processes get a copy"
    with workers(1) as executor, pytest.raises(ValueError, match=said):
        lab.explore(cold.race, executor=executor, reset=cold.cache.clear)


def test_pages_json_and_the_command_show_the_execution_that_failed(
    cold: ModuleType, tmp_path: Path
) -> None:
    """The command that the report names repeats the failure, since it begins cold."""

    def command(*more: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "mbufpools", "explore", f"{cold.__file__}:race", *more],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1, done.stderr
        return done.stdout

    (failure,) = json.loads(command("--json", "--html", str(tmp_path / "pages")))["failures"]
    assert failure["repeated"] is False
    for text in (failure["report"], Path(failure["page"]).read_text("utf-8")):
        assert "exception: AssertionError: 2\n" in text
        assert "note: the schedule was executed again" in text
    stops = [it["stopped_at"].rpartition(" in ")[2] for it in failure["schedule"]]
    assert stops.count("Source.fetch") == 2
    again = command("--token", failure["token"])
    assert again.startswith("exception: AssertionError: 2\n")
    assert again.count("Source.fetch") == 2


# --- the process has explored the program before


@BACKENDS
def test_a_failure_after_a_refusal_says_that_state_survived(
    backend: lab.BackendName, cold: ModuleType
) -> None:
    with pytest.raises(lab.LabError, match="does not do the same in the same schedule"):
        lab.explore(cold.right_if_cold)
    told = f"state survived an execution ({cold.__name__}.cache). So this failure may come from"
    (failure,) = lab.explore(cold.right_if_cold, backend=backend).failures
    assert failure.report.startswith("exception: AssertionError: 0\n")
    assert told in note_of(failure)
    assert "reset=" in note_of(failure)
    (again,) = lab.replay(cold.right_if_cold, failure.token).failures
    assert told in note_of(again)
    for cure in ({"fresh": [cold]}, {"reset": cold.cache.clear}):
        assert lab.explore(cold.right_if_cold, backend=backend, **cure).complete


def test_a_failure_says_also_what_another_program_has_left_in_its_module(cold: ModuleType) -> None:
    lab.explore(cold.race)
    (failure,) = lab.explore(cold.right_if_cold).failures
    told = f"explored another program before, and state survived it ({cold.__name__}.cache)"
    assert told in note_of(failure)
    for cure in ({"fresh": [cold]}, {"reset": cold.cache.clear}):
        (failure,) = lab.explore(cold.race, **cure).failures
        assert not note_of(failure)

    async def fails() -> None:
        raise ValueError

    (failure,) = lab.explore(fails).failures
    assert not note_of(failure), "it is of another module"


def test_what_survived_is_known_of_a_failure_that_was_not_repeated(cold: ModuleType) -> None:
    assert survival(cold.race, Options()) is None
    lab.explore(cold.race)
    told = survival(cold.race, Options())
    assert told is not None
    assert f"({cold.__name__}.cache)" in told
    assert survival(cold.race, Options(fresh=(cold.__name__,))) is None
    assert survival(cold.race, Options(reset=cold.cache.clear)) is None
    assert survival(cold.right_if_cold, Options()) is None


def test_a_program_that_is_made_anew_with_its_variables_has_no_note() -> None:
    def make() -> Program:
        calls = 0

        async def program() -> None:
            nonlocal calls
            calls += 1
            assert calls > 2, calls

        return program

    first = make()
    for program in (first, make()):
        (failure,) = lab.explore(program).failures
        assert "this process has explored the program before" not in failure.report


def test_a_refusal_says_which_variables_survived_also_to_another_process(cold: ModuleType) -> None:
    with workers(1) as executor, pytest.raises(NotRepeated) as refused:
        lab.explore(cold.right_if_cold, executor=executor)
    assert refused.value.survived == (f"{cold.__name__}.cache",)


def test_a_program_that_was_refused_without_a_known_variable_has_a_remark() -> None:
    known: list[int] = []

    async def program() -> None:
        if not known:
            await checkpoint()
            known.append(1)

    with pytest.raises(lab.LabError, match="does not do the same in the same schedule"):
        lab.explore(program)
    (remark, *_) = lab.explore(program).remarks
    assert remark.startswith("this process has explored the program before, and it did not do the")


# --- in pytest

SUITE = """
import anyio, pytest
from anyio.lowlevel import checkpoint
import held

class Source:
    calls = 0
    async def fetch(self):
        print("fetches")
        self.calls += 1
        await checkpoint()

async def use(source):
    if "key" not in held.cache:
        await source.fetch()
        held.cache["key"] = 1
    else:
        print("is warm")

async def program():
    source = Source()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(use, source)
        tasks.start_soon(use, source)
    assert source.calls == 1

async def right_program():
    source = Source()
    await use(source)
    assert source.calls == 1

@pytest.mark.explore
async def test_race():
    await program()

@pytest.mark.explore(fresh=["held"])
async def test_race_from_a_cold_start():
    await program()

@pytest.mark.explore(reset=held.cache.clear)
async def test_after_fresh():
    await right_program()
"""
RIGHT = """
@pytest.mark.explore
async def test_right():
    await right_program()
"""
WITH_FIXTURES = """
@pytest.mark.explore
async def test_right(tmp_path):
    await right_program()

@pytest.mark.explore
async def test_fills(tmp_path):
    if "key" not in held.cache:
        await checkpoint()
        held.cache["key"] = 1
"""


def suite(pytester: pytest.Pytester, text: str) -> None:
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    pytester.makepyfile(test_it=text, held="cache = {}\nlimit = 5\n")


def reports_of(pytester: pytest.Pytester, *options: str) -> dict[str, str]:
    """Run pytest in a process of its own, and return what it shows of each test that failed."""
    out = pytester.runpytest_subprocess(*options).stdout.str()
    failures = out.partition("= short test")[0]
    _, *parts = re.split(r"^_+ (test_\S+) _+$", failures, flags=re.MULTILINE)
    return dict(zip(parts[::2], parts[1::2], strict=True))


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_an_explored_test_shows_the_execution_that_failed(
    jobs: str, pytester: pytest.Pytester
) -> None:
    suite(pytester, SUITE)
    reports = reports_of(pytester, "--explore-jobs", jobs)
    cold = reports["test_race[asyncio]"]
    if jobs == "1":
        assert "2 = <test_it.Source" in cold
    if "nothing can be proved" not in cold:  # by a worker that began with another schedule
        assert cold.count("in Source.fetch\n") == 2
        assert "note: the schedule was executed again, and the program did not do the " in cold
        assert "is warm" not in cold, "the output would be of another execution"
    assert "held.cache" in cold
    assert "note: " in reports["test_race[trio]"]
    fresh = reports["test_race_from_a_cold_start[asyncio]"]
    assert "note: " not in fresh
    assert "fetches\nfetches\n" in fresh
    assert "test_after_fresh[asyncio]" not in reports


def test_a_schedule_that_failed_before_is_told_as_it_is_found_again(
    pytester: pytest.Pytester,
) -> None:
    suite(pytester, SUITE)
    reports_of(pytester)
    again = reports_of(pytester)
    assert "found again" in again["test_race[asyncio]"]
    assert again["test_race[asyncio]"].count("in Source.fetch\n") == 2
    assert "note: the schedule was executed again" in again["test_race[asyncio]"]
    assert "is warm" not in again["test_race[asyncio]"]
    assert "note: this process has explored the program before" in again["test_race[trio]"]
    assert "note: " not in again["test_race_from_a_cold_start[asyncio]"]
    assert "fetches\nfetches\n" in again["test_race_from_a_cold_start[asyncio]"]


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_failure_of_the_other_backend_after_a_refusal_says_that_state_survived(
    jobs: str, pytester: pytest.Pytester
) -> None:
    suite(pytester, SUITE + RIGHT)
    reports = reports_of(pytester, "--explore-jobs", jobs, "-k", "test_right")
    assert "does not do the same in the same schedule" in reports["test_right[asyncio]"]
    trio = reports["test_right[trio]"]
    if "does not do the same in the same schedule" not in trio:  # by another, cold worker
        assert "this process has explored the program before, and state survived" in trio
        assert "held.cache" in trio
        assert "fresh=" in trio


def test_fixtures_that_are_made_anew_are_no_cure_for_a_variable_of_a_module(
    pytester: pytest.Pytester,
) -> None:
    suite(pytester, SUITE + WITH_FIXTURES)
    reports = reports_of(pytester, "-k", "test_right")
    assert "note: this process has explored the program before" in reports["test_right[trio]"]
    result = pytester.runpytest_subprocess("-v", "-k", "test_fills")
    result.stdout.fnmatch_lines(["*proved: *; but this process has explored the program before*"])


PATCHES = """
@pytest.fixture
def patched(monkeypatch):
    assert held.limit == 5
    monkeypatch.setattr(held, "limit", 1)

@pytest.mark.explore(fresh=["held"])
async def test_patched(patched):
    await checkpoint()
    assert held.limit == 1

def test_afterwards():
    assert held.limit == 5
"""


def test_a_fixture_may_patch_a_module_that_is_executed_again(pytester: pytest.Pytester) -> None:
    """The module was executed again after the fixture, so the first execution had no patch."""
    suite(pytester, SUITE + PATCHES)
    result = pytester.runpytest_subprocess("-k", "test_patched or test_afterwards")
    result.assert_outcomes(passed=3, deselected=6)


USED = """
@pytest.fixture
def used():
    calls = []
    yield calls
    assert calls

@pytest.mark.explore(fresh=["held"])
async def test_used(used):
    await checkpoint()
    used.append(held.limit)
"""


def test_the_first_fixtures_are_used_if_modules_are_executed_again(
    pytester: pytest.Pytester,
) -> None:
    """They were torn down before the first execution, so their own checks failed."""
    suite(pytester, SUITE + USED)
    pytester.runpytest_subprocess("-k", "test_used").assert_outcomes(passed=2, deselected=6)


# A cancellation that was possible, and is not in the schedule that fails


@pytest.mark.parametrize(
    ("strategy", "backend"),
    [
        pytest.param(strategy, backend, marks=[] if turn == at % 2 else [pytest.mark.prove])
        for at, strategy in enumerate(["mixed", "exhaustive", "random", "pct"])
        for turn, backend in enumerate(["asyncio", "trio"])
    ],
)
@pytest.mark.parametrize("seconds", [0, 1])
@pytest.mark.parametrize("mid_wait", [False, True])
def test_a_failure_without_a_cancellation_is_told_though_the_lab_may_cancel(
    mid_wait: bool, seconds: float, strategy: lab.StrategyName, backend: lab.BackendName
) -> None:
    async def program() -> None:
        log: list[int] = []

        async def work(number: int) -> None:
            log.append(number)
            await anyio.sleep(seconds)

        async with anyio.create_task_group() as group:
            group.start_soon(work, 0)
            group.start_soon(work, 1)
        assert log[:1] != [1]

    cancel = lab.cancellable(mid_wait=mid_wait)
    (failure,) = lab.explore(program, strategy=strategy, backend=backend, cancel=cancel).failures
    assert failure.repeated
    assert "here the lab cancels" not in failure.report
    assert [it.token for it in lab.replay(program, failure.token).failures] == [failure.token]
