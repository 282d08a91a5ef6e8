"""Why a goal is not held: what is left of the cost when one promise after another is taken away.

Each cut edits the source of functions of the core, as it stands, and compiles it again; so a cut
whose text is no longer there is an error, and nothing is measured of a copy. The cuts of one table
add up: the last row has lost all of them. What is left there of a get and a release is a fresh
object that takes an item and gives it back.
"""

from __future__ import annotations

import asyncio
import inspect
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from mbufpools import AccountedMemory, Budget, Buffer, BufferPools, Pool, PoolSpec
from mbufpools._reservation import Reservation
from mbufpools._set_state import SetState
from mbufpools._waiters import Waiters

from ._forms import Form
from ._handing import by_event, by_pool
from ._rows import LESS, WHOLE, Show, compare
from ._timing import Run, in_turn, repeat, repeat_awaiting

__all__ = [
    "CUTS_OF_A_HAND_OFF",
    "CUTS_OF_A_PAIR",
    "CUTS_OF_A_RESERVATION",
    "Cut",
    "rows",
    "without",
]

Edits = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Cut:
    """A promise that is taken away."""

    what: str
    """What is lost."""
    edits: Mapping[Any, Edits]
    """For each class, or class and name, what is replaced in its source, and by what."""


RESERVE = (BufferPools, "reserve")
GET, RELEASE = (Pool, "get_nowait"), (Buffer, "release")

CUTS_OF_A_PAIR = (
    Cut(
        "the check of the thread",
        {GET: ((" or self._owner_loop.open_to != get_ident()", ""),)},
    ),
    Cut(
        "the second look for waiters",
        {RELEASE: ((" or supply.watched:", ":"),)},
    ),
    Cut(
        "the look for waiters and hooks",
        {RELEASE: (("if supply.watched:", "if False:"),)},
    ),
    Cut(
        "the end of the view",
        {RELEASE: (("if item.window is not None:", "if False:"),)},
    ),
    Cut(
        "the counts of gets and puts",
        {GET: (("supply.nget += 1", "pass"),), RELEASE: (("supply.nput += 1; ", ""),)},
    ),
    Cut(
        "the lease's pool and bytes",
        {
            GET: (
                ("buffer._pool = self", "pass"),
                ("buffer._nbytes = _nbytes", "pass"),
            )
        },
    ),
    Cut(
        "the lists of the pages",
        {
            GET: (("if not stock:", "if False:"),),
            RELEASE: (("if len(free) >= page.alarm:", "if False:"),),
        },
    ),
    Cut(
        "the repair after an exception",
        {
            GET: (("except BaseException:", "except ZeroDivisionError:"),),
            RELEASE: (("except BaseException:", "except ZeroDivisionError:"),),
        },
    ),
)

JOIN, PARK, ACQUIRE = (Waiters, "_join"), (Waiters, "_park"), (Waiters, "acquire")
HAND_OVER, REQUEST = (Waiters, "_hand_over"), (Waiters, "request")

CUTS_OF_A_HAND_OFF = (
    Cut(
        "the checks of loop and task",
        {ACQUIRE: (("self.check_caller(queue)", "None"),)},
    ),
    Cut(
        "the statistics of waits",
        {HAND_OVER: (("self._count_grant(request)", "pass"),)},
    ),
    Cut("the time of the wait", {REQUEST: (("self._state.owner_loop.clock()", "0"),)}),
    Cut("the look at the stack's depth", {RELEASE: (("if stack_is_full():", "if False:"),)}),
    Cut(
        "the error for the impossible",
        {ACQUIRE: (("self.refuse_impossible(queue, request)", "pass"),)},
    ),
    Cut(
        "the idle pages' leaving",
        {PARK: (("if self.reclaimer.pressure and state.supplies_with_idle:", "if False:"),)},
    ),
    Cut(
        "the look at the queue's head",
        {JOIN: (("if first or self._may_serve_head(queue):", "if first:"),)},
    ),
    Cut(
        "the try before it joins",
        {ACQUIRE: (("if not self.must_queue or", "if False and"),)},
    ),
    Cut(
        "the repair after an exception",
        {JOIN: (("except BaseException as error:", "except ZeroDivisionError as error:"),)},
    ),
)

TRY, UNRESERVE = (Waiters, "reserve_at_once"), (SetState, "unreserve")

