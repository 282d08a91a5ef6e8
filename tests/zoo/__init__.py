"""The zoo: small programs with known bugs, each with its corrected twin.

They are for reading, and for the lab: ``exhaustive`` must find each bug and prove each twin.
`python -m tests.zoo` prints in how many executions it does.
"""

from __future__ import annotations

from tests.zoo import (
    cancelling,
    checking,
    dataflow,
    holding,
    limits,
    pools,
    semaphores,
    stopping,
    waking,
)

from ._specimen import BOTH, Specimen

__all__ = ["BOTH", "ZOO", "Specimen"]

ZOO: tuple[Specimen, ...] = (
    *waking.SPECIMENS,
    *checking.SPECIMENS,
    *holding.SPECIMENS,
    *cancelling.SPECIMENS,
    *stopping.SPECIMENS,
    *semaphores.SPECIMENS,
    *pools.SPECIMENS,
    *dataflow.SPECIMENS,
    *limits.SPECIMENS,
)
