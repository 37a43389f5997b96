"""The run over time."""

from __future__ import annotations

from pathlib import Path

import pytest

from simulator.experiments.explain import explain
from simulator.experiments.run import run_scenario
from simulator.experiments.store import to_json, write_run
from simulator.scenario import Scenario
from simulator.workload import synthetic
from tests.metrics.test_timeline import WORLD
from tests.properties.small import draw, scenario


def world(folder: Path) -> Scenario:
    rows = "".join(f"{arrival!r},{prompt},{output}\n" for arrival, prompt, output in draw(3, 120))
    (folder / "rows.csv").write_text("arrival_s,input_tokens,output_tokens\n" + rows, encoding="utf-8")
    return scenario(WORLD, folder)


def test_no_bin_is_busier_than_it_is_long(tmp_path: Path):
    """Bins that cut steps. Would catch: a step's work or bytes put into the bin of its end, or lost between bins."""
    result = run_scenario(world(tmp_path), check=True)
    series = result.series
    assert series["gpu_share"].max() <= 1 + 1e-9
    assert series["gpu_share"].mean() == pytest.approx(result.summary["utilization"]["gpu"], rel=1e-9)
    stage = next(each for each in explain(result.scenario)["paths"]["read"]["stages"] if each["stage"] == "pool.link.read")
    share = series["far_read_bytes_per_s"].mean() * stage["wire_per_raw"] / stage["bytes_per_s"]
    assert share == pytest.approx(result.summary["utilization"]["pool.link.read"], rel=1e-9)


def test_a_trace_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The trace is gone when the folder is written. Would catch: `explain.json` reading it again, or saying something else."""
    loaded = world(tmp_path)
    result, said = run_scenario(loaded), to_json(explain(loaded))
    monkeypatch.setattr(synthetic, "build", lambda *_: pytest.fail("read again"))
    (tmp_path / "rows.csv").unlink()
    write_run(result, tmp_path / "run")
    assert (tmp_path / "run" / "explain.json").read_text() == said
