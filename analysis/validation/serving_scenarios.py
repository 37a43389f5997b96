"""A published row as a scenario, and what the simulator says of it.

    static_batch        one batch at once: its prompts in one step (or one after the other), then decode to the end
    closed_loop         as many clients as the concurrency, each sends its next request when it has its answer. Without time
                        to think that is a queue that is never empty and `max_batch` places; the wait in the queue is not
                        part of a client's latency
    open_loop_poisson   Poisson arrivals
    offline_max         everything queued at the start; KV memory or the engine's largest batch decide

What the rows leave out is set once for all of them, as the engines' own documentation has it (recalled). Static batches:
no reserve, since the batch did fit. Others: 0.95 of what weights and reserve leave holds KV, prompt and output are reserved
together, 2048 sequences and 8192 tokens a step (TensorRT-LLM's benchmark).
A time is the mean over requests unless the row says another statistic; a batch's TTFT is the end of its last prompt.
"""

from __future__ import annotations

import json
from dataclasses import replace
from functools import lru_cache
from math import isfinite
from typing import Any

import numpy as np

from analysis.validation.serving_engines import Law
from analysis.validation.serving_rows import Measurement
from simulator import RunResult, Scenario, StepModel, simulate, step_model, step_seconds

KV_SHARE = 0.95  # of free memory
RESERVE = 3.0 * 2**30  # bytes: activations, runtime, communication buffers
MOST_SEQUENCES, MOST_TOKENS = 2048, 8192
OFFLINE_TOKENS = 12_000_000  # prompt and output of an offline run: several times what fits in memory
LEAST_REQUESTS, MOST_REQUESTS = 600, 12_000
SECONDS = 300.0  # of Poisson arrivals
TURNS = 8  # requests of each client of a closed loop


def predict(row: Measurement, law: Law) -> float:
    """The row's metric in the row's unit; InputError if the simulator refuses the scenario."""
    result = run(row, law)
    if row.metric == "output_throughput":
        rate = float(result.summary["throughput"]["output_tokens_per_s"])
        return rate / row.gpus if row.per_gpu else rate
    columns, name = result.columns, f"{row.metric[:-3]}_s"
    times = columns[name]
    if row.mode == "closed_loop":  # as a client sees it: from the time it has a place
        times = times - {"ttft_s": columns["ttft_queue_s"], "e2e_s": columns["queue_s"]}.get(name, 0.0)
    if row.mode == "static_batch" and name == "ttft_s":
        return 1e3 * float(times.max())
    return 1e3 * float(np.nanmean(times) if row.statistic == "mean" else np.nanpercentile(times, float(row.statistic[1:])))


def run(row: Measurement, law: Law) -> RunResult:
    """The run behind a row; rows that report two sides of one run share it."""
    return _run(json.dumps(scenario(row, law), sort_keys=True))


@lru_cache(maxsize=256)
def _run(text: str) -> RunResult:
    return simulate(Scenario.from_dict(json.loads(text), base_dir="."))


def scenario(row: Measurement, law: Law) -> dict[str, Any]:
    """The scenario of a row under the law of its engine."""
    found = _without_engine(row, law)
    resolved = Scenario.from_dict(found, base_dir=".").resolved
    gpus = resolved.gpus
    efficiency = gpus.gpu.attention_bandwidth_efficiency / law.reads(StepModel(resolved.model, gpus, 0.0))
    slower = replace(gpus, gpu=replace(gpus.gpu, attention_bandwidth_efficiency=efficiency))
    step = StepModel(resolved.model, slower, 0.0)
    host = law.host(_gpu_time(row, law, step), row.batch, prefills_only(row), step.layers)
    found["cluster"]["gpus"]["attention_bandwidth_efficiency"] = efficiency
    found["scheduler"]["host_overhead"] = f"{host:.9f} s"
    if row.mode != "static_batch":
        found["kv"] = {"l1": f"{KV_SHARE * resolved.hbm_left} B"}
    return found


def _gpu_time(row: Measurement, law: Law, step: StepModel) -> float:
    """GPU seconds of the step that the row is about: prefill for a TTFT, else decode at the mean context."""
    if prefills_only(row):
        return step_seconds(step, pieces=[(row.prompt, 0)] * (1 if law.one_prompt_a_step else row.batch))
    return step_seconds(step, [row.prompt + row.output // 2] * max(row.batch, 1))


def prefills_only(row: Measurement) -> bool:
    return row.mode == "static_batch" and row.metric == "ttft_ms"


def _without_engine(row: Measurement, law: Law) -> dict[str, Any]:
    static, limit = row.mode == "static_batch", step_model(row.gpu, row.model).model.max_context
    # a TPOT of rows that give one output token is that of the first decode
    output = 1 if prefills_only(row) else max(row.output, 2) if row.metric == "tpot_ms" else row.output
    together = row.prompt if prefills_only(row) and law.one_prompt_a_step else row.prompt * row.batch
    requests, arrivals = _load(row)
    return {
        "name": f"{row.model} on {row.gpu}",
        "workload": {
            "synthetic": {
                "requests": requests,
                "arrivals": arrivals,
                "input": {"dist": "fixed", "tokens": f"{row.prompt} tokens"},
                "output": {"dist": "fixed", "tokens": f"{output} tokens"},
            }
        },
        "model": {
            "type": row.model,
            "weights": row.weights,
            "kv": row.kv,
            "max_context": f"{max(limit, row.prompt + output)} tokens",  # what they ran, they ran
        },
        "cluster": {
            "gpus": {
                "type": row.gpu,
                "count": row.gpus,
                "tensor_parallel": row.tensor_parallel,
                "memory_utilization": 1.0,
                "reserve": "0 B" if static else f"{RESERVE} B",
            }
        },
        "scheduler": {
            "batching": "static" if static else "continuous",
            "max_batch": row.batch or MOST_SEQUENCES,
            "token_budget": f"{max(together, row.batch, 16) if static else max(MOST_TOKENS, row.batch)} tokens",
            "reserve": "full",
            "watermark": 0,
        },
    }


def _load(row: Measurement) -> tuple[int, dict[str, str]]:
    """(requests, arrivals)."""
    if row.mode == "static_batch":
        return row.batch, {"process": "at_once"}
    if row.mode == "closed_loop":
        return TURNS * row.batch, {"process": "at_once"}
    if isfinite(row.rate):
        return max(LEAST_REQUESTS, int(SECONDS * row.rate)), {"process": "poisson", "rate": f"{row.rate} /s"}
    return min(MOST_REQUESTS, max(LEAST_REQUESTS, OFFLINE_TOKENS // (row.prompt + row.output))), {"process": "at_once"}
