"""What a person reads of a study: a table of points, sentences, maps, differences. The same rows go out with --json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isnan
from typing import Any

from simulator.experiments.render import seconds, table
from simulator.experiments.studies.fields import scenario_field
from simulator.experiments.studies.search import SearchResult
from simulator.experiments.studies.statistics import t_interval
from simulator.experiments.studies.sweep import SweepResult
from simulator.experiments.studies.view import said, three

Row = dict[str, Any]
MOST_ROWS = 40


def sweep_rows(result: SweepResult) -> list[Row]:
    """A row per point: its axes (SI), and each metric as {mean, low, high}."""
    study, found = result.study, []
    by_point: dict[str, list[Row]] = {}
    for row in result.rows:
        by_point.setdefault(row["point_id"], []).append(row)
    for point in result.points:
        mine = by_point.get(point.id, [])
        good = [row for row in mine if row["status"] == "finished"]
        measured: Row = {}
        for metric in study.file.metrics:
            column = metric if metric not in point.si else f"measured.{metric}"
            each = t_interval([row[column] if row[column] is not None else float("nan") for row in good if column in row])
            measured[metric] = {"mean": each.value, "low": each.low, "high": each.high}
        error = next((row["error"] for row in mine if row["error"]), None)
        found.append(
            {"point_id": point.id, "arm": point.arm, **point.si, "replications": len(good), "error": error, **measured}
        )
    return found


def sweep_text(result: SweepResult) -> str:
    """The table, the maps and the sentences."""
    study, rows = result.study, sweep_rows(result)
    short = [_short(row, study.axes, study.file.metrics, len(study.arms) > 1) for row in rows[:MOST_ROWS]]
    parts = [table(short)]
    if len(rows) > MOST_ROWS:
        parts.append(f"... {len(rows) - MOST_ROWS} more points\n")
    errors = [row for row in rows if row["error"]]
    parts += [f"failed: {row['point_id']}: {row['error']}\n" for row in errors[:5]]
    if len(errors) > 5:
        parts.append(f"failed: {len(errors) - 5} more points, see the column `error`\n")
    asked = study.file.analyses.regime_map
    if asked is not None:
        parts.append(map_text(result.insight["analyses"]["regime_map"], asked.x, asked.y, list(study.arms)))
    sentences = result.insight.get("sentences", [])
    if sentences:
        parts.append("\n" + "".join(f"{sentence}\n" for sentence in sentences))
    parts.append(f"\n{len(rows)} points, {result.simulated} new runs; results in {result.folder}\n")
    return "".join(parts)


def _short(row: Row, axes: Mapping[str, Any], metrics: Sequence[str], arms: bool) -> Row:
    shown: Row = {"arm": row["arm"]} if arms else {}
    shown |= {path: said(scenario_field(path), row[path]) for path in axes}
    for metric in metrics:
        shown[metric] = "failed" if row["error"] and not row["replications"] else with_interval(**row[metric])
    return shown


def with_interval(mean: float, low: float, high: float) -> str:
    """`123 ±4`; the half-width to two digits."""
    if isnan(mean):
        return "-"
    half = (high - low) / 2
    return three(mean) if isnan(half) or half == 0 else f"{three(mean)} ±{float(f'{half:.2g}'):.10g}"


def map_text(rows: Sequence[Row], x: str, y: str, arms: Sequence[str]) -> str:
    """A regime map as letters: a capital where the best arm is significantly best (or there is one replication)."""
    letters = {arm: chr(ord("a") + at % 26) for at, arm in enumerate(arms)} | {"level": "=", None: "-"}
    own = ("metric", "x", "y", "winner", "value", "runner_up", "runner_up_value", "gain", "low", "high", "n", "significant")
    others = [key for key in (rows[0] if rows else {}) if key not in own]
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in others), []).append(row)
    field_x, field_y = scenario_field(x), scenario_field(y)
    text = "\n" + ", ".join(f"{letter.upper()} {arm}" for arm, letter in letters.items() if arm in arms) + "\n"
    for values, group in groups.items():
        at = {(row["x"], row["y"]): row for row in group}
        xs, ys = (list(dict.fromkeys(key[side] for key in at)) for side in (0, 1))
        title = "".join(f", {path} = {said(scenario_field(path), value)}" for path, value in zip(others, values))
        text += f"{y} down, {x} across{title}\n"
        lines = []
        for each in ys:
            line: Row = {"": said(field_y, each)}
            for column in xs:
                cell = at.get((column, each))
                letter = letters.get(cell["winner"], "-") if cell else " "
                sure = cell is not None and (cell["significant"] or cell["n"] < 2)
                line[said(field_x, column)] = letter.upper() if sure else letter
            lines.append(line)
        text += table(lines)
    return text


def estimate_text(found: Mapping[str, Any]) -> str:
    """What a dry run says."""
    each = f"{found['points']} points, {found['replications']} replication{'s' if found['replications'] != 1 else ''} each"
    refused = f"; {found['refused']} of them are no valid scenario" if found["refused"] else ""
    more = "at least " if found["at_least"] else ""
    runs = f"{more}{found['runs']} different runs of about {seconds(found['seconds_per_run'])}"
    workers = f"{found['workers']} process{'es' if found['workers'] != 1 else ''}"
    return f"{each}{refused}: {runs}, {more}{seconds(found['seconds'])} on {workers}\n"


def search_text(result: SearchResult) -> str:
    axes = result.study.axes
    rows = [
        {key: _value(key, value) if key in axes else _cell(value) for key, value in row.items() if value is not None}
        for row in result.rows[:MOST_ROWS]
    ]
    keys = list(dict.fromkeys(key for row in rows for key in row))
    text = table([{key: row.get(key, "-") for key in keys} for row in rows]) + "\n"
    text += "".join(f"{sentence}\n" for sentence in result.sentences)
    return text + f"\n{result.simulated} new runs; results in {result.folder}, designs in {result.folder / 'points'}\n"


def compare_text(rows: Sequence[Row]) -> str:
    shown = []
    own = ("metric", "baseline", "run", "baseline_value", "value", "difference", "low", "high", "relative_pct", "significant")
    for row in rows:
        others = {
            key: _value(key, value) for key, value in row.items() if key not in (*own, "n", "method", "value_low", "value_high")
        }
        verdict = {True: "", False: "not significant", None: row["method"]}[row["significant"]]
        interval = f"{_cell(row['low'])} to {_cell(row['high'])}" if row["significant"] is not None else "-"
        relative = "-" if isnan(row["relative_pct"]) else f"{row['relative_pct']:+.3g} %"
        shown.append(
            {"run": row["run"], **others, "metric": row["metric"], "baseline": _cell(row["baseline_value"])}
            | {
                "value": _cell(row["value"]),
                "difference": _cell(row["difference"]),
                "95 % interval": interval,
                "": relative,
                " ": verdict,
            }
        )
    return f"baseline: {rows[0]['baseline']}\n" + table(shown) if rows else ""


def _value(path: str, value: Any) -> str:
    """Of an axis (SI), as people write it."""
    return str(value) if path == "arm" else said(scenario_field(path), value)


def _cell(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return "-" if isnan(value) else three(value)
