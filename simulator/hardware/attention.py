"""Time of attention in one layer of one rank: decode rows, prompt pieces, both in one kernel, one long sequence.

Decode, context tokens summed over the batch: max(FLOPs / (eta_F * peak), KV bytes / (eta_B * HBM bandwidth)). A kernel of
the `together` family adds a block for each sequence and KV head.

Imbalance. A kernel that splits long sequences over SMs needs the bytes only. One that gives each (sequence, KV head) to a
single thread block is as slow as its longest block once few are left: all blocks share the HBM bandwidth B evenly, but
none takes more than `attention_sequence_bandwidth` b (loads in flight / latency). With contexts n_1 >= n_2 >= ... and
k blocks left when i sequences are (k = i * KV heads), a token of each takes max(k * bytes / B, bytes / b), so that

    extra = sum over i of (n_i - n_(i+1)) * max(0, bytes / b - k * bytes / B)          bytes of one token and KV head

It does not change while all sequences grow by a token a step. The decode plan splits only while sequences x KV heads are
fewer than the blocks the GPU holds; above that it shows exactly this (`BLOCKS_PER_SM`).

Prefill. Tiles of query rows of one head, each over all keys before it (the causal diagonal in full tiles).

    whole prompts (FA3)   executed FLOPs / (eta_F * peak)
    paged                 the longer of all tiles evenly at eta_paged (with every SM busy the clock is lower and the caches are
                          shared) and, where kernels run apart, the longest tile, each tile being
                              executed FLOPs / (eta_tile * peak / SMs) + `attention_block`;
                          where together, the tiles handed out to the SMs in order (`blocks.py`)

The paged kernels do not split keys: a chunk of 128 tokens and 32 heads keeps a part of the SMs busy, however long its past.

`attention_kernels` says what a step with prompt pieces and decodes runs: `apart`, a kernel each (FlashInfer, as on H100), or
`together`, one paged kernel (FlashAttention-2 under vLLM): every decode row then is a tile of its own for every query head,
its keys are read once for every wave that the heads of its group are in, and the grid holds as many tiles for a decode as for
the longest piece, all but one empty (`EMPTY_BLOCK`). The blocks of the query head that reads a KV head first share the HBM
bandwidth B; with i of them at work a token takes max(key, i * bytes / B), which those of the other heads of the group, served
by L2, do not wait for, unless they run at the same time (SMs / sequences of them do):

    extra = together * KV heads / SMs * sum over i of (n_i - n_(i+1)) * i * max(0, min(i, SMs) * bytes / B - key)

Not modelled: sliding windows (`windows.py`), KV that an earlier kernel left in L2.
Source: FlashInfer 0.6 and FlashAttention-3 on H100, own measurements; LLMServingSim's kernel times; see catalog/README.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import ceil

from simulator.hardware.blocks import makespan, missed, reads
from simulator.hardware.operator import Operator
from simulator.scenario.resolved import Gpu

QUERY_TILE = 128  # rows, whole prompts
KEY_TILE = 64  # keys that a paged kernel loads at a time
EMPTY_BLOCK = 3.7e-7  # s of an SM for a thread block that finds nothing to do: 0.36 and 0.38 us fitted on two RTX parts
BLOCKS_PER_SM = {"cuda_core": 8, "tensor_core": 2, "together": 0.8}  # of the decode plan: for MHA, for GQA, FlashAttention-2


def decode_kernel(gpu: Gpu, heads: float, kv_heads: float) -> str:
    """Which decode kernel runs: FlashInfer has one on CUDA cores for MHA and one on tensor cores, FlashAttention-2 one."""
    if gpu.attention_kernels == "together":
        return "together"
    return "cuda_core" if heads == kv_heads else "tensor_core"


def decode_latency(gpu: Gpu, heads: float, kv_heads: float) -> float:
    """Seconds of a decode kernel besides launch and work: prologue, merge of partial results. None on CUDA cores."""
    return 0.0 if decode_kernel(gpu, heads, kv_heads) == "cuda_core" else gpu.attention_latency


def decode_attention(
    gpu: Gpu, heads: float, kv_heads: float, head_dim: float, kv_bytes: float, context: float, sequences: float = 0.0
) -> Operator:
    """One query row for each of the sequences whose contexts sum to `context` tokens; they divide evenly over the SMs."""
    flops = 4.0 * heads * head_dim * context
    moved = 2.0 * kv_heads * head_dim * kv_bytes * context
    memory = moved / (gpu.attention_bandwidth_efficiency * gpu.memory_bandwidth) + sequences * decode_block(gpu, kv_heads)
    return Operator("decode_attention", flops, moved, flops / (gpu.attention_flops_efficiency * gpu.peak_flops), memory)


def decode_block(gpu: Gpu, kv_heads: float) -> float:
    """Seconds that each sequence of a decode batch costs besides its tokens; a planned kernel (`apart`) has none."""
    return kv_heads * gpu.attention_block / gpu.multiprocessors if gpu.attention_kernels == "together" else 0.0


def decode_imbalance(
    gpu: Gpu, heads: float, kv_heads: float, head_dim: float, kv_bytes: float, contexts: Iterable[int]
) -> float:
    """Extra seconds of a decode kernel without splits over sequences of these contexts; 0 where its plan still splits."""
    lengths = list(contexts)
    if len(lengths) * kv_heads < BLOCKS_PER_SM[decode_kernel(gpu, heads, kv_heads)] * gpu.multiprocessors:
        return 0.0
    token = 2.0 * head_dim * kv_bytes
    alone = token / gpu.attention_sequence_bandwidth
    shared = kv_heads * token / (gpu.attention_bandwidth_efficiency * gpu.memory_bandwidth)
    extra = 0.0
    for left, tokens in _still_running(lengths):
        if alone <= left * shared:
            break
        extra += tokens * (alone - left * shared)
    return extra


def _still_running(contexts: Sequence[int]) -> Iterator[tuple[int, int]]:
    """(number of sequences, tokens that so many and no more of them have), the longest first."""
    lengths = sorted(contexts, reverse=True)
    return enumerate((longer - shorter for longer, shorter in zip(lengths, [*lengths[1:], 0])), start=1)


def prefill_attention(
    gpu: Gpu, heads: float, kv_heads: float, head_dim: float, kv_bytes: float,
    pieces: Sequence[tuple[int, int]], paged: bool | None = None, contexts: Sequence[int] = (),
) -> Operator:  # fmt: skip
    """Causal attention of pieces of (tokens, cached past), in one kernel; paged by default if there is any past.

    `contexts` are the decodes of the step, which share the kernel where kernels run `together`.
    """
    if gpu.attention_kernels == "apart":
        contexts = ()
    pair = 4.0 * head_dim  # FLOPs of a query row and a key, in one head
    flops = sum(tokens * past + tokens * (tokens + 1) / 2 for tokens, past in pieces) + sum(contexts)
    moved = 2.0 * kv_heads * head_dim * kv_bytes * sum(tokens + past for tokens, past in pieces)
    stream = gpu.attention_bandwidth_efficiency * gpu.memory_bandwidth
    if gpu.attention_kernels == "apart" and not (any(past for _, past in pieces) if paged is None else paged):
        executed = sum(QUERY_TILE * keys for tokens, past in pieces for keys in _keys(tokens, past, QUERY_TILE, 1))
        compute = pair * executed * heads / (gpu.attention_flops_efficiency * gpu.peak_flops)
        return Operator("prefill_attention", pair * heads * flops, moved, compute, moved / stream)
    block, key = gpu.attention_block, pair * gpu.attention_tile * gpu.multiprocessors / gpu.peak_flops  # s at peak
    full = key / gpu.paged_attention_flops_efficiency
    key /= gpu.paged_attention_tile_efficiency
    step = KEY_TILE if gpu.attention_kernels == "together" else 1
    tiles = [keys * key + block for tokens, past in pieces for keys in _keys(tokens, past, gpu.attention_tile, step)]
    decodes = [ceil(context / KEY_TILE) * KEY_TILE * key + block for context in contexts]
    if gpu.attention_kernels == "apart":
        compute = max(tiles)  # its plan deals tiles out evenly
    else:
        compute = makespan(tiles + decodes, round(heads), gpu.multiprocessors)
    padding = (len(tiles) + len(decodes)) * block
    work = (sum(tiles) + sum(decodes) - padding) * full / key + padding
    compute = max(compute, work * heads / gpu.multiprocessors)
    if decodes:
        grid = max(-(-tokens // gpu.attention_tile) for tokens, _ in pieces)
        compute += EMPTY_BLOCK * len(decodes) * (grid - 1) * heads / gpu.multiprocessors
        compute += _first_reads(gpu, heads, kv_heads, 2.0 * head_dim * kv_bytes / stream, key, contexts)
        moved += _decode_bytes(gpu, heads, kv_heads, 2.0 * head_dim * kv_bytes, contexts, sum(tiles), sum(decodes))
    return Operator("prefill_attention", pair * heads * flops, moved, compute, moved / stream)


def _keys(tokens: int, past: int, tile: int, step: int) -> list[int]:
    """Keys of each tile of a piece, in whole steps."""
    ends = [past + min(first + tile, tokens) for first in range(0, tokens, tile)]
    return [-(-end // step) * step for end in ends]


def _first_reads(gpu: Gpu, heads: float, kv_heads: float, token: float, key: float, contexts: Sequence[int]) -> float:
    """Seconds that the first reads of KV add to a `together` kernel with these decodes.

    `token`: seconds of HBM for one token of a KV head; `key`: those of a block for a key at its own speed.
    """
    count = gpu.multiprocessors
    extra = sum(tokens * left * max(0.0, min(left, count) * token - key) for left, tokens in _still_running(contexts))
    together = max(1, min(heads // kv_heads, count // len(contexts)))
    return together * kv_heads * extra / count


def _decode_bytes(
    gpu: Gpu, heads: float, kv_heads: float, token: float, contexts: Sequence[int], tiles: float, decodes: float
) -> float:
    """Bytes that the decodes of a `together` kernel read; `token` is those of one token and KV head."""
    total = token * sum(contexts)
    spacing = len(contexts) * (1.0 + tiles / decodes)  # prompt tiles of a head, counted by the time they take
    held = max(1, round(kv_heads))
    again = reads(spacing, round(heads), held, gpu.multiprocessors, min(contexts) == max(contexts)) - 1.0
    return kv_heads * total * (1.0 + again * missed(total, gpu.l2_cache))
