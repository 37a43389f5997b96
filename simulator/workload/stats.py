"""Statistics of a recorded trace: arrivals, token counts, prefix reuse.

rate = (n - 1) / span; cv = standard deviation / mean of the gaps; ties = share of gaps that are 0; idcN = variance /
mean of the counts in bins of N s (index of dispersion: 1 for Poisson); peak_mean60 = largest / mean count of a minute.
Bins start at the first arrival and only whole ones count; with fewer than three of them the figure is left out.
Variances are population variances, percentiles interpolate linearly. A ratio without a denominator is None.
Prefix reuse is there only where the trace records block hashes: absent is not the same as 0 % (`absent` says what is). Formats
that record more - latencies, think times, clients - have more figures (`format_stats.py`, `servegen.py`).
"""

from __future__ import annotations

from os import PathLike, fspath
from typing import Any

import numpy as np

from simulator.workload.format_stats import agentic_stats, blocks_stats, run_stats, session_stats, spread
from simulator.workload.prefix_reuse import prefix_reuse
from simulator.workload.read import read_trace
from simulator.workload.requests import Floats, Ints
from simulator.workload.servegen import clients_stats, is_clients, read_clients
from simulator.workload.vllm_run import is_run

BINS = (1, 10, 60)  # s
FEWEST_BINS = 3


def trace_stats(path: str | PathLike[str], format: str = "auto", block: int = 0, skip: bool = False) -> dict[str, Any]:
    """Statistics of a whole trace, rounded for print, as plain data for JSON."""
    if format == "servegen" or (format == "auto" and is_clients(path)):
        return clients_stats(read_clients(path))
    requests = read_trace(path, format, block=block, skip=skip)
    stats: dict[str, Any] = {
        "output_tokens": spread(requests.output_tokens),
        "prompt_tokens": spread(requests.input_tokens),
        "rows": len(requests),
    }
    if requests.skipped:
        stats["skipped"] = requests.skipped
    if "arrivals" not in requests.absent:
        stats["arrivals"] = _arrivals(requests.arrival)
    if requests.session is not None:
        stats |= session_stats(requests)
    if format in ("auto", "vllm") and is_run(fspath(path)):
        stats |= run_stats(fspath(path))
    elif format in ("auto", "agentic") and (found := agentic_stats(path, skip)) is not None:
        del stats["rows"]
        return dict(sorted((stats | found | blocks_stats(requests)).items()))
    if requests.hash_ids is None:
        sorted_in_file = {"file_order_sorted": requests.out_of_order == 0} if "arrivals" in stats else {}
        return dict(sorted((stats | sorted_in_file).items()))
    distinct = {"distinct_timestamps": len(np.unique(requests.arrival))}
    return dict(sorted((stats | distinct | prefix_reuse(requests, requests.hash_ids)).items()))


def absent(path: str | PathLike[str], format: str = "auto", block: int = 0, skip: bool = False) -> tuple[str, ...]:
    """What a trace does not record."""
    if format == "servegen" or (format == "auto" and is_clients(path)):
        return ("prefix reuse", "sessions")
    return read_trace(path, format, limit=1, block=block, skip=skip).absent


def _arrivals(arrival: Floats) -> dict[str, Any]:
    gaps = np.diff(arrival)
    span = float(arrival[-1] - arrival[0])
    stats: dict[str, Any] = {
        "cv": round(float(gaps.std() / gaps.mean()), 3) if span > 0 else None,
        "n": len(arrival),
        "rate": round(len(gaps) / span, 4) if span > 0 else None,
        "span_s": round(span, 3),
        "ties": round(float(np.mean(gaps == 0)), 3) if len(gaps) else None,
    }
    for width in BINS:
        bins, counts = _counts(arrival, width)
        if bins >= FEWEST_BINS:
            mean = counts.sum() / bins
            stats[f"idc{width}"] = round(float((np.square(counts).sum() / bins - mean**2) / mean), 2)
            if width == 60:
                stats["peak_mean60"] = round(float(counts.max() / mean), 2)
    return dict(sorted(stats.items()))


def _counts(arrival: Floats, width: int) -> tuple[float, Ints]:
    """Number of whole bins of `width` s from the first arrival, and the counts of those that are not empty."""
    bins = (arrival - arrival[0]) // width
    return float(bins[-1]), np.unique(bins[bins < bins[-1]], return_counts=True)[1]
