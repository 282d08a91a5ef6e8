"""The kernel's protocol on several CPUs, with a switch for each of its rules.

This is a small model of OpenBSD's pools: two pools under one budget, per-CPU caches, the task
queue with its thread, and the gc. Other CPUs may act before each mutex is entered or left, and
before each atomic operation. The strategies of `mbufpools.lab.engine` explore the orders.

- `VARIANTS` holds the kernels by name: the patch with all cures, the kernel as it is, and one
  kernel for each rule that is changed.
- `verdict` explores one variant. It returns the shortest schedule that stalls, as a story, or the
  number of schedules that were explored without a stall.
- `tell` returns the story of one schedule, given the token of a finding.

A *stall* is a process that sleeps although its request could be served from memory that no process
holds: no thread can run, and the gc has run until it finds nothing to do. Each `Finding` says what
ends the stall (`Ending`): the next put into the pool, the next page that leaves, or neither.

Each variant is also explored on one CPU, where an interrupt comes between two steps of a process.
`WINDOWS` has what was measured on the kernel's own code; no figure of it is computed here.

===================  ==============================================================
``_processors``      threads, mutexes, atomic words; runs a schedule
``_rules``           the switches
``_kernel``          the data that the threads share: pools, budget, task queue
``_pool_cache``      per-CPU caches (subr_pool.c); their lists are those of the pools
``_kern_task``       the task queue (kern_task.c)
``_subr_pool``       get, put, requests, gc (subr_pool.c)
``_uipc_mbuf``       the budget and the wakeup (uipc_mbuf.c)
``_model``           processes; decides what is a stall
``_setups``          how a scenario begins
``_interrupted``     the scenarios of one CPU with an interrupt
``_deep``            the scenarios of more operations and more CPUs
``_scenarios``       the scenarios of two and three CPUs, and all by name
``_windows``         how narrow the windows of the faults are, as measured
``_variants``        the rules of each variant
``_search``          counts schedules, finds the shortest that fails, replays one
``_story``           tells a schedule in words
``_ends``            what ends a stall
``_verdict``         `verdict` and `tell`
===================  ==============================================================
"""

from __future__ import annotations

from ._ends import Ending
from ._rules import KERNEL, Caches, Charge, Look, Mark, Rules, Wakeup
from ._variants import VARIANTS, Variant
from ._verdict import Finding, Kind, Verdict, tell, verdict
from ._windows import RANDOM, SOURCE, WINDOWS, Window

__all__ = [
    "KERNEL",
    "RANDOM",
    "SOURCE",
    "VARIANTS",
    "WINDOWS",
    "Caches",
    "Charge",
    "Kind",
    "Look",
    "Mark",
    "Wakeup",
    "Ending",
    "Finding",
    "Rules",
    "Variant",
    "Verdict",
    "Window",
    "tell",
    "verdict",
]
