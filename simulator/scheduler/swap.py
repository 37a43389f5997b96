"""Preemption by swap: the KV of a preempted sequence is moved out of HBM and back, instead of being computed again.

    swap_host  to the memory of the host, over each GPU's own port (`cluster.gpus.link`), all ranks at once
    swap_pool  to the pool, over the path of far memory; the pool then holds preempted sequences only, in compressed bytes

A swap is a copy of whole blocks that the engine waits for before the step in which it happens (vLLM V0 issues it on the stream
of the model): latency + bytes / rate, both directions of a step one after the other. GPU codecs add their pass over HBM.
With a prefix cache only the blocks that nobody else holds are copied (`prefixes.py`).
There is room for `capacity` bytes as stored; a sequence that does not fit is computed again, as is one whose prompt is in work.
Not modelled: swaps that overlap with a step, priority over other traffic (there is none: nothing else is far).
Conservation (INV-BYTES): out = in + dropped (aborted while out) + held.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from simulator.hardware.codec import pack_rate, unpack_rate
from simulator.hardware.pool import FarPath, far_path
from simulator.kvcache.geometry import Geometry
from simulator.scenario.resolved import ScenarioResolved


@dataclass
class Swap:
    """Where preempted sequences go; bytes raw."""

    block_bytes: float
    capacity: float  # raw bytes
    out_rate: float  # raw bytes/s
    in_rate: float
    out_latency: float
    in_latency: float
    path: FarPath | None = None  # the pool's; None: the host's memory
    held: dict[int, int] = field(default_factory=dict)  # sequence -> blocks
    blocks: int = 0  # of all that are held
    blocks_out: int = 0
    blocks_in: int = 0
    dropped: int = 0
    waiting: float = 0.0  # s that the next step waits for copies

    def takes(self, blocks: int) -> bool:
        return (self.blocks + blocks) * self.block_bytes <= self.capacity

    def out(self, request: int, blocks: int) -> None:
        self.held[request] = blocks
        self.blocks += blocks
        self.blocks_out += blocks
        self.waiting += self.out_latency + blocks * self.block_bytes / self.out_rate if blocks else 0.0

    def back(self, request: int) -> int:
        """The sequence returns: its blocks."""
        blocks = self.held.pop(request)
        self.blocks -= blocks
        self.blocks_in += blocks
        self.waiting += self.in_latency + blocks * self.block_bytes / self.in_rate if blocks else 0.0
        return blocks

    def drop(self, request: int) -> None:
        blocks = self.held.pop(request, 0)
        self.blocks -= blocks
        self.dropped += blocks

    def waited(self) -> float:
        """Seconds of all copies since the last step."""
        waiting, self.waiting = self.waiting, 0.0
        return waiting


def swap_of(scenario: ScenarioResolved, geometry: Geometry) -> Swap | None:
    """None where preempted sequences are computed again."""
    kind, gpus = scenario.scheduler.preemption, scenario.gpus
    if kind == "recompute":
        return None
    if kind == "swap_host":
        link, ranks = gpus.gpu.link, gpus.count
        room = scenario.scheduler.swap_space * ranks
        rates = ranks * link.write_bandwidth, ranks * link.read_bandwidth
        return Swap(geometry.block_bytes, room, *rates, link.latency, 2 * link.latency)
    path, codec = far_path(scenario), scenario.kv.codec
    pack = 1 / (gpus.tensor_parallel * pack_rate(codec, gpus.gpu)) if codec.compress_at == "gpu" else 0.0
    unpack = 1 / (gpus.tensor_parallel * unpack_rate(codec, gpus.gpu)) if codec.decompress_at == "gpu" else 0.0
    out_rate, in_rate = 1 / (1 / path.write_rate + pack), 1 / (1 / path.read_rate + unpack)
    room = geometry.l3_bytes * geometry.ratio
    return Swap(geometry.block_bytes, room, out_rate, in_rate, path.write_latency, path.read_latency, path)
