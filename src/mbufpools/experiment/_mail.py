"""Four short mails to the list, each with one finding, made of the figures.

A mail can be read without the others and without the page of answers. It begins with its finding,
and its lines have at most `COLUMNS` columns.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

from mbufpools._pool_cache import LIST_ITEMS
from mbufpools.demokit import Table, plural

from ._faults import FAULTS, SPIN
from ._findings import FINDING_CELLS, cold_without_caches, grabbed, storm
from ._measured import INCIDENT, PUTS_TO_A_PAGE, WINDOW
from ._results import Cell, Results
from .questions._backlog import BACKLOGS, BY_PUTS, GROWS, what_blocks_do
from .questions._cure import CACHED, COLD, HIDDEN, ORDERS, PAGES, POOLS, same_with_caches
from .questions._incidents import (
    changed,
    less_and_more_slept,
    nine_share,
    slept_share,
    typical_wait,
    waits,
)
from .questions._margin import MARGIN, MARGIN_CELLS
from .questions._page import AFTER_CELLS, COLD_CELLS, PAGE, SHOWN, standing_still
from .questions._question import as_percent, given, kernel, mean, memory, seconds, typical
from .questions._ratio import RATIOS, hardly_a_page, puts_to_a_page
from .questions._wakeups import STEADY, STORMS, price

__all__ = ["MAIL_CELLS", "Mail", "mails"]

COLUMNS = 72
"""Columns of a mail."""
MAIL_CELLS = (
    *(*FINDING_CELLS, *PAGE.cells, *HIDDEN, *ORDERS, *CACHED),
    *(*STORMS, *STEADY, *BACKLOGS, *BY_PUTS, *MARGIN_CELLS, *RATIOS),
)
"""The cells that the findings and the mails are made of."""

REPLY = "Re: wake up mbuf pools when pages get released"
RECORDINGS = 132
"""The recordings of the kernel's own code with which the tests compare the pools."""
CURPAGE_LINE = """\
	if (pp->pr_curpage == NULL)
		pp->pr_curpage = ph;"""
"""The curpage line, an assignment and its condition. It is no diff: the lines around it are the
kernel's, and no part of this project."""
LATE = (
    "behind 5 s of other work there the first sleeper is served 4.9 s late, and 508 processes "
    "sleep meanwhile; with a direct wakeup it is not late, and 18 sleep"
)
"""What ``mbufpools demo backlog`` shows of a page that a put frees, and of a raised limit."""
MODEL = (
    "The figures are those of a Python model of subr_pool.c 1.243 and of the mbuf pools, in "
    f"virtual time. It agrees with {RECORDINGS} recordings of the kernel's own code, operation by "
    "operation. The loads are made up. Real code means the kernel's files, compiled for user space."
)
LIMITS = (
    "What the model leaves out. One event loop runs everything: no locks, no races, no interrupts. "
    "A get, a put and a wakeup take no time. The lock of a depot is never contended, so its lists "
    f"keep {LIST_ITEMS} items. km_alloc and phpool never refuse. So compare the figures with each "
    "other, not with a machine."
)


@dataclass(frozen=True, slots=True)
class Mail:
    """One mail."""

    subject: str
    text: str
    """Lines of at most `COLUMNS` columns."""

    def __str__(self) -> str:
        return f"Subject: {self.subject}\n\n{self.text}\n"


def mails(results: Results) -> tuple[Mail, ...]:
    """Return the mails that one would send to the list, the curpage line first."""
    return (
        Mail("subr_pool.c: a put into a full page hides its item", _lines(_curpage(results))),
        Mail(f"{REPLY}: its faults", _lines(_faults())),
        Mail(f"{REPLY}: the caches", _lines(_caches(results))),
        Mail(f"{REPLY}: the questions", _lines(_questions(results))),
    )


def _lines(paragraphs: list[str]) -> str:
    """Fill each paragraph, but for those that have lines already."""
    return "\n\n".join(it if "\n" in it else _fill(it) for it in paragraphs if it)


