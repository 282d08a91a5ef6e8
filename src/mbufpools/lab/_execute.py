"""Executions, one after another, as a strategy chooses them; and what fails is shrunk."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import cast

from . import _interrupts
from ._anyio_use import anyio_was_used, noting_anyio
from ._cancellable import Cancellable, Policy
from ._cancelling import declaring_cancellations
from ._chance import CHANCE, SYSTEM_CHANCE, chance_is_kept, restart_chance
from ._chance_declared import declaring_chance
from ._clocks import BEGINS, CLOCKS, virtual_clocks
from ._covered import Covered
from ._declare import declaring, recorder
from ._fresh import Renewal, own_variables_kept
from ._hypothesis import rejection, same_values
from ._leaks import Leaks, collect_unheard, forget_recorder, listening
from ._lock_holders import noting_holders
from ._locks import older_locks
from ._options import BackendName, FailureKind, Options, Program
from ._ordered_sets import WITHOUT_ORDER, sets_in_order
from ._other_loops import LOOP_BOUND, OLDER, is_of_other_loop
from ._outcome import (
    LabError,
    NotFresh,
    NotRepeated,
    NotTheSame,
    Outcome,
    discard_refused,
    first_line,
    raise_refused,
    refuse,
)
from ._outsiders import forget_outsiders, wait_for_threads
from ._private_names import require
from ._real_times import noted_times
from ._redirected import real, redirected
from ._repetition import Record, Records, difference, left_over, note_survival, same_message
from ._replaced import known, replaced
from ._report import report
from ._result import Failure
from ._schedule import Anchor, Cancel, Deviations, Rule, Schedule
from ._shrink import shrink
from ._steps import spell
from ._story import steps_of
from ._strategies import Exhaustive, Follow, Replay
from ._strategy import Strategy
from ._threads import THREADS, TIMEOUTS, forget_executors
from ._time_travel import note_travel
from ._token import spell_token

__all__ = ["Executed", "Signature", "controlled", "execute", "make_failure", "once"]

Signature = tuple[str | None, str, tuple[str, ...]]
"""What makes two failures the same: the kind, what happened, and where each task stood."""
Backend = Callable[
    [Program, Callable[[], Schedule | None], Callable[[Schedule, Outcome], None], Leaks], None
]


_perf_counter = real(time.perf_counter)
"""Real, also if a test has patched the name in all modules, as freezegun does."""

SURVEYED = 0.1
"""The part of an exploration that may run out, at its end, in which the number of schedules that
are left is estimated."""

BEFORE_A_FAILURE = 2
"""Schedules that are executed again, besides the first one, before a failure is reported."""
SIMPLE = 30
"""Schedules with one deviation that are tried for a failure that was found by chance, at most."""

for _replacements in (BEGINS, CHANCE, CLOCKS, SYSTEM_CHANCE):
    known(_replacements)  # what a test patches of the others is replaced: no thread may escape

_controlling = False
"""Whether what the lab controls is replaced."""
_explorer: int | None = None
"""The thread that explores."""


@contextmanager
def _alone() -> Iterator[None]:
    """Refuse an exploration inside another one: the lab's hooks are those of a whole process."""
    global _explorer
    this_thread = threading.get_ident()
    if _explorer == this_thread:
        raise refuse(
            "the lab explores a program already, and this call comes from inside of it; explore "
            "one program after the other, from plain functions or tests"
        )
    if _explorer is not None:
        raise LabError(
            "the lab explores a program already, in another thread; explore one program after the "
            "other"
        )
    _explorer = this_thread
    try:
        yield
    finally:
        _explorer = None


@contextmanager
def _controlled(options: Options) -> Iterator[None]:
    """Replace what the lab controls in the whole process, and put it back at the end; a nested call
    changes nothing. It takes some milliseconds."""
    global _controlling
    if _controlling:
        yield
        return
    with ExitStack() as stack:
        _controlling = True
        stack.callback(_control_is_over)
        stack.callback(forget_executors)
        stack.callback(forget_recorder)
        stack.enter_context(sets_in_order())
        if options.clocks:
            stack.enter_context(virtual_clocks())
        if options.chance:
            stack.enter_context(chance_is_kept())
            stack.enter_context(redirected(SYSTEM_CHANCE))
        stack.enter_context(older_locks())
        stack.enter_context(replaced(TIMEOUTS, copies=False))
        stack.enter_context(
            replaced([*THREADS, *LOOP_BOUND, *WITHOUT_ORDER, *(CHANCE if options.chance else ())])
        )
        # It ends first, so that what was replaced is put back in the modules' own variables.
        stack.enter_context(own_variables_kept(options.fresh))
        yield


