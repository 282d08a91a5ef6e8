"""The smaller workloads: each shows one thing, and measures it.

Each is an async function of a simulation, a kernel, its parameters and a seed, and returns the
figures as JSON values; times are in seconds. The incident has a module of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import anyio

from mbufpools import Buffer, MbufPool, MbufPools, Task
from mbufpools.mbufs import MCLBYTES

from ._clock import Simulation, simulate
from ._incident import incident
from ._kernels import Kernel
from ._machine import Machine
from ._parameters import PARAMETERS

__all__ = ["WORKLOADS", "Workload", "measure"]

Workload = Callable[[Simulation, Kernel, dict[str, Any], int], Coroutine[Any, Any, dict[str, Any]]]


def take_all(machine: Machine, pool: MbufPool) -> list[Buffer]:
    """Take items of `pool` until the budget refuses another page."""
    taken = []
    while machine.pools.budget.available >= pool.page_size:
        taken += [machine.take(pool) for _ in range(pool.items_per_page)]
    return taken


async def hidden(
    simulation: Simulation, kernel: Kernel, parameters: dict[str, Any], seed: int
) -> dict[str, Any]:
    """Hidden items: a full pool at the limit and `sleepers` in it; its items are put back one by
    one, with one M_DONTWAIT try after each put. How many, until the first sleeper is served?

    `order` of the puts: ``random``, or ``first`` (taken first, put first), or ``last``.
    """
    given = PARAMETERS["hidden"] | parameters
    name, pages = given["pool"], given["pages"]
    page = MbufPools(1).pools[name].page_size
    async with Machine(simulation, kernel, pages * page // MCLBYTES, seed) as machine:
        pool = machine.pools.pools[name]
        items = take_all(machine, pool)
        order = given["order"]
        if order == "random":
            machine.random("puts").shuffle(items)
        elif order == "last":
            items.reverse()
        for _ in range(given["sleepers"]):
            machine.wait_get(pool, lambda buffer: None)
        asleep = len(machine.sleeping)
        put = 0
        for item in items:
            machine.put(item)
            put += 1
            await simulation.run(simulation.now)
            if len(machine.sleeping) < asleep:
                break
            got = machine.try_get(pool)
            if got is not None:
                machine.put(got)
        return {
            "share": put / len(items),
            "items": len(items),
            "put": put,
            "tries": machine.tries,
            "refused": machine.refused,
        }


async def cold(
    simulation: Simulation, kernel: Kernel, parameters: dict[str, Any], seed: int
) -> dict[str, Any]:
    """A cold pool: the budget is full of receive clusters. At one second a process asks an empty
    pool: for a 9k cluster (`bpf`), or, with an mbuf in its hand, for a 2k cluster (`nfs`), or for
    a 64k cluster (`64k`). How long does it sleep?

    `load` is the percentage of the receive clusters that are in use again and again: held for
    `hold` seconds, then put, and taken again `think` seconds later without waiting. The default
    limit is just one page of mbufs and 32 of receive clusters.
    """
    given = PARAMETERS["cold"] | parameters
    horizon = given["horizon"]
    async with Machine(simulation, kernel, given["nmbclust"], seed) as machine:
        pools = machine.pools
        machine.take(pools.mbpool)  # the mbuf in the hand of nfsm_reqhead
        full = pools.m_clpool(2050)
        items = take_all(machine, full)
        random = machine.random("load")
        random.shuffle(items)
        hold, think = 1 / given["hold"], 1 / given["think"]

        def put(item: Buffer) -> None:
            machine.put(item)
            simulation.after(random.expovariate(think), take)

        def take() -> None:
            item = machine.try_get(full)
            if item is None:
                simulation.after(random.expovariate(think), take)
            else:
                simulation.after(random.expovariate(hold), put, item)

        busy = len(items) * given["load"] // 100
        for item in items[:busy]:
            simulation.after(random.expovariate(hold), put, item)
        for item in items[busy:]:
            machine.put(item)
        wanted = {"bpf": 9216, "nfs": 2048, "64k": 65536}[given["request"]]
        served: list[float] = []

        def done(buffer: Buffer) -> None:
            served.append(simulation.now - 1.0)

        simulation.after(1.0, machine.wait_get, pools.m_clpool(wanted), done)
        await simulation.run(horizon)
        return machine.account() | {"served_after": served[0] if served else None}


async def grab(
    simulation: Simulation, kernel: Kernel, parameters: dict[str, Any], seed: int
) -> dict[str, Any]:
    """What takes a freed page: pages of an idle pool leave, one a second; processes sleep for 4k
    clusters, whose page is as large; newcomers try for a 4k cluster or an mbuf, `rate` times a
    second, without waiting. `delay` seconds of other work stand before the wakeup on systqmp.
    """
    given = PARAMETERS["grab"] | parameters
    delay = given["delay"]
    async with Machine(simulation, kernel, given["nmbclust"], seed) as machine:
        pools = machine.pools
        for item in take_all(machine, pools.m_clpool(2050)):
            machine.put(item)
        sleepers_pool, random = pools.m_clpool(4096), machine.random("newcomers")
        for _ in range(given["sleepers"]):
            machine.wait_get(sleepers_pool, lambda buffer: None)
        rate = given["rate"]

        def newcomer() -> None:
            simulation.after(random.expovariate(rate), newcomer)
            item = machine.try_get(random.choice((sleepers_pool, pools.mbpool)))
            if item is not None:
                simulation.after(random.expovariate(1 / 0.05), machine.put, item)

        if delay:
            _block_before_wakeups(machine, delay)
        simulation.after(random.expovariate(rate), newcomer)
        await simulation.run(given["end"])
        return machine.account()


def _block_before_wakeups(machine: Machine, seconds: float) -> None:
    """Whenever a page leaves, queue work of `seconds` on systqmp, ahead of the wakeup."""

    async def work() -> None:
        await anyio.sleep(seconds)

    tenant = Task(work, name="tenant")

    def page_left(_: int) -> None:
        machine.pools.taskq.add(tenant)

    machine.memory.on_out = page_left


async def backlog(
    simulation: Simulation, kernel: Kernel, parameters: dict[str, Any], seed: int
) -> dict[str, Any]:
    """A backlog: processes hold an mbuf and want a cluster, whose size changes every 15 seconds, so
    that pages must move from pool to pool. Other work blocks systqmp for `block` seconds: `once`,
    when the first idle page is due, or one second after the last block, again and again. A pool may
    `keep` so many idle pages before a put frees one. With the kernel's 8 no put frees one here,
    because no pool ever has more: only the gc does.
    """
    given = PARAMETERS["backlog"] | parameters
    end, block = given["end"], given["block"]
    async with Machine(simulation, kernel, given["nmbclust"], seed) as machine:
        pools = machine.pools
        classes = [pools.m_clpool(size) for size in (2050, 4096, 8192)]
        for pool in (pools.mbpool, *classes):
            pool.set_high_water(given["keep"] * pool.items_per_page)
        peak = 0

        def start(number: int) -> None:
            random = machine.random("process", number)

            def begin() -> None:
                machine.wait_get(pools.mbpool, partial(cluster))

            def cluster(mbuf: Buffer) -> None:
                pool = classes[int(simulation.now // 15) % len(classes)]
                machine.wait_get(pool, partial(hold, mbuf))
                nonlocal peak
                peak = max(peak, len(machine.sleeping))

            def hold(mbuf: Buffer, got: Buffer) -> None:
                simulation.after(random.expovariate(1.0), end_hold, mbuf, got)

            def end_hold(mbuf: Buffer, got: Buffer) -> None:
                machine.put(mbuf, got)
                simulation.after(random.expovariate(1.0), begin)

            simulation.after(random.random(), begin)

        for number in range(given["processes"]):
            start(number)

        async def work() -> None:
            await anyio.sleep(block)
            if not given["once"]:
                pools.taskq.add_later(tenant, 1.0)

        tenant = Task(work, name="tenant")
        if block:
            first = 23.9 if given["once"] else 0.95
            simulation.after(first, pools.taskq.add, tenant)
        await simulation.run(end)
        return machine.account() | {"peak": peak, "at_end": len(machine.sleeping)}


async def storm(
    simulation: Simulation, kernel: Kernel, parameters: dict[str, Any], seed: int
) -> dict[str, Any]:
    """A storm of freed pages: a thousand idle pages of mbufs, more than the pool may keep, so each
    put frees one; `rate` puts a second, until two seconds later. `sleepers` want 64k clusters
    meanwhile. `storm_seconds` is the time from the first freed page to the last.
    """
    given = PARAMETERS["storm"] | parameters
    async with Machine(simulation, kernel, given["nmbclust"], seed) as machine:
        pools, random = machine.pools, machine.random("storm")
        for item in take_all(machine, pools.mbpool):
            machine.put(item)
        for _ in range(given["sleepers"]):
            machine.wait_get(pools.m_clpool(65536), lambda buffer: None)
        rate = given["rate"]

        def touch() -> None:
            item = machine.try_get(pools.mbpool)
            if item is not None:
                machine.put(item)
            if simulation.now < 3.5:
                simulation.after(random.expovariate(rate), touch)

        left: list[float] = []
        machine.memory.on_out = lambda nbytes: left.append(simulation.now)
        simulation.after(1.5, touch)
        await simulation.run(4.0)
        return machine.account() | {"storm_seconds": left[-1] - left[0] if left else 0.0}


async def load(
    simulation: Simulation, kernel: Kernel, parameters: dict[str, Any], seed: int
) -> dict[str, Any]:
    """The load of the incident without its hogs: how many puts are there to a freed page, and does
    the policy matter? The smaller `nmbclust`, the more the pools need each other's pages.
    """
    found = await incident(simulation, kernel, PARAMETERS["load"] | parameters, seed)
    of_the_incident = ("_after", "_by_second", "_by_pool", "nine_asked", "nine_served")
    return {name: found[name] for name in found if not name.endswith(of_the_incident)}


async def idle(
    simulation: Simulation, kernel: Kernel, parameters: dict[str, Any], seed: int
) -> dict[str, Any]:
    """Idle pages: `items` items of `pool` are taken, put back, in random order if `shuffled`, and
    then nothing happens. When have 1, 50, 90 and 100 % of the pages left?
    """
    given = PARAMETERS["idle"] | parameters
    async with Machine(simulation, kernel, given["nmbclust"], seed) as machine:
        pool = machine.pools.pools[given["pool"]]
        items = [machine.take(pool) for _ in range(given["items"])]
        if given["shuffled"]:
            machine.random("puts").shuffle(items)
        pages = pool.statistics().npages
        left: list[float] = []
        machine.memory.on_out = lambda nbytes: left.append(simulation.now)
        for item in items:
            machine.put(item)
        if given["trim"]:
            simulation.every(given["trim"], partial(_trim, machine))
        await simulation.run(given["horizon"], lambda: len(left) == pages)

        def when(percent: int) -> float | None:
            needed = -(-pages * percent // 100)
            return left[needed - 1] if len(left) >= needed else None

        return {"pages": pages} | {f"left_{percent}": when(percent) for percent in (1, 50, 90, 100)}


def _trim(machine: Machine) -> None:
    for pool in machine.pools.pools.values():
        pool.reclaim()


WORKLOADS: dict[str, Workload] = {
    "hidden": hidden,
    "cold": cold,
    "grab": grab,
    "backlog": backlog,
    "storm": storm,
    "load": load,
    "idle": idle,
    "incident": incident,
}
"""The workloads by name."""


def measure(workload: str, kernel: Kernel, parameters: dict[str, Any], seed: int) -> dict[str, Any]:
    """Run a workload once, and return its figures. Blocks; the same arguments give the same
    figures, in any process.

    Raises KeyError if there is no such workload.
    """
    run = WORKLOADS[workload]
    return simulate(lambda simulation: run(simulation, kernel, parameters, seed))
