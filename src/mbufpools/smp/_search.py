"""Explore a scenario with the lab's strategies: count its schedules, find the shortest that fails,
and replay one.
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
    Rule,
    Schedule,
    Strategy,
    parse_token,
    shrink,
    spell_token,
)

from ._model import Model, Scenario
from ._processors import Told
from ._rules import Rules

__all__ = [
    "Execution",
    "Explored",
    "count",
    "count_interrupts",
    "replay",
    "run_schedules",
    "shortest",
]

STEP_LIMIT = 400
"""The step limit of an execution. Every execution that ends takes at most half as many."""
PREEMPTIONS = 3
"""The search for the shortest failing schedule allows at most this many preemptions."""
JOINED = "joined"
RULE: Rule = "run-on"
"""The rule of every schedule: but for its deviations, a CPU runs on for as long as it can."""


@dataclass(frozen=True, slots=True)
class Execution:
    """One execution of a scenario, and the state at its end."""

    outcome: Outcome
    schedule: Schedule
    model: Model
    token: str


def run_schedules(
    scenario: Scenario,
    rules: Rules,
    strategy: Strategy,
    *,
    joined: bool,
    max_executions: int,
    on_execution: Callable[[Execution], bool],
) -> int:
    """Execute the schedules of a strategy, and return how many were executed.

    Ends when there are no more schedules, after `max_executions`, or when `on_execution` returns
    True. `joined` is the grain of the mutexes; partial-order reduction needs the joined grain.
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
    # "stock" is the rule that a token does not spell; here every token means `RULE`.
    token = spell_token(scenario.name + grain, schedule.deviations, "stock")
    return Execution(outcome, schedule, model, token)


@dataclass(slots=True)
class Explored:
    """What exploring a scenario found: one schedule of each class that the accesses distinguish, or
    on one CPU every schedule."""

    scenario: Scenario
    schedules: int = 0
    complete: bool = False
    """True if there are no more schedules."""
    failing: int = 0
    first: Deviations | None = None
    """The deviations of the first schedule that fails."""
    wakeups: tuple[int, int] = (0, 0)
    """The fewest and the most runs of m_pool_wakeup in a schedule."""
    refused: tuple[int, int] = (0, 0)
    """The fewest and the most pages that the budget refused in a schedule."""


def count(scenario: Scenario, rules: Rules, max_executions: int) -> Explored:
    """Explore a scenario by partial-order reduction.

    A livelock ends the exploration, because a program without an end has endless schedules.
    """
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
    explored.schedules = run_schedules(
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


def count_interrupts(scenario: Scenario, rules: Rules, max_executions: int) -> Explored:
    """Explore a scenario of one CPU: its interrupt comes at each place where it can come."""
    explored = Explored(scenario)

    def on_execution(execution: Execution) -> bool:
        if execution.outcome.kind is not None:
            explored.failing += 1
        return False

    strategy = Exhaustive(None)
    explored.schedules = run_schedules(
        scenario,
        rules,
        strategy,
        joined=False,
        max_executions=max_executions,
        on_execution=on_execution,
    )
    explored.complete = strategy.complete
    return explored


def shortest(explored: Explored, rules: Rules, max_executions: int) -> tuple[Execution, bool]:
    """The failing schedule with the fewest preemptions, and among those the fewest steps.

    Also returns True if every shorter schedule was executed. If `max_executions` are not enough to
    find a failing schedule, the result is the first schedule that `count` found, shrunk.
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
        max_executions -= run_schedules(
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
        once = _execute(explored.scenario, rules, Replay(deviations, RULE), True, None)
        if once.outcome.kind is None:
            return None
        found.append(once)
        return once.schedule.deviations

    shrink(explored.first, fails)
    return found[-1], False


def _length(schedule: Schedule) -> tuple[int, int]:
    return schedule.preemptions, len(schedule.steps)


def replay(scenarios: dict[str, Scenario], rules: Rules, token: str) -> Execution:
    """Execute the schedule of a token, and record its story.

    Raises:
        ValueError: `token` is not a token of one of the scenarios.
        LabError: the schedule is not possible in this variant.
    """
    where, deviations, _ = parse_token(token)
    name, _, grain = where.partition("/")
    if name not in scenarios or grain not in ("", JOINED):
        raise ValueError(f"{token!r} is not a token: there is no scenario {where!r}")
    strategy = Replay(deviations, RULE)
    told: Told = []
    execution = _execute(scenarios[name], rules, strategy, bool(grain), told)
    if strategy.misfits:
        raise LabError(
            f"token {token!r} belongs to another variant: its schedule is not possible here"
        )
    return execution
