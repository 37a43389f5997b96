"""The KV policies of a resolved scenario that go beyond the model's own cache. Every default is the identity.

Shares are of layers (or of heads: for bytes and FLOPs it is the same); tokens are tokens of context; times in seconds, sizes in
bytes. What each policy does to bytes and time is said by the functions of `kvcache.policies`.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class LayoutGroup:
    """Layers or heads that keep the same kind of state."""

    share: float = 1.0  # of the model's layers or heads
    over: str = "layers"  # "layers" | "heads"
    kind: str = "full"  # "full" | "window" | "ssm" | "conv": the last two keep a state and no tokens
    window: int = 0  # window: the last so many tokens
    sink: int = 0  # window: and the first so many
    fraction: float = 0.0  # window: and so many for each token of context
    kv_scale: float = 1.0  # bytes of an entry, relative to the model's own (latent, fewer heads, merged channels)
    flops_scale: float = 1.0  # attention FLOPs of an entry, likewise
    tokens_per_entry: float = 1.0  # tokens that share an entry
    run_every: float = 1.0  # the layers run for one token in so many
    state: float = 0.0  # bytes that a sequence has in each layer however long it is


@dataclass(frozen=True)
class Layout:
    groups: tuple[tuple[str, LayoutGroup], ...] = ()  # none: all layers are the model's own
    query_heads: float = 1.0  # query heads, relative to the model's


@dataclass(frozen=True)
class Age:
    """Tokens older than `older_than` are stored with `bits` per element."""

    older_than: int
    bits: float


@dataclass(frozen=True)
class HbmCodec:
    """How KV is stored where attention reads it; the pool's codec is another one. Bits are of 16 for a raw element."""

    k_bits: float = 16.0
    v_bits: float = 16.0
    group: int = 0  # elements that share metadata; 0: none
    meta_bits: float = 0.0  # of a group: scale, zero point
    residual: int = 0  # newest tokens that stay raw
    density: float = 1.0  # share of the elements that is kept
    mask_bits: float = 0.0  # per element: where the kept ones are
    ratio: float = 1.0  # instead of all that: raw bytes per stored byte
    by_layer: tuple[float, ...] = ()  # ratios of equal parts of the layers
    by_age: tuple[tuple[str, Age], ...] = ()


@dataclass(frozen=True)
class Retention:
    prompt_scale: float = 1.0  # tokens of a prompt that reach the model
    pre_cost: float = 0.0  # work on each token of the whole prompt before, relative to the model's own prefill
    keep: float = 1.0  # share of the tokens whose KV is kept
    when: str = "always"  # "always": of all tokens, as they age | "prefill_end": of the prompt, once it is computed
    window: int = 0  # always: newest tokens that are kept whatever their worth


@dataclass(frozen=True)
class Compute:
    """Attention outside the GPU, in memory that has its own processors."""

    at: str = "gpu"  # "gpu" | "host" | "near_data"
    memory: float = 0.0  # bytes for KV on each device
    devices: int = 1
    bandwidth: float = 0.0  # bytes/s at which one device's attention reads its own memory
    link: float = 0.0  # bytes/s from the GPUs to all devices: queries and new KV there, outputs back
    latency: float = 0.0  # s a layer: call, search, wait


@dataclass(frozen=True)
class Loop:
    kind: str = "autoregressive"  # "speculative" | "parallel_workers" | "block_diffusion" | "denoise"
    draft: int = 0  # tokens that a draft proposes
    acceptance: tuple[float, ...] = ()  # of each position, given that those before it were accepted
    draft_cost: float = 0.0  # time of one draft pass, relative to a plain decode step
    workers: int = 1  # tokens of one sequence that parallel workers compute in a step
    steps_scale: float = 1.0  # passes for each output token
    recompute: float = 0.0  # share of the context that a pass computes again


@dataclass(frozen=True)
class Reading:
    """What selection adds to `resolved.Selection`."""

    stage: str = "decode"  # "decode" | "both": prompts select too
    k_fraction: float = 1.0  # of the K bytes of a selected token that are read
    v_fraction: float = 1.0
    index_flops: float = 0.0  # of an index over a prompt, relative to attention over it
    index_stored: float = 0.0  # bytes of index stored beside each byte of KV


@dataclass(frozen=True)
class Policies:
    layout: Layout = Layout()
    codec: HbmCodec = HbmCodec()
    retention: Retention = Retention()
    reading: Reading = Reading()
    compute: Compute = Compute()
    latent: str = "replicated"  # "replicated" | "sharded": over tensor-parallel ranks, in decodes
    read: str = "each"  # "each" | "once": shared prefixes, for all sequences of a batch
    loop: Loop = field(default_factory=Loop)

    @property
    def identity(self) -> bool:
        return self == Policies()
