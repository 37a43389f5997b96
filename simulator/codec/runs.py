"""Delta and run lengths over the codes of a block.

    delta        d_0 = q_0, d_i = (q_i - q_(i-1)) mod 2^bits along one axis of the block: `channel` compares neighbouring
                 channels of a token (CXL-SpecKV's order, row by row), `token` the same channel of neighbouring tokens
    run lengths  (value, length) pairs in the order of that axis. Eight bits: a byte each, runs up to 256. Four and two
                 bits: value and length share a byte, runs up to 16 and 64.

So with 8 bits the size against fp16 equals the mean run length: below two, plain codes are smaller, and a block that run
lengths do not shrink is stored without them (`codec.py`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulator.codec.quantise import Codes

AXES = ("token", "channel")
LONGEST = {8: 256, 4: 16, 2: 64}

Deltas = NDArray[np.uint8]


def deltas(codes: Codes, bits: int, axis: str) -> Deltas:
    """Differences modulo 2^bits as one stream: the codes of one token after another, or of one channel after another."""
    stream = _stream(codes, axis)
    changes: Deltas = (np.diff(stream.astype(np.int16), prepend=np.int16(0)) % 2**bits).astype(np.uint8)
    return changes


def undo_deltas(stream: Deltas, bits: int, axis: str, shape: tuple[int, int]) -> Codes:
    """The inverse of `deltas`."""
    total = np.cumsum(stream, dtype=np.int64) % 2**bits
    codes: Codes = np.where(total >= 2 ** (bits - 1), total - 2**bits, total).astype(np.int8)
    return codes.reshape(shape) if axis == "channel" else codes.reshape(shape[::-1]).T


def _stream(codes: Codes, axis: str) -> Codes:
    return (codes if axis == "channel" else codes.T).ravel()


def run_lengths(stream: Deltas, bits: int) -> bytes:
    """(value, length) pairs; runs longer than the longest are split."""
    longest = LONGEST[bits]
    starts = np.flatnonzero(np.diff(stream.astype(np.int16), prepend=np.int16(-1)))
    lengths = np.diff(starts, append=stream.size)
    pieces = -(-lengths // longest)
    values = np.repeat(stream[starts], pieces)
    sizes = np.full(values.size, longest)
    sizes[np.cumsum(pieces) - 1] = lengths - (pieces - 1) * longest
    if bits == 8:
        return np.stack([values, (sizes - 1).astype(np.uint8)], axis=1).tobytes()
    return (values | ((sizes - 1) << bits).astype(np.uint8)).astype(np.uint8).tobytes()


def undo_run_lengths(data: bytes, bits: int) -> Deltas:
    """The inverse of `run_lengths`."""
    raw = np.frombuffer(data, np.uint8)
    if bits == 8:
        return np.repeat(raw[0::2], raw[1::2].astype(np.int64) + 1)
    return np.repeat(raw & np.uint8(2**bits - 1), (raw >> np.uint8(bits)).astype(np.int64) + 1)
