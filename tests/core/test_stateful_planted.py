"""What the state machines are worth: bugs are planted in the library, and they find each.

The searches are seeded, and what is found is not shrunk. Hypothesis would also draw constants that
it sees in the modules that happen to be loaded, so the way would depend on the tests before.
"""

from __future__ import annotations

import gc
import re
from collections.abc import Callable, Iterator
from typing import Any

import hypothesis
import pytest
from hypothesis import Phase, settings
from hypothesis.internal.conjecture import providers
from hypothesis.stateful import run_state_machine_as_test

from mbufpools import Budget, _waiters
from mbufpools._order import Precedence
from mbufpools._page import PageLists
from mbufpools._waiters import Waiters
from tests.core.test_stateful import (
    SETTINGS,
    BuffersOnAsyncio,
    BuffersOnTrio,
    KernelOnAsyncio,
    KernelOnTrio,
)
from tests.kit.stateful import PoolsMachine

SEARCH = settings(
    SETTINGS,
    max_examples=600,
    database=None,
    derandomize=True,
    phases=[Phase.generate],
    print_blob=False,
    report_multiple_bugs=False,
)
# Hypothesis begins with small examples, the more the longer the search, and they find little: so
# the search is short, and is begun again with other seeds until it finds the bug.
SHORT_SEARCH = settings(SEARCH, max_examples=50, derandomize=False)
SEEDS = range(4, 16)

# A run that fails drops its leases. On Python 3.11 the report of that must not come from a
# finalizer inside of `compile`, which Hypothesis calls: CPython then raises a SystemError.
pytestmark = pytest.mark.filterwarnings("ignore:.* was dropped without a release:ResourceWarning")


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """What a failed run leaves is collected here, and not in a later test, which would fail."""
    yield
    gc.collect()


@pytest.fixture
def without_constants(monkeypatch: pytest.MonkeyPatch) -> None:
    """An older Hypothesis has no such function, and draws no constants of modules."""
    if hasattr(providers, "_get_local_constants"):
        none = type(providers._get_local_constants())()
        monkeypatch.setattr(providers, "_get_local_constants", lambda: none)


lost: list[Any] = []
"""Leases that the library has lost; to be released in the end, or each would complain."""


def around(
    monkeypatch: pytest.MonkeyPatch, owner: type, name: str, bug: Callable[..., Any]
) -> None:
    """Replace a method by `bug`, which gets the method it replaces first."""
    method = getattr(owner, name)
    monkeypatch.setattr(owner, name, lambda self, *args, **named: bug(method, self, *args, **named))


def the_queue_is_not_run_when_a_head_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    def withdraw(method: Any, self: Any, *args: Any) -> None:
        self.run = lambda *args, **named: None
        try:
            method(self, *args)
        finally:
            del self.run

    around(monkeypatch, Waiters, "_withdraw", withdraw)


def a_granted_item_is_lost_with_its_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_waiters, "_release", lost.append)


def a_refused_page_stays_charged(monkeypatch: pytest.MonkeyPatch) -> None:
    def credit(method: Any, self: Any, nbytes: int, **named: Any) -> None:
        if named:  # a page that leaves; else a refund, or a reservation
            method(self, nbytes, **named)

    around(monkeypatch, Budget, "credit", credit)


def a_put_does_not_show_its_item(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(method: Any, self: Any, *args: Any) -> None:
        method(self, *args)
        self._refresh = False

    around(monkeypatch, PageLists, "__init__", init)


def one_more_passes_than_may(monkeypatch: pytest.MonkeyPatch) -> None:
    around(monkeypatch, Precedence, "allowance_now", lambda method, self: method(self) + 1)


def a_debt_is_no_claim(monkeypatch: pytest.MonkeyPatch) -> None:
    def resized(method: Any, self: Any) -> None:
        method(self)
        self.order.debt_pass_limit = None
        self.update_gate()

    around(monkeypatch, Waiters, "budget_resized", resized)


def the_impossible_sleep_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Waiters, "fail_impossible", lambda self: None)


@pytest.mark.usefixtures("without_constants")
@pytest.mark.parametrize(
    ("plant", "machine", "found"),
    [
        (the_queue_is_not_run_when_a_head_leaves, BuffersOnAsyncio, "waits, though it can be"),
        (the_queue_is_not_run_when_a_head_leaves, KernelOnTrio, "the naive kernel says"),
        (
            a_granted_item_is_lost_with_its_task,
            BuffersOnTrio,
            "are out, .* are held|are those held",
        ),
        (a_granted_item_is_lost_with_its_task, KernelOnAsyncio, "the naive kernel says"),
        (a_refused_page_stays_charged, BuffersOnAsyncio, "are charged, but the pages take"),
        (a_refused_page_stays_charged, KernelOnTrio, "are charged, but the pages take"),
        (a_put_does_not_show_its_item, BuffersOnTrio, "though it can be served"),
        (a_put_does_not_show_its_item, KernelOnAsyncio, "the naive kernel says"),
        (one_more_passes_than_may, BuffersOnAsyncio, "passed .*, and . may"),
        (a_debt_is_no_claim, BuffersOnTrio, "the debt|can be served|pass is counted"),
        (the_impossible_sleep_on, BuffersOnAsyncio, "can never be served, and were not told"),
    ],
)
def test_a_planted_bug_is_found(
    plant: Callable[[pytest.MonkeyPatch], None],
    machine: type[PoolsMachine],
    found: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plant(monkeypatch)
    seeded = type(machine.__name__, (machine,), {})  # for the seed is an attribute of it
    try:
        with pytest.raises(Exception, match=found):
            for seed in SEEDS:
                run_state_machine_as_test(hypothesis.seed(seed)(seeded), settings=SHORT_SEARCH)
    finally:
        while lost:
            lost.pop().end()  # it is there once for each try to give it back


class Envious(BuffersOnTrio):
    """Fails when two hold something."""

    def judge(self, compare: Callable[[], None] | None = None) -> None:
        super().judge(compare)
        assert len(self.holders()) < 2, "two hold something"


def test_the_line_that_a_failure_prints_replays_it(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(machine: type[PoolsMachine], max_examples: int) -> tuple[str, list[str]]:
        """What is told, and the steps of it."""
        search = settings(SEARCH, max_examples=max_examples, print_blob=True)
        with pytest.raises(AssertionError, match="two hold") as failure:
            run_state_machine_as_test(machine, settings=search)
        told = capsys.readouterr().out + "\n".join(getattr(failure.value, "__notes__", []))
        return told, re.findall(r"^state\..*", told, re.MULTILINE)

    told, steps = fail(Envious, 100)
    line = re.search(r"@reproduce_failure\('(.*)', b'(.*)'\)", told)
    assert line is not None
    again = hypothesis.reproduce_failure(line[1], line[2].encode())(Envious)
    assert fail(again, 1)[1] == steps
