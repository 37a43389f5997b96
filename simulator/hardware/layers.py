"""The operators of one layer of one rank that depend on the tokens of the step only: products and element-wise parts.

    attention    QKV, output projection; with latent attention: projections to the latents (on every rank), queries from
                 theirs, expansion of the latent, output projection. Decode absorbs the expansion into queries and outputs,
                 prefill expands: the same weights and FLOPs for a new token either way
    dense MLP    gate and up (or up), down
    MoE          router, gate and up of the touched experts, their down, and the shared experts as a dense MLP (`moe.py`)
    element-wise two norms, rotary embedding with KV append, activation, residual adds; MoE: the sum over the experts of a token

Cut over `ranks` tensor-parallel GPUs; routed experts likewise, or whole ones dealt out over `group` GPUs.
"""

from __future__ import annotations

from dataclasses import replace

from simulator.hardware.gemm import ACTIVATION_BYTES, gemm
from simulator.hardware.moe import distinct_experts, grouped_product
from simulator.hardware.operator import Operator
from simulator.hardware.precision import conversion_seconds, for_precision
from simulator.scenario.resolved import Gpu, Model

KERNELS_PER_LAYER = 8  # norm, QKV, rotary+append, output projection, norm, gate/up, activation, down; attention apart
LATENT_KERNELS = 5  # more: norms of both latents, queries from theirs, absorption into queries and outputs
MOE_KERNELS = 4  # more: router, top-k, sort by expert, sum over experts
EXPERT_KERNELS = MOE_KERNELS + 2  # of the experts alone: no router, but gate/up, activation, down
SHARED_KERNELS = 3  # gate/up, activation, down


