"""The verdict on a variant: the shortest schedule that fails, or how many did not fail."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

from mbufpools.lab.engine import Exhaustive, LabError

from ._ends import Ending, endings
from ._model import Scenario
from ._scenarios import BY_NAME, DEEP, ONE_CPU, SCENARIOS
from ._search import (
    Execution,
    Explored,
    count,
    count_interrupts,
    replay,
    run_schedules,
    shortest,
)
from ._story import fill, story
from ._variants import VARIANTS, Variant

__all__ = ["Finding", "Kind", "Verdict", "tell", "verdict"]

MANY = 1_000
"""The most schedules of a scenario that are executed if the variant is known to fail."""
ALL = 200_000
"""The most schedules of a scenario if none may fail; more than there are."""
NUMBERS = {1: "one", 2: "two", 3: "three", 4: "four"}
START = "clock@0 is the start: what runs first. It stops none, so it is no preemption."
"""What a story says of the tokens that begin so."""
SEARCHED = 20_000
"""The most executions in the search for the shortest failing schedule."""
SMALLEST = ("half-page", "put-frees")
"""Scenarios small enough to execute every schedule in the split grain, without reduction."""


Kind = Literal["stall", "corruption", "livelock"]
"""What a schedule does that fails."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A schedule that fails, and its token."""

    kind: Kind
    """What failed."""
    message: str
    scenario: str
    cpus: int
    preemptions: int
    """How often a CPU must stop while others continue."""
    steps: int
    shortest: bool
    """True if every schedule with fewer preemptions, or as many and fewer steps, was executed."""
    token: str
    """One line that replays the schedule; `tell` takes it."""
    ends: tuple[Ending, ...] = ()
    """What ends the stall, each thing alone; empty if none of them does, or if it is no stall."""

    @property
    def length(self) -> str:
        """The length of the schedule, in words."""
        return f"{self.preemptions} preemption{'s' * (self.preemptions != 1)}, {self.steps} steps"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the exploration of a variant found."""

    variant: Variant
    explored: tuple[Explored, ...]
    """The results, one for each scenario of several CPUs."""
    findings: tuple[Finding, ...]
    """One finding for each scenario in which a schedule fails; the shortest comes first, and those
    of one CPU last."""
    interrupts: tuple[Explored, ...] = ()
    """The results of one CPU and an interrupt; empty if a process runs without an end."""
    plain: int = 0
    """The number of schedules that were also executed without reduction, and did not fail."""

    @property
    def fails(self) -> bool:
        """True if a schedule fails."""
        return bool(self.findings)

    @property
    def holds(self) -> bool:
        """True if no schedule fails, and all were explored."""
        explored = (*self.explored, *self.interrupts)
        return not self.fails and all(each.complete for each in explored)

    @property
    def as_expected(self) -> bool:
        """True if the variant fails where it is known to fail, or holds where it must hold."""
        return self.fails if self.variant.scenarios else self.holds

    def schedules(self, *cpus: int) -> int:
        """The number of schedules in the scenarios of these numbers of CPUs; by default in those
        of several."""
        return sum(it.schedules for it in self._of(cpus))

    def failing(self, *cpus: int) -> int:
        """The number of failing schedules in the same scenarios."""
        return sum(it.failing for it in self._of(cpus))

    def _of(self, cpus: tuple[int, ...]) -> list[Explored]:
        if not cpus:
            return [*self.explored]
        return [it for it in (*self.interrupts, *self.explored) if it.scenario.cpus in cpus]

    @property
    def ends(self) -> tuple[Ending, ...]:
        """What ends every stall that was found on several CPUs."""
        stalls = [it.ends for it in self.findings if it.kind == "stall" and it.cpus > 1]
        ends = [end for end in Ending if stalls and all(end.ends(each) for each in stalls)]
        return tuple(end for end in ends if end is not Ending.EMPTY or Ending.PUT not in ends)

    @property
    def summary(self) -> str:
        """The verdict in a sentence."""
        if self.fails:
            return f"{self.findings[0].kind}: {self.findings[0].message}"
        cpus = sorted({each.scenario.cpus for each in self.explored})
        numbers = [NUMBERS[number] for number in cpus]
        words = " and ".join(filter(None, [", ".join(numbers[:-1]), numbers[-1]]))
        if not self.holds:
            return f"no stall in {self.schedules()} schedules of {words} CPUs, but there are more"
        plain = f", nor in {self.plain} executed without reduction" if self.plain else ""
        return f"no stall in all {self.schedules()} schedules of {words} CPUs{plain}"

    @property
    def story(self) -> str:
        """The story of the shortest failing schedule; or the summary, if no schedule fails."""
        head = f"{self.variant.name}: {self.variant.rule}"
        if not self.fails:
            return f"{head}\n\n{self.summary}"
        first, *others = self.findings
        lines = [head, "", tell(self.variant.name, first.token)]
        kind = "Shortest failing schedule" if first.shortest else "Shortest schedule found"
        lines.append(f"{kind}: {first.length}; its token is")
        lines.append(first.token)
        lines += [f"In {each.scenario}: {each.length}; {each.token}" for each in others]
        if any("clock@0>" in each.token for each in self.findings):
            lines.append(START)
        return "\n".join(lines)


def verdict(name: str, *, deep: bool = False) -> Verdict:
    """Explore a variant, and return the verdict; `deep` adds scenarios with more operations and
    more CPUs.

    Blocks for up to a few seconds; with `deep` for up to minutes.

    Raises:
        ValueError: there is no variant of that name.
    """
    variant = _variant(name)
    names = variant.scenarios or [each.name for each in SCENARIOS]
    scenarios = [BY_NAME[name] for name in names]
    if deep and not variant.scenarios:
        scenarios += DEEP
    most = MANY if variant.scenarios and not deep else ALL
    explored = tuple(count(each, variant.rules, most) for each in scenarios)
    findings = [_finding(each, variant) for each in explored if each.failing]
    interrupts: tuple[Explored, ...] = ()
    if not any(it.kind == "livelock" for it in findings):
        interrupts = tuple(count_interrupts(each, variant.rules, MANY) for each in ONE_CPU)
    findings += [_finding(each, variant) for each in interrupts if each.failing]
    findings.sort(key=lambda it: (it.cpus == 1, it.preemptions, it.steps))
    plain = 0
    if deep and not findings:
        plain = sum(_plain(BY_NAME[name], variant) for name in SMALLEST)
    return Verdict(variant, explored, tuple(findings), interrupts, plain)


def _variant(name: str) -> Variant:
    try:
        return VARIANTS[name]
    except KeyError:
        raise ValueError(f"no variant {name!r}; expected one of {', '.join(VARIANTS)}") from None


def _finding(explored: Explored, variant: Variant) -> Finding:
    execution, is_shortest = shortest(explored, variant.rules, SEARCHED)
    schedule, outcome = execution.schedule, execution.outcome
    assert outcome.kind is not None
    return Finding(
        kind=cast(Kind, outcome.kind),
        message=outcome.message,
        scenario=explored.scenario.name,
        cpus=explored.scenario.cpus,
        preemptions=schedule.preemptions,
        steps=len(schedule.steps),
        shortest=is_shortest,
        token=execution.token,
        ends=_ends(explored.scenario, variant, execution),
    )


def _ends(scenario: Scenario, variant: Variant, execution: Execution) -> tuple[Ending, ...]:
    if execution.outcome.kind != "stall":
        return ()
    return endings(scenario, variant.rules, execution.token)


def _plain(scenario: Scenario, variant: Variant) -> int:
    """Execute every schedule of a scenario in the split grain, without reduction.

    Returns how many there were, or 0 if they were too many.
    """
    failed = False

    def on_execution(execution: Execution) -> bool:
        nonlocal failed
        failed = execution.outcome.kind is not None
        return failed

    strategy = Exhaustive(None)
    executions = run_schedules(
        scenario,
        variant.rules,
        strategy,
        joined=False,
        max_executions=SEARCHED,
        on_execution=on_execution,
    )
    if failed:
        raise LabError(
            f"plain exploration found a failure of {variant.name!r} in {scenario.name!r} that "
            f"partial-order reduction did not find"
        )
    return executions if strategy.complete else 0


def tell(name: str, token: str) -> str:
    """Return the story of the schedule of `token`, in the variant of that name.

    Blocks for one execution, which takes milliseconds.

    Raises:
        ValueError: there is no such variant, or `token` is not a token.
        LabError: the schedule is not possible in this variant.
    """
    variant = _variant(name)
    execution = replay(BY_NAME, variant.rules, token)
    scenario = BY_NAME[token.partition(":")[0].partition("/")[0]]
    told = story(execution, scenario)
    if execution.outcome.kind != "stall":
        return told
    ends = _ends(scenario, variant, execution)
    return f"{told}\n{fill(f'No thread can run, and the gc finds nothing to do. {_until(ends)}')}"


def _until(ends: tuple[Ending, ...]) -> str:
    """Say what ends a stall, in a sentence."""
    if not ends:
        return "No put into the pool and no page that leaves ends it."
    return f"What ends it: {', or '.join(ends)}."
