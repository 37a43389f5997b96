"""`devices: detailed`: whole runs whose far steps take as long as the detailed devices take, beside the same runs by flows.

The bound of 5 % is the design's, inside the validity of the fluid model; what is found is below it (`-s` prints it).
"""

from __future__ import annotations

from itertools import pairwise
from math import inf
from typing import Any

import pytest

from simulator.errors import InputError
from simulator.experiments.arms import run_arms
from simulator.experiments.device_curves import device_curves
from simulator.experiments.explain import explain
from simulator.hardware.detailed.device import Device
from simulator.metrics.invariants import InvariantError
from simulator.scenario import Scenario
from tests.properties.small import ROOT, blocks, lasting, pool, same_requests, scenario, served

MEAN = 5.0  # per cent
FAR: dict[str, Any] = pool(l1=60, l3=4000, l2=400, link="20 GB/s", outstanding="256 KiB") | {
    "workload.synthetic": {
        "requests": 12, "arrivals": {"process": "at_once"},
        "input": {"dist": "uniform", "low": "100 tokens", "high": "1000 tokens"},
        "output": {"dist": "fixed", "tokens": "30 tokens"},
    },
    "scheduler": {"max_batch": 8, "token_budget": "2048 tokens"},
}  # fmt: skip
DETAILED = FAR | {"devices": "detailed"}
STATISTICAL = {"predictor": "statistical", "coverage": 0.8, "accuracy": 0.8, "depth": 2}
WALK = {"cluster.kv_pool.board": FAR["cluster.kv_pool.board"] | {"tlb_walk": "2 us"}}


@pytest.mark.parametrize(
    "settings",
    [
        {"prefetch": {"predictor": "none"}},
        {"prefetch": {"predictor": "next_layer"}},
        {"prefetch": STATISTICAL},
        {"prefetch": {"predictor": "oracle"}},
        {"prefetch": STATISTICAL, "kv.placement.eviction": "lru"},
        {"kv.codec": {"type": "int8", "compress_at": "gpu", "decompress_at": "gpu"}},
        {"kv.l2": blocks(10)},
    ],
    ids=["none", "next_layer", "statistical", "oracle", "lru", "codec on the GPU", "little staging"],
)
def test_closed_loop_agrees(settings: dict[str, Any]) -> None:
    """Throughput, mean TTFT and ITL of whole runs, in which batches follow from durations; invariants hold in both.

    Would catch: a wait counted twice or not at all, write-back that never ends, a device left out of the loop.
    """
    fluid, detailed = (served(FAR | settings | {"devices": devices}).summary for devices in ("fluid", "detailed"))
    assert detailed.keys() == fluid.keys() and detailed["prefetch"].keys() == fluid["prefetch"].keys()
    assert detailed["stall"].keys() == fluid["stall"].keys()
    for block, key in (("throughput", "output_tokens_per_s"), ("latency", "ttft_s"), ("latency", "itl_s")):
        ours, theirs = detailed[block][key], fluid[block][key]
        if block == "latency":
            ours, theirs = ours["mean"], theirs["mean"]
        print(f"{key:22} {100 * (ours / theirs - 1):+.2f} %")
        assert ours == pytest.approx(theirs, rel=MEAN / 100), key


def test_far_steps_took_the_devices_time() -> None:
    """A TLB that thrashes behind a walk of 2 us: the fluid run does not see it and warns, the detailed one is more than 20 %
    slower and has nothing to warn of.

    Would catch: detailed devices that are built and not asked, a warning that is lost on its way to the summary.
    """
    demand = FAR | {"prefetch": {"predictor": "none"}}
    fluid, detailed = (served(demand | WALK | {"devices": devices}).summary for devices in ("fluid", "detailed"))
    assert any("outside the validity of the fluid model" in text and "TLB thrash" in text for text in fluid["warnings"])
    assert not any("validity" in text for text in detailed["warnings"])
    assert detailed["latency"]["itl_s"]["mean"] > 1.2 * fluid["latency"]["itl_s"]["mean"]
    assert not any("validity" in text for text in served(demand).summary["warnings"])


def test_same_bytes_again_and_step_by_step() -> None:
    """INV-DETERMINISM, and runs of steps without far reads in between taken one by one.

    Would catch: an order by identity or hash, devices whose clock depends on how often they are looked at.
    """
    settings = DETAILED | {"prefetch": STATISTICAL, "kv.l1": blocks(150)}
    once, again, single = served(settings), served(settings), served(settings, coalesce=False)
    assert lasting(once.summary) == lasting(again.summary) == lasting(single.summary)
    same_requests(once, again)
    same_requests(once, single)


def test_check_changes_nothing() -> None:
    """Would catch: a check that lets the devices run on before the numbers are taken."""
    settings = DETAILED | {"kv.placement.eviction": "lru"}
    assert lasting(served(settings, check=True).summary) == lasting(served(settings, check=False).summary)


