"""Sharing: KV that several sequences have in common is stored once (`kvcache.prefix`), and may be read once.

    each   t = t_token * sum of contexts
    once   t = max(memory * distinct, compute * reads) + t_token * (sum of contexts - reads)

for `distinct` tokens that at least two sequences of the batch share, which they read `reads` times in all: their bytes cross
once for all, their FLOPs stay (a matrix product instead of matrix-vector ones). A batch of one shares nothing. Under other
policies these are the bytes and FLOPs of an old token; layers with a window do not read it.
A block of a prefix holds what the other policies store of its tokens; a hit gives just that: the kept part of a prompt that
retention thinned out, codes of a codec. States and windows of single layers have no prefix. Identity: `each`.
"""

from __future__ import annotations


def shared_seconds(distinct: float, reads: float, memory: float, compute: float) -> float:
    """Seconds of attention over shared tokens that are read once; per token: `memory` s of bytes, `compute` s of FLOPs."""
    return max(memory * distinct, compute * reads)
