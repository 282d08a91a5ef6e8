"""Recordings of the kernel's pools: one JSON object a line.

The first line is a header: the seed, and the rules of wakeup and curpage under which the kernel
ran. Each later line is one operation, with the state of the kernel after everything that could run
had run.

A recording of a kernel with per-CPU caches has their number in its header, as ``caches``. Then each
get, try and put ends in the number of its CPU, and each line has ``caches``: for each pool whose
caches changed, ``list`` (items of a full list), ``depot`` (items there) and ``cpus`` (items in the
lists of each CPU).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mbufpools import CurPage, Wakeup

__all__ = ["OPERATIONS", "Step", "Trace", "TraceError", "parse_trace"]

OPERATIONS: Mapping[str, tuple[type, ...]] = {
    "get": (int, str),
    "try": (int, str),
    "put": (int,),
    "advance": (float,),
    "nmbclust": (int,),
    "hardlimit": (str, int),
    "hiwat": (str, int),
    "reclaim": (str,),
}
"""The operations, and the types of their arguments."""

ON_A_CPU = ("get", "try", "put")
"""The operations whose last argument is a CPU in a recording with caches."""

MOST_CPUS = 1024
"""The most CPUs that a recording may have caches for."""

LONGEST = 1_000_000
"""The most seconds that one step may advance, as each second costs a run of the gc."""

_STATE = (
    "t",
    "rv",
    "granted",
    "mem_limit",
    "mem_alloc",
    "drops",
    "wakeup_runs",
    "pools",
)


class TraceError(ValueError):
    """A file is not a recording. The message names the line and says what was expected."""


@dataclass(frozen=True, slots=True)
class Step:
    """One operation, and the state of the kernel after it."""

    line: int
    """The number of the line in the file, counted from 1."""
    operation: str
    arguments: tuple[Any, ...]
    state: Mapping[str, Any]
    """The state as recorded. Its ``pools`` has only the pools whose counters changed, and its
    ``caches``, if there are caches, those whose caches changed."""


@dataclass(frozen=True, slots=True)
class Trace:
    """A recording: the rules under which the kernel ran, and its steps."""

    name: str
    wakeup: Wakeup
    curpage: CurPage
    steps: tuple[Step, ...]
    caches: int = 0
    """The number of CPUs that have caches; 0 if there are none."""


def parse_trace(text: str, name: str) -> Trace:
    """Return the recording whose text is `text`; `name` is its name, also in messages.

    Raises TraceError if it is not a recording.
    """
    lines = text.splitlines()
    if not lines:
        raise TraceError(f"{name} is empty; expected a header and one operation a line")
    header = _parse_line(lines[0], name, 1)
    try:
        wakeup, curpage = Wakeup(header["wakeup"]), CurPage(header["curpage"])
    except (KeyError, ValueError) as error:
        raise TraceError(
            f"{name}, line 1: expected a header with a wakeup of "
            f"{', '.join(Wakeup)} and a curpage of {', '.join(CurPage)}; got {lines[0][:80]}"
        ) from error
    caches = header.get("caches", 0)
    if not (_fits(caches, int) and 0 <= caches <= MOST_CPUS):
        raise TraceError(
            f"{name}, line 1: caches is {caches!r}; expected the number of CPUs that have them, "
            f"from 0 to {MOST_CPUS}"
        )
    steps = [
        _parse_step(_parse_line(line, name, number), name, number, caches)
        for number, line in enumerate(lines[1:], 2)
        if line.strip()
    ]
    return Trace(name, wakeup, curpage, tuple(steps), caches)


def _parse_line(line: str, name: str, number: int) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise TraceError(
            f"{name}, line {number}: not JSON ({error}); expected a recording, one object a line"
        ) from error
    if not isinstance(value, dict):
        raise TraceError(f"{name}, line {number}: expected an object; got {line[:80]}")
    return value


def _parse_step(value: dict[str, Any], name: str, number: int, caches: int) -> Step:
    where = f"{name}, line {number}"
    op = value.pop("op", None)
    if not (isinstance(op, list) and op and isinstance(op[0], str) and op[0] in OPERATIONS):
        raise TraceError(f"{where}: op is {op!r}; expected one of {', '.join(OPERATIONS)}")
    operation, *arguments = op
    types = OPERATIONS[operation]
    on_a_cpu = bool(caches) and operation in ON_A_CPU
    if on_a_cpu:
        types = (*types, int)
    if len(arguments) != len(types) or not all(map(_fits, arguments, types)):
        expected = ", ".join(kind.__name__ for kind in types)
        raise TraceError(f"{where}: {operation} takes ({expected}); got {arguments!r}")
    if on_a_cpu and not 0 <= arguments[-1] < caches:
        raise TraceError(
            f"{where}: {operation} is on CPU {arguments[-1]}; expected one of those that have "
            f"caches, 0 to {caches - 1}"
        )
    missing = [key for key in (*_STATE, *(["caches"] if caches else [])) if key not in value]
    if missing:
        raise TraceError(f"{where}: the state lacks {', '.join(missing)}")
    for key in ("pools", "caches") if caches else ("pools",):
        pools = value[key]
        if not (isinstance(pools, dict) and all(isinstance(pool, dict) for pool in pools.values())):
            raise TraceError(f"{where}: expected {key} with their counters; got {pools!r}")
    return Step(number, operation, tuple(arguments), value)


def _fits(argument: Any, kind: type) -> bool:
    if isinstance(argument, bool):
        return False
    if kind is float:  # seconds
        return isinstance(argument, int | float) and 0 <= argument <= LONGEST
    return isinstance(argument, kind)
