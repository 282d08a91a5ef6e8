"""The choices: who is woken when a page leaves, who goes first, when idle pages leave, and
which page the next item comes from.

Each is a string enum, so ``wakeup="deferred"`` works wherever ``Wakeup.DEFERRED`` does. The two
sets of rules, the kernel's and the application's, are two rows of one table (`Rules`). Uses
`_errors` only.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TypeVar

from ._errors import ConfigurationError

__all__ = [
    "APPLICATION",
    "KERNEL",
    "CurPage",
    "Order",
    "Reclaim",
    "Rules",
    "Wakeup",
    "choose",
]


class Wakeup(enum.StrEnum):
    """Who wakes the sleepers of the other pools when a page goes back to the budget."""

    NONE = "none"
    """Nobody: the kernel before the patch."""
    DEFERRED = "deferred"
    """One task on the task queue, however many pages leave before it runs: the patch."""
    DIRECT = "direct"
    """The page free itself, once for each page: the reviewer's alternative."""
    NEAR_LIMIT = "near-limit"
    """The task, but only when what is allocated is within a margin of the limit: the author's
    alternative."""


class Order(enum.StrEnum):
    """Who is served first."""

    FIFO = "fifo"
    """Nobody overtakes, in no pool, nor in `get_nowait`; freed bytes gather for the oldest."""
    BOUNDED = "bounded"
    """As FIFO, but a get that free items of its own pool can serve may pass a waiting claim, a
    bounded number of times."""
    BARGING = "barging"
    """A newcomer tries before it looks at those who wait; FIFO among the waiters of one pool.
    The kernel's."""


class Reclaim(enum.StrEnum):
    """When idle pages leave."""

    PRESSURE = "pressure"
    """Before anybody has to wait idle pages of the other pools leave, the longest idle first,
    never below a pool's minimum; and while a claim waits, a page that becomes idle leaves at
    once. Otherwise as ``gc``."""
    GC = "gc"
    """After eight seconds, one page a pool a second. The kernel's."""


class CurPage(enum.StrEnum):
    """Whether a put that turns a full page partial shows its item to a pool that has no other."""

    REFRESHED = "refreshed"
    """Yes: the one-line cure."""
    STALE = "stale"
    """No: the kernel as it is. The items stay hidden until the page is empty."""


_Choice = TypeVar("_Choice", Wakeup, Order, Reclaim, CurPage)


def choose(kind: type[_Choice], value: _Choice | str) -> _Choice:
    """Return `value` as a member of `kind`. Raises ConfigurationError, which lists them."""
    try:
        return kind(value)
    except ValueError:
        names = ", ".join(repr(str(member)) for member in kind)
        raise ConfigurationError(
            f"{kind.__name__.lower()} is {value!r}; expected one of {names}"
        ) from None


@dataclass(frozen=True, slots=True)
class Rules:
    """Where the kernel and an application want different things."""

    refuse_impossible: bool
    """A request that can never be served fails at once, instead of sleeping for ever."""
    hard_limit_wakes: bool
    """Raising a pool's hard limit serves those who waited at it."""
    put_keeps_minimum: bool
    """A put lets no page go that the pool's minimum needs. (The kernel's put does not look.)"""


KERNEL = Rules(refuse_impossible=False, hard_limit_wakes=False, put_keeps_minimum=False)
APPLICATION = Rules(refuse_impossible=True, hard_limit_wakes=True, put_keeps_minimum=True)
