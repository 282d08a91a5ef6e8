"""How one execution ended, and the errors for programs that the lab cannot explore.

A program may catch the error by which the lab refuses I/O or a thread, or wrap it in a group. So
the lab also remembers it (`refuse`), and raises it after the execution (`raise_refused`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ._frames import caller

__all__ = [
    "ADDRESS",
    "IO_REFUSED",
    "LabError",
    "NotFresh",
    "NotRepeated",
    "NotTheSame",
    "Outcome",
    "Unsupported",
    "describe",
    "first_line",
    "discard_refused",
    "leaves",
    "only",
    "raise_refused",
    "refuse",
    "type_name",
    "was_anything_refused",
]


class LabError(RuntimeError):
    """The lab cannot explore the program, or cannot execute it in the given schedule."""


class Unsupported(LabError):
    """The program does what the lab cannot schedule: I/O, threads or subprocesses."""


class NotTheSame(LabError):
    """The program cannot do in a schedule what it did there before."""


class NotRepeated(LabError):
    """An execution that was repeated came out differently.

    Attributes:
        survived: the variables that had changed since the first execution.
    """

    def __init__(self, message: str, survived: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.survived = survived


class NotFresh(NotRepeated):
    """The program uses an object that belongs to another execution."""


def describe(error: BaseException) -> str:
    """Return the type and the message of an error, also of one whose message cannot be made."""
    name = type_name(error)
    try:
        return f"{name}: {error}"
    except Exception:  # noqa: BLE001 - the program's own `__str__`
        return f"{name} (its message cannot be shown: str() of it raises)"


def type_name(value: object) -> str:
    """Return the name of a value's type, also if its metaclass raises when it is asked for it."""
    return str(type.__dict__["__name__"].__get__(type(value)))


def first_line(text: str) -> str:
    """Return the first line of a text, not too long for a line of a report."""
    line = ADDRESS.sub("0x...", text.strip().partition("\n")[0])
    line = line.rstrip(": ")
    return line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]}..."


def only(kind: type[BaseException], error: BaseException) -> bool:
    """Return True if an error is of a kind, or is a group that holds only such errors."""
    return all(isinstance(it, kind) for it in leaves(error))


def leaves(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error, or those in a group, in their order. A group may be nested so deep that a
    function which calls itself for each inner one would not come to its end."""
    left = [] if error is None else [error]
    while left:
        it = left.pop()
        if isinstance(it, BaseExceptionGroup):
            left.extend(reversed(it.exceptions))
        else:
            yield it


LONGEST_LINE = 100
ADDRESS = re.compile("0x[0-9a-fA-F]{6,}")
"""Addresses differ from execution to execution, so reports leave them out."""

IO_REFUSED = (
    "the program does I/O; the lab explores schedules in virtual time, so give it a fake "
    "(`anyio.create_memory_object_stream`, say)"
)

_refused: list[LabError] = []


def refuse(message: str, kind: type[LabError] = Unsupported) -> LabError:
    """Return the error to raise inside of the program, and remember it for `raise_refused`."""
    where = caller()
    error = kind(f"{message} (called at {where})" if where else message)
    _refused.append(error)
    return error


def discard_refused() -> None:
    """Forget what was refused, because another execution begins."""
    _refused.clear()


def was_anything_refused() -> bool:
    """Return True if something was refused in the execution that runs."""
    return bool(_refused)


def raise_refused() -> None:
    """Raise the first error that was refused in the last execution, if there is one."""
    if _refused:
        error = _refused[0]
        _refused.clear()
        raise error


@dataclass(slots=True)
class Outcome:
    """The end of one execution."""

    kind: str | None = None
    """What failed: ``stall``, ``livelock``, ``exception`` or ``leak``; None if nothing failed."""
    message: str = ""
    """What happened, in one line or several."""
    where: tuple[str, ...] = ()
    """Where each task stood, in one line or several for each."""
    error: BaseException | None = None
    """The exception that the program raised."""
    value: Any = None
    """What the program returned."""
    stopped: bool = False
    """True if the execution was given up because it could show nothing new."""
    cancelled: bool = False
    """True if the lab has cancelled a task, and the program ended with that cancellation."""
    causes: tuple[BaseException, ...] = ()
    """Errors from before the failure, which nothing has handled: of callbacks, and of tasks."""
    quiet_since: int | None = None
    """If only background services ran at the end: the number of steps before that; else None."""
    cancelled_at_the_end: tuple[tuple[int, ...], ...] = ()
    """The tasks that were left when the main task was over, and that `asyncio.run` cancels."""
