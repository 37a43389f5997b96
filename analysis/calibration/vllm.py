"""The host-overhead law of vLLM 0.19 and the expert-exchange law of two RTX PRO 6000 over PCIe, from the recorded runs.

    python -m analysis.calibration.vllm [--write]

The constants of the GPU come from its kernel times (`calibration/gpu.py`) and stay as they are. Fitted are

    host      t = a + b * sequences that emit a token, of the run without data parallelism: what of the work on the host
              is not hidden behind the GPU. vLLM 0.19 schedules asynchronously (the default where nothing forbids it): the next
              step is planned while this one runs, so what is left is preparing the batch and sampling
    exchange  t = 2 alpha + bytes / bandwidth for each MoE layer (all-gather, then reduce-scatter of all tokens' hidden states
              over the two GPUs), of the run with two replicas, the host law given

One law each, the same for every run of the engine, of the GPU pair. Half of the requests (even numbers in order of arrival)
are used: the squares of the relative errors of their TPOT and E2E; the errors of the other half are printed and written down.
They are not independent of the first: all requests of a run share its steps.
"""

from __future__ import annotations

import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from scipy.optimize import least_squares

from analysis.calibration.catalogue import Fitted, write
from analysis.calibration.fit import digest
from analysis.validation.vllm import BUILT_IN, replayed

DENSE, EXPERTS = BUILT_IN
DATA = Path(str(files("analysis.validation"))) / "data"
CATALOGUE = Path(str(files("simulator"))) / "catalog"
GPU, ENGINE = "rtx-pro-6000", "vllm-0.19"
HOST = {"scheduler.host_overhead": (300.0, "us"), "scheduler.host_per_sequence": (5.0, "us")}
EXCHANGE = {"latency": (30.0, "us"), "bandwidth": (25.0, "GB/s")}


def settings(names: dict[str, tuple[float, str]], values: np.ndarray) -> tuple[str, ...]:
    """Values of a law as `--set` takes them."""
    found = []
    for (name, (_, unit)), value in zip(names.items(), values.tolist(), strict=True):
        fields = [name] if "." in name else [f"cluster.gpus.all_reduce_{small}{name}" for small in ("", "small_")]
        found += [f"{field}={value:.6g} {unit}" for field in fields]
    return tuple(found)


def errors(file: str, given: tuple[str, ...], used: bool) -> np.ndarray:
    """Relative errors of TPOT and E2E of the requests that the fit uses, or of the others."""
    columns, measured, _, _ = replayed(DATA / file, None, given)
    rows = slice(0 if used else 1, None, 2)
    return np.concatenate([(columns[name] / measured[name] - 1.0)[rows] for name in ("tpot_s", "e2e_s")])


def fit(file: str, names: dict[str, tuple[float, str]], given: tuple[str, ...]) -> np.ndarray:
    """The law that makes the replay of `file` agree best, other settings given."""
    start = np.array([value for value, _ in names.values()])

    def residuals(relative: np.ndarray) -> np.ndarray:
        return errors(file, (*given, *settings(names, relative * start)), True)

    found = least_squares(residuals, np.ones(len(start)), bounds=(0.0, np.inf), diff_step=0.05, xtol=1e-3, ftol=1e-4)
    return np.asarray(found.x * start)


def said(file: str, given: tuple[str, ...]) -> str:
    """Median and mean errors of the held half."""
    held = 100.0 * errors(file, given, False)
    tpot, e2e = np.split(held, 2)
    parts = [
        f"{name} {np.median(np.abs(part)):.1f} % median, {part.mean():+.1f} % mean"
        for name, part in (("TPOT", tpot), ("E2E", e2e))
    ]
    return "; ".join(parts)


def main() -> None:
    host = fit(DENSE, HOST, ())
    law = settings(HOST, host)
    exchange = fit(EXPERTS, EXCHANGE, law)
    both = (*law, *settings(EXCHANGE, exchange))
    results = {DENSE: said(DENSE, law), EXPERTS: said(EXPERTS, both)}
    print("\n".join([*both, *(f"{file}: {text}" for file, text in results.items())]))
    if "--write" in sys.argv:
        record(host, exchange, results)


def record(host: np.ndarray, exchange: np.ndarray, results: dict[str, str]) -> None:
    """Into the engine preset and the GPU's fields for two GPUs."""
    source = "fitted by analysis/calibration/vllm.py to half of the requests of {} (sha256 {}); held half: {}"
    for_host = source.format("a recorded run of Llama-3.1-8B", digest(DATA, [DENSE])[:16], results[DENSE])
    units = [unit for _, unit in HOST.values()]
    write(
        CATALOGUE / "engines" / f"{ENGINE}.yaml",
        [Fitted(name, f"{value:.4g} {unit}", "derived", for_host) for name, value, unit in zip(HOST, host, units, strict=True)],
    )
    for_exchange = source.format("a recorded run of Qwen3-30B-A3B, DP 2", digest(DATA, [EXPERTS])[:16], results[EXPERTS])
    path = CATALOGUE / "gpus" / f"{GPU}.yaml"
    held: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))["values"]
    cells = []
    for (name, (_, unit)), value in zip(EXCHANGE.items(), exchange, strict=True):
        for field in (f"all_reduce_{name}", f"all_reduce_small_{name}"):
            degrees = held[field]["value"] | {2: f"{value:.4g} {unit}"}
            text = f"2 GPUs: {for_exchange}. More GPUs: assumption, over PCIe without NVLink, not measured on this part"
            cells.append(Fitted(field, degrees, "derived", text))
    write(path, cells)


if __name__ == "__main__":
    main()
