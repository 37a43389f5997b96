"""Where latency is: its distribution, what it is made of, what it costs in throughput.

latency_distribution  a row per drawn point: run, latency, seconds, share (of requests, or of gaps for ITL percentiles)
attribution           a row per run, span and part: mean_s; the parts of a span sum to its mean latency
throughput_latency    a row per arm and point: throughput and latency, each with interval
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from analysis.figures.quantities import LATENCIES, PARTS, PERCENTILES, with_unit
from analysis.figures.style import COLUMN, Drawn, Spot, area, blank, line, log_axis, number, scale, short, tag, tag_all

if TYPE_CHECKING:
    from matplotlib.axes import Axes

POINTS = 400  # of an empirical distribution: quantiles, ends included
STEP_SHARE = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}
SPANS = {"ttft": "to the first token", "decode": "after the first token", "e2e": "end to end"}
NAMED = 0.002  # share of a bar from which a part is in the legend


def distribution_rows(requests: pd.DataFrame, summary: Mapping[str, Any], run: str) -> pd.DataFrame:
    """Quantiles of TTFT, TPOT and E2E of the requests; of ITL the summary's percentiles, as gaps are not recorded singly."""
    rows = []
    for latency in ("ttft_s", "tpot_s", "e2e_s"):
        values = np.sort(requests[latency].dropna().to_numpy(dtype=np.float64))
        if not len(values):
            continue
        kept = np.unique(np.linspace(0, len(values) - 1, min(POINTS, len(values))).astype(int))
        shares = np.searchsorted(values, values[kept], "right") / len(values)  # of equal values the last
        rows += [(run, latency, float(values[at]), float(share)) for at, share in zip(kept, shares)]
    gaps = summary.get("latency", {}).get("itl_s", {})
    rows += [(run, "itl_s", float(gaps[key]), share) for key, share in STEP_SHARE.items() if gaps.get(key) is not None]
    return pd.DataFrame(rows, columns=["run", "latency", "seconds", "share"])


def latency_distribution(rows: pd.DataFrame, limits: Mapping[str, float], caption: str = "") -> Drawn:
    """Empirical distributions, one panel each for TTFT and for the time per token; SLO lines; logarithmic time."""
    panels = {"ttft_s": ("ttft_s",), "tpot_s": ("tpot_s", "itl_s"), "e2e_s": ("e2e_s",)}
    runs = list(dict.fromkeys(rows["run"]))
    legend_rows = -(-len(runs) // 2) if len(runs) > 1 else 0
    panels = {title: found for title, found in panels.items() if rows["latency"].isin(found).any()}
    figure, axes = blank(2 * COLUMN + 0.34, 1.75 + 0.13 * legend_rows, 1, len(panels), sharey=True)
    spots = []
    for place, (title, latencies) in zip(axes, panels.items()):
        part = rows[rows["latency"].isin(latencies)]
        size, unit = scale([float(part["seconds"].quantile(0.9))] if len(part) else [], "s")
        for index, run in enumerate(runs):
            for latency in latencies:
                mine = part[(part["run"] == run) & (part["latency"] == latency)]
                if not len(mine):
                    continue
                seconds, share = mine["seconds"] / size, mine["share"]
                if latency == "itl_s":
                    label = "ITL percentiles" if len(runs) == 1 else None
                    look = line(index) | {"linestyle": "none", "markerfacecolor": "white"}
                    (artist,) = place.plot(seconds, share, label=label, **look)
                    spots += [
                        Spot(place, x, y, f"{run}: ITL p{round(100 * y)} {number(x)} {unit}") for x, y in zip(seconds, share)
                    ]
                else:
                    x = [seconds.iloc[0], *seconds]
                    (artist,) = place.step(x, [0.0, *share], where="post", label=short(run), **line(index, marker=False))
                    for y in STEP_SHARE.values():
                        at = float(np.interp(y, share, seconds))
                        spots.append(Spot(place, at, y, f"{run}: {LATENCIES[latency]} p{round(100 * y)} {number(at)} {unit}"))
                tag(artist, run)
        if title in limits:
            place.axvline(limits[title] / size, color="0.35", linewidth=0.8, linestyle=(0, (2, 1)))
            _say(place, limits[title] / size, "SLO")
        place.set_xscale("log")
        positive = part["seconds"][part["seconds"] > 0] / size
        if len(positive):
            log_axis(place.xaxis, float(positive.min()), float(positive.max()))
        place.set_ylim(0, 1.02)
        place.set_xlabel(with_unit(LATENCIES[title], unit))
    axes[0].set_ylabel("share of requests")
    if len(runs) == 1:
        for place in axes:
            handles, names = _only(place, "ITL percentiles")
            if handles:
                place.legend(handles, names, loc="lower right")
    else:
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return Drawn(figure, rows, f"Distribution of latencies; a vertical line is the SLO. {caption}".strip(), spots)


def _say(place: Axes, x: float, text: str) -> None:
    place.annotate(text, (x, 0.03), xycoords=("data", "axes fraction"), xytext=(2, 0), textcoords="offset points", fontsize=6)


def _only(place: Axes, label: str) -> tuple[list[Any], list[str]]:
    found = [(handle, text) for handle, text in zip(*place.get_legend_handles_labels()) if text == label]
    return [handle for handle, _ in found], [text for _, text in found]


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
    height = len(spans) * (0.42 + 0.19 * len(runs)) + 0.14 * -(-len(listed) // 3) + 0.15
    figure, axes = blank(COLUMN, height, len(spans), 1)
    spots = []
    for place, span in zip(axes, spans):
        size, unit = scale([float(rows[(rows["run"] == run) & (rows["span"] == span)]["mean_s"].sum()) for run in runs], "s")
        for row, run in enumerate(runs):
            left = 0.0
            for part in parts:
                width = _cell(rows, run, span, part) / size
                if width > 0:
                    look = _look(part)
                    place.barh(row, width, left=left, height=0.7, linewidth=0.3, **look)
                    text = f"{run}, {SPANS[span]}: {PARTS.get(part, part)} {number(width)} {unit}"
                    spots.append(Spot(place, left + width / 2, row, text))
                left += width
            place.annotate(number(left), (left, row), xytext=(2, 0), textcoords="offset points", va="center", fontsize=6)
        place.set_yticks(range(len(runs)) if len(runs) > 1 else [], map(short, runs) if len(runs) > 1 else [])
        place.set_ylim(len(runs) - 0.45, -0.55)
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
        artist = place.errorbar(
            x, y, label=short(arm), elinewidth=0.6, **line(index),
            yerr=_reach(mine, "seconds", size), xerr=_reach(mine, "throughput", 1.0),
        )  # fmt: skip
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
    place.set_ylabel(f"{LATENCIES[latency]}, {PERCENTILES[percentile]} ({unit})")
    place.legend(loc="best")
    slo = "; the dashed line is the SLO" if limit is not None else ""
    return Drawn(figure, rows, f"Latency over throughput, a point a load{slo}. {caption}".strip(), spots)


def _reach(rows: pd.DataFrame, name: str, size: float) -> Any:
    """Error bars; none where there is no interval."""
    middle = rows[name].to_numpy()
    low, high = rows[f"{name}_low"].to_numpy(dtype=float), rows[f"{name}_high"].to_numpy(dtype=float)
    return np.nan_to_num(np.array([middle - low, high - middle]) / size, nan=0.0)
