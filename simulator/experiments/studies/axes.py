"""Values of the axes, and how they are combined into points.

    grid     every combination, the last axis fastest        zip     the axes side by side, equally long
    random   independent uniform draws                       lhs     Latin hypercube        sobol   scrambled Sobol points

A list axis is a finite set; a range {from, to, n, scale} gives n values to grid and zip, and all between its ends to
the sampled designs. `scale: log` spaces (or draws) the logarithm. Fields that count things get whole numbers.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import exp, log
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator.experiments.studies.fields import Refused, ScenarioField

RANGE_KEYS = ("from", "to", "n", "scale")


@dataclass(frozen=True)
class Axis:
    """One scenario field and the values it takes."""

    field: ScenarioField
    values: tuple[Any, ...]  # as a scenario writes them; of a range: the n of grid and zip
    ends: tuple[float, float] | None = None  # of a range, SI
    log: bool = False

    @property
    def path(self) -> str:
        return self.field.path

    def at(self, share: float) -> Any:
        """The value at a share in [0, 1) of the axis."""
        if self.ends is None:
            return self.values[min(int(share * len(self.values)), len(self.values) - 1)]
        low, high = self.ends
        if self.field.whole:  # every whole number has the same share
            return self.field.written(min(low + int(share * (high - low + 1)), high))
        number = exp(log(low) + share * (log(high) - log(low))) if self.log else low + share * (high - low)
        return self.field.written(number)


def axis(field: ScenarioField, spec: Any, sampled: bool) -> Axis:
    """Refused if `spec` is neither a list of values nor a range that fits the field."""
    if isinstance(spec, list) and spec:
        for value in spec:
            field.check(value)
        return Axis(field, tuple(spec))
    if not isinstance(spec, dict):
        raise Refused("expected a list of values or {from, to, n, scale}")
    unknown = [key for key in spec if key not in RANGE_KEYS]
    missing = [key for key in ("from", "to") if key not in spec]
    if unknown or missing:
        said = f"unknown key '{unknown[0]}'" if unknown else f"missing {' and '.join(missing)}"
        raise Refused(f"{said} of a range; expected {{from, to, n, scale}}")
    low, high = field.number(spec["from"]), field.number(spec["to"])
    scale, count = spec.get("scale", "linear"), spec.get("n")
    if scale not in ("linear", "log"):
        raise Refused(f"scale is {scale!r}; expected linear or log")
    if scale == "log" and min(low, high) <= 0:
        raise Refused("scale: log needs both ends above 0")
    if count is None and not sampled:
        raise Refused("a range needs n, the number of values")
    if count is not None and (not isinstance(count, int) or isinstance(count, bool) or count < 1):
        raise Refused(f"n is {count!r}; expected a whole number of at least 1")
    numbers = _spread(low, high, count or 2, scale == "log")
    last = [spec["to"]] if len(numbers) > 1 else []
    values = (spec["from"], *(field.written(number) for number in numbers[1:-1]), *last)
    return Axis(field, tuple(dict.fromkeys(values)), (low, high), scale == "log")


def _spread(low: float, high: float, count: int, logarithmic: bool) -> list[float]:
    spread: NDArray[np.float64] = np.geomspace(low, high, count) if logarithmic else np.linspace(low, high, count)
    return [float(number) for number in spread]


def combined(axes: Sequence[Axis], combine: str, n: int | None, seed: int) -> Iterator[dict[str, Any]]:
    """The points of a design, each as path -> value."""
    if combine == "zip":
        yield from (dict(zip([axis.path for axis in axes], values)) for values in zip(*(axis.values for axis in axes)))
    elif combine == "grid" or not axes:
        for values in product(*(axis.values for axis in axes)):
            yield dict(zip([axis.path for axis in axes], values))
    else:
        for shares in unit_points(combine, len(axes), n or 1, seed):
            yield {axis.path: axis.at(float(share)) for axis, share in zip(axes, shares)}


def unit_points(combine: str, dimensions: int, n: int, seed: int) -> NDArray[np.float64]:
    """`n` points in the unit cube."""
    random = np.random.default_rng(seed)
    if combine == "random":
        return random.random((n, dimensions))
    from scipy.stats import qmc

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Sobol points of any number are points; balance is a bonus
        sampler = qmc.Sobol(dimensions, rng=random) if combine == "sobol" else qmc.LatinHypercube(dimensions, rng=random)
        return np.asarray(sampler.random(n), dtype=np.float64)


def unequal(axes: Mapping[str, Axis]) -> dict[str, int]:
    """Lengths of axes that cannot stand side by side; empty if they can."""
    lengths = {path: len(axis.values) for path, axis in axes.items()}
    return lengths if len(set(lengths.values())) > 1 else {}
