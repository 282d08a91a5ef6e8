"""The kernel's protocol on several CPUs: the verdict on each rule, its story, the command line."""

from __future__ import annotations

import dataclasses
import functools
import json
from dataclasses import asdict, replace

import pytest

from mbufpools import smp
from mbufpools.cli import main
from mbufpools.lab import LabError
from mbufpools.lab.engine import Exhaustive, Outcome, Schedule
from mbufpools.smp import VARIANTS, WINDOWS, Ending, Rules, Verdict, tell
from mbufpools.smp import verdict as uncached_verdict
from mbufpools.smp._ends import endings
from mbufpools.smp._model import Model
from mbufpools.smp._processors import ATOMIC, Code, Mutex, Processors
from mbufpools.smp._rules import KERNEL, Caches, Look, Wakeup
from mbufpools.smp._scenarios import BY_NAME, DEEP, ONE_CPU, SCENARIOS
from mbufpools.smp._search import Explored, count, count_interrupts, shortest
from mbufpools.smp._search import replay as replay_token
from mbufpools.smp._setups import CLUSTER, LARGE, MBUF, SMALL, shapes
from tests.project.test_imports import GRAPH


@functools.cache
def verdict(name: str) -> Verdict:
    """The verdict on a variant, cached: it is always the same, and takes up to seconds."""
    return uncached_verdict(name)


FAILING = {
    # kind, fewest preemptions, the free memory, the most schedules that are executed
    "kernel": ("stall", 0, "its pages have 1 item free, which the pool does not see", 1_020),
    "kernel-refreshed": ("stall", 1, "its pages have 1 item free", 930),
    "kernel-caches": ("stall", 0, "its caches hold 1 item", 1_010),
    "before": ("stall", 0, "16384 bytes of the budget are free", 80),
    "wanted-late": ("stall", 1, "16384 bytes of the budget are free", 20),
    "near-limit-small": ("stall", 0, "16384 bytes of the budget are free", 10),
    "task-first": ("stall", 1, "16384 bytes of the budget are free", 250),
    "mark-unlocked": ("corruption", 1, "is put on the list of systqmp twice", 80),
    "mark-late": ("stall", 1, "16384 bytes of the budget are free", 60),
    "mark-early": ("stall", 1, "16384 bytes of the budget are free", 90),
    "no-second-try": ("stall", 1, "16384 bytes of the budget are free", 130),
    "no-bump": ("stall", 1, "16384 bytes of the budget are free", 370),
    "unlocked-look": ("stall", 1, "its pages have 1 item free", 470),
    "look-list-first": ("stall", 2, "its pages have 1 item free", 990),
    "recheck-curpage": ("stall", 1, "16384 bytes of the budget are free", 180),
    "page-refused": ("stall", 0, "4096 bytes of the budget are free", 20),
    "header-refused": ("livelock", 0, "no end after 400 steps", 2),
    "add-then-check": ("stall", 1, "4096 bytes of the budget are free", 120),
    "take-back-wakes": ("livelock", 0, "no end after 400 steps", 1),
    "new-page": ("stall", 1, "its pages have 1 item free", 90),
    "stale": ("stall", 0, "its pages have 1 item free, which the pool does not see", 150),
    "caches": ("stall", 0, "its caches hold 1 item", 520),
    "caches-locked": ("stall", 0, "its caches hold 1 item", 1_010),
    "cache-lists": ("stall", 1, "its pages have 1 item free", 20),
}
HOLDING = {
    # the most schedules that are explored
    "cured": 2_100,
    "direct": 2_000,
    "wanted": 2_600,
    "near-limit": 2_100,
    "mark-locked": 2_000,
    "locked-look": 2_200,
    "look-requesting": 4_000,
    "gc-retries": 1_200,
    "caches-drained": 3_300,
}
ON_ONE_CPU = {
    # the scenarios with an interrupt in which a process is left asleep, and in how many places
    "kernel": {"half-page-1": 1, "put-get-1": 15, "three-puts-1": 15},
    "kernel-refreshed": {"put-get-1": 5, "three-puts-1": 5},
    "kernel-caches": {"half-page-1": 1, "put-get-1": 15, "put-frees-get-1": 17, "three-puts-1": 14},
    "before": {"put-frees-get-1": 4, "puts-1": 4, "gc-get-1": 1},
    "wanted-late": {"put-frees-get-1": 2, "puts-1": 2},
    "near-limit-small": {"put-frees-get-1": 4, "puts-1": 4, "gc-get-1": 1},
    "no-second-try": {"put-get-1": 4, "three-puts-1": 4},
    "no-bump": {"put-get-1": 4, "three-puts-1": 4},
    "unlocked-look": {"put-get-1": 4, "three-puts-1": 4},
    "stale": {"half-page-1": 1, "put-get-1": 13, "three-puts-1": 13},
    "caches": {"put-get-1": 11, "put-frees-get-1": 15},
    "caches-locked": {"put-get-1": 6, "put-frees-get-1": 15},
    "cache-lists": {"put-get-1": 11, "put-frees-get-1": 15, "three-puts-1": 10},
}
LIVELOCKS = [name for name, (kind, *_) in FAILING.items() if kind == "livelock"]
PUT, EMPTY, PAGE = Ending.PUT, Ending.EMPTY, Ending.PAGE
ENDS = {
    "kernel": {EMPTY, PAGE},
    "kernel-refreshed": {PUT, PAGE},
    "kernel-caches": {PAGE},
    "before": {PUT},
    "wanted-late": {PUT, PAGE},
    "near-limit-small": {PUT},
    "unlocked-look": {PUT, PAGE},
    "add-then-check": {PUT, PAGE},
    "new-page": {PUT, PAGE},
    "page-refused": {PUT, PAGE},
    "header-refused": set(),
    "stale": {EMPTY, PAGE},
    "caches": {PUT, PAGE},
}
"""What ends the stall of a rule. The real code, which was measured, does the same."""


