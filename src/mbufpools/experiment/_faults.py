"""The faults of the patch, one list for the mail and the pages; a test compares them.

They are no part of the workloads: `mbufpools.smp` has a schedule of each, under the same name.
"""

from __future__ import annotations

from ._measured import CAP

__all__ = ["FAULTS", "SPIN"]

FAULTS = {
    "header-refused": (
        "the pages of most pools have their headers in another pool, `phpool`. If it refuses after "
        "`m_pool_alloc` has succeeded, `pool_p_alloc` gives the page back by `m_pool_free`. With "
        "the patch this adds the task, the task tries again, and systqmp runs without a pause "
        "until there is a header. A cure is that a page given back unused causes no wakeup."
    ),
    "page-refused": (
        "a wakeup tries without sleeping (`PR_NOWAIT`). If the system has no page at that moment, "
        "the process sleeps on, today and under a direct wakeup as well, and nothing tries again "
        "when there is memory."
    ),
    "unlocked-look": (
        "`pool_wakeup` looks at `pr_requests` without the lock, while `pool_runqueue` may have "
        "taken the requests off it to try them. Then the wakeup is lost. A put has the same fault "
        "today."
    ),
    "mark-early": (
        "`task_add` reads the mark of the task without a lock. A CPU whose atomic subtraction is "
        "no barrier may read it before the budget is credited, and then the wakeup is lost. amd64 "
        "is no such CPU; other machines were not looked at."
    ),
}
"""Each fault of the patch by its name in `mbufpools.smp`, the worst first."""

SPIN = (
    "On the kernel's own code, with phpool made to refuse, the task ran until we stopped it after "
    f"{CAP:,} runs; a direct wakeup ran once."
)
"""What was measured of the first one."""
