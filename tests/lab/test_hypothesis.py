"""Explored examples of Hypothesis: which are discarded, and what a program may not draw."""

from __future__ import annotations

import shlex
import subprocess
import sys

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.errors import UnsatisfiedAssumption

from mbufpools import lab
from mbufpools.lab._hypothesis import rejection
from tests.kit.suites import INI, dedent, run

GIVEN = """
from hypothesis import Phase, assume, given, reject, settings, strategies as st, target
# Without the phase "explain", in which Hypothesis traces each line of each execution.
S = settings(max_examples=20, database=None, phases=set(Phase) - {Phase.explain})

async def in_order():
    order = []
    async def one():
        await checkpoint()
        order.append(1)
    async def other():
        await checkpoint()
        order.append(2)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(one)
        tasks.start_soon(other)
    return order
"""
LATE = "note: hypothesis.assume() did not hold in this schedule, and it did in the first one.*"


@pytest.fixture
def suite(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makeini(INI)
    return pytester


# --- assumptions


@pytest.mark.parametrize("strategy", ["mixed", "random", "dpor"])
@pytest.mark.parametrize("jobs", [(), ("--explore-jobs", "2")], ids=["one process", "jobs"])
def test_an_example_that_is_rejected_is_discarded(
    suite: pytest.Pytester, strategy: str, jobs: tuple[str, ...]
) -> None:
    source = f"""
    async def program(k, orders):
        assume(k != 2)
        async def rejects():
            if k == 1:
                reject()
            await checkpoint()
        await two(rejects)
        assert k not in (1, 2)

    @pytest.mark.explore(strategy={strategy!r}, max_executions=20)
    @S
    @given(k=st.integers(0, 3))
    async def test_marked(k):
        await program(k, [])

    @pytest.mark.parametrize("backend", ["asyncio", "trio"])
    @S
    @given(k=st.integers(0, 3))
    def test_with_the_fixture(explore, backend, k):
        explore(functools.partial(program, k, []), backend=backend)

    def test_inside_of_a_test(explore):
        @S
        @given(k=st.integers(0, 3))
        def examples(k):
            explore(functools.partial(program, k, []), backend="asyncio")
        examples()
    """
    result = run(suite, GIVEN + dedent(source), "-v", *jobs)
    result.assert_outcomes(passed=5)
    result.stdout.fnmatch_lines(
        ["test_it.py::test_marked*: 2 examples, *", "test_it.py::test_with*: 2 examples, 2 proved*"]
    )


def test_an_exploration_without_the_plugin_discards_the_example_too() -> None:
    tested = []

    @settings(max_examples=20, database=None, deadline=None)
    @given(k=st.integers(0, 3))
    def examples(k: int) -> None:
        async def program() -> None:
            assume(k != 2)

        found = lab.explore(program)
        assert found.failures == ()
        tested.append(k)

    examples()
    assert set(tested) == {0, 1, 3}


def test_an_assumption_that_fails_in_a_later_schedule_alone_is_a_failure(
    suite: pytest.Pytester,
) -> None:
    source = """
    @pytest.mark.explore(backend="asyncio", strategy="exhaustive")
    @S
    @given(k=st.integers(0, 3))
    async def test_late(k):
        assume(await in_order() != [2, 1])
    """
    result = run(suite, GIVEN + dedent(source))
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["exception: UnsatisfiedAssumption: failed to *", LATE])
    (command,) = (line for line in result.outlines if "--explore-token" in line)
    result = run(suite, GIVEN + dedent(source), "--explore-token", shlex.split(command)[-1])
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([LATE])


def test_an_assumption_beside_a_failure_hides_nothing(suite: pytest.Pytester) -> None:
    source = """
    @pytest.mark.explore(strategy="exhaustive")
    @S
    @given(k=st.integers(0, 3))
    async def test_both(k):
        async def rejects():
            reject()
        async def fails():
            assert False
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(rejects)
            tasks.start_soon(fails)
    """
    run(suite, GIVEN + dedent(source)).assert_outcomes(failed=2)


