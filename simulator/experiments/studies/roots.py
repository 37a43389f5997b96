"""Where a noisy function of one number crosses zero, with an interval: capacities and break-evens.

The function is known by replications with common random numbers: f_r(x) for seeds r. The mean is bisected until the
bracket is narrow. The crossing x* is interpolated in it, and its interval is that of the mean at x*, divided by the
slope: half(x*) / |slope|, at least the bracket. The slope is that of the mean over all evaluated points within a
quarter of x*, by least squares, because over the last bracket it would be noise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import exp, inf, log, nan

import numpy as np

from simulator.experiments.studies.statistics import Array, Interval, t_interval

NEIGHBOURHOOD = 0.25  # of x*, for the slope
WIDEST = 60  # bisections


@dataclass(frozen=True)
class Root:
    """`found` is None without a crossing; `sign` is then that of the function on the whole range."""

    found: Interval | None
    sign: int
    left: float  # the last bracket; of the whole range without a crossing
    right: float


def crossing(
    function: Callable[[float], Array], low: float, high: float, tolerance: float, logarithmic: bool, whole: bool = False
) -> Root:
    """Bisect the mean of `function` between two ends; `tolerance` is a share of x (of the range, if that holds 0)."""
    seen: dict[float, Array] = {}

    def mean(x: float) -> float:
        if x not in seen:
            seen[x] = function(x)
        values = seen[x]
        finite = values[~np.isnan(values)]
        return float(finite.mean()) if len(finite) else nan

    ends = mean(low), mean(high)
    if np.isnan(ends).any():
        return Root(None, 0, low, high)
    if ends[0] * ends[1] > 0 or ends == (0.0, 0.0):
        return Root(None, int(np.sign(ends[0] + ends[1])), low, high)
    left, right = low, high
    for _ in range(WIDEST):
        middle = exp((log(left) + log(right)) / 2) if logarithmic else (left + right) / 2
        if whole:
            middle = round(middle)
        width = abs(right - left) / (abs(middle) if low * high > 0 else abs(high - low))
        if width <= tolerance or middle in (left, right):
            break
        value = mean(middle)
        if np.isnan(value):
            return Root(None, 0, left, right)
        if value == 0.0:
            left = right = middle
            break
        left, right = (middle, right) if value * ends[0] > 0 else (left, middle)
    return Root(_interval(seen, left, right, logarithmic), 0, left, right)


def _interval(seen: dict[float, Array], left: float, right: float, logarithmic: bool) -> Interval:
    """The crossing inside the last bracket."""
    at = np.array([float(np.nanmean(seen[left])), float(np.nanmean(seen[right]))])
    share = float(at[0] / (at[0] - at[1])) if at[0] != at[1] else 0.5
    x = exp(log(left) + share * (log(right) - log(left))) if logarithmic else left + share * (right - left)
    replications = min(len(seen[left]), len(seen[right]))
    there = (1 - share) * seen[left][:replications] + share * seen[right][:replications]
    noise, slope = t_interval(there), _slope(seen, x, left, right)
    half = noise.half / abs(slope) if noise.n > 1 and slope else 0.0
    half = 0.0 if half == inf else half
    return Interval(x, min(x - half, left, right), max(x + half, left, right), noise.n)


def _slope(seen: dict[float, Array], x: float, left: float, right: float) -> float:
    near = [each for each in seen if abs(each - x) <= NEIGHBOURHOOD * abs(x)]
    near = near if len(near) >= 2 else [left, right]
    if len(set(near)) < 2:
        return nan
    return float(np.polyfit(near, [float(np.nanmean(seen[each])) for each in near], 1)[0])
