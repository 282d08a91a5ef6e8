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

**Fixtures.** The test function is called once for each schedule, but its arguments are made only
once. So an argument of function scope is refused, because one schedule would find what the last one
has left in it. Fixtures of a wider scope, which tests share anyway, and parameters are passed.
Fixtures that are not arguments (``autouse``, ``usefixtures``) are set up once, around all
executions, and so is the instance of a test class. Coroutine fixtures are refused, because they
belong to another event loop.

**Your own programs.** ``explore(program, **options)``, in a plain test that takes the fixture,
explores any ``async def`` without arguments, with the same command line. It asserts that the
program holds, and returns the `lab.Exploration`.

``--explore-jobs N`` shares the schedules out to N processes. They import the test's module without
conftest and fixtures, and the arguments of the test must be picklable. A program of the fixture
that no process can import, and ``dpor``, are explored in pytest's own process.

The entry point, ``_mbufpools_pytest``, loads this module when it is first needed.
"""

from __future__ import annotations

import importlib.util
import inspect
import logging
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial, wraps
from types import TracebackType
from typing import Any

import pytest
from _pytest._code.code import ReprFileLocation, TerminalRepr
from _pytest._io import TerminalWriter

from ._execute import Program
from ._explore import explore, replay
from ._outcome import LabError
from ._parallel import kill_workers, workers
from ._pickled import pack
from ._result import Exploration, ExplorationFailed, Failure
from ._token import parse_token

__all__ = ["BACKEND", "Explore", "Explored", "check_options", "make_items"]

BACKEND = "_explore_backend"
"""The name of the parameter by which an item knows its backend."""
MARK = "explore"
RUNNERS = frozenset({"anyio", "asyncio", "trio"})
"""The marks by which other plugins select the tests that they run."""
OURS = frozenset({"executor", "on_progress"})
"""The options of `lab.explore` that a test cannot set."""
REPLAYED = frozenset({"fresh", "reset", "step_limit"})
"""The options of `lab.explore` that `lab.replay` takes, too."""

_pool = pytest.StashKey[ProcessPoolExecutor]()


def check_options(config: pytest.Config) -> None:
    """Raise `pytest.UsageError` if an option on the command line has an invalid value."""
    token, jobs = config.getoption("explore_token"), config.getoption("explore_jobs")
    if jobs < 1:
        raise pytest.UsageError(f"--explore-jobs {jobs}: expected a number of processes, 1 or more")
    if token is not None:
        try:
            parse_token(_numbered(token)[1])
        except ValueError as error:
            raise pytest.UsageError(f"--explore-token: {error}") from None


# --- items


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
    if not inspect.iscoroutinefunction(function):
        if own:
            raise collector.CollectError(
                f"{what} is marked to be explored, but is not an `async def`; in a plain test "
                f"call the fixture `explore`"
            )
        return None  # the mark is on the class or the module
    try:
        options = _options([*own, *collector.iter_markers(MARK)])
    except ValueError as error:
        raise collector.CollectError(f"{what}: @pytest.mark.explore {error}") from None
    shell = _plain(function, lambda **arguments: None)
    shell.explored_on = _backends(options)
    # pytest has no public way to parametrise what a hook makes; its own hook calls this one.
    made: Iterable[pytest.Function] = collector._genfunctions(name, shell)
    return [
        Explored.from_parent(
            collector,
            name=item.name,
            callspec=item.callspec,
            fixtureinfo=item._fixtureinfo,
            keywords={item.callspec.id: True},
            originalname=item.originalname,
        )
        for item in made
    ]


def _options(marks: Iterable[pytest.Mark]) -> dict[str, Any]:
    """Return the options of marks, of which the closest comes first and takes precedence.

    Raises:
        ValueError: an option is unknown, or is not given by name.
    """
    known = {
        name
        for name, parameter in inspect.signature(explore).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    known = (known | {"backends"}) - OURS
    options: dict[str, Any] = {}
    for mark in marks:
        if mark.args:
            raise ValueError(f"takes its options by name, not {mark.args[0]!r}")
        for name, value in mark.kwargs.items():
            if name not in known:
                raise ValueError(
                    f"has no option {name!r}; its options are {', '.join(sorted(known))}"
                )
            options.setdefault(name, value)
        if "backend" in mark.kwargs and "backends" in mark.kwargs:
            raise ValueError("takes backend or backends, not both")
    return options


def _backends(options: Mapping[str, Any]) -> list[str]:
    """Return the backends of a test; by default all that are installed."""
    if "backends" in options:
        return list(options["backends"])
    if "backend" in options:
        return [options["backend"]]
    return ["asyncio", *(["trio"] if importlib.util.find_spec("trio") else [])]


def _plain(function: Callable[..., Any], body: Callable[..., None]) -> Any:
    """Return a plain function that looks like the coroutine function.

    It lacks the marks by which other plugins would run it as a coroutine.
    """

    @wraps(function)
    def plain(**arguments: Any) -> None:
        __tracebackhide__ = True
        body(**arguments)

    plain.pytestmark = [  # type: ignore[attr-defined]  # where pytest keeps the marks
        mark
        for mark in getattr(function, "pytestmark", ())
        if mark.name not in RUNNERS
        and not (mark.name == "usefixtures" and "anyio_backend" in mark.args)
    ]
    return plain


class Explored(pytest.Function):
    """A coroutine test that is run in many schedules. Other plugins see a plain test."""

    def _getobj(self) -> Any:
        program = super()._getobj()  # type: ignore[no-untyped-call]  # pytest's own
        return _plain(program, lambda **arguments: self._explore(partial(program, **arguments)))

    def iter_markers_with_node(self, name: str | None = None) -> Iterator[tuple[Any, pytest.Mark]]:
        """Yield all marks but those by which another plugin would run the test."""
        for node, mark in super().iter_markers_with_node(name):
            if mark.name not in RUNNERS:
                yield node, mark

    def setup(self) -> None:
        """Refuse the fixtures that executions must not share."""
        for name in self._fixtureinfo.argnames:
            definitions = self._fixtureinfo.name2fixturedefs.get(name)
            # pytest makes a fixture of each parameter.
            if not definitions or definitions[-1].func.__module__ == "_pytest.python":
                continue
            fixture = definitions[-1]
            if inspect.iscoroutinefunction(fixture.func) or inspect.isasyncgenfunction(
                fixture.func
            ):
                why = "it is a coroutine, which belongs to another event loop"
            elif fixture.scope == "function":
                why = "all schedules would share it, and would find what the last one left in it"
            else:
                continue
            pytest.fail(
                f"{self.name} is explored, and takes the fixture {name!r}: {why}. Make it in the "
                f"test, or explore a program of your own with the fixture `explore`. Fixtures of "
                f"a wider scope, and fixtures that are not arguments, are allowed.",
                pytrace=False,
            )
        super().setup()

    def _explore(self, program: Program) -> None:
        __tracebackhide__ = True
        options = _options(self.iter_markers(MARK))
        options.pop("backends", None)
        options["backend"] = self.callspec.params[BACKEND]
        Explore(self, alone=False)(program, **options)

    def repr_failure(
        self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None
    ) -> str | TerminalRepr:
        """Return the report or the error of the lab, without the traceback inside of the lab."""
        error = excinfo.value
        says = isinstance(error, ExplorationFailed | ImportError | LabError | ValueError)
        if says and _raised_by_lab(excinfo.tb):
            path, line, _ = self.location
            return _Story(str(error), path, (line or 0) + 1)
        return super().repr_failure(excinfo)


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
    """`lab.explore` with the options of the command line. It asserts that the program holds.

    Args:
        item: the test.
        alone: True if a program that other processes cannot load is explored in this process;
            False if that is an error.
    """

    def __init__(self, item: pytest.Item, *, alone: bool = True) -> None:
        self._item = item
        self._alone = alone
        self._calls = 0

    def __call__(self, program: Program, **options: Any) -> Exploration:
        """Explore the program, with the options of `lab.explore`.

        Blocks the calling thread. Under ``--explore-token`` it executes only the schedule of the
        token. A call of the same test that the token is not for executes the ``fifo`` schedule.

        Raises:
            ExplorationFailed: a schedule failed; it has the report and the command that replays it.
            BaseException: under ``--explore-token``, the program raised it.
            ValueError, LabError, ImportError: as `lab.explore` does.
        """
        __tracebackhide__ = True
        self._calls += 1
        token = self._item.config.getoption("explore_token")
        if token is not None:
            return self._replay(program, *_numbered(token), **options)
        executor, note = self._executor(program, options)
        try:
            found = self._ask(explore, program, executor=executor, **options)
        except BrokenExecutor as error:
            self._item.config.stash[_pool].shutdown(wait=False)
            del self._item.config.stash[_pool]
            raise LabError(f"a worker process died: {error}") from None
        except KeyboardInterrupt:
            if executor is not None:
                kill_workers(executor)
                del self._item.config.stash[_pool]
            raise
        failures = [self._again(program, failure, options) for failure in found.failures]
        self._note(found.complete, f"{found}{note}")
        if failures:
            raise ExplorationFailed("\n\n".join([*map(self._report, failures), str(found)]))
        return found

    def _again(self, program: Program, failure: Failure, options: Mapping[str, Any]) -> Failure:
        """Execute the schedule of a failure in this process, and return the failure of that.

        So its output can be shown, and the failure has the error and the operands of an assertion,
        which a worker process does not return.
        """
        __tracebackhide__ = True
        try:
            again = replay(program, failure.token, **_for_replay(options)).failures
        except LabError:
            return failure  # it does not fail every time, so the first report has to do
        if not again:
            return failure
        _let_pytest_know(again[0].error)
        return again[0]

    def _report(self, failure: Failure) -> str:
        """Return the report, with the command that replays the failure under pytest."""
        return failure.report_with(self._command(failure.token))

    def _command(self, token: str) -> str:
        path = os.path.relpath(self._item.path, self._item.config.invocation_params.dir)
        _, colons, names = self._item.nodeid.partition("::")
        number = f"{self._calls}/" if self._calls > 1 else ""
        return shlex.join(["pytest", f"{path}{colons}{names}", "--explore-token", number + token])

    def _replay(self, program: Program, number: int, token: str, **options: Any) -> Exploration:
        __tracebackhide__ = True
        backend = options.get("backend", "asyncio")
        if number != self._calls:
            return self._ask(explore, program, strategy="fifo", backend=backend)
        wanted, _, _ = parse_token(token)
        if backend != wanted:
            pytest.skip(f"the token is of {wanted}, this is {backend}")
        result = self._ask(replay, program, token, **_for_replay(options))
        if not result.failures:
            self._note(False, "the schedule of the token does not fail")
            return result
        (failure,) = result.failures
        _let_pytest_know(failure.error)
        if failure.error is not None:
            raise failure.error.with_traceback(_outside(failure.error.__traceback__))
        raise ExplorationFailed(self._report(failure))

    def _executor(
        self, program: Program, options: Mapping[str, Any]
    ) -> tuple[ProcessPoolExecutor | None, str]:
        config = self._item.config
        jobs = config.getoption("explore_jobs")
        if jobs == 1 or options.get("strategy") in ("dpor", "fifo"):
            return None, ""
        if self._alone:
            try:
                pack(program)
            except ValueError:
                return None, "; in one process, because others could not import the program"
        if _pool not in config.stash:
            # Spawned, because a fork would be unsafe if the suite has threads.
            pool = workers(jobs)
            config.stash[_pool] = pool
            config.add_cleanup(partial(kill_workers, pool))
        return config.stash[_pool], ""

    def _ask(self, function: Callable[..., Exploration], *args: Any, **options: Any) -> Exploration:
        """Call `explore` or `replay`; raise errors of the lab without its own traceback."""
        __tracebackhide__ = True
        try:
            if function is replay:
                return function(*args, **options)
            with _quiet(self._item.config):
                return function(*args, **options)
        except (ImportError, LabError, ValueError) as error:
            said = type(error)(*error.args)
        raise said

    def _note(self, complete: bool, text: str) -> None:
        """Keep a line for the summary. Reports of pytest-xdist's workers carry it too."""
        name = "explored" if complete else "explored_in_part"
        self._item.user_properties.append((name, text))


def _numbered(token: str) -> tuple[int, str]:
    """Split ``2/asyncio:...`` into the number of the call that it is for, by default 1, and the
    token."""
    number, slash, rest = token.partition("/")
    return (int(number), rest) if slash and number.isdecimal() else (1, token)


def _for_replay(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name in REPLAYED}


def _let_pytest_know(error: BaseException | None) -> None:
    """Raise an error that is a message to pytest (skip, xfail, exit), also one in a group."""
    __tracebackhide__ = True
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            _let_pytest_know(inner)
    elif isinstance(error, pytest.skip.Exception | pytest.xfail.Exception | pytest.exit.Exception):
        raise error


@contextmanager
def _quiet(config: pytest.Config) -> Iterator[None]:
    """Drop output and log, because those of thousands of executions are of no use."""
    capture = config.pluginmanager.getplugin("capturemanager")
    captures = capture is not None and capture.is_globally_capturing()
    before = capture.read_global_capture() if captures else None
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(level)
        if before is not None:
            capture.read_global_capture()
            sys.stdout.write(before.out)
            sys.stderr.write(before.err)


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
