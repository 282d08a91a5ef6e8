"""What pytest keeps and prints of the log, during an exploration.

Loggers and handlers of the program work as without the lab, and so do levels, filters, and
`logger.isEnabledFor`. Pytest's own handlers stay where they are, because `logging.basicConfig` does
nothing if the root logger has one. They format a record, which fails the test if the record is
wrong, and then drop it: there would be as many as executions.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import pytest

__all__ = ["forget_log", "no_log"]

HANDLERS = ("report_handler", "log_file_handler", "log_cli_handler")
"""The attributes of pytest's plugin for what it shows and writes."""
CAPLOG = "caplog_handler"
"""The attribute for what the fixture `caplog` shows."""


@contextmanager
def no_log(item: pytest.Item) -> Iterator[None]:
    """Let pytest keep and print no record. A test that asks for its log, or may do so while it
    runs, gets it."""
    info = getattr(item, "_fixtureinfo", None)
    asks = "caplog" in getattr(item, "fixturenames", ()) or "request" in getattr(
        info, "argnames", ()
    )
    silenced = [
        handler
        for name in (HANDLERS if asks else (*HANDLERS, CAPLOG))
        if (handler := _handler(item.config, name)) is not None and "emit" not in vars(handler)
    ]
    for handler in silenced:
        vars(handler)["emit"] = partial(_drop, handler)
    try:
        yield
    finally:
        for handler in silenced:
            del vars(handler)["emit"]


def forget_log(config: pytest.Config) -> None:
    """Forget what `caplog` has kept."""
    clear: Callable[[], None] | None = getattr(_handler(config, CAPLOG), "clear", None)
    if clear is not None:
        clear()


def _handler(config: pytest.Config, name: str) -> logging.Handler | None:
    """Return one of pytest's handlers; None if its plugin is off."""
    plugin = config.pluginmanager.getplugin("logging-plugin")
    handler = getattr(plugin, name, None)
    return handler if isinstance(handler, logging.Handler) else None


def _drop(handler: logging.Handler, record: logging.LogRecord) -> None:
    """Do what `emit` does, but keep and print nothing."""
    try:
        handler.format(record)
    except RecursionError:
        raise
    except Exception:  # noqa: BLE001 - as `logging.StreamHandler.emit` does
        handler.handleError(record)
