"""What checkers of types say of the installed package."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from ._installs import Environment
from ._steps import StepFailed, call

__all__ = ["check_mypy", "check_pyright", "check_user_program"]


def _pyright(environment: Environment, *arguments: str, status: int = 0) -> str:
    """Run pyright as in `environment`: it finds packages by the first Python on the path."""
    path = f"{environment.bin}{os.pathsep}{os.environ['PATH']}"
    command = Path(sys.executable).with_name("pyright")
    return call(
        command, *arguments, folder=environment.work, variables={"PATH": path}, status=status
    )


def check_pyright(environment: Environment) -> None:
    """No type of the public interface is left to be inferred."""
    _pyright(environment, "--version")  # the first start may install it, and prints that
    arguments = ("--verifytypes", "mbufpools", "--ignoreexternal", "--outputjson")
    try:
        printed = _pyright(environment, *arguments)
    except StepFailed:
        printed = _pyright(environment, *arguments, status=1)
    found = json.loads(printed[printed.index("{") :])["typeCompleteness"]
    if found["completenessScore"] != 1:
        unknown = [it["name"] for it in found["symbols"] if not it["isTypeKnown"]]
        raise StepFailed(
            f"{100 * found['completenessScore']:.1f} % of the types are known; without: "
            f"{', '.join(unknown[:20])}"
        )


def check_user_program(environment: Environment) -> None:
    """A program of a user has no fault under pyright in its strict mode."""
    (environment.work / "pyrightconfig.json").write_text('{"strict": ["program.py"]}', "utf-8")
    _pyright(environment, "program.py")


def check_mypy(environment: Environment) -> None:
    """A program of a user has no fault under ``mypy --strict``."""
    python = environment.bin / "python"
    call(sys.executable, "-m", "mypy", "--strict", "--python-executable", python, "program.py",
         folder=environment.work)  # fmt: skip
