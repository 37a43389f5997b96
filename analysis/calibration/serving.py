"""Laws of serving engines from published rows: what the engine adds to the GPU's work.

    python -m analysis.calibration.serving [--write FILE]

Half of the runs of a family are fitted, the others held back (a run: the rows that differ only in what they report). In the
order of the table they are taken as ABBA ABBA ..., because neighbours alternate between short and long prompts: every other
one would fit the long ones alone. Robust least squares of the relative error over the parameters that the entry
lists under `fit`, all from one starting value, whatever the file holds now. `--write` puts the numbers, the rows used, the hash
of the table and the errors into `serving_engines.yaml`.
"""

from __future__ import annotations

import argparse
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from scipy.optimize import least_squares

from analysis.validation import serving_engines, serving_rows
from analysis.validation.serving_engines import Law, law_from, law_of
from analysis.validation.serving_rows import Measurement
from analysis.validation.serving_scenarios import predict

START = {
    "step_ms": 1.0,
    "per_sequence_ms": 0.1,
    "prefill_ms_per_layer": 0.2,
    "dispatch_ms_per_layer": 0.5,
    "kv_elements_g_per_s_sm": 20.0,
}
SOFT = 0.1  # relative error above which a row pulls less than its square


def used_rows(family: list[Measurement]) -> list[Measurement]:
    """The rows of the runs that are fitted: of each four the first and the last."""
    runs = list(dict.fromkeys(row.config for row in family))
    return [row for row in family if runs.index(row.config) % 4 in (0, 3)]


def fit(entry: dict[str, Any], used: list[Measurement]) -> dict[str, float]:
    """The values of the entry's fitted parameters."""
    names = entry["fit"]
    truth = np.log([row.value for row in used])
    scale = np.array([START[name] for name in names])

    def residuals(relative: np.ndarray) -> np.ndarray:
        law = law_from(entry | dict(zip(names, (relative * scale).tolist())))
        return np.asarray(np.log([predict(row, law) for row in used]) - truth)

    found = least_squares(residuals, np.ones(len(names)), loss="soft_l1", f_scale=SOFT, bounds=(0.0, np.inf), diff_step=1e-3)
    return {name: float(f"{value:.4g}") for name, value in zip(names, (found.x * scale).tolist())}


def errors(law: Law, rows: list[Measurement]) -> np.ndarray:
    """model / truth - 1 in percent."""
    return np.array([100.0 * (predict(row, law) / row.value - 1.0) for row in rows])


def main() -> None:
    parser = argparse.ArgumentParser(description="Fit the laws of serving engines.")
    parser.add_argument("--write", type=Path, metavar="FILE", help="serving_engines.yaml, to be written anew")
    options = parser.parse_args()
    data = files("analysis.validation").joinpath("data")
    table = data.joinpath(serving_rows.FILE).read_bytes()
    entries = yaml.safe_load(data.joinpath(serving_engines.FILE).read_text(encoding="utf-8"))
    expressible, _ = serving_rows.sort_out(serving_rows.rows())
    among = [law_from(entry) for entry in entries]
    for entry, family in zip(entries, among):
        rows = [row for row in expressible if law_of(row.engine, row.gpu, among) is family]
        used = used_rows(rows) if entry.get("fit") else []
        held = [row for row in rows if row not in used]
        if used:
            entry |= fit(entry, used)
            entry["fitted_rows"] = [row.id for row in used]
            entry["table_sha256"] = sha256(table).hexdigest()[:16]
        law = law_from(entry)
        for what, part in (("fitted", used), ("held back", held)):
            if part:
                size = np.abs(errors(law, part))
                said = f"{len(part)} rows, median {np.median(size):.1f} %, {(size <= 15).mean():.0%} within 15 %"
                entry[f"errors_{what.replace(' ', '_')}"] = said
        print({key: value for key, value in entry.items() if key != "fitted_rows"})
    if options.write:
        text = options.write.read_text(encoding="utf-8")
        comments = "".join(line for line in text.splitlines(keepends=True) if line.startswith("#"))  # yaml forgets them
        fitted = yaml.safe_dump(entries, sort_keys=False, width=124, default_flow_style=None)
        options.write.write_text(comments + fitted, encoding="utf-8")


if __name__ == "__main__":
    main()
