"""Model against measurement: what is measured in which unit, drawn by `analysis.figures.devices.measured_scatter`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from analysis.figures.devices import measured_scatter
from analysis.figures.quantities import with_unit
from analysis.figures.style import house, save_figure
from analysis.validation.compare import Compared

QUANTITIES = {  # what the metric of a data set measures -> (name, unit, how many of it 1 of the metric is)
    "step_ms": ("step", "ms", 1.0),
    "prefill_ms": ("prefill", "ms", 1.0),
    "us": ("matrix product", "us", 1.0),
    "time_us": ("kernel", "us", 1.0),
    "t_skew_us": ("attention of uneven batches", "us", 1.0),
    "graph_us": ("all-reduce", "us", 1.0),
    "power_w": ("power", "W", 1.0),
    "gb_s": ("link", "GB/s", 1.0),
    "ns": ("latency", "ns", 1.0),
    "ttft_ms": ("time to first token", "ms", 1.0),
    "ttft_s": ("time to first token", "ms", 1e3),
    "tpot_ms": ("time per output token", "ms", 1.0),
    "tpot_s": ("time per output token", "ms", 1e3),
    "e2e_ms": ("end-to-end time", "s", 1e-3),
    "e2e_s": ("end-to-end time", "s", 1.0),
    "makespan_s": ("makespan", "s", 1.0),
    "output_throughput": ("output tokens", "1/s", 1.0),
    "output_tokens_per_s": ("output tokens", "1/s", 1.0),
    "share_of_power_limit": ("decode power", "of the limit", 1.0),
}
UNITS = {"ms": "ms", "us": "us", "ns": "ns", "w": "W", "s": "s", "gb_s": "GB/s"}  # as names of other metrics end


def draw(found: Sequence[Compared], folder: Path) -> None:
    """Write `validate.pdf`, `.svg`, `.png` and the caption, `.txt`."""
    columns = ["data_set", "metric", "measured", "model"]
    tables = [pd.DataFrame(columns=columns)]
    for one in found:
        if not one.subset:
            what, unit, scale = quantity(one.metric)
            pairs = {"measured": scale * one.truth, "model": scale * one.model}
            tables.append(pd.DataFrame({"data_set": one.data_set, "metric": with_unit(what, unit), **pairs}))
    rows = pd.concat([table for table in tables if len(table)] or tables, ignore_index=True)
    text = "A point a measured row; how many of a data set are drawn stands behind its name; every row is in validate_rows.csv."
    with house():
        save_figure(measured_scatter(rows, text), folder, "validate")


def quantity(metric: str) -> tuple[str, str, float]:
    """(name, unit, factor to that unit) of what a metric measures; `.p99` and `_median` say how, not what."""
    name = metric.partition(".")[0].removesuffix("_median").removesuffix("_mean")
    if name in QUANTITIES:
        return QUANTITIES[name]
    ending = next((ending for ending in sorted(UNITS, key=len, reverse=True) if name.endswith(f"_{ending}")), "")
    return name.removesuffix(f"_{ending}").replace("_", " "), UNITS.get(ending, ""), 1.0
