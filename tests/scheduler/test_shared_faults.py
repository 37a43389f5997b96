"""Faults of a pool that replicas share: against the closed form of one replica, by hand, and in generated worlds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from simulator.experiments.run import RunResult
from simulator.scheduler import routing
from tests.properties.small import BLOCK, Rows, ToTheFirst, draw, lasting, pool, same_requests, served

PATH = pool(l1=10, l3=200, l2=16, link="0.2 GB/s") | {"kv.codec": "none"}
WIDE = PATH | {"cluster.kv_pool.count": 4, "cluster.kv_pool.link.bandwidth": "0.05 GB/s"}
TWO = {"cluster.replicas": 2}
LOAD: Rows = draw(3, 16, rate=400.0, prompt=160, output=40)
EACH: Rows = [(0.0, 300, 12)] * 2  # one a replica, in step


def run(*faults: dict[str, Any], rows: Rows = LOAD, base: dict[str, Any] = PATH, **more: Any) -> RunResult:
    coalesce = more.pop("coalesce", True)
    return served(base | ({"faults": list(faults)} if faults else {}) | TWO | more, rows, coalesce=coalesce)


def seconds(result: RunResult) -> float:
    return float(result.summary["simulation"]["simulated_s"])


@pytest.mark.parametrize(
    ("fault", "settings"),
    [
        ({"what": "link_degraded", "factor": 0.5, "at": "0 s"}, {"cluster.kv_pool.link.bandwidth": "0.025 GB/s"}),
        ({"what": "board_lost", "at": "0 s"}, {"cluster.kv_pool.count": 3}),
        ({"what": "link_degraded", "link": "gpu", "factor": 0.004, "at": "0 s"},
         {"cluster.gpus.link": {"type": "pcie-gen4-x16", "bandwidth": "0.1 GB/s"}}),
    ],
    ids=["link", "board", "port"],
)  # fmt: skip
def test_broken_from_the_start_is_a_lesser_pool(fault: dict[str, Any], settings: dict[str, Any]) -> None:
    """1e-9: rounding of flows over all stages instead of those that bind. Would catch: stages that keep their rates, L3 that
    keeps its size, a stage that was taken for one that cannot bind and does when it is broken."""
    base = WIDE | {"cluster.gpus.link": {"type": "pcie-gen4-x16", "bandwidth": "25 GB/s"}}
    broken, lesser = run(fault, base=base), run(base=base | settings)
    np.testing.assert_allclose(broken.columns["finished_s"], lesser.columns["finished_s"], rtol=1e-9)
    assert broken.columns["preemptions"].tolist() == lesser.columns["preemptions"].tolist()


def test_alone_on_a_shared_pool_a_fault_is_that_of_a_private_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loss of all boards, for good and for a time, when nobody else is there: as in the closed form.

    Two blocks' time: write-back that is under way goes on to what is left, and waits in the closed form.

    Would catch: room that the others are said to have, a replica that waits for what nobody gives back."""
    monkeypatch.setitem(routing.RULES, "round_robin", ToTheFirst)
    for fault in ({"what": "board_lost", "at": "60 ms"}, {"what": "board_lost", "at": "60 ms", "for": "30 ms"}):
        shared, alone = run(fault), served(PATH | {"faults": [fault]}, LOAD)
        np.testing.assert_allclose(shared.columns["finished_s"], alone.columns["finished_s"], rtol=0, atol=2 * BLOCK / 0.2e9)
        for name in ("aborted", "recomputed"):
            assert shared.summary["faults"][0][name] == alone.summary["faults"][0][name]
        assert alone.summary["faults"][0]["recomputed"] > 0


