"""The runs behind the ledger: the authors' world, the same with measured links and codec, and GPUs alone.

A run is made once: its summary is kept under its scenario and settings.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from simulator import Scenario, simulate
from simulator.errors import InputError, Problem

SCENARIOS = Path(__file__).parents[2] / "scenarios"
TENSORS = Path(__file__).parents[2] / "traces" / "python_reference"
TENSOR = TENSORS / "kv_layer3.npy"  # keys and values of a middle layer
SERVING = "authors_serving.yaml"

ALONE = (
    "kv.system=none", "kv.codec=none", "kv.l1=none", "kv.l2=0 B", "kv.placement={}", "cluster.kv_pool=none", "prefetch={}",
)  # fmt: skip
# PCIe Gen4 as measured, the codec's ratio on real keys and values, the order of layers in place of a guess
LINKS = ("cluster.gpus.link=pcie-gen4-x16", "cluster.kv_pool.link=pcie-gen4-x16")
MEASURED = (
    *LINKS,
    f"kv.codec={{ratio: measured, measure: {{tensors: {TENSOR}}}, compress_at: fpga, decompress_at: fpga}}",
    "prefetch={predictor: next_layer}",
)
GROUPED, ALL_HEADS = "llama-2-70b", "llama-2-70b-mha"  # as released, and as the paper's KV formula has it

Summary = dict[str, Any]


class Runs:
    """Summaries by (scenario file, settings); `told` hears of every run that is made."""

    def __init__(self, told: Callable[[str], None] = lambda text: None):
        self.told = told
        self._known: dict[tuple[str, tuple[str, ...]], Summary] = {}

    def __len__(self) -> int:
        return len(self._known)

    def of(self, *settings: str, file: str = SERVING) -> Summary:
        if (file, settings) not in self._known:
            self._known[file, settings] = simulate(scenario(*settings, file=file)).summary
            self.told(f"{len(self)} runs")
        return self._known[file, settings]

    def alone(self, model: str, batch: int, *settings: str, file: str = SERVING) -> Summary:
        """Eight GPUs without a pool."""
        return self.pool(model, batch, *ALONE, *settings, file=file)

    def pool(self, model: str, batch: int, *settings: str, file: str = SERVING) -> Summary:
        return self.of(f"model={model}", f"scheduler.max_batch={batch}", *settings, file=file)


def scenario(*settings: str, file: str = SERVING) -> Scenario:
    path = SCENARIOS / file
    if not path.exists():
        message = "is not installed with the package; run `speckvsim reproduce` from a clone of the project"
        raise InputError(Problem(str(path), "", message))
    return Scenario.load(path, set=settings)


def kv_per_token(model: str) -> float:
    """Bytes over all layers, not compressed."""
    return scenario(f"model={model}").resolved.model.kv_bytes_per_token


def tokens_per_s(summary: Summary) -> float:
    return float(summary["throughput"]["output_tokens_per_s"])


def decode_tokens_per_s(summary: Summary) -> float:
    """Of the steps without prompts."""
    return float(summary["throughput"]["decode_output_tokens_per_s"])


def line(name: str, summary: Summary) -> dict[str, Any]:
    """A row of the tables under a claim."""
    access = summary["kv_access"]
    return {
        "run": name,
        "output tokens/s": tokens_per_s(summary),
        "decode tokens/s": decode_tokens_per_s(summary),
        "mean TPOT (ms)": 1e3 * summary["latency"]["tpot_s"]["mean"],
        "KV reads from the pool (%)": 100.0 * (access["l3_read_share"] or 0.0),
        "J per token": summary["energy"]["joules_per_output_token"],
        "USD per million tokens": summary["cost"]["usd_per_million_output_tokens"],
        "bound by": summary["bound_by"],
    }
