"""What a GPU has room for, from the resolved scenario alone.

KV is split over tensor-parallel ranks by KV head; with more ranks than KV heads every head is held by several ranks
(`kv_copies`), which multiplies what a token takes in every tier.
"""

from __future__ import annotations

from simulator.scenario.resolved import ScenarioResolved


def weights_per_gpu(scenario: ScenarioResolved) -> float:
    """Bytes of weights on each GPU."""
    return scenario.model.parameters * scenario.model.weight_bytes / scenario.gpus.tensor_parallel


def hbm_left(scenario: ScenarioResolved) -> float:
    """Bytes per GPU that are left for KV (L1 and L2 together); negative if the model does not fit."""
    gpus = scenario.gpus
    return gpus.gpu.memory * gpus.memory_utilization - weights_per_gpu(scenario) - gpus.reserve


def kv_copies(scenario: ScenarioResolved) -> float:
    """How often each KV head is held: ranks / KV heads, at least 1."""
    return max(1.0, scenario.gpus.tensor_parallel / scenario.model.kv_heads)


def kv_bytes_per_token_rank(scenario: ScenarioResolved) -> float:
    """Raw KV bytes of one token on one GPU, all layers."""
    return scenario.model.kv_bytes_per_token * kv_copies(scenario) / scenario.gpus.tensor_parallel
