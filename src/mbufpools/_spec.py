"""What a pool is made from. Uses `_errors` and `_sizes`."""

from __future__ import annotations

from ._errors import ConfigurationError
from ._sizes import parse_bytes, require_count

__all__ = ["PoolSpec", "page_geometry"]

PAGE_SIZE = 4096
ALIGNMENT = 64
"""Bytes: items begin at multiples of a cache line (the ``align`` of uipc_mbuf.c:mbinit)."""


def page_geometry(item_size: int, items_per_page: int) -> tuple[int, int]:
    """Return (bytes of a page, items that fit): the smallest power of two from 4096 up that
    holds at least `items_per_page` items (subr_pool.c:pool_init)."""
    stride = stride_of(item_size)
    page_size = PAGE_SIZE
    while page_size < stride * items_per_page:
        page_size *= 2
    return page_size, page_size // stride


def stride_of(item_size: int) -> int:
    """Bytes from one item to the next: `item_size` rounded up to the alignment."""
    return -(-item_size // ALIGNMENT) * ALIGNMENT


class PoolSpec:
    """The size class of one pool.

    Args:
        item_size: bytes of an item, as an integer or a string such as ``"64 KiB"``.
        name: by default the item size in digits.
        items_per_page: how many items a page holds at least. A page is the smallest power of
            two from 4096 bytes up that holds them; a whole page comes and goes at a time, so
            for large items 1 keeps pages small.
        min_items: items whose pages the pool keeps, charged when the set is entered.
        max_items: items that may be out at once; None is no limit but the budget's.
        max_idle_pages: idle pages above which a put lets the oldest go, once it has been idle
            for a second (the kernel's ``maxpages``).

    Raises:
        TypeError: a number that is not an integer.
        ConfigurationError: a number too small, or a maximum below the minimum.
    """

    __slots__ = (
        "item_size",
        "items_per_page",
        "max_idle_pages",
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
        max_idle_pages: int = 8,
    ) -> None:
        self.item_size = parse_bytes(item_size, "the item size of a pool")
        if name is not None and not isinstance(name, str):
            raise TypeError(f"the name of a pool is {name!r}; expected a string")
        self.name = name or str(self.item_size)
        what = f"of pool {self.name!r}"
        require_count(items_per_page, f"items_per_page {what}", minimum=1)
        self.min_items = require_count(min_items, f"min_items {what}")
        self.max_items = max_items
        if max_items is not None:
            require_count(max_items, f"max_items {what}", minimum=1)
            if max_items < min_items:
                raise ConfigurationError(
                    f"pool {self.name!r} has min_items={min_items} above max_items={max_items}; "
                    f"lower the one or raise the other"
                )
        self.max_idle_pages = require_count(max_idle_pages, f"max_idle_pages {what}", unit="pages")
        self.page_size, self.items_per_page = page_geometry(self.item_size, items_per_page)

    @property
    def min_pages(self) -> int:
        """Pages that hold `min_items`."""
        return -(-self.min_items // self.items_per_page)

    def __repr__(self) -> str:
        return (
            f"<PoolSpec {self.name!r}: {self.item_size} bytes, "
            f"{self.items_per_page} to a page of {self.page_size}>"
        )
