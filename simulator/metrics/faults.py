"""`faults` of the summary: what broke, and what it did to the output.

Tokens are those given out, also to requests that were aborted later; a step's tokens count at its end. `during` is from the
fault until its repair or the end of the run, `before` from the last change (a fault, a repair, the start) until it, `after`
from the repair until the next change. A window without length is null.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from simulator.metrics.recorder import Struck
from simulator.metrics.steps import Steps


def fault_rows(faults: list[Struck], steps: Steps, makespan: float) -> list[dict[str, Any]]:
    """A row per fault of the run, by time."""
    given = np.concatenate([[0], np.cumsum(steps.rows)])
    changes = {time for fault in faults for time in (fault.at, fault.end) if 0.0 < time < makespan}
    edges = sorted({0.0, makespan, *changes})
    before = {end: start for start, end in pairwise(edges)}
    after = dict(pairwise(edges))

    def rate(start: float, end: float) -> float | None:
        if not start < end:
            return None
        first, last = np.searchsorted(steps.end, [start, end], side="right")
        return float(given[last] - given[first]) / (end - start)

    return [
        {
            "at_s": fault.at,
            "what": fault.what,
            "tokens_per_s_before": rate(before.get(fault.at, fault.at), fault.at),
            "during": rate(fault.at, min(fault.end, makespan)),
            "after": rate(fault.end, after.get(fault.end, fault.end)),
            "aborted": fault.aborted,
            "recomputed": fault.recomputed,
        }
        for fault in faults
    ]
