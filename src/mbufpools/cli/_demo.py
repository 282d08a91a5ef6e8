"""``mbufpools demo``: run one demo, or all of them."""

from __future__ import annotations

import argparse
import json
import sys

from mbufpools.demokit import Mistake, Parser, conjunction

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
    print the names and titles instead, and return 0.

    Raises Mistake if there is no such demo, or for options that do not go together.
    """
    if arguments.list:
        _list(arguments)
        return 0
    demos = [
        _demos.find_demo(name) for name in ([arguments.name] if arguments.name else _demos.NAMES)
    ]
    limited = [demo.name for demo in demos if demo.has_limit]
    if arguments.nmbclust is not None and len(limited) < len(demos) > 1:
        raise Mistake(
            f"--nmbclust is an option of {conjunction(limited)} alone; name one of them, as in "
            f"`{arguments.parser.prog} {limited[0]} --nmbclust {arguments.nmbclust}`"
        )
    options, prog = _demos.demo_options(arguments), _demos.command(arguments)
    for demo in demos:
        demo.options(options, prog=prog)  # reports a mistake before any demo has run
    status = 0
    for number, demo in enumerate(demos):
        if number and not arguments.json:
            sys.stdout.write("\n\n")
        status = max(status, demo.main(options, prog=prog))
    return status


def _list(arguments: argparse.Namespace) -> None:
    given = [arguments.name, arguments.policy, arguments.backend, arguments.nmbclust]
    for value in given:
        if value is not None:
            raise Mistake(f"--list runs no demo; leave {value!r} out, or --list")
    if not arguments.json:
        sys.stdout.write("\n".join(_demos.titles()) + "\n")
        return
    for group, names in _demos.GROUPS.items():
        for name in names:
            listed = {"demo": name, "group": group, "title": _demos.title(name)}
            sys.stdout.write(json.dumps(listed) + "\n")
