"""The demos. Each is run under every policy on both backends, and its figures are compared with
what is known about the kernel."""

from __future__ import annotations

import ast
import io
import json
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

import mbufpools
from mbufpools import BufferPools, CurPage, MbufPools, Order, PoolSpec, Wakeup
from mbufpools.cli._demos import NAMES, find_demo, load
from mbufpools.mbufs import NMBCLUSTERS
from tests.kit.kept_demo import kept_demo

POLICIES = [str(policy) for policy in Wakeup]
VIRTUAL = [name for name in NAMES if name not in ("app", "relay")]
SCRIPTS = sorted(Path(load("stall").__file__ or "").parent.glob("*.py"))


def output(name: str, *options: str) -> str:
    """What a demo prints, which must show what it claims. Each is run once in a process."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        assert kept_demo(name).main([*options, "--json"]) == 0
    assert not err.getvalue()
    return out.getvalue()


def run(name: str, *options: str) -> dict[str, Any]:
    """Run a demo that must show what it claims; return its JSON."""
    figures: dict[str, Any] = json.loads(output(name, *options))
    assert figures["ok"] is True
    assert figures["demo"] == name
    verdict = figures["verdict"]
    assert verdict.endswith(".")
    assert len(verdict) <= 200
    assert ". " not in verdict, "it is one sentence"
    assert "for ever" not in verdict, "a sleep ends when something else happens"
    return figures


ONE = ("--policy", "deferred")
# Without a policy a demo shows all of them, which takes some demos seconds.
ONE_OR_ALL = pytest.mark.parametrize("options", [ONE, pytest.param((), marks=pytest.mark.prove)])


@ONE_OR_ALL
@pytest.mark.parametrize("name", VIRTUAL)
def test_a_demo_has_the_same_result_on_both_backends(name: str, options: tuple[str, ...]) -> None:
    assert run(name, *options) == run(name, *options, "--backend", "trio")


# Without a policy a demo shows all of them, so one is enough to show the option.
@pytest.mark.parametrize("options", [(), ONE])
@pytest.mark.parametrize("name", VIRTUAL)
def test_a_demo_shows_the_policies_asked_for(name: str, options: tuple[str, ...]) -> None:
    shown = [row["policy"] for row in next(iter(tables(run(name, *options))))]
    assert list(dict.fromkeys(shown)) == list(find_demo(name).options(list(options)).policies)


def tables(figures: dict[str, Any]) -> list[list[dict[str, Any]]]:
    return [value for name, value in figures.items() if isinstance(value, list) and name != "notes"]


def by(rows: list[dict[str, Any]], *names: str) -> dict[Any, dict[str, Any]]:
    """The rows by the cells `names`."""
    if len(names) == 1:
        return {row[names[0]]: row for row in rows}
    return {tuple(row[name] for name in names): row for row in rows}


# --- what each demo shows


def test_the_stall_does_not_end_by_itself_without_the_patch_and_ends_at_nine_seconds_with_it() -> (
    None
):
    rows = by(run("stall")["policies"], "policy", "margin")
    assert rows["none", None] == {
        "policy": "none",
        "margin": None,
        "woke_at": None,
        "free": 16384,
        "pages": 0,
        "wakeup_runs": 0,
        "drops": 2,  # a get tries twice to get a page before it sleeps
        "left_asleep": True,
    }
    for key in (
        ("deferred", None),
        ("direct", None),
        ("near-limit", 4096 + 16384),
        ("wanted", None),
    ):
        assert rows[key]["woke_at"] == 9.0
        assert rows[key]["wakeup_runs"] == 1
        assert rows[key]["drops"] == 2
        assert rows[key]["free"] == 16384 - 4096
        assert rows[key]["left_asleep"] is False


def test_near_limit_with_a_margin_of_the_wanted_page_stalls() -> None:
    figures = run("stall", "--policy", "near-limit")
    small = by(figures["policies"], "margin")[4096]
    assert small["woke_at"] is None
    assert small["left_asleep"] is True
    assert small["free"] == 16384
    assert small["wakeup_runs"] == 0


@pytest.mark.parametrize("nmbclust", [8, 16, 80])
def test_the_stall_is_the_same_with_a_larger_budget(nmbclust: int) -> None:
    rows = by(run("stall", "--nmbclust", str(nmbclust))["policies"], "policy")
    assert rows["none"]["free"] == nmbclust * 2048
    assert rows["none"]["left_asleep"] is True
    assert rows["deferred"]["woke_at"] == 9.0


def test_deferred_wakes_once_a_run_of_the_gc_and_direct_once_a_page() -> None:
    rows = by(run("coalesce")["policies"], "policy")
    assert {row["pages"] for row in rows.values()} == {28}
    assert {row["gc_runs"] for row in rows.values()} == {4}
    assert rows["none"]["wakeups"] == 0
    assert rows["deferred"]["wakeups"] == 4
    assert rows["deferred"]["coalesced"] == 28 - 4
    assert rows["deferred"]["refused"] == 0
    assert rows["direct"]["wakeups"] == 28
    assert rows["direct"]["coalesced"] == 0
    assert rows["direct"]["refused"] == 6
    assert rows["near-limit"]["wakeups"] < 4
    assert rows["wanted"]["wakeups"] == 7, "none after the second process was served"
    assert rows["wanted"]["refused"] == 6


def test_the_detour_through_the_task_makes_no_process_wait_longer() -> None:
    rows = by(run("coalesce")["policies"], "policy")
    for policy in ("deferred", "direct", "near-limit", "wanted"):
        assert rows[policy]["mbuf_at"] == rows[policy]["cluster_at"] == 9.0
    assert rows["none"]["mbuf_at"] is rows["none"]["cluster_at"] is None


def test_page_frees_and_a_new_limit_cause_one_wakeup_with_the_patch_and_three_with_direct() -> None:
    rows = by(run("nmbclust")["policies"], "policy")
    for row in rows.values():
        assert row["raised_at"] == 1.0  # a raised limit wakes under every policy
        assert row["used_percent"] == 20480 * 100 // 8192
        assert row["freed"] == 2
    assert {policy: row["wakeups"] for policy, row in rows.items()} == {
        "none": 1,  # the limit alone
        "deferred": 1,
        "direct": 3,
        "near-limit": 1,
        "wanted": 3,
    }
    assert rows["none"]["woke_at"] is None
    assert rows["deferred"]["woke_at"] == rows["direct"]["woke_at"] == 12.0


def test_seven_puts_wake_no_process_and_the_eighth_does_under_every_policy() -> None:
    figures = run("hidden-items")
    rows = by(figures["wakers"], "policy", "curpage")
    for policy in POLICIES:
        assert rows[policy, "stale"]["woken_by"] == 8
        assert rows[policy, "stale"]["beside"] == 7
        assert rows[policy, "stale"]["drops"] == 2 + 7
        assert rows[policy, "refreshed"]["woken_by"] == 1
        assert rows[policy, "refreshed"]["drops"] == 2
    assert [put["stale_free"] for put in figures["puts"]] == [1, 2, 3, 4, 5, 6, 7, 7]
    assert [put["stale_asleep"] for put in figures["puts"]] == [True] * 7 + [False]
    assert not any(put["refreshed_asleep"] for put in figures["puts"])


def test_a_64k_cluster_waits_for_128_runs_of_the_gc() -> None:
    figures = run("nine-seconds")
    rows = by(figures["policies"], "policy", "reclaim")
    for policy in ("deferred", "direct", "near-limit", "wanted"):
        assert rows[policy, False]["first_page_at"] == 9.0
        assert rows[policy, False]["gc_runs"] == rows[policy, False]["pages"] == 128
        assert rows[policy, False]["woke_at"] == 9.0 + 127
        assert rows[policy, True]["woke_at"] == 0.0
    assert rows["none", False]["left_asleep"] is True
    last = figures["trickle"][-1]
    assert (last["page"], last["at"], last["nbytes"]) == (128, 136.0, 512 * 1024)


def test_a_deferred_wakeup_waits_for_slow_work_and_the_sleepers_pile_up() -> None:
    figures = run("backlog")
    rows = by(figures["policies"], "policy", "slow")
    for slow, late in ((0.0, 0.0), (1.0, 0.9), (5.0, 4.9)):
        waiting = 8 + 10 + round(100 * late)  # eight, and one every 10 ms, from 0.1 s before
        deferred, direct, none = (rows[each, slow] for each in ("deferred", "direct", "none"))
        for way in ("put", "gc", "nmbclust"):
            assert (deferred[f"{way}_late"], deferred[f"{way}_asleep"]) == (late, waiting)
        assert (direct["put_late"], direct["put_asleep"]) == (0.0, 18)
        assert direct["gc_late"] == late, "the gc itself is behind the slow work"
        assert none["put_late"] is none["gc_late"] is None
        assert none["nmbclust_late"] == direct["nmbclust_late"] == 0.0, "as before the patch"
    assert "deferred 4.9/4.9/4.9, direct 0/4.9/0" in figures["verdict"]


@pytest.mark.parametrize("policy", POLICIES)
def test_a_newcomer_takes_the_page_if_the_task_of_the_patch_is_late(policy: str) -> None:
    rows = by(run("steal", "--policy", policy)["policies"], "delay_ms")
    taken = {delay: (row["taken_by"], row["woke_at"]) for delay, row in rows.items()}
    late = ("newcomer", None if policy == "none" else 19.0)
    if policy in ("direct", "wanted"):
        late = ("sleeper", 9.0)
    assert taken == {
        0: late if policy == "none" else ("sleeper", 9.0),
        **dict.fromkeys((1, 10, 100), late),
    }


def test_in_the_incident_the_patch_has_nothing_to_wake_for_until_the_caches_are_drained() -> None:
    rows = by(run("incident")["kernels"], "policy", "kernel")
    for kernel in ("as it is", "curpage line", "drained", "drained + curpage"):
        before, patch = rows["none", kernel], rows["deferred", kernel]
        assert {**before, "policy": ""} == {**patch, "policy": ""}
        drained = kernel.startswith("drained")
        assert patch["served_9k"] == (patch["waited_9k"] if drained else 0)
        assert (patch["pages"] > 10) == drained
    assert rows["none", "as it is"]["refused"] > 5 * rows["none", "drained"]["refused"]
    assert rows["none", "curpage line"]["wait_ms"] < rows["none", "as it is"]["wait_ms"]


def test_one_process_more_than_a_page_has_mbufs_and_no_process_gets_a_cluster() -> None:
    figures = run("hold-and-wait")
    rows = by(figures["policies"], "policy", "takes", "processes")
    for policy in POLICIES:
        stuck = rows[policy, "nfsm_reqhead", 17]
        assert (stuck["through"], stuck["mbufs"], stuck["deadlock"]) == (0, 17, True)
        assert stuck["short"] == 2 * 4096 + 16384 - 10 * 2048
        cured = rows[policy, "get_many", 17]
        assert (cured["through"], cured["in_order"], cured["deadlock"]) == (17, True, False)
        assert cured["last_at"] == 1 + 3 * 10, "eight at a time"
    assert rows["none", "nfsm_reqhead", 16]["through"] == 16
    assert rows["none", "nfsm_reqhead", 100]["mbufs"] == 10 * 2048 // 256, "all memory is mbufs"
    assert rows["none", "get_many", 100]["through"] == 100
    assert [row["process"] for row in figures["who"]] == ["process 1", "process 2", "process 17"]
    for row in figures["who"]:
        assert (row["holds"], row["wants"]) == ("256 bytes of mbufpl", "2048 bytes of mcl2k")
        assert row["seconds"] == 600


def test_a_claim_on_everything_is_passed_as_often_as_its_order_allows() -> None:
    rows = by(run("order")["policies"], "order", "takes")
    for takes in ("1", "2 at once"):
        fifo, bounded, barging = (rows[order, takes] for order in ("fifo", "bounded", "barging"))
        assert fifo["passed"] == fifo["during"] == 0
        assert fifo["releases"] == fifo["out"]
        assert bounded["passed"] <= bounded["out"]
        assert bounded["releases"] <= bounded["out"] + bounded["passed"]
        assert barging["releases"] is barging["after"] is None, "it starves"
        assert barging["passed"] > 50 * barging["out"]
        assert not any(row["deadlock"] for row in (fifo, bounded, barging))
        for row in (fifo, bounded):  # afterwards the traffic flows as it does past a starving one
            assert row["after"] == pytest.approx(barging["during"], rel=0.05)
    assert rows["bounded", "1"]["passed"] == rows["bounded", "1"]["out"]
    assert rows["bounded", "2 at once"]["passed"] == 0, "get_many passes no request"


def test_tasks_that_hold_one_buffer_and_ask_for_another_are_in_a_deadlock_unless_they_barge() -> (
    None
):
    figures = run("order")
    rows = by(figures["policies"], "order", "takes")
    nested = {order: rows[order, "2 in turn"] for order in ("fifo", "bounded", "barging")}
    assert [row["deadlock"] for row in nested.values()] == [True, True, False]
    assert nested["fifo"]["passed"] == 0
    assert nested["bounded"]["passed"] == nested["bounded"]["out"] > 0, "so many gets were served"
    said = [row["line"] for row in figures["explain"]]
    assert said[0] == "9 requests wait; 32768 of 65536 bytes are allocated"
    assert any(
        line.startswith("#1 task 'the claim' has waited 0.5 s for 65536 bytes") for line in said
    )
    assert any("at order.py:" in line for line in said)
    assert not any("/" in line for line in said), "no paths"
    assert said[-1].endswith("with get_many")
    for order in ("fifo", "bounded"):
        at_once = rows[order, "2 at once"]
        assert at_once["releases"] is not None, "get_many avoids the deadlock"
        assert not at_once["deadlock"]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_everything_that_was_sent_to_the_app_arrives_within_the_limit(
    backend: str, policy: str
) -> None:
    figures = run("app", "--backend", backend, "--policy", policy)
    (total,) = figures["total"]
    assert total["whole"] == total["senders"]
    assert total["peak"] <= total["limit"] < total["nbytes"]
    assert total["unreleased"] == 0
    assert sum(pool["waited"] for pool in figures["pools"]) > 0
    for pool in figures["pools"]:
        assert pool["hiwat"] * pool["page_size"] <= total["limit"]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_relay_loses_no_byte_and_its_memory_does_not_grow_with_the_backlog(
    backend: str,
) -> None:
    figures = run("relay", "--backend", backend)
    unbounded, pools = figures["relay"]
    for row in (unbounded, pools):
        assert row["lost"] == 0
        assert row["whole"] == "64 of 64"
        assert row["mib_per_second"] > 0
        assert 0 < row["median_ms"] <= row["p99_ms"]
    assert pools["growth_mib"] * 3 < unbounded["growth_mib"]
    times = [row["seconds"] for row in figures["memory"]]
    assert len(times) == 6
    assert times == sorted(times)
    measured = [row["BufferPools"] for row in figures["memory"] if row["BufferPools"] is not None]
    assert measured
    assert max(measured) <= pools["growth_mib"]


# --- how they print


def test_the_verdict_of_the_relay_is_computed_from_the_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    relay = load("relay")
    lost = [relay.Outcome(nbytes=1, latencies=[0.5], seconds=1.0) for _ in range(2)]
    for outcome, growth in zip(lost, (2**20, 2**22), strict=True):
        outcome.measured.resident = [(0.0, 0), (1.0, growth)]
    lost[1].measured.end = find_demo("order").end_state([])
    monkeypatch.setattr(relay.anyio, "run", lambda *args, **options: lost.pop(0))
    assert relay.DEMO.main([]) == 1
    out = " ".join(capsys.readouterr().out.split())
    assert "Verdict: NOT AS EXPECTED: without a bound the relay grew by 1.0 MiB" in out
    everything = relay.CONNECTIONS * relay.FRAMES * relay.FRAME
    assert f"{everything - 1} and {everything - 1} bytes were lost." in out


@pytest.mark.parametrize("name", NAMES)
def test_a_demo_prints_at_most_80_columns_and_its_verdict_last(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert kept_demo(name).main([]) == 0
    out, err = capsys.readouterr()
    assert not err
    assert out.startswith((load(name).__doc__ or "").partition("\n")[0])
    assert max(map(len, out.splitlines())) <= 80
    assert out.rstrip("\n").split("\n\n")[-1].startswith("Verdict: ")
    assert "NOT AS EXPECTED" not in out


class ContraryPools(MbufPools):
    """Pools that do the opposite of what their options say."""

    def __init__(self, nmbclust: int = NMBCLUSTERS, **options: Any) -> None:
        if "wakeup" in options:
            wakes = options["wakeup"] is not Wakeup.NONE
            options["wakeup"] = Wakeup.NONE if wakes else Wakeup.DEFERRED
        if "curpage" in options:
            stale = options["curpage"] is CurPage.STALE
            options["curpage"] = CurPage.REFRESHED if stale else CurPage.STALE
        super().__init__(nmbclust, **options)


class RoomyPools(MbufPools):
    """Pools with so much memory that no demo runs out of it."""

    def __init__(self, nmbclust: int = NMBCLUSTERS, **options: Any) -> None:
        super().__init__(1024 * nmbclust, **options)


class ContraryOrder(BufferPools):
    """Pools that barge under the other orders, and do not barge under barging."""

    def __init__(self, limit: int, sizes: list[int | str | PoolSpec], **options: Any) -> None:
        barging = options["order"] is Order.BARGING
        options["order"] = Order.FIFO if barging else Order.BARGING
        super().__init__(limit, sizes, **options)


class UndrainedPools(MbufPools):
    """Pools whose caches are never drained."""

    def __init__(self, nmbclust: int = NMBCLUSTERS, **options: Any) -> None:
        super().__init__(nmbclust, **{**options, "drain": "never"})


CONTRARY: dict[str, tuple[str, type[BufferPools]]] = {
    "hold-and-wait": ("MbufPools", RoomyPools),  # no policy cures it
    "order": ("BufferPools", ContraryOrder),
    "incident": ("MbufPools", UndrainedPools),  # the wakeup does not matter
}


@ONE_OR_ALL
@pytest.mark.parametrize("name", VIRTUAL)
def test_a_verdict_is_computed_from_the_run(
    name: str,
    options: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(load(name), *CONTRARY.get(name, ("MbufPools", ContraryPools)))
    assert find_demo(name).main(options) == 1
    assert "\n\nVerdict: NOT AS EXPECTED: " in capsys.readouterr().out


def test_the_json_of_a_run_that_is_not_as_expected_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(load("stall"), "MbufPools", ContraryPools)
    assert find_demo("stall").main(["--json"]) == 1
    assert json.loads(capsys.readouterr().out)["ok"] is False


def test_the_verdict_of_the_app_is_computed_from_the_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    app = load("app")
    monkeypatch.setattr(app, "LIMIT", "64 MiB")  # more memory than the senders can fill
    assert app.DEMO.main([]) == 1
    out = " ".join(capsys.readouterr().out.split())
    assert "Verdict: NOT AS EXPECTED:" in out
    assert "; 0 of 256 records waited for memory" in out


def test_a_limit_without_a_stall_is_reported_as_such(capsys: pytest.CaptureFixture[str]) -> None:
    assert find_demo("stall").main(["--policy", "none", "--nmbclust", "12"]) == 1
    out = capsys.readouterr().out
    assert "if --nmbclust is a multiple of 8, or one more." in " ".join(out.split())
    assert out.endswith("Verdict: NOT AS EXPECTED: under none process 2 did not have to sleep.\n")


@pytest.mark.parametrize(
    ("nmbclust", "holds"),
    [
        (8, "holds 8 clusters of 2k, which is one page of 16 KiB. Process 1 takes a cluster, "),
        (
            16,
            "holds 16 clusters of 2k, which are 2 pages of 16 KiB. Other processes take clusters, ",
        ),
        (17, "holds 17 clusters of 2k, which are 2 pages of 16 KiB and 2048 bytes. Other "),
    ],
)
def test_the_text_of_the_stall_has_the_limit_of_the_run(
    nmbclust: int, holds: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert find_demo("stall").main(["--policy", "none", f"--nmbclust={nmbclust}"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert holds in out
    assert "Process 2 asks for an mbuf and sleeps." in out
    assert ("Process 1" in out) == (nmbclust == 8)


# --- what they refuse


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("option", "listed"),
    [
        ("--policy=always", "'always'; expected one of none, deferred, direct, near-limit, wanted"),
        ("--backend=curio", "'curio'; expected one of asyncio, trio"),
        (
            "--colour=red",
            "unexpected argument '--colour'; the options are --policy, --backend, ",
        ),
    ],
)
def test_a_wrong_option_is_one_line_that_lists_the_right_ones(
    name: str, option: str, listed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        find_demo(name).main([option])
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert not out
    assert listed in err
    assert err.startswith(f"{name}: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize("value", ["7", "4097", "-1", "many", "9" * 5000])
def test_a_limit_that_a_demo_cannot_use_is_one_line_that_states_the_range(
    value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        find_demo("stall").main([f"--nmbclust={value}"])
    assert caught.value.code == 2
    err = capsys.readouterr().err
    assert err.endswith("expected a whole number from 8 to 4096\n")
    assert err.count("\n") == 1


def test_a_backend_that_is_not_installed_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SystemExit):
        find_demo("stall").main(["--backend", "trio"])
    assert "trio is not installed: pip install 'mbufpools[trio]'" in capsys.readouterr().err


# --- the scripts


def test_every_script_is_a_demo_and_every_demo_a_script() -> None:
    assert {script.stem.replace("_", "-") for script in SCRIPTS} == set(NAMES)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_demo_uses_public_names_only(script: Path) -> None:
    rooms = {f"mbufpools{room}" for room in ("", ".lab", ".demokit", ".mbufs", ".net")}
    for node in ast.walk(ast.parse(script.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0
            assert node.module is not None
            if node.module.startswith("mbufpools"):
                assert node.module in rooms
                public = getattr(sys.modules.get(node.module), "__all__", ())
                assert {alias.name for alias in node.names} <= {*public, "lab"}
        elif isinstance(node, ast.Attribute):
            assert not node.attr.startswith("_"), f"line {node.lineno}"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_the_docstring_of_a_demo_is_a_title_and_a_few_lines(script: Path) -> None:
    doc = ast.get_docstring(ast.parse(script.read_text("utf-8")))
    assert doc is not None
    title, _, text = doc.partition("\n\n")
    assert "\n" not in title
    assert len(title) < 80
    assert 3 <= len(text.splitlines()) <= 7


def test_a_script_runs_by_itself() -> None:
    script = next(script for script in SCRIPTS if script.stem == "stall")
    done = subprocess.run(
        [sys.executable, script, "--policy", "deferred"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("under deferred process 2 wakes at 9 s.\n")


@pytest.mark.parametrize("name", NAMES)
def test_the_end_state_of_a_demo_is_that_of_its_first_run(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    end = kept_demo(name).end_state(ONE)
    assert isinstance(end, mbufpools.PoolsStatistics)
    assert not capsys.readouterr().out
    if name == "stall":
        assert end.pools["mbufpl"].nout == 1
        assert (
            kept_demo(name).end_state([]).pools["mbufpl"].waiting == 1
        )  # the first policy is none
