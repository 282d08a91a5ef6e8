"""Clean environments, one for each Python and each extra, and what a user would run in them."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ._steps import StepFailed, call, expect

__all__ = ["EXTRAS", "Checks", "Environment"]

EXTRAS = ("", "trio", "uvloop", "report", "dask", "pytest")
"""What is installed with the wheel: nothing, each extra for users, and pytest, for the plugin."""

RACE = """\
import anyio
import pytest


@pytest.mark.explore
async def test_two_tasks():
    done = []

    async def work():
        await anyio.lowlevel.checkpoint()
        done.append(1)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(work)
        tasks.start_soon(work)
    assert len(done) == 2
"""
IMPORTS = """\
import importlib, pkgutil, mbufpools
for module in pkgutil.walk_packages(mbufpools.__path__, "mbufpools."):
    name = module.name
    if "._" not in name and "report" not in name and "plugin" not in name:
        importlib.import_module(name)
"""
ON_UVLOOP = """\
import anyio, program
anyio.run(program.main, backend_options={"use_uvloop": True})
"""
ON_DASK = """\
import sys
from distributed import LocalCluster
from mbufpools.cli import main
if __name__ == "__main__":
    with LocalCluster(n_workers=1, processes=False, dashboard_address=None) as cluster:
        address = cluster.scheduler_address
        sys.exit(main(["compare", "margin", "--seeds", "1", "--verdicts", "--dask", address]))
"""
EXPLORED = {
    "lending.py:two_readers": 1,
    "lending.py:two_readers_at_a_better_desk": 0,
    "reading.py:reads_twice": 1,
}
"""Programs of the examples, and the exit status of their exploration."""
NEEDING = {
    "trio": ("demo", "stall", "--backend", "trio"),
    "report": ("compare", "--out", "report"),
    "dask": ("compare", "--dask", "tcp://127.0.0.1:1"),
}
"""What cannot be done without an extra; the error names it."""
MEASURE = ("compare", "margin", "--seeds", "1", "--verdicts")


class Environment:
    """An environment with the wheel, and a folder beside it to work in.

    Args:
        folder: is made anew.
        python: makes the environment.
    """

    def __init__(self, folder: Path, python: str) -> None:
        self._python = python
        self._venv = folder / "venv"
        self.work: Path = folder / "work"
        shutil.rmtree(folder, ignore_errors=True)
        self.work.mkdir(parents=True)

    @property
    def bin(self) -> Path:
        """The folder of its commands."""
        return self._venv / ("Scripts" if sys.platform == "win32" else "bin")

    def install(self, *requirements: str) -> None:
        """Make the environment, and install into it."""
        call(self._python, "-m", "venv", self._venv, folder=self.work)
        self.run("python", "-m", "pip", "install", "--quiet", *requirements)
        self.run("python", "-m", "pip", "check")

    def run(self, command: str, *arguments: str, status: int = 0) -> str:
        """Run one of its commands in its folder, and return what it prints."""
        return call(self.bin / command, *arguments, folder=self.work, status=status)


class Checks:
    """What a user would run in an environment that has the wheel.

    Args:
        environment: with the wheel installed.
        version: of the wheel.
        source: the unpacked source distribution, which has the examples and a program of a user.
    """

    def __init__(self, environment: Environment, version: str, source: Path) -> None:
        self._work = environment.work
        self._run = environment.run
        self._version = version
        self._source = source

    def of(self, extra: str) -> list[tuple[str, Callable[[], None]]]:
        """The name and the function of each check with an extra, one of `EXTRAS`."""
        more: dict[str, list[tuple[str, Callable[[], None]]]] = {
            "": [
                ("demo stall", self._demo),
                ("the examples", self._examples),
                ("what is not installed", self._missing),
            ],
            "trio": [
                ("demo stall on trio", partial(self._demo, "--backend", "trio")),
                ("the examples on both", partial(self._examples, "both")),
            ],
            "uvloop": [("a program on uvloop", self._on_uvloop)],
            "report": [("a report", self._report)],
            "dask": [("a question on Dask", self._on_dask)],
            "pytest": [("the pytest plugin", self._plugin)],
        }
        return [("the command", self._command), *more[extra]]

    def _command(self) -> None:
        expect(self._run("mbufpools", "--version"), f"mbufpools {self._version}\n", "--version")
        expect(self._run("mbufpools", "demo", "--list"), "  stall ", "demo --list")
        expect(self._run("mbufpools", "smp", "stale"), "sleeps", "smp stale")
        self._run("python", "-c", IMPORTS)

    def _demo(self, *options: str) -> None:
        text = self._run("mbufpools", "demo", "stall", *options)
        expect(" ".join(text.split()), "process 2 wakes at 9 s", "demo stall")

    def _examples(self, backend: str = "asyncio") -> None:
        if (self._source / "src" / "mbufpools" / "examples.py").exists():
            self._run("python", "-m", "mbufpools.examples", "--copy", "examples")
        else:
            shutil.copytree(self._source / "docs" / "examples", self._work / "examples")
        for program, status in EXPLORED.items():
            target = f"examples/{program}"
            self._run("mbufpools", "explore", target, "--backend", backend, status=status)

    def _missing(self) -> None:
        for extra, arguments in NEEDING.items():
            text = self._run("mbufpools", *arguments, status=2)
            expect(text, f"pip install 'mbufpools[{extra}]'", extra)

    def _on_uvloop(self) -> None:
        # The program names the types of the pytest plugin.
        self._run("python", "-m", "pip", "install", "--quiet", "pytest")
        program = self._source / "tests" / "project" / "user_program.py"
        shutil.copy(program, self._work / "program.py")
        self._write_and_run("on_uvloop.py", ON_UVLOOP)

    def _report(self) -> None:
        self._run("mbufpools", *MEASURE, "--workers", "1", "--out", "report")
        if not (self._work / "report" / "report.html").is_file():
            raise StepFailed("there is no report.html")

    def _on_dask(self) -> None:
        expect(self._write_and_run("on_dask.py", ON_DASK), "e. Could ", "the question")

    def _plugin(self) -> None:
        (self._work / "test_race.py").write_text(RACE, "utf-8")
        (self._work / "pytest.ini").write_text("[pytest]\n", "utf-8")  # or it finds the checkout's
        expect(self._run("python", "-m", "pytest", "-q"), "1 proved", "pytest")

    def _write_and_run(self, name: str, program: str) -> str:
        (self._work / name).write_text(program, "utf-8")
        return self._run("python", name)
