"""`explain`: what follows from a scenario by hand."""

from __future__ import annotations

import json

import pytest

from simulator.experiments.explain import explain
from simulator.experiments.explain_text import render

from .conftest import SAMPLE

FIXED = "{dist: fixed, tokens: %d tokens}"
WIDE = "{dist: uniform, low: 2096 tokens, high: 5696 tokens}"  # with 200 tokens of output, half exceed 4096
WORK = "workload={synthetic: {requests: 100, arrivals: {process: constant, rate: %s}, input: %s, output: %s}}"


def at(rate: str, prompt: int = 1000, output: int = 200) -> str:
    return WORK % (rate, FIXED % prompt, FIXED % output)


def test_capacity_by_hand(load):
    """Llama-2-70B keeps 2 x 80 x 8 x 128 x 2 bytes = 320 KiB a token; L1 is 8 x 12 GiB. Would catch needless copies."""
    capacity = explain(load(SAMPLE, at("1 /s")))["capacity"]
    assert capacity["kv_bytes_per_token"] == 327_680 and capacity["kv_copies"] == 1
    assert capacity["tiers"]["l1"] == {"bytes": 8 * 12 * 2**30, "blocks": 19660, "tokens": 314_560}
    assert capacity["tiers"]["l3"]["blocks"] == 4 * 64_000_000_000 * 2 // (16 * 327_680)


def test_copies_with_more_ranks_than_kv_heads(load):
    """16 ranks over 8 KV heads hold everything twice, and the reader is told."""
    found = explain(load(SAMPLE, at("1 /s"), "cluster.gpus.count=16", "cluster.gpus.tensor_parallel=16"))
    assert found["capacity"]["kv_copies"] == 2 and found["capacity"]["kv_bytes_per_token"] == 655_360
    assert any(text.startswith("every rank holds a copy: 16 ranks share 8 KV heads") for text in found["warnings"])


def test_path_and_its_bound(load):
    """Four links of 26.28 GB/s carry 105.12 GB/s raw, twice that when the GPU decompresses at ratio 2."""
    wide = "cluster.kv_pool.board.outstanding=inf"
    read = explain(load(SAMPLE, at("1 /s"), wide))["paths"]["read"]
    assert (read["bound"], read["outstanding_raw_bytes_per_s"]) == ("pool.link.read", None)
    assert read["raw_bytes_per_s"] == pytest.approx(4 * 26.28e9)
    raw = explain(load(SAMPLE, at("1 /s"), wide, "kv.codec.decompress_at=gpu"))["paths"]["read"]
    assert raw["raw_bytes_per_s"] == pytest.approx(2 * 4 * 26.28e9)


def test_bounds_by_hand(load):
    """Weights of 8 GPUs and 64 contexts of 1,100 tokens over 8 x 2039 GB/s; all of it is in L1, so no far bytes."""
    found = explain(load(SAMPLE, at("1 /s")))
    bounds, capacity = found["bounds"], found["capacity"]
    moved = 8 * capacity["weights_bytes_per_gpu"] + 64 * 1100 * 327_680
    assert bounds["decode_tokens_per_s"]["hbm"] == pytest.approx(64 / (moved / (8 * 2039e9)))
    assert bounds["decode_tokens_per_s"]["far_memory"] is None and bounds["far_tokens_per_step"] == 0
    assert bounds["expected"]["decode_tokens_per_s"] < bounds["decode_tokens_per_s"]["hbm"]


def test_far_bytes_bound_the_decode(load):
    """With L1 of 1 GiB a GPU, what exceeds L1 and L2 is read over the links each step."""
    bounds = explain(load(SAMPLE, at("1 /s", 3000), "kv.l1=1 GiB"))["bounds"]
    far = 64 * 3100 - (8 * 2**30 // (16 * 327_680)) * 16 - 8 * 3 * 2**30 / 327_680
    assert bounds["far_tokens_per_step"] == pytest.approx(far)
    assert bounds["decode_bound_by"] == "far_memory"


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        (at("500 /s"), "offered load exceeds capacity: 500 /s offered, at most "),
        ("model=llama-2-70b-mha", "hypothetical: llama-2-70b-mha"),
        ("cluster.gpus.calibrated=false", "step times may be off by 6 % (median), 15 % (p95)"),
        ("seed=1", "published claims, not measured: "),
        ("seed=2", "scheduler.host_overhead is 0 s"),
        (at("1 /s").replace(FIXED % 1000, WIDE), "% of the requests exceed max_context (4096 tokens)"),
    ],
)
def test_warnings(load, setting, said):
    """Each condition is said; a warning that is lost makes a doubtful number look sound."""
    settings = (setting,) if setting.startswith("workload") else (at("1 /s"), setting)
    assert any(said in text for text in explain(load(SAMPLE, *settings))["warnings"])


def test_a_calm_scenario_has_no_load_warning(load):
    """A warning that always shows is no warning."""
    text = " ".join(explain(load(SAMPLE, at("1 /s"), "scheduler.host_overhead=2 ms"))["warnings"])
    assert "offered load" not in text and "host_overhead" not in text and "copy" not in text


def test_gpu_only(load):
    """Without a pool there are no paths and no L3."""
    found = explain(load(SAMPLE, "cluster.kv_pool=none", "kv={}", "prefetch={}"))
    assert found["paths"] is None and list(found["capacity"]["tiers"]) == ["l1"]
    assert "Path" not in render(found)


def test_json_and_text(load):
    """JSON without infinity; every value with its source in the text, columns aligned."""
    found = explain(load(SAMPLE, at("1 /s")))
    json.dumps(found, allow_nan=False)
    text = render(found)
    assert [title for title in ("Warnings", "Capacity", "Bounds", "Values") if f"\n{title}\n" not in text] == []
    row = next(line for line in text.splitlines() if line.startswith("  kv.l1 "))
    assert row.split() == ["kv.l1", "12", "GiB", "mine.yaml:14"]
