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
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from simulator import catalog
from simulator.errors import did_you_mean
from simulator.scenario.precision import KV, WEIGHTS
from simulator.scenario.quantities import Count, Flag, Number, Quantity, Text, Tokens, refuse, shown

Time = Annotated[float, Quantity("time", finite=True)]
Size = Annotated[float, Quantity("size", finite=True)]
PositiveSize = Annotated[float, Quantity("size", above_zero=True, finite=True)]
Rate = Annotated[float, Quantity("rate", above_zero=True)]
PositiveSizeOrInf = Annotated[float, Quantity("size", above_zero=True)]
LinkRate = Annotated[float, Quantity("rate", above_zero=True, why="a link needs a bandwidth above 0")]
Flops = Annotated[float, Quantity("flops", above_zero=True)]
FlopsOrNone = Annotated[float, Quantity("flops")]
Power = Annotated[float, Quantity("power")]
Money = Annotated[float, Quantity("money")]
Share = Annotated[float, Number(above=0, most=1)]
Boosted = Annotated[float, Number(above=0, most=1.2)]  # clocks may exceed those of the datasheet's peak
Cached = Annotated[float, Number(above=0, most=2)]  # above 1 where bytes are found in L2
ShareOrNone = Annotated[float, Number(least=0, most=1)]
Positive = Annotated[float, Number(above=0)]
Cost = Annotated[float, Number(least=0)]
Factor = Annotated[float, Number(least=0)]
Whole = Annotated[int, Count(1)]
WholeOrNone = Annotated[int, Count(0)]
Label = Annotated[str, Text()]
RATIO_OR_MEASURED = {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"const": "measured"}]}


class _Activations(Quantity):
    """A size, or `profile`: what a step of the most tokens that the scheduler allows takes (-1 until that is known)."""

    def read(self, value: Any) -> float:
        return PROFILE if value == "profile" else super().read(value)


PROFILE = -1.0
SizeOrProfile = Annotated[float, _Activations("size", finite=True)]


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
    "copy_engines": "copy engine",
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
    config: Label | None = default(None, "a Hugging Face config.json instead of a type; relative to the scenario")
    weights: Label = default("bf16", f"precision: {', '.join(WEIGHTS)}; sets weight_bytes and embedding_bytes unless given")
    kv: Label | None = default(None, f"precision of KV in HBM: {', '.join(KV)}; sets kv_bytes")
    embedding_bytes: Positive | None = default(None, "bytes per parameter of embedding and LM head; default: weight_bytes")
    tied_embeddings: Annotated[bool, Flag()] = default(False, "the LM head is the embedding")
    positions: WholeOrNone = default(0, "learned position embeddings")
    bias: Literal["none", "qkv", "all"] = default("none", "which products have one")
    window: Annotated[int, Tokens(0)] = default("0 tokens", "sliding window; 0: none")
    full_layers: WholeOrNone = default(0, "layers without the window")
    experts: WholeOrNone = default(0, "routed experts of a layer; 0: dense")
    experts_per_token: WholeOrNone = default(0, "of them")
    expert_intermediate: WholeOrNone = default(0, "width of one")
    shared_intermediate: WholeOrNone = default(0, "width of the shared experts together")
    dense_layers: WholeOrNone = default(0, "leading layers without experts")
    kv_latent: WholeOrNone = default(0, "latent attention: rank of the KV latent; 0: none")
    q_latent: WholeOrNone = default(0, "rank of the query latent; 0: none")
    rope_dim: WholeOrNone = default(0, "elements of a latent-attention head with rotary embedding, beside head_dim")

    @field_validator("weights", "kv")
    @classmethod
    def _precision(cls, value: str | None, info: ValidationInfo) -> str | None:
        table = WEIGHTS if info.field_name == "weights" else KV
        if value is not None and value not in table:
            message = f"{shown(value)} is not a known precision; expected one of: {', '.join(table)}"
            raise refuse(message, did_you_mean(value, table))
        return value


