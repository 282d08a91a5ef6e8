"""The entry point of the lab's pytest plugin: the mark and the fixture `explore`, its options, and
a section of the summary.

pytest loads this module at every start, wherever mbufpools is installed, even if no test is
explored. So the module imports nothing but pytest, and it is outside of the package, because an
import of the package would take noticeable time. `mbufpools.lab.pytest_plugin` does the work, and
says how to use it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from mbufpools.lab.pytest_plugin import Explore

MARK = "explore"
COUNTED = {
    "proved": "proved",
    "found again": "found again",
    "found": "found",
    "ran out": "ran out",
    "the schedule of the token does not fail": "not found again",
}
"""How the text of an exploration begins, and how `pytest -q` counts it. The first one counts."""
TIMERS = "other orders of timers"
"""What the text of an exploration has if the order of timers was given by their deadlines."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the command line and of the ini file."""
    group = parser.getgroup("explore", "exploration of schedules (mbufpools.lab)")
    group.addoption(
        "--explore-token",
        metavar="TOKEN",
        help="Execute only the schedule of this token; a failure prints its token.",
    )
    group.addoption(
        "--explore-jobs",
        metavar="N",
        type=int,
        default=1,
        help="The number of processes that explore (default: 1, pytest's own process).",
    )
    group.addoption(
        "--explore-seconds",
        metavar="S",
        type=float,
        help="Begin no execution of a test but the first after so many seconds.",
    )
    group.addoption(
        "--explore-seed",
        metavar="N",
        type=int,
        help="The seed of the schedules that are chosen by chance.",
    )
    group.addoption(
        "--explore-html",
        metavar="DIR",
        help="Write an HTML page for each failure into this directory.",
    )
    parser.addini("explore_backends", "backends of explored tests (default: all)", type="args")
    kinds: tuple[tuple[str, Any, str], ...] = (
        ("cancel", str | bool, "cancel tasks in explored tests: true, scope, native or false"),
        ("html", "string", "as --explore-html, relative to the root directory"),
        ("max_executions", str | int, "executions of an explored test, at most"),
        ("max_preemptions", str | int, "bound of the preemptions in explored tests, or none"),
        ("require_complete", str | bool, "fail explored tests in which schedules are left"),
        ("seconds", str | int | float, "as --explore-seconds"),
        ("seed", str | int, "as --explore-seed"),
        ("strategy", "string", "strategy of explored tests"),
    )
    for name, kind, purpose in kinds:
        try:
            parser.addini(f"explore_{name}", purpose, type=kind, default="")
        except (AssertionError, TypeError, ValueError):  # before pytest 9.2 it has one type
            parser.addini(f"explore_{name}", purpose, type="string", default="")


def pytest_configure(config: pytest.Config) -> None:
    """Register the mark, and check the options."""
    config.addinivalue_line(
        "markers",
        "explore(strategy=..., max_preemptions=..., backend=..., backends=(...), ...): run the "
        "coroutine test in many schedules, on asyncio and on trio, with the options of "
        "mbufpools.lab.explore",
    )
    if _is_set(config):
        from mbufpools.lab import pytest_plugin

        pytest_plugin.check_options(config)


OPTIONS = {
    "explore_html": None,
    "explore_jobs": 1,
    "explore_seconds": None,
    "explore_seed": None,
    "explore_token": None,
}
INI = (
    "backends",
    "cancel",
    "html",
    "max_executions",
    "max_preemptions",
    "require_complete",
    "seconds",
    "seed",
    "strategy",
)


def _is_set(config: pytest.Config) -> bool:
    """Return True if an option has a value that is to be checked.

    Raises:
        UsageError: an option of the ini file has a type that this pytest does not take.
    """
    try:
        in_ini = any(config.getini(f"explore_{name}") not in ("", []) for name in INI)
    except TypeError as error:  # before pytest 9.2
        raise pytest.UsageError(f'{error}; write it as a string, as in "true"') from None
    return in_ini or any(config.getoption(name) != default for name, default in OPTIONS.items())


