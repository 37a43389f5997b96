"""Blocks in each tier at every step, from when requests were placed, grew and were released.

Occupancy is located by step, not by recorded row, so that it does not depend on how steps were grouped into runs. It
holds for the duration of its step; between steps nothing is held.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from simulator.metrics.recorder import Recorder
from simulator.metrics.steps import Steps

Ints = NDArray[np.int64]
Blocks = Callable[[Ints], Ints]


def blocks_by_step(
    recorder: Recorder, steps: Steps, block_tokens: int, most: int = 0, blocks: Blocks | None = None
) -> NDArray[np.int64]:
    """Blocks of all sequences during each step; a sequence has at most `most` (0: no limit), or `blocks` of its tokens."""
    names = ("decode_step", "decode_cached", "release_step", "placed_blocks", "decoded")
    lanes = np.zeros(len(recorder.release_step), np.int64)
    lanes[list(recorder.lane)] = list(recorder.lane.values())
    last = np.array([*(getattr(recorder, name) for name in names), lanes])
    earlier = np.array(recorder.residences, dtype=np.int64).reshape(-1, len(last)).T
    decode, cached, release, placed, decoded, lane = np.concatenate([last[:, last[2] >= 0], earlier], axis=1)
    works = steps.decodes + steps.prefill > 0  # in the others the replica stood still
    change = np.zeros(int(works.sum()) + 1, dtype=np.int64)
    written = recorder.placements.arrays()
    np.add.at(change, written["step"], written["blocks"])
    if blocks:
        index, at = _by_curve(decode, cached, decoded, blocks)
    else:
        index, at = _by_phase(decode, cached, decoded, block_tokens, most)
    np.add.at(change, release, -(placed + np.bincount(index, minlength=len(release))))
    for number, held_before in enumerate(recorder.held):
        here = at[lane[index] == number] if len(recorder.held) > 1 else at
        np.add.at(change, here + np.searchsorted(np.array(held_before), here, side="right"), 1)
    held: NDArray[np.int64] = np.empty(len(works), dtype=np.int64)
    held[works], held[~works] = np.cumsum(change)[:-1], recorder.standing
    return held


def _by_phase(decode: Ints, cached: Ints, decoded: Ints, block_tokens: int, most: int) -> tuple[Ints, Ints]:
    """(residence, decode step) of each block that a sequence starts: when its cached tokens fill whole blocks."""
    decodes = decode >= 0
    wait = np.where(decodes, (-cached) % block_tokens, 0)
    grown = np.where(decodes, np.maximum(0, -(-(decoded - wait) // block_tokens)), 0)
    if most:
        grown = np.minimum(grown, np.maximum(0, most - -(-cached // block_tokens)))
    index = np.repeat(np.arange(len(grown)), grown)
    nth = np.arange(len(index)) - np.repeat(np.cumsum(grown) - grown, grown)
    return index, (decode + wait)[index] + nth * block_tokens


def _by_curve(decode: Ints, cached: Ints, decoded: Ints, blocks: Blocks) -> tuple[Ints, Ints]:
    """The same where memory follows the tokens by a curve."""
    steps = np.where(decode >= 0, decoded, 0)
    index = np.repeat(np.arange(len(steps)), steps)
    nth = np.arange(len(index)) - np.repeat(np.cumsum(steps) - steps, steps)
    tokens = cached[index] + nth
    more = blocks(tokens + 1) - blocks(tokens)
    return np.repeat(index, more), np.repeat(decode[index] + nth, more)
