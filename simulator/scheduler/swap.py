"""Preemption by swap: the KV of a preempted sequence is moved out of HBM and back, instead of being computed again.

    swap_host  to the memory of the host, over each GPU's own port (`cluster.gpus.link`), all ranks at once
    swap_pool  to the pool, over the path of far memory; the pool then holds preempted sequences only, in compressed bytes

A swap is a copy of whole blocks that the engine waits for before the step in which it happens (vLLM V0 issues it on the stream
of the model): latency + bytes / rate, both directions of a step one after the other. GPU codecs add their pass over HBM.
With a prefix cache only the blocks that nobody else holds are copied (`prefixes.py`).
A sequence comes back from the head of the queue as in vLLM V0: when its blocks, one more for its next token and the watermark
are free beside what the step's decodes claim, and budget is left after the prompts in work; it decodes in that step. A static
batch is made of those that come back, or of others.
There is room for `capacity` bytes as stored; a sequence that does not fit is computed again, as is one whose prompt is in work.
Conservation (INV-BYTES): out = in + dropped (aborted while out) + held.

Beside a pool that sequences are read from, a sequence goes to the host whole: its blocks in L3 are read through the GPUs and go
on as they come, out = max(all over the ports, far ones over the path); what comes back is placed as a new prompt's blocks are.
Ports are the copy's while it lasts: what is prefetched or written back goes on after it.
Where replicas share a pool, copies are flows of their fabric (`shared.py`), of the class of demand: replicas that swap at one
moment share the pool's way, and a copy to the host shares its ports with what is prefetched meanwhile. The room in the pool is
one for all as well.
Not modelled: swaps that overlap with a step; blocks of a sequence that stay in L3 while the rest of it is out.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field
from math import inf
from typing import NamedTuple

import simpy

from simulator.hardware.codec import pack_rate, unpack_rate
from simulator.hardware.fabric import DEMAND, Fabric, Share, Stage
from simulator.hardware.pool import FarPath, far_path, ports
from simulator.kvcache.geometry import Geometry
from simulator.scenario.resolved import ScenarioResolved

Way = tuple[tuple[Stage, float], ...]


class Copy(NamedTuple):
    """One sequence's blocks on their way; raw bytes."""

    request: int
    out: bool
    size: float
    far: float  # of them, bytes that come from the pool


@dataclass
class Ways:
    """Stages of a shared fabric that copies cross, instead of times on their own."""

    fabric: Fabric
    out: Way
    back: Way
    far: Way  # of what comes from the pool
    far_latency: float
    share: Callable[[int], Share]  # weight of a request at the arbiters


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
    pack: float = 0.0  # s a raw byte of a GPU codec, beside the copy
    unpack: float = 0.0
    held: dict[int, int] = field(default_factory=dict)  # sequence -> blocks
    blocks: int = 0  # of all that are held
    blocks_out: int = 0
    blocks_in: int = 0
    dropped: int = 0
    copies: list[Copy] = field(default_factory=list)  # that the next step waits for
    ways: Ways | None = None
    others: Callable[[], int] = lambda: 0  # blocks that other replicas have in the same place
    told: Callable[[int], None] = lambda change: None  # of blocks that are held more

    def takes(self, blocks: int) -> bool:
        return (self.blocks + self.others() + blocks) * self.block_bytes <= self.capacity

    def out(self, request: int, blocks: int, far: int = 0) -> None:
        """`far`: of its blocks, those that come from the pool."""
        self.held[request] = blocks
        self._hold(blocks)
        self.blocks_out += blocks
        if blocks:
            self.copies.append(Copy(request, True, blocks * self.block_bytes, far * self.block_bytes))

    def back(self, request: int) -> int:
        """The sequence returns: its blocks."""
        blocks = self.held.pop(request)
        self._hold(-blocks)
        self.blocks_in += blocks
        if blocks:
            self.copies.append(Copy(request, False, blocks * self.block_bytes, 0.0))
        return blocks

    def drop(self, request: int) -> None:
        blocks = self.held.pop(request, 0)
        self._hold(-blocks)
        self.dropped += blocks

    def _hold(self, change: int) -> None:
        self.blocks += change
        if change:
            self.told(change)

    def taken(self) -> list[Copy]:
        """All copies since the last step."""
        copies, self.copies = self.copies, []
        return copies

    def seconds(self, copies: Iterable[Copy], far: FarPath | None = None) -> float:
        """One after the other; `far`: the way of what comes from the pool."""
        return sum([self._seconds(copy, far) for copy in copies])

    def _seconds(self, copy: Copy, far: FarPath | None) -> float:
        if not copy.out:
            return self.in_latency + copy.size / self.in_rate + copy.size * self.unpack
        reading = far.read_latency + copy.far / far.read_rate if far is not None and copy.far else 0.0
        return max(self.out_latency + copy.size / self.out_rate, reading) + copy.size * self.pack

    def copied(
        self, env: simpy.Environment, copies: Iterable[Copy], far: FarPath | None
    ) -> Generator[simpy.Event, None, float]:  # fmt: skip
        """The same; over a shared fabric, in time."""
        if self.ways is None:
            return self.seconds(copies, far)
        began = env.now
        yield from self._cross(env, copies, self.ways)
        return env.now - began

    def _cross(self, env: simpy.Environment, copies: Iterable[Copy], ways: Ways) -> Generator[simpy.Event, None, None]:
        for copy in copies:
            way, latency, codec = (
                (ways.out, self.out_latency, self.pack) if copy.out else (ways.back, self.in_latency, self.unpack)
            )
            share, crossing = ways.share(copy.request), [(copy.size, way, latency)]
            if copy.far:
                crossing.append((copy.far, ways.far, ways.far_latency))
            flows = [ways.fabric.move(size, over, DEMAND, inf, wait, "swap", share) for size, over, wait in crossing]
            yield env.all_of([flow.done for flow in flows])
            yield env.timeout(copy.size * codec)


def swap_of(scenario: ScenarioResolved, geometry: Geometry) -> Swap | None:
    """None where preempted sequences are computed again."""
    kind, gpus = scenario.scheduler.preemption, scenario.gpus
    if kind == "recompute":
        return None
    if kind == "swap_host":
        link, ranks = gpus.gpu.link, gpus.count // gpus.data_parallel
        room, count = scenario.scheduler.swap_space * ranks, ports(scenario) if scenario.pool else ranks
        return Swap(geometry.block_bytes, room, *host_rates(scenario, count), link.latency, 2 * link.latency)
    path, codec = far_path(scenario), scenario.kv.codec
    pack = 1 / (gpus.tensor_parallel * pack_rate(codec, gpus.gpu)) if codec.compress_at == "gpu" else 0.0
    unpack = 1 / (gpus.tensor_parallel * unpack_rate(codec, gpus.gpu)) if codec.decompress_at == "gpu" else 0.0
    room = geometry.l3_bytes * geometry.ratio
    latencies = path.write_latency, path.read_latency
    return Swap(geometry.block_bytes, room, path.write_rate, path.read_rate, *latencies, path, pack, unpack)


def host_rates(scenario: ScenarioResolved, count: int) -> tuple[float, float]:
    """Bytes/s out and back over so many ports of GPUs."""
    link = scenario.gpus.gpu.link
    return count * link.write_bandwidth, count * link.read_bandwidth
