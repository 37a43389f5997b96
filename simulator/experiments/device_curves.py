"""Latency over bandwidth of every device between pool and GPUs, as data: for figures, and for whoever plans a pool.

    L(u) = L0 (1 + a u / (1 - u)), at most L0 x saturation        (`hardware.latency`)

at loads u from 0 to 1; `bytes_per_s` is what others carry then, u times the rate of one device. A device whose `load_factor`
is 0, or that nobody shares, answers always alike. The simulation uses one point of each curve, u = `others_load`.
"""

from __future__ import annotations

from typing import Any

from simulator.hardware.latency import loaded
from simulator.scenario.resolved import ScenarioResolved

POINTS = 21  # evenly from 0 to 1


def device_curves(scenario: ScenarioResolved) -> list[dict[str, Any]]:
    """A row a device and direction, in the order of a read's answer; empty without a pool."""
    pool, port = scenario.pool, scenario.gpus.gpu.link
    if pool is None:
        return []
    board, link = pool.board, pool.link
    devices = [("pool.memory", board.memory_latency, board.load_factor, board.memory_bandwidth)]
    for side in ("read", "write"):
        devices.append((f"pool.link.{side}", link.latency, link.load_factor, getattr(link, f"{side}_bandwidth")))
    for name, switch in (("leaf", pool.leaf), ("switch", pool.switch)):
        if switch:
            devices.append((name, switch.latency, switch.load_factor, switch.port_bandwidth))
    for side in ("read", "write"):
        devices.append((f"gpu.port.{side}", port.latency, 0.0, getattr(port, f"{side}_bandwidth")))
    loads = [point / (POINTS - 1) for point in range(POINTS)]
    return [
        {
            "device": name,
            "latency_s": latency,
            "load_factor": factor,
            "bytes_per_s": rate,
            "curve": [
                {
                    "load": load,
                    "seconds": loaded(latency, factor, load, pool.saturation),
                    "bytes_per_s": load * rate if load else 0.0,  # no load of an infinite rate is none
                }
                for load in loads
            ],
        }
        for name, latency, factor, rate in devices
    ]
