"""Each question has a verdict, computed from the figures; and it can come out the other way."""

from __future__ import annotations

import json
import tarfile
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest

from mbufpools.experiment import (
    KERNELS,
    LONGEST,
    QUESTIONS,
    Cell,
    Question,
    Results,
    find_question,
    findings,
    mails,
    measure,
    pack,
    unpack,
)
from mbufpools.experiment._faults import FAULTS
from mbufpools.experiment._intervals import interval, median, middle, spread
from mbufpools.experiment._measured import INCIDENT, microseconds_a_second
from mbufpools.experiment.questions._backlog import BACKLOGS
from mbufpools.experiment.questions._cure import (
    CACHED,
    HIDDEN,
    same_with_caches,
    share_until_a_page_is_empty,
)
from mbufpools.experiment.questions._incidents import (
    hung,
    incident_cell,
    less_and_more_slept,
    nine_share,
    refused_share,
    waits,
)
from mbufpools.experiment.questions._page import standing_still
from mbufpools.experiment.questions._question import mean, typical
from mbufpools.smp import VARIANTS
from tests.kit.kept_demo import kept_demo

ROOT = Path(__file__).resolve().parents[2]
COMMITTED = ROOT / "docs" / "results.jsonl.xz"


@pytest.fixture(scope="module")
def committed() -> Results:
    return unpack(COMMITTED)


def ids(question: Question) -> str:
    return question.name


@pytest.mark.parametrize("question", QUESTIONS, ids=ids)
def test_the_verdict_of_the_committed_results_comes_out_again(
    question: Question, committed: Results
) -> None:
    text = " ".join((ROOT / "docs" / "answers.md").read_text("utf-8").split())
    assert question.verdict(committed) in text


@pytest.mark.parametrize("question", QUESTIONS, ids=ids)
def test_a_verdict_is_one_sentence_that_fits(question: Question, committed: Results) -> None:
    verdict = question.verdict(committed)
    assert len(verdict) <= LONGEST
    assert verdict.endswith(".")
    assert ". " not in verdict


@pytest.mark.parametrize("question", QUESTIONS, ids=ids)
def test_every_cell_was_run_with_as_many_seeds(question: Question, committed: Results) -> None:
    assert committed.seeds_of(question.cells) >= 20


def test_the_mail_of_the_committed_results_comes_out_again(committed: Results) -> None:
    kept = (ROOT / "docs" / "mail.txt").read_text("utf-8").split(f"\n{'=' * 72}\n\n")
    assert list(map(str, mails(committed))) == kept


def test_each_mail_is_short_and_has_its_own_subject(committed: Results) -> None:
    found = mails(committed)
    assert len({it.subject for it in found}) == len(found)
    for it in found:
        lines = str(it).splitlines()
        assert len(lines) <= 55
        assert max(map(len, lines)) <= 72


def said_in_mails(results: Results) -> str:
    """All that the mails say, in one line."""
    return " ".join(" ".join(it.text for it in mails(results)).split())


CHEAP = {
    f"{cell.workload}, {cell.kernel.caches} caches, {cell.kernel.order}": cell
    for question in reversed(QUESTIONS)
    for cell in reversed(question.cells)
    if cell.workload not in ("incident", "load") and cell.parameters.get("pages", 0) < 1000
}


@pytest.mark.parametrize("cell", CHEAP.values(), ids=CHEAP)
def test_a_run_behind_the_committed_results_comes_out_again(
    cell: Cell, committed: Results, tmp_path: Path
) -> None:
    again = Results()
    again.add(cell, 1, measure(cell.workload, cell.kernel, cell.parameters, 1))
    pack(again, tmp_path / "again")
    assert unpack(tmp_path / "again").runs[cell.key][1] == committed.runs[cell.key][1]


def test_there_are_five_findings(committed: Results) -> None:
    assert len(findings(committed)) == 5


def changed(results: Results, question: str, **figures: object) -> Results:
    """The same results, in which some figures of the cells of a question are others."""
    copy = deepcopy(results)
    for cell in find_question(question).cells:
        for run in copy.runs[cell.key].values():
            run.update({name: value for name, value in figures.items() if name in run})
    return copy


