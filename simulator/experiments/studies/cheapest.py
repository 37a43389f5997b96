"""The cheapest design that meets every requirement, among the points of a study.

First every point is run once; those that miss a requirement by more than `HOPELESS` of its limit are out. The others,
cheapest first, get replications (twice as many each time, up to `MOST`) until the 95 % interval of the margin says yes or
no; the first yes is the answer. The rows are all points that were looked at closely, and the verdict on each.

    point_id, arm, axes, cost, low, high (its interval), margin, margin_low, margin_high, n, verdict: meets | misses | unsure
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan

from simulator.experiments.studies.points import Point
from simulator.experiments.studies.requirements import Requirements
from simulator.experiments.studies.schema import Cheapest
from simulator.experiments.studies.statistics import Interval, t_interval
from simulator.experiments.studies.view import Found, Row, View, three

HOPELESS = -0.5
FIRST, MOST = 3, 24


def cheapest(view: View, asked: Cheapest, evaluated: list[Point], replications: dict[str, int]) -> Found:
    runner, requirements = view.runner, Requirements(asked.require)
    tried = [point for point in view.points if not point.problem][: asked.budget]
    runner.run([(point, 0) for point in tried], "all designs once: ")
    evaluated += tried
    replications |= {point.id: 1 for point in tried}
    spent = len(tried)
    known = [point for point in tried if not isnan(runner.values(point, asked.cost, [0])[0])]
    hopeful = [point for point in known if requirements.margins(runner, point, [0])[0] > HOPELESS]
    hopeful.sort(key=lambda point: (float(runner.values(point, asked.cost, [0])[0]), point.id))
    rows: list[Row] = []
    for point in hopeful:
        margin, count = _decided(view, requirements, point, asked.budget - spent)
        spent += count - 1
        replications[point.id] = count
        rows.append(_row(view, asked, point, margin, count))
        if rows[-1]["verdict"] == "meets" or spent >= asked.budget:
            break
    return rows, [_sentence(view, asked, rows, len(tried))]


def _decided(view: View, requirements: Requirements, point: Point, budget: int) -> tuple[Interval, int]:
    """The margin with as many replications as it takes to tell it from 0."""
    count = max(1, min(max(FIRST, view.study.file.replications), budget + 1))
    while True:
        view.runner.run([(point, each) for each in range(count)], "the cheapest ones: ")
        margin = t_interval(requirements.margins(view.runner, point, range(count)))
        if margin.significant or margin.half == 0.0 or 2 * count > min(MOST, budget + 1):
            return margin, count
        count *= 2


def _row(view: View, asked: Cheapest, point: Point, margin: Interval, count: int) -> Row:
    cost = t_interval(view.runner.values(point, asked.cost, range(count)))
    certain = margin.significant or margin.half == 0.0
    verdict = ("meets" if margin.value >= 0 else "misses") if certain else "unsure"
    return {
        "point_id": point.id, "arm": point.arm, **point.si, "cost": cost.value, "low": cost.low, "high": cost.high,
        "margin": margin.value, "margin_low": margin.low, "margin_high": margin.high, "n": margin.n, "verdict": verdict,
    }  # fmt: skip


def _sentence(view: View, asked: Cheapest, rows: Sequence[Row], tried: int) -> str:
    wanted = " and ".join(asked.require)
    if not rows or rows[-1]["verdict"] != "meets":
        return f"None of {tried} designs surely meets {wanted}."
    row = rows[-1]
    point = next(point for point in view.points if point.id == row["point_id"])
    design = ", ".join(filter(None, [f"'{point.arm}'" if view.of(point.arm) else "", view.written(point.si)]))
    return f"The cheapest of {tried} designs that meets {wanted} is {design}: {asked.cost} {three(row['cost'])}."
