"""The composition law: what one sequence of n tokens stores and what reading it costs, per layer (the mean over the layers).

    tokens_g = entries_g(kept_g(retention(n)))                                     layout, retention
    stored   = sum_g share_g * [kv_scale_g * codec(tokens_g) + state_g] * (1 + index_stored)
    read     = sum_g share_g / run_every_g * [codec(selected_g) at max(bytes, FLOPs) + index(tokens_g) + 2 * state_g]

Both in dense tokens: 1 is what a token of the model's own cache takes (its bytes, its time in decode attention). A token costs
the longer of its bytes and its FLOPs, so a codec cannot make attention faster than its arithmetic. A state is read and written.
The identity gives stored(n) = read(n) = n. A written group is a window over what retention has kept; the model's own window is
one of positions, and retention thins out what is in it (after `prefill_end` the whole window: at most what is there).

`Law` is `read` in whole numbers (2^-20 of a token, or of a token in one layer), so that sums over a batch are exact and grow
linearly between turns.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import numpy as np

from simulator.kvcache.policies import codec, layout, loop, retention, selection
from simulator.kvcache.policies.curve import Curve, Ints, total
from simulator.scenario.resolved import LayoutGroup, Model, Policies, Selection

UNITS = 2**20  # of one token
NEVER = 2**40  # tokens: a cap that no context reaches


def stored(policies: Policies, model: Model, block_tokens: int) -> Curve:
    """Dense tokens that the KV and states of a sequence take; of a window of the model, the blocks that it touches."""
    found = []
    for group in layout.held_of(policies.layout, model, block_tokens):
        held = layout.entries(group, kept(policies, group))
        tokens = codec.cost(policies.codec, held, group.kv_scale, raw=codec.raw_bits(model))
        state = Curve(constant=group.state / model.kv_bytes_per_token_layer)
        found.append((tokens.times(1.0 + policies.reading.index_stored) + state).times(group.share))
    rejected = loop.width(policies.loop) - 1 if policies.loop.kind == "speculative" else 0
    return total([*found, Curve(constant=float(rejected))])


def read(policies: Policies, chosen: Selection, model: Model, memory: float, compute: float) -> Curve:
    """Dense-token times of a decode step over one sequence; a dense token takes the longer of `memory` and `compute` s."""
    token = max(memory, compute)
    touched = selection.bytes_of(policies.reading)
    found = []
    for group in layout.groups_of(policies.layout, model):
        tokens = layout.entries(group, kept(policies, group))
        each = group.kv_scale * touched * memory / token
        floor = group.flops_scale * policies.layout.query_heads * touched * compute / token
        chosen_tokens = selection.read(chosen, model.layers, tokens)
        parts = codec.cost(policies.codec, chosen_tokens, each, floor, codec.raw_bits(model))
        scan = selection.index(chosen, model.layers, tokens).times(group.kv_scale * memory / token)
        state = Curve(constant=2.0 * group.state / model.kv_bytes_per_token_layer * memory / token)
        found.append((parts + scan + state).times(group.share / group.run_every))
    return total(found)


def kept(policies: Policies, group: LayoutGroup) -> Curve:
    """Tokens of a sequence that exist in a group."""
    window, alive = layout.kept(group), retention.kept(policies.retention)
    return _through(window, alive) if policies.layout.groups else _through(alive, window)


def _through(outer: Curve, inner: Curve) -> Curve:
    """outer(inner(n)) for concave curves without a constant."""
    return total(inner.capped(cap).times(slope) for cap, slope in outer.terms)


@dataclass(frozen=True)
class Law:
    """Units that a decode step reads: constant + sum_k slope_k * min(n, cap_k) for each sequence, all whole numbers."""

    terms: tuple[tuple[int, int], ...]
    constant: int

    @staticmethod
    def of(curve: Curve, units: float = UNITS) -> Law:
        """In so many units of a dense token."""
        terms = ((NEVER if cap == inf else round(cap), round(slope * units)) for cap, slope in curve.terms)
        return Law(tuple(terms), round(curve.constant * units))

    def units(self, contexts: Ints) -> int:
        """Of all sequences together."""
        found = self.constant * len(contexts)
        return found + sum(slope * int(np.minimum(contexts, cap).sum()) for cap, slope in self.terms)

    def each(self, contexts: Ints) -> Ints:
        """Of each sequence, without the constant."""
        return sum((slope * np.minimum(contexts, cap) for cap, slope in self.terms), np.zeros(len(contexts), np.int64))

    def growth(self, contexts: Ints) -> int:
        """How many more the next step reads."""
        return sum(slope * int((contexts < cap).sum()) for cap, slope in self.terms)

    def steady(self, contexts: Ints) -> float:
        """Steps, this one among them, over which reads grow by `growth` a step."""
        found = inf
        for cap, _ in self.terms:
            before = contexts[contexts < cap]
            if cap < NEVER and len(before):
                found = min(found, cap - int(before.max()) + 1)
        return found
