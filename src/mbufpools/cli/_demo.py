"""``mbufpools demo``: run one demo, or all of them."""

from __future__ import annotations

import argparse
import sys

from mbufpools.demokit import Parser

from . import _demos

__all__ = ["add_to", "run"]


def add_to(commands: argparse._SubParsersAction[Parser]) -> None:
    """Add the verb to the command line."""
    parser = commands.add_parser(
        "demo",
        help="run a demo, or all in turn",
        description="Run a demo, or all in turn.",
    )
    _demos.add_demo_arguments(parser)
    parser.add_argument("--list", action="store_true", help="list the demos, and run none")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the demo that was named, or all in turn; return the worst exit status. With ``--list``
    print the names and titles instead, and return 0."""
    if arguments.list:
        sys.stdout.write("\n".join(_demos.titles()) + "\n")
        return 0
    demos = [
        _demos.find_demo(name) for name in ([arguments.name] if arguments.name else _demos.NAMES)
    ]
    options = _demos.demo_options(arguments)
    for demo in demos:
        demo.options(options)  # reports a mistake before any demo has run
    status = 0
    for number, demo in enumerate(demos):
        if number and not arguments.json:
            sys.stdout.write("\n\n")
        status = max(status, demo.main(options))
    return status
