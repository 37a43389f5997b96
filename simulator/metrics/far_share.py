"""What each request read from far memory, and what became of it: pages by fate and exposed waits, shared out (design 3.5).

A step knows how many far pages it asked for and their fate: fetched on demand, prefetched in time, late, or for nothing. Pages
of one step are alike, so each request is charged in proportion to the far blocks that it reads in that step; so are the waits,
whoever stood still for them (that is everybody: `link_s` and the like in the same table). Wrong pages belong to no request;
they are charged to those that the step was made for, as is what is taken back after a step. Sums over the requests are the
totals of the run; in a run that asks for nothing far, what was prefetched all the same is nobody's.

With x the pages of a fate in a step and W the sum of all weights w, a request is charged w x / W. Weights change seldom, so
only changes are recorded, and with G the running sum of x / W a stretch of steps costs one subtraction: w (G[end] - G[begin]).
Sequences that wait while the prompts of others are computed read nothing then: their G leaves out such steps.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulator.metrics.far_use import by_step
from simulator.metrics.recorder import Recorder
from simulator.metrics.traffic import Traffic

Floats = NDArray[np.float64]

FATES = ("demand", "in_time", "late", "wasted")
COLUMNS = {
    "far_demand_bytes": "raw KV bytes of this request that layers fetched from L3 on demand",
    "far_in_time_bytes": "raw KV bytes of it that were prefetched and there when asked for",
    "far_late_bytes": "raw KV bytes of it that were prefetched and still under way when asked for",
    "far_wasted_bytes": "its share of the raw bytes that were prefetched for nothing, by far blocks read",
    "far_stall_s": "its share of the exposed waits for far pages, by far blocks read: they sum to the waits of all steps but "
    "those in which a fault holds up everybody (what it waited itself, for whomever, is in the parts of e2e_s)",
}


def far_share(recorder: Recorder, traffic: Traffic, requests: int) -> dict[str, Floats]:
    """A column per entry of COLUMNS; 0 for who read nothing far."""
    far, readers = recorder.far.arrays(), recorder.readers.arrays()
    rows, stays = recorder.far.count, len(readers["row"])
    if not rows or not stays:
        return {name: np.zeros(requests) for name in COLUMNS}
    order = np.lexsort((np.arange(stays), readers["row"], readers["request"]))
    row, request, weight, decodes = (readers[name][order] for name in ("row", "request", "weight", "decodes"))
    row = np.minimum(row, rows)
    same = np.append(request[1:] == request[:-1], False)  # the next entry is of the same request
    until = np.where(same, np.append(row[1:], rows), rows)
    at_work = recorder.runs.arrays()["decodes"][far["run"]] > 0
    total = np.zeros(rows, np.int64)
    for kind, counts in ((0, np.ones(rows, np.bool_)), (1, at_work)):
        change = np.zeros(rows + 1, np.int64)
        np.add.at(change, row[decodes == kind], weight[decodes == kind])
        np.add.at(change, until[decodes == kind], -weight[decodes == kind])
        total += np.cumsum(change)[:rows] * counts
    wasted = by_step(far, traffic)["useless"]
    values = {f"far_{name}_bytes": (wasted if name == "wasted" else far[name]) * traffic.page_bytes for name in FATES}
    values["far_stall_s"] = far_stall(recorder)
    found = {}
    for name, column in values.items():
        shares = _shares(column.astype(np.float64), total)
        always, decoding = (np.concatenate([[0.0], np.cumsum(part)]) for part in (shares, np.where(at_work, shares, 0.0)))
        charged = np.where(decodes == 1, decoding[until] - decoding[row], always[until] - always[row])
        found[name] = np.bincount(request, weight * charged, requests).astype(np.float64)
    return found


def far_stall(recorder: Recorder) -> Floats:
    """Exposed waits of each step for its far pages; 0 where the replica stood still because they were out of reach."""
    runs, far = recorder.runs.arrays(), recorder.far.arrays()
    works = (runs["decodes"] + runs["prefill"])[far["run"]] > 0
    return np.where(works, far["stall"], 0.0)


def _shares(column: Floats, total: NDArray[np.int64]) -> Floats:
    """Of each step per unit of weight; what comes where nobody reads counts with the last step in which somebody did."""
    reads = np.flatnonzero(total)
    if not len(reads):
        return np.zeros(len(column))
    last = np.maximum(np.searchsorted(reads, np.arange(len(column)), "right") - 1, 0)
    gathered = np.bincount(reads[last], column, len(column))
    return np.divide(gathered, total, out=np.zeros(len(column)), where=total > 0)
