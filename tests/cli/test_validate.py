"""`speckvsim validate` as a user meets it: files, wrong files, and data that is found wherever the package is."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import pytest

from analysis.validation import asked
from analysis.validation.compare import BUILT_IN
from analysis.validation.serving import serving
from analysis.validation.serving_rows import rows
from tests.cli.conftest import Speckvsim, files_in

DECODE = "model,batch,context,step_ms_median\nllama-2-7b,8,1024,4.1\nllama-2-7b,16,1024,4.8\n"
WRITTEN = {"validate.csv", "validate_rows.csv", "validate.pdf", "validate.png", "validate.svg", "validate.txt"}


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's file in an empty current folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    file = tmp_path / "mine.csv"
    file.write_text(DECODE)
    return file


def test_writes_to_results(speckvsim: Speckvsim, mine: Path) -> None:
    """Without options: table here, files in results/validate. Catches a default that writes elsewhere."""
    done = speckvsim("validate", "--data", mine)
    assert (done.code, done.err) == (0, "")
    assert files_in(Path("results/validate")) == WRITTEN
    assert "results/validate" in done.out


def test_json_writes_nothing_unless_told(speckvsim: Speckvsim, mine: Path) -> None:
    """`--json` is for programs: one document, no files. With `--out` both."""
    done = speckvsim("validate", "--data", mine, "--json")
    assert list(json.loads(done.out)) == ["rows"]
    assert files_in(Path()) == set()
    speckvsim("validate", "--data", mine, "--json", "--out", "there")
    assert files_in(Path("there")) == WRITTEN


def test_folder_is_looked_at_first(speckvsim: Speckvsim, mine: Path) -> None:
    """Catches minutes of work before the message that its place is a file."""
    Path("there").write_text("")
    done = speckvsim("validate", "--data", mine, "--out", "there")
    assert (done.code, done.out) == (2, "")
    assert "is a file; expected a folder" in done.err


def test_all_bad_rows_in_one_pass(speckvsim: Speckvsim, mine: Path) -> None:
    """Each with its line in the file, comments and empty lines counted. Catches a message for the first row only."""
    lines = DECODE.splitlines()
    bad = ["llama-2-7b,x,1,2", "llama-2-8b,1,1,2", "llama-2-7b,8,1,-1"]
    mine.write_text("\n".join(["# made by hand", lines[0], lines[1], "# half", "", *bad]))
    done = speckvsim("validate", "--data", mine)
    assert (done.code, done.out) == (2, "")
    assert f"{mine}:6: not readable as a row of kind decode" in done.err
    assert f"{mine}:7: 'llama-2-8b' is not a known model" in done.err
    assert f"{mine}:8  step_ms_median: expected a number above 0, found '-1'" in done.err
    assert "3 problems" in done.err
    assert files_in(Path()) == set()


def test_unknown_columns_list_the_kinds(speckvsim: Speckvsim, mine: Path) -> None:
    """Exit 2, all kinds, and what the nearest lacks."""
    mine.write_text("model,batch,contexd,step_ms_median\nllama-2-7b,8,1024,3\n")
    done = speckvsim("validate", "--data", mine)
    assert (done.code, done.out) == (2, "")
    assert "these columns are no known kind of measurement" in done.err
    assert "without context" in done.err and "did you mean 'contexd'?" in done.err
    assert all(f"{kind}:" in done.err for kind in ("decode", "mixed", "prefill", "gemm", "power"))


def test_data_comes_with_the_package() -> None:
    """Everything `validate` reads is found as a resource of the package. Catches data that only the repository has."""
    folder = files("analysis.validation").joinpath("data")
    needed = [*BUILT_IN, "serving_measurements.csv", "serving_engines.yaml", "serving_reasons.yaml"]
    assert all(folder.joinpath(name).is_file() for name in needed)


def test_json_of_all_there_is(speckvsim: Speckvsim, mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys that others rely on, with a part of the published rows and no recorded run. Catches a changed document."""
    monkeypatch.setattr(asked, "serving", lambda: serving(rows()[:4] + rows()[-4:]))
    monkeypatch.setattr(asked, "built_in_runs", list)
    document = json.loads(speckvsim("validate", "--json").out)
    assert list(document) == ["rows", "serving"]
    keys = {"data_set", "metric", "n", "median_abs_error_pct", "p95_abs_error_pct", "worst_abs_error_pct", "bias_pct"}
    assert all(keys <= set(row) for row in document["rows"])
    assert {name.removesuffix(".csv") for name in BUILT_IN} <= {row["data_set"] for row in document["rows"]}
    counts = {key: document["serving"][key] for key in ("rows", "expressible", "fitted", "held_back")}
    assert counts["rows"] == 8 and counts["expressible"] == counts["fitted"] + counts["held_back"] == 4
    assert [set(row) for row in document["serving"]["not_expressible"]] == [{"row", "missing"}] * 4
    assert files_in(Path()) == set()


@pytest.mark.slow
def test_everything_at_once(speckvsim: Speckvsim, mine: Path) -> None:
    """All data sets, the published rows, the recorded runs; files beside. Catches a part that is not asked for."""
    done = speckvsim("validate", "--out", "there")
    assert (done.code, files_in(Path("there"))) == (0, WRITTEN)
    sets = {line.split(",")[0].strip('"') for line in Path("there/validate.csv").read_text().splitlines()}
    assert any("vllm_measured" in name or "Llama" in name for name in sets)
    assert "expressible and run" in done.out and "Likely reasons" in done.out and "Not expressible" in done.out
