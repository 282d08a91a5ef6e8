"""The verdict on a variant: the shortest schedule that fails, or that none of so many does.

Uses `_explore`, `_scenarios`, `_story`, `_strategies` and `_variants`.
"""

from __future__ import annotations

from dataclasses import dataclass

from mbufpools.lab.engine import Exhaustive, LabError

from ._model import Scenario
from ._scenarios import BY_NAME, DEEP, SCENARIOS
from ._search import Execution, Explored, count, explore, replay, shortest
from ._story import story
from ._variants import VARIANTS, Variant

__all__ = ["Finding", "Verdict", "tell", "verdict"]

MANY = 1_000
"""Schedules of a scenario that are executed of a variant that is known to fail."""
ALL = 200_000
"""The same if none is to fail; more than there are."""
SEARCHED = 20_000
"""Executions in search of the shortest failing schedule."""
SMALLEST = ("half-page", "put-frees")
"""Scenarios of which every schedule, in the split grain, can be executed one by one."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A schedule that fails."""

    kind: str
    """``stall``, ``corruption`` or ``livelock``."""
    message: str
    scenario: str
    cpus: int
    preemptions: int
    """How often a CPU has to stand still while others go on."""
    steps: int
    shortest: bool
    """Every schedule with fewer preemptions, or as many and fewer steps, was executed."""
    token: str
    """Give it to `tell`."""

    @property
    def length(self) -> str:
        """How long it is, in words."""
        return f"{self.preemptions} preemption{'s' * (self.preemptions != 1)}, {self.steps} steps"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is known of a variant."""

    variant: Variant
    explored: tuple[Explored, ...]
    """Scenario by scenario."""
    findings: tuple[Finding, ...]
    """One of each scenario in which a schedule fails; the shortest first."""
    plain: int = 0
    """Schedules that were also executed one by one, without reduction, and did not fail."""

    @property
    def fails(self) -> bool:
        """A schedule fails."""
        return bool(self.findings)

    @property
    def holds(self) -> bool:
        """No schedule fails, and there are no more."""
        return not self.fails and all(each.complete for each in self.explored)

    @property
    def as_expected(self) -> bool:
        """It fails if the variant is known to, or else it holds."""
        return self.fails if self.variant.scenarios else self.holds

    def schedules(self, *cpus: int) -> int:
        """How many there are, with so many CPUs; by default of all."""
        return sum(it.schedules for it in self.explored if not cpus or it.scenario.cpus in cpus)

    def failing(self, *cpus: int) -> int:
        """How many of them fail."""
        return sum(it.failing for it in self.explored if not cpus or it.scenario.cpus in cpus)

    @property
    def summary(self) -> str:
        """In a sentence."""
        if self.fails:
            return f"{self.findings[0].kind}: {self.findings[0].message}"
        cpus = sorted({each.scenario.cpus for each in self.explored})
        numbers = [("two", "three", "four")[number - 2] for number in cpus]
        words = " and ".join(filter(None, [", ".join(numbers[:-1]), numbers[-1]]))
        if not self.holds:
            return f"no stall in {self.schedules()} schedules of {words} CPUs, but there are more"
        plain = f", nor in {self.plain} executed without reduction" if self.plain else ""
        return f"no stall in all {self.schedules()} schedules of {words} CPUs{plain}"

    @property
    def story(self) -> str:
        """The shortest failing schedule, told; or what was explored in vain."""
        head = f"{self.variant.name}: {self.variant.rule}"
        if not self.fails:
            return f"{head}\n\n{self.summary}"
        first, *others = self.findings
        lines = [head, "", tell(self.variant.name, first.token)]
        lines.append(f"{'None that fails has fewer' if first.shortest else 'That takes'}:")
        lines.append(f"{first.length}; its token is {first.token}")
        lines += [f"in {each.scenario} it takes {each.length}: {each.token}" for each in others]
        return "\n".join(lines)


def verdict(name: str, *, deep: bool = False) -> Verdict:
    """Explore a variant; `deep` is with more operations, and on more CPUs.

    Blocks for up to a few seconds; deep, for up to minutes. Raises ValueError if there is no such
    variant.
    """
    variant = _variant(name)
    names = variant.scenarios or [each.name for each in SCENARIOS]
    scenarios = [BY_NAME[name] for name in names]
    if deep and not variant.scenarios:
        scenarios += DEEP
    most = MANY if variant.scenarios and not deep else ALL
    explored = tuple(count(each, variant.rules, most) for each in scenarios)
    findings = [_finding(each, variant) for each in explored if each.failing]
    findings.sort(key=lambda it: (it.preemptions, it.steps))
    plain = 0
    if deep and not findings:
        plain = sum(_plain(BY_NAME[name], variant) for name in SMALLEST)
    return Verdict(variant, explored, tuple(findings), plain)


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
        kind=outcome.kind,
        message=outcome.message,
        scenario=explored.scenario.name,
        cpus=explored.scenario.cpus,
        preemptions=schedule.preemptions,
        steps=len(schedule.steps),
        shortest=is_shortest,
        token=execution.token,
    )


def _plain(scenario: Scenario, variant: Variant) -> int:
    """Execute every schedule of a scenario one by one, each mutex split; return how many."""
    failed = False

    def on_execution(execution: Execution) -> bool:
        nonlocal failed
        failed = execution.outcome.kind is not None
        return failed

    strategy = Exhaustive(None)
    executions = explore(
        scenario,
        variant.rules,
        strategy,
        joined=False,
        max_executions=SEARCHED,
        on_execution=on_execution,
    )
    if failed:
        raise LabError(
            f"plain exploration finds a failure of {variant.name!r} in {scenario.name!r} that "
            f"partial-order reduction does not"
        )
    return executions if strategy.complete else 0


def tell(name: str, token: str) -> str:
    """The story of the schedule of a token, of the variant of that name.

    Raises:
        ValueError: no such variant, or no token.
        LabError: it is no schedule of this variant.
    """
    execution = replay(BY_NAME, _variant(name).rules, token)
    scenario = BY_NAME[token.partition(":")[0].partition("/")[0]]
    return story(execution, scenario)
