"""The two protocols of an all-reduce from measured times: t = alpha + 2 (n - 1) / n * bytes / bus bandwidth on each side.

    python -m analysis.calibration.collectives      the constants of every table of nccl-tests, beside those of the catalogue

For every possible switch between two measured sizes, each side is fitted by least squares of the relative error; the switch
with the least sum wins. The switch is put at the geometric mean of the two sizes around it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import nnls

from analysis.validation.compare import BUILT_IN, read, summary
from simulator import step_model

DATA = Path(str(files("analysis.validation"))) / "data"
RANKS = 8  # of all tables of nccl-tests


def tables() -> list[dict[str, Any]]:
    """Every table of nccl-tests: fitted constants (SI), those of the catalogue, errors of the fit on all its rows."""
    found = []
    for name, gpu in BUILT_IN.items():
        if name.startswith("nccl_all_reduce"):
            values, errors = two_protocols(DATA / name, RANKS, time="implied_time_us", collective="all_reduce")
            device = step_model(gpu, "llama-2-7b", RANKS).gpu
            held = {field: getattr(device, field) for field in values}
            found.append({"gpu": gpu, "fitted": values, "catalogue": held, "errors": errors})
    return found


def two_protocols(path: Path, ranks: int, size: str = "message_bytes", time: str = "graph_us_median", **only: str) -> Any:
    """((all-reduce fields in SI units), summary of the errors) of the rows that have the values in `only`."""
    rows = [row for row in read(path) if all(row[column] == value for column, value in only.items())]
    rows.sort(key=lambda row: float(row[size]))
    sizes = np.array([float(row[size]) for row in rows])
    times = np.array([float(row[time]) * 1e-6 for row in rows])
    candidates = [_split(sizes, times, ranks, at) for at in range(2, len(rows) - 1)]
    values, model = min(candidates, key=lambda found: float(np.sum((found[1] / times - 1.0) ** 2)))
    return values, summary(f"{path.name}, fitted", time, model, times)


def _split(sizes: np.ndarray, times: np.ndarray, ranks: int, at: int) -> tuple[dict[str, float], np.ndarray]:
    small, large = slice(0, at), slice(at, None)
    model = np.empty_like(times)
    found = []
    for part in (small, large):
        terms = np.stack([np.ones_like(sizes[part]), 2 * (ranks - 1) / ranks * sizes[part]], axis=1)
        (latency, per_byte), _ = nnls(terms / times[part, None], np.ones_like(times[part]))
        model[part] = terms @ [latency, per_byte]
        found += [float(latency), float(1.0 / per_byte) if per_byte > 0 else float("inf")]
    names: Sequence[str] = (
        "all_reduce_small_latency", "all_reduce_small_bandwidth", "all_reduce_latency", "all_reduce_bandwidth",
    )  # fmt: skip
    return dict(zip(names, found)) | {"all_reduce_switch": float(np.sqrt(sizes[at - 1] * sizes[at]))}, model


if __name__ == "__main__":
    print(json.dumps(tables(), indent=1))
