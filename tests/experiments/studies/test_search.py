"""Searches against what is known: a queue's capacity, an exhaustive list, a front by hand."""

from __future__ import annotations

import json
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simulator import simulate
from simulator.errors import InputError
from simulator.experiments.studies.search import search
from tests.experiments.studies.worlds import Here, base, study

RATE, LINK = "workload.synthetic.arrivals.rate", "cluster.kv_pool.link.bandwidth"


def queue(requests: int, rate: str = "20 /s") -> dict[str, Any]:
    """M/D/1: one request at a time, all alike."""
    fixed = {"input": {"dist": "fixed", "tokens": "64 tokens"}, "output": {"dist": "fixed", "tokens": "8 tokens"}}
    arrivals = {"process": "poisson", "rate": rate}
    return base(scheduler={"max_batch": 1}, cluster__kv_pool=None, kv=None) | {
        "workload": {"synthetic": {"requests": requests, "arrivals": arrivals} | fixed}
    }


@pytest.mark.parametrize("requests", [pytest.param(400, id="small"), pytest.param(8000, id="full", marks=pytest.mark.slow)])
def test_capacity_of_a_queue(requests: int, tmp_path: Path, here: Here):
    """Mean sojourn of M/D/1 is s (1 + rho / (2 (1 - rho))); 3 s is met up to rho = 0.8. Its interval holds that rate.

    A run starts empty, which at load 0.8 favours the first few hundred of the requests (relaxation time about
    s / (1 - sqrt(rho))^2 = 90 s): the small case is compared with the true mean of just that many requests, simulated
    apart by Lindley's recursion (400 runs). Would catch: a rate that fails taken for one that meets, an interval of the
    bracket alone, replications without common random numbers.
    """
    alone = simulate_one(queue(1))
    limit = 3 * alone
    asked = {
        "capacity": {
            "rate": RATE,
            "require": f"latency.e2e_s.mean <= {limit!r} s",
            "tolerance": "2 %",
            "most": 12 if requests < 1000 else 24,
        }
    }
    result = search({"name": "queue", "base": queue(requests), "search": asked}, tmp_path)
    (row,) = result.rows
    want = 0.8 / alone if requests > 5000 else by_recursion(alone, limit, requests)
    print(f"capacity {row['value']:.4g} ({row['low']:.4g} to {row['high']:.4g}), theory {want:.4g}, {row['runs']} runs")
    assert row["status"] == "found" and row["low"] <= want <= row["high"]
    assert row["high"] / row["low"] < 1.25
    meets = simulate(tmp_path / "points" / f"{row['meets']}.yaml").scenario.resolved.workload.rate
    assert meets == row["meets_rate"] and (tmp_path / "points" / f"{row['fails']}.yaml").exists()
    assert search({"name": "queue", "base": queue(requests), "search": asked}, tmp_path).simulated == 0


def simulate_one(values: dict[str, Any]) -> float:
    from simulator import Scenario

    return float(simulate(Scenario.from_dict(values, ".")).summary["latency"]["e2e_s"]["mean"])


def by_recursion(service: float, limit: float, requests: int) -> float:
    """The rate at which the mean sojourn of the first `requests` customers is the limit."""
    gaps = np.random.default_rng(9).exponential(1.0, (400, requests))

    def mean(rate: float) -> float:
        walk = np.cumsum(service - gaps[:, 1:] / rate, axis=1)
        walk = np.concatenate([np.zeros((len(gaps), 1)), walk], axis=1)
        return float((walk - np.minimum.accumulate(walk, axis=1)).mean()) + service

    low, high = 0.5 / service, 0.99 / service
    for _ in range(40):
        middle = sqrt(low * high)
        low, high = (middle, high) if mean(middle) <= limit else (low, middle)
    return low


@pytest.mark.parametrize(
    ("require", "status"),
    [
        ("latency.e2e_s.mean <= 1 us", "none met"),
        ("latency.e2e_s.mean <= 1 h", "all met"),
        ("latency.e2e_s.mean <= 10 ms", "budget"),
    ],
)
def test_no_capacity(require: str, status: str, tmp_path: Path, here: Here):
    """Would catch: an endless search, a capacity at an end of the range."""
    asked = {"capacity": {"rate": RATE, "require": require, "budget": 8 if status == "budget" else 400, "most": 3}}
    result = search({"name": "queue", "base": queue(20), "search": asked}, tmp_path)
    assert result.rows[0]["status"] == status and result.rows[0]["value"] is None
    assert result.sentences


