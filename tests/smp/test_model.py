"""The model of the kernel on several CPUs agrees with the kernel: operation by operation with the
recordings of the real one and with the library. Its two grains and the lab's strategies agree with
each other."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mbufpools import CurPage, Wakeup, lab
from mbufpools.lab.engine import Dpor, Exhaustive, Outcome, Schedule, Strategy
from mbufpools.smp import KERNEL, VARIANTS, Rules
from mbufpools.smp._model import Operation, Scenario
from mbufpools.smp._processors import ATOMIC, LEAVE, Channel, Code, Data, Mutex, Processors
from mbufpools.smp._rules import Caches, Charge, Look, Mark
from mbufpools.smp._rules import Wakeup as Rule
from mbufpools.smp._scenarios import BY_NAME, SCENARIOS
from mbufpools.smp._search import Execution, run_schedules
from mbufpools.smp._setups import CLUSTER, LARGE, MBUF, SMALL, shapes
from mbufpools.traces import replay
from mbufpools.traces._recording import parse_trace
from tests.kit.smp_sequence import Sequence, rules_of
from tests.traces.test_cached_traces import RECORDINGS as CACHED
from tests.traces.test_kernel_traces import RECORDINGS

# The rules


def test_the_wakeups_of_the_rules_have_the_names_of_the_library() -> None:
    """The library's near-limit is a margin here."""
    assert {str(rule) for rule in Rule} == {*map(str, Wakeup)} - {str(Wakeup.NEAR_LIMIT)}


# One operation after another

OTHERWISE: tuple[dict[str, Any], ...] = (
    {},
    {"look": Look.LIST, "charge": Charge.ADD, "mark": Mark.LOCKED},
    {"look": Look.LOCKED, "mark": Mark.EARLY},
)
"""Rules that differ only on several CPUs."""


@pytest.mark.parametrize("rule", ["none", "deferred", "direct"])
@pytest.mark.parametrize("curpage", ["refreshed", "stale"])
def test_every_field_of_every_line_of_the_recordings_agrees(rule: str, curpage: str) -> None:
    names = [name for name in RECORDINGS if name.endswith(f"-{rule}-{curpage}.jsonl")]
    assert len(names) == 12
    for name in names:
        trace = parse_trace(RECORDINGS[name], name)
        sequence = Sequence(rules_of(trace.wakeup, trace.curpage, **OTHERWISE[1]))
        for step in trace.steps:
            got = sequence.perform(step.operation, *step.arguments).state
            pools = got["pools"]
            expected = {key: value for key, value in step.state.items() if key != "pools"}
            assert {key: got[key] for key in expected} == expected, (name, step)
            for pool, counters in step.state["pools"].items():
                assert {key: pools[pool][key] for key in counters} == counters, (name, step)


WITH_CACHES: dict[str, Any] = {"caches": Caches.KERNEL, "list_items": 8, "lists_serve": False}
"""The rules of the kernel's caches, with lists of eight items as it has them at first."""


@pytest.mark.parametrize("rule", ["none", "deferred", "direct"])
@pytest.mark.parametrize("curpage", ["refreshed", "stale"])
def test_every_field_of_every_line_of_the_recordings_with_caches_agrees(
    rule: str, curpage: str
) -> None:
    names = [name for name in CACHED if name.endswith(f"-{rule}-{curpage}.jsonl")]
    assert len(names) == 10
    for name in names:
        trace = parse_trace(CACHED[name], name)
        rules = rules_of(trace.wakeup, trace.curpage, **OTHERWISE[1], **WITH_CACHES)
        sequence = Sequence(rules, trace.caches)
        for step in trace.steps:
            got = sequence.perform(step.operation, *step.arguments).state
            for field, expected in step.state.items():
                if field in ("pools", "caches"):
                    changed = {pool: got[field][pool] for pool in expected}
                    assert changed == expected, (name, step)
                else:
                    assert got[field] == expected, (name, step)


