"""A KV policy: nine orthogonal parts, each the identity by default (design section 5).

    layout     what is kept per token and layer: the model's own heads (MHA, GQA), latent (MLA) or window; or groups
    codec      stored bytes per raw byte, by tier: 1/ratio in L3; in HBM raw, or bits, metadata, residual window
    retention  which tokens exist: all of them, or a part of the prompt or of everything
    selection  which stored tokens a decode step reads: all, or at most `budget` of each sequence
    placement  tiers and eviction; where attention is computed
    prefetch   who proposes far pages
    topology   colocated prefill and decode; latents on every rank, or cut over the ranks
    sharing    private, or equal prefixes of prompts stored once (`prefix.py`) and read by each, or once
    loop       one pass per token, speculation, several workers

Tiers, pages and prefixes are simulated one by one (here, `selection.py`, `prefix.py`); the rest is functions of the context
alone, in `policies/` (formulas there). Beside a pool they say how many blocks a sequence has and what of a far one a step reads
(`policies/far.py`); pages with names hold the same tokens, in fewer bytes, where every token is stored alike.
In a prefix cache blocks are smaller likewise (`geometry.py`). Without a layout the model's own windows are the layout.

The composition law gives, per sequence of n cached tokens, what is *stored* (capacity), *read* (HBM traffic) and *moved*
(fabric traffic): retention shrinks stored and read, selection shrinks read only, a codec belongs to a tier. A prompt
piece always reads its whole past; selection applies to decode steps. Selected tokens are spread evenly over a sequence,
so the far share of what is read is the far share of what is stored.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from simulator.scenario.resolved import Codec, Model, Policies, Prefetch, ScenarioResolved, Selection


@dataclass(frozen=True)
class Native:
    bytes_per_token_layer: float  # raw, one copy

    @staticmethod
    def of(model: Model) -> Native:
        return Native(model.kv_bytes_per_token_layer)


@dataclass(frozen=True)
class Placement:
    l1: float | None  # bytes per GPU
    l2: float
    eviction: str


@dataclass(frozen=True)
class KvPolicy:
    layout: Native
    codec: Codec
    selection: Selection
    placement: Placement
    prefetch: Prefetch
    sharing: str = "private"
    policies: Policies = field(default_factory=Policies)

    @staticmethod
    def of(scenario: ScenarioResolved) -> KvPolicy:
        kv = scenario.kv
        placement = Placement(kv.l1, kv.l2, kv.eviction)
        layout = Native.of(scenario.model)
        return KvPolicy(layout, kv.codec, kv.selection, placement, scenario.prefetch, kv.sharing, kv.policies)

    @property
    def dense(self) -> bool:
        """Every decode step reads all that is stored."""
        return self.selection.kind == "dense"

    def read_tokens(self, contexts: Iterable[int]) -> int:
        """Tokens that one decode step reads over sequences of these contexts."""
        if self.dense:
            return sum(contexts)
        budget = self.selection.budget
        return sum(min(context, budget) for context in contexts)

    def stored_bytes(self, tokens: int, layers: int, tier: str) -> float:
        """Bytes that `tokens` tokens of a sequence occupy in a tier (`l1`, `l2` or `l3`)."""
        raw = tokens * layers * self.layout.bytes_per_token_layer
        return raw / self.codec.ratio if tier == "l3" else raw

    def moved_bytes(self, raw: float, codec_at: str) -> float:
        """Link bytes of `raw` bytes that cross it: compressed only where the codec runs at the GPU."""
        return raw / self.codec.ratio if codec_at == "gpu" else raw
