"""The GPU's own way to host memory: copy engines and gather kernels over its PCIe port.

Copies. A copy engine spends a set-up and bytes / bandwidth on every copy, one after the other; a host thread issues them
at its own rate; whoever waits for a lone copy also waits for the way to the engine and back:

    back to back    max(issue, setup + bytes / bandwidth)
    lone            start + bytes / bandwidth
    both directions each keeps `duplex` of its bandwidth; one thread issues for both

Many small copies in one call (cudaMemcpyBatchAsync) have a smaller set-up and no issue of their own.

Gather kernels read (or write) host memory by loads of the SMs. A block has at most `gather_outstanding` bytes in flight, no
more than its page, and waits for them (Little's law); writes are posted and do not wait:

    block read      round trip + block_latency + bytes / block_bandwidth
    rate            min(blocks * in flight / block read(in flight), gather bandwidth)

Not modelled: small copies that a driver passes through its command buffer (batches of under 64 KiB towards the GPU), misses
of the IOMMU on small random pages, slower host memory under other tenants.
Events: none; closed forms. Source: fitted to own H100 measurements by analysis/calibration/link.py.
"""

from __future__ import annotations

from typing import NamedTuple

from simulator.scenario.resolved import CopyEngine, Mover

READ, WRITE = "h2d", "d2h"


def bandwidth(engine: CopyEngine, direction: str, both: bool = False) -> float:
    """Bytes/s of long copies in one direction, while the other one is idle or busy too."""
    alone = engine.read_bandwidth if direction == READ else engine.write_bandwidth
    return alone * engine.duplex if both else alone


def setup(engine: CopyEngine, direction: str) -> float:
    return engine.read_setup if direction == READ else engine.write_setup


def copies(engine: CopyEngine, direction: str, size: float, issue: float | None = None, both: bool = False) -> float:
    """Seconds per copy of a long row of copies of `size` bytes; `issue`: seconds of a call where it is not the engine's own."""
    call = engine.issue if issue is None else issue
    return max(2 * call if both else call, setup(engine, direction) + size / bandwidth(engine, direction, both))


def batched(engine: CopyEngine, direction: str, size: float) -> float:
    """Seconds per copy of many in one call."""
    return engine.batch_setup + size / bandwidth(engine, direction)


def lone(engine: CopyEngine, direction: str, size: float, arrays: int = 1) -> float:
    """Seconds from the issue of `arrays` copies of `size` bytes together until what waits for the last one goes on."""
    return engine.start + (arrays - 1) * setup(engine, direction) + size / bandwidth(engine, direction)


def block_read(engine: CopyEngine, round_trip: float, size: float) -> float:
    """Seconds until a thread block has read `size` bytes at once, `round_trip` being that of one thread's read."""
    return round_trip + engine.block_latency + size / engine.block_bandwidth


def gather_rate(engine: CopyEngine, direction: str, blocks: int, page: float, round_trip: float) -> float:
    """Bytes/s of a kernel of `blocks` blocks that moves pages of `page` bytes."""
    if direction == WRITE:
        return engine.gather_write_bandwidth
    flight = min(page, engine.gather_outstanding)
    return min(engine.gather_read_bandwidth, blocks * flight / block_read(engine, round_trip, flight))


class Moving(NamedTuple):
    """A mover at work on the pages of a layer, on one GPU."""

    read_bandwidth: float  # wire bytes/s, what each page costs beside its bytes included
    write_bandwidth: float
    setup: float  # s for which the pages of one layer hold the engine beside their bytes
    latency: float  # s that a layer waits beside that when nothing was sent ahead


def moving(mover: Mover, page: float, arrays: int, round_trip: float, launch: float) -> Moving:
    """How pages of `page` wire bytes, each in `arrays` pieces, are moved."""
    engine, piece = mover.engine, page / arrays
    if mover.method == "gather":
        read, write = (gather_rate(engine, direction, mover.blocks, page, round_trip) for direction in (READ, WRITE))
        return Moving(read, write, launch, launch + round_trip)
    if mover.method == "copy":
        setups = arrays * engine.read_setup
        return Moving(engine.read_bandwidth, engine.write_bandwidth, setups, engine.start + setups - engine.read_setup)
    each = copies if mover.method == "pages" else batched
    return Moving(piece / each(engine, READ, piece), piece / each(engine, WRITE, piece), 0.0, engine.start)
