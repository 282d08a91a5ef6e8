"""Which tasks the lab cancels, how often and when; and the failures that are passed over."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import sys
import types
from collections.abc import AsyncGenerator, Callable, Coroutine
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest
import trio
import trio.testing
from anyio.abc import TaskStatus
from anyio.lowlevel import checkpoint

from mbufpools import lab
from tests.kit.coroutines import ByItsMethods
from tests.lab.test_parallel import AtOnce
from tests.zoo._specimen import together

BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])
STRATEGIES = pytest.mark.parametrize("strategy", ["mixed", "exhaustive", "random", "pct", "fifo"])
Program = Callable[[], Coroutine[Any, Any, None]]

LIBRARY = """
import asyncio

class Doubler:
    def __init__(self):
        self.inbox = asyncio.Queue()
        self.{kept} = asyncio.create_task(self.run(), name="worker")
        {more}

    async def run(self):
        while True:
            question, answer = await self.inbox.get()
            answer.set_result(question * 2)

    async def ask(self, question):
        answer = asyncio.get_running_loop().create_future()
        await self.inbox.put((question, answer))
        return await answer

    async def close(self):
        self.task.cancel()
        await asyncio.wait([self.task])
"""


def doubling(make: Callable[[], Any]) -> Program:
    """A program that uses a library whose worker must live."""

    async def program() -> None:
        doubler = make()
        try:
            assert await doubler.ask(1) == 2
            await asyncio.sleep(1)
            assert await doubler.ask(2) == 4
        finally:
            await doubler.close()

    return program


def load(directory: Path, source: str, name: str = "doubling") -> ModuleType:
    """Import a library from a directory."""
    path = directory / f"{name}.py"
    path.write_text(source, "utf-8")
    module = ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module
    exec(compile(source, str(path), "exec"), vars(module))
    return module


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A directory that looks as if a package installer had filled it."""
    (tmp_path / "doubling-1.0.dist-info").mkdir()
    return tmp_path


PLAIN = LIBRARY.format(kept="task", more="")
IN_A_LIST = LIBRARY.format(kept="task", more="self.tasks = [self.task]")
HIDDEN = PLAIN.replace("self.task = ", "_tasks[self] = ").replace("self.task", "_tasks[self]")
HIDDEN = HIDDEN.replace("class", "_tasks = {}\n\nclass", 1)


@STRATEGIES
@pytest.mark.parametrize("source", [PLAIN, IN_A_LIST, HIDDEN])
def test_the_worker_of_a_library_is_not_cancelled(
    source: str, strategy: lab.StrategyName, installed: Path
) -> None:
    program = doubling(load(installed, source).Doubler)
    found = lab.explore(program, cancel="native", strategy=strategy, max_executions=300)
    found.assert_holds()
    if found.complete:
        assert any("0.0 'worker'" in it for it in found.not_explored)


class Doubler:
    """As a library has it, but in the file of the program."""

    def __init__(self) -> None:
        self.inbox: asyncio.Queue[tuple[int, asyncio.Future[int]]] = asyncio.Queue()
        self.task = asyncio.create_task(self.run(), name="worker")

    async def run(self) -> None:
        while True:
            question, answer = await self.inbox.get()
            answer.set_result(question * 2)

    async def ask(self, question: int) -> int:
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        await self.inbox.put((question, answer))
        return await answer

    async def close(self) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])


async def shields_its_clean_up(log: list[str]) -> None:
    async def clean_up() -> None:
        log.append("begin")
        await asyncio.sleep(0)
        log.append("end")

    async def worker() -> None:
        try:
            await asyncio.sleep(1)
        finally:
            await asyncio.shield(clean_up())

    await asyncio.gather(asyncio.create_task(worker()), return_exceptions=True)


async def waits_for_what_cleans_up(log: list[str]) -> None:
    async def slow() -> None:
        try:
            await asyncio.sleep(10)
        finally:
            log.append("begin")
            await asyncio.sleep(0)
            log.append("end")

    with contextlib.suppress(TimeoutError, asyncio.CancelledError):
        await asyncio.wait_for(slow(), 1)


