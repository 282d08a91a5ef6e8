"""Raises an exception at a line of the core: as Ctrl-C does, or a stack or a heap that is full."""

from __future__ import annotations

import linecache
import sys
from collections.abc import Generator
from pathlib import Path
from types import FrameType
from typing import Any

import mbufpools

__all__ = ["CORE", "Injector", "Steps"]

FOLDER = Path(mbufpools.__file__).parent
# Not the map of the package, and not what only the lab calls.
CORE = {str(path) for path in FOLDER.glob("_*.py")} - {
    str(FOLDER / name) for name in ("__init__.py", "__main__.py", "_lab_hooks.py")
}


class Injector:
    """Raises `error` at the line event number `place`, counted from 1 inside the core; or, if a
    `line` is given, at the line event number `place` of that line."""

    def __init__(self, error: type[BaseException], place: int, line: str = "") -> None:
        self._error = error
        self.place = place
        self._line_wanted = line
        self.seen = 0
        self.lines: dict[str, None] = {}
        """The lines that have run so far, in the order in which they ran first."""
        self.where = "nowhere"
        self._before: Any = None
        """The tracer that was there, such as that of coverage."""

    @property
    def raised(self) -> bool:
        return self.seen >= self.place

    def __enter__(self) -> None:
        self._before = sys.gettrace()
        if not self.raised:
            sys.settrace(self._trace)

    def __exit__(self, *exc_info: object) -> None:
        sys.settrace(self._before)

    def _trace(self, frame: FrameType, event: str, arg: object) -> Any:
        if frame.f_code.co_filename not in CORE or frame.f_code.co_name == "__del__":
            return None  # what `__del__` raises goes nowhere
        return self._line

    def _line(self, frame: FrameType, event: str, arg: object) -> Any:
        if event == "line":
            here = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
            self.lines[here] = None
            self.seen += self._line_wanted in ("", here)
            if self.seen == self.place and not self._goes_nowhere(frame):
                self.where = here
                raise self._error("injected")
        return self._line

    def _goes_nowhere(self, frame: FrameType | None) -> bool:
        """True inside a finalizer or a callback, whose exceptions the interpreter drops; on a line
        that is only ``try:``, where only a tracer can raise, and which CPython leaves out of the
        handlers around it; and on a line that enters or leaves a cancel scope, which anyio cannot
        end after an exception that comes just before it. Then the next line is tried."""
        assert frame is not None
        line = linecache.getline(frame.f_code.co_filename, frame.f_lineno)
        if line.strip() == "try:" or "with anyio.CancelScope" in line or "with self._scope" in line:
            self.place += 1
            return True
        while frame is not None:
            if frame.f_code.co_name in ("__del__", "_exporter_died", "__release_buffer__"):
                self.place += 1
                return True
            frame = frame.f_back
        return False


class Steps:
    """Awaits a coroutine, each step of it under the injector."""

    def __init__(self, coroutine: Any, injector: Injector) -> None:
        self._coroutine = coroutine
        self._injector = injector

    def __await__(self) -> Generator[Any, Any, Any]:
        steps = self._coroutine.__await__()
        value: Any = None
        error: BaseException | None = None
        while True:
            try:
                with self._injector:
                    trap = steps.send(value) if error is None else steps.throw(error)
            except StopIteration as end:
                return end.value
            value = error = None
            try:
                value = yield trap
            except BaseException as thrown:  # noqa: ASYNC103, BLE001 - thrown on
                error = thrown
