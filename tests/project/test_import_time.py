"""The import of the library is cheap: it loads little, and costs not much more than anyio's."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

import mbufpools

ROUNDS = 5
MOST_MILLISECONDS = 60
"""About three times what `make bench` asks for, so that a busy machine does not fail the test."""


def run(program: str, cache: Path) -> str:
    """What `program` prints. Bytecode is kept in `cache`, as an installed package has it."""
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(cache)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, text=True, env=environment
    ).stdout


def milliseconds(package: str, cache: Path) -> float:
    program = (
        f"import time; start = time.process_time(); import {package}; "
        "print((time.process_time() - start) * 1000)"
    )
    return float(run(program, cache))


def test_the_import_costs_not_much_more_cpu_than_the_import_of_anyio(tmp_path: Path) -> None:
    for package in ("anyio", "mbufpools"):
        run(f"import {package}", tmp_path)  # compiles
    more = [
        milliseconds("mbufpools", tmp_path) - milliseconds("anyio", tmp_path) for _ in range(ROUNDS)
    ]
    assert statistics.median(more) < MOST_MILLISECONDS, more


def test_the_import_loads_no_backend_and_nothing_that_is_slow(tmp_path: Path) -> None:
    loaded = run("import sys, mbufpools; print(*sys.modules)", tmp_path).split()
    ours = {name for name in loaded if name.startswith("mbufpools.")}
    on_demand = {"anyio.lowlevel", "asyncio", "ctypes", "logging", "ssl", "subprocess", "trio"}
    assert on_demand.isdisjoint(loaded)
    late = {"_cached_pool", "_explain", "_statistics", "lab", "mbufs"}
    assert ours.isdisjoint({f"mbufpools.{name}" for name in late})


def test_the_lab_knows_the_shared_state_of_what_is_imported_late(tmp_path: Path) -> None:
    program = (
        "import sys, mbufpools._lab_hooks as hooks; "
        "print({name for name in hooks.STATE if name not in sys.modules})"
    )
    assert run(program, tmp_path) == "set()\n"


def test_trio_protects_what_is_imported_after_the_first_entry(tmp_path: Path) -> None:
    program = """
import trio, mbufpools

class Cpu(int):
    def __lt__(self, other):  # called by MbufPool.check_cpu
        print(trio.lowlevel.currently_ki_protected())
        return False

async def main():
    async with mbufpools.BufferPools("1 MiB", [2048]):
        pass
    async with mbufpools.MbufPools(2048) as pools:
        pools.pools["mcl2k"].check_cpu(Cpu(0))

trio.run(main)
"""
    assert run(program, tmp_path) == "True\n"


def test_the_names_that_are_imported_late_are_there(tmp_path: Path) -> None:
    program = (
        "import mbufpools; from mbufpools import PoolStatistics, Explanation; "
        "print(PoolStatistics.__module__, mbufpools.WaitStatistics.__module__, "
        "'WaitStatistics' in dir(mbufpools))"
    )
    assert run(program, tmp_path).split() == ["mbufpools._statistics"] * 2 + ["True"]


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'mbufpools' has no attribute 'Statistics'"):
        mbufpools.Statistics  # type: ignore[attr-defined]  # noqa: B018 - the mistake itself


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_pools_work_where_the_other_backend_was_never_imported(
    backend: str, tmp_path: Path
) -> None:
    other = {"asyncio": "trio", "trio": "asyncio"}[backend]
    program = f"""
import sys, {backend}, mbufpools

async def main():
    async with mbufpools.BufferPools("1 MiB", [2048], debug=True) as pools:
        with await pools.get(2000) as buffer:
            buffer.view[:2] = b"hi"
        pools.statistics(), pools.explain(), pools.check()
    print({other!r} in sys.modules)

{backend}.run({"main()" if backend == "asyncio" else "main"})
"""
    assert run(program, tmp_path) == "False\n"
