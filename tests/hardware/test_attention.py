"""Attention: decode over the context sum, a batch with one long sequence, prompt pieces with and without a past."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.experiments.steptime import gpu_named
from simulator.hardware.attention import decode_attention, decode_imbalance, prefill_attention

GPU = replace(
    gpu_named("h100-80gb-sxm"), multiprocessors=10, peak_flops=1e15, memory_bandwidth=1e12, attention_bandwidth_efficiency=1.0,
    attention_sequence_bandwidth=1e10, attention_flops_efficiency=0.5, paged_attention_flops_efficiency=0.4,
    paged_attention_tile_efficiency=0.5,
)  # fmt: skip
MHA = (32.0, 32, 128, 2.0)
TOKEN = 2 * 128 * 2.0  # bytes of one token and KV head


def test_decode_reads_the_kv_of_the_context() -> None:
    """Catches query heads taken for KV heads: with 8 of 64 heads the time is an eighth of MHA's."""
    assert decode_attention(GPU, *MHA, 1000).memory_s == pytest.approx(32 * TOKEN * 1000 / 1e12)
    assert decode_attention(GPU, 64.0, 8, 128, 2.0, 1000).memory_s == pytest.approx(8 * TOKEN * 1000 / 1e12)


def test_equal_sequences_wait_for_nobody() -> None:
    """Catches a tail charged to a balanced batch: all blocks end together."""
    assert decode_imbalance(GPU, *MHA, [500] * 64) == 0.0


def test_one_long_sequence_by_hand() -> None:
    """63 of 100 tokens and one of 1100: 1000 tokens of 32 blocks at 10 GB/s each, less their share of the bandwidth.

    Catches an imbalance that forgets that the long sequence advanced while the others ran.
    """
    extra = decode_imbalance(GPU, *MHA, [100] * 63 + [1100])
    assert extra == pytest.approx(1000 * (TOKEN / 1e10 - 32 * TOKEN / 1e12))


def test_a_kernel_that_still_splits_is_balanced() -> None:
    """Two sequences of 32 heads are fewer than the 80 blocks of 10 SMs. Catches a penalty at small batch."""
    assert decode_imbalance(GPU, *MHA, [100, 10_000]) == 0.0


@given(st.lists(st.integers(1, 5000), min_size=3, max_size=40), st.integers(1, 100))
def test_imbalance_is_the_same_a_step_later(contexts: list[int], steps: int) -> None:
    """All sequences grow by a token a step, the gaps stay. Catches a term that would break runs of equal steps."""
    later = [context + steps for context in contexts]
    if len(contexts) * 32 * TOKEN / 1e12 >= TOKEN / 1e10:  # else the last blocks are alone from the start
        assert decode_imbalance(GPU, *MHA, later) == pytest.approx(decode_imbalance(GPU, *MHA, contexts), abs=1e-15)


def test_whole_prompt_does_the_causal_half_in_tiles() -> None:
    """256 tokens: tiles of 128 rows over 128 and 256 keys. Catches the full square and the exact triangle."""
    operator = prefill_attention(GPU, *MHA, [(256, 0)])
    assert operator.compute_s == pytest.approx(4 * 128 * 32 * 128 * (128 + 256) / 0.5e15)
    assert operator.flops == pytest.approx(4 * 128 * 32 * 256 * 257 / 2)


def test_a_short_chunk_over_a_long_past_leaves_sms_idle() -> None:
    """One tile of each of 2 heads on 10 SMs takes as long as one alone. Catches time proportional to FLOPs only."""
    narrow = prefill_attention(GPU, 2.0, 2, 128, 2.0, [(128, 10_000)])
    assert narrow.compute_s == pytest.approx(4 * 128 * 128 * 10_128 * 10 / 0.5e15)
    wide = prefill_attention(GPU, 64.0, 2, 128, 2.0, [(128, 10_000)])
    assert wide.compute_s == pytest.approx(4 * 128 * 64 * 128 * 10_128 / 0.4e15)


def test_pieces_share_one_kernel() -> None:
    """Two narrow chunks fill each other's idle SMs. Catches their times being added."""
    one = prefill_attention(GPU, 2.0, 2, 128, 2.0, [(128, 10_000)])
    two = prefill_attention(GPU, 2.0, 2, 128, 2.0, [(128, 10_000)] * 2)
    assert two.compute_s == one.compute_s
    assert two.bytes == 2 * one.bytes


def test_rows_are_padded() -> None:
    """A piece of one token costs a tile. Catches a chunk of few tokens for free."""
    compute = [prefill_attention(GPU, *MHA, [(tokens, 5000)]).compute_s for tokens in (1, 128)]
    assert compute[0] == pytest.approx(compute[1], rel=0.03)


def test_first_reads_in_one_kernel_by_hand() -> None:
    """Ten decodes beside a prompt of one token on 10 SMs, two KV heads of two query heads each.

    While all ten run, a token takes ten times its bytes at 1 TB/s, 5.12 ns, instead of the key's own 1 ns; the last 64 tokens
    of the longest run alone. Catches reads that overlap with what other heads compute, and a long tail charged for ten.
    """
    gpu = replace(
        GPU, attention_kernels="together", attention_tile=64, attention_block=0.0, l2_cache=1e12,
        peak_flops=4 * 128 * 64 * 10 * 1e9, paged_attention_flops_efficiency=1.0, paged_attention_tile_efficiency=1.0,
    )  # fmt: skip
    shape, contexts = (4.0, 2, 128, 2.0), [64_000] * 9 + [64_064]
    with_reads = prefill_attention(gpu, *shape, [(1, 0)], contexts=contexts)
    without = prefill_attention(replace(gpu, memory_bandwidth=1e15), *shape, [(1, 0)], contexts=contexts)
    extra = 2 / 10 * 64_000 * 10 * (10 * TOKEN / 1e12 - 1e-9)
    assert with_reads.compute_s - without.compute_s == pytest.approx(extra)


def test_first_reads_cost_nothing_where_hbm_keeps_up() -> None:
    """Few sequences ask for less than HBM gives. Catches a penalty on every decode beside a prompt."""
    gpu = replace(gpu_named("rtx-pro-6000"), attention_block=0.0)
    fast = replace(gpu, memory_bandwidth=1e15)
    for contexts, same in (([4000] * 8, True), ([4000] * 128, False)):
        seconds = [prefill_attention(one, 32.0, 8, 128, 2.0, [(16, 0)], contexts=contexts).compute_s for one in (gpu, fast)]
        assert (seconds[0] == seconds[1]) is same
