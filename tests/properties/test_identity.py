"""INV-IDENTITY: a feature switched off, or set to its neutral value, leaves every per-request time as it is without it.

Equal means to the last bit, except where the neutral value takes another way through the arithmetic (a pool behind
infinite rates adds its layers up one by one): there 1e-9 relative.
"""

from __future__ import annotations

from typing import Any

import pytest

from simulator.experiments.run import RunResult
from tests.properties.small import IDEAL_BOARD, NO_PATH, ROOT, blocks, draw, lasting, pool, same_requests, served

SEEDS = (1, 2, 3)
AZURE = {
    "workload.trace": {"path": str(ROOT / "traces" / "AzureLLMInferenceTrace_conv.csv.gz"), "limit": 60, "rate_scale": 4},
    "model": "llama-3.1-8b",
    "cluster.gpus": {"type": "h100-80gb-sxm"},
    "scheduler": {"max_batch": 32, "token_budget": "512 tokens", "host_overhead": "1 ms"},
}
A_POOL = {"cluster.kv_pool.board": "agilex-7-speckv", "cluster.kv_pool.link": "pcie-gen5-x16", "kv.burst": "64 KiB"}
STATISTICAL = {"predictor": "statistical", "depth": 2, "coverage": 0.9, "accuracy": 0.8, "latency": "5 us"}


def same(one: RunResult, other: RunResult) -> None:
    """Equal to the last bit: requests, stalls, tokens, traffic."""
    same_requests(one, other)
    pool = ("tiers", "layer_groups", "utilization", "compression", "kv_access", "prefetch")  # what a pool has or gave
    ignored = (*pool, "provenance", "cost", "energy", "warnings", "stability")
    assert lasting(other.summary, *ignored) == lasting(one.summary, *ignored)
    # what full batches would serve depends on the tiers, what this run did does not
    steady = [{key: each.summary["stability"][key] for key in ("after_warmup", "warmup_requests")} for each in (one, other)]
    assert steady[0] == steady[1]


def summed(result: RunResult, *parts: str) -> float:
    """A part of all finished requests' time."""
    return sum(float(result.summary["stall"][f"{part}_s"]) for part in parts)


@pytest.mark.parametrize("predictor", ["none", "next_layer", "statistical", "oracle"])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_pool_that_is_not_needed_changes_nothing(seed: int, predictor: str):
    """L1 of 200 blocks holds everything; a pool and a prefetcher beside it. Equal to the last bit.

    Would catch: steps that take the far way though nothing is far, random numbers that move arrivals, an L2 that eats L1, a
    watermark counted of the pool although nothing binds.
    """
    settings = {"prefetch": STATISTICAL if predictor == "statistical" else {"predictor": predictor}}
    rows = draw(seed, 25)
    alone = served({"kv.l1": blocks(200)}, rows)
    assert alone.summary["requests"]["preemptions"] == 0
    same(alone, served({**pool(l1=200, l3=40), **settings}, rows))
    same(alone, served({**pool(l1=200, l3=40), **settings, "kv.placement.eviction": "lru"}, rows))


def test_a_pool_that_is_not_needed_on_recorded_requests():
    """The same on 60 requests of the Azure trace and the whole HBM.

    Would catch: the same at the size of a real model, where block counts are large and L2 is taken from L1.
    """
    alone = served(AZURE)
    beside = served(AZURE | A_POOL | {"kv.l2": "1 GiB", "prefetch": STATISTICAL})
    assert beside.summary["kv_access"]["l3_read_share"] in (0.0, None)
    same(alone, beside)


@pytest.mark.parametrize("eviction", ["split", "lru"])
@pytest.mark.parametrize("seed", SEEDS)
def test_infinite_path_is_hbm(seed: int, eviction: str):
    """Every stage between L3 and the SMs infinite, no latency, ratio 1: as if all KV were in HBM. 1e-9.

    L1 holds 10 blocks of up to 64 in use, so that most pages are far; the pool holds the rest and nothing binds.
    Would catch: a stall, a wave, a write-back or a codec that costs time on a free path; 0 x inf.
    """
    rows = draw(seed, 25)
    ideal = pool(l1=10, l3=400, l2=2, **IDEAL_BOARD) | NO_PATH | {"kv.placement.eviction": eviction}
    alone = served({"kv.l1": blocks(412), "cluster.gpus.link": "ideal"}, rows)
    far = served(ideal, rows)
    assert far.summary["kv_access"]["l3_read_share"] > 0.2
    assert summed(far, "link", "pool_memory", "dma", "staging", "decompress", "writeback") == 0.0
    same_requests(alone, far, 1e-9)


@pytest.mark.parametrize("predictor", ["next_layer", "statistical", "oracle"])
def test_infinite_path_with_a_prefetcher(predictor: str):
    """Would catch: a prefetcher that costs time where there is nothing to wait for. Its own latency is set to 0."""
    prefetch = STATISTICAL | {"latency": "0 s"} if predictor == "statistical" else {"predictor": predictor}
    rows = draw(4, 25)
    alone = served({"kv.l1": blocks(412)}, rows)
    far = served(pool(l1=10, l3=400, l2=2, **IDEAL_BOARD) | NO_PATH | {"prefetch": prefetch}, rows)
    same_requests(alone, far, 1e-9)


