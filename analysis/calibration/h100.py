"""Constants of `h100-80gb-sxm` from a folder of H100 measurements.

    python -m analysis.calibration.h100 DATA_DIR [--write CATALOGUE_FILE]

The rate of streamed weights is that of a read-only kernel (`hbm_bandwidth.csv`). The constants of step times (list `START`)
are fitted together to

    decode      half of the (batch, context) cells, like the white squares of a chess board
    prefill     every second row; so too the prompts of 128 to 2048 tokens over a past of 4096 or 16384
    ragged      draw 0 of `one_long` at batch 64 and 128; the rest is held back
    GEMM        every second row, with a weight of 0.3 (a step has its products in the proportion that matters)

and the rows not used are reported apart. Three more experiments say how far the constants carry: products and element-wise
parts fitted on one model, attention on a tenth of the other's decode cells, the other's remaining cells predicted.
All-reduce and power have their own two small fits. Nothing is changed unless `--write` names the catalogue file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from analysis.calibration.catalogue import Fitted, command, quantity
from analysis.calibration.collectives import two_protocols
from analysis.calibration.fit import Sample, digest, errors, fit, samples
from analysis.validation.compare import read

GPU = "h100-80gb-sxm"
START = {
    "gemm_flops_efficiency": 0.81, "gemm_sustained_efficiency": 0.70, "gemm_exposed": 0.09,
    "gemm_tail": 0.3, "gemm_wave": 1e-6, "gemm_operand_bandwidth": 11e12,
    "elementwise_bandwidth_efficiency": 0.73, "attention_flops_efficiency": 0.67, "paged_attention_flops_efficiency": 0.56,
    "paged_attention_tile_efficiency": 0.67,
    "attention_bandwidth_efficiency": 0.90, "attention_sequence_bandwidth": 31e9,
    "attention_latency": 3e-6, "launch": 3.5e-6,
}  # fmt: skip
SEVEN, SEVENTY = "llama-2-7b", "llama-70b"
ATTENTION = {SEVEN: ("attention_bandwidth_efficiency",), SEVENTY: ("attention_bandwidth_efficiency", "attention_latency")}
NOT_IN_STEPS = (
    "attention_sequence_bandwidth", "paged_attention_flops_efficiency", "paged_attention_tile_efficiency",
)  # fmt: skip
STEPS = (
    "decode_llama-2-7b.csv", "decode_llama-70b.csv", "decode_ragged_llama-2-7b.csv", "prefill_llama-2-7b.csv",
    "prefill_llama-70b.csv", "prefix_load_llama-2-7b.csv", "gemm.csv",
)  # fmt: skip
FILES = (*STEPS, "two_gpu_allreduce.csv", "power.csv", "hbm_bandwidth.csv")
GEMM_WEIGHT = 0.3
PEAK_BANDWIDTH = 3350e9
BLOCK = 0.0  # s: the kernels on H100 are persistent, one tile starts while another ends
UNITS = {
    "attention_sequence_bandwidth": (1e9, "GB/s"), "gemm_operand_bandwidth": (1e9, "GB/s"), "launch": (1e-6, "us"),
    "gemm_wave": (1e-6, "us"), "attention_block": (1e-6, "us"), "attention_latency": (1e-6, "us"),
}  # fmt: skip
KNOWN = {
    "gemm_bandwidth_efficiency": (
        "measured",
        "read-only kernel, best size; own H100 measurements (measurements/h100/hbm_bandwidth.csv)",
    ),
    "attention_block": ("assumption", "0: the kernels on H100 are persistent, one tile starts while another ends"),
}


def known(folder: Path) -> dict[str, float]:
    """What is not fitted: weights stream at the best rate of a read-only kernel. Fitted freely, it trades with what does not
    overlap and with the launch, the more so the fewer shapes there are."""
    best = max(float(row["gb_s"]) for row in read(folder / "hbm_bandwidth.csv") if row["op"] == "read_sum")
    return {"gemm_bandwidth_efficiency": best * 1e9 / PEAK_BANDWIDTH, "attention_block": BLOCK}


def calibrate(folder: Path) -> dict[str, Any]:
    """Constants, residuals of what was used and of what was held back, and the experiments across models."""
    used, held = halves({file: samples(folder, file) for file in STEPS})
    fixed = known(folder)
    values = fixed | fit(GPU, START, [sample for part in used.values() for sample in part], fixed)
    rows = [errors(GPU, values, part, f"{file}, {which}") for which, half in (("fitted", used), ("held back", held))
            for file, part in half.items() if part]  # fmt: skip
    reduced, reduced_rows = two_protocols(folder / "two_gpu_allreduce.csv", 2)
    return {
        "gpu": GPU,
        "sha256": digest(folder, FILES),
        "values": values,
        "all_reduce": reduced,
        "power": power(folder, values),
        "errors": [*rows, *across(folder, SEVENTY, SEVEN), *across(folder, SEVEN, SEVENTY), reduced_rows],
    }


def halves(data: dict[str, list[Sample]]) -> tuple[dict[str, list[Sample]], dict[str, list[Sample]]]:
    """(used, held back) by file."""
    used: dict[str, list[Sample]] = {}
    held: dict[str, list[Sample]] = {}
    for file, found in data.items():
        rows = [sample for sample in found if sample.row.get("mode", "none") == "none"]  # all on the GPU
        kind = rows[0].kind.name
        white = _white_squares(rows) if kind == "decode" else [_chosen(sample, at) for at, sample in enumerate(rows)]
        weight = GEMM_WEIGHT if kind == "gemm" else 1.0
        used[file] = [Sample(s.file, s.kind, s.row, weight) for s, white_one in zip(rows, white) if white_one]
        held[file] = [sample for sample, white_one in zip(rows, white) if not white_one]
    return used, held


def _white_squares(rows: list[Sample]) -> list[bool]:
    batches = sorted({int(sample.row["batch"]) for sample in rows})
    contexts = sorted({int(sample.row["context"]) for sample in rows})
    cells = [(batches.index(int(sample.row["batch"])), contexts.index(int(sample.row["context"]))) for sample in rows]
    return [(batch + context) % 2 == 0 for batch, context in cells]


def _chosen(sample: Sample, at: int) -> bool:
    row = sample.row
    if sample.kind.name == "ragged":
        return row["length_distribution"] == "one_long" and int(row["batch"]) >= 64 and row["draw"] == "0"
    return at % 2 == 0


def across(folder: Path, one: str, other: str) -> list[dict[str, Any]]:
    """Products and element-wise parts from one model, attention from a tenth of the other's cells: errors of the rest."""
    steps = samples(folder, f"decode_{one}.csv") + samples(folder, f"prefill_{one}.csv")
    products = [sample for sample in samples(folder, "gemm.csv", GEMM_WEIGHT) if sample.row["model"] == one]
    start, fixed = {name: value for name, value in START.items() if name not in NOT_IN_STEPS}, known(folder)
    values = fixed | fit(GPU, start, steps + products, fixed)
    cells = samples(folder, f"decode_{other}.csv")
    tenth = cells[::10]
    values |= fit(GPU, {name: START[name] for name in ATTENTION[other]}, tenth, values)
    rest = [sample for at, sample in enumerate(cells) if at % 10]
    prefill = samples(folder, f"prefill_{other}.csv")
    return [
        errors(GPU, values, rest, f"decode_{other}.csv, products from {one}, attention from a tenth"),
        errors(GPU, values, prefill, f"prefill_{other}.csv, everything else from {one}"),
    ]