def test_cheapest_is_that_of_the_whole_list(tmp_path: Path, here: Here):
    """Would catch: a search that stops at a design which misses, or passes over a cheaper one."""
    axes = {"cluster.kv_pool.count": [1, 2, 4], LINK: ["0.5 GB/s", "2 GB/s", "8 GB/s"]}
    values = study(axes=axes, arms={}, replications=2)
    everything = search(values | {"search": {"cheapest": {"require": "latency.tpot_s.mean <= 1 h"}}}, tmp_path / "all")
    assert everything.rows[-1]["verdict"] == "meets"
    limit = 0.0008
    result = search(values | {"search": {"cheapest": {"require": f"latency.tpot_s.mean <= {limit} s"}}}, tmp_path / "some")
    row = result.rows[-1]
    from simulator.experiments.studies.sweep import sweep

    table = (
        sweep(values | {"replications": 3}, tmp_path / "grid")
        .table.groupby("point_id")[["latency.tpot_s.mean", "cost.usd_per_hour"]]
        .mean()
    )
    good = table[table["latency.tpot_s.mean"] <= limit]
    print(table, row)
    assert 0 < len(good) < len(table)
    assert row["verdict"] == "meets" and row["cost"] == pytest.approx(good["cost.usd_per_hour"].min(), rel=1e-3)
    assert (tmp_path / "some" / "points" / f"{row['point_id']}.yaml").exists()


def test_front_by_hand(tmp_path: Path, here: Here):
    """Every design is tried. Would catch: a design that another one beats, objectives of the wrong sign."""
    axes = {"cluster.kv_pool.count": [1, 2, 3], LINK: ["0.5 GB/s", "4 GB/s"]}
    objectives = {"throughput.output_tokens_per_s": "max", "cost.usd_per_hour": "min"}
    result = search(study(axes=axes, arms={}, replications=1, search={"front": {"objectives": objectives}}), tmp_path)
    rows = result.rows
    assert len(rows) == 6
    for row in rows:
        beaten = any(
            other["throughput.output_tokens_per_s"] >= row["throughput.output_tokens_per_s"]
            and other["cost.usd_per_hour"] <= row["cost.usd_per_hour"]
            and other is not row
            for other in rows
        )
        assert row["on_front"] != beaten


def test_front_with_optuna(tmp_path: Path, here: Here):
    """Ranges need proposals; the same ones whatever was in the journal. Would catch: proposals that depend on timing."""
    pytest.importorskip("optuna")
    axes = {LINK: {"from": "0.5 GB/s", "to": "8 GB/s", "scale": "log"}, "cluster.kv_pool.count": {"from": 1, "to": 4}}
    objectives = {"throughput.output_tokens_per_s": "max", "cost.usd_per_hour": "min"}
    asked = {"front": {"objectives": objectives, "budget": 20, "require": "throughput.output_tokens_per_s > 0"}}
    values = study(axes=axes, arms={}, combine="sobol", n=2, replications=1, search=asked)
    one = search(values, tmp_path / "one")
    assert 0 < sum(row["on_front"] for row in one.rows) <= len(one.rows) <= 20
    for path in sorted((tmp_path / "one" / "runs").iterdir())[::2]:
        path.unlink()
    assert search(values, tmp_path / "one").rows == one.rows == search(values, tmp_path / "two").rows
    written = (tmp_path / "one" / "search.json").read_bytes()
    assert written == (tmp_path / "two" / "search.json").read_bytes() and json.loads(written)["rows"] == one.rows


def test_a_study_without_a_search(tmp_path: Path, here: Here):
    """Would catch: a search of nothing that succeeds; requirements on unknown metrics."""
    with pytest.raises(InputError, match="has no search"):
        search(study(), tmp_path / "out")
    asked = {"capacity": {"rate": RATE, "require": "latency.ttft.p99 <= 1 s"}}
    with pytest.raises(InputError, match=r"did you mean 'latency.ttft_s.p99'\?"):
        search(study(search=asked), tmp_path / "out")
