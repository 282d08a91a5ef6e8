"""The primitives of anyio, trio and asyncio, explored: the records are true.

With other versions than those on record it is not known what to expect, but what was in order is
still expected to be: record them again with `python -m tests.primitives --record`.
"""

from __future__ import annotations

import pytest

from mbufpools import lab
from tests.primitives import SUBJECTS, Subject
from tests.primitives.__main__ import MAX_EXECUTIONS, TRIES, fails, print_coverage, print_finding
from tests.primitives._measure import (
    Measured,
    Way,
    explore,
    innermost,
    load,
    measure,
    versions,
    ways,
)
from tests.primitives.findings import FINDINGS, Finding

RECORDS = load()
HERE = [it for it in RECORDS if (it.python, it.anyio, it.trio) == versions()]
"""The record of these versions, if there is one."""
FAILS = {
    (it.subject, it.backend, it.cancelled)
    for record in RECORDS
    for it in record.measured
    if it.kind
}
FEW = 60

ON_RECORD = [
    pytest.param(it, id=f"{it.subject}, {it.backend}, {it.cancelled or 'not cancelled'}")
    for record in HERE
    for it in record.measured
    if it.kind
]


@pytest.mark.parametrize(
    ("subject", "backend", "by"),
    [
        pytest.param(subject, backend, by, id=f"{subject.name}, {backend}, {by or 'not cancelled'}")
        for subject in SUBJECTS
        for backend in subject.backends
        for by in ways(subject, backend)
        if (subject.name, backend, by) not in FAILS
    ],
)
def test_a_primitive_keeps_its_promise(subject: Subject, backend: lab.BackendName, by: Way) -> None:
    explore(subject, backend, by, FEW).assert_holds()


@pytest.mark.parametrize("measured", ON_RECORD)
def test_a_failure_on_record_is_seen_again_by_its_token(measured: Measured) -> None:
    (subject,) = (it for it in SUBJECTS if it.name == measured.subject)
    (failure,) = lab.replay(subject.program, measured.token).failures
    assert (failure.kind, innermost(failure.error)) == (measured.kind, measured.message)


@pytest.mark.parametrize("finding", [pytest.param(it, id=it.title) for it in FINDINGS])
def test_a_finding_is_shown_without_the_lab_where_the_record_says(finding: Finding) -> None:
    for record in HERE:
        for backend in finding.backends:
            if (finding.title, backend) in record.shown:
                assert any(fails(finding, backend) for _ in range(TRIES[backend]))
            elif backend == "asyncio":
                assert not fails(finding, backend)


def test_every_failure_on_record_belongs_to_a_finding() -> None:
    for record in RECORDS:
        for it in record.measured:
            if it.kind:
                assert any(
                    it.subject in finding.subjects
                    and it.backend in finding.backends
                    and finding.message in it.message
                    for finding in FINDINGS
                ), it


def test_every_finding_is_on_record_and_shown_without_the_lab() -> None:
    for finding in FINDINGS:
        for backend in finding.backends:
            assert any((finding.title, backend) in record.shown for record in RECORDS)
        assert any(
            it.kind and it.subject in finding.subjects and finding.message in it.message
            for record in RECORDS
            for it in record.measured
        )


def test_what_is_on_record_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    print_coverage(RECORDS)
    print_finding(1, FINDINGS[0], RECORDS)
    printed = capsys.readouterr().out
    for record in RECORDS:
        assert record.python in printed
    assert FINDINGS[0].title in printed


@pytest.mark.prove
@pytest.mark.parametrize("subject", [pytest.param(it, id=it.name) for it in SUBJECTS])
def test_each_primitive_comes_to_what_is_on_record(subject: Subject) -> None:
    measured = list(measure(subject, MAX_EXECUTIONS))
    assert all(it.executions for it in measured)
    for record in HERE:
        assert measured == [it for it in record.measured if it.subject == subject.name]
