"""The pytest plugin, tried on small suites, among the plugins that run async tests."""

from __future__ import annotations

import re
import shlex
import sys
import tomllib
from pathlib import Path

import pytest

from mbufpools.lab import _pytest_progress
from tests.kit.suites import HEAD, INI, dedent, run

RACE = """
@pytest.mark.explore
async def test_race():
    count = begun = 0

    async def increase():
        nonlocal count, begun
        begun += 1
        if begun == 2:
            await checkpoint()  # in the stock order it comes too late for the race
        value = count
        await checkpoint()
        count = value + 1

    await two(increase)
    assert count == 2
"""

SOUND = """
@pytest.mark.explore
async def test_sound():
    count = 0

    async def increase():
        nonlocal count
        await checkpoint()
        count += 1

    await two(increase)
    assert count == 2
"""

ONLY_IF_CANCELLED = """
async def race():
    lock = anyio.Lock()

    async def customer():
        await lock.acquire()
        await checkpoint()  # a cancellation here leaves the lock taken
        lock.release()

    await two(customer)
"""


@pytest.fixture
def suite(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makeini(INI)
    return pytester


def replay_line(result: pytest.RunResult) -> list[str]:
    """Return the arguments of the command that a failure has printed."""
    lines = [line for line in result.outlines if "replay: pytest " in line]
    program, *arguments = shlex.split(lines[0].partition("replay: ")[2])
    assert program == "pytest"
    return arguments


# --- the mark


def test_a_marked_test_is_explored_on_each_backend_as_a_test_of_its_own(
    suite: pytest.Pytester,
) -> None:
    result = run(suite, SOUND, "-v")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(
        [
            "test_it.py::test_sound[[]asyncio[]] PASSED*",
            "test_it.py::test_sound[[]trio[]] PASSED*",
            "*= explored =*",
            "test_it.py::test_sound[[]asyncio[]]: proved: no failure in * executions (mixed on "
            "asyncio): all of the schedules of at most 2 preemptions, and those of at most 2 "
            "delays; not explored: *",
            "test_it.py::test_sound[[]trio[]]: proved: no failure in * executions (mixed on trio): "
            "all of the schedules of at most 2 preemptions, and those of at most 2 delays; not "
            "explored: *",
        ]
    )


def test_the_options_of_the_mark_are_those_of_explore(suite: pytest.Pytester) -> None:
    source = """
    @pytest.mark.explore(strategy="random", max_executions=20, seed=3, cancel=True)
    async def test_random():
        await two(checkpoint)

    @pytest.mark.explore(backends=["trio"], max_preemptions=None)
    async def test_on_one():
        assert backend() == "trio"

    @pytest.mark.explore(backend="asyncio", strategy="dpor")
    async def test_on_the_other():
        assert backend() == "asyncio"
    """
    result = run(suite, dedent(source), "-v")
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines_random(
        [
            "*::test_random[[]trio[]]: ran out: no failure in 20 executions (random on trio): not "
            "all of the schedules, chosen at random, each with one cancellation at a time",
            "*::test_on_one[[]trio[]]: proved: no failure in * executions (mixed on trio): all of "
            "the schedules; but there was never a choice: *",
            "*::test_on_the_other[[]asyncio[]]: * (dpor on asyncio): all of the schedules that *",
        ]
    )


def test_a_mark_on_a_class_or_a_module_is_for_the_coroutine_tests_in_it(
    suite: pytest.Pytester,
) -> None:
    source = """
    pytestmark = pytest.mark.explore(backend="trio", max_preemptions=1)

    async def test_here():
        assert backend() == "trio"

    def test_plain():
        pass

    @pytest.mark.explore(max_preemptions=0)
    class TestIn:
        async def test_a_class(self):
            await two(checkpoint)

        @pytest.mark.explore(backends=["asyncio", "trio"])
        @staticmethod
        async def test_a_static_one():
            await two(checkpoint)
    """
    result = run(suite, dedent(source), "-v")
    result.assert_outcomes(passed=5)
    result.stdout.fnmatch_lines(
        [
            "*::test_here[[]trio[]]: * (mixed on trio): all of * at most 1 preemption, *",
            "*::test_a_class[[]trio[]]: proved: no failure in * of at most 0 preemptions, *",
            "*::test_a_static_one[[]asyncio[]]: proved: * of at most 0 preemptions, *",
            "*::test_a_static_one[[]trio[]]: *",
        ]
    )


def test_a_method_has_its_instance_and_a_parameter_its_value(suite: pytest.Pytester) -> None:
    source = """
    class TestIn:
        def setup_method(self):
            self.users = 2

        @pytest.mark.explore
        @pytest.mark.parametrize("more", [0, 1])
        async def test_a_class(self, more):
            assert self.users + more in (2, 3)
            await two(checkpoint)
    """
    result = run(suite, dedent(source), "-v")
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(["*::test_a_class[[]trio-1[]] PASSED*"])


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "@pytest.mark.explore(stratgy='dpor')\nasync def test_it(): pass",
            "test_it.py::test_it: @pytest.mark.explore has no option 'stratgy'; its options are "
            "backend, backends, *",
        ),
        (
            "@pytest.mark.explore('dpor')\nasync def test_it(): pass",
            "*: @pytest.mark.explore takes its options by name, not 'dpor'",
        ),
        (
            "@pytest.mark.explore(backend='trio', backends=())\nasync def test_it(): pass",
            "*: @pytest.mark.explore takes backend or backends, not both",
        ),
        *(
            (
                f"@pytest.mark.explore(backends={backends})\nasync def test_it(): pass",
                "test_it.py::test_it: @pytest.mark.explore takes one backend or more in backends, "
                f"as ['trio'], not {backends}",
            )
            for backends in ("()", "[]", "'trio'", "None", "5")
        ),
        (
            "@pytest.mark.explore\ndef test_it(): pass",
            "test_it.py::test_it is marked to be explored, but is not an `async def`; in a plain "
            "test call the fixture `explore`. *",
        ),
    ],
)
def test_an_invalid_mark_is_reported_when_tests_are_collected(
    suite: pytest.Pytester, source: str, message: str
) -> None:
    result = run(suite, source)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([message])
    result.stdout.no_fnmatch_line("*Traceback*")


def test_an_invalid_value_is_reported_without_the_traceback_of_the_lab(
    suite: pytest.Pytester,
) -> None:
    source = """
    @pytest.mark.explore(strategy="bfs", backend="asyncio")
    async def test_strategy(): pass

    @pytest.mark.explore(backend="curio")
    async def test_backend(): pass

    @pytest.mark.explore(backend="asyncio")
    async def test_io():
        await asyncio.open_connection("localhost", 1)
    """
    result = run(suite, dedent(source))
    result.assert_outcomes(failed=3)
    result.stdout.fnmatch_lines(
        [
            "no strategy 'bfs': expected one of mixed, exhaustive, dpor, random, pct, fifo",
            "no backend 'curio': expected 'asyncio' or 'trio'",
            "the program does I/O; *",
            "FAILED test_it.py::test_io[[]asyncio[]] - the program does I/O*",
        ]
    )
    result.stdout.no_fnmatch_line("*lab/*.py*")


def test_what_only_looks_like_a_test_is_left_to_pytest(suite: pytest.Pytester) -> None:
    result = run(suite, SOUND + "\ntest_mock = unittest.mock.MagicMock()\n", "-W", "ignore")
    result.assert_outcomes(passed=2)


# --- among others


AMONG = {
    "asyncio's automatic mode": ("", "-o", "asyncio_mode=auto"),
    "asyncio's strict mode, marked": ("pytestmark = pytest.mark.asyncio",),
    "trio's automatic mode": ("", "-o", "trio_mode=true"),
    "trio, marked": ("pytestmark = pytest.mark.trio",),
    "anyio's automatic mode": ("", "-o", "anyio_mode=auto"),
    "anyio, marked": ("pytestmark = pytest.mark.anyio",),
}


@pytest.mark.parametrize("among", AMONG)
def test_no_plugin_for_async_tests_grabs_an_explored_one(
    suite: pytest.Pytester, among: str
) -> None:
    marks, *options = AMONG[among]
    runs_on = among.partition("'")[0].partition(",")[0]
    other = f"""
    async def test_of_theirs():
        assert {runs_on!r} in (backend(), "anyio")
        await anyio.sleep(0)

    class TestIn:
        @pytest.mark.{runs_on}
        @pytest.mark.explore
        @pytest.mark.parametrize("users", [1, 2])
        async def test_a_class(self, users):
            await two(checkpoint)
    """
    result = run(suite, SOUND + RACE + dedent(other) + marks, *options, "-v", "-W", "error")
    theirs = 2 if runs_on == "anyio" else 1
    result.assert_outcomes(passed=6 + theirs, failed=2)
    result.stdout.fnmatch_lines_random(
        [
            "*::test_sound[[]asyncio[]]: proved: no failure in * executions *",
            "*::test_sound[[]trio[]]: proved: no failure in * executions *",
            "*::test_a_class[[]asyncio-1[]]: proved: no failure in * executions *",
            "*::test_a_class[[]trio-2[]]: proved: no failure in * executions *",
            "FAILED test_it.py::test_race[[]asyncio[]] - exception: AssertionError: assert 1 == 2",
            "FAILED test_it.py::test_race[[]trio[]] - exception: AssertionError: assert 1 == 2",
        ]
    )


