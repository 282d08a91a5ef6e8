"""Makes the schedule of a failure shorter: it looks for fewer deviations that still fail.

This is delta debugging. Each attempt leaves out a group of deviations and executes the rest. First
it leaves out all of them, then halves, then quarters, and so on down to single ones.
"""

from __future__ import annotations

from collections.abc import Callable

from ._schedule import Deviations

__all__ = ["shrink"]

MAX_REPLAYS = 60
"""Shrinking ends after this many executions, so that a long schedule does not take minutes."""


def shrink(
    deviations: Deviations, fails: Callable[[Deviations], Deviations | None]
) -> tuple[Deviations, int]:
    """Leave out deviations for as long as the program still fails in the same way.

    `fails` executes a schedule and returns the deviations that it really took, or None if it did
    not fail in the same way.

    Returns the deviations that are left, and the number of executions. The last execution that
    failed is the one with the deviations that are left.
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
        # The last deviations first: those that come after the cause of the failure matter least.
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
