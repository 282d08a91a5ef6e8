"""What is around an explored test, such as its fixtures, is the same in every execution."""

from __future__ import annotations

import pytest

from tests.kit.suites import INI, dedent, run


@pytest.fixture
def suite(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makeini(INI)
    return pytester


# --- setup_method and the like


def test_setups_of_methods_and_functions_run_anew_for_each_schedule(
    suite: pytest.Pytester,
) -> None:
    source = """
    calls, kept, runs = [], [], []

    def setup_function(function):
        calls.append(function.__name__)
        kept.clear()

    def teardown_function():
        calls.append("end")

    @pytest.mark.explore(backend="asyncio")
    async def test_function():
        runs.append(1)
        kept.append(1)
        await two(checkpoint)
        assert kept == [1]

    @pytest.mark.explore(backend="trio")
    class TestMethod:
        def setup_method(self, method):
            calls.append(method.__name__)
            self.cache = {}

        def teardown_method(self):
            assert self.cache == {1: 2}
            calls.append("end")

        async def test_method(self):
            runs.append(1)
            await two(checkpoint)
            assert self.cache == {}
            self.cache[1] = 2

    def test_after():
        assert calls[:2] == ["test_function", "end"] and calls[-1] == "test_after"
        assert calls.count("end") == len(runs) > 2
        assert "test_method" in calls
    """
    result = run(suite, dedent(source))
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(["2 of 2 explorations were complete"])


def test_a_setup_of_a_class_or_a_module_that_keeps_state_is_named(suite: pytest.Pytester) -> None:
    source = """
    def setup_module():
        pass

    @pytest.mark.explore(backend="asyncio")
    class TestIt:
        def setup_class(cls):
            cls.cache = []

        async def test_it(self):
            self.cache.append(1)
            await asyncio.sleep(0)
            assert self.cache == [1]
    """
    result = run(suite, dedent(source))
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "*The test also has fixtures of a wider scope than function, made once for all *: "
            "setup_module (scope module), setup_class (scope class). One of scope function *"
        ]
    )
