"""``mbufpools stat``: the end state of a demo, as the kernel's own tools would print it.

The first block has the lines of ``netstat -m``, the second the columns of ``vmstat -m``. As in
those tools, a pool that was never asked is left out. *Denied* are the page requests that the
budget refused, *delayed* the gets that slept. The kernel always prints 0 for those delayed, because
nothing there increments the counter (``mbs_wait``).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from mbufpools import PoolsStatistics
from mbufpools.demokit import Parser, plural

from . import _demos

__all__ = ["add_to", "asleep", "netstat", "run", "vmstat"]


def add_to(commands: argparse._SubParsersAction[Parser]) -> None:
    """Add the verb to the command line."""
    parser = commands.add_parser(
        "stat",
        help="run a demo and print its counters as netstat -m and vmstat -m do",
        description="Run a demo (by default the stall) and print its counters as netstat -m and "
        "vmstat -m do. Requests delayed are the gets that slept; the kernel does not count them, "
        "and always prints 0.",
    )
    _demos.add_demo_arguments(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the demo that was named, by default the stall, and print its counters. Returns 0."""
    demo = _demos.find_demo(arguments.name or "stall")
    statistics = demo.end_state(_demos.demo_options(arguments), prog=_demos.command(arguments))
    if arguments.json:
        sys.stdout.write(json.dumps(_plain(statistics)) + "\n")
        return 0
    for line in (*netstat(statistics), "", *vmstat(statistics), "", *asleep(statistics)):
        sys.stdout.write(line + "\n")
    return 0


def netstat(statistics: PoolsStatistics) -> Iterator[str]:
    """The lines of ``netstat -m``."""
    kind = "mbuf {} byte clusters" if "mbufpl" in statistics.pools else "buffers of {} bytes"
    for pool in statistics.pools.values():
        if pool.name == "mbufpl":
            yield f"{plural(pool.in_use, 'mbuf')} in use"
        else:
            peak = pool.hiwat * pool.items_per_page
            yield f"{pool.in_use}/{peak} {kind.format(pool.item_size)} in use (current/peak)"
    kbytes = (statistics.allocated, statistics.peak, statistics.limit)
    current, peak, limit = (nbytes // 1024 for nbytes in kbytes)
    yield f"{current}/{peak}/{limit} Kbytes allocated to network (current/peak/max)"
    yield f"{statistics.drops} requests for memory denied"
    yield f"{sum(pool.nwait for pool in statistics.pools.values())} requests for memory delayed"


def vmstat(statistics: PoolsStatistics) -> Iterator[str]:
    """The pool part of ``vmstat -m``."""
    pools = [pool for pool in statistics.pools.values() if pool.gets or pool.nwait or pool.nfail]
    width = max(10, *(len(pool.name) for pool in pools)) if pools else 10
    yield "Memory resource pool statistics"
    yield _row(
        width, "Name", "Size", "Requests", "Fail", "InUse",
        "Pgreq", "Pgrel", "Npage", "Hiwat", "Minpg", "Maxpg", "Idle",
    )  # fmt: skip
    for pool in pools:
        yield _row(
            width, pool.name, pool.item_size, pool.gets, pool.nfail, pool.in_use, pool.npagealloc,
            pool.npagefree, pool.npages, pool.hiwat, pool.min_pages, pool.max_idle_pages,
            pool.nidle,
        )  # fmt: skip
    in_use = sum(pool.in_use * pool.item_size for pool in statistics.pools.values())
    total = statistics.allocated
    yield ""
    yield (
        f"In use {in_use // 1024}K, total allocated {total // 1024}K; "
        f"utilization {100 * in_use / total if total else 0:.1f}%"
    )


def _row(width: int, name: str, *cells: str | int) -> str:
    widths = (6, 9, 5, 9, 6, 6, 6, 6, 6, 6, 5)
    return name.ljust(width) + "".join(
        f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True)
    )


def asleep(statistics: PoolsStatistics) -> Iterator[str]:
    """What the kernel's tools do not show: how many requests sleep, and how often pools were
    woken."""
    waiting = {pool.name: pool.waiting for pool in statistics.pools.values() if pool.waiting}
    where = ", ".join(f"{count} in {name}" for name, count in waiting.items())
    yield f"{plural(statistics.waiting, 'request')} asleep now" + (f" ({where})" if where else "")
    yield (
        f"{plural(statistics.wakeup_runs, 'run')} of the wakeup, "
        f"{plural(statistics.taskq.coalesced, 'add')} coalesced"
    )


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {
            field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)
        }
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    return value
