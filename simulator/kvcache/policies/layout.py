"""Layout: what state a group of layers (or heads) keeps of a sequence of n tokens.

    full           kept(n) = n
    window         kept(n) = min(n, sink + window + fraction * n)         window + sink, strides, windows that grow with n
    ssm, conv      kept(n) = 0, and `state` bytes in each layer
    entries(n)     kept(n) / tokens_per_entry
    bytes(n)       kv_scale * (bytes of a token in a layer of the model) * entries(n) + state

Without groups the model's own layers are the layout: those with a window read it and the others everything. They all keep what
one block table keeps (`held_of`): everything, or the blocks that the window touches if every layer has one.
GQA, MLA and other latents are `kv_scale` (or the model's own kv_heads, kv_latent and rope_dim). A group counts with its share;
layers that run for one token in `run_every` cost that part of their time. Identity: one group, `full`.
"""

from __future__ import annotations

from simulator.kvcache.policies.curve import IDENTITY, Curve
from simulator.scenario.resolved import Layout, LayoutGroup, Model

STATES = ("ssm", "conv")


def groups_of(layout: Layout, model: Model) -> tuple[LayoutGroup, ...]:
    """The groups by what they read; the model's own if the layout names none."""
    if layout.groups:
        return tuple(group for _, group in layout.groups)
    share = model.windowed_layers / model.layers
    windowed = LayoutGroup(share=share, kind="window", window=model.window)
    if share in (0.0, 1.0):
        return (windowed,) if share else (LayoutGroup(),)
    return windowed, LayoutGroup(share=1.0 - share)


def held_of(layout: Layout, model: Model, block_tokens: int) -> tuple[LayoutGroup, ...]:
    """The groups by what they keep."""
    if layout.groups:
        return groups_of(layout, model)
    blocks = most_blocks(model, block_tokens)
    return (LayoutGroup(kind="window", window=blocks * block_tokens) if blocks else LayoutGroup(),)


def most_blocks(model: Model, block_tokens: int) -> int:
    """Blocks that the window of the next token touches at most, where every layer has it; 0: a sequence keeps all."""
    return -(-(model.kept_tokens - 1) // block_tokens) + 1 if model.kept_tokens else 0


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
    return sum(group.share / group.run_every for _, group in layout.groups) if layout.groups else 1.0
