"""Runs the model of `mbufpools.smp` one operation after another, like the recordings of the kernel:
each operation and everything that it causes ends before the next begins."""

from __future__ import annotations

from typing import Any

from mbufpools import CurPage, Wakeup
from mbufpools.mbufs import LONG_MAX, MCLBYTES, NMBCLUSTERS
from mbufpools.smp import Rules
from mbufpools.smp._kernel import SECOND, Pool, Shape
from mbufpools.smp._model import Model
from mbufpools.smp._rules import Wakeup as Waking
from mbufpools.traces import Step, Trace

__all__ = ["SHAPES", "Sequence", "rules_of"]

SHAPES = tuple(
    Shape(name, page_size, per_page)
    for name, page_size, per_page in (
        ("mbufpl", 4096, 16),
        ("mcl2k", 16384, 8),
        ("mcl2k2", 32768, 15),
        ("mcl4k", 32768, 8),
        ("mcl8k", 65536, 8),
        ("mcl9k", 131072, 14),
        ("mcl12k", 131072, 10),
        ("mcl16k", 131072, 8),
        ("mcl64k", 524288, 8),
    )
)
"""The kernel's nine pools, in the order in which they are woken."""
UNLIMITED = 0xFFFFFFFF
ERANGE, EINVAL = 34, 22


def rules_of(wakeup: Wakeup, curpage: CurPage, **others: Any) -> Rules:
    """The rules of a recording; `others` are rules that differ only on several CPUs.

    A get that adds a page serves no request: neither the kernel nor the library does, and the
    recordings would show it.
    """
    margin = 2 * max(shape.page_size for shape in SHAPES) if wakeup is Wakeup.NEAR_LIMIT else None
    waking = Waking.DEFERRED if wakeup is Wakeup.NEAR_LIMIT else Waking(wakeup.value)
    return Rules(
        wakeup=waking,
        margin=margin,
        stale=curpage is CurPage.STALE,
        page_serves=False,
        **others,
    )


class Sequence:
    """The model, with the state after each operation in the form of a recording."""

    def __init__(self, rules: Rules, caches: int = 0) -> None:
        self.caches = caches
        self.model = Model(rules, SHAPES, NMBCLUSTERS * MCLBYTES, cpus=max(1, caches))
        self.kernel = self.model.kernel
        self.steps: list[Step] = []

    def perform(self, operation: str, *arguments: Any) -> Step:
        """Perform an operation, and record the state after it."""
        seen = len(self.kernel.granted)
        rv = self._perform(operation, arguments)
        self.model.processors.settle()
        now = self.kernel.now / SECOND
        state = {
            "t": now,
            "rv": rv,
            "granted": [[int(who), at / SECOND] for who, at in self.kernel.granted[seen:]],
            "mem_limit": self.kernel.mem_limit.value,
            "mem_alloc": self.kernel.mem_alloc.value,
            "drops": self.kernel.drops,
            "wakeup_runs": self.kernel.wakeup_runs,
            "pools": {pool.name: _counters(pool) for pool in self.kernel.pools},
        }
        if self.caches:
            state["caches"] = {pool.name: _caches(pool) for pool in self.kernel.pools}
        step = Step(len(self.steps) + 2, operation, arguments, state)
        self.steps.append(step)
        return step

    def _perform(self, operation: str, arguments: tuple[Any, ...]) -> int:
        perform, kernel = self.model.perform, self.kernel
        match operation, arguments:
            case (("get" | "try"), (pid, pool, *cpu)):
                process = self.model.process(str(pid))
                process.cpu = cpu[0] if cpu else 0
                perform(process.name, (operation, pool))
                return int(operation == "try" and bool(process.held))
            case "put", (pid, *cpu):
                process = self.model.process(str(pid))
                process.cpu = cpu[0] if cpu else 0
                pool, _ = process.held[-1]
                perform(str(pid), ("put", pool.name))
            case "advance", (seconds,):
                self.model.advance(round(seconds * SECOND))
            case "nmbclust", (clusters,):
                if not 0 < clusters <= LONG_MAX // MCLBYTES:
                    return ERANGE
                perform("0", ("nmbclust", clusters * MCLBYTES))
            case "hardlimit", (name, items):
                pool = kernel.pool(name)
                if items < pool.nout:
                    return EINVAL
                pool.hard_limit = None if items == UNLIMITED else items
            case "hiwat", (name, items):
                pool = kernel.pool(name)
                pool.maxpages = -(-items // pool.per_page)
            case "reclaim", (name,):
                before = kernel.pool(name).npagefree
                perform("0", ("reclaim", name))
                return int(kernel.pool(name).npagefree > before)
        return 0

    def trace(self, wakeup: Wakeup, curpage: CurPage) -> Trace:
        """All operations so far, as a recording."""
        return Trace("model", wakeup, curpage, tuple(self.steps), self.caches)


def _counters(pool: Pool) -> dict[str, int]:
    return {
        "nget": pool.nget,
        "nput": pool.nput,
        "nfail": pool.nfail,
        "nout": pool.nout,
        "npages": pool.npages,
        "nidle": pool.nidle,
        "npagealloc": pool.npagealloc,
        "npagefree": pool.npagefree,
        "hiwat": pool.hiwat,
        "waiting": pool.unserved,
    }


def _caches(pool: Pool) -> dict[str, Any]:
    return {
        "list": pool.depot.list_items,
        "depot": pool.depot.nitems,
        "cpus": [len(cache.lists) for cache in pool.caches],
    }
