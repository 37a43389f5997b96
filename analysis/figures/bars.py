"""Bars: speed-ups against a baseline, what each parameter moves (tornado), what a token costs.

speedup         a row per bar: label, against, ratio, low, high, n
tornado         rows of `insight/tornado`: parameter, base, at_from, at_to, swing, low, high; `range`: its ends as written
cost_breakdown  a row per bar and item: label, item, usd_per_million_output_tokens; items of a bar sum to its cost
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.figures.quantities import axis_name, each, interval, named, with_unit
from analysis.figures.style import (
    COLUMN,
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
    tag_all,
    two_lines,
)

ITEMS = {"gpus": "GPUs", "pool": "KV pool", "host": "host", "electricity": "electricity", "other": "other"}
SPREAD = 8.0  # ratio of the extremes from which speed-ups are drawn on a logarithmic scale


def speedup_rows(
    table: pd.DataFrame, arms: Sequence[str], axes: Sequence[str], metric: str, lower_is_better: bool = False
) -> pd.DataFrame:
    """Ratio of every arm to the first, paired by point and replication; a mean over points, intervals over replications.

    With several points the ratios of a replication are averaged first (geometric mean), so that n counts replications.
    """
    keys = [*axes, "replication"]
    wide = table.assign(**{axis: table[axis].astype(str) for axis in axes})
    wide = wide.pivot_table(index=keys, columns="arm", values=metric, aggfunc="first")
    rows = []
    for arm in arms[1:]:
        if arm not in wide or arms[0] not in wide:
            continue
        ratio = wide[arms[0]] / wide[arm] if lower_is_better else wide[arm] / wide[arms[0]]
        ratio = ratio[np.isfinite(ratio) & (ratio > 0)]
        logs = pd.Series(np.log(ratio.to_numpy()), index=ratio.index)
        each_one = np.exp(logs.groupby(level="replication").mean().to_numpy())
        mean, low, high, count = interval(each_one)
        rows.append((arm, arms[0], mean, low, high, count, float(ratio.min()), float(ratio.max())))
    return pd.DataFrame(rows, columns=["label", "against", "ratio", "low", "high", "n", "least", "most"])


def speedup(rows: pd.DataFrame, metric: str, caption: str = "") -> Drawn:
    """A bar an arm; the line at 1 is the baseline; whiskers are 95 % intervals, dots the extremes over the points."""
    figure, (place,) = blank(COLUMN, 0.75 + 0.26 * len(rows))
    spots = []
    low, high = (float(found) for found in (rows[["least", "ratio"]].min().min(), rows[["most", "ratio"]].max().max()))
    wide = max(high, 1.0) > SPREAD * min(low, 1.0)
    for at, row in enumerate(each(rows)):
        start = 1.0 if wide else 0.0  # a logarithmic axis has no 0: bars reach from equal
        place.barh(
            at, row.ratio - start, left=start, height=0.62, **area(at + 1)
        )  # the baseline has the first colour elsewhere
        if row.low == row.low:
            place.errorbar(row.ratio, at, xerr=[[row.ratio - row.low], [row.high - row.ratio]], color="black", linewidth=0.8)
        if row.most > row.least:
            place.plot([row.least, row.most], [at, at], linestyle="none", marker=".", markersize=4, color="black")
        place.annotate(
            f"{row.ratio:.3g}x", (1.0, at), xycoords=("axes fraction", "data"), xytext=(3, 0), textcoords="offset points",
            ha="left", va="center", fontsize=6.5,
        )  # fmt: skip
        spread = f", 95 % interval {row.low:.4g} to {row.high:.4g}" if row.low == row.low else ""
        spots.append(Spot(place, row.ratio / 2, at, f"{row.label}: {row.ratio:.4g}x {row.against}{spread}"))
    place.axvline(1.0, color="black", linewidth=0.8, linestyle=(0, (2, 1)))
    place.set_yticks(range(len(rows)), [two_lines(label) for label in rows["label"]], linespacing=1.05)
    place.set_ylim(len(rows) - 0.45, -0.55)
    if wide:
        place.set_xscale("log")
        place.set_xlim(min(low, 1.0) / 1.25, max(high, 1.0) * 1.25)
        log_axis(place.xaxis, min(low, 1.0), max(high, 1.0))
    else:
        place.set_xlim(0, 1.08 * max(1.0, high))
    place.grid(False, axis="y")
    place.set_xlabel(f"{named(metric)[0]}, times that of {short(rows['against'].iloc[0])}")
    spread = "; dots are the extremes over the points" if (rows["most"] > rows["least"]).any() else ""
    text = f"Ratio to '{rows['against'].iloc[0]}' at equal points and random numbers{spread}."
    return Drawn(figure, rows, f"{text} {caption}".strip(), spots)


def tornado(rows: pd.DataFrame, caption: str = "") -> Drawn:
    """What one metric of one arm does when each parameter goes from its low to its high end, all others at the base."""
    rows = rows[rows["swing"].notna()].copy()
    rows = rows.reindex(rows["swing"].abs().sort_values(ascending=False, kind="stable").index).head(12).reset_index(drop=True)
    name, unit = named(str(rows["metric"].iloc[0]))
    size, unit = scale(rows[["at_from", "at_to", "base"]].to_numpy().ravel().tolist(), unit)
    base = float(rows["base"].iloc[0]) / size
    figure, (place,) = blank(COLUMN, 0.85 + 0.27 * len(rows))
    spots = []
    for at, row in enumerate(each(rows)):
        said = f"{100 * row.swing / row.base:+.2g} %" if row.base else f"{row.swing / size:+.2g}"
        place.annotate(
            said, (1.0, at), xycoords=("axes fraction", "data"), xytext=(3, 0), textcoords="offset points",
            ha="left", va="center", fontsize=6.5,
        )  # fmt: skip
        for end, value in (("low", row.at_from / size), ("high", row.at_to / size)):
            look = area(5 if end == "low" else 1)
            place.barh(at, value - base, left=base, height=0.62, label=f"{end} end" if at == 0 else None, **look)
        if row.low == row.low and row.high > row.low:
            half = (row.high - row.low) / 2 / size
            place.errorbar(row.at_to / size, at, xerr=half, color="black", linewidth=0.8)
        ends = f"{number(row.at_from / size)} at its low, {number(row.at_to / size)} {unit} at its high end"
        spots.append(Spot(place, (row.at_from + row.at_to) / 2 / size, at, f"{row.parameter}: {ends}"))
    place.axvline(base, color="black", linewidth=0.8)
    ranges = rows["range"] if "range" in rows else [""] * len(rows)
    texts = [f"{short(axis_name(path))}\n{between}".strip() for path, between in zip(rows["parameter"], ranges)]
    place.set_yticks(range(len(rows)), texts, linespacing=1.05)
    place.set_ylim(len(rows) - 0.45, -0.55)
    place.margins(x=0.08)
    place.grid(False, axis="y")
    place.set_xlabel(with_unit(name, unit))
    place.legend(loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=2)
    text = f"Change of {name} from the low to the high end of each parameter, the others at the base; its sum on the right"
    told = "; whiskers are 95 % intervals of the change" if rows["low"].notna().any() else ""
    paths = ", ".join(rows["parameter"])
    return Drawn(figure, rows, f"{text}{told} (arm '{rows['arm'].iloc[0]}'; {paths}). {caption}".strip(), spots)


def cost_rows(label: str, cost: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Cost of a million output tokens by item, from the `cost` block of a summary; whatever has no item is `other`."""
    whole, hour = cost.get("usd_per_million_output_tokens"), cost.get("usd_per_hour")
    if not whole or not hour:
        return []
    ending = "_usd_per_hour"
    shares = {key.removesuffix(ending): value / hour for key, value in cost.items() if key.endswith(ending) and value}
    rest = 1.0 - sum(shares.values())
    if abs(rest) > 1e-9:
        shares["other"] = rest
    return [{"label": label, "item": item, "usd_per_million_output_tokens": whole * share} for item, share in shares.items()]


