"""What an exploration found, and what it covered."""

from __future__ import annotations

from dataclasses import dataclass, field

from ._options import BackendName, FailureKind

__all__ = ["Exploration", "ExplorationFailed", "Failure"]


@dataclass(frozen=True, slots=True)
class Failure:
    """What failed, and how to see it again."""

    kind: FailureKind
    token: str
    """Give it to `replay`."""
    report: str
    """The schedule as a story, and where each task stood at the end."""
    error: BaseException | None = None
    """What was raised, if anything."""
    found_at: int = 1
    """The number of the execution."""
    replays: int = 0
    """Executions that it took to shrink it; they are not counted in `Exploration.executions`."""

    def report_with(self, command: str) -> str:
        """The report, with a command in the place of the call that replays it."""
        return self.report.replace(f"lab.replay(program, {self.token!r})", command)

    def __str__(self) -> str:
        return self.report


class ExplorationFailed(AssertionError):
    """Raised by `Exploration.assert_holds`."""


@dataclass(frozen=True, slots=True)
class Exploration:
    """What an exploration found, and what it covered."""

    executions: int
    """Schedules that were executed."""
    complete: bool
    """Every schedule within the bound was covered: the program has no other. Under ``dpor`` that
    is said of the accesses that are declared."""
    bound: str
    """The bound, in words."""
    strategy: str
    backend: BackendName
    failures: tuple[Failure, ...] = ()
    redundant: int = 0
    """Of the executions, those given up since they could show nothing new."""
    seconds: float = field(default=0.0, compare=False)
    """Real seconds that it took."""

    def assert_holds(self) -> None:
        """Raise ExplorationFailed, with the report of the first failure, if there is one."""
        if self.failures:
            raise ExplorationFailed(f"{self}\n\n{self.failures[0].report}")

    def __str__(self) -> str:
        found = (
            f"{len(self.failures)} failure{'s' if len(self.failures) > 1 else ''} found"
            if self.failures
            else "no failure"
        )
        extent = "all" if self.complete else "not all"
        return (
            f"{found} in {self.executions} execution{'s' if self.executions > 1 else ''} "
            f"({self.strategy} on {self.backend}): {extent} of {self.bound}"
        )
