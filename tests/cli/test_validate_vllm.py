"""`speckvsim validate --vllm`: a run of one's own, named GPUs and models, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from simulator.experiments.recorded import recorded_scenario
from tests.cli.conftest import Speckvsim
from tests.workload.test_vllm_run import META, ROW, write

ARGUMENTS: dict[str, Any] = {
    "model": "meta-llama/Llama-3.1-8B", "tensor_parallel_size": 1, "max_num_seqs": 4, "max_num_batched_tokens": 512,
    "max_model_len": None, "dtype": "bfloat16", "kv_cache_dtype": "auto", "seed": 1,
}  # fmt: skip


def run_of(folder: Path, meta: dict[str, Any] | None = None, **arguments: Any) -> Path:
    rows = [ROW | {"request_id": f"bench-{index}", "queued_ts": 7.0 + 0.1 * index} for index in range(3)]
    return write(folder, rows, META | {"engine_kwargs": ARGUMENTS | arguments} | (meta or {}))


def test_rows_of_a_run(tmp_path: Path, speckvsim: Speckvsim) -> None:
    """Would catch: keys that differ from the other comparisons', statistics without their values, notes on standard output."""
    done = speckvsim("validate", "--vllm", run_of(tmp_path / "run"), "--gpu", "h100-80gb-sxm", "--json")
    assert done.code == 0, done.err
    rows = {row["metric"]: row for row in json.loads(done.out)["rows"]}
    assert {"ttft_s.mean", "tpot_s.p99", "e2e_s.p50", "ttft_s", "makespan_s"} <= set(rows)
    keys = {"data_set", "metric", "n", "median_abs_error_pct", "p95_abs_error_pct", "worst_abs_error_pct", "bias_pct"}
    assert all(keys <= set(row) for row in rows.values())
    row = rows["ttft_s.mean"]
    assert row["n"] == 3
    assert row["bias_pct"] == pytest.approx(100 * (row["model"] / row["measured"] - 1))
    assert "prefix reuse not recorded" in done.err


def test_engine_arguments_reach_the_scenario(tmp_path: Path) -> None:
    """Would catch: an argument read and then forgotten."""
    run = run_of(
        tmp_path / "run", {"device": "NVIDIA RTX PRO 6000"}, tensor_parallel_size=2, gpu_memory_utilization=0.8, block_size=32,
        num_gpu_blocks_override=1000, kv_cache_dtype="fp8", max_model_len=4096, long_prefill_token_threshold=256,
        enable_log_outputs=True,
    )  # fmt: skip
    values, _, notes = recorded_scenario(run)
    assert values["cluster"]["gpus"] == {
        "type": "rtx-pro-6000", "count": 2, "tensor_parallel": 2, "memory_utilization": 0.8,
    }  # fmt: skip
    assert values["model"] == {"type": "llama-3.1-8b", "kv_bytes": 1, "max_context": "4096 tokens"}
    assert values["kv"] == {"block": "32 tokens", "blocks": 1000}
    assert values["scheduler"] == {
        "engine": "vllm-0.19", "max_batch": 4, "token_budget": "512 tokens", "prefill_chunk": "256 tokens",
    }  # fmt: skip
    assert any("enable_log_outputs" in note for note in notes)


@pytest.mark.parametrize(
    ("name", "gpu"),
    [
        ("RTXPRO6000", "rtx-pro-6000"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "rtx-pro-6000"),
        ("rtx-4090", "rtx-4090"),
        ("NVIDIA GeForce RTX 4090", "rtx-4090"),
        ("H100-80GB-SXM", "h100-80gb-sxm"),
    ],
)
def test_names_of_gpus(tmp_path: Path, name: str, gpu: str) -> None:
    """Would catch: a device name that its driver reports and nobody matches."""
    assert recorded_scenario(run_of(tmp_path / "run", {"device": name}))[0]["cluster"]["gpus"]["type"] == gpu


@pytest.mark.parametrize(
    ("meta", "arguments", "options", "said"),
    [
        ({}, {}, (), "does not name its GPU"),
        ({"device": "RTX 9999"}, {}, (), "not a GPU of the catalogue"),
        ({}, {}, ("--gpu", "h100-80gb-smx"), "did you mean 'h100-80gb-sxm'"),
        ({}, {"model": "meta-llama/Llama-3.1-8BB"}, ("--gpu", "rtx-4090"), "llama-3.1-8b"),
        ({}, {"max_num_seqs": 0}, ("--gpu", "rtx-pro-6000"), ""),
        ({}, {"max_num_seqs": "many"}, ("--gpu", "rtx-pro-6000"), "max_num_seqs: 'many' found"),
        ({}, {"quantization": "awq"}, ("--gpu", "rtx-pro-6000"), "quantization: 'awq' found"),
        ({}, {"dtype": "float32"}, ("--gpu", "rtx-pro-6000"), "dtype: 'float32' found"),
        ({"engine_kwargs": None}, {}, ("--gpu", "rtx-pro-6000"), "engine_kwargs: missing"),
        ({}, {"data_parallel_size": 2}, ("--gpu", "rtx-pro-6000"), "share no experts"),
    ],
)
def test_what_is_refused(
    tmp_path: Path, speckvsim: Speckvsim, meta: dict[str, Any], arguments: dict[str, Any], options: tuple[str, ...], said: str
) -> None:
    """Exit code 2 and the nearest name. Would catch: a traceback, a replay of something else than was recorded."""
    done = speckvsim("validate", "--vllm", run_of(tmp_path / "run", meta, **arguments), *options, "--json")
    assert done.code == (2 if said else 0), done.err
    assert said in done.err
    assert (done.out == "") == bool(said)


def test_not_a_run(tmp_path: Path, speckvsim: Speckvsim) -> None:
    """Would catch: a traceback for a folder or file that is something else, or is not there."""
    (tmp_path / "x.txt").write_text("x")
    for place in (tmp_path, tmp_path / "x.txt", tmp_path / "none"):
        done = speckvsim("validate", "--vllm", place)
        assert (done.code, done.out) == (2, "")
        assert "run" in done.err
