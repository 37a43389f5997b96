"""Order-n Markov model: the successors of the last n tokens, most frequent first, with back-off.

Trained by counting: for every order m = 0..n the successors of each context of m tokens. A prediction takes the k most
frequent successors of the longest context that was seen, then fills up from shorter ones; ties go to the smaller id, so the
result depends on nothing but the text. A look-up costs one hash probe an order.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulator.prefetch.token_model.stream import VOCABULARY, Tokens

KEPT = 16  # successors that are kept of each context: the most that are asked for


class Markov:
    """`order` tokens of context (0: the most frequent tokens, whatever came before)."""

    def __init__(self, order: int, tokens: Tokens):
        self.order = order
        self._tables = [_successors(tokens, m) for m in range(order + 1)]

    def top(self, history: Tokens, k: int) -> NDArray[np.int64]:
        """The k most likely next tokens after `history`, best first."""
        found: dict[int, None] = {}
        for m in range(min(self.order, len(history)), -1, -1):
            context = _key(history[len(history) - m :])
            for token in self._tables[m].get(context, ()):
                found[token] = None
                if len(found) == k:
                    return np.fromiter(found, np.int64, k)
        return np.fromiter(found, np.int64, len(found))

    def predict(self, tokens: Tokens, k: int) -> NDArray[np.int64]:
        """[len(tokens) - 1, k]: the guesses for each token after the first, from all that precede it."""
        guesses = np.full((len(tokens) - 1, k), -1)
        for place in range(1, len(tokens)):
            top = self.top(tokens[max(0, place - self.order) : place], k)
            guesses[place - 1, : len(top)] = top
        return guesses


def _key(context: Tokens) -> int:
    key = 0
    for token in context.tolist():
        key = key * VOCABULARY + token
    return key


def _successors(tokens: Tokens, order: int) -> dict[int, tuple[int, ...]]:
    """Context of `order` tokens -> its successors, most frequent first."""
    if order > 5:
        raise ValueError(f"contexts of {order} tokens do not fit a 64-bit key")
    keys = np.zeros(len(tokens) - order, np.int64)
    for offset in range(order):
        keys = keys * VOCABULARY + tokens[offset : len(tokens) - order + offset]
    following = tokens[order:]
    by_context = np.lexsort((following, keys))
    keys, following = keys[by_context], following[by_context]
    new = np.flatnonzero(np.diff(keys, prepend=-1) | np.diff(following, prepend=-1))
    counts = np.diff(new, append=len(keys))
    keys, following = keys[new], following[new]
    by_count = np.lexsort((following, -counts, keys))
    keys, following = keys[by_count], following[by_count]
    starts = np.flatnonzero(np.diff(keys, prepend=-1))
    ends = np.append(starts[1:], len(keys))
    listed = following.tolist()
    return {
        int(keys[start]): tuple(listed[start : min(end, start + KEPT)]) for start, end in zip(starts.tolist(), ends.tolist())
    }
