"""Power of one GPU from what it moves and computes.

    P = min(limit, idle + (decode - idle) * HBM utilisation + (prefill - idle) * tensor-core utilisation)

`decode_power` holds at the full rate of streaming weights (eta_B of `gemm.py`), `prefill_power`, which is also the limit,
at the sustained rate of dense products. A second in which the GPU waits (launches, collectives, far pages, the host)
therefore costs idle power. Not modelled: clock, voltage and temperature (leakage), CUDA-core work.
Source: own H100 measurements of decode, prefill, copies and offloaded decode, each within 8 %; see catalog/README.md.
"""

from __future__ import annotations

from simulator.scenario.resolved import Gpu


def streaming_seconds(gpu: Gpu, moved: float) -> float:
    """HBM seconds of `moved` bytes at the full rate of streaming."""
    return moved / (gpu.gemm_bandwidth_efficiency * gpu.memory_bandwidth)


def computing_seconds(gpu: Gpu, flops: float) -> float:
    """Tensor-core seconds of `flops` at the sustained rate."""
    return flops / (gpu.gemm_sustained_efficiency * gpu.peak_flops)


def power(gpu: Gpu, duration: float, moved: float, flops: float) -> float:
    """W over `duration` seconds in which `moved` bytes cross HBM and `flops` are computed."""
    streaming = (gpu.decode_power - gpu.idle_power) * streaming_seconds(gpu, moved)
    computing = (gpu.prefill_power - gpu.idle_power) * computing_seconds(gpu, flops)
    return min(gpu.prefill_power, gpu.idle_power + (streaming + computing) / duration)
