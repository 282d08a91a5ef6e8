"""What the lab calls "all" is all: the stock order comes first, state that survives an execution is
told, and a proof says what it is of."""

from __future__ import annotations

import asyncio
import dataclasses
import importlib
import inspect
import multiprocessing
import re
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import anyio
import pytest
from anyio.lowlevel import checkpoint

from mbufpools import lab
from mbufpools.cli import main
from mbufpools.lab._execute import execute
from mbufpools.lab._explore import STRATEGIES
from mbufpools.lab._options import Options
from mbufpools.lab._schedule import Schedule
from mbufpools.lab._strategies import Exhaustive
from mbufpools.lab._strategy import Strategy
from mbufpools.lab._token import parse_token
from tests.kit import generated_callbacks, generated_programs
from tests.kit.generated_programs import NATIVE, PLAIN, WITH_CANCELLATION, generate
from tests.kit.state import imported
from tests.lab.test_parallel import AtOnce

BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])
EACH_STRATEGY = pytest.mark.parametrize("strategy", list(STRATEGIES))
Program = Callable[[], Awaitable[Any]]


def schedules_of(
    program: Program, strategy: Strategy, backend: lab.BackendName, limit: int = 10_000
) -> list[Schedule]:
    """Execute the schedules of a strategy."""
    schedules: list[Schedule] = []
    execute(
        program,
        strategy,
        Options(backend=backend, max_executions=limit, max_failures=None, step_limit=500),
        on_execution=lambda schedule, outcome: schedules.append(schedule),
    )
    return schedules


