"""A report tells the cause; a failure has its schedule as data, as lanes, and as a page."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import asdict
from pathlib import Path

import anyio
import pytest
from anyio.lowlevel import checkpoint

from mbufpools import lab
from mbufpools.lab._page import page_of
from mbufpools.lab._story import ScheduledStep
from mbufpools.lab.engine import with_pages
from tests.zoo._specimen import together

BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])


async def callback_fails() -> None:
    done = asyncio.get_running_loop().create_future()

    def finished(task: object) -> None:
        raise KeyError("gone")

    async def job() -> None:
        await asyncio.sleep(0)

    task = asyncio.create_task(job())
    task.add_done_callback(finished)
    await done


async def task_fails() -> None:
    ready = asyncio.Event()

    async def starter() -> None:
        raise ValueError("the true cause")

    task = asyncio.create_task(starter())
    await ready.wait()
    await task


def test_a_stall_tells_the_error_of_a_callback_before_it() -> None:
    (failure,) = lab.explore(callback_fails).failures
    assert failure.kind == "stall"
    told = failure.report.splitlines()[1]
    assert told.startswith("  before that KeyError: 'gone' was raised at ")
    assert ", in finished, and nothing has handled it" in told
    assert 'raise KeyError("gone")' in failure.report


def test_a_stall_tells_the_error_of_a_task_before_it() -> None:
    (failure,) = lab.explore(task_fails).failures
    assert failure.kind == "stall"
    assert "before that ValueError: the true cause was raised at " in failure.report
    assert "it is over: it raised ValueError: the true cause" in failure.report


def test_a_failure_of_the_shutdown_says_what_is_cancelled_and_which_task_raised() -> None:
    async def worker(error: Exception | None) -> None:
        try:
            await asyncio.sleep(10)
        finally:
            if error is not None:
                raise error

    async def program() -> None:
        tasks = [asyncio.create_task(worker(it), name=str(it)) for it in (None, ValueError(7))]
        await asyncio.sleep(1)
        del tasks

    (failure,) = lab.explore(program).failures
    lines = failure.report.splitlines()
    assert lines[0] == (
        "exception: unhandled exception during asyncio.run() shutdown: ValueError(7) (task 0.1 '7')"
    )
    assert (
        "  from here on asyncio.run cancels 0.0 'None', 0.1 '7', and waits until they are over"
    ) in lines


def test_an_error_that_no_task_looks_at_names_the_task_that_raised() -> None:
    async def fails() -> None:
        raise ValueError(7)

    async def program() -> None:
        asyncio.create_task(fails(), name="lost").add_done_callback(lambda _: None)
        await asyncio.sleep(1)

    (failure,) = lab.explore(program).failures
    assert failure.report.startswith(
        "exception: Task exception was never retrieved: ValueError(7) (task 0.0 'lost')\n"
    )


def test_what_the_programs_own_handler_handles_is_no_cause() -> None:
    told: list[object] = []

    async def program() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda loop, context: told.append(context))
        loop.call_soon(lambda: 1 / 0)
        await asyncio.Event().wait()

    (failure,) = lab.explore(program, strategy="fifo").failures
    assert told
    assert "before that" not in failure.report


@BACKENDS
def test_the_schedule_says_how_each_task_ended(backend: lab.BackendName) -> None:
    async def program() -> None:
        async def fails() -> None:
            await checkpoint()
            raise KeyError("mine")

        async def waits() -> None:
            await anyio.sleep_forever()

        async def returns() -> None:
            pass

        await together(fails, waits, returns)

    (failure,) = lab.explore(program, backend=backend).failures
    ends = {step.task: step.stopped_at for step in failure.schedule}
    assert ends["0.0"] == "it is over: it raised KeyError: 'mine'"
    assert ends["0.1"] == "it is over: it was cancelled"
    assert ends["0.2"] == "it is over"
    assert ends["0"].startswith("it is over: it raised ExceptionGroup: ")


def test_what_is_refused_is_told_with_its_line() -> None:
    async def program() -> None:
        await asyncio.open_connection("127.0.0.1", 1)

    with pytest.raises(lab.Unsupported, match=r"called at .*test_report.py:\d+, in test_.*program"):
        lab.explore(program)


lock: asyncio.Lock


async def shares_a_lock() -> None:
    async def use() -> None:
        async with lock:
            await asyncio.sleep(0)

    await asyncio.gather(use(), use())


def test_a_lock_that_belongs_to_the_loop_of_another_execution_is_named() -> None:
    global lock
    lock = asyncio.Lock()
    with pytest.raises(lab.LabError, match=r"test_report.lock \(an asyncio Lock, bound to the"):
        lab.explore(shares_a_lock)


def test_a_message_with_an_address_is_no_difference() -> None:
    async def program() -> None:
        async def fails() -> None:
            raise KeyError(object())

        await asyncio.gather(fails(), checkpoint(), return_exceptions=True)

    lab.explore(program).assert_holds()


# --- the schedule as data


async def one_wakes_another() -> None:
    event = anyio.Event()

    async def wait() -> None:
        await event.wait()
        raise KeyError("woken")

    async def wake() -> None:
        await anyio.sleep(3)
        event.set()

    await together(wait, wake)


@BACKENDS
def test_the_schedule_is_data(backend: lab.BackendName) -> None:
    (failure,) = lab.explore(one_wakes_another, backend=backend).failures
    steps = failure.schedule
    assert [step.number for step in steps if step.task == "0.0"] == [1, 2]
    woken = next(step for step in steps if (step.task, step.number) == ("0.0", 2))
    assert [steps[it].task for it in woken.woken_by] == ["0.1"]
    assert woken.time == 3
    assert "clock" in {step.task for step in steps}
    assert steps[0].title == "main"
    json.dumps([asdict(step) for step in steps])


@BACKENDS
def test_the_deviations_are_in_the_data(backend: lab.BackendName) -> None:
    async def program() -> None:
        order = []

        async def write(letter: str) -> None:
            order.append(letter)

        async def a() -> None:
            await write("a")

        async def b() -> None:
            await write("b")

        await together(a, b)
        assert order == ["a", "b"]

    (failure,) = lab.explore(program, backend=backend).failures
    told = [it for step in failure.schedule for it in step.deviations]
    assert told == ["here 0.1 is scheduled instead of 0.0"]
    (line,) = (it for it in failure.report.splitlines() if it.startswith("  0.1:"))
    assert line == "  0.1: 1        | o  it is over", "a lane for each task"


@BACKENDS
def test_a_page_shows_the_schedule_and_needs_no_network(
    backend: lab.BackendName, tmp_path: Path
) -> None:
    directory = tmp_path / "pages"
    (failure,) = lab.explore(one_wakes_another, backend=backend, html=directory).failures
    assert failure.page == str(directory / f"one_wakes_another-{backend}-1.html")
    assert failure.report.endswith(f"\npage: {failure.page}")
    text = Path(failure.page).read_text("utf-8")
    assert "await event.wait()" in text, "source lines"
    assert "woken by 0.1@2" in text
    wide, narrow = text.split('<svg class="')[1:]
    for picture, name in ((wide, "wide"), (narrow, "narrow")):
        assert picture.startswith(f'{name}"')
        assert picture.count("<circle ") == len(failure.schedule)
        assert f'marker-end="url(#tip-{name})"' in picture
    assert "http://www.w3.org/2000/svg" in text
    assert "KeyError: &#x27;woken&#x27;" in text
    assert not any(it in text for it in ("<script", "src=", "<link", "href="))
    assert failure.html("Title").startswith("<!DOCTYPE html>")
    assert f"<title>one_wakes_another on {backend}, failure 1: exception" in text


def test_a_row_of_a_page_fits_a_narrow_window_and_begins_with_its_deviation() -> None:
    place = f"{__file__}:7, in program"
    step = ScheduledStep("0.1", "0.1", 2, place, 1.5, deviations=("here 0.1 is cancelled",))
    page = page_of("Title", "the report", [step])
    assert "white-space: normal" in page.partition("@media (max-width")[2], "rows are wrapped"
    assert '<meta name="viewport" content="width=device-width' in page
    (row,) = (line for line in page.splitlines() if "step deviates" in line)
    shown = re.sub("<[^>]*>", "", row)
    assert shown.startswith("0.1@2 &#9873; here 0.1 is cancelled test_report.py:7, in program ")
    assert f'title="0.1, at 1.5 s: {place}"' in row


def test_the_first_row_of_a_task_says_what_it_is_called() -> None:
    steps = [ScheduledStep("0.1", "lending.read", number, "", 0.0) for number in (1, 2)]
    rows = [it for it in page_of("Title", "", steps).splitlines() if 'class="step' in it]
    shown = [re.sub("<[^>]*>", "", row) for row in rows]
    assert [it.split() for it in shown] == [["0.1@1", "lending.read"], ["0.1@2"]]


# --- the legend of the tasks


def legend_of(failure: lab.Failure) -> list[str]:
    """Return the lines that say what the tasks are called."""
    lines = failure.report.splitlines()
    begin = next((at for at, it in enumerate(lines) if it.startswith("  tasks: ")), len(lines))
    found = lines[begin : begin + 1]
    for line in lines[begin + 1 :]:
        if not line.startswith(" " * len("  tasks: ")):
            break
        found.append(line)
    return found


def tasks_of(failure: lab.Failure) -> list[str]:
    text = " ".join(it.strip() for it in legend_of(failure))
    return text.removeprefix("tasks: ").split(", ")


async def fails_with(*names: str | None) -> None:
    async def job() -> None:
        pass

    async with anyio.create_task_group() as tasks:
        for name in names:
            tasks.start_soon(job, name=name)
    raise ValueError


@BACKENDS
def test_the_report_says_what_each_task_of_the_schedule_is_called(
    backend: lab.BackendName,
) -> None:
    """A task that is over after its first step has no place that would say it."""
    (failure,) = lab.explore(lambda: fails_with("first", None), backend=backend).failures
    assert tasks_of(failure)[:2] == ["0 'main'", "0.0 'first'"]
    assert re.fullmatch(r"0\.1 '([\w.]+\.)?job'", tasks_of(failure)[2])
    assert [it.task for it in failure.schedule[:3]] == ["0", "0.0", "0.1"]
    assert failure.schedule[2].title.endswith("fails_with.<locals>.job"), "the data has it in full"
    lines = failure.report.splitlines()
    above = lines[lines.index(legend_of(failure)[0]) - 1]
    assert above.startswith("schedule (task: ")
    assert failure.report.replace("\n", "<br>").count("  tasks: ") == 1
    assert "  tasks: 0 &#x27;main&#x27;" in failure.html()


def test_the_task_of_a_coroutine_is_called_after_it_and_a_thread_after_its_function() -> None:
    async def fetch() -> None:
        await asyncio.to_thread(work)

    def work() -> None:
        pass

    async def program() -> None:
        await asyncio.gather(asyncio.create_task(fetch()), asyncio.create_task(fetch(), name="b"))
        raise ValueError

    (failure,) = lab.explore(program).failures
    assert tasks_of(failure) == [
        "0 'main'",
        "0.0 'fetch'",
        "0.0.0 'thread work'",
        "0.1 'b'",
        "0.1.0 'thread work'",
    ]


@pytest.mark.parametrize("number", [1, 5, 30, 60])
@pytest.mark.parametrize("length", [1, 9, 68, 69, 70, 71, 72, 300])
def test_the_legend_has_80_columns_and_at_most_a_line_for_each_task(
    length: int, number: int
) -> None:
    (failure,) = lab.explore(lambda: fails_with(*["x" * length] * number)).failures
    lines = legend_of(failure)
    assert all(len(line) <= 80 for line in lines)
    shown = tasks_of(failure)
    assert len(lines) <= len(shown)
    assert len(shown) <= min(number + 1, 41), "those in the lines that are shown"
    name = shown[1].partition(" ")[2]
    if length <= 60:
        assert name == repr("x" * length)
    else:
        assert re.fullmatch(r"'(\.\.\.)?x+'", name)


def test_a_schedule_of_one_task_has_no_legend() -> None:
    (failure,) = lab.explore(lambda: fails_with()).failures
    assert not legend_of(failure)

    async def sleeps() -> None:
        await asyncio.sleep(1)
        raise ValueError

    (failure,) = lab.explore(sleeps).failures
    assert "clock" in failure.report
    assert not legend_of(failure)


@BACKENDS
def test_a_place_in_code_of_a_library_alone_is_not_left_empty(backend: lab.BackendName) -> None:
    def work() -> None:
        pass

    async def program() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.sleep, 1)
            tasks.start_soon(anyio.to_thread.run_sync, work)
        raise ValueError

    (failure,) = lab.explore(program, backend=backend).failures
    assert all(it.stopped_at for it in failure.schedule)
    assert "in code of a library" in {it.stopped_at for it in failure.schedule}
    assert not re.search(r"^  [\d.]+ *: .*[o|] *$", failure.report, re.MULTILINE)


def test_a_replay_writes_a_page_too(tmp_path: Path) -> None:
    (found,) = lab.explore(one_wakes_another).failures
    (failure,) = lab.replay(one_wakes_another, found.token, html=tmp_path).failures
    assert failure.page == str(tmp_path / "one_wakes_another-asyncio-1.html")
    assert f"lab.replay(program, &#x27;{found.token}&#x27;)" in Path(failure.page).read_text(
        "utf-8"
    )


def test_a_page_shows_what_is_no_unicode(tmp_path: Path) -> None:
    """A file has any name on Linux, and Python keeps its bytes in lone surrogates."""

    async def program() -> None:
        await asyncio.sleep(0)
        raise FileNotFoundError(b"spool/caf\xe9.txt".decode("utf-8", "surrogateescape"))

    (failure,) = lab.explore(program, html=tmp_path).failures
    assert "spool/caf\\udce9.txt" in Path(str(failure.page)).read_text("utf-8")
    name = "caf\udce9" + "x" * 300
    (failure,) = with_pages(lab.explore(program), tmp_path, name, str).failures
    assert Path(str(failure.page)).is_file()


def test_a_page_of_a_tool_has_its_command_and_a_name_that_any_system_takes(tmp_path: Path) -> None:
    found = lab.explore(one_wakes_another)
    names = []
    for name in ("test_it.py::TestIt::test_a[asyncio-a]", *(f"{'x' * 300}{it}" for it in "ab")):
        (failure,) = with_pages(found, tmp_path, name, "tool --token {}".format).failures
        page = Path(str(failure.page))
        names.append(page.name)
        assert f"replay: tool --token {failure.token}" in page.read_text("utf-8")
    assert names[0] == "test_it.py-TestIt-test_a-asyncio-a-1.html"
    assert len({*names}) == 3
    assert max(map(len, names)) == len(names[1]) < 200


def test_pages_of_names_that_differ_in_what_no_file_name_has_do_not_overwrite_each_other(
    tmp_path: Path,
) -> None:
    found = lab.explore(one_wakes_another)
    values = ["a/b", "a b", "a-b", "a--b", "a-b-", "-a-b", "A-B", "[a-b]", "\xe4", "", "\N{BULLET}"]
    names = [f"test_it.py::test_a[{it}]" for it in values]
    names += ["a/b.py::test_a", "a-b.py::test_a", "a b.py::test_a"]
    for name in names:
        with_pages(found, tmp_path, name, str)
    files = {page.name.casefold() for page in tmp_path.iterdir()}
    assert len(files) == len(names)
    assert {"test_it.py-test_a-a-b-asyncio-1.html", "a-b.py-test_a-asyncio-1.html"} < files


def test_a_long_schedule_loses_its_middle_on_the_page() -> None:
    async def program() -> None:
        while True:
            await checkpoint()

    (failure,) = lab.explore(program, step_limit=1000).failures
    assert "600 steps in the middle are left out" in failure.html()
