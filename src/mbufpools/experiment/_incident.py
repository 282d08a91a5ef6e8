"""The incident: receive rings, senders, NFS, and hogs whose peers stop reading for a while.

The mix of load that the thread is about, on one machine. `_parameters.RATES` are its parameters; a
workload of another question uses the same actors with other numbers.

Each actor is a chain of events. A sender does what ``m_getuio`` does: an mbuf with M_WAIT, then a
cluster with M_DONTWAIT; refused that, a 2k cluster; refused that too, as many mbufs as the data
need. NFS holds an mbuf while it waits for a cluster (``nfsm_reqhead``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mbufpools import Buffer

from ._clock import Simulation
from ._kernels import Kernel
from ._machine import Machine, percentile
from ._parameters import RATES

__all__ = ["Actors", "incident"]

MLEN = 224
"""Bytes of data that an mbuf holds, about (the rest of its 256 is the header)."""
SIZES = ((0.40, 100), (0.65, 1448), (0.85, 8192), (1.0, 32768))
"""What a sender sends: the share of all sends up to and with this size, and its bytes."""
SMALL = (100, 1448, 4000)
"""What the senders send that come after the stop, in bytes."""


class Actors:
    """The actors of the incident, on one machine."""

    def __init__(self, machine: Machine, rates: dict[str, Any]) -> None:
        self.machine = machine
        self.simulation = machine.simulation
        self.rates = rates
        self.done = 0
        """Requests that got all they had asked for."""
        self.nine_asked = self.nine_served = 0
        pools = machine.pools
        self._mbuf, self._2k = pools.mbpool, pools.m_clpool(2048)

    # Receive

    def receive(self) -> None:
        """Fill the rings, and let packets come: each `rx_period` one ring, in turn, hands up to
        `packets` packets up, and is filled again as far as M_DONTWAIT gets clusters."""
        rates, machine = self.rates, self.machine
        pool = machine.pools.m_clpool(2050)
        random = machine.random("receive")
        rings: list[list[Buffer]] = [[] for _ in range(rates["rings"])]
        turn, cpus = 0, machine.kernel.caches

        def fill(ring: list[Buffer], cpu: int) -> None:
            while len(ring) < rates["ring_items"]:
                buffer = machine.try_get(pool, cpu)
                if buffer is None:
                    return
                ring.append(buffer)

        def interrupt() -> None:
            nonlocal turn
            number = turn % len(rings)
            ring, turn = rings[number], turn + 1
            for _ in range(min(random.randint(0, rates["packets"]), len(ring))):
                hold = random.expovariate(1 / rates["rx_hold"])
                self.simulation.after(hold, machine.put, ring.pop())
            fill(ring, number % max(1, cpus))

        for number, ring in enumerate(rings):
            fill(ring, number % max(1, cpus))
        self.simulation.every(rates["rx_period"], interrupt)

    # Send

    def sender(self, name: str, size: Callable[[Any], int]) -> None:
        """Send again and again: think, get the memory, send; the peer frees it later."""
        rates, machine, after = self.rates, self.machine, self.simulation.after
        random = machine.random("sender", name)
        think, hold = 1 / rates["think"], 1 / rates["send_hold"]

        def begin() -> None:
            self.send(size(random), sent)

        def sent(buffers: list[Buffer]) -> None:
            self.done += 1
            after(random.expovariate(hold), machine.put, *buffers)
            after(random.expovariate(think), begin)

        after(random.expovariate(think), begin)

    def send(self, nbytes: int, then: Callable[[list[Buffer]], None]) -> None:
        """Get the memory for `nbytes` of data as ``m_getuio`` does, then call ``then(buffers)``."""
        machine, left, buffers = self.machine, nbytes, list[Buffer]()
        cpu = machine.cpu()
        pool_for = machine.pools.m_clpool
        came: list[Buffer] = []
        busy = False

        def fill(mbuf: Buffer) -> None:
            nonlocal left
            buffers.append(mbuf)
            room = MLEN
            if left > MLEN:
                wanted = pool_for(left)
                cluster = machine.try_get(wanted, cpu)
                if cluster is None and wanted is not self._2k:
                    cluster = machine.try_get(self._2k, cpu)
                if cluster is not None:
                    buffers.append(cluster)
                    room = cluster.nbytes
            left -= room

        # A loop and not a recursion: data of 64 KiB may need three hundred mbufs, each served at
        # once inside the `wait_get` of the one before.
        def with_mbuf(mbuf: Buffer) -> None:
            nonlocal busy
            came.append(mbuf)
            if busy:
                return
            busy = True
            while came:
                fill(came.pop())
                if left > 0:
                    machine.wait_get(self._mbuf, with_mbuf, cpu)
            busy = False
            if left <= 0:
                then(buffers)

        machine.wait_get(self._mbuf, with_mbuf, cpu)

    # NFS, hogs, and the 9k clusters

    def nfs(self, name: str) -> None:
        """Four times an mbuf, then a 2k cluster while it is held; then all is freed."""
        rates, machine, after = self.rates, self.machine, self.simulation.after
        random = machine.random("nfs", name)
        buffers: list[Buffer] = []

        def mbuf(_: Buffer | None = None) -> None:
            if _ is not None:
                buffers.append(_)
            if len(buffers) == 8:
                self.done += 1
                after(random.expovariate(1 / rates["nfs_hold"]), end)
            else:
                machine.wait_get(self._mbuf, cluster)

        def cluster(got: Buffer) -> None:
            buffers.append(got)
            machine.wait_get(self._2k, mbuf)

        def end() -> None:
            machine.put(*buffers)
            buffers.clear()
            after(random.expovariate(1 / rates["think"]), mbuf)

        after(random.expovariate(1 / rates["think"]), mbuf)

    def hogs(self) -> None:
        """Within a second after `stop`, each hog sends 64 KiB that nobody reads until `resume`."""
        rates, random = self.rates, self.machine.random("hogs")

        def send(resume: float) -> None:
            def sent(buffers: list[Buffer]) -> None:
                self.simulation.after(
                    max(0.0, resume - self.simulation.now), self.machine.put, *buffers
                )

            self.send(65536, sent)

        for _ in range(rates["hogs"]):
            resume = rates["resume"] + random.random()
            self.simulation.after(rates["stop"] + random.random(), send, resume)

    def nine_k(self) -> None:
        """From `resume` on, a new process asks for a 9k cluster each second (``bpf_movein``)."""
        pool = self.machine.pools.m_clpool(9216)

        def served(buffer: Buffer) -> None:
            self.nine_served += 1
            self.simulation.after(0.050, self.machine.put, buffer)

        def ask() -> None:
            self.nine_asked += 1
            self.machine.wait_get(pool, served)

        self.simulation.after(
            self.rates["resume"] - self.simulation.now, self.simulation.every, 1.0, ask
        )

    def small_senders(self) -> None:
        """From `resume` on, small senders come."""

        def come() -> None:
            for number in range(self.rates["small"]):
                self.sender(f"small {number}", lambda random: int(random.choice(SMALL)))

        self.simulation.after(self.rates["resume"] - self.simulation.now, come)


def _size(random: Any) -> int:
    share = random.random()
    return next(nbytes for up_to, nbytes in SIZES if share <= up_to)


async def incident(
    simulation: Simulation, kernel: Kernel, parameters: dict[str, Any], seed: int
) -> dict[str, Any]:
    """Run the incident once; return the account, and that of the time after the stop: waits there
    are those of sleeps that began in it, without those for 9k clusters."""
    rates = RATES | parameters
    resume = rates["resume"] if rates["hogs"] else 0.0
    async with Machine(simulation, kernel, rates["nmbclust"], seed) as machine:
        machine.note_each_second()
        actors = Actors(machine, rates)
        actors.receive()
        for number in range(rates["senders"]):
            actors.sender(str(number), _size)
        for number in range(rates["nfs"]):
            actors.nfs(str(number))
        if rates["hogs"]:
            actors.hogs()
            actors.nine_k()
            actors.small_senders()
            await simulation.run(rates["resume"])
            before = (actors.done, machine.tries, machine.refused, machine.asked)
            freed = machine.memory.page_out
            machine.tries_by_pool.clear()
            machine.refused_by_pool.clear()
        else:
            before, freed = (0, 0, 0, 0), 0
        await simulation.run(rates["end"])
        waits, still = (
            sorted(it.seconds for it in sleeps if it.began >= resume and it.pool != "mcl9k")
            for sleeps in (machine.sleeps, machine.sleeping.values())
        )
        tries = machine.tries - before[1]
        return machine.account() | {
            "done_after": actors.done - before[0],
            "refused_after": (machine.refused - before[2]) / tries if tries else 0.0,
            "tries_after_by_pool": dict(machine.tries_by_pool),
            "refused_after_by_pool": dict(machine.refused_by_pool),
            "asked_after": machine.asked - before[3],
            "slept_after": len(waits),
            "never_after": len(still),
            "wait_after": sum(waits) / len(waits) if waits else 0.0,
            "p50_after": percentile(waits, 50) or 0.0,
            "p99_after": percentile(waits, 99) or 0.0,
            "max_after": waits[-1] if waits else 0.0,
            "freed_after": machine.memory.page_out - freed,
            "nine_asked": actors.nine_asked,
            "nine_served": actors.nine_served,
            "asleep_by_second": machine.asleep_by_second,
            "refused_by_second": machine.refused_by_second,
        }
