"""Designs that no other one beats in every objective: throughput, tail latency, cost, energy.

A finite study of at most `budget` points is tried as a whole. Otherwise Optuna's multi-objective tree-structured Parzen
estimator proposes designs, `BATCH` at a time (always that many, so that the proposals do not depend on the number of
workers); lists are categories, ranges are continuous. Requirements are its constraints.

    point_id, arm, axes, a column per objective (mean over replications), margin (of the requirements), on_front
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from math import isnan
from typing import Any

from simulator.errors import InputError, Problem
from simulator.experiments.studies.axes import Axis
from simulator.experiments.studies.points import Point, wanted
from simulator.experiments.studies.requirements import Requirements
from simulator.experiments.studies.schema import Front
from simulator.experiments.studies.statistics import t_interval
from simulator.experiments.studies.view import Found, Row, View, three

BATCH = 8


def front(view: View, asked: Front, evaluated: list[Point], replications: dict[str, int]) -> Found:
    finite = all(axis.ends is None for axis in view.study.axes.values())
    if finite and len(view.points) <= asked.budget:
        tried = [point for point in view.points if not point.problem]
        view.run(tried, "every design")
    else:
        tried = _proposed(view, asked)
    tried = list({point.id: point for point in tried}.values())
    evaluated += tried
    replications |= dict.fromkeys((point.id for point in tried), view.fewest)
    rows = [row for point in tried if (row := _row(view, asked, point)) is not None]
    for row in rows:
        row["on_front"] = row["margin"] >= 0 and not any(_beats(asked.objectives, other, row) for other in rows)
    best = [row for row in rows if row["on_front"]]
    first, way = next(iter(asked.objectives.items()))
    best.sort(key=lambda row: -row[first] if way == "max" else row[first])
    return best + [row for row in rows if not row["on_front"]], [_sentence(asked, best, len(rows))]


def _row(view: View, asked: Front, point: Point) -> Row | None:
    values = {name: t_interval(view.values(point, name)).value for name in asked.objectives}
    if any(isnan(value) for value in values.values()):
        return None
    return {"point_id": point.id, "arm": point.arm, **point.si, **values, "margin": _margin(view, asked, point)}


def _margin(view: View, asked: Front, point: Point) -> float:
    if not asked.require:
        return 0.0
    return float(Requirements(asked.require).margins(view.runner, point, range(view.fewest)).mean())


def _beats(objectives: Mapping[str, str], one: Row, other: Row) -> bool:
    """`one` meets the requirements, is nowhere worse and somewhere better."""
    gains = [(one[name] - other[name]) * (1 if way == "max" else -1) for name, way in objectives.items()]
    return bool(one["margin"] >= 0 and min(gains) >= 0 and max(gains) > 0)


def _proposed(view: View, asked: Front) -> list[Point]:
    try:
        import optuna
    except ImportError:
        message = "a front over ranges needs the extra `explore` (optuna); install it with: pip install 'speckvsim[explore]'"
        raise InputError(Problem(view.study.name, "search.front", message)) from None
    logging.getLogger("optuna").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.TPESampler(seed=view.study.seed % 2**32, constant_liar=True)
        ways: Any = ["maximize" if way == "max" else "minimize" for way in asked.objectives.values()]
        search = optuna.create_study(directions=ways, sampler=sampler)
        tried: list[Point] = []
        for begin in range(0, asked.budget, BATCH):
            trials = [search.ask() for _ in range(min(BATCH, asked.budget - begin))]
            designs = [_design(view, trial) for trial in trials]
            good = [point for point in designs if point is not None and not point.problem]
            view.run(good, f"designs {begin + 1} to {begin + len(trials)}")
            tried += good
            for trial, point in zip(trials, designs):
                row = _row(view, asked, point) if point is not None and not point.problem else None
                if row is None:
                    search.tell(trial, state=optuna.trial.TrialState.FAIL)
                else:
                    trial.set_constraint("requirements", -row["margin"])
                    search.tell(trial, [row[name] for name in asked.objectives])
    return tried


def _design(view: View, trial: Any) -> Point | None:
    """The point that a trial proposes; None where `when` leaves it out."""
    values = {path: _value(trial, axis) for path, axis in view.study.axes.items()}
    arm = trial.suggest_categorical("arm", view.arms) if len(view.arms) > 1 else view.arms[0]
    point = Point(view.study, arm, values, {})
    return point if wanted(view.study, point) else None


def _value(trial: Any, axis: Axis) -> Any:
    if axis.ends is None:
        return axis.values[trial.suggest_categorical(axis.path, list(range(len(axis.values))))]
    low, high = axis.ends
    if axis.field.whole:
        return axis.field.written(trial.suggest_int(axis.path, int(low), int(high), log=axis.log))
    return axis.field.written(trial.suggest_float(axis.path, low, high, log=axis.log))


def _sentence(asked: Front, best: Sequence[Row], tried: int) -> str:
    names = " and ".join(asked.objectives)
    if not best:
        return f"None of {tried} designs meets {' and '.join(asked.require or ())}."
    spans = ", ".join(
        f"{name} from {three(min(row[name] for row in best))} to {three(max(row[name] for row in best))}"
        for name in asked.objectives
    )
    return f"{len(best)} of {tried} designs are on the front of {names}: {spans}."
