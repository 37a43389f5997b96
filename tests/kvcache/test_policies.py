"""KV policies as functions: curves, each policy's closed form, and what they compose to."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.kvcache.policies import codec, layout, loop, placement, prefetch, retention, selection, sharing, topology
from simulator.kvcache.policies.curve import IDENTITY, Curve
from simulator.kvcache.policies.law import UNITS, Law, read, stored
from simulator.scenario import Scenario
from simulator.scenario.resolved import (
    Age,
    Compute,
    HbmCodec,
    Layout,
    LayoutGroup,
    Loop,
    Policies,
    Reading,
    Retention,
    Selection,
)

MODEL = Scenario.load(Path(__file__).parents[2] / "scenarios" / "gpu_only.yaml").resolved.model
DENSE = Selection("dense", 0)
curves = st.builds(
    Curve.of,
    st.lists(st.tuples(st.one_of(st.integers(1, 2000).map(float), st.just(inf)), st.floats(0.01, 1.0)), max_size=4),
)
contexts = st.integers(0, 5000)


@given(curves, curves, contexts, st.floats(0.1, 3.0), st.floats(0.5, 900.0))
def test_curve_algebra(one: Curve, other: Curve, n: int, factor: float, bound: float) -> None:
    """Sums, multiples, stretching and bounding are those of the functions. Catches a cap moved the wrong way."""
    assert (one + other).at(n) == pytest.approx(one.at(n) + other.at(n))
    assert one.times(factor).at(n) == pytest.approx(factor * one.at(n))
    assert one.stretched(factor).at(n) == pytest.approx(one.at(factor * n))
    assert one.capped(bound).at(n) == pytest.approx(min(one.at(n), bound))
    several = np.array([n, 2 * n + 1])
    assert one.over(several) == pytest.approx([one.at(n), one.at(2 * n + 1)])
    assert one.slopes(several)[0] == pytest.approx(one.at(n + 1) - one.at(n))


@given(curves, st.lists(contexts, min_size=1, max_size=8))
def test_law_grows_evenly_between_turns(curve: Curve, lengths: list[int]) -> None:
    """What a run of steps reads is exactly its first step and `growth` times the steps. Catches a run over a turn."""
    law, batch = Law.of(curve), np.array(lengths)
    first, growth = law.units(batch), law.growth(batch)
    for ahead in range(int(min(law.steady(batch), 40))):
        assert law.units(batch + ahead) == first + ahead * growth
    assert first == pytest.approx(curve.over(batch).sum() * UNITS, rel=1e-3, abs=UNITS * len(lengths))


def test_the_identity_stores_and_reads_what_is_there() -> None:
    """Catches a default that is not the identity."""
    assert stored(Policies(), MODEL, 16) == IDENTITY
    assert read(Policies(), DENSE, MODEL, 1.0, 0.5) == read(Policies(), DENSE, MODEL, 0.5, 1.0) == IDENTITY


def test_layout_windows_and_states() -> None:
    """min(n, sink + window + fraction n), entries of several tokens, states. Catches sinks counted twice, a growing window
    that keeps more than there is."""
    window = LayoutGroup(kind="window", window=64, sink=16, fraction=0.25)
    kept = layout.kept(window)
    for n in (1, 50, 106, 107, 1000):
        assert kept.at(n) == pytest.approx(min(n, 80 + 0.25 * n))
    assert layout.entries(LayoutGroup(tokens_per_entry=4), IDENTITY).at(100) == 25
    assert layout.kept(LayoutGroup(kind="ssm", state=1.0)) == Curve()
    halves = Layout((("a", LayoutGroup(0.5)), ("b", LayoutGroup(0.5, kind="ssm", state=MODEL.kv_bytes_per_token_layer * 10))))
    assert stored(Policies(layout=halves), MODEL, 16).at(1000) == 0.5 * 1000 + 0.5 * 10
    assert layout.layers_run(Layout((("a", LayoutGroup(0.5)), ("b", LayoutGroup(0.5, run_every=4))))) == 0.625


def test_duoattention_memory_tends_to_one_over_r() -> None:
    """With a share r of the heads whole, memory falls to r + (1 - r) * kept / n. Catches a share of layers for heads."""
    for r in (0.25, 0.5):
        groups = (("retrieval", LayoutGroup(r, "heads")), ("streaming", LayoutGroup(1 - r, "heads", "window", 64, 256)))
        memory = stored(Policies(layout=Layout(groups)), MODEL, 16)
        for n in (10**3, 10**5, 10**7):
            assert n / memory.at(n) == pytest.approx(n / (r * n + (1 - r) * 320))
        assert 10**7 / memory.at(10**7) == pytest.approx(1 / r, rel=1e-3)


def test_codec_counts_metadata_and_residual() -> None:
    """KIVI: (2 + 32 / 32) / 16 = 0.1875 and 128 raw tokens. Catches metadata left out, a residual on top of all tokens."""
    kivi = HbmCodec(k_bits=2, v_bits=2, group=32, meta_bits=32, residual=128)
    assert codec.relative(kivi) == 0.1875
    assert codec.cost(kivi, IDENTITY).at(1000) == pytest.approx(128 + 0.1875 * 872)
    assert codec.cost(kivi, IDENTITY).at(100) == 100
    assert codec.cost(kivi, IDENTITY, floor=0.5).at(1000) == pytest.approx(128 + 0.5 * 872)  # arithmetic takes half the time
    assert codec.relative(HbmCodec(density=0.3, mask_bits=1)) == pytest.approx(0.3 + 1 / 16)
    assert codec.mean_ratio((3.5, 3.2, 2.75)) == pytest.approx(3 / (1 / 3.5 + 1 / 3.2 + 1 / 2.75))
    ages = (("new", Age(0, 16)), ("old", Age(100, 4)), ("middle", Age(10, 8)))
    assert codec.cost(HbmCodec(by_age=ages), IDENTITY).at(200) == pytest.approx(10 + 90 * 0.5 + 100 * 0.25)
    assert codec.link_rate(25e9, 3.2, 51.2e9) == 51.2e9  # an engine below the link's compressed rate bounds it


def test_retention() -> None:
    """Catches a window that adds to what is kept anyway, a prompt whose dropped tokens are not computed."""
    lazy = retention.kept(Retention(keep=0.5, window=128))
    assert (lazy.at(100), lazy.at(1000)) == (100, 500 + 64)
    crushed = Retention(keep=0.25, when="prefill_end")
    assert retention.kept(crushed) == IDENTITY
    assert (retention.prompt(crushed, 1000), retention.work(crushed), retention.stretch(crushed)) == (250, 4.0, 4.0)
    half = Retention(prompt_scale=0.5, pre_cost=0.1)
    assert (retention.prompt(half, 1001), retention.work(half), retention.stretch(half)) == (501, 1.2, 1.0)


def test_selection_reads_by_role() -> None:
    """4 dense layers of 32, every 7th of the others selects: catches an index in layers that reuse, one read per refresh."""
    chosen = Selection("pages", 256, dense_layers=4, select_every=7, index=0.5, refresh=2)
    assert selection.roles(chosen, 32) == (4 / 32, 4 / 32)
    assert selection.read(chosen, 32, IDENTITY).at(1024) == pytest.approx((4 * 1024 + 28 * 256) / 32)
    assert selection.index(chosen, 32, IDENTITY).at(1024) == pytest.approx(1024 * 0.5 * 4 / 32 / 2)
    assert selection.read(replace(chosen, budget=5000), 32, IDENTITY).at(1024) == 1024  # a budget of all is dense
    fraction = Selection("pages", 0, fraction=0.1)
    assert selection.read(fraction, 32, IDENTITY).at(1000) == pytest.approx(100)


def test_selection_stores_everything() -> None:
    """Catches the commonest mistake: a selection that shrinks the cache."""
    assert stored(Policies(reading=Reading(v_fraction=0.1)), MODEL, 16) == IDENTITY
    assert stored(Policies(reading=Reading(index_stored=1 / 32)), MODEL, 16).at(320) == 330


def test_a_token_costs_the_longer_of_bytes_and_flops() -> None:
    """Fewer query heads change nothing where bytes bound; a codec changes nothing where FLOPs bound."""
    fewer = Policies(layout=Layout(query_heads=0.25))
    assert read(fewer, DENSE, MODEL, 1.0, 0.9).at(100) == 100
    assert read(fewer, DENSE, MODEL, 0.1, 1.0).at(100) == pytest.approx(25)
    small = Policies(codec=HbmCodec(ratio=4.0))
    assert read(small, DENSE, MODEL, 1.0, 0.1).at(100) == pytest.approx(25)
    assert read(small, DENSE, MODEL, 0.5, 1.0).at(100) == pytest.approx(100)


def test_loops() -> None:
    """1 + a + a^2 + a^3 tokens a pass. Catches acceptance taken as independent of the positions before."""
    drafted = Loop("speculative", 3, (0.8, 0.8, 0.8), 0.1)
    assert loop.accepted(drafted) == pytest.approx(1 + 0.8 + 0.64 + 0.512)
    assert (loop.width(drafted), loop.drafting(drafted)) == (4, pytest.approx(0.3))
    assert loop.passes(drafted) == pytest.approx(1 / 2.952)
    assert stored(Policies(loop=drafted), MODEL, 16).at(100) == 103  # what may be rejected is held during the pass
    assert (loop.passes(Loop()), loop.width(Loop()), loop.drafting(Loop())) == (1.0, 1, 0.0)
    assert loop.width(Loop("parallel_workers", workers=4, steps_scale=0.4)) == 4


def test_placement_moves_queries_instead_of_pages() -> None:
    """Catches K and V that cross the link although attention is where they are."""
    near = Compute("near_data", 1e12, 2, 10e9, 20e9, 5e-6)
    assert placement.attention_seconds(near, 40e9) == 2.0
    heads = MODEL.heads * 2 * MODEL.head_dim
    size = 2 * (heads + 2 * MODEL.kv_heads * MODEL.head_dim)
    assert placement.exchange_seconds(near, MODEL, 8) == pytest.approx(8 * size / 20e9 + 5e-6)


def test_prefetch_hides_and_never_lowers() -> None:
    """Catches a predictor that makes bytes free; an overlap of 1 moves nothing once the set fits."""
    assert prefetch.bounds(2.0, 30e9, 10e9) == (3.0, 5.0)
    assert prefetch.moved(100.0, 100.0, 1.0) == 0.0
    assert prefetch.moved(100.0, 100.0, 0.8) == pytest.approx(20.0)
    assert prefetch.moved(100.0, 40.0, 1.0) == 60.0


def test_topology_and_sharing() -> None:
    """Catches a sharded latent that is still held whole; a batch of one that gains from sharing; a link that is not used."""
    assert (topology.shares("sharded", 8), topology.shares("replicated", 8)) == (1 / 8, 1.0)
    assert topology.split_rate(10.0, 8.0, 1e9, 0.2e9) == 5.0
    assert topology.link_use(5.0, 2e9, 0.2e9) == 0.5
    assert sharing.shared_seconds(1000, 1000, 2.0, 0.1) == 2000.0
    assert sharing.shared_seconds(1000, 64000, 2.0, 0.1) == 6400.0


def test_mla_bytes_follow_from_its_ranks() -> None:
    """(512 + 64) elements a layer and token, whatever the heads. Catches per-head latents."""
    latent = replace(MODEL, kv_latent=512, rope_dim=64)
    assert latent.kv_bytes_per_token_layer == 576 * 2
