"""The resolved scenario: what the simulator runs.

Frozen dataclasses in SI units (seconds, bytes, bytes/s, FLOP/s, watts, USD). No defaults here, but the neutral values of
what a GPU or a deployment may lack: the schema and the catalogue fill every field, and `ScenarioResolved.sources` says for
each where its value came from.
`inf` is a valid rate. Sizes of KV tiers are per GPU.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from simulator.scenario.asked import NOT_VARYING, VLLM_RULES
from simulator.scenario.asked import Chats as Chats
from simulator.scenario.asked import ReuseRules as ReuseRules
from simulator.scenario.asked import Varying as Varying
from simulator.scenario.deployment import ONE_REPLICA as ONE_REPLICA
from simulator.scenario.deployment import Cluster as Cluster
from simulator.scenario.deployment import Group as Group
from simulator.scenario.deployment import Transfer as Transfer
from simulator.scenario.model import Model as Model
from simulator.scenario.mover import CopyEngine as CopyEngine
from simulator.scenario.mover import Mover as Mover
from simulator.scenario.policies import Age as Age
from simulator.scenario.policies import Compute as Compute
from simulator.scenario.policies import HbmCodec as HbmCodec
from simulator.scenario.policies import Layout as Layout
from simulator.scenario.policies import LayoutGroup as LayoutGroup
from simulator.scenario.policies import Loop as Loop
from simulator.scenario.policies import Policies as Policies
from simulator.scenario.policies import Reading as Reading
from simulator.scenario.policies import Retention as Retention
from simulator.scenario.serving import Scheduler as Scheduler
from simulator.scenario.serving import Slo as Slo
from simulator.scenario.serving import SloClass as SloClass
from simulator.scenario.serving import Tenant as Tenant


@dataclass(frozen=True)
class Link:
    """A link, one direction each way: payload bytes/s after protocol overhead."""

    name: str
    read_bandwidth: float  # towards the GPU, bytes/s
    write_bandwidth: float  # towards the pool, bytes/s
    latency: float  # s, one way
    requests: float  # bytes in the write direction per byte read: requests, shared credits
    credits: float  # bytes of the receive buffer in each direction (detailed devices)
    load_factor: float  # a of L0 (1 + a u / (1 - u)): how latency grows with the load u of others
    power: float  # W of the adapter of a board's link
    price: float  # USD of that adapter


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
    gemm_tail: float  # share of the idling in the last wave of tiles that costs time
    gemm_wave: float  # s per tile besides its FLOPs: pipeline fill, outputs
    gemm_operand_bandwidth: float  # bytes/s of operands into the tiles of all SMs
    elementwise_bandwidth_efficiency: float
    attention_kernels: str  # "apart": decodes and prompt pieces each have a kernel; "together": one, if there are pieces
    attention_flops_efficiency: float  # prefill of whole prompts
    paged_attention_flops_efficiency: float  # tiles of a paged kernel on all SMs
    paged_attention_tile_efficiency: float  # one tile on its SM, little else beside it
    attention_tile: int  # query rows of a tile of the paged kernel
    attention_block: float  # s per tile besides its FLOPs
    attention_bandwidth_efficiency: float
    attention_sequence_bandwidth: float  # bytes/s: one KV head of one sequence in a decode kernel that does not split it
    attention_latency: float  # s per decode kernel with tensor cores besides its launch: plan, merge of partial results
    l2_cache: float  # bytes
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
    fp8_flops: float = 0.0  # dense; 0: no such unit, the weights are converted
    int8_flops: float = 0.0  # dense, with 8-bit activations; 0: no such unit
    gemm_tiles: str = "warpgroup"  # which tiles the library of products has: those for instructions of a "warpgroup" or "warp"


@dataclass(frozen=True)
class Gpus:
    gpu: Gpu
    count: int
    tensor_parallel: int
    memory_utilization: float  # share of HBM the engine may use
    reserve: float  # bytes per GPU for CUDA context and graphs, communication buffers (and activations, if that is 0)
    activations: float = 0.0  # bytes per GPU at the peak of the engine's profile run
    pipeline_parallel: int = 1  # stages
    data_parallel: int = 1  # replicas in lock step, each with its own batch; they share the experts
    expert_parallel: int = 1  # GPUs that the routed experts are dealt out over; 1: cut like all other weights


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
    load_factor: float  # a of L0 (1 + a u / (1 - u)): how latency grows with the load u of others
    # the detailed devices only
    cycle: float  # s, clock period of the pipelines
    descriptor: float  # s between two descriptors
    tlb_entries: int
    tlb_ways: int
    tlb_page: float  # bytes
    tlb_walk: float  # s, on top of a hit
    directory_entries: int
    directory_ways: int
    directory_grain: float  # bytes of a line
    channels: int  # of the memory
    banks: int  # per channel
    row: float  # bytes of an open row
    row_cycle: float  # s between two activations of a bank
    interleave: float  # bytes on a channel before the next one
    turnaround: float  # s to change between reading and writing
    write_batch: float  # bytes written in a row while reads wait
    idle_power: float  # W
    active_power: float  # W
    price: float  # USD without memory


@dataclass(frozen=True)
class Switch:
    name: str
    uplinks: int  # ports towards the GPUs (of a leaf: towards the root)
    downlinks: int  # ports towards the boards
    port_bandwidth: float  # bytes/s per direction and port
    latency: float  # s, port to port
    load_factor: float  # a of L0 (1 + a u / (1 - u)): how latency grows with the load u of others
    buffer: float  # bytes per output port (detailed devices)
    arbitration: str  # "round_robin" | "weighted" | "deadline" (detailed devices)
    power: float  # W
    price: float  # USD
    weights: tuple[float, ...] = ()  # of the inputs in turn, where `weighted`; (): all equal


@dataclass(frozen=True)
class Pool:
    board: Board
    boards: int
    links_per_board: int
    link: Link
    switch: Switch | None
    leaf: Switch | None  # second level of a tree, between the boards and `switch`
    leaves: int  # how many of them
    gpus_per_port: int  # GPUs behind one port
    placement: str  # of bursts on boards: "round_robin" | "hash" | "least_loaded" (detailed devices)
    shared_by: int  # replicas that share boards and switches
    others_load: float  # share of the capacity of what is shared that the other replicas use
    saturation: float  # latency under load is at most so many times the unloaded one
    memory_price: float  # USD per byte
    mover: Mover | None = None  # None: the boards' own DMA
    weight: float = 1.0  # of this replica at the arbiters of what is shared; the others have 1 each
    memory_power: float = 0.0  # W per byte beside the power of the boards


@dataclass(frozen=True)
class Codec:
    """Compression of KV in the pool. Ratio 1 and `at` = none is the identity."""

    ratio: float
    compress_at: str  # "fpga" | "gpu"
    decompress_at: str
    arrays: int = 1  # that a layer's pages are stored in: codes, scales, minima; each is a copy of its own
    spread: float = 0.0  # compressed sizes are uniform within this share of their mean (detailed devices)
    compress_efficiency: float | None = None  # GPU kernel: raw + compressed bytes/s over HBM bandwidth; None: compress_rate
    decompress_efficiency: float | None = None


@dataclass(frozen=True)
class Selection:
    """Which stored tokens a decode step reads: all (`dense`), at most `budget` tokens of each sequence, or drawn `pages`.

    What follows `budget` is for `pages` only, and the identity by default; `kvcache.selection` has the meanings."""

    kind: str  # "dense" | "budget" | "pages"
    budget: int  # tokens; 0 for dense, or where `fraction` is given
    fraction: float = 0.0  # of a sequence's blocks; 0: `budget` counts
    dense_layers: int = 0  # layers at the beginning that read everything
    select_every: int = 1  # of the others, each so-manieth selects, those between reuse its set
    index: float = 0.0  # bytes of index that a selecting layer reads per byte of its KV
    overlap: float = 1.0  # share of a set that was in the set before
    floor: float = 0.0  # share of a set that never changes
    refresh: int = 1  # steps between changes of the sets


@dataclass(frozen=True)
class Placement:
    """Which pages are in L1 and L2."""

    eviction: str  # "split", or a policy of `kvcache.eviction`
    l2: str  # "exclusive" | "inclusive": whether L2 keeps what came into L1
    write_back: str  # "lazy": at the first eviction | "immediate": as soon as a block is full
    threshold: int  # uses above which a page is hot
    adapt: bool  # whether the threshold moves


@dataclass(frozen=True)
class Kv:
    system: str
    block_tokens: int
    l1: float | None  # bytes per GPU; None: all HBM left after weights, reserve and L2
    blocks: int | None  # blocks of L1 as an engine reported them, instead of its bytes
    l2: float  # bytes per GPU
    burst: float  # bytes of one DMA descriptor
    placement: Placement
    codec: Codec
    selection: Selection
    sharing: str  # "private" | "prefix"
    reuse: ReuseRules = VLLM_RULES  # of prefixes
    policies: Policies = field(default_factory=Policies)  # beyond the model's own cache: `kvcache.policies`

    @property
    def eviction(self) -> str:
        return self.placement.eviction


@dataclass(frozen=True)
class Prefetch:
    predictor: str  # a name in `schema.PREDICTORS`
    depth: int  # layers ahead
    coverage: float
    accuracy: float
    latency: float  # s from a prediction to its prefetch, whatever the load
    control: str = "fixed"  # of the depth: "fixed" | "additive" | "ucb" | "feedback"
    priority: str = "demand"  # "demand" goes first | "equal": in the order of issue
    service: float = 0.0  # s of a call of the predictor
    batch: int = 1  # predictions that a call answers
    placement: str = "fpga"  # "fpga" | "host" | "gpu"
    queue: int = 0  # hints that wait; 0: any number
    guesses: int = 4  # token_model: of the next token; cxl_speckv: pages a hint
    model: str = ""  # token_model: which one
    addresses: str = ""  # cxl_speckv: "positions" | "far_pages"
    score: float = 0.0  # attention: share of the KV that scoring reads
    lead: float = 0.0  # session: s before the next turn at which its fetch begins


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

    dist: str  # "fixed" | "uniform" | "lognormal" | "geometric" | "empirical"
    tokens: int = 0  # fixed
    low: int = 0  # uniform, inclusive; also the lower clip of lognormal
    high: int = 0  # uniform, inclusive; also the upper clip of lognormal and geometric
    mean: float = 0.0  # lognormal, geometric: mean of the distribution before clipping
    cv: float = 0.0  # lognormal: standard deviation / mean
    trace: str = ""  # empirical: drawn with replacement from this trace (input and output of a row together)


@dataclass(frozen=True)
class Workload:
    """Either a recorded trace (`path` set), or drawn from client data (`clients` set), or synthetic requests."""

    path: str  # "" for synthetic
    format: str  # "auto" | "azure" | "mooncake" | "csv"
    limit: int | None  # first n requests (of the window)
    start: float  # s, window on the recorded clock
    end: float  # s; inf: to the end
    rate_scale: float  # recorded arrival times are divided by this
    process: str  # "recorded" | "at_once" | an arrival process; beside a trace: of what is drawn instead of recorded times
    rate: float  # requests/s (synthetic)
    cv: float  # gamma: coefficient of variation of inter-arrival times
    requests: int  # synthetic: how many
    input: Lengths | None
    output: Lengths | None
    varying: Varying = NOT_VARYING  # of processes whose rate varies
    chats: Chats | None = None  # synthetic sessions of several turns: `requests` are turns, arrivals those of sessions
    clients: str = ""  # client data from which requests are drawn in the window; `rate` inf: as recorded
    block: int = 0  # tokens of a hashed block of the trace; 0: the format's
    skip: bool = False  # malformed rows are left out


@dataclass(frozen=True)
class Fault:
    """Something that breaks, once or again and again (`hardware/faults.py`)."""

    what: str  # "link_down" | "link_degraded" | "board_lost" | "latency_spike"
    link: str  # whose: "board" | "switch" | "gpu"; "" unless links break
    count: int  # links or boards
    factor: float  # of the rate that a degraded link keeps
    latency: float  # s more a round trip
    at: float  # s; 0 with mean_time_between
    duration: float  # s; inf: for good
    mean_time_between: float | None  # s from the end of one to the start of the next; None: once, at `at`
    on_loss: str  # "recompute" | "abort"
    replica: int | None = None  # of several: whose pool, or ports; None: of each (its random times are its own)

    @property
    def own(self) -> bool:
        """It breaks what no other replica uses, whoever shares the pool."""
        return self.link == "gpu"


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
    devices: str  # of far memory: "fluid" | "detailed"
    sources: dict[str, str]  # dotted field -> where its value came from
    document: dict[str, Any]  # the resolved scenario as plain data in human units, for scenario.resolved.yaml
    faults: tuple[Fault, ...] = ()
    tenants: tuple[Tenant, ...] = ()
    cluster: Cluster = ONE_REPLICA

    @property
    def parks(self) -> bool:
        """The pool holds KV that nobody reads now; sequences that run are in L1 alone."""
        return self.pool is not None and self.kv.sharing == "prefix" and self.scheduler.preemption != "swap_pool"

    @property
    def far_in_place(self) -> bool:
        """Sequences that run read from the pool: it is not just for those that were preempted, or for prefixes."""
        return self.pool is not None and self.scheduler.preemption != "swap_pool" and not self.parks

    def of(self, group: Group) -> ScenarioResolved:
        """The scenario as one replica of a group sees it."""
        return replace(self, gpus=group.gpus, scheduler=group.scheduler, kv=group.kv)

    @property
    def weights_per_gpu(self) -> float:
        """Bytes of weights on each GPU."""
        gpus = self.gpus
        return self.model.weights_per_rank(gpus.tensor_parallel, gpus.pipeline_parallel, gpus.expert_parallel)

    @property
    def hbm_left(self) -> float:
        """Bytes per GPU that are left for KV (L1 and L2 together); negative if the model does not fit."""
        gpus = self.gpus
        return gpus.gpu.memory * gpus.memory_utilization - self.weights_per_gpu - gpus.reserve - gpus.activations

    @property
    def block_bytes_per_gpu(self) -> float:
        """Raw bytes of one block on one GPU: the layers of a stage, the KV heads (or the latent) of a rank."""
        stage = -(-self.model.layers // self.gpus.pipeline_parallel)
        elements = self.model.kv_elements(self.gpus.tensor_parallel) * self.model.kv_bytes
        return elements * self.kv.block_tokens * stage

    @property
    def l1_per_gpu(self) -> float:
        """Bytes of L1 on each GPU: as reported or given, else all HBM that is left."""
        if self.kv.blocks is not None:
            return self.kv.blocks * self.block_bytes_per_gpu
        return self.kv.l1 if self.kv.l1 is not None else self.hbm_left - self.kv.l2
