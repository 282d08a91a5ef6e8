"""The recordings of the real kernel: every field of every line agrees; a wrong field is found."""

from __future__ import annotations

import gzip
import io
import itertools
import json
import lzma
import tarfile
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

import pytest

from mbufpools import CurPage, Wakeup, lab
from mbufpools.traces import (
    Disagreement,
    Trace,
    TraceError,
    parse_trace,
    read_recordings,
    read_trace,
    replay,
)
from mbufpools.traces._files import LARGEST, LARGEST_ARCHIVE
from mbufpools.traces._recording import OPERATIONS

DATA = Path(__file__).parents[1] / "data"


def read_archive(name: str) -> dict[str, str]:
    """The recordings in an archive, by their names."""
    return dict(read_recordings(DATA / name))


RECORDINGS = read_archive("kernel-traces.tar.xz")
DEFERRED = "000-deferred-refreshed.jsonl"

both_backends = pytest.mark.parametrize("backend", ["asyncio", "trio"])


# The recordings agree


def rules_of(names: Iterable[str]) -> Counter[tuple[str, ...]]:
    """How many recordings there are of each pair of rules, by their names."""
    return Counter(tuple(name.removesuffix(".jsonl").split("-")[1:]) for name in names)


RULES = {*itertools.product(("none", "deferred", "direct"), ("refreshed", "stale"))}


def test_there_are_as_many_recordings_of_each_rule() -> None:
    """How many in all: `tests/project/test_examples.py` knows what the documents say."""
    rules = rules_of(RECORDINGS)
    assert set(rules) == RULES
    assert len(set(rules.values())) == 1, rules


def test_the_header_of_each_recording_agrees_with_its_name() -> None:
    for name, text in RECORDINGS.items():
        _, wakeup, curpage = name.removesuffix(".jsonl").split("-")
        trace = parse_trace(text, name)
        assert (str(trace.wakeup), str(trace.curpage)) == (wakeup, curpage)
        assert len(trace.steps) == len(text.splitlines()) - 1


def test_the_recordings_contain_every_operation() -> None:
    tried = {
        step.operation for name in RECORDINGS for step in parse_trace(RECORDINGS[name], name).steps
    }
    assert tried == set(OPERATIONS)


def on_a_backend(names: Iterable[str]) -> list[Any]:
    """Each recording on one backend in turn; on the other one among the long proofs."""
    return [
        pytest.param(name, backend, marks=[] if turn == at % 2 else [pytest.mark.prove])
        for at, name in enumerate(sorted(names))
        for turn, backend in enumerate(("asyncio", "trio"))
    ]


@pytest.mark.parametrize(("name", "backend"), on_a_backend(RECORDINGS))
def test_every_field_of_every_line_agrees(name: str, backend: lab.BackendName) -> None:
    trace = parse_trace(RECORDINGS[name], name)
    disagreement = lab.run(replay, trace, backend=backend)
    assert disagreement is None, str(disagreement)


@both_backends
def test_a_wrong_rule_is_found_by_its_recordings(backend: lab.BackendName) -> None:
    """This fails if the replay compares nothing."""
    for name, wakeup, curpage in (
        ("000-deferred-refreshed.jsonl", Wakeup.NONE, CurPage.REFRESHED),
        ("000-deferred-refreshed.jsonl", Wakeup.DIRECT, CurPage.REFRESHED),
        ("000-none-refreshed.jsonl", Wakeup.DEFERRED, CurPage.REFRESHED),
        ("000-deferred-refreshed.jsonl", Wakeup.DEFERRED, CurPage.STALE),
        ("000-deferred-stale.jsonl", Wakeup.DEFERRED, CurPage.REFRESHED),
    ):
        trace = parse_trace(RECORDINGS[name], name)
        wrong = Trace(name, wakeup, curpage, trace.steps)
        assert lab.run(replay, wrong, backend=backend) is not None


# One field differs


def lines_of(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in RECORDINGS[name].splitlines()]


def with_lines(lines: list[dict[str, Any]]) -> Trace:
    return parse_trace("\n".join(map(json.dumps, lines)), "flipped")


def first_line(lines: list[dict[str, Any]], wanted: Callable[[dict[str, Any]], object]) -> int:
    """The index of the first wanted line after the header. The number of the line is one more."""
    return next(index for index, line in enumerate(lines) if index and wanted(line))


