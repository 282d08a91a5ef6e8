"""By which functions of pytest a test ends without a failure."""

from __future__ import annotations

import unittest

import pytest

from ._outcome import leaves

__all__ = ["ends_the_test"]


def ends_the_test(error: BaseException | None) -> str:
    """Return by which function of pytest an error ends the test without a failure, or "". A group
    does so only if it holds nothing else."""
    names = [_name(it) for it in leaves(error)]
    return names[0] if all(names) and names else ""


def _name(error: BaseException) -> str:
    if isinstance(error, pytest.skip.Exception | unittest.SkipTest):
        return "skip"
    return "xfail" if isinstance(error, pytest.xfail.Exception) else ""
