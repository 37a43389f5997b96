"""Recorded block ids cut to the blocks of a KV cache."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from simulator.workload.requests import HashIds


def block_ids(ids: Sequence[int], id_tokens: int, block_tokens: int, tokens: int, partial: bool = False) -> list[int]:
    """Ids of the full blocks of `block_tokens` tokens, from ids that stand for `id_tokens` tokens each and for all before them;
    with `partial` of the last, partial one as well, where there is an id for it. One size is a multiple of the other.

    Smaller blocks: the parts of one id are numbered; they are equal exactly where the ids are. Larger blocks: the id of the
    last part, since it stands for those before it. `tokens` are what the ids stand for in all: the last id may be that of a
    partial block.
    """
    blocks = -(-tokens // block_tokens) if partial else tokens // block_tokens
    if block_tokens > id_tokens:
        parts = block_tokens // id_tokens
        covered = -(-len(ids) // parts) if partial and len(ids) * id_tokens >= tokens else len(ids) // parts
        return [ids[min((index + 1) * parts, len(ids)) - 1] for index in range(min(blocks, covered))]
    parts = id_tokens // block_tokens
    return [ids[index // parts] * parts + index % parts for index in range(min(blocks, len(ids) * parts))]


def fits(id_tokens: int, block_tokens: int) -> bool:
    """Whether ids of one size name blocks of the other."""
    return id_tokens % block_tokens == 0 or block_tokens % id_tokens == 0


def flat(rows: Sequence[Sequence[int]]) -> HashIds:
    """Lists of ids, one a request, as columns."""
    offsets = np.concatenate(([0], np.cumsum([len(row) for row in rows])))
    return HashIds(np.array([one for row in rows for one in row], dtype=np.int64), offsets.astype(np.int64))
