"""INV-SENSITIVITY of what only the detailed devices have: every such field changes when bursts arrive."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import simpy

from simulator.hardware.detailed.system import FarSystem
from simulator.hardware.fabric import DEMAND, PREFETCH
from simulator.scenario import Scenario
from tests.properties.small import ROOT

POOL = "cluster.kv_pool"
BOARD = f"{POOL}.board"
BASE = {f"{POOL}.count": 2, "cluster.gpus.count": 4, "kv.burst": "16 KiB", "kv.l1": "1 GiB", "model": "llama-3.1-8b"}
SMALL_TLB = {f"{BOARD}.tlb_entries": 16, f"{BOARD}.tlb_ways": 2, f"{BOARD}.tlb_page": "64 KiB", f"{BOARD}.tlb_walk": "9 us"}
TIGHT = {
    f"{BOARD}.directory_entries": 16, f"{BOARD}.directory_ways": 2, f"{BOARD}.directory_grain": "64 KiB",
    f"{BOARD}.outstanding": "16 KiB",
}  # fmt: skip
SLOW_MEMORY = {f"{BOARD}.memory_bandwidth": "20 GB/s", f"{BOARD}.turnaround": "2 us"}
ROWS = {f"{BOARD}.banks": 1, f"{BOARD}.row_cycle": "2 us"}
SLOW_PORTS = {f"{POOL}.switch": {"type": "cxl-2.0-switch", "uplinks": 1, "port_bandwidth": "20 GB/s", "buffer": "16 KiB"}}
LEAF = SLOW_PORTS | {f"{POOL}.leaf": {"type": "cxl-2.0-switch", "uplinks": 1, "port_bandwidth": "10 GB/s", "buffer": "16 KiB"}}
CHANGES: dict[str, tuple[dict[str, Any], Any]] = {
    f"{BOARD}.banks": (ROWS, 2),
    f"{BOARD}.row": (ROWS, "2 KiB"),
    f"{BOARD}.row_cycle": (ROWS, "3 us"),
    f"{BOARD}.channels": (ROWS, 64),
    f"{BOARD}.interleave": (SLOW_MEMORY | {"kv.burst": "4 KiB"}, "4 KiB"),
    f"{BOARD}.turnaround": (SLOW_MEMORY, "0 s"),
    f"{BOARD}.write_batch": (SLOW_MEMORY, "16 KiB"),
    f"{BOARD}.cycle": ({f"{BOARD}.engine_rate": "1 GB/s", "kv.burst": "5000 B"}, "333 ns"),
    f"{BOARD}.descriptor": ({f"{BOARD}.descriptor": "3 us"}, "4 us"),
    f"{BOARD}.tlb_entries": (SMALL_TLB, 128),
    f"{BOARD}.tlb_ways": (SMALL_TLB | {f"{BOARD}.tlb_entries": 128, f"{BOARD}.tlb_ways": 1}, 128),
    f"{BOARD}.tlb_page": (SMALL_TLB, "128 KiB"),
    f"{BOARD}.tlb_walk": (SMALL_TLB, "12 us"),
    f"{BOARD}.directory_entries": (TIGHT, 4096),
    f"{BOARD}.directory_ways": (TIGHT | {f"{BOARD}.directory_entries": 8, f"{BOARD}.directory_ways": 1}, 8),
    f"{BOARD}.directory_grain": (TIGHT, "4 MiB"),
    f"{POOL}.switch.buffer": (SLOW_PORTS, "16 MiB"),
    f"{POOL}.switch.arbitration": (SLOW_PORTS | {f"{POOL}.count": 3}, "deadline"),
    f"{POOL}.switch.weights": (SLOW_PORTS | {f"{POOL}.count": 3, f"{POOL}.switch.arbitration": "weighted"}, "[5, 1]"),
    f"{POOL}.leaf.weights": (LEAF | {f"{POOL}.count": 3, f"{POOL}.leaf.arbitration": "weighted"}, "[5, 1]"),
    f"{POOL}.leaf.buffer": (LEAF, "16 MiB"),
    f"{POOL}.leaf.arbitration": (LEAF | {f"{POOL}.count": 3}, "deadline"),
    f"{POOL}.link.credits": ({}, "16 KiB"),
    "cluster.gpus.link.credits": ({}, "8 KiB"),
    f"{POOL}.placement": ({f"{POOL}.count": 3}, "hash"),
}


def arrivals(settings: dict[str, Any]) -> list[float]:
    """When reads of both classes and writes, the same bytes three times, were delivered, and how long devices were blocked."""
    texts = [f"{path}={_text(value)}" for path, value in (BASE | settings).items()]
    scenario = Scenario.load(ROOT / "scenarios" / "quickstart.yaml", set=[f"{BOARD}=agilex-7-buildable", *texts]).resolved
    env = simpy.Environment()
    system = FarSystem(env, scenario, 8192.0, np.random.default_rng(3))
    times: list[float] = []

    def source() -> Any:
        for turn in range(3):
            # later transfers with earlier deadlines, so that an arbiter that asks can tell
            moves = [system.read(1e6, PREFETCH, number * 1e9, deadline=-float(number)) for number in range(4)]
            moves += [system.read(1e6, DEMAND, 1e10), system.write(2e6, 1e11 + turn * 1e9)]
            for move in moves:
                yield move.done
                times.append(env.now)

    env.process(source())
    env.run()
    return [*times, *(device.blocked for device in system.devices())]


def _text(value: Any) -> str:
    return "{" + ", ".join(f"{key}: {inner}" for key, inner in value.items()) + "}" if isinstance(value, dict) else str(value)


@pytest.mark.parametrize("field", CHANGES)
def test_field_changes_arrivals(field: str) -> None:
    """Would catch: a detail that is read, checked, documented and then ignored."""
    world, value = CHANGES[field]
    assert arrivals(world) != arrivals(world | {field: value})
