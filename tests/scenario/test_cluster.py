"""Several replicas in a scenario: groups, what they inherit, what is refused, and that the resolved file says everything."""

from __future__ import annotations

from typing import Any

import pytest

from simulator import Scenario
from simulator.errors import InputError
from simulator.experiments.explain import explain
from simulator.experiments.explain_text import render
from tests.properties.small import ROOT, pool, scenario

ONE = {
    "requests": 3, "arrivals": {"process": "at_once"}, "input": {"dist": "fixed", "tokens": "20 tokens"},
    "output": {"dist": "fixed", "tokens": "5 tokens"},
}  # fmt: skip
PAIR: list[dict[str, Any]] = [
    {"role": "prefill", "replicas": 2, "gpus": {"type": "h100-80gb-sxm"}, "scheduler": {"max_batch": 4}},
    {"role": "decode", "replicas": 3, "kv": {"l1": "1 GiB"}},
]
WAY = {"cluster.transfer": {"link": "infiniband-ndr", "count": 2, "threshold": "64 tokens"}}


def made(**settings: Any) -> Scenario:
    return scenario({"workload.synthetic": ONE} | settings)


def refused(**settings: Any) -> str:
    with pytest.raises(InputError) as caught:
        made(**settings)
    return str(caught.value)


def test_groups_have_their_own_and_the_common() -> None:
    """Would catch: a group's GPU that keeps fields of the common one, a setting of one group that reaches another."""
    first, second = made(**{"cluster.groups": PAIR, **WAY}).resolved.cluster.groups
    assert (first.name, first.count, first.gpus.gpu.name, first.scheduler.max_batch) == ("prefill", 2, "h100-80gb-sxm", 4)
    assert (second.gpus.gpu.name, second.scheduler.max_batch, second.kv.l1) == ("a100-80gb-sxm", 8, 2.0**30)
    assert first.kv.l1 is None


def test_groups_may_be_all_that_names_gpus() -> None:
    """Would catch: a `cluster.gpus` that is asked for although nobody uses it."""
    groups = [{"name": "a", "gpus": "h100-80gb-sxm"}, {"name": "b", "gpus": {"type": "a100-80gb-sxm", "count": 2}}]
    first, second = made(cluster={"groups": groups}).resolved.cluster.groups
    assert (first.gpus.gpu.name, second.gpus.count, second.gpus.tensor_parallel) == ("h100-80gb-sxm", 2, 2)


@pytest.mark.parametrize(
    "settings",
    [
        {"cluster.replicas": 3, "cluster.routing": "least_kv"},
        {"cluster.groups": PAIR, **WAY},
        {
            "cluster.replicas": 2,
            **pool(l1=10, l3=40),
            "cluster.kv_pool.shared": False,
            "faults": [{"what": "board_lost", "at": "1 s", "replica": 1}],
        },
    ],
)
def test_the_resolved_file_loads_to_the_same(settings: dict[str, Any]) -> None:
    """Would catch: a value of a group, of the pool or of the way between replicas that is not written down."""
    one = made(**settings)
    again = Scenario.from_dict(one.resolved.document, ".")
    assert again.resolved.cluster == one.resolved.cluster
    assert again.sha256 == one.sha256


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cluster.groups": [PAIR[0]], **WAY}, "no group decodes"),
        ({"cluster.groups": [PAIR[1]]}, "gets its prompts from a prefill group"),
        ({"cluster.groups": PAIR}, "write for example cluster.transfer"),
        ({"cluster.groups": [*PAIR, {"role": "both"}], **WAY}, "does both beside a prefill/decode split"),
        ({"cluster.groups": [{}, {}]}, "two groups are called 'both'"),
        ({"cluster.groups": [{}], "cluster.replicas": 2}, "groups say how many replicas"),
        ({"cluster.replicas": 2, **WAY}, "no group computes prompts for another one"),
        ({"cluster.groups": [{"gpus": {"type": "h100-80gb-sx"}}]}, "did you mean 'h100-80gb-sxm'"),
        ({"cluster.groups": [{"gpus": {"count": 3}}]}, "cluster.groups.0.gpus.count: tensor_parallel 3 does not divide"),
        ({"cluster.groups": [{"scheduler": {"max_batc": 3}}]}, "cluster.groups.0.scheduler.max_batc: unknown key"),
        ({"cluster.groups": [{"kv": {"burst": "4 KiB"}}]}, "a group has no burst of its own"),
        ({"cluster.groups": PAIR, "cluster.transfer": {"link": {"type": "infiniband-ndr", "price": "3 USD"}}}, "not used"),
        ({"cluster.replicas": 2, **pool(l1=10, l3=40), "kv.selection": {"kind": "pages", "fraction": 0.5, "overlap": 0.5}},
         "replicas read from a shared pool counts of pages"),
        ({"cluster.replicas": 2, **pool(l1=10, l3=40), "devices": "detailed"}, "detailed devices that 2 replicas share"),
        ({"cluster.replicas": 2, **pool(l1=10, l3=40), "cluster.kv_pool.shared": False,
          "faults": [{"what": "board_lost", "at": "1 s", "replica": 2}]}, "no replica 2, but 2 replicas, counted from 0"),
        ({"cluster.replicas": 2, **pool(l1=10, l3=40), "faults": [{"what": "board_lost", "at": "1 s", "replica": 1}]},
         "the pool is shared, and a board_lost breaks it for all 2 replicas"),
        ({"cluster.replicas": 2, **pool(l1=10, l3=40), "cluster.kv_pool.shared_by": 2}, "share the pool themselves"),
    ],
)  # fmt: skip
def test_refused(settings: dict[str, Any], message: str) -> None:
    """Would catch: a combination that would be ignored or simulated as something else, a message at the wrong place."""
    assert message in refused(**settings)


def test_all_groups_are_checked_in_one_pass() -> None:
    """Would catch: mistakes of groups that come to light one after the other."""
    message = refused(**{"cluster.groups": [{"gpus": {"type": "h1"}}, {"name": "b", "scheduler": {"max_batc": 3}}],
                         "cluster.routing": "best"})  # fmt: skip
    assert all(part in message for part in ("'h1' is not a known GPU", "max_batc", "'best' is not accepted"))


def test_explain_says_who_shares_what() -> None:
    """Would catch: groups that are not listed, a private port among what is shared, a knee in other units."""
    found = explain(made(**{"cluster.groups": PAIR, **WAY}))
    assert [(row["group"], row["replicas"]) for row in found["replicas"]["groups"]] == [("prefill", 2), ("decode", 3)]
    way = found["replicas"]["transfer"]
    assert way["prompt_tokens_per_s"] == pytest.approx(way["stages"][1]["bytes_per_s"] / 2048)
    assert "its links keep up with" in render(found)
    shared = explain(Scenario.load(ROOT / "scenarios" / "replicas_shared_pool.yaml"))["replicas"]["pool"]
    assert shared["shared"] and {row["replicas"] for row in shared["stages"]} == {4}
    assert not any("replica" in row["stage"] for row in shared["stages"])
    fault = {"what": "board_lost", "at": "1 s", "replica": 1}
    own = made(**{"cluster.replicas": 2, **pool(l1=10, l3=40), "cluster.kv_pool.shared": False, "faults": [fault]})
    assert "board_lost of replica 1" in render(explain(own))
    assert explain(made())["replicas"] is None
