"""The parts of a scenario that have a name in the catalogue: a model, GPU, link, board, switch, codec.

Each is written as `NAME`, as `{type: NAME, field: override}`, or without `type` with all of its fields. By the time
these classes see the data, `presets` has filled in the catalogue's values, so every field is required here; in the JSON
schema, which editors use on what the user wrote, they are optional.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from simulator import catalog
from simulator.errors import did_you_mean
from simulator.scenario.quantities import Count, Flag, Number, Quantity, Text, Tokens, refuse, shown

Time = Annotated[float, Quantity("time", finite=True)]
Size = Annotated[float, Quantity("size", finite=True)]
PositiveSize = Annotated[float, Quantity("size", above_zero=True, finite=True)]
Rate = Annotated[float, Quantity("rate", above_zero=True)]
PositiveSizeOrInf = Annotated[float, Quantity("size", above_zero=True)]
LinkRate = Annotated[float, Quantity("rate", above_zero=True, why="a link needs a bandwidth above 0")]
Flops = Annotated[float, Quantity("flops", above_zero=True)]
Power = Annotated[float, Quantity("power")]
Money = Annotated[float, Quantity("money")]
Share = Annotated[float, Number(above=0, most=1)]
ShareOrNone = Annotated[float, Number(least=0, most=1)]
Positive = Annotated[float, Number(above=0)]
Whole = Annotated[int, Count(1)]
Label = Annotated[str, Text()]
RATIO_OR_MEASURED = {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"const": "measured"}]}


class Section(BaseModel):
    """A mapping whose keys are all known; `default` texts are read like the user's."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


def default(value: Any, description: str) -> Any:
    """A field that may be left out; texts with units are read like the user's."""
    return Field(default=value, description=description)


def known(kind: str, name: str) -> str:
    """`name` if the catalogue has it among `kind`."""
    names = catalog.names(kind)
    if name not in names:
        listing = f"`speckvsim catalog {kind}` lists all {len(names)}"
        hint = "   ".join(filter(None, (did_you_mean(name, names), listing)))
        raise refuse(f"{shown(name)} is not a known {SINGULAR[kind]}", hint)
    return name


SINGULAR = {
    "models": "model", "gpus": "GPU", "links": "link", "boards": "board", "switches": "switch", "codecs": "codec",
    "prices": "price list", "engines": "engine", "kv_systems": "KV system",
}  # fmt: skip


