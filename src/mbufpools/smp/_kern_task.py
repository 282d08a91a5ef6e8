"""The task queue and its one thread (kern_task.c: task_add, taskq_next_work, taskq_thread)."""

from __future__ import annotations

from ._kernel import Kernel, Task
from ._processors import ATOMIC, LEAVE, Code
from ._rules import Mark

__all__ = ["systqmp", "task_add"]


def task_add(k: Kernel, task: Task, *, peeked: bool = False) -> Code[None]:
    """Queue a task, unless it is queued already; then that one run is enough (``task_add``).

    `peeked` is True if the caller has read the mark already, and found it clear.
    """
    mark = k.rules.mark
    if not peeked and mark in (Mark.KERNEL, Mark.UNLOCKED):
        yield ATOMIC
        if task.onqueue.load():
            k.say("task_add(%s): the task is queued already", task.name)
            return
    yield k.tq_lock
    queued = mark is not Mark.UNLOCKED and task.onqueue.load()
    if not queued:
        k.queue(task)
        k.say("task_add(%s): the task is queued", task.name)
    else:
        k.say("task_add(%s): the task is marked as queued", task.name)
    yield LEAVE
    k.tq_lock.leave()
    if not queued:
        yield ATOMIC
        k.tq_channel.wakeup_one()


def systqmp(k: Kernel) -> Code[None]:
    """Run the tasks in their order, and sleep when there is none (``taskq_thread``)."""
    late = k.rules.mark is Mark.LATE
    while True:
        yield k.tq_lock
        k.tq.reads()
        while not k.worklist:
            k.tq_lock.leave()
            yield k.tq_channel
            yield k.tq_lock
            k.tq.reads()
        k.tq.writes()
        task = k.worklist.pop(0)
        if not late:
            task.onqueue.store(0)
        k.say("takes %s off the queue", task.name)
        yield LEAVE
        k.tq_lock.leave()
        yield from task.function()
        if late:
            yield k.tq_lock
            task.onqueue.store(0)
            k.say("clears the mark of %s after the run", task.name)
            yield LEAVE
            k.tq_lock.leave()
