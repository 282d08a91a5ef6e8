"""The primitives of the installed anyio, trio and asyncio, under every schedule of small programs.

`python -m tests.primitives` explores them all, and prints what was covered and found.
"""

from __future__ import annotations

from tests.primitives import exclusion, hand_off, stopping

from ._subject import BOTH, Subject

__all__ = ["BOTH", "SUBJECTS", "Subject"]

SUBJECTS: tuple[Subject, ...] = (*exclusion.SUBJECTS, *hand_off.SUBJECTS, *stopping.SUBJECTS)
