"""Recorded block ids cut to the blocks of a KV cache."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor

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


def thinned_ids(ids: Sequence[int], id_tokens: float, block_tokens: int, tokens: int, partial: bool = False) -> list[int]:
    """The same for ids that stand for any number of tokens, a whole one or not.

    A block has the id in which it ends, and its number among those that do: it is another one wherever the tokens up to the end
    of that id are, which is later than its own end.
    """
    per = id_tokens / block_tokens
    numbers, found = max(1, ceil(per - 1e-9)), list[int]()
    everything = partial and len(ids) * id_tokens >= tokens - 1  # a prompt is rounded up to whole tokens
    for index in range(-(-tokens // block_tokens) if partial else tokens // block_tokens):
        at = ceil((index + 1) / per - 1e-9) - 1
        if at >= len(ids):
            if not everything:
                break
            at = len(ids) - 1
        found.append(ids[at] * numbers + index - floor(at * per + 1e-9))
    return found


def fits(id_tokens: int, block_tokens: int) -> bool:
    """Whether ids of one size name blocks of the other."""
    return id_tokens % block_tokens == 0 or block_tokens % id_tokens == 0


def flat(rows: Sequence[Sequence[int]]) -> HashIds:
    """Lists of ids, one a request, as columns."""
    offsets = np.concatenate(([0], np.cumsum([len(row) for row in rows])))
    return HashIds(np.array([one for row in rows for one in row], dtype=np.int64), offsets.astype(np.int64))
