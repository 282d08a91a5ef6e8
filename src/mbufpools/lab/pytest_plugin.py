"""Exploration in pytest: ``@pytest.mark.explore``, and the fixture ``explore``.

::

    @pytest.mark.explore
    async def test_the_waiter_is_woken():
        ...

runs the test in every schedule of at most two preemptions, on asyncio and, where it is installed,
on trio: two items, ``[asyncio]`` and ``[trio]``. The mark takes the options of `lab.explore`
(``strategy``, ``max_preemptions``, ``max_executions``, ``cancel``, ...) and ``backend`` or
``backends``; one on a class or a module gives the options of what is in it. No plugin for async
tests takes part, whatever its mode, and whatever marks it has set.

A failure shows the report of the lab, and the command that executes its schedule again::

    pytest 'test_it.py::test_the_waiter_is_woken[asyncio]' --explore-token 'asyncio:0.1@2>0.2'

With this command, an exception of the program has its own traceback, and debuggers work. Output and
log of the test are shown only for the failing schedule. An exploration that stops at
``max_executions`` passes; the section *explored* at the end says so.

**Fixtures.** The test function is called once for each schedule. Fixtures of function scope, such
as ``tmp_path`` and ``monkeypatch``, are torn down and made anew before each, and so is what
``setup_method`` and ``setup_function`` set up. Those of a wider scope, which tests share anyway,
parameters, and the instance of a test class are the same for all.
Coroutine fixtures are refused as arguments, because they belong to another event loop. Those that
are no arguments (`autouse`) are made anew, too, but not on trio.

**Failures come first.** The schedules that failed are kept in pytest's cache. The next time they
are executed first, and the others only if none of them fails.

**Backends.** A test runs on both, but on asyncio alone if it is marked ``asyncio``, or if it uses
asyncio and neither anyio nor trio; likewise for trio. ``backends=`` and the ini option
``explore_backends`` say otherwise.

**Hypothesis.** Under ``@given`` each example is explored.

**Your own programs.** ``explore(program, **options)``, in a plain test that takes the fixture,
explores any ``async def`` without arguments, with the same command line. It asserts that the
program holds, and returns the `lab.Exploration`. Its type is `Explore`.

``--explore-jobs N`` shares the schedules out to N processes. They import the test's module without
conftest, and its parameters must be picklable. A test with fixtures, or with setups of its module,
class or package, a program of the fixture that no process can import, and ``dpor``, are explored in
pytest's own process.

The entry point, ``_mbufpools_pytest``, loads this module when it is first needed.
"""

from __future__ import annotations

import inspect
import os
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial, wraps
from types import TracebackType
from typing import Any, NoReturn, TypeVar, get_args

import pytest
from _pytest._code.code import ReprFileLocation, TerminalRepr
from _pytest._io import TerminalWriter
from _pytest.unittest import TestCaseFunction

from ._execute import controlled
from ._explore import explore, replay, replay_as_explored
from ._fresh import executed_before, module_names
from ._hypothesis import in_example
from ._options import Program, Verdict
from ._outcome import ADDRESS, LabError, NotRepeated, describe, leaves, only
from ._pages import with_pages
from ._parallel import kill_workers, workers
from ._pickled import pack, pack_reset
from ._pytest_cache import keep, kept
from ._pytest_fixtures import Fixtures
from ._pytest_log import no_log
from ._pytest_options import (
    MARK,
    backends_of,
    backends_of_fixture,
    check_call,
    check_options,
    defaults,
    name_of_backend,
    numbered,
    of_marks,
)
from ._pytest_outcomes import ends_the_test
from ._pytest_progress import Progress
from ._pytest_subtests import failing_subtests
from ._repetition import Records, note_survival
from ._result import Exploration, ExplorationFailed, ExplorationIncomplete, Failure
from ._story import same_course
from ._token import parse_token

__all__ = [
    "BACKEND",
    "Explore",
    "Explored",
    "begin",
    "check_options",
    "is_of_another_project",
    "judged_by_mark",
    "make_items",
    "why_not_explored",
]

