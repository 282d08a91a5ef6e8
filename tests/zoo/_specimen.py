"""A specimen of the zoo: a bug, its corrected twin, and what it takes to tell them apart."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import anyio

from mbufpools import lab

__all__ = ["BOTH", "TIES", "Program", "Specimen", "together"]

Program = Callable[[], Coroutine[Any, Any, None]]

BOTH: tuple[lab.BackendName, ...] = ("asyncio", "trio")

TIES = (
    "of the tasks that become ready in one step asyncio runs the one first that was woken first; "
    "trio takes any order, and the lab takes that of their names"
)
"""Why the order of the backend itself, and what differs from it in few places, is not the same."""


@dataclass(frozen=True)
class Specimen:
    """A small program with a known bug, and its twin without.

    In the source of the bug the line that a report must name ends in a comment of the bug's kind
    and name, such as ``# stall: lost wakeup``.
    """

    name: str
    bug: Program
    twin: Program
    kind: str
    """``stall``, ``exception``, ``livelock`` or ``leak``."""
    told: str
    """What the report says: the primitive that is waited for, or the message of the error."""
    found: int
    """Executions of ``exhaustive`` until it is found, at most."""
    proved: int
    """Executions of ``exhaustive`` that show the twin to be right, at most."""
    cancel: bool = False
    """The bug shows only if a task is cancelled: explore with ``cancel=True``."""
    backends: tuple[lab.BackendName, ...] = BOTH
    step_limit: int = 10_000
    """Steps after which an execution is a livelock; fewer for a program that runs in circles."""

    differs: str = ""
    """Why asyncio and trio take different numbers of executions, if they do."""

    def explore_bug(
        self, backend: lab.BackendName, strategy: lab.StrategyName = "exhaustive"
    ) -> lab.Exploration:
        """Look for the bug."""
        return self._explore(self.bug, backend, strategy)

    def explore_twin(
        self, backend: lab.BackendName, strategy: lab.StrategyName = "exhaustive"
    ) -> lab.Exploration:
        """Look for a bug in the twin."""
        return self._explore(self.twin, backend, strategy)

    def _explore(
        self, program: Program, backend: lab.BackendName, strategy: lab.StrategyName
    ) -> lab.Exploration:
        return lab.explore(
            program,
            backend=backend,
            strategy=strategy,
            cancel=self.cancel,
            step_limit=self.step_limit,
        )


async def together(*tasks: Program) -> None:
    """Run all of them at once."""
    async with anyio.create_task_group() as group:
        for task in tasks:
            group.start_soon(task)
