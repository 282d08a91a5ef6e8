"""The rows of one run with their environment: as a table for people, and as JSON."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ._rows import LESS, WHOLE, Row

__all__ = [
    "Record",
    "ablations",
    "environment",
    "headlines",
    "heading",
    "line",
    "verdict",
]

PACKAGES = ("mbufpools", "anyio", "trio", "uvloop", "resource-semaphore")
WIDTHS = (8, 16, 8, 6)
"""Of the last columns."""
HEADLINES = (
    ("Pool.get_nowait, release", "asyncio.Queue, nowait"),
    ("BufferPools.get_nowait, release", "asyncio.Queue, nowait"),
    ("await get, fast_acquire", "asyncio.Queue, awaited"),
    ("await get, with its checkpoint", "anyio.Semaphore"),
    ("await get, with its checkpoint", "anyio.CapacityLimiter"),
    ("hand-off between 4 tasks", "an anyio.Event each time"),
    ("hand-off between 4 tasks", "anyio.Condition"),
    ("get_nowait(65536), its view, release", "bytearray(65536)"),
    ("proxy, CPU, 64 KiB buffers, pools not dry", "asyncio's streams"),
    ("proxy, CPU, 64 KiB buffers, pools dry", "asyncio's streams"),
    ("proxy, memory, 64 KiB buffers, pools dry", "asyncio's streams"),
    ("proxy, CPU, 4 KiB buffers", "asyncio's streams, 4 KiB reads"),
    ("proxy, CPU, 4 KiB buffers, debug=True", "the same without debug"),
    ("debug=True, a pair of 64 KiB", "without debug"),
)
"""The rows that the README shows: the names of ours and of the peer. A row that the record does not
have yet is left out."""


@dataclass(frozen=True, slots=True)
class Record:
    """All rows of one run."""

    environment: dict[str, Any]
    rows: list[Row]

    def write(self, path: Path) -> None:
        """Write the record as JSON."""
        rows = [{**asdict(row), "holds": row.holds} for row in self.rows]
        text = json.dumps({"environment": self.environment, "rows": rows}, indent=1)
        path.write_text(f"{text}\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Record:
        """Read what `write` has written."""
        data = json.loads(path.read_text(encoding="utf-8"))
        rows = [
            Row(**{name: value for name, value in row.items() if name != "holds"})
            for row in data["rows"]
        ]
        return cls(data["environment"], rows)


def environment(form: str) -> dict[str, Any]:
    """Return what the figures depend on."""
    versions: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "form": form,
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "python": platform.python_version(),
        "implementation": sys.implementation.name,
        "system": f"{platform.system()} {platform.machine()}",
        "processors": os.cpu_count(),
        "load": [round(each, 2) for each in os.getloadavg()],
        "packages": versions,
    }


def heading() -> str:
    """Return the line above the rows."""
    return _columns(("", "ours", "peer's", "peer", "value", "quartiles", "goal", "holds"))


def line(row: Row) -> str:
    """Return a row as text."""
    holds = {True: "yes", False: "NO", None: "-"}[row.holds]
    return _columns(
        (
            row.name,
            f"{_plain(row.ours)} {row.unit}",
            f"{_plain(row.theirs)} {row.unit}",
            row.peer,
            _value(row.value, row),
            f"{_value(row.low, row)}..{_value(row.high, row)}",
            _goal(row),
            holds,
        )
    )


def verdict(rows: Iterable[Row]) -> str:
    """Return how many goals are held, and which are not."""
    with_goal = [row for row in rows if row.goal is not None]
    missed = [row for row in with_goal if not row.holds]
    lines = [f"{len(with_goal) - len(missed)} of {len(with_goal)} goals hold"]
    by_name: dict[tuple[str, str], list[Row]] = {}
    for row in missed:
        by_name.setdefault((row.name, row.peer), []).append(row)
    for (name, peer), several in by_name.items():
        values = (f"{row.backend} {_value(row.value, row)} of {_goal(row)}" for row in several)
        lines.append(f"  not held: {name} / {peer}: {', '.join(values)}")
    return "\n".join(lines)


def headlines(record: Record, about: str = "") -> str:
    """Return the ratios that the README shows: one line for a row, one column for a backend. With
    `about` only the rows whose name has that text."""
    differences = {(row.name, row.peer): row.unit for row in record.rows if row.compared == "more"}
    rows = [
        (
            f"{name}, {differences[name, peer]} more than {peer}"
            if (name, peer) in differences
            else f"{name} / {peer}",
            (name, peer),
        )
        for name, peer in HEADLINES
        if about in name
    ]
    return "\n".join([*_ratios(record, "ours, beside the peer", rows), "", _measured_on(record)])


def ablations(record: Record) -> str:
    """Return the ratios that show which promise costs what: a table for each ablation."""
    tables: list[tuple[str, list[tuple[str, tuple[str, str]]]]] = []
    for name, peer in dict.fromkeys((row.name, row.peer) for row in record.rows):
        if name.endswith(WHOLE):
            title = f"{name.removesuffix(WHOLE)} / {peer}"
            tables.append((title, [("with all promises", (name, peer))]))
        elif name.startswith(LESS):
            tables[-1][1].append((name, (name, peer)))
    lines = [line for title, rows in tables for line in (*_ratios(record, title, rows), "")]
    return "\n".join([*lines, _measured_on(record)])


def _ratios(record: Record, title: str, rows: Iterable[tuple[str, tuple[str, str]]]) -> list[str]:
    """Return the lines of a table: for each row a text and the ratio on each backend."""
    backends = [
        backend
        for backend in ("asyncio", "uvloop", "trio")
        if any(row.backend == backend for row in record.rows)
    ]
    found = {(row.name, row.peer, row.backend): row for row in record.rows}
    lines = [f"{title:66}" + "".join(f"{backend:>9}" for backend in backends)]
    lines.append(f"{'-' * 64}  " + "  ".join("-" * 7 for _ in backends))
    for text, (name, peer) in rows:
        cells = [found.get((name, peer, backend)) for backend in backends]
        if any(cells):
            ratios = "".join(f"{'-' if cell is None else f'{cell.value:.2f}':>9}" for cell in cells)
            lines.append(f"{text:66}{ratios}")
    return lines


def _measured_on(record: Record) -> str:
    about = record.environment
    return (
        f"Ratios of times (or the difference), or of bytes for memory, on Python {about['python']} "
        f"({about['system']}, {about['date']})."
    )


def _columns(cells: Sequence[str]) -> str:
    name, ours, theirs, peer, *rest = cells
    start = f"{name:42}{ours:>12}{theirs:>12}  {peer:39}"
    return start + "".join(f"{cell:>{width}}" for cell, width in zip(rest, WIDTHS, strict=True))


def _plain(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _value(value: float, row: Row) -> str:
    return f"{value:.2f}" if row.compared == "ratio" else _plain(value)


def _goal(row: Row) -> str:
    return "-" if row.goal is None else _value(row.goal, row)
