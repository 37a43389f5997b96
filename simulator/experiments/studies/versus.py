"""Each arm against one of them, pair by pair: the same point of the axes and the same replication, so that what they have in
common (requests, seeds) is in neither side of the difference.

versus      a row per arm: metric, against, value, baseline, difference, low, high (95 %), n pairs, significant
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from simulator.experiments.studies.fields import Refused
from simulator.experiments.studies.points import Point
from simulator.experiments.studies.schema import Versus
from simulator.experiments.studies.statistics import paired
from simulator.experiments.studies.view import Found, Row, View, three


def versus(view: View, asked: Versus) -> Found:
    if asked.arm not in view.arms:
        raise Refused(f"there is no arm '{asked.arm}' to compare with; the arms are {', '.join(view.arms)}")
    places: dict[str, dict[str, Point]] = {}
    for point in view.points:
        places.setdefault(json.dumps(point.si, sort_keys=True, default=str), {})[point.arm] = point
    rows: list[Row] = []
    for arm in view.arms:
        if arm != asked.arm:
            pairs = [place for place in places.values() if arm in place and asked.arm in place]
            rows.append(_row(view, asked, arm, pairs))
    return rows, [_sentence(row) for row in rows]


def _row(view: View, asked: Versus, arm: str, pairs: Sequence[dict[str, Point]]) -> Row:
    ours, theirs = (
        np.concatenate([view.values(pair[name], asked.metric) for pair in pairs] or [np.zeros(0)]) for name in (arm, asked.arm)
    )
    known = ~(np.isnan(ours) | np.isnan(theirs))
    found = paired(ours[known], theirs[known])
    means = (float(each[known].mean()) if known.any() else np.nan for each in (ours, theirs))
    value, baseline = means
    return {"arm": arm, "against": asked.arm, "metric": asked.metric, "value": value, "baseline": baseline} | {
        "difference": found.value, "low": found.low, "high": found.high, "n": found.n, "significant": found.significant,
    }  # fmt: skip


def _sentence(row: Row) -> str:
    share = 100 * row["difference"] / row["baseline"] if row["baseline"] else np.nan
    interval = f"95 % interval of the difference {three(row['low'])} to {three(row['high'])}"
    verdict = "" if row["significant"] else ", so it may as well be none"
    ends = f"{three(row['value'])} against {three(row['baseline'])} of '{row['against']}' ({share:+.1f} %)"
    return f"{row['metric']} of '{row['arm']}' is {ends}: {interval}, {row['n']} pairs{verdict}."
