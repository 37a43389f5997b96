"""What becomes of parked KV when boards and links of the pool break: misses, never what is not there.

The small worlds of `test_parked.py`: sessions whose turns leave 11 full blocks each, one second apart; nothing stays in L1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.experiments.run import RunResult, run_scenario
from simulator.kvcache.parked import Parked
from tests.properties.small import BLOCK, same_requests
from tests.properties.worlds import FAULT
from tests.scheduler.test_parked import SESSION, TURNS, hits, run, world
from tests.scheduler.test_parked_together import Pipe

THREE = TURNS | {"requests": 3, "sessions": TURNS["sessions"] | {"turns": 3}}  # at about 0, 1 and 2 s
PARKED: dict[str, Any] = {
    "l1": 400, "workload__synthetic": THREE, "kv__sharing": {"kind": "prefix", "demote_after": "1 ms"},
    "cluster__kv_pool__count": 2,
}  # fmt: skip


def found(**more: Any) -> list[int]:
    """Tokens that each of the three turns did not have to compute."""
    cached: list[int] = run(world(**PARKED | more)).columns["cached_tokens"].tolist()
    return cached


def fault(what: str, at: str, **more: Any) -> dict[str, Any]:
    return {"faults": [{"what": what, "at": at} | more]}


def test_a_lost_board_is_a_miss_and_no_more() -> None:
    """Turns find 0, 176 and 352 tokens. A board that is lost at 0.5 s, or at 1.5 s, takes all that is parked: the next turn
    is computed whole; what that leaves is found again. Nobody is aborted or starts over.

    Would catch: stale hits, a pool that stays empty, requests in L1 that pay for what nobody read.
    """
    assert found() == [0, 176, 352]
    assert found(**fault("board_lost", "0.5 s")) == [0, 0, 352]
    assert found(**fault("board_lost", "1.5 s")) == [0, 176, 0]
    result = run(world(**PARKED | fault("board_lost", "0.5 s")))
    assert result.summary["faults"][0]["aborted"] == result.summary["faults"][0]["recomputed"] == 0
    assert result.summary["requests"]["finished"] == 3


def test_half_of_the_boards_hold_half() -> None:
    """Two boards of 8 blocks each hold a session's 11; one alone holds the first 8. Would catch: a capacity that stays."""
    half = PARKED | {"l3": 8, "workload__synthetic": TURNS | {"requests": 2}}
    assert hits(run(world(**half))) == (0, 0, 11)
    assert hits(run(world(**half | fault("board_lost", "1 us")))) == (0, 0, 8)


def test_out_of_reach_is_a_miss_until_it_is_back() -> None:
    """Links down from 0.5 s to 1.5 s: the second turn is computed whole, and nobody waits; the third finds what the first had
    left - the second left nothing behind that, since there was no way.

    Would catch: a replica that stands still for KV it can compute, parked KV that is lost though its board is not.
    """
    down = fault("link_down", "0.5 s", **{"for": "1 s"})
    assert found(**down) == [0, 0, 176]
    whole = run(world(**PARKED | {"kv__sharing": {"kind": "prefix", "drop_after": "1 ms"}}))  # parks nothing
    assert run(world(**PARKED | down)).columns["ttft_s"][1] == pytest.approx(whole.columns["ttft_s"][1], rel=1e-12)
    # still in L1, what was filled meanwhile is written when the links are back, and found by another replica then
    kept = PARKED | down | {"kv__sharing": {"kind": "prefix"}, "kv__placement__write_back": "immediate"}
    assert run(world(**kept)).summary["compression"]["bytes_raw"] == 33 * BLOCK


@pytest.mark.parametrize(("what", "more"), [("board_lost", {}), ("link_down", {"for": "0.3 s"})])
def test_a_fetch_ends_where_its_source_does(what: str, more: dict[str, Any]) -> None:
    """Half of the blocks that are fetched for a session are there when the pool goes: hits in L2; the rest is computed.

    Would catch: a fetch that goes on without its source, L2 that stays reserved, pages without a fate.
    """
    slow = {"cluster__kv_pool__link": {"type": "pcie-gen4-x16", "bandwidth": "1 MB/s"}, "cluster__kv_pool__count": 1}
    asked = PARKED | slow | {"workload__synthetic": TURNS | {"requests": 2}, "prefetch": SESSION | {"lead": "0.4 s"}}
    whole, cut = run(world(**asked)), run(world(**asked | fault(what, "0.8 s", **more)))
    assert hits(whole) == (0, 11, 0)
    near, ahead, far = hits(cut)
    assert (near, far) == (0, 0) and 4 <= ahead <= 7
    assert cut.summary["prefetch"]["dropped"] == (11 - ahead) * 4


