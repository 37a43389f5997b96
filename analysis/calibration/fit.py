"""Fitting fields of a GPU to rows of measurements: robust least squares of the relative error, in log space.

A sample is a row with its kind and a weight; a fit is a choice of fields, of starting values, and of samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import least_squares

from analysis.validation.compare import kind_of, placed, read, summary
from analysis.validation.kinds import Bench, Kind, Row

SOFT = 0.02  # relative error above which a sample pulls less than its square: disturbed rows must not bend the fit


STEP = 1e-3  # relative: tiles make the model a little rough
MOST = {"gemm_flops_efficiency": 1.2, "gemm_sustained_efficiency": 1.2, "elementwise_bandwidth_efficiency": 2.0}


def _most(field: str) -> float:
    """Shares end at 1; clocks may exceed the datasheet's, and element-wise parts find some of their bytes in L2."""
    share = field.endswith("_efficiency") or field in ("gemm_exposed", "gemm_tail")
    return MOST.get(field, 1.0 if share else float("inf"))


@dataclass(frozen=True)
class Sample:
    file: str
    kind: Kind
    row: Row
    weight: float = 1.0

    @property
    def truth(self) -> float:
        return float(self.row[self.kind.truth]) * self.kind.unit


def samples(folder: Path, file: str, weight: float = 1.0) -> list[Sample]:
    """The rows of a file that the model speaks of."""
    rows = read(folder / file)
    kind = kind_of(rows, file)
    return [Sample(file, kind, row, weight) for row in rows if kind.counts(row)]


def samples_of(path: Path) -> list[Sample]:
    """The rows of one file; tables of kernel times lie in folders MODEL/tpN."""
    rows = read(path)
    kind = kind_of(rows, str(path))
    placed(rows, kind, path.resolve().parent.parts, str(path), None)
    return [Sample(path.name, kind, row) for row in rows if kind.counts(row)]


def digest(folder: Path, names: Sequence[str]) -> str:
    """sha256 over the named files, in this order: what a fit was made from."""
    return sha256(b"".join((folder / name).read_bytes() for name in names)).hexdigest()


def fit(
    gpu: str,
    start: Mapping[str, float],
    used: Sequence[Sample],
    fixed: Mapping[str, Any] | None = None,
    soft: bool = True,
    evaluations: int | None = None,
) -> dict[str, float]:
    """The values of the fields in `start` that make the model agree best with `used`; not `soft`: plain least squares."""
    names, scale = list(start), np.array(list(start.values()))
    weights = np.array([sample.weight for sample in used])
    truth = np.log([sample.truth for sample in used])
    constant = dict(fixed or {})

    def residuals(relative: np.ndarray) -> np.ndarray:
        bench = Bench(gpu, constant | dict(zip(names, (relative * scale).tolist())))
        model = np.log([sample.kind.predict(bench, sample.row) for sample in used])
        return np.asarray(weights * (model - truth))

    loss = "soft_l1" if soft else "linear"
    scale = np.where(scale > 0.0, scale, 1e-3)
    most = np.array([_most(name) for name in names]) / scale
    begin = np.minimum(1.0, 0.999 * most)
    found = least_squares(residuals, begin, loss=loss, f_scale=SOFT, bounds=(0.0, most), diff_step=STEP, max_nfev=evaluations)
    return dict(zip(names, (found.x * scale).tolist()))


def loss(gpu: str, values: Mapping[str, Any], used: Sequence[Sample]) -> float:
    """What a soft fit to these samples makes small."""
    bench = Bench(gpu, values)
    off = [sample.weight * np.log(sample.kind.predict(bench, sample.row) / sample.truth) for sample in used]
    return float(np.sum(SOFT**2 * (np.sqrt(1.0 + (np.array(off) / SOFT) ** 2) - 1.0)))


def errors(gpu: str, values: Mapping[str, Any], tested: Sequence[Sample], what: str) -> dict[str, Any]:
    """Summary of |model / truth - 1| of the samples."""
    bench = Bench(gpu, values)
    model = np.array([sample.kind.predict(bench, sample.row) for sample in tested])
    row = summary(what, tested[0].kind.truth if tested else "", model, np.array([sample.truth for sample in tested]))
    return {key: value for key, value in row.items() if key != "not_compared"}
