"""Time of a matrix product of M rows (tokens), N outputs, K inputs on one GPU.

    memory   bytes / (eta_B * HBM bandwidth); bytes = weights once, activations in and out
    compute  the longer of
               tiles at full clocks   waves * SMs * 2 * TILE^2 * K / (eta_F * peak),
                                      waves = ceil(SPLIT * ceil(M / TILE) * ceil(N / TILE) / SMs) / SPLIT
               the power limit        2 M N K / (eta_sustained * peak)
    time     max + exposed * min (`operator.py`); the launch is counted by the step

Tiles: outputs are computed in tiles of 64 x 64, all SMs at a time, so 65 rows cost as much as 128, and a product with
few tiles leaves SMs idle; libraries then split K in two (SPLIT), so waves come in halves. Libraries use larger tiles where
they are as good; the 64 x 64 tile has the least waste, and is what best agrees with the measured shapes (128 x 128 is off
by up to a factor of 3 on narrow products).
Power: dense products draw more than the board may, and the clock falls until they do not (1980 to 1365 MHz on H100).
Idle SMs draw little, so waste of tiles and the power limit do not add up: the longer one counts. A product timed alone
for less than a millisecond does not meet the limit: `sustained=False`.

Not modelled: the library's choice of kernel by shape (it leaves 4 % median and 12 % at the 95th percentile of cuBLAS on
H100).
Source: fitted to own H100 measurements; see catalog/README.md.
"""

from __future__ import annotations

from math import ceil

from simulator.hardware.operator import Operator
from simulator.scenario.resolved import Gpu

TILE = 64  # rows and columns of outputs: the M of one Hopper matrix instruction
SPLIT = 2  # parts of K
ACTIVATION_BYTES = 2.0  # bf16


def gemm(
    gpu: Gpu, name: str, rows: float, columns: float, inner: float, weight_bytes: float, sustained: bool = True
) -> Operator:
    """A product of `rows` x `inner` activations with `inner` x `columns` weights of `weight_bytes` bytes each."""
    flops = 2.0 * rows * columns * inner
    moved = columns * inner * weight_bytes + rows * (columns + inner) * ACTIVATION_BYTES
    waves = ceil(SPLIT * ceil(rows / TILE) * ceil(columns / TILE) / gpu.multiprocessors) / SPLIT
    executed = waves * gpu.multiprocessors * 2.0 * TILE * TILE * inner
    compute = executed / (gpu.gemm_flops_efficiency * gpu.peak_flops)
    if sustained:
        compute = max(compute, flops / (gpu.gemm_sustained_efficiency * gpu.peak_flops))
    memory = moved / (gpu.gemm_bandwidth_efficiency * gpu.memory_bandwidth)
    return Operator(name, flops, moved, compute, memory, gpu.gemm_exposed)
