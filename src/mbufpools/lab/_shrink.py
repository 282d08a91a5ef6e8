"""Fewer deviations that still fail: what a reader of a failure wants to see.

Uses `_schedule`.
"""

from __future__ import annotations

from collections.abc import Callable

from ._schedule import Deviations

__all__ = ["shrink"]

MAX_REPLAYS = 60


def shrink(
    deviations: Deviations, fails: Callable[[Deviations], Deviations | None]
) -> tuple[Deviations, int]:
    """Leave out deviations while it fails in the same way: all at once, then halves, quarters and
    so on, down to single ones (delta debugging).

    `fails` executes a schedule and returns the deviations that it really took, or None if it did
    not fail. Returns what is left, and the number of executions; the last one that failed is of
    what is left.
    """
    replays = 0

    def attempt(fewer: Deviations) -> Deviations | None:
        nonlocal replays
        replays += 1
        return fails(fewer)

    best = attempt({})
    if best is not None:
        return best, replays
    best = deviations
    size = len(best)
    failed_last = False
    while size >= 1 and len(best) > 1:
        size = min(size, len(best))
        keys = list(best)
        size = max(1, size // 2) if size == len(best) else size
        progress = False
        # The last ones first: what comes after the failure is decided matters least.
        for end in range(len(keys), 0, -size):
            if replays >= MAX_REPLAYS:
                break
            out = set(keys[max(0, end - size) : end])
            taken = attempt({key: it for key, it in best.items() if key not in out})
            failed_last = taken is not None
            if taken is not None and len(taken) < len(best):
                best, progress = taken, True
                break
        if not progress:
            if size == 1 or replays >= MAX_REPLAYS:
                break
            size //= 2
    if not failed_last:
        attempt(best)
    return best, replays
