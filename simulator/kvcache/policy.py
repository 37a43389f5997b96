"""A KV policy: nine orthogonal parts, each the identity by default (design section 5).

    layout     what is kept per token and layer: the model's own heads (MHA, GQA), latent (MLA) or window
    codec      stored bytes per raw byte, by tier: 1/ratio in L3, raw in HBM
    retention  which tokens exist: all of them
    selection  which stored tokens a decode step reads: all, or at most `budget` of each sequence
    placement  tiers and eviction
    prefetch   who proposes far pages
    topology   colocated prefill and decode
    sharing    private, or equal prefixes of prompts stored once (`prefix.py`)
    loop       one pass per token

The composition law gives, per sequence of n cached tokens, what is *stored* (capacity), *read* (HBM traffic) and *moved*
(fabric traffic): retention shrinks stored and read, selection shrinks read only, a codec belongs to a tier. A prompt
piece always reads its whole past; selection applies to decode steps. Selected tokens are spread evenly over a sequence,
so the far share of what is read is the far share of what is stored.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from simulator.scenario.resolved import Codec, Model, Prefetch, ScenarioResolved, Selection


@dataclass(frozen=True)
class Layout:
    bytes_per_token_layer: float  # raw, one copy

    @staticmethod
    def of(model: Model) -> Layout:
        return Layout(model.kv_bytes_per_token_layer)


@dataclass(frozen=True)
class Placement:
    l1: float | None  # bytes per GPU
    l2: float
    eviction: str


@dataclass(frozen=True)
class KvPolicy:
    layout: Layout
    codec: Codec
    selection: Selection
    placement: Placement
    prefetch: Prefetch
    retention: str = "full"
    topology: str = "colocated"
    sharing: str = "private"
    loop: str = "autoregressive"

    @staticmethod
    def of(scenario: ScenarioResolved) -> KvPolicy:
        kv = scenario.kv
        placement = Placement(kv.l1, kv.l2, kv.eviction)
        layout = Layout.of(scenario.model)
        return KvPolicy(layout, kv.codec, kv.selection, placement, scenario.prefetch, sharing=kv.sharing)

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
