"""What was found in released packages: each program shows it with the lab and without."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

from mbufpools import lab

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"
FINDINGS = [
    ("aiohttp", "3.14.5", "aiohttp_waiter", "three_requests", "a request still waits for it"),
    ("broadcaster", "0.3.1", "broadcaster_readers", "two_readers", r"heard: \[KeyError"),
    ("psycopg_pool", "3.3.3", "psycopg_pool_release", "releases", "and the pool has none"),
]
"""The package, the version in which it was found, the program, and what it says."""


@pytest.mark.parametrize(
    ("package", "version", "module", "function", "says"), FINDINGS, ids=[it[0] for it in FINDINGS]
)
def test_a_finding_in_a_released_package_is_there_with_the_lab_and_without(
    monkeypatch: pytest.MonkeyPatch,
    package: str,
    version: str,
    module: str,
    function: str,
    says: str,
) -> None:
    pytest.importorskip(package, reason=f"{package} is not installed")
    if importlib.metadata.version(package) != version:
        pytest.skip(f"it was found in {package} {version}")
    if package == "psycopg_pool" and sys.version_info >= (3, 12):
        pytest.skip("since Python 3.12 asyncio.wait_for starts no task")
    spec = importlib.util.spec_from_file_location(module, EXAMPLES / f"{module}.py")
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, module, loaded)
    spec.loader.exec_module(loaded)
    program: Any = getattr(loaded, function)
    (failure,) = lab.explore(program).failures
    assert failure.kind == "exception"
    assert isinstance(failure.error, AssertionError)

    with pytest.raises(AssertionError, match=says):
        lab.run(program)  # asyncio's own loop, in virtual time
