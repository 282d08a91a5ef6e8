"""Tokens: one line that says how to execute a schedule again."""

from __future__ import annotations

from typing import cast, get_args

from ._options import CancelWay
from ._schedule import Anchor, Cancel, Choice, Deviations, Pick, Rule
from ._steps import CLOCK, MAIN, Name, spell

__all__ = ["parse_token", "spell_token"]


SUFFIXES: dict[Rule, str] = {"stock": "", "run-on": "/run-on", "eager": "/eager"}
"""What follows the backend in the token of a schedule under each rule."""


def spell_token(backend: str, deviations: Deviations, rule: Rule) -> str:
    """Return the token of a schedule, such as ``asyncio:0.1@2>0.2``.

    ``asyncio:`` alone is the order that asyncio itself takes; ``asyncio/run-on:`` begins the token
    of a schedule in which, but for its deviations, each task runs on for as long as it can, and
    ``asyncio/eager:`` one in which callbacks never wait for a task, besides.
    Each deviation is written as the step after which it comes, the number of cancellations that
    were injected there before it (as apostrophes), and ``>`` with the task that runs or ``!`` with
    the task that is cancelled and the way. A value that `choose` returned is written as the step
    that called it, the number of the call there (as question marks), ``=`` and the value's index.
    """
    parts = []
    for anchor, choice in sorted(deviations.items(), key=_place):
        where = f"{spell(anchor.task)}@{anchor.number}" + "'" * anchor.cancelled
        if isinstance(choice, Pick):
            parts.append(f"{where}{'?' * -anchor.cancelled}={choice.which}")
            continue
        if isinstance(choice, Cancel):
            parts.append(f"{where}!{spell(choice.task)}/{choice.by}")
        else:
            parts.append(f"{where}>{spell(choice)}")
    if backend == "trio" and rule == "eager":
        rule = "run-on"  # trio has no callbacks
    return f"{backend}{SUFFIXES[rule]}:{','.join(parts)}"


def parse_token(token: str) -> tuple[str, Deviations, Rule]:
    """Return the backend, the deviations and the rule of a token.

    Raises:
        ValueError: it is no token.
    """
    backend, colon, rest = token.partition(":")
    deviations: Deviations = {}
    try:
        if not colon or not backend:
            raise ValueError
        for part in filter(None, rest.split(",")):
            mark = next((it for it in "!=" if it in part), ">")
            where, what = part.split(mark)
            bare = where.rstrip("?" if mark == "=" else "'")
            task, number = bare.split("@")
            marks = len(where) - len(bare)
            anchor = Anchor(_parse(task), int(number), -marks if mark == "=" else marks)
            if anchor in deviations:
                raise ValueError
            if mark == "=":
                if not marks or int(what) < 1:
                    raise ValueError
                deviations[anchor] = Pick(int(what))
            elif mark == ">":
                deviations[anchor] = _parse(what)
            else:
                target, by = what.split("/")
                if by not in get_args(CancelWay):
                    raise ValueError
                deviations[anchor] = Cancel(_parse(target), cast("CancelWay", by))
    except ValueError:
        raise ValueError(
            f"{token!r} is no token; expected what a failure's `token` says, such as "
            f"'asyncio:0.1@2>0.2'"
        ) from None
    for rule, suffix in SUFFIXES.items():
        if suffix and backend.endswith(suffix):
            return backend.removesuffix(suffix), deviations, rule
    return backend, deviations, "stock"


def _place(deviation: tuple[Anchor, Choice]) -> tuple[Name, int, bool, int]:
    """Return what the deviations of a token are sorted by: values are chosen inside of the step, in
    the order of the calls, and everything else comes after it."""
    task, number, cancelled = deviation[0]
    return task, number, cancelled >= 0, abs(cancelled)


def _parse(name: str) -> Name:
    if name == "clock":
        return CLOCK
    parsed = tuple(int(number) for number in name.split("."))
    if parsed[0] != MAIN[0]:
        raise ValueError
    return parsed
