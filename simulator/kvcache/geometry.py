"""How big KV is: bytes per token, page and block, and how many blocks a tier holds (design 3.2).

A block is `block_tokens` tokens of one sequence, all layers, K and V, all ranks. A page is the part of a block that
belongs to one layer and one rank. KV is split over the ranks by KV head; with more ranks than heads every rank holds a
copy, so a block has ranks * heads_per_rank / kv_heads copies of each byte. Everything follows from the shape.
"""

from __future__ import annotations

from dataclasses import dataclass

from simulator.scenario.resolved import ScenarioResolved


@dataclass(frozen=True)
class Geometry:
    """Sizes in raw (uncompressed) bytes unless said otherwise; capacities in blocks."""

    block_tokens: int
    layers: int
    ranks: int
    page_bytes: float  # one layer, one rank
    burst: float
    l1_blocks: int
    l2_bytes: float  # all ranks
    l3_blocks: int
    l3_bytes: float  # stored (compressed) bytes of the pool
    ratio: float

    @property
    def layer_bytes(self) -> float:
        """One layer of one block on all ranks: what one page per rank moves."""
        return self.page_bytes * self.ranks

    @property
    def block_bytes(self) -> float:
        return self.layer_bytes * self.layers

    def blocks(self, tokens: int) -> int:
        """Blocks that hold `tokens` tokens of one sequence."""
        return -(-tokens // self.block_tokens)


def geometry(scenario: ScenarioResolved) -> Geometry:
    """Sizes and capacities of a resolved scenario."""
    model, kv, pool, ranks = scenario.model, scenario.kv, scenario.pool, scenario.gpus.tensor_parallel
    heads = model.kv_heads_per_rank(ranks)
    page = 2.0 * heads * model.head_dim * model.kv_bytes * kv.block_tokens
    block = page * ranks * model.layers
    stored = pool.boards * pool.board.memory if pool else 0.0
    ratio = kv.codec.ratio
    return Geometry(
        block_tokens=kv.block_tokens,
        layers=model.layers,
        ranks=ranks,
        page_bytes=page,
        burst=kv.burst,
        l1_blocks=int(scenario.l1_per_gpu * ranks // block),
        l2_bytes=kv.l2 * ranks,
        l3_blocks=int(stored * ratio // block),
        l3_bytes=stored,
        ratio=ratio,
    )
