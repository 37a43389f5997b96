"""Time of one step on the GPUs: a sum of operators (design 3.1).

Modelled, for one tensor-parallel rank (the ranks are symmetric):

    layer(M)  = QKV + output projection + MLP + element-wise + 2 all-reduces + launches          M tokens in the step
    attention = per context token for decodes (one query row each); over all prompt pieces together for prefill
    head(n)   = LM head of the n rows that emit a token + its launches
    step      = host overhead + layers * (layer(M) + attention) + head(n)

Matrix products are in `gemm.py`, attention in `attention.py`, all-reduces in `collective.py`. Element-wise parts (two
norms, rotary embedding with KV append, activation, residual adds) stream activations. Every kernel costs a launch (inside
a replayed graph: ramp-up and tail); decodes and prompt pieces have an attention kernel each.
The constants come from the catalogue; parts without measurements are reported as uncalibrated.

Not modelled: overlap of collectives with compute, padding of the batch to captured graph sizes.

Everything but the prompt pieces is a function of few integers (tokens in the step, rows that emit, attention kernels,
context tokens), so a run of steps with unchanged membership is a vector expression in the context alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from simulator.hardware import attention, collective, power
from simulator.hardware.gemm import ACTIVATION_BYTES, gemm
from simulator.hardware.operator import Operator, Parts, add_up
from simulator.scenario.resolved import Gpus, Model

KERNELS_PER_LAYER = 8  # norm, QKV, rotary+append, output projection, norm, gate/up, activation, down; attention apart
KERNELS_PER_HEAD = 4  # final norm, LM head, sampling, token gather


class StepModel:
    """Times of steps of one replica. All methods are pure; layer and head are cached by their integer arguments."""

    def __init__(self, model: Model, gpus: Gpus, host_overhead: float):
        self.model, self.gpu, self.ranks = model, gpus.gpu, gpus.tensor_parallel
        self.host = host_overhead
        self.layers = model.layers
        self.kv_heads = model.kv_heads_per_rank(self.ranks)
        self.heads = model.heads / self.ranks
        self._shape = (self.heads, self.kv_heads, model.head_dim, model.kv_bytes)
        self._layer: dict[tuple[int, int], Parts] = {}
        self._head: dict[int, Parts] = {}
        self._base: dict[tuple[int, int, int], float] = {}
        token = self.decode_attention(1)
        self.attention_per_token = token.time  # s per context token and layer
        self.attention_is_compute = token.bound == "compute"

    def layer_operators(self, tokens: int) -> list[Operator]:
        """Operators of one layer that depend on the tokens of the step only (no attention, no collectives)."""
        model, ranks, gpu, gated = self.model, self.ranks, self.gpu, 2 if self.model.gated_mlp else 1
        query = self.heads * model.head_dim
        qkv = query + 2 * self.kv_heads * model.head_dim
        inner = model.intermediate / ranks
        streamed = tokens * ACTIVATION_BYTES * (8 * model.hidden + 2 * qkv + (gated + 1) * inner)
        stream_s = streamed / (gpu.elementwise_bandwidth_efficiency * gpu.memory_bandwidth)
        return [
            self._gemm("qkv", tokens, qkv, model.hidden),
            self._gemm("output_projection", tokens, model.hidden, query),
            self._gemm("gate_up" if model.gated_mlp else "up", tokens, gated * inner, model.hidden),
            self._gemm("down", tokens, model.hidden, inner),
            Operator("element_wise", 0.0, streamed, 0.0, stream_s),
        ]

    def _gemm(self, name: str, rows: float, columns: float, inner: float) -> Operator:
        return gemm(self.gpu, name, rows, columns, inner, self.model.weight_bytes)

    def head_operator(self, rows: int) -> Operator:
        return self._gemm("lm_head", rows, self.model.vocab / self.ranks, self.model.hidden)

    def decode_attention(self, context: float) -> Operator:
        """Attention of decode rows in one layer over `context` tokens in all."""
        return attention.decode_attention(self.gpu, *self._shape, context)

    def decode_imbalance(self, contexts: Iterable[int]) -> float:
        """Extra seconds a layer of a decode kernel that does not split sequences over SMs."""
        return attention.decode_imbalance(self.gpu, *self._shape, contexts)

    def prefill_attention(self, pieces: Sequence[tuple[int, int]], paged: bool | None = None) -> Operator:
        """Attention in one layer of prompt pieces (tokens, cached past)."""
        return attention.prefill_attention(self.gpu, *self._shape, pieces, paged)

    def all_reduce(self, tokens: int) -> float:
        """Seconds of one all-reduce of the hidden states of `tokens` tokens; 0 on one rank."""
        return collective.all_reduce(self.gpu, self.ranks, tokens * self.model.hidden * ACTIVATION_BYTES)

    def layer(self, tokens: int, attentions: int = 1) -> Parts:
        """One layer without the work of attention, for `tokens` tokens in the step and that many attention kernels."""
        parts = self._layer.get((tokens, attentions))
        if parts is None:
            launch = (KERNELS_PER_LAYER + attentions) * self.gpu.launch
            parts = add_up(self.layer_operators(tokens), 2 * self.all_reduce(tokens), launch)
            self._layer[tokens, attentions] = parts
        return parts

    def head(self, rows: int) -> Parts:
        """Final norm, LM head and sampling of the rows that emit a token; nothing for none."""
        parts = self._head.get(rows)
        if parts is None:
            if rows == 0:
                parts = Parts(0.0, 0.0, 0.0, 0.0)
            else:
                parts = add_up([self.head_operator(rows)], 0.0, KERNELS_PER_HEAD * self.gpu.launch)
            self._head[rows] = parts
        return parts

    def base(self, tokens: int, rows: int, attentions: int = 1) -> float:
        """Seconds of a step without the work of attention: host + layers + head."""
        time = self._base.get((tokens, rows, attentions))
        if time is None:
            time = self.host + self.layers * self.layer(tokens, attentions).total + self.head(rows).total
            self._base[tokens, rows, attentions] = time
        return time

    def load(self) -> dict[str, tuple[float, float]]:
        """(HBM seconds, tensor-core seconds), each at its full rate, of what a step consists of: what draws power.

        All layers: once a `step`, per `token` in it, per token of decode `context`; once for a `head`, per `row` of it.
        """
        none, one = self._layers_load(0), self._layers_load(1)
        head, heads = self._load(self.head_operator(0)), self._load(self.head_operator(1))
        context = self._load(self.decode_attention(1))
        return {
            "step": none,
            "token": (one[0] - none[0], one[1] - none[1]),
            "context": (self.layers * context[0], self.layers * context[1]),
            "head": head,
            "row": (heads[0] - head[0], heads[1] - head[1]),
        }

    def _layers_load(self, tokens: int) -> tuple[float, float]:
        loads = [self._load(operator) for operator in self.layer_operators(tokens)]
        return self.layers * sum(load[0] for load in loads), self.layers * sum(load[1] for load in loads)

    def _load(self, operator: Operator) -> tuple[float, float]:
        return power.streaming_seconds(self.gpu, operator.bytes), power.computing_seconds(self.gpu, operator.flops)

    def product_alone(self, rows: int, columns: int, inner: int, sustained: bool = False) -> float:
        """Seconds of one bf16 matrix product with its launch; by default too short to meet the power limit."""
        return gemm(self.gpu, "gemm", rows, columns, inner, ACTIVATION_BYTES, sustained).time + self.gpu.launch

    def all_reduce_bytes(self, message: float) -> float:
        """Seconds of one all-reduce of a message of that many bytes."""
        return collective.all_reduce(self.gpu, self.ranks, message)

    def power(self, duration: float, moved: float, flops: float) -> float:
        """W of one GPU that moves these bytes through HBM and computes these FLOPs in `duration` seconds."""
        return power.power(self.gpu, duration, moved, flops)
