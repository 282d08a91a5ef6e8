"""Which tool finds the bugs of the zoo, in how long, and which proves their twins?

Each specimen of the zoo is a small program with a known bug, and a twin without. Each tool explores
both, on asyncio, in a process of its own that may take so many seconds::

    python benchmarks/peers.py                  # a line for each tool
    python benchmarks/peers.py --specimens      # and one for each specimen
    python benchmarks/peers.py --seconds 2 --only lab detangle

The lab takes its default strategy. detangle (0.1) takes its default for the bug; for the twin it
searches depth first without a bound, since only that can prove anything. It is left out if it is
not installed: `pip install detangle`. Specimens that show only if the lab cancels a task are left
out, because a peer has to be told at which place to cancel.

*no answer* is a tool that hangs or ends with an error of its own. A *false alarm* is a failure of a
twin. What a peer calls a bug of the specimen is taken for the bug that is there.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # for the zoo, which is a test

from mbufpools import lab
from tests.zoo import ZOO, Specimen

try:
    import detangle
    from detangle.strategies import DFS
except ImportError:
    detangle = None

GRACE = 2.0
"""Real seconds that a process has beyond those of the exploration."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a tool says of one program."""

    verdict: str
    """``failed``, ``proved``, ``ran out`` or ``no answer``."""
    executions: int = 0
    seconds: float = 0.0


Explore = Callable[[Specimen, bool, float], Answer]
"""Explores a specimen, or its twin if that is asked for, for so many seconds at most."""


class _OutOfTime(Exception):
    pass


def by_lab(specimen: Specimen, twin: bool, seconds: float) -> Answer:
    """Explore by the lab's default strategy."""
    begin = time.perf_counter()
    done = 0

    def watch(executions: int) -> None:
        nonlocal done
        done = executions
        if time.perf_counter() - begin > seconds:
            raise _OutOfTime

    try:
        found = lab.explore(
            specimen.twin if twin else specimen.bug,
            step_limit=specimen.step_limit,
            max_executions=10**9,
            on_progress=watch,
        )
    except _OutOfTime:
        return Answer("ran out", done, seconds)
    verdict = "failed" if found.failures else "proved" if found.complete else "ran out"
    return Answer(verdict, found.executions, found.seconds)


def by_detangle(specimen: Specimen, twin: bool, seconds: float) -> Answer:
    """Explore by detangle."""
    begin = time.perf_counter()
    strategy = DFS(max_delays=10**9, max_branch=10**9) if twin else None
    try:
        stats = detangle.explore(
            specimen.twin if twin else specimen.bug,
            strategy=strategy,
            runs=10**9,
            max_duration=seconds,
            database=False,
        )
    except detangle.BugFound as bug:
        return Answer("failed", bug.report.runs, time.perf_counter() - begin)
    verdict = "proved" if stats.exhausted else "ran out"
    return Answer(verdict, stats.runs, time.perf_counter() - begin)


TOOLS: dict[str, Explore] = {"lab": by_lab, "detangle": by_detangle}


# --- one process for each


def ask(explore: Explore, specimen: Specimen, twin: bool, seconds: float) -> Answer:
    """Ask a tool in a process of its own, which is killed if it takes longer than it may."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(there, explore, specimen, twin, seconds))
    process.start()
    there.close()
    try:
        if here.poll(seconds + GRACE):
            answer: Answer = here.recv()
            return answer
    except EOFError:
        pass
    finally:
        process.kill()
        process.join()
        here.close()
    return Answer("no answer", 0, seconds)


def _answer(pipe: Any, explore: Explore, specimen: Specimen, twin: bool, seconds: float) -> None:
    sys.stderr.close()
    pipe.send(explore(specimen, twin, seconds))


# --- the tables


@dataclass(frozen=True, slots=True)
class Row:
    """What a tool says of one specimen."""

    name: str
    bug: Answer
    twin: Answer


def measure(
    tools: Sequence[str], specimens: Sequence[Specimen], seconds: float
) -> dict[str, list[Row]]:
    """Ask each tool about each specimen, in turn."""
    rows: dict[str, list[Row]] = {tool: [] for tool in tools}
    for specimen in specimens:
        for tool in tools:
            bug, twin = (ask(TOOLS[tool], specimen, twin, seconds) for twin in (False, True))
            rows[tool].append(Row(specimen.name, bug, twin))
    return rows


def summary(rows: dict[str, list[Row]]) -> str:
    """The table with a line for each tool."""
    lines = [("tool", "bugs", "found", "seconds", "at most", "proved", "false alarms", "no answer")]
    for tool, its in rows.items():
        found = [row.bug.seconds for row in its if row.bug.verdict == "failed"]
        answers = [answer.verdict for row in its for answer in (row.bug, row.twin)]
        lines.append(
            (
                tool,
                str(len(its)),
                str(len(found)),
                f"{statistics.median(found):.3f}" if found else "",
                f"{max(found):.3f}" if found else "",
                str(sum(row.twin.verdict == "proved" for row in its)),
                str(sum(row.twin.verdict == "failed" for row in its)),
                str(answers.count("no answer")),
            )
        )
    return _table(lines, 1)


def specimens_of(rows: dict[str, list[Row]]) -> str:
    """The table with a line for each specimen: executions and seconds to the bug, and the twin."""
    lines = [("specimen", *(f"{tool}: {what}" for tool in rows for what in ("bug", "twin")))]
    for together in zip(*rows.values(), strict=True):
        cells = [_shown(answer) for row in together for answer in (row.bug, row.twin)]
        lines.append((together[0].name, *cells))
    return _table(lines, 1)


def _shown(answer: Answer) -> str:
    if answer.verdict == "no answer":
        return answer.verdict
    return f"{answer.verdict}, {answer.executions} in {answer.seconds:.3f} s"


def _table(lines: Sequence[Sequence[str]], left: int) -> str:
    """Align the first columns to the left, and the others to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--specimens", action="store_true", help="a line for each specimen, too")
    parser.add_argument("--seconds", type=float, default=5.0, metavar="S", help="for each program")
    parser.add_argument("--only", nargs="+", choices=list(TOOLS), help="these tools")
    parser.add_argument("--first", type=int, metavar="N", help="only the first N specimens")
    arguments = parser.parse_args(argv)
    absent = {"detangle"} if detangle is None else set()
    there = [tool for tool in TOOLS if tool not in absent]
    tools = arguments.only or there
    missing = [tool for tool in tools if tool not in there]
    if missing:
        parser.error(f"{missing[0]} is not installed: pip install {missing[0]}")
    specimens = [it for it in ZOO if not it.cancel and "asyncio" in it.backends]
    rows = measure(tools, specimens[: arguments.first], arguments.seconds)
    print(
        f"Bugs of the zoo on asyncio, {arguments.seconds:g} s each at most; seconds to find one: "
        f"median, and at most\n"
    )
    print(summary(rows))
    if arguments.specimens:
        print(f"\n{specimens_of(rows)}")


if __name__ == "__main__":
    main()
