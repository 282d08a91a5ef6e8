"""The first picture: bytes per pool against the limit, sleepers, wakeups and what took each page,
before and after the cures, above each other."""

from __future__ import annotations

from matplotlib.axes import Axes

from .._kernels import KERNELS
from .._story import END, Story, tell_story
from ._drawing import COLOURS, INK, figure, style, svg

__all__ = ["STORIES", "hero"]

STORIES = ("as it is", "patch + curpage")
"""The kernels whose stories are told: before, and after."""


def hero() -> str:
    """Return the picture as SVG."""
    made, rows = figure(1, 4, height=8.6, sharex=True, height_ratios=[3, 2, 3, 2])
    with style():
        for at, name in enumerate(STORIES):
            story = tell_story(KERNELS[name])
            _bytes(rows[2 * at], story)
            _lanes(rows[2 * at + 1], story)
        rows[-1].set_xlabel("seconds of virtual time")
        rows[-1].set_xlim(0, END)
    return svg(made, "hero")


def _bytes(axes: Axes, story: Story) -> None:
    times = [time for time, _ in story.steps]
    below = [0.0] * len(times)
    for number, pool in enumerate(story.pools):
        above = [
            low + nbytes[number] / 1024 for low, (_, nbytes) in zip(below, story.steps, strict=True)
        ]
        axes.fill_between(
            times, below, above, step="post", color=COLOURS[number], alpha=0.75, label=pool, lw=0
        )
        below = above
    axes.axhline(story.limit / 1024, color=INK, lw=1, ls="--")
    asleep = sum(lane.served is None for lane in story.lanes)
    what = "Before: the kernel as it is" if story.kernel == "as it is" else f"After: {story.kernel}"
    axes.set_title(f"{what}. {asleep} of {len(story.lanes)} processes still sleep at the end.")
    axes.set_ylabel("KiB of pages")
    axes.set_ylim(0, story.limit / 1024 * 1.35)
    axes.legend(ncols=5, loc="upper right", fontsize=9)
    axes.annotate("limit", (0.2, story.limit / 1024 + 6), fontsize=9)


def _lanes(axes: Axes, story: Story) -> None:
    for number, lane in enumerate(story.lanes):
        end = END if lane.served is None else lane.served
        colour = COLOURS[1] if lane.served is None else COLOURS[0]
        axes.barh(number, end - lane.asked, left=lane.asked, height=0.55, color=colour, alpha=0.8)
        if lane.served is not None:
            axes.plot(end, number, "o", color=COLOURS[2], ms=6)
    top = len(story.lanes)
    styles = {"run": ("v", COLOURS[4], 0), "out": ("_", INK, 2)}
    rows = {"out": top, "run": top + 2}
    for time, kind, _ in story.events:
        if kind in rows:
            marker, colour, edge = styles[kind]
            axes.plot(time, rows[kind], marker, color=colour, ms=6, mew=edge)
    for time, pool, sleeper in story.taken:
        colour = COLOURS[story.pools.index(pool)]
        axes.plot(
            time, top + 1, "s", color=colour, ms=6, mew=1, fillstyle="full" if sleeper else "none"
        )
    axes.set_yticks(
        range(top + 3),
        [*(lane.name for lane in story.lanes), "page leaves", "page taken", "wakeup"],
    )
    axes.tick_params(axis="y", labelsize=8)
    axes.set_ylim(top + 2.6, -0.6)
