"""The HTML page of the report: one file that needs no network.

Style and script stand in the page, and so do the pictures, as SVG. The first thing on the page is
the table that could be posted. The same results and the same matplotlib make the same bytes.
"""

from __future__ import annotations

import html
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from mbufpools.demokit import Table, plural

from .._intervals import BRACKETS
from .._kernels import KERNELS
from .._measured import SOURCE
from .._results import Results
from .._story import tell_story
from ..questions import Question
from ._hero import STORIES

__all__ = ["html_table", "page"]

HERE = Path(__file__).parent
TITLE = "Waking up mbuf pools when pages get released"


def page(questions: Sequence[Question], results: Results, pictures: Mapping[str, str]) -> str:
    """Return the page. `pictures` are those of `write_pictures`."""
    sections = [_section(question, results, pictures[question.name]) for question in questions]
    first = sections[: questions[0].name == "page"]
    links = " ".join(
        f'<a href="#{question.name}">{question.letter}. {_text(question.name)}</a>'
        for question in questions
    )
    stories = json.dumps([tell_story(KERNELS[name]).plain() for name in STORIES])
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{TITLE}: the experiment</title>
<link rel="icon" href="data:,">
<style>
{_file("report.css")}</style>
</head>
<body>
<h1>{TITLE}: the experiment</h1>
<p class="faint">OpenBSD's mbuf pools under several wakeup policies, computed by the library
mbufpools in virtual time. Figures measured on the kernel's own code are named as such.</p>
<nav>{links} <a href="#rerun">rerun</a></nav>
{"".join(first)}
<h2 id="story">One small run, before and after</h2>
<p>Receive clusters and 4k clusters fill a budget of 256 KiB, and six processes sleep. From 4 s on
the 4k clusters are put back one by one; at 5 s all receive clusters are. A bar is a process that
sleeps; it ends in a dot when the process is served. A square is a page that a pool takes, in the
colour of the pool: full for a sleeper, hollow for a newcomer. Both runs are without per-CPU
caches.</p>
<figure>{pictures["hero"]}</figure>
<div id="timeline">
<div class="screen"><button value="in">zoom in</button><button value="out">zoom out</button><button
value="all">all</button></div>
<canvas tabindex="0" role="img"
aria-label="The same two runs, event by event. The arrow keys move the cursor."></canvas>
<p class="key faint"><span style="background:#0072b2"></span>mcl2k2, or a sleeper that is served
<span style="background:#d55e00"></span>mcl4k, or a sleeper that never is
<span style="background:#009e73"></span>mbufpl <span style="background:#cc79a7"></span>mcl9k</p>
<div id="told" aria-live="polite"></div>
</div>
{"".join(sections[len(first) :])}
<h2 id="rerun">How to rerun it</h2>
<pre>make report                     # this page, from 3 seeds
make report-full                # 20 seeds, and the results that the repository keeps
mbufpools compare {questions[-1].name:14}# one question
mbufpools compare --list        # the parameters, for --set</pre>
<p class="faint">Costs: {_text(SOURCE)}.</p>
<script type="application/json" id="stories">{stories.replace("<", chr(92) + "u003c")}</script>
<script>
{_file("timeline.js")}</script>
</body>
</html>
"""


def _section(question: Question, results: Results, picture: str) -> str:
    tables = "".join(html_table(table) for table in question.tables(results))
    notes = "".join(f'<p class="faint">{_text(note)}</p>' for note in question.notes(results))
    order = (tables, f"<figure>{picture}</figure>")
    if question.name != "page":
        order = (order[1], order[0])
    seeds = results.seeds_of(question.cells)
    return f"""<section id="{question.name}">
<h2>{question.letter}. {_text(question.asked)}</h2>
<p class="verdict">{_text(question.verdict(results))}</p>
{order[0]}
<p>{_text(question.how(results))}</p>
{order[1]}
{notes}
<p class="faint">{plural(seeds, "seed")} a cell. {_text(BRACKETS)}
Rerun: <code>{_text(_command(question, results, seeds))}</code></p>
</section>
"""


def _command(question: Question, results: Results, seeds: int) -> str:
    """Return the command that runs a question again as it was run."""
    used = {cell.workload for cell in question.cells}
    words = ["mbufpools", "compare", question.name, "--seeds", str(seeds)]
    if results.cpus is not None:
        words += ["--cpus", str(results.cpus)]
    for workload in sorted(used & results.changes.keys()):
        for name, value in results.changes[workload].items():
            words += ["--set", f"{workload}.{name}={value}"]
    return shlex.join(words)


def html_table(table: Table) -> str:
    """Return a table as HTML, which scrolls by itself if it is wide."""
    rows = [[table.show(row[name]) for name in table.columns] for row in table.rows]
    aligned = [_alignment(at, [row[at] for row in rows]) for at in range(len(table.columns))]
    head = "".join(
        f"<th{how}>{_text(name).replace(chr(10), '<br>')}</th>"
        for how, name in zip(aligned, table.columns.values(), strict=True)
    )
    body = "".join(
        "<tr>"
        + "".join(f"<td{how}>{_text(cell)}</td>" for how, cell in zip(aligned, row, strict=True))
        + "</tr>\n"
        for row in rows
    )
    return (
        f'<div class="wide"><table><caption>{_text(table.title)}</caption>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>\n"
    )


def _alignment(at: int, cells: Sequence[str]) -> str:
    """Numbers stand on the right. The first column is words, and so is one that has no number and
    more to say than whether."""
    numbers = any(cell[:1].isdigit() for cell in cells)
    words = at == 0 or not (numbers or set(cells) <= {"yes", "no", "never", "-", ""})
    return ' class="words"' if words else ""


def _text(words: str) -> str:
    return html.escape(words, quote=False)


def _file(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")
