"""The law of vLLM's sampler (`simulator/hardware/sampler.py`) from kernel times on two RTX parts.

    python -m analysis.calibration.sampler

Fitted are the share of the L2 cache that holds logits, its rate in bandwidths of the memory, and what its kernels take besides
their bytes, to every second row of the Llama-3.1-8B tables (TP 1) of both parts; kernels below 50 us weigh less. Printed are
the errors of the other rows, and of the table of another vocabulary, which takes no part. The module holds
the three numbers rounded. Share and rate lie in a flat valley: more of one and less of the other fits nearly as well.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from analysis.calibration.fit import SOFT
from analysis.calibration.gpu import LONG
from analysis.validation.compare import read, summary
from analysis.validation.kinds import Bench

TABLES = Path(str(files("analysis.validation"))) / "data" / "kernels"
FITTED = (("rtx-pro-6000", "llama-3.1-8b"), ("rtx-4090", "llama-3.1-8b"))
OTHER = ("rtx-pro-6000", "qwen3-30b-a3b")
BEGIN = (0.7, 3.0, 24e-6)  # share of the cache, its rate in bandwidths of the memory, s besides
Floats = NDArray[np.float64]


def table(gpu: str, model: str) -> tuple[Floats, Floats]:
    """(sequences, seconds) of the sampler."""
    rows = [row for row in read(TABLES / gpu / model / "tp1" / "per_sequence.csv.gz") if row["layer"] == "sampler"]
    return np.array([float(row["sequences"]) for row in rows]), np.array([float(row["time_us"]) * 1e-6 for row in rows])


def law(gpu: str, model: str, sequences: Floats, kept: float, rate: float, start: float) -> Floats:
    """Seconds as `sampler.py` has them, its three numbers given."""
    shape = Bench(gpu).model(model)
    part, logits = shape.gpu, sequences * shape.model.vocab
    hit = np.minimum(1.0, kept * part.l2_cache / (6.0 * logits))
    passes = 10.0 * logits / part.memory_bandwidth * (hit / rate + (1.0 - hit) / part.attention_bandwidth_efficiency)
    return np.asarray(start + passes)


def fit() -> dict[str, Any]:
    """The three numbers and the errors of what was not fitted."""
    tables = {place: table(*place) for place in (*FITTED, OTHER)}

    def residuals(relative: Floats) -> Floats:
        found = []
        for place in FITTED:
            count, seconds = (column[::2] for column in tables[place])
            weight = np.minimum(1.0, seconds / LONG)
            found.append(weight * np.log(law(*place, count, *(relative * BEGIN)) / seconds))
        return np.concatenate(found)

    values = least_squares(residuals, np.ones(3), loss="soft_l1", f_scale=SOFT).x * BEGIN
    return {"kept": values[0], "cache_rate": values[1], "start": values[2], "errors": held_back(tables, values)}


def held_back(tables: Mapping[tuple[str, str], tuple[Floats, Floats]], values: Floats) -> list[dict[str, Any]]:
    errors = []
    for place, (count, seconds) in tables.items():
        rows = np.arange(len(count)) % 2 == 1 if place in FITTED else np.full(len(count), True)
        for what, chosen in (("held back", rows), ("held back, 50 us and more", rows & (seconds >= LONG))):
            model = law(*place, count[chosen], *values)
            errors.append(summary(f"{'/'.join(place)}, {what}", "time_us", model, seconds[chosen]))
    return errors


if __name__ == "__main__":
    print(json.dumps(fit(), indent=1))
