"""`run --timeline`, `plot` and `report` as commands."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

from tests.cli.conftest import Speckvsim, files_in


def test_command_writes_the_same_bytes(scenario: Path, speckvsim: Speckvsim):
    """Would catch: a date in the gzip header; `--timeline` without a folder; a wrong window; a file beside `--json`."""
    for name in ("a", "b"):
        assert speckvsim("run", scenario, "--timeline", "--quiet", "--out", name).code == 0
    one, other = (Path(name, "timeline.json.gz").read_bytes() for name in ("a", "b"))
    assert one == other and json.loads(gzip.decompress(one))["traceEvents"]
    windows = (["--window", "1 s,2 s"], ["--timeline", "--window", "2 s,1 s"], ["--timeline", "--window", "x"])
    for wrong in (["--timeline", "--json"], *windows):
        done = speckvsim("run", scenario, *wrong)
        assert done.code == 2 and "Traceback" not in done.err and "1 problem" in done.err, wrong


def test_plot_and_report_write_into_the_run(scenario: Path, speckvsim: Speckvsim):
    """Would catch: figures elsewhere than told, `--json` that is not one document, a folder that no run can replace then."""
    assert speckvsim("run", scenario, "--quiet", "--out", "a").code == 0
    done = speckvsim("plot", "a", "--only", "attribution,cost", "--json")
    assert done.code == 0, done.err
    assert [row["figure"] for row in json.loads(done.out)["rows"]] == ["attribution", "cost"]
    assert {f"figures/cost.{kind}" for kind in ("pdf", "svg", "png", "csv", "txt")} <= files_in(Path("a"))
    assert speckvsim("report", "a").code == 0 and Path("a/report.html").stat().st_size > 10_000
    assert speckvsim("run", scenario, "--quiet", "--out", "a").code == 0


def test_wrong_results_are_named(scenario: Path, speckvsim: Speckvsim):
    """Would catch: a traceback for a folder that is none; only the first of two wrong ones named; something half-written."""
    for command in ("plot", "report"):
        done = speckvsim(command, "nowhere", scenario)
        assert done.code == 2 and "nowhere" in done.err and "tiny.yaml" in done.err and "2 problems" in done.err
    assert speckvsim("run", scenario, "--quiet", "--out", "a").code == 0
    done = speckvsim("plot", "a", "--only", "atribution")
    assert done.code == 2 and "did you mean 'attribution'?" in done.err and "a/figures" not in files_in(Path())
