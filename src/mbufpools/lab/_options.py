"""What an exploration is asked to do: one frozen object that every module of the lab passes on."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

__all__ = [
    "BackendName",
    "CancelWay",
    "FailureKind",
    "Options",
    "Program",
    "StrategyName",
    "Verdict",
    "cancel_ways",
    "check_backend",
]

Program = Callable[[], Awaitable[Any]]
"""What is explored: an `async def` without arguments."""
StrategyName = Literal["mixed", "exhaustive", "dpor", "random", "pct", "fifo"]
BackendName = Literal["asyncio", "trio"]
CancelWay = Literal["scope", "native"]
FailureKind = Literal["stall", "livelock", "exception", "leak"]
Verdict = Literal["found", "proved", "ran out"]

STEP_LIMIT = 10_000
SLICE_STEPS = 20
"""Steps in a row, in which another task could run, after which a task stands back by default."""
WAYS: dict[str, tuple[CancelWay, ...]] = {"asyncio": ("scope", "native"), "trio": ("scope",)}
"""How a task can be cancelled on each backend."""


@dataclass(frozen=True, slots=True)
class Options:
    """The options of `explore`, checked. It can be pickled, so it travels to worker processes."""

    backend: BackendName = "asyncio"
    max_preemptions: int | None = 2
    """The bound of ``exhaustive``; None is no bound."""
    max_executions: int = 10_000
    max_seconds: float | None = None
    """Seconds of real time after which no execution begins; None is no bound."""
    cancelling: Any = None
    """A `Cancellable`: which tasks are cancelled, how often and when; None if none is."""
    ignore: tuple[FailureKind, ...] = ()
    """The kinds of failures that are passed over."""
    cancel_by: tuple[CancelWay, ...] = ()
    """The ways in which the lab cancels a task, once in an execution; none if it does not."""
    without_anyio: bool = False
    """Whether scopes are not among these ways because the program seems not to use anyio."""
    seed: int = 0
    """Of ``random`` and ``pct``."""
    depth: int = 3
    """Of ``pct``: the number of ordering constraints of the bugs that are looked for."""
    max_failures: int | None = 1
    """After so many different failures the exploration stops; None is never."""
    step_limit: int = STEP_LIMIT
    """Steps of one execution; one that takes more is a livelock."""
    slice_steps: int = SLICE_STEPS
    """Steps in a row after which a task stands back under ``exhaustive``."""
    reset: Any = None
    """A function that is called before each execution, or a `PickledProgram` of it."""
    fresh: tuple[str, ...] = ()
    """Modules that are executed again before each execution."""
    clocks: bool = True
    """Whether the clocks of Python are virtual in the program."""
    chance: bool = True
    """Whether chance is seeded anew before each execution."""

    @property
    def makes_anew(self) -> bool:
        """True if the caller has said what is made anew before each execution. The fixtures of a
        test are made anew without that (`_pytest_fixtures`)."""
        asked = self.reset is not None and not getattr(self.reset, "only_fixtures", False)
        return asked or bool(self.fresh)

    def __post_init__(self) -> None:
        """Raise ValueError for a number that cannot be."""
        check_backend(self.backend)
        if inspect.iscoroutinefunction(self.reset):
            raise ValueError("reset is an `async def`; expected a plain function, which is called")
        numbers: tuple[tuple[str, Any, int], ...] = (
            ("max_preemptions", self.max_preemptions, 0),
            ("max_executions", self.max_executions, 1),
            ("max_failures", self.max_failures, 1),
            ("depth", self.depth, 1),
            ("step_limit", self.step_limit, 1),
            ("slice_steps", self.slice_steps, 1),
        )
        for what, value, least in numbers:
            if value is None and what in ("max_preemptions", "max_failures"):
                continue
            if not isinstance(value, int) or value < least:
                raise ValueError(f"{what} is {value!r}; expected an integer of at least {least}")
        if self.slice_steps > max(self.step_limit // 2, SLICE_STEPS):
            raise ValueError(
                f"slice_steps is {self.slice_steps}, and step_limit {self.step_limit}: a task that "
                f"waits in a loop would look like a livelock; expected at most half of step_limit"
            )
        for kind in self.ignore:
            if kind not in get_args(FailureKind):
                kinds = ", ".join(map(repr, get_args(FailureKind)))
                raise ValueError(f"ignore has {kind!r}; expected some of {kinds}")
        seconds: Any = self.max_seconds
        if seconds is not None and not (isinstance(seconds, int | float) and seconds > 0):
            raise ValueError(f"max_seconds is {seconds!r}; expected seconds above 0, or None")


def check_backend(backend: str) -> None:
    """Raise ValueError if there is no backend of this name."""
    if backend not in get_args(BackendName):
        raise ValueError(f"no backend {backend!r}: expected 'asyncio' or 'trio'")


def cancel_ways(way: CancelWay | None, backend: str) -> tuple[CancelWay, ...]:
    """Return the ways to cancel: one, or all that the backend has. Raises ValueError if it does not
    have that one."""
    check_backend(backend)
    ways = WAYS[backend]
    if way is None:
        return ways
    if way not in ways:
        raise ValueError(f"{backend} cannot cancel by {way!r}; it can by {', '.join(ways)}")
    return (way,)
