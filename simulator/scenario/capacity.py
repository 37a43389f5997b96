"""How much KV fits on a GPU, line by line, from the resolved scenario alone.

As a serving engine computes it after a profile run of the largest step that its scheduler allows:

    KV     = memory * memory_utilization - weights - activations - reserve - L2
    blocks = KV / bytes of a block on one GPU                                     (or as many as an engine reported)

Activations of a step of T tokens and n sequences (`activations: profile`), with 2-byte values: the residual, its norm and an
attention input and output (4 hidden), the widest of QKV and MLP (input and product of the activation), and for MoE the rows
copied to the experts; then the logits of n rows: 2 bytes from the LM head, 4 as float, and a sampler that sorts them (values,
indices, probabilities, cumulative sums: 4 + 8 + 4 + 4). The allocator keeps both peaks, so they add.

KV is split over tensor-parallel ranks by KV head; with more ranks than KV heads every head is held by several ranks, and a
latent (MLA) by all of them (`kv_copies`), which multiplies what a token takes in every tier. A pipeline stage has its layers.

Not modelled: fragmentation, memory of CUDA graphs by number of captured sizes (part of `reserve`).
Source: the order of an engine's own profile (vLLM V1, recalled); see catalog/README.md for its errors.
"""

from __future__ import annotations

from typing import Any

from simulator.scenario.resolved import Model, ScenarioResolved

LOGIT_BYTES = 2 + 4 + 4 + 8 + 4 + 4


def kv_copies(scenario: ScenarioResolved) -> float:
    """How often each KV byte is held: ranks / KV heads, at least 1; by every rank if it is a latent."""
    return scenario.model.kv_copies(scenario.gpus.tensor_parallel)


def kv_bytes_per_token_rank(scenario: ScenarioResolved) -> float:
    """Raw KV bytes of one token on one GPU, its layers."""
    return scenario.block_bytes_per_gpu / scenario.kv.block_tokens


def profile_activations(model: Model, ranks: int, tokens: int, sequences: int) -> float:
    """Bytes per GPU at the peak of a step of `tokens` tokens, of which `sequences` emit one."""
    gated = 2 if model.gated_mlp else 1
    qkv = model.heads * model.query_dim / ranks + model.kv_elements(ranks)
    widths = [(gated + 1) * model.intermediate / ranks, qkv + model.heads * model.head_dim / ranks]
    if model.experts:
        widths.append(model.experts_per_token * (2 * model.hidden + (gated + 1) * model.expert_intermediate / ranks))
    return tokens * 2.0 * (4 * model.hidden + max(widths)) + sequences * model.vocab / ranks * LOGIT_BYTES


def ledger(scenario: ScenarioResolved) -> list[dict[str, Any]]:
    """Lines of {item, bytes, how}, per GPU, that sum to what is left for L1; the last line is the count of blocks."""
    model, gpus, kv = scenario.model, scenario.gpus, scenario.kv
    cuts = [(gpus.tensor_parallel, "tensor-parallel ranks"), (gpus.pipeline_parallel, "pipeline stages")]
    cut = ", ".join(f"{count} {what}" for count, what in cuts if count > 1)
    held = f"{model.parameters / 1e9:.2f} billion parameters, {model.weights} ({model.weight_bytes:g} B each)"
    if model.embedding_bytes not in (None, model.weight_bytes):
        held += f", embeddings {model.embedding_bytes:g} B"
    held += f"; cut over {cut}" if cut else ""
    held += f"; experts dealt out over {gpus.expert_parallel} GPUs" if gpus.expert_parallel > 1 else ""
    usable = gpus.gpu.memory * gpus.memory_utilization
    left, block = scenario.hbm_left - kv.l2, scenario.block_bytes_per_gpu
    per_token = f"{kv.block_tokens} tokens x {block / kv.block_tokens:g} B"
    found = [
        {"item": "memory", "bytes": gpus.gpu.memory, "how": f"of {gpus.gpu.name}"},
        {"item": "kept free", "bytes": usable - gpus.gpu.memory, "how": f"memory_utilization {gpus.memory_utilization:g}"},
        {"item": "weights", "bytes": -scenario.weights_per_gpu, "how": held},
        {"item": "activations", "bytes": -gpus.activations, "how": "of the largest step"},
        {"item": "reserve", "bytes": -gpus.reserve, "how": "context, graphs, communication buffers"},
        {"item": "l2", "bytes": -kv.l2, "how": "prefetch buffer"},
        {"item": "left for KV", "bytes": left, "how": "the sum"},
        {"item": "block", "bytes": block, "how": per_token},
    ]
    if kv.blocks is not None:
        how = f"{kv.blocks} blocks as given; {int(max(0.0, left) // block)} were computed"
    elif kv.l1 is not None:
        how = f"{int(kv.l1 // block)} blocks in the L1 that is given"
    else:
        how = f"{int(max(0.0, left) // block)} blocks"
    return [*found, {"item": "l1", "bytes": scenario.l1_per_gpu, "how": how}]