@pytest.hookimpl(tryfirst=True)  # plugins that come first can only have set marks
def pytest_pycollect_makeitem(
    collector: pytest.Module | pytest.Class, name: str, obj: object
) -> list[pytest.Function] | None:
    """Make the items of a marked test, before another plugin makes them."""
    if not collector.istestfunction(obj, name):
        return None
    function: Any = getattr(obj, "__func__", obj)  # of a static method
    marks = getattr(function, "pytestmark", None)
    own = [mark for mark in marks if mark.name == MARK] if isinstance(marks, list) else []
    if not own and collector.get_closest_marker(MARK) is None:
        return None
    from mbufpools.lab import pytest_plugin

    if pytest_plugin.is_of_another_project(collector.config, function, own):
        return None
    return pytest_plugin.make_items(collector, name, function, own)


@pytest.hookimpl(tryfirst=True)  # so that the backend comes first in the name of an item
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make one item for each backend."""
    backends = getattr(metafunc.function, "explored_on", None)
    if backends is not None:
        from mbufpools.lab import pytest_plugin

        metafunc.fixturenames.append(pytest_plugin.BACKEND)
        metafunc.parametrize(pytest_plugin.BACKEND, backends, ids=backends)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Fail a marked test that is not explored, because its success would prove nothing."""
    is_marked = item.get_closest_marker(MARK) is not None
    if not is_marked and "explore" not in getattr(item, "fixturenames", ()):
        return
    from mbufpools.lab import pytest_plugin

    pytest_plugin.begin(item)
    why = pytest_plugin.why_not_explored(item) if is_marked else None
    if why is not None:
        pytest.fail(why, pytrace=False)


@pytest.hookimpl(wrapper=True, trylast=True)  # inside of the hook that looks at ``xfail``
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let ``xfail(raises=...)`` see what the program has raised; the report is made by then."""
    report = yield
    if call.excinfo is not None and item.get_closest_marker(MARK) is not None:
        from mbufpools.lab import pytest_plugin

        error = pytest_plugin.judged_by_mark(item, call.excinfo.value)
        if error is not call.excinfo.value:
            raised_at = error.__traceback__ or call.excinfo.tb  # a future's may never be raised
            call.excinfo = pytest.ExceptionInfo.from_exc_info((type(error), error, raised_at))
    return report


@pytest.fixture(scope="session")  # so that tests of Hypothesis may take it, too
def explore(request: pytest.FixtureRequest) -> Explore:
    """`mbufpools.lab.explore` with the options of the command line; it fails the test by itself."""
    from mbufpools.lab.pytest_plugin import Explore

    return Explore(request.config)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Write what was proved and what was found; at first the explorations that are not complete, or
    whose proof says less than it seems to; with -v all of them."""
    explored = list(_explored(terminalreporter))
    verbosity = terminalreporter.config.option.verbose
    if not explored:
        return
    if verbosity >= 0:
        terminalreporter.section("explored")
        for category, nodeid, name, text in explored:
            if verbosity > 0 or (name != "explored" and category == "passed"):
                terminalreporter.write_line(f"{nodeid}: {text}")
    if verbosity <= 0:  # one line, in which what was proved and what was not are told apart
        verdicts = Counter(
            next(name for begin, name in COUNTED.items() if text.startswith(begin))
            for *_, text in explored
        )
        one_order = sum(TIMERS in text for *_, text in explored if text.startswith("proved"))
        notes = {"proved": f" ({one_order} with timers in one order only)"} if one_order else {}
        counts = ", ".join(
            f"{verdicts[it]} {it}{notes.get(it, '')}" for it in COUNTED.values() if verdicts[it]
        )
        hint = "; -v says within which bounds, and what was not explored"
        shown = hint if verbosity == 0 and verdicts["proved"] else ""
        terminalreporter.write_line(f"explored: {counts}{shown}")


def _explored(terminalreporter: pytest.TerminalReporter) -> Iterator[tuple[str, str, str, str]]:
    """Yield of each exploration the test's outcome and id, the name of its note, and a text."""
    for category, reports in terminalreporter.stats.items():
        for report in reports:
            subtest = hasattr(report, "context")  # its report has what the test has said so far
            if getattr(report, "when", None) == "call" and not subtest:
                for name, text in report.user_properties:
                    if name in ("explored", "explored_with_remarks", "explored_in_part"):
                        yield category, report.nodeid, name, text
