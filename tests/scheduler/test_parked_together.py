"""Replicas before one prefix cache: what one of them leaves in a shared pool the others find, fetch and pay for.

The small worlds of `test_parked.py`: blocks of 16 tokens, 32 KiB; sessions of two turns, the first of which leaves 11 of them.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.experiments.run import RunResult, run_scenario
from simulator.experiments.simulation import Simulation, work_of
from simulator.kvcache.parked import Parked
from simulator.metrics.levels import Level
from simulator.scenario import Scenario
from simulator.scheduler import routing
from simulator.scheduler.engine import Engine
from simulator.workload.read import read_trace
from simulator.workload.requests import HashIds, Requests
from simulator.workload.synthetic import build
from tests.properties.small import BLOCK, LAYERS, ToTheFirst, lasting, same_requests
from tests.scheduler.test_parked import STREAMS, TURNS, hits, run, world

ROOT = Path(__file__).parents[2]
AT_ONCE = {"kv__placement__write_back": "immediate"}
TWO: dict[str, Any] = {"workload__synthetic": TURNS | {"requests": 2}, "l1": 400, **AT_ONCE}  # a session of two turns


def together(replicas: int = 2, shared: bool = True, **more: Any) -> Scenario:
    return world(cluster__replicas=replicas, cluster__kv_pool__shared=shared, **more)


@pytest.mark.parametrize("write_back", ["lazy", "immediate"])
def test_alone_before_a_shared_pool_is_alone(write_back: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second replica that gets nothing changes no hit, no byte and no time (1e-9: flows are sums, not closed forms).

    Would catch: L3 cut in parts, a fetch that is not a flow, blocks that their own writer has to wait for.
    """
    monkeypatch.setitem(routing.RULES, "round_robin", ToTheFirst)
    sharing = {"kind": "prefix", "demote_after": "50 ms"}
    alone = run(world(kv__sharing=sharing, kv__placement__write_back=write_back))
    both = run(together(kv__sharing=sharing, kv__placement__write_back=write_back))
    assert hits(both) == hits(alone) and hits(alone)[2] > 0
    np.testing.assert_allclose(both.columns["finished_s"], alone.columns["finished_s"], rtol=1e-9)
    assert both.summary["compression"] == alone.summary["compression"]
    assert both.summary["tiers"]["l3"]["peak_bytes"] == alone.summary["tiers"]["l3"]["peak_bytes"]


def test_the_second_turn_at_another_replica() -> None:
    """Turns are dealt out: the second one comes to a replica that has never seen the session. All 11 blocks are in the shared
    pool; a pool of its own has none. Bytes: 11 blocks read, 22 written - 11 by each, none of them twice.

    Would catch: pools that are apart though shared, or shared though apart; a block that is written again by its reader.
    """
    shared, private = run(together(**TWO)), run(together(shared=False, **TWO))
    assert hits(shared) == (0, 0, 11) and hits(private) == (0, 0, 0)
    first, second = shared.summary["replicas"]
    assert (first["far_read_bytes"], second["far_read_bytes"]) == (0, 11 * BLOCK)
    assert shared.summary["compression"]["bytes_raw"] == 22 * BLOCK
    assert private.summary["compression"]["bytes_raw"] == (11 + 22) * BLOCK
    assert shared.summary["tiers"]["l3"]["peak_bytes"] == 22 * BLOCK
    assert shared.columns["cached_tokens"].tolist() == [0, 176]


def test_what_is_only_in_the_l1_of_another_is_not_found() -> None:
    """Written back when it leaves L1, and it does not. Would catch: L1s that are one, a router that moves KV."""
    assert hits(run(together(**TWO | {"kv__placement__write_back": "lazy"}))) == (0, 0, 0)


def test_two_that_fetch_at_the_same_moment_share_the_link() -> None:
    """Two sessions in step, at two replicas each: in every layer both fetch 11 pages at once, and the link is what binds: twice
    the bytes, once the latency. Closed form of one that fetches alone: layers * (latency + 11 pages / rate). 1e-9: rounding.

    Would catch: transfers of reused prefixes that do not meet on the fabric.
    """
    parks = {"kind": "prefix", "demote_after": "1 ms"}
    turns: dict[str, Any] = TURNS | {"requests": 4, "arrivals": {"process": "at_once"}}
    near = run(together(l1=400, workload__synthetic=turns))
    asked = together(l1=400, workload__synthetic=turns, kv__sharing=parks, cluster__kv_pool__board__outstanding="inf")
    far = run(asked)
    assert hits(near)[0] == 22 and hits(far) == (0, 0, 22)
    simulation = Simulation(asked.resolved, build(asked.resolved.workload, *STREAMS))
    assert simulation.far is not None
    path, page = simulation.far.path, simulation.geometry.layer_bytes
    extra = LAYERS * (path.read_latency + 2 * 11 * page / path.read_rate)
    second = far.columns["cached_tokens"] > 0
    assert second.sum() == 2
    np.testing.assert_allclose((far.columns["ttft_s"] - near.columns["ttft_s"])[second], extra, rtol=1e-9)


