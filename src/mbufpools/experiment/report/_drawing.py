"""What all pictures share: colours, sizes, and how a figure becomes SVG.

The text and the axes of a picture have the colour of the text around it (``currentColor``), so it
fits a light page and a dark one. The bytes depend on the data and on the release of matplotlib
alone: no date, no random names.
"""

from __future__ import annotations

import io
import re
from contextlib import AbstractContextManager
from typing import Any

import matplotlib
from cycler import cycler
from matplotlib.figure import Figure

__all__ = ["COLOURS", "INK", "figure", "style", "svg"]

INK = "#010203"
"""Stands for the colour of the text around the picture, until `svg` replaces it."""
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f")
"""Colours that people with any kind of colour vision can tell apart (Okabe and Ito), and a grey."""

_GENERIC = "figure|axes|patch|matplotlib|line2d|text|xtick|ytick|legend"
"""The ids that are the same in every picture, and that nothing refers to."""

STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.25,
    "grid.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "axes.prop_cycle": cycler(color=COLOURS),
    "path.simplify": False,
}


def style(**more: Any) -> AbstractContextManager[None]:
    """Return a context in which matplotlib draws in the style of the report."""
    settings: Any = STYLE | {name.replace("_", "."): value for name, value in more.items()}
    return matplotlib.rc_context(settings)


def figure(columns: int = 1, rows: int = 1, *, height: float = 3.4, **options: Any) -> Any:
    """Return a new figure of 9 inches by `height`, and its axes as `Figure.subplots` does."""
    with style():
        made = Figure(figsize=(9, height), layout="constrained")
        return made, made.subplots(rows, columns, **options)


def svg(made: Figure, name: str) -> str:
    """Return the figure as the text of an SVG element; `name` keeps its ids apart from others."""
    stream = io.StringIO()
    with style(svg_hashsalt=name):
        made.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    text = re.sub(rf' id="({_GENERIC})[._][^"]*"', "", text)
    return re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', 'width="100%"', text, count=1)
