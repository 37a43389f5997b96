"""Names and units of what is drawn: of summary keys, of the axes of a study, of latencies and parts; intervals of means."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from math import nan
from typing import Any

import numpy as np
import pandas as pd

NAMES = {
    "throughput.output_tokens_per_s": ("throughput", "output tokens/s"),
    "throughput.decode_output_tokens_per_s": ("throughput of decode steps", "output tokens/s"),
    "throughput.total_tokens_per_s": ("throughput with prompts", "tokens/s"),
    "throughput.requests_per_s": ("requests finished", "1/s"),
    "goodput.requests_per_s": ("requests within the SLO", "1/s"),
    "cost.usd_per_million_output_tokens": ("cost of 1 M output tokens", "USD"),
    "cost.usd_per_hour": ("cost of an hour", "USD"),
    "energy.joules_per_output_token": ("energy of an output token", "J"),
    "kv_access.l3_read_share": ("page reads from L3", "share"),
    "kv_access.l3_s": ("access to L3, unloaded", "s"),
    "kv_access.miss_s": ("wait for a missing page", "s"),
    "kv_access.mean_s": ("mean access to KV", "s"),
    "goodput.slo_attainment": ("requests within the SLO", "share"),
    "prefetch.coverage": ("prefetch coverage", "share"),
    "prefetch.accuracy": ("prefetch accuracy", "share"),
    "prefetch.timeliness": ("prefetch timeliness", "share"),
}
AXES = {
    "cluster.gpus.count": "GPUs", "cluster.gpus.decompress_rate": "decompression by the GPU",
    "cluster.gpus.link.bandwidth": "bandwidth of a GPU's link", "cluster.kv_pool.count": "boards of the pool",
    "cluster.kv_pool.link.bandwidth": "bandwidth of a board's link",
    "cluster.kv_pool.link.latency": "latency of a board's link",
    "cluster.kv_pool.memory_price": "price of pool memory", "kv.block": "block", "kv.codec.ratio": "compression ratio",
    "kv.l1": "L1 per GPU", "kv.l2": "L2 per GPU", "kv.selection": "tokens read per step", "prefetch.accuracy": "accuracy",
    "prefetch.coverage": "coverage", "prefetch.depth": "prefetch depth", "prefetch.latency": "latency of a prediction",
    "scheduler.max_batch": "largest batch", "workload.synthetic.input.tokens": "prompt",
    "workload.synthetic.output.tokens": "output", "workload.synthetic.requests": "requests",
    "workload.synthetic.arrivals.rate": "offered load", "workload.trace.rate_scale": "offered load, times the recorded rate",
}  # fmt: skip
LATENCIES = {"ttft_s": "TTFT", "tpot_s": "TPOT", "itl_s": "ITL", "e2e_s": "end to end"}
PERCENTILES = {"mean": "mean", "p50": "median", "p90": "90th pct", "p95": "95th pct", "p99": "99th pct"}
PARTS = {
    "queue": "queue", "compute": "GPU FLOPs", "hbm": "HBM bandwidth", "collective": "all-reduce", "launch": "kernel launches",
    "host": "serving engine", "link": "far KV: link", "pool_memory": "far KV: pool memory", "dma": "far KV: DMA",
    "staging": "far KV: staging", "decompress": "decompression", "writeback": "write-back",
}  # fmt: skip
ENDINGS = {"_tokens_per_s": "tokens/s", "_bytes_per_s": "B/s", "_per_s": "1/s", "_bytes": "B", "_s": "s", "_j": "J"}
CONFIDENCE = 0.95


def named(metric: str) -> tuple[str, str]:
    """(name, unit) of a summary key; unit '' where it is a plain number."""
    if metric in NAMES:
        return NAMES[metric]
    block, _, rest = metric.partition(".")
    if block == "latency":
        latency, _, percentile = rest.partition(".")
        return f"{LATENCIES.get(latency, latency)}, {PERCENTILES.get(percentile, percentile)}", "s"
    if block == "stall":
        return f"waits: {PARTS.get(rest.removesuffix('_s'), rest.removesuffix('_s'))}", "s"
    for ending, unit in ENDINGS.items():
        if metric.endswith(ending):
            return metric.removesuffix(ending).replace(".", " ").replace("_", " "), unit
    return metric.replace(".", " ").replace("_", " "), ""


def axis_name(path: str) -> str:
    """What a scenario field is called on an axis: in words where there are some, else its path."""
    return AXES.get(path, path)


def with_unit(name: str, unit: str) -> str:
    return f"{name} ({unit})" if unit else name


def axis_unit(study: Mapping[str, Any], path: str, values: Iterable[float]) -> tuple[float, str]:
    """(SI per unit, unit) in which the study writes an axis; (1, '') where it has none or several."""
    written = (study.get("axes") or {}).get(path)
    if isinstance(written, dict):
        written = [written.get("from"), written.get("to")]
    texts = [re.fullmatch(r"\s*([-+.\deE]+)\s*([A-Za-z/%].*)", str(each)) for each in written or []]
    found = [(float(match[1]), match[2].strip()) for match in texts if match]
    largest = max((abs(value) for value in values), default=0.0)
    numbers = [abs(number) for number, _ in found]
    if not found or len({unit for _, unit in found}) > 1 or max(numbers) == 0 or largest == 0:
        return 1.0, ""
    return largest / max(numbers), found[0][1]


def each(table: pd.DataFrame) -> list[Any]:
    """Rows by column name, without an index."""
    return list(table.itertuples(index=False))


def interval(values: Iterable[float]) -> tuple[float, float, float, int]:
    """(mean, low, high, n): the 95 % t-interval; low and high are nan with one value."""
    sample = np.array([value for value in values if value is not None and np.isfinite(value)], dtype=np.float64)
    count = len(sample)
    if count == 0:
        return nan, nan, nan, 0
    mean = float(sample.mean())
    if count == 1:
        return mean, nan, nan, 1
    from scipy.stats import t

    half = float(t.ppf(0.5 + CONFIDENCE / 2, count - 1) * sample.std(ddof=1) / count**0.5)
    return mean, mean - half, mean + half, count


def intervals(table: pd.DataFrame, by: list[str], metric: str) -> pd.DataFrame:
    """A row per combination of `by`, in order of appearance: mean, low, high, n."""
    rows = []
    for key, group in table.groupby(by, sort=False, dropna=False):
        rows.append([*(key if isinstance(key, tuple) else (key,)), *interval(group[metric])])
    return pd.DataFrame(rows, columns=[*by, "mean", "low", "high", "n"])