def test_a_suite_without_such_plugins_explores_too(suite: pytest.Pytester) -> None:
    suite.makeini("[pytest]")
    none = ("-p", "no:asyncio", "-p", "no:trio", "-p", "no:anyio")
    run(suite, SOUND, *none).assert_outcomes(passed=2)


def test_the_plugin_loads_nothing_in_a_plain_suite(suite: pytest.Pytester) -> None:
    (suite.path / "test_plain.py").write_text(
        "import sys\n"
        "def test_it():\n"
        "    assert '_mbufpools_pytest' in sys.modules\n"
        "    assert not [name for name in sys.modules if name.split('.')[0] == 'mbufpools']\n",
        "utf-8",
    )
    result = suite.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*explored*")


# --- failures


def test_a_failure_shows_its_report_and_not_the_traceback_of_the_lab(
    suite: pytest.Pytester,
) -> None:
    result = run(suite, RACE)
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(
        [
            "_* test_race[[]asyncio[]] _*",
            "exception: AssertionError: assert 1 == 2",
            "schedule (task: its steps in a row, and where it stops), in which each task runs on "
            "for as long as it can, but for 1 deviation:",
            "  *here 0.1 is scheduled instead of 0.0",
            "Traceback (most recent call last):",
            '  File "*test_it.py", line *, in test_race',
            "AssertionError: assert 1 == 2",
            "replay: pytest 'test_it.py::test_race[[]asyncio[]]' --explore-token "
            "'asyncio/run-on:0.0@1>0.1'",
            "",
            "found: 1 failure in 4 executions (mixed on asyncio): not all of the *",
            "FAILED test_it.py::test_race[[]asyncio[]] - exception: AssertionError: assert 1 == 2",
        ]
    )
    result.stdout.no_fnmatch_line("*lab/*.py*")


def test_the_printed_command_replays_a_failure_with_the_traceback_of_the_program(
    suite: pytest.Pytester,
) -> None:
    line = replay_line(run(suite, RACE))
    result = suite.runpytest_inprocess(*line, "-p", "no:cacheprovider")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "_* test_race[[]asyncio[]] _*",
            "    async def test_race():",
            ">       assert count == 2",
            "E       assert 1 == 2",
            "test_it.py:*: AssertionError",
        ]
    )
    result.stdout.no_fnmatch_line("*explored*")
    result.stdout.no_fnmatch_line("*lab/*.py*")


def test_the_printed_command_works_in_the_directory_where_pytest_was_called(
    suite: pytest.Pytester,
) -> None:
    (suite.path / "sub").mkdir()
    (suite.path / "sub" / "test_it.py").write_text(HEAD + RACE, "utf-8")
    suite.chdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir("sub")
        line = replay_line(suite.runpytest_inprocess("-p", "no:cacheprovider"))
        assert line[0] == "test_it.py::test_race[asyncio]"
        suite.runpytest_inprocess(*line, "-p", "no:cacheprovider").assert_outcomes(failed=1)


def test_a_stall_is_replayed_by_its_report(suite: pytest.Pytester) -> None:
    source = """
    @pytest.mark.explore(backend="trio")
    async def test_stall():
        event = anyio.Event()
        await event.wait()
    """
    result = run(suite, dedent(source))
    waits = "  task 0 '*' waits at *test_it.py:*, in test_stall, for *Event: set() was not called *"
    result.stdout.fnmatch_lines(["stall: every task waits, and nothing can wake one", waits])
    again = suite.runpytest_inprocess(*replay_line(result), "-p", "no:cacheprovider")
    again.assert_outcomes(failed=1)
    again.stdout.fnmatch_lines(["stall: every task waits, and nothing can wake one", waits])


def test_a_cancellation_is_replayed(suite: pytest.Pytester) -> None:
    source = """
    @pytest.mark.explore(backend="asyncio", cancel=True)
    async def test_it():
        lock = anyio.Lock()
        await lock.acquire()
        await checkpoint()
        lock.release()

    @pytest.mark.explore(backend="asyncio", cancel=True)
    async def test_told():
        try:
            await checkpoint()
        except asyncio.CancelledError:
            raise ValueError("cancelled") from None
    """
    result = run(suite, dedent(source))
    result.assert_outcomes(passed=1, failed=1)
    again = suite.runpytest_inprocess(*replay_line(result), "-p", "no:cacheprovider")
    again.stdout.fnmatch_lines(["E *ValueError: cancelled"])


AROUND = """
import functools

def around(function):
    @functools.wraps(function)
    async def wrapper():
        return await function()
    return wrapper

def unnamed(function):
    return lambda: function()
"""


@pytest.mark.parametrize("how", ["", "tmp_path", "mine", "decorated", "by_a_lambda"])
def test_the_tasks_of_a_test_are_cancelled_whatever_is_around_it(
    suite: pytest.Pytester, how: str
) -> None:
    """Around the test are the fixtures of the plugin, or a decorator of an installed package."""
    installed = suite.mkdir("site-packages") / "around_it.py"
    installed.write_text(AROUND, "utf-8")
    fixture = how if how in ("tmp_path", "mine") else ""
    source = f"""
    import sys
    sys.path.append({str(installed.parent)!r})
    import around_it

    @pytest.fixture
    def mine():
        return 1
    """
    if how == "by_a_lambda":
        source += """
    def test_it(explore):
        explore(around_it.unnamed(race), backend="asyncio", cancel=True)
    """
    else:
        decorator = "@around_it.around" if how == "decorated" else ""
        source += f"""
    @pytest.mark.explore(backend="asyncio", cancel=True)
    {decorator}
    async def test_it({fixture}):
        await race()
    """
    result = run(suite, ONLY_IF_CANCELLED + dedent(source))
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*stall: *"])


def test_all_failures_asked_for_are_reported_each_with_its_command(suite: pytest.Pytester) -> None:
    source = """
    @pytest.mark.explore(backend="asyncio", max_failures=None)
    async def test_it():
        order = []

        async def user():
            order.append(1)
            await checkpoint()
            order.append(2)

        await two(user)
        raise ValueError(order) if order == [1, 2, 1, 2] else KeyError(order)
    """
    result = run(suite, dedent(source))
    lines = [line for line in result.outlines if line.startswith("replay: ")]
    assert len(lines) == len(set(lines)) == 2
    result.stdout.fnmatch_lines(
        ["exception: KeyError: *", "", "exception: ValueError: *", "", "found: 2 failures in *"]
    )


def test_a_token_is_only_for_its_backend(suite: pytest.Pytester) -> None:
    result = run(suite, RACE, "--explore-token", "trio:0.1@1>0.1", "-rs")
    result.assert_outcomes(skipped=1, failed=1)
    result.stdout.fnmatch_lines(["SKIPPED * the token is of trio, this is asyncio"])


def test_a_token_that_no_longer_fails_passes_and_the_summary_says_so(
    suite: pytest.Pytester,
) -> None:
    result = run(suite, SOUND, "--explore-token", "trio:", "-k", "trio")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(
        ["test_it.py::test_sound[[]trio[]]: the schedule of the token does not fail"]
    )


def test_a_token_of_a_call_that_the_test_does_not_make_fails_nothing_and_the_summary_says_so(
    suite: pytest.Pytester,
) -> None:
    source = """
    async def holds():
        await two(checkpoint)

    def test_it(explore):
        explore(holds)
        explore(holds)
    """
    result = run(suite, dedent(source), "--explore-token", "3/asyncio:")
    result.assert_outcomes(passed=1)
    told = "the schedule of the token does not fail: the token is for call 3, and the test has made"
    result.stdout.fnmatch_lines([f"test_it.py::test_it: {told} 2"])
    result = run(suite, dedent(source), "--explore-token", "2/asyncio:")
    result.stdout.fnmatch_lines(["test_it.py::test_it: the schedule of the token does not fail"])
    result.stdout.no_fnmatch_line("*is for call*")


