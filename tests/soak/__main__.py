"""``python -m tests.soak``: does anything break in a million random operations?

Exits with 1 if anything broke, after a line that repeats the run; with 2 after a mistake on the
command line; with 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from mbufpools.demokit import (
    Parser,
    installed_backend,
    progress_line,
    run_command,
    whole_number,
)

from ._soak import OPERATIONS, soak

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Soak the pools, and print what was done and whether all held; return the exit status."""
    parser = Parser(
        prog="python -m tests.soak",
        description="Do a great many random operations on many pool sets, with cancellations, "
        "leaks and threads, in virtual time, and see that nothing breaks or is left.",
    )
    parser.add_argument(
        "--operations",
        type=whole_number(1),
        metavar="N",
        default=OPERATIONS,
        help=f"how many (default: {OPERATIONS})",
    )
    parser.add_argument(
        "--seed",
        type=whole_number(0),
        metavar="S",
        default=0,
        help="of all random choices (default: 0)",
    )
    parser.add_argument(
        "--backend", type=installed_backend, default="asyncio", help="asyncio (the default) or trio"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.read(argv)
    return run_command(parser.prog, lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> int:
    with progress_line(arguments.operations, "operations") as progress:
        found = soak(
            arguments.operations,
            seed=arguments.seed,
            backend=arguments.backend,
            progress=progress,
        )
    sys.stdout.write((found.json() if arguments.json else found.text()) + "\n")
    return 1 if found.faults else 0


if __name__ == "__main__":
    sys.exit(main())
