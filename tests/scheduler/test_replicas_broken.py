"""Several replicas that each have their own pool: what breaks of one, and devices that are detailed.

The measure is one replica alone: a router that sends all to the first must leave it exactly as it is without the others.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from simulator.experiments.run import RunResult
from simulator.scheduler import routing
from tests.properties.small import Rows, ToTheFirst, draw, lasting, pool, same_requests, served

PATH = pool(l1=30, l3=120, l2=8, link="2 GB/s")
LOAD: Rows = draw(3, 40, rate=400.0, prompt=120, output=120)
TWO = {"cluster.replicas": 2, "cluster.kv_pool.shared": False}
LOST = {"what": "board_lost", "at": "60 ms"}
DOWN = {"what": "link_down", "mean_time_between": "15 ms", "for": "2 ms"}


def run(*faults: dict[str, Any], rows: Rows = LOAD, coalesce: bool = True, **settings: Any) -> RunResult:
    return served(PATH | ({"faults": list(faults)} if faults else {}) | settings, rows, coalesce=coalesce)


@pytest.mark.parametrize("fault", [LOST, LOST | {"on_loss": "abort", "for": "20 ms"}, DOWN], ids=lambda fault: fault["what"])
def test_the_first_of_two_breaks_as_one_alone(fault: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """To the last bit; and what breaks of the other, who has nothing, changes nothing.

    Would catch: a fault that hits the wrong replica, draws that depend on how many there are, an idle replica that waits.
    """
    monkeypatch.setitem(routing.RULES, "round_robin", ToTheFirst)
    same_requests(run(fault), run(fault | {"replica": 0}, **TWO))
    same_requests(run(), run(fault | {"replica": 1}, **TWO))


def test_what_breaks_for_each_breaks_for_each() -> None:
    """Two replicas with the same requests, all boards lost at one time: both do what one alone does, and it is one fault.

    Would catch: a fault that the first replica takes for all, two rows for one, tokens of one replica only.
    """
    rows = [row for row in LOAD for _ in range(2)]
    both, one = run(LOST, rows=rows, **TWO), run(LOST)
    for name in ("finished_s", "preemptions", "link_s"):
        for half in (0, 1):
            np.testing.assert_array_equal(both.columns[name][half::2], one.columns[name])
    (row,), (alone,) = both.summary["faults"], one.summary["faults"]
    assert row.pop("replicas") == ["replica 0", "replica 1"]
    assert row["recomputed"] == 2 * alone["recomputed"] > 0
    assert row["tokens_per_s_before"] == pytest.approx(2 * alone["tokens_per_s_before"], rel=1e-12)


def test_random_faults_are_each_replicas_own() -> None:
    """Same bytes again, and with single steps; replicas break at different times. Would catch: one draw for all replicas, a run
    of steps of one replica that passes over its fault."""
    one, again, single = run(DOWN, **TWO), run(DOWN, **TWO), run(DOWN, coalesce=False, **TWO)
    assert lasting(one.summary) == lasting(again.summary) == lasting(single.summary)
    same_requests(one, single)
    hit = {name for row in one.summary["faults"] for name in row["replicas"]}
    assert hit == {"replica 0", "replica 1"} and all(len(row["replicas"]) == 1 for row in one.summary["faults"])
    assert one.summary["requests"]["finished"] == len(LOAD)


@pytest.mark.parametrize("split", [False, True])
def test_everything_breaks_under_every_router(split: bool) -> None:
    """All invariants hold, nobody is lost. Would catch: a request that is fed to a replica which stands still and forgotten."""
    faults = [DOWN, {"what": "board_lost", "mean_time_between": "25 ms", "for": "5 ms", "on_loss": "abort"}]
    for rule in ("least_outstanding", "least_kv"):
        settings: dict[str, Any] = {"cluster.kv_pool.shared": False, "cluster.replicas": 3, "cluster.routing": rule}
        if split:
            settings["cluster.groups"] = [{"role": "prefill"}, {"role": "decode", "replicas": 2}]
            settings |= {"cluster.replicas": None, "cluster.transfer": {"link": "infiniband-ndr"}}
        counts = run(*faults, **settings).summary["requests"]
        assert counts["finished"] + counts["aborted"] == len(LOAD)


def test_detailed_devices_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each replica has its own boards in detail: alone and beside another, to the last bit; two with the same requests take
    what one takes, within what other banks of other pages make.

    Would catch: devices that two replicas share, a clock of devices that is not its replica's.
    """
    rows, detailed = LOAD[:12], {"devices": "detailed"}
    alone, twice = run(rows=rows, **detailed), [row for row in rows for _ in range(2)]
    both = run(rows=twice, **TWO | detailed)
    np.testing.assert_array_equal(both.columns["finished_s"][::2], alone.columns["finished_s"])
    np.testing.assert_allclose(both.columns["finished_s"][1::2], alone.columns["finished_s"], rtol=0.02)
    monkeypatch.setitem(routing.RULES, "round_robin", ToTheFirst)
    same_requests(alone, run(rows=rows, **TWO | detailed))
    fault = {"what": "link_down", "at": "10 ms", "for": "5 ms"}
    same_requests(run(fault, rows=rows, **detailed), run(fault | {"replica": 0}, rows=rows, **TWO | detailed))
