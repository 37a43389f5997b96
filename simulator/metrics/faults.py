"""`faults` of the summary: what broke, and what it did to the output.

Tokens are those given out, also to requests that were aborted later; a step's tokens count at its end. `during` is from the
fault until its repair or the end of the run, `before` from the last change (a fault, a repair, the start) until it, `after`
from the repair until the next change. A window without length is null. Of several replicas tokens are those of all, and a row
names those (`replicas`) whose pool or way to it broke.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from simulator.metrics.recorder import Struck
from simulator.metrics.steps import StepColumns


def fault_rows(each: Sequence[tuple[str, list[Struck]]], steps: StepColumns, makespan: float) -> list[dict[str, Any]]:
    """A row per fault of the run, by time; `each`: replicas by name and what hit them, `steps` those of all."""
    faults = _together(each)
    order = np.argsort(steps.end, kind="stable")
    ends, given = steps.end[order], np.concatenate([[0], np.cumsum(steps.rows[order])])
    changes = {time for fault in faults for time in (fault.at, fault.end) if 0.0 < time < makespan}
    edges = sorted({0.0, makespan, *changes})
    before = {end: start for start, end in pairwise(edges)}
    after = dict(pairwise(edges))

    def rate(start: float, end: float) -> float | None:
        if not start < end:
            return None
        first, last = np.searchsorted(ends, [start, end], side="right")
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
        | ({"replicas": names} if len(each) > 1 else {})
        for fault, names in faults.items()
    ]


def _together(each: Sequence[tuple[str, list[Struck]]]) -> dict[Struck, list[str]]:
    """What hit several replicas at the same time is one fault; with the names of those replicas."""
    found: dict[tuple[float, float, str, int], tuple[Struck, list[str]]] = {}
    for name, struck in each:
        seen: dict[tuple[float, float, str], int] = {}
        for one in struck:
            kind = (one.at, one.end, one.what)
            seen[kind] = nth = seen.get(kind, 0) + 1
            whole, names = found.setdefault((*kind, nth), (Struck(*kind), []))
            whole.aborted += one.aborted
            whole.recomputed += one.recomputed
            names.append(name)
    return dict(sorted(found.values(), key=lambda one: one[0].at))
