"""How one execution ended. Uses no other room."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = [
    "LabError",
    "Outcome",
    "Unsupported",
    "discard_refused",
    "only",
    "raise_refused",
    "refuse",
]


class LabError(RuntimeError):
    """The lab cannot go on: the program is not what it must be, or not what it was."""


class Unsupported(LabError):
    """The program does what no schedule of the lab can control: I/O, threads, subprocesses."""


def only(kind: type[BaseException], error: BaseException) -> bool:
    """True if an error is of a kind, or a group of nothing else."""
    if isinstance(error, BaseExceptionGroup):
        return all(only(kind, inner) for inner in error.exceptions)
    return isinstance(error, kind)


_refused: list[Unsupported] = []


def refuse(message: str) -> Unsupported:
    """Make the error to raise inside of the program, and remember it: the program may catch it, or
    wrap it in a group."""
    error = Unsupported(message)
    _refused.append(error)
    return error


def discard_refused() -> None:
    """Another execution begins."""
    _refused.clear()


def raise_refused() -> None:
    """Raise what was refused in the last execution, if anything."""
    if _refused:
        error = _refused[0]
        _refused.clear()
        raise error


@dataclass(slots=True)
class Outcome:
    """The end of one execution."""

    kind: str | None = None
    """What failed: ``stall``, ``livelock``, ``exception`` or ``leak``; None if nothing did."""
    message: str = ""
    """What happened, in a line or more."""
    where: tuple[str, ...] = ()
    """Where each task stood."""
    error: BaseException | None = None
    value: Any = None
    stopped: bool = False
    """It was given up: it could show nothing new."""
    quiet_since: int | None = None
    """The steps after which only the gc of pools ran, if it stalled so."""
