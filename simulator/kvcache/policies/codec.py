"""Codec: bytes of a stored element relative to a raw one of r bits (the model's own), in the memory that attention reads.

    c = [density * (k_bits + v_bits) / 2 + mask_bits + meta_bits / group] / r               or 1 / ratio
    ratios r_i by equal parts of the layers: c = mean of 1 / r_i
    bytes(n) = c * n + (1 - c) * min(n, residual)                                          the newest stay raw
    by age: bits b_0 > b_1 > ... from ages 0, a_1, a_2, ...: sum_i (b_i - b_(i+1)) / r * min(n, a_(i+1)), the last one of n

An element never has more bits than a raw one, so 16 bits beside KV of 8 are raw.
Decoding inside the attention kernel takes no time beside its reads (fused kernels). The pool's codec is another one: it only
changes what is stored in L3 and what crosses its link: rate of a path = min(link * ratio, engines on the raw side).
Identity: 16 bits, no metadata.
"""

from __future__ import annotations

from itertools import pairwise

from simulator.kvcache.policies.curve import Curve, total
from simulator.scenario.resolved import HbmCodec, Model

RAW_BITS = 16.0


def raw_bits(model: Model) -> float:
    return 8.0 * model.kv_bytes


def mean_ratio(ratios: tuple[float, ...]) -> float:
    """The ratio of all, where equal raw bytes have these ratios: their harmonic mean."""
    return len(ratios) / sum(1.0 / ratio for ratio in ratios)


def relative(codec: HbmCodec, raw: float = RAW_BITS) -> float:
    """Stored bytes per raw byte of an element that is not in the residual window; raw ones have `raw` bits."""
    if codec.by_layer:
        return 1.0 / mean_ratio(codec.by_layer)
    if codec.ratio != 1.0:
        return 1.0 / codec.ratio
    bits = codec.density * (min(codec.k_bits, raw) + min(codec.v_bits, raw)) / 2 + codec.mask_bits
    return (bits + (codec.meta_bits / codec.group if codec.group else 0.0)) / raw


def ages(codec: HbmCodec, raw: float = RAW_BITS) -> list[tuple[float, float]]:
    """(older than, stored bytes per raw byte), youngest first."""
    if codec.by_age:
        return sorted((float(age.older_than), min(age.bits, raw) / raw) for _, age in codec.by_age)
    small = relative(codec, raw)
    return [(0.0, 1.0), (float(codec.residual), small)] if codec.residual and small < 1.0 else [(0.0, small)]


def cost(codec: HbmCodec, tokens: Curve, each: float = 1.0, floor: float = 0.0, raw: float = RAW_BITS) -> Curve:
    """`tokens` at `each` times what an element of their age takes, but at least `floor` (where computing takes longer)."""
    classes = [(age, max(each * size, floor)) for age, size in ages(codec, raw)]
    parts = [tokens.times(classes[-1][1])]
    for (_, size), (age, smaller) in pairwise(classes):
        parts.append(tokens.capped(age).times(size - smaller))
    return total(parts)


def link_rate(link: float, ratio: float, engine: float) -> float:
    """Raw bytes/s of a path that carries compressed bytes behind engines which are rated on the raw side."""
    return min(link * ratio, engine)
