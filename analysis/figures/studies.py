"""Figures of a sweep: along its axes, arms against the first, and what its analyses and searches found."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from analysis.figures import bars, latency, maps, systems
from analysis.figures.quantities import axis_name, axis_unit, each, intervals, with_unit
from analysis.figures.results import Sweep
from analysis.figures.style import PAGE, Drawn, blank, number

METRICS = ("throughput.output_tokens_per_s", "latency.tpot_s.mean")  # where the study names none
SERIES = 8  # lines in a panel
PANELS = 4  # metrics that are drawn
BARS = 12
LOADS = ("rate", "rate_scale")  # endings of an axis that is the offered load
COST, GAIN = "cost.usd_per_million_output_tokens", "throughput.output_tokens_per_s"
QUALITY = {
    "prefetch.coverage": "coverage", "prefetch.accuracy": "accuracy", "prefetch.timeliness": "timeliness", "waste": "wasted",
}  # fmt: skip


def figures(sweep: Sweep) -> dict[str, Drawn]:
    """Name -> figure, in reading order."""
    drawn: dict[str, Drawn] = {}
    if not len(sweep.table):
        return drawn
    axis, load = main_axis(sweep), _load_axis(sweep)
    compared = systems.rows(sweep)
    if len(compared):
        drawn["systems"] = systems.systems(compared, caption_of(sweep))
    drawn |= dict(_regime_maps(sweep))
    if load:
        drawn |= dict(_loads(sweep, load))
    if axis and axis != load:
        for metric in _metrics(sweep):
            drawn[f"axis_{_slug(metric)}"] = _along(sweep, axis, metric)
        if "prefetch.depth" in (axis, *sweep.axes):
            found = _prefetch(sweep, "prefetch.depth")
            drawn |= {"prefetch": found} if found else {}
    drawn |= dict(_speedups(sweep)) | dict(_tornados(sweep)) | dict(_fronts(sweep)) | dict(_stacks(sweep))
    return drawn


def caption_of(sweep: Sweep) -> str:
    seeds = sweep.table["seed"].dropna().unique()
    text = f"Study '{sweep.name}', {sweep.table['point_id'].nunique()} points"
    said = ", ".join(str(int(seed)) for seed in sorted(seeds)[:5]) + (", ..." if len(seeds) > 5 else "")
    intervals_said = "95 % t-intervals over them" if sweep.replications > 1 else "so no intervals"
    return f"{text}, {sweep.replications} replication{'s' * (sweep.replications != 1)} (seeds {said}), {intervals_said}."


def main_axis(sweep: Sweep) -> str | None:
    """The axis of the study's trend or break-even, else the numeric one with the most values."""
    analyses = sweep.study.get("analyses") or {}
    for name in ("trend", "break_even"):
        asked = (analyses.get(name) or {}).get("axis") if isinstance(analyses.get(name), dict) else None
        if asked in sweep.axes and _numeric(sweep, asked):
            return str(asked)
    numeric = [axis for axis in sweep.axes if _numeric(sweep, axis) and sweep.table[axis].nunique() > 1]
    return max(numeric, key=lambda axis: sweep.table[axis].nunique()) if numeric else None


def _numeric(sweep: Sweep, axis: str) -> bool:
    return bool(pd.api.types.is_numeric_dtype(sweep.table[axis]))


def _load_axis(sweep: Sweep) -> str | None:
    for axis in sweep.axes:
        if axis.startswith("workload.") and axis.rpartition(".")[2] in LOADS and _numeric(sweep, axis):
            return axis
    return None


def _metrics(sweep: Sweep) -> list[str]:
    asked = [metric for metric in sweep.study.get("metrics") or METRICS if sweep.column(metric) in sweep.table]
    return [metric for metric in asked if sweep.table[sweep.column(metric)].notna().any()][:PANELS]


