"""KV policies on models whose layers have a window of their own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from simulator.errors import InputError
from simulator.experiments.run import RunResult, run_scenario
from simulator.hardware.gpu import StepModel
from simulator.kvcache.geometry import geometry
from simulator.scenario import Scenario
from simulator.scheduler.policy_steps import PolicySteps
from tests.analytic.test_policy_runs import BASE

ALL = {"window": "700 tokens"}
SOME = {"window": "700 tokens", "full_layers": 5}
KIVI = "kv.hbm_codec={k_bits: 2, v_bits: 2, group: 32, meta_bits: 32}"  # 3 of 16 bits


def scenario(model: dict[str, Any], *settings: str) -> Scenario:
    return Scenario.from_dict(BASE | {"model": {"type": "llama-3.1-8b", **model}}, ".", set=settings)


def run(model: dict[str, Any], *settings: str) -> RunResult:
    return run_scenario(scenario(model, *settings), check=True)


@pytest.mark.parametrize("model", [ALL, SOME], ids=["all", "some"])
@pytest.mark.parametrize(
    "neutral",
    [
        "kv.hbm_codec={k_bits: 2, v_bits: 2, residual: '100000 tokens'}",
        "kv.retention={keep: 0.5, window: '100000 tokens'}",
        "kv.selection={kind: pages, tokens: '100000 tokens'}",
        "kv.loop={kind: parallel_workers, workers: 1, steps_scale: 1.0}",
    ],
)
def test_neutral_policies_are_the_windowed_model(model: dict[str, Any], neutral: str) -> None:
    """To the last bit, and block for block. Catches windows that a policy forgets, reads counted in shares of layers that are
    no binary fractions, blocks of a window counted without the one that it straddles."""
    plain, found = run(model), run(model, neutral)
    assert found.requests.finished_s.equals(plain.requests.finished_s) and found.requests.ttft_s.equals(plain.requests.ttft_s)
    assert found.summary["tiers"] == plain.summary["tiers"]


def test_a_codec_takes_its_part_of_a_window() -> None:
    """3/16 of what the window takes and of what it reads; of a model with full layers, of all. Catches a codec that undoes the
    window, or windows in the bytes that are kept where all layers share a block table."""
    for model, kept in ((ALL, 45 * 16), (SOME, 5000)):  # ceil(699/16) + 1 blocks
        sizes = geometry(scenario(model, KIVI).resolved)
        assert sizes.blocks(5000) == np.ceil(3 / 16 * kept / 16)
    for model, read in ((ALL, 700.0), (SOME, (27 * 700 + 5 * 5000) / 32)):
        resolved = scenario(model, KIVI).resolved
        steps, plain = PolicySteps(resolved), StepModel(resolved.model, resolved.gpus, 0.0)
        found = steps.unit_time(1) * steps.law.units(np.array([5000]))
        dense = plain.unit_time(1) * plain.reads_of([5000])
        assert dense == pytest.approx(32 * read * plain.attention_per_token)
        assert found == pytest.approx(3 / 16 * dense, rel=1e-5)


def test_retention_thins_out_a_window() -> None:
    """Half of all tokens beyond the newest 100: of a window of 700, 400 are left. Catches a window over what was kept, which
    would reach back twice as far as the model."""
    resolved = scenario(ALL, "kv.retention={keep: 0.5, window: 100 tokens}").resolved
    steps, plain = PolicySteps(resolved), StepModel(resolved.model, resolved.gpus, 0.0)
    found = steps.unit_time(1) * steps.law.units(np.array([5000]))
    assert found == pytest.approx(400 / 700 * plain.unit_time(1) * plain.reads_of([5000]), rel=1e-5)


def test_prompts_with_windows_by_their_pairs() -> None:
    """Whole prompts of 16,384 tokens, window 1,024: rows x keys against those of full attention, within the diagonal's tiles.

    Catches keys before a tile that are not multiplied: more FLOP/s than the GPU has.
    """
    model = {"window": "1024 tokens", "max_context": "32768 tokens"}
    for steps in (StepModel, PolicySteps):
        times = []
        for window in (model, {"max_context": "32768 tokens"}):
            resolved = scenario(window, KIVI).resolved
            made = PolicySteps(resolved) if steps is PolicySteps else StepModel(resolved.model, resolved.gpus, 0.0)
            times.append(made.prefill_attention([(16384, 0)]).time)
        pairs = 16384 * 1024 - 1024**2 / 2
        assert times[0] / times[1] == pytest.approx(pairs / (16384**2 / 2), rel=0.06)


def test_groups_may_not_read_more_than_the_model() -> None:
    """Catches a layout that gives full attention to layers that have a window; groups that keep less pass."""
    groups = "kv.layout.groups={{a: {{share: 0.5}}, b: {{share: 0.5, kind: window, window: {} tokens}}}}"
    with pytest.raises(InputError, match=r"a keeps more than the window .* in 50% of its layers, but only 5 of 32"):
        scenario(SOME, groups.format(700))
    half = {"window": "700 tokens", "full_layers": 16}
    with pytest.raises(InputError, match=r"a and b keep more than the window .* in 100% of its layers, but only 16 of 32"):
        scenario(half, groups.format(701))
    found = geometry(scenario(half, groups.format(256)).resolved)
    assert found.stored is not None and found.stored.at(5000) == 0.5 * 5000 + 0.5 * 256


def test_bits_count_from_the_elements_of_the_model() -> None:
    """2 bits + 32 bits of metadata for 32 elements of 8 bits take 3/8, and 16 bits beside 8 are raw. Catches a ratio that is
    always of 16 bits."""
    eight = geometry(scenario({"kv_bytes": 1}, KIVI).resolved)
    sixteen = geometry(scenario({}, KIVI).resolved)
    assert eight.stored is not None and sixteen.stored is not None
    assert (eight.stored.at(1000), sixteen.stored.at(1000)) == (375, 187.5)
    keys = geometry(scenario({"kv_bytes": 1}, "kv.hbm_codec.v_bits=4").resolved)
    assert keys.stored is not None and keys.stored.at(1000) == 750
