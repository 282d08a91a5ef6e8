"""How one execution ended. Uses no other room."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["LabError", "Outcome", "Unsupported"]


class LabError(RuntimeError):
    """The lab cannot go on: the program is not what it must be, or not what it was."""


class Unsupported(LabError):
    """The program does what no schedule of the lab can control: I/O, threads, subprocesses."""


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
