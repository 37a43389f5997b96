"""Published systems side by side: throughput, time per token and cost of each, as bars with one order.

systems   a row per system: system, a column per metric; means over the other axes, arms and replications
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from analysis.figures.quantities import each, named, with_unit
from analysis.figures.results import Sweep
from analysis.figures.style import PAGE, Drawn, Spot, area, blank, number, scale, short

SYSTEM = "kv.system"
METRICS = ("throughput.output_tokens_per_s", "latency.tpot_s.mean", "cost.usd_per_million_output_tokens")
BASELINE = "none"


def rows(sweep: Sweep) -> pd.DataFrame:
    """Systems that ran, the baseline first, then as the study names them. Empty if the study compares none."""
    arms: dict[str, Any] = sweep.study.get("arms") or {}
    own = {str(name): values[SYSTEM] for name, values in arms.items() if isinstance(values, dict) and SYSTEM in values}
    if not own and SYSTEM not in sweep.axes:
        return pd.DataFrame()
    table = sweep.table.copy()
    named_by_axis = table[SYSTEM] if SYSTEM in sweep.axes else pd.Series(BASELINE, index=table.index)
    table["system"] = [own.get(str(arm), system) for arm, system in zip(table["arm"], named_by_axis)]
    found = table.groupby("system", sort=False)[list(METRICS)].mean().reset_index()
    first = found["system"] == BASELINE
    return pd.concat([found[first], found[~first]], ignore_index=True)


def systems(found: pd.DataFrame, caption: str) -> Drawn:
    """Three panels, a bar a system in each; the baseline has another look, and a line in every panel."""
    figure, places = blank(PAGE, 0.9 + 0.2 * len(found), columns=len(METRICS), sharey=True)
    spots = []
    for place, metric in zip(places, METRICS):
        name, unit = named(metric)
        size, unit = scale(found[metric].tolist(), unit)
        for at, row in enumerate(each(found.assign(value=found[metric] / size))):
            place.barh(at, row.value, height=0.62, **area(5 if row.system == BASELINE else 0))
            said, offset = number(row.value), "offset points"
            ground = {"facecolor": "white", "edgecolor": "none", "pad": 0.4}  # over the line of the baseline
            look: dict[str, Any] = {"xytext": (3, 0), "textcoords": offset, "va": "center", "fontsize": 6, "color": "#111111"}
            place.annotate(said, (row.value, at), bbox=ground, **look)
            spots.append(Spot(place, row.value / 2, at, f"{row.system}: {number(row.value)} {unit}"))
        baseline = found[found["system"] == BASELINE][metric] / size
        if len(baseline):
            place.axvline(float(baseline.iloc[0]), color="black", linewidth=0.8, linestyle=(0, (2, 1)), zorder=1.5)
        place.set_xlabel(with_unit(name, unit))
        place.margins(x=0.2)
        place.grid(False, axis="y")
    places[0].set_yticks(range(len(found)), [short(system) for system in found["system"]])
    places[0].invert_yaxis()
    text = "Published systems on one workload and hardware; the dashed line is the baseline, everything in HBM."
    return Drawn(figure, found, f"{text} {caption}".strip(), spots)
