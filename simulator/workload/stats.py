"""Statistics of a recorded trace: arrivals, token counts, prefix reuse.

rate = (n - 1) / span; cv = standard deviation / mean of the gaps; ties = share of gaps that are 0; idcN = variance /
mean of the counts in bins of N s (index of dispersion: 1 for Poisson); peak_mean60 = largest / mean count of a minute.
Bins start at the first arrival and only whole ones count; with fewer than three of them the figure is left out.
Variances are population variances, percentiles interpolate linearly. A ratio without a denominator is None.
Prefix reuse is there only where the trace records block hashes: absent is not the same as 0 %.
"""

from __future__ import annotations

from os import PathLike
from typing import Any

import numpy as np

from simulator.workload.prefix_reuse import prefix_reuse
from simulator.workload.read import read_trace
from simulator.workload.requests import Floats, Ints

BINS = (1, 10, 60)  # s
FEWEST_BINS = 3


def trace_stats(path: str | PathLike[str], format: str = "auto") -> dict[str, Any]:
    """Statistics of a whole trace, rounded for print, as plain data for JSON."""
    requests = read_trace(path, format)
    stats: dict[str, Any] = {
        "arrivals": _arrivals(requests.arrival),
        "output_tokens": _tokens(requests.output_tokens),
        "prompt_tokens": _tokens(requests.input_tokens),
        "rows": len(requests),
    }
    if requests.hash_ids is None:
        return stats | {"file_order_sorted": requests.out_of_order == 0}
    distinct = {"distinct_timestamps": len(np.unique(requests.arrival))}
    return dict(sorted((stats | distinct | prefix_reuse(requests, requests.hash_ids)).items()))


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


def _tokens(counts: Ints) -> dict[str, float]:
    p50, p90, p99 = np.percentile(counts, (50, 90, 99))
    return {
        "max": int(counts.max()),
        "mean": _short(float(counts.mean()), 1),
        "min": int(counts.min()),
        "p50": _short(p50, 4),
        "p90": _short(p90, 1),
        "p99": _short(p99, 1),
        "sum": int(counts.sum()),
    }


def _short(value: float, digits: int) -> float:
    """Rounded, and whole numbers without a fraction."""
    rounded = round(float(value), digits)
    return int(rounded) if rounded.is_integer() else rounded
