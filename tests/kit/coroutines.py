"""A coroutine that is no coroutine of Python."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any


class ByItsMethods(Coroutine[Any, Any, Any]):
    """A coroutine by its methods only, as one that is written in Cython."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self._coroutine = coroutine

    def send(self, value: Any) -> Any:
        return self._coroutine.send(value)

    def throw(self, *error: Any) -> Any:
        return self._coroutine.throw(*error)

    def close(self) -> None:
        self._coroutine.close()

    def __await__(self) -> Any:
        return self._coroutine.__await__()
