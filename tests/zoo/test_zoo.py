"""The lab against known bugs: it finds each of them, and proves each corrected twin."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

from mbufpools import lab
from tests import zoo
from tests.zoo import ZOO, Specimen
from tests.zoo.__main__ import print_table
from tests.zoo.semaphores import SPECIMENS as SEMAPHORES

HERE = Path(zoo.__file__).parent
LATER = 300
"""The default strategy first executes so many schedules by chance."""
UNMARKED = {"leak"}
"""A leak is reported when the object is gone, and the task that dropped it is not known."""

SPECIMENS = [(specimen, it) for specimen in ZOO for it in specimen.backends]


def on_a_backend(specimens: list[tuple[Specimen, lab.BackendName]]) -> pytest.MarkDecorator:
    """Each specimen on one backend in turn; on the other one among the long proofs."""
    known: list[Specimen] = []
    cases = []
    for specimen, backend in specimens:
        if specimen not in known:
            known.append(specimen)
        in_turn = specimen.backends[(len(known) - 1) % len(specimen.backends)]
        marks = [] if backend == in_turn else [pytest.mark.prove]
        cases.append(pytest.param(specimen, backend, id=f"{specimen.name}, {backend}", marks=marks))
    return pytest.mark.parametrize(("specimen", "backend"), cases)


ON_EACH_BACKEND = pytest.mark.parametrize(
    ("specimen", "backend"),
    [pytest.param(specimen, it, id=f"{specimen.name}, {it}") for specimen, it in SPECIMENS],
)


@cache
def bug(
    specimen: Specimen, backend: lab.BackendName, strategy: lab.StrategyName
) -> lab.Exploration:
    return specimen.explore_bug(backend, strategy)


@cache
def twin(
    specimen: Specimen, backend: lab.BackendName, strategy: lab.StrategyName
) -> lab.Exploration:
    return specimen.explore_twin(backend, strategy)


def marked_lines(specimen: Specimen) -> list[str]:
    """The lines that the report must point to, as the report or a traceback writes them."""
    names = {specimen.name}
    if specimen in SEMAPHORES:
        names.add("all of semaphores.py")
    return [
        place
        for path in HERE.glob("*.py")
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if line.endswith(tuple(f"  # {specimen.kind}: {name}" for name in names))
        for place in (f"zoo/{path.name}:{number},", f'zoo/{path.name}", line {number},')
    ]


def test_the_zoo_has_more_than_twenty_specimens_and_each_has_its_own_name() -> None:
    assert len({specimen.name for specimen in ZOO}) == len(ZOO) >= 20
    assert {specimen.kind for specimen in ZOO} == {"stall", "exception", "livelock", "leak"}


def test_each_comment_that_names_a_bug_names_a_specimen() -> None:
    names = {f"{it.kind}: {it.name}" for it in ZOO} | {"stall: all of semaphores.py"}
    for path in HERE.glob("*.py"):
        for line in path.read_text("utf-8").splitlines():
            comment = re.search(r"  # ((?:stall|exception|livelock|leak): .*)$", line)
            assert comment is None or comment[1] in names


@ON_EACH_BACKEND
def test_each_bug_is_found_and_its_report_names_it(
    specimen: Specimen, backend: lab.BackendName
) -> None:
    (failure,) = bug(specimen, backend, "exhaustive").failures
    assert failure.kind == specimen.kind
    assert failure.found_at <= specimen.found
    assert specimen.told in failure.report
    if specimen.kind not in UNMARKED:
        assert any(place in failure.report for place in marked_lines(specimen)), failure.report

    (again,) = lab.replay(specimen.bug, failure.token, step_limit=specimen.step_limit).failures
    assert (again.kind, again.token) == (failure.kind, failure.token)
    assert again.report == failure.report


@ON_EACH_BACKEND
def test_the_default_strategy_finds_each_bug_not_much_later(
    specimen: Specimen, backend: lab.BackendName
) -> None:
    (failure,) = bug(specimen, backend, "mixed").failures
    assert failure.found_at <= specimen.found + LATER
    assert specimen.told in failure.report


@on_a_backend(SPECIMENS)
def test_each_twin_is_proved(specimen: Specimen, backend: lab.BackendName) -> None:
    exploration = twin(specimen, backend, "exhaustive")
    exploration.assert_holds()
    assert exploration.complete
    assert exploration.executions <= specimen.proved


@pytest.mark.prove
@ON_EACH_BACKEND
def test_each_twin_is_proved_without_a_bound(specimen: Specimen, backend: lab.BackendName) -> None:
    exploration = lab.explore(
        specimen.twin,
        backend=backend,
        max_preemptions=None,
        cancel=specimen.cancel,
        step_limit=specimen.step_limit,
    )
    exploration.assert_holds()
    assert exploration.complete


@on_a_backend([(specimen, it) for specimen, it in SPECIMENS if not specimen.cancel])
def test_each_bug_is_found_by_dpor_and_its_twin_proved(
    specimen: Specimen, backend: lab.BackendName
) -> None:
    (failure,) = bug(specimen, backend, "dpor").failures
    assert failure.kind == specimen.kind
    exploration = twin(specimen, backend, "dpor")
    exploration.assert_holds()
    assert exploration.complete


@pytest.mark.parametrize(
    "specimen",
    [
        pytest.param(specimen, id=specimen.name, marks=[pytest.mark.prove] if at % 3 else [])
        for at, specimen in enumerate(it for it in ZOO if not it.cancel and len(it.backends) == 2)
    ],
)
def test_both_backends_take_the_same_number_of_executions(specimen: Specimen) -> None:
    strategies: tuple[lab.StrategyName, ...] = ("exhaustive", "dpor")
    same = all(
        len({bug(specimen, it, strategy).failures[0].found_at for it in specimen.backends})
        == len({twin(specimen, it, strategy).executions for it in specimen.backends})
        == 1
        for strategy in strategies
    )
    assert same == (not specimen.differs)


def test_the_table_has_a_row_for_each_specimen(capsys: pytest.CaptureFixture[str]) -> None:
    few = ZOO[:2]  # it explores them again
    print_table(few)
    lines = capsys.readouterr().out.splitlines()
    for specimen, line in zip(few, lines[1:], strict=False):
        assert line.split("  ")[0] == specimen.name
        assert str(specimen.found) in line
        assert str(specimen.proved) in line
