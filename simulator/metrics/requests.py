"""Latencies of every request, and what they were made of. Definitions follow vLLM's serving benchmark:

    TTFT  arrival to first token            E2E   arrival to last token
    TPOT  (E2E - TTFT) / (tokens - 1)       ITL   each gap between two tokens of a request
    queue time before admission, and after a preemption until the next one

Each latency is the sum of its parts: the queue, and the parts (`metrics.steps`) of all steps between admission and token,
whoever they worked for. Requests with one token have neither TPOT nor ITL.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator.metrics.far_share import COLUMNS as FAR_COLUMNS
from simulator.metrics.recorder import FINISHED, STATUS, Recorder
from simulator.metrics.steps import PARTS, Steps

Floats = NDArray[np.float64]

PERCENTILES = {"p50": 50.0, "p90": 90.0, "p95": 95.0, "p99": 99.0}

COLUMNS = {
    "request": "number in order of arrival (of a closed loop: as if nothing took time)",
    "arrival_s": "arrival, s from the start of the workload",
    "input_tokens": "prompt tokens",
    "output_tokens": "tokens asked for",
    "status": "finished, rejected or aborted",
    "taken_s": "when the engine took the request up: at the end of the step in which it arrived",
    "admitted_s": "first admission to the batch",
    "first_token_s": "end of the step that gave the first token",
    "finished_s": "end of the step that gave the last token",
    "ttft_s": "first token - arrival",
    "tpot_s": "(end to end - TTFT) / (tokens - 1); empty for one token",
    "e2e_s": "last token - arrival",
    "cached_tokens": "prompt tokens found in the prefix cache, over all admissions",
    "class": "SLO class; `all` where the scenario has none",
    "tenant": "tenant; empty where the scenario has none",
    "session": "turns of one session have the same number; -1: of no session, or not recorded",
    "preemptions": "times the request lost its blocks and was computed again",
    "queue_s": "time in the queue, before and after the first token",
    "ttft_queue_s": "time in the queue before the first token",
    **{f"{part}_s": f"part of e2e_s: {part} (see metrics/steps.py)" for part in PARTS},
    **{f"ttft_{part}_s": f"part of ttft_s: {part}" for part in PARTS},
    **FAR_COLUMNS,
}

GAP_COLUMNS = {
    "itl_s": "mean of the gaps between two tokens of a request in this bin, s; bins are 0.5 % wide, empty ones left out",
    "gaps": "how many",
}
GAP_BIN = 1.005


def request_columns(
    recorder: Recorder, steps: Steps, arrival: Floats, prompt: NDArray[np.int64], output: NDArray[np.int64],
    session: NDArray[np.int64] | None = None,
) -> dict[str, NDArray[Any]]:  # fmt: skip
    """A column per entry of COLUMNS; NaN where a request has no such time."""
    status = np.array(recorder.status)
    done = status == FINISHED
    first, last = np.array(recorder.first_token), np.array(recorder.finished)
    ttft, e2e = np.where(done, first - arrival, np.nan), last - arrival
    tpot = np.divide(e2e - ttft, output - 1, out=np.full(len(arrival), np.nan), where=done & (output > 1))
    queue_first, queue_later = np.array(recorder.queue_first), np.array(recorder.queue_later)
    columns: dict[str, NDArray[Any]] = {
        "request": np.arange(len(arrival)),
        "arrival_s": arrival,
        "input_tokens": prompt,
        "output_tokens": output,
        "status": np.array(STATUS)[status],
        "taken_s": _taken(arrival, steps),
        "admitted_s": np.array(recorder.admitted),
        "first_token_s": first,
        "finished_s": last,
        "ttft_s": ttft,
        "tpot_s": tpot,
        "e2e_s": e2e,
        "cached_tokens": np.array(recorder.cached_tokens),
        "class": np.full(len(arrival), "all"),
        "tenant": np.full(len(arrival), ""),
        "session": np.full(len(arrival), -1) if session is None else session,
        "preemptions": np.array(recorder.preemptions),
        "queue_s": np.where(done, queue_first + queue_later, np.nan),
        "ttft_queue_s": np.where(done, queue_first, np.nan),
    }
    spans = np.array(recorder.spans, dtype=np.int64).reshape(-1, 4)
    runs = {
        name: np.maximum(np.array(getattr(recorder, name)), 0)
        for name in ("admit_run", "first_run", "resumed_run", "finish_run")
    }
    ttft_parts = {}
    for part in PARTS:
        until = steps.until_run[part]
        before = until[runs["first_run"]] - until[runs["admit_run"]]
        after = until[runs["finish_run"]] - until[runs["resumed_run"]]
        lost = until[spans[:, 3]] - until[spans[:, 2]]
        is_before = spans[:, 1] == 1
        np.add.at(before, spans[is_before, 0], lost[is_before])
        np.add.at(after, spans[~is_before, 0], lost[~is_before])
        ttft_parts[f"ttft_{part}_s"] = np.where(done, before, np.nan)
        columns[f"{part}_s"] = np.where(done, before + after, np.nan)
    return columns | ttft_parts


def _taken(arrival: Floats, steps: Steps) -> Floats:
    """The end of the step in which each arrival falls; the arrival itself where none runs."""
    if not len(steps.end):
        return arrival
    at = np.minimum(np.searchsorted(steps.end, arrival), len(steps.end) - 1)
    begin, end = steps.end[at] - steps.duration[at], steps.end[at]
    return np.where((begin < arrival) & (arrival < end), end, arrival)


def weighted_percentiles(values: Floats, weights: NDArray[np.int64]) -> dict[str, float | None]:
    """Mean and percentiles (linear interpolation) of `values`, the i-th counted `weights[i]` times; exact."""
    total = int(weights.sum())
    if total == 0:
        return dict.fromkeys(("mean", *PERCENTILES), None)
    order = np.argsort(values, kind="stable")
    values, upto = values[order], np.cumsum(weights[order])
    result: dict[str, float | None] = {"mean": float(np.dot(values, weights[order]) / total)}
    for name, percent in PERCENTILES.items():
        position = percent / 100 * (total - 1)
        below = int(position)
        low, high = values[np.searchsorted(upto, [below, min(below + 1, total - 1)], side="right")]
        result[name] = float(low + (high - low) * (position - below))
    return result


def mean(values: Floats) -> float | None:
    """Of the values that are numbers; None if there are none."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else None


