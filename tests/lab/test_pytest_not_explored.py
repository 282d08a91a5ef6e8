"""A mark `explore` that is not followed is never silent: the test is explored, or it is refused."""

from __future__ import annotations

import pytest

from tests.kit.suites import INI, dedent, run


@pytest.fixture
def suite(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makeini(INI)
    return pytester


ON_CLASS = "@pytest.mark.explore(backend='asyncio')"
ON_MODULE = "pytestmark = pytest.mark.explore(backend='asyncio')\n"


@pytest.mark.parametrize("where", ["method", "class", "module"])
@pytest.mark.parametrize("base", ["IsolatedAsyncioTestCase", "TestCase"])
def test_a_coroutine_test_of_unittest_is_refused_wherever_the_mark_is(
    suite: pytest.Pytester, base: str, where: str
) -> None:
    source = f"""
    {ON_CLASS if where == "class" else ""}
    class TestIt(unittest.{base}):
        {ON_CLASS if where == "method" else ""}
        async def test_it(self):
            await asyncio.sleep(0)

        def test_plain(self):
            pass
    """
    result = run(suite, (ON_MODULE if where == "module" else "") + dedent(source))
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(
        [
            "test_it.py::TestIt::test_it is marked to be explored, but its class derives from "
            "unittest.TestCase, *. Write an `async def` of a module or of a plain class, with "
            "fixtures or setup_method in the place of setUp and asyncSetUp. *"
            "mbufpools.lab.explore(program).assert_holds()"
        ]
    )


def test_what_the_refusal_of_unittest_says_to_write_is_explored(suite: pytest.Pytester) -> None:
    source = """
    async def in_order():
        seen = []
        async def note(number):
            seen.append(number)
        await asyncio.gather(note(1), note(2))
        assert seen == [1, 2]

    class TestIt(unittest.TestCase):
        def test_it(self):
            lab.explore(in_order).assert_holds()

    @pytest.mark.explore(backend="asyncio")
    class TestPlain:
        def setup_method(self):
            self.number = 1
        async def test_it(self):
            await in_order()
    """
    result = run(suite, dedent(source))
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines_random(
        [
            "FAILED test_it.py::TestIt::test_it - mbufpools.lab*ExplorationFailed:*",
            "FAILED test_it.py::TestPlain::test_it[[]asyncio[]] - exception: *",
        ]
    )


@pytest.mark.parametrize("where", ["function", "module"])
@pytest.mark.parametrize(
    ("test", "says"),
    [
        (
            "async def test_it():\n    yield",
            "but it is an async generator, which no test can be; *",
        ),
        (
            "@trio.testing.trio_test\nasync def test_it(): pass",
            "but a decorator has made a plain function of its `async def`, *; remove this "
            "decorator, *",
        ),
    ],
)
def test_an_async_test_that_is_no_coroutine_function_is_refused_when_it_is_collected(
    suite: pytest.Pytester, test: str, says: str, where: str
) -> None:
    mark = "@pytest.mark.explore\n" if where == "function" else "pytestmark = pytest.mark.explore\n"
    result = run(suite, "import trio.testing\n" + mark + test)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([f"test_it.py::test_it is marked to be explored, {says}"])


@pytest.mark.parametrize("runner", ["asyncio", "trio", "anyio"])
def test_a_mark_that_comes_after_collection_is_refused(suite: pytest.Pytester, runner: str) -> None:
    suite.makeconftest(
        "def pytest_collection_modifyitems(items):\n"
        "    for item in items:\n"
        "        if 'late' in item.name:\n"
        "            item.add_marker('explore')\n"
        "        elif item.cls is not None:\n"
        "            item.getparent(__import__('pytest').Class).add_marker('explore')\n"
    )
    source = f"""
    @pytest.mark.{runner}
    @pytest.mark.parametrize("it", [pytest.param(1, marks=pytest.mark.explore), 2])
    async def test_parameter(it):
        pass

    @pytest.mark.{runner}
    async def test_late():
        pass

    class TestClass:
        @pytest.mark.{runner}
        async def test_it(self):
            pass
    """
    suite.makepyprojecttoml("")
    backend = "\n@pytest.fixture\ndef anyio_backend(): return 'asyncio'\n"
    result = run(suite, dedent(source) + backend, "-W", "ignore")
    result.assert_outcomes(passed=1, errors=3)
    says = "is marked to be explored, but it is a *, which runs once: the mark was added after *"
    result.stdout.fnmatch_lines_random(
        [
            f"test_it.py::test_parameter* {says}",
            f"test_it.py::test_late* {says}",
            f"test_it.py::TestClass::test_it* {says}",
        ]
    )


def test_a_parameter_that_marks_a_plain_test_is_refused(suite: pytest.Pytester) -> None:
    source = """
    @pytest.mark.parametrize("it", [pytest.param(1, marks=pytest.mark.explore)])
    def test_it(it):
        pass
    """
    result = run(suite, dedent(source))
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        ["*::test_it* is marked to be explored, but is not an `async def`*"]
    )


