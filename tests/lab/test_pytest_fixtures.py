"""What is around an explored test, such as its fixtures, is the same in every execution."""

from __future__ import annotations

import pytest

from tests.kit.suites import INI, dedent, run


@pytest.fixture
def suite(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makeini(INI)
    return pytester


# --- setup_method and the like


def test_setups_of_methods_and_functions_run_anew_for_each_schedule(
    suite: pytest.Pytester,
) -> None:
    source = """
    calls, kept, runs = [], [], []

    def setup_function(function):
        calls.append(function.__name__)
        kept.clear()

    def teardown_function():
        calls.append("end")

    @pytest.mark.explore(backend="asyncio")
    async def test_function():
        runs.append(1)
        kept.append(1)
        await two(checkpoint)
        assert kept == [1]

    @pytest.mark.explore(backend="trio")
    class TestMethod:
        def setup_method(self, method):
            calls.append(method.__name__)
            self.cache = {}

        def teardown_method(self):
            assert self.cache == {1: 2}
            calls.append("end")

        async def test_method(self):
            runs.append(1)
            await two(checkpoint)
            assert self.cache == {}
            self.cache[1] = 2

    def test_after():
        assert calls[:2] == ["test_function", "end"] and calls[-1] == "test_after"
        assert calls.count("end") == len(runs) > 2
        assert "test_method" in calls
    """
    result = run(suite, dedent(source))
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(["explored: 2 proved; *"])


def test_a_fixture_that_a_test_asks_for_while_it_runs_is_made_anew_for_each_schedule(
    suite: pytest.Pytester,
) -> None:
    source = """
    made, ended, runs = [], [], []

    @pytest.fixture
    def box():
        made.append(1)
        yield []
        ended.append(1)

    @pytest.mark.explore(backend="asyncio")
    async def test_it(request):
        runs.append(1)
        request.addfinalizer(lambda: ended.append(2))
        box = request.getfixturevalue("box")
        assert not box
        box.append(1)
        await two(checkpoint)

    def test_after():
        assert len(made) == ended.count(1) == ended.count(2) == len(runs) > 2
    """
    run(suite, dedent(source)).assert_outcomes(passed=2)


@pytest.mark.parametrize(
    ("fails", "told"),
    [
        (
            "raise AssertionError('at its end')",
            "AssertionError: at its end",
        ),
        ("pytest.fail('at its end')", "Failed: at its end"),
    ],
)
def test_the_end_of_a_fixture_that_a_test_asks_for_is_checked_in_each_schedule(
    suite: pytest.Pytester, fails: str, told: str
) -> None:
    source = f"""
    @pytest.fixture
    def order():
        found = []
        yield found
        if found == [2, 1]:
            {fails}

    @pytest.mark.explore(backend="asyncio")
    async def test_it(request):
        order = request.getfixturevalue("order")
        async def work(number):
            await checkpoint()
            order.append(number)
        await asyncio.gather(work(1), work(2))
    """
    result = run(suite, dedent(source))
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([f"*{told}"])
    line = next(it for it in result.outlines if "raised after the execution with the token" in it)
    token = line.rpartition(" ")[2].strip("'")
    again = run(suite, dedent(source), "--explore-token", token)
    again.assert_outcomes(passed=1, errors=1)
    again.stdout.fnmatch_lines([f"*{told}"])


@pytest.mark.parametrize(
    "ends", ["pytest.skip('busy')", "pytest.xfail('busy')", "raise_(unittest.SkipTest('busy'))"]
)
@pytest.mark.parametrize("where", ["setup", "end", "method"])
def test_a_fixture_that_skips_between_two_schedules_skips_no_test_that_has_run(
    suite: pytest.Pytester, where: str, ends: str
) -> None:
    source = f"""
    import unittest
    calls = []

    def raise_(error):
        raise error

    def count(where):
        calls.append(where)
        if where == {where!r} and calls.count(where) == (1 if where == "end" else 2):
            {ends}

    @pytest.fixture
    def service():
        count("setup")
        yield
        count("end")

    class TestIt:
        def setup_method(self):
            count("method")

        @pytest.mark.explore(backend="asyncio")
        async def test_it(self, service):
            await two(checkpoint)
    """
    result = run(suite, dedent(source))
    result.assert_outcomes(failed=1)
    name = "xfail" if "xfail" in ends else "skip"
    result.stdout.fnmatch_lines([f"*a fixture called pytest.{name}('busy') between two schedules*"])


def test_the_module_of_the_test_itself_may_be_executed_again(suite: pytest.Pytester) -> None:
    source = """
    counted = [0]

    @pytest.mark.explore(fresh=[__name__])
    async def test_it():
        counted[0] += 1
        assert counted[0] == 1
        await two(checkpoint)
    """
    run(suite, dedent(source)).assert_outcomes(passed=2)


def test_a_setup_of_a_class_or_a_module_that_keeps_state_is_named(suite: pytest.Pytester) -> None:
    source = """
    def setup_module():
        pass

    @pytest.mark.explore(backend="asyncio")
    class TestIt:
        def setup_class(cls):
            cls.cache = []

        async def test_it(self):
            self.cache.append(1)
            await asyncio.sleep(0)
            assert self.cache == [1]
    """
    result = run(suite, dedent(source))
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "*The test also has fixtures of a wider scope than function, made once for all *: "
            "setup_module (scope module), setup_class (scope class). One of scope function *"
        ]
    )


