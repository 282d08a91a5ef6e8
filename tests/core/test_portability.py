"""What holds where parts of Python are absent, as they are on Windows: docs/portability.md.

The names are removed in a process of its own, after the standard library, anyio and trio have been
imported, because these are made for the system that they are on.
"""

from __future__ import annotations

import mmap
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from mbufpools import MappedMemory

REMOVED = """
import asyncio, concurrent.futures.process, importlib, json, lzma, mmap
import multiprocessing.popen_spawn_posix
import os, pkgutil, signal, subprocess, sys, sysconfig, tempfile, anyio, anyio.lowlevel
import anyio._backends._asyncio, anyio._backends._trio, trio.lowlevel, trio.testing, sniffio

sysconfig.get_config_vars()  # of the true platform
for module, names in (
    (mmap, [name for name in dir(mmap) if name.startswith(("MAP_", "PROT_", "MADV_"))]),
    (signal, ["SIGALRM", "setitimer", "alarm", "pthread_sigmask", "SIGKILL", "SIGHUP", "SIGUSR1"]),
    (os, ["fork", "forkpty", "register_at_fork", "getuid", "readv", "sched_getaffinity", "uname"]),
):
    for name in names:
        delattr(module, name)
for name in ("resource", "fcntl", "termios", "pty", "tty", "pwd", "grp", "syslog"):
    sys.modules[name] = None  # its import fails
sys.platform = "win32"

true_mmap = mmap.mmap

class Mapping(true_mmap):
    def __new__(cls, fileno, length, tagname=None, access=0, offset=0):
        assert fileno == -1 and tagname is None
        return true_mmap.__new__(cls, fileno, length)

mmap.mmap = Mapping
"""


def windows(program: str) -> str:
    """Run a program where the names that Windows does not have are removed; return its output."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", REMOVED + textwrap.dedent(program)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).resolve().parents[2],
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_module_can_be_imported() -> None:
    windows("""
        import mbufpools, _mbufpools_pytest
        for found in pkgutil.walk_packages(mbufpools.__path__, "mbufpools."):
            # Matplotlib, which draws the report, is made for the system that it is on.
            if not found.name.endswith("__main__") and ".report" not in found.name:
                importlib.import_module(found.name)
        from mbufpools.cli._demos import NAMES, find_demo
        for name in NAMES:
            find_demo(name)
    """)


def test_pools_work_with_memory_of_the_system() -> None:
    windows("""
        from mbufpools import BufferPools

        async def main():
            async with BufferPools("1 MiB", [2048, 16384]) as pools:
                with await pools.get(2000) as buffer:
                    assert bytes(buffer.view) == bytes(2000)
                    buffer.view[:] = b"x" * 2000
                many = await pools.get_many([2000, 16384])
                for buffer in many:
                    buffer.release()
                pools.check()

        anyio.run(main, backend="asyncio")
        anyio.run(main, backend="trio")
    """)


def test_the_command_runs_the_stall_and_explores_a_program(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import anyio\n\n\nasync def stall():\n    await anyio.Event().wait()\n", "utf-8"
    )
    printed = windows(f"""
        from mbufpools.cli import main
        assert main(["demo", "stall", "--policy", "deferred"]) == 0
        assert main(["explore", {f"{program}:stall"!r}, "--backend", "both"]) == 1
    """)
    assert "process 2 wakes at 9 s" in " ".join(printed.split())
    assert printed.count("stall: every task waits") == 2


def test_the_demo_that_measures_memory_says_where_it_cannot() -> None:
    printed = windows("""
        import contextlib, io, pathlib
        from mbufpools.cli import main
        from mbufpools.cli._demos import load
        relay = load("relay")
        relay.Path = lambda path: pathlib.Path("/nonexistent")
        said = io.StringIO()
        with contextlib.redirect_stderr(said):
            try:
                main(["demo", "relay"])
            except SystemExit as caught:
                assert caught.code == 2
        print(said.getvalue())
    """)
    assert printed.startswith("mbufpools demo: the demo relay measures its memory, which Python ")


def test_a_mapping_without_flags_is_asked_for_where_there_are_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def map_it(*arguments: int, **flags: int) -> mmap.mmap:
        asked.append((arguments, flags))
        return true(*arguments, **flags)

    true = mmap.mmap
    monkeypatch.setattr(mmap, "mmap", map_it)
    for there in (True, False):
        if not there:
            for name in ("MAP_PRIVATE", "MAP_ANONYMOUS"):
                monkeypatch.delattr(mmap, name, raising=False)
        block = MappedMemory().allocate(8192)
        assert block.view is not None
        assert bytes(block.view) == bytes(8192)
        assert block.unmap()
    assert asked[1] == ((-1, 8192), {})


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_what_the_output_cannot_encode_is_a_question_mark(encoding: str) -> None:
    root = Path(__file__).resolve().parents[2]
    results = str(root / "docs" / "results.jsonl.xz")
    done = subprocess.run(
        [sys.executable, "-m", "mbufpools", "compare", "page", "--results", results, "--verdicts"],
        capture_output=True,
        env={"PYTHONIOENCODING": encoding, "PYTHONPATH": str(root / "src")},
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert b" ? " in done.stdout
