"""The lab comes to an end, and says what is true, also with programs that fight back: they go on
after their cancellation, raise what cannot be shown, explore in turn, or are interrupted."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from mbufpools import lab
from mbufpools.lab import _interrupts

BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])
STRATEGIES = pytest.mark.parametrize("strategy", ["exhaustive", "dpor"])
Program = Callable[[], Awaitable[Any]]

SOON = 5.0
"""Real seconds within which the lab must have an answer; each of these takes a fraction of one."""


@pytest.fixture(autouse=True)
def soon(request: pytest.FixtureRequest) -> Iterator[None]:
    begin = time.monotonic()
    yield
    if "real_time" not in request.keywords:
        assert time.monotonic() - begin < SOON


async def stays() -> None:
    await checkpoint()


def still_works() -> bool:
    """Return True if the lab explores another program on both backends."""
    return all(lab.explore(stays, backend=it).complete for it in ("asyncio", "trio"))


async def in_a_group(task: Callable[[], Any]) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(task)


# A task that goes on after its cancellation


async def waits_again() -> None:
    never = anyio.Event()

    async def stubborn() -> None:
        while True:
            try:
                await never.wait()
            except BaseException:  # noqa: BLE001 - it fights
                pass

    await in_a_group(stubborn)


async def spins() -> None:
    async def stubborn() -> None:
        try:
            await anyio.Event().wait()
        except BaseException:  # noqa: BLE001 - it fights
            while True:
                try:
                    await checkpoint()
                except BaseException:  # noqa: BLE001
                    pass

    await in_a_group(stubborn)


async def waits_behind_a_shield() -> None:
    async def stubborn() -> None:
        try:
            await anyio.Event().wait()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.Event().wait()

    await in_a_group(stubborn)


async def sleeps_behind_a_shield() -> None:
    async def stubborn() -> None:
        try:
            await anyio.Event().wait()
        finally:
            with anyio.CancelScope(shield=True):
                while True:
                    await anyio.sleep(1)

    await in_a_group(stubborn)


async def waits_in_the_finally_of_a_generator() -> None:
    async def numbers() -> Any:
        try:
            yield 1
            await anyio.Event().wait()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.Event().wait()

    async for _ in numbers():
        pass


@BACKENDS
@STRATEGIES
@pytest.mark.parametrize(
    "program",
    [
        waits_again,
        spins,
        waits_behind_a_shield,
        sleeps_behind_a_shield,
        waits_in_the_finally_of_a_generator,
    ],
)
def test_a_program_that_goes_on_after_its_cancellation_has_stalled(
    program: Program, strategy: lab.StrategyName, backend: lab.BackendName
) -> None:
    found = lab.explore(program, backend=backend, strategy=strategy, step_limit=500)
    assert [failure.kind for failure in found.failures] == ["stall"]
    (again,) = lab.replay(program, found.failures[0].token, step_limit=500).failures
    assert again.report == found.failures[0].report
    assert still_works()


@BACKENDS
def test_a_task_that_swallows_its_cancellation_by_the_lab_is_found(
    backend: lab.BackendName,
) -> None:
    async def program() -> None:
        async def stubborn() -> None:
            while True:
                try:
                    await anyio.sleep(1)
                    return
                except BaseException:  # noqa: BLE001
                    await anyio.Event().wait()

        await in_a_group(stubborn)

    assert lab.explore(program, backend=backend).complete
    found = lab.explore(program, backend=backend, cancel=True)
    if backend == "asyncio":
        assert [failure.kind for failure in found.failures] == ["stall"]
    else:  # a scope of trio cancels the second wait, too
        assert found.complete
    assert still_works()


async def drops_a_generator_that_never_ends() -> None:
    async def numbers() -> Any:
        try:
            while True:
                yield 1
        finally:
            while True:
                try:
                    await anyio.Event().wait()
                except BaseException:  # noqa: BLE001
                    pass

    async for _ in numbers():
        break


@BACKENDS
@STRATEGIES
@pytest.mark.parametrize("then_waits", [True, False])
def test_a_generator_that_never_ends_does_not_keep_the_lab(
    then_waits: bool, strategy: lab.StrategyName, backend: lab.BackendName
) -> None:
    """`asyncio.run` closes it when the program is over, and waits for that for ever; trio closes it
    at once."""

    async def program() -> None:
        await drops_a_generator_that_never_ends()
        if then_waits:
            await anyio.Event().wait()

    options: dict[str, Any] = {"backend": backend, "strategy": strategy, "max_executions": 10}
    kinds = [failure.kind for failure in lab.explore(program, **options).failures]
    expected = {
        ("asyncio", True): ["stall"],
        ("asyncio", False): ["stall"],
        ("trio", True): ["livelock"],
        ("trio", False): ["leak"],
    }
    assert kinds == expected[backend, then_waits]
    assert still_works()


@BACKENDS
def test_a_program_that_ends_and_leaves_a_task_that_fights_is_judged_by_its_end(
    backend: lab.BackendName,
) -> None:
    async def program() -> None:
        async def stubborn() -> None:
            try:
                await anyio.Event().wait()
            except BaseException:  # noqa: BLE001
                with anyio.CancelScope(shield=True):
                    await anyio.Event().wait()

        async with anyio.create_task_group() as group:
            group.start_soon(stubborn)
            await checkpoint()
            raise ValueError("in the group")

    found = lab.explore(program, backend=backend, max_executions=20)
    assert [failure.kind for failure in found.failures] == ["stall"]
    assert still_works()


# An exception that cannot be shown


class Unshowable(Exception):
    """Neither `str` nor `repr` of it works."""

    def __str__(self) -> str:
        raise ValueError("no message")

    def __repr__(self) -> str:
        raise ValueError("no representation")


class UnshowableExit(BaseException):
    """The same, for what is no `Exception`."""

    __str__ = Unshowable.__str__
    __repr__ = Unshowable.__repr__


class Nameless(type):
    """The type of types that raise when they are asked for their name."""

    @property
    def __name__(cls) -> str:  # type: ignore[override]
        raise ValueError("no name")


class HasNoName(Unshowable, metaclass=Nameless):
    """Not even the name of its type can be asked for."""


async def raises_it() -> None:
    await checkpoint()
    raise Unshowable


async def raises_what_has_no_name() -> None:
    await checkpoint()
    raise HasNoName


async def raises_an_exit() -> None:
    await checkpoint()
    raise UnshowableExit


async def raises_from_it() -> None:
    try:
        await raises_it()
    except Unshowable as error:
        raise RuntimeError("outer") from error


async def holds_it() -> None:
    raise RuntimeError(Unshowable())


async def raises_it_in_a_child() -> None:
    await in_a_group(raises_it)


async def leaves_it_in_a_task() -> None:
    task = asyncio.ensure_future(raises_it())
    await asyncio.sleep(1)
    del task


@pytest.mark.parametrize(
    ("program", "backend", "first_line"),
    [
        *(
            (program, backend, first_line)
            for backend in ("asyncio", "trio")
            for program, first_line in (
                (raises_it, "exception: Unshowable (its message cannot be shown: str() of it rai"),
                (raises_what_has_no_name, "exception: HasNoName (its message cannot be shown: s"),
                (raises_an_exit, "exception: UnshowableExit (its message cannot be shown: str() "),
                (raises_from_it, "exception: RuntimeError: outer"),
                (holds_it, "exception: RuntimeError (its message cannot be shown: str() of it ra"),
            )
        ),
        (raises_it_in_a_child, "asyncio", "exception: ExceptionGroup: unhandled errors in a Task"),
        # trio itself cannot bear it: it makes a text of what a task raises.
        (raises_it_in_a_child, "trio", "exception: "),
        (leaves_it_in_a_task, "asyncio", "exception: Task exception was never retrieved: Unshowa"),
    ],
)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_exception_that_cannot_be_shown_is_reported(
    program: Program, backend: lab.BackendName, first_line: str
) -> None:
    found = lab.explore(program, backend=backend)
    (failure,) = found.failures
    assert failure.kind == "exception"
    assert failure.report.startswith(first_line)
    (again,) = lab.replay(program, failure.token).failures
    assert again.report.startswith(first_line)
    with pytest.raises(lab.ExplorationFailed):
        found.assert_holds()
    assert still_works()


# A program that explores


@BACKENDS
@pytest.mark.parametrize("inner", ["asyncio", "trio"])
@pytest.mark.parametrize("where", ["main task", "child task", "caught"])
@pytest.mark.parametrize("call", ["explore", "replay"])
def test_a_program_that_explores_is_refused(
    call: str, where: str, inner: lab.BackendName, backend: lab.BackendName
) -> None:
    async def explores() -> None:
        await checkpoint()
        if call == "explore":
            lab.explore(stays, backend=inner)
        else:
            lab.replay(stays, f"{inner}:")

    async def program() -> None:
        if where == "child task":
            await in_a_group(explores)
        elif where == "main task":
            await explores()
        else:
            try:
                await explores()
            except lab.LabError:
                pass

    with pytest.raises(lab.LabError, match="explores a program already, and this call comes from"):
        lab.explore(program, backend=backend)
    assert still_works()


def test_an_exploration_in_another_thread_is_refused_and_does_not_disturb_the_first() -> None:
    refused: list[str] = []

    def elsewhere() -> None:
        with pytest.raises(lab.LabError) as caught:
            lab.explore(stays)
        refused.append(str(caught.value))

    with ThreadPoolExecutor(1) as thread:
        thread.submit(int).result()  # it is there before the lab refuses threads

        def progress(executions: int) -> None:
            if executions == 1:
                thread.submit(elsewhere).result()

        assert lab.explore(stays, on_progress=progress).complete
    (said,) = refused
    assert said.startswith("the lab explores a program already, in another thread; ")


# KeyboardInterrupt that the program raises


async def raises_an_interrupt() -> None:
    await checkpoint()
    raise KeyboardInterrupt


async def raises_an_interrupt_in_a_group() -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(anyio.Event().wait)
        await raises_an_interrupt()


async def raises_an_interrupt_in_a_child() -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(raises_an_interrupt)
        group.start_soon(anyio.Event().wait)


async def raises_an_interrupt_in_one_order() -> None:
    order: list[int] = []

    async def child(number: int) -> None:
        order.append(number)
        if order[0] == 1:
            raise KeyboardInterrupt

    async with anyio.create_task_group() as group:
        group.start_soon(child, 0)
        group.start_soon(child, 1)


async def raises_an_interrupt_in_a_plain_task() -> None:
    task = asyncio.ensure_future(raises_an_interrupt())
    await asyncio.sleep(1)
    del task


@pytest.mark.parametrize(
    ("program", "backend"),
    [
        *(
            (program, backend)
            for backend in ("asyncio", "trio")
            for program in (
                raises_an_interrupt,
                raises_an_interrupt_in_a_group,
                raises_an_interrupt_in_a_child,
                raises_an_interrupt_in_one_order,
            )
        ),
        (raises_an_interrupt_in_a_plain_task, "asyncio"),
    ],
)
@pytest.mark.parametrize("options", [{}, {"cancel": True}])
def test_an_interrupt_that_the_program_raises_ends_the_exploration(
    program: Program, backend: lab.BackendName, options: dict[str, Any]
) -> None:
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        lab.explore(program, backend=backend, max_executions=100, **options)
    assert signal.getsignal(signal.SIGINT) is handler
    assert still_works()


@BACKENDS
def test_a_replay_lets_an_interrupt_of_the_program_through(backend: lab.BackendName) -> None:
    with pytest.raises(KeyboardInterrupt):
        lab.replay(raises_an_interrupt_in_a_child, f"{backend}:")
    assert still_works()


@BACKENDS
def test_an_interrupt_that_the_program_catches_is_its_own(backend: lab.BackendName) -> None:
    async def program() -> None:
        with pytest.raises(KeyboardInterrupt):
            await raises_an_interrupt()

    assert lab.explore(program, backend=backend).complete


# Ctrl-C


ENDLESS = """
import os
import anyio

