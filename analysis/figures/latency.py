"""Where latency is: its distribution, what it is made of, what it costs in throughput.

latency_distribution  a row per drawn point: run, latency, seconds, share (of the requests; for ITL of the gaps)
attribution           a row per run, span and part: mean_s; the parts of a span sum to its mean latency
throughput_latency    a row per arm and point: throughput and latency, each with interval
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from analysis.figures.quantities import LATENCIES, PARTS, PERCENTILES, with_unit
from analysis.figures.style import (
    COLUMN,
    PAGE,
    Drawn,
    Spot,
    area,
    blank,
    line,
    lines_of_names,
    log_axis,
    name_bars,
    name_y,
    number,
    scale,
    short,
    tag,
    tag_all,
)

POINTS = 400  # of an empirical distribution: quantiles, ends included
SPANS = {"ttft": "to the first token", "decode": "after the first token", "e2e": "end to end"}
THIN = 0.005  # share of the longest bar from which a part has an outline
NAMED = 0.002  # share of a bar from which a part is in the legend


def distribution_rows(requests: pd.DataFrame, gaps: pd.DataFrame | None, run: str) -> pd.DataFrame:
    """Quantiles of TTFT, TPOT and E2E of the requests, and of ITL of the gaps between tokens (`itl_s`, `gaps`)."""
    rows = []
    for latency in LATENCIES:
        if latency == "itl_s":
            values = gaps["itl_s"].to_numpy(dtype=np.float64) if gaps is not None else np.zeros(0)
            shares = np.cumsum(gaps["gaps"].to_numpy()) / gaps["gaps"].sum() if gaps is not None and len(gaps) else values
        else:
            values = np.sort(requests[latency].dropna().to_numpy(dtype=np.float64))
            shares = np.searchsorted(values, values, "right") / max(len(values), 1)  # of equal values the last
        if len(values):
            even = np.searchsorted(shares, np.linspace(0.0, 1.0, POINTS)) if len(values) > POINTS else np.arange(len(values))
            kept = np.unique(np.concatenate([[0], np.minimum(even, len(values) - 1)]))
            rows += [(run, latency, float(values[at]), float(shares[at])) for at in kept]
    return pd.DataFrame(rows, columns=["run", "latency", "seconds", "share"])


def latency_distribution(rows: pd.DataFrame, limits: Mapping[str, float], caption: str = "") -> Drawn:
    """Empirical distributions, a panel each for TTFT, TPOT, ITL and end to end; SLO lines; logarithmic time."""
    runs, panels = list(dict.fromkeys(rows["run"])), [name for name in LATENCIES if (rows["latency"] == name).any()]
    names = min(len(runs), 4)
    legend_rows = -(-len(runs) // names) if len(runs) > 1 else 0
    figure, axes = blank(PAGE, 1.75 + 0.13 * legend_rows, 1, len(panels), sharey=True)
    spots = []
    for place, latency in zip(axes, panels):
        part = rows[rows["latency"] == latency]
        size, unit = scale([float(part["seconds"].quantile(0.9))], "s")
        for index, run in enumerate(runs):
            mine = part[part["run"] == run]
            if not len(mine):
                continue
            seconds, share = mine["seconds"] / size, mine["share"]
            x = [seconds.iloc[0], *seconds]
            (artist,) = place.step(x, [0.0, *share], where="post", label=short(run), **line(index, marker=False))
            for y in (0.5, 0.9, 0.95, 0.99):
                at = float(seconds.iloc[int(np.searchsorted(share, y))])
                spots.append(Spot(place, at, y, f"{run}: {LATENCIES[latency]} p{round(100 * y)} {number(at)} {unit}"))
            tag(artist, run)
        if latency in limits:
            place.axvline(limits[latency] / size, color="0.35", linewidth=0.8, linestyle=(0, (2, 1)))
            at_top: Any = ("data", "axes fraction")
            place.annotate("SLO", (limits[latency] / size, 1.0), xycoords=at_top, xytext=(0, 1),
                           textcoords="offset points", fontsize=6, ha="center")  # fmt: skip
        place.set_xscale("log")
        positive = part["seconds"][part["seconds"] > 0] / size
        if len(positive):
            marks = [limits[latency] / size] if latency in limits else []
            log_axis(place.xaxis, min(float(positive.min()), *marks, 1e300), max(float(positive.max()), *marks, 0.0))
        place.set_ylim(0, 1.02)
        place.set_xlabel(with_unit(LATENCIES[latency], unit))
    axes[0].set_ylabel("share")
    if len(runs) > 1:
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=names)
    text = "Distribution of latencies over the requests, of ITL over the gaps between tokens; a vertical line is the SLO."
    return Drawn(figure, rows, f"{text} {caption}".strip(), spots)


def attribution_rows(requests: pd.DataFrame, run: str) -> pd.DataFrame:
    """Mean seconds of the finished requests by part: to the first token, and after it."""
    done = requests[requests["status"] == "finished"]
    parts = [name.removeprefix("ttft_").removesuffix("_s") for name in requests.columns if name.startswith("ttft_")]
    parts = [part for part in parts if part != "ttft" and f"{part}_s" in requests.columns]
    rows = []
    for part in sorted(set(parts), key=lambda name: ([*PARTS, name].index(name), name)):
        first, whole = done[f"ttft_{part}_s"].mean(), done[f"{part}_s"].mean()
        rows += [(run, "ttft", part, first), (run, "decode", part, whole - first)]
    return pd.DataFrame(rows, columns=["run", "span", "part", "mean_s"])


def attribution(rows: pd.DataFrame, caption: str = "") -> Drawn:
    """Stacked bars, a panel a span, a bar a run: where each millisecond goes."""
    runs, spans = list(dict.fromkeys(rows["run"])), [span for span in SPANS if span in set(rows["span"])]
    parts = list(dict.fromkeys(rows["part"]))
    share = {
        part: max(
            (_cell(rows, run, span, part) / max(rows[(rows["run"] == run) & (rows["span"] == span)]["mean_s"].sum(), 1e-30))
            for run in runs
            for span in spans
        )
        for part in parts
    }
    listed = [part for part in parts if share[part] >= NAMED]
    row_height = 0.19 if lines_of_names(runs) == 1 else 0.29
    height = len(spans) * (0.42 + row_height * len(runs)) + 0.14 * -(-len(listed) // 3) + 0.15
    figure, axes = blank(COLUMN, height, len(spans), 1)
    spots = []
    for place, span in zip(axes, spans):
        longest = max(float(rows[(rows["run"] == run) & (rows["span"] == span)]["mean_s"].sum()) for run in runs)
        size, unit = scale([longest], "s")
        for row, run in enumerate(runs):
            left = 0.0
            for part in parts:
                width = _cell(rows, run, span, part) / size
                if width > 0:
                    look = _look(part)
                    thin = width < THIN * longest / size  # its outline would be wider than the part
                    place.barh(row, width, left=left, height=0.7, linewidth=0.0 if thin else 0.3, **look)
                    text = f"{run}, {SPANS[span]}: {PARTS.get(part, part)} {number(width)} {unit}"
                    spots.append(Spot(place, left + width / 2, row, text))
                left += width
            place.annotate(number(left), (left, row), xytext=(2, 0), textcoords="offset points", va="center", fontsize=6)
        name_bars(place, runs)
        place.margins(x=0.13)
        place.grid(False, axis="y")
        place.set_xlabel(f"mean time {SPANS[span]} ({unit})")
    from matplotlib.patches import Patch

    handles = [Patch(linewidth=0.3, **_look(part)) for part in listed]
    figure.legend(handles, [PARTS.get(part, part) for part in listed], loc="outside lower center", ncols=3)
    return Drawn(figure, rows, f"Where the time of a mean request goes; bars sum to the mean latency. {caption}".strip(), spots)


def _look(part: str) -> dict[str, Any]:
    """The queue is grey, for nothing works then; every other part has its colour and hatch in all figures."""
    if part == "queue":
        return {"facecolor": "#9a9a9a", "edgecolor": "white"}
    return area([*PARTS, part].index(part) - 1)


def _cell(rows: pd.DataFrame, run: str, span: str, part: str) -> float:
    found = rows[(rows["run"] == run) & (rows["span"] == span) & (rows["part"] == part)]["mean_s"]
    return float(found.iloc[0]) if len(found) and found.iloc[0] == found.iloc[0] else 0.0


def throughput_latency(
    rows: pd.DataFrame, latency: str, percentile: str, limit: float | None = None, caption: str = ""
) -> Drawn:
    """Latency over throughput as the load rises, a line an arm. `rows`: arm, load, throughput (output tokens/s), seconds, and
    low and high of both (`throughput_low`, ..., nan without interval)."""
    figure, (place,) = blank(COLUMN, 2.2)
    size, unit = scale(rows["seconds"].tolist(), "s")
    spots = []
    for index, (arm, mine) in enumerate(rows.groupby("arm", sort=False)):
        mine = mine.sort_values("load")
        x, y = mine["throughput"], mine["seconds"] / size
        reach = {"yerr": _reach(mine, "seconds", size), "xerr": _reach(mine, "throughput", 1.0)}
        artist = place.errorbar(x, y, label=short(arm), elinewidth=0.6, **line(index), **reach)
        tag_all(artist, str(arm))
        spots += [
            Spot(place, a, b, f"{arm}, load {number(load)}: {number(a)} tokens/s, {number(b)} {unit}")
            for a, b, load in zip(x, y, mine["load"])
        ]
    if limit is not None:
        place.axhline(limit / size, color="0.35", linewidth=0.8, linestyle=(0, (2, 1)))
        at: Any = ("axes fraction", "data")
        place.annotate("SLO", (0.0, limit / size), xycoords=at, xytext=(2, 2), textcoords="offset points", fontsize=6)
    if rows["seconds"].max() > 20 * rows["seconds"].min() > 0:
        place.set_yscale("log")
        log_axis(place.yaxis, rows["seconds"].min() / size, rows["seconds"].max() / size)
    else:
        place.set_ylim(bottom=0)
    place.set_xlabel("throughput (output tokens/s)")
    name_y(place, f"{LATENCIES[latency]}, {PERCENTILES[percentile]} ({unit})")
    place.legend(loc="best")
    slo = "; the dashed line is the SLO" if limit is not None else ""
    return Drawn(figure, rows, f"Latency over throughput, a point a load{slo}. {caption}".strip(), spots)


def _reach(rows: pd.DataFrame, name: str, size: float) -> Any:
    """Error bars; 0 where there is no interval, None where there is none at all."""
    if rows[f"{name}_low"].isna().all():
        return None
    middle = rows[name].to_numpy()
    low, high = rows[f"{name}_low"].to_numpy(dtype=float), rows[f"{name}_high"].to_numpy(dtype=float)
    return np.nan_to_num(np.array([middle - low, high - middle]) / size, nan=0.0)