# --- what workers do not have


def test_a_test_with_a_setup_or_fixture_of_any_scope_is_explored_in_the_own_process_of_pytest(
    suite: pytest.Pytester,
) -> None:
    suite.makeconftest(
        """
        import pytest

        STATE = set()

        @pytest.fixture(scope="session", autouse=True)
        def in_session():
            STATE.add("session")
        """
    )
    source = """
    import multiprocessing

    from conftest import STATE
    from hypothesis import given, settings, strategies as st

    E = pytest.mark.explore(backend="asyncio")

    def setup_module():
        STATE.add("module")

    @pytest.fixture
    def changed(monkeypatch):
        monkeypatch.setattr(pytest, "here", True, raising=False)

    async def program(*states):
        assert multiprocessing.parent_process() is None
        assert STATE >= {"session", "module", *states}
        await two(checkpoint)

    @E
    async def test_function():
        await program()

    @E
    class TestIn:
        def setup_class(cls):
            cls.users = STATE.add("class") or [1]

        @pytest.mark.parametrize("more", [2, 3])
        async def test_class(self, more):
            await program("class")
            assert self.users == [1]

    @E
    @settings(max_examples=2)
    @given(number=st.just(1))
    async def test_given(number):
        await program()

    def test_fixture(explore, changed):
        explore(program)
    """
    result = run(suite, dedent(source), "--explore-jobs", "2", "-v")
    result.assert_outcomes(passed=5)
    note = "in one process, because others do not have what fixtures set up"
    assert len([line for line in result.outlines if note in line]) == 4


@pytest.mark.parametrize("setup", ["def setup_module(module):\n    module.STATE = 1", "pass"])
def test_the_setup_of_a_package_keeps_its_tests_in_the_own_process_of_pytest(
    suite: pytest.Pytester, setup: str
) -> None:
    test = """
    import multiprocessing
    import pytest
    import package

    @pytest.mark.explore(backend="asyncio")
    async def test_it():
        assert hasattr(package, "setup_module") is hasattr(package, "STATE")
        assert hasattr(package, "STATE") is (multiprocessing.parent_process() is None)
    """
    suite.mkpydir("package")
    (suite.path / "package" / "__init__.py").write_text(setup, "utf-8")
    (suite.path / "package" / "test_it.py").write_text(dedent(test), "utf-8")
    result = suite.runpytest_inprocess("-p", "no:cacheprovider", "--explore-jobs", "2")
    result.assert_outcomes(passed=1)


# --- fixtures of a name that pytest has, too


@pytest.mark.parametrize("scope", ["module", "function"])
def test_a_directory_that_is_the_projects_is_not_removed(
    suite: pytest.Pytester, scope: str
) -> None:
    source = f"""
    import pathlib
    HERE = pathlib.Path(__file__).parent / "data"
    removed = []

    @pytest.fixture(scope="{scope}")
    def tmp_path():
        HERE.mkdir(exist_ok=True)
        yield HERE

    @pytest.fixture(scope="{scope}")
    def caplog():
        return []

    @pytest.mark.explore(backend="asyncio")
    async def test_it(tmp_path, caplog, monkeypatch):
        await two(checkpoint)
        (tmp_path / "kept").touch()

    def test_after():
        assert (HERE / "kept").exists()
    """
    run(suite, dedent(source)).assert_outcomes(passed=2)


