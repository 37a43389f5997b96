"""Placement: where attention is computed. Elsewhere than on the GPU, queries move and pages stay.

    attention  = bytes read / (devices * bandwidth)                                 in each layer, on all devices at once
    exchange   = rows * (queries + new K and V + outputs) * 2 bytes / link + latency             a layer
    capacity   = devices * memory                                                    all KV is there, none in HBM

against pages that move to the GPU: bytes read / link. Computing there is free of FLOP limits (`bandwidth` is the measured rate
of its attention). Layers are sequential, so neither part overlaps with the GPU's. Identity: `gpu`.
"""

from __future__ import annotations

from simulator.scenario.resolved import Compute, Model

ACTIVATION_BYTES = 2.0


def attention_seconds(compute: Compute, kv_bytes: float) -> float:
    return kv_bytes / (compute.devices * compute.bandwidth)


def exchanged_bytes(model: Model) -> float:
    """Of one row in one layer: query, new K and V, output of attention."""
    heads = model.heads * (model.query_dim + model.head_dim)
    return (heads + model.kv_elements()) * ACTIVATION_BYTES


def exchange_seconds(compute: Compute, model: Model, rows: float) -> float:
    """Of one layer."""
    return rows * exchanged_bytes(model) / compute.link + compute.latency