def test_pytest_itself_refuses_the_mark_on_a_fixture(suite: pytest.Pytester) -> None:
    source = """
    @pytest.mark.explore
    @pytest.fixture
    async def fixture():
        pass
    """
    result = run(suite, dedent(source))
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*Marks cannot be applied to fixtures*"])


def test_a_mark_on_a_module_leaves_its_plain_tests_and_doctests_alone(
    suite: pytest.Pytester,
) -> None:
    source = """
    def helper():
        '''
        >>> 1 + 1
        2
        '''

    def test_plain():
        pass

    def test_generator():
        return None

    async def test_it():
        await two(checkpoint)
    """
    result = run(suite, ON_MODULE + dedent(source), "--doctest-modules", "-v")
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(["*::test_it[[]asyncio[]]: proved: *"])


def test_every_kind_of_class_is_explored(suite: pytest.Pytester) -> None:
    source = """
    class Base:
        async def test_inherited(self):
            await two(checkpoint)

    @pytest.mark.explore(backend="asyncio")
    class TestDerived(Base):
        class TestNested:
            async def test_nested(self):
                await two(checkpoint)

        @classmethod
        async def test_of_class(cls):
            await two(checkpoint)

    @pytest.mark.explore(backend="asyncio")
    @pytest.mark.parametrize("it", [1, 2])
    class TestParametrized:
        async def test_parametrized(self, it):
            await two(checkpoint)
    """
    result = run(suite, dedent(source))
    result.assert_outcomes(passed=5)
    result.stdout.fnmatch_lines(["explored: 5 proved; *"])


IN_ORDER = """
async def in_order():
    seen = []
    async def note(number):
        seen.append(number)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(note, 1)
        tasks.start_soon(note, 2)
    assert seen == [1, 2]

@pytest.mark.explore(backend="asyncio")
async def test_explored():
    await in_order()

@pytest.mark.explore(backend="asyncio")
class TestCase(unittest.IsolatedAsyncioTestCase):
    async def test_refused(self):
        await in_order()
"""
"""Two tests that pass in the stock order, and fail in another one."""


@pytest.mark.parametrize(
    "options",
    [
        "-n 1",
        "-p no:asyncio -p no:anyio -p no:trio",
        "-p no:unraisableexception -p no:threadexception -p no:warnings",
        "-p no:capture -p no:logging",
        "-p no:terminal",
        "-o asyncio_mode=auto",
        "-o anyio_mode=auto",
        "-o trio_mode=true",
        "--import-mode=importlib",
    ],
)
def test_no_option_of_pytest_lets_a_marked_test_pass_unexplored(
    suite: pytest.Pytester, options: str
) -> None:
    if "no:asyncio" in options:
        suite.makeini("[pytest]")
    reports = suite.inline_run if options == "-p no:terminal" else None
    if reports is not None:
        run(suite, IN_ORDER, "--collect-only")  # it writes the file
        ended = suite.inline_run("-p", "no:cacheprovider", *options.split())
        passed, _, failed = ended.listoutcomes()
        assert not [it for it in passed if it.when == "call"]
        assert len(failed) == 2
        return
    result = run(suite, IN_ORDER, *options.split())
    result.assert_outcomes(failed=1, errors=1)


def test_without_the_plugin_its_mark_is_an_unknown_one(suite: pytest.Pytester) -> None:
    run(suite, IN_ORDER, "--collect-only")  # it writes the file
    options = ("-p", "no:mbufpools_lab", "-o", "asyncio_mode=auto", "--strict-markers")
    result = suite.runpytest_subprocess("-p", "no:cacheprovider", *options)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*'explore' not found in `markers` configuration option*"])
