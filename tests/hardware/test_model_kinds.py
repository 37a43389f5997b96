"""Experts, latent attention, windows, precisions and pipelines by hand; one step told twice for every kind of model."""

from __future__ import annotations

from dataclasses import replace

import pytest

from simulator.experiments.steptime import gpu_named, model_named, step_model, step_seconds, steptime
from simulator.hardware.gemm import tiles_seconds
from simulator.hardware.gpu import StepModel
from simulator.hardware.moe import distinct_experts
from simulator.hardware.operator import Operator
from simulator.hardware.precision import conversion_seconds
from simulator.hardware.windows import cut_to_window

H100 = "h100-80gb-sxm"


def by_name(operators: list[Operator]) -> dict[str, Operator]:
    return {operator.name: operator for operator in operators}


def test_distinct_experts() -> None:
    """Two of eight: one token touches 2, two tokens 3.5 (the second finds each of its own new with 3/4), many all 8.

    Catches tokens * k, which is right for one token only.
    """
    assert distinct_experts(8, 2, 1) == pytest.approx(2)
    assert distinct_experts(8, 2, 2) == pytest.approx(3.5)
    assert distinct_experts(8, 2, 1000) == pytest.approx(8)


def test_experts_stream_what_is_touched_and_compute_what_is_routed() -> None:
    """Qwen3-30B-A3B, 16 tokens: 128 (1 - (15/16)^16) = 82.4 experts of 2 x 768 x 2048 x 2 bytes; 128 rows of FLOPs.

    Catches all experts read, the experts of one token read, FLOPs of all experts.
    """
    found = by_name(step_model(H100, "qwen3-30b-a3b").layer_operators(16))
    touched = 128 * (1 - (15 / 16) ** 16)
    gate_up = found["expert_gate_up"]
    assert gate_up.flops == 2 * 128 * 2048 * 1536
    assert gate_up.bytes == pytest.approx(touched * 2048 * 1536 * 2 + 128 * (2048 + 1536) * 2)
    assert found["expert_down"].flops == 2 * 128 * 2048 * 768
    assert found["router"].flops == 2 * 16 * 2048 * 128
    assert "gate_up" not in found and "shared_gate_up" not in found


def test_experts_share_waves_and_copy_nothing() -> None:
    """Tiles of all experts run side by side: 8 experts with 512 columns take as long as one product with 4096.

    Element-wise: activation (3 x 768) and one result of 2048 a row, one sum a token. Catches waves an expert, copies of inputs.
    """
    gpu = gpu_named(H100)
    assert tiles_seconds(gpu, 4, 512, 2048, groups=8) == tiles_seconds(gpu, 4, 4096, 2048)
    model = step_model(H100, "qwen3-30b-a3b")
    streamed = model.expert_block(16, 82)[-1].bytes
    assert streamed == 2 * (16 * 8 * (3 * 768 + 2048) + 16 * 2048)


def test_shared_experts_and_leading_dense_layers() -> None:
    """DeepSeek-V3: 3 layers with an MLP of 18432, 58 with a shared expert of 2048 beside 256 routed ones.

    Catches a shared expert that is routed, dense layers counted as MoE.
    """
    model = step_model(H100, "deepseek-v3", 8)
    assert model.kinds == [(3, False), (58, True)]
    dense, moe = (by_name(model.layer_operators(4, kind)) for kind in (False, True))
    assert dense["gate_up"].flops == 2 * 4 * 7168 * 2 * 18432 / 8
    assert moe["shared_gate_up"].flops == 2 * 4 * 7168 * 2 * 2048 / 8
    mean = model.layer(4)
    kinds = [model._one_layer(4, 1, kind).total for kind in (False, True)]
    assert mean.total == pytest.approx((3 * kinds[0] + 58 * kinds[1]) / 61)


def test_expert_parallel_halves_weights_and_exchanges_tokens() -> None:
    """Two replicas of 8 tokens each: every GPU has half of the experts that 16 tokens touch, and as many rows as alone.

    Catches experts of the own tokens only, rows of the whole group on one GPU, an exchange that costs nothing.
    """
    alone, half = step_model(H100, "qwen3-30b-a3b"), step_model(H100, "qwen3-30b-a3b", expert_parallel=2)
    one, two = (by_name(model.layer_operators(8)) for model in (alone, half))
    assert two["expert_down"].flops == one["expert_down"].flops
    assert half.touched_experts(8) == pytest.approx(alone.touched_experts(16))
    weights = two["expert_down"].bytes - 64 * (2048 + 768) * 2
    assert weights == pytest.approx(alone.touched_experts(16) / 2 * 2048 * 768 * 2)
    assert half.exchange(8) > 0 == alone.exchange(8)
    assert half.layer(8).collective == half.exchange(8)
    shape = alone.model
    routed = 48 * shape.expert_parameters * 2.0
    assert shape.weights_per_rank(1) - shape.weights_per_rank(1, 1, 2) == pytest.approx(routed / 2)


