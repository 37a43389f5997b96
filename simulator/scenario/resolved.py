"""The resolved scenario: what the simulator runs.

Frozen dataclasses in SI units (seconds, bytes, bytes/s, FLOP/s, watts, USD). No defaults here: the schema and the
catalogue fill every field, and `ScenarioResolved.sources` says for each where its value came from.
`inf` is a valid rate. Sizes of KV tiers are per GPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Model:
    """A dense decoder: shapes from its configuration; everything else is computed from them."""

    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocab: int
    gated_mlp: bool  # gate and up projection (three matrices) or one up projection (two)
    max_context: int  # tokens, prompt and output together
    weight_bytes: float  # bytes per parameter
    kv_bytes: float  # bytes per KV element in HBM

    @property
    def kv_bytes_per_token_layer(self) -> float:
        """K and V of one token in one layer, all heads, one copy: bytes."""
        return 2.0 * self.kv_heads * self.head_dim * self.kv_bytes

    @property
    def kv_bytes_per_token(self) -> float:
        return self.kv_bytes_per_token_layer * self.layers

    def kv_heads_per_rank(self, tensor_parallel: int) -> int:
        """KV heads held by each rank; with more ranks than heads every rank holds a copy of one."""
        return max(1, -(-self.kv_heads // tensor_parallel))

    @property
    def layer_parameters(self) -> int:
        """Weights of one layer: QKV, output projection, MLP, two norms."""
        attention = self.hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads)
        mlp = (3 if self.gated_mlp else 2) * self.hidden * self.intermediate
        return attention + mlp + 2 * self.hidden

    @property
    def parameters(self) -> int:
        """All weights: layers, embedding, LM head (untied), final norm."""
        return self.layers * self.layer_parameters + 2 * self.vocab * self.hidden + self.hidden

    def weights_per_rank(self, tensor_parallel: int) -> float:
        """Bytes of weights on each GPU."""
        return self.parameters * self.weight_bytes / tensor_parallel


@dataclass(frozen=True)
class Link:
    """A link, one direction each way: payload bytes/s after protocol overhead."""

    name: str
    read_bandwidth: float  # towards the GPU, bytes/s
    write_bandwidth: float  # towards the pool, bytes/s
    latency: float  # s, one way


@dataclass(frozen=True)
class Gpu:
    """One GPU. Efficiencies are achieved / peak; `calibrated` says whether they come from measurements of this part."""

    name: str
    peak_flops: float  # dense bf16, FLOP/s
    memory: float  # bytes
    memory_bandwidth: float  # peak, bytes/s
    memory_latency: float  # s, one dependent HBM access
    multiprocessors: int  # SMs
    gemm_flops_efficiency: float  # full tiles on all SMs at full clocks
    gemm_sustained_efficiency: float  # at the power limit
    gemm_bandwidth_efficiency: float
    gemm_exposed: float  # share of the shorter of compute and memory that does not overlap
    elementwise_bandwidth_efficiency: float
    attention_flops_efficiency: float  # prefill of whole prompts
    paged_attention_flops_efficiency: float  # prefill of chunks over a paged past
    paged_attention_tile_efficiency: float  # the same, one tile with an SM and little else for itself
    attention_bandwidth_efficiency: float
    attention_sequence_bandwidth: float  # bytes/s: one KV head of one sequence in a decode kernel that does not split it
    launch: float  # s per kernel inside a replayed graph
    all_reduce_latency: float  # s per all-reduce at this degree of tensor parallelism
    all_reduce_bandwidth: float  # bus bandwidth, bytes/s (nccl-tests convention)
    all_reduce_switch: float  # bytes: smaller messages use the low-latency protocol
    all_reduce_small_latency: float  # s
    all_reduce_small_bandwidth: float  # bus bandwidth, bytes/s
    staging_bandwidth: float  # writes of fetched pages into HBM, bytes/s
    compress_rate: float  # codec kernels on the GPU, raw bytes/s
    decompress_rate: float  # raw bytes/s
    idle_power: float  # W
    decode_power: float  # W while weights stream at full rate
    prefill_power: float  # W while dense products run at the sustained rate; also the limit
    price: float  # USD
    rent: float  # USD per hour
    link: Link  # the GPU's own port
    calibrated: bool


@dataclass(frozen=True)
class Gpus:
    gpu: Gpu
    count: int
    tensor_parallel: int
    memory_utilization: float  # share of HBM the engine may use
    reserve: float  # bytes per GPU for activations, CUDA graphs, communication buffers


@dataclass(frozen=True)
class Board:
    """An FPGA board: memory channels, address translation, (de)compression engines, DMA."""

    name: str
    memory: float  # bytes
    memory_bandwidth: float  # bytes/s, reads and writes together
    memory_latency: float  # s
    translation: float  # s, address translation per access
    directory: float  # s, coherence directory look-up per access
    engines: int  # compression pipelines; as many decompression pipelines
    engine_rate: float  # raw bytes/s of one pipeline
    engine_fill: float  # s, pipeline depth / clock
    dma_bandwidth: float  # bytes/s per direction
    outstanding: float  # bytes in flight per board: descriptors x burst (inf: no limit)
    idle_power: float  # W
    active_power: float  # W
    price: float  # USD without memory


@dataclass(frozen=True)
class Switch:
    name: str
    uplinks: int  # ports towards the GPUs
    port_bandwidth: float  # bytes/s per direction and port
    latency: float  # s, port to port
    power: float  # W
    price: float  # USD


@dataclass(frozen=True)
class Pool:
    board: Board
    boards: int
    links_per_board: int
    link: Link
    switch: Switch | None
    memory_price: float  # USD per byte


@dataclass(frozen=True)
class Codec:
    """Compression of KV in the pool. Ratio 1 and `at` = none is the identity."""

    ratio: float
    compress_at: str  # "fpga" | "gpu"
    decompress_at: str


@dataclass(frozen=True)
class Selection:
    """Which stored tokens a decode step reads: all (`dense`) or at most `budget` tokens of each sequence."""

    kind: str  # "dense" | "budget"
    budget: int  # tokens; 0 for dense


@dataclass(frozen=True)
class Kv:
    system: str
    block_tokens: int
    l1: float | None  # bytes per GPU; None: all HBM left after weights, reserve and L2
    l2: float  # bytes per GPU
    burst: float  # bytes of one DMA descriptor
    eviction: str  # "split" | "lru"
    codec: Codec
    selection: Selection


@dataclass(frozen=True)
class Prefetch:
    predictor: str  # "none" | "next_layer" | "statistical" | "oracle"
    depth: int  # layers ahead
    coverage: float
    accuracy: float
    latency: float  # s per prediction


@dataclass(frozen=True)
class Scheduler:
    batching: str  # "continuous" | "static"
    max_batch: int
    token_budget: int  # tokens in a step: decodes first, the rest prefill
    prefill_chunk: int  # most tokens of one prompt in a step
    reserve: str  # "prompt" | "full"
    watermark: float  # share of all blocks kept free at admission
    host_overhead: float  # s per step


@dataclass(frozen=True)
class Slo:
    ttft: float | None  # s
    tpot: float | None  # s


@dataclass(frozen=True)
class Cost:
    """Prices are inputs with a date; see `catalog/prices`."""

    basis: str  # "purchase" | "rent"
    as_of: str
    years: float  # amortisation
    utilization: float  # share of those years in which the system serves
    electricity: float  # USD per joule
    pue: float
    host_price: float  # USD of the server without GPUs
    host_power: float  # W


@dataclass(frozen=True)
class Lengths:
    """A distribution of token counts."""

    dist: str  # "fixed" | "uniform" | "lognormal" | "empirical"
    tokens: int = 0  # fixed
    low: int = 0  # uniform, inclusive; also the lower clip of lognormal
    high: int = 0  # uniform, inclusive; also the upper clip of lognormal
    mean: float = 0.0  # lognormal: mean of the distribution before clipping
    cv: float = 0.0  # lognormal: standard deviation / mean
    trace: str = ""  # empirical: drawn with replacement from this trace (input and output of a row together)


@dataclass(frozen=True)
class Workload:
    """Either a recorded trace (`path` set) or synthetic requests."""

    path: str  # "" for synthetic
    format: str  # "auto" | "azure" | "mooncake" | "csv"
    limit: int | None  # first n requests (of the window)
    start: float  # s, window on the recorded clock
    end: float  # s; inf: to the end
    rate_scale: float  # recorded arrival times are divided by this
    process: str  # "recorded" | "at_once" | "poisson" | "gamma" | "constant"
    rate: float  # requests/s (synthetic)
    cv: float  # gamma: coefficient of variation of inter-arrival times
    requests: int  # synthetic: how many
    input: Lengths | None
    output: Lengths | None


@dataclass(frozen=True)
class ScenarioResolved:
    name: str
    seed: int
    workload: Workload
    model: Model
    gpus: Gpus
    pool: Pool | None
    kv: Kv
    prefetch: Prefetch
    scheduler: Scheduler
    slo: Slo
    cost: Cost
    sources: dict[str, str]  # dotted field -> where its value came from
    document: dict[str, Any]  # the resolved scenario as plain data in human units, for scenario.resolved.yaml

    @property
    def weights_per_gpu(self) -> float:
        """Bytes of weights on each GPU."""
        return self.model.weights_per_rank(self.gpus.tensor_parallel)

    @property
    def hbm_left(self) -> float:
        """Bytes per GPU that are left for KV (L1 and L2 together); negative if the model does not fit."""
        gpus = self.gpus
        return gpus.gpu.memory * gpus.memory_utilization - self.weights_per_gpu - gpus.reserve

    @property
    def l1_per_gpu(self) -> float:
        """Bytes of L1 on each GPU: as given, else all HBM that is left."""
        return self.kv.l1 if self.kv.l1 is not None else self.hbm_left - self.kv.l2
