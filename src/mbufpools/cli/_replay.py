"""``mbufpools replay``: does the library still agree with the kernel?"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from mbufpools import lab
from mbufpools.demokit._demo import installed_backend
from mbufpools.traces import TraceError, read_trace
from mbufpools.traces import replay as replay_trace

__all__ = ["replay"]


def replay(files: Sequence[str], backend: str) -> int:
    """Replay each file, and say whether every field agrees.

    Returns the worst exit status: 1 after a disagreement, 2 after a file that is no recording.
    """
    try:
        installed_backend(backend)
    except argparse.ArgumentTypeError as error:
        return _complain(f"argument --backend: {error}")
    status = lines = agreeing = 0
    for file in files:
        try:
            trace = read_trace(file)
            disagreement = lab.run(replay_trace, trace, backend=backend)
        except TraceError as error:
            status = _complain(str(error))
            continue
        except OSError as error:
            status = _complain(f"{file}: {error.strerror}; expected a .jsonl or .jsonl.xz file")
            continue
        if disagreement is None:
            agreeing += 1
            lines += len(trace.steps)
            sys.stdout.write(f"{trace.name}: {len(trace.steps)} lines agree in every field\n")
        else:
            status = max(status, 1)
            sys.stdout.write(f"{disagreement}\n")
    if len(files) > 1:
        sys.stdout.write(f"{agreeing} of {len(files)} files agree, {lines} lines in all\n")
    return status


def _complain(message: str) -> int:
    sys.stderr.write(f"mbufpools replay: {message}\n")
    return 2
