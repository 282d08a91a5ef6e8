"""The options ``--set WORKLOAD.NAME=VALUE`` of ``mbufpools compare``: parameters of workloads.

A value has the type of the parameter's default, and is in a range in which the workload can run and
answer its question. A parameter that a question states in its rows or words is refused, because
they would then say what was not run.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mbufpools.demokit import Mistake, conjunction, unknown

if TYPE_CHECKING:
    from mbufpools.experiment import Question

__all__ = ["read_settings"]

WORDS = {"order": ("random", "first", "last"), "request": ("bpf", "nfs", "64k")}
"""The values of the parameters that are words, but for ``pool``."""

MAY_BE_0 = {
    *("delay", "block", "trim", "stop"),
    *("load", "keep", "packets", "ring_items", "senders", "nfs", "small"),
}
"""The numbers that may be 0. With 0 of any other the workload fails or never ends (a rate, a time
between two events), or shows nothing (no sleeper)."""
LEAST = {"cold.nmbclust": 18, "grab.nmbclust": 16, "backlog.nmbclust": 34}
"""The least limit under which one page fits of each pool that the workload is about."""
ABOVE = {"cold.horizon": 1.0}
"""The process of a cold pool asks at one second."""
MOST = {"cold.load": 100}
IN_ORDER = {"incident": ("stop", "resume", "end")}
"""Times that must come one after the other."""


def read_settings(
    options: Iterable[str], questions: Sequence[Question]
) -> dict[str, dict[str, Any]]:
    """Return the new parameters by workload.

    Args:
        options: each ``WORKLOAD.NAME=VALUE``.
        questions: those that are asked.

    Raises Mistake for a parameter that does not exist, that is not used, or that a question states;
    and for a wrong value.
    """
    from mbufpools.experiment import PARAMETERS

    used = {cell.workload for question in questions for cell in question.cells}
    asked = f"question {questions[0].letter}" if len(questions) == 1 else "the experiment"
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
                f"argument --set: {name!r} changes nothing, because {asked} has no workload "
                f"{workload}; it has {', '.join(sorted(used))}"
            )
        try:
            changes.setdefault(workload, {})[parameter] = _read(
                name, value, PARAMETERS[workload][parameter]
            )
        except Mistake as error:
            raise Mistake(f"argument --set: {option!r}: {value!r} is no value; {error}") from None
        _check_unstated(name, questions)
    for workload, parameters in changes.items():
        _check_order(workload, PARAMETERS[workload] | parameters)
    return changes


def _check_unstated(name: str, questions: Sequence[Question]) -> None:
    """Refuse a parameter that one of the questions states."""
    from mbufpools.experiment import QUESTIONS

    stating = [it for it in questions if name in it.stated]
    if not stating:
        return
    workload = name.partition(".")[0]
    taking = [
        it.name
        for it in QUESTIONS
        if name not in it.stated and any(cell.workload == workload for cell in it.cells)
    ]
    states = conjunction([f"{it.letter} ({it.name})" for it in stating])
    others = [f"`mbufpools compare {it}`" for it in taking]
    raise Mistake(
        f"argument --set: {name!r} is stated by question {states}, whose rows and words would then "
        "say what was not run; leave it out"
        + (f", or ask {conjunction(others)}, where it can be changed" if others else "")
    )


def _check_order(workload: str, parameters: Mapping[str, Any]) -> None:
    names = IN_ORDER.get(workload, ())
    times = [parameters[name] for name in names]
    if sorted(set(times)) != times:
        told = ", ".join(f"{workload}.{name}={parameters[name]:g}" for name in names)
        raise Mistake(f"argument --set: expected {' < '.join(names)}; they would be {told}")


def _read(name: str, value: str, default: Any) -> Any:
    parameter = name.partition(".")[2]
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
        found = None
    least: float = 0 if parameter in MAY_BE_0 else LEAST.get(name, 1) if whole else 0
    most = MOST.get(name, float("inf"))
    if whole or parameter in MAY_BE_0:
        fits = found is not None and least <= found <= most and found < float("inf")
        end = "up" if name not in MOST else f"to {most}"
        expected = f"a {'whole ' * whole}number from {least} {end}"
    else:
        above = ABOVE.get(name, 0.0)
        fits = found is not None and above < found < float("inf")
        expected = f"a number above {above:g}"
    if not fits:
        raise Mistake(f"expected {expected}")
    return found


def _pools() -> list[str]:
    from mbufpools import MbufPools

    return list(MbufPools().pools)