def test_experts_inside_a_tensor_parallel_group_need_no_exchange() -> None:
    """Every rank has all tokens: whole experts or slices of all, the same bytes and FLOPs a rank, two all-reduces.

    Catches an exchange where the all-reduce does it, tokens counted once per rank.
    """
    cut, dealt = (by_name(step_model(H100, "mixtral-8x7b", 4, expert_parallel=group).layer_operators(64)) for group in (1, 4))
    assert dealt["expert_gate_up"].flops == pytest.approx(cut["expert_gate_up"].flops)
    model = step_model(H100, "mixtral-8x7b", 4, expert_parallel=4)
    assert model.exchange(64) > 0 and model.layer(64).collective == 2 * model.all_reduce(64)


def test_latent_attention_reads_one_latent_for_all_heads() -> None:
    """DeepSeek-V3 at 8 ranks: 16 heads x 2 x (576 + 512) FLOPs and 576 x 2 bytes a context token.

    Prompts: 2 x (192 + 128) FLOPs a head and pair. Catches a latent cut over ranks, K and V both read, absorbed prefill.
    """
    model = step_model(H100, "deepseek-v3", 8)
    decode = model.decode_attention(1000)
    assert decode.flops == pytest.approx(1000 * 16 * 2 * (576 + 512))
    assert decode.bytes == pytest.approx(1000 * 576 * 2)
    assert model.prefill_attention([(3, 0)]).flops == pytest.approx(6 * 16 * 2 * (192 + 128))
    chunk = model.prefill_attention([(128, 1024)])
    expanded = model._kinds.expansion(1024)
    assert chunk.flops == pytest.approx((128 * 1024 + 128 * 129 / 2) * 16 * 640 + expanded.flops)
    assert expanded.flops == 2 * 1024 * 512 * 16 * 256
    assert model.model.kv_copies(8) == 8 and model.model.kv_elements(8) == 576


@pytest.mark.parametrize("pieces", [[(300, 0)], [(1000, 0)], [(700, 5000)], [(100, 450), (1, 3)], [(513, 511)]])
def test_windowed_prompts_against_a_count_of_pairs(pieces: list[tuple[int, int]]) -> None:
    """Window 512: row i attends min(i, 512) keys, counted row by row; tiles may add half a pair a row.

    Catches a window on the whole piece instead of on its rows, rows before the window cut.
    """
    window = 512
    pairs = sum(min(past + row, window) for tokens, past in pieces for row in range(1, tokens + 1))
    rows = sum(tokens for tokens, _ in pieces)
    cut, read = cut_to_window(pieces, window)
    assert sum(tokens for tokens, _ in cut) == rows
    counted = sum(tokens * past + tokens * (tokens + 1) / 2 for tokens, past in cut)
    assert abs(counted - pairs) <= rows
    assert read == sum(min(past, window) + tokens for tokens, past in pieces)


def test_windows_bound_what_is_read() -> None:
    """Mistral (4096): decodes of 1000 and 9000 read 5096. Of two layers one windowed: 10000 + 5096 units of one layer.

    Catches a window on the sum of the contexts, a mean taken as a minimum.
    """
    mistral = step_model(H100, "mistral-7b")
    assert mistral.reads_of([1000, 9000]) == 5096
    mixed = StepModel(replace(mistral.model, layers=2, full_layers=1), _gpus(1), 0.0)
    assert (mixed.units, mixed.reads_of([1000, 9000])) == (1, 15096)
    assert mixed.unit_time(2) * 15096 == pytest.approx(mixed.attention_per_token * (10000 + 5096))
    whole, short = (step_model(H100, name).prefill_attention([(8192, 0)]) for name in ("llama-3-8b", "mistral-7b"))
    assert short.flops == pytest.approx(whole.flops * 0.75, rel=1e-3)  # w n - w^2/2 of n^2/2, w = n/2


def _gpus(ranks: int, stages: int = 1):  # type: ignore[no-untyped-def]
    from simulator.scenario.resolved import Gpus

    return Gpus(gpu_named(H100, max(ranks, 2)), ranks * stages, ranks, 0.9, 0.0, pipeline_parallel=stages)


def test_precisions() -> None:
    """fp8 on H100: half the bytes, twice the rate. On A100 it is converted: bf16's rate and a conversion a tile of rows.

    int4: 0.516 bytes a weight, converted everywhere; the LM head stays in 16 bits. Catches a quantised head, a conversion
    once a row, a rate that the GPU does not have.
    """
    wide, narrow = (step_model(H100, "llama-3.1-8b", weights=name) for name in ("bf16", "fp8"))
    one, two = (model.layer_operators(4096)[2] for model in (wide, narrow))
    assert two.compute_s == pytest.approx(one.compute_s * 989 / 1979)
    assert one.bytes - two.bytes == 4096 * 2 * 14336
    assert narrow.head_operator(1) == wide.head_operator(1)
    old = step_model("a100-80gb-sxm", "llama-3.1-8b", weights="fp8")
    plain = step_model("a100-80gb-sxm", "llama-3.1-8b")
    convert = conversion_seconds(old.gpu, "fp8", 4096, 2 * 14336, 4096)
    assert convert == pytest.approx(64 * 2 * 14336 * 4096 / (108 * 128 * 1.5e9))
    assert old.layer_operators(4096)[2].compute_s == pytest.approx(plain.layer_operators(4096)[2].compute_s + convert)
    packed = step_model(H100, "llama-3.1-8b", weights="int4", kv="fp8")
    assert packed.layer_operators(1)[2].bytes == pytest.approx(2 * 14336 * 4096 * 0.515625 + (2 * 14336 + 4096) * 2)
    assert packed.decode_attention(10).bytes == wide.decode_attention(10).bytes / 2


