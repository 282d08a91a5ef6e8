"""The questions: the cells of each, its tables and its verdict.

- `QUESTIONS`: all, in the order in which they are answered: the table of one page, then a to g.
- `find_question` finds one by its name or its letter.

``_question`` says what a question is; each other module has one.
"""

from __future__ import annotations

from ._backlog import BACKLOG
from ._beyond import BEYOND
from ._cure import CURE
from ._grab import GRAB
from ._margin import MARGIN
from ._page import PAGE
from ._question import LONGEST, Question
from ._ratio import RATIO
from ._wakeups import WAKEUPS

__all__ = ["LONGEST", "QUESTIONS", "Question", "find_question"]

QUESTIONS = (PAGE, CURE, GRAB, BACKLOG, WAKEUPS, MARGIN, RATIO, BEYOND)
"""The table of one page, then a to g."""


def find_question(name: str) -> Question:
    """Return a question by its name or its letter. Raises KeyError if there is none."""
    for question in QUESTIONS:
        if name in (question.name, question.letter):
            return question
    raise KeyError(name)
