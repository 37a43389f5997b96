"""Devices and the limits they set: roofline, latency over bandwidth, model against measurement.

roofline           roof, and operating points: intensity (FLOP/byte), FLOP/s
latency_bandwidth  device, load of others, seconds of an access, bytes/s that the others have then
measured_scatter   data_set, metric, measured, model
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import Any

import numpy as np
import pandas as pd

from analysis.figures.quantities import each
from analysis.figures.style import (
    COLOURS,
    COLUMN,
    MARKERS,
    PAGE,
    Drawn,
    Spot,
    blank,
    line,
    log_axis,
    number,
    point,
    scale,
    short,
    tag,
)  # fmt: skip

BAND = 0.10  # of the scatter
ALONE = 2.0  # bytes in flight of a path by itself, times what just fills it
MANY = 1500  # points above which a vector file would be slow to open


def roofline_rows(explained: Mapping[str, Any], summary: Mapping[str, Any], run: str) -> pd.DataFrame:
    """The roof (HBM slope, FLOPs ceiling, slope of the far path) and two points: a full batch at the bound, and the run.

    FLOPs and bytes of a step with B decodes: B x per token, weights once. The run's point has its mean batch and its measured
    decode rate; contexts are the means of the workload."""
    roof = explained["bounds"]["roofline"]
    rows = []
    rates = {"HBM": roof["hbm_bytes_per_s"], "all bytes over the far path": roof.get("far_raw_bytes_per_s")}
    furthest = max(1e4, *(2 * roof["flops_per_s"] / bandwidth for bandwidth in rates.values() if bandwidth))
    for name, bandwidth in rates.items():
        if bandwidth:
            ridge = roof["flops_per_s"] / bandwidth
            rows += [(run, name, "roof", x, min(x * bandwidth, roof["flops_per_s"])) for x in (0.1, ridge, furthest)]
    points: dict[str, tuple[float, float | None]] = {"a full batch": (float(explained["bounds"]["batch"]), None)}
    measured = summary.get("throughput", {}).get("decode_output_tokens_per_s")
    batch = summary.get("simulation", {}).get("mean_batch")
    if measured and batch:
        points["this run"] = (float(batch), float(measured))
    for name, (size, rate) in points.items():
        flops = size * roof["flops_per_token"]
        moved = size * roof["kv_bytes_per_token"] + roof["weight_bytes_per_step"]
        if rate is None:
            rate = float(explained["bounds"]["expected"]["decode_tokens_per_s"])
        rows.append((run, name, "point", flops / moved, rate * roof["flops_per_token"]))
    return pd.DataFrame(rows, columns=["run", "name", "kind", "flops_per_byte", "flops_per_s"])


def roofline(rows: pd.DataFrame, caption: str = "") -> Drawn:
    """FLOP/s over FLOPs per byte of HBM traffic, logarithmic."""
    figure, (place,) = blank(COLUMN, 2.1)
    size, unit = scale([rows["flops_per_s"].max()], "FLOP/s")
    spots = []
    roofs = rows[(rows["kind"] == "roof")].drop_duplicates(["name", "flops_per_byte", "flops_per_s"])
    for index, (name, mine) in enumerate(roofs.groupby("name", sort=False)):
        (artist,) = place.plot(mine["flops_per_byte"], mine["flops_per_s"] / size, label=f"roof: {name}",
                               **line(index, marker=False))  # fmt: skip
        tag(artist, str(name))
    points = rows[rows["kind"] == "point"]
    for index, row in enumerate(each(points)):
        place.plot(
            [row.flops_per_byte], [row.flops_per_s / size], linestyle="none", marker=MARKERS[index % 8], markersize=5,
            color=COLOURS[(index + 2) % 8], markeredgecolor="white", markeredgewidth=0.4, label=f"{row.name}",
        )  # fmt: skip
        text = f"{row.run}, {row.name}: {number(row.flops_per_s / size)} {unit} at {number(row.flops_per_byte)} FLOP/B"
        spots.append(Spot(place, row.flops_per_byte, row.flops_per_s / size, text))
    low = min(0.5 * float(points["flops_per_byte"].min()), 1.0) if len(points) else 0.1
    floor = 0.3 * float(points["flops_per_s"].min()) / size if len(points) else 0.0
    place.set(xscale="log", yscale="log", xlim=(low, float(roofs["flops_per_byte"].max())))
    if floor:
        place.set_ylim(floor, 2 * float(roofs["flops_per_s"].max()) / size)
    log_axis(place.xaxis, 1.0, 1e4)
    log_axis(place.yaxis, 1.0, 1e4)
    place.set_xlabel("FLOPs per byte read from HBM (FLOP/B)")
    place.set_ylabel(f"decode rate ({unit})")
    figure.legend(*place.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    text = "Roofline of the decode step of a replica's GPUs: ceilings by peak FLOPs, HBM, and the far path if all came over it"
    return Drawn(figure, rows, f"{text}; points at the mean context of the workload. {caption}".strip(), spots)


def curve_rows(explained: Mapping[str, Any]) -> pd.DataFrame:
    """A row per device and load of others, from `devices.curves` of explain.json, alike devices under one name; and of each
    whole path read by itself with ever more in flight: flat until a stage is full, then more only waits (Little's law)."""
    curves = (explained.get("devices") or {}).get("curves") or []
    alike: dict[tuple[Any, ...], list[str]] = {}
    found: dict[tuple[Any, ...], Any] = {}
    for each_one in curves:
        key = (each_one["latency_s"], each_one["load_factor"], each_one["bytes_per_s"])
        alike.setdefault(key, []).append(each_one["device"])
        found[key] = each_one["curve"]
    rows = [
        (_joined(alike[key]), point["load"], point["seconds"], point["bytes_per_s"])
        for key, curve in found.items()
        for point in curve
        if point["bytes_per_s"] is not None
    ]
    for direction in ("read", "write"):
        path = (explained.get("paths") or {}).get(direction)
        limit = min((stage["raw_bytes_per_s"] or inf for stage in path["stages"]), default=inf) if path else inf
        if path and path["latency_s"] and limit < inf:
            most = min(ALONE, (path["outstanding_raw_bytes_per_s"] or inf) / limit)  # outstanding bytes bound it
            for share in np.linspace(0.0, most, 25):
                seconds = path["latency_s"] * max(1.0, float(share))
                rows.append((f"whole path, {direction}", float(share), seconds, min(float(share), 1.0) * limit))
    return pd.DataFrame(rows, columns=["device", "load", "seconds", "bytes_per_s"])


def _joined(names: list[str]) -> str:
    """'pool.link.read' and 'pool.link.write' are 'pool.link'."""
    both = {name.removesuffix(".read").removesuffix(".write") for name in names}
    return ", ".join(sorted(both) if len(names) > len(both) else names)


def latency_bandwidth(rows: pd.DataFrame, load: float | None = None, caption: str = "") -> Drawn:
    """Latency over bandwidth, a line a device, and the points at the load of others that the run had. `rows`: device, load,
    seconds, bytes_per_s."""
    figure, (place,) = blank(COLUMN, 2.1 + 0.13 * -(-rows["device"].nunique() // 2))
    drawn = rows[rows["bytes_per_s"] > 0]
    (x_size, x_unit), (y_size, y_unit) = scale(drawn["bytes_per_s"].tolist(), "B/s"), scale(drawn["seconds"].tolist(), "s")
    spots = []
    for index, (device, mine) in enumerate(drawn.groupby("device", sort=False)):
        look = line(index)
        (artist,) = place.plot(mine["bytes_per_s"] / x_size, mine["seconds"] / y_size, label=short(device), markevery=4, **look)
        tag(artist, str(device))
        if load is not None and not str(device).startswith("whole"):
            whole = rows[rows["device"] == device]
            at = [float(np.interp(load, whole["load"], whole[name])) for name in ("bytes_per_s", "seconds")]
            place.plot(max(at[0], float(mine["bytes_per_s"].min())) / x_size, at[1] / y_size, marker=look["marker"],
                       markersize=6, markerfacecolor="white", color=look["color"])  # fmt: skip
        spots += [
            Spot(place, row.bytes_per_s / x_size, row.seconds / y_size,
                 f"{device}: {number(row.seconds / y_size)} {y_unit} at {number(row.bytes_per_s / x_size)} {x_unit}")
            for row in each(mine.iloc[::4])
        ]  # fmt: skip
    place.set(xscale="log", yscale="log")
    log_axis(place.xaxis, drawn["bytes_per_s"].min() / x_size, drawn["bytes_per_s"].max() / x_size)
    log_axis(place.yaxis, drawn["seconds"].min() / y_size, drawn["seconds"].max() / y_size)
    place.set_xlabel(f"bandwidth in use ({x_unit})")
    place.set_ylabel(f"latency of an access ({y_unit})")
    figure.legend(*place.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    text = "Latency of an access over the bandwidth in use: by others, of a device; by itself, of the whole path"
    marked = f"; large open marks: the load of this run, {100 * load:.0f} %" if load is not None else ""
    return Drawn(figure, rows, f"{text}{marked}. {caption}".strip(), spots)


def measured_scatter(rows: pd.DataFrame, caption: str = "") -> Drawn:
    """Model against measurement, a panel a quantity with its unit, as 'step (ms)'; the diagonal is agreement, the band 10 %
    around it. `rows`: data_set, metric, measured, model; rows with values <= 0 cannot be drawn on its axes and are left out."""
    pairs = rows[["measured", "model"]].to_numpy(dtype=np.float64)
    rows = rows[((pairs > 0) & np.isfinite(pairs)).all(axis=1)]
    metrics = list(dict.fromkeys(rows["metric"]))
    across = min(3, max(1, len(metrics)))
    down = -(-len(metrics) // across) or 1
    sets = [rows[rows["metric"] == metric]["data_set"].nunique() for metric in metrics] or [0]
    named = [0.1 + 0.115 * max(sets[row * across : (row + 1) * across]) for row in range(down)]  # inches of legends
    heights = [height for legend in named for height in (2.3 if across > 1 else 2.9, legend)]
    figure, places = blank(COLUMN if across == 1 else PAGE, sum(heights), 2 * down, across, height_ratios=heights)
    axes = [place for at, place in enumerate(places) if at // across % 2 == 0]
    below = [place for at, place in enumerate(places) if at // across % 2 == 1]
    spots = []
    for place, under, metric in zip(axes, below, metrics):
        mine = rows[rows["metric"] == metric]
        low, high = mine[["measured", "model"]].to_numpy().min() / 1.3, mine[["measured", "model"]].to_numpy().max() * 1.3
        ends = np.array([low, high])
        place.fill_between(ends, ends * (1 - BAND), ends * (1 + BAND), color="0.88", linewidth=0)
        place.plot(ends, ends, color="0.4", linewidth=0.8)
        for index, (data_set, part) in enumerate(mine.groupby("data_set", sort=False)):
            place.scatter(
                part["measured"], part["model"], s=9, alpha=0.75, linewidths=0, rasterized=len(part) > MANY,
                label=f"{short(data_set, 30)} ({len(part)})", **point(index),
            )  # fmt: skip
            for row in each(part.iloc[:: max(1, len(part) // 60)]):
                error = 100 * (row.model / row.measured - 1)
                text = f"{data_set}: {number(row.model)} for {number(row.measured)} ({error:+.1f} %)"
                spots.append(Spot(place, row.measured, row.model, text))
        place.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high), aspect="equal")
        for axis in (place.xaxis, place.yaxis):
            log_axis(axis, low, high)
        what, _, unit = metric.partition(" (")
        place.set_title(what)
        place.set_xlabel(f"measured ({unit}" if unit else "measured")
        place.set_ylabel(f"model ({unit}" if unit else "model")
        legend = under.legend(*place.get_legend_handles_labels(), loc="upper center", handletextpad=0.1, fontsize=5.6,
                              labelspacing=0.25)  # fmt: skip
        legend.set_in_layout(False)  # names may be wider than their panel
    for place in (*axes[len(metrics) :], *below):
        place.set_axis_off()
    return Drawn(figure, rows, f"Model against measurement; the band is ±10 %. {caption}".strip(), spots)