def test_smp_uses_the_lab_through_its_public_engine_alone() -> None:
    imported = {
        name
        for module, names in GRAPH.items()
        if module.startswith("mbufpools.smp")
        for name in names
        if name.startswith("mbufpools") and not name.startswith("mbufpools.smp")
    }
    # The lists of the caches are a pure structure, which the model shares with the pools.
    assert imported == {"mbufpools.lab.engine", "mbufpools._pool_cache"}


def test_every_variant_has_an_expected_verdict_here() -> None:
    assert {*FAILING, *HOLDING} == set(VARIANTS)
    assert {name for name, variant in VARIANTS.items() if variant.scenarios} == set(FAILING)


@pytest.mark.parametrize("name", FAILING)
def test_a_broken_rule_fails(name: str) -> None:
    kind, preemptions, where, most = FAILING[name]
    found = verdict(name)
    assert found.as_expected
    assert not found.holds
    first = found.findings[0]
    assert (first.kind, first.preemptions) == (kind, preemptions)
    assert where in first.message
    assert first.shortest == (name != "take-back-wakes")
    assert found.schedules() <= most
    assert found.summary == f"{first.kind}: {first.message}"


@pytest.mark.parametrize("name", HOLDING)
def test_a_correct_rule_fails_in_no_schedule_of_two_and_three_cpus(name: str) -> None:
    found = verdict(name)
    assert found.as_expected
    assert found.holds
    assert [each.scenario for each in found.explored] == list(SCENARIOS)
    assert all(each.complete and not each.failing for each in found.explored)
    assert found.schedules() <= HOLDING[name]
    assert found.summary == (f"no stall in all {found.schedules()} schedules of two and three CPUs")


@pytest.mark.parametrize("name", FAILING)
def test_a_rule_that_fails_with_two_cpus_fails_with_three(name: str) -> None:
    cpus = {each.cpus for each in verdict(name).findings}
    assert cpus - {1} == ({2} if name == "take-back-wakes" else {2, 3})


@pytest.mark.parametrize("name", FAILING)
def test_where_it_fails_the_cured_kernel_does_not(name: str) -> None:
    for scenario in VARIANTS[name].scenarios:
        (cured,) = [it for it in verdict("cured").explored if it.scenario.name == scenario]
        assert not cured.failing