def test_the_directory_of_pytest_is_removed_also_if_a_fixture_of_its_name_is_around_it(
    suite: pytest.Pytester,
) -> None:
    source = """
    @pytest.fixture
    def tmp_path(tmp_path):
        yield tmp_path / "inner"

    @pytest.mark.explore(backend="asyncio")
    async def test_it(tmp_path):
        tmp_path.mkdir()
        await two(checkpoint)

    def test_after(tmp_path_factory):
        folders = list(tmp_path_factory.getbasetemp().glob("test_it*"))
        assert len([it for it in folders if not it.is_symlink()]) == 1
    """
    run(suite, dedent(source)).assert_outcomes(passed=2)


# --- the log


LOGS = """
log = logging.getLogger("of.the.program")

class Kept(logging.Handler):
    def emit(self, record):
        self.got.append(record.getMessage())

async def order():
    handler = Kept()
    handler.got = []
    log.addHandler(handler)

    async def tell(number):
        await asyncio.sleep(0)
        log.error("%d", number)

    try:
        await asyncio.gather(tell(1), tell(2))
    finally:
        log.removeHandler(handler)
    return handler.got
"""


def test_loggers_and_handlers_of_a_program_work_in_each_execution(
    suite: pytest.Pytester,
) -> None:
    source = """
    E = pytest.mark.explore(backend="asyncio")

    async def holds():
        assert sorted(await order()) == ["1", "2"]
        assert log.isEnabledFor(logging.ERROR) and not log.isEnabledFor(logging.INFO)
        assert logging.root.handlers

    async def fails():
        assert await order() != ["2", "1"]

    @E
    async def test_holds():
        await holds()

    @E
    async def test_fails():
        await fails()

    @E
    async def test_caplog(caplog):
        await holds()
        assert sorted(caplog.messages) == ["1", "2"]

    @E
    async def test_caplog_fails(caplog):
        await fails()

    @E
    async def test_asks(request):
        caplog = request.getfixturevalue("caplog")
        await holds()
        assert sorted(caplog.messages) == ["1", "2"]

    def test_fixture(explore):
        explore(holds, backend="asyncio")

    def test_fixture_fails(explore):
        explore(fails, backend="asyncio")

    @E
    async def test_wrong_record():
        log.error("%d", "no number")
    """
    result = run(suite, LOGS + dedent(source), "-v")
    result.assert_outcomes(passed=4, failed=4)
    for name in ("fails", "caplog_fails", "fixture_fails", "wrong_record"):
        result.stdout.fnmatch_lines_random([f"FAILED test_it.py::test_{name}*"])


@pytest.mark.parametrize("asks", ["", "caplog"])
@pytest.mark.parametrize("option", ["log_cli=true", "log_file=log.txt", "log_level=INFO"])
def test_pytest_keeps_and_prints_the_log_of_the_failing_schedule_alone(
    suite: pytest.Pytester, asks: str, option: str
) -> None:
    source = f"""
    @pytest.mark.explore(backend="asyncio")
    async def test_it({asks}):
        log.error("a record")
        assert await order() != ["2", "1"]

    def test_after():
        log.error("afterwards")
    """
    result = run(suite, LOGS + dedent(source), "-o", option, "-rP")
    result.assert_outcomes(passed=1, failed=1)
    file = suite.path / "log.txt"
    lines = file.read_text().splitlines() if file.exists() else result.outlines
    assert sum("a record" in it for it in lines) == (2 if option == "log_cli=true" else 1)
    assert sum("afterwards" in it for it in lines) == (2 if option == "log_cli=true" else 1)


# --- warnings


WARNS = """
import warnings

async def warn(times=2):
    for _ in range(times):
        await asyncio.sleep(0)
        warnings.warn("old", UserWarning, stacklevel=1)

def texts(recorder):
    return [str(it.message) for it in recorder]

@pytest.fixture
def recorded():
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        yield seen

async def twice(program):
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(program)
        tasks.start_soon(checkpoint)
"""


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_what_records_warnings_records_in_each_execution_as_without_the_lab(
    suite: pytest.Pytester, backend: str
) -> None:
    source = f"""
    pytestmark = pytest.mark.explore(backend={backend!r})

    async def warns():
        await checkpoint()
        warnings.warn("old", UserWarning, stacklevel=1)

    async def test_recwarn(recwarn):
        await twice(warns)
        assert texts(recwarn) == ["old"]
        assert recwarn.pop(UserWarning)

    async def test_fixture(recorded):
        await warns()
        await twice(warns)
        assert texts(recorded) == ["old", "old"]

    async def test_in_the_test():
        with pytest.warns(UserWarning, match="old"):
            await twice(warns)
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            await twice(warns)
        assert texts(seen) == ["old"]

    @pytest.mark.filterwarnings("ignore:old")
    async def test_ignored(recorded):
        await twice(checkpoint)
        assert not recorded

    @pytest.mark.filterwarnings("error:old")
    async def test_error():
        with pytest.raises(UserWarning, match="old"):
            await warns()
        await two(checkpoint)

    @pytest.mark.filterwarnings("ignore:old")
    async def test_ignored_by_its_mark():
        await twice(warns)
    """
    result = run(suite, WARNS + dedent(source), "-W", "error::DeprecationWarning")
    result.assert_outcomes(passed=6)
    result.stdout.fnmatch_lines(["explored: 6 proved; *"])


