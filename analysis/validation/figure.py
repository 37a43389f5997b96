"""Model against measurement, one point a row: a panel a quantity, a colour and a marker a data set, both axes logarithmic.

The diagonal is agreement, the band around it 10 %. Colours are Okabe and Ito's, told apart with any colour vision; markers
differ as well. Fonts are embedded (pdf) or drawn as outlines (svg). No dates: the same rows give the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.validation.compare import Compared, Floats

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000", "#B0A000")
MARKERS = "osD^vP*X"
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
BAND = 0.10
PANEL = (3.3, 3.8)  # inches
MANY = 1500  # points above which a vector file would be slow to open
STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "pdf.fonttype": 42,
    "svg.fonttype": "path",
    "svg.hashsalt": "speckvsim",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
}
UNDATED: dict[str, dict[str, Any]] = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {}}


def draw(found: Sequence[Compared], folder: Path) -> None:
    """Write `validate.pdf`, `.svg` and `.png`."""
    from matplotlib import style
    from matplotlib.figure import Figure

    panels: dict[tuple[str, str], dict[str, list[Floats]]] = {}
    for one in found:
        if one.subset:
            continue
        what, unit, scale = quantity(one.metric)
        points = scale * np.array([one.truth, one.model])
        points = points[:, (points > 0).all(axis=0) & np.isfinite(points).all(axis=0)]
        if points.size:
            panels.setdefault((what, unit), {}).setdefault(one.data_set, []).append(points)
    across = min(3, max(1, len(panels)))
    down = max(1, -(-len(panels) // across))
    with style.context(["default", STYLE]):  # whatever the user has in matplotlibrc
        figure = Figure(figsize=(across * PANEL[0], down * PANEL[1]), layout="constrained")
        axes = figure.subplots(down, across, squeeze=False).ravel()
        for place, (name, sets) in zip(axes, panels.items()):
            _panel(place, name, sets)
        for place in axes[len(panels) :]:
            place.set_axis_off()
        for kind, metadata in UNDATED.items():
            figure.savefig(folder / f"validate.{kind}", metadata=metadata, dpi=150)


def quantity(metric: str) -> tuple[str, str, float]:
    """(name, unit, factor to that unit) of what a metric measures; `.p99` and `_median` say how, not what."""
    name = metric.partition(".")[0].removesuffix("_median").removesuffix("_mean")
    if name in QUANTITIES:
        return QUANTITIES[name]
    ending = next((ending for ending in sorted(UNITS, key=len, reverse=True) if name.endswith(f"_{ending}")), "")
    return name.removesuffix(f"_{ending}").replace("_", " "), UNITS.get(ending, ""), 1.0


def _ticks(axis: Axis, span: float) -> None:
    """Powers of ten, and 2 and 5 times those where the axis spans little; written out."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if span < 50 else (1.0,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axis.set_minor_formatter(NullFormatter())


def _panel(axes: Axes, name: tuple[str, str], sets: dict[str, list[Floats]]) -> None:
    series = {data_set: np.concatenate(parts, axis=1) for data_set, parts in sets.items()}
    low = min(float(points.min()) for points in series.values()) / 1.4
    high = max(float(points.max()) for points in series.values()) * 1.4
    line = np.array([low, high])
    axes.fill_between(line, line * (1 - BAND), line * (1 + BAND), color="0.88", linewidth=0)
    axes.plot(line, line, color="0.45", linewidth=0.8)
    for index, (data_set, (truth, model)) in enumerate(series.items()):
        axes.scatter(
            truth, model, s=13, marker=MARKERS[index % len(MARKERS)], color=COLOURS[index % len(COLOURS)],
            alpha=0.75, linewidths=0, rasterized=len(truth) > MANY, label=f"{data_set} ({len(truth)})",
        )  # fmt: skip
    what, unit = name
    axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high), aspect="equal")
    for axis in (axes.xaxis, axes.yaxis):
        _ticks(axis, high / low)
    axes.set_title(what)
    axes.set_xlabel(f"measured ({unit})" if unit else "measured")
    axes.set_ylabel(f"model ({unit})" if unit else "model")
    axes.grid(True, which="major", color="0.93", linewidth=0.6)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), fontsize=6, frameon=False, handletextpad=0.2)
