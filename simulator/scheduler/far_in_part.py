"""What a step reads of far KV where that is not all of it: `kvcache.policies.far` over the sequences of a step.

A step has blocks of decodes and blocks of the past of prompt pieces, each sequence with shares of its own. The tiers see the
blocks that a pass over all layers would read (`scan`), and of each of those `crosses` crosses the fabric in the step, so that

    scan * crosses = sum over sequences of their blocks * moved / far bytes of their context

holds exactly for what is far. No events.
"""

from __future__ import annotations

from math import ceil

import numpy as np
from numpy.typing import NDArray

from simulator.kvcache.geometry import Geometry
from simulator.kvcache.policies.curve import Ints
from simulator.kvcache.policies.far import far_reads
from simulator.scenario.resolved import ScenarioResolved

Reads = tuple[tuple[int, int], float]  # (far, all) blocks that are scanned, and what of each crosses the fabric


class FarInPart:
    def __init__(self, scenario: ScenarioResolved, geometry: Geometry):
        self._geometry = geometry
        self._decodes, self._prompts = far_reads(scenario), far_reads(scenario, prompts=True)

    def reads(self, contexts: Ints, far: Ints, past: Ints, pieces: NDArray[np.float64]) -> Reads:
        """Of decodes with these contexts and far blocks, and of prompt pieces with this past: rows of (far, all) blocks."""
        scan, move = self._decodes.ratios(contexts)
        blocks = np.array([far, self._blocks(contexts)])
        scanned, moved = blocks @ scan, blocks @ move
        if len(past):
            scan, move = self._prompts.ratios(past)
            scanned, moved = scanned + scan @ pieces, moved + move @ pieces
        kind = 0 if scanned[0] > 0.0 else 1  # `lru` tells near from far when it sees the scan
        found = ceil(scanned[0] - 1e-9), ceil(scanned[1] - 1e-9)
        return found, float(moved[kind]) / found[kind] if found[kind] else 1.0

    def moved(self, contexts: Ints, blocks: Ints) -> float:
        """Blocks' worth of bytes that cross for decodes with these contexts and far blocks."""
        return float(blocks @ self._decodes.ratios(contexts)[1])

    def _blocks(self, contexts: Ints) -> Ints:
        if self._geometry.stored is not None:
            return self._geometry.blocks_over(contexts)
        return -(-contexts // self._geometry.block_tokens)
