"""What a pool is made from: its size class, and the geometry of its pages.

An item begins at a multiple of a cache line. A page is the smallest power of two, from 4096 bytes
up, that holds the items asked for, so it may hold more of them.
"""

from __future__ import annotations

from ._errors import ConfigurationError
from ._sizes import parse_bytes, require_count

__all__ = ["ALIGNMENT", "PoolSpec", "page_geometry", "stride_of"]

PAGE_SIZE = 4096
"""Bytes of the smallest page."""
ALIGNMENT = 64
"""Bytes: items begin at multiples of a cache line (the ``align`` of uipc_mbuf.c:mbinit)."""
IDLE_PAGES = 8
"""Pages whose items are the default of `max_idle_items` (the kernel's default ``maxpages``)."""


def page_geometry(item_size: int, items_per_page: int) -> tuple[int, int]:
    """Return (bytes of a page, items that fit): the smallest power of two from 4096 up that
    holds at least `items_per_page` items (subr_pool.c:pool_init)."""
    stride = stride_of(item_size)
    page_size = PAGE_SIZE
    while page_size < stride * items_per_page:
        page_size *= 2
    return page_size, page_size // stride


def stride_of(item_size: int) -> int:
    """Return the bytes from one item to the next: `item_size` rounded up to the alignment."""
    return -(-item_size // ALIGNMENT) * ALIGNMENT


class PoolSpec:
    """The size class of one pool.

    Args:
        item_size: bytes of an item, as an integer or a string such as ``"64 KiB"``.
        name: the pool's name; by default the item size in digits.
        items_per_page: how many items a page holds at least. A page is the smallest power of
            two from 4096 bytes up that holds them. Whole pages come and go, so for large items
            1 keeps pages small.
        min_items: items whose pages the pool keeps; they are charged when the set is entered.
        max_items: items that may be out at once; None sets no limit but the budget's.
        max_idle_items: items in idle pages. A put that leaves more idle pages than these items
            need frees the oldest idle page, once it has been idle for more than a second. By
            default the items of eight pages (the kernel's ``maxpages``).

    Raises:
        TypeError: a number that is not an integer.
        ConfigurationError: a number too small, or a maximum below the minimum.
    """

    __slots__ = (
        "item_size",
        "items_per_page",
        "max_idle_items",
        "max_items",
        "min_items",
        "name",
        "page_size",
    )

    def __init__(
        self,
        item_size: int | str,
        *,
        name: str | None = None,
        items_per_page: int = 8,
        min_items: int = 0,
        max_items: int | None = None,
        max_idle_items: int | None = None,
    ) -> None:
        self.item_size: int = parse_bytes(item_size, "the item size of a pool")
        if name is not None and not isinstance(name, str):
            raise TypeError(f"the name of a pool is {name!r}; expected a string")
        self.name: str = name or str(self.item_size)
        what = f"of pool {self.name!r}"
        require_count(items_per_page, f"items_per_page {what}", minimum=1)
        self.min_items: int = require_count(min_items, f"min_items {what}")
        self.max_items: int | None = max_items
        if max_items is not None:
            require_count(max_items, f"max_items {what}", minimum=1)
            if max_items < min_items:
                raise ConfigurationError(
                    f"pool {self.name!r} has min_items={min_items} above max_items={max_items}; "
                    f"lower the one or raise the other"
                )
        page_size, items_per_page = page_geometry(self.item_size, items_per_page)
        self.page_size: int = page_size
        self.items_per_page: int = items_per_page
        if max_idle_items is None:
            max_idle_items = IDLE_PAGES * self.items_per_page
        self.max_idle_items: int = require_count(max_idle_items, f"max_idle_items {what}")

    @property
    def min_pages(self) -> int:
        """Pages that hold `min_items`."""
        return -(-self.min_items // self.items_per_page)

    def __repr__(self) -> str:
        return (
            f"<PoolSpec {self.name!r}: {self.item_size} bytes, "
            f"{self.items_per_page} to a page of {self.page_size}>"
        )
