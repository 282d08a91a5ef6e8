"""``mbufpools smp``: which rule of the kernel's protocol loses a wakeup on several CPUs?"""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from mbufpools.demokit import Mistake, Parser, conjunction, unknown

if TYPE_CHECKING:
    from mbufpools.smp import Verdict

__all__ = ["add_to", "run"]

WIDTH = 78
COST = "gc-two"
"""The scenario in which the wakeups are counted: one run of the gc frees two pages."""


def add_to(commands: argparse._SubParsersAction[Parser]) -> None:
    """Add the verb to the command line."""
    parser = commands.add_parser(
        "smp",
        help="explore the kernel's protocol on several CPUs, rule by rule",
        description="Explore the orders of steps in a model of the kernel's protocol on several "
        "CPUs, and on one CPU with an interrupt. Prints the verdict on each rule of the protocol, "
        "how narrow the window of each fault is, what ends the stall, and what each cure costs; or "
        "the story of one variant. The table takes about a minute; with --deep, many minutes.",
    )
    parser.add_argument(
        "variant", nargs="?", metavar="VARIANT", help="one variant; by default all, in a table"
    )
    parser.add_argument("--list", action="store_true", help="list the variants, and explore none")
    parser.add_argument("--token", help="tell the schedule of this token of VARIANT")
    parser.add_argument(
        "--deep",
        action="store_true",
        help="explore also more operations and more CPUs; takes many minutes",
    )
    parser.add_argument("--json", action="store_true", help="print JSON, one object a line")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the verdict on each variant, or on one variant with its story, or the story of the
    schedule of a token.

    Returns the exit status: 1 if a verdict is not as expected, or else 0.
    Raises Mistake if there is no such variant, or no such token.
    """
    from mbufpools import smp
    from mbufpools.lab import LabError

    name, token, deep, as_json = (
        arguments.variant,
        arguments.token,
        arguments.deep,
        arguments.json,
    )
    if arguments.list:
        if name is not None or token is not None or deep:
            raise Mistake("--list explores nothing; give no VARIANT, --token or --deep with it")
        _list_variants(as_json=as_json)
        return 0
    if name is not None and name not in smp.VARIANTS:
        listed = "`mbufpools smp --list` lists the variants"
        raise Mistake(f"no variant {unknown(name, list(smp.VARIANTS), listed)}")
    if token is not None:
        if name is None:
            raise Mistake("--token needs the name of its variant")
        try:
            told = smp.tell(name, token)
        except (ValueError, LabError) as error:
            raise Mistake(f"argument --token: {error}") from error
        _write(json.dumps({"variant": name, "token": token, "story": told}) if as_json else told)
        return 0
    if name is not None:
        found = smp.verdict(name, deep=deep)
        _write(json.dumps({**_plain(found), "story": found.story}) if as_json else _one(found))
        return int(not found.as_expected)
    if not as_json:
        _write(_HEAD.format("3 and 4 CPUs" if deep else "3 CPUs"))
    verdicts = []
    for each in smp.VARIANTS:
        found = smp.verdict(each, deep=deep)
        verdicts.append(found)
        _write(json.dumps(_plain(found)) if as_json else _row(found))
    if not as_json:
        rules = {name: variant.rule for name, variant in smp.VARIANTS.items()}
        parts = (_legend(rules), _faults(verdicts), _cures(verdicts), _cost(verdicts))
        for line in (line for part in (*parts, _ending(verdicts)) for line in ("", *part)):
            _write(line)
    return int(not all(found.as_expected for found in verdicts))


def _list_variants(*, as_json: bool) -> None:
    from mbufpools import smp

    for name, variant in smp.VARIANTS.items():
        if as_json:
            listed = {
                "variant": name,
                "rule": variant.rule,
                "in_kernel": variant.in_kernel,
                "in_kernel_if": variant.in_kernel_if,
                "combination": variant.combination,
            }
            _write(json.dumps(listed))
        else:
            _write(_entry(name, variant.rule))


def _write(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()  # the next line may take seconds


# One variant


def _one(found: Verdict) -> str:
    if found.fails:
        return found.story
    lines = [found.story, "", _line("scenario", "CPUs", "schedules", "wakeups", "refused")]
    lines.append(_line("-" * 15, "-" * 4, "-" * 9, "-" * 7, "-" * 7))
    lines += [
        _line(
            each.scenario.name,
            str(each.scenario.cpus),
            str(each.schedules),
            _range(each.wakeups),
            _range(each.refused),
        )
        for each in found.explored
    ]
    lines += [
        _line(each.scenario.name, "1", str(each.schedules), "-", "-") for each in found.interrupts
    ]
    lines += ["", *_fill(_EXPLAINED)]
    lines += [
        part
        for each in (*found.explored, *found.interrupts)
        for part in _fill(f"{each.scenario.name}: {each.scenario.what}.", indent=2)
    ]
    return "\n".join(lines)


_EXPLAINED = (
    "wakeups: runs of m_pool_wakeup in a schedule; refused: pages that the budget refused in a "
    "schedule."
)


def _line(name: str, *cells: str) -> str:
    return f"{name:15}  {cells[0]:>4}  {cells[1]:>9}  {cells[2]:>7}  {cells[3]:>7}"


def _range(ends: tuple[int, int]) -> str:
    return str(ends[0]) if ends[0] == ends[1] else f"{ends[0]} to {ends[1]}"


# All of them

_HEAD = """\
The kernel's protocol on several CPUs, and on one CPU with an interrupt: in
which orders of its steps does a process sleep, although there is memory for
it, until something else happens?

                  in the                                                short-
