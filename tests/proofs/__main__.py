"""Prove, and say what was proved::

    python -m tests.proofs                            # in full, some minutes
    python -m tests.proofs --quick                    # fewer policies, one preemption less
    python -m tests.proofs --write docs/guarantees.md # in full, and put the table into the document

The exit status is 1 if anything failed or was not covered within its bound.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

from mbufpools import lab
from tests.kit.proved_block import arguments, write_block
from tests.proofs.programs import SUBJECTS, Policy, Subject

MAX_EXECUTIONS = 200_000
QUICK = {
    "asyncio": Policy("bounded", "deferred", "pressure"),
    "trio": Policy("barging", "direct", "gc"),
}
"""The policy of the quick form, on each backend."""


@dataclass(frozen=True)
class Job:
    """One exploration."""

    subject: int
    policy: Policy
    backend: lab.BackendName
    preemptions: int

    def run(self) -> lab.Exploration:
        """Explore it."""
        return lab.explore(
            SUBJECTS[self.subject].make(self.policy),
            strategy="exhaustive",
            backend=self.backend,
            max_preemptions=self.preemptions,
            max_executions=MAX_EXECUTIONS,
        )


def jobs(*, quick: bool) -> Iterator[Job]:
    """All explorations."""
    for number, subject in enumerate(SUBJECTS):
        for backend in subject.backends:
            policies = subject.policies
            if quick:
                one = QUICK[backend]
                policies = (one if one in policies else policies[0],)
            for policy in policies:
                yield Job(number, policy, backend, subject.preemptions - quick)


@dataclass
class Row:
    """What was proved of one subject on one backend."""

    subject: Subject
    backend: lab.BackendName
    preemptions: int
    policies: int = 0
    executions: int = 0
    complete: bool = True
    failures: int = 0


def prove(work: Iterable[Job], workers: int) -> tuple[list[Row], list[str]]:
    """Run the explorations; return the table, and the reports of what failed."""
    rows: dict[tuple[int, str], Row] = {}
    reports = []
    todo = list(work)
    with ProcessPoolExecutor(workers) as executor:
        for number, (job, result) in enumerate(
            zip(todo, executor.map(Job.run, todo), strict=True), 1
        ):
            subject = SUBJECTS[job.subject]
            row = rows.setdefault(
                (job.subject, job.backend), Row(subject, job.backend, job.preemptions)
            )
            row.policies += 1
            row.executions += result.executions
            row.complete &= result.complete
            row.failures += len(result.failures)
            reports += [
                f"{subject.name}, {job.policy}, {job.backend}:\n{failure.report}"
                for failure in result.failures
            ]
            if sys.stderr.isatty():
                print(f"\r{number} of {len(todo)} explorations", end="", file=sys.stderr)
    return list(rows.values()), reports


def table(rows: list[Row]) -> str:
    """The rows, for people."""
    lines = [
        "program                        backend  policies  preemptions   schedules  failed",
        "-----------------------------  -------  --------  -----------  ----------  ------",
    ]
    for row in rows:
        policies = str(row.policies) if len(row.subject.policies) > 1 else "-"
        covered = f"all {row.executions}" if row.complete else f"of {row.executions}"
        lines.append(
            f"{row.subject.name:29}  {row.backend:7}  {policies:>8}  {row.preemptions:>11}  "
            f"{covered:>10}  {row.failures or 'none':>6}"
        )
    total = sum(row.executions for row in rows)
    good = all(row.complete and not row.failures for row in rows)
    lines += [
        "",
        f"Verdict: in {total} schedules, {'all' if good else 'NOT all'} within their bounds"
        f"{' and none of them failing' if good else ''}.",
    ]
    return "\n".join(lines)


def main() -> int:
    """Prove as the command line says."""
    parser = arguments("python -m tests.proofs")
    parser.add_argument("--quick", action="store_true")
    given = parser.read()
    rows, reports = prove(jobs(quick=given.quick), given.jobs)
    print(*reports, table(rows), sep="\n\n")
    if given.write is not None:
        write_block(given.write, "python -m tests.proofs", table(rows))
    return 0 if all(row.complete and not row.failures for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