def test_a_token_that_does_not_fit_is_reported(suite: pytest.Pytester) -> None:
    result = run(suite, SOUND, "--explore-token", "trio:0@7>0.5", "-k", "trio")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["the token 'trio:0@7>0.5' does not fit the program: *"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--explore-token", "nonsense"), "ERROR: --explore-token: 'nonsense' is no token; *"),
        (("--explore-token", "curio:"), "ERROR: --explore-token: no backend 'curio': expected *"),
        (("--explore-token", "2/asyncio/x:"), "ERROR: --explore-token: no backend 'asyncio/x': *"),
        (("--explore-jobs", "0"), "ERROR: --explore-jobs 0: expected a number of processes, *"),
    ],
)
def test_an_invalid_option_is_a_usage_error(
    suite: pytest.Pytester, options: tuple[str, str], message: str
) -> None:
    result = run(suite, SOUND, *options)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([message])


def test_a_breakpoint_stops_in_the_replayed_schedule(suite: pytest.Pytester) -> None:
    source = RACE.replace("count = value + 1", "breakpoint()\n        count = value + 1")
    (suite.path / "test_it.py").write_text(HEAD + source, "utf-8")
    result = suite.run(
        *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-k", "trio"),
        *("--explore-token", "trio:0.1@1>0.1"),
        stdin=b"p 'value', value\nc\np 'value', value\nc\n",
    )
    result.assert_outcomes(failed=1, deselected=1)
    result.stdout.fnmatch_lines(["(Pdb) ('value', 0)"] * 2)


def test_quitting_the_debugger_ends_the_session(suite: pytest.Pytester) -> None:
    source = """
    @pytest.mark.explore
    async def test_it():
        async def quits():
            pytest.exit("enough")
        await two(quits)

    def test_then():
        pass
    """
    for options in ((), ("--explore-token", "asyncio:")):
        result = run(suite, dedent(source), *options)
        assert result.ret == pytest.ExitCode.INTERRUPTED
        result.stdout.fnmatch_lines(["!* _pytest.outcomes.Exit: enough !*"])


def test_a_test_may_skip_itself_and_be_expected_to_fail(suite: pytest.Pytester) -> None:
    source = """
    @pytest.mark.explore
    async def test_skip():
        async def skips():
            pytest.skip("not today")
        await two(skips)

    @pytest.mark.explore(backend="asyncio")
    async def test_skip_as_unittest_does():
        raise unittest.SkipTest("not today")

    @pytest.mark.explore
    @pytest.mark.xfail(raises=AssertionError, strict=True)
    async def test_known():
        assert not backend()
    """
    result = run(suite, dedent(source), "-rs")
    result.assert_outcomes(skipped=3, xfailed=2)
    result.stdout.fnmatch_lines(["SKIPPED * not today"])


def test_a_skip_in_the_first_order_of_the_other_rule_fails_the_test_too(
    suite: pytest.Pytester,
) -> None:
    source = """
    @pytest.mark.explore(backend="asyncio")
    async def test_skip():
        order = []
        async def each(name):
            order.append(name)
            await checkpoint()
            order.append(name)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(each, 1)
            tasks.start_soon(each, 2)
        if order == [1, 1, 2, 2]:  # not the order of asyncio, but without any deviation
            pytest.skip("in it")
    """
    result = run(suite, dedent(source))
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["note: the test called pytest.skip() in this schedule*"])
    result.stdout.fnmatch_lines(["replay: *--explore-token asyncio/run-on:"])


@pytest.mark.parametrize("name", ["skip", "xfail"])
@pytest.mark.parametrize("raised", ["pytest.NAME('in it')", "group()"])
def test_a_skip_or_expected_failure_in_a_later_schedule_fails_the_test_because_it_has_run(
    suite: pytest.Pytester, raised: str, name: str
) -> None:
    raised = raised.replace("NAME", name)
    source = f"""
    def group():
        try:
            pytest.{name}("in it")
        except BaseException as error:
            raise BaseExceptionGroup("two", [error])

    @pytest.mark.explore(backend="asyncio")
    async def test_skip():
        order = []
        async def one():
            await anyio.lowlevel.checkpoint()
            order.append(1)
        async def other():
            await anyio.lowlevel.checkpoint()
            order.append(2)
        async with anyio.create_task_group() as tg:
            tg.start_soon(one)
            tg.start_soon(other)
        if order == [2, 1]:
            {raised}
    """
    result = run(suite, dedent(source))
    result.assert_outcomes(failed=1)
    note = f"note: the test called pytest.{name}() in this schedule, and not in the first one.*"
    result.stdout.fnmatch_lines(["exception: *two*" if raised == "group()" else "*: in it*", note])
    (command,) = (line for line in result.outlines if "--explore-token" in line)
    for again in ((), ("--explore-token", shlex.split(command)[-1])):
        result = run(suite, dedent(source), *again)
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines([note])


@pytest.mark.parametrize("name", ["skip", "xfail", "exit"])
def test_a_skip_beside_a_failure_in_a_group_hides_it_in_no_schedule(
    suite: pytest.Pytester, name: str
) -> None:
    source = f"""
    @pytest.mark.explore
    async def test_it():
        async def ends():
            pytest.{name}("one task")
        async def cleans_up():
            try:
                await anyio.sleep(10)
            finally:
                assert False, "the clean-up"
        async with anyio.create_task_group() as group:
            group.start_soon(cleans_up)
            await checkpoint()
            group.start_soon(ends)
    """
    result = run(suite, dedent(source))
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["*AssertionError: the clean-up*"])


RACES = """
async def races():
    order = []
    async def one():
        order.append(1)
    async def other():
        order.append(2)
    async with anyio.create_task_group() as group:
        group.start_soon(one)
        group.start_soon(other)
    if order == [2, 1]:
        raise ValueError(order)
"""


@pytest.mark.parametrize(
    ("raises", "options", "program", "outcome"),
    [
        ("ValueError", "", "races()", "xfailed"),
        ("(KeyError, ValueError)", "", "races()", "xfailed"),
        ("AssertionError", "", "races()", "failed"),
        ("KeyError", "", "races()", "failed"),
        ("AssertionError", "", "anyio.Event().wait()", "xfailed"),
        ("ValueError", "", "anyio.Event().wait()", "failed"),
        ("ValueError", "", "checkpoint()", "failed"),
        ("ValueError", "--explore-jobs=2", "races()", "xfailed"),
        ("ValueError", "--runxfail", "races()", "failed"),
    ],
)
def test_an_expected_failure_is_expected_to_be_the_error_of_the_program(
    suite: pytest.Pytester, raises: str, options: str, program: str, outcome: str
) -> None:
    source = f"""
    @pytest.mark.explore(backend="asyncio")
    @pytest.mark.xfail(raises={raises}, strict=True)
    async def test_it():
        await {program}
    """
    result = run(suite, RACES + dedent(source), *options.split())
    result.assert_outcomes(**{outcome: 1})


@pytest.mark.parametrize("then", ["pass", "await asyncio.open_connection('localhost', 1)"])
def test_a_failure_that_does_not_happen_again_is_still_reported(
    suite: pytest.Pytester, then: str
) -> None:
    source = f"""
    CALLS = []

    @pytest.mark.explore(backend="asyncio")
    async def test_it():
        CALLS.append(1)
        assert len(CALLS) > 2, "in the beginning"
        {then}
    """
    result = run(suite, dedent(source))
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["exception: AssertionError: in the beginning*"])


def test_only_output_and_log_of_the_failing_schedule_are_shown(
    suite: pytest.Pytester,
) -> None:
    source = """
    @pytest.fixture(autouse=True)
    def before():
        print("before")

    @pytest.mark.explore(backend="asyncio")
    async def test_it():
        order = []

        async def user():
            print("a line")
            logging.warning("a record")
            order.append(1)
            await checkpoint()
            order.append(2)

        await two(user)
        assert order != [1, 1, 2, 2]
    """
    result = run(suite, dedent(source))
    result.assert_outcomes(failed=1)
    assert result.outlines.count("before") == 2  # at first, and for the failing schedule
    assert result.outlines.count("a line") == 2
    assert len([line for line in result.outlines if "a record" in line]) == 2
    uncaptured = run(suite, dedent(source), "-s")
    assert len([line for line in uncaptured.outlines if "a line" in line]) > 2


def test_output_of_a_test_before_it_explores_is_kept(suite: pytest.Pytester) -> None:
    source = """
    def test_it(explore):
        async def program():
            print("inside")
        print("before")
        explore(program)
        print("after")
        assert False
    """
    result = run(suite, dedent(source))
    result.stdout.fnmatch_lines(["*Captured stdout call*", "before", "after"], consecutive=True)


# --- the summary