def controlled(
    backend: BackendName, *, clocks: bool, chance: bool, fresh: tuple[str, ...]
) -> AbstractContextManager[None]:
    """Replace what the lab controls also around explorations, such as for the fixtures of a test: a
    patch that they make is then made on top of it in each execution, the first one, too."""
    return _controlled(Options(backend=backend, clocks=clocks, chance=chance, fresh=fresh))


def _control_is_over() -> None:
    global _controlling
    _controlling = False


@contextmanager
def _hooked(options: Options) -> Iterator[Leaks]:
    """Control the process, and listen to the warnings of leaked resources."""
    with listening() as leaks, _controlled(options), same_values():
        try:
            yield leaks
        except BaseException as error:
            _interrupts.drop_if_interrupted(error)  # as long as no warning is shown
            raise


@dataclass(slots=True)
class Executed:
    """The result of a number of executions."""

    executions: int = 0
    failures: list[Failure] = field(default_factory=list)
    signatures: list[Signature] = field(default_factory=list)
    """Of each failure, before it was shrunk."""
    seconds: float = 0.0
    covered: Covered = field(default_factory=Covered)
    cancelled_one: bool = False
    """Whether the lab was allowed to cancel any task."""
    ignored: Counter[str] = field(default_factory=Counter)
    """The failures of each kind that were passed over."""
    uses_anyio: bool = False
    """Whether the program has used anyio, though it seemed that it does not. It stops then."""


def execute(
    program: Program,
    strategy: Strategy,
    options: Options,
    *,
    on_progress: Callable[[int], None] | None = None,
    on_execution: Callable[[Schedule, Outcome], None] | None = None,
    known: frozenset[Signature] = frozenset(),
    whole: bool = True,
) -> Executed:
    """Execute the schedules of a strategy, and shrink each failure that is not `known` yet.

    If the strategy is not the `whole` exploration but a part, it is not asked what is left.

    Raises:
        LabError: the program cannot be explored, or does not do the same in the same schedule.
        KeyboardInterrupt: Ctrl-C was pressed, or the program raised it.
    """
    try:
        with _controlled(options):
            return _execute(program, strategy, options, on_progress, on_execution, known, whole)
    except NotRepeated as error:
        note_survival(program, error.survived)
        raise


