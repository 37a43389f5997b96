"""Differences between runs: right values, intervals that say what is sure, and no claim where there is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simulator import Scenario
from simulator.errors import InputError
from simulator.experiments.run import run_scenario
from simulator.experiments.store import write_run
from simulator.experiments.studies.compare import compare
from simulator.experiments.studies.sweep import sweep
from tests.experiments.studies.worlds import WORKLOAD, Here, base, study

MANY = WORKLOAD | {"requests": 600, "arrivals": {"process": "poisson", "rate": "150 /s"}}


def run(folder: Path, **settings: Any) -> Path:
    values = base(workload__synthetic=MANY, **settings)
    write_run(run_scenario(Scenario.from_dict(values, ".")), folder)
    return folder


def test_runs_with_the_same_requests(tmp_path: Path):
    """A faster link against a slow one, and a run against itself.

    Would catch: the difference of the wrong sign, no interval for paired requests, a run that differs from itself.
    """
    slow, fast = (
        run(tmp_path / "slow"),
        run(tmp_path / "fast", cluster__kv_pool__link={"type": "ideal", "bandwidth": "200 GB/s"}),
    )
    rows = {row["metric"]: row for row in compare([slow, fast])}
    mean = rows["latency.tpot_s.mean"]
    assert mean["difference"] == pytest.approx(mean["value"] - mean["baseline_value"]) and mean["difference"] < 0
    assert (
        mean["significant"]
        and mean["low"] < mean["difference"] < mean["high"] < 0
        and mean["method"].endswith("paired requests")
    )
    assert rows["latency.e2e_s.p50"]["significant"] and rows["latency.e2e_s.p99"]["method"] == "too few requests"
    assert rows["cost.usd_per_million_output_tokens"]["significant"] is None
    assert (
        rows["latency.e2e_s.p50"]["value_low"] <= rows["latency.e2e_s.p50"]["value"] <= rows["latency.e2e_s.p50"]["value_high"]
    )
    for row in compare([slow, slow]):
        assert row["difference"] == 0 and not row["significant"]


def test_runs_with_other_requests(tmp_path: Path):
    """The same system with other seeds: of the means and medians of 8 pairs at most two differ significantly.

    Would catch: requests of different runs paired, requests taken as independent (their waits are not).
    """
    folders = [run(tmp_path / str(seed), seed=seed) for seed in range(9)]
    rows = [row for row in compare(folders) if row["metric"] == "latency.e2e_s.mean"]
    assert len(rows) == 8 and all(row["method"] == "batch means of each run" for row in rows)
    assert sum(row["significant"] for row in rows) <= 2


def test_arms_of_a_sweep(tmp_path: Path, here: Here):
    """Would catch: replications paired across seeds, points mixed up, an interval from one replication."""
    result = sweep(study(replications=6, metrics=["latency.tpot_s.mean"]), tmp_path / "one")
    rows = compare([tmp_path / "one"])
    assert len(rows) == 2 and {row["run"] for row in rows} == {"none"} and {row["baseline"] for row in rows} == {"next_layer"}
    table = result.table.pivot(
        index=["cluster.kv_pool.link.bandwidth", "replication"], columns="arm", values="latency.tpot_s.mean"
    )
    for row, (_, group) in zip(rows, table.groupby(level=0)):
        assert row["n"] == 6 and row["difference"] == pytest.approx((group["none"] - group["next_layer"]).mean())
    sweep(study(replications=1, metrics=["latency.tpot_s.mean"]), tmp_path / "single")
    assert all(row["significant"] is None and np.isnan(row["low"]) for row in compare([tmp_path / "single"]))


def test_two_sweeps(tmp_path: Path, here: Here):
    """Would catch: rows of two sweeps matched by position instead of by axes, arm and seed."""
    sweep(study(metrics=["latency.tpot_s.mean"]), tmp_path / "one")
    sweep(study(metrics=["latency.tpot_s.mean"], base=base(scheduler__max_batch=2)), tmp_path / "two")
    rows = compare([tmp_path / "one", tmp_path / "two"])
    assert len(rows) == 4 and all(row["n"] == 3 and row["difference"] < 0 for row in rows)


def test_what_cannot_be_compared(tmp_path: Path, here: Here):
    """Would catch: a traceback for a folder that is no run, a comparison of one thing with nothing."""
    one = run(tmp_path / "one")
    for folders, message in (
        ([one], "nothing to be compared with"),
        ([one, tmp_path], "is neither a run"),
        ([one, tmp_path / "nowhere"], "no such folder"),
    ):
        with pytest.raises(InputError, match=message):
            compare(folders)
    sweep(study(arms={}), tmp_path / "sweep")
    with pytest.raises(InputError, match="only runs or only sweeps"):
        compare([one, tmp_path / "sweep"])
    with pytest.raises(InputError, match="has one arm"):
        compare([tmp_path / "sweep"])