def test_what_warns_when_the_lab_looks_at_it_is_no_warning_of_the_program(
    suite: pytest.Pytester,
) -> None:
    source = """
    class Old:
        def __getattr__(self, name):
            warnings.warn(f"{name} is deprecated", DeprecationWarning, stacklevel=2)
            raise AttributeError(name)

    class Slots:
        __slots__ = ("kept",)

    old, slots = Old(), Slots()

    @pytest.mark.explore(backend="asyncio")
    async def test_it(recwarn):
        await twice(checkpoint)
        assert texts(recwarn) == []

    @pytest.mark.explore(backend="asyncio")
    async def test_fixture(recorded):
        await twice(checkpoint)
        assert texts(recorded) == []
    """
    result = run(suite, WARNS + dedent(source), "-W", "always::DeprecationWarning")
    result.assert_outcomes(passed=2)


def test_pytest_lists_the_warnings_of_a_test_once_and_not_once_for_each_execution(
    suite: pytest.Pytester,
) -> None:
    source = """
    @pytest.mark.explore(backend="asyncio")
    async def test_it():
        await twice(checkpoint)
        warnings.warn("old", UserWarning, stacklevel=1)

    @pytest.mark.explore(backend="asyncio")
    async def test_in_some_schedules():
        order = []
        async def note(number):
            order.append(number)
        await asyncio.gather(note(1), note(2))
        if order == [2, 1]:
            warnings.warn("rare", UserWarning, stacklevel=1)
    """
    result = run(suite, WARNS + dedent(source), "-W", "always::UserWarning")
    result.assert_outcomes(passed=2, warnings=2)
    result.stdout.fnmatch_lines(["*UserWarning: old", "*UserWarning: rare"])


def test_a_leak_is_heard_though_a_fixture_records_it_but_not_if_the_test_itself_does(
    suite: pytest.Pytester,
) -> None:
    source = """
    class Resource:
        def __del__(self):
            warnings.warn("unclosed", ResourceWarning, source=self)

    @pytest.fixture
    def ignored():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield

    async def drop():
        it = Resource()
        await asyncio.sleep(0)

    def cycle():
        it = Resource()
        it.it = it

    M = pytest.mark.explore(backend="asyncio")

    @M
    async def test_recwarn(recwarn):
        await drop()
        assert texts(recwarn) == ["unclosed"]

    @M
    async def test_cycle(recorded):
        await asyncio.sleep(0)
        cycle()

    @M
    async def test_ignored(ignored):
        await drop()

    @M
    async def test_never_awaited(recwarn):
        drop()
        assert "was never awaited" in str(recwarn.pop(RuntimeWarning).message)

    @pytest.mark.explore(backend="asyncio", ignore=["leak"])
    async def test_passed_over(recwarn):
        await drop()
        assert texts(recwarn) == ["unclosed"]

    @M
    async def test_of_the_test():
        with pytest.warns(ResourceWarning, match="unclosed"):
            await drop()
    """
    result = run(suite, WARNS + dedent(source))
    result.assert_outcomes(passed=2, failed=4)
    result.stdout.fnmatch_lines_random(
        [
            "FAILED *::test_recwarn[[]asyncio[]] - leak: unclosed",
            "FAILED *::test_cycle[[]asyncio[]] - leak: unclosed",
            "FAILED *::test_ignored[[]asyncio[]] - leak: unclosed",
            "FAILED *::test_never_awaited[[]asyncio[]] - leak: *",
        ]
    )


