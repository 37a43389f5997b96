"""Break-even: the value of one axis from which one arm beats another ("the pool pays from 41 GB/s upward").

The points of the study bracket the crossing of the paired difference; more runs between them narrow it down to the
tolerance (`roots`). One row per combination of the other axes; the first crossing counts, and their number is given.

    axis, against        what was varied, the other arm
    verdict              crosses | always | never | level (within 0.1 % all along) | unknown
    value, low, high     the break-even and its interval
    side                 above | below: where `arm` is better
    crossings            in the range of the axis
    gain_low, gain_high  relative gain of `arm` at both ends
"""

from __future__ import annotations

from collections.abc import Mapping
from math import nan
from typing import Any

import numpy as np

from simulator.experiments.studies.points import Point
from simulator.experiments.studies.roots import crossing
from simulator.experiments.studies.schema import BreakEven
from simulator.experiments.studies.statistics import Array
from simulator.experiments.studies.view import LEVEL, Found, Row, View, said


def break_even(view: View, asked: BreakEven) -> Found:
    arm, against = asked.arms or tuple(view.arms[:2])
    rows, sentences = [], []
    for others, points in view.groups(asked.axis):
        mine = {point.si[asked.axis]: point for point in points if point.arm == arm}
        theirs = {point.si[asked.axis] for point in points if point.arm == against}
        marks = sorted(float(value) for value in mine if value in theirs)
        if len(marks) < 2:
            continue
        row = _search(view, asked, arm, against, mine[marks[0]].values, marks)
        rows.append({"arm": arm, "against": against, "metric": asked.metric, "axis": asked.axis, **others, **row})
        sentences.append(_sentence(view, asked, rows[-1], others, marks))
    return rows, sentences


def _search(view: View, asked: BreakEven, arm: str, against: str, others: Mapping[str, Any], marks: list[float]) -> Row:
    axis = view.study.axes[asked.axis]
    gains: dict[float, float] = {}

    def difference(x: float) -> Array:
        """Of the two arms, replication by replication; positive where `arm` is better."""
        values = {**others, asked.axis: axis.field.written(x, exact=True)}
        one, other = (Point(view.study, name, values, {}) for name in (arm, against))
        view.run([one, other], "break-even")
        count = min(view.replications.get(point.id, view.fewest) for point in (one, other))
        ours, theirs = (view.runner.values(point, asked.metric, range(count)) for point in (one, other))
        found = ours - theirs if asked.better == "higher" else theirs - ours
        gains[x] = _mean(found) / abs(_mean(theirs)) if _mean(theirs) else nan
        return found

    signs = [_sign(_mean(difference(x)), gains[x]) for x in marks]
    changes = [at for at in range(1, len(marks)) if signs[at] * signs[at - 1] < 0]
    ends = {"gain_low": gains[marks[0]], "gain_high": gains[marks[-1]]}
    if not changes:
        known = {sign for sign in signs if sign} or {0.0}
        verdict = {1.0: "always", -1.0: "never", 0.0: "level"}.get(known.pop() if len(known) == 1 else nan, "unknown")
        return {"verdict": verdict, "side": None, "value": None, "low": None, "high": None, "n": None, "crossings": 0} | ends
    at = changes[0]
    root = crossing(difference, marks[at - 1], marks[at], asked.tolerance, axis.log, axis.field.whole)
    found = root.found
    return {
        "verdict": "crosses",
        "side": "above" if signs[at] > signs[at - 1] else "below",
        "value": found.value if found else None,
        "low": found.low if found else root.left,
        "high": found.high if found else root.right,
        "n": found.n if found else None,
        "crossings": len(changes),
    } | ends


def _sign(difference: float, gain: float) -> float:
    """0 where the two arms are level, nan where one of them has no value."""
    return 0.0 if abs(gain) < LEVEL else float(np.sign(difference))


def _mean(values: Array) -> float:
    finite = values[~np.isnan(values)]
    return float(finite.mean()) if len(finite) else nan


def _sentence(view: View, asked: BreakEven, row: Row, others: Mapping[str, float | str], marks: list[float]) -> str:
    field = view.study.axes[asked.axis].field
    where = f" ({view.written(others)})" if others else ""
    over = f"between {said(field, marks[0])} and {said(field, marks[-1])} of {asked.axis}"
    if row["verdict"] == "crosses" and row["value"] is not None:
        way = "upward" if row["side"] == "above" else "downward"
        interval = f"{said(field, row['low'])} to {said(field, row['high'])}"
        again = f"; {row['crossings']} crossings" if row["crossings"] > 1 else ""
        at = f"{said(field, row['value'])} of {asked.axis} {way} ({interval}{again})"
        return f"'{row['arm']}' beats '{row['against']}' in {asked.metric} from {at}{where}."
    said_so = {"always": "beats", "never": "never beats", "level": "equals"}.get(row["verdict"], "cannot be compared with")
    return f"'{row['arm']}' {said_so} '{row['against']}' in {asked.metric} {over}{where}."
