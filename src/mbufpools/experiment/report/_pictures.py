"""A picture for each question, drawn from the same figures as its table."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .._intervals import median
from .._results import Results
from ..questions._backlog import BACKLOGS, BLOCKED, BLOCKS
from ..questions._beyond import IDLE
from ..questions._cure import HIDDEN, POOLS
from ..questions._grab import DELAYS, GRABBERS, GRABS, sleepers_share
from ..questions._incidents import FOUR, INCIDENT_CELLS, incident_cell
from ..questions._margin import MARGIN_CELLS, MARGINS
from ..questions._page import SHOWN
from ..questions._question import given, mean, typical
from ..questions._ratio import RATIOS
from ..questions._wakeups import STORMS, price
from ._drawing import COLOURS, INK, figure, style, svg

__all__ = ["PICTURES"]

MARKERS = "osD^vP*"


def _drawn(draw: Callable[[Results], Any], name: str) -> Callable[[Results], str]:
    def picture(results: Results) -> str:
        with style():
            return svg(draw(results), name)

    return picture


def _median_by_second(rows: Iterable[list[int]]) -> list[float]:
    return [statistics.median_low(column) for column in zip(*rows, strict=False)]


def _bars(axes: Any, names: Any, rows: Sequence[Sequence[float]], **look: Any) -> None:
    """Draw a bar to the median of each row, with a line from its least to its most."""
    medians = [statistics.median_low(row) for row in rows]
    ranges = [
        [middle - min(row) for middle, row in zip(medians, rows, strict=True)],
        [max(row) - middle for middle, row in zip(medians, rows, strict=True)],
    ]
    axes.barh(names, medians, xerr=ranges, error_kw={"ecolor": INK, "lw": 0.8}, **look)


def _page(results: Results) -> Any:
    made, axes = figure(2, height=3.4)
    for number, name in enumerate(FOUR):
        cell = incident_cell(name, 8)
        for at, field in enumerate(("asleep_by_second", "refused_by_second")):
            values = _median_by_second(results.values(cell, field))
            dashes = "--" if name == "patch" else "-"
            axes[at].plot(
                range(1, len(values) + 1), values, dashes, label=SHOWN[name], color=COLOURS[number]
            )
    axes[0].set_title("Asleep at the end of each second, median (grey: nobody reads)")
    axes[1].set_title("M_DONTWAIT gets refused in each second, median")
    load = given(results, INCIDENT_CELLS[0])
    for each in axes:
        each.set_xlabel("seconds of virtual time")
        each.set_ylim(bottom=0)
        each.axvspan(load["stop"], load["resume"], color=INK, alpha=0.06, lw=0)
    axes[1].legend(fontsize=9)
    return made


def _cure(results: Results) -> Any:
    made, axes = figure()
    for number, pool in enumerate(POOLS):
        cells = [
            cell
            for cell in HIDDEN
            if cell.parameters["pool"] == pool and cell.kernel.name == "patch"
        ]
        pages = [cell.parameters["pages"] for cell in cells]
        shares = [100 * mean(results, cell, "share") for cell in cells]
        axes.plot(pages, shares, marker=MARKERS[number], label=f"{pool}, with the patch")
    cured = [cell for cell in HIDDEN if cell.kernel.name != "patch"]
    pages = sorted({cell.parameters["pages"] for cell in cured})
    shares = [
        max(100 * mean(results, cell, "share") for cell in cured if cell.parameters["pages"] == it)
        for it in pages
    ]
    axes.plot(pages, shares, "--", color=INK, label="every pool, with the curpage line")
    axes.set_xscale("log", base=2)
    axes.set_xticks([1, 16, 256, 4096], ["1", "16", "256", "4,096"])
    axes.set_xlabel("pages of the pool")
    axes.set_ylabel("% of its items")
    axes.set_ylim(0, 105)
    axes.set_title("Items that are put until the first sleeper is served")
    axes.legend(fontsize=9)
    return made


def _grab(results: Results) -> Any:
    made, axes = figure()
    places = range(len(DELAYS))
    for number, name in enumerate(GRABBERS):
        cells = [cell for cell in GRABS if cell.kernel.name == name]
        values = [sum(it := sleepers_share(results, cell)) / len(it) * 100 for cell in cells]
        axes.plot(places, values, marker=MARKERS[number], label=name, alpha=0.85)
    axes.set_xticks(places, [f"{1000 * delay:g} ms" for delay in DELAYS])
    axes.set_xlabel("work on systqmp before the wakeup")
    axes.set_ylabel("% of freed pages")
    axes.set_ylim(-4, 104)
    axes.set_title("Freed pages that sleepers get")
    axes.legend(fontsize=9)
    return made


def _backlog(results: Results) -> Any:
    made, axes = figure(2)
    places = range(len(BLOCKS))
    for number, name in enumerate(BLOCKED):
        cells = [cell for cell in BACKLOGS if cell.kernel.name == name]
        for at, field in enumerate(("sleeper_seconds", "at_end")):
            values = [typical(results, cell, field) for cell in cells]
            axes[at].plot(places, values, marker=MARKERS[number], label=name, alpha=0.85)
    for each in axes:
        each.set_xticks(places, [f"{1000 * block:g}" for block in BLOCKS])
        each.set_xlabel("ms that systqmp is blocked each second")
        each.set_ylim(bottom=0)
    load = given(results, BACKLOGS[0])
    slept = f"Seconds slept by {load['processes']} processes in {load['end']:g} s, median"
    axes[0].set_title(slept)
    axes[1].set_title("Processes asleep at the end, median")
    axes[1].legend(fontsize=8)
    return made


def _wakeups(results: Results) -> Any:
    made, axes = figure(height=2.8)
    names = [f"{cell.kernel.name}, {cell.parameters['sleepers']} asleep" for cell in STORMS]
    values = [sum(it := price(results, cell)) / len(it) for cell in STORMS]
    axes.barh(names, values, color=COLOURS[0], height=0.6)
    axes.invert_yaxis()
    axes.set_xlabel("µs of CPU time a second of the storm, at most (1,000 is 0.1 % of a CPU)")
    axes.set_title("What wakeups cost in a storm of freed pages")
    axes.grid(axis="y", visible=False)
    return made


def _margin(results: Results) -> Any:
    made, axes = figure()
    top = 50.0
    for number, (request, label) in enumerate(
        (("nfs", "2k, page 16 KiB"), ("bpf", "9k, page 128 KiB"), ("64k", "64k, page 512 KiB"))
    ):
        cells = [
            cell
            for cell in MARGIN_CELLS
            if cell.parameters["request"] == request and cell.kernel.margin is not None
        ]
        values = [median(results.values(cell, "served_after")) for cell in cells]
        shown = [top + number if value is None else value for value in values]
        axes.plot(range(len(MARGINS)), shown, marker=MARKERS[number], label=label)
    axes.axhspan(top - 3, top + 6, color=INK, alpha=0.08, lw=0)
    axes.text(len(MARGINS) - 1, top, "never", va="center", ha="right")
    axes.set_xticks(range(len(MARGINS)), [f"{margin // 1024:,}" for margin in MARGINS])
    axes.set_xlabel("margin (KiB)")
    axes.set_ylabel("seconds")
    axes.set_ylim(0, top + 6)
    axes.set_title("near-limit: seconds until a get in a cold pool is served")
    axes.legend(fontsize=9, loc=(0.02, 0.3))
    return made


def _ratio(results: Results) -> Any:
    made, axes = figure(height=2.8)
    names = []
    for number, (before, patch) in enumerate(zip(RATIOS[::2], RATIOS[1::2], strict=True)):
        caches = ", caches" if before.kernel.caches else ""
        names.append(f"nmbclust {before.parameters['nmbclust']}{caches}")
        for shift, cell in ((-0.2, before), (0.2, patch)):
            _bars(
                axes,
                [number + shift],
                [results.values(cell, "sleeper_seconds")],
                height=0.36,
                color=COLOURS[0 if shift < 0 else 1],
                label=cell.kernel.name if number == 0 else None,
            )
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    seconds = given(results, RATIOS[0])["end"]
    axes.set_xlabel(f"seconds slept by all in {seconds:g} seconds")
    axes.set_title("Does the policy matter? (median of the runs; line: all runs)")
    axes.legend(fontsize=9)
    return made


DRAWN = (*FOUR, "patch + curpage", "patch + fifo", "patch + pressure", "drained", "drained + patch")
"""The kernels whose bars are drawn; the table has all."""


def _beyond(results: Results) -> Any:
    made, axes = figure(2, height=4.8)
    parts = (1, 50, 90, 100)
    for number, cell in enumerate(IDLE[: len(MARKERS) - 1]):
        times = [median(results.values(cell, f"left_{part}")) for part in parts]
        points = [(time, part) for time, part in zip(times, parts, strict=True) if time is not None]
        parameters = cell.parameters
        label = f"{parameters['items']:,} {parameters['pool']}"
        label += ", random" if parameters.get("shuffled") else ""
        label += ", caches" if cell.kernel.caches else ""
        label += ", trim" if parameters.get("trim") else ""
        if not points:
            points, label = [(float("nan"), 0)], f"{label}: never"
        axes[0].plot(*zip(*points, strict=True), marker=MARKERS[number], label=label)
    axes[0].set_xscale("log")
    axes[0].set_xlabel("seconds")
    axes[0].set_ylabel("% of the pages")
    axes[0].set_title("Idle pages that have left")
    made.legend(fontsize=8, loc="outside lower left", ncols=3)
    names, done = [], []
    for cell in INCIDENT_CELLS:
        if cell.kernel.name not in DRAWN:
            continue
        names.append(cell.kernel.name + (", caches" if cell.kernel.caches else ""))
        done.append(results.values(cell, "done_after"))
    _bars(axes[1], names, done, height=0.6, color=COLOURS[0])
    axes[1].invert_yaxis()
    axes[1].tick_params(axis="y", labelsize=8)
    axes[1].set_xlabel("requests")
    axes[1].set_title("Requests done afterwards (line: all runs)")
    axes[1].grid(axis="y", visible=False)
    return made


PICTURES: dict[str, Callable[[Results], str]] = {
    name: _drawn(draw, name)
    for name, draw in {
        "page": _page,
        "cure": _cure,
        "grab": _grab,
        "backlog": _backlog,
        "wakeups": _wakeups,
        "margin": _margin,
        "ratio": _ratio,
        "beyond": _beyond,
    }.items()
}
"""For each question, the function that draws its picture as SVG."""
