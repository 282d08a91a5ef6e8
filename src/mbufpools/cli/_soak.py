"""``mbufpools soak``: does anything break in a million random operations?"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable

from mbufpools.experiment import soak as run_soak
from mbufpools.experiment._demo import installed_backend

__all__ = ["soak"]


def soak(operations: str, seed: str, backend: str, *, as_json: bool) -> int:
    """Soak the pools, and print what was done and whether all held.

    Returns the exit status: 1 if anything broke, with a line that does the same again; 2 after a
    mistake on the command line.
    """
    option = "--operations"
    try:
        goal = _at_least(1, operations)
        option = "--seed"
        start = _at_least(0, seed)
        option = "--backend"
        installed_backend(backend)
    except argparse.ArgumentTypeError as error:
        sys.stderr.write(f"mbufpools soak: argument {option}: {error}\n")
        return 2
    progress = _progress(goal) if sys.stderr.isatty() else None
    found = run_soak(goal, seed=start, backend=backend, progress=progress)
    if progress is not None:
        sys.stderr.write("\r\033[K")
    sys.stdout.write((found.json() if as_json else found.text()) + "\n")
    return 1 if found.faults else 0


def _at_least(smallest: int, value: str) -> int:
    if not value.isascii() or not value.isdigit() or int(value) < smallest:
        raise argparse.ArgumentTypeError(f"{value!r}; expected a whole number from {smallest} up")
    return int(value)


def _progress(goal: int) -> Callable[[int], None]:
    """Tell on stderr how far it is, on a line that is written over."""
    began = time.monotonic()

    def tell(done: int) -> None:
        rate = done / max(time.monotonic() - began, 1e-9)
        sys.stderr.write(f"\r\033[K{done} of {goal} operations, {rate:.0f} a second")
        sys.stderr.flush()

    return tell
