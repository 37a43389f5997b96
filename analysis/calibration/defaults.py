"""Constants of GPUs that nobody measured: those of the measured part most like them, with an uncertainty.

    python -m analysis.calibration.defaults [--write]

Every GPU of `LIKE` takes the fitted constants of a measured one: shares and times as they are, the operand bandwidth in
proportion to its SMs. Run it after a new fit of a measured part.

Uncertainty: how far off the constants of one measured part are for another, in step time. For each ordered pair of measured
parts of a family (memory on package, memory on board), the steps of `STEPS` (decode and prefill of two
models) are timed with the other's constants and with its own; the median
and the worst of the differences are what the catalogue says of a part without data. It knows nothing of errors that all
measured parts share, nor of libraries that are worse than NVIDIA's.
"""

from __future__ import annotations

import argparse
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from analysis.calibration.catalogue import Fitted, quantity, write
from analysis.validation.kinds import Bench
from simulator import steptime

LIKE = {  # GPU -> the measured part of its architecture, or the nearest
    "h100-80gb-pcie": "h100-80gb-sxm", "h200-141gb-sxm": "h100-80gb-sxm", "h20-96gb": "h100-80gb-sxm",
    "b200-180gb": "h100-80gb-sxm", "gb200": "h100-80gb-sxm", "mi300x": "h100-80gb-sxm", "a100-80gb-pcie": "a100-80gb-sxm",
    "l40s": "rtx-4090", "a6000-48gb": "rtx-4090", "t4-16gb": "rtx-4090",
}  # fmt: skip
WHY = {
    "h100-80gb-sxm": "measured Hopper part; also for data-centre parts with HBM of later generations and other makers",
    "a100-80gb-sxm": "measured Ampere part with HBM",
    "rtx-4090": "measured Ada part; also for other parts with GDDR",
}
COPIED = (
    "gemm_flops_efficiency", "gemm_sustained_efficiency", "gemm_bandwidth_efficiency", "gemm_exposed", "gemm_tail", "gemm_wave",
    "elementwise_bandwidth_efficiency", "attention_flops_efficiency", "paged_attention_flops_efficiency",
    "paged_attention_tile_efficiency", "attention_block", "attention_bandwidth_efficiency", "attention_sequence_bandwidth",
    "attention_latency", "launch",
)  # fmt: skip
TEXT = ("attention_kernels", "attention_tile", "gemm_tiles")
STEPS = (
    {"batch": 1, "context": 1000}, {"batch": 16, "context": 1000}, {"batch": 64, "context": 2000},
    {"batch": 128, "context": 500},
    {"prefill": 512}, {"prefill": 2048}, {"prefill": 8192},
)  # fmt: skip
MODELS = ("llama-3.1-8b", "llama-2-13b")
FAMILIES = (("h100-80gb-sxm", "a100-80gb-sxm"), ("rtx-pro-6000", "rtx-4090"))
UNITS = {
    "_bandwidth": (1e9, "GB/s"),
    "launch": (1e-6, "us"),
    "_wave": (1e-6, "us"),
    "_block": (1e-6, "us"),
    "_latency": (1e-6, "us"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Defaults for GPUs without measurements, from those with.")
    parser.add_argument("--write", action="store_true", help="put them into the catalogue")
    options = parser.parse_args()
    spread = uncertainty()
    print(json.dumps(spread, indent=1))
    if options.write:
        for gpu, other in LIKE.items():
            path = Path(str(files("simulator.catalog"))) / "gpus" / f"{gpu}.yaml"
            write(path, entries(gpu, other, spread))


def constants(gpu: str, other: str) -> dict[str, Any]:
    """The fitted constants of `other` for `gpu`, in SI units."""
    mine, theirs = device(gpu), device(other)
    operands = theirs.gemm_operand_bandwidth * mine.multiprocessors / theirs.multiprocessors
    return {field: getattr(theirs, field) for field in (*COPIED, *TEXT)} | {"gemm_operand_bandwidth": operands}


def device(gpu: str) -> Any:
    return Bench(gpu).model("llama-2-7b").gpu


def uncertainty() -> dict[str, Any]:
    """How much step times of a measured part change with the constants of another: percent, over pairs and steps."""
    pairs = {}
    for one, another in FAMILIES:
        for gpu, other in ((one, another), (another, one)):
            pairs[f"{gpu} from {other}"] = np.abs(times(gpu, constants(gpu, other)) / times(gpu, {}) - 1.0) * 100
    every = np.concatenate(list(pairs.values()))
    return {
        "median_pct": float(np.median(every)),
        "p95_pct": float(np.percentile(every, 95)),
        "worst_pct": float(every.max()),
        "pairs": {name: [float(np.median(found)), float(found.max())] for name, found in pairs.items()},
    }


def times(gpu: str, values: dict[str, Any]) -> np.ndarray:
    """Seconds of the steps on that GPU with these constants in place of its own."""
    bench = Bench(gpu, values)
    return np.array([steptime(bench.model(model), **step)["step_s"] for model in MODELS for step in STEPS])


def entries(gpu: str, other: str, spread: dict[str, Any]) -> list[Fitted]:
    """What goes into the catalogue file of a GPU without measurements."""
    said = (
        f"default: that of {other} ({WHY[other]}), set by analysis/calibration/defaults.py; not measured on this part. Between "
        f"two measured parts of a family such constants change step times by {spread['median_pct']:.0f} % (median) and "
        f"{spread['p95_pct']:.0f} % (p95)"
    )
    found = []
    for name, value in constants(gpu, other).items():
        scale, unit = next((known for ending, known in UNITS.items() if name.endswith(ending)), (1.0, ""))
        if name in TEXT:
            found.append(Fitted(name, value, "assumption", said))
            continue
        number = quantity(value, scale, unit)
        found.append(Fitted(name, number, "assumption", said))
    return found


if __name__ == "__main__":
    main()
