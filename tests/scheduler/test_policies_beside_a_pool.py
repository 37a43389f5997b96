"""KV policies beside a pool: what is stored fills the tiers, what is read of it crosses the fabric."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import Any

import numpy as np
import pytest

from simulator.errors import InputError
from simulator.experiments.explain import explain
from simulator.experiments.run import RunResult
from simulator.kvcache.geometry import Geometry, geometry
from simulator.kvcache.policies.far import far_reads
from simulator.kvcache.residency import Split
from simulator.scheduler.policy_steps import PolicySteps
from tests.properties.small import IDEAL_BOARD, NO_PATH, blocks, draw, pool, same_requests, scenario, served

Settings = Mapping[str, Any]
LAYERS, BLOCK = 4, 16
KIVI = {"kv.hbm_codec": {"k_bits": 2, "v_bits": 2, "group": 32, "meta_bits": 32}}  # 3 of 16 bits
RESIDUAL = {"kv.hbm_codec": {"k_bits": 2, "v_bits": 2, "group": 32, "meta_bits": 32, "residual": "40 tokens"}}
WINDOW = {"kv.layout.groups": {"all": {"kind": "window", "window": "200 tokens"}}}
NARROW = {"share": 0.5, "kind": "window", "sink": "4 tokens", "window": "28 tokens"}
DUO = {"kv.layout.groups": {"full": {"share": 0.5}, "narrow": NARROW}}
STATES = {"kv.layout.groups": {"full": {"share": 0.5}, "ssm": {"share": 0.5, "kind": "ssm", "state": "20 KiB"}}}
SPECULATIVE = {"kv.loop": {"kind": "speculative", "draft": 3, "acceptance": [0.8, 0.6, 0.5], "draft_cost": 0.1}}
BUDGET = {"kv.selection": {"kind": "budget", "tokens": "100 tokens", "v_fraction": 0.5}}
EVERY = {"kv.layout.groups": {"all": {"run_every": 4}}}


def beside(l1: float = 12, l3: float = 60, l2: float = 16, predictor: str = "none", eviction: str = "split") -> dict[str, Any]:
    return pool(l1=l1, l3=l3, l2=l2) | {"prefetch": {"predictor": predictor}, "kv.placement": {"eviction": eviction}}


def sizes(settings: Settings) -> Geometry:
    return geometry(scenario(settings | WORK).resolved)


WORK = {"workload.synthetic": {
    "requests": 1, "arrivals": {"process": "at_once"},
    "input": {"dist": "fixed", "tokens": "1000 tokens"}, "output": {"dist": "fixed", "tokens": "201 tokens"},
}}  # fmt: skip


def alone(policy: Settings, prompt: int = 1000, output: int = 201) -> RunResult:
    """One sequence, of which L1 has what never leaves it and no more; its prompt is computed in one piece."""
    settings = beside(l1=2, l3=400, l2=100) | policy | {"scheduler.token_budget": "4096 tokens", "scheduler.watermark": 0.0}
    near = sizes(settings).near_blocks
    return served(settings | {"kv.l1": blocks(near)}, [(0.0, prompt, output)])


def far_pages(policy: Settings, prompt: int = 1000, output: int = 201, crosses: float | None = None) -> tuple[float, float]:
    """(found, expected) pages that the decode steps of `alone` read from far memory: the blocks that were far before each
    step, times what of them crosses at its context."""
    found = sizes(beside(l1=2, l3=400) | policy)
    reads, total = far_reads(scenario(beside() | policy | WORK).resolved), 0.0
    for context in range(prompt + 1, prompt + output):  # its own token included
        away = found.blocks(context - 1) - found.near_blocks
        total += away * (crosses if crosses is not None else float(reads.ratios(np.array([context]))[1][0]))
    return float(alone(policy, prompt, output).summary["prefetch"]["asked"]), LAYERS * total


@pytest.mark.parametrize("eviction", ["split", "lru"])
@pytest.mark.parametrize("predictor", ["none", "next_layer", "oracle", "stream"])
def test_neutral_policies_are_runs_without(eviction: str, predictor: str) -> None:
    """Groups that keep all, a window and a residual beyond every context: each request ends when it did. Would catch: a second
    law of what is far, layers that do not add up to the step."""
    rows, base = draw(3, 20, 20000.0, prompt=200, output=60), beside(predictor=predictor, eviction=eviction)
    plain = served(base, rows)
    assert plain.summary["prefetch"]["asked"] > 1000
    for neutral in (
        {"kv.layout.groups": {"one": {"share": 0.5}, "other": {"share": 0.5, "kind": "window", "window": "100000 tokens"}}},
        {"kv.retention": {"keep": 0.5, "window": "100000 tokens"}},
        {"kv.loop": {"kind": "parallel_workers", "workers": 1, "steps_scale": 1.0}},
    ):
        same_requests(plain, served(base | neutral, rows), 1e-9)


@pytest.mark.parametrize("policy", [KIVI, RESIDUAL, WINDOW, DUO, STATES, SPECULATIVE, BUDGET, EVERY], ids=str)
def test_a_pool_without_distance_is_memory(policy: dict[str, Any]) -> None:
    """With free links and boards and an oracle, L1 and L3 together are as good as an L1 of their size. Would catch: policies
    that cost other than in bytes, steps that lose time between host, layers and head, capacity counted in tokens."""
    rows = draw(5, 24, 20000.0, prompt=200, output=60)
    near = {"kv.l1": blocks(100), "scheduler.max_batch": 4, "scheduler.watermark": 0.0}
    far = beside(l1=40, l3=60, predictor="oracle") | NO_PATH | {"scheduler.max_batch": 4, "scheduler.watermark": 0.0}
    far["cluster.kv_pool.board"] = far["cluster.kv_pool.board"] | IDEAL_BOARD
    inner, outer = served(near | policy, rows), served(far | policy, rows)
    assert outer.summary["requests"]["finished"] == 24
    for name in ("finished_s", "ttft_s"):
        np.testing.assert_allclose(outer.columns[name], inner.columns[name], rtol=1e-9, err_msg=name)


def test_moved_bytes_of_a_codec_are_its_stored_ratio() -> None:
    """All but the newest block is far: KIVI moves 3/16 of what dense KV does. Tolerance: the blocks that stay near, one of
    188 and one of 1,000 tokens. Would catch: pages moved as raw KV, a ratio applied twice."""
    found, expected = far_pages(KIVI, prompt=3000, output=401)
    dense, all_of_it = far_pages({}, prompt=3000, output=401, crosses=1.0)
    assert found == expected and dense == all_of_it
    assert found / dense == pytest.approx(3 / 16, rel=0.03)


@pytest.mark.parametrize(
    "policy, crosses",
    [
        (RESIDUAL, 1.0), (DUO, 1.0), (STATES, 1.0), (SPECULATIVE, 1 / (1 + 0.8 + 0.48 + 0.24)), (EVERY, 0.25),
        ({"kv.selection": {"k_fraction": 1.0, "v_fraction": 0.268}}, 0.634),
        ({"kv.loop": {"kind": "block_diffusion", "steps_scale": 1.7, "recompute": 0.0}}, 1.7),
    ],
    ids=["residual", "duo", "states", "speculative", "run_every", "v_fraction", "diffusion"],
)  # fmt: skip
def test_moved_bytes_by_hand(policy: dict[str, Any], crosses: float) -> None:
    """Far blocks times passes, fractions and layers that run. Tolerance: half a page a step. Would catch: passes or fractions
    that scale HBM only, states that move, a residual that is far."""
    found, expected = far_pages(policy, crosses=crosses)
    assert expected > 1000 and abs(found - expected) <= 0.5 * 200


def test_a_budget_moves_its_share() -> None:
    """100 of n tokens, half of their V: the same in every step. Tolerance: half a page a step. Would catch: the far share
    of what is read taken from all that is stored."""
    found, expected = far_pages(BUDGET)
    assert abs(found - expected) <= 0.5 * 200
    by_hand = sum(LAYERS * (ceil((n - 1) / BLOCK) - 1) * 75 / n for n in range(1001, 1201))
    assert expected == pytest.approx(by_hand, rel=1e-12)


def test_a_latent_that_is_cut_moves_once() -> None:
    """Two ranks with half of a latent each, against two with all of it: blocks that do not fit L1 cross, of half as many.
    Would catch: copies that are stored once and fetched by every rank."""
    model = {"model.kv_latent": 64, "model.rope_dim": 16, "cluster.gpus.count": 2, "cluster.gpus.tensor_parallel": 2}
    for latent in ("replicated", "sharded"):
        settings = pool(l1=2, l3=60, l2=16) | model | {"kv.topology": {"latent": latent}, "kv.placement": {"eviction": "split"}}
        found = sizes(settings)
        assert found.blocks(1000) == ceil(1000 / BLOCK / (2 if latent == "sharded" else 1))
        asked = sum(LAYERS * (found.blocks(n - 1) - found.l1_blocks) for n in range(1001, 1050))
        result = served(settings | {"scheduler.token_budget": "4096 tokens"}, [(0.0, 1000, 50)])
        assert result.summary["prefetch"]["asked"] == asked


def test_a_window_stops_moving_more() -> None:
    """200 tokens are 13 blocks, one of them near: 12 pages a layer and step, whatever the context."""
    short, long = (float(alone(WINDOW, 1000, output).summary["prefetch"]["asked"]) for output in (101, 401))
    assert long - short == 300 * LAYERS * 12
    grown = [float(alone({}, 1000, output).summary["prefetch"]["asked"]) for output in (101, 401)]
    assert grown[1] - grown[0] > 300 * LAYERS * 62


def test_capacity_is_in_stored_bytes() -> None:
    """L3 holds 16/3 as many sequences of KIVI, and of one that keeps half its tokens twice as many; the pool's codec comes on
    top. Tolerance: a part of a block per sequence."""
    l3 = 64 * 1000
    dense = sizes(beside(l3=l3)).l3_blocks // sizes(beside(l3=l3)).blocks(4096)
    for policy, ratio in ((KIVI, 16 / 3), ({"kv.retention": {"keep": 0.5}}, 2.0), (DUO, 4096 / (2048 + 16))):
        found = sizes(beside(l3=l3) | policy)
        assert found.l3_blocks // found.blocks(4096) == pytest.approx(dense * ratio, rel=0.01)
        again = sizes(beside(l3=l3) | policy | {"kv.codec": {"ratio": 2.0}})
        assert again.l3_blocks == pytest.approx(2 * found.l3_blocks / found.ratio, rel=1e-3)


def test_what_never_leaves_stays() -> None:
    """40 raw tokens of a residual are 3 blocks, the 16 KiB of states 8: they count in L1, with the newest block; a sequence
    whose states L1 cannot hold is refused, and they never cross."""
    assert sizes(beside() | RESIDUAL).near_blocks == 1 + 3
    states = sizes(beside() | STATES)
    token = states.layer_bytes / BLOCK
    assert states.near_blocks == 1 + ceil(0.5 * 20 * 1024 / token / BLOCK)
    few = served(beside(l1=states.near_blocks - 1) | STATES, [(0.0, 600, 20)])
    assert few.summary["requests"]["rejected"] == 1
    only = {"kv.layout.groups": {"ssm": {"kind": "ssm", "state": "20 KiB"}}}
    found = served(beside(l1=60) | only, [(0.0, 600, 20)])
    assert found.summary["requests"]["finished"] == 1 and found.summary["prefetch"]["asked"] == 0


def test_every_sequence_keeps_what_is_near() -> None:
    """Random lives of sequences against an L1 that is always full: each has at least `near` of its blocks there, or all.
    Would catch: short sequences that give up their states for others, growth that pushes out what is near."""
    rng, near, l1, l3 = np.random.default_rng(4), 5, 40, 60
    split = Split(l1, l3, 1, near)
    has: dict[int, int] = {}
    goal: dict[int, int] = {}

    def others() -> list[tuple[int, int]]:
        return list(has.items())

    for step in range(6000):
        event = rng.integers(0, 4)
        if event == 0 and len(has) < l1 // near and (new := int(rng.integers(1, 20))) + split.claimed <= split.capacity():
            has[step], goal[step] = 0, new
            split.claimed += new
            split.place(step, 0, 0, others)
        elif event == 1 and has:
            request = int(rng.choice(list(has)))
            split.release(request, has.pop(request))
            split.claimed -= goal.pop(request)
        elif has:
            request = int(rng.choice(list(has)))
            if has[request] < goal[request]:
                more = int(rng.integers(1, goal[request] - has[request] + 1))
                split.place(request, has[request], more, others)
                has[request] += more
            elif split.claimed < split.capacity():
                split.claimed += 1
                goal[request] += 1
                split.keep_near(request, has[request], others)
                split.grow(request)
                has[request] += 1
        assert split.l1_used + split.l3_used == sum(has.values()) and split.l1_used <= l1 and split.l3_used <= l3
        assert all(blocks - split.far[request] >= min(near, blocks) for request, blocks in has.items())
    assert split.homed > 500


@pytest.mark.parametrize("policy", [KIVI, DUO, SPECULATIVE, EVERY, BUDGET | KIVI], ids=str)
@pytest.mark.parametrize("tokens, rows", [(1, 1), (8, 8), (300, 9)])
def test_a_step_is_its_host_layers_and_head(policy: dict[str, Any], tokens: int, rows: int) -> None:
    """Would catch: stalls of far memory counted from layers that are longer or shorter than the step they come from."""
    model = PolicySteps(scenario(beside() | policy | WORK).resolved)
    units = model.law.units(np.full(rows, 700))
    parts = model.host_time(rows) + model.layers * model.layer_time(tokens, 1, units, 0.0, rows) + model.head_time(rows)
    assert parts == pytest.approx(model.base(tokens, rows, 1) + model.unit_time(tokens) * units, rel=1e-12)
    assert model.layer_time(tokens, 1, 0, 0.0, rows) > 0


@pytest.mark.parametrize(
    "more",
    [
        {"devices": "detailed"}, {"cluster.replicas": 2},
        {"prefetch": {"predictor": "statistical", "coverage": 0.8, "accuracy": 0.6, "depth": 3}},
        {"prefetch": {"predictor": "attention", "coverage": 0.8, "accuracy": 0.6, "score": 0.2}},
        {"kv.codec": {"ratio": 1.5, "compress_at": "gpu", "decompress_at": "gpu"}},
        {"faults": [{"what": "board_lost", "at": "2 ms", "for": "1 ms"}]},
    ],
    ids=str,
)  # fmt: skip
def test_everything_beside_it_goes_on(more: dict[str, Any]) -> None:
    """Detailed devices, shared pools, predictors, codecs, faults: all invariants hold, everybody is served, something is far.
    Would catch: a path that still takes far blocks as whole pages."""
    rows = draw(3, 24, 20000.0, prompt=200, output=60)
    for policy in (DUO, RESIDUAL | SPECULATIVE):
        found = served(beside(l1=8, predictor="next_layer") | policy | more, rows).summary
        assert found["requests"]["finished"] == 24
        assert found["prefetch"]["asked"] > 0 and found["compression"]["bytes_raw"] > 0


def test_preempted_sequences_are_swapped_as_they_are_stored() -> None:
    """Would catch: swaps of dense KV, or of states that are counted twice."""
    rows = draw(3, 24, 20000.0, prompt=200, output=60)
    swapping = beside(l1=12) | {"scheduler.preemption": "swap_pool", "scheduler.watermark": 0.0, "prefetch": None}
    for policy in (DUO, RESIDUAL | SPECULATIVE, STATES):
        found = served(swapping | policy, rows).summary
        assert found["requests"]["finished"] == 24 and found["requests"]["preemptions"] > 0


def test_detailed_devices_see_the_same(relative: float = 0.05) -> None:
    """Fluid against detailed at the tolerance of crosscheck. Would catch: bursts of whole blocks where a part crosses."""
    rows = draw(3, 24, 20000.0, prompt=200, output=60)
    base = beside(l1=10, predictor="next_layer") | DUO | {"kv.selection": {"v_fraction": 0.5}}
    fluid, detailed = (served(base | {"devices": kind}, rows).summary for kind in ("fluid", "detailed"))
    assert detailed["prefetch"]["asked"] == pytest.approx(fluid["prefetch"]["asked"], rel=relative)
    for key in ("simulated_s", "steps"):
        assert detailed["simulation"][key] == pytest.approx(fluid["simulation"][key], rel=relative), key


BY_NAME: dict[str, dict[str, Any]] = {
    "pages": {"kv.selection": {"kind": "pages", "tokens": "40 tokens", "overlap": 0.7, "index": 0.1}},
    "fifo": {"kv.placement": {"eviction": "fifo"}},
    "inclusive": {"kv.placement": {"eviction": "lru", "l2": "inclusive"}},
    "history": {"prefetch": {"predictor": "history", "depth": 2}},
}


@pytest.mark.parametrize("case", BY_NAME)
def test_pages_with_names_are_smaller(case: str) -> None:
    """Where every token is stored alike: a neutral policy is a run without, to 1e-9; with half the bytes a token, L1, L2 and L3
    of half the size serve the same pages. Would catch: a page that holds other tokens, selected pages read as tokens."""
    rows, settings = draw(3, 20, 20000.0, prompt=200, output=60), BY_NAME[case]
    base = pool(l1=12, l3=60, l2=8) | settings
    plain = served(base, rows)
    same_requests(plain, served(base | {"kv.layout.groups": {"all": {"kind": "full"}}}, rows), 1e-9)
    half = served(pool(l1=6, l3=30, l2=4) | settings | {"kv.layout.groups": {"all": {"kv_scale": 0.5}}}, rows).summary
    assert half["prefetch"]["asked"] == pytest.approx(plain.summary["prefetch"]["asked"], rel=0.05)
    moved = [summary["tiers"]["l3"]["read_bytes"] for summary in (half, plain.summary)]
    assert moved[0] / moved[1] == pytest.approx(0.5, rel=0.05)


@pytest.mark.parametrize(
    "more, field, words",
    [
        (RESIDUAL | BY_NAME["pages"], "kv.selection.kind", "use dense or budget"),
        (DUO | BY_NAME["fifo"], "kv.placement.eviction", "use split"),
        (SPECULATIVE | BY_NAME["history"], "prefetch.predictor", "not kv.loop"),
        (
            {"kv.placement": {"compute": {"at": "host", "memory": "1 TB", "bandwidth": "200 GB/s", "link": "50 GB/s"}}},
            "kv.placement.compute", "all KV there",
        ),
    ],
    ids=["pages", "eviction", "predictor", "compute"],
)  # fmt: skip
def test_what_cannot_be_together_is_said(more: dict[str, Any], field: str, words: str) -> None:
    with pytest.raises(InputError, match=words) as refused:
        scenario(pool(l1=12, l3=60) | WORK | more)
    assert field in str(refused.value)


def test_explain_says_what_a_sequence_takes() -> None:
    """Bytes by hand at the mean context, 1,100 tokens. Would catch: dense tokens said to be far, passes left out."""
    token = 2 * sizes(beside()).layer_bytes * LAYERS / BLOCK / 2
    found = explain(scenario(beside() | RESIDUAL | SPECULATIVE | WORK | {"kv.codec": {"ratio": 2.0}}))
    sequence, context = found["bounds"]["sequence"], 1000 + 201 / 2
    raw, passes = 40, 1 / (1 + 0.8 + 0.48 + 0.24)
    assert sequence["stored_bytes"] == pytest.approx(token * (3 / 16 * (context - raw) + raw + 3))
    assert sequence["far_bytes_at_most"] == pytest.approx(token * 3 / 16 * (round(context) - raw))
    assert sequence["moved_bytes_per_step_at_most"] == pytest.approx(passes * sequence["far_bytes_at_most"])
    assert sequence["always_near_blocks"] == 1 + ceil((raw + 3) / BLOCK)
    assert any("another 2" in warning for warning in found["warnings"])
    plain = explain(scenario(beside() | WORK))["bounds"]["sequence"]
    assert plain["stored_bytes"] == plain["far_bytes_at_most"] == pytest.approx(token * context)
