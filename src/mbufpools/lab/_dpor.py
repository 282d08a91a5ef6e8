"""Dynamic partial-order reduction: of the schedules that differ only in the order of steps that
do not conflict, one is executed.

The algorithm is optimal DPOR with wakeup trees (Abdulla, Aronsson, Jonsson, Sagonas 2014). After an
execution each *race*, two conflicting steps with nothing in between, asks for the other order: the
steps that do not depend on the first one are put before it, as a branch of a tree of what is still
to do. No branch is added if one of the tree covers it already, or the *sleep set*: the tasks whose
next step was tried here before and conflicts with nothing since. A step that touches nothing never
branches.

It is sound if every access to shared state is declared: see `_declare`. A task that waits for
another one in a loop reads what the other one changes, so each turn of the loop is one schedule
more, without an end. So a task stands back after `SLICES` slices, and the bound says so.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ._options import Options
from ._races import Races, conflict
from ._schedule import SLICE, Choice, Point, Schedule, Stop, default_choice
from ._steps import CLOCK, Accesses, Name, Step
from ._strategy import Strategy, in_slices

__all__ = ["Dpor"]

Sequence = list[tuple[Name, Accesses | None]]

SLICES = 5
"""Slices in a row that a task may take while another one can run, if `slice_steps` is no more."""


@dataclass(slots=True)
class _Branch:
    """A task to run next, and the branches after it; without branches anything may follow."""

    task: Name
    accesses: Accesses | None
    """None before it has been executed, if it is not known."""
    after: list[_Branch] = field(default_factory=list)


@dataclass(slots=True)
class _Node:
    """The state before one step of the current execution."""

    sleep: dict[Name, Accesses]
    todo: list[_Branch]
    """Wakeup trees; the first is being executed."""
    stands_back: Name | None = None
    """The task that must not go on here."""


class Dpor(Strategy):
    """Executes one schedule of each class of schedules that the declared accesses tell apart."""

    name = "dpor"
    own_rule = "eager"
    can_cancel = False
    can_pick = False
    needs_declarations = True

    def __init__(self, *, stock_first: bool = False, slices: int | None = None) -> None:
        super().__init__(stock_first=stock_first)
        self._slices = slices
        """Slices after which a task stands back; None lets it go on for ever."""
        self._nodes: list[_Node] = []
        self._fresh = True
        self._races = Races()

    @classmethod
    def of(cls, options: Options) -> Dpor:
        return cls(stock_first=True, slices=max(SLICES, -(-options.slice_steps // SLICE)))

    @property
    def bound(self) -> str:
        bound = "the schedules that the declared accesses tell apart"
        return (
            f"{bound}, {in_slices(self._slices)}"
            if self._slices is not None and self.truncated
            else bound
        )

    def begin_own(self) -> bool:
        """Go back to the deepest place where something is left to do."""
        if self._fresh:
            self._fresh = False
            return True
        while self._nodes:
            node = self._nodes[-1]
            if len(node.todo) > 1:
                done = node.todo.pop(0)
                assert done.accesses is not None
                node.sleep[done.task] = done.accesses
                return True
            self._nodes.pop()
        self.complete = True
        return False

    def choose_own(self, point: Point) -> Choice:
        """Choose as the wakeup tree says, else by the default rule among those awake."""
        depth = len(point.steps)
        if depth > len(self._nodes):
            self._clock_nodes(point.steps)
        if depth < len(self._nodes):
            return self._nodes[depth].todo[0].task
        node = self._next_node(point.steps)
        self._nodes.append(node)
        spins = self._slices is not None and point.slice_used and point.slices >= self._slices
        node.stands_back = point.current if spins else None
        if node.todo:
            if node.todo[0].task == node.stands_back:
                self.truncated = True
                raise Stop
            return node.todo[0].task
        if node.sleep:
            awake = {name: it for name, it in point.ready.items() if name not in node.sleep}
            if not awake:
                raise Stop
            current = point.current if point.current in awake else None
            choice = default_choice(awake, current, point.slice_used and len(awake) > 1)
        else:
            choice = point.default
        if spins:
            self.truncated = True
        node.todo.append(_Branch(choice, {}))
        return choice

    def _clock_nodes(self, steps: list[Step]) -> None:
        """Add the nodes of the steps at which the clock moved, which are no choice."""
        while len(self._nodes) < len(steps):
            node = self._next_node(steps[: len(self._nodes)])
            node.todo = [_Branch(CLOCK, {})]
            self._nodes.append(node)

    def _next_node(self, steps: list[Step]) -> _Node:
        """Return the state after the last step: the tasks that still sleep, and the rest of its
        tree."""
        if not self._nodes:
            return _Node({}, [])
        node, step = self._nodes[-1], steps[-1]
        branch = node.todo[0]
        branch.accesses = step.accesses
        if step.task == CLOCK:
            return _Node({}, list(branch.after))
        sleep = {}
        if node.sleep:
            sleep = {
                name: accesses
                for name, accesses in node.sleep.items()
                if name != step.task and not conflict(name, accesses, step.task, step.accesses)
            }
        return _Node(sleep, list(branch.after))

    def end_own(self, schedule: Schedule, failed: bool) -> None:
        """Ask for the other order of every race."""
        if self._in_stock:
            return
        steps = schedule.steps
        if len(self._nodes) > len(steps):  # it was stopped: every task that could run sleeps
            self.redundant: int = self.redundant + 1
            del self._nodes[len(steps) :]
        else:
            self._clock_nodes(steps)
        # The races among the steps that were the same in the last execution were found there, and
        # the nodes of these steps still have the branches that they have asked for.
        same = self._races.same_as_before(steps)
        for node, step in zip(self._nodes[same:], steps[same:], strict=True):
            node.todo[0].accesses = step.accesses
        races, before = self._races.follow(steps, same), self._races.before
        for first, second in races:
            node = self._nodes[first]
            independent = [i for i in range(first + 1, second) if not before[i] >> first & 1]
            sequence = [*independent, second]
            inside = 0
            initials: dict[Name, bool] = {}
            for i in sequence:
                if steps[i].task not in initials:
                    initials[steps[i].task] = not before[i] & inside
                inside |= 1 << i
            wanted: Sequence = [(steps[i].task, steps[i].accesses) for i in independent]
            # Before the first step the second may do something else, and touch something else.
            wanted.append((steps[second].task, None))
            if wanted[0][0] == node.stands_back:
                continue
            if not any(_covers(task, it, wanted, initials) for task, it in node.sleep.items()):
                _insert(node.todo, wanted, [before[i] for i in sequence], sequence)
        last = len(steps) - 1
        for task, ready in schedule.left.items():
            # The main task was over first, and so it never ran; it could have.
            if not ready.causes >> last & 1:
                node = self._nodes[last]
                wanted = [(task, None)]
                if not any(_covers(it, node.sleep[it], wanted, {task: True}) for it in node.sleep):
                    _insert(node.todo, wanted, [0], [last + 1])


def _independent(task: Name, accesses: Accesses | None, wanted: Sequence) -> bool:
    """Return True if a step conflicts with nothing wanted; unknown accesses may conflict."""
    return accesses is not None and not any(
        other is None or conflict(task, accesses, other_task, other) for other_task, other in wanted
    )


def _covers(task: Name, accesses: Accesses, wanted: Sequence, initials: dict[Name, bool]) -> bool:
    """Return True if what is wanted could as well begin with a step of `task`."""
    if task in initials:
        return initials[task]
    return _independent(task, accesses, wanted)


def _insert(todo: list[_Branch], wanted: Sequence, before: list[int], numbers: list[int]) -> None:
    """Add what is wanted to the trees `todo`, unless a branch leads to it already.

    The first tree of `todo` is being executed. The race that asks is a race with its first step, so
    that tree does not lead to what is wanted.
    """
    left = list(range(len(wanted)))
    branches, candidates = todo, todo[1:]
    while left:
        for branch in candidates:
            at = next((i for i in left if wanted[i][0] == branch.task), None)
            if at is None:
                if not _independent(branch.task, branch.accesses, [wanted[i] for i in left]):
                    continue
            else:
                if before[at] & sum(1 << numbers[i] for i in left if i < at):
                    continue
                left.remove(at)
            if not branch.after:
                return  # a leaf: anything may follow
            branches = candidates = branch.after
            break
        else:
            for i in left:
                branch = _Branch(*wanted[i])
                branches.append(branch)
                branches = branch.after
            return
