"""The budget: how many bytes all pools together may hold.

Models ``mbuf_mem_limit`` and ``mbuf_mem_alloc`` (uipc_mbuf.c:m_pool_alloc, m_pool_free).

The budget has no reference to a pool. It tells what happens through three callbacks, which
`BufferPools._wire` sets: `min_limit` is asked before a new limit is set, `on_resize` is called
after that, and `on_credit` after bytes came back.

Invariants: `allocated` is the sum of the charged bytes that were not credited yet. It exceeds
`limit` only as a debt, after `resize`. A charge is decided before the sum is changed, so a large
charge that fails can never make a small one fail at the same time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ._errors import ConfigurationError, PoolCorruption
from ._sizes import format_bytes, parse_bytes

if TYPE_CHECKING:
    from ._statistics import BudgetStatistics

__all__ = ["Budget"]

LOW_MEMORY_ON = 80
LOW_MEMORY_OFF = 60
"""Per cent of the limit at which `low_memory` goes on and off (uipc_socket2.c:sbchecklowmem)."""


def _nothing() -> None:
    """Does nothing: the callback of a budget that has no pools."""


class Budget:
    """A limit in bytes, and the bytes that are charged against it.

    No call blocks: a refused caller decides what to do next. The calls are not safe across
    threads.

    Args:
        limit: bytes, as an integer or a string such as ``"64 MiB"``.

    Raises:
        ConfigurationError: a limit below one byte.
    """

    __slots__ = (
        "_allocated",
        "_drops",
        "_limit",
        "_low_from",
        "_low_memory",
        "_peak",
        "min_limit",
        "on_credit",
        "on_resize",
    )

    def __init__(self, limit: int | str) -> None:
        self._allocated = 0
        self._peak = 0
        self._drops = 0
        self._low_memory = False
        self._set_limit(parse_bytes(limit, "the limit of a Budget"))
        self.min_limit: Callable[[], int] = lambda: 1
        """Asked by `resize`: the bytes below which the limit cannot be set. `BufferPools._wire`
        sets it, and the other two."""
        self.on_credit: Callable[[int], None] = lambda nbytes: None
        """Called by `credit` with the bytes that came back: the wakeup policy."""
        self.on_resize: Callable[[], None] = _nothing
        """Called by `resize` once the new limit is set."""

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

    def lacks(self, nbytes: int) -> bool:
        """Return True if a charge of `nbytes` bytes would be refused."""
        return self._allocated + nbytes > self._limit

    @property
    def debt(self) -> int:
        """Bytes charged beyond the limit, after it was lowered; collected as pages leave."""
        return max(0, self._allocated - self._limit)

    @property
    def peak(self) -> int:
        """The most bytes that were ever charged at once."""
        return self._peak

    @property
    def drops(self) -> int:
        """Charges that the limit refused (``mbs_drops``).

        The kernel also counts a page that the system refuses; here that is a MemoryError of the
        `Memory`, and no drop.
        """
        return self._drops

    @property
    def used_percent(self) -> int:
        """Bytes charged as a whole percentage of the limit, rounded down (``m_pool_used``)."""
        return self._allocated * 100 // self._limit

    @property
    def low_memory(self) -> bool:
        """True from above 80 % used until below 60 % used (``sbchecklowmem``).

        The kernel computes it only when it is asked; this flag follows every change.
        """
        return self._low_memory

    def charge(self, nbytes: int) -> bool:
        """Take `nbytes` bytes if they fit; otherwise count a drop and return False.

        Never blocks. Models ``m_pool_alloc`` without its window between adding and checking.
        """
        allocated = self._allocated + nbytes
        if allocated > self._limit:
            self._drops += 1
            return False
        self._allocated = allocated
        if allocated > self._peak:
            self._peak = allocated
        if allocated >= self._low_from:
            self._low_memory = True
        return True

    def credit(self, nbytes: int) -> None:
        """Give `nbytes` charged bytes back, then call `on_credit` (``m_pool_free``).

        The subtraction is the first step, because a wakeup that ran before it would find no free
        bytes. Never blocks.
        """
        self.uncharge(nbytes)
        self.on_credit(nbytes)

    def uncharge(self, nbytes: int) -> bool:
        """Give `nbytes` charged bytes back, and call nothing. Return True if there was a debt.
        Never blocks."""
        allocated = self._allocated
        if nbytes > allocated:
            raise PoolCorruption(f"{self!r} was credited {nbytes} bytes, more than are charged")
        self._allocated = allocated - nbytes
        if self._low_memory:
            self._update_low_memory()
        return allocated > self._limit

    def recount(self, allocated: int) -> None:
        """Set the charged bytes to what was counted, after an exception in the middle of a step."""
        self._allocated = allocated
        self._peak = max(self._peak, allocated)
        self._update_low_memory()

    def resize(self, limit: int | str) -> None:
        """Set a new limit in bytes, then call `on_resize`. A limit below `allocated` makes a debt.

        Never blocks.

        Raises:
            ConfigurationError: the limit is below one byte, or below what the pools keep as
                their minimum; nothing has changed.
        """
        limit = parse_bytes(limit, "the limit of a Budget")
        min_limit = self.min_limit()
        if limit < min_limit:
            raise ConfigurationError(
                f"the limit cannot be set to {limit} bytes: the pools keep {min_limit} as their "
                f"minimum; lower their min_items (set_min_items) first"
            )
        self._set_limit(limit)
        self.on_resize()

    def _set_limit(self, limit: int) -> None:
        self._limit = limit
        self._low_from = -(-limit * (LOW_MEMORY_ON + 1) // 100)
        self._update_low_memory()

    def statistics(self) -> BudgetStatistics:
        """Return a snapshot. Sizes are in bytes."""
        from ._statistics import BudgetStatistics

        return BudgetStatistics(
            limit=self._limit,
            allocated=self._allocated,
            peak=self._peak,
            drops=self._drops,
            used_percent=self.used_percent,
            low_memory=self._low_memory,
        )

    def _update_low_memory(self) -> None:
        if self._allocated >= self._low_from:
            self._low_memory = True
        elif self.used_percent < LOW_MEMORY_OFF:
            self._low_memory = False

    def __repr__(self) -> str:
        return f"<Budget {format_bytes(self._allocated)} of {format_bytes(self._limit)}>"