def test_the_lists_of_the_caches_cause_no_stall_if_they_serve_requests() -> None:
    """So the lists alone cause the failure: the other rules of the caches do not fail here."""
    for scenario in VARIANTS["cache-lists"].scenarios:
        explored = count(BY_NAME[scenario], VARIANTS["caches"].rules, 1_000)
        assert (explored.failing, explored.complete) == (0, True)


def test_the_patch_wakes_once_for_a_run_of_the_gc_where_the_direct_way_may_wake_twice() -> None:
    wakeups = {
        name: each.wakeups
        for name in ("cured", "direct")
        for each in verdict(name).explored
        if each.scenario.name == "gc-two"
    }
    assert wakeups == {"cured": (1, 1), "direct": (1, 2)}


# One CPU


@pytest.mark.parametrize("name", [name for name in VARIANTS if name not in LIVELOCKS])
def test_on_one_cpu_an_interrupt_finds_some_of_the_faults(name: str) -> None:
    explored = [count_interrupts(each, VARIANTS[name].rules, 1_000) for each in ONE_CPU]
    assert all(each.complete for each in explored)
    failing = {each.scenario.name: each.failing for each in explored if each.failing}
    assert failing == ON_ONE_CPU.get(name, {})


@pytest.mark.parametrize("name", FAILING)
def test_a_verdict_has_a_finding_for_each_scenario_of_one_cpu_that_fails(name: str) -> None:
    found = verdict(name)
    assert {each.scenario for each in found.findings if each.cpus == 1} == {
        *ON_ONE_CPU.get(name, {})
    }
    assert [each.scenario for each in found.interrupts] == (
        [] if name in LIVELOCKS else list(ONE_CPU)
    )


def test_the_story_of_one_cpu_has_the_interrupt_inside_the_get() -> None:
    (found,) = [it for it in verdict("unlocked-look").findings if it.scenario == "put-get-1"]
    story = tell("unlocked-look", found.token)
    acts = [
        "The interrupt runs: pool_put(mcl2k)",
        "P2 runs: pool_get(mcl2k)",
        "P2         m_pool_alloc(mcl2k): refused",
        "interrupt  pool_put(mcl2k): the item goes back to its page",
        "pool_wakeup(mcl2k): sees no request",
        "P2         pool_runqueue(mcl2k): puts P2 back on the list",
    ]
    assert sorted(acts, key=story.index) == acts


@pytest.mark.parametrize("in_a_mutex", [True, False])
def test_an_interrupt_comes_only_outside_the_mutexes_and_runs_to_its_end(in_a_mutex: bool) -> None:
    told: set[tuple[str, ...]] = set()
    strategy = Exhaustive(None)
    while strategy.begin():
        processors = Processors()
        mutex, acts = Mutex(processors), list[str]()

        def process(mutex: Mutex = mutex, acts: list[str] = acts) -> Code[None]:
            yield mutex if in_a_mutex else ATOMIC
            acts.append("a")
            yield ATOMIC
            acts.append("b")
            if in_a_mutex:
                mutex.leave()

        def interrupt(acts: list[str] = acts) -> Code[None]:
            yield ATOMIC
            acts.append("x")
            yield ATOMIC
            acts.append("y")

        threads = [processors.spawn("P1", process()), processors.spawn("interrupt", interrupt())]
        threads[1].interrupt = processors.one_cpu = True
        processors.begin(threads, joined=False)
        schedule = Schedule(strategy)
        assert processors.run(schedule, Outcome).kind is None
        strategy.end(schedule, False)
        told.add(tuple(acts))
    between = set() if in_a_mutex else {("a", "x", "y", "b")}
    assert told == {("a", "b", "x", "y"), ("x", "y", "a", "b")} | between


# What ends a stall


@pytest.mark.parametrize("name", ENDS)
def test_what_ends_a_stall_is_as_on_the_real_code(name: str) -> None:
    assert set(verdict(name).ends) == ENDS[name]


