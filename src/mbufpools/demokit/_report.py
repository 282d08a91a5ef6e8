"""The result of a demo: tables, notes and a verdict, as plain text or as one JSON object.

A table keeps its cells as values. Both forms are made from these values, so the text and the JSON
cannot differ.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mbufpools import PoolsStatistics

__all__ = ["Cell", "Report", "Table", "conjunction", "fill", "plural", "tell"]

Cell = str | int | float | bool | None

WIDTH = 78
"""Columns of prose: two less than a terminal of 80 has."""


def fill(text: str, *, indent: str = "") -> str:
    """Break each paragraph of `text` into lines that fit a terminal; all lines but the first of
    each begin with `indent`."""
    return "\n\n".join(
        textwrap.fill(
            " ".join(paragraph.split()), WIDTH, break_on_hyphens=False, subsequent_indent=indent
        )
        for paragraph in text.split("\n\n")
    )


def plural(number: int, one: str, many: str = "") -> str:
    """Return `number` with its noun: "1 page", "2 pages"."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def conjunction(words: Sequence[str]) -> str:
    """Join `words` as in a sentence: "a", "a and b", "a, b and c"."""
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last


def tell(outcomes: Iterable[tuple[str, str]]) -> str:
    """Make a sentence of pairs (policy, what happened).

    Policies under which the same happened are named together.
    """
    groups: dict[str, list[str]] = {}
    for policy, happened in outcomes:
        groups.setdefault(happened, []).append(policy)
    return "; ".join(
        f"under {conjunction(policies)} {happened}" for happened, policies in groups.items()
    )


class Table:
    """Rows of named cells.

    Args:
        columns: the name of each cell, and its header; a ``\\n`` in a header breaks the line.
        title: a line above the table.
        none: the text that stands for None.
        right: the columns that are aligned to the right although they have words, such as numbers
            beside a "never".
    """

    def __init__(
        self,
        columns: Mapping[str, str],
        *,
        title: str = "",
        none: str = "-",
        right: Iterable[str] = (),
    ) -> None:
        self.columns: dict[str, str] = dict(columns)
        self.title: str = title
        self.rows: list[dict[str, Cell]] = []
        self._none = none
        self._right = frozenset(right)

    def add(self, **cells: Cell) -> None:
        """Append a row. Raises TypeError if its cells are not exactly those of the columns."""
        if cells.keys() != self.columns.keys():
            raise TypeError(
                f"a row has the cells {', '.join(cells)}; expected {', '.join(self.columns)}"
            )
        self.rows.append({name: cells[name] for name in self.columns})

    def __str__(self) -> str:
        """The table in plain text. Words are aligned to the left, numbers and the columns of
        `right` to the right."""
        headers = [header.split("\n") for header in self.columns.values()]
        height = max(len(lines) for lines in headers)
        texts = [[""] * (height - len(lines)) + lines for lines in headers]
        numeric = []
        for lines, name in zip(texts, self.columns, strict=True):
            cells = [row[name] for row in self.rows]
            lines.extend(map(self.show, cells))
            numeric.append(
                name in self._right or not any(isinstance(cell, str | bool) for cell in cells)
            )
        widths = [max(map(len, lines)) for lines in texts]
        for lines, width in zip(texts, widths, strict=True):
            lines.insert(height, "-" * width)
        shown = [
            "  ".join(
                text.rjust(width) if right else text.ljust(width)
                for text, width, right in zip(line, widths, numeric, strict=True)
            ).rstrip()
            for line in zip(*texts, strict=True)
        ]
        return "\n".join([self.title, *shown] if self.title else shown)

    def show(self, cell: Cell) -> str:
        """Return a cell as text."""
        if cell is None:
            return self._none
        if isinstance(cell, bool):
            return "yes" if cell else "no"
        return f"{cell:g}" if isinstance(cell, float) else str(cell)


@dataclass(frozen=True, slots=True)
class Report:
    """The result of a demo."""

    tables: Mapping[str, Table]
    """The tables by name, in the order in which they are printed."""
    verdict: str
    """A sentence that says what happened; it is made of the figures of this run."""
    ok: bool
    """True if the run showed what the demo claims."""
    end: PoolsStatistics
    """The counters at the end of the first run."""
    notes: Sequence[str] = ()
    """Paragraphs between the tables and the verdict."""

    def text(self) -> str:
        """The report for people, at most 80 columns wide. Its last paragraph is the verdict."""
        verdict = "Verdict: " if self.ok else "Verdict: NOT AS EXPECTED: "
        paragraphs = [
            *map(str, self.tables.values()),
            *map(fill, self.notes),
            fill(verdict + self.verdict),
        ]
        return "\n\n".join(paragraphs)

    def json(self, demo: str) -> str:
        """The report for programs: one JSON object in one line, with the rows of each table."""
        return json.dumps(
            {
                "demo": demo,
                **{name: table.rows for name, table in self.tables.items()},
                "notes": list(self.notes),
                "verdict": self.verdict,
                "ok": self.ok,
            }
        )
