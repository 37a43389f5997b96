"""The sequences that decode together where a KV policy says how much memory each takes (`Geometry.stored`, `.beside`).

As `DecodeBatch`, but a sequence starts a block of memory when its KV fills another one, not every `block_tokens` steps:
what is kept grows slower than the context, and differently for each length. So blocks come from the contexts of all members,
one vector expression a question, instead of from phases. Cost: O(members) a question.
"""

from __future__ import annotations

import numpy as np

from simulator.kvcache.geometry import Geometry
from simulator.kvcache.policies.curve import Ints
from simulator.scheduler.batch import DecodeBatch


class StoredBatch(DecodeBatch):
    def __init__(self, geometry: Geometry):
        self.geometry = geometry
        super().__init__(geometry.block_tokens)

    def _blocks(self, cached: int) -> int:
        return self.geometry.blocks(cached)

    def _full(self, cached: int) -> bool:
        return True  # no phases: `filling` and `_starting` stay empty

    def _contexts(self, ahead: int = 0) -> Ints:
        """Cached tokens of the members `ahead` steps from now."""
        return np.fromiter(self.offset.values(), np.int64, self.size) + (self.step + ahead)

    def starting(self) -> dict[int, None]:
        over = self.geometry.blocks_over
        more = over(self._contexts(1)) > over(self._contexts())
        return dict.fromkeys(request for request, starts in zip(self.offset, more.tolist()) if starts)

    def starts(self, request: int) -> int:
        """More than one where blocks are of a token and an index is stored beside it."""
        cached = self.cached(request)
        return self._blocks(cached + 1) - self._blocks(cached)

    def new_blocks(self, steps: int) -> int:
        over = self.geometry.blocks_over
        return int((over(self._contexts(steps)) - over(self._contexts())).sum())

    def steps_within(self, blocks: int, steps: int) -> int:
        if self.new_blocks(steps) <= blocks:
            return steps
        fits, exceeds = 0, steps
        while exceeds - fits > 1:
            middle = (fits + exceeds) // 2
            if self.new_blocks(middle) <= blocks:
                fits = middle
            else:
                exceeds = middle
        return fits


def batch_of(geometry: Geometry, window: int) -> DecodeBatch:
    """The decoding sequences of a replica; `window`: of the model, where `DecodeBatch` counts what it reads."""
    if geometry.curved:
        return StoredBatch(geometry)
    return DecodeBatch(geometry.block_tokens, window, geometry.most_blocks)