def test_an_exploration_that_is_not_complete_passes_and_the_summary_says_so(
    suite: pytest.Pytester,
) -> None:
    source = SOUND + SOUND.replace("test_sound", "test_large").replace(
        "mark.explore", "mark.explore(max_executions=3)"
    )
    result = run(suite, source)
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(
        [
            "*= explored =*",
            "test_it.py::test_large[[]asyncio[]]: ran out: no failure in 3 executions *: not all *",
            "test_it.py::test_large[[]trio[]]: ran out: no failure in 3 executions *: not all *",
            "explored: 2 proved, 2 ran out; -v says within which bounds, and what was not explored",
        ]
    )
    result.stdout.no_fnmatch_line("*test_sound*")
    run(suite, source, "-q").stdout.fnmatch_lines(["explored: 2 proved, 2 ran out"])


def test_the_summary_counts_the_proofs_in_which_timers_had_one_order_only(
    suite: pytest.Pytester,
) -> None:
    source = (
        SOUND
        + """
@pytest.mark.explore
async def test_sleeps():
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.sleep, 1)
        tasks.start_soon(anyio.sleep, 2)
"""
    )
    counts = "explored: 4 proved (2 with timers in one order only)"
    run(suite, source).stdout.fnmatch_lines([f"{counts}; -v says *"])
    run(suite, source, "-q").stdout.fnmatch_lines([counts])


def test_a_proof_that_says_less_than_it_seems_to_is_in_the_summary(suite: pytest.Pytester) -> None:
    source = (
        SOUND
        + """
@pytest.mark.explore
async def test_alone():
    await anyio.lowlevel.checkpoint()
"""
    )
    result = run(suite, source)
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(
        [
            "*= explored =*",
            "test_it.py::test_alone[[]asyncio[]]: proved: *; but there was never a choice: *",
            "test_it.py::test_alone[[]trio[]]: proved: *; but there was never a choice: *",
            "explored: 4 proved; -v says within which bounds, and what was not explored",
        ]
    )
    result.stdout.no_fnmatch_line("*test_sound*")


def test_a_machine_readable_report_holds_the_summary(suite: pytest.Pytester) -> None:
    run(suite, SOUND, "--junit-xml=report.xml")
    xml = (suite.path / "report.xml").read_text("utf-8")
    assert xml.count('<property name="explored" value="proved: no failure in ') == 2


# --- fixtures


FIXTURES = """
@pytest.fixture
def fresh():
    return []

@pytest.fixture(scope="session")
def wide():
    return [1]

@pytest.fixture(scope="session")
async def coroutine():
    return [1]

@pytest.fixture(params=[1, 2])
def number(request):
    return request.param
"""


def test_a_coroutine_fixture_is_refused(suite: pytest.Pytester) -> None:
    source = """
    @pytest.mark.explore(backend="asyncio")
    async def test_it(wide, coroutine):
        pass
    """
    result = run(suite, FIXTURES + dedent(source), "-p", "no:asyncio", "-W", "ignore")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        ["test_it[[]asyncio[]] is explored, and takes the fixture 'coroutine', which is a cor*"]
    )


def test_fixtures_of_function_scope_are_made_anew_for_each_schedule(
    suite: pytest.Pytester,
) -> None:
    source = """
    MADE, WIDE = [], []

    @pytest.fixture(scope="module")
    def once():
        WIDE.append("set up")

    @pytest.fixture(autouse=True)
    def around(once):
        MADE.append("around")
        yield
        assert MADE.pop() == "around"

    @pytest.fixture
    def used():
        MADE.append("used")
        yield
        assert MADE.pop() == "used"

    @pytest.mark.explore
    @pytest.mark.usefixtures("used")
    @pytest.mark.parametrize("wanted", [[1]])
    async def test_it(wide, fresh, number, wanted, request, tmp_path, monkeypatch, caplog):
        assert wide == wanted
        assert request.node.name.endswith(f"-{number}-wanted0]")
        assert list(tmp_path.iterdir()) == [] and "HERE" not in os.environ
        (tmp_path / "file").touch()
        monkeypatch.setenv("HERE", "1")
        logging.warning("a record")
        assert len(caplog.records) == 1
        await two(checkpoint)
        fresh.append(1)
        assert fresh == [1]
        assert MADE == ["around", "used"]
        assert WIDE == ["set up"]

    def test_afterwards(tmp_path_factory):
        folders = list(tmp_path_factory.getbasetemp().glob("test_it*"))
        assert len([it for it in folders if not it.is_symlink()]) == 4
        assert MADE == ["around"]
    """
    result = run(suite, "import os" + HEAD + FIXTURES + dedent(source))
    result.assert_outcomes(passed=5)
    result.stdout.fnmatch_lines(["explored: 4 proved; *"])


@pytest.mark.parametrize("plugin", ["pytest_asyncio.fixture", "pytest.fixture"])
def test_a_coroutine_fixture_that_is_no_argument_is_made_anew_on_asyncio_and_refused_on_trio(
    suite: pytest.Pytester, plugin: str
) -> None:
    needs = "anyio_backend" if plugin == "pytest.fixture" else ""
    source = f"""
    import pytest_asyncio
    made, gone, calls = [], [], []

    @pytest.fixture(params=["asyncio", "trio"])
    def anyio_backend(request):
        return request.param

    @{plugin}(autouse=True)
    async def state({needs}):
        made.append(1)
        await checkpoint()
        yield
        gone.append(1)

    @pytest.mark.explore
    async def test_it():
        calls.append(1)
        await two(checkpoint)
        assert len(made) == len(gone) + 1 == len(calls)

    def test_after():
        assert len(calls) > 1
    """
    result = run(suite, dedent(source))
    result.assert_outcomes(passed=3 if needs else 2, errors=1)
    result.stdout.fnmatch_lines(
        ["test_it[[]trio*[]] is explored on trio, and has the fixture 'state', which is a corou*"]
    )


@pytest.mark.parametrize("value", ["[]", "asyncio.Lock()"])
def test_a_fixture_of_a_wider_scope_that_keeps_state_is_named(
    suite: pytest.Pytester, value: str
) -> None:
    source = f"""
    @pytest.fixture(scope="module")
    def shared():
        return {value}

    @pytest.fixture
    def through(shared):
        return shared

    async def use(kept):
        if isinstance(kept, list):
            kept.append(0)
            for _ in range(len(kept) % 3):
                await asyncio.sleep(0)
            return

        async def take():
            async with kept:
                await asyncio.sleep(0)
        await asyncio.gather(take(), take())

    @pytest.mark.explore(backend="asyncio")
    async def test_mark(through):
        await use(through)

    def test_fixture(explore, shared):
        explore(lambda: use(shared))
    """
    result = run(suite, dedent(source))
    result.assert_outcomes(failed=2)
    said = "*The test also has a fixture of a wider scope than function, made once for all exec*: "
    name = "'shared' (scope module). One of scope function is made anew for each."
    result.stdout.fnmatch_lines([said + name, f"E *{said}{name}"])


def test_a_fixture_that_fails_for_a_later_schedule_is_an_error_of_its_own(
    suite: pytest.Pytester,
) -> None:
    source = """
    MADE = []

    @pytest.fixture
    def twice():
        MADE.append(1)
        assert len(MADE) < 3, "too often"

    @pytest.mark.explore(backend="asyncio")
    async def test_it(twice):
        await two(checkpoint)
    """
    result = run(suite, dedent(source))
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*AssertionError: too often*"])


# --- Hypothesis


def test_each_example_of_hypothesis_is_explored(suite: pytest.Pytester) -> None:
    source = """
    from hypothesis import Phase, given, settings, strategies as st

    # Without the phase in which Hypothesis traces each line of each execution.
    S = settings(max_examples=20, phases=set(Phase) - {Phase.explain})

    async def loses_an_update(users):
        count = 0

        async def increase():
            nonlocal count
            value = count
            await checkpoint()
            count = value + 1

        async with anyio.create_task_group() as tasks:
            for _ in range(users):
                tasks.start_soon(increase)
        assert count == users

    @pytest.mark.explore
    @settings(max_examples=5)
    @given(users=st.integers(0, 1))
    async def test_sound(users):
        await loses_an_update(users)

    @pytest.mark.explore(backend="asyncio")
    @S
    @given(users=st.integers(0, 3))
    async def test_marked(users):
        await loses_an_update(users)

    @S
    @given(users=st.integers(0, 3))
    def test_with_the_fixture(explore, users):
        explore(functools.partial(loses_an_update, users))

    class TestIn:
        @pytest.mark.explore(backend="trio")
        @S
        @given(users=st.integers(0, 3))
        async def test_a_class(self, users):
            await loses_an_update(users)
    """
    result = run(suite, dedent(source))
    result.assert_outcomes(passed=2, failed=3)
    # Each is shrunk to the fewest tasks that can fail.
    assert "users=2" in result.stdout.str()
    (line, *_) = [line for line in result.outlines if "replay: pytest " in line]
    _, *arguments = shlex.split(line.partition("replay: ")[2])
    run(suite, dedent(source), *arguments).assert_outcomes(failed=1)


