"""Two dimensions at once: which arm wins where, and which designs nothing beats.

regime_map  rows of `insight/regime_map`: x, y, winner, gain, significant; break-even: x at a y
pareto      a row per design: x, y, arm, on_front
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.figures.quantities import axis_name, each, named, with_unit
from analysis.figures.style import COLOURS, COLUMN, HATCHES, Drawn, Spot, blank, log_axis, name_y, number, point, scale, short

PALE = 0.45  # how far colours of areas are from white


def regime_map(
    rows: pd.DataFrame, line: pd.DataFrame, axes: tuple[str, str], scales: Sequence[tuple[float, str]], title: str = "",
    caption: str = "",
) -> Drawn:  # fmt: skip
    """A field per pair of values in the colour and hatch of the winner, its relative gain in it; the break-even line over it.

    `line`: x, y of the break-even of the two arms (may be empty). Values of a text axis are drawn in their order.
    """
    from matplotlib.patches import Patch, Rectangle

    xs, ys = (list(dict.fromkeys(rows[name])) for name in ("x", "y"))
    if pd.api.types.is_numeric_dtype(rows["x"]):
        xs.sort()
    if pd.api.types.is_numeric_dtype(rows["y"]):
        ys.sort()
    figure, (place,) = blank(COLUMN, 1.25 + 0.24 * len(ys) + (0.1 if title else 0.0))
    winners = sorted({str(winner) for winner in rows["winner"].dropna()} - {"level"})
    spots = []
    for row in each(rows):
        at, up = xs.index(row.x), ys.index(row.y)
        known = row.winner in winners
        index = winners.index(row.winner) if known else 0
        face = pale(COLOURS[index]) if known else "#eeeeee"
        hatch = (HATCHES[index] if index else "") if known else ""
        place.add_patch(Rectangle((at, up), 1, 1, facecolor=face, edgecolor="white", hatch=hatch, linewidth=0.6))
        gain = ""
        if row.gain is not None and row.gain == row.gain:
            gain = f"{100 * row.gain:.0f}%" if row.gain < 1 else f"{1 + row.gain:.3g}x"
        if gain and len(xs) <= 10:
            place.text(at + 0.5, up + 0.5, gain, ha="center", va="center", fontsize=6, color="#111111",
                       bbox={"facecolor": face, "edgecolor": "none", "pad": 0.6})  # fmt: skip
        spots.append(Spot(place, at + 0.5, up + 0.5, f"{row.winner or 'nothing known'} wins by {gain or '?'}"))
    place.set_xlim(0, len(xs))
    place.set_ylim(0, len(ys))
    for pair, values, (size, _) in zip((place.xaxis, place.yaxis), (xs, ys), scales):
        texts = [number(value / size) if isinstance(value, int | float) else short(value) for value in values]
        pair.set_ticks([index + 0.5 for index in range(len(values))], texts)
    if len(line) and all(isinstance(value, int | float) for value in xs):
        place.plot([_between(x, xs) for x in line["x"]], [ys.index(y) + 0.5 for y in line["y"]], color="black", linewidth=1.4,
                   marker="o", markersize=2.6)  # fmt: skip
    place.grid(False)
    place.set_xlabel(with_unit(axis_name(axes[0]), scales[0][1]))
    name_y(place, with_unit(axis_name(axes[1]), scales[1][1]))
    if title:
        place.set_title(title)
    handles: list[Any] = [
        Patch(facecolor=pale(COLOURS[index]), edgecolor="white", hatch=HATCHES[index] if index else "")
        for index in range(len(winners))
    ]
    names = [f"{short(winner)} is better" for winner in winners]
    if (rows["winner"] == "level").any():
        handles, names = [*handles, Patch(facecolor="#eeeeee")], [*names, "level"]
    if len(line) and all(isinstance(value, int | float) for value in xs):
        from matplotlib.lines import Line2D

        handles, names = [*handles, Line2D([], [], color="black", marker="o", markersize=2.6)], [*names, "break-even"]
    figure.legend(handles, names, loc="outside upper center", ncols=3)
    metric = named(str(rows["metric"].iloc[0]))[0]
    text = f"Which arm has the better {metric} over {axes[0]} and {axes[1]}, with its relative gain over the next"
    broken = "; the line is the break-even" if len(line) else ""
    return Drawn(figure, rows, f"{text}{broken}. {caption}".strip(), spots)


def pale(colour: str) -> str:
    parts = [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
    return "#" + "".join(f"{round(255 - PALE * (255 - part)):02x}" for part in parts)


def _between(x: float, marks: Sequence[float]) -> float:
    """Place of a value among columns one apart, in the middle of a column at its mark; logarithmic where that is possible."""
    values = np.array(marks, dtype=float)
    if values.min() > 0 and x > 0:
        return float(np.interp(np.log(x), np.log(values), np.arange(len(values)))) + 0.5
    return float(np.interp(x, values, np.arange(len(values)))) + 0.5


def front_of(table: pd.DataFrame, x: str, y: str, x_is_cost: bool = True, y_is_cost: bool = False) -> pd.Series:
    """True for the designs that no other one beats in both."""
    a = table[x].to_numpy(dtype=float) * (1 if x_is_cost else -1)
    b = table[y].to_numpy(dtype=float) * (1 if y_is_cost else -1)
    beaten = (a[None, :] <= a[:, None]) & (b[None, :] <= b[:, None]) & ((a[None, :] < a[:, None]) | (b[None, :] < b[:, None]))
    return pd.Series(~beaten.any(axis=1) & np.isfinite(a) & np.isfinite(b), index=table.index)


def pareto(rows: pd.DataFrame, metrics: tuple[str, str], caption: str = "") -> Drawn:
    """Designs over two objectives, and the steps of the front. `rows`: label, arm, x, y, on_front."""
    figure, (place,) = blank(COLUMN, 2.2)
    (x_name, x_unit), (y_name, y_unit) = (named(metric) for metric in metrics)
    (x_size, x_unit), (y_size, y_unit) = scale(rows["x"].tolist(), x_unit), scale(rows["y"].tolist(), y_unit)
    spots = []
    for index, (arm, mine) in enumerate(rows.groupby("arm", sort=False)):
        x, y = mine["x"] / x_size, mine["y"] / y_size
        place.scatter(x, y, s=14, linewidths=0.4, edgecolors="white", label=short(arm), **point(index))
        spots += [
            Spot(place, row.x / x_size, row.y / y_size, f"{row.label}: {number(row.x / x_size)} {x_unit}, "
                 f"{number(row.y / y_size)} {y_unit}{', on the front' if row.on_front else ''}")
            for row in each(mine)
        ]  # fmt: skip
    best = rows[rows["on_front"]].sort_values(["x", "y"])
    ring: dict[str, Any] = {"marker": "o", "markersize": 7, "markerfacecolor": "none", "markeredgewidth": 0.6}
    place.plot(best["x"] / x_size, best["y"] / y_size, color="black", linewidth=0.8, zorder=0, label="front", **ring)
    for axis, values in ((place.xaxis, rows["x"] / x_size), (place.yaxis, rows["y"] / y_size)):
        if values.min() > 0 and values.max() > 10 * values.min():
            (place.set_xscale if axis is place.xaxis else place.set_yscale)("log")
            log_axis(axis, values.min(), values.max())
    place.set_xlabel(with_unit(x_name, x_unit))
    name_y(place, with_unit(y_name, y_unit))
    figure.legend(*place.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    text = f"Designs by {x_name} and {y_name}; the line joins those that no other beats in both."
    return Drawn(figure, rows, f"{text} {caption}".strip(), spots)
