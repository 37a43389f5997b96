"""Devices and the limits they set: roofline, latency over bandwidth, model against measurement.

roofline           roof, and operating points: intensity (FLOP/byte), FLOP/s
latency_bandwidth  device, load (bytes in flight, or load of others), seconds of an access, bytes/s
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
    Drawn,
    Spot,
    blank,
    line,
    log_axis,
    number,
    scale,
    short,
    tag,
)  # fmt: skip

LOADS = np.linspace(0.0, 0.97, 60)
SATURATION = 7.1  # times the unloaded latency; MemChannel, arXiv:2608.21731
BAND = 0.10


def roofline_rows(explained: Mapping[str, Any], summary: Mapping[str, Any], run: str) -> pd.DataFrame:
    """The roof (HBM slope, FLOPs ceiling, slope of the far path) and two points: a full batch at the bound, and the run.

    FLOPs and bytes of a step with B decodes: B x per token, weights once. The run's point has its mean batch and its measured
    decode rate; contexts are the means of the workload."""
    roof = explained["bounds"]["roofline"]
    rows = []
    rates = {"HBM": roof["hbm_bytes_per_s"], "all bytes over the far path": roof.get("far_raw_bytes_per_s")}
    for name, bandwidth in rates.items():
        if bandwidth:
            ridge = roof["flops_per_s"] / bandwidth
            rows += [(run, name, "roof", x, min(x * bandwidth, roof["flops_per_s"])) for x in (0.1, ridge, max(1e4, 2 * ridge))]
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


def path_rows(explained: Mapping[str, Any], scenario: Mapping[str, Any]) -> pd.DataFrame:
    """Latency of an access under the load of others on each device of the way, L(u) = L0 (1 + a u / (1 - u)), capped, over the
    bandwidth that is used then; and of the path read by itself with ever more in flight (Little's law)."""
    rows: list[tuple[str, float, float, float]] = []
    pool = (scenario.get("cluster") or {}).get("kv_pool")
    pool = pool if isinstance(pool, dict) else {}
    for direction in ("read", "write"):
        path = (explained.get("paths") or {}).get(direction)
        if not path or not path.get("raw_bytes_per_s"):
            continue
        base, rate = path["latency_s"], path["raw_bytes_per_s"]
        limit = min(stage["raw_bytes_per_s"] or inf for stage in path["stages"])
        allowed = (path.get("outstanding_raw_bytes_per_s") or inf) * base  # raw bytes in flight
        if not base or limit == inf:
            continue
        for share in np.linspace(0.05, 3.0, 60):
            flight = float(share) * limit * base
            if flight <= allowed * (1 + 1e-9):
                rows.append((f"path, {direction}", flight, max(base, flight / limit), min(flight / base, limit)))
        factor = float((pool.get("link") or {}).get("load_factor") or 0.0) if isinstance(pool.get("link"), dict) else 0.0
        if factor:
            for load in LOADS:
                grown = base * min(1.0 + factor * load / (1.0 - load), SATURATION)
                rows.append((f"link under load, {direction}", float(load), grown, float(load) * rate))
    return pd.DataFrame(rows, columns=["device", "load", "seconds", "bytes_per_s"])


def latency_bandwidth(rows: pd.DataFrame, caption: str = "") -> Drawn:
    """Latency over bandwidth, a line a device. `rows`: device, load, seconds, bytes_per_s."""
    figure, (place,) = blank(COLUMN, 2.1)
    (x_size, x_unit), (y_size, y_unit) = scale(rows["bytes_per_s"].tolist(), "B/s"), scale(rows["seconds"].tolist(), "s")
    spots = []
    for index, (device, mine) in enumerate(rows.groupby("device", sort=False)):
        (artist,) = place.plot(mine["bytes_per_s"] / x_size, mine["seconds"] / y_size, label=short(device),
                               **line(index), markevery=6)  # fmt: skip
        tag(artist, str(device))
        spots += [
            Spot(place, row.bytes_per_s / x_size, row.seconds / y_size,
                 f"{device}: {number(row.seconds / y_size)} {y_unit} at {number(row.bytes_per_s / x_size)} {x_unit}")
            for row in each(mine.iloc[::4])
        ]  # fmt: skip
    place.set_ylim(0, 1.1 * float(rows["seconds"].max()) / y_size)
    place.set_xlim(left=0)
    place.set_xlabel(f"bandwidth ({x_unit})")
    place.set_ylabel(f"latency of an access ({y_unit})")
    figure.legend(*place.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    text = "Latency over bandwidth as more is in flight: flat until a stage is full, queueing beyond"
    return Drawn(figure, rows, f"{text}. {caption}".strip(), spots)


def measured_scatter(rows: pd.DataFrame, caption: str = "") -> Drawn:
    """Model against measurement, a panel a metric. `rows`: data_set, metric, measured, model; values > 0."""
    metrics = list(dict.fromkeys(rows["metric"]))[:4]
    wide = len(metrics) > 1
    down = -(-len(metrics) // 2) if wide else 1
    sets = list(dict.fromkeys(rows["data_set"]))
    height = (2.45 if not wide else 2.2 * down) + 0.14 * -(-len(sets) // 2)
    figure, axes = blank(COLUMN if not wide else 2 * COLUMN + 0.34, height, down, 2 if wide else 1)
    spots = []
    for place, metric in zip(axes, metrics):
        mine = rows[(rows["metric"] == metric) & (rows["measured"] > 0) & (rows["model"] > 0)]
        low, high = mine[["measured", "model"]].to_numpy().min() / 1.3, mine[["measured", "model"]].to_numpy().max() * 1.3
        ends = np.array([low, high])
        place.fill_between(ends, ends * (1 - BAND), ends * (1 + BAND), color="0.88", linewidth=0)
        place.plot(ends, ends, color="0.4", linewidth=0.8)
        for index, data_set in enumerate(sets):
            part = mine[mine["data_set"] == data_set]
            place.scatter(
                part["measured"], part["model"], s=9, marker=MARKERS[index % 8], color=COLOURS[index % 8], alpha=0.8,
                linewidths=0, label=f"{short(data_set)} ({len(rows[rows['data_set'] == data_set])})",
            )  # fmt: skip
            for row in each(part.iloc[:: max(1, len(part) // 60)]):
                error = 100 * (row.model / row.measured - 1)
                text = f"{data_set}: {number(row.model)} for {number(row.measured)} ({error:+.1f} %)"
                spots.append(Spot(place, row.measured, row.model, text))
        place.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high), aspect="equal")
        for axis in (place.xaxis, place.yaxis):
            log_axis(axis, low, high)
        place.set_xlabel(f"measured {metric}")
        place.set_ylabel(f"modelled {metric}")
    for place in axes[len(metrics) :]:
        place.set_axis_off()
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return Drawn(figure, rows, f"Model against measurement; the band is ±10 %. {caption}".strip(), spots)