calls = 0

def count():
    global calls
    calls += 1
    if calls == 20:
        os.write(1, b"explores\\n")  # at once, also if two workers do

async def program():
    count()
    async def task():
        for _ in range(6):
            await anyio.sleep(0)

    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(task)

async def swallows():
    count()
    async def task():
        for _ in range(6):
            try:
                sum(range(3000))
                await anyio.sleep(0)
            except BaseException:
                pass

    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(task)
"""

SCRIPT = """
import sys, time
sys.path.insert(0, sys.argv[1])
import endless
from mbufpools import lab

try:
    lab.explore(
        getattr(endless, sys.argv[2]), backend=sys.argv[3], strategy="random",
        max_executions=10**9,
    )
except KeyboardInterrupt:
    time.sleep(0.2)  # a second Ctrl-C of the same moment comes here, and is not raised
    print("interrupted", flush=True)
    sys.exit(130)
"""


@pytest.fixture
def endless(tmp_path: Path) -> Path:
    """A file of programs with more schedules than can be explored."""
    path = tmp_path / "endless.py"
    path.write_text(ENDLESS, "utf-8")
    return path


def interrupt(command: list[str], *, times: int) -> tuple[int, str]:
    """Start a command in a process group of its own, interrupt all of the group once it explores,
    and return the status and what it printed then. Fails if a worker is left: it has the pipe."""
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "explores\n"
        for number in range(times):
            if number:
                time.sleep(0.02)
            os.killpg(process.pid, signal.SIGINT)
        printed, _ = process.communicate(timeout=10)
        return process.returncode, printed.replace("explores\n", "")  # of the second worker
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()


@pytest.mark.real_time
@BACKENDS
@pytest.mark.parametrize(("program", "times"), [("program", 1), ("swallows", 1), ("swallows", 2)])
def test_an_interrupt_of_an_exploration_is_raised_at_once_and_is_not_the_program_s_fault(
    times: int, program: str, backend: str, endless: Path
) -> None:
    command = [sys.executable, "-c", SCRIPT, str(endless.parent), program, backend]
    status, printed = interrupt(command, times=times)
    assert (status, printed) == (130, "interrupted\n")


@pytest.mark.real_time
@pytest.mark.parametrize(
    ("jobs", "times", "backend"),
    [
        pytest.param(jobs, times, backend, marks=[] if turn == times % 2 else [pytest.mark.prove])
        for jobs in ("1", "2")
        for times in (1, 2)
        for turn, backend in enumerate(("asyncio", "trio"))
    ],
)
def test_an_interrupt_of_the_command_has_status_130_and_leaves_no_worker(
    jobs: str, times: int, backend: str, endless: Path
) -> None:
    status, printed = interrupt(
        [
            *(sys.executable, "-m", "mbufpools", "explore", f"{endless}:program"),
            *("--strategy", "random", "--max-executions", "1000000000"),
            *("--backend", backend, "--jobs", jobs),
        ],
        times=times,
    )
    assert (status, printed) == (130, "")


def test_an_interrupt_in_the_callback_of_a_weak_reference_is_not_lost() -> None:
    """Python prints and drops what such a callback raises, so the lab notes it and raises later."""
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    callback = eval(  # a frame of the module, as the callbacks of a WeakSet have
        "lambda: raise_signal(SIGINT)",
        {"__name__": "_weakrefset", "raise_signal": signal.raise_signal, "SIGINT": signal.SIGINT},
    )
    try:
        with pytest.raises(KeyboardInterrupt), _interrupts.interruptible():
            callback()
            assert _interrupts.pending()
    finally:
        signal.signal(signal.SIGINT, before)
