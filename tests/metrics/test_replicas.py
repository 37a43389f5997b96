"""The summary, the series and the timeline of several replicas: sums and means of what each did."""

from __future__ import annotations

from math import inf

import numpy as np
import pytest

from simulator.experiments.run import run_scenario
from tests.properties.small import draw, pool, scenario, served

WORK = {
    "requests": 40, "arrivals": {"process": "poisson", "rate": "3000 /s"},
    "input": {"dist": "uniform", "low": "10 tokens", "high": "200 tokens"},
    "output": {"dist": "uniform", "low": "2 tokens", "high": "40 tokens"},
}  # fmt: skip
THREE = {"cluster.replicas": 3, **pool(l1=10, l3=300, link="0.5 GB/s"), "kv.codec": "none"}


def test_sums_of_replicas() -> None:
    """Would catch: a replica that is left out or counted twice; shares over one replica's time instead of all."""
    run = served(THREE, draw(4, 40, rate=3000.0))
    summary, rows = run.summary, run.summary["replicas"]
    makespan = summary["simulation"]["simulated_s"]
    assert sum(row["requests"] for row in rows) == 40
    assert sum(row["output_tokens"] for row in rows) == run.columns["output_tokens"].sum()
    assert summary["utilization"]["gpu"] == pytest.approx(np.mean([row["gpu_utilization"] for row in rows]), rel=1e-12)
    assert summary["throughput"]["output_tokens_per_s"] == pytest.approx(run.columns["output_tokens"].sum() / makespan)
    most = max(row["requests"] for row in rows)
    assert summary["routing"] == {"rule": "round_robin", "imbalance": summary["routing"]["imbalance"]}
    assert summary["routing"]["imbalance"]["requests"] == pytest.approx(3 * most / 40)
    assert summary["tiers"]["l1"]["capacity_bytes"] == 30 * 32768
    assert 0 < summary["tiers"]["l1"]["peak_bytes"] <= 30 * 32768 * (1 + 1e-9)


def test_series_add_up() -> None:
    """Tokens of all bins are the tokens given out; the mean of L1 over time is the summary's.

    Would catch: bins of one replica's run, sums of what is a mean.
    """
    run = served(THREE, draw(4, 40, rate=3000.0))
    width = run.series["time_s"][1]
    assert run.series["output_tokens_per_s"].sum() * width == pytest.approx(run.columns["output_tokens"].sum())
    assert run.series["prefill_tokens_per_s"].sum() * width == pytest.approx(run.columns["input_tokens"].sum())
    assert run.series["gpu_share"].mean() == pytest.approx(run.summary["utilization"]["gpu"], rel=0.02)


def test_every_replica_has_its_tracks() -> None:
    """Would catch: replicas drawn over each other, spans of two requests under one id, requests by a replica's own number."""
    drawn = run_scenario(scenario(THREE | {"workload.synthetic": WORK}), timeline=(0.0, inf)).timeline
    assert drawn is not None
    events = drawn["traceEvents"]
    names = {event["pid"]: event["args"]["name"] for event in events if event["name"] == "process_name"}
    assert names == {0: "replica 0", 1: "replica 1", 2: "replica 2"}
    spans = [event for event in events if event.get("cat") == "request" and event["ph"] == "b"]
    assert len({event["id"] for event in spans}) == len(spans) == 40
    assert {event["name"] for event in spans} == {f"request {number}" for number in range(40)}
