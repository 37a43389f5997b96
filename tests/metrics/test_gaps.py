"""The stored distribution of inter-token latencies."""

from __future__ import annotations

import numpy as np
import pytest

from simulator.metrics.requests import GAP_BIN, gap_histogram, weighted_percentiles


def test_histogram_keeps_mean_and_percentiles():
    """Would catch: weights lost, bins wider than said, bins out of order. Mean to rounding; percentiles to one bin (0.5 %)."""
    rng = np.random.default_rng(1)
    values, counts = rng.lognormal(-3.0, 1.5, 20_000), rng.integers(1, 9, 20_000)
    found = gap_histogram(values, counts)
    assert found["gaps"].sum() == counts.sum() and (np.diff(found["itl_s"]) > 0).all() and len(found["gaps"]) < 3000
    exact = weighted_percentiles(values, counts)
    binned = weighted_percentiles(found["itl_s"], found["gaps"])
    assert binned["mean"] == pytest.approx(exact["mean"], rel=1e-12)
    for name in ("p50", "p90", "p95", "p99"):
        assert binned[name] == pytest.approx(exact[name], rel=GAP_BIN - 1)


def test_gaps_of_no_time_have_their_own_bin():
    """Would catch: log(0); a run without gaps."""
    found = gap_histogram(np.array([0.0, 2.0, 0.0]), np.array([1, 5, 2]))
    assert (found["itl_s"].tolist(), found["gaps"].tolist()) == ([0.0, 2.0], [3, 5])
    assert len(gap_histogram(np.zeros(0), np.zeros(0, dtype=np.int64))["gaps"]) == 0