def test_all_examples_of_a_test_have_one_line(suite: pytest.Pytester) -> None:
    source = """
    from hypothesis import given, settings, strategies as st

    @pytest.mark.explore(backend="asyncio", max_executions=3)
    @settings(max_examples=4, database=None)
    @given(users=st.sampled_from([1, 2]))
    async def test_it(users):
        async with anyio.create_task_group() as tasks:
            for _ in range(users):
                tasks.start_soon(checkpoint)
    """
    result = run(suite, dedent(source), "-v")
    result.assert_outcomes(passed=1)
    (line,) = [it for it in result.outlines if "executions" not in it and "ran out" in it]
    assert line == (
        "test_it.py::test_it[asyncio]: ran out: 2 examples, 1 proved, 1 ran out (mixed on asyncio),"
        " of each the schedules of at most 2 preemptions, and those of at most 2 delays"
    )
    run(suite, dedent(source), "-q").stdout.fnmatch_lines(["explored: 1 ran out"])


@pytest.mark.parametrize(
    ("users", "remarked"), [("[1]", True), ("[1, 2]", False)], ids=["all", "one of two"]
)
def test_what_makes_the_proofs_of_all_examples_say_less_is_in_the_summary(
    users: str, remarked: bool, suite: pytest.Pytester
) -> None:
    source = f"""
    from hypothesis import given, settings, strategies as st

    @pytest.mark.explore(backend="asyncio")
    @settings(max_examples=4, database=None)
    @given(users=st.sampled_from({users}))
    async def test_it(users):
        async with anyio.create_task_group() as tasks:
            for number in range(users):
                tasks.start_soon(anyio.sleep, 1 + number)
    """
    result = run(suite, dedent(source))
    said = [it for it in result.outlines if "there was never a choice" in it]
    assert bool(said) is remarked
    timers = "" if remarked else " (1 with timers in one order only)"
    result.stdout.fnmatch_lines([f"explored: 1 proved{timers}; *"])
    result = run(suite, dedent(source), "-v")
    result.stdout.fnmatch_lines(
        ["test_it.py::test_it*: proved: *; not explored: *I/O and real time*"]
    )


# --- what failed before


def test_schedules_that_failed_are_executed_first_the_next_time(suite: pytest.Pytester) -> None:
    source = HEAD + RACE.replace("explore\n", "explore(backend='asyncio')\n")
    (suite.path / "test_it.py").write_text(source, "utf-8")
    found = suite.runpytest_inprocess("-v")
    found.stdout.fnmatch_lines(["found: 1 failure in * executions *"])
    again = suite.runpytest_inprocess("-v")
    again.assert_outcomes(failed=1)
    again.stdout.fnmatch_lines(["found again, in a schedule that failed before; the others were*"])
    assert replay_line(again) == replay_line(found)
    # A schedule of another program is forgotten, and so is one that does not fail any more.
    (suite.path / "test_it.py").write_text(source.replace("== 2:", "== 3:"), "utf-8")
    suite.runpytest_inprocess().assert_outcomes(failed=1)
    (suite.path / "test_it.py").write_text(source.replace("count == 2", "True"), "utf-8")
    suite.runpytest_inprocess().assert_outcomes(passed=1)
    (suite.path / "test_it.py").write_text(source, "utf-8")
    found = suite.runpytest_inprocess()
    found.stdout.fnmatch_lines(["found: 1 failure in * executions *"])


CANCELS = """
@pytest.mark.explore(backend="asyncio", OPTION)
async def test_it():
    done = []
    async def work(number):
        await asyncio.sleep(0)
        done.append(number)
    names = ("first", "second", "third")
    tasks = [asyncio.create_task(work(name), name=name) for name in names]
    await asyncio.wait(tasks)
    assert EXPECTED
"""
LEAVES_A_COROUTINE = """
@pytest.mark.explore(backend="asyncio", OPTION)
async def test_it():
    async def forgotten(): pass
    async def work():
        forgotten()
    await asyncio.gather(work(), work())
"""


@pytest.mark.parametrize(
    ("source", "expected", "before", "now"),
    [
        (LEAVES_A_COROUTINE, "", "max_preemptions=1", "ignore=['leak']"),
        (CANCELS, "'second' in done", "cancel=True", "cancel=False"),
        *(
            pytest.param(CANCELS, "'second' in done", "cancel=True", now, marks=pytest.mark.prove)
            for now in (
                "cancel='first'",
                "cancel=['main', 'third']",
                "cancel=lambda it: it.title == 'third'",
            )
        ),
        (CANCELS, "'second' in done", "cancel='native'", "cancel=lab.cancellable('third')"),
        (CANCELS, "len(done) > 1", "cancel=lab.cancellable(times=2)", "cancel='native'"),
    ],
)
def test_a_schedule_that_the_options_exclude_by_now_is_not_found_again(
    suite: pytest.Pytester, source: str, expected: str, before: str, now: str
) -> None:
    def outcomes(option: str) -> tuple[pytest.RunResult, dict[str, int]]:
        text = source.replace("EXPECTED", expected).replace("OPTION", option)
        (suite.path / "test_it.py").write_text(HEAD + text, "utf-8")
        result = suite.runpytest_inprocess()
        return result, result.parseoutcomes()

    assert outcomes(before)[1] == {"failed": 1}
    again, counts = outcomes(before)
    assert counts == {"failed": 1}
    again.stdout.fnmatch_lines(["explored: 1 found again"])
    assert outcomes(now)[1] == {"passed": 1}


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("strategy='bfs'", "no strategy 'bfs': expected one of *"),
        ("max_executions=0", "max_executions is 0; expected an integer of at least 1"),
        ("cancel=3", "cancel is 3; expected True, *"),
    ],
)
def test_a_failure_that_is_kept_hides_no_invalid_option(
    suite: pytest.Pytester, option: str, message: str
) -> None:
    source = HEAD + RACE.replace("explore\n", "explore(backend='asyncio')\n")
    (suite.path / "test_it.py").write_text(source, "utf-8")
    suite.runpytest_inprocess().stdout.fnmatch_lines(["found: 1 failure in * executions *"])
    source = source.replace("backend='asyncio'", f"backend='asyncio', {option}")
    (suite.path / "test_it.py").write_text(source, "utf-8")
    suite.runpytest_inprocess().stdout.fnmatch_lines([message])


# --- pages


def test_a_page_is_written_in_each_run_that_shows_a_failure(suite: pytest.Pytester) -> None:
    source = HEAD + RACE.replace("explore\n", "explore(backend='asyncio')\n")
    (suite.path / "test_it.py").write_text(source, "utf-8")
    page = suite.path / "pages" / "test_it.py-test_race-asyncio-1.html"
    command = None
    for verdict in ("found: 1 failure in *", "found again, in a schedule*"):
        result = suite.runpytest_inprocess("--explore-html", "pages")
        result.stdout.fnmatch_lines([f"page: {page}", "", verdict])
        command = replay_line(result)
        text = page.read_text("utf-8")
        assert "replay: pytest &#x27;test_it.py::test_race[asyncio]&#x27; --explore-token" in text
        assert "<title>test_it.py::test_race[asyncio], failure 1: exception: " in text
        page.unlink()
    result = suite.runpytest_inprocess(*(command or ()), "--explore-html", "pages")
    result.stdout.fnmatch_lines(["E       assert 1 == 2", f"E       page: {page}"])
    assert page.exists()


def test_the_directory_of_the_pages_is_in_the_mark_or_the_ini_file(suite: pytest.Pytester) -> None:
    suite.makeini(f"{INI}explore_html = from_ini\n")
    source = """
    async def fails():
        raise ValueError("here")

    @pytest.mark.explore(backend="asyncio", html="from_mark")
    async def test_mark():
        await fails()

    def test_fixture(explore):
        try:
            explore(fails)
        except AssertionError:
            pass
        explore(fails)
    """
    run(suite, dedent(source)).assert_outcomes(failed=2)
    assert sorted(str(it.relative_to(suite.path)) for it in suite.path.glob("from_*/*")) == [
        "from_ini/test_it.py-test_fixture-asyncio-1.html",
        "from_ini/test_it.py-test_fixture-call-2-asyncio-1.html",
        "from_mark/test_it.py-test_mark-asyncio-1.html",
    ]


