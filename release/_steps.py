"""The steps of a check: each is run to its end even if another has failed, and told in one line."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

__all__ = ["StepFailed", "Steps", "call", "expect"]

LINES = 25
"""Lines of a failed command that are shown: its last ones."""


class StepFailed(Exception):
    """A step did not find what it expected. The message says what it found."""


def call(
    *command: str | Path, folder: Path, variables: Mapping[str, str] | None = None, status: int = 0
) -> str:
    """Run a command in `folder` and return what it prints, on both outputs.

    Blocks until the command ends. It has no variable that would let it import another mbufpools.

    Raises StepFailed if its exit status is not `status`.
    """
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "MAKEFLAGS")
    }
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env={**environment, "PIP_DISABLE_PIP_VERSION_CHECK": "1", **(variables or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != status:
        shown = "\n".join(done.stdout.splitlines()[-LINES:])
        line = shlex.join(str(part) for part in command)
        raise StepFailed(f"$ {line}\n{shown}\nexit status {done.returncode}, expected {status}")
    return done.stdout


def expect(text: str, wanted: str, what: str) -> None:
    """Raise StepFailed if `wanted` is not in `text`, which is called `what`."""
    if wanted not in text:
        shown = "\n".join(text.splitlines()[-LINES:])
        raise StepFailed(f"{what}: expected {wanted!r}; found\n{shown}")


class Steps:
    """The steps that were run, and the names of those that failed."""

    def __init__(self) -> None:
        self.count: int = 0
        self.failed: list[str] = []

    def run(self, name: str, step: Callable[[], None]) -> bool:
        """Run a step, and print a line that says how it went; return True if it went well."""
        self.count += 1
        begin = time.monotonic()
        sys.stdout.write(f"{name} ... ")
        sys.stdout.flush()
        try:
            step()
        except (StepFailed, OSError) as error:
            self.failed.append(name)
            told = "\n".join(f"    {line}" for line in str(error).splitlines())
            sys.stdout.write(f"FAILED\n{told}\n")
        else:
            sys.stdout.write(f"ok ({time.monotonic() - begin:.0f} s)\n")
        sys.stdout.flush()
        return name not in self.failed

    def summary(self) -> str:
        """Return how many steps went well, and the names of the others."""
        if not self.failed:
            return f"All {self.count} steps went well: the package can be released."
        lines = "\n".join(f"  {name}" for name in self.failed)
        return f"{len(self.failed)} of {self.count} steps failed:\n{lines}"