BACKEND = "_explore_backend"
"""The name of the parameter by which an item knows its backend."""
ANYIO_BACKEND = "anyio_backend"
"""The fixture by which a test, or a fixture, of anyio's plugin knows its backend."""
RUNNERS = frozenset({"anyio", "asyncio", "trio"})
"""The marks by which other plugins select the tests that they run."""
REPLAYED = frozenset({"chance", "clocks", "fresh", "reset", "step_limit"})
"""The options of `lab.explore` that `lab.replay` takes, too."""
EXPLORED, WITH_REMARKS, IN_PART = NOTES = (
    "explored",
    "explored_with_remarks",
    "explored_in_part",
)
"""The names of the lines that are kept for the summary."""
WORST_FIRST: tuple[Verdict, ...] = ("found", "ran out", "proved")
T = TypeVar("T")
FOUND_AGAIN = "found again"
NOT_FOUND = "the schedule of the token does not fail"
LATE = (
    "note: the test called pytest.{name}() in this schedule, and not in the first one. By then it "
    "has run in others, for which that does not hold: call pytest.{name}() before the tasks begin. "
    "To let a schedule pass, return from the test."
)


@dataclass(slots=True)
class _Examples:
    """What was said of the examples of a test so far."""

    verdicts: Counter[str] = field(default_factory=Counter)
    remarks: Counter[str] = field(default_factory=Counter)
    not_explored: dict[str, None] = field(default_factory=dict)
    """In the order in which they were said."""


_pool = pytest.StashKey[ProcessPoolExecutor]()
_item = pytest.StashKey[pytest.Item]()
"""The test that runs."""
_examples = pytest.StashKey[_Examples]()
_calls = pytest.StashKey[int]()
"""How many explorations a test has begun."""


# --- items


def is_of_another_project(
    config: pytest.Config, function: Callable[..., Any], own: Iterable[pytest.Mark]
) -> bool:
    """Return True if a test's mark ``explore`` is not the lab's.

    It is another project's if its ini file registers a mark of this name, or if the test is no
    coroutine and the mark's arguments are none of the lab's.
    """
    if any(
        str(line).partition("(")[0].partition(":")[0].strip() == MARK for line in _theirs(config)
    ):
        return True
    try:
        of_marks(own)
    except ValueError:
        return not inspect.iscoroutinefunction(_program(function))
    return False


def _theirs(config: pytest.Config) -> Iterable[object]:
    """Return the marks of the ini file; the lab's own is there, too, with a text of its own."""
    return [line for line in config.getini("markers") if "mbufpools" not in str(line)]


def _program(function: Any) -> Any:
    """Return the coroutine function of a test, also of one that Hypothesis has wrapped."""
    given = getattr(function, "hypothesis", None)
    return function if given is None else getattr(given, "inner_test", function)


def _is_async(function: Any) -> bool:
    """Return True for an `async def`, also one with a `yield`, and one that a decorator, which says
    what it wraps, has made a plain function of."""
    seen: set[int] = set()
    while function is not None and id(function) not in seen:
        if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
            return True
        seen.add(id(function))
        function = getattr(_program(function), "__wrapped__", None)
    return False


def why_not_explored(item: pytest.Item) -> str | None:
    """Return why a marked test is not explored, and what to write in its place, because its success
    would prove nothing; return None if it is explored, or if the mark is not for it.

    The mark of a class or a module is for the coroutine tests in it, even if another plugin has
    made their items.
    """
    if isinstance(item, Explored):
        return None
    own = [mark for mark in item.own_markers if mark.name == MARK]
    function = getattr(item, "function", None)
    if function is None:
        if own:
            return (
                f"{item.nodeid} is marked to be explored, but it is a {type(item).__name__}, not "
                f"an `async def`; in a plain test call the fixture `explore`"
            )
        return None
    if is_of_another_project(item.config, function, own or item.iter_markers(MARK)):
        return None
    if not own and not _is_async(_program(function)):
        return None
    what = f"{item.nodeid} is marked to be explored"
    if isinstance(item, TestCaseFunction):
        return (
            f"{what}, but its class derives from unittest.TestCase, which runs each method once, "
            f"in its own way. Write an `async def` of a module or of a plain class, with fixtures "
            f"or setup_method in the place of setUp and asyncSetUp. Or, in a plain method, explore "
            f"a program of your own: mbufpools.lab.explore(program).assert_holds()"
        )
    if not inspect.iscoroutinefunction(_program(function)):
        return f"{what}, {_no_coroutine(function)}"
    return (
        f"{what}, but it is a {type(item).__name__}, which runs once: the mark was added after the "
        f"test was collected (marks= of a parameter, add_marker in a hook), or another plugin has "
        f"made the item. Put the mark on the function, its class or its module, in the file of the "
        f"test"
    )


