"""How big KV is: bytes per token, page and block, and how many blocks a tier holds (design 3.2).

A block is `block_tokens` tokens of one sequence, all layers, K and V, all ranks. A page is the part of a block that
belongs to one layer and one rank. KV is split over the ranks by KV head; with more ranks than heads every rank holds a
copy, so a block has ranks * heads_per_rank / kv_heads copies of each byte; the latent of MLA is on every rank. Pipeline stages
hold their layers of a block, so blocks are counted by what the longest stage takes. Everything follows from the shape.

A model whose layers all have a window keeps the blocks that the window of the next token touches, at most
ceil((window - 1) / block_tokens) + 1 of a sequence: a block that falls out of it is free for the next one. What one prompt
piece reads before its own window is not held beyond that. Under other KV policies (`stored`) a block is memory of that size,
and a sequence has as many as its KV and states fill: a block then holds more tokens the smaller they are. Beside a pool the
newest block of a sequence, and what never leaves HBM (`policies.far`), are `near_blocks`.

Where prefixes are shared, or single pages of a pool have names (`by_name`), blocks are tokens under every policy: with
stored(n) = c n + b(n), b bounded, a block has c of the bytes of the model's own, and a sequence holds ceil(b(n) / c /
block_tokens) more (`beside`) that nobody shares: its newest tokens while they are stored whole, the room for drafted ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np

from simulator.kvcache.by_name import named
from simulator.kvcache.policies.curve import IDENTITY, Curve, Ints
from simulator.kvcache.policies.far import near_tokens
from simulator.kvcache.policies.law import stored as stored_by
from simulator.kvcache.policies.layout import most_blocks
from simulator.kvcache.policies.topology import shares
from simulator.scenario.resolved import ScenarioResolved


@dataclass(frozen=True)
class Geometry:
    """Sizes in raw (uncompressed) bytes unless said otherwise; capacities in blocks."""

    block_tokens: int
    layers: int
    ranks: int  # tensor-parallel
    page_bytes: float  # one layer, one rank
    burst: float
    l1_blocks: int
    l2_bytes: float  # all ranks
    l3_blocks: int
    l3_bytes: float  # stored (compressed) bytes of the pool
    ratio: float
    most_blocks: int = 0  # of one sequence; 0: as many as it has tokens
    near_blocks: int = 1  # of each sequence that are always in L1, if it has so many
    stored: Curve | None = None  # dense tokens whose memory a sequence takes; None: its own
    relative: float = 1.0  # bytes of a block to those of as many tokens of the model's own KV
    beside: Curve | None = None  # tokens of blocks that a sequence takes beside its own; None: none

    @property
    def layer_bytes(self) -> float:
        """One layer of one block on all ranks: what one page per rank moves."""
        return self.page_bytes * self.ranks

    @property
    def block_bytes(self) -> float:
        return self.layer_bytes * self.layers

    @property
    def token_bytes(self) -> float:
        """A token of the model's own KV, all layers and ranks."""
        return self.block_bytes / self.block_tokens / self.relative

    def dense_tokens(self, blocks: int) -> float:
        """Tokens of the model's own KV that take so many blocks."""
        return blocks * self.block_tokens * self.relative

    def blocks(self, tokens: int) -> int:
        """Blocks that hold `tokens` tokens of one sequence."""
        if self.stored is not None:
            return ceil(self.stored.at(tokens) / self.block_tokens - 1e-9) if tokens else 0
        blocks = -(-tokens // self.block_tokens)
        if self.most_blocks:
            return min(blocks, self.most_blocks)
        return blocks if self.beside is None else blocks + self.more_blocks(tokens)

    def more_blocks(self, tokens: int) -> int:
        """Blocks that a sequence has beside those of its tokens."""
        if self.beside is None or not tokens:
            return 0
        return ceil(self.beside.at(tokens) / self.block_tokens - 1e-9)

    @property
    def curved(self) -> bool:
        """A sequence does not just start a block every `block_tokens` tokens."""
        return self.stored is not None or self.beside is not None

    def blocks_over(self, tokens: Ints) -> Ints:
        """The same of many sequences under other KV policies, each with tokens."""
        if self.stored is not None:
            return self._filled(self.stored, tokens)
        assert self.beside is not None
        return -(-tokens // self.block_tokens) + self._filled(self.beside, tokens)

    def _filled(self, curve: Curve, tokens: Ints) -> Ints:
        found: Ints = np.ceil(curve.over(tokens) / self.block_tokens - 1e-9).astype(np.int64)
        return found

    def held(self, tokens: float) -> float:
        """Tokens whose blocks a sequence of so many takes, block by block as fine as tokens."""
        if self.stored is not None:
            return self.stored.at(tokens)
        return tokens if self.beside is None else tokens + self.beside.at(tokens)


def geometry(scenario: ScenarioResolved) -> Geometry:
    """Sizes and capacities of a resolved scenario."""
    model, kv, pool, ranks = scenario.model, scenario.kv, scenario.pool, scenario.gpus.tensor_parallel
    page, most = model.kv_elements(ranks) * model.kv_bytes * kv.block_tokens, most_blocks(model, kv.block_tokens)
    small, stored_as, beside = 1.0, None, None  # bytes of a block relative to the model's own
    if not kv.policies.identity:
        stored_as = stored_by(kv.policies, model, kv.block_tokens).times(shares(kv.policies.latent, ranks))
        if (kv.sharing == "prefix" or named(scenario)) and not most:
            small, beside = stored_as.slope, stored_as.bounded.times(1.0 / stored_as.slope)
            stored_as = None
    page *= small
    block = page * ranks * model.layers
    stage = page * ranks * -(-model.layers // scenario.gpus.pipeline_parallel)
    stored = pool.boards * pool.board.memory / pool.shared_by if pool else 0.0
    ratio, compute = kv.codec.ratio, kv.policies.compute
    near = int(kv.blocks / small) if kv.blocks is not None else int(scenario.l1_per_gpu * ranks // stage)
    if compute.at != "gpu":
        near = int(compute.devices * compute.memory // (model.kv_bytes_per_token * kv.block_tokens * small))
    near_blocks = 1
    if scenario.far_in_place and not kv.policies.identity:
        constant = near_tokens(kv.policies, model, kv.block_tokens) * shares(kv.policies.latent, ranks)
        near_blocks += ceil(constant / kv.block_tokens - 1e-9)
    return Geometry(
        block_tokens=kv.block_tokens,
        layers=model.layers,
        ranks=ranks,
        page_bytes=page,
        burst=kv.burst,
        l1_blocks=near,
        l2_bytes=kv.l2 * ranks,
        l3_blocks=int(stored * ratio // block),
        l3_bytes=stored,
        ratio=ratio,
        most_blocks=most,
        near_blocks=near_blocks,
        stored=None if stored_as == IDENTITY else stored_as,
        relative=small,
        beside=None if beside == Curve() else beside,
    )
