"""Finds what a program leaks, by the warnings that Python and libraries give.

A resource warns when it is dropped without being closed. A resource in a reference cycle warns only
when the cycle is collected, and that must happen in the execution that dropped it. So automatic
collection is off while the lab executes, and `Leaks.judge` collects the youngest generation, which
holds what this execution has made. To collect all generations each time would take longer than the
execution itself. But if the program has collected them (`gc.collect()`), all that it held is among
the oldest now, so the lab does the same at the end of that execution. And what was among the oldest
before the program did so was dropped by somebody else, or in an earlier execution, so it is no leak
of this one.

The program's other warnings are what they are without the lab. What raises them as errors, and
what records them, is inside of the execution (`warnings.catch_warnings`, `pytest.warns`) or
outside of it: a fixture such as ``recwarn``, or pytest itself, which lists them at its end.

- A recorder inside takes all that it is given, also leaks, and the lab does not hear them.
- One outside gets what it would get without the lab, also leaks, and the lab hears these, too. If
  it is there for several executions, it gets of the later ones only what is new.
- Without any, warnings would be printed, once for each execution; they are dropped.

Invariant: in an execution the lab's filters and its ear come first, whatever fixtures have set up
before; after it, `warnings` is as it was before it.
"""

from __future__ import annotations

import ctypes
import gc
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from types import FrameType
from typing import Any, NamedTuple
from weakref import ref  # a test may patch the name in `weakref`

from ._declare import recorder
from ._outcome import Outcome

__all__ = ["Leaks", "collect_unheard", "forget_recorder", "keep_for_good", "listening", "weakly"]

EXECUTIONS = 100
"""After this many executions the middle generation is collected too: it holds what has outlived its
own execution."""


OLDEST = 2
"""The generation of the collector that holds what has outlived two collections."""

LAB = "(?#of the lab)"
"""Matches any message, and marks a filter as one of the lab's."""
_module: Any = warnings


class _Recorder(NamedTuple):
    """What becomes of the warnings that no filter stops."""

    showwarning: Callable[..., Any]
    """An own function of the program or of a library, or the original one."""
    record: Callable[[warnings.WarningMessage], Any]
    """Appends to a list, if ``catch_warnings(record=True)`` was entered; else it prints."""

    @classmethod
    def present(cls) -> _Recorder:
        return cls(_module.showwarning, _module._showwarnmsg_impl)

    @property
    def prints(self) -> bool:
        """True if the warnings are only printed."""
        is_own = getattr(self.record, "__module__", None) != "warnings"
        return self.showwarning is _module._showwarning_orig and not is_own

    def __call__(self, it: warnings.WarningMessage) -> None:
        if self.showwarning is _module._showwarning_orig:
            self.record(it)
        else:
            self.showwarning(it.message, it.category, it.filename, it.lineno, it.file, it.line)


class _Told:
    """The warnings that a recorder outside of the executions has got in those that are over."""

    def __init__(self) -> None:
        self.recorder: _Recorder | None = None
        self.before: set[tuple[Any, ...]] = set()


_told = _Told()


def forget_recorder() -> None:
    """Forget what a recorder has got, because an exploration is over."""
    _told.recorder = None
    _told.before.clear()


class Leaks:
    """The warnings of one execution.

    Args:
        ambient: what becomes of warnings outside of the lab.
    """

    def __init__(self, ambient: _Recorder) -> None:
        self._heard: list[str] = []
        self._executions = 0
        self._ambient = self._outside = ambient
        self._show = _module._showwarnmsg
        self._new: set[tuple[Any, ...]] = set()
        self._filters: Any = None
        """What puts `warnings` back, while the lab listens."""
        self._collected_all = False
        """Whether the program has collected all generations in this execution."""
        self._older: Set[int] = frozenset()
        """The addresses of what is older than the execution, while the program collects that."""

    def begin(self) -> None:
        """Attribute all warnings from now on to the execution that begins."""
        if self._executions % EXECUTIONS == 0:
            gc.collect(1)  # the first time, what was dropped before the exploration
        self._executions += 1
        self._heard.clear()
        self._collected_all = False
        recorder = _Recorder.present()
        self._outside = self._ambient if recorder.showwarning is _drop else recorder
        if self._outside != _told.recorder:  # such as a fixture that was made anew
            forget_recorder()
            _told.recorder = self._outside
        self._filters = warnings.catch_warnings()
        self._filters.__enter__()
        _module.showwarning, _module._showwarnmsg_impl = self._outside
        self._show = _module._showwarnmsg
        _module._showwarnmsg = self._hear
        _hear_all_leaks()

    def hear(self, leak: str) -> None:
        """Note a leak of this execution that the backend has seen."""
        self._heard.append(leak)

    def judge(self, outcome: Outcome) -> Outcome:
        """Return the outcome: a leak, if something was leaked and nothing else failed."""
        recorder.let_go()
        # A recorder that the program has left behind hears no more.
        _module.showwarning, _module._showwarnmsg_impl = self._outside
        gc.collect(OLDEST if self._collected_all else 0)
        self.end()
        if self._heard and outcome.kind is None and not outcome.stopped:
            outcome = Outcome("leak", "\n".join(self._heard))
        return outcome

    def end(self) -> None:
        """Put `warnings` back to what it was before the execution. Does nothing the second time."""
        filters, self._filters = self._filters, None
        if filters is not None:
            _module._showwarnmsg = self._show
            filters.__exit__(None, None, None)
        _told.before |= self._new
        self._new.clear()

    def collects(self, phase: str, info: dict[str, Any]) -> None:
        """Called before and after each collection."""
        self._older = frozenset()
        if phase == "start" and info["generation"] == OLDEST and not self._collected_all:
            self._collected_all = True
            self._older = set(map(id, gc.get_objects(OLDEST)))

    def _hear(self, it: warnings.WarningMessage) -> None:
        """Stand in for the function that gets each warning that no filter stops."""
        if _Recorder.present() != self._outside:
            self._show(it)  # the program records it
            return
        is_leak = _is_leak(it)
        if is_leak and not (self._older and id(_dropped(it)) in self._older):
            self._heard.append(str(it.message))
        if self._outside.prints or (is_leak and not _is_shown(it)):
            return
        key = (it.category, str(it.message), it.filename, it.lineno)
        if key not in _told.before:
            self._new.add(key)
            self._outside(it)


