"""Topology: which devices hold and compute what.

    replicated latent   every tensor-parallel rank holds and reads the whole latent of MLA
    sharded latent      a rank holds 1/TP of it in decodes, all heads: bytes per rank / TP, FLOPs as before, and one more
                        all-reduce a layer of the partial outputs (rows * heads * head_dim)
    split P, D          requests/s = min(prefill rate, decode rate, link / KV bytes of a prompt)
                        link use   = requests/s * KV bytes of a prompt / link

The split of prefill and decode in time is simulated by replicas with roles; here are its bounds.
Identity: replicated, colocated.
"""

from __future__ import annotations

from simulator.scenario.resolved import Model


def shares(latent: str, ranks: int) -> float:
    """Share of a latent's bytes that a rank holds and reads."""
    return 1.0 / ranks if latent == "sharded" else 1.0


def partial_outputs(model: Model) -> float:
    """Elements of one row that the ranks add up in each layer with a sharded latent."""
    return float(model.heads * model.head_dim)


def split_rate(prefill: float, decode: float, link: float, prompt_bytes: float) -> float:
    """Requests/s that prefill, decode and the link between them sustain."""
    return min(prefill, decode, link / prompt_bytes)


def link_use(rate: float, link: float, prompt_bytes: float) -> float:
    return rate * prompt_bytes / link
