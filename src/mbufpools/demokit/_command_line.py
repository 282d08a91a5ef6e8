"""What every command line of the project shares: a parser, types of arguments, a progress line,
and the ways in which a command ends.

The command ``mbufpools``, the demos and the soak are all read by `Parser`. A mistake of the
caller is one line on stderr that lists what is right, and exit status 2.
"""

from __future__ import annotations

import argparse
import errno
import importlib.util
import io
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

from ._suggest import closest, unknown

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

__all__ = [
    "INTERRUPTED",
    "Mistake",
    "Parser",
    "installed_backend",
    "one_of",
    "progress_line",
    "run_command",
    "whole_number",
]

BAR = 20
"""Characters of the progress bar."""
PAUSE = 0.1
"""Seconds between two updates of the progress line."""


class Mistake(Exception):
    """A mistake on the command line that is found after the parsing. Its message is one line."""


class Parser(argparse.ArgumentParser):
    """A parser that reports each error in one line on stderr, and exits with status 2.

    The line begins with the command and the verb, says what is wrong, which name was meant if one
    looks like it, and what is right. Options cannot be abbreviated. The namespace that `read`
    returns has one attribute more, ``parser``: the parser of the subcommand, or this one if there
    is none.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, exit_on_error=False, **options)
        self.set_defaults(parser=self)

    def error(self, message: str) -> NoReturn:
        """Print the message after the name of the command, and raise SystemExit(2)."""
        self.exit(2, f"{self.prog}: {message}\n")

    def print_help(self, file: SupportsWrite[str] | None = None) -> None:
        """Print the help. That it cannot be written is an error, which argparse would hide."""
        (sys.stdout if file is None else file).write(self.format_help())

    def read(self, argv: Sequence[str] | None = None) -> argparse.Namespace:
        """Read the command line `argv`, by default that of the process.

        An argument that the command does not have is an error that lists its options.
        """
        arguments, extra = self.parse_known_args(argv)
        if extra:
            parser: Parser = arguments.parser
            parser._refuse(extra[0])
        return arguments

    # That of argparse is overloaded, so that the namespace may be of any type; here it is always
    # argparse's own.
    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """As argparse does it, but an error is reported by the parser that has the argument."""
        try:
            return super().parse_known_args(args, namespace)
        except argparse.ArgumentError as error:
            self.error(str(error))

    def _match_argument(self, action: argparse.Action, arg_strings_pattern: str) -> int:
        """As argparse does it, but the error for an option without its value says what to give."""
        try:
            return super()._match_argument(action, arg_strings_pattern)
        except argparse.ArgumentError:
            if not action.option_strings or action.nargs is not None:
                raise
            option = action.option_strings[-1]
            raise argparse.ArgumentError(
                action,
                f"there is no value; expected {option} {action.metavar or action.dest.upper()}"
                f"{f': {action.help}' if action.help else ''}",
            ) from None

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Refuse a value that is none of the choices, in the words of this module."""
        if action.choices is None or value in action.choices:
            return
        names = [str(choice) for choice in action.choices]
        if isinstance(action, argparse._SubParsersAction):
            option = closest(value, ["--help", *self._options()])
            if option is not None and closest(value, names) is None:
                self.error(f"no command {value!r}; did you mean {option}?")
            self.error(f"no command {unknown(value, names)}")
        raise argparse.ArgumentError(action, unknown(value, names))

    def _refuse(self, argument: str) -> NoReturn:
        options = self._options()
        if argument.startswith("-"):
            argument = argument.partition("=")[0]
            meant = closest(argument, options)
            if meant is not None:
                self.error(
                    f"unexpected argument {argument!r}; did you mean {meant}? "
                    f"`{self.prog} --help` lists the options"
                )
            right = ""
        else:
            places = [str(it.metavar or it.dest) for it in self._get_positional_actions()]
            right = "".join(f"expected at most one {place}; " for place in places)
        self.error(
            f"unexpected argument {argument!r}; {right}the options are "
            f"{', '.join(options) or 'none'}"
        )

    def _options(self) -> list[str]:
        return [
            action.option_strings[-1]
            for action in self._actions
            if action.option_strings and action.dest != "help"
        ]


