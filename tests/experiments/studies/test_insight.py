"""What analyses say, against closed forms.

The link-bound case is dense_mha_bound.yaml in small: every step reads all far bytes F through links of B bytes/s in all,
everything else is ideal. Decompression at the GPU: a step takes F / (ratio B), so throughput has elasticity 1 to both;
at the FPGA raw bytes cross: F / B, elasticity 0 to the ratio. FLOPs never matter.
"""

from __future__ import annotations

import json
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from simulator import Scenario
from simulator.experiments.studies.sensitivity import saltelli
from simulator.experiments.studies.sweep import SweepResult, sweep
from tests.experiments.studies.worlds import Here, study

ROOT = Path(__file__).parents[3]
LINK, RATIO, FLOPS = "cluster.kv_pool.link.bandwidth", "kv.codec.ratio", "cluster.gpus.peak_flops"
DECODE = "throughput.decode_output_tokens_per_s"
ARMS = {"gpu": {"kv.codec.decompress_at": "gpu"}, "fpga": {"kv.codec.decompress_at": "fpga"}}


def bound(tmp_path: Path, analyses: dict[str, Any], **more: Any) -> SweepResult:
    """dense_mha_bound.yaml at 8 tokens of output, one replication (nothing in it is random)."""
    values = {"name": "bound", "base": str(ROOT / "scenarios" / "dense_mha_bound.yaml"), "arms": ARMS, "metrics": [DECODE]}
    short = {
        arm: settings | {"workload.synthetic.output.tokens": "8 tokens"} for arm, settings in more.pop("arms", ARMS).items()
    }
    return sweep(values | {"arms": short, "analyses": analyses} | more, tmp_path)


def test_elasticities_of_the_bound(tmp_path: Path, here: Here):
    """1 to bandwidth and ratio, 0 to FLOPs; ratio 0 at the FPGA; within 0.005 (latencies and the last layer are not bytes).

    Would catch: a difference over x instead of ln x, a step on one side only, the parameter not set where it is read.
    """
    result = bound(tmp_path, {"elasticity": {"parameters": [LINK, RATIO, FLOPS], "metrics": [DECODE]}})
    found = {(row["arm"], row["parameter"]): row["elasticity"] for row in result.insight["analyses"]["elasticity"]}
    print(found)
    want = {("gpu", LINK): 1, ("gpu", RATIO): 1, ("gpu", FLOPS): 0, ("fpga", LINK): 1, ("fpga", RATIO): 0, ("fpga", FLOPS): 0}
    assert found == {key: pytest.approx(value, abs=0.005) for key, value in want.items()}


def test_break_even_of_the_bound(tmp_path: Path, here: Here):
    """Links of 40 GB/s with raw bytes equal links of 40 GB/s / ratio with compressed ones: break-even 20 GB/s at ratio 2.

    Would catch: the crossing of the wrong arm, a bracket that is not narrowed, an interval that leaves the crossing out.
    """
    arms = {"compressed": ARMS["gpu"], "raw": ARMS["fpga"] | {LINK: "40 GB/s"}}
    axes = {LINK: {"from": "4 GB/s", "to": "64 GB/s", "n": 3, "scale": "log"}, RATIO: [2, 4]}
    result = bound(tmp_path, {"break_even": {"axis": LINK, "metric": DECODE, "tolerance": "1 %"}}, axes=axes, arms=arms)
    rows = {row[RATIO]: row for row in result.insight["analyses"]["break_even"]}
    for ratio, want in ((2, 20e9), (4, 10e9)):
        row = rows[ratio]
        print(ratio, row["value"], row["low"], row["high"])
        assert row["verdict"] == "crosses" and row["side"] == "above"
        assert row["value"] == pytest.approx(want, rel=0.005) and row["low"] <= want <= row["high"]
        assert row["high"] / row["low"] < 1.02
    assert "'compressed' beats 'raw'" in result.insight["sentences"][0] and "upward" in result.insight["sentences"][0]
    table = pd.read_parquet(tmp_path / "insight" / "break_even.parquet")
    assert table["value"].tolist() == [row["value"] for row in result.insight["analyses"]["break_even"]]


