"""The page table in the engine: equal to the counts where both apply, and monotone on fixed page streams.

Fixed streams: a static batch without prompts in between, so that which pages each step reads does not depend on time.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.experiments import server
from simulator.experiments.run import RunResult
from simulator.experiments.simulation import Simulation
from simulator.kvcache.paged import held_once
from simulator.metrics.far_share import COLUMNS as FAR_SHARE
from simulator.scheduler.engine import Events
from tests.properties.small import LAYERS, Rows, draw, lasting, pool, requests, same_requests, scenario, served
from tests.properties.worlds import ROWS, worlds

STATIC = {"scheduler.batching": "static", "scheduler.watermark": 0.0}
BATCH = [(0.0, 150 + 30 * index, 24) for index in range(6)]
PAGES = {"kind": "pages", "tokens": "80 tokens", "overlap": 0.8}


def stalls(settings: dict[str, Any], rows: Rows = BATCH) -> float:
    result = served(STATIC | settings, rows)
    return float(np.nansum(result.columns["link_s"] + result.columns["pool_memory_s"] + result.columns["dma_s"]))


@pytest.mark.parametrize("predictor", ["none", "next_layer", "oracle"])
@pytest.mark.parametrize("seed", range(2))
def test_split_by_pages_is_split_by_counts(predictor: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dense: every number of every request, and the summary, to the last bit.

    Would catch: a block that is near by name and far by count, a demotion a step early, a read that is forgotten.
    """
    world = pool(24, 60, 8) | {"prefetch": {"predictor": predictor}}
    rows = draw(seed, 25)
    counted = served(world, rows)
    monkeypatch.setattr(server, "needs_table", lambda *_: True)
    named = served(world, rows)
    assert counted.summary["prefetch"]["asked"] > 0
    same_requests(counted, named)
    assert lasting(counted.summary) == lasting(named.summary)


def asked_by_lru(rows: Rows, l1: int, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int, int]:
    """(pages asked for by counts, page by page, steps)."""
    world = STATIC | pool(l1, 200, 8) | {"kv.placement.eviction": "lru"}
    counted = served(world, rows)
    with monkeypatch.context() as patched:
        patched.setattr(server, "needs_table", lambda *_: True)
        named = served(world, rows)
    found = [result.summary["prefetch"]["asked"] for result in (counted, named)]
    return found[0], found[1], counted.summary["simulation"]["steps"]


