"""Results folders that figures and reports are made of: a run, another one, and a sweep; made once, in milliseconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from simulator.experiments.run import run_scenario
from simulator.experiments.store import write_run
from simulator.experiments.studies import sweep as sweeps
from tests.experiments.studies.worlds import Here, study
from tests.properties.small import draw, pool, scenario

HOSTILE = "<script>alert(1)</script>"
WORLD = pool(l1=12, l3=600, l2=4) | {
    "prefetch": {"predictor": "statistical", "depth": 2, "coverage": 0.8, "accuracy": 0.7},
    "workload.trace.path": "rows.csv",
    "slo": {"ttft": "20 ms", "tpot": "2 ms"},
}
STUDY: dict[str, Any] = {
    "name": HOSTILE,
    "axes": {"cluster.kv_pool.link.bandwidth": ["1 GB/s", "2 GB/s", "4 GB/s"], "kv.codec.ratio": [1, 2]},
    "metrics": ["throughput.output_tokens_per_s", "latency.tpot_s.mean"],
    "analyses": {
        "regime_map": {
            "x": "cluster.kv_pool.link.bandwidth", "y": "kv.codec.ratio", "metric": "throughput.output_tokens_per_s",
        },
        "trend": {"axis": "cluster.kv_pool.link.bandwidth"},
        "tornado": {"parameters": {"kv.l2": ["64 KiB", "1 MiB"], "prefetch.depth": [1, 4]}},
    },
}  # fmt: skip


def make_run(folder: Path, **settings: Any) -> Path:
    rows = "".join(f"{arrival!r},{prompt},{output}\n" for arrival, prompt, output in draw(3, 220))
    folder.mkdir(parents=True)
    (folder / "rows.csv").write_text("arrival_s,input_tokens,output_tokens\n" + rows, encoding="utf-8")
    loaded = scenario(WORLD | {"name": "one & all"} | settings, folder)
    write_run(run_scenario(loaded, check=True, timeline=(0.0, float("inf"))), folder / "run")
    (folder / "rows.csv").unlink()  # results must do without the trace
    return folder / "run"


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("results") / "one")


@pytest.fixture(scope="session")
def hostile_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose name is markup."""
    return make_run(tmp_path_factory.mktemp("results") / "two", name=HOSTILE, prefetch={"predictor": "none"})


@pytest.fixture(scope="session")
def sweep_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results") / "sweep"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweeps, "pool", lambda *_: Here())
        sweeps.sweep(study(**STUDY), folder)
    return folder