def test_one_put_does_not_end_a_stall_of_hidden_items_but_a_page_that_is_empty_does() -> None:
    (found,) = [it for it in verdict("stale").findings if it.scenario == "half-page"]
    assert found.ends == (EMPTY, PAGE)
    assert (
        "What ends it: a put that empties a page of the pool, or the next page that leaves."
    ) in " ".join(tell("stale", found.token).split())


@pytest.mark.parametrize("scenario", ["half-page", "new-page", "gc-get", "put-frees", "two-puts"])
@pytest.mark.parametrize("name", ["kernel", "kernel-refreshed", "kernel-caches", "stale", "before"])
def test_what_ends_the_stalls_of_a_kernel_ends_those_of_its_other_scenarios_too(
    name: str, scenario: str
) -> None:
    rules = VARIANTS[name].rules
    explored = count(BY_NAME[scenario], rules, 1_000)
    if explored.failing:
        execution, _ = shortest(explored, rules, 20_000)
        found = endings(BY_NAME[scenario], rules, execution.token)
        assert all(each.ends(found) for each in verdict(name).ends)


def test_no_put_can_end_a_stall_in_a_pool_that_has_no_item() -> None:
    """The caches keep the items of the other pool, and with them the pages of the budget."""
    rules = VARIANTS["caches"].rules
    assert endings(BY_NAME["gc-get"], rules, "gc-get:") == (PAGE,)
    model = replay_token(BY_NAME, rules, "gc-get:").model
    assert [pool.name for _, pool in model.stalled()] == [MBUF]
    assert not any(process.puts(model.kernel.pool(MBUF)) for process in model.processes.values())
    model.perform("P9", ("try", MBUF))
    assert not model.process("P9").held


def test_a_stall_that_no_single_thing_ends_says_so() -> None:
    """Without a wakeup across pools, and with no holder of an item in the pool."""
    rules = replace(KERNEL, stale=False, wakeup=Wakeup.NONE)
    explored = count(BY_NAME["large-small"], rules, 1_000)
    execution, _ = shortest(explored, rules, 20_000)
    assert execution.outcome.kind == "stall"
    assert endings(BY_NAME["large-small"], rules, execution.token) == (PUT,)


@pytest.mark.parametrize("name", FAILING)
def test_no_story_and_no_summary_says_for_ever(name: str) -> None:
    text = verdict(name).story + verdict(name).summary
    assert "forever" not in text
    assert "for ever" not in text


def test_each_window_is_that_of_a_rule_of_the_kernel() -> None:
    assert all(VARIANTS[name].in_kernel for name in WINDOWS)
    assert {name: str(window) for name, window in WINDOWS.items()} == {
        "unlocked-look": "12 to 14 ns",
        "add-then-check": "not measured",
        "new-page": "not measured",
        "stale": "none needed",
        "caches": "none needed",
    }
    assert VARIANTS["cured"].window is None


def test_each_variant_that_cures_says_what_it_costs() -> None:
    cured = {name for name in HOLDING if VARIANTS[name].cost}
    assert cured == {*HOLDING} - {"near-limit"}, "near-limit cures nothing"


# A system that is short of memory


def explored_when_short(rules: Rules) -> list[Explored]:
    return [count(BY_NAME[name], rules, 1_000) for name in ("short", "short-try")]


@pytest.mark.parametrize("wakeup", [Wakeup.DEFERRED, Wakeup.DIRECT])
def test_a_request_that_the_system_refused_is_left_asleep_when_there_is_memory_again(
    wakeup: Wakeup,
) -> None:
    for each in explored_when_short(Rules(wakeup=wakeup, page_refused=True)):
        assert each.complete
        assert each.failing == each.schedules


