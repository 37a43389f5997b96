"""`faults:` as users meet it: the resolved file, `--set` and sweeps below a list, `explain`, `crosscheck`."""

from __future__ import annotations

from typing import Any

import pytest

from simulator.errors import InputError
from simulator.experiments.crosscheck import crosscheck
from simulator.experiments.explain import explain
from simulator.experiments.explain_text import render
from simulator.experiments.studies.fields import Refused, scenario_field
from simulator.scenario import Scenario
from tests.properties.small import pool, scenario

SYNTHETIC = {
    "requests": 3, "arrivals": {"process": "at_once"}, "input": {"dist": "fixed", "tokens": "10 tokens"},
    "output": {"dist": "fixed", "tokens": "10 tokens"},
}  # fmt: skip
FAULTS: list[dict[str, Any]] = [
    {"what": "link_down", "at": "12 s", "for": "5 s"},
    {"what": "link_down", "link": "gpu", "at": "1 min", "on_loss": "abort"},
    {"what": "link_degraded", "factor": 0.25, "at": "0 s"},
    {"what": "board_lost", "mean_time_between": "1 h", "for": "5 min", "on_loss": "abort"},
    {"what": "latency_spike", "latency": "50 us", "at": "3 s", "for": "100 ms"},
]
WORLD = scenario(pool(l1=12, l3=40) | {"workload.synthetic": SYNTHETIC, "faults": FAULTS})


def again(*settings: str) -> Scenario:
    return Scenario.from_dict(WORLD.resolved.document, ".", set=settings)


def test_round_trip():
    """The resolved file gives the same faults and the same hash. Would catch: a field that is not written, or refused again."""
    assert again().resolved.faults == WORLD.resolved.faults
    assert again().sha256 == WORLD.sha256


def test_set_one_of_the_list():
    """Would catch: a list that `--set` replaces as a whole, an entry that is not there."""
    faults = again("faults.0.for=7 s", "faults.3.on_loss=recompute").resolved.faults
    assert (faults[0].duration, faults[3].on_loss) == (7.0, "recompute")
    assert faults[1:3] == WORLD.resolved.faults[1:3]
    assert again("faults=[]").resolved.faults == ()
    with pytest.raises(InputError, match=r"'faults' is a list of 5, counted from 0; it has no '5'"):
        again("faults.5.at=1 s")


def test_axes_below_the_list():
    """Would catch: studies that cannot sweep a fault, or take any name."""
    assert scenario_field("faults.3.mean_time_between").dimension == "time"
    with pytest.raises(Refused, match=r"faults\.0\.fr"):
        scenario_field("faults.0.fr")


def test_explain():
    """What each fault leaves; each value with its source. Would catch: an outage with a rate, a lost board with blocks."""
    found = explain(WORLD)
    down, cut, slow, lost, spike = found["faults"]
    assert down["read_raw_bytes_per_s"] is None and down["l3_blocks"] > 0 and down["on_loss"] is None
    assert cut["l3_blocks"] == lost["l3_blocks"] == 0 and cut["on_loss"] == lost["on_loss"] == "abort"
    assert slow["read_raw_bytes_per_s"] < spike["read_raw_bytes_per_s"] and spike["read_latency_s"] > 50e-6
    text = render(found)
    assert "every 3600 s on average for 300 s  far pages out of reach" in text
    assert any(row["field"] == "faults.2.factor" and row["value"] == 0.25 for row in found["values"])


def test_crosscheck_refuses():
    """Would catch: two models compared while the devices of one of them are broken."""
    with pytest.raises(InputError, match="remove faults"):
        crosscheck(WORLD)