def _no_coroutine(function: Any) -> str:
    """Say why a marked test function cannot be explored, and what to write in its place."""
    if inspect.isasyncgenfunction(inspect.unwrap(_program(function))):
        return (
            "but it is an async generator, which no test can be; take the `yield` out of it, or "
            "make it a fixture"
        )
    if _is_async(_program(function)):
        return (
            "but a decorator has made a plain function of its `async def`, and would run it once; "
            "remove this decorator, since the mark runs the test, or write a plain test that calls "
            "the fixture `explore`"
        )
    return (
        "but is not an `async def`; in a plain test call the fixture `explore`. If the mark is of "
        "another tool, register it in the ini option `markers`"
    )


def begin(item: pytest.Item) -> None:
    """Note that a test begins."""
    item.config.stash[_item] = item
    item.stash[_calls] = 0
    item.stash[_examples] = _Examples()
    function = getattr(item, "obj", None)
    if hasattr(function, "hypothesis"):
        _as_is_explored(getattr(function, "__func__", function))


def make_items(
    collector: pytest.Module | pytest.Class,
    name: str,
    function: Callable[..., Any],
    own: Iterable[pytest.Mark],
) -> list[pytest.Function] | None:
    """Make the items of a test, one for each backend; return None if it is not to be explored.

    Raises:
        CollectError: the mark has an invalid option, or the function is not a coroutine function.
    """
    own = list(own)
    what = f"{collector.nodeid}::{name}"
    if not inspect.iscoroutinefunction(_program(function)):
        if own or _is_async(_program(function)):
            raise collector.CollectError(
                f"{what} is marked to be explored, {_no_coroutine(function)}"
            )
        return None  # the mark is on the class or the module
    marks = [*getattr(function, "pytestmark", []), *collector.iter_markers()]
    names = [mark.name for mark in marks]
    try:
        options = of_marks([*own, *collector.iter_markers(MARK)])
        backends = backends_of(collector.config, options, _program(function), names)
    except ValueError as error:
        raise collector.CollectError(f"{what}: @pytest.mark.explore {error}") from None
    by_fixture = backends_of_fixture(_definitions_for(collector))
    if "anyio" in names and not options.keys() & {"backend", "backends"}:
        backends = [it for it in backends if it in by_fixture] or backends
    shell = _plain(function, lambda **arguments: None, uses_backend=any(map(_names_backend, marks)))
    shell.explored_on = backends
    # pytest has no public way to parametrise what a hook makes; its own hook calls this one.
    made: list[pytest.Function] = list(collector._genfunctions(name, shell))
    found = [item for item in made if _is_of_one_backend(item, by_fixture)]
    if made and not found:
        raise collector.CollectError(
            f"{what} is to be explored on {' and '.join(backends)}, but its fixture "
            f"{ANYIO_BACKEND!r} is for another backend. Name that one in the mark, or change the "
            f"fixture"
        )
    return [
        Explored.from_parent(
            collector,
            name=item.name,
            callspec=item.callspec,
            fixtureinfo=item._fixtureinfo,
            keywords={item.callspec.id: True},
            originalname=item.originalname,
        )
        for item in found
    ]


def _definitions_for(collector: pytest.Collector) -> Any:
    """Return the fixtures `anyio_backend` that a test of a class or a module can see."""
    # pytest has no public way to ask for a fixture that a test does not take.
    return collector.session._fixturemanager.getfixturedefs(ANYIO_BACKEND, collector)


def _is_of_one_backend(item: Any, by_fixture: set[str]) -> bool:
    """Return False for a test that its fixture `anyio_backend` would run on another backend."""
    params = item.callspec.params
    if ANYIO_BACKEND in params:
        return name_of_backend(params[ANYIO_BACKEND]) in (None, params[BACKEND])
    backend = params[BACKEND]
    return (
        ANYIO_BACKEND not in item._fixtureinfo.names_closure
        or backend not in ("asyncio", "trio")
        or backend in by_fixture
    )


