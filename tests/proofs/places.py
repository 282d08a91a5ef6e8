"""Try an exception, or a release by another thread, at every line of the core that a call runs::

    python -m tests.proofs.places                            # some minutes
    python -m tests.proofs.places --write docs/guarantees.md # and put the table into the document

The suite tries each line once (tests/core/test_injection.py) and all of the threads' lines
(tests/core/test_threads.py). The exit status is 1 if anything was lost; the error says where.
"""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

import anyio

from tests.core import injected_calls, test_threads
from tests.kit.proved_block import arguments, write_block

BACKENDS = ("asyncio", "trio")


def injected(number: int, backend: str) -> int:
    """Raise each exception at each line of a call; return the number of places."""
    call = injected_calls.CALLS[number]
    return sum(
        injected_calls.inject_everywhere(call, error, backend) for error in injected_calls.ERRORS
    )


def interleaved(backend: str) -> list[int]:
    """Release by two threads at each line, and during the close; return the numbers of lines."""
    return [
        sum(
            anyio.run(test_threads.release_by_two_threads, what, backend=backend)
            for what in test_threads.LEASES
        ),
        sum(
            anyio.run(test_threads.release_during_the_close, what, backend=backend)
            for what in ("buffer", "reservation")
        ),
    ]


def rows(executor: ProcessPoolExecutor) -> Iterator[tuple[str, list[int]]]:
    """What was tried, and the number of places on each backend."""
    calls = [
        (call.__name__, [executor.submit(injected, number, backend) for backend in BACKENDS])
        for number, call in enumerate(injected_calls.CALLS)
    ]
    threads = [executor.submit(interleaved, backend) for backend in BACKENDS]
    for name, places in calls:
        yield name.replace("_", " "), [place.result() for place in places]
    lines = [thread.result() for thread in threads]
    yield "the same lease, released by another thread", [line[0] for line in lines]
    yield "a lease, released by a thread during the close", [line[1] for line in lines]


def table(processes: int) -> str:
    """Try everything; return the table."""
    lines = [
        f"{'call':46}  {'asyncio':>7}  {'trio':>7}  lost",
        f"{'-' * 46}  {'-' * 7}  {'-' * 7}  ----",
    ]
    total = 0
    with ProcessPoolExecutor(processes) as executor:  # forked, with logging disabled
        for name, (asyncio, trio) in rows(executor):
            lines.append(f"{name:46}  {asyncio:>7}  {trio:>7}  none")
            total += asyncio + trio
    lines += ["", f"Verdict: {total} places were tried, and nothing was lost at any of them."]
    return "\n".join(lines)


def main() -> int:
    """Try as the command line says."""
    given = arguments("python -m tests.proofs.places").read()
    logging.disable()  # of dropped leases, by the thousand
    gc.collect()
    gc.freeze()  # each try collects garbage, among what it made itself
    tried = table(given.jobs)
    print(tried)
    if given.write is not None:
        write_block(given.write, "python -m tests.proofs.places", tried)
    return 0


if __name__ == "__main__":
    sys.exit(main())
