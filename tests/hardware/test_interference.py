"""What transfers cost the kernels beside them."""

from __future__ import annotations

from dataclasses import replace
from math import log

import pytest

from simulator import StepModel, step_model
from simulator.experiments.host_link import copy_engine_named
from simulator.hardware.interference import Beside, Interference, Traffic, at_full_clocks, beside, layer_seconds, tail
from simulator.scenario.resolved import Mover

ENGINE = copy_engine_named("h100-pcie-gen5")
DECODE = (8, 8 * 8192, ())
PROMPT = (2048, 0, ((2048, 0),))


def model() -> StepModel:
    return step_model("h100-80gb-sxm", "llama-2-7b")


def test_copies_take_bandwidth_by_their_cost() -> None:
    """A layer of decodes is all HBM but its launches and the exposed share of its arithmetic: with a cost c and a rate r it
    takes the share c r / (eta B) longer, to first order; two kinds of copies add up.

    Would catch: a cost that is not per byte, the efficiency forgotten, launches slowed."""
    whole = model()
    exposed = sum(one.exposed * one.compute_s for one in whole.layer_operators(DECODE[0]) if one.bound == "hbm")
    layer, other = layer_seconds(whole, *DECODE), 9 * whole.gpu.launch + exposed
    streaming = whole.gpu.gemm_bandwidth_efficiency * whole.gpu.memory_bandwidth
    lost = 50e9 * ENGINE.write_cost / streaming
    slow = Beside(whole, ENGINE, Traffic(written=50e9)).layer(*DECODE)
    assert slow - layer == pytest.approx((layer - other) * lost / (1 - lost), rel=0.01)
    both = Traffic(written=50e9, read=50e9)
    assert both.streaming(ENGINE) == pytest.approx(50e9 * (ENGINE.write_cost + ENGINE.read_cost))


def test_no_traffic_is_the_identity() -> None:
    """Would catch: rounding, a tail without blocks, SMs that get lost."""
    whole = model()
    assert beside(whole.gpu, ENGINE, Traffic()) == whole.gpu
    for step in (DECODE, PROMPT):
        assert Beside(whole, ENGINE, Traffic()).layer(*step) == layer_seconds(whole, *step)


def test_prompts_feel_sms_not_bytes() -> None:
    """Copies cost a prompt of 2048 tokens less than 2 %, decodes over 4 %; gather kernels cost both more, the more blocks.

    Would catch: interference as one factor for every step."""
    whole = model()

    def longer(step: tuple[int, int, tuple[tuple[int, int], ...]], traffic: Traffic) -> float:
        return Beside(whole, ENGINE, traffic).layer(*step) / layer_seconds(whole, *step) - 1

    copies = Traffic(written=54e9)
    assert longer(PROMPT, copies) < 0.02 < 0.04 < longer(DECODE, copies)
    for step in (DECODE, PROMPT):
        few, many = (longer(step, Traffic(gathered=47e9, blocks=blocks)) for blocks in (8, 32))
        assert longer(step, copies) < few < many


def test_attention_has_the_lesser_of_two_roofs() -> None:
    """With few blocks HBM bounds attention, with many the loads in flight of the SMs that are left.

    Would catch: both losses multiplied."""
    whole = model()
    engine = replace(ENGINE, gather_cost=4.0, gather_sms=1.0)
    for blocks in (1, 64):
        left = beside(whole.gpu, engine, Traffic(gathered=50e9, blocks=blocks))
        loads = 1 - blocks / whole.gpu.multiprocessors
        hbm = 1 - 200e9 / (whole.gpu.gemm_bandwidth_efficiency * whole.gpu.memory_bandwidth)
        rate = left.attention_bandwidth_efficiency * left.memory_bandwidth
        assert rate == pytest.approx(
            whole.gpu.attention_bandwidth_efficiency * whole.gpu.memory_bandwidth * min(loads, hbm), rel=1e-9
        )


def test_power_of_gather_blocks() -> None:
    """Where products run at the power limit, blocks that draw nothing leave the limit where it is, others lower it.

    Would catch: a limit that falls with the SMs whatever they draw."""
    whole = model()
    traffic = Traffic(gathered=1.0, blocks=8)
    free, dear = (
        Beside(whole, replace(ENGINE, gather_power=share, gather_tail=0.0), traffic).layer(*PROMPT) for share in (0.0, 1.0)
    )
    assert free < dear


def test_tail_of_compute_bound_products() -> None:
    """One tile of 128 x 256 of each compute-bound product that is in the way of blocks; none for decodes, which HBM bounds.

    By hand: 2 * 128 * 256 * (3 * 4096 + 11008) FLOPs on one of 132 SMs. Half of the products beside spare * ln 2 blocks, three
    quarters beside twice as many, all beside very many. Would catch: a tail that few blocks have in full, or that grows on.
    """
    whole = model()
    engine = replace(ENGINE, gather_tail=1.0, gather_spare=8 / log(2))
    flops = 2.0 * 128 * 256 * (3 * 4096 + 11008)
    by_hand = flops * 132 / (whole.gpu.gemm_flops_efficiency * whole.gpu.peak_flops)
    for blocks, share in ((0, 0.0), (8, 0.5), (16, 0.75), (10_000, 1.0)):
        assert tail(whole, engine, blocks, 2048) == pytest.approx(share * by_hand)
    assert tail(whole, engine, 8, 8) == 0.0


def test_what_a_layer_loses() -> None:
    """Shares of speed and seconds at full clocks: decodes have no power limit to save for, prompts have.

    Would catch: read and write exchanged, a boost without a limit."""
    whole = model()
    found = Interference(whole, Mover(ENGINE, "copy", 0), 54e9, 54e9)
    decode, prompt = found.slow(*DECODE), found.slow(*PROMPT)
    assert decode.reading > 2 * decode.writing > 0.0
    assert decode.boost == 0.0
    assert prompt.boost == layer_seconds(whole, *PROMPT) - layer_seconds(at_full_clocks(whole), *PROMPT) > 0.0
