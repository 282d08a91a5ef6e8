"""Produce the output that the documents show, so that none of it is pasted.

A block of a document looks like this. The text between the two comments is replaced by the output
of the command::

    <!-- produced by: mbufpools demo stall -->
    ...
    <!-- end -->

`python docs/produce.py` updates all documents, or those that are named. With ``--check`` it only
lists the documents that are out of date, and exits with 1 if there is one.
"""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
BLOCK = re.compile(r"(<!-- produced by: (?P<command>.+?) -->\n).*?(<!-- end -->)", re.DOTALL)


def main(argv: Sequence[str] | None = None) -> int:
    """Produce the documents, or check them."""
    parser = argparse.ArgumentParser("produce.py")
    parser.add_argument("documents", nargs="*", type=Path, help="default: all")
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 if stale")
    arguments = parser.parse_args(argv)
    stale = []
    for document in [path.resolve() for path in arguments.documents] or DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        fresh = produce(text)
        if fresh != text:
            stale.append(document.relative_to(ROOT))
            if not arguments.check:
                document.write_text(fresh, encoding="utf-8")
    for name in stale:
        print(f"{name} was out of date" + ("; run `make docs`" if arguments.check else "; updated"))
    return 1 if stale and arguments.check else 0


def produce(text: str) -> str:
    """Return `text` with every block filled by the output of its command."""
    return BLOCK.sub(
        lambda block: f"{block[1]}```text\n{run(block['command'])}```\n{block[3]}", text
    )


def run(command: str) -> str:
    """Return what a command prints. Both programs, mbufpools and python, use this interpreter."""
    program, *arguments = shlex.split(command)
    if program not in ("mbufpools", "python"):
        raise ValueError(f"{command!r}: expected a command that begins with mbufpools or python")
    module = ["-m", "mbufpools"] if program == "mbufpools" else []
    result = subprocess.run(
        [sys.executable, *module, *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    if result.returncode > 1:  # 1 is a valid result, such as a failure that was to be found
        raise RuntimeError(f"`{command}` exits with {result.returncode}:\n{result.stderr}")
    return "\n".join(line.rstrip() for line in result.stdout.splitlines()) + "\n"


if __name__ == "__main__":
    sys.exit(main())
