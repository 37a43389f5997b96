"""Prompt pieces in a layer with a sliding window, as pieces that the attention kernel computes without one.

A row at position i reads min(i, w) keys. Rows before position w are a causal piece as in any layer. The rows after it run in
tiles of 128, each over the w keys before them: pieces of 128 tokens whose past is shortened by half a tile, so that the pairs
of query and key are 128 w to half a pair a row.
"""

from __future__ import annotations

from collections.abc import Iterable

from simulator.hardware.attention import QUERY_TILE


def cuts(pieces: Iterable[tuple[int, int]], window: int) -> bool:
    """Whether a window (0: none) leaves out anything that these pieces (tokens, past) would read."""
    return window > 0 and any(tokens + past > window for tokens, past in pieces)


def cut_to_window(pieces: Iterable[tuple[int, int]], window: int) -> tuple[list[tuple[int, int]], int]:
    """(pieces (tokens, past) that do the work of those given, tokens of KV that they read)."""
    found: list[tuple[int, int]] = []
    read = 0
    for tokens, past in pieces:
        causal = min(tokens, max(0, window - past))
        if causal:
            found.append((causal, past))
        rest = tokens - causal
        for rows in [QUERY_TILE] * (rest // QUERY_TILE) + ([rest % QUERY_TILE] if rest % QUERY_TILE else []):
            found.append((rows, max(0, window - (rows + 1) // 2)))
        read += min(past, window) + tokens
    return found, read
