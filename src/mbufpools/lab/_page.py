"""One HTML page for a failure: a lane for each task, which task woke which, and each source line.

The page needs nothing from the network, and no script: it is one file with its own styles and one
picture, in one size for wide windows and in another for narrow ones. A row of the picture is a
step; an arrow goes from the step that woke a task to the step that the task took then. A step after
which the schedule deviates from its rule is marked. The first row of a task says what it is called.
"""

from __future__ import annotations

import hashlib
import linecache
import re
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from ._story import ScheduledStep, lanes_of

__all__ = ["page_of", "write_page"]

LONGEST = 400
"""The number of steps that are shown; a longer schedule loses its middle."""
LONGEST_NAME = 150
"""The number of characters of a page's file name, without its suffix."""
PLAIN = re.compile(
    r"[\w.]+((/|::)[\w.]+)*"  # of a function
    r"(\[[a-z0-9_.]+(-[a-z0-9_.]+)*\])?"  # of parameters, which may differ by their case alone
    r"( \w+)*-\d+",  # which call of a test, the backend, which failure
    re.ASCII,
)
"""The names which, spelt for a file, differ if they differ."""
WIDE, NARROW = (28, 26), (57, 16)
"""The height of a row, and the width of a lane, in pixels. In a narrow window a row has three lines
of text, so that it need not be scrolled."""
COLOURS = ("#2563eb", "#059669", "#9333ea", "#c2410c", "#0e7490", "#be185d", "#4d7c0f", "#57534e")
_PLACE = re.compile(r"^(?P<file>.+):(?P<line>\d+), in ")

STYLE = f"""
body {{ font: 14px/1.4 system-ui, sans-serif; margin: 2em; color: #1c1917; }}
h1 {{ font-size: 1.2em; }}
pre {{ background: #f5f5f4; padding: 1em; overflow-x: auto; }}
.schedule {{ display: flex; overflow-x: auto; }}
.schedule svg {{ flex: none; }}
.schedule svg.narrow {{ display: none; }}
.step {{ height: {WIDE[0]}px; line-height: {WIDE[0]}px; white-space: nowrap; padding-left: 1em; }}
.step b {{ display: inline-block; min-width: 4em; }}
.step code {{ color: #1e3a8a; }}
.step i {{ color: #78716c; font-style: normal; }}
.deviates {{ background: #fef3c7; }}
.deviates em {{ color: #b45309; font-style: normal; font-weight: bold; }}
@media (max-width: 40em) {{
  body {{ font-size: 12px; margin: 1em; }}
  .schedule svg.wide {{ display: none; }}
  .schedule svg.narrow {{ display: block; }}
  .schedule > div {{ flex: 1; min-width: 0; }}
  .step {{ height: {NARROW[0]}px; line-height: {NARROW[0] // 3}px; white-space: normal; }}
  .step {{ overflow: hidden; overflow-wrap: anywhere; padding-left: 0.4em; }}
}}
"""


