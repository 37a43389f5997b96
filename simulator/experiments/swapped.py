"""Preempted sequences that were copied out and back, of one replica or of several in lock step: bytes by stage, room in use."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator.experiments.server import Server
from simulator.metrics.invariants import require
from simulator.metrics.recorder import Recorder
from simulator.metrics.steps import Steps
from simulator.metrics.traffic import StageUse, Traffic, carried
from simulator.scheduler.swap import Swap


def swaps_of(server: Server) -> list[Swap]:
    return [replica.swap for replica in server.engine.replicas if replica.swap is not None]


def room_in_use(server: Server, recorder: Recorder, steps: Steps) -> dict[str, tuple[float, NDArray[Any]]]:
    """Tier -> (capacity, bytes in use during each step), of where swapped sequences are."""
    swaps = swaps_of(server)
    if not swaps:
        return {}
    changes, geometry = recorder.swapped.arrays(), server.geometry
    rows = np.cumsum(np.bincount(changes["run"], changes["blocks"], len(steps.runs["start"]) + 1))
    out = rows[steps.run] * geometry.block_bytes
    if swaps[0].path is not None:
        return {"l3": (geometry.l3_bytes, out / geometry.ratio)}
    return {"host": (sum(swap.capacity for swap in swaps), out)}


def with_swaps(server: Server, traffic: Traffic) -> Traffic:
    """The traffic of a replica with its copies."""
    swaps, geometry, gpus = swaps_of(server), server.geometry, server.scenario.gpus
    if not swaps:
        return traffic
    for swap in swaps:
        ended = swap.blocks_in + swap.dropped + swap.blocks
        require("INV-BYTES", swap.blocks_out == ended, f"{swap.blocks_out} blocks swapped out, {ended} accounted for")
    back, out = (sum(getattr(swap, name) for swap in swaps) for name in ("blocks_in", "blocks_out"))
    moved = back * geometry.block_bytes, out * geometry.block_bytes
    if swaps[0].path is not None:
        stages = carried(swaps[0].path.read, swaps[0].path.write, *moved)
    else:
        link = gpus.gpu.link
        rates = (("gpu.port.read", link.read_bandwidth, moved[0]), ("gpu.port.write", link.write_bandwidth, moved[1]))
        stages = tuple(StageUse(name, gpus.count * rate, total) for name, rate, total in rates)
    if server.far is not None:  # what far memory moved has its own counts; the copies cross its ports as well
        more = {stage.name: stage.carried for stage in stages}
        both = [StageUse(one.name, one.rate, one.carried + more.get(one.name, 0.0)) for one in traffic.stages]
        return replace(traffic, stages=tuple(both))
    return replace(
        traffic, page_bytes=geometry.layer_bytes, moved=back * geometry.layers, written_bytes=moved[1], sent_bytes=moved[1],
        homed=out * geometry.layers, stages=stages,
    )  # fmt: skip
