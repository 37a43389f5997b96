"""Faults with `devices: detailed`: who is lost, who waits and what it costs are as with fluid ones. Every run is checked."""

from __future__ import annotations

from typing import Any

import pytest

from simulator.experiments.run import RunResult
from tests.properties.small import Rows, draw, lasting, pool, same_requests, served

PATH = pool(l1=30, l3=120, l2=8, link="2 GB/s", outstanding="256 KiB")
WIDE = PATH | {"cluster.kv_pool.count": 4, "cluster.kv_pool.board": PATH["cluster.kv_pool.board"] | {"memory": "1 MB"}}
SWITCHED = PATH | {
    "cluster.gpus.count": 2,
    "cluster.kv_pool.switch": {"type": "cxl-2.0-switch", "uplinks": 2, "port_bandwidth": "0.5 GB/s"},
}
LOAD: Rows = draw(3, 30, rate=400.0, prompt=120, output=120)  # about 0.11 s; most of it with far pages
MIDDLE = "60 ms"


def run(devices: str, *faults: dict[str, Any], base: dict[str, Any] = PATH) -> RunResult:
    return served(base | {"devices": devices, "faults": list(faults)}, LOAD)


@pytest.mark.parametrize(
    "fault, base",
    [
        ({"what": "link_down", "at": MIDDLE, "for": "20 ms"}, PATH),
        ({"what": "link_down", "at": MIDDLE}, PATH),
        ({"what": "link_degraded", "factor": 0.4, "at": MIDDLE, "for": "30 ms"}, PATH),
        ({"what": "link_degraded", "factor": 0.5, "at": MIDDLE, "link": "switch"}, SWITCHED),
        ({"what": "link_down", "link": "switch", "at": MIDDLE}, SWITCHED),
        ({"what": "board_lost", "at": MIDDLE, "for": "20 ms"}, WIDE),
        ({"what": "board_lost", "at": MIDDLE, "on_loss": "abort"}, WIDE),
        ({"what": "board_lost", "at": MIDDLE, "on_loss": "abort"}, PATH),
        ({"what": "latency_spike", "latency": "200 us", "at": MIDDLE, "for": "100 ms"}, PATH),
    ],
    ids=["outage", "dead link", "slow link", "slow uplink", "uplink down", "board back", "board of four", "board", "spike"],
)  # fmt: skip
def test_as_with_fluid_devices(fault: dict[str, Any], base: dict[str, Any]) -> None:
    """Rates before, during and after the fault within 5 %, as in the crosscheck; the same requests aborted and started over.

    Would catch: devices that go on as if nothing had broken, write-back sent twice or lost, a run that waits for a dead link.
    """
    fluid, detailed = (run(devices, fault, base=base).summary for devices in ("fluid", "detailed"))
    (theirs,), (ours,) = fluid["faults"], detailed["faults"]
    counts = detailed["requests"]
    assert counts["arrived"] == counts["finished"] + counts["rejected"] + counts["aborted"] == len(LOAD)
    print({key: (ours[key], theirs[key]) for key in ours})
    for key in ("tokens_per_s_before", "during", "after"):
        assert ours[key] == (theirs[key] and pytest.approx(theirs[key], rel=0.05)), key
    assert ours["aborted"] == theirs["aborted"]
    assert abs(ours["recomputed"] - theirs["recomputed"]) <= 1


def test_it_costs_what_it_takes() -> None:
    """Without the fault the run is shorter. Would catch: a test above that compares two healthy runs."""
    slow = run("detailed", {"what": "link_degraded", "factor": 0.25, "at": "0 s"}).summary["simulation"]["simulated_s"]
    assert slow > 1.5 * run("detailed").summary["simulation"]["simulated_s"]


def test_after_the_end_and_at_random() -> None:
    """A fault that comes too late changes nothing; faults at a rate are the same again.

    Would catch: devices that are built anew for nothing, an order that depends on identities."""
    late, none = run("detailed", {"what": "board_lost", "at": "1 h"}), run("detailed")
    same_requests(late, none)
    often = {"what": "link_down", "mean_time_between": "20 ms", "for": "3 ms"}
    once, again = run("detailed", often), run("detailed", often)
    assert once.summary["faults"] and lasting(once.summary) == lasting(again.summary)
