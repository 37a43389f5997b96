"""The step model: its parts, its forms for one step and for a run, collectives and power."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest

from simulator.experiments.steptime import gpu_named, step_model, step_seconds, steptime
from simulator.hardware.collective import all_reduce
from simulator.hardware.power import computing_seconds, power, streaming_seconds

H100 = gpu_named("h100-80gb-sxm")


def test_operators_sum_to_the_step() -> None:
    """Catches an operator counted for one layer, a launch left out, an all-reduce missing: with and without TP."""
    for ranks in (1, 8):
        model = step_model("h100-80gb-sxm", "llama-2-70b", ranks)
        found = steptime(model, batch=16, context=1000, prefill=300, past=500)
        assert found["step_s"] == pytest.approx(step_seconds(model, [1000] * 16, [(300, 500)]), rel=1e-12)
        assert found["step_s"] == pytest.approx(sum(row["time_s"] for row in found["operators"]), rel=1e-12)


def test_decodes_and_pieces_have_a_kernel_each() -> None:
    """A mixed step launches one attention kernel more in each layer. Catches launches per step instead."""
    model = step_model("h100-80gb-sxm", "llama-2-7b")
    assert model.base(64, 64, 2) - model.base(64, 64) == pytest.approx(32 * H100.launch)


def test_only_a_step_that_emits_has_a_head() -> None:
    """Catches an LM head charged to a chunk in the middle of a prompt."""
    model = step_model("h100-80gb-sxm", "llama-2-7b", layers=2)
    assert model.base(64, 0) == pytest.approx(2 * model.layer(64).total)


def test_all_reduce_switches_protocol() -> None:
    """By hand on both sides of the switch. Catches the factor 2 (n - 1) / n, a switch the wrong way round."""
    gpu = replace(
        H100, all_reduce_switch=100.0, all_reduce_small_latency=1.0, all_reduce_small_bandwidth=10.0,
        all_reduce_latency=5.0, all_reduce_bandwidth=inf,
    )  # fmt: skip
    assert all_reduce(gpu, 4, 80.0) == 1.0 + 1.5 * 80 / 10
    assert all_reduce(gpu, 4, 100.0) == 5.0
    assert all_reduce(gpu, 1, 80.0) == 0.0


def test_power_between_idle_and_limit() -> None:
    """Full streaming draws `decode_power`, full compute the limit, both the limit, half the time half of it above idle.

    Catches power by phase, which made a step that waits for far memory draw as much as one that computes.
    """
    moved = 1.0 / streaming_seconds(H100, 1.0)  # bytes of one second
    flops = 1.0 / computing_seconds(H100, 1.0)
    assert power(H100, 1.0, 0.0, 0.0) == H100.idle_power
    assert power(H100, 1.0, moved, 0.0) == pytest.approx(H100.decode_power)
    assert power(H100, 2.0, moved, 0.0) == pytest.approx((H100.decode_power + H100.idle_power) / 2)
    assert power(H100, 1.0, moved, flops) == H100.prefill_power


def test_an_offloaded_decode_draws_what_was_measured() -> None:
    """Llama-2-7B, batch 8, context 2048, KV fetched over PCIe: 59.0, 24.6 and 6.43 steps/s drew 308, 206 and 151 W.

    From own H100 measurements that no fit used. Catches waiting GPUs that draw as if they were busy.
    """
    model = step_model("h100-80gb-sxm", "llama-2-7b")
    work = steptime(model, batch=8, context=2048)["operators"]
    moved, flops = (sum(row[what] for row in work) for what in ("bytes", "flops"))
    for rate, watts in ((58.99, 307.8), (24.57, 205.6), (6.43, 151.1)):
        assert model.power(1 / rate, moved, flops) == pytest.approx(watts, rel=0.08)


def test_load_is_the_work_of_the_operators() -> None:
    """The law that energy is computed from against the operators of one step. Catches a part counted twice or per layer."""
    model = step_model("h100-80gb-sxm", "llama-2-70b", 4)
    found = steptime(model, batch=16, context=1000)["operators"]
    work = [row for row in found if row["name"] != "all_reduce"]
    for kind, seconds, what in ((0, streaming_seconds, "bytes"), (1, computing_seconds, "flops")):
        parts = model.load(16, 16)[kind] + 16000 * model.unit_load()[kind]
        assert parts == pytest.approx(seconds(H100, sum(row[what] for row in work)), rel=1e-12)


@pytest.mark.parametrize("gpu", ["h100-80gb-sxm", "a100-80gb-sxm"])
def test_decodes_beside_a_prompt_are_counted_once(gpu: str) -> None:
    """Where each has a kernel, longer contexts cost a mixed step what they cost one of decodes alone.

    Catches decodes that are also taken into the kernel of the prompt: twice the attention.
    """
    model = step_model(gpu, "llama-3.1-8b")

    def longer(pieces: list[tuple[int, int]]) -> float:
        return step_seconds(model, [9000] * 64, pieces) - step_seconds(model, [1000] * 64, pieces)

    assert longer([(512, 1000)]) == pytest.approx(longer([]))
    operators = [
        {row["name"]: row["time_s"] for row in steptime(model, batch=batch, context=9000, prefill=512)["operators"]}
        for batch in (0, 64)
    ]
    assert operators[0]["prefill_attention"] == operators[1]["prefill_attention"]
