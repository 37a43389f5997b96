"""What the report of a sweep or a search shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from analysis.figures import studies
from analysis.figures.quantities import axis_unit, interval, named, with_unit
from analysis.figures.results import Sweep
from analysis.figures.style import number
from analysis.report import findings
from analysis.report.content import Table, cell, dump, empty, table

MOST_ROWS = 2000


def sweep_content(sweep: Sweep) -> dict[str, Any]:
    sentences = [*sweep.insight.get("sentences", []), *sweep.search.get("sentences", [])]
    axes = [axis for axis in sweep.axes if axis in sweep.table]
    asked = dict.fromkeys([*studies.METRICS, *(sweep.study.get("metrics") or [])])
    metrics = [metric for metric in asked if sweep.column(metric) in sweep.table]
    units = {axis: axis_unit(sweep.study, axis, sweep.table[axis]) for axis in axes if sweep.table[axis].dtype.kind in "if"}
    rows = []
    groups = sweep.table.groupby(["arm", *axes], sort=False, dropna=False)
    for values, group in groups:
        key: tuple[Any, ...] = values if isinstance(values, tuple) else (values,)
        cells: list[Any] = [cell(key[0], "")]
        cells += [cell(value / units[axis][0] if axis in units else value, "") for axis, value in zip(axes, key[1:])]
        for metric in metrics:
            mean, low, high, _ = interval(group[sweep.column(metric)])
            cells.append(cell(mean, named(metric)[1], (high - low) / 2))
        rows.append(cells)
    heads = [with_unit(axis, units[axis][1] if axis in units else "") for axis in axes]
    columns = ["arm", *heads, *(with_unit(*named(metric)) for metric in metrics)]
    note = f"The first {MOST_ROWS} of {len(rows)} points." if len(rows) > MOST_ROWS else ""
    first = sorted((sweep.folder / "points").glob("*.yaml"))[:1]
    example = yaml.safe_load(first[0].read_text(encoding="utf-8")) if first else {}
    documents = [{"title": "Study", "text": dump(sweep.study)}]
    documents += [{"title": f"Scenario of point {file.stem}", "text": file.read_text(encoding="utf-8")} for file in first]
    headlines = _best(sweep, metrics[:1])
    return empty(sweep.name, "A sweep" if not sweep.search else "A search") | {
        "sentences": [studies.caption_of(sweep), *_failures(sweep)],
        "findings": sentences,
        "headlines": headlines,
        "bound": _bound(sweep, metrics[0]) if metrics else None,
        "limits": {"warnings": _warnings(sweep), "evidence": [], **findings.calibration(example)},
        "tables": [table("Points", columns, rows[:MOST_ROWS], note), *_insights(sweep)],
        "documents": documents,
        "provenance": [
            {"name": "versions", "value": ", ".join(sorted({str(each) for each in sweep.table.get("provenance.version", [])}))},
            {"name": "seeds", "value": ", ".join(map(str, sorted(sweep.table["seed"].dropna().astype(int).unique())[:20]))},
        ],
    }


def _failures(sweep: Sweep) -> list[str]:
    failed = sweep.everything[sweep.everything["status"] != "finished"]
    if not len(failed):
        return []
    why = [str(error) for error in failed["error"].dropna().unique()]
    more = f" and {len(why) - 3} more reasons" if len(why) > 3 else ""
    return [f"{len(failed)} replications failed: {'; '.join(why[:3])}{more}."]


def _insights(sweep: Sweep) -> list[Table]:
    """What the analyses and searches found, a table each."""
    found = list(sweep.insight.get("analyses", {}).items())
    if sweep.search:
        found.append((str(sweep.search.get("search")), sweep.search.get("rows") or []))
    tables = []
    for name, rows in found:
        columns = list(dict.fromkeys(key for row in rows for key in row))
        if rows:
            cells = [[cell(row.get(column), "") for column in columns] for row in rows[:MOST_ROWS]]
            tables.append(table(name.replace("_", " "), columns, cells))
    return tables


def _best_point(sweep: Sweep, arm: str, metric: str) -> str | None:
    """The point of an arm with the best mean; None where it has none."""
    column = sweep.column(metric)
    mine = sweep.table[(sweep.table["arm"] == arm) & sweep.table[column].notna()]
    if not len(mine):
        return None
    means = mine.groupby("point_id", sort=False)[column].mean()
    return str(means.idxmin() if studies.lower_is_better(metric) else means.idxmax())


def _bound(sweep: Sweep, metric: str) -> dict[str, Any] | None:
    """Of the best point of the first arm."""
    best = _best_point(sweep, sweep.arms[0], metric) if sweep.arms else None
    if best is None:
        return None
    mine = sweep.table[sweep.table["point_id"] == best]
    waits = {name.removeprefix("stall."): float(mine[name].mean()) for name in mine.columns if name.startswith("stall.")}
    return findings.bound(waits, mine["bound_by"].iloc[0], f"the best point of '{sweep.arms[0]}' ({best})")


def _best(sweep: Sweep, metrics: Sequence[str]) -> list[dict[str, str]]:
    """The best point of each arm."""
    found = []
    for metric in metrics:
        column = sweep.column(metric)
        for arm in sweep.arms[:8]:
            best = _best_point(sweep, arm, metric)
            if best is not None:
                mean, low, high, count = interval(sweep.table[sweep.table["point_id"] == best][column])
                spread = f"95 %: {number(low)} to {number(high)}, n = {count}" if count > 1 else "one replication"
                name, unit = named(metric)
                text = f"{'Least' if studies.lower_is_better(metric) else 'Most'} {name}" + (
                    f" of '{arm}'" if len(sweep.arms) > 1 else ""
                )
                found.append({"name": text, "value": f"{number(mean)} {unit}", "note": f"{spread}; point {best}"})
    return found


def _warnings(sweep: Sweep) -> list[str]:
    texts = []
    for text in sweep.table["warnings"].dropna().unique() if "warnings" in sweep.table else []:
        texts += [str(each) for each in yaml.safe_load(str(text)) or []]
    return list(dict.fromkeys(texts))[:20]