@pytest.mark.parametrize(
    "field", ["rv", "t", "mem_limit", "mem_alloc", "drops", "wakeup_runs", "granted"]
)
@pytest.mark.parametrize("at", [1, 20, 150])
def test_a_flipped_field_is_named_with_its_line(field: str, at: int) -> None:
    lines = lines_of(DEFERRED)
    right = lines[at][field]
    wrong = [*right, [99, 0.0]] if field == "granted" else right + 1
    lines[at][field] = wrong
    found = lab.run(replay, with_lines(lines))
    operation = " ".join(map(str, lines[at]["op"]))
    assert found == Disagreement("flipped", at + 1, operation, field, wrong, right)
    assert str(found) == (
        f"flipped, line {at + 1}: after {operation}, {field} differs\n"
        f"  expected {wrong!r}\n"
        f"  got      {right!r}"
    )


@pytest.mark.parametrize(
    "counter",
    [
        "nget",
        "nput",
        "nfail",
        "nout",
        "npages",
        "nidle",
        "npagealloc",
        "npagefree",
        "hiwat",
        "waiting",
    ],
)
def test_a_flipped_counter_of_a_pool_is_named_with_its_line(counter: str) -> None:
    lines = lines_of(DEFERRED)
    at = first_line(lines, lambda line: any(pool[counter] for pool in line["pools"].values()))
    pool = next(name for name, counters in lines[at]["pools"].items() if counters[counter])
    right = lines[at]["pools"][pool][counter]
    lines[at]["pools"][pool][counter] = 0
    found = lab.run(replay, with_lines(lines))
    assert found is not None
    assert (found.line, found.field) == (at + 1, f"{pool}.{counter}")
    assert (found.expected, found.got) == (0, right)


def test_a_counter_that_the_recording_left_out_is_a_disagreement() -> None:
    """Only pools that changed are recorded, so a pool that is absent must not have changed."""
    lines = lines_of(DEFERRED)
    at = first_line(lines, lambda line: line["pools"])
    (pool,) = lines[at]["pools"]
    lines[at]["pools"] = {}
    found = lab.run(replay, with_lines(lines))
    assert found is not None
    assert (found.line, found.field) == (at + 1, f"{pool}.nget")
    assert (found.expected, found.got) == (0, 1)


def test_a_grant_to_another_process_or_at_another_time_is_found() -> None:
    for position, wrong in ((0, 98), (1, 0.25)):
        lines = lines_of("002-deferred-refreshed.jsonl")
        at = first_line(lines, lambda line: line["op"][0] == "advance" and line["granted"])
        right = [list(grant) for grant in lines[at]["granted"]]
        lines[at]["granted"][0][position] = wrong
        found = lab.run(replay, with_lines(lines))
        assert found is not None
        assert (found.line, found.field, found.got) == (at + 1, "granted", right)


def test_the_order_of_the_grants_matters() -> None:
    lines = lines_of(DEFERRED)
    at = first_line(lines, lambda line: len(line["granted"]) > 1)
    lines[at]["granted"].reverse()
    found = lab.run(replay, with_lines(lines))
    assert found is not None
    assert (found.line, found.field) == (at + 1, "granted")


def test_only_the_first_disagreement_is_reported() -> None:
    lines = lines_of(DEFERRED)
    for at in (30, 31, 40):
        lines[at]["drops"] += 1
    found = lab.run(replay, with_lines(lines))
    assert found is not None
    assert found.line == 31


def test_an_unknown_pool_or_counter_in_the_state_is_a_disagreement() -> None:
    for pools, field in (
        ({"mcl1k": {"nget": 1}}, "mcl1k.nget"),
        ({"mbufpl": {"color": 1}}, "mbufpl.color"),
    ):
        lines = lines_of(DEFERRED)
        lines[1]["pools"] = pools
        found = lab.run(replay, with_lines(lines))
        assert found is not None
        assert (found.line, found.field, found.expected, found.got) == (2, field, 1, None)


async def test_a_replay_leaves_nothing_behind() -> None:
    """Neither a replay that agrees nor one that stops in the middle leaves a task or a buffer; the
    warning about it would be an error."""
    lines = lines_of(DEFERRED)[:60]
    assert await replay(with_lines(lines)) is None
    lines[50]["drops"] += 1
    assert await replay(with_lines(lines)) is not None


