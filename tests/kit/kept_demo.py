"""The demos with reports that are kept: each is made once in a process, and takes some seconds."""

from __future__ import annotations

import copy
import dataclasses
from functools import cache

from mbufpools.cli._demos import find_demo
from mbufpools.demokit import Demo, Options, Report

__all__ = ["kept_demo"]


@cache
def kept_demo(name: str) -> Demo:
    """A copy of the demo `name` that makes the report of the same options once, in either form."""
    demo = copy.copy(find_demo(name))
    make = demo._report
    kept: dict[Options, Report] = {}

    def report(options: Options) -> Report:
        options = dataclasses.replace(options, json=False)
        if options not in kept:
            kept[options] = make(options)
        return kept[options]

    demo._report = report
    return demo