def _names_backend(mark: pytest.Mark) -> bool:
    """Return True if a mark parametrizes the fixture `anyio_backend`."""
    if mark.name != "parametrize":
        return False
    names = mark.args[0] if mark.args else mark.kwargs.get("argnames", ())
    return ANYIO_BACKEND in (
        [it.strip() for it in names.split(",")] if isinstance(names, str) else names
    )


def _plain(
    function: Callable[..., Any], body: Callable[..., None], *, uses_backend: bool = False
) -> Any:
    """Return a plain function that looks like the coroutine function.

    It lacks the marks by which other plugins would run it as a coroutine. Unless it uses the
    fixture `anyio_backend`, it also lacks the mark by which anyio's plugin asks for that.
    """

    @wraps(function)
    def plain(**arguments: Any) -> None:
        __tracebackhide__ = True
        body(**arguments)

    plain.pytestmark = [  # type: ignore[attr-defined]  # where pytest keeps the marks
        mark
        for mark in getattr(function, "pytestmark", ())
        if mark.name not in RUNNERS
        and (uses_backend or not (mark.name == "usefixtures" and ANYIO_BACKEND in mark.args))
    ]
    return plain


class Explored(pytest.Function):
    """A coroutine test that is run in many schedules. Other plugins see a plain test."""

    def _getobj(self) -> Any:
        function = super()._getobj()  # type: ignore[no-untyped-call]  # pytest's own
        if _program(function) is not function:
            return function  # of Hypothesis, which is a plain one
        return _plain(function, lambda **_: self._explore(function))

    def iter_markers_with_node(self, name: str | None = None) -> Iterator[tuple[Any, pytest.Mark]]:
        """Yield all marks but those by which another plugin would run the test."""
        for node, mark in super().iter_markers_with_node(name):
            if mark.name not in RUNNERS:
                yield node, mark

    def setup(self) -> None:
        """Refuse the fixtures that executions must not share, and set up the others. Those that
        are made anew for each execution are set up under the control of the lab, and after the
        modules of ``fresh=``, so that what they patch is the same in the first one as in the
        others."""
        begin(self)
        fixtures = Fixtures(self)
        fixtures.refuse(str(self.callspec.params[BACKEND]))
        if fixtures.are_renewed and not hasattr(self.obj, "hypothesis"):
            fixtures.set_up_wider()
            options = self._options()
            try:
                fresh = module_names(options.get("fresh", ()))
                control = controlled(
                    options["backend"],
                    clocks=options.get("clocks", True),
                    chance=options.get("chance", True),
                    fresh=fresh,
                )
            except ValueError:
                pass  # an invalid option is reported by the call
            else:
                self._control.enter_context(control)
                if fresh:
                    self._control.enter_context(executed_before(fresh))
        super().setup()
        self._check_anyio_backend()

    def _check_anyio_backend(self) -> None:
        """Fail the test if its fixture `anyio_backend`, which only a test can call, says that it is
        another backend's."""
        if ANYIO_BACKEND not in self.fixturenames:
            return
        value = self._request.getfixturevalue(ANYIO_BACKEND)
        backend = self.callspec.params[BACKEND]
        if name_of_backend(value) not in (None, backend):
            pytest.fail(
                f"{self.name} is explored on {backend}, but its fixture {ANYIO_BACKEND!r} is "
                f"{value!r}. Write @pytest.mark.explore(backend={name_of_backend(value)!r}).",
                pytrace=False,
            )

    def teardown(self) -> None:
        """End the control of the lab, after the fixtures were torn down."""
        super().teardown()
        self._control.close()

    @cached_property
    def _control(self) -> ExitStack:
        return ExitStack()

    def runtest(self) -> None:
        """Run the test; one of Hypothesis explores each of its examples."""
        handle = getattr(self.obj, "hypothesis", None)
        if handle is None:
            super().runtest()
            return
        program = handle.inner_test

        @wraps(program)
        def explores(*args: Any, **arguments: Any) -> None:
            __tracebackhide__ = True
            example = partial(program, *args, **arguments)
            Explore(self.config)(example, **self._options())

        handle.inner_test = explores
        try:
            super().runtest()
        finally:
            handle.inner_test = program

    def _explore(self, function: Callable[..., Any]) -> None:
        """Explore the test, with fixtures of function scope made anew for each execution."""
        __tracebackhide__ = True
        fixtures = Fixtures(self)
        options = self._options()
        if not fixtures.are_renewed:
            # Other processes get the arguments with the function.
            program = partial(function, **fixtures.arguments())
            Explore(self.config, alone=False)(program, **options)
            return

        @wraps(function)  # so that it is known whose code the program is
        def with_fixtures() -> Any:
            return function(**fixtures.arguments())

        with_fixtures.__signature__ = inspect.Signature()  # type: ignore[attr-defined]  # it needs none

        options["reset"] = fixtures.renewal(options.get("reset"))
        Explore(self.config)(with_fixtures, **options)

    def _options(self) -> dict[str, Any]:
        options = of_marks(self.iter_markers(MARK))
        options.pop("backends", None)
        options["backend"] = self.callspec.params[BACKEND]
        return options

    def repr_failure(
        self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None
    ) -> str | TerminalRepr:
        """Return the report or the error of the lab, without the traceback inside of the lab."""
        error = excinfo.value
        says = isinstance(error, ExplorationFailed | ImportError | LabError | ValueError)
        if says and _raised_by_lab(excinfo.tb):
            path, line, _ = self.location
            notes = getattr(error, "__notes__", [])  # Hypothesis names the example there
            return _Story("\n".join([str(error), *notes]), path, (line or 0) + 1)
        return super().repr_failure(excinfo)


