"""The command ``mbufpools``.

Each verb of the command is a module of this package with two functions:

- ``add_to(commands)`` adds the verb and its options to the parser, and says that `run` runs it.
- ``run(arguments) -> int`` runs it and returns the exit status. It imports what only this verb
  needs, such as the lab, so that the command starts quickly.

A mistake of the caller is one line on stderr and exit status 2; the line begins with the command as
it was typed. So is a file that cannot be read or written. A run that did not come out as it
should has exit status 1.
"""

from __future__ import annotations

import argparse
import signal
from collections.abc import Sequence
from functools import partial

from mbufpools import __version__
from mbufpools.demokit import INTERRUPTED, Mistake, Parser, run_command

from . import _compare, _demo, _explore, _replay, _smp, _stat

__all__ = ["main"]

VERBS = (_demo, _stat, _replay, _explore, _smp, _compare)
"""In the order in which ``--help`` lists them."""

DESCRIPTION = """\
Buffer pools under one limit for async Python, modelled on OpenBSD's mbuf pools,
and a lab that runs async programs in every schedule. `explore` is the lab, for
any program. The other commands show what a wakeup policy costs in the pools.
"""
EPILOG = """\
An application uses the pools from Python, and its tests the lab from pytest:

  python -m mbufpools.examples          programs to begin with
  python -m pydoc mbufpools.BufferPools the reference of one name
"""


def main(argv: Sequence[str] | None = None, *, prog: str = "mbufpools") -> int:
    """Run the command line `argv`, by default that of the process; return the exit status.

    `prog` is the command as it was typed; errors and the help begin with it.

    Raises SystemExit(2) after a mistake on the command line, and SystemExit(0) after ``--help``
    and ``--version``.
    """
    status = run_command(prog, partial(_run, argv, prog))
    if status == INTERRUPTED and argv is None:
        # The process ends now; a second Ctrl-C must not change its status.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    return status


def _run(argv: Sequence[str] | None, prog: str) -> int:
    parser = Parser(
        prog=prog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    parser.add_argument("--version", action="version", version=f"mbufpools {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="command")
    for verb in VERBS:
        verb.add_to(commands)
    arguments = parser.read(argv)
    if arguments.command is None:
        parser.error(f"no command; expected one of {', '.join(commands.choices)}")
    try:
        status: int = arguments.run(arguments)
    except Mistake as error:
        arguments.parser.error(str(error))
    except OSError as error:
        if error.filename is None:  # of the output, which `run_command` reports
            raise
        arguments.parser.error(f"{error.filename}: {error.strerror}")
    return status
