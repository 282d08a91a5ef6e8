"""Does the program do the same in the same schedule? State that survives an execution says no.

A module's cache is warm from the second execution on; a module's `asyncio.Lock` belongs to the
loop of the first. At most one schedule of a cold start is then executed, and "all" would be said of
schedules that were never tried. So some executions, the first one among them, are noted in full
while the lab explores, and repeated at the end. If one differs, the error names the first step that
differs.

A failing execution is repeated before it is reported. If that differs, and the failing one was the
first, the report is of the first, and says so: what fails from a cold start is a failure. A later
one that differs is refused, since it may have failed because of what earlier ones left.

What survived is still there when the process explores the program the next time. Then every
execution begins from it, so no repetition differs, and a proof or a failure has a remark.
"""

from __future__ import annotations

import asyncio
import sys
import sysconfig
import warnings
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import islice
from random import Random  # a test may patch the names in their modules
from typing import Any
from weakref import ref

from ._options import Options
from ._outcome import ADDRESS, NotRepeated, Outcome, first_line, type_name
from ._program import function_of
from ._schedule import Deviations, Rule, Schedule
from ._steps import OVER, RAISED, spell

__all__ = [
    "LOOKED_AT",
    "Record",
    "Records",
    "attributes_of",
    "difference",
    "left_over",
    "note_survival",
    "same_message",
    "survival",
    "variables",
]

AGAIN = 5
"""Schedules that are executed again, at most, besides the first."""
LOOKED_AT = 1000
"""Items of a variable that are looked at for a change."""
CURE = (
    "Make it anew in the program, or say how: by reset= (a function that is called before each "
    "execution) or by fresh= (modules that are executed anew); mbufpools explore has --reset and "
    "--fresh."
)
"""What helps against state that survives an execution."""


@dataclass(frozen=True, slots=True)
class Record:
    """One execution, in full."""

    number: int
    deviations: Deviations
    rule: Rule
    steps: tuple[tuple[str, str, tuple[Any, ...]], ...]
    """For each step: which step it is, where its task stood after it, and what could run next."""
    end: str
    full: bool
    """False if only the steps were noted, and not where they stopped, nor what could run next."""

    @classmethod
    def of(cls, number: int, schedule: Schedule, outcome: Outcome) -> Record:
        """Note an execution, in full if its schedule was told to `Schedule.record`."""
        locations = schedule.locations or []
        ready = schedule.ready_sets or []
        steps = tuple(
            (
                f"step {step.number} of task {spell(step.task)}",
                # A message may hold what differs each time, such as an address.
                locations[at].partition(RAISED)[0] if at < len(locations) else "",
                ready[at] if at < len(ready) else (),
            )
            for at, step in enumerate(schedule.steps)
        )
        end = outcome.kind or "success"
        if outcome.error is not None:
            end = f"{end} ({type_name(outcome.error)})"
        full = schedule.locations is not None
        return cls(number, schedule.deviations, schedule.rule, steps, end, full)


