"""The programs of the tutorials and of the how-to pages: where they are, and a copy of them.

``python -m mbufpools.examples`` lists them, and with ``--copy FOLDER`` copies them into a new
folder, to run and to change. In an installed package the programs are inside the package, in a
source checkout in ``docs/examples``.
"""

from __future__ import annotations

import ast
import shutil
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from .demokit import Parser, run_command

__all__ = ["copy", "folder", "main"]


def folder() -> Path:
    """Return the folder that holds the programs.

    Never blocks, but for the file system.

    Raises:
        FileNotFoundError: the programs are neither in the package nor beside it.
    """
    package = Path(__file__).parent
    places = (package / "_examples", package.parent.parent / "docs" / "examples")
    for place in places:
        if place.is_dir():
            return place
    raise FileNotFoundError(
        f"the examples are neither in {places[0]} nor in {places[1]}; reinstall mbufpools"
    )


def copy(target: Path) -> None:
    """Copy the programs into the folder `target`, which is made, as are the folders above it.

    Blocks while the files are copied.

    Raises:
        FileExistsError: `target` exists; nothing was copied.
        FileNotFoundError: as `folder`.
        OSError: `target` cannot be written.
    """
    shutil.copytree(folder(), target, ignore=shutil.ignore_patterns("__pycache__", ".*"))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv`, by default that of the process; return the exit status.

    Raises SystemExit(2) after a mistake on the command line, and SystemExit(0) after ``--help``.
    """
    return run_command("mbufpools.examples", partial(_run, argv))


def _run(argv: Sequence[str] | None) -> int:
    parser = Parser(
        prog="python -m mbufpools.examples",
        description="List the programs of the tutorials, or copy them into a folder.",
    )
    parser.add_argument("--copy", metavar="FOLDER", type=Path, help="a folder that does not exist")
    arguments = parser.read(argv)
    try:
        place = folder()
    except FileNotFoundError as error:
        parser.error(str(error))
    if arguments.copy is None:
        sys.stdout.writelines(f"{line}\n" for line in _listing(place))
        return 0
    try:
        copy(arguments.copy)
    except FileExistsError:
        parser.error(f"{arguments.copy} exists; expected a new folder, and nothing was copied")
    except OSError as error:
        parser.error(f"{arguments.copy} cannot be written: {error.strerror or error}")
    sys.stdout.write(f"The examples are in {arguments.copy}.\n")
    return 0


def _listing(place: Path) -> Iterator[str]:
    """Lines with the name of each program and the first sentence of its docstring."""
    yield f"The examples are in {place}:"
    programs = sorted(place.glob("*.py"))
    width = max(len(program.name) for program in programs)
    for program in programs:
        about = ast.get_docstring(ast.parse(program.read_text(encoding="utf-8"))) or ""
        yield f"  {program.name:{width}}  {about.splitlines()[0]}"
    yield "To run and to change them: python -m mbufpools.examples --copy FOLDER"


if __name__ == "__main__":
    raise SystemExit(main())
