"""The blocks of a document that a long proof fills in, and the command line of such a proof."""

from __future__ import annotations

import re
from pathlib import Path

from mbufpools.demokit import Parser, whole_number

__all__ = ["arguments", "write_block"]


def arguments(prog: str) -> Parser:
    """Return the parser of a proof's command line."""
    parser = Parser(prog=prog)
    parser.add_argument("--write", type=Path, metavar="DOCUMENT", help="put the table into it")
    parser.add_argument("--jobs", type=whole_number(1), default=2, help="processes (default: 2)")
    return parser


def write_block(document: Path, command: str, text: str) -> None:
    """Replace the block of `document` that is marked as proved by `command`."""
    fresh, count = re.subn(
        rf"(<!-- proved by: {re.escape(command)} .*?-->\n).*?(\n<!-- end -->)",
        lambda match: f"{match[1]}```text\n{text}\n```{match[2]}",
        document.read_text("utf-8"),
        flags=re.DOTALL,
    )
    if count != 1:
        raise SystemExit(
            f"{document} has {count} blocks that are proved by {command!r}; expected 1"
        )
    document.write_text(fresh, "utf-8")
