"""Codec kernels on the GPU: they stream raw and compressed bytes through HBM at a share of its bandwidth.

    raw bytes/s = efficiency * HBM bandwidth / (1 + 1/ratio)

A codec that says nothing of its kernels takes the GPU's own `compress_rate` and `decompress_rate`.
Not modelled: short kernels (below 32 MiB the ramp-up adds 1.5 us, less than the launch that is counted).
Source: own H100 measurements, 8, 4 and 2 bits, groups along tokens or channels; the efficiencies stand in the codec's file.
"""

from __future__ import annotations

from simulator.scenario.resolved import Codec, Gpu


def pack_rate(codec: Codec, gpu: Gpu) -> float:
    """Raw bytes/s of compression on one GPU."""
    return _rate(codec.compress_efficiency, codec, gpu) or gpu.compress_rate


def unpack_rate(codec: Codec, gpu: Gpu) -> float:
    """Raw bytes/s of decompression on one GPU."""
    return _rate(codec.decompress_efficiency, codec, gpu) or gpu.decompress_rate


def _rate(efficiency: float | None, codec: Codec, gpu: Gpu) -> float:
    return efficiency * gpu.memory_bandwidth / (1.0 + 1.0 / codec.ratio) if efficiency else 0.0