@pytest.mark.parametrize(
    ("question", "figures", "says", "else_says"),
    [
        ("cure", {"share": 0.001, "put": 1, "served_after": 1.0}, "Yes", "Not all"),
        ("grab", {"taken_by_newcomer": 0, "taken_by_sleeper": 9}, "No:", "Yes, if"),
        ("backlog", {"at_end": 60}, "A doom spiral", "No doom spiral"),
        ("backlog", {"sleeper_seconds": 9}, "direct saves nothing", "direct saves"),
        ("wakeups", {"runs": 10**7, "runs_idle": 0}, "not cheap", "Yes, it is cheap"),
        ("margin", {"served_after": None}, "No margin", "serves every get"),
        ("ratio", {"pages_freed": 0}, "Yes: 6 light loads freed no page", "It depends on the load"),
        ("ratio", {"pages_freed": 100}, "No:", "It depends on the load"),
        ("beyond", {"left_50": None}, "over 4,500 s", "136 s"),
        ("beyond", {"refused": 0, "slept": 0}, "the limit was never reached", "the patch changes"),
        ("page", {"refused": 0, "slept": 0}, "the limit was never reached", "of gets sleep"),
        (
            "page",
            {"slept_after": 0, "never_after": 9},
            "of gets sleep, none served →",
            "of gets sleep 208 ms",
        ),
        ("page", {"slept_after": 0, "never_after": 0}, "0.0% of gets sleep →", "of gets sleep 208"),
        ("page", {"never_after": 1}, "46 ms; with caches", "46 ms, in 11 runs less in all; with"),
        ("backlog", {"refused": 0, "slept": 0}, "the limit was never reached", "direct saves"),
        ("grab", {"taken_by_newcomer": 0, "taken_by_sleeper": 0}, "nothing to compare", "Yes, if"),
        ("page", {"share": 0.5}, "does not help alone", "helps alone"),
    ],
)
def test_a_verdict_can_come_out_the_other_way(
    question: str, figures: dict[str, object], says: str, else_says: str, committed: Results
) -> None:
    verdict = find_question(question).verdict
    assert else_says in verdict(committed)
    said = verdict(changed(committed, question, **figures))
    assert says in said
    assert len(said) <= LONGEST


def with_changes(results: Results, **changes: dict[str, object]) -> Results:
    """The same results, as if they had been run with these parameters of each workload."""
    return replace(results, changes=changes)


def test_the_calculated_share_is_that_of_the_pages_that_were_run(committed: Results) -> None:
    """The committed rows of 16 pages stand for a run in which each row has 16."""
    copy = with_changes(deepcopy(committed), hidden={"pages": 16})
    for cell in HIDDEN:
        copy.runs[cell.key] = committed.runs[copy.measured(cell).key]
    shares, *_ = find_question("cure").tables(copy)
    rows = [row for row in shares.rows if row["pool"] == "mcl2k"]
    assert {(row["pages"], row["calculated"]) for row in rows} == {(16, "67")}


@pytest.mark.parametrize(
    ("question", "changes", "says"),
    [
        ("page", {"incident": {"nmbclust": 4096}}, "fill the budget of 8 MiB"),
        ("page", {"incident": {"hogs": 1000, "end": 40.5}}, "for 10 seconds 1,000 peers"),
        ("page", {"hidden": {"pages": 8, "sleepers": 3}}, "pool of 8 pages"),
        ("page", {"hidden": {"pages": 8, "sleepers": 3}}, "until one of 3 sleepers is served"),
        ("page", {"cold": {"load": 30}}, "receive clusters, 30 % of them in use, hold all memory"),
        ("cure", {"cold": {"horizon": 100.0}}, "(100 s are simulated)"),
        ("grab", {"grab": {"sleepers": 8, "rate": 5.5}}, "8 processes sleep"),
        ("backlog", {"backlog": {"processes": 7, "end": 30.0}}, "slept by all 7 processes, in 30 "),
        ("backlog", {"backlog": {"processes": 7}}, "of 7 stay asleep"),
        ("wakeups", {"storm": {"nmbclust": 512}}, "Storm: 256 idle pages"),
        ("margin", {"cold": {"horizon": 60.0}}, "adds in 60 s, and"),
        ("margin", {"cold": {"horizon": 60.0}}, "60 s are simulated"),
        ("ratio", {"load": {"end": 5.0}}, "seconds slept by all, in 5 s"),
        ("beyond", {"incident": {"resume": 4.5, "end": 9.0}}, "the 4.5 seconds after the peers"),
        ("beyond", {"incident": {"resume": 4.5, "end": 9.0}}, "The same runs, all 9 seconds:"),
    ],
)
def test_the_words_of_a_question_are_those_of_the_parameters_that_were_run(
    question: str, changes: dict[str, dict[str, object]], says: str, committed: Results
) -> None:
    def told(results: Results) -> str:
        asked = find_question(question)
        tables = [table.title for table in asked.tables(results)]
        parts = [asked.how(results), *tables, *asked.notes(results), asked.verdict(results)]
        return " ".join(" ".join(parts).split())

    assert says not in told(committed)
    assert says in told(with_changes(committed, **changes))


