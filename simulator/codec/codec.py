"""Encode and decode a tensor: blocks of `block_tokens` tokens, byte aligned, each with a header and a way around.

    stream   magic "SKV1" | bits, axis (0 token, 1 channel) : 1 byte each | group : 2 (0: one scale a block)
             | block_tokens, tokens, channels, streams : 4 each
    block    payload bytes, the top bit set if run lengths are in use : 4 | scales : 2 each | payload

A tensor is [streams..., tokens, channels] (streams: keys and values, heads, sequences, in any number of leading axes,
which the stream keeps as one); a block never crosses a stream. Its payload is run lengths of deltas where they are smaller
than the packed codes, else those (*bypass*), so that it is never larger than codes: half of raw at 8 bits. Decoding gives
exactly `code * scale` of every value. All integers are little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulator.codec.quantise import Block, Codes, Scales, dequantise, groups, pack, quantise, unpack
from simulator.codec.runs import AXES, deltas, run_lengths, undo_deltas, undo_run_lengths

MAGIC = b"SKV1"
STREAM = struct.Struct("<4sBBHIIII")
BLOCK = struct.Struct("<I")
RUNS = 1 << 31


@dataclass(frozen=True)
class Format:
    bits: int = 8
    axis: str = "token"
    group: int | None = 64  # channels that share a scale; None: one scale a block
    block_tokens: int = 16


def blocks(tensor: NDArray[np.floating], form: Format) -> Iterator[Block]:
    """The blocks of a tensor [..., tokens, channels] in order, float32."""
    streams = tensor.reshape(-1, *tensor.shape[-2:])
    for stream in streams:
        for first in range(0, stream.shape[0], form.block_tokens):
            yield stream[first : first + form.block_tokens].astype(np.float32)


def quantised(tensor: NDArray[np.floating], form: Format) -> NDArray[np.float32]:
    """What decoding gives back: the tensor after quantisation, same shape."""
    parts = [dequantise(*quantise(block, form.bits, form.group), form.group) for block in blocks(tensor, form)]
    return np.concatenate([part.ravel() for part in parts]).reshape(tensor.shape)


def encode_block(codes: Codes, scales: Scales, form: Format) -> bytes:
    plain = pack(codes, form.bits)
    runs = run_lengths(deltas(codes, form.bits, form.axis), form.bits)
    payload, flag = (runs, RUNS) if len(runs) < len(plain) else (plain, 0)
    return BLOCK.pack(len(payload) | flag) + scales.tobytes() + payload


def encode(tensor: NDArray[np.floating], form: Format) -> bytes:
    """The tensor [..., tokens, channels] as bytes."""
    tokens, channels = tensor.shape[-2:]
    streams = tensor.size // (tokens * channels)
    head = STREAM.pack(MAGIC, form.bits, AXES.index(form.axis), form.group or 0, form.block_tokens, tokens, channels, streams)
    coded = [encode_block(*quantise(block, form.bits, form.group), form) for block in blocks(tensor, form)]
    return head + b"".join(coded)


def decode(data: bytes) -> NDArray[np.float32]:
    """[streams, tokens, channels]: the inverse of `encode`, exactly `quantised`."""
    magic, bits, axis_code, group, block_tokens, tokens, channels, streams = STREAM.unpack_from(data)
    if magic != MAGIC:
        raise ValueError(f"not an encoded tensor: starts with {magic!r}, not {MAGIC!r}")
    out = np.empty((streams, tokens, channels), np.float32)
    place = STREAM.size
    for stream in out:
        for first in range(0, tokens, block_tokens):
            rows = min(block_tokens, tokens - first)
            (word,) = BLOCK.unpack_from(data, place)
            place += BLOCK.size
            shape = groups(rows, channels, group or None)
            scales = np.frombuffer(data, np.float16, shape[0] * shape[1], place).reshape(shape)
            place += scales.nbytes
            payload = data[place : place + (word & ~RUNS)]
            place += len(payload)
            if word & RUNS:
                codes = undo_deltas(undo_run_lengths(payload, bits), bits, AXES[axis_code], (rows, channels))
            else:
                codes = unpack(payload, bits, (rows, channels))
            stream[first : first + rows] = dequantise(codes, scales, group or None)
    return out
