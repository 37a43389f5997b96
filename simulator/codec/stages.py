"""What each stage of the codec gives on a tensor, in bytes and as a ratio over fp16.

quantise          packed codes, scales and headers
delta             as many codes as before: it prepares runs and saves nothing by itself
run lengths       of the deltas, in every block whether that helps or not
run lengths, bypass   as stored: the smaller of packed codes and run lengths, block by block
entropy           bound: order-0 entropy of the codes, and of their deltas, with one ideal model for the whole tensor (no
                  real coder of that order is smaller; one that adapts to each channel can be)
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator.codec.codec import BLOCK, STREAM, Format, blocks
from simulator.codec.quantise import BITS, dequantise, pack, quantise
from simulator.codec.runs import AXES, deltas, run_lengths
from simulator.codec.tensors import load, scale_group, synthetic
from simulator.errors import InputError, Problem, did_you_mean


@dataclass(frozen=True)
class Stages:
    """Sizes in bytes of one tensor under one format."""

    values: int
    raw_bytes: int  # fp16
    header_bytes: int  # stream and block headers
    scale_bytes: int
    code_bytes: int
    run_bytes: int  # run lengths in every block
    payload_bytes: int  # as stored
    bypassed: float  # share of the blocks stored without run lengths
    code_entropy: float  # bits per value
    delta_entropy: float
    relative_error: float  # root mean square of the quantisation error over that of the values; 0 for a tensor of zeros

    @property
    def fixed_bytes(self) -> int:
        return self.header_bytes + self.scale_bytes

    @property
    def stored_bytes(self) -> int:
        return self.fixed_bytes + self.payload_bytes

    @property
    def ratio(self) -> float:
        """Raw over stored, headers and scales included: what a scenario takes."""
        return self.raw_bytes / self.stored_bytes

    def rows(self) -> list[dict[str, Any]]:
        """(stage, bytes, ratio), in the order of the pipeline, the bounds last."""
        sizes = {
            "raw fp16": self.raw_bytes,
            "quantise": self.fixed_bytes + self.code_bytes,
            "delta": self.fixed_bytes + self.code_bytes,
            "run lengths": self.fixed_bytes + self.run_bytes,
            "run lengths, bypass": self.stored_bytes,
            "entropy of codes (bound)": self.fixed_bytes + self.code_entropy * self.values / 8,
            "entropy of deltas (bound)": self.fixed_bytes + self.delta_entropy * self.values / 8,
        }
        return [{"stage": stage, "bytes": size, "ratio": self.raw_bytes / size} for stage, size in sizes.items()]

    def document(self) -> dict[str, Any]:
        """For `--json`."""
        return {"ratio": self.ratio, "stages": self.rows()} | asdict(self)


def measure(tensor: NDArray[np.floating], form: Format) -> Stages:
    """Run every stage over the tensor [..., tokens, channels]."""
    codes_seen, deltas_seen = np.zeros(2**form.bits, np.int64), np.zeros(2**form.bits, np.int64)
    count = scale_bytes = code_bytes = run_bytes = payload_bytes = bypassed = 0
    error = power = 0.0
    for block in blocks(tensor, form):
        codes, scales = quantise(block, form.bits, form.group)
        changes = deltas(codes, form.bits, form.axis)
        plain, runs = len(pack(codes, form.bits)), len(run_lengths(changes, form.bits))
        count += 1
        scale_bytes += scales.nbytes
        code_bytes += plain
        run_bytes += runs
        payload_bytes += min(plain, runs)
        bypassed += runs >= plain
        codes_seen += np.bincount(codes.ravel().astype(np.int64) % 2**form.bits, minlength=2**form.bits)
        deltas_seen += np.bincount(changes, minlength=2**form.bits)
        error += float(np.square(dequantise(codes, scales, form.group) - block, dtype=np.float64).sum())
        power += float(np.square(block, dtype=np.float64).sum())
    return Stages(
        tensor.size, 2 * tensor.size, STREAM.size + BLOCK.size * count, scale_bytes, code_bytes, run_bytes, payload_bytes,
        bypassed / count, _entropy(codes_seen), _entropy(deltas_seen), (error / power) ** 0.5 if power else 0.0,
    )  # fmt: skip


def stages_of(file: Path | None, name: str | None, bits: int, axis: str) -> Stages:
    """The stages of a file or a named distribution, in blocks of 16 tokens; InputError names every wrong option."""
    problems = []
    if (file is None) == (name is None):
        problems.append(Problem("codec", "", "give either FILE.npy or --synthetic normal|ar1:RHO"))
    if bits not in BITS:
        problems.append(Problem("--bits", "", f"{bits} is not one of 8, 4, 2"))
    if axis not in AXES:
        problems.append(Problem("--axis", "", f"{axis!r} is not token or channel", did_you_mean(axis, AXES)))
    if problems:
        raise InputError(problems)
    tensor = load(file) if file is not None else synthetic(str(name))
    return measure(tensor, Format(bits, axis, scale_group(tensor.shape[-1])))


def _entropy(counts: NDArray[np.int64]) -> float:
    """Bits per symbol."""
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log2(shares)).sum()) + 0.0
