"""Time of attention in one layer of one rank: decode rows, prompt pieces, and what one long sequence costs.

Decode, context tokens summed over the batch: max(FLOPs / (eta_F * peak), KV bytes / (eta_B * HBM bandwidth)).

Imbalance. A kernel that splits long sequences over SMs needs the bytes only. One that gives each (sequence, KV head) to a
single thread block is as slow as its longest block once few are left: all blocks share the HBM bandwidth B evenly, but
none takes more than `attention_sequence_bandwidth` b (loads in flight / latency). With contexts n_1 >= n_2 >= ... and
k blocks left when i sequences are (k = i * KV heads), a token of each takes max(k * bytes / B, bytes / b), so that

    extra = sum over i of (n_i - n_(i+1)) * max(0, bytes / b - k * bytes / B)          bytes of one token and KV head

It does not change while all sequences grow by a token a step. FlashInfer's decode plan splits only while sequences x KV
heads are fewer than the blocks the GPU holds; above that it shows exactly this (`BLOCKS_PER_SM`).

Prefill: tiles of 128 query rows of one head, each over all keys before it (the causal diagonal in full tiles).

    contiguous (no cached past)   executed FLOPs / (eta_F * peak)
    paged (a chunk over a past)   max(executed / (eta_paged * peak), longest tile / (eta_tile * peak / SMs))

The paged kernel does not split keys: a chunk of 128 tokens and 32 heads keeps 32 of 132 SMs busy, however long its past.
A tile that is nearly alone runs faster (eta_tile > eta_paged): the clock is higher and the caches are its own.

Not modelled: KV bytes read again by the query tiles of a head (they hit L2), sliding windows.
Source: FlashInfer 0.6 and FlashAttention-3 on H100, own measurements; see catalog/README.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from simulator.hardware.operator import Operator
from simulator.scenario.resolved import Gpu

QUERY_TILE = 128  # rows
BLOCKS_PER_SM = {"cuda_core": 8, "tensor_core": 2}  # resident thread blocks of the decode kernels for MHA and for GQA


def decode_attention(gpu: Gpu, heads: float, kv_heads: int, head_dim: int, kv_bytes: float, context: float) -> Operator:
    """One query row for each of the sequences whose contexts sum to `context` tokens; they divide evenly over the SMs."""
    flops = 4.0 * heads * head_dim * context
    moved = 2.0 * kv_heads * head_dim * kv_bytes * context
    memory = moved / (gpu.attention_bandwidth_efficiency * gpu.memory_bandwidth)
    return Operator("decode_attention", flops, moved, flops / (gpu.attention_flops_efficiency * gpu.peak_flops), memory)


def decode_imbalance(gpu: Gpu, heads: float, kv_heads: int, head_dim: int, kv_bytes: float, contexts: Iterable[int]) -> float:
    """Extra seconds of a decode kernel without splits over sequences of these contexts; 0 where its plan still splits."""
    lengths = sorted(contexts, reverse=True)
    kernel = "cuda_core" if heads == kv_heads else "tensor_core"
    if len(lengths) * kv_heads < BLOCKS_PER_SM[kernel] * gpu.multiprocessors:
        return 0.0
    token = 2.0 * head_dim * kv_bytes
    alone = token / gpu.attention_sequence_bandwidth
    shared = kv_heads * token / (gpu.attention_bandwidth_efficiency * gpu.memory_bandwidth)
    extra = 0.0
    for left, (longer, shorter) in enumerate(zip(lengths, [*lengths[1:], 0]), start=1):
        if alone <= left * shared:
            break
        extra += (longer - shorter) * (alone - left * shared)
    return extra


def prefill_attention(
    gpu: Gpu, heads: float, kv_heads: int, head_dim: int, kv_bytes: float,
    pieces: Sequence[tuple[int, int]], paged: bool | None = None,
) -> Operator:  # fmt: skip
    """Causal attention of pieces of (tokens, cached past), in one kernel; paged by default if there is any past."""
    flops = moved = executed = longest = 0.0
    for tokens, past in pieces:
        tiles = -(-tokens // QUERY_TILE)
        rows = tiles * QUERY_TILE
        flops += tokens * past + tokens * (tokens + 1) / 2
        executed += rows * past + QUERY_TILE * (tokens + QUERY_TILE * tiles * (tiles - 1) / 2)
        longest = max(longest, float(QUERY_TILE * (past + tokens)))
        moved += past + tokens
    pair = 4.0 * head_dim  # FLOPs of a query row and a key, in one head
    if paged is None:
        paged = any(past for _, past in pieces)
    if paged:
        together = executed * heads / gpu.paged_attention_flops_efficiency
        alone = longest * gpu.multiprocessors / gpu.paged_attention_tile_efficiency
        compute = pair * max(together, alone) / gpu.peak_flops
    else:
        compute = pair * executed * heads / (gpu.attention_flops_efficiency * gpu.peak_flops)
    kv = 2.0 * kv_heads * head_dim * kv_bytes * moved
    memory = kv / (gpu.attention_bandwidth_efficiency * gpu.memory_bandwidth)
    return Operator("prefill_attention", pair * heads * flops, kv, compute, memory)