async def two(function: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(function)
        group.start_soon(function)


# The stock order


@pytest.fixture
def trace(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What generated programs do, in the order in which all of their tasks do it."""
    trace: list[Any] = []
    do = generated_programs._World.do

    async def traced(world: Any, name: str, which: int, number: int, held: set[int]) -> Any:
        trace.append((number, name, which, "begins"))
        result = await do(world, name, which, number, held)
        trace.append((number, name, which, "has", result))
        return result

    monkeypatch.setattr(generated_programs._World, "do", traced)
    return trace


@pytest.mark.parametrize("seeds", [range(15), pytest.param(range(15, 40), marks=pytest.mark.prove)])
@pytest.mark.parametrize("operations", [PLAIN, WITH_CANCELLATION, NATIVE])
def test_the_first_execution_takes_the_order_that_asyncio_takes(
    operations: tuple[str, ...], seeds: range, trace: list[Any]
) -> None:
    for seed in seeds:
        program = generate(seed, operations).program
        trace.clear()
        stalls = False
        try:
            lab.run(program, patience=0)
        except (lab.Stalled, BaseExceptionGroup):
            stalls = True
        taken = list(trace)
        trace.clear()
        found = lab.explore(program, max_executions=1, step_limit=2000)
        assert trace[: len(taken)] == taken, seed  # then the same schedule is executed again
        assert [failure.kind for failure in found.failures] == ["stall"] * stalls, seed


@pytest.mark.parametrize(
    "seeds", [range(60), pytest.param(range(60, 300), marks=pytest.mark.prove)]
)
def test_the_first_execution_takes_the_order_of_callbacks_that_asyncio_takes(
    seeds: range,
) -> None:
    for seed in seeds:
        callbacks = generated_callbacks.generate(seed)
        lab.run(callbacks.program, patience=0)
        taken, seen = list(callbacks.trace), callbacks.seen
        lab.explore(callbacks.program, max_executions=1).assert_holds()
        assert callbacks.trace == taken, (seed, callbacks.tasks)
        assert callbacks.seen == seen


@BACKENDS
@EACH_STRATEGY
def test_the_first_execution_is_the_stock_order_under_every_strategy(
    strategy: str, backend: lab.BackendName
) -> None:
    options = Options(backend=backend, max_executions=2, max_preemptions=1)
    for seed in range(4):
        program = generate(seed, PLAIN).program
        first, *_ = schedules_of(program, STRATEGIES[strategy].of(options), backend, 2)
        (stock,) = schedules_of(program, STRATEGIES["fifo"].of(options), backend, 1)
        assert (first.rule, first.deviations) == ("stock", {})
        assert [(it.task, it.number) for it in first.steps] == [
            (it.task, it.number) for it in stock.steps
        ]


def writes(forbidden: str, orders: list[str] | None = None) -> Program:
    """Two tasks that write their letters in turn, and must not write them in one order."""

    async def program() -> None:
        written: list[str] = []

        async def write(letter: str) -> None:
            for _ in range(3):
                written.append(letter)
                await checkpoint()
            written.append(letter)

        async with anyio.create_task_group() as group:
            group.start_soon(write, "a")
            group.start_soon(write, "b")
        if orders is not None:
            orders.append("".join(written))
        assert "".join(written) != forbidden

    return program


@BACKENDS
@EACH_STRATEGY
def test_a_bug_of_the_stock_order_is_found_at_once_and_its_report_says_which_order_it_is(
    strategy: lab.StrategyName, backend: lab.BackendName
) -> None:
    program = writes("abababab")
    (failure,) = lab.explore(program, backend=backend, strategy=strategy).failures
    assert failure.found_at == 1
    assert failure.token == f"{backend}:"
    rule = {
        "asyncio": "in the order that asyncio itself takes",
        "trio": "in which the task runs that was ready first, one of the orders that trio takes",
    }[backend]
    assert f"schedule (task: its steps in a row, and where it stops), {rule}:\n" in failure.report
    (again,) = lab.replay(program, failure.token).failures
    assert again.report == failure.report


@BACKENDS
def test_the_report_of_a_failure_with_threads_says_that_they_have_no_order(
    backend: lab.BackendName,
) -> None:
    async def program() -> None:
        await anyio.to_thread.run_sync(int)
        raise AssertionError

    (failure,) = lab.explore(program, backend=backend).failures
    assert failure.token == f"{backend}:"
    assert ", with threads as tasks (in reality they have no order):\n" in failure.report


@BACKENDS
@pytest.mark.parametrize("delays", [1, 2])
def test_a_bug_few_delays_from_the_stock_order_is_found_that_two_preemptions_miss(
    delays: int, backend: lab.BackendName
) -> None:
    orders: list[str] = []
    program = writes("", orders)
    run_on = len(schedules_of(program, Exhaustive(2), backend))
    reached = set(orders[:run_on])
    orders.clear()
    near = schedules_of(program, Exhaustive(0, delays, [("stock", ())]), backend)
    missed = [
        order
        for order, schedule in zip(orders, near, strict=False)
        if len(schedule.deviations) == delays and order not in reached
    ]
    assert len(missed) > 2
    for order in missed[:3]:
        assert order not in reached
        buggy = writes(order)
        (failure,) = lab.explore(buggy, backend=backend).failures
        _, deviations, rule = parse_token(failure.token)
        assert (len(deviations), rule) == (delays, "stock")
        assert f"but for {delays} deviation{'s' * (delays > 1)}:" in failure.report
        (again,) = lab.replay(buggy, failure.token).failures
        assert again.report == failure.report
        assert lab.explore(
            buggy, strategy="exhaustive", backend=backend, max_preemptions=0
        ).complete


# State that survives an execution


STATE = '''
import asyncio, functools
import anyio
from anyio.lowlevel import checkpoint

cache = {}
lock = asyncio.Lock()
client = None
kept = None
requests = 0

class Client:
    shared = None

    def __init__(self):
        self.connected = False

    async def connect(self):
        if not self.connected:
            await checkpoint()
            self.connected = True

class Pool:
    free = []

@functools.lru_cache
def settings():
    return {}

async def two(function):
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(function)
        tasks.start_soon(function)

async def module_cache():
    async def get():
        if "key" not in cache:
            await checkpoint()
            cache["key"] = object()
    await two(get)

async def module_lock():
    async def use():
        async with lock:
            await checkpoint()
    await two(use)

async def lock_in_few_schedules():
    """Two tasks meet at the lock only in schedules that are not the first."""
    async def use(turns):
        for _ in range(turns):
            await asyncio.sleep(0)
        async with lock:
            await asyncio.sleep(0)
    async with asyncio.TaskGroup() as group:
        group.create_task(use(0))
        group.create_task(use(3))

async def future():
    global kept
    kept = kept or asyncio.get_running_loop().create_future()
    wakes = asyncio.get_running_loop().call_soon(lambda: kept.done() or kept.set_result(None))
    if not kept.done():
        await kept
        kept = asyncio.get_running_loop().create_future()
    wakes.cancel()

async def singleton():
    async def use():
        global client
        client = client or Client()
        await client.connect()
    await two(use)

async def class_attribute():
    async def use():
        Client.shared = Client.shared or Client()
        await Client.shared.connect()
    await two(use)

async def list_of_a_class():
    async def use():
        if not Pool.free:
            await checkpoint()
            Pool.free.append(object())
    await two(use)

async def lru_cache():
    async def use():
        if "host" not in settings():
            await checkpoint()
            settings()["host"] = "localhost"
    await two(use)

async def counter():
    async def use():
        global requests
        requests += 1
        if requests <= 3:
            await checkpoint()
    await two(use)

def closure():
    known = []
    async def in_a_closure():
        async def use():
            if not known:
                await checkpoint()
                known.append(1)
        await two(use)
    return in_a_closure

in_a_closure = closure()

async def lost_update():
    """Only a cold start has the bug, and the first schedule does not show it."""
    async def get(checkpoints):
        for _ in range(checkpoints):
            await checkpoint()
        if "key" not in cache:
            await checkpoint()
            cache["key"] = object()
        return cache["key"]

    found = []
    async def user(checkpoints):
        found.append(await get(checkpoints))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(user, 0)
        tasks.start_soon(user, 1)
    assert found[0] is found[1], "two objects"

def forget():
    global client, requests, lock
    client, requests, lock = None, 0, asyncio.Lock()
    Client.shared = None
    Pool.free.clear()
    cache.clear()
    settings.cache_clear()
'''

SURVIVES = {
    "module_cache": "cache",
    "module_lock": "lock",
    "singleton": "client",
    "class_attribute": "Client.shared",
    "list_of_a_class": "Pool.free",
    "lru_cache": "settings",
    "counter": "requests",
}
"""What survives an execution of each program, and so changes what later ones do."""

WITH_STATE = pytest.mark.parametrize(
    ("name", "backend", "strategy"),
    [
        (name, backend, strategy)
        for name in SURVIVES
        for backend in ("asyncio", "trio")
        if (name, backend) != ("module_lock", "trio")
        for strategy in STRATEGIES
        if strategy == "exhaustive" or name in ("module_cache", "counter")
    ],
)


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A module whose variables survive an execution."""
    with imported(STATE, tmp_path, monkeypatch) as module:
        yield module


FIRST_STEP = r"Execution 1 was repeated: (before )?step \d of task 0\.\d "
OTHER_LOOP = (
    r"In execution \d the program uses an asyncio Lock that is bound to the event loop of an "
)


@WITH_STATE
def test_state_that_survives_an_execution_is_told_with_the_first_step_that_differs(
    name: str, backend: lab.BackendName, strategy: lab.StrategyName, state: ModuleType
) -> None:
    with pytest.raises(lab.LabError) as caught:
        lab.explore(getattr(state, name), backend=backend, strategy=strategy, max_executions=20)
    said = str(caught.value)
    assert "the program does not do the same in the same schedule, so nothing can be pro" in said
    assert re.search(OTHER_LOOP if name == "module_lock" else FIRST_STEP, said), said
    assert re.search(rf"state that changed since the .*: {state.__name__}\.{SURVIVES[name]}", said)
    assert "reset=" in said
    assert "fresh=" in said


@WITH_STATE
def test_fresh_modules_and_a_reset_cure_what_survives(
    name: str, backend: lab.BackendName, strategy: lab.StrategyName, state: ModuleType
) -> None:
    options: dict[str, Any] = {"backend": backend, "strategy": strategy, "max_executions": 40}
    fresh = lab.explore(getattr(state, name), fresh=[state], **options)
    by_name = lab.explore(getattr(state, name), fresh=[state.__name__], **options)
    reset = lab.explore(getattr(state, name), reset=state.forget, **options)
    assert fresh == by_name == reset
    assert not fresh.failures
    assert fresh.complete or strategy in ("random", "pct")


def test_a_lock_of_another_execution_is_told_and_is_no_failure(
    state: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(lab.LabError, match=OTHER_LOOP) as caught:
        lab.explore(state.lock_in_few_schedules)
    assert f"{state.__name__}.lock (an asyncio Lock, bound to the event loop" in str(caught.value)
    with pytest.raises(lab.LabError, match="the program uses an asyncio Lock that is bound"):
        lab.replay(state.lock_in_few_schedules, "asyncio/run-on:0.0@1>0.1")
    lab.explore(state.lock_in_few_schedules, fresh=[state]).assert_holds()
    with pytest.raises(SystemExit) as ended:
        main(["explore", f"{state.__file__}:lock_in_few_schedules"])
    assert ended.value.code != 0
    assert "is bound to the event loop of an earlier execution" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["Event", "Queue", "Semaphore", "Condition"])
def test_each_primitive_of_another_execution_is_told(kind: str) -> None:
    """A program that handles the error is refused, too."""
    primitive: Any = getattr(asyncio, kind)()
    bound: Any = getattr(primitive, "_lock", primitive)
    before = asyncio.new_event_loop()
    before.close()
    bound._loop = before

    async def program() -> None:
        async with asyncio.timeout(1):
            try:
                await checkpoint()
                bound._get_loop()
            except RuntimeError:
                await checkpoint()

    with pytest.raises(lab.LabError, match="In execution 1 the program uses an asyncio "):
        lab.explore(program)


def test_a_future_of_another_execution_is_told(state: ModuleType) -> None:
    with pytest.raises(lab.LabError, match="In execution 2 the program uses a future or a task "):
        lab.explore(state.future, strategy="random", max_executions=5)


def test_a_failure_of_what_earlier_executions_left_is_told() -> None:
    """Some schedules leave a mark, and the third that does so fails."""
    overlaps: list[int] = []

    async def program() -> None:
        inside: list[int] = []

        async def use(turns: int) -> None:
            for _ in range(turns):
                await asyncio.sleep(0)
            inside.append(1)
            if len(inside) == 2:
                overlaps.append(1)
            if len(overlaps) > 2:
                inside.clear()
                overlaps.append(1)
                raise KeyError("more overlaps than two tasks can have")
            await asyncio.sleep(0)
            inside.clear()

        async with asyncio.TaskGroup() as group:
            group.create_task(use(0))
            group.create_task(use(3))

    with pytest.raises(lab.LabError, match="does not do the same in the same schedule"):
        lab.explore(program)


def test_state_in_a_closure_is_told_although_the_lab_cannot_name_it(state: ModuleType) -> None:
    with pytest.raises(lab.LabError, match=FIRST_STEP) as caught:
        lab.explore(state.in_a_closure)
    assert "state that survives an execution (a module's variable, a cache, a singl" in str(
        caught.value
    )


def test_a_program_that_was_refused_before_is_proved_with_a_remark(state: ModuleType) -> None:
    """The second exploration finds the cache warm, so every execution is the same."""
    with pytest.raises(lab.LabError, match=FIRST_STEP):
        lab.explore(state.module_cache)
    remark = (
        "this process has explored the program before, and state survived an execution "
        f"({state.__name__}.cache): what is proved is only what happens once that state is there"
    )
    found = lab.explore(state.module_cache)
    assert remark in found.remarks
    assert f"; but {remark}" in str(found)
    assert not lab.explore(state.module_cache, fresh=[state]).remarks
    assert remark not in lab.explore(state.singleton, fresh=[state]).remarks


@BACKENDS
def test_a_bug_of_the_cold_start_alone_is_found_once_the_state_is_made_anew(
    backend: lab.BackendName, state: ModuleType
) -> None:
    with pytest.raises(lab.LabError, match=rf"{state.__name__}\.cache"):
        lab.explore(state.lost_update, backend=backend)
    for options in ({"fresh": [state]}, {"reset": state.forget}):
        (failure,) = lab.explore(state.lost_update, backend=backend, **options).failures
        assert "two objects" in failure.report
        (again,) = lab.replay(state.lost_update, failure.token, **options).failures
        assert again.report == failure.report


def test_a_failure_that_an_earlier_execution_has_caused_is_no_failure_of_its_schedule(
    state: ModuleType,
) -> None:
    """The program fails from the second execution on, so the token of the failure is not true."""

    async def program() -> None:
        await two(checkpoint)
        state.cache[len(state.cache)] = None
        assert len(state.cache) < 2

    with pytest.raises(lab.LabError, match=r"Execution 1 was repeated: it ended at first in succ"):
        lab.explore(program)
    assert lab.explore(program, reset=state.cache.clear).complete


@pytest.mark.parametrize("strategy", ["exhaustive", "random", "pct"])
def test_processes_tell_and_cure_state_that_survives(
    strategy: lab.StrategyName, state: ModuleType
) -> None:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as executor:
        options: dict[str, Any] = {
            "strategy": strategy,
            "max_executions": 30,
            "executor": executor,
        }
        with pytest.raises(lab.LabError, match=FIRST_STEP) as caught:
            lab.explore(state.module_cache, **options)
        assert f"{state.__name__}.cache" in str(caught.value)
        for cure in ({"fresh": [state]}, {"reset": state.forget}):
            assert not lab.explore(state.module_cache, **options, **cure).failures


@BACKENDS
@pytest.mark.parametrize("fresh_first", [True, False])
def test_a_reset_that_holds_an_object_of_a_module_works_before_and_after_fresh(
    fresh_first: bool, backend: lab.BackendName, state: ModuleType
) -> None:
    """``state.cache.clear`` is bound to one dict, and ``fresh`` makes another one."""
    cures: list[dict[str, Any]] = [{"fresh": [state]}, {"reset": state.cache.clear}]
    for cure in cures if fresh_first else reversed(cures):
        assert lab.explore(state.module_cache, backend=backend, **cure).complete


def test_a_module_that_was_executed_again_has_its_own_variables_at_the_end(
    state: ModuleType,
) -> None:
    """Also if the exploration finds a failure, is refused, or is a replay."""
    before = dict(vars(state))
    (failure,) = lab.explore(state.lost_update, fresh=[state]).failures
    assert vars(state) == before
    lab.replay(state.lost_update, failure.token, fresh=[state])
    assert vars(state) == before
    with pytest.raises(lab.LabError, match="does not do the same in the same schedule"):
        lab.explore(state.in_a_closure, fresh=[state])
    assert vars(state).items() >= before.items()
    assert state.cache is before["cache"] is state.module_cache.__globals__["cache"]


def test_what_a_module_gets_while_it_is_executed_again_is_gone_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for a submodule, which Python imports only once."""
    (tmp_path / "grows").mkdir()
    (tmp_path / "grows" / "__init__.py").write_text(
        "kept = []\n\nasync def program():\n    global late\n    late = 1\n    import grows.inner\n"
    )
    (tmp_path / "grows" / "inner.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("grows")
    kept = module.kept
    assert lab.explore(module.program, fresh=["grows"]).complete
    assert module.kept is kept
    assert not hasattr(module, "late")
    assert module.inner is sys.modules.pop("grows.inner")
    del sys.modules["grows"]


def test_a_module_that_cannot_be_executed_again_is_refused() -> None:
    for module, message in (
        ("sys", "module 'sys' cannot be executed again, since it has no Python source; use reset="),
        ("nowhere.to_be_seen", "module 'nowhere.to_be_seen' is not imported; name modules as sys"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            lab.explore(writes(""), fresh=[module])
    with pytest.raises(ValueError, match=r"fresh is 'json'; expected a list of modules, such as"):
        lab.explore(writes(""), fresh="json")


def test_what_a_reset_raises_comes_through() -> None:
    def reset() -> None:
        raise OSError("no disk")

    with pytest.raises(OSError, match="no disk"):
        lab.explore(writes(""), reset=reset)
    assert lab.explore(writes(""), max_preemptions=0).complete  # the lab still works


def test_the_command_tells_and_cures_state_that_survives(
    state: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    target = f"{state.__file__}:module_cache"
    monkeypatch.setattr(sys, "path", list(sys.path))
    sys.modules.pop(state.__name__)

    def explore(*options: str) -> tuple[int, str]:
        try:
            status = main(["explore", target, *options])
        except SystemExit as caught:
            status = int(caught.code or 0)
        out, err = capsys.readouterr()
        return status, out + err

    status, said = explore()
    assert status == 2
    assert re.search(FIRST_STEP, said)
    assert f"{state.__name__}.cache" in said
    assert "Traceback" not in said
    for cure in (
        ("--fresh", "."),
        ("--fresh", state.__name__),
        ("--reset", f"{state.__file__}:forget"),
        ("--reset", f"{state.__name__}:forget"),
    ):
        status, said = explore(*cure)
        assert status == 0, said
        assert said.startswith("proved: no failure in ")
    assert explore("--reset", f"{state.__file__}:module_lock")[0] == 2  # it is no plain function
    target = f"{state.__file__}:lost_update"
    status, said = explore("--fresh", ".")
    assert status == 1
    token = re.search(r"--token '?(\S+?)'?\n", said)
    assert token is not None
    status, again = explore("--fresh", ".", "--token", token[1])
    assert status == 1
    assert "two objects" in again


MARKED = """
import pytest
from anyio.lowlevel import checkpoint
import anyio
import test_it

cache = {}

def forget():
    cache.clear()

async def use():
    if "key" not in cache:
        await checkpoint()
        cache["key"] = object()

async def both():
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(use)
        tasks.start_soon(use)

@pytest.mark.explore(backend="asyncio")
async def test_state():
    await both()

@pytest.mark.explore(reset=forget)
async def test_reset():
    await both()

@pytest.mark.explore(reset=forget, strategy="random", max_executions=20)
async def test_reset_at_random():
    await both()

@pytest.mark.explore(fresh=["holder"])
async def test_fresh():
    import holder
    await holder.use()
"""


def test_the_mark_tells_and_cures_state_that_survives(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    pytester.makepyfile(test_it=MARKED)
    pytester.makepyfile(
        holder="from anyio.lowlevel import checkpoint\n"
        "import anyio\n"
        "ready = []\n"
        "async def one():\n"
        "    if not ready:\n"
        "        await checkpoint()\n"
        "        ready.append(1)\n"
        "async def use():\n"
        "    async with anyio.create_task_group() as tasks:\n"
        "        tasks.start_soon(one)\n"
        "        tasks.start_soon(one)\n",
        conftest="import holder\n",
    )
    pytester.syspathinsert()
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=6, failed=1)
    result.stdout.fnmatch_lines(
        [
            "*the program does not do the same in the same schedule, so nothing can be proved *",
            "FAILED test_it.py::test_state[[]asyncio[]] - *",
        ]
    )
    assert "test_it.cache" in result.stdout.str()


# What a proof is of


NO_CHOICE = "there was never a choice: one task at a time could run, so one schedule is all"


@BACKENDS
@pytest.mark.parametrize("strategy", ["exhaustive", "dpor", "fifo"])
def test_a_proof_of_a_program_without_a_choice_says_so(
    strategy: lab.StrategyName, backend: lab.BackendName
) -> None:
    async def program() -> None:
        await checkpoint()

    found = lab.explore(program, strategy=strategy, backend=backend)
    assert found.complete
    assert found.remarks == (NO_CHOICE,)
    assert f"; but {NO_CHOICE}; not explored: " in str(found)


def test_a_proof_in_which_a_task_never_ran_says_so() -> None:
    """asyncio stops when the main task is over, one step later for what is ready by then."""

    async def never() -> None:
        raise AssertionError

    async def make() -> None:
        tasks.append(asyncio.create_task(never()))

    async def program() -> None:
        await two(checkpoint)
        tasks.append(asyncio.create_task(make()))

    tasks: list[asyncio.Task[None]] = []
    found = lab.explore(program)
    assert found.complete
    remark = f"a task that was made never ran in any execution: 0.2.0 {never.__qualname__!r}"
    assert found.remarks == (remark,)
    assert f"; but {remark}; not explored: " in str(found)


@pytest.mark.parametrize("cancel", [False, "scope"])
def test_a_proof_in_which_a_task_was_always_cancelled_before_it_began_says_so(
    cancel: bool | Literal["scope"],
) -> None:
    async def never() -> None:
        raise AssertionError

    async def program() -> None:
        task = asyncio.create_task(never())
        task.cancel()
        await asyncio.gather(task, asyncio.sleep(0), return_exceptions=True)

    found = lab.explore(program, cancel=cancel)
    assert found.complete
    assert found.remarks == (
        f"a task that was made never ran in any execution: 0.0 {never.__qualname__!r}",
    )


@dataclasses.dataclass
class Job:
    made: float = dataclasses.field(default_factory=time.time)


def test_a_job_that_is_too_old_is_found_where_a_dataclass_holds_the_clock() -> None:
    async def program() -> None:
        job = Job()
        await asyncio.sleep(0.2)
        if time.time() - job.made > 0.1:
            raise TimeoutError("the job is too old")

    (failure,) = lab.explore(program).failures
    assert "the job is too old" in failure.report


@BACKENDS
def test_a_proof_of_a_program_with_choices_has_no_remarks(backend: lab.BackendName) -> None:
    found = lab.explore(writes(""), backend=backend, max_preemptions=0)
    assert found.complete
    assert found.remarks == ()
    assert "; but " not in str(found)


CALLBACKS = "other orders of plain callbacks, or of a set of tasks, than first in, first out"
SYSTEM = "other orders of trio's own tasks, or of a set of tasks"
MID_WAIT = (
    "cancellations in the middle of a wait, or once two other steps have run since the task was "
    "woken (lab.cancellable(mid_wait=True))"
)
THREADS = "threads in the middle of a step (their own, or one of the event loop), I/O and real time"


@pytest.mark.parametrize(
    ("backend", "cancel", "expected"),
    [
        ("asyncio", False, ("cancellations (cancel=True)", CALLBACKS, THREADS)),
        ("trio", False, ("cancellations (cancel=True)", SYSTEM, THREADS)),
        ("asyncio", True, (MID_WAIT, CALLBACKS, THREADS)),
        ("trio", True, (MID_WAIT, SYSTEM, THREADS)),
    ],
)
def test_a_proof_says_what_was_not_explored(
    backend: lab.BackendName, cancel: bool, expected: tuple[str, ...]
) -> None:
    async def program() -> None:
        await two(checkpoint)

    found = lab.explore(program, backend=backend, cancel=cancel)
    assert found.complete
    assert found.not_explored == expected
    assert str(found).endswith(f"; not explored: {'; '.join(expected)}")


@pytest.mark.parametrize("options", [{"max_executions": 3}, {"strategy": "random"}])
def test_what_is_no_proof_does_not_say_what_it_is_of(options: dict[str, Any]) -> None:
    options = {"max_executions": 20, **options}
    found = lab.explore(writes(""), **options)
    assert not found.complete
    assert found.remarks == ()
    assert "; " not in str(found)
    failed = lab.explore(writes("abababab"))
    assert "not explored" not in str(failed)


# Slices


def orders_within(lengths: tuple[int, ...], most: int) -> set[tuple[int, ...]]:
    """Return every order of the steps of tasks that never wait, as the docs define the bound: those
    of at most so many preemptions, and those of at most so many delays."""
    orders: set[tuple[int, ...]] = set()

    def run_on(left: tuple[int, ...], order: tuple[int, ...], cost: int) -> None:
        if not any(left):
            orders.add(order)
        for task in range(len(left)):
            preempts = bool(order) and left[order[-1]] > 0 and task != order[-1]
            if left[task] and cost + preempts <= most:
                run_on(_less(left, task), (*order, task), cost + preempts)

    def stock(
        queue: tuple[int, ...], left: tuple[int, ...], order: tuple[int, ...], cost: int
    ) -> None:
        if not queue:
            orders.add(order)
        for place, task in enumerate(queue):
            delays = place > 0
            if cost + delays <= most:
                rest, less = queue[:place] + queue[place + 1 :], _less(left, task)
                stock((*rest, task) if less[task] else rest, less, (*order, task), cost + delays)

    run_on(lengths, (), 0)
    stock(tuple(range(len(lengths))), lengths, (), 0)
    return orders


def _less(left: tuple[int, ...], task: int) -> tuple[int, ...]:
    return (*left[:task], left[task] - 1, *left[task + 1 :])


@BACKENDS
def test_every_order_within_the_bound_is_executed_if_the_slice_is_long_enough(
    backend: lab.BackendName,
) -> None:
    lengths = (24, 2)
    executed: set[tuple[int, ...]] = set()

    async def program() -> None:
        order: list[int] = []

        async def work(task: int) -> None:
            for step in range(lengths[task]):
                if step:
                    await checkpoint()
                order.append(task)

        async with anyio.create_task_group() as group:
            for task in range(len(lengths)):
                group.start_soon(work, task)
        executed.add(tuple(order))

    options: Any = {"backend": backend, "strategy": "exhaustive", "max_preemptions": 1}
    found = lab.explore(program, **options)
    assert found.verdict == "proved"
    assert found.bound == (
        "the schedules of at most 1 preemption in which no task takes more than 20 steps in a row "
        "while another could run, and those of at most 1 delay"
    )
    (remark,) = found.remarks
    assert "raise slice_steps=" in remark
    missing = orders_within(lengths, 1) - executed
    assert missing
    assert all("0" * 21 in "".join(map(str, order)) for order in missing)

    found = lab.explore(program, **options, slice_steps=21)
    assert found.bound == "the schedules of at most 1 preemption, and those of at most 1 delay"
    assert not found.remarks
    assert orders_within(lengths, 1) <= executed


@pytest.mark.parametrize("strategy", ["mixed", "exhaustive"])
@pytest.mark.parametrize("jobs", [None, 1])
def test_a_task_that_ran_for_longer_than_its_slice_is_told_in_the_bound(
    strategy: lab.StrategyName, jobs: int | None
) -> None:
    said = "in which no task takes more than 20 steps in a row while another could run"
    executor = None if jobs is None else AtOnce()
    options: Any = {"strategy": strategy, "max_preemptions": 0, "executor": executor}
    found = lab.explore(long_and_short, **options)
    assert said in found.bound
    assert said in str(found)
    (failure,) = lab.explore(long_and_short, **options, slice_steps=80).failures
    assert lab.replay(long_and_short, failure.token).failures


async def long_and_short() -> None:
    done = False

    async def long() -> None:
        nonlocal done
        for _ in range(60):
            await asyncio.sleep(0)
        done = True

    async def short() -> None:
        assert not done, "the other was first"

    async with asyncio.TaskGroup() as group:
        group.create_task(long())
        group.create_task(short())


def test_a_slice_that_hides_a_livelock_is_refused() -> None:
    with pytest.raises(ValueError, match="slice_steps is 6000, and step_limit 10000"):
        lab.explore(long_and_short, slice_steps=6000)
    with pytest.raises(ValueError, match="slice_steps is 0; expected an integer of at least 1"):
        lab.explore(long_and_short, slice_steps=0)


def test_the_command_raises_the_slice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    source = "import asyncio\n\n" + inspect.getsource(long_and_short)
    (tmp_path / "slices.py").write_text(source, "utf-8")
    options = ["--max-preemptions", "0"]
    assert main(["explore", "slices.py:long_and_short", *options]) == 0
    assert "more than 20 steps in a row while another could run" in capsys.readouterr().out
    assert main(["explore", "slices.py:long_and_short", *options, "--slice-steps", "80"]) == 1