# Files that are not recordings

HEADER = '{"wakeup": "deferred", "curpage": "refreshed"}'
STATE: dict[str, Any] = {
    "t": 0.0,
    "rv": 0,
    "granted": [],
    "mem_limit": 536870912,
    "mem_alloc": 0,
    "drops": 0,
    "wakeup_runs": 0,
    "pools": {},
}


def step(*op: Any, **state: Any) -> str:
    return json.dumps({"op": list(op), **STATE, **state})


def without(field: str) -> str:
    return json.dumps({"op": ["put", 1], **{k: v for k, v in STATE.items() if k != field}})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("", "tested is empty", id="nothing"),
        pytest.param("{", "tested, line 1: not JSON", id="header is not JSON"),
        pytest.param("[]", "tested, line 1: expected an object; got []", id="header is a list"),
        pytest.param("{}", "tested, line 1: expected a header", id="header is empty"),
        pytest.param(
            '{"wakeup": "often", "curpage": "stale"}',
            "tested, line 1: expected a header with a wakeup of none, deferred, direct, "
            "near-limit, wanted and a curpage of refreshed, stale; got {",
            id="unknown wakeup",
        ),
        pytest.param(
            '{"wakeup": [], "curpage": "stale"}',
            "tested, line 1: expected a header",
            id="wakeup is a list",
        ),
        pytest.param(
            '{"wakeup": "none", "curpage": null}',
            "tested, line 1: expected a header",
            id="curpage is null",
        ),
    ],
)
def test_a_wrong_header_is_refused(text: str, message: str) -> None:
    with pytest.raises(TraceError) as caught:
        parse_trace(text, "tested")
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        pytest.param('{"op"', "not JSON", id="not JSON"),
        pytest.param("[" * 100_000, "not JSON", id="too deep"),
        pytest.param("3", "expected an object; got 3", id="not an object"),
        pytest.param("{}", "op is None; expected one of get, try, put", id="no op"),
        pytest.param('{"op": []}', "op is []", id="empty op"),
        pytest.param('{"op": "get"}', "op is 'get'", id="op is a string"),
        pytest.param(step([1]), "op is [[1]]", id="op is a list of a list"),
        pytest.param(step("take", 1), "op is ['take', 1]", id="unknown op"),
        pytest.param(step("get", 1), "get takes (int, str); got [1]", id="too few arguments"),
        pytest.param(step("put", 1, 2), "put takes (int); got [1, 2]", id="too many arguments"),
        pytest.param(step("put", "1"), "put takes (int); got ['1']", id="a string as process"),
        pytest.param(step("put", True), "put takes (int); got [True]", id="a bool as process"),
        pytest.param(step("get", 1, 2), "get takes (int, str)", id="a number as pool"),
        pytest.param(step("advance", "1"), "advance takes (float)", id="a string as seconds"),
        pytest.param(step("advance", -1), "advance takes (float)", id="backwards"),
        pytest.param(step("advance", float("inf")), "advance takes (float)", id="for ever"),
        pytest.param(step("advance", float("nan")), "advance takes (float)", id="not a number"),
        *(
            pytest.param(without(field), f"the state lacks {field}", id=f"without {field}")
            for field in STATE
        ),
        pytest.param(step("put", 1, pools=[]), "expected pools with", id="pools is a list"),
        pytest.param(
            step("put", 1, pools={"mbufpl": 3}), "expected pools with", id="pool is a number"
        ),
    ],
)
def test_a_wrong_line_is_refused_with_its_number(line: str, message: str) -> None:
    good = step("advance", 0)
    with pytest.raises(TraceError) as caught:
        parse_trace("\n".join([HEADER, good, "", line, good]), "tested")
    assert str(caught.value).startswith(f"tested, line 4: {message}")


def test_empty_lines_are_counted_and_skipped() -> None:
    trace = parse_trace("\n".join([HEADER, "", step("advance", 0), "", step("put", 1)]), "tested")
    assert [(step.line, step.operation) for step in trace.steps] == [(3, "advance"), (5, "put")]


