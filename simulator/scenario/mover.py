"""Who moves pages between host memory and HBM, as resolved values in SI units; part of `resolved`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CopyEngine:
    """How a GPU moves KV over its own port, by copy engines or by gather kernels, and what that costs its other kernels."""

    name: str
    read_bandwidth: float  # long copies towards the GPU, bytes/s
    write_bandwidth: float  # towards the host
    duplex: float  # share of their sum that both directions reach together
    read_setup: float  # s of the engine for each copy, beside its bytes
    write_setup: float
    batch_setup: float  # s, of a copy in one call with many others
    issue: float  # s of the host thread per call
    start: float  # s that a lone copy takes beside its bytes, from issue to whoever waits for it
    block_latency: float  # s that a thread block's read takes longer than one thread's
    block_bandwidth: float  # bytes/s: loads of one block beyond the first
    gather_outstanding: float  # bytes that one block of a gather kernel keeps in flight
    gather_read_bandwidth: float  # bytes/s of enough blocks
    gather_write_bandwidth: float
    write_cost: float  # bytes of HBM streaming that a byte copied into HBM costs the kernels beside it
    read_cost: float  # the same, a byte copied out of HBM
    gather_cost: float  # the same, a byte that a gather kernel moves
    gather_sms: float  # SMs whose places one gather block takes
    gather_power: float  # share of the power of those places that it draws
    gather_tail: float  # tiles of 128 x 256 that a product waits for its slowest one when gather blocks are in its way
    gather_spare: float  # so many gather blocks are in the way of 1 - 1/e of the products


@dataclass(frozen=True)
class Mover:
    """Who moves pages between host memory and HBM: the GPU's copy engines, or a gather kernel of `blocks` blocks."""

    engine: CopyEngine
    method: str  # "copy": one a layer and array | "pages" | "batch": one a page | "gather" | "push": the boards' DMA
    blocks: int  # of a gather kernel; 0 otherwise
