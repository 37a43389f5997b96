"""A scenario file to spoil, and a way to read the message it then gets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from simulator.errors import InputError
from simulator.scenario import Scenario

SAMPLE = """\
name: cxl-speckv-llama2-70b
seed: 7
workload:
  trace: {path: ../traces/conv.csv, limit: 2000, rate_scale: 1.5}
model: llama-2-70b
cluster:
  replicas: 1
  gpus: {type: a100-80gb-sxm, count: 8, tensor_parallel: 8}
  kv_pool:
    board: agilex-7-speckv
    count: 4
    link: pcie-gen4-x16
    switch: {type: cxl-2.0-switch, uplinks: 8}
kv: {system: cxl-speckv, codec: {ratio: 2.0, compress_at: fpga, decompress_at: fpga}, l1: 12 GiB, l2: 3 GiB}
prefetch: {predictor: statistical, coverage: 0.947, accuracy: 0.872, latency: 10 us, depth: 4}
scheduler: {batching: continuous, max_batch: 64, prefill_chunk: 512 tokens}
slo: {ttft: 2 s, tpot: 50 ms}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty `scenarios` folder as the current one, beside `traces/conv.csv`, so that messages have short paths."""
    (tmp_path / "traces").mkdir()
    (tmp_path / "traces" / "conv.csv").write_text("arrival_s,input_tokens,output_tokens\n0,10,10\n")
    (tmp_path / "scenarios").mkdir()
    monkeypatch.chdir(tmp_path / "scenarios")
    return tmp_path / "scenarios"


@pytest.fixture
def load(folder: Path) -> Callable[..., Scenario]:
    """Load a text as `mine.yaml`, with `--set` values."""

    def _load(text: str | bytes = SAMPLE, *settings: str) -> Scenario:
        Path("mine.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
        return Scenario.load("mine.yaml", set=settings)

    return _load


@pytest.fixture
def message(load: Callable[..., Scenario]) -> Callable[..., str]:
    """The whole message of the `InputError` that a text (with `--set` values) must raise."""

    def _message(text: str | bytes = SAMPLE, *settings: str) -> str:
        with pytest.raises(InputError) as caught:
            load(text, *settings)
        return str(caught.value)

    return _message
