"""Constants of the copy engine `h100-pcie-gen5` from a folder of H100 measurements.

    python -m analysis.calibration.link DATA_DIR [--write CATALOGUE_FILE]

Two fits. Times of copies and gathers, robust least squares of the relative error of

    copies      run b from 1 MiB on (run a met slower host memory there), run a below (run b had a slow, noisy host)
    scattered   every second row, without batches of under 64 KiB towards the GPU (they take another way, not modelled)
    latency     run a

and interference, least fourth powers of the error in points of slowdown (the limits are on single rows), of

    overlap     all rows; and, to see how far it carries, of each half of the steps alone with the other half predicted

Rows not used are reported apart. `issue` is read off (host time in the calls). Nothing is changed unless `--write` names
the catalogue file. The offload runs are used by no fit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import least_squares

from analysis.calibration.catalogue import Fitted, command
from analysis.calibration.fit import SOFT, Sample, digest, samples
from analysis.validation.bench import PYTHON_ISSUE, Bench
from analysis.validation.compare import summary

GPU = "h100-80gb-sxm"
TIMES = {
    "read_bandwidth": 55e9, "write_bandwidth": 55e9, "duplex": 0.8, "read_setup": 3e-6, "write_setup": 2e-6,
    "batch_setup": 1e-6, "start": 7.5e-6, "block_latency": 130e-9, "block_bandwidth": 29e9,
    "gather_read_bandwidth": 48e9, "gather_write_bandwidth": 50e9,
}  # fmt: skip
COSTS = {
    "write_cost": 3.0, "read_cost": 1.0, "gather_cost": 4.0, "gather_sms": 1.0, "gather_power": 0.7, "gather_tail": 0.4,
    "gather_spare": 8.0,
}  # fmt: skip
COPIES, SCATTERED, LATENCY, OVERLAP = "link_copy_size.csv", "link_scattered_pages.csv", "link_latency.csv", "link_overlap.csv"
FILES = (COPIES, SCATTERED, LATENCY, OVERLAP, "two_gpu_host_link.csv")
ISSUE = "python_issue"  # of the program that measured the copies; stands in `bench.py`, not in the catalogue
US = (1e-6, "us")
UNITS = {"bandwidth": (1e9, "GB/s"), "setup": US, "start": US, "issue": US, "latency": (1e-9, "ns")}
MIB = 1 << 20


def calibrate(folder: Path) -> dict[str, Any]:
    """Constants, and errors of what was used and of what was held back."""
    data = {file: samples(folder, file) for file in FILES}
    used, held = halves(data)
    times = fit(TIMES | {ISSUE: PYTHON_ISSUE}, [one for part in used.values() for one in part])
    issue = times.pop(ISSUE)
    costs = fit_costs(data[OVERLAP], times)
    rows = [errors(times, part, f"{file}, {which}", issue) for which, half in (("fitted", used), ("held back", held))
            for file, part in half.items() if part]  # fmt: skip
    half, other = steps(data[OVERLAP])
    rows.append(points(times | costs, data[OVERLAP], f"{OVERLAP}, all steps fitted"))
    for which, apart, known in (("other", other, half), ("first", half, other)):
        rows.append(points(times | fit_costs(known, times), apart, f"{OVERLAP}, held back: {which} steps"))
    called = [float(s.row["host_issue_us_per_page"]) for s in data[SCATTERED] if s.row["method"] == "memcpyAsync"]
    return {
        "gpu": GPU,
        "sha256": digest(folder, FILES),
        "values": times | {"issue": 1e-6 * float(np.median(called))} | costs,
        ISSUE: issue,
        "errors": rows,
    }


def halves(data: dict[str, list[Sample]]) -> tuple[dict[str, list[Sample]], dict[str, list[Sample]]]:
    """(used, held back) by file; the two GPUs are never used, interference has a fit of its own."""

    def chosen(sample: Sample, at: int) -> bool:
        row = sample.row
        if sample.file == COPIES:
            return row["run"] == ("b" if float(row["bytes_per_copy"]) >= MIB else "a")
        if sample.file == SCATTERED:
            inline = row["method"] == "memcpyBatchAsync" and row["direction"] == "h2d" and float(row["page_bytes"]) < 65536
            return at % 2 == 0 and not inline
        return sample.file == LATENCY and row["run"] == "a"

    parts: tuple[dict[str, list[Sample]], dict[str, list[Sample]]] = {}, {}
    for file, rows in data.items():
        if file != OVERLAP:
            marks = [chosen(sample, at) for at, sample in enumerate(rows)]
            for part, wanted in zip(parts, (True, False)):
                part[file] = [sample for sample, mark in zip(rows, marks) if mark is wanted]
    return parts


def steps(rows: Sequence[Sample]) -> tuple[list[Sample], list[Sample]]:
    """Every second kind of step, and the others."""
    names = sorted({_step(sample) for sample in rows})
    half = set(names[::2])
    return [one for one in rows if _step(one) in half], [one for one in rows if _step(one) not in half]


def _step(sample: Sample) -> tuple[str, int, int]:
    return sample.row["step"], int(sample.row["batch"]), int(sample.row["context"])


def predicted(values: dict[str, float], rows: Sequence[Sample], issue: float = PYTHON_ISSUE) -> np.ndarray:
    bench = Bench(GPU, link_values=values, python_issue=issue)
    return np.array([sample.kind.predict(bench, sample.row) for sample in rows])


def truth(rows: Sequence[Sample]) -> np.ndarray:
    return np.array([sample.truth for sample in rows])


def fit(start: dict[str, float], used: Sequence[Sample]) -> dict[str, float]:
    """The constants of the times of copies and gathers."""
    measured = np.log(truth(used))

    def residuals(values: dict[str, float]) -> np.ndarray:
        link = dict(values)
        issue = link.pop(ISSUE)
        return np.asarray(np.log(predicted(link, used, issue)) - measured)

    return _least(residuals, start, loss="soft_l1", f_scale=SOFT)


def fit_costs(used: Sequence[Sample], times: dict[str, float]) -> dict[str, float]:
    """The constants of interference."""
    measured = truth(used)
    return _least(lambda values: (100.0 * (predicted(times | values, used) - measured)) ** 2, COSTS, diff_step=0.03)


def _least(residuals: Callable[[dict[str, float]], np.ndarray], start: dict[str, float], **options: Any) -> dict[str, float]:
    names, scale = list(start), np.array(list(start.values()))

    def of(relative: np.ndarray) -> np.ndarray:
        return residuals(dict(zip(names, (relative * scale).tolist())))

    found = least_squares(of, np.ones(len(names)), bounds=(0.0, np.inf), **options)
    return dict(zip(names, (found.x * scale).tolist()))


def errors(values: dict[str, float], rows: Sequence[Sample], what: str, issue: float = PYTHON_ISSUE) -> dict[str, Any]:
    """Relative errors in percent."""
    row = summary(what, rows[0].kind.truth, predicted(values, rows, issue), truth(rows))
    return {key: value for key, value in row.items() if key != "not_compared"}


def points(values: dict[str, float], rows: Sequence[Sample], what: str) -> dict[str, Any]:
    """Errors of slowdowns in points, copies and gathers apart."""
    error = 100.0 * np.abs(predicted(values, rows) - truth(rows))
    gathers = np.array([sample.row["link_load"].startswith("gather") for sample in rows])
    found: dict[str, Any] = {"data_set": what, "n": len(rows)}
    for name, part in (("copies", error[~gathers]), ("gathers", error[gathers])):
        found |= {f"{name}_median_points": float(np.median(part)), f"{name}_worst_points": float(part.max())}
    return found


def entries(result: dict[str, Any]) -> list[Fitted]:
    """What goes into the catalogue file."""
    rows = {row["data_set"]: row for row in result["errors"]}
    held = "; ".join(
        f"{name.split('.csv')[0]} {row['median_abs_error_pct']:.1f} % (n {row['n']})"
        for name, row in rows.items() if name.endswith("csv, held back")
    )  # fmt: skip
    apart = [row for name, row in rows.items() if name.startswith(f"{OVERLAP}, held back")]
    copies, gathers = (max(row[f"{name}_worst_points"] for row in apart) for name in ("copies", "gathers"))
    whole = rows[f"{OVERLAP}, all steps fitted"]
    source = (
        "fitted by analysis/calibration/link.py to own H100 measurements (analysis/validation/data, sha256 "
        f"{result['sha256'][:16]}); "
    )
    of_times = f"median errors of rows held back: {held}"
    of_costs = (
        f"slowdowns within {whole['copies_worst_points']:.1f} points beside copies, {whole['gathers_worst_points']:.1f} "
        f"beside gathers; each half of the steps predicted from the other: worst {copies:.1f}, {gathers:.1f}"
    )
    found = []
    for name, value in result["values"].items():
        scale, unit = UNITS.get(name.rpartition("_")[2], (1.0, ""))
        number = float(f"{value / scale:.4g}")
        text = source + (of_costs if name in COSTS else of_times)
        if name == "issue":
            text = "host time in a call from C++, median of ten rows of link_scattered_pages.csv; own H100 measurements"
        evidence = "measured" if name == "issue" else "derived"
        found.append(Fitted(name, f"{number:g} {unit}" if unit else number, evidence, text))
    return found


if __name__ == "__main__":
    command("Fit the constants of the copy engine h100-pcie-gen5.", calibrate, entries)
