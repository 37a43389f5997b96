"""The run over time, in at most 1,000 equal bins: rates, batch, queue, tiers, exposed waits."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator.metrics.steps import WAITS, Steps

BINS = 1000

COLUMNS = {
    "time_s": "start of the bin, s",
    "output_tokens_per_s": "tokens given out; a step belongs to the bin of its end",
    "prefill_tokens_per_s": "prompt tokens computed",
    "batch": "decoding sequences, mean over the steps of the bin",
    "queue": "requests that have arrived and were not admitted yet, at the end of the bin",
    "l1_bytes": "KV in L1, mean over the steps of the bin",
    "l3_bytes": "stored KV in L3, mean over the steps of the bin",
    "wait_share": "exposed waits for far memory, share of step time",
}


def timeseries(
    steps: Steps, arrival: NDArray[np.float64], admitted: NDArray[np.float64], l1: NDArray[Any], l3: NDArray[Any],
    makespan: float,
) -> dict[str, NDArray[Any]]:  # fmt: skip
    """A column per entry of COLUMNS; `l1` and `l3` are bytes during each step."""
    bins = min(BINS, len(steps.run))
    if not bins or makespan <= 0:
        return {name: np.zeros(0) for name in COLUMNS}
    width = makespan / bins
    at = np.minimum((steps.end / width).astype(np.int64), bins - 1)
    time = np.bincount(at, steps.duration, bins)

    def total(values: NDArray[Any]) -> NDArray[np.float64]:
        sums: NDArray[np.float64] = np.bincount(at, values, bins).astype(np.float64)
        return sums

    def mean(values: NDArray[Any]) -> NDArray[np.float64]:
        return np.divide(total(values * steps.duration), time, out=np.zeros(bins), where=time > 0)

    edges = width * np.arange(1, bins + 1)
    admitted = np.sort(admitted[~np.isnan(admitted)])
    waits = sum((steps.parts[name] for name in WAITS), np.zeros(len(steps.run)))
    return {
        "time_s": width * np.arange(bins),
        "output_tokens_per_s": total(steps.rows) / width,
        "prefill_tokens_per_s": total(steps.prefill) / width,
        "batch": mean(steps.decodes),
        "queue": np.searchsorted(arrival, edges, "right") - np.searchsorted(admitted, edges, "right"),
        "l1_bytes": mean(l1),
        "l3_bytes": mean(l3),
        "wait_share": np.divide(total(waits), time, out=np.zeros(bins), where=time > 0),
    }
