"""Constants of matrix products of `a100-80gb-sxm` from the Vidur profiles.

    python -m analysis.calibration.a100 DATA_DIR [--write CATALOGUE_FILE]

DATA_DIR holds `gemm_vidur_a100.csv` (as `analysis/validation/data` does): gate-up and down projections of Llama-2-70B and 7B.
Six constants are fitted to half of the batch sizes, the other half is held back; so is, in an experiment, all of
Llama-2-7B. Weights stream at the rate of a read-only stream (`READ`): fitted freely, the bandwidth and what does not overlap
take each other's place, and the bandwidth ends above what HBM gives. These products do not show a power limit, so the
sustained efficiency is taken to be that at full clocks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from analysis.calibration.catalogue import Fitted, command, quantity
from analysis.calibration.fit import digest, errors, fit, samples

GPU = "a100-80gb-sxm"
FILE = "gemm_vidur_a100.csv"
START = {
    "gemm_flops_efficiency": 0.79, "gemm_exposed": 0.2, "gemm_tail": 0.5, "gemm_wave": 0.7e-6, "gemm_operand_bandwidth": 7e12,
    "launch": 5e-6,
}  # fmt: skip
UNITS = {"launch": (1e-6, "us"), "gemm_wave": (1e-6, "us"), "gemm_operand_bandwidth": (1e9, "GB/s")}
READ = {"gemm_bandwidth_efficiency": 1750 / 2039}  # github Azure/AI-benchmarking-guide Azure_Results/ND_A100_v4
OTHER = "Llama-2-7b-hf"


def calibrate(folder: Path) -> dict[str, Any]:
    """Constants, and errors of what was used and of what was held back."""
    data = samples(folder, FILE)
    sizes = sorted({int(sample.row["M"]) for sample in data})
    used = [sample for sample in data if sizes.index(int(sample.row["M"])) % 2 == 0]
    held = [sample for sample in data if sizes.index(int(sample.row["M"])) % 2 == 1]
    known = [sample for sample in data if sample.row["model"] != OTHER]
    other = [sample for sample in data if sample.row["model"] == OTHER]
    values = fit(GPU, START, used, READ) | READ
    found = [
        errors(GPU, values, used, "fitted"),
        errors(GPU, values, held, "held back"),
        errors(GPU, fit(GPU, START, known, READ) | READ, other, "Llama-2-7B from Llama-2-70B alone"),
    ]
    return {"gpu": GPU, "sha256": digest(folder, (FILE,)), "values": values, "errors": found}


def entries(result: dict[str, Any]) -> list[Fitted]:
    """What goes into the catalogue file."""
    values = result["values"]
    said = "; ".join(
        f"{row['data_set']} {row['median_abs_error_pct']:.1f} / {row['p95_abs_error_pct']:.1f} %" for row in result["errors"]
    )
    source = (
        "six constants fitted together by analysis/calibration/a100.py to products of Llama-2-70B and 7B (github "
        "microsoft/vidur data/profiling/compute, times measured, fp16 cuBLAS; analysis/validation/data/"
        f"{FILE}, sha256 {result['sha256'][:16]}); median / p95 error: {said}"
    )
    same = "as gemm_flops_efficiency: the products measured show no power limit"
    flops = float(f"{values['gemm_flops_efficiency']:.4g}")
    stream = "read-only stream 1750 of 2039 GB/s; github Azure/AI-benchmarking-guide Azure_Results/ND_A100_v4"
    cells = [
        Fitted("gemm_sustained_efficiency", flops, "assumption", same),
        Fitted("gemm_bandwidth_efficiency", float(f"{READ['gemm_bandwidth_efficiency']:.3g}"), "measured", stream),
    ]
    for name in START:
        scale, unit = UNITS.get(name, (1.0, ""))
        cells.append(Fitted(name, quantity(values[name], scale, unit), "derived", source))
    return cells


if __name__ == "__main__":
    command("Fit the matrix products of a100-80gb-sxm.", calibrate, entries)
