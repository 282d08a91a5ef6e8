"""Print what is on record of the primitives; with ``--record``, explore them all and write it down.

A record is of one version of Python, and of the anyio and trio installed there.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from mbufpools import lab
from tests.primitives import SUBJECTS

from ._measure import Measured, Record, load, measure, versions
from .findings import FINDINGS, Finding

MAX_EXECUTIONS = 5_000
"""Of one subject, on one backend, with one way to cancel."""
TRIES = {"asyncio": 1, "trio": 20}
"""trio runs what is ready at one time in any order."""


def main() -> int:
    """Do what the command line says."""
    arguments = sys.argv[1:]
    if arguments == ["--record"]:
        measured: list[Measured] = []
        for subject in SUBJECTS:
            measured += measure(subject, MAX_EXECUTIONS)
            print(f"{len(measured):4} {subject.name}", file=sys.stderr)
        Record(*versions(), tuple(measured), tuple(shown())).save()
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


def shown() -> Iterator[tuple[str, str]]:
    """Run the programs of the findings on the libraries' own loops, in virtual time."""
    for finding in FINDINGS:
        for backend in finding.backends:
            if any(fails(finding, backend) for _ in range(TRIES[backend])):
                yield finding.title, backend


def fails(finding: Finding, backend: lab.BackendName) -> bool:
    """Whether one run shows it."""
    try:
        lab.run(finding.shows, backend=backend, patience=0)
    except (AssertionError, BaseExceptionGroup, lab.Stalled):
        return True
    return False


def print_coverage(records: list[Record]) -> None:
    """Print how much was explored, and how much of it failed."""
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
    """Print what fails where, and the tokens that show it."""
    print(f"{number}. {finding.title}")
    print(f"   why: {finding.because}")
    print(f"   reported: {finding.known}")
    for backend in finding.backends:
        pythons = [it.python for it in records if (finding.title, backend) in it.shown]
        print(f"   shown on {backend} without the lab: Python {', '.join(pythons) or 'none'}")
    for subject in finding.subjects:
        for backend in finding.backends:
            print_failures(
                [
                    (record.python, it)
                    for record in records
                    for it in record.measured
                    if it.kind and (it.subject, it.backend) == (subject, backend)
                    if finding.message in it.message
                ]
            )


def print_failures(failures: list[tuple[str, Measured]]) -> None:
    """Print the failures of one subject on one backend."""
    if not failures:
        return
    first = failures[0][1]
    pythons = dict.fromkeys(python for python, _ in failures)
    print(f"   {first.subject}, on {first.backend}, Python {', '.join(pythons)}:")
    for by in dict.fromkeys(it.cancelled for _, it in failures):
        it = next(it for _, it in failures if it.cancelled == by)
        how = {"": "without a cancellation", "scope": "by a scope", "native": "natively"}[by]
        order = "the default order" if it.usual else "tasks are delayed"
        print(f"     {how}: {it.kind} in execution {it.executions}, {order}: {it.token}")


if __name__ == "__main__":
    sys.exit(main())
