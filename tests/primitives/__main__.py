"""Print what is on record of the primitives; with ``--record``, explore them all and write it down.

A record is of one version of Python, and of the anyio and trio installed there.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

from . import SUBJECTS
from ._measure import Measured, Record, load, measure, versions
from .findings import FINDINGS, Finding

MAX_EXECUTIONS = 3_000
"""Of one subject, on one backend, with one way to cancel."""


def main() -> int:
    """Do what the command line says."""
    arguments = sys.argv[1:]
    if arguments == ["--record"]:
        measured: list[Measured] = []
        for subject in SUBJECTS:
            measured += measure(subject, MAX_EXECUTIONS)
            print(f"{len(measured):4} {subject.name}", file=sys.stderr)
        Record(*versions(), tuple(measured)).save()
        return 0
    if arguments:
        print(f"usage: python -m tests.primitives [--record]; got {arguments}", file=sys.stderr)
        return 2
    records = load()
    print_coverage(records)
    for number, finding in enumerate(FINDINGS, 1):
        print()
        print_finding(number, finding, records)
    return 0


def print_coverage(records: list[Record]) -> None:
    """How much was explored, and how much of it failed."""
    print("Python  anyio   trio    explorations  all schedules  executions  failed")
    for record in records:
        measured = record.measured
        print(
            f"{record.python:8}{record.anyio:8}{record.trio:8}{len(measured):12}"
            f"{sum(it.complete for it in measured):15}"
            f"{sum(it.executions for it in measured):12}"
            f"{sum(bool(it.kind) for it in measured):8}"
        )


def print_finding(number: int, finding: Finding, records: list[Record]) -> None:
    """What fails where, and the token that shows it."""
    print(f"{number}. {finding.title}")
    print(f"   why: {finding.because}")
    print(f"   reported: {finding.known}")
    shown: set[tuple[str, str, str]] = set()
    for subject in finding.subjects:
        for record in records:
            for it in _of(finding, subject, record):
                key = subject, it.backend, it.cancelled
                if key in shown:
                    continue
                shown.add(key)
                where = ", ".join(
                    other.python
                    for other in records
                    if any(
                        (subject, again.backend, again.cancelled) == key
                        for again in _of(finding, subject, other)
                    )
                )
                how = f"cancelled by {it.cancelled}" if it.cancelled else "nobody cancelled"
                print(f"   {subject} on {it.backend}, {how}: {it.kind} (Python {where})")
                print(f"     found in {it.executions}, {_usual(it)}: {it.token}")


def _of(finding: Finding, subject: str, record: Record) -> Iterable[Measured]:
    return (
        it
        for it in record.measured
        if it.kind
        and it.subject == subject
        and it.backend in finding.backends
        and finding.message in it.message
    )


def _usual(measured: Measured) -> str:
    return "in the usual order of tasks, too" if measured.usual else "if tasks are delayed"


if __name__ == "__main__":
    sys.exit(main())
