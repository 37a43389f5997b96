"""Numeric formats of weights: the rate at which their products run, and what converting them costs.

    bf16, fp16   products at `peak_flops`
    fp8          weights and activations in 8 bits, products at `fp8_flops`; where the GPU has no such unit (0), weights are
                 stored in 8 bits and converted to bf16
    int8         likewise with `int8_flops`
    int4         weights stored in 4 bits with a scale a group, converted to bf16: products at `peak_flops`

Conversion happens in registers, once for every tile of 64 rows that uses a weight, at 128 elements a clock and SM (two
elements an instruction, two instructions an element pair): 25e12 elements/s on H100. It is added to the compute side, so it
hides behind the stream of weights up to about 64 rows and costs up to a fifth of the product above.
KV in 8 or 4 bits is widened inside the attention kernels; only its bytes count (`Model.kv_bytes`).

Not modelled: activations of 8 bits in the bytes of a product, scaling passes over activations, layers that a checkpoint
leaves in 16 bits other than the embeddings.
Source: the kernels' published designs (recalled); no measurement behind them, hence an assumption.
"""

from __future__ import annotations

from dataclasses import replace
from math import ceil

from simulator.scenario.resolved import Gpu

BAND = 64  # rows of a product that share one conversion of its weights
CONVERSIONS = 128 * 1.5e9  # elements/s of one SM at 1.5 GHz
SIXTEEN_BITS = ("bf16", "fp16")


def native(gpu: Gpu, precision: str) -> bool:
    """The GPU multiplies this format as it is."""
    rates = {"fp8": gpu.fp8_flops, "int8": gpu.int8_flops}
    return precision in SIXTEEN_BITS or rates.get(precision, 0.0) > 0.0


def for_precision(gpu: Gpu, precision: str) -> Gpu:
    """The GPU as products of this format see it: its peak rate is that of the format, and tiles load operands of 8 bits.

    `gemm.py` counts operands of 16 bits, so half the bytes are twice the bandwidth.
    """
    if precision in SIXTEEN_BITS or not native(gpu, precision):
        return gpu
    peak = gpu.fp8_flops if precision == "fp8" else gpu.int8_flops
    return replace(gpu, peak_flops=peak, gemm_operand_bandwidth=2.0 * gpu.gemm_operand_bandwidth)


def conversion_seconds(gpu: Gpu, precision: str, rows: float, columns: float, inner: float) -> float:
    """Seconds of converting the weights of a product of that many rows; 0 where the format is native."""
    if native(gpu, precision):
        return 0.0
    return ceil(rows / BAND) * columns * inner / (gpu.multiprocessors * CONVERSIONS)