def _as_is_explored(test: Any) -> None:
    """Let an example of Hypothesis take as long as an exploration takes, and let a method be
    explored on one backend after the other, each with an instance of its own."""
    from hypothesis import HealthCheck, settings

    before: Any = getattr(test, "_hypothesis_internal_use_settings", None) or settings.default
    suppressed = {*before.suppress_health_check, HealthCheck.differing_executors}
    test._hypothesis_internal_use_settings = settings(
        before, deadline=None, suppress_health_check=suppressed
    )


class _Story(TerminalRepr):
    """The report as pytest prints it; its first line stands for it in summaries."""

    def __init__(self, text: str, path: str, line: int) -> None:
        self._lines = text.splitlines()
        self.reprcrash = ReprFileLocation(path, line, self._lines[0])

    def toterminal(self, tw: TerminalWriter) -> None:
        """Write the report, with the first line in bold red."""
        for number, line in enumerate(self._lines):
            tw.line(line, red=number == 0, bold=number == 0)


# --- exploring


class Explore:
    """`lab.explore` with the options of the command line and the ini file. It asserts that the
    program holds. This is the type of the fixture `explore`.

    Args:
        config: of pytest.
        alone: True if a program that other processes cannot load is explored in this process;
            False if that is an error.
    """

    def __init__(self, config: pytest.Config, *, alone: bool = True) -> None:
        self._config = config
        self._alone = alone
        self._call = 1

    @property
    def _examples(self) -> bool:
        """True if each call is for an example of Hypothesis. Hypothesis keeps the examples that
        failed, and the calls come in another order the next time."""
        return hasattr(getattr(self._item, "obj", None), "hypothesis")

    @property
    def _item(self) -> pytest.Item:
        return self._config.stash[_item]

    def __call__(self, program: Program, **options: Any) -> Exploration:
        """Explore the program, with the options of `lab.explore`.

        Blocks the calling thread. The schedules that failed the last time are executed first; if
        one of them fails again, no others are. Under ``--explore-token`` it executes only the
        schedule of the token. A call of the same test that the token is not for executes the
        ``fifo`` schedule.

        Raises:
            ExplorationFailed: a schedule failed; it has the report and the command that replays it.
            ExplorationIncomplete: nothing failed, not all schedules were executed, and
                ``require_complete`` or the ini option ``explore_require_complete`` asks for all.
            BaseException: under ``--explore-token``, the program raised it.
            ValueError, LabError, ImportError: as `lab.explore` does.
        """
        __tracebackhide__ = True
        with failing_subtests():
            return self._call_it(program, options)

    def _call_it(self, program: Program, options: dict[str, Any]) -> Exploration:
        __tracebackhide__ = True
        if not self._examples:
            self._call = self._item.stash.get(_calls, 0) + 1
            self._item.stash[_calls] = self._call
        token = self._config.getoption("explore_token")
        if token is not None:
            return self._replay(program, *numbered(token), **options)
        options = defaults(self._config, options)
        html, whole = options.pop("html", None), options.pop("require_complete", False)
        self._ask(check_call, options)
        self._replay_kept(program, options, html)
        executor, note = self._executor(program, options)
        progress = Progress(self._item)
        records = Records(program)
        try:
            found = self._ask(explore, program, executor=executor, on_progress=progress, **options)
        except BrokenExecutor as error:
            self._item.config.stash[_pool].shutdown(wait=False)
            del self._item.config.stash[_pool]
            raise LabError(f"a worker process died: {error}") from None
        except KeyboardInterrupt:
            if executor is not None:
                kill_workers(executor)
                del self._item.config.stash[_pool]
            raise
        finally:
            progress.end()
        failures = tuple(self._again(program, it, options, records) for it in found.failures)
        if not self._examples:
            keep(self._item, self._call, [failure.token for failure in failures])
        if self._examples:
            self._note_example(found)
        else:
            name = EXPLORED if found.complete else IN_PART
            self._note(WITH_REMARKS if found.remarks else name, f"{found}{note}")
        if failures:
            found = self._with_pages(replace(found, failures=failures), html)
            self._fail(found.failures, str(found))
        if whole and not found.complete:
            raise ExplorationIncomplete(found)
        return found

    def _fail(self, failures: Sequence[Failure], summary: str) -> NoReturn:
        __tracebackhide__ = True
        text = "\n\n".join([*map(self._report, failures), summary])
        raise ExplorationFailed(text, [it.error for it in failures])

    def _with_pages(self, found: Exploration, html: Any) -> Exploration:
        """Write a page for each failure, if a directory for them is given. Their names are those of
        the test and, from its second call on, of the call."""
        if html is None:
            return found
        call = f" call {self._call}" if self._call > 1 else ""
        directory = self._config.invocation_params.dir / html
        return with_pages(found, directory, f"{self._item.nodeid}{call}", self._command)

    def _replay_kept(self, program: Program, options: Mapping[str, Any], html: Any) -> None:
        """Execute the schedules that failed the last time.

        Raises:
            ExplorationFailed: one of them fails again.
        """
        __tracebackhide__ = True
        if self._examples:
            return
        found: Exploration | None = None
        for token in kept(self._item, self._call):
            records = Records(program)
            try:
                backend, _, _ = parse_token(token)
                if backend != options.get("backend", "asyncio"):
                    continue
                asked = {it: options[it] for it in ("cancel", "ignore") if it in options}
                with _quiet(self._item):  # what fails is executed again
                    result = replay_as_explored(program, token, **asked, **_for_replay(options))
            except (LabError, ValueError):
                continue  # the program, or what is asked of it, is another one by now
            before = () if found is None else found.failures
            again = (self._again(program, it, options, records) for it in result.failures)
            found = replace(result, failures=(*before, *again))
        if found is not None and found.failures:
            keep(self._item, self._call, [failure.token for failure in found.failures])
            text = f"{FOUND_AGAIN}, in a schedule that failed before; the others were not executed"
            self._note(IN_PART, text)
            self._fail(self._with_pages(found, html).failures, text)

    def _again(
        self, program: Program, failure: Failure, options: Mapping[str, Any], records: Records
    ) -> Failure:
        """Execute the schedule of a failure in this process, and return the failure of that.

        So its output can be shown, and the failure has the error and the operands of an assertion,
        which a worker process does not return. If the program does not do the same, the failure is
        returned as it is, with a remark, and there is no output.
        """
        __tracebackhide__ = True
        _let_pytest_know(failure)
        if not failure.repeated:
            return failure
        with _output(self._item) as output:
            try:
                found = replay(program, failure.token, **_for_replay(options)).failures
                how = "it did not fail"
            except LabError as error:
                found, how = (), str(error)
            if found and found[0].kind == failure.kind:
                again = found[0]
                how = "it failed at other places"
                if same_course(again.schedule, failure.schedule):
                    _let_pytest_know(again)
                    told = failure.error is None or _same(again.error, failure.error)
                    return again if told else failure
            output.clear()
        note_survival(program, records.survived())
        return failure.doubted(records.doubt(how))

    def _report(self, failure: Failure) -> str:
        """Return the report, with the command that replays the failure under pytest."""
        report = failure.report_with(self._command(failure.token))
        name = ends_the_test(failure.error)
        return f"{report}\n{LATE.format(name=name)}" if name else report

    def _command(self, token: str) -> str:
        path = os.path.relpath(self._item.path, self._item.config.invocation_params.dir)
        _, colons, names = self._item.nodeid.partition("::")
        number = f"{self._call}/" if self._call > 1 else ""
        return shlex.join(["pytest", f"{path}{colons}{names}", "--explore-token", number + token])

    def _replay(self, program: Program, number: int, token: str, **options: Any) -> Exploration:
        __tracebackhide__ = True
        backend = options.get("backend", "asyncio")
        if self._examples:
            return self._replay_example(program, token, options)
        self._forget_notes()
        if number != self._call:
            ours = f"the token is for call {number}, and the test has made {self._call}"
            self._note(IN_PART, f"{NOT_FOUND}: {ours}")
            return self._ask(explore, program, strategy="fifo", backend=backend)
        wanted, _, _ = parse_token(token)
        if backend != wanted:
            pytest.skip(f"the token is of {wanted}, this is {backend}")
        result = self._ask(replay, program, token, **_for_replay(options))
        if not result.failures:
            self._note(IN_PART, NOT_FOUND)
            return result
        _let_pytest_know(result.failures[0])
        html = defaults(self._config, options).get("html")
        (failure,) = self._with_pages(result, html).failures
        if failure.error is not None and not ends_the_test(failure.error):
            if failure.page is not None:
                failure.error.add_note(f"page: {failure.page}")
            raise failure.error.with_traceback(_outside(failure.error.__traceback__))
        raise ExplorationFailed(self._report(failure), [failure.error])

    def _replay_example(
        self, program: Program, token: str, options: Mapping[str, Any]
    ) -> Exploration:
        """Execute the schedule of a token with one example; it may not fit this one."""
        __tracebackhide__ = True
        try:
            result = replay(program, token, **_for_replay(options))
        except LabError:
            return explore(program, strategy="fifo", backend=options.get("backend", "asyncio"))
        if result.failures:
            html = defaults(self._config, options).get("html")
            (failure,) = self._with_pages(result, html).failures
            raise ExplorationFailed(self._report(failure), [failure.error])
        return result

    def _executor(
        self, program: Program, options: Mapping[str, Any]
    ) -> tuple[ProcessPoolExecutor | None, str]:
        config = self._item.config
        jobs = config.getoption("explore_jobs")
        if jobs == 1 or options.get("strategy") in ("dpor", "fifo"):
            return None, ""
        if isinstance(self._item, pytest.Function) and Fixtures(self._item).set_up_this_process:
            return None, "; in one process, because others do not have what fixtures set up"
        if in_example():
            return None, "; in one process, because others do not test the example of Hypothesis"
        if self._alone:
            try:
                pack(program)
            except ValueError:
                return None, "; in one process, because others could not import the program"
        if options.get("reset") is not None:
            try:
                pack_reset(options["reset"])
            except ValueError:
                return None, "; in one process, because others could not call reset"
        if _pool not in config.stash:
            # Spawned, because a fork would be unsafe if the suite has threads.
            pool = workers(jobs)
            config.stash[_pool] = pool
            config.add_cleanup(partial(kill_workers, pool))
        return config.stash[_pool], ""

    def _ask(self, function: Callable[..., T], *args: Any, **options: Any) -> T:
        """Call `explore` or `replay`; raise errors of the lab without its own traceback."""
        __tracebackhide__ = True
        try:
            if function is not explore:
                return function(*args, **options)
            with _quiet(self._item):
                return function(*args, **options)
        except NotRepeated as error:
            said: Exception = NotRepeated(f"{error}{self._shared()}")
        except (ImportError, LabError, ValueError) as error:
            said = type(error)(*error.args)
        raise said

    def _shared(self) -> str:
        """Say which fixtures survive an execution; "" if the test has none of those."""
        item = self._item
        shared = Fixtures(item).shared() if isinstance(item, pytest.Function) else []
        if not shared:
            return ""
        number = "fixtures" if len(shared) > 1 else "a fixture"
        return (
            f" The test also has {number} of a wider scope than function, made once for all "
            f"executions: {', '.join(shared)}. One of scope function is made anew for each."
        )

    def _note_example(self, found: Exploration) -> None:
        """Keep one line for all examples of a test: how many came to which verdict; if each is
        proved, what makes all of the proofs say less than they seem to, and what was not explored
        in one of them."""
        examples = self._item.stash[_examples]
        counts = examples.verdicts
        counts[found.verdict] += 1
        examples.remarks.update(found.remarks)
        examples.not_explored.update(dict.fromkeys(found.not_explored))
        verdicts = [it for it in get_args(Verdict) if counts[it]]
        worst = next(it for it in WORST_FIRST if counts[it])
        number = counts.total()
        name = EXPLORED if worst == "proved" else IN_PART
        text = (
            f"{worst}: {number} example{'s' * (number > 1)}, "
            f"{', '.join(f'{counts[it]} {it}' for it in verdicts)} "
            f"({found.strategy} on {found.backend}), of each {found.bound}"
        )
        if worst == "proved":
            common = [it for it, times in examples.remarks.items() if times == number]
            name = WITH_REMARKS if common else name
            text += "".join(f"; but {remark}" for remark in common)
            text += f"; not explored: {'; '.join(examples.not_explored)}"
        self._forget_notes()
        self._note(name, text)

    def _forget_notes(self) -> None:
        """Drop the lines of earlier calls."""
        properties = self._item.user_properties
        properties[:] = [it for it in properties if it[0] not in NOTES]

    def _note(self, name: str, text: str) -> None:
        """Keep a line for the summary. Reports of pytest-xdist's workers carry it too."""
        self._item.user_properties.append((name, text))


