"""The lab finds nothing in correct programs that cancel, and are cancelled."""

from __future__ import annotations

from itertools import count

import pytest

from mbufpools import lab
from tests.kit.correct_programs import CORRECT, ONLY_BY_SCOPE

EACH_STRATEGY = pytest.mark.parametrize("strategy", ["fifo", "random", "pct", "exhaustive", "dpor"])
BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])

MANY = 10_000
FEW = 400


def executions_without_failure(
    strategy: lab.StrategyName, backend: lab.BackendName, at_least: int
) -> int:
    """Explore all programs, with and without cancellation, again and again; return how often they
    were executed. Each round has its own seeds and one preemption more."""
    executions = 0
    programs = CORRECT[backend]
    share = max(2, at_least // len(programs) // 2)
    for number in count():
        for program in programs:
            for cancel in (False, True) if strategy != "dpor" else (False,):
                exploration = lab.explore(
                    program,
                    strategy=strategy,
                    backend=backend,
                    cancel="scope" if cancel and program in ONLY_BY_SCOPE else cancel,
                    max_executions=share,
                    max_preemptions=2 + number,
                    seed=number * share,
                )
                exploration.assert_holds()
                executions += exploration.executions
        if executions >= at_least:
            return executions
    raise AssertionError("unreachable")


@BACKENDS
@EACH_STRATEGY
def test_nothing_is_found_in_correct_programs(
    strategy: lab.StrategyName, backend: lab.BackendName
) -> None:
    assert executions_without_failure(strategy, backend, FEW) >= FEW


@pytest.mark.prove
@BACKENDS
@EACH_STRATEGY
def test_nothing_is_found_in_ten_thousand_executions(
    strategy: lab.StrategyName, backend: lab.BackendName
) -> None:
    assert executions_without_failure(strategy, backend, MANY) >= MANY


@BACKENDS
def test_the_corpus_is_of_many_programs_and_each_of_them_ends(backend: lab.BackendName) -> None:
    assert len(CORRECT[backend]) > 30
    for program in CORRECT[backend]:
        lab.run(program, backend=backend, patience=0)
