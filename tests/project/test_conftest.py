"""The suite's own rules (conftest.py), tried on small suites with the real configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from mbufpools import lab

ROOT = Path(__file__).parents[2]

WHERE_AM_I = """
    import asyncio, anyio, pytest, trio
    from hypothesis import given, strategies as st
    from mbufpools.lab import VirtualTimeLoop
    from mbufpools.lab._virtual_clock import VirtualClock

    def backend():
        if trio.lowlevel.in_trio_task():
            return "trio"
        asyncio.get_running_loop()
        return "asyncio"

    def virtual():
        if trio.lowlevel.in_trio_task():
            return isinstance(trio.lowlevel.current_clock(), VirtualClock)
        return isinstance(asyncio.get_running_loop(), VirtualTimeLoop)
"""


@pytest.fixture
def suite(pytester: pytest.Pytester) -> pytest.Pytester:
    """An empty suite with this one's configuration."""
    (pytester.path / "tests" / "trio_only").mkdir(parents=True)
    for name in ("pyproject.toml", "tests/conftest.py"):
        (pytester.path / name).write_text((ROOT / name).read_text("utf-8"), "utf-8")
    return pytester


def run(
    suite: pytest.Pytester, source: str, name: str = "test_inner.py", *options: str
) -> pytest.RunResult:
    lines = (WHERE_AM_I + source).splitlines()
    (suite.path / "tests" / name).write_text("\n".join(line[4:] for line in lines), "utf-8")
    return suite.runpytest_inprocess("-v", "-p", "no:cacheprovider", *options)


def test_a_coroutine_test_runs_on_both_backends_and_truly_on_each(suite: pytest.Pytester) -> None:
    result = run(
        suite,
        """
    async def test_here(anyio_backend_name):
        assert backend() == anyio_backend_name
        assert virtual()
        assert anyio.current_time() == 0.0
        await anyio.sleep(3600)
        assert anyio.current_time() == 3600.0

    class TestIn:
        async def test_a_class(self, anyio_backend_name):
            assert backend() == anyio_backend_name
            assert virtual()
    """,
    )
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines_random(
        [
            "*::test_here[[]asyncio[]] PASSED*",
            "*::test_here[[]trio[]] PASSED*",
            "*::TestIn::test_a_class[[]asyncio[]] PASSED*",
            "*::TestIn::test_a_class[[]trio[]] PASSED*",
        ]
    )


def test_a_failure_in_a_coroutine_test_is_seen_on_both_backends(suite: pytest.Pytester) -> None:
    result = run(
        suite,
        """
    async def test_here():
        await anyio.sleep(1)
        assert not virtual()
    """,
    )
    result.assert_outcomes(failed=2)


def test_a_hypothesis_coroutine_test_runs_on_both_backends(suite: pytest.Pytester) -> None:
    result = run(
        suite,
        """
    ran_on = []

    @given(st.integers(0, 10**6))
    async def test_here(seconds):
        assert virtual()
        assert anyio.current_time() == 0.0, "each example has a clock of its own"
        await anyio.sleep(seconds)
        assert anyio.current_time() == seconds
        ran_on.append(backend())

    def test_then():
        assert ran_on.count("asyncio") > 1
        assert ran_on.count("trio") > 1
    """,
    )
    result.assert_outcomes(passed=3)


def test_async_fixtures_share_the_clock_of_their_test(suite: pytest.Pytester) -> None:
    result = run(
        suite,
        """
    @pytest.fixture
    async def started(anyio_backend_name):
        assert backend() == anyio_backend_name
        await anyio.sleep(5)
        yield anyio.current_time()
        assert anyio.current_time() == 12.0

    async def test_here(started):
        assert started == 5.0
        await anyio.sleep(7)
    """,
    )
    result.assert_outcomes(passed=2)


def test_real_time_is_real(suite: pytest.Pytester) -> None:
    result = run(
        suite,
        """
    @pytest.mark.real_time
    async def test_here(anyio_backend_name):
        assert backend() == anyio_backend_name
        assert not virtual()
    """,
    )
    result.assert_outcomes(passed=2)


def test_a_test_under_trio_only_runs_on_trio_with_its_fixtures(suite: pytest.Pytester) -> None:
    result = run(
        suite,
        """
    async def test_here(autojump_clock, nursery):
        assert backend() == "trio"
        assert trio.lowlevel.current_clock() is autojump_clock
        nursery.start_soon(trio.sleep, 3600)
        await trio.sleep(3600)

    @given(st.integers())
    async def test_given(number):
        assert backend() == "trio"
    """,
        "trio_only/test_inner.py",
    )
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["*::test_here PASSED*", "*::test_given PASSED*"])


@pytest.mark.parametrize(
    ("mark", "name"), [("trio", "test_inner.py"), ("anyio", "trio_only/test_inner.py")]
)
def test_a_test_with_both_marks_is_refused(suite: pytest.Pytester, mark: str, name: str) -> None:
    result = run(
        suite,
        f"""
    @pytest.mark.{mark}
    async def test_here():
        pass
    """,
        name,
    )
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: *::test_here* is marked for anyio and for trio.*"])


def test_the_automatic_mode_of_pytest_trio_is_refused(suite: pytest.Pytester) -> None:
    """It would run ``[asyncio]`` tests on trio."""
    source = """
    async def test_here():
        pass
    """
    result = run(suite, source, "test_inner.py", "-o", "trio_mode=true")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: *is marked for anyio and for trio.*"])


def test_a_test_that_stalls_fails_on_both_backends_and_says_why(
    suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lab.backend_options, "__kwdefaults__", {"patience": 0})
    result = run(
        suite,
        """
    async def test_here():
        await anyio.Event().wait()

    async def test_there():
        await anyio.sleep(1)
    """,
    )
    result.assert_outcomes(failed=2, passed=2)
    result.stdout.fnmatch_lines_random(
        [
            "*::test_here[[]asyncio[]] FAILED*",
            "*::test_here[[]trio[]] FAILED*",
            "E *Stalled: every task waits and nothing is scheduled*",
            "E *waits at *test_inner.py:*, in test_here",
        ]
    )


def test_a_test_that_stalls_on_trio_leaves_its_fixtures_their_end(
    suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """anyio's runner on trio would wait for ever if its own task were cancelled."""
    monkeypatch.setattr(lab.backend_options, "__kwdefaults__", {"patience": 0})
    result = run(
        suite,
        """
    @pytest.fixture
    async def fixture():
        yield
        await anyio.sleep(1)
        print("the end of the fixture")

    @pytest.mark.parametrize("anyio_backend", ["trio"], indirect=True)
    async def test_here(fixture):
        await anyio.Event().wait()
    """,
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["the end of the fixture"])