def _for_replay(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name in REPLAYED}


def _same(error: BaseException | None, other: BaseException) -> bool:
    """Return True if two errors say the same, but for addresses."""
    texts = (ADDRESS.sub("", "" if it is None else describe(it)) for it in (error, other))
    return next(texts) == next(texts)


def _let_pytest_know(failure: Failure) -> None:
    """Raise an error that is a message to pytest (skip, xfail, exit), also one that is in a group
    with nothing else.

    A skip and an expected failure are that only in the order that the backend itself takes. In
    another schedule the test has run before, and other schedules would be passed over.
    """
    __tracebackhide__ = True
    _, deviations, rule = parse_token(failure.token)
    is_stock = rule == "stock" and not deviations
    error = failure.error
    if error is None:
        return
    if only(pytest.exit.Exception, error) or (is_stock and ends_the_test(error)):
        raise next(leaves(error))


def judged_by_mark(item: pytest.Item, raised: BaseException) -> BaseException:
    """Return the error by which ``xfail(raises=...)`` judges a test that bears the mark: that of
    the program; of several failures one that is not expected, if there is one."""
    if not isinstance(item, Explored) or not isinstance(raised, ExplorationFailed):
        return raised
    errors = [raised if it is None else it for it in raised.errors if not ends_the_test(it)]
    expected = [it.kwargs.get("raises") for it in item.iter_markers("xfail")]
    kinds = tuple(it for it in expected if isinstance(it, type | tuple))
    return next((it for it in errors if not isinstance(it, kinds)), next(iter(errors), raised))


