"""Which promises of the core an ablation takes away, and how.

Each cut edits the source of functions of the core, as it stands, and compiles it again; so a cut
whose text is no longer there is an error, and nothing is measured of a copy. The cuts of one table
add up: the last row has lost all of them.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from mbufpools import Budget, Buffer, BufferPools, Pool
from mbufpools._page import PageLists
from mbufpools._reservation import Reservation
from mbufpools._set_state import SetState
from mbufpools._supply import Supply
from mbufpools._waiters import Waiters

__all__ = [
    "CUTS_OF_A_CANCELLATION",
    "CUTS_OF_A_HAND_OFF",
    "CUTS_OF_A_PAGE",
    "CUTS_OF_A_PAIR",
    "CUTS_OF_A_RESERVATION",
    "CUTS_OF_A_WAKEUP",
    "Cut",
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


CUTS_OF_A_WAKEUP = (
    Cut("the look at the stack's depth", {RELEASE: (("if stack_is_full():", "if False:"),)}),
    Cut("the statistics of waits", {HAND_OVER: (("self._count_grant(request)", "pass"),)}),
    Cut(
        "the look for other requests and hooks",
        {
            HAND_OVER: (
                (
                    "if (\n        len(self.active) != 1",
                    "if not requests.count or False and (\n        len(self.active) != 1",
                ),
            )
        },
    ),
    Cut(
        "the repair after an exception",
        {HAND_OVER: (("except BaseException:", "except ZeroDivisionError:"),)},
    ),
)

GIVE_BACK, WITHDRAW = (Waiters, "_give_back"), (Waiters, "_withdraw")

CUTS_OF_A_CANCELLATION = (
    Cut("the look at the new head", {GIVE_BACK: (("if was_head:", "if False:"),)}),
    Cut(
        "the count and the report",
        {
            WITHDRAW: (
                ("if request.parked:", "if False:"),
                ("if request.parked and", "if False and"),
            )
        },
    ),
    Cut(
        "the second try after a Ctrl-C",
        {ACQUIRE: (("if request.after is not None or request.granted is not None:", "if False:"),)},
    ),
)

ADD_PAGE, PRIME, PAGE_OUT = (Supply, "add_page"), (Pool, "prime"), (SetState, "page_out")

CUTS_OF_A_PAGE = (
    Cut(
        "the events",
        {
            ADD_PAGE: (
                (
                    "self.state.observer.tell(EventKind.PAGE_IN, self.name, self.page_size)",
                    "pass",
                ),
            ),
            PAGE_OUT: (("self.observer.tell(EventKind.PAGE_OUT, name, nbytes)", "pass"),),
        },
    ),
    Cut("the wakeup policy", {PAGE_OUT: (("self.budget.on_credit(nbytes)", "pass"),)}),
    Cut("the waiters' turn", {PRIME: (("self._waiters.wakeup(supply)", "pass"),)}),
    Cut("the look at the idle pages", {ADD_PAGE: (("self.watch()", "pass"),)}),
    Cut("the first tokens", {(PageLists, "insert"): (("page.make_tokens()", "pass"),)}),
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