pids = st.integers(1, 12)
pools = st.sampled_from([MBUF, CLUSTER])
operations = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["get", "try"]), pids, pools),
        st.tuples(st.just("get"), pids, pools),
        st.tuples(st.just("put"), pids),
        st.tuples(st.just("advance"), st.sampled_from([0.25, 1.0, 1.25, 8.25, 9.0])),
        st.tuples(st.just("nmbclust"), st.sampled_from([2, 4, 8, 10, 16, 20])),
        st.tuples(st.just("hiwat"), pools, st.sampled_from([0, 8, 16])),
        st.tuples(st.just("hardlimit"), pools, st.sampled_from([1, 3, 8])),
        st.tuples(st.just("reclaim"), pools),
    ),
    min_size=5,
    max_size=60,
)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.differing_executors])
@given(
    wakeup=st.sampled_from(list(Wakeup)),
    curpage=st.sampled_from(list(CurPage)),
    others=st.sampled_from(OTHERWISE),
    program=operations,
)
@example(
    wakeup=Wakeup.DEFERRED,
    curpage=CurPage.REFRESHED,
    others={},
    program=[("nmbclust", 8), ("get", 1, CLUSTER), ("get", 2, MBUF), ("put", 1), ("advance", 9.0)],
)
def test_on_random_programs_the_model_agrees_with_the_library(
    backend: str, wakeup: Wakeup, curpage: CurPage, others: dict[str, Any], program: list[Any]
) -> None:
    sequence = Sequence(rules_of(wakeup, curpage, **others))
    for operation, *arguments in program:
        process = sequence.model.processes.get(str(arguments[0]))
        busy = process is not None and (process.held or process.waits_for is not None)
        if operation in ("get", "try") and busy:
            continue
        if operation == "put" and not (process is not None and process.held):
            continue
        sequence.perform(operation, *arguments)
    disagreement = lab.run(replay, sequence.trace(wakeup, curpage), backend=backend)
    assert disagreement is None, str(disagreement)


cpus = st.integers(0, 1)
operations_on_cpus = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["get", "try"]), pids, pools, cpus),
        st.tuples(st.just("get"), pids, pools, cpus),
        st.tuples(st.just("put"), pids, cpus),
        st.tuples(st.just("put"), pids, cpus),
        st.tuples(st.just("advance"), st.sampled_from([0.5, 9.0, 30.0])),
        st.tuples(st.just("reclaim"), pools),
        st.tuples(st.just("hardlimit"), pools, st.integers(1, 30)),
    ),
    max_size=60,
)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@settings(max_examples=30, suppress_health_check=list(HealthCheck))
@given(
    wakeup=st.sampled_from(Wakeup),
    curpage=st.sampled_from(CurPage),
    clusters=st.sampled_from([16, 32]),
    program=operations_on_cpus,
)
def test_on_random_programs_with_caches_the_model_agrees_with_the_library(
    backend: str, wakeup: Wakeup, curpage: CurPage, clusters: int, program: list[Any]
) -> None:
    sequence = Sequence(rules_of(wakeup, curpage, **WITH_CACHES), caches=2)
    sequence.perform("nmbclust", clusters)
    for operation, *arguments in program:
        process = sequence.model.processes.get(str(arguments[0]))
        busy = process is not None and (process.held or process.waits_for is not None)
        if operation in ("get", "try") and busy:
            continue
        if operation == "put" and not (process is not None and process.held):
            continue
        sequence.perform(operation, *arguments)
    disagreement = lab.run(replay, sequence.trace(wakeup, curpage), backend=backend)
    assert disagreement is None, str(disagreement)


# The grains, and the strategies

State = tuple[object, ...]


def states(
    scenario: Scenario, rules: Rules, strategy: Strategy, *, joined: bool, most: int
) -> set[State]:
    """The set of states in which the schedules of a strategy end."""
    found: set[State] = set()

    def on_execution(execution: Execution) -> bool:
        outcome, model = execution.outcome, execution.model
        if outcome.kind == "corruption":  # the state of the other threads does not matter
            found.add((outcome.kind, outcome.message))
        elif not outcome.stopped:
            kernel = model.kernel
            found.add(
                (
                    outcome.kind,
                    outcome.message,
                    tuple(sorted(kernel.granted)),
                    kernel.now,
                    kernel.drops,
                    kernel.wakeup_runs,
                    kernel.mem_alloc.value,
                    tuple((it.nout, it.nget, it.npages, it.npagealloc) for it in kernel.pools),
                )
            )
        return False

    run_schedules(
        scenario, rules, strategy, joined=joined, max_executions=most, on_execution=on_execution
    )
    return found


