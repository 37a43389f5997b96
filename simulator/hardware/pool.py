"""The way between far memory and the GPUs as stages of the fabric (design 3.3).

Symmetric devices are bundled exactly: pages are striped over boards and every rank fetches its own share over its own
port, so n boards (links, ports) at rate r carry what one stage at n * r would. Weights are wire bytes per raw KV byte:
1/ratio where the data is compressed, 1 where it is raw. With (de)compression on the FPGA the link carries raw bytes;
on the GPU it carries compressed ones and the codec is an operator of the layer.

    read : memory channels, [decompression engines], DMA, board links, [leaf switches], [switch], GPU ports, HBM staging
    write: GPU ports, [switch], [leaf switches], board links, DMA, [compression engines], memory channels

Topologies: direct attach; one switch; a two-level tree, whose leaf switches stand between the boards and the root; several
links a board; several GPUs behind one port; several replicas that share boards and switches (but not GPU ports). A switch
has `downlinks` ports towards the boards and `uplinks` towards the GPUs, of which a replica uses at most one a GPU port.
Reads and writes share the memory channels; links, DMA and switch ports are full duplex and engines come in pairs, but a
read also takes `requests` bytes per byte of the links' write direction. Reads (demand and prefetch) go before write-back.

Where the GPUs move the pages themselves (`copy_engine.py`) their engines are a stage of each direction, and one of both: two
busy directions reach less than the sum of each alone. Set-up and start of copies then stand for the latency of the path.

Sharing: the other replicas use `others_load` of what is shared; this one gets the rest, and at least its fair share
(where arbiters are weighted, that of its `weight`).
Latency of a read, once per dependent chain: the request crosses the links, the board translates and looks up its
directory, memory answers, the engine fills, the data crosses back. Shared devices answer later under the load of others
(`hardware.latency`). What is in flight sustains outstanding bytes / round trip of a burst, its own transfer included.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import NamedTuple

from simulator.hardware.copy_engine import Moving, moving
from simulator.hardware.fabric import littles_law_cap
from simulator.hardware.latency import loaded
from simulator.hardware.sharing import fair_rates
from simulator.scenario.resolved import Pool, ScenarioResolved


class Crossing(NamedTuple):
    """A stage on a path: its capacity in wire bytes/s and the wire bytes it carries per raw KV byte."""

    stage: str
    rate: float
    weight: float


Path = tuple[Crossing, ...]
Parts = tuple[tuple[str, float], ...]  # (device, seconds)


@dataclass(frozen=True)
class PathFlow:
    """One flow along a path, as the sharing rule sees it."""

    path: tuple[tuple[str, float], ...]
    cap: float  # raw bytes/s
    priority: int
    share: float = 1.0


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
    read_parts: Parts  # what the latencies are made of, in the order of the way
    write_parts: Parts
    setup: float = 0.0  # s for which the pages of a layer hold the stream of reads, beside their bytes

    def rates(self) -> list[tuple[str, float, float]]:
        """(stage, wire bytes/s while reads and write-back run, capacity) for INV-RATES."""
        load: dict[str, list[float]] = {}
        for path, rate in ((self.read, self.read_rate), (self.write, self.write_rate_reading)):
            for stage, capacity, weight in path:
                if capacity < inf:
                    load.setdefault(stage, [0.0, capacity])[0] += rate * weight
        return [(stage, rate, capacity) for stage, (rate, capacity) in load.items()]


def ports(scenario: ScenarioResolved) -> int:
    """Ports of the replica's GPUs: one for every `gpus_per_port` of them."""
    assert scenario.pool is not None
    return -(-scenario.gpus.tensor_parallel // scenario.pool.gpus_per_port)


def left_over(pool: Pool) -> float:
    """Share of what replicas share that is left to this one: what the others do not use, at least the share that its weight
    gives it beside theirs, which is 1 each."""
    return max(1.0 - pool.others_load, pool.weight / (pool.weight + pool.shared_by - 1))


def far_path(scenario: ScenarioResolved) -> FarPath:
    """Build the path of a scenario with a pool."""
    pool, gpus, codec = scenario.pool, scenario.gpus, scenario.kv.codec
    assert pool is not None
    board, boards, port = pool.board, pool.boards, gpus.gpu.link
    share, own_ports = left_over(pool), ports(scenario)
    links = boards * pool.links_per_board
    stored = 1.0 / codec.ratio
    read_wire = stored if codec.decompress_at == "gpu" else 1.0
    write_wire = stored if codec.compress_at == "gpu" else 1.0
    memory = Crossing("pool.memory", share * boards * board.memory_bandwidth, stored)
    engines = share * boards * board.engines * board.engine_rate
    to_gpus, to_boards = _switches(pool, own_ports, share)

    read = [memory]
    if codec.decompress_at == "fpga":
        read.append(Crossing("pool.decompress", engines, 1.0))
    read.append(Crossing("pool.dma.read", share * boards * board.dma_bandwidth, read_wire))
    read.append(Crossing("pool.link.read", share * links * pool.link.read_bandwidth, read_wire))
    read += [Crossing(f"{name}.read", rate, read_wire) for name, rate in to_gpus]
    read.append(Crossing("gpu.port.read", own_ports * port.read_bandwidth, read_wire))
    read.append(Crossing("gpu.staging", gpus.tensor_parallel * gpus.gpu.staging_bandwidth, read_wire))
    gpu_port = Crossing("gpu.port.write", own_ports * port.write_bandwidth, write_wire)
    board_link = Crossing("pool.link.write", share * links * pool.link.write_bandwidth, write_wire)
    for crossing, link in ((board_link, pool.link), (gpu_port, port)):
        if link.requests:
            read.append(crossing._replace(weight=read_wire * link.requests))
    write = [gpu_port, *(Crossing(f"{name}.write", rate, write_wire) for name, rate in to_boards), board_link]
    write.append(Crossing("pool.dma.write", share * boards * board.dma_bandwidth, write_wire))
    if codec.compress_at == "fpga":
        write.append(Crossing("pool.compress", engines, 1.0))
    write.append(memory)
    mover = _moving(scenario, read_wire, 2 * (pool.link.latency + port.latency) + board.memory_latency)
    if mover is not None:
        assert pool.mover is not None
        both = pool.mover.engine.duplex * (mover.read_bandwidth + mover.write_bandwidth)
        read.append(Crossing("gpu.copy.read", gpus.tensor_parallel * mover.read_bandwidth, read_wire))
        read.append(Crossing("gpu.copy", gpus.tensor_parallel * both, read_wire))
        write.append(Crossing("gpu.copy", gpus.tensor_parallel * both, write_wire))
        write.append(Crossing("gpu.copy.write", gpus.tensor_parallel * mover.write_bandwidth, write_wire))

    read_parts = _latency(scenario, fill=codec.decompress_at == "fpga")
    if mover is not None:
        read_parts = (("gpu.copy", mover.latency),)
    write_parts = _latency(scenario, fill=codec.compress_at == "fpga")
    read_latency, write_latency = (sum([seconds for _, seconds in parts]) for parts in (read_parts, write_parts))
    burst_rate, written = (min([rate for _, rate in single_way(scenario, read)]) for read in (True, False))
    if mover is not None:
        burst_rate = min(burst_rate, mover.read_bandwidth / read_wire)
    outstanding, burst = share * boards * board.outstanding, scenario.kv.burst
    read_flow = PathFlow(_weights(read), littles_law_cap(outstanding, read_latency + burst / burst_rate, read_wire), 0)
    write_flow = PathFlow(_weights(write), littles_law_cap(outstanding, write_latency + burst / written, write_wire), 2)
    capacity = {crossing.stage: crossing.rate for crossing in (*read, *write)}
    (read_rate,) = fair_rates(capacity, [read_flow])
    (write_rate,) = fair_rates(capacity, [write_flow])
    write_rate_reading = fair_rates(capacity, [read_flow, write_flow])[1]
    bound = min(read, key=lambda crossing: crossing.rate / crossing.weight).stage
    if read_flow.cap < min(crossing.rate / crossing.weight for crossing in read):
        bound = "outstanding"
    return FarPath(
        tuple(read), tuple(write), read_latency, write_latency, read_flow.cap, write_flow.cap, read_rate, write_rate,
        write_rate_reading, bound, _kind(bound), burst_rate, read_parts, write_parts, mover.setup if mover else 0.0,
    )  # fmt: skip


def _moving(scenario: ScenarioResolved, wire: float, round_trip: float) -> Moving | None:
    """The pool's mover at the page size of the scenario; `wire`: bytes it moves per raw byte."""
    pool, gpu, codec = scenario.pool, scenario.gpus.gpu, scenario.kv.codec
    if pool is None or pool.mover is None or pool.mover.method == "push":
        return None
    model = scenario.model
    token = 2.0 * model.kv_heads_per_rank(scenario.gpus.tensor_parallel) * model.head_dim * model.kv_bytes
    arrays = codec.arrays if codec.decompress_at == "gpu" else 1
    return moving(pool.mover, scenario.kv.block_tokens * token * wire, arrays, round_trip, gpu.launch)


def _switches(pool: Pool, own_ports: int, share: float) -> tuple[list[tuple[str, float]], list[tuple[str, float]]]:
    """(stage, bytes/s) of the switch ports on the way to the GPUs, and on the way to the boards."""
    up: list[tuple[str, float]] = []
    if pool.leaf:
        leaf, count = pool.leaf, share * pool.leaves
        up.append(("leaf.down", count * leaf.downlinks * leaf.port_bandwidth))
        up.append(("leaf", count * leaf.uplinks * leaf.port_bandwidth))
    if pool.switch:
        switch = pool.switch
        if not pool.leaf:
            up.append(("switch.down", share * switch.downlinks * switch.port_bandwidth))
        # a replica's ports are its own; it has at most one for each port of its GPUs, and a fair part of the uplinks
        uplinks = min(float(own_ports), switch.uplinks * share)
        up.append(("switch", uplinks * switch.port_bandwidth))
    return up, up[::-1]


def _latency(scenario: ScenarioResolved, fill: bool) -> Parts:
    """(device, s) of request and answer, with the load of others on what is shared."""
    pool, port = scenario.pool, scenario.gpus.gpu.link
    assert pool is not None
    board, load, most = pool.board, pool.others_load, pool.saturation
    way = [("gpu.port", port.latency)]
    if pool.switch:
        way.append(("switch", loaded(pool.switch.latency, pool.switch.load_factor, load, most)))
    if pool.leaf:
        way.append(("leaf", loaded(pool.leaf.latency, pool.leaf.load_factor, load, most)))
    way.append(("pool.link", loaded(pool.link.latency, pool.link.load_factor, load, most)))
    memory = loaded(board.memory_latency, board.load_factor, load, most)
    inside = [("pool.translation", board.translation), ("pool.directory", board.directory), ("pool.memory", memory)]
    if fill:
        inside.append(("pool.engine", board.engine_fill))
    return (*way, *inside, *way[::-1])


def single_way(scenario: ScenarioResolved, read: bool = True) -> list[tuple[str, float]]:
    """(device, raw bytes/s) of the devices that a lone burst crosses: one of each kind, to itself."""
    pool, gpu, codec = scenario.pool, scenario.gpus.gpu, scenario.kv.codec
    assert pool is not None
    place, side = (codec.decompress_at, "read") if read else (codec.compress_at, "write")
    wire = 1.0 / codec.ratio if place == "gpu" else 1.0
    way = [("pool.memory", pool.board.memory_bandwidth * codec.ratio)]
    if place == "fpga":
        way.append(("pool.decompress" if read else "pool.compress", pool.board.engine_rate))
    way.append((f"pool.dma.{side}", pool.board.dma_bandwidth / wire))
    way.append((f"pool.link.{side}", getattr(pool.link, f"{side}_bandwidth") / wire))
    for name, switch in (("leaf", pool.leaf), ("switch", pool.switch)):
        if switch:
            way.append((f"{name}.{side}", switch.port_bandwidth / wire))
    way.append((f"gpu.port.{side}", getattr(gpu.link, f"{side}_bandwidth") / wire))
    return [*way, ("gpu.staging", gpu.staging_bandwidth / wire)] if read else way[::-1]


def _weights(path: list[Crossing]) -> tuple[tuple[str, float], ...]:
    """Stages of a path, each once."""
    weights: dict[str, float] = {}
    for stage, _, weight in path:
        weights[stage] = weights.get(stage, 0.0) + weight
    return tuple(weights.items())


def _kind(stage: str) -> str:
    if stage.startswith("pool.dma") or stage == "outstanding":
        return "dma"
    return {"pool.memory": "pool_memory", "pool.decompress": "decompress", "gpu.staging": "staging"}.get(stage, "link")
