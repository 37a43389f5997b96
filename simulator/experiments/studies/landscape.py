"""Along one axis (trend) and over two (regime map), from the points of the study alone.

trend       a row per arm and value:  x (SI or text), mean, low, high, n, best, within (of the best)
regime map  a row per pair of values: x, y, winner (`level`: within 0.1 %), value, runner_up, runner_up_value,
            gain (relative), low, high (of the paired difference), n, significant
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from math import isnan, nan
from typing import Any

from simulator.experiments.studies.points import Point
from simulator.experiments.studies.schema import RegimeMap, Trend
from simulator.experiments.studies.statistics import Interval, paired, t_interval
from simulator.experiments.studies.view import LEVEL, Found, Row, View, said, three


def trend(view: View, asked: Trend) -> Found:
    rows: list[Row] = []
    sentences = []
    for others, points in view.groups(asked.axis):
        for arm in view.arms:
            mine = [point for point in points if point.arm == arm]
            series = [(point.si[asked.axis], t_interval(view.values(point, asked.metric))) for point in mine]
            known = [(x, found) for x, found in series if not isnan(found.value)]
            if not known:
                continue
            pick = max if asked.better == "higher" else min
            best = pick(known, key=lambda pair: pair[1].value)[1].value
            margin = asked.within * abs(best)
            for x, found in series:
                good = abs(found.value - best) <= margin
                rows.append(
                    {"arm": arm, "metric": asked.metric, **others, "x": x, "mean": found.value}
                    | {"low": found.low, "high": found.high, "n": found.n, "best": found.value == best, "within": good}
                )
            sentences.append(_along(view, asked, arm, others, known, best))
    return rows, sentences


def _along(
    view: View, asked: Trend, arm: str, others: Mapping[str, float | str], known: Sequence[tuple[Any, Interval]], best: float
) -> str:
    field = view.study.axes[asked.axis].field
    (first, at_first), (last, at_last) = known[0], known[-1]
    margin = asked.within * abs(best)
    good = [x for x, found in known if abs(found.value - best) <= margin]
    where = f" ({view.written(others)})" if others else ""
    ends = f"{three(at_first.value)} at {said(field, first)} and {three(at_last.value)} at {said(field, last)} of {asked.axis}"
    reach = f"from {said(field, good[0])} to {said(field, good[-1])}"
    if len(good) == len(known):
        reach = "all along"
    elif len(good) == 1:
        reach = f"only at {said(field, good[0])}"
    near = f"within {100 * asked.within:.3g} % of its best, {three(best)}"
    return f"{asked.metric}{view.of(arm)} is {ends}{where}; {near}, {reach}."


def regime_map(view: View, asked: RegimeMap) -> Found:
    rows: list[Row] = []
    sentences = []
    for others, points in view.groups(asked.x, asked.y):
        cells: dict[tuple[Any, Any], list[Point]] = {}
        for point in points:
            cells.setdefault((point.si[asked.x], point.si[asked.y]), []).append(point)
        group = [
            {"metric": asked.metric, **others, "x": x, "y": y, **_cell(view, asked, contenders)}
            for (x, y), contenders in cells.items()
        ]
        rows += group
        sentences.append(_summary(view, asked, others, group))
    return rows, sentences


def _cell(view: View, asked: RegimeMap, contenders: Sequence[Point]) -> Row:
    """The best arm of one pair of values and the next best."""
    values = {point.arm: view.values(point, asked.metric) for point in contenders}
    means = {arm: t_interval(each).value for arm, each in values.items()}
    known = [arm for arm in means if not isnan(means[arm])]
    ranked = sorted(known, key=lambda arm: means[arm], reverse=asked.better == "higher")
    if not ranked:
        return {"winner": None, "value": None, "runner_up": None, "runner_up_value": None, "gain": None} | {
            "low": None, "high": None, "n": 0, "significant": False,
        }  # fmt: skip
    first, second = ranked[0], ranked[1] if len(ranked) > 1 else None
    if second is None:
        return {"winner": first, "value": means[first], "runner_up": None, "runner_up_value": None, "gain": None} | {
            "low": None, "high": None, "n": len(values[first]), "significant": False,
        }  # fmt: skip
    count = min(len(values[first]), len(values[second]))
    found = paired(values[first][:count], values[second][:count])
    level = abs(means[first] - means[second]) <= LEVEL * abs(means[second])
    return {
        "winner": "level" if level else first,
        "value": means[first],
        "runner_up": second,
        "runner_up_value": means[second],
        "gain": abs(means[first] - means[second]) / abs(means[second]) if means[second] else nan,
        "low": found.low,
        "high": found.high,
        "n": found.n,
        "significant": found.significant,
    }


def _summary(view: View, asked: RegimeMap, others: Mapping[str, float | str], group: Sequence[Row]) -> str:
    won = Counter(str(row["winner"]) for row in group)
    where = f" ({view.written(others)})" if others else ""
    unsure = sum(not row["significant"] and row["n"] > 1 and row["winner"] != "level" for row in group)
    shares = ", ".join(f"'{arm}' at {count}" for arm, count in sorted(won.items(), key=lambda item: (-item[1], item[0])))
    also = f", {unsure} of them not significant" if unsure else ""
    return f"Best in {asked.metric} of {len(group)} pairs of {asked.x} and {asked.y}{where}: {shares}{also}."
