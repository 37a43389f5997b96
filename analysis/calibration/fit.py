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

from analysis.validation.compare import kind_of, read, summary
from analysis.validation.kinds import Bench, Kind, Row

SOFT = 0.02  # relative error above which a sample pulls less than its square: disturbed rows must not bend the fit


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


def digest(folder: Path, names: Sequence[str]) -> str:
    """sha256 over the named files, in this order: what a fit was made from."""
    return sha256(b"".join((folder / name).read_bytes() for name in names)).hexdigest()


def fit(
    gpu: str, start: Mapping[str, float], used: Sequence[Sample], fixed: Mapping[str, float] | None = None, soft: bool = True
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
    found = least_squares(residuals, np.ones(len(names)), loss=loss, f_scale=SOFT, bounds=(0.0, np.inf))
    return dict(zip(names, (found.x * scale).tolist()))


def errors(gpu: str, values: Mapping[str, float], tested: Sequence[Sample], what: str) -> dict[str, Any]:
    """Summary of |model / truth - 1| of the samples."""
    bench = Bench(gpu, values)
    model = np.array([sample.kind.predict(bench, sample.row) for sample in tested])
    row = summary(what, tested[0].kind.truth if tested else "", model, np.array([sample.truth for sample in tested]))
    return {key: value for key, value in row.items() if key != "not_compared"}