def test_a_page_that_cannot_be_written_hides_no_failure(suite: pytest.Pytester) -> None:
    result = run(suite, RACE, "-k", "asyncio", "--explore-html", "test_it.py/pages")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["replay: pytest *", "no page, because of NotADirectoryError: *"])


# --- the ini file


def test_the_ini_file_has_defaults_and_the_command_line_takes_precedence(
    suite: pytest.Pytester,
) -> None:
    suite.makeini(
        INI + "explore_backends = trio\nexplore_strategy = random\nexplore_max_executions = 7\n"
        "explore_seed = 3\nexplore_cancel = scope\n"
        "explore_max_preemptions = none\n"
    )
    source = """
    @pytest.mark.explore
    async def test_plain():
        await two(checkpoint)

    @pytest.mark.explore(max_executions=5, strategy="exhaustive", backend="asyncio", cancel=False)
    async def test_mark():
        await two(checkpoint)

    def test_fixture(explore):
        async def program():
            await two(checkpoint)
        explore(program, cancel=False)
    """
    result = run(suite, dedent(source), "-v")
    result.stdout.fnmatch_lines_random(
        [
            "*::test_plain[[]trio[]]: ran out: no failure in 7 executions (random on *by a scope*",
            "*::test_mark[[]asyncio[]]: ran out: no failure in 5 executions (exhaustive on *",
            "*::test_fixture: ran out: no failure in 7 executions (random on asyncio): *",
        ]
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("explore_backends = curio", "ini option explore_backends: no backend 'curio'; *"),
        ("explore_max_executions = many", "ini option explore_max_executions: 'many'; *"),
        ("explore_seconds = soon", "ini option explore_seconds: 'soon'; expected seconds"),
        ("explore_seconds = -1", "ini option explore_seconds: * expected seconds above 0*"),
        ("explore_max_executions = 0", "ini option explore_max_executions: * at least 1"),
        ("explore_max_preemptions = all", "ini option explore_max_preemptions: 'all'; *"),
        ("explore_seed = x", "ini option explore_seed: 'x'; expected a whole number"),
        (
            "explore_strategy = bfs",
            "ini option explore_strategy: no strategy 'bfs': expected * pct*",
        ),
        ("explore_cancel = ture", "ini option explore_cancel: 'ture'; did you mean true? If *"),
        ("explore_cancel = a,,b", "ini option explore_cancel: 'a,,b'; expected true, false, *"),
        ("explore_require_complete = maybe", "ini option explore_require_complete: 'maybe'; *"),
        (
            "explore_cancel = true\nexplore_strategy = dpor",
            "ini option explore_strategy: dpor cannot cancel, as explore_cancel asks; *",
        ),
        (
            "explore_cancel = native\nexplore_backends = asyncio trio",
            "ini option explore_cancel: native is asyncio's, and explore_backends names trio; *",
        ),
    ],
)
def test_an_invalid_line_of_the_ini_file_is_a_usage_error(
    suite: pytest.Pytester, line: str, message: str
) -> None:
    suite.makeini(f"{INI}{line}\n")
    result = run(suite, SOUND)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"ERROR: {message}"])


@pytest.mark.parametrize(
    ("table", "quote"), [("[tool.pytest.ini_options]", ""), ("[tool.pytest]", '"')]
)
def test_pyproject_toml_has_the_options_also_with_types_of_its_own(
    suite: pytest.Pytester, table: str, quote: str
) -> None:
    (suite.path / "tox.ini").unlink()
    typed = quote == "" or tuple(map(int, pytest.__version__.split(".")[:2])) >= (9, 2)
    quote = "" if typed else quote
    lines = [
        f"{name} = {quote}{value}{quote}"
        for name, value in (
            ("explore_cancel", "true"),
            ("explore_max_executions", "5"),
            ("explore_max_preemptions", "0"),
            ("explore_require_complete", "true"),
            ("explore_seconds", "2.5"),
            ("explore_seed", "3"),
        )
    ]
    lines += ["explore_backends = ['asyncio']", "asyncio_default_fixture_loop_scope = 'function'"]
    suite.makepyprojecttoml("\n".join([table, *lines]))
    result = run(suite, SOUND, "-v")
    result.assert_outcomes(failed=1)
    said = "ran out: no failure in 5 executions *; require_complete=True asks for all: raise *"
    result.stdout.fnmatch_lines([said, "*::test_sound[[]asyncio[]]: ran out: *at most 0 preempt*"])


def test_an_exploration_that_must_be_complete_fails_if_it_is_not(suite: pytest.Pytester) -> None:
    suite.makeini(f"{INI}explore_require_complete = true\nexplore_max_executions = 3\n")
    source = """
    @pytest.mark.explore(backend="asyncio", require_complete=False)
    async def test_exempt():
        await two(checkpoint)

    async def program():
        await two(checkpoint)

    def test_fixture(explore):
        explore(program)
    """
    result = run(suite, dedent(source), "-v")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        [">       explore(program)", "E *ExplorationIncomplete: ran out: *"]
    )
    result.stdout.no_fnmatch_line("*lab/*.py*")
    run(suite, SOUND, "-o", "explore_max_executions=1000").assert_outcomes(passed=2)


def test_under_q_each_outcome_is_counted(suite: pytest.Pytester) -> None:
    source = HEAD + (RACE + SOUND).replace("explore\n", "explore(backend='asyncio')\n")
    (suite.path / "test_it.py").write_text(source, "utf-8")
    first = suite.runpytest_inprocess("-q")
    first.stdout.fnmatch_lines(["explored: 1 proved, 1 found"])
    again = suite.runpytest_inprocess("-q")
    again.stdout.fnmatch_lines(["explored: 1 proved, 1 found again"])
    (suite.path / "test_it.py").write_text(source.replace("count == 2", "True"), "utf-8")
    mended = suite.runpytest_inprocess(*replay_line(first), "-q")
    mended.stdout.fnmatch_lines(["explored: 1 not found again"])


@pytest.mark.parametrize("where", ["command line", "ini file"])
def test_an_exploration_ends_after_its_seconds_and_the_summary_says_so(
    suite: pytest.Pytester, where: str
) -> None:
    options = ["--explore-seconds", "0.000001"] if where == "command line" else []
    if not options:
        suite.makeini(f"{INI}explore_seconds = 0.000001\n")
    result = run(suite, SOUND, *options, "-v", "-k", "asyncio")
    result.assert_outcomes(passed=1, deselected=1)
    result.stdout.fnmatch_lines(["*::test_sound[[]asyncio[]]: *ran out*"])
    invalid = run(suite, SOUND, "--explore-seconds", "0")
    invalid.stderr.fnmatch_lines(["ERROR: --explore-seconds 0: expected seconds, above 0"])


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_test_is_executed_once_however_few_its_seconds_are(
    suite: pytest.Pytester, jobs: str
) -> None:
    source = """
    @pytest.mark.explore(max_seconds=1e-9)
    async def test_fails():
        assert False
    """
    run(suite, dedent(source), "--explore-jobs", jobs).assert_outcomes(failed=2)


def test_another_seed_chooses_other_schedules(suite: pytest.Pytester) -> None:
    source = """
    ORDERS = []

    def test_it(explore):
        async def program():
            order = []
            async def user(name):
                for _ in range(3):
                    order.append(name)
                    await checkpoint()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(user, 0)
                tasks.start_soon(user, 1)
            ORDERS.append(order)
        explore(program, strategy="random", max_executions=5)
        print(ORDERS[:5])
    """
    shown = {
        next(line for line in run(suite, dedent(source), "-s", *options).outlines if "[[" in line)
        for options in ([], ["--explore-seed", "0"], ["--explore-seed", "1"])
    }
    assert len(shown) == 2


# --- backends


def test_a_test_of_asyncio_runs_on_asyncio_alone_and_one_of_trio_on_trio(
    suite: pytest.Pytester,
) -> None:
    source = """
    from asyncio import sleep

    @pytest.mark.explore
    async def test_module():
        await asyncio.sleep(0)

    @pytest.mark.explore
    async def test_function():
        async def inner():
            await sleep(0)
        await inner()

    @pytest.mark.explore
    async def test_trio():
        await trio.lowlevel.checkpoint()

    @pytest.mark.explore
    @pytest.mark.asyncio
    async def test_marked():
        pass

    @pytest.mark.explore(backends=["trio"])
    async def test_said():
        assert asyncio

    @pytest.mark.explore
    async def test_both():
        assert asyncio
        await anyio.sleep(0)
    """
    result = run(suite, dedent(source), "-v")
    result.assert_outcomes(passed=7)
    names = re.findall(r"::(\S+) PASSED", result.stdout.str())
    assert names == [
        "test_module[asyncio]",
        "test_function[asyncio]",
        "test_trio[trio]",
        "test_marked[asyncio]",
        "test_said[trio]",
        "test_both[asyncio]",
        "test_both[trio]",
    ]