def cost_breakdown(rows: pd.DataFrame, caption: str = "") -> Drawn:
    """Stacked bars: who earns the money of a million output tokens."""
    labels = list(dict.fromkeys(rows["label"]))
    items = [*(item for item in ITEMS if item in set(rows["item"])), *sorted(set(rows["item"]) - ITEMS.keys())]
    looks = {item: area([*ITEMS, *items].index(item)) for item in items}  # an item looks alike in all figures
    column = "usd_per_million_output_tokens"
    figure, (place,) = blank(COLUMN, 0.8 + (0.24 if lines_of_names(labels) == 1 else 0.29) * len(labels))
    longest = rows.groupby("label")[column].sum().max()
    spots = []
    for at, label in enumerate(labels):
        left = 0.0
        for item in items:
            width = float(rows[(rows["label"] == label) & (rows["item"] == item)][column].sum())
            place.barh(at, width, left=left, height=0.62, linewidth=0.3 if width > 0.005 * longest else 0.0,
                       label=ITEMS.get(item, item) if at == 0 else None, **looks[item])  # fmt: skip
            if width:
                spots.append(Spot(place, left + width / 2, at, f"{label}, {ITEMS.get(item, item)}: {number(width)} USD"))
            left += width
        place.annotate(number(left), (left, at), xytext=(2, 0), textcoords="offset points", va="center", fontsize=6)
    name_bars(place, labels)
    place.margins(x=0.12)
    place.grid(False, axis="y")
    place.set_xlabel("USD per million output tokens")
    place.legend(loc="lower center", bbox_to_anchor=(0.45, 1.0), ncols=4, columnspacing=0.9)
    return Drawn(figure, rows, f"Cost of a million output tokens by item. {caption}".strip(), spots)