def page_of(title: str, report: str, steps: Sequence[ScheduledStep]) -> str:
    """Return the page of a failure."""
    shown = list(range(len(steps)))
    left_out = len(shown) - LONGEST
    if left_out > 0:
        shown[LONGEST // 2 : -LONGEST // 2] = []
    note = f"<p>{left_out} steps in the middle are left out.</p>" if left_out > 0 else ""
    first = {steps[at].task: at for at in reversed(shown)}
    rows = "\n".join(_row(at, steps, first[steps[at].task] == at) for at in shown)
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>{escape(title)}</title>
<style>{STYLE}</style></head><body>
<h1>{escape(title)}</h1>
<p>A row is a step of one task. An arrow goes from the step that woke a task to the step that it
took then. A yellow row is one after which the schedule deviates from its rule. The whole paths are
in the report below.</p>
{note}
<div class="schedule">
{_picture(steps, shown, "wide", *WIDE)}
{_picture(steps, shown, "narrow", *NARROW)}
<div>
{rows}
</div></div>
<h1>The report</h1>
<pre>{escape(report)}</pre>
</body></html>
"""


def write_page(
    directory: str, name: str, title: str, report: str, steps: Sequence[ScheduledStep]
) -> str:
    """Write the page of a failure into a directory, which is made if there is none; return its
    path.

    Raises:
        OSError: it cannot be written.
    """
    place = Path(directory)
    place.mkdir(parents=True, exist_ok=True)
    path = place / f"{_file_name(name)}.html"
    # The name of a file that is no UTF-8 may be in a message.
    path.write_text(page_of(title, report, steps), "utf-8", "backslashreplace")
    return str(path)


def _file_name(name: str) -> str:
    """Return a name as a file may have it on any system. One that is cut, or that may be spelt as
    another one is, has a part that is the same only for the same name."""
    spelt = re.sub(r"[^A-Za-z0-9_.]+", "-", name).strip("-")
    if len(spelt) <= LONGEST_NAME and PLAIN.fullmatch(name):
        return spelt
    digest = hashlib.sha1(
        name.encode("utf-8", "backslashreplace"), usedforsecurity=False
    ).hexdigest()
    return f"{spelt[: LONGEST_NAME - 9]}-{digest[:8]}"


def _row(at: int, steps: Sequence[ScheduledStep], first: bool) -> str:
    """Return the row of a step; the `first` one of a task says what the task is called."""
    step = steps[at]
    marks = [*(f"lab.choose takes {it}" for it in step.values), *step.deviations]
    kind = "step deviates" if marks else "step"
    told = "".join(f"<em>&#9873; {escape(it)}</em> " for it in marks)
    woken = ", ".join(f"{steps[it].task}@{steps[it].number}" for it in step.woken_by)
    woken = f" <i>woken by {escape(woken)}</i>" if woken else ""
    title = escape(f"{step.title}, at {step.time:g} s: {step.stopped_at}")
    source = _source(step.stopped_at).partition("  #")[0]
    called = f"<i>{escape(step.title)}</i> " if first and step.title not in ("", step.task) else ""
    return (
        f'<div class="{kind}" title="{title}"><b>{escape(step.task)}@{step.number}</b> '
        f"{told}{called}"
        f"{escape(_short(step.stopped_at))} <code>{escape(source)}</code>{woken}</div>"
    )


def _short(place: str) -> str:
    """Return a place with the name of its file instead of the path, which would fill the row."""
    found = _PLACE.match(place)
    return place if found is None else Path(found["file"]).name + place[found.end("file") :]


def _source(place: str) -> str:
    """Return the source line that a place names, or ""."""
    found = _PLACE.match(place)
    return linecache.getline(found["file"], int(found["line"])).strip() if found else ""


def _picture(
    steps: Sequence[ScheduledStep], shown: Sequence[int], name: str, high: int, wide: int
) -> str:
    """Return the lanes and arrows as an SVG element; a row is so `high`, and a lane so `wide`."""
    tasks = lanes_of(steps)
    column = {task: wide * at + wide // 2 for at, task in enumerate(tasks)}
    row = {at: high * place + high // 2 for place, at in enumerate(shown)}
    width, height = wide * len(tasks), high * len(shown)
    parts = [
        f'<svg class="{name}" width="{width}" height="{height}" role="img" '
        f'xmlns="http://www.w3.org/2000/svg" aria-label="a lane for each task">',
        f'<defs><marker id="tip-{name}" viewBox="0 0 6 6" refX="6" refY="3" markerWidth="6" '
        'markerHeight="6" orient="auto"><path d="M0 0L6 3L0 6z" fill="#78716c"/></marker></defs>',
        *_lanes(steps, tasks, column, row),
        *_arrows(steps, column, row, f"tip-{name}"),
    ]
    for at, y in row.items():
        step = steps[at]
        colour = _colour(tasks.index(step.task))
        marked = ' stroke="#d97706" stroke-width="3"' if step.deviations or step.values else ""
        parts.append(f'<circle cx="{column[step.task]}" cy="{y}" r="6" fill="{colour}"{marked}/>')
    return "\n".join([*parts, "</svg>"])


def _colour(lane: int) -> str:
    return COLOURS[lane % len(COLOURS)]


def _lanes(
    steps: Sequence[ScheduledStep],
    tasks: Sequence[str],
    column: dict[str, int],
    row: dict[int, int],
) -> Iterator[str]:
    for lane, task in enumerate(tasks):
        own = [row[at] for at, step in enumerate(steps) if step.task == task and at in row]
        if own:
            yield (
                f'<line x1="{column[task]}" x2="{column[task]}" y1="{own[0]}" y2="{own[-1]}" '
                f'stroke="{_colour(lane)}" stroke-opacity="0.4" stroke-width="2"/>'
                f"<title>{escape(task)}</title>"
            )


def _arrows(
    steps: Sequence[ScheduledStep], column: dict[str, int], row: dict[int, int], tip: str
) -> Iterator[str]:
    for at, step in enumerate(steps):
        for cause in step.woken_by:
            waker = steps[cause]
            if at in row and cause in row and waker.task != step.task and step.task != "clock":
                x1, y1, x2, y2 = column[waker.task], row[cause], column[step.task], row[at]
                yield (
                    f'<path d="M{x1} {y1}C{x1} {(y1 + y2) // 2} {x2} {(y1 + y2) // 2} {x2} '
                    f'{y2 - 6}" fill="none" stroke="#78716c" marker-end="url(#{tip})"/>'
                )
