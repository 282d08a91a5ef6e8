"""A scenario: a few processes that get and put, each on a CPU of its own, beside systqmp.

First the operations of ``before`` run, each to its end. Then the programs run, in every order.

An operation is a tuple, as in the recordings of the kernel: ``("get", pool)``, ``("try", pool)``,
``("put", pool)``, ``("nmbclust", bytes)``; in ``before`` also ``("advance", seconds)``,
``("hiwat", pool, pages)`` and ``("reclaim", pool)``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mbufpools.lab.engine import Outcome

from ._kern_task import systqmp
from ._kernel import SECOND, Kernel, Page, Pool, Shape, Task
from ._processors import Code
from ._rules import Rules
from ._subr_pool import gc_pages, pool_get, pool_put, pool_reclaim, work_for_gc
from ._uipc_mbuf import Budget

__all__ = ["Model", "Operation", "Process", "Scenario"]

Operation = tuple[str | int, ...]
PASSER_BY = "P0"
"""A process that has no part in the scenario."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One situation that is explored."""

    name: str
    what: str
    """The scenario in a sentence."""
    limit: int
    """The limit of the budget in bytes."""
    shapes: tuple[Shape, ...]
    before: tuple[tuple[str, Operation], ...]
    """The operations before the exploration, each with the name of its process."""
    programs: tuple[tuple[Operation, ...], ...]
    """The programs of CPU 1, CPU 2 and so on; CPU 1 runs process P1."""
    cpus: int
    """The number of CPUs that run at once: those of the programs, and that of systqmp if it has
    something to do."""
    gc: bool = False
    """True if the gc runs at the same time, because idle pages have become old enough."""
    short: bool = False
    """True if the system is short of memory until the next second; what it refuses meanwhile is in
    `Rules.page_refused` and `Rules.header_refused`."""

    @property
    def interrupt(self) -> bool:
        """True if all runs on one CPU, and the first program is that of an interrupt."""
        return self.cpus == 1


class Process:
    """A process, the items it holds, and the pool it waits for."""

    def __init__(self, name: str, cpu: int) -> None:
        self.name = name
        self.cpu = cpu
        self.held: list[tuple[Pool, Page]] = []
        self.waits_for: Pool | None = None

    def puts(self, pool: Pool) -> bool:
        """True if the process has an item of the pool, and is awake to put it."""
        return self.waits_for is None and any(held[0] is pool for held in self.held)


