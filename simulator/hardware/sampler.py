"""Time to draw a token for each of n sequences from logits over the whole vocabulary.

    bytes    10 a logit: the 16-bit one is read, a 32-bit copy written, and that read for the maximum (or the sum)
    time     bytes * (hit / L2 rate + (1 - hit) / HBM rate)
    hit      min(1, `KEPT` * L2 cache / (6 bytes a logit)): the share of both copies that a later pass still finds there

While the logits of the batch fit, no pass meets HBM; above, time grows twice as fast or more. All tensor-parallel ranks
gather all logits and draw alike. Launches are counted by the step, or by whoever times the kernels (`START`).
Not modelled: top-k, penalties, log-probabilities; parts with HBM, whose caches are not as many times as fast as their memory
(sampling is below 1 % of a step on them).
Source: `KEPT`, `CACHE_RATE` and `START` fitted by analysis/calibration/sampler.py to vLLM's sampler on two RTX parts; see
catalog/README.md.
"""

from __future__ import annotations

from simulator.hardware.operator import Operator
from simulator.scenario.resolved import Gpu

PASSES_BYTES = 2.0 + 4.0 + 4.0  # of a logit, all passes
HELD_BYTES = 2.0 + 4.0  # of a logit, both copies
KEPT = 0.79  # of the L2 cache
CACHE_RATE = 3.5  # of the L2 cache in passes over logits, in bandwidths of the memory
START = 25.4e-6  # s of the kernels of vLLM's sampler besides their bytes, when it is timed alone: the same on both parts


def sampling(gpu: Gpu, sequences: float, vocab: float) -> Operator:
    """Draws of one token for each of the sequences."""
    logits = sequences * vocab
    hit = min(1.0, KEPT * gpu.l2_cache / (HELD_BYTES * logits)) if logits else 1.0
    moved = PASSES_BYTES * logits
    each = hit / CACHE_RATE + (1.0 - hit) / gpu.attention_bandwidth_efficiency
    return Operator("sampling", 0.0, moved, 0.0, moved * each / gpu.memory_bandwidth)