class Part(Section):
    """Something with a name in the catalogue."""

    kind: ClassVar[str]
    type: Label | None = default(None, "a name from `speckvsim catalog`; the fields beside it override it")
    name: Label | None = default(None, "a label for results; default: the type")

    @field_validator("type")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        return value if value is None else known(cls.kind, value)

    @property
    def label(self) -> str:
        return self.name or self.type or "custom"

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Name or mapping; nothing is required beside a `type`."""
        mapping = handler.resolve_ref_schema(handler(schema))
        mapping.pop("required", None)
        names = catalog.names(cls.kind)
        mapping["properties"]["type"]["examples"] = names
        whole: dict[str, Any] = {"title": mapping.get("title", cls.__name__), "anyOf": [{"enum": names}, dict(mapping)]}
        mapping.clear()
        mapping.update(whole)
        return mapping


class ModelPart(Part):
    kind = "models"
    layers: Whole
    hidden: Whole
    heads: Whole
    kv_heads: Whole
    head_dim: Whole
    intermediate: Whole
    vocab: Whole
    gated_mlp: Annotated[bool, Flag()] = Field(description="gate and up projection, or one up projection")
    max_context: Annotated[int, Tokens()] = Field(description="prompt and output together")
    weight_bytes: Positive = Field(description="bytes per parameter")
    kv_bytes: Positive = Field(description="bytes per KV element in HBM")


class LinkPart(Part):
    kind = "links"
    read_bandwidth: LinkRate = Field(description="towards the GPU, payload")
    write_bandwidth: LinkRate = Field(description="towards the pool, payload")
    latency: Time = Field(description="one way")


class GpuPart(Part):
    kind = "gpus"
    peak_flops: Flops = Field(description="dense bf16")
    memory: PositiveSize
    memory_bandwidth: Rate
    memory_latency: Time
    multiprocessors: Whole = Field(description="SMs")
    gemm_flops_efficiency: Share = Field(description="full tiles on all SMs at full clocks")
    gemm_sustained_efficiency: Share = Field(description="at the power limit")
    gemm_bandwidth_efficiency: Share
    gemm_exposed: ShareOrNone = Field(description="of the shorter of compute and memory: what does not overlap")
    elementwise_bandwidth_efficiency: Share
    attention_flops_efficiency: Share = Field(description="prefill of whole prompts")
    paged_attention_flops_efficiency: Share = Field(description="prefill of chunks over a past")
    paged_attention_tile_efficiency: Share = Field(description="the same, a tile with little else beside it")
    attention_bandwidth_efficiency: Share
    attention_sequence_bandwidth: Rate = Field(description="decode of one KV head of one sequence that is not split")
    launch: Time = Field(description="per kernel inside a replayed graph")
    all_reduce_latency: Time
    all_reduce_bandwidth: Rate = Field(description="bus bandwidth, nccl-tests convention")
    all_reduce_switch: Size = Field(description="smaller messages use the low-latency protocol")
    all_reduce_small_latency: Time
    all_reduce_small_bandwidth: Rate
    staging_bandwidth: Rate = Field(description="writes of fetched pages into HBM")
    compress_rate: Rate = Field(description="codec kernel on the GPU, raw bytes")
    decompress_rate: Rate
    idle_power: Power
    decode_power: Power = Field(description="while weights stream at full rate")
    prefill_power: Power = Field(description="while dense products run at the sustained rate; also the limit")
    price: Money
    rent: Annotated[float, Quantity("money_rate")]
    link: LinkPart = Field(description="the GPU's own port")
    calibrated: Annotated[bool, Flag()] = Field(description="efficiencies were measured on this part")
    count: Whole = 1
    tensor_parallel: Whole | None = default(None, "default: count")
    memory_utilization: Share = default(0.9, "share of HBM that the engine may use")
    reserve: Size = default("2 GiB", "per GPU: activations, CUDA graphs, communication buffers")


class BoardPart(Part):
    kind = "boards"
    memory: PositiveSize
    memory_bandwidth: Rate = Field(description="reads and writes together")
    memory_latency: Time
    translation: Time = Field(description="address translation per access")
    directory: Time = Field(description="coherence directory look-up per access")
    engines: Whole = Field(description="compression pipelines; as many decompression pipelines")
    engine_rate: Rate = Field(description="raw bytes of one pipeline")
    engine_fill: Time
    dma_bandwidth: Rate = Field(description="per direction")
    outstanding: PositiveSizeOrInf = Field(description="bytes in flight per board")
    idle_power: Power
    active_power: Power
    price: Money = Field(description="without memory")


class SwitchPart(Part):
    kind = "switches"
    uplinks: Whole = Field(description="ports towards the GPUs")
    port_bandwidth: LinkRate = Field(description="per direction and port")
    latency: Time = Field(description="port to port")
    power: Power
    price: Money


class Measure(Section):
    """What `ratio: measured` codes: a tensor file or a named distribution."""

    tensors: Label | None = default(None, "a .npy file [..., tokens, channels], relative to the scenario file")
    synthetic: Label | None = default(None, "normal or ar1:RHO")
    bits: Literal[8, 4, 2] = 8
    axis: Literal["token", "channel"] = default("token", "along which differences are taken")

    @model_validator(mode="after")
    def _one(self) -> Measure:
        if (self.tensors is None) == (self.synthetic is None):
            raise refuse("give either tensors (a .npy file) or synthetic (normal, ar1:RHO)")
        return self


class CodecPart(Part):
    kind = "codecs"
    ratio: Annotated[Positive, WithJsonSchema(RATIO_OR_MEASURED)] = Field(description="raw bytes / stored bytes")
    measure: Measure | None = default(None, "with ratio: measured")
    compress_at: Literal["fpga", "gpu"] = "fpga"
    decompress_at: Literal["fpga", "gpu"] = "fpga"
