"""What is paid once, or for a mode: the import of the library, and debug mode."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

from mbufpools import BufferPools

from ._forms import Form
from ._rows import Row, Show, difference
from ._timing import in_turn, repeat

__all__ = ["imports", "rows"]

SIZE = 65536


async def rows(backend: str, form: Form, show: Show) -> None:
    """Measure what debug mode adds to a pair of 64 KiB."""
    async with BufferPools("4 MiB", [SIZE]) as plain, BufferPools("4 MiB", [SIZE], debug=True) as d:
        with plain.get_nowait(SIZE), d.get_nowait(SIZE):
            times = await in_turn(
                {
                    "debug": repeat("p.get_nowait(65536).release()", p=d),
                    "plain": repeat("p.get_nowait(65536).release()", p=plain),
                },
                max(10, form.calls // 10),
                form.rounds,
            )
    microseconds = {name: [each / 1e3 for each in all_] for name, all_ in times.items()}
    show(
        difference(
            "debug=True, a pair of 64 KiB",
            backend,
            microseconds["debug"],
            "without debug",
            microseconds["plain"],
            20,
            unit="us",
        )
    )


def imports(form: Form) -> Row:
    """Measure the CPU time of the import, each time in a new process."""
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": cache}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)

        def milliseconds(package: str) -> float:
            program = (
                f"import time; start = time.process_time(); import {package}; "
                "print((time.process_time() - start) * 1000)"
            )
            output = subprocess.run(
                [sys.executable, "-c", program],
                capture_output=True,
                check=True,
                text=True,
                env=environment,
            ).stdout
            return float(output)

        for package in ("anyio", "mbufpools"):
            milliseconds(package)  # compiles
        ours, theirs = [], []
        for _ in range(form.imports):
            ours.append(milliseconds("mbufpools"))
            theirs.append(milliseconds("anyio"))
    return difference("import, CPU time", "python", ours, "import anyio", theirs, 20, unit="ms")
