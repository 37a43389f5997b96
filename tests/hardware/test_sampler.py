"""The sampler by hand: logits that stay in the L2 cache, and logits that do not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from simulator.experiments.steptime import gpu_named
from simulator.hardware.sampler import CACHE_RATE, KEPT, sampling

GPU = replace(gpu_named("h100-80gb-sxm"), l2_cache=60e6 / KEPT)


def test_logits_that_fit_stay_in_the_cache() -> None:
    """100 x 100,000 logits of 6 bytes fill exactly what is kept: 1e8 bytes at the rate of the cache; half of them take half.

    Catches bytes that are not those of three passes, and HBM in a batch that fits.
    """
    full = sampling(GPU, 100, 1e5)
    assert full.bytes == 1e8
    assert full.time == pytest.approx(1e8 / (CACHE_RATE * GPU.memory_bandwidth))
    assert sampling(GPU, 50, 1e5).time == pytest.approx(full.time / 2)


def test_logits_beyond_the_cache_come_from_memory() -> None:
    """Four times as many: a quarter of the accesses hit, the others stream. None at all cost nothing.

    Catches a cliff (all or nothing) and a hit share that is not of the batch.
    """
    stream = GPU.attention_bandwidth_efficiency * GPU.memory_bandwidth
    assert sampling(GPU, 400, 1e5).time == pytest.approx(1e8 / (CACHE_RATE * GPU.memory_bandwidth) + 3e8 / stream)
    assert sampling(GPU, 0, 1e5).time == 0.0
