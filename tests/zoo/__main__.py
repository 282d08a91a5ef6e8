"""Explore the zoo, and print in how many executions each bug was found and each twin proved.

A number that is not the same on both backends is given for each, asyncio's first. Exits with 1 if
a bug was not found or a twin not proved.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from tests.zoo import ZOO, Specimen


def print_table(specimens: Sequence[Specimen]) -> bool:
    """Explore them and print a row for each; return whether nothing was missed."""
    rows: list[tuple[str, ...]] = [
        ("bug", "kind", "found at", "twin", "dpor: found at", "twin"),
        *(tuple(_row(specimen)) for specimen in specimens),
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        name, kind, *numbers = zip(row, widths, strict=True)
        cells = [cell.ljust(width) for cell, width in (name, kind)]
        cells += [cell.rjust(width) for cell, width in numbers]
        print("  ".join(cells).rstrip())
    return not any("no" in row[2:] for row in rows)


def main() -> int:
    """Print the table of all."""
    nothing_missed = print_table(ZOO)
    print()
    print(
        f"{len(ZOO)} bugs, each with a corrected twin. In rows marked *, every task is also "
        "cancelled"
    )
    print("once at each await point (dpor cannot do that). Two numbers are asyncio's / trio's.")
    return 0 if nothing_missed else 1


def _row(specimen: Specimen) -> Iterator[str]:
    yield specimen.name + (" *" if specimen.cancel else "")
    yield specimen.kind
    for strategy in ("exhaustive", "dpor"):
        if strategy == "dpor" and specimen.cancel:
            yield from ("", "")
            continue
        yield _numbers(
            str(bug.failures[0].found_at) if bug.failures else "no"
            for bug in (specimen.explore_bug(it, strategy) for it in specimen.backends)
        )
        yield _numbers(
            str(twin.executions) if twin.complete and not twin.failures else "no"
            for twin in (specimen.explore_twin(it, strategy) for it in specimen.backends)
        )


def _numbers(cells: Iterator[str]) -> str:
    return " / ".join(dict.fromkeys(cells))


if __name__ == "__main__":
    sys.exit(main())
