"""Codec: bytes of a stored element relative to a raw one of 16 bits, in the memory that attention reads.

    c = [density * (k_bits + v_bits) / 2 + mask_bits + meta_bits / group] / 16             or 1 / ratio
    ratios r_i by equal parts of the layers: c = mean of 1 / r_i
    bytes(n) = c * n + (1 - c) * min(n, residual)                                          the newest stay raw
    by age: bits b_0 > b_1 > ... from ages 0, a_1, a_2, ...: sum_i (b_i - b_(i+1)) / 16 * min(n, a_(i+1)), the last one of n

Decoding inside the attention kernel takes no time beside its reads (fused kernels). The pool's codec is another one: it only
changes what is stored in L3 and what crosses its link: rate of a path = min(link * ratio, engines on the raw side).
Identity: 16 bits, no metadata.
"""

from __future__ import annotations

from itertools import pairwise

from simulator.kvcache.policies.curve import Curve, total
from simulator.scenario.resolved import HbmCodec

RAW_BITS = 16.0


def mean_ratio(ratios: tuple[float, ...]) -> float:
    """The ratio of all, where equal raw bytes have these ratios: their harmonic mean."""
    return len(ratios) / sum(1.0 / ratio for ratio in ratios)


def relative(codec: HbmCodec) -> float:
    """Stored bytes per raw byte of an element that is not in the residual window."""
    if codec.by_layer:
        return 1.0 / mean_ratio(codec.by_layer)
    if codec.ratio != 1.0:
        return 1.0 / codec.ratio
    bits = codec.density * (codec.k_bits + codec.v_bits) / 2 + codec.mask_bits
    return (bits + (codec.meta_bits / codec.group if codec.group else 0.0)) / RAW_BITS


def ages(codec: HbmCodec) -> list[tuple[float, float]]:
    """(older than, stored bytes per raw byte), youngest first."""
    if codec.by_age:
        return sorted((float(age.older_than), age.bits / RAW_BITS) for _, age in codec.by_age)
    small = relative(codec)
    return [(0.0, 1.0), (float(codec.residual), small)] if codec.residual and small < 1.0 else [(0.0, small)]


def cost(codec: HbmCodec, tokens: Curve, each: float = 1.0, floor: float = 0.0) -> Curve:
    """`tokens` at `each` times what an element of their age takes, but at least `floor` (where computing takes longer)."""
    classes = [(age, max(each * size, floor)) for age, size in ages(codec)]
    parts = [tokens.times(classes[-1][1])]
    for (_, size), (age, smaller) in pairwise(classes):
        parts.append(tokens.capped(age).times(size - smaller))
    return total(parts)


def link_rate(link: float, ratio: float, engine: float) -> float:
    """Raw bytes/s of a path that carries compressed bytes behind engines which are rated on the raw side."""
    return min(link * ratio, engine)
