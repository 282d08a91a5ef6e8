"""When the clock moves although tasks can run: the program waits for it, and gives way meanwhile.

A program may ask again and again whether something has happened, as ``while not done: await
sleep(0)`` does. In virtual time nothing happens before the clock moves, and it moves when no task
can run. So here is a rule that tells such a program from one that works, from what it does:

- A step is *idle* if its task gave way, and nothing else became of it: no task was woken, made or
  cancelled, none has ended, and no callback was called for. After `STILL` idle steps in a row, and
  `ROUNDS` for each task that can run, the program polls.
- A program may also poll and do more in each round than the lab can tell from work, such as passing
  an item through a queue. So the clock also moves after half of the limit of steps at one moment:
  without it the execution would end as a livelock. From then on `STILL` steps are enough, until
  nothing can run.
- A callback may call for itself (`call_soon`, `run_sync_soon`), or a task of trio's own give way,
  while every task of the program waits. After `STILL` iterations of the event loop in which nothing
  else happens, the program polls, too.

The steps of threads are not idle: what a thread does in them, the lab does not see.
"""

from __future__ import annotations

from ._declare import recorder
from ._instants import TICK
from ._outcome import refuse

__all__ = ["STILL", "Stillness", "check_that_time_may_pass"]

STILL = 1000
"""Idle steps in a row, after which the program is taken to poll."""
ROUNDS = 20
"""Idle steps for each task that can run. Many tasks may give way often, all of them together,
although none of them does so for long."""
GROWTH = 1.002
"""By how much more than the last time the clock moves each time, if no timer is set."""


def check_that_time_may_pass() -> None:
    """Refuse a program that lets time pass in the middle of a step, if dpor explores it."""
    if recorder.active:
        raise refuse(
            "the program lets time pass in the middle of a step (time.sleep), which dpor "
            "cannot follow; use another strategy"
        )


class Stillness:
    """Counts the steps at one moment, by the numbers of those that were not idle.

    Args:
        step_limit: the number of steps from which the execution is a livelock.
    """

    __slots__ = (
        "_began",
        "_half",
        "_late",
        "_limit",
        "_moves",
        "_worked",
        "first",
        "look_at",
        "why",
    )

    def __init__(self, step_limit: int) -> None:
        self._half = self._limit = max(STILL, step_limit // 2)
        self._began = 0
        """How many steps there were when the clock moved to a timer."""
        self._worked = 0
        """The number of the last step since then that was not idle."""
        self._moves = 0
        self._late = False
        """Whether so many steps have passed that idle ones do not count any more."""
        self.look_at: int = STILL
        """The number of steps from which `lasts` may be true; it need not be asked before."""
        self.why: str = ""
        """Why the clock is about to move, or empty if nothing can run."""
        self.first: str = ""
        """Why it moved for the first time although something could run."""

    def works(self, step: int) -> None:
        """Note that the last step, which has this number, was not idle."""
        self._worked = step

    def lasts(self, taken: int, ready: int) -> bool:
        """Return True if the clock is to move before the next step, after so many steps, although
        so many tasks are ready."""
        steps = taken - self._began
        if self.polls(taken - self._worked, ready):
            return True
        if steps >= self._limit:
            self._late = True
            return self._note(
                f"the program had taken {steps:,} steps at one moment, half of step_limit; "
                f"if it works in them, and does not wait for the clock, raise step_limit"
            )
        self.look_at = min(max(self._worked + STILL, taken + 1), self._began + self._limit)
        return False

    def polls(self, idle: int, ready: int) -> bool:
        """Return True if the clock is to move, after so many idle steps in a row, although so many
        tasks are ready."""
        return idle >= max(STILL, ROUNDS * ready) and self._note(
            f"tasks only gave way to each other for {idle:,} steps, as in a program that "
            f"asks again and again whether something has happened"
        )

    def polls_in_callbacks(self, passes: int) -> bool:
        """Return True if the clock is to move, after so many iterations of the event loop in which
        no task of the program could run, although something else could."""
        return passes >= STILL and self._note(
            f"callbacks, or tasks of a library, ran alone in {passes:,} iterations of the event "
            f"loop, as in a program that asks again and again whether something has happened"
        )

    def _note(self, why: str) -> bool:
        self.why = why
        self.first = self.first or why
        return True

    def refuse(self) -> BaseException:
        """Refuse a program that polls while a timer is set, because it is explored by dpor."""
        return refuse(
            f"{self.why}: the clock moves then, which dpor cannot follow; use another strategy"
        )

    def patience(self) -> float:
        """Return by how many seconds the clock moves before the next step, if no timer is set: more
        and more, so that a wait of an hour ends before the limit of steps."""
        self.why = ""
        self._moves += 1
        return TICK * GROWTH**self._moves

    def ends(self, taken: int) -> str:
        """Note that the clock has moved to a timer, after so many steps; return why."""
        self._limit = STILL if self._late and self.why else self._half
        self._late = self._late and bool(self.why)
        why, self.why = self.why, ""
        self._began = self._worked = taken
        self._moves = 0
        self.look_at = taken + STILL
        return why
