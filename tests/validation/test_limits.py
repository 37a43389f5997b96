"""The limits that the GPU model has to hold against measurements; the tables behind them are `speckvsim validate`.

Limits are (median, 95th percentile) of |model / truth - 1| in percent. For steps they hold on the rows that the fit did
not use, which `analysis.calibration.h100` picks again here. Everything runs from the data in the package.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest

from analysis.calibration import h100
from analysis.calibration.fit import digest, errors, fit, samples
from analysis.validation.compare import built_in
from simulator import catalog

DATA = Path(str(files("analysis.validation"))) / "data"
LIMITS = {
    "decode_llama-2-7b.csv": (1.5, 5.0),
    "decode_llama-70b.csv": (1.5, 5.0),
    "decode_ragged_llama-2-7b.csv": (4.0, 12.0),
    "prefill_llama-2-7b.csv": (3.0, 8.0),
    "prefill_llama-70b.csv": (3.0, 8.0),
    "prefix_load_llama-2-7b.csv": (4.0, 10.0),
    "gemm.csv": (6.0, 15.0),
}


@pytest.mark.parametrize("file", LIMITS)
def test_rows_held_back_from_the_fit(file: str) -> None:
    """Catches a change of the step model or of the catalogue that makes it worse than promised, on rows it never saw."""
    _, held = h100.halves({file: samples(DATA, file)})
    found = errors(h100.GPU, {}, held[file], file)
    assert found["n"] >= 3
    assert found["median_abs_error_pct"] <= LIMITS[file][0]
    assert found["p95_abs_error_pct"] <= LIMITS[file][1]


def test_every_built_in_set_is_compared() -> None:
    """All rows, fitted or not. Catches a set that is skipped, and power or all-reduce out of bounds."""
    rows = {row["data_set"]: row for row in built_in()}
    assert all(row["n"] > 0 and row["not_compared"] == 0 for row in rows.values())
    assert {f"{name}.csv" for name in rows} >= set(LIMITS)
    assert rows["two_gpu_allreduce"]["worst_abs_error_pct"] <= 10.0
    assert rows["power"]["worst_abs_error_pct"] <= 8.0
    assert rows["gemm"]["p95_abs_error_pct"] <= 15.0
    assert rows["gemm_vidur_a100"]["median_abs_error_pct"] <= 6.0


def test_one_model_predicts_the_other() -> None:
    """Products and element-wise parts from Llama-70B, attention from a tenth of Llama-2-7B's cells: the rest of those.

    Catches constants that describe one model's shapes only. The other direction does not hold (catalog/README.md).
    """
    rows = {row["data_set"].split(",")[0]: row for row in h100.across(DATA, h100.SEVENTY, h100.SEVEN)}
    assert rows["decode_llama-2-7b.csv"]["median_abs_error_pct"] <= 3.0
    assert rows["decode_llama-2-7b.csv"]["p95_abs_error_pct"] <= 8.0
    assert rows["prefill_llama-2-7b.csv"]["p95_abs_error_pct"] <= 8.0


def test_catalogue_names_the_data_it_was_fitted_to() -> None:
    """Catches data changed without a new fit: the hash in the catalogue is that of the files in the package."""
    source = catalog.load("gpus", h100.GPU).sources["gemm_flops_efficiency"]
    assert digest(DATA, h100.FILES)[:16] in source


@pytest.mark.slow
def test_the_fit_can_be_repeated() -> None:
    """Catches catalogue values edited by hand, and a fit that ends elsewhere when it starts elsewhere."""
    used, _ = h100.halves({file: samples(DATA, file) for file in h100.STEPS})
    start = {name: value * 1.1 for name, value in h100.START.items()}
    values = fit(h100.GPU, start, [sample for part in used.values() for sample in part])
    entry = catalog.load("gpus", h100.GPU).values
    for name, value in values.items():
        scale = h100.UNITS.get(name, (1.0, ""))[0]
        assert value / scale == pytest.approx(float(str(entry[name]).split()[0]), rel=0.02), name
