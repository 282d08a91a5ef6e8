"""Oracles: what must hold in every step, or come true in time; and values that the lab chooses.

A program calls `invariant` and `eventually` at its beginning, and `choose` and `has_cancelled`
wherever it likes. They belong to the execution in which they are called. The backend asks the
oracles after each step, also after the last one and in the shutdown, and when the clock moves. What
a check reads of declared state counts as read by that step, so ``dpor`` tries a change before and
after every other step.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, NamedTuple, TypeVar

from ._instants import since_begin
from ._outcome import describe, type_name
from ._schedule import Schedule

__all__ = ["Oracles", "Violated", "choose", "eventually", "has_cancelled", "invariant", "oracles"]

SLACK = 1e-4
"""Seconds by which what must come true may be late, because the sum of three waits of 0.1 seconds
is a little more than 0.3."""

T = TypeVar("T")
Check = Callable[[], Any]


class Violated(AssertionError):
    """An invariant does not hold, or what must come true eventually has not."""


class _Promise(NamedTuple):
    """What must come true by a time of the virtual clock."""

    check: Check
    within: float
    latest: float
    name: str


class Oracles:
    """The oracles of the execution that runs, if one does."""

    def __init__(self) -> None:
        self._schedule: Schedule | None = None
        self._now: Callable[[], float] = float
        self._invariants: list[tuple[Check, str]] = []
        self._promises: list[_Promise] = []
        self._late: Violated | None = None
        """The first promise that was late after the lab has cancelled a task."""
        self.active = False
        """True if there is anything to check."""

    def begin(self, schedule: Schedule, now: Callable[[], float]) -> None:
        """Forget all of the last execution; `now` tells the virtual time of the new one."""
        self._schedule, self._now = schedule, now
        self._invariants.clear()
        self._promises.clear()
        self._late = None
        self.active = False

    def end(self) -> None:
        """Forget the execution, because it is over."""
        self._schedule = None
        self.active = False

    @property
    def running(self) -> bool:
        """True while an execution runs."""
        return self._schedule is not None

    @property
    def has_cancelled(self) -> bool:
        """True if the lab has cancelled a task in the execution that runs."""
        return self._schedule is not None and bool(self._schedule.injected)

    def invariant(self, check: Check, name: str) -> None:
        """Check after every step from now on."""
        self._invariants.append((check, name))
        self.active = True

    def promise(self, check: Check, within: float, name: str) -> None:
        """Check at once, and after every step until it comes true.

        What the check looks at may not be there yet, so an error says nothing here.
        """
        _, true, _ = _asked(check)
        if true:
            return
        self._promises.append(_Promise(check, within, self._now() + within, name))
        self.active = True

    def choose(self, values: Collection[T]) -> T:
        """Return one of the values, as the strategy chooses."""
        them = list(values)
        if self._schedule is None:
            return them[0]
        return them[self._schedule.pick([_shown(it) for it in them])]

    def broken(self) -> Violated | None:
        """Return the error of the first oracle that does not hold, or None."""
        return self._broken_invariant() or self._broken_promise(None)

    def over(self, *, cancelled: bool = False) -> Violated | None:
        """Do what `broken` does; the program is over, so what was promised does not come any more.

        If it ended with a cancellation by the lab, nothing that was promised is asked for.
        """
        error = self._broken_invariant()
        if error is None and not cancelled:
            error = self._late or self._broken_promise("the program has ended")
        self._promises.clear()
        self._late = None
        return error

    def _broken_invariant(self) -> Violated | None:
        return next(filter(None, (_error_of(*it) for it in self._invariants)), None)

    def _broken_promise(self, over: str | None) -> Violated | None:
        now = self._now()
        for promise in list(self._promises):
            _, true, error = _asked(promise.check)
            if error is not None:
                return _violated(f"{promise.name} raised {describe(error)}", error)
            # What comes true in the step that moved the clock, or with it, comes too late.
            is_late = now > promise.latest + SLACK
            if true and not is_late:
                self._promises.remove(promise)
            elif over or is_late:
                self._promises.remove(promise)
                latest, why = since_begin(promise.latest), over
                if why is None or true:
                    why = f"it is {since_begin(now):.10g} s now"
                late = Violated(
                    f"{promise.name} did not come true within {promise.within:g} s, until "
                    f"{latest:.10g} s: {why}"
                )
                if over or self._schedule is None or not self._schedule.injected:
                    return late
                self._late = self._late or late  # it counts unless the cancellation ends all
        return None


oracles = Oracles()
"""The only ones of the process."""


def _error_of(check: Check, name: str) -> Violated | None:
    returned, true, error = _asked(check)
    if error is not None:
        return _violated(f"{name} does not hold: {describe(error)}", error)
    if true or returned is None:
        return None
    return Violated(f"{name} does not hold: it returned {_shown(returned)}")


def _asked(check: Check) -> tuple[Any, bool, BaseException | None]:
    """Call a check; return what it returned, whether that is true, and the error that was raised.

    The errors of `pytest.fail` and of a cancellation are no `Exception`, but errors of the check.
    """
    try:
        returned = check()
        return returned, bool(returned), None
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001, ASYNC103 - it is what is found
        return None, False, error  # noqa: ASYNC104 - no task runs here


def _violated(message: str, cause: BaseException) -> Violated:
    error = Violated(message)
    error.__cause__ = cause
    return error


def _shown(value: object) -> str:
    try:
        return repr(value)
    except Exception:  # noqa: BLE001 - the program's own `__repr__`
        return f"a {type_name(value)} (repr() of it raises)"


def _name(kind: str, check: Check) -> str:
    """Return how a report calls a check: by its function and its line."""
    code = getattr(check, "__code__", None)
    name = getattr(check, "__qualname__", _shown(check)).replace("<locals>.", "")
    return f"{kind} {name}" + (f" (line {code.co_firstlineno})" if code is not None else "")


def invariant(check: Callable[[], Any]) -> Callable[[], Any]:
    """Call ``check()`` after every step of the execution from now on, and once at once.

    The steps of the shutdown after the main task are among them.

    It holds if it returns None or something true. If it returns something false, or raises an
    exception, the execution fails with `Violated` in the step that broke it. Does not block.
    Returns `check`, so it can be used as a decorator. Outside of an exploration it is checked only
    once.

    The check must be a plain function that changes nothing. It sees the state between two steps,
    never in the middle of what a task does without an await.

    Raises:
        Violated: it does not hold at once.
    """
    name = _name("invariant", check)
    error = _error_of(check, name)
    if error is not None:
        raise error
    if oracles.running:
        oracles.invariant(check, name)
    return check


def eventually(check: Callable[[], Any], *, within: float) -> None:
    """Say that ``check()`` will return something true within so many seconds of virtual time.

    Does not block. It is called at once, where an error means nothing, and after every step until
    it is true once. The execution fails with `Violated` if the clock moves beyond that time before,
    also if what moves the clock makes it true, or if the program ends before. A stall is
    reported as a stall. A program that ends with a cancellation by the lab need not keep it.
    Outside of an exploration nothing happens.

    Args:
        check: a plain function that changes nothing.
        within: seconds of the program's clock from now on.

    Raises:
        ValueError: `within` is negative.
    """
    if within < 0:
        raise ValueError(f"within is {within!r}; expected seconds, 0 or more")
    if oracles.running:
        oracles.promise(check, within, _name("eventually", check))


def choose(*values: T) -> T:
    """Return one of the values; the lab explores them all, as it explores schedules.

    Does not block. Use it for what the program does not decide: whether a server answers, which
    reply comes. It may also be called while the tasks that are left are cancelled at the end. The
    first value belongs to the simplest execution: the first execution takes it, and a failure is
    reported with as few other values as possible. `replay` takes the values of the token.
    ``"random"`` and ``"pct"`` choose at random, ``"fifo"`` always takes the first; not with
    ``"dpor"``. Outside of an exploration the first value is returned.

    Raises:
        ValueError: there is no value, or a single list.
        LabError: under ``"dpor"``.
    """
    if len(values) == 1 and isinstance(values[0], list | tuple | set | range):
        raise ValueError("choose takes the values themselves: choose(*values)")
    if not values:
        raise ValueError("choose takes at least one value, the simplest one first")
    return oracles.choose(values)


def has_cancelled() -> bool:
    """Return True if the lab has cancelled a task in this execution (``explore(cancel=...)``).

    Does not block. It is for an assertion that holds only if every task came to its end::

        assert source.calls == 1 or lab.has_cancelled()

    It is True from the moment at which the lab cancels, also if the cancellation never reaches the
    task, because the task does not wait any more. It says nothing of the program's own
    cancellations, such as those of a timeout. In the same schedule it is the same each time, so a
    `replay` gives what the failing execution gave. Outside of an exploration, and between two
    executions, as in the fixtures of a test, it is False.
    """
    return oracles.has_cancelled
