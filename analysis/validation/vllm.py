"""A recorded vLLM run against its replay: the same arrivals, lengths and block ids on the model's engine.

Latencies follow the recorded clock: TTFT = first token - queued, TPOT = (last token - first token) / (tokens - 1),
E2E = last token - queued, makespan from the first arrival to the last token. A request is queued when the engine takes it up,
at the end of the step in which it arrives; the model's times count from there too.

    ttft_s.mean, ttft_s.p50, ...   one number of the whole run, with the measured and the modelled value
    ttft_s, tpot_s, e2e_s          request by request: |model / measured - 1|
    running, waiting               the curves at the ticks of `timeseries.csv`: |model - measured| in percent of the largest
                                   measured value

Percentiles interpolate linearly. Requests that the model rejects are counted (`not_compared`).
"""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator import Scenario, VllmRun, recorded_scenario, simulate

Floats = NDArray[np.float64]

BUILT_IN = (
    "vllm_measured_RTXPRO6000_Llama-3.1-8B.tar.gz",
    "vllm_measured_RTXPRO6000_Qwen3-30B-A3B-Instruct-2507.tar.gz",
)
STATISTICS = {"mean": None, "p50": 50.0, "p90": 90.0, "p99": 99.0}
LATENCIES = ("ttft_s", "tpot_s", "e2e_s")


def replayed(
    path: Path, gpu: str | None = None, settings: tuple[str, ...] = ()
) -> tuple[dict[str, Any], dict[str, Floats], VllmRun, list[str]]:
    """(columns of the replay, measured latencies, the run, notes); `settings` override fields of its scenario."""
    values, run, notes = recorded_scenario(path, gpu)
    replay = simulate(Scenario.from_dict(values, path.parent, set=settings))
    measured = {
        "ttft_s": run.first_token - run.queued,
        "tpot_s": (run.last_token - run.first_token) / np.maximum(run.output_tokens - 1, 1),
        "e2e_s": run.last_token - run.queued,
    }
    columns = dict(replay.columns)
    columns["ttft_s"] = columns["first_token_s"] - columns["taken_s"]
    columns["e2e_s"] = columns["finished_s"] - columns["taken_s"]
    return columns, measured, run, list(dict.fromkeys([*notes, *replay.summary["warnings"]]))


def compare_run(path: Path, gpu: str | None = None) -> tuple[list[dict[str, Any]], list[str]]:
    """(rows of the result, what their reader should know) of one run."""
    columns, measured, run, notes = replayed(path, gpu)
    served = columns["status"] == "finished"
    several = run.output_tokens > 1
    rows = []
    for name in LATENCIES:
        kept = served & several if name == "tpot_s" else served
        model, truth = columns[name][kept], measured[name][kept]
        left_out = int((~served).sum())
        rows += [_one(run.name, f"{name}.{label}", _of(model, percent), _of(truth, percent), len(model), left_out)
                 for label, percent in STATISTICS.items()]  # fmt: skip
        rows.append(_many(run.name, name, 100.0 * (model / truth - 1.0), left_out))
    model_end, end, tokens = float(np.nanmax(columns["finished_s"])), float(run.last_token.max()), int(run.output_tokens.sum())
    rows.append(_one(run.name, "makespan_s", model_end, end, len(served), 0))
    rows.append(_one(run.name, "output_tokens_per_s", tokens / model_end, tokens / end, len(served), 0))
    for name, truth in run.series.items():
        if name != "t" and truth.max(initial=0.0) > 0:
            curve = _curve(name, run.series["t"], columns)
            rows.append(_many(run.name, name, 100.0 * (curve - truth) / truth.max(), 0))
    return rows, notes


def built_in_runs() -> list[dict[str, Any]]:
    """The runs that come with the package."""
    rows = []
    for name in BUILT_IN:
        with as_file(files("analysis.validation").joinpath("data")) as folder:
            rows += compare_run(folder / name)[0]
    return rows


def _of(values: Floats, percent: float | None) -> float:
    if not len(values):
        return float("nan")
    return float(values.mean() if percent is None else np.percentile(values, percent))


def _curve(name: str, ticks: Floats, columns: dict[str, Any]) -> Floats:
    """Requests that run or wait at each tick."""
    begin, end = (columns[f"{time}_s"] for time in (("admitted", "finished") if name == "running" else ("taken", "admitted")))
    come, gone = np.sort(begin[~np.isnan(begin)]), np.sort(end[~np.isnan(end)])
    return np.asarray(np.searchsorted(come, ticks, "right") - np.searchsorted(gone, ticks, "right"), dtype=np.float64)


def _one(data_set: str, metric: str, model: float, truth: float, n: int, left_out: int) -> dict[str, Any]:
    return _many(data_set, metric, np.array([100.0 * (model / truth - 1.0)]), left_out) | {
        "n": n, "measured": truth, "model": model,
    }  # fmt: skip


def _many(data_set: str, metric: str, error: Floats, left_out: int) -> dict[str, Any]:
    size = np.abs(error)
    some = len(error) > 0
    return {
        "data_set": data_set,
        "metric": metric,
        "n": len(error),
        "median_abs_error_pct": float(np.median(size)) if some else None,
        "p95_abs_error_pct": float(np.percentile(size, 95)) if some else None,
        "worst_abs_error_pct": float(size.max()) if some else None,
        "bias_pct": float(error.mean()) if some else None,
        "not_compared": left_out,
        "measured": None,
        "model": None,
    }
