"""One HTML page for a failure: a lane for each task, which task woke which, and each source line.

The page needs nothing from the network, and no script: it is one file with its own styles and one
picture. A row of the picture is a step; an arrow goes from the step that woke a task to the step
that the task took then. A step after which the schedule deviates from its rule is marked.
"""

from __future__ import annotations

import linecache
import re
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from ._story import ScheduledStep, lanes_of

__all__ = ["page_of", "write_page"]

LONGEST = 400
"""The number of steps that are shown; a longer schedule loses its middle."""
ROW, LANE = 28, 26
"""The height of a row, and the width of a lane, in pixels."""
COLOURS = ("#2563eb", "#059669", "#9333ea", "#c2410c", "#0e7490", "#be185d", "#4d7c0f", "#57534e")
_PLACE = re.compile(r"^(?P<file>.+):(?P<line>\d+), in ")

STYLE = f"""
body {{ font: 14px/1.4 system-ui, sans-serif; margin: 2em; color: #1c1917; }}
h1 {{ font-size: 1.2em; }}
pre {{ background: #f5f5f4; padding: 1em; overflow-x: auto; }}
.schedule {{ display: flex; overflow-x: auto; }}
.schedule svg {{ flex: none; }}
.step {{ height: {ROW}px; line-height: {ROW}px; white-space: nowrap; padding-left: 1em; }}
.step b {{ display: inline-block; min-width: 4em; }}
.step code {{ color: #1e3a8a; }}
.step i {{ color: #78716c; font-style: normal; }}
.deviates {{ background: #fef3c7; }}
.deviates em {{ color: #b45309; font-style: normal; font-weight: bold; }}
@media (max-width: 40em) {{
  body {{ font-size: 12px; margin: 1em; }}
  .step {{ padding-left: 0.4em; }}
}}
"""


def page_of(title: str, report: str, steps: Sequence[ScheduledStep]) -> str:
    """Return the page of a failure."""
    shown = list(range(len(steps)))
    left_out = len(shown) - LONGEST
    if left_out > 0:
        shown[LONGEST // 2 : -LONGEST // 2] = []
    note = f"<p>{left_out} steps in the middle are left out.</p>" if left_out > 0 else ""
    rows = "\n".join(_row(at, steps) for at in shown)
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
{_picture(steps, shown)}
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
    path = place / f"{re.sub(r'[^A-Za-z0-9_.-]+', '-', name)}.html"
    path.write_text(page_of(title, report, steps), "utf-8")
    return str(path)


def _row(at: int, steps: Sequence[ScheduledStep]) -> str:
    step = steps[at]
    marks = [*(f"lab.choose takes {it}" for it in step.values), *step.deviations]
    kind = "step deviates" if marks else "step"
    told = "".join(f"<em>&#9873; {escape(it)}</em> " for it in marks)
    woken = ", ".join(f"{steps[it].task}@{steps[it].number}" for it in step.woken_by)
    woken = f" <i>woken by {escape(woken)}</i>" if woken else ""
    title = escape(f"{step.title}, at {step.time:g} s: {step.stopped_at}")
    source = _source(step.stopped_at).partition("  #")[0]
    return (
        f'<div class="{kind}" title="{title}"><b>{escape(step.task)}@{step.number}</b> {told}'
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


def _picture(steps: Sequence[ScheduledStep], shown: Sequence[int]) -> str:
    """Return the lanes and arrows as an SVG element."""
    tasks = lanes_of(steps)
    column = {task: LANE * at + LANE // 2 for at, task in enumerate(tasks)}
    row = {at: ROW * place + ROW // 2 for place, at in enumerate(shown)}
    width, height = LANE * len(tasks), ROW * len(shown)
    parts = [
        f'<svg width="{width}" height="{height}" xmlns="http://www.w3.org/2000/svg" role="img" '
        f'aria-label="a lane for each task">',
        '<defs><marker id="tip" viewBox="0 0 6 6" refX="6" refY="3" markerWidth="6" '
        'markerHeight="6" orient="auto"><path d="M0 0L6 3L0 6z" fill="#78716c"/></marker></defs>',
        *_lanes(steps, tasks, column, row),
        *_arrows(steps, column, row),
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
    steps: Sequence[ScheduledStep], column: dict[str, int], row: dict[int, int]
) -> Iterator[str]:
    for at, step in enumerate(steps):
        for cause in step.woken_by:
            waker = steps[cause]
            if at in row and cause in row and waker.task != step.task and step.task != "clock":
                x1, y1, x2, y2 = column[waker.task], row[cause], column[step.task], row[at]
                yield (
                    f'<path d="M{x1} {y1}C{x1} {(y1 + y2) // 2} {x2} {(y1 + y2) // 2} {x2} '
                    f'{y2 - 6}" fill="none" stroke="#78716c" marker-end="url(#tip)"/>'
                )
