"""The prefetcher of CXL-SpecKV as its authors publish it (Algorithm 1, prefetch_core.v, speculative_prefetcher.cpp).

After each token, for every layer and sequence, one call of the token predictor with the last 16 tokens gives k candidates
for the next token, and a page is fetched for each of them. The address is that of *position + i*, i = 1..k: the candidates
themselves are never looked at. Two readings of it:

    positions  as published. Position + i has no KV yet: it lies in the newest block, which is in L1, or nowhere. Every
               proposal is dropped, and the calls are paid for all the same
    far_pages  as the authors explained it afterwards: the candidates are the far pages of the next `depth` layers in their
               order, and the first k of each sequence are worth moving. With dense attention these are right

k is `guesses` (the authors: 2 to 8, start 4; `control: additive` is their rule). Hints beyond the queue (16 in software, 256 in
the driver) are dropped, the oldest first; wrong pages are not evicted but overwritten (lazy invalidation): `service.py`, L2.
Far pages are taken as spread evenly over the sequences.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from simulator.scenario.resolved import Prefetch


class CxlSpecKv:
    wraps, knows_the_future = True, False
    rounds = "layer"

    def __init__(self, spec: Prefetch, rng: np.random.Generator):
        self.depth = spec.guesses  # what depth control changes
        self._layers, self._exist = spec.depth, spec.addresses == "far_pages"

    def window(self, layers: int) -> int:
        return min(self._layers, layers)

    def nowhere(self, layers: int, sequences: int) -> int:
        """Pages proposed in a step that are not in L3 yet."""
        return 0 if self._exist else self.depth * sequences * layers

    def propose(self, far: Sequence[int], sequences: int = 1) -> tuple[Sequence[int], Sequence[int]]:
        hinted = self.depth * sequences
        return [min(pages, hinted) if self._exist else 0 for pages in far], [0] * len(far)
