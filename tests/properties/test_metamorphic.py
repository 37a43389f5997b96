"""What must not get worse: more of a resource, a better predictor; what no system can beat; what only changes the clock.

Monotone in a fixed batch only (one static batch, all at once, everything admitted): with open admission more bandwidth
admits more requests, and each may wait longer.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from simulator.experiments.run import RunResult, run_scenario
from simulator.metrics.steps import WAITS
from simulator.scenario import Scenario
from tests.properties.small import BLOCK, LAYERS, MODEL, Rows, Settings, pool, scenario, served

PAGE = BLOCK / LAYERS
STATIC = {"scheduler.batching": "static", "scheduler.watermark": 0.0, "scheduler.host_overhead": "20 us"}
ROWS = st.lists(st.tuples(st.just(0.0), st.integers(1, 120), st.integers(2, 50)), min_size=2, max_size=8)
EVICTION = st.sampled_from(["split", "lru"])
PREDICTORS = ["none", "next_layer", "oracle"]
few = settings(max_examples=12, phases=[Phase.explicit, Phase.generate])  # an example is several runs: no shrinking
LINKS = st.sampled_from(["0.3 GB/s", "2 GB/s", "10 GB/s"])


def prefetch(predictor: str, coverage: float = 0.8, accuracy: float = 0.8, depth: int = 2) -> dict[str, Any]:
    if predictor == "statistical":
        return {"predictor": predictor, "coverage": coverage, "accuracy": accuracy, "depth": depth}
    return {"predictor": predictor} | ({"depth": depth} if predictor == "next_layer" else {})


def stall(settings: Settings, rows: Rows) -> float:
    """Exposed waits of one static batch."""
    result = served(STATIC | dict(settings), rows)
    assert result.summary["requests"]["preemptions"] == 0
    return waits(result)


def waits(result: RunResult) -> float:
    """Exposed waits of the whole batch: those of the request that ends last, which was there from the first step on."""
    last = int(np.argmax(result.columns["finished_s"]))
    return float(sum(result.columns[f"{part}_s"][last] for part in WAITS))


def not_more(better: float, worse: float, tolerance: float = 1e-9) -> None:
    assert better <= worse * (1 + tolerance) + 1e-12


@few
@given(
    rows=ROWS, eviction=EVICTION, predictor=st.sampled_from(PREDICTORS), l1=st.integers(2, 30), l2=st.sampled_from([1, 4, 16])
)
def test_more_link_bandwidth_never_adds_stall(rows: Rows, eviction: str, predictor: str, l1: int, l2: int):
    """Would catch: a rate used as a time, prefetches that a faster link issues too early for the space there is."""
    settings = {"kv.placement.eviction": eviction, "prefetch": prefetch(predictor)}
    stalls = [stall(pool(l1, 200, l2, f"{rate} GB/s") | settings, rows) for rate in (0.2, 0.7, 3, 30)]
    for slower, faster in pairwise(stalls):
        not_more(faster, slower)


@few
@given(rows=ROWS, predictor=st.sampled_from(["none", "next_layer"]), link=LINKS, l2=st.sampled_from([1, 2, 16, 64]))
def test_larger_l1_never_adds_stall(rows: Rows, predictor: str, link: str, l2: int):
    """Split; L1 holds a block of every sequence, else the batch is smaller. Not for predictors that continue into the next
    step: each time something far begins to be read, they start without anything in flight, which a larger L1 makes more often.

    Would catch: demotion of what there is room for, a share of L1 that shrinks as L1 grows."""
    stalls = [stall(pool(l1, 200, l2, link) | {"prefetch": prefetch(predictor)}, rows) for l1 in (8, 11, 16, 24, 60)]
    for smaller, larger in pairwise(stalls):
        not_more(larger, smaller)


@few
@given(rows=ROWS, predictor=st.sampled_from(["none", "next_layer"]), link=LINKS)
def test_larger_l1_never_adds_stall_under_lru(rows: Rows, predictor: str, link: str):
    """LRU is a stack algorithm: what a smaller L1 holds, a larger one holds too. L2 is ample here: in a small one, write-back
    of first evictions takes the space of reads, and a larger L1 evicts later, at a worse time perhaps.

    Would catch: an LRU that misses more in a larger cache.
    """
    base = {"kv.placement.eviction": "lru", "prefetch": prefetch(predictor)}
    results = [served(STATIC | pool(l1, 200, 400, link) | base, rows) for l1 in (8, 11, 16, 24, 60)]
    for smaller, larger in pairwise(results):
        assert larger.summary["prefetch"]["asked"] <= smaller.summary["prefetch"]["asked"]
        if predictor == "none":
            assert waits(larger) <= waits(smaller) * (1 + 1e-9) + 1e-12


@few
@given(rows=ROWS, predictor=st.sampled_from(["none", "next_layer"]), link=LINKS, l1=st.integers(2, 20))
def test_larger_l2_never_adds_stall(rows: Rows, predictor: str, link: str, l1: int):
    """Split. Would catch: a window that fills a larger L2 with what is needed last, waves that grow in number."""
    stalls = [stall(pool(l1, 200, l2, link) | {"prefetch": prefetch(predictor)}, rows) for l2 in (1, 2, 4, 9, 30, 100)]
    for smaller, larger in pairwise(stalls):
        not_more(larger, smaller)


def test_larger_l2_never_adds_stall_to_the_oracle():
    """Would catch: an oracle that does not know all of the next step: its demand reads grow with its window."""
    rows = [(0.0, 83, 24), (0.0, 40, 13), (0.0, 82, 32), (0.0, 116, 13), (0.0, 1, 30)]
    stalls = [stall(pool(10, 200, l2, "10 GB/s") | {"prefetch": prefetch("oracle")}, rows) for l2 in (1, 2, 4, 9, 30, 100)]
    for smaller, larger in pairwise(stalls):
        not_more(larger, smaller)


BATCH = [(0.0, 90 + 5 * index, 60) for index in range(8)]
NOISE = 0.01  # coverage and accuracy are drawn page by page: 300 steps of 4 layers of tens of pages


@pytest.mark.parametrize("link", ["0.5 GB/s", "2 GB/s", "10 GB/s"])
@pytest.mark.parametrize("l2", [8, 64])
def test_higher_coverage_never_adds_stall(link: str, l2: int):
    """Tolerance 1 %: pages are drawn at random, anew for each coverage.

    Would catch: coverage used the wrong way round, prefetches that hold up the demand of what was not covered.
    """
    stalls = [
        stall(pool(10, 200, l2, link) | {"prefetch": prefetch("statistical", coverage, 1.0, 1)}, BATCH)
        for coverage in (0.0, 0.25, 0.5, 0.75, 0.9, 1.0)
    ]
    for lower, higher in pairwise(stalls):
        not_more(higher, lower, NOISE)


@pytest.mark.parametrize("link", ["0.5 GB/s", "2 GB/s", "10 GB/s"])
@pytest.mark.parametrize("l2", [8, 64])
def test_higher_accuracy_never_adds_stall(link: str, l2: int):
    """Would catch: wrong pages that take no link time, or the more of them the better the predictor."""
    stalls = [
        stall(pool(10, 200, l2, link) | {"prefetch": prefetch("statistical", 0.8, accuracy, 1)}, BATCH)
        for accuracy in (0.2, 0.4, 0.6, 0.8, 1.0)
    ]
    for lower, higher in pairwise(stalls):
        not_more(higher, lower, NOISE)


@settings(max_examples=30, phases=[Phase.explicit, Phase.generate])
@given(
    rows=ROWS, link=LINKS, l1=st.integers(2, 20), l2=st.sampled_from([1, 2, 4, 16, 64]),
    depth=st.integers(1, 6), coverage=st.sampled_from([0.3, 0.9, 1.0]), accuracy=st.sampled_from([0.5, 1.0]),
    ratio=st.sampled_from([None, 2]),
)  # fmt: skip
def test_nobody_stalls_less_than_the_oracle(
    rows: Rows, link: str, l1: int, l2: int, depth: int, coverage: float, accuracy: float,
    ratio: float | None,
):  # fmt: skip
    """INV-BOUNDS on a fixed page stream, split. Would catch: an oracle that fetches for sequences that end, looks less far
    ahead than others, or leaves space unused; a predictor that makes bytes free."""
    base = pool(l1, 200, l2, link)
    if ratio:
        base["kv.codec"] = {"ratio": ratio, "decompress_at": "gpu"}
    best = stall(base | {"prefetch": prefetch("oracle")}, rows)
    for predictor in ("none", "next_layer", "statistical"):
        not_more(best, stall(base | {"prefetch": prefetch(predictor, coverage, accuracy, depth)}, rows))


@pytest.mark.parametrize(
    ("rows", "l1", "link", "depth"),
    [
        pytest.param([(0.0, 12, 10), (0.0, 14, 7)], 2, "10 GB/s", 3, id="fast link"),
        pytest.param([(0.0, 27, 9), (0.0, 17, 3)], 3, "0.3 GB/s", 6, id="slow link"),
    ],
)
def test_nobody_stalls_less_than_the_oracle_under_lru(rows: Rows, l1: int, link: str, depth: int):
    """Would catch: an oracle that guesses: under LRU the layers that miss differ from step to step as the scan grows and
    shrinks, so the next step's first layers are not this step's."""
    base = pool(l1, 200, 16, link) | {"kv.placement.eviction": "lru"}
    oracle = served(STATIC | base | {"prefetch": prefetch("oracle")}, rows)
    assert oracle.summary["prefetch"]["wasted_bytes"] == 0.0
    not_more(waits(oracle), stall(base | {"prefetch": prefetch("next_layer", depth=depth)}, rows))


def test_nobody_stalls_less_than_the_oracle_under_a_budget():
    """Would catch: an oracle that leaves out pages of sequences which go on, because others end."""
    rows = [(0.0, 50, 8), (0.0, 43, 5), (0.0, 6, 9)]
    base = pool(4, 200, 4, "2 GB/s") | {"kv.selection": {"kind": "budget", "tokens": "40 tokens"}}
    best = stall(base | {"prefetch": prefetch("oracle")}, rows)
    not_more(best, stall(base | {"prefetch": prefetch("statistical", 1.0, 1.0, 2)}, rows))


# --- bounds --------------------------------------------------------------------------------------------------------------


def elapsed(result: RunResult) -> float:
    seconds: float = result.summary["simulation"]["simulated_s"]
    return seconds


@few
@given(rows=ROWS, eviction=EVICTION, predictor=st.sampled_from(PREDICTORS), link=LINKS, l1=st.integers(2, 20))
def test_throughput_is_below_every_roofline(rows: Rows, eviction: str, predictor: str, link: str, l1: int):
    """Every step reads the weights of all layers once from HBM; every token takes 2 FLOPs a layer weight; every far page
    that was asked for crosses the link once, raw here. At peak rates, without overheads, that takes less than the run.

    Would catch: tokens, pages or bytes that take no time; INV-BOUNDS.
    """
    settings = STATIC | pool(l1, 200, 8, link) | {"kv.placement.eviction": eviction, "prefetch": prefetch(predictor)}
    result = served(settings, rows)
    hidden, inner = 256, 512
    weights = LAYERS * (hidden * (256 + 2 * 128) + 256 * hidden + 3 * hidden * inner)
    tokens = sum(prompt + output - 1 for _, prompt, output in rows)
    assert result.summary["simulation"]["steps"] * weights * 2 / 2039e9 < elapsed(result)
    assert 2 * weights * tokens / 312e12 < elapsed(result)
    rate = float(link.removesuffix(" GB/s")) * 1e9
    assert result.summary["prefetch"]["asked"] * PAGE / rate <= elapsed(result) * (1 + 1e-9)
    kv_read = sum(prompt + step for _, prompt, output in rows for step in range(1, output)) * LAYERS * 512
    assert kv_read / 2039e9 < elapsed(result)


@pytest.mark.parametrize("predictor", ["none", "next_layer", "oracle"])
def test_a_slow_link_is_the_bound(predictor: str):
    """At 10 MB/s the link is all that counts: far bytes / rate is 99 % of the decode time and never more than all of it.

    Would catch: a link used beyond its rate, or idle while layers wait for it.
    """
    rows = [(0.0, 160, 40)] * 4
    result = served(STATIC | pool(4, 200, 64, "0.01 GB/s") | {"prefetch": prefetch(predictor)}, rows)
    last = int(np.argmax(result.columns["finished_s"]))
    decoding = result.columns["finished_s"][last] - result.columns["first_token_s"][last]
    share = result.summary["prefetch"]["asked"] * PAGE / 10e6 / decoding
    assert 0.98 < share <= 1 + 1e-9


# --- scaling -------------------------------------------------------------------------------------------------------------

PER_SECOND = {  # bytes/s, FLOP/s, requests/s
    "peak_flops", "memory_bandwidth", "all_reduce_bandwidth", "staging_bandwidth", "compress_rate", "decompress_rate",
    "read_bandwidth", "write_bandwidth", "engine_rate", "dma_bandwidth", "port_bandwidth", "rate",
    "gemm_operand_bandwidth",
}  # fmt: skip
SECONDS = {
    "memory_latency", "launch", "all_reduce_latency", "latency", "translation", "directory", "engine_fill",
    "host_overhead", "ttft", "tpot", "gemm_wave", "attention_block", "attention_latency",
}  # fmt: skip


def faster(value: Any, k: float) -> Any:
    """The resolved scenario in a world whose clock runs k times as fast."""
    changes: dict[str, Any] = {}
    for field in fields(value):
        inner = getattr(value, field.name)
        if is_dataclass(inner):
            changes[field.name] = faster(inner, k)
        elif field.name in PER_SECOND and inner is not None:
            changes[field.name] = inner * k
        elif field.name in SECONDS and inner is not None:
            changes[field.name] = inner / k
    return replace(value, **changes)


@pytest.mark.parametrize("k", [2.0, 0.3])
@pytest.mark.parametrize("predictor", ["none", "statistical"])
def test_all_rates_times_k_is_all_times_by_k(k: float, predictor: str):
    """Would catch: a time or rate that is written into the code instead of the scenario.

    The requests arrive k times as fast, too; the same draws decide everything.
    """
    settings = pool(12, 60, 4) | {
        "scheduler.host_overhead": "30 us",
        "kv.codec": {"ratio": 2, "compress_at": "gpu", "decompress_at": "gpu"},
        "cluster.kv_pool.switch": "cxl-2.0-switch",
        "prefetch": prefetch(predictor) | ({"latency": "5 us"} if predictor == "statistical" else {}),
        "slo": {"ttft": "5 ms", "tpot": "1 ms"},
        "workload.synthetic": {
            "requests": 60, "arrivals": {"process": "poisson", "rate": "2000 /s"},
            "input": {"dist": "uniform", "low": "1 token", "high": "120 tokens"},
            "output": {"dist": "uniform", "low": "1 token", "high": "50 tokens"},
        },
    }  # fmt: skip
    base = scenario(settings)
    slow, fast = run_scenario(base, check=True), run_scenario(Scenario(faster(base.resolved, k)), check=True)
    assert slow.summary["prefetch"]["asked"] > 0
    for name, column in slow.columns.items():
        if name.endswith("_s"):
            np.testing.assert_allclose(fast.columns[name], column / k, rtol=1e-7, atol=1e-12, err_msg=name)
        else:
            np.testing.assert_array_equal(fast.columns[name], column, err_msg=name)
    assert fast.summary["goodput"]["slo_attainment"] == slow.summary["goodput"]["slo_attainment"]
    for name, rate in slow.summary["throughput"].items():
        assert fast.summary["throughput"][name] == pytest.approx(k * rate, rel=1e-7)


def test_the_small_model_is_as_the_bounds_assume():
    """Would catch: a change of the small model that empties the bounds above."""
    assert (MODEL["hidden"], MODEL["intermediate"], MODEL["kv_heads"], MODEL["head_dim"]) == (256, 512, 2, 64)
