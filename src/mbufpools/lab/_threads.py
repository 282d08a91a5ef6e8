"""Refuses threads: the operating system schedules them, so the lab cannot control what they do."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ._outcome import refuse

__all__ = ["forbidding_threads"]


@contextmanager
def forbidding_threads() -> Iterator[None]:
    """Refuse to start a thread from the thread that explores; other threads of the process may."""
    explorer = threading.get_ident()
    thread_class: Any = threading.Thread
    start = thread_class.start

    def refuse_start(thread: threading.Thread) -> None:
        if threading.get_ident() == explorer:
            raise refuse(
                f"the program starts a thread ({thread.name}); the lab explores one thread's "
                f"schedules, so call what it runs directly, or give it a fake"
            )
        start(thread)

    thread_class.start = refuse_start
    try:
        yield
    finally:
        thread_class.start = start