class LinkPart(Part):
    kind = "links"
    read_bandwidth: LinkRate = Field(description="towards the GPU, payload")
    write_bandwidth: LinkRate = Field(description="towards the pool, payload")
    latency: Time = Field(description="one way")
    requests: ShareOrNone = default(0.0, "bytes in the write direction per byte read: requests, shared credits")
    credits: PositiveSizeOrInf = default("inf", "receive buffer in each direction (detailed devices)")
    load_factor: Factor = default(0.0, "a of latency * (1 + a u / (1 - u)) with the load u of others")
    power: Power = default("0 W", "of the adapter of a board's link")
    price: Money = default("0 USD", "of the adapter of a board's link")


class GpuPart(Part):
    kind = "gpus"
    peak_flops: Flops = Field(description="dense bf16")
    fp8_flops: FlopsOrNone = default("0 TFLOP/s", "dense fp8; 0: no such unit")
    int8_flops: FlopsOrNone = default("0 TFLOP/s", "dense int8; 0: no such unit")
    memory: PositiveSize
    memory_bandwidth: Rate
    memory_latency: Time
    multiprocessors: Whole = Field(description="SMs")
    gemm_flops_efficiency: Boosted = Field(description="full tiles on all SMs at full clocks")
    gemm_sustained_efficiency: Boosted = Field(description="at the power limit")
    gemm_bandwidth_efficiency: Share
    gemm_exposed: ShareOrNone = Field(description="of the shorter of compute and memory: what does not overlap")
    gemm_tail: ShareOrNone = Field(description="of the idling in the last wave of tiles: what costs time")
    gemm_wave: Time = Field(description="of a tile besides its FLOPs")
    gemm_operand_bandwidth: Rate = Field(description="of operands into the tiles of all SMs")
    gemm_tiles: Literal["warpgroup", "warp"] = default("warpgroup", "whose instructions the library's tiles are made for")
    elementwise_bandwidth_efficiency: Cached
    attention_kernels: Literal["apart", "together"] = Field(description="of prompt pieces and decodes: two, or one")
    attention_flops_efficiency: Share = Field(description="prefill of whole prompts")
    paged_attention_flops_efficiency: Share = Field(description="tiles of a paged kernel on all SMs")
    paged_attention_tile_efficiency: Share = Field(description="one tile on its SM, little else beside it")
    attention_tile: Whole = Field(description="query rows of such a tile")
    attention_block: Time = Field(description="of a tile besides its FLOPs")
    attention_bandwidth_efficiency: Share
    attention_sequence_bandwidth: Rate = Field(description="decode of one KV head of one sequence that is not split")
    attention_latency: Time = Field(description="of a decode kernel with tensor cores besides its launch")
    l2_cache: PositiveSize
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
    tensor_parallel: Whole | None = default(None, "default: count / pipeline_parallel / data_parallel")
    pipeline_parallel: Whole = default(1, "stages")
    expert_parallel: Whole = default(1, "GPUs that whole experts are dealt out over; 1: experts are cut like all weights")
    data_parallel: Whole = default(1, "replicas of a MoE model in lock step; expert_parallel spans all of them")
    memory_utilization: Share = default(0.9, "share of HBM that the engine may use")
    reserve: Size = default("2 GiB", "per GPU: CUDA context and graphs, communication buffers; activations, if those are 0")
    activations: SizeOrProfile = default(
        "0 B", "per GPU, at the peak of a step; `profile`: computed as by an engine's profile run"
    )


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
    load_factor: Factor = default(0.0, "a of latency * (1 + a u / (1 - u)) with the load u of others")
    # detailed devices; what a board without a type does not say is that of agilex-7-buildable
    cycle: Time = default("2.5 ns", "clock period of the pipelines")
    descriptor: Time = default("10 ns", "between two DMA descriptors")
    tlb_entries: Whole = 1024
    tlb_ways: Whole = 4
    tlb_page: PositiveSize = default("2 MiB", "that a TLB entry translates")
    tlb_walk: Time = default("27.5 ns", "a miss, on top of a hit")
    directory_entries: Whole = 65536
    directory_ways: Whole = 8
    directory_grain: PositiveSize = default("64 KiB", "bytes of a coherence line")
    channels: Whole = default(32, "of the memory")
    banks: Whole = default(16, "per channel")
    row: PositiveSize = default("1 KiB", "bytes of an open row")
    row_cycle: Time = default("45 ns", "between two activations of a bank")
    interleave: PositiveSize = default("256 B", "bytes on a channel before the next one")
    turnaround: Time = default("15 ns", "between reading and writing")
    write_batch: PositiveSize = default("64 KiB", "bytes written in a row while reads wait")
    idle_power: Power
    active_power: Power
    price: Money = Field(description="without memory")


