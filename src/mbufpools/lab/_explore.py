"""Many schedules of one program: `explore`, and `replay` for one of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from types import ModuleType
from typing import Any, cast

from ._dpor import Dpor
from ._execute import Executed, Program, execute, make_failure, once
from ._fresh import module_names
from ._interrupts import interruptible
from ._leaks import collect_unheard
from ._options import (
    STEP_LIMIT,
    BackendName,
    CancelWay,
    Options,
    StrategyName,
    cancel_ways,
    check_backend,
)
from ._outcome import LabError, NotRepeated
from ._parallel import execute_in_parallel
from ._repetition import note_refused, was_refused
from ._result import Exploration, Failure
from ._steps import spell
from ._strategies import Exhaustive, Fifo, Pct, Random, Replay
from ._strategy import Strategy
from ._token import parse_token

__all__ = ["STRATEGIES", "explore", "replay"]

STRATEGIES: dict[str, type[Strategy]] = {
    strategy.name: strategy for strategy in (Exhaustive, Dpor, Random, Pct, Fifo)
}
"""The strategies that `explore` offers, the default first."""


def explore(
    program: Program,
    *,
    strategy: StrategyName = "exhaustive",
    max_preemptions: int | None = 2,
    backend: BackendName = "asyncio",
    max_executions: int = 10_000,
    cancel: bool | CancelWay = False,
    seed: int = 0,
    depth: int = 3,
    max_failures: int | None = 1,
    step_limit: int = STEP_LIMIT,
    on_progress: Callable[[int], None] | None = None,
    executor: Executor | None = None,
    reset: Callable[[], Any] | None = None,
    fresh: Iterable[str | ModuleType] = (),
    clocks: bool = True,
    chance: bool = True,
) -> Exploration:
    """Execute ``program()`` under many schedules, in virtual time, and say what fails.

    Blocks the calling thread. Each execution is a fresh call, so the program must make what it
    uses, do the same in the same schedule, do no I/O, and start no threads. An execution fails if
    it raises (`exception`), if every task waits and nothing can wake one (`stall`), if it takes
    more than `step_limit` steps (`livelock`), or if a resource is dropped or left open at its end
    (`leak`, from Python's warnings).

    The first execution, under every strategy, takes the order of the backend itself: on asyncio
    what `asyncio.run` does, on trio one of its random orders, that in which the tasks became ready.
    Before the lab says that it has executed *all* schedules, it executes some of them again.

    Args:
        program: an ``async def`` without arguments.
        strategy: ``"exhaustive"`` executes every schedule within a bound; it assumes nothing. The
            bound is `max_preemptions`, and besides every schedule that differs from the order of
            the backend itself in at most one place. ``"dpor"`` executes one schedule of each class
            that declared accesses tell apart, without a bound; undeclared shared state makes it
            unsound (see `Shared`). ``"random"`` and ``"pct"`` try `max_executions` schedules.
            ``"fifo"`` executes the order of the backend alone.
        max_preemptions: how often, at most, another task runs while the task that ran could go on;
            None is no bound. Only for ``"exhaustive"``.
        backend: ``"asyncio"`` or ``"trio"``.
        max_executions: stop after so many.
        cancel: also cancel each task once at each of its await points: as soon as it waits there,
            and when it has been woken. ``"scope"`` is by a cancel scope around the task,
            ``"native"`` by asyncio's own ``Task.cancel()``; True is by all that the backend has.
            ``"random"`` and ``"pct"`` cancel one task in each execution. Not with ``"dpor"``.
        seed: of ``"random"`` and ``"pct"``: the same seed chooses the same schedules.
        depth: of ``"pct"``: the number of ordering constraints of the bugs that are looked for.
        max_failures: stop after so many different ones; None is never.
        step_limit: the number of steps from which an execution is a livelock.
        on_progress: called with the number of executions so far, after each execution or, with an
            executor, after each part that a worker has done. What it raises ends the exploration.
        executor: a `concurrent.futures.Executor` of processes, on this machine or on others. The
            schedules are shared out to its workers, where `program` must be importable. A
            failure's `error` stays with the worker. Not with ``"dpor"``.
        reset: called before each execution, to put back what survives one: a cache, a singleton.
        fresh: modules, or their names, whose code is executed again before each execution, in the
            order given, so that their variables are as after an import.
        clocks: whether the clocks of `time` and `datetime` are virtual in the program, as the event
            loop's is; False leaves them real.
        chance: whether `random`, `secrets`, `uuid` and `os.urandom` give the same in every
            execution; False leaves them to chance.

    Raises:
        ValueError: an unknown strategy or backend, a number that cannot be, a way to cancel that
            the backend does not have, a module that cannot be executed again, or a program that
            the executor's processes could not load.
        LabError: the program cannot be explored: it does I/O or starts threads, does not do the
            same in the same schedule, or calls the lab itself.
        ImportError: trio is asked for and not installed.
        KeyboardInterrupt: Ctrl-C was pressed, or the program raised it. The exploration stops at
            once, and its workers end.
    """
    if strategy not in STRATEGIES:
        raise ValueError(f"no strategy {strategy!r}: expected one of {', '.join(STRATEGIES)}")
    kind = STRATEGIES[strategy]
    options = Options(
        backend=backend,
        max_preemptions=max_preemptions,
        max_executions=max_executions,
        cancel_by=cancel_ways(cancel, backend),
        seed=seed,
        depth=depth,
        max_failures=max_failures,
        step_limit=step_limit,
        reset=reset,
        fresh=module_names(fresh),
        clocks=clocks,
        chance=chance,
    )
    if options.cancel_by and not kind.can_cancel:
        raise ValueError(
            f"{strategy} cannot cancel: a cancellation depends on every step of its task; use "
            f"strategy='exhaustive' with cancel={cancel!r}"
        )
    chosen = kind.of(options)
    if executor is not None:
        _check_executor(executor, kind)
    try:
        with interruptible():
            if executor is None:
                executed = execute(program, chosen, options, on_progress=on_progress)
            else:
                executed = execute_in_parallel(program, chosen, executor, options, on_progress)
    except NotRepeated:
        note_refused(program)
        raise
    bound = chosen.bound
    if options.cancel_by:
        bound += ", each with one cancellation at a time"
        if isinstance(cancel, str):
            bound += {"scope": " by a scope", "native": " by Task.cancel()"}[cancel]
    # Two failures may have been shrunk to the same one.
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
        redundant=chosen.redundant,
        remarks=tuple(_remarks(program, executed, options)) if chosen.complete else (),
        not_explored=tuple(_not_explored(chosen, options)),
        seconds=executed.seconds,
    )


def _remarks(program: Program, executed: Executed, options: Options) -> Iterator[str]:
    """Yield what makes a proof say less than it seems to."""
    if was_refused(program) and options.reset is None and not options.fresh:
        yield (
            "this process has explored the program before, and refused it because state survived "
            "an execution: what is proved is only what happens once that state is there"
        )
    if not executed.chose:
        yield "there was never a choice: one task at a time could run, so one schedule is all"
    never = sorted(executed.titles.keys() - executed.ran)
    if never:
        names = ", ".join(f"{spell(name)} {executed.titles[name]!r}" for name in never[:5])
        more = f" and {len(never) - 5} more" if len(never) > 5 else ""
        yield f"a task that was made never ran in any execution: {names}{more}"


def _not_explored(strategy: Strategy, options: Options) -> Iterator[str]:
    """Yield what was held fixed, so that nothing is said of it."""
    if not options.cancel_by:
        yield "cancellations (cancel=True)"
    if options.backend == "asyncio":
        yield "other orders of plain callbacks, or of a set of tasks, than first in, first out"
    else:
        yield "other orders of trio's own tasks, or of a set of tasks"
    yield "threads between two of their waits, I/O and real time"


def _check_executor(executor: Executor, kind: type[Strategy]) -> None:
    """Raise ValueError if this executor cannot share out the schedules of a strategy."""
    if not kind.can_split:
        able = ", ".join(name for name, it in STRATEGIES.items() if it.can_split)
        raise ValueError(
            f"strategy {kind.name!r} goes from one schedule to the next, so it cannot be shared "
            f"out; use one of {able}, or no executor"
        )
    if isinstance(executor, ThreadPoolExecutor):
        raise ValueError(  # noqa: TRY004 - as for the other arguments
            "the lab's hooks are those of a whole process, so threads cannot share its work; use "
            "an executor of processes"
        )


def replay(
    program: Program,
    token: str,
    *,
    step_limit: int = STEP_LIMIT,
    reset: Callable[[], Any] | None = None,
    fresh: Iterable[str | ModuleType] = (),
    clocks: bool = True,
    chance: bool = True,
) -> Exploration:
    """Execute ``program()`` once more in the schedule of a failure's token.

    Blocks the calling thread. What the program raises is in the failure's `error`.

    Args:
        program: as it was explored.
        token: a failure's `token`.
        step_limit: steps of the execution.
        reset, fresh, clocks, chance: as in `explore`.

    Raises:
        ValueError: no token.
        LabError: the program cannot be executed in this schedule: it is another one by now.
    """
    name, deviations, rule = parse_token(token)
    check_backend(name)
    backend = cast("BackendName", name)
    options = Options(
        backend=backend,
        step_limit=step_limit,
        reset=reset,
        fresh=module_names(fresh),
        clocks=clocks,
        chance=chance,
    )
    begin = time.perf_counter()
    with interruptible():
        outcome, schedule, misfits = once(program, deviations, rule, options)
    if misfits:
        anchor = misfits[0]
        raise LabError(
            f"the token {token!r} does not fit the program: after step {anchor.number} of task "
            f"{spell(anchor.task)} it cannot do what the token says; explore it again"
        )
    failures: tuple[Failure, ...] = ()
    if outcome.kind is not None:
        failures = (make_failure(backend, schedule, outcome),)
        collect_unheard()
    return Exploration(
        executions=1,
        complete=False,
        bound=Replay.bound,
        strategy=Replay.name,
        backend=backend,
        failures=failures,
        seconds=time.perf_counter() - begin,
    )
