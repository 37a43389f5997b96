"""Matrix products: tiles, waves, the power limit, the part that does not overlap."""

from __future__ import annotations

from dataclasses import replace

import pytest

from analysis.calibration.menus import MENUS
from simulator.experiments.steptime import gpu_named
from simulator.hardware.gemm import TILE, TILES, gemm
from simulator.hardware.operator import Operator

WIDE = 50 * 64  # columns: 50 of the narrowest tiles; 100 tiles are one wave
GPU = replace(
    gpu_named("h100-80gb-sxm"), multiprocessors=100, peak_flops=1e12, memory_bandwidth=1e12, gemm_flops_efficiency=0.5,
    gemm_sustained_efficiency=0.25, gemm_bandwidth_efficiency=0.5, gemm_exposed=0.0,
    gemm_tail=1.0, gemm_wave=0.0, gemm_operand_bandwidth=1e30,
)  # fmt: skip


def test_bytes_and_flops() -> None:
    """By hand: 3 rows, 5 outputs, 7 inputs of fp8 weights. Catches activations counted once, weights in bf16."""
    product = gemm(GPU, "qkv", 3, 5, 7, 1.0)
    assert product.flops == 2 * 3 * 5 * 7
    assert product.bytes == 5 * 7 + 2 * 3 * (5 + 7)
    assert product.memory_s == product.bytes / 0.5e12


def test_rows_are_padded_to_tiles() -> None:
    """17 rows cost what 32 cost. Catches FLOPs taken for work: chunks that end between tiles would be too cheap."""
    around = (TILE, TILE + 1, 2 * TILE, 2 * TILE + 1)
    times = [gemm(GPU, "up", rows, WIDE, 64, 2.0, sustained=False).compute_s for rows in around]
    assert times[0] == pytest.approx(times[1] / 2)  # half a wave: K is split
    assert times[1] == times[2] < times[3]


def test_a_full_wave_runs_at_the_efficiency() -> None:
    """100 tiles on 100 SMs: executed = needed. Catches waves counted from the wrong side."""
    product = gemm(GPU, "up", 128, WIDE, 64, 2.0, sustained=False)
    assert product.compute_s == pytest.approx(product.flops / 0.5e12)


def test_power_limit_and_waste_do_not_add_up() -> None:
    """The longer of padded tiles at full clocks and FLOPs at the power limit. Catches their sum or product."""
    full = gemm(GPU, "up", 128, WIDE, 64, 2.0)
    assert full.compute_s == pytest.approx(full.flops / 0.25e12)
    tiny = gemm(GPU, "up", 1, WIDE, 64, 2.0)
    assert tiny.compute_s == gemm(GPU, "up", 1, WIDE, 64, 2.0, sustained=False).compute_s


def test_what_does_not_overlap() -> None:
    """max + share of min, on either side of the knee. Catches a knee that is sharp whatever `gemm_exposed` says."""
    assert Operator("x", 0.0, 0.0, 2.0, 1.0, 0.5).time == 2.5
    assert Operator("x", 0.0, 0.0, 1.0, 2.0, 0.5).time == 2.5
    assert Operator("x", 0.0, 0.0, 1.0, 2.0, 0.5).bound == "hbm"


def test_the_library_has_the_tiles_of_its_instructions() -> None:
    """960 columns of 64 rows on 5 SMs: tiles of 192 are one wave; without them, two waves of 128.

    Catches a menu that nobody asks.
    """
    one = 2 * 64 * 64 * 64 * 5 / 0.5e12  # s of a tile of 64 x 64 and 64 inputs
    gpu = replace(GPU, multiprocessors=5, gemm_wave=one)
    assert gemm(gpu, "up", 64, 960, 64, 2.0, sustained=False).compute_s == pytest.approx(3 * one + one)
    warp = gemm(replace(gpu, gemm_tiles="warp"), "up", 64, 960, 64, 2.0, sustained=False)
    assert warp.compute_s == pytest.approx(2 * (2 * one + one))
    assert set(MENUS) == set(TILES)
