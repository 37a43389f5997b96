"""How much of the prompts a prefix cache could have held: counts over block hashes, with zero service time.

Ids are chained, so a block can be reused only if all blocks before it can: what counts is the *leading run* of a
request's blocks that are present. The finite cache is one exact LRU over blocks: per request, count the leading run,
touch the blocks from last to first (so that the head of the prefix is the most recent), then evict from the old end.
Not modelled: time between a request and its blocks being there, several caches, blocks of generated tokens.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import takewhile
from typing import Any

import numpy as np

from simulator.workload.requests import HashIds, Ints, Requests

CAPACITIES = (0, 1_000, 5_000, 10_000, 30_000, 50_000, 100_000)  # blocks; 0: unbounded


def prefix_reuse(requests: Requests, hash_ids: HashIds) -> dict[str, Any]:
    """Shares of blocks, requests and prompt tokens that were there before, by capacity for one LRU cache."""
    rows = [hash_ids[row].tolist() for row in range(len(hash_ids))]
    total = len(hash_ids.flat)
    runs = unbounded_runs(requests).tolist()
    unique = len(set(hash_ids.flat.tolist()))
    lengths = requests.input_tokens.tolist()
    hit_tokens = sum(min(run * requests.block_tokens, tokens) for run, tokens in zip(runs, lengths))
    by_capacity = {size: runs if size == 0 else leading_runs(rows, size) for size in CAPACITIES}
    return {
        "blocks_total": total,
        "blocks_unique": unique,
        "leading_run_fraction": round(sum(runs) / total, 4),
        "lru_leading_run_hit_by_capacity_blocks": {
            str(size): round(sum(found) / total, 4) for size, found in by_capacity.items()
        },
        "repeated_block_fraction": round(_repeated(rows) / total, 4),
        "requests_with_any_hit": round(sum(run > 0 for run in runs) / len(runs), 4),
        "token_hit_fraction": round(hit_tokens / sum(lengths), 4),
    }


def unbounded_runs(requests: Requests) -> Ints:
    """For each request in order, how many of its first blocks an earlier request had."""
    ids = requests.hash_ids
    assert ids is not None
    row = np.repeat(np.arange(len(ids)), np.diff(ids.offsets))
    _, number = np.unique(ids.flat, return_inverse=True)
    first = np.full(number.max(initial=-1) + 1, len(ids))
    np.minimum.at(first, number, row)
    new = np.flatnonzero(first[number] == row)  # blocks that no earlier request had, in the order of requests
    begin, end = ids.offsets[:-1], ids.offsets[1:]
    at = np.searchsorted(new, begin)
    stop = np.append(new, ids.offsets[-1])[at]
    runs: Ints = np.minimum(stop, end) - begin
    return runs


def leading_runs(rows: list[list[int]], capacity: int) -> list[int]:
    """For each request in order, how many of its first blocks an LRU of `capacity` blocks (0: unbounded) holds."""
    cache: OrderedDict[int, None] = OrderedDict()
    runs = []
    for blocks in rows:
        runs.append(sum(1 for _ in takewhile(cache.__contains__, blocks)))
        for block in reversed(blocks):
            cache[block] = None
            cache.move_to_end(block)
        while capacity and len(cache) > capacity:
            cache.popitem(last=False)
    return runs


def _repeated(rows: list[list[int]]) -> int:
    """Blocks that an earlier request had, in the leading run or not."""
    seen: set[int] = set()
    count = 0
    for blocks in rows:
        count += sum(block in seen for block in blocks)
        seen.update(blocks)
    return count