def _execute(
    program: Program,
    strategy: Strategy,
    options: Options,
    on_progress: Callable[[int], None] | None,
    on_execution: Callable[[Schedule, Outcome], None] | None,
    known: frozenset[Signature],
    whole: bool,
) -> Executed:
    result = Executed()
    found: list[_Found] = []
    # Many schedules lead to the same failure; it is reported once.
    seen: set[Signature] = set(known)
    begin = _perf_counter()
    forget_outsiders()
    backend = _backend(options.backend)
    renew = Renewal(options.reset, options.fresh)
    records = Records(program)
    policy = _policy(program, options)
    end = math.inf if options.max_seconds is None else begin + options.max_seconds
    failures: list[Failure] = []
    ended: Schedule | None = None
    """That of the last execution."""

    def next_schedule() -> Schedule | None:
        discard_refused()
        result.uses_anyio = options.without_anyio and anyio_was_used()
        if result.uses_anyio:
            return None
        full = options.max_failures is not None and len(found) >= options.max_failures
        now = _perf_counter()
        late = now >= end and result.executions > 0  # a test that never ran would have passed
        if full or result.executions >= options.max_executions or late:
            return None
        if whole and (
            result.executions >= options.max_executions * (1 - SURVEYED)
            or end - now < (options.max_seconds or 0) * SURVEYED
        ):
            strategy.survey()
        if not strategy.begin():
            return None
        recorder.restart()
        if options.chance:
            restart_chance()
        try:
            renew()
        except BaseException as error:
            if ended is not None:
                token = spell_token(options.backend, ended.deviations, ended.rule)
                error.add_note(f"raised after the execution with the token {token!r}")
            raise
        note_travel()
        schedule = _schedule(strategy, options, policy)
        if records.wants(result.executions + 1):
            schedule.record()
        return schedule

    def done(schedule: Schedule, outcome: Outcome) -> None:
        nonlocal ended
        result.executions += 1
        ended = schedule
        if outcome.kind is not None:
            wait_for_threads()
        raise_refused()
        if _interrupts.raised_by(outcome.error):
            raise _interrupts.interrupt()
        _discard_if_rejected(schedule, outcome)
        if is_of_other_loop(outcome.error):
            raise NotFresh(f"the program uses a future or a task that {OLDER}")
        result.covered.note(schedule, outcome)
        if outcome.kind in options.ignore:
            result.ignored[outcome.kind] += 1
            outcome = Outcome()
        if records.wants(result.executions):
            records.add(result.executions, schedule, outcome)
        by_chance = strategy.by_chance
        strategy.end(schedule, outcome.kind is not None)
        signature = outcome.kind, outcome.message, outcome.where
        if outcome.kind is not None and signature not in seen:
            seen.add(signature)
            result.signatures.append(signature)
            found.append(_Found(result.executions, schedule, outcome, by_chance))
        if on_execution is not None:
            on_execution(schedule, outcome)
        if on_progress is not None:
            on_progress(result.executions)

    try:
        with _alone(), ExitStack() as stack:
            leaks = stack.enter_context(_hooked(options))
            if strategy.needs_declarations:  # of what the backend has loaded, too
                stack.enter_context(declaring())
                stack.enter_context(declaring_chance())
                stack.enter_context(declaring_cancellations())
            if options.without_anyio:
                stack.enter_context(noting_anyio())
            backend(program, next_schedule, done, leaks)
    except (NotFresh, NotTheSame) as error:
        del found[1:]
        if found and found[0].number == 1:
            failures = _failures(program, options, records, found, end)
        if not failures or failures[0].repeated:
            if isinstance(error, NotFresh):
                told = records.error(result.executions, str(error), repeated=False)
                raise told from None
            _repeat(program, options, records, [])  # it may say which step, and why
            raise
    if result.uses_anyio:
        found.clear()  # they are found again
        result.signatures.clear()
        collect_unheard()
    result.failures = failures or _failures(program, options, records, found, end)
    del result.signatures[len(result.failures) :]
    result.cancelled_one = policy is None or policy.matched
    if found:
        found.clear()  # and with them what their errors hold
        collect_unheard()
    result.seconds = _perf_counter() - begin
    return result


def _schedule(strategy: Strategy, options: Options, policy: Policy | None) -> Schedule:
    """Make the schedule of an execution in which the strategy is free to choose."""
    rules = options.cancelling or Cancellable()
    return Schedule(
        strategy,
        step_limit=options.step_limit,
        cancel_by=options.cancel_by,
        cancel_times=rules.times,
        mid_wait=rules.mid_wait,
        policy=policy,
    )


def _failures(
    program: Program, options: Options, records: Records, found: list[_Found], end: float
) -> list[Failure]:
    """Repeat some executions, and the failing ones, and shrink the failures.

    Of a failure in the first execution that differs when it is repeated, the report is of the
    first execution, which is noted in full. Later ones began from what it has left, so nothing is
    said of them.

    Raises:
        LabError: another execution differs.
    """
    failures: list[Failure] = []
    compared = False
    for it in found:
        if it.number > 1 and not compared:
            compared = True
            _repeat(program, options, records, found)
        failures.append(_shrunk(program, options, records, it, end=end))
        if not failures[-1].repeated:
            break
    if not found:
        _repeat(program, options, records, [])
    return failures


def _repeat(program: Program, options: Options, records: Records, found: list[_Found]) -> None:
    """Execute some schedules again, but for those that were found to fail, which are repeated when
    they are shrunk. Raises LabError if one of them differs.

    If an execution failed, it may have failed because of what earlier ones left; so the first one
    and a few others are repeated then.
    """
    failed = {it.number for it in found}
    policy = _policy(program, options)
    for record in records.again()[: 1 + BEFORE_A_FAILURE if failed else None]:
        if record.number in failed:
            continue
        strategy = Replay(record.deviations, record.rule)
        outcome, schedule = _execute_one(
            program, strategy, options, lambda it: _schedule(it, options, policy)
        )
        misfits = strategy.misfits
        if outcome.kind in options.ignore:
            outcome = Outcome()
        how = difference(record, Record.of(record.number, schedule, outcome))
        if misfits:
            step = misfits[0]
            how = (
                f"after step {step.number} of task {spell(step.task)} it could not go on as it did "
                f"at first"
            )
        if how is not None:
            raise records.error(record.number, how)


