"""A schedule as a story: which CPU did what, in the kernel's words."""

from __future__ import annotations

import textwrap
from itertools import groupby

from ._model import Operation, Scenario
from ._search import Execution

__all__ = ["fill", "story"]

WIDTH = 78
LONGEST = 80
"""A story tells at most this many actions; only a livelock has more."""


def story(execution: Execution, scenario: Scenario) -> str:
    """Tell an execution: the start, what each CPU did, and the end."""
    told = execution.model.processors.told
    assert told is not None
    lines = [fill(f"{_upper(scenario.what)}. {_pools(scenario)}"), ""]
    for number, program in enumerate(scenario.programs, 1):
        who = f"CPU {number} runs P{number}"
        if scenario.interrupt:
            who = f"P{number} runs" if number > 1 else "The interrupt runs"
        lines.append(f"{who}: {', then '.join(map(_call, program))}")
    lines.append("")
    width = max((len(actor) for actor, _ in told), default=0)
    for actor, parts in groupby(told[:LONGEST], key=lambda part: part[0]):
        for number, (_, what) in enumerate(parts):
            label = "" if number else actor
            lines += textwrap.wrap(
                what,
                WIDTH,
                initial_indent=f"  {label:{width}}  ",
                subsequent_indent=" " * (width + 6),
            )
    if len(told) > LONGEST:
        lines.append("  and so on")
    outcome = execution.outcome
    end = outcome.where or (
        (outcome.message,) if outcome.message else ("every process that can be served is served",)
    )
    lines.append("")
    lines += [fill(f"{outcome.kind or 'end'}: {part}.") for part in end]
    return "\n".join(lines)


def _pools(scenario: Scenario) -> str:
    pools = " and ".join(
        f"{shape.per_page} to a page of {shape.page_size} bytes in {shape.name}"
        for shape in scenario.shapes
    )
    return f"The budget has {scenario.limit} bytes; items are {pools}."


def _call(operation: Operation) -> str:
    match operation:
        case "try", pool:
            return f"pool_get({pool}, PR_NOWAIT)"
        case "nmbclust", limit:
            return f"nmbclust_update, to {limit} bytes"
        case kind, pool:
            return f"pool_{kind}({pool})"
    raise AssertionError(operation)


def fill(text: str) -> str:
    """Break a text into lines that fit a terminal."""
    return textwrap.fill(text, WIDTH)


def _upper(text: str) -> str:
    """The text with a capital first letter; ``capitalize`` would change the names of CPUs."""
    return text[0].upper() + text[1:]
