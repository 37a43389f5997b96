"""The devices of a scenario, wired: what moves far KV between pool and GPUs, burst by burst (`devices: detailed`).

    read   DMA ring -> memory -> [decompression] -> data mover -> board link -> [leaf] -> [switch] -> GPU port -> HBM
    write  DMA ring -> GPU port -> [switch] -> [leaf] -> board link -> data mover -> [compression] -> memory

A request takes one crossing to the board, an acknowledgement one back; with the devices' latencies that is the unloaded
latency of `hardware.pool`, part by part. A transfer is cut into bursts for each rank, those of all ranks in turn, and placed
on the boards round robin, at random, or where least waits.

Symmetry: if ports, boards and switches divide into n equal slices, one slice is simulated with 1/n of the bytes; striping
makes all slices alike. Load of other replicas: shared devices work at the share that is left, with their loaded latency.
Not modelled: bursts of other replicas; which board holds which page (bursts are placed when they are read).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import ceil, floor, gcd, inf, log2

import numpy as np
import simpy

from simulator.hardware.detailed.board import BoardDevices, board_devices, crossing
from simulator.hardware.detailed.device import Burst, Device
from simulator.hardware.detailed.dma import DmaEngine
from simulator.hardware.detailed.gpu import CopyEngine, CopyEngineParameters
from simulator.hardware.detailed.link import LinkDirection, LinkParameters
from simulator.hardware.detailed.switch import SwitchOutput, SwitchParameters
from simulator.hardware.fabric import DEMAND, WRITE_BACK
from simulator.hardware.latency import loaded
from simulator.hardware.pool import left_over, ports
from simulator.scenario.resolved import ScenarioResolved, Switch

PIECES = 4  # bursts of a transfer to one rank, at least, before descriptors form trains


@dataclass(eq=False, slots=True)
class Transfer:
    """Bytes that are waited for together; `done` fires when the last of its bursts has been delivered."""

    size: float  # raw bytes on the slice
    done: simpy.Event
    left: int = 0  # bursts that have not been delivered
    bursts: list[Burst] = field(default_factory=list)  # in the order of issue
    arrived: float = 0.0  # raw bytes delivered
    moments: float = 0.0  # their sum, each times the second when it was


def slices(scenario: ScenarioResolved) -> int:
    """Into how many equal parts boards, ports and switches divide."""
    pool, ranks = scenario.pool, scenario.gpus.tensor_parallel
    assert pool is not None
    own = ports(scenario)
    uneven = pool.placement == "hash" or any(switch.weights for switch in (pool.switch, pool.leaf) if switch)
    if own * pool.gpus_per_port != ranks or uneven:
        return 1
    parts = gcd(pool.boards, own)
    if pool.switch:
        parts = gcd(parts, min(own, ceil(pool.switch.uplinks)))
    if pool.leaf:
        parts = gcd(parts, pool.leaves)
    return parts


def train_of(size: float, burst: float) -> int:
    """Descriptors of a train where `size` raw bytes go to one rank: a power of two, so that it gets `PIECES` bursts or more."""
    return int(2 ** max(0, floor(log2(size / (burst * PIECES))))) if size > burst * PIECES else 1


class FarSystem:
    """Moves bytes of one slice; sizes are raw bytes of the slice."""

    def __init__(
        self, env: simpy.Environment, scenario: ScenarioResolved, piece: float, rng: np.random.Generator, train: int | None = 1,
    ):  # fmt: skip
        """`piece`: raw bytes of a page on one rank; `train`: descriptors that move as one burst, None: as `train_of` says for
        each transfer; `rng` places bursts and draws their compressed sizes, uniform within `spread` of the codec's mean."""
        pool, gpus, codec = scenario.pool, scenario.gpus, scenario.kv.codec
        assert pool is not None
        self.env, self.scenario, self._rng = env, scenario, rng
        self.slices = slices(scenario)
        self.burst, self.train, self._spread = scenario.kv.burst, train, codec.spread
        self.ranks, self.count = gpus.tensor_parallel // self.slices, pool.boards // self.slices
        stored = 1.0 / codec.ratio
        self.read_wire = stored if codec.decompress_at == "gpu" else 1.0
        self.write_wire = stored if codec.compress_at == "gpu" else 1.0
        self.hop = crossing(scenario)
        self._placed = 0
        self.transfers = 0
        self.asked = {"read": 0.0, "write": 0.0}  # raw bytes
        self.cancelled = 0.0  # of those to read
        self.boards = [board_devices(env, scenario, index, piece) for index in range(self.count)]
        port = gpus.gpu.link
        self._gpus_per_port = pool.gpus_per_port
        numbers = range(ports(scenario) // self.slices)
        down, up = (LinkParameters(rate, port.latency, port.credits) for rate in (port.read_bandwidth, port.write_bandwidth))
        credits = pool.link.credits
        self._ports_read = [
            LinkDirection(env, f"gpu.port.{n}.read", down, self.read_wire, credits / self.read_wire) for n in numbers
        ]
        self._ports_write = [LinkDirection(env, f"gpu.port.{n}.write", up, self.write_wire) for n in numbers]
        for reading, writing in zip(self._ports_read, self._ports_write):
            writing.shares_with(reading, port.requests)
        staging = CopyEngineParameters(gpus.gpu.staging_bandwidth, 0.0)
        room = port.credits / self.read_wire
        self._staging = [CopyEngine(env, f"gpu.{n}.staging", staging, self.read_wire, room) for n in range(self.ranks)]
        inputs = self.count * pool.links_per_board
        root_outputs = min(ports(scenario), ceil(pool.switch.uplinks)) if pool.switch else 0  # degraded: not a whole number
        self._roots_read, self._roots_write = self._outputs("switch", pool.switch, inputs, root_outputs)
        leaf_outputs = pool.leaves * pool.leaf.uplinks if pool.leaf else 0
        self._leaves_read, self._leaves_write = self._outputs("leaf", pool.leaf, inputs, leaf_outputs)

    def _outputs(
        self, name: str, switch: Switch | None, inputs: int, outputs: int
    ) -> tuple[list[SwitchOutput], list[SwitchOutput]]:  # fmt: skip
        pool = self.scenario.pool
        assert pool is not None
        if switch is None:
            return [], []
        latency = loaded(switch.latency, switch.load_factor, pool.others_load, pool.saturation)
        share = left_over(pool) if name == "leaf" else min(1.0, switch.uplinks * left_over(pool) / outputs)
        found: list[list[SwitchOutput]] = []
        for side, weight in (("read", self.read_wire), ("write", self.write_wire)):
            rate, buffer = share * switch.port_bandwidth, switch.buffer / weight
            spec = SwitchParameters(rate, latency, buffer, switch.arbitration, switch.weights)
            count = range(max(1, outputs // self.slices))
            found.append([SwitchOutput(self.env, f"{name}.{n}.{side}", spec, max(inputs, self.ranks), weight) for n in count])
        return found[0], found[1]

    def read(self, size: float, priority: int, address: float, deadline: float = inf, delay: float = 0.0) -> Transfer:
        """Ask for `size` raw bytes after `delay`; `address` says where they lie (the same bytes again: the same address)."""
        return self._move(size, priority, address, deadline, delay + self.hop)

    def write(
        self, size: float, address: float, told: Callable[[float], None] | None = None, most: float = inf
    ) -> Transfer:  # fmt: skip
        """Write back `size` raw bytes; `told` hears of the bytes of every burst that has been written; trains that form by
        themselves have at most `most` bytes."""
        return self._move(size, WRITE_BACK, address, inf, 0.0, told, most)

    def _move(
        self, size: float, priority: int, address: float, deadline: float, request: float,
        told: Callable[[float], None] | None = None, most: float = inf,
    ) -> Transfer:  # fmt: skip
        transfer = Transfer(size, self.env.event())
        self.transfers += 1
        if size <= 0.0:
            transfer.done.succeed(transfer)
            return transfer
        each = size / self.ranks
        trains = self._trains(each, self.train or train_of(min(each, PIECES * most), self.burst))
        write = priority == WRITE_BACK
        self.asked["write" if write else "read"] += size
        # ranks lie one after the other and share no coherence line
        grain = max(self.boards[0].directory.spec.grain, 1.0)
        apart = (ceil(each / self.count / grain) + 1) * grain
        for board in self.boards:
            board.placed = {rank: address + rank * apart for rank in range(self.ranks)}

        def delivered(burst: Burst) -> None:
            transfer.left -= 1
            transfer.arrived += burst.size
            transfer.moments += burst.size * self.env.now
            if told is not None:
                told(burst.size)
            ring = burst.route[0]
            assert isinstance(ring, DmaEngine)
            self.env.timeout(self.hop, burst).callbacks.append(lambda timer: ring.acknowledge(timer.value))
            if not transfer.left:
                transfer.done.succeed(transfer)

        left = each
        for descriptors in trains:
            part = min(left, descriptors * self.burst)
            left -= part
            for rank in range(self.ranks):
                board = self.boards[self._place()]
                way = self._write_route(board, rank) if write else self._read_route(board, rank)
                burst = Burst(part, descriptors, priority, rank, int(board.placed[rank]), way, delivered, deadline)
                burst.source = rank if write else self.boards.index(board)
                board.placed[rank] += part
                if self._spread:
                    burst.stored = float(self._rng.uniform(1.0 - self._spread, 1.0 + self._spread))
                way[0].backlog += part  # from now on, for placement
                transfer.bursts.append(burst)
        transfer.left = len(transfer.bursts)
        if request > 0.0:
            self.env.timeout(request).callbacks.append(lambda _: self._post(transfer))
        else:
            self._post(transfer)
        return transfer

    def _trains(self, each: float, most: int) -> list[int]:
        """Descriptors of each burst to one rank: at most about `most`, as equal as whole descriptors allow, and as many bursts
        as share out evenly over the boards, so that a train loads no board more than its descriptors would."""
        descriptors = max(1, ceil(each / self.burst - 1e-9))
        count, turn = -(-descriptors // most), self.count // gcd(self.count, self.ranks)
        count = min(descriptors, -(-count // turn) * turn)
        return [descriptors // count + (number < descriptors % count) for number in range(count)]

    def _post(self, transfer: Transfer) -> None:
        for burst in transfer.bursts:
            ring = burst.route[0]
            ring.queues[burst.priority].append(burst)
            ring.wake()

    def _place(self) -> int:
        """The board of the next burst."""
        assert self.scenario.pool is not None
        kind, self._placed = self.scenario.pool.placement, self._placed + 1
        if self.count == 1:
            return 0
        if kind == "hash":
            return int(self._rng.integers(self.count))
        if kind == "least_loaded":
            return min(range(self.count), key=lambda at: (self.boards[at].read_ring.backlog, at))
        return (self._placed - 1) % self.count

    def _read_route(self, board: BoardDevices, rank: int) -> tuple[Device, ...]:
        inside: list[Device] = [board.read_ring, board.memory]
        if board.decompress:
            inside.append(board.decompress)
        inside += [board.read_mover, _turn(board.read_links, self._placed)]
        if self._leaves_read:
            inside.append(_turn(self._leaves_read, self._placed))
        if self._roots_read:
            inside.append(_turn(self._roots_read, self._placed))
        return (*inside, self._ports_read[rank // self._gpus_per_port], self._staging[rank])

    def _write_route(self, board: BoardDevices, rank: int) -> tuple[Device, ...]:
        way: list[Device] = [board.write_ring, self._ports_write[rank // self._gpus_per_port]]
        if self._roots_write:
            way.append(_turn(self._roots_write, self._placed))
        if self._leaves_write:
            way.append(_turn(self._leaves_write, self._placed))
        way += [_turn(board.write_links, self._placed), board.write_mover]
        if board.compress:
            way.append(board.compress)
        return (*way, board.memory)

    def promote(self, transfer: Transfer) -> None:
        """Somebody waits for this transfer: what of it is not yet under way goes before all prefetches."""
        waiting = {id(burst) for burst in transfer.bursts}
        for burst in transfer.bursts:
            if burst.issued < 0.0:
                burst.priority = DEMAND  # posted after its request has crossed
        for board in self.boards:
            board.read_ring.promote(lambda burst: id(burst) in waiting)

    def release(self, transfer: Transfer) -> None:
        """The GPUs give up their copies: they have been used."""
        for burst in transfer.bursts:
            ring = burst.route[0]
            if burst.priority == DEMAND and isinstance(ring, DmaEngine):
                ring.directory.evict_all(ring.directory.lines(burst.address, burst.size), burst.rank)

    def cancel(self, transfer: Transfer) -> float:
        """Nobody will read it any more: drop what has not been taken up; its raw bytes. Its `done` may never fire."""
        dropped = [burst for burst in transfer.bursts if burst.issued < 0.0]
        gone = {id(burst) for burst in dropped}
        transfer.bursts = []  # what is not posted yet never will be
        for board in self.boards:
            for queue in board.read_ring.queues:
                kept = [burst for burst in queue if id(burst) not in gone]
                queue.clear()
                queue.extend(kept)
        for burst in dropped:
            burst.route[0].backlog -= burst.size
        size = sum([burst.size for burst in dropped])
        self.cancelled += size
        return size

    def crossed(self) -> list[tuple[str, float, float]]:
        """(kind of device, raw bytes it should have carried, raw bytes it did), once nothing is under way any more."""
        boards, read, written = self.boards, self.asked["read"] - self.cancelled, self.asked["write"]
        kinds: list[tuple[str, float, Sequence[Device]]] = [
            ("pool.dma.read", read, [board.read_mover for board in boards]),
            ("pool.dma.write", written, [board.write_mover for board in boards]),
            ("pool.decompress", read, [board.decompress for board in boards if board.decompress]),
            ("pool.compress", written, [board.compress for board in boards if board.compress]),
            ("pool.link.read", read, [link for board in boards for link in board.read_links]),
            ("pool.link.write", written, [link for board in boards for link in board.write_links]),
            ("leaf.read", read, self._leaves_read), ("leaf.write", written, self._leaves_write),
            ("switch.read", read, self._roots_read), ("switch.write", written, self._roots_write),
            ("gpu.port.read", read, self._ports_read), ("gpu.port.write", written, self._ports_write),
            ("gpu.staging", read, self._staging),
        ]  # fmt: skip
        if not self._spread:  # otherwise what is stored is drawn
            kinds.append(("pool.memory", read + written, [board.memory for board in boards]))
        return [(kind, raw, sum([each.carried / each.weight for each in among])) for kind, raw, among in kinds if among]

    def devices(self) -> list[Device]:
        """All of them, for counters."""
        found: list[Device] = []
        for board in self.boards:
            found += [board.read_ring, board.write_ring, board.memory, board.read_mover, board.write_mover]
            found += [pipes for pipes in (board.decompress, board.compress) if pipes]
            found += [*board.read_links, *board.write_links]
        found += [*self._leaves_read, *self._leaves_write, *self._roots_read, *self._roots_write]
        return [*found, *self._ports_read, *self._ports_write, *self._staging]


def _turn(devices: list[LinkDirection] | list[SwitchOutput], number: int) -> Device:
    """The device of these with the least on its way; of equals the next in turn."""
    count = len(devices)
    if count == 1:
        return devices[0]
    return min((devices[(number + at) % count] for at in range(count)), key=_on_the_way)


def _on_the_way(device: Device) -> float:
    return device.backlog