def test_pipeline_is_a_cycle_of_micro_batches() -> None:
    """Two stages of 40 layers, 32 decodes: 2 (40 layer(16) + head(16) + send(16)); one decode leaves a stage idle.

    Catches a step of half the latency, stages that all have a head, a batch that is not cut, free sends.
    """
    model, whole = step_model(H100, "llama-2-70b", 2, pipeline_parallel=2), step_model(H100, "llama-2-70b", 2)
    expected = 2 * (40 * whole.layer(16).total + whole.head(16).total + model.send(16))
    assert model.base(32, 32) == pytest.approx(expected)
    assert model.unit_time(32) == pytest.approx(whole.unit_time(32) / 2)
    assert model.base(1, 1) == pytest.approx(whole.base(1, 1) + whole.head(1).total + 2 * model.send(1))
    assert model.unit_time(1) == pytest.approx(whole.unit_time(1))
    found = steptime(model, batch=1)["operators"]
    bubble = next(row["time_s"] for row in found if row["name"] == "bubble")
    assert bubble == pytest.approx(sum(row["time_s"] for row in found) / 2)
    assert model.send(16) > 0 == whole.send(16)
    shape = model.model
    assert shape.weights_per_rank(2, 2) == pytest.approx((40 * shape.layer_parameters + 32000 * 8192) * 2 / 2)


KINDS = [
    ("llama-2-70b", {"tensor_parallel": 4}), ("mistral-7b", {}),
    ("qwen3-30b-a3b", {}), ("mixtral-8x7b", {"tensor_parallel": 2}),
    ("qwen3-30b-a3b", {"expert_parallel": 2}), ("deepseek-v3", {"tensor_parallel": 8}), ("falcon-180b", {"tensor_parallel": 8}),
    ("llama-2-70b", {"tensor_parallel": 2, "pipeline_parallel": 4}), ("deepseek-v3", {"pipeline_parallel": 8}),
    ("llama-3.1-8b", {"weights": "int4", "kv": "int8"}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "more"), KINDS)
@pytest.mark.parametrize(
    "work", [{"batch": 7, "context": 6000}, {"batch": 1}, {"prefill": 600, "past": 5000}, {"batch": 8, "prefill": 8192}]
)
def test_the_parts_of_a_step_are_the_step(name: str, more: dict[str, int], work: dict[str, int]) -> None:
    """Operators sum to `step_s`, and the engine's own expression of the same step says the same. Catches a kind of layer,
    collective or kernel that only one of the two knows."""
    model = step_model(H100, name, **more)  # type: ignore[arg-type]
    found = steptime(model, **{"context": 1024, **work})
    assert found["step_s"] == pytest.approx(sum(row["time_s"] for row in found["operators"]))
    assert all(row["time_s"] >= 0 and row["flops"] >= 0 and row["bytes"] >= 0 for row in found["operators"])
    contexts = [work.get("context", 1024)] * work.get("batch", 0)
    pieces = [(work["prefill"], work.get("past", 0))] if "prefill" in work else []
    assert step_seconds(model, contexts, pieces) == pytest.approx(found["step_s"], rel=1e-9)


def test_power_is_drawn_by_what_is_touched() -> None:
    """The law of energy against the operators of a MoE step. Catches a load that is linear in the tokens."""
    model = step_model(H100, "qwen3-30b-a3b")
    for tokens in (1, 16, 64):
        rows = steptime(model, batch=tokens, context=500)["operators"]
        moved = sum(row["bytes"] for row in rows) / (model.gpu.gemm_bandwidth_efficiency * model.gpu.memory_bandwidth)
        assert model.load(tokens, tokens)[0] + 500 * tokens * model.unit_load()[0] == pytest.approx(moved)


def test_neutral_values_are_a_dense_model() -> None:
    """One expert that every token uses is the MLP; a window longer than the context is none. Catches an offset in either."""
    dense = model_named("llama-3.1-8b")
    moe = replace(dense, experts=1, experts_per_token=1, expert_intermediate=dense.intermediate)
    assert moe.parameters == dense.parameters + 32 * 4096  # the router
    one, other = (by_name(StepModel(shape, _gpus(1), 0.0).layer_operators(100)) for shape in (dense, moe))
    assert other["expert_down"].bytes == one["down"].bytes and other["expert_down"].flops == one["down"].flops
    wide = StepModel(replace(dense, window=100_000), _gpus(1), 0.0)
    assert wide.prefill_attention([(500, 700)]) == StepModel(dense, _gpus(1), 0.0).prefill_attention([(500, 700)])