SMALL_ONES = [each for each in SCENARIOS if each.cpus == 2 or each.name in ("puts", "nmbclust-get")]


@pytest.mark.parametrize(
    ("scenario", "rules"),
    [
        pytest.param(
            scenario,
            rules,
            id=f"{name}-{scenario.name}",
            marks=[] if turn == at % 2 else [pytest.mark.prove],
        )
        for at, scenario in enumerate(SMALL_ONES)
        for turn, (name, rules) in enumerate({"cured": Rules(), "kernel": KERNEL}.items())
    ],
)
def test_reduction_ends_where_every_order_of_two_preemptions_ends(
    scenario: Scenario, rules: Rules
) -> None:
    dpor = Dpor()
    reduced = states(scenario, rules, dpor, joined=True, most=1_000)
    assert dpor.complete
    plain = Exhaustive(2)
    assert states(scenario, rules, plain, joined=False, most=4_000) == reduced
    assert plain.complete


@pytest.mark.parametrize(
    ("name", "schedules"), [("half-page", 10), ("put-frees", 805), ("short", 35)]
)
def test_the_smallest_scenarios_are_executed_in_every_order_without_reduction(
    name: str, schedules: int
) -> None:
    scenario = BY_NAME[name]
    reduced = states(scenario, Rules(), Dpor(), joined=True, most=100)
    plain = Exhaustive(None)
    executed = 0

    def on_execution(execution: Execution) -> bool:
        nonlocal executed
        executed += 1
        return execution.outcome.kind is not None

    run_schedules(
        scenario,
        Rules(),
        plain,
        joined=False,
        max_executions=2_000,
        on_execution=on_execution,
    )
    assert (executed, plain.complete) == (schedules, True)
    assert states(scenario, Rules(), Exhaustive(None), joined=False, most=2_000) == reduced


programs = st.lists(
    st.sampled_from(
        [
            (("get", MBUF),),
            (("get", CLUSTER),),
            (("get", MBUF), ("put", MBUF)),
            (("get", CLUSTER), ("put", CLUSTER)),
            (("try", MBUF),),
            (("put", CLUSTER),),
            (("nmbclust", LARGE + SMALL),),
        ]
    ),
    min_size=2,
    max_size=2,
)
some_rules = st.builds(
    Rules,
    wakeup=st.sampled_from(
        [VARIANTS[name].rules.wakeup for name in ("cured", "before", "direct", "wanted")]
    ),
    credit_first=st.booleans(),
    second_try=st.booleans(),
    bump=st.booleans(),
    page_serves=st.booleans(),
    recheck_curpage=st.sampled_from([False, False, True]),
    flag_rechecks=st.booleans(),
    gc_retries=st.booleans(),
    mark=st.sampled_from(Mark),
    look=st.sampled_from(Look),
    charge=st.sampled_from([Charge.ADD, Charge.COMPARE]),
    stale=st.booleans(),
    caches=st.sampled_from([Caches.NONE, Caches.NONE, *Caches]),
    lists_serve=st.booleans(),
)


