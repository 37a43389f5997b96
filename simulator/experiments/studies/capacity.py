"""Capacity: the largest rate that meets every requirement, for each point and arm of a study.

The rate is doubled (halved) until it is no longer (first) met, then bisected on the mean margin of the requirements.
At each rate there are more replications, twice as many each time, until the 95 % interval of the margin leaves 0 out or
`most` is reached; a margin that cannot be told from 0 is what the capacity looks like. Its interval: `roots`.

    value, low, high   the capacity and its interval        meets, fails   points (files) on both sides of it
    status             found | all met | none met | budget | failed        runs   simulations asked for
"""

from __future__ import annotations

from typing import Any

import numpy as np

from simulator.experiments.studies.fields import Refused, ScenarioField, scenario_field
from simulator.experiments.studies.points import Point
from simulator.experiments.studies.requirements import Requirements
from simulator.experiments.studies.roots import crossing
from simulator.experiments.studies.runner import Runner
from simulator.experiments.studies.schema import Capacity
from simulator.experiments.studies.statistics import Array, t_interval
from simulator.experiments.studies.view import Found, Row, View, said
from simulator.scenario.source import below

DOUBLINGS = 12
FIRST = 3  # replications at a new rate


class _Spent(Exception):
    """The budget is used up."""


class _Rate:
    """The margin of one point of the study as a function of its rate."""

    def __init__(self, view: View, asked: Capacity, point: Point, field: ScenarioField, evaluated: list[Point]):
        self.runner: Runner = view.runner
        self.asked, self.point, self.field, self.evaluated = asked, point, field, evaluated
        self.requirements = Requirements(asked.require)
        self.first = min(asked.most, max(FIRST, view.study.file.replications))
        self.margins: dict[float, Array] = {}
        self.replications: dict[str, int] = {}
        self.error = ""

    def at(self, rate: float) -> Point:
        settings = {**self.point.more, self.field.path: self.field.written(rate, exact=True)}
        return Point(self.point.study, self.point.arm, self.point.values, settings)

    def __call__(self, rate: float) -> Array:
        if rate in self.margins:
            return self.margins[rate]
        point, count = self.at(rate), self.first
        while True:
            if self.runs + count > self.asked.budget:
                raise _Spent
            self.runner.run([(point, each) for each in range(count)], f"rate {said(self.field, rate)}: ")
            self.error = self.error or self.runner.error(point)
            margins = self.requirements.margins(self.runner, point, range(count))
            found = t_interval(margins)
            if self.error or found.significant or found.half == 0.0 or count >= self.asked.most:
                break
            count = min(self.asked.most, 2 * count)
        self.margins[rate], self.replications[point.id] = margins, count
        self.evaluated.append(point)
        return margins

    def met(self, rate: float) -> bool:
        return float(np.mean(self(rate))) >= 0

    @property
    def runs(self) -> int:
        return sum(self.replications.values())


def capacity(view: View, asked: Capacity, evaluated: list[Point], replications: dict[str, int]) -> Found:
    field = scenario_field(asked.rate)
    rows, sentences = [], []
    for point in view.points:
        if point.problem:
            rows.append(_row(point, asked) | {"status": "failed", "error": point.problem})
            continue
        rate = _Rate(view, asked, point, field, evaluated)
        found = _search(rate, asked, point)
        replications |= rate.replications
        rows.append(_row(point, asked) | found | {"runs": rate.runs, "error": rate.error or None})
        sentences.append(_sentence(view, asked, field, point, rows[-1]))
    return rows, sentences


def _row(point: Point, asked: Capacity) -> Row:
    nothing = dict.fromkeys(("value", "low", "high", "n", "meets", "meets_rate", "fails", "fails_rate", "runs"))
    return {"arm": point.arm, **point.si, "rate": asked.rate, "status": "", **nothing, "error": None}


def _search(rate: _Rate, asked: Capacity, point: Point) -> Row:
    field = rate.field
    begin = field.number(asked.low) if asked.low is not None else _at_base(field, point)
    found: Row = {}
    try:
        low, high = _bracket(rate, begin, field.number(asked.high) if asked.high is not None else None)
        if low is None or high is None:
            found["status"] = "none met" if low is None else "all met"
        else:
            root = crossing(rate, low, high, asked.tolerance, logarithmic=True, whole=field.whole)
            found["status"] = "found" if root.found else "failed"
            if root.found:
                found |= {"value": root.found.value, "low": root.found.low, "high": root.found.high, "n": root.found.n}
    except _Spent:
        found["status"] = "budget"
    if rate.error:
        found["status"] = "failed"
    met = [each for each, margins in rate.margins.items() if margins.mean() >= 0]
    missed = [each for each, margins in rate.margins.items() if margins.mean() < 0]
    if met:
        found |= {"meets": rate.at(max(met)).id, "meets_rate": max(met)}
    if missed:
        found |= {"fails": rate.at(min(missed)).id, "fails_rate": min(missed)}
    return found


def _bracket(rate: _Rate, begin: float, high: float | None) -> tuple[float | None, float | None]:
    """(a rate that is met, a rate that is not); None where there is none within reach."""
    low = begin
    steps = 0
    while not rate.met(low):
        high, low, steps = low, low / 2, steps + 1
        if steps > DOUBLINGS or rate.error or (rate.field.whole and low < 1):
            return None, high
    if high is not None:
        return (low, high) if not rate.met(high) else (low, None)
    high = low
    for _ in range(DOUBLINGS):
        low, high = high, 2 * high
        if not rate.met(high):
            return low, high
    return low, None


def _at_base(field: ScenarioField, point: Point) -> float:
    found: Any = point.resolved.document
    for key in field.path.split("."):
        found = below(found, key)
    try:
        return field.number(found)
    except Refused:
        return 1.0


def _sentence(view: View, asked: Capacity, field: ScenarioField, point: Point, row: Row) -> str:
    where = f" ({view.written(point.si)})" if point.si else ""
    whose = f"'{point.arm}'{where}" if view.of(point.arm) else (view.written(point.si) or f"'{view.study.name}'")
    wanted = " and ".join(asked.require)
    if row["status"] == "found":
        interval = f"{said(field, row['low'])} to {said(field, row['high'])}"
        return f"{whose} meets {wanted} up to {said(field, row['value'])} of {asked.rate} ({interval})."
    said_so = {
        "all met": f"meets {wanted} at every rate up to {said(field, row['meets_rate'])}" if row["meets_rate"] else "",
        "none met": f"meets {wanted} at no rate from {said(field, row['fails_rate'])} up" if row["fails_rate"] else "",
        "budget": f"used up its budget of {asked.budget} runs",
    }
    return f"{whose} {said_so.get(row['status'], _failed(row))}."


def _failed(row: Row) -> str:
    return f"failed: {row['error']}" if row["error"] else "failed"