def once(
    program: Program, deviations: Deviations, rule: Rule, options: Options
) -> tuple[Outcome, Schedule, list[Anchor]]:
    """Execute one schedule; return also the places of the deviations that do not fit."""
    strategy = Replay(deviations, rule)
    outcome, schedule = _execute_given(program, strategy, deviations, options)
    return outcome, schedule, strategy.misfits


def _execute_given(
    program: Program, strategy: Strategy, deviations: Deviations, options: Options
) -> tuple[Outcome, Schedule]:
    """Execute a schedule that takes given deviations. Each cancellation among them is possible, but
    if the options say which tasks are cancelled, no other task is."""
    cancels = [it for it in deviations.values() if isinstance(it, Cancel)]
    ways = {it.by for it in cancels}
    times = len(cancels)
    if options.cancelling is not None:
        ways.intersection_update(options.cancel_by)
        times = min(times, options.cancelling.times)
    policy = _policy(program, options)

    def given(strategy: Strategy) -> Schedule:
        return Schedule(
            strategy,
            step_limit=options.step_limit,
            cancel_by=tuple(sorted(ways)),
            cancel_times=times,
            mid_wait=True,
            policy=policy,
        )

    return _execute_one(program, strategy, options, given)


def _policy(program: Program, options: Options) -> Policy | None:
    return None if options.cancelling is None else Policy(options.cancelling, program)


def _execute_one(
    program: Program, strategy: Strategy, options: Options, make: Callable[[Strategy], Schedule]
) -> tuple[Outcome, Schedule]:
    """Execute the next schedule of a strategy, which `make` makes, and note it in full."""
    results: list[tuple[Schedule, Outcome]] = []
    renew = Renewal(options.reset, options.fresh)

    def next_schedule() -> Schedule | None:
        discard_refused()
        if results or not strategy.begin():
            return None
        recorder.restart()
        if options.chance:
            restart_chance()
        renew()
        note_travel()
        schedule = make(strategy)
        schedule.record()
        return schedule

    def done(schedule: Schedule, outcome: Outcome) -> None:
        if outcome.kind is not None:
            wait_for_threads()
        raise_refused()
        results.append((schedule, outcome))

    with _alone(), _hooked(options) as leaks, noting_holders():
        _backend(options.backend)(program, next_schedule, done, leaks)
    schedule, outcome = results[0]
    if _interrupts.raised_by(outcome.error):
        raise _interrupts.interrupt()
    _discard_if_rejected(schedule, outcome)
    strategy.end(schedule, outcome.kind is not None)
    return outcome, schedule


def _discard_if_rejected(schedule: Schedule, outcome: Outcome) -> None:
    """Tell Hypothesis to discard the example if an assumption does not hold in the stock schedule.
    A failure in another one is shrunk, which executes the stock schedule, too."""
    error = rejection(outcome.error)
    if error is not None and schedule.is_stock:
        raise error.with_traceback(None)


@dataclass(frozen=True, slots=True)
class _Found:
    """A failing execution."""

    number: int
    schedule: Schedule
    outcome: Outcome
    by_chance: bool


def _differs(
    program: Program, options: Options, records: Records, found: _Found
) -> tuple[str | None, tuple[Schedule, Outcome] | None]:
    """Execute a failing schedule again; return what it did differently, in words, or None; then the
    second execution, if there is one."""
    before = Record.of(found.number, found.schedule, found.outcome)
    try:
        outcome, schedule, _ = once(program, before.deviations, before.rule, options)
    except LabError as error:  # such as for a lock that belongs to the first execution
        return str(error), None
    return difference(before, Record.of(found.number, schedule, outcome)), (schedule, outcome)


