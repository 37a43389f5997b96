"""Runs of equal steps and single steps give the same bytes everywhere but in `simulation` (design 3.7)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.properties.small import ROOT, Rows, Settings, blocks, draw, lasting, pool, same_requests, served
from tests.properties.worlds import worlds

CASES: dict[str, dict[str, Any]] = {
    "gpu only": {},
    "gpu only, preemption": {"kv.l1": blocks(14), "scheduler.watermark": 0.0},
    "gpu only, static": {"scheduler.batching": "static"},
    "gpu only, static, preemption": {"scheduler.batching": "static", "kv.l1": blocks(14), "scheduler.watermark": 0.0},
    "gpu only, reserve full": {"scheduler.reserve": "full", "kv.l1": blocks(30)},
    "gpu only, asynchronous": {"scheduler.asynchronous": True},
    "gpu only, uneven contexts": {"cluster.gpus": "rtx-pro-6000", "scheduler.asynchronous": True},
    "gpu only, budget": {"kv.selection": {"kind": "budget", "tokens": "32 tokens"}},
    "pool, far pages come and go": pool(l1=24, l3=100, l2=4),
    "pool, lru": pool(l1=24, l3=100, l2=4) | {"kv.placement.eviction": "lru"},
    "pool, preemption": pool(l1=8, l3=8, l2=2) | {"scheduler.watermark": 0.0},
    "pool, static": pool(l1=20, l3=100, l2=4) | {"scheduler.batching": "static"},
    "pool, reserve full": pool(l1=16, l3=60, l2=4) | {"scheduler.reserve": "full"},
    "pool, budget": pool(l1=16, l3=60, l2=4) | {"kv.selection": {"kind": "budget", "tokens": "32 tokens"}},
    "pool, kv policies": pool(l1=9, l3=60, l2=4)
    | {
        "kv.layout.groups": {"all": {"share": 0.75}, "near": {"share": 0.25, "kind": "window", "window": "24 tokens"}},
        "kv.hbm_codec": {"k_bits": 8, "v_bits": 8, "residual": "20 tokens"},
        "kv.loop": {"kind": "speculative", "draft": 2, "acceptance": [0.7, 0.5], "draft_cost": 0.1},
    },
    "pool, codec, prefetch": pool(l1=16, l3=60, l2=4)
    | {"kv.codec": {"ratio": 2, "decompress_at": "gpu"}, "prefetch": {"predictor": "next_layer"}},
}


def both(settings: Settings, rows: Rows | None = None) -> dict[str, Any]:
    """The summary, after comparing it and the requests with those of single steps."""
    runs, single = served(settings, rows), served(settings, rows, coalesce=False)
    same_requests(runs, single)
    assert lasting(single.summary) == lasting(runs.summary)
    assert runs.summary["simulation"]["steps"] == single.summary["simulation"]["steps"]
    for name, column in runs.series.items():
        assert column.tobytes() == single.series[name].tobytes(), name
    summary: dict[str, Any] = runs.summary
    return summary


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("rate", [200.0, 20000.0], ids=["idle between", "all together"])
def test_runs_are_their_single_steps(case: str, rate: float):
    """Would catch: a run past an arrival, an end or the last free block; a clock that is start + n x mean; a context off by
    one inside a run; backlog that drains differently over a run than over its steps; occupancy located by run.
    """
    summary = both(CASES[case], draw(11, 30, rate, output=90))
    if "preemption" in case and rate > 1000:
        assert summary["requests"]["preemptions"] > 0
    if "pool" in case:
        assert summary["prefetch"]["asked"] > 0


@settings(max_examples=60)
@given(world=worlds())
def test_runs_are_their_single_steps_everywhere(world: tuple[dict[str, Any], Rows]):
    """Would catch: the same in corners that nobody thought of."""
    both(*world)


@settings(max_examples=40)
@given(seed=st.integers(0, 10**6), rate=st.sampled_from([50.0, 500.0, 5000.0]), room=st.integers(10, 60))
def test_long_decodes(seed: int, rate: float, room: int):
    """Would catch: the vectorised clock (long runs) off the sequential one (short runs) by one rounding."""
    both({"kv.l1": blocks(room)}, draw(seed, 8, rate, prompt=40, output=150))


def test_recorded_requests():
    """Would catch: a difference that needs thousands of steps, large contexts or eight ranks to show."""
    trace = {"path": str(ROOT / "traces" / "AzureLLMInferenceTrace_conv.csv.gz"), "limit": 60, "rate_scale": 1}
    kv = {"kv.l1": "0.05 GiB", "kv.l2": "0.05 GiB", "cluster.kv_pool.board": "agilex-7-speckv"}
    base = {"workload.trace": trace, "model": "llama-3.1-70b", "cluster.gpus": {"type": "a100-80gb-sxm", "count": 8}}
    both(base)
    summary = both(base | kv | {"cluster.kv_pool.link": "pcie-gen4-x16", "prefetch.predictor": "next_layer"})
    assert summary["prefetch"]["asked"] > 0


def test_a_long_decode_is_few_events():
    """One batch, 2,000 steps: an event an end, not a step.

    Would catch: coalescing silently switched off, a run that ends at every new block though there is room.
    """
    rows = [(0.0, 20, 2000), (0.0, 30, 1500), (0.0, 40, 1800)]
    simulation = served({}, rows)
    assert simulation.summary["simulation"]["steps"] == 2000
    assert simulation.summary["simulation"]["events"] <= 6


@pytest.mark.parametrize("rate", [2.0, 200.0, 20000.0])
@pytest.mark.parametrize("case", CASES)
def test_at_most_one_event_a_step(case: str, rate: float):
    """Events <= steps + idle periods, and an idle period needs an arrival that ends it.

    Would catch: polling, an event per request, page, layer or transfer.
    """
    rows = draw(12, 20, rate)
    simulation = served(CASES[case], rows).summary["simulation"]
    assert simulation["events"] <= simulation["steps"] + len(rows)
    single = served(CASES[case], rows, coalesce=False).summary["simulation"]
    assert single["steps"] <= single["events"] <= single["steps"] + len(rows)
