"""pytest's door to the lab: the mark and the fixture `explore`, two options, a summary.

pytest loads this module at every start, wherever mbufpools is installed, also for people who never
explore anything. So it imports nothing, and stands beside the package, whose own import would be
noticed. What is behind the door is `mbufpools.lab.pytest_plugin`, which says how to use it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from mbufpools.lab.pytest_plugin import Explore

MARK = "explore"


def pytest_addoption(parser: pytest.Parser) -> None:
    """The two options."""
    group = parser.getgroup("explore", "exploration of schedules (mbufpools.lab)")
    group.addoption(
        "--explore-token",
        metavar="TOKEN",
        help="Execute only the schedule of this token, which a failure has printed.",
    )
    group.addoption(
        "--explore-jobs",
        metavar="N",
        type=int,
        default=1,
        help="Explore with so many processes (default: 1, pytest's own).",
    )


def pytest_configure(config: pytest.Config) -> None:
    """The mark, and a check of the options."""
    config.addinivalue_line(
        "markers",
        "explore(strategy=..., max_preemptions=..., backend=..., backends=(...), ...): run the "
        "coroutine test in many schedules, on asyncio and on trio, with the options of "
        "mbufpools.lab.explore",
    )
    if config.getoption("explore_token") is not None or config.getoption("explore_jobs") != 1:
        from mbufpools.lab import pytest_plugin

        pytest_plugin.check_options(config)


@pytest.hookimpl(tryfirst=True)  # of other plugins those that come first can only have set marks
def pytest_pycollect_makeitem(
    collector: pytest.Module | pytest.Class, name: str, obj: object
) -> list[pytest.Function] | None:
    """Make the items of a marked test, before another plugin takes it."""
    if not collector.istestfunction(obj, name):
        return None
    function: Any = getattr(obj, "__func__", obj)  # of a static method
    marks = getattr(function, "pytestmark", None)
    own = [mark for mark in marks if mark.name == MARK] if isinstance(marks, list) else []
    if not own and collector.get_closest_marker(MARK) is None:
        return None
    from mbufpools.lab import pytest_plugin

    return pytest_plugin.make_items(collector, name, function, own)


@pytest.hookimpl(tryfirst=True)  # so that the backend comes first in the name of an item
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One item for each backend."""
    backends = getattr(metafunc.function, "explored_on", None)
    if backends is not None:
        from mbufpools.lab import pytest_plugin

        metafunc.fixturenames.append(pytest_plugin.BACKEND)
        metafunc.parametrize(pytest_plugin.BACKEND, backends, ids=backends)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A marked test that is not explored must not pass for one that is."""
    if any(mark.name == MARK for mark in item.own_markers):
        from mbufpools.lab import pytest_plugin

        if not isinstance(item, pytest_plugin.Explored):
            pytest.fail(
                f"{item.nodeid} is marked to be explored, and cannot be: it is a "
                f"{type(item).__name__}; explored are coroutine functions, also in plain classes",
                pytrace=False,
            )


@pytest.fixture
def explore(request: pytest.FixtureRequest) -> Explore:
    """`mbufpools.lab.explore` with the options of the command line; it asserts by itself."""
    from mbufpools.lab.pytest_plugin import Explore

    return Explore(request.node)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How many schedules were executed for each test, and whether they were all."""
    told = list(_told(terminalreporter))
    verbosity = terminalreporter.config.option.verbose
    if not told or verbosity < 0:
        return
    terminalreporter.section("explored")
    for category, nodeid, complete, text in told:
        if verbosity > 0 or (not complete and category == "passed"):
            terminalreporter.write_line(f"{nodeid}: {text}")
    if verbosity == 0:
        count = sum(complete for _, _, complete, _ in told)
        terminalreporter.write_line(f"{count} of {len(told)} explorations were complete")


def _told(terminalreporter: pytest.TerminalReporter) -> Iterator[tuple[str, str, bool, str]]:
    for category, reports in terminalreporter.stats.items():
        for report in reports:
            if getattr(report, "when", None) == "call":
                for name, text in report.user_properties:
                    if name in ("explored", "explored_in_part"):
                        yield category, report.nodeid, name == "explored", text