async def takes_them_as_they_complete(log: list[str]) -> None:
    async def short() -> None:
        log.append("begin")
        await asyncio.sleep(0)
        log.append("end")

    for done in asyncio.as_completed([short(), short()]):
        with contextlib.suppress(asyncio.CancelledError):
            await done


@STRATEGIES
@pytest.mark.parametrize(
    "uses",
    [
        shields_its_clean_up,
        pytest.param(
            waits_for_what_cleans_up,
            marks=pytest.mark.skipif(sys.version_info >= (3, 12), reason="it makes no task there"),
        ),
        takes_them_as_they_complete,
    ],
)
def test_a_task_that_asyncio_makes_of_a_coroutine_and_gives_to_nobody_is_not_cancelled(
    uses: Callable[[list[str]], Coroutine[Any, Any, None]], strategy: lab.StrategyName
) -> None:
    async def program() -> None:
        log: list[str] = []
        with contextlib.suppress(asyncio.CancelledError):
            await uses(log)
        await asyncio.sleep(5)
        assert log.count("begin") == log.count("end"), log

    found = lab.explore(program, strategy=strategy, cancel="native", max_executions=300)
    assert not found.failures


@BACKENDS
def test_a_failure_is_shrunk_to_no_cancellation_of_a_task_that_is_not_asked_for(
    backend: lab.BackendName,
) -> None:
    """With the first value the first task is one that the lab must not cancel."""

    async def program() -> None:
        ended = []

        async def work(place: int) -> None:
            await anyio.sleep(1)
            ended.append(place)

        names = ["spared", "cancelled"]
        if lab.choose("as written", "the other way round") != "as written":
            names.reverse()
        async with anyio.create_task_group() as group:
            for place, name in enumerate(names):
                group.start_soon(work, place, name=name)
        assert 0 in ended

    cancel = lab.cancellable("cancelled", by="scope")
    (failure,) = lab.explore(program, backend=backend, cancel=cancel).failures
    assert "here lab.choose takes 'the other way round'" in failure.report
    assert "here the lab cancels 0.0" in failure.report


def test_a_task_that_asyncio_gives_to_nobody_is_cancelled_if_the_caller_names_it() -> None:
    async def program() -> None:
        log: list[str] = []
        await shields_its_clean_up(log)
        await asyncio.sleep(5)
        assert log in ([], ["begin", "end"])

    assert lab.explore(program, cancel="*clean_up").failures


@STRATEGIES
def test_a_task_that_an_object_keeps_is_not_cancelled(strategy: lab.StrategyName) -> None:
    lab.explore(
        doubling(Doubler), cancel=True, strategy=strategy, max_executions=300
    ).assert_holds()


@pytest.mark.parametrize(
    "cancel",
    [
        "worker",
        ["nobody", "work*"],
        "0.0",
        "run",
        lambda task: task.title == "worker",
        lab.cancellable("worker"),
        lab.cancellable(predicate=lambda task: task.file == __file__ and task.line > 0),
    ],
)
def test_the_worker_is_cancelled_if_the_caller_names_it(cancel: Any) -> None:
    (failure,) = lab.explore(doubling(Doubler), cancel=cancel).failures
    assert failure.kind == "stall"
    assert "here the lab cancels 0.0 " in failure.report
    (again,) = lab.replay(doubling(Doubler), failure.token).failures
    assert again.token == failure.token


def test_a_named_file_counts_as_the_programs_own(installed: Path) -> None:
    program = doubling(load(installed, HIDDEN).Doubler)
    assert lab.explore(program, cancel=lab.cancellable(files=[installed], by="native")).failures
    path = installed / "doubling.py"
    assert lab.explore(program, cancel=lab.cancellable(files=[path], by="native")).failures


def test_names_that_no_task_has_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"cancel is 'wroker': .* its tasks are 'main', 'worker'"):
        lab.explore(doubling(Doubler), cancel="wroker")


