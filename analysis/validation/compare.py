"""Compare a file of measurements, or those that come with the package, with the model.

A row of the result: data set, metric, n, median, 95th percentile and worst of |model / truth - 1| in percent, and the bias,
the mean of model / truth - 1. Rows of a file that the model does not speak of (L2 hits among link latencies) are counted, not
hidden.
Tables of kernel times give two rows, one of them without kernels below 50 us, whose times are mostly start-up and caches.
"""

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.validation.kinds import KINDS, Bench, Kind, Row
from simulator.errors import InputError, Problem, did_you_mean

Floats = NDArray[np.float64]

MOST_PROBLEMS = 20  # that are listed of one file
DEFAULT_GPU = "h100-80gb-sxm"
BUILT_IN = {  # file in `data/` -> the GPU it was measured on
    "decode_llama-2-7b.csv": "h100-80gb-sxm",
    "decode_llama-70b.csv": "h100-80gb-sxm",
    "decode_ragged_llama-2-7b.csv": "h100-80gb-sxm",
    "prefill_llama-2-7b.csv": "h100-80gb-sxm",
    "prefill_llama-70b.csv": "h100-80gb-sxm",
    "prefix_load_llama-2-7b.csv": "h100-80gb-sxm",
    "prefix_load_offloaded_llama-2-7b.csv": "h100-80gb-sxm",
    "offload_llama-2-7b_b8.csv": "h100-80gb-sxm",
    "link_copy_size.csv": "h100-80gb-sxm",
    "link_scattered_pages.csv": "h100-80gb-sxm",
    "link_latency.csv": "h100-80gb-sxm",
    "link_overlap.csv": "h100-80gb-sxm",
    "two_gpu_host_link.csv": "h100-80gb-sxm",
    "gemm.csv": "h100-80gb-sxm",
    "gemm_vidur_a100.csv": "a100-80gb-sxm",
    "two_gpu_allreduce.csv": "h100-80gb-sxm",
    "nccl_all_reduce_a100.csv": "a100-80gb-sxm",
    "nccl_all_reduce_h100.csv": "h100-80gb-sxm",
    "nccl_all_reduce_h200.csv": "h200-141gb-sxm",
    "power.csv": "h100-80gb-sxm",
    "power_offload.csv": "h100-80gb-sxm",
}


TABLES = {  # folder in `data/kernels/` -> files in it
    "rtx-pro-6000/llama-3.1-8b/tp1": ("dense", "per_sequence", "attention", "skew"),
    "rtx-pro-6000/llama-3.1-8b/tp2": ("dense", "per_sequence", "attention", "skew"),
    "rtx-pro-6000/qwen3-30b-a3b/tp1": ("dense", "per_sequence", "attention", "skew", "moe"),
    "rtx-4090/llama-3.1-8b/tp1": ("dense", "per_sequence", "attention", "skew"),
}
LONG = 50e-6  # s: kernels of at least this have a limit of their own


@dataclass(frozen=True)
class Compared:
    """Model and truth of every row that was compared, in the unit of the metric."""

    data_set: str
    metric: str
    rows: list[str]  # the line of a row in its file, or its id
    model: Floats
    truth: Floats
    left_out: int = 0  # rows of the file that the model does not speak of
    subset: bool = False  # its rows are in another one already

    def summary(self) -> dict[str, Any]:
        """A row of the table."""
        return summary(self.data_set, self.metric, self.model, self.truth, self.left_out)


def read(path: Path | Traversable) -> list[dict[str, str]]:
    """The rows of a csv file, gzipped or not; lines that begin with # are comments."""
    return [row for _, row in numbered(path)]


