"""Produce the output and the programs that the documents show, so that none of it is pasted.

A block of a document looks like this. The text between the two comments is replaced by the output
of the command::

    <!-- produced by: mbufpools demo stall -->
    ...
    <!-- end -->

``produced in FOLDER by:`` runs the command in that folder; paths in it are shown relative to it.
``shown:`` shows a file of Python, or of it only the functions and classes that are named::

    <!-- shown: docs/examples/lending.py Desk read -->
    ...
    <!-- end -->

`python docs/produce.py` updates all documents, or those that are named. With ``--check`` it only
shows which lines of the documents are out of date, and exits with 1 if there is one.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
BLOCK = re.compile(
    r"(?P<begin><!-- "
    r"(?:shown: (?P<shown>.+?)|produced (?:in (?P<folder>\S+) )?by: (?P<command>.+?))"
    r" -->\n).*?(?P<end><!-- end -->)",
    re.DOTALL,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Produce the documents, or check them."""
    parser = argparse.ArgumentParser("produce.py")
    parser.add_argument("documents", nargs="*", type=Path, help="default: all")
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 if stale")
    arguments = parser.parse_args(argv)
    stale = False
    for document in [path.resolve() for path in arguments.documents] or DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        fresh = produce(text)
        if fresh == text:
            continue
        stale = True
        name = document.relative_to(ROOT)
        if arguments.check:
            print(f"{name} was out of date; run `.venv/bin/python docs/produce.py {name}`")
            print(*difference(text, fresh, str(name)), sep="\n")
        else:
            document.write_text(fresh, encoding="utf-8")
            print(f"{name} was out of date; updated")
    return 1 if stale and arguments.check else 0


def difference(text: str, fresh: str, name: str) -> Iterator[str]:
    """Yield the lines of a unified diff from a document as it is to what would be produced."""
    return difflib.unified_diff(
        text.splitlines(), fresh.splitlines(), name, f"{name}, as produced", lineterm=""
    )


def produce(text: str) -> str:
    """Return `text` with every block filled by the output of its command, or by its program."""
    return BLOCK.sub(_fill, text)


def _fill(block: re.Match[str]) -> str:
    if block["shown"]:
        language, content = "python", show(*block["shown"].split())
    else:
        language, content = "text", run(block["command"], block["folder"] or ".")
    return f"{block['begin']}```{language}\n{content}```\n{block['end']}"


def show(path: str, *names: str) -> str:
    """Return the source of a file, or of its top-level functions and classes of these names."""
    source = (ROOT / path).read_text(encoding="utf-8")
    if not names:
        return source
    lines = source.splitlines()
    found = {
        node.name: "\n".join(lines[_first_line(node) - 1 : node.end_lineno])
        for node in ast.parse(source).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    }
    missing = [name for name in names if name not in found]
    if missing:
        raise ValueError(f"{path} has no {', '.join(missing)}; expected one of {', '.join(found)}")
    return "\n\n\n".join(found[name] for name in names) + "\n"


def _first_line(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> int:
    return min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])


def run(command: str, folder: str = ".") -> str:
    """Return what a command prints that runs in a folder of the project.

    Both programs, mbufpools and python, use this interpreter. What a reader would see beside the
    output, such as a warning on stderr, is an error.
    """
    program, *arguments = shlex.split(command)
    if program not in ("mbufpools", "python"):
        raise ValueError(f"{command!r}: expected a command that begins with mbufpools or python")
    module = ["-m", "mbufpools"] if program == "mbufpools" else []
    here = ROOT / folder
    result = subprocess.run(
        [sys.executable, *module, *arguments],
        capture_output=True,
        text=True,
        cwd=here,
        check=False,
    )
    # 1 is a valid result, such as a failure that was to be found.
    if result.returncode > 1 or result.stderr:
        raise RuntimeError(
            f"`{command}` exits with {result.returncode}, and writes to stderr:\n{result.stderr}"
        )
    lines = result.stdout.replace(f"{here}/", "").splitlines()
    return "\n".join(line.rstrip() for line in lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