MCL1K = (
    "there is no pool 'mcl1k'; expected one of mbufpl, mcl2k, mcl2k2, mcl4k, mcl8k, mcl9k, "
    "mcl12k, mcl16k, mcl64k"
)
BUSY = "process 7 holds or waits for a buffer already"
HOLDS_NOTHING = "process 7 puts, but was never granted a buffer"
GOT_ONE = {"mbufpl": {"nget": 1, "nout": 1, "npages": 1, "npagealloc": 1, "hiwat": 1}}
GET_7 = step("get", 7, "mbufpl", granted=[[7, 0.0]], mem_alloc=4096, pools=GOT_ONE)


@both_backends
@pytest.mark.parametrize(
    ("lines", "line", "message"),
    [
        pytest.param([step("get", 7, "mcl1k")], 2, MCL1K, id="get of an unknown pool"),
        pytest.param([step("try", 7, "mcl1k")], 2, MCL1K, id="try of an unknown pool"),
        pytest.param([step("hardlimit", "mcl1k", 1)], 2, MCL1K, id="limit of an unknown pool"),
        pytest.param([step("hiwat", "mcl1k", 1)], 2, MCL1K, id="hiwat of an unknown pool"),
        pytest.param([step("reclaim", "mcl1k")], 2, MCL1K, id="reclaim of an unknown pool"),
        pytest.param([step("put", 7)], 2, HOLDS_NOTHING, id="put without a get"),
        pytest.param(
            [
                GET_7,
                step(
                    "put", 7, mem_alloc=4096, pools={"mbufpl": {"nput": 1, "nout": 0, "nidle": 1}}
                ),
                step("put", 7, mem_alloc=4096),
            ],
            4,
            HOLDS_NOTHING,
            id="put twice",
        ),
        pytest.param(
            [
                step("hardlimit", "mbufpl", 0),
                step("get", 7, "mbufpl", pools={"mbufpl": {"waiting": 1}}),
                step("put", 7),
            ],
            4,
            HOLDS_NOTHING,
            id="put by a process that waits",
        ),
        pytest.param([GET_7, GET_7], 3, BUSY, id="get by a process that holds"),
        pytest.param([GET_7, step("try", 7, "mbufpl")], 3, BUSY, id="try by a process that holds"),
        pytest.param(
            [
                step("hardlimit", "mbufpl", 0),
                step("get", 7, "mbufpl", pools={"mbufpl": {"waiting": 1}}),
                step("get", 7, "mbufpl"),
            ],
            4,
            BUSY,
            id="get by a process that waits",
        ),
    ],
)
def test_an_impossible_operation_is_refused_with_its_line(
    lines: list[str], line: int, message: str, backend: lab.BackendName
) -> None:
    trace = parse_trace("\n".join([HEADER, *lines]), "tested")
    with pytest.raises(TraceError) as caught:
        lab.run(replay, trace, backend=backend)
    assert str(caught.value).startswith(f"tested, line {line}: {message}")


# Reading files


def test_a_recording_is_read_plain_or_compressed(tmp_path: Path) -> None:
    text = RECORDINGS[DEFERRED]
    plain, xz, gz = (tmp_path / f"one.jsonl{suffix}" for suffix in ("", ".xz", ".gz"))
    plain.write_text(text, "utf-8")
    xz.write_bytes(lzma.compress(text.encode()))
    gz.write_bytes(gzip.compress(text.encode(), mtime=0))
    for path in (plain, str(xz), gz):
        trace = read_trace(path)
        assert trace.name == Path(path).name
        assert trace.steps == parse_trace(text, "").steps


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("binary.jsonl", b"\xff\xfe\x00"),
        ("not-compressed.jsonl.xz", b"{}"),
        ("cut.jsonl.xz", lzma.compress(b"{}" * 1000)[:-20]),
        ("not-compressed.jsonl.gz", b"{}"),
        ("cut.jsonl.gz", gzip.compress(b"{}" * 1000, mtime=0)[:-20]),
        ("damaged.jsonl.gz", gzip.compress(b"{}" * 1000, mtime=0)[:12] + b"\xff" * 20),
    ],
)
def test_a_file_that_cannot_be_decoded_is_refused(
    tmp_path: Path, name: str, content: bytes
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TraceError, match=f"{name} is not a recording"):
        read_trace(tmp_path / name)