def numbered(path: Path | Traversable) -> list[tuple[int, dict[str, str]]]:
    """The same with the line each row ends in."""
    data = path.read_bytes()
    text = (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode("utf-8-sig")
    lines = ["\n" if line.startswith("#") else line for line in io.StringIO(text, newline="")]
    above = next((number for number, line in enumerate(lines) if line.strip()), 0)
    reader = csv.DictReader(lines[above:])  # it skips the empty lines below its header
    return [
        (above + reader.line_num, {key.strip(): (cell or "").strip() for key, cell in row.items() if key}) for row in reader
    ]


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


def placed(rows: list[dict[str, str]], kind: Kind, folders: tuple[str, ...], file: str, model: str | None) -> None:
    """Give rows of a kernel table their model and degree of tensor parallelism: columns, else the folders MODEL/tpN."""
    if not kind.table or not rows or "model" in rows[0]:
        return
    ranks = re.fullmatch(r"tp(\d+)", folders[-1]) if folders else None
    name = model or (folders[-2] if ranks and len(folders) > 1 else "")
    if not name:
        hint = "give the columns model and tp, put the file into folders MODEL/tpN, or say --model-config"
        raise InputError(Problem(file, "", f"a {kind.name} table of what model?", hint))
    for row in rows:
        row |= {"model": name, "tp": ranks[1] if ranks else "1"}


def pairs(rows: list[tuple[int, dict[str, str]]], kind: Kind, bench: Bench, file: str) -> tuple[list[str], Floats, Floats]:
    """(line, model, truth in SI) of the rows that count; InputError names the line of every bad cell."""
    lines, model, truth = [], [], []
    problems: list[Problem] = []
    for line, row in rows:
        where = f"{file}:{line}"
        try:
            if not kind.counts(row):
                continue
            model.append(_predict(kind, bench, row, where))
            truth.append(_number(row[kind.truth], where, kind.truth) * kind.unit)
            lines.append(str(line))
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems[:MOST_PROBLEMS])
    return lines, np.array(model), np.array(truth)


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


def compare(
    path: Path | Traversable, gpu: str = DEFAULT_GPU, folders: tuple[str, ...] = (), config: Path | None = None
) -> list[Compared]:
    """One file, which lies in `folders`, against the model of `gpu`; `config`, a config.json, is the model
    of a table that does not say whose it is, and of rows whose model is not in the catalogue."""
    file = str(path) if isinstance(path, Path) else path.name
    lines = numbered(path)
    rows = [row for _, row in lines]
    kind = kind_of(rows, file)
    placed(rows, kind, folders, file, str(config) if config else None)
    where, found, truth = pairs(lines, kind, Bench(gpu, config=config), file)
    model, measured, left_out = found / kind.unit, truth / kind.unit, len(rows) - len(where)
    name = path.name.split(".csv")[0]
    if not kind.table:
        return [Compared(name, kind.truth, where, model, measured, left_out)]
    name = "/".join((gpu, rows[0]["model"].rpartition("/")[2], f"tp{rows[0].get('tp') or 1}", name))
    long = np.flatnonzero(truth >= LONG)
    above = [where[index] for index in long.tolist()]
    return [
        Compared(name, kind.truth, where, model, measured, left_out),
        Compared(
            name, f"{kind.truth}, 50 us and more", above, model[long], measured[long], len(rows) - len(above), subset=True
        ),
    ]  # fmt: skip


def compare_file(path: Path, gpu: str, config: Path | None = None) -> list[Compared]:
    """The user's own file; InputError if it cannot be read."""
    try:
        return compare(path, gpu, path.resolve().parent.parts, config)
    except OSError as error:
        raise InputError(Problem(str(path), "", f"cannot be read: {(error.strerror or str(error)).lower()}")) from error
    except (UnicodeDecodeError, csv.Error, EOFError, zlib.error) as error:
        raise InputError(Problem(str(path), "", f"is not a csv file of text: {error}")) from error


def built_in() -> list[Compared]:
    """All measurements that come with the package."""
    folder = files("analysis.validation").joinpath("data")
    found = [row for name, gpu in BUILT_IN.items() for row in compare(folder.joinpath(name), gpu)]
    for place, names in TABLES.items():
        parts = tuple(place.split("/"))
        for name in names:
            found += compare(folder.joinpath("kernels", *parts, f"{name}.csv.gz"), parts[0], parts)
    return found
