"""Question g: beyond the thread, how long idle pages stay, and the incident."""

from __future__ import annotations

import statistics

from mbufpools.demokit import Table

from .._intervals import median
from .._kernels import CPUS
from .._results import Cell, Results
from ._incidents import (
    INCIDENT_CELLS,
    VARIED_CELLS,
    at_the_limit,
    changed,
    hanging,
    hung,
    incident_cell,
    incident_notes,
    incident_tables,
)
from ._question import Question, given, kernel, memory, seconds

__all__ = ["BEYOND", "IDLE"]

IDLE = tuple(
    Cell.of("idle", kernel(name, caches), **parameters)
    for name, caches, parameters in (
        ("as it is", 0, {"pool": "mbufpl", "items": 4096}),
        ("as it is", 8, {"pool": "mbufpl", "items": 4096, "horizon": 4500.0}),
        ("as it is", 8, {"pool": "mbufpl", "items": 4096, "horizon": 4500.0, "trim": 10.0}),
        ("as it is", 0, {"pool": "mbufpl", "items": 4096, "trim": 10.0}),
        ("as it is", 8, {"pool": "mcl64k", "items": 64, "horizon": 4500.0}),
        (
            "as it is",
            8,
            {"pool": "mbufpl", "items": 16384, "shuffled": True, "horizon": 20000.0},
        ),
        ("patch + pressure", 0, {"pool": "mbufpl", "items": 4096}),
        ("as it is", 0, {"pool": "mcl64k", "items": 64}),
        (
            "as it is",
            0,
            {"pool": "mbufpl", "items": 16384, "shuffled": True, "horizon": 4500.0},
        ),
    )
)


def _beyond_tables(results: Results) -> list[Table]:
    idle = Table(
        {
            "what": "what is put",
            "kernel": "kernel",
            "caches": "caches",
            "trim": "trim\neach",
            "1": "1 %\n(s)",
            "50": "50 %\n(s)",
            "90": "90 %\n(s)",
            "100": "100 %\n(s)",
        },
        title="Idle pages: seconds until so many have left; nothing else happens",
    )
    for cell in IDLE:
        parameters = cell.parameters
        order = "random" if parameters.get("shuffled") else "in order"
        idle.add(
            what=f"{parameters['items']:,} of {parameters['pool']}, {order}",
            kernel=cell.kernel.name,
            caches=cell.kernel.caches > 0,
            trim=f"{parameters['trim']:g} s" if "trim" in parameters else "-",
            **{
                str(part): seconds(results.values(cell, f"left_{part}"))
                for part in (1, 50, 90, 100)
            },
        )
    return [idle, *incident_tables(results)]


def _beyond_verdict(results: Results) -> str:
    plain, cached = (median(results.values(IDLE[at], "left_50")) for at in (0, 1))

    def text(value: float | None) -> str:
        longest = max(given(results, cell)["horizon"] for cell in IDLE[:2])
        return f"over {longest:,g} s" if value is None else f"{value:,.0f} s"

    pairs = [
        [incident_cell(name, caches) for name in ("as it is", "patch")] for caches in (0, CPUS)
    ]
    told = f"{_incident(results, *pairs[0])}; with caches the patch changes "
    told += f"{changed(results, *pairs[1])}."
    if not at_the_limit(results, (*pairs[0], *pairs[1])):
        told = "in the incident the limit was never reached."
    return f"Half of 256 idle pages stay {text(plain)}, with caches {text(cached)}; {told}"


def _incident(results: Results, one: Cell, other: Cell) -> str:
    """What the patch does to the incident: to the runs that hang as it is, and to the rest."""
    stuck = hung(results, one)
    done = [results.values(cell, "done_after") for cell in (one, other)]

    def of(kind: bool) -> str:
        medians = (
            statistics.median_low([it for it, at in zip(each, stuck, strict=True) if at is kind])
            for each in done
        )
        return " → ".join(f"{found:,}" for found in medians)

    told = f"incidents hang in {hanging(results, one)}, patched in {sum(hung(results, other))} ("
    if any(stuck):
        told += f"{of(True)} requests" + ("" if all(stuck) else f", else {of(False)}")
        return f"{told})"
    return f"{told}{of(False)} requests)"


def _how(results: Results) -> str:
    load = given(results, INCIDENT_CELLS[0])
    full = at_the_limit(results, INCIDENT_CELLS)
    return (
        "Idle pages: items are taken, put back, each on any CPU, and then nothing happens. Trim "
        "frees every idle page of every pool each ten seconds; reclaim under pressure does nothing "
        f"here, because nobody waits. The incident: receive rings, {load['senders']} senders, "
        f"{load['nfs']} NFS clients; {load['hogs']:,} hogs {'fill' if full else 'do not fill'} the "
        f"budget of {memory(load['nmbclust'])} with data that nobody reads for "
        f"{load['resume'] - load['stop']:g} seconds; then the peers read, {load['small']} small "
        "senders come, and each second a process asks for a 9k cluster."
    )


BEYOND = Question(
    "g",
    "beyond",
    "How long do idle pages stay, and what becomes of an incident under each kernel?",
    (*IDLE, *INCIDENT_CELLS, *VARIED_CELLS),
    _beyond_tables,
    _beyond_verdict,
    _how,
    incident_notes,
    relabelled=("incident.nmbclust", "incident.hogs"),
)
