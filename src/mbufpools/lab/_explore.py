"""Many schedules of one program: `explore`, and `replay` for one of them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace
from types import ModuleType
from typing import Any, cast

from ._cancellable import Cancel, Cancellable, cancelling, uses_anyio
from ._dpor import Dpor
from ._execute import Executed, execute, make_failure, once
from ._fresh import module_names
from ._interrupts import interruptible
from ._leaks import collect_unheard
from ._mixed import Mixed
from ._options import (
    SLICE_STEPS,
    STEP_LIMIT,
    BackendName,
    CancelWay,
    FailureKind,
    Options,
    Program,
    StrategyName,
    cancel_ways,
    check_backend,
)
from ._outcome import LabError, NotRepeated
from ._outsiders import forget_outsiders
from ._pages import with_pages
from ._parallel import LEAST_SECONDS, execute_in_parallel
from ._program import check_program
from ._real_times import noted_times, real_times
from ._redirected import real
from ._repetition import left_over, note_survival, survival
from ._result import Exploration, ExplorationIncomplete, Failure
from ._steps import spell
from ._story import named
from ._strategies import Exhaustive, Fifo, Pct, Random, Replay
from ._strategy import Strategy
from ._token import parse_token

__all__ = ["STRATEGIES", "explore", "replay", "replay_as_explored"]

STRATEGIES: dict[str, type[Strategy]] = {
    strategy.name: strategy for strategy in (Mixed, Exhaustive, Dpor, Random, Pct, Fifo)
}
"""The strategies that `explore` offers, the default first."""
_perf_counter = real(time.perf_counter)

MID_WAIT = (
    "cancellations in the middle of a wait, or once two other steps have run since the task was "
    "woken (lab.cancellable(mid_wait=True))"
)
"""What is left out unless it is asked for."""


def explore(
    program: Program,
    *,
    strategy: StrategyName = "mixed",
    max_preemptions: int | None = 2,
    backend: BackendName = "asyncio",
    max_executions: int = 10_000,
    max_seconds: float | None = None,
    require_complete: bool = False,
    cancel: Cancel = False,
    ignore: FailureKind | Iterable[FailureKind] = (),
    seed: int = 0,
    depth: int = 3,
    max_failures: int | None = 1,
    step_limit: int = STEP_LIMIT,
    slice_steps: int = SLICE_STEPS,
    on_progress: Callable[[int], None] | None = None,
    executor: Executor | None = None,
    reset: Callable[[], Any] | None = None,
    fresh: Iterable[str | ModuleType] = (),
    clocks: bool = True,
    chance: bool = True,
    html: str | os.PathLike[str] | None = None,
) -> Exploration:
    """Execute ``program()`` under many schedules, in virtual time, and say what fails.

    Blocks the calling thread. Each execution is a fresh call, so the program must make what it
    uses, do the same in the same schedule, and do no I/O. An execution fails if it raises
    (`exception`), if every task waits and nothing can wake one (`stall`), if it takes more than
    `step_limit` steps (`livelock`), or if a resource is dropped or left open at its end (`leak`,
    from Python's warnings).

    The first execution, under every strategy, takes the order of the backend itself: on asyncio
    what `asyncio.run` does, on trio one of its random orders, that in which the tasks became ready.
    Before the lab says that it has executed *all* schedules, it executes some of them again.

    Args:
        program: an ``async def`` without arguments.
        strategy: ``"mixed"`` executes at most 300 schedules by chance, half of them as
            ``"random"`` and half as ``"pct"`` does, and then all that ``"exhaustive"`` does. So a
            bug that takes many unusual choices is found early, and the proof is the same.
            ``"exhaustive"`` executes every schedule within a bound; it assumes nothing. The bound
            is `max_preemptions`, and besides as many delays against the order of the backend
            itself. ``"dpor"`` executes one schedule of each class
            that declared accesses tell apart, without a bound; undeclared shared state makes it
            unsound (see `Shared`). ``"random"`` and ``"pct"`` try `max_executions` schedules.
            ``"fifo"`` executes the order of the backend alone.
        max_preemptions: how often, at most, another task runs while the task that ran could go on;
            None is no bound, on delays either. Only for ``"mixed"`` and ``"exhaustive"``.
        backend: ``"asyncio"`` or ``"trio"``.
        max_executions: stop after so many. Of these at most a quarter are by chance.
        max_seconds: begin no execution but the first after so many seconds of real time; None is no
            bound. What was found is kept, and what is left is estimated (`Exploration.left`).
        require_complete: raise `ExplorationIncomplete` if nothing failed, and not every schedule
            within the bound was executed.
        cancel: also cancel each task of the program once at each of its await points: as soon as
            it waits there, and when it has been woken, until one other step has run. The tasks of
            the program are those that the code of its project made, and that no object keeps for
            itself (see `cancellable`).
            ``"scope"`` is by a cancel scope around the task, ``"native"`` by asyncio's own
            ``Task.cancel()``; True is by both, but on asyncio by a scope only if the program uses
            anyio (if that shows only while it runs, the exploration begins again). A name of a
            task, several names, or a function of a `TaskInfo` say which tasks are cancelled;
            `cancellable` says more.
            ``"random"`` and ``"pct"`` cancel one task in each execution. Not with ``"dpor"``.
        ignore: kinds of failures that are passed over, such as ``["leak"]``, so that a library's
            unclosed generator does not hide what comes after it.
        seed: of the schedules by chance: the same seed chooses the same schedules.
        depth: of ``"pct"`` and ``"mixed"``: the number of ordering constraints of the bugs that
            are looked for.
        max_failures: stop after so many different ones; None is never.
        step_limit: the number of steps from which an execution is a livelock.
        slice_steps: after so many steps in a row, in which another task could run, a task gives way
            to it without a preemption, since it may wait in a loop; rounded up to a multiple of 20.
            The bound says if a task had to. Only for ``"mixed"`` and ``"exhaustive"``.
        on_progress: called with the number of executions so far, after each execution or, with an
            executor, after each part that a worker has done. What it raises ends the exploration.
        executor: a `concurrent.futures.Executor` of processes, on this machine or on others. The
            schedules are shared out to its workers, where `program` must be importable. A
            failure's `error` stays with the worker. Not with ``"dpor"``.
        reset: called before each execution, to put back what survives one: a cache, a singleton.
        fresh: modules, or their names, whose code is executed again before each execution, in the
            order given, so that their variables are as after an import. At the end of the
            exploration each module has the variables of before again.
        clocks: whether the clocks of `time` and `datetime` are virtual in the program, as the event
            loop's is; False leaves them real.
        chance: whether `random`, `secrets`, `uuid`, `os.urandom`, `os.getrandom` and
            `ssl.RAND_bytes` give the same in every execution; False leaves them to chance.
        html: a directory for one HTML page a failure, which shows the schedule (`Failure.page` is
            its file); it is made if there is none. None writes no pages.

    Raises:
        ValueError: a program that takes arguments, or a coroutine; an unknown strategy or backend,
            a number that cannot be, a way to cancel that the backend does not have, a name of a
            task that the program does not have, a module that cannot be executed again, or a
            program that the executor's processes could not load.
        LabError: the program cannot be explored: it does I/O, does not do the same in the same
            schedule, returns what cannot be awaited, or calls the lab itself.
        ExplorationIncomplete: ``require_complete=True``, and there are more schedules.
        ImportError: trio is asked for and not installed.
        KeyboardInterrupt: Ctrl-C was pressed, or the program raised it. The exploration stops at
            once, and its workers end.
    """
    check_program(program)
    if strategy not in STRATEGIES:
        raise ValueError(f"no strategy {strategy!r}: expected one of {', '.join(STRATEGIES)}")
    kind = STRATEGIES[strategy]
    rules = cancelling(cancel)
    ways = _ways(program, rules, backend)
    options = Options(
        backend=backend,
        max_preemptions=max_preemptions,
        max_executions=max_executions,
        max_seconds=max_seconds,
        cancelling=rules,
        cancel_by=ways,
        without_anyio=rules is not None and rules.by is None and "scope" not in ways,
        ignore=_kinds(ignore),
        seed=seed,
        depth=depth,
        max_failures=max_failures,
        step_limit=step_limit,
        slice_steps=slice_steps,
        reset=reset,
        fresh=module_names(fresh),
        clocks=clocks,
        chance=chance,
    )
    if options.cancel_by and not kind.can_cancel:
        raise ValueError(
            f"{strategy} cannot cancel: a cancellation depends on every step of its task; use "
            f"another strategy with cancel={cancel!r}"
        )
    chosen = kind.of(options)
    if executor is not None:
        _check_executor(executor, kind)
    try:
        with interruptible():
            executed = _execute(program, chosen, options, executor, on_progress)
            if executed.uses_anyio:  # so it can be cancelled by scopes, too
                options = _with_scopes(options, executed.seconds)
                chosen = kind.of(options)
                executed = _execute(program, chosen, options, executor, on_progress)
    except NotRepeated as error:  # perhaps in a worker
        note_survival(program, error.survived)
        raise
    if rules is not None and not executed.cancelled_one:
        _complain_of_names(rules, executed)
    bound = chosen.bound
    if executed.covered.picked and strategy != "fifo":
        bound += ", each with the values of lab.choose"
    if rules is not None:
        times = rules.times
        bound += ", each with one cancellation at a time"
        bound += f", and with up to {times}" if times > 1 else ""
        bound += ", also in the middle of a wait" if rules.mid_wait else ""
        bound += {"scope": " by a scope", "native": " by Task.cancel()", None: ""}[rules.by]
    # Two failures may have been shrunk to the same one.
    failures: dict[str, Failure] = {}
    for failure in executed.failures:
        failures.setdefault(failure.token, failure)
    exploration = Exploration(
        executions=executed.executions,
        complete=chosen.complete,
        bound=bound,
        strategy=strategy,
        backend=backend,
        failures=tuple(failures.values()),
        redundant=chosen.redundant,
        remarks=tuple(_remarks(program, chosen, executed, options)) if chosen.complete else (),
        not_explored=tuple(_not_explored(chosen, options, executed)),
        left=None if chosen.complete else chosen.left,
        seconds=executed.seconds,
    )
    if html is not None:
        exploration = with_pages(exploration, html, program)
    if require_complete and exploration.verdict == "ran out":
        raise ExplorationIncomplete(exploration)
    return exploration


def _execute(
    program: Program,
    strategy: Strategy,
    options: Options,
    executor: Executor | None,
    on_progress: Callable[[int], None] | None,
) -> Executed:
    """Execute the schedules of a strategy here, or in the processes of an executor."""
    if executor is None:
        return execute(program, strategy, options, on_progress=on_progress)
    return execute_in_parallel(program, strategy, executor, options, on_progress)


def _with_scopes(options: Options, seconds: float) -> Options:
    """Return the options with cancellations by a scope, after so many seconds without them."""
    left = options.max_seconds
    return replace(
        options,
        cancel_by=cancel_ways(None, options.backend),
        without_anyio=False,
        max_seconds=None if left is None else max(left - seconds, LEAST_SECONDS),
    )


def _remarks(
    program: Program, strategy: Strategy, executed: Executed, options: Options
) -> Iterator[str]:
    """Yield what makes a proof say less than it seems to."""
    covered = executed.covered
    told = survival(program, options)
    if told is not None:
        yield f"{told}: what is proved is only what happens once that state is there"
    noted = real_times(program, options) if covered.looked else None
    if noted is not None:
        yield noted
    if covered.unscheduled:
        names = ", ".join(sorted(covered.unscheduled))
        yield f"the lab does not choose when trio runs what it keeps to itself ({names})"
    elif not covered.chose:
        yield "there was never a choice: one task at a time could run, so one schedule is all"
    for why in sorted(covered.polled)[:1]:
        yield f"the clock moved although something could run: {why}"
    if covered.outlived:
        names = ", ".join(sorted(covered.outlived))
        yield f"what a thread does after the main task has ended was not executed ({names})"
    if strategy.truncated:
        yield (
            "a task gave way to others after its slice of steps; if it can take more of them while "
            "the others wait, raise slice_steps= (no number is enough for a task that waits in a "
            "loop, or that a cancelled scope of anyio wakes again and again)"
        )
    never = covered.titles.keys() - covered.ran
    if never:
        names = named(never, covered.titles)
        yield f"a task that was made never ran in any execution: {names}"
    if covered.cancelled and not covered.ended_though_cancelled:
        yield (
            "the main task ended by itself in no execution with a cancellation, so what it checks "
            "at its end was never checked in one (asyncio.gather cancels the main task, too, but "
            "not with return_exceptions=True, nor does a TaskGroup; lab.invariant checks always)"
        )


def _kinds(ignore: FailureKind | Iterable[FailureKind]) -> tuple[FailureKind, ...]:
    """Return the kinds that are passed over; a single one may be given as it is."""
    if isinstance(ignore, str) or not isinstance(ignore, Iterable):
        return (ignore,)  # the options say what was expected
    return tuple(ignore)


def _ways(program: Program, rules: Cancellable | None, backend: str) -> tuple[CancelWay, ...]:
    """Return the ways in which tasks are cancelled."""
    if rules is None:
        return ()
    if rules.by is None and backend == "asyncio" and not uses_anyio(program):
        return ("native",)
    return cancel_ways(rules.by, backend)


def _complain_of_names(rules: Cancellable, executed: Executed) -> None:
    """Raise ValueError if the caller names tasks to cancel, and there is none of them."""
    if not rules.names and rules.predicate is None:
        return
    there = ", ".join(sorted({repr(title) for title in executed.covered.titles.values()})[:10])
    asked = ", ".join(map(repr, rules.names)) or "a function"
    raise ValueError(
        f"cancel is {asked}: no way to cancel ('scope', 'native'), and no task of the program that "
        f"ever waits; its tasks are {there}"
    )


def _not_explored(strategy: Strategy, options: Options, executed: Executed) -> Iterator[str]:
    """Yield what was held fixed, so that nothing is said of it."""
    covered = executed.covered
    if not options.cancel_by:
        yield "cancellations (cancel=True)"
    elif options.without_anyio:
        yield "cancellations by a scope, since nothing here uses anyio (cancel='scope')"
    if options.cancel_by and not options.cancelling.mid_wait:
        yield MID_WAIT
    if covered.spared:
        tasks = named(covered.spared, covered.titles)
        chosen = options.cancelling.names or options.cancelling.predicate is not None
        why = "that cancel= leaves out" if chosen else "that a library made, or an object keeps"
        yield f"cancellations of the tasks {why}: {tasks}"
    if covered.picked and strategy.name == "fifo":
        yield "other values of lab.choose than the first"
    if covered.timed:
        yield (
            "other orders of timers than that of their deadlines (sleep(0), instead of sleeps that "
            "hold tasks apart, leaves the order to the lab)"
        )
    if covered.signals:
        yield "signals from outside"
    if options.ignore:
        number = sum(executed.ignored.values())
        kinds = " and ".join(options.ignore)
        yield f"failures of the kind {kinds} (ignored: {number})"
    if options.backend == "asyncio":
        yield "other orders of plain callbacks, or of a set of tasks, than first in, first out"
    else:
        yield "other orders of trio's own tasks, or of a set of tasks"
    yield "threads in the middle of a step (their own, or one of the event loop), I/O and real time"


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
    html: str | os.PathLike[str] | None = None,
) -> Exploration:
    """Execute ``program()`` once more in the schedule of a failure's token.

    Blocks the calling thread. What the program raises is in the failure's `error`.

    Args:
        program: as it was explored.
        token: a failure's `token`.
        step_limit: steps of the execution.
        reset, fresh, clocks, chance, html: as in `explore`.

    Raises:
        ValueError: no token, a program that takes arguments, or a coroutine.
        LabError: the program cannot be executed in this schedule: it is another one by now.
    """
    options = Options(
        step_limit=step_limit,
        reset=reset,
        fresh=module_names(fresh),
        clocks=clocks,
        chance=chance,
    )
    exploration = _replay(program, token, options)
    return exploration if html is None else with_pages(exploration, html, program)


def replay_as_explored(
    program: Program,
    token: str,
    *,
    cancel: Cancel = False,
    ignore: FailureKind | Iterable[FailureKind] = (),
    **options: Any,
) -> Exploration:
    """Execute the schedule of a token as `replay` does, but judge it as `explore` would with these
    options: it does not fail with what is ignored.

    Raises:
        LabError: as `replay` does, or the schedule has a cancellation that is not asked for.
    """
    rules = cancelling(cancel)
    backend, _, _ = parse_token(token)
    options["fresh"] = module_names(options.get("fresh", ()))
    asked = Options(
        cancelling=rules or Cancellable(times=0),
        cancel_by=() if rules is None else cancel_ways(rules.by, backend),
        ignore=_kinds(ignore),
        **options,
    )
    return _replay(program, token, asked)


def _replay(program: Program, token: str, options: Options) -> Exploration:
    check_program(program)
    name, deviations, rule = parse_token(token)
    check_backend(name)
    backend = cast("BackendName", name)
    options = replace(options, backend=backend)
    begin = _perf_counter()
    with interruptible():
        forget_outsiders()
        outcome, schedule, misfits = once(program, deviations, rule, options)
    if misfits:
        anchor = misfits[0]
        raise LabError(
            f"the token {token!r} does not fit the program: after step {anchor.number} of task "
            f"{spell(anchor.task)} it cannot do what the token says; explore it again"
        )
    failures: tuple[Failure, ...] = ()
    if outcome.kind is not None and outcome.kind not in options.ignore:
        remarks = left_over(program, options) + noted_times(program, options)
        failures = (make_failure(backend, schedule, outcome, remarks),)
        collect_unheard()
    return Exploration(
        executions=1,
        complete=False,
        bound=Replay.bound,
        strategy=Replay.name,
        backend=backend,
        failures=failures,
        seconds=_perf_counter() - begin,
    )
