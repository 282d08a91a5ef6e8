"""The options ``--set WORKLOAD.NAME=VALUE`` of ``mbufpools compare``: parameters of workloads.

A value has the type of the parameter's default. What a workload makes of a number it cannot work
with, such as a rate of 0, is its own error, which `mbufpools compare` reports.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from typing import Any

from mbufpools.demokit import Mistake, unknown

__all__ = ["read_settings"]

WORDS = {"order": ("random", "first", "last"), "request": ("bpf", "nfs", "64k")}
"""The values of the parameters that are words, but for ``pool``."""


def read_settings(
    options: Iterable[str], used: Collection[str], question: str
) -> dict[str, dict[str, Any]]:
    """Return the new parameters by workload.

    Args:
        options: each ``WORKLOAD.NAME=VALUE``.
        used: the workloads of the questions that are asked.
        question: what an error calls these questions.

    Raises Mistake for a parameter that does not exist or is not used, and for a wrong value.
    """
    from mbufpools.experiment import PARAMETERS

    changes: dict[str, dict[str, Any]] = {}
    for option in options:
        name, _, value = option.partition("=")
        workload, _, parameter = name.partition(".")
        if parameter not in PARAMETERS.get(workload, {}):
            names = [f"{each}.{it}" for each in PARAMETERS for it in PARAMETERS[each]]
            listed = "`mbufpools compare --list` lists the parameters"
            raise Mistake(f"argument --set: no parameter {unknown(name, names, listed)}")
        if workload not in used:
            raise Mistake(
                f"argument --set: {name!r} changes nothing, because {question} has no workload "
                f"{workload}; it has {', '.join(sorted(used))}"
            )
        try:
            changes.setdefault(workload, {})[parameter] = _read(
                parameter, value, PARAMETERS[workload][parameter]
            )
        except Mistake as error:
            raise Mistake(f"argument --set: {option!r}: {value!r} is no value; {error}") from None
    return changes


def _read(parameter: str, value: str, default: Any) -> Any:
    if isinstance(default, str):
        words = WORDS.get(parameter) or _pools()
        word = value.strip('"')
        if word not in words:
            raise Mistake(f"expected one of {', '.join(words)}")
        return word
    try:
        found = json.loads(value)
    except ValueError:
        found = None
    if isinstance(default, bool):
        if not isinstance(found, bool):
            raise Mistake("expected true or false")
        return found
    whole = isinstance(default, int)
    if isinstance(found, bool) or not isinstance(found, int if whole else int | float):
        raise Mistake(f"expected a {'whole ' * whole}number")
    if not 0 <= found < float("inf"):
        raise Mistake(f"expected a {'whole ' * whole}number from 0 up")
    return found


def _pools() -> list[str]:
    from mbufpools import MbufPools

    return list(MbufPools().pools)
