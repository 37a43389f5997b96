"""The DMA engine of a board: descriptor ring, outstanding limit, scatter-gather; with it the board's look-ups.

Modelled: descriptors wait in the ring, by class; the engine takes one up every `descriptor` seconds, plus `segment` seconds
for each further piece of its scatter-gather list, translates its addresses (walks follow each other), asks the directory
(recalls and snoops delay it by round trips), and sends it into the board. At most `outstanding` wire bytes are under way;
a descriptor frees its share when its last byte has been delivered and acknowledged (Little: outstanding / round trip).
A train of k descriptors cannot wait for the window as one, it would hide the window or be larger than it. It is paced:

    seconds of a train = bytes of the train x round trip of one descriptor / outstanding,

the round trip being the shortest that was measured: the way of a head, and the time of one descriptor's data at the slowest
device. (Longer ones waited behind other trains; single descriptors would have waited behind a window at most.) Its data
leave spread over that time, and a train of the same or a lower class waits for it; a more urgent one, as single descriptors
would, does not.
Not modelled: completion interrupts, a ring that is full (the host keeps what does not fit).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf

import simpy

from simulator.hardware.detailed.device import CLASSES, Burst, Device
from simulator.hardware.detailed.lines import Lines
from simulator.hardware.detailed.translation import Translation
from simulator.hardware.fabric import DEMAND, WRITE_BACK


@dataclass(frozen=True)
class DmaParameters:
    bandwidth: float  # bytes/s per direction
    outstanding: float  # wire bytes
    descriptor: float  # s between two descriptors
    segment: float  # s for each further piece of a scatter-gather list
    piece: float  # raw bytes that lie together in GPU memory (a page); a larger descriptor is a list of them


class DmaEngine(Device):
    """One direction. Its service is the descriptor's; the bytes it moves are another device of the route (`DataMover`)."""

    def __init__(
        self, env: simpy.Environment, name: str, spec: DmaParameters, translation: Translation, directory: Lines,
        wire_weight: float, round_trip: float,
    ):  # fmt: skip
        """`wire_weight`: outstanding bytes per raw byte; `round_trip`: s of a message to a GPU and back."""
        self.spec, self.translation, self.directory = spec, translation, directory
        self._wire_weight, self._message = wire_weight, round_trip
        self.in_flight = 0.0  # wire bytes
        self.most_in_flight = 0.0
        self.round_trip = 0.0  # s, of a descriptor, the shortest so far; 0 before the first
        self._lines_delay = 0.0  # s that the directory delays the burst in service
        self._pace = 0.0  # s over which the data of the burst in service leave
        self._ready = [0.0] * CLASSES  # when the pace lets the next burst of each class go
        self._longest = 0.0  # wire bytes of the longest train so far
        self._timer = inf  # when the engine will look again because of that
        super().__init__(env, name, spec.bandwidth, wire_weight, 0.0)

    def choose(self) -> Burst | None:
        now, again = self.env.now, inf
        for queue, ready in zip(self.queues, self._ready):
            if queue:
                if ready > now:
                    again = min(again, ready)
                    continue
                burst = queue[0]
                wire = burst.size * self._wire_weight
                # the pace holds trains to the window; this only keeps the next from running ahead of it
                self._longest = max(self._longest, wire if burst.descriptors > 1 else 0.0)
                limit = self.spec.outstanding + 2.0 * self._longest
                if self.in_flight > 0.0 and self.in_flight + wire > limit * (1.0 + 1e-12):
                    break
                return queue.popleft()
        if again < self._timer:
            self._timer = again
            self.env.timeout(again - now).callbacks.append(self._look_again)
        return None

    def _look_again(self, _: simpy.Event) -> None:
        self._timer = inf
        self.wake()

    def service(self, burst: Burst) -> float:
        spec, wire = self.spec, burst.size * self._wire_weight
        burst.issued = self.env.now
        self.in_flight += wire
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        walks = self.translation.look_up(burst.address, burst.size) * self.translation.spec.walk
        pieces = max(0.0, -(-(burst.size / burst.descriptors) // spec.piece) - 1.0)
        handling = burst.descriptors * (spec.descriptor + pieces * spec.segment)
        rounds = self._ask_directory(burst)
        first = walks if burst.descriptors == 1 else min(walks, self.translation.spec.walk)
        self._lines_delay = first + rounds * self._message
        self._pace = max(handling, walks)
        if burst.descriptors > 1:
            self._pace = max(self._pace, wire * self.round_trip / spec.outstanding)
            now = self.env.now
            for urgency in range(burst.priority, CLASSES):
                self._ready[urgency] = max(self._ready[urgency], now) + self._pace
        return max(handling, walks)

    def _ask_directory(self, burst: Burst) -> int:
        """Round trips before the data may move: those of different lines overlap."""
        directory, gpu = self.directory, burst.rank
        lines = directory.lines(burst.address, burst.size)
        if burst.priority == DEMAND:
            return directory.read_all(lines, gpu)
        return directory.write_through(lines, gpu) if burst.priority == WRITE_BACK else directory.current_all(lines, gpu)

    def data_time(self, burst: Burst) -> float:
        return self._pace * (1.0 - 1.0 / burst.descriptors)  # of a single one, only the descriptor is here

    def delay(self, burst: Burst) -> float:
        return self._lines_delay

    def acknowledge(self, burst: Burst) -> None:
        """The burst has been delivered and the acknowledgement is back: its share of the window is free."""
        self.in_flight -= burst.size * self._wire_weight
        if self.in_flight < 1e-6:
            self.in_flight = 0.0
        trip = self.env.now - burst.issued - (burst.tail - burst.head) + burst.slowest / burst.descriptors
        self.round_trip = min(trip, self.round_trip) if self.round_trip else trip
        self.wake()

    def promote(self, wanted: Callable[[Burst], bool]) -> None:
        """Descriptors in the ring that somebody waits for now become demand."""
        for queue in self.queues[DEMAND + 1 :]:
            raised = [burst for burst in queue if wanted(burst)]
            if raised:
                kept = [burst for burst in queue if not wanted(burst)]
                queue.clear()
                queue.extend(kept)
                for burst in raised:
                    burst.priority = DEMAND
                self.queues[DEMAND].extend(raised)
                self.wake()
