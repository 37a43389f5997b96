"""Latency under load, and the catalogue's devices against measured points."""

from __future__ import annotations

import pytest

from simulator import catalog
from simulator.hardware.latency import SATURATION, loaded
from simulator.hardware.pool import far_path
from simulator.units import parse
from tests.properties.small import blocks, scenario

POOL = 230.2e-9  # s, idle 64 B read in a switched pool; MemChannel, arXiv:2608.21731


def test_no_factor_no_load_no_change() -> None:
    """Would catch: a = 0 that is not the identity (INV-IDENTITY)."""
    assert loaded(3.0, 0.0, 0.99) == loaded(3.0, 0.5, 0.0) == 3.0


def test_the_curve_is_monotone_and_capped() -> None:
    """Would catch: a dip, a jump at full load, latency without end."""
    curve = [loaded(1.0, 0.32, step / 1000) for step in range(1001)]
    assert curve == sorted(curve) and curve[-1] == SATURATION
    assert loaded(1.0, 0.32, 0.5, saturation=1.1) == 1.1
    with pytest.raises(ValueError, match="not between 0 and 1"):
        loaded(1.0, 0.32, 1.5)


def test_seven_times_at_saturation() -> None:
    """Measured near saturation: 1,624.2 ns of 230.2 idle, in another run 6.9 times; degradation begins near 0.3.

    Tolerance 10 %. Would catch: a = 0.32 that is not what the formula needs for it.
    """
    assert loaded(POOL, 0.32, 0.95) == pytest.approx(1624.2e-9, rel=0.10)
    assert loaded(POOL, 0.32, 0.95) == pytest.approx(6.9 * POOL, rel=0.10)
    assert loaded(POOL, 0.32, 0.30) == pytest.approx(POOL, rel=0.15)


def value(kind: str, name: str, field: str, dimension: str) -> float:
    return parse(str(catalog.load(kind, name).values[field]), dimension)


# what was measured (reference tables of the design: source in the catalogue's entry), and what the catalogue's device gives
RATES = [
    ("PCIe4 x16 host to device, Azure", 26.28, "links", "pcie-gen4-x16", "read_bandwidth"),
    ("PCIe5 x16 host to device, Azure", 51.0, "links", "pcie-gen5-x16", "read_bandwidth"),
    ("PCIe5 x16 host to device, Voltage Park", 54.8, "links", "pcie-gen5-x16", "read_bandwidth"),
    ("PCIe5 x16 host to device, IBM, 2 MB", 50.0, "links", "pcie-gen5-x16", "read_bandwidth"),
    ("PCIe5 x16 device to host, Azure", 52.0, "links", "pcie-gen5-x16", "write_bandwidth"),
    ("switched CXL pool, two x8 ports", 47.2, "links", "cxl-2.0-x16", "read_bandwidth"),
    ("switched CXL pool, one x8 port, write", 22.0, "links", "cxl-2.0-x8", "write_bandwidth"),
    ("XConn pool, CPU read, one x16 adapter", 46.2, "links", "cxl-2.0-x16", "read_bandwidth"),
    ("XConn pool, GPU through the root complex", 26.0, "links", "cxl-2.0-x16-root-complex", "read_bandwidth"),
    ("InfiniBand NDR, 64 MB between H100 nodes", 35.9, "links", "infiniband-ndr", "read_bandwidth"),
    ("CXL-C FPGA x8, Melody", 18.0, "memories", "cxl-fpga-x8", "memory_bandwidth"),
    ("DDR5-4800 8 channels, Melody", 220.0, "memories", "ddr5-4800-8ch", "memory_bandwidth"),
]
LATENCIES = [
    ("CXL-C FPGA x8, Melody", 394.0, "memories", "cxl-fpga-x8"),
    ("DDR5-4800 local, Melody", 112.0, "memories", "ddr5-4800-8ch"),
]
# rows that contradict each other: the lowest and the highest, and the catalogue's entries between or at them
CONTRADICTIONS = {
    "PCIe5 x16 device to host: 46.8 (Voltage Park) against 52 (Azure) and 55.1 (own)": (
        46.8, 55.2, "links", "pcie-gen5-x16", "write_bandwidth", "rate", 1e9,
    ),
    "XConn CPU write 33 (root complex) against 22.0 a x8 port, 44 for two": (
        33.0, 48.5, "links", "cxl-2.0-x16", "write_bandwidth", "rate", 1e9,
    ),
    "switched pool, x8 port: 21.9 alone, 23.6 as half of an adapter with two, 24 Melody A; flits give 24.1": (
        21.9, 24.1, "links", "cxl-2.0-x8", "read_bandwidth", "rate", 1e9,
    ),
    "CXL ASIC x8: 24 (Melody A), 22 (Melody B), 31 (MLC log, unidentified)": (
        22.0, 31.0, "memories", "cxl-asic-x8", "memory_bandwidth", "rate", 1e9,
    ),
    "CXL ASIC x8 idle: 214 and 271 ns (Melody A, B), 292.9 (MLC log)": (
        214.0, 293.0, "memories", "cxl-asic-x8", "memory_latency", "time", 1e-9,
    ),
    "CXL ASIC x16: 239 ns (Melody D) in a family of 140 to 410 ns": (
        140.0, 410.0, "memories", "cxl-asic-x16", "memory_latency", "time", 1e-9,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("what", "measured", "kind", "name", "field"), RATES, ids=[row[0] for row in RATES])
def test_measured_bandwidth(what: str, measured: float, kind: str, name: str, field: str) -> None:
    """GB/s within 10 %. Would catch: raw rates in place of payload, a x8 link with x16 lanes."""
    assert value(kind, name, field, "rate") == pytest.approx(measured * 1e9, rel=0.10)


@pytest.mark.parametrize(("what", "measured", "kind", "name"), LATENCIES, ids=[row[0] for row in LATENCIES])
def test_measured_idle_latency(what: str, measured: float, kind: str, name: str) -> None:
    """ns within 10 %. Would catch: one way where the round trip was measured."""
    assert value(kind, name, "memory_latency", "time") == pytest.approx(measured * 1e-9, rel=0.10)


@pytest.mark.parametrize("what", CONTRADICTIONS)
def test_contradicting_rows_are_bracketed(what: str) -> None:
    """Would catch: a value outside everything that was measured."""
    low, high, kind, name, field, dimension, unit = CONTRADICTIONS[what]
    assert low * unit <= value(kind, name, field, dimension) <= high * unit


def test_switched_pools_are_a_band() -> None:
    """220.5 ns (MemChannel) to 750 ns (Beluga) for the pool's side of a read: presets of the low and the high end.

    Tolerance 10 %. Would catch: presets that do not span the measurements, a switch that is crossed once.
    """
    pool = {"board": "cxl-pool-device", "count": 8}
    batch = {"dist": "fixed", "tokens": "10 tokens"}
    work = {"requests": 1, "arrivals": {"process": "at_once"}, "input": batch, "output": batch}
    ends = {
        220.5e-9: {"link": "cxl-2.0-x16-pool-low", "switch": "cxl-2.0-switch"},
        750e-9: {"link": "cxl-2.0-x16", "switch": "cxl-2.0-switch-slow"},
    }
    for measured, preset in ends.items():
        settings = {"cluster.kv_pool": pool | preset, "kv.l1": blocks(10), "kv.l2": blocks(10), "workload.synthetic": work}
        path = far_path(scenario(settings).resolved)
        assert sum(seconds for name, seconds in path.read_parts if name != "gpu.port") == pytest.approx(measured, rel=0.10)
