"""The step model of llama-2-7b by hand: work of every operator, which side of the roofline it is on, how a step grows.

Tiles and waves of one product are in `test_gemm.py`, kernels of attention in `test_attention.py`, the catalogue's numbers,
protocols of the all-reduce and power in `test_step_model.py`.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.experiments.steptime import gpu_named
from simulator.hardware.gpu import KERNELS_PER_HEAD, KERNELS_PER_LAYER, StepModel
from simulator.scenario.resolved import Gpu, Gpus, Model

LLAMA_2_7B = Model(
    name="llama-2-7b", layers=32, hidden=4096, heads=32, kv_heads=32, head_dim=128, intermediate=11008, vocab=32000,
    gated_mlp=True, max_context=4096, weight_bytes=2.0, kv_bytes=2.0,
)  # fmt: skip
SWITCH = 1e6  # bytes of an all-reduce: 122 tokens of llama-2-7b are below, 123 above
EXPOSED = 0.25


@cache
def gpu() -> Gpu:
    """Round numbers: tiles at 150 TFLOP/s, 100 at the power limit and 1 TB/s, so that products turn at about 100 tokens."""
    return replace(
        gpu_named("h100-80gb-sxm"), peak_flops=200e12, memory_bandwidth=2e12, multiprocessors=132,
        gemm_flops_efficiency=0.75, gemm_sustained_efficiency=0.5, gemm_bandwidth_efficiency=0.5, gemm_exposed=EXPOSED,
        gemm_tail=1.0, gemm_wave=0.0, gemm_operand_bandwidth=1e30, attention_block=0.0,
        elementwise_bandwidth_efficiency=0.4, attention_flops_efficiency=0.25, paged_attention_flops_efficiency=0.2,
        paged_attention_tile_efficiency=0.3, attention_bandwidth_efficiency=0.75, launch=5e-6, all_reduce_switch=SWITCH,
        all_reduce_latency=1e-5, all_reduce_bandwidth=1e11, all_reduce_small_latency=4e-6, all_reduce_small_bandwidth=4e10,
    )  # fmt: skip


def step_model(model: Model = LLAMA_2_7B, ranks: int = 1, host: float = 0.0, **values: float) -> StepModel:
    return StepModel(model, Gpus(replace(gpu(), **values), ranks, ranks, 0.9, 0.0), host)  # type: ignore[arg-type]


# outputs and inputs of each product of one layer of llama-2-7b
PRODUCTS = {
    "qkv": (3 * 4096, 4096),
    "output_projection": (4096, 4096),
    "gate_up": (2 * 11008, 4096),
    "down": (4096, 11008),
}
# tiles of 64 columns and 16, 32 or 64 rows that 132 SMs run, in parts of waves (halves, for 344 tiles eighths): for M <= 64
# (192, 64, 344, 64 needed) and for M = 512 (8 times that)
TILES = {
    1: {"qkv": 3 * 66, "output_projection": 66, "gate_up": 21 / 8 * 132, "down": 66},
    32: {"qkv": 3 * 66, "output_projection": 66, "gate_up": 21 / 8 * 132, "down": 66},
    512: {"qkv": 24 * 66, "output_projection": 8 * 66, "gate_up": 42 * 66, "down": 8 * 66},
}


@pytest.mark.parametrize("tokens", [1, 32, 512])
def test_products_of_llama_2_7b(tokens: int) -> None:
    """2 M n k FLOPs; weights once (2 n k bytes) and activations in and out (2 M (n + k) bytes).

    Seconds of compute are not FLOPs over a rate: of one token whole tiles of 16 rows at full clocks are longer, from 32 on the
    FLOPs at the power limit. Would catch: K and V forgotten, one of the two MLP inputs forgotten, weights read once a token,
    tiles counted of the wrong side of a product, the products of a step timed as if they ran alone.
    """
    operators = {operator.name: operator for operator in step_model().layer_operators(tokens)}
    assert operators.keys() == {*PRODUCTS, "element_wise"}
    for name, (columns, inner) in PRODUCTS.items():
        assert operators[name].flops == 2 * tokens * columns * inner
        assert operators[name].bytes == 2 * columns * inner + 2 * tokens * (columns + inner)
        tiles = TILES[tokens][name] * 2 * {1: 16, 32: 32, 512: 64}[tokens] * 64 * inner / 150e12
        limit = operators[name].flops / 100e12
        assert (tiles > limit) == (tokens == 1)
        assert operators[name].compute_s == pytest.approx(max(tiles, limit))
        assert operators[name].memory_s == pytest.approx(operators[name].bytes / 1e12)
        assert operators[name].exposed == EXPOSED
    assert sum(columns * inner for columns, inner in PRODUCTS.values()) == LLAMA_2_7B.layer_parameters - 2 * 4096


def test_element_wise_parts_stream_activations() -> None:
    """bf16 values a token: 8 x 4096 (norms, residuals), in and out of rotary 2 x 12288, gate and up in, product out 3 x 11008.

    180,736 bytes at 0.8 TB/s. Would catch: an activation of MLPs without a gate charged as one with, weights' bandwidth.
    """
    element_wise = step_model().layer_operators(10)[-1]
    assert (element_wise.flops, element_wise.bytes) == (0.0, 10 * 180_736)
    assert element_wise.time == pytest.approx(10 * 180_736 / 0.8e12)
    plain = step_model(replace(LLAMA_2_7B, gated_mlp=False)).layer_operators(10)
    assert plain[-1].bytes == 10 * (180_736 - 2 * 11008)
    assert plain[2].name == "up"
    assert plain[2].flops == 2 * 10 * 11008 * 4096


def test_parameters_of_llama_2_7b() -> None:
    """6,738,415,616 as published: 32 x 202,383,360 + 2 x 131,072,000 + 4,096."""
    assert LLAMA_2_7B.layer_parameters == 202_383_360
    assert LLAMA_2_7B.parameters == 6_738_415_616


def test_a_product_turns_where_its_intensity_is_that_of_the_gpu() -> None:
    """QKV: 2 M n k / 100e12 = (2 n k + 2 M (n + k)) / 1e12 at M = 103.4 for n = 12288, k = 4096.

    That holds at the power limit (112 rows of tiles at 150 TFLOP/s take less than 103 at 100). With tiles at 100 TFLOP/s
    as well they are the longer side, and the bound turns with the first row of the seventh band of 16 rows: 97.
    Would catch: efficiencies on the wrong side, a bound that does not change, a limit on top of the waste of tiles.
    """
    columns, inner = PRODUCTS["qkv"]
    turn = columns * inner / (columns * inner / 100 - (columns + inner))
    assert 103 < turn < 104
    model = step_model()
    assert [model.layer_operators(tokens)[0].bound for tokens in (65, 103, 104)] == ["hbm", "hbm", "compute"]
    tiled = step_model(gemm_flops_efficiency=0.5)
    assert [tiled.layer_operators(tokens)[0].bound for tokens in (96, 97, 104)] == ["hbm", "compute", "compute"]
    assert model.layer(1).compute == 0.0
    assert model.layer(4096).compute > 0.0 < model.layer(4096).hbm  # element-wise stays with HBM


def test_decode_attention_reads_the_cache_once() -> None:
    """1,000 tokens of context: 4 x 4096 x 1000 FLOPs, 2 x 4096 x 2 bytes x 1000 at 1.5 TB/s.

    With one KV head of 1-byte elements 16,384 FLOPs at 50 TFLOP/s take longer than 256 bytes. Would catch: K only, a cache
    read by every query head of a group, FLOPs that fall with KV heads, a time per token that is not the sum's.
    """
    attention = step_model().decode_attention(1000)
    assert attention.flops == 4 * 4096 * 1000
    assert attention.bytes == 2 * 4096 * 2 * 1000
    assert attention.time == pytest.approx(16.384e6 / 1.5e12)
    assert step_model().attention_per_token == pytest.approx(attention.time / 1000)
    assert not step_model().attention_is_compute
    grouped = step_model(replace(LLAMA_2_7B, kv_heads=8)).decode_attention(1000)
    assert (grouped.flops, grouped.bytes) == (attention.flops, attention.bytes / 4)
    one = step_model(replace(LLAMA_2_7B, kv_heads=1, kv_bytes=1.0))
    assert one.attention_is_compute
    assert one.attention_per_token == pytest.approx(16_384 / 50e12)


def test_prefill_attention_is_causal() -> None:
    """A piece of 3 tokens after 10: 11 + 12 + 13 = 36 pairs of query and key; 13 tokens of K and V are read.

    Would catch: full attention within the piece, the past forgotten.
    """
    piece = step_model().prefill_attention([(3, 10)])
    assert piece.flops == 4 * 4096 * 36
    assert piece.bytes == 2 * 4096 * 2 * 13


def cut(tokens: list[int]) -> list[tuple[int, int]]:
    """Pieces (tokens, past) of one prompt."""
    return [(take, sum(tokens[:index])) for index, take in enumerate(tokens)]


@given(st.lists(st.integers(1, 700), min_size=1, max_size=6))
def test_pieces_of_a_prompt_compute_what_the_whole_does(tokens: list[int]) -> None:
    """FLOPs of chunked prefill add up to those of the whole prompt, in steps of their own or in one.

    Every piece reads its past again. Seconds do not add up, see the next two tests, but no piece is faster than its FLOPs at
    the rate of its kernel.
    Would catch: pairs counted twice or lost at the borders of pieces, keys of a tile short of its diagonal.
    """
    model, pieces = step_model(), cut(tokens)
    found = [model.prefill_attention([piece]) for piece in pieces]
    whole = model.prefill_attention([(sum(tokens), 0)])
    assert sum(operator.flops for operator in found) == pytest.approx(whole.flops, rel=1e-12)
    assert model.prefill_attention(pieces).flops == pytest.approx(whole.flops, rel=1e-12)
    assert sum(operator.bytes for operator in found) == 2 * 4096 * 2 * sum(take + past for take, past in pieces)
    for (_, past), operator in zip(pieces, found):
        assert operator.compute_s >= operator.flops / (40e12 if past else 50e12)


@given(st.lists(st.integers(5, 12), min_size=1, max_size=6))
def test_pieces_of_whole_tiles_take_what_the_paged_kernel_takes(tiles: list[int]) -> None:
    """Cut between tiles of 128, pieces of 5 tiles or more: seconds of compute add up to those of the whole, kernel by kernel.

    The kernels differ by their efficiency (0.25 contiguous, for the piece without a past; 0.2 paged) and in nothing else:
    with 32 heads on 132 SMs a piece of n >= 5 tiles after p has sum(p + 1 .. p + n) * 32 / 0.2 > (p + n) * 132 / 0.3.
    Would catch: tiles counted from the start of the prompt, a past that is padded, a first piece taken for paged.
    """
    model, pieces = step_model(), cut([128 * count for count in tiles])
    prompt = (128 * sum(tiles), 0)
    paged = [model.prefill_attention([piece], paged=True).compute_s for piece in pieces]
    assert sum(paged) == pytest.approx(model.prefill_attention([prompt], paged=True).compute_s, rel=1e-12)
    assert model.prefill_attention([prompt], paged=True).compute_s == pytest.approx(
        model.prefill_attention([prompt]).compute_s * 0.25 / 0.2, rel=1e-12
    )
    chosen = [model.prefill_attention([piece]).compute_s for piece in pieces]
    assert chosen == pytest.approx([paged[0] * 0.2 / 0.25, *paged[1:]], rel=1e-12)


@given(st.lists(st.integers(1, 12), min_size=1, max_size=8))
def test_small_pieces_of_whole_tiles_take_longer(tiles: list[int]) -> None:
    """Pieces of few tiles leave SMs idle: never shorter than the whole; of one tile (132 / 0.3) / (32 / 0.2) = 2.75 times it.

    Only between tiles: a cut within one moves the diagonal, and 1 + 128 tokens run 1 + 129 keys of tiles, 129 run 128 + 129.
    Would catch: chunked prefill for free.
    """
    model = step_model()

    def seconds(pieces: list[tuple[int, int]]) -> float:
        return sum(model.prefill_attention([piece], paged=True).compute_s for piece in pieces)

    # a tile of all heads over 128 keys: 4 x 4096 x 128 x 128 FLOPs at 40 TFLOP/s
    work = 4 * 4096 * 128 * 128 / 40e12 * sum(range(1, sum(tiles) + 1))
    assert seconds(cut([128 * count for count in tiles])) >= work * (1 - 1e-12)
    assert seconds(cut([128] * sum(tiles))) == pytest.approx(2.75 * work)
    assert seconds([(1, 0), (128, 1)]) / seconds([(128, 0), (1, 128)]) == pytest.approx(130 / 257)


def test_ranks_divide_the_work_and_add_all_reduces() -> None:
    """4 ranks: a quarter of the FLOPs of products, head and attention; two all-reduces of 8 KiB a token and layer.

    64 tokens are below the switch of protocols: 4 us + 2 x 3/4 x bytes / 40 GB/s; 200 above: 10 us, 100 GB/s.
    Seconds are not a quarter: activations are read by every rank, and tiles come in waves.
    Would catch: replicated work, one all-reduce a layer, the ring factor forgotten, a message of one rank's share.
    """
    one, four = step_model(), step_model(ranks=4)
    for single, part in zip(one.layer_operators(64)[:-1], four.layer_operators(64)[:-1]):
        assert part.flops == single.flops / 4
    assert four.layer_operators(64)[-1].bytes == 64 * 2 * (8 * 4096 + (2 * 12288 + 3 * 11008) / 4)
    assert four.head_operator(64).flops == one.head_operator(64).flops / 4
    assert four.decode_attention(100).bytes == one.decode_attention(100).bytes / 4
    assert four.prefill_attention([(100, 50)]).flops == one.prefill_attention([(100, 50)]).flops / 4
    assert one.layer(64).collective == 0.0
    assert four.layer(64).collective == pytest.approx(2 * (4e-6 + 1.5 * 64 * 4096 * 2 / 4e10))
    assert four.layer(200).collective == pytest.approx(2 * (1e-5 + 1.5 * 200 * 4096 * 2 / 1e11))


def test_more_ranks_than_kv_heads_read_copies() -> None:
    """2 KV heads on 4 ranks: each reads one head, as on 2 ranks, and computes K and V of one besides its 8 query heads.

    Would catch: half a head a rank.
    """
    model = replace(LLAMA_2_7B, kv_heads=2)
    assert step_model(model, 4).decode_attention(100).bytes == step_model(model, 2).decode_attention(100).bytes
    assert step_model(model, 4).layer_operators(1)[0].flops == 2 * (8 + 2) * 128 * 4096


@pytest.mark.parametrize(("tokens", "rows", "ranks"), [(1, 1, 1), (64, 64, 1), (700, 12, 1), (300, 300, 1), (700, 12, 4)])
def test_a_step_is_host_layers_and_head(tokens: int, rows: int, ranks: int) -> None:
    """host + 32 x (operators + 9 launches + 2 all-reduces) + (head of the rows + 4 launches), each part max + 1/4 min.

    The head has 500 tiles a row of tiles, 23 sixths of a wave of 132; on 4 ranks 125, one wave. Sampling passes 10
    bytes a logit of the whole vocabulary (`test_sampler.py`). Of 64 rows and more the power limit is longer.
    Would catch: a head for every prompt token, launches forgotten or counted once a step, host a layer.
    """
    model = step_model(ranks=ranks, host=0.002)
    layer = 9 * 5e-6 + 2 * model.all_reduce(tokens)
    for operator in model.layer_operators(tokens):
        longer, shorter = max(operator.compute_s, operator.memory_s), min(operator.compute_s, operator.memory_s)
        layer += longer + EXPOSED * shorter  # element-wise parts have no shorter side
    columns = 32000 / ranks
    flops, moved = 2 * rows * columns * 4096, 2 * columns * 4096 + 2 * rows * (columns + 4096)
    tiles = 0.0 if rows >= 64 else {1: 23 / 6, 4: 1}[ranks] * 132 * 2 * 16 * 64 * 4096 / 150e12
    compute, memory = max(flops / 100e12, tiles), moved / 1e12
    sampling = model.sampling(rows).time
    assert model.sampling(rows).bytes == 10 * rows * 32000
    head = max(compute, memory) + EXPOSED * min(compute, memory) + sampling + 4 * 5e-6
    assert (KERNELS_PER_LAYER + 1, KERNELS_PER_HEAD) == (9, 4)
    assert model.layer(tokens).total == pytest.approx(layer)
    assert model.head(rows).total == pytest.approx(head)
    assert model.base(tokens, rows) == pytest.approx(0.002 + 32 * layer + head)


@given(st.integers(1, 3000), st.integers(1, 1000), st.integers(1, 512), st.sampled_from([1, 2, 8]))
def test_more_tokens_take_longer(tokens: int, more: int, rows: int, ranks: int) -> None:
    """Monotone in tokens, rows, context and past; a step of M tokens is shorter than M steps of one.

    Whole waves make the compute of a product a staircase: it never falls, and waves of a sum are no more than the sum of
    waves. Bytes rise with every token, and they count on either side of the knee (`gemm_exposed` > 0): so strictly.
    All-reduces are in it only where all of them use the same protocol: at the switch their time jumps, up or down as the
    constants of the catalogue say. Would catch: a time that falls where the bound changes, a batch that saves nothing.
    """
    model = step_model(ranks=ranks)

    def layer(count: int, collective: bool) -> float:
        return model.layer(count).total - (0.0 if collective else model.layer(count).collective)

    above = [count * 8192 >= SWITCH for count in (tokens, more, tokens + more)]
    assert layer(tokens + more, above[0] == above[2]) > layer(tokens, above[0] == above[2])
    same = len(set(above)) == 1
    assert layer(tokens + more, same) <= layer(tokens, same) + layer(more, same)
    for now, later in zip(model.layer_operators(tokens), model.layer_operators(tokens + more)):
        assert later.compute_s >= now.compute_s
        assert later.memory_s > now.memory_s
    assert model.head(rows + more).total > model.head(rows).total
    assert model.decode_attention(tokens + more).time > model.decode_attention(tokens).time
    for past in (0, rows):
        assert model.prefill_attention([(tokens, past + more)]).time > model.prefill_attention([(tokens, past)]).time
        assert model.prefill_attention([(tokens + more, past)]).time > model.prefill_attention([(tokens, past)]).time


@given(st.integers(8, 160), st.integers(0, 15), st.integers(0, 15))
def test_tokens_of_one_tile_of_rows_cost_bytes_only(tile: int, first: int, second: int) -> None:
    """With tiles no faster than the power limit, a token more within rows 16 tile + 1 .. 16 tile + 16 of a step costs

        a quarter of the bytes of products, 2 x 65,792 a token at 1 TB/s, and the element-wise 180,736 at 0.8 TB/s

    from 129 tokens on, where all products are bound by compute. Four tiles of rows more are the FLOPs of 64 tokens, within a
    half wave of each of the four products.
    Would catch: waves of FLOPs rather than of tiles, steps at some other multiple.
    """
    model = step_model(gemm_flops_efficiency=0.5)
    token = EXPOSED * 2 * 65_792 / 1e12 + 180_736 / 0.8e12
    start = 16 * tile + 1
    low, high = model.layer(start + first), model.layer(start + second)
    assert high.total - low.total == pytest.approx((second - first) * token, abs=1e-12)
    flops = 64 * 2 * sum(columns * inner for columns, inner in PRODUCTS.values()) / 100e12
    wave = 132 * 2 * 64 * 64 * (3 * 4096 + 11008) / 100e12
    rise = model.layer(start + 64).total - model.layer(start).total - 64 * token
    assert rise == pytest.approx(flops, abs=wave / 2)


def test_weights_of_a_rank() -> None:
    """Would catch: embedding or head left out, bytes of one format for another."""
    assert LLAMA_2_7B.weights_per_rank(8) == 6_738_415_616 * 2 / 8
    assert replace(LLAMA_2_7B, weight_bytes=1.0).weights_per_rank(1) == 6_738_415_616
