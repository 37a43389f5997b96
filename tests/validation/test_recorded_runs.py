"""The limits that replays of the recorded vLLM runs have to hold; the table behind them is `speckvsim validate`.

GPU constants come from kernel times alone; the host-overhead law from one run, the expert exchange from the other
(`analysis/calibration/vllm.py`). What the fit saw is half of the requests' TPOT and E2E; TTFT, percentiles, curves and which
request runs when are not fitted.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from pathlib import Path

import pytest

from analysis.calibration.fit import digest
from analysis.calibration.vllm import DATA, DENSE, ENGINE, EXPERTS, GPU
from analysis.validation.vllm import compare_run
from simulator import catalog

# metric -> largest |model / measured - 1| in percent
LIMITS = {
    DENSE: {
        "tpot_s.mean": 3.0, "e2e_s.mean": 3.0, "ttft_s.mean": 10.0, "tpot_s.p99": 15.0, "e2e_s.p99": 15.0, "ttft_s.p99": 15.0,
    },
    EXPERTS: {"tpot_s.mean": 5.0, "e2e_s.mean": 5.0},
}  # fmt: skip


@cache
def rows(name: str) -> dict[str, dict[str, float]]:
    return {row["metric"]: row for row in compare_run(Path(str(files("analysis.validation"))) / "data" / name)[0]}


@pytest.mark.parametrize("name", LIMITS)
def test_limits(name: str) -> None:
    """Catches a change of kernels, batching, prefix cache, lock step or host law that makes a replay worse than promised."""
    found = rows(name)
    for metric, limit in LIMITS[name].items():
        assert found[metric]["worst_abs_error_pct"] <= limit, metric
        assert found[metric]["n"] == 300


@pytest.mark.parametrize("name", LIMITS)
def test_what_was_not_fitted(name: str) -> None:
    """The curves of running and waiting requests, at every tick: within 6 % of their peak for 19 of 20 ticks, 2 % as a rule.

    The values are those of the replays with room to spare, no promise. Catches requests admitted in another order or too late,
    which means alone may hide.
    """
    found = rows(name)
    for curve in ("running", "waiting"):
        assert found[curve]["p95_abs_error_pct"] <= 6.0
        assert found[curve]["median_abs_error_pct"] <= 2.0


def test_laws_name_their_data() -> None:
    """Catches runs changed without a new fit: the hashes in the catalogue are those of the files in the package."""
    host = catalog.load("engines", ENGINE).sources["scheduler.host_overhead"]
    exchange = catalog.load("gpus", GPU).sources["all_reduce_latency"]
    assert digest(DATA, [DENSE])[:16] in host
    assert digest(DATA, [EXPERTS])[:16] in exchange
