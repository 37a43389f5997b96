"""The reference codec: exact inverse, bounds on its size, and what its stages give."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from simulator.codec.codec import BLOCK, RUNS, STREAM, Format, blocks, decode, encode, encode_block, quantised
from simulator.codec.quantise import BITS, most, pack, quantise, unpack
from simulator.codec.runs import AXES, LONGEST, deltas, run_lengths, undo_deltas, undo_run_lengths
from simulator.codec.stages import measure
from simulator.codec.tensors import load, scale_group, synthetic

TENSORS = Path(__file__).parents[2] / "traces" / "python_reference"

floats = st.floats(-60000.0, 60000.0, width=16)
formats = st.builds(Format, st.sampled_from(BITS), st.sampled_from(AXES), st.sampled_from([None, 1, 2, 4]), st.integers(1, 9))
tensors = st.one_of(
    arrays.arrays(
        np.float16, arrays.array_shapes(min_dims=2, max_dims=4, max_side=7).map(lambda s: (*s[:-1], 4)), elements=floats
    ),
    arrays.arrays(np.float16, (2, 11, 8), elements=st.sampled_from([0.0, 0.5, -0.5])),
)


@given(tensors, formats)
def test_decoding_gives_the_quantised_tensor(tensor: NDArray[np.float16], form: Format) -> None:
    """Every value equals code times scale, bit for bit. Catches a wrong order of axes, a carry in the differences, a run
    that is cut or joined wrongly, a block that crosses streams."""
    assert np.array_equal(decode(encode(tensor, form)).reshape(tensor.shape), quantised(tensor, form))


@given(tensors, formats)
def test_size_is_bounded_by_raw_and_headers(tensor: NDArray[np.float16], form: Format) -> None:
    """Stored bytes are at most raw fp16 plus headers and scales, and equal to what `measure` adds up. Catches a bypass that
    is not taken and a stage that is counted wrongly."""
    found, stream = measure(tensor, form), encode(tensor, form)
    assert len(stream) == found.stored_bytes <= found.raw_bytes + found.fixed_bytes
    assert found.payload_bytes <= min(found.code_bytes, found.run_bytes)


@given(arrays.arrays(np.int8, (5, 6), elements=st.integers(-127, 127)), st.sampled_from(BITS), st.sampled_from(AXES))
def test_each_stage_has_its_inverse(codes: NDArray[np.int8], bits: int, axis: str) -> None:
    """Packing, differences and run lengths, each alone. Catches an error that another stage hides."""
    codes = np.clip(codes, -most(bits), most(bits)).astype(np.int8)
    assert np.array_equal(unpack(pack(codes, bits), bits, codes.shape), codes)
    changes = deltas(codes, bits, axis)
    assert np.array_equal(undo_deltas(changes, bits, axis, codes.shape), codes)
    assert np.array_equal(undo_run_lengths(run_lengths(changes, bits), bits), changes)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("length", [1, 15, 16, 17, 63, 64, 65, 255, 256, 257, 1000])
def test_runs_are_split_at_the_longest(bits: int, length: int) -> None:
    """ceil(length / longest) pairs. Catches an off-by-one at the largest length that a pair can hold."""
    coded = run_lengths(np.full(length, 1, np.uint8), bits)
    assert len(coded) == -(-length // LONGEST[bits]) * (2 if bits == 8 else 1)
    assert np.array_equal(undo_run_lengths(coded, bits), np.full(length, 1, np.uint8))


@given(arrays.arrays(np.float16, (3, 8), elements=floats), st.sampled_from(BITS))
def test_quantisation_error_is_half_a_step(block: NDArray[np.float16], bits: int) -> None:
    """|value - code * scale| <= scale / 2, plus what rounding the scale to fp16 can cut off at the peak: 11 bits of the scale,
    or half the smallest fp16 where it is subnormal. Catches
    a scale of the wrong group and the authors' own slip of dividing by the peak, not by peak / 127."""
    codes, scales = quantise(block.astype(np.float32), bits, 4)
    values = codes.reshape(3, 2, 4) * scales[..., None].astype(np.float32)
    error = np.abs(values - block.reshape(3, 2, 4).astype(np.float32))
    wide = scales[..., None].astype(np.float32)
    assert (error <= wide / 2 + most(bits) * np.maximum(wide * 2.0**-11, 2.0**-25)).all()


def test_a_constant_tensor_is_all_runs() -> None:
    """2,048 equal codes a block: one first value and the zeros after it, 8 pairs of at most 256 and one of the first code.
    Catches differences that do not start at the block's first code."""
    found = measure(np.full((32, 128), 3.0, np.float16), Format(8, "token", None, 16))
    assert found.payload_bytes == 2 * 2 * 9
    assert found.bypassed == 0.0
    assert found.delta_entropy < 0.02
    assert found.relative_error < 2.0**-11


def test_bypass_is_flagged_block_by_block() -> None:
    """A constant block has its flag set, a random one not. Catches one decision for the whole stream."""
    form = Format(8, "token", None, 16)
    noise = np.random.default_rng(0).standard_normal((16, 64))
    tensor = np.concatenate([np.ones((16, 64)), noise]).astype(np.float16)
    flags = []
    for block in blocks(tensor, form):
        (word,) = BLOCK.unpack_from(encode_block(*quantise(block, 8, None), form))
        flags.append(bool(word & RUNS))
    assert flags == [True, False]


@pytest.mark.parametrize("layer", [0, 3, 7])
@pytest.mark.parametrize("axis", AXES)
def test_delta_and_runs_give_nothing_on_real_keys_and_values(layer: int, axis: str) -> None:
    """On 8-bit codes of a trained transformer's cache the run lengths are larger than raw fp16 codes are halved: every block
    bypasses them, the ratio is that of INT8 and its scales (16 / (8 + 16/64) less the block headers), and even the order-0
    entropy stays below 2.2. Catches a stage that claims more than it stores."""
    tensor = load(TENSORS / f"kv_layer{layer}.npy")
    found = measure(tensor, Format(8, axis, 64, 16))
    ratios = {row["stage"]: row["ratio"] for row in found.rows()}
    assert found.bypassed == 1.0
    assert found.ratio == pytest.approx(16 / (8 + 16 / 64), rel=0.002)
    assert ratios["run lengths"] < 1.01
    assert max(ratios["entropy of codes (bound)"], ratios["entropy of deltas (bound)"]) < 2.2


def test_entropy_bounds_follow_theory() -> None:
    """Gaussian values with a step d have log2(sigma sqrt(2 pi e) / d) bits (within 0.02 at these steps); differences of an
    AR(1) with correlation rho have log2 sqrt(2 (1 - rho)) bits more. Catches an entropy over the wrong counts."""
    for name, extra in (("normal", 0.5 * np.log2(2.0)), ("ar1:0.9", 0.5 * np.log2(0.2))):
        tensor = synthetic(name)
        form = Format(8, "token", None, 4096)
        (block,) = blocks(tensor, form)
        _, scales = quantise(block, 8, None)
        bits = np.log2(float(block.std()) * np.sqrt(2 * np.pi * np.e) / float(scales[0, 0]))
        found = measure(tensor, form)
        assert found.code_entropy == pytest.approx(bits, abs=0.02)
        assert found.delta_entropy == pytest.approx(bits + extra, abs=0.02)


def test_headers_are_small() -> None:
    """24 bytes a stream and 4 a block, said in the format. Catches a header that grows unseen."""
    assert (STREAM.size, BLOCK.size) == (24, 4)
    assert (scale_group(128), scale_group(100)) == (64, 100)
