"""Seconds of single kernels on one GPU, as a profiler sees them: without the gaps between kernels.

    products       as in a step (`hardware/gemm.py`), one layer of one rank, or the LM head
    element-wise   bytes / (efficiency * HBM bandwidth); bytes of a token: embedding row in and out, norm with residual two
                   in and two out, rotary embedding and norms of queries and keys in and out, activation two in and one out
    sampler        passes over logits (`hardware/sampler.py`)
    experts        top-k, sort, both grouped products of the experts touched, activation, sum: six kernels
    attention      decodes, prompt pieces, or both in the one kernel that the GPU's library runs (`hardware/attention.py`)

A profiler runs the same layer again and again: experts that fit into the L2 cache are read from there (`hardware/blocks.py`
says which share does), as they never are in a step of many layers. The smallest products of `dense` tables show the same, which
is not modelled: they are below 50 us.
A kernel costs `launch` less the gap of a replayed graph (measured on H100, measurements/h100/overhead.csv: 1000 tiny kernels).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from simulator.errors import InputError, Problem, did_you_mean
from simulator.hardware import attention
from simulator.hardware.blocks import swept
from simulator.hardware.gemm import ACTIVATION_BYTES
from simulator.hardware.gpu import StepModel
from simulator.hardware.layers import EXPERT_KERNELS
from simulator.hardware.operator import Operator
from simulator.hardware.sampler import CACHE_RATE
from simulator.hardware.sampler import START as SAMPLER_START

GRAPH_GAP = 1.17e-6  # s from the end of a kernel to the start of the next
PRODUCTS = {"qkv_proj": "qkv", "o_proj": "output_projection", "gate_up_proj": "gate_up", "up_proj": "up", "down_proj": "down"}
ELEMENT_WISE = ("embedding", "layernorm", "final_layernorm", "qk_norm", "rotary_emb", "act_fn")
PER_ROW = ("lm_head", "sampler")


def kernel_seconds(model: StepModel, name: str, tokens: int) -> float:
    """One kernel of a layer (or of the head) of `model` for that many tokens; InputError for an unknown one."""
    ramp = max(0.0, model.gpu.launch - GRAPH_GAP)
    if name in PRODUCTS:
        for operator in _layer(model, tokens):
            if operator.name == PRODUCTS[name]:
                return operator.time + ramp
        raise InputError(Problem("", "layer", f"{model.model.name} has no '{name}'"))
    if name == "lm_head":
        return model.head_operator(tokens).time + ramp
    if name == "sampler":
        return model.sampling(tokens).time + SAMPLER_START
    if name in ELEMENT_WISE:
        return _streamed(model, name, tokens) + ramp
    known = (*PRODUCTS, *ELEMENT_WISE, *PER_ROW)
    raise InputError(
        Problem("", "layer", f"'{name}' is not a known kernel; known: {', '.join(known)}", did_you_mean(name, known))
    )


@lru_cache(maxsize=1024)
def _layer(model: StepModel, tokens: int) -> list[Operator]:
    return model.layer_operators(tokens)


def _streamed(model: StepModel, name: str, tokens: int) -> float:
    shape, gpu = model.model, model.gpu
    projected = model.heads * shape.head_dim + 2 * model.kv_heads * shape.head_dim
    elements = {
        "embedding": 2 * shape.hidden,
        "layernorm": 4 * shape.hidden,
        "final_layernorm": 4 * shape.hidden,
        "qk_norm": 2 * projected,
        "rotary_emb": 2 * projected,
        "act_fn": (3 if shape.gated_mlp else 2) * shape.intermediate / model.ranks,
    }[name]
    return tokens * elements * ACTIVATION_BYTES / (gpu.elementwise_bandwidth_efficiency * gpu.memory_bandwidth)


def expert_seconds(model: StepModel, tokens: int, touched: int) -> float:
    """The experts of one layer, for tokens of which each goes to its k experts and all together to `touched` ones.

    What a profiler sets is what goes where, so the router is not in it.
    """
    shape, gpu = model.model, model.gpu
    if not 1 <= touched <= shape.experts:
        has = f"expected 1 to the {shape.experts} experts of {shape.name}" if shape.experts else f"{shape.name} has no experts"
        raise InputError(Problem("", "activated_experts", f"{has}, found {touched}"))
    block = model.expert_block(tokens, touched)
    weights = touched * shape.expert_parameters / shape.experts * shape.weight_bytes / model.ranks
    cold = swept(weights, gpu.l2_cache)
    warm = cold + (1.0 - cold) * gpu.gemm_bandwidth_efficiency / CACHE_RATE
    block = [replace(op, memory_s=warm * op.memory_s) if op.name.startswith("expert") else op for op in block]
    return sum(op.time for op in block) + EXPERT_KERNELS * max(0.0, gpu.launch - GRAPH_GAP)


def attention_seconds(model: StepModel, contexts: Sequence[int] = (), pieces: Sequence[tuple[int, int]] = ()) -> float:
    """Attention of one layer: decodes with these contexts and prompt pieces (tokens, past), over a paged cache."""
    shape = (model.heads, model.kv_heads, model.model.head_dim, model.model.kv_bytes)
    ramp = max(0.0, model.gpu.launch - GRAPH_GAP)
    if pieces and (model.one_kernel or not contexts):
        return _paged(model, shape, contexts, pieces).time + ramp
    work = attention.decode_attention(model.gpu, *shape, sum(contexts), len(contexts)).time
    work += attention.decode_imbalance(model.gpu, *shape, contexts) + model.attention_latency
    if pieces:
        work += _paged(model, shape, (), pieces).time + ramp
    return work + ramp


def _paged(
    model: StepModel, shape: tuple[float, float, float, float], contexts: Sequence[int], pieces: Sequence[tuple[int, int]]
) -> Operator:
    return attention.prefill_attention(model.gpu, *shape, pieces, paged=True, contexts=contexts)
