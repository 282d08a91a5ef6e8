"""Question f: how many puts are there to a freed page?"""

from __future__ import annotations

from mbufpools.demokit import Table, plural

from .._intervals import middle
from .._measured import PUTS_TO_A_PAGE
from .._results import Cell, Results
from ._question import Question, given, kernel, typical

__all__ = ["RATIO", "RATIOS", "hardly_a_page", "puts_to_a_page"]

BUDGETS = (8192, 3072, 2816)
RATIOS = tuple(
    Cell.of("load", kernel(name, caches), nmbclust=nmbclust)
    for caches in (0, 8)
    for nmbclust in BUDGETS
    for name in ("as it is", "patch")
)


CACHED = "caches, light load"
"""The measurement on the kernel's own code that the author's estimate is compared with."""
RARE = 5
"""With fewer pages than this, in all runs of a load together, the ratio is left out."""


def _freed(results: Results, cell: Cell) -> tuple[int, int]:
    """The pages that were freed in all runs of a load together, and the number of runs."""
    pages = results.values(cell, "pages_freed")
    return sum(pages), len(pages)


def _ratio(results: Results, cell: Cell) -> float | None:
    """The puts to a freed page; None if hardly a page was freed."""
    pages, _ = _freed(results, cell)
    return sum(results.values(cell, "puts")) / pages if pages >= RARE else None


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
        title="Load without an incident: puts to page frees, and seconds slept by all, in "
        f"{given(results, RATIOS[0])['end']:g} s",
        right=("ratio",),
    )
    for before, patch in zip(RATIOS[::2], RATIOS[1::2], strict=True):
        ratio = _ratio(results, before)
        table.add(
            caches=before.kernel.caches > 0,
            nmbclust=before.parameters["nmbclust"],
            puts=middle(results.values(before, "puts")),
            freed=middle(results.values(before, "pages_freed")),
            ratio=_pages(*_freed(results, before)) if ratio is None else f"{ratio:,.0f}",
            before=middle(results.values(before, "sleeper_seconds"), "{:.1f}"),
            patch=middle(results.values(patch, "sleeper_seconds"), "{:.1f}"),
        )
    return [table]


def _pages(pages: int, runs: int) -> str:
    return f"{pages or 'none'} in {plural(runs, 'run')}"


def _loads(results: Results, caches: bool) -> tuple[list[float], list[tuple[int, int]]]:
    """The ratios of the loads, with caches or without, that have one; of the others the pages freed
    and the runs."""
    ratios, rare = list[float](), list[tuple[int, int]]()
    for before in RATIOS[::2]:
        if (before.kernel.caches > 0) is not caches:
            continue
        ratio = _ratio(results, before)
        if ratio is None:
            rare.append(_freed(results, before))
        else:
            ratios.append(ratio)
    return ratios, rare


def puts_to_a_page(results: Results) -> str:
    """The puts to a freed page in the model, as a part of a sentence."""
    told: list[str] = []
    for caches, name in ((False, "without caches"), (True, "with caches")):
        ratios, _ = _loads(results, caches)
        if ratios:
            ends = dict.fromkeys(f"{end:,.0f}" for end in (min(ratios), max(ratios)))
            told.append(f"{' to '.join(ends)} {'' if told else 'puts a page '}{name}")
    return ", ".join(told) or hardly_a_page(results)


def hardly_a_page(results: Results) -> str:
    """The loads that free too few pages for a ratio, as a part of a sentence; "" if none does."""
    rare = [counts for caches in (False, True) for counts in _loads(results, caches)[1]]
    if not rare:
        return ""
    pages, runs = (sum(counts) for counts in zip(*rare, strict=True))
    freed = plural(pages, "page") if pages else "no page"
    return f"{plural(len(rare), 'light load')} freed {freed} in {plural(runs, 'run')}"


def _ratio_verdict(results: Results) -> str:
    kinds = [_loads(results, caches) for caches in (False, True)]
    ratios = [ratio for some, _ in kinds for ratio in some]
    rare = any(left_out for _, left_out in kinds)
    matters = 0
    for before, patch in zip(RATIOS[::2], RATIOS[1::2], strict=True):
        slept = [typical(results, cell, "sleeper_seconds") for cell in (before, patch)]
        if max(slept) > 1.0 and abs(slept[1] - slept[0]) > 0.1 * max(slept):
            matters += 1
    few, many_puts = (puts / 1e6 for puts in PUTS_TO_A_PAGE[CACHED])
    if not ratios or min(ratios) >= 1e6:
        many = "Yes"
    elif rare or max(ratios) >= 1e6:
        many = "It depends on the load"
    else:
        many = "No"
    effect = f"in {matters} of {len(RATIOS) // 2}" if matters else "in none"
    return (
        f"{many}: {puts_to_a_page(results)}; on the real code, with caches, {few:g} to "
        f"{many_puts:g} million; the patch changes sleep by over 10 % {effect}."
    )


def _how(results: Results) -> str:
    load = given(results, RATIOS[0])
    return (
        "The receive rings, senders and NFS of the incident, where a sender thinks for "
        f"{1000 * load['think']:g} ms, without hogs, for {load['end']:g} seconds, with less and "
        "less memory. Where hardly a page leaves, the ratio grows with the length of the run and "
        "has no meaning; the table has the pages of all runs there."
    )


RATIO = Question(
    "f",
    "ratio",
    "Are there many millions of puts to one freed page, so that nothing here matters?",
    RATIOS,
    _ratio_tables,
    _ratio_verdict,
    _how,
    lambda results: (
        "Measured on the kernel's own code, puts to a freed page: "
        + "; ".join(f"{name}: {few:,} to {many:,}" for name, (few, many) in PUTS_TO_A_PAGE.items())
        + ".",
    ),
    fixed=("load.hogs",),
)
