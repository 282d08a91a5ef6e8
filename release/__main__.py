"""The command ``python -m release``, which `make release-check` runs."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from mbufpools.demokit import Parser, one_of

from ._artifacts import Artifacts
from ._installs import EXTRAS, Checks, Environment
from ._steps import Steps
from ._types import check_mypy, check_pyright, check_user_program

__all__ = ["main"]

ROOT = Path(__file__).resolve().parent.parent
NAMES = {"none" if extra == "" else extra: extra for extra in EXTRAS}


def main(argv: Sequence[str] | None = None) -> int:
    """Run all steps, print how each went, and return the exit status: 1 if one has failed."""
    parser = Parser(prog="python -m release", description="Is the package ready to be released?")
    parser.add_argument(
        "--python", action="append", metavar="PATH", help="install with this one (default: all)"
    )
    parser.add_argument(
        "--extra",
        action="append",
        type=one_of(list(NAMES)),
        metavar="NAME",
        help=f"install with this one (default: all): {', '.join(NAMES)}",
    )
    arguments = parser.read(argv)
    folder = ROOT / "build" / "release"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    steps = Steps()
    artifacts = Artifacts(ROOT, folder / "dist")
    if steps.run("build the source distribution and the wheel", artifacts.build):
        steps.run("the version is in the changelog", artifacts.check_version)
        steps.run("twine check --strict", artifacts.check_metadata)
        steps.run("the contents of the wheel, and check-wheel-contents", artifacts.check_wheel)
        steps.run("the contents of the source distribution", artifacts.check_sdist)
        steps.run("the long description", artifacts.check_description)
        source = artifacts.unpack(folder / "source")
        pythons = arguments.python or _pythons()
        _types(steps, artifacts, source, folder, pythons[0])
        for python in pythons:
            for name in arguments.extra or NAMES:
                _install(steps, artifacts, source, folder, python, NAMES[name])
    sys.stdout.write(f"\n{steps.summary()}\n")
    return 1 if steps.failed else 0


def _pythons() -> list[str]:
    found = subprocess.run([ROOT / ".ci" / "pythons"], capture_output=True, text=True, check=True)
    return found.stdout.split()


def _types(steps: Steps, artifacts: Artifacts, source: Path, folder: Path, python: str) -> None:
    """Ask the checkers of types."""
    environment = Environment(folder / "types", python)
    wheel = f"{artifacts.wheel}[trio,report]"
    if not steps.run("types: install", lambda: environment.install(wheel, "pytest")):
        return
    shutil.copy(source / "tests" / "project" / "user_program.py", environment.work / "program.py")
    steps.run("types: pyright --verifytypes", lambda: check_pyright(environment))
    steps.run("types: a user's program, pyright strict", lambda: check_user_program(environment))
    steps.run("types: a user's program, mypy --strict", lambda: check_mypy(environment))


def _install(
    steps: Steps, artifacts: Artifacts, source: Path, folder: Path, python: str, extra: str
) -> None:
    """Install the wheel into a clean environment, and run there what a user would."""
    asks = 'import sys; print("%d.%d" % sys.version_info[:2])'
    version = subprocess.run([python, "-c", asks], capture_output=True, text=True, check=True)
    label = f"Python {version.stdout.strip()}, {extra or 'no extra'}"
    environment = Environment(folder / f"{version.stdout.strip()}-{extra or 'none'}", python)
    wheel, more = str(artifacts.wheel), []
    if extra == "pytest":
        more = [extra]
    elif extra:
        wheel += f"[{extra}]"
    if not steps.run(f"{label}: install", lambda: environment.install(wheel, *more)):
        return
    for name, step in Checks(environment, artifacts.version, source).of(extra):
        steps.run(f"{label}: {name}", step)


if __name__ == "__main__":
    sys.exit(main())
