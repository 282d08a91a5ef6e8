"""The report of the experiment: one HTML file that needs no network, and its pictures.

Needs matplotlib and NumPy (the extra ``report``).

- `write_report` writes ``report.html`` and the pictures into a folder.

The modules, from the foundations up:

==============  ========================================================================
``_drawing``    colours, sizes, and a figure as SVG, the same bytes each time
``_pictures``   a picture for each question
``_hero``       the first picture: one small run before and after the cures
``_page``       the HTML page; ``report.css`` and ``timeline.js`` are put into it
==============  ========================================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .._results import Results
from ..questions import Question
from ._hero import hero
from ._page import page
from ._pictures import PICTURES

__all__ = ["hero", "write_pictures", "write_report"]


_ON_PAPER = 'style="background: #fff; color: #1c1c1c"'
"""A picture that stands alone has no page around it whose colours it could take."""


def write_pictures(questions: Sequence[Question], results: Results, folder: Path) -> dict[str, str]:
    """Draw the picture of each question and the first picture, write them into `folder`, and return
    them by name. Raises OSError if the folder cannot be written; ImportError without matplotlib."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = {"hero": hero()}
    for question in questions:
        pictures[question.name] = PICTURES[question.name](results)
    for name, picture in pictures.items():
        alone = picture.replace("<svg ", f"<svg {_ON_PAPER} ", 1)
        (folder / f"{name}.svg").write_text(alone, encoding="utf-8")
    return pictures


def write_report(questions: Sequence[Question], results: Results, folder: Path) -> Path:
    """Write the pictures and ``report.html`` into `folder`; return the file. Raises as
    `write_pictures`."""
    pictures = write_pictures(questions, results, folder)
    file = folder / "report.html"
    file.write_text(page(questions, results, pictures), encoding="utf-8")
    return file
