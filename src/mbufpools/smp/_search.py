"""Explore a scenario with the lab's strategies: count its schedules, find the shortest that fails,
and execute one again.

Uses `_dpor`, `_model`, `_outcome`, `_rules`, `_schedule`, `_shrink` and `_strategies`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mbufpools.lab.engine import (
    Deviations,
    Dpor,
    Exhaustive,
    LabError,
    Outcome,
    Replay,
    Schedule,
    Strategy,
    parse_token,
    shrink,
    spell_token,
)

from ._model import Model, Scenario
from ._processors import Told
from ._rules import Rules

__all__ = ["Execution", "Explored", "count", "explore", "replay", "shortest"]

STEP_LIMIT = 400
"""Steps of an execution; those that end take half as many at most."""
PREEMPTIONS = 3
"""Searched for the shortest schedule that fails."""
JOINED = "joined"


@dataclass(frozen=True, slots=True)
class Execution:
    """One execution."""

    outcome: Outcome
    schedule: Schedule
    model: Model
    token: str


def explore(
    scenario: Scenario,
    rules: Rules,
    strategy: Strategy,
    *,
    joined: bool,
    max_executions: int,
    on_execution: Callable[[Execution], bool],
) -> int:
    """Execute the schedules of a strategy until there are no more, or so many, or `on_execution`
    says that it is enough; return how many there were.

    `joined` is the grain of the processors; partial-order reduction needs it.
    """
    executions = 0
    while executions < max_executions and strategy.begin():
        execution = _execute(scenario, rules, strategy, joined, None)
        executions += 1
        if on_execution(execution):
            break
    return executions


def _execute(
    scenario: Scenario, rules: Rules, strategy: Strategy, joined: bool, told: Told | None
) -> Execution:
    schedule = Schedule(strategy, step_limit=STEP_LIMIT)
    model = Model.of(scenario, rules, joined=joined)
    model.processors.told = told
    outcome = model.processors.run(schedule, model.judge)
    strategy.end(schedule, outcome.kind is not None)
    grain = f"/{JOINED}" if joined else ""
    return Execution(
        outcome, schedule, model, spell_token(scenario.name + grain, schedule.deviations)
    )


@dataclass(slots=True)
class Explored:
    """The schedules of a scenario, one of each class that the accesses tell apart."""

    scenario: Scenario
    schedules: int = 0
    complete: bool = False
    """There are no more."""
    failing: int = 0
    first: Deviations | None = None
    """Of the first that fails."""
    wakeups: tuple[int, int] = (0, 0)
    """The fewest and the most runs of m_pool_wakeup in a schedule."""
    refused: tuple[int, int] = (0, 0)
    """The same of pages that were asked for in vain."""


def count(scenario: Scenario, rules: Rules, max_executions: int) -> Explored:
    """Explore a scenario by partial-order reduction. A livelock ends it: there is no end to the
    schedules of what has none itself."""
    explored = Explored(scenario)
    wakeups: list[int] = []
    refused: list[int] = []

    def on_execution(execution: Execution) -> bool:
        outcome, kernel = execution.outcome, execution.model.kernel
        if outcome.kind is not None:
            explored.failing += 1
            if explored.first is None:
                explored.first = execution.schedule.deviations
        elif not outcome.stopped:
            wakeups.append(kernel.wakeup_runs)
            refused.append(kernel.drops)
        return outcome.kind == "livelock"

    strategy = Dpor()
    explored.schedules = explore(
        scenario,
        rules,
        strategy,
        joined=True,
        max_executions=max_executions,
        on_execution=on_execution,
    )
    explored.schedules -= strategy.redundant
    explored.complete = strategy.complete
    if wakeups:
        explored.wakeups = min(wakeups), max(wakeups)
        explored.refused = min(refused), max(refused)
    return explored


def shortest(explored: Explored, rules: Rules, max_executions: int) -> tuple[Execution, bool]:
    """The failing schedule of the fewest preemptions, and of those the fewest steps; and whether
    all that are shorter have been executed.

    If so many executions do not come across any, it is the one that was found before, shrunk.
    """
    found: list[Execution] = []

    def on_execution(execution: Execution) -> bool:
        if execution.outcome.kind is not None and (
            not found or _length(execution.schedule) < _length(found[-1].schedule)
        ):
            found.append(execution)
        return execution.outcome.kind == "livelock"

    complete = True
    for preemptions in range(PREEMPTIONS + 1):
        if found or not complete:
            break
        strategy = Exhaustive(preemptions)
        max_executions -= explore(
            explored.scenario,
            rules,
            strategy,
            joined=False,
            max_executions=max_executions,
            on_execution=on_execution,
        )
        complete = strategy.complete
    if found:
        return found[-1], complete
    assert explored.first is not None

    def fails(deviations: Deviations) -> Deviations | None:
        once = _execute(explored.scenario, rules, Replay(deviations), True, None)
        if once.outcome.kind is None:
            return None
        found.append(once)
        return once.schedule.deviations

    shrink(explored.first, fails)
    return found[-1], False


def _length(schedule: Schedule) -> tuple[int, int]:
    return schedule.preemptions, len(schedule.steps)


def replay(scenarios: dict[str, Scenario], rules: Rules, token: str) -> Execution:
    """Execute the schedule of a token, with what is told of it.

    Raises:
        ValueError: no token.
        LabError: it is no schedule of this variant.
    """
    where, deviations = parse_token(token)
    name, _, grain = where.partition("/")
    if name not in scenarios or grain not in ("", JOINED):
        raise ValueError(f"{token!r} is no token: there is no scenario {where!r}")
    strategy = Replay(deviations)
    told: Told = []
    execution = _execute(scenarios[name], rules, strategy, bool(grain), told)
    if strategy.misfits:
        raise LabError(f"the token {token!r} is of another variant: the schedule is not possible")
    return execution
