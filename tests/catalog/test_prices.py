"""Prices and powers of the catalogue lie in the ranges that were published; each can be set, and swept, in a scenario."""

from __future__ import annotations

import pytest

from simulator import catalog
from simulator.units import parse

# kind, entry, field, dimension, low, high; the source is that of the range
RANGES = [
    ("prices", "2026-11", "memory_price", "money_per_size", 27e-9, 37e-9),  # DDR5 RDIMM spot 2026-Q2: TrendForce via gate.com
    ("prices", "2025-06", "memory_price", "money_per_size", 3e-9, 6e-9),  # before the rise: ai-capex.com
    ("prices", "2026-11", "electricity", "money_per_energy", 0.06 / 3.6e6, 0.12 / 3.6e6),  # aiinframap.com
    ("switches", "cxl-2.0-switch", "price", "money", 5800, 5800),  # XConn chip: Beluga, arXiv:2511.20172, Table 1
    ("links", "cxl-2.0-x16", "price", "money", 210, 210),  # host adapter x16: the same
    ("links", "infiniband-ndr", "price", "money", 1745, 1745),  # ConnectX-7: the same
    ("boards", "agilex-7-speckv", "price", "money", 9000, 15000),  # I-series kit with CXL: distributors
    ("boards", "agilex-7-buildable", "price", "money", 12000, 25000),  # M-series kit with HBM2e: distributors
    ("boards", "alveo-u55c", "price", "money", 4500, 9000),  # list prices 2022 to 2024
    ("boards", "agilex-7-speckv", "active_power", "power", 75, 215),  # board guides: a slot's 75 W to the board's 215 W
    ("boards", "agilex-7-buildable", "active_power", "power", 75, 215),
    ("gpus", "a100-80gb-sxm", "price", "money", 8000, 15000),  # mercatus-ai.com
    ("gpus", "h100-80gb-sxm", "price", "money", 22000, 40000),  # runlocalai.co, aiinframap.com
    ("gpus", "h200-141gb-sxm", "price", "money", 28000, 35000),
    ("gpus", "b200-180gb", "price", "money", 40000, 43000),
    ("gpus", "a100-80gb-sxm", "rent", "money_rate", 1.0, 4.6),  # gpuyard, aihardwareindex, AWS
    ("gpus", "h100-80gb-sxm", "rent", "money_rate", 2.25, 8.22),
    ("gpus", "h200-141gb-sxm", "rent", "money_rate", 3.29, 4.54),  # alpha-one-index, spheron
    ("gpus", "l40s", "rent", "money_rate", 0.65, 1.84),
]


@pytest.mark.parametrize(("kind", "name", "field", "dimension", "low", "high"), RANGES)
def test_in_the_published_range(kind: str, name: str, field: str, dimension: str, low: float, high: float):
    """Would catch: a price per GiB taken for one per GB, rent per month, a typing error."""
    entry = catalog.load(kind, name)
    assert low * (1 - 1e-9) <= parse(str(entry.values[field]), dimension) <= high * (1 + 1e-9)
    assert entry.sources[field]


@pytest.mark.parametrize("list_", ["2025-06", "2026-11"])
def test_rates_of_a_price_list(list_: str):
    """PUE of modern halls, years of GPUs."""
    values = catalog.load("prices", list_).values
    assert 1.1 <= values["pue"] <= 1.2 and 3 <= values["years"] <= 5