def test_no_break_even(tmp_path: Path, here: Here):
    """At ratio 1 both arms carry raw bytes. Would catch: rounding errors sold as a winner; a crossing where there is none."""
    axes = {LINK: ["16 GB/s", "64 GB/s"], RATIO: [1, 2]}
    analyses = {"break_even": {"axis": LINK, "metric": DECODE}, "regime_map": {"x": LINK, "y": RATIO, "metric": DECODE}}
    result = bound(tmp_path, analyses, axes=axes)
    verdicts = [row["verdict"] for row in result.insight["analyses"]["break_even"]]
    assert verdicts == ["level", "always"]
    cells = {(row["x"], row["y"]): row["winner"] for row in result.insight["analyses"]["regime_map"]}
    assert cells == {(16e9, 1): "level", (64e9, 1): "level", (16e9, 2): "gpu", (64e9, 2): "gpu"}
    gains = [row["gain"] for row in result.insight["analyses"]["regime_map"] if row["y"] == 2]
    assert gains == [pytest.approx(1.0, rel=0.01)] * 2  # twice as fast


def test_trend(tmp_path: Path, here: Here):
    """Would catch: the best of the wrong end, a margin of the wrong value."""
    axes = {RATIO: [1, 2, 3.9, 4]}
    result = bound(tmp_path, {"trend": {"axis": RATIO, "metric": DECODE}}, axes=axes, arms={"gpu": ARMS["gpu"]})
    rows = result.insight["analyses"]["trend"]
    assert [row["within"] for row in rows] == [False, False, True, True] and [row["best"] for row in rows].index(True) == 3
    assert "only at" not in result.insight["sentences"][0] and "from 3.9 to 4" in result.insight["sentences"][0]


def test_intervals_come_from_replications(tmp_path: Path, here: Here):
    """Would catch: intervals of one replication, a t-interval over points, arms on other seeds."""
    analyses = {
        "elasticity": {"parameters": [LINK], "metrics": ["latency.tpot_s.mean"]},
        "tornado": {
            "parameters": {LINK: ["1 GB/s", "4 GB/s"], "scheduler.max_batch": [2, 8]},
            "metrics": ["latency.tpot_s.mean"],
        },
        "regime_map": {"x": LINK, "y": "scheduler.max_batch", "metric": "latency.tpot_s.mean", "better": "lower"},
    }
    axes = {LINK: ["1 GB/s", "4 GB/s"], "scheduler.max_batch": [4, 8]}
    result = sweep(study(analyses=analyses, axes=axes, replications=5), tmp_path)
    for name in ("elasticity", "tornado"):
        rows = result.insight["analyses"][name]
        assert all(row["n"] == 5 and row["low"] < row["high"] for row in rows if row["parameter"] == LINK)
    assert {row["winner"] for row in result.insight["analyses"]["regime_map"]} == {"next_layer"}
    assert all(row["significant"] is (row["high"] < 0) for row in result.insight["analyses"]["regime_map"])
    swings = [row for row in result.insight["analyses"]["tornado"] if row["arm"] == "none"]
    assert abs(swings[0]["swing"]) >= abs(swings[1]["swing"])
    assert json.loads((tmp_path / "insight.json").read_text()) == result.insight


def ishigami(points: np.ndarray) -> np.ndarray:
    x = np.pi * (2 * points - 1)
    return np.sin(x[0]) + 7 * np.sin(x[1]) ** 2 + 0.1 * x[2] ** 4 * np.sin(x[0])


