"""Intervals against hand computation and against queues whose mean is known."""

from __future__ import annotations

from math import isnan, sqrt

import numpy as np
import pytest
from scipy import stats

from simulator.experiments.studies.roots import crossing
from simulator.experiments.studies.statistics import (
    batch_means,
    needed,
    paired,
    precise,
    quantile_interval,
    sectioned,
    t_interval,
)


def test_t_interval_by_hand():
    """Values 1, 2, 3, 4: mean 2.5, s = 1.29099, t(3) = 3.18245: half-width 2.0543 (tolerance: rounding of the table).

    Would catch: a normal quantile, n for n - 1, a failed run (nan) counted as a value.
    """
    found = t_interval([1, 2, float("nan"), 3, 4])
    assert found.n == 4 and found.value == 2.5
    assert found.half == pytest.approx(3.18245 * 1.29099 / 2, rel=1e-4)
    one = t_interval([7.0])
    assert one.value == 7.0 and isnan(one.low) and not one.significant and not precise(one, 1.0)
    assert t_interval([3.0, 3.0]).half == 0.0 and isnan(t_interval([]).value)


def test_pairing_removes_what_is_common():
    """Would catch: the difference of two means taken as if the runs were independent."""
    common = np.random.default_rng(0).normal(0, 100, 20)
    noise = np.random.default_rng(1).normal(0, 1, 20)
    found = paired(common + 1 + noise, common)
    assert found.significant and found.half < 1 and found.value == pytest.approx(1 + noise.mean())


def test_order_statistics():
    """For n = 100, q = 0.5 the ranks are 40 and 61 (Hahn & Meeker, table A.15a); the exact coverage is at least 95 %.

    Would catch: ranks off by one, an interval where there are too few values for it.
    """
    found = quantile_interval(np.arange(1, 101), 0.5)
    assert (found.low, found.high) == (40, 61)
    for n, share in ((20, 0.5), (200, 0.9), (1000, 0.99)):
        low, high = (
            int(end)
            for end in (quantile_interval(np.arange(1, n + 1), share).low, quantile_interval(np.arange(1, n + 1), share).high)
        )
        assert stats.binom.cdf(high - 1, n, share) - stats.binom.cdf(low - 1, n, share) >= 0.95
    assert isnan(quantile_interval(np.arange(50), 0.99).high)


def test_batch_means():
    """Would catch: batches that lose the remainder, an interval of a series that is too short."""
    data = np.random.default_rng(2).normal(5, 1, 1013)
    assert batch_means(data).value == pytest.approx(data.mean(), rel=1e-12)
    assert batch_means(np.ones(30)).n == 0
    assert sectioned(lambda one, two: float(one.mean() - two.mean()), [np.arange(6.0), np.zeros(6)], 3) == [0.5, 2.5, 4.5]


def test_needed_replications():
    """Half-width 10 % of the mean, 5 % wanted: four times as many, but at most twice as many at once.

    Would catch: a stopping rule that adds one at a time, or jumps on a first guess.
    """
    found = t_interval(100 + np.array([-8.0, 8.0, -8.0, 8.0, 0.0]))
    assert 0.09 < found.relative < 0.11 and needed(found, found.relative / 2) == 10
    assert needed(found, found.relative * 0.99) == 6


def waits(seed: int, customers: int, load: float) -> np.ndarray:
    """Waiting times in M/M/1 by Lindley's recursion, service rate 1, the first tenth left out."""
    random = np.random.default_rng([seed, 77])
    steps = random.exponential(1.0, customers) - random.exponential(1.0 / load, customers)
    walk = np.concatenate([[0.0], np.cumsum(steps[:-1])])
    return (walk - np.minimum.accumulate(walk))[customers // 10 :]


@pytest.mark.parametrize("studies", [pytest.param(100, id="small"), pytest.param(400, id="full", marks=pytest.mark.slow)])
def test_coverage_on_a_queue(studies: int):
    """M/M/1 at load 0.5, mean wait 1: the 95 % interval of 10 replications of 5,000 customers, over so many studies.

    Between 92 and 98 % of 400 (a true 95 % misses that band once in 300 sets); 87 and 99.5 % for the 100 of every day.
    Would catch: intervals too narrow by 10 % or too wide by 20 %, biased replications.
    """
    inside = paired_inside = 0
    for study in range(studies):
        means = [waits(1000 * study + each, 5000, 0.5).mean() for each in range(10)]
        found = t_interval(means)
        inside += found.low <= 1.0 <= found.high
        other = [waits(1000 * study + each, 5000, 0.4).mean() for each in range(10)]
        difference = paired(means, other)
        paired_inside += difference.low <= 1.0 - 0.4 / 0.6 <= difference.high
    print(f"coverage of {studies} studies: {inside / studies:.1%} (mean), {paired_inside / studies:.1%} (paired difference)")
    low, high = (0.92, 0.98) if studies == 400 else (0.87, 0.995)
    assert low <= inside / studies <= high and low <= paired_inside / studies <= high


@pytest.mark.slow
def test_coverage_of_batch_means():
    """One run of 200,000 customers in 20 batches: the 95 % interval holds the mean wait in 91 to 98 % of 400 runs.

    Would catch: customers taken as independent (coverage below 30 %).
    """
    found = [batch_means(waits(each, 200_000, 0.5)) for each in range(400)]
    coverage = np.mean([each.low <= 1.0 <= each.high for each in found])
    naive = np.mean([each.low <= 1.0 <= each.high for each in (t_interval(waits(each, 200_000, 0.5)) for each in range(40))])
    print(f"batch means {coverage:.1%}, independent customers {naive:.1%}")
    assert 0.91 <= coverage <= 0.98 and naive < 0.7


def test_crossing_of_a_noisy_function():
    """f_r(x) = x - 40 + common noise of deviation 2, 16 replications: 200 roots, 95 % intervals hold 40 in 88 to 100 %.

    Would catch: an interval of the bracket alone (coverage near 0), a slope of the wrong size.
    """
    inside, halves = 0, []
    for seed in range(200):
        noise = np.random.default_rng(seed).normal(0, 2, 16)
        root = crossing(lambda x, noise=noise: x - 40 + noise, 10.0, 100.0, 0.01, True)
        assert root.found is not None
        inside += root.found.low <= 40 <= root.found.high
        halves.append(root.found.half)
    assert 0.88 <= inside / 200 <= 1.0
    assert np.mean(halves) == pytest.approx(2.131 * 2 / sqrt(16), rel=0.1)


def test_no_crossing():
    """Would catch: a crossing invented at an end of the range, or a whole-number search that never ends."""
    assert crossing(lambda x: np.array([1.0, 1.0]), 1, 10, 0.01, False).sign == 1
    whole = crossing(lambda x: np.array([x - 4.5]), 1, 10, 0.0001, False, whole=True)
    assert whole.found is not None and (whole.left, whole.right) == (4, 5) and whole.found.value == pytest.approx(4.5)