def test_infinite_path_on_recorded_requests():
    """Would catch: the same on recorded requests and a real model, where the GPU's memory, not `l1`, sets the capacity."""
    free = {"cluster.gpus.link": "ideal", "cluster.gpus.staging_bandwidth": "inf"}
    board = {"type": "agilex-7-speckv", "memory": "40 GB"} | IDEAL_BOARD
    ideal = free | {"cluster.kv_pool.board": board, "cluster.kv_pool.link": "ideal", "kv.l1": "1 GB", "kv.l2": "1 GB"}
    far = served(AZURE | ideal)
    assert far.summary["kv_access"]["l3_read_share"] > 0.1
    assert far.summary["prefetch"]["asked"] > 0
    # GPU memory for L1 + L2 + L3 of KV; reserve and weights as they are
    weights = 2 * 8030261248  # bytes: Llama-3.1-8B in bf16
    memory = (42e9 + weights + 2 * 2**30) / 0.9
    alone = served(AZURE | {"cluster.gpus.memory": f"{memory:.0f} B"})
    assert alone.summary["tiers"]["l1"]["capacity_bytes"] == pytest.approx(42e9, rel=1e-3)
    same_requests(alone, far, 1e-9)


@pytest.mark.parametrize("seed", SEEDS)
def test_infinite_path_where_capacity_binds(seed: int):
    """L1 6 + L3 14 blocks behind an infinite path are GPU-only with 20 blocks: same admissions, same preemptions. 1e-9.

    L2 is a buffer, it holds no home of a page: admission counts L1 + L3. GPU-only with L1 + L2 + L3 admits more.
    Would catch: admission that counts L2, or L1 alone; a preemption while one of the tiers has room.
    """
    rows = draw(seed, 25, rate=20000.0)
    few = {"scheduler.max_batch": 6}  # L1 holds the newest block of every sequence
    far = served(pool(l1=6, l3=14, l2=8, **IDEAL_BOARD) | NO_PATH | few, rows)
    assert far.summary["requests"]["preemptions"] > 0
    same_requests(served({"kv.l1": blocks(20)} | few, rows), far, 1e-9)
    with_l2 = served({"kv.l1": blocks(28)}, rows)
    assert with_l2.summary["requests"]["preemptions"] < far.summary["requests"]["preemptions"]


@pytest.mark.parametrize(
    "off",
    [
        {"predictor": "next_layer", "depth": 0},
        STATISTICAL | {"depth": 0},
        STATISTICAL | {"coverage": 0},
    ],
    ids=["next_layer depth 0", "statistical depth 0", "statistical coverage 0"],
)
@pytest.mark.parametrize("codec", [None, {"ratio": 2, "decompress_at": "gpu"}], ids=["raw", "gpu codec"])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_prefetcher_that_proposes_nothing_is_none(seed: int, codec: dict[str, Any] | None, off: dict[str, Any]):
    """Equal to the last bit, with the same L2.

    Would catch: wrong pages proposed at coverage 0, a prediction's latency paid for nothing, L2 reserved for prefetches.
    """
    settings = pool(l1=10, l3=200, l2=2) | ({"kv.codec": codec} if codec else {})
    rows = draw(seed, 25)
    none = served(settings, rows)
    assert none.summary["prefetch"]["asked"] > 0
    other = served(settings | {"prefetch": off}, rows)
    same(none, other)
    for block in ("prefetch", "utilization", "kv_access", "tiers"):
        assert other.summary[block] == none.summary[block]


@pytest.mark.parametrize("predictor", ["none", "next_layer"])
@pytest.mark.parametrize("where", ["fpga", "gpu"])
@pytest.mark.parametrize("seed", SEEDS)
def test_ratio_one_with_infinite_engines_is_no_codec(seed: int, where: str, predictor: str):
    """Equal to the last bit: the codec neither shrinks nor takes time.

    Would catch: an engine's fill or a kernel's launch outside `engine_rate` and `engine_fill`, headers of ratio 1.
    """
    free = {"engine_rate": "inf", "engine_fill": "0 s"}
    settings = pool(l1=10, l3=200, l2=2, **free) | {"prefetch.predictor": predictor}
    settings |= {"cluster.gpus.compress_rate": "inf", "cluster.gpus.decompress_rate": "inf"}
    rows = draw(seed, 25)
    codec = {"kv.codec": {"ratio": 1, "compress_at": where, "decompress_at": where}}
    same(served(settings, rows), served(settings | codec, rows))


def test_a_budget_above_every_context_is_dense():
    """Would catch: a selection that costs or saves something though it selects everything."""
    rows = draw(5, 25)
    settings = pool(l1=10, l3=200, l2=2)
    everything = {"kv.selection": {"kind": "budget", "tokens": "4096 tokens"}}
    same_requests(served(settings, rows), served(settings | everything, rows))


def test_one_rank_has_no_collectives():
    """Would catch: all-reduces paid by a single GPU whose preset has a table for several."""
    costly = {"cluster.gpus.all_reduce_latency": "1 ms", "cluster.gpus.all_reduce_bandwidth": "1 MB/s"}
    rows = draw(6, 10)
    same_requests(served({}, rows), served(costly, rows))