def test_without_a_header_the_task_of_the_patch_feeds_itself_and_the_direct_wakeup_does_not() -> (
    None
):
    """The direct wakeup is made by the run of the queue itself, which has taken the requests off
    the list. If it counts those that are not served yet, it feeds itself, too."""
    for look, direct in ((Look.LIST, 1), (Look.COUNT, None)):
        for wakeup, runs in ((Wakeup.DEFERRED, None), (Wakeup.DIRECT, direct)):
            rules = Rules(wakeup=wakeup, look=look, header_refused=True)
            execution = replay_token(BY_NAME, rules, "short:")
            if runs is None:
                assert execution.outcome.kind == "livelock", (look, wakeup)
            else:
                assert execution.outcome.kind == "stall"
                assert execution.model.kernel.wakeup_runs == runs


@pytest.mark.parametrize("rules", [Rules(page_refused=True), Rules(header_refused=True)])
def test_a_get_that_may_sleep_waits_in_the_page_allocator_with_its_page_charged(
    rules: Rules,
) -> None:
    model = Model(rules, shapes(1, 1), SMALL)
    model.kernel.short.store(1)
    model.perform("P1", ("get", MBUF))
    process = model.process("P1")
    assert not process.held
    assert model.kernel.mem_alloc.value == SMALL
    assert not model.kernel.pool(MBUF).requests, "no wakeup of the pool finds it"
    model.perform("P2", ("nmbclust", LARGE))
    assert not process.held
    assert model.processors.timer()
    model.processors.settle()
    assert process.held


# Cheaper cures


def test_a_look_at_curpage_after_a_run_cures_a_lost_put_and_not_a_lost_page() -> None:
    rules = VARIANTS["recheck-curpage"].rules
    put, page = (count(BY_NAME[name], rules, 1_000) for name in ("put-get", "gc-get"))
    assert (put.complete, put.failing) == (True, 0)
    assert (page.complete, page.failing) == (True, 1)


def test_on_one_cpu_the_order_of_the_two_looks_does_not_matter() -> None:
    for each in verdict("look-list-first").interrupts:
        assert not each.failing


def test_an_interrupt_is_counted_at_every_place_where_it_can_come() -> None:
    explored = count_interrupts(BY_NAME["put-get-1"], VARIANTS["unlocked-look"].rules, 1_000)
    assert (explored.failing, explored.schedules, explored.complete) == (4, 13, True)


@pytest.mark.parametrize("limit", ["budget", "hard limit"])
def test_the_flag_of_wanted_is_set_by_a_sleeper_that_the_budget_refused(limit: str) -> None:
    model = Model(Rules(wakeup=Wakeup.WANTED), shapes(1, 1), LARGE)
    kernel = model.kernel
    if limit == "hard limit":
        kernel.pool(MBUF).hard_limit = 0
    model.perform("P1", ("get", CLUSTER))
    model.perform("P2", ("try", MBUF))
    assert not kernel.wanted.value, "a refused try does not set it"
    model.perform("P2", ("get", MBUF))
    assert kernel.wanted.value == (limit == "budget")
    model.perform("P1", ("put", CLUSTER))
    model.advance(10_000_000)
    assert bool(model.process("P2").held) == (limit == "budget")
    assert kernel.wakeup_runs == (limit == "budget")
    assert not kernel.wanted.value


def test_an_unknown_variant_is_answered_with_the_known_names() -> None:
    with pytest.raises(ValueError, match=r"no variant 'patch'; expected one of cured, kernel, "):
        smp.verdict("patch")


# Stories


