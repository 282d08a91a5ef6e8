"""Explore a subject by each way to cancel, and write down what was covered and found."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

from mbufpools import lab

from ._subject import Subject

__all__ = [
    "Measured",
    "Record",
    "explore",
    "innermost",
    "load",
    "measure",
    "versions",
    "ways",
]

Way = Literal["", "scope", "native"]
"""How the lab cancels; the empty string if it does not."""

RECORDS = Path(__file__).resolve().parent.parent / "data" / "primitives"


@dataclass(frozen=True)
class Measured:
    """One exploration."""

    subject: str
    backend: lab.BackendName
    cancelled: str
    """How the lab cancels: ``""`` if it does not, ``"scope"`` or ``"native"``."""
    executions: int
    complete: bool
    kind: str = ""
    """Of the first failure; empty if there is none."""
    message: str = ""
    """What it raised, out of any groups."""
    token: str = ""
    usual: bool = False
    """It fails in the usual schedule too, first in, first out, with a cancellation if need be."""


@dataclass(frozen=True)
class Record:
    """What was found with one set of versions."""

    python: str
    anyio: str
    trio: str
    measured: tuple[Measured, ...]
    shown: tuple[tuple[str, str], ...]
    """The findings, by title, that a program shows without the lab; each with its backend."""

    @property
    def path(self) -> Path:
        """Where it is kept: one for each minor version of Python."""
        return RECORDS / f"{'.'.join(self.python.split('.')[:2])}.json"

    def save(self) -> None:
        """Write it down."""
        self.path.parent.mkdir(exist_ok=True)
        rows = ",\n".join(json.dumps(asdict(it)) for it in self.measured)
        shown = json.dumps(self.shown)
        head = f'"python": "{self.python}", "anyio": "{self.anyio}", "trio": "{self.trio}"'
        self.path.write_text(
            f'{{{head}, "shown": {shown}, "measured": [\n{rows}\n]}}\n', encoding="utf-8"
        )


def load() -> list[Record]:
    """All records, in the order of the versions of Python."""
    records = []
    for path in RECORDS.glob("*.json"):
        read = json.loads(path.read_text(encoding="utf-8"))
        read["measured"] = tuple(Measured(**it) for it in read["measured"])
        read["shown"] = tuple((title, backend) for title, backend in read["shown"])
        records.append(Record(**read))
    return sorted(records, key=lambda it: [int(number) for number in it.python.split(".")])


def versions() -> tuple[str, str, str]:
    """Of Python, anyio and trio, as they run here."""
    return platform.python_version(), version("anyio"), version("trio")


def ways(subject: Subject, backend: lab.BackendName) -> tuple[Way, ...]:
    """The ways to cancel that are tried."""
    if not subject.cancel:
        return ("",)
    return ("", "scope", "native") if backend == "asyncio" else ("", "scope")


def explore(
    subject: Subject,
    backend: lab.BackendName,
    by: Way,
    max_executions: int,
    strategy: lab.StrategyName = "exhaustive",
    max_preemptions: int = 2,
) -> lab.Exploration:
    """Explore it with one way to cancel, so that what each of them finds is told apart."""
    return lab.explore(
        subject.program,
        backend=backend,
        cancel=by or False,
        strategy=strategy,
        max_executions=max_executions,
        max_preemptions=max_preemptions,
    )


def innermost(error: BaseException | None) -> str:
    """The first error in a group that is no cancellation, as one line."""
    while isinstance(error, BaseExceptionGroup):
        others = [it for it in error.exceptions if isinstance(it, (Exception, BaseExceptionGroup))]
        error = (others or error.exceptions)[0]
    return "" if error is None else f"{type(error).__name__}: {error}"


def measure(subject: Subject, max_executions: int) -> Iterator[Measured]:
    """Explore it in every way, until the first failure of each."""
    for backend in subject.backends:
        for by in ways(subject, backend):
            exploration = explore(subject, backend, by, max_executions)
            kind = message = token = ""
            usual = False
            for failure in exploration.failures:
                kind, message, token = failure.kind, innermost(failure.error), failure.token
                usual = bool(explore(subject, backend, by, max_executions, "fifo").failures)
            yield Measured(
                subject.name,
                backend,
                by,
                exploration.executions,
                exploration.complete,
                kind,
                message,
                token,
                usual,
            )