class Records:
    """The executions that are to be repeated: the first, and some chosen at random.

    The gaps between them grow, so that there are few of them however long the exploration takes.
    """

    def __init__(self, program: Callable[[], Awaitable[Any]]) -> None:
        self._chance = Random(0)
        self._next = 1
        self._before = dict(_state_of(program))
        self._program = program
        self.records: list[Record] = []

    def wants(self, number: int) -> bool:
        """Return True if the execution of this number is to be noted."""
        return number == self._next

    def add(self, number: int, schedule: Schedule, outcome: Outcome) -> None:
        """Note an execution."""
        self._next = number + self._chance.randrange(1, number + 2)
        if not outcome.stopped:
            self.records.append(Record.of(number, schedule, outcome))

    def again(self) -> list[Record]:
        """Return the executions to repeat: the first one first."""
        others = self.records[1:]
        return self.records[:1] + self._chance.sample(others, min(AGAIN, len(others)))

    def error(self, number: int, how: str, *, repeated: bool = True) -> NotRepeated:
        """Make the error for an execution that came out differently the second time, or that shows
        already the first time that something has survived."""
        when = f"Execution {number} was repeated: " if repeated else f"In execution {number} "
        return NotRepeated(
            f"the program does not do the same in the same schedule, so nothing can be proved of "
            f"it. {when}{how}. {self.why()}",
            self.survived(),
        )

    def doubt(self, how: str) -> str:
        """Say of a failure, for its report, that its schedule was executed again and came out
        differently."""
        return (
            f"note: the schedule was executed again, and the program did not do the same, so this "
            f"report is of the first time: {how}. {self.why()}"
        )

    def other_message(self, first: Outcome, second: Outcome) -> str:
        """Say of a failure that its schedule was executed again and failed with another message."""
        return (
            f"note: the schedule was executed again, and failed with another message: first "
            f"{first_line(first.message)}, and then {first_line(second.message)}. {self.why()}"
        )

    def why(self) -> str:
        """Say what the difference is likely to come from, and what helps."""
        changed = self.survived()
        bound = bound_to_loops(self._program)
        told = [f"{it} ({bound[it]})" if it in bound else it for it in changed[:5]]
        likely = (
            f"state that changed since the first execution: {', '.join(told)}"
            if changed
            else "state that survives an execution (a module's variable, a cache, a singleton), "
            "real time, chance, or addresses"
        )
        return f"It is likely to depend on {likely}. {CURE}"

    def survived(self) -> tuple[str, ...]:
        """Return the names of the variables that have changed since the first execution."""
        after = dict(_state_of(self._program))
        return tuple(
            sorted(name for name, state in after.items() if self._before.get(name, state) != state)
        )


def same_message(first: Outcome, second: Outcome) -> bool:
    """Return True if two executions failed with the same message, but for addresses."""
    return ADDRESS.sub("", first.message) == ADDRESS.sub("", second.message)


def difference(first: Record, second: Record) -> str | None:
    """Return the first step in which two executions of one schedule differ, in words."""
    for one, other in zip(first.steps, second.steps, strict=False):
        what, where, ready = one
        if what != other[0]:
            return f"{what} came first, and then {other[0]} in its place"
        if first.full and where != other[1]:
            return f"{what} ended at first {_there(where)}, and then {_there(other[1])}"
        if first.full and ready != other[2]:
            names = [", ".join(map(spell, it)) or "none" for it in (ready, other[2])]
            return (
                f"before {what} the tasks that could run were at first {names[0]}, and then "
                f"{names[1]}"
            )
    if len(first.steps) != len(second.steps):
        return f"it took at first {len(first.steps)} steps, and then {len(second.steps)}"
    if first.end != second.end:
        return f"it ended at first in {first.end}, and then in {second.end}"
    return None


def _there(where: str) -> str:
    """Say where a step ended; the place begins with `OVER` if the task ended with it."""
    return where.replace(OVER, "with its task", 1) if where.startswith(OVER) else f"at {where}"


# --- what survived an earlier exploration in this process

_survived: dict[int, tuple[ref[Any], tuple[str, ...]]] = {}
"""By the identity of a program's code, or of its function: a reference to that, and the variables
that survived an execution; none if they are not known."""


def note_survival(program: Any, names: tuple[str, ...]) -> None:
    """Note that a program did not do the same in the same schedule, and which variables survived.
    They stay changed, so a second exploration in this process may not see it."""
    key = _key(program)
    if key is not None:
        _survived[id(key)] = ref(key), names or _known(key) or ()


def _key(program: Any) -> Any:
    """Return what makes two programs the same: the code, or the function if it has variables of its
    own around it, which are others in each function that is made of the code."""
    function = function_of(program)
    function = getattr(function, "__func__", function)
    if getattr(function, "__closure__", None):
        return function
    return getattr(function, "__code__", None)


def _known(key: Any) -> tuple[str, ...] | None:
    """Return what survived of a program; None if nothing is known."""
    reference, names = _survived.get(id(key), (None, ()))
    return names if reference is not None and reference() is key else None


def survival(program: Any, options: Options) -> str | None:
    """Return, in words, what has survived an earlier exploration of this program in this process;
    None if nothing is known of that, or if the options make it anew."""
    names = _known(_key(program))
    if names is None or options.makes_anew:
        return None
    told = ", ".join(names[:5])
    survived = f"state survived an execution ({told})" if told else "it did not do the same twice"
    return f"this process has explored the program before, and {survived}"


