"""Executions, one after another, as a strategy chooses them; and what fails is shrunk."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any, cast

from ._cancelling import declaring_cancellations
from ._declare import declaring
from ._leaks import Leaks, collect_unheard, listening
from ._options import BackendName, FailureKind, Options
from ._ordered_sets import sets_in_order
from ._outcome import LabError, Outcome, discard_refused, raise_refused
from ._report import report
from ._result import Failure
from ._schedule import Anchor, Cancel, Deviations, Schedule
from ._shrink import shrink
from ._strategies import Replay
from ._strategy import Strategy
from ._threads import forbidding_threads
from ._token import spell_token

__all__ = ["Executed", "Program", "Signature", "execute", "make_failure", "once"]

Program = Callable[[], Awaitable[Any]]
Signature = tuple[str | None, str, tuple[str, ...]]
"""What makes two failures the same: the kind, what happened, and where each task stood."""
Backend = Callable[
    [Program, Callable[[], Schedule | None], Callable[[Schedule, Outcome], None], Leaks], None
]


@dataclass(slots=True)
class Executed:
    """The result of a number of executions."""

    executions: int = 0
    failures: list[Failure] = field(default_factory=list)
    signatures: list[Signature] = field(default_factory=list)
    """Of each failure, before it was shrunk."""
    seconds: float = 0.0


def execute(
    program: Program,
    strategy: Strategy,
    options: Options,
    *,
    on_progress: Callable[[int], None] | None = None,
    on_execution: Callable[[Schedule, Outcome], None] | None = None,
    known: frozenset[Signature] = frozenset(),
) -> Executed:
    """Execute the schedules of a strategy, and shrink each failure that is not `known` yet."""
    result = Executed()
    found: list[tuple[int, Deviations, Outcome]] = []
    # Many schedules lead to the same failure; it is reported once.
    seen: set[Signature] = set(known)
    begin = time.perf_counter()
    backend = _backend(options.backend)

    def next_schedule() -> Schedule | None:
        discard_refused()
        full = options.max_failures is not None and len(found) >= options.max_failures
        if full or result.executions >= options.max_executions or not strategy.begin():
            return None
        return Schedule(strategy, step_limit=options.step_limit, cancel_by=options.cancel_by)

    def done(schedule: Schedule, outcome: Outcome) -> None:
        raise_refused()
        result.executions += 1
        strategy.end(schedule, outcome.kind is not None)
        signature = outcome.kind, outcome.message, outcome.where
        if outcome.kind is not None and signature not in seen:
            seen.add(signature)
            result.signatures.append(signature)
            found.append((result.executions, schedule.deviations, outcome))
        if on_execution is not None:
            on_execution(schedule, outcome)
        if on_progress is not None:
            on_progress(result.executions)

    with ExitStack() as stack:
        leaks = stack.enter_context(listening())
        stack.enter_context(forbidding_threads())
        stack.enter_context(sets_in_order())
        if strategy.needs_declarations:  # of what the backend has loaded, too
            stack.enter_context(declaring())
            stack.enter_context(declaring_cancellations())
        backend(program, next_schedule, done, leaks)
    result.failures = [_shrunk(program, options, *it) for it in found]
    if found:
        found.clear()  # and with them what their errors hold
        collect_unheard()
    result.seconds = time.perf_counter() - begin
    return result


def once(
    program: Program, deviations: Deviations, options: Options
) -> tuple[Outcome, Schedule, list[Anchor]]:
    """Execute one schedule; return also the places of the deviations that do not fit."""
    strategy = Replay(deviations)
    results: list[tuple[Schedule, Outcome]] = []

    def next_schedule() -> Schedule | None:
        discard_refused()
        if not strategy.begin():
            return None
        ways = {it.by for it in deviations.values() if isinstance(it, Cancel)}
        schedule = Schedule(strategy, step_limit=options.step_limit, cancel_by=tuple(sorted(ways)))
        schedule.locations = []
        return schedule

    def done(schedule: Schedule, outcome: Outcome) -> None:
        results.append((schedule, outcome))

    with listening() as leaks, forbidding_threads(), sets_in_order():
        _backend(options.backend)(program, next_schedule, done, leaks)
    raise_refused()
    schedule, outcome = results[0]
    strategy.end(schedule, outcome.kind is not None)
    return outcome, schedule, strategy.misfits


def _shrunk(
    program: Program, options: Options, number: int, deviations: Deviations, outcome: Outcome
) -> Failure:
    best: tuple[Schedule, Outcome] | None = None

    def fails(fewer: Deviations) -> Deviations | None:
        nonlocal best
        again, schedule, _ = once(program, fewer, options)
        if (again.kind, type(again.error)) != (outcome.kind, type(outcome.error)):
            return None  # or one failure would be shrunk to another
        best = schedule, again
        return schedule.deviations

    _, replays = shrink(deviations, fails)
    if best is None:
        raise LabError(
            f"execution {number} failed with {outcome.kind!r} ({outcome.message}), and the same "
            f"schedule did not fail again; the program does not do the same in the same schedule: "
            f"does it depend on real time, on addresses, or on what an earlier execution left?"
        )
    schedule, again = best
    failure = make_failure(options.backend, schedule, again)
    return replace(failure, found_at=number, replays=replays)


def make_failure(backend: BackendName, schedule: Schedule, outcome: Outcome) -> Failure:
    """Describe a failed execution."""
    token = spell_token(backend, schedule.deviations)
    return Failure(
        kind=cast("FailureKind", outcome.kind),
        token=token,
        report=report(token, schedule, outcome),
        error=outcome.error,
    )


def _backend(name: BackendName) -> Backend:
    """Load a backend. Raises ImportError if trio is asked for and not installed."""
    if name == "asyncio":
        from ._asyncio_backend import explore_on_asyncio

        return explore_on_asyncio
    try:
        import trio  # noqa: F401 - to say what is missing
    except ImportError:
        raise ImportError("the trio backend needs trio: pip install mbufpools[trio]") from None
    from ._trio_backend import explore_on_trio

    return explore_on_trio