def test_what_came_after_the_loss_is_kept() -> None:
    """Replicas notice a loss one after the other: what the first has parked since, the second does not take away. By hand."""
    parked, one = Parked(8), Pipe()
    for block, at in ((1, 1.0), (2, 2.0)):
        parked.put(block, at, one, 1.0)
    parked.lose(2.5, 2.6)
    parked.put(3, 3.0, one, 1.0)
    parked.lose(2.5, 3.1)
    assert parked.used == 1 and parked.holds(3, 3.2, one) and not parked.holds(1, 3.2, one)


@settings(deadline=None, max_examples=15)
@given(
    seed=st.integers(0, 2**32 - 1), l1=st.integers(60, 200), l3=st.integers(1, 200), l2=st.integers(4, 60),
    faults=st.lists(FAULT, min_size=1, max_size=3), predictor=st.sampled_from(["none", "next_layer", "session"]),
    demote=st.sampled_from(["", "5 ms"]), write_back=st.sampled_from(["lazy", "immediate"]),
    replicas=st.sampled_from([1, 2, 3]), shared=st.booleans(),
)  # fmt: skip
def test_invariants_and_single_steps(
    seed: int, l1: int, l3: int, l2: int, faults: list[dict[str, Any]], predictor: str, demote: str, write_back: str,
    replicas: int, shared: bool,
) -> None:  # fmt: skip
    """Random chats while things break: invariants hold, single steps give the same bytes, nobody is aborted.

    Would catch: L2 overcommitted by write-back that has no way, fates that do not add up, changes seen at other times.
    """
    lengths = {"dist": "uniform", "low": "1 tokens", "high": "120 tokens"}
    chats = {
        "requests": 40, "arrivals": {"process": "poisson", "rate": "300 /s"}, "input": lengths, "output": lengths,
        "sessions": {"turns": 4, "think": "20 ms", "prefixes": [{"tokens": "40 tokens", "count": 2}], "skew": 1.0},
    }  # fmt: skip
    ahead: dict[str, Any] = {"predictor": predictor}
    if ahead["predictor"] == "session":
        ahead |= {"coverage": 0.7, "accuracy": 0.8, "lead": "20 ms"}
    several: dict[str, Any] = {"cluster__replicas": replicas, "cluster__kv_pool__shared": shared} if replicas > 1 else {}
    asked = world(
        l1, l3, l2, workload__synthetic=chats, seed=seed, faults=faults, prefetch=ahead, cluster__kv_pool__count=2,
        kv__sharing={"kind": "prefix"} | ({"demote_after": demote} if demote else {}), kv__placement__write_back=write_back,
        **several,
    )  # fmt: skip
    one: RunResult = run_scenario(asked, check=True)
    tier = one.summary["tiers"]["l3"]
    assert tier["peak_bytes"] <= tier["capacity_bytes"]
    assert not np.any(one.columns["status"] == "aborted")
    same_requests(one, run_scenario(asked, check=True, coalesce=False))


def test_a_shared_pool_loses_for_all() -> None:
    """Three turns at three replicas: each finds what the one before it left, unless a board was lost in between. Would catch:
    a loss that only who notices it first knows of, or that takes what came after it.
    """
    turns: dict[str, Any] = {"cluster__replicas": 3, "cluster__kv_pool__shared": True, "kv__placement__write_back": "immediate"}
    assert found(**turns) == [0, 176, 352]
    assert found(**turns, **fault("board_lost", "0.5 s")) == [0, 0, 352]
    assert found(**turns, **fault("board_lost", "0.5 s", **{"for": "0.1 s"})) == [0, 0, 352]
    assert found(**turns, **fault("link_down", "0.5 s", **{"for": "0.7 s"}))[1] == 0
