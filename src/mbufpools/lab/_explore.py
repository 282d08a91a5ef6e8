"""Many schedules of one program: `explore`, and `replay` for one of them.

Uses `_execute`, `_outcome`, `_parallel`, `_result`, `_schedule`, `_strategies`, `_trace`
and `_warnings`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any

from ._dpor import Dpor
from ._execute import Program, execute, make_failure, once
from ._leaks import collect_unheard
from ._outcome import LabError
from ._parallel import Shareable, execute_in_parallel
from ._result import Exploration, Failure
from ._schedule import SLICE, Strategy, parse_token
from ._steps import spell
from ._strategies import Exhaustive, Fifo, Pct, Random

__all__ = ["STRATEGIES", "explore", "replay"]

STRATEGIES = ("fifo", "random", "pct", "exhaustive", "dpor")
STEP_LIMIT = 10_000
WAYS = {"asyncio": ("scope", "native"), "trio": ("scope",)}
"""How each backend can cancel a task."""


def explore(
    program: Program,
    *,
    strategy: str = "exhaustive",
    max_preemptions: int | None = 2,
    backend: str = "asyncio",
    max_executions: int = 10_000,
    cancel: bool | str = False,
    seed: int = 0,
    depth: int = 3,
    max_failures: int | None = 1,
    step_limit: int = STEP_LIMIT,
    on_progress: Callable[[int], None] | None = None,
    executor: Executor | None = None,
) -> Exploration:
    """Execute ``program()`` under many schedules, in virtual time, and say what fails.

    Blocks the calling thread. Each execution is a fresh call, so the program must make what it
    uses, do the same in the same schedule, and do no I/O and start no threads (a `LabError` says
    so where the lab can see it). It fails if it raises (`exception`), if every task waits and
    nothing can wake one (`stall`), if it takes more than `step_limit` steps (`livelock`), or if
    a resource is dropped or left open at its end (`leak`, from Python's warnings).

    Args:
        program: an ``async def`` without arguments.
        strategy: ``"exhaustive"`` is every schedule within `max_preemptions`; it assumes nothing.
            ``"dpor"`` is one schedule of each class that declared accesses tell apart, without a
            bound; undeclared shared state makes it unsound (see `Shared`). ``"random"``,
            ``"pct"`` try `max_executions` schedules; ``"fifo"`` is the usual one.
        max_preemptions: how often a task that could go on is kept from it, at most; None is no
            bound. Only for ``"exhaustive"``.
        backend: ``"asyncio"`` or ``"trio"``.
        max_executions: stop after so many.
        cancel: also cancel each task once at each of its await points: as soon as it waits there,
            and when it has been woken. ``"scope"`` is by a cancel scope around the task,
            ``"native"`` by asyncio's own ``Task.cancel()``; True is by all that the backend has.
            ``"random"`` and ``"pct"`` cancel one task in each execution. Not with ``"dpor"``.
        seed: of ``"random"`` and ``"pct"``.
        depth: of ``"pct"``, the ordering constraints of the bugs looked for.
        max_failures: stop after so many different ones; None is never.
        step_limit: steps of an execution.
        on_progress: called with their number, after each execution or, with an executor, after
            each part that a worker has done.
        executor: a `concurrent.futures.Executor` of processes, on this machine or on others; the
            schedules are shared out to its workers, where `program` must be importable. A
            failure's `error` stays with the worker. Not with ``"dpor"``.

    Raises:
        ValueError: an unknown strategy or backend, a number that cannot be, a way to cancel that
            the backend does not have, or a program that the executor's processes could not load.
        LabError: the program cannot be explored.
        ImportError: trio is asked for and not installed.
    """
    _check(strategy, backend, max_preemptions, max_executions, depth, step_limit)
    cancel_by = _cancel_by(cancel, backend, strategy)
    chosen: Strategy
    match strategy:
        case "fifo":
            chosen, bound = Fifo(), "the one schedule that is first in, first out"
        case "random":
            chosen, bound = Random(max_executions, seed), "the schedules, chosen at random"
        case "pct":
            chosen, bound = Pct(max_executions, seed, depth), f"the schedules, by PCT to {depth}"
        case "dpor":
            chosen, bound = Dpor(), "the schedules that the declared accesses tell apart"
        case _:
            chosen = Exhaustive(max_preemptions)
            bound = "the schedules"
            if max_preemptions is not None:
                bound += f" of at most {max_preemptions} preemption{'s' * (max_preemptions != 1)}"
    if cancel_by:
        bound += ", each with one cancellation at a time"
        if isinstance(cancel, str):
            bound += {"scope": " by a scope", "native": " by Task.cancel()"}[cancel]
    options: dict[str, Any] = {
        "backend": backend,
        "max_executions": max_executions,
        "max_failures": max_failures,
        "step_limit": step_limit,
        "cancel_by": cancel_by,
        "on_progress": on_progress,
    }
    if executor is None:
        executed = execute(program, chosen, **options)
    elif not isinstance(chosen, Shareable):
        raise ValueError(
            f"strategy {strategy!r} goes from one schedule to the next, so it cannot be shared "
            f"out; use one of exhaustive, random, pct, or no executor"
        )
    elif isinstance(executor, ThreadPoolExecutor):
        raise ValueError(
            "the lab's hooks are those of a whole process, so threads cannot share its work; use "
            "an executor of processes"
        )
    else:
        executed = execute_in_parallel(program, chosen, executor, **options)
    if isinstance(chosen, Exhaustive) and chosen.truncated:
        bound += f" in which no task that others wait for takes more than {SLICE} steps in a row"
    # Two may have been shrunk to the same one.
    failures: dict[str, Failure] = {}
    for failure in executed.failures:
        failures.setdefault(failure.token, failure)
    return Exploration(
        executions=executed.executions,
        complete=chosen.complete,
        bound=bound,
        strategy=strategy,
        backend=backend,
        failures=tuple(failures.values()),
        redundant=chosen.redundant if isinstance(chosen, Dpor) else 0,
        seconds=executed.seconds,
    )


def replay(program: Program, token: str, *, step_limit: int = STEP_LIMIT) -> Exploration:
    """Execute ``program()`` once more in the schedule of a failure's token.

    Blocks the calling thread. What the program raises is in the failure's `error`.

    Args:
        program: as it was explored.
        token: a failure's `token`.
        step_limit: steps of the execution.

    Raises:
        ValueError: no token.
        LabError: the program cannot be executed in this schedule: it is another one by now.
    """
    backend, deviations = parse_token(token)
    _check("fifo", backend, None, 1, 1, step_limit)
    begin = time.perf_counter()
    outcome, schedule, misfits = once(program, backend, deviations, step_limit)
    if misfits:
        anchor = misfits[0]
        raise LabError(
            f"the token {token!r} does not fit the program: after step {anchor.number} of task "
            f"{spell(anchor.task)} it cannot do what the token says; explore it anew"
        )
    failures: tuple[Failure, ...] = ()
    if outcome.kind is not None:
        failures = (make_failure(backend, 1, schedule, outcome, 0),)
        collect_unheard()
    return Exploration(
        executions=1,
        complete=False,
        bound="the one schedule of the token",
        strategy="replay",
        backend=backend,
        failures=failures,
        seconds=time.perf_counter() - begin,
    )


def _check(
    strategy: str,
    backend: str,
    max_preemptions: int | None,
    max_executions: int,
    depth: int,
    step_limit: int,
) -> None:
    if strategy not in STRATEGIES:
        raise ValueError(f"no strategy {strategy!r}: expected one of {', '.join(STRATEGIES)}")
    if backend not in ("asyncio", "trio"):
        raise ValueError(f"no backend {backend!r}: expected 'asyncio' or 'trio'")
    numbers: tuple[tuple[str, object, int], ...] = (
        ("max_preemptions", max_preemptions, 0),
        ("max_executions", max_executions, 1),
        ("depth", depth, 1),
        ("step_limit", step_limit, 1),
    )
    for what, value, least in numbers:
        if value is not None and (not isinstance(value, int) or value < least):
            raise ValueError(f"{what} is {value!r}; expected an integer of at least {least}")


def _cancel_by(cancel: bool | str, backend: str, strategy: str) -> tuple[str, ...]:
    """The ways to cancel that are asked for."""
    if cancel is False:
        return ()
    if strategy == "dpor":
        raise ValueError(
            f"dpor cannot cancel: a cancellation depends on every step of its task; use "
            f"strategy='exhaustive' with cancel={cancel!r}"
        )
    ways = WAYS[backend]
    if cancel is True:
        return ways
    if cancel not in ways:
        expected = ", ".join(map(repr, (False, True, *ways)))
        raise ValueError(f"cancel is {cancel!r}; expected on {backend} one of {expected}")
    return (cancel,)