def test_after_an_exploration_warnings_are_as_before(suite: pytest.Pytester) -> None:
    source = """
    def state():
        return (warnings.filters[:], warnings.showwarning, warnings._showwarnmsg,
                getattr(warnings._showwarnmsg_impl, "__self__", warnings._showwarnmsg_impl) is None)

    STATES = []

    @pytest.fixture
    def around():
        STATES.append(state())
        yield
        STATES.append(state())

    @pytest.mark.explore(backend="asyncio")
    async def test_it(around, recwarn):
        await warn()

    def test_after():
        assert STATES[0] == STATES[-1] == state()
        assert "lab" not in repr(state())
    """
    result = run(suite, WARNS + dedent(source))
    result.assert_outcomes(passed=2)


# --- what a test patches


PATCHES = """
import concurrent.futures, datetime, random, threading, time, uuid
from unittest.mock import AsyncMock, Mock, patch

M = pytest.mark.explore(backend="asyncio")
REAL = threading.Thread.start, concurrent.futures.ThreadPoolExecutor.submit, uuid.getnode, time.time

def real_ones():
    return (
        threading.Thread.start, concurrent.futures.ThreadPoolExecutor.submit, uuid.getnode,
        time.time,
    )
"""


def test_what_a_fixture_patches_holds_in_each_execution(suite: pytest.Pytester) -> None:
    source = """
    @pytest.fixture(autouse=True)
    def patched(monkeypatch):
        monkeypatch.setattr(time, "time", lambda: 123.0)
        monkeypatch.setattr(time, "sleep", Mock())
        monkeypatch.setattr(random, "random", lambda: 0.5)
        monkeypatch.setattr(uuid, "uuid4", lambda: "id")
        monkeypatch.setattr(uuid, "getnode", lambda: 7)
        monkeypatch.setattr(time, "perf_counter", Mock(return_value=None))

    @M
    async def test_it():
        await two(checkpoint)
        time.sleep(1)
        time.sleep.assert_called_once_with(1)
        assert (time.time(), random.random(), uuid.uuid4(), uuid.getnode()) == (123, 0.5, "id", 7)
        assert time.perf_counter() is None
        time.perf_counter.assert_called_once_with()  # not by the lab
        begin = time.monotonic()  # which is not patched
        await asyncio.sleep(5)
        assert 5 <= time.monotonic() - begin < 5.01

    class TestAfter:
        @pytest.fixture(autouse=True)
        def patched(self):
            pass

        def test_after(self):
            assert real_ones() == REAL
            assert time.time() > 1_700_000_000
    """
    result = run(suite, PATCHES + dedent(source))
    result.assert_outcomes(passed=2)


def test_a_fixture_that_counts_threads_does_not_take_them_from_the_lab(
    suite: pytest.Pytester,
) -> None:
    source = """
    @pytest.fixture
    def started(monkeypatch):
        seen, start = [], threading.Thread.start
        def count(thread):
            seen.append(thread)
            return start(thread)
        monkeypatch.setattr(threading.Thread, "start", count)
        return seen

    @M
    async def test_it(started):
        box = []
        threads = [threading.Thread(target=box.append, args=(it,)) for it in (1, 2)]
        for it in threads:
            it.start()
        for it in threads:
            it.join()
        assert len(started) == 2
        assert box == [1, 2]  # in one of the two orders alone

    def test_after():
        assert real_ones() == REAL
    """
    result = run(suite, PATCHES + dedent(source))
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["exception: AssertionError: assert [[]2, 1[]] == [[]1, 2[]]"])


def test_what_is_patched_around_an_exploration_holds_in_it(suite: pytest.Pytester) -> None:
    source = """
    @pytest.fixture(scope="module")
    def wide():
        with patch("time.time", return_value=123.0):
            yield

    @M
    async def test_mark(wide):
        await two(checkpoint)
        assert time.time() == 123

    def test_fixture(explore):
        async def program():
            await two(checkpoint)
            assert time.time() == 5
            assert time.perf_counter() < 2**21  # virtual
        with patch("time.time", lambda: 5.0):
            assert explore(program).complete
            assert time.time() == 5.0
    """
    result = run(suite, PATCHES + dedent(source))
    result.assert_outcomes(passed=2)


