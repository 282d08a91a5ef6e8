"""Question a: does the patch cure the stall, and all of it?"""

from __future__ import annotations

import math

from mbufpools.demokit import Table, conjunction

from .._faults import FAULTS, SPIN
from .._intervals import spread
from .._kernels import CPUS
from .._results import Cell, Results
from ._question import Question, given, kernel, mean, never, percent, seconds

__all__ = [
    "CACHED",
    "COLD",
    "CURE",
    "HIDDEN",
    "ORDERS",
    "PAGES",
    "POOLS",
    "cold_never",
    "same_with_caches",
]

POOLS = ("mbufpl", "mcl2k", "mcl9k", "mcl64k")
PAGES = (1, 16, 256, 4096)
HIDDEN = tuple(
    Cell.of("hidden", kernel(name), pool=pool, pages=pages)
    for name in ("patch", "patch + curpage")
    for pool in POOLS
    for pages in PAGES
)
ORDERS = tuple(
    Cell.of("hidden", kernel("patch"), pool="mcl2k", pages=256, **more)
    for more in (
        {"sleepers": 8},
        {"sleepers": 200},
        {"order": "first"},
        {"order": "last"},
    )
)
CACHED = tuple(
    Cell.of("hidden", kernel("patch", CPUS), pool="mcl2k", pages=256, **more)
    for more in ({}, {"order": "first"}, {"order": "last"})
)
"""The same with per-CPU caches: the first sleeper, in each order."""
COLD = tuple(
    Cell.of("cold", kernel(name, caches), request=request, load=load)
    for name, caches in (
        ("as it is", 0),
        ("patch", 0),
        ("direct", 0),
        ("wanted", 0),
        ("as it is", 8),
        ("patch", 8),
        ("depots", 8),
        ("depots + patch", 8),
        ("drained", 8),
        ("drained + patch", 8),
        ("drained + patch + curpage", 8),
    )
    for request in ("bpf", "nfs")
    for load in (0, 30, 100)
)


