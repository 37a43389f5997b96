"""Blocks in each tier at every step, from when requests were placed, grew and were released.

Occupancy is located by step, not by recorded row, so that it does not depend on how steps were grouped into runs. It
holds for the duration of its step; between steps nothing is held.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulator.metrics.recorder import Recorder
from simulator.metrics.steps import Steps


def blocks_by_step(recorder: Recorder, steps: Steps, block_tokens: int, most: int = 0) -> NDArray[np.int64]:
    """Blocks of all sequences during each step; a sequence has at most `most` (0: no limit)."""
    rows = [
        *zip(recorder.decode_step, recorder.decode_cached, recorder.release_step, recorder.placed_blocks, strict=True),
        *recorder.residences,
    ]
    table = np.array(rows, dtype=np.int64).reshape(-1, 4)
    decode, cached, release, placed = table[table[:, 2] >= 0].T
    works = steps.decodes + steps.prefill > 0  # in the others the replica stood still
    change = np.zeros(int(works.sum()) + 1, dtype=np.int64)
    written = np.array(recorder.placements, dtype=np.int64).reshape(-1, 2)
    np.add.at(change, written[:, 0], written[:, 1])
    # a decoding sequence starts a block in the steps where its cached tokens fill whole blocks
    decodes = decode >= 0
    start = np.where(decodes, decode + (-cached) % block_tokens, release)
    grown = np.maximum(0, -(-(release - start) // block_tokens))
    if most:
        grown = np.minimum(grown, np.maximum(0, most - -(-cached // block_tokens)))
    np.add.at(change, release, -(placed + grown))
    index = np.repeat(np.arange(len(grown)), grown)
    nth = np.arange(len(index)) - np.repeat(np.cumsum(grown) - grown, grown)
    np.add.at(change, start[index] + nth * block_tokens, 1)
    held: NDArray[np.int64] = np.empty(len(works), dtype=np.int64)
    held[works], held[~works] = np.cumsum(change)[:-1], recorder.standing
    return held
