"""Who proposes far pages, how far ahead, and how many of the proposals are right (design 3.5).

With dense attention the set of pages is known, so a predictor only decides order, lead and waste:

    none         proposes nothing; every layer fetches on demand
    next_layer   all far pages of the next `depth` layers of the same step, in order
    statistical  each far page of the next `depth` layers (on into the next step) with probability `coverage`; for n
                 right pages n (1 - accuracy) / accuracy wrong ones as well, dummies that use link, engine and staging
    oracle       all far pages of all later layers, on into the next step and exactly what that will ask for, as far ahead
                 as the staging space allows

A predictor is a pure decision: how many pages of each layer, given how many there are. A plug-in is a class and one line in
`PREDICTORS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from simulator.scenario.resolved import Prefetch


class Predictor(Protocol):
    wraps: bool  # continues into the next step
    knows_the_future: bool  # what is set in motion for the next step is what that will ask for
    latency: float  # s from being asked to issuing

    def window(self, layers: int) -> int:
        """How many layers ahead it proposes; 0 for none."""

    def propose(self, far: Sequence[int]) -> tuple[Sequence[int], Sequence[int]]:
        """Right and wrong pages for each entry of `far` (pages asked for by a layer)."""


class Nothing:
    wraps = knows_the_future = False
    latency = 0.0

    def __init__(self, spec: Prefetch, rng: np.random.Generator):
        pass

    def window(self, layers: int) -> int:
        return 0

    def propose(self, far: Sequence[int]) -> tuple[Sequence[int], Sequence[int]]:
        return [0] * len(far), [0] * len(far)


class NextLayer:
    wraps = knows_the_future = False

    def __init__(self, spec: Prefetch, rng: np.random.Generator):
        self.depth, self.latency = spec.depth, spec.latency

    def window(self, layers: int) -> int:
        return min(self.depth, layers)

    def propose(self, far: Sequence[int]) -> tuple[Sequence[int], Sequence[int]]:
        return far, [0] * len(far)


class Oracle:
    wraps = knows_the_future = True
    latency = 0.0

    def __init__(self, spec: Prefetch, rng: np.random.Generator):
        pass

    def window(self, layers: int) -> int:
        return layers

    def propose(self, far: Sequence[int]) -> tuple[Sequence[int], Sequence[int]]:
        return far, [0] * len(far)


class Statistical:
    wraps = True
    knows_the_future = False

    def __init__(self, spec: Prefetch, rng: np.random.Generator):
        self.depth = spec.depth if spec.coverage > 0.0 else 0
        self.coverage, self.latency = spec.coverage, spec.latency
        self.waste = (1.0 - spec.accuracy) / spec.accuracy
        self._rng = rng

    def window(self, layers: int) -> int:
        return min(self.depth, layers)

    def propose(self, far: Sequence[int]) -> tuple[Sequence[int], Sequence[int]]:
        pages = far[0]
        if far.count(pages) == len(far):  # much faster than a draw for each of many counts
            right = self._rng.binomial(pages, self.coverage, len(far))
        else:
            right = self._rng.binomial(far, self.coverage)
        # rounded up or down at random, so that the mean is kept
        wrong = (right * self.waste + self._rng.random(len(right))).astype(np.int64)
        return right.tolist(), wrong.tolist()


PREDICTORS: dict[str, type[Nothing] | type[NextLayer] | type[Statistical] | type[Oracle]] = {
    "none": Nothing,
    "next_layer": NextLayer,
    "statistical": Statistical,
    "oracle": Oracle,
}
