"""Every kind of model through the engine: a run of steps is its single steps, and all invariants hold."""

from __future__ import annotations

from typing import Any

import pytest

from tests.properties.small import blocks, draw, lasting, pool, same_requests, served

EXPERTS = {"model.experts": 8, "model.experts_per_token": 2, "model.expert_intermediate": 128, "model.dense_layers": 1}
LATENT = {"model.kv_latent": 96, "model.q_latent": 48, "model.rope_dim": 32}
PAIR = {"type": "a100-80gb-sxm", "count": 2}
KINDS: dict[str, dict[str, Any]] = {
    "experts": EXPERTS,
    "experts dealt out": EXPERTS | {"cluster.gpus": PAIR | {"expert_parallel": 2}},
    "experts shared with a peer": EXPERTS | {"cluster.gpus": {"type": "a100-80gb-sxm", "expert_parallel": 2}},
    "latent": LATENT,
    "latent on two ranks": LATENT | {"cluster.gpus": PAIR},
    "window": {"model.window": "40 tokens"},
    "window, tight": {"model.window": "40 tokens", "kv.blocks": 12},
    "window in some layers": {"model.window": "40 tokens", "model.full_layers": 1},
    "window with a pool": pool(l1=10, l3=60) | {"model.window": "40 tokens", "prefetch": {"predictor": "next_layer"}},
    "experts with a pool": pool(l1=10, l3=60) | EXPERTS | {"prefetch": {"predictor": "next_layer"}},
    "pipeline": {"cluster.gpus": PAIR | {"pipeline_parallel": 2}},
    "int4": {"model.weights": "int4", "model.weight_bytes": None, "model.kv_bytes": None, "model.kv": "int8"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_is_its_single_steps(kind: str) -> None:
    """Catches a law that is not linear between the ends of a run (window, bubbles), and tiers, tokens or parts of a step that
    do not add up for a kind of model."""
    rows = draw(3, 40)
    together, singly = served(KINDS[kind], rows), served(KINDS[kind], rows, coalesce=False)
    same_requests(together, singly)
    assert lasting(together.summary) == lasting(singly.summary)
    assert together.summary["requests"]["finished"] == 40


def test_a_window_keeps_no_more_than_its_blocks() -> None:
    """One request of 200 + 50 tokens, window 40 in blocks of 16: ceil(39/16) + 1 = 4 blocks at most, 16 without.

    Catches KV that is read but not freed, and a block too few for a window that straddles blocks.
    """
    row = [(0.0, 200, 50)]
    windowed, whole = served({"model.window": "40 tokens"}, row), served({}, row)
    size = float(blocks(1).split()[0])
    assert windowed.summary["tiers"]["l1"]["peak_bytes"] == 4 * size
    assert whole.summary["tiers"]["l1"]["peak_bytes"] == 16 * size


def test_a_window_that_is_never_reached_changes_nothing() -> None:
    """Identity. Catches a window that cuts runs or adds work where all contexts are shorter."""
    rows = draw(5, 30)
    one, other = served({}, rows), served({"model.window": "4096 tokens"}, rows)
    same_requests(one, other)


def test_more_experts_a_token_take_longer() -> None:
    """Metamorphic: 1, 2, 4, 8 of 8 experts. Catches a step that does not see the routing."""
    times = []
    for used in (1, 2, 4, 8):
        result = served(EXPERTS | {"model.experts_per_token": used}, draw(1, 20))
        times.append(result.summary["latency"]["tpot_s"]["mean"])
    assert times == sorted(times) and times[0] < times[-1]