def series_of(sweep: Sweep, axis: str) -> tuple[pd.DataFrame, str]:
    """The rows with a column `series`: the arm and the values of the other axes. Where that makes too many lines, axes are
    held at their middle value one by one; the text says so."""
    table, held = sweep.table, []
    others = [each for each in sweep.axes if each != axis and table[each].nunique() > 1]
    while others and len(table[["arm", *others]].drop_duplicates()) > SERIES:
        fixed = others.pop()
        values = sorted(table[fixed].dropna().unique(), key=lambda value: (isinstance(value, str), value))
        middle = values[len(values) // 2]
        table = table[table[fixed] == middle]
        held.append(f"{fixed} = {_value(sweep, fixed, middle)}")
    several = table["arm"].nunique() > 1
    names = [
        ", ".join([*([str(row.arm)] if several or not others else []), *_points(sweep, others, row)])
        for row in each(table[["arm", *others]])
    ]
    note = f"Held: {', '.join(held)}." if held else ""
    return table.assign(series=names), note


def _points(sweep: Sweep, others: list[str], row: Any) -> list[str]:
    return [f"{axis.rpartition('.')[2]} {_value(sweep, axis, value)}" for axis, value in zip(others, row[1:])]


def _value(sweep: Sweep, axis: str, value: Any) -> str:
    if isinstance(value, str):
        return _brief(value)
    size, unit = axis_unit(sweep.study, axis, sweep.table[axis])
    return f"{number(value / size)} {unit}".strip()


def _brief(text: str) -> str:
    """A block of a scenario as its values: '{kind: budget, tokens: 256 tokens}' is 'budget 256 tokens'."""
    inner = re.fullmatch(r"\{(.*)\}", text.strip())
    return " ".join(part.partition(":")[2].strip() or part for part in inner[1].split(",")) if inner else text


def _along(sweep: Sweep, axis: str, metric: str) -> Drawn:
    table, note = series_of(sweep, axis)
    rows = intervals(table, ["arm", "series", axis], sweep.column(metric)).rename(columns={axis: "x"})
    rows = _alike(rows, sweep.arms)
    scale = axis_unit(sweep.study, axis, sweep.table[axis])
    return bars.along_axis(rows, axis, scale, metric, f"{caption_of(sweep)} {note}".strip())


def _alike(rows: pd.DataFrame, arms: list[str]) -> pd.DataFrame:
    """Arms in their order; the series of an arm that are all the same are one, named after the arm."""
    found: list[pd.DataFrame] = []
    shown = ["x", "mean", "low", "high"]
    for arm in sorted(dict.fromkeys(rows["arm"]), key=lambda name: arms.index(str(name))):
        mine = rows[rows["arm"] == arm]
        curves = [group.sort_values("x")[shown].to_numpy() for _, group in mine.groupby("series", sort=False)]
        if len(curves) > 1 and all(np.array_equal(curve, curves[0], equal_nan=True) for curve in curves):
            mine = mine[mine["series"] == mine["series"].iloc[0]].assign(series=str(arm))
        found.append(mine)
    whole: pd.DataFrame = pd.concat(found, ignore_index=True)
    return whole


def _prefetch(sweep: Sweep, axis: str) -> Drawn | None:
    """Coverage, accuracy, timeliness, wasted share along the depth, a panel each."""
    table, note = series_of(sweep, axis)
    useless = 1.0 - table[sweep.column("prefetch.accuracy")]
    table = table.assign(waste=useless)
    found = []
    for metric, title in QUALITY.items():
        column = metric if metric == "waste" else sweep.column(metric)
        if column in table and table[column].notna().any():
            rows = intervals(table, ["series", axis], column).rename(columns={axis: "x"}).assign(quality=title)
            found.append((title, rows))
    if not found:
        return None
    several = table["series"].nunique() > 1
    lines = -(-table["series"].nunique() // 4) if several else 0
    figure, axes = blank(PAGE, 1.6 + 0.13 * lines, 1, len(found), sharey=True)
    size, unit = axis_unit(sweep.study, axis, sweep.table[axis])
    spots = []
    for place, (title, rows) in zip(axes, found):
        spots += bars.axis_lines(place, rows, size, 1.0, "")
        place.set_title(title)
        place.set_ylim(0, 1.03)
        place.set_xlabel(with_unit(axis_name(axis), unit))
    axes[0].set_ylabel("share of pages")
    if several:
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    said = (
        "Prefetch quality: far pages prefetched before they were asked for (coverage), of those prefetched the used ones "
        "(accuracy) and the never used ones (wasted), and of those used the ones complete in time (timeliness)."
    )
    table_of = pd.concat([rows for _, rows in found], ignore_index=True)
    return Drawn(figure, table_of, f"{said} {caption_of(sweep)} {note}".strip(), spots)


def _loads(sweep: Sweep, axis: str) -> Iterator[tuple[str, Drawn]]:
    table, note = series_of(sweep, axis)
    if not table[sweep.column(GAIN)].notna().any():
        return
    speed = intervals(table, ["series", axis], sweep.column(GAIN))
    for column, percentile in (("ttft_s", "p95"), ("tpot_s", "p95")):
        found = intervals(table, ["series", axis], sweep.column(f"latency.{column}.{percentile}"))
        rows = pd.DataFrame(
            {
                "arm": speed["series"], "load": speed[axis], "throughput": speed["mean"], "throughput_low": speed["low"],
                "throughput_high": speed["high"], "seconds": found["mean"], "seconds_low": found["low"],
                "seconds_high": found["high"], "n": found["n"],
            }
        ).dropna(subset=["throughput", "seconds"])  # fmt: skip
        if len(rows):
            text = f"{caption_of(sweep)} {note}".strip()
            yield f"load_{column[:-2]}", latency.throughput_latency(rows, column, percentile, sweep.limits.get(column), text)


def _speedups(sweep: Sweep) -> Iterator[tuple[str, Drawn]]:
    if len(sweep.arms) < 2:
        return
    for metric in _metrics(sweep)[:1]:
        lower = lower_is_better(metric)
        rows = bars.speedup_rows(sweep.table, sweep.arms, sweep.axes, sweep.column(metric), lower)
        if len(rows) and rows["ratio"].notna().all():
            said = "Baseline over arm, as lower is better." if lower else ""
            yield "speedup", bars.speedup(rows, metric, f"{said} {caption_of(sweep)}".strip())


def lower_is_better(metric: str) -> bool:
    return metric.startswith(("latency.", "cost.", "energy.", "stall.", "kv_access."))


def _tornados(sweep: Sweep) -> Iterator[tuple[str, Drawn]]:
    rows = pd.DataFrame(sweep.insight.get("analyses", {}).get("tornado") or [])
    if not len(rows):
        return
    asked = ((sweep.study.get("analyses") or {}).get("tornado") or {}).get("parameters") or {}
    ends = {path: f"{low} to {high}" for path, (low, high) in asked.items()}
    rows = rows.assign(range=[ends.get(path, "") for path in rows["parameter"]])
    several = len(rows[["arm", "metric"]].drop_duplicates()) > 1
    for (arm, metric), mine in rows.groupby(["arm", "metric"], sort=False):
        if mine["swing"].notna().any():
            yield "tornado" + (f"_{_slug(f'{arm} {metric}')}" if several else ""), bars.tornado(mine, caption_of(sweep))


def _regime_maps(sweep: Sweep) -> Iterator[tuple[str, Drawn]]:
    """One map for each combination of the axes that it does not look along."""
    analyses = sweep.insight.get("analyses", {})
    rows, asked = pd.DataFrame(analyses.get("regime_map") or []), (sweep.study.get("analyses") or {}).get("regime_map") or {}
    if not len(rows) or "x" not in asked:
        return
    x, y = asked["x"], asked["y"]
    even = pd.DataFrame(analyses.get("break_even") or [])
    others = [axis for axis in sweep.axes if axis in rows and axis not in (x, y)]
    groups = list(rows.groupby(others, sort=False)) if others else [((), rows)]
    scales = [axis_unit(sweep.study, axis, sweep.table[axis]) if _numeric(sweep, axis) else (1.0, "") for axis in (x, y)]
    for at, (key, mine) in enumerate(groups):
        values = dict(zip(others, key))
        line = pd.DataFrame({"x": [], "y": []})
        if len(even) and "value" in even and (even["axis"] == x).all() and y in even:
            same = even
            for axis, value in values.items():
                same = same[same[axis] == value] if axis in same else same
            same = same[same["value"].notna()].sort_values(y)
            line = pd.DataFrame({"x": same["value"].astype(float), "y": same[y]})
        title = ", ".join(f"{axis_name(axis)}: {_value(sweep, axis, value)}" for axis, value in values.items())
        name = "regime_map" if len(groups) == 1 else f"regime_map_{at + 1}"
        yield name, maps.regime_map(mine, line, (x, y), scales, title, caption_of(sweep))


def _fronts(sweep: Sweep) -> Iterator[tuple[str, Drawn]]:
    """Cost and throughput of all points; for a search, its own first two objectives."""
    if sweep.search.get("search") == "front":
        asked = ((sweep.study.get("search") or {}).get("front") or {}).get("objectives") or {}
        rows, names = pd.DataFrame(sweep.search.get("rows") or []), list(asked)[:2]
        if len(rows) and len(names) == 2 and all(name in rows for name in names):
            drawn = rows.assign(label=rows["point_id"], x=rows[names[0]], y=rows[names[1]])
            yield "pareto", maps.pareto(drawn[["label", "arm", "x", "y", "on_front"]], (names[0], names[1]), caption_of(sweep))
        return
    if not {COST, GAIN} <= set(sweep.table.columns) or sweep.table["point_id"].nunique() < 3:
        return
    means = sweep.table.groupby(["point_id", "arm"], sort=False)[[COST, GAIN]].mean().dropna().reset_index()
    if len(means) >= 3:
        means["on_front"] = maps.front_of(means, COST, GAIN)
        drawn = means.rename(columns={"point_id": "label", COST: "x", GAIN: "y"})
        yield "pareto", maps.pareto(drawn, (COST, GAIN), caption_of(sweep))


def _stacks(sweep: Sweep) -> Iterator[tuple[str, Drawn]]:
    """Attribution and cost of each arm at each point, or means over the points where those are many."""
    table, several = sweep.table, len(sweep.arms) > 1
    few = len(table[["arm", *sweep.axes]].drop_duplicates()) <= BARS
    axes = [axis for axis in sweep.axes if table[axis].nunique() > 1]
    names = [
        ", ".join([*([str(row[0])] if several or not (few and axes) else []), *(_points(sweep, axes, row) if few else [])])
        for row in each(table[["arm", *axes]])
    ]
    table = table.assign(label=names)
    note = caption_of(sweep) + ("" if few else " Means over all points of an arm.")
    parts = {name: name.removeprefix("stall.").removesuffix("_s") for name in table.columns if name.startswith("stall.")}
    means = table.groupby("label", sort=False)[list(parts)].mean().dropna()  # arms of which nothing finished have none
    rows = [(label, "e2e", parts[name], row[name]) for label, row in means.iterrows() for name in parts]
    stacked = pd.DataFrame(rows, columns=["run", "span", "part", "mean_s"])
    if stacked["mean_s"].sum() > 0:
        yield "attribution", latency.attribution(stacked, note)
    money = [name for name in table.columns if name.startswith("cost.") and name.endswith("_per_hour")] + [COST]
    if COST in table and table[COST].notna().any():
        hourly = table.groupby("label", sort=False)[money].mean().dropna(subset=[COST])
        costs = [
            one
            for label, row in hourly.iterrows()
            for one in bars.cost_rows(str(label), {name.removeprefix("cost."): row[name] for name in money})
        ]
        yield "cost", bars.cost_breakdown(pd.DataFrame(costs), note)


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")[:60]
