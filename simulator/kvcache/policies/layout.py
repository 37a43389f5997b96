"""Layout: what state a group of layers (or heads) keeps of a sequence of n tokens.

    full           kept(n) = n
    window         kept(n) = min(n, sink + window + fraction * n)         window + sink, strides, windows that grow with n
    ssm, conv      kept(n) = 0, and `state` bytes in each layer
    entries(n)     kept(n) / tokens_per_entry
    bytes(n)       kv_scale * (bytes of a token in a layer of the model) * entries(n) + state

GQA, MLA and other latents are `kv_scale` (or the model's own kv_heads, kv_latent and rope_dim). A group counts with its share;
layers that run for one token in `run_every` cost that part of their time. Identity: one group, `full`.
"""

from __future__ import annotations

from simulator.kvcache.policies.curve import IDENTITY, Curve
from simulator.scenario.resolved import Layout, LayoutGroup

STATES = ("ssm", "conv")


def groups_of(layout: Layout) -> tuple[LayoutGroup, ...]:
    """The groups; the model's own if the layout names none."""
    return tuple(group for _, group in layout.groups) or (LayoutGroup(),)


def kept(group: LayoutGroup) -> Curve:
    """Tokens of a sequence that the group keeps."""
    if group.kind in STATES:
        return Curve()
    if group.kind == "full":
        return IDENTITY
    grows, fixed = min(1.0, group.fraction), group.sink + group.window
    if grows == 1.0:
        return IDENTITY
    return Curve.of([(fixed / (1.0 - grows), 1.0 - grows), (float("inf"), grows)])


def entries(group: LayoutGroup, tokens: Curve) -> Curve:
    """Entries that hold the kept ones of so many tokens."""
    return tokens.times(1.0 / group.tokens_per_entry)


def layers_run(layout: Layout) -> float:
    """Share of the layers that the mean token runs through."""
    return sum(group.share / group.run_every for group in groups_of(layout))