def _is_leak(it: warnings.WarningMessage) -> bool:
    return issubclass(it.category, ResourceWarning) or "was never awaited" in str(it.message)


def _dropped(it: warnings.WarningMessage) -> Any:
    """Return what was dropped, as far as the warning or the ``__del__`` that gives it tells."""
    frame: FrameType | None = sys._getframe(1)
    while it.source is None and frame is not None:
        if frame.f_code.co_name == "__del__":
            return frame.f_locals.get(frame.f_code.co_varnames[0])
        frame = frame.f_back
    return it.source


_NEVER_AWAITED = f"{LAB}.*was never awaited"
_HEARS_ALL: list[tuple[Any, ...]] = [
    ("always", re.compile(_NEVER_AWAITED, re.IGNORECASE), RuntimeWarning, None, 0),
    ("always", re.compile(LAB, re.IGNORECASE), ResourceWarning, None, 0),
]
"""The lab's filters as `warnings` keeps them, the first one first."""


def _hear_all_leaks() -> None:
    """Put the lab's filters before all others, so that none of them stops a leak."""
    if warnings.filters[:2] != _HEARS_ALL:  # else nothing has come before them
        warnings.filterwarnings("always", LAB, ResourceWarning)
        warnings.filterwarnings("always", _NEVER_AWAITED, RuntimeWarning)


def _is_shown(it: warnings.WarningMessage) -> bool:
    """Return True if the filters would not stop a warning, were the lab's own not there."""
    text, place = str(it.message), it.filename.removesuffix(".py")
    for action, message, category, module, line in warnings.filters:
        if (
            not getattr(message, "pattern", "").startswith(LAB)
            and _matches(message, text)
            and issubclass(it.category, category)
            and _matches(module, place)
            and line in (0, it.lineno)
        ):
            return action not in ("ignore", "error")
    return True


def _matches(pattern: Any, text: str) -> bool:
    if pattern is None or isinstance(pattern, str):
        return pattern in (None, text)
    return pattern.match(text) is not None


def _drop(*_warning: Any, **_options: Any) -> None:
    """Stand in for `warnings.showwarning` between the executions, in which what the lab drops of
    them warns."""


def keep_for_good(thing: object) -> None:
    """Keep a thing, and all that it holds, until the process ends, and do not finalize it then."""
    _kept.append(thing)
    if sys.implementation.name == "cpython":
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


_kept: list[object] = []


def weakly(thing: object) -> Callable[[], Any]:
    """Return what returns a thing for as long as something else refers to it, or for good if its
    class allows no weak references."""
    try:
        return ref(thing)
    except TypeError:
        return lambda: thing


@contextmanager
def listening() -> Iterator[Leaks]:
    """Collect the warnings of leaked resources and of coroutines that were never awaited.

    All other warnings of the program are raised or recorded, as without the lab, or dropped if
    nothing records them. At the end, warnings and the garbage collector are as they were.
    """
    leaks = Leaks(_Recorder.present())
    was_enabled = gc.isenabled()
    with warnings.catch_warnings():
        _hear_all_leaks()
        warnings.showwarning = _drop  # `catch_warnings` restores it
        gc.disable()
        gc.callbacks.append(leaks.collects)
        try:
            yield leaks
        finally:
            gc.callbacks.remove(leaks.collects)
            leaks.end()
            if was_enabled:
                gc.enable()
        gc.collect(1)  # else its leftovers would warn in code that runs later


def collect_unheard() -> None:
    """Collect in silence all that failed executions have left, so that it does not warn later."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()
