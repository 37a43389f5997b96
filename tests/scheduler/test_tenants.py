"""Tenants on the fabric: shares of it by weight, and which replicas serve whom."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import simpy

from simulator.errors import InputError
from simulator.experiments.explain import explain
from simulator.experiments.explain_text import render
from simulator.experiments.run import RunResult, run_scenario
from simulator.hardware.gpu import StepModel
from simulator.scenario import Scenario
from simulator.scenario.resolved import Tenant
from simulator.scheduler.tenants import Tenants
from tests.properties.small import LAYERS, Rows, Settings, draw, pool, scenario, served

TOKEN = 512 * LAYERS  # bytes of KV of a token
RATE = 10e6  # bytes/s of the link between prompts and decodes
WEIGHTED = {"tenants": [{"name": "x", "weight": 2}, {"name": "y"}]}
EVEN = {"tenants": [{"name": "x", "weight": 3}, {"name": "y", "weight": 3}]}
APART: dict[str, Any] = {
    "cluster.gpus.link": "ideal",
    "cluster.groups": [
        {"name": "of x", "role": "prefill", "tenants": ["x"]},
        {"name": "of y", "role": "prefill", "tenants": ["y"]},
        {"role": "decode"},
    ],
    "cluster.transfer.link": {"type": "ideal", "bandwidth": f"{RATE} B/s"},
}
ONE_POOL = pool(l1=10, l3=800, link="2 MB/s", outstanding="inf") | {
    "kv.codec": "none", "prefetch": {"predictor": "none"},
    "cluster.groups": [{"name": "of x", "tenants": ["x"]}, {"name": "of y", "tenants": ["y"]}],
}  # fmt: skip

LENGTH = {"dist": "fixed", "tokens": "9 tokens"}
ONE = {"requests": 1, "arrivals": {"process": "at_once"}, "input": LENGTH, "output": LENGTH}


def owned(settings: Settings, rows: Rows, tenants: str, coalesce: bool = True) -> RunResult:
    """A checked run of BASE with `settings`; the i-th request is of the tenant with the i-th letter."""
    with TemporaryDirectory() as folder:
        lines = [f"{at!r},{prompt},{output},{name}\n" for (at, prompt, output), name in zip(rows, tenants, strict=True)]
        text = "arrival_s,input_tokens,output_tokens,tenant\n" + "".join(lines)
        Path(folder, "rows.csv").write_text(text, encoding="utf-8")
        return run_scenario(scenario({"workload.trace.path": "rows.csv", **settings}, folder), check=True, coalesce=coalesce)


def there(run: RunResult) -> Any:
    """When the KV of each prompt was at its decode replica."""
    return run.columns["first_token_s"] + run.columns["transfer_s"]


def first_layer(run: RunResult, prompt: int) -> float:
    """When the first layer of a prompt is computed that begins at 0."""
    resolved = run.scenario.resolved
    steps = StepModel(resolved.model, resolved.gpus, 0.0, 0.0)
    return steps.layer_time(prompt, 1, 0, steps.prefill_attention([(prompt, 0)], contexts=()).time)


def test_crossings_share_the_link_by_weight() -> None:
    """Two prompts of the same size are computed at the same time and cross one link: x at 2/3 of it until it is there, y at 1/3
    and then at all of it. By hand x needs 1.5 S / C, and y 2 S / C, as the link is never idle. 1e-9: rounding.

    Would catch: weights upside down, by request instead of by tenant, kept when nobody else is there.
    """
    run = owned(APART | WEIGHTED, [(0.0, 200, 5), (0.0, 200, 5)], "xy")
    size, begin = 200 * TOKEN, first_layer(run, 200)
    expected = [begin + 1.5 * size / RATE, begin + 2.0 * size / RATE]
    np.testing.assert_allclose(there(run), expected, rtol=1e-9)
    assert [row["transfer_bytes"] for row in run.summary["tenants"].values()] == [size, size]


@pytest.mark.parametrize("world", [APART, ONE_POOL | {"cluster.kv_pool.link.bandwidth": "2 GB/s"}])
def test_equal_weights_change_nothing(world: dict[str, Any]) -> None:
    """Who has tenants of equal weight has the run without tenants, to the last bit.

    Would catch: shares that are not relative, so that rates differ by rounding; write-back with a share of its own.
    """
    groups = [{key: value for key, value in group.items() if key != "tenants"} for group in world["cluster.groups"]]
    rows = draw(5, 40, rate=3000.0)
    everybody = world | {"cluster.groups": groups}
    run, without = owned(everybody | EVEN, rows, "xxy" * 13 + "y"), served(everybody, rows)
    for name, column in without.columns.items():
        if name != "tenant":
            np.testing.assert_array_equal(run.columns[name], column, err_msg=name)
    skipped = ("tenants", "fairness", "simulation", "provenance")
    one, other = ({key: value for key, value in found.summary.items() if key not in skipped} for found in (run, without))
    assert json.dumps(one) == json.dumps(other)


def test_replicas_that_share_a_pool_read_by_weight() -> None:
    """One sequence on each replica, steps that are nearly all reading: x gets 2/3 of the link, y 1/3 until x is done.

    Alone a token takes T; x so takes 1.5 T a token, and y, which reads as many bytes, 2 T on average. Within 1 %: prompts are
    written back by weight as well, so x has its first token a little before y.

    Would catch: weights that do not reach the flows of far reads, or reach the wrong replica.
    """
    rows = [(0.0, 300, 60), (0.0, 300, 60)]
    alone = owned(ONE_POOL | WEIGHTED, rows[:1], "x").columns["tpot_s"][0]
    run = owned(ONE_POOL | WEIGHTED, rows, "xy")
    np.testing.assert_allclose(run.columns["tpot_s"] / alone, [1.5, 2.0], rtol=0.01)


def test_a_step_of_several_has_their_mean_weight() -> None:
    """Three blocks of x (weight 2) and one of y (1), relative to x: (3 x 1 + 1 x 0.5) / 4. Equal weights give exactly 1.

    Would catch: a mean over tenants or requests instead of bytes.
    """
    env = simpy.Environment()
    mixed = Tenants(env, [0, 1], [Tenant("x", 1, 2), Tenant("y", 1, 1)])
    assert mixed.mean_share("a", {0: 3, 1: 1}) == 0.875
    assert Tenants(env, [0, 1], [Tenant("x", 1, 0.3), Tenant("y", 1, 0.3)]).mean_share("a", {0: 3, 1: 7}) == 1.0


def test_replicas_that_read_for_one_tenant_divide_its_weight() -> None:
    """x has 2 of its own for each replica, or for all together: 1 each while two read for it, 2 again when one is left.

    Would catch: a replica that is counted after it has read its last page for a tenant, or by the tenants of others.
    """
    tenants = Tenants(simpy.Environment(), [0, 1], [Tenant("y", 1, 1), Tenant("x", 1, 2, "together")])
    assert tenants.mean_share("a", {1: 5}) == 2.0
    assert tenants.mean_share("b", {1: 3, 0: 1}) == (3 * 1 + 1 * 1) / 4
    assert tenants.mean_share("a", {1: 5}) == 1.0
    assert tenants.mean_share("b", {0: 1}) == 1.0
    assert tenants.mean_share("a", {1: 5}) == 2.0


def test_flows_together_have_the_weight_of_the_tenant() -> None:
    """Three prompts of x and one of y cross at once, weights equal, of all flows together: x's have a sixth of the link each.

    y is there after 2 S / C; then x, of whose prompts 2/3 of the bytes are left, has it all: 4 S / C. With weights of each flow
    all four would be there after 4 S / C. 1e-9: rounding.

    Would catch: a weight that is not divided again when a flow comes or goes.
    """
    prefill = {"role": "prefill", "replicas": 4}
    tenants = {"tenants": [{"name": "x", "flows": "together"}, {"name": "y", "flows": "together"}]}
    four = APART | {"cluster.groups": [prefill, {"role": "decode"}]} | tenants
    run = owned(four, [(0.0, 200, 5)] * 4, "xxyx")
    begin, time = first_layer(run, 200), 200 * TOKEN / RATE
    np.testing.assert_allclose(there(run) - begin, [4 * time, 4 * time, 2 * time, 4 * time], rtol=1e-9)


def test_bytes_by_tenant_are_all_bytes() -> None:
    """What is read from far memory for the tenants sums to what the replicas read, and crossings to what crossed.

    Would catch: bytes of one kind of replica only, a tenant charged for another one.
    """
    far = pool(l1=10, l3=400, link="1 GB/s") | {"kv.codec": "none", "prefetch": {"predictor": "none"}}
    run = owned(APART | far | WEIGHTED, draw(6, 30, rate=3000.0, prompt=300), "xyy" * 10)
    rows = run.summary["tenants"].values()
    assert sum(row["far_read_bytes"] for row in rows) == pytest.approx(
        sum(row["far_read_bytes"] for row in run.summary["replicas"]), rel=1e-9
    )
    assert min(row["far_read_bytes"] for row in rows) > 0
    assert sum(row["transfer_bytes"] for row in rows) == run.summary["handover"]["bytes"]


def test_replicas_serve_their_tenants_in_turn() -> None:
    """x has two replicas, y one of them and another: round robin goes in turn among those of each tenant.

    Would catch: one turn for all tenants, which skips replicas; a tenant served where it should not be.
    """
    groups = [{"name": "a", "tenants": ["x"]}, {"name": "b", "tenants": ["x", "y"]}, {"name": "c", "tenants": ["y"]}]
    run = owned({"cluster.groups": groups} | WEIGHTED, [(0.001 * at, 20, 2) for at in range(8)], "xyxyyxxy")
    assert [row["requests"] for row in run.summary["replicas"]] == [2, 4, 2]


def test_what_is_resolved_loads_again() -> None:
    """Would catch: tenants of a group, or a budget, that `scenario.resolved.yaml` leaves out or writes in another way."""
    budgets = {"tenants": [{"name": "x", "bandwidth": "20 MB/s"}, {"name": "y", "bandwidth": "1 GB/s", "burst": "3 B"}]}
    resolved = scenario({"workload.synthetic": ONE} | APART | budgets).resolved
    assert [(one.bandwidth, one.burst) for one in resolved.tenants] == [(20e6, 2e6), (1e9, 3.0)]
    again = Scenario.from_dict(resolved.document, ".").resolved
    assert (again.cluster, again.tenants) == (resolved.cluster, resolved.tenants)
    assert [group.tenants for group in again.cluster.groups] == [("x",), ("y",), ()]


def test_explain_says_who_is_entitled_to_what() -> None:
    """Would catch: a share, budget or group that explain leaves out, no limit that is not null in JSON."""
    settings = {"tenants": [{"name": "x", "weight": 2, "share": 3, "bandwidth": "1 MB/s"}, {"name": "y", "flows": "together"}]}
    found = explain(scenario({"workload.synthetic": ONE} | APART | settings))
    rows = [list(row.values()) for row in found["tenants"]]
    assert rows == [
        ["x", 0.75, 2, 1, "each", 1e6, 1e5, ["of x", "decode"]],
        ["y", 0.25, 1, 0.5, "together", None, 0, ["of y", "decode"]],
    ]
    assert "no limit" in render(found).split("Tenants on the fabric")[1].split("Devices")[0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cluster.groups": [{"tenants": ["x", "yy"]}, {"name": "b"}]}, "'yy' is not one of the tenants.*did you mean 'y'"),
        ({"cluster.groups": [{"tenants": ["x"]}, {"name": "b", "tenants": ["x"]}]}, "no group serves tenant 'y'"),
        ({"cluster.groups": [{"tenants": []}, {"name": "b"}]}, "a group that serves nobody"),
        ({"tenants": [{"name": "x"}, {"name": "y", "bandwidth": "1 GB/s"}]}, "tenants.1.bandwidth: nothing crosses a fabric"),
        ({"cluster.replicas": 2, "tenants": [{"name": "x", "bandwidth": "1 GB/s"}]}, "nothing crosses a fabric here"),
        ({"tenants": [{"name": "x", "burst": "1 GB"}]}, "tenants.0.burst: burst is of a tenant with a bandwidth"),
        (
            pool(10, 60) | {"kv.placement.eviction": "lfu", "tenants": [{"name": "x", "bandwidth": "1 GB/s"}]},
            "bandwidth beside pages by identity.*write kv.placement.eviction: split",
        ),
    ],
)
def test_groups_and_tenants_have_to_agree(settings: dict[str, Any], message: str) -> None:
    """Would catch: a request that no replica may take, which would end in a traceback; a name that is not there; a budget that
    nothing is charged to."""
    with pytest.raises(InputError, match=f"(?s){message}"):
        scenario({"workload.synthetic": ONE} | WEIGHTED | settings)
