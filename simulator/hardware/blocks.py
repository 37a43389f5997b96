"""Thread blocks of an attention kernel that gives each (tile of query rows, sequence, head) one block.

The GPU hands the blocks out in order, head by head, each to the SM that is free first; a block keeps its SM to its end. So
one long block among short ones, or one block more than there are SMs, costs what it costs on the GPU.

Memory: query heads that share a KV head read it one after the other. A second read is free while both run in the same
wave over the SMs, or as long as the KV of one head of all sequences stays in the L2 cache.

Not modelled: several blocks on one SM at once, blocks of different speed.
Cost: O(blocks log SMs), with at most `WAVES` waves counted one by one.
Source: kernel times of FlashAttention-2 as run by vLLM on two RTX parts (LLMServingSim); see catalog/README.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from heapq import heapreplace
from math import ceil, floor

WAVES = 6  # of blocks that are followed; what is beyond is spread evenly
RESIDENT, EVICTED = 2 / 3, 4 / 3  # of the L2 cache: below the first all second reads hit, above the second none


def makespan(head: Sequence[float], heads: int, multiprocessors: int) -> float:
    """Seconds until the last block ends; `head` has those of one head, in order, and every head has the same."""
    if not head:
        return 0.0
    followed = min(heads, ceil(WAVES * multiprocessors / len(head)))
    free = [0.0] * multiprocessors
    for _ in range(followed):
        for seconds in head:
            heapreplace(free, free[0] + seconds)
    return max(free) + (heads - followed) * sum(head) / multiprocessors


def reads(spacing: float, heads: int, kv_heads: int, multiprocessors: int, equal: bool) -> float:
    """How often KV is read that the cache does not keep: the waves over which the query heads of a KV head are spread.

    Blocks of the same sequence in neighbouring heads are `spacing` blocks apart. Sequences of equal length stay in step
    with the waves, so positions count; others drift, and a neighbour is in another wave with probability spacing / SMs.
    """
    group = heads // kv_heads
    if group <= 1 or spacing <= 0:
        return 1.0
    if equal and spacing < multiprocessors:
        return 1.0 + _crossings(round(spacing, 1), heads, kv_heads, multiprocessors)
    return 1.0 + (group - 1) * min(1.0, spacing / multiprocessors)


@lru_cache(maxsize=4096)
def _crossings(spacing: float, heads: int, kv_heads: int, multiprocessors: int) -> float:
    """Mean number of wave ends between the blocks of a sequence in the query heads of one KV head."""
    group, crossed = heads // kv_heads, 0.0
    for head in range(heads):
        if (head + 1) % group == 0:
            continue  # the next head has a KV head of its own
        middle = (head + 1) * spacing
        end = (floor((middle - spacing) / multiprocessors) + 1) * multiprocessors
        while end < middle + spacing:
            crossed += spacing - abs(end - middle)
            end += multiprocessors
    return min(group - 1.0, crossed / (kv_heads * spacing))


def missed(one_head: float, cache: float) -> float:
    """Share of second reads that miss the cache; `one_head` is the bytes of one KV head of all sequences."""
    return min(1.0, max(0.0, (one_head / cache - RESIDENT) / (EVICTED - RESIDENT)))


def swept(size: float, cache: float) -> float:
    """Share that misses the cache of `size` bytes read in the same order again and again.

    What was used longest ago is evicted first, and that is what is needed next: nothing is found once they do not fit.
    """
    return min(1.0, max(0.0, (size / cache - RESIDENT) / (1.0 - RESIDENT)))
