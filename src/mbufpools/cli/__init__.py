"""The command ``mbufpools``: run the demos, replay recordings of the kernel, print statistics,
explore the schedules of a program, and those of the kernel's protocol.

A command loads what it needs when it is asked for. A mistake of the caller's is
one line on stderr and exit status 2; a run that came out otherwise than it should is 1.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from typing import NoReturn

from mbufpools import Wakeup, __version__

from ._demo import NAMES, demo

__all__ = ["main"]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")

    def options(self, command: str) -> str:
        """The options of a command, for messages."""
        usage = self.commands.choices[command].format_usage()
        return ", ".join(dict.fromkeys(re.findall(r"--[a-z-]+", usage)))

    commands: argparse._SubParsersAction[_Parser]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv`, by default the process's; return the exit status.

    Raises SystemExit(2) after a mistake on the command line, and SystemExit(0) after ``--help``
    and ``--version``.
    """
    parser = _parser()
    arguments, unknown = parser.parse_known_args(argv)
    if arguments.command is None:
        parser.error(f"no command; expected one of {', '.join(parser.commands.choices)}")
    if unknown:
        parser.error(
            f"{arguments.command} knows no {unknown[0]!r}; its options are "
            f"{parser.options(arguments.command)}"
        )
    try:
        status = _run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return 130
    return status


def _run(arguments: argparse.Namespace) -> int:
    match arguments.command:
        case "demo":
            return demo(arguments.name, _demo_options(arguments))
        case "stat":
            from ._stat import stat

            return stat(arguments.name, _demo_options(arguments))
        case "explore":
            from ._explore import explore

            return explore(arguments)
        case "smp":
            from ._smp import smp

            return smp(
                arguments.variant,
                token=arguments.token,
                deep=arguments.deep,
                as_json=arguments.json,
            )
        case _:
            from ._replay import replay

            return replay(arguments.files, arguments.backend)


def _demo_options(arguments: argparse.Namespace) -> list[str]:
    """The options as they were given, for the demo to judge."""
    options = []
    for name in ("policy", "backend", "nmbclust"):
        value = getattr(arguments, name)
        if value is not None:
            options.append(f"--{name}={value}")
    if arguments.json:
        options.append("--json")
    return options


def _parser() -> _Parser:
    parser = _Parser(
        prog="mbufpools",
        description="OpenBSD's mbuf pools as a library: see what a wakeup policy costs.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"mbufpools {__version__}")
    commands = parser.commands = parser.add_subparsers(dest="command", metavar="command")
    for name, purpose in (
        ("demo", "run a demo, or all in turn"),
        ("stat", "run a demo and print its counters as netstat -m and vmstat -m do"),
    ):
        command = commands.add_parser(
            name, help=purpose, description=f"{purpose}.".capitalize(), allow_abbrev=False
        )
        command.add_argument("name", nargs="?", metavar="NAME", help=f"one of {', '.join(NAMES)}")
        command.add_argument("--policy", help=f"one of {', '.join(Wakeup)}")
        command.add_argument("--backend", help="asyncio or trio")
        command.add_argument("--nmbclust", metavar="N", help="the limit, in clusters of 2 KiB")
        command.add_argument("--json", action="store_true", help="print JSON, one object a line")
    replay = commands.add_parser(
        "replay",
        help="replay recordings of the kernel, and compare",
        description="Replay recordings of the kernel's pools, and compare every field.",
        allow_abbrev=False,
    )
    replay.add_argument("files", nargs="+", metavar="FILE", help="a .jsonl or .jsonl.xz file")
    replay.add_argument("--backend", default="asyncio", help="asyncio (the default) or trio")
    _add_explore(commands)
    smp = commands.add_parser(
        "smp",
        help="explore the kernel's protocol on several CPUs, rule by rule",
        description="Explore the orders of a model of the kernel's protocol on several CPUs: the "
        "verdict on each rule that might be otherwise, or the story of one.",
        allow_abbrev=False,
    )
    smp.add_argument("variant", nargs="?", metavar="VARIANT", help="by default all, in a table")
    smp.add_argument("--token", help="tell the schedule of this token, of that variant")
    smp.add_argument("--deep", action="store_true", help="with more operations, on more CPUs")
    smp.add_argument("--json", action="store_true", help="print JSON, one object a line")
    return parser


def _add_explore(commands: argparse._SubParsersAction[_Parser]) -> None:
    explore = commands.add_parser(
        "explore",
        help="execute an async program in every schedule, and say what fails",
        description="Execute an `async def` without arguments in many schedules, in virtual time, "
        "and say what fails and how to see it again.",
        allow_abbrev=False,
    )
    explore.add_argument("program", metavar="PROGRAM", help="module:function or file.py:function")
    explore.add_argument(
        "--strategy",
        metavar="NAME",
        default="exhaustive",
        help="exhaustive (the default), dpor, random, pct or fifo",
    )
    explore.add_argument("--backend", default="asyncio", help="asyncio (the default), trio or both")
    for name, default, purpose in (
        ("max-preemptions", "2", "of exhaustive: a bound, or none (default: 2)"),
        ("max-executions", "10000", "stop after so many (default: 10000)"),
        ("seed", "0", "of random and pct (default: 0)"),
        ("depth", "3", "of pct: ordering constraints of the bug (default: 3)"),
        ("jobs", "1", "processes (default: 1)"),
    ):
        explore.add_argument(f"--{name}", metavar="N", default=default, help=purpose)
    explore.add_argument(
        "--cancel", action="store_true", help="also cancel each task at each await point"
    )
    explore.add_argument(
        "--cancel-by",
        dest="cancel",
        metavar="WAY",
        help="as --cancel, but only by scope, or only native: Task.cancel()",
    )
    explore.add_argument("--token", help="execute only the schedule of this token")
    explore.add_argument("--json", action="store_true", help="print JSON, one object a line")
