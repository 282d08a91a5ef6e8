"""The kernels that are compared, as data: the rules that each one follows, and its name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

from mbufpools import CurPage, Drain, Hook, MbufPools, Memory, Order, Reclaim, TaskQueue, Wakeup

__all__ = ["CPUS", "KERNELS", "CountingPools", "Kernel", "Run"]

CPUS = 8
"""CPUs of a machine with caches, where a cell says no other number: that of the measurements of the
kernel's own code."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """The rules of one kernel. Every field is a string or a number, as in JSON."""

    name: str
    """As the tables show it."""
    wakeup: str = "none"
    """A member of `Wakeup`."""
    curpage: str = "stale"
    """A member of `CurPage`."""
    order: str = "barging"
    """A member of `Order`."""
    reclaim: str = "gc"
    """A member of `Reclaim`."""
    queue: str = "systqmp"
    """Where the wakeup task runs: on ``systqmp``, or on a queue of its ``own``."""
    margin: int | None = None
    """Bytes, for the wakeup near the limit."""
    caches: int = 0
    """CPUs with caches in front of the pools; 0 for none."""
    drain: str = "never"
    """A member of `Drain`: what the caches give back while somebody waits."""

    def pools(self, nmbclust: int, memory: Memory, hook: Hook | None = None) -> CountingPools:
        """Make the pools of this kernel, with a limit of `nmbclust` clusters."""
        return CountingPools(self, nmbclust, memory, hook)

    def on(self, caches: int) -> Kernel:
        """Return this kernel with the caches of so many CPUs; 0 for none."""
        return replace(self, caches=caches)

    def near(self, margin: int) -> Kernel:
        """Return this kernel with a margin, in bytes, for the wakeup near the limit."""
        return replace(self, margin=margin)

    def plain(self) -> dict[str, Any]:
        """The fields as JSON values; those with the default value are left out."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            field.name: values[field.name]
            for field in fields(self)
            if field.name == "name" or values[field.name] != field.default
        }


@dataclass(slots=True)
class Run:
    """One run of the wakeup."""

    time: float
    """Seconds of the loop's clock."""
    asleep: int
    """Requests that slept when it began."""
    served: int
    """Requests that it served."""


class CountingPools(MbufPools):
    """The pools of a kernel. They also note each run of the wakeup, and how many it served."""

    def __init__(
        self, kernel: Kernel, nmbclust: int, memory: Memory, hook: Hook | None = None
    ) -> None:
        super().__init__(
            nmbclust,
            wakeup=Wakeup(kernel.wakeup),
            curpage=CurPage(kernel.curpage),
            order=Order(kernel.order),
            reclaim=Reclaim(kernel.reclaim),
            near_limit_margin=kernel.margin,
            caches=kernel.caches,
            drain=Drain(kernel.drain),
            memory=memory,
            hook=hook,
            fast_acquire=True,  # a get that is served at once does not yield
            collect_garbage=False,  # virtual time is no reason to look for lost buffers
        )
        self.runs: list[Run] = []
        self.own_queue: TaskQueue | None = TaskQueue("wakeups") if kernel.queue == "own" else None
        self.on_run: Callable[[Run], None] = lambda run: None

    def _run_wakeup(self) -> None:
        before = self._waiters.statistics()
        super()._run_wakeup()
        served = self._waiters.statistics().grants - before.grants
        run = Run(self._owner_loop.now() / 1_000_000, before.waiting, served)
        self.runs.append(run)
        self.on_run(run)

    def _page_left(self, nbytes: int) -> None:
        queue = self._taskq
        try:
            if self.own_queue is not None:
                self._taskq = self.own_queue
            super()._page_left(nbytes)
        finally:
            self._taskq = queue


KERNELS = {
    kernel.name: kernel
    for kernel in (
        Kernel("as it is"),
        Kernel("patch", wakeup="deferred"),
        Kernel("direct", wakeup="direct"),
        Kernel("near-limit", wakeup="near-limit"),
        Kernel("wanted", wakeup="wanted"),
        Kernel("curpage", curpage="refreshed"),
        Kernel("patch + curpage", wakeup="deferred", curpage="refreshed"),
        Kernel("patch + own queue", wakeup="deferred", queue="own"),
        Kernel("patch + fifo", wakeup="deferred", order="fifo"),
        Kernel("patch + pressure", wakeup="deferred", reclaim="pressure"),
        Kernel("depots", drain="depots"),
        Kernel("depots + patch", drain="depots", wakeup="deferred"),
        Kernel("drained", drain="caches"),
        Kernel("drained + patch", drain="caches", wakeup="deferred"),
        Kernel("drained + patch + fifo", drain="caches", wakeup="deferred", order="fifo"),
        Kernel("drained + patch + pressure", drain="caches", wakeup="deferred", reclaim="pressure"),
        Kernel("depots + patch + curpage", drain="depots", wakeup="deferred", curpage="refreshed"),
        Kernel("drained + patch + curpage", drain="caches", wakeup="deferred", curpage="refreshed"),
    )
}
"""The kernels by name. *As it is* is the kernel of today, and *patch* is that of the thread; each
other name says in what it differs from the first. Those that drain need caches."""
