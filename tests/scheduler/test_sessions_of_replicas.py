"""Sessions that several replicas serve: where a turn is expected, and what if it goes elsewhere."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.experiments.run import run_scenario
from simulator.scenario import Scenario
from tests.properties.small import BLOCK, same_requests
from tests.scheduler.test_parked import PARKS, SESSION, TURNS, hits, run, world


def several(rule: str, shared: bool = False, **more: Any) -> Scenario:
    return world(cluster__replicas=2, cluster__kv_pool__shared=shared, cluster__routing=rule, **more)


FETCHED: dict[str, Any] = {"l1": 400, "kv__sharing": PARKS, "prefetch": SESSION, "workload__synthetic": TURNS | {"requests": 2}}


@pytest.mark.parametrize("shared", [True, False])
def test_a_turn_that_comes_back_finds_its_kv(shared: bool) -> None:
    """Where sessions stick, the second turn finds its 11 blocks in L2, as with one replica, at the same time; of a fetch
    that begins too late it finds as many. 1e-9: rounding.

    Would catch: announcements that are lost behind a router, a replica that sleeps while it should fetch, another rate.
    """
    one, two = run(world(**FETCHED)), run(several("session_sticky", shared, **FETCHED))
    assert hits(one) == hits(two) == (0, 11, 0)
    assert two.columns["ttft_s"].tolist() == pytest.approx(one.columns["ttft_s"].tolist(), rel=1e-9)
    slow = {"type": "pcie-gen4-x16", "bandwidth": "0.02 GB/s"}
    late = FETCHED | {"cluster__kv_pool__link": slow, "prefetch": SESSION | {"lead": f"{5.5 * BLOCK / 0.02e9 * 1e3:.6f} ms"}}
    one, two = run(world(**late)), run(several("session_sticky", shared, **late))
    assert hits(two) == hits(one) and hits(one)[1] > 3
    assert two.columns["ttft_s"].tolist() == pytest.approx(one.columns["ttft_s"].tolist(), rel=1e-9)


@pytest.mark.parametrize("shared", [True, False])
def test_a_turn_that_goes_elsewhere_was_fetched_for_nothing(shared: bool) -> None:
    """Turns dealt out: the fetch at the first replica is of no use, all 11 blocks of it, and L2 is free again; the second one
    has nothing, or what is in a shared pool. Would catch: pages without a fate, L2 that stays reserved for who never comes.
    """
    result = run(several("round_robin", shared, **FETCHED))
    assert hits(result) == (0, 0, 11 * shared)
    assert result.summary["prefetch"]["wasted_bytes"] == 11 * BLOCK
    later = TURNS | {"requests": 4, "sessions": TURNS["sessions"] | {"turns": 4}}  # 1st and 3rd turn at one, the others not
    narrow = FETCHED | {"l2": 38, "workload__synthetic": later}  # room for the 33 blocks that the third turn leaves, and no 11
    assert run(several("round_robin", shared, **narrow)).summary["prefetch"]["dropped"] == 0


@settings(deadline=None, max_examples=10)
@given(
    seed=st.integers(0, 2**32 - 1), l1=st.integers(80, 200), l3=st.integers(1, 400), l2=st.integers(4, 60),
    rule=st.sampled_from(["round_robin", "prefix_aware", "session_sticky"]), demote=st.sampled_from(["", "5 ms", "50 ms"]),
    lead=st.sampled_from(["1 ms", "20 ms"]), shared=st.booleans(), write_back=st.sampled_from(["lazy", "immediate"]),
)  # fmt: skip
def test_invariants_and_single_steps(
    seed: int, l1: int, l3: int, l2: int, rule: str, demote: str, lead: str, shared: bool, write_back: str
) -> None:  # fmt: skip
    """Random chats over replicas: invariants hold, and single steps give the same bytes.

    Would catch: strays that are noticed at other times where steps are grouped, fates that do not add up.
    """
    lengths = {"dist": "uniform", "low": "1 tokens", "high": "120 tokens"}
    chats = {
        "requests": 40, "arrivals": {"process": "poisson", "rate": "400 /s"}, "input": lengths, "output": lengths,
        "sessions": {"turns": 4, "think": "20 ms", "prefixes": [{"tokens": "40 tokens", "count": 2}], "skew": 1.0},
    }  # fmt: skip
    asked = several(
        rule, shared, l1=l1, l3=l3, l2=l2, workload__synthetic=chats, seed=seed, kv__placement__write_back=write_back,
        kv__sharing={"kind": "prefix"} | ({"demote_after": demote} if demote else {}),
        prefetch=SESSION | {"coverage": 0.8, "accuracy": 0.8, "lead": lead},
    )  # fmt: skip
    same_requests(run_scenario(asked, check=True), run_scenario(asked, check=True, coalesce=False))