@BACKENDS
def test_the_tasks_that_helpers_of_the_project_make_are_cancelled(
    backend: lab.BackendName,
) -> None:
    cancelled = set()

    async def wait(name: str) -> None:
        try:
            await checkpoint()
        except anyio.get_cancelled_exc_class():
            cancelled.add(name)
            raise

    async def program() -> None:
        cancelled.clear()
        await together(partial(wait, "a"), partial(wait, "b"))

    alone = set()

    def progress(number: int) -> None:
        alone.add(frozenset(cancelled))

    lab.explore(program, cancel=True, backend=backend, on_progress=progress).assert_holds()
    assert {frozenset("a"), frozenset("b")} <= alone


@BACKENDS
@pytest.mark.parametrize("times", [1, 2])
def test_several_tasks_are_cancelled_if_asked_for(backend: lab.BackendName, times: int) -> None:
    """Fails only if both tasks are cancelled."""

    async def program() -> None:
        cancelled = []

        async def wait(name: str) -> None:
            try:
                await checkpoint()
            except anyio.get_cancelled_exc_class():
                cancelled.append(name)
                raise

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait, "a", name="a")
            tasks.start_soon(wait, "b", name="b")
        assert len(cancelled) < 2

    rules = lab.cancellable("a", "b", times=times, by="scope")
    found = lab.explore(program, cancel=rules, backend=backend)
    assert found.verdict == ("found" if times == 2 else "proved")
    for failure in found.failures:
        assert failure.token.count("!") == 2
        (again,) = lab.replay(program, failure.token).failures
        assert again.report == failure.report
    if times == 1:
        return
    for strategy in ("random", "pct", "fifo"):
        options: Any = {"strategy": strategy, "backend": backend, "max_executions": 300}
        assert lab.explore(program, cancel=rules, **options).failures


@BACKENDS
@pytest.mark.parametrize("mid_wait", [False, True])
def test_a_task_is_cancelled_in_the_middle_of_its_wait_if_asked_for(
    backend: lab.BackendName, mid_wait: bool
) -> None:
    """Fails if the waiter is cancelled while the other task is at work. Without preemptions that
    does not happen as soon as the waiter waits, nor when it has been woken."""

    async def program() -> None:
        steps = 0
        event = anyio.Event()
        cancelled_at = None

        async def wait(*, task_status: TaskStatus[None]) -> None:
            nonlocal cancelled_at
            task_status.started()
            try:
                await event.wait()
            except anyio.get_cancelled_exc_class():
                cancelled_at = steps
                raise

        async def work() -> None:
            nonlocal steps
            for _ in range(3):
                steps += 1
                await checkpoint()
            steps = 10
            event.set()

        async with anyio.create_task_group() as tasks:
            await tasks.start(wait, name="waiter")
            tasks.start_soon(work)
        assert cancelled_at not in (2, 3)

    rules = lab.cancellable("waiter", mid_wait=mid_wait, by="scope")
    options: Any = {"strategy": "exhaustive", "max_preemptions": 0, "backend": backend}
    found = lab.explore(program, cancel=rules, **options)
    assert found.verdict == ("found" if mid_wait else "proved")
    assert ("middle of a wait" in found.bound) == mid_wait
    for failure in found.failures:
        (again,) = lab.replay(program, failure.token).failures
        assert again.report == failure.report


@pytest.mark.parametrize("steps", [1, 2])
def test_a_task_that_was_woken_is_cancelled_until_one_other_step_has_run(steps: int) -> None:
    async def program() -> None:
        event = asyncio.Event()
        done: list[int] = []

        async def wait() -> None:
            try:
                await event.wait()
            except asyncio.CancelledError:
                assert not done, "cancelled after the other was done"
                raise

        async def give() -> None:
            await asyncio.sleep(0)
            event.set()
            for _ in range(steps - 1):
                await asyncio.sleep(0)
            await asyncio.sleep(0)
            if not waiter.cancelling():
                done.append(1)
            await asyncio.sleep(0)

        waiter, giver = asyncio.create_task(wait()), asyncio.create_task(give())
        with contextlib.suppress(asyncio.CancelledError):
            await waiter
        await giver

    seldom = lab.explore(program, cancel=lab.cancellable("*wait"))
    assert seldom.verdict == ("found" if steps == 1 else "proved")
    told = [it for it in seldom.not_explored if "once two other steps have run since the" in it]
    assert len(told) == 1
    found = lab.explore(program, cancel=lab.cancellable("*wait", mid_wait=True))
    assert found.verdict == "found"
    assert not any("two other steps" in it for it in found.not_explored)


