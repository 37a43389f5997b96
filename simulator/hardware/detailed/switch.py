"""A switch: input queues for each output port, and an arbiter at every output.

Modelled: a burst waits in the queue of its input (virtual output queues: an input blocked at one output does not block its
traffic for others) until the arbiter of its output port picks that input; classes are strict, the arbiter decides within a
class. Port to port takes `latency`, an output carries `port_bandwidth`. The buffer of an output's queues is finite: a sender
waits while it is full and holds a burst from its own input. (The first of each input goes on while it comes in: packets of all
inputs take turns, so that a full buffer keeps nobody from its share.)
    round_robin  the inputs in turn
    weighted     deficit round robin: an input sends up to its weight times a quantum of bytes a turn, so large bursts do not
                 crowd out small ones; inputs that always wait get bytes in proportion to their weights
    deadline     the burst that somebody will need first
Not modelled: a limit of the crossbar (it is as fast as its ports together), multicast.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import simpy

from simulator.hardware.detailed.device import CLASSES, Burst, Device


@dataclass(frozen=True)
class SwitchParameters:
    port_bandwidth: float  # bytes/s per direction and port
    latency: float  # s, port to port
    buffer: float  # bytes per output port
    arbitration: str  # a name in ARBITERS
    weights: tuple[float, ...] = ()  # of the inputs in turn; (): equal


class Arbiter(Protocol):
    """A pure decision: which of the inputs with something to send is served next."""

    def pick(self, inputs: Sequence[deque[Burst]]) -> int: ...


class RoundRobin:
    def __init__(self, inputs: int, weights: Sequence[float] = ()):
        self._last = inputs - 1

    def pick(self, inputs: Sequence[deque[Burst]]) -> int:
        count = len(inputs)
        self._last = next(at % count for at in range(self._last + 1, self._last + 1 + count) if inputs[at % count])
        return self._last


class Weighted:
    """Deficit round robin (Shreedhar and Varghese, 1995); weights default to equal."""

    def __init__(self, inputs: int, weights: Sequence[float] = (), quantum: float = 4096.0):
        self._quanta = [quantum * (weights[at % len(weights)] if weights else 1.0) for at in range(inputs)]
        self._deficit = [0.0] * inputs
        self._at = -1  # the input whose turn it is

    def pick(self, inputs: Sequence[deque[Burst]]) -> int:
        at = self._at
        if at >= 0 and inputs[at] and self._deficit[at] >= inputs[at][0].size:
            self._deficit[at] -= inputs[at][0].size
            return at
        if at >= 0 and not inputs[at]:
            self._deficit[at] = 0.0
        busy = [one % len(inputs) for one in range(at + 1, at + 1 + len(inputs)) if inputs[one % len(inputs)]]
        # whole turns in which nobody could send yet, at once
        turns = min(-(-max(0.0, inputs[one][0].size - self._deficit[one]) // self._quanta[one]) for one in busy)
        for one in busy:
            self._deficit[one] += max(0.0, turns - 1.0) * self._quanta[one]
        for one in busy:
            self._deficit[one] += self._quanta[one]
            if self._deficit[one] >= inputs[one][0].size:
                self._deficit[one] -= inputs[one][0].size
                self._at = one
                return one
        raise AssertionError("one of the inputs has enough after that many turns")


class Deadline:
    def __init__(self, inputs: int, weights: Sequence[float] = ()):
        pass

    def pick(self, inputs: Sequence[deque[Burst]]) -> int:
        return min((at for at, queue in enumerate(inputs) if queue), key=lambda at: (inputs[at][0].deadline, at))


ARBITERS: dict[str, Callable[[int, Sequence[float]], Arbiter]] = {
    "round_robin": RoundRobin,
    "weighted": Weighted,
    "deadline": Deadline,
}


class SwitchOutput(Device):
    """One output port of a switch and the queues of all inputs for it."""

    def __init__(self, env: simpy.Environment, name: str, spec: SwitchParameters, inputs: int, weight: float):
        self.spec = spec
        self.inputs = [[deque[Burst]() for _ in range(inputs)] for _ in range(CLASSES)]
        self._arbiters = [ARBITERS[spec.arbitration](inputs, spec.weights) for _ in range(CLASSES)]
        self._waiting = [0] * CLASSES
        self._from = [0] * inputs  # bursts on their way or waiting
        super().__init__(env, name, spec.port_bandwidth, weight, spec.latency, spec.buffer)

    def has_room(self, burst: Burst) -> bool:
        return self.backlog < self.buffer or not self._from[burst.source]

    def send(self, burst: Burst, delay: float = 0.0) -> None:
        self._from[burst.source] += 1
        super().send(burst, delay)

    def _release(self, burst: Burst) -> None:
        self._from[burst.source] -= 1
        super()._release(burst)

    def _take(self, burst: Burst) -> None:
        self.inputs[burst.priority][burst.source].append(burst)
        self._waiting[burst.priority] += 1
        self.wake()

    def choose(self) -> Burst | None:
        for urgency, waiting in enumerate(self._waiting):
            if waiting:
                inputs = self.inputs[urgency]
                self._waiting[urgency] -= 1
                return inputs[self._arbiters[urgency].pick(inputs)].popleft()
        return None