def test_nothing_far_is_the_same_run() -> None:
    """INV-IDENTITY: where everything fits into L1, requests are those of the fluid run, to the last bit."""
    near = {"kv.l1": blocks(4000)}
    same_requests(served(FAR | near), served(DETAILED | near))


def test_lost_bytes_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that forgets a byte of each burst. Would catch: INV-BYTES not being checked on the devices."""
    pass_on = Device._pass_on

    def leak(self: Device, *arguments: Any) -> None:
        self.carried -= 1.0
        pass_on(self, *arguments)

    served(DETAILED)
    monkeypatch.setattr(Device, "_pass_on", leak)
    with pytest.raises(InvariantError, match="INV-BYTES"):
        served(DETAILED)


def test_arms() -> None:
    """None, next layer and oracle on the detailed devices: prefetch hides what it can.

    Would catch: an arm that is served by the fluid model, an oracle that proposes nothing.
    """
    demand = DETAILED | {"prefetch": {"predictor": "next_layer"}}
    none, own, oracle = (
        {row["arm"]: row for row in run_arms(scenario(demand), ["none", "next_layer", "oracle"], check=True)}[arm]
        for arm in ("none", "next_layer", "oracle")
    )
    assert none["stall_s"] > own["stall_s"] > oracle["stall_s"]
    assert oracle["prefetch"]["coverage"] > 0.9


def test_refused_in_one_pass() -> None:
    """What detailed devices do not have: every reason with its field, before anything runs.

    Would catch: a traceback from inside the devices, an option that is silently ignored.
    """
    unfit = {
        "kv.selection": {"kind": "pages", "tokens": "48 tokens", "overlap": 0.6},
        "kv.placement": {"eviction": "lfu", "l2": "inclusive", "write_back": "immediate"}, "prefetch": {"predictor": "history"},
    }  # fmt: skip
    with pytest.raises(InputError) as error:
        scenario(DETAILED | unfit)
    fields = {problem.field for problem in error.value.problems}
    named = ("selection.kind", "placement.eviction", "placement.l2", "placement.write_back")
    assert fields == {f"kv.{name}" for name in named} | {"prefetch.predictor"}
    with pytest.raises(InputError, match="there is none"):
        Scenario.load(ROOT / "scenarios" / "gpu_only.yaml", set=["devices=detailed"])
    copies = {"cluster.kv_pool.link": "ideal", "cluster.kv_pool.copy_engine": "h100-pcie-gen5", "kv.codec": "none"}
    with pytest.raises(InputError, match="copy engine moves pages without it"):
        scenario(DETAILED | copies)
    with pytest.raises(InputError, match="expected one of: fluid, detailed"):
        scenario(FAR | {"devices": "fliud"})


@pytest.mark.parametrize("load_factor", [0.0, 0.32, 3.0])
def test_curves_rise(load_factor: float) -> None:
    """Latency over bandwidth of every device: monotone from the unloaded latency to saturation; the formula by hand at 0.5.

    Would catch: a curve that overshoots its cap, a device of the path without a curve.
    """
    switch = {"type": "cxl-2.0-switch", "load_factor": load_factor, "latency": "100 ns"}
    resolved = scenario(FAR | {"cluster.kv_pool.switch": switch, "cluster.kv_pool.leaf": "cxl-2.0-switch"}).resolved
    curves = {row["device"]: row for row in device_curves(resolved)}
    assert {"pool.memory", "pool.link.read", "leaf", "switch", "gpu.port.write"} <= set(curves)
    for row in curves.values():
        points = row["curve"]
        assert points[0] == {"load": 0.0, "seconds": row["latency_s"], "bytes_per_s": 0.0}
        assert points[-1]["load"] == 1.0 and points[-1]["bytes_per_s"] == row["bytes_per_s"] < inf
        for lower, higher in pairwise(points):
            assert lower["bytes_per_s"] < higher["bytes_per_s"] and lower["seconds"] <= higher["seconds"]
    middle, full = curves["switch"]["curve"][10], curves["switch"]["curve"][20]
    assert middle["seconds"] == pytest.approx(100e-9 * min(1.0 + load_factor, 7.1), rel=1e-12)
    assert full["seconds"] == pytest.approx(100e-9 * (7.1 if load_factor else 1.0), rel=1e-12)


def test_explain_says_which_devices() -> None:
    """Would catch: warnings of the fluid model about a run that does not use it, curves missing from `explain`."""
    for devices, warned in (("fluid", True), ("detailed", False)):
        found = explain(scenario(FAR | WALK | {"devices": devices}))
        assert found["devices"]["model"] == devices and found["devices"]["curves"]
        assert any("validity of the fluid model" in text for text in found["warnings"]) == warned


def test_resolved_document_keeps_the_devices() -> None:
    """Would catch: a run folder whose scenario would run on other devices, or with other sizes of what is compressed."""
    first = scenario(DETAILED | {"kv.codec": {"ratio": 2.0, "spread": 0.25}})
    again = Scenario.from_dict(first.resolved.document, ".").resolved
    assert (again.devices, again.kv.codec.spread) == ("detailed", 0.25)