def one_of(values: Sequence[str]) -> Callable[[str], str]:
    """The type of an argument that is one of `values`; its error lists them, and says which was
    meant."""

    def check(value: str) -> str:
        if value not in values:
            raise argparse.ArgumentTypeError(unknown(value, values))
        return value

    return check


def whole_number(smallest: int, largest: int | None = None) -> Callable[[str], int]:
    """The type of an argument that is a whole number from `smallest` to `largest`, inclusive.

    Only ASCII digits are accepted: no sign, space or underscore.
    """

    def check(value: str) -> int:
        # Python refuses to convert thousands of digits; no argument needs more than 20.
        if value.isascii() and value.isdigit() and len(value) <= 20:
            number = int(value)
            if smallest <= number and (largest is None or number <= largest):
                return number
        end = "up" if largest is None else f"to {largest}"
        raise argparse.ArgumentTypeError(
            f"{value!r}; expected a whole number from {smallest} {end}"
        )

    return check


def installed_backend(value: str) -> str:
    """The type of ``--backend``: asyncio, or trio if it is installed."""
    if value == "trio" and importlib.util.find_spec("trio") is None:
        raise argparse.ArgumentTypeError(
            "trio is not installed: pip install 'mbufpools[trio]', or use asyncio"
        )
    return one_of(["asyncio", "trio"])(value)


@contextmanager
def progress_line(
    goal: int, noun: str, *, at_most: bool = False, time_left: bool = False
) -> Iterator[Callable[[int], None] | None]:
    """Show on stderr how far a long command has come, in one line that is overwritten.

    Yields the function to call with the number of things done, or None if stderr is not a
    terminal, or one that cannot erase a line (TERM=dumb). The line has no colour. It is updated at
    most every `PAUSE` seconds, and removed at the end.

    Args:
        goal: how many things will be done.
        noun: what is counted, in the plural.
        at_most: the command may end before the goal.
        time_left: tell how long the rest will take, instead of how many are done a second. What
            the first call tells was done before.
    """
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield None
        return
    began = last = time.monotonic()
    before: int | None = None

    def show(done: int) -> None:
        nonlocal last, before
        if before is None:
            before = done if time_left else 0
        now = time.monotonic()
        if now - last < PAUSE:
            return
        last = now
        bar = ("#" * (BAR * done // goal)).ljust(BAR, ".")
        rate = (done - before) / max(now - began, 1e-9)
        if time_left:
            speed = f"{_for_people((goal - done) / rate)} left" if rate else "just begun"
        else:
            speed = f"{rate:.0f} a second"
        sys.stderr.write(
            f"\r\033[K[{bar}] {done} of {'at most ' if at_most else ''}{goal} {noun}, {speed}"
        )
        sys.stderr.flush()

    try:
        yield show
    finally:
        sys.stderr.write("\r\033[K")


def _for_people(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


INTERRUPTED = 130
"""The exit status after Ctrl-C."""


def run_command(name: str, run: Callable[[], int]) -> int:
    """Run the command `name`, and return its exit status, that of `run` if all went well.

    A character that the output cannot encode, as in a file on Windows, is written as a question
    mark. Ctrl-C is status 130, also where trio has put the KeyboardInterrupt into groups. An output
    that cannot be written, such as on a full disk, is one line on stderr and status 1. If the
    reader of the output, such as ``head``, has closed the pipe, the status is 1 and nothing is
    said.
    """
    try:
        if sys.stdout is None:
            raise OSError(errno.EBADF, "there is no standard output")
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")
        try:
            status = run()
        finally:
            sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BaseExceptionGroup as group:
        if group.split(KeyboardInterrupt)[1] is not None:
            raise
        return INTERRUPTED
    except OSError as error:
        if error.filename is not None:  # of a file of the program
            raise
        if not isinstance(error, BrokenPipeError) and sys.stderr is not None:
            sys.stderr.write(f"{name}: the output cannot be written: {error.strerror}\n")
        if sys.stdout is not None:  # what it still holds would be written when Python ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status
