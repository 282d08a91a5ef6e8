"""Tables, and the reports of demos."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mbufpools import MbufPools
from mbufpools.demokit import Report, Table, conjunction, plural, tell


def report(table: Table, verdict: str = "Well.", ok: bool = True, **rest: Any) -> Report:
    return Report({"things": table}, verdict, ok, MbufPools().statistics(), **rest)


def a_table() -> Table:
    table = Table({"name": "name", "bytes": "free\n(bytes)", "at": "at (s)", "asleep": "asleep"})
    table.add(name="mbufpl", bytes=16384, at=9.0, asleep=False)
    table.add(name="x", bytes=5, at=None, asleep=True)
    return table


def test_a_table_has_words_to_the_left_and_numbers_to_the_right() -> None:
    assert str(a_table()).splitlines() == [
        "           free",
        "name    (bytes)  at (s)  asleep",
        "------  -------  ------  ------",
        "mbufpl    16384       9  no",
        "x             5       -  yes",
    ]


def test_a_table_shows_its_title_and_its_text_for_none() -> None:
    table = Table({"at": "at"}, title="Title:", none="never")
    table.add(at=None)
    assert str(table) == "Title:\n   at\n-----\nnever"


def test_a_column_of_numbers_and_words_can_be_aligned_to_the_right() -> None:
    table = Table({"kernel": "kernel", "at": "at (s)"}, right=("at",))
    table.add(kernel="patch", at="9.0")
    table.add(kernel="none", at="never")
    assert str(table).splitlines()[2:] == ["patch      9.0", "none     never"]


def test_a_table_without_rows_shows_its_headers() -> None:
    assert str(Table({"a": "a", "b": "long"})) == "a  long\n-  ----"


def test_a_row_must_have_the_cells_of_the_columns() -> None:
    with pytest.raises(TypeError, match="expected name, bytes, at, asleep"):
        a_table().add(name="y")


def test_a_report_is_its_tables_its_notes_and_its_verdict() -> None:
    text = report(a_table(), verdict="It " + "is " * 40 + "so.", notes=["A note."]).text()
    assert text.startswith("           free\n")
    assert "\n\nA note.\n\nVerdict: It is is" in text
    assert text.endswith("so.")
    assert max(map(len, text.splitlines())) <= 80


def test_a_report_that_is_not_as_expected_says_so() -> None:
    text = report(a_table(), verdict="it slept.", ok=False).text()
    assert text.endswith("\n\nVerdict: NOT AS EXPECTED: it slept.")


def test_the_json_of_a_report_has_the_values_of_its_tables_on_one_line() -> None:
    line = report(a_table(), notes=["A note."]).json("stall")
    assert "\n" not in line
    assert json.loads(line) == {
        "demo": "stall",
        "things": [
            {"name": "mbufpl", "bytes": 16384, "at": 9.0, "asleep": False},
            {"name": "x", "bytes": 5, "at": None, "asleep": True},
        ],
        "notes": ["A note."],
        "verdict": "Well.",
        "ok": True,
    }


def test_policies_under_which_the_same_happened_are_named_together() -> None:
    outcomes = [("a", "it sleeps"), ("b", "it wakes"), ("c", "it sleeps"), ("d", "it sleeps")]
    assert tell(outcomes) == "under a, c and d it sleeps; under b it wakes"
    assert tell([("a", "it sleeps"), ("b", "it sleeps")]) == "under a and b it sleeps"


def test_words_are_joined_as_in_a_sentence() -> None:
    assert [conjunction("abc"[:count]) for count in (1, 2, 3)] == ["a", "a and b", "a, b and c"]


def test_a_noun_follows_its_number() -> None:
    assert [plural(number, "page") for number in (0, 1, 2)] == ["0 pages", "1 page", "2 pages"]
    assert plural(2, "try", "tries") == "2 tries"
