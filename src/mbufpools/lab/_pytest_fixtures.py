"""The fixtures of an explored test: those of function scope are made anew for each schedule."""

from __future__ import annotations

import inspect
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from ._frames import is_installed
from ._outcome import LabError
from ._pytest_log import forget_log
from ._pytest_outcomes import ends_the_test
from ._running import at_begin

__all__ = ["Fixtures"]

EXPLORE = "_mbufpools_pytest"
"""The module of the lab's own fixture, which holds no state of the program."""
STATELESS = frozenset(
    {
        (EXPLORE, "explore"),
        ("anyio.pytest_plugin", "anyio_backend"),
        ("pytest_asyncio.plugin", "event_loop_policy"),
    }
)
"""Fixtures that change nothing that a program could see, each with its module. The last one is
`autouse`."""
TMP_PATH = "_pytest.tmpdir"
"""The module of pytest's own fixture `tmp_path`."""
PACKAGE_SETUPS = ("setUpModule", "setup_module")
"""What pytest calls in the `__init__.py` of a package, without a fixture."""
XUNIT = re.compile("_xunit_(?P<setup>setup_[a-z]+)_fixture_")
"""How pytest names the fixtures that it makes of `setup_class`, `setup_module` and the like."""


class Fixtures:
    """The fixtures of one test.

    pytest sets them up for the first execution. Before each other one, those of function scope are
    torn down and set up again, also those that are not arguments of the test, and those that pytest
    makes of `setup_method` and `setup_function`.

    Args:
        item: the test.
    """

    def __init__(self, item: pytest.Function) -> None:
        self._item: Any = item
        self._used = False

    def refuse(self, backend: str) -> None:
        """Fail the test if an argument is a coroutine, which belongs to another event loop; or if a
        fixture of function scope is one, and trio runs when it is to be made anew."""
        for name in self._item.fixturenames:
            fixture = self._definition(name)
            if fixture is None or not _is_coroutine(fixture.func):
                continue
            if name in self._item._fixtureinfo.argnames:
                pytest.fail(
                    f"{self._item.name} is explored, and takes the fixture {name!r}, which is a "
                    f"coroutine and belongs to another event loop. Make it in the test, or explore "
                    f"a program of your own with the fixture `explore`.",
                    pytrace=False,
                )
            if backend == "trio" and fixture.scope == "function":
                pytest.fail(
                    f"{self._item.name} is explored on trio, and has the fixture {name!r}, which "
                    f"is a coroutine. Its own event loop cannot make it anew for each execution "
                    f"while trio runs. Make it in the test, give it a wider scope, or explore the "
                    f"test with backend='asyncio'.",
                    pytrace=False,
                )

    def _definition(self, name: str) -> Any:
        definitions = self._item._fixtureinfo.name2fixturedefs.get(name)
        if not definitions:
            return None
        # pytest makes a fixture of each parameter; and of setup_method and the like, which counts.
        callspec = getattr(self._item, "callspec", None)
        is_parameter = callspec is not None and name in callspec.params
        if is_parameter and definitions[-1].func.__module__ == "_pytest.python":
            return None
        return definitions[-1]

    def set_up_wider(self) -> None:
        """Set up the fixtures of a wider scope than function. They come first in any case."""
        for name in self._item.fixturenames:
            fixture = self._definition(name)
            if fixture is not None and fixture.scope != "function":
                self._item._request.getfixturevalue(name)

    @property
    def are_renewed(self) -> bool:
        """True if the test has a fixture of function scope, or may ask for one while it runs."""
        if "request" in self._item._fixtureinfo.argnames:
            return True
        fixtures = map(self._definition, self._item.fixturenames)
        return any(it is not None and it.scope == "function" for it in fixtures)

    def shared(self) -> list[str]:
        """Return the names of the project's fixtures that are the same in all executions, because
        they have a wider scope than function, each with its scope."""
        found = []
        for name in self._item.fixturenames:
            fixture = self._definition(name)
            if fixture is None or fixture.scope == "function":
                continue
            xunit = XUNIT.match(name)
            code = getattr(inspect.unwrap(fixture.func), "__code__", None)
            if xunit is not None:
                found.append(f"{xunit['setup']} (scope {fixture.scope})")
            elif fixture.func.__module__ != EXPLORE and code and not is_installed(code.co_filename):
                found.append(f"{name!r} (scope {fixture.scope})")
        return found

    @property
    def set_up_this_process(self) -> bool:
        """True if something is set up for the test that another process would not have."""
        if "request" in self._item._fixtureinfo.argnames:
            return True
        fixtures = map(self._definition, self._item.fixturenames)
        return any(
            it is not None and (it.func.__module__, it.argname) not in STATELESS for it in fixtures
        ) or any(map(_has_setup, self._item.listchain()))

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of the test function, for the execution that begins."""
        self._used = True
        return {name: self._item.funcargs[name] for name in self._item._fixtureinfo.argnames}

    def renewal(self, reset: Callable[[], Any] | None) -> Callable[[], Any] | None:
        """Return what to call before each execution; `reset` is called after the fixtures are
        there."""
        if not self.are_renewed:
            return reset

        def renew() -> None:
            self._renew()
            if reset is not None:
                with at_begin():
                    reset()

        renew.only_fixtures = reset is None  # type: ignore[attr-defined]  # which `Options` asks
        return renew

    def _renew(self) -> None:
        """Tear down and set up the fixtures, if an execution has used them."""
        if not self._used:
            return
        self._used = False
        item = self._item
        made = self._made_by_tmp_path()
        finalizers = item.session._setupstate.stack[item][0]
        kept = dict(item.stash._storage)
        with _ends_no_test():
            while len(finalizers) > 1:  # the first one tears down the item itself
                finalizers.pop()()
        for key, value in kept.items():  # which tmp_path, for one, deletes at the end of a test
            item.stash._storage.setdefault(key, value)
        for path in made:
            # Or there would be as many folders as executions, through which pytest searches.
            shutil.rmtree(path, ignore_errors=True)
        item._initrequest()
        with _ends_no_test():
            item._request._fillfixtures()
        forget_log(item.config)

    def _made_by_tmp_path(self) -> list[Any]:
        """Return the directory that pytest's own `tmp_path` has made, if it has made one. That of a
        fixture of the project with this name is the project's."""
        definitions = self._item._fixtureinfo.name2fixturedefs.get("tmp_path", ())
        return [
            it.cached_result[0]
            for it in definitions
            if it.func.__module__ == TMP_PATH and it.cached_result is not None
        ]


@contextmanager
def _ends_no_test() -> Iterator[None]:
    """Refuse a skip, or an expected failure, between two schedules: the test has run by then."""
    try:
        yield
    except BaseException as error:
        name = ends_the_test(error)
        if not name:
            raise
        raise LabError(  # noqa: ASYNC104 - no cancellation ends the test
            f"a fixture called pytest.{name}({str(error)!r}) between two schedules, when the test "
            f"has run in others; call it in the test, before its tasks begin, or in a fixture of a "
            f"wider scope"
        ) from error


def _has_setup(node: pytest.Item | pytest.Collector) -> bool:
    """Return True for a package that pytest sets up."""
    if not isinstance(node, pytest.Package):
        return False
    file = str(node.path / "__init__.py")
    modules = [it for it in list(sys.modules.values()) if getattr(it, "__file__", None) == file]
    return any(hasattr(module, name) for module in modules for name in PACKAGE_SETUPS)


def _is_coroutine(function: Any) -> bool:
    function = inspect.unwrap(function)
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)
