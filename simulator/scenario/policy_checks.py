"""What KV policies beyond the model's own cache cannot be combined with, and what they need."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from simulator.errors import Problem
from simulator.scenario.far_events import needs_identity
from simulator.scenario.policies import Policies
from simulator.scenario.resolved import ScenarioResolved
from simulator.scenario.schema import ScenarioFile
from simulator.scenario.source import Source, Where

SECTIONS: tuple[Where, ...] = (
    ("kv", "layout"), ("kv", "hbm_codec"), ("kv", "retention"), ("kv", "placement", "compute"), ("kv", "topology", "latent"),
    ("kv", "sharing", "read"), ("kv", "loop"),
)  # fmt: skip


def policy_checks(scenario: ScenarioResolved, file: ScenarioFile, source: Source) -> Iterator[Problem]:
    """KV policies beyond the model's own cache, and what they are not modelled together with."""
    policies, model, gpus = scenario.kv.policies, scenario.model, scenario.gpus
    if policies.identity:
        return
    at: Where = next((path for path in SECTIONS if source.has(path)), ("kv", "system"))
    apart: tuple[tuple[bool, str], ...] = (
        (bool(model.window), f"the sliding window of {model.name}; write it as a group of kind window of a model without"),
        (gpus.pipeline_parallel > 1, "pipeline stages"),
        (gpus.data_parallel > 1, "replicas in lock step"),
    )
    for wrong, what in apart:
        if wrong:
            yield source.problem(at, f"KV policies are not modelled together with {what}")
    if scenario.pool is not None:
        yield from _beside_a_pool(scenario, source, at)
    alone = replace(policies, read="each", loop=Policies().loop)
    if scenario.kv.sharing == "prefix" and not alone.identity:
        message = "blocks of prefixes hold what the model itself caches; remove sharing or the other KV policies"
        yield source.problem(("kv", "sharing", "kind"), message)
    if policies.latent == "sharded" and not (model.kv_latent and gpus.tensor_parallel > 1):
        message = "sharded is a latent over tensor-parallel GPUs; the model has no kv_latent, or there is one GPU"
        yield source.problem(("kv", "topology", "latent"), message)
    if policies.codec != Policies().codec and model.kv_bytes != 2.0:
        message = f"the codec counts from 16 bits, but model.kv_bytes is {model.kv_bytes:g}"
        yield source.problem(("kv", "hbm_codec"), message, "give one of them")


def _beside_a_pool(scenario: ScenarioResolved, source: Source, at: Where) -> Iterator[Problem]:
    """Far KV is counted in bytes under KV policies, and it is in one place."""
    kv = scenario.kv
    if kv.policies.compute.at != "gpu":
        message = f"attention at {kv.policies.compute.at} has all KV there, so nothing of it can be in a kv_pool"
        yield source.problem(("kv", "placement", "compute"), message, "remove one of them")
    for where, found, use in needs_identity(scenario):
        message = f"'{found}' tells single pages apart; under KV policies a block holds what the policies keep of many tokens"
        yield source.problem(where, f"{message}, which is counted in bytes", f"use {use}, or remove the policies")
