"""How far a long exploration is, on the terminal of pytest."""

from __future__ import annotations

from contextlib import nullcontext
from time import monotonic
from typing import Any

import pytest

__all__ = ["Progress"]

AFTER = 2.0
"""Real seconds of an exploration before its first line."""
EACH = 0.5
"""Real seconds from line to line on a terminal, where each takes the place of the one before."""
EACH_IN_A_FILE = 30.0
"""Real seconds from line to line where they are kept."""


class Progress:
    """Called with the number of executions so far. Writes nothing in a worker of pytest-xdist, nor
    under ``-q``."""

    def __init__(self, item: pytest.Item) -> None:
        config = item.config
        self._name = item.name
        self._reporter: Any = config.pluginmanager.getplugin("terminalreporter")
        self._capture: Any = config.pluginmanager.getplugin("capturemanager")
        if hasattr(config, "workerinput") or config.getoption("verbose") < 0:
            self._reporter = None
        self._begin = monotonic()
        self._live = self._reporter is not None and bool(self._reporter.isatty)
        self._next = self._begin + (AFTER if self._live else EACH_IN_A_FILE)
        self._written = False

    def __call__(self, executions: int) -> None:
        """Write a line, if it is time for one."""
        now = monotonic()
        if self._reporter is None or now < self._next:
            return
        self._next = now + (EACH if self._live else EACH_IN_A_FILE)
        self._write(f"{self._name}: {executions} executions in {now - self._begin:.0f} s")

    def end(self) -> None:
        """Take the line away."""
        if self._written and self._live:
            self._write("")

    def _write(self, text: str) -> None:
        with self._capture.global_and_fixture_disabled() if self._capture else nullcontext():
            if not self._written:
                self._reporter.ensure_newline()
            self._written = True
            if self._live:
                self._reporter.rewrite(text, erase=True)
            else:
                self._reporter.write_line(text)
            self._reporter.flush()
