"""What an exploration found, and what it covered."""

from __future__ import annotations

from dataclasses import dataclass, field

from ._options import BackendName, FailureKind

__all__ = ["Exploration", "ExplorationFailed", "Failure"]


@dataclass(frozen=True, slots=True)
class Failure:
    """What failed, and how to repeat it."""

    kind: FailureKind
    """``"stall"``, ``"livelock"``, ``"exception"`` or ``"leak"``."""
    token: str
    """The schedule as one line. `replay` takes it and executes the schedule again."""
    report: str
    """A text for people: what failed, where each task stood, the schedule, how to replay it."""
    error: BaseException | None = None
    """The exception that the program raised, or None. It is None if a worker found the failure."""
    found_at: int = 1
    """The number of the execution that failed first, counted from 1."""
    replays: int = 0
    """The number of executions that shrinking it took; `Exploration.executions` excludes them."""

    def report_with(self, command: str) -> str:
        """Return the report, with a command instead of the call of `replay`."""
        return self.report.replace(f"lab.replay(program, {self.token!r})", command)

    def __str__(self) -> str:
        return self.report


class ExplorationFailed(AssertionError):
    """Raised by `Exploration.assert_holds`: the exploration found a failure."""


@dataclass(frozen=True, slots=True)
class Exploration:
    """What an exploration found, and what it covered."""

    executions: int
    """The number of schedules that were executed."""
    complete: bool
    """True if every schedule within the bound was executed. Under ``dpor`` this covers the declared
    accesses only: an order that matters to undeclared state may be missing."""
    bound: str
    """The bound in words, such as "the schedules of at most 2 preemptions"."""
    strategy: str
    backend: BackendName
    failures: tuple[Failure, ...] = ()
    """The failures, all different, in the order in which they were found."""
    remarks: tuple[str, ...] = ()
    """What makes a complete exploration say less than it seems to: that there was never a choice,
    that a task never ran."""
    not_explored: tuple[str, ...] = ()
    """What was held fixed, so that the exploration says nothing of it."""
    redundant: int = 0
    """The number of executions that were given up early because they could show nothing new."""
    seconds: float = field(default=0.0, compare=False)
    """The duration of the exploration, in seconds of real time."""

    def assert_holds(self) -> None:
        """Raise `ExplorationFailed` with the report of the first failure, if there is a failure."""
        if self.failures:
            raise ExplorationFailed(f"{self}\n\n{self.failures[0].report}")

    def __str__(self) -> str:
        found = (
            f"{len(self.failures)} failure{'s' if len(self.failures) > 1 else ''} found"
            if self.failures
            else "no failure"
        )
        extent = "all" if self.complete else "not all"
        text = (
            f"{found} in {self.executions} execution{'s' if self.executions > 1 else ''} "
            f"({self.strategy} on {self.backend}): {extent} of {self.bound}"
        )
        if self.complete and not self.failures:
            text += "".join(f"; but {remark}" for remark in self.remarks)
            text += f"; not explored: {', '.join(self.not_explored)}"
        return text
