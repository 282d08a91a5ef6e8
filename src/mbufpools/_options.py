"""The options of one pool set, as one object that travels from the constructor to the parts."""

from __future__ import annotations

from typing import NamedTuple

from ._events import Hook
from ._memory import Memory
from ._policies import CurPage, Order, Reclaim, Wakeup

__all__ = ["SetOptions"]


class SetOptions(NamedTuple):
    """What the caller chose, unchecked; `BufferPools` documents each option."""

    name: str
    wakeup: Wakeup | str
    order: Order | str
    reclaim: Reclaim | str
    near_limit_margin: int | None
    fast_acquire: bool
    debug: bool
    memory: Memory | None
    hook: Hook | None
    collect_garbage: bool = True
    max_passes: int | None = None
    """Of `BufferPools` only."""
    curpage: CurPage | str = CurPage.REFRESHED
    """Of `MbufPools` only."""