class Model:
    """The kernel and the processes."""

    def __init__(
        self, rules: Rules, shapes: tuple[Shape, ...], limit: int, *, cpus: int = 1
    ) -> None:
        self.kernel = kernel = Kernel(rules, shapes, limit, cpus=cpus)
        self.processors = kernel.processors
        self.budget = Budget(kernel)
        kernel.page_alloc = self.budget.alloc
        kernel.page_free = self.budget.free
        kernel.page_give_back = self.budget.give_back
        kernel.want = self.budget.want
        self.gc = Task(kernel.processors, "pool_gc_task", self._gc)
        self.processes: dict[str, Process] = {}
        self._systqmp = self.processors.spawn("systqmp", systqmp(kernel))
        self.processors.timer = self._tick
        self.processors.settle()

    @classmethod
    def of(cls, scenario: Scenario, rules: Rules, *, joined: bool) -> Model:
        """The model at the start of a scenario's programs, in one of the grains of the mutexes."""
        interrupt = scenario.interrupt
        caches = 1 if interrupt else len(scenario.programs) + 1
        model = cls(rules, scenario.shapes, scenario.limit, cpus=caches)
        for name, operation in scenario.before:
            model.perform(name, operation)
        if scenario.gc:
            model._tick()
        if scenario.short:
            model.kernel.short.store(1)
        processors = model.processors
        sleepers = processors.threads[1:]
        for number, program in enumerate(scenario.programs, 1):
            process = model.process(f"P{number}")
            process.cpu = 0 if interrupt else number
            label = f"CPU {number}"
            if interrupt:
                label = "interrupt" if number == 1 else process.name
            thread = processors.spawn(label, model._program(process, program))
            thread.interrupt = interrupt and number == 1
        processors.one_cpu = interrupt
        programs = processors.threads[1 + len(sleepers) :]
        processors.begin([processors.threads[0], *programs, *sleepers], joined=joined)
        return model

    # Processes

    def process(self, name: str) -> Process:
        """The process of that name, which is created if there is none."""
        return self.processes.setdefault(name, Process(name, 0))

    def perform(self, name: str, operation: Operation) -> None:
        """Perform one operation of a process, and everything that it causes, to its end."""
        if operation[0] == "advance":
            self.advance(round(float(operation[1]) * SECOND))
            return
        self.processors.spawn(name, self._operation(self.process(name), operation))
        self.processors.settle()
        self.processors.threads = [it for it in self.processors.threads if not it.done]

    def _program(self, process: Process, program: Iterable[Operation]) -> Code[None]:
        for operation in program:
            yield from self._operation(process, operation)

    def _operation(self, process: Process, operation: Operation) -> Code[None]:
        kernel = self.kernel
        match operation:
            case ("get" | "try" as how, str(name)):
                pool = kernel.pool(name)
                if how == "get":
                    process.waits_for = pool
                page = yield from pool_get(
                    kernel, pool, process.cpu, process.name, wait=how == "get"
                )
                process.waits_for = None
                if page is not None:
                    process.held.append((pool, page))
            case ("put", str(name)):
                held = next(it for it in reversed(process.held) if it[0].name == name)
                process.held.remove(held)
                yield from pool_put(kernel, held[0], process.cpu, held[1])
            case ("nmbclust", int(limit)):
                yield from self.budget.update(limit)
            case ("hiwat", str(name), int(pages)):
                kernel.pool(name).maxpages = pages
            case ("reclaim", str(name)):
                yield from pool_reclaim(kernel, kernel.pool(name))
            case _:
                raise ValueError(f"unknown operation {operation!r}")

    # Time

    def _gc(self) -> Code[None]:
        yield from gc_pages(self.kernel)

    def _queue_gc(self) -> None:
        """Queue the gc task and wake the task queue's thread (``pool_gc_tick``)."""
        self.kernel.queue(self.gc)
        self.kernel.tq_channel.wakeup_one()

    def _tick(self) -> bool:
        """Move the time to the next run of the gc that finds work, or to the second in which the
        system has memory again; False if there is none."""
        kernel = self.kernel
        if kernel.short.value:
            kernel.now = (kernel.now // SECOND + 1) * SECOND
            kernel.say("it is %g s: the system has free memory again", kernel.now / SECOND)
            kernel.short.store(0)
            while kernel.short_channel.sleepers:
                kernel.short_channel.wakeup_one()
            return True
        at = work_for_gc(kernel)
        if at is None:
            return False
        kernel.say("it is %g s: the gc is due", at / SECOND)
        kernel.now = at
        self._queue_gc()
        return True

    def advance(self, microseconds: int) -> None:
        """Let time pass, with a run of the gc in every second."""
        kernel = self.kernel
        end = kernel.now + microseconds
        while (tick := (kernel.now // SECOND + 1) * SECOND) <= end:
            kernel.now = tick
            self._queue_gc()
            self.processors.settle()
        kernel.now = end

    # The end

    def judge(self) -> Outcome:
        """No thread can run, and time changes nothing: find the processes that could be served."""
        told = [
            f"{process.name} sleeps in {pool.name}, but {self._could_serve(pool)}"
            for process, pool in self.stalled()
        ]
        if not told:
            return Outcome()
        return Outcome("stall", told[0], tuple(told))

    def stalled(self) -> list[tuple[Process, Pool]]:
        """The processes that sleep although they could be served, each with its pool."""
        return [
            (process, pool)
            for process in self.processes.values()
            if (pool := process.waits_for) is not None and self._could_serve(pool)
        ]

    # What may happen after that

    def use(self, pool: Pool) -> None:
        """A process takes an item of the pool and puts it. If it gets none, a holder puts one."""
        self.perform(PASSER_BY, ("try", pool.name))
        holder = next((it for it in self.processes.values() if it.puts(pool)), None)
        if holder is not None:
            self.perform(holder.name, ("put", pool.name))

    def empty(self, pool: Pool) -> None:
        """All processes that do not sleep put their items of the pool."""
        for process in self.processes.values():
            while process.puts(pool):
                self.perform(process.name, ("put", pool.name))

    def page_leaves(self) -> None:
        """A page of the largest size leaves, which the budget and its limit had besides the rest of
        the scenario."""
        pool = max(self.kernel.pools, key=lambda pool: pool.page_size)
        self.kernel.mem_limit.value += pool.page_size
        self.kernel.mem_alloc.value += pool.page_size
        self.processors.spawn("systqmp", self.budget.free(pool))
        self.processors.settle()

    def _could_serve(self, pool: Pool) -> str:
        """Say which memory could serve a request of `pool`; an empty string if none could."""
        kernel = self.kernel
        if pool.exhausted:
            return ""
        if pool.curpage is not None:
            return f"its pages have {_items(pool.nfree)} free"
        if pool.nfree:
            return f"its pages have {_items(pool.nfree)} free, which the pool does not see"
        if pool.cached:
            return f"its caches hold {_items(len(pool.cached))}"
        room = kernel.mem_limit.value - kernel.mem_alloc.value
        if room >= pool.page_size:
            return f"{room} bytes of the budget are free, and a page takes {pool.page_size}"
        kept = sum(each.kept_by_caches * each.page_size for each in kernel.pools)
        if room + kept >= pool.page_size:
            return f"{room} bytes of the budget are free, and the caches keep {kept} more allocated"
        return ""


def _items(number: int) -> str:
    return f"{number} item{'s' * (number != 1)}"