def test_the_rows_name_the_cpus_whose_caches_were_run(committed: Results) -> None:
    copy = replace(committed, cpus=4)
    users, pages, varied = find_question("beyond").tables(copy)[1:]
    assert {row["cpus"] for row in (*users.rows, *pages.rows)} == {"-", 4}
    assert {row["cpus"] for row in varied.rows} == {"-", 1, 4}
    assert "with caches on 4 CPUs" in find_question("page").tables(copy)[0].title


def test_a_mean_wait_of_which_none_was_served_says_so(committed: Results) -> None:
    unserved = {"slept_after": 0, "wait_after": 0.0, "never_after": 9}
    for question, at, said in (("page", 0, "none"), ("beyond", 1, "none served")):
        tables = find_question(question).tables(changed(committed, question, **unserved))
        assert {row["wait"] for row in tables[at].rows} == {said}
    nobody = changed(committed, "page", **unserved | {"never_after": 0})
    assert {row["wait"] for row in find_question("page").tables(nobody)[0].rows} == {"-"}


@pytest.mark.parametrize(
    ("question", "figures"),
    [
        ("margin", {"runs": 0, "coalesced": 0}),
        ("backlog", {"sleeper_seconds": 0}),
        ("ratio", {"puts": 0, "pages_freed": 0}),
        ("wakeups", {"runs": 0, "runs_idle": 0, "coalesced": 0, "storm_seconds": 0.0}),
        ("beyond", {"pages_freed": 0}),
    ],
)
def test_figures_of_zero_are_told_too(
    question: str, figures: dict[str, object], committed: Results
) -> None:
    asked, copy = find_question(question), changed(committed, question, **figures)
    assert asked.tables(copy)
    assert asked.verdict(copy).endswith(".")


def test_a_question_states_what_its_cells_differ_in(committed: Results) -> None:
    stated = {question.name: question.stated for question in QUESTIONS}
    assert stated["grab"] == ["grab.delay"]
    assert stated["cure"] == [
        *(f"hidden.{name}" for name in ("pool", "pages", "order", "sleepers")),
        *("cold.request", "cold.load"),
    ]
    assert "cold.request" in stated["page"], "its column is that of a 9k cluster"
    assert "incident.nmbclust" not in stated["beyond"], "its rows say so if it was changed"


def test_the_table_of_the_margins_has_the_adds_of_the_verdict(committed: Results) -> None:
    table, _ = find_question("margin").tables(committed)
    adds = {row["margin"]: row["adds"] for row in table.rows}
    verdict = find_question("margin").verdict(committed)
    assert f"the {adds['patch']} adds in 80 s" in verdict
    saved = 1 - int(str(adds["1024"])) / int(str(adds["patch"]))
    assert f"saves {saved:.0%} of" in verdict


def test_what_is_slept_in_all_is_told_only_if_every_sleeper_was_served(
    committed: Results,
) -> None:
    said = "all together for less than before in 11 runs, for more in 9"
    assert said in findings(committed)[2]
    copy = changed(committed, "page", never_after=1)
    assert "all together" not in findings(copy)[2]
    assert "more gets sleep" in find_question("page").notes(committed)[0]
    assert "more gets sleep" not in " ".join(find_question("page").notes(copy))


def test_a_question_is_found_by_its_name_and_by_its_letter() -> None:
    assert find_question("a") is find_question("cure")
    with pytest.raises(KeyError):
        find_question("z")


