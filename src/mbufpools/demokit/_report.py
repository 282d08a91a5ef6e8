"""What a demo found: tables, notes, and a verdict, as plain text or as one JSON object.

A table keeps its cells as values, and both forms are made of these, so the text cannot say
anything else than the JSON. Uses no other room.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mbufpools import PoolsStatistics

__all__ = ["Cell", "Report", "Table", "fill", "plural", "tell"]

Cell = str | int | float | bool | None

WIDTH = 78
"""Columns of prose: a terminal of 80 with some air."""


def fill(text: str) -> str:
    """Break each paragraph of `text` into lines that fit a terminal."""
    return "\n\n".join(
        textwrap.fill(" ".join(paragraph.split()), WIDTH) for paragraph in text.split("\n\n")
    )


def plural(number: int, one: str, many: str = "") -> str:
    """Return `number` with its noun: "1 page", "2 pages"."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def tell(outcomes: Iterable[tuple[str, str]]) -> str:
    """Make a sentence of (policy, what happened), those together to whom the same happened."""
    groups: dict[str, list[str]] = {}
    for policy, happened in outcomes:
        groups.setdefault(happened, []).append(policy)
    return "; ".join(
        f"under {' and '.join([', '.join(policies[:-1]), policies[-1]][len(policies) == 1 :])} "
        f"{happened}"
        for happened, policies in groups.items()
    )


class Table:
    """Rows of named cells.

    Args:
        columns: the name of each cell, and its header; a ``\\n`` in a header breaks the line.
        title: a line above it.
        none: how None is shown.
    """

    def __init__(self, columns: Mapping[str, str], *, title: str = "", none: str = "-") -> None:
        self.columns = dict(columns)
        self.title = title
        self.rows: list[dict[str, Cell]] = []
        self._none = none

    def add(self, **cells: Cell) -> None:
        """Append a row. Raises TypeError unless it has exactly the cells of the columns."""
        if cells.keys() != self.columns.keys():
            raise TypeError(
                f"a row has the cells {', '.join(cells)}; expected {', '.join(self.columns)}"
            )
        self.rows.append({name: cells[name] for name in self.columns})

    def __str__(self) -> str:
        """The table in plain text: words to the left, numbers to the right."""
        headers = [header.split("\n") for header in self.columns.values()]
        height = max(len(lines) for lines in headers)
        texts = [[""] * (height - len(lines)) + lines for lines in headers]
        numeric = []
        for lines, name in zip(texts, self.columns, strict=True):
            cells = [row[name] for row in self.rows]
            lines.extend(map(self._show, cells))
            numeric.append(not any(isinstance(cell, str | bool) for cell in cells))
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

    def _show(self, cell: Cell) -> str:
        if cell is None:
            return self._none
        if isinstance(cell, bool):
            return "yes" if cell else "no"
        return f"{cell:g}" if isinstance(cell, float) else str(cell)


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of a demo."""

    tables: Mapping[str, Table]
    """By name; shown in this order."""
    verdict: str
    """What happened, in words made of the figures of this run."""
    ok: bool
    """Whether that is what the demo claims."""
    end: PoolsStatistics
    """The counters at the end of the first run."""
    notes: Sequence[str] = ()
    """Paragraphs between the tables and the verdict."""

    def text(self) -> str:
        """For people, 80 columns wide; the last paragraph is the verdict."""
        verdict = "Verdict: " if self.ok else "Verdict: NOT AS EXPECTED: "
        paragraphs = [
            *map(str, self.tables.values()),
            *map(fill, self.notes),
            fill(verdict + self.verdict),
        ]
        return "\n\n".join(paragraphs)

    def json(self, demo: str) -> str:
        """For programs: one object on one line, with the rows of each table by its name."""
        return json.dumps(
            {
                "demo": demo,
                **{name: table.rows for name, table in self.tables.items()},
                "notes": list(self.notes),
                "verdict": self.verdict,
                "ok": self.ok,
            }
        )
