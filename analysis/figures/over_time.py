"""The run over time: tiers and hits, what is busy, the dip and recovery around a fault. From `timeseries.parquet`.

tiers_over_time        time_s, and bytes of each tier; hits: shares of pages
utilisation_over_time  time_s, gpu and a column per stage of the path: share of its capacity
fault_recovery         time_s, output_tokens_per_s, seconds from the fault
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.figures.style import COLUMN, Drawn, Spot, blank, line, number, scale, short, tag

TIERS = {"l1_bytes": "L1", "l2_bytes": "L2", "l3_bytes": "L3"}
SHARES = {"l1_hit_share": "read from L1", "covered_share": "far pages prefetched", "in_time_share": "... in time"}
BINS = 120  # drawn: more would only blacken the column
LINES = 5
FAULT_BINS = 75


def coarser(series: pd.DataFrame, bins: int = BINS) -> pd.DataFrame:
    """Means of neighbouring bins, of what is known in them; their start."""
    if len(series) <= bins:
        return series.reset_index(drop=True)
    group = np.arange(len(series)) * bins // len(series)
    means = series.groupby(group).mean()
    means["time_s"] = series.groupby(group)["time_s"].first()
    return means.reset_index(drop=True)


def tiers_over_time(series: pd.DataFrame, capacities: Mapping[str, float], caption: str = "") -> Drawn:
    """Bytes held in each tier as shares of its capacity, and how pages were found, below."""
    drawn = coarser(series)
    time = drawn["time_s"]
    tiers = [name for name in TIERS if name in drawn and drawn[name].max() > 0]
    shares = [name for name in SHARES if name in drawn and drawn[name].notna().any()]
    figure, axes = blank(COLUMN, 1.55 + (1.25 if shares else 0.0), 2 if shares else 1, 1, sharex=True)
    table = pd.DataFrame({"time_s": time})
    spots = []
    for index, name in enumerate(tiers):
        tier = TIERS[name]
        capacity = capacities.get(tier.lower()) or float(drawn[name].max())
        table[name] = drawn[name]
        table[f"{tier.lower()}_share"] = drawn[name] / capacity
        size, unit = scale([capacity], "B")
        (artist,) = axes[0].plot(
            time, drawn[name] / capacity * 100, label=f"{tier} of {number(capacity / size)} {unit}", **line(index, marker=False)
        )
        tag(artist, tier)
        spots += _along(axes[0], time, drawn[name] / capacity * 100, f"{tier}", "% full")
    axes[0].set_ylabel("occupied (%)")
    axes[0].set_ylim(0, 105)
    if tiers:
        axes[0].legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    if shares:
        for index, name in enumerate(shares):
            table[name] = drawn[name]
            axes[1].plot(time, drawn[name] * 100, label=SHARES[name], **line(index + len(tiers), marker=False))
            spots += _along(axes[1], time, drawn[name] * 100, SHARES[name], "%")
        axes[1].set_ylabel("pages (%)")
        axes[1].set_ylim(0, 105)
        axes[1].legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, columnspacing=0.9)
    axes[-1].set_xlabel("time (s)")
    text = "Occupancy of the KV tiers over time, and how pages were found in the steps that read far ones."
    return Drawn(figure, table, f"{text} {caption}".strip(), spots)


def stage_shares(series: pd.DataFrame, paths: Mapping[str, Any] | None) -> pd.DataFrame:
    """Share of its capacity that each stage of the read and write path carries in each bin; bytes and capacity are those of
    all replicas."""
    table = pd.DataFrame({"time_s": series["time_s"]})
    if "gpu_share" in series:
        table["gpu"] = series["gpu_share"]
    for direction, column in (("read", "far_read_bytes_per_s"), ("write", "far_write_bytes_per_s")):
        for stage in (paths or {}).get(direction, {}).get("stages", []) if column in series else []:
            if capacity := stage.get("bytes_per_s_of_all", stage["bytes_per_s"]):
                share = series[column] * stage["wire_per_raw"] / capacity
                table[stage["stage"]] = table.get(stage["stage"], 0.0) + share
    return table


def utilisation_over_time(series: pd.DataFrame, paths: Mapping[str, Any] | None, caption: str = "") -> Drawn:
    """GPUs and the busiest stages between pool and GPUs; what a step does is spread over it."""
    table = coarser(stage_shares(series, paths))
    stages = [name for name in table.columns if name not in ("time_s", "gpu")]
    busiest = sorted(stages, key=lambda name: (-float(table[name].to_numpy().mean()), name))[: LINES - 1]
    figure, (place,) = blank(COLUMN, 1.95)
    spots = []
    for index, name in enumerate([*(["gpu"] if "gpu" in table else []), *busiest]):
        (artist,) = place.plot(table["time_s"], table[name] * 100, label=name, **line(index, marker=False))
        tag(artist, name)
        spots += _along(place, table["time_s"], table[name] * 100, name, "%")
    place.set_ylabel("busy (%)")
    place.set_ylim(bottom=0)
    place.set_xlabel("time (s)")
    place.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, columnspacing=0.9)
    text = "Utilisation over time of the GPUs and of the busiest stages between pool and GPUs, of their rates without faults"
    more = f" ({len(stages) - len(busiest)} more in the table)" if len(stages) > len(busiest) else ""
    return Drawn(figure, table, f"{text}{more}. {caption}".strip(), spots)


def fault_rows(faults: Sequence[Any], explained: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Faults of a summary with `until_s`, from the durations that `explain` has; None: to the end, or not known."""
    found = []
    for fault in faults:
        if isinstance(fault, dict) and fault.get("at_s") is not None:
            kinds = [kind for kind in (explained or {}).get("faults") or [] if kind["what"] == fault["what"]]
            mine = [kind for kind in kinds if kind["at_s"] == fault["at_s"]] or [kind for kind in kinds if kind["at_s"] is None]
            lasts = mine[0]["duration_s"] if mine else None
            found.append(fault | {"until_s": fault["at_s"] + lasts if lasts is not None else None})
    return found