def test_a_decorator_of_mock_passes_its_mocks(suite: pytest.Pytester) -> None:
    source = """
    @M
    @patch("time.time", return_value=123.0)
    @patch.object(random, "random", return_value=0.5)
    async def test_two(chance, clock):
        await two(checkpoint)
        assert (time.time(), random.random()) == (123, 0.5)
        clock.assert_called_once_with()
        chance.assert_called_once_with()

    @M
    @patch("time.sleep")
    async def test_with_a_fixture(sleep, tmp_path):
        await two(checkpoint)
        time.sleep(3)
        sleep.assert_called_once_with(3)
        assert tmp_path.exists()

    @M
    @patch("time.time", new=lambda: 9.0)
    @pytest.mark.parametrize("it", [1, 2])
    async def test_with_a_parameter(it):
        await two(checkpoint)
        assert time.time() == 9

    @M
    @patch("asyncio.sleep", new_callable=AsyncMock)
    async def test_async_mock(sleep):
        await asyncio.sleep(9)
        sleep.assert_awaited_once_with(9)

    @patch.multiple("time", time=unittest.mock.DEFAULT, sleep=unittest.mock.DEFAULT)
    async def several(time, sleep):  # pytest itself takes these names for fixtures
        await two(checkpoint)
        assert not time.called and not sleep.called

    def test_several(explore):
        assert explore(several).complete

    @patch("time.time", return_value=1.0)
    class TestAll:
        @M
        async def test_method(self, clock):
            await two(checkpoint)
            assert time.time() == 1
            clock.assert_called_once_with()

    @patch("time.time", return_value=1.0)
    async def program(clock):
        await two(checkpoint)
        assert time.time() == 1

    def test_fixture(explore):
        assert explore(program).complete
    """
    result = run(suite, PATCHES + dedent(source))
    result.assert_outcomes(passed=8)


# --- subtests

SUBTEST = """
async def order_of_two():
    order = []
    async def each(name):
        await checkpoint()
        order.append(name)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(each, 1)
        tasks.start_soon(each, 2)
    return order
"""


@pytest.mark.parametrize("by", ["argument", "request", "fixture"])
def test_a_subtest_that_fails_is_the_failure_of_its_schedule(
    suite: pytest.Pytester, by: str
) -> None:
    source = """
    async def program(subtests):
        with subtests.test("first"):
            pass
        order = await order_of_two()
        with subtests.test("order", last=order[-1]):
            assert order == [1, 2]
    """
    source += {
        "argument": """
    @pytest.mark.explore(backend="asyncio")
    async def test_it(subtests):
        await program(subtests)
    """,
        "request": """
    @pytest.mark.explore(backend="asyncio")
    async def test_it(request):
        await program(request.getfixturevalue("subtests"))
    """,
        "fixture": """
    def test_it(explore, subtests):
        explore(functools.partial(program, subtests), backend="asyncio")
    """,
    }[by]
    result = run(suite, SUBTEST + dedent(source), "-v")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "*exception: AssertionError: *",
            "*in a subtest [[]order[]] (last=1)",
            "*found: 1 failure*",
        ]
    )
    result.stdout.no_fnmatch_line("*SUBFAILED*")
    (command,) = (line for line in result.outlines if "--explore-token" in line)
    token = command.partition("--explore-token ")[2].strip("'")
    result = run(suite, SUBTEST + dedent(source), "--explore-token", token)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*in a subtest [[]order[]] (last=1)"])


def test_a_subtest_may_be_skipped_or_expected_to_fail(suite: pytest.Pytester) -> None:
    source = """
    ended = []

    @pytest.mark.explore(backend="asyncio")
    async def test_it(subtests):
        with subtests.test(number=1):
            pytest.skip("not today")
        with subtests.test(number=2):
            pytest.xfail("it is known")
        with subtests.test():
            await two(checkpoint)
        ended.append(1)

    def test_after():
        assert len(ended) > 2
    """
    result = run(suite, dedent(source), "-v")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["test_it.py::test_it*: proved: *"])


def test_subtests_of_a_plain_test_may_explore_each_a_program(suite: pytest.Pytester) -> None:
    source = """
    def test_it(explore, subtests):
        async def program(number):
            assert await order_of_two() != [2, 1] or number < 2
        for number in range(3):
            with subtests.test(number=number):
                explore(functools.partial(program, number), backend="asyncio")
        with subtests.test("after"):
            assert False
    """
    result = run(suite, SUBTEST + dedent(source))
    result.stdout.fnmatch_lines(["*--explore-token '3/asyncio*", "explored: 2 proved, 1 found*"])
    result.stdout.fnmatch_lines(["SUBFAILED(number=2) *", "SUBFAILED[[]after[]] *"])
