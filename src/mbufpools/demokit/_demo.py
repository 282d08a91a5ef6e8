"""The command line that all demos share. Uses `_report`."""

from __future__ import annotations

import argparse
import importlib.util
import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from mbufpools import PoolsStatistics, Wakeup

from ._report import Report, fill

__all__ = ["Demo", "Options", "Parser", "installed_backend", "one_of"]


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line on stderr, and exit status 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def one_of(values: Sequence[str]) -> Callable[[str], str]:
    """The type of an argument that is one of `values`; its error lists them."""

    def check(value: str) -> str:
        if value not in values:
            raise argparse.ArgumentTypeError(f"{value!r}; expected one of {', '.join(values)}")
        return value

    return check


def installed_backend(value: str) -> str:
    """The type of ``--backend``."""
    if value == "trio" and importlib.util.find_spec("trio") is None:
        raise argparse.ArgumentTypeError(
            "trio is not installed: pip install mbufpools[trio], or use asyncio"
        )
    return one_of(["asyncio", "trio"])(value)


@dataclass(frozen=True, slots=True)
class Options:
    """What a demo was asked for."""

    policies: tuple[Wakeup, ...]
    """The wakeup policies to show."""
    backend: str
    nmbclust: int
    """The limit, in clusters of 2048 bytes; 0 if the demo has no such option."""
    json: bool


class Demo:
    """A demo's name, what it shows, and its options.

    Args:
        name: as in ``mbufpools demo NAME``.
        about: the script's docstring: a title, a blank line, and a few lines for the reader.
        policies: what is shown if none is chosen.
        nmbclust: the smallest value of ``--nmbclust``, which is the default, and the largest;
            without them the option does not exist.
    """

    def __init__(
        self,
        name: str,
        about: str | None,
        *,
        policies: Sequence[Wakeup] = tuple(Wakeup),
        nmbclust: tuple[int, int] | None = None,
    ) -> None:
        self.name = name
        self.title, _, self.text = inspect.cleandoc(about or name).partition("\n\n")
        self._policies = tuple(policies)
        self._nmbclust = nmbclust
        limit = [] if nmbclust is None else ["--nmbclust"]
        self._names = ["--policy", "--backend", *limit, "--json"]

    def options(self, argv: Sequence[str] | None = None) -> Options:
        """Read the command line. A mistake is one line on stderr, and SystemExit(2)."""
        parser = Parser(
            prog=self.name, description=self.title, epilog=self.text, allow_abbrev=False
        )
        self._add_options(parser)
        arguments, unknown = parser.parse_known_args(argv)
        if unknown:
            parser.error(f"no option {unknown[0]!r}; expected one of {', '.join(self._names)}")
        return Options(
            policies=(Wakeup(arguments.policy),) if arguments.policy else self._policies,
            backend=arguments.backend,
            nmbclust=getattr(arguments, "nmbclust", 0),
            json=arguments.json,
        )

    def _add_options(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--policy",
            type=one_of([str(policy) for policy in Wakeup]),
            metavar="POLICY",
            help=f"one of {', '.join(Wakeup)} (default: {', '.join(self._policies)})",
        )
        parser.add_argument(
            "--backend",
            type=installed_backend,
            default="asyncio",
            metavar="BACKEND",
            help="one of asyncio, trio (default: asyncio)",
        )
        if self._nmbclust is not None:
            smallest, largest = self._nmbclust
            parser.add_argument(
                "--nmbclust",
                type=_between(smallest, largest),
                default=smallest,
                metavar="N",
                help=f"the limit: {smallest} to {largest} clusters of 2048 bytes "
                f"(default: {smallest})",
            )
        parser.add_argument("--json", action="store_true", help="print one JSON object")

    def main(self, report: Callable[[Options], Report], argv: Sequence[str] | None = None) -> int:
        """Read the command line, make the report, print it.

        Returns the exit status: 0, or 1 if the run came out otherwise than the demo claims.
        """
        options = self.options(argv)
        found = report(options)
        if options.json:
            sys.stdout.write(found.json(self.name) + "\n")
        else:
            rule = "-" * len(self.title)
            sys.stdout.write(f"{self.title}\n{rule}\n{fill(self.text)}\n\n{found.text()}\n")
        return 0 if found.ok else 1

    def end_state(
        self, report: Callable[[Options], Report], argv: Sequence[str] | None = None
    ) -> PoolsStatistics:
        """Read the command line, make the report, and return the counters at the end of its first
        run, without printing anything."""
        return report(self.options(argv)).end


def _between(smallest: int, largest: int) -> Callable[[str], int]:
    def check(value: str) -> int:
        try:
            number = int(value)
        except ValueError:
            number = smallest - 1
        if not smallest <= number <= largest:
            raise argparse.ArgumentTypeError(
                f"{value!r}; expected a number from {smallest} to {largest}"
            )
        return number

    return check