def test_transfers_under_way_slow_down_at_that_moment() -> None:
    """Two replicas read far pages all the time, each at half of the link. At time t the link falls to a quarter: the rest of
    the run takes four times as long, but for what is no transfer.

    By hand: with d the run's length, c its part that is not reading (from a link without limit): t + (4 - 3 c / d) (d - t).
    5 %: the prompt, which reads nothing. Would catch: a rate that changes at the next step, or of one replica only.
    """
    base = PATH | {"cluster.kv_pool.board.outstanding": "inf", "prefetch": {"predictor": "none"}}
    whole, free = (seconds(run(base=base | more, rows=EACH)) for more in ({}, {"cluster.kv_pool.link.bandwidth": "inf"}))
    at = whole / 2
    slow = seconds(run({"what": "link_degraded", "factor": 0.25, "at": f"{at!r} s"}, base=base, rows=EACH))
    expected = at + 4 * (whole - at) - 3 * free * (whole - at) / whole
    assert slow == pytest.approx(expected, rel=0.05)


def test_an_outage_holds_up_all() -> None:
    """The links are down for 50 ms in mid-run: both replicas wait so long, nothing is lost. Would catch: a step that ends on
    bytes which did not come, a wait of one replica only, waits that no part of the time has."""
    base = PATH | {"prefetch": {"predictor": "none"}}
    whole = run(base=base, rows=EACH)
    down = run({"what": "link_down", "at": f"{seconds(whole) / 2!r} s", "for": "50 ms"}, base=base, rows=EACH)
    longer = down.columns["finished_s"] - whole.columns["finished_s"]
    np.testing.assert_allclose(longer, 0.05, rtol=1e-3)
    (row,) = down.summary["faults"]
    assert (row["recomputed"], row["aborted"], row["replicas"]) == (0, 0, ["replica 0", "replica 1"])


def test_one_port_of_one_replica() -> None:
    """Replica 1's port is down for a while: replica 0 reads on, faster, for it has the link to itself.

    Would catch: an outage of all for the port of one."""
    base = PATH | {"prefetch": {"predictor": "none"}}
    whole = run(base=base, rows=EACH)
    fault = {"what": "link_down", "link": "gpu", "replica": 1, "at": f"{seconds(whole) / 2!r} s", "for": "50 ms"}
    down = run(fault, base=base, rows=EACH)
    first, second = (down.columns["finished_s"] - whole.columns["finished_s"]).tolist()
    assert first < 0.0 < second
    assert down.summary["faults"][0]["replicas"] == ["replica 1"]


@pytest.mark.parametrize(("eviction", "seed"), [("split", 1), ("lru", 1), pytest.param("lru", 2, marks=pytest.mark.slow)])
def test_everything_breaks_again_and_again(eviction: str, seed: int) -> None:
    """Random faults of all kinds under all invariants, rates and bytes at every change: nobody is lost; the same bytes again,
    and with single steps. Would catch: flows that wait for ever, a run that does not end, room that is lent twice."""
    faults = [
        {"what": "board_lost", "mean_time_between": "30 ms", "for": "6 ms"},
        {"what": "board_lost", "count": 2, "at": "120 ms", "on_loss": "abort"},
        {"what": "link_down", "mean_time_between": "15 ms", "for": "3 ms"},
        {"what": "link_degraded", "link": "gpu", "factor": 0.001, "mean_time_between": "20 ms", "for": "5 ms"},
        {"what": "latency_spike", "latency": "300 us", "mean_time_between": "20 ms", "for": "5 ms"},
    ]
    base = WIDE | {"kv.placement.eviction": eviction, "seed": seed, "scheduler.preemption": "swap_host", "kv.l2": "128 KiB"}
    more = {"cluster.replicas": 3, "cluster.routing": "least_kv", "prefetch": {"predictor": "next_layer"}}
    one, again, single = (run(*faults, base=base, **more, coalesce=which) for which in (True, True, False))
    assert lasting(one.summary) == lasting(again.summary) == lasting(single.summary)
    same_requests(one, single)
    counts = one.summary["requests"]
    assert counts["finished"] + counts["aborted"] + counts["rejected"] == len(LOAD)
    assert sum(row["recomputed"] for row in one.summary["faults"]) > 0
