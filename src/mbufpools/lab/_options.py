"""What an exploration is asked to do: one frozen object that every module of the lab passes on."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any, Literal, get_args

__all__ = [
    "BackendName",
    "CancelWay",
    "FailureKind",
    "Options",
    "StrategyName",
    "cancel_ways",
    "check_backend",
]

StrategyName = Literal["exhaustive", "dpor", "random", "pct", "fifo"]
BackendName = Literal["asyncio", "trio"]
CancelWay = Literal["scope", "native"]
FailureKind = Literal["stall", "livelock", "exception", "leak"]

STEP_LIMIT = 10_000
WAYS: dict[str, tuple[CancelWay, ...]] = {"asyncio": ("scope", "native"), "trio": ("scope",)}
"""How a task can be cancelled on each backend."""


@dataclass(frozen=True, slots=True)
class Options:
    """The options of `explore`, checked. It can be pickled, so it travels to worker processes."""

    backend: BackendName = "asyncio"
    max_preemptions: int | None = 2
    """The bound of ``exhaustive``; None is no bound."""
    max_executions: int = 10_000
    cancel_by: tuple[CancelWay, ...] = ()
    """The ways in which the lab cancels a task, once in an execution; none if it does not."""
    seed: int = 0
    """Of ``random`` and ``pct``."""
    depth: int = 3
    """Of ``pct``: the number of ordering constraints of the bugs that are looked for."""
    max_failures: int | None = 1
    """After so many different failures the exploration stops; None is never."""
    step_limit: int = STEP_LIMIT
    """Steps of one execution; one that takes more is a livelock."""
    reset: Any = None
    """A function that is called before each execution, or a `PickledProgram` of it."""
    fresh: tuple[str, ...] = ()
    """Modules that are executed again before each execution."""
    clocks: bool = True
    """Whether the clocks of Python are virtual in the program."""
    chance: bool = True
    """Whether chance is seeded anew before each execution."""

    def __post_init__(self) -> None:
        """Raise ValueError for a number that cannot be."""
        check_backend(self.backend)
        if inspect.iscoroutinefunction(self.reset):
            raise ValueError("reset is an `async def`; expected a plain function, which is called")
        numbers: tuple[tuple[str, Any, int], ...] = (
            ("max_preemptions", self.max_preemptions, 0),
            ("max_executions", self.max_executions, 1),
            ("depth", self.depth, 1),
            ("step_limit", self.step_limit, 1),
        )
        for what, value, least in numbers:
            if value is None and what == "max_preemptions":
                continue
            if not isinstance(value, int) or value < least:
                raise ValueError(f"{what} is {value!r}; expected an integer of at least {least}")


def check_backend(backend: str) -> None:
    """Raise ValueError if there is no backend of this name."""
    if backend not in get_args(BackendName):
        raise ValueError(f"no backend {backend!r}: expected 'asyncio' or 'trio'")


def cancel_ways(cancel: bool | str, backend: str) -> tuple[CancelWay, ...]:
    """Return the ways to cancel that ``cancel=`` asks for. Raises ValueError for another value."""
    check_backend(backend)
    ways = WAYS[backend]
    if cancel is True:
        return ways
    if cancel is False:
        return ()
    for way in ways:
        if cancel == way:
            return (way,)
    expected = ", ".join(map(repr, (False, True, *ways)))
    raise ValueError(f"cancel is {cancel!r}; expected on {backend} one of {expected}")