def test_tasks_that_cancel_does_not_name_are_no_library_tasks() -> None:
    async def program() -> None:
        async def waiter() -> None:
            await checkpoint()

        async def other() -> None:
            await checkpoint()

        await together(waiter, other)

    for cancel in ("*waiter", lambda task: task.title.endswith("waiter")):
        spared = lab.explore(program, cancel=cancel).not_explored
        (told,) = [it for it in spared if "cancellations of the tasks" in it]
        assert told.startswith("cancellations of the tasks that cancel= leaves out: 0 'main'")


def test_without_anyio_a_task_is_cancelled_natively(installed: Path) -> None:
    source = (
        PLAIN
        + """
async def program():
    doubler = Doubler()
    try:
        assert await doubler.ask(1) == 2
    finally:
        await doubler.close()
"""
    )
    module = load(installed, source)
    found = lab.explore(module.program, cancel=True)
    assert found.verdict == "proved"
    assert any("by a scope" in it for it in found.not_explored)
    assert "by a scope" in lab.explore(module.program, cancel="scope").bound
    vars(module)["anyio"] = anyio
    assert not any(
        "by a scope" in it for it in lab.explore(module.program, cancel=True).not_explored
    )


IMPORTS_IN_A_FUNCTION = """
import asyncio

async def use(times):
    import anyio
    for _ in range(times):
        await anyio.sleep(1)

async def program():
    await asyncio.sleep(1)
    await use(1)

async def closes_late():
    closed = True
    try:
        try:
            await use(1)
        except asyncio.CancelledError:
            closed = False
            await asyncio.sleep(0)  # here a cancellation by a scope comes again
            closed = True
            raise
    finally:
        assert closed, "not closed"
"""


@pytest.mark.parametrize(
    ("strategy", "jobs"), [("mixed", None), ("mixed", 1), ("exhaustive", 1), ("fifo", None)]
)
def test_a_program_that_imports_anyio_in_a_function_is_cancelled_by_a_scope(
    installed: Path, strategy: lab.StrategyName, jobs: int | None
) -> None:
    module = load(installed, IMPORTS_IN_A_FUNCTION)
    executor = None if jobs is None else AtOnce()
    options: dict[str, Any] = {"cancel": True, "strategy": strategy, "executor": executor}
    found = lab.explore(module.program, **options)
    assert found.verdict == "proved"
    assert not any("by a scope" in it for it in found.not_explored)
    (failure,) = lab.explore(module.closes_late, **options).failures
    assert failure.token.endswith("/scope")


@BACKENDS
@pytest.mark.parametrize("kind", ["leak", "stall", "exception", "livelock"])
def test_a_kind_of_failure_is_passed_over(kind: lab.FailureKind, backend: lab.BackendName) -> None:
    async def program() -> None:
        if kind == "leak":
            checkpoint()  # type: ignore[unused-coroutine]
        elif kind == "stall":
            await anyio.Event().wait()
        elif kind == "exception":
            raise KeyError
        while kind == "livelock":
            await checkpoint()

    options: Any = {"backend": backend, "step_limit": 100, "max_executions": 20}
    (failure,) = lab.explore(program, **options).failures
    assert failure.kind == kind
    found = lab.explore(program, ignore=[kind], **options)
    assert not found.failures
    assert any(f"failures of the kind {kind} (ignored: " in it for it in found.not_explored)


@BACKENDS
def test_what_is_behind_a_passed_over_failure_is_found(backend: lab.BackendName) -> None:
    async def program() -> None:
        order = []
        checkpoint()  # type: ignore[unused-coroutine]

        async def write(letter: str) -> None:
            await checkpoint()
            order.append(letter)

        await together(partial(write, "a"), partial(write, "b"))
        assert order == ["a", "b"]

    (failure,) = lab.explore(program, backend=backend, ignore="leak").failures
    assert failure.kind == "exception"


