"""A demo: its name, its text, and the command line that all demos share."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from mbufpools import PoolsStatistics, Wakeup

from ._command_line import Mistake, Parser, installed_backend, one_of, run_command, whole_number
from ._report import Report, fill

if TYPE_CHECKING:
    from mbufpools.lab import BackendName

__all__ = ["Demo", "Options"]


@dataclass(frozen=True, slots=True)
class Options:
    """The options of one run of a demo."""

    policies: tuple[Wakeup, ...]
    """The wakeup policies to show."""
    backend: BackendName
    """The backend to run on."""
    nmbclust: int
    """The limit, in clusters of 2048 bytes; 0 if the demo has no such option."""
    json: bool
    """True if the report is printed as JSON."""


class Demo:
    """A demo: a function that makes a report, and what the command line needs to know of it.

    Args:
        name: as in ``mbufpools demo NAME``.
        about: the script's docstring: a title, a blank line, and a few lines for the reader.
        report: runs the demo.
        text: returns the text after the title for the options of a run, where it depends on them.
        policies: the policies that are shown if the user chooses none.
        nmbclust: the smallest value of ``--nmbclust``, which is the default, and the largest.
            Without it the option does not exist.
    """

    def __init__(
        self,
        name: str,
        about: str | None,
        report: Callable[[Options], Report],
        *,
        text: Callable[[Options], str] | None = None,
        policies: Sequence[Wakeup] = tuple(Wakeup),
        nmbclust: tuple[int, int] | None = None,
    ) -> None:
        self.name: str = name
        title, _, told = inspect.cleandoc(about or name).partition("\n\n")
        self.title: str = title
        self.text: str = told
        self._text_of = text
        self._report = report
        self._policies = tuple(policies)
        self._nmbclust = nmbclust

    @property
    def has_limit(self) -> bool:
        """True if the demo has the option ``--nmbclust``."""
        return self._nmbclust is not None

    def main(self, argv: Sequence[str] | None = None, *, prog: str | None = None) -> int:
        """Read the command line, make the report, and print it. `prog` is as in `options`.

        Returns the exit status: 0, or 1 if the run did not show what the demo claims.
        """
        options = self.options(argv, prog=prog)
        found = self._report(options)
        if options.json:
            sys.stdout.write(found.json(self.name) + "\n")
        else:
            rule = "-" * len(self.title)
            text = self.text if self._text_of is None else self._text_of(options)
            sys.stdout.write(f"{self.title}\n{rule}\n{fill(text)}\n\n{found.text()}\n")
        return 0 if found.ok else 1

    def run(self) -> NoReturn:
        """Run the demo as a command of its own: raise SystemExit with the status of `main`."""
        prog = Path(sys.argv[0]).name
        try:
            raise SystemExit(run_command(prog, partial(self.main, prog=prog)))
        except Mistake as error:
            Parser(prog=prog).error(str(error))

    def end_state(
        self, argv: Sequence[str] | None = None, *, prog: str | None = None
    ) -> PoolsStatistics:
        """Read the command line, make the report without printing it, and return the counters at
        the end of its first run. `prog` is as in `options`."""
        return self._report(self.options(argv, prog=prog)).end

    def options(self, argv: Sequence[str] | None = None, *, prog: str | None = None) -> Options:
        """Read the command line. A mistake is one line on stderr, and SystemExit(2).

        Args:
            argv: the arguments, by default those of the process.
            prog: the command as it was typed, with which that line begins; by default the name of
                the demo.
        """
        parser = Parser(prog=prog or self.name, description=self.title, epilog=self.text)
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
                type=whole_number(smallest, largest),
                default=smallest,
                metavar="N",
                help=f"the limit: {smallest} to {largest} clusters of 2048 bytes "
                f"(default: {smallest})",
            )
        parser.add_argument("--json", action="store_true", help="print one JSON object")
        arguments = parser.read(argv)
        return Options(
            policies=(Wakeup(arguments.policy),) if arguments.policy else self._policies,
            backend=arguments.backend,
            nmbclust=getattr(arguments, "nmbclust", 0),
            json=arguments.json,
        )
