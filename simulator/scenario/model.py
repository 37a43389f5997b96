"""The shape of a decoder and what follows from it: parameters, bytes of weights and of KV.

Every kind of layer is one dataclass with neutral values for what a model does not have:

    dense      QKV, output projection, MLP (gated or plain), biases, learned positions, tied embeddings
    MoE        `experts` of width `expert_intermediate`, `experts_per_token` of them a token, shared experts of
               `shared_intermediate` in all, a router; the first `dense_layers` layers have the dense MLP instead
    MLA        `kv_latent` > 0: K and V of a token are one latent of kv_latent + rope_dim elements for all heads;
               `head_dim` is that of the values and of the part of queries and keys without rotary embedding
    window     `window` > 0: a layer reads the last `window` tokens; `full_layers` of the layers read everything

Weights of a rank: all matrices are cut over tensor-parallel ranks but the down-projections to latents, which every rank
holds; routed experts are cut the same way, or dealt out whole over `expert_parallel` GPUs; layers are dealt out over
pipeline stages. The embeddings of a checkpoint with quantised weights stay in 16 bits (`embedding_bytes`).
KV of layers that all have a window is kept as far as the window; if some layers read everything, all layers keep everything
(one block table for all layers, as in engines without a cache manager for each kind of layer).

Not counted: norms of queries and keys, router biases, modules for multi-token prediction (below 0.01 % where they exist,
but DeepSeek's prediction module: 2 %, which serving without speculation does not load).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Model:
    """A decoder: shapes from its configuration; everything else is computed from them."""

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
    weights: str = "bf16"  # precision: says at which rate products run (hardware/precision.py)
    embedding_bytes: float | None = None  # bytes per parameter of embedding and LM head; None: weight_bytes
    tied_embeddings: bool = False  # the LM head is the embedding
    positions: int = 0  # learned position embeddings
    bias: str = "none"
    window: int = 0  # tokens; 0: no sliding window
    full_layers: int = 0  # layers without the window
    experts: int = 0  # routed experts of a layer; 0: dense
    experts_per_token: int = 0
    expert_intermediate: int = 0
    shared_intermediate: int = 0
    dense_layers: int = 0  # leading layers with the dense MLP
    kv_latent: int = 0  # 0: no latent attention
    q_latent: int = 0  # 0: queries are projected in one step
    rope_dim: int = 0

    @property
    def latent(self) -> bool:
        return self.kv_latent > 0

    @property
    def moe_layers(self) -> int:
        return self.layers - self.dense_layers if self.experts else 0

    @property
    def windowed_layers(self) -> int:
        return self.layers - self.full_layers if self.window else 0

    @property
    def kept_tokens(self) -> int:
        """Most tokens of a sequence whose KV is kept; 0: all."""
        return self.window if self.windowed_layers == self.layers else 0

    @property
    def query_dim(self) -> int:
        """Elements of one head of queries and keys."""
        return self.head_dim + (self.rope_dim if self.latent else 0)

    def kv_elements(self, tensor_parallel: int = 1) -> int:
        """KV elements of one token in one layer on one rank."""
        if self.latent:
            return self.kv_latent + self.rope_dim
        return 2 * self.kv_heads_per_rank(tensor_parallel) * self.head_dim

    @property
    def kv_bytes_per_token_layer(self) -> float:
        """K and V of one token in one layer, all heads, one copy: bytes."""
        return self.kv_elements() * self.kv_bytes

    @property
    def kv_bytes_per_token(self) -> float:
        return self.kv_bytes_per_token_layer * self.layers

    def kv_heads_per_rank(self, tensor_parallel: int) -> int:
        """KV heads held by each rank; with more ranks than heads every rank holds a copy of one."""
        return max(1, -(-self.kv_heads // tensor_parallel))

    def kv_copies(self, tensor_parallel: int) -> float:
        """How often each KV byte is held: by every rank if it is a latent, else ranks / KV heads, at least once."""
        return float(tensor_parallel) if self.latent else max(1.0, tensor_parallel / self.kv_heads)

    @property
    def replicated_parameters(self) -> int:
        """Of one layer's attention: the projections to latents, which every tensor-parallel rank holds."""
        return self.hidden * (self.q_latent + self.kv_latent + self.rope_dim) if self.latent else 0

    @property
    def attention_parameters(self) -> int:
        """Of one layer: projections of attention with their biases."""
        if self.latent:
            queries = (self.q_latent or self.hidden) * self.heads * self.query_dim
            expansion = self.kv_latent * self.heads * 2 * self.head_dim
            return self.replicated_parameters + queries + expansion + self.heads * self.head_dim * self.hidden
        outputs = self.head_dim * (self.heads + 2 * self.kv_heads)
        bias = outputs * (self.bias != "none") + self.hidden * (self.bias == "all")
        return self.hidden * (outputs + self.heads * self.head_dim) + bias

    def mlp_parameters(self, width: int) -> int:
        bias = (width * (2 if self.gated_mlp else 1) + self.hidden) * (self.bias == "all")
        return (3 if self.gated_mlp else 2) * self.hidden * width + bias

    @property
    def expert_parameters(self) -> int:
        """Of one MoE layer: all routed experts."""
        return self.experts * self.mlp_parameters(self.expert_intermediate)

    @property
    def norm_parameters(self) -> int:
        """Of one layer: two norms."""
        return 2 * self.hidden * (2 if self.bias == "all" else 1)

    @property
    def layer_parameters(self) -> int:
        """Weights of a dense layer: QKV, output projection, MLP, two norms."""
        return self.attention_parameters + self.mlp_parameters(self.intermediate) + self.norm_parameters

    @property
    def moe_layer_parameters(self) -> int:
        """Weights of a MoE layer: attention, router, shared and routed experts, two norms."""
        shared = self.mlp_parameters(self.shared_intermediate) if self.shared_intermediate else 0
        return self.attention_parameters + self.hidden * self.experts + shared + self.expert_parameters + self.norm_parameters

    @property
    def all_layers_parameters(self) -> int:
        return (self.layers - self.moe_layers) * self.layer_parameters + self.moe_layers * self.moe_layer_parameters

    @property
    def embedding_parameters(self) -> int:
        """Embedding, learned positions, LM head (unless it is the embedding)."""
        return (1 if self.tied_embeddings else 2) * self.vocab * self.hidden + self.positions * self.hidden

    @property
    def parameters(self) -> int:
        """All weights."""
        return self.all_layers_parameters + self.embedding_parameters + self.norm_parameters // 2

    @property
    def active_parameters(self) -> int:
        """Weights that one token uses."""
        idle = self.experts - self.experts_per_token
        return self.parameters - self.moe_layers * idle * (self.mlp_parameters(self.expert_intermediate) if self.experts else 0)

    def weights_per_rank(self, tensor_parallel: int, pipeline_parallel: int = 1, expert_parallel: int = 1) -> float:
        """Bytes of weights on the GPU that has most of them."""
        embedding_bytes = self.weight_bytes if self.embedding_bytes is None else self.embedding_bytes
        embeddings = (self.parameters - self.all_layers_parameters) * embedding_bytes
        if pipeline_parallel > 1:  # the first stage has the embedding, the last one the LM head
            embeddings = (self.vocab + self.positions) * self.hidden * embedding_bytes
        stage = -(-self.layers // pipeline_parallel)
        moe = min(stage, self.moe_layers)
        layers = (stage - moe) * self.layer_parameters + moe * self.moe_layer_parameters
        shared = layers - moe * self.expert_parameters - stage * self.replicated_parameters
        if expert_parallel > 1:
            experts = moe * self.expert_parameters / expert_parallel
        else:
            experts = moe * self.expert_parameters / tensor_parallel
        whole = stage * self.replicated_parameters + experts
        return whole * self.weight_bytes + (shared * self.weight_bytes + embeddings) / tensor_parallel
