"""A detailed device: input queues, one server, and the next device on the way (design 3.7).

Modelled: bursts (DMA descriptors) queue by class, the most urgent class first and in order of arrival within it; the
device serves one at a time for the time its kind needs, and hands it on. Data is cut through: the head of a burst leaves
`latency` after its service began, its tail when the last byte has come in and has been served,

    tail = max(begin + time of the data here, tail as it came in) + latency,

so that one burst alone takes the sum of all latencies plus its time at the slowest device. A device does not start a burst
while the input buffer of the next one is full (credits: back-pressure, head-of-line blocking).
Not modelled: interleaving below a burst; a burst in service is not interrupted.

A *train* is several descriptors of one transfer that move as one burst: devices that work for each descriptor do that work
for each. Trains keep the number of events down.

Events per burst and device: one for its service, one for its head if the device has a latency, one to wake an idle device.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass
from math import inf
from typing import Any

import simpy

CLASSES = 3  # demand, prefetch, write-back (`hardware.fabric`)


@dataclass(eq=False, slots=True)
class Burst:
    """One descriptor, or a train of them."""

    size: float  # raw bytes
    descriptors: int
    priority: int
    rank: int
    address: int  # of its first raw byte on its board
    route: tuple[Device, ...]
    finished: Callable[[Burst], None]  # called when the last byte has left the last device of the route
    deadline: float = inf  # s, when somebody will need it; for arbiters that ask
    source: int = 0  # which input of a switch it comes in by
    stored: float = 1.0  # its compressed size relative to the mean one
    hop: int = 0  # index in the route of the device it is at
    issued: float = -1.0  # s, when the DMA engine took it up; -1: not yet
    head: float = 0.0  # s, when its head reached the last device
    tail: float = 0.0  # s, when its last byte leaves the device it is at
    slowest: float = 0.0  # s of its data at the slowest device so far, that of the descriptors (the first) left out


class Device:
    """A server with a queue for each class. Kinds of devices override `service` and `data_time`."""

    def __init__(self, env: simpy.Environment, name: str, rate: float, weight: float, latency: float, buffer: float = inf):
        """`rate` in wire bytes/s, `weight` wire bytes per raw byte, `buffer` raw bytes of input that fit."""
        self.env, self.name = env, name
        self.rate, self.weight, self.latency, self.buffer = rate, weight, latency, buffer
        self.queues: tuple[deque[Burst], ...] = tuple(deque() for _ in range(CLASSES))
        self.backlog = 0.0  # raw bytes sent here and not yet in service
        self.busy = 0.0  # s
        self.carried = 0.0  # wire bytes
        self.bursts = 0
        self.blocked = 0.0  # s that a burst in hand waited for room in the next device
        self._bell: simpy.Event | None = None  # rung when something arrives at an idle device
        self._room: simpy.Event | None = None  # rung when the buffer has room again
        env.process(self._serve())

    def service(self, burst: Burst) -> float:
        """Seconds until the next burst can start."""
        return burst.size * self.weight / self.rate

    def data_time(self, burst: Burst) -> float:
        """Seconds that the data of a burst take here, head to tail."""
        return burst.size * self.weight / self.rate

    def send(self, burst: Burst, delay: float = 0.0) -> None:
        """A burst is on its way here; its head arrives after `delay`."""
        self.backlog += burst.size
        if delay > 0.0:
            self.env.timeout(delay).callbacks.append(lambda _: self._take(burst))
        else:
            self._take(burst)

    def _take(self, burst: Burst) -> None:
        self.queues[burst.priority].append(burst)
        self.wake()

    def wake(self) -> None:
        """Look at the queues again."""
        bell = self._bell
        if bell is not None:
            self._bell = None
            bell.succeed()

    def choose(self) -> Burst | None:
        """Take the burst to serve next out of the queues; None if there is none that may be served."""
        for queue in self.queues:
            if queue:
                return queue.popleft()
        return None

    def _serve(self) -> Generator[simpy.Event, Any, None]:
        env = self.env
        while True:
            burst = self.choose()
            if burst is None:
                self._bell = bell = env.event()
                yield bell
                continue
            route, after = burst.route, burst.hop + 1
            following = route[after] if after < len(route) else None
            if following is not None and not following.has_room(burst):
                since = env.now
                while not following.has_room(burst):
                    yield following.room()
                self.blocked += env.now - since
            self._release(burst)
            begin = env.now
            seconds = self.service(burst)
            self.busy += seconds
            self.carried += burst.size * self.weight
            self.bursts += 1
            self._pass_on(burst, begin, following)
            if seconds > 0.0:
                yield env.timeout(seconds)

    def _release(self, burst: Burst) -> None:
        self.backlog -= burst.size
        if self._room is not None:
            room, self._room = self._room, None
            room.succeed()

    def has_room(self, burst: Burst) -> bool:
        """Whether a burst may be sent here: while the buffer is not full, a large one is cut through."""
        return self.backlog < self.buffer

    def room(self) -> simpy.Event:
        """Fires when a burst has left the buffer; whoever waits looks again."""
        if self._room is None:
            self._room = self.env.event()
        return self._room

    def delay(self, burst: Burst) -> float:
        """Seconds from the start of service until the head of a burst leaves."""
        return self.latency

    def _pass_on(self, burst: Burst, begin: float, following: Device | None) -> None:
        latency = self.delay(burst)
        data = self.data_time(burst)
        tail = begin + data
        if burst.hop and data > burst.slowest:
            burst.slowest = data
        burst.tail = (tail if tail > burst.tail else burst.tail) + latency
        if following is None:
            burst.head = begin + latency
            wait = burst.tail - begin
            self.env.timeout(wait if wait > 0.0 else 0.0).callbacks.append(lambda _: burst.finished(burst))
        else:
            burst.hop += 1
            following.send(burst, latency)
