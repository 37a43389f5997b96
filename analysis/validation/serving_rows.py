"""Published serving measurements: rows of a table, and the rule by which a row can be put to the simulator.

A row is *expressible* if it names, in this order,

    gpu           a GPU of the catalogue
    model         a model of the catalogue
    parallelism   the number of GPUs and the degree of tensor parallelism, whole numbers
    lengths       prompt and output tokens as whole numbers: neither the name of a data set nor a bound is a length
    load          a batch or concurrency, or a request rate; `inf` is a rate, and so is "all requests queued" (offline_max)
    precision     of weights and KV, one the simulator has

and reports something a run reports (TTFT, TPOT, end-to-end time, output tokens per second). What the first missing field is, is
kept with the row: nothing is left out silently.

Source of `data/serving_measurements.csv`: the column `source` of each row.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files
from math import inf, isfinite

from simulator import step_model
from simulator.errors import InputError

FILE = "serving_measurements.csv"
PRECISIONS = ("bf16", "fp16", "fp8", "int8", "int4")  # of the simulator
STATISTICS = {"": "mean", "mean": "mean", "median": "p50", "p50": "p50", "p90": "p90", "p95": "p95", "p99": "p99"}
LATENCIES = ("ttft_ms", "tpot_ms", "e2e_ms")
MODES = ("static_batch", "closed_loop", "open_loop_poisson", "offline_max")


@dataclass(frozen=True)
class Measurement:
    """A row that can be run. Times in ms and rates in tokens/s, as in the table."""

    id: str
    engine: str
    gpu: str  # names of the catalogue
    model: str
    gpus: int
    tensor_parallel: int
    weights: str  # precision
    kv: str
    mode: str
    batch: int  # or concurrency; 0 where the load is a rate
    rate: float  # requests/s; inf: all queued
    prompt: int
    output: int
    metric: str
    statistic: str  # of a latency: mean, p50, ...
    per_gpu: bool  # a throughput of one GPU
    value: float
    notes: str
    source: str

    @property
    def config(self) -> tuple[object, ...]:
        """What was run: rows that differ only in what they report share it."""
        load = (self.mode, self.batch, self.rate, self.prompt, self.output)
        return (self.engine, self.gpu, self.gpus, self.tensor_parallel, self.model, self.weights, self.kv, *load)


def rows() -> list[dict[str, str]]:
    """The table that comes with the package."""
    text = files("analysis.validation").joinpath("data", FILE).read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def sort_out(table: Iterable[dict[str, str]]) -> tuple[list[Measurement], dict[str, str]]:
    """(rows that can be run, id of every other row -> the first thing that is missing)."""
    found, missing = [], {}
    for row in table:
        lack = lacks(row)
        if lack:
            missing[row["id"]] = lack
        else:
            found.append(_measurement(row))
    return found, missing


def lacks(row: dict[str, str]) -> str:
    """The first field without which the row cannot be run, or an empty string."""
    try:
        step_model(row["gpu"], "llama-2-7b")
    except InputError:
        return _unknown("gpu", row["gpu"])
    try:
        step_model(row["gpu"], row["model"])
    except InputError:
        return _unknown("model", row["model"])
    if not (_whole(row["n_gpus"]) and _whole(row["tensor_parallel"])):
        return "parallelism: not given"
    for side in ("input_tokens", "output_tokens"):
        if not _whole(row[side]):
            return f"lengths: {side} is {repr(row[side]) if row[side] else 'not given'}, no number of tokens"
    if row["load_mode"] not in MODES:
        return f"load: {row['load_mode']} is no way of loading the simulator has"
    if not _whole(row["batch_or_concurrency"]) and _rate(row) == 0.0:
        return "load: neither batch nor rate"
    for side in ("weight_precision", "kv_precision"):
        if row[side].split(" ")[0] not in PRECISIONS:
            return f"precision: {side} is {row[side] or 'not given'}"
    metric, statistic = _metric(row["metric"])
    if (metric not in LATENCIES or statistic not in STATISTICS) and row["metric"] != "output_throughput":
        return f"metric: {row['metric']} is nothing a run reports"
    return ""


def _unknown(field: str, name: str) -> str:
    return f"{field}: {name} is not in the catalogue" if name else f"{field}: not given"


def _measurement(row: dict[str, str]) -> Measurement:
    metric, statistic = _metric(row["metric"])
    model = step_model(row["gpu"], row["model"])
    return Measurement(
        id=row["id"],
        engine=row["engine"],
        gpu=model.gpu.name,
        model=model.model.name,
        gpus=int(row["n_gpus"]),
        tensor_parallel=int(row["tensor_parallel"]),
        weights=row["weight_precision"].split(" ")[0],
        kv=row["kv_precision"].split(" ")[0],
        mode=row["load_mode"],
        batch=int(row["batch_or_concurrency"] or 0),
        rate=_rate(row),
        prompt=int(row["input_tokens"]),
        output=int(row["output_tokens"]),
        metric=metric,
        statistic=STATISTICS.get(statistic, "mean"),
        per_gpu="per GPU" in row["unit"],
        value=float(row["value"]),
        notes=row["notes"],
        source=row["source"],
    )


def _metric(name: str) -> tuple[str, str]:
    """`tpot_ms_median` -> (`tpot_ms`, `median`)."""
    for latency in LATENCIES:
        if name.startswith(latency):
            return latency, name.removeprefix(latency).removeprefix("_")
    return name, ""


def _rate(row: dict[str, str]) -> float:
    """Requests/s; inf where all requests are queued at the start; 0 where there is none."""
    if row["load_mode"] == "offline_max" and not row["request_rate_rps"]:
        return inf
    try:
        rate = float(row["request_rate_rps"] or 0.0)
    except ValueError:
        return 0.0
    return rate if rate > 0 and (isfinite(rate) or rate == inf) else 0.0


def _whole(text: str) -> bool:
    return text.strip().isdigit() and int(text) > 0
