"""What a token takes on a GPU, from the resolved scenario alone.

KV is split over tensor-parallel ranks by KV head; with more ranks than KV heads every head is held by several ranks
(`kv_copies`), which multiplies what a token takes in every tier.
"""

from __future__ import annotations

from simulator.scenario.resolved import ScenarioResolved


def kv_copies(scenario: ScenarioResolved) -> float:
    """How often each KV head is held: ranks / KV heads, at least 1."""
    return max(1.0, scenario.gpus.tensor_parallel / scenario.model.kv_heads)


def kv_bytes_per_token_rank(scenario: ScenarioResolved) -> float:
    """Raw KV bytes of one token on one GPU, all layers."""
    return scenario.model.kv_bytes_per_token * kv_copies(scenario) / scenario.gpus.tensor_parallel