CUTS_OF_A_RESERVATION = (
    Cut(
        "the checks of loop and thread",
        {
            (BufferPools, "_reserve"): (
                ("if yielded and owner_loop.open_to == get_ident():", "if True:"),
                ("owner_loop.running_task()", "pass"),
            )
        },
    ),
    Cut(
        "the check of the number",
        {RESERVE: (("if type(nbytes) is not int or nbytes < 1:", "if False:"),)},
    ),
    Cut(
        "the form for `async with`",
        {
            RESERVE: (
                (
                    "return Reserving(self._reserve, nbytes)",
                    "return self._reserve(nbytes)",
                ),
            )
        },
    ),
    Cut(
        "the low-memory flag",
        {
            (Budget, "charge"): (("if allocated >= self._low_from:", "if False:"),),
            (Budget, "uncharge"): (("if self._low_memory:", "if False:"),),
        },
    ),
    Cut(
        "the report of a dropped one",
        {(Reservation, "__del__"): (("state, number = self._state, self.number", "return"),)},
    ),
    Cut(
        "the repair after an exception",
        {
            TRY: (("except BaseException:", "except ZeroDivisionError:"),),
            UNRESERVE: (("except BaseException as error:", "except ZeroDivisionError as error:"),),
        },
    ),
)


@contextmanager
def without(cuts: tuple[Cut, ...]) -> Iterator[None]:
    """Make the cuts, and mend them again at the end.

    Raises:
        ValueError: the source of a function has no longer what a cut replaces.
    """
    edits: dict[tuple[type, str], list[tuple[str, str]]] = {}
    for cut in cuts:
        for where, texts in cut.edits.items():
            edits.setdefault(where, []).extend(texts)
    before = {where: vars(where[0])[where[1]] for where in edits}
    try:
        for (kind, name), replaced in edits.items():
            setattr(kind, name, _edited(before[kind, name], replaced))
        yield
    finally:
        for (kind, name), function in before.items():
            setattr(kind, name, function)


def _edited(function: Any, texts: list[tuple[str, str]]) -> Any:
    source = textwrap.dedent(inspect.getsource(function))
    for old, new in texts:
        if source.count(old) != 1:
            raise ValueError(
                f"{function.__qualname__} has {old!r} {source.count(old)} times; "
                f"a cut of {__name__} replaces it and needs it once. If the function was changed "
                f"on purpose, change the cut in the same way"
            )
        source = source.replace(old, new)
    names: dict[str, Any] = {}
    exec(f"from __future__ import annotations\n{source}", function.__globals__, names)
    return names[function.__name__]


async def rows(backend: str, form: Form, show: Show) -> None:
    """Measure a pair, a hand-off and a reservation, with fewer and fewer promises."""
    await _pair(backend, form, show)
    await _hand_off(backend, form, show)
    await _reservation(backend, form, show)


def _with_fewer(name: str, cuts: tuple[Cut, ...], run: Run) -> dict[str, Run]:
    """Make a run for each number of cuts. The keys are the names of the rows."""

    def cut_run(some: tuple[Cut, ...]) -> Run:
        async def measured(n: int) -> float:
            with without(some):
                result = run(n // 4)  # so that the interpreter has adapted to the functions
                if inspect.isawaitable(result):
                    await result
                result = run(n)
                return await result if inspect.isawaitable(result) else result

        return measured

    return {
        f"{LESS}{cuts[number - 1].what}" if number else f"{name}{WHOLE}": cut_run(cuts[:number])
        for number in range(len(cuts) + 1)
    }


async def _pair(backend: str, form: Form, show: Show) -> None:
    queue: asyncio.Queue[object] = asyncio.Queue()
    for _ in range(64):
        queue.put_nowait(object())
    async with BufferPools("64 MiB", [2048]) as pools:
        pool = pools.pools["2048"]
        with pool.get_nowait():
            runs = _with_fewer(
                "get and release", CUTS_OF_A_PAIR, repeat("p.get_nowait().release()", p=pool)
            )
            peer = repeat("q.put_nowait(q.get_nowait())", q=queue)
            times = await in_turn({**runs, "peer": peer}, form.calls, form.rounds)
    peers = "asyncio.Queue, nowait"
    for name in runs:
        show(compare(name, backend, times[name], peers, times["peer"]))


async def _hand_off(backend: str, form: Form, show: Show) -> None:
    spec = PoolSpec(4096, items_per_page=1)
    async with BufferPools(4096, [spec], memory=AccountedMemory(), fast_acquire=True) as pools:
        pool = pools.pools["4096"]
        runs = _with_fewer("hand-off", CUTS_OF_A_HAND_OFF, lambda n: by_pool(pool, n))
        times = await in_turn({**runs, "peer": by_event}, form.calls // 4, form.rounds)
    peers = "an anyio.Event each time"
    for name in runs:
        show(compare(name, backend, times[name], peers, times["peer"]))


async def _reservation(backend: str, form: Form, show: Show) -> None:
    async with BufferPools("64 MiB", [2048], fast_acquire=True) as pools:
        pool = pools.pools["2048"]
        with pool.get_nowait():
            reserve = repeat_awaiting("(await p.reserve(100)).release()", p=pools)
            runs = _with_fewer("reserve", CUTS_OF_A_RESERVATION, reserve)
            peer = repeat_awaiting("(await p.get()).release()", p=pool)
            times = await in_turn({**runs, "peer": peer}, form.calls // 4, form.rounds)
    peers = "await get, fast_acquire"
    for name in runs:
        show(compare(name, backend, times[name], peers, times["peer"]))