def test_sobol_indices_of_a_known_function():
    """Ishigami's function: first-order 0.314, 0.442, 0; total 0.558, 0.442, 0.244 (Sobol & Levitan 1999), within 0.02.

    Would catch: first and total mixed up, a variance of the wrong sample; the same formulas as scipy's, to 1e-12.
    """
    both = stats.qmc.Sobol(6, rng=np.random.default_rng(1)).random(2**13).T
    a, b = both[:3], both[3:]
    mixed = [np.where(np.arange(3)[:, None] == each, b, a) for each in range(3)]
    found = [saltelli(np.array([ishigami(a), ishigami(b), ishigami(each)])) for each in mixed]
    assert [float(first) for first, _ in found] == pytest.approx([0.314, 0.442, 0.0], abs=0.02)
    assert [float(total) for _, total in found] == pytest.approx([0.558, 0.442, 0.244], abs=0.02)
    values = {"f_A": ishigami(a)[None], "f_B": ishigami(b)[None], "f_AB": np.array([ishigami(each)[None] for each in mixed])}
    theirs = stats.sobol_indices(func=values, n=2**13)
    assert [float(total) for _, total in found] == pytest.approx(theirs.total_order.ravel().tolist(), rel=0.02)


def test_morris_and_sobol_of_the_bound(tmp_path: Path, here: Here):
    """Throughput ~ bandwidth x ratio at the GPU. Would catch: a parameter that matters called idle, or the reverse.

    The ratio moves 1 to 4, the bandwidth 48 to 64 GB/s: the ratio has nearly all of the variance, FLOPs nothing.
    """
    parameters = {RATIO: [1, 4], LINK: ["48 GB/s", "64 GB/s"], FLOPS: ["280 TFLOP/s", "312 TFLOP/s"]}
    analyses = {
        "morris": {"parameters": parameters, "metrics": [DECODE], "trajectories": 3},
        "sobol": {"parameters": parameters, "metrics": [DECODE], "n": 8},
    }
    found = bound(tmp_path, analyses, arms={"gpu": ARMS["gpu"]}).insight["analyses"]
    effect = {row["parameter"]: row for row in found["morris"]}
    assert effect[RATIO]["mu_star"] > 3 * effect[LINK]["mu_star"] > 100 * effect[FLOPS]["mu_star"]
    assert effect[RATIO]["mu"] == pytest.approx(effect[RATIO]["mu_star"]) and effect[RATIO]["sigma"] > 0
    total = {row["parameter"]: row["total"] for row in found["sobol"]}
    assert total[RATIO] > 0.8 and total[LINK] < 0.2 and total[FLOPS] < 1e-3


def test_parameters_that_an_arm_does_not_have(tmp_path: Path, here: Here):
    """Would catch: a sweep that ends because GPUs alone have no link to the pool."""
    arms = {"pool": {}, "gpu_only": {"cluster.kv_pool": "none", "kv": {}, "prefetch": {}}}
    result = sweep(study(arms=arms, analyses={"elasticity": {"parameters": [LINK, "kv.l2"]}}, replications=1), tmp_path)
    rows = {(row["arm"], row["parameter"]): row for row in result.insight["analyses"]["elasticity"]}
    assert rows["gpu_only", LINK]["elasticity"] is None and "has no value" in rows["gpu_only", LINK]["error"]
    assert rows["pool", LINK]["elasticity"] not in (None, nan)


def test_one_arm_against_another(tmp_path: Path, here: Here):
    """Decompression at the GPU takes 1 / ratio of the link's time: that much more throughput at both bandwidths, in pairs.

    Would catch: pairs of unequal points, the arms the wrong way round. 0.5 %: latencies and the last layer are not bytes.
    """
    result = bound(tmp_path, {"versus": {"arm": "fpga", "metric": DECODE}}, axes={LINK: ["1 GB/s", "2 GB/s"]})
    (row,) = result.insight["analyses"]["versus"]
    ratio = Scenario.load(ROOT / "scenarios" / "dense_mha_bound.yaml").resolved.kv.codec.ratio
    assert (row["arm"], row["against"], row["n"]) == ("gpu", "fpga", 2)
    assert row["value"] / row["baseline"] == pytest.approx(ratio, rel=0.005)
    assert row["difference"] == pytest.approx(row["value"] - row["baseline"], rel=1e-12)
    (sentence,) = result.insight["sentences"]
    assert "of 'gpu' is" in sentence and "of 'fpga' (+22" in sentence
