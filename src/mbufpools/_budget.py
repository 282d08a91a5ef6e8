"""The budget: how many bytes all pools together may hold.

Models ``mbuf_mem_limit`` and ``mbuf_mem_alloc`` (uipc_mbuf.c:m_pool_alloc, m_pool_free). It knows
no pool: who must hear of a credit or a new limit is told by two callbacks. Invariant:
``allocated`` is the sum of what was charged and not credited; it exceeds ``limit`` only as a debt
after `resize`. A charge is decided before the sum is changed, so that a large one that fails
can never make a small one fail meanwhile. Uses `_errors`, `_sizes` and `_statistics`.
"""

from __future__ import annotations

from collections.abc import Callable

from ._errors import ConfigurationError, PoolCorruption
from ._sizes import format_bytes, parse_bytes
from ._statistics import BudgetStatistics

__all__ = ["Budget"]

LOW_MEMORY_ON = 80
LOW_MEMORY_OFF = 60
"""Per cent of the limit (uipc_socket2.c:sbchecklowmem)."""


def _nothing() -> None:
    """The callback of a budget that nobody listens to."""


class Budget:
    """A limit in bytes, and what is charged against it.

    Nothing here waits: whoever is refused decides what to do. Not safe across threads.

    Args:
        limit: bytes, as an integer or a string such as ``"64 MiB"``.

    Raises:
        ConfigurationError: a limit below one byte.
    """

    __slots__ = (
        "_allocated",
        "_drops",
        "_limit",
        "_low_memory",
        "_peak",
        "min_limit",
        "on_credit",
        "on_resize",
    )

    def __init__(self, limit: int | str) -> None:
        self._limit = parse_bytes(limit, "the limit of a Budget")
        self._allocated = 0
        self._peak = 0
        self._drops = 0
        self._low_memory = False
        self.min_limit: Callable[[], int] = lambda: 1
        """Bytes below which the limit cannot be set."""
        self.on_credit: Callable[[int], None] = lambda nbytes: None
        self.on_resize: Callable[[], None] = _nothing

    @property
    def limit(self) -> int:
        """Bytes that may be charged in all (``mbuf_mem_limit``)."""
        return self._limit

    @property
    def allocated(self) -> int:
        """Bytes charged now (``mbuf_mem_alloc``)."""
        return self._allocated

    @property
    def available(self) -> int:
        """Bytes that a charge may still take; 0 while there is a debt."""
        return max(0, self._limit - self._allocated)

    @property
    def debt(self) -> int:
        """Bytes charged beyond the limit, after it was lowered; collected as pages leave."""
        return max(0, self._allocated - self._limit)

    @property
    def peak(self) -> int:
        """The most bytes ever charged at once."""
        return self._peak

    @property
    def drops(self) -> int:
        """Charges refused (``mbs_drops``)."""
        return self._drops

    @property
    def used_percent(self) -> int:
        """Bytes charged as a whole percentage of the limit, rounded down (``m_pool_used``)."""
        return self._allocated * 100 // self._limit

    @property
    def low_memory(self) -> bool:
        """On above 80 % used, off again below 60 % (``sbchecklowmem``).

        The kernel looks only when it is asked; this flag follows every change.
        """
        return self._low_memory

    def charge(self, nbytes: int) -> bool:
        """Take `nbytes` bytes if they fit; otherwise count a drop and return False.

        Never blocks. Models ``m_pool_alloc`` without its window between adding and checking.
        """
        if self._allocated + nbytes > self._limit:
            self._drops += 1
            return False
        self._allocated += nbytes
        self._peak = max(self._peak, self._allocated)
        self._update_low_memory()
        return True

    def credit(self, nbytes: int, *, first: Callable[[], None] = _nothing) -> None:
        """Give `nbytes` charged bytes back, then tell who listens (``m_pool_free``).

        The subtraction comes before all: a wakeup that ran before it would find nothing. What
        is called `first` comes between the two.
        """
        if nbytes > self._allocated:
            raise PoolCorruption(f"{self!r} was credited {nbytes} bytes, more than are charged")
        self._allocated -= nbytes
        self._update_low_memory()
        first()
        self.on_credit(nbytes)

    def resize(self, limit: int | str) -> None:
        """Set a new limit in bytes, then tell who listens. Below `allocated` it makes a debt.

        Raises:
            ConfigurationError: below one byte, or below what pools keep as their minimum;
                nothing has changed.
        """
        limit = parse_bytes(limit, "the limit of a Budget")
        min_limit = self.min_limit()
        if limit < min_limit:
            raise ConfigurationError(
                f"the limit cannot be set to {limit} bytes: the pools keep {min_limit} as their "
                f"minimum; lower their min_items (set_low_water) first"
            )
        self._limit = limit
        self._update_low_memory()
        self.on_resize()

    def statistics(self) -> BudgetStatistics:
        """Return a snapshot, all in bytes but for the counts."""
        return BudgetStatistics(
            limit=self._limit,
            allocated=self._allocated,
            peak=self._peak,
            drops=self._drops,
            used_percent=self.used_percent,
            low_memory=self._low_memory,
        )

    def _update_low_memory(self) -> None:
        used = self.used_percent
        if used > LOW_MEMORY_ON:
            self._low_memory = True
        elif used < LOW_MEMORY_OFF:
            self._low_memory = False

    def __repr__(self) -> str:
        return f"<Budget {format_bytes(self._allocated)} of {format_bytes(self._limit)}>"
