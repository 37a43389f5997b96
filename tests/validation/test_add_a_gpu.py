"""Adding a GPU: a YAML file; a measured one: that and a csv."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from analysis.calibration.catalogue import write
from analysis.calibration.gpu import calibrate, entries
from analysis.validation.compare import compare_file
from simulator import kernel_seconds, step_model, step_seconds
from simulator.catalog import loader

CATALOG = Path(str(loader.files("simulator.catalog"))) / "gpus"


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A catalogue of GPUs with one more file: half an L40S."""
    folder = tmp_path / "gpus"
    shutil.copytree(CATALOG, folder)
    text = (folder / "l40s.yaml").read_text(encoding="utf-8")
    (folder / "mine.yaml").write_text(text.replace('"864 GB/s"', '"432 GB/s"'), encoding="utf-8")
    whole = loader._folder
    monkeypatch.setattr(loader, "_folder", lambda kind: folder if kind == "gpus" else whole(kind))
    return folder / "mine.yaml"


def test_a_yaml_is_a_gpu(mine: Path) -> None:
    """Half the bandwidth: decode takes nearly twice as long. Catches a list of GPUs somewhere in the code."""
    slow, fast = (step_seconds(step_model(gpu, "llama-3.1-8b"), [1000]) for gpu in ("mine", "l40s"))
    assert 1.7 < slow / fast < 2.0


@pytest.mark.slow
def test_and_a_csv_makes_it_measured(mine: Path, tmp_path: Path) -> None:
    """Products of a GPU with known constants, as a csv: the fit finds its way back to the times, and writes them down.

    2 % median: the fit sees half of the rows. Catches constants that are printed but not written, and units lost on the way.
    """
    known = {"gemm_bandwidth_efficiency": 0.7, "gemm_flops_efficiency": 0.6, "gemm_sustained_efficiency": 0.6, "launch": 9e-6}
    true = step_model("mine", "llama-3.1-8b", values=known)
    folder = tmp_path / "llama-3.1-8b" / "tp1"
    folder.mkdir(parents=True)
    lines = ["layer,tokens,time_us"]
    for name in ("qkv_proj", "gate_up_proj", "down_proj"):
        sizes = (1, 2, 8, 16, 64, 96, 128, 300, 512, 1000, 2048)
        lines += [f"{name},{rows},{kernel_seconds(true, name, rows) * 1e6}" for rows in sizes]
    table = folder / "dense.csv"
    table.write_text("\n".join(lines))
    before = compare_file(table, "mine")[0].summary()["median_abs_error_pct"]
    result = calibrate("mine", [table])
    write(mine, entries(result))
    after = compare_file(table, "mine")[0].summary()["median_abs_error_pct"]
    assert after < 2.0 < before
    assert loader.load("gpus", "mine").values["calibrated"] is True
    assert result["sha256"][:16] in loader.load("gpus", "mine").sources["launch"]