# --- another project's mark


def test_the_mark_of_another_project_is_left_alone(suite: pytest.Pytester) -> None:
    source = """
    @pytest.mark.explore("the cave", depth_first=True)
    def test_plain(request):
        assert request.node.get_closest_marker("explore").args == ("the cave",)

    @pytest.mark.explore
    def test_bare():
        pass
    """
    result = run(suite, dedent(source).replace("@pytest.mark.explore\n", ""))
    result.assert_outcomes(passed=2)
    suite.makeini(f"{INI}markers =\n    explore(place): of a game\n")
    run(suite, dedent(source), "-W", "error").assert_outcomes(passed=2)


# --- progress


def test_a_long_exploration_says_how_far_it_is(
    suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_pytest_progress, "EACH_IN_A_FILE", 0.0)
    result = run(suite, SOUND, "-k", "asyncio")
    result.stdout.fnmatch_lines(["test_sound[[]asyncio[]]: 1 executions in * s"])
    assert "executions in" not in run(suite, SOUND, "-q").stdout.str()


# --- timeouts


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("step", ["await anyio.sleep(0)", "sum(range(10**6))"])
def test_a_timeout_stops_the_exploration_at_once_and_is_no_failure_of_the_program(
    suite: pytest.Pytester, backend: str, step: str
) -> None:
    source = f"""
    import signal, time

    @pytest.fixture(autouse=True)
    def alarm():
        def ring(signum, frame):
            pytest.fail("Timeout of the alarm")
        before = signal.signal(signal.SIGALRM, ring)
        yield
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)

    def test_it(explore):
        async def program():
            async def task():
                for _ in range(6):
                    {step}
            async with anyio.create_task_group() as tasks:
                for _ in range(5):
                    tasks.start_soon(task)
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        begin = time.perf_counter()
        try:
            explore(program, backend={backend!r}, max_preemptions=None, max_executions=10**8)
        finally:
            assert time.perf_counter() - begin < 20
    """
    # If the alarm rings in a callback of the garbage collector, Python only warns of its error.
    result = run(suite, dedent(source), "-W", "ignore::pytest.PytestUnraisableExceptionWarning")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E * Failed: Timeout of the alarm"])
    result.stdout.no_fnmatch_line("*schedule (task*")


# --- the fixture `explore`


def test_the_fixture_explores_any_program(suite: pytest.Pytester) -> None:
    source = """
    @pytest.mark.parametrize("backend", ["asyncio", "trio"])
    def test_it(explore, backend, tmp_path):
        async def program():
            await two(checkpoint)
            assert tmp_path.exists()

        found = explore(program, backend=backend, max_preemptions=1)
        assert isinstance(found, lab.Exploration)
        assert found.complete
        assert found.backend == backend
        assert not explore(program, strategy="random", max_executions=7).complete
    """
    result = run(suite, dedent(source), "-v")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(
        [
            "*::test_it[[]trio[]]: proved: no failure in * executions (mixed on trio): *",
            "*::test_it[[]trio[]]: ran out: no failure in 7 executions (random on asyncio): *",
        ]
    )


SECOND_FAILS = """
def test_it(explore):
    async def sound():
        await two(checkpoint)

    async def fails():
        await checkpoint()
        raise ValueError("here")

    assert explore(sound).executions
    explore(fails)
"""


def test_the_fixture_asserts_at_the_line_that_calls_it(suite: pytest.Pytester) -> None:
    result = run(suite, SECOND_FAILS)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            ">       explore(fails)",
            "E       *ExplorationFailed: exception: ValueError: here",
            "E       replay: pytest test_it.py::test_it --explore-token 2/asyncio:",
            "test_it.py:*: ExplorationFailed",
        ]
    )
    result.stdout.no_fnmatch_line("*_explore.py*")


def test_the_command_of_a_later_call_replays_that_call(suite: pytest.Pytester) -> None:
    line = replay_line(run(suite, SECOND_FAILS))
    result = suite.runpytest_inprocess(*line, "-p", "no:cacheprovider")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            ">       explore(fails)",
            '>       raise ValueError("here")',
            "E       ValueError: here",
            "test_it.py:*: ValueError",
        ]
    )
    result.stdout.no_fnmatch_line("*lab/*.py*")


def test_the_fixture_says_what_cannot_be_explored_at_the_line_that_calls_it(
    suite: pytest.Pytester,
) -> None:
    source = """
    def test_it(explore):
        async def program():
            await anyio.connect_tcp("127.0.0.1", 9)
        explore(program)
    """
    result = run(suite, dedent(source))
    result.stdout.fnmatch_lines(
        [">       explore(program)", "E *Unsupported: the program does I/O*"]
    )
    result.stdout.no_fnmatch_line("*_asyncio_backend.py*")


def test_the_fixture_says_that_a_program_takes_arguments(suite: pytest.Pytester) -> None:
    source = """
    def test_it(explore):
        explore(two)
    """
    result = run(suite, dedent(source))
    result.stdout.fnmatch_lines(
        [">       explore(two)", "E *ValueError: the program two takes arguments (function); *"]
    )
    result.stdout.no_fnmatch_line("*lab/*.py*")


# --- processes


def test_jobs_explore_the_same_schedules_and_find_the_same(suite: pytest.Pytester) -> None:
    source = (
        SOUND
        + RACE
        + """
class TestIn:
    users = (1,)

    @pytest.mark.explore(backend="trio")
    @pytest.mark.parametrize("more", [(2, 3)])
    async def test_a_class(self, more):
        assert [*self.users, *more] == [1, 2, 3]

    @pytest.mark.explore(backend="asyncio")
    @pytest.mark.parametrize("function", [lambda: 1])
    async def test_a_function(self, function):
        pass

@pytest.mark.explore(backend="asyncio", strategy="dpor")
async def test_dpor():
    pass

def test_fixture(explore):
    async def program():
        pass
    assert explore(program).complete

@pytest.mark.explore(backend="asyncio")
async def test_io():
    await asyncio.open_connection("localhost", 1)

@pytest.mark.explore(backend="asyncio")
async def test_skip():
    pytest.skip("not today")
"""
    )
    result = run(suite, source, "--explore-jobs", "2", "-v", "--import-mode=importlib")
    result.assert_outcomes(passed=5, failed=4, skipped=1)
    result.stdout.fnmatch_lines(
        [
            "exception: AssertionError: assert 1 == 2",
            "replay: pytest 'test_it.py::test_race[[]asyncio[]]' --explore-token '*'",
            "TestIn.test_a_function cannot be given to other processes (*); make it a function *",
            "the program does I/O; *",
        ]
    )
    result.stdout.no_fnmatch_line("*process.py*")
    result.stdout.fnmatch_lines_random(
        [
            "*::test_sound[[]asyncio[]]: proved: no failure in * executions *",
            "*::test_sound[[]trio[]]: proved: no failure in * executions *",
            "*::test_a_class[[]trio-more0[]]: proved: no failure in * executions *",
            "*::test_dpor[[]asyncio[]]: proved: no failure in * executions *",
            "*::test_fixture: *; in one process, because others could not import the program",
        ]
    )


@pytest.mark.parametrize(
    "packages",
    [
        (),
        pytest.param(("outer",), marks=pytest.mark.prove),
        pytest.param(("outer/inner",), marks=pytest.mark.prove),
        ("outer", "outer/inner"),
    ],
)
def test_a_worker_finds_a_test_of_a_directory_under_importlib_mode(
    suite: pytest.Pytester, packages: tuple[str, ...]
) -> None:
    directory = suite.path / "outer" / "inner"
    directory.mkdir(parents=True)
    for package in packages:
        (suite.path / package / "__init__.py").touch()
    source = """
    import multiprocessing
    import pytest
    from .other import number

    @pytest.mark.explore(backend="asyncio")
    @pytest.mark.parametrize("called", [number])
    async def test_it(called):
        assert multiprocessing.parent_process() is not None
        assert called() == 1
    """
    (directory / "other.py").write_text("def number():\n    return 1\n", "utf-8")
    (directory / "test_inner.py").write_text(dedent(source), "utf-8")
    result = suite.runpytest_subprocess(
        "-p", "no:cacheprovider", "--explore-jobs", "2", "--import-mode=importlib"
    )
    result.assert_outcomes(passed=1)


def test_a_worker_process_that_dies_is_reported_and_replaced(suite: pytest.Pytester) -> None:
    source = """
    import os, multiprocessing

    @pytest.mark.explore(backend="asyncio")
    async def test_dies():
        if multiprocessing.parent_process() is not None:
            os._exit(1)

    @pytest.mark.explore(backend="asyncio")
    async def test_then():
        assert multiprocessing.parent_process() is not None
    """
    result = run(suite, dedent(source), "--explore-jobs", "1")
    result.assert_outcomes(passed=1, failed=1)  # one job is no process
    result = run(suite, dedent(source), "--explore-jobs", "2")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["a worker process died: *"])


