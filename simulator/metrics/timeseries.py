"""The run over time, in at most 1,000 equal bins: rates, batch, queue, tiers, exposed waits."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator.metrics.far_use import by_step
from simulator.metrics.steps import WAITS, WORK, Steps
from simulator.metrics.traffic import Traffic

BINS = 1000

COLUMNS = {
    "time_s": "start of the bin, s",
    "output_tokens_per_s": "tokens given out; a step belongs to the bin of its end",
    "prefill_tokens_per_s": "prompt tokens computed",
    "batch": "decoding sequences, mean over the steps of the bin",
    "queue": "requests that have arrived and were not admitted yet, at the end of the bin",
    "l1_bytes": "KV in L1, mean over the steps of the bin",
    "l3_bytes": "stored KV in L3, mean over the steps of the bin; where KV is parked there, over the bin",
    "wait_share": "exposed waits for far memory, share of step time",
    "l2_bytes": "bytes staged in L2, mean over the steps of the bin",
    "gpu_share": "GPUs at work, share of the bin; a step's work is spread evenly over the step",
    "l1_hit_share": "pages read from L1, share of those read by steps that read far pages; empty without such a step",
    "covered_share": "far pages prefetched before they were asked for, share of those asked for; empty without one",
    "in_time_share": "of those, complete when asked for; empty without one",
    "far_read_bytes_per_s": "raw KV bytes read from L3, useless ones included; those that a step sets in motion, less those it "
    "takes back, are spread evenly over it",
    "far_write_bytes_per_s": "raw KV bytes given to write-back, likewise",
}


def timeseries(
    steps: Steps, arrival: NDArray[np.float64], admitted: NDArray[np.float64], l1: NDArray[Any], l3: NDArray[Any],
    makespan: float, l2: NDArray[Any], traffic: Traffic, bins: int | None = None,
) -> dict[str, NDArray[Any]]:  # fmt: skip
    """A column per entry of COLUMNS; `l1`, `l2` and `l3` are bytes during each step; `bins`: how many, where not as usual."""
    bins = min(BINS, len(steps.run)) if bins is None else bins
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
    far = steps.far
    where, use = at[steps.first[far["run"]]], by_step(far, traffic)

    start = steps.end - steps.duration
    corners = np.stack([start, steps.end], axis=1).ravel()  # steps follow each other, so the sum over time has these corners

    def spread(values: NDArray[Any]) -> NDArray[np.float64]:
        upto = np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])
        level = np.stack([upto[:-1], upto[1:]], axis=1).ravel()
        return np.diff(np.interp(edges, corners, level), prepend=0.0) if len(corners) else np.zeros(bins)

    def far_spread(values: NDArray[Any]) -> NDArray[np.float64]:
        return spread(np.bincount(steps.first[far["run"]], values, len(steps.run)))

    def far_total(values: NDArray[Any]) -> NDArray[np.float64]:
        sums: NDArray[np.float64] = np.bincount(where, values, bins).astype(np.float64)
        return sums

    def share(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
        shares: NDArray[np.float64] = np.divide(part, whole, out=np.full(bins, np.nan), where=whole > 0)
        return shares

    near, asked, in_time, late = (far_total(far[name]) for name in ("near", "asked", "in_time", "late"))
    work = sum((steps.parts[name] for name in WORK), np.zeros(len(steps.run)))
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
        "l2_bytes": mean(l2),
        "gpu_share": spread(work) / width,
        "l1_hit_share": share(near, near + asked),
        "covered_share": share(in_time + late, asked),
        "in_time_share": share(in_time, in_time + late),
        "far_read_bytes_per_s": far_spread(use["moved"] * traffic.page_bytes) / width,
        "far_write_bytes_per_s": far_spread(use["sent"]) / width,
    }
