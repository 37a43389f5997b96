"""What changes at moments and stays in between, whether anybody computes or not: blocks parked in a pool.

Integrals are exact: sums of value times duration, cut at the edges that are asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Level:
    at: Floats  # s, ascending
    value: Floats  # from then on; 0 before

    @staticmethod
    def of(moments: Sequence[tuple[Sequence[float], Sequence[int]]], scale: float) -> Level:
        """The sum of several, each given by its moments and whole values, times `scale`."""
        each = [(np.maximum.accumulate(np.array(at, np.float64)), np.array([0, *value], np.int64)) for at, value in moments]
        when = np.unique(np.concatenate([at for at, _ in each]))
        total: NDArray[np.int64] = np.zeros(len(when), np.int64)
        for at, value in each:
            total += value[np.searchsorted(at, when, side="right")]
        return Level(when, total.astype(np.float64) * scale)

    @property
    def peak(self) -> float:
        return float(self.value.max(initial=0.0))

    def means(self, edges: Floats) -> Floats:
        """The mean between each edge and the next; edges ascend."""
        at, value = np.concatenate([[edges[0]], self.at]), np.concatenate([[0.0], self.value])
        at = np.clip(at, edges[0], edges[-1])  # what came before the first edge holds from there
        corners = np.concatenate([at, [edges[-1]]])
        integral = np.concatenate([[0.0], np.cumsum(value * np.diff(corners))])
        found: Floats = np.diff(np.interp(edges, corners, integral)) / np.diff(edges)
        return found
