"""Small suites that pytest runs inside of a test, to try the lab's plugin on them."""

from __future__ import annotations

import re
import unittest.mock  # noqa: F401 - as the modules of the lab

import pytest

# What each run needs: pytester would drop it after the run, and the next one would load it again.
import mbufpools.lab._asyncio_backend
import mbufpools.lab._nested_trio
import mbufpools.lab._task_dump
import mbufpools.lab._trio_backend
import mbufpools.lab.pytest_plugin  # noqa: F401

__all__ = ["HEAD", "INI", "dedent", "run"]

HEAD = """
import asyncio, functools, logging, unittest, unittest.mock
import anyio, pytest, trio
from anyio.lowlevel import checkpoint
from mbufpools import lab

async def two(function):
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(function)
        tasks.start_soon(function)

def backend():
    return "trio" if trio.lowlevel.in_trio_task() else "asyncio"
"""
INI = "[pytest]\nasyncio_default_fixture_loop_scope = function\n"


def dedent(source: str) -> str:
    """Return the source of a suite with four spaces less at the beginning of each line."""
    return re.sub("^    ", "", source, flags=re.MULTILINE)


def run(suite: pytest.Pytester, source: str, *options: str) -> pytest.RunResult:
    """Run pytest on a suite of one file, without a cache."""
    (suite.path / "test_it.py").write_text(HEAD + source, "utf-8")
    return suite.runpytest_inprocess("-p", "no:cacheprovider", *options)
