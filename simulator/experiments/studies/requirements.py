"""What a design has to meet: `latency.ttft_s.p99 <= 2 s`, `goodput.slo_attainment >= 99 %`.

The margin of a run is (limit - value) / |limit| for `<=`, the opposite for `>=`, the least one of several requirements:
above 0 means met. A value that does not exist (no request finished) is a margin of -1.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan

import numpy as np

from simulator.errors import InputError, Problem
from simulator.experiments.studies.expression import Expression
from simulator.experiments.studies.fields import Refused
from simulator.experiments.studies.points import Point
from simulator.experiments.studies.runner import Runner, check_metrics, number
from simulator.experiments.studies.statistics import Array

MISSED = -1.0


class Requirements:
    """Several of them, each a comparison of summary keys with a limit."""

    def __init__(self, texts: Sequence[str]):
        self.texts = tuple(texts)
        self._expressions = [Expression(text) for text in texts]

    @property
    def metrics(self) -> list[str]:
        return [name for expression in self._expressions for name in expression.names]

    def check(self, summary: dict[str, object], where: str) -> None:
        """InputError for a name that no summary has."""
        check_metrics(summary, self.metrics, where)

    def margins(self, runner: Runner, point: Point, replications: Sequence[int]) -> Array:
        """The least margin of each replication."""
        return np.array([self._margin(runner, point, each) for each in replications])

    def _margin(self, runner: Runner, point: Point, replication: int) -> float:
        summary = runner.outcome(point, replication)["summary"]
        least = np.inf
        for expression in self._expressions:
            left, sign, right = expression.comparison()
            try:
                value, limit = (side(lambda name: number(summary, name)) for side in (left, right))
            except Refused as refused:
                raise InputError(Problem(point.study.name, "require", str(refused))) from None
            if not isinstance(value, int | float) or not isinstance(limit, int | float):
                raise InputError(Problem(point.study.name, "require", f"{expression.text!r} does not compare two numbers"))
            margin = (limit - value) / (abs(limit) or 1.0) * (1 if sign.startswith("<") else -1)
            least = min(least, MISSED if isnan(margin) else margin)
        return least