def _survival_of_others(program: Any, options: Options) -> str | None:
    """Do what `survival` does, for what other programs have left in the variables of this one."""
    if not _survived or options.makes_anew:
        return None
    left = {name for _, names in _survived.values() for name in names}
    told = ", ".join(sorted(left & {name for name, _ in _state_of(program)})[:5])
    if not told:
        return None
    return f"this process has explored another program before, and state survived it ({told})"


def left_over(program: Any, options: Options) -> tuple[str, ...]:
    """Return the lines that the report of a failure has because of an earlier exploration."""
    told = survival(program, options) or _survival_of_others(program, options)
    if told is None:
        return ()
    return (
        f"note: {told}. So this failure may come from what was left, and not from the schedule: in "
        f"a new process it may be another one, or none. {CURE}",
    )


# --- what may have survived


def _state_of(program: Any) -> list[tuple[str, object]]:
    """Return fingerprints of the variables, by name. An attribute may warn when it is read, as one
    that is deprecated does; that is not the program's warning."""
    found: list[tuple[str, object]] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, value in variables(program):
            try:
                found += list(_fingerprints(name, value))
            except Exception:  # noqa: BLE001 - an object that cannot be looked at
                continue
    return found


@cache
def _installed() -> tuple[str, str]:
    """Return where Python's own modules are, and where installed ones are."""
    return sysconfig.get_path("stdlib"), sysconfig.get_path("purelib")


def variables(program: Any) -> Iterator[tuple[str, Any]]:
    """Yield the variables of the program's module, and of the modules that it has imported from, by
    name."""
    program = function_of(program)
    own = getattr(program, "__module__", None)
    names = {own}
    for value in list(vars(sys.modules[own]).values()) if own in sys.modules else ():
        names.add(getattr(value, "__module__", None) or getattr(value, "__name__", None))
    stdlib, packages = _installed()
    for name in sorted(it for it in names if isinstance(it, str) and it in sys.modules):
        path = getattr(sys.modules[name], "__file__", None) or ""
        libraries = not path or path.startswith((stdlib, packages))
        if name != own and (libraries or name.startswith("mbufpools")):
            continue
        for variable, value in list(vars(sys.modules[name]).items()):
            if not variable.startswith("__"):
                yield f"{name}.{variable}", value


def bound_to_loops(program: Any) -> dict[str, str]:
    """Return the variables that hold a primitive of asyncio which belongs to an event loop, with
    what to say of them. Each execution has a loop of its own, so a later one cannot use it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as in `_state_of`
        return {
            name: f"an asyncio {type(value).__name__}, bound to the event loop that used it first"
            for name, value in variables(program)
            if isinstance(getattr(value, "_loop", None), asyncio.AbstractEventLoop)
        }


def _fingerprints(name: str, value: Any) -> Iterator[tuple[str, object]]:
    """Yield how a variable looks: what it is, and what it holds."""
    if isinstance(value, type):
        for attribute, inner in list(vars(value).items()):
            cached = hasattr(inner, "cache_info")
            method = hasattr(type(inner), "__get__") and not cached
            if not attribute.startswith("__") and not method and not isinstance(inner, type):
                yield from _fingerprints(f"{name}.{attribute}", inner)
        return
    if hasattr(value, "cache_info"):
        yield name, value.cache_info().currsize
    elif callable(value) or type(value).__name__ == "module":
        return
    elif isinstance(value, dict | list | set | deque):
        held = value.values() if isinstance(value, dict) else value
        yield name, (id(value), len(value), *map(id, islice(held, LOOKED_AT)))
    else:
        yield name, (id(value), tuple((key, id(it)) for key, it in attributes_of(value)))


def attributes_of(value: Any) -> Iterator[tuple[str, object]]:
    """Yield the attributes of an object, also of one with slots."""
    yield from list(getattr(value, "__dict__", {}).items())
    for cls in type(value).__mro__:
        slots = cls.__dict__.get("__slots__", ())
        for slot in (slots,) if isinstance(slots, str) else slots:
            if hasattr(value, slot):
                yield slot, getattr(value, slot)