class Layers:
    """Operators by kind of layer for a model on ranks of one GPU type."""

    def __init__(self, model: Model, gpu: Gpu, ranks: int, group: int):
        self.model, self.gpu, self.ranks = model, gpu, ranks
        self.group = group  # GPUs that whole experts are dealt out over; 1: experts are cut over the ranks
        self.replicas = max(1, group // ranks)  # data-parallel peers in the group, with as many tokens each
        self.kv_heads = model.kv_heads_per_rank(ranks)
        self.heads = model.heads / ranks

    def kernels(self, moe: bool) -> int:
        """Kernels of a layer without its attention kernels."""
        model = self.model
        shared = SHARED_KERNELS if moe and model.shared_intermediate else 0
        return KERNELS_PER_LAYER + LATENT_KERNELS * model.latent + MOE_KERNELS * moe + shared

    def product(self, name: str, rows: float, columns: float, inner: float) -> Operator:
        """A matrix product with weights of the model's precision."""
        model = self.model
        work = gemm(for_precision(self.gpu, model.weights), name, rows, columns, inner, model.weight_bytes)
        convert = conversion_seconds(self.gpu, model.weights, rows, columns, inner)
        return replace(work, compute_s=work.compute_s + convert) if convert else work

    def operators(self, tokens: float, moe: bool, shared: float | None = None) -> list[Operator]:
        """One layer, `tokens` tokens on this replica; `shared` on the mean replica of its expert group, if not as many."""
        model, gated = self.model, 2 if self.model.gated_mlp else 1
        found = self._latent_attention(tokens) if model.latent else self._attention(tokens)
        elements = 8 * model.hidden + 2 * self._projected
        if not moe:
            found += self._mlp("", tokens, model.intermediate / self.ranks)
            elements += (gated + 1) * model.intermediate / self.ranks
            streamed = tokens * ACTIVATION_BYTES * elements
        else:
            shared = tokens if shared is None else shared
            found.append(self.product("router", tokens, model.experts, model.hidden))
            found += self._routed(shared, self.touched(shared))
            if model.shared_intermediate:
                found += self._mlp("shared_", tokens, model.shared_intermediate / self.ranks)
            elements += (gated + 1) * model.shared_intermediate / self.ranks
            streamed = tokens * ACTIVATION_BYTES * elements + self._expert_streamed(shared)
        return [*found, self._element_wise(streamed)]

    def expert_block(self, tokens: float, touched: float) -> list[Operator]:
        """Routed experts and their element-wise parts, for tokens that touch that many experts of this GPU; no router."""
        return [*self._routed(tokens, touched), self._element_wise(self._expert_streamed(tokens))]

    def _element_wise(self, streamed: float) -> Operator:
        rate = self.gpu.elementwise_bandwidth_efficiency * self.gpu.memory_bandwidth
        return Operator("element_wise", 0.0, streamed, 0.0, streamed / rate)

    def _expert_streamed(self, tokens: float) -> float:
        """Bytes of the activation of the experts and of the sum over those of a token."""
        model, gated = self.model, 2 if self.model.gated_mlp else 1
        rows = self._expert_rows(tokens) * ((gated + 1) * self._expert_width + model.hidden)
        return ACTIVATION_BYTES * (rows + tokens * self.replicas * model.hidden)

    @property
    def _projected(self) -> float:
        """Elements of a token that QKV (or the projections of latent attention) give on this rank."""
        model = self.model
        if model.latent:
            return self.heads * model.query_dim + model.q_latent + model.kv_latent + model.rope_dim
        return self.heads * model.head_dim + 2 * self.kv_heads * model.head_dim

    def _attention(self, tokens: float) -> list[Operator]:
        model = self.model
        return [
            self.product("qkv", tokens, self._projected, model.hidden),
            self.product("output_projection", tokens, model.hidden, self.heads * model.head_dim),
        ]

    def _latent_attention(self, tokens: float) -> list[Operator]:
        model = self.model
        queries, latent = self.heads * model.query_dim, model.kv_latent + model.rope_dim
        if model.q_latent:
            found = [
                self.product("latent_projection", tokens, model.q_latent + latent, model.hidden),
                self.product("query_projection", tokens, queries, model.q_latent),
            ]
        else:
            found = [self.product("latent_projection", tokens, queries + latent, model.hidden)]
        return [
            *found,
            self.expansion(tokens),
            self.product("output_projection", tokens, model.hidden, self.heads * model.head_dim),
        ]

    def expansion(self, tokens: float) -> Operator:
        """Keys and values of all heads from the latents of `tokens` tokens."""
        return self.product("latent_expansion", tokens, self.heads * 2 * self.model.head_dim, self.model.kv_latent)

    def _mlp(self, prefix: str, tokens: float, inner: float) -> list[Operator]:
        model, gated = self.model, 2 if self.model.gated_mlp else 1
        return [
            self.product(f"{prefix}gate_up" if model.gated_mlp else f"{prefix}up", tokens, gated * inner, model.hidden),
            self.product(f"{prefix}down", tokens, model.hidden, inner),
        ]

    @property
    def _expert_width(self) -> float:
        return self.model.expert_intermediate / (1 if self.group > 1 else self.ranks)

    def _expert_rows(self, tokens: float) -> float:
        """Rows that the experts of this GPU compute: its share of the group's."""
        return tokens * self.replicas * self.model.experts_per_token / self.group

    def touched(self, tokens: float) -> float:
        """Mean number of this GPU's experts that a step of `tokens` tokens on every replica touches."""
        model = self.model
        return distinct_experts(model.experts, model.experts_per_token, tokens * self.replicas) / self.group

    def _routed(self, tokens: float, touched: float) -> list[Operator]:
        model, gated, width = self.model, 2 if self.model.gated_mlp else 1, self._expert_width
        rows = self._expert_rows(tokens)
        name = "expert_gate_up" if model.gated_mlp else "expert_up"
        return [
            grouped_product(self.gpu, name, touched, rows, gated * width, model.hidden, model),
            grouped_product(self.gpu, "expert_down", touched, rows, model.hidden, width, model),
        ]
