"""What a report says in words and numbers: headlines with intervals, what bounds the system, what to change first, limits.

Intervals of a single run: means by batch means (20 batches in order of arrival, 95 %), percentiles by order statistics,
which take requests as independent. What removing a part could gain at most is Amdahl's law on the mean request.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from math import ceil, floor, sqrt
from typing import Any

import numpy as np
import pandas as pd

from analysis.figures.quantities import PARTS, interval
from analysis.figures.results import Run
from analysis.figures.style import number, scale

BATCHES, FEWEST = 20, 200
Z = 1.96
ADVICE = {
    "queue": "Requests wait to be admitted: more room for KV (kv.l1, cluster.kv_pool.count), a larger scheduler.max_batch if "
    "that is what is full, or more replicas.",
    "compute": "The GPUs' FLOPs: a faster or another GPU, more tensor_parallel, or shorter prompts (shared prefixes).",
    "hbm": "HBM bandwidth, with which weights and resident KV are streamed in each step: a larger batch spreads the weights "
    "over more tokens; smaller weights (model.weight_bytes), fewer tokens read (kv.selection) or more GPUs shorten the step.",
    "collective": "All-reduces between the GPUs: less tensor_parallel where memory allows, or a faster interconnect.",
    "launch": "Kernel launches, as steps are small: a larger batch, or a GPU with cheaper launches.",
    "host": "The serving engine's own time (scheduler.host_overhead): another engine, or larger batches.",
    "link": "The link to the pool: a wider or newer one (cluster.kv_pool.link, cluster.gpus.link), decompression at the GPU, "
    "so that the link carries compressed bytes (kv.codec.decompress_at), or a larger kv.l1.",
    "pool_memory": "The pool's memory: more boards (cluster.kv_pool.count), or faster memory on them.",
    "dma": "The board's DMA, or the bytes it keeps in flight: more outstanding bytes or DMA bandwidth "
    "(cluster.kv_pool.board), more boards, or a larger kv.l1.",
    "staging": "Writing arriving pages into HBM: fewer far pages (kv.l1, kv.selection).",
    "decompress": "Decompression: more engines on the board, or decompression at the other end (kv.codec.decompress_at).",
    "writeback": "Room in L2 behind write-back: a larger kv.l2, a faster write path, or a larger kv.l1.",
}
UNKNOWN = "No advice for this part."


def headlines(run: Run) -> list[dict[str, str]]:
    """name, value, interval, note."""
    summary = run.summary
    found = []
    rate = summary["throughput"].get("output_tokens_per_s")
    if rate is not None:
        found.append(_line("Output tokens per second", number(rate), _rate_interval(run)))
    said = "OVERLOADED: grows with the length of the run" if overloaded(run) else ""
    for column, name in (("ttft_s", "TTFT"), ("tpot_s", "TPOT"), ("e2e_s", "End to end")):
        values = run.requests[column].dropna()
        mean, p99 = (summary["latency"].get(column, {}).get(key) for key in ("mean", "p99"))
        if mean is not None:
            found.append(_line(f"{name}, mean", _seconds(mean), said or _range(*mean_interval(values), _seconds)))
            found.append(_line(f"{name}, p99", _seconds(p99), said or _range(*quantile_interval(values, 0.99), _seconds)))
    attained = summary.get("goodput", {}).get("slo_attainment")
    if attained is not None:
        arrived = summary["requests"]["arrived"]
        found.append(_line("Requests within the SLO", f"{100 * attained:.1f} %", _share_interval(attained, arrived)))
    cost = summary.get("cost", {})
    if cost.get("usd_per_million_output_tokens"):
        basis = f"{cost.get('basis')}, prices of {cost.get('prices_as_of')}"
        found.append(_line("Cost of a million output tokens", f"{number(cost['usd_per_million_output_tokens'])} USD", basis))
    if summary.get("energy", {}).get("joules_per_output_token"):
        found.append(_line("Energy of an output token", f"{number(summary['energy']['joules_per_output_token'])} J", ""))
    gpu = summary.get("utilization", {}).get("gpu")
    if gpu is not None:
        found.append(_line("GPUs at work", f"{100 * gpu:.0f} %", ""))
    return found


def verdict(run: Run) -> str:
    """Whether the run reached a steady state; empty for one that was made before this was asked."""
    return str(run.summary.get("stability", {}).get("verdict") or "")


def overloaded(run: Run) -> bool:
    return verdict(run) == "OVERLOADED"


def _line(name: str, value: str, note: str) -> dict[str, str]:
    return {"name": name, "value": value, "note": note}


def _seconds(value: float) -> str:
    size, unit = scale([value], "s")
    return f"{number(value / size)} {unit}"


def _range(low: float | None, high: float | None, write: Any) -> str:
    if low is None or high is None:
        return "too few requests for an interval"
    return f"95 %: {write(max(low, 0.0))} to {write(high)}"


def mean_interval(values: pd.Series) -> tuple[float | None, float | None]:
    """By batch means; None with too few values."""
    if len(values) < FEWEST:
        return None, None
    batches = np.array_split(values.to_numpy(dtype=np.float64), BATCHES)
    _, low, high, _ = interval(float(batch.mean()) for batch in batches)
    return low, high


def quantile_interval(values: pd.Series, share: float) -> tuple[float | None, float | None]:
    """By order statistics (normal approximation of their ranks); None where a rank falls outside."""
    ranked = np.sort(values.to_numpy(dtype=np.float64))
    count = len(ranked)
    reach = Z * sqrt(count * share * (1 - share))
    low, high = floor(count * share - reach), ceil(count * share + reach)
    if low < 0 or high >= count:
        return None, None
    return float(ranked[low]), float(ranked[high])


def _share_interval(share: float, count: int) -> str:
    """Wilson's."""
    middle = (share + Z * Z / (2 * count)) / (1 + Z * Z / count)
    half = Z / (1 + Z * Z / count) * sqrt(share * (1 - share) / count + Z * Z / (4 * count * count))
    return f"95 %: {100 * (middle - half):.1f} to {100 * (middle + half):.1f} %"