@pytest.mark.parametrize("suffix", ["xz", "gz"])
def test_a_small_compressed_file_cannot_take_much_memory(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"bomb.jsonl.{suffix}"
    text = b'{"wakeup": "none"}\n' * 8_000_000
    compressed = (
        lzma.compress(text, preset=0) if suffix == "xz" else gzip.compress(text, 1, mtime=0)
    )
    path.write_bytes(compressed)
    tracemalloc.start()
    try:
        with pytest.raises(TraceError, match="it has more than 16777216 bytes; split it"):
            read_trace(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100 * 1024 * 1024


def archive_of(path: Path, contents: dict[str, bytes], mode: Literal["w", "w:xz"] = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.parametrize("suffix", ["tar", "tar.xz", "txz", "tar.gz", "tgz"])
def test_an_archive_has_the_texts_of_its_recordings_and_of_no_other_file(
    tmp_path: Path, suffix: str
) -> None:
    contents = {"one.jsonl": b"1", "README": b"", "in/two.jsonl": b"2"}
    plain = archive_of(tmp_path / "plain", contents).read_bytes()
    packed = {".xz": lzma.compress(plain), "txz": lzma.compress(plain), "tar": plain}
    path = tmp_path / f"all.{suffix}"
    path.write_bytes(packed.get(suffix[-3:], gzip.compress(plain)))
    assert list(read_recordings(path)) == [("one.jsonl", "1"), ("in/two.jsonl", "2")]
    with pytest.raises(TraceError, match="is an archive; expected one recording"):
        read_trace(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{}\n", "is no archive of recordings: .*; expected a tar archive of .jsonl files"),
        (b"\0" * 10240, "has no recording; expected a tar archive"),
    ],
)
def test_an_archive_without_a_recording_is_refused(
    tmp_path: Path, content: bytes, message: str
) -> None:
    (tmp_path / "bad.tar").write_bytes(content)
    with pytest.raises(TraceError, match=message):
        list(read_recordings(tmp_path / "bad.tar"))


@pytest.mark.parametrize(
    ("at", "message"),
    [
        (1000, "unexpected end of data"),
        (2560, "it is damaged or cut off at byte 2560"),  # where the second header was
        (2600, "it is damaged or cut off at byte 2560"),
    ],
)
def test_an_archive_that_was_cut_off_is_refused(tmp_path: Path, at: int, message: str) -> None:
    path = archive_of(tmp_path / "cut.tar", {"one.jsonl": b"1" * 2000, "two.jsonl": b"2"})
    path.write_bytes(path.read_bytes()[:at])
    with pytest.raises(TraceError, match=message):
        list(read_recordings(path))


def test_an_archive_with_a_damaged_header_is_refused_after_what_is_before_it(
    tmp_path: Path,
) -> None:
    path = archive_of(tmp_path / "bad.tar", {"one.jsonl": b"1" * 2000, "two.jsonl": b"2"})
    content = path.read_bytes()
    path.write_bytes(content.replace(b"two.jsonl", b"2.jsonl\0\0"))
    recordings = read_recordings(path)
    assert next(recordings)[0] == "one.jsonl"
    with pytest.raises(TraceError, match="it is damaged or cut off at byte 2560"):
        next(recordings)


def test_a_file_in_an_archive_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    path = archive_of(tmp_path / "all.tar", {"one.jsonl": b"\xff"})
    with pytest.raises(TraceError, match=r"all.tar: one.jsonl is not a recording"):
        list(read_recordings(path))


@pytest.mark.parametrize("what", ["the archive", "a file in it", "a header in it"])
def test_a_small_archive_cannot_take_much_memory(tmp_path: Path, what: str) -> None:
    path = tmp_path / "bomb.tar.xz"
    if what == "a header in it":  # a file name of a gigabyte, as the header of the name says
        member = tarfile.TarInfo("././@LongLink")
        member.type, member.size = tarfile.GNUTYPE_LONGNAME, 1 << 30
        path.write_bytes(lzma.compress(member.tobuf() + b"a" * LARGEST, preset=0))
    else:
        size = (LARGEST_ARCHIVE if what == "the archive" else LARGEST) + 1
        plain = archive_of(tmp_path / "plain", {"one.jsonl": b" " * size})
        path.write_bytes(lzma.compress(plain.read_bytes(), preset=0))
    tracemalloc.start()
    try:
        with pytest.raises(TraceError):
            list(read_recordings(path))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 150 * 1024 * 1024


def test_a_missing_file_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_trace(tmp_path / "none.jsonl")
