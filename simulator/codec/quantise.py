"""Symmetric quantisation of a block with fp16 scales.

A block is [tokens, channels] of 16-bit floats. Values that share a scale are a *group*: the whole block (as in CXL-SpecKV's
Algorithm 2), or `group` neighbouring channels of one token (a divisor of the channels). With b bits the codes are -m..m,
m = 2^(b-1) - 1:

    scale = fp16(max |x| / m)      code = clip(round(x / scale), -m, m)      value = code * scale

(round half to even; a group of zeros, or one whose scale underflows, has the smallest positive fp16 as its scale). Two bits
leave -1, 0, 1. Codes are packed 8 / bits to a byte, the first one in the low bits, as unsigned offsets from -2^(b-1).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BITS = (8, 4, 2)
SMALLEST = np.float16(2.0**-24)

Codes = NDArray[np.int8]
Scales = NDArray[np.float16]
Block = NDArray[np.float32]


def most(bits: int) -> int:
    """The largest code."""
    return int(2 ** (bits - 1)) - 1


def quantise(block: Block, bits: int, group: int | None) -> tuple[Codes, Scales]:
    """Codes [tokens, channels] and scales [tokens, channels / group] ([1, 1] for one scale a block)."""
    grouped = _grouped(block, group)
    peak = np.abs(grouped).max(axis=-1)
    scales = np.maximum((peak / most(bits)).astype(np.float16), SMALLEST)
    codes = np.rint(grouped / scales[..., None].astype(np.float32))
    limit = most(bits)
    return np.clip(codes, -limit, limit).astype(np.int8).reshape(block.shape), scales


def dequantise(codes: Codes, scales: Scales, group: int | None) -> Block:
    """Values [tokens, channels], float32: exact products of a code and an fp16 scale."""
    grouped = _grouped(codes.astype(np.float32), group)
    return (grouped * scales[..., None].astype(np.float32)).reshape(codes.shape)


def groups(tokens: int, channels: int, group: int | None) -> tuple[int, int]:
    """Shape of the scales of a block."""
    return (1, 1) if group is None else (tokens, channels // group)


def _grouped(block: Block, group: int | None) -> Block:
    tokens, channels = block.shape
    if group is None:
        return block.reshape(1, 1, tokens * channels)
    return block.reshape(tokens, channels // group, group)


def pack(codes: Codes, bits: int) -> bytes:
    """Codes in row order, 8 / bits to a byte; the last byte is filled up with zero bits."""
    unsigned = (codes.ravel().astype(np.int16) + 2 ** (bits - 1)).astype(np.uint8)
    per_byte = 8 // bits
    padded = np.zeros(-(-unsigned.size // per_byte) * per_byte, np.uint8)
    padded[: unsigned.size] = unsigned
    shifts = np.arange(per_byte, dtype=np.uint8) * np.uint8(bits)
    packed: NDArray[np.uint8] = np.bitwise_or.reduce(padded.reshape(-1, per_byte) << shifts, axis=1)
    return packed.tobytes()


def unpack(data: bytes, bits: int, shape: tuple[int, int]) -> Codes:
    """The inverse of `pack`."""
    shifts = np.arange(8 // bits, dtype=np.uint8) * np.uint8(bits)
    unsigned = (np.frombuffer(data, np.uint8)[:, None] >> shifts) & np.uint8(2**bits - 1)
    flat: Codes = (unsigned.ravel()[: shape[0] * shape[1]].astype(np.int16) - 2 ** (bits - 1)).astype(np.int8)
    return flat.reshape(shape)
