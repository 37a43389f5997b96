"""The step model by hand: FLOPs and bytes of every operator, which side of the roofline it is on, how it grows."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.hardware.gpu import KERNELS_PER_HEAD, KERNELS_PER_LAYER, StepModel
from simulator.scenario import Scenario
from simulator.scenario.resolved import Gpu, Gpus, Model

SCENARIOS = Path(__file__).parents[2] / "scenarios"
LLAMA_2_7B = Model(
    name="llama-2-7b", layers=32, hidden=4096, heads=32, kv_heads=32, head_dim=128, intermediate=11008, vocab=32000,
    gated_mlp=True, max_context=4096, weight_bytes=2.0, kv_bytes=2.0,
)  # fmt: skip


@cache
def gpu() -> Gpu:
    """Round numbers: 100 TFLOP/s and 1 TB/s achieved, so that products turn at about 100 tokens."""
    real = Scenario.load(SCENARIOS / "gpu_only.yaml").resolved.gpus.gpu
    return replace(
        real, peak_flops=200e12, memory_bandwidth=2e12, gemm_flops_efficiency=0.5, gemm_bandwidth_efficiency=0.5,
        attention_flops_efficiency=0.25, attention_bandwidth_efficiency=0.75, launch=5e-6, all_reduce_latency=1e-5,
        all_reduce_bandwidth=1e11,
    )  # fmt: skip


def step_model(model: Model = LLAMA_2_7B, ranks: int = 1, host: float = 0.0) -> StepModel:
    return StepModel(model, Gpus(gpu(), ranks, ranks, 0.9, 0.0), host)


# rows x columns x inner of each product of one layer of llama-2-7b, for M tokens
PRODUCTS = {
    "qkv": (3 * 4096, 4096),
    "output_projection": (4096, 4096),
    "gate_up": (2 * 11008, 4096),
    "down": (4096, 11008),
}


@pytest.mark.parametrize("tokens", [1, 64, 512])
def test_products_of_llama_2_7b(tokens: int) -> None:
    """2 M n k FLOPs; weights once (2 n k bytes) and activations in and out (2 M (n + k) bytes).

    Would catch: K and V forgotten, one of the two MLP inputs forgotten, weights read once a token.
    """
    operators = {operator.name: operator for operator in step_model().layer_operators(tokens)}
    assert operators.keys() == {*PRODUCTS, "element_wise"}
    for name, (columns, inner) in PRODUCTS.items():
        assert operators[name].flops == 2 * tokens * columns * inner
        assert operators[name].bytes == 2 * columns * inner + 2 * tokens * (columns + inner)
        assert operators[name].compute_s == pytest.approx(operators[name].flops / 100e12)
        assert operators[name].memory_s == pytest.approx(operators[name].bytes / 1e12)
    assert sum(columns * inner for columns, inner in PRODUCTS.values()) == LLAMA_2_7B.layer_parameters - 2 * 4096


def test_parameters_of_llama_2_7b() -> None:
    """6,738,415,616 as published: 32 x 202,383,360 + 2 x 131,072,000 + 4,096."""
    assert LLAMA_2_7B.layer_parameters == 202_383_360
    assert LLAMA_2_7B.parameters == 6_738_415_616


def test_a_product_turns_where_its_intensity_is_that_of_the_gpu() -> None:
    """QKV: 2 M n k / 100e12 = (2 n k + 2 M (n + k)) / 1e12 at M = 103.4 for n = 12288, k = 4096.

    Would catch: efficiencies on the wrong side, a bound that does not change.
    """
    columns, inner = PRODUCTS["qkv"]
    turn = columns * inner / (columns * inner / 100 - (columns + inner))
    assert 103 < turn < 104
    model = step_model()
    assert model.layer_operators(103)[0].bound == "hbm"
    assert model.layer_operators(104)[0].bound == "compute"
    assert model.layer(1).compute == 0.0
    assert model.layer(4096).compute > 0.0 < model.layer(4096).hbm  # element-wise stays with HBM


def test_decode_attention_reads_the_cache_once() -> None:
    """1,000 tokens of context: 4 x 4096 x 1000 FLOPs, 2 x 4096 x 2 bytes x 1000 at 1.5 TB/s.

    Would catch: K only, a cache read by every query head of a group.
    """
    attention = step_model().decode_attention(1000)
    assert attention.flops == 4 * 4096 * 1000
    assert attention.bytes == 2 * 4096 * 2 * 1000
    assert attention.time == pytest.approx(16.384e6 / 1.5e12)
    assert step_model().attention_per_token == pytest.approx(attention.time / 1000)
    grouped = step_model(replace(LLAMA_2_7B, kv_heads=8)).decode_attention(1000)
    assert (grouped.flops, grouped.bytes) == (attention.flops, attention.bytes / 4)


def test_prefill_attention_is_causal() -> None:
    """A piece of 3 tokens after 10: 11 + 12 + 13 = 36 pairs of query and key; 13 tokens of K and V are read.

    Would catch: full attention within the piece, the past forgotten.
    """
    piece = step_model().prefill_attention(3, 10)
    assert piece.flops == 4 * 4096 * 36
    assert piece.bytes == 2 * 4096 * 2 * 13


@given(st.lists(st.integers(1, 700), min_size=1, max_size=6))
def test_pieces_of_a_prompt_compute_what_the_whole_does(pieces: list[int]) -> None:
    """FLOPs of chunked prefill add up to those of the whole prompt.

    Would catch: pairs counted twice or lost at the borders of pieces.
    """
    model, past, flops = step_model(), 0, 0.0
    for piece in pieces:
        flops += model.prefill_attention(piece, past).flops
        past += piece
    assert flops == pytest.approx(model.prefill_attention(past, 0).flops, rel=1e-12)


def test_ranks_divide_the_work_and_add_all_reduces() -> None:
    """4 ranks: a quarter of every product's FLOPs; two all-reduces of 10 us + 2 x 3/4 x 8 KiB x M / 100 GB/s.

    Would catch: replicated work, one all-reduce a layer, the ring factor forgotten.
    """
    one, four = step_model(), step_model(ranks=4)
    for single, part in zip(one.layer_operators(64), four.layer_operators(64)):
        assert part.flops == single.flops / 4
    assert one.layer(64).collective == 0.0
    assert four.layer(64).collective == pytest.approx(2 * (1e-5 + 1.5 * 64 * 4096 * 2 / 1e11))
    assert four.decode_attention(100).bytes == one.decode_attention(100).bytes / 4


def test_more_ranks_than_kv_heads_read_copies() -> None:
    """2 KV heads on 4 ranks: each reads one head, as on 2 ranks.

    Would catch: half a head a rank.
    """
    model = replace(LLAMA_2_7B, kv_heads=2)
    assert step_model(model, 4).decode_attention(100).bytes == step_model(model, 2).decode_attention(100).bytes


@pytest.mark.parametrize(("tokens", "rows"), [(1, 1), (64, 64), (700, 12), (500, 0)])
def test_a_step_is_host_layers_and_head(tokens: int, rows: int) -> None:
    """host + 32 x (operators + 9 launches) + (head of the rows + 4 launches); no head where no token is emitted.

    Would catch: a head for every prompt token, launches forgotten or counted once a step.
    """
    model = step_model(host=0.002)
    layer = sum(operator.time for operator in model.layer_operators(tokens)) + KERNELS_PER_LAYER * 5e-6
    head = 0.0
    if rows:
        flops, moved = 2 * rows * 32000 * 4096, 2 * 32000 * 4096 + 2 * rows * (32000 + 4096)
        head = max(flops / 100e12, moved / 1e12) + KERNELS_PER_HEAD * 5e-6
    assert model.layer(tokens).total == pytest.approx(layer)
    assert model.head(rows).total == pytest.approx(head)
    assert model.base(tokens, rows) == pytest.approx(0.002 + 32 * layer + head)


@given(st.integers(1, 3000), st.integers(1, 100), st.integers(1, 512), st.sampled_from([1, 2, 8]))
def test_more_tokens_take_longer(tokens: int, more: int, rows: int, ranks: int) -> None:
    """Monotone in tokens, rows, context and past; a step of M tokens is shorter than M steps of one.

    Would catch: a time that falls where the bound changes, a batch that saves nothing.
    """
    model = step_model(ranks=ranks)
    assert model.layer(tokens + more).total > model.layer(tokens).total
    assert model.head(rows + more).total > model.head(rows).total
    assert model.decode_attention(tokens + more).time > model.decode_attention(tokens).time
    assert model.prefill_attention(tokens, more).time > model.prefill_attention(tokens, 0).time
    assert model.layer(tokens + more).total <= model.layer(tokens).total + model.layer(more).total


def test_weights_of_a_rank() -> None:
    """Would catch: embedding or head left out, bytes of one format for another."""
    assert step_model(ranks=8).weights_per_rank == 6_738_415_616 * 2 / 8
    assert step_model(replace(LLAMA_2_7B, weight_bytes=1.0)).weights_per_rank == 6_738_415_616
