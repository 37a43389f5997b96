"""Intervals: how sure a mean, a difference, a percentile is.

    replications     mean +- t(0.975, n-1) s / sqrt(n)                    independent runs, other seeds
    paired           the same of a_r - b_r                                 two arms on the same seeds (Law 2015, 10.2)
    batch means      the same of the means of 20 consecutive batches       one long, correlated run (Law 2015, 9.5.3)
    order statistic  [x_(j), x_(k)], P(j <= Bin(n, q) < k) >= 95 %         a percentile, free of any distribution
    sectioning       t-interval of a statistic of 20 consecutive sections  a percentile of one run (Asmussen & Glynn III.5a)

With one value there is no interval: `low` and `high` are nan and nothing is significant.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isnan, nan, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray

CONFIDENCE = 0.95
BATCHES = 20
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval from `n` values."""

    value: float
    low: float
    high: float
    n: int

    @property
    def half(self) -> float:
        return (self.high - self.low) / 2

    @property
    def relative(self) -> float:
        """Half-width as a share of the value; 0 where nothing varies, nan without an interval."""
        if self.half == 0.0:
            return 0.0
        return self.half / abs(self.value) if self.value else nan

    @property
    def significant(self) -> bool:
        """Zero lies outside; False without an interval."""
        return self.low > 0 or self.high < 0


def t_interval(values: ArrayLike, confidence: float = CONFIDENCE) -> Interval:
    """Of the mean of independent values; nan values (failed runs) are left out."""
    data = np.asarray(values, dtype=np.float64)
    data = data[~np.isnan(data)]
    n = len(data)
    if n == 0:
        return Interval(nan, nan, nan, 0)
    mean = float(data.mean())
    if n == 1:
        return Interval(mean, nan, nan, 1)
    spread = float(data.std(ddof=1))
    half = t_quantile(n - 1, confidence) * spread / sqrt(n) if np.ptp(data) > 0 else 0.0
    return Interval(mean, mean - half, mean + half, n)


def paired(one: ArrayLike, other: ArrayLike, confidence: float = CONFIDENCE) -> Interval:
    """Of the mean of `one` - `other`, value by value."""
    return t_interval(np.asarray(one, dtype=np.float64) - np.asarray(other, dtype=np.float64), confidence)


def batch_means(series: ArrayLike, batches: int = BATCHES, confidence: float = CONFIDENCE) -> Interval:
    """Of the mean of a correlated series, in its order; the remainder joins the last batch."""
    data = np.asarray(series, dtype=np.float64)
    if len(data) < 2 * batches:
        return t_interval(data[:0])
    found = t_interval([part.mean() for part in sections(data, batches)], confidence)
    shift = float(data.mean()) - found.value  # the remainder makes batches unequal
    return Interval(found.value + shift, found.low + shift, found.high + shift, batches)


def sections(data: Array, count: int) -> list[Array]:
    """Consecutive parts of (nearly) one length."""
    return [part for part in np.array_split(data, count) if len(part)]


def sectioned(statistic: Callable[[Array], float], series: Sequence[Array], count: int = BATCHES) -> list[float]:
    """A statistic of each section of one or several parallel series (their differences, say)."""
    parts = [sections(each, count) for each in series]
    return [statistic(*section) for section in zip(*parts)]


def quantile_interval(values: ArrayLike, share: float, confidence: float = CONFIDENCE) -> Interval:
    """Of a quantile of independent values; nan ends where there are too few values for that quantile."""
    from scipy.stats import binom

    data = np.sort(np.asarray(values, dtype=np.float64))
    data = data[~np.isnan(data)]
    n = len(data)
    if n == 0:
        return Interval(nan, nan, nan, 0)
    value = float(np.quantile(data, share))
    tail = (1 - confidence) / 2
    below, above = int(binom.ppf(tail, n, share)), int(binom.ppf(1 - tail, n, share)) + 1
    # x_(j) <= quantile fails if fewer than j values are below it: P(Bin < j) <= tail needs j <= ppf(tail)
    low = float(data[below - 1]) if below >= 1 else nan
    high = float(data[above - 1]) if above <= n else nan
    return Interval(value, low, high, n)


def t_quantile(freedom: int, confidence: float = CONFIDENCE) -> float:
    from scipy.stats import t

    return float(t.ppf((1 + confidence) / 2, freedom))


def needed(found: Interval, precision: float) -> int:
    """Replications for a half-width of `precision` of the mean, by the square-root law; at most twice as many as now."""
    if isnan(found.relative):
        return found.n + 2
    wanted = int(np.ceil(found.n * (found.relative / precision) ** 2 * 1.1))
    return max(found.n + 1, min(2 * found.n, wanted))


def precise(found: Interval, precision: float) -> bool:
    return found.n >= 2 and found.relative <= precision
