"""How long the benchmarks run: a smoke test of seconds, a short form of minutes, the full form."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["FORMS", "Form"]


class Form(NamedTuple):
    """The amounts of one form."""

    rounds: int
    """How often a row and its peer are run, in turn."""
    calls: int
    """Calls in one round of a row that does not await; of others a part of it."""
    parked: int
    """Tasks whose memory is measured."""
    crowd: int
    """Tasks that are woken or cancelled at once; it is compared with a tenth of it."""
    crowd_rounds: int
    pools: int
    """Pools of the set with many pools."""
    items: int
    """Items that are out of the pool with many items."""
    imports: int
    """How often the import is measured."""
    connections: int
    """Connections through the proxy at once."""
    megabytes: int
    """MiB that go through the proxy in a round."""
    proxy_rounds: int


FORMS = {
    "smoke": Form(2, 100, 50, 100, 1, 20, 1_000, 1, 4, 1, 1),
    "short": Form(16, 4_000, 2_000, 10_000, 3, 1_000, 100_000, 7, 200, 64, 3),
    "full": Form(60, 6_000, 5_000, 100_000, 3, 1_000, 1_000_000, 15, 500, 512, 5),
}