def _fill(text: str, indent: str = "") -> str:
    return textwrap.fill(
        text, COLUMNS, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def _incident(results: Results) -> str:
    load = given(results, AFTER_CELLS["as it is"])
    return (
        f"for {load['resume'] - load['stop']:g} seconds {load['hogs']} peers do not read, and "
        f"64 KiB for each fill the budget of {memory(load['nmbclust'])}"
    )


def _curpage(results: Results) -> list[str]:
    before, cured = (AFTER_CELLS[name] for name in ("as it is", "curpage"))
    load = given(results, before)
    base = Cell.of("hidden", kernel("patch"), pool="mcl2k", pages=256)
    first = next(cell for cell in ORDERS if cell.parameters.get("order") == "first")
    puts = max(max(results.values(cell, "put")) for cell in HIDDEN if "curpage" in cell.kernel.name)
    refused = mean(results, base, "refused") / max(1.0, mean(results, base, "tries"))
    lasted = [typical_wait(results, cell) or 0.0 for cell in (before, cured)]
    worst = [max(waits(results, cell), default=0.0) for cell in (before, cured)]
    slept = [slept_share(results, cell) for cell in (before, cured)]
    turned_down = [typical(results, cell, "refused_after") for cell in (before, cured)]
    real = (INCIDENT["as it is"], INCIDENT["curpage"])
    counts = less_and_more_slept(results, before, cured)
    in_all = (
        f"; added up, they sleep for less in {plural(counts[0], 'run')}, for more in {counts[1]}"
        if counts
        else ""
    )
    caches = (
        " Per-CPU caches change none of this: while a request waits, pool_put passes them over."
        if same_with_caches(results)
        else ""
    )
    return [
        "In subr_pool.c 1.243 a put into a full page can hide its item from pool_do_get. At the "
        "limit a process then sleeps beside free items of its own pool.",
        "While every page of a pool is full, pr_curpage is NULL. A put moves its page from "
        "pr_fullpages to pr_partpages, and leaves pr_curpage NULL. So pool_do_get asks "
        "m_pool_alloc for another page, and is refused at the limit. The items stay hidden until a "
        "page of the pool is completely empty, or a new one comes. Two lines cure it, in "
        "pool_do_put, inside the if that moves the page, after it is on pr_partpages:",
        CURPAGE_LINE,
        "The kernel had this once: in subr_pool.c 1.67 of 2008, pool_do_put sets pr_curpage to the "
        "page of the item if it is NULL. A refactoring of 2014 left it out. The lines need no task "
        "and no wakeup, and help with or without the patch that wakes the mbuf pools.",
        "How much hides? Let a pool be full and at the limit, and a process sleep in it. Its items "
        "are put back in random order. This share of them, in percent, is put before the process "
        f"is served (means of {plural(results.seeds_of(HIDDEN), 'run')}):",
        str(_hidden_table(results)),
        f"With the two lines it takes {plural(puts, 'put')}. Meanwhile {refused:.0%} of the "
        "M_DONTWAIT gets of that pool are refused. Items that come back in the order in which they "
        f"went out hide less: {as_percent(mean(results, first, 'share'))}% of a 2k pool of "
        f"{given(results, first)['pages']} pages, which is one page.{caches}",
        f"Under a load: {_incident(results)}. In the {load['end'] - load['resume']:g} seconds "
        f"after that, with the caches of {results.cpus or before.kernel.caches} CPUs, the mean "
        f"wait (median of {plural(results.seeds_of(PAGE.cells), 'run')}) of the gets that sleep is "
        f"{lasted[0]:,.0f} ms as it is, and {lasted[1]:,.0f} with "
        f"the two lines ({worst[0]:,.0f} and {worst[1]:,.0f} in the worst run). A process that "
        f"sleeps less asks for more: {slept[1]:.1%} of the M_WAIT gets sleep instead of "
        f"{slept[0]:.1%}{in_all}; "
        f"{turned_down[1]:.1%} of the M_DONTWAIT gets are refused instead of {turned_down[0]:.1%}. "
        f"On the real code, with more load, {real[1].refused:.1%} are refused instead of "
        f"{real[0].refused:.1%}, {real[1].done:,} requests are done instead of {real[0].done:,}, "
        f"and the mean wait is {real[1].wait} ms instead of {real[0].wait} (one run of each).",
        MODEL,
    ]


def _hidden_table(results: Results) -> Table:
    columns = {f"{pages}": f"{pages:,} pages" if pages > 1 else "1 page" for pages in PAGES}
    table = Table({"pool": "pool", **columns}, right=tuple(columns))
    for pool in POOLS:
        cells = [
            cell
            for cell in HIDDEN
            if cell.kernel == kernel("patch") and cell.parameters["pool"] == pool
        ]
        shares = [as_percent(mean(results, cell, "share")) for cell in cells]
        table.add(pool=pool, **dict(zip(columns, shares, strict=True)))
    return table


def _faults() -> list[str]:
    told = (f"- {name}: {text}".replace("`", "") for name, text in FAULTS.items())
    return [
        "The patch does what it says. Four faults are in it or around it, each in a narrow case. "
        "One is new with it: header-refused. In the others a wakeup that the patch relies on is "
        "lost or fails: page-refused and unlocked-look are in the kernel today, and mark-early is "
        "one of task_add. And the patch makes one thing later.",
        "I have not seen the last message of the thread, of 30 January. In a snapshot of 19 "
        "August 2026 the patch is not in the tree. I read subr_pool.c 1.243, and uipc_mbuf.c 1.302 "
        "to 1.307; the patch is to 1.302.",
        *(_fill(it, "  ") for it in told),
        f"{SPIN} The window of unlocked-look is {WINDOW} there. The names are those of a model of "
        "several CPUs, which has a schedule of each; my mail on the questions says where it is.",
        "The first three have one cure: the gc runs the requests of each pool once a second, and a "
        "page that is given back unused causes no wakeup. A lost wakeup is then late by a second "
        "at most.",
        "One thing gets later: nmbclust_update. Today it wakes the pools itself; with the patch it "
        "adds the task to systqmp, where pf_purge, unp_gc and others work, too. In a small run of "
        f"a model, {LATE}. If nmbclust_update called m_pool_wakeup itself, it would not be late. "
        "A page that a put frees is as late. What the gc frees is late under a direct wakeup, "
        "too, because the gc is on systqmp.",
    ]


def _caches(results: Results) -> list[str]:
    before, patched, drained = (AFTER_CELLS[it] for it in ("as it is", "patch", "drained"))
    load = given(results, before)
    visits = typical(results, drained, "cpu_visits") / typical(results, drained, "seconds")
    runs = results.seeds_of(PAGE.cells)
    horizon = given(results, COLD[0])["horizon"]
    return [
        "With per-CPU caches the patch has hardly a page to wake for. The items of an idle pool "
        "stay in the lists of the CPUs and in the depot, so its pages do not become empty. The "
        f"patch changes the outcome in {changed(results, before, patched)} of the model, and not "
        "in the run of the real code. Draining helps: before a get sleeps, and at each run of the "
        "gc while one sleeps, all caches go back to the pages, and the requests of all pools are "
        "tried again.",
        str(_table(results)),
        "The curpage line is that of my mail on pool_do_put; all three are that, the patch and "
        f"draining. The load, an incident: {_incident(results)}; receive rings, {load['senders']} "
        "senders and NFS go on. "
        f"Counted are the {load['end'] - load['resume']:g} seconds after the peers read again. "
        f"refused: of the M_DONTWAIT gets. wait: of the M_WAIT gets that sleep, median of {runs} "
        "runs of the mean wait; worst: the longest of these. 9k: served, of one get a second for a "
        "9k cluster, whose pool is empty. cold 9k: seconds that such a get sleeps while idle "
        f"receive clusters hold all memory (never: not in {horizon:g} s). Columns with a * are the "
        "real code, with more load: one run of each, and I have no note of how the 8 CPUs were "
        "played.",
        "Draining has a price. pool_cache_enter takes no lock, so no CPU can empty the cache of "
        "another; each drain has to visit every CPU (sched_peg_curproc, or a cross call). In this "
        f"load that is {visits:,.0f} visits a second. What a visit takes was not measured.",
        standing_still(results),
        cold_without_caches(results),
        "The next mail says what the model is, and what it leaves out.",
    ]


def _table(results: Results) -> Table:
    columns = {
        "cold": "cold\n9k",
        "refused": "refused\n%",
        "wait": "wait\n(ms)",
        "worst": "worst\n(ms)",
        "nine": "9k\n%",
        "done": "done*",
        "turned_down": "refused\n%*",
        "lasted": "wait\n(ms)*",
    }
    table = Table({"kernel": "kernel", **columns}, right=tuple(columns))
    for name, shown in SHOWN.items():
        cell, real = AFTER_CELLS[name], INCIDENT[name]
        served = waits(results, cell)
        table.add(
            kernel=shown,
            cold=seconds(results.values(COLD_CELLS[name], "served_after")),
            refused=f"{100 * typical(results, cell, 'refused_after'):.1f}",
            wait=f"{typical_wait(results, cell):,.0f}" if served else "-",
            worst=f"{max(served):,.0f}" if served else "-",
            nine=f"{100 * nine_share(results, cell):.0f}",
            done=f"{real.done:,}",
            turned_down=f"{100 * real.refused:.1f}",
            lasted=str(real.wait),
        )
    return table


def _questions(results: Results) -> list[str]:
    rare = hardly_a_page(results)
    stormy = max(max(price(results, cell)) for cell in STORMS)
    steady = max(max(price(results, cell)) for cell in STEADY)
    cached, alone = (
        f"{few:,} to {many:,}"
        for few, many in (PUTS_TO_A_PAGE[it] for it in ("caches, light load", "no caches"))
    )
    return [
        "A late wakeup loses pages to newcomers, but builds up no backlog that grows, and every "
        "wakeup that was proposed is cheap. These are the questions of the thread, answered with a "
        "model.",
        f"Is the memory grabbed before the wakeup makes it through? {grabbed(results)}",
        _backlog(results),
        f"Just call wakeup? It is cheap. In the load of my mail on the caches, the wakeups take "
        f"{steady:.1f} µs of CPU a second at most, with caches or without; in {storm(results)} "
        f"{stormy / 1e6:.2%} of a CPU. It is right, too: in a model of several CPUs it leaves no "
        "process asleep, but for the faults of today's kernel. "
        "The counts are those of the model, the nanoseconds of a call those of the real code.",
        "Add the task only near the limit? The margin must cover the page that left and the page "
        f"that is wanted. {MARGIN.verdict(results)}",
        "Many millions of puts to a freed page? It depends on the caches and the load. On the real "
        f"code there are {cached} with caches and a light load, and {alone} without caches; in the "
        f"model {puts_to_a_page(results)}{f'; {rare}' if rare else ''}.",
        MODEL,
        LIMITS,
        f"There are {plural(results.seeds_of(PAGE.cells), 'run')} of each kernel and load, each "
        "with a seed of its own. The model is a Python library, mbufpools, which has no public "
        "address yet; in its source, `make report-full` computes all of this again, but for what "
        "was measured on the real code: that is data there, and the harness that measured it is "
        "not in the tree.",
    ]


def _backlog(results: Results) -> str:
    load = given(results, BACKLOGS[0])
    longest = max(cell.parameters["block"] for cell in BACKLOGS)
    asked = (
        "Do delayed wakeups build up a backlog? In the model other work blocks systqmp for up to "
        f"{longest:g} s, again one second after it has ended, while {load['processes']} processes "
        "hold an mbuf and want a cluster."
    )
    found = what_blocks_do(results)
    if found is None:
        return f"{asked} The limit was never reached."
    if found.drained is None:
        told = "It does not drain."
    else:
        slept = f"grows by {found.grows:.0%}" if found.grows > GROWS else "does not grow"
        told = (
            f"With blocks of up to {found.drained:g} s nobody is asleep at the end, and the time "
            f"slept {slept}."
        )
    if found.knee is not None:
        told += (
            f" With blocks of {found.knee:g} s {found.asleep} of them are asleep at the end, in "
            f"{found.some} of {found.runs} runs."
        )
    asleep, some = found.unpatched
    saved = max(found.saved, 0.0)
    return (
        f"{asked} {told} For comparison: as it is, without any block, {asleep} are, in {some} of "
        f"{found.runs} runs. A direct wakeup saves at most {saved:.0%} of the time slept."
    )
