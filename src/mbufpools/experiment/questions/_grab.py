"""Question b: does a sleeper or a newcomer take a freed page?"""

from __future__ import annotations

from mbufpools.demokit import Table

from .._intervals import middle
from .._results import Cell, Results
from ._question import Question, given, kernel, percent

__all__ = ["DELAYS", "GRAB", "GRABBERS", "GRABS", "sleepers_share"]

DELAYS = (0.0, 0.001, 0.01, 0.1)
GRABBERS = ("as it is", "patch", "patch + own queue", "patch + fifo", "direct", "wanted")
GRABS = tuple(Cell.of("grab", kernel(name), delay=delay) for name in GRABBERS for delay in DELAYS)


def sleepers_share(results: Results, cell: Cell) -> list[float]:
    return [
        run["taken_by_sleeper"] / max(1, run["taken_by_sleeper"] + run["taken_by_newcomer"])
        for run in results.all(cell)
    ]


def _grab_tables(results: Results) -> list[Table]:
    table = Table(
        {
            "kernel": "kernel",
            **{f"{delay:g}": f"{1000 * delay:g} ms" for delay in DELAYS},
            "served": "sleepers served\nat 10 ms",
        },
        title="Share of freed pages that sleepers get, in %, as other work on systqmp delays the "
        "wakeup",
    )
    for name in GRABBERS:
        cells = [cell for cell in GRABS if cell.kernel.name == name]
        late = next(cell for cell in cells if cell.parameters["delay"] == 0.01)
        table.add(
            kernel=name,
            **{
                f"{cell.parameters['delay']:g}": percent(sleepers_share(results, cell))
                for cell in cells
            },
            served=middle([run["slept"] - run["never"] for run in results.all(late)]),
        )
    return [table]


def _grab_verdict(results: Results) -> str:
    share = {
        (name, delay): sum(found := sleepers_share(results, cell)) / len(found)
        for name in GRABBERS
        for delay in DELAYS
        for cell in [Cell.of("grab", kernel(name), delay=delay)]
    }
    prompt, late, later = (share["patch", delay] for delay in (0.0, 0.01, 0.1))
    if not any(
        run["taken_by_sleeper"] or run["taken_by_newcomer"]
        for cell in GRABS
        for run in results.all(cell)
    ):
        return "In these runs no freed page was taken, so there is nothing to compare."
    real = late < prompt - 0.05
    return (
        f"{'Yes, if the task is late' if real else 'No'}: the patch gives sleepers {prompt:.0%} of "
        f"the freed pages if its task runs at once, {late:.0%} 10 ms late, {later:.0%} 100 ms "
        f"late; direct {share['direct', 0.1]:.0%}, FIFO {share['patch + fifo', 0.1]:.0%}, "
        f"unpatched {share['as it is', 0.0]:.0%}."
    )


def _how(results: Results) -> str:
    load = given(results, GRABS[0])
    return (
        f"The gc frees one idle page a second. {load['sleepers']:,} processes sleep for 4k "
        f"clusters, whose page is as large as those that leave. {load['rate']:g} newcomers a "
        "second try for a 4k cluster or an mbuf. Work of the stated length stands before the "
        "wakeup task on systqmp whenever a page leaves."
    )


GRAB = Question(
    "b",
    "grab",
    "Is the memory grabbed by some other pool before the wakeup makes it through?",
    GRABS,
    _grab_tables,
    _grab_verdict,
    _how,
    lambda results: ("A page counts for the request that takes the last of its bytes.",),
)
