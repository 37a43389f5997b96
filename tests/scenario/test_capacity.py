"""How much KV fits, against published capacities and by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from simulator.experiments.explain import explain
from simulator.experiments.steptime import model_named
from simulator.kvcache.geometry import geometry
from simulator.scenario import Scenario
from simulator.scenario.capacity import ledger, profile_activations

WORK = {"synthetic": {
    "requests": 3, "arrivals": {"process": "at_once"}, "input": {"dist": "fixed", "tokens": "10 tokens"},
    "output": {"dist": "fixed", "tokens": "4 tokens"},
}}  # fmt: skip


def scenario(model: Any, gpus: dict[str, Any], **more: Any) -> Scenario:
    values = {"name": "x", "model": model, "cluster": {"gpus": gpus}, "workload": WORK, "scheduler": {"engine": "vllm-v1"}}
    return Scenario.from_dict(values | more, ".")


# most KV tokens after weights, A100-80GB, vLLM of 2023 (LLMServe/DistServe, profile data of its simulator)
REPORTED = [("opt-13b", 1, 66144), ("opt-13b", 2, 163008), ("opt-66b", 4, 78496)]


@pytest.mark.parametrize(("model", "ranks", "tokens"), REPORTED)
def test_capacities_that_engines_reported(model: str, ranks: int, tokens: int) -> None:
    """Within 2.5 %, with 0.95 of the memory (the source does not say; at 0.9 all three are 6 to 9 % low), 2560
    tokens and 256 sequences a step, the defaults of that time. Catches a nominal memory size (6 % less), weights on every
    rank, activations that grow with ranks."""
    gpus = {"type": "a100-80gb-sxm", "count": ranks, "memory_utilization": 0.95}
    steps = {"engine": "vllm-v1", "max_batch": 256, "token_budget": "2560 tokens"}
    sizes = geometry(scenario(model, gpus, scheduler=steps).resolved)
    assert sizes.l1_blocks * 16 == pytest.approx(tokens, rel=0.025)


@pytest.mark.parametrize(
    ("model", "gpus", "size"),
    [
        ("llama-3.1-8b", {}, 2 * 2**20),
        ("llama-3.1-70b", {"count": 4}, 1.25 * 2**20),
        ("qwen2.5-7b", {}, 0.875 * 2**20),
        ("llama-3.1-70b", {"count": 4, "pipeline_parallel": 4}, 1.25 * 2**20),
        ("deepseek-v3", {"count": 8}, 70272 * 16),
        ({"type": "llama-3.1-8b", "kv": "fp8"}, {}, 2**20),
    ],
)
def test_block_sizes(model: Any, gpus: dict[str, Any], size: float) -> None:
    """Bytes per GPU of a block of 16 tokens; the first three are in vLLM's published table. A latent is on every rank."""
    found = scenario(model, {"type": "b200-180gb"} | gpus).resolved
    assert found.block_bytes_per_gpu == size


def test_the_ledger_sums_to_the_capacity() -> None:
    """Memory, what is kept free, weights, activations, reserve and L2 leave what holds KV; its blocks are the engine's.

    Catches a line that is printed and not subtracted, or subtracted and not printed.
    """
    found = scenario("llama-3.1-8b", {"type": "h100-80gb-sxm"}).resolved
    lines = {line["item"]: line["bytes"] for line in ledger(found)}
    parts = ("memory", "kept free", "weights", "activations", "reserve", "l2")
    assert sum(lines[part] for part in parts) == pytest.approx(lines["left for KV"])
    assert lines["l1"] == pytest.approx(lines["left for KV"])
    assert lines["l1"] // lines["block"] == geometry(found).l1_blocks
    assert lines["activations"] == -profile_activations(found.model, 1, 2048, 64)
    assert f"{geometry(found).l1_blocks} blocks" in ledger(found)[-1]["how"]


def test_activations_by_hand() -> None:
    """Llama-3.1-8B, 2048 tokens, 256 sequences: 2048 x 2 x (4 x 4096 + 3 x 14336) + 256 x 128256 x 26 bytes = 1.1 GB."""
    found = profile_activations(model_named("llama-3.1-8b"), 1, 2048, 256)
    assert found == 2048 * 2 * (4 * 4096 + 3 * 14336) + 256 * 128256 * 26


def test_a_reported_count_of_blocks_wins() -> None:
    """Catches a count that is only printed, and a capacity check that refuses what did run."""
    given = scenario("llama-3.1-8b", {"type": "h100-80gb-sxm"}, kv={"blocks": 40_000})
    assert geometry(given.resolved).l1_blocks == 40_000
    found = explain(given)["capacity"]
    assert found["tiers"]["l1"]["blocks"] == 40_000 and "40000 blocks as given" in found["ledger"][-1]["how"]
    assert given.resolved.l1_per_gpu == 40_000 * 2 * 2**20


def test_stages_and_experts_share_the_weights() -> None:
    """Catches layers or experts counted on every GPU. DeepSeek-V3 in fp8 does not fit 8 x 80 GB, and does 8 x 141 GB."""
    one, two, experts = (
        scenario({"type": "deepseek-v3", "weights": "fp8"}, {"type": "h200-141gb-sxm", "count": 8} | more).resolved
        for more in ({}, {"tensor_parallel": 4, "pipeline_parallel": 2}, {"expert_parallel": 8})
    )
    assert one.weights_per_gpu == pytest.approx(671e9 / 8, rel=0.05)
    assert two.weights_per_gpu == pytest.approx(one.weights_per_gpu, rel=0.07)  # 31 MoE layers of 58
    assert experts.weights_per_gpu == one.weights_per_gpu
    cut = replace(one, gpus=replace(one.gpus, expert_parallel=16))
    assert one.weights_per_gpu - cut.weights_per_gpu == pytest.approx(58 * one.model.expert_parameters / 16)


@pytest.mark.parametrize(
    ("model", "gpus", "said"),
    [
        ("llama-2-7b", {"count": 4, "tensor_parallel": 2, "pipeline_parallel": 3}, "tensor_parallel 2 x pipeline_parallel 3"),
        ("llama-2-7b", {"expert_parallel": 2}, "the 0 routed experts of llama-2-7b cannot be dealt out over 2 GPUs"),
        ("mixtral-8x7b", {"count": 2, "expert_parallel": 3}, "the 8 routed experts of mixtral-8x7b cannot be dealt out"),
        ("mixtral-8x7b", {"count": 4, "expert_parallel": 2}, "no multiple of the 4 tensor-parallel ones"),
    ],
)
def test_parallelism_that_does_not_go_up(model: str, gpus: dict[str, Any], said: str) -> None:
    """Catches a division that is rounded in silence."""
    from simulator.errors import InputError

    with pytest.raises(InputError, match=said.replace("(", r"\(")):
        scenario(model, {"type": "b200-180gb"} | gpus)
