"""A pool that several replicas share: their transfers are flows of one fabric (design 3.3).

Every replica's far reads cross the boards, their links and the switches that all use, and its own GPU ports. While several
replicas transfer, each gets its max-min fair share of what they have in common, demand of one before prefetches of another,
and shares change at the very moment at which a transfer begins or ends (`hardware.fabric`). Nothing is averaged over a step.

    reads    one stream a replica: demand first, else in the order of issue, which is that of use; a page that is asked for is
             ready one latency later; a demand that becomes ready takes the place of a prefetch, which goes on behind it
    writes   one stream a replica of class write-back, in pieces of a part of L2

Between tenants of different weight a replica's flows count with the mean weight of those whose KV it reads, by bytes, as of the
step in which a flow begins (`tenants.py`).
A replica alone gets what `prefetch.pipeline` computes in closed form (tests hold them together).
Stages are reduced before the run: of stages with the same users, in the same proportions, the narrowest is all that can bind.
L3 is one as well: a replica may claim what the others leave of it (`Room`).
Not modelled: latency that grows with the load that is simulated (`load_factor` counts others_load only), credits, bursts.
Events: about seven for each layer that reads far pages, three for each piece of write-back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from math import inf, nextafter
from typing import TYPE_CHECKING

import numpy as np
import simpy

from simulator.hardware.fabric import DEMAND, PREFETCH, WRITE_BACK, Fabric, Flow, Share, Stage
from simulator.hardware.pool import FarPath, far_path, ports
from simulator.kvcache.geometry import Geometry
from simulator.kvcache.residency import Split
from simulator.scenario.resolved import ScenarioResolved
from simulator.scheduler.detailed import EventFar
from simulator.scheduler.swap import Swap, Ways, host_rates

if TYPE_CHECKING:
    from simulator.scheduler.engine import Engine

PIECES_OF_L2 = 128  # write-back moves in pieces of at most so small a part of L2
Way = tuple[tuple[Stage, float], ...]
Weights = dict[str, float]  # user -> wire bytes per raw byte
Crossing = tuple[str, float, str, float]  # stage, wire bytes/s, user, wire bytes per raw byte


def is_shared(stage: str) -> bool:
    """Boards, their links and switches are everybody's; the ports of a replica's GPUs are its own."""
    return stage.startswith(("pool.", "leaf", "switch", "outstanding"))


class SharedFabric:
    """The fabric and the stages that several replicas share, reduced to those that can bind."""

    def __init__(
        self, env: simpy.Environment, crossings: Sequence[Crossing], checked: bool = False, changing: bool = False
    ):  # fmt: skip
        """`changing`: any stage may come to bind when rates change, so all finite ones are kept."""
        self.env = env
        self.fabric = Fabric(env, checked)
        self.stages: dict[str, Stage] = {}  # those that are left, by name
        self._ways: dict[str, list[tuple[Stage, float]]] = {}
        for (name, rate), users in (_every if changing else _narrowest)(crossings).items():
            stage = self.stages[name] = Stage(name, rate)
            for user, weight in users:
                self._ways.setdefault(user, []).append((stage, weight))

    @staticmethod
    def reduced(crossings: Sequence[Crossing]) -> list[tuple[str, float, int]]:
        """(stage, wire bytes/s, replicas that use it) of those that are left."""
        capacity = {name: rate for name, rate, _, _ in crossings}
        kept = _narrowest(crossings).items()
        return [(name, capacity[name], len({user.split(".")[0] for user, _ in users})) for (name, _), users in kept]

    def system(self, number: int, path: FarPath) -> Flows:
        """What moves the bytes of a replica."""
        read, write = (self.way(f"{number}.{side}") for side in ("read", "write"))
        return Flows(self.env, self.fabric, read, write, path.read_latency)

    def way(self, user: str) -> Way:
        """The stages that a user crosses; none that is finite: nothing takes time."""
        return tuple(self._ways.get(user, ()))


def _every(crossings: Sequence[Crossing]) -> dict[tuple[str, float], tuple[tuple[str, float], ...]]:
    """(stage, rate) -> (user, weight) of all finite stages."""
    found: dict[tuple[str, float], Weights] = {}
    for name, rate, user, weight in crossings:
        if rate < inf:
            users = found.setdefault((name, rate), {})
            users[user] = users.get(user, 0.0) + weight
    return {stage: tuple(users.items()) for stage, users in found.items()}


def _narrowest(crossings: Sequence[Crossing]) -> dict[tuple[str, float], tuple[tuple[str, float], ...]]:
    """(stage, rate) -> (user, weight) of the stages that can bind: of those with the same users, in the same proportions, the
    narrowest; weights are scaled so that the first is 1."""
    found: dict[str, tuple[float, Weights]] = {}  # stage -> capacity, users
    for name, rate, user, weight in crossings:
        capacity, users = found.setdefault(name, (rate, {}))
        users[user] = users.get(user, 0.0) + weight
    narrowest: dict[tuple[tuple[str, float], ...], tuple[float, str]] = {}
    for name, (capacity, users) in found.items():
        first = next(iter(users.values()))
        key = tuple((user, round(weight / first, 12)) for user, weight in users.items())
        if capacity < inf and (key not in narrowest or capacity / first < narrowest[key][0]):
            narrowest[key] = (capacity / first, name)
    return {(name, rate): key for key, (rate, name) in narrowest.items()}


def far_crossings(scenario: ScenarioResolved, number: int) -> list[Crossing]:
    """Of reads and write-back of a replica; its own stages have its number in their name."""
    pool, path = scenario.pool, far_path(scenario)
    assert pool is not None
    found: list[Crossing] = []
    for side, crossings, cap in (("read", path.read, path.read_cap), ("write", path.write, path.write_cap)):
        user = f"{number}.{side}"
        for name, rate, weight in crossings:
            own = not is_shared(name) or name in ("switch.read", "switch.write")
            found.append((own_stage(name, number) if own else name, rate, user, weight))
        if pool.switch:  # beside a replica's own ports of it
            wire = next(weight for name, _, weight in crossings if name == f"switch.{side}")
            found.append((f"switch.{side}", pool.switch.uplinks * pool.switch.port_bandwidth, user, wire))
        if cap < inf:  # the descriptors of the boards are everybody's, and last as long as a replica's round trip
            found.append((f"outstanding.{side}", 1.0, user, 1.0 / cap))
    return found


def host_crossings(scenario: ScenarioResolved, number: int) -> list[Crossing]:
    """Of sequences that a replica swaps to its host: its own ports, which its far reads cross as well."""
    out, back = host_rates(scenario, ports(scenario))
    return [
        (own_stage("gpu.port.write", number), out, f"{number}.host.out", 1.0),
        (own_stage("gpu.port.read", number), back, f"{number}.host.back", 1.0),
    ]


def swaps_together(
    swaps: Sequence[Swap | None], latencies: Sequence[float], fabric: SharedFabric, share: Callable[[int], Share]
) -> None:
    """Copies of replicas that share a pool are flows of its fabric; the room in it is one for all. `latencies`: of reads."""
    together = [swap for swap in swaps if swap is not None and swap.path is not None]
    for number, swap in enumerate(swaps):
        if swap is not None:
            out, back = ("write", "read") if swap.path is not None else ("host.out", "host.back")
            ways = fabric.way(f"{number}.{out}"), fabric.way(f"{number}.{back}"), fabric.way(f"{number}.read")
            swap.ways = Ways(fabric.fabric, *ways, latencies[number], share)
            if swap.path is not None:
                swap.others = partial(_held, [other for other in together if other is not swap])


def _held(swaps: Sequence[Swap]) -> int:
    return sum([swap.blocks for swap in swaps])


def own_stage(name: str, number: int) -> str:
    return f"{name} of replica {number}"


def transfer_crossings(sender: ScenarioResolved, receiver: ScenarioResolved, numbers: tuple[int, int]) -> list[Crossing]:
    """Of KV that goes from the GPUs of one replica to those of another."""
    way, (start, end) = sender.cluster.transfer, numbers
    assert way is not None
    out, into = ((one.gpus.tensor_parallel * one.gpus.data_parallel, one.gpus.gpu.link) for one in (sender, receiver))
    user = f"{start} to {end}"
    return [
        (own_stage("gpu.port.write", start), out[0] * out[1].write_bandwidth, user, 1.0),
        ("transfer.link", way.links * way.link.read_bandwidth, user, 1.0),
        (own_stage("gpu.port.read", end), into[0] * into[1].read_bandwidth, user, 1.0),
    ]


def transfer_most(sender: ScenarioResolved, receiver: ScenarioResolved) -> float:
    """Most bytes/s of one prompt: what the ports of one of several replicas in lock step carry."""
    rates = [
        (sender.gpus, sender.gpus.gpu.link.write_bandwidth), (receiver.gpus, receiver.gpus.gpu.link.read_bandwidth),
    ]  # fmt: skip
    return min([gpus.tensor_parallel * rate for gpus, rate in rates if gpus.data_parallel > 1], default=inf)


class Read:
    """A transfer towards the GPUs."""

    __slots__ = ("_arrived", "_moments", "done", "flow", "priority", "ready", "since", "size")

    def __init__(self, size: float, done: simpy.Event, priority: int, ready: float):
        self.size, self.done, self.priority, self.ready = size, done, priority, ready
        self._arrived = self._moments = 0.0
        self.flow: Flow | None = None  # while it moves, since when
        self.since = 0.0

    @property
    def arrived(self) -> float:
        return self._arrived + (self.flow.moved if self.flow is not None else 0.0)

    @property
    def moments(self) -> float:
        """Bytes of one flow count as if they came evenly."""
        if self.flow is None:
            return self._moments
        return self._moments + self.flow.moved * 0.5 * (self.since + self.done.env.now)

    def settle(self) -> None:
        """The flow has ended, or is taken from the stage."""
        assert self.flow is not None
        moments, arrived = self.moments, self.arrived
        self._moments, self._arrived, self.flow = moments, arrived, None


class Flows:
    """Moves the bytes of one replica over the shared fabric; a `bursts.System`."""

    slices = count = 1

    def __init__(self, env: simpy.Environment, fabric: Fabric, read: Way, write: Way, latency: float):
        self.env, self.fabric, self._read, self._write, self.latency = env, fabric, read, write, latency
        self._queues: tuple[deque[Read], deque[Read]] = (deque(), deque())  # demand, prefetch; in the order of issue
        self._active: Read | None = None
        self._pieces: deque[tuple[float, Callable[[float], None]]] = deque()
        self._writing = False
        self.share = 1.0  # at the arbiters, of flows that begin from now on

    def read(self, size: float, priority: int, address: float, deadline: float = inf, delay: float = 0.0) -> Read:
        wait = delay + self.latency
        transfer = Read(size, self.env.event(), priority, self.env.now + wait)
        if size <= 0.0:
            transfer.done.succeed(transfer)
            return transfer
        self._queues[priority].append(transfer)
        if self._active is None or priority < self._active.priority:
            self.env.timeout(wait).callbacks.append(self._look)
        return transfer

    def write(self, size: float, address: float, told: Callable[[float], None] | None = None, most: float = inf) -> None:
        assert told is not None
        count = max(1, int(size / most * PIECES_OF_L2 / 1024)) if most < inf else 1
        self._pieces.extend([(size / count, told)] * count)
        if not self._writing:
            self._next_piece()

    def promote(self, transfer: Read) -> None:
        if transfer.priority == DEMAND:
            return
        transfer.priority = DEMAND
        if transfer.flow is not None:
            self.fabric.raise_priority(transfer.flow, DEMAND)
        self._queues[PREFETCH].remove(transfer)
        self._queues[DEMAND].append(transfer)

    def release(self, transfer: Read) -> None:
        """Nothing is held."""

    def cancel(self, transfer: Read) -> float:
        if transfer is self._active:
            self._stop()
        self._queues[transfer.priority].remove(transfer)
        self._look()
        return transfer.size - transfer.arrived

    def _look(self, _: object = None) -> None:
        """Move what is first of what is ready; it may take the place of something."""
        now = self.env.now * (1.0 + 1e-15)  # a timer may be one tick early
        best = next((one for queue in self._queues for one in queue if one.ready <= now), None)
        active = self._active
        if best is None:
            self._await()
        elif active is None or best.priority < active.priority:
            if active is not None:
                self._stop()
            self._move(best)

    def _move(self, best: Read) -> None:
        self._active, best.since = best, self.env.now
        best.flow = self.fabric.move(best.size - best.arrived, self._read, best.priority, share=self.share)
        best.flow.done.callbacks.append(lambda event: self._ended(best, event.value))

    def _await(self) -> None:
        """Nothing is ready: look again when the first in a queue is."""
        ready = [one.ready for queue in self._queues for one in queue]
        if ready:
            self.env.timeout(max(0.0, min(ready) - self.env.now)).callbacks.append(self._look)

    def _stop(self) -> None:
        """What moves makes room; it stays in its queue."""
        active, self._active = self._active, None
        assert active is not None and active.flow is not None
        self.fabric.cancel(active.flow)
        active.settle()

    def _ended(self, transfer: Read, flow: Flow) -> None:
        if transfer.flow is not flow:
            return  # it was stopped at the moment it ended
        transfer.settle()
        transfer._arrived = transfer.size
        self._queues[transfer.priority].remove(transfer)
        self._active = None
        self._look()
        transfer.done.succeed(transfer)

    def _next_piece(self) -> None:
        self._writing = bool(self._pieces)
        if self._writing:
            size, told = self._pieces.popleft()
            flow = self.fabric.move(size, self._write, WRITE_BACK, share=self.share)
            flow.done.callbacks.append(lambda _: self._written(size, told))

    def _written(self, size: float, told: Callable[[float], None]) -> None:
        self._next_piece()
        told(size)


class SharedFar(EventFar):
    """Far memory of one of the replicas."""

    def __init__(
        self, scenario: ScenarioResolved, geometry: Geometry, rng: np.random.Generator, pool: SharedFabric, number: int
    ):  # fmt: skip
        self.flows = pool.system(number, far_path(scenario))
        super().__init__(scenario, geometry, rng, pool.env, self.flows)

    def use(self, path: FarPath, devices: ScenarioResolved) -> None:
        super().use(path, devices)
        self.flows.latency = path.read_latency

    def cut_off(self) -> None:
        super().cut_off()
        self.cancel()


class Room:
    """L3 of a shared pool: what a replica may claim is what the others do not."""

    def __init__(self, blocks: int):
        self.blocks = blocks
        self.engines: list[Engine] = []

    def lend(self, engine: Engine) -> None:
        """Admission and placement of this replica count with what is left for it now."""
        now, others = engine.env.now, [other for other in self.engines if other is not engine]
        after = nextafter(now, inf)  # steps of those before it in turn that end now have ended
        left = self.blocks - sum([_claim(other, after if other.turn < engine.turn else now) for other in others])
        engine.residency.resize(max(0, left))
        engine.reach(engine.residency.capacity() if engine.reaches else engine.residency.l1_blocks)

    def freed(self, by: Engine) -> None:
        """A request has left a replica, now: others may wait for the room it had."""
        now = by.env.now
        for engine in self.engines:
            if engine is not by and engine.queue:
                engine.cut(now if by.turn < engine.turn else nextafter(now, inf))
                engine.wake()


def _claim(engine: Engine, moment: float) -> int:
    """Blocks of L3 that a replica has before a moment, or may come to need for what it has admitted."""
    residency = engine.residency
    inclusive = not isinstance(residency, Split)
    return max(residency.l3_used, engine.claimed_before(moment) - (0 if inclusive else residency.l1_blocks), 0)