@pytest.mark.parametrize("l1", [20, 40, 60])
def test_lru_by_pages_is_lru_by_counts(l1: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scan that is larger than L1 all along: both miss everything but the pinned blocks, the pages that prompt pieces write
    in between aside (by counts they are written after the scan, by name layer by layer): within 2 %.

    Would catch: an LRU that keeps a part of a cyclic scan.
    """
    counted, named, _ = asked_by_lru([(0.0, 300, 60)] * 6, l1, monkeypatch)
    assert counted > 0
    assert named == pytest.approx(counted, rel=0.02)


@settings(max_examples=12)
@given(world=worlds(far=True))
def test_every_page_has_a_home(world: tuple[dict[str, Any], Rows]) -> None:
    """INV-CAPACITY: at the end of every step each live page is in L1 or has a copy in L3, L1 holds no more than fits, and
    nothing is left of sequences that ended.

    Would catch: a page dropped dirty, flags of a former block.
    """
    settings_, rows = world
    run = Simulation(scenario({"workload.synthetic": SYNTHETIC, **settings_}).resolved, requests(rows))
    pages = run.engine.pages
    if pages is None:
        return
    step = run.engine._step

    def stepped() -> Events:
        yield from step()
        assert held_once(pages)
        assert pages.near_pages <= pages.l1_blocks * LAYERS

    run.engine._step = stepped  # type: ignore[method-assign]
    run.run()
    assert pages.table.live == 0 and pages.near_pages == 0 and pages.kept.used == 0


SYNTHETIC = {
    "requests": 1, "arrivals": {"process": "at_once"}, "input": {"dist": "fixed", "tokens": "1 token"},
    "output": {"dist": "fixed", "tokens": "1 token"},
}  # fmt: skip

EVICTIONS = ["split", "lru", "share", "hot"]


@pytest.mark.parametrize("eviction", EVICTIONS)
@pytest.mark.parametrize("predictor", ["none", "next_layer", "history"])
def test_more_bandwidth_never_adds_stall(eviction: str, predictor: str) -> None:
    """Would catch: a page set, an eviction or a proposal that depends on time."""
    base = {"kv.placement.eviction": eviction, "prefetch": {"predictor": predictor}, "kv.selection": PAGES}
    found = [stalls(pool(30, 400, 16, link) | base) for link in ("0.5 GB/s", "2 GB/s", "50 GB/s")]
    for slower, faster in pairwise(found):
        assert faster <= slower * (1 + 1e-9)


@pytest.mark.parametrize("selection", [{"kind": "dense"}, PAGES])
@pytest.mark.parametrize("eviction", ["split", "share", "priority"])
def test_larger_l1_never_adds_stall(eviction: str, selection: dict[str, Any]) -> None:
    """On demand, policies that a larger tier obeys like a smaller one (inclusion). Would catch: pages lost on the way."""
    base = {"kv.placement.eviction": eviction, "kv.selection": selection}
    found = [stalls(pool(l1, 400, 8) | base) for l1 in (12, 30, 80, 160)]
    for smaller, larger in pairwise(found):
        assert larger <= smaller * (1 + 1e-9)
    assert found[-1] == 0.0


@pytest.mark.parametrize("eviction", EVICTIONS)
@pytest.mark.parametrize("predictor", ["none", "next_layer"])
def test_larger_l2_never_adds_stall(eviction: str, predictor: str) -> None:
    """L2 keeps what was fetched: the larger, the less is asked for. Would catch: kept pages that hold up reads."""
    base = {"kv.placement.eviction": eviction, "prefetch": {"predictor": predictor}, "kv.selection": PAGES}
    results = [served(STATIC | pool(30, 400, l2) | base, BATCH) for l2 in (2, 8, 24, 200)]
    asked = [result.summary["prefetch"]["asked"] for result in results]
    assert asked == sorted(asked, reverse=True) and asked[-1] < asked[0]


def test_higher_coverage_and_accuracy_never_add_stall() -> None:
    """Statistical predictor over drawn page sets, 1 % for the draws. Would catch: proposals that delay demand."""

    def run(coverage: float, accuracy: float) -> float:
        spec = {"predictor": "statistical", "coverage": coverage, "accuracy": accuracy, "depth": 1}
        return stalls(pool(30, 400, 64) | {"kv.selection": PAGES, "prefetch": spec})

    for found in ([run(share, 1.0) for share in (0.0, 0.3, 0.6, 1.0)], [run(0.8, share) for share in (0.3, 0.6, 1.0)]):
        for lower, higher in pairwise(found):
            assert higher <= lower * 1.01


def history(l2: int, depth: int, overlap: float = 0.6) -> RunResult:
    selection = PAGES | {"overlap": overlap}
    spec = {"predictor": "history", "depth": depth} if depth else {"predictor": "none"}
    return served(STATIC | pool(16, 400, l2) | {"kv.selection": selection, "prefetch": spec}, BATCH)


def test_pollution_appears_when_l2_is_small() -> None:
    """Prefetches push kept pages out of a small L2, which are asked for again; a large one loses nothing.

    Would catch: displaced pages that are not counted, or counted although nobody asked for them again.
    """
    assert history(24, 3).summary["prefetch"]["polluted"] > 0
    assert history(400, 3).summary["prefetch"]["polluted"] == 0
    assert history(24, 0).summary["prefetch"]["polluted"] == 0


def test_waste_rises_with_depth() -> None:
    """Statistical predictor, coverage 0.9, accuracy 0.5: every layer further ahead is one more layer of wrong pages that are
    under way when the batch ends; the history in a small L2 fetches what is displaced again.

    Would catch: wrong pages that are counted once for all layers ahead.
    """

    def wasted(depth: int, **spec: Any) -> float:
        prefetch = {**spec, "depth": depth}
        result = served(STATIC | pool(16, 400, 200) | {"kv.selection": PAGES, "prefetch": prefetch}, BATCH)
        return float(result.summary["prefetch"]["wasted_bytes"])

    found = [wasted(depth, predictor="statistical", coverage=0.9, accuracy=0.5) for depth in (0, 1, 4)]
    assert found[0] == 0.0 < found[1] <= found[2]


@pytest.mark.parametrize("eviction", EVICTIONS)
@pytest.mark.parametrize("l2", [16, 64])
def test_nobody_stalls_less_than_the_oracle(eviction: str, l2: int) -> None:
    """INV-BOUNDS on drawn pages. Would catch: an oracle that does not know the next sets, or pushes out what it will read."""
    base = pool(24, 400, l2) | {"kv.placement.eviction": eviction, "kv.selection": PAGES}
    best = stalls(base | {"prefetch": {"predictor": "oracle"}})
    for spec in ({"predictor": "none"}, {"predictor": "next_layer"}, {"predictor": "history", "depth": 2}):
        assert best <= stalls(base | {"prefetch": spec}) * (1 + 1e-9)


def test_frozen_sets_need_no_fetch() -> None:
    """Overlap 1 and an L2 that holds the sets: every page is fetched once, and history has nothing to propose.

    Would catch: pages fetched again although they are there or under way, sets that move.
    """
    result, moving = history(400, 2, overlap=1.0), history(400, 2, overlap=0.6)
    assert result.summary["prefetch"]["asked"] < moving.summary["prefetch"]["asked"]
    assert result.summary["prefetch"]["issued"] == 0
    assert result.summary["kv_access"]["l2_kept_share"] > 0.3


@settings(max_examples=5)
@given(rows=ROWS, eviction=st.sampled_from(EVICTIONS), depth=st.integers(0, 5), overlap=st.sampled_from([0.0, 0.8, 1.0]))
def test_depth_zero_is_none(rows: Rows, eviction: str, depth: int, overlap: float) -> None:
    """A history that may not look ahead changes nothing. Would catch: pages marked in flight that are not."""
    base = pool(10, 100, 8) | {"kv.placement.eviction": eviction, "kv.selection": PAGES | {"overlap": overlap}}
    none = served(base, rows)
    same_requests(none, served(base | {"prefetch": {"predictor": "history", "depth": 0}}, rows))


def test_a_budget_of_everything_is_dense() -> None:
    """Fraction 1, split: the same far pages as dense, and the same times. Would catch: pages that are selected twice."""
    base = STATIC | pool(30, 400, 8)
    shares: dict[str, list[Any]] = {name: [] for name in FAR_SHARE}
    dense = served(base, BATCH)
    all_pages = served(base | {"kv.selection": {"kind": "pages", "fraction": 1.0, "overlap": 0.5}, "kv.l2": "4 KiB"}, BATCH)
    alone = served(base | {"kv.l2": "4 KiB"}, BATCH)
    for result in (alone, all_pages):  # running sums over other groups of steps: equal but for rounding
        for name in FAR_SHARE:
            shares[name].append(result.columns.pop(name))
    for name, (one, other) in shares.items():
        np.testing.assert_allclose(one, other, rtol=1e-12, err_msg=name)
    assert dense.summary["prefetch"]["asked"] == all_pages.summary["prefetch"]["asked"]
    same_requests(alone, all_pages)