def test_a_wheel_holds_the_entry_point() -> None:
    """The module is beside the package, as its entry point says."""
    root = Path(__file__).resolve().parents[2]
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))
    (door,) = project["project"]["entry-points"]["pytest11"].values()
    included = project["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"]
    assert f"src/{door}.py" in included
    assert (root / "src" / f"{door}.py").is_file()


@pytest.mark.parametrize(
    ("uses", "backends"),
    [
        ("import asyncio", ["asyncio"]),
        ("from asyncio import Queue, sleep", ["asyncio"]),
        ("import asyncio, anyio", ["asyncio", "trio"]),
        ("import trio", ["trio"]),
        ("import inner", ["asyncio"]),
        ("import json", ["asyncio", "trio"]),
    ],
)
@pytest.mark.parametrize("named", ["seats.book", "book", "Seats"])
def test_the_modules_that_a_test_names_say_which_backend_it_is_for(
    suite: pytest.Pytester, uses: str, backends: list[str], named: str
) -> None:
    suite.makepyfile(
        inner="import asyncio",
        seats=f"""
        {uses}

        async def book():
            pass

        class Seats:
            pass
        """,
    )
    source = f"""
    import pytest, seats
    from seats import Seats, book

    @pytest.mark.explore
    async def test_it():
        assert {named}
    """
    suite.makepyfile(test_it=dedent(source))
    result = suite.runpytest_inprocess("--collect-only", "-q", "-p", "no:cacheprovider")
    collected = [line for line in result.outlines if "::test_it" in line]
    assert collected == [f"test_it.py::test_it[{backend}]" for backend in backends]


def test_the_functions_of_the_same_file_say_which_backend_a_test_is_for(
    suite: pytest.Pytester,
) -> None:
    source = """
    import asyncio, pytest

    async def inner():
        await asyncio.sleep(0)

    async def helper():
        await inner()

    @pytest.mark.explore
    async def test_it():
        await helper()
    """
    suite.makepyfile(test_it=dedent(source))
    result = suite.runpytest_inprocess("--collect-only", "-q", "-p", "no:cacheprovider")
    assert [it for it in result.outlines if "::" in it] == ["test_it.py::test_it[asyncio]"]


@pytest.mark.parametrize(
    ("fixture", "backends"),
    [
        ("()\ndef anyio_backend(): return 'asyncio'", ["asyncio"]),
        ("(scope='session')\ndef anyio_backend(): return 'trio', {}", ["trio"]),
        ("(params=[pytest.param(('asyncio', {}), id='a')])\ndef anyio_backend(): 1", ["asyncio"]),
        ("(params=['asyncio', 'trio'])\ndef anyio_backend(): 1", ["asyncio", "trio"]),
        ("()\ndef anyio_backend(): assert 0", ["asyncio", "trio"]),
        ("()\ndef other(): pass", ["asyncio", "trio"]),
    ],
)
def test_a_fixture_anyio_backend_of_the_project_says_which_backends_its_tests_are_explored_on(
    suite: pytest.Pytester, fixture: str, backends: list[str]
) -> None:
    suite.makeconftest(f"import pytest\n@pytest.fixture{fixture}")
    source = """
    @pytest.mark.explore
    async def test_takes(anyio_backend):
        await checkpoint()

    @pytest.mark.anyio
    @pytest.mark.explore
    async def test_marked():
        await checkpoint()

    @pytest.mark.explore
    async def test_free():
        await checkpoint()

    @pytest.mark.anyio
    @pytest.mark.explore(backends=["trio", "asyncio"])
    async def test_outright():
        await checkpoint()
    """
    result = run(suite, dedent(source), "--collect-only", "-q")
    found = [
        re.split(r"[\[\]-]", it)[:2] for it in result.outlines if it.startswith("test_it.py::")
    ]
    for name, on in (
        ("takes", backends),
        ("marked", backends),
        ("free", ["asyncio", "trio"]),
        ("outright", ["trio", "asyncio"]),
    ):
        assert [it for function, it in found if function == f"test_it.py::test_{name}"] == on


def test_an_error_that_was_never_raised_fails_its_test_alone(suite: pytest.Pytester) -> None:
    source = """
    import asyncio

    async def loses_an_error():
        future = asyncio.get_running_loop().create_future()
        future.set_exception(ZeroDivisionError("nobody asks"))
        del future
        await asyncio.sleep(0)

    @pytest.mark.explore(backend="asyncio")
    async def test_it():
        await loses_an_error()

    @pytest.mark.explore(backend="asyncio")
    @pytest.mark.xfail(raises=ZeroDivisionError)
    async def test_expected():
        await loses_an_error()

    @pytest.mark.explore(backend="asyncio")
    @pytest.mark.xfail(raises=KeyError)
    async def test_not_expected():
        await loses_an_error()

    def test_other():
        pass
    """
    result = run(suite, dedent(source))
    result.assert_outcomes(passed=1, failed=2, xfailed=1)
    result.stdout.fnmatch_lines(["*Future exception was never retrieved: ZeroDivisionError*"])


@pytest.mark.parametrize("where", ["function", "class", "module"])
@pytest.mark.parametrize(
    "names", ["'anyio_backend'", "argnames='anyio_backend'", "'number, anyio_backend'"]
)
def test_a_parameter_anyio_backend_of_a_test_that_does_not_take_it_restricts_it(
    names: str, where: str, suite: pytest.Pytester
) -> None:
    """As anyio's own tests do."""
    values, takes = "['asyncio']", ""
    if "number" in names:
        values, takes = "[(1, 'trio'), (2, 'trio')]", "number"
    restrict = f"pytest.mark.parametrize({names}, argvalues={values})"
    at = dict.fromkeys(("module", "class", "function"), "") | {where: restrict}
    source = f"""
    {f"pytestmark = {restrict}" if where == "module" else ""}

    {f"@{at['class']}" if at["class"] else ""}
    class TestIt:
        {f"@{at['function']}" if at["function"] else ""}
        @pytest.mark.anyio
        @pytest.mark.explore
        async def test_it(self{", " * bool(takes)}{takes}):
            await checkpoint()
            assert backend() == "{"trio" if takes else "asyncio"}"
    """
    run(suite, dedent(source)).assert_outcomes(passed=2 if takes else 1)
    run(suite, dedent(source).replace("    @pytest.mark.explore\n", "")).assert_outcomes(
        passed=2 if takes else 1
    )


def test_a_test_that_its_fixture_anyio_backend_runs_on_another_backend_is_an_error(
    suite: pytest.Pytester,
) -> None:
    source = """
    @pytest.fixture
    def anyio_backend(%s):
        return "asyncio"

    @pytest.mark.explore%s
    async def test_it(anyio_backend):
        assert backend() == anyio_backend
    """
    result = run(suite, dedent(source) % ("request", ""))
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(
        [
            "test_it[[]trio[]] is explored on trio, but its fixture 'anyio_backend' is 'asyncio'. "
            "Write @pytest.mark.explore(backend='asyncio')."
        ]
    )
    result = run(suite, dedent(source) % ("", "(backend='trio')"))
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        [
            "test_it.py::test_it is to be explored on trio, but its fixture 'anyio_backend' is for "
            "another backend. *"
        ]
    )


def test_the_backend_of_anyios_fixture_is_the_explored_one(suite: pytest.Pytester) -> None:
    source = """
    @pytest.fixture(params=["asyncio", ("trio", {}), ("asyncio", {"use_uvloop": False})])
    def anyio_backend(request):
        return request.param

    @pytest.mark.explore
    async def test_it(anyio_backend):
        await checkpoint()
    """
    result = run(suite, dedent(source), "-v")
    names = sorted(line.split()[0] for line in result.outlines if "PASSED" in line)
    assert len(names) == 3
    result.assert_outcomes(passed=3)


def test_a_token_with_a_cancellation_is_passed_over_once_none_is_asked_for(
    suite: pytest.Pytester,
) -> None:
    source = """
    @pytest.mark.explore(backend="asyncio", CANCEL)
    async def test_it():
        await race()
    """
    first = ONLY_IF_CANCELLED + dedent(source)
    for cancel, failed in (("cancel=True", True), ("cancel=False", False), ("cancel=True", True)):
        (suite.path / "test_it.py").write_text(HEAD + first.replace("CANCEL", cancel), "utf-8")
        result = suite.runpytest_inprocess()
        result.assert_outcomes(failed=failed, passed=not failed)
