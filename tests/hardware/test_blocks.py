"""Thread blocks handed out in order, and how often KV is read that no cache keeps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator.hardware.blocks import makespan, missed, reads, swept


def test_one_block_more_than_sms_is_a_wave() -> None:
    """4 equal blocks on 4 SMs take one, 5 take two. Catches time proportional to the number of blocks."""
    assert makespan([3.0], 4, 4) == 3.0
    assert makespan([3.0], 5, 4) == 6.0


def test_blocks_go_to_the_first_free_sm_in_order() -> None:
    """By hand: 1, 1, 5 twice on two SMs. A: 1, then 5 until 6; B: 1, 1, 1, then 5 until 8.

    Catches blocks sorted by length, and blocks dealt out in turn whoever is free.
    """
    assert makespan([1.0, 1.0, 5.0], 2, 2) == 8.0


@given(st.lists(st.floats(0.1, 9.0), min_size=1, max_size=30), st.integers(1, 64), st.integers(1, 40))
def test_between_the_bounds_of_list_scheduling(head: list[float], heads: int, count: int) -> None:
    """No less than the work over the SMs; no more than that and one block (Graham). Catches lost or repeated heads."""
    even = sum(head) * heads / count
    assert even * (1 - 1e-9) <= makespan(head, heads, count) <= (even + max(head)) * (1 + 1e-9)


def test_query_heads_in_the_same_wave_read_once() -> None:
    """64 sequences, 4 heads a group, 128 SMs: two heads a wave, so two reads; MHA reads once whatever the wave.

    Catches a read for every query head. With sequences of unequal length the waves drift: 1 + 3 * 64 / 128.
    """
    assert reads(64, 32, 8, 128, equal=True) == pytest.approx(2.0)
    assert reads(64, 32, 8, 128, equal=False) == pytest.approx(2.5)
    assert reads(200, 32, 8, 128, equal=True) == 4.0
    assert reads(64, 32, 32, 128, equal=True) == 1.0


def test_what_fits_the_cache_is_read_once() -> None:
    """Catches second reads charged where all KV of a head is in L2, and hits where it is twice as large."""
    assert missed(10e6, 50e6) == 0.0
    assert missed(100e6, 50e6) == 1.0
    assert 0.0 < missed(50e6, 50e6) < 1.0


def test_a_circle_larger_than_the_cache_is_never_found() -> None:
    """Catches hits of weights that go round: the next one needed is the one evicted last but all others."""
    assert swept(30e6, 50e6) == 0.0
    assert swept(50e6, 50e6) == swept(51e6, 50e6) == 1.0
    assert 0.0 < swept(40e6, 50e6) < 1.0