def power(folder: Path, values: dict[str, float]) -> dict[str, Any]:
    """`decode_power` that makes all states of power.csv agree best; idle and limit are read off."""
    states = samples(folder, "power.csv")
    idle = next(float(s.row["power_w_median"]) for s in states if s.row["state"] == "idle_context_open")
    limit = max(float(s.row["power_w_median"]) for s in states)
    fixed = values | {"idle_power": idle, "prefill_power": limit}
    found = fit(GPU, {"decode_power": 560.0}, states, fixed, soft=False)
    return {"idle_power": idle, "prefill_power": limit} | found | {
        "errors": errors(GPU, fixed | found, states, "power.csv, fitted")
    }  # fmt: skip


def entries(result: dict[str, Any]) -> list[Fitted]:
    """What goes into the catalogue file."""
    held = {row["data_set"].split(",")[0]: row for row in result["errors"] if row["data_set"].endswith("held back")}
    said = "; ".join(
        f"{file.removesuffix('.csv')} {row['median_abs_error_pct']:.1f} / {row['p95_abs_error_pct']:.1f} % (n {row['n']})"
        for file, row in held.items()
    )
    source = (
        f"{len(START)} constants fitted together by analysis/calibration/h100.py to half of own H100 measurements "
        f"(analysis/validation/data, sha256 {result['sha256'][:16]}); "
    )
    found = []
    for name, value in result["values"].items():
        scale, unit = UNITS.get(name, (1.0, ""))
        number = quantity(value, scale, unit)
        first = name == "gemm_flops_efficiency"
        if name in KNOWN:
            found.append(Fitted(name, number, *KNOWN[name]))
            continue
        text = f"median / p95 error of the other half: {said}" if first else "errors under gemm_flops_efficiency"
        found.append(Fitted(name, number, "derived", source + text))
    powers = result["power"]
    about = "own H100 measurements (measurements/h100/power.csv); "
    worst = f"all {powers['errors']['n']} states within {powers['errors']['worst_abs_error_pct']:.1f} %"
    return [
        *found,
        Fitted("idle_power", f"{powers['idle_power']:.0f} W", "measured", about + "context open, full clocks"),
        Fitted("decode_power", f"{powers['decode_power']:.0f} W", "derived", f"{about}{worst}, analysis/calibration/h100.py"),
        Fitted("prefill_power", f"{powers['prefill_power']:.0f} W", "measured", about + "8192^3 products, power limit"),
    ]


if __name__ == "__main__":
    command("Fit the constants of h100-80gb-sxm.", calibrate, entries)