def test_others_find_a_block_when_its_last_byte_is_there() -> None:
    """A link on which 11 blocks take longer than the think time of 1 s: the second turn finds those that have come, the writer
    would find all. Would catch: KV that is read before it was written.
    """
    half = 5.5 * BLOCK  # B/s: five blocks and a half in a second
    slow = {"cluster__kv_pool__link": {"type": "pcie-gen4-x16", "bandwidth": f"{half} B/s"}}
    shared = run(together(**TWO, **slow))
    found = hits(shared)[2]
    assert 4 <= found <= 5  # less what headers of the link take


class Pipe:
    """Write-back of one replica, by hand."""

    def __init__(self) -> None:
        self.sent = self.there = 0.0

    def in_pool(self) -> float:
        return self.there


def test_one_capacity_one_order_one_copy() -> None:
    """Three places: what either replica uses stays, what was used longest ago leaves, nothing is written twice; how many there
    are is known at every moment. Would catch: capacity by replica, an order by who wrote, a level that is not noted.
    """
    parked, one, other = Parked(3), Pipe(), Pipe()
    for block in (1, 2, 3):
        assert parked.put(block, float(block), one, 10.0)
        one.sent += 10.0
    assert parked.holds(2, 3.0, one) and not parked.holds(2, 3.0, other)
    one.there = 20.0
    assert parked.holds(1, 3.0, other) and parked.holds(2, 3.0, other) and not parked.holds(3, 3.0, other)
    assert not parked.put(1, 4.0, other, 10.0)  # there is a copy
    parked.use([2], 5.0)
    assert parked.put(4, 6.0, other, 10.0) and parked.used == 3
    assert not parked.holds(3, 6.0, one) and parked.holds(2, 6.0, one)
    assert parked.moments.tolist() == [1.0, 2.0, 3.0] and parked.counts.tolist() == [1, 2, 3]


def test_a_level_in_time() -> None:
    """0, then 2 from 1 s, 6 from 3 s, with another of 1 from 2 s to 4 s: means by hand. Would catch: a level that ends with the
    last step, sums of what does not hold at the same time."""
    level = Level.of([([1.0, 3.0], [2, 6]), ([2.0, 4.0], [1, 0])], 10.0)
    assert level.peak == 70.0
    assert level.means(np.array([0.0, 2.0, 4.0, 8.0])).tolist() == [10.0, 50.0, 60.0]
    assert level.means(np.array([1.5, 2.5])).tolist() == [25.0]


def test_a_prefix_aware_router_sees_the_pool() -> None:
    """The session's KV is in the first replica's L1 and in the pool: both need not compute it, the first has it nearer and gets
    the second turn. At the end 21 full blocks of that are in L1 of one, and found by both. Would catch: a router that knows L1
    alone, or takes the far copy.
    """
    asked = together(cluster__routing="prefix_aware", **TWO)
    assert hits(run(asked)) == (11, 0, 0)
    requests = build(asked.resolved.workload, *STREAMS)
    simulation = Simulation(asked.resolved, requests)
    simulation.run()
    ids = work_of(requests, 16).ids
    assert ids is not None
    found = [one.engine.cached_tokens(ids(1), 337) for one in simulation.servers if isinstance(one.engine, Engine)]
    assert found == [(21 * 16, 21 * 16), (21 * 16, 0)]


MODEL = {
    "layers": 1, "hidden": 64, "heads": 1, "kv_heads": 1, "head_dim": 64, "intermediate": 64, "vocab": 100,
    "gated_mlp": True, "max_context": "10000000 tokens", "weight_bytes": 2, "kv_bytes": 2,
}  # fmt: skip


def spaced(requests: Requests, count: int) -> Requests:
    """The first ones, 10 s apart, with answers of one token: each is served, and what it leaves written, before the next."""
    ids = requests.hash_ids
    assert ids is not None
    return replace(
        requests, arrival=10.0 * np.arange(count), input_tokens=requests.input_tokens[:count],
        output_tokens=np.ones(count, np.int64), output_ids=None,
        hash_ids=HashIds(ids.flat[: ids.offsets[count]], ids.offsets[: count + 1]),
    )  # fmt: skip


