"""The variants: each changes one rule, and says which scenarios are known to fail.

The first is the patch on a kernel with a cure for every fault that the lab found. Each other one
differs from it by what its line says.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ._rules import KERNEL, Caches, Charge, Look, Mark, Rules, Wakeup
from ._setups import LARGE, SMALL
from ._windows import WINDOWS, Window

__all__ = ["VARIANTS", "Variant"]


@dataclass(frozen=True, slots=True)
class Variant:
    """One kernel: its name and its rules."""

    name: str
    rule: str
    """The rule that differs, in a line."""
    rules: Rules
    scenarios: tuple[str, ...] = ()
    """The scenarios that are known to fail; if empty, all are explored, and none may fail."""
    in_kernel: bool = False
    """True if the real kernel has this rule, with the patch or without."""
    combination: bool = False
    """True if it is no rule of its own, but combines rules that have variants of their own."""
    in_kernel_if: str = ""
    """On which machines the real kernel may have this rule, if not on all."""
    cost: str = ""
    """What the rule costs the kernel, if it is a cure."""

    @property
    def window(self) -> Window | None:
        """How narrow the window of the fault is, if that was measured on the kernel's code."""
        return WINDOWS.get(self.name)


CURED = Rules()

VARIANTS: dict[str, Variant] = {
    each.name: each
    for each in (
        Variant(
            "cured",
            "the patch, with a cure for every fault of the kernel below but those of a system that "
            "is short of memory",
            CURED,
            cost="the two lines of curpage; a count of the requests not served yet, beside their "
            "list; a compare-and-swap for each page; a wakeup of the pool by a get that adds a "
            "page",
        ),
        Variant(
            "kernel",
            "the patch on the kernel as it is, without its caches and not short of memory: "
            "unlocked-look, add-then-check, new-page and stale",
            KERNEL,
            ("half-page", "put-get", "put-gets"),
            in_kernel=True,
            combination=True,
        ),
        Variant(
            "kernel-refreshed",
            "`kernel` with the cure of `stale`, two lines: a put shows the pool its item",
            replace(KERNEL, stale=False),
            ("put-get", "gc-get", "put-gets"),
            combination=True,
        ),
        Variant(
            "kernel-caches",
            "`kernel` with its caches: caches and cache-lists, too",
            replace(KERNEL, caches=Caches.KERNEL),
            ("put-get", "put-gets"),
            in_kernel=True,
            combination=True,
        ),
        # The wakeup
        Variant(
            "before",
            "no wakeup across pools: the kernel before the patch",
            replace(CURED, wakeup=Wakeup.NONE),
            ("gc-get", "gc-gets"),
            in_kernel=True,
        ),
        Variant(
            "direct",
            "the page free itself wakes all pools, also in the gc: the reviewer's alternative",
            replace(CURED, wakeup=Wakeup.DIRECT),
            cost="a run of all pools for each page that leaves",
        ),
        Variant(
            "wanted",
            "the page free itself wakes all pools if a sleeper has set a flag (2007), and then "
            "looked at the budget once more",
            replace(CURED, wakeup=Wakeup.WANTED),
            cost="one flag for all pools, and a look at the budget by each request refused",
        ),
        Variant(
            "wanted-late",
            "the same, and the sleeper does not look again after it has set the flag: no cure",
            replace(CURED, wakeup=Wakeup.WANTED, flag_rechecks=False),
            ("gc-get", "put-frees-get"),
        ),
        Variant(
            "near-limit",
            f"the task is added only if fewer than {2 * LARGE} bytes (two large pages) are free",
            replace(CURED, margin=2 * LARGE),
        ),
        Variant(
            "near-limit-small",
            f"the same with {2 * SMALL} bytes, which is less than the largest page",
            replace(CURED, margin=2 * SMALL),
            ("two-puts", "puts"),
        ),
        Variant(
            "task-first",
            "the wakeup task is added before the budget is credited",
            replace(CURED, credit_first=False),
            ("put-frees", "puts"),
        ),
        # The task queue
        Variant(
            "mark-locked",
            "the queued mark is only tested under its lock, and not read before",
            replace(CURED, mark=Mark.LOCKED),
            cost="the mutex of systqmp in each task_add, also if the task is queued already",
        ),
        Variant(
            "mark-unlocked",
            "the queued mark is only tested without its lock",
            replace(CURED, mark=Mark.UNLOCKED),
            ("gc-put", "puts"),
        ),
        Variant(
            "mark-late",
            "the queued mark is cleared after the task has run",
            replace(CURED, mark=Mark.LATE),
            ("two-puts", "puts"),
        ),
        Variant(
            "mark-early",
            "the queued mark is read before the budget is credited, as a CPU may reorder it",
            replace(CURED, mark=Mark.EARLY),
            ("two-puts", "puts"),
            in_kernel_if="the CPU may read before an atomic subtraction is done, as amd64 does not",
        ),
        # The requests
        Variant(
            "no-second-try",
            "a process that has enqueued a request does not run the queue again before it sleeps",
            replace(CURED, second_try=False),
            ("gc-get", "gc-gets"),
        ),
        Variant(
            "no-bump",
            "a CPU that finds the queue being run does not make the runner go round again",
            replace(CURED, bump=False),
            ("gc-get", "gc-gets"),
        ),
        Variant(
            "unlocked-look",
            "a wakeup looks for requests without their lock, while a runner may have taken them",
            replace(CURED, look=Look.LIST),
            ("put-get", "gc-get", "put-gets"),
            in_kernel=True,
        ),
        Variant(
            "locked-look",
            "a wakeup takes the lock of the requests before it looks: another cure",
            replace(CURED, look=Look.LOCKED),
            cost="one more mutex in each put and in each wakeup of a pool",
        ),
        Variant(
            "look-requesting",
            "a wakeup reads pr_requesting, then the list; a run puts the requests back before it "
            "clears pr_requesting: a cheaper cure",
            replace(CURED, look=Look.REQUESTING),
            cost="one more word read in each wakeup, and two stores of a run in another order",
        ),
        Variant(
            "look-list-first",
            "the same reads in the other order, or the same stores in the kernel's: no cure",
            replace(CURED, look=Look.LIST_FIRST),
            ("put-get", "gc-get", "put-frees-get"),
        ),
        # The pages
        Variant(
            "add-then-check",
            "a page is added to the sum, and taken back if the sum is then too large",
            replace(CURED, charge=Charge.ADD),
            ("large-small", "large-small-put"),
            in_kernel=True,
        ),
        Variant(
            "take-back-wakes",
            "the same, and taking the page back adds the wakeup task: no cure",
            replace(CURED, charge=Charge.RETRY),
            ("large-small",),
        ),
        Variant(
            "new-page",
            "a get that adds a page serves no request with the other items of the page",
            replace(CURED, page_serves=False),
            ("new-page", "new-page-3"),
            in_kernel=True,
        ),
        Variant(
            "recheck-curpage",
            "unlocked-look, but a run that has put requests back looks at pr_curpage again: a "
            "cure for a lost put, not for a lost page",
            replace(CURED, look=Look.LIST, recheck_curpage=True),
            ("gc-get", "gc-gets"),
        ),
        Variant(
            "page-refused",
            "while the system is short of memory it has no page; nothing tries again afterwards",
            replace(CURED, page_refused=True),
            ("short", "short-try"),
            in_kernel=True,
        ),
        Variant(
            "header-refused",
            "the system has no header for the page, whose return adds the wakeup task: a task "
            "that feeds itself",
            replace(CURED, header_refused=True),
            ("short", "short-try"),
            in_kernel=True,
        ),
        Variant(
            "gc-retries",
            "unlocked-look, new-page, page-refused and header-refused; but the gc runs the "
            "requests once a second, and a page without a header causes no wakeup: a cure",
            replace(
                CURED,
                look=Look.LIST,
                page_serves=False,
                page_refused=True,
                header_refused=True,
                given_back_wakes=False,
                gc_retries=True,
            ),
            combination=True,
            cost="a look at each pool in each second; a lost wakeup is late by up to a second",
        ),
        Variant(
            "stale",
            "a put into a full page does not show the item to a pool that has no other",
            replace(CURED, stale=True),
            ("half-page", "put-gets"),
            in_kernel=True,
        ),
        # The caches
        Variant(
            "caches",
            "per-CPU caches: a put that sees no request, without their lock, goes there",
            replace(CURED, caches=Caches.KERNEL),
            ("put-get", "put-gets"),
            in_kernel=True,
        ),
        Variant(
            "caches-locked",
            "per-CPU caches: a put looks under the lock of the requests: no cure",
            replace(CURED, caches=Caches.LOCKED),
            ("put-get", "put-gets"),
        ),
        Variant(
            "cache-lists",
            "per-CPU caches: a list that goes back to the pages serves no request",
            replace(CURED, caches=Caches.KERNEL, lists_serve=False),
            ("three-puts", "three-puts-put"),
            in_kernel=True,
        ),
        Variant(
            "caches-drained",
            "per-CPU caches, which the gc empties while a request waits: a cure",
            replace(CURED, caches=Caches.DRAINED),
            cost="a visit to each CPU (sched_peg_curproc or a cross call) in each second in which "
            "a request waits, because no CPU may touch the cache of another",
        ),
    )
}
"""The variants by name, in the order of the table."""