def test_a_token_executes_its_schedule_for_the_examples_that_are_not_rejected(
    suite: pytest.Pytester,
) -> None:
    source = """
    @pytest.mark.explore(backend="asyncio", strategy="exhaustive")
    @S
    @given(k=st.integers(0, 3))
    async def test_it(k):
        assume(k > 1)
        assert await in_order() != [2, 1]
    """
    result = run(suite, GIVEN + dedent(source))
    result.assert_outcomes(failed=1)
    (command,) = (line for line in result.outlines if "--explore-token" in line)
    result = run(suite, GIVEN + dedent(source), "--explore-token", shlex.split(command)[-1])
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["exception: AssertionError: *", "*k=2,*"])


def test_hypothesis_is_not_imported_for_a_program_that_fails() -> None:
    source = """
    import sys
    from mbufpools import lab
    async def program():
        assert False
    assert lab.explore(program).failures
    assert not [it for it in sys.modules if it.partition(".")[0] == "hypothesis"]
    """
    subprocess.run([sys.executable, "-c", dedent(source)], check=True)


def test_outside_of_an_example_nothing_is_rejected() -> None:
    assert rejection(UnsatisfiedAssumption()) is None


# --- draws and targets


@pytest.mark.parametrize(
    ("strategy", "use"),
    [
        ("st.data()", "it.draw(st.integers(0, 3))"),
        ("st.randoms()", "it.randint(0, 3)"),
        ("st.randoms()", "it.random()"),
        ("st.functions(returns=st.integers(0, 3))", "it()"),
    ],
)
def test_a_program_that_draws_is_refused_at_once(
    suite: pytest.Pytester, strategy: str, use: str
) -> None:
    source = f"""
    @pytest.mark.explore(strategy="exhaustive")
    @S
    @given(it={strategy})
    async def test_marked(it):
        try:
            assert {use} < 4
        except Exception:
            pass
        await two(checkpoint)

    @S
    @given(it={strategy})
    def test_with_the_fixture(explore, it):
        async def program():
            assert {use} < 4
        explore(program, backend="asyncio")
    """
    result = run(suite, GIVEN + dedent(source))
    result.assert_outcomes(failed=3)
    said = "the program draws from Hypothesis while it is explored, as *(called at *"
    result.stdout.fnmatch_lines([said, said, f"*{said}"])


def test_a_test_may_draw_before_it_explores_and_after(suite: pytest.Pytester) -> None:
    source = """
    @S
    @given(data=st.data())
    def test_it(explore, data):
        k = data.draw(st.integers(0, 3))
        async def program():
            assert k < 4
        explore(program, backend="asyncio")
        assert data.draw(st.integers(0, 3)) < 4
    """
    run(suite, GIVEN + dedent(source)).assert_outcomes(passed=1)


def test_each_schedule_may_give_hypothesis_a_target(suite: pytest.Pytester) -> None:
    source = """
    @pytest.mark.explore(backend="asyncio", strategy="exhaustive")
    @S
    @given(k=st.integers(0, 3))
    async def test_it(k):
        target(k)
        assert await in_order() != [2, 1] or k < 3

    @S
    @given(k=st.integers(0, 3))
    def test_twice(explore, k):
        async def program():
            target(k)
        explore(program, backend="asyncio")
        explore(program, backend="asyncio")
        target(k, label="another")
        with pytest.raises(Exception, match="would overwrite"):
            target(k, label="another")
    """
    result = run(suite, GIVEN + dedent(source), "--hypothesis-show-statistics")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["exception: AssertionError: *", "*ighest target score*"])


def test_a_method_is_explored_on_both_backends(suite: pytest.Pytester) -> None:
    source = """
    class TestIn:
        @pytest.mark.explore
        @S
        @given(k=st.integers(0, 3))
        async def test_a_method(self, k):
            await in_order()
    """
    run(suite, GIVEN + dedent(source)).assert_outcomes(passed=2)


def test_an_exploration_has_no_deadline(suite: pytest.Pytester) -> None:
    source = """
    S = settings(max_examples=3, database=None, deadline=0.001)  # milliseconds

    @pytest.mark.explore(backend="asyncio")
    @S
    @given(k=st.integers(0, 3))
    async def test_marked(k):
        await in_order()

    class TestIn:
        @S
        @given(k=st.integers(0, 3))
        def test_a_class(self, explore, k):
            explore(in_order, backend="asyncio")
    """
    run(suite, GIVEN + dedent(source)).assert_outcomes(passed=2)
