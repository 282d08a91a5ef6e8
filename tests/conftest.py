"""How the suite runs: every coroutine test on asyncio and on trio, in virtual time.

- A coroutine test is marked ``anyio`` here, so that no test needs the mark itself, and runs once
  on each backend with a clock of its own that starts at 0.0 (see `mbufpools.lab`).
- Under ``trio_only/`` it is marked ``trio`` instead: pytest-trio runs it, and its fixtures
  (``autojump_clock``, ``nursery``) and trio's instruments are at hand.
- ``@pytest.mark.real_time`` gives a test the real clock: for sockets, threads and processes.

Neither plugin is in its automatic mode: with ``trio_mode`` pytest-trio would take anyio's
``[asyncio]`` tests and run them on trio, and say nothing. A test with both marks is refused.

The place to examine what a test leaves behind is a fixture of this file with ``autouse=True``.
It must not be a coroutine, and must not ask for ``anyio_backend``, or it would make plain tests
and those under ``trio_only/`` run twice.
"""

from __future__ import annotations

import gc
import inspect
import signal
from typing import Any

import hypothesis
import pytest

from mbufpools import lab

TRIO_ONLY = "trio_only"

# How long an example takes in real time says nothing here; a failure prints how to repeat it.
hypothesis.settings.register_profile("mbufpools", deadline=None, print_blob=True)
hypothesis.settings.load_profile("mbufpools")

# A job that a script starts in the background ignores SIGINT, and so do its children. The tests of
# Ctrl-C send it, and expect that it interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _is_coroutine_test(obj: Any) -> bool:
    given = getattr(obj, "hypothesis", None)  # Hypothesis wraps the test in a plain function
    return inspect.iscoroutinefunction(obj if given is None else given.inner_test)


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makeitem(
    collector: pytest.Module | pytest.Class, name: str, obj: object
) -> None:
    # Comes before the hook of anyio's plugin, which looks for the mark: that one is `tryfirst`
    # too, but was registered earlier.
    if collector.istestfunction(obj, name) and _is_coroutine_test(obj):
        mark = pytest.mark.trio if TRIO_ONLY in collector.path.parts else pytest.mark.anyio
        mark(obj)


@pytest.hookimpl(trylast=True)  # after the plugins have set their marks, if they do
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("anyio") and item.get_closest_marker("trio"):
            raise pytest.UsageError(
                f"{item.nodeid} is marked for anyio and for trio. A coroutine test runs on both "
                f"backends, without a mark; one for trio's own tools belongs under {TRIO_ONLY}/."
            )


@pytest.fixture(autouse=True, scope="module")
def _collections_pass_over_what_is_old() -> None:
    """Let the garbage collector pass over all that is there before the tests of a file.

    Many tests collect garbage, and each time the collector would look at all that the imported
    modules hold.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture
def pytester(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """The inner pytest prints the same here and in CI, where its summary would be longer."""
    for name in ("CI", "BUILD_NUMBER"):
        monkeypatch.delenv(name, raising=False)
    return pytester


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """The backend of a coroutine test, by name and options: each test has a fresh clock."""
    if request.node.get_closest_marker("real_time"):
        return request.param, {}
    return lab.backend_options(request.param)
