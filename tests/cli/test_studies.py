"""The commands for studies: what they print, what they refuse, what they leave behind."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.conftest import Speckvsim, files_in

ROOT = Path(__file__).parents[2]
STUDY = """\
name: links
base: tiny.yaml
axes:
  cluster.kv_pool.link: [pcie-gen3-x16, pcie-gen5-x16]
  kv.l1: [200 MiB, 256 MiB]
arms:
  next_layer: {prefetch: {predictor: next_layer}}
  none: {prefetch: {predictor: none}}
replications: 2
metrics: [throughput.output_tokens_per_s, latency.ttft_s.p99]
analyses:
  trend: {axis: kv.l1}
search:
  cheapest: {require: latency.ttft_s.p99 <= 1 h}
"""


@pytest.fixture
def study(scenario: Path) -> Path:
    file = scenario.with_name("links.yaml")
    file.write_text(STUDY, encoding="utf-8")
    return file


def test_dry_run(study: Path, speckvsim: Speckvsim):
    """Would catch: a dry run that writes, or that counts points wrong."""
    before = files_in(study.parent)
    done = speckvsim("sweep", study, "--dry-run", "--jobs", "2")
    assert done.code == 0 and done.out.startswith("8 points, 2 replications each: 16 different runs of about ")
    assert done.out.endswith(" on 2 processes\n") and files_in(study.parent) == before
    found = json.loads(speckvsim("sweep", study, "--dry-run", "--json").out)
    assert (found["points"], found["runs"]) == (8, 16)


def test_sweep_search_compare(study: Path, speckvsim: Speckvsim):
    """One folder after the other command. Would catch: tables and JSON apart, a search that runs again what is there."""
    done = speckvsim("sweep", study, "--out", "out", "--quiet")
    assert done.code == 0 and done.err == "" and "8 points, 16 new runs; results in out" in done.out
    assert {"study.yaml", "results.parquet", "insight.json", "insight/trend.parquet"} <= files_in(Path("out"))
    found = json.loads(speckvsim("sweep", study, "--out", "out", "--json").out)
    assert len(found["rows"]) == 8 and found["failed"] == 0 and len(found["insight"]["sentences"]) == 4
    for row in found["rows"]:
        mean = row["throughput.output_tokens_per_s"]
        assert mean["low"] < mean["mean"] < mean["high"] and row["replications"] == 2
    sought = speckvsim("search", study, "--out", "out", "--quiet")
    assert sought.code == 0 and "The cheapest of 8 designs" in sought.out
    rows = json.loads(speckvsim("search", study, "--out", "out", "--json", "--quiet").out)["rows"]
    assert (Path("out") / "points" / f"{rows[-1]['point_id']}.yaml").exists()
    compared = speckvsim("compare", "out")
    assert compared.code == 0 and compared.out.startswith("baseline: next_layer\n")
    assert len(json.loads(speckvsim("compare", "out", "--json").out)["rows"]) == 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sweep", "nowhere.yaml"], "nowhere.yaml: no such file"),
        (["sweep", "links.yaml", "--backend", "dusk"], "did you mean 'dask'?"),
        (["sweep", "links.yaml", "--scheduler", "tcp://127.0.0.1:1"], "is for --backend dask"),
        (["sweep", "tiny.yaml"], "tiny.yaml: is a scenario; expected a study"),
        (["sweep", "links.yaml", "--out", "tiny.yaml"], "is a file; expected a folder"),
        (["sweep", "links.yaml", "--out", "."], "is not a sweep"),
        (["search", "tiny.yaml"], "is a scenario; expected a study"),
        (["compare", "nowhere"], "no such folder"),
    ],
)
def test_wrong_input(arguments: list[str], message: str, study: Path, speckvsim: Speckvsim):
    """Would catch: a traceback, exit code 1, or files for the user's mistake."""
    before = files_in(study.parent)
    done = speckvsim(*arguments)
    assert done.code == 2 and done.out == "" and message in done.err and "Traceback" not in done.err
    assert files_in(study.parent) == before


def test_no_scheduler_there(study: Path, speckvsim: Speckvsim, monkeypatch: pytest.MonkeyPatch):
    """Would catch: a traceback, or waiting without end, for a wrong address."""
    pytest.importorskip("distributed")
    monkeypatch.setattr("simulator.experiments.studies.engines._CONNECT", 1)
    done = speckvsim("sweep", study, "--backend", "dask", "--scheduler", "tcp://127.0.0.1:9")
    assert done.code == 2 and "no Dask scheduler answers there" in done.err and "Traceback" not in done.err


def test_schema(speckvsim: Speckvsim):
    """Would catch: a schema of studies that lacks a key."""
    document = json.loads(speckvsim("schema", "--study").out)
    keys = {
        "name",
        "base",
        "axes",
        "combine",
        "n",
        "arms",
        "when",
        "replications",
        "until",
        "seed",
        "metrics",
        "analyses",
        "search",
    }
    assert document["properties"].keys() == keys


def test_ctrl_c_keeps_what_is_finished(study: Path):
    """Would catch: Ctrl-C as a traceback, a message that nothing was written, rows that are lost."""
    text = study.read_text(encoding="utf-8").replace("replications: 2", "replications: 400")
    study.write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "simulator.cli", "sweep", str(study), "--out", "out", "--jobs", "1", "--quiet"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    heard = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # also where the tests themselves ignore it
    process = subprocess.Popen(
        command, cwd=study.parent, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, preexec_fn=heard
    )
    runs = study.parent / "out" / "runs"
    deadline = time.monotonic() + 60
    while not (runs.is_dir() and len(list(runs.glob("*.json"))) > 3) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and out == "" and "Traceback" not in err
    assert err == "interrupted; finished runs are kept in out, and the same command goes on\n"
    assert (study.parent / "out" / "results.parquet").exists()
