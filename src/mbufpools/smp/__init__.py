"""The kernel's protocol on several CPUs, with a switch for each rule that might be otherwise.

A small model of OpenBSD's pools: two pools under one budget, per-CPU caches, the task queue with
its thread, the gc. Every mutex is entered and left, and every atomic operation is done, at a place
where the other CPUs may come first; the lab's own strategies explore the orders.

- `VARIANTS` are the kernels, by name: the patch with all cures, the kernel as it is, and one for
  each rule.
- `verdict` explores one: the shortest schedule that stalls, as a story, or the number of schedules
  of which none does.
- `tell` is the story of one schedule, by the token of a finding.

A *stall* is a process that sleeps although its request could be served from memory that nobody
has, and that nothing will ever serve, though the gc run every second until it has nothing to do.

The rooms, each using only those before it: ``_processors`` (threads, mutexes, atomic words),
``_rules`` (the switches), ``_kernel`` (what the threads share), then the kernel's own files
``_pool_cache``, ``_kern_task``, ``_subr_pool``, ``_uipc_mbuf``; ``_model`` (processes, and what is
a stall), ``_scenarios``, ``_variants``, ``_explore``, ``_story``, ``_verdict``.
"""

from __future__ import annotations

from ._rules import KERNEL, Rules
from ._variants import VARIANTS, Variant
from ._verdict import Finding, Verdict, tell, verdict

__all__ = ["KERNEL", "VARIANTS", "Finding", "Rules", "Variant", "Verdict", "tell", "verdict"]
