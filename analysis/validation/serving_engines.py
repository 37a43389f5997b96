"""What the engines behind published rows add to the GPU's work: one law a family of engines, few parameters with a meaning.

    host time of a step = step + per_sequence * sequences + max(0, dispatch * layers - GPU time)
                        + prefill * layers if it has prompts

`dispatch`: an engine without CUDA graphs hands out every kernel from Python. The GPU works meanwhile, so what counts is only
what the host takes longer than the GPU; that is why decode steps of such engines take the same time on four and on eight GPUs.
`prefill`: a prompt's step runs outside CUDA graphs, with more kernels a layer (KV is written, variable lengths are packed).
Three properties are not host time but kernels of their time, which read the KV of a decode step more slowly than HBM delivers:

    kv_reads            a number: achieved bandwidth is that much lower than of today's kernels
    kv_elements         per s and SM, of a CUDA-core kernel in which every query head reads its KV head for itself: no matter
                        to plain multi-head attention, but with 8 query heads a KV head 3 to 8 times slower
    one_prompt_a_step   prompts of a batch are prefilled one after the other

A family applies to rows whose engine begins with `engine` and whose GPU begins with `gpu`. Rows of engines without an entry run
with no host time and today's kernels. The law is put into the scenario of a row as its `host_overhead`.
Numbers: `data/serving_engines.yaml`; those under `fit` by `analysis/calibration/serving.py`, from half of a family's runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

import yaml

from simulator import StepModel

FILE = "serving_engines.yaml"
UNITS = {  # key in the file -> (field, SI value of 1)
    "step_ms": ("step", 1e-3),
    "per_sequence_ms": ("per_sequence", 1e-3),
    "prefill_ms_per_layer": ("prefill", 1e-3),
    "dispatch_ms_per_layer": ("dispatch", 1e-3),
    "kv_reads": ("kv_reads", 1.0),
    "kv_elements_g_per_s_sm": ("kv_elements", 1e9),
}


@dataclass(frozen=True)
class Law:
    """One family of engines. Without arguments: an engine that costs nothing."""

    name: str = "no law"
    engine: str = ""
    gpu: str = ""
    step: float = 0.0
    per_sequence: float = 0.0
    prefill: float = 0.0  # s a layer
    dispatch: float = 0.0  # s a layer
    kv_reads: float = 1.0
    kv_elements: float = 0.0  # per s and SM; 0: HBM is the only limit
    one_prompt_a_step: bool = False
    fit: tuple[str, ...] = ()  # keys of the file that were fitted
    fitted_rows: frozenset[str] = field(default=frozenset(), repr=False)

    def host(self, gpu_time: float, sequences: int, prefills: bool, layers: int) -> float:
        """Seconds that the host adds to a step in which the GPUs work for `gpu_time`."""
        hidden = max(0.0, self.dispatch * layers - gpu_time)
        return self.step + self.per_sequence * sequences + hidden + self.prefill * layers * prefills

    def reads(self, step: StepModel) -> float:
        """How much slower than HBM delivers it a decode step reads its KV."""
        if not self.kv_elements:
            return self.kv_reads
        gpu, model = step.gpu, step.model
        delivered = gpu.attention_bandwidth_efficiency * gpu.memory_bandwidth / model.kv_bytes  # elements/s
        return max(1.0, model.heads / model.kv_heads * delivered / (self.kv_elements * gpu.multiprocessors))


def laws() -> list[Law]:
    """All families, the particular before the general."""
    text = files("analysis.validation").joinpath("data", FILE).read_text(encoding="utf-8")
    return [law_from(entry) for entry in yaml.safe_load(text)]


def law_of(engine: str, gpu: str, among: list[Law]) -> Law:
    """The law of an engine on a GPU."""
    for law in among:
        if engine.startswith(law.engine) and gpu.startswith(law.gpu):
            return law
    return Law()


def law_from(entry: Mapping[str, Any]) -> Law:
    """A law from its entry in the file."""
    numbers = {name: scale * entry[key] for key, (name, scale) in UNITS.items() if key in entry}
    return Law(
        name=entry["name"],
        engine=entry["engine"],
        gpu=entry.get("gpu", ""),
        one_prompt_a_step=entry.get("one_prompt_a_step", False),
        fit=tuple(entry.get("fit", ())),
        fitted_rows=frozenset(entry.get("fitted_rows", ())),
        **numbers,
    )
