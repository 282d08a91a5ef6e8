"""``python -m tests.soak``: does anything break in a million random operations?

Exits with 1 if anything broke, after a line that repeats the run; with 2 after a mistake on the
command line; with 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence

from mbufpools.demokit._demo import Parser, installed_backend

from ._soak import OPERATIONS, soak

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Soak the pools, and print what was done and whether all held; return the exit status."""
    parser = Parser(
        prog="python -m tests.soak",
        description="Do a great many random operations on many pool sets, with cancellations, "
        "leaks and threads, in virtual time, and see that nothing breaks or is left.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--operations",
        type=_at_least(1),
        metavar="N",
        default=OPERATIONS,
        help=f"how many (default: {OPERATIONS})",
    )
    parser.add_argument(
        "--seed", type=_at_least(0), metavar="S", default=0, help="of all chance (default: 0)"
    )
    parser.add_argument(
        "--backend", type=installed_backend, default="asyncio", help="asyncio (the default) or trio"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args(argv)
    progress = _progress(arguments.operations) if sys.stderr.isatty() else None
    try:
        found = soak(
            arguments.operations,
            seed=arguments.seed,
            backend=arguments.backend,
            progress=progress,
        )
    except KeyboardInterrupt:
        return 130
    if progress is not None:
        sys.stderr.write("\r\033[K")
    sys.stdout.write((found.json() if arguments.json else found.text()) + "\n")
    return 1 if found.faults else 0


def _at_least(smallest: int) -> Callable[[str], int]:
    def whole_number(value: str) -> int:
        if not value.isascii() or not value.isdigit() or int(value) < smallest:
            raise argparse.ArgumentTypeError(
                f"{value!r}; expected a whole number from {smallest} up"
            )
        return int(value)

    return whole_number


def _progress(goal: int) -> Callable[[int], None]:
    """Tell on stderr how far it is, on a line that is written over."""
    began = time.monotonic()

    def tell(done: int) -> None:
        rate = done / max(time.monotonic() - began, 1e-9)
        sys.stderr.write(f"\r\033[K{done} of {goal} operations, {rate:.0f} a second")
        sys.stderr.flush()

    return tell


if __name__ == "__main__":
    sys.exit(main())
