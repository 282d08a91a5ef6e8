"""Writes the HTML pages of an exploration, one for each failure, and names each in its report.

`explore` and `replay` do so with ``html=``. A tool with a command line of its own, such as
``mbufpools explore`` and the pytest plugin, asks for no pages there and writes them itself, so that
a page has the tool's command instead of a call of `replay`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ._outcome import describe
from ._page import write_page
from ._program import function_of
from ._result import Exploration

__all__ = ["with_pages"]


def with_pages(
    found: Exploration,
    directory: str | os.PathLike[str],
    program: Any,
    command: Callable[[str], str] | None = None,
) -> Exploration:
    """Write a page for each failure; return the exploration with the files of the pages.

    Blocks the calling thread while it writes. A page that cannot be written is no error: the report
    says why there is none.

    Args:
        found: what was found.
        directory: where the pages are written; it is made if there is none.
        program: what was explored, or a name for it.
        command: returns the command that replays a token; by default it is a call of `replay`.
    """
    name = program if isinstance(program, str) else _name(program)
    on = "" if f"[{found.backend}" in name else f" on {found.backend}"
    failures = []
    for number, failure in enumerate(found.failures, 1):
        page: str | None = None
        try:
            page = write_page(
                os.fspath(directory),
                f"{name}{on.removeprefix(' on')}-{number}",
                f"{name}{on}, failure {number}: {failure.report.partition(chr(10))[0]}",
                failure.report if command is None else failure.report_with(command(failure.token)),
                failure.schedule,
            )
            told = f"page: {page}"
        except OSError as error:  # which must not hide the failure
            told = f"no page, because of {describe(error)}"
        failures.append(replace(failure, page=page, report=f"{failure.report}\n{told}"))
    return replace(found, failures=tuple(failures))


def _name(program: Any) -> str:
    function = function_of(program)
    return str(getattr(function, "__qualname__", "program")).replace("<locals>.", "")
