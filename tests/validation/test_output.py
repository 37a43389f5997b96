"""What `validate` writes: the rows, the table, the figure; whole or not at all."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from analysis.validation import figure, output
from analysis.validation.compare import Compared
from simulator.errors import InputError

FOUND = [
    Compared("mine", "step_ms_median", ["2", "5"], np.array([1.1, 20.0]), np.array([1.0, 25.0]), 1),
    Compared("yours", "power_w_median", ["3"], np.array([300.0]), np.array([310.0])),
    Compared("nothing", "us_median", [], np.array([]), np.array([]), 4),
]


def test_rows_and_table(tmp_path: Path) -> None:
    """Every compared row with its error, every data set with its summary. Catches model and truth swapped, rows lost."""
    output.write(FOUND, tmp_path)
    rows = list(csv.DictReader((tmp_path / output.ROWS).open()))
    assert list(rows[0]) == ["data_set", "row", "metric", "measured", "model", "error_pct"]
    assert [(row["data_set"], row["row"], row["measured"], row["model"], row["error_pct"]) for row in rows] == [
        ("mine", "2", "1", "1.1", "10.000"),
        ("mine", "5", "25", "20", "-20.000"),
        ("yours", "3", "310", "300", "-3.226"),
    ]
    table = list(csv.DictReader((tmp_path / output.TABLE).open()))
    assert [(row["data_set"], row["n"], row["not_compared"]) for row in table] == [
        ("mine", "2", "1"), ("yours", "1", "0"), ("nothing", "0", "4"),
    ]  # fmt: skip


def test_same_rows_same_bytes(tmp_path: Path) -> None:
    """Catches dates and random ids in the figures."""
    for name in ("one", "two"):
        output.write(FOUND, tmp_path / name)
    names = sorted(file.name for file in (tmp_path / "one").iterdir())
    assert names == sorted([output.ROWS, output.TABLE, "validate.pdf", "validate.png", "validate.svg", "validate.txt"])
    assert all((tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes() for name in names)


def test_fonts_are_embedded(tmp_path: Path) -> None:
    """TrueType in the pdf, outlines in the svg. Catches text that looks different elsewhere."""
    output.write(FOUND, tmp_path)
    assert b"/FontFile2" in (tmp_path / "validate.pdf").read_bytes()
    assert b"<text" not in (tmp_path / "validate.svg").read_bytes()


def test_other_files_stay(tmp_path: Path) -> None:
    """Catches a folder that is emptied, and one that keeps what was temporary."""
    (tmp_path / "mine.txt").write_text("kept")
    output.write(FOUND, tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "kept"
    assert not [file.name for file in tmp_path.iterdir() if file.name.startswith(".")]


def test_nothing_is_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault while the figure is drawn leaves no folder. Catches a csv without its figure."""

    def fault(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(figure, "draw", fault)
    with pytest.raises(InputError, match=r"cannot be written: No space left"):
        output.write(FOUND, tmp_path / "a" / "b")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("step_ms_median", ("step", "ms", 1.0)),
        ("kernel_us", ("kernel", "us", 1.0)),
        ("read_gb_s", ("read", "GB/s", 1.0)),
        ("slowdown", ("slowdown", "", 1.0)),
        ("ttft_s.p99", ("time to first token", "ms", 1e3)),
    ],
)
def test_axes_have_units(metric: str, expected: tuple[str, str, float]) -> None:
    """Catches an axis without its unit where the metric names one."""
    assert figure.quantity(metric) == expected