def test_a_story_says_what_each_cpu_did_in_the_words_of_the_kernel() -> None:
    assert verdict("unlocked-look").story == (
        """\
unlocked-look: a wakeup looks for requests without their lock, while a runner may have taken them

CPU 1 puts a cluster, CPU 2 asks for one; the budget is used up. The budget
has 16384 bytes; items are 1 to a page of 4096 bytes in mbufpl and 2 to a page
of 16384 bytes in mcl2k.

CPU 1 runs P1: pool_put(mcl2k)
CPU 2 runs P2: pool_get(mcl2k)

  CPU 2  m_pool_alloc(mcl2k): refused, 32768 bytes would exceed 16384
         pool_get(mcl2k): enqueues a request
         pool_runqueue(mcl2k): takes the requests off their list
         m_pool_alloc(mcl2k): refused, 32768 bytes would exceed 16384
  CPU 1  pool_put(mcl2k): the item goes back to its page
         pool_wakeup(mcl2k): sees no request
  CPU 2  pool_runqueue(mcl2k): puts P2 back on the list
         pool_get(mcl2k): sleeps

stall: P2 sleeps in mcl2k, but its pages have 1 item free.
No thread can run, and the gc finds nothing to do. What ends it: the next put
into the pool, or the next page that leaves.
Shortest failing schedule: 1 preemption, 22 steps; its token is
put-get:clock@0>0.2,0.2@15>0.1
In put-gets: 1 preemption, 28 steps; put-gets:clock@0>0.3,0.3@15>0.1
In gc-get: 1 preemption, 35 steps; gc-get:clock@0>0.1,0.1@15>0.0
In put-get-1: 1 preemption, 22 steps; put-get-1:clock@0>0.2,0.2@15>0.1
In three-puts-1: 1 preemption, 28 steps; three-puts-1:clock@0>0.2,0.2@15>0.1
clock@0 is the start: what runs first. It stops none, so it is no preemption."""
    )


def test_the_story_of_the_kernel_before_the_patch_has_the_gc_and_no_wakeup_task() -> None:
    story = verdict("before").story
    assert "pool_gc_pages: an idle page of mcl2k leaves" in story
    assert "task_add(mbuf_mem_wakeup)" not in story
    assert "CPU 1 runs P1: pool_get(mbufpl)" in story


def test_the_story_of_a_livelock_is_cut() -> None:
    story = verdict("take-back-wakes").story
    assert "\n  and so on\n" in story
    assert len(story.splitlines()) < 100


def test_a_story_says_when_time_passes() -> None:
    told = tell("cache-lists", verdict("cache-lists").findings[0].token)
    assert "the clock  it is 9 s: the gc is due" in told
    assert "pool_cache_gc(mcl2k): a list of the depot goes back to the pages" in told


def test_every_story_fits_the_terminal_and_ends_with_the_failure() -> None:
    for name in FAILING:
        found = verdict(name)
        told = tell(name, found.findings[0].token)
        assert max(map(len, told.splitlines())) <= 80
        assert found.findings[0].message in " ".join(told.split())
        assert "CPU 1" in told


def test_the_token_of_a_finding_replays_its_schedule() -> None:
    for name in FAILING:
        for finding in verdict(name).findings:
            execution = replay_token(BY_NAME, VARIANTS[name].rules, finding.token)
            assert execution.outcome.kind == finding.kind
            assert execution.outcome.message == finding.message
            assert execution.token == finding.token
            assert len(execution.schedule.steps) == finding.steps
            assert execution.schedule.preemptions == finding.preemptions


def test_a_schedule_of_one_variant_can_be_told_for_another() -> None:
    token = verdict("stale").findings[0].token
    assert "end: every process that can be served is served." in tell("cured", token)


@pytest.mark.parametrize(
    "token", ["", "half-page", "full-page:", "half-page/split:", "half-page:0.1@x>0.2"]
)
def test_a_string_that_is_not_a_token_is_refused(token: str) -> None:
    with pytest.raises(ValueError, match=r"is (no|not a) token"):
        tell("stale", token)


def test_a_token_that_does_not_fit_is_refused() -> None:
    with pytest.raises(LabError, match="belongs to another variant"):
        tell("cured", "half-page:0.1@99>0.2")


def test_a_failure_beyond_the_search_limit_is_the_first_one_found_shrunk() -> None:
    rules = VARIANTS["mark-late"].rules
    explored = count(BY_NAME["two-puts"], rules, 1_000)
    execution, is_shortest = shortest(explored, rules, 1)
    assert not is_shortest
    assert execution.outcome.kind == "stall"
    assert execution.token.startswith("two-puts/joined:")
    again = replay_token(BY_NAME, rules, execution.token)
    assert again.outcome == execution.outcome
    assert explored.first is not None
    assert len(execution.schedule.deviations) <= len(explored.first)


