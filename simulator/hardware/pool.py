"""The way between far memory and the GPUs as stages of the fabric (design 3.3).

Symmetric devices are bundled exactly: pages are striped over boards and every rank fetches its own share over its own
port, so n boards (links, ports) at rate r carry what one stage at n * r would. Weights are wire bytes per raw KV byte:
1/ratio where the data is compressed, 1 where it is raw. With (de)compression on the FPGA the link carries raw bytes;
on the GPU it carries compressed ones and the codec is an operator of the layer.

    read : memory channels, [decompression engines], DMA, board links, [switch], GPU ports, staging write in HBM
    write: GPU ports, [switch], board links, DMA, [compression engines], memory channels

Reads and writes share the memory channels only (links, DMA and switch ports are full duplex; engines come in pairs).
Reads (demand and prefetch) go before write-back. Latency of a read, once per dependent chain: the request crosses the
links, the board translates and looks up its directory, memory answers, the engine fills, the data crosses back.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import NamedTuple

from simulator.hardware.fabric import littles_law_cap
from simulator.hardware.sharing import fair_rates
from simulator.scenario.resolved import ScenarioResolved


class Crossing(NamedTuple):
    """A stage on a path: its capacity in wire bytes/s and the wire bytes it carries per raw KV byte."""

    stage: str
    rate: float
    weight: float


Path = tuple[Crossing, ...]


@dataclass(frozen=True)
class PathFlow:
    """One flow along a path, as the sharing rule sees it."""

    path: tuple[tuple[str, float], ...]
    cap: float  # raw bytes/s
    priority: int


@dataclass(frozen=True)
class FarPath:
    """Stages, rates (raw bytes/s) and latencies between the pool and the SMs of one replica."""

    read: Path
    write: Path
    read_latency: float  # s, request to first byte
    write_latency: float
    read_cap: float  # raw bytes/s: outstanding bytes / round trip
    write_cap: float
    read_rate: float
    write_rate: float  # while nothing is read
    write_rate_reading: float  # while the reads run at their rate
    bound: str  # name of the stage (or "outstanding") that bounds the reads
    bound_kind: str  # its part of the latency attribution: link, decompress, pool_memory, dma or staging
    burst_rate: float  # raw bytes/s of a lone burst, which crosses one device of each kind

    def rates(self) -> list[tuple[str, float, float]]:
        """(stage, wire bytes/s while reads and write-back run, capacity) for INV-RATES."""
        load: dict[str, list[float]] = {}
        for path, rate in ((self.read, self.read_rate), (self.write, self.write_rate_reading)):
            for stage, capacity, weight in path:
                if capacity < inf:
                    load.setdefault(stage, [0.0, capacity])[0] += rate * weight
        return [(stage, rate, capacity) for stage, (rate, capacity) in load.items()]


def far_path(scenario: ScenarioResolved) -> FarPath:
    """Build the path of a scenario with a pool."""
    pool, gpus, codec = scenario.pool, scenario.gpus, scenario.kv.codec
    assert pool is not None
    board, boards, ranks = pool.board, pool.boards, gpus.tensor_parallel
    links = boards * pool.links_per_board
    stored = 1.0 / codec.ratio
    read_wire = stored if codec.decompress_at == "gpu" else 1.0
    write_wire = stored if codec.compress_at == "gpu" else 1.0
    memory = Crossing("pool.memory", boards * board.memory_bandwidth, stored)
    engines = boards * board.engines * board.engine_rate
    port = gpus.gpu.link

    read = [memory]
    if codec.decompress_at == "fpga":
        read.append(Crossing("pool.decompress", engines, 1.0))
    read.append(Crossing("pool.dma.read", boards * board.dma_bandwidth, read_wire))
    read.append(Crossing("pool.link.read", links * pool.link.read_bandwidth, read_wire))
    write = [Crossing("gpu.port.write", ranks * port.write_bandwidth, write_wire)]
    if pool.switch:
        ports = pool.switch.uplinks * pool.switch.port_bandwidth
        read.append(Crossing("switch.read", ports, read_wire))
        write.append(Crossing("switch.write", ports, write_wire))
    read.append(Crossing("gpu.port.read", ranks * port.read_bandwidth, read_wire))
    read.append(Crossing("gpu.staging", ranks * gpus.gpu.staging_bandwidth, read_wire))
    write.append(Crossing("pool.link.write", links * pool.link.write_bandwidth, write_wire))
    write.append(Crossing("pool.dma.write", boards * board.dma_bandwidth, write_wire))
    if codec.compress_at == "fpga":
        write.append(Crossing("pool.compress", engines, 1.0))
    write.append(memory)

    hop = pool.link.latency + port.latency + (pool.switch.latency if pool.switch else 0.0)
    device = board.translation + board.directory + board.memory_latency
    read_latency = 2 * hop + device + (board.engine_fill if codec.decompress_at == "fpga" else 0.0)
    write_latency = 2 * hop + device + (board.engine_fill if codec.compress_at == "fpga" else 0.0)
    outstanding = boards * board.outstanding
    read_flow = PathFlow(_weights(read), littles_law_cap(outstanding, read_latency, read_wire), 0)
    write_flow = PathFlow(_weights(write), littles_law_cap(outstanding, write_latency, write_wire), 2)
    capacity = {crossing.stage: crossing.rate for crossing in (*read, *write)}
    (read_rate,) = fair_rates(capacity, [read_flow])
    (write_rate,) = fair_rates(capacity, [write_flow])
    write_rate_reading = fair_rates(capacity, [read_flow, write_flow])[1]
    bound = min(read, key=lambda crossing: crossing.rate / crossing.weight).stage
    if read_flow.cap < min(crossing.rate / crossing.weight for crossing in read):
        bound = "outstanding"
    lone = [board.memory_bandwidth / stored, board.dma_bandwidth / read_wire, pool.link.read_bandwidth / read_wire]
    lone += [port.read_bandwidth / read_wire, gpus.gpu.staging_bandwidth / read_wire]
    if codec.decompress_at == "fpga":
        lone.append(board.engine_rate)
    if pool.switch:
        lone.append(pool.switch.port_bandwidth / read_wire)
    return FarPath(
        tuple(read), tuple(write), read_latency, write_latency, read_flow.cap, write_flow.cap,
        read_rate, write_rate, write_rate_reading, bound, _kind(bound), min(lone),
    )  # fmt: skip


def _weights(path: list[Crossing]) -> tuple[tuple[str, float], ...]:
    return tuple((crossing.stage, crossing.weight) for crossing in path)


def _kind(stage: str) -> str:
    if stage.startswith("pool.dma") or stage == "outstanding":
        return "dma"
    return {"pool.memory": "pool_memory", "pool.decompress": "decompress", "gpu.staging": "staging"}.get(stage, "link")
