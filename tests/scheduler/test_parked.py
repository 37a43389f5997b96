"""Tiers of the prefix cache in time: what is found in L1, L2 and L3, what its way back costs, what leaves when.

Sessions of two turns in small worlds (`tests/properties/small.py`): blocks of 16 tokens, 32 KiB; L3 behind 2 GB/s.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.errors import InputError
from simulator.experiments.run import RunResult, run_scenario
from simulator.experiments.simulation import Simulation
from simulator.scenario import Scenario
from simulator.workload.synthetic import build
from tests.properties.small import BLOCK, pool, same_requests, scenario

STREAMS = (np.random.default_rng(1), np.random.default_rng(2))
FIXED = {"dist": "fixed", "tokens": "160 tokens"}
TURNS: dict[str, Any] = {
    "requests": 16, "arrivals": {"process": "constant", "rate": "10 /s"},
    "input": FIXED, "output": {"dist": "fixed", "tokens": "17 tokens"},
    "sessions": {"turns": 2, "spread": "fixed", "think": "1 s", "think_cv": 0.0},
}  # fmt: skip


def world(l1: int = 40, l3: int = 1000, l2: int = 32, **settings: Any) -> Scenario:
    """Eight sessions of two turns that do not fit in L1 together: 160 + 17 tokens, then 160 + 17 more."""
    base = {
        "workload.synthetic": TURNS, **pool(l1, l3, l2), "kv.codec": "none", "kv.placement.eviction": "lru",
        "kv.sharing": {"kind": "prefix"}, "prefetch.predictor": "none",
    }  # fmt: skip
    return scenario(base | {name.replace("__", "."): value for name, value in settings.items()})


def run(asked: Scenario) -> RunResult:
    return run_scenario(asked, check=True)


def hits(result: RunResult) -> tuple[int, int, int]:
    found = result.summary["prefix_cache"]
    return found["l1_hit_blocks"], found["l2_hit_blocks"], found["l3_hit_blocks"]


def test_what_left_l1_is_found_in_l3() -> None:
    """A turn leaves 176 tokens of full blocks: 11. Of eight sessions the last two or three are still in L1 (40 blocks), the
    others come back from L3; all are found somewhere: 8 x 11.

    Would catch: a parked session computed again, blocks counted in two tiers, a miss in L1 that hides what is below.
    """
    near, ahead, far = hits(run(world()))
    assert near + far == 88 and ahead == 0 and far > 0
    assert run(world()).summary["prefix_cache"]["hit_tokens"] == 88 * 16
    assert hits(run(world(l1=400))) == (88, 0, 0)


def test_eviction_follows_the_prefix_cache() -> None:
    """What a file does not say is `lru` beside a prefix cache and `split` without one; `split` that it does say is refused.

    Would catch: a prefix cache that cannot be had without a key which has one value.
    """
    parked = {"kv.sharing": {"kind": "prefix"}, "workload.synthetic": TURNS, "kv.codec": "none", **pool(40, 1000, 32)}
    parked.pop("kv.placement.eviction", None)
    assert scenario(parked).resolved.kv.eviction == "lru"
    assert scenario(parked | {"kv.sharing": {"kind": "private"}}).resolved.kv.eviction == "split"
    with pytest.raises(InputError, match="'split' is not used"):
        scenario(parked | {"kv.placement.eviction": "split"})


def test_a_pool_without_room_finds_nothing_there() -> None:
    """L3 of a block: what leaves L1 is lost. Would catch: a pool without a capacity, or with one that is never used up."""
    near, _, far = hits(run(world(l3=1)))
    assert far <= 1 and near < 40


def test_a_hit_in_l3_pays_its_way_back() -> None:
    """Prompts of 337 tokens of which 176 come from L3, on demand: the TTFT is that of a hit in L1 and for every layer the
    transfer of 11 pages and a latency: closed form, to 1e-9.

    Would catch: a fetch for free, one that is charged twice, a prompt that is computed as well.
    """
    settings: dict[str, Any] = {"workload__synthetic": TURNS | {"requests": 2}}
    near = run(world(l1=400, **settings))
    far = run(world(l1=400, kv__sharing={"kind": "prefix", "demote_after": "1 ms"}, **settings))
    assert hits(near) == (11, 0, 0) and hits(far) == (0, 0, 11)
    simulation = Simulation(world(l1=400).resolved, build(world().resolved.workload, *STREAMS))
    assert simulation.far is not None
    path, page = simulation.far.path, simulation.geometry.layer_bytes
    extra = simulation.geometry.layers * (path.read_latency + 11 * page / path.read_rate)
    found = far.columns["ttft_s"][1] - near.columns["ttft_s"][1]
    assert found == pytest.approx(extra, rel=1e-9)
    assert far.columns["cached_tokens"][1] == near.columns["cached_tokens"][1] == 176
    computed = far.columns["compute_s"] + far.columns["hbm_s"]
    assert computed == pytest.approx(near.columns["compute_s"] + near.columns["hbm_s"], rel=1e-9)


def test_bytes_in_and_out_of_the_pool() -> None:
    """Raw bytes: 11 blocks read for the second turn; written: what the first turn left, and 22 full blocks at the end of which
    no look is taken any more. Would catch: blocks written again that have a copy, reads without bytes.
    """
    settings: dict[str, Any] = {"workload__synthetic": TURNS | {"requests": 2}}
    result = run(world(l1=400, kv__sharing={"kind": "prefix", "demote_after": "1 ms"}, **settings))
    assert result.summary["compression"]["bytes_raw"] == 11 * BLOCK
    assert result.summary["prefetch"]["asked"] == 11 * 4
    written = run(world(l1=400, kv__placement__write_back="immediate", **settings)).summary["compression"]["bytes_raw"]
    assert written == 22 * BLOCK  # each full block once, as soon as it is full


def test_kept_demoted_dropped() -> None:
    """Think time 1 s. Kept: hits in L1. Demoted after less: hits in L3. Dropped after less: none; after more: all.

    Would catch: a time counted from the start of a turn, a drop that only empties one tier.
    """

    def shares(**sharing: str) -> tuple[int, int, int]:
        return hits(run(world(l1=400, kv__sharing={"kind": "prefix", **sharing})))

    assert shares() == (88, 0, 0)
    assert shares(demote_after="0.5 s") == (0, 0, 88)
    assert shares(demote_after="1.5 s") == (88, 0, 0)
    assert shares(drop_after="0.5 s") == (0, 0, 0)
    assert shares(drop_after="1.5 s") == (88, 0, 0)
    assert shares(demote_after="0.2 s", drop_after="0.5 s") == (0, 0, 0)
    assert shares(demote_after="0.2 s", drop_after="1.5 s") == (0, 0, 88)


PARKS = {"kind": "prefix", "demote_after": "1 ms"}
SESSION = {"predictor": "session", "coverage": 1.0, "accuracy": 1.0, "lead": "0.5 s"}


def test_a_predicted_session_is_in_l2_when_it_comes() -> None:
    """Eleven blocks at 2 GB/s are there long before the next turn: hits in L2, and the TTFT of a hit in L1.

    Would catch: a fetch that arrives and is read again, pages in L2 that are not found.
    """
    settings: dict[str, Any] = {"workload__synthetic": TURNS | {"requests": 2}}
    near = run(world(l1=400, **settings))
    ahead = run(world(l1=400, kv__sharing=PARKS, prefetch=SESSION, **settings))
    assert hits(ahead) == (0, 11, 0)
    assert ahead.columns["ttft_s"][1] == pytest.approx(near.columns["ttft_s"][1], rel=1e-9)
    found = ahead.summary["prefetch"]
    assert found["coverage"] == found["accuracy"] == found["timeliness"] == 1.0 and found["issued"] == 44


def test_a_late_fetch_brings_what_it_can() -> None:
    """A lead of half the transfer brings half of the blocks; the rest is read on demand. Would catch: all or nothing."""
    settings: dict[str, Any] = {"workload__synthetic": TURNS | {"requests": 2}}
    slow = {"cluster__kv_pool__link": {"type": "pcie-gen4-x16", "bandwidth": "0.02 GB/s"}}
    lead = 5.5 * BLOCK / 0.02e9
    result = run(world(l1=400, kv__sharing=PARKS, prefetch=SESSION | {"lead": f"{lead * 1e3:.6f} ms"}, **slow, **settings))
    _, ahead, far = hits(result)
    assert ahead + far == 11 and 4 <= ahead <= 5  # 5.5, less what latency and headers of the link take
    assert result.summary["prefetch"]["dropped"] == far * 4


def test_predictions_that_do_not_come_change_nothing() -> None:
    """INV-IDENTITY: with coverage 0 the session prefetcher is the next-layer one. Would catch: L2 reserved for nothing."""
    plain = run(world(prefetch={"predictor": "next_layer"}))
    same_requests(plain, run(world(prefetch=SESSION | {"coverage": 0.0})))


def test_wrong_predictions_take_link_and_l2() -> None:
    """Accuracy 1/2: as many wrong blocks as right ones, useless bytes, L2 of 16 blocks for 8 right ones.

    Would catch: wrong pages that move without bytes, or need no room.
    """
    settings: dict[str, Any] = {"workload__synthetic": TURNS | {"requests": 2}}
    wide = run(world(l1=400, l2=64, kv__sharing=PARKS, prefetch=SESSION | {"accuracy": 0.5}, **settings))
    assert hits(wide) == (0, 11, 0) and wide.summary["prefetch"]["accuracy"] == 0.5
    assert wide.summary["prefetch"]["wasted_bytes"] == 11 * BLOCK
    narrow = run(world(l1=400, l2=17, kv__sharing=PARKS, prefetch=SESSION | {"accuracy": 0.5}, **settings))
    _, ahead, far = hits(narrow)
    assert (ahead, far) == (8, 3)


@settings(deadline=None, max_examples=15)
@given(
    seed=st.integers(0, 2**32 - 1), l1=st.integers(60, 200), l3=st.integers(0, 400), l2=st.integers(4, 60),
    predictor=st.sampled_from(["none", "next_layer", "session"]), demote=st.sampled_from(["", "5 ms", "50 ms"]),
    drop=st.sampled_from(["", "80 ms"]), write_back=st.sampled_from(["lazy", "immediate"]),
)  # fmt: skip
def test_invariants_and_single_steps(
    seed: int, l1: int, l3: int, l2: int, predictor: str, demote: str, drop: str, write_back: str
) -> None:  # fmt: skip
    """Random chats with think times of the order of steps: invariants hold, and single steps give the same bytes.

    Would catch: fates of pages that do not add up, L1 overcommitted by what is brought back, times that depend on grouping.
    """
    sharing = {"kind": "prefix"} | ({"demote_after": demote} if demote else {}) | ({"drop_after": drop} if drop else {})
    ahead: dict[str, Any] = {"predictor": predictor}
    if predictor == "session":
        ahead |= {"coverage": 0.7, "accuracy": 0.8, "lead": "20 ms"}
    lengths = {"dist": "uniform", "low": "1 tokens", "high": "120 tokens"}
    turns = {
        "requests": 40, "arrivals": {"process": "poisson", "rate": "300 /s"}, "input": lengths, "output": lengths,
        "sessions": {"turns": 4, "think": "20 ms", "prefixes": [{"tokens": "40 tokens", "count": 2}], "skew": 1.0},
    }  # fmt: skip
    asked = world(
        l1, max(1, l3), l2, workload__synthetic=turns, kv__sharing=sharing, prefetch=ahead, seed=seed,
        kv__placement__write_back=write_back,
    )  # fmt: skip
    one = run_scenario(asked, check=True)
    same_requests(one, run_scenario(asked, check=True, coalesce=False))


SELECTIONS: list[dict[str, Any]] = [
    {"kind": "budget", "tokens": "64 tokens"}, {"kind": "pages", "tokens": "32 tokens", "dense_layers": 1, "index": 0.1},
]  # fmt: skip


@pytest.mark.parametrize("selection", SELECTIONS, ids=lambda one: one["kind"])
def test_selection_beside_a_parked_prefix(selection: dict[str, Any]) -> None:
    """Sequences run in L1 alone, so what they select there costs what it costs without a pool, to the last bit; what a prompt
    fetches from L3 is its whole past: the same bytes, and the same time on the way, as where all is read.

    Would catch: far reads cut to what decodes select, a selection that has no effect beside a pool.
    """
    chosen: dict[str, Any] = {"kv__selection": selection, "workload__synthetic": TURNS}
    alone = dict.fromkeys(("cluster.kv_pool", "kv.l2", "kv.codec", "kv.burst", "kv.placement", "prefetch"))
    base = {
        "workload.synthetic": TURNS, **pool(400, 1000), "kv.sharing": {"kind": "prefix"}, "kv.selection": selection,
        "prefetch.predictor": "none", "kv.codec": "none", "kv.placement.eviction": "lru",
    }  # fmt: skip
    beside, without = run(scenario(base)), run(scenario(base | alone))
    for name in ("ttft_s", "finished_s", "hbm_s", "compute_s"):
        np.testing.assert_array_equal(beside.columns[name], without.columns[name], err_msg=name)
    assert beside.summary["stability"]["utilization"] == without.summary["stability"]["utilization"]
    assert beside.columns["finished_s"][-1] != run(world(l1=400, l2=8)).columns["finished_s"][-1]
    parks = {"kind": "prefix", "demote_after": "0.5 s"}
    near, far = run(world(l1=400, **chosen)), run(world(l1=400, kv__sharing=parks, **chosen))
    dense_near, dense_far = run(world(l1=400)), run(world(l1=400, kv__sharing=parks))
    assert hits(far) == hits(dense_far) == (0, 0, 88)
    assert far.summary["prefetch"]["asked"] == dense_far.summary["prefetch"]["asked"] == 88 * 4
    found = far.columns["link_s"].sum() - near.columns["link_s"].sum()
    assert found == pytest.approx(dense_far.columns["link_s"].sum() - dense_near.columns["link_s"].sum(), rel=1e-9)


@pytest.mark.parametrize("ahead", ["none", "next_layer"])
@pytest.mark.parametrize("write_back", ["lazy", "immediate"])
def test_detailed_devices_bring_parked_blocks_back(ahead: str, write_back: str) -> None:
    """The same hits, TTFT within 1 % of the fluid model's: transfers are long beside a burst. Runs are their single steps.

    Would catch: devices whose clock stands still while a replica idles, write-back of parked blocks that never ends.
    """
    settings: dict[str, Any] = {
        "l1": 60, "kv__sharing": {"kind": "prefix", "demote_after": "50 ms"}, "prefetch": {"predictor": ahead},
        "kv__placement__write_back": write_back,
    }  # fmt: skip
    fluid, detailed = run(world(**settings)), run(world(devices="detailed", **settings))
    assert hits(detailed) == hits(fluid) == (0, 0, 88)
    np.testing.assert_allclose(detailed.columns["ttft_s"], fluid.columns["ttft_s"], rtol=0.01)
    assert detailed.summary["compression"]["bytes_raw"] == fluid.summary["compression"]["bytes_raw"]
    same_requests(detailed, run_scenario(world(devices="detailed", **settings), check=True, coalesce=False))


@pytest.mark.parametrize("selection", [{"kind": "dense"}, {"kind": "budget", "tokens": "48 tokens"}], ids=["dense", "budget"])
def test_layers_with_a_window_fetch_what_it_covers(selection: dict[str, Any]) -> None:
    """Two of four layers have a window of 64 tokens: of 11 parked blocks they read ceil(63 / 16) = 4, the others all. TTFT is
    that of a hit in L1 and the transfers, in closed form; with a window that covers all, all is read. 1e-9: rounding.

    Would catch: pages that no layer reads, a window that cuts all layers, a block too few at its edge.
    """
    windows = {"model.window": "64 tokens", "model.full_layers": 2}
    base = {
        "workload.synthetic": TURNS | {"requests": 2}, **pool(400, 1000, 32), "prefetch.predictor": "none", "kv.codec": "none",
        "kv.placement.eviction": "lru", "kv.selection": selection,
    }  # fmt: skip
    near, far = (run(scenario(base | windows | {"kv.sharing": sharing})) for sharing in ({"kind": "prefix"}, PARKS))
    wide = run(scenario(base | windows | {"kv.sharing": PARKS, "model.window": "4000 tokens"}))
    assert hits(near) == (11, 0, 0) and hits(far) == hits(wide) == (0, 0, 11)
    assert far.summary["prefetch"]["asked"] == 2 * 11 + 2 * 4 and wide.summary["prefetch"]["asked"] == 4 * 11
    simulation = Simulation(world(l1=400).resolved, build(world().resolved.workload, *STREAMS))
    assert simulation.far is not None
    path, page = simulation.far.path, simulation.geometry.layer_bytes
    extra = 4 * path.read_latency + 30 * page / path.read_rate
    assert far.columns["ttft_s"][1] - near.columns["ttft_s"][1] == pytest.approx(extra, rel=1e-9)