def _cure_tables(results: Results) -> list[Table]:
    shares = Table(
        {
            "pool": "pool",
            "pages": "pages",
            "calculated": "calculated\n%",
            "stale": "patch:\n% put",
            "fresh": "with curpage:\n% put",
        },
        title="Hidden items: share of a full pool's items that are put until one sleeper is served",
        right=("calculated",),
    )
    for stale, fresh in zip(HIDDEN[: len(HIDDEN) // 2], HIDDEN[len(HIDDEN) // 2 :], strict=True):
        shares.add(
            pool=given(results, stale)["pool"],
            pages=given(results, stale)["pages"],
            calculated=f"{100 * _calculated(results, stale):.0f}",
            stale=percent(results.values(stale, "share")),
            fresh=", ".join(sorted({f"{put} put" for put in results.values(fresh, "put")})),
        )
    orders = Table(
        {"variant": "variant", "share": "patch:\n% put", "refused": "tries refused\nmeanwhile, %"},
        title="The same for mcl2k, 256 pages, with other sleepers and orders of the puts",
    )
    base = Cell.of("hidden", kernel("patch"), pool="mcl2k", pages=256)
    names = ["1 sleeper, random", "8 sleepers", "200 sleepers", "first taken, first put", "last"]
    names += [f"{names[at]}, caches" for at in (0, 3, 4)]
    for name, cell in zip(names, (base, *ORDERS, *CACHED), strict=True):
        runs = results.all(cell)
        orders.add(
            variant=name,
            share=spread([100 * run["share"] for run in runs]),
            refused=percent([run["refused"] / max(1, run["tries"]) for run in runs]),
        )
    cold = Table(
        {
            "kernel": "kernel",
            "caches": "caches",
            **{
                f"{request} {load}": f"{label}\nload {load} %"
                for request, label in (("bpf", "9k"), ("nfs", "2k"))
                for load in (0, 30, 100)
            },
        },
        title="Cold pool: median seconds that a get sleeps in an empty pool "
        f"({given(results, COLD[0])['horizon']:g} s are simulated)",
    )
    for group in range(0, len(COLD), 6):
        cells = COLD[group : group + 6]
        cold.add(
            kernel=cells[0].kernel.name,
            caches=results.measured(cells[0]).kernel.caches > 0,
            **{
                f"{cell.parameters['request']} {cell.parameters['load']}": seconds(
                    results.values(cell, "served_after")
                )
                for cell in cells
            },
        )
    return [shares, orders, cold]


def share_until_a_page_is_empty(items: int, pages: int) -> float:
    """The mean share of all items that are put, in random order, until some page has got all its
    `items` back.

    Let each item be put at a random time from 0 to 1. Then at the time `f` no page has all its
    items with probability ``(1 - f**items)**pages``; the integral over `f` is the mean time at
    which one has. Of n items, the k-th is put at k / (n + 1) on average.
    """
    part, all_items = 1 / items, items * pages
    mean_time = math.exp(
        math.lgamma(1 + part) + math.lgamma(pages + 1) - math.lgamma(pages + 1 + part)
    )
    return mean_time * (all_items + 1) / all_items


def _calculated(results: Results, cell: Cell) -> float:
    pages = int(given(results, cell)["pages"])
    return share_until_a_page_is_empty(results.values(cell, "items")[0] // pages, pages)


def cold_never(results: Results, name: str, caches: int) -> tuple[int, int]:
    """How many cold gets were not served under a kernel, and of how many."""
    values = [
        value
        for cell in COLD
        if cell.kernel == kernel(name, caches)
        for value in results.values(cell, "served_after")
    ]
    return never(values), len(values)


def _cure_verdict(results: Results) -> str:
    stale = mean(results, Cell.of("hidden", kernel("patch"), pool="mcl2k", pages=256), "share")
    fresh = max(
        put
        for cell in HIDDEN
        if cell.kernel == kernel("patch + curpage")
        for put in results.values(cell, "put")
    )
    alone, of = cold_never(results, "patch", 0)
    cached, _ = cold_never(results, "patch", 8)
    horizon = given(results, COLD[0])["horizon"]
    cured = stale < 0.01 and not alone and not cached
    return (
        f"{'Yes' if cured else 'Not all of it'}: with the patch {stale:.0%} of a 2k pool is put "
        f"before a sleeper is served (curpage line: {fresh} put); cold gets asleep "
        f"after {horizon:g} s: {alone} of {of}, with caches {cached}; without page headers its "
        "task spins."
    )


def same_with_caches(results: Results) -> bool:
    """True if per-CPU caches change nothing of the hidden items, in any run."""
    alone = [Cell.of(cell.workload, kernel(cell.kernel.name), **cell.parameters) for cell in CACHED]
    pairs = zip(alone, CACHED, strict=True)
    return all(results.all(one) == results.all(other) for one, other in pairs)


HOW = (
    "Hidden items: all items of a pool are out and the budget is full; processes sleep; the items "
    "are put back one by one, and after each put one get without waiting is tried. Cold pool: the "
    "budget is full of receive clusters, of which a share is in use again and again; after one "
    "second one process asks an empty pool for a 9k cluster (bpf_movein), or for a 2k cluster with "
    "an mbuf in its hand (nfsm_reqhead)."
)


CURE = Question(
    "a",
    "cure",
    "Does the patch cure the stall, and all of it?",
    (*HIDDEN, *ORDERS, *CACHED, *COLD),
    _cure_tables,
    _cure_verdict,
    lambda results: HOW,
    lambda results: (
        "Calculated: as long as the pool sees no free item, a sleeper is served when some page has "
        "got all its items back. If a page has n items, a share f of all is put at random and the "
        "pool has p pages, none has with probability (1 - f^n)^p; the column is the mean.",
        *(
            [
                "With caches each run hides the same items: while a request waits, pool_put passes "
                "the caches over."
            ]
            if same_with_caches(results)
            else []
        ),
        f"The faults of the patch ({conjunction(list(FAULTS))}) are no part of these loads; "
        f"`mbufpools smp NAME` has a schedule of each. {SPIN}",
    ),
)