variant           kernel  verdict     1 CPU    2 CPUs     {:12}  est
----------------  ------  ----------  -------  ---------  ------------  ------"""


def _row(found: Verdict) -> str:
    variant = found.variant
    kind = found.findings[0].kind if found.fails else "none" if found.holds else "unknown"
    length = ""
    if found.fails:
        first = found.findings[0]
        length = f"{first.preemptions}, {first.steps}"
    in_kernel = "yes" if variant.in_kernel else "?" if variant.in_kernel_if else "-"
    line = (
        f"{variant.name:16}  {in_kernel:6}  {kind:10}  "
        f"{_schedules(found, 1):7}  {_schedules(found, 2):9}  {_schedules(found, 3, 4):12}  "
        f"{length}"
    )
    return line.rstrip()


def _schedules(found: Verdict, *cpus: int) -> str:
    schedules, failing = found.schedules(*cpus), found.failing(*cpus)
    if not schedules and not failing:
        return "-"
    return f"{failing}/{max(schedules, failing)}"


def _legend(rules: dict[str, str]) -> Iterator[str]:
    yield from _fill(
        "CPUs: how many schedules fail, of those that partial-order reduction distinguishes; on 1 "
        "CPU, of all places at which an interrupt may come. If the verdict is `none`, all were "
        "explored. shortest: the shortest failing schedule: how often a CPU must stop while others "
        "continue, and its steps. `mbufpools smp VARIANT` tells its story."
    )
    yield from _conditions()
    yield ""
    for name, rule in rules.items():
        yield _entry(name, rule)


def _conditions() -> Iterator[str]:
    """Say what the column *in the kernel* means."""
    from mbufpools.smp import VARIANTS

    told = [
        f"{name} if {variant.in_kernel_if}"
        for name, variant in VARIANTS.items()
        if variant.in_kernel_if
    ]
    yield ""
    yield from _fill(
        "in the kernel: yes, if the real kernel has this rule, with the patch or without it; ? "
        f"depends on the machine. It may have {'; '.join(told)}."
    )


def _entry(name: str, text: str) -> str:
    return textwrap.fill(f"{name:16}  {text}", WIDTH, subsequent_indent=" " * 18)


def _faults(verdicts: list[Verdict]) -> Iterator[str]:
    """For each fault of the kernel: how narrow its window is, and what ends the stall."""
    from mbufpools.smp import RANDOM, SOURCE

    yield "The faults of the kernel: how narrow the window is, and what ends the stall"
    yield ""
    yield f"{'rule':16}  {'window':12}  {'schedules':11}  what ends it"
    yield f"{'-' * 16}  {'-' * 12}  {'-' * 11}  {'-' * 33}"
    for found in verdicts:
        if found.variant.in_kernel and found.fails:
            ends, window = textwrap.wrap(_ends(found), 33), found.variant.window
            lost = _range(window.lost) if window else "-"
            yield f"{found.variant.name:16}  {window or '-'!s:12}  {lost:11}  {ends[0]}"
            yield from (" " * 45 + line for line in ends[1:])
    yield ""
    yield from _fill(
        f"window: {SOURCE}. schedules: in how many of {RANDOM} random schedules of that code a "
        f"process was left asleep. The model computes what ends a stall: each of the things alone "
        f"ends every stall that was found on several CPUs. (A put needs an item of the pool. In "
        f"gc-get with caches the pool has none, so only a page that leaves ends that stall.) The "
        f"gc ends none: a process is in a stall only once the gc finds nothing more to do."
    )


def _ends(found: Verdict) -> str:
    if found.findings[0].kind == "livelock":
        return "the end of the refusal; until then systqmp runs without a pause"
    return ", or ".join(found.ends) or "no single one of these"


def _cures(verdicts: list[Verdict]) -> Iterator[str]:
    yield "What the cures cost the kernel"
    yield ""
    for found in verdicts:
        if found.holds and found.variant.cost:
            yield _entry(found.variant.name, found.variant.cost)


def _cost(verdicts: list[Verdict]) -> list[str]:
    counted = [
        f"{found.variant.name} {_range(each.wakeups)}"
        for found in verdicts
        if found.holds
        for each in found.explored
        if each.scenario.name == COST
    ]
    return _fill(f"Wakeups if one run of the gc frees two pages ({COST}): {', '.join(counted)}.")


def _ending(verdicts: list[Verdict]) -> list[str]:
    holding = [found for found in verdicts if found.holds]
    kinds = [
        found.findings[0].kind
        for found in verdicts
        if found.fails and found.variant.in_kernel and not found.variant.combination
    ]
    spinning = kinds.count("livelock")
    total = sum(found.schedules() for found in holding)
    ending = (
        f"Verdict: {len(holding)} variants leave no process asleep in any of {total} "
        f"schedules of several CPUs; "
        f"{len(kinds) - spinning} rules of the kernel, patched or not, can each leave one "
        f"asleep until something happens"
        + (f"; {spinning} makes the patch's task spin." if spinning else ".")
    )
    if not all(found.as_expected for found in verdicts):
        wrong = [found.variant.name for found in verdicts if not found.as_expected]
        ending += f" NOT AS EXPECTED: {_list(wrong)}."
    return _fill(ending)


def _list(names: list[str]) -> str:
    return conjunction(names) if names else "nothing"


def _fill(text: str, indent: int = 0) -> list[str]:
    return textwrap.wrap(text, WIDTH, subsequent_indent=" " * indent, break_on_hyphens=False)


def _plain(found: Verdict) -> dict[str, Any]:
    """The verdict as JSON values, for programs."""
    variant = found.variant
    return {
        "variant": variant.name,
        "rule": variant.rule,
        "in_kernel": variant.in_kernel,
        "in_kernel_if": variant.in_kernel_if,
        "combination": variant.combination,
        "fails": found.fails,
        "holds": found.holds,
        "as_expected": found.as_expected,
        "summary": found.summary,
        "ends": list(found.ends),
        "cost": variant.cost,
        "window_ns": variant.window and variant.window.nanoseconds,
        "window_lost": variant.window and variant.window.lost,
        "scenarios": [
            {
                "name": each.scenario.name,
                "what": each.scenario.what,
                "cpus": each.scenario.cpus,
                "schedules": each.schedules,
                "complete": each.complete,
                "failing": each.failing,
                "wakeups": list(each.wakeups),
                "refused": list(each.refused),
            }
            for each in (*found.explored, *found.interrupts)
        ],
        "findings": [
            {
                "kind": each.kind,
                "message": each.message,
                "scenario": each.scenario,
                "cpus": each.cpus,
                "preemptions": each.preemptions,
                "steps": each.steps,
                "shortest": each.shortest,
                "token": each.token,
                "ends": list(each.ends),
            }
            for each in found.findings
        ],
        "executed_without_reduction": found.plain,
    }
