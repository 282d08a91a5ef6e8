"""The story of one small run, event by event: what the timeline and the first picture show.

Receive clusters and 4k clusters fill a budget of 256 KiB. Processes sleep: two for a 4k cluster,
three for an mbuf, one for a 9k cluster. Then the 4k clusters are put back one by one, and the
receive clusters all at once, so that their pages become idle and leave.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

from mbufpools import Buffer, Event, EventKind

from ._clock import Simulation, simulate
from ._kernels import Kernel
from ._machine import Machine

__all__ = ["END", "Lane", "Story", "tell_story"]

END = 30.0
"""Seconds of virtual time that the story takes."""
NMBCLUST = 128
RECEIVE_PAGES = 5


@dataclass(slots=True)
class Lane:
    """One process, from its get on."""

    name: str
    asked: float
    """Seconds of virtual time."""
    served: float | None = None
    """Seconds of virtual time; None if it still sleeps at the end."""


@dataclass(slots=True)
class Story:
    """What happened under one kernel. Times are in seconds of virtual time."""

    kernel: str
    limit: int
    """Bytes."""
    pools: list[str]
    """The pools that ever had a page."""
    steps: list[tuple[float, list[int]]] = field(default_factory=list)
    """After each change: the bytes of each of `pools`."""
    lanes: list[Lane] = field(default_factory=list)
    taken: list[tuple[float, str, bool]] = field(default_factory=list)
    """Each page that is taken from the budget: the time, the pool, True if it is for a sleeper."""
    events: list[tuple[float, str, str]] = field(default_factory=list)
    """Time, kind (``in``, ``out``, ``run``, ``sleep``, ``served``, ``put``), and a sentence."""

    def plain(self) -> dict[str, Any]:
        """The story as JSON values."""
        return {
            "kernel": self.kernel,
            "limit": self.limit,
            "end": END,
            "pools": self.pools,
            "steps": [[round(time, 3), nbytes] for time, nbytes in self.steps],
            "lanes": [
                [lane.name, lane.asked, None if lane.served is None else round(lane.served, 3)]
                for lane in self.lanes
            ],
            "taken": [[round(time, 3), *rest] for time, *rest in self.taken],
            "events": [[round(time, 3), kind, text] for time, kind, text in self.events],
        }


class _Teller:
    def __init__(self, simulation: Simulation, kernel: Kernel, seed: int) -> None:
        self.simulation = simulation
        self.machine = Machine(simulation, kernel, NMBCLUST, seed, hook=self._observe)
        pools = self.machine.pools
        names = ["mcl2k2", "mcl4k", "mbufpl", "mcl9k"]
        self.story = Story(kernel.name, pools.budget.limit, names)
        self._nbytes = dict.fromkeys(names, 0)

    async def tell(self) -> Story:
        """Run the story."""
        async with self.machine as machine:
            machine.pools.on_run = lambda run: self._note(
                "run",
                f"wakeup: {run.asleep} asleep, {run.served} served"
                + ("" if run.served else ", in vain"),
            )
            pools = machine.pools
            receive, fourk = pools.m_clpool(2050), pools.m_clpool(4096)
            clusters = [machine.take(receive) for _ in range(RECEIVE_PAGES * 15)]
            data = [machine.take(fourk) for _ in range(3 * 8)]
            machine.random("puts").shuffle(data)
            for number in range(2):
                self.simulation.after(1.0 + number / 4, self._ask, f"4k, {number + 1}", fourk)
            for number in range(3):
                self.simulation.after(
                    2.0 + number / 4, self._ask, f"mbuf, {number + 1}", pools.mbpool
                )
            self.simulation.after(3.0, self._ask, "9k", pools.m_clpool(9216))
            for number, item in enumerate(data):
                self.simulation.after(4.0 + number / 2, self._put, item)
            self.simulation.after(5.0, self._note, "put", "all 75 receive clusters are put")
            self.simulation.after(5.0, machine.put, *clusters)
            await self.simulation.run(END)
            self._step()
            machine.pools.on_run = lambda run: None
            return self.story

    def _note(self, kind: str, text: str) -> None:
        self.story.events.append((self.simulation.now, kind, text))

    def _step(self) -> None:
        self.story.steps.append((self.simulation.now, list(self._nbytes.values())))

    def _observe(self, event: Event) -> None:
        if event.kind not in (EventKind.PAGE_IN, EventKind.PAGE_OUT) or (
            event.name not in self._nbytes or self.simulation.now >= END
        ):
            return
        entered = event.kind is EventKind.PAGE_IN
        self._nbytes[event.name] += event.nbytes if entered else -event.nbytes
        self._step()
        size = f"a page of {event.nbytes // 1024} KiB"
        if not entered:
            self._note("out", f"{event.name} gives {size} back")
        elif self.simulation.now > 0:
            sleeper = not self.machine.memory.newcomer
            taker = "a sleeper" if sleeper else "a new request"
            self.story.taken.append((self.simulation.now, event.name, sleeper))
            self._note("in", f"{event.name} takes {size} for {taker}")

    def _ask(self, name: str, pool: Any) -> None:
        lane = Lane(name, self.simulation.now)
        self.story.lanes.append(lane)
        self._note("sleep", f"a process asks for {name.split(',')[0]} and sleeps")
        self.machine.wait_get(pool, partial(self._served, lane))

    def _served(self, lane: Lane, buffer: Buffer) -> None:
        lane.served = self.simulation.now
        waited = lane.served - lane.asked
        self._note("served", f"the process that wanted {lane.name} is served after {waited:.1f} s")
        self.simulation.after(3.0, self.machine.put, buffer)

    def _put(self, item: Buffer) -> None:
        asleep = sum(lane.served is None for lane in self.story.lanes)
        self._note("put", f"a 4k cluster is put; {asleep} processes sleep")
        self.machine.put(item)


def tell_story(kernel: Kernel, seed: int = 1) -> Story:
    """Run the story under one kernel. The same kernel and seed tell the same story. Blocks."""

    async def program(simulation: Simulation) -> Story:
        return await _Teller(simulation, kernel, seed).tell()

    return simulate(program)