@settings(max_examples=4, deadline=None)
@example(
    programs=[(("get", MBUF),), (("get", MBUF), ("put", MBUF))],
    rules=Rules(look=Look.LOCKED, recheck_curpage=True),
    clusters=1,
    limit=LARGE,
    gc=False,
).via("a run without requests that looked at the current page again, and so never ended")
@given(
    programs=programs,
    rules=some_rules,
    clusters=st.integers(1, 2),
    limit=st.sampled_from([LARGE, LARGE + SMALL]),
    gc=st.booleans(),
)
def test_on_random_scenarios_and_rules_reduction_ends_where_plain_exploration_ends(
    programs: list[tuple[Operation, ...]], rules: Rules, clusters: int, limit: int, gc: bool
) -> None:
    before: list[tuple[str, Operation]] = []
    for cpu, program in enumerate(programs, 1):
        if program[0] == ("put", CLUSTER):
            before += [(f"P{cpu}", ("get", CLUSTER))]
    clusters = max(clusters, len(before))
    scenario = Scenario(
        "random",
        "a random scenario",
        limit,
        shapes(1, clusters),
        tuple(before) if before else (("P9", ("get", CLUSTER)), ("P9", ("put", CLUSTER))),
        tuple(programs),
        cpus=3,
        gc=gc,
    )
    dpor = Dpor()
    reduced = states(scenario, rules, dpor, joined=True, most=4_000)
    plain = states(scenario, rules, Exhaustive(2), joined=False, most=500)
    if dpor.complete:
        assert plain <= reduced


# Threads, mutexes, channels


def enter_try_results(grain: str) -> set[tuple[bool, ...]]:
    """The results of ``enter_try`` on a mutex that another thread enters and leaves, in all
    schedules."""
    found: set[tuple[bool, ...]] = set()
    strategy = Exhaustive(None)
    while strategy.begin():
        processors = Processors()
        mutex, data = Mutex(processors), Data(processors, "guarded")
        free: list[bool] = []

        def holder(mutex: Mutex = mutex, data: Data = data) -> Code[None]:
            yield mutex
            data.writes()
            yield LEAVE
            mutex.leave()

        def gc(mutex: Mutex = mutex, free: list[bool] = free) -> Code[None]:
            yield ATOMIC
            free.append(mutex.enter_try())
            if free[-1]:
                yield LEAVE
                mutex.leave()

        threads = [processors.spawn("CPU 1", holder()), processors.spawn("systqmp", gc())]
        processors.begin(threads, joined=grain == "joined")
        schedule = Schedule(strategy)
        assert processors.run(schedule, Outcome).kind is None
        assert mutex.holder is None
        strategy.end(schedule, False)
        found.add(tuple(free))
    assert strategy.complete
    return found


def test_enter_try_can_fail_only_in_the_split_grain() -> None:
    assert enter_try_results("split") == {(True,), (False,)}
    assert enter_try_results("joined") == {(True,)}


@pytest.mark.parametrize("joined", [True, False])
def test_one_thread_at_a_time_is_under_a_mutex(joined: bool) -> None:
    strategy = Exhaustive(None)
    executions = 0
    while strategy.begin():
        processors = Processors()
        mutex = Mutex(processors)
        inside: list[str] = []

        def enter(name: str, mutex: Mutex = mutex, inside: list[str] = inside) -> Code[None]:
            yield mutex
            assert not inside
            inside.append(name)
            yield LEAVE
            inside.remove(name)
            mutex.leave()

        threads = [processors.spawn(name, enter(name)) for name in ("a", "b", "c")]
        processors.begin(threads, joined=joined)
        schedule = Schedule(strategy)
        assert processors.run(schedule, Outcome).kind is None
        assert all(thread.done for thread in threads)
        strategy.end(schedule, False)
        executions += 1
    assert executions >= 6


@pytest.mark.parametrize("joined", [True, False])
def test_a_sleeper_is_woken_by_a_later_wakeup_and_not_by_an_earlier_one(joined: bool) -> None:
    ends: set[tuple[bool, bool]] = set()
    strategy = Exhaustive(None)
    while strategy.begin():
        processors = Processors()
        channel = Channel(processors, "ident")

        def sleep(channel: Channel = channel) -> Code[None]:
            yield ATOMIC
            yield channel

        def wakeup(channel: Channel = channel) -> Code[None]:
            yield ATOMIC
            channel.wakeup_one()

        sleeper, waker = processors.spawn("a", sleep()), processors.spawn("b", wakeup())
        processors.begin([sleeper, waker], joined=joined)
        schedule = Schedule(strategy)
        processors.run(schedule, Outcome)
        strategy.end(schedule, False)
        ends.add((sleeper.done, waker.done))
    assert ends == {(True, True), (False, True)}