def fault_recovery(series: pd.DataFrame, faults: Sequence[Mapping[str, Any]], caption: str = "") -> Drawn:
    """Throughput around the faults: means of bins, and the levels before, during and after each as the summary has them.

    `faults`: rows of `fault_rows` (at_s, until_s, what, tokens_per_s_before, during, after)."""
    figure, (place,) = blank(COLUMN, 2.35)
    whole = float(series["time_s"].iloc[-1])
    ends = [min(whole, fault.get("until_s") or whole) for fault in faults]
    first, last = min(fault["at_s"] for fault in faults), max(ends)
    reach = 0.6 * (last - first) if last - first < 0.1 * whole else whole
    near = series[(series["time_s"] >= first - reach) & (series["time_s"] <= last + reach)]
    drawn = coarser(near[["time_s", "output_tokens_per_s"]], FAULT_BINS)
    table = drawn.assign(from_fault_s=drawn["time_s"] - first)
    time, rate = table["time_s"], table["output_tokens_per_s"]
    place.step(time, rate, where="post", label="throughput", **(line(5, marker=False) | {"linestyle": "-"}))
    changes = sorted({float(time.iloc[0]), float(time.iloc[-1]), *(fault["at_s"] for fault in faults), *ends})
    spots = _along(place, time, rate, "throughput", "tokens/s")
    for at, (fault, end) in enumerate(zip(faults, ends)):
        place.axvspan(fault["at_s"], end, color="0.5", alpha=0.3, linewidth=0, zorder=0)
        name = str(fault.get("what", "fault")).replace("_", " ")
        middle: Any = ("data", "axes fraction")
        place.annotate(
            short(name), (fault["at_s"], 1.0), xycoords=middle, xytext=(0, 2), textcoords="offset points", fontsize=6,
            rotation=0 if len(faults) == 1 else 20, ha="left", va="bottom",
        )  # fmt: skip
        before = max([time_ for time_ in changes if time_ < fault["at_s"]], default=fault["at_s"])
        after = min([time_ for time_ in changes if time_ > end], default=end)
        for level, key, since, until in (
            ("before", "tokens_per_s_before", before, fault["at_s"]), ("during", "during", fault["at_s"], end),
            ("after", "after", end, after),
        ):  # fmt: skip
            if fault.get(key) is not None and until > since:
                place.plot([since, until], [fault[key]] * 2, color="black", linewidth=1.3, linestyle="--",
                           label="mean between changes" if at == 0 and level == "before" else None)  # fmt: skip
                text = f"{name}: {number(fault[key])} tokens/s {level}"
                spots.append(Spot(place, (since + until) / 2, fault[key], text))
    place.set_ylim(bottom=0)
    place.set_xlim(float(time.iloc[0]), float(time.iloc[-1]))
    place.set_xlabel("time (s)")
    place.set_ylabel("output tokens/s")
    figure.legend(*place.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    text = "Dip and recovery around faults (grey: while they last); dashed: means from one change to the next"
    return Drawn(figure, table, f"{text}. {caption}".strip(), spots)


def _along(place: Any, x: Any, y: Any, name: str, unit: str) -> list[Spot]:
    """Every third point, where there is a value."""
    return [
        Spot(place, float(a), float(b), f"{name}: {number(float(b))} {unit} at {number(float(a))} s")
        for at, (a, b) in enumerate(zip(x, y))
        if at % 3 == 0 and b == b
    ]
