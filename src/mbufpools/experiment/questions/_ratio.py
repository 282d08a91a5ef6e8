"""Question f: how many puts are there to a freed page?"""

from __future__ import annotations

from mbufpools.demokit import Table

from .._results import Cell, Results
from ._question import Question, kernel, mean

__all__ = ["RATIO", "RATIOS"]

BUDGETS = (8192, 3072, 2816)
RATIOS = tuple(
    Cell.of("load", kernel(name, caches), nmbclust=nmbclust)
    for caches in (0, 8)
    for nmbclust in BUDGETS
    for name in ("as it is", "patch")
)


def _ratio(results: Results, cell: Cell) -> float | None:
    freed = mean(results, cell, "pages_freed")
    return mean(results, cell, "puts") / freed if freed else None


def _ratio_tables(results: Results) -> list[Table]:
    table = Table(
        {
            "caches": "caches",
            "nmbclust": "nmbclust",
            "puts": "puts",
            "freed": "pages\nfreed",
            "ratio": "puts to\na page",
            "before": "slept (s)\nas it is",
            "patch": "slept (s)\npatch",
        },
        title="Load without an incident: puts to page frees, and seconds slept by all, in 12 s",
        right=("freed", "ratio", "before", "patch"),
    )
    for before, patch in zip(RATIOS[::2], RATIOS[1::2], strict=True):
        ratio = _ratio(results, before)
        table.add(
            caches=before.kernel.caches > 0,
            nmbclust=before.parameters["nmbclust"],
            puts=round(mean(results, before, "puts")),
            freed=f"{mean(results, before, 'pages_freed'):.1f}",
            ratio="none freed" if ratio is None else f"{ratio:,.0f}",
            before=f"{mean(results, before, 'sleeper_seconds'):.1f}",
            patch=f"{mean(results, patch, 'sleeper_seconds'):.1f}",
        )
    return [table]


def _ratio_verdict(results: Results) -> str:
    ratios, matters = [], []
    for before, patch in zip(RATIOS[::2], RATIOS[1::2], strict=True):
        ratio = _ratio(results, before)
        if ratio is not None:
            ratios.append(ratio)
        slept = [mean(results, cell, "sleeper_seconds") for cell in (before, patch)]
        if max(slept) > 1.0 and abs(slept[1] - slept[0]) > 0.1 * max(slept):
            matters.append(ratio or 0.0)
    span = (
        " to ".join(dict.fromkeys(f"{end:,.0f}" for end in (min(ratios), max(ratios))))
        + " puts a freed page"
        if ratios
        else "no page freed"
    )
    nothing = sum(_ratio(results, cell) is None for cell in RATIOS[::2])
    effect = (
        f"the patch changes sleeping by over 10 % in {len(matters)} of {len(RATIOS) // 2} loads, "
        f"at {' and '.join(f'{it:,.0f}' for it in matters)} to 1"
        if matters
        else "the patch changes sleeping by over 10 % in none of the loads"
    )
    if not ratios or min(ratios) >= 1e6:
        many = "Yes"
    elif nothing or max(ratios) >= 1e6:
        many = "It depends on the load"
    else:
        many = "No"
    return (
        f"{many}: {span} in 12 s; in {nothing} of {len(RATIOS) // 2} loads no page left; {effect}."
    )


RATIO = Question(
    "f",
    "ratio",
    "Are there many millions of puts to one freed page, so that nothing here matters?",
    RATIOS,
    _ratio_tables,
    _ratio_verdict,
    "The receive rings, senders and NFS of the incident, with less think time and without hogs, "
    "for 12 seconds, with less and less memory. Where no page leaves, the ratio has no bound: it "
    "grows with the length of the run.",
)
