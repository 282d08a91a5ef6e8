"""A primitive of another library, a program that uses it, and what must hold in every schedule."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import trio
from trio.lowlevel import in_trio_run

from mbufpools import lab

__all__ = ["BOTH", "Program", "Subject", "together"]

Program = Callable[[], Coroutine[Any, Any, None]]

BOTH: tuple[lab.BackendName, ...] = ("asyncio", "trio")
TRIO: tuple[lab.BackendName, ...] = ("trio",)


@dataclass(frozen=True)
class Subject:
    """What is explored, with a cancellation of each task at each of its await points."""

    name: str
    """The primitive, as its library names it, and what is tried if that is not its normal use."""
    program: Program
    promise: str
    """What the program checks, in words."""
    backends: tuple[lab.BackendName, ...]
    cancel: bool = True
    """Whether the lab cancels; if not, the program cancels by itself."""


async def together(*tasks: Program) -> None:
    """Run all of them at once. The cancellation of one does not cancel the others.

    On asyncio in asyncio's own group, because when a task of anyio's is cancelled natively, anyio
    cancels the whole of its group.
    """
    if in_trio_run():
        async with trio.open_nursery() as nursery:
            for task in tasks:
                nursery.start_soon(task)
    else:
        async with asyncio.TaskGroup() as group:
            for task in tasks:
                group.create_task(task())
