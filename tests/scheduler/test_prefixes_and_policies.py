"""Prefix caches whose blocks hold what KV policies store."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.errors import InputError
from simulator.experiments.explain import explain
from simulator.experiments.simulation import Simulation
from simulator.kvcache.geometry import geometry
from simulator.kvcache.prefix import PrefixCache
from simulator.scheduler.policy_steps import PolicySteps
from simulator.workload.prefix_ids import block_ids, fits, thinned_ids
from simulator.workload.requests import HashIds, Requests
from simulator.workload.synthetic import build
from tests.analytic.test_policy_runs import scenario
from tests.properties.small import BLOCK
from tests.scheduler.test_parked import STREAMS, TURNS, world
from tests.scheduler.test_parked import hits as parked_hits
from tests.scheduler.test_parked import run as run_parked

PREFIX = "kv.sharing={kind: prefix}"
KIVI = "kv.hbm_codec={k_bits: 2, v_bits: 2, group: 32, meta_bits: 32, residual: 128 tokens}"  # 3/16 of what is older
HALF = "kv.hbm_codec={k_bits: 8, v_bits: 8}"


def conversations(count: int = 30, turns: int = 4, seed: int = 1, gap: float = 0.3) -> Requests:
    """Turns of 10 to 60 blocks that repeat what their conversation had before, one after the other."""
    rng = np.random.default_rng(seed)
    rows: list[list[int]] = []
    for talk in range(count):
        length = np.cumsum(rng.integers(10, 60, turns))
        rows += [[10_000 * talk + block for block in range(end)] for end in length]
    order = rng.permutation(count * turns)
    order = order[np.lexsort((np.arange(len(order)), order % turns))]  # all first turns, then all second ones
    rows = [rows[at] for at in order]
    sizes = np.array([len(row) for row in rows])
    ids = HashIds(np.concatenate([np.array(row) for row in rows]), np.concatenate([[0], np.cumsum(sizes)]))
    return Requests(np.arange(len(rows)) * gap, sizes * 16, rng.integers(1, 60, len(rows)), ids, 16, "test")


def serve(requests: Requests, *settings: str) -> Simulation:
    found = Simulation(scenario(PREFIX, "scheduler.watermark=0.0", *settings).resolved, requests, check=True)
    found.run()
    return found


def hits(found: Simulation) -> int:
    assert found.recorder.status.count(1) == len(found.requests)
    return found.recorder.prefix_blocks["l1"]


@pytest.mark.parametrize(
    "neutral", ["kv.layout.groups={all: {kind: full}}", "kv.loop={kind: parallel_workers, workers: 1, steps_scale: 1.0}"]
)
def test_neutral_policies_leave_a_prefix_cache_as_it_is(neutral: str) -> None:
    """To the last bit, hits and blocks. Catches a cache that is sized or filled another way because there is a policy."""
    requests = conversations()
    plain, found = serve(requests, "kv.blocks=400"), serve(requests, "kv.blocks=400", neutral)
    assert found.recorder.finished == plain.recorder.finished and hits(found) == hits(plain)
    assert found.geometry == plain.geometry


def test_a_codec_holds_its_ratio_of_blocks() -> None:
    """3/16 of the bytes: 16/3 times the blocks in the same memory; KIVI's newest 128 tokens are the sequence's own, whole.

    Catches capacity left at 16 bits, a residual window that shared blocks have as well.
    """
    plain, kivi = geometry(scenario(PREFIX).resolved), geometry(scenario(PREFIX, KIVI).resolved)
    assert 0 <= kivi.l1_blocks - int(plain.l1_blocks * 16 / 3) <= 6  # a part of a block that was left
    assert kivi.l1_blocks * kivi.block_bytes == pytest.approx(plain.l1_blocks * plain.block_bytes, rel=1e-4)
    own = 128 * (13 / 16) * 16 / 3  # tokens' worth of small blocks that 128 raw tokens take more
    assert kivi.blocks(4000) == 250 + np.ceil(own / 16)
    assert kivi.blocks(4000) * kivi.block_bytes == pytest.approx(
        (128 + 3 / 16 * (4000 - 128)) / 16 * plain.block_bytes, rel=0.02
    )
    many = np.arange(1, 300)
    assert kivi.blocks_over(many).tolist() == [kivi.blocks(tokens) for tokens in many.tolist()]


@pytest.mark.parametrize("blocks", [200, 400, 700])
def test_half_the_bytes_hit_like_twice_the_memory(blocks: int) -> None:
    """8 of 16 bits and B blocks of memory: exactly the hits of 2 B blocks without a codec, under eviction.

    Catches blocks of a prefix that are counted in memory of the model's own size.
    """
    requests = conversations(gap=2.0)
    assert hits(serve(requests, HALF, f"kv.blocks={blocks}")) == hits(serve(requests, f"kv.blocks={2 * blocks}"))
    assert hits(serve(requests, HALF, f"kv.blocks={blocks}")) > hits(serve(requests, f"kv.blocks={blocks}"))


@pytest.mark.parametrize(
    "policy",
    [KIVI, "kv.retention={keep: 0.25, window: 64 tokens}", "kv.layout.groups={all: {kv_scale: 0.25}}",
     "kv.loop={kind: speculative, draft: 3, acceptance: 0.8}", "kv.selection={kind: pages, fraction: 0.25}"],
)  # fmt: skip
def test_an_unbounded_cache_hits_as_without_policies(policy: str) -> None:
    """What is found depends on ids alone. Catches a policy that moves the end of a prefix."""
    requests = conversations(gap=20.0)
    assert hits(serve(requests, policy)) == hits(serve(requests))


@pytest.mark.parametrize("policy", [KIVI, "kv.retention={keep: 0.5, window: 64 tokens}", HALF, "kv.system=hydragen"])
@pytest.mark.parametrize("blocks", [200, 230])
@pytest.mark.parametrize("preemption", ["recompute", "swap_host"])
def test_tight_caches_keep_their_accounts(policy: str, blocks: int, preemption: str) -> None:
    """Preemptions and evictions under all checks; runs of steps are their single steps. Catches blocks that a sequence has
    besides and that nobody gives back, and claims that count shared blocks twice."""
    requests = conversations(count=12, gap=0.05)
    whole = scenario(PREFIX, policy, f"kv.blocks={blocks}", f"scheduler.preemption={preemption}").resolved
    ends = []
    for coalesce in (True, False):
        found = Simulation(whole, requests, coalesce=coalesce, check=True)
        found.run()
        replica = found.engine.replicas[0]
        assert hits(found) and replica.residency.claimed == 0 and replica.prefix is not None and replica.prefix.used == 0
        ends.append(found.recorder.finished)
    assert ends[0] == ends[1]


def test_blocks_besides_go_before_prefixes() -> None:
    """Two blocks besides each: two sequences of two blocks hold 8. Of the first, those besides are taken next, then its tail.

    Catches blocks besides that are counted as cached, that push out prefixes, or that are freed twice.
    """
    cache = PrefixCache(8, 4, beside=lambda tokens: 2 if tokens else 0)
    for sequence, ids in ((0, [1, 2]), (1, [3, 4])):
        cache.begin(sequence, [])
        cache.write(sequence, 8, ids)
    assert (cache.used, cache.empty) == (8, 0)
    assert cache.release(0) == 4
    assert cache.used == 4
    cache.begin(2, cache.found([9], 5))
    cache.write(2, 3, [9])
    assert (cache.used, cache.holds(1), cache.holds(2)) == (7, True, False)
    assert cache.release(2) == 3 and cache.release(1) == 4 and cache.used == 0


def test_reading_once_reads_what_is_stored() -> None:
    """Hydragen over KIVI: 2,048 common tokens of 4 sequences cross once, at 3/16 of their bytes; of 64 their FLOPs take longer.
    Catches shared tokens that cost as if they were whole: less than nothing is left of the reads."""
    once = "kv.sharing={kind: prefix, read: once}"
    found, plain = PolicySteps(scenario(once, KIVI).resolved), PolicySteps(scenario(once).resolved)
    left = found.law.units(np.full(4, 4000)) + found.shared_units(2048, 4 * 2048)
    own = 4 * (4000 - 2048 - 128) * 3 / 16 + 4 * 128
    assert 4 * plain.compute < 3 / 16 * plain.memory
    assert left / found.token_units == pytest.approx(own + 2048 * 3 / 16, rel=1e-4)
    flops = found.shared_units(2048, 64 * 2048) / found.token_units + 64 * 2048 * 3 / 16
    assert flops == pytest.approx(64 * 2048 * plain.compute / plain.memory, rel=1e-4)


@given(st.integers(1, 12), st.integers(1, 6), st.integers(1, 6), st.integers(1, 80), st.booleans())
def test_thinned_ids_of_whole_prompts_are_the_ids(count: int, one: int, other: int, tokens: int, partial: bool) -> None:
    """Where one size is a multiple of the other, both ways to cut ids agree. Catches a block that is one further."""
    size, block = (one, one * other) if count % 2 else (one * other, one)
    ids = list(range(7, 7 + count))
    tokens = min(tokens, count * size)
    assert fits(size, block)
    assert thinned_ids(ids, float(size), block, tokens, partial) == block_ids(ids, size, block, tokens, partial)


def test_thinned_ids_by_hand() -> None:
    """Ids of 10 tokens of which 0.7 are kept, blocks of 4: they end at 4, 8, 12, 16, 20 of 7, 14, 21, 28, 35 kept tokens.

    Catches blocks that are equal though the prompts differ in them, or by the number of tokens that were dropped.
    """
    assert thinned_ids([5, 6, 7, 8, 9], 7.0, 4, 21) == [5 * 2, 6 * 2, 6 * 2 + 1, 7 * 2, 7 * 2 + 1]
    changed = thinned_ids([5, 6, 17, 18, 19], 7.0, 4, 21)
    assert changed[:3] == [10, 12, 13] and changed[3] != 14
    assert len(thinned_ids([5, 6], 7.0, 4, 21)) == 3  # no ids for the rest


def test_a_prefix_hit_gives_the_kept_part() -> None:
    """A quarter of a prompt is kept once it is computed: as many tokens fewer are found, the same share of the prompt.

    Catches prefixes that are looked for in tokens which were dropped, and answers taken for thinned prompts.
    """
    requests = conversations(gap=20.0)
    whole, kept = serve(requests), serve(requests, "kv.retention={keep: 0.25, when: prefill_end}")
    tokens = [sum(found.recorder.cached_tokens) for found in (whole, kept)]
    assert tokens[0] / 4 - 16 * len(requests) < tokens[1] <= tokens[0] / 4  # of each request less than a block more is lost
    assert 0 < hits(kept) <= hits(whole) / 4


def test_prompts_that_part_later_share_the_kept_part_before() -> None:
    """Prompts of 64 blocks that part in the middle, a quarter kept: of 16 kept blocks 8 are common. Catches kept blocks with
    the ids of the first blocks of the prompt, which are all common."""
    rows = [list(range(64)), [*range(32), *range(100, 132)]]
    ids = HashIds(np.array(rows).ravel(), np.array([0, 64, 128]))
    both = Requests(np.array([0.0, 20.0]), np.array([1024, 1024]), np.array([5, 5]), ids, 16, "test")
    assert hits(serve(both, "kv.retention={keep: 0.25, when: prefill_end}")) == 8
    assert hits(serve(both)) == 32


@pytest.mark.parametrize(
    ("groups", "what"),
    [("{a: {share: 0.5}, b: {share: 0.5, kind: window, window: 64 tokens}}", "b keeps the window"),
     ("{a: {share: 0.5}, b: {share: 0.5, kind: ssm, state: 1 MiB}}", "b keeps the state")],
)  # fmt: skip
def test_windows_and_states_have_no_prefix(groups: str, what: str) -> None:
    """Layers that keep no tokens of a prefix cannot go on from it. Catches hits whose window or state is gone."""
    with pytest.raises(InputError, match=what):
        scenario(PREFIX, f"kv.layout.groups={groups}")


def test_explain_says_the_same_of_memory() -> None:
    """Blocks are smaller instead of fuller: a sequence takes the same bytes. Catches percentages of blocks of another size."""
    said, bounds = [], []
    for more in ((), (PREFIX,)):
        found = explain(scenario(KIVI, *more))
        said += [warning for warning in found["warnings"] if warning.startswith("KV policies")]
        bounds.append(found["bounds"])
    assert len(said) == 2 and said[0] == said[1]
    read: Any = [found["roofline"]["kv_bytes_per_token"] for found in bounds]
    assert read[0] == pytest.approx(read[1]) and bounds[0]["batch"] == bounds[1]["batch"]


CODECS: dict[str, dict[str, Any]] = {
    "half": {"k_bits": 8, "v_bits": 8},
    "KIVI": {"k_bits": 2, "v_bits": 2, "group": 32, "meta_bits": 32, "residual": "128 tokens"},
}


@pytest.mark.parametrize("name", CODECS)
def test_parked_blocks_come_back_as_they_are_stored(name: str) -> None:
    """11 blocks of a prompt from L3, on demand: every layer waits for the latency and its part of 11 pages. Both compute
    the same. Catches parked blocks that cross at 16 bits, or newest tokens that are parked whole."""
    settings: dict[str, Any] = {"workload__synthetic": TURNS | {"requests": 2}, "kv__hbm_codec": CODECS[name]}
    near = run_parked(world(l1=400, **settings))
    far = run_parked(world(l1=400, kv__sharing={"kind": "prefix", "demote_after": "1 ms"}, **settings))
    assert (parked_hits(near), parked_hits(far)) == ((11, 0, 0), (0, 0, 11))
    simulation = Simulation(world(l1=400, **settings).resolved, build(world().resolved.workload, *STREAMS))
    assert simulation.far is not None
    path, page = simulation.far.path, simulation.geometry.layer_bytes
    assert page == (0.5 if name == "half" else 3 / 16) * BLOCK / simulation.geometry.layers
    extra = simulation.geometry.layers * (path.read_latency + 11 * page / path.read_rate)
    assert far.columns["ttft_s"][1] - near.columns["ttft_s"][1] == pytest.approx(extra, rel=1e-9)


def test_a_pool_parks_twice_as_much_at_half_the_bytes() -> None:
    """L1 and L3 of half the blocks each: the same hits in every tier. Catches one of the tiers counted at 16 bits."""
    half = {"kv__hbm_codec": CODECS["half"]}
    assert parked_hits(run_parked(world(20, 15, **half))) == parked_hits(run_parked(world(40, 30)))


def test_thinned_sequences_beside_a_pool_of_prefixes() -> None:
    """Retention and drafts, in L1 and parked, keep all accounts. Catches blocks besides that are parked or come back."""
    more: dict[str, Any] = {
        "kv__retention": {"keep": 0.5, "window": "32 tokens"},
        "kv__loop": {"kind": "speculative", "draft": 20, "acceptance": 0.8},
    }
    found = run_parked(world(24, 300, **more))
    assert sum(parked_hits(found)) == 88 and found.summary["requests"]["finished"] == 16
