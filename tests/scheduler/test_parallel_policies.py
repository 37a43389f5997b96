"""KV policies over pipeline stages, and on replicas that step together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from simulator.errors import InputError
from simulator.experiments.run import run_scenario
from simulator.experiments.simulation import Simulation
from simulator.hardware.gpu import StepModel
from simulator.hardware.operator import Parts
from simulator.kvcache.geometry import geometry
from simulator.scenario import Scenario
from simulator.scheduler.policy_steps import PolicySteps
from simulator.scheduler.saturation import Saturated
from tests.analytic.test_policy_runs import BASE, scenario
from tests.properties.small import Rows, draw, requests, same_requests, served
from tests.scheduler.test_lockstep import MOE, ONE
from tests.scheduler.test_lockstep import scenario as small

PIPES = {1: 1, 2: 2, 3: 3}  # stages -> GPUs; 32 layers over 3 stages are 11, 11, 10
NEUTRAL = "kv.hbm_codec={k_bits: 2, v_bits: 2, residual: '100000 tokens'}"
KIVI = "kv.hbm_codec={k_bits: 2, v_bits: 2, group: 32, meta_bits: 32, residual: 128 tokens}"
DRAFTED = "kv.loop={kind: speculative, draft: 3, acceptance: 0.8, draft_cost: 0.1}"
ELSEWHERE = "kv.placement.compute={at: near_data, memory: 100 GB, bandwidth: 10 GB/s, link: 20 GB/s, devices: 2}"


def piped(stages: int, *settings: str) -> Scenario:
    gpus = {"type": "h100-80gb-sxm", "count": stages, "pipeline_parallel": stages}
    return Scenario.from_dict(BASE | {"cluster": {"gpus": gpus}}, ".", set=settings)


def models(stages: int, *settings: str) -> tuple[PolicySteps, StepModel]:
    """With policies, and the step model of the same GPUs without."""
    resolved = piped(stages, *settings).resolved
    spec = resolved.scheduler
    return PolicySteps(resolved), StepModel(resolved.model, resolved.gpus, spec.host_overhead, spec.host_per_sequence)


def decode(steps: PolicySteps, batch: int, context: int) -> float:
    return steps.base(batch, batch) + steps.unit_time(batch) * steps.law.units(np.full(batch, context))


@pytest.mark.parametrize("stages", [2, 3])
def test_neutral_policies_are_the_pipeline(stages: int) -> None:
    """To the last bit. Catches stages that policies forget, a KV cache counted over all layers of the model."""
    plain, found = (run_scenario(piped(stages, *more), check=True) for more in ((), (NEUTRAL,)))
    assert found.requests.finished_s.equals(plain.requests.finished_s) and found.requests.ttft_s.equals(plain.requests.ttft_s)
    assert found.summary["tiers"] == plain.summary["tiers"]


@pytest.mark.parametrize("stages", PIPES)
@pytest.mark.parametrize(("tokens", "rows", "kernels"), [(1, 1, 1), (16, 16, 1), (2000, 17, 2), (512, 1, 1)])
def test_a_plain_pass_is_the_step_model_s(stages: int, tokens: int, rows: int, kernels: int) -> None:
    """One pass over one token a sequence, all layers each time, in the general form. Catches micro-batches counted in what a
    pass computes, sends or heads left out."""
    steps, plain = models(stages, NEUTRAL)
    found, expected = steps._parts(tokens, rows, kernels), plain.parts(tokens, rows, kernels)
    for part in ("compute", "hbm", "collective", "launch"):
        assert getattr(found, part) == pytest.approx(getattr(expected, part), rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("stages", PIPES)
def test_speculation_in_a_pipeline_by_hand(stages: int) -> None:
    """Six sequences in micro-batches of 6/p, each pass over 4 tokens of each, 3 drafts of 0.1 steps, 2.952 tokens a pass.
    Catches the four tokens of one sequence dealt out over the micro-batches."""
    steps, plain = models(stages, DRAFTED)
    each, layers = 6 // stages, stages * -(-32 // stages)

    def once(tokens: int) -> float:
        layer, head = plain.layer(tokens).total, plain.head(tokens).total
        return layers * layer + stages * (head + plain.send(tokens))

    context = layers * plain.attention_per_token * 6 * 1000 / stages
    expected = (once(4 * each) + context + 0.3 * (once(each) + context)) / 2.952
    assert decode(steps, 6, 1000) - steps.host_time(6) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("stages", [2, 4])
def test_attention_elsewhere_has_the_same_devices_however_many_stages(stages: int) -> None:
    """A full pipeline reads all KV once at the rate of all devices, and sends all rows over one link. Catches stages that each
    have all devices to themselves: more bytes a second than those deliver."""
    steps, plain = models(stages, ELSEWHERE)
    per_token = 32 * 2 * 8 * 128 * 2
    assert steps.unit_time(8) * steps.law.units(np.full(8, 4096)) == pytest.approx(8 * 4096 * per_token / 20e9)
    rows = 32 * 8 * 2 * (2 * 32 * 128 + 2 * 8 * 128) / 20e9
    assert steps.base(8, 8) - plain.base(8, 8) == pytest.approx(rows, rel=1e-6)
    prompt = steps.passes(2048) * (steps.prefill_attention([(2048, 0)]).time - plain.prefill_attention([(2048, 0)]).time)
    assert prompt == pytest.approx(2048 * per_token / 20e9)


def test_a_pipeline_holds_what_its_stages_hold() -> None:
    """KIVI on three stages: as many blocks of memory, each with more tokens. Catches memory of stages that a policy counts
    another way than the model."""
    plain, found = geometry(piped(3).resolved), geometry(piped(3, KIVI).resolved)
    assert found.l1_blocks == plain.l1_blocks
    assert found.blocks(16000) == np.ceil((128 + 0.1875 * (16000 - 128)) / 16)


# replicas in lock step

PAIR = {"workload.synthetic": ONE} | MOE
CODEC = {"kv.hbm_codec": {"k_bits": 2, "v_bits": 2, "group": 32, "meta_bits": 32, "residual": "32 tokens"}}
LOOP = {"kv.loop": {"kind": "speculative", "draft": 3, "acceptance": 0.8, "draft_cost": 0.1}}
POLICIES: dict[str, dict[str, Any]] = {
    "codec": CODEC,
    "speculative": LOOP,
    "blocks": {"kv.layout.groups": {"one": {"share": 0.5}, "other": {"share": 0.5, "run_every": 4}}},
    "retention": {"kv.retention": {"keep": 0.5, "prompt_scale": 0.5, "pre_cost": 0.2, "when": "prefill_end"}},
    "read once": {"kv.sharing": {"kind": "prefix", "read": "once"}},
}


def lockstep(settings: dict[str, Any], rows: Rows) -> Simulation:
    found = Simulation(small(PAIR | settings).resolved, requests(rows), check=True)
    found.run()
    return found


def test_neutral_policies_are_the_lock_step() -> None:
    """To the last bit, with a replica idle at times. Catches shared experts that policies forget."""
    rows = draw(7, 40)
    neutral = {"kv.retention": {"keep": 0.5, "window": "100000 tokens"}}
    same_requests(served(MOE, rows), served(MOE | neutral, rows))


@pytest.mark.parametrize("policy", POLICIES)
def test_policies_in_lock_step_end_all_requests(policy: str) -> None:
    """All invariants under every kind of policy. Catches memory of two replicas in one account, tokens that are lost."""
    found = served(MOE | POLICIES[policy], draw(3, 40))
    assert found.summary["requests"]["finished"] == 40


def parts_of(found: Parts) -> list[float]:
    return [found.compute, found.hbm, found.collective, found.launch]


def test_a_plain_pass_is_the_step_model_s_in_lock_step() -> None:
    """The general form with one pass over one token of each against `shared_parts`. Catches experts of one replica only."""
    resolved = small(PAIR | CODEC).resolved
    steps, plain = PolicySteps(resolved), StepModel(resolved.model, resolved.gpus, 0.0)
    found = steps._parts(200, 1, 1, (0.0, 0.0, 100.5))
    general = steps._parts(40, 40, 1, (30.0, 30.0, 30.0))
    assert parts_of(general) == pytest.approx(parts_of(plain.shared_parts(40, 40, 1, (30.0,))), rel=1e-12)
    expected = plain.shared_parts(200, 1, 1, (100.5,))
    assert steps.shared_parts(200, 1, 1, (100.5,)).total == pytest.approx(expected.total, rel=1e-12)
    assert found.total == pytest.approx(expected.total, rel=1e-12)


def test_every_pass_of_drafts_is_shared() -> None:
    """One replica drafts for 8 sequences, the other idles on one token: passes over (32 + 4)/2 tokens of the mean replica,
    drafts over (8 + 1)/2. Catches a mean over what the step gives out instead of what a pass computes."""
    resolved = small(PAIR | LOOP).resolved
    steps, plain = PolicySteps(resolved), StepModel(resolved.model, resolved.gpus, 0.0)
    means = steps.mean_tokens([(8, 8), (1, 1)])
    assert means == (18.0, 4.5, 18.0)
    one, draft = plain.shared_parts(32, 32, 1, (18.0,)).total, plain.shared_parts(8, 8, 1, (4.5,)).total
    assert steps.shared_parts(8, 8, 1, means).total == pytest.approx((one + 0.3 * draft) / 2.952, rel=1e-12)
    busy = lockstep(LOOP, [(0.0, 8, 30)]).recorder.given.arrays()
    assert busy["collective"].min() > 0.0 and len(busy["duration"]) == 30


def test_saturation_reads_what_policies_read() -> None:
    """The estimate of utilization takes the time of a decode step from the policies. Catches a selection that is applied twice,
    contexts in tokens where the law counts parts of them."""
    resolved = scenario("kv.selection={kind: pages, fraction: 0.25}").resolved
    steps = PolicySteps(resolved)
    found = Saturated(steps, resolved, geometry(resolved), None)._step(8.0, 4000.0, [])
    assert found == pytest.approx(decode(steps, 8, 4000), rel=1e-9)


def test_attention_elsewhere_in_lock_step_is_refused() -> None:
    """Catches devices that every replica has to itself."""
    compute = {"at": "host", "memory": "100 GB", "bandwidth": "10 GB/s", "link": "20 GB/s"}
    with pytest.raises(InputError, match="attention at host for replicas in lock step is not modelled"):
        small(PAIR | {"kv.placement.compute": compute})
