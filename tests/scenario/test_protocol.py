"""Payload of links from packets and flits: by hand, against the catalogue, and in a scenario."""

from __future__ import annotations

from typing import Any

import pytest

from simulator import catalog
from simulator.errors import InputError
from simulator.scenario.protocol import payload
from simulator.units import parse
from tests.properties.small import pool, scenario

BATCH = {"dist": "fixed", "tokens": "10 tokens"}
WORK = {"requests": 1, "arrivals": {"process": "at_once"}, "input": BATCH, "output": BATCH}


def test_by_hand() -> None:
    """CXL 68 B: 64 / (4 1/3 slots of 17 B) = 55.6 GB/s packed, 64 / (5 x 17 B) = 48.2; 256 B: 224 / 256 of 128. PCIe 5 x16
    with 256 B: 63.02 x 256 / 280 read, x 256 / 284 written. PCIe 6: 118 x 256 / 268.

    Would catch: a slot of 16 wire bytes, headers left out, line code on flits.
    """
    assert payload("cxl-68b", 5, 16, packed=True).read == pytest.approx(64e9 * 64 / (13 / 3 * 17), rel=1e-12)
    assert payload("cxl-68b", 5, 16) == pytest.approx((64e9 * 64 / 85, 64e9 * 64 / 85, 0.2), rel=1e-12)
    assert payload("cxl-256b", 6, 16).read == pytest.approx(112e9)
    gen5 = payload("pcie", 5, 16)
    assert gen5.read == pytest.approx(64e9 * 128 / 130 * 256 / 280)
    assert gen5.write == pytest.approx(64e9 * 128 / 130 * 256 / 284)
    assert payload("pcie", 6, 16).read == pytest.approx(128e9 * 236 / 256 * 256 / 268)
    assert gen5.requests == pytest.approx(28 / 512 * 256 / 284)


def test_larger_packets_and_more_lanes_carry_more() -> None:
    """Would catch: a header per byte, lanes that are not counted."""
    rates = [payload("pcie", 4, 16, packet=size).read for size in (64.0, 128.0, 256.0, 512.0)]
    assert rates == sorted(rates) and rates[0] < 0.8 * rates[-1]
    assert payload("pcie", 4, 8).read == payload("pcie", 4, 16).read / 2 == payload("pcie", 3, 16).read


# derived entries follow from the arithmetic; measured ones reach 80 to 100 % of it
# fmt: off
DERIVED = {"cxl-1.1-x16": ("cxl-68b", 5, 16), "cxl-2.0-x16": ("cxl-68b", 5, 16), "cxl-2.0-x8": ("cxl-68b", 5, 8),
           "cxl-3.0-x16": ("cxl-256b", 6, 16), "cxl-3.0-x8": ("cxl-256b", 6, 8), "cxl-3.1-x16": ("cxl-256b", 6, 16)}
MEASURED = {"pcie-gen4-x16": (4, 16), "pcie-gen4-x8": (4, 8), "pcie-gen5-x16": (5, 16), "pcie-gen5-x8": (5, 8),
            "pcie-gen3-x16": (3, 16), "pcie-gen6-x16": (6, 16)}
# fmt: on


@pytest.mark.parametrize("name", [*DERIVED, *MEASURED])
def test_catalogue(name: str) -> None:
    """Would catch: a derived entry that was typed in, a measured one above what packets can carry."""
    entry = catalog.load("links", name).values
    for direction in ("read", "write"):
        given = parse(str(entry[f"{direction}_bandwidth"]), "rate")
        if name in DERIVED:
            assert given == pytest.approx(getattr(payload(*DERIVED[name]), direction), rel=0.01)
        else:
            assert 0.80 <= given / getattr(payload("pcie", *MEASURED[name]), direction) <= 1.0


def with_link(link: dict[str, Any]) -> Any:
    return scenario(pool(10, 40) | {"cluster.kv_pool.link": link, "workload.synthetic": WORK})


def test_in_a_scenario() -> None:
    """Would catch: a protocol that is read and ignored, or lost when the resolved scenario is written."""
    link = with_link({"type": "pcie-gen5-x8", "protocol": {"kind": "cxl-68b", "generation": 5, "lanes": 8, "packed": True}})
    with pytest.raises(InputError, match="the protocol gives it"):
        with_link({"protocol": {"kind": "pcie", "generation": 5, "lanes": 8}, "read_bandwidth": "1 GB/s", "latency": "1 us"})
    assert link.resolved.pool.link.read_bandwidth == pytest.approx(27.8e9, rel=0.01)


@pytest.mark.parametrize(
    ("protocol", "message"),
    [
        ({"kind": "pcy", "generation": 5, "lanes": 8}, "expected a mapping with kind"),
        ({"kind": "pcie", "generation": 7, "lanes": 8}, "expected one of 3, 4, 5, 6 for pcie, found 7"),
        ({"kind": "cxl-68b", "generation": 5, "lanes": 3}, "expected one of 1, 2, 4, 8, 16, 32"),
        ({"kind": "cxl-68b", "generation": 5, "lanes": 8, "packet": "256 B"}, "cxl-68b does not use packet"),
        ({"kind": "pcie", "generation": 5, "lanes": 8, "packet": "2 MiB"}, "expected 1 B to 4 KiB"),
        ("pcie", "expected a mapping with kind"),
    ],
)
def test_wrong_protocols_are_refused(protocol: Any, message: str) -> None:
    """Would catch: a traceback, a default in place of what was written."""
    with pytest.raises(InputError, match=message):
        with_link({"latency": "1 us", "protocol": protocol})
