"""Small scenarios for tests: a four-layer model, tiers counted in blocks, requests given by hand. They run in milliseconds.

The model has 512 B of KV per token and layer, so that a block of 16 tokens is 32 KiB; one GPU unless a test says otherwise.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from simulator.experiments.run import RunResult, run_scenario
from simulator.scenario import Scenario
from simulator.workload.requests import Requests

Rows = Sequence[tuple[float, int, int]]  # arrival s, prompt tokens, output tokens
Settings = Mapping[str, Any]  # dotted path -> value

ROOT = Path(__file__).parents[2]
LAYERS = 4
BLOCK = LAYERS * 16 * 512  # bytes
MODEL = {
    "layers": LAYERS, "hidden": 256, "heads": 4, "kv_heads": 2, "head_dim": 64, "intermediate": 512, "vocab": 1000,
    "gated_mlp": True, "max_context": "4096 tokens", "weight_bytes": 2, "kv_bytes": 2,
}  # fmt: skip
BASE: dict[str, Any] = {
    "name": "small",
    "model": MODEL,
    "cluster": {"gpus": {"type": "a100-80gb-sxm"}},
    "scheduler": {"max_batch": 8, "token_budget": "256 tokens"},
}


def blocks(count: float) -> str:
    """So many blocks of 16 tokens as a size."""
    return f"{round(count * BLOCK)} B"


class ToTheFirst:
    """A routing rule: all requests to the first replica."""

    def __init__(self, *_: Any):
        pass

    def choose(self, request: int, targets: Any) -> int:
        return 0


def pool(l1: float, l3: float, l2: float = 8, link: str = "2 GB/s", **board: Any) -> dict[str, Any]:
    """Settings of one board behind a slow link; tiers in blocks, `l3` in stored ones."""
    return {
        "cluster.kv_pool.board": {"type": "agilex-7-speckv", "memory": blocks(l3)} | board,
        "cluster.kv_pool.link": {"type": "pcie-gen4-x16", "bandwidth": link},
        "kv.l1": blocks(l1),
        "kv.l2": blocks(l2),
        "kv.burst": "4 KiB",
    }


NO_PATH = {
    "cluster.kv_pool.link": "ideal",
    "cluster.gpus.link": "ideal",
    "cluster.gpus.staging_bandwidth": "inf",
    "kv.codec": "none",
}  # with IDEAL_BOARD: nothing between L3 and the SMs takes time
IDEAL_BOARD = {
    "memory_bandwidth": "inf", "memory_latency": "0 s", "translation": "0 s", "directory": "0 s", "engine_rate": "inf",
    "engine_fill": "0 s", "dma_bandwidth": "inf", "outstanding": "inf",
}  # fmt: skip


def put(values: dict[str, Any], path: str, value: Any) -> None:
    """Set a dotted path; `None` removes it."""
    *above, last = path.split(".")
    for key in above:
        inner = values.setdefault(key, {})
        if isinstance(inner, str):
            inner = values[key] = {"type": inner}
        values = inner
    if value is None:
        values.pop(last, None)
    else:
        values[last] = copy.deepcopy(value)


def scenario(settings: Settings, folder: str | Path = ".") -> Scenario:
    """BASE with `settings`, in their order."""
    values = copy.deepcopy(BASE)
    for path, value in settings.items():
        put(values, path, value)
    return Scenario.from_dict(values, folder)


def served(settings: Settings, rows: Rows | None = None, check: bool = True, coalesce: bool = True) -> RunResult:
    """Run BASE with `settings`; `rows` are the requests where `settings` name no workload."""
    if rows is None:
        return run_scenario(scenario(settings), check, coalesce=coalesce)
    with TemporaryDirectory() as folder:
        lines = [f"{arrival!r},{prompt},{output}\n" for arrival, prompt, output in rows]
        Path(folder, "rows.csv").write_text("arrival_s,input_tokens,output_tokens\n" + "".join(lines), encoding="utf-8")
        trace = scenario({"workload.trace.path": "rows.csv", **settings}, folder)
        return run_scenario(trace, check, coalesce=coalesce)


def requests(rows: Rows) -> Requests:
    """The same requests for a `Simulation`."""
    arrival, prompt, output = (list(column) for column in zip(*rows, strict=True))
    return Requests(np.array(arrival, dtype=float), np.array(prompt), np.array(output), None, 0, "by hand")


def draw(seed: int, count: int, rate: float = 2000.0, prompt: int = 120, output: int = 40) -> list[tuple[float, int, int]]:
    """Random requests: exponential gaps, uniform lengths."""
    rng = np.random.default_rng(seed)
    arrival = np.cumsum(rng.exponential(1 / rate, count)).tolist()
    return list(zip(arrival, rng.integers(1, prompt, count).tolist(), rng.integers(1, output, count).tolist(), strict=True))


def lasting(summary: Mapping[str, Any], *without: str) -> str:
    """A summary as text, all but `simulation` and the blocks named."""
    return json.dumps({key: value for key, value in summary.items() if key not in ("simulation", *without)}, sort_keys=True)


def same_requests(one: RunResult, other: RunResult, tolerance: float = 0.0) -> None:
    """Every per-request number is equal: to the last bit; or to `tolerance`, and then where its bytes came from may differ."""
    assert list(one.columns) == list(other.columns)
    for name, column in one.columns.items():
        if tolerance and name.startswith("far_") and name.endswith("_bytes"):
            continue
        if column.dtype.kind == "f" and tolerance:
            np.testing.assert_allclose(other.columns[name], column, rtol=tolerance, atol=1e-15, err_msg=name)
        else:
            np.testing.assert_array_equal(other.columns[name], column, err_msg=name)
