"""`speckvsim explain` of several replicas: what each group has, which stages all share, and the way between the two halves of a
prefill/decode split with its knee: the prompt tokens a second at which KV falls behind."""

from __future__ import annotations

from typing import Any

from simulator.hardware.pool import far_path
from simulator.kvcache.geometry import geometry
from simulator.scenario.resolved import ScenarioResolved
from simulator.scheduler.shared import SharedFabric, far_crossings, is_shared, transfer_crossings


def replicas(scenario: ScenarioResolved) -> dict[str, Any] | None:
    """Plain data; None for one replica."""
    cluster = scenario.cluster
    if not cluster.groups:
        return None
    groups = []
    for group in cluster.groups:
        own = scenario.of(group)
        sizes, far = geometry(own), far_path(own) if own.pool else None
        groups.append({
            "group": group.name, "role": group.role, "replicas": group.count, "gpu": group.gpus.gpu.name,
            "gpus": group.gpus.count, "l1_blocks": sizes.l1_blocks, "max_batch": group.scheduler.max_batch,
            "far_read_alone_bytes_per_s": far.read_rate if far else None, "bound": far.bound if far else None,
        })  # fmt: skip
    found: dict[str, Any] = {"routing": cluster.routing, "groups": groups, "pool": _pool(scenario), "transfer": None}
    if cluster.transfer is not None:
        found["transfer"] = _transfer(scenario)
    return found


def rates_of_all(scenario: ScenarioResolved, direction: str) -> dict[str, float]:
    """Wire bytes/s of the stages of one direction of far memory, all replicas together: what they share counts once. Empty for
    one replica."""
    found: dict[str, float] = {}
    for group in scenario.cluster.groups if scenario.pool is not None else ():
        for name, rate, _ in getattr(far_path(scenario.of(group)), direction):
            once = scenario.cluster.pool_shared and is_shared(name)
            found[name] = rate if once else found.get(name, 0.0) + group.count * rate
    return found


def _pool(scenario: ScenarioResolved) -> dict[str, Any] | None:
    """Who shares what of far memory: stages that can bind, with their users."""
    if scenario.pool is None:
        return None
    cluster = scenario.cluster
    if not cluster.pool_shared:
        return {"shared": False, "stages": []}
    every = [scenario.of(group) for group in cluster.groups for _ in range(group.count)]
    crossings = [one for number, own in enumerate(every) for one in far_crossings(own, number)]
    kept = SharedFabric.reduced(crossings)
    stages = [
        {"stage": name, "bytes_per_s": rate if not name.startswith("outstanding") else None, "replicas": users}
        for name, rate, users in kept
        if is_shared(name)
    ]
    return {"shared": True, "stages": stages}


def _transfer(scenario: ScenarioResolved) -> dict[str, Any]:
    """The way from the first prefill to the first decode group."""
    way, groups = scenario.cluster.transfer, scenario.cluster.groups
    assert way is not None
    sender, receiver = (next(one for one in groups if one.role == role) for role in ("prefill", "decode"))
    crossings = transfer_crossings(scenario.of(sender), scenario.of(receiver), (0, sender.count))
    token = scenario.model.kv_bytes_per_token
    latency = way.link.latency + sender.gpus.gpu.link.latency + receiver.gpus.gpu.link.latency
    return {
        "stages": [{"stage": name, "bytes_per_s": rate} for name, rate, _, _ in crossings],
        "latency_s": latency,
        "kv_bytes_per_token": token,
        "threshold_tokens": way.threshold,
        "prompt_tokens_per_s": way.links * way.link.read_bandwidth / token,
    }
