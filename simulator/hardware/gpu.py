"""Time of one step on the GPUs: a roofline per operator (design 3.1).

Modelled, for one tensor-parallel rank (the ranks are symmetric):

    operator  = max(FLOPs / (eta_F * peak), bytes / (eta_B * HBM bandwidth))
    layer(M)  = QKV + output projection + MLP + element-wise + 2 all-reduces + kernels * launch      M tokens in the step
    attention = per context token for decodes (one query row each); per prompt piece for prefill
    head(n)   = LM head of the n rows that emit a token + its kernels
    step      = host overhead + layers * (layer(M) + attention) + head(n)

Matrix products stream their weights once and their activations in and out; element-wise parts (two norms, rotary
embedding with KV append, activation, residual adds) stream activations. All-reduce: alpha + 2 (t-1)/t * bytes / bus
bandwidth (nccl-tests convention). The efficiencies come from the catalogue; parts without measurements are reported as
uncalibrated.

Not modelled: tile quantisation, clock changes under load, imbalance between sequences of one batch, overlap of
collectives with compute.

Everything is a function of three integers (tokens in the step, rows that emit, context tokens), so a run of steps with
unchanged membership is a vector expression in the context alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from simulator.scenario.resolved import Gpus, Model

KERNELS_PER_LAYER = 9  # norm, QKV, rotary+append, attention, output projection, norm, gate/up, activation, down
KERNELS_PER_HEAD = 4  # final norm, LM head, sampling, token gather
ACTIVATION_BYTES = 2.0  # bf16


@dataclass(frozen=True)
class Operator:
    """Work of one operator on one rank, and the time a roofline gives it."""

    name: str
    flops: float
    bytes: float
    compute_s: float
    memory_s: float

    @property
    def time(self) -> float:
        return max(self.compute_s, self.memory_s)

    @property
    def bound(self) -> str:
        return "compute" if self.compute_s > self.memory_s else "hbm"


@dataclass(frozen=True)
class Parts:
    """Seconds of a step by what bounds them."""

    compute: float
    hbm: float
    collective: float
    launch: float

    @property
    def total(self) -> float:
        return self.compute + self.hbm + self.collective + self.launch


class StepModel:
    """Times of steps of one replica. All methods are pure; layer and head are cached by their integer argument."""

    def __init__(self, model: Model, gpus: Gpus, host_overhead: float):
        self.model, self.gpu, self.ranks = model, gpus.gpu, gpus.tensor_parallel
        self.host = host_overhead
        self.layers = model.layers
        self.kv_heads = model.kv_heads_per_rank(self.ranks)
        self.heads = model.heads / self.ranks
        gpu = self.gpu
        self._gemm_flops = gpu.gemm_flops_efficiency * gpu.peak_flops
        self._gemm_bytes = gpu.gemm_bandwidth_efficiency * gpu.memory_bandwidth
        self._attention_flops = gpu.attention_flops_efficiency * gpu.peak_flops
        self._attention_bytes = gpu.attention_bandwidth_efficiency * gpu.memory_bandwidth
        self._layer: dict[int, Parts] = {}
        self._head: dict[int, Parts] = {}
        self._base: dict[tuple[int, int], float] = {}
        token = self.decode_attention(1)
        self.attention_per_token = token.time  # s per context token and layer
        self.attention_is_compute = token.compute_s > token.memory_s

    def _gemm(self, name: str, rows: float, columns: float, inner: float) -> Operator:
        flops = 2.0 * rows * columns * inner
        moved = columns * inner * self.model.weight_bytes + rows * (columns + inner) * ACTIVATION_BYTES
        return Operator(name, flops, moved, flops / self._gemm_flops, moved / self._gemm_bytes)

    def layer_operators(self, tokens: int) -> list[Operator]:
        """Operators of one layer that depend on the tokens of the step only (no attention, no collectives)."""
        model, ranks, gated = self.model, self.ranks, 2 if self.model.gated_mlp else 1
        query = self.heads * model.head_dim
        qkv = query + 2 * self.kv_heads * model.head_dim
        inner = model.intermediate / ranks
        streamed = tokens * ACTIVATION_BYTES * (8 * model.hidden + 2 * qkv + (gated + 1) * inner)
        return [
            self._gemm("qkv", tokens, qkv, model.hidden),
            self._gemm("output_projection", tokens, model.hidden, query),
            self._gemm("gate_up" if model.gated_mlp else "up", tokens, gated * inner, model.hidden),
            self._gemm("down", tokens, model.hidden, inner),
            Operator("element_wise", 0.0, streamed, 0.0, streamed / self._attention_bytes),
        ]

    def decode_attention(self, context: float) -> Operator:
        """Attention of decode rows in one layer over `context` tokens in all."""
        flops = 4.0 * self.heads * self.model.head_dim * context
        moved = 2.0 * self.kv_heads * self.model.head_dim * self.model.kv_bytes * context
        return Operator("decode_attention", flops, moved, flops / self._attention_flops, moved / self._attention_bytes)

    def prefill_attention(self, tokens: int, past: int) -> Operator:
        """Causal attention in one layer of a piece of `tokens` prompt tokens that follow `past` cached ones."""
        pairs = tokens * past + tokens * (tokens + 1) / 2
        flops = 4.0 * self.heads * self.model.head_dim * pairs
        moved = 2.0 * self.kv_heads * self.model.head_dim * self.model.kv_bytes * (past + tokens)
        return Operator("prefill_attention", flops, moved, flops / self._attention_flops, moved / self._attention_bytes)

    def all_reduce(self, tokens: int) -> float:
        """Seconds of one all-reduce of the hidden states of `tokens` tokens; 0 on one rank."""
        if self.ranks == 1:
            return 0.0
        moved = tokens * self.model.hidden * ACTIVATION_BYTES
        return self.gpu.all_reduce_latency + 2 * (self.ranks - 1) / self.ranks * moved / self.gpu.all_reduce_bandwidth

    def layer(self, tokens: int) -> Parts:
        """One layer without attention, for `tokens` tokens in the step."""
        parts = self._layer.get(tokens)
        if parts is None:
            launch = KERNELS_PER_LAYER * self.gpu.launch
            parts = self._layer[tokens] = _sum(self.layer_operators(tokens), 2 * self.all_reduce(tokens), launch)
        return parts

    def head(self, rows: int) -> Parts:
        """Final norm, LM head and sampling of the rows that emit a token; nothing for none."""
        parts = self._head.get(rows)
        if parts is None:
            if rows == 0:
                parts = Parts(0.0, 0.0, 0.0, 0.0)
            else:
                vocab = self.model.vocab / self.ranks
                parts = _sum([self._gemm("lm_head", rows, vocab, self.model.hidden)], 0.0, KERNELS_PER_HEAD * self.gpu.launch)
            self._head[rows] = parts
        return parts

    def base(self, tokens: int, rows: int) -> float:
        """Seconds of a step without attention: host + layers + head."""
        time = self._base.get((tokens, rows))
        if time is None:
            time = self.host + self.layers * self.layer(tokens).total + self.head(rows).total
            self._base[tokens, rows] = time
        return time

    @property
    def weights_per_rank(self) -> float:
        """Bytes of weights on each GPU."""
        return self.model.parameters * self.model.weight_bytes / self.ranks


def _sum(operators: list[Operator], collective: float, launch: float) -> Parts:
    compute = sum(op.time for op in operators if op.bound == "compute")
    memory = sum(op.time for op in operators if op.bound == "hbm")
    return Parts(compute, memory, collective, launch)
