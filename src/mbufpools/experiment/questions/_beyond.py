"""Question g: beyond the thread, how long idle pages stay, and the incident."""

from __future__ import annotations

from mbufpools.demokit import Table

from .._intervals import median
from .._kernels import CPUS
from .._results import Cell, Results
from ._incidents import (
    INCIDENT_CELLS,
    VARIED_CELLS,
    at_the_limit,
    changed,
    incident_cell,
    incident_notes,
    incident_tables,
)
from ._question import Question, given, kernel, mean, memory, seconds

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

    cells = [incident_cell(name, 0) for name in ("as it is", "patch", "patch + curpage")]
    done = [mean(results, cell, "done_after") for cell in cells]
    pair = [incident_cell(name, CPUS) for name in ("as it is", "patch")]
    told = (
        f"{done[0]:,.0f} as it is, {done[1]:,.0f} patched, {done[2]:,.0f} with "
        f"patch + curpage; with caches the patch changes {changed(results, *pair)}."
    )
    if not at_the_limit(results, (*cells, *pair)):
        told = f"{done[0]:,.0f} under each kernel, as the limit was never reached."
    return (
        f"Half of 256 idle pages stay {text(plain)}, {text(cached)} with caches; requests done "
        f"afterwards: {told}"
    )


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
