"""Time of a matrix product of M rows (tokens), N outputs, K inputs on one GPU.

    memory   bytes / (eta_B * HBM bandwidth); bytes = weights once, activations in and out
    compute  the longer of
               tiles at full clocks   min over tile shapes and splits of  w * (tile + wave)
               the power limit        2 M N K / (eta_sustained * peak)
    time     max + exposed * min (`operator.py`); the launch is counted by the step

Tiles: the outputs are cut into tiles of m x n, and K into `split` parts where tiles are few; each SM computes one at a time:

    tile   max(2 m n K / split / (eta_F * peak / SMs),  (m + n) K / split elements / (operand bandwidth / SMs))
    waves  f = split * ceil(M / m) * ceil(N / n) / SMs;   w = f + tail * (ceil(f) - f)

Large tiles load few operands an output but leave SMs idle in the last wave, small ones and splits the other way round; for
few tokens the narrow side of the tensor-core instruction takes the tokens (16 or 32). The library is taken to know the best
(`SPLITS`, and of `TILES` what it has). `tail` is the share of that idling which costs time: 1 if all tiles of
a wave end together, less where the SMs that still work run faster (their clocks, their share of bandwidth). `wave` is what a
tile costs besides: filling its pipeline, writing its outputs.
Which tiles a library has follows from the instruction it is written for (`gemm_tiles` of the GPU). With instructions of a
`warpgroup` (Hopper's wgmma, any multiple of 8 columns) there are tiles of 192 columns. Libraries for those of a single
`warp` (mma.sync: all there is on consumer and workstation parts) have sides that are powers of two, and 256 columns only
with 128 rows, or 16 for a handful of tokens. `python -m analysis.calibration.menus` shows what fits which part.
Power: dense products draw more than the board may, and the clock falls until they do not (1980 to 1365 MHz on H100).
Idle SMs draw little, so waste of tiles and the power limit do not add up: the longer one counts. A product timed alone
for less than a millisecond does not meet the limit: `sustained=False`.

Grouped products (experts) are `groups` products of M / groups rows each in one kernel: their tiles share the waves.

Not modelled: a library that picks a tile which is not the best (5 % median on small H100 products), weights found in L2.
Source: fitted to own H100 measurements, to Vidur's of A100 and to LLMServingSim's of two RTX parts; see catalog/README.md.
"""

from __future__ import annotations

from functools import lru_cache
from math import ceil

from simulator.hardware.operator import Operator
from simulator.scenario.resolved import Gpu

TILE = 16  # rows of the smallest tile
TILES = {  # rows (tokens), columns of outputs; few tokens take the narrow side of a tile
    "warpgroup": (
        (16, 64), (16, 128), (16, 256), (32, 64), (32, 128), (32, 256), (64, 64), (64, 128), (64, 192), (64, 256),
        (128, 64), (128, 128), (128, 192), (128, 256), (256, 128), (256, 192),
    ),
    "warp": (
        (16, 64), (16, 128), (16, 256), (32, 64), (32, 128), (64, 64), (64, 128),
        (128, 64), (128, 128), (128, 256), (256, 128),
    ),
}  # fmt: skip
SPLITS = (1, 2, 3, 4, 6, 8)  # parts of K
ACTIVATION_BYTES = 2.0  # bf16


def gemm(
    gpu: Gpu, name: str, rows: float, columns: float, inner: float, weight_bytes: float, sustained: bool = True,
    groups: float = 1.0,
) -> Operator:  # fmt: skip
    """A product of `rows` x `inner` activations with `inner` x `columns` weights of `weight_bytes` bytes each.

    With `groups` there are that many such weights, and each multiplies its even share of the rows.
    """
    flops = 2.0 * rows * columns * inner
    moved = groups * columns * inner * weight_bytes + rows * (columns + inner) * ACTIVATION_BYTES
    compute = tiles_seconds(gpu, rows / groups, columns, inner, groups) if rows > 0 else 0.0
    if sustained:
        compute = max(compute, flops / (gpu.gemm_sustained_efficiency * gpu.peak_flops))
    memory = moved / (gpu.gemm_bandwidth_efficiency * gpu.memory_bandwidth)
    return Operator(name, flops, moved, compute, memory, gpu.gemm_exposed)


def tiles_seconds(gpu: Gpu, rows: float, columns: float, inner: float, groups: float = 1.0) -> float:
    """Seconds of the tiles of `groups` products at full clocks, in the best tile shape and split of K."""
    count = gpu.multiprocessors
    rate, loads = gpu.gemm_flops_efficiency * gpu.peak_flops / count, gpu.gemm_operand_bandwidth / count
    bands = ceil(rows / TILE)
    return _best(gpu.gemm_tiles, count, gpu.gemm_tail, gpu.gemm_wave, rate, loads, bands, columns, inner, groups)


@lru_cache(maxsize=4096)
def _best(
    menu: str, count: int, tail: float, wave: float, rate: float, loads: float, bands: int, columns: float, inner: float,
    groups: float,
) -> float:  # fmt: skip
    """The same for `bands` bands of `TILE` rows, all that the shapes tell apart."""
    best = float("inf")
    for high, wide in TILES[menu]:
        tiles = groups * ceil(bands * TILE / high) * ceil(columns / wide)
        whole = inner * max(2.0 * high * wide / rate, ACTIVATION_BYTES * (high + wide) / loads)
        for split in SPLITS:
            waves = split * tiles / count
            seconds = (waves + tail * (ceil(waves) - waves)) * (whole / split + wave)
            if seconds < best:
                best = seconds
    return best
