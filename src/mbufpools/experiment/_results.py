"""Cells, and what was measured in them: in memory, and in files of JSON lines.

A *cell* is a workload with its parameters, under one kernel; a run of it has a seed. A folder of
results has one file for each cell: a header, then a line for each seed. So a run that was
interrupted is resumed by running it again. The header holds a fingerprint of the code that
measures; results of other code are measured anew.

All cells can be packed into one compressed file, which is what the repository keeps.
"""

from __future__ import annotations

import hashlib
import json
import lzma
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import mbufpools

from ._kernels import CPUS, Kernel

__all__ = ["Cell", "Figures", "Folder", "Results", "fingerprint", "pack", "unpack"]

Figures = dict[str, Any]
"""What one run measured, by name."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A workload with its parameters, under one kernel."""

    workload: str
    kernel: Kernel
    items: tuple[tuple[str, Any], ...] = ()
    """The parameters that differ from the workload's own, sorted by name."""

    @classmethod
    def of(cls, workload: str, kernel: Kernel, **parameters: Any) -> Cell:
        """Make a cell; the parameters are those of the workload."""
        return cls(workload, kernel, tuple(sorted(parameters.items())))

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters by name."""
        return dict(self.items)

    def changed(self, parameters: Mapping[str, Any], cpus: int | None) -> Cell:
        """Return this cell with other parameters, and with the caches of `cpus` CPUs if it has
        those of `CPUS`. A cell that states another number of CPUs keeps it."""
        kernel = self.kernel
        if cpus is not None and kernel.caches == CPUS:
            kernel = kernel.on(cpus)
        return Cell.of(self.workload, kernel, **(self.parameters | dict(parameters)))

    def plain(self) -> dict[str, Any]:
        """The cell as JSON values."""
        return {
            "workload": self.workload,
            "kernel": self.kernel.plain(),
            "parameters": self.parameters,
        }

    @property
    def key(self) -> str:
        """One line that is the same for equal cells only."""
        return json.dumps(self.plain(), sort_keys=True)

    @property
    def file_name(self) -> str:
        """The name of the cell's file in a folder of results."""
        name = "".join(letter if letter.isalnum() else "-" for letter in self.kernel.name)
        return f"{self.workload}-{name}-{hashlib.sha256(self.key.encode()).hexdigest()[:10]}.jsonl"


@dataclass
class Results:
    """What was measured, by cell and seed."""

    runs: dict[str, dict[int, Figures]] = field(default_factory=dict)
    changes: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Parameters by workload that every cell was run with, whatever the cell itself says."""
    cpus: int | None = None
    """The CPUs whose caches the cells had that have those of `CPUS`; None if these."""

    def add(self, cell: Cell, seed: int, figures: Figures) -> None:
        """Note the figures of one run."""
        self.runs.setdefault(cell.key, {})[seed] = figures

    def has(self, cell: Cell, seed: int) -> bool:
        """Return True if this run was measured."""
        return seed in self.runs.get(cell.key, {})

    def measured(self, cell: Cell) -> Cell:
        """Return the cell as it was run, with `changes` and `cpus`: what a table says of it."""
        return cell.changed(self.changes.get(cell.workload, {}), self.cpus)

    def all(self, cell: Cell) -> list[Figures]:
        """Return the figures of all runs of a cell, in the order of their seeds. Raises LookupError
        if there are none."""
        runs = self.runs.get(cell.key)
        if not runs:
            raise LookupError(f"there are no results of the cell {cell.key}; run it first")
        return [runs[seed] for seed in sorted(runs)]

    def values(self, cell: Cell, name: str) -> list[Any]:
        """Return one figure of all runs of a cell."""
        return [figures[name] for figures in self.all(cell)]

    def seeds_of(self, cells: Iterable[Cell]) -> int:
        """Return the fewest runs that one of `cells` has."""
        return min((len(self.runs.get(cell.key, {})) for cell in cells), default=0)


@cache
def fingerprint() -> str:
    """Return a digest of the code that decides what a run measures: the core and the workloads."""
    root = Path(mbufpools.__file__).parent
    measuring = ("_clock", "_kernels", "_machine", "_parameters", "_incident", "_workloads")
    files = [*sorted(root.glob("*.py")), *(root / "experiment" / f"{it}.py" for it in measuring)]
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


class Folder:
    """A folder with a file for each cell. It is made when the first result is kept.

    Raises OSError if it cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._begun: set[str] = set()

    def read(self, cells: Iterable[Cell], results: Results) -> None:
        """Add what the folder has of `cells` to `results`. A line that an interruption has cut off
        is left out; so is a file that other code has written."""
        for cell in cells:
            file = self._path / cell.file_name
            if not file.exists():
                continue
            lines = list(_whole_lines(file.read_text(encoding="utf-8")))
            if not lines or lines[0] != self._header(cell):
                continue
            self._begun.add(cell.key)
            for line in lines[1:]:
                results.add(cell, line.pop("seed"), line)
            if not file.read_bytes().endswith(b"\n"):  # cut off: write the whole lines again
                kept = results.runs.get(cell.key, {})
                file.write_text(
                    "".join(
                        json.dumps(each) + "\n"
                        for each in (
                            self._header(cell),
                            *({"seed": seed, **figures} for seed, figures in kept.items()),
                        )
                    ),
                    encoding="utf-8",
                )

    def keep(self, cell: Cell, seed: int, figures: Figures) -> None:
        """Append one run to the file of its cell."""
        self._path.mkdir(parents=True, exist_ok=True)
        begun = cell.key in self._begun
        self._begun.add(cell.key)
        with (self._path / cell.file_name).open("a" if begun else "w", encoding="utf-8") as file:
            if not begun:
                file.write(json.dumps(self._header(cell)) + "\n")
            file.write(json.dumps({"seed": seed, **figures}) + "\n")

    def _header(self, cell: Cell) -> dict[str, Any]:
        return {**cell.plain(), "code": fingerprint()}


def _whole_lines(text: str) -> Iterator[dict[str, Any]]:
    for line in text.splitlines(keepends=True):
        if line.endswith("\n"):
            yield json.loads(line)


def pack(results: Results, file: Path) -> None:
    """Write all results into one compressed file, the same bytes for the same results."""
    lines = [
        json.dumps({"cell": json.loads(key), "seed": seed, "figures": _rounded(runs[seed])})
        for key, runs in sorted(results.runs.items())
        for seed in sorted(runs)
    ]
    file.write_bytes(lzma.compress("".join(f"{line}\n" for line in lines).encode(), preset=9))


def unpack(file: Path) -> Results:
    """Read what `pack` wrote. Raises OSError, lzma.LZMAError, ValueError or KeyError if the file is
    no such file."""
    results = Results()
    for line in lzma.decompress(file.read_bytes()).decode().splitlines():
        row = json.loads(line)
        key = json.dumps(row["cell"], sort_keys=True)
        results.runs.setdefault(key, {})[row["seed"]] = row["figures"]
    return results


def _rounded(figures: Mapping[str, Any]) -> Figures:
    """Six digits are enough for every figure, and make the file small."""
    return {
        name: float(f"{value:.6g}") if isinstance(value, float) else value
        for name, value in figures.items()
    }