def found(requests: Requests, replicas: int, shared: bool = True) -> dict[str, int]:
    """What is found by replicas of 300 blocks of L1 each and a pool that holds everything."""
    cluster: dict[str, Any] = {
        "gpus": {"type": "h100-80gb-sxm"},
        "kv_pool": {"board": {"type": "agilex-7-speckv", "memory": "64 GiB"}, "link": "pcie-gen5-x16"},
    }  # fmt: skip
    if replicas > 1:
        cluster |= {"replicas": replicas, "routing": "round_robin"}
        cluster["kv_pool"]["shared"] = shared
    values = {
        "name": "idle", "model": MODEL, "cluster": cluster, "workload": {"trace": {"path": str(MOONCAKE)}},
        "kv": {
            "block": "512 tokens", "blocks": 300, "l2": "1 GiB", "codec": "none", "sharing": {"kind": "prefix"},
            "placement": {"eviction": "lru", "write_back": "immediate"},
        },
        "scheduler": {"max_batch": 1, "token_budget": "1000000 tokens", "watermark": 0.0},
    }  # fmt: skip
    simulation = Simulation(Scenario.from_dict(values, ".").resolved, requests, check=True)
    simulation.run()
    return simulation.found_blocks


MOONCAKE = ROOT / "traces" / "mooncake_conversation_trace.jsonl.gz"


def test_replicas_with_one_pool_hit_as_one_server() -> None:
    """Recorded conversations, dealt out in turn to 1, 2 and 4 replicas before a pool that holds everything: each block that was
    ever computed is found by whoever needs it, so the share is that of one server, and of a brute-force count; private pools
    find less, the more there are.

    Would catch: a pool that some replicas do not see, L1 hits counted in L3 as well, prefixes cut at an owner's boundary.
    """
    requests = spaced(read_trace(MOONCAKE), 1000)
    assert requests.hash_ids is not None
    seen: set[int] = set()
    count = 0
    for row in range(len(requests)):
        ids = requests.hash_ids[row].tolist()
        ids = ids[: int(requests.input_tokens[row]) // 512]
        most = min(len(ids), (int(requests.input_tokens[row]) - 1) // 512)
        count += next((index for index in range(most) if ids[index] not in seen), most)
        seen.update(ids)
    totals = []
    for replicas in (1, 2, 4):
        one = found(requests, replicas)
        totals.append(one["l1"] + one["l3"])
    assert totals == [count] * 3
    private = [sum(found(requests, replicas, shared=False)[tier] for tier in ("l1", "l3")) for replicas in (2, 4)]
    assert count > private[0] > private[1]


@settings(deadline=None, max_examples=12)
@given(
    seed=st.integers(0, 2**32 - 1), l1=st.integers(60, 200), l3=st.integers(1, 400), l2=st.integers(4, 60),
    replicas=st.integers(2, 3), shared=st.sampled_from([True, True, False]),
    rule=st.sampled_from(["round_robin", "prefix_aware", "session_sticky", "least_kv"]),
    predictor=st.sampled_from(["none", "next_layer"]), demote=st.sampled_from(["", "5 ms", "50 ms"]),
    drop=st.sampled_from(["", "80 ms"]), write_back=st.sampled_from(["lazy", "immediate"]),
)  # fmt: skip
def test_invariants_and_single_steps(
    seed: int, l1: int, l3: int, l2: int, replicas: int, shared: bool, rule: str, predictor: str, demote: str, drop: str,
    write_back: str,
) -> None:  # fmt: skip
    """Random chats over replicas: invariants hold, single steps give the same bytes, L3 holds no more than there is.

    Would catch: what one replica sees of another's future, blocks in L1 that nobody gives back, a capacity counted twice.
    """
    sharing = {"kind": "prefix"} | ({"demote_after": demote} if demote else {}) | ({"drop_after": drop} if drop else {})
    lengths = {"dist": "uniform", "low": "1 tokens", "high": "120 tokens"}
    chats = {
        "requests": 40, "arrivals": {"process": "poisson", "rate": "600 /s"}, "input": lengths, "output": lengths,
        "sessions": {"turns": 4, "think": "20 ms", "prefixes": [{"tokens": "40 tokens", "count": 2}], "skew": 1.0},
    }  # fmt: skip
    asked = together(
        replicas, shared, l1=l1, l3=l3, l2=l2, workload__synthetic=chats, kv__sharing=sharing,
        prefetch={"predictor": predictor}, seed=seed, kv__placement__write_back=write_back, cluster__routing=rule,
    )  # fmt: skip
    one: RunResult = run_scenario(asked, check=True)
    tier = one.summary["tiers"]["l3"]
    assert tier["peak_bytes"] <= tier["capacity_bytes"] and tier["capacity_bytes"] == l3 * BLOCK * (1 if shared else replicas)
    single = run_scenario(asked, check=True, coalesce=False)
    same_requests(one, single)
    if shared:  # what drains in closed form sums up otherwise in the last bit
        assert lasting(one.summary) == lasting(single.summary)
