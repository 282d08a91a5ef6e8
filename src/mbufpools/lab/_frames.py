"""Whose code a frame runs: the program's, an installed package's, or what only passes calls on."""

from __future__ import annotations

import os
import sys
import sysconfig
from functools import cache
from os import getcwd, listdir, stat  # a test may patch the names in `os`
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from types import FrameType

__all__ = ["caller", "is_installed", "is_plumbing", "own_frame", "short_path"]

INSTALLED = frozenset({"site-packages", "dist-packages"})
_SKIPPED = frozenset({"anyio", "asyncio", "hypothesis", "trio", "sniffio", "outcome"})
_LAB = str(Path(__file__).parent) + os.sep
_OUTSIDE = f"{_LAB}_execute.py"
"""What has called this module is outside of the execution."""


def caller() -> str:
    """Return the file, the line and the function of the innermost frame that is no plumbing, as
    reports write it; "" if there is none."""
    frame = own_frame(sys._getframe(1))
    if frame is None:
        return ""
    code = frame.f_code
    return f"{short_path(code.co_filename)}:{frame.f_lineno}, in {code.co_qualname}"


def own_frame(frame: FrameType | None) -> FrameType | None:
    """Return the innermost frame, from this one outwards, that is no plumbing and belongs to the
    execution that runs; None if there is none."""
    while frame is not None and frame.f_code.co_filename != _OUTSIDE:
        if not is_plumbing(frame.f_code.co_filename):
            return frame
        frame = frame.f_back
    return None


def short_path(path: str) -> str:
    """Return a path relative to the current directory if it is below it, as reports show it."""
    here = getcwd()
    return path.removeprefix(here if here.endswith(os.sep) else here + os.sep)


@cache
def is_plumbing(file: str) -> bool:
    """Return True for code that makes tasks for others, or calls them: asyncio, anyio, trio,
    Hypothesis, the standard library, the lab."""
    if file.startswith(_LAB):
        return True
    parts = Path(file).parts
    at = max((place for place, part in enumerate(parts) if part in INSTALLED), default=None)
    if at is not None:
        return parts[at + 1] in _SKIPPED
    if any(part in _SKIPPED for part in parts[-4:-1]) and is_installed(file):
        return True
    return file.startswith((sysconfig.get_path("stdlib") + os.sep, "<frozen "))


@cache
def is_installed(file: str) -> bool:
    """Return True if a file was put where it is by a package installer."""
    if not INSTALLED.isdisjoint(Path(file).parts):
        return True
    directory = os.path.dirname(file)
    while S_ISREG(_mode(os.path.join(directory, "__init__.py"))):
        directory = os.path.dirname(directory)
    # `pip install --target` leaves this beside the packages.
    return S_ISDIR(_mode(directory)) and any(
        name.endswith(".dist-info") for name in listdir(directory)
    )


def _mode(path: str) -> int:
    """Return the kind of a file, as `os.stat` does; 0 if there is none."""
    try:
        return stat(path).st_mode
    except (OSError, ValueError):
        return 0
