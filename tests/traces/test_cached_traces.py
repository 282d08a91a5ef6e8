"""The recordings of the kernel with per-CPU caches: every field agrees, ``caches`` too."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mbufpools import lab
from mbufpools.traces import Disagreement, Trace, TraceError, parse_trace, replay
from mbufpools.traces._recording import MOST_CPUS, OPERATIONS
from tests.traces.test_kernel_traces import RULES, on_a_backend, read_archive, rules_of

RECORDINGS = read_archive("kernel-traces-caches.tar.xz")
CPUS = 8

both_backends = pytest.mark.parametrize("backend", ["asyncio", "trio"])


# The recordings agree


def test_there_are_as_many_recordings_of_each_rule() -> None:
    rules = rules_of(RECORDINGS)
    assert set(rules) == RULES
    assert len(set(rules.values())) == 1, rules


def test_the_header_of_each_recording_agrees_with_its_name_and_says_eight_cpus() -> None:
    for name, text in RECORDINGS.items():
        _, wakeup, curpage = name.removesuffix(".jsonl").split("-")
        trace = parse_trace(text, name)
        assert (str(trace.wakeup), str(trace.curpage), trace.caches) == (wakeup, curpage, CPUS)
        assert len(trace.steps) == len(text.splitlines()) - 1


def test_the_recordings_contain_every_operation_on_every_cpu_and_full_depots() -> None:
    operations, cpus, depots = set(), set(), set()
    for name, text in RECORDINGS.items():
        for step in parse_trace(text, name).steps:
            operations.add(step.operation)
            if step.operation in ("get", "try", "put"):
                cpus.add(step.arguments[-1])
            depots |= {caches["depot"] for caches in step.state["caches"].values()}
    assert operations == set(OPERATIONS)
    assert cpus == set(range(CPUS))
    assert {0, 8, 16, 56} <= depots, "in items"


@pytest.mark.parametrize(("name", "backend"), on_a_backend(RECORDINGS))
def test_every_field_of_every_line_agrees(name: str, backend: lab.BackendName) -> None:
    disagreement = lab.run(replay, parse_trace(RECORDINGS[name], name), backend=backend)
    assert disagreement is None, str(disagreement)


# One field differs

NAME = "2008-deferred-stale.jsonl"


def flipped(at: int, pool: str, field: str, value: object) -> Disagreement | None:
    """What the replay says when a field of the caches in a line is not the one recorded."""
    lines = RECORDINGS[NAME].splitlines()[: at + 2]
    line = json.loads(lines[at])
    line["caches"].setdefault(pool, {})[field] = value
    lines[at] = json.dumps(line)
    return lab.run(replay, parse_trace("\n".join(lines), "flipped"))


@pytest.mark.parametrize(
    ("field", "wrong", "right"),
    [("list", 7, 8), ("depot", 8, 0), ("cpus", [0] * 7 + [1], [0] * 8), ("colour", 1, None)],
)
def test_a_flipped_field_of_the_caches_is_named_with_its_line(
    field: str, wrong: object, right: object
) -> None:
    found = flipped(1, "mcl4k", field, wrong)
    assert found is not None
    assert (found.line, found.field) == (2, f"mcl4k.caches.{field}")
    assert (found.expected, found.got) == (wrong, right)


def test_caches_of_a_pool_that_does_not_exist_are_a_disagreement() -> None:
    found = flipped(1, "mcl1k", "depot", 0)
    assert found is not None
    assert (found.field, found.expected, found.got) == ("mcl1k.caches.depot", 0, None)


def test_caches_that_the_recording_left_out_are_a_disagreement() -> None:
    """Only caches that changed are recorded, so those that are absent must not have changed."""
    lines = RECORDINGS[NAME].splitlines()
    at = next(n for n, line in enumerate(lines) if n > 1 and json.loads(line)["caches"])
    line = json.loads(lines[at])
    ((pool, caches),) = line["caches"].items()
    lines[at] = json.dumps({**line, "caches": {}})
    found = lab.run(replay, parse_trace("\n".join(lines[: at + 1]), "flipped"))
    assert found is not None
    assert (found.line, found.field) == (at + 1, f"{pool}.caches.cpus")
    assert found.got == caches["cpus"]


@both_backends
def test_the_kernel_without_caches_does_not_agree(backend: lab.BackendName) -> None:
    trace = parse_trace(RECORDINGS[NAME], NAME)
    lines = [json.loads(line) for line in RECORDINGS[NAME].splitlines()]
    del lines[0]["caches"]
    for line in lines[1:]:
        if line["op"][0] in ("get", "try", "put"):
            line["op"].pop()
    without = parse_trace("\n".join(map(json.dumps, lines)), NAME)
    assert without.caches == 0
    assert len(without.steps) == len(trace.steps)
    assert lab.run(replay, without, backend=backend) is not None


# Files that are not recordings

STATE: dict[str, Any] = {
    "t": 0, "rv": 0, "granted": [], "mem_limit": 536870912, "mem_alloc": 0, "drops": 0,
    "wakeup_runs": 0, "pools": {}, "caches": {},
}  # fmt: skip


def recording(cpus: object, *op: object, **state: object) -> str:
    header = {"wakeup": "none", "curpage": "stale", "caches": cpus}
    return "\n".join(map(json.dumps, (header, {"op": op, **STATE, **state})))


@pytest.mark.parametrize("caches", [-1, "8", True, None, [8], 8.0, MOST_CPUS + 1])
def test_a_wrong_number_of_caches_is_refused(caches: object) -> None:
    with pytest.raises(TraceError) as caught:
        parse_trace(recording(caches, "advance", 0), "tested")
    assert str(caught.value) == (
        f"tested, line 1: caches is {caches!r}; expected the number of CPUs that have them, from 0 "
        f"to 1024"
    )


@pytest.mark.parametrize(
    ("op", "message"),
    [
        (("get", 1, "mbufpl"), "get takes (int, str, int); got [1, 'mbufpl']"),
        (("try", 1, "mbufpl", "2"), "try takes (int, str, int)"),
        (("put", 1), "put takes (int, int); got [1]"),
        (("put", 1, 8), "put is on CPU 8; expected one of those that have caches, 0 to 7"),
        (("get", 1, "mbufpl", -1), "get is on CPU -1; expected one of those"),
        (("advance", 1, 2), "advance takes (float); got [1, 2]"),
    ],
)
def test_an_operation_must_name_a_cpu_that_has_caches(op: tuple[object, ...], message: str) -> None:
    with pytest.raises(TraceError) as caught:
        parse_trace(recording(CPUS, *op), "tested")
    assert str(caught.value).startswith(f"tested, line 2: {message}")


@pytest.mark.parametrize("caches", [[], {"mbufpl": 3}, None])
def test_the_state_of_the_caches_must_be_there_and_have_their_fields(caches: object) -> None:
    with pytest.raises(TraceError, match="line 2: expected caches with their counters; got"):
        parse_trace(recording(CPUS, "advance", 0, caches=caches), "tested")
    without = recording(CPUS, "advance", 0).replace(', "caches": {}', "")
    with pytest.raises(TraceError, match="line 2: the state lacks caches"):
        parse_trace(without, "tested")


def test_a_recording_without_caches_may_say_so() -> None:
    trace: Trace = parse_trace(recording(0, "put", 1), "tested")
    assert trace.caches == 0