def test_scenarios_have_unique_names_and_a_description() -> None:
    assert len(BY_NAME) == len(SCENARIOS) + len(ONE_CPU) + len(DEEP)
    for scenario in BY_NAME.values():
        assert scenario.what
        if scenario not in ONE_CPU:
            assert len(scenario.programs) in (scenario.cpus, scenario.cpus - 1)


def test_an_unknown_operation_is_refused() -> None:
    model = Model(Rules(), shapes(1, 1), 4096)
    with pytest.raises(ValueError, match="unknown operation"):
        model.perform("P1", ("borrow", "mbufpl"))


@pytest.mark.prove
@pytest.mark.parametrize("name", HOLDING)
def test_a_correct_rule_fails_in_no_schedule_of_more_operations_and_cpus(name: str) -> None:
    found = smp.verdict(name, deep=True)
    assert found.holds
    assert [each.scenario for each in found.explored] == [*SCENARIOS, *DEEP]
    assert found.plain
    assert found.summary.endswith(
        f"of two, three and four CPUs, nor in {found.plain} executed without reduction"
    )


# The command line


def exit_status(*argv: str) -> int:
    try:
        return main(argv)
    except SystemExit as caught:
        status = caught.code
    assert isinstance(status, int)
    return status


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command uses the cached verdicts of these tests."""

    def cached(name: str, *, deep: bool) -> Verdict:
        assert not deep
        return verdict(name)

    monkeypatch.setattr("mbufpools.smp.verdict", cached)


@pytest.mark.usefixtures("quick")
def test_the_table_has_a_row_for_each_variant(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_status("smp") == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    table = out.split("\n\n")[1].splitlines()[3:]
    assert [row.split()[0] for row in table] == list(VARIANTS)
    for row, name in zip(table, VARIANTS, strict=True):
        found = verdict(name)
        depends = "?" if name == "mark-early" else "-"
        assert row.split()[1] == ("yes" if found.variant.in_kernel else depends)
        assert row.split()[2] == (found.findings[0].kind if found.fails else "none")
    assert "NOT AS EXPECTED" not in out
    told = " ".join(out.split())
    assert "It may have mark-early if the CPU may read before an atomic subtraction" in told


def test_the_kernel_has_the_rules_that_its_row_names() -> None:
    left_out = {"kernel", "kernel-caches", "before", "page-refused", "header-refused"}
    cured = asdict(Rules())
    for name in ("kernel", "kernel-caches"):
        kernel = VARIANTS[name]
        assert not kernel.rules.page_refused
        assert not kernel.rules.header_refused
        for each in VARIANTS.values():
            if each.in_kernel and each.name not in left_out:
                differs = {it for it in asdict(each.rules).items() if it[1] != cured[it[0]]}
                has = differs <= asdict(kernel.rules).items()
                assert has == (name == "kernel-caches" or each.rules.caches is Caches.NONE)
                if each.rules.caches is kernel.rules.caches:
                    assert each.name in kernel.rule


@pytest.mark.usefixtures("quick")
def test_the_ending_counts_what_was_explored(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_status("smp") == 0
    ending = " ".join(capsys.readouterr().out.rpartition("\n\n")[2].split())
    total = sum(verdict(name).schedules() for name in HOLDING)
    assert ending.startswith(f"Verdict: {len(HOLDING)} variants leave no process asleep ")
    assert f"in any of {total} schedules of several CPUs" in ending
    rules = {name for name, it in VARIANTS.items() if it.in_kernel and not it.combination}
    assert rules.isdisjoint({"kernel", "kernel-caches"}), "they combine rules of other rows"
    assert f"{len(rules) - 1} rules of the kernel, patched or not, can each" in ending
    assert ending.endswith("; 1 makes the patch's task spin."), "header-refused is a livelock"
    assert len(ending) <= len("Verdict: ") + 200


def test_a_story_says_that_the_start_of_a_token_is_no_preemption() -> None:
    found = verdict("unlocked-look")
    assert found.findings[0].token.startswith("put-get:clock@0>")
    assert found.findings[0].preemptions == 1, "the token has two deviations"
    assert found.story.splitlines()[-1].startswith("clock@0 is the start: ")
    assert "clock@0" not in verdict("stale").story


def test_a_combination_differs_from_the_cured_kernel_in_several_rules() -> None:
    for name, variant in VARIANTS.items():
        fields = dataclasses.fields(variant.rules)
        cured = VARIANTS["cured"].rules
        differ = [it for it in fields if getattr(variant.rules, it.name) != getattr(cured, it.name)]
        assert (len(differ) > 2) == variant.combination, name


@pytest.mark.usefixtures("quick")
def test_json_is_one_object_a_variant(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_status("smp", "--json") == 0
    objects = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [each["variant"] for each in objects] == list(VARIANTS)
    for each in objects:
        found = verdict(each["variant"])
        assert each["fails"] == found.fails
        assert each["summary"] == found.summary
        assert len(each["scenarios"]) == len(found.explored) + len(found.interrupts)
        assert each["ends"] == list(found.ends)
        assert len(each["findings"]) == len(found.findings)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("name", ["stale", "direct"])
def test_one_variant_is_told_as_a_story(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_status("smp", name) == 0
    out = capsys.readouterr().out
    assert out.startswith(verdict(name).story)
    assert ("gc-two" in out) == (name == "direct")
    assert exit_status("smp", name, "--json") == 0
    assert json.loads(capsys.readouterr().out)["story"] == verdict(name).story


def test_the_patch_loses_its_wakeup_for_a_process_between_its_second_try_and_its_sleep(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The patch's wakeup across pools is lost if the kernel looks at the requests unlocked."""
    (found,) = [it for it in verdict("unlocked-look").findings if it.scenario == "gc-get"]
    assert exit_status("smp", "unlocked-look", "--token", found.token) == 0
    told = capsys.readouterr().out
    acts = [
        "CPU 1    m_pool_alloc(mbufpl): refused",
        "task_add(mbuf_mem_wakeup): the task is queued",
        "takes mbuf_mem_wakeup off the queue",
        "pool_wakeup(mbufpl): sees no request",
        "pool_runqueue(mbufpl): puts P1 back on the list",
        "stall: P1 sleeps in mbufpl, but 16384 bytes of the budget are free",
    ]
    assert sorted(acts, key=told.index) == acts
    assert exit_status("smp", "unlocked-look", "--token", found.token, "--json") == 0
    assert json.loads(capsys.readouterr().out)["story"] == told.rstrip("\n")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--token", "gc-get:"], "--token needs the name of its variant"),
        (["stale", "--token", "gc-get"], "argument --token: 'gc-get' is no"),
        (["stale", "--token", "gc-get:0.7@1>0.0"], "argument --token: token "),
    ],
)
def test_a_token_that_cannot_be_replayed_is_a_usage_error(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_status("smp", *argv) == 2
    out, err = capsys.readouterr()
    assert not out
    assert err.count("\n") == 1
    assert err.startswith(f"mbufpools smp: {message}")


def test_the_command_answers_an_unknown_variant_with_the_known_names(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert exit_status("smp", "patch") == 2
    out, err = capsys.readouterr()
    assert not out
    assert err.count("\n") == 1
    assert all(name in err for name in VARIANTS)


def test_a_verdict_that_is_not_as_expected_fails_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = Verdict(VARIANTS["cured"], (), verdict("stale").findings)

    def mistaken(name: str, *, deep: bool) -> Verdict:
        assert not deep
        return wrong if name == "cured" else verdict(name)

    monkeypatch.setattr("mbufpools.smp.verdict", mistaken)
    assert exit_status("smp", "cured") == 1
    assert exit_status("smp") == 1
    assert "NOT AS EXPECTED: cured." in " ".join(capsys.readouterr().out.split())


def test_a_verdict_that_is_not_complete_says_so() -> None:
    explored = count(BY_NAME["put-get"], VARIANTS["cured"].rules, 2)
    found = Verdict(VARIANTS["cured"], (explored,), ())
    assert not found.as_expected
    assert found.summary == "no stall in 2 schedules of two CPUs, but there are more"