def _rate_interval(run: Run) -> str:
    """Over equal windows of the run."""
    rates = run.series["output_tokens_per_s"].to_numpy() if len(run.series) else np.array([])
    if len(rates) < 5 * BATCHES:
        return "too short a run for an interval"
    _, low, high, _ = interval(float(window.mean()) for window in np.array_split(rates, BATCHES))
    return f"95 %: {number(max(low, 0.0))} to {number(high)}"


def bound(waits: Mapping[str, float | None], bound_by: Any, of: str = "") -> dict[str, Any]:
    """What a run (`of`, where there are several) is bound by, and the parts of its mean request (`stall` of the summary),
    largest first, each with what removing it could gain."""
    parts = {name.removesuffix("_s"): value for name, value in waits.items() if value and value == value}
    whole = sum(parts.values())
    ranked = sorted(parts, key=lambda name: -parts[name])
    rows = [
        {
            "part": PARTS.get(name, name),
            "time": _seconds(parts[name]),
            "share": f"{100 * parts[name] / whole:.1f} %",
            "gain": f"{whole / (whole - parts[name]):.2f}x" if whole > parts[name] * (1 + 1e-9) else "all of it",
            "advice": ADVICE.get(name, UNKNOWN),
        }
        for name in ranked
    ]
    return {"of": of, "by": PARTS.get(str(bound_by), bound_by), "rows": rows, "first": rows[0] if rows else None}


def limits(run: Run) -> dict[str, Any]:
    """How far the numbers can be trusted: warnings, and what stands behind the values."""
    explained = run.explained or {}
    kinds: Counter[str] = Counter(_evidence(row["source"]) for row in explained.get("values", []))
    warnings = list(dict.fromkeys([*run.summary.get("warnings", []), *explained.get("warnings", [])]))
    evidence = [{"kind": kind, "values": count} for kind, count in sorted(kinds.items(), key=lambda item: -item[1])]
    return {"warnings": warnings, "evidence": evidence, **calibration(run.scenario)}


def calibration(scenario: Mapping[str, Any]) -> dict[str, Any]:
    """The GPU of a resolved scenario, and whether measurements stand behind its step times."""
    cluster = scenario.get("cluster")
    gpu = cluster.get("gpus") if isinstance(cluster, dict) else None
    gpu = gpu if isinstance(gpu, dict) else {}
    return {"gpu": gpu.get("name") or gpu.get("type"), "calibrated": bool(gpu.get("calibrated"))}


def _evidence(source: str) -> str:
    for kind in ("measured", "vendor spec", "published claim", "derived", "assumption"):
        if f": {kind};" in source or source.startswith(f"{kind};"):
            return kind
    return "as the scenario or a default says"