def along_axis(
    rows: pd.DataFrame, axis: str, axis_scale: tuple[float, str], metric: str, caption: str = "", zero: bool = True
) -> Drawn:
    """A metric along one axis of a study, a line a series, with 95 % intervals. `rows`: series, x, mean, low, high, n."""
    figure, (place,) = blank(COLUMN, 1.9 + 0.12 * -(-rows["series"].nunique() // 2))
    name, unit = named(metric)
    size, unit = scale(rows["mean"].tolist(), unit)
    spots = axis_lines(place, rows, axis_scale[0], size, unit)
    name_y(place, with_unit(name, unit))
    place.set_xlabel(with_unit(axis_name(axis), axis_scale[1]))
    if zero and rows["mean"].min() >= 0:
        place.set_ylim(0, 1.08 * float(rows[["mean", "high"]].max().max()) / size or 1.0)
    if rows["series"].nunique() > 1:
        figure.legend(*place.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    intervals = "; bars are 95 % intervals" if rows["low"].notna().any() else ""
    return Drawn(figure, rows, f"{name[:1].upper()}{name[1:]} along {axis}{intervals}. {caption}".strip(), spots)


def axis_lines(place: Any, rows: pd.DataFrame, x_size: float, y_size: float, unit: str, first: int = 0) -> list[Spot]:
    """Lines with intervals into one panel; the x axis is logarithmic where values spread over a factor of 20."""
    spots = []
    for index, (series, mine) in enumerate(rows.groupby("series", sort=False)):
        mine = mine.sort_values("x")
        x, y = mine["x"] / x_size, mine["mean"] / y_size
        ends = np.array([mine["mean"] - mine["low"], mine["high"] - mine["mean"]], dtype=float)
        reach = np.nan_to_num(ends / y_size, nan=0.0) if np.isfinite(ends).any() else None
        drawn = place.errorbar(x, y, yerr=reach, label=short(series), elinewidth=0.6, **line(first + index))
        tag_all(drawn, str(series))
        spots += [
            Spot(place, float(a), float(b), f"{series}: {number(float(b))} {unit} at {number(float(a))}".replace("  ", " "))
            for a, b in zip(x, y)
        ]
    low, high = rows["x"].min() / x_size, rows["x"].max() / x_size
    if low > 0 and high > 20 * low:
        place.set_xscale("log")
        log_axis(place.xaxis, low, high)
    return spots