def test_the_rules_are_those_of_workers_too() -> None:
    program = doubling(Doubler)
    assert lab.explore(program, cancel="worker", executor=AtOnce(by_reference=True)).failures
    lab.explore(program, cancel=True, executor=AtOnce(by_reference=True)).assert_holds()


@pytest.mark.parametrize(
    ("options", "message"),
    [({"times": 0}, "times is 0"), ({"by": "force"}, "by is 'force'; expected 'scope'")],
)
def test_rules_that_cannot_be_are_refused(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lab.cancellable(**options)


# --- what a program can ask


class Cache:
    """Fetches each key once; the reader that fetches it may be cancelled."""

    def __init__(self) -> None:
        self.data: dict[str, int] = {}
        self.pending: dict[str, anyio.Event] = {}

    async def get(self, key: str) -> int:
        while key not in self.data:
            if key in self.pending:
                await self.pending[key].wait()
                continue
            over = self.pending[key] = anyio.Event()
            try:
                await checkpoint()
                self.data[key] = 1
            finally:
                del self.pending[key]
                over.set()
        return self.data[key]


async def two_readers_of_a_cache(*, careful: bool = True) -> None:
    """The program of docs/lab.md."""
    cache, answers = Cache(), []

    async def reader() -> None:
        answers.append(await cache.get("key"))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(reader, name="first")
        tasks.start_soon(reader, name="second")
    assert not cache.pending
    if not (careful and lab.has_cancelled()):
        assert answers == [1, 1], answers


@BACKENDS
@pytest.mark.parametrize("cancel", [True, "scope", "first", "second"])
def test_an_assertion_that_holds_without_a_cancellation_asks_whether_there_was_one(
    cancel: lab.Cancel, backend: lab.BackendName
) -> None:
    assert lab.explore(two_readers_of_a_cache, cancel=cancel, backend=backend).complete
    careless = partial(two_readers_of_a_cache, careful=False)
    assert lab.explore(careless, backend=backend).complete
    (failure,) = lab.explore(careless, cancel=cancel, backend=backend).failures
    assert failure.report.startswith("exception: AssertionError: [")


async def second_reader_of_a_cache() -> None:
    """The same, with an assertion on the task that is spared."""
    cache, answers = Cache(), {}

    async def reader(name: str) -> None:
        answers[name] = await cache.get("key")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(reader, "first", name="first")
        tasks.start_soon(reader, "second", name="second")
    assert "second" in answers


@BACKENDS
def test_an_assertion_on_a_task_that_is_spared_holds(backend: lab.BackendName) -> None:
    """But an anyio group cancels the others if one is cancelled natively; docs/lab.md says so."""
    by_scope = lab.cancellable("first", by="scope")
    assert lab.explore(second_reader_of_a_cache, cancel=by_scope, backend=backend).complete
    if backend == "asyncio":
        natively = lab.cancellable("first", by="native")
        (failure,) = lab.explore(second_reader_of_a_cache, cancel=natively).failures
        assert "here the lab cancels 0.0 natively" in failure.report


@BACKENDS
@STRATEGIES
def test_whether_the_lab_has_cancelled_is_told_from_that_moment_on_and_in_a_replay(
    strategy: lab.StrategyName, backend: lab.BackendName
) -> None:
    async def program() -> None:
        told = [lab.has_cancelled()]
        try:
            await checkpoint()
        except anyio.get_cancelled_exc_class():
            told.append(lab.has_cancelled())
            raise ValueError(told) from None

    options: Any = {"strategy": strategy, "backend": backend, "max_executions": 50}
    found = lab.explore(program, cancel=True, **options)
    (failure,) = found.failures
    assert failure.error is not None
    assert failure.error.args == ([False, True],)
    (again,) = lab.replay(program, failure.token).failures
    assert again.report == failure.report
    assert lab.explore(program, **options).verdict != "found"


def test_a_native_cancellation_is_told_too_and_one_that_comes_too_late() -> None:
    told: list[bool] = []

    async def program() -> None:
        await asyncio.sleep(0)
        task = asyncio.create_task(asyncio.sleep(0))
        await asyncio.wait([task])
        told.append(lab.has_cancelled())

    lab.explore(program, cancel="native").assert_holds()
    assert set(told) == {True, False}


@BACKENDS
def test_a_cancellation_of_the_programs_own_is_none_of_the_lab(backend: lab.BackendName) -> None:
    async def program() -> None:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await checkpoint()
        assert scope.cancelled_caught
        assert not lab.has_cancelled()

    lab.explore(program, backend=backend).assert_holds()


@BACKENDS
def test_outside_of_an_execution_nothing_was_cancelled(backend: lab.BackendName) -> None:
    between: list[bool] = []

    async def program() -> None:
        await checkpoint()

    assert not lab.has_cancelled()
    lab.explore(
        program, cancel=True, backend=backend, reset=lambda: between.append(lab.has_cancelled())
    )
    assert not lab.has_cancelled()
    assert between
    assert not any(between)
    anyio.run(two_readers_of_a_cache, backend=backend)


# --- tasks of what is no coroutine of Python's own


def lending(kind: str) -> Program:
    """A task takes a book, and gives it back if it is not cancelled."""

    async def program() -> None:
        books = ["book"]

        async def lend() -> None:
            books.clear()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            books.append("book")

        @types.coroutine
        def lend_by_hand() -> Any:
            books.clear()
            yield
            yield
            books.append("book")

        async def lend_once() -> AsyncGenerator[None, None]:
            await lend()
            yield

        once = lend_once()
        made: Any = {
            "coroutine": lend,
            "by its methods": lambda: ByItsMethods(lend()),
            "generator": lend_by_hand,
            "step of an async generator": once.__anext__,
        }
        await asyncio.wait([asyncio.create_task(made[kind](), name="worker")])
        await once.aclose()
        assert books, "the book is away"

    return program


KINDS = ["coroutine", "by its methods", "step of an async generator"]
KINDS += ["generator"] if sys.version_info < (3, 12) else []


@pytest.mark.parametrize("cancel", [True, "worker", "native", "scope"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_task_is_cancelled_whatever_kind_of_coroutine_it_runs(kind: str, cancel: Any) -> None:
    (failure,) = lab.explore(lending(kind), cancel=cancel).failures
    assert "the book is away" in failure.report
    assert "here the lab cancels 0.0 " in failure.report
    (again,) = lab.replay(lending(kind), failure.token).failures
    assert again.token == failure.token
    if kind == "generator":
        assert "test_cancellable.py" in failure.report


@pytest.mark.parametrize("kind", KINDS)
def test_a_task_of_any_kind_that_the_program_cancels_before_it_begins_leaks_nothing(
    kind: str,
) -> None:
    async def program() -> None:
        async def numbers() -> AsyncGenerator[int, None]:
            yield 1

        async def nothing() -> None:
            pass

        @types.coroutine
        def by_hand() -> Any:
            yield

        made: Any = {
            "coroutine": nothing,
            "by its methods": lambda: ByItsMethods(nothing()),
            "generator": by_hand,
            "step of an async generator": lambda: numbers().__anext__(),
        }
        task = asyncio.create_task(made[kind]())
        task.cancel()
        await asyncio.wait([task])
        asyncio.create_task(made[kind]())  # noqa: RUF006 - it never begins

    lab.explore(program, cancel="native").assert_holds()


@pytest.mark.parametrize("cancel", [False, True])
def test_a_task_of_what_is_no_coroutine_is_refused_as_without_the_lab(cancel: bool) -> None:
    async def program() -> None:
        with pytest.raises(TypeError, match="a coroutine was expected, got 5"):
            asyncio.create_task(5)  # type: ignore[arg-type]  # noqa: RUF006 - refused

    lab.explore(program, cancel=cancel).assert_holds()


def test_the_task_that_closes_a_dropped_generator_is_not_cancelled() -> None:
    closed: list[str] = []

    async def program() -> None:
        async def numbers() -> AsyncGenerator[int, None]:
            try:
                yield 1
            finally:
                await asyncio.sleep(0)
                closed.append("closed")

        other = asyncio.create_task(asyncio.sleep(0))
        async for _ in numbers():
            break
        await asyncio.wait([other])
        await asyncio.sleep(1)
        assert closed.pop()

    lab.explore(program, cancel=lambda task: task.name != "0").assert_holds()


def test_a_task_of_trio_is_cancelled_whatever_kind_of_coroutine_it_runs() -> None:
    async def program() -> None:
        books = ["book"]

        async def lend() -> None:
            books.clear()
            await checkpoint()
            books.append("book")

        async with trio.open_nursery() as tasks:
            tasks.start_soon(lambda: ByItsMethods(lend()), name="worker")
        assert books, "the book is away"

    (failure,) = lab.explore(program, backend="trio", cancel="worker").failures
    assert "the book is away" in failure.report


# --- tasks that trio keeps to itself


async def reads_a_safe_channel() -> None:
    @trio.as_safe_channel
    async def numbers() -> AsyncGenerator[int, None]:
        for number in range(3):
            yield number

    async with numbers() as channel:
        assert [number async for number in channel] == [0, 1, 2]


async def checks_a_stream() -> None:
    async def make() -> Any:
        return trio.testing.memory_stream_one_way_pair()

    await trio.testing.check_one_way_stream(make, None)


@pytest.mark.parametrize(
    ("program", "task"),
    [(reads_a_safe_channel, "_move_elems_to_channel"), (checks_a_stream, "do_send_all")],
)
def test_a_task_in_which_trio_runs_a_function_of_its_own_is_not_cancelled(
    program: Program, task: str
) -> None:
    found = lab.explore(program, backend="trio", cancel=True, strategy="fifo")
    found.assert_holds()
    (spared,) = (it for it in found.not_explored if "that a library made" in it)
    assert task in spared
    named = lab.explore(program, backend="trio", cancel=f"*{task}", strategy="fifo")
    assert named.failures  # the caller may ask for it


@pytest.mark.parametrize("group", ["nursery", "anyio"])
def test_a_task_in_which_the_program_runs_a_function_of_trio_is_cancelled(group: str) -> None:
    async def program() -> None:
        begin = trio.current_time()
        if group == "anyio":
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(trio.sleep, 1)
        else:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.sleep, 1)
        slept.add(trio.current_time() - begin)

    slept: set[float] = set()
    found = lab.explore(program, backend="trio", cancel=True)
    found.assert_holds()
    assert not any("that a library made" in it for it in found.not_explored)
    assert {round(it) for it in slept} == {0, 1}


# --- the lab's scope around a task


@BACKENDS
@pytest.mark.parametrize("cancel", [True, "native", "scope", "main"])
def test_what_a_thread_calls_by_anyio_is_as_without_the_lab(
    cancel: Any, backend: lab.BackendName
) -> None:
    async def one() -> int:
        await checkpoint()
        return 1

    async def program() -> None:
        assert await anyio.to_thread.run_sync(anyio.from_thread.run, one) == 1

    if backend == "asyncio" or cancel != "native":
        lab.explore(program, backend=backend, cancel=cancel).assert_holds()


def test_a_task_that_a_thread_has_called_for_is_cancelled_if_the_caller_names_it() -> None:
    async def one() -> int:
        await checkpoint()
        return 1

    def call() -> str:
        try:
            return str(anyio.from_thread.run(one))
        except (asyncio.CancelledError, concurrent.futures.CancelledError):
            return "cancelled"

    async def program() -> None:
        results.add(await anyio.to_thread.run_sync(call))

    results: set[str] = set()
    lab.explore(program, cancel="*task_wrapper").assert_holds()
    assert results == {"1", "cancelled"}


@pytest.mark.parametrize("cancel", [True, "native", "scope"])
def test_a_task_may_end_in_a_scope_that_it_has_not_left(cancel: Any) -> None:
    async def child() -> None:
        anyio.CancelScope().__enter__()
        await asyncio.sleep(0)

    async def program() -> None:
        task = asyncio.create_task(child())
        await asyncio.wait([task])
        assert task.cancelled() or task.exception() is None

    lab.explore(program, cancel=cancel).assert_holds()