def distribution(values: Floats) -> dict[str, float | None]:
    """Mean and percentiles of the values that are numbers."""
    values = values[~np.isnan(values)]
    return weighted_percentiles(values, np.ones(len(values), dtype=np.int64))


def token_gaps(recorder: Recorder, steps: Steps) -> tuple[Floats, NDArray[np.int64]]:
    """All inter-token latencies as (value, how many): each decode of a step is a gap of its duration, but those that
    began earlier (preemption, waiting for a static batch)."""
    counts = steps.decodes.copy()
    odd = np.zeros(len(recorder.gaps))
    for index, (_, run, since, within) in enumerate(recorder.gaps):
        step = steps.first[run]
        odd[index] = steps.end[step] - since
        counts[step] -= within
    kept = counts > 0
    return np.concatenate([steps.duration[kept], odd]), np.concatenate([counts[kept], np.ones(len(odd), dtype=np.int64)])


def gap_histogram(values: Floats, counts: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    """A column per entry of GAP_COLUMNS, of `token_gaps`; a gap of 0 s has a bin of its own. Its mean is that of the gaps."""
    floor = values[values > 0].min() if (values > 0).any() else 1.0
    bins = np.floor(np.log(np.maximum(values, floor) / floor) / np.log(GAP_BIN)).astype(np.int64)
    _, where = np.unique(np.where(values > 0, bins, -1), return_inverse=True)
    held = np.bincount(where, counts)
    return {"itl_s": np.bincount(where, values * counts) / held, "gaps": held.astype(np.int64)}