def _shrunk(
    program: Program, options: Options, records: Records, found: _Found, *, end: float
) -> Failure:
    """Repeat a failing execution, and look for fewer deviations with which the program fails in the
    same way.

    The stock schedule comes first, since it is what happens without the lab. If the failing
    schedule was found by chance, those with one deviation come next. The order that is left under
    the rule of the failing schedule is then tried under the other rule, which may be closer to it.
    What is left is executed once more, so that no failure of one time alone is reported.
    """
    failing, outcome = found.schedule, found.outcome
    best: tuple[Schedule, Outcome] | None = None

    def note(again: Outcome, schedule: Schedule) -> bool:
        """Return True if it failed in the same way; then it is the best schedule so far."""
        nonlocal best
        if (again.kind, _class_of(again)) != (outcome.kind, _class_of(outcome)):
            return False  # or one failure would be shrunk to another
        best = schedule, again
        return True

    def fails(fewer: Deviations, rule: Rule) -> Deviations | None:
        if best is not None and _perf_counter() > end:
            return None  # shorter schedules would take longer than the exploration may
        again, schedule, _ = once(program, fewer, rule, options)
        return schedule.deviations if note(again, schedule) else None

    def shorten(rule: Rule, deviations: Deviations) -> int:
        return shrink(deviations, lambda fewer: fails(fewer, rule))[1]

    remarks = left_over(program, options)
    how, second = _differs(program, options, records, found)
    remarks += noted_times(program, options)
    replays = 1
    if how is not None and found.number == 1:
        note_survival(program, records.survived())
        failure = make_failure(options.backend, failing, outcome, remarks)
        return replace(failure.doubted(records.doubt(how)), replays=replays)
    what = f"it failed at first with {outcome.kind!r} ({first_line(outcome.message)}), but {how}"
    if how is not None and second is not None and outcome.kind == "leak":
        second = None  # what refers to a thing decides; a shorter schedule may show the leak
    elif how is not None:
        raise records.error(found.number, what)
    # A message may hold what differs each time, such as the name of a temporary directory.
    if second and not same_message(outcome, second[1]) and records.survived():
        remarks += (records.other_message(outcome, second[1]),)
        if failing.is_stock and found.number == 1:
            second = failing, outcome
    if not failing.is_stock:
        replays += 1
        if fails({}, "stock") is None and found.by_chance:
            simple = Exhaustive(1, 1)
            policy = _policy(program, options)
            while best is None and replays <= SIMPLE and not simple.complete:
                again, schedule = _execute_one(
                    program, simple, options, lambda it: _schedule(it, options, policy)
                )
                replays += 1
                if len(schedule.deviations) > 1:
                    break
                note(again, schedule)
        if best is None:
            replays += shorten(failing.rule, failing.deviations)
    best = shortest = best or second
    if best is None or shortest is None:
        raise records.error(found.number, what)
    if len(shortest[0].deviations) > 1 and _perf_counter() <= end:
        schedule = shortest[0]
        other: Rule = "run-on" if schedule.rule == "stock" else "stock"
        follow = Follow([step.task for step in schedule.steps], schedule.deviations, other)
        again, followed = _execute_given(program, follow, schedule.deviations, options)
        replays += 1
        if note(again, followed):
            replays += shorten(other, followed.deviations)
        # Of two that are equally short, the one counts that is told from the stock order.
        if (len(best[0].deviations), best[0].rule != "stock") >= (
            len(schedule.deviations),
            schedule.rule != "stock",
        ):
            best = shortest
    if best is not second:
        replays += 1
        how, _ = _differs(program, options, records, _Found(found.number, *best, False))
        if how is not None:
            told = f"a shorter schedule failed with {outcome.kind!r}, but the second time {how}"
            raise records.error(found.number, told)
    failure = make_failure(options.backend, *best, remarks)
    return replace(failure, found_at=found.number, replays=replays)


def _class_of(outcome: Outcome) -> tuple[str, str]:
    """Return the name of an error's class: the class itself may be made anew each time."""
    cls = type(outcome.error)
    return cls.__module__, cls.__qualname__


def make_failure(
    backend: BackendName, schedule: Schedule, outcome: Outcome, remarks: Sequence[str] = ()
) -> Failure:
    """Describe a failed execution, with remarks for its report."""
    token = spell_token(backend, schedule.deviations, schedule.rule)
    return Failure(
        kind=cast("FailureKind", outcome.kind),
        token=token,
        report=report(token, schedule, outcome, remarks),
        schedule=steps_of(schedule, outcome.quiet_since),
        error=outcome.error,
    )


def _backend(name: BackendName) -> Backend:
    """Load a backend.

    Raises:
        ImportError: trio is asked for and not installed.
        LabError: this release of trio or anyio lacks what the lab needs.
    """
    if name == "asyncio":
        require(name)
        from ._asyncio_backend import explore_on_asyncio

        return explore_on_asyncio
    try:
        import trio  # noqa: F401 - to say what is missing
    except ImportError:
        raise ImportError("the trio backend needs trio: pip install 'mbufpools[trio]'") from None
    require(name)
    from ._trio_backend import explore_on_trio

    return explore_on_trio
