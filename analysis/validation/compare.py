"""Compare a file of measurements, or those that come with the package, with the model.

A row of the result: data set, metric, n, median, 95th percentile and worst of |model / truth - 1| in percent, and the bias,
the mean of model / truth - 1. Rows of a file that the model does not speak of (KV in host memory) are counted, not hidden.
"""

from __future__ import annotations

import csv
import gzip
import io
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import numpy as np

from analysis.validation.kinds import KINDS, Bench, Kind, Row
from simulator.errors import InputError, Problem, did_you_mean

DEFAULT_GPU = "h100-80gb-sxm"
BUILT_IN = {  # file in `data/` -> the GPU it was measured on
    "decode_llama-2-7b.csv": "h100-80gb-sxm",
    "decode_llama-70b.csv": "h100-80gb-sxm",
    "decode_ragged_llama-2-7b.csv": "h100-80gb-sxm",
    "prefill_llama-2-7b.csv": "h100-80gb-sxm",
    "prefill_llama-70b.csv": "h100-80gb-sxm",
    "prefix_load_llama-2-7b.csv": "h100-80gb-sxm",
    "gemm.csv": "h100-80gb-sxm",
    "gemm_vidur_a100.csv": "a100-80gb-sxm",
    "two_gpu_allreduce.csv": "h100-80gb-sxm",
    "power.csv": "h100-80gb-sxm",
}


def read(path: Path | Traversable) -> list[dict[str, str]]:
    """The rows of a csv file, gzipped or not; lines that begin with # are comments."""
    data = path.read_bytes()
    text = (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode("utf-8-sig")
    lines = (line for line in io.StringIO(text, newline="") if not line.startswith("#"))
    return [{key.strip(): (cell or "").strip() for key, cell in row.items() if key} for row in csv.DictReader(lines)]


def kind_of(rows: list[dict[str, str]], file: str) -> Kind:
    """What the file holds, by its columns; InputError with all kinds if none fits."""
    columns = set(rows[0]) if rows else set()
    for kind in KINDS:
        if kind.columns <= columns:
            return kind
    closest = max(KINDS, key=lambda kind: len(kind.columns & columns) / len(kind.columns))
    missing = sorted(closest.columns - columns)
    near = [hint for column in missing if (hint := did_you_mean(column, columns))]
    listing = "\n    ".join(f"{kind.name}: {', '.join(sorted(kind.columns))}" for kind in KINDS)
    hint = f"nearest is {closest.name}, without {', '.join(missing)} {' '.join(near)}".rstrip() + f"\n    kinds:\n    {listing}"
    message = "no rows" if not rows else "these columns are no known kind of measurement"
    raise InputError(Problem(file, "", message, hint))


def pairs(rows: list[dict[str, str]], kind: Kind, bench: Bench, file: str) -> tuple[np.ndarray, np.ndarray]:
    """(model, truth) in SI of the rows that count; InputError names the line of a bad cell."""
    counted = [(f"{file}:{line}", row) for line, row in enumerate(rows, 2) if kind.counts(row)]
    model = np.array([_predict(kind, bench, row, where) for where, row in counted])
    truth = np.array([_number(row[kind.truth], where, kind.truth) * kind.unit for where, row in counted])
    return model, truth


def _predict(kind: Kind, bench: Bench, row: Row, where: str) -> float:
    try:
        return kind.predict(bench, row)
    except InputError as error:
        found = [Problem(where, problem.field, problem.message, problem.hint) for problem in error.problems]
        raise InputError(found) from error
    except ValueError as error:
        raise InputError(Problem(where, "", f"not readable as a row of kind {kind.name}: {error}")) from error


def _number(text: str, where: str, column: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value < float("inf"):
        raise InputError(Problem(where, column, f"expected a number above 0, found '{text}'"))
    return value


def summary(data_set: str, metric: str, model: np.ndarray, truth: np.ndarray, left_out: int = 0) -> dict[str, Any]:
    """One row of the result."""
    error = 100.0 * (model / truth - 1.0)
    size = np.abs(error)
    empty = len(error) == 0
    return {
        "data_set": data_set,
        "metric": metric,
        "n": len(error),
        "median_abs_error_pct": None if empty else float(np.median(size)),
        "p95_abs_error_pct": None if empty else float(np.percentile(size, 95)),
        "worst_abs_error_pct": None if empty else float(size.max()),
        "bias_pct": None if empty else float(error.mean()),
        "not_compared": left_out,
    }


def compare(path: Path | Traversable, gpu: str = DEFAULT_GPU) -> dict[str, Any]:
    """One file against the model of `gpu`."""
    file = str(path) if isinstance(path, Path) else path.name
    rows = read(path)
    kind = kind_of(rows, file)
    model, truth = pairs(rows, kind, Bench(gpu), file)
    return summary(path.name.split(".csv")[0], kind.truth, model, truth, len(rows) - len(model))


def compare_file(path: Path, gpu: str) -> dict[str, Any]:
    """The user's own file; InputError if it cannot be read."""
    try:
        return compare(path, gpu)
    except OSError as error:
        raise InputError(Problem(str(path), "", f"cannot be read: {(error.strerror or str(error)).lower()}")) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(Problem(str(path), "", f"is not a csv file of text: {error}")) from error


def built_in() -> list[dict[str, Any]]:
    """All measurements that come with the package."""
    folder = files("analysis.validation").joinpath("data")
    return [compare(folder.joinpath(name), gpu) for name, gpu in BUILT_IN.items()]
