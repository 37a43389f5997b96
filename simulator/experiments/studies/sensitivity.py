"""How much each parameter matters: elasticities and tornado around the base, Morris and Sobol over ranges.

    elasticity   d ln y / d ln x by a central difference of ln y over ln x, per replication
    tornado      y at the low and at the high end of a parameter, all others at the base; `swing` = the difference
    morris       r trajectories on a grid of p levels, steps of p / (2 (p - 1)): mu, mu*, sigma of the elementary effects,
                 in units of the metric over the whole range; interval of mu* over trajectories
    sobol        first = mean(f_B (f_AB - f_A)) / V, total = mean((f_A - f_AB)^2) / 2V (Saltelli et al. 2010);
                 percentile intervals of 1,000 bootstrap samples

Ranges whose ends are a factor of 10 apart or more are spread on a logarithmic scale. Whole-number fields are rounded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, log, nan
from typing import Any

import numpy as np

from simulator.experiments.studies.axes import unit_points
from simulator.experiments.studies.fields import Refused, ScenarioField, scenario_field
from simulator.experiments.studies.points import Point
from simulator.experiments.studies.schema import Elasticity, Morris, SobolIndices, Tornado
from simulator.experiments.studies.statistics import Array, Interval, paired, t_interval
from simulator.experiments.studies.view import Found, Row, View, three

RESAMPLES = 1000
NAMED = 4  # parameters in a sentence


@dataclass(frozen=True)
class Range:
    """A parameter between two ends."""

    field: ScenarioField
    low: float
    high: float

    def at(self, share: float) -> Any:
        """The value at a share in [0, 1], as a scenario writes it."""
        if self.low > 0 and self.high >= 10 * self.low:
            return self.field.written(exp(log(self.low) + share * log(self.high / self.low)), exact=share in (0.0, 1.0))
        return self.field.written(self.low + share * (self.high - self.low), exact=share in (0.0, 1.0))


def ranges(parameters: Mapping[str, tuple[Any, Any]]) -> dict[str, Range]:
    fields = {path: scenario_field(path) for path in parameters}
    return {path: Range(fields[path], *(fields[path].number(end) for end in ends)) for path, ends in parameters.items()}


def elasticity(view: View, asked: Elasticity) -> Found:
    pairs: dict[tuple[str, str], tuple[Point, Point, float, float] | str] = {}
    for arm in view.arms:
        for path in asked.parameters:
            pairs[arm, path] = _around(view, arm, scenario_field(path), asked.step)
    view.run([point for pair in pairs.values() if not isinstance(pair, str) for point in pair[:2]], "elasticity")
    rows: list[Row] = []
    for (arm, path), pair in pairs.items():
        for metric in asked.metrics:
            row: Row = {"arm": arm, "metric": metric, "parameter": path}
            if isinstance(pair, str):
                rows.append(row | {"at": None, "elasticity": None, "low": None, "high": None, "n": 0, "error": pair})
                continue
            down, up, lower, upper = pair
            found = _log_slope(view.values(down, metric), view.values(up, metric), log(upper / lower))
            error = view.runner.error(down) or view.runner.error(up) or None
            row |= {"at": (lower * upper) ** 0.5, "elasticity": found.value, "low": found.low, "high": found.high}
            rows.append(row | {"n": found.n, "error": error})
    return rows, _sentences(view, rows, "elasticity", "to 1 % more of each parameter (in %)")


def _around(view: View, arm: str, field: ScenarioField, step: float) -> tuple[Point, Point, float, float] | str:
    """The points below and above the base, and the values there; a reason where there are none."""
    try:
        base = view.base_value(arm, field)
    except Refused as refused:
        return str(refused)
    if base <= 0:
        return f"'{field.path}' is {base:g}: no relative change is possible"
    lower, upper = base * (1 - step), base * (1 + step)
    if field.whole:
        lower, upper = min(round(lower), base - 1), max(round(upper), base + 1)
        lower = base if lower < 1 else lower
    texts = [field.written(number, exact=field.whole) for number in (lower, upper)]
    low, high = (field.number(text) for text in texts)  # what the rounding left
    down, up = (view.at(arm, {field.path: text}) for text in texts)
    return down.problem or up.problem or (down, up, low, high)


def _log_slope(down: Array, up: Array, width: float) -> Interval:
    with np.errstate(divide="ignore", invalid="ignore"):
        slopes = (np.log(up) - np.log(down)) / width
    return t_interval(np.where(np.isfinite(slopes), slopes, nan))


def tornado(view: View, asked: Tornado) -> Found:
    spread = ranges(asked.parameters)
    ends = {
        (arm, path): (view.at(arm, {path: each.at(0.0)}), view.at(arm, {path: each.at(1.0)}))
        for arm in view.arms
        for path, each in spread.items()
    }
    bases = {arm: view.at(arm, {}) for arm in view.arms}
    view.run([*bases.values(), *(point for pair in ends.values() for point in pair)], "tornado")
    rows: list[Row] = []
    for (arm, path), (low, high) in ends.items():
        for metric in asked.metrics:
            at_low, at_high = view.values(low, metric), view.values(high, metric)
            swing = paired(at_high, at_low)
            rows.append(
                {"arm": arm, "metric": metric, "parameter": path, "from": spread[path].low, "to": spread[path].high}
                | {"base": t_interval(view.values(bases[arm], metric)).value}
                | {"at_from": t_interval(at_low).value, "at_to": t_interval(at_high).value}
                | {"swing": swing.value, "low": swing.low, "high": swing.high, "n": swing.n}
                | {"error": view.runner.error(low) or view.runner.error(high) or None}
            )
    rows.sort(key=lambda row: (row["arm"], row["metric"], -abs(row["swing"]) if row["swing"] == row["swing"] else 0.0))
    return rows, _sentences(view, rows, "swing", "from the low to the high end of each parameter")


def morris(view: View, asked: Morris) -> Found:
    spread = ranges(asked.parameters)
    step = asked.levels / (2 * (asked.levels - 1))
    walks = _trajectories(len(spread), asked, step, view.study.seed)
    rows: list[Row] = []
    for arm in view.arms:
        y = _evaluated(view, arm, spread, np.concatenate([corners for corners, _ in walks]), asked.metrics, "Morris")
        for metric in asked.metrics:
            values = y[metric].reshape(len(walks), len(spread) + 1)
            effects = np.full((len(walks), len(spread)), nan)
            for walk, (corners, order) in enumerate(walks):
                for at, parameter in enumerate(order):
                    up = corners[at + 1, parameter] - corners[at, parameter]
                    effects[walk, parameter] = (values[walk, at + 1] - values[walk, at]) / up
            for parameter, path in enumerate(spread):
                found, size = t_interval(effects[:, parameter]), t_interval(np.abs(effects[:, parameter]))
                sigma = float(np.nanstd(effects[:, parameter], ddof=1))
                rows.append(
                    {"arm": arm, "metric": metric, "parameter": path, "mu": found.value, "mu_star": size.value}
                    | {"low": size.low, "high": size.high, "sigma": sigma, "n": size.n}
                )
    return rows, _sentences(view, rows, "mu_star", "of mean absolute effects over the ranges")


def _trajectories(dimensions: int, asked: Morris, step: float, seed: int) -> list[tuple[Array, list[int]]]:
    """(corners, order of the parameters) of each walk; every parameter moves once, up or down, within [0, 1]."""
    random = np.random.default_rng([seed, 2])
    grid = np.arange(asked.levels) / (asked.levels - 1)
    starts = grid[grid <= 1 - step + 1e-12]
    walks = []
    for _ in range(asked.trajectories):
        here = random.choice(starts, dimensions)
        way = random.choice([-1, 1], dimensions)
        here = np.where(way > 0, here, here + step)
        order = [int(each) for each in random.permutation(dimensions)]
        corners = [here.copy()]
        for parameter in order:
            here[parameter] += way[parameter] * step
            corners.append(here.copy())
        walks.append((np.clip(np.array(corners), 0.0, 1.0), order))
    return walks


def sobol(view: View, asked: SobolIndices) -> Found:
    spread = ranges(asked.parameters)
    both = unit_points("sobol", 2 * len(spread), asked.n, view.study.seed)
    a, b = both[:, : len(spread)], both[:, len(spread) :]
    mixed = [np.where(np.arange(len(spread)) == each, b, a) for each in range(len(spread))]
    rows: list[Row] = []
    for arm in view.arms:
        y = _evaluated(view, arm, spread, np.concatenate([a, b, *mixed]), asked.metrics, "Sobol")
        for metric in asked.metrics:
            of_a, of_b, *of_ab = y[metric].reshape(len(spread) + 2, asked.n)
            for path, each in zip(spread, of_ab):
                rows.append({"arm": arm, "metric": metric, "parameter": path, **_indices(of_a, of_b, each, view.study.seed)})
    return rows, _sentences(view, rows, "total", "of shares of the variance, interactions included")


def _indices(of_a: Array, of_b: Array, of_ab: Array, seed: int) -> Row:
    good = ~np.isnan(of_a + of_b + of_ab)
    data = np.array([of_a, of_b, of_ab])[:, good]
    n = data.shape[1]
    if n < 2:
        return dict.fromkeys(("first", "first_low", "first_high", "total", "low", "high")) | {"n": n}
    draws = np.random.default_rng([seed, 3]).integers(0, n, (RESAMPLES, n))
    first, total = saltelli(data[:, None, :])
    firsts, totals = saltelli(data[:, draws])
    (first_low, total_low), (first_high, total_high) = np.nanpercentile([firsts, totals], [2.5, 97.5], axis=1)
    return {
        "first": float(first[0]), "first_low": float(first_low), "first_high": float(first_high),
        "total": float(total[0]), "low": float(total_low), "high": float(total_high), "n": n,
    }  # fmt: skip


def saltelli(data: Array) -> tuple[Array, Array]:
    """(first-order, total) indices along the last dimension; `data`: f_A, f_B, f_AB."""
    of_a, of_b, of_ab = data
    variance = np.concatenate([of_a, of_b], axis=-1).var(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        first = (of_b * (of_ab - of_a)).mean(axis=-1) / variance
        total = ((of_a - of_ab) ** 2).mean(axis=-1) / (2 * variance)
    flat = variance == 0
    return np.where(flat, 0.0, first), np.where(flat, 0.0, total)


def _evaluated(
    view: View, arm: str, spread: Mapping[str, Range], corners: Array, metrics: Sequence[str], label: str
) -> dict[str, Array]:
    """Mean over replications of each metric at each corner of the unit cube."""
    points = [
        view.at(arm, {path: each.at(float(share)) for (path, each), share in zip(spread.items(), corner)}) for corner in corners
    ]
    view.run(points, label)
    return {metric: np.array([t_interval(view.values(point, metric)).value for point in points]) for metric in metrics}


def _sentences(view: View, rows: Sequence[Row], key: str, what: str) -> list[str]:
    """One per arm and metric: the parameters that matter most."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row[key] is not None and row[key] == row[key]:
            found.setdefault((row["arm"], row["metric"]), []).append(row)
    sentences = []
    for (arm, metric), group in found.items():
        ranked = sorted(group, key=lambda row: -abs(round(row[key], 12)))[:NAMED]
        shown = three if key in ("swing", "mu_star") else "{:.2f}".format
        listing = ", ".join(f"{row['parameter']} {shown(row[key])}" for row in ranked)
        sentences.append(f"{metric}{view.of(arm)}, {what}: {listing}.")
    return sentences
