"""The scenario as users write it: sections, keys, kinds of value, defaults. Unknown keys are errors.

Only one field or one section at a time is checked here; what needs several sections is in `checks`. Defaults that
depend on other fields (`l1`, `tensor_parallel`, `prefill_chunk`) are filled in by `resolve`. Keys with one accepted
value say what the simulator models; the other values of the design's nine KV policies are refused, not ignored.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from simulator.scenario.cluster import GroupPart, TransferPart
from simulator.scenario.faults import FaultPart
from simulator.scenario.parts import (
    BoardPart,
    CodecPart,
    CopyEnginePart,
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
from simulator.scenario.policy_schema import ComputePart, HbmCodecPart, LayoutPart, LoopPart, RetentionPart
from simulator.scenario.quantities import Count, Flag, Number, Quantity, Text, Tokens, refuse, refuse_all
from simulator.scenario.serving_schema import Scheduler, Slo, TenantPart, unique
from simulator.scenario.workload_schema import Workload

Window = Annotated[float, Number(least=0, most=1)]
SomeShare = Annotated[float, Number(above=0, most=1)]
TokenCount = Annotated[int, Tokens()]


class Pool(Section):
    board: BoardPart
    count: Whole = 1
    link: LinkPart = Field(description="each board's link to the switch or to a GPU")
    links_per_board: Whole = 1
    switch: SwitchPart | None = default(None, "between the boards and the GPUs; the root of a tree")
    leaf: SwitchPart | None = default(None, "second level of a tree, between the boards and `switch`")
    leaves: Whole = default(1, "how many leaf switches")
    gpus_per_port: Whole = default(1, "GPUs behind one port")
    placement: Literal["round_robin", "hash", "least_loaded"] = default("round_robin", "of bursts on boards (detailed devices)")
    shared: Annotated[bool, Flag()] = default(True, "by all replicas of the scenario; false: each has a pool of its own")
    shared_by: Whole = default(1, "replicas outside of the scenario, and this one, that share boards and switches")
    others_load: Annotated[float, Number(least=0, most=0.99)] = default(0.0, "share of what is shared that the others use")
    weight: Annotated[float, Number(above=0)] = default(1.0, "of this replica where arbiters share out; the others have 1 each")
    saturation: Annotated[float, Number(least=1)] = default(7.1, "latency under load, at most, times the unloaded one")
    copy_engine: CopyEnginePart | None = default(None, "the GPUs move the pages themselves; `none`: the boards' DMA does")
    memory_price: Annotated[float, Quantity("money_per_size")] = Field(description="default: from cost.prices")
    memory_power: Annotated[float, Quantity("power_per_size")] = default(
        "0 W/GB", "of the memory, where the power of the board is without it"
    )


class Cluster(Section):
    replicas: Whole = 1
    gpus: GpuPart
    groups: tuple[GroupPart, ...] = default((), "instead of replicas: groups of replicas that are alike")
    routing: Literal[
        "round_robin", "random", "least_outstanding", "least_kv", "power_of_two", "prefix_aware", "session_sticky"
    ] = default("round_robin", "which replica a request goes to when it arrives")
    transfer: TransferPart | None = default(None, "how KV gets from prefill to decode replicas")
    kv_pool: Pool | None = default(None, "`none` or absent: GPUs only")


# what each kind of selection uses; every other field of `kv.selection` is refused beside it
_SELECTED = ("fraction", "dense_layers", "select_every", "index", "overlap", "floor", "refresh")
_SELECTION_FIELDS = {"dense": (), "budget": ("tokens",), "pages": ("tokens", *_SELECTED)}


class Selection(Section):
    kind: Literal["dense", "budget", "pages"] = default("dense", "budget: spread evenly, known; pages: sets drawn page by page")
    tokens: TokenCount | None = default(None, "budget, pages: most tokens of a sequence that a decode step reads")
    fraction: Annotated[float, Number(above=0, most=1)] | None = default(None, "pages: instead of tokens, share of the context")
    dense_layers: Annotated[int, Count(0)] | None = default(None, "pages: first layers, which read everything; default 0")
    select_every: Whole | None = default(None, "pages: every so-manieth layer selects, the others reuse its set; default 1")
    index: Window | None = default(None, "pages: bytes of index that a selecting layer reads per byte of KV; default 0")
    overlap: Window | None = default(None, "pages: share of a set that was in the set before; an input, no default")
    floor: Window | None = default(None, "pages: share of a set that never changes (query-agnostic); default 0")
    refresh: Whole | None = default(None, "pages: steps between changes of the sets; default 1")
    stage: Literal["decode", "both"] = default("decode", "both: prompts read selected tokens as well")
    k_fraction: SomeShare = default(1.0, "K bytes that are read of a selected token")
    v_fraction: SomeShare = default(1.0, "V bytes that are read of a selected token")
    index_flops: Annotated[float, Number(least=0)] = default(
        0.0, "both: FLOPs of an index over a prompt, relative to attention over it, in selecting layers"
    )
    index_stored: Window = default(0.0, "bytes of index stored beside each byte of KV")

    @model_validator(mode="after")
    def _used(self) -> Selection:
        used = _SELECTION_FIELDS[self.kind]
        given = [name for name in ("tokens", *_SELECTED) if getattr(self, name) is not None]
        problems: list[tuple[tuple[str, ...], str]] = []
        for name in given:
            if name not in used:
                orelse = f"write kind: {'budget' if self.kind == 'dense' and name == 'tokens' else 'pages'}"
                problems.append(((name,), f"{self.kind} does not use {name}; remove it or {orelse}"))
        if self.kind == "budget" and self.tokens is None:
            problems.append(((), "budget needs tokens; write for example tokens: '1024 tokens'"))
        if self.kind == "pages":
            if (self.tokens is None) == (self.fraction is None):
                problems.append(((), "pages needs either tokens ('1024 tokens') or fraction (0.1)"))
            if self.overlap is not None and self.floor is not None and self.floor > self.overlap:
                problems.append(
                    (("floor",), f"floor {self.floor:g} exceeds overlap {self.overlap:g}; what never changes overlaps")
                )
        if problems:
            raise refuse_all(problems)
        return self


class Placement(Section):
    eviction: Literal["split", "lru", "fifo", "lfu", "hot", "cost", "share", "priority"] | None = default(
        None, "which blocks leave L1 first; split: equal shares, exclusive of L3; default split, beside a prefix cache lru"
    )
    l2: Literal["exclusive", "inclusive"] = default("exclusive", "inclusive: L2 keeps selected pages that came into L1 as well")
    write_back: Literal["lazy", "immediate"] = default("lazy", "immediate: as soon as a block is full, not when it is evicted")
    threshold: Annotated[int, Count(0)] | None = default(None, "hot: uses above which a page is hot; default 10")
    adapt: bool | None = default(None, "hot: whether the threshold follows what promotions bring; default false")
    compute: ComputePart = default(ComputePart(), "where attention is computed")

    @model_validator(mode="after")
    def _used(self) -> Placement:
        problems: list[tuple[tuple[str, ...], str]] = []
        for name in ("threshold", "adapt"):
            if getattr(self, name) is not None and self.eviction != "hot":
                problems.append(
                    ((name,), f"the eviction '{self.eviction or 'split'}' does not use {name}; remove it or write hot")
                )
        if self.eviction in (None, "split"):
            why = "split moves a block once and keeps no copy"
            if self.l2 == "inclusive":
                problems.append((("l2",), f"{why}; write eviction: lru, or l2: exclusive"))
            if self.write_back == "immediate":
                problems.append((("write_back",), f"{why}; write eviction: lru, or write_back: lazy"))
        if problems:
            raise refuse_all(problems)
        return self


class Topology(Section):
    kind: Literal["colocated"] = "colocated"
    latent: Literal["replicated", "sharded"] = default("replicated", "sharded: ranks hold parts of a latent in decodes (TPLA)")


class Sharing(Section):
    kind: Literal["private", "prefix"] = default("private", "prefix: equal blocks of prompts are stored and computed once")
    read: Literal["each", "once"] = default("each", "once: a batch reads a prefix that its sequences share once (Hydragen)")
    partial: Annotated[bool, Flag()] | None = default(None, "prefix: the last, partial block of a prompt, too; default false")
    demote_after: Time | None = default(None, "prefix: unused blocks go from L1 to the pool; default: for others")
    drop_after: Time | None = default(None, "prefix: blocks unused for so long are forgotten in all tiers; default never")

    @model_validator(mode="after")
    def _used(self) -> Sharing:
        if self.kind == "private":
            for name in ("partial", "demote_after", "drop_after"):
                if getattr(self, name) is not None:
                    raise refuse(f"sharing: private does not use {name}; remove it or write kind: prefix", at=(name,))
        return self

    @model_validator(mode="after")
    def _shared(self) -> Sharing:
        if self.read == "once" and self.kind == "private":
            raise refuse("what is private has one reader; write kind: prefix", at=("read",))
        return self


class Kv(Section):
    system: Label = default("none", "a published system; its values are defaults under yours")
    block: TokenCount = default("16 tokens", "a row of the page table")
    burst: PositiveSize = default("64 KiB", "bytes of one DMA descriptor")
    l1: Size | None = default(None, "per GPU; absent or `none`: all HBM left")
    blocks: Whole | None = default(None, "L1 as the count of blocks that an engine reported, instead of l1")
    l2: Size = default("0 B", "prefetch buffer per GPU; needs a pool")
    layout: LayoutPart = LayoutPart()
    codec: CodecPart | None = default(None, "of the pool")
    hbm_codec: HbmCodecPart = default(HbmCodecPart(), "where attention reads")
    retention: RetentionPart = RetentionPart()
    selection: Selection = Selection()
    placement: Placement = Placement()
    topology: Topology = Topology()
    sharing: Sharing = Sharing()
    loop: LoopPart = LoopPart()

    @field_validator("system")
    @classmethod
    def _known(cls, value: str) -> str:
        return known("kv_systems", value)


# what each predictor uses; every other field of `prefetch` is refused beside it
_AHEAD = ("depth", "control", "priority")
_CALLS = ("latency", "service", "batch", "placement", "queue")
PREDICTORS = {
    "none": (),
    "next_layer": _AHEAD,
    "stream": ("priority",),
    "statistical": (*_AHEAD, "coverage", "accuracy", *_CALLS),
    "history": ("depth", "latency"),
    "attention": (*_AHEAD, "coverage", "accuracy", *_CALLS, "score"),
    "token_model": (*_AHEAD, *_CALLS, "model", "guesses"),
    "cxl_speckv": (*_AHEAD, *_CALLS, "guesses", "addresses"),
    "session": ("depth", "coverage", "accuracy", "lead"),
    "oracle": (),
}


class Prefetch(Section):
    predictor: Literal[
        "none", "next_layer", "stream", "statistical", "history", "attention", "token_model", "cxl_speckv", "session", "oracle"
    ] = "none"
    depth: Annotated[int, Count(0)] | None = default(None, "layers ahead; default 1, cxl_speckv 2")
    control: Literal["fixed", "additive", "ucb", "feedback"] | None = default(
        None, "of the depth (cxl_speckv: of the guesses) while the run goes on; default fixed"
    )
    priority: Literal["demand", "equal"] | None = default(None, "equal: demand waits for earlier prefetches; default demand")
    coverage: Window | None = default(None, "share of far pages that are proposed in time; attention: its recall")
    accuracy: Annotated[float, Number(above=0, most=1)] | None = default(
        None, "share of proposals that are right; attention: its precision"
    )
    lead: Time | None = default(None, "session: the fetch of its pages begins so long before its next turn")
    latency: Time | None = default(None, "from a prediction to its prefetch; default 0 s")
    service: Time | None = default(None, "of a call of the predictor, one after the other; default 0 s, cxl_speckv 10 us")
    batch: Whole | None = default(None, "predictions that a call answers; default 1")
    placement: Literal["fpga", "host", "gpu"] | None = default(None, "where calls run; gpu: in the layers; default fpga")
    queue: Annotated[int, Count(0)] | None = default(
        None, "hints that wait for calls, more are dropped; 0: any number; default 0, cxl_speckv 16"
    )
    guesses: Whole | None = default(None, "token_model: of the next token, at most 16; cxl_speckv: pages a hint; default 4")
    model: Literal["markov0", "markov1", "markov2", "markov3", "lstm"] | None = default(
        None, "token_model: measured on recorded text; default markov3"
    )
    addresses: Literal["positions", "far_pages"] | None = default(
        None, "cxl_speckv: as published, or as explained later; default positions"
    )
    score: Window | None = default(None, "attention: share of the KV that scoring reads; default 0")

    @model_validator(mode="after")
    def _used(self) -> Prefetch:
        used = PREDICTORS[self.predictor]
        given = [name for name in type(self).model_fields if name != "predictor" and getattr(self, name) is not None]
        problems: list[tuple[tuple[str, ...], str]] = [
            ((name,), f"the predictor '{self.predictor}' does not use {name}; remove it") for name in given if name not in used
        ]
        if self.predictor in ("statistical", "attention", "session"):
            needed = ("coverage", "accuracy", *(("lead",) if self.predictor == "session" else ()))
            missing = [name for name in needed if name not in given]
            if missing:
                problems.append(((), f"the predictor '{self.predictor}' needs {' and '.join(missing)}"))
        if self.predictor == "token_model" and self.guesses is not None and self.guesses > 16:
            problems.append((("guesses",), f"{self.guesses} guesses; accuracy was measured for at most 16"))
        if problems:
            raise refuse_all(problems)
        return self


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
    tenants: tuple[TenantPart, ...] = default((), "who shares the system")
    cost: Cost
    devices: Literal["fluid", "detailed"] = default("fluid", "of far memory: flows, or queues that serve single descriptors")
    faults: tuple[FaultPart, ...] = default((), "what breaks between the GPUs and the pool")

    @model_validator(mode="after")
    def _tenants(self) -> ScenarioFile:
        return unique(self, "tenants")


# keys that presets fill in, so that a file may leave them out
_FILLED = {
    "ScenarioFile": {"cost"},
    "Pool": {"memory_price"},
    "Cost": {"as_of", "years", "utilization", "electricity", "pue", "host_price", "host_power"},
}
_OR_NONE = {
    ("Pool", "switch"), ("Pool", "leaf"), ("Pool", "copy_engine"), ("Cluster", "kv_pool"), ("Kv", "l1"), ("Kv", "blocks"),
    ("Kv", "codec"), ("Trace", "limit"),
}  # fmt: skip


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
    link["protocol"] = {"type": "object", "title": "Protocol", "description": "kind, generation, lanes: gives the bandwidths"}
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "speckvsim scenario"
    return schema