def test_the_interval_of_the_mean_surrounds_it_and_is_the_same_each_time() -> None:
    pytest.importorskip("numpy")
    values = [1.0, 2.0, 3.0, 4.0, 10.0]
    found = interval(values)
    assert found is not None
    assert found == interval(values)
    assert 1.0 < found[0] < 4.0 < found[1] < 10.0
    assert interval([1.0]) is None
    assert spread([2.0, 2.0]) == "2.0"


def test_a_median_has_its_range_behind_it_unless_all_values_look_the_same() -> None:
    assert middle([27_650, 128, 26_706, 26_800]) == "26,706 (128..27,650)"
    assert middle([2.01, 2.0], "{:.1f}") == "2.0"


def test_never_is_longer_than_any_time() -> None:
    assert median([None, 3.0, 1.0]) == 3.0
    assert median([None, None, 1.0]) is None


@pytest.mark.parametrize(
    ("items", "nbytes", "share"), [(8, 16384, 0.26), (16, 4096, 0.46)], ids=["mcl2k", "mbufpl"]
)
def test_the_calculated_share_of_a_pool_of_512_mib(items: int, nbytes: int, share: float) -> None:
    found = share_until_a_page_is_empty(items, (512 << 20) // nbytes)
    assert found == pytest.approx(share, abs=0.005)
    assert share_until_a_page_is_empty(items, 1) == pytest.approx(1.0)


def test_the_measured_shares_are_those_that_are_calculated(committed: Results) -> None:
    for cell in HIDDEN:
        pages = cell.parameters["pages"]
        if cell.kernel.name == "patch":
            shares = committed.values(cell, "share")
            items = committed.values(cell, "items")[0] // pages
            expected = share_until_a_page_is_empty(items, pages)
            assert sum(shares) / len(shares) == pytest.approx(expected, abs=0.03)


def test_what_the_page_of_answers_says_of_the_incident(committed: Results) -> None:
    def cell(name: str, caches: int, **parameters: object) -> Cell:
        return incident_cell(name, caches, **parameters)

    def done(name: str, caches: int, **parameters: object) -> float:
        return typical(committed, cell(name, caches, **parameters), "done_after")

    def nine(name: str, caches: int, **parameters: object) -> float:
        return nine_share(committed, cell(name, caches, **parameters))

    # FIFO across pools: a request that cannot be served holds up all that come after it.
    alone, fifo = (
        committed.values(cell(name, 0), "done_after") for name in ("patch", "patch + fifo")
    )
    fewer = [one > other for one, other in zip(alone, fifo, strict=True)]
    assert sum(fewer) > len(fewer) / 2
    assert done("patch + fifo", 8) < 0.1 * done("patch", 8)
    assert nine("drained + patch + fifo", 8) == 1
    assert done("drained + patch + fifo", 8) < done("drained", 8)
    # Reclaim under pressure finds no idle page while the caches keep the items.
    alone_or_with = (cell(f"patch{it}", 0) for it in ("", " + pressure"))
    lasted = [typical(committed, it, "wait_after") for it in alone_or_with]
    assert lasted[1] < lasted[0]
    assert nine("patch + pressure", 8) < 0.5
    # The number of CPUs changes none of this; nor does the limit, if it is reached.
    filled = {"nmbclust": 262144, "hogs": 8192}
    for caches, parameters in ((1, {}), (4, {}), (8, filled)):
        assert nine("as it is", caches, **parameters) < 0.1
        assert nine("patch", caches, **parameters) < 0.1
        assert nine("drained + patch + curpage", caches, **parameters) > 0.9
    assert mean(committed, cell("as it is", 8, nmbclust=262144), "slept_after") == 0


def only(values: list[int], which: list[bool]) -> list[int]:
    return [value for value, one_of_them in zip(values, which, strict=True) if one_of_them]


def test_the_patch_brings_back_the_runs_that_hang_and_changes_the_others_little(
    committed: Results,
) -> None:
    before, patched = (incident_cell(name, 0) for name in ("as it is", "patch"))
    stuck = hung(committed, before)
    others = [not it for it in stuck]
    assert 0 < sum(stuck) < len(stuck) / 4
    assert not any(hung(committed, patched))
    done, then = (committed.values(cell, "done_after") for cell in (before, patched))
    assert max(only(done, stuck)) < 0.02 * max(only(then, stuck))
    assert max(only(then, stuck)) < 0.5 * min(only(done, others))
    for one, other in zip(only(done, others), only(then, others), strict=True):
        assert other == pytest.approx(one, rel=0.01)
    assert sum(stuck[:3]) == 2, "docs/answers.md says so of a short run"
    for name in ("as it is", "patch", "curpage"):
        assert not any(hung(committed, incident_cell(name, 8)))


def test_a_text_tells_runs_that_hang_apart_from_the_others(committed: Results) -> None:
    """No figure of the incident is a mean of both kinds."""
    before, patched = (incident_cell(name, 0) for name in ("as it is", "patch"))
    stuck = hung(committed, before)
    said = " ".join(findings(committed)[1].split())
    assert f"{sum(stuck)} of {len(stuck)} runs do as it is, and 0 with the patch" in said
    others = [not it for it in stuck]
    for which, words in ((stuck, "In the runs that hang, "), (others, "In the others, ")):
        done = only(committed.values(before, "done_after"), which)
        then = only(committed.values(patched, "done_after"), which)
        told = f"{min(done):,} to {max(done):,} requests are done, and {min(then):,} to"
        assert words + told in said
    assert said.partition(" With caches")[0] in said_in_mails(committed)
    verdict = find_question("beyond").verdict(committed)
    assert f"incidents hang in {sum(stuck)} of {len(stuck)}, patched in 0" in verdict


@pytest.mark.parametrize(
    ("asleep", "says", "verdict_says"),
    [
        (0, "clients: 0 of 20 runs do as it is", "hang in 0 of 20, patched in 0 ("),
        (122, "clients: 20 of 20 runs do as it is", "hang in 20 of 20, patched in 20 ("),
    ],
)
def test_a_text_of_runs_of_one_kind_has_no_other_kind(
    asleep: int, says: str, verdict_says: str, committed: Results
) -> None:
    copy = changed(committed, "beyond", never=asleep, nine_asked=14, nine_served=14)
    (said,) = (it for it in findings(copy) if "the incident hangs" in it)
    assert says in said
    assert ("In all, " in said) is (asleep == 0)
    assert "In the others" not in said
    verdict = find_question("beyond").verdict(copy)
    assert verdict_says in verdict
    assert "else" not in verdict


def test_a_run_hangs_also_if_its_processes_sleep_since_before_the_peers_read_again(
    committed: Results,
) -> None:
    cell = incident_cell("as it is", 8)
    asleep = {"never": 130, "never_after": 0, "nine_asked": 14}
    assert all(hung(changed(committed, "beyond", **asleep, nine_served=14), cell))
    assert not any(hung(changed(committed, "beyond", **asleep, nine_served=0), cell))


def test_no_request_is_done_any_more_in_a_run_that_hangs(committed: Results) -> None:
    cell = incident_cell("as it is", 0)
    assert hung(committed, cell)[0]
    sooner = measure("incident", cell.kernel, {"end": 16.0}, 1)
    assert sooner["done_after"] == committed.all(cell)[0]["done_after"] > 0


def test_the_page_says_in_how_many_runs_the_incident_hangs(committed: Results) -> None:
    page = find_question("page")
    assert "as there are senders and NFS clients; none does" in page.how(committed)
    told = page.how(changed(committed, "page", never=136, nine_asked=14, nine_served=0))
    assert "NFS clients; these do: 20 of 20 (as it is), 20 of 20 (curpage line)" in told


def test_the_tables_of_the_incident_have_the_median_and_the_range(committed: Results) -> None:
    _, users, pages, _ = find_question("beyond").tables(committed)
    row = next(row for row in users.rows if row["kernel"] == "as it is" and row["cpus"] == "-")
    done = sorted(committed.values(incident_cell("as it is", 0), "done_after"))
    assert row["hung"] == "4 of 20"
    assert row["done"] == f"{done[9]:,} ({done[0]:,}..{done[-1]:,})"
    assert str(row["never"]).startswith("0 (0..")
    one = next(row for row in pages.rows if row["kernel"] == "as it is" and row["cpus"] == "-")
    assert str(one["freed"]).startswith("60 (10..")


def test_the_table_of_one_page_has_the_median_wait_and_the_longest(committed: Results) -> None:
    """One run of twenty, which waits ten times as long, moves the mean and not the median."""
    table, _ = find_question("page").tables(committed)
    lasted = {row["kernel"]: (row["wait"], row["worst"]) for row in table.rows}
    assert lasted["drain + patch"] == ("152", "2,061")
    assert lasted["draining"] == ("169", "327")


def test_a_row_of_another_load_says_which_of_its_parameters_was_changed(
    committed: Results,
) -> None:
    (*_, varied) = find_question("beyond").tables(committed)
    assert [row["what"] for row in varied.rows].count("512 MiB") == 2
    copy = deepcopy(committed)
    copy.changes["incident"] = {"nmbclust": 4096, "think": 0.1}
    (*_, varied) = find_question("beyond").tables(copy)
    told = [row["what"] for row in varied.rows]
    assert "512 MiB" not in told
    assert told.count("512 MiB, but nmbclust=4096") == 2
    assert "1 CPU" in told


def test_what_the_mail_says_beside_the_results_is_so(committed: Results) -> None:
    said = said_in_mails(committed)
    recordings = 0
    for archive in ("kernel-traces.tar.xz", "kernel-traces-caches.tar.xz"):
        with tarfile.open(ROOT / "tests" / "data" / archive) as files:
            recordings += sum(name.endswith(".jsonl") for name in files.getnames())
    assert f"agrees with {recordings} recordings of the kernel's own code" in said
    assert f"The window of unlocked-look is {VARIANTS['unlocked-look'].window} there" in said
    assert INCIDENT["as it is"] == INCIDENT["patch"], "not in the run of the real code"


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_the_patch_is_told_in_the_same_words_everywhere(
    name: str, committed: Results
) -> None:
    assert VARIANTS[name].in_kernel or VARIANTS[name].in_kernel_if
    told = f"- `{name}`: {FAULTS[name]}"
    for page in ("answers.md", "smp.md"):
        text = " ".join((ROOT / "docs" / page).read_text("utf-8").split())
        assert told in text
        assert "four faults, each in a narrow case" in text
    assert told.replace("`", "") in said_in_mails(committed)
    assert len(FAULTS) == 4


def test_the_mail_has_all_six_runs_of_the_real_code(committed: Results) -> None:
    said = said_in_mails(committed)
    assert len(INCIDENT) == 6
    for run in INCIDENT.values():
        assert f"{run.done:,} {100 * run.refused:.1f} {run.wait}" in said


def test_what_newcomers_take_is_told_with_their_rate(committed: Results) -> None:
    said = findings(committed)[3]
    assert said.startswith("With 200 M_DONTWAIT gets a second, half of them for the pool in which")
    assert "41% if other work holds its task up for 10 ms (the chance that no get" in said
    assert "in this time is 37%)" in said
    faster = with_changes(committed, grab={"rate": 400.0})
    assert "With 400 M_DONTWAIT gets" in findings(faster)[3]
    assert "in this time is 14%)" in findings(faster)[3]


def test_hidden_items_are_told_with_the_order_of_the_puts(committed: Results) -> None:
    said = findings(committed)[0]
    assert "50% of a full 2k pool of 256 pages is put back" in said
    assert "random order, and 0.4% if they come back in the order in which they were" in said


def test_caches_change_nothing_of_the_hidden_items(committed: Results) -> None:
    assert same_with_caches(committed)
    assert "pool_put passes them over" in said_in_mails(committed)
    copy = deepcopy(committed)
    copy.runs[CACHED[0].key][7]["put"] += 1
    assert "passes them over" not in said_in_mails(copy)
    assert "hides the same items" not in " ".join(find_question("cure").notes(copy))


def test_why_one_run_of_drain_and_patch_waits_longest_is_told(committed: Results) -> None:
    said = standing_still(committed)
    assert said in find_question("page").notes(committed)
    assert said in said_in_mails(committed)
    assert "2,061 ms on average, all senders and NFS clients sleep for 8 seconds" in said
    assert "in 2 runs, for up to 1 second; with the curpage line in none" in said
    assert not standing_still(changed(committed, "page", asleep_by_second=[0] * 24))
    alone, patched = (
        committed.values(incident_cell(name, 8), "done_after")
        for name in ("drained", "drained + patch")
    )
    assert min(patched) < 0.5 * alone[patched.index(min(patched))], "docs/answers.md says so"


def test_the_mail_tells_of_backlogs_what_the_verdict_does(committed: Results) -> None:
    said = said_in_mails(committed)
    assert "With blocks of up to 1 s nobody is asleep at the end" in said
    assert "With blocks of 4 s 1 to 8 of them are asleep at the end, in 5 of 20 runs" in said
    assert "without any block, 60 are, in 18 of 20 runs" in said
    copy = changed(committed, "backlog", at_end=60)
    assert "It does not drain." in said_in_mails(copy)
    copy = changed(committed, "backlog", refused=0, slept=0)
    assert "The limit was never reached." in said_in_mails(copy)


def test_the_price_is_that_of_the_dearest_kernel(committed: Results) -> None:
    *_, table = find_question("wakeups").tables(committed)
    prices = [
        float(str(row["price"])) for row in table.rows if str(row["load"]).startswith("incident")
    ]
    assert f"take {max(prices)} µs of CPU a second at most" in said_in_mails(committed)
    assert f"take {max(prices)} µs" in find_question("wakeups").verdict(committed)


def test_a_late_wakeup_is_as_late_as_the_demo_says(
    committed: Results, capsys: pytest.CaptureFixture[str]
) -> None:
    assert kept_demo("backlog").main(["--json"]) == 0
    rows = {
        row["policy"]: row
        for row in json.loads(capsys.readouterr().out)["policies"]
        if row["slow"] == 5.0
    }
    for way in ("put", "nmbclust"):
        late, asleep = (
            {policy: rows[policy][f"{way}_{what}"] for policy in ("deferred", "direct")}
            for what in ("late", "asleep")
        )
        assert late["direct"] == 0
        said = said_in_mails(committed)
        assert (
            f"behind 5 s of other work there the first sleeper is served "
            f"{late['deferred']:g} s late, and {asleep['deferred']} processes sleep meanwhile; "
            f"with a direct wakeup it is not late, and {asleep['direct']} sleep"
        ) in said
    assert rows["none"]["nmbclust_late"] == 0, "before the patch, a raised limit wakes at once"


def test_only_the_gc_frees_pages_in_the_backlog_unless_a_pool_may_keep_none(
    committed: Results,
) -> None:
    for direct in (cell for cell in BACKLOGS if cell.kernel.name == "direct"):
        patch = replace(direct, kernel=KERNELS["patch"])
        for figure in ("sleeper_seconds", "at_end", "pages_freed"):
            assert committed.values(direct, figure) == committed.values(patch, figure)
    kept, freed_by_puts = (
        Cell.of("backlog", KERNELS["direct"], block=4.0, **keep) for keep in ({}, {"keep": 0})
    )
    assert mean(committed, freed_by_puts, "pages_freed") > mean(committed, kept, "pages_freed")


def test_draining_serves_without_the_patch_which_then_saves_a_second(committed: Results) -> None:
    def median_cold(name: str, request: str, load: int) -> float:
        cell = Cell.of("cold", KERNELS[name].on(8), request=request, load=load)
        found = median(committed.values(cell, "served_after"))
        assert found is not None
        return found

    for request in ("bpf", "nfs"):
        for load in (0, 30, 100):
            drained, patched = (
                median_cold(name, request, load) for name in ("drained", "drained + patch")
            )
            assert drained - patched == pytest.approx(1.0)
    assert nine_share(committed, incident_cell("drained", 8)) == 1


def test_with_the_curpage_line_each_sleep_is_shorter_and_more_is_asked_for(
    committed: Results,
) -> None:
    before, cured = (incident_cell(name, 8) for name in ("as it is", "curpage"))
    assert mean(committed, cured, "slept_after") > mean(committed, before, "slept_after")
    shorter = zip(waits(committed, before), waits(committed, cured), strict=True)
    assert all(after < wait for wait, after in shorter)
    assert less_and_more_slept(committed, before, cured) == (11, 9)
    for cell in (before, cured):
        assert refused_share(committed, cell, "mcl4k") == 1
    assert refused_share(committed, cured, "mcl2k") > refused_share(committed, before, "mcl2k")
    asked = [
        sum(sum(run["tries_after_by_pool"].values()) for run in committed.all(cell))
        + sum(committed.values(cell, "asked_after"))
        for cell in (before, cured)
    ]
    assert asked[1] > asked[0]


def test_the_price_is_that_of_the_calls() -> None:
    assert microseconds_a_second(1000, 100, 500, 1.0) == pytest.approx(171 + 190 + 1)
