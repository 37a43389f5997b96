"""Time of an all-reduce over n tensor-parallel ranks: two protocols, the library switches by message size.

    t = alpha + 2 (n - 1) / n * bytes / bus bandwidth                          (convention of nccl-tests)

Below `all_reduce_switch` bytes the low-latency protocol (data and flag travel together: a small alpha, part of the
bandwidth), above it the one with full bandwidth and its own alpha. With the fitted constants the time jumps at the switch:
up on two H100 (17.7 to 25.4 us), down on some others.
Not modelled: overlap with computation, multicast in the switch other than through the fitted numbers.
Source: nccl-tests and own measurements; see catalog/README.md.
"""

from __future__ import annotations

from simulator.scenario.resolved import Gpu


def all_reduce(gpu: Gpu, ranks: int, message: float) -> float:
    """Seconds to all-reduce `message` bytes over `ranks` GPUs; 0 on one."""
    if ranks == 1:
        return 0.0
    if message < gpu.all_reduce_switch:
        latency, bandwidth = gpu.all_reduce_small_latency, gpu.all_reduce_small_bandwidth
    else:
        latency, bandwidth = gpu.all_reduce_latency, gpu.all_reduce_bandwidth
    return latency + 2 * (ranks - 1) / ranks * message / bandwidth
