"""The scenario as users write it: sections, keys, kinds of value, defaults. Unknown keys are errors.

Only one field or one section at a time is checked here; what needs several sections is in `checks`. Defaults that
depend on other fields (`l1`, `tensor_parallel`, `prefill_chunk`) are filled in by `resolve`. Keys with one accepted
value say what the simulator models; the other values of the design's nine KV policies are refused, not ignored.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from simulator.scenario.parts import (
    BoardPart,
    CodecPart,
    GpuPart,
    Label,
    LinkPart,
    ModelPart,
    Positive,
    PositiveSize,
    Section,
    Size,
    SwitchPart,
    Time,
    Whole,
    default,
    known,
)
from simulator.scenario.quantities import Count, Number, Quantity, Text, Tokens, refuse, refuse_all
from simulator.scenario.workload_schema import Workload

Window = Annotated[float, Number(least=0, most=1)]
TokenCount = Annotated[int, Tokens()]


class Pool(Section):
    board: BoardPart
    count: Whole = 1
    link: LinkPart = Field(description="each board's link to the switch or to a GPU")
    links_per_board: Whole = 1
    switch: SwitchPart | None = None
    memory_price: Annotated[float, Quantity("money_per_size")] = Field(description="default: from cost.prices")


class Cluster(Section):
    replicas: Annotated[int, Count(1)] = 1
    gpus: GpuPart
    kv_pool: Pool | None = default(None, "`none` or absent: GPUs only")

    @field_validator("replicas")
    @classmethod
    def _one_replica(cls, value: int) -> int:
        if value != 1:
            raise refuse(f"{value} replicas: several replicas are not modelled yet; run one scenario per replica")
        return value


class Layout(Section):
    kind: Literal["native"] = "native"


class Retention(Section):
    kind: Literal["full"] = "full"


class Selection(Section):
    kind: Literal["dense", "budget"] = "dense"
    tokens: TokenCount | None = default(None, "budget: most tokens of a sequence that a decode step reads")

    @model_validator(mode="after")
    def _tokens(self) -> Selection:
        if self.kind == "budget" and self.tokens is None:
            raise refuse("budget needs tokens; write for example tokens: '1024 tokens'")
        if self.kind == "dense" and self.tokens is not None:
            raise refuse("dense does not use tokens; remove it or write kind: budget", at=("tokens",))
        return self


class Placement(Section):
    eviction: Literal["split", "lru"] = "split"


class Topology(Section):
    kind: Literal["colocated"] = "colocated"


class Sharing(Section):
    kind: Literal["private"] = "private"


class Loop(Section):
    kind: Literal["autoregressive"] = "autoregressive"


class Kv(Section):
    system: Label = default("none", "a published system; its values are defaults under yours")
    block: TokenCount = default("16 tokens", "a row of the page table")
    burst: PositiveSize = default("64 KiB", "bytes of one DMA descriptor")
    l1: Size | None = default(None, "per GPU; absent or `none`: all HBM left")
    l2: Size = default("0 B", "prefetch buffer per GPU; needs a pool")
    layout: Layout = Layout()
    codec: CodecPart | None = None
    retention: Retention = Retention()
    selection: Selection = Selection()
    placement: Placement = Placement()
    topology: Topology = Topology()
    sharing: Sharing = Sharing()
    loop: Loop = Loop()

    @field_validator("system")
    @classmethod
    def _known(cls, value: str) -> str:
        return known("kv_systems", value)


# what each predictor uses; every other field of `prefetch` is refused beside it
PREDICTORS = {
    "none": (),
    "next_layer": ("depth",),
    "statistical": ("depth", "coverage", "accuracy", "latency"),
    "oracle": (),
}


class Prefetch(Section):
    predictor: Literal["none", "next_layer", "statistical", "oracle"] = "none"
    depth: Annotated[int, Count(0)] | None = default(None, "layers ahead; default 1")
    coverage: Window | None = default(None, "share of far pages that are proposed in time")
    accuracy: Annotated[float, Number(above=0, most=1)] | None = default(None, "share of proposals that are right")
    latency: Time | None = default(None, "per prediction; default 0 s")

    @model_validator(mode="after")
    def _used(self) -> Prefetch:
        used = PREDICTORS[self.predictor]
        given = [name for name in ("depth", "coverage", "accuracy", "latency") if getattr(self, name) is not None]
        problems: list[tuple[tuple[str, ...], str]] = [
            ((name,), f"the predictor '{self.predictor}' does not use {name}; remove it") for name in given if name not in used
        ]
        if self.predictor == "statistical":
            missing = [name for name in ("coverage", "accuracy") if name not in given]
            if missing:
                problems.append(((), f"the predictor 'statistical' needs {' and '.join(missing)}"))
        if problems:
            raise refuse_all(problems)
        return self


class Scheduler(Section):
    batching: Literal["continuous", "static"] = "continuous"
    max_batch: Whole = 64
    token_budget: TokenCount = default("2048 tokens", "of a step: decodes first, the rest prefill")
    prefill_chunk: TokenCount | None = default(None, "most tokens of one prompt in a step; default: token_budget")
    reserve: Literal["prompt", "full"] = "prompt"
    watermark: Window = default(0.01, "share of all blocks kept free at admission")
    engine: Label | None = default(None, "host overhead of a serving engine in the catalogue")
    host_overhead: Time | None = default(None, "per step; default 0 s")

    @field_validator("engine")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        return value if value is None else known("engines", value)


class Slo(Section):
    ttft: Time | None = None
    tpot: Time | None = None


class Cost(Section):
    prices: Label = default("2026-11", "a dated price list in the catalogue")
    basis: Literal["purchase", "rent"] = "purchase"
    as_of: Label
    years: Positive = Field(description="amortisation")
    utilization: Annotated[float, Number(above=0, most=1)]
    electricity: Annotated[float, Quantity("money_per_energy")]
    pue: Annotated[float, Number(least=1)]
    host_price: Annotated[float, Quantity("money")]
    host_power: Annotated[float, Quantity("power")]

    @field_validator("prices")
    @classmethod
    def _known(cls, value: str) -> str:
        return known("prices", value)


class ScenarioFile(Section):
    """A scenario of speckvsim: one system serving one workload."""

    name: Annotated[str, Text(("cxl-speckv-llama2-70b",))]
    seed: Annotated[int, Count(0)] = 0
    workload: Workload
    model: ModelPart
    cluster: Cluster
    kv: Kv = Kv()
    prefetch: Prefetch = Prefetch()
    scheduler: Scheduler = Scheduler()
    slo: Slo = Slo()
    cost: Cost


# keys that presets fill in, so that a file may leave them out
_FILLED = {
    "ScenarioFile": {"cost"},
    "Pool": {"memory_price"},
    "Cost": {"as_of", "years", "utilization", "electricity", "pue", "host_price", "host_power"},
}
_OR_NONE = {("Pool", "switch"), ("Cluster", "kv_pool"), ("Kv", "l1"), ("Kv", "codec"), ("Trace", "limit")}


def json_schema() -> dict[str, Any]:
    """The JSON schema of a scenario file, for editors and for `speckvsim schema`."""
    schema = ScenarioFile.model_json_schema()
    parts = {**schema["$defs"], "ScenarioFile": schema}
    for name, part in parts.items():
        required = [key for key in part.pop("required", []) if key not in _FILLED.get(name, set())]
        if required:
            part["required"] = required
    for name, key in _OR_NONE:
        parts[name]["properties"][key]["anyOf"].append({"const": "none"})
    link = parts["LinkPart"]["anyOf"][1]["properties"]
    link["bandwidth"] = {**link["read_bandwidth"], "title": "Bandwidth", "description": "of both directions"}
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "speckvsim scenario"
    return schema
