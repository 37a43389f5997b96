"""A pool that replicas share: event by event, against the closed form of one replica and by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from simulator.experiments.run import RunResult
from simulator.experiments.simulation import Simulation
from simulator.scheduler import routing
from simulator.scheduler.shared import SharedFabric, far_crossings
from tests.properties.small import ToTheFirst, draw, pool, requests, scenario, served

# one sequence of 24 blocks, 10 of them near: every step reads far pages over a slow link
SLOW = pool(l1=10, l3=400, link="0.2 GB/s") | {"kv.codec": "none"}
PREDICTORS: dict[str, Any] = {
    "none": {"predictor": "none"},
    "next_layer": {"predictor": "next_layer"},
    "deep": {"predictor": "next_layer", "depth": 3},
    "statistical": {"predictor": "statistical", "coverage": 0.7, "accuracy": 0.6, "depth": 2, "latency": "3 us"},
}


def times(run: RunResult) -> Any:
    return run.columns["finished_s"] - run.columns["arrival_s"]


@pytest.mark.parametrize("name", PREDICTORS)
def test_alone_it_is_the_closed_form(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Flows of a fabric that nobody else uses take what `prefetch.pipeline` computes, and pages have the same fates.

    Would catch: a latency counted twice, a demand that does not overtake, write-back that slows reads. 1e-9: rounding.
    """
    monkeypatch.setitem(routing.RULES, "round_robin", ToTheFirst)
    settings, rows = SLOW | {"prefetch": PREDICTORS[name]}, draw(2, 12, rate=3000.0)
    alone, shared = served(settings, rows), served(settings | {"cluster.replicas": 2}, rows)
    np.testing.assert_allclose(times(shared), times(alone), rtol=1e-9)
    for key in ("coverage", "accuracy", "asked", "demand", "issued", "late"):
        assert shared.summary["prefetch"][key] == alone.summary["prefetch"][key], key


@pytest.mark.parametrize("replicas", [2, 3])
def test_equals_in_step_get_equal_parts(replicas: int) -> None:
    """Replicas that do the same at the same time read at 1/n of the link, all the time: n times slower links for each.

    Would catch: a stage that is not shared, or shared out by anything but need. 1e-9: rounding.
    """
    rows = [(0.0, 300, 8)]
    settings = SLOW | {"prefetch": {"predictor": "none"}, "cluster.kv_pool.board.outstanding": "inf"}
    together = served(settings | {"cluster.replicas": replicas}, rows * replicas)
    slower = served(settings | {"cluster.kv_pool.link": {"type": "pcie-gen4-x16", "bandwidth": f"{0.2 / replicas} GB/s"}}, rows)
    np.testing.assert_allclose(times(together), times(slower)[0], rtol=1e-9)


def test_a_late_one_takes_half_from_then_on() -> None:
    """Bytes are conserved: what two replicas read is what the shared stage carried; it is never given out twice.

    INV-RATES and INV-BYTES are asserted at every change of rates (`check`). Tolerance: rounding of sums.
    """
    world = scenario(SLOW | {"cluster.replicas": 2, "workload.synthetic": _UNUSED, "prefetch": {"predictor": "next_layer"}})
    run = Simulation(world.resolved, requests([(0.0, 300, 20), (0.002, 280, 20)]), check=True)
    run.run()
    read = sum(one.far.moved for one in run.servers if one.far) * run.geometry.layer_bytes
    bursts = [one.far.bursts for one in run.servers]  # type: ignore[union-attr]
    stages = {stage.name: stage for one in bursts for way in (one.system._read, one.system._write) for stage, _ in way}
    assert read > 0
    assert stages["pool.link.read"].carried == pytest.approx(read, rel=1e-9)


def test_only_what_can_bind_is_left() -> None:
    """Of stages with the same users in the same proportions the narrowest stays; private ones are apart.

    Would catch: a reduction that drops a stage which binds when others are busy.
    """
    world = scenario(SLOW | {"cluster.replicas": 2, "workload.synthetic": _UNUSED}).resolved
    group = world.cluster.groups[0]
    fabric = SharedFabric(None, [one for n in range(2) for one in far_crossings(world.of(group), n)])  # type: ignore[arg-type]
    names = set(fabric.stages)
    assert "pool.link.read" in names  # 0.2 GB/s, narrower than DMA and engines
    assert "pool.dma.read" not in names
    assert {"gpu.port.read of replica 0", "gpu.port.read of replica 1"} <= {*names} or "pool.memory" in names


def test_one_has_what_the_others_leave_of_l3() -> None:
    """L3 holds 30 blocks for two replicas. One alone may use all; the sum is never more (INV-CAPACITY of the shared tier).

    Would catch: L3 cut in equal parts (the long request would be rejected), or counted twice.
    """
    settings = pool(l1=8, l3=30, link="2 GB/s") | {"kv.codec": "none", "scheduler.watermark": 0.0}
    run = served(settings | {"cluster.replicas": 2}, [(0.0, 16 * 34, 4), (1e-6, 16 * 34, 4)])
    assert run.summary["requests"]["finished"] == 2
    tier = run.summary["tiers"]["l3"]
    assert 0 < tier["peak_bytes"] <= tier["capacity_bytes"] * (1 + 1e-9)
    # the second replica's request had to wait until the first one's was done: 27 + 27 blocks do not fit 30
    columns = run.columns
    assert columns["admitted_s"][1] == pytest.approx(columns["finished_s"][0], rel=1e-9)


_UNUSED = {
    "requests": 1, "arrivals": {"process": "at_once"}, "input": {"dist": "fixed", "tokens": "1 token"},
    "output": {"dist": "fixed", "tokens": "1 token"},
}  # fmt: skip
