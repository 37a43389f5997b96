"""Of which SLO class and which tenant each request is: recorded by name, or drawn by shares.

A recorded name must be one that the scenario knows; a request without one (an empty cell) is drawn like those of a workload
that records none. Draws of classes and tenants have a stream each, so that adding one leaves arrivals and lengths as they were.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from simulator.errors import InputError, Problem, did_you_mean
from simulator.workload.requests import Ints, Labels


def numbered(
    labels: Labels | None, column: str, names: Sequence[str], shares: Sequence[float], count: int, rng: np.random.Generator
) -> Ints:
    """The number in `names` of each of `count` requests; `column` is what a recording calls them."""
    weights = np.array(shares, dtype=np.float64)
    drawn = np.searchsorted(np.cumsum(weights / weights.sum())[:-1], rng.random(count), side="right")
    if labels is None:
        return drawn.astype(np.int64)
    unknown = [name for name in labels.names if name not in names]
    if unknown:
        known = f"in the trace is not in the scenario, which has {', '.join(names)}"
        raise InputError([Problem("workload", column, f"'{name}' {known}", did_you_mean(name, names)) for name in unknown])
    place = np.array([*map(list(names).index, labels.names), -1], dtype=np.int64)  # the last one: no name
    found = place[labels.number]
    return np.where(found >= 0, found, drawn)
