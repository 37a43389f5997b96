"""What KV policies beyond the model's own cache cannot be combined with, and what they need."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from simulator.errors import Problem
from simulator.scenario.far_events import needs_identity
from simulator.scenario.policies import Policies
from simulator.scenario.resolved import Model, ScenarioResolved
from simulator.scenario.schema import ScenarioFile
from simulator.scenario.source import Source


def policy_checks(scenario: ScenarioResolved, file: ScenarioFile, source: Source) -> Iterator[Problem]:
    """KV policies beyond the model's own cache, and what they are not modelled together with."""
    policies, model, gpus = scenario.kv.policies, scenario.model, scenario.gpus
    if policies.identity:
        return
    if gpus.data_parallel > 1 and policies.compute.at != "gpu":
        message = f"attention at {policies.compute.at} for replicas in lock step is not modelled: whose devices are busy when"
        yield source.problem(("kv", "placement", "compute"), message, "write data_parallel: 1, or at: gpu")
    if scenario.pool is not None:
        yield from _beside_a_pool(scenario, source)
    if scenario.kv.sharing == "prefix":
        for name, group in policies.layout.groups:
            if group.kind != "full":
                what = "the state" if group.kind in ("ssm", "conv") else "the window"
                message = (
                    f"{name} keeps {what} of the newest token only, not that at the end of a prefix that others go on from"
                )
                yield source.problem(("kv", "sharing", "kind"), message, "remove sharing, or the groups that are not full")
    if policies.latent == "sharded" and not (model.kv_latent and gpus.tensor_parallel > 1):
        message = "sharded is a latent over tensor-parallel GPUs; the model has no kv_latent, or there is one GPU"
        yield source.problem(("kv", "topology", "latent"), message)
    bits = policies.codec != Policies().codec and policies.codec.ratio == 1.0 and not policies.codec.by_layer
    if bits and model.kv_bytes > 2.0:
        message = f"the codec counts from at most 16 bits, but model.kv_bytes is {model.kv_bytes:g}"
        yield source.problem(("kv", "hbm_codec"), message, "write ratio, or kv_bytes: 2")
    yield from _windows(policies, model, source)


def _beside_a_pool(scenario: ScenarioResolved, source: Source) -> Iterator[Problem]:
    """Far KV is counted in bytes under KV policies, and it is in one place."""
    kv = scenario.kv
    if kv.policies.compute.at != "gpu":
        message = f"attention at {kv.policies.compute.at} has all KV there, so nothing of it can be in a kv_pool"
        yield source.problem(("kv", "placement", "compute"), message, "remove one of them")
    uneven = _uneven(scenario)
    for where, found, use in needs_identity(scenario) if uneven else ():
        message = f"'{found}' tells single pages apart, which takes policies that store every token alike and read it whole"
        yield source.problem(where, f"{message}, not {uneven}", f"use {use}, or remove that")


def _uneven(scenario: ScenarioResolved) -> str:
    """What keeps a page from being a fixed number of tokens that a step reads whole and once; empty for nothing."""
    policies, codec = scenario.kv.policies, scenario.kv.policies.codec
    reading = replace(policies.reading, index_stored=0.0, index_flops=0.0)
    found = (
        (bool(scenario.model.window), f"the window of {scenario.model.name}"),
        (any(group.kind != "full" for _, group in policies.layout.groups), "windows or states in kv.layout"),
        (any(group.run_every != 1.0 for _, group in policies.layout.groups), "kv.layout.groups.run_every"),
        (bool(codec.residual or codec.by_age), "kv.hbm_codec.residual or by_age"),
        (policies.retention.when == "always" and policies.retention.keep < 1.0, "kv.retention.keep of all tokens"),
        (reading != Policies().reading, "kv.selection.k_fraction, v_fraction or stage"),
        (policies.loop != Policies().loop, "kv.loop"),
    )
    return next((what for there, what in found if there), "")


def _windows(policies: Policies, model: Model, source: Source) -> Iterator[Problem]:
    """Groups that keep more than the model can read."""
    if not model.window or not policies.layout.groups:
        return
    more = [
        (name, group.share)
        for name, group in policies.layout.groups
        if group.kind == "full" or (group.kind == "window" and (group.window > model.window or group.fraction))
    ]
    share = sum(each for _, each in more)
    if share > model.full_layers / model.layers + 1e-6:
        names = " and ".join(name for name, _ in more)
        message = f"{names} {'keeps' if len(more) == 1 else 'keep'} more than the window of {model.name} in {share:.0%} of its "
        message += f"layers, but only {model.full_layers} of {model.layers} read more than {model.window} tokens"
        yield source.problem(("kv", "layout", "groups"), message, f"write window: {model.window} tokens for the others")
