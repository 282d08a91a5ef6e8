"""Executions, one after another, as a strategy says; and what fails is shrunk.

Uses `_cancelling`, `_declare`, `_dpor`, `_in_order`, `_outcome`, `_report`, `_result`, `_schedule`,
`_shrink`, `_strategies`, `_threads`, `_warnings` and, by name of the backend, a machine.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from ._cancelling import declaring_cancellations
from ._declare import declaring
from ._dpor import Dpor
from ._leaks import Leaks, collect_unheard, listening
from ._ordered_sets import sets_in_order
from ._outcome import LabError, Outcome, discard_refused, raise_refused
from ._report import report
from ._result import Failure
from ._schedule import Anchor, Cancel, Deviations, Schedule, Strategy, spell_token
from ._shrink import shrink
from ._strategies import Replay
from ._threads import forbidding_threads

__all__ = ["Executed", "Program", "Signature", "execute", "make_failure", "once"]

Program = Callable[[], Awaitable[Any]]
Signature = tuple[str | None, str, tuple[str, ...]]
"""What makes two failures the same one: the kind, what happened, and where each task stood."""
Machine = Callable[
    [Program, Callable[[], Schedule | None], Callable[[Schedule, Outcome], None], Leaks], None
]


@dataclass(slots=True)
class Executed:
    """What a number of executions came to."""

    executions: int = 0
    failures: list[Failure] = field(default_factory=list)
    signatures: list[Signature] = field(default_factory=list)
    """Of each failure, before it was shrunk."""
    seconds: float = 0.0


def execute(
    program: Program,
    strategy: Strategy,
    *,
    backend: str,
    max_executions: int,
    max_failures: int | None,
    step_limit: int,
    cancel_by: tuple[str, ...],
    on_progress: Callable[[int], None] | None = None,
    on_execution: Callable[[Schedule, Outcome], None] | None = None,
    known: frozenset[Signature] = frozenset(),
) -> Executed:
    """Execute the schedules of a strategy, and shrink what fails, but for the failures known."""
    result = Executed()
    found: list[tuple[int, Deviations, Outcome]] = []
    seen: set[Signature] = set(known)
    """One failure is found by many schedules; it is told once."""
    begin = time.perf_counter()

    def next_schedule() -> Schedule | None:
        discard_refused()
        full = max_failures is not None and len(found) >= max_failures
        if full or result.executions >= max_executions or not strategy.begin():
            return None
        return Schedule(strategy, step_limit=step_limit, cancel_by=cancel_by)

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
        if isinstance(strategy, Dpor):
            _machine(backend)  # so that what it loads declares, too
            stack.enter_context(declaring())
            stack.enter_context(declaring_cancellations())
        _machine(backend)(program, next_schedule, done, leaks)
    result.failures = [_shrunk(program, backend, *it, step_limit) for it in found]
    if found:
        found.clear()  # and what their errors hold
        collect_unheard()
    result.seconds = time.perf_counter() - begin
    return result


def once(
    program: Program, backend: str, deviations: Deviations, step_limit: int
) -> tuple[Outcome, Schedule, list[Anchor]]:
    """One execution; also the places of deviations that do not fit."""
    strategy = Replay(deviations)
    results: list[tuple[Schedule, Outcome]] = []

    def next_schedule() -> Schedule | None:
        discard_refused()
        if not strategy.begin():
            return None
        cancel_by = tuple(sorted({it.by for it in deviations.values() if isinstance(it, Cancel)}))
        schedule = Schedule(strategy, step_limit=step_limit, cancel_by=cancel_by)
        schedule.locations = []
        return schedule

    with listening() as leaks, forbidding_threads(), sets_in_order():
        _machine(backend)(program, next_schedule, lambda *result: results.append(result), leaks)
    raise_refused()
    schedule, outcome = results[0]
    strategy.end(schedule, outcome.kind is not None)
    return outcome, schedule, strategy.misfits


def _shrunk(
    program: Program,
    backend: str,
    number: int,
    deviations: Deviations,
    outcome: Outcome,
    step_limit: int,
) -> Failure:
    best: tuple[Schedule, Outcome] | None = None

    def fails(fewer: Deviations) -> Deviations | None:
        nonlocal best
        again, schedule, _ = once(program, backend, fewer, step_limit)
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
    return make_failure(backend, number, schedule, again, replays)


def make_failure(
    backend: str, number: int, schedule: Schedule, outcome: Outcome, replays: int
) -> Failure:
    token = spell_token(backend, schedule.deviations)
    assert outcome.kind is not None
    return Failure(
        kind=outcome.kind,
        token=token,
        report=report(token, schedule, outcome),
        error=outcome.error,
        found_at=number,
        replays=replays,
    )


def _machine(backend: str) -> Machine:
    if backend == "asyncio":
        from ._asyncio_backend import explore_on_asyncio

        return explore_on_asyncio
    try:
        import trio  # noqa: F401 - to say what is missing
    except ImportError:
        raise ImportError("the trio backend needs trio: pip install mbufpools[trio]") from None
    from ._trio_backend import explore_on_trio

    return explore_on_trio
