"""What an exploration found, and what it covered."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from ._options import BackendName, FailureKind, Verdict
from ._page import page_of
from ._story import ScheduledStep

__all__ = ["Exploration", "ExplorationFailed", "ExplorationIncomplete", "Failure"]


@dataclass(frozen=True, slots=True)
class Failure:
    """What failed, and how to repeat it.

    Attributes:
        kind: ``"stall"``, ``"livelock"``, ``"exception"`` or ``"leak"``.
        token: the schedule as one line. `replay` takes it and executes the schedule again.
        report: a text for people: what failed, where each task stood, the schedule, how to replay
            it.
        error: the exception that the program raised, or None. It is None if a worker found the
            failure.
        found_at: the number of the execution that failed first, counted from 1.
        schedule: the steps of the failing execution, one after another, as data.
        page: the file of the HTML page, if `explore` was asked for pages.
        repeated: False if the lab has executed the schedule again, and the program did not do the
            same. The report is of the first time then, and says what differed.
        replays: the number of executions that shrinking it took; `Exploration.executions` excludes
            them.
    """

    kind: FailureKind
    token: str
    report: str
    error: BaseException | None = None
    found_at: int = 1
    schedule: tuple[ScheduledStep, ...] = field(default=(), repr=False)
    page: str | None = None
    replays: int = 0
    repeated: bool = True

    def report_with(self, command: str) -> str:
        """Return the report, with a command instead of the call of `replay`."""
        return self.report.replace(f"lab.replay(program, {self.token!r})", command)

    def doubted(self, remark: str) -> Failure:
        """Return the failure with a remark in its report: its schedule was executed again, and the
        program did not do the same."""
        line = f"replay: lab.replay(program, {self.token!r})"
        return replace(self, report=self.report.replace(line, f"{remark}\n{line}"), repeated=False)

    def html(self, title: str = "") -> str:
        """Return one HTML page that shows the schedule: a lane for each task, which task woke
        which, the deviations, and source lines. It needs nothing from the network."""
        return page_of(title or self.report.partition("\n")[0], self.report, self.schedule)

    def __str__(self) -> str:
        return self.report


class ExplorationFailed(AssertionError):
    """Raised by `Exploration.assert_holds`: the exploration found a failure."""

    def __init__(self, message: str, errors: Iterable[BaseException | None] = ()) -> None:
        super().__init__(message)
        self.errors: tuple[BaseException | None, ...] = tuple(errors)
        """What the program raised in each failure; None for a stall and for a leak."""


class ExplorationIncomplete(ExplorationFailed):
    """Raised by `explore` with ``require_complete=True``: nothing failed, and nothing is proved."""

    def __init__(self, exploration: Exploration) -> None:
        super().__init__(
            f"{exploration}; require_complete=True asks for all: raise max_executions or "
            f"max_seconds, lower max_preemptions, or explore a smaller program"
        )
        self.exploration: Exploration = exploration

    def __reduce__(self) -> Any:
        return type(self), (self.exploration,)


@dataclass(frozen=True, slots=True)
class Exploration:
    """What an exploration found, and what it covered.

    Attributes:
        executions: the number of schedules that were executed.
        complete: True if every schedule within the bound was executed. Under ``dpor`` this covers
            the declared accesses only: an order that matters to undeclared state may be missing.
        bound: the bound in words, such as "the schedules of at most 2 preemptions".
        strategy: the name of the strategy.
        backend: ``"asyncio"`` or ``"trio"``.
        failures: the failures, all different, in the order in which they were found.
        remarks: what makes a complete exploration say less than it seems to: that there was never a
            choice, that a task never ran.
        not_explored: what was held fixed, so that the exploration says nothing of it.
        redundant: the number of executions that were given up early because they could show nothing
            new.
        left: the number of schedules within the bound that were not executed, estimated; None if
            all were, or if it is not known.
        seconds: the duration of the exploration, in seconds of real time.
    """

    executions: int
    complete: bool
    bound: str
    strategy: str
    backend: BackendName
    failures: tuple[Failure, ...] = ()
    remarks: tuple[str, ...] = ()
    not_explored: tuple[str, ...] = ()
    redundant: int = 0
    left: int | None = field(default=None, compare=False)
    seconds: float = field(default=0.0, compare=False)

    @property
    def verdict(self) -> Verdict:
        """``"found"``: there are failures. ``"proved"``: none, in every schedule within the bound.
        ``"ran out"``: none so far, but there are more schedules."""
        return "found" if self.failures else "proved" if self.complete else "ran out"

    def assert_holds(self) -> None:
        """Raise `ExplorationFailed` with the report of the first failure, if there is a failure."""
        if self.failures:
            text = f"{self}\n\n{self.failures[0].report}"
            raise ExplorationFailed(text, [it.error for it in self.failures])

    def __str__(self) -> str:
        found = (
            f"{len(self.failures)} failure{'s' if len(self.failures) > 1 else ''}"
            if self.failures
            else "no failure"
        )
        extent = "all" if self.complete else "not all"
        many = "s" if self.executions > 1 else ""
        text = (
            f"{self.verdict}: {found} in {self.executions} execution{many} "
            f"({self.strategy} on {self.backend}): {extent} of {self.bound}"
        )
        if self.complete and not self.failures:
            text += "".join(f"; but {remark}" for remark in self.remarks)
            text += f"; not explored: {'; '.join(self.not_explored)}"
        if self.left is not None and not self.failures:
            duration = _duration(self.left * self.seconds / self.executions)
            text += f"; {_roughly(self.left)} more are left ({duration} at this rate)"
        return text


MANY = 1e12
"""Executions of which only the order of magnitude is told."""
CENTURY = 100 * 366 * 86_400


def _roughly(number: float) -> str:
    """Return an estimate in one or two digits: "about 4,100", or "about 10**21"."""
    if number >= MANY:
        return f"about 10**{round(math.log10(number))}"
    digits = max(0, len(str(round(number))) - 2)
    return f"about {round(number, -digits):,.0f}"


def _duration(seconds: float) -> str:
    if seconds >= CENTURY:
        return "more than a century"
    for unit, size in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{_roughly(seconds / size)} {unit}"
    return f"{_roughly(seconds)} seconds" if seconds >= 2 else "a second or two"