class SwitchPart(Part):
    kind = "switches"
    uplinks: Whole = Field(description="ports towards the GPUs; of a leaf: towards the root")
    downlinks: Whole = default(16, "ports towards the boards")
    port_bandwidth: LinkRate = Field(description="per direction and port")
    latency: Time = Field(description="port to port")
    load_factor: Factor = default(0.0, "a of latency * (1 + a u / (1 - u)) with the load u of others")
    buffer: PositiveSizeOrInf = default("inf", "per output port (detailed devices)")
    arbitration: Literal["round_robin", "weighted", "deadline"] = default("round_robin", "between inputs (detailed devices)")
    weights: tuple[Positive, ...] = default((), "weighted: of the inputs in turn, boards or, for writes, GPUs; default: equal")
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
    arrays: Whole = default(1, "of which the pages of a layer consist (codes, scales, minima): a copy engine copies each")
    spread: ShareOrNone = default(0.0, "compressed sizes are uniform within this share of their mean (detailed devices)")
    compress_efficiency: Share | None = default(None, "kernel at the GPU, raw + compressed bytes/s over HBM bandwidth")
    decompress_efficiency: Share | None = default(None, "default: the GPU's compress_rate and decompress_rate")


class CopyEnginePart(Part):
    """How the GPUs themselves move pages to and from host memory."""

    kind = "copy_engines"
    method: Literal["copy", "pages", "batch", "gather", "push"] = default(
        "copy", "copy: one a layer and array; pages, batch: one a page, in single calls or all in one; gather: a kernel; "
        "push: the boards' DMA does it, and only what it costs the kernels beside it counts",
    )  # fmt: skip
    blocks: Whole = default(32, "thread blocks of a gather kernel")
    read_bandwidth: LinkRate = Field(description="long copies towards the GPU")
    write_bandwidth: LinkRate = Field(description="towards the host")
    duplex: Share = Field(description="of their sum, when both directions are busy")
    read_setup: Time = Field(description="of the engine per copy, beside its bytes")
    write_setup: Time
    batch_setup: Time = Field(description="of a copy in one call with many others")
    issue: Time = Field(description="of the host thread per call")
    start: Time = Field(description="of a lone copy beside its bytes, from issue to whoever waits")
    block_latency: Time = Field(description="that a thread block's read takes longer than one thread's")
    block_bandwidth: Rate = Field(description="loads of one thread block beyond the first")
    gather_outstanding: PositiveSize = Field(description="in flight per thread block")
    gather_read_bandwidth: LinkRate
    gather_write_bandwidth: LinkRate
    write_cost: Cost = Field(description="bytes of HBM streaming that a byte copied into HBM costs the kernels beside it")
    read_cost: Cost = Field(description="the same, out of HBM")
    gather_cost: Cost = Field(description="the same, by a gather kernel")
    gather_sms: Cost = Field(description="SMs whose places one gather block takes")
    gather_power: ShareOrNone = Field(description="of the power of those places that it draws")
    gather_tail: Cost = Field(description="tiles that a matrix product waits for its slowest one beside gathers")
    gather_spare: Positive = Field(description="gather blocks that leave 1/e of the products undisturbed")
