"""What predictors propose: the inputs coverage and accuracy come out again, wrong pages as many as the formula says."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest
from scipy.stats import binom, norm

from simulator.prefetch.predictors import PREDICTORS, Statistical
from simulator.scenario.resolved import Prefetch

LAYERS, PAGES = 400, 250


def spec(predictor: str, depth: int = 4, coverage: float = 0.9, accuracy: float = 0.8) -> Prefetch:
    return Prefetch(predictor, depth, coverage, accuracy, 1e-5)


@pytest.mark.parametrize("coverage", [0.02, 0.5, 0.947, 0.999])
@pytest.mark.parametrize("accuracy", [0.1, 0.872, 1.0])
def test_coverage_and_accuracy_are_met(coverage: float, accuracy: float) -> None:
    """Right pages inside the binomial 99 % interval; wrong ones n (1 - a) / a, rounded at random layer by layer.

    The rounding has a variance of at most 1/4 a layer. Would catch: accuracy taken as a share of the right pages instead
    of all, rounding always down (wrong pages vanish where layers are small), coverage applied twice.
    """
    predictor = Statistical(spec("statistical", 4, coverage, accuracy), np.random.default_rng(11))
    right, wrong = predictor.propose([PAGES] * LAYERS)
    low, high = binom.interval(0.99, LAYERS * PAGES, coverage)
    assert low <= sum(right) <= high
    assert max(right) <= PAGES
    spread = norm.ppf(0.995) * sqrt(LAYERS / 4)
    assert sum(wrong) == pytest.approx(sum(right) * (1 - accuracy) / accuracy, abs=spread if accuracy < 1.0 else 0.0)
    assert sum(right) / (sum(right) + sum(wrong)) == pytest.approx(accuracy, abs=0.01)


def test_small_layers_keep_the_mean() -> None:
    """One page a layer at accuracy 0.872: 0.147 wrong pages a layer on average, not 0.

    Would catch: rounding down, rounding up.
    """
    predictor = Statistical(spec("statistical", 4, 1.0, 0.872), np.random.default_rng(5))
    _, wrong = predictor.propose([1] * 20_000)
    low, high = binom.interval(0.99, 20_000, 0.128 / 0.872)
    assert low <= sum(wrong) <= high


def test_same_seed_same_pages() -> None:
    """Would catch: a random stream of its own."""
    first, second = (Statistical(spec("statistical"), np.random.default_rng(3)).propose([7, 0, 9]) for _ in range(2))
    assert first == second and first[0][1] == first[1][1] == 0


def test_coverage_0_proposes_nothing() -> None:
    """Would catch: wrong pages without right ones; a prefetcher that costs although it is off."""
    predictor = Statistical(spec("statistical", coverage=0.0), np.random.default_rng(1))
    assert predictor.window(80) == 0 and predictor.propose([5, 5]) == ([0, 0], [0, 0])


@pytest.mark.parametrize(
    ("name", "window", "wraps"), [("none", 0, False), ("next_layer", 4, False), ("statistical", 4, True), ("oracle", 80, True)]
)
def test_windows(name: str, window: int, wraps: bool) -> None:
    """Depth for those that have one, at most all layers; the oracle looks a whole step ahead.

    Would catch: a depth beyond the step, a next-layer prefetcher that knows the next step.
    """
    predictor = PREDICTORS[name](spec(name), np.random.default_rng(1))
    assert (predictor.window(80), predictor.wraps) == (window, wraps)
    assert predictor.window(2) <= 2


@pytest.mark.parametrize("name", ["next_layer", "oracle"])
def test_dense_sets_are_known(name: str) -> None:
    """Would catch: waste of a prefetcher that knows its pages."""
    right, wrong = PREDICTORS[name](spec(name), np.random.default_rng(1)).propose([3, 0, 8])
    assert list(right) == [3, 0, 8] and list(wrong) == [0, 0, 0]
