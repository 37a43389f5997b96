"""`speckvsim explain` of tenants: what each is entitled to on the fabric, and which groups of replicas serve it."""

from __future__ import annotations

from typing import Any

from simulator.scenario.resolved import ScenarioResolved


def tenants(scenario: ScenarioResolved) -> list[dict[str, Any]]:
    """Plain data, a row a tenant; no bandwidth is infinite."""
    every, groups = scenario.tenants, scenario.cluster.groups
    requests = sum(one.share for one in every)
    return [
        {
            "tenant": one.name,
            "requests_share": one.share / requests,
            "weight": one.weight,
            "flow_counts_as": one.weight / every[0].weight,
            "flows": one.flows,
            "bandwidth_bytes_per_s": one.bandwidth,
            "burst_bytes": one.burst,
            "served_by": [group.name for group in groups if not group.tenants or one.name in group.tenants],
        }
        for one in every
    ]