@contextmanager
def _quiet(item: pytest.Item) -> Iterator[None]:
    """Drop output and log, because those of thousands of executions are of no use."""
    with no_log(item), _output(item) as output:
        try:
            yield
        finally:
            output.clear()


@contextmanager
def _output(item: pytest.Item) -> Iterator[list[Any]]:
    """Yield a list. If it is cleared, what is written to stdout and stderr meanwhile is dropped."""
    capture = item.config.pluginmanager.getplugin("capturemanager")
    captures = capture is not None and capture.is_globally_capturing()
    before = capture.read_global_capture() if captures else None
    shown: list[Any] = [before]
    try:
        yield shown
    finally:
        if before is not None:
            after = capture.read_global_capture()
            for it in (before, after) if shown else (before,):
                sys.stdout.write(it.out)
                sys.stderr.write(it.err)


def _outside(traceback: TracebackType | None) -> TracebackType | None:
    """Return a traceback without the frames of the lab at its beginning."""
    while traceback is not None and _is_of_lab(traceback):
        traceback = traceback.tb_next
    return traceback


def _is_of_lab(traceback: TracebackType) -> bool:
    """Return True if the frame is of the lab."""
    name: str = traceback.tb_frame.f_globals.get("__name__", "")
    return name.startswith("mbufpools.lab.")


def _raised_by_lab(traceback: TracebackType) -> bool:
    """Return True if the innermost frame is of the lab."""
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    return _is_of_lab(traceback)
