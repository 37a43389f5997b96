"""The memory controller of a board: channels, banks and rows, read/write turnaround.

Modelled: addresses are interleaved over the channels, so a descriptor of at least channels x interleave bytes uses them all;
a smaller one uses some and leaves the others to its neighbours (the controller's time is that of all channels together, the
data take the time of the channels used). Inside a channel consecutive rows lie in different banks, so opening one is hidden
behind the transfer of others: a row of data takes max(row / rate of the channel, row cycle / banks). Reads go first; writes
wait until no read does or `write_batch` bytes have gathered, and then go as a batch, because each change of direction costs
a `turnaround`:

    bytes/s of alternating batches of b bytes = 2 b / (2 b / rate + 2 turnarounds).

The first access of a burst opens its rows within the board's memory latency.
Not modelled: refresh, row conflicts between streams, reordering within a class.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, inf

import simpy

from simulator.hardware.detailed.device import Burst, Device
from simulator.hardware.fabric import WRITE_BACK


@dataclass(frozen=True)
class MemoryParameters:
    bandwidth: float  # bytes/s, all channels, peak
    latency: float  # s
    channels: int
    banks: int  # per channel
    row: float  # bytes of an open row
    row_cycle: float  # s between two activations of a bank
    interleave: float  # bytes on a channel before the next one
    turnaround: float  # s to change between reading and writing
    write_batch: float  # stored bytes that are written in a row while reads wait

    @property
    def streaming(self) -> float:
        """Bytes/s of long sequential accesses in one direction."""
        if self.bandwidth == inf:
            return inf
        per_row = max(self.row * self.channels / self.bandwidth, self.row_cycle / self.banks)
        return self.row * self.channels / per_row

    def used(self, size: float) -> int:
        """Channels that a descriptor of so many stored bytes uses."""
        return min(self.channels, max(1, ceil(size / self.interleave)))


class MemoryController(Device):
    def __init__(self, env: simpy.Environment, name: str, spec: MemoryParameters, weight: float, before: float = 0.0):
        """`before`: s of look-ups that come before the access (translation and directory)."""
        self.spec = spec
        self.turnarounds = 0
        self._writing = False
        self._batch = 0.0  # stored bytes of the batch of writes that is under way
        super().__init__(env, name, spec.streaming, weight, spec.latency + before)

    def choose(self) -> Burst | None:
        demand, prefetch, writes = self.queues
        reads = bool(demand or prefetch)
        if writes:
            waiting = sum([burst.size for burst in writes]) * self.weight if reads else inf
            going = self._writing and self._batch < self.spec.write_batch
            if not reads or going or (not self._writing and waiting >= self.spec.write_batch):
                if not self._writing:
                    self._batch = 0.0
                self._batch += writes[0].size * self.weight
                return writes.popleft()
        if demand:
            return demand.popleft()
        return prefetch.popleft() if prefetch else None

    def service(self, burst: Burst) -> float:
        stored = self._stored(burst)
        self.carried += stored - burst.size * self.weight  # the mean is counted by `Device`
        seconds = stored / self.rate
        writing = burst.priority == WRITE_BACK
        if writing != self._writing:
            self._writing = writing
            self.turnarounds += 1
            seconds += self.spec.turnaround
        return seconds

    def _stored(self, burst: Burst) -> float:
        """Bytes of a burst in the memory: never more than raw."""
        return burst.size * min(self.weight * burst.stored, max(1.0, self.weight))

    def data_time(self, burst: Burst) -> float:
        stored = self._stored(burst)
        used = min(self.spec.channels, self.spec.used(stored / burst.descriptors) * burst.descriptors)
        return stored / self.rate * self.spec.channels / used
